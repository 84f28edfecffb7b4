"""Metrics in a file that grows: CSV with names in its first line, or JSON lines; or in a file of JSON that is there in the end.

    metrics: {accuracy: {file: "{run_dir}/log.csv", column: val_acc}}

A path is looked for in the folder of the run, then in the folder that the command runs in. That has to be the run's own copy (`isolate:
true`): in one that runs share, those that go side by side write the same file, and each would read what another has written.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.text import cut
from ablate.training.arguments import parse
from ablate.training.channels.json_lines import (
    PrintedFloat,
    check_names,
    json_object,
    number_in,
    step_of,
    value_at,
)
from ablate.training.channels.reading import Findings, Places
from ablate.training.outcome import MetricsError

MOST_READ = 256 << 20
"""Bytes of a file beyond which it is no list of metrics."""


class _Growing:
    """The rows of a file that is appended to, or written again and again with more rows in it.

    What was there before the command began is not its own: it is left out unless the file is written anew.
    """

    def __init__(self, candidates: tuple[Path, ...]) -> None:
        self.candidates = candidates
        self.names: tuple[str, ...] = ()
        self._before = {path: self._state(path) for path in candidates}
        self._old = {path: self._content(path) for path in candidates}
        self._state_read: object = None
        self._rows: list[Mapping[str, Any]] = []
        self.path: Path | None = None
        """The one that rows were read from; None: nothing was written yet."""

    @staticmethod
    def _state(path: Path) -> tuple[int, int, int] | None:
        try:
            about = path.stat()
        except OSError:
            return None
        return about.st_ino, about.st_size, about.st_mtime_ns

    @staticmethod
    def _content(path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                return file.read(MOST_READ)
        except OSError:
            return b""

    def new_rows(self, ended: bool) -> list[Mapping[str, Any]]:
        """Return the whole rows that were added, or written anew, since the last time. ended: nobody will write any more."""
        path = next(
            (p for p in self.candidates if (state := self._state(p)) and state != self._before[p]), None
        )
        if path is None or (now := (path, self._state(path), ended)) == self._state_read:
            return []
        self._state_read = now
        content = self._content(path)
        rows = self._parsed(path, content, ended)
        if path != self.path:
            self.path, self._rows = path, []
            old = self._old[path]
            if old and len(content) > len(old) and content.startswith(old):
                self._rows = self._parsed(path, old, ended=True)
        same = 0
        while same < min(len(rows), len(self._rows)) and _filled(rows[same]) == _filled(self._rows[same]):
            same += 1
        if same < len(rows):  # else it is as it was, or was opened just now to be written anew
            self._rows = rows
        return rows[same:]

    def _parsed(self, path: Path, content: bytes, ended: bool) -> list[Mapping[str, Any]]:
        """Return the rows of a file. Before it has ended, a last line without an end is not whole yet."""
        text = (content if ended else content[: content.rfind(b"\n") + 1]).decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        if path.suffix.lower() in (".jsonl", ".ndjson", ".json") or (
            lines and lines[0].lstrip().startswith("{")
        ):
            rows: list[Mapping[str, Any]] = []
            if lines and lines[0].strip().startswith("{"):
                rows = [row for line in lines if (row := json_object(line)) is not None]
            if ended and not rows:
                rows = _of_document(text)
            self.names = tuple(dict.fromkeys(name for row in rows for name in row))
            return rows
        if not lines:
            return []
        reader = csv.DictReader(
            lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", skipinitialspace=True
        )
        rows = [{(name or "").strip(): value for name, value in row.items()} for row in reader]
        self.names = tuple((name or "").strip() for name in reader.fieldnames or ())
        return rows


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says: columns that come later are empty in the rows before."""
    return {name: repr(value) for name, value in row.items() if value not in ("", None)}


def _of_document(text: str) -> list[Mapping[str, Any]]:
    """Return the objects of a text that is JSON as a whole: one, or a list of them."""
    try:
        value = json.loads(text, parse_float=PrintedFloat)
    except (ValueError, RecursionError):
        return []
    return [row for row in (value if isinstance(value, list) else [value]) if isinstance(row, dict)]


class FileChannel:
    """Files that the command writes."""

    key = "file"
    others: tuple[str, ...] = ("column", "step")

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        check_names(metric, spec)
        place = f"metrics.{metric}.file"
        for path in parse(spec["file"], place).paths:
            if path != "run_dir":
                raise StudyError(
                    f"{{{cut(path)}}} is not known here",
                    place=place,
                    hint="only {run_dir} is filled into the path of a file",
                )

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], places: Places) -> None:
        self._specs = specs
        self._run = places.run
        self._found: set[str] = set()
        self._files: dict[str, _Growing] = {}
        for spec in specs.values():
            text = parse(spec["file"], "metrics").text(lambda _: str(places.run))
            if spec["file"] not in self._files:
                self._files[spec["file"]] = _Growing(
                    tuple(dict.fromkeys((places.run / text, places.folder / text)))
                )

    def line(self, text: str) -> Findings:  # noqa: ARG002 — it reads files
        return []

    def look(self, ended: bool) -> list[Findings]:
        groups: list[Findings] = []
        for name, file in self._files.items():
            rows = file.new_rows(ended)
            if rows and file.path is not None and not self._is_own(file.path):
                raise MetricsError(
                    f"{str(file.path)!r} is not the run's own: runs that go side by side write the same file. With `isolate: true` each has"
                    " a copy of the folder; or let the command write it to {run_dir}",
                    place=next(
                        f"metrics.{m}.file" for m, spec in self._specs.items() if spec["file"] == name
                    ),
                )
            for row in rows:
                groups.append([])
                for metric, spec in self._specs.items():
                    if spec["file"] != name:
                        continue
                    value = value_at(row, spec.get("column", metric))
                    found = number_in(metric, value, step_of(row, spec.get("step")))
                    if found is not None:
                        self._found.add(metric)
                        groups[-1].append(found)
        return groups

    def _is_own(self, path: Path) -> bool:
        # Real folders: the run's may be named by a path with links in it.
        return path.parent.resolve().is_relative_to(self._run.resolve())

    def missing(self) -> Mapping[str, str]:
        return {
            metric: self._why(metric, spec)
            for metric, spec in self._specs.items()
            if metric not in self._found
        }

    def _why(self, metric: str, spec: Mapping[str, Any]) -> str:
        names = self._files[spec["file"]].names
        if not names:
            return f"nothing was written to {spec['file']!r}, in {{run_dir}} or in the folder of the command"
        return f"{spec['file']!r} has no number in a column {spec.get('column', metric)!r}; it has {cut(', '.join(names))}"
