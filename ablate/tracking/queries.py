"""Queries on a store: which experiments and runs it holds, their tags, metrics and artifacts.

`Queries` is the interface, and every read of a store goes through it. It has two implementations, which give the same rows:
a local store is read with SQL, because MLflow's client needs seconds for what sqlite answers in a fraction; any other store is
read through MLflow's client.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ablate import addresses, plain_files
from ablate.errors import StoreError
from ablate.tracking import busy, client
from ablate.tracking.searches import PAGE, matching_runs, pages, run_filter
from ablate.tracking.store import Store, is_run_folder, link_in
from ablate.tracking.tags import is_whole, whole

if TYPE_CHECKING:
    from ablate.tracking.columns import Columns

MOST_CASES = 50
"""Metrics whose names the database is let number; more are numbered here."""

NOT_READ = frozenset({"ablate.config"})
"""Tags for people who open a run in MLflow: longer than all other tags together, and not read by ablate."""


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment of MLflow. deleted: in MLflow, where it can be restored."""

    id: str
    name: str
    deleted: bool


@dataclass(frozen=True)
class StoredRun:
    """A run as the store holds it.

    start, end: seconds since the epoch; end None while it runs. artifacts: the address of its artifacts.
    tags: those that begin with `ablate.`.
    """

    run_id: str
    experiment: str
    status: str
    start: float
    end: float | None
    artifacts: str
    tags: Mapping[str, str]

    @functools.cached_property
    def has_result(self) -> bool:
        """Whether the run is done; one that diverged is, and one whose tags do not say which epoch counts is not."""
        is_done = self.status == "FINISHED" and self.tags.get("ablate.outcome") in ("finished", "diverged")
        return is_done and is_whole(self.tags.get("ablate.epoch", "0"))

    @property
    def attempt(self) -> int:
        return whole(self.tags, "ablate.attempt", 1)

    @functools.cached_property
    def epoch(self) -> int:
        """The epoch at which the primary metric counts; 0 where the run has none."""
        return whole(self.tags, "ablate.epoch", 0)


MetricPoint = tuple[int, str, int, int, float]
"""Index of the run among those that were asked for, metric, step, time in milliseconds since the epoch, value."""


class Queries(Protocol):
    """What is asked of a store. Every method raises StoreError where the store cannot be read."""

    def experiment(self, name: str) -> StoredExperiment | None:
        """Return the experiment of that name, deleted or not."""
        ...

    def study_names(self) -> list[str]:
        """Return the names of the experiments that hold a plan, the one with the latest plan first."""
        ...

    def runs(
        self,
        tags: Mapping[str, str],
        experiment: str | None = None,
        status: str | None = None,
        *,
        only_tags: Collection[str] = (),
    ) -> list[StoredRun]:
        """Return the runs that carry all the given tags, in the order of their start; no deleted ones.

        experiment: its name; None for all experiments. only_tags: the tags to read of each run; none given: all.
        """
        ...

    def points(self, run_ids: Sequence[str]) -> list[MetricPoint]:
        """Return every point of every metric of the given runs, in no particular order."""
        ...

    def columns(self, run_ids: Sequence[str]) -> Columns:
        """Return the points of the given runs, as columns."""
        ...

    def position(self) -> int:
        """Return a mark of what the store holds now, for `keys_since`."""
        ...

    def keys_since(self, position: int) -> tuple[set[str], int] | None:
        """Return the keys of the runs whose outcome was written after `position`, and a mark of what the store holds now.

        None where the store cannot tell.
        """
        ...


def queries(store: Store, patience: float = busy.PATIENCE) -> Queries:
    """Return the queries on a store. patience: as for `LocalQueries`."""
    return LocalQueries(store, patience) if store.database is not None else ServerQueries(store)


def artifact(store: Store, run: StoredRun, name: str) -> bytes | None:
    """Return the content of an artifact of a run, None where it has none of that name."""
    (content,) = artifacts(store, run, [name])
    return content


def artifacts(store: Store, run: StoredRun, names: Sequence[str]) -> list[bytes | None]:
    """Return the content of some artifacts of a run, each None where it has none of that name."""
    place = store.artifacts(run.artifacts)
    if place is not None:
        return [_content(place / name) for name in names]
    if store.database is not None:  # a local database, which may be from somebody else, names another machine
        return [None] * len(names)
    with client.reading(store) as mlflow, tempfile.TemporaryDirectory() as folder:
        there = {item.path for item in mlflow.list_artifacts(run.run_id)}
        return [
            Path(mlflow.download_artifacts(run.run_id, name, folder)).read_bytes() if name in there else None
            for name in names
        ]


def _content(path: Path) -> bytes | None:
    try:
        return plain_files.read(path)
    except OSError:  # not there; or a link or a pipe, which no ablate has made
        return None


def artifact_sizes(store: Store, run: StoredRun, suffixes: Collection[str]) -> dict[str, int | None]:
    """Return the artifacts of a run whose names end so, in folders too: name → bytes, None where the store does not say.

    A local store may be somebody else's: only a folder that ablate makes is listed, past no link.
    """
    place = store.artifacts(run.artifacts)
    if place is not None:
        if not is_run_folder(place, run.run_id) or link_in(place) is not None:
            return {}
        files = [Path(folder) / name for folder, _, names in os.walk(place) for name in names]
        kept = [file for file in files if file.suffix.lower() in suffixes and not file.is_symlink()]
        return {file.relative_to(place).as_posix(): file.stat().st_size for file in sorted(kept)}
    if store.database is not None:
        return {}
    sizes: dict[str, int | None] = {}
    with client.reading(store) as mlflow:
        folders = [""]
        while folders:
            for item in mlflow.list_artifacts(run.run_id, folders.pop()):
                if item.is_dir:
                    folders.append(item.path)
                elif Path(item.path).suffix.lower() in suffixes:
                    sizes[item.path] = item.file_size
    return dict(sorted(sizes.items()))


class UnreadableStoreError(StoreError):
    """Nothing can be read from the store: its database is damaged, locked, or another program's."""


_OTHER_VALUES = (TypeError, ValueError, OverflowError, RecursionError)
"""What Python raises about values of another kind than MLflow writes: a damaged database has text where numbers should be, and the reverse."""

_OTHER_TYPE = "it holds values that MLflow does not write"

_POINT: tuple[set[type], ...] = ({int}, {str}, {int}, {int}, {int, float})
"""Types of the values of a `MetricPoint`."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(_OTHER_TYPE)
    return value


def _tags(text: str) -> dict[str, str]:
    """Return the tags of a run. One without a value counts as absent."""
    return {name: value for name, value in json.loads(text).items() if isinstance(value, str)}


def _what_to_do(error: Exception, store: Store) -> str:
    if "no such" in str(
        error
    ):  # only a database of MLflow's that lacks what was asked for is of another version
        return (
            f"it was made by another program or another version of MLflow: `mlflow db upgrade {store.typed}` brings an older one up "
            "to date (keep a copy); moved away, `ablate run` makes a new one"
        )
    return "put a copy of it back, or move it away: `sqlite3 FILE .recover` may save what is in it, and `ablate run` makes a new one"


_LAST_ROW = "SELECT coalesce(max(rowid), 0) FROM tags"
"""Rows are numbered in the order in which they are written."""


class LocalQueries:
    """Queries on a local sqlite database, by SQL. patience: seconds to wait while another program holds it."""

    def __init__(self, store: Store, patience: float = busy.PATIENCE) -> None:
        self._store = store
        self._patience = patience

    def experiment(self, name: str) -> StoredExperiment | None:
        rows = self._select(
            "SELECT experiment_id, lifecycle_stage <> 'active' FROM experiments WHERE name = ?", [name]
        )
        return next((StoredExperiment(str(id_), name, bool(deleted)) for id_, deleted in rows), None)

    def study_names(self) -> list[str]:
        rows = self._select(
            "SELECT e.name, max(r.start_time) AS latest FROM experiments e JOIN runs r USING (experiment_id) "
            "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'ablate.kind' AND t.value = 'report' "
            "WHERE e.lifecycle_stage = 'active' AND r.lifecycle_stage = 'active' "
            "GROUP BY e.name ORDER BY latest DESC, e.name"
        )
        return [str(name) for name, _ in rows]

    def runs(
        self,
        tags: Mapping[str, str],
        experiment: str | None = None,
        status: str | None = None,
        *,
        only_tags: Collection[str] = (),
    ) -> list[StoredRun]:
        if not self._store.exists:
            return []
        where = ["r.lifecycle_stage = 'active'", "e.lifecycle_stage = 'active'"]
        values: list[str] = []
        for name, value in tags.items():
            where.append("r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)")
            values += [name, value]
        if experiment is not None:
            where.append("e.name = ?")
            values.append(experiment)
        if status is not None:
            where.append("r.status = ?")
            values.append(status)
        # The + keeps sqlite from reading its index of keys, which has one row for every run.
        named = f"+t.key IN ({', '.join('?' * len(only_tags))})" if only_tags else "+t.key GLOB 'ablate.*'"
        unread = ", ".join(f"'{name}'" for name in NOT_READ)
        # One object for each run: fewer and shorter rows.
        tags_of_run = (
            "SELECT json_group_object(t.key, t.value) FROM tags t "  # noqa: S608
            f"WHERE t.run_uuid = r.run_uuid AND {named} AND t.key NOT IN ({unread})"
        )
        with self._database() as db:
            rows = db.execute(
                f"SELECT r.run_uuid, e.name, r.status, r.start_time, r.end_time, r.artifact_uri, ({tags_of_run}) "  # noqa: S608
                f"FROM runs r JOIN experiments e USING (experiment_id) WHERE {' AND '.join(where)} "
                "ORDER BY r.start_time, r.run_uuid",
                [*only_tags, *values],
            )
            return [
                StoredRun(
                    _text(run),
                    _text(name),
                    _text(state),
                    start / 1000,
                    end / 1000 if end else None,
                    _text(artifacts),
                    _tags(tags_as_json),
                )
                for run, name, state, start, end, artifacts, tags_as_json in rows
            ]

    def points(self, run_ids: Sequence[str]) -> list[MetricPoint]:
        # The index of the run comes from the list of runs itself, so that no text is made for every point.
        rows: list[MetricPoint] = self._select(
            "SELECT j.key, m.key, m.step, m.timestamp, CASE WHEN m.is_nan THEN NULL ELSE m.value END "
            "FROM json_each(?) j CROSS JOIN metrics m ON m.run_uuid = j.value",
            [json.dumps(list(run_ids))],
        )
        if None in map(itemgetter(4), rows):  # sqlite has no NaN
            rows = [(*row[:4], math.nan if row[4] is None else row[4]) for row in rows]
        for place, kinds in enumerate(_POINT):
            if not {type(row[place]) for row in rows} <= kinds:
                raise self._unreadable(TypeError(_OTHER_TYPE))
        return rows

    def columns(self, run_ids: Sequence[str]) -> Columns:
        import numpy as np

        from ablate.tracking.columns import Columns

        if not self._store.exists:
            return Columns.of(len(run_ids), ())
        ids = json.dumps(list(run_ids))
        source = "FROM json_each(?) j CROSS JOIN metrics m ON m.run_uuid = j.value"
        with self._database() as db:
            names = sorted(name for (name,) in db.execute(f"SELECT DISTINCT m.key {source}", [ids]))
            if not 0 < len(names) <= MOST_CASES:
                return Columns.of(len(run_ids), self.points(run_ids))
            code = f"CASE m.key {' '.join(f'WHEN ? THEN {i}' for i in range(len(names)))} END"
            # A million tuples of Python are several times as large as the columns, and none is kept.
            rows = np.fromiter(
                db.execute(
                    f"SELECT j.key, {code}, m.step, m.timestamp, m.is_nan, m.value {source}",
                    [*names, ids],
                ),
                dtype=[
                    ("run", "i4"),
                    ("metric", "i2"),
                    ("step", "i8"),
                    ("at", "i8"),
                    ("is_nan", "?"),
                    ("value", "f8"),
                ],
            )
        values = np.where(rows["is_nan"], np.nan, rows["value"])
        return Columns.ordered(
            len(run_ids), names, rows["run"], rows["metric"], rows["step"], rows["at"], values
        )

    def position(self) -> int:
        rows = self._select(_LAST_ROW)
        return int(rows[0][0]) if rows else 0

    def keys_since(self, position: int) -> tuple[set[str], int] | None:
        if not self._store.exists:
            return set(), 0
        # Both at once: to open the database takes as long as the rest.
        with self._database() as db:
            (last,) = db.execute(_LAST_ROW).fetchone()
            rows = db.execute(
                "SELECT k.value FROM tags t CROSS JOIN tags k ON k.run_uuid = t.run_uuid AND k.key = 'ablate.key' "
                "WHERE t.rowid > ? AND +t.key = 'ablate.outcome'",
                [position],
            ).fetchall()
        return {str(key) for (key,) in rows}, int(last)

    def _select(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        if not self._store.exists:
            return []
        with self._database() as db:
            return db.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = self._store.database
        assert database is not None
        if not database.is_file():
            raise UnreadableStoreError(
                "is no file, where MLflow's database should be",
                place=str(database),
                hint="move it away; `ablate run` makes a new database, MLFLOW_TRACKING_URI names another",
            )
        if not os.access(database, os.R_OK):
            raise UnreadableStoreError(
                "may not be read", place=str(database), hint="`ls -l` says who may; ask its owner for a copy"
            )
        try:
            # Not `mode=ro`: a journal that a killed writer left behind has to be rolled back before anything can be read.
            with contextlib.closing(
                sqlite3.connect(f"{addresses.folder_address(database.resolve())}?mode=rw", uri=True)
            ) as db:
                busy.begin(db, database, self._patience)
                busy.refuse_programs(db, database)
                yield db
        except busy.ProgramsError as error:
            raise UnreadableStoreError(error.message, place=error.place, hint=error.hint) from None
        except (sqlite3.Error, *_OTHER_VALUES) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> UnreadableStoreError:
        database = self._store.database
        if database is not None and database.is_file() and database.stat().st_size == 0:
            return UnreadableStoreError(
                "is an empty file, where MLflow's database should be",
                place=str(database),
                hint="put a copy of the database back; or remove the file, and `ablate run` makes a new one",
            )
        # A message of sqlite's that quotes damaged bytes is no text, and its place is taken by an error of Python's.
        what = error if isinstance(error, sqlite3.Error) else _OTHER_TYPE
        return UnreadableStoreError(
            f"cannot be read as an MLflow database ({what})",
            place=str(self._store.database),
            hint=_what_to_do(error, self._store),
        )


class ServerQueries:
    """Queries on an MLflow server, or on any store that MLflow's client knows."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def experiment(self, name: str) -> StoredExperiment | None:
        with client.reading(self._store) as mlflow:
            experiment = mlflow.get_experiment_by_name(name)
        if experiment is None:
            return None
        return StoredExperiment(
            str(experiment.experiment_id), experiment.name, experiment.lifecycle_stage != "active"
        )

    def study_names(self) -> list[str]:
        latest: dict[str, float] = {}
        for run in self.runs({"ablate.kind": "report"}):
            latest[run.experiment] = max(run.start, latest.get(run.experiment, 0.0))
        return sorted(latest, key=lambda name: (-latest[name], name))

    def runs(
        self,
        tags: Mapping[str, str],
        experiment: str | None = None,
        status: str | None = None,
        *,
        only_tags: Collection[str] = (),
    ) -> list[StoredRun]:
        with client.reading(self._store) as mlflow:
            names = _experiment_names(mlflow, experiment)
            ids = list(names)
            condition = run_filter(tags, status)
            rows = [
                StoredRun(
                    run.info.run_id,
                    names[run.info.experiment_id],
                    run.info.status,
                    run.info.start_time / 1000,
                    run.info.end_time / 1000 if run.info.end_time else None,
                    run.info.artifact_uri,
                    dict(run.data.tags),
                )
                for first in range(0, len(ids), PAGE)
                for run in matching_runs(mlflow, ids[first : first + PAGE], condition)
            ]
        rows = [row for row in rows if tags.items() <= row.tags.items()]
        return [
            dataclasses.replace(row, tags={n: v for n, v in row.tags.items() if _is_read(n, only_tags)})
            for row in sorted(rows, key=lambda row: (row.start, row.run_id))
        ]

    def points(self, run_ids: Sequence[str]) -> list[MetricPoint]:
        with client.reading(self._store) as mlflow:
            return [
                (i, metric, point.step, point.timestamp, point.value)
                for i, run in enumerate(run_ids)
                for metric in mlflow.get_run(run).data.metrics
                for point in mlflow.get_metric_history(run, metric)
            ]

    def columns(self, run_ids: Sequence[str]) -> Columns:
        from ablate.tracking.columns import Columns

        return Columns.of(len(run_ids), self.points(run_ids))

    def position(self) -> int:
        return 0

    def keys_since(self, position: int) -> tuple[set[str], int] | None:  # noqa: ARG002 — of the protocol
        return None


def _is_read(tag: str, only_tags: Collection[str]) -> bool:
    return (tag in only_tags if only_tags else tag.startswith("ablate.")) and tag not in NOT_READ


def _experiment_names(mlflow: Any, experiment: str | None) -> dict[str, str]:
    """Return id → name of the active experiments; experiment: of the one with this name."""
    if experiment is not None:
        named = mlflow.get_experiment_by_name(experiment)
        active = [named] if named is not None and named.lifecycle_stage == "active" else []
    else:
        active = list(pages(lambda token: mlflow.search_experiments(max_results=PAGE, page_token=token)))
    return {e.experiment_id: e.name for e in active}
