"""A run that is broken off goes on where it was, to the bit."""

from __future__ import annotations

import dataclasses
import io
import math

import pytest
import torch

from ablate.config import RunConfig
from ablate.events import Bundle, EpochEnd, Finished, Task
from ablate.training import checkpoint
from ablate.training.train import TorchLearner, train

BASE = {
    "data": {"name": "digits", "subset": 240, "validation": 0.25},
    "model": {"name": "cnn", "depth": 2, "width": 8, "dropout": 0.2, "batch_norm": True},
    "augment": {"crop": 1, "cutout": 2, "mixup": 0.2, "brightness": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"name": "onecycle"},
    "training": {"epochs": 4, "batch_size": 32, "checkpoint": "best", "patience": 3},
}
STEPS = 4 * math.ceil(180 / 32)
VARIANTS = {
    "sgd": {},
    "adam": {"optimizer.name": "adam", "optimizer.lr": 0.01},
    "last epoch": {"training.checkpoint": "last", "augment.mixup": 0.0},
    "bfloat16": {"training.precision": "bfloat16", "training.max_grad_norm": 1.0},
    "numpy": {"model": {"name": "numpy_mlp", "hidden": [16, 8]}},
    "numpy adam": {"model": {"name": "numpy_mlp", "hidden": [16]}, "optimizer.name": "adamw"},
}


class Broken(BaseException):
    """What ends a process in the middle of a step; nothing may catch it."""


def events(config, folder=None, every=0.0, threads=1):
    payload = {"config": config.tree(), "seed": 3, "train": None, "device": "cpu", "threads": threads}
    if folder is not None:
        payload |= {"checkpoints": str(folder), "checkpoint_every": every}
    return list(train(Bundle((Task("run", 1, payload),))))


def told(found):
    """What a run says, without the times."""
    end = found[-1]
    assert isinstance(end, Finished), end
    metrics = {name: value for name, value in end.metrics.items() if not name.startswith("time/")}
    epochs = [(event.epoch, event.metrics) for event in found if isinstance(event, EpochEnd)]
    return epochs, dataclasses.replace(end, time=0, metrics=metrics)


def break_off(config, folder, monkeypatch, after: int, learner=TorchLearner):
    """Train so many steps, each of them saved, and end as a killed process would: without a word."""
    step, count = learner.step, 0

    def counted(self, *arguments):
        nonlocal count
        if count == after:
            raise Broken
        count += 1
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "step", counted)
        with pytest.raises(Broken):
            events(config, folder)


@pytest.mark.parametrize("after", [1, 6, 7, STEPS - 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(tmp_path, monkeypatch, variant, after):
    from ablate.training.numpy_learner import NumpyLearner

    config = RunConfig.parse(BASE).override(VARIANTS[variant])
    unbroken = told(events(config))
    break_off(config, tmp_path, monkeypatch, after, NumpyLearner if "numpy" in variant else TorchLearner)
    resumed = events(config, tmp_path)
    assert resumed[0].facts["resumed"] == f"in epoch {1 + (after - 1) // 6}"
    assert told(resumed) == unbroken


def test_a_run_can_be_broken_off_again_and_again(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    for _ in range(STEPS // 5):
        break_off(config, tmp_path, monkeypatch, 5)
    assert told(events(config, tmp_path)) == told(events(config))


@pytest.mark.parametrize(
    "spoil", ["cut short", "a flipped bit", "not a checkpoint", "empty", "other threads"]
)
def test_a_checkpoint_that_cannot_be_trusted_is_as_good_as_none(tmp_path, monkeypatch, spoil):
    config = RunConfig.parse(BASE)
    break_off(config, tmp_path, monkeypatch, 8)
    path = checkpoint.place(tmp_path, "run")
    content = path.read_bytes()
    if spoil == "cut short":
        path.write_bytes(content[:-1])
    elif spoil == "a flipped bit":
        path.write_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    elif spoil == "not a checkpoint":
        path.write_bytes(b"\x80\x04something else\n" * 100)
    elif spoil == "empty":
        path.write_bytes(b"")
    threads = torch.get_num_threads()
    try:
        found = events(config, tmp_path, threads=2 if spoil == "other threads" else 1)
    finally:
        torch.set_num_threads(threads)
    assert "resumed" not in found[0].facts
    assert isinstance(found[-1], Finished)


def test_a_run_that_takes_less_than_the_interval_writes_none(tmp_path):
    events(RunConfig.parse(BASE), tmp_path, every=60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    assert isinstance(events(RunConfig.parse(BASE), tmp_path / "file")[-1], Finished)


def test_the_time_of_a_run_is_that_of_all_its_parts(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    break_off(config, tmp_path, monkeypatch, 8)
    content = checkpoint.place(tmp_path, "run").read_bytes().partition(b"\n")[2]
    spent = torch.load(io.BytesIO(content), weights_only=True)["seconds"]
    assert events(config, tmp_path)[-1].metrics["time/train_seconds"] > spent > 0


def test_a_run_that_is_done_keeps_no_checkpoint(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    break_off(config, tmp_path, monkeypatch, 8)
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]
    events(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
