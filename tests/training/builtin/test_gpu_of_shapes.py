"""Training on a GPU as far as a machine without one can tell: all tensors on one device, and nothing in an epoch that waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch
from shapes_only import GPU, MixedDevicesError, ShapesOnly, Waited, shapes_only

from ablate import config as configs
from ablate.config import RunConfig, TrainingConfig
from ablate.data import augment
from ablate.data.augment import Augment
from ablate.events import Bundle, EpochEnd, Finished, Task
from ablate.models import MODELS
from ablate.training import runs
from ablate.training.builtin import choose, evaluation, losses, optimizers
from ablate.training.builtin.batches import Pixels
from ablate.training.builtin.evaluation import EvaluationSums
from ablate.training.builtin.loop import Loop
from ablate.training.builtin.stack import Single, Stacked
from ablate.training.payload import RunPayload

BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 60, "validation": 0.3},
        "model": {"name": "cnn", "depth": 2, "width": 4, "dropout": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "training": {"epochs": 1, "batch_size": 32},
    }
)


@contextlib.contextmanager
def watched() -> Iterator[ShapesOnly]:
    """A GPU of shapes, which may be waited for between two epochs alone: where the sums of the epoch that has ended are read."""
    with pytest.MonkeyPatch.context() as patch, shapes_only() as device:

        def watch(owner: type, name: str, *, allowed: bool) -> None:
            method = getattr(owner, name)

            def within(*arguments):
                with device.waiting(allowed=allowed):
                    result = method(*arguments)
                    return (yield from result) if isinstance(result, Iterator) else result

            def whole(*arguments):
                with device.waiting(allowed=allowed):
                    return method(*arguments)

            patch.setattr(owner, name, within if name in ("_train", "_evaluate") else whole)

        for owner, name in (
            (Loop, "_begin_epoch"),
            (Single, "set_rates"),
            (Stacked, "set_rates"),
            (Loop, "_train"),
            (Loop, "_evaluate"),
        ):
            watch(owner, name, allowed=False)
        watch(EvaluationSums, "evaluation", allowed=True)
        yield device


def trained(*given: RunConfig, seeds=(0,), fuse: bool) -> ShapesOnly:
    """Train whole runs on the GPU of shapes, as a worker does."""
    tasks = tuple(
        Task(f"{n} {seed}", 1, RunPayload(config.tree(), seed, device="cuda:0", fuse=fuse))
        for seed in seeds
        for n, config in enumerate(given)
    )
    with watched() as device:
        events = list(runs.train(Bundle(tasks)))
    for task in tasks:
        of_run = [event for event in events if event.run == task.run]
        assert isinstance(of_run[-1], Finished), of_run[-1]
        assert sum(isinstance(event, EpochEnd) for event in of_run) == BASE.training.epochs
    return device


@pytest.fixture(params=["alone", "stacked"])
def stacked(request, monkeypatch) -> bool:
    """Whether what can be stacked is; or nothing, and every run takes its steps by itself."""
    is_stacked = request.param == "stacked"
    seconds = {"stacked": 0.0 if is_stacked else 1.0, "in turn": 0.5}
    monkeypatch.setattr(choose, "measure", lambda *_: seconds)
    monkeypatch.setattr(choose.cache_folder, "keep", lambda *_: None)
    return is_stacked


# --- every part of the recipe -----------------------------------------------------------------------------------------

NETWORKS = {
    "cnn": {},
    "tutorial_cnn": {"width": 4, "hidden": 20},
    "what_worked": {"width": 0.05},
    "small_cnn": {},
    "numpy_mlp": {},  # on the CPU, whatever the device
    "inception_v1": {"width": 0.05},
    "inception_v2": {"width": 0.05},
}


def test_every_network_stays_on_its_device_and_never_waits_for_it(stacked):
    assert {*NETWORKS} == {*MODELS} - {"torchvision", "timm", "import"}, (
        "a network of our own has its line here"
    )
    base = BASE.override({"training.batch_size": 64, "data.resize": 32})
    given = [base.override({"model": {"name": name} | fields}) for name, fields in NETWORKS.items()]
    if stacked:
        given = [
            config
            for config in given
            if config.model.name in ("cnn", "small_cnn", "tutorial_cnn", "what_worked")
        ]
        given += [config.override({"optimizer.lr": 0.01}) for config in given]
    trained(*given, fuse=True)


def examples(block: type) -> list[tuple[str, object]]:
    return [(name, e) for name, field in block.model_fields.items() for e in field.examples or ()]


def test_every_optimizer_and_setting_of_training_never_waits(stacked):
    kinds = get_args(get_args(configs.Optimizer)[0])
    blocks = [
        {"optimizer": {"name": kind.model_fields["name"].default} | fields}
        for kind in kinds
        for fields in ({}, dict(examples(kind)))
    ]
    settings = [
        {"training.loss": "focal", f"training.{name}": value}
        for name, value in dict(examples(TrainingConfig)).items()
        if name not in ("epochs", "batch_size")  # what runs on the same batches have in common
    ]
    given = [BASE.override(change) for change in (*blocks, *settings)]
    # Each has a member to be stacked with, whatever the others have in common.
    given += [config.override({"optimizer.lr": 0.01}) for config in given if stacked]
    trained(*given, fuse=True)


AUGMENTED = dict(examples(Augment))


@pytest.mark.parametrize("names", [*([name] for name in AUGMENTED), [*AUGMENTED]], ids=" ".join)
def test_every_augmentation_never_waits(names):
    base = BASE.override({"data.channels": "rgb", "training.batch_size": 64})
    trained(base.override({f"augment.{name}": AUGMENTED[name] for name in names}), fuse=False)


def test_members_with_batches_of_their_own_never_wait(stacked):
    given = [BASE.override({"augment": {"flip": True, "mixup": 0.2}, "model.dropout": p}) for p in (0.0, 0.3)]
    trained(*given, seeds=(0, 1), fuse=True)


# --- that the device notices --------------------------------------------------------------------------------------------

WAITING = {
    "item": lambda x: x.sum().item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 0).any()),
    "if": lambda x: 1 if x.sum() > 0 else 2,
    "tolist": lambda x: x.tolist(),
    "a number in a text": lambda x: f"{x.sum():.3f}",
    "print": str,
    "cpu": lambda x: x.cpu(),
    "to the CPU, not blocking": lambda x: x.to("cpu", non_blocking=True),
    "into an array of the CPU": lambda x: torch.zeros(4).copy_(x[:, 0]),
    "to the device, blocking": lambda x: x + torch.zeros(4, 3).to(x.device),
    "into an array of the device": lambda x: torch.zeros_like(x).copy_(torch.ones(4, 3)),
    "a list to the device": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a list to the device of another": lambda x: x.new_tensor([1.0, 2.0]),
    "an array to the device": lambda x: torch.as_tensor(np.ones(3), device="cuda"),
    "a mask": lambda x: x[x > 0],
    "where": lambda x: torch.where(x > 0),
    "nonzero": torch.nonzero,
    "unique": torch.unique,
    "equal": lambda x: torch.equal(x, x),
    "an index of the CPU": lambda x: x[torch.tensor([0, 2])],
    "an index that is a list": lambda x: x[[0, 2]],
    "assignment at a mask": lambda x: x.__setitem__(x > 0, torch.ones(12, device=x.device)),
    "repeats": lambda x: torch.repeat_interleave(torch.arange(4, device=x.device)),
}
NOT_WAITING = {
    "arithmetic": lambda x: (x * 2.0 + torch.tensor(1.0)).exp_(),
    "to the device, not blocking": lambda x: x + torch.zeros(4, 3).to(x.device, non_blocking=True),
    "an index of the device": lambda x: x[torch.arange(2, device=x.device)],
    "a slice": lambda x: x[1:, 0],
    "its device": lambda x: torch.zeros(4, 3, device=x.device) + x,
    "backward": lambda x: (x.clone().requires_grad_() ** 2).sum().backward(),
}


@pytest.mark.parametrize("what", WAITING)
def test_what_waits_for_the_device_is_noticed_where_it_may_not(what):
    with shapes_only() as device:
        x = torch.ones(4, 3).to(GPU)
        WAITING[what](x)
        with device.waiting(allowed=False), pytest.raises(Waited):
            WAITING[what](x)


@pytest.mark.parametrize("what", NOT_WAITING)
def test_what_does_not_wait_may_be_done(what):
    with shapes_only() as device:
        x = torch.ones(4, 3).to(GPU)
        with device.waiting(allowed=False):
            NOT_WAITING[what](x)
            assert x.device == GPU
            assert x.is_cuda


def test_what_is_read_is_zeros_of_the_same_shape():
    with shapes_only():
        x = torch.ones(2, 3).to("cuda:0")
        assert x.tolist() == x.cpu().tolist() == [[0.0] * 3] * 2
        assert float(x.sum()) == 0
        with pytest.raises(MixedDevicesError):
            x + torch.ones(2, 3)


# Where a step, the loader and the evaluation could wait.
PLACES = {
    "the count of correct predictions": (losses, "correct"),
    "the loss of a stack": (losses, "minimised_by_each"),
    "the loss of a run by itself": (losses, "minimised"),
    "the update of a stack": (optimizers.SgdRule, "_direction"),
    "normalisation": (Pixels, "normalised"),
    "a crop": (augment, "pad_crop"),
    "mixup": (augment, "mixup"),
    "evaluation": (evaluation, "in_top"),
}


@pytest.mark.parametrize("place", PLACES)
def test_one_item_anywhere_in_an_epoch_is_noticed(place, monkeypatch):
    owner, name = PLACES[place]
    before = getattr(owner, name)

    def waits(*arguments):
        result = before(*arguments)
        result.sum().item()
        return result

    monkeypatch.setattr(owner, name, waits)
    monkeypatch.setattr(choose, "pays", lambda *_: "stack" in place)
    config = BASE.override({"augment": {"crop": 1, "mixup": 0.2}})
    with pytest.raises(Waited, match="reads values"):
        trained(config, config.override({"optimizer.lr": 0.01}), fuse=True)
