"""What executors pass on: bundles of runs to the training, and events back from it.

Executors and training do not know each other: an executor passes on payloads that it does not read, and training takes a
bundle and yields events. Every event has its run, its attempt and its number within the attempt, so that a stream that was
cut off by a crash is never taken for a complete one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

LONGEST_REASON = 400


@dataclass(frozen=True)
class Task:
    """One run to train. run: the key of its config. attempt: 1, 2, … payload: what training needs to know about it."""

    run: str
    attempt: int
    payload: Any


@dataclass(frozen=True)
class Bundle:
    """Runs that share a slot, the data and the augmentation draws; often only one.

    cancelled: returns the keys of the runs that are to be broken off by now, and may be called at any time; executors set it where
    the bundle is trained.
    """

    tasks: tuple[Task, ...]
    cancelled: Callable[[], Collection[str]] = field(default=frozenset, compare=False, repr=False)

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(task.run for task in self.tasks)


@dataclass(frozen=True)
class Event:
    """An event of a run. run: its key. attempt: 1, 2, … seq: 0, 1, … within the attempt. time: Unix time in seconds."""

    run: str
    attempt: int
    seq: int
    time: float


@dataclass(frozen=True)
class Started(Event):
    """The training has started. facts: what is known before the first step (device, versions, parameter count, …)."""

    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochEnd(Event):
    """Metrics of one epoch. epoch: 1 … E."""

    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished(Event):
    """The run is done; a diverged run is done too.

    epoch: the epoch whose metrics count (0 where none was completed). metrics: those known only at the end. files: name →
    content, kept as artifacts. facts: digest of the weights and the like. model: a file with the network's weights, which the
    tracker stores and removes; None where none is kept. spent: whether the process that trained it should train nothing else.
    """

    outcome: Literal["finished", "diverged"] = "finished"
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    spent: bool = False


@dataclass(frozen=True)
class Failed(Event):
    """The attempt ended without a result.

    kind: `error` (training raised an exception), `metrics` (it yielded what is no metric, or not the study's), `memory` (its device ran out of memory), `crash` (the process died),
    `cancelled`, `timeout`, `pruned` (a search stopped it early, which is no failure), `code` (the user's code is not what was
    planned any more). reason: one line. detail: the traceback, where there is one. place: file and line of the user's code that
    failed, '' where that is not known. files, spent: as in `Finished`.
    """

    kind: Literal["error", "metrics", "memory", "crash", "cancelled", "timeout", "pruned", "code"] = "error"
    reason: str = ""
    detail: str = ""
    place: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    spent: bool = False


Training = Callable[[Bundle], Generator[Event, frozenset[str] | None, None]]
"""A generator function that trains a bundle. Each `yield` returns the runs cancelled since the last one, or None."""


def is_last(event: Event) -> bool:
    """Return whether this is the last event of its run and attempt."""
    return isinstance(event, Finished | Failed)


def in_one_line(error: BaseException) -> str:
    """Return the reason of a Failed: the exception's class and the first line of its message."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
