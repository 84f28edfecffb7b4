"""From frames to verdicts: one study-wide interval per arm, and every verdict is read from it.

`looks` reads the intervals. This file adds what stands beside them: costs, diagnoses, the price of certainty, the interval
for new images, A/A, the confirmation of the winner.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis import effects as effects_of_runs
from ablate.analysis.cautions import cautions, study_error
from ablate.analysis.compare import (
    CONFIRM,
    REPORT,
    Ledger,
    Record,
    Replicate,
    Sample,
    Sampler,
    mean_of,
    no_garbage_collection,
    not_paired,
    pair,
    ratio,
    time_ratio,
    typical_seconds,
)
from ablate.analysis.contents import Analysis, ArmSummary, Comparison, Effect, Runs
from ablate.analysis.diagnosis import at_the_edge, curves_of, diagnose, too_slow
from ablate.analysis.family import ANEW, ArmRule, Contrast
from ablate.analysis.grids import Grids, grids
from ablate.analysis.looks import (
    VERDICTS,
    Unit,
    UnitReading,
    arm_units,
    claims,
    effect_units,
    go_through,
    is_open,
)
from ablate.analysis.pairing import pairing
from ablate.analysis.power import (
    MoreSeeds,
    best_of,
    detectable_by,
    fresh_runs,
    fresh_seeds,
    more_runs,
    more_seeds,
)
from ablate.analysis.prediction_changes import per_image, under
from ablate.analysis.rules import ALPHA, DECLARED_ALPHA, Look, Rules
from ablate.errors import StudyError
from ablate.study.seeds import NOISE_FLOOR, replicate_of


@no_garbage_collection()
def judge(
    rules: Rules,
    replicates: pd.DataFrame,
    curves: pd.DataFrame | Grids | None = None,
    *,
    closed: int | None = None,
    correct: Mapping[str, pd.DataFrame] | None = None,
) -> Analysis:
    """Read every verdict of a study from its replicates.

    replicates: a row per recorded replicate, columns arm, seed, phase, outcome, value, test, weights, trace, seconds,
    flops, parameters, epochs, run_id. curves: long, columns arm, seed, phase, epoch, metric, value; or their `grids`.
    closed: how many looks are over, whatever is missing (None: those whose data are complete).
    correct: arm → bool frame, index seed, a column per validation image, the references' included; only of arms that see
    the same images as their reference under all seeds, and where the metric is their mean.
    Raises StoreError where the frame lacks a column, two rows record the same replicate, a seed is no whole number, or the
    arms of the frame are not those of the rules; StudyError where `closed` is no number of looks.
    """
    ledger = Ledger(replicates)
    ledger.require(
        [rules.reference, *(name for arm in rules.arms for name in (arm.name, rules.reference_of(arm)))]
    )
    for arm in rules.arms:
        # The second reference of a design of both kinds is declared nowhere else, and may have no run yet.
        if not rules.mixed:
            declared = (rules.reference, *rules.path, *(each.name for each in rules.arms))
            ledger.require_reference(arm.name, rules.reference_of(arm), declared)
    seeds = rules.seeds or ledger.seeds()
    looks = rules.schedule()
    if closed is not None and not 0 <= closed <= len(looks):
        raise StudyError(f"{closed} looks cannot be closed where {len(looks)} were taken")

    def over(look: Look, waiting: Sequence[Unit]) -> bool:
        if rules.walking:
            return False
        if closed is not None:
            return look.index <= closed
        due = seeds[: look.pairs]
        needed = {arm for unit in waiting for arm in unit.arms}
        return len(due) >= look.pairs and all(s in ledger.record(arm) for arm in needed for s in due)

    family = rules.contrasts
    arms = () if rules.factorial else rules.arms
    units = [*arm_units(rules, ledger, arms), *effect_units(rules, ledger, family)]
    readings, last = go_through(units, looks, over, rules, k=rules.k, seeds=seeds)
    undecided = sum(reading.verdict == "inconclusive" for reading in readings)
    study = _Study(
        rules, ledger, grids(curves), correct or {}, seeds, last, rules.look_after(last), undecided
    )

    comparisons = tuple(_arm_comparison(arm, r, study) for arm, r in zip(arms, readings, strict=False))
    effects = tuple(_effect(c, r, study) for c, r in zip(family, readings[len(arms) :], strict=True))
    # Where a path stood is a reference of what came next, and an arm with a verdict of its own.
    further = {rules.reference_of(arm) for arm in rules.arms} - {arm.name for arm in rules.arms}
    names = [rules.reference, *sorted(further - {rules.reference})]
    references = tuple(study.summary(name) for name in names)
    comparisons, baseline = _mark_edges(comparisons, references[0], rules)
    references = (baseline, *references[1:])
    typical = _typical(readings, rules)
    rules = replace(rules, typical=baseline.mean)
    detectable_stds = detectable_by(rules, rules.last_look())
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
        combinations=_combinations(study, looks, over) if rules.factorial else (),
        references=references,
        aa=_aa(study),
        confirmation=_confirmation(study, comparisons),
        noise=typical,
        optimism=selection_bias(comparisons),
        detectable=detectable_stds * typical
        if typical is not None and math.isfinite(detectable_stds)
        else None,
        moderated=any(reading.moderated for reading in readings),
        runs=_runs(units, readings, study, forced=closed is not None),
        error=study_error(units, readings, rules, ledger, seeds),
    )
    arms_now = {arm: study.within(arm, study.now) for arm in (rules.reference, *(c.arm for c in comparisons))}
    return replace(analysis, warnings=cautions(analysis, readings, arms_now, replicates))


@dataclass(frozen=True)
class _Study:
    """What every part of a report draws on. last: index of the last closed look; after: the next one. undecided: how many units are."""

    rules: Rules
    ledger: Ledger
    curves: Grids
    correct: Mapping[str, pd.DataFrame]
    seeds: Sequence[int]
    last: int
    after: Look
    undecided: int

    @property
    def now(self) -> Look:
        """The last closed look; the first where none is."""
        return self.rules.schedule()[max(self.last - 1, 0)]

    def within(self, arm: str, look: Look) -> Record:
        """Return an arm's report replicates under the seeds of a look."""
        due = self.seeds[: look.pairs]
        record = self.ledger.record(arm)
        return record if tuple(record) == due else {s: record[s] for s in due if s in record}

    def curves_of(self, arm: str, record: Record, phase: str = REPORT) -> dict[str, Any]:
        """Curves of the finished replicates of a record."""
        if (arm, phase) not in self.curves:
            return {}
        return curves_of(self.curves, arm, [r.seed for r in record.values() if r.finished], phase)

    def summary(self, arm: str) -> ArmSummary:
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


def _combinations(
    study: _Study, looks: Sequence[Look], over: Callable[[Look, Sequence[Unit]], bool]
) -> tuple[Comparison, ...]:
    """Return each cell against the reference: a family of their own, beside the effects that the study is about."""
    rules, arms = study.rules, study.rules.arms
    units = arm_units(rules, study.ledger, arms)
    readings, _ = go_through(units, looks, over, rules, k=len(arms), seeds=study.seeds)
    return tuple(
        _comparison(
            arm,
            reading,
            rules,
            study.within(arm.name, reading.look),
            study.within(rules.reference, reading.look),
            curves={},
            reference_curves={},
            family=len(arms),
        )
        for arm, reading in zip(arms, readings, strict=True)
    )


def _arm_comparison(arm: ArmRule, reading: UnitReading, study: _Study) -> Comparison:
    rules = study.rules
    reference = rules.reference_of(arm)
    runs, reference_runs = study.within(arm.name, reading.look), study.within(reference, reading.look)
    return _comparison(
        arm,
        reading,
        rules,
        runs,
        reference_runs,
        curves=study.curves_of(arm.name, runs),
        reference_curves=study.curves_of(reference, reference_runs),
        price=partial(_price, reading, rules, study.last, study.undecided),
        new_images=_new_images(
            reading, rules, study.correct.get(arm.name), study.correct.get(reference), runs, reference_runs
        ),
    )


def _comparison(
    arm: ArmRule,
    reading: UnitReading,
    rules: Rules,
    runs: Record,
    reference_runs: Record,
    *,
    curves: Mapping[str, Any],
    reference_curves: Mapping[str, Any],
    price: Callable[[float | None], MoreSeeds | None] = lambda _: None,
    new_images: tuple[float, float] | None = None,
    family: int | None = None,
) -> Comparison:
    """Everything about one arm. family: the number of arms that share the error, where it is not the study's. runs, reference_runs: replicates of its look, by the seed they are paired under."""
    sample = reading.sample
    if rules.paired:
        own_runs, other_runs = ([record[s] for s in sample.seeds] for record in (runs, reference_runs))
    else:
        own_runs, other_runs = (
            [r for r in record.values() if r.finished] for record in (runs, reference_runs)
        )
    flops = ratio(mean_of(own_runs, "flops"), mean_of(other_runs, "flops"))
    seconds = ratio(typical_seconds(own_runs), typical_seconds(other_runs))
    cost = time_ratio(own_runs, other_runs) if flops is None else flops
    clearly, real, ruled_out = claims(reading.verdict, reading.lo, reading.hi, rules.margin)
    stretch = _stretch(own_runs, other_runs, rules)
    fit = diagnose(
        curves,
        metric=rules.metric,
        sign=rules.sign,
        margin=rules.margin,
        diverged=sample.diverged,
        runs=len(runs),
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
        n=sample.n if rules.paired else len(own_runs),
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
        parameter_ratio=ratio(mean_of(own_runs, "parameters"), mean_of(other_runs, "parameters")),
        fit=fit if slow is None else (*fit, slow),
        failed=sample.failed,
        diverged=sample.diverged,
        missing=sample.missing,
        more_seeds=price(_total(typical_seconds(own_runs), typical_seconds(other_runs))),
        test_effect=_test_effect(own_runs, other_runs, rules),
        differences=tuple(zip(sample.seeds, sample.differences, strict=True)),
        summary=_summarise(arm.name, runs, missing=sample.missing),
        look=0 if reading.provisional else reading.look.index,
        alpha=reading.look.alpha,
        provisional=reading.provisional,
        withheld=reading.withheld,
        n_reference=None if rules.paired else len(other_runs),
        pairing=None
        if not rules.paired
        else pairing(
            [run.value for run in own_runs],
            [run.value * stretch for run in other_runs],
            reading.half,
            alpha=reading.look.alpha,
            k=rules.k if family is None else family,
            moderated=reading.moderated,
            resolution=rules.resolution,
        ),
    )


def _stretch(own: Sequence[Replicate], others: Sequence[Replicate], rules: Rules) -> float:
    """Return by what the noise of the reference counts in an interval of runs that are not paired: above 1 for shares of a smaller mean."""
    found = mean_of(own, "value"), mean_of(others, "value")
    if not rules.relative or found[0] is None or not found[1]:
        return 1.0
    return max(1.0, abs(found[0] / found[1]))


def _test_effect(own: Sequence[Replicate], others: Sequence[Replicate], rules: Rules) -> float | None:
    """Return the oriented difference on the test set. own, others: runs of an arm and its reference, in pairs where they are paired."""
    if rules.paired:
        differences = [r.test - o.test for r, o in zip(own, others, strict=True)]
        differences = [difference for difference in differences if math.isfinite(difference)]
        return rules.sign * float(np.mean(differences)) if differences else None
    means = [[r.test for r in runs if math.isfinite(r.test)] for runs in (own, others)]
    return rules.sign * float(np.mean(means[0]) - np.mean(means[1])) if all(means) else None


def _effect(contrast: Contrast, reading: UnitReading, study: _Study) -> Effect:
    clearly, real, ruled_out = claims(reading.verdict, reading.lo, reading.hi, study.rules.margin)
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
        more_seeds=_price(reading, study.rules, study.last, study.undecided, _total(*seconds)),
        differences=tuple(zip(reading.sample.seeds, reading.sample.differences, strict=True)),
        look=0 if reading.provisional else reading.look.index,
        alpha=reading.look.alpha,
        provisional=reading.provisional,
        withheld=reading.withheld,
        aliases=contrast.aliases,
        apart=effects_of_runs.parts(contrast, study.ledger, reading.sample, study.rules)
        if study.rules.mixed
        else None,
    )


def _aa(study: _Study) -> Comparison | None:
    """Return the baseline under other seeds against itself, at the looks that the study has closed, in a family of its own."""
    rules = study.rules
    record = {replicate_of(s): r for s, r in study.ledger.record(NOISE_FLOOR, NOISE_FLOOR).items()}
    if not record:
        return None
    reference = study.ledger.record(rules.reference)
    sampler = _outside_the_family(record, reference, rules, same_arm=True)
    # Only the first look's seeds are owed: A/A need not follow the undecided arms to the next.
    first = set(study.seeds[: rules.looks[0]])
    seeds = [s for s in study.seeds if s in first or s in record]
    readings, _ = go_through(
        [Unit(sampler, ())],
        rules.schedule(),
        lambda look, _: look.index <= study.last,
        rules,
        k=1,
        seeds=seeds,
    )
    reading = readings[0]
    due = seeds[: reading.look.pairs]
    runs = {s: record[s] for s in due if s in record}
    return _comparison(
        ArmRule(NOISE_FLOOR),
        reading,
        rules,
        runs,
        {s: reference[s] for s in due if s in reference},
        curves=study.curves_of(NOISE_FLOOR, runs, NOISE_FLOOR),
        reference_curves={},
        family=1,
    )


def _confirmation(study: _Study, comparisons: Sequence[Comparison]) -> Comparison | None:
    """Return the winner under seeds that chose nothing, with the whole error; several such arms share it."""
    rules, ledger = study.rules, study.ledger
    confirmed = [c for c in comparisons if ledger.record(c.arm, CONFIRM)]
    if not confirmed:
        return None
    best = max(confirmed, key=lambda c: (c.verdict == "helps", c.effect or 0.0))
    runs, reference_runs = ledger.record(best.arm, CONFIRM), ledger.record(best.reference, CONFIRM)
    seeds = sorted({*runs, *reference_runs})
    look = Look(1, max(len(seeds), rules.confirm_seeds, 1), ALPHA, declared=True)
    sampler = _outside_the_family(runs, reference_runs, rules)
    readings, _ = go_through(
        [Unit(sampler, ())],
        [look],
        lambda look, _: min(len(runs), len(reference_runs)) >= look.pairs,
        rules,
        k=len(confirmed),
        seeds=seeds,
    )
    return _comparison(
        rules.arm(best.arm),
        readings[0],
        rules,
        runs,
        reference_runs,
        curves=study.curves_of(best.arm, runs, CONFIRM),
        reference_curves=study.curves_of(best.reference, reference_runs, CONFIRM),
        family=len(confirmed),
    )


def _outside_the_family(
    runs: Record, reference_runs: Record, rules: Rules, *, same_arm: bool = False
) -> Sampler:
    """Return a sampler of an arm and its reference that belong to no family. same_arm: as in `pair`."""

    def sample(seeds: Sequence[int]) -> Sample:
        found = pair(
            runs,
            reference_runs,
            seeds,
            sign=rules.sign,
            deterministic=rules.deterministic,
            same_arm=same_arm,
        )
        if rules.paired:
            return found
        records = {"arm": runs, "reference": reference_runs}
        under_seeds = {side: {s: record[s] for s in seeds if s in record} for side, record in records.items()}
        return not_paired(found, {"arm": 1.0, "reference": -1.0}, under_seeds, rules)

    return sample


def _price(
    reading: UnitReading, rules: Rules, last: int, undecided: int, seconds_per_pair: float | None
) -> MoreSeeds | None:
    """Return what settling an inconclusive arm would cost: at the most pairs while they lie ahead, after that in two ways.

    In an extra look, at its error; and in a study of the undecided arms alone on fresh seeds, with the whole error of such a
    study. last: index of the last closed look. undecided: how many arms are.
    """
    if reading.verdict != "inconclusive" or reading.effect is None:
        return None
    look = rules.settling_look(last)
    most = look.pairs or None
    alpha = DECLARED_ALPHA if rules.planned else ALPHA
    can_be_fresh = most is None and rules.design in ANEW and not reading.provisional
    if reading.sides is not None:
        arm, other = reading.sides
        groups = (arm.variance, other.variance), (arm.df, other.df), (arm.n, other.n)
        price = more_runs(
            reading.effect,
            *groups,
            alpha=look.alpha,
            k=rules.k,
            margin=rules.margin,
            moderated=reading.moderated,
            seconds_each=seconds_per_pair,
            most=most,
        )
        if price is None or not can_be_fresh:
            return price
        runs = fresh_runs(reading.effect, *groups, alpha=alpha, k=undecided, margin=rules.margin)
        return replace(price, fresh=runs)
    if not reading.variance or reading.df is None:
        return None
    paired = (reading.effect, reading.variance, reading.df, reading.sample.n)
    price = more_seeds(
        *paired,
        alpha=look.alpha,
        k=rules.k,
        margin=rules.margin,
        moderated=reading.moderated,
        seconds_per_pair=seconds_per_pair,
        most=most,
    )
    if not can_be_fresh:
        return price
    return replace(price, fresh=fresh_seeds(*paired, alpha=alpha, k=undecided, margin=rules.margin))


def _new_images(
    reading: UnitReading,
    rules: Rules,
    correct: pd.DataFrame | None,
    reference_correct: pd.DataFrame | None,
    runs: Record,
    reference_runs: Record,
) -> tuple[float, float] | None:
    """Return the interval for images that were never seen: the noise of the drawn validation set comes on top of the seeds'."""
    if correct is None or reference_correct is None or reading.half is None or reading.effect is None:
        return None
    if not correct.columns.equals(reference_correct.columns) or correct.shape[1] < 2:
        return None
    if rules.paired:
        pairs = [s for s in reading.sample.seeds if s in correct.index and s in reference_correct.index]
        seeds, other_seeds = pairs, pairs
    else:
        seeds = [s for s, run in runs.items() if run.finished and s in correct.index]
        other_seeds = [
            s for s, run in reference_runs.items() if run.finished and s in reference_correct.index
        ]
    if not seeds or not other_seeds:
        return None
    changes = per_image(under(correct, seeds)) / len(seeds)
    changes -= per_image(under(reference_correct, other_seeds)) / len(other_seeds)
    se = math.sqrt(float(np.var(changes, ddof=1)) / changes.size)
    half = new_images_half(reading.half, se, reading.look.alpha, rules.k)
    return reading.effect - half, reading.effect + half


def new_images_half(half: float, se_img: float, alpha: float, k: int) -> float:
    """Return √(h² + (z·se_img)²), the half-width for new images. half: of the seeds' interval, se_img: standard error over images."""
    return math.hypot(half, float(special.ndtri(1.0 - alpha / (2.0 * k))) * se_img)


def _summarise(arm: str, record: Record, *, missing: int) -> ArmSummary:
    """missing: how many of the seeds that were due have no record."""
    finished = [run for run in map(record.__getitem__, sorted(record)) if run.outcome == "finished"]
    values = np.array([r.value for r in finished])
    tests = [r.test for r in finished if math.isfinite(r.test)]
    outcomes = Counter(run.outcome for run in record.values())
    return ArmSummary(
        arm=arm,
        n=len(finished),
        mean=float(values.mean()) if finished else None,
        sd=float(values.std(ddof=1)) if len(finished) > 1 else None,
        low=float(values.min()) if finished else None,
        high=float(values.max()) if finished else None,
        test=float(np.mean(tests)) if tests else None,
        seconds=typical_seconds(finished),
        flops=mean_of(finished, "flops"),
        parameters=mean_of(finished, "parameters"),
        epochs=mean_of(finished, "epochs"),
        failed=outcomes["failed"],
        diverged=outcomes["diverged"],
        missing=missing,
    )


def _typical(readings: Iterable[UnitReading], rules: Rules) -> float | None:
    """Typical std of a paired difference: the root of the median over arms of the median-corrected variance.

    Where runs are not paired, of the difference of two runs: the root of the mean, as for the noise that arms borrow.
    """
    variances = [r.corrected for r in readings if math.isfinite(r.corrected)]
    if not variances:
        return None
    return math.sqrt(float(np.median(variances) if rules.paired else np.mean(variances)))


def selection_bias(comparisons: Sequence[Comparison]) -> float | None:
    """Return how much better than it is the best of k equal arms looks, in the metric's units.

    What seeds do to all arms alike makes none of them the best, so that where runs are paired the noise of each is what is left.
    """
    paired = [dict(c.differences) for c in comparisons if c.differences]
    errors = _own_errors(paired) if len({c.reference for c in comparisons}) == 1 else None
    if errors is None:
        errors = [c.summary.sd / math.sqrt(c.summary.n) for c in comparisons if c.summary.sd is not None]
    return best_of(len(comparisons)) * float(np.median(errors)) if len(comparisons) > 1 and errors else None


def _own_errors(arms: Sequence[Mapping[int, float]]) -> list[float] | None:
    """Return the standard error of each arm's mean without what the arms share; None where two of them share fewer than two seeds.

    arms: seed → difference. The residuals of a table of arms and seeds.
    """
    seeds = sorted(set.intersection(*map(set, arms))) if len(arms) > 1 else []
    if len(seeds) < 2:
        return None
    table = np.array([[arm[seed] for seed in seeds] for arm in arms])
    left = table - table.mean(axis=0)
    squares = np.square(left - left.mean(axis=1, keepdims=True)).sum(axis=1)
    variances = squares / ((len(seeds) - 1) * (1.0 - 1.0 / len(arms)))
    return [math.sqrt(variance / len(arm)) for variance, arm in zip(variances, arms, strict=True)]


def _runs(units: Sequence[Unit], readings: Sequence[UnitReading], study: _Study, *, forced: bool) -> Runs:
    """Return every replicate that is recorded, and those that the next step of the plan still asks for."""
    rules = study.rules
    due: dict[str, int] = {}
    goes_on = study.after.pairs > 0 and not forced
    for unit, reading in zip(units, readings, strict=True):
        pairs = study.after.pairs if is_open(reading) and goes_on and study.last else reading.look.pairs
        for arm in unit.arms:
            due[arm] = max(due.get(arm, 0), pairs)
    missing, records = 0, []
    for arm in dict.fromkeys([rules.reference, *due]):
        record = study.ledger.record(arm)
        pairs = due.get(arm, 0)
        missing += pairs - len(record.keys() & study.seeds[:pairs])
        records.append(record)
    for phase in (NOISE_FLOOR, CONFIRM):
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
    comparisons: tuple[Comparison, ...], baseline: ArmSummary, rules: Rules
) -> tuple[tuple[Comparison, ...], ArmSummary]:
    """Add the diagnosis of a best level that is the last one tried, for factors with numeric levels."""
    marked = list(comparisons)
    for factor in dict.fromkeys(c.factor for c in comparisons if c.factor is not None):
        tried = [
            c for c in comparisons if c.factor == factor and c.reference == baseline.arm and _numeric(c.level)
        ]
        levels = {c.arm: float(c.level) for c in tried}
        # Paired effects, not means: arms that went through different looks have seen different seeds.
        effects = {c.arm: c.effect for c in tried if c.effect is not None and c.verdict in VERDICTS.values()}
        if _numeric(rules.baseline_levels.get(factor)):
            levels[baseline.arm] = float(rules.baseline_levels[factor])
            effects[baseline.arm] = 0.0
        errors = {c.arm: _error(c.noise, c.n) for c in tried}
        edge = at_the_edge(levels, effects, factor, errors)
        if edge is None:
            continue
        if edge[0] == baseline.arm:
            baseline = replace(baseline, fit=(*baseline.fit, edge[1]))
        marked = [replace(c, fit=(*c.fit, edge[1])) if c.arm == edge[0] else c for c in marked]
    return tuple(marked), baseline


def _error(noise: float | None, n: int) -> float:
    """Standard error of a mean of n; 0 where its noise is not known."""
    return noise / math.sqrt(n) if noise is not None and n else 0.0


def _numeric(level: Any) -> bool:
    return isinstance(level, int | float) and not isinstance(level, bool) and math.isfinite(level)


def _total(*parts: float | None) -> float | None:
    given = [part for part in parts if part is not None]
    return sum(given) if len(given) == len(parts) else None
