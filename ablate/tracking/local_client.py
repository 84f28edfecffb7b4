"""Writing into a local MLflow database, by SQL: the part of MLflow's client that delivery needs, a hundred times cheaper.

MLflow's own client takes about 20 ms of the processor and seven transactions for each run, and more than two seconds to be imported.
The rows are those that it writes; the contract suite of delivery runs on both. A database of another layout than those in
`LAYOUTS` is left to MLflow's client.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import posixpath
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ablate import addresses, plain_files
from ablate.errors import StoreError
from ablate.tracking import busy
from ablate.tracking.store import is_run_folder, link_in

LAYOUTS = frozenset({"dc11669786a5"})
"""Versions of MLflow's database (`alembic_version`) whose tables are known here: that of MLflow 3.17."""

_COLUMNS = {
    "datasets": "dataset_uuid experiment_id name digest dataset_source_type dataset_source dataset_profile",
    "experiment_tags": "key value experiment_id",
    "experiments": "experiment_id name artifact_location lifecycle_stage creation_time last_update_time",
    "input_tags": "input_uuid name value",
    "inputs": "input_uuid source_type source_id destination_type destination_id",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
    "metrics": "key value timestamp step is_nan run_uuid",
    "params": "key value run_uuid",
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time end_time source_version "
    "lifecycle_stage artifact_uri experiment_id",
    "tags": "key value run_uuid",
}
"""What is read and written of each table."""

PATIENCE = 30.0
"""Seconds that a transaction waits while another process writes, unless somebody is to be told of it."""

LARGEST = 1.7976931348623157e308
"""What MLflow stores for infinity."""

LARGEST_FILE = 1 << 36
"""Bytes of a file that is copied into a run, or out of it."""

LONGEST_NAME = 250
"""Characters in a name of a metric, parameter or tag."""

_NAME = re.compile(r"[/\w.\- :]+")

_IDENTITY = ("owner", "study", "kind", "plan", "arm", "key", "attempt", "source_run")
"""Tags that tell a run from all others."""

Point = tuple[str, float, int, int]
"""Metric, value, milliseconds since the epoch, step."""


@dataclass(frozen=True)
class LocalRunInfo:
    """As MLflow's `RunInfo`; times in milliseconds since the epoch."""

    run_id: str
    experiment_id: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str = "active"


@dataclass(frozen=True)
class LocalRunData:
    """As MLflow's `RunData`; metrics: the last value of each."""

    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalRun:
    info: LocalRunInfo
    data: LocalRunData


def has_known_layout(database: Path) -> bool:
    """Return whether a database has one of the known layouts; False where it cannot be read.

    Raises StoreError where it says that it has one and lacks a part of it: it would refuse every record, at any time.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{addresses.folder_address(database.resolve())}?mode=rw", uri=True)
        ) as db:
            versions = {version for (version,) in db.execute("SELECT version_num FROM alembic_version")}
            if not (len(versions) == 1 and versions <= LAYOUTS):
                return False
            present = {
                table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")} for table in _COLUMNS
            }
    except (sqlite3.Error, UnicodeError) as error:
        if busy.is_busy(error):
            raise
        return False
    for table, columns in _COLUMNS.items():
        absent = [column for column in columns.split() if column not in present[table]]
        if absent:
            what = f"column {absent[0]!r} of the table" if present[table] else "table"
            raise StoreError(
                f"the database lacks the {what} {table!r}",
                place=str(database),
                hint="put a copy of it back, or move it away; `ablate run` makes a new one",
            )
    return True


class LocalClient:
    """Methods as those of `MlflowClient`, with the same names where they do the same.

    place: address of artifacts in the record → their folder. patience: seconds that a transaction waits while another process writes.
    """

    def __init__(
        self,
        database: Path,
        place: Callable[[str], Path | None] = addresses.folder_path,
        patience: float = PATIENCE,
    ) -> None:
        self._place = place
        self._name = str(database.resolve())
        # Without a transaction of the driver's own: `together` says where one begins.
        self._db = sqlite3.connect(
            f"{addresses.folder_address(database.resolve())}?mode=rw",
            uri=True,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
        )

    @property
    def undoes(self) -> bool:
        """Whether nothing of `together` stays where it breaks off."""
        return True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Do all that follows, or nothing of it where an exception leaves the block."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # --- experiments ---

    def get_experiment_by_name(self, name: str) -> Any:
        row = self._db.execute(
            "SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", [name]
        ).fetchone()
        return None if row is None else self._experiment(*row)

    def get_experiment(self, experiment: str) -> Any:
        return self._experiment(experiment, "active")

    def _experiment(self, number: Any, stage: str) -> Any:
        tags = dict(
            self._db.execute("SELECT key, value FROM experiment_tags WHERE experiment_id = ?", [int(number)])
        )
        return SimpleNamespace(experiment_id=str(number), lifecycle_stage=stage, tags=tags)

    def create_experiment(self, name: str, artifact_location: str, tags: Mapping[str, str]) -> str:
        now = _now()
        with self.together():
            made = self._db.execute(
                "INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
                "VALUES (?, ?, 'active', ?, ?)",
                [name, artifact_location, now, now],
            )
            identity = str(made.lastrowid)
            for key, value in tags.items():
                self.set_experiment_tag(identity, key, value)
        return identity

    def set_experiment_tag(self, experiment: str, key: str, value: str) -> None:
        with self.together():
            self._db.execute(
                "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)",
                [key, value, int(experiment)],
            )

    # --- runs ---

    def matching(self, experiment: str, tags: Mapping[str, str]) -> Iterator[LocalRun]:
        """Yield the active runs of an experiment that carry all the tags, the latest first."""
        where = ["experiment_id = ?", "lifecycle_stage = 'active'"]
        values: list[Any] = [int(experiment)]
        for key, value in tags.items():
            where.append("run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)")
            values += [key, value]
        statement = (
            f"SELECT run_uuid FROM runs WHERE {' AND '.join(where)} ORDER BY start_time DESC, run_uuid"  # noqa: S608 — only question marks
        )
        for (run,) in self._db.execute(statement, values).fetchall():
            yield self.get_run(run)

    def get_run(self, run: str) -> LocalRun:
        row = self._db.execute(
            "SELECT run_uuid, experiment_id, status, start_time, end_time, artifact_uri, lifecycle_stage FROM runs WHERE run_uuid = ?",
            [run],
        ).fetchone()
        if row is None:
            raise _gone(run)
        identity, experiment, *rest = row
        info = LocalRunInfo(identity, str(experiment), *rest)
        tags, params = (
            dict(self._db.execute(f"SELECT key, value FROM {table} WHERE run_uuid = ?", [run]))  # noqa: S608 — one of two names
            for table in ("tags", "params")
        )
        metrics = {
            key: math.nan if is_nan else value
            for key, value, is_nan in self._db.execute(
                "SELECT key, value, is_nan FROM latest_metrics WHERE run_uuid = ?", [run]
            )
        }
        return LocalRun(info, LocalRunData(tags, params, metrics))

    def create_run(
        self, experiment: str, start_time: int, tags: Mapping[str, str], run_name: str
    ) -> LocalRun:
        """Make a run.

        Its id comes from what it is, not from chance: where a process is killed before its transaction ends, only files are left of a
        run, and those that are delivered after it take their place.
        """
        (location,) = self._db.execute(
            "SELECT artifact_location FROM experiments WHERE experiment_id = ?", [int(experiment)]
        ).fetchone()
        run = self._new_id(tags)
        artifacts = f"{location.rstrip('/')}/{run}/artifacts"
        tags = {**tags, "mlflow.runName": run_name}
        with self.together():
            self._db.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
                "source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, '', 'active', ?, ?)",
                [run, run_name, tags.get("mlflow.user", "unknown"), start_time, artifacts, int(experiment)],
            )
            self._db.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                [(key, value, run) for key, value in tags.items()],
            )
        info = LocalRunInfo(run, experiment, "RUNNING", start_time, None, artifacts)
        return LocalRun(info, LocalRunData(tags))

    def _new_id(self, tags: Mapping[str, str]) -> str:
        """Return the id of a run to be made: the same for the same run of the same process; by chance where that is taken."""
        identity = [self._name, *(tags.get(f"ablate.{name}") for name in _IDENTITY)]
        run = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        taken = self._db.execute("SELECT 1 FROM runs WHERE run_uuid = ?", [run]).fetchone()
        return run if taken is None else uuid.uuid4().hex

    def log(
        self,
        run: str,
        metrics: Sequence[Point] = (),
        params: Sequence[tuple[str, str]] = (),
        tags: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Record metrics, parameters and tags. The same point twice is one point; a parameter keeps its first value.

        Raises ValueError for a name that MLflow refuses, and for another value of a parameter.
        """
        for name, *_ in (*metrics, *params, *tags):
            _check_name(name)
        rows = [(key, *_storable(value), at, run, step) for key, value, at, step in metrics]
        latest: dict[str, tuple[Any, ...]] = {}
        for key, value, is_nan, at, _, step in rows:
            if key not in latest or (step, at, value) > latest[key][:3]:
                latest[key] = (step, at, value, is_nan)
        with self.together():
            self._check(run)
            self._set_params(run, params)
            self._db.executemany(
                "INSERT OR IGNORE INTO metrics (key, value, is_nan, timestamp, run_uuid, step) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )
            self._db.executemany(
                "INSERT INTO latest_metrics (key, step, timestamp, value, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key, run_uuid) DO UPDATE SET step = excluded.step, timestamp = excluded.timestamp, "
                "value = excluded.value, is_nan = excluded.is_nan "
                "WHERE (excluded.step, excluded.timestamp, excluded.value) > (step, timestamp, value)",
                [(key, *row, run) for key, row in latest.items()],
            )
            self._set_tags(run, tags)

    def set_tag(self, run: str, key: str, value: str) -> None:
        with self.together():
            self._check(run)
            self._set_tags(run, [(key, value)])

    def update_run(self, run: str, status: str) -> None:
        with self.together():
            self._check(run)
            self._db.execute("UPDATE runs SET status = ? WHERE run_uuid = ?", [status, run])

    def set_terminated(self, run: str, status: str, end_time: int | None = None) -> None:
        with self.together():
            self._check(run)
            self._db.execute(
                "UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?",
                [status, end_time or _now(), run],
            )

    def log_dataset(self, run: str, name: str, digest: str, source: str, profile: str) -> None:
        """Record what a run is trained on; recorded twice, it stands there once."""
        with self.together():
            self._check(run)
            (experiment,) = self._db.execute(
                "SELECT experiment_id FROM runs WHERE run_uuid = ?", [run]
            ).fetchone()
            identity = [experiment, name, digest]
            self._db.execute(
                "INSERT OR IGNORE INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, "
                "dataset_source, dataset_profile) VALUES (?, ?, ?, ?, 'ablate', ?, ?)",
                [uuid.uuid4().hex, *identity, source, profile],
            )
            (dataset,) = self._db.execute(
                "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
                identity,
            ).fetchone()
            entry = uuid.uuid4().hex
            made = self._db.execute(
                "INSERT OR IGNORE INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id) "
                "VALUES (?, 'DATASET', ?, 'RUN', ?)",
                [entry, dataset, run],
            )
            if made.rowcount:
                self._db.execute(
                    "INSERT INTO input_tags (input_uuid, name, value) VALUES (?, 'mlflow.data.context', 'training')",
                    [entry],
                )

    def get_metric_history(self, run: str, metric: str) -> list[Any]:
        rows = self._db.execute(
            "SELECT key, value, is_nan, timestamp, step FROM metrics WHERE run_uuid = ? AND key = ? ORDER BY timestamp, step",
            [run, metric],
        )
        return [
            SimpleNamespace(key=key, value=math.nan if is_nan else value, timestamp=at, step=step)
            for key, value, is_nan, at, step in rows
        ]

    # --- artifacts: by files, past no link that lies there ---

    def list_artifacts(self, run: str, path: str = "") -> list[Any]:
        folder = self._folder(run) / path
        if not folder.is_dir():
            return []
        return [
            SimpleNamespace(path="/".join(filter(None, (path, item.name))))
            for item in sorted(folder.iterdir())
        ]

    def log_artifacts(self, run: str, folder: str) -> None:
        _copy(Path(folder), self._folder(run))

    def download_artifacts(self, run: str, path: str, folder: str) -> str:
        """Copy a file, or a folder, into `folder`. Returns its path there."""
        source, target = self._folder(run) / path, Path(folder) / path
        if source.is_dir() and not source.is_symlink():
            _copy(source, target)
        else:
            plain_files.write(
                plain_files.inner(Path(folder), path), plain_files.read(source, LARGEST_FILE), sync=False
            )
        return str(target)

    def _folder(self, run: str) -> Path:
        """Return the folder of a run's artifacts. Raises ValueError where it is one that no ablate makes."""
        folder = self._place(self.get_run(run).info.artifact_uri)
        if folder is None or not is_run_folder(folder, run):
            raise ValueError(f"the database names a folder for the files of {run} that no ablate makes")
        if link_in(folder) is not None:
            raise ValueError(f"a link leads out of the folder for the files of {run}")
        return folder

    def _set_params(self, run: str, params: Sequence[tuple[str, str]]) -> None:
        if not params:
            return
        present = dict(self._db.execute("SELECT key, value FROM params WHERE run_uuid = ?", [run]))
        for key, value in params:
            if present.get(key, value) != value:
                raise ValueError(
                    f"the parameter {key!r} is {present[key]!r} already, and is not changed to {value!r}"
                )
        self._db.executemany(
            "INSERT OR IGNORE INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
            [(key, value, run) for key, value in params],
        )

    def _set_tags(self, run: str, tags: Sequence[tuple[str, str]]) -> None:
        self._db.executemany(
            "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?) ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value",
            [(key, value, run) for key, value in tags],
        )

    def _check(self, run: str) -> None:
        """Raise LookupError where a run is not there, and ValueError where it was deleted in MLflow: it takes nothing more."""
        row = self._db.execute("SELECT lifecycle_stage FROM runs WHERE run_uuid = ?", [run]).fetchone()
        if row is None:
            raise _gone(run)
        if row[0] != "active":
            raise ValueError(f"the run {run} was deleted in MLflow")


@functools.lru_cache(maxsize=10_000)
def _check_name(name: str) -> None:
    """Raise ValueError for a name of a metric, parameter or tag that MLflow refuses: its pages could not show it."""
    if (
        not _NAME.fullmatch(name)
        or len(name) > LONGEST_NAME
        or posixpath.normpath(name) != name
        or name.startswith(("..", "/"))
        or name == "."
    ):
        raise ValueError(f"MLflow takes no metric, parameter or tag of the name {name!r}")


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a folder into another, those of its folders too."""
    for folder, _, names in os.walk(source):
        for name in names:
            path = Path(folder) / name
            place = plain_files.inner(target, path.relative_to(source).as_posix())
            plain_files.write(place, plain_files.read(path, LARGEST_FILE), sync=False)


def _gone(run: str) -> LookupError:
    return LookupError(f"there is no run {run}")


def _storable(value: float) -> tuple[float, bool]:
    """Return a value as MLflow stores it, and whether it is none."""
    if math.isnan(value):
        return 0.0, True
    return max(-LARGEST, min(LARGEST, float(value))), False


def _now() -> int:
    return int(time.time() * 1000)
