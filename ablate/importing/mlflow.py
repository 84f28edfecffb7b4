"""Experiments of MLflow: a server, a database, or an `mlruns` folder of the old file store.

A local store is read as it is and stays as it is: MLflow itself would want to bring an older database up to date first, and
no longer opens a folder of files.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ablate import addresses, plain_files
from ablate.errors import DataError, nearest
from ablate.importing import database, yaml_values
from ablate.importing.source import ResultSource
from ablate.importing.table import MOST_COLUMNS, HowToRead, Table, rows_of
from ablate.text import counted, cut, joined, parse_whole, without_password

_PLACES = ("mlruns/mlflow.db", "mlflow.db", "mlruns")
"""Where experiments are looked for, where nothing names the store."""

_STATES = {"1": "RUNNING", "2": "SCHEDULED", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
"""States of a run in a folder of files."""

_MOST_SECONDS = database.MOST_SECONDS

_MOST_ROWS = 5_000_000

_TABLES = frozenset({"experiments", "runs", "params", "tags", "metrics", "latest_metrics"})

_LARGEST_STEP = (1 << 63) - 1

_MOST_OF_META, _MOST_OF_VALUE = 1 << 20, 1 << 26
"""Bytes of a `meta.yaml`, and of the file of a parameter, a tag or a metric."""

_PLAIN_META = r"(\w+: *(|'[^'\n]*'|[\w./:-]*[\w./-]) *\n)*"
"""A `meta.yaml` in which every line is a key and a value, quoted or not, without anything of YAML's in it."""

_LARGEST = 1.79e308
"""MLflow keeps infinity as the largest number that there is."""


@dataclass
class _StoredRun:
    """One run of an experiment.

    metrics: the last value of each, and last_steps its step. history: (step, value) of the metric that was asked for.
    """

    identity: str
    name: str
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    last_steps: dict[str, int] = field(default_factory=dict)
    history: list[tuple[int, str]] = field(default_factory=list)


class _Backend(Protocol):
    notes: list[str]
    """What was left out of the runs, and why."""

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
    store, hash_sign, experiment = (source.after("mlflow") or "").rpartition("#")
    if not hash_sign and _is_store(experiment):
        store, experiment = experiment, ""
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
    rows = rows_of(Path(source.text), records)
    notes = () if len(found) == 1 and store else (f"read from {without_password(place)}",)
    return Table(
        rows,
        {},
        (*notes, *backend.notes),
        measured=measured,
        settings=settings,
        step="step" if metric is not None else None,
        run="run_id",
        last_steps={} if metric is not None else _last_steps(runs, rows.columns),
    )


def _last_steps(runs: list[_StoredRun], columns: Collection[str]) -> dict[str, dict[str, int]]:
    """Column of a metric → run → the step of its last value, of the runs that finished."""
    found: dict[str, dict[str, int]] = {}
    for run in (run for run in runs if run.status == "FINISHED"):
        for name, step in run.last_steps.items():
            column = f"metrics.{name}"
            found.setdefault(column if column in columns else name, {})[run.identity] = step
    return found


def _is_store(text: str) -> bool:
    """Return whether this is the place of a store rather than the name of an experiment."""
    path = Path(text)
    return bool(text) and ("://" in text or path.is_file() or any(path.glob("*/meta.yaml")))


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


def _by_name(pairs: Iterable[tuple[str, str]], place: Path) -> dict[str, str]:
    """Name → id. Raises DataError where two experiments have one name, which MLflow itself does not allow."""
    found: dict[str, str] = {}
    for name, identity in pairs:
        if found.setdefault(name, identity) != identity:
            raise DataError(
                f"has two experiments that are called {name!r}: {found[name]} and {identity}",
                place=str(place),
                hint="a copy of an experiment needs a name of its own",
            )
    return found


def _place(step: int, time: float, value: float) -> tuple[int, float, float]:
    """Return where a value stands in the order of MLflow, which keeps NaN as 0."""
    return step, time, 0.0 if math.isnan(value) else value


def _number(value: float) -> str:
    return "inf" if value >= _LARGEST else "-inf" if value <= -_LARGEST else repr(value)


# --- a database -------------------------------------------------------------------------------------------------------


class _Database:
    """An sqlite database, which is opened for reading only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []

    def experiments(self) -> Mapping[str, str]:
        rows = self._rows("SELECT name, experiment_id FROM experiments WHERE lifecycle_stage = 'active'")
        return _by_name(((str(name), str(identity)) for name, identity in rows), self._path)

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
                    values = getattr(runs[identity], table)
                    self._refuse_twice(values, key, identity)
                    values[str(key)] = "" if value is None else str(value)
        for identity, key, value, is_nan, step in self._rows(
            f"SELECT run_uuid, key, value, is_nan, step FROM latest_metrics WHERE {within}",  # noqa: S608 — as above
            experiment,
        ):
            if identity in runs:
                self._refuse_twice(runs[identity].metrics, key, identity)
                runs[identity].metrics[str(key)] = self._value(key, value, is_nan)
                if isinstance(step, int):
                    runs[identity].last_steps[str(key)] = step
        if metric is not None:
            for identity, step, value, is_nan in self._rows(
                f"SELECT run_uuid, step, value, is_nan FROM metrics WHERE key = ? AND {within} ORDER BY step, timestamp, value",  # noqa: S608 — as above
                metric,
                experiment,
            ):
                if identity in runs:
                    if not isinstance(step, int):
                        raise self._no_number(metric, step)
                    runs[identity].history.append((step, self._value(metric, value, is_nan)))
        for run in runs.values():
            run.name = run.name or run.tags.get("mlflow.runName", "")
        return list(runs.values())

    def _refuse_twice(self, values: Mapping[str, str], key: object, run: object) -> None:
        """Raise DataError where a run has a value already, which MLflow's own database does not allow."""
        if str(key) in values:
            raise DataError(f"the run {run} has two values of {cut(str(key))!r}", place=str(self._path))

    def _value(self, key: object, value: object, is_nan: object) -> str:
        """The text of a number. Raises DataError where it is none: a column of sqlite's holds whatever was put into it."""
        if is_nan:
            return "nan"
        if not isinstance(value, int | float):
            raise self._no_number(key, value)
        return _number(float(value))

    def _no_number(self, key: object, value: object) -> DataError:
        return DataError(
            f"a value of the metric {cut(str(key))!r} is no number: {cut(repr(value))}", place=str(self._path)
        )

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            with closing(database.opened(self._path, _TABLES, seconds=_MOST_SECONDS)) as connection:
                found = connection.execute(query, values).fetchmany(_MOST_ROWS + 1)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError, MemoryError) as error:
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
        self.notes: list[str] = []

    def experiments(self) -> Mapping[str, str]:
        about = {folder.name: _about(folder / "meta.yaml") for folder in self._folders(self._path)}
        found = _by_name(
            (
                (values["name"], identity)
                for identity, values in about.items()
                if values.get("lifecycle_stage", "active") == "active" and "name" in values
            ),
            self._path,
        )
        if not found:
            raise DataError(
                "is no folder of MLflow",
                place=str(self._path),
                hint="it has a folder for each experiment, each with a meta.yaml",
            )
        return found

    def runs(self, experiment: str, metric: str | None) -> list[_StoredRun]:
        runs, unread = [], []
        for folder in self._folders(self._path / experiment):
            about = _about(folder / "meta.yaml")
            if about.get("lifecycle_stage", "active") != "active":
                continue
            if "artifact_uri" not in about:
                if any((folder / name).is_dir() for name in ("params", "metrics")):
                    unread.append(folder.name)
                continue
            status = _STATES.get(about.get("status", ""), about.get("status", ""))
            run = _StoredRun(folder.name, about.get("run_name", ""), status)
            run.params = dict(_values(folder / "params"))
            run.tags = dict(_values(folder / "tags"))
            for name, text in _values(folder / "metrics"):
                history = _history(text, folder / "metrics" / name)
                if history:
                    run.last_steps[name], run.metrics[name] = history[-1]
                if name == metric:
                    run.history = history
            run.name = run.name or run.tags.get("mlflow.runName", "")
            began = parse_whole(about.get("start_time", ""))
            runs.append((began or 0, run))
            if len(runs) > _MOST_ROWS:
                break
        if unread:
            self.notes.append(
                f"{counted(len(unread), 'run')} left out, whose meta.yaml cannot be read: "
                f"{joined(unread[:5])}{' and more' if len(unread) > 5 else ''}"
            )
        return [run for _, run in sorted(runs, key=lambda item: (item[0], item[1].identity))]

    def _folders(self, path: Path) -> Iterator[Path]:
        try:
            yield from sorted(
                folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
            )
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _about(path: Path) -> dict[str, str]:
    """The values of a `meta.yaml` as text; empty where there is none, or it is no YAML."""
    try:
        text = plain_files.read(path, _MOST_OF_META).decode(errors="replace")
    except OSError:
        return {}
    if re.fullmatch(_PLAIN_META, text):  # thousands of them, at a thousandth of a second each by YAML
        pairs = re.findall(r"^(\w+): *(.*?) *$", text, re.MULTILINE)
        return {name: value.strip("'") for name, value in pairs if value not in ("", "null")}
    try:
        content = yaml_values.load(text)
    except ValueError:
        return {}
    if not isinstance(content, Mapping):
        return {}
    return {str(name): str(value) for name, value in content.items() if isinstance(value, str | int | float)}


def _values(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every file in a folder; a name with a slash is a file in a folder.

    Raises DataError where one is a link, or anything else that MLflow does not write there.
    """
    if folder.is_symlink():
        raise DataError("is a link, which is not followed", place=str(folder))
    if folder.is_dir():
        for number, path in enumerate(sorted(path for path in folder.rglob("*") if not _is_folder(path))):
            if number >= MOST_COLUMNS:
                raise DataError(f"has more than {MOST_COLUMNS:,} values", place=str(folder))
            yield path.relative_to(folder).as_posix(), _text(path)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _text(path: Path) -> str:
    try:
        if path.is_symlink():
            raise DataError("is a link, which is not followed", place=str(path))
        return plain_files.read(path, _MOST_OF_VALUE).decode(errors="replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _history(text: str, path: Path) -> list[tuple[int, str]]:
    """(step, value) of every line `time value step`, the last as MLflow has it: of the largest step, then time, then value."""
    values: list[tuple[int, float, float]] = []
    step: int | None
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        cells = line.split()
        try:
            step = parse_whole(cells[2]) if len(cells) > 2 else 0
            time, value = map(float, cells[:2])
        except ValueError:
            step = None
        if step is None or abs(step) > _LARGEST_STEP:
            raise DataError(f"line {number} is no value of a metric", place=str(path))
        values.append((step, time, value))
    return [
        (step, "nan" if math.isnan(value) else _number(value))
        for step, _, value in sorted(values, key=lambda v: _place(v[0], v[1], v[2]))
    ]


# --- a server ---------------------------------------------------------------------------------------------------------


class _Server:
    """A tracking server, or another store that only MLflow knows how to read."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.notes: list[str] = []

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
                    own.last_steps = {m.key: int(m.step) for m in run.to_proto().data.metrics}
                    if metric is not None and metric in own.metrics:
                        history = sorted(
                            client.get_metric_history(own.identity, metric),
                            key=lambda m: _place(m.step, m.timestamp, m.value),
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
