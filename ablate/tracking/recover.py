"""Recovery: what killed processes left in the spool is delivered, and the runs that died with them are ended."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Sequence
from pathlib import Path

from ablate import plain_files
from ablate.tracking import client
from ablate.tracking.operations import Operation
from ablate.tracking.runs import orphans
from ablate.tracking.spool import (
    MOST_AT_ONCE,
    delivered_operations,
    discard,
    is_same_file,
    mark_delivered,
    read_spool,
)
from ablate.tracking.store import Store
from ablate.tracking.write import Delivery


def recover(store: Store) -> int:
    """Deliver what killed processes left in the spool, and end the runs that died with them.

    What belongs to an experiment that was deleted in MLflow waits until it is restored: other studies go on.
    Returns the number of runs that were ended. Raises StoreError where the store cannot be reached.
    """
    spool = store.root / "spool"
    ended = 0
    for path in sorted(spool.glob("*.jsonl")) if spool.is_dir() else []:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(plain_files.open_plain(path))
            except OSError:
                continue  # its owner has ended meanwhile; or it is a link or a pipe, which no ablate has made
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            if not is_same_file(file, path):
                continue  # another process has just delivered it
            owner, operations = read_spool(file)
            with contextlib.suppress(client.DeletedExperimentError):
                ended += _deliver(store, path, owner, operations)
                discard(path)
    if abandoned := orphans(store):
        with client.writing(store):
            delivery = Delivery(store)
            for run in abandoned:
                delivery.end_killed(run)
    return ended + len(abandoned)


def _deliver(store: Store, path: Path, owner: str, operations: Sequence[Operation]) -> int:
    """Deliver what is not yet delivered of one spool, and end the runs of its owner. Returns the number of those.

    Every spool has a delivery of its own, so that none closes what another has open.
    """
    if not operations:
        return 0
    with client.writing(store):
        delivery = Delivery(store, recovering=owner)
        delivered = delivered_operations(path)
        delivery.resume(operations[:delivered])
        while delivered < len(operations):
            delivery.deliver(operations[delivered : delivered + MOST_AT_ONCE], again=True)
            delivered = min(delivered + MOST_AT_ONCE, len(operations))
            mark_delivered(path, delivered)
        return delivery.end_abandoned(operations)
