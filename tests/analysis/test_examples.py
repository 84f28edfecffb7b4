"""Images and classes that an arm fixes or breaks."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.proportion import proportion_confint

from ablate.analysis.examples import examples, mcnemar
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
    found = examples("arm", "base", frames(arm=ARM, base=BASE), TRUTH, ["cat", "dog"])
    assert [(i.index, i.truth, i.seeds, i.of) for i in found.fixed] == [(100, "cat", 4, 4)]
    assert [(i.index, i.truth) for i in found.broken] == [(103, "dog")]
    assert found.seeds == (0, 1, 2, 3)
    # Two images on which both differ under all four seeds, each with a chance of 1/16 of doing so in one direction.
    assert found.by_chance == pytest.approx(2 / 16)


def test_with_ten_seeds_and_more_nine_in_ten_are_enough():
    arm, base = np.ones((20, 2), bool), np.zeros((20, 2), bool)
    arm[:2, 0] = False
    arm[:3, 1] = False
    found = examples("arm", "base", frames(arm=arm, base=base), np.zeros(2, int))
    assert [(i.index, i.seeds) for i in found.fixed] == [(100, 18)]


def test_classes_have_an_interval_over_seeds_that_holds_for_all_of_them():
    found = examples("arm", "base", frames(arm=ARM, base=BASE), TRUTH, ["cat", "dog"])
    cat, dog = found.classes
    differences = np.array([1, 1, 1, 2]) / 3
    assert (cat.name, cat.images, cat.effect) == ("cat", 3, pytest.approx(differences.mean()))
    half = stats.t.ppf(1 - 0.05 / 4, 3) * differences.std(ddof=1) / 2
    assert (cat.lo, cat.hi) == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert (cat.fixed, cat.broken, dog.fixed, dog.broken) == (1, 0, 0, 1)
    assert not dog.consistent


def test_two_seeds_give_no_interval():
    found = examples("arm", "base", frames(arm=ARM[:2], base=BASE[:2]), TRUTH)
    assert {(c.lo, c.hi) for c in found.classes} == {(None, None)}


def test_mcnemar_agrees_with_statsmodels():
    rng = np.random.default_rng(0)
    arm, base = rng.random(300) < 0.8, rng.random(300) < 0.7
    table = [[(arm & base).sum(), (arm & ~base).sum()], [(~arm & base).sum(), (~arm & ~base).sum()]]
    found = mcnemar(arm, base)
    assert (found.fixed, found.broken) == (table[0][1], table[1][0])
    assert found.p == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_mcnemar_has_an_effect_and_an_exact_interval_that_agrees_with_its_p():
    for fixed, broken in ((9, 1), (8, 2), (30, 14), (30, 15), (0, 5), (0, 6), (3, 3)):
        arm, base = np.zeros(200, bool), np.zeros(200, bool)
        arm[:fixed] = base[fixed : fixed + broken] = True
        found = mcnemar(arm, base)
        low, high = proportion_confint(fixed, fixed + broken, method="beta")
        assert found.effect == (fixed - broken) / 200
        assert (found.lo, found.hi) == pytest.approx(
            tuple((2 * end - 1) * (fixed + broken) / 200 for end in (low, high))
        )
        assert (found.p < 0.05) == (found.lo > 0 or found.hi < 0)
    agree = mcnemar(np.ones(9, bool), np.ones(9, bool))
    assert (agree.p, agree.effect, agree.lo, agree.hi) == (1.0, 0.0, None, None)


def test_mcnemar_takes_an_image_once_however_many_seeds_there_are():
    one = examples("arm", "base", frames(arm=ARM[:1], base=BASE[:1]), TRUTH).mcnemar
    again = examples("arm", "base", frames(arm=ARM[:1] * 9, base=BASE[:1] * 9), TRUTH).mcnemar
    assert again == one


def test_where_nothing_changed_about_as_many_are_fixed_as_chance_says():
    rng = np.random.default_rng(1)
    hard = rng.random(4000)
    counts, expected = [], []
    for _ in range(20):
        arm, base = (rng.random((5, 4000)) < hard for _ in range(2))
        found = examples("arm", "base", frames(arm=arm, base=base), np.zeros(4000, int))
        counts += [len(found.fixed), len(found.broken)]
        expected.append(found.by_chance)
    assert np.mean(counts) == pytest.approx(np.mean(expected), rel=0.1)
    assert np.mean(expected) > 1


def test_arms_without_predictions_have_no_examples_and_other_images_are_a_mistake():
    table = frames(arm=ARM, base=BASE)
    assert examples("other", "base", table, TRUTH) is None
    with pytest.raises(StoreError, match="the same 5 images"):
        examples("arm", "base", table, TRUTH[:5])
