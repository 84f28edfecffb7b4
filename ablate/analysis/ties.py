"""Values that several runs have in common to the last digit: more of them than chance gives are copies, not runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import special

from ablate.analysis.intervals import Floats

FEWEST = 3
"""Different values that must be shared. A metric that saturates shares one, its best."""

IMPROBABLE = 1e-3


def tie_probability(values: Mapping[str, Floats], resolution: float) -> float:
    """Return the chance that two runs of one arm have the same value, if the noise is normal. values: by arm.

    resolution: of the metric; 0 where it is not known, and then that of the values' own smallest gap.
    """
    distinct = {arm: np.unique(own) for arm, own in values.items()}
    degrees = {arm: own.size - 1 for arm, own in distinct.items() if own.size > 1}
    if not degrees:
        return 1.0
    noise = math.sqrt(
        sum(n * float(distinct[arm].var(ddof=1)) for arm, n in degrees.items()) / sum(degrees.values())
    )
    if resolution <= 0:
        gaps = np.diff(np.unique(np.concatenate(list(distinct.values()))))
        resolution = float(gaps[gaps > 1e-12 * noise].min(initial=math.inf))
    return min(1.0, resolution / (2.0 * math.sqrt(math.pi) * noise))


def has_copies(own: Floats, tie: float, arms: int = 1) -> bool:
    """Return whether more runs of an arm have the value of another one than chance gives. arms: how many are asked about."""
    counts = np.unique(own, return_counts=True)[1]
    # A metric that saturates has its best, or its worst, value again and again.
    usual = float(np.median(counts))
    inner = counts <= usual
    inner[1:-1] = True
    repeated = counts[inner & (counts > 1)]
    pairs = own.size * (own.size - 1) / 2
    return repeated.size >= FEWEST and _is_improbable(int((repeated - 1).sum()), pairs * tie, arms)


def are_copies(own: Floats, others: Floats, tie: float, arms: int = 1) -> bool:
    """Return whether more values of one arm are those of another than chance gives. arms: how many are asked about."""
    return _is_improbable(np.intersect1d(own, others).size, own.size * others.size * tie, arms)


def _is_improbable(shared: int, expected: float, arms: int) -> bool:
    """Return whether so many ties are FEWEST or more, and improbable where so many are expected (Poisson)."""
    return shared >= FEWEST and float(special.pdtrc(shared - 1, expected)) < IMPROBABLE / arms
