"""Commands under watch: what they are given, what they print, how they end, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import TrainingError
from ablate.training import process as process_module
from ablate.training.guardian import Order, read_order
from ablate.training.process import Ended, Guardian, Process, check_startable

ENVIRONMENT = {"PATH": os.environ["PATH"]}

# Starts a process in each of the ways in which one escapes: it prints their process ids and waits.
FORKS = """
import os, sys, time

def child(*, session, twice, quiet):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        if session:
            os.setsid()
        if twice and os.fork() > 0:
            os._exit(0)
        if quiet:
            for file in (0, 1, 2):
                os.close(file)
        os.write(theirs, b"%d" % os.getpid())
        time.sleep(1000)
    print(int(os.read(ours, 16)), flush=True)

child(session=False, twice=False, quiet=False)
child(session=True, twice=False, quiet=False)
child(session=True, twice=True, quiet=True)
print(os.getpid(), flush=True)
"""


def run(
    *arguments: str, folder: Path = Path("/"), terminal: bool = False, silence: float | None = None
) -> tuple[list[str], Ended]:
    """Run a command to its end; returns its lines."""
    with Process(arguments, folder, ENVIRONMENT, terminal=terminal, silence=silence) as process:
        lines = [line for some in process.lines() for line in some]
    assert process.ended is not None
    return lines, process.ended


def shell(script: str, **options) -> tuple[list[str], Ended]:
    return run("sh", "-c", script, **options)


@contextlib.contextmanager
def watched(pid: int) -> Iterator[int]:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        yield -1
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ends(pid: int, seconds: float = 60) -> bool:
    """Wait until a process has ended."""
    with watched(pid) as descriptor:
        return descriptor == -1 or bool(select.select([descriptor], [], [], seconds)[0])


# --- what it is given and what it prints --------------------------------------------------------------------------------


def test_stdout_and_stderr_are_read_in_order_and_the_return_of_the_cursor_ends_a_line():
    lines, ended = shell(r"echo one; echo two >&2; printf '10%%\r100%%\r\n'; printf end")
    assert lines == ["one", "two", "10%", "100%", "end"]
    assert ended == Ended(0)
    assert ended.well


def test_lines_arrive_while_the_command_runs(tmp_path):
    os.mkfifo(tmp_path / "wait")
    with Process(["sh", "-c", "echo ready; read x < wait; echo done"], tmp_path, ENVIRONMENT) as process:
        arrived = process.lines()
        lines: list[str] = []
        while "ready" not in lines:
            lines += next(arrived)
        assert process.ended is None
        (tmp_path / "wait").write_text("go\n")
        assert [line for some in arrived for line in some] == ["done"]


@pytest.mark.parametrize("terminal", [False, True])
def test_arguments_and_environment_arrive_as_they_are(tmp_path, terminal):
    arguments = ["", " ", "a b", "'{run_dir}'", '"', "$HOME", "*", "a\nb", "ü", "--x=[1, 2]", "-c", ";", "\\"]
    environment = ENVIRONMENT | {
        "EMPTY": "",
        "ODD": "a=b\n'c' ü",
        "PYTHONSTARTUP": "nowhere",
        "PYTHONHOME": "",
    }
    code = "import os, sys; print(ascii(sys.argv[1:])); print(ascii(dict(os.environ))); print(os.getcwd())"
    command = [sys.executable, "-S", "-c", code, *arguments]
    with Process(command, tmp_path, environment, terminal=terminal) as process:
        lines = [line for some in process.lines() for line in some]
    assert lines[0] == ascii(arguments)
    expected = environment | ({"TERM": "xterm"} if terminal else {})
    given = eval(lines[1])
    assert {name: value for name, value in given.items() if name not in {"LC_CTYPE", "PWD"}} == expected
    assert lines[2] == str(tmp_path)


def test_a_relative_folder_is_one_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("pwd", folder=Path("sub")) == ([str(tmp_path / "sub")], Ended(0))


def test_a_command_has_no_open_files_but_its_three_and_no_ignored_signals():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        lines, _ = shell("ls /proc/self/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status")
    finally:
        signal.signal(signal.SIGINT, before)
    assert lines[:3] == ["0", "1", "2"]
    assert len(lines) == 4 + 2, "the fourth is the folder that ls reads"
    # Two signals are the C library's own, which lets nobody set them.
    own = 0b11 << 31
    assert [int(line.split()[1], 16) & ~own for line in lines[4:]] == [0, 0]


def test_without_a_terminal_nobody_answers():
    assert shell("cat; test -t 0 || test -t 1 || echo none") == (["none"], Ended(0))


def test_with_a_terminal_there_is_one_with_a_size():
    lines, ended = shell("stty size; test -t 0 -a -t 1 -a -t 2 && echo three > /dev/tty", terminal=True)
    assert lines == ["50 200", "three"]
    assert ended == Ended(0)


def test_a_terminal_changes_nothing_of_what_is_printed():
    with Process(["printf", r"a\nb\r\n\tc\r"], Path("/"), ENVIRONMENT, terminal=True) as process:
        assert [line for some in process.lines() for line in some] == ["a", "b", "\tc"]
    assert process.output.content() == b"a\nb\r\n\tc\r"


@pytest.mark.parametrize("terminal", [False, True])
def test_much_output_is_kept_within_bounds_and_read_to_its_end(terminal):
    with Process(
        ["sh", "-c", "yes 'loss 0.5 and more' | head -n 100000; echo last"],
        Path("/"),
        ENVIRONMENT,
        terminal=terminal,
    ) as process:
        number = sum(line == "loss 0.5 and more" for some in process.lines() for line in some)
    assert number == 100_000
    assert process.output.total == 100_000 * 18 + 5
    assert process.output.last_lines(1) == ["last"]
    assert len(process.output.content()) <= 1_000_000


def test_a_hundred_megabytes_of_one_line_are_read_in_bounded_memory():
    import tracemalloc

    with Process(
        ["sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' y; echo; echo last"], Path("/"), ENVIRONMENT
    ) as process:
        tracemalloc.start()
        lines = [line for some in process.lines() for line in some]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert process.output.total > 100_000_000
    assert lines[-1] == "last"
    assert peak < 10_000_000


# --- how it ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("exit 0", 0, "exited with 0"),
        ("exit 3", 3, "exited with 3"),
        ("exit 128", 128, "exited with 128"),
        ("exit 139", 139, "exited with 139, which stands for SIGSEGV (Segmentation fault)"),
        ("exit 255", 255, "exited with 255"),
        ("kill -SEGV $$", -11, "was killed by SIGSEGV (Segmentation fault)"),
        ("kill -TERM $$", -15, "was killed by SIGTERM (Terminated)"),
        ("kill -KILL $$", -9, "was killed by SIGKILL, which the system sends where memory runs out"),
        ("kill -40 $$", -40, "was killed by signal 40"),
    ],
)
def test_an_end_is_told_in_words(script, code, words):
    _, ended = shell(f"echo before; {script}")
    assert (ended.code, ended.cause, ended.words) == (code, "itself", words)
    assert ended.well == (code == 0)


class Clock:
    """In place of the module `time`: it stands still until a test lets time pass, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(process_module, "time", clock)
    return clock


def test_silence_ends_a_command_and_output_puts_it_off(tmp_path, clock):
    os.mkfifo(tmp_path / "typed")
    script = "while read x; do echo $x; done < typed; sleep 1000"
    with Process(["sh", "-c", script], tmp_path, ENVIRONMENT, silence=1) as process:
        lines = process.lines(tick=0.01)
        with (tmp_path / "typed").open("w") as typed:
            for number in "123456":
                print(number, file=typed, flush=True)
                while (some := next(lines)) != [number]:
                    assert some == []
                clock.now += 0.75
        clock.now += 0.5
        assert not any(lines)
    assert process.ended is not None
    assert process.ended.cause == "silence"
    assert not process.ended.well
    assert Ended(-15, "silence", 600).words == "printed nothing for 10 min and was ended"


def test_silence_counts_from_when_a_command_has_begun(clock):
    with Process(("true",), Path("/"), ENVIRONMENT) as first:
        assert list(first.lines())
    os.kill(first.guardian, signal.SIGSTOP)
    with Process(("echo", "1"), Path("/"), ENVIRONMENT, silence=0.3) as process:
        assert process.guardian == first.guardian
        lines = process.lines(tick=0.01)
        for _ in range(3):
            assert next(lines) == []
            clock.now += 0.5
        os.kill(first.guardian, signal.SIGCONT)
        assert [line for some in lines for line in some] == ["1"]
    assert process.ended == Ended(0, "itself", 0.3)


def test_what_is_printed_while_this_process_is_held_up_is_no_silence(tmp_path, clock):
    """Held up between a look at what was printed, which finds nothing, and a look at the clock."""
    os.mkfifo(tmp_path / "wait")
    script = "read x < wait; echo 1"
    with Process(["sh", "-c", script], tmp_path, ENVIRONMENT, silence=0.3) as process:
        look = process._selector.select

        def held_up(seconds: float):
            ready = look(seconds)
            if process._session is not None and clock.now == 0:
                assert ready == []
                (tmp_path / "wait").write_text("go\n")
                select.select([process._printed], [], [])
                clock.now = 0.4
            return ready

        process._selector.select = held_up
        assert [line for some in process.lines(tick=0.01) for line in some] == ["1"]
    assert process.ended == Ended(0, "itself", 0.3)


def test_a_command_that_is_stopped_may_clean_up():
    script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    with Process(["sh", "-c", script], Path("/"), ENVIRONMENT) as process:
        lines: list[str] = []
        for some in process.lines():
            lines += some
            if some == ["ready"]:
                process.stop(grace=60)
    assert [line for line in lines if line != "Terminated"] == ["ready", "bye"]
    assert process.ended == Ended(0, "stopped")


def test_a_command_that_does_not_stop_is_killed_after_its_grace():
    with Process(["sh", "-c", "trap '' TERM; echo ready; sleep 1000"], Path("/"), ENVIRONMENT) as process:
        for some in process.lines():
            if some == ["ready"]:
                process.stop(grace=0.05)
    assert process.ended == Ended(-9, "stopped")


def test_stopping_a_command_that_has_ended_is_nothing():
    with Process(["true"], Path("/"), ENVIRONMENT) as process:
        assert list(process.lines())
        process.stop()
    process.close()
    assert process.ended == Ended(0)


# --- nothing is left ------------------------------------------------------------------------------------------------------


def test_what_a_command_leaves_running_ends_with_it():
    lines, ended = run(sys.executable, "-S", "-c", FORKS)
    assert ended == Ended(0)
    assert len(lines) == 4
    assert not any(Path(f"/proc/{pid}").exists() for pid in lines)


def test_what_a_command_leaves_running_may_clean_up(tmp_path):
    os.mkfifo(tmp_path / "ready")
    left = "(trap 'echo bye; exit' TERM; echo > ready; while :; do sleep 0.01; done) &"
    lines, ended = shell(f"{left} read x < ready; echo done", folder=tmp_path)
    assert ended == Ended(0)
    assert [line for line in lines if line != "Terminated"] == ["done", "bye"]


def test_all_ends_where_the_block_is_left_early():
    command = [sys.executable, "-S", "-c", FORKS + "time.sleep(1000)"]
    pids: list[str] = []
    with Process(command, Path("/"), ENVIRONMENT) as process:
        for lines in process.lines():
            pids += lines
            if len(pids) == 4:
                break
    assert len(pids) == 4
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


HOLDER = """
import os, sys, time
from pathlib import Path
from ablate.training.process import Process

with Process([sys.executable, "-S", "-c", {script!r}], Path("/"), dict(os.environ)) as process:
    pids = []
    for lines in process.lines():
        pids += lines
        if len(pids) == 4:
            if {forked}:
                if os.fork() == 0:  # holds all that its parent has open
                    pids.append(str(os.getpid()))
                    print(*pids, flush=True)
                    time.sleep(1000)
            else:
                print(*pids, process.guardian, flush=True)
"""


@pytest.mark.parametrize("terminated", [signal.SIGKILL, signal.SIGTERM])
def test_all_ends_where_the_process_that_started_it_is_killed(terminated):
    code = HOLDER.format(script=FORKS + "time.sleep(1000)", forked=False)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        pids = holder.stdout.readline().split()
        assert len(pids) == 5
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        holder.send_signal(terminated)
        assert all(ends(int(pid)) for pid in pids)


def test_all_ends_where_the_process_that_started_it_dies_with_news_unread():
    """Its end of the channel is reset then, not closed."""
    code = (
        "import os, select, sys, time\nfrom pathlib import Path\nfrom ablate.training.process import Process\n"
        f"process = Process([sys.executable, '-S', '-c', {FORKS + 'time.sleep(1000)'!r}], Path('/'), dict(os.environ))\n"
        "printed = b''\n"
        "while printed.count(b'\\n') < 4:\n"
        "    select.select([process._printed], [], [])\n"
        "    printed += os.read(process._printed, 100)\n"
        "print(*map(int, printed.split()), process.guardian, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        pids = holder.stdout.readline().split()
        holder.kill()
        assert len(pids) == 5
        assert all(ends(int(pid)) for pid in pids)


def test_all_ends_even_where_another_process_holds_its_files():
    code = HOLDER.format(script=FORKS + "time.sleep(1000)", forked=True)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True
    ) as holder:
        *pids, forked = holder.stdout.readline().split()
        try:
            holder.kill()
            assert all(ends(int(pid)) for pid in pids)
        finally:
            os.kill(int(forked), signal.SIGKILL)


def test_a_command_ends_with_its_guardian():
    with Process([sys.executable, "-S", "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"],
                 Path("/"), ENVIRONMENT) as process:  # fmt: skip
        for lines in process.lines():
            for pid in lines:
                os.kill(process.guardian, signal.SIGKILL)
                assert ends(int(pid))
    assert process.ended == Ended(-9)


def test_one_guardian_runs_one_command_after_another_and_is_replaced_where_it_has_died():
    def guardian(script: str) -> int:
        with Process(["sh", "-c", script], Path("/"), ENVIRONMENT) as process:
            assert [line for some in process.lines() for line in some] == ["done"]
        return process.guardian

    first = guardian("sleep 1000 & echo done")
    assert guardian("echo done; kill -9 $$") == first
    with pytest.raises(TrainingError):
        run("/")
    with pytest.raises(TrainingError):
        run("true", "x" * 10_000_000)
    with Process(["sleep", "1000"], Path("/"), ENVIRONMENT) as early:
        assert guardian("echo done") != early.guardian
    assert guardian("echo done") == first
    os.kill(first, signal.SIGKILL)
    assert ends(first)
    assert guardian("echo done") != first


TEXT = (st.text().map(str.encode) | st.binary()).filter(lambda text: b"\0" not in text).map(os.fsdecode)
VARIABLES = st.dictionaries(TEXT.filter(lambda name: "=" not in name), TEXT)


@settings(max_examples=30)
@given(TEXT, st.booleans(), st.lists(TEXT, min_size=1), VARIABLES)
def test_an_order_arrives_as_it_was_given_whatever_its_bytes_are(folder, terminal, arguments, environment):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        order = Order(folder, terminal, arguments, environment)
        ours.sendall(order.written() + b"T")
        assert vars(read_order(theirs)) == vars(order)
        assert theirs.recv(10) == b"T"


def test_a_process_that_is_forked_has_guardians_of_its_own():
    code = (
        "import os\nfrom pathlib import Path\nfrom ablate.training.process import Process\n"
        "def guardian():\n"
        "    with Process(['echo', 'done'], Path('/'), dict(os.environ)) as process:\n"
        "        assert ['done'] in list(process.lines())\n"
        "    return process.guardian\n"
        "first = guardian()\n"
        "child = os.fork()\n"
        "second = guardian()\n"
        "assert (second == first) == (child > 0)\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    assert guardian() == first\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_where_there_is_no_proc_and_no_prctl_the_group_of_the_command_ends(tmp_path, monkeypatch):
    """As on macOS."""
    Guardian.end_idle()
    other = tmp_path / "guardian.py"
    other.write_text(
        "import os, runpy, sys\n"
        "def listdir(path):\n    raise FileNotFoundError(path)\n"
        "os.listdir, sys.platform = listdir, 'darwin'\n"
        f"runpy.run_path({str(process_module._GUARDIAN)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(process_module, "_GUARDIAN", other)
    lines, ended = shell("sleep 1000 & echo $!; echo $$; exit 4")
    assert ended == Ended(4)
    assert all(ends(int(pid)) for pid in lines)
    with Process(["sh", "-c", "sleep 1000 & echo $!; echo $$; wait"], Path("/"), ENVIRONMENT) as process:
        pids: list[str] = []
        for some in process.lines():
            pids += some
            if len(pids) == 2:
                break
    assert all(ends(int(pid)) for pid in pids)
    Guardian.end_idle()


def test_nothing_is_open_afterwards():
    Guardian.end_idle()
    before = set(Path("/proc/self/fd").iterdir())
    run("true")
    run("true", terminal=True)
    with pytest.raises(TrainingError):
        run("sh", "x" * 10_000_000)
    Guardian.end_idle()
    assert set(Path("/proc/self/fd").iterdir()) == before


# --- what cannot be started -----------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path):
    (tmp_path / "plain.py").write_text("print('hi')\n")
    (tmp_path / "plain.sh").write_text("echo hi\n")
    script = tmp_path / "starter"
    script.write_text("echo hi > touched\n")
    script.chmod(0o755)
    lost = tmp_path / "lost"
    lost.write_text("#!/nowhere/python\n")
    lost.chmod(0o755)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "folder", "place", "message", "hint"),
    [
        (["trian"], "", "command", "there is no program 'trian' on the PATH", "write its whole path"),
        (["starter"], "", "command", "there is no program 'starter' on the PATH", "write ./starter for the one in "),
        (["./nothing"], "", "command", "/nothing does not exist", "paths are relative to "),
        (["./folder"], "", "command", "/folder is a folder", "paths are relative to "),
        (["./plain.py"], "", "command", "/plain.py may not be executed", "write [python, ./plain.py, …]"),
        (["./plain.sh"], "", "command", "/plain.sh may not be executed", "chmod +x "),
        (["true"], "nowhere", "folder", "/nowhere does not exist", "relative to the study's file"),
        (["true"], "plain.py", "folder", "/plain.py is no folder", "relative to the study's file"),
        ([], "", "command", "names no program", None),
        ([""], "", "command", "names no program", None),
        (["true", "a\0b"], "", "command", r"'a\x00b' holds a zero byte", None),
    ],
)  # fmt: skip
def test_what_cannot_be_started_is_told_before_anything_runs(programs, command, folder, place, message, hint):
    with pytest.raises(TrainingError) as caught:
        check_startable(command, programs / folder, ENVIRONMENT)
    assert caught.value.place == place
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["./starter"], "'./starter' is no program that the system knows how to run"),
        (["./lost"], "'./lost' cannot be started: No such file or directory"),
        (["true", "x" * 10_000_000], "its arguments and environment are longer than the system allows"),
    ],
)
def test_what_the_system_refuses_to_start_is_told(programs, command, message):
    check_startable(command, programs, ENVIRONMENT)
    with pytest.raises(TrainingError) as caught:
        run(*command, folder=programs)
    assert (caught.value.place, caught.value.message) == ("command", message)
    assert not (programs / "touched").exists()


def test_a_system_that_is_not_posix_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(process_module.os, "name", "nt")
    with pytest.raises(TrainingError, match="needs a POSIX system"):
        check_startable(["true"], tmp_path, ENVIRONMENT)
