"""Verdicts of repeats that are not paired: groups of runs, as other people's results have them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from scipy import special

from ablate.analysis.cautions import noisy_groups, skewed
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
from ablate.analysis.groups import (
    ENOUGH_RUNS,
    Group,
    GroupIntervals,
    differences_from_the_first,
    group_intervals,
    group_variance,
)
from ablate.analysis.intervals import HURTS, INCONCLUSIVE, Floats
from ablate.analysis.judging import selection_bias
from ablate.analysis.looks import VERDICTS, claims
from ablate.analysis.power import MoreSeeds, fresh_runs, more_runs
from ablate.analysis.rules import ALPHA, Rules
from ablate.errors import StoreError, nearest
from ablate.metrics import Direction


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

    A test of no difference is no less exact than it was, since the difference and its interval are divided by one number; that this
    number is a mean of runs is in the interval (`_spreads_of_shares`, `Sample.variance`). Raises
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
    means = np.array([group.mean if group.n else 0.0 for group in groups])
    found = group_intervals(
        rules.sign * means,
        variance,
        runs,
        k=rules.k,
        margin=rules.margin,
        alpha=rules.unplanned_alpha,
        counts=counts,
        spreads=_spreads_of_shares(means) if rules.relative else None,
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
        moderated=bool(np.isfinite(found.typical)),
        runs=Runs(
            planned=sum(group.n + group.failed + group.diverged for group in groups),
            finished=sum(group.n for group in groups),
            failed=sum(group.failed for group in groups),
            diverged=sum(group.diverged for group in groups),
            missing=0,
        ),
        error=_error(rules.reference, groups[0]),
    )
    return replace(analysis, warnings=tuple(_cautions(analysis, groups)))


def _spreads_of_shares(means: Floats) -> Floats:
    """Return by what the errors of the means are multiplied where differences are shares of the baseline's mean, (arms, groups).

    means: the baseline's first, ±1. That mean is itself one of a few runs. To first order the error of arm/baseline is the arm's
    minus that of the baseline times the ratio (Cochran 1977, Sampling Techniques, 6.3); at least times 1, by which the test of no difference
    stays as exact as it was.
    """
    spreads = differences_from_the_first(means.size)
    spreads[:, 0] = -np.maximum(1.0, np.abs(means[1:]))
    return spreads


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
            groups = (
                (float(found.variance[i + 1]), float(found.spreads[i, 0] ** 2 * found.variance[0])),
                (float(found.df[i + 1]), float(found.df[0])),
                (group.n, base.n),
            )
            price = more_runs(
                float(found.effect[i]),
                *groups,
                # Who collects more runs because of this verdict and judges them with these has looked twice: an extra look,
                # whoever planned what. At α = .05 for both, a user who goes on until something comes out would find it.
                alpha=next_alpha,
                k=rules.k,
                margin=rules.margin,
                moderated=bool(np.isfinite(found.typical)),
            )
            if price is not None:
                undecided = int((found.code == INCONCLUSIVE).sum())
                fresh = fresh_runs(
                    float(found.effect[i]), *groups, alpha=ALPHA, k=undecided, margin=rules.margin
                )
                price = replace(price, fresh=fresh)
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


def _error(reference: str, runs: Group) -> Caution | None:
    """Return what makes the comparison unreadable: a reference that diverged, or never finished."""
    if runs.diverged:
        return Caution("reference-diverged", reference, figures={"runs": float(runs.diverged)})
    if runs.failed and not runs.n:
        return Caution("reference-failed", reference, figures={"runs": float(runs.failed)})
    return None


def _cautions(analysis: Analysis, groups: list[Group]) -> Iterable[Caution]:
    """Return what to know about an analysis of groups, most serious first."""
    rules = analysis.rules
    if analysis.error is not None:
        yield analysis.error
    if rules.is_against_its_name:
        yield Caution("direction-against-name")
    if rules.judged_on == "test":
        yield Caution("judged-on-test")
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
    yield from noisy_groups(dict(zip(names, groups, strict=True)), rules.resolution)
    values = {name: np.array(group.values) for name, group in zip(names, groups, strict=True)}
    yield from skewed(rules.reference, values, paired=False)
