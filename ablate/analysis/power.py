"""What a study can see, and what more would cost: detectable effects, the reach of a margin, the price of certainty.

Differences and noise are in one unit, any unit; noise is the standard deviation (std) of a paired difference.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from ablate.analysis.intervals import BORROWED_DF, ENOUGH_ARMS, ENOUGH_PAIRS, Floats, chi2_quantile
from ablate.analysis.rules import Look, Rules

MOST_PAIRS = 999
"""Report seeds are 0–999; a price beyond them is no price."""

_GRID = (np.arange(15) + 0.5) / 15.0


@dataclass(frozen=True)
class MoreSeeds:
    """The price of certainty: total pairs (where nothing is paired: runs in each group) at which a verdict is settled, None beyond MOST_PAIRS.

    n50, n80: with probability .5 and .8. n_any: whatever the effect. probability50, probability80: those at these totals.
    seconds50, seconds80, seconds_any: device seconds of the pairs still to be run, the arm's and its reference's
    replicates together; None where unknown.

    Within the most pairs: most: those; chance: the probability of a verdict there; seconds_most: until then. Beyond them:
    fresh: pairs of a study of the undecided arms alone, on seeds that nothing was judged on, that settle this one with
    probability .8; None: more than MOST_PAIRS, or such a study has no sense.
    """

    n50: int | None
    n80: int | None
    n_any: int | None
    probability50: float | None = None
    probability80: float | None = None
    seconds50: float | None = None
    seconds80: float | None = None
    seconds_any: float | None = None
    most: int | None = None
    chance: float | None = None
    seconds_most: float | None = None
    fresh: int | None = None


@dataclass(frozen=True)
class Reach:
    """What one look of a plan can see. effect: detected with 80 % power, in the metric's units.

    within: whether that is no more than the margin. noise: the std of a paired difference it rests on.
    """

    effect: float
    within: bool
    noise: float
    pairs: int
    alpha: float


def moderated_df(pairs: int, k: int) -> float:
    """Return the degrees of freedom of an arm with this many pairs, in a family of k that is all there."""
    nu = pairs - 1.0
    return nu + (min(BORROWED_DF, nu) if k >= ENOUGH_ARMS else 0.0)


_BISECTIONS = 60
"""Enough to find a noncentrality to its last digits."""


def detectable(k: int, pairs: int, alpha: float, power: float = 0.8) -> float:
    """Return the effect that a look detects with this power, in stds of a paired difference; infinite below 3 pairs.

    k ≥ 1: size of the family. alpha: error of the look. From the noncentral t with the moderated df, upper tail. About:
    where noise is shrunk towards the typical, the power is .74–.78 instead of .80.
    """
    if pairs < ENOUGH_PAIRS:
        return math.inf
    df = moderated_df(pairs, k)
    critical = float(special.stdtrit(df, 1.0 - alpha / (2.0 * k)))
    return _noncentrality(critical, df, power) / math.sqrt(pairs)


def _noncentrality(critical: float, df: float, power: float) -> float:
    """Return how many standard errors an effect must be for its t to exceed a critical value with some probability."""
    # `scipy.stats.nct` computes the same, and takes half a second to import.

    def reached(noncentrality: float) -> float:
        return 1.0 - float(special.nctdtr(df, noncentrality, critical))

    # The noncentral t's median lies near its noncentrality, so the answer is a few units above `critical`.
    low, top = 0.0, critical + 1.0
    while reached(top) < power:
        low, top = top, top * 1.5
    for _ in range(_BISECTIONS):
        middle = (low + top) / 2.0
        low, top = (middle, top) if reached(middle) < power else (low, middle)
    return (low + top) / 2.0


def detectable_in_groups(
    k: int, runs: int, alpha: float, *, groups: int, members: int = 2, power: float = 0.8
) -> float:
    """Return what `detectable` does where runs are not paired, in stds of the difference (or contrast) of single runs.

    groups: all arms with their references. members: how many of them are in one contrast, each with as many runs and as much
    noise. Their variances together have `members` times the degrees of freedom of one, by which the half-width is chosen. About: where noise is
    shrunk towards the typical, the power is .72–.78 instead of .80.
    """
    if runs < ENOUGH_PAIRS:
        return math.inf
    df = moderated_df(runs, groups)
    critical = float(special.stdtrit(df, 1.0 - alpha / (2.0 * k)))
    return _noncentrality(critical, members * df, power) / math.sqrt(runs)


def detectable_by(rules: Rules, look: Look) -> float:
    """Return the effect that a look of a plan detects with 80 % power, in stds of a difference of two runs, paired or not."""
    if rules.paired:
        return detectable(rules.k, look.pairs, look.alpha)
    arms = {rules.reference, *(arm for rule in rules.arms for arm in (rule.name, rules.reference_of(rule)))}
    members = max((len(c.weights) for c in rules.contrasts), default=2) if rules.factorial else 2
    return detectable_in_groups(rules.k, look.pairs, look.alpha, groups=len(arms), members=members)


def reach(k: int, pairs: int, alpha: float, *, noise: float, margin: float, power: float = 0.8) -> Reach:
    """Return whether a plan can detect its margin, given the std of a paired difference (metric units)."""
    effect = detectable(k, pairs, alpha, power) * noise
    return Reach(effect, effect <= margin, noise, pairs, alpha)


def assumed_noise(values: Floats) -> float | None:
    """Return the std of a paired difference expected from replicates of one arm: √2 times their own, as if pairing gained nothing.

    values: (replicates,); the finite ones count. None below 2.
    """
    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    return float(np.std(finite, ddof=1) * math.sqrt(2.0)) if finite.size > 1 else None


def best_of(k: int) -> float:
    """Return by how many stds of an arm's mean the best of k equal arms looks better: E max of k standard normals."""
    if k <= 1:
        return 0.0

    # The integrand is smooth and all but zero beyond nine, so that the trapezoid rule, here a sum, is exact to rounding.
    z, step = np.linspace(-9.0, 9.0, 1001, retstep=True)
    density = k * np.exp(-(z**2) / 2.0) / math.sqrt(2.0 * math.pi) * special.ndtr(z) ** (k - 1)
    return float(np.sum(z * density) * step)


def more_seeds(
    mean: float,
    variance: float,
    df: float,
    pairs: int,
    *,
    alpha: float,
    k: int,
    margin: float,
    moderated: bool,
    seconds_per_pair: float | None = None,
    most: int | None = None,
) -> MoreSeeds:
    """Return how many pairs in all would settle an inconclusive arm at its next look.

    mean, variance (s̃² > 0), df, pairs: of the arm now. alpha: error of the next look. moderated: whether its df borrow.
    most: the most pairs, where they lie ahead. The unknown noise and effect are averaged over a 15 × 15 grid of equally likely
    values given what was seen.
    """
    totals = np.arange(pairs + 1, MOST_PAIRS + 1, dtype=float)
    per_sigma = _quantiles(1.0 - alpha / (2.0 * k), moderated)[pairs + 1 :] / np.sqrt(totals)
    narrow = np.flatnonzero(per_sigma * math.sqrt(variance) <= margin / 2.0)
    n_any = pairs + 1 + int(narrow[0]) if narrow.size else None

    sigma = np.sqrt(df * variance / chi2_quantile(_GRID, df))[:, None]
    theta = mean + sigma * special.ndtri(_GRID)[None, :] / math.sqrt(pairs)

    def probability(block: slice) -> Floats:
        later = totals[block, None, None]
        centre = (pairs * mean + (later - pairs) * theta) / later
        spread = sigma * np.sqrt(later - pairs) / later
        return settled(centre, spread, per_sigma[block, None, None] * sigma, margin)

    return _price(totals, probability, n_any, pairs, seconds_per_pair, most)


def fresh_seeds(
    mean: float,
    variance: float,
    df: float,
    pairs: int,
    *,
    alpha: float,
    k: int,
    margin: float,
) -> int | None:
    """Return how many pairs on fresh seeds, judged without the earlier ones, settle an arm with probability .8.

    mean, variance, df, pairs: of the arm now, as for `more_seeds`. alpha, k: of the fresh study.
    """
    totals = np.arange(ENOUGH_PAIRS, MOST_PAIRS + 1, dtype=float)
    moderated = k >= ENOUGH_ARMS
    per_sigma = _quantiles(1.0 - alpha / (2.0 * k), moderated)[ENOUGH_PAIRS:] / np.sqrt(totals)
    sigma = np.sqrt(df * variance / chi2_quantile(_GRID, df))[:, None]
    theta = mean + sigma * special.ndtri(_GRID)[None, :] / math.sqrt(pairs)

    def probability(block: slice) -> Floats:
        spread = sigma / np.sqrt(totals[block, None, None])
        return settled(theta, spread, per_sigma[block, None, None] * sigma, margin)

    return _price(totals, probability, None, 0, None).n80


def fresh_runs(
    effect: float,
    variances: tuple[float, float],
    dfs: tuple[float, float],
    runs: tuple[int, int],
    *,
    alpha: float,
    k: int,
    margin: float,
) -> int | None:
    """Return how many fresh runs of an arm and of its baseline, not paired, settle the arm with probability .8.

    Judged without the earlier ones. effect, variances, dfs, runs: of arm and baseline now, as for `more_runs`. alpha, k: of
    the fresh study.
    """
    totals = np.arange(ENOUGH_PAIRS, MOST_PAIRS + 1, dtype=float)
    quantiles = _quantiles(1.0 - alpha / (2.0 * k), k + 1 >= ENOUGH_ARMS)[ENOUGH_PAIRS:]
    arm, base = (
        df * variance / chi2_quantile(_GRID, df) for variance, df in zip(variances, dfs, strict=True)
    )
    both = arm[:, None] + base[None, :]
    known = arm[:, None] / runs[0] + base[None, :] / runs[1]

    def probability(block: slice) -> Floats:
        each = both / totals[block, None, None]
        half = quantiles[block, None, None] * np.sqrt(each)
        return settled(np.array(effect), np.sqrt(each + known), half, margin)

    return _price(totals, probability, None, 0, None).n80


def more_runs(
    effect: float,
    variances: tuple[float, float],
    dfs: tuple[float, float],
    runs: tuple[int, int],
    *,
    alpha: float,
    k: int,
    margin: float,
    moderated: bool,
    seconds_each: float | None = None,
    most: int | None = None,
) -> MoreSeeds | None:
    """Return how many runs in each group would settle an inconclusive arm that is not paired with its baseline.

    variances (s̃²), dfs, runs: of the arm and of the baseline now; a group that has more runs than a total keeps them. alpha:
    error of the next look. The two unknown variances are averaged over a 15 × 15 grid of equally likely values given what
    was seen; given those, the difference that will be seen is normal, with the effect's uncertainty in it. seconds_each: device seconds of
    a run of each. most: the most runs of each, where they lie ahead. None where both groups have as many runs as are ever searched.
    """
    now, least = np.array(runs, float), min(runs)
    totals = np.arange(least + 1, MOST_PAIRS + 1, dtype=float)
    if not totals.size:
        return None
    then = np.maximum(totals[:, None], now)
    # Beyond the end of the table its last entry is a little too wide.
    quantiles = _quantiles(1.0 - alpha / (2.0 * k), moderated)[np.minimum(then, MOST_PAIRS).astype(int)]
    # (N, groups): what a group's variance is multiplied with in the square of the half-width, and in that of the spread.
    wide = quantiles**2 / then
    unseen = 1.0 / now - 1.0 / then
    narrow = np.flatnonzero(np.sqrt(wide @ np.array(variances)) <= margin / 2.0)
    n_any = least + 1 + int(narrow[0]) if narrow.size else None

    arm, base = (
        df * variance / chi2_quantile(_GRID, df) for variance, df in zip(variances, dfs, strict=True)
    )

    def over_grid(factors: Floats) -> Floats:
        return np.sqrt(factors[:, 0, None, None] * arm[:, None] + factors[:, 1, None, None] * base[None, :])

    def probability(block: slice) -> Floats:
        return settled(np.array(effect), over_grid(unseen[block]), over_grid(wide[block]), margin)

    return _price(totals, probability, n_any, least, seconds_each, most)


@functools.lru_cache(maxsize=64)
def _quantiles(probability: float, moderated: bool) -> Floats:
    """Student's quantiles for every number of pairs (or runs) up to MOST_PAIRS, at its own place; NaN below 2.

    Every inconclusive arm of a study asks for the same ones, and together they are most of its price's time.
    """
    nu = np.arange(1.0, MOST_PAIRS)
    borrowed = np.minimum(BORROWED_DF, nu) if moderated else 0.0
    table = np.concatenate([[math.nan, math.nan], special.stdtrit(nu + borrowed, probability)])
    table.flags.writeable = False
    return table


def _price(
    totals: Floats,
    probability_of: Callable[[slice], Floats],
    n_any: int | None,
    now: int,
    seconds_each: float | None,
    most: int | None = None,
) -> MoreSeeds:
    """Return the first totals at which the probability of a verdict, averaged over a grid, reaches .5 and .8, and that at `most`.

    probability_of: block of totals → probabilities (totals, grid, grid). now: the total so far.
    """
    n50 = n80 = probability50 = probability80 = None
    first = 0
    # In blocks that double, because most answers are small and the last total is nearly a thousand away.
    while first < totals.size and n80 is None:
        block = slice(first, max(2 * first, first + 16))
        probability = probability_of(block).mean(axis=(1, 2))
        if n50 is None and (probability >= 0.5).any():
            at = int(np.argmax(probability >= 0.5))
            n50, probability50 = int(totals[first + at]), float(probability[at])
        if (probability >= 0.8).any():
            at = int(np.argmax(probability >= 0.8))
            n80, probability80 = int(totals[first + at]), float(probability[at])
        first = block.stop

    def seconds(total: int | None) -> float | None:
        return None if total is None or seconds_each is None else (total - now) * seconds_each

    price = MoreSeeds(
        n50, n80, n_any, probability50, probability80, seconds(n50), seconds(n80), seconds(n_any)
    )
    if most is None or most < totals[0]:
        return price
    place = int(most - totals[0])
    chance = float(probability_of(slice(place, place + 1)).mean())
    return replace(price, most=most, chance=chance, seconds_most=seconds(most))


def settled(centre: Floats, spread: Floats, half: Floats, margin: float) -> Floats:
    """Return the probability that a difference will be significant, or significantly within the margin.

    centre, spread: mean and std of the difference that will be seen. half: half-width of its interval.
    """
    inside = margin - half  # |mean| < inside: no practical effect
    significant = special.ndtr((centre - half) / spread) + special.ndtr((-half - centre) / spread)
    if not (inside > 0).any():  # as for most totals where the margin is far below the noise
        return np.asarray(np.minimum(significant, 1.0))
    negligible = special.ndtr((inside - centre) / spread) - special.ndtr((-inside - centre) / spread)
    # The two are disjoint until inside ≥ half, and from there on they cover everything.
    probability = significant + np.where(inside > 0, negligible, 0.0)
    return np.where(inside >= half, 1.0, np.minimum(probability, 1.0))
