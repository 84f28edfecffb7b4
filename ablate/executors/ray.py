"""Slots on the machines of a Ray cluster: an actor a slot, which keeps a worker process of its own as `local` does.

Ray decides where an actor lives and what it may use (`num_cpus`, `num_gpus`, a fraction of a GPU); it restarts nothing and
retries nothing, because its own retries splice two attempts into one stream of events. The actor hosts a `LocalExecutor` of
one slot: workers, their environment, `kill` and whatever a training starts are treated the same on every machine.

A slot that is lost with its machine is left out from then on; one whose resources come back, or are new, is added.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ablate.errors import StudyError
from ablate.events import Bundle, Event, Failed, Training, is_last
from ablate.executors import Slot, Wanted
from ablate.executors.local import LocalExecutor

if TYPE_CHECKING:
    from ray.actor import ActorHandle

PATIENCE = 60
"""Seconds in which the first slot of a cluster should be ready; after that, people are told what it waits for."""

REFRESH = 2
"""Seconds between two looks at what the cluster has."""

ANSWERING = 10
"""Seconds in which a cluster should take a connection."""

STOPPING = 5
"""Seconds that an actor has for ending what it runs, before it is killed."""


@dataclass(frozen=True)
class Request:
    """What each slot asks of the cluster. cpus, gpus: of Ray's resources; a fraction of a GPU lets several slots share it."""

    cpus: float = 1
    gpus: float = 0

    @property
    def device(self) -> str:
        """The device as training knows it: Ray lets an actor see its own GPU only."""
        return "cuda:0" if self.gpus else "cpu"

    def fitting(self, resources: Mapping[str, float]) -> int:
        """Return how many slots a machine with these resources has room for."""
        rooms = [
            math.floor(resources.get(name, 0) / wanted + 1e-9)
            for name, wanted in (("CPU", self.cpus), ("GPU", self.gpus))
            if wanted
        ]
        return min(rooms)


@dataclass
class _Seat:
    """A slot and the actor behind it. answer: of the question whether it is ready; None once it was given.

    Of the bundle in training: its number, the stream of its events, and each open run's attempt and next number.
    """

    slot: Slot
    actor: ActorHandle[Agent]
    answer: Any
    bundle: int = 0
    stream: Any = None
    attempts: dict[str, int] = field(default_factory=dict)
    next_seq: dict[str, int] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.answer is None


def create(
    training: Training,
    wanted: Wanted,
    slots: Callable[[], tuple[Slot, ...]],  # noqa: ARG001 — the cluster has them
    preload: tuple[str, ...],
) -> RayExecutor:
    """Return the executor of `--executor ray`.

    Without an address it is the cluster that RAY_ADDRESS names, or one of this machine alone that ends with the command. Raises
    StudyError where Ray is not installed, the cluster does not answer, or it has not what a slot needs.
    """
    ray = _imported()
    if wanted.devices not in ("auto", "cpu", "cuda"):
        raise StudyError(
            f"{wanted.devices!r} names a device, and the cluster decides which one a run gets",
            place="--devices",
            hint="auto, cpu or cuda; `--workers` limits how many",
        )
    started = not ray.is_initialized()
    if started:
        _connect(ray, wanted.address)
    try:
        request = _request(ray, wanted.devices, wanted.per_device)
    except StudyError:
        if started:
            ray.shutdown()
        raise
    return RayExecutor(training, request, wanted.workers, preload, shut_down=started)


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise StudyError(
            "Ray is not installed", place="--executor ray", hint="pip install 'ablate[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or begin one on this machine. Raises StudyError where it does not answer."""
    # Not the default of Ray, which would join whatever cluster it finds on this machine.
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if wanted == "local" else {}
    try:
        if place := re.fullmatch(r"(?:ray://)?(.+):(\d+)", _recorded() if wanted == "auto" else wanted):
            # Ray itself tries a wrong address for minutes, and then ends the process.
            socket.create_connection((place[1].strip("[]"), int(place[2])), ANSWERING).close()
        ray.init(address=wanted, logging_level="ERROR", log_to_driver=True, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StudyError(
            f"no Ray cluster answers at {wanted} ({line})",
            place="--address",
            hint="`ray status` shows whether it is up; `--address auto` is the cluster that this machine belongs to",
        ) from None


def _recorded() -> str:
    """Return the address that `ray start` left on this machine, '' where there is none. It may be of a cluster that is gone."""
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _request(ray: Any, devices: str, per_device: int) -> Request:
    """Return what a slot asks for. Raises StudyError where the cluster has it nowhere."""
    machines = _machines(ray)
    gpus = sum(int(resources.get("GPU", 0)) for resources in machines.values())
    if devices == "cuda" or (devices == "auto" and gpus):
        request = Request(cpus=1 if per_device == 1 else 0, gpus=1 / per_device)
        lacking = "GPU"
    else:
        request, lacking = Request(), "CPU"
    if not any(request.fitting(resources) for resources in machines.values()):
        raise StudyError(
            f"the cluster has no {lacking} for a run ({_inventory(machines)})",
            place="--executor ray",
            hint="`--devices cpu` needs no GPU" if lacking == "GPU" else "`ray status` shows what it has",
        )
    return request


def _machines(ray: Any) -> dict[str, Mapping[str, float]]:
    """Return the resources of each machine that is alive, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def _inventory(machines: Mapping[str, Mapping[str, float]]) -> str:
    cpus, gpus = (sum(int(each.get(name, 0)) for each in machines.values()) for name in ("CPU", "GPU"))
    return f"{len(machines)} machine{'s' * (len(machines) != 1)} with {cpus} CPU and {gpus} GPU in all"


class RayExecutor:
    """training: an importable generator function, or a `functools.partial` of one; nodes import it by its name.

    request: what a slot asks of the cluster. workers: slots at most; None: all that it has room for. shut_down: whether to
    disconnect from the cluster at the end, which ends one that was begun here.
    """

    def __init__(
        self,
        training: Training,
        request: Request,
        workers: int | None = None,
        preload: tuple[str, ...] = (),
        *,
        shut_down: bool = False,
    ) -> None:
        self._ray = _imported()
        self._training = training
        self._request = request
        self._workers = workers
        self._preload = preload
        self._shut_down = shut_down
        self._seats: dict[str, _Seat] = {}
        self._made = 0
        self._refreshed = -math.inf

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Slots whose actors are ready. Those of machines that came or went meanwhile are added and left out."""
        self._refresh()
        return tuple(seat.slot for seat in self._seats.values() if seat.ready)

    def warm_up(self) -> None:
        """Ask the cluster for actors."""
        self._refresh()

    def submit(self, bundle: Bundle, slot: Slot) -> None:
        seat = self._seats[slot.name]
        assert seat.stream is None, f"{slot.name} is taken"
        seat.bundle += 1
        seat.stream = seat.actor.events.remote(seat.bundle, bundle)
        seat.attempts = {task.run: task.attempt for task in bundle.tasks}
        seat.next_seq = dict.fromkeys(seat.attempts, 0)

    def cancel(self, run: str) -> None:
        for seat in self._seats.values():
            if run in seat.next_seq:
                _control(seat.actor.cancel).remote(seat.bundle, run)

    def kill(self, slot: Slot) -> None:
        if (seat := self._seats.get(slot.name)) is not None:
            killed = _control(seat.actor.kill).remote(seat.bundle if seat.next_seq else 0)
            if not seat.next_seq:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.get(killed, timeout=STOPPING)

    def wait(self, timeout: float | None = None) -> list[Event]:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            by_stream = {id(seat.stream): seat for seat in self._seats.values() if seat.stream is not None}
            if not by_stream:
                return []
            streams = [seat.stream for seat in by_stream.values()]
            left = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
            ready, _ = self._ray.wait(streams, num_returns=1, timeout=left)
            if ready and len(streams) > 1:
                ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
            events = [event for stream in ready for event in self._received(by_stream[id(stream)])]
            if events or not ready:
                return events

    def _received(self, seat: _Seat) -> list[Event]:
        """Return what has arrived from a slot; where its actor is gone, the last events of its open runs."""
        try:
            events: list[Event] = self._ray.get(next(seat.stream))
        except StopIteration:
            seat.stream = None
            # The actor ends its stream after the last event of every run, so nothing should be open.
            return self._crashed(seat, "the stream of events ended early") if seat.next_seq else []
        except self._ray.exceptions.RayError as error:
            return self._lost(seat, error)
        for event in events:
            if is_last(event):
                del seat.next_seq[event.run]
            else:
                seat.next_seq[event.run] = event.seq + 1
        if not seat.next_seq:
            seat.stream = None
        return events

    def _lost(self, seat: _Seat, error: BaseException) -> list[Event]:
        """Give up a slot whose actor is gone, and return the failures of its open runs."""
        del self._seats[seat.slot.name]
        self._refreshed = -math.inf
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor, no_restart=True)
        return self._crashed(seat, _cause(error))

    def _crashed(self, seat: _Seat, reason: str) -> list[Event]:
        failures: list[Event] = [
            Failed(run, seat.attempts[run], seq, time.time(), "crash", reason)
            for run, seq in seat.next_seq.items()
        ]
        seat.stream, seat.next_seq = None, {}
        return failures

    # --- what the cluster has ---

    def _refresh(self) -> None:
        """Ask for actors where the cluster has room for more, and hear which of them are ready."""
        if time.monotonic() - self._refreshed > REFRESH:
            self._refreshed = time.monotonic()
            room = sum(self._request.fitting(resources) for resources in _machines(self._ray).values())
            for _ in range(min(room, self._workers or room) - len(self._seats)):
                self._add()
        for seat in [seat for seat in self._seats.values() if not seat.ready]:
            answered, _ = self._ray.wait([seat.answer], timeout=0)
            if answered:
                self._hear(seat)

    def _hear(self, seat: _Seat) -> None:
        """Take the answer of an actor that has begun. Raises StudyError where its machine lacks the folder of the study."""
        try:
            missing = self._ray.get(seat.answer)
        except self._ray.exceptions.RayError as error:
            del self._seats[seat.slot.name]
            # Either its machine went before it was ready, or it could not begin, and the next one will not either.
            if "creation task" in str(error):
                raise StudyError(
                    f"a worker could not begin ({_last_line(error)})",
                    place="--executor ray",
                    hint="every machine of the cluster needs the same Python, ablate and packages (docs/cluster.md)",
                ) from None
            return
        if missing:
            raise StudyError(
                f"{missing} of the cluster has no folder {Path.cwd()}",
                place="--executor ray",
                hint="work in a folder that all machines share, or let `ray job submit --working-dir .` carry it (docs/cluster.md)",
            )
        seat.answer = None

    def _add(self) -> None:
        """Ask the cluster for one more actor."""
        name = f"ray-{self._made}"
        self._made += 1
        slot = Slot(name, self._request.device)
        # Variables and folders of sites differ from machine to machine; ablate's own settings do not.
        settings = {key: value for key, value in os.environ.items() if key.startswith("ABLATE_")}
        path = [entry or str(Path.cwd()) for entry in sys.path]
        remote = self._ray.remote(
            num_cpus=self._request.cpus,
            num_gpus=self._request.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={"control": 1},
        )(Agent)
        actor = remote.remote(
            pickle.dumps(self._training), slot, self._preload, str(Path.cwd()), path, settings
        )
        self._seats[name] = _Seat(slot, actor, _control(actor.missing_folder).remote())

    def __enter__(self) -> Self:
        begun = time.monotonic()
        told = False
        while not self.slots:
            waiting = [seat.answer for seat in self._seats.values() if not seat.ready]
            self._ray.wait(waiting, timeout=REFRESH)
            if not told and time.monotonic() - begun > PATIENCE:
                told = True
                inventory = _inventory(_machines(self._ray))
                print(f"waiting for the cluster: others have what it has ({inventory})", file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray = self._ray
        with contextlib.suppress(Exception):
            stopped = [_control(seat.actor.stop).remote() for seat in self._seats.values() if seat.ready]
            if stopped:
                ray.wait(stopped, num_returns=len(stopped), timeout=STOPPING)
        for seat in self._seats.values():
            with contextlib.suppress(Exception):
                ray.kill(seat.actor, no_restart=True)
        self._seats.clear()
        if self._shut_down:
            ray.shutdown()


def _control(method: Any) -> Any:
    """Return an actor's method that is answered while another of the same actor runs."""
    return method.options(concurrency_group="control")


def _cause(error: BaseException) -> str:
    """Return in one line why an actor is gone."""
    text = str(error)
    if "node" in text.lower() and ("died" in text.lower() or "dead" in text.lower()):
        return "its machine was lost"
    return f"its Ray actor was lost: {_last_line(error)}"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


# --- on the machine of a slot -------------------------------------------------------------------------------------


class Agent:
    """The actor of a slot.

    training: a pickle, which can be read only once modules are looked for where the study's command looks for them: in `path`.
    folder: where the command runs. settings: variables of ablate.
    """

    def __init__(
        self,
        training: bytes,
        slot: Slot,
        preload: tuple[str, ...],
        folder: str,
        path: list[str],
        settings: Mapping[str, str],
    ) -> None:
        self._slot = slot
        self._lock = threading.Lock()
        # Numbers of bundles: the last that has begun, and the last to be killed; runs cancelled before their bundle has begun.
        self._begun = self._killed = 0
        self._cancelled: dict[int, list[str]] = {}
        self._has_folder = Path(folder).is_dir()
        if not self._has_folder:
            return
        os.chdir(folder)
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
        os.environ.update(settings)
        self._executor = LocalExecutor(pickle.loads(training), (slot,), preload)
        self._executor.warm_up()

    def missing_folder(self) -> str | None:
        """Return the name of this machine where it lacks the folder; None where all is well."""
        return None if self._has_folder else os.uname().nodename

    def events(self, number: int, bundle: Bundle) -> Iterator[list[Event]]:
        """Train a bundle, and yield its events as they come. number: of the bundle, 1, 2, … over the actor's life."""
        with self._lock:
            killed = self._killed >= number
            if not killed:
                self._executor.submit(bundle, self._slot)
                self._begun = number
                for run in self._cancelled.pop(number, ()):
                    self._executor.cancel(run)
        if killed:
            yield [
                Failed(task.run, task.attempt, 0, time.time(), "crash", "killed before it began")
                for task in bundle.tasks
            ]
            return
        open_runs = set(bundle.runs)
        while open_runs:
            events = self._executor.wait()
            open_runs -= {event.run for event in events if is_last(event)}
            yield events

    # What follows may overtake the bundle that it is about: it is answered by a thread of its own.

    def cancel(self, number: int, run: str) -> None:
        """Break a run of a bundle off."""
        with self._lock:
            if self._begun < number:
                self._cancelled.setdefault(number, []).append(run)
            else:
                self._executor.cancel(run)

    def kill(self, number: int) -> None:
        """End what runs of a bundle; 0: of none, only the worker that waits for the next."""
        with self._lock:
            self._killed = max(self._killed, number)
            if self._begun >= number:
                self._executor.kill(self._slot)

    def stop(self) -> None:
        """End the worker."""
        with self._lock:
            self._executor.__exit__(None, None, None)
