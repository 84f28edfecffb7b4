"""Which of the waiting runs are handed to a slot together. A pure choice: whether they are then stacked or stepped in turn on
the batches that they share is found out where they train.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from ablate.config import Config

T = TypeVar("T")

MOST = 16
"""Runs of a bundle: each keeps its weights, their gradients and what its optimizer remembers in the same process."""


def again(run: str, saved: Iterable[frozenset[str]], waiting: Collection[str]) -> frozenset[str]:
    """The runs, `run` among them, that were broken off together and can go on together, because all of them wait; none: empty.

    saved: keys of the runs of each checkpoint of a bundle. waiting: keys, `run` included.
    """
    return next((of for of in saved if run in of and of.issubset(waiting)), frozenset())


def take(
    waiting: Sequence[T], config: Callable[[T], Config], left: float, slots: int, *, any_seed: bool = False
) -> list[T]:
    """The first that waits, and those that go with it, in the order in which they wait.

    any_seed: where no more of the first one's seed wait, runs of the same shape and other seeds go with it.
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
    if any_seed:
        needed = config(first).batches(any_seed=True)
        distant = [
            one
            for one in others
            if one not in friends
            and config(one).batches(any_seed=True) == needed
            and config(one).shape() == shape
        ]
        chosen += distant[: max(share - len(chosen), 0)]
    return [one for one in waiting if one in chosen]
