"""What a run prints, kept within bounds: its first and its last half megabyte. Needs no torch."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ablate import plain_files
from ablate.lines import plain_text
from ablate.text import cut, format_bytes

OUTPUT = "output.txt"
"""Artifact of a run with what it printed."""

MOST_OUTPUT = 1_000_000
"""Bytes that are kept of what a run prints."""

LONGEST_SHOWN = 300
"""Characters of a line that messages show."""

_ROOM_FOR_NOTE = 100
_LONG_LINE = 4_000
_SHOWN_BYTES = 64 * 1024


class KeptOutput:
    """The head and the tail of what a run prints, at most `most` bytes together, whatever the bytes are.

    One thread at a time may use it. total: bytes written so far. copy: a file that has the same, for whoever finds that this process
    was killed (`left_output`); `discard_copy` removes it.
    """

    def __init__(self, most: int = MOST_OUTPUT, copy: Path | None = None) -> None:
        self._most = most
        self._copy = copy
        self._copy_file: int | None = None
        self._copied = 0
        if copy is not None:
            with contextlib.suppress(OSError):  # a copy that cannot be made costs no run
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)  # it may be a link, which would lead elsewhere
                self._copy_file = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        self._half = (most - _ROOM_FOR_NOTE) // 2
        assert self._half > 0
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def write(self, data: bytes) -> None:
        self.total += len(data)
        whole = data
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._half :]
        # Rarely, because it moves what is kept.
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]
        if self._copy_file is not None:
            self._write_copy(whole)

    def _write_copy(self, data: bytes) -> None:
        assert self._copy_file is not None
        try:
            if self._copied + len(data) > 2 * self._most:
                data = self.content()
                os.lseek(self._copy_file, 0, os.SEEK_SET)
                os.write(self._copy_file, data)
                os.ftruncate(self._copy_file, len(data))
                self._copied = 0
            else:
                os.write(self._copy_file, data)
            self._copied += len(data)
        except OSError:  # the disk is full
            self.discard_copy()

    def discard_copy(self) -> None:
        """Remove the file that has the same: what is kept is in good hands."""
        if self._copy_file is None or self._copy is None:
            return
        os.close(self._copy_file)
        self._copy_file = None
        with contextlib.suppress(OSError):
            self._copy.unlink()

    def content(self) -> bytes:
        """Return what is kept, as it was printed, with a line that says how much is missing between head and tail.

        Both are cut at the ends of lines where they have any.
        """
        tail = bytes(self._tail[-self._half :])
        if len(self._head) + len(tail) == self.total:
            return bytes(self._head) + tail
        head = _until_line_end(bytes(self._head))
        tail = _after_line_end(tail)
        note = f"[… {format_bytes(self.total - len(head) - len(tail))} left out …]\n".encode()
        return head + (b"" if head.endswith((b"\n", b"\r")) else b"\n") + note + tail

    def last_lines(self, number: int = 20) -> list[str]:
        """Return the last lines as a terminal shows them: without colours, and of a progress bar only its last state."""
        end = bytes(self._tail[-_SHOWN_BYTES:])
        if len(self._head) + len(self._tail) == self.total:  # nothing is missing between them
            end = bytes(self._head[-_SHOWN_BYTES:]) + end
        lines = []
        for line in end.decode(errors="replace").split("\n"):
            states = [text for part in line.split("\r") if (text := plain_text(part).rstrip())]
            lines += states[-1:]
        return [cut(line, LONGEST_SHOWN) for line in lines[-number:]]


def left_output(copy: Path) -> bytes | None:
    """Return what a process that was killed had kept in its copy, and remove that; None where there is none."""
    try:
        content = plain_files.read(copy)
        copy.unlink()
    except OSError:
        return None
    output = KeptOutput()
    output.write(content)
    return output.content()


def _until_line_end(data: bytes) -> bytes:
    """Return data without a last line that has no end, unless it is a long one."""
    end = max(data.rfind(b"\n", -_LONG_LINE), data.rfind(b"\r", -_LONG_LINE))
    return data[: end + 1] if end >= 0 else data


def _after_line_end(data: bytes) -> bytes:
    """Return data without a first line whose beginning is missing, unless it is a long one."""
    ends = [end for end in (data.find(b"\n", 0, _LONG_LINE), data.find(b"\r", 0, _LONG_LINE)) if end >= 0]
    return data[min(ends) + 1 :] if ends else data
