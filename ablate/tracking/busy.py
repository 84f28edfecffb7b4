"""Waiting for a local database that another program holds: a backup, a viewer, another command."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
import time
from pathlib import Path

from ablate.errors import StoreError
from ablate.text import cut, format_value

PATIENCE = 600.0
"""Seconds that a command waits for a database."""

TELL_AFTER = 5.0
"""Seconds of waiting after which it is said."""

_STEP = 0.5
"""Seconds that sqlite waits by itself: it does not answer to Ctrl-C meanwhile."""


class BusyError(StoreError):
    """Another program holds the database."""


def is_busy(error: BaseException) -> bool:
    """Return whether an exception, or what it was raised from, is sqlite's about a database that another program holds."""
    codes = (getattr(each, "sqlite_errorcode", None) for each in (error, getattr(error, "orig", None)))
    return any(
        code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) for code in codes
    )


def begin(
    connection: sqlite3.Connection, place: Path, patience: float = PATIENCE, *, to_write: bool = False
) -> None:
    """Begin a transaction, and wait for it as long as another program holds the database. place: of the database.

    patience: seconds. Raises BusyError where they are over, sqlite3.Error for what else is wrong with the database.
    """
    started = time.monotonic()
    is_told = False
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(1000 * min(_STEP, patience))}")
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE" if to_write else "BEGIN")
            connection.execute(
                "SELECT count(*) FROM sqlite_master"
            )  # the first statement that takes the lock
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if not is_busy(error):
                raise
            waited = time.monotonic() - started
            if waited >= patience:
                raise BusyError(
                    "another program holds the database",
                    place=str(place),
                    hint="end that program, then try again",
                ) from None
            if waited >= TELL_AFTER and not is_told:
                is_told = True
                print(f"waiting for {place}, which another program holds", file=sys.stderr)
        else:
            return


class ProgramsError(StoreError):
    """A database holds programs of its own."""


_TABLES = (
    "alembic_version",
    "datasets",
    "experiment_tags",
    "experiments",
    "input_tags",
    "inputs",
    "latest_metrics",
    "metrics",
    "params",
    "runs",
    "tags",
)
"""Tables that are read and written here."""


def refuse_programs(connection: sqlite3.Connection, place: Path) -> None:
    """Raise ProgramsError where one of MLflow's tables is a view, a virtual table or has a trigger: SQL that somebody wrote there.

    MLflow makes none of them on these tables. place: of the database.
    """
    within = ", ".join("?" * len(_TABLES))
    found = connection.execute(
        f"SELECT name FROM sqlite_master WHERE lower(tbl_name) IN ({within}) "  # noqa: S608 — only question marks
        "AND (type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%') LIMIT 1",
        _TABLES,
    ).fetchone()
    if found is not None:
        raise ProgramsError(
            f"holds {cut(format_value(str(found[0])))}, a trigger, a view or a virtual table, which would run inside the database",
            place=str(place),
            hint="MLflow makes none there: remove it, or move the database away; `ablate run` makes a new one",
        )


def wait(database: Path) -> None:
    """Wait until a database can be written, as `begin` does; one that nobody may write is not waited for."""
    # UnicodeError: a message of sqlite's that quotes what is damaged
    with (
        contextlib.suppress(sqlite3.Error, UnicodeError),
        contextlib.closing(sqlite3.connect(database)) as connection,
    ):
        begin(connection, database, to_write=True)
        connection.execute("ROLLBACK")
