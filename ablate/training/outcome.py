"""What training yields, whatever its kind: the start of a run, its epochs, and its result or failure.

Needs no torch: training of the user's own waits only for what it imports itself.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import struct
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablate.code_digest import is_users
from ablate.errors import AblateError, TrainingError
from ablate.events import in_one_line
from ablate.text import format_short_duration, format_value

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Start:
    """Training begins. facts: as in `Started`."""

    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended. number: 1 … E."""

    number: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """The end of a run that finished or diverged; fields as in `Finished`."""

    diverged: bool
    epoch: int
    metrics: Mapping[str, float]
    files: Mapping[str, bytes]
    facts: Mapping[str, Any]
    model: str | None = None
    spent: bool = False


@dataclass(frozen=True)
class Failure:
    """The end of an attempt without a result; fields as in `Failed`."""

    kind: Literal["error", "metrics", "memory", "crash", "cancelled", "timeout", "code"]
    reason: str
    detail: str = ""
    place: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    spent: bool = False


class MetricsError(TrainingError):
    """Training yielded something that is no metric. Trying again would change nothing."""


Message = Start | Epoch | Result | Failure

Steps = Iterator[tuple[str, Message]]
"""Messages of the runs of a bundle, each with the key of its run."""

CANCELLED = Failure("cancelled", "cancelled")


def is_end(message: Message) -> bool:
    """Return whether no message of the same run follows."""
    return isinstance(message, Result | Failure)


def shown(message: Message) -> Iterator[str]:
    """Yield the lines that show a message to people who try a training out."""
    match message:
        case Epoch():
            values = ", ".join(f"{name} {format_value(value)}" for name, value in message.metrics.items())
            yield f"epoch {message.number}: {values}"
        case Result():
            seconds = message.metrics.get("time/train_seconds")
            how = f"diverged: {message.facts.get('reason', '')}" if message.diverged else "finished"
            yield how + ("" if seconds is None else f" after {format_short_duration(seconds)}")
            if not message.diverged and "reason" in message.facts:
                yield f"it {message.facts['reason']}"
            for name, value in message.metrics.items():
                if not name.startswith(("time/", "model/")):
                    yield f"{name}: {format_value(value)}"
        case Failure():
            yield f"failed: {message.reason}"


def failure(
    error: BaseException, advice: Callable[[], str] = lambda: "out of memory", place: str = ""
) -> Failure:
    """Return the end of an attempt in which `error` was raised. Called where the error is handled.

    advice: makes the reason where memory ran out. It is called once the tensors of the attempt are free. place: as in `Failed`; '':
    that in which the error was raised.
    """
    place = place or place_of(error)
    if isinstance(error, AblateError):
        where = f"{error.place}: " if error.place else ""
        kind: Literal["error", "metrics"] = "metrics" if isinstance(error, MetricsError) else "error"
        shown = f" ({place})" if place and place not in where else ""
        return Failure(kind, f"{where}{error.message}{shown}", str(error), place)
    reason, detail = in_one_line(error), traceback.format_exc()
    if is_out_of_memory(error):
        # The traceback holds every tensor of the step.
        error.__traceback__ = None
        return Failure("memory", advice(), detail, place)
    return Failure("error", f"{reason} ({place})" if place else reason, detail, place)


def place_of(error: BaseException) -> str:
    """Return the file and line of the user's code in which an error was raised, `fit.py:12`; '' where none of it is the user's."""
    if isinstance(error, SyntaxError) and error.filename and is_users(error.filename):
        return f"{short_path(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return f"{short_path(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def short_path(file: str) -> str:
    """Return the path of a file, relative to the working folder where it is in it."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path(file).resolve().relative_to(Path.cwd().resolve()))
    return file


_NO_MEMORY = (
    "can't allocate memory",  # torch's allocator
    "cannot allocate memory",  # the C library: a file that cannot be mapped, a library that cannot be loaded
    "bad_alloc",
    "could not create a primitive",  # oneDNN, which does not say why it could not
    "could not execute a primitive",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device, or the machine, had less memory than was asked of it."""
    torch = sys.modules.get("torch")  # a process without torch has none of its errors
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError | OSError | ImportError) and any(
        text in message for text in _NO_MEMORY
    )


def says_out_of_memory(output: str) -> bool:
    """Return whether the last lines of a program that failed say that it ran out of memory."""
    text = output.lower()
    return any(words in text for words in (*_NO_MEMORY, "out of memory", "outofmemoryerror", "memoryerror"))


class Trace:
    """Digest of full-precision values: two runs share it only if they are the same run. Without a loss there is none."""

    def __init__(self) -> None:
        # A chain of digests rather than one that is fed: 32 bytes are all there is to save.
        self.link = b""

    def add(self, *values: float) -> None:
        self.link = hashlib.sha256(self.link + struct.pack(f"<{len(values)}d", *values)).digest()

    def facts(self) -> dict[str, str]:
        return {"trace": self.link.hex()[:16]} if self.link else {}


DIGITS_OF_A_COPY = 12
"""Digits of losses, beyond those that seeds share, that two runs have in common only where one is a copy of the other."""

_DIGITS_THAT_SEEDS_SHARE = 2
"""First digits of a loss that are often the same under two seeds. A loss of four digits counts for two."""


def digits_that_seeds_do_not_share(loss: float, digits: int | None = None) -> int:
    """Return how many digits of a loss no two seeds share by chance. digits: it was written with; None: all that the number has."""
    if not math.isfinite(loss):
        return 0
    if digits is None:
        digits = len(repr(abs(loss)).partition("e")[0].replace(".", "").strip("0"))
    return max(0, digits - _DIGITS_THAT_SEEDS_SHARE)


def machine(device: torch.device | str) -> dict[str, Any]:
    """Return what a run is trained on, for the record: device, versions, host and process."""
    kind, name = str(device).partition(":")[0], platform.processor() or platform.machine()
    loaded = sys.modules.get("torch")
    if kind != "cpu":
        # Code that has not loaded torch has no use for it; Apple's device has no name of its own.
        module = loaded.get_device_module(kind) if loaded else None
        get_name = getattr(module, "get_device_name", None)
        model = _gpu_model() if kind == "cuda" else None
        name = model or str(device)
        if get_name is not None:
            # A process that cannot open the device may still start a command that can.
            with contextlib.suppress(RuntimeError, AssertionError):
                name = get_name(device)
    version: str = loaded.__version__ if loaded else _installed_torch()
    return {
        "device": f"{kind}: {name}",
        "torch": version.partition("+")[0],
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
    }


@functools.cache
def _installed_torch() -> str:
    """Return the version of torch, where it is not loaded: reading it from the package's description takes milliseconds."""
    return importlib.metadata.version("torch")


_DRIVER = Path("/proc/driver/nvidia/gpus")


def _gpu_model() -> str | None:
    """Return the model of this machine's GPUs, as the driver has it on Linux; None where it tells none, or more than one."""
    models = set()
    for file in _DRIVER.glob("*/information"):
        with contextlib.suppress(OSError):
            models |= {
                line.partition(":")[2].strip()
                for line in file.read_text().splitlines()
                if line.startswith("Model:")
            }
    return models.pop() if len(models) == 1 else None
