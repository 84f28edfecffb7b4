"""Images and classes that an arm fixes or breaks."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from ablate.analysis.prediction_changes import mcnemar, paired_shares, prediction_changes
from ablate.errors import StoreError


def frames(**right):
    return {
        arm: pd.DataFrame(np.asarray(table, bool), columns=range(100, 100 + len(table[0])))
        for arm, table in right.items()
    }


BASE = [[0, 0, 1, 1, 0, 1]] * 4
ARM = [[1, 0, 1, 0, 1, 1], [1, 0, 1, 0, 1, 1], [1, 0, 1, 0, 0, 1], [1, 1, 1, 0, 1, 0]]
TRUTH = np.array([0, 0, 0, 1, 1, 1])


def test_an_image_is_fixed_or_broken_where_it_is_so_under_every_seed():
    found = prediction_changes("arm", "base", frames(arm=ARM, base=BASE), TRUTH, ["cat", "dog"])
    assert [(i.index, i.truth, i.seeds, i.of) for i in found.fixed] == [(100, "cat", 4, 4)]
    assert [(i.index, i.truth) for i in found.broken] == [(103, "dog")]
    assert found.seeds == (0, 1, 2, 3)
    # No image follows any other assignment of directions to the four seeds.
    assert (found.by_chance, found.seldom_more) == (0, 0)


def test_with_ten_seeds_and_more_nine_in_ten_are_enough():
    arm, base = np.ones((20, 2), bool), np.zeros((20, 2), bool)
    arm[:2, 0] = False
    arm[:3, 1] = False
    found = prediction_changes("arm", "base", frames(arm=arm, base=base), np.zeros(2, int))
    assert [(i.index, i.seeds) for i in found.fixed] == [(100, 18)]


def test_classes_have_an_interval_over_seeds_that_holds_for_all_of_them():
    found = prediction_changes("arm", "base", frames(arm=ARM, base=BASE), TRUTH, ["cat", "dog"])
    cat, dog = found.classes
    differences = np.array([1, 1, 1, 2]) / 3
    assert (cat.name, cat.images, cat.effect) == ("cat", 3, pytest.approx(differences.mean()))
    half = stats.t.ppf(1 - 0.05 / 4, 3) * differences.std(ddof=1) / 2
    assert (cat.lo, cat.hi) == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert (cat.fixed, cat.broken, dog.fixed, dog.broken) == (1, 0, 0, 1)
    assert not dog.consistent


@pytest.mark.parametrize("images", [1, 127, 128, 1000])
def test_a_class_may_have_any_number_of_images(images):
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat([0, 2], [images, 300]))
    base = np.zeros((4, len(truth)), bool)
    arm = base | (truth == 0)  # all of one class are fixed
    first, last = prediction_changes("arm", "base", frames(arm=arm, base=base), truth).classes
    assert (first.images, first.effect, first.fixed, first.broken) == (images, 1.0, images, 0)
    assert (last.images, last.effect, last.fixed, last.broken) == (300, 0.0, 0, 0)


def test_two_seeds_give_no_interval():
    found = prediction_changes("arm", "base", frames(arm=ARM[:2], base=BASE[:2]), TRUTH)
    assert {(c.lo, c.hi) for c in found.classes} == {(None, None)}


def test_mcnemar_agrees_with_statsmodels():
    rng = np.random.default_rng(0)
    arm, base = rng.random(300) < 0.8, rng.random(300) < 0.7
    table = [[(arm & base).sum(), (arm & ~base).sum()], [(~arm & base).sum(), (~arm & ~base).sum()]]
    found = mcnemar(arm, base)
    assert (found.fixed, found.broken) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_mcnemar_has_an_effect_and_an_interval_that_never_contradicts_its_p():
    for fixed, broken in ((9, 1), (8, 2), (30, 14), (30, 15), (0, 5), (0, 6), (3, 3), (0, 0)):
        arm, base = np.zeros(200, bool), np.zeros(200, bool)
        arm[:fixed] = base[fixed : fixed + broken] = True
        found = mcnemar(arm, base)
        assert found.effect == (fixed - broken) / 200
        assert found.lo <= found.effect <= found.hi
        assert found.lo < found.hi
        assert (found.p < 0.05) == (found.lo > 0 or found.hi < 0)
    # The score interval alone would leave out 0 at p = .0625.
    assert paired_shares(0, 5, 200)[1] < 0


def test_the_interval_over_images_is_tangos():
    # Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009): 1, 1, 7 and 12 children.
    assert paired_shares(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    # By definition: where the difference is z standard errors off, under the likeliest shares that have this difference.
    for gained, lost, images in ((40, 20, 160), (7, 0, 50), (3, 1, 5)):
        for end in paired_shares(gained, lost, images):

            def unlikely(share, end=end, counts=(gained, lost, images - gained - lost)):
                return -sum(
                    n * np.log(p)
                    for n, p in zip(counts, (share + end, share, 1 - 2 * share - end), strict=True)
                    if n
                )

            low, high = max(0, -end), (1 - end) / 2
            share = optimize.minimize_scalar(
                unlikely, bounds=(low + 1e-12, high - 1e-12), method="bounded", options={"xatol": 1e-12}
            ).x
            error = np.sqrt((2 * share + end - end**2) / images)
            assert abs((gained - lost) / images - end) / error == pytest.approx(1.959964, rel=1e-4)


@pytest.mark.parametrize("gained", [0.05, 0.03])
def test_the_interval_over_images_holds_for_other_images(gained):
    # Where all that change change for the better, how many do so is all the noise there is.
    rng = np.random.default_rng(0)
    counts = rng.multinomial(200, [gained, 0.0, 1 - gained], size=400)
    held = [lo <= gained <= hi for lo, hi in (paired_shares(int(f), int(b), 200) for f, b, _ in counts)]
    assert np.mean(held) > 0.92


def test_mcnemar_takes_an_image_once_however_many_seeds_there_are():
    one = prediction_changes("arm", "base", frames(arm=ARM[:1], base=BASE[:1]), TRUTH).mcnemar
    again = prediction_changes("arm", "base", frames(arm=ARM[:1] * 9, base=BASE[:1] * 9), TRUTH).mcnemar
    assert again == one


def test_by_chance_is_counted_over_exchanges_under_some_of_the_seeds():
    rng = np.random.default_rng(3)
    arm, base = (rng.random((4, 500)) < 0.5 for _ in range(2))
    found = prediction_changes("arm", "base", frames(arm=arm, base=base), np.zeros(500, int))
    counts = []
    for swap in itertools.product([False, True], repeat=4):
        if 0 < sum(swap) < 4:
            change = np.array(swap)[:, None]
            counts.append(int((np.where(change, base, arm) & ~np.where(change, arm, base)).all(axis=0).sum()))
    assert found.by_chance == pytest.approx(np.mean(counts))
    assert found.seldom_more == max(counts)


@pytest.mark.parametrize("seeds", [5, 10])
def test_where_nothing_changed_about_as_many_are_fixed_as_chance_says(seeds):
    # The images of one training are correlated: its whole level moves.
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 0.7, 4000)
    counts, expected, more = [], [], 0
    for _ in range(20):
        arm, base = (
            rng.logistic(size=(seeds, 4000)) < hard + rng.normal(0, 0.3, (seeds, 1)) for _ in range(2)
        )
        found = prediction_changes("arm", "base", frames(arm=arm, base=base), np.zeros(4000, int))
        now = [len(found.fixed), len(found.broken)]
        counts += now
        more += sum(count > found.seldom_more for count in now)
        expected.append(found.by_chance)
    assert np.mean(counts) == pytest.approx(np.mean(expected), rel=0.25, abs=0.05)
    assert more <= 6
    if seeds == 5:
        assert np.mean(expected) > 1


def test_what_an_arm_really_fixes_is_not_taken_for_chance():
    arm = np.ones((5, 3000), bool)
    found = prediction_changes("arm", "base", frames(arm=arm, base=~arm), np.zeros(3000, int))
    assert (len(found.fixed), found.by_chance, found.seldom_more) == (3000, 0, 0)


@pytest.mark.parametrize("seeds", [1, 2, 3, 12])
def test_any_number_of_seeds_images_and_classes_has_an_answer(seeds):
    arm = np.zeros((seeds, 3), bool)
    for base in (arm, ~arm):
        found = prediction_changes(
            "arm", "base", frames(arm=arm, base=base), np.array([2, 0, 2]), ["a", "b", "c"]
        )
        changed = int((arm != base).any(axis=0).sum())
        assert (len(found.fixed), len(found.broken)) == (0, changed)
        assert [(c.name, c.images) for c in found.classes] == [("a", 1), ("c", 2)]
        assert found.mcnemar.p > 0.05


def test_arms_without_predictions_have_no_prediction_changes_and_other_images_are_a_mistake():
    table = frames(arm=ARM, base=BASE)
    assert prediction_changes("other", "base", table, TRUTH) is None
    with pytest.raises(StoreError, match="the same 5 images"):
        prediction_changes("arm", "base", table, TRUTH[:5])
