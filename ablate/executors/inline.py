"""Runs bundles in this process, an event at a time: for tests, debuggers and machines where processes are forbidden."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Self

from ablate.events import Bundle, Event, Failed, Training, is_last
from ablate.executors import Slot, Wanted, stream


def create(
    training: Training,
    wanted: Wanted,
    slots: Callable[[], tuple[Slot, ...]],  # noqa: ARG001 — this process is the only slot
    preload: tuple[str, ...],  # noqa: ARG001 — there is no other process to load anything
) -> InlineExecutor:
    """Return the executor of `--executor inline`. Where devices are `auto`, it trains on the CPU."""
    return InlineExecutor(training, Slot("inline", "cpu" if wanted.devices == "auto" else wanted.devices))


def check(wanted: Wanted, slots: Callable[[], tuple[Slot, ...]]) -> None:
    """Refuse nothing, as `create` does."""


class InlineExecutor:
    """One slot. `wait` is where the work is done: it advances the bundle to its next event.

    `kill` cannot end a training that hangs, because nobody else is there to call it. It closes the training between two of
    its events, and the next `wait` returns its runs as crashed.
    """

    def __init__(self, training: Training, slot: Slot | None = None) -> None:
        self._training = training
        self.slots = (slot or Slot("inline"),)
        self._attempts: dict[str, int] = {}
        # Runs without a last event yet → the number of their next one.
        self._next_seq: dict[str, int] = {}
        self._events: Generator[Event, None, None] | None = None
        self._cancelled: set[str] = set()
        self._killed = False

    def warm_up(self) -> None:
        """Everything happens in `wait`."""

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        assert slot in self.slots, f"{slot} is not a slot of this executor"
        assert not self._next_seq, "the slot is taken"
        self._attempts = {task.run: task.attempt for task in bundle.tasks}
        self._next_seq = dict.fromkeys(self._attempts, 0)
        self._cancelled, self._killed = set(), False
        self._events = stream.events(self._training, bundle, lambda: frozenset(self._cancelled))

    def cancel(self, run: str) -> None:
        if run in self._next_seq:
            self._cancelled.add(run)

    def kill(self, slot: Slot) -> None:
        assert slot in self.slots, f"{slot} is not a slot of this executor"
        self._killed = bool(self._next_seq)

    def wait(self, timeout: float | None = None) -> list[Event]:  # noqa: ARG002 — there is nothing to wait for
        if self._events is None:
            return []
        # The program's results go to stdout; what a training prints is not one of them.
        with contextlib.redirect_stdout(sys.stderr):
            if self._killed:
                killed: list[Event] = [
                    Failed(run, self._attempts[run], seq, time.time(), "crash", "the training was killed")
                    for run, seq in self._next_seq.items()
                ]
                self._end()
                return killed
            event = next(self._events)
            if is_last(event):
                del self._next_seq[event.run]
            else:
                self._next_seq[event.run] = event.seq + 1
            if not self._next_seq:
                self._end()
        return [event]

    def _end(self) -> None:
        if self._events is not None:
            self._events.close()
        self._events, self._next_seq, self._killed = None, {}, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
