"""What the tracking server shows of an arm: means, standard deviations, the verdict and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
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
    for cell in analysis.cells:
        rows[cell.arm] = {
            "metrics": _rounded({"mean": cell.mean, "sd": cell.sd, "n": cell.n}),
            "tags": {"mlflow.note.content": "A cell: effects get the verdicts."},
        }
    for c in (*analysis.comparisons, *((analysis.aa,) if analysis.aa else ())):
        numbers = {"mean": c.summary.mean, "sd": c.summary.sd, "n": c.n, "effect": c.effect}
        numbers |= {"effect_low": c.lo, "effect_high": c.hi, "cost_ratio": c.cost_ratio}
        tags = {"ablate.verdict": c.verdict, "mlflow.note.content": sentence(c, analysis.rules)}
        rows[c.arm] = {"metrics": _rounded(numbers), "tags": tags}
    return rows


def _rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    # For the eye, in a narrow column: the report and its JSON have them in full.
    return {name: float(f"{value:.5g}") for name, value in values.items() if value is not None}
