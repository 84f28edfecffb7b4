"""Runs of the built-in training that end with their last epoch, without the test set.

A sweep of rates has no use for it, nor should it see it; and after a short training it may take as long as the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence

from ablate.events import Task
from ablate.training.outcome import Epoch, Failure, Result, Steps
from ablate.training.payload import RunPayload


def untested(
    train: Callable[[Collection[str]], Steps], tasks: Sequence[Task], broken_off: Collection[str]
) -> Steps:
    """Train runs, and break off each whose payload wants no test as soon as it has told its last epoch: its result has the epoch
    that counts, and neither test metrics nor files.

    train: trains `tasks`, given the runs to break off. broken_off: those of others, which grow meanwhile. A run that stops before its
    last epoch (early, diverged, failed) ends as ever, so one that stopped early has seen the test set.
    """
    payloads: dict[str, RunPayload] = {task.run: task.payload for task in tasks}
    losses: dict[str, list[float]] = {run: [] for run, payload in payloads.items() if not payload.tested}
    ends = _Ends(broken_off)
    for run, message in train(ends):
        if run in losses and isinstance(message, Epoch):
            training = payloads[run].config["training"]
            losses[run].append(message.metrics["val/loss"])
            # What is not finite has diverged, which is for the training to say.
            is_finite = all(map(math.isfinite, message.metrics.values()))
            if message.number == training["epochs"] and is_finite:
                is_best = training["checkpoint"] == "best"
                ends.epochs[run] = 1 + losses[run].index(min(losses[run])) if is_best else message.number
        is_end = isinstance(message, Failure) and message.kind == "cancelled" and run in ends.epochs
        yield run, Result(False, ends.epochs[run], {}, {}, {}) if is_end else message


class _Ends(Collection[str]):
    """Runs to break off: those that have told their last epoch (epochs: the one that counts), and those of others."""

    def __init__(self, others: Collection[str]) -> None:
        self.epochs: dict[str, int] = {}
        self._others = others

    def __contains__(self, run: object) -> bool:
        return run in self.epochs or run in self._others

    def __iter__(self) -> Iterator[str]:
        return iter({*self.epochs, *self._others})

    def __len__(self) -> int:
        return len({*self.epochs, *self._others})
