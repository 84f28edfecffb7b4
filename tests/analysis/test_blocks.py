"""Blocks (tasks, data sets, folds): verdicts within each, and over them with the block as the unit."""

import json

import numpy as np
import pytest
from analysis_frames import replicates, rules
from scipy import stats

from ablate.analysis import judge, sentence, to_json
from ablate.analysis.blocks import judge_blocks, over_blocks
from ablate.analysis.groups import Group
from ablate.analysis.unpaired import judge_groups
from ablate.analysis.verdict_json import blocks_to_json
from ablate.errors import StoreError, StudyError

OPTIONS = {"metric": "score", "direction": "maximize", "margin": 0.5}


def blocks(effects, *, levels=None, runs=4, seed=0):
    """A block for each effect; noise of .1, and levels that differ far more than the arms do."""
    rng = np.random.default_rng(seed)
    levels = range(10, 10 + 20 * len(effects), 20) if levels is None else levels
    return {
        f"task {b}": {
            "baseline": Group.of(level + rng.normal(0, 0.1, runs)),
            "arm": Group.of(level + effect + rng.normal(0, 0.1, runs)),
        }
        for b, (effect, level) in enumerate(zip(effects, levels, strict=True))
    }


def test_over_blocks_it_is_the_paired_t_of_the_means():
    data = blocks([1.2, 0.8, 1.5, 0.9, 1.1, 1.3])
    [c] = judge_blocks(data, **OPTIONS).over.comparisons
    means = np.array([[g["arm"].mean, g["baseline"].mean] for g in data.values()])
    reference = stats.ttest_rel(means[:, 0], means[:, 1])
    interval = reference.confidence_interval(0.95)
    assert (c.n, c.verdict) == (6, "helps")
    assert (c.lo, c.hi) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert c.p_adjusted == pytest.approx(reference.pvalue, rel=1e-9)
    assert [b for b, _ in c.differences] == list(range(6))


def test_runs_are_never_pooled_over_blocks():
    """An arm with more runs where the metric is high has a higher mean over runs, and no effect at all."""
    rng = np.random.default_rng(1)
    data = {
        f"task {b}": {
            "baseline": Group.of(level + rng.normal(0, 0.1, 10 - n)),
            "arm": Group.of(level + rng.normal(0, 0.1, n)),
        }
        for b, (level, n) in enumerate([(10, 3), (20, 3), (50, 5), (80, 7), (90, 7)])
    }
    blocked = judge_blocks(data, **OPTIONS)
    assert blocked.over.comparisons[0].verdict == "no practical effect"


def test_a_family_within_blocks_is_arms_times_blocks_and_over_them_arms():
    data = blocks([0.0] * 6)
    for groups in data.values():
        groups["other"] = groups["arm"]
    blocked = judge_blocks(data, **OPTIONS)
    assert {analysis.rules.k for _, analysis in blocked.within} == {12}
    assert blocked.over.rules.k == 2
    wider = judge_blocks(data, k=5, **OPTIONS)
    assert ({a.rules.k for _, a in wider.within}, wider.over.rules.k) == ({30}, 5)


def test_within_a_block_it_is_the_comparison_of_its_groups():
    data = blocks([1.0, 0.0, -1.0, 0.3, 0.2])
    for block, analysis in judge_blocks(data, **OPTIONS).within:
        alone = judge_groups(data[block], k=5, **OPTIONS)
        assert analysis.comparisons == alone.comparisons


def test_four_blocks_are_too_few_for_an_interval_over_them():
    blocked = judge_blocks(blocks([1.0, 1.1, 0.9, 1.0]), **OPTIONS)
    [c] = blocked.over.comparisons
    assert (c.verdict, c.lo, c.withheld, c.n) == ("inconclusive", None, "too few blocks", 4)
    assert "4 blocks, too few for an interval" in sentence(c, blocked.over.rules)
    assert all(a.comparisons[0].lo is not None for _, a in blocked.within)


def test_relative_differences_are_on_one_scale():
    """An arm that is 10 % better everywhere, in tasks whose levels are far apart."""
    levels = [1.0, 10.0, 100.0, 1000.0, 10000.0]
    rng = np.random.default_rng(2)
    data = {
        f"task {b}": {
            "baseline": Group.of(level * (1 + rng.normal(0, 0.01, 4))),
            "arm": Group.of(level * (1.1 + rng.normal(0, 0.01, 4))),
        }
        for b, level in enumerate(levels)
    }
    blocked = judge_blocks(data, metric="score", direction="maximize", margin=0.02, relative=True)
    [c] = blocked.over.comparisons
    assert (c.verdict, c.clearly) == ("helps", True)
    assert c.effect == pytest.approx(0.1, abs=0.02)
    assert "% of the baseline" in sentence(c, blocked.over.rules)
    assert [a.baseline.mean for _, a in blocked.within] == pytest.approx(levels, rel=0.02)
    absolute = judge_blocks(data, metric="score", direction="maximize", margin=0.02).over.comparisons[0]
    assert absolute.verdict == "inconclusive"


def test_relative_to_a_negative_mean_higher_is_still_better():
    groups = {"baseline": Group(5, -10.0, 0.1), "arm": Group(5, -8.0, 0.1)}
    found = judge_groups(groups, metric="score", direction="maximize", margin=0.05, relative=True)
    assert (found.comparisons[0].verdict, found.comparisons[0].effect) == ("helps", pytest.approx(0.2))
    assert found.comparisons[0].summary.mean == -8.0


@pytest.mark.parametrize(("mean", "stretch"), [(38.8, 1.0), (40.0, 1.0), (41.2, 1.03)])
def test_dividing_by_the_baseline_leaves_p_as_if_its_noise_were_multiplied_with_the_ratio(mean, stretch):
    groups = {"baseline": Group(5, 40.0, 1.0 * stretch), "arm": Group(4, mean, 0.7)}
    divided = {"baseline": Group(5, 40.0, 1.0), "arm": Group(4, mean, 0.7)}
    plain, relative = (
        judge_groups(given, **OPTIONS | {"relative": way}).comparisons[0].p_adjusted
        for way, given in ((False, groups), (True, divided))
    )
    assert relative == pytest.approx(plain, rel=1e-9)


def test_the_order_of_blocks_leaves_no_trace_in_verdicts():
    data = blocks([1.2, 0.1, 1.5, -0.4, 1.1, 1.3])
    [first] = judge_blocks(data, **OPTIONS).over.comparisons
    [again] = judge_blocks(dict(reversed(data.items())), **OPTIONS).over.comparisons
    assert again.verdict == first.verdict
    assert (again.lo, again.hi) == pytest.approx((first.lo, first.hi), rel=1e-12)


def test_an_arm_is_compared_over_the_blocks_that_it_has_runs_in():
    data = blocks([1.0, 1.1, 0.9, 1.0, 1.2, 1.05])
    del data["task 3"]["arm"]
    [c] = judge_blocks(data, **OPTIONS).over.comparisons
    assert (c.n, [b for b, _ in c.differences], c.verdict) == (5, [0, 1, 2, 4, 5], "helps")


def test_one_run_in_each_block_is_enough_over_blocks():
    data = {f"task {b}": {"baseline": Group.of([b]), "arm": Group.of([b + 1 + b % 2 / 8])} for b in range(8)}
    blocked = judge_blocks(data, **OPTIONS)
    assert blocked.over.comparisons[0].verdict == "helps"
    assert {a.comparisons[0].withheld for _, a in blocked.within} == {"too few runs"}


@pytest.mark.parametrize(
    ("group", "verdict"),
    [
        (Group(4, 12.0, 0.1, diverged=1), "unstable"),
        (Group(4, 12.0, 0.0, copied=True), "not independent"),
    ],
)
def test_what_spoils_an_arm_in_one_block_spoils_it_over_all(group, verdict):
    data = blocks([1.0] * 6)
    data["task 0"]["arm"] = group
    assert judge_blocks(data, **OPTIONS).over.comparisons[0].verdict == verdict


def test_a_divergence_does_not_hide_that_an_arm_hurts():
    data = blocks([-2.0] * 6)
    data["task 0"]["arm"] = Group(4, 8.0, 0.1, diverged=1)
    assert judge_blocks(data, **OPTIONS).over.comparisons[0].verdict == "hurts"


def test_equal_differences_are_no_certainty():
    data = {f"task {b}": {"baseline": Group.of([b / 3]), "arm": Group.of([b / 3 + 1])} for b in range(6)}
    over = judge_blocks(data, **OPTIONS).over
    assert (over.comparisons[0].verdict, over.comparisons[0].withheld) == ("inconclusive", "no noise")
    assert [w.code for w in over.warnings] == ["no-noise"]


def test_the_price_over_blocks_is_counted_in_blocks():
    over = judge_blocks(blocks([1.0, 0.1, 1.4, -0.3, 0.9]), **OPTIONS).over
    assert over.comparisons[0].more_seeds.n50 > 5
    assert " blocks" in sentence(over.comparisons[0], over.rules).partition("even chance")[2]


def test_the_json_has_both_levels():
    data = blocks([1.2, 0.8, 1.5, 0.9, 1.1, 1.3])
    told = json.loads(json.dumps(blocks_to_json(judge_blocks(data, **OPTIONS)), allow_nan=False))
    assert (told["paired"], told["n_baseline"], told["arms"][0]["n"]) == (False, 24, 6)
    assert [block["block"] for block in told["blocks"]] == list(data)
    assert told["blocks"][0]["arms"][0] == to_json(judge_groups(data["task 0"], k=6, **OPTIONS))["arms"][0]


def test_blocks_whose_runs_are_paired_are_compared_over_in_the_same_way():
    """Within a block by seed, at the one look of results that nobody planned; over blocks, means are means."""
    differences = np.random.default_rng(4).normal(1.0, 0.3, (6, 4))
    plan = rules(("A",), looks=(4,), planned=False, family=6)
    within = {str(b): judge(plan, replicates({"A": d}, base=[b, b, b, b])) for b, d in enumerate(differences)}
    assert {(a.alpha, a.rules.k) for a in within.values()} == {(0.05, 6)}
    over = over_blocks(within).over
    interval = stats.ttest_1samp(differences.mean(axis=1), 0.0).confidence_interval(0.95)
    [c] = over.comparisons
    assert (c.lo, c.hi) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert blocks_to_json(over_blocks(within))["paired"] is True


MISTAKES = {
    "no blocks": (lambda: judge_blocks({}, **OPTIONS), StoreError, "no blocks"),
    "a block without the baseline": (
        lambda: judge_blocks({"a": {"arm": Group(3, 1.0, 0.1)}}, **OPTIONS),
        StoreError,
        "baseline 'baseline' in the block 'a'",
    ),
    "relative to zero": (
        lambda: judge_blocks(
            {"a": {"baseline": Group(3, 0.0, 0.1), "arm": Group(3, 1.0, 0.1)}}, relative=True, **OPTIONS
        ),
        StoreError,
        "block 'a'.*whose mean is 0",
    ),
    "a family that is too small": (
        lambda: judge_blocks({"a": {n: Group(3, 1.0, 0.1) for n in ("baseline", "x", "y")}}, k=1, **OPTIONS),
        StudyError,
        "too small for 2 arms",
    ),
}


@pytest.mark.parametrize(("make", "kind", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_with_its_reason(make, kind, words):
    with pytest.raises(kind, match=words):
        make()


def test_null_arms_over_blocks_are_seldom_told_apart():
    """The effect of a task is drawn anew for every task: none on average."""
    rng = np.random.default_rng(3)
    studies, missed = 150, 0
    for _ in range(studies):
        effects = rng.normal(0, 1, 6)
        data = {
            str(b): {"baseline": Group.of([0.0]), "arm": Group.of([effect])}
            for b, effect in enumerate(effects)
        }
        [c] = judge_blocks(data, **OPTIONS | {"margin": 3.0}).over.comparisons
        missed += not c.lo <= 0 <= c.hi
    assert missed / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
