"""The tracker: a thread that delivers what is recorded to MLflow, fed through a spool on disk.

Everything to be recorded is first a line in `mlruns/spool/`, then delivered to MLflow in order. A slow or absent server
therefore never holds up training, and what a killed process had not delivered is delivered by the next one. Delivery may
be repeated after a crash; every operation is written so that doing it twice is doing it once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ablate import locks, plain_files
from ablate.config import Config
from ablate.errors import StoreError
from ablate.events import EpochEnd, Event, Failed, Finished, Started
from ablate.study.design import Run
from ablate.study.record import PlanRecord
from ablate.text import counted, format_bytes, without_password
from ablate.tracking import busy, client
from ablate.tracking import store as stores
from ablate.tracking.operations import (
    CopyRun,
    EndPlan,
    FailAttempt,
    FinishAttempt,
    LogEpoch,
    Opening,
    Operation,
    RunFacts,
    SaveModel,
    StartAttempt,
    StorePlan,
    SummariseArms,
    SupersedeRun,
    from_json,
    storable_line,
    storable_values,
    to_json,
)
from ablate.tracking.rejected import VALUE_ERRORS, Rejected, reason
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery

RENEW = 120.0
"""Seconds after which the leases of open runs are renewed."""

RETRY_AFTER = (0.2, 0.5, 1, 2, 5, 10)
"""Seconds before each further try to deliver; the last one repeats."""

PATIENCE = 1.0
"""Seconds of waiting for a database that another program writes, after which that is a problem to be told, and it is tried again."""

TELL_AFTER = 5.0
"""Seconds without progress at the end after which it is said what is waited for."""

MOST_AT_ONCE = 100
"""Operations that are delivered together, so that several on one run take one request."""

LONGEST_LINE = 1 << 29
"""Bytes of a line of a spool that is read; the files of a run stand in one."""

_PIECE = 1 << 20
"""Bytes of a line that are read at once."""

MOST_SHOWN = 1 << 20
"""Bytes that are kept of a line that cannot be read."""


class Tracker:
    """Spools operations at once, and delivers them to MLflow in a thread.

    problem: what keeps it from delivering, for the display; None while it delivers. broken: why it never will, because the
    store cannot be opened; operations stay spooled. planned: whether a plan was recorded, or extended, by this tracker.
    rejected: what MLflow has refused; everything else is delivered.
    """

    def __init__(self, store: Store, experiment: str) -> None:
        self._store = store
        self._experiment = experiment
        self.problem: str | None = None
        self.broken: StoreError | None = None
        self._path = store.folder("spool") / f"{int(time.time() * 1000):013d}-{uuid.uuid4().hex[:8]}.jsonl"
        self._file = create_spool(self._path)
        self.rejected = Rejected.of(self._path)
        self._write(json.dumps({"owner": stores.owner()}))
        self._opened: set[tuple[str, int]] = set()
        self._inbox: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._delivered = 0
        self._spooled = 0
        self._changed = threading.Condition()
        self._give_up = threading.Event()
        self._delivery: Delivery | None = None
        self.planned = False
        self._thread = threading.Thread(target=self._work, name="ablate tracker", daemon=True)
        self._thread.start()

    # --- operations ---

    def plan(self, record: PlanRecord, environment: Mapping[str, str]) -> None:
        """Record a plan, or the plan again with what has been added to it."""
        self.planned = True
        self._put(StorePlan(self._experiment, time.time(), record, dict(environment)))

    def event(self, event: Event, run: Run, config: Config, plan: str) -> None:
        """Record what happened to a run."""
        attempt = (run.key, event.attempt)
        is_first = attempt not in self._opened
        opening = Opening(RunFacts(**vars(run)), plan, config.tree()) if is_first else None
        operation = _operation(event, self._experiment, opening)
        self._put(operation)
        self._opened.add(attempt)
        if isinstance(event, Finished) and event.model is not None:
            # By itself, after the result: tracing a network takes seconds.
            self._put(SaveModel(self._experiment, event.time, *attempt, None, event.model))

    def copy(self, run: Run, source: str, plan: str, tags: Mapping[str, str] | None = None) -> None:
        """Record a run that was trained for another study as this study's own. source: MLflow's id of the other run."""
        facts = RunFacts(**vars(run))
        self._put(CopyRun(self._experiment, time.time(), facts, plan, source, dict(tags or {})))

    def arms(self, rows: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Record what is known of each arm: name → {"metrics": {…}, "tags": {…}}. step: number of seeds so far."""
        self._put(SummariseArms(self._experiment, time.time(), dict(rows), step))

    def end(
        self, plan: str, ending: str, files: Mapping[str, bytes] | None = None, note: str | None = None
    ) -> None:
        """Close the plan's own run and the arms'. ending: complete, budget or interrupted. note: the answer in words."""
        self._put(EndPlan(self._experiment, time.time(), plan, ending, dict(files or {}), note))

    def supersede(self, run_id: str, by: str) -> None:
        """Record that a run does not count, because another process had finished the same one before. by: that one's id."""
        self._put(SupersedeRun(self._experiment, time.time(), run_id, by))

    # --- life ---

    @property
    def put(self) -> int:
        """Return the number of operations that were put so far."""
        return self._spooled

    @property
    def delivered(self) -> int:
        """Return how many of them, from the first on, are in the store."""
        return self._delivered

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put so far is delivered. Returns False where that took longer than `timeout` seconds."""
        with self._changed:
            target = self._spooled
            return self._changed.wait_for(lambda: self._delivered >= target, timeout)

    @property
    def undelivered(self) -> str:
        """Return in words why not everything is delivered."""
        left = self._spooled - self._delivered
        return self.problem or f"{counted(left, 'record')} {'is' if left == 1 else 'are'} still being written"

    def settle(self, timeout: float = 60.0, notify: Callable[[str], None] = lambda _: None) -> None:
        """Wait for what was put so far, as long as it goes on: until nothing has for `timeout` seconds.

        notify: takes a line about what is waited for, once that takes long.
        """
        before, since, is_told = self._progress(), time.monotonic(), False
        while self._delivered < self._spooled and self.broken is None and self._thread.is_alive():
            with self._changed:
                self._changed.wait(0.2)
            if (now := self._progress()) != before:
                before, since = now, time.monotonic()
            waited = time.monotonic() - since
            if waited >= timeout:
                return
            if waited >= TELL_AFTER and not is_told:
                is_told = True
                notify(f"waiting for {self._store.place}, up to {timeout:.0f} s: {self.undelivered}")

    def _progress(self) -> tuple[int, int]:
        """Return what grows as long as it is delivered; what is tried again and again is no progress."""
        steps = self._delivery.steps if self._delivery is not None and self.problem is None else 0
        return self._delivered, steps

    def close(self, timeout: float = 30.0) -> bool:
        """Deliver what can be delivered within `timeout` seconds; the rest stays spooled. Returns whether all was delivered."""
        if self._file.closed:
            return self._delivered == self._spooled
        self._inbox.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join(0.5)
        done = self._delivered == self._spooled
        if done:
            discard(self._path)
        self._file.close()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interrupt should not take long; the next command delivers what is not delivered by then.
        self.close(timeout=1 if kind is KeyboardInterrupt else 30)

    def _put(self, operation: Operation) -> None:
        plain = to_json(operation)
        line = storable_line(plain)
        if line is None:  # it holds text that no database takes
            operation = from_json(storable_values(plain))
            line = json.dumps(to_json(operation))
        self._write(line)
        with self._changed:
            self._spooled += 1
        self._inbox.put(operation)

    def _write(self, line: str) -> None:
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"cannot write the spool ({error.strerror})",
                place=str(self._path),
                hint="free some space, then run again",
            ) from None

    def _work(self) -> None:
        delivery: Delivery | None = None
        due = time.monotonic() + RENEW
        ending = False
        while not ending and not self._give_up.is_set():
            if time.monotonic() > due:
                due = time.monotonic() + RENEW
                if delivery is not None:
                    with contextlib.suppress(Exception):
                        delivery.renew()
            operations, ending = self._waiting(due - time.monotonic())
            again = False
            for wait in _forever(RETRY_AFTER):
                try:
                    if operations and delivery is None:
                        delivery = self._delivery = Delivery(self._store, self.rejected, patience=PATIENCE)
                    if delivery is not None:
                        delivery.deliver(operations, again=again)
                    break
                except Exception as error:  # noqa: BLE001 — a tracker that is away must not end the study
                    is_busy = busy.is_busy(error) or isinstance(error, busy.BusyError)
                    self.problem = (
                        "another program holds the database"
                        if is_busy
                        else without_password(client.first_line(error))
                    )
                    if (
                        delivery is None
                        and isinstance(error, StoreError)
                        and not isinstance(error, busy.BusyError)
                        and self._store.database is not None
                    ):
                        self.broken = error
                        return
                    again = True
                    if self._give_up.wait(0 if is_busy else wait):  # sqlite has waited already
                        return
            self.problem = None
            if operations:
                with self._changed:
                    self._delivered += len(operations)
                    mark_delivered(self._path, self._delivered)
                    self._changed.notify_all()

    def _waiting(self, timeout: float) -> tuple[list[Operation], bool]:
        """Return what waits to be delivered, after `timeout` seconds at most; and whether nothing follows."""
        waiting: list[Operation] = []
        with contextlib.suppress(queue.Empty):
            operation = self._inbox.get(timeout=max(0.1, timeout))
            while operation is not None and len(waiting) < MOST_AT_ONCE - 1:
                waiting.append(operation)
                if isinstance(
                    operation, SaveModel
                ):  # takes its time: what came before it counts as delivered first
                    return waiting, False
                operation = self._inbox.get_nowait()
            if operation is None:
                return waiting, True
            waiting.append(operation)
        return waiting, False


def _operation(event: Event, study: str, opening: Opening | None) -> Operation:
    """Return the operation that records an event."""
    common = (study, event.time, event.run, event.attempt, opening)
    match event:
        case Started():
            return StartAttempt(*common, dict(event.facts))
        case EpochEnd():
            return LogEpoch(*common, event.epoch, dict(event.metrics))
        case Finished():
            results = (dict(event.metrics), dict(event.facts), dict(event.files))
            return FinishAttempt(*common, event.outcome, event.epoch, *results)
        case Failed():
            return FailAttempt(*common, event.kind, event.reason, event.detail, dict(event.files))
    raise AssertionError(event)


def create_spool(path: Path) -> BinaryIO:
    """Create a spool and lock it. The lock shows that the owner lives: recovery delivers and removes every unlocked spool.

    That may happen between creating and locking, too; then the locked file is no longer the one at `path`, and another is made.
    """
    while True:
        file = plain_files.open_in_place(path)
        try:
            locks.lock(file, path)
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        if is_same_file(file, path):
            return file
        file.close()


def is_same_file(file: BinaryIO, path: Path) -> bool:
    """Return whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Unreadable:
    """A line of a spool that is no operation. number: of the line. text: as far as it can be shown. study: where that can be told."""

    number: int
    text: str
    reason: str
    study: str = ""


def read_spool(file: BinaryIO) -> tuple[str, list[Operation | Unreadable]]:
    """Return the owner of a spool ('' where an older ablate wrote it, or it cannot be read) and what its other lines hold.

    Left out is a last line that its process died in writing.
    """
    owner = ""
    records: list[Operation | Unreadable] = []
    number = 0
    for line, is_too_long in _lines(file):
        number += 1
        is_whole = line.endswith(b"\n")
        if is_too_long:
            why = f"it is longer than {format_bytes(LONGEST_LINE)}, or has holes in it"
            records.append(Unreadable(number, _shown(line), why))
            continue
        plain: Any = None
        try:
            plain = json.loads(line)
            if isinstance(plain, dict) and "op" not in plain and isinstance(plain.get("owner"), str):
                owner = plain["owner"]
                continue
            records.append(from_json(storable_values(plain)))
        except (StoreError, *VALUE_ERRORS) as error:
            if is_whole and line.strip():
                study = plain.get("experiment") if isinstance(plain, dict) else None
                text = str(study) if isinstance(study, str) else ""
                why = error.message if isinstance(error, StoreError) else reason(error)
                records.append(Unreadable(number, _shown(line), why, text))
    return owner, records


def _lines(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Yield each line of a spool, and whether it is more than what is kept of it.

    A file of holes may claim any length without taking space on the disk: they are not read.
    """
    while True:
        line, is_too_long = bytearray(), False
        while piece := file.readline(_PIECE):
            if not is_too_long:
                line += piece
                is_too_long = len(line) > LONGEST_LINE
            if piece.endswith(b"\n"):
                break
            is_too_long |= _skip_hole(file)
        if not line:
            return
        yield bytes(line), is_too_long


def _skip_hole(file: BinaryIO) -> bool:
    """Move to where data go on, and return whether there was a hole before."""
    at = file.tell()
    try:
        data = os.lseek(file.fileno(), at, os.SEEK_DATA)
    except (AttributeError, OSError) as error:
        # There are no data any more, or the file system tells of no holes.
        is_end = isinstance(error, OSError) and error.errno == errno.ENXIO
        data = max(at, os.fstat(file.fileno()).st_size) if is_end else at
    file.seek(data)
    return data > at


def _shown(line: bytes) -> str:
    return line[:MOST_SHOWN].decode(errors="backslashreplace")


def _forever(waits: tuple[float, ...]) -> Iterator[float]:
    yield from waits
    while True:
        yield waits[-1]


def mark_delivered(spool: Path, operations: int) -> None:
    """Note how many operations of a spool are delivered: in a file beside it, which is replaced whole."""
    with contextlib.suppress(OSError):
        plain_files.write(spool.with_suffix(".delivered"), str(operations).encode(), sync=False)


def delivered_operations(spool: Path) -> int:
    """Return how many operations of a spool are delivered, from the first on."""
    try:
        return max(0, int(plain_files.read(spool.with_suffix(".delivered"))))
    except (OSError, ValueError):
        return 0


def discard(spool: Path) -> None:
    """Remove a spool that is delivered."""
    spool.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        spool.with_suffix(".delivered").unlink(missing_ok=True)
