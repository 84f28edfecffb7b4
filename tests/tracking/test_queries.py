"""One contract for both ways to read a store: SQL on a local database, and MLflow's client on a real server."""

from __future__ import annotations

import itertools
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow_server import Server

from ablate.errors import StoreError
from ablate.text import without_password
from ablate.tracking import queries as module
from ablate.tracking import runs
from ablate.tracking.queries import LocalQueries, Queries, ServerQueries, StoredRun, artifact, queries
from ablate.tracking.runs import NewResults, run_curves
from ablate.tracking.store import Store

AWKWARD = [
    "it's",
    'a "quoted" name',
    "both ' and \"",
    "back`tick",
    "100%",
    "a_b",
    "aXb",
    "back\\slash",
    "ends in \\",
    "' and \\",
    "model.width=128,optimizer.name=sgd",
    "größe = λ",
    "two  spaces",
    "a; -- b",
    "x" * 400,
    "' OR '1' = '1",
]
"""Texts that a search grammar may take for something else; `a_b` and `aXb` differ where `_` is no wildcard."""

numbers = itertools.count()


@dataclass(frozen=True)
class Backend:
    """A store with MLflow's client to fill it."""

    store: Store
    client: MlflowClient

    @property
    def queries(self) -> Queries:
        return queries(self.store)

    def experiment(self, name: str | None = None) -> tuple[str, str]:
        """Make an experiment. Returns its id and its name, which no other test uses."""
        name = name or f"study {next(numbers)}"
        # A local store's own default is a folder of the working folder, whatever that is.
        place = None if self.store.database is None else (self.store.root / "artifacts").resolve().as_uri()
        return self.client.create_experiment(name, artifact_location=place), name

    def run(self, experiment: str, start: int = 1_000, **tags: Any) -> str:
        """Make a run with tags of ablate. start: milliseconds since the epoch."""
        named = {f"ablate.{name}": str(value) for name, value in tags.items()}
        return self.client.create_run(experiment, start_time=start, tags=named).info.run_id


@pytest.fixture(scope="session")
def server(tmp_path_factory, template_store) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"), template_store)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def backends(tmp_path_factory, template_store) -> dict[str, Backend]:
    return {}


@pytest.fixture(params=["local", "server"])
def backend(request, backends, tmp_path_factory, template_store) -> Backend:
    if request.param not in backends:
        root = tmp_path_factory.mktemp("store") / "mlruns"
        root.mkdir()
        if request.param == "local":
            shutil.copy(template_store, root / "mlflow.db")
            uri = f"sqlite:///{root / 'mlflow.db'}"
        else:
            uri = request.getfixturevalue("server").uri
        backends[request.param] = Backend(Store(uri, root), MlflowClient(uri))
    kinds = {"local": LocalQueries, "server": ServerQueries}
    assert type(backends[request.param].queries) is kinds[request.param]
    return backends[request.param]


@pytest.fixture(params=[2, 1000])
def page(request, monkeypatch) -> int:
    """Rows in a page: everything has to come out the same whether one page holds it or not."""
    monkeypatch.setattr(module, "PAGE", request.param)
    return request.param


def test_an_experiment_is_known_by_its_name_whether_deleted_or_not(backend):
    for text in AWKWARD:
        identity, name = backend.experiment(f"{next(numbers)} {text}")
        found = backend.queries.experiment(name)
        assert (found.id, found.name, found.deleted) == (identity, name, False)
    backend.client.delete_experiment(identity)
    assert backend.queries.experiment(name).deleted
    assert backend.queries.experiment("there is none of that name") is None


def test_studies_are_listed_latest_first_and_only_those_with_a_plan(backend, page):
    planned = [backend.experiment() for _ in range(5)]
    for start, (identity, _) in zip([50, 20, 90, 70, 60], planned, strict=True):
        backend.run(identity, start, kind="report", plan="p")
    # A study that was started again counts by its latest plan.
    backend.run(planned[1][0], 95, kind="report", plan="q")
    others = [backend.experiment() for _ in range(3)]
    backend.client.create_run(others[0][0])  # another user of the same server
    backend.run(others[1][0], 10_000, kind="replicate")
    backend.run(others[2][0], 10_000, kind="report", plan="p")
    backend.client.delete_experiment(others[2][0])
    deleted = backend.run(planned[0][0], 99, kind="report", plan="q")
    backend.client.delete_run(deleted)
    own = {name for _, name in (*planned, *others)}
    names = [planned[i][1] for i in (1, 2, 3, 4, 0)]
    assert [name for name in backend.queries.study_names() if name in own] == names


def test_runs_of_all_pages_come_in_the_order_of_their_start(backend, page):
    (first, one), (second, other) = backend.experiment(), backend.experiment()
    starts = [70, 10, 40, 20, 60]
    made = {backend.run(first, start, kind="replicate", mark=one): start for start in starts}
    made |= {backend.run(second, start + 5, kind="replicate", mark=one): start + 5 for start in starts}
    found = backend.queries.runs({"ablate.mark": one})
    assert [run.run_id for run in found] == sorted(made, key=lambda run: made[run])
    assert {run.experiment for run in found} == {one, other}
    assert [run.start for run in backend.queries.runs({}, other)] == [
        s / 1000 for s in sorted(s + 5 for s in starts)
    ]


def test_runs_that_start_at_the_same_time_come_in_the_order_of_their_ids(backend):
    identity, name = backend.experiment()
    made = [backend.run(identity, 5, kind="arm") for _ in range(5)]
    assert [run.run_id for run in backend.queries.runs({}, name)] == sorted(made)


def test_a_run_is_one_row_of_the_same_shape(backend):
    identity, name = backend.experiment()
    tags = {"ablate.kind": "replicate", "ablate.attempt": "2", "ablate.epoch": "7", "ablate.arm": "it's"}
    unread = {
        "ablate.config": "{}",
        "mlflow.note.content": "a note",
        "someone.else": "1",
        "ablatee": "no",
        "Ablate.x": "no",
    }
    made = backend.client.create_run(identity, start_time=1_500, tags=tags | unread)
    run = StoredRun(made.info.run_id, name, "RUNNING", 1.5, None, made.info.artifact_uri, tags)
    assert backend.queries.runs({}, name) == [run]
    assert (run.attempt, run.epoch, run.has_result) == (2, 7, False)
    backend.client.set_tag(run.run_id, "ablate.outcome", "diverged")
    backend.client.set_terminated(run.run_id, "FINISHED", end_time=2_250)
    [ended] = backend.queries.runs({}, name)
    assert (ended.status, ended.end, ended.has_result) == ("FINISHED", 2.25, True)
    needed = ("ablate.arm", "ablate.epoch", "ablate.absent", "ablate.config")
    [short] = backend.queries.runs({}, name, only_tags=needed)
    assert short.tags == {"ablate.arm": "it's", "ablate.epoch": "7"}


def test_a_tag_selects_exactly_the_runs_that_have_it(backend):
    identity, name = backend.experiment()
    runs = {text: backend.run(identity, kind="arm", arm=text) for text in AWKWARD}
    backend.client.create_run(identity)
    for text, run in runs.items():
        assert [found.run_id for found in backend.queries.runs({"ablate.arm": text}, name)] == [run]
        tags = {"ablate.kind": "arm", "ablate.arm": text, "ablate.seed": "1"}
        assert backend.queries.runs(tags, name) == []


def test_deleted_runs_and_runs_of_deleted_experiments_are_left_out(backend):
    (first, one), (second, other) = backend.experiment(), backend.experiment()
    kept, deleted, buried = (backend.run(place, kind="arm", mark=one) for place in (first, first, second))
    backend.client.delete_run(deleted)
    backend.client.delete_experiment(second)
    assert [run.run_id for run in backend.queries.runs({"ablate.mark": one})] == [kept]
    assert backend.queries.runs({}, other) == []
    backend.client.restore_experiment(second)
    backend.client.restore_run(deleted)
    assert {run.run_id for run in backend.queries.runs({"ablate.mark": one})} == {kept, deleted, buried}


def test_runs_are_selected_by_experiment_and_status(backend):
    identity, name = backend.experiment()
    states = ["RUNNING", "FINISHED", "FAILED", "KILLED"]
    made = {state: backend.run(identity, kind="arm", arm=name) for state in states}
    for state, run in made.items():
        if state != "RUNNING":
            backend.client.set_terminated(run, state)
    for state, run in made.items():
        assert [r.run_id for r in backend.queries.runs({"ablate.arm": name}, status=state)] == [run]
        assert [r.run_id for r in backend.queries.runs({}, name, state)] == [run]
    assert backend.queries.runs({}, "there is none of that name") == []


def test_runs_of_other_users_of_the_store_have_no_tags_of_ours(backend):
    identity, name = backend.experiment()
    theirs = backend.client.create_run(identity, tags={"user.tag": "x"}).info.run_id
    assert [(run.run_id, run.tags) for run in backend.queries.runs({}, name, "RUNNING")] == [(theirs, {})]
    assert backend.queries.runs({"ablate.kind": "replicate"}, name) == []


def as_stored(value: float) -> Any:
    """What MLflow's databases keep of a value: they have no infinity. NaN as something that equals itself."""
    if math.isnan(value):
        return "NaN"
    return math.copysign(sys.float_info.max, value) if math.isinf(value) else value


def test_every_point_of_every_metric_is_read(backend):
    identity, _ = backend.experiment()
    runs = [backend.run(identity) for _ in range(3)]
    logged = []
    values = [0.25, math.nan, math.inf, -math.inf, -0.0, 1e-300, 3.0]
    for place, metric in itertools.product((0, 2), ("val/loss", "a b", "größe")):
        logged += [
            (place, metric, step, 1_000 + step, value) for step, value in enumerate(values, start=place)
        ]
    logged += [(0, "val/loss", 1, 5_000, 9.0)]  # the same step logged again
    for place in (0, 2):
        metrics = [Metric(m, value, at, step) for i, m, step, at, value in logged if i == place]
        backend.client.log_batch(runs[place], metrics=metrics)

    def sortable(points: Any) -> list[Any]:
        return sorted(((*rest, as_stored(value)) for *rest, value in points), key=repr)

    assert sortable(backend.queries.points(runs)) == sortable(logged)
    assert sortable(backend.queries.points(runs[1:2])) == []
    assert sortable(backend.queries.points([])) == []
    curves = run_curves(backend.store, runs)
    steps = [step for step, _ in curves[runs[0]]["val/loss"]]
    assert steps == [0, 1, 1, 2, 3, 4, 5, 6]
    assert curves[runs[0]]["val/loss"][2] == (1, 9.0), "of one step the value that was logged last comes last"
    assert curves[runs[1]] == {}


def test_an_artifact_is_read_by_its_name(backend, tmp_path):
    identity, name = backend.experiment()
    run = backend.run(identity)
    content = bytes(range(256))
    (tmp_path / "some file.bin").write_bytes(content)
    backend.client.log_artifact(run, str(tmp_path / "some file.bin"))
    [stored] = backend.queries.runs({}, name)
    assert artifact(backend.store, stored, "some file.bin") == content
    assert artifact(backend.store, stored, "another") is None


def test_results_that_come_are_new_and_those_from_before_are_not(backend):
    identity, name = backend.experiment()

    def finish(key: str) -> None:
        run = backend.run(identity, kind="replicate", key=f"{name} {key}")
        backend.client.set_tag(run, "ablate.outcome", "finished")
        backend.client.set_terminated(run, "FINISHED")

    finish("before")
    new = NewResults(backend.store)
    assert f"{name} after" not in new
    finish("after")
    assert f"{name} after" in new
    assert f"{name} never" not in new
    position = backend.queries.position()
    finish("last")
    new = backend.queries.keys_since(position)
    assert new is None or new == ({f"{name} last"}, backend.queries.position())


def test_a_server_that_is_away_has_no_new_results_and_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    new = NewResults(Store("http://127.0.0.1:9", tmp_path))
    assert "k" not in new
    monkeypatch.setattr(runs, "queries", None)  # it is not asked again for a while
    assert "k" not in new


def test_reading_a_store_loads_nothing_that_writes_one():
    rooms = "queries, runs, plans, frames, classified, columns, predictions, store, client, views"
    code = f"from ablate.tracking import {rooms}\nimport sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"write", "spool", "recover", "operations", "model"}
    assert {f"ablate.tracking.{name}" for name in heavy} & set(loaded.split()) == set()
    assert {"mlflow", "pydantic", "pandas", "torch"} & set(loaded.split()) == set()


def test_a_store_that_is_not_there_yet_is_empty(tmp_path):
    local = queries(Store(f"sqlite:///{tmp_path}/none.db", tmp_path))
    assert local.experiment("x") is None
    assert local.study_names() == local.runs({}) == local.points(["x"]) == []
    assert local.keys_since(local.position()) == (set(), 0)
    assert not (tmp_path / "none.db").exists(), "reading makes no database"


@pytest.mark.parametrize("folder", ["a b", "100%", "what?", "#1", "größe", "it's"])
def test_a_database_is_found_whatever_its_folder_is_called(tmp_path, template_store, folder):
    place = tmp_path / folder
    place.mkdir()
    shutil.copy(template_store, place / "mlflow.db")
    local = queries(Store(f"sqlite:///{place}/mlflow.db", place))
    assert local.experiment("Default").id == "0"


@pytest.mark.parametrize("user", ["user:secret", "user:", "secret"])
def test_no_message_shows_the_password_of_a_store(tmp_path, monkeypatch, user):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    remote = Store(f"http://{user}@127.0.0.1:9/path", tmp_path)
    with pytest.raises(StoreError, match="does not answer") as caught:
        queries(remote).study_names()
    assert "***@127.0.0.1:9/path" in str(caught.value)
    assert user not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://a:b@host:1/x", "http://***@host:1/x"),
        ("postgresql+psycopg2://a:p@ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("https://token@host", "https://***@host"),
        ("http://host:1/x@y", "http://host:1/x@y"),
        ("sqlite:////a@b/c.db", "sqlite:////a@b/c.db"),
        ("databricks", "databricks"),
    ],
)
def test_the_password_of_an_address_is_masked(uri, shown):
    assert without_password(uri) == shown
    assert without_password(f"cannot reach {uri}: refused") == f"cannot reach {shown}: refused"
