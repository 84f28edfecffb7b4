"""Where results are kept: an MLflow store, and a folder beside it for what MLflow does not hold."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import BinaryIO

from ablate import addresses, locks, plain_files
from ablate.errors import StoreError
from ablate.text import without_password
from ablate.tracking.tags import number

_SERVERS = ("http", "https", "databricks", "databricks-uc", "uc")
"""Kinds of addresses that are no databases, and that MLflow's client knows."""


FOLDERS = (
    "artifacts",
    "cache",
    "checkpoints",
    "locks",
    "locks/studies",
    "models",
    "runs",
    "spool",
    "spool/rejected",
)
"""Folders of a store that ablate itself makes."""

_OF_PLAIN_FILES = ("checkpoints", "models")
"""Folders in which training, which knows nothing of stores, writes files under names that can be known beforehand."""

_DATABASE_FILES = ("", "-journal", "-wal", "-shm")
"""Ends of the names of the files that sqlite keeps of one database."""


@dataclass(frozen=True)
class Store:
    """uri: of MLflow's store. root: the folder `mlruns`, with the local database, artifacts, Optuna's journal, spool and locks."""

    uri: str
    root: Path

    @cached_property
    def database(self) -> Path | None:
        """Return the file of a local sqlite store; None for a server or another database."""
        return addresses.database_path(self.uri)

    @property
    def place(self) -> str:
        """Return the address for people: without a password."""
        return without_password(self.uri)

    @property
    def typed(self) -> str:
        """Return the address as it is typed in the working folder, for a shell."""
        if self.database == Path("mlruns").resolve() / "mlflow.db":
            return f"{addresses.SQLITE}mlruns/mlflow.db"
        return shlex.quote(self.place)

    @property
    def variable(self) -> str:
        """Return what stands before a command of MLflow's in a shell, for it to find the store; '' where the environment says it."""
        return (
            "" if os.environ.get("MLFLOW_TRACKING_URI", "").strip() else f"MLFLOW_TRACKING_URI={self.typed} "
        )

    def artifacts(self, recorded: str) -> Path | None:
        """Return the folder of this machine where artifacts lie; None where they are elsewhere. recorded: their address in the record.

        The record holds whole paths, and a project may have been copied, moved or renamed since. What lies in the store's own
        folder is looked for there, so that a copy never touches what it was copied from.
        """
        path = addresses.folder_path(recorded)
        if path is None or self.database is None:
            return path
        tail = _tail(path)
        if tail is None:
            return path
        here = self.root / "artifacts" / tail.parts[0]
        if self.database.parent == self.root:
            is_here = here.is_dir() or not path.parents[len(tail.parts) - 2].is_dir()
        else:  # several projects may share it, each with artifacts of its own
            is_here = here.is_dir() and not path.parents[len(tail.parts) - 2].is_dir()
        return self.root / "artifacts" / tail if is_here else path

    def check(self) -> None:
        """Raise StoreError where a link leads from the store to somewhere else; what cannot be a file of ablate's own is removed.

        A store may have come with a folder of somebody else's. A user who wants it on another disk links `mlruns` as a whole, or
        names a database.
        """
        names = list(FOLDERS)
        if self.database is not None and self.database.parent == self.root:
            names += [f"{self.database.name}{end}" for end in _DATABASE_FILES]
        for path in (self.root / name for name in names):
            if path.is_symlink():
                raise link_error(path)
        for name in _OF_PLAIN_FILES:
            with contextlib.suppress(OSError):
                plain_files.remove_others(self.root / name)

    @property
    def exists(self) -> bool:
        """Return whether there is anything to read; a server is assumed to be there."""
        return self.database is None or self.database.exists()

    def folder(self, name: str) -> Path:
        """Return a folder under the root, which is made if needed. Raises StoreError."""
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"cannot make the folder ({error.strerror})", place=str(path), hint="run where you may write"
            ) from None
        return path

    def cache(self, experiment: str, kind: str) -> Path:
        """Return the file in which something read from an experiment is kept. experiment: its name, which may be any text.

        The names of studies are those of files; an experiment of another program's has one after which no file can be called.
        """
        named = experiment if plain_files.can_name_files(experiment) else f"={_digest(experiment)}"
        return self.root / "cache" / f"{named}.{kind}.npz"

    def lock_file(self, study: str) -> Path:
        """Return the file of a study's lock, which is left there: it exists once the study has run."""
        # A folder of its own: the locks of the store itself stand beside it, and a study may have any of their names.
        return self.root / "locks" / "studies" / f"{study}.lock"

    @contextlib.contextmanager
    def lock(self, study: str) -> Iterator[None]:
        """Hold a study's lock, which dies with this process. Raises StoreError where another process holds it."""
        self.folder("locks/studies")
        path = self.lock_file(study)
        with open_lock(path) as file:
            if not locks.lock(file, path, wait=False):
                file.seek(0)
                owner_name = file.read(1000).decode(errors="replace").strip()
                raise StoreError(
                    f"another process runs this study ({owner_name or 'unknown'})",
                    place=study,
                    hint="wait for it, or stop it; `ablate status` shows how far it is",
                )
            file.truncate(0)
            file.write(owner().encode())
            file.flush()
            yield


def link_error(path: Path) -> StoreError:
    """Return the error of a link where the store has a file or folder of its own."""
    return StoreError(
        "is a link, which may lead to files that are not the store's",
        place=str(path),
        hint="remove it; to keep the store on another disk, let `mlruns` itself be a link",
    )


def is_run_folder(folder: Path, run: str) -> bool:
    """Return whether a folder is called as ablate calls that of a run's artifacts: a local database may be from somebody else."""
    return (folder.parent.name, folder.name) == (run, "artifacts")


def link_in(folder: Path) -> Path | None:
    """Return a link by which the folder of a run's artifacts may lead out of the store; None where there is none."""
    return next((path for path in (folder, *folder.parents[:2]) if path.is_symlink()), None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def open_lock(path: Path) -> BinaryIO:
    """Open a file that is locked, and made where there is none. Raises StoreError where it cannot be, or leads elsewhere."""
    try:
        return plain_files.open_in_place(path)
    except OSError as error:
        is_others = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        if not path.parent.exists():
            raise StoreError(
                "has been moved or removed while the command ran",
                place=str(path.parent),
                hint="what is finished is in the folder, wherever it lies now",
            ) from None
        raise StoreError(
            f"cannot be used as a lock ({error.strerror})",
            place=str(path),
            hint="in a copy of the project, everything is your own"
            if is_others
            else "remove it, then run again",
        ) from None


_NO_RUN = 2**62
"""A place in the file of claims that belongs to no run."""


class Claims:
    """Locks on runs, so that two studies on one machine never train the same run at the same time.

    All locks are byte ranges of one file, which the kernel releases when the process dies. A process may make only one of these:
    closing any handle of the file releases every lock that the process has on it. Raises NoLocksError.
    """

    def __init__(self, store: Store) -> None:
        self._path = store.folder("locks") / "runs.lock"
        self._file = open_lock(self._path)
        try:  # before a study begins, not at its first run
            if locks.lock_byte(self._file, self._path, _NO_RUN):
                locks.unlock_byte(self._file, _NO_RUN)
        except StoreError:
            self._file.close()
            raise

    def take(self, run: str) -> bool:
        """Lock a run. Returns False where another process has it. run: its key. Raises NoLocksError."""
        return locks.lock_byte(self._file, self._path, self._place(run))

    def give_back(self, run: str) -> None:
        """Release the lock of a run. run: its key."""
        locks.unlock_byte(self._file, self._place(run))

    def close(self) -> None:
        self._file.close()

    @staticmethod
    def _place(run: str) -> int:
        return int(run[:15], 16)


def current_store() -> Store:
    """Return the store of the working folder, or the server that MLFLOW_TRACKING_URI names."""
    # Absolute, because MLflow keeps connections by name for as long as the process lives.
    try:
        root = Path("mlruns").resolve()
        is_loop = root.is_symlink()
    except FileNotFoundError:
        raise StoreError(
            "the working folder has been removed", place="mlruns", hint="change into a folder that exists"
        ) from None
    except (OSError, RuntimeError):  # as Python 3.11 and 3.12 say; later ones resolve a loop to itself
        is_loop = True
    if is_loop:
        raise StoreError(
            "is a link that leads nowhere", place="mlruns", hint="remove it, or let it lead to a folder"
        )
    named = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if named:
        _check_address(named)
    store = Store(
        addresses.resolved(named) if named else addresses.database_address(root / "mlflow.db"), root
    )
    store.check()
    return store


def _check_address(uri: str) -> None:
    """Refuse what MLFLOW_TRACKING_URI may not be. Raises StoreError."""
    where, shown = "MLFLOW_TRACKING_URI", without_password(uri)
    scheme = uri.partition(":")[0].lower() if re.match(r"[A-Za-z][\w+.-]*:(?!\\)", uri) else ""
    if scheme.startswith("sqlite") and re.search(r"(//|:memory:|mode=memory.*)\Z", uri):
        raise StoreError(
            f"{shown!r} is a database in memory, which ends with the command",
            place=where,
            hint="name a file, sqlite:///mlruns/mlflow.db, or leave the variable unset, which means that file",
        )
    if not addresses.is_address(uri):
        raise StoreError(
            f"{shown!r} is no address",
            place=where,
            hint="for example http://HOST:PORT, or sqlite:///mlruns/mlflow.db",
        )
    if "://" in uri and scheme != "file":
        return
    if (scheme or uri) in _SERVERS or os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        return
    if re.fullmatch(r"[\w.-]+:\d+/?", uri):
        raise StoreError(f"{shown!r} is no address", place=where, hint=f"did you mean http://{shown} ?")
    raise StoreError(
        f"{shown!r} is a folder, and MLflow keeps runs in plain folders no longer",
        place=where,
        hint="name a database, sqlite:///mlruns/mlflow.db, or a server, http://HOST:PORT; unset, everything is under ./mlruns",
    )


def _tail(path: Path) -> Path | None:
    """Return the part of a path of artifacts below the store's own folder of them: STUDY or STUDY/RUN/artifacts; None for another path."""
    parts = path.parts
    if len(parts) > 4 and parts[-1] == parts[-4] == "artifacts" and re.fullmatch("[0-9a-f]{32}", parts[-2]):
        return Path(*parts[-3:])
    return Path(parts[-1]) if len(parts) > 2 and parts[-2] == "artifacts" else None


@cache
def boot_id() -> str:
    """Return a name of this boot of the machine, `unknown` where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "unknown"


def _started(pid: int) -> str:
    """Return when a process began, in clock ticks since boot: tells it from a later one with the same id.

    "0" where the system does not say, "ended" for a process that has ended and that its parent has not waited for: in containers whose first
    process waits for none, it stays in the list.
    """
    try:
        about = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "ended" if about[0] in ("Z", "X") else about[19]
    except (OSError, IndexError):
        return "0"


_FIRST_NAMESPACE = 0xEFFFFFFC
"""What Linux numbers the namespace of processes in which a machine begins; those of containers have other numbers."""


@cache
def _namespace() -> int:
    """Return the number of the namespace that process ids are of, 0 where the system has none."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


@cache
def _machine() -> str:
    """Return a name of this machine that outlives its boots and that no other has, '' where there is none: a container has its image's."""
    if _namespace() != _FIRST_NAMESPACE:
        return ""
    try:
        return Path("/etc/machine-id").read_text().strip()[:12]
    except OSError:
        return ""


def owner() -> str:
    """Return a name of this process by which another can tell whether it still lives.

    Several machines may have one host name, as containers of one or of several machines may; the rest of the name keeps them apart.
    """
    pid = os.getpid()
    return f"{socket.gethostname()}/{boot_id()}/{pid}/{_started(pid)}/{_namespace()}/{_machine()}"


def is_dead(name: str) -> bool:
    """Return whether an owner is certainly gone: a process of this machine, of an earlier boot or no longer running.

    Of a process of which this machine cannot know, its lease tells. An older ablate has named neither namespace nor machine.
    """
    host, _, rest = name.partition("/")
    if host != socket.gethostname():
        return False
    boot, pid, started, namespace, machine = (*rest.split("/"), *[""] * 5)[:5]
    if boot != boot_id():
        return bool(machine) and machine == _machine()
    if namespace not in ("", str(_namespace())):
        return False
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # Without /proc only the process id can be compared.
    return _started(int(pid)) not in (started, "0")


def is_alive(name: str) -> bool:
    """Return whether an owner certainly lives: the very process, on this machine since its last boot."""
    host, _, rest = name.partition("/")
    boot, pid, started, namespace = (*rest.split("/"), *[""] * 4)[:4]
    same = (host, boot, namespace) == (socket.gethostname(), boot_id(), str(_namespace()))
    return same and pid.isdigit() and started not in ("", "0") and _started(int(pid)) == started


def is_abandoned(tags: Mapping[str, str]) -> bool:
    """Return whether the process that owns a run is gone, or has not renewed its lease and cannot be seen to live. tags: of the run.

    Leases run out early where the clock is set forward, or the machine has slept.
    """
    name = tags.get("ablate.owner") or ""
    if not name or is_dead(name):
        return bool(name)
    return number(tags, "ablate.lease", 0) < time.time() and not is_alive(name)
