"""MLflow's client: quiet, quick to give up, and with its errors translated into StoreError."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate import addresses, locks
from ablate.errors import StoreError
from ablate.text import without_password
from ablate.tracking import busy, new_database
from ablate.tracking.store import Store, open_lock

_LONGEST_MESSAGE = 300


class NoAnswerError(StoreError):
    """The store does not answer."""


class DeletedExperimentError(StoreError):
    """The experiment was deleted in MLflow, so nothing can be recorded there."""


def connect(uri: str) -> Any:
    """Return an `MlflowClient` that logs nothing and retries little: the caller decides whether to try again.

    Raises StoreError where there is no driver for a database, and where a database server does not answer.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    try:
        Path.home()
    except (
        RuntimeError
    ):  # a user whom the system does not know; MLflow asks for the folder, and puts nothing there
        os.environ["HOME"] = os.sep
    from ablate.tracking.server_client import ServerClient

    # MLflow announces its migrations as a server would, and logs every error that it raises; here one line reports it.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if "://" in uri and not uri.startswith((*_NO_DATABASES, addresses.SQLITE)):
        _check_database(uri)
    return ServerClient(addresses.address_to_open(uri))


_NO_DATABASES = ("http://", "https://", "file://", "databricks://", "databricks-uc://", "uc://")


def _check_database(uri: str) -> None:
    """Connect to a database once: MLflow would try for two minutes. Raises StoreError where that fails."""
    import sqlalchemy

    place = without_password(uri)
    try:
        engine = sqlalchemy.create_engine(uri)
        with contextlib.closing(engine.connect()):
            pass
        engine.dispose()
    except ImportError as error:
        raise StoreError(
            f"the driver of this database is not installed ({error})",
            place=place,
            hint="for PostgreSQL: `pip install 'psycopg[binary]'`, and an address that begins with postgresql+psycopg://",
        ) from None
    except sqlalchemy.exc.ArgumentError as error:
        raise StoreError(
            f"is no address of a store ({without_password(first_line(error))})",
            place=place,
            hint="MLFLOW_TRACKING_URI names it: sqlite:///FILE, postgresql+psycopg://…, http://HOST:PORT; "
            "unset, everything stays under ./mlruns",
        ) from None
    except Exception as error:  # noqa: BLE001 — whatever the driver raises
        raise NoAnswerError(
            f"the store does not answer ({without_password(first_line(error))})",
            place=place,
            hint="is the server running? MLFLOW_TRACKING_URI names it; unset, everything stays under ./mlruns",
        ) from None


def create(store: Store) -> None:
    """Create a local database, in one process only: MLflow's own migration is not safe against a second process."""
    if store.database is None or store.database.exists():
        return
    path = store.folder("locks") / "database.lock"
    with open_lock(path) as file:
        locks.lock(file, path)
        if store.database.exists():
            return
        # Built under another name and renamed, so that a killed process leaves no half-made database.
        building = store.database.with_suffix(f".{os.getpid()}.tmp")
        store.database.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in store.database.parent.glob(f"{store.database.stem}.*.tmp*"):
            abandoned.unlink()
        try:
            # MLflow would try for two minutes to open what sqlite cannot: a path that is too long for it, a disk without locks.
            with contextlib.closing(sqlite3.connect(building)) as db:
                db.execute("PRAGMA user_version").fetchone()
            building.unlink()
            if not new_database.copied(building):
                connect(addresses.database_address(building))
                new_database.keep(building)
            building.rename(store.database)
        except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from making it
            raise StoreError(
                f"the database cannot be made ({first_line(error)})",
                place=str(store.database),
                hint="is there space, may you write there, and is the path short enough for sqlite?",
            ) from None
        finally:  # also where Ctrl-C ends it
            for left in building.parent.glob(f"{building.name}*"):
                left.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(store: Store) -> Iterator[Any]:
    """Yield a client to read a store through. Raises StoreError where the store does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        yield connect(store.uri)
    except StoreError:
        raise
    except (MlflowException, OSError) as error:
        # After these words follows the whole stack of the HTTP library, in one line.
        text = re.sub(r" failed with exception .*", " failed", first_line(error))
        raise NoAnswerError(
            f"the store does not answer ({without_password(text)})",
            place=store.place,
            hint="is the server running? MLFLOW_TRACKING_URI names it; unset, everything stays under ./mlruns",
        ) from None


@contextlib.contextmanager
def writing(store: Store) -> Iterator[None]:
    """Raise StoreError for whatever keeps MLflow from writing."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from writing
        raise StoreError(
            f"cannot be written ({without_password(first_line(error))})",
            place=store.place,
        ) from None


def open_for_writing(store: Store, patience: float | None = None) -> Any:
    """Return a client on a store that is made where it is a local file. Raises StoreError where it cannot be opened.

    A local database of a known layout is written without MLflow (`LocalClient`). patience: as it takes it.
    """
    from ablate.tracking.local_client import PATIENCE, LocalClient, has_known_layout

    try:
        create(store)
        _check_permission(store)
        note_place(store)
        if store.database is not None and has_known_layout(store.database):
            return LocalClient(store.database, store.artifacts, PATIENCE if patience is None else patience)
        return connect(store.uri)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from opening it
        text, uri = without_password(first_line(error)), store.place
        if busy.is_busy(error):
            raise busy.BusyError("another program holds the database", place=uri) from None
        if "database schema" in text:
            raise StoreError(
                "the database was made by another version of MLflow",
                place=uri,
                hint=f"`mlflow db upgrade {store.typed}` brings an older one up to date (keep a copy); a newer one needs a "
                "newer MLflow",
            ) from None
        raise StoreError(f"cannot be opened ({text})", place=uri) from None


def _check_permission(store: Store) -> None:
    """Raise StoreError for a local database that nobody here may write, which sqlite would say of every record."""
    if store.database is None:
        return
    for path in (store.database, store.database.parent):  # sqlite puts its journal beside the database
        if not os.access(path, os.W_OK):
            raise StoreError(
                "may not be written",
                place=str(path),
                hint="`ls -l` says who may; in a copy of the project, everything is your own",
            )


def note_place(store: Store) -> None:
    """Let a local database name the places of artifacts as they are now, where the project has been copied, moved or renamed.

    ablate itself needs nothing of it (`Store.artifacts`); MLflow's own pages and programs do. Raises BusyError, sqlite3.Error.
    """
    if store.database is None or not store.database.exists():
        return
    with (
        contextlib.closing(
            sqlite3.connect(addresses.folder_address(store.database.resolve()) + "?mode=rw", uri=True)
        ) as db,
        _ignoring_read_only(),
    ):
        busy.begin(db, store.database, _SHORT)
        busy.refuse_programs(db, store.database)
        moved = []
        for identity, recorded in db.execute("SELECT experiment_id, artifact_location FROM experiments"):
            place = store.artifacts(recorded or "")
            if place is not None and place != addresses.folder_path(recorded):
                moved.append((addresses.folder_address(place), identity, recorded))
        db.execute("ROLLBACK")
        if not moved:
            return
        busy.begin(db, store.database, _SHORT, to_write=True)
        for new, identity, recorded in moved:
            db.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", [new, identity]
            )
            db.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                [new, len(recorded) + 1, identity, len(recorded) + 1, f"{recorded}/"],
            )
        db.execute("COMMIT")


_SHORT = 4.0
"""Seconds to wait for a database where the caller tries again, or can do without."""


@contextlib.contextmanager
def _ignoring_read_only() -> Iterator[None]:
    """Leave out what is only of use to others, in a database that cannot be written, or is none of MLflow's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if busy.is_busy(error):
            raise


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its type where it has none."""
    text = str(getattr(error, "orig", error))
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return line[:_LONGEST_MESSAGE]
