"""JSON and JSON lines: a list of records, or one within an object. Nested keys become dotted columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import DataError
from ablate.importing.columns import is_seed
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, decoded, rows_of
from ablate.metrics import direction

_DEEP = "is nested too deeply to be read"

_SUFFIXES = {".json", ".jsonl", ".ndjson"}


def recognizes(source: ResultSource) -> bool:
    """Return whether a file has the name of a JSON file, or begins as one does."""
    if not source.is_file:
        return False
    text = source.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return source.path.suffix.lower() in _SUFFIXES or re.match(rb"\{\s*[\"}]|\[\s*[\[{\]]", text) is not None


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return the records of a JSON file.

    They are a list of objects, the only such list within an object, one object a line, an object of columns of the same
    length, or a frame as pandas writes it. Raises DataError where the file holds anything else.
    """
    path = source.path
    text, encoding = decoded(path, how.encoding)
    return _table(path, *_records(_parsed(path, text), path), encoding)


def read_report(path: Path, how: HowToRead) -> Table:
    """Return the records of a JSON file that is the report of one run: an object is one record.

    An object without a number that may be judged, but with a list of records, such as the history of a training, is the
    records of that list.
    """
    text, encoding = decoded(path, how.encoding)
    content = _parsed(path, text)
    if isinstance(content, Mapping):
        try:
            cells = dict(_cells(content, ""))
        except RecursionError:
            raise DataError(_DEEP, place=str(path)) from None
        judged = how.metric in cells if how.metric is not None else any(map(direction, cells))
        if judged or not any(_is_list_of_objects(value) and value for value in content.values()):
            return _table(path, [content], (), encoding)
    return _table(path, *_records(content, path), encoding)


def _table(path: Path, records: Iterable[Mapping[str, Any]], notes: tuple[str, ...], encoding: str) -> Table:
    try:
        rows = rows_of(path, (dict(_cells(record, "")) for record in records))
    except RecursionError:
        raise DataError(_DEEP, place=str(path)) from None
    if not len(rows.columns):
        raise DataError("has no record in it", place=str(path))
    return Table(rows, {"reader": "json", "encoding": encoding}, notes)


def _parsed(path: Path, text: str) -> Any:
    """The content of a JSON document, or the values of JSON lines as they are read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise DataError(_DEEP, place=str(path)) from None
    except ValueError as error:
        return _lines(path, text, error)


def _lines(path: Path, text: str, whole: ValueError) -> Iterator[Any]:
    """The value of each line. whole: why the text is no JSON document. Raises DataError where a line is no JSON."""
    is_lines = False  # the first line was a document of its own
    for line in re.finditer(r"[^\n]+", text):
        if line[0].isspace():
            continue
        try:
            value = json.loads(line[0])
        except (ValueError, RecursionError) as error:
            number = text.count("\n", 0, line.start()) + 1
            if is_lines and not text[line.end() :].strip():
                raise DataError(
                    f"line {number} is cut off",
                    place=str(path),
                    hint="leave out the last line, or write it again",
                ) from None
            message = f"line {number} is no JSON ({error})" if is_lines else f"is no JSON ({whole})"
            raise DataError(message, place=str(path)) from None
        is_lines = True
        yield value


def _records(content: Any, path: Path) -> tuple[Iterable[Mapping[str, Any]], tuple[str, ...]]:
    """The records of a document, with a note of where they were."""
    if isinstance(content, Iterator):
        return _objects(content, path), ()
    if _is_list_of_objects(content):
        return content, ()
    if isinstance(content, Mapping):
        lists = {key: value for key, value in content.items() if _is_list_of_objects(value) and value}
        if len(lists) == 1:
            [(key, records)] = lists.items()
            return records, (f"the records are the list {key!r}",)
        if len(lists) > 1:
            raise DataError(
                f"has several lists of records: {', '.join(map(repr, lists))}",
                place=str(path),
                hint="write one of them to a file of its own",
            )
        table = _frame(content)
        if table is not None:
            return table, ()
        columns = list(content.values())
        if columns and all(isinstance(column, list) for column in columns):
            if len({len(column) for column in columns}) == 1:
                return [dict(zip(content, cells, strict=True)) for cells in zip(*columns, strict=True)], ()
        elif _is_table(columns):
            name = "arm" if "arm" not in columns[0] else "name"
            return (
                [{name: key, **record} for key, record in content.items()],
                (f"the records are the values of an object: {name} is what each is called there",),
            )
        elif columns:
            return [content], ()  # a line of JSON lines, alone
    raise _no_records(path)


def _frame(content: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The records of a frame as pandas writes one: an object for each column, or lists of columns and rows. None for others.

    Objects of columns have the numbers of rows for keys, and a column of text or of seeds: `{"adam": {"0": 0.91, "1": 0.93}, …}`
    has a row for each arm.
    """
    names, rows = content.get("columns"), content.get("data")
    if isinstance(names, list) and isinstance(rows, list) and content.keys() <= {"columns", "index", "data"}:
        whole = all(isinstance(row, list) and len(row) == len(names) for row in rows)
        return [dict(zip(map(str, names), row, strict=True)) for row in rows] if whole else None
    columns = list(content.values())
    if not columns or not all(isinstance(column, dict) and column for column in columns):
        return None
    first = columns[0].keys()
    if (
        all(map(str.isdigit, content))
        or not all(map(str.isdigit, first))
        or any(column.keys() != first for column in columns)
    ):
        return None
    has_text = any(isinstance(cell, str) for column in columns for cell in column.values())
    if not (has_text or any(map(is_seed, content))):
        return None
    return [{name: column[row] for name, column in content.items()} for row in first]


def _objects(values: Iterator[Any], path: Path) -> Iterator[Mapping[str, Any]]:
    """The values of JSON lines, all of them objects. Raises DataError where one is none."""
    for value in values:
        if not isinstance(value, dict):
            for _ in values:  # a line that is no JSON comes first
                pass
            raise _no_records(path)
        yield value


def _no_records(path: Path) -> DataError:
    return DataError(
        "holds no records",
        place=str(path),
        hint='write a list of objects, [{"arm": "baseline", "seed": 0, "loss": 0.31}, …], or one object a line',
    )


def _is_table(values: Sequence[Any]) -> bool:
    """Whether values are objects with the same keys, two or more, and nothing nested in them."""
    return (
        len(values) > 1
        and all(isinstance(value, Mapping) and len(value) > 1 for value in values)
        and all(value.keys() == values[0].keys() for value in values)
        and not any(isinstance(cell, Mapping | list) for value in values for cell in value.values())
    )


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _cells(record: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    """The values of a record as text, by their dotted keys. Lists are text too: they are no numbers to judge."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _cells(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", _text(value)


def _text(value: Any) -> str:
    if type(value) in (float, int):  # no bool
        return repr(value)
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else json.dumps(value)
