"""From frames to verdicts: one study-wide interval per arm, and every verdict is read from it.

Looks are gone through in order. At each, arms still undecided get an interval from the first n pairs; what is decided
there is frozen, interval and all. Effects and intervals are oriented: higher is better, whatever the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis import effects as factorial
from ablate.analysis.compare import (
    AA,
    CONFIRM,
    REPORT,
    Ledger,
    Record,
    Sample,
    Sampler,
    mean_of,
    pair,
    ratio,
    typical_seconds,
)
from ablate.analysis.diagnosis import Diagnosis, at_the_edge, curves_of, diagnose, too_slow
from ablate.analysis.examples import per_image, under
from ablate.analysis.grids import Grids, grids
from ablate.analysis.intervals import (
    ENOUGH_PAIRS,
    HELPS,
    HURTS,
    INCONCLUSIVE,
    NEGLIGIBLE,
    Step,
    step,
)
from ablate.analysis.power import MoreSeeds, best_of, detectable, more_seeds
from ablate.analysis.rules import AA_ARM, AA_OFFSET, ALPHA, ArmRule, Look, Rules
from ablate.errors import StudyError

__all__ = [
    "Analysis",
    "ArmRule",
    "Comparison",
    "Effect",
    "Look",
    "Rules",
    "Runs",
    "Summary",
    "Verdict",
    "judge",
    "to_json",
    "undecided",
    "winner",
]

Verdict = Literal[
    "helps", "hurts", "no practical effect", "inconclusive", "unstable", "not independent", "no override"
]

_WORDS: dict[int, Verdict] = {
    INCONCLUSIVE: "inconclusive",
    HELPS: "helps",
    HURTS: "hurts",
    NEGLIGIBLE: "no practical effect",
}

Withheld = Literal["too few pairs", "no noise", "reference diverged"]
"""Why an arm that could have one has no interval."""

_AA_WARNINGS = {
    False: (
        "A/A, the baseline under other seeds, differs from the baseline: something besides the overrides varies, "
        "or this is the one study in twenty where chance does it."
    ),
    True: "A/A repeats the baseline exactly: the seed does not reach the training.",
}

NOISY = 3.0
"""An arm whose differences spread this many times more than the typical arm's is named in a warning."""


@dataclass(frozen=True)
class Summary:
    """What was recorded for one arm, raw (as the metric is written), over its finished report replicates.

    n: finished replicates. mean, sd, low, high: of the primary metric (sd: ddof 1, None for one). test: mean test twin.
    flops, parameters, epochs: means per replicate, seconds: their median; None where unknown. failed, diverged, missing: counts among
    the seeds that were due.
    """

    arm: str
    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    test: float | None
    seconds: float | None
    flops: float | None
    parameters: float | None
    epochs: float | None
    failed: int
    diverged: int
    missing: int
    fit: tuple[Diagnosis, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One arm against its reference, at the look that decided it (or the last one that has been closed).

    effect: oriented mean difference in the metric's units, None without a pair. lo, hi: the study-wide interval, None
    below 3 pairs and where there is no comparison to be made. p_adjusted: below .05 exactly when the interval excludes
    0. clearly: helps or hurts by at least the margin. real: no practical effect, and yet not zero.
    ruled_out: what an inconclusive interval excludes, a `gain` or a `loss` of the margin. n: pairs. noise: SD of the
    paired differences. ci_new_images: interval for new images, None without per-image correctness.
    cost_ratio: compute against the reference (FLOPs; device seconds where those are unknown, then cost_is_time).
    more_seeds: the price of certainty, for inconclusive arms. test_effect: oriented, never used to choose.
    differences: (seed, oriented difference) of each pair. summary: the arm's own raw figures. look: index of the look
    (0: none yet), alpha: what that look spends. provisional: no look is closed yet, and more pairs are due.
    withheld: why there is no interval, where flags are not the reason.
    """

    arm: str
    factor: str | None
    level: Any
    reference: str
    verdict: Verdict
    n: int
    effect: float | None
    lo: float | None
    hi: float | None
    p_adjusted: float | None
    clearly: bool
    real: bool
    ruled_out: Literal["gain", "loss"] | None
    noise: float | None
    ci_new_images: tuple[float, float] | None
    cost_ratio: float | None
    cost_is_time: bool
    seconds_ratio: float | None
    parameter_ratio: float | None
    fit: tuple[Diagnosis, ...]
    failed: int
    diverged: int
    missing: int
    more_seeds: MoreSeeds | None
    test_effect: float | None
    differences: tuple[tuple[int, float], ...]
    summary: Summary
    look: int
    alpha: float
    provisional: bool = False
    withheld: Withheld | None = None


@dataclass(frozen=True)
class Effect:
    """A main effect or an interaction, with the same reading as a Comparison.

    terms: `path=level`, one for a main effect and two for an interaction; `the rest` where a factor is known alone and
    within everything. aliases: other effects that this design cannot tell from it. estimate: oriented; lo, hi,
    p_adjusted, … as in Comparison. apart: of an interaction with the rest, what the factor is worth alone, and given
    the rest; the estimate is the second minus the first.
    """

    terms: tuple[str, ...]
    verdict: Verdict
    n: int
    estimate: float | None
    lo: float | None
    hi: float | None
    p_adjusted: float | None
    clearly: bool
    real: bool
    ruled_out: Literal["gain", "loss"] | None
    noise: float | None
    more_seeds: MoreSeeds | None
    differences: tuple[tuple[int, float], ...]
    look: int
    alpha: float
    provisional: bool = False
    withheld: Withheld | None = None
    aliases: tuple[tuple[str, ...], ...] = ()
    apart: tuple[float, float] | None = None


@dataclass(frozen=True)
class Runs:
    """Counts over the replicates that are due (report, A/A and confirmation; not tuning)."""

    planned: int
    finished: int
    failed: int
    diverged: int
    missing: int


@dataclass(frozen=True)
class Analysis:
    """Everything the report says about a study.

    look: index of the last closed look (0: none), pairs: its number of pairs, alpha: what it spends (before the first
    is closed: what that one will spend). declared: whether it was a declared one. next_look: where the undecided go.
    comparisons: in arm order, empty in factorial designs, which have cells (raw figures) and effects instead. effects:
    of those, and the interactions with the rest where every factor is tried alone and left out.
    aa: A/A against the baseline, outside the family. confirmation: the winner on fresh seeds, with its own full error.
    noise: typical SD of a paired difference. optimism: by how much the best of k equal arms is expected to look better.
    detectable: effect that the last declared look detects with 80 % power at that noise.
    error: what makes the whole study unreadable (a diverged reference), in which case no arm is judged.
    """

    rules: Rules
    look: int
    pairs: int
    alpha: float
    declared: bool
    provisional: bool
    next_look: Look
    comparisons: tuple[Comparison, ...]
    baseline: Summary
    effects: tuple[Effect, ...] = ()
    cells: tuple[Summary, ...] = ()
    references: tuple[Summary, ...] = ()
    aa: Comparison | None = None
    confirmation: Comparison | None = None
    noise: float | None = None
    optimism: float | None = None
    detectable: float | None = None
    runs: Runs = field(default_factory=lambda: Runs(0, 0, 0, 0, 0))
    warnings: tuple[str, ...] = ()
    error: str | None = None

    def comparison(self, arm: str) -> Comparison:
        """The comparison of one arm. Raises KeyError for an arm that has none."""
        for comparison in self.comparisons:
            if comparison.arm == arm:
                return comparison
        raise KeyError(arm)


@dataclass(frozen=True)
class _Unit:
    """Something that gets a verdict: an arm, or an effect. arms: those whose replicates it needs."""

    sampler: Sampler
    arms: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """One unit at the look that decided it, or at the last one so far."""

    sample: Sample
    look: Look
    verdict: Verdict
    provisional: bool
    lo: float | None = None
    hi: float | None = None
    p_adjusted: float | None = None
    half: float | None = None
    variance: float | None = None
    df: float | None = None
    moderated: bool = False
    corrected: float = math.nan
    withheld: Withheld | None = None

    @property
    def effect(self) -> float | None:
        return float(np.mean(self.sample.differences)) if self.sample.n else None

    @property
    def noise(self) -> float | None:
        return float(np.std(self.sample.differences, ddof=1)) if self.sample.n > 1 else None


def judge(
    rules: Rules,
    replicates: pd.DataFrame,
    curves: pd.DataFrame | Grids | None = None,
    *,
    closed: int | None = None,
    correct: Mapping[str, pd.DataFrame] | None = None,
) -> Analysis:
    """Reads every verdict of a study from its replicates.

    replicates: a row per recorded replicate, columns arm, seed, phase, outcome, value, test, weights, trace, seconds,
    flops, parameters, epochs, run_id. curves: long, columns arm, seed, phase, epoch, metric, value; or their `grids`.
    closed: how many looks are over, whatever is missing (None: those whose data are complete).
    correct: arm → bool frame, index seed, a column per validation image, the references' included; only of arms that see
    the same images as their reference under all seeds, and where the metric is their mean.
    Raises StoreError where two rows record the same replicate, StudyError where `closed` is no number of looks.
    """
    ledger = Ledger(replicates)
    seeds = rules.seeds or ledger.seeds()
    looks = rules.schedule()
    if closed is not None and not 0 <= closed <= len(looks):
        raise StudyError(f"{closed} looks cannot be closed where {len(looks)} were taken")

    def over(look: Look, waiting: Sequence[_Unit]) -> bool:
        if rules.walking:
            return False
        if closed is not None:
            return look.index <= closed
        due = seeds[: look.pairs]
        needed = {arm for unit in waiting for arm in unit.arms}
        return len(due) >= look.pairs and all(s in ledger.record(arm) for arm in needed for s in due)

    family = factorial.contrasts(rules) if rules.factorial or rules.mixed else ()
    arms = () if rules.factorial else rules.arms
    units = [*_arm_units(rules, ledger, arms), *_effect_units(rules, ledger, family)]
    readings, last = _go_through(units, looks, over, rules, k=rules.k, seeds=seeds)
    study = _Study(rules, ledger, grids(curves), correct or {}, seeds, last, rules.look_after(last))

    comparisons = tuple(_arm_comparison(arm, r, study) for arm, r in zip(arms, readings, strict=False))
    of_effects = readings[len(arms) :]
    effects = tuple(_effect(c, r, study) for c, r in zip(family, of_effects, strict=True))
    # Where a path stood is a reference of what came next, and an arm with a verdict of its own.
    held_against = {rules.reference_of(arm) for arm in rules.arms} - {arm.name for arm in rules.arms}
    names = [rules.reference, *sorted(held_against - {rules.reference})]
    references = tuple(study.summary(name) for name in names)
    comparisons, baseline = _mark_edges(comparisons, references[0], rules)
    references = (baseline, *references[1:])
    typical = _typical(readings)
    rules = replace(rules, typical=baseline.mean)
    plan = next(look for look in looks if look.pairs == rules.looks[-1])
    seen = detectable(rules.k, plan.pairs, plan.alpha)
    analysis = Analysis(
        rules=rules,
        look=last,
        pairs=study.now.pairs,
        alpha=study.now.alpha,
        declared=study.now.declared,
        provisional=last == 0,
        next_look=study.after,
        comparisons=comparisons,
        baseline=baseline,
        effects=effects,
        cells=tuple(study.summary(arm.name) for arm in rules.arms) if rules.factorial else (),
        references=references,
        aa=_aa(study),
        confirmation=_confirmation(study, comparisons),
        noise=typical,
        optimism=_optimism(comparisons),
        detectable=seen * typical if typical is not None and math.isfinite(seen) else None,
        runs=_runs(units, readings, study, forced=closed is not None),
        error=_study_error(units, readings, rules),
    )
    return replace(analysis, warnings=_warnings(analysis, readings, study, replicates))


def undecided(analysis: Analysis) -> list[str]:
    """Arms that more seeds may settle, in arm order; their references need the same seeds.

    Unstable arms, copies and arms without an override get no more, and nobody does where the study itself is in error.
    An undecided effect needs all cells that it is made of.
    """
    if analysis.error is not None:
        return []
    needed = {c.arm for c in analysis.comparisons if c.provisional or c.verdict == "inconclusive"}
    open_terms = {e.terms for e in analysis.effects if e.provisional or e.verdict == "inconclusive"}
    if open_terms:
        family = factorial.contrasts(analysis.rules)
        needed |= {arm for c in family if c.terms in open_terms for arm, _ in c.weights}
    return [arm.name for arm in analysis.rules.arms if arm.name in needed]


def winner(analysis: Analysis) -> str | None:
    """The arm with the largest effect among those that help; None where none does, or verdicts are provisional."""
    helping = [c for c in analysis.comparisons if c.verdict == "helps" and not c.provisional]
    return max(helping, key=lambda c: (c.effect or 0.0, c.arm)).arm if helping else None


def _go_through(
    units: Sequence[_Unit],
    looks: Sequence[Look],
    over: Callable[[Look, Sequence[_Unit]], bool],
    rules: Rules,
    *,
    k: int,
    seeds: Sequence[int],
) -> tuple[list[_Reading], int]:
    """Every look in order, freezing what is decided. Returns the readings and the index of the last closed look."""
    readings: list[_Reading | None] = [None] * len(units)
    last = 0
    for look in looks:
        waiting = [i for i, reading in enumerate(readings) if _open(reading)]
        if not waiting and last:
            break
        if not over(look, [units[i] for i in waiting]):
            break
        for i, reading in _read_look(units, readings, look, rules, k=k, seeds=seeds):
            readings[i] = reading
        last = look.index
    if last == 0:
        for i, reading in _read_look(units, readings, looks[0], rules, k=k, seeds=seeds):
            readings[i] = replace(reading, provisional=True)
    return [reading for reading in readings if reading is not None], last


def _open(reading: _Reading | None) -> bool:
    return reading is None or reading.verdict == "inconclusive"


def _read_look(
    units: Sequence[_Unit],
    readings: Sequence[_Reading | None],
    look: Look,
    rules: Rules,
    *,
    k: int,
    seeds: Sequence[int],
) -> list[tuple[int, _Reading]]:
    """The readings of this look, for the units that are still open."""
    if not units:
        return []
    waiting = [i for i, reading in enumerate(readings) if _open(reading)]
    samples = {i: units[i].sampler(seeds[: look.pairs]) for i in waiting}
    mean, variance = np.zeros(len(units)), np.zeros(len(units))
    pairs = np.zeros(len(units), dtype=np.int64)
    counts, kept = np.zeros(len(units), dtype=bool), np.full(len(units), np.nan)
    for i, reading in enumerate(readings):
        if i not in samples:
            kept[i] = reading.corrected if reading is not None else math.nan
            continue
        sample = samples[i]
        pairs[i] = sample.n
        if sample.n >= ENOUGH_PAIRS:
            mean[i], variance[i] = np.mean(sample.differences), sample.variance(rules.resolution)
        # Copies and unchanged arms say nothing about noise, and neither do differences without any.
        counts[i] = not (sample.copied or sample.unchanged or sample.reference_diverged) and variance[i] > 0
    found = step(mean, variance, pairs, alpha=look.alpha, k=k, margin=rules.margin, counts=counts, kept=kept)
    moderated = bool(np.isfinite(found.typical))
    return [(i, _reading(samples[i], look, found, i, moderated=moderated, rules=rules)) for i in waiting]


def _reading(sample: Sample, look: Look, found: Step, i: int, *, moderated: bool, rules: Rules) -> _Reading:
    """The verdict of one unit at one look: flags first, in the protocol's order, then the interval."""

    def without_interval(verdict: Verdict, withheld: Withheld | None = None) -> _Reading:
        return _Reading(sample, look, verdict, provisional=False, withheld=withheld)

    if sample.copied:
        return without_interval("not independent")
    if sample.unchanged:
        return without_interval("no override")
    if sample.reference_diverged:
        return without_interval("unstable" if sample.unstable else "inconclusive", "reference diverged")
    enough = sample.n >= ENOUGH_PAIRS
    no_noise = enough and not found.variance[i] > 0 and not rules.deterministic
    code = INCONCLUSIVE if no_noise or not enough else int(found.code[i])
    verdict = _WORDS[code]
    if sample.unstable and not (code == HURTS and sample.hurt_is_safe):
        verdict = "unstable"
    if no_noise or not enough:
        return without_interval(verdict, "no noise" if no_noise else "too few pairs")
    return _Reading(
        sample,
        look,
        verdict,
        provisional=False,
        lo=float(found.lo[i]),
        hi=float(found.hi[i]),
        p_adjusted=float(found.p_adjusted[i]),
        half=float(found.half[i]),
        variance=float(found.variance[i]),
        df=float(found.df[i]),
        moderated=moderated,
        corrected=float(found.corrected[i]),
    )


def _arm_units(rules: Rules, ledger: Ledger, arms: Sequence[ArmRule]) -> list[_Unit]:
    def sampler(arm: ArmRule) -> Sampler:
        reference = rules.reference_of(arm)
        mine, theirs = ledger.record(arm.name), ledger.record(reference)

        def sample(seeds: Sequence[int]) -> Sample:
            found = pair(mine, theirs, seeds, sign=rules.sign, deterministic=rules.deterministic)
            # Where the study's own reference diverges, the study is in error. Another one leaves its arms without a
            # comparison, and more seeds would not mend that.
            lost = bool(found.reference_diverged) and reference != rules.reference
            return replace(found, unstable=True) if lost else found

        return sample

    return [_Unit(sampler(arm), (arm.name, rules.reference_of(arm))) for arm in arms]


def _effect_units(rules: Rules, ledger: Ledger, family: Sequence[factorial.Contrast]) -> list[_Unit]:
    def sampler(contrast: factorial.Contrast) -> Sampler:
        return lambda seeds: factorial.sample(contrast, ledger, seeds, rules)

    return [_Unit(sampler(contrast), tuple(arm for arm, _ in contrast.weights)) for contrast in family]


@dataclass(frozen=True)
class _Study:
    """What every part of a report draws on. last: index of the last closed look; after: the next one."""

    rules: Rules
    ledger: Ledger
    curves: Grids
    correct: Mapping[str, pd.DataFrame]
    seeds: Sequence[int]
    last: int
    after: Look

    @property
    def now(self) -> Look:
        """The last closed look; the first where none is."""
        return self.rules.schedule()[max(self.last - 1, 0)]

    def within(self, arm: str, look: Look) -> Record:
        """An arm's report replicates under the seeds of a look."""
        record = self.ledger.record(arm)
        return {s: record[s] for s in self.seeds[: look.pairs] if s in record}

    def curves_of(self, arm: str, record: Record, phase: str = REPORT) -> dict[str, Any]:
        """Curves of the finished replicates of a record."""
        return curves_of(self.curves, arm, [r.seed for r in record.values() if r.finished], phase)

    def summary(self, arm: str) -> Summary:
        record = self.within(arm, self.now)
        summary = _summarise(arm, record, missing=self.now.pairs - len(record))
        runs = summary.n + summary.failed + summary.diverged
        fit = diagnose(
            self.curves_of(arm, record),
            metric=self.rules.metric,
            sign=self.rules.sign,
            margin=self.rules.margin,
            diverged=summary.diverged,
            runs=runs,
        )
        return replace(summary, fit=fit)


def _arm_comparison(arm: ArmRule, reading: _Reading, study: _Study) -> Comparison:
    rules = study.rules
    reference = rules.reference_of(arm)
    mine, theirs = study.within(arm.name, reading.look), study.within(reference, reading.look)
    return _comparison(
        arm,
        reading,
        rules,
        mine,
        theirs,
        curves=study.curves_of(arm.name, mine),
        reference_curves=study.curves_of(reference, theirs),
        price=partial(_price, reading, rules, study.after),
        new_images=_new_images(reading, rules, study.correct.get(arm.name), study.correct.get(reference)),
    )


def _comparison(
    arm: ArmRule,
    reading: _Reading,
    rules: Rules,
    mine: Record,
    theirs: Record,
    *,
    curves: Mapping[str, Any],
    reference_curves: Mapping[str, Any],
    price: Callable[[float | None], MoreSeeds | None] = lambda _: None,
    new_images: tuple[float, float] | None = None,
) -> Comparison:
    """Everything about one arm. mine, theirs: replicates of its look, by the seed they are paired under."""
    sample = reading.sample
    paired = [(mine[s], theirs[s]) for s in sample.seeds]
    ours, refs = [m for m, _ in paired], [t for _, t in paired]
    tests = [(m.test, t.test) for m, t in paired if math.isfinite(m.test) and math.isfinite(t.test)]
    flops = ratio(mean_of(ours, "flops"), mean_of(refs, "flops"))
    seconds = ratio(typical_seconds(ours), typical_seconds(refs))
    cost = seconds if flops is None else flops
    clearly, real, ruled_out = _claims(reading, rules)
    fit = diagnose(
        curves,
        metric=rules.metric,
        sign=rules.sign,
        margin=rules.margin,
        diverged=sample.diverged,
        runs=len(mine),
        reference=reference_curves,
    )
    slow = too_slow(
        effect=reading.effect,
        verdict=reading.verdict,
        cost=cost,
        margin=rules.margin,
        error=_error(reading.noise, sample.n),
        is_time=flops is None,
    )
    return Comparison(
        arm=arm.name,
        factor=arm.factor,
        level=arm.level,
        reference=arm.reference or rules.reference,
        verdict=reading.verdict,
        n=sample.n,
        effect=reading.effect,
        lo=reading.lo,
        hi=reading.hi,
        p_adjusted=reading.p_adjusted,
        clearly=clearly,
        real=real,
        ruled_out=ruled_out,
        noise=reading.noise,
        ci_new_images=new_images,
        cost_ratio=cost,
        cost_is_time=flops is None and cost is not None,
        seconds_ratio=seconds,
        parameter_ratio=ratio(mean_of(ours, "parameters"), mean_of(refs, "parameters")),
        fit=fit if slow is None else (*fit, slow),
        failed=sample.failed,
        diverged=sample.diverged,
        missing=sample.missing,
        more_seeds=price(_total(typical_seconds(ours), typical_seconds(refs))),
        test_effect=rules.sign * float(np.mean([m - t for m, t in tests])) if tests else None,
        differences=tuple(zip(sample.seeds, sample.differences, strict=True)),
        summary=_summarise(arm.name, mine, missing=sample.missing),
        look=0 if reading.provisional else reading.look.index,
        alpha=reading.look.alpha,
        provisional=reading.provisional,
        withheld=reading.withheld,
    )


def _effect(contrast: factorial.Contrast, reading: _Reading, study: _Study) -> Effect:
    clearly, real, ruled_out = _claims(reading, study.rules)
    cells = [list(study.within(arm, reading.look).values()) for arm, _ in contrast.weights]
    seconds = [typical_seconds(r for r in cell if r.finished) for cell in cells]
    return Effect(
        terms=contrast.terms,
        verdict=reading.verdict,
        n=reading.sample.n,
        estimate=reading.effect,
        lo=reading.lo,
        hi=reading.hi,
        p_adjusted=reading.p_adjusted,
        clearly=clearly,
        real=real,
        ruled_out=ruled_out,
        noise=reading.noise,
        more_seeds=_price(reading, study.rules, study.after, _total(*seconds)),
        differences=tuple(zip(reading.sample.seeds, reading.sample.differences, strict=True)),
        look=0 if reading.provisional else reading.look.index,
        alpha=reading.look.alpha,
        provisional=reading.provisional,
        withheld=reading.withheld,
        aliases=contrast.aliases,
        apart=factorial.parts(contrast, study.ledger, reading.sample.seeds, study.rules)
        if study.rules.mixed
        else None,
    )


def _aa(study: _Study) -> Comparison | None:
    """The baseline under other seeds against itself, at the looks that the study has closed, in a family of its own."""
    rules = study.rules
    record = {s - AA_OFFSET: r for s, r in study.ledger.record(AA_ARM, AA).items()}
    if not record:
        return None
    reference = study.ledger.record(rules.reference)
    sampler = partial(
        pair, record, reference, sign=rules.sign, deterministic=rules.deterministic, same_arm=True
    )
    # Only the first look's seeds are owed: A/A need not follow the undecided arms to the next.
    first = set(study.seeds[: rules.looks[0]])
    seeds = [s for s in study.seeds if s in first or s in record]
    readings, _ = _go_through(
        [_Unit(sampler, ())],
        rules.schedule(),
        lambda look, _: look.index <= study.last,
        rules,
        k=1,
        seeds=seeds,
    )
    reading = readings[0]
    due = seeds[: reading.look.pairs]
    mine = {s: record[s] for s in due if s in record}
    return _comparison(
        ArmRule(AA_ARM),
        reading,
        rules,
        mine,
        {s: reference[s] for s in due if s in reference},
        curves=study.curves_of(AA_ARM, mine, AA),
        reference_curves={},
    )


def _confirmation(study: _Study, comparisons: Sequence[Comparison]) -> Comparison | None:
    """The winner under seeds that chose nothing, with the whole error; several such arms share it."""
    rules, ledger = study.rules, study.ledger
    confirmed = [c for c in comparisons if ledger.record(c.arm, CONFIRM)]
    if not confirmed:
        return None
    best = max(confirmed, key=lambda c: (c.verdict == "helps", c.effect or 0.0))
    mine, theirs = ledger.record(best.arm, CONFIRM), ledger.record(best.reference, CONFIRM)
    seeds = sorted({*mine, *theirs})
    look = Look(1, max(len(seeds), rules.confirm_seeds, 1), ALPHA, declared=True)
    sampler = partial(pair, mine, theirs, sign=rules.sign, deterministic=rules.deterministic)
    readings, _ = _go_through(
        [_Unit(sampler, ())],
        [look],
        lambda look, _: min(len(mine), len(theirs)) >= look.pairs,
        rules,
        k=len(confirmed),
        seeds=seeds,
    )
    return _comparison(
        rules.arm(best.arm),
        readings[0],
        rules,
        mine,
        theirs,
        curves=study.curves_of(best.arm, mine, CONFIRM),
        reference_curves=study.curves_of(best.reference, theirs, CONFIRM),
    )


def _claims(reading: _Reading, rules: Rules) -> tuple[bool, bool, Literal["gain", "loss"] | None]:
    """clearly, real, ruled_out: what else the interval says, in the terms of its verdict."""
    if reading.lo is None or reading.hi is None:
        return False, False, None
    lo, hi, margin = reading.lo, reading.hi, rules.margin
    clearly = (reading.verdict == "helps" and lo >= margin) or (reading.verdict == "hurts" and hi <= -margin)
    real = reading.verdict == "no practical effect" and (lo > 0 or hi < 0)
    if reading.verdict != "inconclusive":
        return clearly, real, None
    return clearly, real, "gain" if hi < margin else "loss" if lo > -margin else None


def _price(reading: _Reading, rules: Rules, after: Look, seconds_per_pair: float | None) -> MoreSeeds | None:
    """What settling an inconclusive arm would cost, at the error of its next look."""
    if (
        reading.verdict != "inconclusive"
        or reading.effect is None
        or not reading.variance
        or reading.df is None
    ):
        return None
    return more_seeds(
        reading.effect,
        reading.variance,
        reading.df,
        reading.sample.n,
        alpha=after.alpha,
        k=rules.k,
        margin=rules.margin,
        moderated=reading.moderated,
        seconds_per_pair=seconds_per_pair,
    )


def _new_images(
    reading: _Reading, rules: Rules, mine: pd.DataFrame | None, theirs: pd.DataFrame | None
) -> tuple[float, float] | None:
    """The interval for images that were never seen: the noise of the drawn validation set comes on top of the seeds'."""
    if mine is None or theirs is None or reading.half is None or reading.effect is None:
        return None
    seeds = [s for s in reading.sample.seeds if s in mine.index and s in theirs.index]
    if not seeds or not mine.columns.equals(theirs.columns) or mine.shape[1] < 2:
        return None
    ours, refs = (under(of, seeds) for of in (mine, theirs))
    changes = (per_image(ours) - per_image(refs)) / len(seeds)
    se = math.sqrt(float(np.var(changes, ddof=1)) / changes.size)
    half = new_images_half(reading.half, se, reading.look.alpha, rules.k)
    return reading.effect - half, reading.effect + half


def new_images_half(half: float, se_img: float, alpha: float, k: int) -> float:
    """√(h² + (z·se_img)²): half-width for new images. half: of the seeds' interval, se_img: standard error over images."""
    return math.hypot(half, float(special.ndtri(1.0 - alpha / (2.0 * k))) * se_img)


def _summarise(arm: str, record: Record, *, missing: int) -> Summary:
    """missing: how many of the seeds that were due have no record."""
    done = [record[s] for s in sorted(record) if record[s].finished]
    values = np.array([r.value for r in done])
    tests = [r.test for r in done if math.isfinite(r.test)]
    return Summary(
        arm=arm,
        n=len(done),
        mean=float(values.mean()) if done else None,
        sd=float(values.std(ddof=1)) if len(done) > 1 else None,
        low=float(values.min()) if done else None,
        high=float(values.max()) if done else None,
        test=float(np.mean(tests)) if tests else None,
        seconds=typical_seconds(done),
        flops=mean_of(done, "flops"),
        parameters=mean_of(done, "parameters"),
        epochs=mean_of(done, "epochs"),
        failed=sum(r.outcome == "failed" for r in record.values()),
        diverged=sum(r.outcome == "diverged" for r in record.values()),
        missing=missing,
    )


def _typical(readings: Iterable[_Reading]) -> float | None:
    """Typical SD of a paired difference: the root of the median over arms of the median-corrected variance."""
    known = [r.corrected for r in readings if math.isfinite(r.corrected)]
    return math.sqrt(float(np.median(known))) if known else None


def _optimism(comparisons: Sequence[Comparison]) -> float | None:
    """How much better than it is the best of k equal arms looks, in the metric's units."""
    errors = [c.summary.sd / math.sqrt(c.summary.n) for c in comparisons if c.summary.sd is not None]
    return best_of(len(comparisons)) * float(np.median(errors)) if len(comparisons) > 1 and errors else None


def _runs(units: Sequence[_Unit], readings: Sequence[_Reading], study: _Study, *, forced: bool) -> Runs:
    """Every replicate that is recorded, and those that the next step of the plan still asks for."""
    rules = study.rules
    due: dict[str, int] = {}
    goes_on = study.after.pairs > 0 and not forced
    for unit, reading in zip(units, readings, strict=True):
        pairs = study.after.pairs if _open(reading) and goes_on and study.last else reading.look.pairs
        for arm in unit.arms:
            due[arm] = max(due.get(arm, 0), pairs)
    missing, records = 0, []
    for arm in dict.fromkeys([rules.reference, *due]):
        record = study.ledger.record(arm)
        pairs = due.get(arm, 0)
        missing += pairs - sum(s in record for s in study.seeds[:pairs])
        records.append(record)
    for phase in (AA, CONFIRM):
        records += [study.ledger.record(arm, phase) for arm in study.ledger.arms(phase)]
    if rules.confirm_seeds:
        missing += sum(
            max(0, rules.confirm_seeds - len(study.ledger.record(a, CONFIRM)))
            for a in study.ledger.arms(CONFIRM)
        )
    outcomes = [r.outcome for record in records for r in record.values()]
    return Runs(
        planned=len(outcomes) + missing,
        finished=outcomes.count("finished"),
        failed=outcomes.count("failed"),
        diverged=outcomes.count("diverged"),
        missing=missing,
    )


def _mark_edges(
    comparisons: tuple[Comparison, ...], baseline: Summary, rules: Rules
) -> tuple[tuple[Comparison, ...], Summary]:
    """Adds the diagnosis of a best level that is the last one tried, for factors with numeric levels."""
    marked = list(comparisons)
    for factor in dict.fromkeys(c.factor for c in comparisons if c.factor is not None):
        tried = [
            c for c in comparisons if c.factor == factor and c.reference == baseline.arm and _numeric(c.level)
        ]
        levels = {c.arm: float(c.level) for c in tried}
        # Paired effects, not means: arms that went through different looks have seen different seeds.
        effects = {c.arm: c.effect for c in tried if c.effect is not None and c.verdict in _WORDS.values()}
        if _numeric(rules.baseline_levels.get(factor)):
            levels[baseline.arm] = float(rules.baseline_levels[factor])
            effects[baseline.arm] = 0.0
        errors = {c.arm: _error(c.noise, c.n) for c in tried}
        found = at_the_edge(levels, effects, factor, errors)
        if found is None:
            continue
        if found[0] == baseline.arm:
            baseline = replace(baseline, fit=(*baseline.fit, found[1]))
        marked = [replace(c, fit=(*c.fit, found[1])) if c.arm == found[0] else c for c in marked]
    return tuple(marked), baseline


def _error(noise: float | None, n: int) -> float:
    """Standard error of a mean of n; 0 where its noise is not known."""
    return noise / math.sqrt(n) if noise is not None and n else 0.0


def _numeric(level: Any) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool) and math.isfinite(level)


def _study_error(units: Sequence[_Unit], readings: Sequence[_Reading], rules: Rules) -> str | None:
    held = [r for unit, r in zip(units, readings, strict=True) if rules.reference in unit.arms]
    seeds = sorted({s for r in held for s in r.sample.reference_diverged})
    if not seeds:
        return None
    under = ", ".join(map(str, seeds))
    return (
        f"the {rules.reference} diverged under seed{'s' if len(seeds) > 1 else ''} {under}: "
        "nothing can be compared with it. Lower its learning rate, see that its metric is a number, or choose another baseline"
    )


def _warnings(
    analysis: Analysis, readings: Sequence[_Reading], study: _Study, replicates: pd.DataFrame
) -> tuple[str, ...]:
    """What a reader must know before trusting a verdict, most serious first."""
    rules = study.rules
    said: list[str] = [] if analysis.error is None else [analysis.error]
    arms = [c.arm for c in analysis.comparisons]
    names = [*arms, *("×".join(e.terms) for e in analysis.effects)]
    if rules.margin < 2.0 * rules.resolution:
        said.append(
            f"The margin ({rules.margin:g}) is less than twice the metric's resolution ({rules.resolution:g}): "
            "two misclassified images are already worth having."
        )
    aa = analysis.aa
    if aa is not None and aa.verdict in {"helps", "hurts", "not independent"}:
        said.append(_AA_WARNINGS[aa.verdict == "not independent"])
    said += [
        f"{name}: the differences agree to the last digit under every seed, which leaves no noise to judge by. "
        "State the metric's resolution, or `deterministic: true` if that is meant."
        for name, reading in zip(names, readings, strict=True)
        if reading.withheld == "no noise"
    ]
    noises = [r.noise for r in readings if r.noise is not None and r.sample.n >= ENOUGH_PAIRS]
    typical = float(np.median(noises)) if len(noises) >= 3 else math.inf
    said += [
        f"{name}: from seed to seed its differences vary {reading.noise / typical:.1f} times as much as the typical arm's."
        for name, reading in zip(names, readings, strict=True)
        if reading.noise is not None and 0 < NOISY * typical < reading.noise
    ]
    if not rules.factorial:
        said += _skew_warning([study.within(a, study.now) for a in (rules.reference, *arms)], arms)
    open_still = any(_open(r) and r.lo is not None for r in readings)
    if open_still and analysis.detectable is not None and analysis.detectable > rules.margin:
        shown = rules.scale(analysis.baseline.mean)
        unit = f" {shown.unit}" if shown.unit else ""
        said.append(
            "The margin is out of reach: with this noise the declared seeds detect differences of about "
            f"{analysis.detectable * shown.factor:.2g}{unit}, and the margin is {rules.margin * shown.factor:g}{unit}."
        )
    said += _mixture_warnings(replicates)
    aliased = sum(bool(e.aliases) for e in analysis.effects)
    if aliased:
        said.append(
            f"{aliased} of {len(analysis.effects)} effects cannot be told from others in this fraction: each estimate is "
            "the sum of its aliases, up to their signs. They are named with the effect; a factorial study of a few "
            "factors tells them apart."
        )
    return tuple(said)


def _skew_warning(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """Strong skew together with unequal noise, which no t interval repairs. records: the reference's, then each arm's."""
    residuals: list[float] = []
    spreads: list[float | None] = []
    for record in records:
        values = np.array([r.value for r in record.values() if r.finished])
        sd = float(values.std(ddof=1)) if values.size >= ENOUGH_PAIRS else 0.0
        if sd and sd <= 1e-12 * float(np.abs(values).max()):
            sd = 0.0  # rounding errors of equal values
        spreads.append(sd or None)
        if sd:
            residuals += list((values - values.mean()) / sd)
    reference, *arms = spreads
    if len(residuals) < 20 or reference is None:
        return []
    unequal = [name for name, sd in zip(names, arms, strict=True) if sd and not 0.5 <= sd / reference <= 2.0]
    if not unequal:
        return []
    from scipy import stats  # half a second, for the few that come this far

    if abs(float(stats.skew(residuals))) < 0.5 or float(stats.skewtest(residuals).pvalue) > 0.001:
        return []
    who = f"{', '.join(unequal)} spread{'s' if len(unequal) == 1 else ''} differently from the baseline"
    return [
        f"The metric is strongly skewed over seeds, and {who}: intervals may miss more often than they say."
    ]


STACKED_AND_SINGLE = (
    "The comparisons mix stacked and single runs: the same computation, but for the last digits of its sums."
)


def _mixture_warnings(replicates: pd.DataFrame) -> list[str]:
    """Names what differs between finished report replicates besides arm and seed."""
    said = []
    compared = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    for column, what in (("device", "kinds of device"), ("torch", "versions of torch")):
        if column not in compared.columns:
            continue
        names = compared[column].dropna().astype(str)
        if column == "device":  # cuda:0 and cuda:1 are one kind
            names = names.str.replace(r":\d+\b", "", regex=True)
        counts = names[names != ""].value_counts(sort=False).sort_index()
        if len(counts) > 1:
            parts = ", ".join(f"{name} ({n} run{'' if n == 1 else 's'})" for name, n in counts.items())
            said.append(f"Runs of different {what} are compared with each other: {parts}.")
    # Runs that were stepped in turn are to the bit what they are alone.
    fused = compared["fused"] if "fused" in compared.columns else ()
    if len({str(how).startswith("stacked") for how in fused}) > 1:
        said.append(STACKED_AND_SINGLE)
    return said


def _total(*parts: float | None) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def to_json(analysis: Analysis, study: str = "") -> dict[str, Any]:
    """The contract of `ablate report --format json`: plain Python types, no NaN.

    `effect`, `ci` and `estimate` are oriented; `ci` is null below 3 pairs; the reference stands only in `baseline`.
    """
    rules = analysis.rules
    return {
        "study": study,
        "metric": rules.metric,
        "direction": rules.direction,
        "margin": _plain(rules.margin),
        "alpha": _plain(analysis.alpha),
        "look": analysis.look,
        "provisional": analysis.provisional,
        "declared": analysis.declared,
        "design": rules.design,
        "k": rules.k,
        "baseline": _summary_json(analysis.baseline),
        "arms": [_comparison_json(c) for c in analysis.comparisons],
        "effects": [_effect_json(e) for e in analysis.effects],
        "cells": [_summary_json(c) for c in analysis.cells],
        "path": list(rules.path),
        "aa": None if analysis.aa is None else _comparison_json(analysis.aa),
        "confirmation": None if analysis.confirmation is None else _comparison_json(analysis.confirmation),
        "runs": {
            name: int(getattr(analysis.runs, name))
            for name in ("planned", "finished", "failed", "diverged", "missing")
        },
        "warnings": list(analysis.warnings),
        "error": analysis.error,
    }


def _comparison_json(c: Comparison) -> dict[str, Any]:
    return {
        "arm": c.arm,
        "factor": c.factor,
        "level": _plain(c.level),
        "reference": c.reference,
        "verdict": c.verdict,
        "clearly": c.clearly,
        "real": c.real,
        "n": c.n,
        "effect": _plain(c.effect),
        "ci": _interval_json(c.lo, c.hi),
        "p_adjusted": _plain(c.p_adjusted),
        "ruled_out": c.ruled_out,
        "ci_new_images": None if c.ci_new_images is None else _interval_json(*c.ci_new_images),
        "cost_ratio": _plain(c.cost_ratio),
        "cost_is_time": c.cost_is_time,
        "seconds_ratio": _plain(c.seconds_ratio),
        "parameter_ratio": _plain(c.parameter_ratio),
        "fit": [d.code for d in c.fit],
        "failed": c.failed,
        "diverged": c.diverged,
        "missing": c.missing,
        "more_seeds": _more_seeds_json(c.more_seeds),
        "test_effect": _plain(c.test_effect),
        "look": c.look,
        "alpha": _plain(c.alpha),
        "provisional": c.provisional,
        "withheld": c.withheld,
    }


def _effect_json(e: Effect) -> dict[str, Any]:
    return {
        "terms": list(e.terms),
        "estimate": _plain(e.estimate),
        "ci": _interval_json(e.lo, e.hi),
        "p_adjusted": _plain(e.p_adjusted),
        "verdict": e.verdict,
        "clearly": e.clearly,
        "real": e.real,
        "n": e.n,
        "ruled_out": e.ruled_out,
        "more_seeds": _more_seeds_json(e.more_seeds),
        "aliases": [list(alias) for alias in e.aliases],
        "alone": None if e.apart is None else _plain(e.apart[0]),
        "given_the_rest": None if e.apart is None else _plain(e.apart[1]),
        "look": e.look,
        "alpha": _plain(e.alpha),
        "provisional": e.provisional,
        "withheld": e.withheld,
    }


def _summary_json(s: Summary) -> dict[str, Any]:
    numbers = ("mean", "sd", "low", "high", "test", "seconds", "flops", "parameters", "epochs")
    return {
        "arm": s.arm,
        "n": s.n,
        **{name: _plain(getattr(s, name)) for name in numbers},
        "failed": s.failed,
        "diverged": s.diverged,
        "missing": s.missing,
        "fit": [d.code for d in s.fit],
    }


def _more_seeds_json(price: MoreSeeds | None) -> dict[str, Any] | None:
    if price is None:
        return None
    names = ("n50", "n80", "n_any", "seconds50", "seconds80", "seconds_any")
    return {name: _plain(getattr(price, name)) for name in names}


def _interval_json(lo: float | None, hi: float | None) -> list[Any] | None:
    return None if lo is None or hi is None else [_plain(lo), _plain(hi)]


def _plain(value: Any) -> Any:
    """Numpy scalars, tuples and mappings as plain Python; what JSON cannot say (NaN, infinity) as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
