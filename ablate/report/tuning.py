"""What was tuned or searched, laid out: what was found, how the metric responds, fixed beside tuned effects."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.analysis.tuning import ADDS, ENOUGH_RETUNES, FixedAndTuned, Searched, Tuning, tuning
from ablate.report import wording
from ablate.report.contents import Front, Tried, TuningPart, Weighed
from ablate.report.reading import Reading
from ablate.text import joined


def part(reading: Reading) -> TuningPart | None:
    """None where nothing was tuned or searched."""
    found = tuning(reading.record, reading.analysis, reading.replicates)
    if found is None:
        return None
    nuisance = bool(reading.record.nuisance)
    return TuningPart(
        "Tuning" if nuisance else "Search",
        tuple(_paragraphs(reading, found, nuisance)),
        _table(reading, found, nuisance),
        _beside(reading, found.beside),
        tuple(_curves(reading, found)),
        _importances(found),
        _pareto(reading, found),
        _front_table(reading, found),
    )


COSTS = {"flops": "FLOPs of a run", "parameters": "parameters", "seconds": "device time of a run, s"}


def _pareto(reading: Reading, found: Tuning) -> Front | None:
    """Every trial by what it cost and gave; None where the search had one objective, or nothing finished."""
    if not (cost := found.how.cost):
        return None
    points = [
        Weighed(t.cost, t.value * reading.factor, _setting_words(t.values), t.front)
        for one in found.searches
        for t in one.trials
        if not t.again and t.value is not None and t.cost is not None
    ]
    points += [
        Weighed(c.cost, c.mean * reading.factor, _setting_words(c.values), candidate=number)
        for one in found.searches
        for number, c in enumerate(one.candidates, 1)
        if c.mean is not None and c.cost is not None
    ]
    if not points:
        return None
    return Front(
        COSTS[cost],
        reading.rules.metric,
        reading.value_unit,
        reading.digits,
        reading.rules.sign < 0,
        tuple(points),
    )


def _front_table(reading: Reading, found: Tuning) -> tuple[tuple[str, ...], ...]:
    """The trials of the front from the cheapest on, the first row the headings."""
    mine = [t for one in found.searches for t in one.trials if t.front]
    metric = f"{reading.rules.metric}{f', {reading.value_unit}' if reading.value_unit else ''}"
    rows = [
        (
            wording.compact(t.cost or 0.0),
            _shown(reading, t.value),
            *(wording.tried(t.values[path]) for path in found.ranges),
        )
        for t in sorted(mine, key=lambda t: t.cost or 0.0)
    ]
    # Equal settings of equal cost and value are one line.
    return ((COSTS[found.how.cost or ""], metric, *found.ranges), *dict.fromkeys(rows)) if rows else ()


def _setting_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {wording.tried(value)}" for path, value in values.items())


def _paragraphs(reading: Reading, found: Tuning, nuisance: bool) -> Iterable[str]:
    where = "; ".join(f"{path}: {_range(said)}" for path, said in found.ranges.items())
    how = f"{found.how.sampler} sampler"
    if found.how.pruner != "none":
        how += f", {found.how.pruner} pruner"
    each = " for every arm" if nuisance else ""
    yield (
        f"{where}. {found.how.trials} trials{each} ({how}), on validation data and seeds of their own. "
        "The best were looked at again on fresh seeds before one was chosen."
    )
    if not found.complete:
        yield "The search is not over yet."
        return
    if nuisance:
        low, high = (f"{100 * share:.0f}" for share in ADDS)
        yield (
            "Verdicts hold at the values found; tuning was run once. A search is noisy too: run again it would add "
            f"{low} to {high} % to the variance of a difference, which the intervals do not cover. Without that reserve a verdict "
            f"needs {ENOUGH_RETUNES} independent searches."
        )
    for one in found.searches:
        if not one.found:
            yield f"{reading.label(one.arm)}: no trial finished, so the values of the study file stand."
        for path, end in one.edge.items():
            yield (
                f"{reading.label(one.arm) if nuisance else 'Search'}: the best {path} ({wording.tried(one.values[path])}) lies at the {end} end of its range; "
                "better values may lie beyond."
            )
    if coarse := [reading.label(one.arm) for one in found.searches if one.coarse]:
        yield (
            f"{joined(coarse)}: the trials next to the best differ from it by more than seeds do, so a finer search may "
            "find better."
        )
    if found.how.cost:
        yield (
            "Two things were weighed against each other, so there is no best trial but a front: those that no other beats in both. The "
            f"candidates are those of it with the best {reading.rules.metric}. A trial ran once, so it may be on the front by luck."
        )
    if not nuisance:
        yield (
            "Candidates were chosen because they looked best, so they are not as good as they look: "
            f"`ablate init --from {reading.record.study}` writes the study that holds them against the baseline on fresh seeds."
        )


def _table(reading: Reading, found: Tuning, nuisance: bool) -> tuple[tuple[str, ...], ...]:
    """What was found, the first row the headings."""
    metric = f"{reading.rules.metric}{f', {reading.value_unit}' if reading.value_unit else ''}"
    rows: list[tuple[str, ...]] = []
    if nuisance:
        rows.append(("Arm", *found.ranges, metric, "Trials"))
        for one in found.searches:
            values = tuple(wording.tried(one.values[path]) for path in found.ranges)
            best = next((c.mean for c in one.candidates if c.mean is not None), None)
            rows.append((reading.label(one.arm), *values, _shown(reading, best), _outcomes(one)))
        return tuple(rows)
    cost = found.how.cost
    rows.append(("Candidate", *found.ranges, metric, *([cost] if cost else []), "Seeds"))
    for one in found.searches:
        for number, c in enumerate(one.candidates, 1):
            values = tuple(wording.tried(c.values[path]) for path in found.ranges)
            mean = _shown(reading, c.mean) if c.mean is not None else "diverged"
            costs = [wording.compact(c.cost) if c.cost is not None else ""] if cost else []
            rows.append((str(number), *values, mean, *costs, str(c.runs)))
    return tuple(rows)


def _beside(reading: Reading, found: tuple[FixedAndTuned, ...]) -> tuple[tuple[str, ...], ...]:
    if not found:
        return ()
    unit = f", {reading.unit}" if reading.unit else ""

    def effect(value: float | None, ci: tuple[float, float] | None) -> tuple[str, str]:
        shown = reading.shown(value)
        ends = None if ci is None else tuple(end * reading.factor for end in ci)
        return (
            "" if shown is None else wording.signed(shown, reading.digits),
            "" if ends is None else wording.span(ends[0], ends[1], reading.digits),
        )

    head = ("Arm", f"At the file’s values{unit}", "Interval", "Seeds", f"Tuned{unit}", "Interval")
    rows = [
        (
            str(reading.subject(one.subject)),
            *effect(one.fixed, one.fixed_ci),
            str(one.n),
            *effect(one.tuned, one.tuned_ci),
        )
        for one in found
    ]
    return (head, *rows)


def _curves(reading: Reading, found: Tuning) -> Iterable[Tried]:
    """The metric against each numeric setting, a curve an arm."""
    for path, said in found.ranges.items():
        if not isinstance(said, Mapping):
            continue
        ends = next(iter(said.values()))
        for one in found.searches:
            points = tuple(
                sorted(
                    (float(t.values[path]), t.value * reading.factor, t.again)
                    for t in one.trials
                    if t.value is not None and math.isfinite(t.value)
                )
            )
            if points:
                yield Tried(
                    path,
                    reading.label(one.arm) if len(found.searches) > 1 else "",
                    "log" if "log" in said else "linear",
                    points,
                    float(one.values[path]),
                    (float(ends[0]), float(ends[1])),
                    reading.rules.metric,
                    reading.value_unit,
                    reading.digits,
                )


def _importances(found: Tuning) -> tuple[tuple[str, ...], ...]:
    """A ranking a method, the first row the headings."""
    if not found.importances:
        return ()
    methods = list(found.importances)
    paths = sorted(
        dict.fromkeys(path for shares in found.importances.values() for path in shares),
        key=lambda path: -found.importances[methods[0]].get(path, 0.0),
    )
    rows = []
    for path in paths:
        cells = []
        for method in methods:
            order = sorted(found.importances[method], key=lambda p: -found.importances[method][p])
            share = found.importances[method].get(path)
            cells.append("" if share is None else f"{order.index(path) + 1} ({share:.2f})")
        rows.append((path, *cells))
    return (("Ranking", *methods), *rows)


def _outcomes(one: Searched) -> str:
    first = [t.outcome for t in one.trials if not t.again]
    others = [f"{first.count(kind)} {kind}" for kind in ("diverged", "pruned", "failed") if first.count(kind)]
    return f"{len(first)}{f' ({joined(others)})' if others else ''}"


def _shown(reading: Reading, value: float | None) -> str:
    return "" if value is None else wording.plain(value * reading.factor, reading.digits)


def _range(said: Any) -> str:
    """A range, a list of choices, or a block with ranges in it, in words."""
    if isinstance(said, list):
        return joined(
            [_range(choice) if isinstance(choice, Mapping) else wording.tried(choice) for choice in said]
        )
    kind, ends = next(iter(said.items()))
    if len(said) == 1 and kind in ("log", "range", "int"):
        return (
            f"{wording.tried(ends[0])} to {wording.tried(ends[1])}{' (logarithmic)' if kind == 'log' else ''}"
        )
    rest = ", ".join(
        f"{name} {_range(v) if isinstance(v, Mapping) else wording.tried(v)}"
        for name, v in said.items()
        if name != "name"
    )
    return f"{said.get('name', '')}{f' ({rest})' if rest else ''}".strip()
