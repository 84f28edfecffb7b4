"""Addresses of databases and folders: every path comes back from its address, and SQLAlchemy and MLflow read it as the same path."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import addresses

ODD_NAMES = [
    "exp#2",
    "a%20b",
    "what?",
    "b\udcffd",
    "new\nline",
    "a;b:c",
    'it\'s "q"',
    " x ",
    "-n",
    "ünï",
    "a?b=1",
    "100%",
    "@h",
    "[x]",
]
"""Names of folders that an address cannot hold as they are, or that look like a part of one."""

names = st.one_of(
    st.sampled_from(ODD_NAMES),
    st.binary(min_size=1, max_size=20).map(os.fsdecode).filter(lambda name: not set(name) & set("/\0")),
).filter(lambda name: name not in (".", ".."))


@given(st.lists(names, min_size=1, max_size=4))
def test_a_path_comes_back_from_its_address(parts):
    path = Path("/", *parts)
    assert addresses.folder_path(addresses.folder_address(path)) == path
    assert addresses.database_path(addresses.database_address(path / "mlflow.db")) == path / "mlflow.db"
    assert addresses.database_path(f"{addresses.database_address(path / 'x.db')}?timeout=30") == path / "x.db"
    assert addresses.folder_address(path).isascii()


PARTS = [
    "file:",
    "http:",
    "//",
    "/",
    "[",
    "::1",
    "]",
    ":",
    "99999",
    "@",
    "%00",
    "\0",
    "%",
    "h",
    "?",
    "#",
    "\udcff",
    "",
]


@given(st.lists(st.sampled_from(PARTS), max_size=8).map("".join))
def test_no_address_is_too_odd_to_be_read(address):
    path = addresses.folder_path(address)
    assert path is None or not path.is_dir() or path.exists()
    addresses.is_address(address)


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("by_child", [False, True])
def test_what_is_opened_is_the_database_and_nothing_beside_it_is_made(tmp_path, monkeypatch, name, by_child):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry

    folder = tmp_path / name / "mlruns"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    address = addresses.address_to_open(addresses.database_address(folder / "mlflow.db"), by_child=by_child)
    engine = create_sqlalchemy_engine_with_retry(address)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE made (x)"))
    engine.dispose()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("made",)]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert [entry.name for entry in (tmp_path / name).iterdir()] == ["mlruns"]


@pytest.mark.parametrize(
    "address",
    ["http://h/x", "postgresql://u@h/d", "databricks", "s3://bucket/x", "mlflow-artifacts:/1/x", "dbfs:/x"],
)
def test_other_addresses_are_no_paths_and_stay_as_they_are(address):
    assert addresses.database_path(address) is None
    assert addresses.resolved(address) == addresses.address_to_open(address) == address
    assert address == "databricks" or addresses.folder_path(address) is None
