"""`ablate lr`: a learning-rate range test of a study's baseline, its seeds side by side on the device slots."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ablate.analysis import rates as analysis
from ablate.analysis.rates import RangeTest
from ablate.errors import StudyError
from ablate.events import Event, Finished
from ablate.executors import Executor
from ablate.measuring.range_test import RangePayload
from ablate.scheduling.dispatch import Job, run_jobs
from ablate.study.keys import Study
from ablate.study.seeds import replicate_of, seed_of
from ablate.text import counted, format_value
from ablate.training import trainer_of


@dataclass(frozen=True)
class Sweep:
    """low, high: rates of the first and the last step. seeds: how many. passes: over the training split."""

    low: float = 1e-5
    high: float = 10.0
    seeds: int = 3
    passes: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            # Where the lowest rate could be one, the highest is what does not fit.
            raise StudyError(
                f"rates from {self.low:g} to {self.high:g} are no range",
                place="--to" if 0 < self.low < math.inf else "--from",
                hint="0 < from < to, both finite",
            )


def range_test(study: Study, sweep: Sweep, testing: Executor, say: Callable[[str], None]) -> RangeTest:
    """Run a range test of a study's baseline. testing: an executor that runs `ablate.measuring.range_test.run`.

    say: told as seeds end. The seeds are of the tuning phase: a rate must not be chosen on the seeds that it is then judged
    by. Raises StudyError where the study brings its own training, TrainingError where the test fails.
    """
    config = study.baseline
    trainer = trainer_of(config)
    if trainer.same_cost(config) is None:
        raise StudyError(
            "a range test changes the rate at every step, which only the built-in training can do",
            place=next(iter(trainer.keys), None),
            hint="try a few rates as levels of a factor instead",
        )
    seeds = [seed_of("tune", replicate) for replicate in range(sweep.seeds)]

    def job(seed: int) -> Job:
        payload = RangePayload(config.tree(), seed, sweep.low, sweep.high, sweep.passes)
        return Job(str(seed), lambda slot: replace(payload, device=slot.device))

    def told(event: Event) -> None:
        if isinstance(event, Finished):
            say(
                f"seed {replicate_of(int(event.run)) + 1} of {sweep.seeds}: {counted(len(event.facts['losses']), 'step')}"
            )

    with testing:
        results = run_jobs(testing, map(job, seeds), told)
    curves = [results[str(seed)].facts for seed in seeds]
    return analysis.range_test(curves[0]["rates"], [curve["losses"] for curve in curves])


def paste(study: Study, result: RangeTest) -> str:
    """Return the suggestion as lines of a study file: the baseline's optimizer with its rate, and a factor. Empty without one."""
    if result.suggestion is None:
        return ""
    optimizer = study.baseline.get("optimizer") | {"lr": result.suggestion}
    levels = format_value(list(result.levels))
    return f"baseline:\n  optimizer: {format_value(optimizer)}\nfactors:\n  optimizer.lr: {levels}"
