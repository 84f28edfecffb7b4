"""The store's folder: locks of studies and of the store itself, whatever the studies are called."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from ablate import doctor
from ablate.errors import StoreError
from ablate.tracking import busy, client, spool
from ablate.tracking import store as store_module
from ablate.tracking.client import create
from ablate.tracking.queries import queries
from ablate.tracking.recover import recover
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Claims, Store, open_lock

# Names of files and folders that a store has of its own, and names that differ in case alone.
NAMES = ["database", "runs", "studies", "locks", "spool", "cache", "optuna", "checkpoints", "artifacts"]
NAMES += ["models", "index", "mlflow", "Database", "x.lock", "database.lock"]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(f"sqlite:///{tmp_path}/mlruns/mlflow.db", tmp_path / "mlruns")


def test_a_study_is_locked_against_itself_and_nothing_else_whatever_its_name(store):
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(store.lock(name))
        claims = stack.enter_context(contextlib.closing(Claims(store)))
        assert claims.take("0123456789abcdef")
        for name in NAMES:
            with (
                pytest.raises(StoreError, match="another process runs this study") as caught,
                store.lock(name),
            ):
                pass
            assert name in str(caught.value)
    for name in NAMES:
        with store.lock(name):
            pass


def test_the_database_is_made_while_a_study_of_that_name_holds_its_lock(store):
    with store.lock("database"):
        create(store)
    assert store.exists


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO])
@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_a_file_system_without_locks_is_said_before_anything_trains(workplace, monkeypatch, kind, refusal):
    def refuse(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, kind, refuse)
    printed = workplace.ablate("run", workplace.study(), "--executor", "inline", code=2)
    assert f"cannot be locked by {'flock' if kind == 'flock' else 'fcntl'}" in printed
    assert ".lock: " in printed or ".jsonl: " in printed
    assert "another process" not in printed
    assert not any((workplace.root / "mlruns").rglob("plan.json"))
    checks = {check.name: check for check in doctor.store()}
    assert checks["locks"].state == "broken"


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_a_lock_that_is_no_file_is_said_so(store, tmp_path, kind):
    path = tmp_path / "x.lock"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("x")}[kind]()
    with pytest.raises(StoreError, match=r"x\.lock: cannot be used as a lock \((?!None)"):
        open_lock(path)


@pytest.fixture
def held(workplace):
    """A database that another program holds, and what lets it go."""
    database = workplace.store.database
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield database, connection
    connection.close()


def test_a_database_that_another_program_holds_is_waited_for(workplace, held, monkeypatch):
    database, connection = held
    told: list[str] = []

    class LettingGo(io.StringIO):
        def write(self, text: str) -> int:
            told.append(text)
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return len(text)

    monkeypatch.setattr(busy, "TELL_AFTER", 0)
    monkeypatch.setattr(busy, "_STEP", 0.05)
    for read in (
        lambda: queries(workplace.store).study_names(),
        lambda: queries(workplace.store).experiment("toy"),
        lambda: busy.wait(database),
    ):
        if not connection.in_transaction:
            connection.execute("BEGIN EXCLUSIVE")
        told.clear()
        with contextlib.redirect_stderr(LettingGo()):
            assert not read()
        assert f"waiting for {database}" in told[0]


def test_a_database_that_stays_held_is_named_and_nobody_is_told_to_upgrade(workplace, held):
    database, _ = held
    with pytest.raises(busy.BusyError, match="another program holds the database") as caught:
        queries(workplace.store, patience=0).study_names()
    assert str(database) in str(caught.value)
    assert "upgrade" not in str(caught.value)


def put_a_plan(store: Store) -> Tracker:
    tracker = Tracker(store, "toy")
    tracker.arms({"baseline": {"metrics": {"val/loss": 0.5}, "tags": {}}}, 1)
    return tracker


def test_a_study_that_ends_while_a_database_is_held_says_what_it_waits_for(workplace, held, monkeypatch):
    _, connection = held
    told: list[str] = []

    def let_go(text: str) -> None:
        told.append(text)
        connection.execute("ROLLBACK")

    monkeypatch.setattr(spool, "TELL_AFTER", 0)
    monkeypatch.setattr(spool, "PATIENCE", 0.05)
    monkeypatch.setattr(client, "_SHORT", 0.05)
    tracker = put_a_plan(workplace.store)
    while tracker.problem is None:
        tracker.flush(0.02)
    tracker.settle(notify=let_go)
    [said] = told
    assert "waiting for " in said
    assert str(workplace.store.place) in said
    assert said.endswith("another program holds the database")
    assert tracker.close()


def test_what_is_not_delivered_has_a_reason_however_early_it_is_given_up(workplace, held, monkeypatch):
    monkeypatch.setattr(client, "_SHORT", 1000.0)  # until the database is let go
    tracker = put_a_plan(workplace.store)
    assert tracker.undelivered == "1 record is still being written"
    tracker.settle(timeout=0)
    assert not tracker.close(timeout=0)
    assert tracker.undelivered == "1 record is still being written"
    held[1].execute("ROLLBACK")
    recover(workplace.store)
    assert not list((workplace.store.root / "spool").iterdir())


linux = pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="the system does not say when processes began"
)


@linux
def test_a_lease_that_has_run_out_ends_no_run_of_a_process_that_lives():
    """The clock was set forward, or the machine has slept: the owner has had no time to renew it."""
    mine = store_module.owner()
    host, boot, pid, started, *rest = mine.split("/")
    assert not store_module.is_abandoned({"ablate.owner": mine, "ablate.lease": "0"})
    gone = "/".join([host, boot, pid, str(int(started) + 1), *rest])
    elsewhere = "/".join([f"not-{host}", boot, pid, started, *rest])
    for other in (gone, elsewhere):
        assert store_module.is_abandoned({"ablate.owner": other, "ablate.lease": "0"})


@linux
def test_a_process_that_has_ended_is_dead_also_while_nobody_has_waited_for_it():
    """In containers whose first process waits for none it stays in the list, and its lease would never run out."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        host, boot, _, _, *rest = store_module.owner().split("/")
        started = store_module._started(process.pid)
        owner = "/".join([host, boot, str(process.pid), started, *rest])
        tags = {"ablate.owner": owner, "ablate.lease": "0"}
        assert not store_module.is_abandoned(tags)
        process.kill()
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert store_module.is_dead(owner)
        assert store_module.is_abandoned(tags)
