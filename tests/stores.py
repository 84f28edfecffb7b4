"""Stores that tests copy instead of filling each its own."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path


def copy_store(source: Path, target: Path) -> None:
    """Copy a folder `mlruns`, with its database and its artifacts, over another; what the database says of places is changed."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    move_artifacts(target / "mlflow.db", str(source), str(target))


def move_artifacts(database: Path, before: str, after: str) -> None:
    """Tell an MLflow database, and MLflow in this process, that its artifacts do not lie under `before` but under `after`."""
    from mlflow.tracking._tracking_service import utils

    # MLflow remembers by the id of a run where its artifacts lie, and the runs of a copy have the ids of the original.
    utils._artifact_repos_cache.clear()
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (before, after))
