"""Ctrl-C, SIGTERM and the end of the terminal: each ends a command with a line, however early it comes, and whatever is being done."""

from __future__ import annotations

import os
import sys

# Until `prepare` has run, Ctrl-C is a traceback: nothing is imported before that Python has not loaded already.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType, TracebackType
    from typing import Any, NoReturn
else:
    import _signal as signal

MESSAGE = "interrupted: what is finished is kept, and the same command continues from there"

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a command to end."""

EXIT_CODE = 130

_SHOW_CURSOR = "\x1b[?25h"
"""What a display may have hidden."""

_has_come = False


def prepare() -> None:
    """Let signals raise KeyboardInterrupt, but end the process where that would be turned into something else, or be lost.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    sys.unraisablehook, sys.excepthook = _not_raised, _not_caught
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, interrupt)


def has_come() -> bool:
    """Return whether a signal has asked this process to end: whatever is raised from then on may follow from that."""
    return _has_come


def note() -> None:
    """Note that a signal has come. A second Ctrl-C ends the process, not with a traceback of what it was clearing away.

    The others may come twice for one reason: to the process and to its group, or from the shell and from the terminal.
    """
    global _has_come  # noqa: PLW0603 — signals are the process's
    _has_come = True
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)


def interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; in the middle of an import, which may turn it into any other error, end at once."""
    note()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end()
        frame = frame.f_back
    raise KeyboardInterrupt


def conclude() -> None:
    """Let a first signal pass: the command has done its work, and its exit handlers are no place to be interrupted."""
    for number in SIGNALS:
        if signal.getsignal(number) is interrupt:
            signal.signal(number, _pass)


def _pass(_number: int, _frame: FrameType | None) -> None:
    note()


def _not_raised(unraisable: Any) -> None:
    """End at once where an interrupt came in a destructor or a callback, which loses it; nothing is told of what follows from it."""
    if not _has_come:
        sys.__unraisablehook__(unraisable)
    elif issubclass(unraisable.exc_type, KeyboardInterrupt):
        _end()


def _not_caught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if _has_come or issubclass(kind, KeyboardInterrupt):
        _end()
    sys.__excepthook__(kind, error, trace)


def _end() -> NoReturn:
    """End the process with a line; no exit handler is run, because anything may be half done."""
    try:
        show = _SHOW_CURSOR if os.isatty(2) else ""
        os.write(2, f"{show}{MESSAGE}\n".encode())
    finally:
        os._exit(EXIT_CODE)
