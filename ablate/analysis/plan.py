"""From a recorded plan to the rules that its results are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.analysis.family import FACTORIAL, ArmRule
from ablate.analysis.rules import Rules


def rules(record: Mapping[str, Any]) -> Rules:
    """The rules of a plan, as it was recorded before its first run (and extended by top-ups since).

    record: `study.design.Plan.record()`, with `extra_looks` (total pairs of each undeclared look) where there are any.
    """
    # An arm that others are held against and that is held against nothing itself gets no verdict.
    others = {record["reference"], *(arm.get("reference") for arm in record["arms"])}
    arms = [arm for arm in record["arms"] if arm["name"] not in others or arm.get("reference")]
    cells = record["design"] in FACTORIAL
    base = next(arm for arm in record["arms"] if arm["name"] == record["reference"])
    return Rules(
        metric=record["metric"],
        direction=record["direction"],
        margin=record["margin"],
        resolution=record["resolution"] or 0.0,
        looks=tuple(record["looks"]),
        extra_looks=tuple(record.get("extra_looks", ())),
        arms=tuple(
            ArmRule(a["name"], a["factor"], a["levels"] if cells else a["level"], a.get("reference"))
            for a in arms
        ),
        reference=record["reference"],
        design=record["design"],
        deterministic=record["deterministic"],
        baseline_levels=base["levels"],
        path=tuple(record.get("path") or ()),
        steps=record.get("steps") or 0,
        edges=_edges(len(record["factors"])) if record["design"] == "path" else 0,
        seeds=tuple(sorted({run["seed"] for run in record["runs"] if run["phase"] == "report"})),
        retunes=1 if record.get("nuisance") else 0,
        confirm_seeds=record["looks"][-1] if record.get("confirm") else 0,
    )


def _edges(factors: int) -> int:
    """All comparisons that a greedy path may come to make: each factor, whichever others were changed before it."""
    return int(factors * 2 ** (factors - 1))
