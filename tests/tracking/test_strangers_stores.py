"""A store that came with somebody else's folder: its links lead nowhere, its database and its records run nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ablate import cli
from ablate.config import RunConfig
from ablate.errors import AblateError, StoreError
from ablate.reporting import page_for
from ablate.tracking import busy, client
from ablate.tracking.operations import FinishAttempt, Opening, RunFacts, SaveModel, StartAttempt, to_json
from ablate.tracking.recover import recover
from ablate.tracking.rejected import Rejected, Rejection
from ablate.tracking.store import FOLDERS, Store, current_store
from ablate.tracking.write import NotPermittedError

KEY = "k" * 16


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of the user's, with files that are named as those of a store may be."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("data.jsonl", ".a.tmp", "left.delivered", "s.lock", "runs.lock", f"{KEY}-1.pt", "file"):
        (folder / name).write_text("mine")
    return folder


@pytest.mark.parametrize(
    "name", [*FOLDERS, "mlflow.db", "mlflow.db-journal", "mlflow.db-wal", "mlflow.db-shm"]
)
def test_a_link_in_a_store_is_named_and_not_followed(tmp_path, monkeypatch, elsewhere, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = Path("mlruns", name)
    path.parent.mkdir(parents=True)
    before = names_of(elsewhere)
    path.symlink_to(elsewhere if name in FOLDERS else elsewhere / "file")
    with pytest.raises(StoreError, match="is a link") as raised:
        current_store()
    assert raised.value.place == str(path.absolute())
    assert names_of(elsewhere) == before


def test_a_store_on_another_disk_is_linked_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "disk").mkdir()
    Path("mlruns").symlink_to("disk")
    assert current_store().root == tmp_path / "disk"


@pytest.mark.parametrize("folder", ["checkpoints", "models"])
def test_what_waits_under_the_name_of_a_file_to_be_written_is_removed(
    tmp_path, monkeypatch, elsewhere, folder
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    place = Path("mlruns", folder)
    place.mkdir(parents=True)
    (place / f"{KEY}.tmp").symlink_to(elsewhere / "file")
    (place / "second.tmp").hardlink_to(elsewhere / "s.lock")
    os.mkfifo(place / "together-1.checkpoint")
    (place / "own.checkpoint").write_text("own")
    current_store()
    assert names_of(place) == ["own.checkpoint"]
    assert (elsewhere / "file").read_text() == (elsewhere / "s.lock").read_text() == "mine"


def test_what_is_set_aside_is_written_past_a_link(tmp_path, elsewhere):
    spool = tmp_path / "spool" / "x.jsonl"
    (tmp_path / "spool" / "rejected").mkdir(parents=True)
    (tmp_path / "spool" / "rejected" / "x.jsonl").symlink_to(elsewhere / "file")
    with pytest.raises(StoreError, match="cannot set aside"):
        Rejected.of(spool).add(Rejection("s", "", "a line", "why"), "text")
    assert (elsewhere / "file").read_text() == "mine"


PROGRAMS = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM experiments; END",
    "a view without an end": "DROP TABLE tags; CREATE VIEW tags AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
    "SELECT x AS key, x AS value, x AS run_uuid FROM c",
    "a virtual table": "DROP TABLE tags; CREATE VIRTUAL TABLE tags USING fts5(key, value, run_uuid)",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_sql_that_somebody_wrote_into_a_database_is_not_run(tmp_path, program):
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as db:
        db.executescript(
            "CREATE TABLE runs (a); CREATE TABLE tags (key, value, run_uuid); CREATE TABLE experiments (a)"
        )
        busy.refuse_programs(db, tmp_path)
        db.executescript(program)
        with pytest.raises(busy.ProgramsError, match="a trigger, a view or a virtual table"):
            busy.refuse_programs(db, tmp_path)


def test_the_database_that_mlflow_makes_holds_no_such_program(workplace):
    client.create(workplace.store)
    with closing(sqlite3.connect(workplace.store.database)) as db:
        busy.refuse_programs(db, workplace.store.database)


NAMES = ["../x", "a/b", ".", "..", "/abs", "a\0b", "a\x1b", "", "n" * 300, "\ud800", "~/x", "-x", "CON:"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_the_name_of_an_experiment_stays_within_folders(tmp_path, name):
    store = Store("sqlite:///x", tmp_path)
    for path, folder in (
        (store.cache(name, "curves-1"), tmp_path / "cache"),
        (page_for(tmp_path / "reports", name), tmp_path / "reports"),
    ):
        assert path.parent == folder
        assert path.name.isascii()
        assert path.name.isprintable()
        assert len(path.name) < 200
    assert store.cache("../x", "k") != store.cache("..-x", "k")
    assert store.cache("plain", "curves-1").name == "plain.curves-1.npz"


def spool_with_a_model(workplace, module: str) -> Path:
    """Leave what a killed process leaves of a run whose network a module in the working folder builds."""
    Path(f"{module}.py").write_text(
        "import pathlib, torch\npathlib.Path('imported').touch()\n"
        "def build(classes, channels):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
    )
    config = RunConfig.parse(
        {"data": {"name": "digits"}, "model": {"name": "import", "target": f"{module}:build"}}
    )
    opening = Opening(RunFacts(KEY, "r" * 16, "baseline", 0, "report"), "p", config.tree())
    at = time.time()
    lines = [
        {"owner": f"{os.uname().nodename}/gone/1/1"},
        to_json(StartAttempt("s", at, KEY, 1, opening, {})),
        to_json(FinishAttempt("s", at, KEY, 1, None, "finished", 1, {"val/loss": 0.5}, {}, {})),
        to_json(SaveModel("s", at, KEY, 1, None, "/etc/passwd")),
    ]
    spool = workplace.store.folder("spool") / "1.jsonl"
    spool.write_text("".join(json.dumps(line) + "\n" for line in lines))
    layer = torch.nn.Linear(64, 10)
    about = {
        "shape": [1, 8, 8],
        "classes": list("0123456789"),
        "epoch": 1,
        "val/loss": 0.5,
        "val/accuracy": 0.5,
        "tested": 1,
    }
    torch.save(
        {
            "weights": {"1.weight": layer.weight.detach(), "1.bias": layer.bias.detach()},
            "mean": torch.zeros(1, dtype=torch.float64),
            "std": torch.ones(1, dtype=torch.float64),
            "about": json.dumps(about),
        },
        workplace.store.folder("models") / f"{KEY}-1.pt",
    )
    return spool


def test_a_record_imports_nothing_that_its_command_was_not_allowed(workplace, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    spool = spool_with_a_model(workplace, "nets_of_a_stranger")
    Path("pyproject.toml").write_text(
        '[tool.ablate]\nimports = ["nets_of_a_stranger"]\n'
    )  # it came with the record
    for _ in range(2):
        said = workplace.ablate("status")
        assert "would import 'nets_of_a_stranger'" in said
        assert spool.exists()
        assert names_of(workplace.store.root / "models") == [f"{KEY}-1.pt"]
    assert not Path("imported").exists()
    assert "nets_of_a_stranger" not in sys.modules

    asked = []
    recover(workplace.store, permit=lambda config: asked.append(config.model.target_to_import))
    assert asked == ["nets_of_a_stranger:build"]
    assert not spool.exists()
    assert names_of(workplace.store.root / "models") == []
    [run] = workplace.runs("s")
    assert {item.path for item in workplace.client.list_artifacts(run.info.run_id, "model")}


def test_the_weights_of_a_record_are_no_pipe_and_no_link(workplace, elsewhere):
    for plant in (os.mkfifo, lambda path: path.symlink_to(elsewhere / "file")):
        spool_with_a_model(workplace, "nets_of_a_stranger")
        weights = workplace.store.root / "models" / f"{KEY}-1.pt"
        weights.unlink()
        plant(weights)
        recover(workplace.store, permit=lambda _: pytest.fail("it was read"))
        assert not os.path.lexists(weights)
        assert (elsewhere / "file").read_text() == "mine"


def test_without_a_permit_no_code_of_anybody_may_be_imported(workplace):
    spool = spool_with_a_model(workplace, "nets_of_a_stranger")
    said = []
    recover(workplace.store, said.append)
    assert "'nets_of_a_stranger'" in said[0]
    assert spool.exists()
    assert not issubclass(NotPermittedError, StoreError)


def test_a_name_with_a_break_in_it_makes_no_line_of_its_own(workplace):
    """Names of experiments, in a database of a stranger's; an arm's in the results that are judged."""
    workplace.trained()
    name = "x\nFAKE: 9 finished of at most 9 runs; complete"
    with closing(sqlite3.connect(workplace.store.database)) as db, db:
        db.execute("UPDATE experiments SET name = ? WHERE name = 'toy'", [name])
    (workplace.root / "r.csv").write_text(
        "arm,seed,val_acc\n"
        + "".join(
            f"{arm},{seed},0.{seed}{n}\n" for n, arm in enumerate(("a", f'"{name}"')) for seed in range(3)
        )
    )
    judge = (
        "judge",
        "r.csv",
        "--arm",
        "arm",
        "--seed",
        "seed",
        "--metric",
        "val_acc",
        "--baseline",
        "a",
        "--margin",
        "0.01",
    )
    for command in (["status"], ["list"], ["report"], ["report", "--format", "csv"], ["status", name], ["judge", "r.csv"], [*judge],
                    [*judge, "--format", "csv"], [*judge, "--format", "md"], [*judge, "--name", name]):  # fmt: skip
        done = CliRunner().invoke(cli.app, command)
        said = (
            done.output if not isinstance(done.exception, AblateError) else done.output + str(done.exception)
        )
        assert not any(line.startswith("FAKE") for line in said.splitlines()), (command, said)
        assert isinstance(done.exception, AblateError | SystemExit | None), command
