"""A real MLflow server on loopback: used, stopped in the middle of a study, and started again."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


class Server:
    def __init__(self, root: Path) -> None:
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.root}/server.db"]
        command += ["--artifacts-destination", str(self.root / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError("the server did not start")

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
    (tmp_path / "server").mkdir()
    running = Server(tmp_path / "server")
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
def test_a_server_stopped_in_the_middle_of_a_study_loses_nothing_and_doubles_nothing(
    workplace, server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    study = workplace.study(seeds="6")
    command = [*ABLATE, "run", study, "--set", "sleep=0.5", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[4/"):
                server.stop()
            elif line.startswith("[12/"):
                server.start()
        process.wait()
    assert process.returncode == 0
    workplace.ablate("status")
    runs = workplace.runs()
    assert {run.info.status for run in runs} == {"FINISHED"}
    places = sorted((run.data.tags["ablate.arm"], int(run.data.tags["ablate.seed"])) for run in runs)
    assert places == sorted(
        (arm, seed) for arm in ("baseline", "gain=0.2", "gain=0.001") for seed in range(6)
    )
    for run in runs:
        history = workplace.client.get_metric_history(run.info.run_id, "val/accuracy")
        assert [point.step for point in history] == [1, 2]
    verdicts = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert verdicts["runs"]["finished"] == 18
    assert [arm["verdict"] for arm in verdicts["arms"]] == ["helps", "no practical effect"]
