"""A worker process per device slot, kept from bundle to bundle.

Workers come from a forkserver that has imported torch and nothing else: a child is ready in a few tens of milliseconds
instead of seconds, and because the forkserver never touches `torch.cuda`, each child is free to open its own device.
What a worker's environment must say travels in its start message: a variable set after the forkserver began is not seen
by its children.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import TracebackType
from typing import Any, Self

from ablate.events import Bundle, Event, Failed, Training, is_last
from ablate.executors import Slot


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, context: ForkServerContext, training: Training, slot: Slot) -> None:
        ours, theirs = context.Pipe()
        with _no_main():
            self.process: ForkServerProcess = context.Process(
                target=_serve,
                args=(theirs, training, dict(slot.environment), list(sys.path)),
                name=f"ablate {slot.name}",
                daemon=True,
            )
            self.process.start()
        theirs.close()
        self.pipe: Connection = ours
        self.attempts: dict[str, int] = {}
        self.next_seq: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        return bool(self.next_seq)

    def submit(self, bundle: Bundle) -> None:
        self.attempts = {task.run: task.attempt for task in bundle.tasks}
        self.next_seq = dict.fromkeys(self.attempts, 0)
        # A dead worker shows at its next `wait`, which reports the bundle's runs as crashed.
        with contextlib.suppress(OSError):
            self.pipe.send(("bundle", bundle))

    def note(self, event: Event) -> bool:
        """Whether the event belongs to a run that is still open."""
        if event.run not in self.next_seq:
            return False
        if is_last(event):
            del self.next_seq[event.run]
        else:
            self.next_seq[event.run] = event.seq + 1
        return True

    def lost(self) -> list[Event]:
        """The last events of the runs that the process took with it."""
        self.process.join(timeout=5)
        code = self.process.exitcode
        reason = (
            f"the worker was killed by {signal.Signals(-code).name}"
            if code is not None and code < 0
            else f"the worker exited with {code}"
        )
        gone: list[Event] = [
            Failed(run, self.attempts[run], seq, time.time(), "crash", reason)
            for run, seq in self.next_seq.items()
        ]
        self.next_seq = {}
        return gone

    def stop(self) -> None:
        self.pipe.close()
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.process.close()


class LocalExecutor:
    """training: an importable generator function; it runs in the workers and is pickled by its name."""

    def __init__(self, training: Training, slots: tuple[Slot, ...]) -> None:
        assert len({slot.name for slot in slots}) == len(slots) > 0, "slots need names of their own"
        self._training = training
        self.slots = slots
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch"])
        self._workers: dict[str, _Worker] = {}

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        worker = self._workers.get(slot.name)
        assert worker is None or not worker.busy, f"{slot.name} is taken"
        if worker is not None and not worker.process.is_alive():
            worker.stop()
            worker = None
        if worker is None:
            worker = self._workers[slot.name] = _Worker(self._context, self._training, slot)
        worker.submit(bundle)

    def cancel(self, run: str) -> None:
        for worker in self._workers.values():
            if run in worker.next_seq:
                with contextlib.suppress(OSError):
                    worker.pipe.send(("cancel", run))

    def wait(self, timeout: float | None = None) -> list[Event]:
        busy = {worker.pipe: worker for worker in self._workers.values() if worker.busy}
        if not busy:
            return []
        events: list[Event] = []
        for pipe in wait(list(busy), timeout):
            worker = busy[pipe]  # type: ignore[index]
            try:
                while worker.busy and worker.pipe.poll():
                    event = worker.pipe.recv()
                    if worker.note(event):
                        events.append(event)
            except (EOFError, OSError):
                events += worker.lost()
        return events

    def kill(self, slot: Slot) -> None:
        """Kill a slot's process: for a run that hangs and hears nothing. Its runs fail as crashed at the next `wait`."""
        if (worker := self._workers.get(slot.name)) is not None:
            worker.process.kill()

    @property
    def processes(self) -> Mapping[str, int | None]:
        """Slot name → process id of its worker."""
        return {name: worker.process.pid for name, worker in self._workers.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()


def cpu_slots(number: int | None = None) -> tuple[Slot, ...]:
    """A slot per core that this process may use: single-threaded runs side by side beat threads within a run."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = number or cores
    return tuple(Slot(f"cpu-{i}") for i in range(count))


def cuda_slots(devices: tuple[int, ...], per_device: int = 1) -> tuple[Slot, ...]:
    """Slots on CUDA devices, numbered as this process sees them. A worker sees its one device as `cuda:0`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    real = visible.split(",") if visible else None
    return tuple(
        Slot(
            f"cuda-{device}" + (f".{i}" if per_device > 1 else ""),
            "cuda:0",
            {"CUDA_VISIBLE_DEVICES": real[device].strip() if real else str(device)},
        )
        for i in range(per_device)
        for device in devices
    )


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide the parent's main module, which a child would otherwise import again, command line and all."""
    main = sys.modules["__main__"]
    saved: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(saved)


# --- in the worker ----------------------------------------------------------------------------------------------


def _serve(pipe: Connection, training: Training, environment: Mapping[str, str], path: list[str]) -> None:
    """Train bundles as they come; leave at once when the parent is gone."""
    os.environ.update(environment)
    sys.path[:] = path
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
    cancelled: set[str] = set()

    def listen() -> None:
        while True:
            try:
                kind, what = pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if kind == "bundle":
                cancelled.clear()
                inbox.put(what)
            else:
                cancelled.add(what)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        bundle = inbox.get()
        for event in _events(training, bundle, cancelled):
            try:
                pipe.send(event)
            except OSError:
                os._exit(0)


def _events(training: Training, bundle: Bundle, cancelled: set[str]) -> Iterator[Event]:
    """The training's events, and a Failed for each run that it leaves without a last one."""
    next_seq: dict[str, int] = {task.run: 0 for task in bundle.tasks}
    attempts = {task.run: task.attempt for task in bundle.tasks}
    reason, detail = "training ended without a result", ""
    steps: Any = training(bundle)
    try:
        event = next(steps)
        while True:
            if is_last(event):
                next_seq.pop(event.run, None)
            elif event.run in next_seq:
                next_seq[event.run] = event.seq + 1
            yield event
            event = steps.send(frozenset(cancelled))
    except StopIteration:
        pass
    except Exception as error:  # noqa: BLE001 — whatever training raises is a failed attempt
        reason, detail = f"{type(error).__name__}: {error}", traceback.format_exc()
    for run, seq in next_seq.items():
        yield Failed(run, attempts[run], seq, time.time(), "error", reason, detail)
