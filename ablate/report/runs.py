"""Every run of a study: recorded, failed, diverged or missing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.analysis import undecided
from ablate.analysis.compare import TUNE, arm_names, frame_seeds, numbers, texts
from ablate.report import wording
from ablate.report.contents import RunRow, Trouble
from ablate.report.reading import Reading


def every(reading: Reading) -> tuple[RunRow, ...]:
    """Return all runs, by arm, phase and seed, missing ones among them."""
    tried = {run.key: run.values for run in reading.record.runs if run.values}
    rows = [*_runs(reading, tried)]
    rows += [
        RunRow(arm, reading.label(arm), seed, phase, "missing", None, None, None, None, "", "", "", "")
        for arm, seed, phase in _missing(reading)
    ]
    place = {arm: i for i, arm in enumerate(reading.arms)}
    return tuple(sorted(rows, key=lambda run: (place.get(run.arm, len(place)), run.phase, run.seed)))


def counts(reading: Reading, runs: Iterable[RunRow]) -> tuple[tuple[str, int], ...]:
    """Return (what, how many): of the runs that are compared; of a search, of its trials."""
    outcomes = Counter(run.outcome for run in runs if run.phase == TUNE)
    if reading.rules.design == "search":
        return (
            ("trained", sum(outcomes.values())),
            *((name, outcomes[name]) for name in ("pruned", "diverged", "failed")),
        )
    totals = reading.analysis.runs
    return (
        ("planned", totals.planned),
        ("finished", totals.finished),
        ("diverged", totals.diverged),
        ("failed", totals.failed),
        ("missing", totals.missing),
        ("more of tuning", sum(outcomes.values())),
    )


def _label(reading: Reading, arm: str, values: Mapping[str, Any]) -> str:
    """Return an arm, or what was tried on it."""
    if not values:
        return reading.label(arm)
    setting = ", ".join(f"{path.rpartition('.')[2]} {wording.tried(value)}" for path, value in values.items())
    return setting if reading.rules.design == "search" else f"{reading.label(arm)}: {setting}"


def _runs(reading: Reading, tried: Mapping[str, Mapping[str, Any]]) -> Iterable[RunRow]:
    """Return the recorded runs, in the order of the frame."""
    frame = reading.replicates
    names = [arm_names(frame), *(texts(frame, name) for name in ("phase", "outcome", "key"))]
    measured = [numbers(frame, name) for name in ("value", "test", "epochs", "seconds")]
    origins = [texts(frame, name) for name in ("device", "run_id", "reason", "source_run")]
    rows = zip(frame_seeds(frame), *names, *measured, *origins, strict=True)
    for seed, arm, phase, outcome, key, value, test, epochs, seconds, *texts_of_run in rows:
        finished = outcome == "finished"
        yield RunRow(
            arm,
            _label(reading, arm, tried.get(key, {}) if phase == TUNE else {}),
            seed,
            phase,
            outcome,
            reading.shown(value) if finished else None,
            reading.shown(test) if finished else None,
            int(epochs) if math.isfinite(epochs) else None,
            seconds if math.isfinite(seconds) else None,
            *texts_of_run,
        )


def _missing(reading: Reading) -> Iterable[tuple[str, int, str]]:
    """Runs that are due and not there: what is open goes on to the next look, with its reference."""
    analysis = reading.analysis
    going_on = set(undecided(analysis))
    if going_on:
        going_on |= {reading.rules.reference, *map(reading.rules.reference_of, going_on)}
    frame = reading.replicates
    recorded = set(zip(arm_names(frame), frame_seeds(frame), texts(frame, "phase"), strict=True))
    places: Counter[tuple[str, str]] = Counter()
    absent = []
    for run in reading.record.runs:
        if run.phase in ("tune", "fixed"):
            continue  # a search counts its own
        key = (run.arm, run.seed, run.phase)
        places[run.arm, run.phase] += 1
        due = analysis.next_look.pairs if run.arm in going_on else 0
        if key not in recorded and places[run.arm, run.phase] <= max(due, analysis.pairs):
            absent.append(key)
    # The analysis decides how many: it knows whether the study is over.
    yield from absent[: analysis.runs.missing]


def troubles(runs: Iterable[RunRow]) -> tuple[Trouble, ...]:
    """Return failures first, then divergences, then missing runs."""
    together: dict[tuple[str, str, str, str], list[RunRow]] = {}
    for run in runs:
        # Nothing went wrong with what a search pruned.
        if run.outcome not in ("finished", "pruned"):
            together.setdefault((run.outcome, run.label, run.phase, run.reason), []).append(run)
    order = {"failed": 0, "diverged": 1}
    return tuple(
        Trouble(
            label,
            wording.seeds([run.seed for run in group]),
            phase,
            outcome,
            reason,
            tuple(run.run_id for run in group if run.run_id),
        )
        for (outcome, label, phase, reason), group in sorted(
            together.items(), key=lambda item: order.get(item[0][0], 2)
        )
    )
