"""Exports of Weights & Biases: the table of runs, the frame that its API's documentation makes, and the data of a chart."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from csv import reader
from typing import TYPE_CHECKING, Any

from ablate.errors import DataError
from ablate.importing import csv
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, checked_columns, rows_of
from ablate.text import counted, cut

if TYPE_CHECKING:
    import pandas as pd

_CHART = r"(?P<run>.+) - (?P<metric>.+)\Z"

_BOUNDS = ("__MIN", "__MAX")

_RUNS = {"Name", "State", "User", "Created", "Runtime"}
"""Columns of the table of runs."""

_FRAME = {"summary", "config"}
"""Columns of the frame that the documentation of the API makes: dicts in their cells."""

_LARGEST_CELL, _DEEPEST = 1 << 20, 50


def recognizes(source: ResultSource) -> bool:
    """Return whether a file is a table with the columns of one of these exports."""
    return source.is_file and _kind(_header(source)) is not None


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return the rows of an export, in which dicts are dotted columns, and a chart has a row for each run and step.

    Raises DataError where it cannot be read.
    """
    table = csv.read(source, how)
    kind = _kind([str(name) for name in table.rows])
    if kind == "frame":
        return _unfolded(source, table)
    if kind == "chart":
        return _chart(source, table)
    return Table(table.rows, {**table.options, "reader": "wandb"}, table.notes, table.repeated)


def _header(source: ResultSource) -> list[str]:
    text = source.head.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    try:
        return next(reader(text.splitlines()), [])
    except Exception:  # noqa: BLE001 — a header that is none is another reader's
        return []


def _kind(header: list[str]) -> str | None:
    names = {name.strip() for name in header}
    if len(names & _RUNS) >= 4:
        return "runs"
    if names >= _FRAME:
        return "frame"
    bounds = [
        name for name in names if name.endswith("__MIN") and f"{name.removesuffix('__MIN')}__MAX" in names
    ]
    if bounds and all(name.removesuffix("__MIN") in names for name in bounds):
        return "chart"
    first = header[0].strip().lower() if header else ""
    series = [name for name in header[1:] if re.match(_CHART, name.strip())]
    is_chart = first in {
        "step",
        "_step",
        "epoch",
        "relative time (process)",
        "relative time (wall)",
        "wall time",
    }
    return "chart" if is_chart and series and len(series) == len(header) - 1 else None


# --- the frame of the API ---------------------------------------------------------------------------------------------


def _unfolded(source: ResultSource, table: Table) -> Table:
    """The rows of a frame whose cells are dicts, with a dotted column for each of their keys."""
    folded = [name for name in ("config", "summary", "attributes", "user_attrs") if name in table.rows]
    records: list[dict[str, str]] = []
    unread = 0
    for cells in table.rows.to_dict("records"):
        record = {
            str(name): str(value)
            for name, value in cells.items()
            if name not in folded and name != "column 1"
        }
        for name in folded:
            values = literal(str(cells[name]))
            if values is None:
                unread += 1
                record[name] = str(cells[name])
                continue
            for key, text in _flat(values, "", 0):
                # Settings and results are told apart where both have the key.
                record[key if key not in record else f"{name}.{key}"] = text
        records.append(record)
    columns = list(dict.fromkeys(column for record in records for column in record))
    checked_columns(source.path, columns)
    rows = rows_of(source.path, records, columns).set_axis(table.rows.index)
    settings = tuple(
        dict.fromkeys(
            key
            for cell in table.rows["config"].iloc[:1000]
            for key, _ in _flat(literal(str(cell)) or {}, "", 0)
            if key in columns
        )
    )
    notes = (f"{counted(unread, 'cell')} of {', '.join(folded)} hold no dict",) if unread else ()
    return Table(
        rows,
        {**table.options, "reader": "wandb"},
        (*table.notes, *notes),
        table.repeated,
        settings=settings,
    )


def literal(text: str) -> Mapping[str, Any] | None:
    """Return the dict that a cell shows, as Python or JSON write it; None where it is none. Nothing in it is called."""
    if len(text) > _LARGEST_CELL or not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = _value(ast.parse(text, mode="eval").body, 0)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
    return value if isinstance(value, Mapping) else None


def _value(node: ast.expr, depth: int) -> Any:
    """The value of an expression of literals. Raises ValueError where it is anything else."""
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in {"nan", "inf", "NaN", "Infinity"}:
        return float(node.id.lower().removesuffix("inity"))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _value(node.operand, depth + 1)
        if isinstance(inner, int | float):
            return -inner
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
        # `np.float64(0.91)` is how NumPy writes a number. Whatever the name, it stands for what is in its parentheses.
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if re.fullmatch(r"u?int\d*_?|float\d*_?|bool_?|str_|tensor", name):
            return _value(node.args[0], depth + 1)
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value(key, depth + 1) for key in node.keys if key is not None]
        values = [_value(value, depth + 1) for value in node.values]
        return {str(key): value for key, value in zip(keys, values, strict=True)}
    raise ValueError("no literal")


def _flat(values: Mapping[str, Any], before: str, depth: int) -> list[tuple[str, str]]:
    """(dotted key, text) of the values of a dict; W&B wraps those of a config as {'value': …}."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        inner = (
            value["value"]
            if isinstance(value, Mapping) and set(value) <= {"value", "desc"} and "value" in value
            else value
        )
        if isinstance(inner, Mapping) and depth < _DEEPEST:
            found += _flat(inner, f"{before}{key}.", depth + 1)
        elif not (isinstance(inner, list) or str(key) == "_wandb"):
            text = "" if inner is None else str(inner).lower() if isinstance(inner, bool) else str(inner)
            found.append((f"{before}{key}", text))
    return found


# --- a chart ----------------------------------------------------------------------------------------------------------


def _chart(source: ResultSource, table: Table) -> Table:
    """A row for each run and step of a chart. The lowest and highest values within a step are left out."""
    import pandas as pd

    rows = table.rows
    step = str(rows.columns[0])
    series: dict[str, tuple[str, str]] = {}
    left_out = 0
    for column in map(str, rows.columns[1:]):
        end = next((bound for bound in _BOUNDS if column.endswith(bound)), None)
        match = re.match(_CHART, column.removesuffix(end or ""))
        if match is None:
            raise DataError(
                f"the column {cut(column)!r} is not called RUN - METRIC, as the others are",
                place=str(source.path),
            )
        if end or (column.endswith("_step") and column.removesuffix("_step") in rows):
            left_out += 1
        else:
            series[column] = match["run"].strip(), match["metric"].strip()
    metrics = list(dict.fromkeys(metric for _, metric in series.values()))
    parts: dict[str, pd.DataFrame] = {}
    for column, (run, metric) in series.items():
        part = pd.DataFrame({"run": run, step: rows[step], metric: rows[column]})
        part = part[part[metric] != ""]
        parts[run] = parts[run].merge(part, on=["run", step], how="outer") if run in parts else part
    long = pd.concat(parts.values(), ignore_index=True).fillna("")[["run", step, *metrics]]
    long.index = pd.RangeIndex(1, len(long) + 1)
    notes = [
        (
            f"this is the data of a chart, {counted(len(parts), 'run')} by name: it does not say which arm or seed a run has. "
            "--split 'run={arm}-{seed}' reads them from names that have them; the table of runs (Runs, Export as CSV) has them all"
        )
    ]
    if left_out:
        notes.append(
            f"{counted(left_out, 'column')} with the lowest and highest value within a step left out"
        )
    return Table(
        long,
        {**table.options, "reader": "wandb"},
        (*table.notes, *notes),
        table.repeated,
        measured=tuple(metrics),
    )
