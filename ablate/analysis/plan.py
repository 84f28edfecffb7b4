"""From a recorded plan to the rules that its results are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.analysis.rules import FACTORIAL, ArmRule, Rules


def rules(record: Mapping[str, Any]) -> Rules:
    """The rules of a plan, as it was recorded before its first run (and extended by top-ups since).

    record: `study.design.Plan.record()`, with `extra_looks` (total pairs of each undeclared look) where there are any.
    """
    arms = [arm for arm in record["arms"] if arm["name"] != record["reference"]]
    cells = record["design"] in FACTORIAL
    base = next(arm for arm in record["arms"] if arm["name"] == record["reference"])
    return Rules(
        metric=record["metric"],
        direction=record["direction"],
        margin=record["margin"],
        resolution=record["resolution"] or 0.0,
        looks=tuple(record["looks"]),
        extra_looks=tuple(record.get("extra_looks", ())),
        arms=tuple(ArmRule(a["name"], a["factor"], a["levels"] if cells else a["level"]) for a in arms),
        reference=record["reference"],
        design=record["design"],
        deterministic=record["deterministic"],
        baseline_levels=base["levels"],
        confirm_seeds=record["looks"][-1] if record.get("confirm") else 0,
    )
