"""Verdicts read from frames: every rule of the protocol, one behaviour a test."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis_frames import V3, V4, change, drop, replicates, row, rules, warnings
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate.analysis import ArmRule, Caution, caution, headline, judge, undecided, winner
from ablate.analysis.compare import Replicate, time_ratio
from ablate.analysis.intervals import sequence
from ablate.analysis.judging import new_images_half
from ablate.errors import StoreError, StudyError


def six(*values):
    return pytest.approx(values, abs=5e-7)


def only(found):
    (comparison,) = found.comparisons
    return comparison


HELPS = [0.8, 0.3, 0.6, 0.5, 0.9]
WIDE = [2.0, -1.0, 0.5, -0.8, 1.0]

# --- the protocol's vectors, through the frames ---


def test_v3_from_frames():
    found = judge(rules("ABCDE"), replicates(V3))
    a, _, c, d, e = found.comparisons
    assert [x.verdict for x in found.comparisons] == [
        "helps",
        "no practical effect",
        "inconclusive",
        "inconclusive",
        "inconclusive",
    ]
    assert (a.lo, a.hi, a.p_adjusted) == six(0.397797, 1.602203, 0.001817)
    assert (c.lo, c.hi) == six(-0.425979, 0.825979)
    assert (d.lo, d.hi) == six(-3.178091, 0.778091)
    assert (e.lo, e.hi) == six(-0.395830, 0.595830)
    assert [x.ruled_out for x in found.comparisons] == [None, None, "loss", None, "loss"]
    assert (found.look, found.pairs, found.alpha) == (1, 5, pytest.approx(0.01125))
    assert undecided(found) == ["C", "D", "E"]


def test_v4_decided_arms_stay_frozen_at_the_look_that_decided_them():
    frame = drop(drop(replicates(V4), "A", *range(5, 10)), "B", *range(5, 10))
    found = judge(rules("ABCDE"), frame)
    a, b, c, d, e = found.comparisons
    assert [(x.verdict, x.look, x.n) for x in found.comparisons] == [
        ("helps", 1, 5),
        ("no practical effect", 1, 5),
        ("no practical effect", 2, 10),
        ("hurts", 2, 10),
        ("no practical effect", 2, 10),
    ]
    assert (a.lo, a.hi, a.alpha) == six(0.397797, 1.602203, 0.01125)
    assert (b.lo, b.hi) == six(-0.495830, 0.495830)
    assert (c.lo, c.hi, c.p_adjusted) == six(-0.008385, 0.488385, 0.061625)
    assert (d.lo, d.hi, d.p_adjusted) == six(-2.057298, -0.502702, 0.001072)
    assert (e.lo, e.hi) == six(-0.083954, 0.263954)
    assert [x.clearly for x in found.comparisons] == [False, False, False, True, False]
    assert undecided(found) == []


def test_more_seeds_of_a_decided_arm_change_nothing():
    small = drop(drop(replicates(V4), "A", *range(5, 10)), "B", *range(5, 10))
    extra = pd.concat([small, pd.DataFrame([row("A", i, -100.0) for i in range(5, 10)])])
    assert judge(rules("ABCDE"), extra).comparison("A") == judge(rules("ABCDE"), small).comparison("A")


def test_v5_the_price_of_certainty_is_that_of_the_next_look():
    price = judge(rules("ABCDE"), replicates(V3)).comparison("C").more_seeds
    assert (price.n50, price.n80, price.n_any) == (11, 15, 16)
    assert (price.probability50, price.probability80) == six(0.580756, 0.812751)
    # Six more pairs, each an arm's replicate and a baseline's at 10 s.
    assert price.seconds50 == pytest.approx(6 * 20)


def test_v6_ties_of_a_coarse_metric_are_judged_by_its_resolution():
    q = 100 / 360
    tied = only(judge(rules("A", looks=(3,), resolution=q), replicates({"A": [0, 0, 0]})))
    assert (tied.lo, tied.hi) == six(-0.365128, 0.365128)
    assert (tied.verdict, tied.real) == ("no practical effect", False)
    shifted = only(judge(rules("A", looks=(5,), resolution=q), replicates({"A": [q] * 5})))
    assert (shifted.lo, shifted.hi) == six(0.098874, 0.456681)
    assert (shifted.verdict, shifted.real) == ("no practical effect", True)


def test_v7_new_images_widen_the_interval():
    assert new_images_half(0.602203, 0.21, 0.01125, 5) == pytest.approx(0.879919, abs=5e-7)


def test_the_interval_for_new_images_comes_from_the_seed_mean_correctness_of_each_image():
    rng = np.random.default_rng(0)
    correct = {
        arm: pd.DataFrame(rng.random((5, 200)) < p, index=range(5))
        for arm, p in (("baseline", 0.7), ("A", 0.8))
    }
    found = only(judge(rules("A", looks=(5,)), replicates({"A": HELPS}), correct=correct))
    difference = (correct["A"].mean() - correct["baseline"].mean()).to_numpy()
    se = difference.std(ddof=1) / math.sqrt(200)
    half = new_images_half(found.hi - found.effect, se, 0.045, 1)
    assert found.ci_new_images == pytest.approx((found.effect - half, found.effect + half))
    assert only(judge(rules("A", looks=(5,)), replicates({"A": HELPS}))).ci_new_images is None
    others = correct | {"A": correct["A"].set_axis(range(1, 201), axis=1)}
    assert (
        only(judge(rules("A", looks=(5,)), replicates({"A": HELPS}), correct=others)).ci_new_images is None
    ), "as many images, but others"


# --- looks ---


def test_before_the_first_look_is_complete_everything_is_provisional():
    frame = drop(replicates({"A": HELPS, "B": HELPS}), "B", 4)
    found = judge(rules("AB"), frame)
    assert (found.look, found.provisional, found.alpha) == (0, True, pytest.approx(0.01125))
    assert [(c.provisional, c.look, c.n, c.missing) for c in found.comparisons] == [
        (True, 0, 5, 0),
        (True, 0, 4, 1),
    ]
    assert undecided(found) == ["A", "B"]
    assert winner(found) is None


def test_a_look_still_running_leaves_the_one_before_it_in_force():
    frame = drop(replicates({"A": WIDE * 2}), "A", 8, 9)
    found = judge(rules("A"), frame)
    assert (found.look, found.provisional, only(found).n) == (1, False, 5)
    assert found.runs.missing == 2


def test_a_look_waits_for_the_reference_too():
    frame = drop(replicates({"A": WIDE * 2}), "baseline", 9)
    assert judge(rules("A"), frame).look == 1


def test_the_caller_may_close_a_look_with_pairs_missing():
    frame = drop(replicates({"A": HELPS}), "A", 4)
    found = judge(rules("A"), frame, closed=1)
    assert (found.look, only(found).n, only(found).missing, only(found).alpha) == (
        1,
        4,
        1,
        pytest.approx(0.01125),
    )
    with pytest.raises(StudyError):
        judge(rules("A"), frame, closed=3)


def test_a_failed_run_closes_a_look_and_costs_a_pair_but_no_error():
    frame = change(replicates({"A": HELPS}), "A", 2, outcome="failed", value=np.nan)
    found = judge(rules("A"), frame)
    assert (found.look, only(found).n, only(found).failed, only(found).alpha) == (
        1,
        4,
        1,
        pytest.approx(0.01125),
    )
    assert [seed for seed, _ in only(found).differences] == [0, 1, 3, 4]


def test_only_undecided_arms_are_waited_for():
    frame = drop(replicates({"A": [5.0, 5.1, 4.9, 5.0, 5.2] * 2, "B": WIDE * 2}), "A", *range(5, 10))
    found = judge(rules("AB"), frame)
    assert found.look == 2
    assert (found.comparison("A").look, found.comparison("B").look) == (1, 2)


def test_no_look_is_spent_once_all_is_decided():
    found = judge(rules("A"), replicates({"A": [5.0, 5.1, 4.9, 5.0, 5.2] * 2}))
    assert (found.look, found.pairs) == (1, 5)
    assert found.next_look.alpha == pytest.approx(0.03375)


def test_a_look_beyond_the_most_seeds_spends_its_own_small_error():
    found = judge(rules("A", looks=(5, 10), most=5), replicates({"A": WIDE * 2}))
    assert (found.look, found.declared, only(found).n, only(found).alpha) == (2, False, 10, 0.0025)
    assert found.next_look.alpha == 0.00125


def test_planned_seeds_are_gone_through_in_the_order_of_the_plan():
    frame = replicates({"A": [1.0, 1.1, 0.9, -5.0, 1.0, 1.2]})
    found = judge(rules("A", looks=(5,), seeds=(5, 4, 2, 1, 0, 3)), frame)
    assert {seed for seed, _ in only(found).differences} == {0, 1, 2, 4, 5}


def test_without_a_record_nothing_is_said():
    frame = replicates({"A": HELPS}).iloc[:0]
    found = judge(rules("AB"), frame)
    assert [(c.verdict, c.n, c.effect, c.lo, c.more_seeds) for c in found.comparisons] == [
        ("inconclusive", 0, None, None, None)
    ] * 2
    assert found.baseline.mean is None
    assert found.runs.planned == 15


def test_a_study_without_arms_has_a_baseline_and_no_comparison():
    found = judge(rules(()), replicates({"A": HELPS}))
    assert found.comparisons == ()
    assert found.baseline.n == 5


@pytest.mark.parametrize("n", [1, 2])
def test_below_three_pairs_there_is_an_effect_and_no_interval(n):
    found = only(judge(rules("A", looks=(n,)), replicates({"A": [5.0] * n})))
    assert (found.verdict, found.n, found.effect) == ("inconclusive", n, 5.0)
    assert (found.lo, found.hi, found.p_adjusted, found.more_seeds) == (None, None, None, None)
    assert found.withheld == "too few pairs"


def test_missing_pairs_widen_the_interval_at_the_same_error():
    whole = only(judge(rules("A", looks=(5,)), replicates({"A": HELPS})))
    frame = change(replicates({"A": HELPS}), "A", 1, outcome="failed", value=np.nan)
    part = only(judge(rules("A", looks=(5,)), frame))
    assert part.alpha == whole.alpha
    reference = judge(rules("A", looks=(4,)), replicates({"A": [0.8, 0.6, 0.5, 0.9]}))
    assert (part.lo, part.hi) == pytest.approx((only(reference).lo, only(reference).hi))


# --- flags ---


@pytest.mark.parametrize("digest", ["weights", "trace"])
def test_copies_under_different_seeds_are_not_independent(digest):
    frame = change(replicates({"A": HELPS}), "A", 3, **{digest: "same"})
    frame = change(frame, "A", 1, **{digest: "same"})
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.lo, found.p_adjusted) == ("not independent", None, None)
    assert undecided(judge(rules("A"), frame)) == []


def test_copies_of_the_reference_make_every_arm_not_independent():
    frame = change(replicates({"A": HELPS, "B": HELPS}), "baseline", 3, weights="w/baseline/report/0")
    assert [c.verdict for c in judge(rules("AB"), frame).comparisons] == ["not independent"] * 2


def test_training_that_ignores_its_seed_on_purpose_is_exempt():
    frame = replicates({"A": [0.8] * 5}, base=[50.0] * 5).assign(weights=None, trace="same")
    frame.loc[frame["arm"] == "A", "trace"] = "other"
    assert only(judge(rules("A", deterministic=False), frame)).verdict == "not independent"
    found = only(judge(rules("A", deterministic=True), frame))
    assert (found.verdict, found.lo, found.hi) == ("helps", pytest.approx(0.8), pytest.approx(0.8))


def test_equal_metrics_alone_are_honest_ties():
    frame = replicates({"A": [0.0] * 5}, base=[50.0] * 5)
    assert only(judge(rules("A", resolution=0.25), frame)).verdict == "no practical effect"


@pytest.mark.parametrize("digest", ["weights", "trace"])
def test_an_arm_identical_to_the_baseline_under_every_seed_changed_nothing(digest):
    frame = replicates({"A": [0.0] * 5})
    other = "trace" if digest == "weights" else "weights"
    frame[other] = None
    for seed in range(5):
        frame = change(frame, "A", seed, **{digest: f"{digest[0]}/baseline/report/{seed}"})
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.lo) == ("no override", None)
    assert undecided(judge(rules("A"), frame)) == []


def test_one_seed_that_differs_is_an_override():
    frame = replicates({"A": [0.0, 0.1, 0.0, -0.1, 0.0]})
    for seed in range(4):
        frame = change(
            frame, "A", seed, weights=f"w/baseline/report/{seed}", trace=f"t/baseline/report/{seed}"
        )
    assert only(judge(rules("A"), frame)).verdict == "no practical effect"


def test_weights_decide_over_the_trace_whether_anything_changed():
    # Averaging the weights at the end, for instance, leaves the loss trace as it was.
    frame = replicates({"A": HELPS})
    for seed in range(5):
        frame = change(frame, "A", seed, trace=f"t/baseline/report/{seed}")
    assert only(judge(rules("A"), frame)).verdict == "helps"


def test_flagged_arms_leave_the_typical_noise():
    arms = V3 | {"F": [0.0] * 5}
    frame = replicates(arms)
    for seed in range(5):
        frame = change(frame, "F", seed, weights=f"w/baseline/report/{seed}")
    found = judge(rules("ABCDEF"), frame)
    assert found.comparison("F").verdict == "no override"
    # V3's own figures, but for k = 6.
    alone = judge(rules("ABCDE"), replicates(V3))
    assert found.noise == pytest.approx(alone.noise)
    assert found.comparison("C").hi > alone.comparison("C").hi


def test_a_diverged_replicate_makes_an_arm_unstable_however_good_the_rest():
    frame = change(replicates({"A": [2.0, 2.1, 1.9, 2.0, 2.2]}), "A", 2, outcome="diverged", value=np.nan)
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.diverged, found.n) == ("unstable", 1, 4)
    assert found.effect == pytest.approx(2.075)
    assert found.lo is not None
    assert undecided(judge(rules("A"), frame)) == []


def test_an_unstable_arm_whose_finished_runs_are_worse_hurts():
    frame = change(
        replicates({"A": [-2.0, -2.1, -1.9, -2.0, -2.2]}), "A", 2, outcome="diverged", value=np.nan
    )
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.diverged) == ("hurts", 1)


def test_an_arm_of_which_nothing_finished_is_unstable():
    frame = replicates({"A": [0.0] * 5})
    for seed in range(5):
        frame = change(frame, "A", seed, outcome="diverged", value=np.nan)
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.n, found.effect, found.diverged) == ("unstable", 0, None, 5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_finished_run_without_a_finite_metric_counts_as_diverged(value):
    frame = change(replicates({"A": HELPS}), "A", 0, value=value)
    found = only(judge(rules("A"), frame))
    assert (found.verdict, found.diverged, found.n) == ("unstable", 1, 4)


def test_diverged_runs_are_no_copies_of_each_other():
    frame = replicates({"A": HELPS})
    for seed in (1, 2):
        frame = change(frame, "A", seed, outcome="diverged", value=np.nan, weights="nan", trace="nan")
    assert only(judge(rules("A"), frame)).verdict == "unstable"


def test_an_unstable_arm_still_counts_for_the_typical_noise():
    frame = change(replicates(V3), "D", 4, outcome="diverged", value=np.nan)
    found = judge(rules("ABCDE"), frame)
    assert found.comparison("D").verdict == "unstable"
    # Without D only four arms would be left, and nothing would be borrowed.
    assert (found.comparison("A").lo, found.comparison("A").hi) == six(0.397797, 1.602203)


@pytest.mark.parametrize(
    ("failed", "code"),
    [(range(5), "reference-failed"), (range(4), None), ((), None)],
    ids=["under every seed", "under all but one", "never"],
)
def test_a_baseline_that_failed_under_every_seed_is_the_first_sentence(failed, code):
    frame = replicates({"A": HELPS, "B": WIDE}).assign(reason="")
    for seed in failed:
        frame = change(frame, "baseline", seed, outcome="failed", value=np.nan, reason=f"boom {seed}")
    found = judge(rules("AB"), frame)
    assert (found.error and found.error.code) == code
    if code:
        assert headline(found).startswith(
            "No verdict: the baseline failed under all 5 seeds (boom 0): nothing"
        )


@pytest.mark.parametrize(
    ("failed", "reasons", "note"),
    [
        (5, ["boom"] * 5, "B: every run failed (boom)."),
        (5, ["boom", *["bang"] * 4], "B: every run failed."),
        (4, ["boom"] * 4, None),
        (0, [], None),
    ],
    ids=["for one reason", "for several", "all but one", "none"],
)
def test_an_arm_that_failed_in_every_run_says_why(failed, reasons, note):
    frame = replicates({"A": HELPS, "B": WIDE}).assign(reason="")
    for seed in range(failed):
        frame = change(frame, "B", seed, outcome="failed", value=np.nan, reason=reasons[seed])
    said = [text for text in warnings(judge(rules("AB"), frame)) if "failed" in text]
    assert said == ([] if note is None else [note])


def test_a_diverged_baseline_says_by_which_metric():
    frame = change(
        replicates({"A": HELPS}).assign(reason=""),
        "baseline",
        3,
        outcome="diverged",
        value=np.nan,
        reason="val/loss not finite in epoch 2",
    )
    assert "under seed 3 (val/loss not finite in epoch 2)" in headline(judge(rules("A"), frame))


def test_a_diverged_baseline_is_an_error_of_the_study():
    frame = change(replicates({"A": HELPS, "B": WIDE}), "baseline", 3, outcome="diverged", value=np.nan)
    found = judge(rules("AB"), frame)
    assert found.error == Caution("reference-diverged", "baseline", seeds=(3,))
    assert warnings(found)[0].startswith("the baseline diverged under seed 3: nothing can be compared")
    assert [(c.verdict, c.lo, c.withheld) for c in found.comparisons] == [
        ("inconclusive", None, "reference diverged")
    ] * 2
    assert undecided(found) == []


# --- noise ---


def test_differences_without_any_noise_are_not_certainty():
    found = judge(rules("A"), replicates({"A": [0.75] * 5}))
    assert (only(found).verdict, only(found).lo, only(found).withheld) == ("inconclusive", None, "no noise")
    assert any("no noise to judge by" in w for w in warnings(found))


@pytest.mark.parametrize(
    ("of_baseline", "advice"),
    [
        ([0.5] * 3, "neither its runs nor those of the baseline differ from seed to seed"),
        ([0.5, 0.7, 0.6], "the differences agree to the last digit under every seed"),
    ],
)
def test_a_seed_that_changes_no_value_is_named_as_the_reason_for_no_noise(of_baseline, advice):
    frame = replicates({"A": [0.25] * 3})
    for seed, value in enumerate(of_baseline):
        frame = change(frame, "baseline", seed, value=value)
        frame = change(frame, "A", seed, value=value + 0.25)
    found = judge(rules("A", looks=(3,)), frame)
    assert only(found).verdict == "inconclusive"
    (note,) = (text for text in warnings(found) if "no noise" in text)
    assert advice in note


def test_rounding_errors_are_no_noise():
    frame = replicates({"A": [0.1] * 5}, base=[0.1, 0.2, 0.3, 0.7, 1.1])
    assert only(judge(rules("A"), frame)).withheld == "no noise"


def test_an_arm_without_noise_borrows_where_five_others_have_some():
    found = judge(rules("ABCDEF"), replicates(V3 | {"F": [0.75] * 5})).comparison("F")
    assert found.lo is not None
    assert found.hi > found.lo


# --- orientation ---


def test_a_minimised_metric_turns_the_sign_and_nothing_else():
    down = {arm: [-x for x in d] for arm, d in V3.items()}
    up = judge(rules("ABCDE"), replicates(V3))
    turned = judge(rules("ABCDE", direction="minimize"), replicates(down))
    for one, other in zip(up.comparisons, turned.comparisons, strict=True):
        assert one.verdict == other.verdict
        assert (one.effect, one.lo, one.hi) == pytest.approx((other.effect, other.lo, other.hi))


def test_the_test_effect_is_oriented_and_stands_beside_the_verdict():
    frame = replicates({"A": HELPS})
    frame["test"] = np.where(frame["arm"] == "A", 0.4, 0.1)
    assert only(judge(rules("A"), frame)).test_effect == pytest.approx(0.3)
    assert only(judge(rules("A", direction="minimize"), frame)).test_effect == pytest.approx(-0.3)
    assert only(judge(rules("A"), replicates({"A": HELPS}))).test_effect is None


# --- costs ---


def test_cost_is_compute_and_falls_back_to_time():
    frame = replicates({"A": HELPS})
    mine = frame["arm"] == "A"
    frame.loc[mine, ["flops", "seconds", "parameters"]] = [2.6e9, 15.0, 4e4]
    found = only(judge(rules("A"), frame))
    assert (found.cost_ratio, found.cost_is_time, found.seconds_ratio, found.parameter_ratio) == (
        pytest.approx(2.6),
        False,
        pytest.approx(1.5),
        pytest.approx(4.0),
    )
    frame.loc[mine, "flops"] = np.nan
    found = only(judge(rules("A"), frame))
    assert (found.cost_ratio, found.cost_is_time) == (pytest.approx(1.5), True)


@pytest.mark.parametrize(
    ("of_arm", "of_baseline", "expected"),
    [
        ([0.4, 0.5, 0.3, 0.3, 0.3], [0.4, 0.3, 0.3, 0.3, 0.3], None),  # 1.1 and more out of a busy machine
        ([8.2, 1.3, 1.1], [7.4, 0.5, 0.4], None),
        ([3.0, 3.1, 2.9], [2.0, 2.1, 1.9], 1.5),
        ([2.0, 2.02, 1.98], [2.0, 2.01, 1.99], 1.0),
        ([2.0] * 3, [2.0] * 3, 1.0),
        ([4.0] * 3, [2.0] * 3, 2.0),
        ([3.0], [2.0], None),
    ],
)
def test_a_ratio_of_times_is_one_only_where_the_runs_show_it(of_arm, of_baseline, expected):
    arm, baseline = (
        [Replicate(seed, "finished", seconds=seconds) for seed, seconds in enumerate(times)]
        for times in (of_arm, of_baseline)
    )
    assert time_ratio(arm, baseline) == (None if expected is None else pytest.approx(expected))


# --- references, A/A, confirmation ---


def test_an_arm_may_have_a_reference_of_its_own():
    frame = replicates({"full": [3.0] * 5, "no A": [2.0, 2.1, 1.9, 2.0, 2.05]})
    found = judge(rules([ArmRule("no A", "A", False, reference="full")]), frame)
    assert only(found).effect == pytest.approx(-0.99)
    assert only(found).reference == "full"
    assert [s.arm for s in found.references] == ["baseline", "full"]


def with_aa(frame, values, **more):
    rows = [row("A/A", 1000 + i, v, phase="A/A", **more) for i, v in enumerate(values)]
    return pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)


def test_a_over_a_is_held_against_the_baseline_and_is_no_part_of_the_family():
    plain = replicates({"A": HELPS})
    found = judge(rules("A"), with_aa(plain, [50.1, 50.2, 50.4, 50.8, 50.1]))
    assert (found.aa.verdict, found.aa.n, found.aa.alpha) == (
        "no practical effect",
        5,
        pytest.approx(0.01125),
    )
    assert [seed for seed, _ in found.aa.differences] == [0, 1, 2, 3, 4]
    assert only(found) == only(judge(rules("A"), plain))
    assert found.warnings == judge(rules("A"), plain).warnings


def test_a_over_a_owes_no_more_than_the_first_look():
    found = judge(rules("A"), with_aa(replicates({"A": WIDE * 2}), [50.1, 50.9, 50.0, 51.8, 49.1]))
    assert (found.look, found.aa.n, found.aa.missing) == (2, 5, 0)
    assert judge(rules("A"), with_aa(replicates({"A": WIDE * 2}), [50.1, 50.2])).aa.missing == 3


def test_a_over_a_that_differs_is_a_warning():
    found = judge(rules("A"), with_aa(replicates({"A": HELPS}), [55.0, 55.2, 55.5, 55.7, 55.0]))
    assert found.aa.verdict == "helps"
    assert any(w.startswith("A/A") for w in warnings(found))


def test_a_over_a_that_repeats_the_baseline_is_not_independent():
    frame = with_aa(replicates({"A": HELPS}), [50.1, 50.2, 50.4, 50.8, 50.1])
    frame.loc[frame["arm"] == "A/A", "weights"] = [f"w/baseline/report/{i}" for i in range(5)]
    assert judge(rules("A"), frame).aa.verdict == "not independent"


def test_the_winner_is_re_estimated_on_fresh_seeds_with_the_whole_error():
    frame = replicates({"A": HELPS, "B": [3.0, 3.1, 2.9, 3.2, 2.8]})
    assert winner(judge(rules("AB"), frame)) == "B"
    rows = [row("baseline", 3000 + i, 50.0 + 0.1 * i, phase="confirm") for i in range(5)]
    rows += [row("B", 3000 + i, 52.0 + 0.15 * i, phase="confirm") for i in range(5)]
    found = judge(rules("AB", confirm_seeds=5), pd.concat([frame, pd.DataFrame(rows)], ignore_index=True))
    fresh = found.confirmation
    assert (fresh.arm, fresh.n, fresh.alpha, fresh.provisional) == ("B", 5, 0.05, False)
    assert fresh.effect == pytest.approx(2.1)
    assert fresh.more_seeds is None
    partly = judge(rules("AB", confirm_seeds=6), pd.concat([frame, pd.DataFrame(rows)], ignore_index=True))
    assert partly.confirmation.provisional
    assert partly.runs.missing - found.runs.missing == 2


def test_nobody_wins_where_nobody_helps():
    assert winner(judge(rules("A"), replicates({"A": WIDE}))) is None


def test_tuning_runs_are_no_part_of_any_comparison():
    plain = replicates({"A": HELPS})
    tune = pd.DataFrame([row("A", 2000 + i, 99.0, phase="tune") for i in range(5)])
    assert judge(rules("A"), pd.concat([plain, tune], ignore_index=True)) == judge(rules("A"), plain)


# --- warnings ---


def test_a_margin_below_two_steps_of_the_metric_is_a_warning():
    frame = replicates({"A": HELPS})
    assert any("resolution" in w for w in warnings(judge(rules("A", resolution=0.3), frame)))
    assert not any("resolution" in w for w in warnings(judge(rules("A", resolution=0.25), frame)))


def test_an_arm_much_noisier_than_the_others_is_named():
    assert any(
        w.startswith("D: from seed to seed its differences vary 3.4 times")
        for w in warnings(judge(rules("ABCDE"), replicates(V3)))
    )


def test_mixed_devices_and_versions_are_named_but_not_two_cards_of_a_kind():
    frame = replicates({"A": HELPS})
    mixed = frame.assign(
        device=["cuda:0"] * 5 + ["cpu"] * 5,
        torch=["2.11"] * 9 + ["2.12"],
        fused=["stacked 2"] * 5 + [None] * 5,
    )
    said = " ".join(warnings(judge(rules("A"), mixed)))
    assert "different kinds of device are compared with each other: cpu (5 runs), cuda (5 runs)." in said
    assert "different versions of torch are compared with each other: 2.11 (9 runs), 2.12 (1 run)." in said
    assert "stacked and single runs" in said
    alike = frame.assign(
        device=["cuda:0"] * 5 + ["cuda:1"] * 5, torch="2.11", fused=["stacked 2"] * 5 + ["stacked 3 of 4"] * 5
    )
    assert judge(rules("A"), alike).warnings == ()
    in_turn = frame.assign(fused=["in turn 2"] * 5 + [None] * 5)
    assert judge(rules("A"), in_turn).warnings == (), "to the bit the same"


def read(**held: str) -> str:
    files = {name: content for name, content in held.items() if name.islower()}
    variables = {name: content for name, content in held.items() if name.isupper()}
    return json.dumps({"files": files, "folders": {}, "variables": variables})


def test_runs_that_read_different_contents_are_named_and_damaged_records_are_not():
    frame = replicates({"A": HELPS})
    one, other = read(conf="1", gain="1", GAIN="1"), read(conf="2", gain="1", GAIN="2")
    said = " ".join(warnings(judge(rules("A"), frame.assign(inputs=[one] * 5 + [other] * 5))))
    assert "Runs that read different contents of $GAIN and conf are compared with each other" in said
    for inputs in (
        [one] * 10,
        [one] * 5 + [read(more="3")] * 5,
        [None] * 10,
        ["x", "[]", "{}", "1", '{"files": 1}'] * 2,
    ):
        assert judge(rules("A"), frame.assign(inputs=inputs)).warnings == ()


def test_an_arm_with_all_values_of_the_baseline_is_named_where_nothing_else_tells_the_runs_apart():
    base = [0.81, 0.83, 0.80, 0.82, 0.83]
    frame = replicates({"A": [0.0] * 5, "B": [0.0] * 4 + [0.01]}, base=base)
    frame = frame.assign(weights=None, trace=None)
    its = replace(rules("AB"), metric="acc", resolution=0.01, has_study_file=True)

    def said(changed: pd.DataFrame, **changes: object) -> bool:
        told = warnings(judge(replace(its, **changes), changed))
        return any(
            w.startswith("Every run of A has the same acc as that of the baseline under its seed")
            for w in told
        )

    assert said(frame)
    assert not said(frame, deterministic=True)
    assert not said(frame.assign(value=0.8))
    assert not said(frame.assign(trace=[str(row) for row in range(len(frame))]))
    assert not any("B" in w and "has the same acc" in w for w in warnings(judge(its, frame)))


def test_runs_that_told_of_an_error_are_counted():
    frame = replicates({"A": HELPS})
    told = frame.assign(reason=[None] * 7 + ["ended well, but told of KeyError: 'x'"] * 2 + ["took too long"])
    (said,) = warnings(judge(rules("A"), told))
    assert said.startswith(
        "In 2 of 10 runs, of A, the program ended well, but told of an error (KeyError: 'x')"
    )
    assert judge(rules("A"), frame.assign(reason=None)).warnings == ()
    of_test = frame.assign(reason=["was judged by a line of the test set: Test: 0.5"] * 10)
    (said,) = warnings(judge(rules("A"), of_test))
    assert said.startswith(
        "In 10 of 10 runs the last value of score, which counts, is from a line of the test set (Test: 0.5)"
    )
    assert not any(
        "line of the test" in w for w in warnings(judge(replace(rules("A"), judged_on="test"), of_test))
    )


def test_files_that_runs_of_one_arm_write_and_those_of_another_read_are_named():
    frame = replicates({"A": HELPS})

    def said(one: dict[str, object], other: dict[str, object]) -> str:
        texts = [json.dumps({"files": {}, "folders": {}, "variables": {}, **held}) for held in (one, other)]
        return " ".join(warnings(judge(rules("A"), frame.assign(inputs=[texts[0]] * 5 + [texts[1]] * 5))))

    reads, writes, both = ({"files": {"x": "1"}}, {"made": {"x": False}}, {"made": {"x": True}})
    for one, other in ((reads, writes), (writes, reads), (both, both), (both, writes), (writes, both)):
        assert "may have read what those of another wrote: x." in said(one, other)
    for one, other in (
        (reads, reads),
        (writes, writes),
        (both, {}),
        ({}, both),
        (writes, {}),
        ({"made": 1}, reads),
    ):
        assert said(one, other) == ""


def test_a_share_in_two_units_is_a_warning():
    frame = replicates({"A": HELPS})
    frame["value"] = [0.61, 0.62, 0.63, 0.60, 0.61, 65.1, 64.2, 66.0, 65.0, 64.9]
    shares = replace(rules("A"), metric="val/accuracy")
    assert any(
        "two units: of 5 runs as percentages and 5 runs as shares" in w
        for w in warnings(judge(shares, frame))
    )
    assert not any("two units" in w for w in warnings(judge(replace(shares, metric="reward"), frame)))
    frame["value"] = [0.61, 0.62, 0.63, 0.60, 0.61, 1.2, 1.1, 1.3, 1.2, 1.1]
    assert not any("two units" in w for w in warnings(judge(shares, frame)))


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([10] * 5 + [4] * 5, "end after 10, those of A after 4."),
        ([9, 10, 10, 10, 10, 3, 4, 5, 6, 8], "end after 9 to 10, those of A after 3 to 8."),
        ([10] * 5 + [12] * 5, "end after 10, those of A after 12."),
        ([9, 10, 10, 10, 10, 3, 4, 5, 6, 9], None),
        ([math.nan] * 10, None),
    ],
)
def test_an_arm_that_ends_after_other_epochs_is_named(ends, said):
    frame = replicates({"A": HELPS}).assign(read_at=ends, epochs=ends)
    found = [w for w in warnings(judge(rules("A"), frame)) if "different numbers of epochs" in w]
    assert [w.endswith(said) for w in found] == ([True] if said else [])


def test_an_arm_whose_name_says_its_epochs_is_meant_to_have_them():
    frame = replicates({"epochs=4": HELPS}).assign(read_at=[10] * 5 + [4] * 5, epochs=[10] * 5 + [4] * 5)
    assert not any("numbers of epochs" in w for w in warnings(judge(rules(["epochs=4"]), frame)))


def test_a_margin_out_of_reach_is_a_warning_while_something_is_open():
    noisy = replicates({"A": [3.0, -2.0, 1.0, -3.0, 2.0] * 2})
    found = judge(rules("A"), noisy)
    assert found.detectable > 0.5
    assert any("out of reach" in w for w in warnings(found))


def test_strong_skew_with_unequal_noise_is_a_warning():
    rng = np.random.default_rng(8)
    base = 50 - rng.exponential(0.1, 30)
    frame = pd.DataFrame(
        [row("baseline", i, base[i]) for i in range(30)]
        + [row("A", i, v) for i, v in enumerate(50 - rng.exponential(0.5, 30))]
    )
    assert any("skewed" in w for w in warnings(judge(rules("A", looks=(30,)), frame)))
    even = pd.DataFrame(
        [row("baseline", i, base[i]) for i in range(30)]
        + [row("A", i, v) for i, v in enumerate(50 - rng.exponential(0.1, 30))]
    )
    assert not any("skewed" in w for w in warnings(judge(rules("A", looks=(30,)), even)))


@pytest.mark.parametrize("reaches", [lambda seed: seed % 2, lambda seed: min(seed, 2)])
def test_seeds_that_reach_the_training_in_part_are_a_warning_where_no_loss_tells_copies(reaches):
    draw = np.random.default_rng(9).normal(0, 0.1, (2, 8))

    def warned(seed_of, decimals=16, **settings):
        frame = pd.DataFrame(
            [
                row(arm, i, round(50 + at + draw[at][seed_of(i)], decimals))
                | {"weights": None, "trace": None}
                for at, arm in enumerate(("baseline", "A"))
                for i in range(8)
            ]
        )
        found = judge(rules("A", looks=(8,), **settings), frame)
        assert found.comparison("A").verdict == "helps"
        return [w for w in warnings(found) if "are they copies?" in w]

    [said] = warned(reaches)
    assert said.startswith("Runs of baseline and A under different seeds")
    assert warned(reaches, decimals=2) == []  # which may be chance
    assert warned(lambda seed: seed) == []
    assert warned(reaches, deterministic=True) == []


# --- the record ---


def test_two_records_of_one_replicate_are_an_error_of_the_store():
    frame = pd.concat([replicates({"A": HELPS}), pd.DataFrame([row("A", 0, 1.0)])])
    with pytest.raises(StoreError, match="two replicates under seed 0"):
        judge(rules("A"), frame)


def test_a_frame_without_a_needed_column_is_an_error_of_the_store():
    with pytest.raises(StoreError, match="outcome"):
        judge(rules("A"), replicates({"A": HELPS}).drop(columns="outcome"))


def test_an_unknown_outcome_is_an_error_of_the_store():
    with pytest.raises(StoreError, match="exploded"):
        judge(rules("A"), change(replicates({"A": HELPS}), "A", 0, outcome="exploded"))


def test_figures_of_the_baseline_are_raw():
    found = judge(rules("A", direction="minimize"), replicates({"A": HELPS}, base=[1.0, 2.0, 3.0, 4.0, 5.0]))
    b = found.baseline
    assert (b.n, b.mean, b.low, b.high, b.seconds, b.epochs) == (5, 3.0, 1.0, 5.0, 10.0, 20.0)
    assert b.sd == pytest.approx(math.sqrt(2.5))


def test_runs_are_counted_as_planned_finished_failed_diverged_and_missing():
    frame = drop(replicates({"A": WIDE, "B": WIDE}), "B", 4)
    frame = change(frame, "A", 0, outcome="failed", value=np.nan)
    frame = change(frame, "B", 0, outcome="diverged", value=np.nan)
    runs = judge(rules("AB"), frame).runs
    assert (runs.planned, runs.finished, runs.failed, runs.diverged, runs.missing) == (15, 12, 1, 1, 1)


# --- laws ---

steps = st.integers(-40, 40).map(lambda i: i / 16)


@st.composite
def studies(draw):
    arms = draw(st.integers(1, 7))
    pairs = draw(st.integers(1, 10))
    differences = {f"arm{i}": draw(st.lists(steps, min_size=pairs, max_size=pairs)) for i in range(arms)}
    frame = replicates(differences)
    for _ in range(draw(st.integers(0, min(3, len(frame) - 1)))):
        at = draw(st.integers(0, len(frame) - 1))
        outcome = draw(st.sampled_from(["failed", "diverged", "absent"]))
        if outcome == "absent":
            frame = frame.drop(frame.index[at])
        else:
            frame.loc[frame.index[at], ["outcome", "value"]] = [outcome, np.nan]
    options = {
        "looks": draw(st.sampled_from([(3,), (5,), (3, 6), (5, 10), (3, 5, 8)])),
        "margin": draw(st.sampled_from([0.25, 0.5, 2.0])),
        "resolution": draw(st.sampled_from([0.0, 0.0625])),
    }
    return differences, frame, options


@given(studies(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_never_matters(study, random):
    differences, frame, options = study
    order = list(range(len(frame)))
    random.shuffle(order)
    one = judge(rules(differences, **options), frame)
    assert judge(rules(differences, **options), frame.iloc[order]) == one


@given(studies())
@settings(max_examples=60, deadline=None)
def test_the_interval_never_contradicts_the_verdict(study):
    differences, frame, options = study
    margin = options["margin"]
    for c in judge(rules(differences, **options), frame).comparisons:
        if c.lo is None:
            assert c.verdict in {"inconclusive", "unstable", "not independent", "no override"}
            assert c.p_adjusted is None
            continue
        assert c.n >= 3
        assert c.lo <= c.effect <= c.hi
        excludes = c.lo > 0 or c.hi < 0
        if abs(c.p_adjusted - 0.05) > 1e-9:
            assert (c.p_adjusted < 0.05) == excludes
        inside = -margin < c.lo and c.hi < margin
        expected = {
            "helps": c.lo > 0 and not inside,
            "hurts": c.hi < 0 and not inside,
            "no practical effect": inside,
            "inconclusive": not inside and not excludes,
            "unstable": c.diverged > 0 and (inside or c.hi >= 0),
        }
        assert expected[c.verdict]
        assert c.real == (c.verdict == "no practical effect" and excludes)
        assert c.clearly == (
            (c.verdict == "helps" and c.lo >= margin) or (c.verdict == "hurts" and c.hi <= -margin)
        )
        if c.ruled_out is not None:
            assert c.verdict == "inconclusive"
            assert (c.hi < margin) if c.ruled_out == "gain" else (c.lo > -margin)
        assert (c.more_seeds is not None) == (c.verdict == "inconclusive")


@given(studies())
@settings(max_examples=30, deadline=None)
def test_turning_metric_and_direction_round_turns_nothing(study):
    differences, frame, options = study
    turned = frame.assign(value=-frame["value"])
    one = judge(rules(differences, **options), frame)
    other = judge(rules(differences, direction="minimize", **options), turned)
    for a, b in zip(one.comparisons, other.comparisons, strict=True):
        assert (a.verdict, a.lo, a.hi, a.p_adjusted, a.more_seeds) == (
            b.verdict,
            b.lo,
            b.hi,
            b.p_adjusted,
            b.more_seeds,
        )


@given(studies())
@settings(max_examples=30, deadline=None)
def test_swapping_gain_and_loss_mirrors_every_verdict(study):
    differences, frame, options = study
    assume(not (frame["outcome"] == "diverged").any())  # a diverged arm may hurt but never help
    one = judge(rules(differences, **options), frame)
    mirrored = judge(rules(differences, direction="minimize", **options), frame)
    mirror = {"helps": "hurts", "hurts": "helps"}
    for a, b in zip(one.comparisons, mirrored.comparisons, strict=True):
        assert mirror.get(a.verdict, a.verdict) == b.verdict
        if a.lo is not None:
            assert (a.lo, a.hi) == (-b.hi, -b.lo)


def test_arm_by_arm_and_all_at_once_are_the_same_procedure():
    rng = np.random.default_rng(9)
    d = rng.normal(0.4, 0.6, size=(40, 6, 10))
    plan = rules([f"arm{i}" for i in range(6)])
    at_once = sequence(d, tuple((look.pairs, look.alpha) for look in plan.schedule()), k=6, margin=0.5)
    codes = {"inconclusive": 0, "helps": 1, "hurts": 2, "no practical effect": 3}
    for i in range(40):
        found = judge(plan, replicates({f"arm{j}": d[i, j] for j in range(6)}))
        assert [codes[c.verdict] for c in found.comparisons] == at_once.code[i].tolist()
        assert [c.lo for c in found.comparisons] == pytest.approx(at_once.lo[i].tolist(), abs=1e-9)
        assert [c.hi for c in found.comparisons] == pytest.approx(at_once.hi[i].tolist(), abs=1e-9)


def optimism(noise, *, shared):
    """Of a study of as many arms as rows but the first, which is the baseline's. shared: what each seed adds to all of them."""
    names = ["baseline", *(f"a{i}" for i in range(1, len(noise)))]
    values = noise + shared
    frame = pd.DataFrame(
        [
            row(name, seed, value)
            for name, own in zip(names, values, strict=True)
            for seed, value in enumerate(own)
        ]
    )
    return judge(rules(names[1:], looks=(noise.shape[1],)), frame).optimism


@pytest.mark.parametrize("arms", [2, 3, 10])
def test_what_seeds_do_to_all_arms_alike_makes_none_of_them_look_better(arms):
    draw = np.random.default_rng(arms)
    noise = draw.standard_normal((arms + 1, 6))
    alone = optimism(noise, shared=np.zeros(6))
    assert optimism(noise, shared=3.0 * draw.standard_normal(6)) == pytest.approx(alone)


def test_the_best_of_equal_arms_looks_better_by_about_what_is_said():
    draw = np.random.default_rng(7)
    noise = draw.standard_normal((30, 6, 5))
    shared = 2.0 * draw.standard_normal((30, 5))
    best = (noise[:, 1:] - noise[:, :1]).mean(axis=2).max(axis=1)
    said = [optimism(own, shared=level) for own, level in zip(noise, shared, strict=True)]
    assert np.mean(said) == pytest.approx(np.mean(best), abs=3 * np.std(best) / math.sqrt(30))


@pytest.mark.parametrize(
    ("arms", "seeds", "narrow"), [(4, 5, False), (5, 5, True), (6, 9, True), (6, 10, False)]
)
def test_a_noisy_arm_that_borrows_over_few_seeds_is_said_to_miss_more_often(arms, seeds, narrow):
    draw = np.random.default_rng(11)
    noise = draw.standard_normal((arms, seeds)) * np.where(np.arange(arms) == 0, 30.0, 1.0)[:, None]
    names = [f"a{i}" for i in range(arms)]
    analysis = judge(rules(names, looks=(seeds,)), replicates(dict(zip(names, noise, strict=True))))
    [noisy] = [item for item in analysis.warnings if item.code == "noisy"]
    assert noisy.subject == "a0"
    assert ("may miss more often" in caution(noisy, analysis.rules)) is narrow
