"""A command of the user's, run under watch: what it prints, line by line, and how it ended. Needs no torch.

    with Process(["python", "train.py"], folder, environment) as process:
        for lines in process.lines():
            …
    process.ended.words

The command leads a session of its own under a guardian (`ablate.training.guardian`), which ends it and all that it started when it is
to end, and when this process dies, however that comes about.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ablate.errors import TrainingError
from ablate.text import cut, format_duration
from ablate.training.lines import LineSplitter
from ablate.training.output import KeptOutput

GRACE = 5.0
"""Seconds that a command has to end once it is asked to."""

TERMINAL_SIZE = (50, 200)
"""Rows and columns of the terminal of a command that needs one: wide enough that progress bars leave metrics whole."""

_GUARDIAN = Path(__file__).with_name("guardian.py")
_MOST_READ = 1 << 18
_MOST_LEFT = 1 << 24
_LONGEST_END = 30.0


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: its exit code; negative: the signal that ended it. cause: `itself`, or why it was ended.

    silence: the seconds without output after which it was.
    """

    code: int
    cause: Literal["itself", "silence", "stopped"] = "itself"
    silence: float = 0.0

    @property
    def well(self) -> bool:
        """Whether it ended by itself and reports success."""
        return self.cause == "itself" and self.code == 0

    @property
    def words(self) -> str:
        """As part of a sentence about the command: `exited with 3`, `was killed by SIGSEGV (Segmentation fault)`."""
        if self.cause == "silence":
            return f"printed nothing for {format_duration(self.silence)} and was ended"
        if self.cause == "stopped":
            return "was stopped"
        if self.code >= 0:
            # Shells, and programs that pass on the end of another.
            inner = _signal_words(self.code - 128) if self.code > 128 else None
            return f"exited with {self.code}" + (f", which stands for {inner}" if inner else "")
        return f"was killed by {_signal_words(-self.code) or f'signal {-self.code}'}"


def _signal_words(number: int) -> str | None:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return None
    if number == signal.SIGKILL:
        return f"{name}, which the system sends where memory runs out"
    return f"{name} ({signal.strsignal(number)})"


def check_startable(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
    """Raise TrainingError where a command cannot be started: no such folder, no such program, or one that may not be run.

    folder: where it is to run. environment: which it is to have; its PATH is searched. Runs nothing.
    """
    if os.name != "posix":
        raise TrainingError(
            "a command needs a POSIX system",
            place="command",
            hint="run ablate on Linux or macOS, or under WSL",
        )
    if not folder.is_dir():
        there = "is no folder" if folder.exists() else "does not exist"
        raise TrainingError(f"{folder} {there}", place="folder", hint="it is relative to the study's file")
    if not os.access(folder, os.X_OK):
        raise TrainingError(f"{folder} may not be entered", place="folder", hint="see its permissions")
    if not arguments or not arguments[0]:
        raise TrainingError("names no program", place="command")
    for argument in arguments:
        if "\0" in argument:
            raise TrainingError(f"{cut(repr(argument))} holds a zero byte", place="command")
    name = arguments[0]
    if "/" not in name:
        if shutil.which(name, path=environment.get("PATH", os.defpath)) is None:
            raise TrainingError(
                f"there is no program {cut(name)!r} on the PATH",
                place="command",
                hint=f"write ./{name} for the one in {folder}"
                if (folder / name).is_file()
                else "write its whole path",
            )
        return
    program = folder / name
    if not program.is_file():
        there = "is a folder" if program.is_dir() else "does not exist"
        raise TrainingError(
            f"the program {program} {there}", place="command", hint=f"paths are relative to {folder}"
        )
    if not os.access(program, os.X_OK):
        raise TrainingError(
            f"{program} may not be executed",
            place="command",
            hint=f"write [python, {name}, …]" if name.endswith(".py") else f"chmod +x {program}",
        )


class Process:
    """One command, from its start to the end of all that it started.

    output: what it has printed on stdout and stderr, in order. ended: how it ended, once `lines` has come to its end.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        terminal: bool = False,
        silence: float | None = None,
    ) -> None:
        """Start a command; no shell reads the arguments. environment: all of it.

        terminal: whether it gets a terminal, at which nobody types, instead of a pipe and an empty stdin. silence: seconds without
        output after which it is ended. Raises TrainingError.
        """
        check_startable(arguments, folder, environment)
        self.output = KeptOutput()
        self.ended: Ended | None = None
        self._arguments = tuple(arguments)
        self._splitter = LineSplitter()
        self._silence = silence
        self._cause: Literal["itself", "silence", "stopped"] = "itself"
        self._kill_at = math.inf
        self._session: int | None = None
        self._news = b""
        self._start(folder, environment, terminal)
        self._last_output = time.monotonic()
        # Not poll, which on macOS knows no terminals.
        self._selector = selectors.DefaultSelector()
        self._descriptors.callback(self._selector.close)
        for pipe in (self._printed, self._status):
            self._selector.register(pipe, selectors.EVENT_READ)

    def _start(self, folder: Path, environment: Mapping[str, str], terminal: bool) -> None:
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:

            def keep(descriptor: int, stack: contextlib.ExitStack) -> int:
                stack.callback(os.close, descriptor)
                return descriptor

            try:
                printed, stdout = _terminal() if terminal else os.pipe()
                keep(printed, ours)
                keep(stdout, theirs)
                stdin = stdout if terminal else keep(os.open(os.devnull, os.O_RDONLY), theirs)
                told, control = os.pipe()
                keep(told, theirs)
                keep(control, ours)
                status, tells = os.pipe()
                keep(status, ours)
                keep(tells, theirs)
                guardian = [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_GUARDIAN),
                    str(told),
                    str(tells),
                    str(int(terminal)),
                ]
                self._guardian = subprocess.Popen(
                    [*guardian, *self._arguments],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stdout,
                    cwd=folder,
                    env={"TERM": "xterm", **environment} if terminal else environment,
                    pass_fds=(told, tells),
                    start_new_session=True,
                )
            except OSError as error:
                raise self._not_started(error.errno) from error
            os.set_blocking(printed, False)
            self._printed, self._control, self._status = printed, control, status
            self._descriptors = ours.pop_all()

    def _not_started(self, number: int | None) -> TrainingError:
        name = cut(self._arguments[0])
        if number == errno.ENOEXEC:
            return TrainingError(
                f"{name!r} is no program that the system knows how to run",
                place="command",
                hint="a script begins with a line like #!/usr/bin/env python3",
            )
        if number == errno.E2BIG:
            return TrainingError(
                "its arguments and environment are longer than the system allows",
                place="command",
                hint="let it read them from a file in {run_dir}",
            )
        reason = os.strerror(number) if number else "unknown error"
        return TrainingError(f"{name!r} cannot be started: {reason}", place="command")

    @property
    def guardian(self) -> int:
        """Return the process id of its guardian."""
        return self._guardian.pid

    def lines(self, tick: float = 1.0) -> Iterator[list[str]]:
        """Yield the lines that the command has printed since the last time, until all of it has ended.

        tick: seconds after which an empty list is yielded where it printed none. Raises TrainingError where it could not be started.
        """
        while self.ended is None:
            yield self._splitter.feed(self._wait(tick))
        yield self._splitter.end()

    def stop(self, grace: float = GRACE) -> None:
        """Ask the command to end, and kill it after `grace` seconds. Returns at once: `lines` goes on until it has ended."""
        if self._cause == "itself":
            self._cause = "stopped"
        self._kill_at = min(self._kill_at, time.monotonic() + grace)
        self._tell(b"T")

    def _tell(self, request: bytes) -> None:
        with contextlib.suppress(OSError):  # the guardian may be gone
            os.write(self._control, request)

    def close(self) -> None:
        """Kill what is left of the command, and wait for its end."""
        self._descriptors.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guardian.wait(_LONGEST_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait(self, tick: float) -> bytes:
        """Return what is printed within `tick` seconds, as soon as there is something."""
        now = time.monotonic()
        silent_at = math.inf if self._silence is None else self._last_output + self._silence
        until = min(now + tick, self._kill_at, silent_at if self._cause == "itself" else math.inf)
        ready = [key.fd for key, _ in self._selector.select(max(0.0, until - now))]
        data = self._read() if self._printed in ready else b""
        if self._status in ready:
            data += self._listen()
        now = time.monotonic()
        if data:
            self._last_output = now
            self.output.write(data)
        elif now >= silent_at and self._cause == "itself":
            self._cause = "silence"
            self.stop()
        if now >= self._kill_at:
            self._kill_at = math.inf
            self._tell(b"K")
        return data

    def _read(self) -> bytes:
        try:
            data = os.read(self._printed, _MOST_READ)
        except BlockingIOError:
            return b""
        except OSError:  # how a terminal says that nobody has it open any more
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._printed)
        return data

    def _listen(self) -> bytes:
        """Read what the guardian tells. Returns the last that the command printed, where it has ended."""
        news = os.read(self._status, 4096)
        *told, self._news = (self._news + news).split(b"\n")
        for word, number in (line.split() for line in told):
            if word == b"started":
                self._session = int(number)
            elif word == b"failed":
                raise self._not_started(int(number))
            else:
                return self._end(os.waitstatus_to_exitcode(int(number)))
        if news:
            return b""
        # Something has killed the guardian: the command goes with it, what it has started may not.
        if self._session is not None:
            with contextlib.suppress(OSError):
                os.killpg(self._session, signal.SIGKILL)
        return self._end(-signal.SIGKILL)

    def _end(self, code: int) -> bytes:
        data = b""
        while len(data) < _MOST_LEFT and (piece := self._read()):
            data += piece
        self.ended = Ended(code, self._cause, self._silence or 0.0)
        return data


def _terminal() -> tuple[int, int]:
    """Return our and the command's end of a new terminal, which passes on what is printed as it is."""
    import termios

    ours, theirs = os.openpty()
    settings = termios.tcgetattr(theirs)
    settings[1] &= ~termios.OPOST
    settings[3] &= ~termios.ECHO
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    termios.tcsetwinsize(theirs, TERMINAL_SIZE)
    return ours, theirs
