"""Runs bundles in this process, an event at a time: for tests, debuggers and machines where processes are forbidden."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from types import TracebackType
from typing import Self

from ablate.events import Bundle, Event, Training, is_last
from ablate.executors import Slot, stream


class InlineExecutor:
    """One slot. `wait` is where the work is done: it advances the bundle to its next event."""

    def __init__(self, training: Training, slot: Slot | None = None) -> None:
        self._training = training
        self.slots = (slot or Slot("inline"),)
        self._open: set[str] = set()
        self._events: Generator[Event, None, None] | None = None
        self._cancelled: set[str] = set()

    def warm_up(self) -> None:
        """All of it happens in `wait`."""

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        assert slot in self.slots, f"{slot} is not a slot of this executor"
        assert not self._open, "the slot is taken"
        self._open = set(bundle.runs)
        self._cancelled = set()
        self._events = stream.events(self._training, bundle, lambda: frozenset(self._cancelled))

    def cancel(self, run: str) -> None:
        if run in self._open:
            self._cancelled.add(run)

    def wait(self, timeout: float | None = None) -> list[Event]:  # noqa: ARG002 — there is nothing to wait for
        if self._events is None:
            return []
        # The program's results go to stdout; what a training prints is not one of them.
        with contextlib.redirect_stdout(sys.stderr):
            event = next(self._events)
            if is_last(event):
                self._open.remove(event.run)
            if not self._open:
                self._end()
        return [event]

    def _end(self) -> None:
        if self._events is not None:
            self._events.close()
        self._events, self._open = None, set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
