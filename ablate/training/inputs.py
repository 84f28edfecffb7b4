"""What training by the user's own code reads besides its code and its settings: files, and variables of the environment.

No key of a run holds them, for they are known only once the run has read them. So each run notes what they held, and a result is not
taken for what would be trained today where that has changed. Seen is what Python code opens, and the folders whose files it lists, in
all threads of the process that trains and in the processes that it forks, such as those of a data loader; what compiled code opens by
itself (HDF5, Arrow), what programs read that the training starts, spawned processes among them, and files of which only their presence,
size or time is asked, are not.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO, Any
from urllib.parse import unquote

from ablate.code_digest import digest_of, is_users
from ablate.text import is_secret_variable

WHOLE = 64 << 20
"""Bytes of a file that are read for its digest; of a larger one its size, its beginning and its end."""

MOST_READ = 1 << 30
"""Bytes of files that a run reads a second time, for their digests; of files beyond them the size counts. Whole data sets are read too."""

PIECE = 1 << 20

TICK = 20_000_000
"""Nanoseconds by which the time of a file may lie before the clock's at which it was written: systems count it in ticks."""

LONGEST = 4000
"""Characters of what is kept of a run: a tag of MLflow holds 8,000 at most, of older versions 5,000."""

MOST_LOOKED_AT = 500
"""Files, folders and variables of one run that are looked at again."""

MOST_MADE = 10
"""Files that a run wrote where others find them, of which it is kept that it did."""

_CODE = (".py", ".pyc", ".pyo")
"""Endings of files that are opened to be imported: those are looked for among the modules."""

_RECORDS = frozenset({"__pycache__", "mlruns", "wandb"})
"""Folders in which Python and trackers keep what they themselves read again."""

_OF_TOOLS = re.compile(
    r"\.(.*cache.*|git|hg|svn|venv|env|tox|nox|ipynb_checkpoints|idea|vscode|dvc|hydra|neptune|aim|guild|clearml|triton|matplotlib|local)"
)
"""Hidden folders of the working folder in which tools keep what is theirs; in other hidden ones there may be settings."""

_SHORT = 6
"""Characters from which the value of a variable that is called a token may be a password: `MASK_TOKEN=103` is none."""

_OF_THE_MACHINE = tuple(
    dict.fromkeys(
        os.path.realpath(folder)
        for folder in (
            *(
                "/proc",
                "/sys",
                "/dev",
                "/run",
                "/etc",
                "/usr",
                "/bin",
                "/lib",
                "/lib64",
                "/System",
                "/Library",
            ),
            *(sys.prefix, sys.base_prefix),
        )
    )
)

_OF_PEOPLE = tuple(os.path.realpath(folder) + os.sep for folder in ("/dev/shm", "/run/media"))  # noqa: S108 — nothing is written there
"""Where people put files that are to be read fast, and where their disks appear."""

NO_SETTING = re.compile(
    r"(CUDA|NVIDIA|NCCL|OMP|MKL|OPENBLAS|NUMEXPR|SLURM|PBS|LSB|RAY|ABLATE|MLFLOW|XDG|SSH|DBUS|LC|MASTER|VSCODE|CONDA)_.*"
    r"|(HOME|USER|LOGNAME|PATH|PWD|OLDPWD|SHELL|TERM|LANG|HOSTNAME|TMPDIR|TEMP|TMP|DISPLAY|COLUMNS|LINES|SHLVL|_)"
    r"|(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|CI|VIRTUAL_ENV|NO_COLOR|FORCE_COLOR|TQDM_DISABLE|PYTHON\w*)"
)
"""Variables that say where and on what a process runs."""


def is_of_machine(path: str) -> bool:
    """Return whether a file is the system's, or of the installed Python. path: without links."""
    return not path.startswith(_OF_PEOPLE) and path.startswith(
        tuple(folder + os.sep for folder in _OF_THE_MACHINE)
    )


def is_setting(variable: str, value: str | None = None) -> bool:
    """Return whether a variable may decide a result, by its name, and is no password. value: of the variable, where it is known."""
    if NO_SETTING.fullmatch(variable):
        return False
    is_word = variable.upper().endswith("TOKEN") and value is not None and len(value) < _SHORT
    return is_word or not is_secret_variable(variable)


# --- while it trains ----------------------------------------------------------------------------------------------------


class Inputs:
    """What one training reads in this process. While a step of it runs, `with inputs:`.

    without: folders and files that do not count, such as the run's own. What its modules read while they are imported is an input of
    every run after that.
    """

    def __init__(self) -> None:
        self._loaded_before = frozenset(sys.modules)
        self._of_packages: set[str] = set()
        self._at_import: tuple[dict[str, str], set[str], dict[str, str]] = {}, set(), {}
        self._first = self._began = time.time_ns() - TICK
        self._without: tuple[str, ...] = ()
        self._files: dict[str, str] = {}
        self._folders: set[str] = set()
        self._written: set[str] = set()
        self._appended: set[str] = set()
        self._read_again: set[str] = set()
        self._variables: dict[str, str] = {}
        self._set: set[str] = set()
        self._updated: set[str] = set()
        self._read = 0
        self._process = os.getpid()
        self._told: IO[bytes] | None = None
        self._told_file = 0, 0
        self._taken_in = 0

    def imported(self) -> None:
        """Say that the modules of the training are imported now."""
        self._at_import = dict(self._files), set(self._folders), dict(self._variables)

    def begin(self, without: Collection[Path] = (), *, keep: bool = False) -> None:
        """Begin a run. keep: what the runs before it have read is its input too, for it may still have it."""
        self._began = time.time_ns() - TICK
        self._process = os.getpid()
        self._without = tuple(os.path.realpath(path) for path in without)
        if not keep:
            files, folders, variables = self._at_import
            self._files, self._folders, self._variables = dict(files), set(folders), dict(variables)
            self._written, self._set, self._updated, self._read = set(), set(), set(), 0
            self._appended, self._read_again = set(), set()

    def __enter__(self) -> None:
        global _current  # noqa: PLW0603 — of the process
        _watch()
        _current = self

    def __exit__(self, *_: object) -> None:
        global _current  # noqa: PLW0603 — of the process
        _current = None

    def text(self, code: Collection[str] = ()) -> str:
        """Return what was read and what it held, for the record; '' for nothing.

        code: paths of files, without links, that the key holds. Other modules of the user's that were loaded count as files.
        """
        self.collect()
        files = {
            path: held
            for path, held in self._files.items()
            if path not in self._written
            and not (path in self._updated and content_of(path, by_size=held.startswith(_SIZE)) != held)
        }
        for name, module in list(sys.modules.items()):
            file = None if name in self._loaded_before else getattr(module, "__file__", None)
            # Packages have many files; to ask where each lies after every run takes milliseconds.
            if not isinstance(file, str) or file in self._of_packages:
                continue
            if not is_users(file):
                self._of_packages.add(file)
            else:
                path = os.path.realpath(file)
                if path not in code and os.path.isfile(path):  # noqa: PTH113 — of a text
                    files[path] = content_of(path)
        variables = {name: held for name, held in self._variables.items() if name not in self._set}
        folders = {named(path): held for path in sorted(self._folders) if (held := self._names_in(path))}
        made = {
            named(path)
            for path in self._written - self._appended
            if self._counts(path) and os.path.isfile(path)  # noqa: PTH113 — of a text
        }
        used = {named(path) for path in self._read_again | self._files.keys()}
        return as_text({named(path): held for path, held in files.items()}, variables, folders, made, used)

    def opened(self, path: Any, mode: Any, flags: Any) -> None:
        """A file is about to be opened by code of the user's."""
        name = os.path.realpath(os.fsdecode(path))
        reads, writes = _access(mode, flags)
        if name in self._written:
            if reads:
                self._read_again.add(name)
        elif writes and not reads:
            if "a" in mode if isinstance(mode, str) else flags & os.O_APPEND:
                self._appended.add(name)
            self._written.add(name)
            self._tell_parent("written", name)
        elif self._counts(name):
            if writes and name not in self._updated:
                self._updated.add(name)
                self._tell_parent("updated", name)
            if name in self._files:
                return
            with contextlib.suppress(OSError):
                about = Path(name).stat()
                if about.st_mtime_ns >= self._began:
                    # Made in this run, by a program that it started, or by another run.
                    self._written.add(name)
                    self._read_again.add(name)
                    self._tell_parent("written", name)
                    return
                self._read += min(about.st_size, WHOLE)
            self._files[name] = content_of(name, by_size=self._read > MOST_READ)
            self._tell_parent("file", name, self._files[name], self._read)

    def listed(self, folder: Any) -> None:
        """The names in a folder are about to be listed by code of the user's.

        In the working folder, and those around it, there is too much else.
        """
        path = os.path.realpath(os.fsdecode("." if folder is None else folder))
        around = (os.path.realpath(os.getcwd()), os.path.realpath(tempfile.gettempdir()), str(Path.home()))  # noqa: PTH109
        if not any(f"{each}/".startswith(f"{path.rstrip('/')}/") for each in around) and self._counts(
            os.path.join(path, "_")  # noqa: PTH118 — of texts
        ):
            self._folders.add(path)
            self._tell_parent("folder", path)

    def _names_in(self, folder: str) -> str | None:
        """Return what is kept of the names in a folder; None where they have changed since the first run of this process.

        They are what came of these runs then, or of others beside them.
        """
        with contextlib.suppress(OSError):
            if Path(folder).stat().st_mtime_ns < self._first:
                return names_of(folder)
        return None

    def _counts(self, path: str) -> bool:
        if any(path == folder or path.startswith(folder + os.sep) for folder in self._without):
            return False
        if not is_users(path) or is_of_machine(path):
            return False
        place = named(path)
        *folders, name = Path(place).parts
        return (
            not name.endswith(_CODE)
            and _RECORDS.isdisjoint(folders)
            and not any(
                os.path.isabs(place) or _OF_TOOLS.fullmatch(part)  # noqa: PTH117 — of a text
                for part in folders
                if part.startswith(".")
            )
        )

    def asked(self, name: str, value: str | None) -> None:
        """Code of the user's has asked for a variable of the environment."""
        if name not in self._variables and is_setting(name, value):
            self._variables[name] = value_of(value)
            if name not in self._set:
                self._tell_parent("variable", name, self._variables[name])

    def set(self, name: str) -> None:
        """Code of the user's has set a variable, whose value is its own from now on."""
        if name not in self._variables:
            self._set.add(name)

    # --- forked processes ---

    def forks(self) -> None:
        """A process is about to be forked. It will know what was read before, and tell what it reads itself."""
        self._take_in()
        if self._told is None and os.getpid() == self._process:
            self._told = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 — until `collect`
            about = os.fstat(self._told.fileno())
            self._told_file = about.st_dev, about.st_ino

    def collect(self) -> None:
        """Take in what forked processes have told so far; those that are left tell nothing more."""
        self._take_in()
        if self._told is not None and os.getpid() == self._process:
            self._told.close()
            self._told, self._taken_in = None, 0

    def _take_in(self) -> None:
        if self._told is None or os.getpid() != self._process:
            return
        with contextlib.suppress(OSError):
            number = self._told.fileno()
            content = os.pread(number, os.fstat(number).st_size - self._taken_in, self._taken_in)
            # A process that was killed may have left half a line, and one that still runs goes on where the last one ended.
            for line in content.splitlines():
                with contextlib.suppress(ValueError):
                    self._hear(*json.loads(line))
            self._taken_in += len(content)

    def _hear(self, kind: str, name: str, held: str, read: int) -> None:
        if kind == "file":
            self._files.setdefault(name, held)
            self._read = max(self._read, read)
        elif kind == "variable":
            self._variables.setdefault(name, held)
        else:
            {"written": self._written, "updated": self._updated, "folder": self._folders}[kind].add(name)

    def _tell_parent(self, kind: str, name: str, held: str = "", read: int = 0) -> None:
        """Tell the process that trains what this one, which it has forked, has read or written."""
        if self._told is None or os.getpid() == self._process:
            return
        with contextlib.suppress(OSError):
            number = self._told.fileno()
            about = os.fstat(number)
            # A process may have closed everything that it inherited, and opened something else by the same number.
            if (about.st_dev, about.st_ino) == self._told_file:
                os.write(number, json.dumps([kind, name, held, read]).encode() + b"\n")


def _access(mode: Any, flags: Any) -> tuple[bool, bool]:
    """Return whether a file is opened to read what it holds, and whether to write. mode: of `open`, else flags of `os.open`."""
    if isinstance(mode, str):
        return "r" in mode or not set("wax") & set(mode), bool(set("wax+") & set(mode))
    flags = flags if isinstance(flags, int) else 0
    both = bool(flags & os.O_RDWR)
    return (
        not flags & (os.O_WRONLY | os.O_RDWR) or (both and not flags & (os.O_CREAT | os.O_TRUNC)),
        both or bool(flags & os.O_WRONLY),
    )


_current: Inputs | None = None
_is_watched = False
_busy = threading.local()


def _watch() -> None:
    global _is_watched  # noqa: PLW0603 — an audit hook stays for the life of the process
    if not _is_watched:
        sys.addaudithook(_audited)
        os.register_at_fork(before=_forking)
        _is_watched = True
    for environment in (os.environ, getattr(os, "environb", None)):
        if type(environment) is os._Environ:  # noqa: SLF001 — there is no other way to learn who asks
            environment.__class__ = _Environment


def _audited(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _SEEN or _current is None or getattr(_busy, "now", False):
        return
    _busy.now = True
    try:
        path, caller = arguments[0], sys._getframe(1)  # noqa: SLF001 — there is no other door
        if isinstance(path, int) or not _is_asked_by_user(caller):
            return
        if event in _LISTING:
            # Whoever imports looks through the folders of `sys.path`.
            if not caller.f_code.co_filename.startswith("<frozen importlib"):
                _current.listed(path)
        elif event == "open":
            _current.opened(path, *arguments[1:3])
        elif isinstance(path, str | bytes | os.PathLike) and os.path.isfile(place := _place(path)):  # noqa: PTH113
            _current.opened(place, "r" if event == "ctypes.dlopen" else "r+", 0)
    except Exception:  # noqa: BLE001 — nothing that is only looked at may end a training
        return
    finally:
        _busy.now = False


_LISTING = frozenset({"os.listdir", "os.scandir"})
_SEEN = _LISTING | {"open", "sqlite3.connect", "ctypes.dlopen"}
"""Events of Python's that are looked at."""


def _place(name: Any) -> str:
    """Return the path of a library or a database, which may be given as an address: `file:results.db?mode=ro`."""
    path = os.fsdecode(name)
    return unquote(path[len("file:") :].partition("?")[0]) if path.startswith("file:") else path


def _forking() -> None:
    if _current is None or getattr(_busy, "now", False):
        return
    _busy.now = True
    try:
        _current.forks()
    except Exception:  # noqa: BLE001 — as above
        return
    finally:
        _busy.now = False


def _is_asked_by_user(frame: FrameType | None) -> bool:
    """Return whether code of the user's is among those that wait for a call, or started the thread that makes it.

    A thread of a pool knows nothing of who gave it its work: `pool.map(Path.read_bytes, files)`. Those of ablate's begin in its own code.
    """
    is_ablates = False
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            return True
        is_ablates = is_ablates or frame.f_code.co_filename.startswith(_ABLATE)
        frame = frame.f_back
    return not is_ablates


_ABLATE = str(Path(__file__).parents[1]) + os.sep


class _Environment(os._Environ):  # type: ignore[type-arg]  # noqa: SLF001 — it cannot be wrapped
    """The environment, which tells what code of the user's asks it for."""

    def __getitem__(self, key: Any) -> Any:
        try:
            value = super().__getitem__(key)
        except KeyError:
            self._tell(key, None)
            raise
        self._tell(key, value)
        return value

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value)
        if _current is not None and _asking() is not None:
            _current.set(os.fsdecode(key))

    def __iter__(self) -> Iterator[Any]:
        names = list(super().__iter__())
        if _current is not None:
            # Whoever goes through all of them copies them, to be passed on, and asks for none.
            _busy.passed_on = set(names), _asking()
        yield from names

    @staticmethod
    def _tell(key: Any, value: Any) -> None:
        if _current is None:
            return
        asking, name = _asking(), os.fsdecode(key)
        names, where = getattr(_busy, "passed_on", (set(), None))
        if where == asking and key in names:
            names.discard(key)
        elif asking is not None or _is_named_by_user(name):
            _current.asked(name, None if value is None else os.fsdecode(value))


def _is_named_by_user(variable: str) -> bool:
    """Return whether a variable that a package asks for stands in the code of the user's that called it: `expandvars("$GAIN/x")`."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 — its caller's, and so on
    word = re.compile(rf"\b{re.escape(variable)}\b")
    while frame is not None:
        if is_users(frame.f_code.co_filename):
            texts = (constant for constant in frame.f_code.co_consts if isinstance(constant, str))
            if any(map(word.search, texts)):
                return True
        frame = frame.f_back
    return False


def _asking() -> tuple[object, int] | None:
    """Return the code of the user's that calls the environment, and its line; None where it is a package or ablate that does."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 — its caller's, and so on
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.endswith(_BETWEEN):
            return (frame.f_code, frame.f_lineno) if is_users(file) else None
        frame = frame.f_back
    return None


_BETWEEN = ("os.py", "_collections_abc.py", "<frozen os>", "<frozen _collections_abc>")
"""Ends of the names of files between the environment and whoever asks it."""


# --- the record, and what it says today -----------------------------------------------------------------------------------


def as_text(
    files: Mapping[str, str],
    variables: Mapping[str, str],
    folders: Mapping[str, str] = MappingProxyType({}),
    made: Collection[str] = (),
    used: Collection[str] = (),
) -> str:
    """Return what was read as JSON, of folders with many files as what they hold, so that it is not too long; '' for nothing.

    made: files that the run wrote where others find them. used: those of them that it may have read again.
    """
    if not files and not variables and not folders and not made:
        return ""
    single, folders = dict(files), dict(folders)
    kept = sorted(made, key=lambda name: (name not in used, name))[:MOST_MADE]
    more = {"made": {name: name in used for name in kept}} if kept else {}
    while True:
        text = json.dumps(
            {"files": single, "folders": folders, "variables": dict(variables), **more}, sort_keys=True
        )
        by_folder: dict[str, list[str]] = {}
        for path in single:
            by_folder.setdefault(os.path.dirname(path) or ".", []).append(path)  # noqa: PTH120 — of a text
        if len(text) <= LONGEST:
            return text
        if not by_folder:
            if not _joined(folders):
                variables = dict(list(variables.items())[: len(variables) // 2])
                folders = dict(list(folders.items())[: len(folders) // 2])
            continue
        folder, inside = max(by_folder.items(), key=lambda item: len(item[1]))
        single = {path: held for path, held in single.items() if path not in inside}
        if len(inside) > 1:
            folders[folder] = listing_of(folder)


def _joined(folders: dict[str, str]) -> bool:
    """Put the names in one folder and all below it in the place of those in folders beside each other; False where there are none."""
    beside: dict[str, list[str]] = {}
    for folder, held in folders.items():
        if held.startswith((_NAMES, _TREE)):
            beside.setdefault(os.path.dirname(folder), []).append(folder)  # noqa: PTH120 — of a text
    beside.pop("", None)  # the working folder holds much else
    if not beside:
        return False
    parent, inside = max(beside.items(), key=lambda item: len(item[1]))
    if len(inside) == 1:
        return False
    for folder in inside:
        del folders[folder]
    folders[parent] = names_of(parent, below=True)
    return True


def changed(text: str) -> list[str]:
    """Return the names of what does not hold today what it held when a run read it. text: as it was recorded.

    A record that cannot be read says nothing.
    """
    try:
        known = json.loads(text)
        files, folders, variables = (
            {str(name): str(held) for name, held in known[kind].items()}
            for kind in ("files", "folders", "variables")
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return []
    place = str(Path.cwd())
    # What is not there at all may lie elsewhere on another machine, unless it lay in the working folder.
    now = {
        name: content_of(os.path.join(place, name), by_size=held.startswith(_SIZE))  # noqa: PTH118 — of texts
        for name, held in list(files.items())[:MOST_LOOKED_AT]
    }
    names = [name for name, held in now.items() if not _is_as_it_was(name, files[name], held)]
    now = {name: _again(os.path.join(place, name), folders[name]) for name in list(folders)[:MOST_LOOKED_AT]}  # noqa: PTH118 — of texts
    names += [f"{name}/" for name, held in now.items() if not _is_as_it_was(name, folders[name], held)]
    names += [
        f"${name}"
        for name, held in list(variables.items())[:MOST_LOOKED_AT]
        if value_of(os.environ.get(name)) != held
    ]
    return names


def _is_as_it_was(name: str, before: str, now: str) -> bool:
    return now == before or (now == ABSENT and os.path.isabs(name))  # noqa: PTH117 — of a text


def _again(folder: str, before: str) -> str:
    """Return of a folder today what was kept of it."""
    if before.startswith((_NAMES, _TREE)):
        return names_of(folder, below=before.startswith(_TREE))
    return listing_of(folder)


def named(path: str) -> str:
    """Return the path of a file, relative to the working folder where it is in it or beside it."""
    folder = os.path.realpath(os.getcwd())  # noqa: PTH109 — as text
    return os.path.relpath(path, folder) if path.startswith(folder + os.sep) else path


ABSENT = "absent"


_SIZE = "size:"
_NAMES = "names:"
_TREE = "tree:"


def content_of(path: str, *, by_size: bool = False) -> str:
    """Return the digest of a file, or its size; `absent` where there is none that can be read."""
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode):
            return ABSENT
        if by_size:
            return f"{_SIZE}{about.st_size}"
        return _digest(path, about.st_mtime_ns, about.st_size, about.st_ino)
    except (OSError, ValueError):
        return ABSENT


@functools.lru_cache(maxsize=65536)
def _digest(path: str, _changed: int, size: int, _inode: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb", opener=_without_waiting) as file:
        if size <= WHOLE:
            while piece := file.read(PIECE):
                digest.update(piece)
        else:
            digest.update(file.read(PIECE))
            file.seek(-PIECE, os.SEEK_END)
            digest.update(file.read(PIECE))
    return digest.hexdigest()[:12]


def begins_with(path: str, before: str, size: int) -> bool:
    """Return whether a file still begins with all that it held. before: its digest then. size: in bytes."""
    if size > WHOLE:
        return False
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return hashlib.sha256(str(size).encode() + file.read(size)).hexdigest()[:12] == before
    except OSError:
        return True


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def listing_of(folder: str) -> str:
    """Return the digest of the names and sizes of the files in a folder; `absent` where there is none."""
    try:
        with os.scandir(folder) as entries:
            return digest_of(
                sorted([entry.name, entry.stat().st_size] for entry in entries if entry.is_file())
            )[:12]
    except (OSError, ValueError):
        return ABSENT


def names_of(folder: str, *, below: bool = False) -> str:
    """Return the digest of the names in a folder, and of those below it; `absent` where there is none. Hidden ones do not count."""
    if not os.path.isdir(folder):  # noqa: PTH112 — of a text
        return ABSENT
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _RECORDS)
        names.append([os.path.relpath(place, folder), folders.copy(), sorted(_seen(files))])
        if not below:
            break
    return f"{_TREE if below else _NAMES}{digest_of(names)[:12]}"


def _seen(names: Collection[str]) -> Iterator[str]:
    return (name for name in names if not name.startswith("."))


def value_of(value: str | None) -> str:
    """Return what is kept of a variable: of its value a few digits of a digest, which do not tell it."""
    return ABSENT if value is None else hashlib.sha256(value.encode(errors="surrogateescape")).hexdigest()[:6]
