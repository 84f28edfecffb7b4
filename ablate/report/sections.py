"""A section per factor: the metric over its levels, curves over training, and the pairs behind each verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate.analysis.contents import Verdict
from ablate.analysis.grids import grids
from ablate.analysis.rules import scale as scale_of
from ablate.analysis.words import effect_code
from ablate.metrics import splits_of
from ablate.report import scales, wording
from ablate.report.contents import (
    ArmCurves,
    ClassShift,
    Confusion,
    Curves,
    Level,
    Line,
    Pairs,
    Response,
    Row,
    Section,
    Values,
)
from ablate.report.reading import REPORT, Reading, trouble

MOST_VALUES = 40
"""Runs of an arm that are written out side by side."""

MOST_EPOCHS = 240
"""Points a curve is thinned to: more than a screen shows."""


def sections(reading: Reading, rows: Sequence[Row]) -> Iterable[Section]:
    """Return a section for every factor of several levels, and one for all with a single level. rows: the table of arms."""
    bands = _bands(reading)
    by_factor: dict[str | None, list[str]] = {}
    for name, arm in reading.arms.items():
        if name != reading.rules.reference and name not in {s.arm for s in reading.others}:
            by_factor.setdefault(arm.factor, []).append(name)
    if reading.rules.factorial:
        arms = [arm for arms in by_factor.values() for arm in arms]
        yield _section(
            reading, rows, 0, "All combinations", "", arms, bands, "Every combination that was run."
        )
        return
    if reading.rules.design in {"both", "path"}:
        yield from _by_reference(reading, rows, bands)
        return
    single = [arm for factor, arms in by_factor.items() if len(arms) == 1 or factor is None for arm in arms]
    index = 0
    for factor, arms in by_factor.items():
        if factor is not None and len(arms) > 1:
            intro = _levels_intro(reading, factor)
            yield _section(reading, rows, index, wording.title(factor), factor, arms, bands, intro)
            index += 1
    if single:
        title = "Components" if reading.rules.design == "leave-one-out" else "Single changes"
        intro = (
            "Each arm is everything but one component."
            if reading.rules.design == "leave-one-out"
            else "Each arm changes one setting of the baseline."
        )
        if len(single) == 1:
            title, intro = reading.label(single[0]), ""
        yield _section(reading, rows, index, title, "", single, bands, intro)


def _by_reference(
    reading: Reading, rows: Sequence[Row], bands: dict[tuple[str, str], Line]
) -> Iterable[Section]:
    """Return a section for all arms that are compared with the same reference."""
    by_reference: dict[str, list[str]] = {}
    for item in reading.analysis.comparisons:
        by_reference.setdefault(item.reference, []).append(item.arm)
    for index, (reference, arms) in enumerate(by_reference.items()):
        if reading.rules.design == "both":
            alone = reference == reading.rules.reference
            title = "Each alone" if alone else "Everything but one"
            intro = f"Compared with {reading.the(reference)}."
        else:
            taken = [arm for arm in arms if arm in reading.rules.path]
            title = f"Step {index + 1}"
            intro = f"Taken: {reading.label(taken[0])}." if taken else ""
        yield _section(reading, rows, index, title, "", arms, bands, intro)


def _levels_intro(reading: Reading, factor: str) -> str:
    base = reading.levels(reading.rules.reference).get(factor)
    return f"The baseline is at {wording.level(base)}." if base is not None else ""


def _section(
    reading: Reading,
    rows: Sequence[Row],
    index: int,
    title: str,
    code: str,
    arms: list[str],
    bands: dict[tuple[str, str], Line],
    intro: str,
) -> Section:
    comparisons = {c.arm: c for c in reading.analysis.comparisons}
    reference = next((comparisons[a].reference for a in arms if a in comparisons), reading.rules.reference)
    response = _response(reading, title, code, arms, reference)
    if response is not None and response.scale != "named":
        arms = [level.arm for level in response.levels if level.arm != reference]
    pairs = Pairs((), "", (), ())
    values: tuple[Values, ...] = ()
    if reading.rules.factorial:
        pairs = _effect_pairs(reading, rows)
    elif reading.rules.paired:
        pairs = arm_pairs(reading, rows, arms, reference)
    else:
        shown = {row.arm: row for row in rows if row.kind in ("baseline", "arm")}
        values = tuple(arm_values(reading, (shown[arm] for arm in (reference, *arms) if arm in shown)))
    return Section(
        f"factor-{index}",
        title,
        code,
        intro,
        tuple(_remarks(reading, [reference, *arms])),
        response,
        tuple(_curves(reading, arms, reference, bands, code)),
        pairs,
        values,
    )


def _remarks(reading: Reading, arms: Iterable[str]) -> Iterable[tuple[str, str]]:
    for arm in arms:
        if fits := reading.fits.get(arm):
            yield (
                reading.label(arm),
                "; ".join(f"{d.words} ({d.detail})" if d.detail else d.words for d in fits),
            )


def _response(reading: Reading, title: str, factor: str, arms: list[str], reference: str) -> Response | None:
    comparisons = {c.arm: c for c in reading.analysis.comparisons}
    summaries = {s.arm: s for s in (reading.analysis.baseline, *reading.others, *reading.analysis.cells)}
    places = {arm: reading.levels(arm).get(factor) for arm in (reference, *arms)}
    scale = scales.spacing(places.values()) if factor else "named"
    levels = []
    for arm, place in places.items():
        raw = summaries[arm] if arm in summaries else comparisons[arm].summary if arm in comparisons else None
        dots = reading.values(arm)
        if raw is None and not dots:
            continue
        levels.append(
            Level(
                wording.level(place) if factor else reading.label(arm),
                float(place or 0) if scale != "named" else None,
                arm,
                reading.label(arm),
                reading.shown(raw.mean) if raw else None,
                dots,
                comparisons[arm].verdict if arm in comparisons else None if arm == reference else "",
                trouble(raw.failed, raw.diverged, 0) if raw else "",
            )
        )
    if not any(level.dots for level in levels):
        return None
    if scale != "named":
        levels.sort(key=lambda level: level.x or 0.0)
    mean = reading.shown(summaries[reference].mean) if reference in summaries else None
    band = None if mean is None else (mean - reading.margin, mean + reading.margin)
    axis = factor or ("" if reading.rules.factorial else title)
    return Response(
        axis, reading.rules.metric, reading.value_unit, reading.digits, scale, tuple(levels), band
    )


def _factor_of(metric: str, mean: float) -> float:
    """100 for what is shown in percent, else 1. The primary metric's margin has no say in another's unit."""
    return scale_of(metric, 0.0, mean).factor


def _bands(reading: Reading) -> dict[tuple[str, str], Line]:
    """(arm, metric) → its curve, over the finished runs; over all where none finished."""
    finished = {
        arm: [seed for seed, (outcome, _) in by_seed.items() if outcome == "finished"]
        for arm, by_seed in reading.outcomes.items()
    }
    bands: dict[tuple[str, str], tuple[npt.NDArray[Any], ...]] = {}
    for (arm, phase), metrics in grids(reading.material.curves).items():
        for metric, grid in metrics.items() if phase == REPORT else ():
            kept = grid.under(finished.get(arm) or grid.seeds.tolist())
            if kept is None:
                continue
            values = np.where(np.isfinite(kept.values), kept.values, np.nan)
            counts = np.isfinite(values).sum(axis=0)
            epochs = np.flatnonzero(counts)
            if len(epochs):
                present = values[:, epochs]
                # Where no value is absent the plain ones give the same, without a copy of the values for each.
                is_whole = bool((counts[epochs] == len(values)).all())
                over_seeds = (np.mean, np.min, np.max) if is_whole else (np.nanmean, np.nanmin, np.nanmax)
                mean, low, high = (of(present, axis=0) for of in over_seeds)
                bands[arm, metric] = (epochs + 1, mean, low, high, counts[epochs])
    means: dict[str, list[npt.NDArray[np.float64]]] = {}
    for (_, metric), (_, mean, *_) in bands.items():
        means.setdefault(metric, []).append(mean)
    units = {m: _factor_of(m, float(np.concatenate(curves).mean())) for m, curves in means.items()}
    named = splits_of(means)
    lines = {}
    for (arm, metric), parts in bands.items():
        last = len(parts[0]) - 1
        thin = [*range(0, last, max(1, math.ceil((last + 1) / MOST_EPOCHS))), last]
        epochs, mean, low, high, runs = (part[thin].tolist() for part in parts)
        unit = units[metric]
        lines[arm, metric] = Line(
            named[metric][0],
            tuple(epochs),
            tuple(v * unit for v in mean),
            tuple(v * unit for v in low),
            tuple(v * unit for v in high),
            max(runs),
            percent=unit != 1.0,
        )
    return lines


def _curves(
    reading: Reading,
    arms: list[str],
    reference: str,
    bands: dict[tuple[str, str], Line],
    factor: str,
) -> Iterable[Curves]:
    verdicts = {c.arm: c.verdict for c in reading.analysis.comparisons} | _verdicts_of_cells(reading)
    named = splits_of(metric for _, metric in bands)
    quantities: dict[str, list[str]] = {}
    for arm, metric in bands:
        if arm == reference or arm in arms:
            metrics_of = quantities.setdefault(named[metric][1], [])
            if metric not in metrics_of:
                metrics_of.append(metric)
    if "schedule" not in factor:
        quantities.pop("lr", None)
    order = {"loss": 0, "accuracy": 1, "lr": 3}
    for quantity in sorted(quantities, key=lambda q: (order.get(q, 2), q)):
        metrics = sorted(quantities[quantity], key=lambda m: named[m][0] == "validation")

        def drawn(arm: str, metrics: list[str] = metrics, quantity: str = quantity) -> ArmCurves:
            start = next((d.epoch for d in reading.fits.get(arm, ()) if d.code == "over-fits"), None)
            return ArmCurves(
                arm,
                reading.label(arm),
                None if arm == reference else verdicts.get(arm, ""),
                tuple(bands[arm, m] for m in metrics if (arm, m) in bands),
                start if quantity == "loss" else None,
            )

        drawn_arms = tuple(d for d in map(drawn, arms) if d.lines)
        base = drawn(reference)
        everything = [line for d in (base, *drawn_arms) for line in d.lines]
        if not drawn_arms or not everything:
            continue
        unit = "%" if everything[0].percent else ""
        low, high, log, cut = scales.extent(everything)
        yield Curves(quantity, unit, base if base.lines else None, drawn_arms, low, high, log=log, cut=cut)


def _verdicts_of_cells(reading: Reading) -> dict[str, Verdict]:
    """Return the verdict of the main effect of each cell that changes a single factor; other cells have none to show."""
    main = {effect_code(e.terms): e.verdict for e in reading.analysis.effects if len(e.terms) == 1}
    return {cell.arm: main[cell.arm] for cell in reading.analysis.cells if cell.arm in main}


def arm_pairs(reading: Reading, rows: Sequence[Row], arms: list[str], reference: str) -> Pairs:
    """Return every arm minus the reference, seed by seed."""
    row_of = {row.arm: row for row in rows if row.kind == "arm"}
    nothing = ("", math.nan)
    base = reading.outcomes.get(reference, {})
    seeds = tuple(sorted({seed for arm in (reference, *arms) for seed in reading.outcomes.get(arm, ())}))

    def value(seed: int) -> float | str:
        outcome, number = base.get(seed, nothing)
        return number * reading.value_factor if outcome == "finished" else outcome

    def difference(arm: str, seed: int) -> float | str:
        outcome, number = reading.outcomes.get(arm, {}).get(seed, nothing)
        other, held_against = base.get(seed, nothing)
        if outcome == other == "finished":
            return reading.rules.sign * (number - held_against) * reading.difference_factor
        return outcome if outcome != "finished" else "unpaired"

    return Pairs(
        tuple(f"seed {seed}" for seed in seeds),
        reading.label(reference),
        tuple(value(seed) for seed in seeds),
        tuple((row_of[arm], tuple(difference(arm, seed) for seed in seeds)) for arm in arms if arm in row_of),
    )


def arm_values(reading: Reading, rows: Iterable[Row]) -> Iterable[Values]:
    """Return the runs of each arm of the rows: the evidence where no two of them are paired."""
    analysis = reading.analysis
    summaries = {s.arm: s for s in (analysis.baseline, *analysis.references, *analysis.cells)}
    summaries |= {c.arm: c.summary for c in analysis.comparisons}
    for row in rows:
        raw = summaries[row.arm]
        values = sorted(value for _, value in reading.values(row.arm))
        yield Values(
            row, tuple(values[:MOST_VALUES]), reading.shown_value(raw.low), reading.shown_value(raw.high)
        )


def _effect_pairs(reading: Reading, rows: Sequence[Row]) -> Pairs:
    """Return every effect of a factorial design, seed by seed; where runs are not paired, no more than its estimate."""
    differences = [dict(effect.differences) for effect in reading.analysis.effects]
    seeds = tuple(sorted({seed for by_seed in differences for seed in by_seed}))
    effects = [row for row in rows if row.kind == "effect"]
    return Pairs(
        tuple(f"seed {seed}" for seed in seeds),
        "",
        (),
        tuple(
            (row, tuple(by_seed[seed] * reading.factor if seed in by_seed else "" for seed in seeds))
            for row, by_seed in zip(effects, differences, strict=True)
        ),
        **(
            {
                "title": "Effects seed by seed",
                "caption": "Each effect over all combinations under the same seed",
            }
            if reading.rules.paired
            else {"title": "Effects", "caption": "Each a weighted sum of the means of all arms"}
        ),
    )


def confusion(reading: Reading) -> Confusion | None:
    """Return the reference's confusion matrix and what the arms change of it; None where it is not known."""
    counted = reading.material.confusion
    reference = reading.rules.reference
    if reference not in counted:
        return None
    base = _row_shares(counted[reference])

    def named(arm: str) -> tuple[str, ...]:
        return tuple(map(str, reading.arms[arm].data.classes))

    recorded = named(reference)
    classes = recorded if len(recorded) == len(base) else tuple(map(str, range(len(base))))
    # As many classes need not be the same ones: data sets may be compared as well.
    arms = tuple(
        ClassShift(arm, reading.label(arm), _table(_row_shares(counted[arm]) - base))
        for arm in reading.arms
        if arm != reference and arm in counted and counted[arm].shape == base.shape and named(arm) == recorded
    )
    return Confusion(classes, reading.the(reference), _table(base), arms)


def _row_shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    counts = np.asarray(counts, dtype=float)
    total = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    return 100.0 * shares


def _table(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in values)
