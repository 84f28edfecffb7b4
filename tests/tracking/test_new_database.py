"""A new database is a copy of one that MLflow has made; it is what MLflow would have made, and only where that is known."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from ablate.errors import StoreError
from ablate.tracking import client, new_database
from ablate.tracking.local_client import has_known_layout
from ablate.tracking.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder in which MLflow has made a database, and the cache that has kept it."""
    folder, cache = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("ABLATE_CACHE", str(cache))
        assert not new_database.copied(folder / "none.db")
        client.create(store(folder))
    return folder, cache


@pytest.fixture
def cache(made, tmp_path, monkeypatch):
    """A cache of this test's own, with the database that MLflow has made."""
    (kept,) = made[1].rglob("*.db")
    folder = tmp_path / "cache" / "databases"
    folder.mkdir(parents=True)
    (folder / kept.name).write_bytes(kept.read_bytes())
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return folder


def store(folder):
    return Store(f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}", folder / "mlruns")


def content(database):
    """What a database holds: the statements that made its tables, and their rows."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        schema = db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
        tables = [name for kind, name, _, _ in schema if kind == "table"]
        rows = {table: db.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables}
    ((number, name, place, stage, *times, workspace),) = rows.pop("experiments")
    assert len(set(times)) == 1
    return schema, rows, (number, name, stage, workspace), place, times[0]


def test_a_copy_is_what_mlflow_makes(made, cache, tmp_path, monkeypatch):
    first = content(store(made[0]).database)
    folder = tmp_path / "a folder, 100 % of it #1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(client, "connect", lambda _: pytest.fail("MLflow was asked"))
    client.create(store(folder))
    copy = content(store(folder).database)
    assert copy[:3] == first[:3]
    assert (first[3], copy[3]) == (f"{made[0]}/mlruns/0", f"{folder}/mlruns/0")
    assert copy[4] > first[4]
    assert has_known_layout(store(folder).database)
    assert [path.name for path in (folder / "mlruns").iterdir() if path.is_file()] == ["mlflow.db"]


def test_a_path_that_is_too_long_for_sqlite_is_said_at_once(cache, tmp_path, monkeypatch):
    folder = tmp_path.joinpath(*["x" * 250] * 14)
    folder.mkdir(parents=True)
    monkeypatch.setattr(
        client, "connect", lambda _: pytest.fail("MLflow was asked, which would try for minutes")
    )
    with pytest.raises(StoreError, match="cannot be made") as raised:
        client.create(store(folder))
    assert "short enough for sqlite" in (raised.value.hint or "")
    assert [path.name for path in (folder / "mlruns").iterdir() if path.is_file()] == []


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(file):
    file.write_bytes(b"")


def replace_by_a_folder(file):
    file.unlink()
    file.mkdir()


def replace_by_a_link(file):
    file.rename(file.parent / "elsewhere")
    file.symlink_to(file.parent / "elsewhere")


DAMAGES = [cut, flip_a_bit, empty, replace_by_a_folder, replace_by_a_link]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_not_whole_is_not_used(cache, tmp_path, damage):
    (kept,) = cache.iterdir()
    damage(kept)
    assert not new_database.copied(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


def test_what_another_mlflow_has_made_is_not_used(cache, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "sqlite_version", "3.0.0")
        assert not new_database.copied(tmp_path / "new.db")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        assert not new_database.copied(tmp_path / "new.db")
    with monkeypatch.context() as patch:
        patch.setattr(new_database.importlib.util, "find_spec", lambda _: None)
        assert not new_database.copied(tmp_path / "new.db")
    assert new_database.copied(tmp_path / "new.db")


def test_a_damaged_one_gives_way_to_the_next_that_mlflow_makes(made, cache, tmp_path):
    (kept,) = cache.iterdir()
    cut(kept)
    assert not new_database.copied(tmp_path / "new.db")
    new_database.keep(store(made[0]).database)
    assert len(list(cache.iterdir())) == 1
    assert new_database.copied(tmp_path / "new.db")


def test_a_database_that_is_in_use_is_not_kept(made, cache, tmp_path):
    for kept in cache.iterdir():
        kept.unlink()
    database = tmp_path / "used.db"
    database.write_bytes(store(made[0]).database.read_bytes())
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("INSERT INTO experiments (name) VALUES ('mine')")
    new_database.keep(database)
    assert list(cache.iterdir()) == []


def test_where_nothing_can_be_kept_mlflow_makes_the_next_one_too(made, tmp_path, monkeypatch):
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "no-folder"))
    new_database.keep(store(made[0]).database)
    assert not new_database.copied(tmp_path / "new.db")
