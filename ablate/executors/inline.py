"""Runs bundles in this process, an event at a time: for tests, debuggers and machines where processes are forbidden."""

from __future__ import annotations

import time
from collections.abc import Generator
from types import TracebackType
from typing import Self

from ablate.events import Bundle, Event, Failed, Training, is_last
from ablate.executors import Slot


class InlineExecutor:
    """One slot. `wait` is where the work is done: it advances the bundle to its next event."""

    def __init__(self, training: Training, slot: Slot | None = None) -> None:
        self._training = training
        self.slots = (slot or Slot("inline"),)
        self._bundle: Bundle | None = None
        self._steps: Generator[Event, frozenset[str] | None, None] | None = None
        self._next_seq: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._primed = False

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        assert slot in self.slots, f"{slot} is not a slot of this executor"
        assert self._bundle is None, "the slot is taken"
        self._bundle = bundle
        self._steps = self._training(bundle)
        self._next_seq = {task.run: 0 for task in bundle.tasks}
        self._cancelled = set()
        self._primed = False

    def cancel(self, run: str) -> None:
        if run in self._next_seq:
            self._cancelled.add(run)

    def wait(self, timeout: float | None = None) -> list[Event]:  # noqa: ARG002 — there is nothing to wait for
        if self._steps is None or self._bundle is None:
            return []
        try:
            event = self._steps.send(frozenset(self._cancelled)) if self._primed else next(self._steps)
            self._primed = True
        except StopIteration:
            return self._end("training ended without a result")
        except Exception as error:  # noqa: BLE001 — whatever training raises is a failed attempt
            return self._end(f"{type(error).__name__}: {error}")
        if is_last(event):
            self._next_seq.pop(event.run, None)
            if not self._next_seq:
                self._steps.close()
                self._bundle = self._steps = None
        elif event.run in self._next_seq:
            self._next_seq[event.run] = event.seq + 1
        return [event]

    def _end(self, reason: str) -> list[Event]:
        """The bundle is over: what had no last event has failed."""
        assert self._bundle is not None
        attempts = {task.run: task.attempt for task in self._bundle.tasks}
        lost: list[Event] = [
            Failed(run, attempts[run], seq, time.time(), "error", reason)
            for run, seq in self._next_seq.items()
        ]
        self._bundle = self._steps = None
        self._next_seq = {}
        return lost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._steps is not None:
            self._steps.close()
        self._bundle = self._steps = None
