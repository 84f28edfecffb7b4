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
from free_ports import free_port

from ablate import interrupts, ui
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
    """Ids of the processes that a process has started. Not every kernel keeps a list of them."""
    started = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended since
            if int(status.read_text().rpartition(")")[2].split()[1]) == process:
                started.append(int(status.parent.name))
    return started


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_ending_ui_ends_mlflow_with_it(workplace, number):
    port = free_port()
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
    handlers = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with pytest.raises(KeyboardInterrupt):
        ui.serve(Store(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path), 1)
    assert started[0].returncode is not None
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == handlers


@pytest.mark.parametrize(
    ("variables", "platform", "expected"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({}, "darwin", True),
    ],
)
def test_a_browser_is_opened_only_where_it_has_a_screen(variables, platform, expected):
    assert ui.has_display(variables, platform) is expected


def test_the_first_page_is_that_of_the_latest_studys_arms(workplace):
    assert ui.links(workplace.store, "http://127.0.0.1:1") == [("the whole store", "http://127.0.0.1:1")]
    workplace.trained()
    about, address = ui.links(workplace.store, "http://127.0.0.1:1")[0]
    assert about == "toy: arms with their verdicts"
    assert address.startswith("http://127.0.0.1:1/#/experiments/")
    assert "workflowType=machine_learning" in address
    assert "viewStateShareKey=ablate-arms" in address


def test_a_page_is_opened_once_the_server_answers(tmp_path):
    """By a browser that writes down what it is given: `webbrowser` takes the one that $BROWSER names, when it is imported."""
    opened = tmp_path / "opened"
    opened.touch()
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new && mv {opened}.new {opened}\n')
    browser.chmod(0o755)
    program = (
        "import socket, sys, threading; from ablate import ui\n"
        "server = socket.socket(); server.bind(('127.0.0.1', 0))\n"
        "address = f'http://127.0.0.1:{server.getsockname()[1]}'\n"
        "ui.open_when_served(address, address + '/#/page')\n"
        "print(open(sys.argv[1]).read() + address)\n"  # nothing is opened before anybody listens
        "server.listen(); server.accept()\n"
        "[thread.join() for thread in threading.enumerate() if thread is not threading.current_thread()]\n"
    )
    command = [sys.executable, "-c", program, str(opened)]
    environment = os.environ | {"BROWSER": f"{browser} %s"}
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert opened.read_text() == f"{told.stdout.strip()}/#/page\n"
