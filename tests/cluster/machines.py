"""A Ray cluster of machines that a test may kill: each a process of `ray start`, of which some do not see a folder of the others."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from free_ports import free_port

MEMORY = 100 << 20
PATIENCE = 120
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def until(condition: Callable[[], object], what: Callable[[], str] = lambda: "") -> None:
    """Wait for a condition."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < PATIENCE, what()
        time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    """Kill a process and all that descends from it: Ray gives its own a group each."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in lines.splitlines())}
    family = {process.pid}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in family:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def may_hide_folders() -> bool:
    """Return whether this process may give another a file system of its own."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


class Machines:
    """A cluster whose first machine trains nothing, and the folder of the command. It takes nobody without its token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Ray puts sockets under it, whose paths have to be short.
        self._own = Path(tempfile.mkdtemp(prefix="ray-"))
        self.token = secrets.token_hex(16)
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.environment = os.environ | {
            "RAY_TMPDIR": str(self._own),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._machines: dict[str, subprocess.Popen] = {}
        self._start("head", ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"])
        until(lambda: "Ray runtime started" in self.log("head"), lambda: self.log("head"))

    def start(self, name: str, *options: str, without: Path | None = None) -> None:
        """Start a machine with one processor. without: a folder that it does not see."""
        self._start(name, [f"--address={self.address}", "--num-cpus=1", *options], without)
        until(lambda: "Ray runtime started" in self.log(name), lambda: self.log(name))

    def _start(self, name: str, options: list[str], without: Path | None = None) -> None:
        options = ["--block", "--disable-usage-stats", f"--object-store-memory={MEMORY}", *options]
        command = [*RAY, "start", *options]
        if without is not None:
            hide = f"mount -t tmpfs none {shlex.quote(str(without))}"
            command = ["unshare", "-m", "sh", "-c", f"{hide} && exec {shlex.join(command)}"]
        with (self._own / f"{name}.log").open("w") as log:
            self._machines[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, cwd=self._own, start_new_session=True
            )

    def log(self, name: str) -> str:
        return (self._own / f"{name}.log").read_text()

    def lose(self, name: str) -> None:
        """Kill a machine with all that runs there."""
        kill(self._machines.pop(name))

    def begin(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin `ablate run` on the cluster."""
        command = [*(sys.executable, "-m", "ablate", "run"), *arguments, "--executor", "ray"]
        return subprocess.Popen(
            [*command, "--address", self.address],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def actors(self) -> set[str]:
        """Return the states of all actors that there have ever been."""
        return {actor["State"] for actor in self._state("actors").values()}

    def jobs(self) -> str:
        """Return what Ray has recorded of the programs that were connected."""
        return json.dumps(self._state("jobs"))

    def _state(self, what: str) -> Any:
        code = (
            f"import json, ray\nfrom ray._private.state import {what}\n"
            f"ray.init(address={self.address!r}, logging_level='ERROR')\nprint(json.dumps({what}(), default=str))"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True, check=True
        ).stdout
        return json.loads(output.splitlines()[-1])

    def stop(self) -> None:
        for process in self._machines.values():
            kill(process)
        shutil.rmtree(self._own, ignore_errors=True)
