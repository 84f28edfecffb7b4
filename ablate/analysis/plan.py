"""From a recorded plan to the rules that its results are judged by."""

from __future__ import annotations

from ablate.analysis.family import FACTORIAL, ArmRule
from ablate.analysis.rules import Rules
from ablate.study.record import PlanRecord


def rules(record: PlanRecord) -> Rules:
    """Return the rules of a plan as it was recorded before its first run, with the looks that were asked for since."""
    # An arm that others are compared with, and that is compared with none itself, gets no verdict.
    others = {record.reference, *(arm.reference for arm in record.arms)}
    arms = [arm for arm in record.arms if arm.name not in others or arm.reference]
    cells = record.design in FACTORIAL
    base = record.arm(record.reference)
    return Rules(
        metric=record.metric,
        direction=record.direction,
        margin=record.margin,
        resolution=record.resolution,
        looks=record.looks.at,
        most=record.looks.most,
        read_before=record.read_before,
        arms=tuple(
            ArmRule(arm.name, arm.factor, arm.levels if cells else arm.level, arm.reference) for arm in arms
        ),
        reference=record.reference,
        design=record.design,
        deterministic=record.deterministic,
        judged_on=record.judged_on,
        unit="run" if record.unpaired else "seed",
        baseline_levels=base.levels,
        path=record.path,
        steps=record.steps,
        edges=_edges(len(record.factors)) if record.design == "path" else 0,
        seeds=tuple(sorted({run.seed for run in record.runs if run.phase == "report"})),
        retunes=1 if record.nuisance else 0,
        confirm_seeds=record.looks.most if record.confirm else 0,
    )


def _edges(factors: int) -> int:
    """Return all comparisons that a greedy path may come to make: each factor, whichever others were changed before it."""
    return int(factors * 2 ** (factors - 1))
