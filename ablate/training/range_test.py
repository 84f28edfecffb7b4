"""The learning-rate range test (Smith, Cyclical Learning Rates, WACV 2017, arXiv 1506.01186): one pass, the rate rising.

No run of a study depends on it, so it is no part of a run's key.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator

import numpy as np
import torch

from ablate.config import RunConfig
from ablate.data import augment, datasets
from ablate.data.datasets import Dataset
from ablate.errors import AblateError
from ablate.events import Bundle, Event, Failed, Finished, Started, in_one_line
from ablate.training.inputs import split_seed
from ablate.training.randomness import generator
from ablate.training.train import Pixels, _learner

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
    learner = _learner(config, data.shape, len(data.classes), device)
    order, draws = generator(config.seed, "order"), generator(config.seed, "augmentation", device)
    size = config.training.batch_size
    given = rates(low, high, passes * math.ceil(len(training) / size))
    found: list[float] = []
    for chosen, rate in zip(_batches(len(training), size, passes, order), given, strict=True):
        images, labels = training.batch(chosen)
        images = training.floats(augment.augment(images, config.augment, draws))
        total, _ = learner.step(images, labels, rate)
        loss = float(total) / len(labels)
        if not math.isfinite(loss):
            break
        found.append(loss)
        if loss > HOPELESS * math.log(len(data.classes)):
            break
    return given, found


def _batches(n: int, size: int, passes: int, order: torch.Generator) -> Iterator[torch.Tensor]:
    for _ in range(passes):
        yield from torch.split(torch.randperm(n, generator=order), size)


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
