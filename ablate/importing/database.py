"""Databases of sqlite that another program has written: opened for reading only, and no program of their author is run.

A view is a query of the file's author, which may never end; so may be what a column is generated from.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection
from pathlib import Path

from ablate import addresses
from ablate.errors import DataError

MOST_SECONDS = 120.0
"""A database that takes longer is not read: what a file says must not decide how long it takes."""

MOST_OF_VALUE = 1 << 26
"""Bytes of one value."""


def opened(path: Path, tables: Collection[str], *, seconds: float = MOST_SECONDS) -> sqlite3.Connection:
    """Return a connection to a database that answers for some seconds from now on. tables: those that will be read.

    Raises DataError where one of them is something else than a table, sqlite3.Error where the file cannot be opened.
    """
    address = f"{addresses.folder_address(path.absolute())}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=10.0, check_same_thread=False)
    try:
        deadline = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_OF_VALUE)
        connection.execute("PRAGMA trusted_schema = OFF")
        kinds = dict(connection.execute("SELECT name, type FROM sqlite_master WHERE type != 'trigger'"))
    except BaseException:
        connection.close()
        raise
    for table in sorted(tables):
        if kinds.get(table, "table") != "table":
            connection.close()
            raise DataError(
                f"its {table!r} is no table, but a query, which is not run",
                place=str(path),
                hint="write its results to a CSV file, if you trust it",
            )
    return connection
