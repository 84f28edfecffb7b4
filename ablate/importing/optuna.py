"""Studies of Optuna, in a journal or a database. Their trials are a search: what it shows, it was led by."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ablate import addresses
from ablate.errors import DataError, nearest
from ablate.importing import database
from ablate.importing.source import ResultSource
from ablate.importing.table import MOST_BYTES, HowToRead, Table, checked_columns, rows_of
from ablate.metrics import Direction
from ablate.text import counted, format_bytes, joined

_LONGEST_LINE = 1 << 24
"""Bytes of a line of a journal."""


def recognizes(source: ResultSource) -> bool:
    """Return whether this is `optuna:STORAGE#STUDY`."""
    return source.after("optuna") is not None


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return a row for each trial of a study: its number, state, value or values, parameters and user attributes.

    With `how.history`, a row for each step that a trial reported. STORAGE is the file of a journal or of an sqlite database, or an
    address of a database. Raises DataError where there is no such study, or the storage cannot be read.
    """
    import logging

    storage, hash_sign, name = (source.after("optuna") or "").rpartition("#")
    if not hash_sign and ("://" in name or Path(name).is_file()):
        storage, name = name, ""
    if not storage:
        raise DataError(
            "which storage, and which study?",
            place=source.text,
            hint="optuna:study.db#STUDY, or optuna:journal.log#STUDY",
        )
    import optuna

    optuna.logging.set_verbosity(logging.CRITICAL)
    opened = _storage(storage)
    try:
        studies = [study.study_name for study in opened.get_all_studies()]
    except Exception as error:  # noqa: BLE001 — whatever a file can make Optuna raise
        raise _unreadable(storage, error) from None
    if name not in studies:
        raise DataError(
            f"there is no study {name!r}" if name else "which study?",
            place=storage,
            hint="there is none at all"
            if not studies
            else nearest(name, studies)
            if name
            else _addresses("optuna", storage, studies),
        )
    try:
        identity = opened.get_study_id_from_name(name)
        trials = opened.get_all_trials(identity, deepcopy=False)
        directions = opened.get_study_directions(identity)
        metric_names = opened.get_study_system_attrs(identity).get("study:metric_names")
    except Exception as error:  # noqa: BLE001 — as above
        raise _unreadable(storage, error) from None
    begun = [trial for trial in trials if trial.params or trial.values]
    notes = []
    if begun and len(begun) < len(trials):
        # Waiting, or stopped before it asked for a parameter: no arm has it.
        empty = [trial for trial in trials if not (trial.params or trial.values)]
        notes.append(
            f"{counted(len(empty), 'trial')} left out, without a parameter or a value: "
            + joined(
                [
                    *(f"{t.number} ({t.state.name})" for t in empty[:5]),
                    *(["others"] if len(empty) > 5 else []),
                ]
            )
        )
        trials = begun
    if not trials:
        raise DataError(f"the study {name!r} has no trial", place=storage)
    values = ["value"] if len(directions) == 1 else [f"values.{i}" for i in range(len(directions))]
    own = {"trial", "state", "step", *(str(param) for trial in trials for param in trial.params)}
    if isinstance(metric_names, list) and len({*map(str, metric_names)} - own) == len(values):
        values = [str(metric) for metric in metric_names]

    def column(param: object) -> str:
        return f"params.{param}" if param in {"trial", "state", "step", *values} else str(param)

    records, params = [], dict[str, None]()
    if how.history and any(trial.intermediate_values for trial in trials):
        silent = [trial.number for trial in trials if trial.values and not trial.intermediate_values]
        if silent:
            raise DataError(
                f"{counted(len(silent), 'trial')} reported no values on the way, such as trial {silent[0]}, and others did",
                place=source.text,
                hint="without --at, the values that trials returned are compared",
            )
    for trial in trials:
        params |= dict.fromkeys(map(column, trial.params))
        record = {"trial": str(trial.number), "state": trial.state.name}
        record |= {column(param): _text(value) for param, value in trial.params.items()}
        record |= {f"user.{key}": _text(value) for key, value in trial.user_attrs.items()}
        if how.history and trial.intermediate_values:
            steps = sorted(trial.intermediate_values.items())
            records += [record | {"step": str(step), values[0]: _text(value)} for step, value in steps]
        else:
            records.append(record | dict(zip(values, map(_text, trial.values or []), strict=False)))
    columns = list(dict.fromkeys(name for record in records for name in record))
    columns += [name for name in values if name not in columns]
    checked_columns(Path(storage), columns)
    rows = rows_of(Path(storage), records, columns)
    better: dict[str, Direction] = {
        name: "minimize" if direction.name == "MINIMIZE" else "maximize"
        for name, direction in zip(values, directions, strict=True)
        if direction.name != "NOT_SET"
    }
    return Table(
        rows,
        {},
        tuple(notes),
        measured=tuple(values),
        settings=tuple(name for name in params if name in columns),
        is_search=True,
        directions=better,
        step="step" if "step" in columns else None,
        run="trial",
    )


def _addresses(kind: str, storage: str, names: Sequence[str]) -> str:
    """What to type for what a storage holds, a few of them."""
    shown = [shlex.quote(f"{kind}:{storage}#{name}") for name in names[:8]]
    return joined([*shown, f"{len(names) - 8} more"] if len(names) > 8 else shown, "or")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _storage(storage: str) -> Any:
    """The storage at an address. A file is opened for reading only. Raises DataError where it cannot be."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import BaseJournalBackend

    class Journal(BaseJournalBackend):
        """The lines of a journal's file."""

        def __init__(self, path: Path) -> None:
            self._path = path

        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            with self._path.open("rb") as file:
                for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b"")):
                    if len(line) >= _LONGEST_LINE:
                        raise ValueError(f"line {number + 1} has more than {format_bytes(_LONGEST_LINE)}")
                    # A process that is writing now has not ended the last line.
                    if number >= log_number_from and line.endswith(b"\n"):
                        yield json.loads(line)

        def append_logs(self, logs: list[dict[str, Any]]) -> None:  # noqa: ARG002 — of the protocol
            raise PermissionError("the journal is read only")

    address, engine = storage, dict[str, Any]()
    named = addresses.database_path(storage)
    if named is not None or "://" not in storage:
        path = named or Path(storage)
        if not path.is_file():
            raise DataError(
                "there is no such file", place=str(path), hint="optuna:FILE#STUDY, or optuna:ADDRESS#STUDY"
            )
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(
                f"has {format_bytes(size)}, and at most {format_bytes(MOST_BYTES)} are read", place=str(path)
            )
        with path.open("rb") as file:
            is_database = file.read(15) == b"SQLite format 3"
        if not is_database:
            try:
                return JournalStorage(Journal(path))
            except Exception as error:  # noqa: BLE001 — whatever a file can make Optuna raise
                raise _unreadable(storage, error) from None
        # SQLAlchemy reads an address of a file in its own way: the database is opened for it.
        from optuna.storages._rdb.models import BaseModel

        engine["creator"] = lambda: database.opened(path, set(BaseModel.metadata.tables))
        address = addresses.SQLITE
    try:
        return RDBStorage(address, engine_kwargs=engine, skip_table_creation=True)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 — as above
        raise _unreadable(storage, error) from None


def _unreadable(storage: str, error: Exception) -> DataError:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "no longer compatible" in str(error) or "optuna storage upgrade" in str(error):
        return DataError(
            "the database was made by another version of Optuna",
            place=storage,
            hint=f"`optuna storage upgrade --storage {storage if '://' in storage else addresses.database_address(Path(storage))}` brings it up to date "
            "(keep a copy)",
        )
    return DataError(f"is no storage of Optuna ({text[:200]})", place=storage)
