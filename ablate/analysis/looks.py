"""Looks in order: what is still open at a look gets an interval from its first n pairs; what is decided stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ablate.analysis import effects
from ablate.analysis.compare import Ledger, Record, Sample, Sampler, not_paired, pair
from ablate.analysis.contents import Verdict, Withheld
from ablate.analysis.family import ArmRule, Contrast
from ablate.analysis.groups import Group, GroupIntervals, group_intervals, group_variance
from ablate.analysis.intervals import (
    ENOUGH_PAIRS,
    HELPS,
    HURTS,
    INCONCLUSIVE,
    NEGLIGIBLE,
    Intervals,
    intervals,
)
from ablate.analysis.rules import Look, Rules

VERDICTS: dict[int, Verdict] = {
    INCONCLUSIVE: "inconclusive",
    HELPS: "helps",
    HURTS: "hurts",
    NEGLIGIBLE: "no practical effect",
}
"""Codes of intervals → verdicts."""


@dataclass(frozen=True)
class Unit:
    """What gets a verdict: an arm, or an effect. arms: those whose replicates it needs."""

    sampler: Sampler
    arms: tuple[str, ...]


@dataclass(frozen=True)
class UnitReading:
    """One unit at the look that decided it, or at the last one so far.

    lo, hi, p_adjusted, half (half-width), variance (s̃²), df: of its interval, None where it has none (variance and df also
    where runs are not paired: `sides` has those). moderated: whether the variance borrows from other units. corrected: its
    median-corrected variance, NaN where it does not count; where runs are not paired, that of a difference of single runs.
    """

    sample: Sample
    look: Look
    verdict: Verdict
    provisional: bool
    lo: float | None = None
    hi: float | None = None
    p_adjusted: float | None = None
    half: float | None = None
    variance: float | None = None
    df: float | None = None
    moderated: bool = False
    corrected: float = math.nan
    withheld: Withheld | None = None
    sides: tuple[Side, Side] | None = None

    @property
    def effect(self) -> float | None:
        return self.sample.effect

    @property
    def noise(self) -> float | None:
        return self.sample.noise


@dataclass(frozen=True)
class Side:
    """What is added in a comparison of groups, or what is taken away: for an arm its own runs, or its reference's.

    n: runs of each group. variance: s̃² as if they were one group. df: of it.
    """

    n: int
    variance: float
    df: float


def arm_units(rules: Rules, ledger: Ledger, arms: Sequence[ArmRule]) -> list[Unit]:
    """Return a unit for each arm, compared with its reference."""

    def sampler(arm: ArmRule) -> Sampler:
        reference = rules.reference_of(arm)
        runs, reference_runs = ledger.record(arm.name), ledger.record(reference)

        def sample(seeds: Sequence[int]) -> Sample:
            pairs = pair(runs, reference_runs, seeds, sign=rules.sign, deterministic=rules.deterministic)
            # Where the study's own reference diverges, the study is in error. Another one leaves its arms without a
            # comparison, and more seeds would not mend that.
            lost = bool(pairs.reference_diverged) and reference != rules.reference
            found = replace(pairs, unstable=True) if lost else pairs
            if rules.paired:
                return _with_shares(found, reference_runs) if rules.relative else found
            weights = {arm.name: 1.0, reference: -1.0}
            return not_paired(found, weights, ledger.under(weights, seeds), rules)

        return sample

    return [Unit(sampler(arm), (arm.name, rules.reference_of(arm))) for arm in arms]


def _with_shares(sample: Sample, reference: Record) -> Sample:
    """Return a sample of differences that are shares of the reference's mean with what the reference's runs are of it."""
    values = [reference[seed].value for seed in sample.seeds]
    mean = math.fsum(values) / len(values) if values else 0.0
    return replace(sample, shares=tuple(value / mean for value in values)) if mean else sample


def effect_units(rules: Rules, ledger: Ledger, family: Sequence[Contrast]) -> list[Unit]:
    """Return a unit for each effect."""

    def sampler(contrast: Contrast) -> Sampler:
        def sample(seeds: Sequence[int]) -> Sample:
            found = effects.sample(contrast, ledger, seeds, rules)
            if rules.paired:
                return found
            weights = dict(contrast.weights)
            return not_paired(found, weights, ledger.under(weights, seeds), rules)

        return sample

    return [Unit(sampler(contrast), tuple(arm for arm, _ in contrast.weights)) for contrast in family]


def go_through(
    units: Sequence[Unit],
    looks: Sequence[Look],
    over: Callable[[Look, Sequence[Unit]], bool],
    rules: Rules,
    *,
    k: int,
    seeds: Sequence[int],
) -> tuple[list[UnitReading], int]:
    """Read every look in order, freezing what is decided.

    over: whether a look is closed for the units that are still open. k: size of the family. seeds: in the order of the
    plan. Returns the reading of every unit and the index of the last closed look (0: none, and the readings are
    provisional).
    """
    readings: list[UnitReading | None] = [None] * len(units)
    last = 0
    for look in looks:
        waiting = [i for i, reading in enumerate(readings) if is_open(reading)]
        if not waiting and last:
            break
        if not over(look, [units[i] for i in waiting]):
            break
        for i, reading in _read_look(units, readings, look, rules, k=k, seeds=seeds):
            readings[i] = reading
        last = look.index
    if last == 0:
        for i, reading in _read_look(units, readings, looks[0], rules, k=k, seeds=seeds):
            readings[i] = replace(reading, provisional=True)
    return [reading for reading in readings if reading is not None], last


def is_open(reading: UnitReading | None) -> bool:
    """Return whether a unit is not decided yet."""
    return reading is None or reading.verdict == "inconclusive"


def _read_look(
    units: Sequence[Unit],
    readings: Sequence[UnitReading | None],
    look: Look,
    rules: Rules,
    *,
    k: int,
    seeds: Sequence[int],
) -> list[tuple[int, UnitReading]]:
    """Return the readings of this look, for the units that are still open."""
    if not units:
        return []
    waiting = [i for i, reading in enumerate(readings) if is_open(reading)]
    samples = {i: units[i].sampler(seeds[: look.pairs]) for i in waiting}
    if not rules.paired:
        return _read_groups(samples, readings, look, rules, k=k)
    mean, variance = np.zeros(len(units)), np.zeros(len(units))
    pairs = np.zeros(len(units), dtype=np.int64)
    counts, kept = np.zeros(len(units), dtype=bool), np.full(len(units), np.nan)
    for i, reading in enumerate(readings):
        if i not in samples:
            kept[i] = reading.corrected if reading is not None else math.nan
            continue
        sample = samples[i]
        pairs[i] = sample.n
        if sample.n >= ENOUGH_PAIRS:
            mean[i], variance[i] = np.mean(sample.differences), sample.variance(rules.resolution)
        # Copies and unchanged arms say nothing about noise, and neither do differences without any.
        counts[i] = not (sample.copied or sample.unchanged or sample.reference_diverged) and variance[i] > 0
    at_look = intervals(
        mean, variance, pairs, alpha=look.alpha, k=k, margin=rules.margin, counts=counts, kept=kept
    )
    return [(i, _reading(samples[i], look, at_look, i, rules)) for i in waiting]


def _read_groups(
    samples: Mapping[int, Sample], readings: Sequence[UnitReading | None], look: Look, rules: Rules, *, k: int
) -> list[tuple[int, UnitReading]]:
    """Return the readings of units whose runs are not paired. samples: of the units that are still open, by their number.

    An arm that is decided keeps its runs, and with them its part in the typical noise.
    """
    decided = [reading.sample for reading in readings if reading is not None and not is_open(reading)]
    groups: dict[str, Group] = {}
    unchanged: set[str] = set()
    for sample in (*decided, *samples.values()):
        for group in sample.groups:
            if group.arm not in groups or group.runs.n >= groups[group.arm].n:
                groups[group.arm] = group.runs
        unchanged |= {group.arm for group in sample.groups[:1] if sample.unchanged}
    names = list(groups)
    variance = group_variance(
        np.array([group.std if group.n > 1 else 0.0 for group in groups.values()]), rules.resolution
    )
    # Copies and unchanged arms say nothing about noise, and neither do runs without any.
    counts = np.array([not group.copied and arm not in unchanged for arm, group in groups.items()])
    weights = np.zeros((len(samples), len(names)))
    for row, sample in zip(weights, samples.values(), strict=True):
        for group in sample.groups:
            row[names.index(group.arm)] = group.weight
    at_look = group_intervals(
        np.array([group.mean if group.n else 0.0 for group in groups.values()]),
        variance,
        np.array([group.n for group in groups.values()], dtype=np.int64),
        k=k,
        margin=rules.margin,
        alpha=look.alpha,
        counts=counts & (variance > 0),
        weights=weights,
    )
    p_adjusted = at_look.p_adjusted
    found = []
    for i, (number, sample) in enumerate(samples.items()):
        flagged = _flagged(sample, look)
        used = weights[i] != 0.0
        no_noise = not bool((at_look.variance[used] > 0).all())
        if flagged is None and (no_noise or sample.n < ENOUGH_PAIRS):
            withheld: Withheld = "too few runs" if sample.n < ENOUGH_PAIRS else "no noise"
            verdict: Verdict = "unstable" if sample.unstable else "inconclusive"
            flagged = UnitReading(sample, look, verdict, provisional=False, withheld=withheld)
        if flagged is not None:
            found.append((number, flagged))
            continue
        code = int(at_look.code[i])
        hides = sample.unstable and not (code == HURTS and sample.hurt_is_safe)
        reading = UnitReading(
            sample,
            look,
            "unstable" if hides else VERDICTS[code],
            provisional=False,
            lo=float(at_look.lo[i]),
            hi=float(at_look.hi[i]),
            p_adjusted=float(p_adjusted[i]),
            half=float(at_look.half[i]),
            moderated=bool(np.isfinite(at_look.typical)),
            corrected=float(np.square(weights[i]) @ variance) if counts[used].all() else math.nan,
            sides=(_side(at_look, i, 1.0), _side(at_look, i, -1.0)),
        )
        found.append((number, reading))
    return found


def _side(at_look: GroupIntervals, i: int, sign: float) -> Side:
    """Return the groups of one sign in a sum as if they were one: of the fewest runs, and of the fewest degrees of freedom."""
    row = at_look.weights[i]
    members = np.sign(row) == sign
    squared_error = float(np.square(row[members]) @ at_look.squared_error[members])
    n = int(at_look.runs[members].min())
    return Side(n, n * squared_error, float(at_look.df[members].min()))


def _flagged(sample: Sample, look: Look) -> UnitReading | None:
    """Return the reading of a unit that is no comparison, by the first of the protocol's flags; None for any other."""

    def without_interval(verdict: Verdict, withheld: Withheld | None = None) -> UnitReading:
        return UnitReading(sample, look, verdict, provisional=False, withheld=withheld)

    if sample.copied:
        return without_interval("not independent")
    if sample.unchanged:
        return without_interval("no override")
    if sample.reference_diverged:
        return without_interval("unstable" if sample.unstable else "inconclusive", "reference diverged")
    return None


def _reading(sample: Sample, look: Look, at_look: Intervals, i: int, rules: Rules) -> UnitReading:
    """Return the verdict of one unit at one look: flags first, in the protocol's order, then the interval."""
    if (flagged := _flagged(sample, look)) is not None:
        return flagged
    enough = sample.n >= ENOUGH_PAIRS
    no_noise = enough and not at_look.variance[i] > 0 and not rules.deterministic
    code = INCONCLUSIVE if no_noise or not enough else int(at_look.code[i])
    verdict = VERDICTS[code]
    if sample.unstable and not (code == HURTS and sample.hurt_is_safe):
        verdict = "unstable"
    if no_noise or not enough:
        withheld: Withheld = "no noise" if no_noise else "too few pairs"
        return UnitReading(sample, look, verdict, provisional=False, withheld=withheld)
    return UnitReading(
        sample,
        look,
        verdict,
        provisional=False,
        lo=float(at_look.lo[i]),
        hi=float(at_look.hi[i]),
        p_adjusted=float(at_look.p_adjusted[i]),
        half=float(at_look.half[i]),
        variance=float(at_look.variance[i]),
        df=float(at_look.df[i]),
        moderated=bool(np.isfinite(at_look.typical)),
        corrected=float(at_look.corrected[i]),
    )


def claims(
    verdict: Verdict, lo: float | None, hi: float | None, margin: float
) -> tuple[bool, bool, Literal["gain", "loss"] | None]:
    """Return clearly, real and ruled_out: what else the interval says, in the terms of its verdict."""
    if lo is None or hi is None:
        return False, False, None
    clearly = (verdict == "helps" and lo >= margin) or (verdict == "hurts" and hi <= -margin)
    real = verdict == "no practical effect" and (lo > 0 or hi < 0)
    if verdict != "inconclusive":
        return clearly, real, None
    return clearly, real, "gain" if hi < margin else "loss" if lo > -margin else None
