"""Groups of runs that are not paired, and the intervals of differences between them.

No seed is shared, so that an arm's difference from the baseline has two noises, each with its own variance and its own
number of runs. The half-width is Banerjee's (1961, Annals of Mathematical Statistics 32, 465–473, for two means): it
misses no more often than its level says, whatever the two variances and the numbers of runs. Welch's approximation does
not keep its level where one group has three runs and the other twenty. His argument, that the distribution function of χ²
with one degree of freedom is concave, holds for a weighted sum of any number of means, as the effects of a factorial are.

The arithmetic broadcasts over leading axes, as in `intervals`: a simulation and the judgement of one file run the same
lines. The last axis holds the groups, the baseline first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablate.analysis.intervals import (
    ENOUGH_ARMS,
    ENOUGH_PAIRS,
    Floats,
    moderate,
    rounding,
    t_quantile,
    verdict_codes,
)
from ablate.analysis.rules import ALPHA
from ablate.errors import StoreError

ENOUGH_RUNS = ENOUGH_PAIRS
"""Below this, in the arm or in the baseline, there is no interval."""

ENOUGH_GROUPS = ENOUGH_ARMS
"""From this many groups on, the baseline among them, their mean variance is worth borrowing from."""


@dataclass(frozen=True)
class Group:
    """The repeats of one arm.

    n: finished runs. mean, std (ddof 1) of the metric: NaN below one run, and below two. values: the runs themselves, sorted;
    empty where only mean and std are known. failed, diverged: runs besides those. copied: two of the runs are one and the
    same training, so that they are no repeats.

    Raises StoreError where these contradict themselves.
    """

    n: int
    mean: float = math.nan
    std: float = math.nan
    values: tuple[float, ...] = ()
    failed: int = 0
    diverged: int = 0
    copied: bool = False

    def __post_init__(self) -> None:
        if self.n < 0 or self.failed < 0 or self.diverged < 0:
            raise StoreError("a group cannot have a negative number of runs", place="n")
        if self.values and len(self.values) != self.n:
            raise StoreError(f"{len(self.values)} values are given for {self.n} runs", place="values")
        if self.n > 0 and not math.isfinite(self.mean):
            raise StoreError(f"the mean of {self.n} runs is {self.mean!r}, not a finite number", place="mean")
        if self.n > 1 and not (math.isfinite(self.std) and self.std >= 0):
            raise StoreError(
                f"the standard deviation of {self.n} runs is {self.std!r}",
                place="std",
                hint="it is a number from 0 up: the spread of single runs (ddof 1), not the standard error of their mean",
            )

    @classmethod
    def of(cls, values: ArrayLike, *, failed: int = 0, diverged: int = 0, copied: bool = False) -> Group:
        """Return the group of these values, one for each finished run. Their order leaves no trace.

        Raises StoreError where one is no finite number: leave it out, and count it in `failed` or `diverged`.
        """
        try:
            runs = np.sort(np.asarray(values, float).ravel())
        except (TypeError, ValueError) as error:
            raise StoreError(f"the values are no numbers: {error}", place="values") from error
        if not np.isfinite(runs).all():
            bad = int((~np.isfinite(runs)).sum())
            raise StoreError(
                f"{bad} of {runs.size} values {'is' if bad == 1 else 'are'} not finite (NaN or infinity)",
                place="values",
                hint="leave them out, and give their number as `failed` or as `diverged`",
            )
        mean = float(runs.mean()) if runs.size else math.nan
        std = float(runs.std(ddof=1)) if runs.size > 1 else math.nan
        # Equal values whose mean is rounded have a std of their last digits.
        if runs.size > 1 and std <= rounding(float(np.abs(runs).max())):
            std = 0.0
        return cls(runs.size, mean, std, tuple(runs.tolist()), failed, diverged, copied)

    def divided_by(self, divisor: float) -> Group:
        """Return the group on another scale. divisor > 0, as `abs(baseline.mean)` for differences relative to the baseline."""
        return replace(
            self,
            mean=self.mean / divisor,
            std=self.std / divisor,
            values=tuple(value / divisor for value in self.values),
        )


@dataclass(frozen=True)
class GroupIntervals:
    """Weighted sums of the means of groups, arrays of shape (…, sums), or (…, groups) where that is said.

    effect: of each sum. lo, hi: the interval, NaN where one of its groups has fewer than ENOUGH_RUNS runs. half: half-width.
    code: as in `Intervals`. variance (…, groups): s̃². df (…, groups). squared_error (…, groups): s̃²/n. runs (…, groups). typical (…): C, NaN
    where fewer than ENOUGH_GROUPS groups have a variance. weights (sums, groups). spreads (sums, groups): what the errors of the means
    are multiplied with in each sum. k: size of the family. alpha: error over it.
    """

    effect: Floats
    lo: Floats
    hi: Floats
    code: NDArray[np.int8]
    half: Floats
    variance: Floats
    df: Floats
    squared_error: Floats
    runs: NDArray[np.int64]
    typical: Floats
    weights: Floats
    spreads: Floats
    k: int
    alpha: float

    @property
    def p_adjusted(self) -> Floats:
        """Two-sided p over family and looks, in [0, 1]; NaN where there is no interval. Below .05 where it excludes 0.

        Computed on demand: simulations read intervals only.
        """
        p = two_sided_p(
            self.effect, np.square(self.spreads) * self.squared_error[..., None, :], self.df[..., None, :]
        )
        return np.where(np.isnan(self.half), np.nan, np.minimum(1.0, self.k * p * ALPHA / self.alpha))


def group_variance(std: Floats, resolution: float | Floats) -> Floats:
    """Return s², at least q²/8: half of what a paired difference has, since it is the noise of one run alone."""
    variance: Floats = np.maximum(np.square(std), np.square(resolution) / 8.0)
    return variance


def group_intervals(
    mean: Floats,
    variance: Floats,
    runs: NDArray[np.int64],
    *,
    k: int,
    margin: float,
    alpha: float = ALPHA,
    counts: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    spreads: Floats | None = None,
) -> GroupIntervals:
    """Return the intervals of one look.

    mean, variance, runs: (…, groups), the means oriented; variance as `group_variance` gives it (what stands below
    ENOUGH_RUNS is not read). alpha: error over the family of k. counts: groups whose variance may count as typical (None:
    all). weights: (sums, groups), of the groups in each sum that is estimated; None: each group minus the first.
    spreads: (sums, groups), what the errors of the means are multiplied with in each sum (None: the weights).
    """
    mean = np.asarray(mean, float)
    runs = np.broadcast_to(np.asarray(runs), mean.shape)
    weights = differences_from_the_first(mean.shape[-1]) if weights is None else np.asarray(weights, float)
    spreads = weights if spreads is None else np.asarray(spreads, float)
    usable = runs >= ENOUGH_RUNS
    variance = np.where(usable, variance, 0.0)
    nu = np.where(usable, runs - 1.0, 2.0)  # any df will do where nothing is read
    typical = typical_variance(variance, usable if counts is None else usable & counts)
    moderated, df = moderate(variance, nu, typical[..., None])
    squared_error = moderated / np.maximum(runs, 1)
    half = np.sqrt(half_width_parts(squared_error, df, alpha, k) @ np.square(spreads).T)
    lacking = (~usable).astype(float) @ (weights != 0.0).T.astype(float) > 0.0
    half = np.where(lacking, np.nan, half)
    effect = mean @ weights.T
    lo, hi = effect - half, effect + half
    code = verdict_codes(lo, hi, margin)
    return GroupIntervals(
        effect, lo, hi, code, half, moderated, df, squared_error, runs, typical, weights, spreads, k, alpha
    )


def differences_from_the_first(groups: int) -> Floats:
    """Return the weights (groups − 1, groups) of each group minus the first."""
    return np.hstack([-np.ones((groups - 1, 1)), np.eye(groups - 1)])


def half_width_parts(squared_error: Floats, df: Floats, alpha: float, k: int) -> Floats:
    """Return t²(1 − α/2k, df)·s̃²/n: what one group adds to the square of the half-width."""
    return np.asarray(t_quantile(1.0 - alpha / (2.0 * k), df) ** 2 * squared_error)


def typical_variance(variance: Floats, counts: NDArray[np.bool_]) -> Floats:
    """Return C, the mean variance of the groups that count; NaN where fewer than ENOUGH_GROUPS do. (…, groups) → (…).

    The mean, not the median as for paired differences: the baseline stands on one side of every comparison, and where it
    is the noisy one a median would pull its variance down in all of them at once.
    """
    number = counts.sum(axis=-1)
    # Sorted, so that the order of the arms does not even change the last digit.
    mean = np.sort(np.where(counts, variance, 0.0), axis=-1).sum(axis=-1) / np.maximum(number, 1)
    return np.where(number >= ENOUGH_GROUPS, mean, np.nan)


def two_sided_p(effect: Floats, squared_errors: Floats, dfs: Floats) -> Floats:
    """Return the α (for a family of one) at which the half-width is |effect|, in [0, 1].

    effect: (…). squared_errors, dfs: (…, groups), which broadcast; a squared error of 0 leaves its group out. No difference
    without noise is no evidence of one: p = 1.
    """
    effect = np.abs(effect)
    squared_errors, dfs = np.broadcast_arrays(squared_errors, dfs)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(effect == 0.0, 0.0, effect / np.sqrt(squared_errors.sum(axis=-1)))
    # The tail probability lies between those of the dfs alone, which agree with it where the dfs are equal.
    ends = special.stdtr(dfs, -ratio[..., None])
    present = (squared_errors > 0.0) | ~(squared_errors > 0.0).any(axis=-1, keepdims=True)
    low = np.where(present, ends, np.inf).min(axis=-1)
    high = np.where(present, ends, -np.inf).max(axis=-1)
    open_ = (low > 0.0) & (low < high) & np.isfinite(ratio)
    lower, upper = np.log(np.where(open_, low, 0.25)), np.log(np.where(open_, high, 0.25))
    squared = np.square(effect)
    for _ in range(BISECTIONS):
        middle = (lower + upper) / 2.0
        quantiles = special.stdtrit(dfs, np.exp(middle)[..., None])
        wide = (np.square(quantiles) * squared_errors).sum(axis=-1) > squared
        lower, upper = np.where(wide, middle, lower), np.where(wide, upper, middle)
    tail = np.where(open_, np.exp((lower + upper) / 2.0), high)
    p: Floats = np.where(np.isnan(ratio), 1.0, np.minimum(1.0, 2.0 * tail))
    return p


BISECTIONS = 56
"""Enough to find the logarithm of any tail probability to its last digits."""
