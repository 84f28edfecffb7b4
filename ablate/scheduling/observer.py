"""What a display is told while a study runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

    from ablate.analysis import Analysis
    from ablate.events import Event
    from ablate.executors import Slot
    from ablate.study.design import Run
    from ablate.study.record import PlanRecord


class JudgedLook(NamedTuple):
    """What a look came to. replicates: a row for each result so far, as the analysis reads them."""

    record: PlanRecord
    analysis: Analysis
    replicates: pd.DataFrame


class Observer:
    """Told what happens, by the coordinator's thread. Every method does nothing, and may be overridden."""

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        """A look begins: its number, pairs of each arm, the runs that it takes, and how many of them are done already."""

    def searching(self, runs: int, done: int) -> None:
        """A search, a tuning or the comparison beside it begins: its runs, and how many of them are done already."""

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        """A run is handed to a slot."""

    def event(self, run: Run, event: Event) -> None:
        """An event of a run has arrived."""

    def settled(self, run: Run, outcome: str, value: float) -> None:
        """A run counts from now on, trained or reused: finished, diverged, pruned or failed, and the value of its metric."""

    def judged(self, look: JudgedLook) -> None:
        """A look is complete, and was judged."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def caution(self, text: str) -> None:
        """What bounds the results: shown even where only failures and verdicts are. Unless it is overridden, a note."""
        self.note(text)
