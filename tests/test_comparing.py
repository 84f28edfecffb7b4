"""`ablate.compare`: verdicts on a frame of results, by the numbers of the protocol, and what it refuses."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest

import ablate
from ablate.comparisons import Comparisons
from ablate.errors import StudyError

V3 = {
    "A": [1.2, 0.8, 1.1, 0.6, 1.3],
    "B": [0.1, -0.2, 0.0, 0.2, -0.1],
    "C": [0.4, -0.3, 0.5, 0.1, 0.3],
    "D": [-1.0, -2.4, 0.2, -1.9, -0.9],
    "E": [0.0, 0.3, -0.1, 0.2, 0.1],
}
V4 = V3 | {
    "C": V3["C"] + [0.2, 0.4, 0.1, 0.5, 0.2],
    "D": V3["D"] + [-1.4, -0.6, -2.0, -1.1, -1.7],
    "E": V3["E"] + [0.1, 0.0, 0.2, 0.1, 0.0],
}


def paired(differences: dict[str, list[float]]) -> pd.DataFrame:
    """A frame in which arm − baseline is exactly what is asked for, up to rounding."""
    longest = max(map(len, differences.values()))
    level = [50.0 + i % 4 * 0.25 for i in range(longest)]
    rows = [("baseline", seed, level[seed]) for seed in range(longest)]
    rows += [(arm, seed, level[seed] + d) for arm, ds in differences.items() for seed, d in enumerate(ds)]
    return pd.DataFrame(rows, columns=["arm", "seed", "score"])


def groups(**values: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(arm, value) for arm, own in values.items() for value in own], columns=["arm", "score"]
    )


def compare(frame: pd.DataFrame, **options) -> Comparisons:
    given = {"metric": "score", "margin": 0.5, "direction": "maximize"} | options
    return ablate.compare(frame, **given)


def six(*values: float) -> object:
    return pytest.approx(values, abs=5.1e-7)


# --- the numbers of the protocol --------------------------------------------------------------------------------------


def test_one_declared_look():
    """V2."""
    [arm] = compare(paired({"A": [0.8, 0.3, 0.6, 0.5, 0.9]}), looks=[5])
    assert (arm.verdict, arm.n) == ("helps", 5)
    assert (*arm.ci, arm.p_adjusted) == six(0.312469, 0.927531, 0.004862)


def test_several_arms_at_the_first_and_at_the_second_look():
    """V3, V4 and V5."""
    first = compare(paired(V3), looks=[5, 10])
    assert [c.verdict for c in first] == ["helps", "no practical effect", *["inconclusive"] * 3]
    a, _, c, d, e = first
    assert (*a.ci, a.p_adjusted) == six(0.397797, 1.602203, 0.001817)
    assert (*c.ci, *d.ci, *e.ci) == six(-0.425979, 0.825979, -3.178091, 0.778091, -0.395830, 0.595830)
    assert "49 % chance of a verdict by the most of 10 seeds" in c.sentence
    second = compare(paired(V4), looks=[5, 10])
    assert [c.verdict for c in second] == [
        "helps",
        "no practical effect",
        "no practical effect",
        "hurts",
        "no practical effect",
    ]
    c, d, e = second[2:]
    assert (*c.ci, c.p_adjusted) == six(-0.008385, 0.488385, 0.061625)
    assert (*d.ci, d.p_adjusted) == six(-2.057298, -0.502702, 0.001072)
    assert e.ci == six(-0.083954, 0.263954)


def test_a_resolution_is_a_floor_of_the_noise():
    """V6."""
    q = 100 / 360
    [flat] = compare(paired({"A": [0.0] * 3}), looks=[3], resolution=q)
    assert flat.ci == six(-0.365128, 0.365128)
    [shifted] = compare(paired({"A": [q] * 5}), looks=[5], resolution=q)
    assert (shifted.verdict, shifted.ci) == ("no practical effect", six(0.098874, 0.456681))


MEANS = {
    "U1": (0.5, "80 .5 5, 81.2 .7 4", [(1.275189, 0.058193, "inconclusive")]),
    "U2": (
        0.75,
        "80 .4 5, 81.5 .5 5, 80.1 .3 5, 79.2 .9 3, 80.05 .45 10, 78 .6 4",
        [
            (1.079041, 0.008071, "helps"),
            (0.992064, None, "inconclusive"),
            (2.500975, None, "inconclusive"),
            (0.863621, None, "inconclusive"),
            (1.329870, 0.006464, "hurts"),
        ],
    ),
    "U3": (
        1.0,
        "70 1 20, 72.5 .8 3, 70.2 1.4 3, 69 .5 3, 70.5 2 2, 71 1.1 3, 66 1.2 3",
        [
            (2.679843, None, "inconclusive"),
            (3.974542, None, "inconclusive"),
            (2.377385, None, "inconclusive"),
            (None, None, "inconclusive"),
            (3.148637, None, "inconclusive"),
            (3.423165, 0.028391, "hurts"),
        ],
    ),
}


def means(text: str) -> pd.DataFrame:
    """A table of means: "mean sd n, …", the baseline first."""
    rows = [tuple(map(float, row.split())) for row in text.split(",")]
    frame = pd.DataFrame(rows, columns=["score", "sd", "n"])
    return frame.assign(
        arm=["baseline", *(f"arm {i}" for i in range(1, len(rows)))], n=frame["n"].astype(int)
    )


@pytest.mark.parametrize(("margin", "table", "expected"), MEANS.values(), ids=MEANS)
def test_a_table_of_means_is_judged_without_the_runs(margin, table, expected):
    judged = compare(means(table), margin=margin, sd="sd", n="n")
    assert not judged.paired
    for arm, (half, p, verdict) in zip(judged, expected, strict=True):
        assert arm.verdict == verdict
        assert (arm.ci is None) == (half is None)
        if half is not None:
            assert ((arm.ci[1] - arm.ci[0]) / 2,) == six(half)
        if p is not None:
            assert (arm.p_adjusted,) == six(p)


U4 = groups(baseline=[69.8, 70.3, 69.5, 70.0, 70.6, 69.9], arm=[71.2, 70.4, 70.9, 71.6, 70.1])


def test_runs_that_are_not_paired():
    """U4."""
    judged = compare(U4, paired=False)
    [arm] = judged
    assert (arm.effect, (arm.ci[1] - arm.ci[0]) / 2, arm.p_adjusted) == six(0.823333, 0.851163, 0.055009)
    assert (arm.n, judged.n_baseline, judged.paired, judged.correlation) == (5, 6, False, None)
    assert "seed" not in arm.sentence


@pytest.mark.parametrize("looks", [(5,), 5, np.array([5]), np.int64(5), range(5, 6), iter([5])])
def test_looks_may_be_any_numbers(looks):
    frame = paired({"A": [0.8, 0.3, 0.6, 0.5, 0.9]})
    assert [arm.ci for arm in compare(frame, looks=looks)] == [arm.ci for arm in compare(frame, looks=[5])]


def test_without_declared_looks_there_is_one_at_five_percent():
    judged = compare(paired({"A": V3["A"]}))
    assert judged.analysis.alpha == 0.05
    d = np.array(V3["A"])
    from scipy import stats

    assert judged[0].ci == pytest.approx(stats.t.interval(0.95, 4, d.mean(), stats.sem(d)))
    assert compare(paired({"A": V3["A"]}), k=7)[0].p_adjusted == pytest.approx(
        min(1, 7 * stats.ttest_1samp(d, 0).pvalue)
    )


# --- what may vary without changing anything --------------------------------------------------------------------------

FRAME = paired(V3)
ALIKE = {
    "rows in another order": FRAME.sample(frac=1, random_state=1),
    "text": FRAME.astype(str),
    "text of pandas": FRAME.astype("string"),
    "seeds as floats": FRAME.astype({"seed": float}),
    "arms as a category": FRAME.astype({"arm": "category"}),
    "columns that are called by numbers, too": FRAME.assign(x=1).rename(columns={"x": 0}),
    "other columns": FRAME.assign(note="x", time=1.5),
    "another index": FRAME.set_axis([f"r{i}" for i in range(len(FRAME))]),
    "numbers of pandas": FRAME.convert_dtypes(),
}


@pytest.mark.parametrize("frame", ALIKE.values(), ids=ALIKE)
def test_how_a_frame_holds_its_values_does_not_matter(frame):
    expected = compare(FRAME).frame().sort_values("arm", ignore_index=True)
    pd.testing.assert_frame_equal(compare(frame).frame().sort_values("arm", ignore_index=True), expected)


def test_columns_may_be_called_by_numbers():
    frame = FRAME.set_axis([0, 1, 2], axis=1)
    found = compare(frame, arm="0", seed="1", metric="2")
    assert [c.ci for c in found] == [c.ci for c in compare(FRAME)]


def test_less_of_a_loss_is_better_and_effects_are_oriented():
    frame = FRAME.rename(columns={"score": "val_loss"})
    up, down = compare(FRAME), ablate.compare(frame, metric="val_loss", margin=0.5)
    assert [c.effect for c in down] == [-c.effect for c in up]
    assert down[0].verdict == "hurts"


def test_arms_may_be_numbers_or_several_columns():
    rows = [
        (lr, wd, seed, 1.0 + lr + 0.01 * seed + 0.001 * (seed * lr))
        for lr in (1, 2)
        for wd in (0.1, True)
        for seed in range(3)
    ]
    frame = pd.DataFrame(rows, columns=["lr", "wd", "seed", "score"])
    assert [c.arm for c in compare(frame[frame["wd"] == 0.1], arm="lr", baseline=1)] == ["2"]
    both = compare(frame, arm=["lr", "wd"], baseline="lr=1,wd=0.1")
    assert [c.arm for c in both] == ["lr=1,wd=true", "lr=2,wd=0.1", "lr=2,wd=true"]


# --- blocks -----------------------------------------------------------------------------------------------------------


def tasks(number: int, *, runs: int = 4, paired: bool = True) -> pd.DataFrame:
    """Tasks of very different levels, in which `arm` adds about 2 % and `other` nothing."""
    rng = np.random.default_rng(5)
    rows = []
    for task in range(number):
        level = 10.0 * 3**task
        for seed in range(runs):
            shared = rng.normal(0, 0.02) if paired else 0.0
            for arm, effect in (("baseline", 0.0), ("arm", 0.02 + 0.002 * task), ("other", 0.0)):
                rows.append((f"task {task}", arm, seed, level * (1 + effect + shared + rng.normal(0, 0.003))))
    return pd.DataFrame(rows, columns=["task", "arm", "seed", "score"])


@pytest.mark.parametrize("paired", [True, False])
def test_over_blocks_the_unit_is_the_block_and_within_one_it_is_the_run(paired):
    frame = tasks(6, paired=paired)
    judged = compare(frame, margin=0.005, block="task", relative=True, paired=paired)
    means = frame.pivot_table(index="task", columns="arm", values="score")
    shares = (means["arm"] - means["baseline"]) / means["baseline"]
    from scipy import stats

    expected = stats.ttest_1samp(shares, 0.0)
    assert [c.arm for c in judged] == ["arm", "other"]
    assert judged[0].effect == pytest.approx(shares.mean())
    assert judged[0].p_adjusted == pytest.approx(2 * expected.pvalue)
    assert judged[0].ci == pytest.approx(tuple(expected.confidence_interval(1 - 0.05 / 2)))
    assert (judged[0].verdict, judged[0].n) == ("helps", 6)
    assert [name for name, _ in judged.blocks] == [f"task {i}" for i in range(6)]
    for name, items in judged.blocks:
        one = frame[frame["task"] == name]
        alone = compare(one, margin=0.005, relative=True, paired=paired, k=12)
        assert list(items) == list(alone)
    content = judged.to_json()
    assert (content["k"], content["paired"], content["n_baseline"]) == (2, paired, 24)
    assert [len(block["arms"]) for block in content["blocks"]] == [2] * 6
    assert "| task 3 | arm | " in judged.markdown()


def test_one_run_in_each_block_is_enough_to_judge_over_them():
    judged = compare(tasks(7, runs=1), margin=0.005, block="task", relative=True)
    assert judged[0].n == 7
    assert judged[0].ci is not None
    assert all(c.ci is None for _, items in judged.blocks for c in items)


def test_relative_figures_are_those_of_the_metric_divided_by_the_mean_of_the_baseline():
    frame = tasks(1)
    for paired in (True, False):
        plain = compare(frame, margin=0.1, paired=paired)
        share = compare(
            frame,
            margin=0.1 / frame[frame["arm"] == "baseline"]["score"].mean(),
            relative=True,
            paired=paired,
        )
        mean = frame[frame["arm"] == "baseline"]["score"].mean()
        for one, other in zip(plain, share, strict=True):
            assert one.verdict == other.verdict
            assert one.effect == pytest.approx(other.effect * mean)
            assert one.p_adjusted <= other.p_adjusted + 1e-9
            assert one.ci[0] >= other.ci[0] * mean - 1e-9
        assert plain.analysis.baseline.mean == pytest.approx(share.analysis.baseline.mean)
        assert plain.analysis.comparisons[0].summary.sd == pytest.approx(
            share.analysis.comparisons[0].summary.sd
        )


RATIOS = [0.3, 0.9, 1.0, 1.1, 2.0, 4.0]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_shares_have_the_interval_of_a_ratio_whose_denominator_is_a_mean_of_runs_too(ratio, paired, sign):
    from scipy import stats

    rng = np.random.default_rng(0)
    shared = rng.normal(0, 0.05, 6) if paired else rng.normal(0, 0.05, (2, 6))
    base = sign * (10 + 10 * (shared if paired else shared[0]) + rng.normal(0, 0.02, 6))
    arm = sign * (10 * ratio + 10 * (shared if paired else shared[1]) + rng.normal(0, 0.02, 6))
    rows = [
        (name, seed, value)
        for name, runs in (("baseline", base), ("arm", arm))
        for seed, value in enumerate(runs)
    ]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "score"])
    (found,) = compare(frame, margin=0.01, relative=True, paired=paired)
    seen = arm.mean() / base.mean()
    if paired:
        variance = max(np.var(arm - base, ddof=1), np.var(arm - seen * base, ddof=1)) / 6
    else:
        variance = (np.var(arm, ddof=1) + max(1.0, seen**2) * np.var(base, ddof=1)) / 6
    half = stats.t.ppf(0.975, 5) * np.sqrt(variance) / abs(base.mean())
    effect = sign * (seen - 1)
    assert found.ci == pytest.approx((effect - half, effect + half))
    assert (found.p_adjusted < 0.05) == (found.ci[0] > 0 or found.ci[1] < 0)


@pytest.mark.parametrize("common", [0.0, 0.2])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_intervals_of_shares_miss_no_more_often_than_they_say(ratio, common):
    from scipy import stats

    from ablate.analysis.compare import Sample

    rng, studies = np.random.default_rng(1), 600
    level = 1 + common * rng.normal(size=(studies, 5))
    base = level + 0.01 * rng.normal(size=(studies, 5))
    arm = ratio - 1 + level + 0.01 * rng.normal(size=(studies, 5))
    mean = base.mean(axis=1, keepdims=True)
    samples = [
        Sample(tuple(range(5)), tuple(d), shares=tuple(b))
        for d, b in zip((arm - base) / mean, base / mean, strict=True)
    ]
    half = stats.t.ppf(0.975, 4) * np.sqrt([sample.variance(0.0) / 5 for sample in samples])
    misses = np.mean(np.abs(np.array([sample.effect for sample in samples]) - (ratio - 1)) > half)
    assert misses <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


# --- what is said -----------------------------------------------------------------------------------------------------


def test_every_judgement_says_that_nobody_planned_it_and_a_declared_look_does_not():
    assert any(
        note.startswith("Nobody planned the arms, the number of runs or the margin")
        for note in compare(FRAME).notes
    )
    assert not any("Nobody planned" in note for note in compare(FRAME, looks=[5]).notes)


def test_a_metric_of_the_test_set_is_judged_and_said():
    for name in ("test/accuracy", "test_acc"):
        judged = ablate.compare(FRAME.rename(columns={"score": name}), metric=name, margin=0.5)
        assert any("chosen on the test set" in note for note in judged.notes)


def test_pairing_says_what_it_gained():
    judged = compare(FRAME)
    assert judged.paired
    assert -1 <= judged.correlation <= 1
    assert any(f"by {judged.correlation:.2f}" in note for note in judged.notes)


def test_an_arm_with_a_single_run_gets_no_verdict_but_the_size_of_what_seeds_alone_do():
    frame = pd.concat([U4, groups(single=[75.0])])
    judged = compare(frame, paired=False)
    assert [c.ci is None for c in judged] == [False, True]
    variances = [np.var(own["score"], ddof=1) * (len(own) - 1) for _, own in U4.groupby("arm")]
    from scipy import stats

    z = stats.t.ppf(0.975, 9) * math.sqrt(2 * sum(variances) / 9)
    assert any(f"differ by up to {z:.2g} here (95 %)" in note for note in judged.notes)


@pytest.mark.parametrize("how", [{"paired": False}, {}])
def test_repeats_that_agree_to_the_last_digit_are_no_repeats_the_baselines_neither(how):
    frame = paired(V3)
    for copied, expected in (("A", ["A"]), ("baseline", list(V3))):
        same = frame.copy()
        same.loc[same["arm"] == copied, "score"] = 51.23
        if how:
            same = same.drop(columns="seed")
        assert [c.arm for c in compare(same, **how) if c.verdict == "not independent"] == expected


def test_forty_identical_rows_are_refused_as_repeats():
    frame = groups(baseline=[0.91] * 40, arm=[0.92] * 40)
    assert [c.verdict for c in compare(frame, paired=False, margin=0.001)] == ["not independent"]


def some_collapse(draw):
    return np.where(np.arange(20) % 5 == 0, draw.binomial(100, 0.1, 20), draw.binomial(100, 0.95, 20)) / 100


@pytest.mark.parametrize("resolution", [0.0, 0.01])
@pytest.mark.parametrize(
    "other", [some_collapse, lambda draw: np.round(draw.normal(0.5, 0.2, 20), 2)], ids=["collapse", "noise"]
)
def test_runs_of_a_coarse_metric_are_judged_beside_an_arm_of_much_more_noise(other, resolution):
    draw = np.random.default_rng(0)
    for _ in range(5):
        values = {"baseline": draw.binomial(100, 0.95, 20) / 100, "other": other(draw)}
        frame = pd.DataFrame([(arm, v) for arm, own in values.items() for v in own], columns=["arm", "acc"])
        found = compare(frame, metric="acc", margin=0.02, paired=False, resolution=resolution)
        assert found.items[0].ci is not None
        assert not [note for note in found.notes if "to the last digit" in note]


@pytest.mark.parametrize(("whole", "told"), [(1.0, False), (0.0, False), (100.0, False), (0.97, True)])
@pytest.mark.parametrize("paired", [True, False])
def test_runs_that_all_get_everything_right_are_no_copies(whole, told, paired):
    scale = 100.0 if whole == 100.0 else 1.0
    values = {"baseline": [0.95, 0.61, 0.78], "a": [whole / scale] * 3, "b": [0.7, 0.92, 0.81]}
    rows = [(arm, i, scale * v) for arm, own in values.items() for i, v in enumerate(own)]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "acc"])
    found = compare(frame, metric="acc", margin=0.02 * scale, paired=paired, resolution=0.01 * scale)
    assert (found.items[0].verdict == "not independent") is told


def test_cells_without_a_number_are_what_the_user_says():
    frame = FRAME.copy()
    frame.loc[frame.index[7], "score"] = np.nan
    assert [c.n for c in compare(frame, nan="missing")] == [4, 5, 5, 5, 5]
    assert compare(frame, nan="diverged")[0].verdict == "unstable"
    unpaired = frame.drop(columns="seed")
    assert [c.n for c in compare(unpaired, paired=False, nan="missing")] == [4, 5, 5, 5, 5]
    assert compare(unpaired, paired=False, nan="diverged")[0].verdict in ("unstable", "hurts")


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(column: str, row: int, value: object) -> pd.DataFrame:
    frame = FRAME.astype(object)
    frame.loc[frame.index[row], column] = value
    return frame


RENAMED = FRAME.rename(columns={"seed": "run"})
REFUSED = {
    "a metric that is not there": (
        FRAME,
        {"metric": "scor"},
        "there is no column 'scor'\n  did you mean 'score'?",
    ),
    "arms that are not there": (FRAME, {"arm": "arms"}, "did you mean 'arm'?"),
    "a baseline that is not there": (FRAME, {"baseline": "Baseline"}, "no row has the arm 'Baseline'"),
    "two columns of one name": (
        FRAME.set_axis(["arm", "score", "score"], axis=1),
        {},
        "2 columns are called 'score'",
    ),
    "no direction": (FRAME, {"direction": None}, "does not say whether more or less of it is better"),
    "an arm spelled in two cases": (
        changed("arm", 7, "a"),
        {},
        "'A' (4 rows) and 'a' (1 row) differ in case",
    ),
    "blocks where the baseline is called otherwise": (
        pd.concat([FRAME.assign(task="a"), FRAME.assign(task="b", arm=FRAME["arm"] + "_b")]),
        {"block": "task"},
        "1 of 2 blocks have no run of 'baseline': 'b' has 'A_b', 'B_b'",
    ),
    "a row without a block": (
        FRAME.assign(task=["", *["a"] * 29]),
        {"block": "task"},
        "1 row without a block: row 0",
    ),
    "a block that is not there": (FRAME, {"block": "task"}, "block: there is no column 'task'"),
    "looks within blocks": (
        FRAME.assign(task="a"),
        {"block": "task", "looks": [5]},
        "looks are declared for one study",
    ),
    "an arm with a space": (changed("arm", 7, "A  "), {"arm": "arm"}, None),
    "a row without an arm": (changed("arm", 7, None), {}, "1 row without an arm: row 7"),
    "a row without an arm, beside objects and a column that is there twice": (
        pd.concat([changed("arm", 7, None).assign(config=[{}] * 30), pd.DataFrame([[1, 1]] * 30)], axis=1)
        .rename(columns={0: "z", 1: "z"})
        .assign(state=["done"] * 7 + [None] + ["done"] * 22),
        {},
        "or leave these rows out: frame[frame['state'] == 'done'] keeps the others",
    ),
    "one arm": (FRAME[FRAME["arm"] == "baseline"], {}, "the only arm is the baseline"),
    "a family smaller than the arms": (FRAME, {"k": 2}, "2 is fewer than the 5 arms here"),
    "text for a number": (changed("score", 7, "high"), {}, "row 7 (A, score high)"),
    "percent": (changed("score", 7, "51 %"), {}, "write percentages without the sign"),
    "a cell without a number": (changed("score", 7, np.nan), {}, "row 7 (A, seed 2, score null)"),
    "infinity": (changed("score", 7, math.inf), {}, "1 row of 30 without a finite score"),
    "n/a": (changed("score", 7, "N/A"), {}, "row 7 (A, seed 2, score N/A)"),
    "an unknown meaning of NaN": (
        changed("score", 7, np.nan),
        {"nan": "lost"},
        "'lost' is not what a run can be",
    ),
    "a baseline without numbers": (
        FRAME.assign(score=FRAME["score"].where(FRAME["arm"] != "baseline")),
        {"nan": "missing"},
        "no run of the baseline 'baseline' has a finite score",
    ),
    "one cell twice": (
        pd.concat([FRAME, FRAME.iloc[[8]]]),
        {},
        "1 row repeats an arm under the same seed: row 8",
    ),
    "one cell twice, for another task": (
        pd.concat([FRAME.assign(task="a"), FRAME.assign(task="b")]),
        {},
        "they differ in task: compare within each, block='task'; in one alone, frame[frame['task'] == 'a']",
    ),
    "pooled tasks, not paired": (
        pd.concat([FRAME.assign(task="a"), FRAME.assign(task="b")]),
        {"paired": False},
        "they differ in task",
    ),
    "a constant seed": (FRAME.assign(seed=42), {}, "'seed' is 42 in every row"),
    "a constant seed, not paired": (FRAME.assign(seed=42), {"paired": False}, "'seed' is 42 in every row"),
    "a seed with a bar": (changed("seed", 7, "1_0"), {}, "1_0 is no seed"),
    "a number whose square is no float": (
        changed("score", 7, -1e200),
        {},
        "1 cell of 'score' is beyond 1e+100: row 7 (A, score -1e+200)",
    ),
    "numbers whose squares are all zero": (
        FRAME.assign(score=FRAME["score"] * 1e-200),
        {},
        "every number in 'score' is below 1e-100",
    ),
    "a seed that is none": (changed("seed", 7, "s2"), {}, "s2 is no seed: row 7 (A, seed s2)"),
    "a seed that is no whole number": (changed("seed", 7, 0.5), {}, "0.5 is no seed"),
    "no seed, and nothing said": (RENAMED, {}, "are the runs paired by a seed, or not?"),
    "a run counter": (RENAMED, {"seed": "run"}, "'run' counts or names runs"),
    "seeds that no two arms share": (
        FRAME.assign(seed=range(len(FRAME))),
        {},
        "'A', 'B' and 'C' and the baseline share no seed",
    ),
    "single runs": (FRAME[FRAME["seed"] == 1], {}, "every arm was run once. No verdict: nothing says"),
    "the trials of a search": (
        pd.DataFrame({"arm": [f"lr={i}" for i in range(106)], "score": np.arange(106) / 7.0}),
        {"baseline": "lr=0", "paired": False},
        "106 settings were run once each: these are the trials of a search",
    ),
    "looks of runs that are not paired": (U4, {"paired": False, "looks": [5]}, "these runs are not paired"),
    "looks that fall": (FRAME, {"looks": [10, 5]}, "increasing numbers of seeds, not [10, 5]"),
    "looks that are none": (FRAME, {"looks": []}, "increasing numbers of seeds, not []"),
    "looks in text": (FRAME, {"looks": "5"}, "increasing numbers of seeds, not ['5']"),
    "a look that is not whole": (FRAME, {"looks": 2.5}, "increasing numbers of seeds, not [2.5]"),
    "means without a spread": (means("80 1 5, 81 1 5"), {"n": "n"}, "needs the standard deviation"),
    "means of one arm twice": (
        pd.concat([means("80 1 5, 81 1 5")] * 2),
        {"sd": "sd", "n": "n"},
        "two rows have the arm",
    ),
    "a number of runs that is none": (
        means("80 1 5, 81 1 5").assign(n=2.5),
        {"sd": "sd", "n": "n"},
        "whole number",
    ),
    "a spread that is none": (means("80 1 5, 81 -1 5"), {"sd": "sd", "n": "n"}, "not the standard error"),
    "no frame": ([1, 2], {}, "a list is no DataFrame"),
    "no rows": (FRAME[:0], {}, "no row has the arm 'baseline'"),
    "a margin that is text": (FRAME, {"margin": "0.5"}, "the margin must be a number, not '0.5'"),
    "a margin that is not a number": (FRAME, {"margin": math.nan}, "the margin must be a positive number"),
    "a direction that is none": (FRAME, {"direction": "up"}, "to be maximized or minimized, not 'up'"),
    "a margin that is none": (FRAME, {"margin": 0}, "the margin must be a positive number"),
}


@pytest.mark.parametrize(("frame", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_make_a_verdict_meaningless_is_refused_in_a_sentence(frame, options, message):
    if message is None:
        assert len(compare(frame, **options)) == 5
        return
    with pytest.raises(StudyError) as caught:
        compare(frame, **options)
    assert message in str(caught.value)
    assert "--" not in str(caught.value), "options of the command line mean nothing here"


# --- how it is shown --------------------------------------------------------------------------------------------------


def test_a_judgement_is_a_sequence_with_a_frame_a_table_and_a_picture():
    judged = compare(paired(V3 | {"<b>|x": V3["A"]}))
    assert len(judged) == 6
    assert [c.arm for c in judged] == [*V3, "<b>|x"]
    assert judged[1:3] == (judged[1], judged[2])
    frame = judged.frame()
    assert list(frame) == ["arm", "verdict", "effect", "lo", "hi", "p_adjusted", "n", "sentence"]
    assert [tuple(ends) for ends in frame[["lo", "hi"]].to_numpy()] == [c.ci for c in judged]
    lines = judged.markdown().splitlines()
    assert lines[0] == judged.headline
    assert sum(line.startswith("| ") for line in lines) == 8
    assert "&lt;b&gt;\\|x" in judged.markdown()
    page = judged._repr_html_()
    assert page.count("<svg") == 6
    assert "<b>|x" not in page
    assert str(judged).startswith(judged.headline)


def test_tables_say_verdict_and_p_as_the_latex_table_does():
    judged = compare(paired(V3 | {"far": [9.0, 9.1, 8.9, 9.2, 8.8]}), margin=0.1)
    said = dict(
        re.findall(r"^\| (\w+) \| ([^|]+ \|[^|]+\|[^|]+\| [^|]+) \|", judged.markdown(), re.MULTILINE)
    )
    cells = {arm: row.split(" | ") for arm, row in said.items() if arm != "Arm"}
    assert {verdict for verdict, *_ in cells.values()} >= {"clearly helps", "inconclusive"}
    assert "< 0.001" in {p for *_, p in cells.values()}
    latex, notebook = judged.latex(), judged._repr_html_()
    for item in judged:
        verdict, *_, p = cells[item.arm]
        assert f"\\ablateset{{{item.arm}}}{{verdict}}{{{verdict}}}" in latex
        assert f"\\ablateset{{{item.arm}}}{{p}}{{\\ensuremath{{{p}}}}}" in latex
        assert f" {verdict}</td>" in notebook


def test_no_interval_is_no_number_in_any_form():
    judged = compare(pd.concat([U4, groups(single=[75.0])]), paired=False)
    assert judged.frame()["lo"].isna().tolist() == [False, True]
    assert "| single | inconclusive |" in judged.markdown()
    assert "nan" not in judged._repr_html_()


@pytest.mark.parametrize(
    ("scale", "margin", "relative", "is_refused"),
    [
        (1, 1, False, True),
        (1, 2.0, False, True),
        (1, 0.9, False, False),
        (100, 1, False, False),
        (1, 1, True, False),
    ],
)
def test_a_margin_that_no_share_can_differ_by_is_refused(scale, margin, relative, is_refused):
    rows = [
        (arm, seed, scale * (0.5 + 0.1 * i + 0.01 * seed)) for i, arm in enumerate("ab") for seed in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "quality"])
    options = {"metric": "quality", "direction": "maximize", "arm": "arm", "baseline": "a", "seed": "seed"}
    if is_refused:
        with pytest.raises(StudyError, match="between 0 and 1") as error:
            ablate.compare(frame, margin=margin, relative=relative, **options)
        assert f"did you mean {margin / 100:g}" in error.value.hint
    else:
        assert len(ablate.compare(frame, margin=margin, relative=relative, **options)) == 1


# --- the page ---------------------------------------------------------------------------------------------------------


def test_each_block_has_the_decimals_of_its_own_scale_where_effects_are_relative():
    from ablate import report

    frame = pd.concat([FRAME.assign(task=f"t{b}", score=FRAME["score"] * 10.0**b) for b in (-9, -2, 0, 4)])
    judged = compare(frame, block="task", relative=True, margin=0.01)
    summary = report.summarise(judged.material)
    # Two digits of a margin of 1 %: of 5e-10, 0.005, 0.5 and 5000.
    expected = {"t-9": 11, "t-2": 4, "t0": 2, "t4": 0}
    rows = [row for section in summary.sections for row in section.blocks]
    assert {row.block: row.digits for row in rows} == expected
    assert {run.block: run.digits for run in summary.runs} == expected


@pytest.mark.parametrize("extra", [[], ["late"]])
def test_undecided_arms_without_an_interval_are_not_among_those_that_have_a_price(extra):
    from ablate.analysis import words

    frame = pd.concat([FRAME, *(FRAME[FRAME["arm"] == "C"].assign(arm=name).head(2) for name in extra)])
    judged = compare(frame, margin=0.01)
    undecided = sum(arm.verdict == "inconclusive" for arm in judged)
    said = (
        f"each of the {undecided - len(extra)} undecided arms{' that have an interval' if extra else ''} with"
    )
    assert said in words.beyond(judged.analysis)


def test_every_number_in_a_latex_table_has_commas_that_are_no_punctuation():
    judged = compare(FRAME.assign(score=FRAME["score"] * 1e6), margin=5e5)
    table = re.search(r"\\begin\{tabular\}.*\\end\{tabular\}", judged.latex(), re.DOTALL)[0]
    assert table.count("{,}") > 5 * 5
    assert re.search(r"\d,\d", table) is None
