"""Repeats that are not paired: the protocol's vectors, plain two-sample t where they should agree, laws, and error by simulation."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from ablate.analysis import ArmRule, caution, headline, sentence, to_json
from ablate.analysis.cautions import skewness_test
from ablate.analysis.groups import Group, group_intervals, group_variance, two_sided_p
from ablate.analysis.intervals import HELPS, HURTS
from ablate.analysis.unpaired import judge_groups, seed_spread
from ablate.errors import StoreError, StudyError

BASE = [69.8, 70.3, 69.5, 70.0, 70.6, 69.9]


def judged(groups, *, margin=0.5, **options):
    return judge_groups(groups, metric="score", margin=margin, direction="maximize", **options)


def only(groups, **options):
    [comparison] = judged(groups, **options).comparisons
    return comparison


def half(comparison):
    return None if comparison.lo is None else (comparison.hi - comparison.lo) / 2


def six(value):
    return pytest.approx(value, abs=5e-7)


# --- the protocol's vectors ---


def test_u1_one_arm_with_other_noise_and_other_numbers_of_runs():
    c = only({"baseline": Group(5, 80.0, 0.5), "arm": Group(4, 81.2, 0.7)})
    assert (half(c), c.lo, c.hi) == (six(1.275189), six(-0.075189), six(2.475189))
    assert (c.p_adjusted, c.verdict, c.ruled_out) == (six(0.058193), "inconclusive", "loss")
    assert (c.n, c.n_reference) == (4, 5)


def test_u2_six_groups_borrow_from_their_mean_variance():
    groups = {
        "baseline": Group(5, 80.0, 0.4),
        "A": Group(5, 81.5, 0.5),
        "B": Group(5, 80.1, 0.3),
        "C": Group(3, 79.2, 0.9),
        "D": Group(10, 80.05, 0.45),
        "E": Group(4, 78.0, 0.6),
    }
    found = judged(groups, margin=0.75).comparisons
    assert [half(c) for c in found] == [six(h) for h in (1.079041, 0.992064, 2.500975, 0.863621, 1.329870)]
    assert [c.verdict for c in found] == ["helps", "inconclusive", "inconclusive", "inconclusive", "hurts"]
    assert (found[0].p_adjusted, found[4].p_adjusted) == (six(0.008071), six(0.006464))
    arrays = [np.array([getattr(g, name) for g in groups.values()]) for name in ("mean", "std", "n")]
    raw = group_intervals(arrays[0], group_variance(arrays[1], 0.0), arrays[2], k=5, margin=0.75)
    assert (raw.variance[0], raw.df[0]) == (six(0.236042), 8.0)


def test_u3_a_family_counts_arms_that_have_too_few_runs():
    groups = {
        "baseline": Group(20, 70.0, 1.0),
        "A": Group(3, 72.5, 0.8),
        "B": Group(3, 70.2, 1.4),
        "C": Group(3, 69.0, 0.5),
        "D": Group(2, 70.5, 2.0),
        "E": Group(3, 71.0, 1.1),
        "F": Group(3, 66.0, 1.2),
    }
    analysis = judged(groups, margin=1.0)
    found = analysis.comparisons
    assert analysis.rules.k == 6
    expected = (2.679843, 3.974542, 2.377385, None, 3.148637, 3.423165)
    assert [half(c) for c in found] == [None if h is None else six(h) for h in expected]
    assert (found[3].verdict, found[3].withheld) == ("inconclusive", "too few runs")
    assert (found[5].verdict, found[5].p_adjusted) == ("hurts", six(0.028391))


def test_u4_from_the_runs_themselves():
    c = only({"baseline": Group.of(BASE), "arm": Group.of([71.2, 70.4, 70.9, 71.6, 70.1])})
    assert (c.effect, half(c), c.p_adjusted) == (six(0.823333), six(0.851163), six(0.055009))


# --- references ---


@pytest.mark.parametrize("k", [1, 4])
def test_equal_numbers_of_runs_and_equal_noise_give_student_s_t_with_the_df_of_one_group(k):
    """Where both groups have one df, Banerjee's half-width is √2 standard errors times their common quantile."""
    values = np.random.default_rng(1).normal(0, 1, 8)
    shifted = values + 0.7
    c = only({"baseline": Group.of(values), "arm": Group.of(shifted)}, k=k)
    se = math.sqrt(2 * values.var(ddof=1) / 8)
    assert half(c) == pytest.approx(stats.t.ppf(1 - 0.05 / (2 * k), 7) * se, rel=1e-12)
    assert c.p_adjusted == pytest.approx(min(1.0, k * 2 * stats.t.sf(0.7 / se, 7)), rel=1e-9)


def test_with_many_runs_it_agrees_with_welch():
    rng = np.random.default_rng(2)
    arm, base = rng.normal(0.1, 2, 4000), rng.normal(0, 1, 3000)
    c = only({"baseline": Group.of(base), "arm": Group.of(arm)})
    welch = stats.ttest_ind(arm, base, equal_var=False)
    interval = welch.confidence_interval(0.95)
    assert (c.lo, c.hi) == pytest.approx((interval.low, interval.high), rel=2e-3)
    assert c.p_adjusted == pytest.approx(welch.pvalue, rel=1e-2)


def test_against_a_baseline_without_error_it_is_the_one_sample_t():
    rng = np.random.default_rng(3)
    arm = rng.normal(0.5, 1, 6)
    found = group_intervals(
        np.array([0.0, arm.mean()]),
        np.array([0.0, arm.var(ddof=1)]),
        np.array([5, 6]),
        k=1,
        margin=0.1,
    )
    reference = stats.ttest_1samp(arm, 0.0)
    interval = reference.confidence_interval(0.95)
    assert (found.lo[0], found.hi[0]) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p_adjusted[0] == pytest.approx(reference.pvalue, rel=1e-9)


@pytest.mark.parametrize("p", [0.9, 0.05, 1e-3, 1e-9, 1e-40])
def test_p_is_the_level_at_which_the_interval_touches_zero(p):
    errors, dfs = np.array([0.3, 0.02]), np.array([2.0, 23.0])
    touching = np.sqrt((stats.t.ppf(p / 2, dfs) ** 2 * errors).sum())
    found = two_sided_p(touching, errors, dfs)
    assert float(found) == pytest.approx(p, rel=1e-9)


def test_p_at_its_ends():
    one, both, dfs = np.array([1.0]), np.array([[1.0, 1.0]]), np.array([4.0, 7.0])
    assert two_sided_p(0 * one, both, dfs).tolist() == [1.0]
    assert two_sided_p(0 * one, 0 * both, dfs).tolist() == [1.0]
    assert two_sided_p(one, 0 * both, dfs).tolist() == [0.0]


# --- laws ---

GROUPS = st.integers(2, 8).flatmap(
    lambda groups: st.tuples(
        hnp.arrays(float, groups, elements=st.floats(-1e3, 1e3)),
        hnp.arrays(float, groups, elements=st.floats(1e-3, 1e3)),
        hnp.arrays(np.int64, groups, elements=st.integers(0, 30)),
    )
)


@given(groups=GROUPS, k=st.integers(8, 50), margin=st.floats(1e-3, 1e3))
def test_p_is_below_five_percent_exactly_when_the_interval_excludes_zero(groups, k, margin):
    mean, std, runs = groups
    found = group_intervals(mean, group_variance(std, 0.0), runs, k=k, margin=margin)
    excludes = (found.lo > 0) | (found.hi < 0)
    enough = (runs[1:] >= 3) & (runs[0] >= 3)
    assert np.array_equal(np.isnan(found.p_adjusted), ~enough)
    clear = enough & (np.abs(found.p_adjusted - 0.05) > 1e-9)  # at the boundary, rounding decides
    assert np.array_equal((found.p_adjusted < 0.05)[clear], excludes[clear])


@given(groups=GROUPS, scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_another_unit_gives_the_same_verdicts(groups, scale, shift):
    mean, std, runs = groups
    one = group_intervals(mean, group_variance(std, 0.1), runs, k=8, margin=0.5)
    other = group_intervals(
        mean * scale + shift, group_variance(std * scale, 0.1 * scale), runs, k=8, margin=0.5 * scale
    )
    assert other.half == pytest.approx(one.half * scale, rel=1e-9, nan_ok=True)
    same = np.abs(np.abs(one.effect) - one.half) > 1e-6 * (1 + np.abs(one.effect)) * (1 + 1 / scale)
    same &= np.abs(np.abs(np.abs(one.effect) - one.half) - 0.5) > 1e-6 * (1 + np.abs(one.effect)) * (
        1 + 1 / scale
    )
    assert np.array_equal(other.code[same], one.code[same])


@given(groups=GROUPS)
def test_the_interval_is_never_narrower_than_with_each_group_s_own_noise(groups):
    mean, std, runs = groups
    found = group_intervals(mean, group_variance(std, 0.0), runs, k=8, margin=1.0)
    usable = runs >= 3
    assert (found.variance >= np.square(std) * (1 - 1e-12))[usable].all()
    assert (found.df <= np.where(usable, runs - 1 + 4, 6)).all()


def test_leading_axes_broadcast_to_the_same_numbers_as_one_study_at_a_time():
    rng = np.random.default_rng(5)
    mean, std, runs = rng.normal(size=(6, 7)), rng.uniform(0.1, 2, (6, 7)), rng.integers(2, 9, (6, 7))
    together = group_intervals(mean, std**2, runs, k=6, margin=0.5)
    for i in range(6):
        alone = group_intervals(mean[i], std[i] ** 2, runs[i], k=6, margin=0.5)
        for name in ("lo", "hi", "p_adjusted", "code"):
            assert np.array_equal(getattr(together, name)[i], getattr(alone, name), equal_nan=True), name


def test_the_order_of_runs_and_of_arms_leaves_no_trace():
    rng = np.random.default_rng(6)
    runs = {name: rng.normal(70, 1, n) for name, n in zip("abcdef", (3, 5, 4, 7, 3, 6), strict=True)}
    first = judged({name: Group.of(v) for name, v in runs.items()}, baseline="c")
    for _ in range(5):
        names = list(rng.permutation(list(runs)))
        again = judged({name: Group.of(rng.permutation(runs[name])) for name in names}, baseline="c")
        assert {c.arm: c for c in again.comparisons} == {c.arm: c for c in first.comparisons}


def test_values_and_their_mean_std_and_n_give_the_same_verdict():
    a = only({"baseline": Group.of(BASE), "arm": Group.of([71.2, 70.4, 70.9])})
    means = {
        name: Group(len(v), float(np.mean(v)), float(np.std(v, ddof=1)))
        for name, v in (("baseline", BASE), ("arm", [71.2, 70.4, 70.9]))
    }
    b = only(means)
    assert (a.verdict, a.n, a.n_reference) == (b.verdict, b.n, b.n_reference)
    assert (a.lo, a.hi, a.p_adjusted) == pytest.approx((b.lo, b.hi, b.p_adjusted), rel=1e-9)
    assert (b.summary.low, b.summary.high) == (None, None)


def test_effects_are_oriented():
    groups = {"baseline": Group.of(BASE), "arm": Group.of([60.1, 60.0, 60.2])}
    less = judge_groups(groups, metric="loss", margin=0.5).comparisons[0]
    assert (less.verdict, less.effect > 0) == ("helps", True)
    assert only(groups).verdict == "hurts"


# --- what is no repeat, and what has no noise ---


def test_the_resolution_stands_in_for_noise_that_ties_hide():
    q = 0.5
    tied = {"baseline": Group.of([70.0] * 4), "arm": Group.of([70.5] * 4)}
    found = only(tied, resolution=q, margin=2.0)
    assert half(found) == pytest.approx(stats.t.ppf(0.975, 3) * math.sqrt(2 * q**2 / 8 / 4), rel=1e-12)
    bare = only(tied, margin=2.0)
    assert (bare.verdict, bare.lo, bare.withheld) == ("inconclusive", None, "no noise")


def test_equal_values_whose_mean_is_rounded_have_no_noise():
    assert Group.of([0.1] * 7).std == 0.0


@pytest.mark.parametrize("side", ["baseline", "arm"])
def test_below_three_runs_in_the_arm_or_the_baseline_there_is_no_interval(side):
    groups = {"baseline": Group(5, 80.0, 0.5), "arm": Group(5, 81.2, 0.7)}
    groups[side] = Group(2, 80.0, 0.5)
    c = only(groups)
    assert (c.verdict, c.lo, c.p_adjusted, c.withheld) == ("inconclusive", None, None, "too few runs")


@pytest.mark.parametrize("side", ["baseline", "arm"])
def test_copies_are_no_repeats(side):
    groups = {"baseline": Group(5, 80.0, 0.5), "arm": Group(5, 81.2, 0.7)}
    groups[side] = Group(5, 80.0, 0.0, copied=True)
    c = only(groups)
    assert (c.verdict, c.lo) == ("not independent", None)


def test_a_divergence_leaves_hurts_alone_to_be_read():
    groups = {
        "baseline": Group.of(BASE),
        "better": Group(5, 75.0, 0.3, diverged=1),
        "worse": Group(5, 60.0, 0.3, diverged=1),
        "none left": Group(0, diverged=3),
    }
    assert [c.verdict for c in judged(groups).comparisons] == ["unstable", "hurts", "unstable"]


def test_a_diverged_baseline_is_an_error_of_the_whole():
    analysis = judged({"baseline": Group(5, 70.0, 0.3, diverged=2), "arm": Group.of(BASE)})
    assert analysis.error is not None
    assert analysis.comparisons[0].withheld == "reference diverged"
    assert "diverged in 2 runs" in headline(analysis)


def test_single_runs_get_no_verdict_but_the_size_of_what_seeds_do():
    base = np.array(BASE)
    analysis = judged({"baseline": Group.of(base), "arm": Group.of([72.0])})
    spread = stats.t.ppf(0.975, 5) * math.sqrt(2 * base.var(ddof=1))
    assert seed_spread([Group.of(base), Group.of([72.0])]) == pytest.approx(spread, rel=1e-12)
    [warning] = analysis.warnings
    assert (warning.code, warning.arms) == ("single-runs", ("arm",))
    assert warning.figures["spread"] == pytest.approx(spread, rel=1e-12)
    assert "differ by up to 1.4 here (95 %)" in caution(warning, analysis.rules)
    assert analysis.comparisons[0].verdict == "inconclusive"


def test_single_runs_alone_say_nothing_of_seeds():
    analysis = judged({"baseline": Group.of([70.0]), "arm": Group.of([72.0])})
    assert seed_spread([Group.of([70.0]), Group.of([72.0])]) is None
    assert "nothing was repeated" in caution(analysis.warnings[0], analysis.rules)


def test_strong_skew_is_told_where_noise_or_numbers_of_runs_differ():
    tail = -np.geomspace(0.01, 3, 24)  # most runs alike, a few much worse

    def codes(arm):
        return [w.code for w in judged({"baseline": Group.of(tail), "arm": Group.of(arm)}).warnings]

    assert codes(tail + 0.1) == []
    assert codes(3 * tail) == ["skewed"]
    assert codes(tail[::4]) == ["skewed"]
    analysis = judged({"baseline": Group.of(tail), "arm": Group.of(tail[::4])})
    assert "skewed over runs" in caution(analysis.warnings[0], analysis.rules)


def test_the_skewness_test_is_scipy_s():
    rng = np.random.default_rng(9)
    for values in (rng.normal(size=20), rng.exponential(size=37), -rng.exponential(size=400)):
        found = skewness_test(values)
        assert found[0] == pytest.approx(stats.skew(values), rel=1e-12)
        assert found[1] == pytest.approx(stats.skewtest(values).pvalue, rel=1e-9)


def test_many_single_runs_are_counted_not_listed():
    analysis = judged({str(i): Group.of([float(i)]) for i in range(107)}, baseline="0")
    assert caution(analysis.warnings[0], analysis.rules).startswith("107 arms have one run each, and nothing")


# --- mistakes ---

MISTAKES = {
    "a NaN": (lambda: Group.of([1.0, math.nan, 2.0]), "1 of 3 values is not finite"),
    "infinities": (lambda: Group.of([1.0, math.inf, -math.inf]), "2 of 3 values are not finite"),
    "text": (lambda: Group.of(["a", "b"]), "no numbers"),
    "a mean that is NaN": (lambda: Group(3, math.nan, 1.0), "not a finite number"),
    "no std of several runs": (lambda: Group(3, 1.0), "standard deviation of 3 runs is nan"),
    "a negative std": (lambda: Group(3, 1.0, -0.1), "standard deviation of 3 runs is -0.1"),
    "a negative number of runs": (lambda: Group(-1, 1.0, 0.1), "negative number of runs"),
    "values that are too few": (lambda: Group(3, 1.0, 0.1, (1.0,)), "1 values are given for 3 runs"),
    "no baseline": (lambda: judged({"a": Group(3, 1.0, 0.1)}, baseline="b"), "no runs of the baseline 'b'"),
    "runs of no arm": (
        lambda: judged({n: Group(3, 1.0, 0.1) for n in ("baseline", "a", "b")}, arms=[ArmRule("a")]),
        "none of the arms",
    ),
}


@pytest.mark.parametrize(("make", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_its_reason(make, words):
    with pytest.raises(StoreError, match=words):
        make()


def test_a_family_is_no_smaller_than_its_arms():
    with pytest.raises(StudyError, match="too small"):
        judged({n: Group(3, 1.0, 0.1) for n in ("baseline", "a", "b")}, k=1)
    assert judged({n: Group(3, 1.0, 0.1) for n in ("baseline", "a", "b")}, k=9).rules.k == 9


# --- what is said ---


def test_sentences_count_the_runs_on_both_sides():
    analysis = judged({"baseline": Group(5, 80.0, 0.5), "arm": Group(4, 81.2, 0.7)})
    told = sentence(analysis.comparisons[0], analysis.rules)
    assert "(−0.1 to 2.5, 4 runs against 5)" in told
    assert "runs of each" in told
    assert "seed" not in told


def test_the_json_says_that_nothing_is_paired():
    groups = {"baseline": Group(5, 80.0, 0.5), "arm": Group(4, 81.2, 0.7), "single": Group.of([81.0])}
    told = json.loads(json.dumps(to_json(judged(groups)), allow_nan=False))
    assert (told["paired"], told["n_baseline"], told["alpha"]) == (False, 5, 0.05)
    assert [(arm["n"], arm["n_baseline"]) for arm in told["arms"]] == [(4, 5), (1, 5)]


def test_arms_keep_their_factors_and_one_without_runs_still_counts():
    arms = [ArmRule("w=64", "width", 64), ArmRule("w=128", "width", 128)]
    analysis = judged({"baseline": Group.of(BASE), "w=64": Group(5, 71.0, 0.4)}, arms=arms)
    assert analysis.rules.k == 2
    assert [(c.factor, c.level, c.n) for c in analysis.comparisons] == [("width", 64, 5), ("width", 128, 0)]
    assert sentence(analysis.comparisons[1], analysis.rules).startswith("Width 128 is inconclusive: no run")


# --- price of certainty ---


def test_the_price_counts_runs_of_both_groups_and_a_group_keeps_what_it_has():
    price = only({"baseline": Group(30, 80.0, 0.5), "arm": Group(4, 81.0, 0.7)}).more_seeds
    assert 4 < price.n50 < 30
    assert price.n50 <= price.n80


def test_a_larger_effect_and_a_wider_margin_are_cheaper():
    def n80(effect, margin):
        return only(
            {"baseline": Group(5, 80.0, 1.0), "arm": Group(5, 80.0 + effect, 1.0)}, margin=margin
        ).more_seeds.n80

    assert n80(1.2, 0.5) < n80(0.9, 0.5)
    assert n80(0.0, 1.0) < n80(0.0, 0.5)


def test_promised_runs_settle_arms_about_as_often_as_promised():
    """Effects uniform within ±3 margins, and noise between a third of the margin and three times the margin."""
    rng = np.random.default_rng(7)
    promised, settled = [], []
    for _ in range(300):
        std = math.exp(rng.uniform(math.log(1 / 3), math.log(3)))
        base, arm = rng.normal(0, std, 200), rng.normal(rng.uniform(-3, 3), std, 200)
        now = only({"baseline": Group.of(base[:5]), "arm": Group.of(arm[:5])}, margin=1.0)
        price = now.more_seeds
        if price is None or price.n50 is None or price.n50 > 200:
            continue
        n = price.n50
        values = np.stack([base[:n], arm[:n]])
        then = group_intervals(
            values.mean(-1), values.var(-1, ddof=1), np.full(2, n), k=1, margin=1.0, alpha=0.0025
        )
        promised.append(price.probability50)
        settled.append(then.code[0] != 0)
    assert len(settled) > 100
    assert np.mean(settled) > np.mean(promised) - 0.1


# --- error of a family ---


@pytest.mark.parametrize("ratio", [1.0, 3.0, 1 / 3])
@pytest.mark.parametrize("k", [1, 6])
def test_null_arms_are_seldom_told_apart(k, ratio):
    """ratio: noise of the arms against the baseline's. Runs: 3 to 30, unequal."""
    rng = np.random.default_rng(8)
    studies = 4000
    runs = np.resize([20, 3, 8, 3, 5, 30, 4], 1 + k)
    std = np.resize([1.0] + [ratio] * k, 1 + k)
    # Mean and variance of normal runs are independent, which saves drawing the runs.
    mean = rng.standard_normal((studies, 1 + k)) * std / np.sqrt(runs)
    variance = std**2 * rng.chisquare(runs - 1, (studies, 1 + k)) / (runs - 1)
    found = group_intervals(mean, variance, runs, k=k, margin=0.1)
    wrong = ((found.code == HELPS) | (found.code == HURTS)).any(-1).mean()
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)
