"""MLflow's server, for as long as `ablate ui` runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate import ui
from ablate.tracking.store import Store


def test_a_port_that_is_taken_is_one_clear_message(workplace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = workplace.ablate("ui", "--port", str(port), code=2)
    assert f"port {port} cannot be used" in output
    assert "--port" in output


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_ending_ui_ends_mlflow_with_it(workplace, number):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (
        f"import sys; sys.argv = ['ablate', 'ui', '--port', '{port}']; from ablate.cli import main; main()"
    )
    command_line = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        parent = command_line.pid
        for _ in range(2):  # what watches over the server, and the server
            while not (started := children(parent)) and time.monotonic() < deadline:
                time.sleep(0.05)
            [parent] = started
        server = parent
        # A group of its own, which its workers are in too.
        while os.getpgid(server) != server and time.monotonic() < deadline:
            time.sleep(0.05)
        assert os.getpgid(server) == server
        command_line.send_signal(number)
        assert command_line.wait(30) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        deadline = time.monotonic() + 30
        # All of them are killed; the process that inherits those without a parent may take a moment to reap them.
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(server, 0)
                time.sleep(0.05)
            pytest.fail("processes of MLflow are still running")
    finally:
        command_line.kill()
        command_line.wait()


def test_an_interrupt_while_the_server_is_being_started_leaves_no_process(tmp_path, monkeypatch):
    """A signal that arrives before the new process is known ends it all the same."""
    started = []
    popen = subprocess.Popen

    def interrupted_popen(*arguments, **options):
        started.append(popen(*arguments, **options))
        os.kill(os.getpid(), signal.SIGTERM)  # its handler runs before this function returns
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted_popen)
    handlers = [signal.getsignal(number) for number in ui.SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        ui.serve(Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path), 1)
    assert started[0].returncode is not None
    assert [signal.getsignal(number) for number in ui.SIGNALS] == handlers
