"""What the coordinator decides, seen through the record: order, retries, resumption, reuse, looks, budgets, top-ups."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from ablate.events import Started
from ablate.interrupts import MESSAGE
from ablate.study.design import Run
from ablate.tracking.spool import Tracker
from ablate.training.builtin import checkpoint
from ablate.training.function import FunctionConfig

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


def arms_and_seeds(runs):
    return sorted((run.data.tags["ablate.arm"], int(run.data.tags["ablate.seed"])) for run in runs)


def test_every_arm_has_its_first_seed_before_any_has_its_second(workplace):
    workplace.ablate("run", workplace.study(), "--executor", "inline")
    order = [
        (int(run.data.tags["ablate.seed"]), run.data.tags["ablate.arm"])
        for run in sorted(workplace.runs(), key=lambda run: run.info.start_time)
    ]
    assert [seed for seed, _ in order] == [0] * 3 + [1] * 3 + [2] * 3
    assert [arm for _, arm in order[:3]] == ["baseline", "gain=0.2", "gain=0.001"]


def test_a_finished_study_is_not_trained_again(workplace):
    study = workplace.trained()
    before = {run.info.run_id for run in workplace.runs()}
    assert "nothing left to do" in workplace.ablate("run", study, "--executor", "inline")
    (workplace.root / "mlruns" / "cache" / "toy.answer.json").unlink()
    assert "9 of them done" in workplace.ablate("run", study, "--executor", "inline")
    assert {run.info.run_id for run in workplace.runs()} == before
    assert [run.info.status for run in workplace.runs(kind="report")] == ["FINISHED"]


def test_a_run_that_raises_is_tried_twice_then_reported_and_the_study_goes_on(workplace):
    study = workplace.study(factors="{raises: [true], gain: [0.2]}")
    workplace.ablate("run", study, "--executor", "inline", code=1)
    failed = [run for run in workplace.runs() if run.data.tags["ablate.arm"] == "raises=true"]
    assert {run.info.status for run in failed} == {"FAILED"}
    assert sorted((int(r.data.tags["ablate.seed"]), r.data.tags["ablate.attempt"]) for r in failed) == [
        (seed, attempt) for seed in range(3) for attempt in "12"
    ]
    assert all("it was told to" in run.data.tags["ablate.reason"] for run in failed)
    verdicts = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert verdicts["runs"]["failed"] == 3
    assert {arm["arm"]: (arm["verdict"], arm["failed"]) for arm in verdicts["arms"]} == {
        "raises=true": ("inconclusive", 3),
        "gain=0.2": ("helps", 0),
    }


def test_a_worker_that_dies_fails_its_attempt_and_the_retry_counts_once(workplace):
    study = workplace.study(factors="{dies_once: [true]}")
    workplace.ablate("run", study, "--workers", "2")
    runs = [run for run in workplace.runs() if run.data.tags["ablate.arm"] == "dies_once=true"]
    assert sorted(
        (int(r.data.tags["ablate.seed"]), r.data.tags["ablate.attempt"], r.info.status) for r in runs
    ) == [
        (seed, attempt, status)
        for seed in range(3)
        for attempt, status in (("1", "FAILED"), ("2", "FINISHED"))
    ]
    assert "SIGKILL" in next(r.data.tags["ablate.reason"] for r in runs if r.info.status == "FAILED")


def test_a_diverged_run_is_done_and_makes_its_arm_unstable(workplace):
    study = workplace.study(factors="{diverges: [true], gain: [0.2]}")
    workplace.ablate("run", study, "--executor", "inline")
    diverged = [run for run in workplace.runs() if run.data.tags["ablate.arm"] == "diverges=true"]
    assert {(run.info.status, run.data.tags["ablate.outcome"]) for run in diverged} == {
        ("FINISHED", "diverged")
    }
    verdicts = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert verdicts["arms"][0]["verdict"] == "unstable"
    assert len(diverged) == verdicts["arms"][0]["diverged"] == 3


def test_runs_of_another_study_with_the_same_key_are_copied_not_trained(workplace):
    workplace.ablate("run", workplace.study("first"), "--executor", "inline")
    said = workplace.ablate("run", workplace.study("second"), "--executor", "inline")
    assert "9 finished runs reused" in said
    first = {run.data.tags["ablate.key"]: run for run in workplace.runs("first")}
    second = workplace.runs("second")
    assert len(second) == 9
    for run in second:
        source = first[run.data.tags["ablate.key"]]
        assert run.data.tags["ablate.source_run"] == source.info.run_id
        assert run.data.tags["ablate.study"] == "second"
        assert run.data.metrics == source.data.metrics
        assert run.data.params == source.data.params
        histories = [
            [(p.step, p.value) for p in workplace.client.get_metric_history(r.info.run_id, "val/accuracy")]
            for r in (run, source)
        ]
        assert histories[0] == histories[1]
    one, two = (
        json.loads(workplace.ablate("report", name, "--format", "json")) for name in ("first", "second")
    )
    assert [arm["effect"] for arm in one["arms"]] == [arm["effect"] for arm in two["arms"]]


def test_edited_training_code_is_not_mixed_with_old_results_unless_accepted(workplace):
    study = workplace.trained()
    report = workplace.ablate("report", "toy", "--format", "json")
    code = Path("toy.py")
    code.write_text("# a comment changes nothing\n" + code.read_text())
    workplace.ablate("run", study, "--executor", "inline")
    assert len(workplace.runs()) == 9

    code.write_text(code.read_text().replace("0.5 + 0.2 * share", "0.4 + 0.2 * share"))
    assert workplace.ablate("report", "toy", "--format", "json") == report, "a finished study stays as it was"
    sys.modules.pop("toy", None)
    said = workplace.ablate("run", study, "--executor", "inline", "--seeds", "3", "--accept-code")
    assert "reused" in said
    assert "were judged by 1 other plan:" in said
    accepted = [run for run in workplace.runs() if "ablate.accepted_code" in run.data.tags]
    assert len(accepted) == 9
    Path(study).write_text(Path(study).read_text().replace("margin: 0.02", "margin: 0.03"))
    assert "were judged by 2 other plans:" in workplace.ablate("run", study, "--executor", "inline")


def test_results_of_another_function_of_the_same_module_are_never_taken(workplace):
    code = Path("toy.py")
    code.write_text(
        code.read_text() + "\n\ndef other(config, seed):\n    for values in fit(config, seed):\n"
        "        yield {name: value + 0.1 for name, value in values.items()}\n"
    )
    sys.modules.pop("toy", None)
    workplace.ablate("run", workplace.study(name="first"), "--executor", "inline")
    study = workplace.study(name="second")
    Path(study).write_text(Path(study).read_text().replace("toy:fit", "toy:other"))
    shown = workplace.ablate("run", study, "--executor", "inline", "--accept-code")
    assert "older" not in shown
    assert "reused" not in shown
    assert len(workplace.runs("first")) == len(workplace.runs("second")) == 9
    assert not any("ablate.accepted_code" in run.data.tags for run in workplace.runs("second"))
    # Its own earlier results are taken, although the other function's are older.
    code.write_text(code.read_text().replace("value + 0.1", "value + 0.2"))
    sys.modules.pop("toy", None)
    assert "9 finished runs reused" in workplace.ablate("run", study, "--executor", "inline", "--accept-code")


def test_an_error_that_every_arm_meets_at_the_same_line_ends_the_study_and_names_the_line(workplace):
    code = Path("toy.py")
    code.write_text("def fit(config, seed):\n    yield {'val/accuracy': 1 / 0 * config['gain']}\n")
    sys.modules.pop("toy", None)
    said = workplace.ablate("run", workplace.study(seeds="9"), "--executor", "inline", code=2)
    assert "ZeroDivisionError: division by zero (toy.py:2): the first runs of all 3 arms failed there" in said
    assert len(workplace.runs()) <= 6, "no seed but the first, twice"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("yield {'val/accuracy': 'high'}", "'val/accuracy' is 'high', not a number (toy.py:2)"),
        ("return {'val/accuracy': None}", "training never yielded the metric 'val/accuracy'"),
        ("return 0.5", "training returned 0.5: `yield` a dict of metrics an epoch, or `return` one"),
    ],
)
def test_what_no_arm_does_right_is_tried_once_an_arm(workplace, body, reason):
    Path("toy.py").write_text(f"def fit(config, seed):\n    {body}\n")
    sys.modules.pop("toy", None)
    said = workplace.ablate("run", workplace.study(seeds="9"), "--executor", "inline", code=2)
    assert reason in said
    assert len(workplace.runs()) <= 3


def test_a_baseline_that_fails_under_every_seed_is_the_first_sentence(workplace):
    code = Path("toy.py")
    code.write_text(code.read_text().replace("    noise = ", "    1 / config['gain']\n    noise = "))
    sys.modules.pop("toy", None)
    said = workplace.ablate(
        "run", workplace.study(factors="{gain: [0.2]}"), "--executor", "inline", "-q", code=1
    )
    line = next(i for i, text in enumerate(code.read_text().splitlines(), 1) if "1 / config" in text)
    answer = [text for text in said.splitlines() if "attempt" not in text]
    assert answer[0].startswith(
        f"No verdict: the baseline failed under all 3 seeds (ZeroDivisionError: float division by zero (toy.py:{line})): nothing"
    )


def test_an_error_of_some_arms_ends_no_study(workplace):
    code = Path("toy.py")
    code.write_text(code.read_text().replace("    noise = ", "    1 / (config['gain'] != 0.2)\n    noise = "))
    sys.modules.pop("toy", None)
    workplace.ablate("run", workplace.study(), "--executor", "inline", code=1)
    assert [run.info.status for run in workplace.runs()].count("FINISHED") == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fit = lambda config, seed: iter([{'val/accuracy': 1}])", "'fit' is a lambda"),
        ("def fit(config, seed: yield", "cannot import 'toy': SyntaxError"),
        (
            "import nothing_of_that_name",
            "cannot import 'toy': No module named 'nothing_of_that_name' (toy.py:1)",
        ),
        ("1 / 0", "cannot import 'toy': ZeroDivisionError: division by zero (toy.py:1)"),
        ("import sys\nsys.exit(3)", "cannot import 'toy': SystemExit: 3 (toy.py:2)"),
    ],
)
def test_a_function_that_cannot_train_is_an_error_before_anything_is_recorded(workplace, text, reason):
    Path("toy.py").write_text(text)
    sys.modules.pop("toy", None)
    said = workplace.ablate("run", workplace.study(), "--executor", "inline", code=2)
    assert reason in said
    assert workplace.client.get_experiment_by_name("toy") is None


def test_edited_training_code_is_trained_anew_and_the_message_says_so(workplace):
    study = workplace.trained()
    code = Path("toy.py")
    code.write_text(code.read_text().replace("0.5 + 0.2 * share", "0.4 + 0.2 * share"))
    sys.modules.pop("toy", None)
    said = workplace.ablate("run", study, "--executor", "inline")
    assert "9 finished runs of older training code not reused" in said
    assert len(workplace.runs()) == 18


def test_only_undecided_arms_and_the_baseline_go_on_to_the_next_look(workplace):
    # Noise of about the margin: after three seeds nothing can be said of `gain: 0.012`.
    study = workplace.study(factors="{gain: [0.2], spread: [0.04]}", seeds="{initial: 3, max: 5}")
    workplace.ablate("run", study, "--executor", "inline")
    seeds = {
        arm: [s for a, s in arms_and_seeds(workplace.runs()) if a == arm]
        for arm in ("baseline", "gain=0.2", "spread=0.04")
    }
    assert seeds == {"baseline": [0, 1, 2, 3, 4], "gain=0.2": [0, 1, 2], "spread=0.04": [0, 1, 2, 3, 4]}


def test_a_top_up_beyond_the_most_seeds_adds_to_undecided_arms_and_is_an_extra_look(workplace):
    workplace.trained(factors="{gain: [0.2], spread: [0.06]}")
    said = workplace.ablate("top-up", "toy", "--seeds", "2", "--executor", "inline")
    assert "an extra look" in said
    seeds = {
        arm: [s for a, s in arms_and_seeds(workplace.runs()) if a == arm]
        for arm in ("baseline", "gain=0.2", "spread=0.06")
    }
    assert seeds == {"baseline": [0, 1, 2, 3, 4], "gain=0.2": [0, 1, 2], "spread=0.06": [0, 1, 2, 3, 4]}
    verdicts = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    by_arm = {arm["arm"]: arm for arm in verdicts["arms"]}
    assert (by_arm["gain=0.2"]["n"], by_arm["spread=0.06"]["n"]) == (3, 5)
    assert verdicts["alpha"] == pytest.approx(0.0025)


def test_a_top_up_of_a_study_without_undecided_arms_is_refused(workplace):
    workplace.ablate("run", workplace.study(factors="{gain: [0.2]}"), "--executor", "inline")
    assert "no arm is undecided" in workplace.ablate("top-up", "toy", "--seeds", "2", code=2)


def test_a_top_up_of_a_study_whose_looks_are_not_complete_is_refused(workplace, pass_by_runs):
    study = workplace.study(factors="{spread: [0.06]}", seeds="9")
    pass_by_runs(0.2)
    said = workplace.ablate("run", study, "--executor", "inline", "--budget", "1s")
    assert "left undone" in said
    assert "stopped at its budget" in workplace.ablate("status")
    before = len(workplace.runs())
    assert "not complete" in workplace.ablate("top-up", "toy", "--seeds", "1", "--executor", "inline", code=2)
    assert len(workplace.runs()) == before


def test_the_noise_floor_and_the_confirmation_have_seeds_of_their_own(workplace):
    study = workplace.study(more="noise_floor: true\nconfirm: true\n")
    workplace.ablate("run", study, "--executor", "inline")
    by_phase: dict[str, list[tuple[str, int]]] = {}
    for run in workplace.runs():
        place = (run.data.tags["ablate.arm"], int(run.data.tags["ablate.seed"]))
        by_phase.setdefault(run.data.tags["ablate.phase"], []).append(place)
    assert sorted(by_phase["A/A"]) == [("A/A", 1000 + i) for i in range(3)]
    assert sorted(by_phase["confirm"]) == [
        (arm, 3000 + i) for arm in ("baseline", "gain=0.2") for i in range(3)
    ]
    workplace.ablate("report", "toy")
    assert len(workplace.runs()) == 9 + 3 + 6
    workplace.ablate("run", study, "--executor", "inline")
    assert len(workplace.runs()) == 9 + 3 + 6


def test_a_spent_budget_starts_nothing_new_keeps_the_arms_even_and_says_what_is_left(workplace, pass_by_runs):
    study = workplace.study(seeds="9")
    pass_by_runs(0.2)
    said = workplace.ablate("run", study, "--executor", "inline", "--budget", "2s")
    counts = [
        sum(1 for a, _ in arms_and_seeds(workplace.runs()) if a == arm)
        for arm in ("baseline", "gain=0.2", "gain=0.001")
    ]
    assert len(set(counts)) == 1
    assert 1 <= counts[0] < 9
    assert f"{27 - sum(counts)} planned runs left undone" in said
    assert workplace.ablate("run", study, "--executor", "inline")
    assert len(workplace.runs()) == 27


def test_a_budget_that_ends_before_every_arm_was_timed_says_that_the_arms_are_not_even(
    workplace, pass_by_runs
):
    study = workplace.study()
    pass_by_runs(0.6)
    said = workplace.ablate("run", study, "--executor", "inline", "--budget", "0.5s")
    assert arms_and_seeds(workplace.runs()) == [("baseline", 0)]
    assert "2 of its 3 runs were not trained" in said
    assert "8 planned runs left undone" in said
    workplace.ablate("run", study, "--executor", "inline", "--budget", "1s")
    assert len(workplace.runs()) in (2, 3), "the next command goes on with the same seed"


def test_a_run_that_takes_longer_than_the_timeout_is_ended_and_reported(workplace):
    study = workplace.study(factors="{sleep: [30]}", seeds="1")
    workplace.ablate("run", study, "--workers", "2", "--timeout", "2s", code=1)
    [slow] = [run for run in workplace.runs() if run.data.tags["ablate.arm"] == "sleep=30"]
    assert (slow.info.status, slow.data.tags["ablate.failure"]) == ("FAILED", "timeout")


DIGITS = """
study: digits
margin: 0.01
baseline:
  data: {name: digits, subset: 200}
  model: {name: numpy_mlp, hidden: [8]}
  training: {epochs: 1}
factors: {optimizer.lr: [0.01]}
seeds: 1
"""


def test_checkpoints_from_which_nobody_goes_on_are_removed_and_all_others_stay(workplace):
    Path("digits.yaml").write_text(DIGITS)
    workplace.ablate("run", "digits.yaml", "--executor", "inline")
    base, *_ = workplace.runs("digits")
    done, recipe, at_work = base.data.tags["ablate.key"], base.data.tags["ablate.recipe"], "b" * 16
    older, unknown, bundle = "a" * 16, "c" * 16, "together-0123.checkpoint"
    with Tracker(workplace.store, "other") as tracker:  # begun by older code, in another study
        for key in (older, at_work):
            run = Run(key, recipe, "baseline", 0, "report")
            tracker.event(
                Started(key, 1, 0, time.time(), {}), run, FunctionConfig({"train": "toy:fit"}, {}), "plan"
            )
    folder = workplace.store.folder("checkpoints")
    for name in (f"{done}.tmp", *(f"{key}.checkpoint" for key in (older, at_work, unknown))):
        (folder / name).touch()
    (folder / bundle).write_text(f"{checkpoint._first_line('digest', [done, unknown])}\n")
    script = (
        "import sys; from ablate.tracking.store import Claims, current_store; "
        f"claims = Claims(current_store()); print(claims.take({at_work!r}), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        workplace.ablate("run", "digits.yaml", "--executor", "inline")
        process.communicate()
    left = {path.name for path in folder.iterdir()}
    assert left == {f"{at_work}.checkpoint", f"{unknown}.checkpoint"}
    workplace.ablate("run", "digits.yaml", "--executor", "inline")
    assert {path.name for path in folder.iterdir()} == {f"{unknown}.checkpoint"}


PARTLY = '''
import math
import random


def fit(config, seed):
    """An epoch for each entry of `yields`, with what it names; the rest is as it should be."""
    value = 0.5 + 0.1 * config["gain"] + random.Random(f"{config['gain']}/{seed}").gauss(0, 0.001)
    full = {"train/loss": 1.0, "val/loss": 1.0, "val/accuracy": value}
    for names in config["yields"].split():
        good = {name: value for name, value in full.items() if name.rpartition("/")[2] in names.split("+")}
        bad = {f"val/{name[1:]}": math.nan for name in names.split("+") if name.startswith("!")}
        yield good | bad
'''
USUAL = "loss+accuracy loss+accuracy"


@pytest.fixture
def partly(workplace):
    """Run a study in which some arms yield less than the study needs. Returns what is said."""
    (workplace.root / "toy.py").write_text(PARTLY)

    def run(*yields: str, code: int, usual: str = USUAL) -> str:
        (workplace.root / "partly.yaml").write_text(
            f"study: toy\nmargin: 0.02\ntrain: toy:fit\nbaseline: {{gain: 0.0, yields: '{usual}'}}\n"
            f"factors: {{yields: {list(yields)}, gain: [1.0]}}\nseeds: 3\n"
        )
        return workplace.ablate("run", "partly.yaml", "--executor", "inline", code=code)

    return run


def verdicts_of(workplace) -> dict[str, tuple[str, int, int]]:
    """Level → verdict, and how many runs diverged and failed."""
    found = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    return {arm["level"]: (arm["verdict"], arm["diverged"], arm["failed"]) for arm in found["arms"]}


def test_a_training_that_diverges_before_it_yields_the_metric_is_a_diverged_run(workplace, partly):
    ways = ("!loss", "loss !loss", "!accuracy", "loss+accuracy !loss", "loss !loss+!accuracy")
    partly(*ways, code=0)
    assert verdicts_of(workplace) == dict.fromkeys(ways, ("unstable", 3, 0)) | {1.0: ("helps", 0, 0)}
    assert len(workplace.runs()) == 3 * (1 + len(ways) + 1), "nothing is tried again"
    partly(*ways, code=0)
    assert len(workplace.runs()) == 3 * (1 + len(ways) + 1), "a diverged run is done"


def test_runs_that_finish_without_the_metric_fail_with_the_reason_and_the_study_goes_on(workplace, partly):
    reasons = {
        "loss loss": "training never yielded the metric 'val/accuracy'; it yielded train/loss, val/loss",
        "!other": "training never yielded the metric 'val/accuracy'",
    }
    partly(*reasons, code=1)
    assert verdicts_of(workplace) == dict.fromkeys(reasons, ("inconclusive", 0, 3)) | {1.0: ("helps", 0, 0)}
    failed = [run.data for run in workplace.runs() if run.info.status == "FAILED"]
    assert [run.tags["ablate.attempt"] for run in failed] == ["1"] * 6, "it would only fail again"
    for run in failed:
        assert run.tags["ablate.reason"].startswith(reasons[run.params["yields"]])


def test_a_metric_that_the_last_epochs_lack_is_read_before_them_and_that_is_said(workplace, partly):
    partly("loss+accuracy loss loss", "accuracy+!other accuracy", code=0)
    found = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert [(arm["n"], arm["diverged"], arm["failed"]) for arm in found["arms"]] == [(3, 0, 0)] * 3
    said = "In 3 of 12 runs val/accuracy was read at an epoch before the last, up to 2 epochs earlier"
    assert any(warning.startswith(said) for warning in found["warnings"])


def test_runs_that_were_trained_for_another_metric_count_as_if_they_had_been_trained_for_this_one(workplace):
    """An arm's accuracy is read at its last epoch that has one, and an arm that has none has failed."""
    (workplace.root / "toy.py").write_text(
        "import random\n\n\ndef fit(config, seed):\n"
        "    draw = random.Random(f'{config}/{seed}')\n"
        "    for epoch, names in enumerate(config['yields'].split()):\n"
        "        yield {f'val/{name}': 0.5 + 0.1 * epoch + draw.gauss(0, 0.001) for name in names.split('+')}\n"
    )
    arms = ["loss+accuracy accuracy", "loss+accuracy loss", "accuracy loss+accuracy loss", "loss loss"]

    def counted_for(metric: str, code: int) -> list[dict[str, Any]]:
        Path("partly.yaml").write_text(
            f"study: toy\nmetric: val/{metric}\nmargin: 0.02\ntrain: toy:fit\nseeds: 3\n"
            f"baseline: {{yields: 'loss+accuracy loss+accuracy'}}\nfactors: {{yields: {arms}}}\n"
        )
        workplace.ablate("run", "partly.yaml", "--executor", "inline", "-q", code=code)
        found = json.loads(workplace.ablate("report", "toy", "--format", "json"))["arms"]
        kept = ("arm", "verdict", "n", "failed", "diverged", "mean", "effect", "ci")
        return [{name: arm[name] for name in kept if name in arm} for arm in found]

    counted_for("loss", code=0)
    trained_for_loss = counted_for("accuracy", code=1)
    assert len(workplace.runs()) == 15
    shutil.rmtree("mlruns")
    assert counted_for("accuracy", code=1) == trained_for_loss
    assert [(arm["failed"], arm["diverged"]) for arm in trained_for_loss] == [(0, 0)] * 3 + [(3, 0)]


def test_a_run_that_another_metric_has_ended_has_not_diverged_by_this_one_and_the_reverse(workplace, partly):
    partly("loss+accuracy+!f1 loss+accuracy", code=0)
    assert verdicts_of(workplace)["loss+accuracy+!f1 loss+accuracy"][1:] == (0, 0)
    plain = Path("partly.yaml").read_text()
    Path("partly.yaml").write_text(f"{plain}metric: val/f1\ndirection: maximize\n")
    workplace.ablate("run", "partly.yaml", "--executor", "inline", code=1)
    assert verdicts_of(workplace)["loss+accuracy+!f1 loss+accuracy"][1:] == (3, 0)
    shutil.rmtree("mlruns")
    workplace.ablate("run", "partly.yaml", "--executor", "inline", code=1)
    assert verdicts_of(workplace)["loss+accuracy+!f1 loss+accuracy"][1:] == (3, 0)
    Path("partly.yaml").write_text(plain)
    workplace.ablate("run", "partly.yaml", "--executor", "inline", code=1)
    assert verdicts_of(workplace)["loss+accuracy+!f1 loss+accuracy"] == ("inconclusive", 0, 3)


def test_a_study_whose_runs_were_all_trained_without_its_metric_ends_with_what_they_have(workplace):
    study = workplace.trained()
    Path(study).write_text(Path(study).read_text() + "metric: val/f1\ndirection: maximize\n")
    said = workplace.ablate("run", study, "--executor", "inline", code=2)
    assert "training never yielded the metric 'val/f1'" in said


def test_where_no_run_yields_the_metric_the_study_ends_after_every_arm_has_shown_it(workplace, partly):
    said = partly("loss loss loss", code=2, usual="loss")
    assert "training never yielded the metric 'val/accuracy'" in said
    assert "it yielded train/loss, val/loss" in said
    assert arms_and_seeds(workplace.runs()) == [("baseline", 0), ("gain=1", 0), ("yields=loss loss loss", 0)]
    assert {run.info.status for run in workplace.runs()} == {"FAILED"}
    assert "interrupted" in workplace.ablate("status")


@pytest.mark.parametrize(
    "sign", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_an_interrupted_study_leaves_nothing_running_after_the_next_command_and_goes_on(workplace, sign):
    study = workplace.study(seeds="4")
    command = [*ABLATE, "run", study, "--workers", "2"]
    with (
        workplace.turns(3),  # an end that waits for what is training then never comes
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process,
    ):
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("[3/"))
        process.send_signal(sign)
        _, said = process.communicate()
    if sign is not signal.SIGKILL:
        assert said.splitlines()[-1] == MESSAGE
    assert process.returncode == (-sign if sign is signal.SIGKILL else 130)
    workplace.ablate("status")
    for kind in ("replicate", "arm", "report"):
        assert not [run for run in workplace.runs(kind=kind) if run.info.status == "RUNNING"]
    done = {run.info.run_id for run in workplace.runs() if run.info.status == "FINISHED"}
    assert len(done) >= 3
    workplace.ablate("run", study, "--executor", "inline")
    finished = [run for run in workplace.runs() if run.info.status == "FINISHED"]
    assert done <= {run.info.run_id for run in finished}
    assert arms_and_seeds(finished) == sorted(
        (arm, seed) for arm in ("baseline", "gain=0.2", "gain=0.001") for seed in range(4)
    )


def test_a_second_ctrl_c_ends_the_process_at_once_and_the_next_command_puts_things_in_order(workplace):
    study = workplace.study(seeds="4")
    command = [*ABLATE, "run", study, "--workers", "2"]
    with (
        workplace.turns(1),
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process,
    ):
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("[1/"))
        # Held, so that it cannot have put everything in order before it is asked again.
        holder = sqlite3.connect(workplace.store.database, timeout=60, isolation_level=None)
        with contextlib.closing(holder):
            holder.execute("BEGIN EXCLUSIVE")
            while process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.01)
    assert process.returncode == -signal.SIGINT
    workplace.ablate("status")
    assert not [run for run in workplace.runs() if run.info.status == "RUNNING"]


def test_a_second_run_of_the_same_study_at_the_same_time_says_who_is_at_it(workplace):
    study = workplace.study()
    with workplace.store.lock("toy"):
        assert str(os.getpid()) in workplace.ablate("run", study, "--executor", "inline", code=2)


# --- Optuna's ledger ---


def ledger(workplace):
    backend = optuna.storages.journal.JournalFileBackend("mlruns/optuna.journal")
    storage = optuna.storages.JournalStorage(backend)
    [name] = optuna.study.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def test_every_run_is_a_trial_with_its_levels_and_its_value(workplace):
    workplace.ablate(
        "run",
        workplace.study(factors="{gain: [0.2], width: [16], raises: [true]}"),
        "--executor",
        "inline",
        code=1,
    )
    study = ledger(workplace)
    assert study.metric_names == ["val/accuracy"], "what a dashboard calls the objective"
    trials = study.get_trials()
    complete = [trial for trial in trials if trial.state is optuna.trial.TrialState.COMPLETE]
    values = {run.data.tags["ablate.key"]: run.data.metrics.get("val/accuracy") for run in workplace.runs()}
    assert {trial.user_attrs["run"]: trial.value for trial in complete} == {
        k: v for k, v in values.items() if v is not None
    }
    assert {(t.params["gain"], t.params["width"], t.params["raises"]) for t in complete} == {
        (0.0, 8, "false"),
        (0.2, 8, "false"),
        (0.0, 16, "false"),
    }
    assert len([trial for trial in trials if trial.state is optuna.trial.TrialState.FAIL]) == 6


def test_a_lost_ledger_is_rebuilt_from_the_record(workplace):
    study = workplace.trained()
    before = {trial.user_attrs["run"]: trial.value for trial in ledger(workplace).get_trials()}
    Path("mlruns/optuna.journal").unlink()
    workplace.ablate("run", study, "--executor", "inline")
    after = ledger(workplace).get_trials()
    assert {trial.user_attrs["run"]: trial.value for trial in after} == before
    assert len(after) == 9


def test_a_trial_that_was_enqueued_by_a_killed_process_and_never_started_is_closed(workplace):
    study = workplace.trained()
    ledger(workplace).enqueue_trial({}, user_attrs={"run": "of a process that is gone"})
    workplace.ablate("run", study, "--executor", "inline")
    states = [trial.state.name for trial in ledger(workplace).get_trials()]
    assert sorted(set(states)) == ["COMPLETE", "FAIL"]
    assert states.count("FAIL") == 1


def test_a_line_of_the_ledger_that_a_kill_cut_short_costs_that_line_alone(workplace):
    study = workplace.study(factors="{spread: [0.06]}", seeds="4")
    workplace.ablate("run", study, "--executor", "inline")
    journal = Path("mlruns/optuna.journal")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":8,"worker')
    workplace.ablate("top-up", "toy", "--seeds", "1", "--executor", "inline")
    assert journal.read_bytes().startswith(whole)
    assert b'"worker{' not in journal.read_bytes()
    assert len(ledger(workplace).get_trials()) == 10


TOGETHER = """
study: together
margin: 0.05
baseline:
  data: {name: digits, validation: 0.25, subset: 200}
  model: {name: small_cnn, kernel_size: 2}
  optimizer: {name: sgd, lr: 0.05}
  training: {epochs: 2, batch_size: 64}
factors:
  optimizer.lr: [0.01, 0.1]
  model.dropout: [0.2]
  data.validation: [0.2]
seeds: 2
"""


@pytest.fixture
def together(workplace, monkeypatch):
    """A study in which three arms share their batches with the baseline, and one does not; stacked whatever it pays."""
    from ablate.training.builtin import choose

    monkeypatch.setattr(choose, "pays", lambda *_: True)
    (workplace.root / "together.yaml").write_text(TOGETHER)
    return workplace


def tags(runs, name: str) -> list[tuple[str, str, str | None]]:
    of = [run.data.tags for run in runs]
    return sorted((tag["ablate.arm"], tag["ablate.seed"], tag.get(name)) for tag in of)


def test_arms_of_one_seed_that_share_their_batches_are_trained_as_one(together):
    together.ablate("run", "together.yaml", "--executor", "inline")
    found = tags(together.runs("together"), "ablate.fused")
    assert len(found) == 10
    for arm, _, how in found:
        assert how == (None if arm == "data.validation=0.2" else "stacked 4")
    together.ablate("report", "together")
    verdicts = json.loads(together.ablate("report", "together", "--format", "json"))
    assert verdicts["runs"]["finished"] == 10


def test_without_fusion_every_run_is_by_itself(together):
    together.ablate("run", "together.yaml", "--executor", "inline", "--seeds", "1", "--no-fuse")
    assert {how for _, _, how in tags(together.runs("together"), "ablate.fused")} == {None}


# --- what is final, and what a budget does -------------------------------------------------------------------------

UNSTEADY = '''
from pathlib import Path

WORTH = [0.10, 0.11, 0.105, -0.2, 0.1, 0.1, 0.1, 0.1]

def fit(config, seed):
    """Differences that are clear, but for one under a seed that fails as long as a file is there."""
    if seed == 3 and config["arm"] and Path("broken").exists():
        raise RuntimeError("it was told to")
    accuracy = 0.5 + (WORTH[seed] if config["arm"] else 0.0)
    yield {"train/loss": accuracy, "val/loss": accuracy, "val/accuracy": accuracy + 0.001 * seed}
'''


def unsteady(workplace, seeds: str) -> str:
    (workplace.root / "toy.py").write_text(UNSTEADY)
    path = workplace.root / "unsteady.yaml"
    path.write_text(
        "study: toy\nmargin: 0.02\ntrain: toy:fit\nbaseline: {arm: false}\n"
        f"factors: {{arm: [true]}}\nseeds: {seeds}\n"
    )
    return str(path)


def test_a_verdict_is_final_although_a_run_that_failed_could_be_done_now(workplace):
    study = unsteady(workplace, "{initial: 4, max: 8}")
    Path("broken").touch()
    workplace.ablate("run", study, "--executor", "inline", code=1)
    before = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    Path("broken").unlink()
    said = workplace.ablate("run", study, "--executor", "inline", code=1)
    assert "1 failed run stays failed" in said
    assert json.loads(workplace.ablate("report", "toy", "--format", "json"))["arms"] == before["arms"]
    assert before["arms"][0]["verdict"] == "helps"


def test_a_run_that_failed_is_done_again_where_nothing_was_decided_yet(workplace):
    study = unsteady(workplace, "[2, 4]")
    (workplace.root / "toy.py").write_text(UNSTEADY.replace("seed == 3", "seed == 1"))
    Path("broken").touch()
    workplace.ablate("run", study, "--seeds", "2", "--executor", "inline", code=1)
    Path("broken").unlink()
    workplace.ablate("run", study, "--seeds", "2", "--executor", "inline")
    finished = [run for run in workplace.runs() if run.info.status == "FINISHED"]
    assert len(finished) == 4


@pytest.mark.parametrize(("name", "clock"), [("toy", -7200), ("again", 0)])
def test_a_plan_that_reads_runs_which_another_has_judged_says_so(workplace, monkeypatch, name, clock):
    """Of the same study, although the clock was set back, or of a study of another name."""
    study = workplace.trained()
    text = Path(study).read_text()
    Path(study).write_text(
        text.replace("margin: 0.02", "margin: 0.03").replace("study: toy", f"study: {name}")
    )
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + clock)
    said = workplace.ablate("run", study, "--executor", "inline")
    assert "were judged by 1 other plan:" in said
    again = workplace.ablate("run", study, "--executor", "inline")
    assert "were judged by 1 other plan:" in again
    workplace.ablate("report", name)
    assert "were judged by 1 other plan: each plan" in Path(f"reports/{name}.html").read_text()
    report = json.loads(workplace.ablate("report", name, "--format", "json"))
    assert report["margin"] == 0.03
    assert report["warnings"][0].startswith("Runs of this plan were judged by 1 other plan")
    short = workplace.ablate("report", name, "--format", "md")
    assert "**Caveat.** Runs of this plan were judged by 1 other plan" in short.partition("| Arm |")[0]
    table = workplace.ablate("report", name, "--format", "latex")
    assert "had been judged by 1 other plan" in table.partition("ablatemethods{")[2]
    if name == "toy":
        Path(study).write_text(text)
        workplace.ablate("run", study, "--executor", "inline")
        assert json.loads(workplace.ablate("report", name, "--format", "json"))["margin"] == 0.02


def test_a_budget_that_does_not_allow_another_round_begins_none_also_when_it_goes_on(workplace, pass_by_runs):
    study = workplace.study(seeds="4")
    workplace.ablate("run", study, "--executor", "inline", "--seeds", "1")
    pass_by_runs(
        1
    )  # none of the budget is gone when it is asked; what a round takes is known from the runs of before
    said = workplace.ablate("run", study, "--executor", "inline", "--budget", "0.001s")
    assert "planned runs left undone" in said
    trained = [run.data.tags["ablate.seed"] for run in workplace.runs() if run.info.status == "FINISHED"]
    assert sorted(trained) == ["0", "0", "0"]


@pytest.mark.parametrize(("margin", "is_refused"), [("1", True), ("0.5", False)])
def test_a_margin_that_no_share_can_differ_by_ends_the_study_after_a_run_of_each_arm(
    workplace, margin, is_refused
):
    study = workplace.study(seeds="4")
    path = Path(study)
    path.write_text(path.read_text().replace("margin: 0.02", f"margin: {margin}"))
    told = workplace.ablate("run", study, "--executor", "inline", code=2 if is_refused else 0)
    assert ("did you mean 0.01, 1 point of a hundred?" in told) is is_refused
    assert len(workplace.runs("toy")) == (3 if is_refused else 12)
