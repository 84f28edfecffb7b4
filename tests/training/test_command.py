"""Training by any command: real scripts in temporary folders."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from ablate.errors import StudyError
from ablate.events import EpochEnd, Event, Failed, Finished, Task
from ablate.study import spec
from ablate.study.keys import Study
from ablate.training import trainer_of
from ablate.training.payload import Folders, RunPayload
from ablate.training.runs import events_of

MNIST = """
    import argparse, random
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random.seed(args.seed)
    for epoch in range(1, args.epochs + 1):
        for batch in range(0, 300, 100):
            print(f"Train Epoch: {epoch} [{batch}/300 (0%)]\\tLoss: {random.random() / epoch:.6f}")
        correct = int(90 + 3 * args.lr + random.gauss(0, 1))
        print(f"\\nTest set: Average loss: 0.0500, Accuracy: {correct}/100 ({correct}%)\\n")
"""
MNIST_STUDY = {
    "study": "mnist",
    "command": ["python", "main.py", "--epochs", "{epochs}", "--lr", "{lr}", "--seed", "{seed}"],
    "baseline": {"epochs": 2, "lr": 1.0},
    "factors": {"lr": [0.3]},
    "metric": "accuracy",
    "metrics": {"accuracy": {"line": r"Accuracy: (\d+)/(\d+)"}, "train/loss": {"line": r"Loss: ([\d.]+)"}},
    "margin": 0.005,
    "seeds": 3,
}


def write_project(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))


def read_study(folder: Path, plain: dict[str, Any], **changes: Any) -> Study:
    """A study file in a folder, read."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in (plain | changes).items() if v is not None}))
    return spec.read(file)


def events_of_study(
    study: Study, folder: Path, *, seed: int = 0, attempt: int = 1, device: str = "cpu"
) -> list[Event]:
    """All events of one run of a study's baseline."""
    config = study.baseline.with_seed(seed)
    trainer_of(config).preparer()(config)
    payload = RunPayload(
        config.tree(), seed, kind="command", device=device, source=config.source, metric=study.metric
    )
    return list(events_of(Task(f"run-{seed}", attempt, payload), Folders.under(folder / "mlruns")))


def test_a_script_that_takes_arguments_runs_as_it_is(tmp_path):
    write_project(tmp_path, {"main.py": MNIST})
    study = read_study(tmp_path, MNIST_STUDY)
    _started, first, second, end = events_of_study(study, tmp_path)
    assert isinstance(first, EpochEnd)
    assert isinstance(end, Finished)
    assert (first.epoch, second.epoch, end.epoch, end.outcome) == (1, 2, 2, "finished")
    assert set(first.metrics) == {"accuracy", "train/loss"}
    assert b"Train Epoch: 2 [200/300 (0%)]" in end.files["output.txt"]
    again = events_of_study(study, tmp_path)
    assert [event.metrics for event in again[1:3]] == [first.metrics, second.metrics]
    other = events_of_study(study, tmp_path, seed=1)
    assert other[1].metrics != first.metrics


def test_a_command_that_fails_shows_its_last_lines(tmp_path):
    write_project(tmp_path, {"main.py": "print('before'); raise ValueError('no data here')"})
    end = events_of_study(read_study(tmp_path, MNIST_STUDY), tmp_path)[-1]
    assert isinstance(end, Failed)
    assert "exited with 1" in end.reason
    assert "no data here" in end.reason
    assert "before" in end.detail


def test_a_metric_that_was_never_found_fails_the_run_and_shows_the_last_lines(tmp_path):
    write_project(tmp_path, {"main.py": "print('acc is 0.7')"})
    end = events_of_study(read_study(tmp_path, MNIST_STUDY), tmp_path)[-1]
    assert isinstance(end, Failed)
    assert "'accuracy' was never found" in end.reason
    assert "acc is 0.7" in end.reason


def test_a_factor_that_reaches_neither_command_nor_environment_is_refused(tmp_path):
    with pytest.raises(StudyError, match="reaches neither the command nor its environment"):
        read_study(
            tmp_path, MNIST_STUDY, baseline={"epochs": 2, "lr": 1.0, "width": 3}, factors={"width": [4]}
        )
