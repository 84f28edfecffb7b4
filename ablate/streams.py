"""The streams that a command was started with: any encoding, closed, a pipe that nobody reads any more, a full disk.

What a command does must not depend on who reads what it prints: a study goes on training when `| head` has seen enough.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import warnings
from typing import Any, TextIO

_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO})
"""The reader of a pipe or the terminal has gone."""


class _Output(io.FileIO):
    """One of the process's streams. A write that fails is the last: what follows goes nowhere.

    problem: why nothing more can be written, where that is more than that nobody reads it.
    """

    problem: str | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                self.problem = error.strerror
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def prepare() -> None:
    """Make the streams of this process such that reading and printing never fail.

    A stream that is closed becomes an empty one, because the next file that is opened would take its place, and what is printed
    would end up in it. Signs that the encoding of a stream lacks are replaced.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8", errors="replace")  # noqa: SIM115 — open as long as the process
    sys.stdout, sys.stderr = _replaced(sys.stdout, 1), _replaced(sys.stderr, 2)
    # `-W error` is about the user's own code: what packages warn of among themselves would end every command.
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.simplefilter("default")


def width(stream: TextIO) -> int | None:
    """Return how many characters a line of a terminal has; None where a stream leads to none, and lines need not be broken."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _replaced(stream: TextIO | None, number: int) -> TextIO:
    """Return a stream in the place of one of the process's own; another one, such as a test's, is returned as it is."""
    if stream is not None:
        try:
            if stream.fileno() != number:
                return stream
        except (OSError, ValueError):
            return stream
        with contextlib.suppress(OSError):
            stream.flush()
    encoding = getattr(stream, "encoding", None) or "utf-8"
    is_terminal = os.isatty(number)
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(number, "w", closefd=False)),
        encoding=encoding,
        # A byte of a file's name is shown as such; in another encoding most signs that are lacking are typographic ones.
        errors="backslashreplace"
        if number == 2 or encoding.lower().replace("-", "") == "utf8"
        else "replace",
        line_buffering=is_terminal or number == 2,
    )


def flush() -> str | None:
    """Write what is still to be written. Returns why what was printed on stdout is not complete; None where it is."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.problem if isinstance(raw, _Output) else None
