"""The first epochs of a run by the user's own code: as many as tell whether its seed matters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import replace

from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started
from ablate.metrics import is_loss
from ablate.training import runs
from ablate.training.outcome import digits_that_seeds_do_not_share
from ablate.training.payload import RunPayload

ENOUGH_DIGITS = 6
"""Digits of losses that seeds do not share by chance, after which more epochs would tell little more."""

MOST_EPOCHS = 3
"""Epochs after which a run is broken off, however few digits its losses have."""


def train(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Begin each run of a bundle, and break it off as soon as its metrics can be compared, for an executor.

    The payload of each task is a RunPayload. A run yields Started and Finished, with metrics `EPOCH/NAME` of its epochs so far and
    the fact `digits`: how many digits of its losses no two seeds share by chance; or Failed.
    """
    for task in bundle.tasks:
        payload: RunPayload = task.payload
        metrics: dict[str, float] = {}
        digits = epoch = 0
        with contextlib.closing(runs.train(Bundle((task,), bundle.cancelled))) as training:
            for event in training:
                if isinstance(event, Started):
                    yield event
                if isinstance(event, Failed):
                    yield replace(event, seq=1)
                    break
                if isinstance(event, EpochEnd):
                    epoch = event.epoch
                    metrics |= {f"{epoch}/{name}": value for name, value in event.metrics.items()}
                    losses = [value for name, value in event.metrics.items() if is_loss(name)]
                    digits += sum(map(digits_that_seeds_do_not_share, losses))
                    has_metric = payload.metric is None or payload.metric in event.metrics
                    if epoch >= MOST_EPOCHS or (has_metric and (not losses or digits >= ENOUGH_DIGITS)):
                        break
        if not isinstance(event, Failed):
            facts = {"digits": digits}
            yield Finished(task.run, task.attempt, 1, time.time(), epoch=epoch, metrics=metrics, facts=facts)
