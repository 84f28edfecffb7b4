"""What a plan will cost, forecast before it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ablate.study.design import Plan
from ablate.study.seeds import NOISE_FLOOR, REEVALUATIONS


@dataclass(frozen=True)
class ArmCost:
    """Cost of an arm. seconds: device seconds of one run; None: not known. first, most: runs to the first and the last look."""

    arm: str
    seconds: float | None
    parameters: int | None
    flops: int | None
    first: int
    most: int


OVERHEAD_SECONDS = 2.5
"""Seconds that a command takes without its runs, where starting the workers was not measured: 1.8 with a function, 2.4 with a command,
3.2 with the built-in training, from what `python benchmarks/forecast.py --afterwards` shows with 2 seeds and with 10, on two idle cores.
"""

OVERHEAD_STARTUPS = 2.5
"""Where it was measured: that, opening MLflow and Optuna, judging and closing take this many times as long."""

RECORDING_SECONDS = 0.025
"""What a run takes the coordinating process, which shares the machine with the workers (measured likewise)."""


@dataclass(frozen=True)
class Forecast:
    """first, most: seconds from the command to its end on all slots, to the first and to the last look; None: not known."""

    arms: tuple[ArmCost, ...]
    runs_first: int
    runs_most: int
    first: float | None
    most: float | None


@dataclass(frozen=True)
class RunCost:
    """Cost of one run of an arm; fields as in ArmCost."""

    seconds: float | None = None
    parameters: int | None = None
    flops: int | None = None


def forecast(plan: Plan, costs: Mapping[str, RunCost], slots: int, starting: float | None = None) -> Forecast:
    """Return a plan's cost, added up from what one run of each arm costs, on slots that never idle.

    costs: by arm; the noise floor costs what the reference does, a configuration that a greedy path has not reached what the
    mean arm does. A winner confirmed on fresh seeds adds one more round of two arms to `most`. starting: measured seconds
    until the workers were ready.
    """
    looks = plan.looks.at
    arms = []
    for name in plan.names:
        cost = costs[plan.reference if name == NOISE_FLOOR else name]
        before = 0 if name == NOISE_FLOOR else searching(plan)
        first, most = (0, 0) if plan.study.space else (looks[0], looks[-1])
        arms.append(ArmCost(name, cost.seconds, cost.parameters, cost.flops, first + before, most + before))
    unreached = further(plan)
    confirming = plan.looks.most * 2 if plan.study.confirm else 0
    known = all(arm.seconds is not None for arm in arms)
    slowest = max((arm.seconds or 0.0 for arm in arms), default=0.0)
    mean = sum(arm.seconds or 0.0 for arm in arms) / len(arms)

    overhead = OVERHEAD_SECONDS if starting is None else OVERHEAD_STARTUPS * starting

    def wall_seconds(runs: list[int], unreached_runs: int, confirming: int = 0) -> float | None:
        total = sum((arm.seconds or 0.0) * n for arm, n in zip(arms, runs, strict=True))
        total += mean * unreached_runs + confirming * slowest
        recording = RECORDING_SECONDS * (sum(runs) + unreached_runs + confirming)
        return overhead + max(total / slots, slowest) + recording if known else None

    firsts, mosts = [arm.first for arm in arms], [arm.most for arm in arms]
    return Forecast(
        tuple(arms),
        sum(firsts) + unreached * looks[0],
        sum(mosts) + unreached * looks[-1] + confirming,
        wall_seconds(firsts, unreached * looks[0]),
        wall_seconds(mosts, unreached * looks[-1], confirming),
    )


def searching(plan: Plan) -> int:
    """Return the most runs that an arm has besides those of its looks: trials, re-evaluations of the best, and those at the file's values."""
    study = plan.study
    if study.search is None:
        return 0
    reevaluations = min(study.search.candidates, study.search.trials) * (
        1 if study.deterministic else REEVALUATIONS
    )
    return study.search.trials + reevaluations + (plan.looks.at[0] if study.nuisance else 0)


def further(plan: Plan) -> int:
    """Return how many configurations a greedy path will still reach, besides the arms of its plan; 0 for other designs."""
    left = len(plan.choices) - 1
    return left * (left + 1) // 2 if plan.choices else 0
