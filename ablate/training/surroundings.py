"""What surrounds a function of the user's while it runs: what it prints, the environment, the working folder.

All of it is the function's own between `enter` and `exit`, which is at each of its steps: what it changes is there again at its next
step, and neither ablate nor the next run ever sees it.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from ablate.training.output import KeptOutput

PATIENCE = 1.0
"""Seconds that are waited for the last of the output, where a process that the function started holds it open."""


def scratch_mlflow(folder: Path) -> dict[str, str]:
    """Return variables by which code that logs to MLflow of itself writes into a folder, and not into the store of ablate."""
    return {
        "MLFLOW_TRACKING_URI": (folder / "mlflow").absolute().as_uri(),
        # A store of files is there at once; a database would take every run ten seconds.
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }


NOT_PASSED_ON = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI")
"""Variables that would make code of the user's log into a run or an experiment that is not its own."""


class Surroundings:
    """The surroundings of one run. variables: are set in its environment. copy: of what it prints, as `KeptOutput` has it.

    What is printed (also by programs that the function starts, and by libraries) is kept; outside worker processes it is shown on
    stderr as well.
    """

    def __init__(self, variables: Mapping[str, str], copy: Path | None = None) -> None:
        self._environment = {
            name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON
        } | dict(variables)
        self._first = dict(self._environment)
        self._folder: str | None = None
        self._output = KeptOutput(copy=copy)
        read, self._end = os.pipe()
        is_worker = multiprocessing.parent_process() is not None
        shown = None if is_worker else os.dup(2)
        self._reader = threading.Thread(target=self._read, args=(read, shown), daemon=True)
        self._reader.start()
        self._text = io.TextIOWrapper(
            # Unbuffered: lines go out as they end. Not the pipe itself: what the code of the user's keeps when it is imported, such as
            # the handler of a logger, writes to where each run after this one prints.
            io.FileIO(1, "w", closefd=False),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
            write_through=True,
        )

    def _read(self, read: int, shown: int | None) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(read, 1 << 16):
                self._output.write(data)
                if shown is not None:
                    os.write(shown, data)
        os.close(read)
        if shown is not None:
            os.close(shown)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Surround a step of the function."""
        environment, folder = dict(os.environ), _working_folder()
        streams = sys.stdout, sys.stderr
        _flush(*streams)
        kept = [os.dup(number) for number in (1, 2)]
        try:
            _set_environment(self._environment, environment)
            if self._folder is not None:
                os.chdir(self._folder)
            for number in (1, 2):
                os.dup2(self._end, number)
            sys.stdout = sys.stderr = self._text
            yield
        finally:
            _flush(sys.stdout, sys.stderr, self._text, *streams)
            sys.stdout, sys.stderr = streams
            for number, original in zip((1, 2), kept, strict=True):
                os.dup2(original, number)
                os.close(original)
            self._environment, self._folder = dict(os.environ), _working_folder()
            _set_environment(environment, self._environment)
            if folder is not None and folder != self._folder:
                os.chdir(folder)

    def adopt(self) -> None:
        """Let the process have what is set by now in the environment, and the folder, as the runs after this one will.

        For what is set while the function's code is imported, which happens once.
        """
        for name in self._first.keys() | self._environment.keys():
            if self._first.get(name) != self._environment.get(name):
                if name in self._environment:
                    os.environ[name] = self._environment[name]
                else:
                    os.environ.pop(name, None)
        if self._folder is not None and self._folder != _working_folder():
            os.chdir(self._folder)

    def end(self) -> bytes:
        """Return what was printed; nothing more is kept."""
        os.close(self._end)
        self._reader.join(PATIENCE)
        content = self._output.content()
        if not self._reader.is_alive():
            self._output.discard_copy()
        return content


def _working_folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 — as it is, without the cost of a Path at every step
    except OSError:  # it has been removed
        return None


def _set_environment(environment: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Set the environment, which is `now`: what differs alone, since every step of a function changes it there and back."""
    for name in now.keys() - environment.keys():
        os.environ.pop(name, None)
    for name, value in environment.items():
        if now.get(name) != value:
            os.environ[name] = value


def _flush(*streams: io.TextIOBase | object) -> None:
    for stream in streams:
        # A stream that the function has closed, or that is none.
        with contextlib.suppress(Exception):
            stream.flush()  # type: ignore[union-attr]
