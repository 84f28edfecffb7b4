"""An executor without processes: every task's payload is a script, and each `wait` plays one step of every run."""

from __future__ import annotations

import time

from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, is_last
from ablate.executors import Slot


class StagedExecutor:
    """Steps of a script: `start`, `fused` (a start in a shared batch), `epoch`, `finish`, `diverge`, `linger` (no event until the
    run is cancelled), `hang` (until the slot is killed), `load` (nothing, for 0.05 s), or the kind of a failure. All events of a step are one batch.
    """

    def __init__(self, slots: int = 1) -> None:
        self.slots = tuple(Slot(f"slot-{i}") for i in range(slots))
        self.submitted: list[tuple[str, tuple[str, ...]]] = []
        self._open: dict[str, tuple[Slot, int, list[str], int]] = {}
        self._cancelled: set[str] = set()
        self._killed: set[str] = set()

    def warm_up(self) -> None:
        pass

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        assert slot in self.slots
        assert all(slot != other for other, *_ in self._open.values()), f"{slot.name} is taken"
        self.submitted.append((slot.name, bundle.runs))
        for task in bundle.tasks:
            self._open[task.run] = (slot, task.attempt, list(task.payload), 0)

    def cancel(self, run: str) -> None:
        self._cancelled.add(run)

    def kill(self, slot: Slot) -> None:
        self._killed.add(slot.name)

    def wait(self, timeout: float | None = None) -> list[Event]:
        events = [event for run in list(self._open) if (event := self._step(run)) is not None]
        if not events and self._open:
            time.sleep(min(0.01, timeout or 0.01))
        return events

    def _step(self, run: str) -> Event | None:
        slot, attempt, script, seq = self._open[run]
        stamp = (run, attempt, seq, time.time())
        while script[0] == "load":
            time.sleep(0.05)
            script.pop(0)
        if slot.name in self._killed:
            event: Event = Failed(*stamp, "crash", "killed")
        elif script[0] == "hang":
            return None
        elif run in self._cancelled:
            event = Failed(*stamp, "cancelled", "cancelled")
        elif script[0] == "linger":
            return None
        else:
            event = _event(script.pop(0), stamp)
        if is_last(event):
            del self._open[run]
            self._cancelled.discard(run)
            if all(slot != other for other, *_ in self._open.values()):
                self._killed.discard(slot.name)
        else:
            self._open[run] = (slot, attempt, script, seq + 1)
        return event

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._open = {}


def _event(step: str, stamp) -> Event:
    match step:
        case "start":
            return Started(*stamp)
        case "fused":
            return Started(*stamp, {"fused": "stacked 2"})
        case "epoch":
            return EpochEnd(*stamp, stamp[2], {"val/accuracy": stamp[2] / 10})
        case "finish":
            return Finished(*stamp, "finished", stamp[2] - 1)
        case "diverge":
            return Finished(*stamp, "diverged", stamp[2] - 1)
    return Failed(*stamp, step, "as the script says")
