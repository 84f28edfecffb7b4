"""What a run prints, kept within bounds: its first and its last half megabyte. Needs no torch."""

from __future__ import annotations

from ablate.text import cut, format_bytes
from ablate.training.lines import plain_text

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

    One thread at a time may use it. total: bytes written so far.
    """

    def __init__(self, most: int = MOST_OUTPUT) -> None:
        self._half = (most - _ROOM_FOR_NOTE) // 2
        assert self._half > 0
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def write(self, data: bytes) -> None:
        self.total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._half :]
        # Rarely, because it moves what is kept.
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

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


def _until_line_end(data: bytes) -> bytes:
    """Return data without a last line that has no end, unless it is a long one."""
    end = max(data.rfind(b"\n", -_LONG_LINE), data.rfind(b"\r", -_LONG_LINE))
    return data[: end + 1] if end >= 0 else data


def _after_line_end(data: bytes) -> bytes:
    """Return data without a first line whose beginning is missing, unless it is a long one."""
    ends = [end for end in (data.find(b"\n", 0, _LONG_LINE), data.find(b"\r", 0, _LONG_LINE)) if end >= 0]
    return data[min(ends) + 1 :] if ends else data
