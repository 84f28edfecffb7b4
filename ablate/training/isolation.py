"""A copy of the folder that a command runs in, for programs that write beside themselves: no run sees what another has written.

What is large is linked instead of copied. A run that writes into a file that is linked changes the original for all runs, which
`FolderCopy.written` tells afterwards.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ablate.errors import TrainingError
from ablate.text import cut, joined

LARGE = 10_000_000
"""Bytes from which a file is linked."""

MOST_FILES = 20_000
"""Files that are copied or linked one by one at most: with more, every run would wait for them."""

LINKED_WHOLE = frozenset({".git", "node_modules"})
STORE = "mlruns"
LEFT_OUT = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints"})

_Signature = tuple[int, int, int]


class FolderCopy:
    """folder: the copy.

    Leaving the context removes of it what the run has not written, so that only that remains.
    """

    def __init__(
        self, original: Path, folder: Path, *, data: Sequence[Path] = (), without: Sequence[Path] = ()
    ) -> None:
        """Copy `original` to `folder`. What an earlier attempt left there stays as it is; what it lacks is copied.

        data: files and folders, absolute or relative to `original`, that are linked as they are, whatever their size. without: absolute
        paths that are left out, such as the store of the runs. Raises TrainingError.
        """
        # Real paths: a store within the folder is left out by whatever path either is named.
        self._original = original.resolve()
        self.folder = folder.resolve()
        self._data = {_real(self._original / path) for path in data}
        self._without = {*(path.resolve() for path in without), self.folder}
        self._copied: dict[Path, _Signature] = {}
        self._links: list[Path] = []
        self._linked_files: dict[Path, _Signature] = {}
        try:
            self._copy(self._original, self.folder)
        except (OSError, shutil.Error) as error:
            self._remove()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            where = f" of {error.filename}" if getattr(error, "filename", None) else ""
            raise TrainingError(
                f"no copy{where or f' of {self._original}'} can be made in {self.folder.parent}: {reason}",
                place="isolate",
                hint="the folder of the store needs room for a copy of the command's folder without its large files",
            ) from error
        except TrainingError:
            self._remove()
            raise

    def written(self) -> list[Path]:
        """Return the originals of linked files that are not what they were when they were linked."""
        return [path for path, before in self._linked_files.items() if _signature_or_none(path) != before]

    def check(self) -> None:
        """Raise TrainingError where a linked file was written."""
        if written := self.written():
            names = [str(path.relative_to(self._original)) for path in written[:3]]
            raise TrainingError(
                f"the run has changed {cut(joined(names), 200)} in {self._original}, which is too large to be copied",
                place="isolate",
                hint="let the command write into {run_dir}, or remove the file from the folder",
            )

    def tidy(self) -> None:
        """Remove what is as it was copied or linked, and caches; what the run has written remains."""
        for path in self._links:
            if path.is_symlink():
                path.unlink()
        for path, before in self._copied.items():
            if _signature_or_none(path) == before:
                path.unlink()
        for place, folders, _ in os.walk(self.folder, topdown=False):
            for name in folders:
                if name in LEFT_OUT:
                    shutil.rmtree(Path(place, name), ignore_errors=True)
            with contextlib.suppress(OSError):  # it is not empty
                Path(place).rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # tidying changes no result
            self.tidy()

    def _copy(self, source: Path, target: Path) -> None:
        target.mkdir(parents=target == self.folder, exist_ok=True)
        for entry in self._entries(source):
            path, there = Path(entry.path), target / entry.name
            mode = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(mode.st_mode):
                self._link(self._moved(path), there)
            elif path in self._data or (entry.is_dir() and _is_linked_whole(path)):
                self._link(path, there)
            elif stat.S_ISDIR(mode.st_mode):
                self._copy(path, there)
            elif stat.S_ISREG(mode.st_mode):
                if mode.st_size >= LARGE:
                    self._link(path, there)
                    self._linked_files[path] = _signature(mode)
                else:
                    self._copy_file(path, there, mode)
            if len(self._copied) + len(self._links) > MOST_FILES:
                raise TrainingError(
                    f"{self._original} has more than {MOST_FILES:,} files, too many to copy for every run",
                    place="isolate",
                    hint="name its data under `data:`; they are linked then",
                )

    def _copy_file(self, source: Path, target: Path, about: os.stat_result) -> None:
        if not os.path.lexists(target):
            # A copy that was broken off is never taken for one that a run has changed.
            new = target.with_name(f"{target.name}.ablate-copy")
            shutil.copy2(source, new)
            new.rename(target)
        elif (there := target.lstat()).st_mtime_ns != about.st_mtime_ns or there.st_size != about.st_size:
            return  # an earlier attempt has written it
        self._copied[target] = _signature(target.lstat())

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name not in LEFT_OUT and Path(entry.path) not in self._without:
                    yield entry

    def _moved(self, link: Path) -> Path:
        """Return what a link in the copy points to: the same, or its copy where it is in the folder."""
        target = _real(link.parent / link.readlink())
        if target.is_relative_to(self._original):
            return self.folder / target.relative_to(self._original)
        return target

    def _link(self, target: Path, link: Path) -> None:
        if not os.path.lexists(link):
            link.symlink_to(target)
        elif not link.is_symlink() or link.readlink() != target:
            return  # an earlier attempt has written it
        self._links.append(link)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Footprint:
    """Which files of a folder are written from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._before = self._files()

    def written(self) -> list[str]:
        """Return the files that are new or changed, relative to the folder. Of more than `MOST_FILES`, some are not seen."""
        return [path for path, signature in self._files().items() if self._before.get(path) != signature]

    def _files(self) -> dict[str, _Signature | None]:
        files: dict[str, _Signature | None] = {}
        for place, folders, names in os.walk(self._folder):
            here = Path(place)
            folders[:] = sorted(
                name
                for name in folders
                if name not in {*LEFT_OUT, STORE} and not _is_linked_whole(here / name)
            )
            for name in sorted(names):
                if len(files) == MOST_FILES:
                    return files
                files[str((here / name).relative_to(self._folder))] = _signature_or_none(here / name)
        return files


def _is_linked_whole(folder: Path) -> bool:
    """Return whether a folder holds what no training writes: a repository, or an environment of installed packages."""
    return folder.name in LINKED_WHOLE or (folder / "pyvenv.cfg").is_file()


def _real(path: Path) -> Path:
    """Return a path without `..` and links, but for a last part that is a link itself."""
    return Path(os.path.normpath(path.parent.resolve() / path.name))


def _signature(about: os.stat_result) -> _Signature:
    return about.st_size, about.st_mtime_ns, about.st_ino


def _signature_or_none(path: Path) -> _Signature | None:
    try:
        return _signature(path.lstat())
    except OSError:
        return None
