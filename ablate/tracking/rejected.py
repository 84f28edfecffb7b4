"""Records that MLflow refuses, or that cannot be read: each is set aside in a file and named, and everything else is delivered."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate import plain_files
from ablate.errors import StoreError
from ablate.text import counted, cut, storable, without_password
from ablate.tracking.store import Store

FOLDER = "rejected"
"""In the spool: a file for each spool of which something was refused, called like it."""

MOST_NAMED = 5
"""Rejected records that a message lists."""

_REFUSING = frozenset(
    {
        "ALREADY_EXISTS",
        "INVALID_PARAMETER_VALUE",
        "INVALID_STATE",
        "NOT_FOUND",
        "NOT_IMPLEMENTED",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_CONFLICT",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
"""MLflow's codes of errors that lie in what it was given: it would refuse the same again."""

VALUE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Python's errors about values."""

_REFUSED_ROWS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
"""Errors of a local database that lie in the values of a row."""

_REFUSED_FILES = frozenset(
    {errno.EINVAL, errno.EILSEQ, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENXIO}
)
"""Errors of the system that lie in the name of a file, or in what stands there already."""

_NOT_THE_REQUEST = frozenset({401, 403, 408, 421, 425, 429})
"""HTTP's client errors that a correct request may get, too."""


@dataclass(frozen=True)
class Rejection:
    """study: its name, '' where it is not known. run: arm and seed, or a key; '' where it is no run's. what: a metric, a file, …"""

    study: str
    run: str
    what: str
    reason: str

    def __str__(self) -> str:
        where = f"{self.run}: " if self.run else ""
        return f"{where}{self.what} ({self.reason})"


class Rejected:
    """The records of one spool that were set aside. path: the file, which is made when there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: list[Rejection] = []
        self._lines: set[str] = set()

    @classmethod
    def of(cls, spool: Path) -> Rejected:
        """Return those of a spool, none so far."""
        return cls(spool.parent / FOLDER / spool.name)

    def add(self, rejection: Rejection, record: Any) -> None:
        """Set a record aside. record: as plain values, or as text where it cannot be read. Raises StoreError."""
        plain = {**vars(rejection), "record": record}
        line = json.dumps(plain, default=repr)
        if line in self._lines:  # it is delivered again
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with plain_files.open_in_place(self._path) as file:
                file.write(line.encode() + b"\n")
        except OSError as error:
            raise StoreError(
                f"cannot set aside what MLflow refuses ({error.strerror})",
                place=str(self._path),
                hint="free some space, then run again",
            ) from None
        self._lines.add(line)
        self.records.append(rejection)


def rejections(store: Store, study: str | None = None) -> list[Rejection]:
    """Return what was set aside, of one study or of all, as far as it can be read."""
    found: dict[Rejection, None] = {}
    for path in sorted((store.root / "spool" / FOLDER).glob("*.jsonl")):
        try:
            lines = plain_files.read(path).splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                plain = json.loads(line)
                rejection = Rejection(*(str(plain[name]) for name in ("study", "run", "what", "reason")))
            except (ValueError, LookupError, TypeError, RecursionError):
                continue
            if study in (None, rejection.study):
                found[rejection] = None
    return list(found)


def told(records: list[Rejection], where: str = "mlruns/spool/rejected") -> str:
    """Return in words what was set aside."""
    named = "; ".join(str(record) for record in records[:MOST_NAMED])
    more = f"; and {len(records) - MOST_NAMED} more" if len(records) > MOST_NAMED else ""
    return f"{counted(len(records), 'record')} could not be stored, and {'is' if len(records) == 1 else 'are'} in {where}: {named}{more}"


def reason(error: BaseException) -> str:
    """Return in a few words why a record was refused."""
    text = str(getattr(error, "strerror", None) or getattr(error, "message", error)) or type(error).__name__
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, KeyError):
        line = f"it has no {line}"
    return cut(storable(without_password(line)), 200)


def is_refusal(error: BaseException) -> bool:
    """Return whether an error lies in the record that was delivered, not in the store: it would be refused again, at any time."""
    if isinstance(error, StoreError | UnicodeDecodeError):
        # Records are text; bytes that are none are read from the store. (What cannot be encoded is the record's.)
        return False
    code = getattr(error, "error_code", None)
    if code is not None:
        return code in _REFUSING or _lies_in_values(error, str(code))
    if isinstance(error, OSError):
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return 400 <= status < 500 and status not in _NOT_THE_REQUEST
        return error.errno in _REFUSED_FILES
    return isinstance(error, (*VALUE_ERRORS, *_REFUSED_ROWS))


def is_unclear(error: BaseException) -> bool:
    """Return whether an error of MLflow's may lie in the record or in the store."""
    return getattr(error, "error_code", None) in ("INTERNAL_ERROR", "BAD_REQUEST") and not is_refusal(error)


def _lies_in_values(error: BaseException, code: str) -> bool:
    """Return whether MLflow wraps an error about values: one of the database's rules, or one of Python's."""
    cause = error.__cause__
    kinds: Mapping[str, tuple[str, ...]] = {
        "BAD_REQUEST": ("IntegrityError", "DataError", "StatementError"),
        "INTERNAL_ERROR": (),
    }
    if code not in kinds or cause is None:
        return False
    is_of_values = isinstance(cause, VALUE_ERRORS) and not isinstance(cause, UnicodeDecodeError)
    return is_of_values or type(cause).__name__ in kinds[code]
