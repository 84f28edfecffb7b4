"""Digests of a command's own code and of the data that it names: parts of the keys of its runs. Nothing of them is run.

In a git repository the code is every file that git tracks, as it is now, and every file of a programming language that git neither
tracks nor ignores; so a commit by itself changes nothing, and an edit does before it is committed. Elsewhere it is the files of
programming languages in the folder, and recipes such as a Makefile. Beside it the files that the command names count, wherever they are. Documents and studies never
count; of Python files, comments, docstrings and layout don't.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablate import plain_files, repository
from ablate.code_digest import digest_of, parse
from ablate.errors import DataError, StudyError
from ablate.text import cut

LANGUAGES = frozenset(
    {
        *(
            ".py",
            ".pyx",
            ".pyi",
            ".sh",
            ".bash",
            ".zsh",
            ".c",
            ".cc",
            ".cpp",
            ".cxx",
            ".h",
            ".hpp",
            ".cu",
            ".cuh",
            ".rs",
            ".go",
        ),
        *(
            ".jl",
            ".r",
            ".lua",
            ".java",
            ".scala",
            ".kt",
            ".swift",
            ".m",
            ".js",
            ".ts",
            ".rb",
            ".pl",
            ".f90",
            ".hs",
            ".ml",
            ".cs",
        ),
        *(
            ".hh",
            ".hxx",
            ".inl",
            ".ipp",
            ".f",
            ".f95",
            ".for",
            ".mojo",
            ".zig",
            ".nim",
            ".php",
            ".fish",
            ".awk",
            ".pyw",
        ),
        *(
            ".ps1",
            ".tcl",
            ".sql",
            ".ex",
            ".exs",
            ".erl",
            ".clj",
            ".dart",
            ".gin",
            ".jsonnet",
            ".libsonnet",
            ".smk",
            ".mk",
            ".cmake",
        ),
    }
)
"""Endings of the names of files of programming languages, in lower case."""

RECIPES = frozenset(
    {
        *(
            "makefile",
            "gnumakefile",
            "justfile",
            "snakefile",
            "rakefile",
            "dockerfile",
            "cmakelists.txt",
            "meson.build",
        ),
        *(
            "dvc.yaml",
            "params.yaml",
            "taskfile.yml",
            "taskfile.yaml",
            "package.json",
            "cargo.toml",
            "mlproject",
        ),
    }
)
"""Names of files, in lower case, that a program such as make reads without being told to."""

DOCUMENTS = frozenset({".md", ".rst", ".tex", ".bib", ".pdf", ".ipynb"})

MOST_FILES = 20_000
"""Files and folders that are looked at where there is no git."""

LONGEST_NAMED = 64 << 20
"""Bytes of a file that a command names, above which it is no code. Data are what `data:` is for."""

WRITTEN = frozenset(
    {"mlruns", "reports", "wandb", "lightning_logs", "outputs", "multirun", "__pycache__", "node_modules"}
)
"""Folders of results and of installed code, where nothing that git does not track is looked at."""

_STUDY = re.compile(rb"^study\s*:", re.MULTILINE)
_SUBMODULE = b"160000"


@dataclass(frozen=True)
class FolderCode:
    """The code in a folder, as it was read. signature: path, time of change and size of every file of it. root: of the repository, or
    the folder.
    """

    digest: str
    signature: tuple[tuple[str, int, int], ...]
    root: Path

    def holds(self, file: str) -> bool:
        """Return whether the content of a file counts. file: absolute, without links."""
        return file in self._files

    @functools.cached_property
    def _files(self) -> frozenset[str]:
        root = os.path.realpath(self.root)
        return frozenset(os.path.join(root, os.path.relpath(path, self.root)) for path, *_ in self.signature)  # noqa: PTH118 — of texts

    def is_unchanged(self) -> bool:
        """Return whether its files look as they did; files that came since are not looked for."""
        try:
            return all(_signature(Path(path)) == (path, *rest) for path, *rest in self.signature)
        except OSError:
            return False


def folder_code(folder: Path) -> FolderCode:
    """Return the code in a folder, of all of its repository where it is in one. Raises StudyError.

    folder: absolute. The digest is the same wherever the folder or the repository lies.
    """
    top = _repository(folder)
    root = top or folder
    contents = _contents(root, _repository_files(root) if top else _source_files(folder))
    kind = ["repository", os.path.relpath(folder, top)] if top else ["folder"]
    signature = tuple(_signature(root / name) for name in contents)
    return FolderCode(digest_of([*kind, contents]), signature, root)


_read: dict[Path, FolderCode] = {}


def folder_code_again(folder: Path) -> FolderCode:
    """Return `folder_code`, without asking git where this process has read it before and its files look as they did then."""
    known = _read.get(folder)
    if known is None or not known.is_unchanged():
        known = _read[folder] = folder_code(folder)
    return known


def _signature(file: Path) -> tuple[str, int, int]:
    about = file.lstat()
    return str(file), about.st_mtime_ns, about.st_size


def named_files(folder: Path, arguments: Iterable[str]) -> dict[str, str]:
    """Return file → digest of the files that arguments name: `conf.yaml`, `--config=conf.yaml`, `@arguments.txt`.

    folder: that paths are relative to.
    """
    digests = {}
    for argument in arguments:
        for text in {argument, argument.partition("=")[2], argument.lstrip("@"), argument.partition(":")[2]}:
            with contextlib.suppress(OSError, ValueError):
                file = folder / text
                if text and file.is_file() and file.stat().st_size <= LONGEST_NAMED:
                    digests[text] = _digest(file)
    return digests


def _contents(top: Path, names: Iterable[str]) -> dict[str, str]:
    """Return name → digest of those files that count."""
    digests = {}
    for name in names:
        file = top / name
        if file.suffix.lower() in DOCUMENTS:
            continue
        with contextlib.suppress(OSError):  # deleted, and not yet from git's list
            if file.is_symlink():
                digests[name] = f"link to {file.readlink()}"
            elif not _is_study(file):
                digests[name] = _digest(file)
    return digests


def _is_study(file: Path) -> bool:
    return file.suffix in (".yaml", ".yml") and _STUDY.search(file.read_bytes()) is not None


def _digest(file: Path) -> str:
    about = file.stat()
    return _file_digest(file, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=65536)
def _file_digest(file: Path, _changed: int, _size: int) -> str:
    if file.suffix == ".py":
        return parse(file.read_bytes()).digest
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# --- git --------------------------------------------------------------------------------------------------------------


def _repository(folder: Path) -> Path | None:
    said = repository.ask(folder, "rev-parse", "--show-toplevel")
    return Path(os.fsdecode(said.removesuffix(b"\n"))) if said and said.strip() else None


def _repository_files(top: Path) -> Iterator[str]:
    """Yield the paths of the code of a repository, sorted, those of its submodules included."""
    # `status` and `diff` would run the filters of a repository, which `ask` leaves on; a list of names runs nothing.
    tracked = repository.ask(top, "ls-files", "-z", "--stage") or b""
    names = set()
    for entry in tracked.split(b"\0"):
        about, _, path = entry.partition(b"\t")
        name = os.fsdecode(path)
        if about.startswith(_SUBMODULE):
            if (top / name / ".git").exists():
                names |= {f"{name}/{inner}" for inner in _repository_files(top / name)}
        elif name:
            names.add(name)
    others = repository.ask(top, "ls-files", "-z", "--others", "--exclude-standard") or b""
    for path in others.split(b"\0"):
        name = os.fsdecode(path)
        is_code = Path(name).suffix.lower() in LANGUAGES or Path(name).name.lower() in RECIPES
        if is_code and not WRITTEN & set(Path(name).parts):
            names.add(name)
    yield from sorted(names)


def _source_files(folder: Path) -> list[str]:
    """Return the paths of the code in a folder without git, sorted. Raises StudyError where it holds too much to look at."""
    names, seen = [], 0
    for place, inner, files in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in WRITTEN]
        inner[:] = [name for name in inner if not Path(place, name, "pyvenv.cfg").exists()]
        seen += len(inner) + len(files)
        if seen > MOST_FILES:
            raise StudyError(
                f"{cut(str(folder))!r} holds more than {MOST_FILES:,} files, too many to look for code in",
                place="folder",
                hint="name the project's own folder, or make it a git repository, whose list of files is taken instead",
            )
        names += [
            str((Path(place) / name).relative_to(folder))
            for name in files
            if Path(name).suffix.lower() in LANGUAGES or name.lower() in RECIPES
        ]
    return sorted(names)


# --- data -------------------------------------------------------------------------------------------------------------


def data_fingerprint(folder: Path, paths: Sequence[str]) -> str:
    """Return the digest of the content of files and folders, wherever they lie; '' for none. folder: that paths are relative to.

    What was read once is not read again while sizes and times stay the same. Raises DataError where there is no such path.
    """
    return (
        digest_of([_data_digest(folder / Path(path).expanduser(), path) for path in paths])[:32]
        if paths
        else ""
    )


class PlannedData:
    """The files and folders under `data:` while one run trains: the key of the run says what they hold.

    folder: that paths are relative to. planned: the fingerprint that they had when the study was planned; None where that does not matter.
    """

    def __init__(self, folder: Path, paths: Sequence[str], planned: str | None) -> None:
        self._folder, self._paths = folder, paths if planned else ()
        self._planned = planned
        self._before: dict[str, tuple[int, int, int]] = {}

    def complaint(self) -> str | None:
        """Return why the run must not begin; None where it may. On another machine a file may lie elsewhere, and is not looked at."""
        try:
            self._before = self._times()
            if not self._paths or self._is_planned(self._before):
                return None
        except (DataError, OSError):
            self._paths = ()
            return None
        last = max(self._before, key=lambda file: self._before[file][2], default="")
        shown = f" ({self._shown(last)} was changed last)" if last else ""
        return f"the data are not what they were when this study was planned{shown}; {_PLAN_AGAIN}"

    def changed(self) -> str | None:
        """Return why the result does not belong to the key of the run; None where it does."""
        try:
            now = self._times()
            if now == self._before or self._is_planned(now):
                return None
        except (DataError, OSError):
            now = {}
        names = sorted(
            name for name in now.keys() | self._before.keys() if now.get(name) != self._before.get(name)
        )
        shown = self._shown(names[0])
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (
            f"{shown}{more} changed while the run trained; {_PLAN_AGAIN}. Where the training itself writes there, name only the files"
            " that it reads"
        )

    def _shown(self, file: str) -> str:
        return repr(cut(os.path.relpath(file, self._folder)))

    def _is_planned(self, times: dict[str, tuple[int, int, int]]) -> bool:
        """Return whether the files hold what was planned. They are not asked again while they look as in the run before."""
        if _seen.get(self._planned) == times:
            return True
        if data_fingerprint(self._folder, self._paths) != self._planned:
            return False
        _seen.clear()
        _seen[self._planned] = times
        return True

    def _times(self) -> dict[str, tuple[int, int, int]]:
        return {
            os.path.join(self._folder, file): times  # noqa: PTH118 — of texts
            for path in self._paths
            for file, times in _data_files(self._folder / Path(path).expanduser()).items()
        }


_seen: dict[str | None, dict[str, tuple[int, int, int]]] = {}
"""The fingerprint that this process has found last → the files as they looked then."""

_PLAN_AGAIN = "run the study again: it plans its runs with the data as they are now"


def _data_digest(path: Path, named: str) -> str:
    if not path.exists():
        raise DataError(
            f"there is no {cut(str(path))!r}",
            place="data",
            hint=f"{cut(named)!r} is relative to the command's folder",
        )
    path = path.absolute()  # `./a` of a folder `.` would be `a` as a path
    try:
        times = _data_files(path)
        files = sorted(map(Path, times))
        listing = digest_of([str(path), [[str(file), *times[str(file)]] for file in files]])
        known = _known_digest(listing)
        if known is None:
            root = path.parent if path.is_file() else path
            content = [
                [str(file.relative_to(root)) if path.is_dir() else "", _data_file(file)] for file in files
            ]
            known = digest_of(content)
            _remember(listing, known)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}", place="data") from error
    return known


def _data_files(path: Path) -> dict[str, tuple[int, int, int]]:
    """Return the files that a path names → size and times, those below linked folders included, no folder twice.

    What programs leave beside data that they only read is left out.
    """
    if path.is_file():
        return {str(path): _times(path)}
    files: dict[str, tuple[int, int, int]] = {}
    seen: set[tuple[int, int]] = set()
    waiting = [str(path)]
    while waiting:
        place = waiting.pop()
        about = os.stat(place)  # noqa: PTH116 — of a text; data sets have many files
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        try:
            with os.scandir(place) as entries:
                inside = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except PermissionError:
            if place == str(path):
                raise
            continue  # such as lost+found: what may not be listed, the training does not find either
        for entry in inside:
            if _OF_READERS.fullmatch(entry.name):
                continue
            try:
                about = entry.stat()
            except OSError:  # a link to nothing
                continue
            if stat.S_ISDIR(about.st_mode):
                waiting.append(entry.path)
            elif stat.S_ISREG(about.st_mode):
                files[entry.path] = about.st_size, about.st_mtime_ns, about.st_ctime_ns
    return files


_OF_READERS = re.compile(
    r"\.DS_Store|Thumbs\.db|desktop\.ini|\.nfs[0-9a-f]+|lock\.mdb|.+\.lock|.+-shm|__pycache__|\.ipynb_checkpoints"
    r"|mlruns|wandb"
)
"""Files and folders that appear where data are looked at, or beside them where runs are recorded: of desktops, network disks, LMDB, file
locks, SQLite, Python, Jupyter; of MLflow, which ablate records with, and Weights & Biases.
"""


def _data_file(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _times(file: Path) -> tuple[int, int, int]:
    about = file.stat()
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


def _index(listing: str) -> Path:
    from ablate.cache_folder import default_folder

    return default_folder() / "fingerprints" / f"{listing[:32]}.json"


def _known_digest(listing: str) -> str | None:
    with contextlib.suppress(DataError, OSError, ValueError, KeyError, TypeError):
        return str(json.loads(plain_files.read(_index(listing)))["content"])
    return None


def _remember(listing: str, content: str) -> None:
    """Write down what a listing was found to hold; without space or permission it is read again the next time."""
    with contextlib.suppress(DataError, OSError):
        file = _index(listing)
        file.parent.mkdir(parents=True, exist_ok=True)
        plain_files.write(file, json.dumps({"content": content}).encode(), sync=False)
