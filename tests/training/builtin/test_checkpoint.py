"""A run that is interrupted resumes where it was, to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import re
import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch

from ablate.config import RunConfig
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.training.builtin import checkpoint, choose, stack
from ablate.training.builtin.learner import TorchLearner
from ablate.training.payload import Folders, RunPayload
from ablate.training.runs import train

BASE = {
    "data": {"name": "digits", "subset": 240, "validation": 0.25},
    "model": {"name": "cnn", "depth": 2, "width": 8, "dropout": 0.2, "batch_norm": True},
    "augment": {"crop": 1, "cutout": 2, "mixup": 0.2, "brightness": 0.1},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"name": "onecycle"},
    "training": {"epochs": 4, "batch_size": 32, "checkpoint": "best", "patience": 3},
}
STEPS = 4 * math.ceil(180 / 32)
SELDOM = 3600.0
"""Seconds between two checkpoints of a run that is not to be interrupted: to save each of its steps takes longer than they do."""

VARIANTS = {
    "sgd": {},
    "adam": {"optimizer.name": "adam", "optimizer.lr": 0.01},
    "last epoch": {"training.checkpoint": "last", "augment.mixup": 0.0},
    "bfloat16": {"training.precision": "bfloat16", "training.max_grad_norm": 1.0},
    "numpy": {"model": {"name": "numpy_mlp", "hidden": [16, 8]}},
    "numpy adam": {"model": {"name": "numpy_mlp", "hidden": [16]}, "optimizer.name": "adamw"},
}


NO_STATES = {
    "no keys": lambda saved: {},
    "a list": lambda saved: [saved],
    "no state": lambda saved: {**saved, "state": None},
    "a state without groups": lambda saved: {**saved, "state": {}},
    "groups of other runs": lambda saved: {**saved, "state": {**saved["state"], "groups": []}},
    "a group without networks": lambda saved: {
        **saved, "state": {**saved["state"], "groups": [{"runs": ["run"], "stacked": False}]}
    },
    "no members": lambda saved: {**saved, "state": {**saved["state"], "members": {}}},
    "no streams": lambda saved: {**saved, "state": {**saved["state"], "streams": {3: {"weather": torch.zeros(1)}}}},
    "other batches": lambda saved: {**saved, "state": {**saved["state"], "orders": 7}},
}  # fmt: skip
"""What a checkpoint may hold whose first line and digest are right."""


class Interrupted(BaseException):
    """What ends a process in the middle of a step; nothing may catch it."""


def events(config, folder=None, every=0.0, threads=1):
    payload = RunPayload(config.tree(), seed=3, threads=threads, checkpoint_every=every)
    return list(train(Bundle((Task("run", 1, payload),)), Folders(checkpoints=folder)))


def without_times(run_events):
    """Return the epochs and the end of a run without the times."""
    end = run_events[-1]
    assert isinstance(end, Finished), end
    metrics = {name: value for name, value in end.metrics.items() if not name.startswith("time/")}
    epochs = [(event.epoch, event.metrics) for event in run_events if isinstance(event, EpochEnd)]
    return epochs, dataclasses.replace(end, time=0, metrics=metrics)


def interrupt(config, folder, monkeypatch, after: int, learner=TorchLearner):
    """Train so many steps, each of them saved, and end as a killed process does: without an event."""
    step, count = learner.step, 0

    def counted(self, *arguments):
        nonlocal count
        if count == after:
            raise Interrupted
        count += 1
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "step", counted)
        with pytest.raises(Interrupted):
            events(config, folder)


@cache
def uninterrupted_run(variant):
    return without_times(events(RunConfig.parse(BASE).override(VARIANTS[variant])))


@cache
def checkpoint_of_eight_steps():
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        interrupt(RunConfig.parse(BASE), Path(folder), monkeypatch, 8)
        return checkpoint.place(Path(folder), "run").read_bytes()


@pytest.mark.parametrize("after", [1, 6, 7, STEPS - 1])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path, monkeypatch, variant, after):
    from ablate.training.builtin.numpy_learner import NumpyLearner

    config = RunConfig.parse(BASE).override(VARIANTS[variant])
    uninterrupted = uninterrupted_run(variant)
    interrupt(config, tmp_path, monkeypatch, after, NumpyLearner if "numpy" in variant else TorchLearner)
    resumed = events(config, tmp_path, SELDOM)
    assert resumed[0].facts["resumed"] == f"in epoch {1 + (after - 1) // 6}"
    assert without_times(resumed) == uninterrupted


def test_a_run_can_be_interrupted_again_and_again(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    for _ in range(STEPS // 5):
        interrupt(config, tmp_path, monkeypatch, 5)
    assert without_times(events(config, tmp_path)) == without_times(events(config))


@pytest.mark.parametrize(
    "spoil", ["cut short", "a flipped bit", "not a checkpoint", "empty", "another version", "other threads"]
)
def test_a_checkpoint_that_cannot_be_trusted_is_not_used(tmp_path, spoil):
    config = RunConfig.parse(BASE)
    path = checkpoint.place(tmp_path, "run")
    content = checkpoint_of_eight_steps()
    path.write_bytes(content)
    if spoil == "cut short":
        path.write_bytes(content[:-1])
    elif spoil == "a flipped bit":
        path.write_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    elif spoil == "not a checkpoint":
        path.write_bytes(b"\x80\x04something else\n" * 100)
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "another version":
        path.write_bytes(content.replace(b"checkpoint 5", b"checkpoint 4", 1))
    threads = torch.get_num_threads()
    try:
        run_events = events(config, tmp_path, SELDOM, threads=2 if spoil == "other threads" else 1)
    finally:
        torch.set_num_threads(threads)
    assert "resumed" not in run_events[0].facts
    assert isinstance(run_events[-1], Finished)


def test_a_run_that_takes_less_than_the_interval_writes_none(tmp_path):
    events(RunConfig.parse(BASE), tmp_path, every=60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    assert isinstance(events(RunConfig.parse(BASE), tmp_path / "file")[-1], Finished)


def test_the_time_of_a_run_is_that_of_all_its_parts(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    interrupt(config, tmp_path, monkeypatch, 8)
    content = checkpoint.place(tmp_path, "run").read_bytes().partition(b"\n")[2]
    spent = torch.load(io.BytesIO(content), weights_only=True)["state"]["members"]["run"]["seconds"]
    assert events(config, tmp_path)[-1].metrics["time/train_seconds"] > spent > 0


def test_a_run_that_is_done_keeps_no_checkpoint(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE)
    interrupt(config, tmp_path, monkeypatch, 8)
    assert [path.suffix for path in tmp_path.iterdir()] == [".checkpoint"]
    events(config, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- runs that train together -----------------------------------------------------------------------------------------

TOGETHER = {
    "baseline": {},
    "lr": {"optimizer.lr": 0.02, "model.dropout": 0.0},
    # Leaves after its second epoch, at the twelfth of twenty-four batches.
    "stops": {"optimizer.lr": 1e-9, "training.patience": 1, "training.min_delta": 10.0},
    "wide": {"model.width": 12},
}


def tasks(names=tuple(TOGETHER), fuse=True, seeds=(3,), every=0.0):
    base = RunConfig.parse(BASE)
    return tuple(
        Task(
            name,
            1,
            RunPayload(
                base.override(TOGETHER[name]).tree(), seeds[i % len(seeds)], fuse=fuse, checkpoint_every=every
            ),
        )
        for i, name in enumerate(names)
    )


def train_all(tasks, folder=None):
    """Train a bundle; return the facts, epochs and end of each run, without the times."""
    run_events = {task.run: [] for task in tasks}
    for event in train(Bundle(tasks), Folders(checkpoints=folder)):
        run_events[event.run].append(event)
    return {run: (events[0].facts, without_times(events)) for run, events in run_events.items()}


@pytest.fixture
def stacked(monkeypatch):
    """Three in a stack, and `wide` in turn beside them."""
    monkeypatch.setattr(choose, "pays", lambda recipes, *_: recipes[0].model.width == 8)


def interrupt_bundle(tasks, folder, monkeypatch, after: int):
    """Train a bundle for so many batches, each of them saved; return the runs that were done by then."""
    step, count, done = stack.Stacked.step, 0, []

    def counted(self, *arguments):
        nonlocal count
        if count == after:
            raise Interrupted
        count += 1
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stack.Stacked, "step", counted)
        with pytest.raises(Interrupted):
            done.extend(
                e.run for e in train(Bundle(tasks), Folders(checkpoints=folder)) if isinstance(e, Finished)
            )
    return done


@cache
def uninterrupted_bundle():
    """Needs the fixture `stacked`."""
    return train_all(tasks())


@cache
def from_the_beginning(names, fuse):
    """Needs the fixture `stacked`."""
    return {run: outcome for run, (_, outcome) in train_all(tasks(names, fuse)).items()}


@pytest.mark.parametrize("after", [1, 6, 9, 20])
def test_runs_together_that_were_interrupted_end_as_if_they_had_not_been(
    tmp_path, monkeypatch, stacked, after
):
    uninterrupted = uninterrupted_bundle()
    interrupt_bundle(tasks(), tmp_path, monkeypatch, after)
    # The one that has stopped by then is done, and is not asked for again.
    left = tuple(name for name in TOGETHER if after < 12 or name != "stops")
    assert list(checkpoint.together(tmp_path).values()) == [frozenset(left)]
    resumed = train_all(tasks(left[::-1], every=SELDOM), tmp_path)
    for run in left:
        facts, outcome = resumed[run]
        assert facts.pop("resumed") == f"in epoch {1 + (after - 1) // 6}"
        assert facts == uninterrupted[run][0]
        assert outcome == uninterrupted[run][1]
    assert list(tmp_path.iterdir()) == []


def test_runs_of_several_seeds_together_resume_too(tmp_path, monkeypatch, stacked):
    monkeypatch.setattr(choose, "OWN_BATCHES", {"cpu"})
    given = {"names": ("baseline", "lr", "wide"), "seeds": (3, 4)}
    uninterrupted = train_all(tasks(**given))
    assert [facts["fused"] for facts, _ in uninterrupted.values()] == [
        "stacked 2 of 3",
        "stacked 2 of 3",
        "in turn 1 of 3",
    ]
    interrupt_bundle(tasks(**given), tmp_path, monkeypatch, 9)
    assert {run: outcome for run, (_, outcome) in train_all(tasks(**given), tmp_path).items()} == {
        run: outcome for run, (_, outcome) in uninterrupted.items()
    }


def test_the_last_of_a_bundle_resumes_as_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "pays", lambda *_: True)
    pair = ("baseline", "stops")
    uninterrupted = train_all(tasks(pair))
    assert interrupt_bundle(tasks(pair), tmp_path, monkeypatch, 14) == ["stops"]
    (facts, outcome) = train_all(tasks(pair[:1]), tmp_path)["baseline"]
    assert (facts["fused"], facts["resumed"]) == ("stacked 2", "in epoch 3")
    assert outcome == uninterrupted["baseline"][1]


@pytest.mark.parametrize("names", [("baseline",), ("baseline", "lr"), tuple(TOGETHER)])
def test_runs_that_fail_keep_no_checkpoint(tmp_path, monkeypatch, stacked, names):
    # What failed would only fail again.
    count = 0

    def failing(self, *_):
        nonlocal count
        count += 1
        if count > 20:
            raise RuntimeError("it was told to")
        return step(self, *_)

    step = TorchLearner.step
    monkeypatch.setattr(TorchLearner, "step", failing)
    monkeypatch.setattr(choose, "pays", lambda *_: False)
    events = list(train(Bundle(tasks(names)), Folders(checkpoints=tmp_path)))
    assert {event.run for event in events if isinstance(event, Failed)} == set(names)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "how", ["others", "one less", "alone", "each by itself", "damaged", "another version", "another torch"]
)
def test_runs_together_resume_with_the_same_runs_or_begin_again(tmp_path, monkeypatch, stacked, how):
    names = ("baseline", "lr", "wide")
    interrupt_bundle(tasks(names), tmp_path, monkeypatch, 8)
    (path,) = tmp_path.iterdir()
    asked = {"others": tuple(TOGETHER), "one less": names[:2], "alone": names[:1]}.get(how, names)
    if how == "damaged":
        content = path.read_bytes()
        path.write_bytes(content[:-300] + bytes([content[-300] ^ 1]) + content[-299:])
    elif how == "another version":
        path.write_bytes(path.read_bytes().replace(b"checkpoint 5", b"checkpoint 4", 1))
        assert list(checkpoint.together(tmp_path)) == [path], "it is known, so that it can be removed"
    elif how == "another torch":
        monkeypatch.setattr(torch, "__version__", "2.0.0")
    fuse = how != "each by itself"
    run_events = train_all(tasks(asked, fuse, every=SELDOM), tmp_path)
    assert all("resumed" not in facts for facts, _ in run_events.values())
    assert {run: outcome for run, (_, outcome) in run_events.items()} == from_the_beginning(asked, fuse)
    assert list(tmp_path.iterdir()) == []


def test_what_has_the_digest_of_a_checkpoint_and_holds_none_is_not_used(tmp_path, monkeypatch):
    config = RunConfig.parse(BASE).override({"training.epochs": 1})
    uninterrupted = without_times(events(config))
    interrupt(config, tmp_path, monkeypatch, 3)
    path = checkpoint.place(tmp_path, "run")
    first, _, content = path.read_bytes().partition(b"\n")
    for name, change in NO_STATES.items():
        changed = io.BytesIO()
        torch.save(change(torch.load(io.BytesIO(content), weights_only=True)), changed)
        digest = hashlib.sha256(changed.getbuffer()).hexdigest().encode()
        path.write_bytes(re.sub(rb"[0-9a-f]{64}", digest, first) + b"\n" + changed.getvalue())
        run_events = events(config, tmp_path, SELDOM)
        assert "resumed" not in run_events[0].facts, name
        assert without_times(run_events) == uninterrupted, name
        assert not path.exists(), name


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "holes"])
def test_what_lies_in_the_place_of_a_checkpoint_holds_nothing_up(tmp_path, kind):
    for path in (checkpoint.place(tmp_path, "run"), checkpoint.place_together(tmp_path, ["run", "b"])):
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/dev/zero")
        else:
            path.touch()
            os.truncate(path, 1 << 40)
    assert "together" not in str(checkpoint.saved_together(tmp_path, ["run", "b"]))
    run_events = events(RunConfig.parse(BASE).override({"training.epochs": 1}), tmp_path)
    assert "resumed" not in run_events[0].facts
    assert isinstance(run_events[-1], Finished)
