"""Recovery: what killed processes left in the spool is delivered, and the runs that died with them are ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ablate import locks, plain_files
from ablate.tracking import busy, client
from ablate.tracking.operations import Operation
from ablate.tracking.rejected import Rejected, Rejection, told
from ablate.tracking.runs import orphans
from ablate.tracking.spool import (
    MOST_AT_ONCE,
    Unreadable,
    delivered_operations,
    discard,
    is_same_file,
    mark_delivered,
    read_spool,
)
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery, Permit


def recover(
    store: Store, notify: Callable[[str], None] = lambda _: None, permit: Permit | None = None
) -> int:
    """Deliver what killed processes left in the spool, and end the runs that died with them.

    What belongs to an experiment that was deleted in MLflow waits until it is restored: other studies go on. What cannot be
    read, and what MLflow refuses, is set aside. notify: takes a line about it. permit: as for `Delivery`; a network that may not be
    built waits with its spool until a command may.
    Returns the number of runs that were ended. Raises StoreError where the store cannot be reached.
    """
    spool = store.root / "spool"
    ended = 0
    if store.database is not None and store.database.exists():
        busy.wait(store.database)
    for path in sorted(spool.glob("*.jsonl")) if spool.is_dir() else []:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(plain_files.open_plain(path))
            except FileNotFoundError:
                continue  # its owner has ended meanwhile
            except OSError as error:
                # Or it is a link or a pipe, which no ablate has made.
                notify(f"{path}: cannot be read ({error.strerror}); what it holds is not delivered")
                continue
            if not locks.lock(file, path, wait=False):
                continue  # its owner lives
            if not is_same_file(file, path):
                continue  # another process has just delivered it
            owner, records = read_spool(file)
            rejected = Rejected.of(path)
            with contextlib.suppress(client.DeletedExperimentError):
                newly_ended, waiting = _deliver(store, path, owner, records, rejected, permit)
                ended += newly_ended
                for why, runs in waiting.items():
                    notify(
                        f"{path}: the trained network of {', '.join(runs)} stays in {store.root / 'models'}: {why}"
                    )
                if not waiting:
                    discard(path)
            if rejected.records:
                notify(told(rejected.records))
    for left in (store.root / "cache").glob(".*.tmp"):
        # Of a process that was killed; where another is writing it now, that cache is made again the next time.
        with contextlib.suppress(OSError):
            left.unlink()
    for left in [*spool.glob("*.delivered"), *spool.glob(".*.tmp")]:
        # Of a process that was killed as it removed its spool, or wrote beside it.
        if not left.with_suffix(".jsonl").exists():
            with contextlib.suppress(OSError):
                left.unlink()
    if abandoned := orphans(store):
        with client.writing(store):
            delivery = Delivery(store, Rejected.of(spool / "runs.jsonl"))
            for run in abandoned:
                delivery.end_killed(run)
    return ended + len(abandoned)


def _deliver(
    store: Store,
    path: Path,
    owner: str,
    records: Sequence[Operation | Unreadable],
    rejected: Rejected,
    permit: Permit | None,
) -> tuple[int, Mapping[str, Sequence[str]]]:
    """Deliver what is not yet delivered of one spool, and end the runs of its owner. Returns their number, and `Delivery.waiting`.

    Every spool has a delivery of its own, so that none closes what another has open.
    """
    if not records:
        return 0, {}
    with client.writing(store):
        delivery = Delivery(store, rejected, recovering=owner, permit=permit)
        delivered = delivered_operations(path)
        delivery.resume(_operations(records[:delivered]))
        delivery.deliver_waiting(_operations(records[:delivered]))
        while delivered < len(records):
            part = records[delivered : delivered + MOST_AT_ONCE]
            for record in part:
                if isinstance(record, Unreadable):
                    rejected.add(
                        Rejection(record.study, "", f"line {record.number} of {path.name}", record.reason),
                        record.text,
                    )
            delivery.deliver(_operations(part), again=True)
            delivered += len(part)
            mark_delivered(path, delivered)
        ended = delivery.end_abandoned(_operations(records))
        delivery.remove_unfinished_files({operation.experiment for operation in _operations(records)})
        return ended, delivery.waiting


def _operations(records: Sequence[Operation | Unreadable]) -> list[Operation]:
    return [record for record in records if isinstance(record, Operation)]
