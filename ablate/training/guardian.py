"""Starts commands, one after another, and ends each with all that it started, when it is told to or when its owner has died.

A program of its own, which `ablate.training.process` starts and keeps, with nothing imported but Python's own library:

    python -I -S guardian.py CHANNEL

CHANNEL: a Unix socket to the owner. The owner sends `S` with the descriptors of the command's stdin and stdout, a length, and an order
(`read_order`); then `T` to ask the command to end (SIGTERM) or `K` to kill it. The end of the channel kills the command, and ends the
guardian. The guardian answers in lines: `started PID`, `failed ERRNO`, and once nothing of the command is left `ended STATUS` (as waitpid
has it), or `left STATUS` where something of it cannot be killed and the guardian gives up.

On Linux, processes whose parents have died become children of the guardian, whatever session they are in, so that none is missed.
Elsewhere it ends the command's process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time

PARTING, PARTING_ASKED = 0.2, 2.0
"""Seconds that what a command left running has to end by itself (a tracker of shared memory cleans up then), and after SIGTERM."""

LAST_RESORT = 10.0
"""Seconds after which processes are given up that SIGKILL does not end, because they wait for a device."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    ended, wake = os.pipe()
    for pipe in (ended, wake):
        os.set_blocking(pipe, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    call_kernel(PR_SET_CHILD_SUBREAPER, 1)
    owner = Owner(channel, ended)
    while owner.lives:
        if owner.wait(1) == b"S":
            watch(owner)


def watch(owner: Owner) -> None:
    """Start the command of an order that has begun to arrive, and see to its end."""
    command = owner.start()
    if command is None:
        return
    family = Family(command)
    wanted, is_asked = True, False
    try:
        while wanted and not family.command_has_ended():
            request = owner.wait(1)
            if request == b"T":
                is_asked = True
                family.end_group()
            wanted = owner.lives and request != b"K"
        if wanted:
            family.leave(owner, is_asked)
    finally:
        is_gone = family.kill()
    owner.tell(b"%s %d\n" % (b"ended" if is_gone else b"left", family.status))
    if not is_gone:
        sys.exit()


class Owner:
    """The process that orders commands. lives: whether it did when it was last looked for."""

    def __init__(self, channel: socket.socket, ended: int) -> None:
        """channel: to the owner. ended: a pipe that can be read when a process has ended."""
        self._channel, self._ended, self._parent = channel, ended, os.getppid()
        self._descriptors: list[int] = []
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(ended, select.POLLIN)
        self.lives = True

    def wait(self, seconds: float) -> bytes:
        """Wait until something has happened. Returns a request of the owner, or nothing."""
        # The channel may be held open by a process that was forked from the owner.
        ready = [descriptor for descriptor, _ in self._poll.poll(seconds * 1000)]
        if self._ended in ready:
            os.read(self._ended, 4096)
        request = b""
        if self._channel.fileno() in ready:
            # An owner that died without having read all that it was told resets the channel.
            with contextlib.suppress(OSError):
                request, self._descriptors, _, _ = socket.recv_fds(self._channel, 1, 2)
            self.lives = bool(request)
        self.lives = self.lives and os.getppid() == self._parent
        return request

    def start(self) -> int | None:
        """Read an order, start its command as the leader of a session, and tell the owner. Returns its process id; None: it failed."""
        stdin, stdout = self._descriptors
        for descriptor in (stdin, stdout):
            os.set_inheritable(descriptor, False)
        order = read_order(self._channel)
        failure, told = os.pipe()
        guardian = os.getpid()
        command = os.fork()
        if command == 0:
            become(order, stdin, stdout, told, guardian)
        for descriptor in (stdin, stdout, told):
            os.close(descriptor)
        reason = os.read(failure, 16)
        os.close(failure)
        if reason:
            os.waitpid(command, 0)
            self.tell(b"failed %s\n" % reason)
            return None
        self.tell(b"started %d\n" % command)
        return command

    def tell(self, line: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody may be there to read it
            self._channel.sendall(line)


class Order:
    """What is to be started. terminal: whether stdin is a terminal that the command shall have."""

    def __init__(
        self, folder: str, terminal: bool, arguments: list[str], environment: dict[str, str]
    ) -> None:
        self.folder = folder
        self.terminal = terminal
        self.arguments = arguments
        self.environment = environment

    def written(self) -> bytes:
        """Return what `read_order` reads: the length, and texts that end with zero bytes."""
        texts = [
            self.folder,
            "terminal" if self.terminal else "",
            str(len(self.arguments)),
            *self.arguments,
            *(f"{name}={value}" for name, value in self.environment.items()),
        ]
        content = b"".join(os.fsencode(text) + b"\0" for text in texts)
        return b"%20d" % len(content) + content


def read_order(channel: socket.socket) -> Order:
    length = int(_received(channel, 20))
    content = _received(channel, length)
    folder, terminal, number, *texts = (os.fsdecode(text) for text in content.split(b"\0")[:-1])
    variables = (text.partition("=") for text in texts[int(number) :])
    return Order(folder, bool(terminal), texts[: int(number)], {name: value for name, _, value in variables})


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

    def leave(self, owner: Owner, is_asked: bool) -> None:
        """Wait a little for what the command has left running; ask it to end, and wait again. Returns early where it is to be killed.

        is_asked: whether the command was asked to end, so that what it has left may be asked at once.
        """
        for asks in (True,) if is_asked else (False, True):
            if asks:
                self._signal(signal.SIGTERM)
            deadline = time.monotonic() + (PARTING_ASKED if asks else PARTING)
            while (seconds := deadline - time.monotonic()) > 0:
                if not self._reap() or owner.wait(seconds) == b"K" or not owner.lives:
                    return

    def kill(self) -> bool:
        """Kill all that is left. Returns whether nothing is."""
        deadline = time.monotonic() + LAST_RESORT
        while time.monotonic() < deadline:
            # A process that was about to start another is found out in the next round.
            self._signal(signal.SIGKILL)
            if not self._reap():
                return True
            time.sleep(0.002)
        return False

    def _signal(self, number: int) -> None:
        processes = descendants(os.getpid())
        if processes is None:
            processes = [-self._command]  # its group
        for process in processes:
            with contextlib.suppress(OSError):
                os.kill(process, number)


def _received(channel: socket.socket, number: int) -> bytes:
    """Return as many bytes. Ends the guardian where the owner has died before it wrote them."""
    content = b""
    while len(content) < number:
        try:
            piece = channel.recv(number - len(content))
        except OSError:
            piece = b""
        if not piece:
            sys.exit()
        content += piece
    return content


def become(order: Order, stdin: int, stdout: int, told: int, guardian: int) -> None:
    """Become the command, in a new process. Where that fails, write its errno to `told` and end."""
    try:
        os.setsid()
        for standard, descriptor in ((0, stdin), (1, stdout), (2, stdout)):
            os.dup2(descriptor, standard)
        if order.terminal:
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(order.folder)
        # Whatever the owner ignores: a command has the signals that it would have in a shell.
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # Should the guardian be killed, at least the command itself ends with it.
        call_kernel(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == guardian:
            os.execvpe(order.arguments[0], order.arguments, order.environment)  # noqa: S606 — no shell, as it should be
    except OSError as error:
        os.write(told, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def descendants(ancestor: int) -> list[int] | None:
    """Return the processes below one, children before their children; None where the system has no /proc."""
    parents: dict[int, list[int]] = {}
    try:
        # pathlib would take as long to import as all else together.
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 — as above
    except OSError:
        return None
    for entry in entries:
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123 — as above
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
