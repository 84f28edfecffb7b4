"""When a study is judged: the most seeds are fixed before its first run, the looks within them are taken as they come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LookPlan:
    """The looks of a plan. most: seeds of each arm that were declared before anything was judged.

    at: seeds of each look, increasing: first those that were taken, then those to come. A look beyond `most` spends what is
    kept for extra looks. taken: how many have been judged. A look to come has been read by nobody, so it may give way to
    another; what a look may spend depends on where it is and where the one before it was, not on who asked for it.
    """

    most: int
    at: tuple[int, ...]
    taken: int = 0

    @property
    def last_taken(self) -> int:
        """Seeds of the last look that was judged; 0: none was."""
        return self.at[self.taken - 1] if self.taken else 0

    def judged(self, number: int) -> LookPlan:
        """Return the looks with the first `number` of them judged."""
        return replace(self, taken=max(self.taken, number))

    def until(self, seeds: int) -> LookPlan:
        """Return the looks with one more at `seeds` in place of those to come; none where as many were judged already.

        Before anything was judged, it may raise the most seeds.
        """
        if not self.taken:
            return LookPlan(max(self.most, seeds), (seeds,))
        return replace(self, at=self._through(self.at[: self.taken], [seeds]))

    def resumed(self, stops: Sequence[int]) -> LookPlan:
        """Return the looks with those that the study file asks for after the last one. stops: increasing.

        Where nothing was judged yet, what the file says now is what counts.
        """
        if not self.taken:
            return LookPlan(stops[-1], tuple(stops))
        return replace(self, at=self._through(self.at, stops))

    def _through(self, at: tuple[int, ...], stops: Iterable[int]) -> tuple[int, ...]:
        for seeds in stops:
            last = at[-1]
            if last < self.most < seeds:  # what is declared is spent first: it costs no seed on the way
                at = (*at, self.most)
            if seeds > last:
                at = (*at, seeds)
        return at
