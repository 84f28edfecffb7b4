"""Imported by the forkserver alone, before all else: how it begins quickly, and what it sees to where its parent ends before it.

Its parent makes a folder for the socket between them, and removes it when it ends, unless it is killed, by whatever signal. And a worker
that is being started when its parent ends has nobody to tell of it.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
from pathlib import Path
from pickle import UnpicklingError
from types import TracebackType

FOLDER = "ABLATE_FORKSERVER_FOLDER"
"""Variable that names the folder of the socket, set while the forkserver starts; no other process has it."""

_FOLDERS = "pymp-"
"""How multiprocessing names its folders."""


def _end(folder: str, forkserver: int) -> None:
    """Remove the folder when the forkserver ends, which it does after its parent; workers have inherited this handler.

    It then ends at once: Python would take torch apart, for 0.4 s in which the forkserver holds open what its parent wrote to.
    """
    if os.getpid() == forkserver:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


def _not_caught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of an exception as ever, except of what the parent tells itself.

    That is half of what a worker needs, or nothing, and a machine that starts no more processes.
    """
    if isinstance(error, EOFError | UnpicklingError | ConnectionError):
        return
    atexit.unregister(_end)  # the parent lives, and starts another forkserver there
    if not isinstance(error, BlockingIOError):
        sys.__excepthook__(kind, error, trace)


if (folder := os.environ.pop(FOLDER, "")) and Path(folder).name.startswith(_FOLDERS):
    atexit.register(_end, folder, os.getpid())
    sys.excepthook = _not_caught
    # What is imported stays; to look for garbage in it takes an eighth of the import of torch. Workers begin to look (`local._serve`).
    gc.disable()
