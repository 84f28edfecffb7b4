"""What tests of several rooms share: a store to copy, a folder to work in, and a training that takes no time."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import typer.testing
from hypothesis import settings
from stores import copy_store, move_artifacts
from typer.testing import CliRunner

# Typer makes all commands anew for every invocation, which takes as long as many of them.
typer.testing._get_command = functools.cache(typer.testing._get_command)

# The workers of a whole test run come from one forkserver, which loads what the first study that has any asks for. A study of
# another kind would have each of its workers import torch.
_set_preload = ForkServerContext.set_forkserver_preload
_FOR_ALL = ("torch", "torch._dynamo", "ablate.training.builtin.bundle")
ForkServerContext.set_forkserver_preload = lambda self, modules: _set_preload(self, [*modules, *_FOR_ALL])


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs and `nohup` ignore signals, and so would the commands that tests start: they stay ignored.
    for number, handler in {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # SQLAlchemy 2.1 deprecates a call that MLflow still makes. A machine with a GPU may have neither.
    if importlib.util.find_spec("sqlalchemy"):
        config.addinivalue_line("filterwarnings", "ignore::sqlalchemy.exc.SADeprecationWarning")


# How long an example takes says more of the machine than of the code.
settings.register_profile("ablate", deadline=None)
settings.load_profile("ablate")

ROOM = 4 << 30
"""Bytes that a folder in memory must have room for. What a test leaves there is removed once it has passed."""


def _in_memory() -> Path | None:
    """Return a folder in memory, where there is one with room in which programs may be run."""
    place = Path("/dev/shm")
    try:
        disk = os.statvfs(place)
    except OSError:
        return None
    fits = disk.f_bavail * disk.f_frsize >= ROOM and not disk.f_flag & os.ST_NOEXEC
    return place if fits and os.access(place, os.W_OK) else None


# A test with a store waits longer for a disk to have what MLflow commits than it computes.
if "PYTEST_DEBUG_TEMPROOT" not in os.environ and (folder := _in_memory()):
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(folder)

# What commands print is that of no terminal, whatever surrounds the tests: a service that has every program print colours, for one.
# A seed of hashes, which tox sets, would stay that of the workers.
for name in (
    "PYTHONHASHSEED",
    *("COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"),
    *("FORCE_COLOR", "PY_COLORS", "CLICOLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS"),
):
    os.environ.pop(name, None)

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)

# A training of the user's own. Accuracy depends on the config and, through a seeded generator, on the seed; switches make
# it misbehave in the ways that schedulers must survive.
TOY = '''
import contextlib
import os
import random
import signal
import time
from pathlib import Path

# A file for each run that may come to its last epoch. Where there is no such folder, every run may.
TURNS = Path(".cache/turns")


def take_turn():
    while TURNS.exists():
        for turn in TURNS.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another run has taken it
                turn.unlink()
                return
        time.sleep(0.01)


def fit(config, seed):
    """A response with known effects and noise."""
    noise = random.Random(f"{sorted(config.items())}/{seed}")
    shared = random.Random(seed).gauss(0, 0.01)
    if config.get("hungry"):
        raise MemoryError("it asked for too much")
    if config.get("raises"):
        raise RuntimeError("it was told to")
    if config.get("dies_once"):
        mark = Path(f"died-{seed}")
        if not mark.exists():
            mark.touch()
            yield {"train/loss": 9.0, "val/loss": 9.0, "val/accuracy": 0.1}
            os.kill(os.getpid(), signal.SIGKILL)
    for epoch in range(1, config["epochs"] + 1):
        if epoch == config["epochs"]:
            take_turn()
        time.sleep(config.get("sleep", 0))
        share = epoch / config["epochs"]
        loss = 1 - 0.5 * share + noise.gauss(0, 0.001)
        if config.get("diverges"):
            loss = float("nan")
        accuracy = 0.5 + 0.2 * share + config["gain"] + shared + noise.gauss(0, config["spread"])
        yield {"train/loss": loss, "val/loss": loss, "val/accuracy": accuracy, "test/accuracy": accuracy - 0.01}
'''

STUDY = """
study: {name}
margin: 0.02
train: toy:fit
baseline: {{gain: 0.0, spread: 0.001, epochs: 2, sleep: 0, raises: false, dies_once: false, diverges: false, width: 8}}
factors: {factors}
seeds: {seeds}
"""


@pytest.fixture(scope="session")
def template_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it none."""
    from ablate.tracking.client import create
    from ablate.tracking.store import Store

    root = tmp_path_factory.mktemp("template") / "mlruns"
    store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
    create(store)
    assert store.database is not None
    return store.database


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data, once for all tests."""
    return tmp_path_factory.mktemp("cache")


@dataclass(frozen=True)
class Workplace:
    """A folder with an empty store, in which the command line is run.

    trained_before: the text and the options of a study → the store in which a test of this session has trained it.
    """

    root: Path
    trained_before: dict[str, Path]

    def ablate(self, *arguments: str, code: int = 0) -> str:
        """Run a command in this process; its output, both streams. The exit code is checked."""
        from ablate import cli
        from ablate.errors import AblateError

        result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=True)
        output = result.output
        if isinstance(result.exception, AblateError):
            assert code == cli.MISTAKE, f"a mistake was not expected: {result.exception}"
            return f"{output}error: {result.exception}"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, output
        return output

    def study(
        self, name: str = "toy", factors: str = "{gain: [0.2, 0.001]}", seeds: str = "3", more: str = ""
    ) -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(STUDY.format(name=name, factors=factors, seeds=seeds) + more)
        return str(path)

    def trained(self, **given: str) -> str:
        """Write a study and have it trained, in a test before if there was one. Returns its file."""
        path = self.study(**given)
        self.train(path, "--executor", "inline")
        return path

    def train(self, path: str, *options: str) -> str:
        """Run a study, or copy the store of the test that has run the same before. Returns what was printed."""
        key = " ".join((Path(path).read_text(), *options))
        if key in self.trained_before:
            copy_store(self.trained_before[key], self.root / "mlruns")
        else:
            printed = self.ablate("run", path, *options)
            place = self.root.parent / f"{self.root.name}-trained"
            copy_store(self.root / "mlruns", place)
            (place / "printed").write_text(printed)
            self.trained_before[key] = place
        return (self.trained_before[key] / "printed").read_text()

    @contextlib.contextmanager
    def turns(self, number: int) -> Iterator[None]:
        """Let so many runs come to their last epoch, in any process; the others wait before it."""
        place = self.root / ".cache" / "turns"  # in a folder of a tool's, so that it is no input of the runs
        place.mkdir(parents=True)
        for turn in range(number):
            (place / str(turn)).touch()
        yield
        shutil.rmtree(place)

    def copy(self, name: str) -> Workplace:
        """Copy the folder and its store, so that there are two ways to go on from here."""
        root = self.root.parent / f"{self.root.name}-{name}"
        shutil.copytree(self.root, root)
        move_artifacts(root / "mlruns" / "mlflow.db", str(self.root), str(root))
        return replace(self, root=root)

    @property
    def store(self):
        from ablate.tracking.store import current_store

        return current_store()

    @property
    def client(self):
        from mlflow import MlflowClient

        return MlflowClient(self.store.uri)

    def runs(self, study: str = "toy", kind: str = "replicate"):
        experiment = self.client.get_experiment_by_name(study)
        return self.client.search_runs(
            [experiment.experiment_id], f"tags.`ablate.kind` = '{kind}'", max_results=5000
        )


@pytest.fixture(scope="session")
def trained_before() -> dict[str, Path]:
    """What tests of this session have trained; see `Workplace`."""
    return {}


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that a command of another test has left in this process reach this one: a Ctrl-C, and where it worked."""
    monkeypatch.setattr("ablate.interrupts._has_come", False)
    monkeypatch.setattr("ablate.launch._working_folder", None)


@pytest.fixture
def workplace(
    tmp_path: Path,
    template_store: Path,
    trained_before: dict[str, Path],
    shared_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Workplace:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(template_store, tmp_path / "mlruns" / "mlflow.db")
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "pyproject.toml").write_text('[tool.ablate]\nimports = ["toy"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_CACHE", str(shared_cache))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    # The module of the same name belongs to another test's folder.
    monkeypatch.delitem(sys.modules, "toy", raising=False)
    from ablate import launch

    with contextlib.redirect_stderr(io.StringIO()):  # what tests print begins as from the second command on
        launch.tell_once({"imports": ["toy"], "commands": []})
    yield Workplace(tmp_path, trained_before)
    sys.modules.pop("toy", None)


@pytest.fixture
def in_process(tmp_path, monkeypatch, capsys):
    """Runs a command in this process and an empty folder. code: that it ends with. Returns what it wrote on stdout and stderr."""
    from ablate.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, code: int = 0):
        monkeypatch.setattr("sys.argv", ["ablate", *arguments])
        try:
            main()
            ended = 0
        except SystemExit as stopped:
            ended = stopped.code or 0
        seen = capsys.readouterr()
        assert ended == code, seen
        return seen

    return run
