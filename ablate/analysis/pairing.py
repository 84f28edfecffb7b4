"""What pairing by a seed gained: how results go together over seeds, and how many seeds that saved.

Under one seed an arm and its reference share initial weights, batches and augmentation as far as the override lets them. What
they share cancels in their difference: its variance is s₁² + s₀² − 2·r·s₁·s₀. Without pairing each side would have its own
noise (`unpaired`), and the same interval would take more runs; or fewer, where r is not above 0.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import special

from ablate.analysis.contents import Analysis, Pairing, PairingGain
from ablate.analysis.intervals import BORROWED_DF, ENOUGH_PAIRS

MOST_SEEDS = 9_999
"""Beyond this many seeds nothing is said of how many it would be."""


def pairing(
    own: Sequence[float],
    reference: Sequence[float],
    half: float | None,
    *,
    alpha: float,
    k: int,
    moderated: bool,
    resolution: float,
) -> Pairing | None:
    """Return what pairing gained one arm; None below ENOUGH_PAIRS pairs, and where a side has no noise.

    own, reference: values under the same seeds, in the same order. half: half-width of the interval, None where there is none;
    alpha, k: of that interval. moderated: whether its noise is averaged with that of other arms.
    """
    if len(own) < ENOUGH_PAIRS or min(np.ptp(own), np.ptp(reference)) <= 0:
        return None
    correlation = float(np.corrcoef(own, reference)[0, 1])
    variance = sum(max(float(np.var(side, ddof=1)), resolution**2 / 8.0) for side in (own, reference))
    return Pairing(correlation, None if half is None else _runs_for(half, variance, alpha, k, moderated))


def _runs_for(half: float, variance: float, alpha: float, k: int, moderated: bool) -> int | None:
    """The runs of each of two groups from which on their interval is no wider. variance: of the two together."""

    def is_narrow(runs: int) -> bool:
        df = runs - 1.0 + (min(BORROWED_DF, runs - 1.0) if moderated else 0.0)
        quantile = float(special.stdtrit(df, 1.0 - alpha / (2.0 * k)))
        return quantile * math.sqrt(variance / runs) <= half * (1.0 + 1e-12)

    if not is_narrow(MOST_SEEDS):
        return None
    return bisect.bisect_left(range(MOST_SEEDS), True, lo=2, key=is_narrow)


def gain(analyses: Iterable[Analysis]) -> PairingGain | None:
    """Return what pairing gained over all arms: of one study, or of the blocks that results fall into.

    None where nothing is paired, or nothing is known of it.
    """
    arms = [
        (c, c.pairing)
        for analysis in analyses
        if analysis.rules.unit == "seed"
        for c in analysis.comparisons
        if c.pairing is not None
    ]
    if not arms:
        return None
    settled = [(c.n, p.unpaired_seeds) for c, p in arms if p.unpaired_seeds is not None]
    seeds, unpaired = (
        (int(np.median(side)) for side in zip(*settled, strict=True)) if settled else (None, None)
    )
    return PairingGain(math.fsum(p.correlation for _, p in arms) / len(arms), seeds, unpaired)
