"""The store's folder: locks of studies and of the store itself, whatever the studies are called."""

from __future__ import annotations

import contextlib

import pytest

from ablate.errors import StoreError
from ablate.tracking.client import create
from ablate.tracking.store import Claims, Store

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
