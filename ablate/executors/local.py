"""A worker process per device slot, kept from bundle to bundle.

Workers come from a forkserver that has imported what all of them need: a child is ready in a few tens of milliseconds
instead of seconds, and because the forkserver never touches `torch.cuda`, each child is free to open its own device.
A worker's environment (this process's own, and the slot's) travels in its start message: a variable that is set after the
forkserver began is not seen by its children.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import multiprocessing
import os
import queue
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Self

from ablate.errors import TrainingError
from ablate.events import Bundle, Event, Failed, Finished, Training, in_one_line
from ablate.executors import Slot, Wanted, left_by_parent, stream
from ablate.executors.devices import VISIBLE
from ablate.interrupts import SIGNALS


class _Worker:
    """The parent's side of one worker process."""

    def __init__(self, context: ForkServerContext, training: Training, slot: Slot) -> None:
        ours, theirs = context.Pipe()
        for is_last_try in (False, False, True):
            with _no_main(), _set_at_start():
                self.process: ForkServerProcess = context.Process(
                    target=_serve,
                    args=(theirs, training, _of_worker(slot.environment), list(sys.path)),
                    name=f"ablate {slot.name}",
                    daemon=True,
                )
                try:
                    self.process.start()
                    break
                except (EOFError, ConnectionError):
                    # The forkserver died between being found alive and answering; the next start begins another.
                    if is_last_try:
                        raise TrainingError(
                            "no worker process can be started",
                            hint="`ulimit -u` and `ulimit -v` say how many processes and how much memory there may be; "
                            "what is finished is kept",
                        ) from None
                    time.sleep(0.1)
        theirs.close()
        self.pipe: Connection = ours
        self.attempts: dict[str, int] = {}
        self.next_seq: dict[str, int] = {}
        self.spent = False

    @property
    def busy(self) -> bool:
        return bool(self.next_seq)

    def submit(self, bundle: Bundle) -> None:
        # That a worker is dead shows at the next `wait`, which reports the bundle's runs as crashed.
        with contextlib.suppress(OSError):
            self.pipe.send(("bundle", bundle))
        self.attempts = {task.run: task.attempt for task in bundle.tasks}
        self.next_seq = dict.fromkeys(self.attempts, 0)

    def receive(self) -> list[Event]:
        """Return the events that have arrived; where the process has died, also the last events of its open runs."""
        # Asked first: by then the pipe has all that a process wrote before it died.
        alive = self.process.is_alive()
        events: list[Event] = []
        try:
            while self.busy and self.pipe.poll():
                event: Event = self.pipe.recv()
                if isinstance(event, Finished | Failed):
                    del self.next_seq[event.run]
                    self.spent |= event.spent
                else:
                    self.next_seq[event.run] = event.seq + 1
                events.append(event)
        except (EOFError, OSError):
            return events + self._crashed(self._how_it_ended())
        except Exception as error:  # noqa: BLE001 — an event that cannot be read back may raise anything
            return events + self._crashed(f"the worker sent what cannot be read: {in_one_line(error)}")
        # A process that the training started may hold the pipe open after the worker itself has died.
        return events if alive or not self.busy else events + self._crashed(self._how_it_ended())

    def _crashed(self, reason: str) -> list[Event]:
        """Kill what is left of the worker, and return the failures of its open runs."""
        self.kill()
        self.process.join(timeout=5)
        failures: list[Event] = [
            Failed(run, self.attempts[run], seq, time.time(), "crash", reason)
            for run, seq in self.next_seq.items()
        ]
        self.next_seq = {}
        return failures

    def _how_it_ended(self) -> str:
        self.process.join(timeout=5)
        code = self.process.exitcode
        if code is None:
            return "the worker closed its connection"
        if code >= 0:
            return f"the worker exited with {code}"
        try:
            return f"the worker was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"the worker was killed by signal {-code}"

    def kill(self) -> None:
        """Kill the process and all that it started: it leads a process group of its own."""
        assert self.process.pid is not None
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()

    def stop(self) -> None:
        self.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


def create(
    training: Training,
    wanted: Wanted,  # noqa: ARG001 — the slots are made of it
    slots: Callable[[], tuple[Slot, ...]],
    preload: tuple[str, ...],
) -> LocalExecutor:
    """Return the executor of `--executor local`. slots: makes them. preload: modules that all workers need."""
    return LocalExecutor(training, slots(), preload)


def check(wanted: Wanted, slots: Callable[[], tuple[Slot, ...]]) -> None:  # noqa: ARG001 — the slots are made of it
    """Refuse what `create` does. Raises StudyError."""
    slots()


_FILES, _FILES_OF_WORKER = 48, 8
"""Files that a coordinator has open at once with the store, the locks and the forkserver, and those of each worker."""


def _allow_files(number: int) -> None:
    """Let this process and those that it starts open so many files at once. Raises TrainingError where it may not."""
    most, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not 0 <= most < number:
        return
    if 0 <= allowed < number:
        raise TrainingError(
            f"a process may open {allowed} files at once here, and this study needs {number}",
            hint=f"`ulimit -n {number}` in the shell that started this one, or fewer `--workers`",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, allowed))


_server: Any = forkserver._forkserver  # noqa: SLF001 — there is no public way to end it
_begun: tuple[str, ...] | None = None
"""What the forkserver has been told to import before it was known what workers need; None where that has not been done."""


def begin(preload: tuple[str, ...]) -> None:
    """Let the forkserver begin to import what workers are likely to need. A `LocalExecutor` that needs something else starts another.

    Does nothing where this process has had workers before. Where none come of it, it ends with this process at the latest.
    """
    global _begun  # noqa: PLW0603 — a process has one forkserver
    if _server._forkserver_pid is None:  # noqa: SLF001 — as above
        multiprocessing.get_context("forkserver").set_forkserver_preload(_preloaded(preload))
        _start_forkserver()
        _begun = preload
        atexit.register(abandon)


def abandon() -> None:
    """End what `begin` has begun and nothing has taken over. The next worker is started as if it had never been."""
    global _begun  # noqa: PLW0603 — as above
    if _begun is not None:
        # Asked to end, it would import to the end first, and hold open what this process writes to.
        with contextlib.suppress(OSError):
            os.kill(_server._forkserver_pid, signal.SIGKILL)  # noqa: SLF001 — as above
        try:
            _server._stop()  # noqa: SLF001 — as above
        except ChildProcessError:  # SIGCHLD is ignored, so nobody can wait for it
            _server._forkserver_pid = None  # noqa: SLF001 — as above
        _begun = None


def end_forkserver() -> None:
    """End the forkserver, and wait until it has removed its folder: for a process that is killed with all that it has started."""
    with contextlib.suppress(FileNotFoundError):  # the socket, which lay there
        _server._stop()  # noqa: SLF001 — as above


def _take_over(preload: tuple[str, ...]) -> None:
    """Let what `begin` has begun be the forkserver of workers that need `preload`, or end it."""
    global _begun  # noqa: PLW0603 — as above
    if _begun == preload:
        _begun = None
    else:
        abandon()


def _start_forkserver() -> None:
    with _no_main(), _set_at_start():
        forkserver.ensure_running()


def _preloaded(preload: tuple[str, ...]) -> list[str]:
    return [left_by_parent.__name__, __name__, *preload]


class LocalExecutor:
    """training: an importable generator function, or a `functools.partial` of one; it runs in the workers and is pickled by
    its name.

    preload: modules that the forkserver imports once, so that every worker has them from its first moment.
    """

    def __init__(self, training: Training, slots: tuple[Slot, ...], preload: tuple[str, ...] = ()) -> None:
        assert len({slot.name for slot in slots}) == len(slots) > 0, "slots need names of their own"
        _allow_files(_FILES + _FILES_OF_WORKER * len(slots))
        self._training = training
        self.slots = slots
        _take_over(preload)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_preloaded(preload))
        self._workers: dict[str, _Worker] = {}

    def warm_up(self) -> None:
        """Let the forkserver begin to import what workers need."""
        _start_forkserver()

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        worker = self._workers.get(slot.name)
        assert worker is None or not worker.busy, f"{slot.name} is taken"
        # An idle worker sends nothing: if there is something to read, it is the end of the pipe.
        if worker is not None and (worker.spent or not worker.process.is_alive() or worker.pipe.poll()):
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
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            busy = [worker for worker in self._workers.values() if worker.busy]
            sources = [source for worker in busy for source in (worker.pipe, worker.process.sentinel)]
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = wait(sources, seconds) if sources else []
            events = [
                event
                for worker in busy
                if worker.pipe in ready or worker.process.sentinel in ready
                for event in worker.receive()
            ]
            if events or not ready:
                return events

    def kill(self, slot: Slot) -> None:
        assert slot in self.slots, f"{slot} is not a slot of this executor"
        worker = self._workers.get(slot.name)
        if worker is None:
            return
        if worker.busy:
            worker.kill()  # `wait` finds it dead, and reports its runs
        else:
            worker.stop()
            del self._workers[slot.name]

    @property
    def processes(self) -> Mapping[str, int | None]:
        """Slot name → process id of its worker."""
        return {name: worker.process.pid for name, worker in self._workers.items()}

    def __enter__(self) -> Self:
        # For a program that ends without leaving the context: multiprocessing would end only the workers themselves.
        atexit.register(self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        atexit.unregister(self._stop)
        self._stop()

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()


def cpu_slots(number: int | None = None) -> tuple[Slot, ...]:
    """Return a slot per core that this process may use, or `number` of them.

    Single-threaded runs side by side are faster than threads within a run.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = number or cores
    return tuple(Slot(f"cpu-{i}") for i in range(count))


def accelerator_slots(kind: str, devices: tuple[int, ...], per_device: int = 1) -> tuple[Slot, ...]:
    """Return slots on accelerators, which are numbered as this process sees them. kind: as torch names it, such as `cuda`.

    Where a variable says which devices a process sees, a worker sees its own alone, as the first; else all of them.
    """
    variable = VISIBLE.get(kind)
    visible = None if variable is None else os.environ.get(variable)
    real = None if visible is None else visible.split(",")

    def slot(device: int, name: str) -> Slot:
        if variable is None:
            return Slot(name, f"{kind}:{device}")
        return Slot(name, f"{kind}:0", {variable: real[device].strip() if real is not None else str(device)})

    return tuple(
        slot(device, f"{kind}-{device}" + (f".{i}" if per_device > 1 else ""))
        for i in range(per_device)
        for device in devices
    )


def together(slots: tuple[Slot, ...], number: int) -> tuple[Slot, ...]:
    """Return slots that each have the devices of `number` of the given ones; those that are left over are left out.

    Empty where there are not so many devices, except that a machine with fewer cores makes one slot of all of them.
    """
    if number == 1:
        return slots
    if all(not slot.environment for slot in slots) and len(slots) < number:
        number = len(slots)
    merged = []
    for start in range(0, len(slots) - number + 1, number):
        group = slots[start : start + number]
        names = group[0].environment.keys()
        if not names and group[0].device != "cpu":
            continue  # which accelerators a run may use cannot be said
        environment = {name: ",".join(slot.environment[name] for slot in group) for name in names}
        if all(len({slot.environment[name] for slot in group}) == number for name in names):
            rest = [slot.name.partition("-")[2] for slot in group[1:]]
            merged.append(Slot("+".join([group[0].name, *rest]), group[0].device, environment))
    return tuple(merged)


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide the parent's main module, which a child would otherwise import again, command line and all."""
    main = sys.modules["__main__"]
    saved: dict[str, Any] = {
        name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__
    }
    main.__dict__["__spec__"] = None
    try:
        yield
    finally:
        main.__dict__.update(saved)


AT_START = {
    # Sets of texts are in the same order in every worker, also in those of the command that continues this one.
    "PYTHONHASHSEED": "0",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 31),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


_SAFE_PATH, _OURS = "PYTHONSAFEPATH", "ablate"
"""A variable of Python's, and the value by which it is known to be set here: while the forkserver and its resource tracker start.

They then import none of their modules from the working folder, where somebody else may have put a file of that name. Workers have the
path of the command, and what they start has Python's own.
"""


def _of_worker(slot: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a worker, to be called within `_set_at_start`. slot: what its slot adds."""
    inherited = {name: value for name, value in os.environ.items() if name != _SAFE_PATH or value != _OURS}
    inherited.pop(left_by_parent.FOLDER, None)
    return inherited | dict(slot)


_LONGEST_PLACE = 70
"""Bytes of a folder in which `multiprocessing` can make a socket: an address has 103 (macOS) or 107, of which its own names take 32."""

_SHORT_PLACES = ("/tmp", "/var/tmp")  # noqa: S108 — the folder that is made there has a random name and belongs to its maker alone


def _socket_folder() -> str:
    """Return the folder of `multiprocessing` for its sockets, which it makes once. Raises OSError where it can be made nowhere.

    `multiprocessing` makes it where TMPDIR says, or in the working folder, whose paths may be too long for an address of a socket.
    """
    usual = tempfile.gettempdir()
    places = (usual, *_SHORT_PLACES) if len(os.fsencode(usual)) <= _LONGEST_PLACE else _SHORT_PLACES
    for place in places:
        tempfile.tempdir = place
        try:
            return util.get_temp_dir()
        except OSError:
            if place == places[-1]:
                raise
        finally:
            tempfile.tempdir = usual
    raise AssertionError("there are places")


@contextlib.contextmanager
def _set_at_start() -> Iterator[None]:
    """Set what is read when the forkserver begins, where the user has not.

    The workers' allocator, glibc's, keeps the memory that it frees. By default every large tensor is mapped from the kernel and
    returned to it, page by page, at every step; a third of the time of a small convolutional network goes there (docs/log.md).
    """
    at_start = {**AT_START, _SAFE_PATH: _OURS}
    added = [name for name in at_start if name not in os.environ]
    os.environ.update({name: at_start[name] for name in added})
    # Signals reach the forkserver too, which would end with a traceback, or before this process has seen that it is to end itself. And
    # where this process ends at once, nobody but the forkserver removes the folder. The resource tracker would be ended by SIGHUP.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        resource_tracker.ensure_running()
        # The tracker lets two of them through when it begins.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        if left_by_parent.FOLDER not in os.environ:
            os.environ[left_by_parent.FOLDER] = _socket_folder()
            added.append(left_by_parent.FOLDER)
        yield
    finally:
        for name in added:
            del os.environ[name]
        # Which lets those through that have come meanwhile.
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in the worker ----------------------------------------------------------------------------------------------


def _serve(pipe: Connection, training: Training, environment: Mapping[str, str], path: list[str]) -> None:
    """Train bundles as they come; when the parent has died, end at once, with all that the training started."""
    os.setpgid(0, 0)
    gc.freeze()  # what the forkserver has imported is no garbage, and stays shared with it
    gc.enable()
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    # Ctrl-C may reach a worker too; only the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    sys.excepthook = sys.__excepthook__
    # Daemons may have no children, but the data loaders of a training may.
    multiprocessing.current_process().daemon = False
    multiprocessing.set_start_method(None, force=True)
    # The program's results go to stdout; what a training prints is not one of them.
    os.dup2(2, 1)
    inbox: queue.SimpleQueue[Bundle] = queue.SimpleQueue()
    cancelled: set[str] = set()

    def listen() -> None:
        while True:
            try:
                kind, what = pipe.recv()
            except (EOFError, OSError):
                os.killpg(0, signal.SIGKILL)
            if kind == "bundle":
                cancelled.clear()
                inbox.put(what)
            else:
                cancelled.add(what)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        _pass_on(stream.events(training, inbox.get(), lambda: frozenset(cancelled)), pipe)


def _pass_on(events: Generator[Event, None, None], pipe: Connection) -> None:
    event = next(events, None)
    while event is not None:
        try:
            content = ForkingPickler.dumps(event)
        except Exception as error:  # noqa: BLE001 — pickling runs the code of whatever is in the event
            event = events.throw(TypeError(f"an event cannot leave the process: {error}"))
            continue
        try:
            pipe.send_bytes(content)
        except OSError:
            os.killpg(0, signal.SIGKILL)
        event = next(events, None)
