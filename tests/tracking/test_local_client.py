"""A local database is written by SQL: row by row what MLflow's client writes, whatever is delivered and however it breaks off."""

from __future__ import annotations

import itertools
import math
import os
import random
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from ablate.data.facts import DataFacts
from ablate.errors import StoreError
from ablate.study.looks import LookPlan
from ablate.study.record import ArmRecord, PlanRecord
from ablate.tracking import local_client
from ablate.tracking.client import open_for_writing
from ablate.tracking.local_client import LocalClient
from ablate.tracking.operations import (
    CopyRun,
    EndPlan,
    FailAttempt,
    FinishAttempt,
    LogEpoch,
    Opening,
    Operation,
    RunFacts,
    StartAttempt,
    StorePlan,
    SummariseArms,
    SupersedeRun,
)
from ablate.tracking.rejected import Rejected
from ablate.tracking.server_client import ServerClient
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery

AT = 1_700_000_000.0
DATA = DataFacts(fingerprint="f" * 16, train=10, validation=2, test=3, shape=(1, 8, 8), classes=("a", "b"))
ARMS = tuple(
    ArmRecord(name, None, None, {}, None, {"data": {"name": "digits", "subset": None}}, DATA, "code")
    for name in ("baseline", 'it\'s "odd"=é')
)
DECLARED = {"study": "x", "metric": "val/loss", "margin": 1.0, "question": "why?"}
PLAN = PlanRecord("p", DECLARED, "study: x", 0.0, "baseline", ARMS, (), LookPlan(2, (2,)))
VALUES = (0.5, -1.0, math.nan, math.inf, -math.inf, 1e-300, 0.0, 3.0)


def drawn(seed: int) -> list[Operation]:
    """A plan and six attempts: metrics of any value, at steps and times in any order and more than once."""
    rng = random.Random(seed)
    operations: list[Operation] = [StorePlan("x", AT, PLAN, {"command": "ablate run"})]
    for number in range(6):
        key, arm = f"{number:016d}", rng.choice(ARMS).name
        facts = RunFacts(key, "r" * 16, arm, number, "report", {"lr": 0.1} if number % 2 else {})
        config = {"optimizer": {"lr": rng.choice(VALUES), "name": None}, "note": "n" * rng.choice((1, 7000))}
        attempt = ("x", AT + number, key, 1)
        operations.append(StartAttempt(*attempt, Opening(facts, "p", config), {"device": "cpu"}))
        for _ in range(rng.randrange(5)):
            metrics = {name: rng.choice(VALUES) for name in rng.sample(("val/loss", "lr", "ärger"), 2)}
            at = AT + rng.randrange(3)
            operations.append(LogEpoch("x", at, key, 1, None, rng.randrange(3), metrics))
        ends = (
            FinishAttempt("x", AT + 9, key, 1, None, "finished", 2, {"test/loss": 1.0}, {"weights": "w"}, {"a": b"x"}),
            FailAttempt("x", AT + 9, key, 1, None, "error", "ValueError: no", "Traceback", {"output.txt": b"o"}),
            FailAttempt("x", AT + 9, key, 1, None, "pruned", "others were better", "", {}),
        )  # fmt: skip
        operations += [rng.choice(ends)] if number < 5 else []  # the last one is under way when the plan ends
    rows = {arm.name: {"metrics": {"mean": 0.5}, "tags": {"ablate.verdict": "helps"}} for arm in ARMS}
    return [
        *operations,
        SummariseArms("x", AT + 10, rows, 1),
        SummariseArms("x", AT + 11, rows, 2),
        StorePlan("x", AT + 12, replace(PLAN, text="study: longer"), {}),
        EndPlan("x", AT + 13, "p", "complete", {"verdicts.json": b"{}"}, "so it is"),
    ]


@pytest.fixture
def new_store(tmp_path, template_store):
    numbers = itertools.count()

    def new() -> Store:
        root = tmp_path / str(next(numbers)) / "mlruns"
        root.mkdir(parents=True)
        shutil.copy(template_store, root / "mlflow.db")
        return Store(f"sqlite:///{root / 'mlflow.db'}", root)

    return new


def delivery_to(store: Store) -> Delivery:
    return Delivery(store, Rejected.of(store.root / "spool" / "x.jsonl"))


@pytest.fixture
def by_mlflow(monkeypatch):
    """Makes a delivery that writes through MLflow's client."""

    def make(store: Store) -> Delivery:
        with monkeypatch.context() as patch:
            patch.setattr(local_client, "LAYOUTS", frozenset())
            delivery = delivery_to(store)
        assert isinstance(delivery._client, ServerClient)
        return delivery

    return make


TABLES = {
    "experiments": "name, lifecycle_stage, workspace",
    "experiment_tags": "key, value, experiment_id",
    "runs": "name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version, "
    "lifecycle_stage, deleted_time",
    "tags": "r.name, r.start_time, t.key, t.value",
    "params": "r.name, r.start_time, t.key, t.value",
    "metrics": "r.name, r.start_time, t.key, t.value, t.timestamp, t.step, t.is_nan",
    "latest_metrics": "r.name, r.start_time, t.key, t.value, t.timestamp, t.step, t.is_nan",
    "datasets": "experiment_id, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile",
    "inputs": "source_type, destination_type, step",
    "input_tags": "name, value",
}
CHANGING = ("ablate.lease", "mlflow.parentRunId", "ablate.source_run")


def rows(store: Store) -> dict[str, list[tuple[object, ...]]]:
    """Every row of MLflow's tables, without its ids and the clock's time."""
    assert store.database is not None
    with closing(sqlite3.connect(store.database)) as db:
        tables = {}
        for table, columns in TABLES.items():
            source = f"{table} t JOIN runs r USING (run_uuid)" if columns.startswith("r.") else table
            found = db.execute(f"SELECT {columns} FROM {source}").fetchall()
            tables[table] = sorted(
                (row if table != "tags" or row[2] not in CHANGING else row[:3] for row in found), key=repr
            )
    # Of runs that a study shares, MLflow's client and this process's clock say when they began.
    return {name: [tuple(_plain(cell) for cell in row) for row in found] for name, found in tables.items()}


def _plain(cell: object) -> object:
    """A cell; where it is a time of this process's clock, a word for it."""
    return "now" if isinstance(cell, int) and cell > (AT + 10**6) * 1000 else cell


def files(store: Store) -> list[tuple[str, bytes]]:
    return sorted(
        (path.name, path.read_bytes()) for path in (store.root / "artifacts").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_are_those_of_mlflows_own_client(new_store, by_mlflow, seed):
    own, theirs = new_store(), new_store()
    operations = drawn(seed)
    delivery = delivery_to(own)
    assert isinstance(delivery._client, LocalClient)
    for sink in (delivery, by_mlflow(theirs)):
        sink.deliver(operations[:9], again=False)
        sink.deliver(operations[9:], again=False)
    assert rows(own) == rows(theirs)
    assert files(own) == files(theirs)
    for sink, store in (
        (delivery, own),
        (by_mlflow(theirs), theirs),
    ):  # a run of it in another study, which does not count
        run = next(run for run in _replicates(store))
        copy = CopyRun(
            "y",
            AT + 20,
            RunFacts("k" * 16, "r" * 16, "baseline", 0, "report"),
            "q",
            run,
            {"ablate.accepted_code": "c"},
        )
        sink.deliver([copy, SupersedeRun("x", AT + 21, run, "0" * 32)], again=False)
    assert rows(own) == rows(theirs)


def _replicates(store: Store) -> list[str]:
    assert store.database is not None
    with closing(sqlite3.connect(store.database)) as db:
        found = db.execute(
            "SELECT run_uuid FROM runs WHERE status = 'FINISHED' AND name LIKE '% seed %' ORDER BY name"
        )
        return [run for (run,) in found]


def test_a_batch_that_breaks_off_anywhere_leaves_nothing_and_is_done_by_the_next_try(new_store, monkeypatch):
    whole = new_store()
    operations = drawn(1)
    delivery_to(whole).deliver(operations, again=False)
    expected, check = (rows(whole), files(whole)), LocalClient._check
    for last in range(1, 60, 7):
        store = new_store()
        delivery = delivery_to(store)
        left = itertools.count(1)

        def breaks_off(self, run, left=left, last=last):
            if next(left) == last:
                raise sqlite3.OperationalError("disk I/O error")
            return check(self, run)

        with monkeypatch.context() as patch:
            patch.setattr(LocalClient, "_check", breaks_off)
            if last <= 22:
                with pytest.raises(sqlite3.OperationalError):
                    delivery.deliver(operations, again=False)
                assert rows(store)["runs"] == []
        delivery.deliver(operations, again=True)
        assert (rows(store), files(store)) == expected, "and no files of runs that never were"


def test_a_run_that_is_gone_or_deleted_is_no_fault_of_the_store(new_store):
    store = new_store()
    delivery = delivery_to(store)
    delivery.deliver(drawn(1), again=False)
    client = LocalClient(Path(str(store.database)))
    with pytest.raises(LookupError, match="there is no run"):
        client.set_tag("0" * 32, "a", "b")
    run = _replicates(store)[0]
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = ?", [run])
    with pytest.raises(ValueError, match="was deleted in MLflow"):
        client.log(run, [("a", 1.0, 1, 1)])


def test_another_layout_is_left_to_mlflow(new_store):
    store = new_store()
    database = Path(str(store.database))
    assert local_client.has_known_layout(database)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    assert not local_client.has_known_layout(database)
    assert not local_client.has_known_layout(database.with_name("absent.db"))


@pytest.mark.parametrize("table", local_client._COLUMNS)
def test_a_database_that_lacks_a_part_of_its_layout_is_not_waited_for(new_store, table):
    store = new_store()
    database = Path(str(store.database))
    column = local_client._COLUMNS[table].split()[-1]
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA legacy_alter_table = ON")
        db.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
    with pytest.raises(StoreError, match=f"lacks the column '{column}' of the table '{table}'"):
        open_for_writing(store)
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreError, match=f"lacks the table '{table}'"):
        open_for_writing(store)


@pytest.mark.parametrize(("name", "mode"), [("mlflow.db", 0o444), ("", 0o555)])
def test_a_database_that_may_not_be_written_is_not_waited_for(new_store, monkeypatch, name, mode):
    store = new_store()
    place = Path(str(store.database)).parent / name
    if os.geteuid() == 0:  # who may write everywhere
        monkeypatch.setattr("os.access", lambda path, how: Path(path) != place or how != os.W_OK)
    place.chmod(mode)
    try:
        with pytest.raises(StoreError, match=f"{place}: may not be written"):
            open_for_writing(store)
    finally:
        place.chmod(0o755)


def test_names_that_mlflow_refuses_are_refused_by_both(new_store, by_mlflow):
    store = new_store()
    own, theirs = delivery_to(store), by_mlflow(store)
    own.deliver(drawn(1), again=False)
    run = _replicates(store)[0]
    for name in ("", "a*b", "../a", "/a", "a//b", ".", "a" * 251, "(%)"):
        for delivery in (own, theirs):
            with pytest.raises((ValueError, MlflowException)):
                delivery._client.log(run, [(name, 1.0, 1, 1)])


def test_the_runs_of_all_arms_are_looked_up_at_once(workplace, monkeypatch):
    """One look-up an arm took the square of their number: 3,000 finished runs of 600 arms took half a minute to be run again."""
    study = workplace.trained()
    asked = []
    matching = LocalClient.matching
    monkeypatch.setattr(
        LocalClient, "matching", lambda *given: asked.append(dict(given[2])) or matching(*given)
    )
    workplace.ablate("run", study, "--executor", "inline", "--json")  # which works the answer out again
    assert [tags for tags in asked if tags.get("ablate.kind") == "arm"] == [{"ablate.kind": "arm"}]
    assert len(workplace.runs(kind="arm")) == 3
