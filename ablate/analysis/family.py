"""What a design judges: its arms, and the effects that it estimates as contrasts of arms.

A main effect is mean(+) − mean(−) over all other factors; an interaction is half the difference of two differences
(Box, Hunter & Hunter, Statistics for Experimenters, 2nd ed., chapter 5). With more than two levels, each level is
compared with the baseline's.

Where every factor is tried alone and left out of everything (`design: both`), its interaction with the rest is the
difference of those two effects, not half of it: two figures that stand in the report, and what lies between them.

Everything follows from the plan alone, so that the size of the family cannot move when results come in.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from ablate.errors import StudyError

FACTORIAL = ("factorial", "fractional")
"""Designs whose verdicts are about effects; their arms are cells, which get none."""

ANEW = ("one-at-a-time", "leave-one-out")
"""Designs of which some arms can be asked about again in a study of their own: all have one reference, and none needs the others."""


@dataclass(frozen=True)
class ArmRule:
    """An arm as the plan declares it.

    factor: the dotted path (or the name of a zipped factor) that the arm changes; None where it has no single one.
    level: the scalar it is set to, or {path: value} where several are. In factorial designs every cell has such a
    mapping; a path that is absent, or at the level of the baseline, stands at the baseline's level.
    reference: the arm it is compared with, where that is not the study's (a design of both kinds has two).

    Names that are whole numbers become text. Raises StudyError for any other name that is not text, and for such a factor.
    """

    name: str
    factor: str | None = None
    level: Any = None
    reference: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", arm_name(self.name))
        if self.factor is not None and not isinstance(self.factor, str):
            raise StudyError(
                f"{self.factor!r} cannot name a factor",
                place=f"arms: {self.name}",
                hint="a factor is text, such as 'model.width'",
            )
        if self.reference is not None:
            object.__setattr__(self, "reference", arm_name(self.reference))


def arm_name(name: object) -> str:
    """Return the name of an arm as text: a whole number, as a frame may hold it, is its digits.

    Raises StudyError where it is neither text nor a whole number.
    """
    if isinstance(name, str) and name:
        return str(name)
    if isinstance(name, SupportsIndex) and not isinstance(name, bool):  # the integers of numpy too
        with contextlib.suppress(TypeError):
            return str(operator.index(name))
    raise StudyError(
        f"{name!r} cannot name an arm", place="arms", hint="name arms by text, such as 'model.width=128'"
    )


@dataclass(frozen=True, eq=False)
class Term:
    """One side of an effect: a factor at a level. `THE_REST` has no factor: it stands for all the others together.

    Two terms are equal where factor and level are, and levels keep their kind: `true` is not 1.
    """

    factor: str | None
    level: Any = None

    def _identity(self) -> tuple[str | None, str]:
        return self.factor, json.dumps(self.level, sort_keys=True, default=repr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())


THE_REST = Term(None)
"""What a factor interacts with where it is known alone and within everything."""

Terms = tuple[Term, ...]
"""An effect by its sides: one for a main effect, two for an interaction."""


@dataclass(frozen=True)
class Contrast:
    """An effect as a weighted sum of cells.

    weights: (arm, weight), the positive ones and the negative ones each summing to ±1. twins: for each factor of the
    effect, the pairs of cells that differ by it alone. aliases: other effects with the same weights (up to sign), which
    the design cannot tell apart.
    """

    terms: Terms
    weights: tuple[tuple[str, float], ...]
    twins: tuple[tuple[tuple[str, str], ...], ...] = ()
    aliases: tuple[Terms, ...] = ()


def contrasts(
    arms: Sequence[ArmRule], *, reference: str, design: str, baseline_levels: Mapping[str, Any]
) -> tuple[Contrast, ...]:
    """Return the effects that a design judges in the order of its report: main effects, then interactions.

    Empty for designs whose verdicts are about arms alone. reference: of the study. baseline_levels: {path: value} of the
    factors at the baseline. In a fraction, interactions exist between factors of two levels, and effects with the same
    weights become one. Raises StudyError where a cell does not say its levels.
    """
    if design == "both":
        return _interactions_with_the_rest(arms, reference)
    if design not in FACTORIAL:
        return ()
    cells, factors = _cells(arms, reference, design, baseline_levels)
    complete = len(cells) == math.prod(len(levels) for levels in factors.values())
    names = list(factors)
    effects: list[Contrast] = []
    for f, name in enumerate(names):
        for level in range(1, len(factors[name])):
            plus = [cell for at, cell in cells.items() if at[f] == level]
            minus = [cell for at, cell in cells.items() if at[f] == 0]
            weights = _weights((plus, 1.0), (minus, -1.0))
            effects.append(Contrast((Term(name, factors[name][level]),), weights, (_twins(cells, f, level),)))
    for f, g in itertools.combinations(range(len(names)), 2):
        if not complete and max(len(factors[names[f]]), len(factors[names[g]])) > 2:
            continue
        for a, b in itertools.product(range(1, len(factors[names[f]])), range(1, len(factors[names[g]]))):
            plus = [cell for at, cell in cells.items() if (at[f], at[g]) in {(a, b), (0, 0)}]
            minus = [cell for at, cell in cells.items() if (at[f], at[g]) in {(a, 0), (0, b)}]
            twins = (_twins(cells, f, a), _twins(cells, g, b))
            terms = (Term(names[f], factors[names[f]][a]), Term(names[g], factors[names[g]][b]))
            effects.append(Contrast(terms, _weights((plus, 1.0), (minus, -1.0)), twins))
    return _merge_aliases(effects)


def _interactions_with_the_rest(arms: Sequence[ArmRule], reference: str) -> tuple[Contrast, ...]:
    """For each factor: what it is worth given all the others, minus what it is worth alone."""
    without = {arm.factor: arm for arm in arms if arm.reference is not None}
    effects = []
    for alone in arms:
        if alone.reference is not None:
            continue
        if alone.factor not in without:
            raise StudyError(f"the arm {alone.name!r} has no counterpart that leaves it out", place="factors")
        left_out = without[alone.factor]
        full = left_out.reference or reference
        weights = ((full, 1.0), (reference, 1.0), (left_out.name, -1.0), (alone.name, -1.0))
        twins = ((full, left_out.name), (alone.name, reference))
        effects.append(Contrast((Term(alone.factor, alone.level), THE_REST), weights, (twins,)))
    return tuple(effects)


_UNKNOWN_LEVEL = object()
"""Stands for the baseline's level where the plan does not give it: equal to nothing that a cell can be set to."""


def _cells(
    arms: Iterable[ArmRule], reference: str, design: str, baseline_levels: Mapping[str, Any]
) -> tuple[dict[tuple[int, ...], str], dict[str, list[Any]]]:
    """Return every cell by its level numbers (0: the baseline's), and every factor's levels in order."""
    arms = list(arms)
    levels: dict[str, list[Any]] = {path: [level] for path, level in baseline_levels.items()}
    for arm in arms:
        if not isinstance(arm.level, Mapping):
            raise StudyError(
                f"cell {arm.name!r} of a {design} design does not say its levels", place="factors"
            )
        for path, level in arm.level.items():
            path_levels = levels.setdefault(path, [_UNKNOWN_LEVEL])
            if not any(_equal(level, other) for other in path_levels):
                path_levels.append(level)
    factors = {path: path_levels for path, path_levels in levels.items() if len(path_levels) > 1}

    def number(path: str, at: Mapping[str, Any]) -> int:
        if path not in at:
            return 0
        return next(i for i, level in enumerate(factors[path]) if _equal(at[path], level))

    cells = {tuple(0 for _ in factors): reference}
    for arm in arms:
        at = tuple(number(path, arm.level) for path in factors)
        if at in cells:
            raise StudyError(f"cells {cells[at]!r} and {arm.name!r} have the same levels", place="factors")
        cells[at] = arm.name
    return cells, factors


def _twins(cells: Mapping[tuple[int, ...], str], f: int, level: int) -> tuple[tuple[str, str], ...]:
    changed = {(*at[:f], *at[f + 1 :]): cell for at, cell in cells.items() if at[f] == level}
    plain = {(*at[:f], *at[f + 1 :]): cell for at, cell in cells.items() if at[f] == 0}
    return tuple((cell, plain[at]) for at, cell in changed.items() if at in plain)


def _weights(*sides: tuple[list[str], float]) -> tuple[tuple[str, float], ...]:
    return tuple((cell, sign / len(side)) for side, sign in sides for cell in side)


def _merge_aliases(effects: list[Contrast]) -> tuple[Contrast, ...]:
    """One contrast per set of weights; what shares them (up to sign) becomes an alias of the first."""
    kept: dict[tuple[tuple[str, float], ...], Contrast] = {}
    for contrast in effects:
        weights = sorted((cell, round(weight, 12)) for cell, weight in contrast.weights)
        flip = math.copysign(1.0, weights[0][1])
        key = tuple((cell, float(weight * flip)) for cell, weight in weights)
        if key in kept:
            first = kept[key]
            kept[key] = Contrast(first.terms, first.weights, first.twins, (*first.aliases, contrast.terms))
        else:
            kept[key] = contrast
    return tuple(kept.values())


def _equal(one: Any, other: Any) -> bool:
    """Equality of levels, in which 1 is 1.0 and neither is True."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
