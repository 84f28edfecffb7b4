"""The tracker and what is read of it: operations are delivered once and in order, whichever process dies."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import requests
from free_ports import free_port
from mlflow.exceptions import MlflowException

from ablate.events import EpochEnd, Finished, Started
from ablate.fields import may_be_recorded
from ablate.study.design import Run
from ablate.study.looks import LookPlan
from ablate.tracking import store as stores
from ablate.tracking.frames import plan_frames
from ablate.tracking.plans import stored_plans, study_names
from ablate.tracking.recover import recover
from ablate.tracking.runs import highest_attempts, is_gone, orphans
from ablate.tracking.spool import Tracker, create_spool
from ablate.tracking.store import Store
from ablate.training.function import FunctionConfig

CONFIG = FunctionConfig({"train": "toy:fit"}, {"gain": 0.0})
RUN = Run("k" * 16, "r" * 16, "baseline", 0, "report")


def put_a_run(tracker: Tracker, run: Run = RUN, epochs: int = 3) -> None:
    at = 1_700_000_000.0
    tracker.event(Started(run.key, 1, 0, at, {"device": "cpu: test"}), run, CONFIG, "plan")
    for epoch in range(1, epochs + 1):
        tracker.event(
            EpochEnd(run.key, 1, epoch, at + epoch, epoch, {"val/loss": 1 / epoch}), run, CONFIG, "plan"
        )
    ended = Finished(
        run.key,
        1,
        epochs + 1,
        at + 9,
        "finished",
        epochs,
        {"test/loss": 0.5},
        {"a.txt": b"content"},
        {"trace": "t"},
    )
    tracker.event(ended, run, CONFIG, "plan")


def everything(workplace):
    """Runs with their metrics and tags, but for who wrote them when."""
    return [
        (
            run.info.status,
            run.data.metrics,
            {
                n: v
                for n, v in run.data.tags.items()
                if n not in {"ablate.owner", "ablate.lease", "mlflow.parentRunId"}
            },
            [(p.step, p.value) for p in workplace.client.get_metric_history(run.info.run_id, "val/loss")],
        )
        for run in workplace.runs("study")
    ]


def test_operations_stay_spooled_while_the_server_is_away_and_the_next_command_delivers_them(
    workplace, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    port = free_port()
    tracker = Tracker(Store(f"http://127.0.0.1:{port}", workplace.store.root), "study")
    asked_by: set[int] = set()
    request = requests.Session.request

    def noted(*arguments, **options):
        asked_by.add(threading.get_ident())
        return request(*arguments, **options)

    monkeypatch.setattr(requests.Session, "request", noted)
    put_a_run(tracker)
    while tracker.problem is None:
        tracker.flush(0.02)
    assert not tracker.close(timeout=0.1)
    assert asked_by
    assert threading.get_ident() not in asked_by, "putting never waits for the server"
    assert tracker.problem
    recover(workplace.store)
    [(status, metrics, tags, history)] = everything(workplace)
    assert status == "FINISHED"
    assert metrics["test/loss"] == 0.5
    assert history == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert tags["ablate.trace"] == "t"
    assert not list((workplace.store.root / "spool").iterdir())


def test_a_spool_delivered_twice_is_recorded_once(workplace):
    tracker = Tracker(workplace.store, "study")
    put_a_run(tracker)
    assert tracker.flush(30)
    [spool] = (workplace.store.root / "spool").glob("*.jsonl")
    lines = spool.read_bytes()
    tracker.close()
    before = everything(workplace)
    # As if the process had been killed after delivering everything, and before noting any of it.
    spool.write_bytes(lines)
    recover(workplace.store)
    assert everything(workplace) == before
    assert len(before) == 1


def test_a_line_torn_by_a_kill_is_left_out(workplace):
    tracker = Tracker(workplace.store, "study")
    put_a_run(tracker)
    assert tracker.flush(30)
    [spool] = (workplace.store.root / "spool").glob("*.jsonl")
    lines = spool.read_bytes()
    tracker.close()
    spool.write_bytes(lines + lines[: len(lines) // 2])
    recover(workplace.store)
    assert len(everything(workplace)) == 1
    assert not list((workplace.store.root / "spool").iterdir())


def test_the_spool_of_a_living_process_is_left_alone(workplace):
    script = (
        "import sys, time; from ablate.tracking import spool, store; "
        "t = spool.Tracker(store.Store('http://127.0.0.1:9', store.current_store().root), 'study'); "
        "t.arms({'baseline': {'metrics': {}, 'tags': {}}}, 1); "
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        recover(workplace.store)
        assert list((workplace.store.root / "spool").glob("*.jsonl"))
        other.kill()
        other.wait()
        recover(workplace.store)
        assert not list((workplace.store.root / "spool").glob("*.jsonl"))
    assert len(workplace.runs("study", "arm")) == 1


def orphan(workplace, owner: str, lease: float) -> str:
    client = workplace.client
    experiment = client.get_experiment_by_name("study")
    identity = experiment.experiment_id if experiment else client.create_experiment("study")
    tags = {"ablate.kind": "replicate", "ablate.owner": owner, "ablate.lease": str(lease)}
    return client.create_run(identity, tags=tags).info.run_id


def test_only_runs_whose_owner_is_gone_or_whose_lease_has_expired_are_ended(workplace):
    host, later, long_ago = socket.gethostname(), time.time() + 600, time.time() - 1
    dead = [
        orphan(workplace, f"{host}/{stores.boot_id()}/{2**22 - 1}/1", later),
        orphan(workplace, "another-host/x/1/1", long_ago),
    ]
    alive = [
        orphan(workplace, stores.owner(), later),
        orphan(workplace, "another-host/x/1/1", later),
        orphan(workplace, f"{host}/another-boot/1/1", later),
    ]
    assert sorted(orphans(workplace.store)) == sorted(dead)
    # One of its runs has a lease that counts, so the process on the other host is there.
    names = ("another-host/x/1/1", f"{host}/another-boot/1/1", "nobody/x/1/1")
    assert [is_gone(workplace.store, name) for name in names] == [False, False, False]
    assert recover(workplace.store) == 2
    status = {run.info.run_id: run.info.status for run in workplace.runs("study")}
    assert {status[run] for run in dead} == {"KILLED"}
    assert {status[run] for run in alive} == {"RUNNING"}


def test_a_process_of_another_machine_with_the_same_host_name_is_not_taken_for_dead(monkeypatch):
    monkeypatch.setattr(stores, "_machine", lambda: "machine-a")
    host, boot, _, _, namespace, machine = stores.owner().split("/")
    assert not stores.is_dead(stores.owner())
    assert stores.is_dead(f"{host}/{boot}/{2**22 - 1}/1/{namespace}/{machine}")
    assert stores.is_dead(f"{host}/{boot}/{2**22 - 1}/1")
    # An earlier boot of this machine, or any boot of another.
    assert stores.is_dead(f"{host}/another-boot/1/1/{namespace}/{machine}")
    assert not stores.is_dead(f"{host}/another-boot/1/1/{namespace}/machine-b")
    assert not stores.is_dead(f"{host}/another-boot/1/1/{namespace}/")
    # A container of this machine has process ids of its own, and the machine's host name where it uses the machine's network.
    assert not stores.is_dead(f"{host}/{boot}/{2**22 - 1}/1/{int(namespace) + 1}/")
    monkeypatch.setattr(stores, "_machine", lambda: "")
    assert not stores.is_dead(f"{host}/another-boot/1/1/{namespace}/")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_two_containers_with_one_host_name_do_not_take_each_other_for_dead():
    """Namespaces of processes stand for containers: each has the host name of the machine and process ids of its own."""
    code = "from ablate.tracking.store import owner; print(owner(), flush=True); input()"
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        name = other.stdout.readline().strip()
        if not name:
            pytest.skip("this user may make no namespaces")
        assert name.startswith(f"{socket.gethostname()}/{stores.boot_id()}/")
        assert not stores.is_dead(name)
        other.communicate("\n")


def test_frames_are_the_same_through_sql_and_through_the_client(workplace):
    workplace.ablate(
        "run",
        workplace.study(factors="{raises: [true], gain: [0.2], diverges: [true]}"),
        "--executor",
        "inline",
        code=1,
    )
    local = workplace.store
    # The same database under a name that the SQL reader does not take for its own.
    remote = Store(f"sqlite+pysqlite:///{local.database.resolve()}", local.root)
    assert remote.database is None
    plan = stored_plans(local, "toy")[-1].record
    assert stored_plans(remote, "toy")[-1].record == plan
    for one, other in zip(plan_frames(local, plan), plan_frames(remote, plan), strict=True):
        order = ["arm", "seed"] + [c for c in ("metric", "epoch") if c in one]
        pd.testing.assert_frame_equal(
            one.sort_values(order).reset_index(drop=True), other.sort_values(order).reset_index(drop=True)
        )
    assert study_names(local) == study_names(remote) == ["toy"]
    assert highest_attempts(local, "toy") == highest_attempts(remote, "toy")


def test_the_plan_is_read_as_it_was_recorded_and_an_older_one_by_its_id(workplace):
    study = workplace.trained()
    workplace.ablate("run", study, "--executor", "inline", "--seeds", "2", "--set", "epochs=1")
    older, newer = stored_plans(workplace.store, "toy")
    assert (older.record.looks, newer.record.looks) == (LookPlan(3, (3,), 1), LookPlan(3, (2,), 1))
    assert json.loads(workplace.ablate("report", "toy", "--format", "json"))["runs"]["planned"] == 6
    assert (
        json.loads(workplace.ablate("report", "toy", "--format", "json", "--plan", older.record.id))["runs"][
            "planned"
        ]
        == 9
    )
    assert older.record.text == (workplace.root / "toy.yaml").read_text()
    assert older.environment["version"]


def test_a_deleted_experiment_is_named_before_anything_trains(workplace):
    study = workplace.study()
    workplace.ablate("run", study, "--executor", "inline", "--seeds", "1")
    workplace.client.delete_experiment(workplace.client.get_experiment_by_name("toy").experiment_id)
    assert "deleted" in workplace.ablate("run", study, "--executor", "inline", code=2)


def test_a_file_that_is_no_database_is_reported_in_one_message(workplace):
    (workplace.root / "mlruns" / "mlflow.db").write_bytes(b"not a database at all" * 100)
    output = workplace.ablate("run", workplace.study(), "--executor", "inline", code=2)
    assert "cannot be read as an MLflow database" in output


# Forked once everything is imported, so that both begin at the same moment.
AT_THE_SAME_TIME = """
import os, sys
from pathlib import Path
from mlflow import MlflowClient
from ablate.tracking import client, store

root = Path(sys.argv[1])
there = store.Store(f"sqlite:///{root / 'mlflow.db'}", root)
is_child = os.fork() == 0
client.create(there)
os.write(1, b"%d\\n" % len(MlflowClient(there.uri).search_experiments()))  # both write: a line at once
if not is_child:
    assert os.wait()[1] == 0
"""


def test_processes_that_create_the_database_at_the_same_time_create_one(tmp_path):
    command = [sys.executable, "-c", AT_THE_SAME_TIME, str(tmp_path / "mlruns")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1\n" * 2, 0), done.stderr


def test_a_server_that_does_not_answer_is_reported_in_one_message(workplace, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command in (["run", workplace.study(), "--executor", "inline"], ["report"], ["status"]):
        output = workplace.ablate(*command, code=2)
        assert "http://127.0.0.1:9: the store does not answer" in output
        assert "is the server running?" in output


def test_a_spool_that_recovery_removes_before_it_is_locked_is_created_again(tmp_path):
    path = tmp_path / "new.jsonl"
    created: list = []

    def handles() -> int:
        """Return how often the file is open in this process."""
        return sum(os.path.realpath(handle) == str(path) for handle in Path("/proc/self/fd").iterdir())

    with path.open("ab") as other:  # as a process that recovers what killed ones left
        fcntl.flock(other, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: created.append(create_spool(path)))
        thread.start()
        while handles() < 2:
            time.sleep(0.001)
        path.unlink()
    thread.join()
    with created[0] as file:
        assert os.path.samestat(os.fstat(file.fileno()), path.stat()), (
            "what is written to it can be recovered"
        )


def test_recovery_skips_a_spool_that_its_owner_removes_at_the_same_time(workplace):
    spool = workplace.store.folder("spool")
    (spool / "0-gone.jsonl").symlink_to(spool / "what-was-there")  # listed, and not there any more
    assert recover(workplace.store) == 0


def test_the_spool_of_a_deleted_study_waits_until_it_is_restored_and_other_studies_run(workplace):
    store = workplace.store
    with Tracker(store, "study") as tracker:
        put_a_run(tracker)
    [run] = workplace.runs("study")
    workplace.client.delete_experiment(run.info.experiment_id)
    record = {"op": "supersede", "run_id": run.info.run_id, "by": "x", "experiment": "study", "time": 0.0}
    left = store.folder("spool") / "0-left.jsonl"
    left.write_text(json.dumps(record) + "\n")
    workplace.ablate("run", workplace.study(), "--executor", "inline", "--seeds", "1")
    assert left.exists()
    workplace.client.restore_experiment(run.info.experiment_id)
    recover(store)
    assert not left.exists()
    assert workplace.runs("study")[0].data.tags["ablate.outcome"] == "superseded"


@pytest.mark.parametrize(
    "name",
    ["val/top@5", "a/../b", "/a", "a//b", "", "a" * 251, "val/accuracy", "top 5: a-b_c.d", "größe", "a/"],
)
def test_what_may_be_recorded_is_what_mlflow_records(workplace, name):
    run = workplace.client.create_run("0")
    try:
        workplace.client.log_metric(run.info.run_id, name, 1.0)
        workplace.client.log_param(run.info.run_id, name, 1)
    except MlflowException:
        assert not may_be_recorded(name)
    else:
        assert may_be_recorded(name)
