"""The rows of a file as text, with how they were read; and how large a file may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import DataError
from ablate.text import counted, format_bytes

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES, MOST_COLUMNS = 1 << 30, 10_000
"""A file larger than this is refused before it is read."""

_HEAD = 1 << 16

_NOT_TEXT, _TEXTS = "is not a text file", "CSV, TSV, JSON and JSON lines are read"

FILE = "file"
"""The column that says which file a row is from, where there are several."""


@dataclass(frozen=True)
class HowToRead:
    """What the user said about a file; None: to be guessed.

    reader: a name in `READERS`. header: number of the line that names the columns, from 1.
    """

    reader: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows of results.

    rows: a column of text for each column of the file, numbers as they are written, "" where there is nothing; the index
    counts the rows of each file from 1. options: how the file was read, as options of `ablate judge`.
    notes: what a reader of the results has to know, such as lines that were passed over. repeated: names that several
    columns share.
    """

    rows: pd.DataFrame
    options: Mapping[str, str]
    notes: tuple[str, ...] = ()
    repeated: frozenset[str] = field(default_factory=frozenset)


def head_of(path: Path) -> bytes:
    """Return the first bytes of a file. Raises DataError where there is none, it is too large or empty, or no file."""
    try:
        if path.is_dir():
            raise DataError("is a folder", place=str(path), hint="name its files, for example with `*.csv`")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(
                f"has {format_bytes(size)}, and at most {format_bytes(MOST_BYTES)} are read",
                place=str(path),
                hint="write the columns that matter to a smaller file",
            )
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None
    if not head.strip():
        raise DataError("is empty", place=str(path))
    return head


def decoded(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return the text of a file and its encoding: the given one; else by its byte order mark, UTF-8, or Windows-1252.

    Raises DataError for an unknown encoding, one that the file is not in, and a file that is no text.
    """
    data = path.read_bytes()
    marks = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    marked = next((name for mark, name in marks if data.startswith(mark)), None)
    if b"\x00" in data[:_HEAD] and encoding is None and marked is None:
        raise DataError(_NOT_TEXT, place=str(path), hint=_TEXTS)
    for name in [encoding] if encoding else [marked] if marked else ["utf-8", "cp1252"]:
        try:
            text = data.decode(name)
        except LookupError:
            raise DataError(
                f"there is no encoding {name!r}", place="--encoding", hint="for example utf-8 or cp1252"
            ) from None
        except UnicodeDecodeError as error:
            failed = f"byte {error.start} is no {name}"
        else:
            if "\x00" in text:
                raise DataError(_NOT_TEXT, place=str(path), hint=_TEXTS)
            return text.replace("\r\n", "\n").replace("\r", "\n"), name
    raise DataError(failed, place=str(path), hint="--encoding names another encoding, for example latin-1")


def checked_columns(path: Path, names: Sequence[str]) -> None:
    """Raise DataError where a file has more columns than are read."""
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"has {counted(len(names), 'column')}, and at most {MOST_COLUMNS:,} are read", place=str(path)
        )


def merged(paths: Sequence[Path], tables: Sequence[Table]) -> Table:
    """Return the rows of several files under all their columns, with a column `file`; of one file as they are."""
    if len(tables) == 1:
        return tables[0]
    import pandas as pd

    named = [
        table.rows if FILE in table.rows else table.rows.assign(**{FILE: path.stem})
        for path, table in zip(paths, tables, strict=True)
    ]
    options: dict[str, str] = {}
    for table in tables:
        # Files that were read in different ways have no options in common, and are guessed one by one again.
        options = {
            name: value
            for name, value in (options | dict(table.options)).items()
            if all(other.options.get(name) == value for other in tables)
        }
    notes = tuple(
        f"{path}: {note}" for path, table in zip(paths, tables, strict=True) for note in table.notes
    )
    repeated = frozenset(name for table in tables for name in table.repeated)
    return Table(pd.concat(named).fillna(""), options, notes, repeated)
