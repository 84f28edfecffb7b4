"""A command of the user's, run under watch: what it prints, line by line, and how it ended. Needs no torch.

    with Process(["python", "train.py"], folder, environment) as process:
        for lines in process.lines():
            …
    process.ended.words

The command leads a session of its own under a guardian (`ablate.training.guardian`), which ends it and all that it started when it is
to end, and when this process dies, however that comes about.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import math
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

from ablate.errors import TrainingError
from ablate.lines import LineSplitter
from ablate.text import cut, format_duration
from ablate.training.guardian import Order
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


class Guardian:
    """A guardian of this process, which runs one command after another. lives: whether it can run another.

    Starting one takes about 25 ms of a processor, most of it Python's own start, so it is kept for the next command.
    """

    _idle: ClassVar[list[Guardian]] = []

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARDIAN), str(theirs.fileno())],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._news = b""
        self.lives = True

    @classmethod
    def with_order(cls, order: Order, stdin: int, stdout: int) -> Guardian:
        """Return a guardian that has begun to start a command. Raises OSError."""
        while cls._idle:
            guardian = cls._idle.pop()
            # An idle one says nothing: where there is something to read, it is the end of the channel.
            if not guardian.wait(0):
                with contextlib.suppress(OSError):
                    guardian.order(order, stdin, stdout)
                    return guardian
            guardian.end()
        guardian = cls()
        guardian.order(order, stdin, stdout)
        return guardian

    def order(self, order: Order, stdin: int, stdout: int) -> None:
        """Let it start a command. Raises OSError."""
        socket.send_fds(self.channel, [b"S"], [stdin, stdout])
        self.channel.sendall(order.written())

    def fileno(self) -> int:
        return self.channel.fileno()

    def tell(self, request: bytes) -> None:
        with contextlib.suppress(OSError):  # it may be gone
            self.channel.sendall(request)

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to read. Returns whether there is."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.channel, selectors.EVENT_READ)
            return bool(selector.select(max(0.0, seconds)))

    def read(self) -> Iterator[tuple[str, int]]:
        """Yield what it tells, each a word and a number."""
        try:
            news = self.channel.recv(4096)
        except OSError:
            news = b""
        self.lives = self.lives and bool(news)
        *lines, self._news = (self._news + news).split(b"\n")
        for line in lines:
            word, number = line.decode().split()
            self.lives = self.lives and word != "left"
            yield word, int(number)

    def release(self) -> None:
        """Keep it for the next command, or end it where it can run none."""
        if self.lives:
            self._idle.append(self)
        else:
            self.end()

    def end(self) -> None:
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_LONGEST_END)

    @classmethod
    def end_idle(cls) -> None:
        """End those that run no command."""
        while cls._idle:
            cls._idle.pop().end()

    @classmethod
    def forget_idle(cls) -> None:
        """Leave those that run no command to the process that this one was forked from."""
        for guardian in cls._idle:
            guardian.channel.close()
            guardian.process.returncode = 0  # so that nobody waits for it
        cls._idle.clear()


atexit.register(Guardian.end_idle)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Guardian.forget_idle)


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
        output: KeptOutput | None = None,
    ) -> None:
        """Start a command; no shell reads the arguments. environment: all of it.

        terminal: whether it gets a terminal, at which nobody types, instead of a pipe and an empty stdin. silence: seconds without
        output after which it is ended. output: keeps what it prints. Raises TrainingError.
        """
        check_startable(arguments, folder, environment)
        self.output = KeptOutput() if output is None else output
        self.ended: Ended | None = None
        self._arguments = tuple(arguments)
        self._splitter = LineSplitter()
        self._silence = silence
        self._cause: Literal["itself", "silence", "stopped"] = "itself"
        self._is_closed = False
        self._kill_at = math.inf
        self._session: int | None = None
        self._failed: TrainingError | None = None
        self._descriptors = contextlib.ExitStack()
        with contextlib.ExitStack() as started:
            started.callback(self._descriptors.close)
            self._start(Order(str(folder.absolute()), terminal, list(arguments), dict(environment)))
            started.pop_all()
        # A busy machine may take a while to start a command, which is not the command's silence.
        self._last_output = math.inf

    def _start(self, order: Order) -> None:
        with contextlib.ExitStack() as theirs:
            try:
                if order.terminal:
                    self._printed, stdout = _terminal()
                    stdin = stdout
                    order.environment.setdefault("TERM", "xterm")
                else:
                    self._printed, stdout = os.pipe()
                    stdin = os.open(os.devnull, os.O_RDONLY)
                    theirs.callback(os.close, stdin)
                self._descriptors.callback(os.close, self._printed)
                theirs.callback(os.close, stdout)
                os.set_blocking(self._printed, False)
                self._guardian = Guardian.with_order(order, stdin, stdout)
            except OSError as error:
                raise self._not_started(error.errno) from error
        # Not poll, which on macOS knows no terminals.
        self._selector = selectors.DefaultSelector()
        self._descriptors.callback(self._selector.close)
        for source in (self._printed, self._guardian):
            self._selector.register(source, selectors.EVENT_READ)

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
        return self._guardian.process.pid

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
        if not self._is_over:
            self._guardian.tell(b"T")

    @property
    def _is_over(self) -> bool:
        return self.ended is not None or self._failed is not None

    def close(self) -> None:
        """Kill what is left of the command, and wait for its end."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_over:
            self._guardian.tell(b"K")
        deadline = time.monotonic() + _LONGEST_END
        while not self._is_over and self._guardian.wait(deadline - time.monotonic()):
            self._listen()
        self._descriptors.close()
        if self._is_over:
            self._guardian.release()
        else:
            self._guardian.end()

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
        ready = [key.fileobj for key, _ in self._selector.select(max(0.0, until - now))]
        data = self._read() if self._printed in ready else b""
        if self._guardian in ready:
            data += self._listen()
        if self._failed is not None:
            raise self._failed
        if data:
            self._last_output = time.monotonic()
            self.output.write(data)
        # The time before it looked counts: this process may have been held up since.
        elif now >= silent_at and self._cause == "itself":
            self._cause = "silence"
            self.stop()
        if now >= self._kill_at:
            self._kill_at = math.inf
            self._guardian.tell(b"K")
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
        for word, number in self._guardian.read():
            if word == "started":
                self._session = number
                # Told late, it may come after the first output.
                if self._last_output == math.inf:
                    self._last_output = time.monotonic()
            elif word == "failed":
                self._failed = self._not_started(number)
            else:
                return self._end(os.waitstatus_to_exitcode(number))
        if self._guardian.lives:
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
