"""Results that others made, as tables: one reader for each kind of source. A file is data, and nothing in it is executed.

A new source of results is a module with the two functions of `Reader` and a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ablate.errors import DataError, StudyError, nearest
from ablate.importing import csv, folders, json, mlflow, optuna, runs, tensorboard, wandb
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, merged, refuse_other_kinds

__all__ = ["READERS", "HowToRead", "Reader", "ResultSource", "Table", "read"]


class Reader(Protocol):
    """How a module of this folder reads one kind of source."""

    def recognizes(self, source: ResultSource) -> bool:
        """Return whether a source is of this kind. Raises DataError where it is a file that cannot be read."""

    def read(self, source: ResultSource, how: HowToRead) -> Table:
        """Return the rows of a source, with how they were read. Raises DataError where it cannot be read as asked."""


# The first that recognizes a source reads it; the last recognizes every text file.
READERS: Mapping[str, Reader] = {
    "mlflow": mlflow,
    "optuna": optuna,
    "runs": runs,
    "folder": folders,
    "tensorboard": tensorboard,
    "json": json,
    "wandb": wandb,
    "csv": csv,
}


def read(sources: Sequence[str], how: HowToRead) -> Table:
    """Return the rows of all sources in one table; several of them add the column `file`, the name of each row's source.

    sources: files, folders, patterns of files, addresses of stores. Raises StudyError where there is no such reader, DataError
    where a file is missing or cannot be read.
    """
    if how.reader is not None and how.reader not in READERS:
        raise StudyError(
            f"{how.reader!r} is not a kind of file", place="--reader", hint=nearest(how.reader, READERS)
        )
    return merged(sources, [_read(ResultSource(text), how) for text in sources])


def recognized(source: ResultSource) -> str:
    """Return the name of the reader of a source. Raises DataError where it is a file that cannot be read."""
    return next(name for name, reader in READERS.items() if reader.recognizes(source))


def _read(source: ResultSource, how: HowToRead) -> Table:
    if source.text.startswith(("http://", "https://", "s3://", "gs://")):
        raise DataError("is an address, and only files are read", place=source.text, hint="download it first")
    if how.lines and source.is_file:  # a log, whatever it is called
        return runs.read_files([(source.path, {})], how)
    # In files that a pattern or a folder names, a reader is that of each.
    several = source.is_pattern or source.is_folder
    name = how.reader if how.reader and not several else recognized(source)
    if READERS[name] in (json, wandb, csv):
        refuse_other_kinds(source.path, source.head)
    return READERS[name].read(source, how)
