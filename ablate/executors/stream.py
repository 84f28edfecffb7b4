"""Checks that a training keeps the contract of its events, in whatever process it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import time
import traceback
from collections.abc import Callable, Generator
from typing import Any

from ablate.events import Bundle, Event, Failed, Training, in_one_line, is_last


def events(
    training: Training, bundle: Bundle, cancelled: Callable[[], frozenset[str]]
) -> Generator[Event, None, None]:
    """Yield what a training yields on a bundle, and a Failed for every run that it leaves without a last event.

    cancelled: called before each step, and by the training whenever it wants to know; returns the runs that were cancelled meanwhile. An event that breaks the contract (of
    no run of the bundle, after the run's last, out of sequence) ends the training. An exception that is thrown in at a `yield`
    (the event could not be passed on) counts as raised by the training.
    """
    attempts = {task.run: task.attempt for task in bundle.tasks}
    next_seq = dict.fromkeys(attempts, 0)
    reason, detail = "training ended without a result", ""
    steps: Any = None
    try:
        steps = training(dataclasses.replace(bundle, cancelled=cancelled))
        event = next(steps)
        while True:
            _check(event, attempts, next_seq)
            yield event
            if is_last(event):
                del next_seq[event.run]
            else:
                next_seq[event.run] += 1
            if not next_seq:
                return
            event = steps.send(cancelled())
    except StopIteration:
        pass
    except (Exception, SystemExit) as error:  # noqa: BLE001 — whatever training raises is a failed attempt
        reason, detail = in_one_line(error), traceback.format_exc()
    finally:
        # A training may fail while it cleans up; that changes no result.
        with contextlib.suppress(Exception):
            steps.close()
    for run, seq in next_seq.items():
        yield Failed(run, attempts[run], seq, time.time(), "error", reason, detail)


def _check(event: Any, attempts: dict[str, int], next_seq: dict[str, int]) -> None:
    if not isinstance(event, Event):
        raise TypeError(f"training yielded {type(event).__name__} where an event belongs")
    if event.run not in next_seq:
        known = "after its last" if event.run in attempts else "which is not in the bundle"
        raise ValueError(f"training yielded an event of the run {event.run!r} {known}")
    due = (attempts[event.run], next_seq[event.run])
    if (event.attempt, event.seq) != due:
        raise ValueError(
            f"training yielded event {event.seq} of attempt {event.attempt} of the run {event.run!r}, "
            f"where event {due[1]} of attempt {due[0]} was due"
        )
