"""Files of every shape, with nothing said of them: the command that `ablate judge` prints can be pasted, or it says what is wrong."""

from __future__ import annotations

import json
import random
import shlex

import pytest

ARMS = ("sgd", "adam", "lion")
RUNS = [
    (arm, seed, f"{0.6 + 0.02 * i + random.Random(f'{arm}{seed}').gauss(0, 0.004):.4f}")
    for i, arm in enumerate(ARMS)
    for seed in range(5)
]
CLEAR = {"adam": "helps", "lion": "helps"}


@pytest.fixture
def judge(in_process):
    """The output of a command, in this process."""

    def run(*arguments: str, code: int = 0) -> str:
        seen = in_process("judge", *arguments, code=code)
        return seen.out if code == 0 else seen.err

    return run


@pytest.fixture
def write(tmp_path):
    def to(name: str, content: str | bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return to


def pasted(judge, *source: str) -> tuple[str, dict[str, str]]:
    """The command that a file alone is answered with, and the verdicts that it gives once its words in capitals are replaced."""
    line = judge(*source).splitlines()[-1].strip()
    assert line.startswith("ablate judge "), line
    filled = line.replace("ARM", "sgd").replace(" X", " 0.001").replace("METRIC", "acc")
    content = json.loads(
        judge(*shlex.split(filled.replace("maximize|minimize", "maximize"))[2:], "--format", "json")
    )
    return line, {item["arm"]: item["verdict"] for item in content["arms"]}


def lines(header: str, rows) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


VALUES = {(arm, seed): value for arm, seed, value in RUNS}
SHAPES = {
    "a seed that no two arms share": (
        "runs.csv",
        lines("method,seed,acc", [(arm, i, value) for i, (arm, _, value) in enumerate(RUNS)]),
        "--unpaired",
    ),
    "a column for each arm": (
        "wide.csv",
        lines("seed,sgd,adam,lion", [(s, *(VALUES[arm, s] for arm in ARMS)) for s in range(5)]),
        "--wide arm --arm arm --metric METRIC",
    ),
    "lists called by their arms": (
        "lists.json",
        json.dumps({arm: [float(VALUES[arm, s]) for s in range(5)] for arm in ARMS}),
        "--wide arm --arm arm --metric METRIC",
    ),
    "objects called by their arms": (
        "nested.json",
        json.dumps({arm: {str(s): float(VALUES[arm, s]) for s in range(5)} for arm in ARMS}),
        "--wide seed --arm arm",
    ),
    "a table of Markdown": (
        "table.md",
        "| method | seed | acc |\n|:--|--:|---|\n" + "".join(f"| {a} | {s} | {v} |\n" for a, s, v in RUNS),
        "--arm method --metric acc",
    ),
    "UTF-16 without its mark": (
        "utf16.txt",
        lines("method,seed,acc", RUNS).encode("utf-16-le"),
        "--seed seed",
    ),
    "several metrics": (
        "tidy.csv",
        lines(
            "method,seed,metric,value",
            [
                (a, s, m, v if m == "acc" else 1 - float(v))
                for a, s, v in RUNS
                for m in ("acc", "loss")
            ],
        ),
        "--where metric=acc",
    ),
    "counts out of a total": (
        "counts.csv",
        lines("method,seed,correct", [(a, s, f"{float(v) * 10000:.0f}/10000") for a, s, v in RUNS]),
        "--metric correct",
    ),
    "validation beside training": (
        "both.csv",
        lines("method,seed,train_acc,acc,val_acc", [(a, s, 0.9, 0.8 + s / 100, v) for a, s, v in RUNS]),
        "--metric val_acc",
    ),
    "numbers as NumPy writes them": (
        "api.csv",
        "summary,config,name\n"
        + "".join(f"\"{{'acc': np.float64({v})}}\",\"{{'opt': '{a}', 'seed': {s}}}\",x\n" for a, s, v in RUNS),
        "--arm opt --metric acc",
    ),
    "runs called by arm and seed": (
        "chart.csv",
        "Step," + ",".join(f'"{a}-s{s} - val/acc"' for a, s, _ in RUNS)
        + "".join(f"\n{step}," + ",".join(f"{float(v) + step / 10:.4f}" for *_, v in RUNS) for step in (1, 2))
        + "\n",
        "--split 'run={arm}-s{seed}'",
    ),
    "runs called by arm and number": (
        "names.csv",
        lines("run,acc", [(f"{a}_{s}", v) for a, s, v in RUNS]),
        "--unpaired",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "part"), SHAPES.values(), ids=SHAPES)
def test_the_command_that_a_file_is_answered_with_can_be_pasted(judge, write, name, content, part):
    write(name, content)
    command, verdicts = pasted(judge, name)
    assert part in command
    assert verdicts == CLEAR


def test_a_log_is_answered_with_patterns_of_its_lines(judge, write):
    for arm, seed, value in RUNS:
        log = "".join(f"Epoch {e}: loss 2e-{e} | val_acc={float(value) - 1 / 10**e:.4f}\n" for e in (1, 2, 3))
        write(f"logs/{arm}/{seed}/log.txt", f"start\n{log}")
    assert "'logs/{arm}/{seed}/log.txt'" in judge("logs", code=2)
    command, verdicts = pasted(judge, "logs/{arm}/{seed}/log.txt")
    assert r"--line 'val_acc=([\d.]+)' --line 'Epoch (?P<step>\d+)'" in command
    assert verdicts == CLEAR


def test_of_a_log_the_value_on_validation_data_is_proposed_wherever_it_stands(judge, write):
    for arm, seed, value in RUNS:
        log = "".join(
            f"step {e}: train loss {2 / e:.4f}, val loss {2 - float(value) + 1 / 10**e:.4f}\niter {e}: loss 1.{e}, time 3ms\n"
            for e in (1, 2, 3)
        )
        write(f"logs/{arm}/{seed}/log.txt", log)
    command, verdicts = pasted(judge, "logs/{arm}/{seed}/log.txt")
    assert r"--line 'val loss ([\d.]+)' --line 'step (?P<step>\d+)'" in command
    assert verdicts == CLEAR


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("{}/seed{}.json", "'r/{arm}/seed{seed}.json'"),
        ("{}_s{}.json", "'r/{arm}_s{seed}.json'"),
        ("{}/run-{}/out/result.json", "'r/{arm}/run-{run}/*/result.json'"),
    ],
)
def test_a_folder_of_files_is_refused_with_a_pattern_of_them(judge, write, path, pattern):
    for arm, seed, value in RUNS:
        write("r/" + path.format(arm, seed), json.dumps({"acc": float(value)}))
    assert pattern in judge("r", code=2)
    assert "15 rows" in judge(*shlex.split(pattern))


def test_arms_whose_names_say_their_task_are_not_compared_across_tasks(judge, write):
    rows = [(f"{a}_{t}", t, s, v) for t in ("ant", "cheetah") for a, s, v in RUNS]
    write("tasks.csv", lines("algo,task,seed,acc", rows))
    told = ("--arm", "algo", "--metric", "acc", "--baseline", "sgd_ant", "--margin", "0.01")
    for pairing in (["--seed", "seed"], ["--unpaired"]):
        refused = judge("tasks.csv", *told, *pairing, code=2)
        assert "the names of the arms depend on task: 'sgd_ant' has no run in another" in refused
        assert "--block task --strip _ant --strip _cheetah" in refused
    command, verdicts = pasted(judge, "tasks.csv")
    assert "--strip _ant --strip _cheetah --baseline ARM --block task" in command
    assert set(verdicts) == {"adam", "lion"}
    judge("tasks.csv", *told, "--seed", "seed", "--where", "task=ant")
    # What arms are made of may be in their names: these are compared with each other.
    write(
        "width.csv", lines("model,width,seed,acc", [(f"{a}_{t}", t, s, v) for a, t, s, v in rows_of_width()])
    )
    judge("width.csv", "--arm", "model", "--baseline", "sgd_32", "--margin", "0.01", "--seed", "seed")


def rows_of_width():
    return [(arm, width, seed, value) for width in (32, 64) for arm, seed, value in RUNS]


def test_several_metrics_are_no_arms_and_no_blocks(judge, write):
    write(
        "tidy.csv", lines("method,seed,metric,acc", [(a, s, m, v) for a, s, v in RUNS for m in ("f1", "acc")])
    )
    for told in (
        ["--block", "metric", "--arm", "method", "--baseline", "sgd"],
        ["--arm", "metric", "--baseline", "f1"],
    ):
        assert "the rows hold 2 metrics" in judge(
            "tidy.csv", *told, "--metric", "acc", "--margin", "1", "--seed", "seed", code=2
        )


def test_trials_with_settings_of_their_own_get_no_verdict(judge, write):
    draw = random.Random(0)
    trials = [
        (i, f"{10 ** draw.uniform(-4, -1):.6f}", draw.choice([32, 64, 128]), f"{draw.uniform(0.5, 0.7):.4f}")
        for i in range(106)
    ]
    write("trials.csv", lines("trial,lr,width,val_acc", trials))
    refused = judge(
        "trials.csv",
        "--arm",
        "width",
        "--metric",
        "val_acc",
        "--baseline",
        "32",
        "--margin",
        "0.01",
        "--unpaired",
        code=2,
    )
    assert "nearly every run with its own: these look like the trials of a search. No verdict" in refused


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (lines("arm,seed,acc", [("sgd", s, v) for _, s, v in RUNS[:5]]), "there is one arm alone: nothing to compare it with"),
        (lines("arm,seed,acc", [(a, 0, v) for a, _, v in RUNS]), "seed is 0 in every row: no repeats, and no verdicts"),
        ("arm,acc,runs\nsgd,80.0 ± 0.5,5\nadam,81.2 ± 0.7,4\n", "'acc' holds means with their spread, as '80.0 ± 0.5'"),
        (
            "Method;Accuracy (mean);Accuracy (std);Seeds\nsgd;80,0;0,5;5\nadam;81,2;0,7;4\n",
            "--mean 'Accuracy (mean)' --sd 'Accuracy (std)' --n Seeds",
        ),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_of_a_verdict_is_said_with_nothing_but_the_file(judge, write, content, remark):
    write("file.csv", content)
    assert remark in judge("file.csv")


def test_a_store_is_refused_with_its_address(judge, write):
    first = '{"op_code": 0, "worker_id": "a", "study_name": "grid", "directions": [1]}\n'
    write("journal.log", first)
    write("mlruns/7/meta.yaml", "name: sweep\n")
    assert "'optuna:journal.log#STUDY'" in judge("journal.log", code=2)
    assert "'optuna:journal.log#grid'" in judge("optuna:journal.log", code=2)
    assert "'mlflow:mlruns#EXPERIMENT'" in judge("mlruns", code=2)


TABLES = {
    "prose with as many commas as the table": "Results, 3 May\nWe ran a, b, and c\nnotes: x, y, z\n\n" + lines("method,seed,acc", RUNS),
    "prose and no empty line": "We ran a, b, and c\n" + lines("method,seed,acc", RUNS),
    "decimal commas and percent signs": "method;seed;acc\n" + "".join(f"{a};{s};{float(v) * 100:.2f} %\n".replace(".", ",") for a, s, v in RUNS),
    "columns between spaces": "method   seed     acc\n" + "".join(f"{a:8} {s:4} {v:>8}\n" for a, s, v in RUNS),
    "a frame as pandas prints it": "    method  seed     acc\n" + "".join(f"{i:<3} {a:>6} {s:5} {v:>8}\n" for i, (a, s, v) in enumerate(RUNS)),
}  # fmt: skip


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_however_a_table_is_printed_its_command_can_be_pasted(judge, write, content):
    write("table.txt", content)
    command, verdicts = pasted(judge, "table.txt")
    assert "--arm method --metric acc --baseline ARM --margin X --seed seed" in command
    assert verdicts == CLEAR


def test_rows_that_sum_up_others_are_no_runs(judge, write):
    write("sums.csv", lines("method,seed,acc", [*RUNS, ("sgd", "mean", "0.6"), ("sgd", "std", "0.01")]))
    told = ("--baseline", "sgd", "--margin", "0.01")
    for pairing in (["--seed", "seed"], ["--unpaired"]):
        assert "2 rows of 17 sum up others, and are no run: row 16 (seed mean)" in judge(
            "sums.csv", *told, *pairing, code=2
        )


def test_a_score_is_the_metric_and_an_arm_keeps_its_capitals(judge, write):
    write("norm.csv", lines("use_norm,seed,score", [(a != "sgd", s, v) for a, s, v in RUNS if a != "lion"]))
    assert "--metric score" in judge("norm.csv")
    output = judge(
        "norm.csv", "--baseline", "False", "--margin", "0.001", "--seed", "seed", "--direction", "maximize"
    )
    assert "The only arm helps: True with" in output


def test_runs_of_several_tasks_without_seeds_are_compared_within_each(judge, write):
    write("folds.csv", lines("model,fold,acc", [(a, f, v) for a, f, v in RUNS]))
    command, verdicts = pasted(judge, "folds.csv")
    assert "--block fold --margin X --unpaired" in command
    assert verdicts == CLEAR


# --- rows that are not what they seem ---------------------------------------------------------------------------------

COPIED = [(arm, value) for arm, _, value in RUNS]
SGD = [value for arm, _, value in RUNS if arm == "sgd"]
PAIRED = ("--metric", "acc", "--arm", "method", "--baseline", "sgd", "--margin", "0.01", "--seed", "seed")
UNPAIRED = (*PAIRED[:-2], "--unpaired")
MEANS = ("--arm", "method", "--baseline", "sgd", "--margin", "1", "--mean", "acc", "--n", "n", "--sd")


@pytest.mark.parametrize("one", ["1.0", "1e0", "+1", "1.", "01"])
@pytest.mark.parametrize("is_json", [False, True])
def test_one_number_is_one_arm_however_it_is_written(judge, write, one, is_json):
    rows = [
        ({"sgd": "1" if seed % 2 else one, "adam": "2", "lion": "3"}[arm], seed, value)
        for arm, seed, value in RUNS
    ]
    if is_json:
        write("runs.jsonl", "\n".join(json.dumps({"lr": a, "seed": s, "acc": float(v)}) for a, s, v in rows))
    else:
        write("runs.csv", lines("lr,seed,acc", rows))
    said = judge(
        *(
            f"runs.{'jsonl' if is_json else 'csv'}",
            "--metric",
            "acc",
            "--arm",
            "lr",
            "--baseline",
            "1",
            "--margin",
            "0.01",
        ),
        *("--seed", "seed"),
        code=2,
    )
    assert "one arm, or several?" in said
    assert repr(one) in said


@pytest.mark.parametrize(
    "other", ["ada\u0300m", "ad\u00e0m\u200b", "ad\u00e0m\ufeff", "ad\u00e0\u00adm", "\uff41d\u00e0m"]
)
def test_one_text_to_the_eye_is_one_arm(judge, write, other):
    rows = [
        ((other if seed % 2 else "ad\u00e0m") if arm == "adam" else arm, seed, value)
        for arm, seed, value in RUNS
    ]
    write("runs.csv", lines("method,seed,acc", rows))
    assert "one arm, or several?" in judge("runs.csv", *PAIRED, code=2)


def test_versions_and_words_with_numbers_are_different_arms(judge, write):
    names = {"sgd": "sgd", "adam": "v1.1", "lion": "v1.10"}
    write("runs.csv", lines("method,seed,acc", [(names[arm], seed, value) for arm, seed, value in RUNS]))
    assert "v1.10" in judge("runs.csv", *PAIRED)


@pytest.mark.parametrize("times", [2, 3])
@pytest.mark.parametrize("arms", [ARMS, ("adam",)])
def test_rows_that_stand_there_several_times_are_no_more_runs(judge, write, times, arms):
    rows = COPIED + [row for row in COPIED if row[0] in arms] * (times - 1)
    write("runs.csv", lines("method,acc", rows))
    said = judge("runs.csv", *UNPAIRED, code=2)
    assert "rows that stand there several times are no more runs" in said
    # Under seeds of their own they are said to be copies.
    write(
        "renumbered.csv",
        lines(
            "method,seed,acc", [(a, i, v) for a in ARMS for i, v in enumerate(v for b, v in rows if b == a)]
        ),
    )
    assert "are they copies?" in judge("renumbered.csv", *PAIRED)


def test_ties_of_a_coarse_metric_are_honest(judge, write):
    draw = random.Random(0)
    rows = [(arm, draw.choice(("0.6", "0.7", "0.8", "0.9"))) for arm in ARMS for _ in range(10)]
    write("runs.csv", lines("method,acc", rows))
    said = judge("runs.csv", *UNPAIRED)
    assert "to the last digit" not in said


@pytest.mark.parametrize("how", ["the same seeds", "other seeds", "unpaired"])
def test_an_arm_with_the_values_of_the_baseline_is_said_to_have_them(judge, write, how):
    shift = 0 if how == "the same seeds" else 1
    rows = [(arm, seed, SGD[(seed + shift) % 5] if arm == "lion" else value) for arm, seed, value in RUNS]
    write("runs.csv", lines("method,seed,acc" if how != "unpaired" else "method,number,acc", rows))
    said = judge("runs.csv", *(UNPAIRED if how == "unpaired" else PAIRED))
    assert "lion has the values of sgd to the last digit" in said
    assert "adam has the values" not in said


@pytest.mark.parametrize(
    "column", ["sem", "acc_stderr", "standard_error", "se", "acc_se", "ci95", "acc_ci", "conf"]
)
def test_what_is_no_standard_deviation_by_its_name_is_not_taken_for_one(judge, write, column):
    write("means.csv", f"method,acc,{column},n\nsgd,60.1,0.3,5\nadam,64.2,0.3,5\n")
    assert "and no standard deviation" in judge("means.csv", *MEANS, column, code=2)


@pytest.mark.parametrize("column", ["std", "acc_std", "sd", "sigma", "seconds_sd", "precise_std"])
def test_a_standard_deviation_is_taken_for_one(judge, write, column):
    write("means.csv", f"method,acc,{column},n\nsgd,60.1,0.3,5\nadam,64.2,0.3,5\n")
    assert "adam" in judge("means.csv", *MEANS, column)


def test_a_column_for_each_seed_in_two_units_is_refused(judge, write):
    write("wide.csv", "method,seed0,seed1,seed2\nsgd,0.60,0.61,0.60\nadam,64,65,64\n")
    assert "look like percentages" in judge("wide.csv", *PAIRED, "--wide", "seed", code=2)


def test_more_than_all_is_no_count(judge, write):
    write(
        "runs.csv",
        lines(
            "method,seed,acc",
            [(a, s, f"{round(1000 * float(v))}/{500 if a == 'adam' else 1000}") for a, s, v in RUNS],
        ),
    )
    assert "is more than all: row 6 (acc)" in judge("runs.csv", *PAIRED, code=2)
