"""How long a run will take, by training a little of it."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.config import RunConfig
from ablate.errors import TrainingError
from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task
from ablate.training import runs
from ablate.training.payload import RunPayload

Clock = Callable[[], float]

BACKWARD = 2.0
"""A backward pass costs about two forward ones, so an image evaluated costs a third of one trained on."""

ENOUGH = 1.0
"""Seconds of measured epochs after which measuring longer would tell little more."""

EPOCHS = 6
"""Most epochs that are measured, the first of them a warm-up."""


@dataclass(frozen=True)
class ProbePayload:
    """A run to measure. config: the tree of a RunConfig. images: of the whole run, (train, validation, test)."""

    config: Mapping[str, Any]
    images: tuple[int, int, int]
    classes: int
    device: str = "cpu"
    threads: int = 1


def measure(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Measure the runs of each task (`run_seconds`), for an executor: Started at once, then Finished with metrics `seconds` and
    facts `parameters` and `flops`.

    The payload of each task is a ProbePayload.
    """
    for task in bundle.tasks:
        yield Started(task.run, task.attempt, 0, time.time())
        payload: ProbePayload = task.payload
        config = RunConfig.parse(payload.config)
        facts = run_seconds(config, payload.images, payload.classes, payload.device, payload.threads)
        metrics = {"seconds": facts.pop("seconds")}
        yield Finished(task.run, task.attempt, 1, time.time(), metrics=metrics, facts=facts)


def run_seconds(
    config: RunConfig,
    images: tuple[int, int, int],
    classes: int,
    device: str = "cpu",
    threads: int = 1,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Measure what a run of `config` takes on a device: its start, and a few epochs of as much of its own data as it takes.

    images: of the whole run, (train, validation, test). clock: tells the seconds. All epochs are counted: how many
    early stopping saves is known only afterwards. Returns `seconds` of the run, `parameters`, and `flops`, those of
    one image's forward pass. Raises TrainingError where it fails.
    """
    _start(config, device, threads, clock)  # what is imported and compiled at the first run of a process
    start, facts = _start(config, device, threads, clock)
    whole = images[0] + images[1]
    subset = min(whole, max(2 * config.training.batch_size, 20 * classes))
    epoch = _epoch(config, subset, whole, device, threads, clock)
    # Small epochs are mostly overhead: measure longer ones, as far as the data suffice.
    longer = min(whole, int(subset * ENOUGH / 4 / epoch))
    if longer > 1.5 * subset:
        subset = longer
        epoch = _epoch(config, subset, whole, device, threads, clock)
    each = epoch / (subset / whole * (images[0] + images[1] / (1 + BACKWARD)))
    validating = images[1] * config.training.epochs
    seconds = start + each * (images[0] * config.training.epochs + (validating + images[2]) / (1 + BACKWARD))
    return {"seconds": seconds, "parameters": facts.get("parameters"), "flops": facts.get("flops")}


def _start(config: RunConfig, device: str, threads: int, clock: Clock) -> tuple[float, dict[str, Any]]:
    """Return the seconds from a run's beginning to its first step, and the facts of its start."""
    began = clock()
    with contextlib.closing(_events(config, device, threads, clock)) as events:
        event, at = next(events)
    assert isinstance(event, Started)
    return at - began, dict(event.facts)


def _epoch(config: RunConfig, subset: int, whole: int, device: str, threads: int, clock: Clock) -> float:
    """Return the seconds of an epoch of a subset of the run's own images."""
    given = {"training.epochs": EPOCHS, "training.checkpoint": "last", "training.patience": None}
    small = config.override(given if subset == whole else given | {"data.subset": subset})
    marks: list[float] = []
    with contextlib.closing(_events(small, device, threads, clock)) as events:
        for event, at in events:
            if isinstance(event, Started | EpochEnd):
                marks.append(at)
            if len(marks) > 2 and marks[-1] - marks[1] > ENOUGH:
                break
    lengths = [b - a for a, b in itertools.pairwise(marks)]
    # A run that diverges at once has no second epoch.
    return statistics.median(lengths[1:] or lengths)


def _events(config: RunConfig, device: str, threads: int, clock: Clock) -> Generator[tuple[Event, float]]:
    """Yield a run's events, each with the time at which it came."""
    payload = RunPayload(config.tree(), seed=0, device=device, threads=threads)
    training = runs.train(Bundle((Task("probe", 1, payload),)))
    try:
        for event in training:
            if isinstance(event, Failed):
                raise TrainingError(event.reason)
            yield event, clock()
    finally:
        training.close()
