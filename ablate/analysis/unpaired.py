"""Verdicts of repeats that are not paired: groups of runs, as other people's results have them.

No seed is shared, so that an arm's difference from the baseline has two noises, each with its own variance and its own
number of runs. The half-width is Banerjee's (1961, Annals of Mathematical Statistics 32, 465–473, for two means): it
misses no more often than its level says, whatever the two variances and the numbers of runs. Welch's approximation does
not keep its level where one group has three runs and the other twenty.

The arithmetic broadcasts over leading axes, as in `intervals`: a simulation and the judgement of one file run the same
lines. The last axis holds the groups, the baseline first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ablate.analysis.cautions import NOISY, skewed
from ablate.analysis.contents import (
    Analysis,
    ArmSummary,
    Caution,
    Comparison,
    Runs,
    Verdict,
    Withheld,
)
from ablate.analysis.family import ArmRule
from ablate.analysis.intervals import (
    ENOUGH_ARMS,
    ENOUGH_PAIRS,
    HURTS,
    INCONCLUSIVE,
    Floats,
    moderate,
    t_quantile,
    verdict_codes,
)
from ablate.analysis.judging import selection_bias
from ablate.analysis.looks import VERDICTS, claims
from ablate.analysis.power import MoreSeeds, more_runs
from ablate.analysis.rules import ALPHA, Rules
from ablate.errors import StoreError, nearest
from ablate.metrics import Direction

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
        if runs.size > 1 and std <= 8.0 * np.finfo(float).eps * float(np.abs(runs).max()):
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
    """Groups against their baseline: arrays of shape (…, arms), or (…, 1 + arms) where that is said, the baseline first.

    effect: difference of the means. lo, hi: the interval, NaN where the arm or the baseline has fewer than ENOUGH_RUNS
    runs. half: half-width. code: as in `Intervals`. variance (…, 1 + arms): s̃². df (…, 1 + arms). squared_error
    (…, 1 + arms): s̃²/n. typical (…): C, NaN where fewer than ENOUGH_GROUPS groups have a variance. k: size of the family, which has the error alpha.
    """

    effect: Floats
    lo: Floats
    hi: Floats
    code: NDArray[np.int8]
    half: Floats
    variance: Floats
    df: Floats
    squared_error: Floats
    typical: Floats
    k: int
    alpha: float

    @property
    def p_adjusted(self) -> Floats:
        """The α at which each interval would touch 0, at most 1; NaN where there is no interval.

        At another α than ALPHA scaled so that it is below .05 exactly when the interval excludes 0.

        Computed on demand: simulations read intervals only.
        """
        p = two_sided_p(
            self.effect,
            self.squared_error[..., 1:],
            self.df[..., 1:],
            self.squared_error[..., :1],
            self.df[..., :1],
        )
        return np.where(np.isnan(self.half), np.nan, np.minimum(1.0, self.k * p * (ALPHA / self.alpha)))


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
) -> GroupIntervals:
    """Compare groups with their baseline, which is the first of the last axis.

    mean, variance, runs: (…, 1 + arms), the means oriented; variance as `group_variance` gives it (what stands below
    ENOUGH_RUNS is not read). alpha: error over the family of k. counts: groups whose variance may count as typical (None:
    all).
    """
    mean = np.asarray(mean, float)
    runs = np.broadcast_to(np.asarray(runs), mean.shape)
    usable = runs >= ENOUGH_RUNS
    variance = np.where(usable, variance, 0.0)
    nu = np.where(usable, runs - 1.0, 2.0)  # any df will do where nothing is read
    typical = typical_variance(variance, usable if counts is None else usable & counts)
    moderated, df = moderate(variance, nu, typical[..., None])
    squared_error = moderated / np.maximum(runs, 1)
    half = np.sqrt(
        half_width_parts(squared_error[..., 1:], df[..., 1:], alpha, k)
        + half_width_parts(squared_error[..., :1], df[..., :1], alpha, k)
    )
    half = np.where(usable[..., 1:] & usable[..., :1], half, np.nan)
    effect = mean[..., 1:] - mean[..., :1]
    lo, hi = effect - half, effect + half
    code = verdict_codes(lo, hi, margin)
    return GroupIntervals(effect, lo, hi, code, half, moderated, df, squared_error, typical, k, alpha)


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


def two_sided_p(
    effect: Floats, squared_error: Floats, df: Floats, base_squared_error: Floats, base_df: Floats
) -> Floats:
    """Return the α (for a family of one) at which the half-width is |effect|, in [0, 1]. All arguments broadcast.

    No difference without noise is no evidence of one: p = 1.
    """
    effect, a, df, b, base_df = np.broadcast_arrays(
        np.abs(effect), squared_error, df, base_squared_error, base_df
    )
    total = a + b
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(effect == 0.0, 0.0, effect / np.sqrt(total))
    # The tail probability lies between those of the two dfs alone, which agree with it where the dfs are equal.
    ends = special.stdtr(df, -ratio), special.stdtr(base_df, -ratio)
    low, high = np.minimum(*ends), np.maximum(*ends)
    open_ = (low > 0.0) & (low < high) & np.isfinite(ratio)
    at = np.where(open_, low, 0.25), np.where(open_, high, 0.25)
    lower, upper = np.log(at[0]), np.log(at[1])
    squared = np.square(effect)
    for _ in range(BISECTIONS):
        middle = (lower + upper) / 2.0
        tail = np.exp(middle)
        half_squared = special.stdtrit(df, tail) ** 2 * a + special.stdtrit(base_df, tail) ** 2 * b
        wide = half_squared > squared
        lower, upper = np.where(wide, middle, lower), np.where(wide, upper, middle)
    tail = np.where(open_, np.exp((lower + upper) / 2.0), high)
    p: Floats = np.where(np.isnan(ratio), 1.0, np.minimum(1.0, 2.0 * tail))
    return p


BISECTIONS = 56
"""Enough to find the logarithm of any tail probability to its last digits."""


def judge_groups(
    groups: Mapping[str, Group],
    *,
    metric: str,
    margin: float,
    baseline: str = "baseline",
    direction: Direction | None = None,
    resolution: float = 0.0,
    relative: bool = False,
    k: int | None = None,
    arms: Iterable[ArmRule] | None = None,
    earlier_looks: int = 0,
) -> Analysis:
    """Judge arms whose runs are not paired with the baseline's.

    groups: by the name of the arm, the baseline's among them. resolution: in the metric's units. relative: differences are
    divided by the baseline's mean, and so is the margin meant (0.01: one percent of it); summaries stay as they were. k: size of the family, where there were more arms than these
    (None: their number). arms: what they are, in the order of the report, with their factors and levels (None: every group
    but the baseline, in its order); an arm without a group has no runs. The rest is as in `Rules`.

    Nobody declared looks: α is .05 at the first, and holds only if the numbers of runs were not chosen by looking at results.
    Raises StoreError where there is no group of the baseline, or one that is no arm, or where a relative comparison has a
    baseline that averages 0; StudyError where the rules contradict themselves.
    """
    if baseline not in groups:
        raise StoreError(
            f"no runs of the baseline {baseline!r}",
            place="baseline",
            hint=nearest(str(baseline), list(groups)),
        )
    divisor = baseline_scale(groups[baseline].mean) if relative else 1.0
    declared = tuple(ArmRule(name) for name in groups if name != baseline) if arms is None else tuple(arms)
    rules = Rules(
        metric=metric,
        margin=margin,
        looks=(max(1, *(group.n for group in groups.values())),),
        arms=declared,
        direction=direction,
        resolution=resolution / divisor,
        reference=baseline,
        unit="run",
        planned=False,
        family=k or 0,
        relative=relative,
        typical=groups[baseline].mean if groups[baseline].n else None,
        earlier_looks=earlier_looks,
    )
    names = [arm.name for arm in rules.arms]
    if unknown := [name for name in groups if name not in {baseline, *names}]:
        raise StoreError(
            f"runs of {unknown[0]!r}, which is none of the arms",
            place="arms",
            hint=nearest(unknown[0], names),
        )
    none = Group(0)
    return _analysis(rules, [groups[baseline], *(groups.get(name, none) for name in names)], divisor)


def baseline_scale(mean: float) -> float:
    """Return what values are divided by where differences are relative: the absolute mean of the baseline.

    A test of no difference stays as exact as it was, since the difference and its interval are divided by one number. Raises
    StoreError where that is 0, or not known.
    """
    if not (math.isfinite(mean) and mean != 0.0):
        raise StoreError(
            f"differences cannot be relative to a baseline whose mean is {mean:g}",
            place="relative",
            hint="compare in the metric's own units",
        )
    return abs(mean)


def _analysis(rules: Rules, raw: list[Group], divisor: float) -> Analysis:
    """raw: the baseline's group, then those of the arms in the order of the rules. divisor: of their scale."""
    groups = [group.divided_by(divisor) for group in raw] if rules.relative else raw
    runs = np.array([group.n for group in groups], dtype=np.int64)
    std = np.array([group.std if group.n > 1 else 0.0 for group in groups])
    variance = group_variance(std, rules.resolution)
    # Copies say nothing about noise, and neither do runs without any.
    counts = np.array([not group.copied for group in groups]) & (variance > 0)
    found = group_intervals(
        rules.sign * np.array([group.mean if group.n else 0.0 for group in groups]),
        variance,
        runs,
        k=rules.k,
        margin=rules.margin,
        alpha=rules.unplanned_alpha,
        counts=counts,
    )
    after = rules.look_after(1)
    p_adjusted = found.p_adjusted
    comparisons = tuple(
        replace(
            _comparison(arm, groups[i + 1], groups[0], found, p_adjusted, i, rules, after.alpha),
            summary=_summary(arm.name, raw[i + 1]),
        )
        for i, arm in enumerate(rules.arms)
    )
    measured = variance[counts & (runs >= ENOUGH_RUNS)]
    bias = selection_bias(comparisons)
    analysis = Analysis(
        rules=rules,
        look=1,
        pairs=rules.looks[-1],
        alpha=rules.unplanned_alpha,
        declared=True,
        provisional=False,
        next_look=after,
        comparisons=comparisons,
        baseline=_summary(rules.reference, raw[0]),
        references=(_summary(rules.reference, raw[0]),),
        noise=math.sqrt(2.0 * float(measured.mean())) if measured.size else None,
        optimism=None if bias is None else bias / divisor,
        runs=Runs(
            planned=sum(group.n + group.failed + group.diverged for group in groups),
            finished=sum(group.n for group in groups),
            failed=sum(group.failed for group in groups),
            diverged=sum(group.diverged for group in groups),
            missing=0,
        ),
        error=Caution("reference-diverged", rules.reference, figures={"runs": float(groups[0].diverged)})
        if groups[0].diverged
        else None,
    )
    return replace(analysis, warnings=tuple(_cautions(analysis, groups, variance)))


def _comparison(
    arm: ArmRule,
    group: Group,
    base: Group,
    found: GroupIntervals,
    p_adjusted: Floats,
    i: int,
    rules: Rules,
    next_alpha: float,
) -> Comparison:
    """One arm: flags first, in the protocol's order, then the interval."""
    verdict: Verdict = "inconclusive"
    withheld: Withheld | None = None
    lo = hi = p = None
    price: MoreSeeds | None = None
    # A group without any noise of its own would make the other's the only one.
    noiseless = not (found.variance[..., 0] > 0 and found.variance[..., i + 1] > 0)
    if group.copied or base.copied:
        verdict = "not independent"
    elif base.diverged:
        verdict, withheld = "unstable" if group.diverged else "inconclusive", "reference diverged"
    elif min(group.n, base.n) < ENOUGH_RUNS:
        verdict, withheld = "unstable" if group.diverged else "inconclusive", "too few runs"
    elif noiseless:
        verdict, withheld = "unstable" if group.diverged else "inconclusive", "no noise"
    else:
        lo, hi, p = float(found.lo[i]), float(found.hi[i]), float(p_adjusted[i])
        verdict = VERDICTS[int(found.code[i])]
        if group.diverged and found.code[i] != HURTS:
            verdict = "unstable"
        if verdict == VERDICTS[INCONCLUSIVE]:
            price = more_runs(
                float(found.effect[i]),
                (float(found.variance[i + 1]), float(found.variance[0])),
                (float(found.df[i + 1]), float(found.df[0])),
                (group.n, base.n),
                alpha=next_alpha,
                k=rules.k,
                margin=rules.margin,
                moderated=bool(np.isfinite(found.typical)),
            )
    clearly, real, ruled_out = claims(verdict, lo, hi, rules.margin)
    return Comparison(
        arm=arm.name,
        factor=arm.factor,
        level=arm.level,
        reference=rules.reference,
        verdict=verdict,
        n=group.n,
        effect=float(found.effect[i]) if group.n and base.n else None,
        lo=lo,
        hi=hi,
        p_adjusted=p,
        clearly=clearly,
        real=real,
        ruled_out=ruled_out,
        noise=math.hypot(group.std, base.std) if min(group.n, base.n) > 1 else None,
        ci_new_images=None,
        cost_ratio=None,
        cost_is_time=False,
        seconds_ratio=None,
        parameter_ratio=None,
        fit=(),
        failed=group.failed,
        diverged=group.diverged,
        missing=0,
        more_seeds=price,
        test_effect=None,
        differences=(),
        summary=_summary(arm.name, group),
        look=1,
        alpha=rules.unplanned_alpha,
        withheld=withheld,
        n_reference=base.n,
    )


def _summary(arm: str, group: Group) -> ArmSummary:
    return ArmSummary(
        arm=arm,
        n=group.n,
        mean=group.mean if group.n else None,
        sd=group.std if group.n > 1 else None,
        low=group.values[0] if group.values else None,
        high=group.values[-1] if group.values else None,
        test=None,
        seconds=None,
        flops=None,
        parameters=None,
        epochs=None,
        failed=group.failed,
        diverged=group.diverged,
        missing=0,
    )


def seed_spread(groups: Iterable[Group], resolution: float = 0.0) -> float | None:
    """Return by how much seeds alone make two single runs of one arm differ, 95 % of the time; None without repeats.

    t(.975, Σν)·√(2·Σν·s²/Σν) over the groups with at least two runs, in the metric's units.
    """
    repeated = [group for group in groups if group.n > 1 and not group.copied]
    df = float(sum(group.n - 1 for group in repeated))
    if not df:
        return None
    variance = group_variance(np.array([group.std for group in repeated]), resolution)
    pooled = float(np.dot([group.n - 1.0 for group in repeated], variance)) / df
    return float(special.stdtrit(df, 0.975)) * math.sqrt(2.0 * pooled)


def _cautions(analysis: Analysis, groups: list[Group], variance: Floats) -> Iterable[Caution]:
    """Return what to know about an analysis of groups, most serious first. variance: s² of each group."""
    rules = analysis.rules
    if analysis.error is not None:
        yield analysis.error
    names = [rules.reference, *(arm.name for arm in rules.arms)]
    single = tuple(name for name, group in zip(names, groups, strict=True) if group.n == 1)
    if single:
        spread = seed_spread(groups, rules.resolution)
        yield Caution("single-runs", arms=single, figures={} if not spread else {"spread": spread})
    if rules.margin < 2.0 * rules.resolution:
        yield Caution("coarse-metric", figures={"margin": rules.margin, "resolution": rules.resolution})
    for comparison in analysis.comparisons:
        if comparison.withheld == "no noise":
            yield Caution("no-noise", comparison.arm)
    stds = {
        name: math.sqrt(float(s2))
        for name, group, s2 in zip(names, groups, variance, strict=True)
        if group.n >= ENOUGH_RUNS
    }
    typical = float(np.median(list(stds.values()))) if len(stds) >= 3 else math.inf
    for name, std in stds.items():
        if 0 < NOISY * typical < std:
            yield Caution("noisy", name, figures={"times": std / typical})
    values = {name: np.array(group.values) for name, group in zip(names, groups, strict=True)}
    yield from skewed(rules.reference, values, paired=False)
