"""The arithmetic of one look, on arrays: moderated noise, simultaneous intervals and the verdict they imply.

Everything broadcasts over leading axes, so that a simulation of 100,000 studies and the report of one run the same
lines. The last axis is the family: one entry per arm (or effect). Units are those of the metric throughout.

The moderation is a cautious relative of the moderated t (Smyth 2004, doi 10.2202/1544-6115.1027): an arm's variance is
averaged with the study's typical one, which counts as at most four degrees of freedom, and never falls below its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

ENOUGH_PAIRS = 3
"""Below this, no interval: two differences say next to nothing about their own spread."""

ENOUGH_ARMS = 5
"""From this many arms on, their median noise is worth borrowing from."""

BORROWED_DF = 4.0
"""The most degrees of freedom that the typical noise may count for."""

INCONCLUSIVE, HELPS, HURTS, NEGLIGIBLE = 0, 1, 2, 3
"""What an interval says, as small integers, so that arrays can hold it."""


@dataclass(frozen=True)
class Intervals:
    """One look of a family, arrays of shape (…, arms).

    lo, hi: the interval, NaN below ENOUGH_PAIRS. code: INCONCLUSIVE, … . half: half-width. t: |mean| over its standard
    error. variance: s̃². df: its degrees of freedom. corrected: the arm's own median-corrected variance, to
    be kept when it is decided (NaN where it does not count). typical: C, shape (…), NaN where fewer than ENOUGH_ARMS
    arms have one. spent: error of the look per member of the family.
    """

    lo: Floats
    hi: Floats
    code: NDArray[np.int8]
    half: Floats
    t: Floats
    variance: Floats
    df: Floats
    corrected: Floats
    typical: Floats
    spent: float

    @property
    def p_adjusted(self) -> Floats:
        """Two-sided p over family and looks, in [0, 1]; NaN below ENOUGH_PAIRS. Below .05 where the interval excludes 0.

        Computed on demand: simulations read intervals only, and would spend half their time here.
        """
        # 0/0: no difference and no noise is no evidence of a difference.
        p = 2.0 * special.stdtr(self.df, -np.where(np.isnan(self.t), 0.0, self.t))
        return np.where(np.isnan(self.half), np.nan, np.minimum(1.0, p * 0.05 / self.spent))


def rounding(scale: float) -> float:
    """Return up to what values that should be equal may differ in their last digits. scale: the largest magnitude among them."""
    return 8.0 * float(np.finfo(float).eps) * scale


def paired_variance(differences: Floats, resolution: float | Floats) -> Floats:
    """Return the variance over the last axis (ddof 1), at least q²/4: coarse metrics tie honestly, and a tie is not certainty.

    differences: (…, pairs ≥ 2) → (…). resolution: one for all, or of that shape.
    """
    variance: Floats = np.maximum(np.var(differences, axis=-1, ddof=1), resolution**2 / 4.0)
    return variance


def median_corrected(variance: Floats, df: Floats) -> Floats:
    """Return variances freed of the downward skew of small samples: their median is now σ², whatever the df."""
    return variance * df / _chi2_median(df)


def intervals(
    mean: Floats,
    variance: Floats,
    pairs: NDArray[np.int64],
    *,
    alpha: float,
    k: int,
    margin: float,
    counts: NDArray[np.bool_] | None = None,
    kept: Floats | None = None,
) -> Intervals:
    """Read one look: s² and mean difference of every arm → interval, adjusted p and code.

    mean, variance, pairs: (…, arms), oriented; variance as `paired_variance` gives it (what stands below ENOUGH_PAIRS
    is not read). alpha: error of this look, over the family of k. counts: arms whose noise may count as typical (None:
    all); kept: median-corrected variance of arms decided earlier, NaN elsewhere, which stands in for their own.
    """
    mean, variance = np.asarray(mean, float), np.asarray(variance, float)
    pairs = np.broadcast_to(np.asarray(pairs), mean.shape)
    usable = pairs >= ENOUGH_PAIRS
    nu = np.where(usable, pairs - 1.0, 2.0)  # any df will do where nothing is read
    own = np.where(usable, median_corrected(variance, nu), np.nan)
    if counts is not None:
        own = np.where(counts, own, np.nan)
    if kept is not None:
        own = np.where(np.isnan(kept), own, kept)
    typical = typical_noise(own)
    moderated, df = moderate(variance, nu, typical[..., None])
    half = t_quantile(1.0 - alpha / (2.0 * k), df) * np.sqrt(moderated / np.maximum(pairs, 1))
    half = np.where(usable, half, np.nan)
    lo, hi = mean - half, mean + half
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(mean) / np.sqrt(moderated / np.maximum(pairs, 1))
    return Intervals(lo, hi, verdict_codes(lo, hi, margin), half, t, moderated, df, own, typical, alpha / k)


def typical_noise(corrected: Floats) -> Floats:
    """Return C, the median over the last axis, NaN where fewer than ENOUGH_ARMS arms have a value. (…, arms) → (…)."""
    present = ~np.isnan(corrected)
    enough = present.sum(axis=-1) >= ENOUGH_ARMS
    if present.all():
        median = np.median(corrected, axis=-1) if corrected.shape[-1] else np.full(enough.shape, np.nan)
    else:
        # A row without a single value would make nanmedian warn; it is masked below anyway.
        median = np.nanmedian(np.where(enough[..., None], corrected, 0.0), axis=-1)
    return np.where(enough, median, np.nan)


def moderate(variance: Floats, df: Floats, typical: Floats) -> tuple[Floats, Floats]:
    """Return s̃² and its degrees of freedom; unchanged where there is no typical noise (NaN)."""
    borrowed = np.where(np.isnan(typical), 0.0, np.minimum(BORROWED_DF, df))
    total = df + borrowed
    pooled = (df * variance + borrowed * np.where(np.isnan(typical), 0.0, typical)) / total
    return np.maximum(variance, pooled), total


def verdict_codes(lo: Floats, hi: Floats, margin: float) -> NDArray[np.int8]:
    """Return what each interval says. NaN: inconclusive. The order matters: within the margin, a real effect is negligible."""
    with np.errstate(invalid="ignore"):
        code = np.where(lo > 0, HELPS, np.where(hi < 0, HURTS, INCONCLUSIVE))
        return np.where((lo > -margin) & (hi < margin), NEGLIGIBLE, code).astype(np.int8)


@dataclass(frozen=True)
class LookSequence:
    """Every look of many studies: arrays of shape (…, arms), frozen where the arm was decided; `look` is 1, 2, … ."""

    lo: Floats
    hi: Floats
    code: NDArray[np.int8]
    look: NDArray[np.int8]
    variance: Floats
    df: Floats


def sequence(
    differences: Floats,
    looks: tuple[tuple[int, float], ...],
    *,
    k: int,
    margin: float,
    resolution: float = 0.0,
) -> LookSequence:
    """Go through looks with complete data. differences: (…, arms, pairs), looks: (pairs, alpha) in order.

    What `judge` does arm by arm, with flags and missing pairs, this does for simulations.
    """
    shape = differences.shape[:-1]
    kept = np.full(shape, np.nan)
    decided = np.zeros(shape, bool)
    result: dict[str, Any] = {
        name: np.full(shape, np.nan) for name in ("lo", "hi", "variance", "df", "code", "look")
    }
    for index, (n, alpha) in enumerate(looks, start=1):
        pairs_so_far = differences[..., :n]
        at_look = intervals(
            pairs_so_far.mean(axis=-1),
            paired_variance(pairs_so_far, resolution),
            np.full(shape, n),
            alpha=alpha,
            k=k,
            margin=margin,
            kept=kept,
        )
        for name, value in (
            ("lo", at_look.lo),
            ("hi", at_look.hi),
            ("variance", at_look.variance),
            ("df", at_look.df),
        ):
            result[name] = np.where(decided, result[name], value)
        result["code"] = np.where(decided, result["code"], at_look.code)
        result["look"] = np.where(decided, result["look"], index)
        newly = ~decided & (at_look.code != INCONCLUSIVE)
        kept = np.where(newly, at_look.corrected, kept)
        decided |= newly
    return LookSequence(
        result["lo"],
        result["hi"],
        result["code"].astype(np.int8),
        result["look"].astype(np.int8),
        result["variance"],
        result["df"],
    )


def t_quantile(probability: float, df: Floats) -> Floats:
    """Return Student's quantile, computed once per distinct df: a simulation has millions of entries and a handful of dfs."""
    values, where = np.unique(df, return_inverse=True)
    quantiles: Floats = np.asarray(special.stdtrit(values, probability), np.float64)
    return quantiles[where].reshape(np.shape(df))


def chi2_quantile(probability: Any, df: Any) -> Floats:
    """Return what `scipy.stats.chi2.ppf` returns. (Importing `scipy.stats` takes half a second, which every command would wait for.)"""
    return np.asarray(2.0 * special.gammaincinv(np.asarray(df) / 2.0, probability))


def _chi2_median(df: Floats) -> Floats:
    values, where = np.unique(df, return_inverse=True)
    return np.asarray(chi2_quantile(0.5, values))[where].reshape(np.shape(df))
