"""Several `ablate run` at the same time: on one machine, and on two machines with one store."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


# Whoever trains first waits in its run until the other trains as well, so that both are at work at the same time.
TOY = '''
import os
import random
import time
from pathlib import Path


def fit(config, seed):
    """A response with a known effect."""
    meeting = Path(config["meeting"])
    (meeting / str(os.getpid())).touch()
    deadline = time.monotonic() + 300
    while len(list(meeting.iterdir())) < 2:
        assert time.monotonic() < deadline, "the other process never trained"
        time.sleep(0.01)
    yield {"train/loss": 1.0, "val/accuracy": 0.5 + config["gain"] + random.Random(seed).gauss(0, 0.001)}
'''

STUDY = """
study: {name}
margin: 0.02
train: toy:fit
baseline: {{gain: 0.0, meeting: {meeting}}}
factors: {{gain: [0.2]}}
seeds: 4
"""
RUNS = 8


def study(workplace, name: str) -> str:
    meeting = workplace.root / "meeting"
    meeting.mkdir(exist_ok=True)
    (workplace.root / "toy.py").write_text(TOY)
    path = workplace.root / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, meeting=meeting))
    return str(path)


def begun(folder: Path, study: str) -> subprocess.Popen[str]:
    """Begin to run a study in another process."""
    return subprocess.Popen(
        [*ABLATE, "run", study, "--executor", "inline"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_studies_that_share_runs_train_each_of_them_once(workplace):
    one, other = (study(workplace, name) for name in ("one", "other"))
    with begun(workplace.root, other) as process:
        said = workplace.ablate("run", one, "--executor", "inline")
        _, others = process.communicate()
    assert process.returncode == 0, others
    trained = Counter()
    for name in ("one", "other"):
        runs = [run for run in workplace.runs(name) if run.info.status == "FINISHED"]
        assert len(runs) == RUNS, "each experiment is complete in itself"
        trained.update(
            run.data.tags["ablate.key"] for run in runs if "ablate.source_run" not in run.data.tags
        )
    assert len(trained) == RUNS
    assert set(trained.values()) == {1}
    assert "another study is training" in said + others


def test_one_counts_of_the_runs_that_two_machines_with_one_store_both_trained(workplace, monkeypatch):
    path = study(workplace, "toy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace.root}/mlruns/mlflow.db")
    other = workplace.root / "other machine"
    other.mkdir()
    for name in ("toy.py", "pyproject.toml"):
        shutil.copy(workplace.root / name, other / name)
    with begun(other, path) as process:
        workplace.ablate("run", path, "--executor", "inline")
        _, others = process.communicate()
    assert process.returncode == 0, others
    ended = [run.data.tags for run in workplace.runs() if run.info.status == "FINISHED"]
    assert len(ended) > RUNS, "they met in a run that both trained"
    counted = Counter(tags["ablate.key"] for tags in ended if tags["ablate.outcome"] == "finished")
    assert len(counted) == RUNS
    assert set(counted.values()) == {1}
