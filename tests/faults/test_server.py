"""A real MLflow server on loopback: used, stopped in the middle of a study, and started again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mlflow_server import Server

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


@pytest.fixture
def server(tmp_path, template_store):
    (tmp_path / "server").mkdir()
    running = Server(tmp_path / "server", template_store)
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
def test_a_server_stopped_during_a_study_loses_no_result_and_has_none_twice(workplace, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    study = workplace.study(seeds="6")
    command = [*ABLATE, "run", study, "--set", "sleep=0.5", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("[4/"):
                server.stop()
            elif line.startswith("[12/"):
                server.start()
        process.wait()
    assert process.returncode == 0, lines
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
