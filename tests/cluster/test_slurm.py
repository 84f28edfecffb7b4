"""`ablate slurm`: the script that it writes, and a study that needs several allocations of a real SLURM."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ablate import slurm as batch
from ablate.errors import StudyError

PATIENCE = 600

TRAINING = """
import random, time
from pathlib import Path

def fit(config, seed):
    draw = random.Random(seed)
    for _ in range(config["epochs"]):
        time.sleep(config["sleep"])
        yield {"val/accuracy": 0.5 + config["gain"] + draw.gauss(0, 0.01), "val/loss": draw.random()}
    Path(f"done-{config['gain']}-{seed}").touch()
"""

STUDY = """
study: slept
margin: 0.02
train: slept_training:fit
baseline: {{gain: 0.0, epochs: 4, sleep: {sleep}}}
factors: {{gain: [0.1]}}
seeds: {seeds}
"""


# --- the script -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time_", "seconds"),
    [
        ("90", 5400),
        ("1:30", 90),
        ("4:00:00", 14400),
        ("1-12", 129600),
        ("2-0:30", 174600),
        ("1-01:02:03", 90123),
    ],
)
def test_times_are_read_as_sbatch_reads_them(time_, seconds):
    assert batch.seconds(time_) == seconds


@pytest.mark.parametrize("time_", ["", "soon", "4h", "1:2:3:4", "-1", "1-"])
def test_what_is_no_time_is_refused(time_):
    with pytest.raises(StudyError) as error:
        batch.seconds(time_)
    assert error.value.place == "--time"


def test_a_time_that_leaves_none_for_training_is_refused(tmp_path):
    with pytest.raises(StudyError, match="leaves no time"):
        batch.script(Path("s.yaml"), "s", batch.BatchJob(time="3"), (), Path("s.sbatch"))


@pytest.mark.parametrize("folder", ["plain", "with space", "quo'te", "dollar$HOME", "semi;colon"])
def test_the_script_is_bash_whatever_the_folder_and_the_options_are_called(folder, tmp_path, monkeypatch):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    job = batch.BatchJob(2, 4, time="4:00:00", options=["--partition=gpu"], before=["module load cuda"])
    text = batch.script(Path("s t.yaml"), "s", job, ["--set", "data.root=a b;c"], Path("s.sbatch"))
    (tmp_path / "script").write_text(text)
    assert subprocess.run(["bash", "-n", str(tmp_path / "script")], check=False).returncode == 0
    # The lines that say where it runs and what, as bash reads them.
    lines = [line for line in text.splitlines() if line.startswith("cd ")]
    where = subprocess.run(
        ["bash", "-c", lines[0].partition("||")[0] + "; pwd"], capture_output=True, text=True, check=True
    )
    assert where.stdout.strip() == str(tmp_path / folder)
    command = next(line for line in text.splitlines() if " -m ablate run " in line)
    assert command.endswith(
        " run 's t.yaml' --set 'data.root=a b;c' --executor ray --address \"$ip:$port\" &"
    )


def test_the_script_asks_slurm_for_what_was_asked():
    text = batch.script(
        Path("s.yaml"),
        "s",
        batch.BatchJob(2, 4, time="4:00:00", notice=90, options=["--qos=long"]),
        (),
        Path("x"),
    )
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    expected = [
        "--nodes=2",
        "--gpus-per-node=4",
        "--cpus-per-task=16",
        "--time=4:00:00",
        "--signal=B:USR1@90",
    ]
    assert {*expected, "--requeue", "--qos=long"} <= set(directives)
    assert "--num-gpus=4" in text


@pytest.mark.parametrize(
    ("asked", "cpus"),
    [
        ({}, 1),
        ({"devices": 3}, 3),
        ({"gpus_per_node": 2}, 8),
        ({"gpus_per_node": 2, "devices": 2}, 8),
        ({"cpus_per_node": 2, "devices": 3}, 2),
    ],
)
def test_a_node_has_processors_for_a_run(asked, cpus):
    assert f"--cpus-per-task={cpus}" in batch.BatchJob(**asked).directives("s")


def test_a_run_that_takes_more_gpus_than_a_node_has_is_refused():
    job = batch.BatchJob(nodes=4, gpus_per_node=2, devices=4)
    with pytest.raises(StudyError, match="takes 4 GPUs of one machine") as error:
        batch.script(Path("s.yaml"), "s", job, (), Path("s.sbatch"))
    assert error.value.place == "--gpus-per-node"


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (["--storage", "postgresql+psycopg://ablate:horse@host/optuna"], []),
        (["--storage=mysql://ablate:horse@host/optuna"], []),
        ([], ["export MLFLOW_TRACKING_URI=https://me:horse@host"]),
    ],
)
def test_no_password_is_written_into_a_script(arguments, before):
    with pytest.raises(StudyError, match="a password would stand in the script") as error:
        batch.script(Path("s.yaml"), "s", batch.BatchJob(before=before), arguments, Path("s.sbatch"))
    assert "horse" not in str(error.value)
    batch.script(
        Path("s.yaml"),
        "s",
        batch.BatchJob(),
        ["--storage", "postgresql+psycopg://ablate@host:5432/optuna"],
        Path("s"),
    )


def test_without_sbatch_submitting_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="no sbatch on this machine"):
        batch.submit(Path("s.sbatch"))


# --- on a real SLURM ------------------------------------------------------------------------------------------


class Cluster:
    """A folder with a study, on a SLURM."""

    def __init__(self, configuration: Path, folder: Path) -> None:
        self.environment = os.environ | {"SLURM_CONF": str(configuration)}
        self.folder = folder

    def run(self, *command: str, but: str = "") -> str:
        """Run a command of which nothing but a complaint with these words is expected."""
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self.environment, check=False
        )
        assert result.returncode == 0 or (but and but in result.stderr), result.stderr
        return result.stdout

    def ablate(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "ablate", *arguments)

    def state(self, job: str) -> str:
        """Return how the queue names the state of a job: R, PD, …; nothing for a job that has ended."""
        return self.run("squeue", "-h", "--states=all", "-o", "%t", "-j", job).strip()

    def log(self, job: str) -> str:
        path = self.folder / f"slurm-slept-{job}.log"
        return path.read_text() if path.exists() else "no log"


@pytest.fixture
def cluster(slurm, tmp_path) -> Cluster:
    if not importlib.util.find_spec("ray"):
        pytest.skip("Ray is not installed: pip install 'ablate[ray]'")
    (tmp_path / "slept_training.py").write_text(TRAINING)
    return Cluster(slurm, tmp_path)


def submitted(cluster: Cluster, *options: str) -> str:
    package = Path(batch.__file__).parents[1]
    cluster.ablate(
        *("slurm", "slept.yaml", "--submit", "--cpus-per-node", "2", *options),
        *("--before", f"export PYTHONPATH={package}", "--", "--allow-import", "slept_training", "--quiet"),
    )
    return cluster.run("squeue", "-h", "-o", "%i").split()[0]


def restarts(cluster: Cluster, job: str) -> int:
    fields = dict(
        field.partition("=")[::2]
        for field in cluster.run("scontrol", "show", "job", job).split()
        if "=" in field
    )
    return int(fields["Restarts"])


def finish(cluster: Cluster, job: str) -> int:
    """Wait for the end of a job. SLURM lets one that goes back into the queue wait there for two minutes: it need not.

    Returns how often it went back.
    """
    begun = time.monotonic()
    while (state := cluster.state(job)) not in ("CD", "F", "CA", "TO", "NF"):
        assert time.monotonic() - begun < PATIENCE, cluster.log(job)
        if state == "PD":
            # Its turn may have come since it was asked.
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now", but="no longer pending")
        time.sleep(0.5)
    assert state == "CD", (state, cluster.run("scontrol", "show", "job", job), cluster.log(job))
    return restarts(cluster, job)


@pytest.mark.slow  # two Ray clusters, one after the other, and five commands
def test_a_study_stops_on_notice_and_goes_on_in_the_next_allocation(cluster):
    (cluster.folder / "slept.yaml").write_text(STUDY.format(sleep=1.0, seeds=6))
    job = submitted(cluster, "--time", "10")
    begun = time.monotonic()
    while not list(cluster.folder.glob("done-*")):
        assert time.monotonic() - begun < PATIENCE, cluster.log(job)
        assert cluster.state(job) in ("PD", "R", "CF"), cluster.log(job)
    # What SLURM sends the script before the time is up.
    cluster.run("scancel", "--batch", "--signal=USR1", job)
    assert finish(cluster, job) == 1
    runs = json.loads(cluster.ablate("report", "slept", "--format", "json"))["runs"]
    assert runs == {"planned": 12, "finished": 12, "failed": 0, "diverged": 0, "missing": 0}
    assert "goes back into the queue" in cluster.log(job)


@pytest.mark.slow
def test_a_study_that_needs_three_allocations_of_a_minute_ends_with_every_run_once(cluster):
    # SLURM counts in minutes: 1:45 is two of them, less the notice. The runs take two slots for three minutes.
    (cluster.folder / "slept.yaml").write_text(STUDY.format(sleep=2.5, seeds=18))
    job = submitted(cluster, "--time", "1:45", "--notice", "30")
    assert finish(cluster, job) >= 2
    runs = json.loads(cluster.ablate("report", "slept", "--format", "json"))["runs"]
    assert runs == {"planned": 36, "finished": 36, "failed": 0, "diverged": 0, "missing": 0}
