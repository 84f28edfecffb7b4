"""Judgements under a name: kept as studies, and paid for when the results have grown."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

OPTIMIZERS = Path(__file__).parents[1] / "docs/examples/optimizers.csv"
TOLD = ("--baseline", "sgd", "--margin", "0.01")
HOW = {
    "paired": ("--seed", "seed"),
    "not paired": ("--unpaired",),
    "blocks": ("--seed", "seed", "--block", "task", "--relative"),
}


@pytest.fixture
def judge(workplace):
    def run(*arguments: str, code: int = 0) -> str:
        return workplace.ablate("judge", *arguments, code=code)

    run.cli, run.runs = workplace.ablate, workplace.runs
    return run


def frame(kind: str) -> pd.DataFrame:
    rows = pd.read_csv(OPTIMIZERS, dtype=str)
    if kind != "blocks":
        return rows
    tasks = [
        rows.assign(task=f"t{i}", **{"val/loss": rows["val/loss"].astype(float) * (1 + i)}) for i in range(6)
    ]
    return pd.concat(tasks, ignore_index=True)


def verdicts(output: str) -> dict:
    """The JSON in what a command printed."""
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


@pytest.mark.parametrize("kind", HOW)
def test_grown_results_are_an_extra_look_and_what_was_settled_stays(judge, kind):
    rows = frame(kind)
    told = (
        "results.csv",
        "--arm",
        "optimizer",
        "--metric",
        "val/loss",
        *TOLD,
        *HOW[kind],
        "--format",
        "json",
    )
    few = rows[rows["seed"].astype(int) < 3]
    few.to_csv("results.csv", index=False)
    plain = verdicts(judge(*told))
    first = verdicts(judge(*told, "--name", "kept"))
    assert first | {"study": ""} == plain | {"study": ""}
    again = judge(*told, "--name", "kept")
    assert "nothing changes" in again
    assert verdicts(again) == first
    # Rows in another order are the same results.
    few.sample(frac=1, random_state=3).to_csv("results.csv", index=False)
    assert verdicts(judge(*told, "--name", "kept"))["arms"] == first["arms"]

    rows.sample(frac=1, random_state=1).to_csv("results.csv", index=False)
    output = judge(*told, "--name", "kept")
    assert "look 2 spends 0.0025" in output
    second = verdicts(output)
    assert second["look"] == 2
    for before, now in zip(first["arms"], second["arms"], strict=True):
        assert before["arm"] == now["arm"]
        if before["verdict"] == "inconclusive":
            assert (now["look"], now["alpha"], before["alpha"]) == (2, 0.0025, 0.05)
            assert now["n"] == (6 if kind == "blocks" else 5)
        else:
            # What was settled stays; the values of later runs stand beside it.
            assert {**now, "values": None} == {**before, "values": None}
            assert len(now.get("values", ())) >= len(before.get("values", ()))
    third = verdicts(judge(*told, "--name", "kept"))
    assert third == second, "the same results change nothing"
    assert verdicts(judge.cli("report", "kept", "--format", "json")) == second


def test_a_look_at_its_own_error_is_that_of_the_whole_file(judge):
    """An open arm at the second look has the interval of all its runs at α = .0025."""
    rows = frame("not paired")
    told = (
        "results.csv",
        "--arm",
        "optimizer",
        "--metric",
        "val/loss",
        *TOLD,
        "--unpaired",
        "--format",
        "json",
    )
    rows[rows["seed"].astype(int) < 3].to_csv("results.csv", index=False)
    judge(*told, "--name", "kept")
    rows.to_csv("results.csv", index=False)
    now = {arm["arm"]: arm for arm in verdicts(judge(*told, "--name", "kept"))["arms"]}
    from scipy import stats

    own, base = (rows[rows["optimizer"] == name]["val/loss"].astype(float) for name in ("lion", "sgd"))
    # Four groups borrow from nobody.
    half = stats.t.ppf(1 - 0.0025 / 6, 4) * (own.var() / 5 + base.var() / 5) ** 0.5
    lo, hi = now["lion"]["ci"]
    assert (hi - lo) / 2 == pytest.approx(half, rel=1e-6)


def test_a_table_of_means_grows_by_its_numbers_of_runs(judge):
    told = ("--mean", "acc", "--sd", "sd", "--n", "n", "--baseline", "a", "--margin", "0.5", "--name", "kept")
    Path("means.csv").write_text("arm,acc,sd,n\na,80,.5,5\nb,81.2,.7,4\n")
    first = judge("means.csv", *told)
    assert "inconclusive" in first
    Path("means.csv").write_text("arm,acc,sd,n\na,80.1,.5,25\nb,81.2,.7,24\n")
    second = judge("means.csv", *told)
    assert "look 2 spends" in second
    assert "24 runs against 25, an extra look" in second
    assert "nothing changes" in judge("means.csv", *told)


def test_other_results_or_another_margin_are_another_judgement_and_it_is_said(judge):
    rows = frame("paired")
    told = (
        "results.csv",
        "--arm",
        "optimizer",
        "--metric",
        "val/loss",
        "--baseline",
        "sgd",
        "--seed",
        "seed",
    )
    rows.to_csv("results.csv", index=False)
    judge(*told, "--margin", "0.01", "--name", "kept")
    output = judge(*told, "--margin", "0.02", "--name", "kept")
    assert "Some of these runs were judged before, in 1 other judgement" in output
    changed = rows.assign(**{"val/loss": rows["val/loss"].astype(float) + 1})
    changed.to_csv("results.csv", index=False)
    output = judge(*told, "--margin", "0.01", "--name", "kept")
    assert "look 2" not in output
    assert "were judged before" not in output


@pytest.mark.parametrize(
    "other",
    [
        ("--metric", "minutes", "--seed", "seed", "--margin", "1", "--direction", "minimize"),
        ("--metric", "minutes", "--unpaired", "--margin", "1", "--direction", "minimize"),
        ("--metric", "val/loss", "--unpaired", "--margin", "0.01"),
        ("--metric", "val/loss", "--seed", "seed", "--margin", "0.01", "--block", "task"),
    ],
    ids=["another metric", "another metric, unpaired", "unpaired", "blocks"],
)
def test_runs_that_are_judged_in_another_way_were_judged_before(judge, other):
    frame("paired").assign(task="digits").to_csv("results.csv", index=False)
    told = ("results.csv", "--arm", "optimizer", "--baseline", "sgd", "--name", "kept")
    first = judge(*told, "--metric", "val/loss", "--seed", "seed", "--margin", "0.01")
    assert "were judged before" not in first
    assert "Some of these runs were judged before, in 1 other judgement" in judge(*told, *other)


def test_another_metric_of_another_file_was_not_judged_before(judge):
    rows = frame("paired")
    rows.to_csv("results.csv", index=False)
    rows.rename(columns={"val/loss": "train/loss"}).to_csv("others.csv", index=False)
    told = ("--arm", "optimizer", *TOLD, "--seed", "seed", "--name", "kept")
    judge("results.csv", "--metric", "val/loss", *told)
    assert "were judged before" not in judge("others.csv", "--metric", "train/loss", *told)


def test_a_kept_judgement_is_a_study_among_studies(judge):
    rows = frame("paired")
    rows.to_csv("results.csv", index=False)
    judge(
        "results.csv", "--arm", "optimizer", "--metric", "val/loss", *TOLD, "--seed", "seed", "--name", "kept"
    )
    assert judge.cli("list").split() == ["kept"]
    arms = {run.data.tags["ablate.arm"]: run for run in judge.runs("kept", "arm")}
    assert {name: run.data.tags["ablate.verdict"] for name, run in arms.items()} == {
        "sgd": "baseline",
        "adam": "helps",
        "adamw": "helps",
        "lion": "no practical effect",
    }
    assert {run.info.status for run in arms.values()} == {"FINISHED"}
    assert arms["adam"].data.metrics["effect"] == pytest.approx(0.02062)
    assert "kept: judged from results.csv" in judge.cli("status")
    judge.cli("report", "kept", "--output", "page.html")
    assert "<h1>val/loss against sgd</h1>" in Path("page.html").read_text()
    assert "nothing of them was trained here" in judge.cli("top-up", "kept", "--seeds", "2", code=2)
    assert judge.cli("report", "kept", "--format", "csv").startswith("arm,")


def test_a_name_that_no_study_can_have_is_refused(judge):
    frame("paired").to_csv("results.csv", index=False)
    told = ("results.csv", "--arm", "optimizer", "--metric", "val/loss", *TOLD, "--seed", "seed")
    assert "--name: 'a b' cannot name a study" in judge(*told, "--name", "a b", code=2)
