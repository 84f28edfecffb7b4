"""A training that does what its payload says, step by step; workers import it by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task
from ablate.training.payload import NO_FOLDERS


def task(run: str, *script: str | tuple, attempt: int = 1) -> Task:
    """A run that follows a script; by default it starts, ends two epochs and finishes."""
    return Task(run, attempt, {"script": script or ("start", "epoch", "epoch", "finish")})


def train(bundle: Bundle):
    """The tasks one after another. Cancelled runs are broken off at their next event."""
    cancelled: frozenset[str] = frozenset()
    open_folders = contextlib.ExitStack()
    for one in bundle.tasks:
        seq = epoch = 0
        for step in one.payload["script"]:
            name, *arguments = (step,) if isinstance(step, str) else step
            stamp = (one.run, one.attempt, seq, time.time())
            event: Event | None = None
            match name:
                case "start":
                    event = Started(*stamp, {"pid": os.getpid()})
                case "environment":
                    event = Started(*stamp, {n: os.environ.get(n) for n in arguments})
                case "imports":
                    event = Started(*stamp, {"value": __import__(arguments[0]).VALUE})
                case "state":
                    facts = {
                        "cwd": str(Path.cwd()),
                        "path": list(sys.path),
                        "main": getattr(sys.modules["__main__"], "__file__", None),
                    }
                    event = Started(*stamp, facts)
                case "folder":
                    folder = open_folders.enter_context(NO_FOLDERS.run(one.run))
                    event = Started(*stamp, {"folder": str(folder)})
                case "threads":
                    import torch

                    torch.set_num_threads(1)
                    event = Started(*stamp, {"cuda": torch.cuda.is_initialized()})
                case "loader":
                    event = Started(*stamp, {"sum": _sum_with_a_loader()})
                case "epoch":
                    epoch += 1
                    event = EpochEnd(*stamp, epoch, {"val/accuracy": epoch / 10})
                case "finish":
                    event = Finished(
                        *stamp, "finished", epoch, {"test/accuracy": 0.5}, {"a.bin": b"\0" * 300_000}
                    )
                case "finish spent":
                    event = Finished(*stamp, "finished", epoch, spent=True)
                case "fail spent":
                    event = Failed(*stamp, "error", "it failed", spent=True)
                case "until cancelled":
                    while one.run not in bundle.cancelled():
                        time.sleep(0.005)
                case "diverge":
                    event = Finished(*stamp, "diverged", epoch)
                case "unpicklable":
                    event = Started(*stamp, {"function": lambda: None})
                case "unpicklable finish":
                    event = Finished(*stamp, facts={"function": lambda: None})
                case "unreadable":
                    event = Started(*stamp, {"what": Unreadable()})
                case "nonsense":
                    yield 42  # type: ignore[misc]
                case "foreign":
                    event = EpochEnd("nobody", 1, 0, time.time(), 1, {})
                case "old attempt":
                    event = EpochEnd(one.run, one.attempt - 1, seq, time.time(), 1, {})
                case "gap":
                    event = EpochEnd(one.run, one.attempt, seq + 5, time.time(), 1, {})
                case "raise":
                    raise ValueError("the dog ate it\nand the second line")
                case "exit":
                    raise SystemExit(3)
                case "quit":
                    os._exit(7)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "return":
                    return
                case "print":
                    print("a training prints")
                case "spawn":
                    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
                    event = Started(*stamp, {"pid": os.getpid(), "child": child.pid})
                case "await":
                    while not Path(arguments[0]).exists():
                        time.sleep(0.005)
                case "note":
                    Path(arguments[0]).touch()
            if event is None:
                continue
            seq += 1
            cancelled |= (yield event) or frozenset()
            if one.run in cancelled and not isinstance(event, Finished | Failed):
                yield Failed(one.run, one.attempt, seq, time.time(), "cancelled", "cancelled")
                break


def interleaved(bundle: Bundle):
    """Several runs in step, one epoch of each in turn, as fused training does it."""
    alive = {one.run: one for one in bundle.tasks}
    seqs = dict.fromkeys(alive, 0)
    for epoch in range(4):
        for run, one in list(alive.items()):
            if run not in alive:
                continue
            stamp = (run, one.attempt, seqs[run], time.time())
            seqs[run] += 1
            if epoch == 0:
                event: Event = Started(*stamp)
            elif epoch == 3:
                event = Finished(*stamp, "finished", 2)
            else:
                event = EpochEnd(*stamp, epoch, {"val/accuracy": 0.1})
            cancelled = (yield event) or frozenset()
            for gone in cancelled & alive.keys():
                if epoch < 3:
                    yield Failed(gone, alive[gone].attempt, seqs[gone], time.time(), "cancelled", "cancelled")
                    del alive[gone]


def not_a_generator(bundle: Bundle):
    return None


def raises_at_once(bundle: Bundle):
    raise RuntimeError("no")


def stubborn(bundle: Bundle):
    """Will not be closed."""
    one = bundle.tasks[0]
    try:
        yield Started(one.run, one.attempt, 0, time.time())
        yield Finished(one.run, one.attempt, 1, time.time())
    finally:
        raise RuntimeError("not closing")


def talkative(bundle: Bundle):
    """Goes on after the last event."""
    one = bundle.tasks[0]
    yield Finished(one.run, one.attempt, 0, time.time())
    yield EpochEnd(one.run, one.attempt, 1, time.time(), 1, {})
    yield Finished(one.run, one.attempt, 2, time.time())


class Unreadable:
    """Goes into a pickle and does not come out of it."""

    def __reduce__(self):
        return (_explode, ())


def _explode():
    raise ArithmeticError("it does not come out")


def _sum_with_a_loader() -> float:
    from torch.utils.data import DataLoader

    return float(sum(batch.sum() for batch in DataLoader(range(10), batch_size=2, num_workers=2)))
