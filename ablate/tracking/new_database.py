"""A new local database: a copy of one that MLflow has made before, because MLflow takes 3 s of the processor to be imported and to make one.

What MLflow has made is kept in the user's cache, empty, by MLflow's version and migrations, and under the digest of its content: what
is half written or damaged there, or of another MLflow, is not used, and MLflow makes the database.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import sqlite3
import time
from pathlib import Path

from ablate import addresses, cache_folder, plain_files
from ablate.errors import DataError

_CHANGES_WHAT_IS_MADE = ("MLFLOW_ENABLE_WORKSPACES", "_MLFLOW_SERVER_ARTIFACT_ROOT")
"""Variables of the environment by which MLflow makes another database."""


def copied(database: Path) -> bool:
    """Make a database as MLflow would make it here and now. Returns False where none is known, and nothing is made.

    Raises OSError where it cannot be written.
    """
    place = _place()
    if place is None:
        return False
    for template in sorted(place.parent.glob(f"{place.name}-*.db")):
        with contextlib.suppress(OSError):
            content = plain_files.read(template)
            if template.name == _name(place, content):
                break
    else:
        return False
    with database.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    now = int(time.time() * 1000)
    try:
        with contextlib.closing(sqlite3.connect(database)) as db, db:
            db.execute(
                "UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ? WHERE experiment_id = 0",
                [f"{Path.cwd().as_posix()}/mlruns/0", now, now],
            )
    except sqlite3.Error:
        database.unlink()
        return False
    return True


def keep(database: Path) -> None:
    """Keep a database that MLflow has just made, for those to come; where that cannot be, MLflow makes the next one too."""
    place = _place()
    if place is None:
        return
    with contextlib.suppress(OSError, sqlite3.Error):
        with contextlib.closing(
            sqlite3.connect(f"{addresses.folder_address(database)}?mode=ro", uri=True)
        ) as db:
            (mode,) = db.execute("PRAGMA journal_mode").fetchone()
            runs = db.execute("SELECT count(*) FROM runs").fetchone()
            experiments = db.execute("SELECT experiment_id FROM experiments").fetchall()
        if (mode, runs, experiments) != ("delete", (0,), [(0,)]):
            return  # part of it is in another file, or it is none that `copied` knows
        content = plain_files.read(database)
        place.parent.mkdir(parents=True, exist_ok=True)
        for damaged in place.parent.glob(f"{place.name}-*.db"):
            damaged.unlink()
        plain_files.write(place.with_name(_name(place, content)), content)


def _name(place: Path, content: bytes) -> str:
    return f"{place.name}-{hashlib.sha256(content).hexdigest()}.db"


def _place() -> Path | None:
    """Return the beginning of the path of databases that the installed MLflow makes; None where it is not known what it would make."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or not spec.origin or any(os.environ.get(name) for name in _CHANGES_WHAT_IS_MADE):
        return None
    package = Path(spec.origin).parent
    try:
        version = (package / "version.py").read_text()
        migrations = sorted(
            path.name for path in (package / "store" / "db_migrations" / "versions").glob("*.py")
        )
        folder = cache_folder.default_folder() / "databases"
    except (OSError, ValueError, DataError):
        return None
    made_by = json.dumps([version, migrations, sqlite3.sqlite_version])
    return folder / f"mlflow-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}"
