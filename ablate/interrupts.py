"""Ctrl-C: it ends a command with a line, however early it comes, and whatever is being imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

MESSAGE = "interrupted: what is finished is kept, and the same command continues from there"

_SHOW_CURSOR = "\x1b[?25h"
"""What a display may have hidden."""


def prepare() -> None:
    """Let Ctrl-C raise KeyboardInterrupt as ever, but end the process where an import would turn that into something else."""
    if (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):  # not where it is ignored, as under `nohup`
        signal.signal(signal.SIGINT, interrupt)


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; in the middle of an import, which may turn it into any other error, end at once.

    A second Ctrl-C ends the process, not with a traceback of what it was clearing away.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            show = _SHOW_CURSOR if sys.stderr is not None and sys.stderr.isatty() else ""
            os.write(2, f"{show}{MESSAGE}\n".encode())
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt
