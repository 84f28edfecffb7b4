"""What is around a study that runs: the commit in its record, wherever git stands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ablate import cli, launch, repository
from ablate.config import RunConfig
from ablate.errors import StudyError
from ablate.executors import local
from ablate.study import spec
from ablate.text import joined
from ablate.tracking.store import current_store
from ablate.training import trainer_of
from ablate.training.function import FunctionConfig


def script(folder: Path, name: str, text: str) -> None:
    """Put a program into `folder`, where alone programs are looked for."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(text)
    program.chmod(0o755)


GITS = {
    "there is none": None,
    "it fails": "#!/bin/sh\necho 'fatal: not a git repository' >&2\nexit 128\n",
    "it hangs": "#!/bin/sh\nexec /bin/sleep 60\n",
    "it leaves a child that holds its output": "#!/bin/sh\n/bin/sleep 5 &\nexec /bin/sleep 60\n",
    "it is no program": "no program",
    "it is killed": "#!/bin/sh\nkill -9 $$\n",
    "it says nothing": "#!/bin/sh\nexit 0\n",
    "it says too much": "#!/bin/sh\nprintf 'a%.0s' $(/usr/bin/seq 9999)\n",
    "it says several lines": "#!/bin/sh\necho one; echo two\n",
}


@pytest.mark.parametrize("state", GITS)
def test_a_commit_that_git_does_not_tell_is_left_out_of_the_record(tmp_path, monkeypatch, state):
    if (text := GITS[state]) is not None:
        script(tmp_path / "programs", "git", text)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setattr(repository, "TIMEOUT", 0.3)
    about = launch.environment()
    assert "commit" not in about
    assert {"command", "version", "python", "host", "torch", "mlflow", "optuna"} <= about.keys()


class Stderr(io.StringIO):
    """Standard error, of which `is_terminal` says what it is."""

    is_terminal = True

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize(
    ("command", "is_terminal", "says"),
    [
        (["run"], True, True),
        (["plan"], True, True),
        (["lr"], True, True),
        (["top-up", "--seeds", "1"], True, True),
        (["run"], False, False),
        (["plan"], False, False),
        (["run", "--quiet"], True, False),
        (["run", "--json"], True, False),
    ],
    ids=str,
)
def test_a_command_says_first_what_it_does_but_only_to_people(
    workplace, monkeypatch, command, is_terminal, says
):
    """What it imports takes seconds where the machine is busy."""
    stderr = Stderr()
    stderr.is_terminal = is_terminal
    monkeypatch.setattr(sys, "stderr", stderr)
    with pytest.raises(StudyError):
        cli.app([command[0], "nowhere.yaml", *command[1:]], standalone_mode=False)
    first = stderr.getvalue().partition("\n")[0]
    assert (first.startswith("reading ") and "nowhere.yaml" in first) == says
    assert bool(first) == says


def test_a_study_runs_where_there_is_no_git(workplace, monkeypatch):
    monkeypatch.setenv("PATH", "")
    workplace.ablate("run", workplace.study(factors="{gain: [0.2]}", seeds="1"), "--executor", "inline", "-q")
    assert len(workplace.runs()) == 2


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_the_commit_says_whether_files_have_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert launch.environment().get("commit") is None, "outside a repository"
    git("init", "-q")
    Path("train.py").write_text("first\n")
    git("add", "train.py")
    git("commit", "-q", "-m", "first")
    commit = launch.environment().get("commit")
    assert commit is not None
    assert set(commit) <= set("0123456789abcdef")
    os.utime("train.py", (1, 1))  # so that git reads it again
    assert launch.environment().get("commit") == commit
    Path("train.py").write_text("second\n")
    assert launch.environment().get("commit") == f"{commit}-dirty"


def make_repository(folder: Path) -> None:
    """Make a repository with a training in it, committed."""
    folder.mkdir()
    (folder / "code").mkdir()
    (folder / "code" / "distant_training.py").write_text("def fit(config, seed):\n    yield {}\n")
    git("-C", str(folder), "init", "-q")
    git("-C", str(folder), "add", ".")
    git("-C", str(folder), "commit", "-q", "-m", folder.name)


@pytest.mark.parametrize(
    ("place", "is_dirty", "is_recorded"),
    [
        ("study", False, False),
        ("project", False, True),
        ("project", True, True),
        ("no repository", False, False),
    ],
)
def test_the_commit_of_a_training_in_another_project_is_recorded_too(
    tmp_path, monkeypatch, place, is_dirty, is_recorded
):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("study", "project"):
        make_repository(tmp_path / name)
    (tmp_path / "no repository" / "code").mkdir(parents=True)
    training = tmp_path / place / "code" / "distant_training.py"
    training.write_text("def fit(config, seed):\n    yield {}\n" + "changed = True\n" * is_dirty)
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.syspath_prepend(str(training.parent))
    config = FunctionConfig.parse({"train": "distant_training:fit"}, {})
    about = launch.environment(trainer_of(config).code_folder(config))
    assert about["commit"] == repository.state(tmp_path / "study")
    if is_recorded:
        assert about["training_commit"] == repository.state(training.parent)
        assert about["training_commit"].endswith("-dirty") == is_dirty
    else:
        assert "training_commit" not in about


@pytest.mark.parametrize("kind", launch.EXECUTORS)
def test_every_executor_of_the_table_trains_a_study(workplace, kind):
    if kind == "ray":
        pytest.importorskip("ray")
    study = workplace.study(factors="{gain: [0.2]}", seeds="1")
    workplace.ablate("run", study, "--executor", kind, "--devices", "cpu", "--workers", "1", "-q")
    assert len(workplace.runs()) == 2


def test_an_unknown_executor_is_named_with_those_that_there_are(workplace):
    output = workplace.ablate("run", workplace.study(), "--executor", "remote", code=2)
    assert f"--executor: 'remote' is not an executor\n  {joined(launch.EXECUTORS, 'or')}" in output


def test_workers_are_not_started_for_a_study_that_is_finished(workplace):
    def is_finished(asked=None, **changes):
        file = workplace.study(**{"factors": "{gain: [0.2]}", "seeds": "1", **changes})
        with contextlib.chdir(workplace.root):
            return launch.finished_plan(spec.read(Path(file)), current_store(), asked) is not None

    assert not is_finished()
    workplace.ablate("run", workplace.study(factors="{gain: [0.2]}", seeds="1"), "--executor", "inline", "-q")
    assert is_finished()
    assert is_finished(1)
    assert not is_finished(2)
    assert not is_finished(seeds="2")
    assert not is_finished(factors="{gain: [0.2, 0.3]}")


NETWORK = """study: guessed
margin: 0.02
baseline:
  model: {name: small_cnn}
factors: {optimizer.lr: [0.05]}
"""


@pytest.mark.parametrize("name", ["small_cnn", "cnn", "what_worked", "numpy_mlp"])
def test_what_workers_begin_with_is_what_built_in_networks_need(name):
    config = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": name}})
    assert trainer_of(config).preload(config) == launch._OF_NETWORKS  # else they are ended and begin again


@pytest.mark.parametrize(
    ("text", "has_run", "begin"),
    [
        (NETWORK, False, True),
        (NETWORK, True, False),  # there may be nothing left to do
        (NETWORK.replace("model: {name: small_cnn}", "gain: 1"), False, False),
        (NETWORK.replace("study: guessed", "study: [guessed]"), False, False),
        (None, False, False),
        ("pipe", False, False),
        (b"\xff" + NETWORK.encode(), False, False),
    ],
)
def test_workers_begin_before_a_study_is_read_where_they_are_likely_to_be_needed(
    tmp_path, monkeypatch, text, has_run, begin
):
    begun = []
    monkeypatch.setattr(local, "begin", begun.append)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    if text == "pipe":
        os.mkfifo("study.yaml")
    elif text is not None:
        Path("study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    if has_run:
        with current_store().lock("guessed"):
            pass
    launch.begin_workers(Path("study.yaml"))
    assert begun == [launch._OF_NETWORKS] * begin


GUESSED = """
import sys

HEAVY = "tor" "ch"  # a training that names it gets it


def fit(config, seed):
    yield {"heavy": float(HEAVY in sys.modules)}
"""


def test_workers_that_began_with_too_much_are_replaced(tmp_path):
    """The study looks as if it trained a built-in network, and trains the user's function, which wants no torch."""
    (tmp_path / "guessed.py").write_text(GUESSED)
    text = NETWORK.replace("baseline:", "train: guessed:fit\nmetric: heavy\ndirection: maximize\nbaseline:")
    (tmp_path / "study.yaml").write_text(
        text.replace("factors: {optimizer.lr", "seeds: 2\nfactors: {model.name")
    )
    command = [
        sys.executable,
        "-m",
        "ablate",
        "run",
        "study.yaml",
        "--json",
        "--workers",
        "1",
        "--allow-import",
        "guessed",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = [line["metrics"]["heavy"] for line in lines if line["kind"] == "epoch"]
    assert told == [0.0] * 4


@pytest.mark.parametrize("text", [NETWORK.replace("margin", "margins"), NETWORK + "factors: {}"])
def test_a_mistake_in_a_study_leaves_no_process_behind(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    command = [sys.executable, "-m", "ablate", "run", "study.yaml"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.wait(60) == 2
        left = [
            about for about in Path("/proc").glob("[0-9]*/cmdline") if _is_forkserver_of(about, process.pid)
        ]
    assert not left


@pytest.mark.parametrize(
    ("program", "says"),
    [
        (  # a signal that comes when the folder is there and the forkserver is not, and ends the command at once
            """
make = local._socket_folder
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def made():
    folder = make()
    os.kill(os.getpid(), signal.SIGTERM)
    return folder
local._socket_folder = made
local.begin(())
""",
            "",
        ),
        (  # nobody can wait for a process
            """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(2):
    local.begin(())
    local.abandon()
    print("begun and ended")
""",
            "begun and ended\n" * 2,
        ),
    ],
)
def test_workers_that_began_leave_nothing_behind(tmp_path, program, says):
    done = subprocess.run(
        [sys.executable, "-c", f"import os, signal\nfrom ablate.executors import local\n{program}"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,  # which waits for the forkserver too: it holds what its parent writes to
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (says, "")
    assert not list(tmp_path.iterdir())


def _is_forkserver_of(about: Path, session: int) -> bool:
    try:
        return b"forkserver" in about.read_bytes() and os.getsid(int(about.parent.name)) == session
    except OSError:
        return False
