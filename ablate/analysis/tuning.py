"""Results of tuning and searching: the best values, how the metric responds to them, effects at fixed and tuned values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ablate.analysis.compare import FIXED, REPORT, TUNE
from ablate.analysis.contents import Analysis, Comparison, Effect
from ablate.analysis.family import Terms
from ablate.analysis.judging import judge
from ablate.analysis.words import effect_code
from ablate.study.record import CandidateRecord, PlanRecord
from ablate.study.search import SearchSettings
from ablate.study.seeds import is_reevaluation

ADDS = (0.26, 0.56)
"""Shares of the variance of a difference that searching again adds to it."""

ENOUGH_RETUNES = 3
"""Independent searches from which a verdict at tuned values needs no qualification."""


@dataclass(frozen=True)
class Trial:
    """One run of a search.

    values: by path. value: of the metric, None where the run has none. outcome: finished, diverged, pruned or failed.
    reevaluated: whether the run re-evaluates one of the best. cost: of a search with two objectives, where it is known.
    front: no other trial, re-evaluations aside, is at least as good in both objectives and better in one.
    """

    values: Mapping[str, Any]
    value: float | None
    outcome: str
    reevaluated: bool
    cost: float | None = None
    front: bool = False


@dataclass(frozen=True)
class Searched:
    """One search: of an arm's nuisance settings, or the whole of `design: search`.

    values: the best; those of the study file where `searched` is false, as no trial finished. edge: setting → the end
    of its range (lower or upper) at which its best value lies. coarse: trials next to the best differ from it by more than
    seeds do, so that a finer search may find better; None where that cannot be decided.
    """

    arm: str
    values: Mapping[str, Any]
    searched: bool
    edge: Mapping[str, str]
    coarse: bool | None
    candidates: tuple[CandidateRecord, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class FixedAndTuned:
    """An effect at the values of the study file, beside the one at tuned values; oriented, in the metric's units.

    subject: the arm, or the effect's terms. n: pairs of the fixed comparison, whose intervals are made as for a study of
    its own.
    """

    subject: str | Terms
    fixed: float | None
    fixed_ci: tuple[float, float] | None
    n: int
    tuned: float | None
    tuned_ci: tuple[float, float] | None


@dataclass(frozen=True)
class Tuning:
    """Every search of a study.

    ranges: setting → the range it was searched in, as the study declares it. settings: the study's `search`. effects: fixed
    and tuned, side by side.
    """

    ranges: Mapping[str, Any]
    settings: SearchSettings
    searches: tuple[Searched, ...]
    effects: tuple[FixedAndTuned, ...]
    importances: Mapping[str, Mapping[str, float]]

    @property
    def complete(self) -> bool:
        return bool(self.searches)


def tuning(record: PlanRecord, analysis: Analysis, replicates: pd.DataFrame) -> Tuning | None:
    """Return what the searches of a study found; None where nothing was searched.

    replicates: as `judge` takes them, with `key`.
    """
    if record.search is None:
        return None
    rows = {str(row["key"]): row for row in replicates.to_dict("records")}
    trials: dict[str, list[Trial]] = {}
    cost = record.search.cost
    reevaluated = {run.key for run in record.runs if run.phase == TUNE and is_reevaluation(run.seed)}
    for run in record.runs:
        row = rows.get(run.key)
        if run.phase == TUNE and row is not None:
            value = float(row["value"])
            trial = Trial(
                run.values,
                value if math.isfinite(value) else None,
                str(row["outcome"]),
                run.key in reevaluated,
                _finite(row.get(cost)) if cost else None,
            )
            trials.setdefault(run.arm, []).append(trial)
    if cost:
        trials = {arm: _front(arm_trials, analysis.rules.sign) for arm, arm_trials in trials.items()}
    searches = tuple(
        Searched(
            arm,
            tuned.values,
            tuned.searched,
            tuned.edge,
            _coarse(tuned.values, trials.get(arm, []), _spread(replicates, arm)),
            tuned.candidates,
            tuple(trials.get(arm, [])),
        )
        for arm, tuned in record.tuned.items()
    )
    return Tuning(
        record.nuisance or record.space,
        record.search,
        searches,
        _fixed_and_tuned(record, analysis, replicates) if record.nuisance and record.tuned else (),
        record.importances,
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _front(trials: list[Trial], sign: float) -> list[Trial]:
    """Mark the trials that no other beats in both objectives. sign: 1 where more of the metric is better."""
    points = [
        (t.cost, sign * t.value)
        for t in trials
        if not t.reevaluated and t.value is not None and t.cost is not None
    ]

    def kept(cost: float, value: float) -> bool:
        return not any(c <= cost and v >= value and (c < cost or v > value) for c, v in points)

    return [
        replace(
            t,
            front=not t.reevaluated
            and t.value is not None
            and t.cost is not None
            and kept(t.cost, sign * t.value),
        )
        for t in trials
    ]


def to_json(tuned: Tuning) -> dict[str, Any]:
    """Return plain values for the JSON of a report."""
    return {
        "ranges": dict(tuned.ranges),
        "sampler": tuned.settings.sampler,
        "pruner": tuned.settings.pruner,
        "trials": tuned.settings.trials,
        "cost": tuned.settings.cost,
        "complete": tuned.complete,
        "searches": [
            {
                "arm": search.arm,
                "values": dict(search.values),
                "found": search.searched,
                "edge": dict(search.edge),
                "coarse": search.coarse,
                "candidates": [
                    {"values": dict(c.values), "mean": c.mean, "runs": c.runs, "cost": c.cost}
                    for c in search.candidates
                ],
                "trials": [
                    {"values": dict(t.values), "value": t.value, "outcome": t.outcome, "again": t.reevaluated}
                    | ({"cost": t.cost, "front": t.front} if tuned.settings.cost else {})
                    for t in search.trials
                ],
            }
            for search in tuned.searches
        ],
        "effects": [
            {
                "name": search.subject if isinstance(search.subject, str) else effect_code(search.subject),
                "fixed": search.fixed,
                "fixed_ci": None if search.fixed_ci is None else list(search.fixed_ci),
                "fixed_n": search.n,
                "tuned": search.tuned,
                "tuned_ci": None if search.tuned_ci is None else list(search.tuned_ci),
            }
            for search in tuned.effects
        ],
        "importances": {method: dict(shares) for method, shares in tuned.importances.items()},
        "variance_added": list(ADDS),
    }


def _spread(replicates: pd.DataFrame, arm: str) -> float:
    """Return the standard deviation of an arm's values over the seeds that are reported; NaN below two."""
    values = replicates[(replicates["arm"] == arm) & (replicates["phase"] == REPORT)]["value"].dropna()
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan


def _coarse(values: Mapping[str, Any], trials: list[Trial], spread: float) -> bool | None:
    """Return whether the trials next to the best, on either side, both differ from it by more than seeds do."""
    if len(values) != 1:
        return None
    ((path, best),) = values.items()
    numbers = sorted(
        (float(t.values[path]), t.value)
        for t in trials
        if not t.reevaluated and t.value is not None and isinstance(t.values[path], int | float)
    )
    if len(numbers) < 3 or not math.isfinite(spread):
        return None
    at = next((i for i, (x, _) in enumerate(numbers) if x == best), None)
    if at is None:
        return None
    near = [numbers[i][1] for i in (at - 1, at + 1) if 0 <= i < len(numbers)]
    return all(abs(value - numbers[at][1]) > spread for value in near)


def _fixed_and_tuned(
    record: PlanRecord, analysis: Analysis, replicates: pd.DataFrame
) -> tuple[FixedAndTuned, ...]:
    stayed = {
        arm for arm in record.tuned if not any(run.phase == FIXED and run.arm == arm for run in record.runs)
    }
    own = (replicates["phase"] == REPORT) & replicates["arm"].isin(stayed)
    rules = replace(analysis.rules, looks=analysis.rules.looks[:1], most=0, retunes=0, confirm_seeds=0)
    frame = replicates[
        (replicates["phase"] == FIXED)
        | (own & replicates["seed"].isin(analysis.rules.seeds[: rules.looks[0]]))
    ]
    if frame.empty:
        return ()
    fixed = judge(rules, frame.assign(phase=REPORT), closed=1)
    items = {_subject(item): item for item in _items(fixed)}
    return tuple(
        FixedAndTuned(
            _subject(item),
            _estimate(items[_subject(item)]),
            _interval(items[_subject(item)]),
            items[_subject(item)].n,
            _estimate(item),
            _interval(item),
        )
        for item in _items(analysis)
        if _subject(item) in items
    )


def _items(analysis: Analysis) -> list[Comparison | Effect]:
    return [*analysis.comparisons, *analysis.effects]


def _subject(item: Comparison | Effect) -> str | Terms:
    return item.arm if isinstance(item, Comparison) else item.terms


def _estimate(item: Comparison | Effect) -> float | None:
    value = item.effect if isinstance(item, Comparison) else item.estimate
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(item: Comparison | Effect) -> tuple[float, float] | None:
    return None if item.lo is None or item.hi is None else (float(item.lo), float(item.hi))
