"""Experiments of MLflow: a server, a database, or an `mlruns` folder of the old file store.

A local store is read as it is and stays as it is: MLflow itself would want to bring an older database up to date first, and
no longer opens a folder of files.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablate import addresses
from ablate.errors import DataError, nearest
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, checked_columns, rows_of
from ablate.text import without_password

_PLACES = ("mlruns/mlflow.db", "mlflow.db", "mlruns")
"""Where experiments are looked for, where nothing names the store."""

_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
"""States of a run in a folder of files."""

_MOST_SECONDS = 120.0
"""A database that takes longer is not read: what a file says must not decide how long it takes."""

_MOST_ROWS = 5_000_000

_LARGEST = 1.79e308
"""MLflow keeps infinity as the largest number that there is."""


@dataclass
class _StoredRun:
    """One run of an experiment. metrics: the last value of each. history: step → value of the metric that was asked for."""

    identity: str
    name: str
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    history: list[tuple[int, str]] = field(default_factory=list)


class _Backend(Protocol):
    def experiments(self) -> Mapping[str, str]:
        """Name → id of every experiment that is not deleted."""

    def runs(self, experiment: str, metric: str | None) -> list[_StoredRun]:
        """The runs of an experiment that are not deleted. metric: the one whose history is wanted; None: of none."""


def recognizes(source: ResultSource) -> bool:
    """Return whether this is `mlflow:EXPERIMENT` or `mlflow:STORE#EXPERIMENT`."""
    return source.after("mlflow") is not None


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return a row for each run of an experiment: parameters, last values of metrics, tags, its name, id and status.

    With `how.history` and a metric, a row for each of its steps. STORE is an address, or a file or folder; without one it is
    what MLFLOW_TRACKING_URI names, else the first of `_PLACES` that has the experiment. A name that a parameter shares with a
    metric or a tag has `params.` before it. Raises DataError where there is no such experiment, or the store cannot be read.
    """
    import pandas as pd

    store, _, experiment = (source.after("mlflow") or "").rpartition("#")
    places = (
        [store]
        if store
        else [os.environ["MLFLOW_TRACKING_URI"]]
        if os.environ.get("MLFLOW_TRACKING_URI")
        else []
    )
    found = [place for place in places or _PLACES if places or Path(place).exists()]
    if not found:
        raise DataError(
            "there is no store of MLflow here",
            place=source.text,
            hint="name it, mlflow:sqlite:///mlflow.db#EXPERIMENT or mlflow:mlruns#EXPERIMENT, or set MLFLOW_TRACKING_URI",
        )
    known: dict[str, None] = {}
    for place in found:
        backend = _backend(place, source.text)
        names = backend.experiments()
        if experiment in names:
            break
        known |= dict.fromkeys(names)
    else:
        raise DataError(
            f"there is no experiment {experiment!r}" if experiment else "which experiment?",
            place=" or ".join(map(without_password, found)),
            hint=nearest(experiment, known) if known else "there is none at all",
        )
    metric = how.metric.removeprefix("metrics.") if how.history and how.metric is not None else None
    runs = backend.runs(names[experiment], metric)
    if not runs:
        raise DataError(f"the experiment {experiment!r} has no run", place=without_password(place))
    records, measured, settings = _records(runs, metric)
    columns = list(dict.fromkeys(name for record in records for name in record))
    checked_columns(Path(source.text), columns)
    rows = rows_of(records, columns, pd.RangeIndex(1, len(records) + 1))
    notes = () if len(found) == 1 and store else (f"read from {without_password(place)}",)
    return Table(rows.fillna(""), {}, notes, measured=measured, settings=settings)


def _records(
    runs: list[_StoredRun], metric: str | None
) -> tuple[list[dict[str, str]], tuple[str, ...], tuple[str, ...]]:
    """The rows of runs, the columns that are metrics, and those that are parameters."""
    own = {"run_name", "run_id", "status", "step"}
    params = {name for run in runs for name in run.params}
    metrics = {name for run in runs for name in run.metrics}
    tags = {name for run in runs for name in run.tags if not name.startswith("mlflow.")}
    named_params = {
        name: f"params.{name}" if name in metrics | tags | own else name for name in sorted(params)
    }
    named_metrics = {
        name: f"metrics.{name}" if name in params | tags | own else name for name in sorted(metrics)
    }
    named_tags = {name: f"tags.{name}" if name in metrics | params | own else name for name in sorted(tags)}
    records = []
    for run in runs:
        record = {"run_name": run.name, "run_id": run.identity, "status": run.status}
        record |= {named_params[name]: value for name, value in run.params.items()}
        record |= {named_tags[name]: value for name, value in run.tags.items() if name in named_tags}
        if metric is None:
            records.append(record | {named_metrics[name]: value for name, value in run.metrics.items()})
        elif run.history:
            column = named_metrics.get(metric, metric)
            records += [record | {"step": str(step), column: value} for step, value in run.history]
        else:
            records.append(record | {"step": "", named_metrics.get(metric, metric): ""})
        if len(records) > _MOST_ROWS:
            raise DataError(f"has more than {_MOST_ROWS:,} values", place="mlflow", hint="judge it in parts")
    wanted = named_metrics if metric is None else {metric: named_metrics.get(metric, metric)}
    return records, tuple(wanted.values()), tuple(named_params.values())


def _backend(store: str, place: str) -> _Backend:
    """The store at an address. Raises DataError where there is none."""
    path = None
    if not addresses.is_address(store):
        raise DataError(
            "is no address of a store",
            place=without_password(store),
            hint="for example mlflow:http://HOST:PORT#EXPERIMENT",
        )
    if store.startswith("file:"):
        path = addresses.folder_path(store)
    elif store.startswith(addresses.SQLITE):
        path = addresses.database_path(store)
    elif "://" not in store and store != "databricks":
        path = Path(store)
    if path is None:
        return _Server(store)
    if path.is_dir():
        return _Folder(path)
    if path.is_file():
        return _Database(path)
    raise DataError(
        "there is no such store",
        place=f"{place} ({path})",
        hint="a folder `mlruns`, a database, or an address",
    )


def _number(value: float) -> str:
    return "inf" if value >= _LARGEST else "-inf" if value <= -_LARGEST else repr(value)


# --- a database -------------------------------------------------------------------------------------------------------


class _Database:
    """An sqlite database, which is opened for reading only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def experiments(self) -> Mapping[str, str]:
        rows = self._rows("SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'")
        return {str(name): str(identity) for name, identity in rows}

    def runs(self, experiment: str, metric: str | None) -> list[_StoredRun]:
        runs = {
            str(identity): _StoredRun(str(identity), str(name or ""), str(status))
            for identity, name, status in self._rows(
                "SELECT run_uuid, name, status FROM runs WHERE experiment_id = ? AND lifecycle_stage = 'active' "
                "ORDER BY start_time, run_uuid",
                experiment,
            )
        }
        within = "run_uuid IN (SELECT run_uuid FROM runs WHERE experiment_id = ?)"
        for table in ("params", "tags"):
            for identity, key, value in self._rows(
                f"SELECT run_uuid, key, value FROM {table} WHERE {within}",  # noqa: S608 — one of two words
                experiment,
            ):
                if identity in runs:
                    getattr(runs[identity], table)[str(key)] = str(value or "")
        for identity, key, value, is_nan in self._rows(
            f"SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE {within}",  # noqa: S608 — as above
            experiment,
        ):
            if identity in runs:
                runs[identity].metrics[str(key)] = "nan" if is_nan else _number(float(value))
        if metric is not None:
            for identity, step, value, is_nan in self._rows(
                f"SELECT run_uuid, step, value, is_nan FROM metrics WHERE key = ? AND {within} ORDER BY timestamp",  # noqa: S608 — as above
                metric,
                experiment,
            ):
                if identity in runs:
                    runs[identity].history.append((int(step), "nan" if is_nan else _number(float(value))))
        for run in runs.values():
            run.name = run.name or run.tags.get("mlflow.runName", "")
        return list(runs.values())

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        deadline = time.monotonic() + _MOST_SECONDS
        try:
            address = f"{addresses.folder_address(self._path.absolute())}?mode=ro"
            with closing(sqlite3.connect(address, uri=True, timeout=10.0)) as connection:
                connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
                found = connection.execute(query, values).fetchmany(_MOST_ROWS + 1)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            reason = (
                "is no database of MLflow"
                if "no such" in str(error) or "not a database" in str(error)
                else "cannot be read"
            )
            raise DataError(f"{reason} ({error})", place=str(self._path)) from None
        if len(found) > _MOST_ROWS:
            raise DataError(
                f"has more than {_MOST_ROWS:,} values", place=str(self._path), hint="judge it in parts"
            )
        return found


# --- a folder of files ------------------------------------------------------------------------------------------------


class _Folder:
    """The old file store: a folder for each experiment, in it one for each run, in it a file for each value."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def experiments(self) -> Mapping[str, str]:
        found = {}
        for folder in self._folders(self._path):
            about = _about(folder / "meta.yaml")
            if about.get("lifecycle_stage", "active") == "active" and "name" in about:
                found[about["name"]] = folder.name
        if not found:
            raise DataError(
                "is no folder of MLflow",
                place=str(self._path),
                hint="it has a folder for each experiment, each with a meta.yaml",
            )
        return found

    def runs(self, experiment: str, metric: str | None) -> list[_StoredRun]:
        runs = []
        for folder in self._folders(self._path / experiment):
            about = _about(folder / "meta.yaml")
            if about.get("lifecycle_stage", "active") != "active" or "artifact_uri" not in about:
                continue
            status = _STATES.get(about.get("status", ""), about.get("status", ""))
            run = _StoredRun(folder.name, about.get("run_name", ""), status)
            run.params = dict(_values(folder / "params"))
            run.tags = dict(_values(folder / "tags"))
            for name, text in _values(folder / "metrics"):
                history = _history(text, folder / "metrics" / name)
                if history:
                    run.metrics[name] = history[-1][1]
                if name == metric:
                    run.history = history
            run.name = run.name or run.tags.get("mlflow.runName", "")
            runs.append(
                (int(about.get("start_time") or 0) if about.get("start_time", "0").isdigit() else 0, run)
            )
            if len(runs) > _MOST_ROWS:
                break
        return [run for _, run in sorted(runs, key=lambda item: (item[0], item[1].identity))]

    def _folders(self, path: Path) -> Iterator[Path]:
        try:
            yield from sorted(
                folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
            )
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _about(path: Path) -> dict[str, str]:
    """The plain values of a `meta.yaml`; empty where there is none."""
    text = _text(path)
    pairs = re.findall(r"^(\w+): *(.*?) *$", text, re.MULTILINE)
    return {name: value.strip("'\"") for name, value in pairs if value not in ("", "null")}


def _values(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every file in a folder; a name with a slash is a file in a folder."""
    if folder.is_dir():
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), _text(path)


def _text(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > 1 << 26:
            return ""
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _history(text: str, path: Path) -> list[tuple[int, str]]:
    """(step, value) of every line `time value step`, the last as MLflow has it: of the largest step, then time."""
    values: list[tuple[int, float, float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        cells = line.split()
        try:
            values.append((int(cells[2]) if len(cells) > 2 else 0, float(cells[0]), float(cells[1])))
        except (ValueError, IndexError):
            raise DataError(f"line {number} is no value of a metric", place=str(path)) from None
    return [
        (step, "nan" if math.isnan(value) else _number(value))
        for step, _, value in sorted(values, key=lambda v: v[:2])
    ]


# --- a server ---------------------------------------------------------------------------------------------------------


class _Server:
    """A tracking server, or another store that only MLflow knows how to read."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def experiments(self) -> Mapping[str, str]:
        def found(client: Any) -> dict[str, str]:
            experiments, token = [], None
            while True:
                page = client.search_experiments(max_results=1000, page_token=token)
                experiments += page
                token = page.token
                if not token:
                    return {experiment.name: experiment.experiment_id for experiment in experiments}

        return dict(self._asked(found))

    def runs(self, experiment: str, metric: str | None) -> list[_StoredRun]:
        def found(client: Any) -> list[_StoredRun]:
            runs: list[_StoredRun] = []
            token = None
            while True:
                page = client.search_runs(
                    [experiment], max_results=1000, page_token=token, order_by=["attributes.start_time"]
                )
                for run in page:
                    own = _StoredRun(run.info.run_id, run.info.run_name or "", run.info.status)
                    own.params, own.tags = dict(run.data.params), dict(run.data.tags)
                    own.metrics = {name: _number(float(value)) for name, value in run.data.metrics.items()}
                    if metric is not None and metric in own.metrics:
                        history = sorted(
                            client.get_metric_history(own.identity, metric),
                            key=lambda m: (m.step, m.timestamp),
                        )
                        own.history = [(int(m.step), _number(float(m.value))) for m in history]
                    runs.append(own)
                token = page.token
                if not token:
                    return runs

        return list(self._asked(found))

    def _asked(self, question: Any) -> Iterable[Any]:
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"),
        ):
            os.environ.setdefault(name, value)
        import logging

        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            return question(MlflowClient(self._uri))  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from answering
            text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            text = re.sub(r" failed with exception .*", " failed", text)[:300].replace(
                self._uri, without_password(self._uri)
            )
            raise DataError(
                f"does not answer ({text})",
                place=without_password(self._uri),
                hint="is the server running, and is this its address?",
            ) from None
