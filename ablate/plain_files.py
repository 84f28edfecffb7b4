"""Reading and writing single files in folders that somebody else may have filled: no link, pipe or device there leads elsewhere.

A store, a cache or a spool may come from another person, with names in it that lead out of it (`../x`), links to files of the
user's, pipes that never end. Whoever works in such a folder reads and writes through this file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_IN_THE_WAY = re.compile(r"[\x00-\x1f\x7f]")

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
"""Pattern of what names files in the store: studies, and the keys of runs."""

MOST_BYTES = 1 << 30
"""Bytes of a file that is read whole: a file of holes may claim any number of them."""

LONGEST_NAME = 255
"""Bytes of one part of a path, as file systems have it."""


def can_name_files(name: object) -> bool:
    """Return whether a value can be the name of a study or the key of a run."""
    return isinstance(name, str) and re.fullmatch(NAME, name) is not None


def is_inner(name: object) -> bool:
    """Return whether a name, which may have folders in it, stays below the folder that it is put in, wherever that is."""
    if not isinstance(name, str) or _IN_THE_WAY.search(name):
        return False
    parts = name.split("/")
    return all(part not in ("", ".", "..") and len(os.fsencode(part)) <= LONGEST_NAME for part in parts)


def inner(folder: Path, name: str) -> Path:
    """Return the path of a file below a folder, whose own folders are made. name: may have folders in it.

    Raises OSError where the name leads out of the folder, by itself or by a link that lies there.
    """
    path = folder / name
    if not is_inner(name):
        raise OSError(errno.EINVAL, "the name leads out of its folder", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise OSError(errno.EINVAL, "a link leads out of the folder", str(path))
    return path


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read. Raises OSError where it is a link, a folder, a pipe or a device."""
    _refuse_nul(path)
    descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        _check_plain(descriptor, path)
        yield file


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return the content of a file. Raises OSError as `open_plain` does, and where it has more than `most` bytes."""
    with open_plain(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def open_in_place(path: Path) -> BinaryIO:
    """Open a file to read and append, such as one that is locked; it is made where there is none.

    Raises OSError where it is a link, a folder, a pipe, a device, or a file that has a second name elsewhere.
    """
    _refuse_nul(path)
    descriptor = _open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
    try:
        _check_plain(descriptor, path, names=1)
        return os.fdopen(descriptor, "a+b")
    except OSError:
        os.close(descriptor)
        raise


@contextlib.contextmanager
def written_aside(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file that takes the place of `path`, whatever lies there, once it is written; on an error nothing changes.

    sync: its content is on the disk by then, so that not even a power cut leaves half of it.
    """
    _refuse_nul(path)
    aside = path.with_name(f".{os.urandom(8).hex()}.tmp")
    descriptor = _open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(descriptor)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file whole or not at all, in the place of whatever lies there. sync: as for `written_aside`. Raises OSError."""
    with written_aside(path, sync=sync) as file:
        file.write(content)


def remove_others(folder: Path) -> None:
    """Remove from a folder what is no file of its own: links, pipes, and files that have a second name elsewhere. Folders stay.

    For a folder whose files are written under names that can be known beforehand, by what does not go through this file.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            about = entry.stat(follow_symlinks=False)
            if not stat.S_ISDIR(about.st_mode) and not (stat.S_ISREG(about.st_mode) and about.st_nlink == 1):
                Path(entry.path).unlink()


def _open(path: Path, how: int) -> int:
    """Open a file past no link. Raises OSError."""
    return os.open(path, how | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _refuse_nul(path: Path) -> None:
    """Raise OSError for a path with NUL in it, which Python takes for a mistake in the program (ValueError)."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))


def _check_plain(descriptor: int, path: Path, names: int | None = None) -> None:
    """Raise OSError for what is no plain file, or has more names than `names`."""
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "is no plain file", str(path))
    if names is not None and about.st_nlink > names:
        raise OSError(errno.EMLINK, "has a second name elsewhere", str(path))
