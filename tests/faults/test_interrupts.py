"""Ctrl-C at any moment of the first seconds: a line, and no traceback, of the command or of what it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ablate.interrupts import MESSAGE

ABLATE = [sys.executable, "-m", "ablate"]


@pytest.mark.slow
@pytest.mark.parametrize("signals", [["SIGINT"], ["SIGTERM"], ["SIGHUP"], ["SIGINT", "SIGINT"]], ids="+".join)
def test_an_interrupt_in_the_first_seconds_prints_no_traceback(workplace, signals):
    study = workplace.study(seeds="300")  # more than all these commands together come to
    for name in signals:
        # What is ignored here, as in the background of a script, programs that are started ignore too.
        if signal.getsignal(signal.Signals[name]) is signal.SIG_IGN:
            signal.signal(signal.Signals[name], signal.SIG_DFL)
    for step in range(61):
        command = [*ABLATE, "run", study, "--set", "sleep=0.05", "--workers", "2"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            time.sleep(0.05 * step)
            for name in signals:
                os.killpg(process.pid, signal.Signals[name])
                time.sleep(0.01)
            said, _ = process.communicate(timeout=120)
        if "<frozen site>" in said or (
            "<frozen runpy>" in said and "ablate/interrupts" not in said and "ablate/cli" not in said
        ):
            continue  # Python itself has not begun yet
        # In its first hundredth of a second Python itself has no line of ours to print yet.
        assert "Traceback" not in said or step < 2, f"after {0.05 * step:.2f} s: {said}"
        assert process.returncode in (130, *(-signal.Signals[name] for name in signals)), said


def test_an_interrupt_in_the_middle_of_an_import_ends_the_process_with_a_line(tmp_path):
    # An import turns a KeyboardInterrupt into whatever it likes: here, into another error.
    (tmp_path / "interrupts.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    for _ in range(10**6): pass\n"
        "except KeyboardInterrupt:\n    raise RuntimeError('what has that to do with it')\n"
    )
    program = (
        "import signal, ablate.interrupts as start\n"
        "signal.signal(signal.SIGINT, start.interrupt)\n"
        "import interrupts\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, f"{MESSAGE}\n")
