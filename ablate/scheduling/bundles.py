"""Which of the waiting runs are handed to a slot together. A pure choice: whether they are then stacked or stepped in turn on
the batches that they share is found out where they train.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ablate.config import Config

T = TypeVar("T")

MOST = 16
"""Runs of a bundle: each keeps its weights, their gradients and what its optimizer remembers in the same process."""


def take(waiting: Sequence[T], config: Callable[[T], Config], left: float, slots: int) -> list[T]:
    """The first that waits, and those that go with it, in the order in which they wait.

    left: runs to be done yet, those that wait and what is left of those in training. A bundle takes no more than a slot's
    share of that, so that no slot ends up idle beside a full one; of runs whose networks differ in shape half a share, because
    they take times of their own and gain less by company.
    """
    first, *others = waiting
    needed = config(first).batches()
    if needed is None:
        return [first]
    share = min(MOST, max(1, math.ceil(left / slots - 1e-9)))
    friends = [one for one in others if config(one).batches() == needed]
    shape = config(first).shape()
    alike = [one for one in friends if config(one).shape() == shape]
    chosen = [first, *alike][:share]
    room = math.ceil(share / 2) - len(chosen)
    chosen += [one for one in friends if one not in alike][: max(room, 0)]
    return [one for one in waiting if one in chosen]
