"""Runs: a bundle of them → a stream of events, whatever it is that trains them.

Knows nothing of who asked or who listens. Needs no torch: the built-in training is imported where a run asks for it, so that
training of the user's own waits only for what it imports itself.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import struct
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate.errors import AblateError
from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task, in_one_line
from ablate.training import checkpoint

if TYPE_CHECKING:
    import torch

Steps = Generator["Progress | Result", None, None]
Stamp = tuple[str, int, int, float]
"""Of an event: run, attempt, seq, time."""


@dataclass(frozen=True)
class Progress:
    """facts where training begins, metrics where an epoch ends."""

    epoch: int
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """The end of a run; fields as in `Finished`."""

    diverged: bool
    epoch: int
    metrics: Mapping[str, float]
    files: Mapping[str, bytes]
    facts: Mapping[str, Any]
    model: str | None = None


def train(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Train the runs of a bundle: together where their tasks say so, one after another otherwise.

    A task's payload: `config` (the tree of a RunConfig or FreeConfig), `seed`, `train` (None, or the user's own training
    as `package.module:function`), `device`, `threads`; `data`, the fingerprint of what a RunConfig's data are to be, where that
    matters; `fuse`, true where the runs of a bundle are to share what they can (see `fused`); where runs are to go on after a
    crash, `checkpoints` (a folder) and `checkpoint_every` (seconds); and, for networks that are to be kept, `models` (a folder)
    and `metric` (the study's). What `yield` gives back is the set of runs to break off, or None.
    """
    if all(task.payload.get("fuse") for task in bundle.tasks) and (
        len(bundle.tasks) > 1 or _is_last_of_company(bundle.tasks[0])
    ):
        from ablate.training import fused

        return (yield from fused.train_bundle(bundle))
    return (yield from one_by_one(bundle))


def events_of(task: Task) -> Iterator[Event]:
    """All events of a single task, for those who want no executor."""
    yield from train(Bundle((task,)))


def one_by_one(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Train the runs of a bundle one after another, each as if there were no other."""
    cancelled: frozenset[str] = frozenset()
    for task in bundle.tasks:
        if task.run in cancelled:
            yield Failed(task.run, task.attempt, 0, time.time(), "cancelled", "cancelled")
            continue
        stamped = _stamp(task)
        try:
            event = next(stamped, None)
            while event is not None:
                cancelled |= (yield event) or frozenset()
                if task.run in cancelled and not isinstance(event, Finished | Failed):
                    yield Failed(task.run, task.attempt, event.seq + 1, time.time(), "cancelled", "cancelled")
                    break
                event = next(stamped, None)
        finally:
            stamped.close()
    return None


def _stamp(task: Task) -> Generator[Event, None, None]:
    """Events of one task, numbered and timed; an exception becomes the last of them."""
    seq = 0

    def mark() -> Stamp:
        nonlocal seq
        seq += 1
        return task.run, task.attempt, seq - 1, time.time()

    payload = task.payload
    folder = checkpoints(task)
    try:
        if folder is not None:
            # What it was in company is no beginning for it alone.
            checkpoint.remove_together(folder, [task.run])
        if payload["train"] is None:
            from ablate.training import train as built_in

            steps = built_in.steps(task)
        else:
            from ablate.training import free

            steps = free.steps(payload)
        for step in steps:
            if isinstance(step, Result):
                _forget(folder, task)
            yield event_of(step, mark())
    except (Exception, SystemExit) as error:  # noqa: BLE001 — a failed attempt, not a dead worker
        ended = failure(error, task, mark())
        _forget(folder, task)
        yield ended


def event_of(step: Progress | Result, stamp: Stamp) -> Event:
    """What a step of training is told as."""
    if isinstance(step, Result):
        outcome: Literal["finished", "diverged"] = "diverged" if step.diverged else "finished"
        return Finished(*stamp, outcome, step.epoch, step.metrics, step.files, step.facts, step.model)
    if step.epoch == 0:
        return Started(*stamp, step.facts)
    return EpochEnd(*stamp, step.epoch, step.metrics)


def failure(error: BaseException, task: Task, stamp: Stamp) -> Failed:
    """The end of an attempt in which `error` was raised. Asked where it is handled."""
    if isinstance(error, AblateError):
        where = f"{error.place}: " if error.place else ""
        return Failed(*stamp, "error", f"{where}{error.message}", str(error))
    reason, detail = in_one_line(error), traceback.format_exc()
    if is_out_of_memory(error):
        # The traceback holds every tensor of the step.
        error.__traceback__ = None
        return Failed(*stamp, "memory", _advice(task.payload), detail)
    return Failed(*stamp, "error", reason, detail)


def has_checkpoint(task: Task) -> bool:
    """Whether a run was broken off in the middle, and goes on from there."""
    folder = checkpoints(task)
    return folder is not None and checkpoint.place(folder, task.run).exists()


def checkpoints(task: Task) -> Path | None:
    """The folder of checkpoints; None where nothing is saved."""
    return Path(task.payload["checkpoints"]) if task.payload.get("checkpoints") else None


def _is_last_of_company(task: Task) -> bool:
    """Whether the run trained together with others that are all done, and was broken off."""
    folder = checkpoints(task)
    return folder is not None and checkpoint.saved_together(folder, [task.run]) is not None


def _forget(folder: Path | None, task: Task) -> None:
    """What is done, or would only fail again, goes on from nowhere. What was broken off from outside keeps its checkpoint."""
    if folder is not None:
        checkpoint.remove(folder, task.run)


_NO_MEMORY = (
    "can't allocate memory",  # torch's allocator
    "cannot allocate memory",  # the C library: a file that cannot be mapped, a library that cannot be loaded
    "bad_alloc",
    "could not create a primitive",  # oneDNN, which does not say why it could not
    "could not execute a primitive",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine, had less memory than was asked of it."""
    torch = sys.modules.get("torch")  # who has none of it has none of its errors
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError | OSError | ImportError) and any(
        text in said for text in _NO_MEMORY
    )


def _advice(payload: Mapping[str, Any]) -> str:
    if payload["train"] is not None:
        return "out of memory"
    from ablate.training import train as built_in

    return built_in.advice(payload)


class Trace:
    """Digest of full-precision values: what two runs share only if they were the same run. Without a loss there is none."""

    def __init__(self) -> None:
        # A chain of digests rather than one that is fed: 32 bytes are all there is to keep.
        self.link = b""

    def add(self, *values: float) -> None:
        self.link = hashlib.sha256(self.link + struct.pack(f"<{len(values)}d", *values)).digest()

    def facts(self) -> dict[str, str]:
        return {"trace": self.link.hex()[:16]} if self.link else {}


def machine(device: torch.device | str) -> dict[str, Any]:
    """What runs were trained on, for the record."""
    kind, name = str(device).partition(":")[0], platform.processor() or platform.machine()
    if kind == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    loaded = sys.modules.get("torch")
    version: str = loaded.__version__ if loaded else importlib.metadata.version("torch")
    return {
        "device": f"{kind}: {name}",
        "torch": version.partition("+")[0],
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
    }
