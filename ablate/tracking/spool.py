"""The tracker: a thread that delivers what is recorded to MLflow, fed through a spool on disk.

Everything to be recorded is first a line in `mlruns/spool/`, then delivered to MLflow in order. A slow or absent server
therefore never holds up training, and what a killed process had not delivered is delivered by the next one. Delivery may
be repeated after a crash; every operation is written so that doing it twice is doing it once.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from ablate.config import Config
from ablate.errors import StoreError
from ablate.events import EpochEnd, Event, Failed, Finished, Started
from ablate.study.design import Run
from ablate.tracking import client
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery, Record

RENEW = 120.0
RETRY_AFTER = (0.2, 0.5, 1, 2, 5, 10)
MOST_AT_ONCE = 100


class Tracker:
    """Takes operations from the coordinator, at once; delivers them to MLflow in a thread.

    problem: what keeps it from delivering, for the display; None while all is well. broken: why it never will, because the
    store cannot be opened; what was put stays spooled. planned: whether a plan was recorded, or extended, since this was opened.
    """

    def __init__(self, store: Store, experiment: str) -> None:
        self._store = store
        self._experiment = experiment
        self.problem: str | None = None
        self.broken: StoreError | None = None
        self._path = store.folder("spool") / f"{int(time.time() * 1000):013d}-{uuid.uuid4().hex[:8]}.jsonl"
        self._file = create_spool(self._path)
        self._inbox: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._delivered = 0
        self._spooled = 0
        self._changed = threading.Condition()
        self._give_up = threading.Event()
        self.planned = False
        self._thread = threading.Thread(target=self._work, name="ablate tracker", daemon=True)
        self._thread.start()

    # --- operations ---

    def plan(self, record: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Record a plan, or the plan again with what has been added to it."""
        self.planned = True
        self._put({"op": "plan", "plan": dict(record), "environment": dict(environment)})

    def event(self, event: Event, run: Run, config: Config, plan: str) -> None:
        """Record what happened to a run."""
        base: Record = {"key": run.key, "attempt": event.attempt, "time": event.time}
        base |= {"run": _facts(run), "plan": plan, "config": config.tree()}
        match event:
            case Started():
                params = {name: value for name, value in config.flatten().items() if name != "seed"}
                self._put(base | {"op": "started", "params": params, "facts": dict(event.facts)})
            case EpochEnd():
                self._put(base | {"op": "epoch", "epoch": event.epoch, "metrics": dict(event.metrics)})
            case Finished():
                files = {name: base64.b64encode(content).decode() for name, content in event.files.items()}
                ended = {"outcome": event.outcome, "epoch": event.epoch, "metrics": dict(event.metrics)}
                self._put(base | {"op": "finished", "facts": dict(event.facts), "files": files} | ended)
                if event.model is not None:
                    # By itself, after the result: tracing a network takes seconds.
                    self._put(base | {"op": "model", "file": event.model})
            case Failed():
                failed = {"kind": event.kind, "reason": event.reason, "detail": event.detail}
                self._put(base | {"op": "failed"} | failed)

    def copy(self, run: Run, source: str, plan: str, tags: Mapping[str, str] | None = None) -> None:
        """Record a run that was trained for another study, as this study's own."""
        self._put(
            {"op": "copy", "run": _facts(run), "source": source, "plan": plan, "tags": dict(tags or {})}
        )

    def arms(self, rows: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Record what is known of each arm: name → {"metrics": {…}, "tags": {…}}. step: number of seeds so far."""
        self._put({"op": "arms", "arms": {name: dict(row) for name, row in rows.items()}, "step": step})

    def end(
        self, plan: str, ending: str, files: Mapping[str, bytes] | None = None, note: str | None = None
    ) -> None:
        """Close the plan's own run and the arms'. ending: complete, budget or interrupted. note: what was found, in words."""
        encoded = {name: base64.b64encode(content).decode() for name, content in (files or {}).items()}
        self._put({"op": "end", "plan": plan, "ending": ending, "files": encoded, "note": note})

    def supersede(self, run_id: str, by: str) -> None:
        """Record that a run does not count, because another process had finished the same one before."""
        self._put({"op": "supersede", "run_id": run_id, "by": by})

    # --- life ---

    @property
    def put(self) -> int:
        """How many operations were taken so far."""
        return self._spooled

    @property
    def delivered(self) -> int:
        """How many of them, from the first on, are in the store."""
        return self._delivered

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put so far is delivered; False where that took longer than `timeout` seconds."""
        with self._changed:
            target = self._spooled
            return self._changed.wait_for(lambda: self._delivered >= target, timeout)

    def settle(self, timeout: float = 30.0) -> None:
        """Wait for what was put so far, as long as something of it is delivered every `timeout` seconds."""
        with self._changed:
            before = -1
            while before < self._delivered < self._spooled and self.broken is None:
                before = self._delivered
                self._changed.wait(timeout)

    def close(self, timeout: float = 30.0) -> bool:
        """Deliver what can be delivered within `timeout` seconds; the rest stays spooled. Whether all was delivered."""
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
        self.close()

    def _put(self, record: Record) -> None:
        record = {"experiment": self._experiment, "time": time.time()} | record
        line = json.dumps(record).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"cannot write the spool ({error.strerror})",
                place=str(self._path),
                hint="free some space, then run again",
            ) from None
        with self._changed:
            self._spooled += 1
        self._inbox.put(record)

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
            records, ending = self._waiting(due - time.monotonic())
            again = False
            for wait in _forever(RETRY_AFTER):
                try:
                    if records and delivery is None:
                        delivery = Delivery(self._store)
                    if delivery is not None:
                        delivery.deliver(records, again=again)
                    break
                except Exception as error:  # noqa: BLE001 — a tracker that is away must not end the study
                    self.problem = client.first_line(error)
                    if (
                        delivery is None
                        and isinstance(error, StoreError)
                        and self._store.database is not None
                    ):
                        self.broken = error
                        return
                    again = True
                    if self._give_up.wait(wait):
                        return
            self.problem = None
            if records:
                with self._changed:
                    self._delivered += len(records)
                    mark_delivered(self._path, self._delivered)
                    self._changed.notify_all()

    def _waiting(self, timeout: float) -> tuple[list[Record], bool]:
        """What waits to be delivered, after `timeout` seconds at most; and whether nothing follows."""
        found: list[Record] = []
        with contextlib.suppress(queue.Empty):
            record = self._inbox.get(timeout=max(0.1, timeout))
            while record is not None and len(found) < MOST_AT_ONCE - 1:
                found.append(record)
                if record["op"] == "model":  # takes its time: what came before it counts as delivered first
                    return found, False
                record = self._inbox.get_nowait()
            if record is None:
                return found, True
            found.append(record)
        return found, False


def create_spool(path: Path) -> BinaryIO:
    """A new spool. Its lock says that the owner lives: whoever finds a spool unlocked delivers and removes it.

    Between making and locking it, too; so what was locked is held against what lies there.
    """
    while True:
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        if is_same_file(file, path):
            return file
        file.close()


def is_same_file(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _facts(run: Run) -> dict[str, Any]:
    return dataclasses.asdict(run)


def _forever(waits: tuple[float, ...]) -> Iterator[float]:
    yield from waits
    while True:
        yield waits[-1]


# How far a spool is delivered stands beside it, in a file that is replaced whole.
def mark_delivered(spool: Path, delivered: int) -> None:
    with contextlib.suppress(OSError):
        aside = spool.with_suffix(".tmp")
        aside.write_text(str(delivered))
        aside.replace(spool.with_suffix(".delivered"))


def delivered_lines(spool: Path) -> int:
    try:
        return int(spool.with_suffix(".delivered").read_text())
    except (OSError, ValueError):
        return 0


def discard(spool: Path) -> None:
    for path in (spool, spool.with_suffix(".delivered"), spool.with_suffix(".tmp")):
        path.unlink(missing_ok=True)
