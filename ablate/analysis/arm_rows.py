"""What the tracking server shows of an arm or an effect: means, standard deviations, the verdict and its sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ablate.analysis.contents import Analysis, Comparison, Effect
from ablate.analysis.words import effect_code, sentence, verdict_word


def arm_rows(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """Return what the runs of arms and effects in MLflow carry: means, standard deviations, the verdict and its sentence.

    The names of arms are keys; of effects that no cell stands for, "main effect: …" and "interaction: …".
    """
    base = analysis.baseline
    rows: dict[str, dict[str, Any]] = {}
    if base.mean is not None:
        tags = {"ablate.verdict": "baseline", "mlflow.note.content": "What every other arm is compared with."}
        rows[base.arm] = {"metrics": _rounded({"mean": base.mean, "sd": base.sd, "n": base.n}), "tags": tags}
    # The row of a cell that changes what an effect is about holds that effect, which all cells together estimate. Other
    # cells are compared with the baseline, and effects that have no such cell get rows of their own.
    effects = {
        _changes((str(term.factor), term.level) for term in effect.terms): effect
        for effect in (analysis.effects if analysis.cells else ())
    }
    for cell, c in zip(analysis.cells, analysis.combinations, strict=True):
        levels = dict(analysis.rules.arm(cell.arm).level or {})
        unchanged = _changes((name, analysis.rules.baseline_levels.get(name)) for name in levels)
        effect = effects.pop(_changes(levels.items()) - unchanged, None)
        numbers: dict[str, float | None] = {"mean": cell.mean, "sd": cell.sd, "n": cell.n}
        if effect is None:
            beside = (
                f"this combination against the baseline, corrected for all {len(analysis.cells)} combinations"
            )
            row = _compared(c, f"combination: {c.verdict}", f"{sentence(c, analysis.rules)} ({beside})")
        else:
            row = _of_effect(effect, analysis)
        rows[cell.arm] = {"metrics": row["metrics"] | _rounded(numbers), "tags": row["tags"]}
    for effect in effects.values():
        row = _of_effect(effect, analysis)
        name = f"{_kind(effect)}: {effect_code(effect.terms)}"
        rows[name] = {"metrics": row["metrics"] | _rounded({"n": effect.n}), "tags": row["tags"]}
    for c in (*analysis.comparisons, *((analysis.aa,) if analysis.aa else ())):
        rows[c.arm] = _compared(c, c.verdict, sentence(c, analysis.rules))
    return rows


def _compared(c: Comparison, verdict: str, note: str) -> dict[str, Any]:
    numbers = {"mean": c.summary.mean, "sd": c.summary.sd, "n": c.n, "effect": c.effect}
    numbers |= {"effect_low": c.lo, "effect_high": c.hi, "cost_ratio": c.cost_ratio}
    return {"metrics": _rounded(numbers), "tags": {"ablate.verdict": verdict, "mlflow.note.content": note}}


def _of_effect(effect: Effect, analysis: Analysis) -> dict[str, Any]:
    numbers = {"effect": effect.estimate, "effect_low": effect.lo, "effect_high": effect.hi}
    tags = {
        "ablate.verdict": f"{_kind(effect)}: {verdict_word(effect)}",
        "mlflow.note.content": f"{sentence(effect, analysis.rules)} (over all combinations)",
    }
    return {"metrics": _rounded(numbers), "tags": tags}


def _kind(effect: Effect) -> str:
    return "main effect" if len(effect.terms) == 1 else "interaction"


def _changes(changed: Iterable[tuple[str, Any]]) -> frozenset[tuple[str, str]]:
    """Return (factor, level) of every change as something to look up: `0` and `false` are different levels."""
    return frozenset((factor, json.dumps(level, sort_keys=True, default=str)) for factor, level in changed)


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    # For the eye, in a narrow column: the report and its JSON have them in full.
    return {name: float(f"{value:.5g}") for name, value in values.items() if value is not None}
