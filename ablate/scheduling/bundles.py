"""Which of the waiting runs are handed to a slot together.

Whether they are then stacked, or stepped in turn on the batches that they share, is decided where they train.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from ablate.config import Config
from ablate.executors import Slot
from ablate.scheduling.dispatch import Companions
from ablate.study.design import Run
from ablate.training.builtin import checkpoint

T = TypeVar("T")

MOST = 16
"""Runs of a bundle: each keeps its weights, their gradients and its optimizer's state in the same process."""

NEAR = 256
"""How many of the runs that wait are looked through for others of the same shape."""


class SharedSlots:
    """Decides which runs of a study share a slot; a `dispatch.Company`.

    config: what a run trains. checkpoints: the folder in which bundles that were broken off have left theirs; None where they leave
    none. slots: how many there are. in_rounds: whether seeds are to be done one by one, as a budget wants it.
    """

    def __init__(
        self, config: Callable[[Run], Config], checkpoints: Path | None, slots: int, *, in_rounds: bool
    ) -> None:
        self._config = config
        self._checkpoints = checkpoints
        self._slots = slots
        self._in_rounds = in_rounds
        # Shapes of networks that were handed out in a bundle and trained by themselves all the same.
        self._unfusable: set[str] = set()

    def choose(self, first: Run, waiting: Sequence[Run], left: float, slot: Slot) -> Companions[Run]:
        """Return the runs that were broken off together with `first`, if all of them wait; else those of a new bundle."""
        fresh = list(waiting)
        if saved := self._saved():
            keys = {first.key, *(run.key for run in waiting)}
            if members := resumable(first.key, saved, keys):
                return Companions([run for run in waiting if run.key in members], resumed=True)
            # Those whose turn to be resumed comes later are left for one another.
            promised = {key for members in saved if members <= keys for key in members}
            fresh = [run for run in waiting if run.key not in promised]
        return Companions(self._of_a_new_bundle(first, fresh, left, slot))

    def _of_a_new_bundle(self, first: Run, others: list[Run], left: float, slot: Slot) -> list[Run]:
        # On a GPU runs of several seeds can be stacked.
        any_seed = slot.device.startswith("cuda") and not self._in_rounds
        # On a CPU no run of another seed can join, and asking thousands of configs would take its time.
        near = others[:NEAR] if any_seed else [run for run in others if run.seed == first.seed]
        if self._config(first).shape() in self._unfusable:
            return []
        near = [run for run in near if self._config(run).shape() not in self._unfusable]
        return take([first, *near], self._config, left, self._slots, any_seed=any_seed)[1:]

    def remaining(self, work: Run, events: int) -> float:
        """Return what is left of a run in training, in runs. events: the epochs it has had."""
        epochs = self._config(work).flatten().get("training.epochs")
        return 1 - min(events / epochs, 1) if isinstance(epochs, int) else 1

    def unfusable(self, work: Run) -> None:
        """Bundle no more runs of this one's shape."""
        self._unfusable.add(self._config(work).shape())

    def resumable(self, work: Run) -> bool:
        """Return whether a checkpoint of a bundle has the run among those that were not done."""
        return any(work.key in members for members in self._saved())

    def _saved(self) -> tuple[frozenset[str], ...]:
        """Return the runs of each checkpoint of a bundle."""
        return () if self._checkpoints is None else tuple(checkpoint.together(self._checkpoints).values())


def resumable(run: str, saved: Iterable[frozenset[str]], waiting: Collection[str]) -> frozenset[str]:
    """Return the runs, `run` among them, that were broken off together and can be resumed together; empty: none.

    saved: keys of the runs of each checkpoint of a bundle. waiting: keys, `run` included. All runs of a bundle have to wait,
    because its checkpoint is good for exactly those.
    """
    return next((members for members in saved if run in members and members.issubset(waiting)), frozenset())


def take(
    waiting: Sequence[T], config: Callable[[T], Config], left: float, slots: int, *, any_seed: bool = False
) -> list[T]:
    """Return the first that waits and those that share its slot, in the order in which they wait.

    any_seed: where no more of the first one's seed wait, runs of the same shape and other seeds go with it.
    left: runs to be done yet, those that wait and what is left of those in training. A bundle takes no more than a slot's
    share of that, so that no slot ends up idle beside a full one; of runs whose networks differ in shape half a share, because
    they take times of their own and gain less from one another.
    """
    first, *others = waiting
    batches = config(first).batches()
    if batches is None:
        return [first]
    share = min(MOST, max(1, math.ceil(left / slots - 1e-9)))
    sharing = [run for run in others if config(run).batches() == batches]
    shape = config(first).shape()
    alike = [run for run in sharing if config(run).shape() == shape]
    chosen = [first, *alike][:share]
    room = math.ceil(share / 2) - len(chosen)
    chosen += [run for run in sharing if run not in alike][: max(room, 0)]
    if any_seed:
        batches = config(first).batches(any_seed=True)
        of_other_seeds = [
            run
            for run in others
            if run not in sharing
            and config(run).batches(any_seed=True) == batches
            and config(run).shape() == shape
        ]
        chosen += of_other_seeds[: max(share - len(chosen), 0)]
    return [run for run in waiting if run in chosen]
