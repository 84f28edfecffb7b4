"""How long a run will take, by training a little of it."""

from __future__ import annotations

import itertools
import time
from typing import Any

from ablate.config import RunConfig
from ablate.errors import TrainingError
from ablate.events import Bundle, EpochEnd, Failed, Started, Task
from ablate.training import train

BACKWARD = 2.0
"""A backward pass costs about two forward ones, so an image evaluated costs a third of one trained on."""

ENOUGH = 1.0
"""Seconds of measured epochs after which a longer look would tell little more."""


def run_seconds(
    config: RunConfig, images: tuple[int, int, int], classes: int, device: str = "cpu"
) -> dict[str, Any]:
    """Measure what a run of `config` takes on a device, from a few epochs of a small subset of its own data.

    images: of the whole run, (train, validation, test). Returns `seconds` of the run, `parameters`, and `flops`, those of
    one image's forward pass. The first epoch is a warm-up and is not counted. Raises TrainingError where it fails.
    """
    batch = config.training.batch_size
    few = max(2 * batch, 20 * classes)
    whole = images[0] + images[1]
    subset = few if few < whole else config.data.subset
    small = config.override({"data.subset": subset, "training.epochs": 6, "training.checkpoint": "last"})
    share = min(few, whole) / whole
    work = share * (images[0] + images[1] / (1 + BACKWARD))

    began = time.perf_counter()
    task = Task(
        "probe", 1, {"config": small.tree(), "seed": 0, "train": None, "device": device, "threads": 1}
    )
    training = train.train(Bundle((task,)))
    facts: dict[str, Any] = {}
    start = 0.0
    ends: list[float] = []
    try:
        for event in training:
            if isinstance(event, Failed):
                raise TrainingError(event.reason)
            if isinstance(event, Started):
                start, facts = time.perf_counter() - began, dict(event.facts)
            elif isinstance(event, EpochEnd):
                ends.append(time.perf_counter())
                if len(ends) >= 2 and ends[-1] - ends[0] > ENOUGH:
                    break
    finally:
        training.close()
    # The quickest epoch is the one that nothing else disturbed.
    epoch = min((b - a for a, b in itertools.pairwise(ends)), default=ends[-1] - began - start)
    each = epoch / work
    evaluated = images[1] * config.training.epochs + images[2]
    seconds = start + each * (images[0] * config.training.epochs + evaluated / (1 + BACKWARD))
    return {"seconds": seconds, "parameters": facts.get("parameters"), "flops": facts.get("flops")}
