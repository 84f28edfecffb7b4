"""Studies on a Ray cluster whose machines are lost, do not share the folder of the command, or are left by their coordinator."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from machines import Machines, lives, may_hide_folders, until

pytestmark = pytest.mark.slow

TRAINING = """
import os
import subprocess
import sys
import time
from pathlib import Path


def fit(config, seed, run):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(os.getpid(), child.pid)
    Path(config["pids"], f"{os.getpid()}-{child.pid}").touch()
    run.log_artifact(__file__, "code.py")
    for epoch in range(config["epochs"]):
        yield {"val/accuracy": config["gain"] + seed / 1000 + epoch / 1e6}
        time.sleep(config["sleep"])
    child.kill()
    child.wait()
"""

OWN = """
study: own
margin: 0.02
train: fit:fit
metric: val/accuracy
baseline: {{gain: 0.5, epochs: {epochs}, sleep: {sleep}, pids: {pids}}}
factors: {factors}
"""

BUILTIN = """
study: builtin
margin: 0.02
baseline:
  data: {name: digits}
  model: {name: cnn, depth: 2, width: 16}
  training: {epochs: 12, batch_size: 32, save_model: best}
factors: {model.width: [8]}
seeds: 1
"""


@pytest.fixture
def machines(tmp_path) -> Iterator[Machines]:
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'ablate[ray]'")
    folder = tmp_path / "work"
    folder.mkdir()
    running = Machines(folder)
    yield running
    running.stop()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def runs(folder: Path, study: str) -> list[dict[str, str]]:
    """Return the tags of every attempt, by its beginning, with its `status`."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs(
        [experiment.experiment_id], "tags.`ablate.kind` = 'replicate'", order_by=["attributes.start_time"]
    )
    return [run.data.tags | {"status": run.info.status, "id": run.info.run_id} for run in found]


def artifacts(folder: Path, run: dict[str, str]) -> set[str]:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    return {item.path for item in client.list_artifacts(run["id"])}


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared", "apart"])
def test_the_run_of_a_lost_machine_goes_on_elsewhere_from_its_checkpoint_where_the_folder_is_shared(
    machines, is_shared
):
    if not is_shared and not may_hide_folders():
        pytest.skip("no machine here may have a file system of its own")
    without = None if is_shared else machines.folder
    (machines.folder / "study.yaml").write_text(BUILTIN)
    machines.start("first", without=without)
    process = machines.begin("study.yaml", "--no-fuse", "--json", ABLATE_CHECKPOINT_EVERY="0.1s")
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if '"epoch": 4' in line:
            break
    else:
        raise AssertionError(printed)
    machines.lose("first")
    machines.start("second", without=without)
    printed.append(ended(process))
    lost, again, *others = runs(machines.folder, "builtin")
    assert (lost["ablate.attempt"], lost["status"]) == ("1", "FAILED"), printed
    assert (again["ablate.attempt"], again["status"]) == ("2", "FINISHED"), printed
    assert again["ablate.key"] == lost["ablate.key"]
    assert [other["status"] for other in others] == ["FINISHED"]
    if is_shared:
        epoch = int(again["ablate.resumed"].removeprefix("in epoch "))
        assert 2 <= epoch <= 12
    else:
        assert "ablate.resumed" not in again
        assert "Ray carries a copy" in "".join(printed)
    for run in (again, *others):
        assert {"model", "predictions.npz"} <= artifacts(machines.folder, run)


def own(machines: Machines, factors: str, *, epochs: int, sleep: float, more: str = "seeds: 2") -> Path:
    """Write a study of a function, and return the folder in which its runs leave the numbers of their processes."""
    (machines.folder / "fit.py").write_text(TRAINING)
    pids = machines.folder / "pids"
    pids.mkdir(exist_ok=True)
    text = OWN.format(epochs=epochs, sleep=sleep, pids=pids, factors=factors) + more
    (machines.folder / "own.yaml").write_text(text)
    return pids


def processes(pids: Path) -> list[int]:
    return [int(pid) for file in pids.iterdir() for pid in file.name.split("-")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_runs_on_other_machines_once_the_command_has_ended(machines, number):
    pids = own(machines, "{gain: [0.7]}", epochs=1000, sleep=0.5)
    machines.start("first")
    machines.start("second")
    process = machines.begin("own.yaml", "--allow-import", "fit", "--json")
    until(lambda: len(list(pids.iterdir())) == 2)
    begun = processes(pids)
    assert all(map(lives, begun))
    process.send_signal(number)
    output = ended(process, {signal.SIGKILL: -9}.get(number, 130))
    until(lambda: not any(map(lives, begun)), lambda: output)
    until(lambda: machines.actors() == {"DEAD"}, lambda: str(machines.actors()))

    # The same command goes on, and the cluster has room for it.
    own(machines, "{gain: [0.7]}", epochs=2, sleep=0)
    ended(machines.begin("own.yaml", "--allow-import", "fit"))
    states = [run["status"] for run in runs(machines.folder, "own")]
    assert states.count("FINISHED") == 4
    assert "RUNNING" not in states


def test_a_search_breaks_off_runs_on_other_machines_and_nobody_comes_in_without_the_token(machines):
    search = "design: search\nsearch: {sampler: random, pruner: median, trials: 12}\n"
    pids = own(machines, "{gain: {range: [0, 1]}}", epochs=20, sleep=0.05, more=search)
    machines.start("first")
    for token in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "another"}):
        output = ended(machines.begin("own.yaml", "--allow-import", "fit", **token), 2)
        assert "takes nobody without its token" in output
        assert "Traceback" not in output
        assert machines.token not in output
    assert not list(pids.iterdir())
    # What stands in the command line is not Ray's to show.
    unreachable = "postgresql+psycopg://ablate:horse-battery@127.0.0.1:1/optuna"
    ended(machines.begin("own.yaml", "--allow-import", "fit", "--storage", unreachable), 2)
    assert "127.0.0.1:1/optuna" in machines.jobs()
    assert "horse-battery" not in machines.jobs()
    ended(machines.begin("own.yaml", "--allow-import", "fit"))
    outcomes = {
        run["ablate.outcome"] for run in runs(machines.folder, "own")
    }  # the candidates' runs included
    assert outcomes == {"finished", "pruned"}
    until(lambda: not any(map(lives, processes(pids))))
    for file in machines.folder.rglob("*"):
        assert not file.is_file() or machines.token.encode() not in file.read_bytes(), file
