"""What a budget of time allows: whole rounds of seeds, so that the arms stay even."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator

from ablate.study.design import Run
from ablate.study.seeds import NOISE_FLOOR, Phase, replicate_of
from ablate.text import format_duration

SecondsByArm = dict[str, list[float]]
"""Arm → the seconds that its runs took so far."""


class Budget:
    """The time that a command may take. limit: in seconds, None for no limit. slots: how many runs are trained at a time.

    note: told why nothing more is begun. took: filled as runs end, and with what the store remembers of earlier ones.
    spent: whether a run was refused, or time is up.
    """

    def __init__(self, limit: float | None, slots: int, note: Callable[[str], None]) -> None:
        self.limit = limit
        self.took: SecondsByArm = {}
        self.spent = False
        self._slots = slots
        self._note = note
        self._began = time.monotonic()
        self._rounds = Rounds((), self.took, slots)

    def begin(self, runs: Iterable[Run]) -> None:
        """Say which runs are to be trained next: those of one replicate number are a round."""
        self._rounds = Rounds(runs, self.took, self._slots)

    def is_over(self) -> bool:
        """Return whether time is up."""
        self.spent |= self.limit is not None and self._left() <= 0
        return self.spent

    def allows(self, run: Run, waiting: Iterator[Run]) -> bool:
        """Return whether a run may be begun. waiting: all that wait, `run` first."""
        if self.limit is None or self._rounds.may_begin(run, self._left()):
            return True
        # Noted once: a run of an earlier round that is tried again may come after it.
        if not self.spent and (reason := self._rounds.refusal(list(waiting), self._left())):
            self._note(reason)
        self.spent = True
        return False

    def ended(self, run: Run, seconds: float) -> None:
        """Count an attempt of a run that has ended. seconds: of its slot."""
        self._rounds.took(run, seconds)

    def expected(self, runs: Iterable[Run]) -> float:
        """Return the seconds that the first round of these runs can be expected to take; 0 while nothing is known."""
        runs = list(runs)
        return Rounds(runs, self.took, self._slots).expected(runs[0])

    def _left(self) -> float:
        assert self.limit is not None
        return self.limit - (time.monotonic() - self._began)


class Rounds:
    """Runs grouped by replicate number. A round is one seed of every arm, and what a budget is spent by.

    took: added to as runs end. slots: how many runs are trained at a time.
    """

    def __init__(self, runs: Iterable[Run], took: SecondsByArm, slots: int) -> None:
        self._took = took
        self._slots = slots
        self._rounds: dict[tuple[Phase, int], list[Run]] = {}
        for run in runs:
            self._rounds.setdefault(_round_of(run), []).append(run)
        # Rounds that have begun, and whether each of their arms had been timed by then.
        self._begun: dict[tuple[Phase, int], bool] = {}

    def may_begin(self, run: Run, left: float) -> bool:
        """Return whether `run` may be trained with `left` seconds of the budget to go.

        A round is begun where it can be expected to fit, and then finished even if it takes longer: half a round would leave
        the arms uneven. Before every arm has been timed nothing can be expected; such a round ends with the budget.
        """
        number = _round_of(run)
        runs = self._rounds.get(number, [])  # what a search asks for belongs to none
        if not self._begun.get(number, False):
            if left <= 0:
                return False
            if number not in self._begun:
                timed = bool(runs) and all(self._took.get(each.arm) for each in runs)
                if timed and self.expected(run) > left:
                    return False
                self._begun[number] = timed
        return True

    def refusal(self, waiting: list[Run], left: float) -> str:
        """Return why the first of these may not be trained; empty where all there is to say is that time is up."""
        number = _round_of(waiting[0])
        size = len(self._rounds.get(number, []))
        lacking = sum(_round_of(run) == number for run in waiting)
        if number in self._begun and lacking < size:
            return (
                f"the budget ended within a seed that was begun before every arm had been timed: {lacking} of its {size} runs "
                "were not trained, so the arms have unequal numbers of seeds"
            )
        if not (expected := self.expected(waiting[0])):
            return ""
        return (
            f"{runs_of_a_seed(size)} about {format_duration(expected)}, and the budget has {format_duration(max(left, 0))} left: "
            "no run is started, so that all arms keep the same number of seeds"
        )

    def took(self, run: Run, seconds: float) -> None:
        """Add what an attempt of a run took."""
        self._took.setdefault(run.arm, []).append(seconds)

    def expected(self, run: Run) -> float:
        """Seconds of the whole round that `run` belongs to; 0 while nothing is known.

        Runs go to whichever slot is free first; an arm that was never timed is taken to be as slow as the mean of all runs.
        """
        all_seconds = [second for seconds in self._took.values() for second in seconds]
        if not all_seconds:
            return 0.0
        ends = [0.0] * self._slots
        for each in self._rounds.get(_round_of(run), []):
            seconds = self._took.get(each.arm) or all_seconds
            heapq.heapreplace(ends, ends[0] + sum(seconds) / len(seconds))
        return max(ends)


def runs_of_a_seed(runs: int) -> str:
    """Return the beginning of a sentence about what one seed of every arm takes."""
    return f"the {runs} runs of a seed take" if runs > 1 else "the one run of a seed takes"


def _round_of(run: Run) -> tuple[Phase, int]:
    """A/A runs belong to the round of the runs that they are held against."""
    return ("report" if run.phase == NOISE_FLOOR else run.phase, replicate_of(run.seed))
