"""The report of results that were there already: the same page as of a study that was run, without what nobody recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import pandas as pd

from ablate.analysis import words
from ablate.analysis.contents import Analysis, Comparison
from ablate.report import findings, methods, wording
from ablate.report.contents import (
    BlockRow,
    Level,
    Notice,
    Pairs,
    Response,
    Row,
    RunRow,
    Section,
    Summary,
)
from ablate.report.reading import Material, Reading, trouble
from ablate.report.runs import troubles
from ablate.report.sections import arm_pairs, arm_values
from ablate.study.record import JudgedRecord
from ablate.text import counted, joined

MOST_RUNS = 20_000
"""Runs up to which the page lists every one."""

MOST_COLUMNS = 200
"""Seeds, or blocks, of which differences are listed."""

MOST_DOTS = 200
"""Runs of an arm that are drawn; of more, as many at even steps in the order of their size."""


def summarise(material: Material) -> Summary:
    """Return everything that the page says of results that were there already."""
    whole = material.replicates
    reading = Reading(material)
    judged = _judged(reading)
    rows = findings.rows(reading)
    if material.blocked is not None and reading.rules.relative:
        # The blocks have scales of their own, and a mean over them says nothing.
        rows = tuple(replace(row, mean=None, sd=None) for row in rows)
    listed = _runs(reading, whole) if len(whole) <= MOST_RUNS else ()
    return Summary(
        study=reading.record.study,
        question=reading.record.question.strip() or _title(reading),
        answer=findings.answer(reading),
        notices=tuple(_notices(reading)),
        facts=tuple(_facts(reading, judged, whole)),
        metric=reading.rules.metric,
        unit=reading.unit,
        value_unit=reading.value_unit,
        digits=reading.digits,
        value_digits=reading.value_digits,
        axis=findings.axis(reading, rows),
        groups=findings.groups(reading),
        rows=rows,
        cells=(),
        components=(),
        sections=tuple(_sections(reading, rows)),
        costs=(),
        cost_basis="compute",
        interactions=None,
        crossings=(),
        confusion=None,
        images=None,
        runs=listed,
        trouble=troubles(listed),
        counts=_counts(reading),
        methods=methods.of_judged(reading, judged),
        looks=methods.looks(reading) if len(judged.sizes) > 1 or reading.rules.planned else (),
        environment=tuple(
            (name, wording.fact(name, value))
            for name, value in material.environment.items()
            if value and name not in {"command", "ending"}  # it is above, and it has ended
        ),
        reproduce=tuple(command for command in (judged.command,) if command),
        text="",
        kind="Results judged",
        unit_of_n=reading.rules.unit,
        direction=reading.rules.direction or "maximize",
        for_paper=methods.for_paper(reading),
        looks_count="Seeds" if reading.rules.planned else "Runs",
    )


def _judged(reading: Reading) -> JudgedRecord:
    assert reading.record.judged is not None
    return reading.record.judged


def _title(reading: Reading) -> str:
    return f"{reading.rules.metric} against {reading.the(reading.rules.reference)}"


# --- the top ----------------------------------------------------------------------------------------------------------


def _notices(reading: Reading) -> Iterable[Notice]:
    error = reading.analysis.error
    text = "" if error is None else words.caution(error, reading.rules)
    if text:
        yield Notice("error", f"{words.capitalized(text)}.")
    for note in reading.material.notes:
        if note != text:
            yield Notice("warning", note if note.endswith((".", "!", "?")) else f"{note}.")


def _facts(reading: Reading, judged: JudgedRecord, runs: pd.DataFrame) -> Iterable[tuple[str, str]]:
    rules, analysis = reading.rules, reading.analysis
    numbers = [c.n for c in analysis.comparisons]
    low, high = min(numbers), max(numbers)
    each = counted(high, rules.unit) if low == high else f"{low} to {counted(high, rules.unit)}"
    how = {
        "seed": f"paired by {judged.options.get('seed')}, {each} each",
        "run": f"not paired, {each} each",
        "block": f"over {counted(analysis.pairs, 'block')} ({judged.options.get('block')}), "
        f"{'paired by seed' if judged.options.get('paired') else 'not paired'} within each",
    }[rules.unit]
    yield "Compared", f"{counted(len(rules.arms), 'arm')} with {reading.the(rules.reference)}: {how}"
    base = analysis.baseline
    if base.mean is not None and rules.unit != "block":
        digits = reading.value_digits
        spread = f" ± {wording.plain(reading.shown_value(base.sd), digits)}" if base.sd is not None else ""
        mean = f"{wording.plain(reading.shown_value(base.mean), digits)}{spread} {reading.value_unit}".strip()
        yield "Baseline", f"{reading.label(rules.reference)}: {mean}, {counted(base.n, 'run')}"
    size = judged.sizes[-1]
    yield "Results", f"{counted(size, 'run') if len(runs) else counted(size, 'row')} of {judged.source}"
    orientation = "higher is better" if rules.direction == "maximize" else "lower is better"
    yield (
        "Judged by",
        f"{rules.metric}, {orientation}; a difference counts from {reading.margin_words}",
    )
    if rules.planned:
        declared = joined(str(pairs) for pairs in judged.options["looks"])
        yield "Planned", f"{'one look' if len(judged.options['looks']) == 1 else 'looks'} at {declared} seeds"
    else:
        family = f"; {rules.k} were tried" if rules.k > len(rules.arms) else ""
        yield "Planned", f"arms, margin and number of runs by nobody{family}"
    if len(judged.sizes) > 1:
        yield "Looks", f"{len(judged.sizes)}, the last at {counted(judged.sizes[-1], 'run')}"


def _counts(reading: Reading) -> tuple[tuple[str, int], ...]:
    runs = reading.analysis.runs
    return tuple((name, getattr(runs, name)) for name in ("finished", "diverged", "failed", "missing"))


# --- the evidence -----------------------------------------------------------------------------------------------------


def _sections(reading: Reading, rows: Sequence[Row]) -> Iterable[Section]:
    arms = [arm.name for arm in reading.rules.arms]
    reference = reading.rules.reference
    blocked = reading.material.blocked
    nothing = Pairs((), "", (), ())
    if blocked is not None:
        yield Section(
            "factor-0",
            "Over blocks",
            "",
            "Each block counts once, with the difference of its means.",
            (),
            _responses(reading, arms, None),
            (),
            _first_columns(_block_pairs(reading, rows, [block for block, _ in blocked.within])),
        )
        number = counted(blocked.over.pairs, "block")
        yield Section(
            "factor-1",
            "Within blocks",
            "",
            f"Each arm against the baseline of its block. The {number} have a family of their own: arms × blocks.",
            (),
            None,
            (),
            nothing,
            blocks=tuple(_block_rows(reading, blocked.within)),
        )
        return
    paired = reading.rules.unit == "seed"
    yield Section(
        "factor-0",
        "Run by run",
        "",
        "",
        (),
        _responses(reading, [reference, *arms], reference),
        (),
        _first_columns(arm_pairs(reading, rows, arms, reference)) if paired else nothing,
        values=() if paired else tuple(arm_values(reading, rows)),
    )


def _responses(reading: Reading, arms: Sequence[str], reference: str | None) -> Response | None:
    """Every run as a dot. reference: None where the dots are differences already."""
    analysis = reading.analysis
    comparisons = {c.arm: c for c in analysis.comparisons}
    levels = []
    for arm in arms:
        comparison = comparisons.get(arm)
        raw = analysis.baseline if comparison is None else comparison.summary
        mean = raw.mean if reference is not None else comparison.effect if comparison else None
        dots = _thinned(reading.values(arm) if reference is not None else _differences(reading, comparison))
        if mean is None and not dots:
            continue
        levels.append(
            Level(
                reading.label(arm),
                None,
                arm,
                reading.label(arm),
                reading.shown(mean) if reference is None else reading.shown_value(mean),
                dots,
                None if comparison is None else comparison.verdict,
                trouble(raw.failed, raw.diverged, raw.missing),
            )
        )
    if not any(level.dots for level in levels):
        return None
    if reference is None:
        return Response(
            "",
            f"Effect on {reading.rules.metric}",
            reading.unit,
            reading.digits,
            "named",
            tuple(levels),
            (-reading.margin, reading.margin),
            dots_are="block",
        )
    mean = reading.shown_value(analysis.baseline.mean)
    margin = reading.margin * reading.value_factor / reading.difference_factor
    return Response(
        "",
        reading.rules.metric,
        reading.value_unit,
        reading.value_digits,
        "named",
        tuple(levels),
        None if mean is None else (mean - margin, mean + margin),
        dots_are=reading.rules.unit,
    )


def _differences(reading: Reading, comparison: Comparison | None) -> tuple[tuple[int, float], ...]:
    differences = () if comparison is None else comparison.differences
    return tuple((number, difference * reading.factor) for number, difference in differences)


def _thinned(dots: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    if len(dots) <= MOST_DOTS:
        return dots
    ordered = sorted(dots, key=lambda dot: dot[1])
    return tuple(ordered[round(i * (len(ordered) - 1) / (MOST_DOTS - 1))] for i in range(MOST_DOTS))


def _first_columns(pairs: Pairs) -> Pairs:
    """The same with no more columns than a page can hold."""
    if len(pairs.heads) <= MOST_COLUMNS:
        return pairs
    return replace(
        pairs,
        heads=pairs.heads[:MOST_COLUMNS],
        values=pairs.values[:MOST_COLUMNS],
        rows=tuple((row, cells[:MOST_COLUMNS]) for row, cells in pairs.rows),
        caption=f"{pairs.caption}, for the first {MOST_COLUMNS} of {len(pairs.heads):,}",
    )


def _block_pairs(reading: Reading, rows: Sequence[Row], blocks: Sequence[str]) -> Pairs:
    differences = {c.arm: dict(c.differences) for c in reading.analysis.comparisons}
    return Pairs(
        tuple(blocks),
        "",
        (),
        tuple(
            (
                row,
                tuple(
                    own[b] * reading.factor if b in (own := differences[row.arm]) else "missing"
                    for b in range(len(blocks))
                ),
            )
            for row in rows
            if row.kind == "arm"
        ),
        "Differences block by block",
        "The mean of each arm minus that of the baseline in the same block",
    )


def _block_rows(reading: Reading, within: Iterable[tuple[str, Analysis]]) -> Iterable[BlockRow]:
    digits = _digits_in(reading)
    for block, analysis in within:
        for c in analysis.comparisons:
            yield BlockRow(
                block,
                reading.label(c.arm),
                _said(c),
                reading.interval(c),
                c.p_adjusted,
                c.n,
                reading.shown_value(c.summary.mean),
                reading.shown_value(c.summary.sd),
                digits.get(block, reading.value_digits),
            )


def _digits_in(reading: Reading) -> dict[str, int]:
    """The decimals of the metric in each block, where each has a scale of its own; empty where they share one."""
    if reading.material.blocked is None or not reading.rules.relative:
        return {}
    return {
        block: wording.decimals(reading.rules.margin * abs(analysis.baseline.mean or 1.0))
        for block, analysis in reading.material.blocked.within
    }


def _said(c: Comparison) -> str:
    return f"clearly {c.verdict}" if c.clearly else c.verdict


def _runs(reading: Reading, frame: pd.DataFrame) -> tuple[RunRow, ...]:
    """Every run, by arm; within blocks by block first."""
    place = {arm: i for i, arm in enumerate(reading.arms)}
    blocks = frame["block"].astype(str) if "block" in frame else [""] * len(frame)
    columns = (frame[name].to_numpy(dtype=object) for name in ("arm", "seed", "outcome", "value"))
    digits = _digits_in(reading)
    rows = []
    for block, arm, seed, outcome, value in zip(blocks, *columns, strict=True):
        number = float(cast("Any", value))
        finished = outcome == "finished" and math.isfinite(number)
        rows.append(
            RunRow(
                str(arm),
                reading.label(str(arm)),
                int(seed),
                "report",
                str(outcome),
                reading.shown_value(number) if finished else None,
                None,
                None,
                None,
                "",
                "",
                "",
                "",
                str(block),
                digits.get(str(block)),
            )
        )
    order = {block: i for i, block in enumerate(dict.fromkeys(blocks))}
    return tuple(sorted(rows, key=lambda r: (order[r.block], place.get(r.arm, len(place)), r.seed)))
