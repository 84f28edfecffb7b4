"""Effects from runs: each a contrast of cells within every seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ablate.analysis.compare import Ledger, Record, Sample, copies, same
from ablate.analysis.family import Contrast
from ablate.analysis.rules import Rules


def spread(rules: Rules) -> float:
    """Return the standard deviation of the noisiest effect of a factorial design, in those of a difference of two cells.

    1 for other designs. Every run serves every effect: a main effect of N cells of two levels has a variance of 4/N, the
    difference of two cells one of 2. Where all runs are equally noisy and independent.
    """
    if not rules.factorial:
        return 1.0
    return max((math.sqrt(sum(w * w for _, w in c.weights) / 2.0) for c in rules.contrasts), default=1.0)


def parts(contrast: Contrast, ledger: Ledger, sample: Sample, rules: Rules) -> tuple[float, float] | None:
    """Return what a factor is worth alone, and given the rest: the oriented means whose difference its interaction is.

    sample: of the contrast. None where it has no pair, or where runs are not paired and a group has none.
    """
    if not sample.n:
        return None
    (full, _), (base, _), (without, _), (alone, _) = contrast.weights
    if sample.groups:
        means = {group.arm: group.runs.mean for group in sample.groups}
        return means[alone] - means[base], means[full] - means[without]
    seeds = sample.seeds

    def between(one: str, other: str) -> float:
        pairs = [(ledger.record(one)[s].value, ledger.record(other)[s].value) for s in seeds]
        return rules.sign * math.fsum(a - b for a, b in pairs) / len(pairs)

    return between(alone, base), between(full, without)


def sample(contrast: Contrast, ledger: Ledger, seeds: Sequence[int], rules: Rules) -> Sample:
    """Return the contrast within each seed under which all of its cells finished, oriented, with the flags of its cells."""
    records: dict[str, Record] = {arm: ledger.record(arm) for arm, _ in contrast.weights}
    complete = [s for s in seeds if all(s in r and r[s].finished for r in records.values())]
    differences = tuple(
        rules.sign * math.fsum(weight * records[arm][s].value for arm, weight in contrast.weights)
        for s in complete
    )
    diverged = [
        (arm, weight, s)
        for arm, weight in contrast.weights
        for s in seeds
        if s in records[arm] and records[arm][s].outcome == "diverged"
    ]
    finished = {arm: {s: r[s] for s in seeds if s in r and r[s].finished} for arm, r in records.items()}
    return Sample(
        seeds=tuple(complete),
        differences=differences,
        copied=not rules.deterministic and any(copies(r.values()) for r in finished.values()),
        unchanged=any(_unchanged(twins, finished) for twins in contrast.twins),
        unstable=bool(diverged),
        # A cell that diverged did badly. On the plus side, leaving it out flatters the effect, never the harm.
        hurt_is_safe=all(weight > 0 for _, weight, _ in diverged),
        reference_diverged=tuple(s for arm, _, s in diverged if arm == rules.reference),
        scale=max((abs(r.value) for by_seed in finished.values() for r in by_seed.values()), default=0.0),
    )


def _unchanged(twins: tuple[tuple[str, str], ...], finished: Mapping[str, Record]) -> bool:
    """Return whether a factor changed nothing: wherever two cells differ by it alone, they are the same training."""
    matches = [
        same(finished[one][s], finished[other][s])
        for one, other in twins
        if one in finished and other in finished
        for s in finished[one]
        if s in finished[other]
    ]
    return bool(matches) and all(matches)
