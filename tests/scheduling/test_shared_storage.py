"""Several coordinators on one storage of Optuna: each closes its own trials, and those of processes that are gone."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from ablate.data.facts import DataFacts
from ablate.errors import StoreError
from ablate.events import Failed, Finished
from ablate.scheduling import queue
from ablate.scheduling.queue import Attempted, Queue
from ablate.study import design, spec
from ablate.study.design import Run

STUDY = """
study: shared
margin: 0.01
train: toy:fit
baseline: {gain: 0.0, epochs: 2}
factors: {gain: [0.1, 0.2]}
seeds: 3
"""
SEARCH = """
study: shared
margin: 0.01
train: toy:fit
baseline: {gain: 0.0, epochs: 2}
factors: {gain: {range: [0, 1]}}
design: search
search: {trials: 8, pruner: median}
seeds: 3
"""

# Another coordinator, that opens a trial for each line it reads, and closes all of them at the end of its input.
OTHER = """
import sys
from pathlib import Path
sys.path[:0] = [{here!r}, "."]
import test_shared_storage as shared
opened = shared.Opened({text!r}, Path({folder!r}), {storage!r})
began = []
for line in sys.stdin:
    began.append(opened.begin(int(line)))
    print("open", flush=True)
for run in began:
    opened.end(run, "finished", 0.5)
print("closed", flush=True)
"""


class Opened:
    """A coordinator's part in a storage: the ledger of its plan, or its search."""

    def __init__(self, text: str, folder: Path, storage: str | None, **options) -> None:
        self.plan = design.plan(spec.parse(text), lambda _: DataFacts())
        self.ledger = Queue(self.plan, folder, storage, **options)
        searches = self.plan.study.search is not None
        self.search = self.ledger.search("baseline", self.plan.study.space) if searches else None
        name = f"shared-{self.plan.id}" + ("-search" if searches else "")
        self.study = optuna.load_study(study_name=name, storage=storage or queue._journal(folder))

    def begin(self, number: int) -> Run:
        """Open the trial of a run: of the plan's, or of what the search asks for."""
        if self.search is None:
            run = [*self.plan.replicates(self.plan.names, range(3))][number]
            self.ledger.ask(run)
            return run
        trial, values = self.search.ask()
        run = self.plan.trial("baseline", values, number)
        self.search.begin(trial, run)
        return run

    def end(self, run: Run, outcome: str, value: float = float("nan")) -> None:
        if outcome == "finished":
            self.ledger.report(run.key, 1, value)
        if self.search is not None:
            self.search.tell(run.key, outcome, (value,))
        elif outcome == "finished":
            self.ledger.tell(Finished(run.key, 1, 2, time.time(), "finished", 1), value)
        else:
            kind = "error" if outcome == "failed" else "pruned"
            self.ledger.tell(Failed(run.key, 1, 2, time.time(), kind), value)

    def agree(self, finished: dict[str, tuple[Run, float]] | None = None) -> None:
        """Make the ledger agree with a record of these runs, as a coordinator does when it begins. By key: run, value."""
        known = finished or {}
        if self.search is None:
            values = {key: value for key, (_, value) in known.items()}
            self.ledger.match(values, {key: run for key, (run, _) in known.items()})
        else:
            tried = {k: Attempted(run.values, run.seed, "finished", (v,)) for k, (run, v) in known.items()}
            self.search.match(tried)

    def states(self) -> list[str]:
        return sorted(trial.state.name for trial in self.study.get_trials())


@contextlib.contextmanager
def another(text: str, folder: Path, storage: str | None) -> Iterator[subprocess.Popen[str]]:
    code = OTHER.format(here=str(Path(__file__).parent), text=text, folder=str(folder), storage=storage)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes) as process:
        yield process
        process.kill()


def tell(process: subprocess.Popen[str], number: int) -> None:
    process.stdin.write(f"{number}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "open\n"


storages = pytest.mark.parametrize("kind", ["journal", "sqlite"])
texts = pytest.mark.parametrize("text", [STUDY, SEARCH], ids=["planned", "searched"])


@pytest.fixture
def storage(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "toy.py").write_text("def fit(config, seed):\n    yield {'val/accuracy': 0.5}\n")
    return None if kind == "journal" else f"sqlite:///{tmp_path}/optuna.db"


@storages
@texts
def test_two_coordinators_leave_each_others_trials_alone(tmp_path, storage, text):
    ours = Opened(text, tmp_path, storage)
    run = ours.begin(0)
    with another(text, tmp_path, storage) as other:
        tell(other, 1)
        ours.agree()
        tell(other, 2)
        ours.end(run, "finished", 0.25)
        ours.agree()
        assert ours.states() == ["COMPLETE", "RUNNING", "RUNNING"]
        rest, _ = other.communicate()
        assert (rest, other.returncode) == ("closed\n", 0)
    found = ours.study.get_trials()
    assert len({trial.user_attrs["run"] for trial in found}) == 3
    assert sorted(trial.value for trial in found) == [0.25, 0.5, 0.5]


@storages
@texts
def test_trials_of_a_coordinator_that_is_gone_are_closed_as_failed(tmp_path, storage, text):
    with another(text, tmp_path, storage) as other:
        tell(other, 0)
        other.kill()
        other.wait()
    ours = Opened(text, tmp_path, storage)
    ours.begin(1)
    ours.agree()
    assert ours.states() == ["FAIL", "RUNNING"]
    # The same coordinator, begun again within its process, knows nothing of the trial that it left open.
    Opened(text, tmp_path, storage).agree()
    assert ours.states() == ["FAIL", "FAIL"]


@pytest.mark.parametrize("kind", ["journal"])
@texts
def test_trials_of_another_machine_are_closed_once_the_store_knows_that_it_trains_no_more(
    tmp_path, storage, text, monkeypatch
):
    gone: set[str] = set()
    ours = Opened(text, tmp_path, storage, is_gone=gone.__contains__)
    name = "elsewhere/boot/1/1"
    monkeypatch.setattr(queue, "owner", lambda: name)
    ours.begin(0)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    ours = Opened(text, tmp_path, storage, is_gone=gone.__contains__)
    for is_gone, lease, states in ((False, -1, "RUNNING"), (True, 900, "RUNNING"), (True, -1, "FAIL")):
        gone |= {name} if is_gone else set()
        monkeypatch.setattr(queue, "LEASE", lease)
        ours.agree()
        assert ours.states() == [states]


@storages
@texts
def test_a_trial_that_someone_else_has_closed_can_still_be_told_its_end(tmp_path, storage, text):
    ours = Opened(text, tmp_path, storage)
    runs = {}
    for number, outcome in enumerate(["finished", "failed", "pruned", "diverged"]):
        runs[outcome] = run = ours.begin(number)
        ours.study.tell(ours.study.get_trials()[-1].number, state=optuna.trial.TrialState.FAIL)
        ours.end(run, outcome, 0.5 if outcome == "finished" else float("nan"))
    assert ours.states() == ["FAIL"] * 4
    # What the record has, the ledger is given when they are made to agree.
    run = runs["finished"]
    ours.agree({run.key: (run, 0.5)})
    assert [trial.value for trial in ours.study.get_trials()] == [*[None] * 4, 0.5]


def test_a_database_that_several_processes_make_at_once_is_opened_by_each(tmp_path):
    # Threads have connections of their own, and race as processes do.
    for attempt in range(5):
        together = threading.Barrier(4)

        def opened(url: str = f"sqlite:///{tmp_path}/{attempt}.db", together: threading.Barrier = together):
            together.wait()
            storage = queue._opened(url, tmp_path)
            return optuna.create_study(study_name="shared", storage=storage, load_if_exists=True).study_name

        with ThreadPoolExecutor(4) as pool:
            names = [future.result() for future in [pool.submit(opened) for _ in range(4)]]
        assert names == ["shared"] * 4


@pytest.mark.parametrize("url", ["nothing:///x", "sqlite:////no/such/folder/o.db", "no address"])
def test_an_address_that_is_none_is_not_tried_again(tmp_path, monkeypatch, url):
    monkeypatch.setattr(queue, "OPEN_AGAIN_AFTER", (1000.0,))
    with pytest.raises(StoreError, match="Optuna cannot open it"):
        queue.try_storage(url, tmp_path)
