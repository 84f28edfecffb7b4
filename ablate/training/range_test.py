"""The learning-rate range test (Smith, Cyclical Learning Rates, WACV 2017, arXiv 1506.01186): one pass, the rate rising.

No run of a study depends on it, so it is no part of a run's key.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.data.datasets import Dataset
from ablate.errors import AblateError
from ablate.events import Bundle, Event, Failed, Finished, Started, in_one_line
from ablate.training.inputs import split_seed
from ablate.training.runs import Trace
from ablate.training.train import Learner, Pixels, State, _train_epoch, make_learner, streams

HOPELESS = 10.0
"""A loss so many times that of guessing ends a test: it only rises from there."""


def rates(low: float, high: float, steps: int) -> list[float]:
    """The rate of every step, from low to high in equal ratios."""
    if steps == 1:
        return [low]
    return [float(rate) for rate in np.geomspace(low, high, steps)]


def losses(
    config: RunConfig,
    data: Dataset,
    low: float,
    high: float,
    *,
    passes: int = 1,
    device: torch.device | str = "cpu",
) -> tuple[list[float], list[float]]:
    """Train `config` under its own seed with a rising rate → the rates, and the mean loss of each step's batch before its
    update, finite. The test ends early where the loss is infinite or hopeless: there are fewer losses than rates then.

    low, high: the rates of the first and the last step. passes: over the training split.
    """
    device = torch.device("cpu" if config.model.name == "numpy_mlp" else device)
    index, _ = datasets.split(data.train_labels, config.data, split_seed(config))
    mean, std = (
        datasets.normalization(data.train_images, index)
        if config.data.normalize
        else (np.zeros(data.shape[0]), np.ones(data.shape[0]))
    )
    training = Pixels(data.train_images, data.train_labels, index, mean, std, device)
    classes = len(data.classes)
    watched = _Watched(make_learner(config, data.shape, classes, device), HOPELESS * math.log(classes))
    state = State(streams(config.seed, device), Trace())
    given = rates(low, high, passes * math.ceil(len(training) / config.training.batch_size))
    with contextlib.suppress(_HopelessError):
        for _ in range(passes):
            _train_epoch(config, state, cast("Learner", watched), training, classes, given.__getitem__)
    return given, watched.losses


class _HopelessError(Exception):
    """Nothing more is to be learned."""


class _Watched:
    """A learner whose losses are kept, and that ends the test by an exception; nothing but its steps is asked for."""

    def __init__(self, learner: Learner, hopeless: float) -> None:
        self.losses: list[float] = []
        self._learner, self._hopeless = learner, hopeless

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        total, hits = self._learner.step(images, targets, lr)
        loss = float(total) / len(targets)
        if not math.isfinite(loss):
            raise _HopelessError
        self.losses.append(loss)
        if loss > self._hopeless:
            raise _HopelessError
        return total, hits


def run(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """`losses` of each task, to be run by an executor: Started, then Finished with facts `rates` and `losses`.

    A task's payload: `config` (the tree of a RunConfig), `seed`, `low`, `high`, `passes`, `device`, `threads`.
    """
    for task in bundle.tasks:
        yield Started(task.run, task.attempt, 0, time.time())
        given = task.payload
        try:
            torch.set_num_threads(int(given["threads"]))
            config = RunConfig.parse(given["config"]).with_seed(given["seed"])
            data = datasets.prepare(config.data)
            at, seen = losses(
                config,
                data,
                given["low"],
                given["high"],
                passes=given["passes"],
                device=given["device"],
            )
        except AblateError as error:
            yield Failed(task.run, task.attempt, 1, time.time(), "error", error.message, str(error))
        except Exception as error:  # noqa: BLE001 — a failed attempt, not a dead worker
            yield Failed(task.run, task.attempt, 1, time.time(), "error", in_one_line(error))
        else:
            yield Finished(task.run, task.attempt, 1, time.time(), facts={"rates": at, "losses": seen})
