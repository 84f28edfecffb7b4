"""Recovery: what killed processes left in the spool is delivered, and the runs that died with them are ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path

from ablate.tracking import client, runs
from ablate.tracking.spool import MOST_AT_ONCE, delivered_lines, discard, is_same_file, mark_delivered
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery, Record


def recover(store: Store) -> int:
    """Deliver what killed processes left in the spool, and end the runs that died with them.

    What is of an experiment that was deleted in MLflow waits until it is restored: other studies go on.
    Returns the number of runs that were ended. Raises StoreError where the store cannot be reached.
    """
    spool = store.root / "spool"
    left = sorted(spool.glob("*.jsonl")) if spool.is_dir() else []
    delivery: Delivery | None = None
    for path in left:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                continue  # its owner has ended meanwhile
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            if not is_same_file(file, path):
                continue  # another process has just delivered it
            records = []
            for line in file.read().splitlines():
                with contextlib.suppress(ValueError):  # the line that was being written when its process died
                    records.append(json.loads(line))
            try:
                delivery = _deliver_left(store, path, records, delivery)
            except client.DeletedExperimentError:
                continue
            discard(path)
    # Delivering made this process the owner of runs that the dead one had under way.
    orphans = set(runs.orphans(store)) | (delivery.under_way if delivery else set())
    if orphans:
        delivery = delivery or Delivery(store)
        for run in orphans:
            with client.writing(store):
                delivery.reap(run)
    return len(orphans)


def _deliver_left(
    store: Store, path: Path, records: list[Record], delivery: Delivery | None
) -> Delivery | None:
    """Deliver what of a spool's records was not yet. Returns what they were delivered by."""
    delivered = delivered_lines(path)
    while delivered < len(records):
        delivery = delivery or Delivery(store)
        some = records[delivered : delivered + MOST_AT_ONCE]
        with client.writing(store):
            delivery.deliver(some, again=True)
        delivered += len(some)
        mark_delivered(path, delivered)
    return delivery
