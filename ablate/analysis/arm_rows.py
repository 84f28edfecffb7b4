"""What the tracking server shows of an arm: means, standard deviations, the verdict and its sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.analysis.contents import Analysis
from ablate.analysis.words import sentence


def arm_rows(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Return what an arm's own run in MLflow carries: means, standard deviations, the verdict and its sentence."""
    base = analysis.baseline
    rows: dict[str, dict[str, Any]] = {}
    if base.mean is not None:
        tags = {"ablate.verdict": "baseline", "mlflow.note.content": "What every other arm is compared with."}
        rows[base.arm] = {"metrics": _rounded({"mean": base.mean, "sd": base.sd, "n": base.n}), "tags": tags}
    # A cell is no arm with a verdict: its row holds the effect of its changes, which all cells together estimate.
    effects = {
        _changes((str(term.factor), term.level) for term in effect.terms): effect
        for effect in analysis.effects
    }
    for cell in analysis.cells:
        numbers: dict[str, float | None] = {"mean": cell.mean, "sd": cell.sd, "n": cell.n}
        tags = {
            "ablate.verdict": "combination",
            "mlflow.note.content": "One combination; main effects and interactions get the verdicts.",
        }
        levels = dict(analysis.rules.arm(cell.arm).level or {})
        unchanged = _changes((name, analysis.rules.baseline_levels.get(name)) for name in levels)
        if (effect := effects.get(_changes(levels.items()) - unchanged)) is not None:
            numbers |= {"effect": effect.estimate, "effect_low": effect.lo, "effect_high": effect.hi}
            kind = "main effect" if len(effect.terms) == 1 else "interaction"
            tags = {
                "ablate.verdict": f"{kind}: {effect.verdict}",
                "mlflow.note.content": f"{sentence(effect, analysis.rules)} (over all combinations)",
            }
        rows[cell.arm] = {"metrics": _rounded(numbers), "tags": tags}
    for c in (*analysis.comparisons, *((analysis.aa,) if analysis.aa else ())):
        numbers = {"mean": c.summary.mean, "sd": c.summary.sd, "n": c.n, "effect": c.effect}
        numbers |= {"effect_low": c.lo, "effect_high": c.hi, "cost_ratio": c.cost_ratio}
        tags = {"ablate.verdict": c.verdict, "mlflow.note.content": sentence(c, analysis.rules)}
        rows[c.arm] = {"metrics": _rounded(numbers), "tags": tags}
    return rows


def _changes(changed: Iterable[tuple[str, Any]]) -> frozenset[tuple[str, str]]:
    """Return (factor, level) of every change as something to look up: `0` and `false` are different levels."""
    return frozenset((factor, json.dumps(level, sort_keys=True, default=str)) for factor, level in changed)


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    # For the eye, in a narrow column: the report and its JSON have them in full.
    return {name: float(f"{value:.5g}") for name, value in values.items() if value is not None}
