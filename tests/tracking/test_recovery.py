"""What killed processes leave behind: each spool is delivered to its own runs, whatever else lies there or is at work."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ablate.data.facts import DataFacts
from ablate.study.looks import LookPlan
from ablate.study.record import ArmRecord, PlanRecord
from ablate.tracking import store as stores
from ablate.tracking.operations import (
    EndPlan,
    FinishAttempt,
    LogEpoch,
    Opening,
    Operation,
    RunFacts,
    StartAttempt,
    StorePlan,
    SummariseArms,
    from_json,
    to_json,
)
from ablate.tracking.recover import recover
from ablate.tracking.rejected import Rejected
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery

AT = 1_700_000_000.0
ARM = ArmRecord("", None, None, {}, None, {}, DataFacts(), "code")
DECLARED = {
    "study": "x",
    "metric": "val/loss",
    "direction": "minimize",
    "margin": 1.0,
    "question": "why?",
    "seeds": [2],
    "design": "one-at-a-time",
    "noise_floor": False,
    "confirm": False,
    "deterministic": False,
    "factors": [],
}
PLAN = PlanRecord("p", DECLARED, "study: x", 0.0, "baseline", (), (), LookPlan(2, (2,)))
numbers = itertools.count()


def planned(arms: Sequence[str], plan: str) -> PlanRecord:
    return replace(PLAN, id=plan, arms=tuple(replace(ARM, name=name) for name in arms))


@pytest.fixture(scope="module")
def store(tmp_path_factory, template_store) -> Store:
    root = tmp_path_factory.mktemp("recovery") / "mlruns"
    root.mkdir()
    shutil.copy(template_store, root / "mlflow.db")
    return Store(f"sqlite:///{root / 'mlflow.db'}", root)


@dataclass(frozen=True)
class Process:
    """A process that records a study with two runs. owner: its name, of a process that is gone."""

    study: str
    number: int = field(default_factory=lambda: next(numbers))

    @property
    def owner(self) -> str:
        return (
            f"{socket.gethostname()}/{stores.boot_id()}/{2**22 + self.number}/1"  # no process id is that high
        )

    @property
    def keys(self) -> tuple[str, str]:
        return f"{self.number:016d}", f"{self.number + 10**6:016d}"

    @property
    def operations(self) -> list[Operation]:
        at, study = AT + self.number, self.study
        arms = ["baseline", f"it's {self.number}"]
        (one, other), plan = self.keys, f"plan {self.number}"

        def opening(key: str, arm: str) -> Opening:
            return Opening(RunFacts(key, "r" * 16, arm, 0, "report"), plan, {"gain": 0.5})

        return [
            StorePlan(study, at, planned(arms, plan), {}),
            StartAttempt(study, at, one, 1, opening(one, arms[0]), {"device": "cpu"}),
            LogEpoch(study, at + 1, one, 1, None, 1, {"val/loss": 0.5}),
            StartAttempt(study, at, other, 1, opening(other, arms[1]), {"device": "cpu"}),
            FinishAttempt(study, at + 2, one, 1, None, "finished", 1, {"test/loss": 1.0}, {}, {"a": b"x"}),
            LogEpoch(study, at + 2, other, 1, None, 1, {"val/loss": 0.25}),
            SummariseArms(study, at + 3, {arms[1]: {"metrics": {"mean": 0.5}, "tags": {}}}, 1),
            FinishAttempt(study, at + 4, other, 1, None, "diverged", 1, {"test/loss": 1.0}, {}, {}),
            EndPlan(study, at + 5, plan, "complete", {"verdicts.json": b"{}"}, "so it is"),
        ]

    def deliver(self, store: Store, operations: Sequence[Operation], *, again: bool = False) -> Delivery:
        """Deliver as the process itself did while it lived."""
        delivery = Delivery(store, Rejected.of(store.root / "spool" / "x.jsonl"))
        delivery._owner = self.owner
        delivery.deliver(operations, again=again)
        return delivery

    def die(self, store: Store, put: int | Sequence[int], delivered: int, noted: int) -> None:
        """Leave what a process leaves that is killed after so many operations were put, delivered and noted as delivered.

        put: their number, from the first on, or their places.
        """
        operations = [self.operations[i] for i in (range(put) if isinstance(put, int) else put)]
        path = store.folder("spool") / f"{self.number:013d}-x.jsonl"
        lines = [{"owner": self.owner}, *map(to_json, operations)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if delivered:
            self.deliver(store, operations[:delivered])
        if noted:
            path.with_suffix(".delivered").write_text(str(noted))

    def check(self, store: Store, put: int) -> None:
        """Check that the study holds what was put and nothing else of this process, all of it ended."""
        runs = [run for run in runs_of(store, self.study) if run.data.tags["ablate.owner"] == self.owner]
        ended = {}
        for run in runs:
            tags = run.data.tags
            if tags["ablate.kind"] == "replicate":
                assert tags["ablate.key"] not in ended, "one run for each attempt"
                ended[tags["ablate.key"]] = (run.info.status, tags.get("ablate.outcome"))
        one, other = self.keys
        killed = ("KILLED", "failed")
        expected = {}
        if put > 1:
            expected[one] = ("FINISHED", "finished") if put > 4 else killed
        if put > 3:
            expected[other] = ("FINISHED", "diverged") if put > 7 else killed
        assert ended == expected
        plans = [run for run in runs if run.data.tags["ablate.kind"] == "report"]
        assert [run.info.status for run in plans] == ["FINISHED" if put > 8 else "KILLED"][: min(put, 1)]
        if put > 8:
            assert plans[0].data.tags["ablate.ending"] == "complete"
        arms = [run for run in runs if run.data.tags["ablate.kind"] == "arm"]
        assert {run.info.status for run in arms} <= {"FINISHED" if put > 8 else "KILLED"}


def runs_of(store: Store, study: str) -> list[Any]:
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name(study)
    return client.search_runs([experiment.experiment_id], max_results=5000)


def new_study() -> str:
    return f"study {next(numbers)}"


LENGTH = len(Process("any").operations)


@pytest.mark.parametrize("put", range(1, LENGTH + 1))
def test_two_processes_killed_at_any_operation_are_recovered_each_by_itself(store, put):
    study = new_study()
    first, second = Process(study), Process(study if put % 2 else new_study())
    later = LENGTH + 1 - put
    first.die(store, put, delivered=put // 2, noted=put // 3)
    second.die(store, later, delivered=later, noted=later - later % 2)
    recover(store)
    first.check(store, put)
    second.check(store, later)
    assert not list((store.root / "spool").iterdir())
    assert recover(store) == 0


@pytest.mark.parametrize("puts", list(itertools.permutations([2, 5, LENGTH])))
def test_three_spools_in_any_order_are_recovered_each_by_itself(store, puts):
    processes = [Process(new_study()) for _ in puts]
    for process, put in zip(processes, puts, strict=True):
        process.die(store, put, delivered=put - 1, noted=0)
    recover(store)
    for process, put in zip(processes, puts, strict=True):
        process.check(store, put)


@pytest.mark.parametrize("put", [4, LENGTH])
@pytest.mark.parametrize("delivered", [0.0, 0.5, 1.0])
def test_a_living_process_at_the_same_study_keeps_its_runs(store, put, delivered):
    study = new_study()
    dead, living = Process(study), Process(study)
    dead.die(store, put, int(put * delivered), 0)
    alive = Delivery(store, Rejected.of(store.root / "spool" / "x.jsonl"))
    alive.deliver(living.operations[:4], again=False)

    def living_runs() -> list[Any]:
        return sorted(
            (run.info.run_id, run.info.status, run.data.tags)
            for run in runs_of(store, study)
            if run.data.tags["ablate.owner"] == stores.owner()
        )

    before = living_runs()
    assert [status for _, status, _ in before] == ["RUNNING"] * 5
    recover(store)
    assert living_runs() == before
    alive.deliver(living.operations[4:], again=False)
    assert [status for _, status, _ in living_runs()] == ["FINISHED"] * 5


def test_what_a_later_process_recorded_of_a_plan_stays_when_an_older_spool_is_delivered(store):
    study = new_study()
    older = Process(study)
    older.die(store, LENGTH, delivered=0, noted=0)
    plan, *_, end = older.operations
    assert isinstance(plan, StorePlan)
    assert isinstance(end, EndPlan)
    later = Process(study)
    newer = StorePlan(study, AT + 10_000, replace(plan.plan, text="study: longer"), {})
    ended = EndPlan(study, AT + 20_000, end.plan, "budget", {}, "not yet")
    later.deliver(store, [newer, ended])
    recover(store)
    [run] = [run for run in runs_of(store, study) if run.data.tags["ablate.kind"] == "report"]
    assert (run.data.tags["ablate.ending"], run.data.tags["mlflow.note.content"]) == ("budget", "not yet")
    assert (run.info.status, run.info.end_time) == ("KILLED", int((AT + 20_000) * 1000))


class FallsSilent:
    """MLflow's client, whose call number `last` is done but not answered."""

    def __init__(self, client: MlflowClient, last: int) -> None:
        self._client, self._left = client, last

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            self._left -= 1
            if self._left == 0:
                raise ConnectionError
            return result

        return call


def contents(store: Store, study: str) -> list[Any]:
    """Runs of a study with their tags, but for who wrote them when."""
    private = {"ablate.owner", "ablate.lease", "ablate.study", "ablate.plan", "ablate.key", "ablate.arm"}
    private |= {"mlflow.parentRunId", "mlflow.runName", "ablate.recorded"}
    return sorted(
        (
            run.info.status,
            sorted(run.data.metrics.items()),
            sorted(run.data.params.items()),
            sorted((n, v) for n, v in run.data.tags.items() if n not in private),
        )
        for run in runs_of(store, study)
    )


def test_delivery_that_breaks_off_at_any_call_leaves_the_same_when_it_is_repeated(store):
    few = (0, 1, 2, 4, 6, 8)
    whole = Process(new_study())
    whole.deliver(store, [whole.operations[i] for i in few])
    expected = contents(store, whole.study)
    assert len(expected) == 4
    for last in itertools.count(1):
        process = Process(new_study())
        delivery = Delivery(store, Rejected.of(store.root / "spool" / "x.jsonl"))
        delivery._owner = process.owner
        delivery._client = FallsSilent(delivery._client, last)
        try:
            delivery.deliver([process.operations[i] for i in few], again=False)
        except ConnectionError:
            if last % 2:  # the process is killed, or it tries again itself
                process.die(store, few, 0, 0)
                recover(store)
            else:
                delivery.deliver([process.operations[i] for i in few], again=True)
        else:
            assert last > 15, "it broke off at every call"
            break
        assert contents(store, process.study) == expected, f"call {last}"


def test_a_line_reads_as_it_was_written():
    for operation in Process("study").operations:
        assert from_json(json.loads(json.dumps(to_json(operation)))) == operation


def test_the_config_stands_in_the_first_line_of_an_attempt_alone():
    lines = [json.dumps(to_json(operation)) for operation in Process("study").operations]
    assert [i for i, line in enumerate(lines) if '"gain"' in line] == [1, 3]


SPOOL_VERSION_0 = Path(__file__).with_name("spool_version_0.jsonl")
"""Lines of version 0.1.0, which repeats run and config in every line and does not name its owner."""


@pytest.mark.parametrize("delivered", [0, 6, 13])
def test_a_spool_of_an_older_version_is_delivered(tmp_path, template_store, delivered):
    root = tmp_path / "mlruns"
    root.mkdir()
    shutil.copy(template_store, root / "mlflow.db")
    store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
    path = store.folder("spool") / "0001795906403-00000000.jsonl"
    shutil.copy(SPOOL_VERSION_0, path)
    operations = [from_json(json.loads(line)) for line in SPOOL_VERSION_0.read_text().splitlines()]
    assert len(operations) == 14
    if delivered:
        Process("toy").deliver(store, operations[:delivered])
        path.with_suffix(".delivered").write_text(str(delivered - 1))
    recover(store)
    runs = runs_of(store, "toy")
    replicates = {
        run.info.run_name: (run.info.status, run.data.tags["ablate.outcome"])
        for run in runs
        if run.data.tags["ablate.kind"] == "replicate"
    }
    assert replicates == {
        "baseline · seed 0": ("FINISHED", "finished"),
        "gain=0.2 · seed 0": ("FAILED", "failed"),
        "baseline · seed 1": ("KILLED", "failed"),
    }
    assert len(runs) == 6
    [first] = [run for run in runs if run.info.run_name == "baseline · seed 0"]
    assert first.data.params == {"gain": "0.0", "epochs": "2", "layers": "[4, 8]", "block.rate": "0.5"}
    assert first.data.tags["ablate.trace"] == "t"
    assert json.loads(first.data.tags["ablate.config"])["block"] == {"rate": 0.5}
    history = MlflowClient(store.uri).get_metric_history(first.info.run_id, "val/accuracy")
    assert [(point.step, point.value) for point in history] == [(1, 0.6), (2, 0.7)]
    [plan] = [run for run in runs if run.data.tags["ablate.kind"] == "report"]
    assert plan.data.tags["ablate.ending"] == "interrupted"
    assert not list((store.root / "spool").iterdir())


AWKWARD = [
    "it's",
    'a "quoted" name',
    "both ' and \"",
    "100%",
    "a_b",
    "aXb",
    "back\\",
    "a=1,b=2",
    "größe",
    "x" * 400,
]


def test_an_arm_has_one_run_whatever_it_is_called_and_however_often_its_study_is_run(store):
    study = new_study()
    plan = planned(AWKWARD, "p")
    for at in (AT, AT + 100):
        delivery = Delivery(store, Rejected.of(store.root / "spool" / "x.jsonl"))
        delivery.deliver([StorePlan(study, at, plan, {})], again=False)
        arms = {name: {"metrics": {"mean": at}, "tags": {}} for name in AWKWARD}
        delivery.deliver([SummariseArms(study, at, arms, 1)], again=True)
    runs = [run for run in runs_of(store, study) if run.data.tags["ablate.kind"] == "arm"]
    assert sorted(run.data.tags["ablate.arm"] for run in runs) == sorted(AWKWARD)
    assert {run.data.metrics["mean"] for run in runs} == {AT + 100}
