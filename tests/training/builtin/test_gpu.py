"""What holds on a GPU. Imports `ablate.training` and what lies below it only: such a machine may lack MLflow and Optuna."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.events import Bundle, EpochEnd, Finished, Task
from ablate.training import runs
from ablate.training.builtin import batches, choose
from ablate.training.builtin.batches import Pixels, augmented_batches
from ablate.training.builtin.learner import TorchLearner
from ablate.training.builtin.loop import Loop
from ablate.training.builtin.randomness import batch_streams
from ablate.training.builtin.stack import Stacked
from ablate.training.payload import NO_FOLDERS, Folders, RunPayload

ROOT = Path(__file__).parents[3]
BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 400, "validation": 0.25},
        "model": {"name": "cnn", "depth": 2, "width": 8, "dropout": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "training": {"epochs": 6, "batch_size": 32},
    }
)
AUGMENTED = {
    "augment": {"flip": True, "crop": 1, "rotation": 5, "brightness": 0.1, "cutout": 2, "mixup": 0.2}
}
ARMS = ({}, {"optimizer.lr": 0.03}, {"model.dropout": 0.3})


def gpu(test):
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    return pytest.mark.gpu(absent(test))


def tasks(*configs: RunConfig, device="cuda:0", seeds=(0,), **more) -> tuple[Task, ...]:
    fuse = len(configs) > 1
    return tuple(
        Task(f"{n} {seed}", 1, RunPayload(config.tree(), seed, device=device, fuse=fuse, **more))
        for seed in seeds
        for n, config in enumerate(configs)
    )


def trained(given: tuple[Task, ...], folders: Folders = NO_FOLDERS) -> dict[str, list]:
    found: dict[str, list] = {task.run: [] for task in given}
    for event in runs.train(Bundle(given), folders):
        found[event.run].append(event)
    assert all(isinstance(events[-1], Finished) for events in found.values()), found
    return found


def losses(events: list) -> list[float]:
    return [event.metrics["train/loss"] for event in events if isinstance(event, EpochEnd)]


@gpu
def test_a_run_follows_the_same_run_on_the_cpu():
    # Without what is drawn on the device: its generator is another one.
    plain = BASE.override({"model.dropout": 0.0})
    there, here = (trained(tasks(plain, device=device))["0 0"] for device in ("cuda:0", "cpu"))
    assert losses(there)[0] == pytest.approx(losses(here)[0], rel=1e-2)
    assert there[-1].metrics["test/accuracy"] == pytest.approx(here[-1].metrics["test/accuracy"], abs=0.05)


@gpu
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_stacked_runs_follow_their_single_runs(monkeypatch, seeds):
    monkeypatch.setattr(choose, "pays", lambda *_: True)
    given = tasks(*(BASE.override(change | AUGMENTED) for change in ARMS), seeds=seeds)
    together = trained(given)
    for task in given:
        single = trained((task,))[task.run]
        assert together[task.run][0].facts["fused"] == f"stacked {len(given)}"
        assert losses(together[task.run])[0] == pytest.approx(losses(single)[0], rel=1e-2)


@gpu
@pytest.mark.parametrize(("arms", "seeds"), [(ARMS[:1], (0,)), (ARMS, (0,)), (ARMS, (0, 1))])
def test_an_epoch_never_waits_for_the_device(monkeypatch, arms, seeds):
    monkeypatch.setattr(choose, "pays", lambda *_: True)
    train_epoch, passes = Loop._train, []

    def watched(self):
        passes.append(0)
        if len(passes) == 1:  # what is made once, by torch's libraries too
            yield from train_epoch(self)
        else:
            _without_waiting(lambda: list(train_epoch(self)))

    monkeypatch.setattr(Loop, "_train", watched)
    trained(tasks(*(BASE.override(change | AUGMENTED) for change in arms), seeds=seeds))
    assert len(passes) == BASE.training.epochs


def _without_waiting(do) -> None:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        do()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize("arms", [ARMS[:1], ARMS])
def test_bfloat16_learns(monkeypatch, arms):
    monkeypatch.setattr(choose, "pays", lambda *_: True)
    config = BASE.override({"training.precision": "bfloat16", "data.subset": None})
    for events in trained(tasks(*(config.override(change) for change in arms))).values():
        assert events[-1].metrics["test/accuracy"] > 0.8


class Interrupted(BaseException):
    """What ends a process; nothing may catch it."""


@gpu
@pytest.mark.parametrize("arms", [ARMS[:1], ARMS])
def test_runs_that_were_interrupted_resume(tmp_path, monkeypatch, arms):
    monkeypatch.setattr(choose, "pays", lambda *_: True)
    # A few batches at once, so that it is broken off in the middle of an epoch.
    monkeypatch.setattr(batches, "AHEAD", 2 * 32 * 64 * 4)
    configs = [BASE.override(change | AUGMENTED) for change in arms]
    uninterrupted = trained(tasks(*configs))
    kind, name = (Stacked, "step") if len(arms) > 1 else (TorchLearner, "step")
    step, count = getattr(kind, name), 0

    def counted(self, *arguments):
        nonlocal count
        count += 1
        if count == 25:
            raise Interrupted
        return step(self, *arguments)

    folders = Folders(checkpoints=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(kind, name, counted)
        with pytest.raises(Interrupted):
            trained(tasks(*configs, checkpoint_every=0.0), folders)
    for run, events in trained(tasks(*configs, checkpoint_every=0.0), folders).items():
        assert events[0].facts["resumed"] == "in epoch 3"
        # Some of cuDNN's sums are made in whatever order they come.
        assert losses(events) == pytest.approx(losses(uninterrupted[run]), rel=2e-2)
    assert list(tmp_path.iterdir()) == []


# --- what a machine without a GPU can say of it ---------------------------------------------------------------------


class Resident(Pixels):
    """As on a GPU: the images are there, and several batches are made at once."""

    def __init__(self, data: datasets.Dataset) -> None:
        mean, std = np.full(1, 0.3), np.full(1, 0.4)
        super().__init__(data.train_images, data.train_labels, np.arange(150), mean, std, torch.device("cpu"))
        self.device = torch.device("meta")

    def batch(self, index):
        rows = index.numpy()
        return torch.from_numpy(self._images[rows]), torch.from_numpy(self._labels[rows])


def test_batches_that_are_made_several_at_once_can_be_resumed_where_the_streams_stand_at_the_batch(
    monkeypatch,
):
    monkeypatch.setattr(batches, "AHEAD", 2 * 32 * 64 * 4)
    config = BASE.override({"augment": {"flip": True, "crop": 1, "mixup": 0.2}})
    pixels, order = Resident(datasets.prepare(config.data)), torch.randperm(150)

    def made(order, streams):
        for images, targets, is_last_drawn in augmented_batches(config, streams, pixels, order, 10):
            yield (
                images,
                targets,
                is_last_drawn,
                {name: stream.get_state() for name, stream in streams.items()},
            )

    whole = list(made(order, batch_streams(0, torch.device("cpu"))))
    assert [is_last_drawn for _, _, is_last_drawn, _ in whole] == [False, True, False, True, True]
    assert [len(images) for images, *_ in whole] == [32, 32, 32, 32, 22]
    streams = batch_streams(0, torch.device("cpu"))
    for name, state in whole[1][-1].items():
        streams[name].set_state(state)
    for mine, expected in zip(made(order[64:], streams), whole[2:], strict=True):
        assert torch.equal(mine[0], expected[0])
        assert torch.equal(mine[1], expected[1])


BLOCKED = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {"mlflow", "optuna", "ray", "plotly", "typer"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import ablate.training.builtin.bundle
sys.path.insert(0, "benchmarks")
import gpu
sys.argv = ["gpu.py", "nowhere"]
gpu.main()
"""


def test_training_and_the_benchmark_of_a_gpu_need_neither_mlflow_nor_optuna():
    said = subprocess.run(
        [sys.executable, "-c", BLOCKED],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.splitlines() == [
        "no CUDA device here; `--device cpu --quick` tries the benchmark itself"
    ]
