"""A training that ends at once, by itself, so that a worker that is timed imports nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ablate.events import Finished


def nothing(bundle: Any) -> Iterator[Any]:
    for task in bundle.tasks:
        yield Finished(task.run, task.attempt, 0, time.time())
