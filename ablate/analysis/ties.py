"""Values that several runs have in common to the last digit: more of them than chance gives are copies, not runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

import numpy as np
from scipy import special

from ablate.analysis.intervals import Floats

FEWEST = 3
"""Different values that must be shared. A metric that saturates shares one, its best."""

IMPROBABLE = 1e-3

FEWEST_SHARED = 2
"""Values of full precision that several arms share, from which on the metric is taken for one of few values."""

DIGITS = 12
"""Significant digits from which on a value is not taken for a rounded one."""

MOST_IMAGES = 10_000
"""Of a set of up to so many, shares are not taken for values of full precision."""


def step(values: Iterable[Floats]) -> float:
    """Return the smallest step between any two values of all arms; infinite where there is none."""
    pooled = np.unique(np.concatenate([np.asarray(own, float) for own in values] or [np.empty(0)]))
    gaps = np.diff(pooled)
    return float(gaps[gaps > 1e-12 * np.ptp(pooled)].min(initial=math.inf)) if pooled.size else math.inf


def noise(own: Floats) -> float:
    """Return the standard deviation of runs of one arm by the shortest interval that holds more than half of them.

    A run in five that collapses tells nothing of how often the others tie, and neither does the noise of other arms.
    """
    ordered, half = np.sort(own), own.size // 2
    return float((ordered[half:] - ordered[: own.size - half]).min(initial=math.inf)) / _HALF_OF_A_NORMAL


_HALF_OF_A_NORMAL = 1.349
"""The middle half of a normal distribution, in standard deviations."""


def tie_probability(deviation: float, resolution: float) -> float:
    """Return the chance that two runs have the same value, if their noise is normal. resolution: of the metric, or its `step`."""
    return min(1.0, resolution / (2.0 * math.sqrt(math.pi) * deviation)) if deviation > 0 else 1.0


def has_copies(own: Floats, resolution: float, arms: int = 1) -> bool:
    """Return whether more runs of an arm have the value of another one than chance gives.

    resolution: of the metric, or its `step`. arms: how many are asked about.
    """
    counts = np.unique(own, return_counts=True)[1]
    # A metric that saturates has its best, or its worst, value again and again.
    usual = float(np.median(counts))
    inner = counts <= usual
    inner[1:-1] = True
    repeated = counts[inner & (counts > 1)]
    pairs = own.size * (own.size - 1) / 2
    expected = pairs * tie_probability(noise(own), resolution)
    return repeated.size >= FEWEST and _is_improbable(int((repeated - 1).sum()), expected, arms)


def repeating(values: Mapping[str, Floats]) -> list[str]:
    """Return the arms that have the same value of full precision more than once, where that is so for two runs or more in all.

    Two runs do not share such a value by chance, except on a handful of images. There it is shared by runs of different arms too,
    which no copies are: a correlation, an nDCG or a root of few counts. values: by arm.
    """
    counts: dict[str, dict[float, int]] = {}
    for arm, own in values.items():
        distinct, times = np.unique(own[np.isfinite(own)], return_counts=True)
        again = times > 1
        counts[arm] = dict(zip(distinct[again].tolist(), times[again].tolist(), strict=True))
    full = {value for value in set().union(*counts.values()) if _has_full_precision(value)}
    if full:
        shared = {value for value in _shared(values) if _has_full_precision(value)}
        # One may be that of a network that gives the same answer to everything, beside copies of others.
        full = full - shared if len(shared) < FEWEST_SHARED else set()
    repeats = {arm: sum(own[value] - 1 for value in full & own.keys()) for arm, own in counts.items()}
    return [arm for arm, number in repeats.items() if number] if sum(repeats.values()) > 1 else []


def _shared(values: Mapping[str, Floats]) -> set[float]:
    """Return the values that runs of several arms have, without those of arms of which all values are those of the other."""
    arms = [set(own[np.isfinite(own)].tolist()) for own in values.values()]
    pairs = [(one, other, one & other) for one, other in itertools.combinations(arms, 2)]
    return set().union(*(both for one, other, both in pairs if both not in (one, other)))


def _has_full_precision(value: float) -> bool:
    """Return whether a value is neither rounded, nor of single precision, nor a share of up to MOST_IMAGES or its percentage."""
    digits = repr(abs(value)).partition("e")[0].replace(".", "").strip("0")
    if len(digits) < DIGITS:
        return False
    with np.errstate(over="ignore", under="ignore"):
        is_single = float(np.float32(value)) == value
    return not (is_single or _is_fraction(value) or _is_fraction(value / 100.0))


def _is_fraction(value: float) -> bool:
    """Return whether a value is a fraction of few things, as far as its last digits tell; also what is left of one, and means of counts."""
    if not 0.5 / MOST_IMAGES < abs(value) < 1e5:  # of larger ones the last digits tell nothing
        return False
    nearest = float(Fraction(value).limit_denominator(MOST_IMAGES))
    return abs(nearest - value) <= 8.0 * float(np.finfo(float).eps) * max(1.0, abs(value))


def are_copies(own: Floats, others: Floats, resolution: float, arms: int = 1) -> bool:
    """Return whether more values of one arm are those of another than chance gives. resolution, arms: as in `has_copies`."""
    tie = tie_probability(math.hypot(noise(own), noise(others)) / math.sqrt(2.0), resolution)
    return _is_improbable(np.intersect1d(own, others).size, own.size * others.size * tie, arms)


def _is_improbable(shared: int, expected: float, arms: int) -> bool:
    """Return whether so many ties are FEWEST or more, and improbable where so many are expected (Poisson)."""
    return shared >= FEWEST and float(special.pdtrc(shared - 1, expected)) < IMPROBABLE / arms
