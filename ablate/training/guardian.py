"""Starts one command and ends it, with all that it started, when it is told to or when the process that asked for it has died.

A program of its own, started by `ablate.training.process`, with nothing imported but Python's own library:

    python -I -S guardian.py CONTROL STATUS TERMINAL PROGRAM ARGUMENT…

CONTROL: a pipe that it reads; `T` asks the command to end (SIGTERM), `K` or the end of the pipe kills it. STATUS: a pipe that it writes
lines to: `started PID`, `failed ERRNO`, `ended STATUS` (as waitpid has it), the last once nothing of the command is left. TERMINAL: 1
where standard input is a terminal that the command shall have. The command has the guardian's folder, environment and standard files.

On Linux, processes whose parents have died become children of the guardian, whatever session they are in, so that none is missed.
Elsewhere it ends the command's process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

PARTING = 0.5
"""Seconds that what a command left running has to end by itself (a tracker of shared memory cleans up then), and again after SIGTERM."""

LAST_RESORT = 10.0
"""Seconds after which processes are given up that SIGKILL does not end, because they wait for a device."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    control, status = int(sys.argv[1]), int(sys.argv[2])
    for pipe in (control, status):
        os.set_inheritable(pipe, False)
    parent = os.getppid()
    ended, wake = os.pipe()
    for pipe in (ended, wake):
        os.set_blocking(pipe, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    call_kernel(PR_SET_CHILD_SUBREAPER, 1)
    command = start(sys.argv[4:], terminal=sys.argv[3] == "1", status=status)
    if command is None:
        return
    # Whoever reads the command's output waits until nobody can write to it.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    family = Family(command)
    news = News(control, ended, parent)
    while news.wanted and not family.command_has_ended():
        if news.wait(1.0):
            family.end_group()
    if news.wanted:
        family.leave(news)
    family.kill()
    tell(status, b"ended %d\n" % family.status)


class News:
    """What the guardian waits for. wanted: whether the command is wanted still, and who asked for it alive."""

    def __init__(self, control: int, ended: int, parent: int) -> None:
        self._control, self._ended, self._parent = control, ended, parent
        self._poll = select.poll()
        for pipe in (control, ended):
            self._poll.register(pipe, select.POLLIN)
        self.wanted = True

    def wait(self, seconds: float) -> bool:
        """Wait until something has happened. Returns whether the command is asked to end."""
        ready = [pipe for pipe, _ in self._poll.poll(seconds * 1000)]
        if self._ended in ready:
            os.read(self._ended, 4096)
        request = os.read(self._control, 1) if self._control in ready else None
        # The pipe may be held open by a process that was forked from the one that asked.
        self.wanted = request not in (b"", b"K") and os.getppid() == self._parent
        return request == b"T"


class Family:
    """A command, and the processes that it has started. command: its process id, which is its group's too."""

    def __init__(self, command: int) -> None:
        self._command = command
        self._ended = False
        self.status = 0

    def command_has_ended(self) -> bool:
        self._reap()
        return self._ended

    def _reap(self) -> bool:
        """Take note of processes that have ended. Returns whether there are others."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if process == 0:
                return True
            if process == self._command:
                self._ended, self.status = True, status

    def end_group(self) -> None:
        """Ask the command to end."""
        with contextlib.suppress(OSError):
            os.killpg(self._command, signal.SIGTERM)

    def leave(self, news: News) -> None:
        """Wait a little for what the command has left running; ask it to end, and wait again. Returns early where it is to be killed."""
        for is_asked in (False, True):
            if is_asked:
                self._signal(signal.SIGTERM)
            deadline = time.monotonic() + PARTING
            while (seconds := deadline - time.monotonic()) > 0:
                if not self._reap() or not news.wanted:
                    return
                news.wait(seconds)

    def kill(self) -> None:
        """Kill all that is left."""
        deadline = time.monotonic() + LAST_RESORT
        while time.monotonic() < deadline:
            # A process that was about to start another is found out in the next round.
            self._signal(signal.SIGKILL)
            if not self._reap():
                break
            time.sleep(0.002)

    def _signal(self, number: int) -> None:
        processes = descendants(os.getpid())
        if processes is None:
            processes = [-self._command]  # its group
        for process in processes:
            with contextlib.suppress(OSError):
                os.kill(process, number)


def start(arguments: list[str], terminal: bool, status: int) -> int | None:
    """Start the command as the leader of a session and return its process id; None where it cannot be, which STATUS tells."""
    guardian = os.getpid()
    failure, told = os.pipe()
    command = os.fork()
    if command == 0:
        try:
            os.setsid()
            if terminal:
                import fcntl
                import termios

                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            # Whatever the worker ignores: a command has the signals that it would have in a shell.
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            # Should the guardian be killed, at least the command itself ends with it.
            call_kernel(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guardian:
                os._exit(1)
            os.execvpe(arguments[0], arguments, os.environ)  # noqa: S606 — without a shell, as it should be
        except OSError as error:
            os.write(told, b"%d" % (error.errno or 0))
        finally:
            os._exit(127)
    os.close(told)
    reason = os.read(failure, 16)
    os.close(failure)
    tell(status, b"failed %s\n" % reason if reason else b"started %d\n" % command)
    return None if reason else command


def tell(status: int, line: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody may be there to read it
        os.write(status, line)


def descendants(ancestor: int) -> list[int] | None:
    """Return the processes below one, children before their children; None where the system has no /proc."""
    parents: dict[int, list[int]] = {}
    try:
        # pathlib would take as long to import as all else together.
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
    except OSError:
        return None
    for entry in entries:
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123
                # The name of the program, in parentheses, may hold anything.
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        parents.setdefault(parent, []).append(int(entry))
    found = list(parents.get(ancestor, ()))
    for process in found:
        found += parents.get(process, ())
    return found


def call_kernel(option: int, value: int) -> None:
    """Call prctl where there is one."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    # A C library without prctl leaves what can be done without it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
    os._exit(0)  # there is nothing to tidy up, and whoever waits need not wait for it
