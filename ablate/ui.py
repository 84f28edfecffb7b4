"""MLflow's own pages on the store, for as long as the command runs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ablate import addresses, interrupts
from ablate.errors import StudyError

if TYPE_CHECKING:
    from ablate.tracking.store import Store

MOST_LINKS = 3
"""Studies whose addresses are given, the latest first."""

UP_WITHIN, ASK_EVERY = 120.0, 0.2
"""Seconds within which a server is expected to answer before a browser is opened, and between two attempts."""

ENDS_WITHIN = 5.0
"""Seconds after which a server that was asked to end is killed."""


def address(port: int) -> str:
    """Return the address of a port on this machine. Raises StudyError where the port cannot be used."""
    url = f"http://127.0.0.1:{port}"
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise StudyError(
                f"port {port} cannot be used ({error.strerror})",
                place="--port",
                hint=f"is MLflow open at {url} already? Another one: --port {port % 65535 + 1}",
            ) from None
    return url


def links(store: Store, url: str) -> list[tuple[str, str]]:
    """Return what there is to see, with its address: of the latest studies arms and curves, then the whole store."""
    from ablate.tracking import views
    from ablate.tracking.plans import experiment_id, study_names

    pages = []
    for study in study_names(store)[:MOST_LINKS]:
        experiment = experiment_id(store, study)
        pages.append((f"{study}: arms with their verdicts", f"{url}{views.address(experiment, views.ARMS)}"))
        pages.append((f"{study}: curves, by arm", f"{url}{views.address(experiment, views.CURVES)}"))
    return [*pages, ("the whole store", url)]


def has_display(variables: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Return whether a browser has a screen to open on. Without one, `webbrowser` would start a browser in the terminal."""
    return platform in ("darwin", "win32") or bool(
        variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY")
    )


def open_when_served(address: str, page: str) -> None:
    """Open a page in the user's browser once the server at an address answers; the thread that waits for it ends with this process."""

    def wait() -> None:
        parts = urlsplit(address)
        deadline = time.monotonic() + UP_WITHIN
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port), 1):
                webbrowser.open(page)
                return
            time.sleep(ASK_EVERY)

    threading.Thread(target=wait, daemon=True).start()


def serve(store: Store, port: int) -> int:
    """Run MLflow's server on the store until it ends or this process is interrupted. Returns its exit code.

    Raises KeyboardInterrupt for Ctrl-C, SIGTERM and SIGHUP, after the server and all that it started have ended.
    """
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Of its own use of its dependencies: nobody who reads them here can do anything about it.
        "PYTHONWARNINGS": os.environ.get(
            "PYTHONWARNINGS", "ignore::DeprecationWarning,ignore::FutureWarning,ignore::UserWarning"
        ),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # Not an argument: a list of processes shows a password in it to all users.
        "MLFLOW_BACKEND_STORE_URI": addresses.address_to_open(store.uri, by_child=True),
    }
    command = [sys.executable, "-P", "-m", "mlflow", "ui"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", addresses.folder_address(Path.cwd() / "mlartifacts")]
    return _run_until_interrupted(command, environment | _safe_path())


def _safe_path() -> dict[str, str]:
    """Return the variables with which neither MLflow nor what it starts imports anything from the folder that it runs in."""
    variables = {"PYTHONSAFEPATH": "1"}
    if chosen := os.environ.get("PYTHONPATH"):
        folders = [str(Path(folder).absolute()) for folder in chosen.split(os.pathsep) if folder]
        variables["PYTHONPATH"] = os.pathsep.join(folders)
    return variables


_WATCH = """
import os, signal, subprocess, sys, threading
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True)
def end(number):
    try:
        os.killpg(server.pid, number)
    except ProcessLookupError:
        pass
def watch():
    sys.stdin.buffer.read()
    end(signal.SIGTERM)
    try:
        server.wait(float(sys.argv[1]))
    except subprocess.TimeoutExpired:
        end(signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
code = server.wait()
end(signal.SIGKILL)
os._exit(code if code >= 0 else 128 - code)
"""
"""Program that runs the server, and ends it when its own input ends: with the process that started it, however that came about.

The server is in a group of its own: its workers are not its children, and have to end too.
"""


def _run_until_interrupted(command: list[str], environment: Mapping[str, str]) -> int:
    server: subprocess.Popen[bytes] | None = None
    is_interrupted = False

    def interrupt(_number: int, _frame: Any) -> None:
        nonlocal is_interrupted
        is_first, is_interrupted = not is_interrupted, True
        # While the server is being started there is nothing yet that could be ended; a second interrupt must not leave it
        # half ended.
        if is_first and server is not None:
            raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for number in previous:
            signal.signal(number, interrupt)
        server = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, str(ENDS_WITHIN), *command],
            env=environment,
            stdin=subprocess.PIPE,
            start_new_session=True,
            # A folder that is nobody's: MLflow's own server puts the one that it runs in first in its path.
            cwd="/",
        )
        if is_interrupted:
            raise KeyboardInterrupt
        return server.wait()
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        if server is not None:
            assert server.stdin is not None
            server.stdin.close()
            server.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
