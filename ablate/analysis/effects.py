"""Effects: main effects and two-way interactions of factorial designs, each a contrast of cells within every seed.

A main effect is mean(+) − mean(−) over all other factors; an interaction is half the difference of two differences
(Box, Hunter & Hunter, Statistics for Experimenters, 2nd ed., chapter 5). With more than two levels, each level is held
against the baseline's.

Where every factor is tried alone and left out of everything (`design: both`), its interaction with the rest is the
difference of those two effects, not half of it: two figures that stand in the report, and what lies between them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.analysis.compare import Ledger, Record, Sample, copies, same
from ablate.analysis.rules import Rules
from ablate.errors import StudyError


@dataclass(frozen=True)
class Contrast:
    """An effect as a weighted sum of cells.

    terms: `path=level`, one for a main effect, two for an interaction. weights: (arm, weight), the positive ones and
    the negative ones each summing to ±1. twins: for each factor of the effect, the pairs of cells that differ by it
    alone. aliases: terms of other effects with the same weights (up to sign), which the design cannot tell apart.
    """

    terms: tuple[str, ...]
    weights: tuple[tuple[str, float], ...]
    twins: tuple[tuple[tuple[str, str], ...], ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()


def contrasts(rules: Rules) -> tuple[Contrast, ...]:
    """The effects that a design judges in the order of its report: main effects, then interactions.

    In a fraction, interactions exist between factors of two levels, and effects with the same weights become one.
    Raises StudyError where a cell does not say its levels.
    """
    if rules.mixed:
        return _with_the_rest(rules)
    cells, factors = _cells(rules)
    complete = len(cells) == math.prod(len(levels) for levels in factors.values())
    names = list(factors)
    found: list[Contrast] = []
    for f, name in enumerate(names):
        for level in range(1, len(factors[name])):
            plus = [cell for at, cell in cells.items() if at[f] == level]
            minus = [cell for at, cell in cells.items() if at[f] == 0]
            weights = _weights((plus, 1.0), (minus, -1.0))
            found.append(Contrast((factors[name][level],), weights, (_twins(cells, f, level),)))
    for f, g in itertools.combinations(range(len(names)), 2):
        if not complete and max(len(factors[names[f]]), len(factors[names[g]])) > 2:
            continue
        for a, b in itertools.product(range(1, len(factors[names[f]])), range(1, len(factors[names[g]]))):
            plus = [cell for at, cell in cells.items() if (at[f], at[g]) in {(a, b), (0, 0)}]
            minus = [cell for at, cell in cells.items() if (at[f], at[g]) in {(a, 0), (0, b)}]
            twins = (_twins(cells, f, a), _twins(cells, g, b))
            terms = (factors[names[f]][a], factors[names[g]][b])
            found.append(Contrast(terms, _weights((plus, 1.0), (minus, -1.0)), twins))
    return _merged(found)


def spread(rules: Rules) -> float:
    """SD of the noisiest effect of a factorial design, in SDs of a difference of two cells; 1 for other designs.

    Every run serves every effect: a main effect of N cells of two levels has a variance of 4/N, the difference of two
    cells one of 2. Where all runs are equally noisy and independent.
    """
    if not rules.factorial:
        return 1.0
    return max((math.sqrt(sum(w * w for _, w in c.weights) / 2.0) for c in contrasts(rules)), default=1.0)


THE_REST = "the rest"
"""What a factor interacts with where it is known alone and within everything."""


def _with_the_rest(rules: Rules) -> tuple[Contrast, ...]:
    """For each factor: what it is worth given all the others, minus what it is worth alone."""
    without = {arm.factor: arm for arm in rules.arms if arm.reference is not None}
    found = []
    for alone in rules.arms:
        if alone.reference is not None:
            continue
        if alone.factor not in without:
            raise StudyError(f"the arm {alone.name!r} has no counterpart that leaves it out", place="factors")
        left_out = without[alone.factor]
        weights = (
            (rules.reference_of(left_out), 1.0),
            (rules.reference, 1.0),
            (left_out.name, -1.0),
            (alone.name, -1.0),
        )
        terms = (_term(str(alone.factor), alone.level), THE_REST)
        twins = ((rules.reference_of(left_out), left_out.name), (alone.name, rules.reference))
        found.append(Contrast(terms, weights, (twins,)))
    return tuple(found)


def parts(
    contrast: Contrast, ledger: Ledger, seeds: Sequence[int], rules: Rules
) -> tuple[float, float] | None:
    """What a factor is worth alone, and given the rest: the oriented means whose difference its interaction is.

    seeds: those of the contrast's pairs. None without any.
    """
    if not seeds:
        return None
    (full, _), (base, _), (without, _), (alone, _) = contrast.weights

    def between(one: str, other: str) -> float:
        pairs = [(ledger.record(one)[s].value, ledger.record(other)[s].value) for s in seeds]
        return rules.sign * math.fsum(a - b for a, b in pairs) / len(pairs)

    return between(alone, base), between(full, without)


def sample(contrast: Contrast, ledger: Ledger, seeds: Sequence[int], rules: Rules) -> Sample:
    """The contrast within each seed under which all of its cells finished, oriented, with the flags of its cells."""
    records: dict[str, Record] = {arm: ledger.record(arm) for arm, _ in contrast.weights}
    wanted = list(seeds)
    whole = [s for s in wanted if all(s in r and r[s].finished for r in records.values())]
    differences = tuple(
        rules.sign * math.fsum(weight * records[arm][s].value for arm, weight in contrast.weights)
        for s in whole
    )
    diverged = [
        (arm, weight, s)
        for arm, weight in contrast.weights
        for s in wanted
        if s in records[arm] and records[arm][s].outcome == "diverged"
    ]
    done = {arm: {s: r[s] for s in wanted if s in r and r[s].finished} for arm, r in records.items()}
    return Sample(
        seeds=tuple(whole),
        differences=differences,
        copied=not rules.deterministic and any(copies(r.values()) for r in done.values()),
        unchanged=any(_unchanged(twins, done) for twins in contrast.twins),
        unstable=bool(diverged),
        # A cell that diverged did badly. On the plus side, leaving it out flatters the effect, never the harm.
        hurt_is_safe=all(weight > 0 for _, weight, _ in diverged),
        reference_diverged=tuple(s for arm, _, s in diverged if arm == rules.reference),
        scale=max((abs(r.value) for by_seed in done.values() for r in by_seed.values()), default=0.0),
    )


def _unchanged(twins: tuple[tuple[str, str], ...], done: Mapping[str, Record]) -> bool:
    """Whether a factor changed nothing: wherever two cells differ by it alone, they are the same training."""
    met = [
        same(done[one][s], done[other][s])
        for one, other in twins
        if one in done and other in done
        for s in done[one]
        if s in done[other]
    ]
    return bool(met) and all(met)


def _cells(rules: Rules) -> tuple[dict[tuple[int, ...], str], dict[str, list[str]]]:
    """Every cell by its level numbers (0: the baseline's), and the label of every factor's levels in order."""
    levels: dict[str, list[Any]] = {path: [level] for path, level in rules.baseline_levels.items()}
    for arm in rules.arms:
        if not isinstance(arm.level, Mapping):
            raise StudyError(
                f"cell {arm.name!r} of a {rules.design} design does not say its levels", place="factors"
            )
        for path, level in arm.level.items():
            known = levels.setdefault(path, [_Unsaid()])
            if not any(_equal(level, k) for k in known):
                known.append(level)
    factors = {path: known for path, known in levels.items() if len(known) > 1}

    def number(path: str, at: Mapping[str, Any]) -> int:
        if path not in at:
            return 0
        return next(i for i, level in enumerate(factors[path]) if _equal(at[path], level))

    cells = {tuple(0 for _ in factors): rules.reference}
    for arm in rules.arms:
        where = tuple(number(path, arm.level) for path in factors)
        if where in cells:
            raise StudyError(f"cells {cells[where]!r} and {arm.name!r} have the same levels", place="factors")
        cells[where] = arm.name
    return cells, {path: [_term(path, level) for level in known] for path, known in factors.items()}


class _Unsaid:
    """Stands for the baseline's level where the plan does not give it: equal to nothing that a cell can be set to."""


def _twins(cells: Mapping[tuple[int, ...], str], f: int, level: int) -> tuple[tuple[str, str], ...]:
    changed = {(*at[:f], *at[f + 1 :]): cell for at, cell in cells.items() if at[f] == level}
    plain = {(*at[:f], *at[f + 1 :]): cell for at, cell in cells.items() if at[f] == 0}
    return tuple((cell, plain[at]) for at, cell in changed.items() if at in plain)


def _weights(*sides: tuple[list[str], float]) -> tuple[tuple[str, float], ...]:
    return tuple((cell, sign / len(side)) for side, sign in sides for cell in side)


def _merged(found: list[Contrast]) -> tuple[Contrast, ...]:
    """One contrast per set of weights; what shares them (up to sign) becomes an alias of the first."""
    kept: dict[tuple[tuple[str, float], ...], Contrast] = {}
    for contrast in found:
        weights = sorted((cell, round(weight, 12)) for cell, weight in contrast.weights)
        flip = np.sign(weights[0][1])
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


def _term(path: str, level: Any) -> str:
    return f"{path}={_shown(level)}"


def _shown(level: Any) -> str:
    if isinstance(level, str):
        return level
    if isinstance(level, _Unsaid):
        return "baseline"
    if isinstance(level, Mapping) and set(level) == {"name"}:
        return str(level["name"])
    return json.dumps(level, sort_keys=True, default=str)
