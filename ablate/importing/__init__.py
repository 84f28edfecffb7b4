"""Results that others made, as tables: one reader for each kind of file. A file is data, and nothing in it is executed.

A new source of results is a module with the two functions of `Reader` and a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ablate.errors import StudyError, nearest
from ablate.importing import csv, json
from ablate.importing.table import HowToRead, Table, head_of, merged

__all__ = ["READERS", "HowToRead", "Reader", "Table", "read"]


class Reader(Protocol):
    """How a module of this folder reads one kind of file."""

    def recognizes(self, path: Path, head: bytes) -> bool:
        """Return whether a file is of this kind. head: its first bytes."""

    def read(self, path: Path, how: HowToRead) -> Table:
        """Return the rows of a file, with how they were read. Raises DataError where it cannot be read as asked."""


# The first that recognizes a file reads it; the last recognizes every text file.
READERS: Mapping[str, Reader] = {"json": json, "csv": csv}


def read(paths: Sequence[Path], how: HowToRead) -> Table:
    """Return the rows of all files in one table; several files add the column `file`, the name of each row's file.

    Raises StudyError where there is no such reader, DataError where a file is missing or cannot be read.
    """
    if how.reader is not None and how.reader not in READERS:
        raise StudyError(
            f"{how.reader!r} is not a kind of file", place="--reader", hint=nearest(how.reader, READERS)
        )
    tables = []
    for path in paths:
        head = head_of(path)
        name = how.reader or next(name for name, reader in READERS.items() if reader.recognizes(path, head))
        tables.append(READERS[name].read(path, how))
    return merged(paths, tables)
