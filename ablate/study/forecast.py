"""What a plan will cost, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablate.study.design import Plan
from ablate.study.seeds import NOISE_FLOOR, REEVALUATIONS


@dataclass(frozen=True)
class ArmCost:
    """seconds: device seconds of one run; None where nothing is known. first, most: runs to the first and the last look."""

    arm: str
    seconds: float | None
    parameters: int | None
    flops: int | None
    first: int
    most: int


STARTING = 4.0
"""Seconds until workers are ready, where that was not measured."""

AROUND = 1.5
"""Opening MLflow and Optuna, judging and closing take this many times as long as starting the workers."""

RECORDING = 0.15
"""Seconds that the record of one run takes the coordinating process, which shares the machine with the workers."""


@dataclass(frozen=True)
class Forecast:
    """first, most: seconds from the command to its end on all slots, to the first and to the last look; None where unknown."""

    arms: tuple[ArmCost, ...]
    runs_first: int
    runs_most: int
    first: float | None
    most: float | None


@dataclass(frozen=True)
class RunCost:
    """What is known of one run of an arm; see ArmCost."""

    seconds: float | None = None
    parameters: int | None = None
    flops: int | None = None


def forecast(plan: Plan, costs: Mapping[str, RunCost], slots: int, starting: float | None = None) -> Forecast:
    """Add up a plan's cost from what one run of each arm costs, on so many slots that never idle.

    What a greedy path has not come to yet costs what the mean arm does.

    costs: by arm; the noise floor costs what the reference does. Winners confirmed on fresh seeds come on top of `most`
    as one more round of two arms. starting: measured seconds until workers were ready.
    """
    looks = plan.study.looks
    arms = []
    for name in plan.names:
        cost = costs[plan.reference if name == NOISE_FLOOR else name]
        before = 0 if name == NOISE_FLOOR else searching(plan)
        first, most = (0, 0) if plan.study.space else (looks[0], looks[-1])
        arms.append(ArmCost(name, cost.seconds, cost.parameters, cost.flops, first + before, most + before))
    beyond = further(plan)
    confirming = looks[-1] * 2 if plan.study.confirm else 0
    known = all(arm.seconds is not None for arm in arms)
    dearest = max((arm.seconds or 0.0 for arm in arms), default=0.0)
    mean = sum(arm.seconds or 0.0 for arm in arms) / len(arms)

    around = (1.0 + AROUND) * (STARTING if starting is None else starting)

    def wall(of_arms: list[int], ahead: int, confirming: int = 0) -> float | None:
        total = sum((arm.seconds or 0.0) * runs for arm, runs in zip(arms, of_arms, strict=True))
        total += mean * ahead + confirming * dearest
        recording = RECORDING * (sum(of_arms) + ahead + confirming)
        return around + max(total / slots, dearest) + recording if known else None

    firsts, mosts = [arm.first for arm in arms], [arm.most for arm in arms]
    return Forecast(
        tuple(arms),
        sum(firsts) + beyond * looks[0],
        sum(mosts) + beyond * looks[-1] + confirming,
        wall(firsts, beyond * looks[0]),
        wall(mosts, beyond * looks[-1], confirming),
    )


def searching(plan: Plan) -> int:
    """Runs of an arm besides those of its looks: trials, the second look at the best, and the fixed comparison; at most."""
    study = plan.study
    if study.search is None:
        return 0
    again = min(study.search.candidates, study.search.trials) * (1 if study.deterministic else REEVALUATIONS)
    return study.search.trials + again + (study.looks[0] if study.nuisance else 0)


def further(plan: Plan) -> int:
    """How many configurations a greedy path has still to come to, besides the arms of its plan; 0 for other designs."""
    left = len(plan.choices) - 1
    return left * (left + 1) // 2 if plan.choices else 0
