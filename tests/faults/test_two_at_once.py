"""Several `ablate run` at the same time: on one machine, and on two machines with one store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


def started(folder, *arguments, **environment) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ABLATE, *arguments, "--workers", "1"],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_studies_that_share_runs_train_each_of_them_once(workplace):
    studies = [workplace.study(name, "{gain: [0.2]}", "6") for name in ("one", "other")]
    processes = [started(workplace.root, "run", study, "--set", "sleep=0.3") for study in studies]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    trained = Counter()
    for name in ("one", "other"):
        runs = [run for run in workplace.runs(name) if run.info.status == "FINISHED"]
        assert len(runs) == 12, "each experiment is complete in itself"
        trained.update(
            run.data.tags["ablate.key"] for run in runs if "ablate.source_run" not in run.data.tags
        )
    assert len(trained) == 12
    assert set(trained.values()) == {1}
    assert "another study is training" in "".join(said)


def test_one_counts_of_the_runs_that_two_machines_with_one_store_both_trained(workplace):
    study = workplace.study(factors="{gain: [0.2]}", seeds="4")
    store = f"sqlite:///{workplace.root}/mlruns/mlflow.db"
    other = workplace.root / "other machine"
    other.mkdir()
    (other / "toy.py").write_text((workplace.root / "toy.py").read_text())
    (other / "pyproject.toml").write_text((workplace.root / "pyproject.toml").read_text())
    processes = [
        started(place, "run", study, "--set", "sleep=0.3", MLFLOW_TRACKING_URI=store)
        for place in (workplace.root, other)
    ]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    outcomes = Counter(
        (run.data.tags["ablate.key"], run.data.tags["ablate.outcome"])
        for run in workplace.runs()
        if run.info.status == "FINISHED"
    )
    counted = {key: times for (key, outcome), times in outcomes.items() if outcome == "finished"}
    assert len(counted) == 8
    assert set(counted.values()) == {1}
