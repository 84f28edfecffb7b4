"""What training yields and executors carry: bundles of runs go out, events come back.

Neither side knows the other. An executor sees opaque payloads and these few dataclasses; training sees a bundle and
yields events. Every event names its run, the attempt, and its place in that attempt's sequence, so that a stream that
was torn by a crash can never be mistaken for a whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LONGEST_REASON = 400


@dataclass(frozen=True)
class Task:
    """One run to train: its name (the key of its config), which attempt this is, and what training needs to know."""

    run: str
    attempt: int
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """Runs that share a slot, the data and the augmentation draws; often just one."""

    tasks: tuple[Task, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(task.run for task in self.tasks)


@dataclass(frozen=True)
class Event:
    """run: key of the run. attempt: 1, 2, … seq: 0, 1, … within the attempt. time: seconds since the epoch, UTC."""

    run: str
    attempt: int
    seq: int
    time: float


@dataclass(frozen=True)
class Started(Event):
    """Training has begun. facts: what is known before the first step (device, versions, parameter count, …)."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochEnd(Event):
    """Metrics of one epoch. epoch: 1 … E."""

    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished(Event):
    """The run is done, `diverged` counting as done.

    epoch: the epoch at which the metrics are to be read (0 where none ended). metrics: what is known only at the end.
    files: name → content, kept as artifacts. facts: digest of the weights and the like. model: a file with the network's weights,
    for the tracker to take and remove; None where none is to be kept.
    """

    outcome: Literal["finished", "diverged"] = "finished"
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None


@dataclass(frozen=True)
class Failed(Event):
    """The attempt ended without a result.

    kind: `error` (training raised), `memory` (its device had too little), `crash` (the process died), `cancelled`,
    `timeout`, `pruned` (a search broke it off, which is no failure). reason: one line.
    detail: the traceback, where there is one.
    """

    kind: Literal["error", "memory", "crash", "cancelled", "timeout", "pruned"] = "error"
    reason: str = ""
    detail: str = ""


Training = Callable[[Bundle], Generator[Event, frozenset[str] | None, None]]
"""A generator function that trains a bundle. What `yield` gives back is the set of runs cancelled meanwhile, or None."""


def is_last(event: Event) -> bool:
    """No event of the same run and attempt follows this one."""
    return isinstance(event, Finished | Failed)


def in_one_line(error: BaseException) -> str:
    """An exception as the reason of a Failed: its kind and the first line of what it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
