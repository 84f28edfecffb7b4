"""Verdicts over blocks: tasks, data sets or folds, in each of which every arm is compared with the baseline.

Within a block the unit is the run. Over blocks it is the block: what varies from task to task is part of the question, and
runs of one task say nothing about the next. Runs are never pooled over blocks: means that differ by task would look like
noise, or, where an arm has more runs in easy tasks, like an effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from ablate.analysis.cautions import NOISY
from ablate.analysis.contents import (
    Analysis,
    ArmSummary,
    BlockedAnalysis,
    Caution,
    Comparison,
    Runs,
    Verdict,
    Withheld,
)
from ablate.analysis.family import ArmRule
from ablate.analysis.groups import Group
from ablate.analysis.intervals import HURTS, Floats, Intervals, intervals, rounding
from ablate.analysis.looks import VERDICTS, claims
from ablate.analysis.power import more_seeds
from ablate.analysis.rules import Rules
from ablate.analysis.unpaired import judge_groups
from ablate.errors import StoreError, StudyError
from ablate.metrics import Direction

ENOUGH_BLOCKS = 5
"""Below this there is no interval over blocks."""


def judge_blocks(
    blocks: Mapping[str, Mapping[str, Group]],
    *,
    metric: str,
    margin: float,
    baseline: str = "baseline",
    direction: Direction | None = None,
    resolution: float = 0.0,
    relative: bool = False,
    k: int | None = None,
    arms: Iterable[ArmRule] | None = None,
) -> BlockedAnalysis:
    """Judge arms whose runs are not paired, within each block and over the blocks.

    blocks: block → arm → its runs. relative: differences are divided by the baseline's mean in their block, and so is the
    margin meant (0.01: one percent of it). k: number of arms, where more were tried than these; the family within blocks is
    k × blocks, the one over blocks k. arms: as in `judge_groups` (None: every arm of any block, as they come).

    Raises StoreError where a block has no runs of the baseline, or where those of a relative comparison average 0.
    """
    if not blocks:
        raise StoreError("there are no blocks to compare within", place="block")
    for block, groups in blocks.items():
        if baseline not in groups or not groups[baseline].n:
            raise StoreError(f"no runs of the baseline {baseline!r} in the block {block!r}", place="block")
    names = dict.fromkeys(name for groups in blocks.values() for name in groups if name != baseline)
    declared = tuple(ArmRule(name) for name in names) if arms is None else tuple(arms)
    number = max(k or 0, len(declared), 1)
    if k is not None and k < len(declared):
        raise StudyError(f"a family of {k} is too small for {len(declared)} arms", place="k")
    within: dict[str, Analysis] = {}
    for block, groups in blocks.items():
        try:
            within[block] = judge_groups(
                groups,
                metric=metric,
                margin=margin,
                baseline=baseline,
                direction=direction,
                resolution=resolution,
                relative=relative,
                k=number * len(blocks),
                arms=declared,
            )
        except StoreError as error:
            raise StoreError(error.message, place=f"block {block!r}", hint=error.hint) from error
    return over_blocks(within, k=number)


def over_blocks(within: Mapping[str, Analysis], *, k: int | None = None) -> BlockedAnalysis:
    """Add the comparison over blocks to those within them, paired or not, which all have the same arms.

    The unit is the block: d_b is the mean difference within block b, and each arm has a t interval of those, at α = .05 over
    its own family of k arms (None: their number). No arm borrows noise from others: that was tried on differences between
    runs, not between tasks.
    """
    blocks = list(within)
    first = within[blocks[0]].rules
    rules = replace(
        first,
        looks=(len(blocks),),
        most=0,
        seeds=(),
        resolution=max(analysis.rules.resolution for analysis in within.values()),
        unit="block",
        planned=False,
        family=k or 0,
        typical=_mean([analysis.baseline.mean for analysis in within.values()]),
    )
    effects = [[within[b].comparison(arm.name).effect for b in blocks] for arm in rules.arms]
    differences = [[(b, d) for b, d in enumerate(row) if d is not None] for row in effects]
    found = _intervals(differences, [a.baseline.mean for a in within.values()], rules)
    p_adjusted = found.p_adjusted
    comparisons = tuple(
        _comparison(
            arm, [within[b].comparison(arm.name) for b in blocks], differences[i], found, p_adjusted, i, rules
        )
        for i, arm in enumerate(rules.arms)
    )
    noises = [c.noise for c in comparisons if c.noise is not None and c.n >= ENOUGH_BLOCKS]
    errors = [analysis.error for analysis in within.values() if analysis.error is not None]
    baseline = _summary(rules.reference, [analysis.baseline for analysis in within.values()])
    over = Analysis(
        rules=rules,
        look=1,
        pairs=len(blocks),
        alpha=rules.unplanned_alpha,
        declared=True,
        provisional=False,
        next_look=rules.look_after(1),
        comparisons=comparisons,
        baseline=baseline,
        references=(baseline,),
        noise=float(np.median(noises)) if noises else None,
        runs=_runs(within.values()),
        error=errors[0] if errors else None,
    )
    over = replace(over, warnings=tuple(_cautions(over)))
    return BlockedAnalysis(tuple(within.items()), over)


def _intervals(
    differences: list[list[tuple[int, float]]], means: list[float | None], rules: Rules
) -> Intervals:
    """The plain paired t of every arm, over its blocks."""
    number = np.array([len(row) for row in differences], dtype=np.int64)
    mean, variance = np.zeros(number.size), np.zeros(number.size)
    least = rounding(max((abs(m) for m in means if m is not None), default=0.0)) ** 2
    for i, row in enumerate(differences):
        if len(row) > 1:
            d = np.array([difference for _, difference in row])
            spread = max(float(np.var(d, ddof=1)), rules.resolution**2 / 4.0)
            mean[i], variance[i] = d.mean(), spread if spread > least else 0.0
        elif row:
            mean[i] = row[0][1]
    nobody = np.zeros(number.size, dtype=bool)
    alpha = rules.unplanned_alpha
    return intervals(mean, variance, number, alpha=alpha, k=rules.k, margin=rules.margin, counts=nobody)


def _comparison(
    arm: ArmRule,
    within: list[Comparison],
    differences: list[tuple[int, float]],
    found: Intervals,
    p_adjusted: Floats,
    i: int,
    rules: Rules,
) -> Comparison:
    """One arm over its blocks: flags first, as within them, then the interval."""
    n = len(differences)
    d = np.array([difference for _, difference in differences])
    verdict: Verdict = "inconclusive"
    withheld: Withheld | None = None
    lo = hi = p = price = None
    diverged = any(c.diverged for c in within)
    flags = [c.verdict for c in within if c.verdict in {"not independent", "no override"}]
    if flags:
        verdict = flags[0]
    elif any(c.withheld == "reference diverged" for c in within):
        verdict, withheld = "unstable" if diverged else "inconclusive", "reference diverged"
    elif n < ENOUGH_BLOCKS or not found.variance[i] > 0:
        withheld = "too few blocks" if n < ENOUGH_BLOCKS else "no noise"
        verdict = "unstable" if diverged else "inconclusive"
    else:
        lo, hi, p = float(found.lo[i]), float(found.hi[i]), float(p_adjusted[i])
        code = int(found.code[i])
        verdict = "unstable" if diverged and code != HURTS else VERDICTS[code]
        if verdict == "inconclusive":
            price = more_seeds(
                float(d.mean()),
                float(found.variance[i]),
                float(found.df[i]),
                n,
                alpha=rules.look_after(1).alpha,
                k=rules.k,
                margin=rules.margin,
                moderated=False,
            )
    clearly, real, ruled_out = claims(verdict, lo, hi, rules.margin)
    return Comparison(
        arm=arm.name,
        factor=arm.factor,
        level=arm.level,
        reference=rules.reference_of(arm),
        verdict=verdict,
        n=n,
        effect=float(d.mean()) if n else None,
        lo=lo,
        hi=hi,
        p_adjusted=p,
        clearly=clearly,
        real=real,
        ruled_out=ruled_out,
        noise=float(d.std(ddof=1)) if n > 1 else None,
        ci_new_images=None,
        cost_ratio=None,
        cost_is_time=False,
        seconds_ratio=None,
        parameter_ratio=None,
        fit=(),
        failed=sum(c.failed for c in within),
        diverged=sum(c.diverged for c in within),
        missing=sum(c.missing for c in within),
        more_seeds=price,
        test_effect=None,
        differences=tuple(differences),
        summary=_summary(arm.name, [c.summary for c in within]),
        look=1,
        alpha=rules.unplanned_alpha,
        withheld=withheld,
    )


def _summary(arm: str, within: Iterable[ArmSummary]) -> ArmSummary:
    """An arm over blocks: n counts the blocks that it has a mean in; mean, sd, low and high are those of its means."""
    parts = list(within)
    means = np.array([part.mean for part in parts if part.mean is not None])
    return ArmSummary(
        arm=arm,
        n=means.size,
        mean=float(means.mean()) if means.size else None,
        sd=float(means.std(ddof=1)) if means.size > 1 else None,
        low=float(means.min()) if means.size else None,
        high=float(means.max()) if means.size else None,
        test=None,
        seconds=None,
        flops=None,
        parameters=None,
        epochs=None,
        failed=sum(part.failed for part in parts),
        diverged=sum(part.diverged for part in parts),
        missing=sum(part.missing for part in parts),
    )


def _runs(within: Iterable[Analysis]) -> Runs:
    """The runs of all blocks together."""
    counts = [analysis.runs for analysis in within]
    return Runs(
        planned=sum(runs.planned for runs in counts),
        finished=sum(runs.finished for runs in counts),
        failed=sum(runs.failed for runs in counts),
        diverged=sum(runs.diverged for runs in counts),
        missing=sum(runs.missing for runs in counts),
    )


def _cautions(over: Analysis) -> Iterator[Caution]:
    """What to know about a comparison over blocks; what concerns one block stands with that block."""
    if over.error is not None:
        yield over.error
    if over.rules.is_against_its_name:
        yield Caution("direction-against-name")
    if over.rules.judged_on == "test":
        yield Caution("judged-on-test")
    for c in over.comparisons:
        if c.withheld == "no noise":
            yield Caution("no-noise", c.arm)
    noises = {c.arm: c.noise for c in over.comparisons if c.noise is not None and c.n >= ENOUGH_BLOCKS}
    typical = float(np.median(list(noises.values()))) if len(noises) >= 3 else math.inf
    for arm, noise in noises.items():
        if 0 < NOISY * typical < noise:
            yield Caution("noisy", arm, figures={"times": noise / typical})


def _mean(values: Iterable[float | None]) -> float | None:
    given = [value for value in values if value is not None]
    return float(np.mean(given)) if given else None
