"""Slots on the machines of a Ray cluster: an actor a slot, which keeps a worker process of its own as `local` does.

Ray decides where an actor lives and what it may use (`num_cpus`, `num_gpus`, a fraction of a GPU); it restarts nothing and
retries nothing, because its own retries splice two attempts into one stream of events. The actor hosts a `LocalExecutor` of
one slot: workers, their environment, `kill` and whatever a training starts are treated the same on every machine.

A slot that is lost with its machine is left out from then on; one whose resources come back, or are new, is added.

Machines that share the folder of the command work in it. To the others Ray's runtime environment carries a copy; from them the
networks that a study keeps travel back with the results.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import re
import shlex
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ablate.errors import StudyError
from ablate.events import Bundle, Event, Failed, Finished, Training, is_last
from ablate.executors import Slot, Wanted
from ablate.executors.local import LocalExecutor, end_forkserver
from ablate.text import without_password

if TYPE_CHECKING:
    from ray.actor import ActorHandle

PATIENCE = 60
"""Seconds in which the first slot of a cluster should be ready; after that, people are told what it waits for."""

REFRESH = 2
"""Seconds between two looks at what the cluster has."""

ANSWERING = 10
"""Seconds in which a cluster should take a connection."""

UNITS = 10_000
"""Parts of a CPU or GPU that Ray counts in."""

LEFT_OUT = ("/mlruns", "/reports")
"""What is not carried to machines that do not share the working folder, as .gitignore has it."""

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
    """A slot and the actor behind it. answer: of the question whether it is ready; None once it was given. machine: Ray's id of its own, once it
    has answered.

    Of the bundle in training: its number, the stream of its events, and each open run's attempt and next number.
    """

    slot: Slot
    actor: ActorHandle[Agent]
    answer: Any
    machine: str = ""
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
    slots: Callable[[], tuple[Slot, ...]],
    preload: tuple[str, ...],
) -> RayExecutor:
    """Return the executor of `--executor ray`.

    Without an address it is the cluster that RAY_ADDRESS names, or one of this machine alone that ends with the command. Raises
    StudyError where Ray is not installed, the cluster does not answer, or it has not what a slot needs.
    """
    check(wanted, slots)
    ray = _imported()
    started = not ray.is_initialized()
    if started:
        _connect(ray, wanted.address)
    place = _Place.here(wanted.store)
    try:
        request = _request(_machines(ray), wanted)
        if started and (apart := place.lacking(ray)):
            _carry(ray, wanted.address, place, apart)
    except BaseException:
        place.leave()
        if started:
            ray.shutdown()
        raise
    return RayExecutor(
        training, request, wanted.workers, preload, shut_down=started, place=place, apart=wanted.apart
    )


def check(wanted: Wanted, slots: Callable[[], tuple[Slot, ...]]) -> None:  # noqa: ARG001 — the cluster has them
    """Refuse what `create` does whatever the cluster has; none is joined or begun. Raises StudyError."""
    _imported()
    if wanted.devices not in ("auto", "cpu", "cuda"):
        raise StudyError(
            f"{wanted.devices!r} names a device, and the cluster decides which one a run gets",
            place="--devices",
            hint="auto, cpu or cuda; `--workers` limits how many",
        )


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise StudyError(
            "Ray is not installed", place="--executor ray", hint="pip install 'ablate[ray]'"
        ) from None
    return ray


def _connect(ray: Any, address: str | None, runtime_env: Mapping[str, Any] | None = None) -> None:
    """Connect to a cluster, or begin one on this machine. Raises StudyError where it does not answer."""
    # Not the default of Ray, which would join whatever cluster it finds on this machine.
    wanted = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if wanted == "local" else {}
    if runtime_env is not None:
        options["runtime_env"] = dict(runtime_env)
    printed: list[str] = []
    try:
        if place := re.fullmatch(r"(?:ray://)?(.+):(\d+)", _recorded() if wanted == "auto" else wanted):
            # Ray itself tries a wrong address for minutes, and then ends the process.
            host, port = place[1].strip("[]"), int(place[2])
            socket.create_connection((host, port), ANSWERING).close()
            if wanted.startswith("ray://"):
                raise StudyError(
                    f"{wanted} is an address for Ray's client, which passes on no events of a training",
                    place="--address",
                    hint="HOST:6379, on a machine of the cluster; or `ray job submit -- ablate run …`: `ablate docs cluster`",
                )
            if _is_recorded(host, port):
                with _keeping_stderr(printed):
                    _use_own_token()
        _mask_command_line(ray)
        # Ray's workers look for modules in the folder of the program first, where somebody else may have put one of any name.
        with _keeping_stderr(printed), contextlib.chdir("/"):
            ray.init(address=wanted, logging_level="ERROR", log_to_driver=True, **options)
    except ray.exceptions.AuthenticationError:
        raise _without_token(wanted) from None
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if any("InvalidAuthToken" in text for text in printed):
            raise _without_token(wanted) from None
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StudyError(
            f"no Ray cluster answers at {wanted} ({line})",
            place="--address",
            hint="`ray status` shows whether it is up; `--address auto` is the cluster that this machine belongs to",
        ) from None


def _use_own_token() -> None:
    """Use the token of this machine for its own cluster, unless RAY_AUTH_MODE says otherwise.

    Ray does so only where it looks for the cluster by itself (`auto`), and of several on a machine it then takes the latest.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from ray._private.authentication import authentication_token_setup

        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _mask_command_line(ray: Any) -> None:
    """Mask the passwords of addresses in this process's command line: Ray records it, and shows it to everyone who sees its dashboard."""
    command = shlex.join(sys.orig_argv)
    masked = without_password(command)
    if masked != command:
        ray._raylet.setproctitle(masked)  # noqa: SLF001 — Ray's own, which it uses for its workers; there is no other way in


def _without_token(address: str) -> StudyError:
    return StudyError(
        f"the Ray cluster at {address} takes nobody without its token",
        place="--address",
        hint="RAY_AUTH_MODE=token, with the token in RAY_AUTH_TOKEN, or in ~/.ray/auth_token as on the cluster's first machine",
    )


@contextlib.contextmanager
def _keeping_stderr(text: list[str]) -> Iterator[None]:
    """Keep what is printed on stderr meanwhile, by Ray's own threads too, and add it to `text`."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            os.close(original)
            kept.seek(0)
            text.append(kept.read().decode(errors="replace"))


def _is_recorded(host: str, port: int) -> bool:
    """Return whether an address is that of the cluster that this machine belongs to."""
    place = re.fullmatch(r"(.+):(\d+)", _recorded())
    if place is None or int(place[2]) != port:
        return False
    with contextlib.suppress(OSError):
        address = socket.gethostbyname(host)
        return address.startswith("127.") or address == socket.gethostbyname(place[1])
    return False


def _recorded() -> str:
    """Return the address that `ray start` left on this machine, '' where there is none. It may be of a cluster that is gone."""
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


@dataclass(frozen=True)
class _Place:
    """Where the command runs. folder: its working folder. mark: a file under the folder of the store, by which a machine that shares it is
    known; None where only the working folder counts.
    """

    folder: str
    mark: str | None = None

    @classmethod
    def here(cls, store: Path | None) -> Self:
        """Return the place of this process, and make the mark. A store that cannot be written is somebody else's to complain about."""
        mark = None if store is None else store / "locks" / f"shared-{uuid.uuid4().hex[:12]}"
        if mark is not None:
            try:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()
            except OSError:
                mark = None
        return cls(str(Path.cwd()), None if mark is None else str(mark))

    def leave(self) -> None:
        """Remove the mark."""
        if self.mark is not None:
            Path(self.mark).unlink(missing_ok=True)

    def is_here(self) -> bool:
        """Return whether the machine that asks shares it."""
        return Path(self.folder).is_dir() and (self.mark is None or Path(self.mark).exists())

    def lacking(self, ray: Any) -> list[str]:
        """Return the names of the machines that do not share it. Raises StudyError where one has no ablate."""
        context = ray.get_runtime_context()
        if "working_dir" in context.runtime_env:
            return []  # `ray job submit --working-dir` has carried it already
        others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != context.get_node_id()]
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = [
            ray.remote(num_cpus=0, max_retries=0)(_is_here)
            .options(scheduling_strategy=strategy(node["NodeID"], soft=False))
            .remote(self)
            for node in others
        ]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE) if asked else ([], [])
        names = []
        for node, answer in zip(others, asked, strict=True):
            if answer not in ready:
                continue  # its actors will tell
            try:
                if not ray.get(answer):
                    names.append(node["NodeManagerHostname"])
            except ray.exceptions.TaskUnschedulableError:
                continue  # the machine has gone
            except ray.exceptions.RayError as error:
                raise _cannot_begin(error) from None
        return names


def _is_here(place: _Place) -> bool:
    return place.is_here()


def _cannot_begin(error: BaseException) -> StudyError:
    return StudyError(
        f"a worker could not begin ({_last_line(error)})",
        place="--executor ray",
        hint="every machine of the cluster needs the same Python, ablate and packages: `ablate docs cluster`",
    )


def _carry(ray: Any, address: str | None, place: _Place, machines: list[str]) -> None:
    """Connect again, so that Ray carries a copy of the working folder to machines that do not share it, and say what that means.

    Raises StudyError where the folder is too large.
    """
    named = ", ".join(sorted(set(machines)))
    ray.shutdown()
    try:
        _connect(ray, address, {"working_dir": place.folder, "excludes": list(LEFT_OUT)})
    except StudyError as error:
        raise StudyError(
            f"{named} of the cluster has no folder {place.folder}, and it cannot be carried there: {error.message}",
            place="--executor ray",
            hint="work in a folder that all machines share, or name what runs do not need in .rayignore: `ablate docs cluster`",
        ) from None
    print(
        f"{named} of the cluster: no folder {place.folder} is shared, so Ray carries a copy there. Results and"
        " saved models come back; checkpoints and folders of runs stay there, and a run whose machine is lost begins again",
        file=sys.stderr,
    )


def _request(machines: Mapping[str, Mapping[str, float]], wanted: Wanted) -> Request:
    """Return what a slot asks for. Raises StudyError where no machine has it.

    A run that takes several CPUs takes those of a machine that has fewer, as it does without a cluster.
    """
    each, per_device = wanted.each, wanted.per_device
    has_gpus = any(resources.get("GPU", 0) >= 1 for resources in machines.values())
    if wanted.devices == "cuda" or (wanted.devices == "auto" and has_gpus):
        if each > 1 and per_device > 1:
            raise StudyError(
                f"a run takes {each} GPUs, and Ray shares a GPU only among runs that take one",
                place="--runs-per-device",
                hint="leave it out",
            )
        # Ray counts in ten-thousandths, rounded: seven of its sevenths are more than a GPU.
        gpus = each if per_device == 1 else math.floor(UNITS / per_device) / UNITS
        request = Request(cpus=1 if per_device == 1 else 0, gpus=gpus)
        lacking = "GPU" if each == 1 else f"machine with {each} GPUs"
        if request.cpus and any(resources.get("GPU", 0) >= each for resources in machines.values()):
            lacking += " and CPU" if each == 1 else " and a CPU"
    else:
        most = max((int(resources.get("CPU", 0)) for resources in machines.values()), default=0)
        request, lacking = Request(cpus=max(1, min(each, most))), "CPU"
    if not any(request.fitting(resources) for resources in machines.values()):
        raise StudyError(
            f"the cluster has no {lacking} for a run ({_inventory(machines)})",
            place="--executor ray",
            hint="`--devices cpu` needs no GPU" if request.gpus else "`ray status` shows what it has",
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
    disconnect from the cluster at the end, which ends one that was begun here. place: where the command runs. apart: the training for
    machines that do not share it.
    """

    def __init__(
        self,
        training: Training,
        request: Request,
        workers: int | None = None,
        preload: tuple[str, ...] = (),
        *,
        shut_down: bool = False,
        place: _Place | None = None,
        apart: Training | None = None,
    ) -> None:
        self._ray = _imported()
        self._training = training
        self._place = place or _Place.here(None)
        self._apart = apart or training
        self._request = request
        self._workers = workers
        self._preload = preload
        self._shut_down = shut_down
        self._seats: dict[str, _Seat] = {}
        self._made = 0
        self._refreshed = -math.inf
        # Machines without the folder, or on which no worker can begin, that came once others had begun; and what was said of them.
        self._left_out: set[str] = set()
        self._told: set[str] = set()

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
            events, networks = self._ray.get(next(seat.stream))
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
        if any(isinstance(event, Failed) and event.kind == "crash" for event in events):
            self._doubt(seat.machine)
        return [_brought(event, networks) for event in events]

    def _lost(self, seat: _Seat, error: BaseException) -> list[Event]:
        """Give up a slot whose actor is gone, and return the failures of its open runs."""
        del self._seats[seat.slot.name]
        self._refreshed = -math.inf
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor, no_restart=True)
        self._doubt(seat.machine)
        return self._crashed(seat, _cause(error))

    def _doubt(self, machine: str) -> None:
        """Ask the free slots of a machine again whether they are there, and use none that has not answered.

        A machine goes before Ray knows it, and what its slots were given would fail one after another. Those that are there answer at once.
        """
        free = [
            seat
            for seat in self._seats.values()
            if seat.machine == machine and seat.ready and seat.stream is None
        ]
        for seat in free:
            seat.answer = _control(seat.actor.place).remote()
        if free:
            self._ray.wait([seat.answer for seat in free], num_returns=len(free), timeout=REFRESH)

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
            machines = _machines(self._ray)
            for gone in {seat.machine for seat in self._seats.values()} - {"", *machines}:
                self._doubt(gone)
            room = sum(
                self._request.fitting(resources)
                for machine, resources in machines.items()
                if machine not in self._left_out
            )
            for _ in range(min(room, self._workers or room) - len(self._seats)):
                self._add()
        for seat in [seat for seat in self._seats.values() if not seat.ready]:
            answered, _ = self._ray.wait([seat.answer], timeout=0)
            if answered:
                self._hear(seat)

    def _hear(self, seat: _Seat) -> None:
        """Take the answer of an actor that has begun. Raises StudyError where the first machine of all lacks what a study needs."""
        try:
            machine, name, has_folder = self._ray.get(seat.answer)
        except self._ray.exceptions.RayError as error:
            del self._seats[seat.slot.name]
            # Either its machine went before it was ready, or it could not begin, and the next one there will not either.
            if "creation task" in str(error):
                machine, name = _where(self._ray, error)
                self._leave_out(machine, name, _cannot_begin(error))
            return
        if has_folder:
            seat.answer, seat.machine = None, machine
            return
        del self._seats[seat.slot.name]
        with contextlib.suppress(Exception):
            self._ray.kill(seat.actor, no_restart=True)
        lacking = StudyError(
            f"{name} of the cluster has no folder {self._place.folder}",
            place="--executor ray",
            hint="work in a folder that all machines share, or let `ray job submit --working-dir .` carry it: `ablate docs cluster`",
        )
        self._leave_out(machine, name, lacking)

    def _leave_out(self, machine: str, name: str, lacking: StudyError) -> None:
        """Train nothing on a machine, and say why. Raises that where no other machine has ever had a slot that was ready."""
        if not any(seat.machine for seat in self._seats.values()):
            raise lacking
        self._left_out.add(machine)
        if name not in self._told:
            self._told.add(name)
            print(f"{lacking.message}: nothing is trained on {name}", file=sys.stderr)

    def _add(self) -> None:
        """Ask the cluster for one more actor."""
        name = f"ray-{self._made}"
        self._made += 1
        slot = Slot(name, self._request.device)
        # Variables and folders of sites differ from machine to machine; ablate's own settings do not.
        settings = {key: value for key, value in os.environ.items() if key.startswith("ABLATE_")}
        path = [entry or self._place.folder for entry in sys.path]
        remote = self._ray.remote(
            num_cpus=self._request.cpus,
            num_gpus=self._request.gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={"control": 1},
        )(Agent)
        trainings = pickle.dumps(self._training), pickle.dumps(self._apart)
        actor = remote.remote(trainings, slot, self._preload, self._place, path, settings)
        self._seats[name] = _Seat(slot, actor, _control(actor.place).remote())

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
        self._place.leave()
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


def _where(ray: Any, error: BaseException) -> tuple[str, str]:
    """Return the machine on which an actor could not begin, Ray's id ('' where it is not known) and its name."""
    found = re.search(r"\bip=([0-9a-fA-F.:]+)", str(error))
    for node in ray.nodes():
        if found is not None and node["Alive"] and node["NodeManagerAddress"] == found[1]:
            return node["NodeID"], node["NodeManagerHostname"]
    return "", "a machine of the cluster"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _brought(event: Event, networks: Mapping[str, bytes]) -> Event:
    """Return the event, with the network of its run in a file of this machine where it came from one that does not share the store."""
    if not isinstance(event, Finished) or event.model is None or event.model not in networks:
        return event
    file = Path(event.model).absolute()
    # Where it cannot be written, the result counts all the same, and its record will say that the network is gone.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(networks[event.model])
    return replace(event, model=str(file))


# --- on the machine of a slot -------------------------------------------------------------------------------------


class Agent:
    """The actor of a slot.

    trainings: pickles, which can be read only once modules are looked for where the study's command looks for them: in `path`. The
    first is for machines that share the place of the command, the second for others, which work in the copy that Ray has brought.
    settings: variables of ablate.
    """

    def __init__(
        self,
        trainings: tuple[bytes, bytes],
        slot: Slot,
        preload: tuple[str, ...],
        place: _Place,
        path: list[str],
        settings: Mapping[str, str],
    ) -> None:
        import ray

        self._slot = slot
        self._lock = threading.Lock()
        # Numbers of bundles: the last that has begun, and the last to be killed; runs cancelled before their bundle has begun.
        self._begun = self._killed = 0
        self._cancelled: dict[int, list[str]] = {}
        context = ray.get_runtime_context()
        self._machine = context.get_node_id()
        self._shares = place.is_here()
        self._has_folder = self._shares or "working_dir" in context.runtime_env
        if not self._has_folder:
            return
        if self._shares:
            os.chdir(place.folder)
        else:
            path = [_moved(entry, place.folder, str(Path.cwd())) for entry in path]
        sys.path[:] = [*path, *(entry for entry in sys.path if entry not in path)]
        os.environ.update(settings)
        self._executor = LocalExecutor(pickle.loads(trainings[not self._shares]), (slot,), preload)
        self._executor.warm_up()

    def place(self) -> tuple[str, str, bool]:
        """Return Ray's id of this machine, its name, and whether it has the folder."""
        return self._machine, os.uname().nodename, self._has_folder

    def events(self, number: int, bundle: Bundle) -> Iterator[tuple[list[Event], dict[str, bytes]]]:
        """Train a bundle, and yield its events as they come, with the networks that have to travel: file → content.

        number: of the bundle, 1, 2, … over the actor's life.
        """
        with self._lock:
            killed = self._killed >= number
            if not killed:
                self._executor.submit(bundle, self._slot)
                self._begun = number
                for run in self._cancelled.pop(number, ()):
                    self._executor.cancel(run)
        if killed:
            reason = "killed before it began"
            yield (
                [Failed(task.run, task.attempt, 0, time.time(), "crash", reason) for task in bundle.tasks],
                {},
            )
            return
        open_runs = set(bundle.runs)
        while open_runs:
            events = self._executor.wait()
            open_runs -= {event.run for event in events if is_last(event)}
            yield events, {} if self._shares else _taken(events)

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
        """End the worker, and what it was forked from."""
        with self._lock:
            self._executor.__exit__(None, None, None)
            end_forkserver()


def _moved(entry: str, here: str, there: str) -> str:
    """Return an entry of `sys.path` with one folder, where it lies in it, in place of the other."""
    path = Path(entry)
    return str(Path(there) / path.relative_to(here)) if path.is_relative_to(here) else entry


def _taken(events: list[Event]) -> dict[str, bytes]:
    """Take the networks that runs have left in files of this machine: file → content."""
    networks = {}
    for event in events:
        if isinstance(event, Finished) and event.model is not None:
            file = Path(event.model)
            with contextlib.suppress(OSError):
                networks[event.model] = file.read_bytes()
                file.unlink()
    return networks
