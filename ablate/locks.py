"""Locks of files, which the kernel holds for a process and ends with it; and what is said where a file system gives none."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import IO, Any

from ablate.errors import StoreError

_HELD = frozenset({errno.EAGAIN, errno.EACCES})
"""What the kernel answers where another process holds a lock; every other answer means that there are no locks."""


class NoLocksError(StoreError):
    """The file system gives no lock on a file."""


def lock(file: IO[Any] | int, place: os.PathLike[str] | str, *, wait: bool = True) -> bool:
    """Lock an open file, or the file of a descriptor, for this process alone. place: its path.

    Returns False where another process holds it and `wait` is false. Raises NoLocksError where the file system gives no locks.
    """
    return _locked("flock", lambda: fcntl.flock(file, _how(wait=wait)), place)


def lock_byte(file: IO[Any], place: os.PathLike[str] | str, position: int) -> bool:
    """Lock one byte of an open file, as `lock` does without waiting."""
    return _locked("fcntl", lambda: fcntl.lockf(file, _how(wait=False), 1, position), place)


def unlock_byte(file: IO[Any], position: int) -> None:
    """End the lock of a byte."""
    fcntl.lockf(file, fcntl.LOCK_UN, 1, position)


def _how(*, wait: bool) -> int:
    return fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)


def _locked(kind: str, take: Any, place: os.PathLike[str] | str) -> bool:
    try:
        take()
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise NoLocksError(
            f"cannot be locked by {kind} ({error.strerror}), so nothing keeps two processes apart",
            place=os.fspath(place),
            hint="the file system gives no locks: put the project on a local disk, or have it mounted with locks (Lustre: `flock`; "
            "NFS: its lock service)",
        ) from None
    return True
