"""The report's part on tuning and searching: best values, response of the metric, effects at fixed and tuned values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.analysis.tuning import ADDS, ENOUGH_RETUNES, FixedAndTuned, Searched, Tuning, tuning
from ablate.report import wording
from ablate.report.contents import Front, SettingResponse, TuningPart, Weighed
from ablate.report.reading import Reading
from ablate.text import joined


def part(reading: Reading) -> TuningPart | None:
    """Return the part of a report; None where nothing was tuned or searched."""
    tuned = tuning(reading.record, reading.analysis, reading.replicates)
    if tuned is None:
        return None
    nuisance = bool(reading.record.nuisance)
    return TuningPart(
        "Tuning" if nuisance else "Search",
        tuple(_paragraphs(reading, tuned, nuisance)),
        _table(reading, tuned, nuisance),
        _fixed_and_tuned(reading, tuned.effects),
        tuple(_curves(reading, tuned)),
        _importances(tuned),
        _pareto(reading, tuned),
        _front_table(reading, tuned),
    )


COSTS = {"flops": "FLOPs of a run", "parameters": "parameters", "seconds": "device time of a run, s"}


def _pareto(reading: Reading, tuned: Tuning) -> Front | None:
    """Return every trial by what it cost and gave; None where the search had one objective, or nothing finished."""
    if not (cost := tuned.settings.cost):
        return None
    points = [
        Weighed(t.cost, t.value * reading.factor, _setting_words(t.values), t.front)
        for search in tuned.searches
        for t in search.trials
        if not t.reevaluated and t.value is not None and t.cost is not None
    ]
    points += [
        Weighed(c.cost, c.mean * reading.factor, _setting_words(c.values), candidate=number)
        for search in tuned.searches
        for number, c in enumerate(search.candidates, 1)
        if c.mean is not None and c.cost is not None
    ]
    if not points:
        return None
    return Front(
        COSTS[cost],
        reading.rules.metric,
        reading.value_unit,
        reading.digits,
        tuple(points),
    )


def _front_table(reading: Reading, tuned: Tuning) -> tuple[tuple[str, ...], ...]:
    """Return the trials of the front from the cheapest on, the first row the headings."""
    front = [t for search in tuned.searches for t in search.trials if t.front]
    metric = f"{reading.rules.metric}{f', {reading.value_unit}' if reading.value_unit else ''}"
    rows = [
        (
            wording.compact(t.cost or 0.0),
            _shown(reading, t.value),
            *(wording.tried(t.values[path]) for path in tuned.ranges),
        )
        for t in sorted(front, key=lambda t: t.cost or 0.0)
    ]
    # Equal settings of equal cost and value are one line.
    return ((COSTS[tuned.settings.cost or ""], metric, *tuned.ranges), *dict.fromkeys(rows)) if rows else ()


def _setting_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {wording.tried(value)}" for path, value in values.items())


def _paragraphs(reading: Reading, tuned: Tuning, nuisance: bool) -> Iterable[str]:
    ranges = "; ".join(f"{path}: {_range(declared)}" for path, declared in tuned.ranges.items())
    method = f"{tuned.settings.sampler} sampler"
    if tuned.settings.pruner != "none":
        method += f", {tuned.settings.pruner} pruner"
    each = " for every arm" if nuisance else ""
    yield (
        f"{ranges}. {tuned.settings.trials} trials{each} ({method}), on validation data and seeds of their own. "
        "The best were re-evaluated on fresh seeds before one was chosen."
    )
    if not tuned.complete:
        yield "The search is not over yet."
        return
    if nuisance:
        low, high = (f"{100 * share:.0f}" for share in ADDS)
        yield (
            "Verdicts hold at the values found; tuning was run once. A search is noisy too: run again it would add "
            f"{low} to {high} % to the variance of a difference, which the intervals do not cover. Without that reserve a verdict "
            f"needs {ENOUGH_RETUNES} independent searches."
        )
    for search in tuned.searches:
        if not search.searched:
            yield f"{reading.label(search.arm)}: no trial finished, so the values of the study file are used."
        trials = [trial for trial in search.trials if not trial.reevaluated]
        failed = sum(trial.outcome == "failed" for trial in trials)
        if nuisance and failed and search.searched:
            yield f"{reading.label(search.arm)}: {failed} of {len(trials)} trials failed, so it was tuned on {len(trials) - failed}."
        for path, end in search.edge.items():
            yield (
                f"{reading.label(search.arm) if nuisance else 'Search'}: the best {path} ({wording.tried(search.values[path])}) lies at the {end} end of its range; "
                "better values may lie beyond."
            )
    if coarse := [reading.label(search.arm) for search in tuned.searches if search.coarse]:
        yield (
            f"{joined(coarse)}: the trials next to the best differ from it by more than seeds do, so a finer search may "
            "find better."
        )
    if tuned.settings.cost:
        yield (
            "The search had two objectives, so there is no single best trial but a Pareto front: the trials that no other beats in both. The "
            f"candidates are the trials of the front with the best {reading.rules.metric}. A trial ran once, so it may be on the front by luck."
        )
    if not nuisance:
        yield (
            "Candidates were chosen because they scored best, so their scores are too good: "
            f"`ablate init --from {reading.record.study}` writes the study that compares them with the baseline on fresh seeds."
        )


def _table(reading: Reading, tuned: Tuning, nuisance: bool) -> tuple[tuple[str, ...], ...]:
    """Return the best values, the first row the headings."""
    metric = f"{reading.rules.metric}{f', {reading.value_unit}' if reading.value_unit else ''}"
    rows: list[tuple[str, ...]] = []
    if nuisance:
        rows.append(("Arm", *tuned.ranges, metric, "Trials"))
        for search in tuned.searches:
            values = tuple(wording.tried(search.values[path]) for path in tuned.ranges)
            best = next((c.mean for c in search.candidates if c.mean is not None), None)
            rows.append((reading.label(search.arm), *values, _shown(reading, best), _outcomes(search)))
        return tuple(rows)
    cost = tuned.settings.cost
    rows.append(("Candidate", *tuned.ranges, metric, *([cost] if cost else []), "Seeds"))
    for search in tuned.searches:
        for number, c in enumerate(search.candidates, 1):
            values = tuple(wording.tried(c.values[path]) for path in tuned.ranges)
            mean = _shown(reading, c.mean) if c.mean is not None else "diverged"
            costs = [wording.compact(c.cost) if c.cost is not None else ""] if cost else []
            rows.append((str(number), *values, mean, *costs, str(c.runs)))
    return tuple(rows)


def _fixed_and_tuned(reading: Reading, effects: tuple[FixedAndTuned, ...]) -> tuple[tuple[str, ...], ...]:
    if not effects:
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
            str(reading.subject(item.subject)),
            *effect(item.fixed, item.fixed_ci),
            str(item.n),
            *effect(item.tuned, item.tuned_ci),
        )
        for item in effects
    ]
    return (head, *rows)


def _curves(reading: Reading, tuned: Tuning) -> Iterable[SettingResponse]:
    """Return the metric against each numeric setting, one curve per arm."""
    for path, declared in tuned.ranges.items():
        if not isinstance(declared, Mapping):
            continue
        ends = next(iter(declared.values()))
        for search in tuned.searches:
            points = tuple(
                sorted(
                    (float(t.values[path]), t.value * reading.factor, t.reevaluated)
                    for t in search.trials
                    if t.value is not None and math.isfinite(t.value)
                )
            )
            if points:
                yield SettingResponse(
                    path,
                    reading.label(search.arm) if len(tuned.searches) > 1 else "",
                    "log" if "log" in declared else "linear",
                    points,
                    float(search.values[path]),
                    (float(ends[0]), float(ends[1])),
                    reading.rules.metric,
                    reading.value_unit,
                    reading.digits,
                )


def _importances(tuned: Tuning) -> tuple[tuple[str, ...], ...]:
    """One ranking per method, the first row the headings."""
    if not tuned.importances:
        return ()
    methods = list(tuned.importances)
    paths = sorted(
        dict.fromkeys(path for shares in tuned.importances.values() for path in shares),
        key=lambda path: -tuned.importances[methods[0]].get(path, 0.0),
    )
    rows = []
    for path in paths:
        cells = []
        for method in methods:
            order = sorted(tuned.importances[method], key=lambda p: -tuned.importances[method][p])
            share = tuned.importances[method].get(path)
            cells.append("" if share is None else f"{order.index(path) + 1} ({share:.2f})")
        rows.append((path, *cells))
    return (("Ranking", *methods), *rows)


def _outcomes(search: Searched) -> str:
    first = [t.outcome for t in search.trials if not t.reevaluated]
    others = [f"{first.count(kind)} {kind}" for kind in ("diverged", "pruned", "failed") if first.count(kind)]
    return f"{len(first)}{f' ({joined(others)})' if others else ''}"


def _shown(reading: Reading, value: float | None) -> str:
    return "" if value is None else wording.plain(value * reading.factor, reading.digits)


def _range(declared: Any) -> str:
    """Return a range, a list of choices, or a block with ranges in it, in words."""
    if isinstance(declared, list):
        return joined(
            [_range(choice) if isinstance(choice, Mapping) else wording.tried(choice) for choice in declared]
        )
    kind, ends = next(iter(declared.items()))
    if len(declared) == 1 and kind in ("log", "range", "int"):
        return (
            f"{wording.tried(ends[0])} to {wording.tried(ends[1])}{' (logarithmic)' if kind == 'log' else ''}"
        )
    rest = ", ".join(
        f"{name} {_range(v) if isinstance(v, Mapping) else wording.tried(v)}"
        for name, v in declared.items()
        if name != "name"
    )
    return f"{declared.get('name', '')}{f' ({rest})' if rest else ''}".strip()
