"""Runs that have a file each: logs, JSON reports, tables of metrics by step; and the settings that lie beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate import metrics
from ablate.errors import DataError, StudyError
from ablate.importing import csv, json, tensorboard, yaml_values
from ablate.importing.columns import FILE, step_rank
from ablate.importing.source import ResultSource, matching
from ablate.importing.table import HowToRead, Table, checked_total, decoded, rows_of
from ablate.text import counted, cut, joined, storable

READING = "reading"
"""Column that counts the values of a log that names no step."""

_SETTINGS_BYTES, _SETTINGS_DEPTH, _MOST_SETTINGS = 1 << 20, 20, 2_000
"""What a file of settings may hold."""

_LONGEST_LINE = 1_000
"""Characters of a line from which a pattern is made."""

_PLAIN = r"([\d.]+)"
_VALUE = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"


def recognizes(source: ResultSource) -> bool:
    """Return whether files are named by a pattern: `runs/{arm}/seed{seed}.json`."""
    return source.is_pattern


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return the rows of all files that a pattern matches, with a column for each of its names.

    Raises DataError where none matches or one cannot be read, StudyError for a pattern that could be read in several ways.
    """
    return read_files(_resumed(matching(source.text)), how)


def _resumed(files: Sequence[tuple[Path, dict[str, str]]]) -> list[tuple[Path, Mapping[str, str]]]:
    """Files of which those that TensorBoard writes when a run is resumed are named as one: the same folder, the same columns."""
    if not all(named and ".tfevents." in path.name for path, named in files):
        return list(files)
    return [
        (path, {**named, FILE: str(path.parent)} if _shares(files, at) else named)
        for at, (path, named) in enumerate(files)
    ]


def _shares(files: Sequence[tuple[Path, dict[str, str]]], at: int) -> bool:
    """Whether the file before or after this one, in their order, is of the same run."""
    path, named = files[at]
    return any(
        0 <= other < len(files) and (files[other][0].parent, files[other][1]) == (path.parent, named)
        for other in (at - 1, at + 1)
    )


def read_files(files: Sequence[tuple[Path, Mapping[str, str]]], how: HowToRead) -> Table:
    """Return the rows of files of which each is one run.

    files: each with the columns that it has besides its own. Raises DataError where one cannot be read, or says something
    else than its columns.
    """
    import pandas as pd

    checked_total([path for path, _ in files])
    parts, options = [], None
    noted: dict[str, list[Path]] = {}
    resolutions: dict[str, float] = {}
    patterns = dict(_patterns(how))
    silent: list[Path] = []
    for path, named in files:
        columns = {name: storable(text) for name, text in named.items()}
        if patterns:
            table = _log(path, patterns)
            silent += [] if table.resolutions else [path]
        else:
            table = _content(path, how)
        rows = table.rows
        for name, text in columns.items():
            if name in rows and not (rows[name] == text).all():
                inside = next(cell for cell in rows[name] if cell != text)
                raise DataError(
                    f"its {name} is {cut(text)!r} by its path and {cut(inside)!r} in the file",
                    place=str(path),
                    hint=f"give {{{name}}} another name in the pattern",
                )
        parts.append(rows.assign(**({} if FILE in rows else {FILE: storable(str(path))}) | columns))
        for note in table.notes:
            noted.setdefault(note, []).append(path)
        options = dict(table.options) if options in (None, table.options) else {}
        for name, step in table.resolutions.items():
            resolutions[name] = max(step, resolutions.get(name, 0.0))
    rows = pd.concat(parts, keys=[storable(str(path)) for path, _ in files]).fillna("")
    names = [name for name in rows if name in files[0][1] and name != FILE]
    rows = rows[[*names, *(name for name in rows if name not in {*names, FILE}), FILE]]
    if silent and len(silent) == len(files):
        raise DataError(
            f"no line of {counted(len(files), 'file')} has {joined(how.lines, 'or')}",
            place="--line",
            hint=f"a line of {files[0][0]}: {_some_line(files[0][0])}",
        )
    measured = tuple(name for name, pattern in patterns.items() if pattern.groups)
    notes = []
    for note, paths in noted.items():
        others = f" and {counted(len(paths) - 1, 'other file')}" if len(paths) > 1 else ""
        notes.append(f"{paths[0]}{others}: {note}")
    return Table(rows, options or {}, tuple(notes[:10]), resolutions=resolutions, measured=measured)


def _content(path: Path, how: HowToRead) -> Table:
    """The rows of one file, whatever it is."""
    source = ResultSource(str(path))
    if tensorboard.recognizes(source):
        return tensorboard.read(source, how)
    is_json = how.reader == "json" if how.reader else json.recognizes(source)
    return json.read_report(path, how) if is_json else csv.read(source, how)


# --- logs -------------------------------------------------------------------------------------------------------------


def _patterns(how: HowToRead) -> Iterable[tuple[str, Any]]:
    """The patterns of `--line`, by the names of what they find."""
    from ablate.lines import parse_pattern

    found: dict[str, Any] = {}
    for text in how.lines:
        pattern = parse_pattern(text, "--line")
        name = _name(text) if pattern.groups else "step"
        if (
            how.metric is not None
            and len([one for one in how.lines if parse_pattern(one, "--line").groups]) == 1
        ):
            name = how.metric if pattern.groups else name
        if name in found:
            raise StudyError(
                f"two patterns for {name!r}",
                place="--line",
                hint="name what they find: (?P<val_loss>[\\d.]+)",
            )
        found[name] = pattern
    return found.items()


def proposed_lines(path: Path) -> list[str]:
    r"""Return patterns that may read a log, made from its last line with a metric; empty where no line has one.

    Of `Epoch 3: val_loss 0.5`: one of the number after `val_loss`, and `Epoch (?P<step>\d+)`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(1 << 16).decode(errors="replace")
    except OSError:
        return []
    proposed: list[tuple[bool, str]] = []
    step = None
    for line in text.splitlines():
        if len(line) > _LONGEST_LINE:
            continue
        values = re.findall(
            rf"((?:\b(?:{'|'.join(sorted(metrics.SPLITS))}) )?[A-Za-z][\w/-]*)(\s*[:=]\s*|\s+)([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)",
            line,
        )
        known = [
            (name, between, text) for name, between, text in values if metrics.direction(name) is not None
        ]
        # Between two evaluations stand lines of single steps.
        if known and (any("val" in name.lower() for name, _, _ in known) or not any(v for v, _ in proposed)):
            proposed = [
                (
                    "val" in name.lower(),
                    re.escape(name).replace("\\-", "-").replace("\\ ", " ")
                    + _spaces(between)
                    + (_PLAIN if re.fullmatch(r"[\d.]+", text) else _VALUE),
                )
                for name, between, text in known
            ]
            step = next(
                (
                    re.escape(name) + _spaces(between) + r"(?P<step>\d+)"
                    for name, between, _ in values
                    if step_rank(name) is not None
                ),
                step,
            )
    proposed.sort(key=lambda item: not item[0])
    return [*(pattern for _, pattern in proposed[:1]), *([step] if proposed and step else [])]


def _spaces(text: str) -> str:
    return re.sub(r"\s+", lambda m: " " if m[0] == " " else r"\s*", text)


def _name(pattern: str) -> str:
    """What a pattern calls its value: the name of its group, or else the last word before it; `value` without one."""
    named = [name for name in re.findall(r"\(\?P<(\w+)>", pattern) if name != "step"]
    if named:
        return str(named[0])
    before = re.sub(r"\(\?P<step>[^)]*\)", " ", pattern)
    before = re.split(r"(?<!\\)\((?!\?)", before)[0]
    words = re.findall(r"[A-Za-z][\w/.-]*", re.sub(r"\\[a-zA-Z]", " ", before))
    return words[-1].rstrip(".-/") if words else "value"


def _log(path: Path, patterns: Mapping[str, Any]) -> Table:
    """A row for each line of a log that has a value; without any, one row without values."""
    from ablate.lines import LineReader, LineSplitter

    reader, splitter = LineReader(patterns), LineSplitter()
    records: list[dict[str, str]] = []
    times: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            while True:
                data = file.read(1 << 20)
                for line in splitter.feed(data) if data else splitter.end():
                    readings = reader.read(line)
                    if not readings:
                        continue
                    record = {name: repr(reading.value) for name, reading in readings.items()}
                    steps = [reading.step for reading in readings.values() if reading.step is not None]
                    for name in readings:
                        times[name] = times.get(name, 0) + 1
                    record |= {"step": str(steps[-1])} if steps else {}
                    record[READING] = str(max(times[name] for name in readings))
                    records.append(record)
                if not data:
                    break
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None
    names = [name for name, pattern in patterns.items() if pattern.groups]
    counter = "step" if any("step" in record for record in records) else READING
    columns = [counter, *names]
    rows = rows_of(path, records or [{}], columns)
    notes = tuple(f"{text!r} is no number" for text in reader.unreadable.values())
    return Table(rows, {}, notes, resolutions=reader.resolutions)


def _some_line(path: Path) -> str:
    """A line of a log for a message: the last that has a number."""
    with path.open("rb") as file:
        text = file.read(1 << 16).decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if re.search(r"\d", line)]
    return cut(lines[-1], 100) if lines else "(no line with a number)"


# --- settings ---------------------------------------------------------------------------------------------------------


def settings(path: Path) -> dict[str, str]:
    """Return the settings in a YAML file as text, nested ones under dotted names; empty where there is no such file.

    A file that YAML's safe loader does not read, such as one with Python's objects, has none.
    """
    if not path.is_file() or path.stat().st_size > _SETTINGS_BYTES:
        return {}
    try:
        return dict(_flat(yaml_values.load(decoded(path, "utf-8")[0]), "", 0))
    except (DataError, ValueError):
        return {}


def overrides(path: Path) -> dict[str, str]:
    """Return the settings in a list of `name=value`, as Hydra writes its overrides; empty where there is no such file."""
    if not path.is_file() or path.stat().st_size > _SETTINGS_BYTES:
        return {}
    try:
        content = yaml_values.load(decoded(path, "utf-8")[0])
    except (DataError, ValueError):
        return {}
    if not isinstance(content, list):
        return {}
    pairs = [item.lstrip("+~").partition("=") for item in content[:_MOST_SETTINGS] if isinstance(item, str)]
    return {name: value for name, equals, value in pairs if name and equals}


def _flat(value: Any, name: str, depth: int) -> list[tuple[str, str]]:
    """Nested settings as (dotted name, text). Raises ValueError where there are too many: aliases of YAML multiply."""
    if isinstance(value, Mapping) and depth < _SETTINGS_DEPTH:
        found: list[tuple[str, str]] = []
        for key, inner in value.items():
            found += _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
            if len(found) > _MOST_SETTINGS:
                raise ValueError("too many settings")
        return found
    if not name:
        return []
    if isinstance(value, list | Mapping):
        return [(name, f"({counted(len(value), 'value')})")]
    return [(name, "" if value is None else str(value).lower() if isinstance(value, bool) else str(value))]
