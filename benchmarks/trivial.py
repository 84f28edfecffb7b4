"""A training that trains nothing: a worker sends the events of its runs at once. By itself, so that a worker imports nothing else."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from ablate.events import EpochEnd, Finished, Started

MATRIX = b'{"classes": ["a", "b"], "counts": [[5, 1], [1, 5]]}'


def train(bundle: Any) -> Iterator[Any]:
    """Yield what a built-in run of as many epochs as its config says would: four metrics an epoch, a small file at the end."""
    for task in bundle.tasks:
        epochs = task.payload.config["training"]["epochs"]
        rng = random.Random(task.run)
        accuracy = 0.9 + rng.gauss(0, 0.01)
        facts = {"device": "cpu: trivial", "torch": "none", "python": "3", "host": "here", "parameters": 100}
        yield Started(task.run, task.attempt, 0, time.time(), facts)
        for epoch in range(1, epochs + 1):
            metrics = {
                "train/loss": rng.random(),
                "train/accuracy": accuracy,
                "val/loss": rng.random(),
                "val/accuracy": accuracy,
            }
            yield EpochEnd(task.run, task.attempt, epoch, time.time(), epoch, metrics)
        ends = {"test/loss": rng.random(), "test/accuracy": accuracy, "time/train_seconds": 0.001}
        digests = {"weights": f"{rng.getrandbits(64):016x}", "trace": f"{rng.getrandbits(64):016x}"}
        stamp = (task.run, task.attempt, epochs + 1, time.time())
        yield Finished(*stamp, "finished", epochs, ends, {"confusion_matrix.json": MATRIX}, digests)
