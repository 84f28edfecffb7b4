"""A bundle of runs → a stream of events: each run goes to the trainer of its kind, and its messages become events.

Needs no torch: the built-in training is imported where a run needs it, so that the user's own training waits only for what it
imports itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator
from typing import Literal

from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task
from ablate.training import Trainer, trainer_wanted
from ablate.training.outcome import Epoch, Failure, Message, Result
from ablate.training.payload import NO_FOLDERS, Folders


def train(bundle: Bundle, folders: Folders = NO_FOLDERS) -> Generator[Event, frozenset[str] | None, None]:
    """Train the runs of a bundle. The payload of each task is a RunPayload.

    What `yield` gives back is the set of runs to break off, or None.
    """
    stamps = {task.run: _Stamp(task) for task in bundle.tasks}
    cancelled = _Cancelled(bundle.cancelled)
    tasks_of: dict[Trainer, list[Task]] = {}
    for task in bundle.tasks:
        tasks_of.setdefault(trainer_wanted(task.payload.source), []).append(task)
    for trainer, tasks in tasks_of.items():
        for run, message in trainer.steps(tasks, folders, cancelled):
            cancelled.add((yield stamps[run].event(message)) or frozenset())


def events_of(task: Task, folders: Folders = NO_FOLDERS) -> Iterator[Event]:
    """Yield all events of a single task, without an executor."""
    yield from train(Bundle((task,)), folders)


class _Cancelled(Collection[str]):
    """The runs to break off: those that `yield` gave back, and what the executor knows at the moment."""

    def __init__(self, asked: Callable[[], Collection[str]]) -> None:
        self._asked = asked
        self._told: frozenset[str] = frozenset()

    def add(self, runs: frozenset[str]) -> None:
        self._told |= runs

    def _all(self) -> frozenset[str]:
        return self._told | frozenset(self._asked())

    def __contains__(self, run: object) -> bool:
        return run in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class _Stamp:
    """Numbers and times the events of an attempt."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._next = 0

    def event(self, message: Message) -> Event:
        stamp = (self._task.run, self._task.attempt, self._next, time.time())
        self._next += 1
        if isinstance(message, Failure):
            return Failed(
                *stamp,
                message.kind,
                message.reason,
                message.detail,
                message.place,
                message.files,
                message.spent,
            )
        if isinstance(message, Result):
            outcome: Literal["finished", "diverged"] = "diverged" if message.diverged else "finished"
            return Finished(
                *stamp,
                outcome,
                message.epoch,
                message.metrics,
                message.files,
                message.facts,
                message.model,
                message.spent,
            )
        if isinstance(message, Epoch):
            return EpochEnd(*stamp, message.number, message.metrics)
        return Started(*stamp, message.facts)
