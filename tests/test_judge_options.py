"""What `ablate judge` is told of rows, and what it sees by itself: curves, units, runs that did not finish, names that vary."""

from __future__ import annotations

import json
import random
import shlex
from pathlib import Path

import pytest

ARMS = ("sgd", "adam", "lion")
PAIRED = ("--baseline", "sgd", "--margin", "0.01", "--seed", "seed")
UNPAIRED = ("--baseline", "sgd", "--margin", "0.01", "--unpaired")


@pytest.fixture
def judge(workplace):
    def run(*arguments: str, code: int = 0) -> str:
        return workplace.ablate("judge", *arguments, code=code)

    run.root = workplace.root
    return run


def judged(judge, *arguments: str) -> dict:
    output = judge(*arguments, "--format", "json")
    return json.loads(output[output.index("{\n") : output.rindex("\n}") + 2])


def table(path: Path, header: str, rows: list[tuple[object, ...]]) -> None:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def curve(arm: str, seed: int, step: int) -> float:
    """A loss that falls to its lowest at step 8 and rises again."""
    noise = random.Random(f"{arm}{seed}{step}").gauss(0, 0.001)
    return 1.0 - 0.01 * ARMS.index(arm) + 0.05 * abs(step - 8) + 0.002 * seed + noise


def curves(judge, ends: dict[tuple[str, int], int] | None = None, *, seeds: int = 4, last: int = 10) -> None:
    rows = [
        (arm, seed, step, curve(arm, seed, step))
        for arm in ARMS
        for seed in range(seeds)
        for step in range(1, 1 + (ends or {}).get((arm, seed), last))
    ]
    random.Random(0).shuffle(rows)
    rows.sort(key=lambda row: ARMS.index(row[0]))  # the order of the arms is that of the file
    table(judge.root / "curves.csv", "arm,seed,epoch,val_loss", rows)


# --- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "step"), [("last", 10), ("10", 10), ("best", 8), ("3", 3)])
def test_curves_are_read_at_a_step_at_the_last_or_at_the_best(judge, at, step):
    curves(judge)
    rows = [(arm, seed, curve(arm, seed, step)) for arm in ARMS for seed in range(4)]
    table(judge.root / "ends.csv", "arm,seed,val_loss", rows)
    found = judged(judge, "curves.csv", *PAIRED, "--at", at)
    expected = judged(judge, "ends.csv", *PAIRED)
    assert found["arms"] == expected["arms"]


def test_curves_are_not_judged_before_anyone_says_what_counts(judge):
    curves(judge)
    output = judge("curves.csv", *PAIRED, code=2)
    assert "120 rows of 12 runs: each has several values of val_loss, over epoch" in output
    assert "--at last, best or a STEP" in output
    assert "'soon' is not last, best or a STEP" in judge("curves.csv", *PAIRED, "--at", "soon", code=2)
    described = judge("curves.csv")
    assert "--at last" in described.splitlines()[-1]
    command = described.splitlines()[-1].strip().replace("ARM", "sgd").replace("X", "0.01")
    assert "adam" in judge(*shlex.split(command)[2:])


def test_a_run_that_stopped_short_counts_as_failed_and_is_named(judge):
    curves(judge, {("lion", 2): 6})
    content = judged(judge, "curves.csv", *PAIRED, "--at", "last")
    assert [(a["arm"], a["n"], a["failed"]) for a in content["arms"]] == [("adam", 4, 0), ("lion", 3, 1)]
    assert content["runs"]["failed"] == 1
    assert "1 run stopped short and counts as failed: seed 2 (lion, at epoch 6)" in content["notes"]
    unpaired = judged(judge, "curves.csv", *UNPAIRED, "--at", "last")
    assert [(a["arm"], a["n"], a["failed"]) for a in unpaired["arms"]] == [("adam", 4, 0), ("lion", 3, 1)]
    at_best = judged(judge, "curves.csv", *PAIRED, "--at", "best")
    assert [a["failed"] for a in at_best["arms"]] == [0, 0]
    assert "1 run ended before epoch 10" in at_best["notes"][0] + at_best["notes"][1]


def test_arms_that_end_at_different_steps_are_refused_until_it_is_said_what_counts(judge):
    curves(judge, {("lion", seed): 6 for seed in range(4)})
    output = judge("curves.csv", *PAIRED, "--at", "last", code=2)
    assert "arms end at different steps: 'sgd' at epoch 10, 'lion' at 6" in output
    assert "--at 6 compares all arms there" in output
    assert [a["failed"] for a in judged(judge, "curves.csv", *PAIRED, "--at", "6")["arms"]] == [0, 0]
    own = judged(judge, "curves.csv", *PAIRED, "--at", "last-of-each")
    assert [a["failed"] for a in own["arms"]] == [0, 0]
    later = judge("curves.csv", *PAIRED, "--at", "8")
    assert "4 runs stopped short and count as failed" in later


def test_a_step_that_no_run_has_is_refused_with_its_neighbours(judge):
    curves(judge)
    output = judge("curves.csv", *PAIRED, "--at", "4.5", code=2)
    assert "has no value at epoch 4.5" in output
    assert "its nearest are at 4 and 5" in output


def test_runs_that_no_column_tells_apart_are_refused(judge):
    rows = [(arm, step, curve(arm, seed, step)) for arm in ARMS for seed in range(4) for step in (1, 2)]
    table(judge.root / "curves.csv", "arm,epoch,val_loss", rows)
    output = judge("curves.csv", *UNPAIRED, "--at", "last", code=2)
    assert "which rows are one run?" in output
    assert "rows 1 and 3 have the same arm and epoch" in output
    rows = [
        (f"r{seed}", *row)
        for row, seed in zip(rows, [s for _ in ARMS for s in range(4) for _ in (1, 2)], strict=True)
    ]
    table(judge.root / "curves.csv", "replica,arm,epoch,val_loss", rows)
    assert len(judged(judge, "curves.csv", *UNPAIRED, "--at", "last", "--run", "replica")["arms"]) == 2
    assert "did you mean 'replica'?" in judge(
        "curves.csv", *UNPAIRED, "--at", "last", "--run", "replika", code=2
    )


def test_rows_with_one_step_for_each_run_are_no_curves(judge):
    rows = [(arm, seed, 10 + ARMS.index(arm), curve(arm, seed, 5)) for arm in ARMS for seed in range(4)]
    table(judge.root / "runs.csv", "arm,seed,steps,val_loss", rows)
    assert len(judged(judge, "runs.csv", *PAIRED)["arms"]) == 2
    assert "there is one row for each run" in judge("runs.csv", *PAIRED, "--at", "last", code=2)


def test_a_run_whose_last_value_is_no_number_did_not_end_with_its_best(judge):
    rows = [(arm, seed, step, curve(arm, seed, step)) for arm in ARMS for seed in range(4) for step in (1, 2)]
    rows[-1] = (*rows[-1][:3], "nan")
    table(judge.root / "curves.csv", "arm,seed,epoch,val_loss", rows)
    for at in ("best", "last"):
        assert "without a finite val_loss" in judge("curves.csv", *PAIRED, "--at", at, code=2)
    content = judged(judge, "curves.csv", *PAIRED, "--at", "best", "--nan", "diverged")
    assert content["arms"][1]["diverged"] == 1


def test_logs_are_judged_from_the_lines_that_a_pattern_finds(judge):
    for arm in ARMS:
        for seed in range(4):
            lines = [f"epoch {step}: val_loss={curve(arm, seed, step):.4f}" for step in range(1, 11)]
            path = judge.root / "runs" / arm / str(seed) / "log.txt"
            path.parent.mkdir(parents=True)
            path.write_text("\n".join(["starting", *lines]))
    source = ("runs/{arm}/{seed}/log.txt", "--line", r"val_loss=([\d.]+)", "--line", r"epoch (?P<step>\d+)")
    output = judge(*source)
    assert r"--line 'val_loss=([\d.]+)'" in output.splitlines()[-1]
    command = output.splitlines()[-1].strip().replace("ARM", "sgd").replace("X", "0.01")
    assert "adam" in judge(*shlex.split(command)[2:])
    assert "--step step --run file --resolution 0.0001 --direction minimize" in judge(
        *source, *PAIRED, "--at", "last"
    )


# --- units and resolutions --------------------------------------------------------------------------------------------


def scores(judge, name: str, write, metric: str = "val_acc") -> None:
    rows = []
    for arm in ARMS:
        for seed in range(5):
            share = 0.80 + 0.05 * ARMS.index(arm) + random.Random(f"{arm}{seed}").randrange(-20, 20) / 1000
            rows.append((arm, seed, write(arm, seed, share)))
    table(judge.root / name, f"arm,seed,{metric}", rows)


WRITTEN = {
    "shares": (lambda a, s, x: f"{x:.3f}", "0.01", "--unit share --resolution 0.001"),
    "counts": (lambda a, s, x: f"{round(1000 * x)}/1000", "0.01", "--unit share --resolution 0.001"),
    "percentages": (lambda a, s, x: f"{100 * x:.1f}", "1", "--unit percent --resolution 0.1"),
    "percent signs": (lambda a, s, x: f"{100 * x:.1f} %", "1", "--unit percent --resolution 0.1"),
    "a minus sign of print": (lambda a, s, x: f"{100 * x:.1f}%", "1", "--unit percent --resolution 0.1"),
}


@pytest.mark.parametrize(("write", "margin", "options"), WRITTEN.values(), ids=WRITTEN)
def test_however_shares_are_written_the_unit_and_the_resolution_are_said_and_can_be_pasted_back(
    judge, write, margin, options
):
    scores(judge, "some.csv", write)
    told = ("some.csv", "--baseline", "sgd", "--margin", margin, "--seed", "seed")
    output = judge(*told)
    [line] = [line for line in output.splitlines() if line.startswith("read as: ")]
    assert options in line
    again = judge(*told, *shlex.split(line.removeprefix("read as: ")))
    assert [x for x in again.splitlines() if not x.startswith("read")] == [
        x for x in output.splitlines() if not x.startswith("read")
    ]
    scores(judge, "plain.csv", WRITTEN["shares"][0])
    expected = judged(judge, "plain.csv", *PAIRED)["arms"]
    factor = float(margin) / 0.01
    assert [a["effect"] / factor for a in judged(judge, *told)["arms"]] == pytest.approx(
        [a["effect"] for a in expected]
    )


def test_thousands_are_read_and_long_decimals_have_no_resolution(judge):
    scores(judge, "some.csv", lambda a, s, x: f'"{round(1e7 * x):,}"', "score")
    told = ("some.csv", "--metric", "score", "--baseline", "sgd", "--margin", "1000", "--seed", "seed")
    told += ("--direction", "maximize")
    output = judge(*told)
    assert "--resolution 1" in output
    assert "commas in score stand between thousands: " in output
    scores(judge, "some.csv", lambda a, s, x: x + 1e-9 * s + 1e-12, "score")
    told = tuple("0.1" if word == "1000" else word for word in told)
    assert "--resolution" not in judge(*told)


def test_a_comma_that_may_be_decimal_is_asked_about_where_the_margin_says_so(judge):
    rows = [
        (arm, seed, f"2,{500 + 10 * i + 7 * seed * i % 9}") for i, arm in enumerate(ARMS) for seed in range(4)
    ]
    text = "\n".join("\t".join(map(str, row)) for row in [("arm", "seed", "val_loss"), *rows])
    (judge.root / "some.tsv").write_text(text)
    output = judge("some.tsv", *PAIRED, code=2)
    assert "is 2,500 in 'val_loss' 2500 or 2.500? A margin of 0.01 is for decimals" in output
    told = ["5" if word == "0.01" else word for word in PAIRED]
    assert "2,500 is 2500" in judge("some.tsv", *told)
    # One number below a thousand, or with a point, tells.
    for number in ("992", "992.5"):
        (judge.root / "some.tsv").write_text(text.replace("2,500", number, 1))
        assert "between thousands" in judge("some.tsv", *PAIRED)


def test_decimal_commas_are_no_thousands(judge):
    scores(judge, "some.csv", lambda a, s, x: f'"{x:.3f}"'.replace(".", ","), "score")
    told = ("some.csv", "--metric", "score", *PAIRED, "--direction", "maximize")
    assert "15 cells of 'score' should be a number" in judge(*told, code=2)


MIXED = {
    "a percent sign here and none there": lambda a, s, x: f"{100 * x:.1f}%" if a == "lion" else f"{x:.3f}",
    "percentages and shares": lambda a, s, x: f"{100 * x:.1f}" if (a, s) == ("lion", 3) else f"{x:.3f}",
}


@pytest.mark.parametrize("write", MIXED.values(), ids=MIXED)
def test_shares_among_percentages_are_refused_with_a_row_of_each(judge, write):
    scores(judge, "some.csv", write)
    output = judge("some.csv", *PAIRED, code=2)
    assert "look like percentages and others like shares: row 1" in output
    assert "(val_acc 0." in output
    assert "--unit percent or --unit share" in output


def test_a_margin_of_another_unit_is_noticed(judge):
    scores(judge, "shares.csv", WRITTEN["shares"][0])
    output = judge("shares.csv", "--baseline", "sgd", "--margin", "1", "--seed", "seed", code=2)
    assert "the values are shares, of which 1 is all there is" in output
    assert "write 0.01" in output
    scores(judge, "percent.csv", WRITTEN["percentages"][0])
    assert "a margin of 0.01 is 0.01 of a point" in judge("percent.csv", *PAIRED)


def test_repeats_that_agree_to_the_last_digit_are_copies_unless_the_steps_of_the_metric_explain_them(judge):
    table(
        judge.root / "all.csv",
        "arm,run,val_acc",
        [(arm, i, "0.91") for arm in ("sgd", "adam") for i in range(20)],
    )
    content = judged(judge, "all.csv", *UNPAIRED)
    assert [a["verdict"] for a in content["arms"]] == ["not independent"]
    rows = [
        (arm, i, f"{0.9 + (i * 7 % 5) / 1000:.3f}" if arm != "lion" else "0.905")
        for arm in ARMS
        for i in range(5)
    ]
    table(judge.root / "fine.csv", "arm,run,val_acc", rows)
    verdicts = {a["arm"]: a["verdict"] for a in judged(judge, "fine.csv", *UNPAIRED)["arms"]}
    assert verdicts["lion"] != "not independent", "0.001 is about the noise of the others"
    rows = [
        (arm, i, f"{0.9 + (i * 7 % 5) / 100:.4f}" if arm != "lion" else "0.9050")
        for arm in ARMS
        for i in range(5)
    ]
    table(judge.root / "coarse.csv", "arm,run,val_acc", rows)
    verdicts = {a["arm"]: a["verdict"] for a in judged(judge, "coarse.csv", *UNPAIRED)["arms"]}
    assert verdicts["lion"] == "not independent", "0.0001 is far below the noise of the others"


def test_what_is_said_of_a_file_names_no_key_of_a_study_and_no_images(judge):
    rows = [(arm, s, f"{5000 + 1000 * (arm == 'adam') + s}") for arm in ("sgd", "adam") for s in range(5)]
    table(judge.root / "same.csv", "arm,seed,reward", rows)
    for looks in ((), ("--looks", "5")):
        output = judge("same.csv", *PAIRED, *looks)
        assert (
            "leaves no noise to judge by. State the metric's resolution." in output
            or "resolution (1)" in output
        )
        assert [word for word in ("deterministic: true", "images") if word in output] == []
        exact = judge("same.csv", *PAIRED, *looks, "--resolution", "0")
        assert "State the metric's resolution.\n" in exact
        assert "deterministic" not in exact


# --- what became of the runs ------------------------------------------------------------------------------------------


def test_runs_that_did_not_finish_count_as_failed_whatever_they_left(judge):
    rows = [
        (a, s, f"{0.9 + s / 100:.3f}", "crashed" if (a, s) == ("adam", 1) else "finished")
        for a in ARMS
        for s in range(4)
    ]
    rows[4] = ("adam", 0, "", "Failed")
    table(judge.root / "runs.csv", "arm,seed,val_acc,State", rows)
    content = judged(judge, "runs.csv", *PAIRED)
    assert [(a["arm"], a["n"], a["failed"]) for a in content["arms"]] == [("adam", 2, 2), ("lion", 4, 0)]
    assert "2 runs did not finish" in content["notes"][0] + content["notes"][1]
    assert "row 6 (adam, State crashed)" in judge("runs.csv", *PAIRED)
    assert "2 rows did not finish, by State" in judge("runs.csv")


def test_a_column_of_states_with_words_of_its_own_says_nothing(judge):
    rows = [(a, s, f"{0.9 + s / 100:.3f}", "Ohio") for a in ARMS for s in range(4)]
    table(judge.root / "runs.csv", "arm,seed,val_acc,state", rows)
    assert [a["failed"] for a in judged(judge, "runs.csv", *PAIRED)["arms"]] == [0, 0]


@pytest.mark.parametrize(
    ("nan", "n", "failed", "diverged"), [("missing", 3, 0, 0), ("undefined", 3, 1, 0), ("diverged", 3, 0, 1)]
)
def test_a_cell_without_a_number_is_no_run_one_that_diverged_or_one_without_a_metric(
    judge, nan, n, failed, diverged
):
    rows = [
        (a, s, "nan" if (a, s) == ("adam", 1) else f"{0.9 + s / 100:.3f}") for a in ARMS for s in range(4)
    ]
    table(judge.root / "runs.csv", "arm,seed,val_acc", rows)
    for how in (PAIRED, UNPAIRED):
        assert "--nan undefined" in judge("runs.csv", *how, code=2)
        adam, _ = judged(judge, "runs.csv", *how, "--nan", nan)["arms"]
        assert (adam["n"], adam["failed"], adam["diverged"]) == (n, failed, diverged)


# --- names ------------------------------------------------------------------------------------------------------------


def blocks(judge, rename) -> None:
    rows = [
        (f"task{task}", rename(arm, task), seed, f"{10.0 * (task + 1) + bonus + seed / 10 + random.Random(f'{task}{arm}{seed}').gauss(0, 0.05):.3f}")
        for task in range(5)
        for arm, bonus in (("sgd", 0.0), ("sgd_plus", 1.0))
        for seed in range(3)
    ]  # fmt: skip
    table(judge.root / "blocks.csv", "task,arm,seed,score", rows)


BLOCKED = (
    "--block",
    "task",
    "--direction",
    "maximize",
    "--baseline",
    "sgd",
    "--margin",
    "0.5",
    "--seed",
    "seed",
)
RENAMED = {
    "in the middle": (
        lambda arm, task: arm.replace("sgd", "sgd_atari") if task > 1 else arm,
        ["--strip _atari"],
    ),
    "at the end": (lambda arm, task: f"{arm}_big" if task > 1 else arm, ["--strip _big"]),
    "in front": (lambda arm, task: f"big-{arm}" if task > 1 else arm, ["--strip big-"]),
    "two of them": (
        lambda arm, task: f"{arm}_{'ab'[task % 2]}" if task > 1 else arm,
        ["--strip _a", "--strip _b"],
    ),
}


@pytest.mark.parametrize(("rename", "advice"), RENAMED.values(), ids=RENAMED)
def test_arms_whose_names_depend_on_the_block_are_refused_with_what_mends_it(judge, rename, advice):
    blocks(judge, lambda arm, task: arm)
    expected = judged(judge, "blocks.csv", *BLOCKED)["arms"]
    blocks(judge, rename)
    output = judge("blocks.csv", *BLOCKED, code=2)
    assert "of 5 blocks have no run of 'sgd'" in output
    assert [text for text in advice if text not in output] == []
    strips = [word for text in advice for word in shlex.split(text)]
    assert judged(judge, "blocks.csv", *BLOCKED, *strips)["arms"] == expected
    assert "no arm has '_no' in its name" in judge("blocks.csv", *BLOCKED, "--strip", "_no", code=2)


def test_names_that_nothing_mends_are_refused_all_the_same(judge):
    blocks(judge, lambda arm, task: arm if task < 4 else f"other {arm == 'sgd'}")
    assert "call an arm the same in every block" in judge("blocks.csv", *BLOCKED, code=2)


def test_a_column_that_tells_apart_the_rows_of_an_arm_is_proposed_as_the_block(judge):
    blocks(judge, lambda arm, task: arm)
    output = judge("blocks.csv")
    assert "task tells apart the rows of one arm and seed" in output
    assert "--block task" in output.splitlines()[-1]


def test_a_column_is_split_by_a_pattern(judge):
    rows = [(f"{arm}-x-{seed}", f"{0.9 + seed / 100:.3f}") for arm in ARMS for seed in range(4)]
    table(judge.root / "runs.csv", "name,val_acc", rows)
    content = judged(judge, "runs.csv", "--split", "name={arm}-x-{seed}", "--arm", "arm", *PAIRED)
    assert [a["arm"] for a in content["arms"]] == ["adam", "lion"]
    for pattern, message in (
        ("name={arm}", None),
        ("nam={arm}", "did you mean 'name'?"),
        (
            "name={arm}/{seed}",
            "'sgd-x-0' in 'name' is not written as '{arm}/{seed}', nor are 11 more of 12 values",
        ),
        ("name=arm", "has no name in braces"),
        ("name={val_acc}-{seed}", "there is a column 'val_acc' already"),
        ("name={arm}{seed}", "where does {seed} begin"),
    ):
        if message is not None:
            assert message in judge("runs.csv", "--split", pattern, "--arm", "arm", *PAIRED, code=2)


def test_rows_of_several_metrics_are_refused(judge):
    rows = [(a, s, m, f"{0.5 + s / 10:.2f}") for a in ARMS for s in range(3) for m in ("val_loss", "val_acc")]
    table(judge.root / "tidy.csv", "arm,seed,metric,value", rows)
    told = ("tidy.csv", "--arm", "arm", "--metric", "value", *PAIRED)
    output = judge(*told, "--direction", "minimize", code=2)
    assert "the rows hold 2 metrics, by 'metric': val_loss and val_acc" in output
    assert "--where 'metric=val_loss'" in output or "--where metric=val_loss" in output
    assert len(judged(judge, *told, "--where", "metric=val_loss", "--direction", "minimize")["arms"]) == 2


def test_settings_that_differ_within_an_arm_are_said_and_those_of_a_search_refused(judge):
    rows = [
        {
            "summary": {"val_acc": 0.9 + 0.01 * seed},
            "config": {"opt": arm, "seed": seed, "lr": lr, "dir": f"{arm}{seed}"},
            "name": "x",
        }
        for arm in ARMS
        for seed, lr in ((0, 0.1), (1, 0.1), (2, 0.3))
    ]
    import csv

    with (judge.root / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["summary", "config", "name"])
        writer.writeheader()
        writer.writerows(rows)
    output = judge("runs.csv", "--arm", "opt", "--metric", "val_acc", *PAIRED)
    assert "runs of one arm differ in lr (0.1, 0.3): they are no repeats of one setting" in output


def test_the_trials_of_a_search_are_refused_and_a_grid_over_seeds_is_judged(judge):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    storage = f"sqlite:///{judge.root}/study.db"
    search = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    search.optimize(
        lambda t: t.suggest_float("lr", 0, 1) + len(t.suggest_categorical("arm", ARMS)), n_trials=12
    )
    output = judge("optuna:study.db#search", "--arm", "arm", *UNPAIRED, code=2)
    assert "these are the trials of a search: those of one arm differ in lr" in output
    assert "12 trials" not in judge(
        "optuna:study.db#search", "--arm", "arm", "--arm", "lr", *UNPAIRED, code=2
    )
    grid = optuna.create_study(
        storage=storage,
        study_name="grid",
        direction="minimize",
        sampler=optuna.samplers.GridSampler({"arm": ARMS, "seed": range(3)}, seed=1),
    )
    grid.optimize(lambda t: curve(t.suggest_categorical("arm", ARMS), t.suggest_int("seed", 0, 2), 5))
    content = judged(judge, "optuna:study.db#grid", "--arm", "arm", *PAIRED)
    assert (content["metric"], content["direction"], [a["n"] for a in content["arms"]]) == (
        "value",
        "minimize",
        [3, 3],
    )


def test_a_table_of_means_is_recognized_and_means_with_their_spread_in_one_cell_are_refused(judge):
    table(
        judge.root / "means.csv",
        "method,acc,acc_std,runs",
        [("ours", 81.2, 0.7, 4), ("baseline", 80.0, 0.5, 5)],
    )
    command = judge("means.csv").splitlines()[-1].strip().replace("X", "0.5")
    assert command.endswith("--mean acc --sd acc_std --n runs --baseline baseline --margin 0.5")
    assert "ours is inconclusive" in judge(*shlex.split(command)[2:])
    table(judge.root / "both.csv", "method,acc", [("ours", "81.2 ± 0.7"), ("baseline", "80.0 ± 0.5")])
    output = judge("both.csv", "--arm", "method", *UNPAIRED[2:], "--baseline", "baseline", code=2)
    assert "'acc' holds means with their spread, as '81.2 ± 0.7'" in output
    assert "did you mean 'means.csv'?" in judge("mean.csv", code=2)
    assert "download it first" in judge("https://example.com/means.csv", code=2)


# --- real files, and the same shapes made by hand ---------------------------------------------------------------------


def test_a_run_counter_beside_ids_pairs_nothing(judge):
    """The shape of a real file: four arms, a counter, an id, a step that says how long each arm was trained."""
    rows = [
        (arm, run, f"{random.Random(f'{arm}{run}').getrandbits(64):016x}", 1300 + 8 * i, f"{3.277 + random.Random(f'{run}{arm}').gauss(0, 0.002):.4f}")
        for i, arm in enumerate(("baseline", "a_r8", "b_r8", "a_r6"))
        for run in range(1, 6)
    ]  # fmt: skip
    table(judge.root / "runs.csv", "configuration,run,log_uuid,steps,final_loss", rows)
    output = judge("runs.csv")
    assert "run pairs nothing, so the runs are not paired" in output
    assert output.splitlines()[-1].strip().endswith("--baseline baseline --margin X --unpaired")
    told = ("runs.csv", "--baseline", "baseline", "--margin", "0.002")
    assert "'run' counts or names runs" in judge(*told, "--seed", "run", code=2)
    assert len(judged(judge, *told, "--unpaired")["arms"]) == 3


def test_tasks_whose_arms_are_called_otherwise_with_prose_above_the_header(judge):
    """The shape of another: tasks of two kinds, arms named for the kind, ten seeds, prose above the header."""
    rows = []
    for task in range(6):
        kind = "_atari" if task > 1 else ""
        for arm in (f"c51{kind}", f"c51{kind}_sarsa"):
            for seed in range(1, 11):
                value = 100 * (task + 1) * (1.05 if "sarsa" in arm else 1) + random.Random(
                    f"{task}{arm}{seed}"
                ).gauss(0, 3)
                rows.append(
                    (arm, f"Task-{task}", seed, f"Task-{task}__{arm}__{seed}__17564{seed}", f"{value:.6f}")
                )
    table(judge.root / "rewards.csv", "algorithm,environment,seed,run_dir,mean_reward", rows)
    prose = " It considers only the final 10\\% of episodes.\nThis approach, too, is sound.\n\n\n\n"
    (judge.root / "rewards.csv").write_text(prose + (judge.root / "rewards.csv").read_text())
    told = (
        "rewards.csv",
        "--arm",
        "algorithm",
        "--block",
        "environment",
        "--baseline",
        "c51",
        "--margin",
        "0.02",
        "--relative",
    )
    assert "--strip _atari" in judge(*told, "--seed", "seed", code=2)
    content = judged(judge, *told, "--seed", "seed", "--strip", "_atari")
    assert ([a["verdict"] for a in content["arms"]], len(content["blocks"])) == (["helps"], 6)


# --- what is asked at a terminal --------------------------------------------------------------------------------------


def at_terminal(folder: Path, answers: list[str], *arguments: str) -> tuple[str, int]:
    """Run `ablate judge` at a terminal of its own, where the answers are typed; what it shows, and its exit code."""
    import os
    import pty
    import subprocess
    import sys

    ours, theirs = pty.openpty()
    os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
    command = [sys.executable, "-m", "ablate", "judge", *arguments]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, close_fds=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return shown.decode().replace("\r\n", "\n"), process.wait(timeout=60)


def test_at_a_terminal_it_asks_for_what_was_not_told_and_says_the_command(judge):
    scores(judge, "some.csv", WRITTEN["shares"][0])
    output, code = at_terminal(judge.root, ["", "1", "5", "sgd", "", "a lot", "0.01", "yes"], "some.csv")
    assert code == 0, output
    for question in (
        "Which column names the arms? (1 arm) [arm]:",
        "Which column is judged? (1 val_acc) [val_acc]:",
        "Which arm is the baseline? (1 sgd, 2 adam or 3 lion):",
        "'5' is none of them.",
        "What is the smallest difference worth having, in val_acc?:",
        "'a lot' is no positive number.",
        "Are runs with one seed pairs",
    ):
        assert question in output
    line = output.partition("without questions: ")[2].splitlines()[0]
    assert line.endswith("--arm arm --metric val_acc --baseline sgd --margin 0.01 --seed seed")
    headline = judge(*shlex.split(line)[2:]).splitlines()[0]
    assert headline in output


def test_without_a_terminal_nothing_is_asked(judge):
    scores(judge, "some.csv", WRITTEN["shares"][0])
    assert "Which" not in judge("some.csv")
    assert "say --baseline" in judge("some.csv", "--margin", "0.01", "--seed", "seed", code=2)
