"""Ctrl-C, SIGTERM or a closed terminal at any moment: a line, and no traceback, of the command or of what it started; nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ablate.interrupts import EXIT_CODE, MESSAGE

ABLATE = [sys.executable, "-m", "ablate"]

SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"]


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """What is ignored here, as in the background of a script, programs that are started ignore too."""
    for name in SIGNALS:
        if signal.getsignal(signal.Signals[name]) is signal.SIG_IGN:
            signal.signal(signal.Signals[name], signal.SIG_DFL)


def seconds_to_training(command: list[str]) -> float:
    """Start a study, and return how long it takes until its first run has ended."""
    began = time.monotonic()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("["):
                break
        took = time.monotonic() - began
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    return took


def is_prepared(process: int) -> bool:
    """Return whether a command has begun to see to signals. Before, it is Python itself that ends, with a traceback of its start."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (signal.SIGHUP - 1) & 1)  # the last of them, and one that Python leaves alone


@pytest.mark.slow
@pytest.mark.parametrize("signals", [["SIGINT"], ["SIGTERM"], ["SIGHUP"], ["SIGINT", "SIGINT"]], ids="+".join)
def test_an_interrupt_in_the_first_seconds_prints_no_traceback(workplace, signals):
    study = workplace.study(seeds="300")  # more than all these commands together come to
    command = [*ABLATE, "run", study, "--set", "sleep=0.05", "--workers", "2"]
    seconds_to_training(command)  # what is made once has been made
    span = max(3.0, 1.5 * seconds_to_training(command))
    met = 0
    for step in range(61):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            time.sleep(span * step / 60)
            has_begun = is_prepared(process.pid)
            for name in signals:
                os.killpg(process.pid, signal.Signals[name])
                time.sleep(0.01)
            said, _ = process.communicate(timeout=600)
        if has_begun:
            met += 1
            where = f"after {span * step / 60:.2f} s: {said}"
            assert "Traceback" not in said, where
            assert "Exception ignored" not in said, where
            assert process.returncode in (EXIT_CODE, *[-signal.SIGINT][: len(signals) - 1]), where
            assert MESSAGE in said or process.returncode < 0, where
    assert met > 30


# --- any command, wherever it is --------------------------------------------------------------------------------------

AT_A_CALL = r"""
import atexit, os, sys
number, at = int(sys.argv[1]), int(sys.argv[2])
sys.argv[:3] = ["ablate"]
calls = 0
atexit.register(lambda: os.write(2, b"calls: %d\n" % calls))  # the last of all

def count(frame, event, argument):
    global calls
    calls += 1
    if calls == at:
        sys.setprofile(None)
        os.killpg(0, number)

def serving(event, arguments):  # is what `ui` does until it is asked to end
    if event == "subprocess.Popen" and arguments[0] == sys.executable and (sys.argv[1], at) == ("ui", 0):
        os.write(2, b"calls: %d\n" % calls)
        os.kill(os.getpid(), 15)

from ablate.__main__ import main
sys.addaudithook(serving)
sys.setprofile(count)
main()
"""
"""Program that runs a command, and sends a signal to its group at one of the calls of its functions, whatever the machine has to do."""

CSV = "optimizer,seed,accuracy\n" + "".join(
    f"{arm},{seed},{value + seed / 100}\n"
    for seed in range(5)
    for arm, value in (("sgd", 0.8), ("adam", 0.9))
)

COMMANDS = {
    "init": ["init", "mine"],
    "list": ["list"],
    "status": ["status"],
    "judge": [
        "judge",
        "results.csv",
        "--arm=optimizer",
        "--metric=accuracy",
        "--baseline=sgd",
        "--margin=0.01",
        "--seed=seed",
    ],
    "report": ["report", "toy"],
    "run": ["run", "other.yaml", "--workers=2", "--set=width={at}"],
    "finished": ["run", "toy.yaml"],
    "plan": ["plan", "other.yaml", "--workers=2", "--set=width={at}"],
    "lr": ["lr", "other.yaml", "--path=spread", "--epochs=1", "--workers=2"],
    "ui": ["ui", "--no-browser"],
}
"""Commands that are interrupted. `run` and `finished`: of a study that is trained, and of one with nothing left to do.

{at}: the call, so that nothing of the time before is taken for it.
"""


def left_of(mark: str) -> list[str]:
    """Return the command lines of all processes that a variable of their environment shows to come from a command."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


class Interrupted:
    """A command in a folder, to be run as often as it is interrupted."""

    def __init__(self, workplace, command: str) -> None:
        self._root: Path = workplace.root
        self._command = command
        self._temporary = Path(
            tempfile.mkdtemp(dir=self._root.parent)
        )  # short enough for the address of a socket
        self._mark = f"ABLATE_TEST_MARK={self._root}"
        workplace.trained()
        workplace.study(name="other")
        (self._root / "results.csv").write_text(CSV)

    def run(self, number: int, at: int) -> tuple[int, str]:
        """Run the command, and send it a signal at a call; 0: at none. Returns its exit code and what it printed."""
        (self._root / "mine.yaml").unlink(missing_ok=True)
        command = [argument.format(at=at) for argument in COMMANDS[self._command]]
        name, _, value = self._mark.partition("=")
        done = subprocess.run(
            [sys.executable, "-c", AT_A_CALL, str(int(number)), str(at), *command],
            env=os.environ | {"TMPDIR": str(self._temporary), name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout

    def left(self) -> list[str]:
        """Return what a command has left behind: processes, once they have had the time to end, and files."""
        deadline = time.monotonic() + 60
        while (processes := left_of(self._mark)) and time.monotonic() < deadline:
            time.sleep(0.05)
        files = [str(path) for path in self._temporary.iterdir()]
        return [*processes, *files, *map(str, self._root.rglob("*.tmp*"))]


def interrupt_often(workplace, command: str, moments: int, begin: int = 50) -> None:
    """Interrupt a command at calls drawn at random, and see to it that it ends with a line, leaves nothing, and works afterwards."""
    interrupted = Interrupted(workplace, command)
    code, said = interrupted.run(0, 0)
    assert code == 0, said
    total = int(said.partition("calls: ")[2].split()[0])
    draw = random.Random(command)
    for moment in range(moments):
        number = signal.Signals[SIGNALS[moment % len(SIGNALS)]]
        # As many among the first calls, which are imports, as near the end.
        at = draw.randint(begin, total) if moment % 2 else int(begin * (total / begin) ** draw.random())
        code, said = interrupted.run(number, at)
        where = f"{number.name} at call {at} of {total}: {said}"
        assert "Traceback" not in said, where
        assert "Exception ignored" not in said, where
        if code == EXIT_CODE:
            assert MESSAGE in said, where
        else:  # it was over, or served and was asked to end
            assert code == 0, where
            assert MESSAGE not in said, where
        assert interrupted.left() == [], where
    code, said = interrupted.run(0, 0)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_any_command_that_is_interrupted_ends_with_a_line_and_leaves_nothing(workplace, command):
    interrupt_often(workplace, command, moments=30)


def test_a_command_that_is_interrupted_ends_with_a_line_and_leaves_nothing(workplace):
    interrupt_often(workplace, "list", moments=2)


# --- where an exception would be lost -----------------------------------------------------------------------------------

SEND = """
import os, signal, ablate.interrupts as start
def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    for _ in range(10**5): pass
"""

PLACES = {
    # An import turns a KeyboardInterrupt into whatever it likes: here, into another error.
    "import": "import interrupted",
    "destructor": """
class Thing:
    def __del__(self): send()
Thing()
print("goes on")
""",
    "callback": """
import weakref
class Thing: pass
thing = Thing()
kept = weakref.ref(thing, lambda _: send())
del thing
print("goes on")
""",
    "turned into another error": """
try:
    send()
except KeyboardInterrupt:
    raise RuntimeError("what has that to do with it")
""",
    "followed by another": """
class Thing:
    def __del__(self): raise RuntimeError("half made")
thing = Thing()
send()
""",
}


def at(place: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in which a signal comes at some place."""
    (tmp_path / "interrupted.py").write_text(SEND + PLACES["turned into another error"])
    return subprocess.run(
        [sys.executable, "-c", f"{SEND}start.prepare()\n{place}\n"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupt_that_would_be_lost_or_turned_into_something_else_ends_the_process_with_a_line(
    tmp_path, place
):
    done = at(PLACES[place], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_CODE, "", f"{MESSAGE}\n")


def test_a_command_that_has_done_its_work_is_not_interrupted_in_its_exit_handlers(tmp_path):
    end = "import atexit\n@atexit.register\ndef end():\n    send()\n    print('ended')\nstart.conclude()"
    done = at(end, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
    done = at(f"{end}\natexit.register(end)", tmp_path)  # but a second Ctrl-C is not waited for
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_what_comes_twice_for_one_reason_is_one_interrupt(tmp_path):
    twice = """
for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
    try:
        send(number)
    except KeyboardInterrupt:
        print("once")
"""
    done = at(twice, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "once\n", "")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    program = (
        "import os, signal; [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)]\n"
        "import ablate.interrupts as start; start.prepare()\n"
        "from ablate.launch import _interruptible\n"
        "with _interruptible() as stop:\n    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")


# --- the forkserver -----------------------------------------------------------------------------------------------------

HALF = """
import os, pickle, signal
from multiprocessing import forkserver
from ablate.executors import local
executor = local.LocalExecutor(print, local.cpu_slots(1))
executor.warm_up()
print(os.listdir(os.environ["TMPDIR"]), flush=True)
status, data = forkserver.connect_to_new_process([])
forkserver.read_signed(status)  # the worker waits for what it is to do
os.write(data, pickle.dumps({"name": "worker" * 10})[:20])  # half of it
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_while_it_starts_a_worker_leaves_no_folder_and_no_traceback():
    with tempfile.TemporaryDirectory() as folder:  # short enough for the address of a socket
        with subprocess.Popen(
            [sys.executable, "-c", HALF],
            env=os.environ | {"TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            said, _ = process.communicate(timeout=60)  # until the forkserver has ended, too
        assert process.returncode == -signal.SIGKILL
        assert said.startswith("['pymp-")
        assert said.count("\n") == 1
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("name", SIGNALS)
def test_the_forkserver_and_its_workers_leave_signals_to_their_parent(name, tmp_path):
    program = (
        "import os, signal, sys, time\nfrom ablate.executors import local\n"
        "from multiprocessing import forkserver\n"
        "number = int(sys.argv[1])\n"
        "executor = local.LocalExecutor(print, local.cpu_slots(1))\n"
        "signal.signal(number, lambda *_: print('parent', flush=True))\n"
        "executor.warm_up()\n"
        "os.killpg(0, number)\n"  # while it imports
        "time.sleep(0.3)\n"  # what this kills is dead
        "status, data = forkserver.connect_to_new_process([])\n"
        "print(forkserver.read_signed(status) > 0, flush=True)\n"
        "os.killpg(0, number)\n"
        "os.close(data)\n"
        "print(forkserver.read_signed(status))\n"  # it has not been killed, but has not got what it needs
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(int(signal.Signals[name]))],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("parent\nTrue\nparent\n1\n", "")
