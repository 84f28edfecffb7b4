"""A team's store: an MLflow server and Optuna's storage on PostgreSQL, and two coordinators that work at the same time.

Each coordinator has a folder and a cache of claims of its own, as if it were on another machine.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow_server import Server
from postgres import PASSWORD, Postgres, programs

PATIENCE = 300
ABLATE = [sys.executable, "-m", "ablate"]

TRAINING = '''
import random
import time
from pathlib import Path


def fit(config, seed):
    """A response with a known effect. The first run of each process waits for one of the other."""
    meeting = Path(config["meeting"])
    (meeting / Path.cwd().name).touch()
    deadline = time.monotonic() + 300
    while len(list(meeting.iterdir())) < 2:
        assert time.monotonic() < deadline, "the other process never trained"
        time.sleep(0.01)
    while Path("stall").exists():
        time.sleep(0.01)
    draw = random.Random(f"{config['gain']}/{seed}")
    yield {"train/loss": draw.random(), "val/accuracy": 0.5 + config["gain"] + draw.gauss(0, 0.001)}
'''

STUDY = """
study: {name}
margin: 0.02
train: team_training:fit
baseline: {{gain: 0.0, meeting: {meeting}}}
factors: {{gain: {levels}}}
seeds: 4
"""


class Team:
    """Two machines, a server and a database."""

    def __init__(self, root: Path, server: Server, storage: str) -> None:
        self.root, self.server, self.storage = root, server, storage
        (root / "meeting").mkdir()
        for machine in ("first", "second"):
            (root / machine).mkdir()
            (root / machine / "team_training.py").write_text(TRAINING)

    def environment(self, machine: str) -> dict[str, str]:
        cache = self.root / f"cache-{machine}"
        return os.environ | {"MLFLOW_TRACKING_URI": self.server.uri, "XDG_CACHE_HOME": str(cache)}

    def begin(self, machine: str, name: str, levels: str) -> subprocess.Popen[str]:
        """Begin to run a study on a machine."""
        file = self.root / machine / f"{name}.yaml"
        file.write_text(STUDY.format(name=name, meeting=self.root / "meeting", levels=levels))
        return subprocess.Popen(
            [
                *ABLATE,
                "run",
                file.name,
                "--executor",
                "inline",
                "--allow-import",
                "team_training",
                "--storage",
                self.storage,
            ],
            cwd=self.root / machine,
            env=self.environment(machine),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def report(self, machine: str, name: str) -> dict:
        output = subprocess.run(
            [*ABLATE, "report", name, "--format", "json"],
            cwd=self.root / machine,
            env=self.environment(machine),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return json.loads(output)

    def trained(self) -> Counter[tuple[str, str]]:
        """Return how often each arm and seed was trained, over all studies of the server: copies are no training."""
        client = MlflowClient(self.server.uri)
        experiments = [each.experiment_id for each in client.search_experiments()]
        runs = client.search_runs(experiments, "tags.`ablate.kind` = 'replicate'", max_results=1000)
        return Counter(
            (run.data.tags["ablate.arm"], run.data.tags["ablate.seed"])
            for run in runs
            if "ablate.source_run" not in run.data.tags
        )

    def trials(self) -> Counter[str]:
        """Return how many trials the ledger has in which state, over all studies."""
        storage = optuna.storages.RDBStorage(self.storage)
        try:
            return Counter(
                trial.state.name
                for study in storage.get_all_studies()
                for trial in storage.get_all_trials(study._study_id)
            )
        finally:
            storage.remove_session()
            storage.engine.dispose()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if programs() is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    if not importlib.util.find_spec("psycopg"):
        pytest.skip("there is no psycopg: pip install 'psycopg[binary]'")
    running = Postgres()
    yield running
    running.stop()


NUMBERS = itertools.count()
"""Of the teams of this process: one PostgreSQL has the databases of all."""


@pytest.fixture
def team(postgres, tmp_path) -> Iterator[Team]:
    (tmp_path / "server").mkdir()
    own = f"{os.getpid()}_{next(NUMBERS)}"
    server = Server(tmp_path / "server", database=postgres.database(f"mlflow{own}"))
    server.start()
    yield Team(tmp_path, server, postgres.database(f"optuna{own}"))
    server.stop()


def ended(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for the end of processes, and return what each printed."""
    outputs = ["".join(process.communicate(timeout=PATIENCE)) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.mark.slow
def test_two_coordinators_share_the_runs_of_a_study_and_of_studies_that_have_arms_in_common(team):
    outputs = ended(team.begin("first", "same", "[0.2]"), team.begin("second", "same", "[0.2]"))
    assert team.report("first", "same") == team.report("second", "same")
    assert team.report("first", "same")["runs"] == {
        "planned": 8,
        "finished": 8,
        "failed": 0,
        "diverged": 0,
        "missing": 0,
    }
    # Two machines may both train a run that neither has finished; one of the two counts.
    before = team.trained()
    assert set(before) == {(arm, str(seed)) for arm in ("baseline", "gain=0.2") for seed in range(4)}

    # Another study with the same baseline and one arm more: the baseline's runs and that arm's are taken as they are.
    outputs += ended(team.begin("second", "wider", "[0.2, 0.3]"))
    assert team.trained() - before == Counter({("gain=0.3", str(seed)): 1 for seed in range(4)})
    assert team.report("first", "wider")["runs"]["finished"] == 12

    # The ledger: no trial of one coordinator was failed by the other, and each run has one that is complete.
    assert set(team.trials()) == {"COMPLETE"}

    # A password in a URL is nobody's to see.
    assert not any(PASSWORD in output for output in outputs)
    for folder in ("first", "second"):
        for path in (team.root / folder).rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    client = MlflowClient(team.server.uri)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            assert PASSWORD not in str(run.to_dictionary())


@pytest.mark.slow
def test_a_coordinator_that_is_killed_costs_the_other_nothing_and_leaves_nothing_open(team):
    stall = team.root / "first" / "stall"
    stall.touch()
    first, second = team.begin("first", "same", "[0.2]"), team.begin("second", "same", "[0.2]")
    # The first is in the middle of a run, which the second trains too: it knows no claims of another machine.
    ended(second)
    first.kill()
    first.communicate()
    stall.unlink()
    finished = {"planned": 8, "finished": 8, "failed": 0, "diverged": 0, "missing": 0}
    assert team.report("second", "same")["runs"] == finished
    trained = team.trained()
    ended(team.begin("first", "same", "[0.2]"))
    assert team.trained() == trained, "what the other has finished was trained again"
    assert team.report("first", "same") == team.report("second", "same")
    assert team.trials() == {"COMPLETE": 8, "FAIL": 1}
    client = MlflowClient(team.server.uri)
    experiment = client.get_experiment_by_name("same")
    assert not client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
