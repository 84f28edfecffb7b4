"""Projects that lie in odd folders, and that are copied, moved, renamed or linked: a store goes on where it is, and nowhere else."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from ablate import addresses, launch
from ablate.errors import StoreError, StudyError
from ablate.tracking.store import Store, current_store


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path, with a digest of its content; without what Python keeps of modules."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and file.parent.name != "__pycache__"
    }


def recorded(project: Path) -> set[str]:
    """Return the addresses in the database of a project."""
    with contextlib.closing(sqlite3.connect(project / "mlruns" / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT artifact_location FROM experiments WHERE name = 'toy' UNION SELECT artifact_uri FROM runs"
        )
        return {str(address) for (address,) in rows}


@pytest.mark.parametrize("name", ["copy", "what?", "a%20b\udcff"], ids=ascii)
def test_a_copy_never_touches_its_original(workplace, monkeypatch, name):
    workplace.trained(factors="{gain: [0.2]}")
    before = content(workplace.root)
    copy = workplace.root.parent / f"{workplace.root.name}-copied" / name
    shutil.copytree(workplace.root, copy)
    monkeypatch.chdir(copy)
    replace(workplace, root=copy).study()  # with another arm
    assert "complete" in workplace.ablate("status")
    workplace.ablate("run", "toy.yaml", "--executor", "inline")
    assert "gain=0.001" in workplace.ablate("report", "toy", "--format", "csv")
    assert content(workplace.root) == before
    assert all(Path(addresses.folder_path(a)).is_relative_to(copy.resolve()) for a in recorded(copy))


@pytest.mark.parametrize("how", ["moved", "linked", "moved mlruns"])
def test_a_project_that_was_moved_goes_on(workplace, monkeypatch, how):
    workplace.trained(factors="{gain: [0.2]}")
    place = workplace.root.parent / f"{workplace.root.name}-{how.replace(' ', '-')}"
    monkeypatch.chdir("/")
    if how == "linked":
        place.symlink_to(workplace.root)
    elif how == "moved":
        workplace.root.rename(place)
    else:
        place.mkdir()
        (workplace.root / "mlruns").rename(place / "store")
        (workplace.root / "mlruns").symlink_to(place / "store")
        place = workplace.root
    monkeypatch.chdir(place)
    assert "6 finished of at most 6 runs; complete" in workplace.ablate("status")
    assert "gain=0.2" in workplace.ablate("report", "toy", "--format", "csv")
    replace(workplace, root=place).study()  # with another arm
    workplace.ablate("run", "toy.yaml", "--executor", "inline")
    assert not workplace.root.exists() or how != "moved"
    if how != "linked":
        there = (place / "mlruns").resolve()
        assert all(Path(addresses.folder_path(a)).is_relative_to(there) for a in recorded(place))


def test_artifacts_of_another_projects_store_stay_where_they_are(tmp_path, monkeypatch):
    """One database for several projects: each project's artifacts lie in its own folder."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    tail = Path("artifacts", "own", "0" * 32, "artifacts")
    for project in (mine, other):
        (project / "mlruns" / tail).mkdir(parents=True)
    monkeypatch.chdir(mine)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    store = current_store()
    address = addresses.folder_address(other / "mlruns" / tail)
    assert store.artifacts(address) == other / "mlruns" / tail
    shutil.rmtree(other)
    assert store.artifacts(address) == mine / "mlruns" / tail
    for foreign in ("s3://bucket/own", "mlflow-artifacts:/1"):
        assert store.artifacts(foreign) is None
    assert Store("http://127.0.0.1:9", mine / "mlruns").artifacts("file:///a/b%3F") == Path("/a/b?")


ADDRESSES = {
    "sqlite:///rel.db": "",
    "sqlite:///new/folder/x.db?timeout=30": "",
    "  ": "",
    "sqlite://": "in memory",
    "sqlite:///:memory:": "in memory",
    "sqlite:///file:x?mode=memory&cache=shared&uri=true": "in memory",
    "./mlruns": "plain folders",
    "mlruns": "plain folders",
    "/abs/mlruns": "plain folders",
    "file:./mlruns": "plain folders",
    "file:///abs/mlruns": "plain folders",
    "C:\\data\\mlruns": "plain folders",
    "127.0.0.1:5000": "did you mean http://127.0.0.1:5000",
    "localhost:5000": "did you mean http://localhost:5000",
    "http://": "is no address",
    "https://:80": "is no address",
    "http://[::1": "is no address",
    "http://127.0.0.1:99999": "is no address",
    "sqlite:///a%00b.db": "is no address",
}


@pytest.mark.parametrize("address", ADDRESSES, ids=ascii)
def test_an_address_that_cannot_hold_runs_is_refused_in_one_line(workplace, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    before = {entry.name for entry in Path().iterdir()}
    for command in (["status"], ["report"], ["list"], ["run", workplace.study(), "--executor", "inline"]):
        if ADDRESSES[address]:
            assert ADDRESSES[address] in workplace.ablate(*command, code=2)
        elif command[0] != "run":
            workplace.ablate(*command, code=2 if command[0] == "report" else 0)
    assert {entry.name for entry in Path().iterdir()} - before <= {"toy.yaml"}


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:secret@127.0.0.1:9/x",
        "mysql://u:secret@h/x",
        "oracle://u:secret@h/x",
        "nosuch://u:secret@h/x",
    ],
)
def test_a_database_without_its_driver_is_said_before_anything_trains(workplace, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    for command in (["status"], ["run", workplace.study(), "--executor", "inline"]):
        printed = workplace.ablate(*command, code=2)
        assert "secret" not in printed
        assert "error: " in printed


def test_a_deleted_study_is_said_so_and_the_hint_restores_it(workplace):
    from mlflow import MlflowClient

    study = workplace.trained(factors="{gain: [0.2]}")
    client = MlflowClient(workplace.store.uri)
    client.delete_experiment(client.get_experiment_by_name("toy").experiment_id)
    printed = {
        workplace.ablate(*command, code=2)
        for command in (
            ["run", study, "--executor", "inline"],
            ["run", study, "--dry-run"],
            ["status", "toy"],
            ["status", study],
            ["report", "toy"],
            ["report", study],
            ["top-up", "toy", "--seeds", "1"],
            ["init", "--from", "toy"],
        )
    }
    (hint,) = {line.strip() for text in printed for line in text.splitlines() if "restore" in line}
    found = re.fullmatch(
        "restore it with `MLFLOW_TRACKING_URI=(.*) mlflow experiments restore -x (.*)`, or rename the study",
        hint,
    )
    MlflowClient(found[1]).restore_experiment(found[2])
    assert "complete" in workplace.ablate("status", "toy")


@pytest.mark.parametrize("name", ["TOY", "index"])
def test_a_study_whose_experiment_was_renamed_goes_on_under_its_new_name(workplace, name):
    study = workplace.trained(factors="{gain: [0.2]}")
    workplace.client.rename_experiment(workplace.runs()[0].info.experiment_id, name)
    assert f"{name}: 6 finished of at most 6 runs; complete" in workplace.ablate("status")
    assert "gain=0.2" in workplace.ablate("report", name, "--format", "csv")
    assert f"{name}: no arm is undecided" in workplace.ablate("top-up", name, "--seeds", "1", code=2)
    workplace.ablate("run", study, "--executor", "inline", "-q")
    assert "toy: 6 finished" in workplace.ablate("status")


@pytest.mark.parametrize("name", ["toy (old)", "../x", "a\nb", "x" * 200], ids=ascii)
def test_an_experiment_that_no_study_can_be_called_after_is_named_with_what_to_do(workplace, name):
    workplace.trained(factors="{gain: [0.2]}")
    before, beside = content(workplace.root), set(workplace.root.parent.iterdir())
    workplace.client.rename_experiment(workplace.runs()[0].info.experiment_id, name)
    for command, code in ((["status"], 1), (["report"], 2), (["status", name], 2), (["report", name], 2)):
        printed = workplace.ablate(*command, code=code)
        assert "the experiment of study toy was renamed in MLflow" in printed
        assert "mlflow experiments rename --experiment-id 1 --new-name NAME" in printed
    assert content(workplace.root).keys() == before.keys()
    assert set(workplace.root.parent.iterdir()) == beside


def test_a_folder_that_is_a_loop_of_links_or_that_is_gone_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mlruns").symlink_to("mlruns")
    with pytest.raises(StoreError, match="leads nowhere"):
        current_store()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StudyError, match="working folder"):
        launch.prepare_process()
    with pytest.raises(StoreError, match="working folder"):
        current_store()
