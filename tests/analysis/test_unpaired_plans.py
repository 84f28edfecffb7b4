"""Plans with `unpaired: true`: every look, design and figure compares groups of runs, and no number of a seed leaves a trace."""

import math

import numpy as np
import pandas as pd
import pytest
from analysis_frames import row, rules
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablate.analysis import ArmRule, judge, judge_groups, next_step, sentence, to_json, undecided
from ablate.analysis.groups import Group, group_intervals
from ablate.analysis.power import detectable_by, detectable_in_groups


def frame(values, **more):
    """values: arm → its runs in the order of their seeds."""
    return pd.DataFrame([row(arm, i, v, **more) for arm, runs in values.items() for i, v in enumerate(runs)])


def noisy(arms, n=5, *, seed=0, sd=0.2, effects=()):
    rng = np.random.default_rng(seed)
    shifts = dict(zip(arms, effects, strict=False))
    return {arm: (50 + shifts.get(arm, 0.0) + rng.normal(0, sd, n)).tolist() for arm in ("baseline", *arms)}


def apart(arms, **options):
    return rules(arms, unit="run", **options)


def test_one_look_is_the_verdict_of_the_same_groups_at_its_own_error():
    values = noisy("ABCDE", effects=(1.0, 0.0, -1.0, 0.3, 0.0))
    analysis = judge(apart("ABCDE", looks=(5,)), frame(values))
    groups = {arm: Group.of(runs) for arm, runs in values.items()}
    means, variances = (np.array([getattr(g, name) for g in groups.values()]) for name in ("mean", "std"))
    expected = group_intervals(means, variances**2, np.full(6, 5), k=5, margin=0.5, alpha=0.045)
    found = analysis.comparisons
    assert [c.effect for c in found] == pytest.approx(expected.effect)
    assert [c.lo for c in found] == pytest.approx(expected.lo)
    assert [c.p_adjusted for c in found] == pytest.approx(expected.p_adjusted)
    assert [(c.n, c.n_reference, c.differences) for c in found] == [(5, 5, ())] * 5
    unplanned = judge_groups(groups, metric="score", margin=0.5, direction="maximize")
    assert [c.verdict for c in found] == [c.verdict for c in unplanned.comparisons]
    assert all(c.hi - c.lo > u.hi - u.lo for c, u in zip(found, unplanned.comparisons, strict=True))


@settings(max_examples=20)
@given(order=st.permutations(range(5)), which=st.sampled_from(["baseline", "A", "B"]))
def test_the_numbers_of_the_seeds_leave_no_trace(order, which):
    values = noisy("AB", effects=(0.6, 0.0))
    shuffled = values | {which: [values[which][i] for i in order]}
    one, other = (
        judge(apart("AB", looks=(5,)), frame(v).assign(weights=None, trace=None)) for v in (values, shuffled)
    )
    verdicts = [
        [(c.verdict, c.effect, c.lo, c.hi, c.p_adjusted, c.more_seeds) for c in analysis.comparisons]
        for analysis in (one, other)
    ]
    assert verdicts[0] == verdicts[1]


def test_pairs_that_move_together_gain_nothing():
    """The same differences under every seed are certain in pairs, and not in groups."""
    base = [50.0, 51.0, 52.0, 49.0, 48.0]
    values = {"baseline": base, "A": [v + 0.8 + 0.01 * i for i, v in enumerate(base)]}
    assert judge(rules("A", looks=(5,)), frame(values)).comparisons[0].verdict == "helps"
    assert judge(apart("A", looks=(5,)), frame(values)).comparisons[0].verdict == "inconclusive"


def test_what_a_look_decides_is_frozen_and_keeps_its_part_in_the_typical_noise():
    values = noisy("ABCDE", 10, effects=(2.0, 0.2, 0.2, 0.2, 0.2), seed=3)
    first = judge(apart("ABCDE", margin=0.3), frame({arm: runs[:5] for arm, runs in values.items()}))
    assert first.look == 1
    decided = [c.arm for c in first.comparisons if c.verdict != "inconclusive"]
    assert "A" in decided
    open_arms = undecided(first)
    assert open_arms
    later = {arm: runs if arm in ("baseline", *open_arms) else runs[:5] for arm, runs in values.items()}
    both = judge(apart("ABCDE", margin=0.3), frame(later))
    assert both.look == 2
    assert both.comparison("A") == first.comparison("A")
    groups = [Group.of(runs) for runs in later.values()]
    expected = group_intervals(
        *(np.array([getattr(g, name) for g in groups]) ** power for name, power in (("mean", 1), ("std", 2))),
        np.array([g.n for g in groups]),
        k=5,
        margin=0.3,
        alpha=0.03375,
    )
    for arm in open_arms:
        at = list(later).index(arm) - 1
        c = both.comparison(arm)
        assert (c.lo, c.hi, c.n, c.n_reference) == (
            pytest.approx(expected.lo[at]),
            pytest.approx(expected.hi[at]),
            10,
            10,
        )
    # Runs of a decided arm that the store happens to have change nothing.
    assert [c.lo for c in judge(apart("ABCDE", margin=0.3), frame(values)).comparisons] == [
        c.lo for c in both.comparisons
    ]


def test_failures_leave_groups_of_different_sizes():
    values = frame(noisy("A", effects=(1.5,)))
    values.loc[(values["arm"] == "A") & (values["seed"] == 2), ["outcome", "value"]] = ["failed", math.nan]
    values.loc[(values["arm"] == "baseline") & (values["seed"] < 1), ["outcome", "value"]] = [
        "failed",
        math.nan,
    ]
    [c] = judge(apart("A", looks=(5,)), values).comparisons
    assert (c.n, c.n_reference, c.failed, c.verdict) == (4, 4, 1, "helps")
    values.loc[(values["arm"] == "A") & (values["seed"] < 3), ["outcome", "value"]] = ["failed", math.nan]
    [c] = judge(apart("A", looks=(5,)), values).comparisons
    assert (c.n, c.verdict, c.withheld, c.lo) == (2, "inconclusive", "too few runs", None)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"outcome": "diverged", "value": math.nan}, "unstable"),
        ({"weights": "w/A/report/0"}, "not independent"),
        ({"trace": "t/A/report/0"}, "not independent"),
    ],
)
def test_flags_are_those_of_paired_plans(change, verdict):
    values = frame(noisy("AB", effects=(1.0,)))
    for name, value in change.items():
        values.loc[(values["arm"] == "A") & (values["seed"] == 1), name] = value
    analysis = judge(apart("AB", looks=(5,)), values)
    assert analysis.comparison("A").verdict == verdict
    assert analysis.comparison("B").lo is not None


def test_an_arm_that_repeats_the_baseline_under_every_seed_is_no_override():
    values = frame(noisy("A"))
    own = values["arm"] == "A"
    for name in ("weights", "trace", "value"):
        values.loc[own, name] = values.loc[values["arm"] == "baseline", name].to_numpy()
    assert judge(apart("A", looks=(5,)), values).comparisons[0].verdict == "no override"


def test_a_diverged_baseline_is_an_error_of_the_study():
    values = frame(noisy("A"))
    values.loc[(values["arm"] == "baseline") & (values["seed"] == 1), ["outcome", "value"]] = [
        "diverged",
        math.nan,
    ]
    analysis = judge(apart("A", looks=(5,)), values)
    assert analysis.error is not None
    assert analysis.comparisons[0].withheld == "reference diverged"


def test_runs_without_noise_give_no_interval_and_a_resolution_gives_one():
    values = frame({"baseline": [50.0] * 5, "A": [51.0] * 5})
    c = judge(apart("A", looks=(5,)), values).comparisons[0]
    assert (c.verdict, c.withheld) == ("inconclusive", "no noise")
    c = judge(apart("A", looks=(5,), resolution=0.1), values).comparisons[0]
    h = stats.t.ppf(1 - 0.045 / 2, 4) * math.sqrt(2 * (0.1**2 / 8) / 5)
    assert (c.lo, c.hi) == (pytest.approx(1 - h), pytest.approx(1 + h))


def test_an_effect_of_a_factorial_adds_up_the_half_widths_of_its_cells():
    cells = {"b": {"f": 1}, "c": {"g": 1}, "d": {"f": 1, "g": 1}}
    plan = apart(
        [ArmRule(name, None, level) for name, level in cells.items()],
        looks=(6,),
        design="factorial",
        baseline_levels={"f": 0, "g": 0},
    )
    values = noisy("bcd", 6, effects=(1.0, 0.0, 2.0))
    analysis = judge(plan, frame(values))
    f = analysis.effects[0]
    means = {arm: np.mean(runs) for arm, runs in values.items()}
    variances = {arm: np.var(runs, ddof=1) for arm, runs in values.items()}
    assert f.estimate == pytest.approx((means["b"] + means["d"] - means["baseline"] - means["c"]) / 2)
    # Four groups are too few to borrow from: each has its own noise, and its own five degrees of freedom.
    t = stats.t.ppf(1 - 0.045 / 6, 5)
    assert f.hi - f.estimate == pytest.approx(t * math.sqrt(sum(variances.values()) / 4 / 6))
    assert f.n == 6
    assert "6 runs of each arm" in sentence(f, plan)


def test_the_interaction_with_the_rest_stands_beside_what_it_is_made_of():
    arms = [
        *(ArmRule(f"{x}=1", x, 1) for x in "xyz"),
        *(ArmRule(f"{x}=0", x, 0, "full") for x in "xyz"),
    ]
    values = noisy(["x=1", "y=1", "z=1", "x=0", "y=0", "z=0", "full"], 5, effects=(1, 0, 0, 2, 3, 3, 3))
    analysis = judge(apart(arms, looks=(5,), design="both"), frame(values))
    for effect in analysis.effects:
        alone, given_the_rest = effect.apart
        assert effect.estimate == pytest.approx(given_the_rest - alone)


def test_a_path_goes_to_the_best_mean_of_all_runs_not_of_pairs():
    values = frame({"baseline": [50.0, 51.0, 52.0], "A": [51.0, 52.0, 53.0], "B": [50.7, 51.7, 52.7]})
    # One run of A failed, and one of the baseline's under another seed: two pairs are left of three.
    values.loc[(values["arm"] == "A") & (values["seed"] == 2), ["outcome", "value"]] = ["failed", math.nan]
    arms = [ArmRule("A", "a", 1, "baseline"), ArmRule("B", "b", 1, "baseline")]
    plan = {"looks": (3,), "design": "path", "steps": 2, "edges": 4}
    assert next_step(rules(arms, **plan), values, range(3)) == "A"
    assert next_step(apart(arms, **plan), values, range(3)) == "B"


def test_a_a_and_a_confirmation_are_groups_too():
    values = [
        *(row("baseline", i, 50 + 0.1 * i) for i in range(5)),
        *(row("A", i, 52 + 0.1 * i) for i in range(5)),
    ]
    values += [row("A/A", 1000 + i, 50 + 0.1 * ((i + 2) % 5), phase="A/A") for i in range(5)]
    for arm, level in (("baseline", 50), ("A", 52)):
        values += [row(arm, 3000 + i, level + 0.1 * i, phase="confirm") for i in range(5)]
    analysis = judge(apart("A", looks=(5,), confirm_seeds=5), pd.DataFrame(values))
    for c, alpha in ((analysis.aa, 0.045), (analysis.confirmation, 0.05)):
        h = stats.t.ppf(1 - alpha / 2, 4) * math.sqrt(2 * np.var(0.1 * np.arange(5), ddof=1) / 5)
        assert (c.hi - c.lo) / 2 == pytest.approx(h)
        assert (c.n, c.n_reference) == (5, 5)


def test_the_price_is_in_runs_of_each_with_their_time():
    c = judge(apart("A"), frame(noisy("A", effects=(0.2,)))).comparisons[0]
    assert c.verdict == "inconclusive"
    assert c.more_seeds.n50 > 5
    assert c.more_seeds.seconds50 == pytest.approx(20.0 * (c.more_seeds.n50 - 5))
    assert "runs of each" in sentence(c, apart("A"))


def test_json_says_that_nothing_is_paired():
    content = to_json(judge(apart("A"), frame(noisy("A"))))
    assert (content["paired"], content["n_baseline"], content["arms"][0]["n_baseline"]) == (False, 5, 5)
    paired = to_json(judge(rules("A"), frame(noisy("A"))))
    assert (paired["paired"], paired["n_baseline"], "n_baseline" in paired["arms"][0]) == (True, 5, False)


def test_noise_is_that_of_a_run_and_is_named_by_arm():
    values = noisy("ABCD", 5)
    values["C"] = [50 + 8 * (v - 50) for v in values["C"]]
    analysis = judge(apart("ABCD", looks=(5,)), frame(values))
    [noisy_arm] = [c for c in analysis.warnings if c.code == "noisy"]
    assert noisy_arm.subject == "C"
    variances = [np.var(runs, ddof=1) for runs in values.values()]
    assert analysis.noise == pytest.approx(math.sqrt(variances[0] + np.mean(variances[1:])))


@pytest.mark.parametrize(
    ("arms", "n", "alpha"), [(1, 5, 0.045), (6, 5, 0.045), (6, 10, 0.03375), (6, 3, 0.045)]
)
def test_the_detectable_effect_is_detected_in_eighty_percent(arms, n, alpha):
    rng = np.random.default_rng(arms * n)
    effect = detectable_in_groups(arms, n, alpha, groups=arms + 1) * math.sqrt(2)
    studies = 4000
    mean = rng.standard_normal((studies, arms + 1)) / math.sqrt(n)
    mean[:, 1:] += effect
    variance = rng.chisquare(n - 1, (studies, arms + 1)) / (n - 1)
    found = group_intervals(mean, variance, np.full(arms + 1, n), k=arms, margin=1e-9, alpha=alpha)
    power = (found.lo > 0).mean()
    # "About": an arm that is noisier than typical keeps its own noise, which is not in the formula.
    assert 0.72 <= power <= 0.82
    names = [f"a{i}" for i in range(arms)]
    look = apart(names, looks=(n,)).schedule()[0]
    if alpha == look.alpha:
        assert detectable_by(apart(names, looks=(n,)), look) == pytest.approx(effect / math.sqrt(2))
