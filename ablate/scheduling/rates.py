"""`ablate lr`: a learning-rate range test of a study's baseline, its seeds side by side on the device slots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ablate.analysis import rates as analysis
from ablate.analysis.rates import RangeTest
from ablate.config import RunConfig
from ablate.errors import StudyError, TrainingError
from ablate.events import Bundle, Failed, Finished, Task, is_last
from ablate.executors import Executor
from ablate.study.design import FIRST_SEED
from ablate.study.spec import Study
from ablate.text import format_value


@dataclass(frozen=True)
class Range:
    """low, high: rates of the first and the last step. seeds: how many. passes: over the training split."""

    low: float = 1e-5
    high: float = 10.0
    seeds: int = 3
    passes: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise StudyError(
                f"rates from {self.low:g} to {self.high:g} do not rise", place="--from", hint="0 < from < to"
            )


def range_test(study: Study, asked: Range, testing: Executor, say: Callable[[str], None]) -> RangeTest:
    """testing: an executor that runs `ablate.training.start.range_test`. say: told as seeds end.

    The seeds are of the tuning phase: a rate must not be chosen on the seeds that it is then judged by. Raises StudyError
    where the study brings its own training, TrainingError where the test fails.
    """
    config = study.baseline
    if not isinstance(config, RunConfig):
        raise StudyError(
            "a range test changes the rate at every step, which only the built-in training can do",
            place=study.train,
            hint="try a few rates as levels of a factor instead",
        )
    first = FIRST_SEED["tune"]
    waiting = [
        Task(
            str(seed),
            1,
            {
                "config": config.tree(),
                "seed": seed,
                "low": asked.low,
                "high": asked.high,
                "passes": asked.passes,
                "threads": 1,
            },
        )
        for seed in range(first, first + asked.seeds)
    ]
    found: dict[int, tuple[list[float], list[float]]] = {}
    with testing:
        free = list(testing.slots)
        where = {}
        while len(found) < asked.seeds:
            while free and waiting:
                slot, task = free.pop(), waiting.pop(0)
                where[task.run] = slot
                given = Task(task.run, 1, {**task.payload, "device": slot.device})
                testing.submit(Bundle((given,)), slot)
            for event in testing.wait():
                if isinstance(event, Failed):
                    raise TrainingError(event.reason)
                if isinstance(event, Finished):
                    found[int(event.run)] = (event.facts["rates"], event.facts["losses"])
                    say(f"seed {event.run}: {len(event.facts['losses'])} steps")
                if is_last(event):
                    free.append(where.pop(event.run))
    curves = [found[seed] for seed in sorted(found)]
    return analysis.range_test(curves[0][0], [losses for _, losses in curves])


def paste(study: Study, found: RangeTest) -> str:
    """The suggestion as a study says it: the baseline's optimizer with its rate, and a factor. Empty where there is none."""
    if found.suggestion is None:
        return ""
    optimizer = study.baseline.get("optimizer") | {"lr": found.suggestion}
    levels = format_value(list(found.levels))
    return f"baseline:\n  optimizer: {format_value(optimizer)}\nfactors:\n  optimizer.lr: {levels}"
