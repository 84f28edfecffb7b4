"""`ablate judge`: from a file to verdicts, what it proposes, what it refuses; and the page that shows it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import ablate

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "judge.md").read_text()
OPTIMIZERS = DOCS / "examples" / "optimizers.csv"
PAIRED = ("--baseline", "sgd", "--margin", "0.01", "--seed", "seed")
UNPAIRED = ("--baseline", "sgd", "--margin", "0.01", "--unpaired")


@pytest.fixture
def judge(workplace):
    (workplace.root / "optimizers.csv").write_bytes(OPTIMIZERS.read_bytes())

    def run(*arguments: str, code: int = 0) -> str:
        return workplace.ablate("judge", *arguments, code=code)

    run.root = workplace.root
    return run


def judged(output: str) -> dict:
    """The JSON of an output, which has lines for people around it."""
    return json.loads(output[output.index("{\n") : output.rindex("\n}") + 2])


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_print_what_it_says(judge):
    commands: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((shlex.split(line.removeprefix("$ ")), []))
            else:
                commands[-1][1].append(line)
    assert len(commands) == 2
    for (program, command, *arguments), shown in commands:
        assert (program, command) == ("ablate", "judge")
        output = judge(*arguments).splitlines()
        assert [line for line in shown if line not in output] == []


def test_the_readme_shows_what_the_command_prints(judge):
    readme = (DOCS.parent / "README.md").read_text()
    [command] = re.findall(r"^ablate judge docs/examples/optimizers.csv (--.*)$", readme, re.MULTILINE)
    assert judge(str(OPTIMIZERS), *shlex.split(command)).partition("\n\nval/loss")[0] in readme


def test_the_readme_shows_what_is_said_of_a_published_table(judge):
    """The runs of https://github.com/KellerJordan/modded-nanogpt/pull/348: which arms, how often, how long, how well."""
    readme = (DOCS.parent / "README.md").read_text().replace("\\\n", "")
    commands = re.findall(r"^ablate judge (docs/examples/layer_dropout.csv --.*)$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        name, *options = shlex.split(command)
        output = judge(str(DOCS.parent / name), *options)
        [line] = [line for line in output.splitlines() if line.startswith("- topological_r8 ")]
        assert line in readme
        if "time_seconds" in command:
            assert "All 3 arms help" in output


def test_every_option_that_the_page_names_exists(judge):
    known = set(re.findall(r"--[a-z-]+", judge("--help")))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"`python [^`]*`", "", PAGE))) <= known


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_a_file_and_a_frame_are_judged_alike(judge):
    content = judged(judge("optimizers.csv", *PAIRED, "--format", "json"))
    frame = pd.read_csv(OPTIMIZERS)
    expected = ablate.compare(frame, metric="val/loss", margin=0.01, arm="optimizer", baseline="sgd")
    assert [
        (a["arm"], a["verdict"], a["effect"], tuple(a["ci"]), a["p_adjusted"], a["n"])
        for a in content["arms"]
    ] == [(c.arm, c.verdict, c.effect, c.ci, c.p_adjusted, c.n) for c in expected]
    assert (content["study"], content["paired"], content["n_baseline"]) == ("optimizers", True, 5)
    assert content["correlation"] == expected.correlation
    assert content["notes"] == list(expected.notes)
    unpaired = judged(judge("optimizers.csv", *UNPAIRED, "--format", "json"))
    assert (unpaired["paired"], unpaired["alpha"], unpaired["k"]) == (False, 0.05, 3)
    widths = [[a["ci"][1] - a["ci"][0] for a in found["arms"]] for found in (content, unpaired)]
    assert all(wide > narrow for narrow, wide in zip(*widths, strict=True))


def test_the_options_that_were_guessed_can_be_pasted_back(judge):
    output = judge("optimizers.csv", *PAIRED)
    [line] = [line for line in output.splitlines() if line.startswith("read as: ")]
    again = judge("optimizers.csv", *PAIRED, *shlex.split(line.removeprefix("read as: ")))
    body = [line for line in output.splitlines() if not line.startswith("read as")]
    assert [line for line in again.splitlines() if not line.startswith("read as")] == body


def test_formats_and_files(judge):
    rows = list(
        csv.DictReader(io.StringIO(judge("optimizers.csv", *PAIRED, "--format", "csv").split("read as")[0]))
    )
    assert [row["arm"] for row in rows] == ["adam", "adamw", "lion"]
    assert "| adamw | clearly helps |" in judge("optimizers.csv", *PAIRED, "--format", "md")
    judge("optimizers.csv", *PAIRED, "--format", "json", "--output", "found/verdicts.json")
    assert len(json.loads((judge.root / "found" / "verdicts.json").read_text())["arms"]) == 3


def test_a_verdict_can_fail_a_pipeline(judge):
    judge("optimizers.csv", *PAIRED, "--fail-on", "hurts")
    assert "inconclusive: adam, lion" in judge(
        "optimizers.csv", *UNPAIRED, "--fail-on", "inconclusive", code=1
    )


def test_the_page_is_the_reports_own_and_its_suffix_decides(judge):
    judge("optimizers.csv", *PAIRED, "--output", "page.html")
    page = (judge.root / "page.html").read_text()
    assert "<h1>val/loss against sgd</h1>" in page
    for section in ("verdicts", "effects", "factor-0", "runs", "methods", "reproduce"):
        assert f'id="{section}"' in page
    for unknown in ("MLflow run", "Epochs", ">Cost<"):
        assert unknown not in page
    judge("optimizers.csv", *PAIRED, "--output", "table.tex")
    assert "\\begin{tabular}" in (judge.root / "table.tex").read_text()
    judge("optimizers.csv", *PAIRED, "--output", "page.html", "--format", "md")
    assert (judge.root / "page.html").read_text().startswith("Of 3 arms")


def test_rows_can_be_chosen_and_the_family_stays_as_large_as_it_was(judge):
    text = OPTIMIZERS.read_text().splitlines()
    lines = [text[0] + ",data=set"] + [f"{row},{data}" for data in ("a b", "c") for row in text[1:]]
    (judge.root / "tasks.csv").write_text("\n".join(lines))
    output = judge("tasks.csv", *PAIRED, "--metric", "val/loss", "--arm", "optimizer", code=2)
    assert "they differ in data=set" in output
    assert "--block data=set" in output
    advice = shlex.split(re.search(r"--where '[^']+'", output)[0])
    whole = judged(judge("tasks.csv", *PAIRED, "--arm", "optimizer", *advice, "--format", "json"))
    plain = judged(judge("optimizers.csv", *PAIRED, "--format", "json"))
    assert whole["arms"] == plain["arms"]
    larger = judged(judge("optimizers.csv", *PAIRED, "--k", "30", "--format", "json"))
    assert (larger["k"], plain["k"]) == (30, 3)
    assert larger["arms"][0]["p_adjusted"] == pytest.approx(10 * plain["arms"][0]["p_adjusted"])


def test_tasks_are_compared_within_each_and_over_them(judge):
    lines = OPTIMIZERS.read_text().splitlines()
    rows = [row.split(",") for row in lines[1:]]
    text = [lines[0] + ",task"]
    for task in range(5):
        text += [",".join([*row[:3], str(float(row[3]) + 0.1 * task), row[4], f"t{task}"]) for row in rows]
    (judge.root / "tasks.csv").write_text("\n".join(text))
    told = ("--arm", "optimizer", *PAIRED, "--block", "task", "--relative")
    content = judged(judge("tasks.csv", *told, "--format", "json"))
    assert [block["block"] for block in content["blocks"]] == [f"t{task}" for task in range(5)]
    assert (content["relative"], content["k"], content["arms"][1]["verdict"]) == (True, 3, "helps")
    output = judge("tasks.csv", *told)
    assert "t4:\n- adam" in output
    assert "% of the baseline" in output


def wide(frame: pd.DataFrame, index: str, columns: str) -> pd.DataFrame:
    return frame.pivot_table(index=index, columns=columns, values="val/loss", sort=False).reset_index()


def test_a_column_for_each_seed_run_or_arm_is_a_table_of_runs(judge):
    frame = pd.read_csv(OPTIMIZERS)
    long = judged(judge("optimizers.csv", *PAIRED, "--format", "json"))["arms"]
    told = ("--metric", "val/loss", *PAIRED, "--format", "json")
    seeds = wide(frame, "optimizer", "seed")
    seeds.to_csv(judge.root / "numbers.csv", index=False)
    seeds.rename(columns={i: f"seed {i}" for i in range(5)}).to_csv(judge.root / "seeds.csv", index=False)
    wide(frame, "seed", "optimizer").to_csv(judge.root / "arms.csv", index=False)
    assert judged(judge("numbers.csv", "--wide", "seed", *told))["arms"] == long
    assert judged(judge("seeds.csv", "--wide", "seed", *told))["arms"] == long
    assert judged(judge("arms.csv", "--wide", "arm", *told))["arms"] == long
    # Runs that are only counted pair nothing.
    seeds.rename(columns={i: f"run_{i}" for i in range(5)}).to_csv(judge.root / "runs.csv", index=False)
    told = (
        "--wide",
        "run",
        "--metric",
        "val/loss",
        "--baseline",
        "sgd",
        "--margin",
        "0.01",
        "--format",
        "json",
    )
    assert "counts or names runs" in judge("runs.csv", *told, "--seed", "run", code=2)
    unpaired = judged(judge("optimizers.csv", *UNPAIRED, "--format", "json"))["arms"]
    assert judged(judge("runs.csv", *told, "--unpaired"))["arms"] == unpaired


@pytest.mark.parametrize(
    ("head", "proposed"), [("seed{}", "--wide seed"), ("{}", "--wide seed"), ("run_{}", "--wide run")]
)
def test_a_wide_table_is_recognized_and_the_command_to_type_works(judge, head, proposed):
    table = wide(pd.read_csv(OPTIMIZERS), "optimizer", "seed")
    table.rename(columns={i: head.format(i) for i in range(5)}).to_csv(judge.root / "wide.csv", index=False)
    command = judge("wide.csv").splitlines()[-1].strip()
    assert proposed in command
    typed = command.replace("ARM", "sgd").replace("METRIC", "val/loss").replace("X", "0.01")
    assert "adamw" in judge(*shlex.split(typed)[2:])


def test_empty_cells_of_a_wide_table_are_no_runs_and_said(judge):
    (judge.root / "wide.csv").write_text("arm,s1,s2,s3,s4\nsgd,1,2,3,\nadam,2,3,5,6\n")
    told = ("--wide", "seed", "--metric", "loss", "--baseline", "sgd", "--margin", "1", "--unpaired")
    output = judge("wide.csv", *told)
    assert "1 empty cell taken for runs that do not exist" in output
    assert "4 runs against 3" in output


WRONGLY_WIDE = {
    "no such columns": (
        "arm,loss\na,1\nb,2\n",
        "seed",
        "no columns that differ by a number, such as seed0, seed1",
    ),
    "no numbers": ("a,b\nx,y\nz,w\n", "arm", "there are no columns of numbers"),
    "a column that is there": (
        "arm,seed,x1,x2\na,0,1,2\nb,0,2,3\n",
        "seed",
        "there is a column 'seed' already",
    ),
}


@pytest.mark.parametrize(("text", "over", "message"), WRONGLY_WIDE.values(), ids=WRONGLY_WIDE)
def test_a_table_that_is_not_wide_in_that_way_is_refused(judge, text, over, message):
    (judge.root / "some.csv").write_text(text)
    assert message in judge("some.csv", "--wide", over, "--metric", "loss", "--unpaired", code=2)
    assert "what do the cells hold?" in judge("some.csv", "--wide", over, "--unpaired", code=2)


def test_several_files_can_be_the_arms(judge):
    frame = pd.read_csv(OPTIMIZERS)
    for name, own in frame.groupby("optimizer"):
        own.drop(columns="optimizer").to_csv(judge.root / f"{name}.csv", index=False)
    files = [f"{name}.csv" for name in frame["optimizer"].unique()]
    content = judged(judge(*files, "--arm", "file", *PAIRED, "--format", "json"))
    assert content["arms"] == judged(judge("optimizers.csv", *PAIRED, "--format", "json"))["arms"]


def test_json_lines_with_nested_settings(judge):
    frame = pd.read_csv(OPTIMIZERS)
    records = [
        {"config": {"optimizer": {"name": name}, "seed": seed}, "summary": {"val/loss": loss}}
        for name, seed, loss in zip(
            frame["optimizer"], frame["seed"].tolist(), frame["val/loss"].tolist(), strict=True
        )
    ]
    (judge.root / "runs.jsonl").write_text("\n".join(map(json.dumps, records)))
    arguments = (
        "--arm",
        "config.optimizer.name",
        "--baseline",
        "sgd",
        "--margin",
        "0.01",
        "--seed",
        "config.seed",
    )
    content = judged(judge("runs.jsonl", *arguments, "--format", "json"))
    assert content["metric"] == "summary.val/loss"
    assert [a["effect"] for a in content["arms"]] == [
        a["effect"] for a in judged(judge("optimizers.csv", *PAIRED, "--format", "json"))["arms"]
    ]


def test_a_table_of_means(judge):
    """The vector U1 of the protocol."""
    (judge.root / "means.csv").write_text("method;acc;std;runs\nours;81,2;0,7;4\nbaseline;80,0;0,5;5\n")
    content = judged(
        judge("means.csv", "--mean", "acc", "--sd", "std", "--n", "runs", "--baseline", "baseline", "--margin", "0.5",
              "--format", "json")
    )  # fmt: skip
    [arm] = content["arms"]
    assert arm["ci"] == pytest.approx([-0.075189, 2.475189], abs=5.1e-7)
    assert arm["p_adjusted"] == pytest.approx(0.058193, abs=5.1e-7)
    assert (content["n_baseline"], arm["n"], content["paired"]) == (5, 4, False)


# --- proposals --------------------------------------------------------------------------------------------------------


def test_a_file_alone_is_described_with_the_command_to_type(judge):
    output = judge("optimizers.csv")
    assert "seed may pair the runs: over seeds the arms correlate by" in output
    command = output.splitlines()[-1].strip()
    assert command.startswith("ablate judge optimizers.csv")
    typed = shlex.split(command.replace("ARM", "sgd").replace("X", "0.01"))
    assert "adamw clearly helps" in judge(*typed[2:])


def test_a_run_counter_is_not_proposed_for_pairing(judge):
    text = OPTIMIZERS.read_text().replace("seed", "run")
    (judge.root / "counted.csv").write_text(text)
    output = judge("counted.csv")
    assert "no column is called a seed; run pairs nothing" in output
    assert output.rstrip().endswith("--unpaired")


@pytest.mark.parametrize("left_out", ["--baseline", "--margin", "--seed"])
def test_what_is_never_guessed_is_asked_for_with_a_command_that_works(judge, left_out):
    at = PAIRED.index(left_out)
    output = judge("optimizers.csv", *PAIRED[:at], *PAIRED[at + 2 :], code=2)
    assert left_out in output.splitlines()[0]
    command = output.partition("for example: ")[2].strip().replace("ARM", "sgd").replace("X", "0.01")
    assert "adamw clearly helps" in judge(*shlex.split(command)[2:])


# --- refusals ---------------------------------------------------------------------------------------------------------

REFUSED = {
    "a column that is not there": (
        ("--arm", "optimiser"),
        "--arm: there is no column 'optimiser'\n  did you mean 'optimizer'?",
    ),
    "a metric that is not there": (("--metric", "val/los"), "did you mean 'val/loss'?"),
    "a seed that is not there": (("--seed", "sed"), "--seed: there is no column 'sed'"),
    "a baseline that is not there": (("--baseline", "sgdd"), "did you mean 'sgd'?"),
    "seed and unpaired": (("--unpaired",), "paired by a seed, or they are not"),
    "a condition that is none": (("--where", "optimizer"), "'optimizer' is not COLUMN=VALUE"),
    "a condition on no column": (("--where", "optimiser=adam"), "did you mean 'optimizer'?"),
    "a condition that keeps nothing": (
        ("--where", "optimizer=adm"),
        "no row has 'adm' in 'optimizer'\n  did you mean 'adam'?",
    ),
    "one arm": (("--where", "optimizer=sgd"), "the only arm is the baseline"),
    "single runs": (("--where", "seed=1"), "every arm was run once"),
    "a format": (("--format", "yaml"), "--format: 'yaml' is not allowed"),
    "a direction": (("--direction", "up"), "--direction: 'up' is not allowed"),
    "a metric without direction": (("--metric", "minutes"), "--direction maximize or --direction minimize"),
    "metric and mean": (
        ("--metric", "val/loss", "--mean", "minutes", "--sd", "x", "--n", "y"),
        "which is it?",
    ),
    "a mean alone": (("--mean", "val/loss"), "--mean COL --sd COL --n COL"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_a_message_with_what_to_type(judge, arguments, message):
    assert message in judge("optimizers.csv", *PAIRED, *arguments, code=2)


def test_columns_that_could_both_be_meant_are_asked_for(judge):
    (judge.root / "two.csv").write_text(
        "a,b,seed,loss\n" + "".join(f"x{i % 2},y{i // 2 % 2},{i // 4},{i / 7}\n" for i in range(12))
    )
    assert "--arm: a or b?" in judge("two.csv", "--baseline", "x0", "--margin", "1", "--seed", "seed", code=2)


def test_rows_are_named_as_they_stand_in_the_file(judge):
    lines = OPTIMIZERS.read_text().splitlines()
    lines[8] = "adam,2,20,nan,11.0"
    lines.append(lines[3])
    (judge.root / "odd.csv").write_text("\n".join(lines[:-1]))
    assert "row 8 (adam, seed 2, val/loss nan)" in judge("odd.csv", *PAIRED, code=2)
    (judge.root / "odd.csv").write_text("\n".join([*OPTIMIZERS.read_text().splitlines(), lines[3]]))
    output = judge("odd.csv", *PAIRED, code=2)
    assert "row 3 (sgd, seed 2" in output
    assert "row 21 (sgd, seed 2" in output


# --- what it costs ----------------------------------------------------------------------------------------------------


def ten_arms(path: Path) -> None:
    rows = [
        f"arm {a},{seed},{0.5 + 0.01 * a + (seed * 7 + a * 13) % 11 / 100:.4f}"
        for a in range(10)
        for seed in range(5)
    ]
    path.write_text("\n".join(["method,seed,val_acc", *rows]))


def test_ten_arms_under_five_seeds_take_a_moment_and_no_framework(judge):
    ten_arms(judge.root / "ten.csv")
    program = (
        "import sys; from ablate.cli import main\n"
        "sys.argv = ['ablate', 'judge', 'ten.csv', '--baseline', 'arm 0', '--margin', '0.01', '--seed', 'seed']\n"
        "try:\n    main()\nfinally:\n    print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    used = []
    for _ in range(2):  # the first may have modules to compile
        before = os.times()
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        after = os.times()
        used.append(
            after.children_user + after.children_system - before.children_user - before.children_system
        )
    assert "9 arms" in done.stdout
    loaded = set(done.stderr.splitlines()[-1].split())
    assert loaded & {"torch", "mlflow", "optuna", "plotly", "jinja2"} == set()
    assert min(used) < 4.0, "processor time; two seconds on a machine that does nothing else"


@pytest.mark.skipif(
    "ABLATE_RESULTS" not in os.environ, reason="ABLATE_RESULTS names a folder of real results"
)
def test_real_results(judge):
    folder = Path(os.environ["ABLATE_RESULTS"])
    runs, rewards = str(folder / "H100X8_RUNS.csv"), str(folder / "mean_rewards_data.csv")
    assert "run pairs nothing" in judge(runs)
    told = ("--baseline", "baseline", "--margin", "0.002")
    assert "'run' counts or names runs" in judge(runs, *told, "--seed", "run", code=2)
    assert "All 3 arms are inconclusive." in judge(runs, *told, "--unpaired")
    told = ("--arm", "algorithm", "--baseline", "c51", "--margin", "5", "--seed", "seed")
    assert "they differ in environment" in judge(rewards, *told, code=2)
    assert "c51_expected_sarsa clearly helps" in judge(rewards, *told, "--where", "environment=CartPole-v1")
