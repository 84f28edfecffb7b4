"""The rows of a file as text, with how they were read; and how large a file may be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ablate.errors import DataError, nearest
from ablate.importing.columns import FILE
from ablate.metrics import Direction
from ablate.text import counted, format_bytes, storable

if TYPE_CHECKING:
    import pandas as pd

MOST_BYTES, MOST_COLUMNS = 1 << 30, 10_000
"""A file larger than this is refused before it is read."""

_HEAD = 1 << 16

_NOT_TEXT, _TEXTS = "is not a text file", "CSV, TSV, JSON and JSON lines are read"

_SPREADSHEET = "save the sheet as CSV (in Excel: File, Save as, CSV UTF-8), and judge that file"

# What a file begins with that is no text → what it is, what to do.
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "is a ZIP archive", "unpack it, and judge a file in it"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook", _SPREADSHEET),
    (b"\x1f\x8b", "is compressed with gzip", "gunzip it first"),
    (b"BZh", "is compressed with bzip2", "bunzip2 it first"),
    (b"\xfd7zXZ", "is compressed with xz", "unxz it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "unzstd it first"),
    (
        b"PAR1",
        "is a Parquet file",
        "write it as CSV: pandas.read_parquet(FILE).to_csv('results.csv', index=False)",
    ),
    (b"%PDF", "is a PDF", "copy its table to a CSV file"),
    (b"\x89HDF", "is an HDF5 file", "write the results in it to a CSV file"),
    (b"\x93NUMPY", "is a NumPy array", "write it as CSV with the names of its columns"),
    (
        b"SQLite format 3\x00",
        "is an SQLite database",
        "mlflow:FILE#EXPERIMENT or optuna:FILE#STUDY reads those of MLflow and Optuna",
    ),
    (b"<!doctype html", "is a web page", "copy its table to a CSV file"),
    (b"<html", "is a web page", "copy its table to a CSV file"),
    (b"\x80\x02", "is a pickle, which is a program, and nothing in a file is executed", "write it as CSV"),
    (b"\x80\x03", "is a pickle, which is a program, and nothing in a file is executed", "write it as CSV"),
    (b"\x80\x04", "is a pickle, which is a program, and nothing in a file is executed", "write it as CSV"),
    (b"\x80\x05", "is a pickle, which is a program, and nothing in a file is executed", "write it as CSV"),
)


@dataclass(frozen=True)
class HowToRead:
    """What the user said about a file; None: to be guessed.

    reader: a name in `READERS`. header: number of the line that names the columns, from 1. lines: regular expressions of what
    the lines of a log say. metric: the column that will be judged. history: whether every step of a run is wanted, where a
    store keeps the last one apart.
    """

    reader: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    header: int | None = None
    lines: tuple[str, ...] = ()
    metric: str | None = None
    history: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of results.

    rows: a column of text for each column of the file, numbers as they are written, "" where there is nothing; the index
    counts the rows of each file from 1. options: how the file was read, as options of `ablate judge`.
    notes: what a reader of the results has to know, such as lines that were passed over. repeated: names that several
    columns share. resolutions: column → the step of its values, where the file says it. settings: columns with settings of
    the runs, where the source says which they are. is_search: a search chose them by what it had seen. measured: the columns that
    can be the metric, and directions: which way they are better, where the source says it. step, run: the columns that count
    the steps of a run and tell runs apart, where the source says it. last_steps: metric → run → the step of its last value,
    where the rows hold last values alone.
    """

    rows: pd.DataFrame
    options: Mapping[str, str]
    notes: tuple[str, ...] = ()
    repeated: frozenset[str] = field(default_factory=frozenset)
    resolutions: Mapping[str, float] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    is_search: bool = False
    measured: tuple[str, ...] = ()
    directions: Mapping[str, Direction] = field(default_factory=dict)
    step: str | None = None
    run: str | None = None
    last_steps: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


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
        if not path.is_file():
            path.stat()
            raise DataError("is no file", place=str(path), hint="a pipe or a device is not read")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot be read ({reason})", place=str(path), hint=_a_file_like(path)) from None
    if not head.strip():
        raise DataError("is empty", place=str(path))
    return head


def _a_file_like(path: Path) -> str | None:
    """A hint at a file beside a path whose name is much like that of the path."""
    try:
        names = [other.name for other, _ in zip(path.parent.iterdir(), range(1000), strict=False)]
    except (OSError, ValueError):
        return None
    hint = nearest(path.name, [name for name in names if name != path.name])
    return hint if hint.startswith("did you mean") else None


def refuse_other_kinds(path: Path, head: bytes) -> None:
    """Raise DataError where a file is no text, and what it is can be told from its first bytes, with what to do."""
    for start, kind, advice in _KINDS:
        if head[: len(start)].lower() == start.lower():
            if start == b"PK\x03\x04" and (
                b"xl/" in head or path.suffix.lower().startswith((".xls", ".ods"))
            ):
                kind, advice = "is an Excel workbook", _SPREADSHEET  # noqa: PLW2901
            raise DataError(kind, place=str(path), hint=advice)
    if b'"op_code"' in head[:200] and b'"worker_id"' in head[:400]:
        raise DataError(
            "is a journal of Optuna", place=str(path), hint=f"judge a study in it: 'optuna:{path}#STUDY'"
        )


def checked_total(paths: Sequence[Path]) -> None:
    """Raise DataError where files are larger together than what is read."""
    try:
        size = sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(error.filename)) from None
    if size > MOST_BYTES:
        raise DataError(
            f"{counted(len(paths), 'file')} have {format_bytes(size)}, and at most {format_bytes(MOST_BYTES)} are read",
            place=str(paths[0]),
            hint="judge them in parts, or write the values that matter to one file",
        )


def decoded(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return the text of a file and its encoding: the given one; else by its byte order mark, UTF-8, or Windows-1252.

    Raises DataError for an unknown encoding, one that the file is not in, and a file that is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None
    marks = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
    marked = next((name for mark, name in marks if data.startswith(mark)), None)
    if b"\x00" in data[:_HEAD] and encoding is None and marked is None:
        marked = _utf16(data[:_HEAD])
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


def _utf16(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: every second byte of nearly all of Latin text is 0. None where it is something else."""
    pairs = len(head) // 2
    for name, zeros, others in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros.count(0) > 0.9 * pairs and others.count(0) == 0:
            return name
    return None


def checked_columns(path: Path, names: Sequence[str]) -> None:
    """Raise DataError where a file has more columns than are read."""
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"has {counted(len(names), 'column')}, and at most {MOST_COLUMNS:,} are read", place=str(path)
        )


def rows_of(
    path: Path, records: Iterable[Mapping[str, str]], columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return records as a table of text, "" where one lacks a column; the index counts the rows from 1.

    columns: those of the table, where they are not all that records have, in the order in which they come. Its text is such
    as every file takes: JSON and names of files may have halves of characters. Raises DataError where there are more columns
    than are read.
    """
    import pandas as pd

    number = 0
    # Column by column, because a million dicts take more memory than all that is in them.
    cells: dict[str, list[str]] = {storable(name): [] for name in columns or ()}
    cells_of = {name: cells[storable(name)] for name in columns or ()}
    rest = iter(records)
    for record in rest:
        for name, text in record.items():
            column = cells_of.get(name)
            if column is None:
                if columns is not None:
                    continue
                if len(cells_of) >= MOST_COLUMNS:
                    others = (name for other in (record, *rest) for name in other)
                    checked_columns(path, [*{*cells_of, *others}])
                column = cells_of[name] = cells.setdefault(storable(name), [])
            # Earlier records lack it, or it is another name of a column that this record has.
            if len(column) != number:
                column[number:] = [""] * (number - len(column))
            column.append(text)
        number += 1
    index = pd.RangeIndex(1, number + 1)
    frame: dict[str, pd.Series[str]] = {}
    for name in list(cells):
        column = cells.pop(name)
        column += [""] * (number - len(column))
        together = "".join(column)
        if storable(together) != together:
            column = list(map(storable, column))
        frame[name] = pd.Series(column, index, dtype=str)
    return pd.DataFrame(frame, index)


def merged(names: Sequence[str], tables: Sequence[Table]) -> Table:
    """Return the rows of several sources under all their columns, with a column `file`; of one source as they are."""
    if len(tables) == 1:
        return tables[0]
    import pandas as pd

    named = [
        table.rows if FILE in table.rows else table.rows.assign(**{FILE: storable(short)})
        for short, table in zip(_short_names(names), tables, strict=True)
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
        f"{name}: {note}" for name, table in zip(names, tables, strict=True) for note in table.notes
    )
    repeated = frozenset(name for table in tables for name in table.repeated)
    # A source of several files has their names in its index already.
    is_plain = not any(rows.index.nlevels > 1 for rows in named) and len(set(names)) == len(names)
    rows = pd.concat(named, keys=list(map(storable, names))) if is_plain else pd.concat(named)
    return Table(
        rows.fillna(""),
        options,
        notes,
        repeated,
        {column: step for table in tables for column, step in table.resolutions.items()},
        tuple(dict.fromkeys(column for table in tables for column in table.settings)),
        any(table.is_search for table in tables),
        tuple(dict.fromkeys(column for table in tables for column in table.measured)),
        {column: direction for table in tables for column, direction in table.directions.items()},
        tables[0].step if len({table.step for table in tables}) == 1 else None,
        tables[0].run if len({table.run for table in tables}) == 1 else None,
        {column: steps for table in tables for column, steps in table.last_steps.items()},
    )


def _short_names(names: Sequence[str]) -> list[str]:
    """Return the names of files without what they share, each different: `adam/results.csv`, `sgd/results.csv` → `adam`, `sgd`."""
    stems = [Path(name).stem for name in names]
    if len(set(stems)) == len(stems):
        return stems
    parts = [Path(name).with_suffix("").parts for name in names]
    while all(len(own) > 1 for own in parts) and len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    while all(len(own) > 1 for own in parts) and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    short = [str(Path(*own)) for own in parts]
    return short if len(set(short)) == len(set(names)) else list(names)
