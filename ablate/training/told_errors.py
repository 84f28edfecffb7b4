"""Errors that a program tells of although it ends well: a script of a shell goes on where a program in it has failed."""

from __future__ import annotations

import re

from ablate.lines import plain_text
from ablate.text import cut

TOLD = "ended well, but told of "
"""What the reason of such a run begins with, before the error."""

_TRACEBACK = "Traceback (most recent call last)"
_IGNORED = "Exception ignored"
_KILLED = re.compile(
    r": line \d+: +\d+ (Killed|Aborted|Segmentation fault|Bus error|Illegal instruction|Floating point exception)"
)
"""What bash prints of a program that a signal has ended."""


class ToldErrors:
    """Looks for errors in the lines of a run. last: the last one; '' for none."""

    def __init__(self) -> None:
        self.last = ""
        self._is_in_traceback = False
        self._before = ""

    def line(self, line: str) -> None:
        """Take in a line that the program has printed."""
        if self._is_in_traceback:
            text = plain_text(line).rstrip()
            if text and not text.startswith(" "):
                self.last, self._is_in_traceback = cut(text, 200), False
        elif _TRACEBACK in line:
            self._is_in_traceback = not self._before.startswith(_IGNORED)
        elif "line " in line and (killed := _KILLED.search(line)):
            self.last = killed[1]
        self._before = line
