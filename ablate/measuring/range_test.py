"""The learning-rate range test (Smith, Cyclical Learning Rates, WACV 2017, arXiv 1506.01186): one pass, the rate rising.

No run of a study depends on it, so it is no part of a run's key. torch is imported where the test runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.data.datasets import Dataset
from ablate.errors import AblateError
from ablate.events import Bundle, Event, Failed, Finished, Started, in_one_line

if TYPE_CHECKING:
    import torch

HOPELESS = 10.0
"""A loss this many times that of guessing ends a test: it only rises from there."""


@dataclass(frozen=True)
class RangePayload:
    """A range test to run. config: the tree of a RunConfig. low, high: the rates of the first and the last step. passes: over the
    training split.
    """

    config: dict[str, Any]
    seed: int
    low: float
    high: float
    passes: int = 1
    device: str = "cpu"
    threads: int = 1


def rates(low: float, high: float, steps: int) -> list[float]:
    """Return the rate of every step, from low to high in equal ratios."""
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
    import torch

    from ablate.training.builtin.batches import Splits, augmented_batches
    from ablate.training.builtin.learner import device_of, make_learner
    from ablate.training.builtin.randomness import batch_streams

    device = device_of(config, str(device))
    training = Splits(config, data, device).training
    classes = len(data.classes)
    learner = make_learner(config, data.shape, classes, device)
    streams = batch_streams(config.seed, device)
    rising = rates(low, high, passes * math.ceil(len(training) / config.training.batch_size))
    curve: list[float] = []
    for _ in range(passes):
        order = torch.randperm(len(training), generator=streams["order"])
        for images, targets, _ in augmented_batches(config, streams, training, order, classes):
            total, _ = learner.step(images, targets, rising[len(curve)])
            loss = float(total) / len(targets)
            if not math.isfinite(loss):
                return rising, curve
            curve.append(loss)
            if loss > HOPELESS * math.log(classes):
                return rising, curve
    return rising, curve


def run(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Do the range test of each task, for an executor: Started, then Finished with facts `rates` and `losses`.

    The payload of each task is a RangePayload.
    """
    import torch

    for task in bundle.tasks:
        yield Started(task.run, task.attempt, 0, time.time())
        payload: RangePayload = task.payload
        try:
            torch.set_num_threads(payload.threads)
            config = RunConfig.parse(payload.config).with_seed(payload.seed)
            rising, curve = losses(
                config,
                datasets.prepare(config.data),
                payload.low,
                payload.high,
                passes=payload.passes,
                device=payload.device,
            )
        except AblateError as error:
            yield Failed(task.run, task.attempt, 1, time.time(), "error", error.message, str(error))
        except Exception as error:  # noqa: BLE001 — a failed attempt, not a dead worker
            yield Failed(task.run, task.attempt, 1, time.time(), "error", in_one_line(error))
        else:
            facts = {"rates": rising, "losses": curve}
            yield Finished(task.run, task.attempt, 1, time.time(), facts=facts)
