"""Does the seed reach the user's training? The baseline's first epochs, twice under one seed and once under another."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ablate import plain_files
from ablate.config import Config
from ablate.errors import StudyError, TrainingError
from ablate.events import Finished
from ablate.executors import Executor, Slot
from ablate.measuring.first_epochs import ENOUGH_DIGITS
from ablate.scheduling.dispatch import Job, run_jobs
from ablate.study.design import Plan, Run
from ablate.text import format_short_duration
from ablate.tracking.store import Store
from ablate.training import trainer_of
from ablate.training.payload import RunPayload

LONGEST = 60.0
"""Seconds after which a training that has not come to its first epoch is not checked."""

LAST_DIGITS = 1e-3
"""Two runs of one seed that differ by less than this share of what another seed changes differ in their last digits only."""


SeedVerdict = Literal["fixed", "ignored", "never repeatable", "unknown", "not checked"]
"""`fixed`: one seed repeats a run, and another one changes it. `ignored`: it changes nothing. `never repeatable`: one seed gives
different runs. `unknown`: too few digits to tell.
"""


@dataclass(frozen=True)
class SeedCheck:
    """What the seed does to the training. reason: of `unknown` and `not checked`, in words. seconds: that the check took."""

    verdict: SeedVerdict
    reason: str = ""
    seconds: float = 0.0


def check(
    plan: Plan, store: Store, executor: Callable[[], Executor], say: Callable[[str], None]
) -> SeedCheck | None:
    """Return what the seed does to a plan's reference; None where that is known without training, or of no interest.

    executor: returns one that runs `ablate.measuring.first_epochs.train`. say: told what is about to be trained. The result is
    kept in the store by the key of the run, so that the next plan has it for nothing. Raises StudyError where the seed is ignored.
    """
    runs = [plan.run(plan.reference, replicate) for replicate in (0, 0, 1)]
    config = plan.config(runs[0])
    if plan.study.deterministic or trainer_of(config).seed_advice() is None:
        return None
    path = store.root / "cache" / "seed-checks.json"
    known = _read(path)
    result = _recorded(known.get(runs[0].key))
    if result is None:
        say(
            "training the first epoch of the baseline three times, to see whether its seed matters, each time for at most "
            f"{format_short_duration(LONGEST)}; later plans reuse the answer"
        )
        result = _measured(plan, runs, executor())
        _write(path, known | {runs[0].key: asdict(result)})
    if result.verdict == "ignored":
        raise ignored(config, (runs[0].seed, runs[2].seed))
    return result


def _recorded(plain: Any) -> SeedCheck | None:
    """Return the result of an earlier check; None where it is none, or none that is known."""
    if not isinstance(plain, dict) or plain.keys() != {field.name for field in fields(SeedCheck)}:
        return None
    result = SeedCheck(**plain)
    is_plain = isinstance(result.reason, str) and type(result.seconds) in (int, float)
    return result if is_plain and result.verdict in get_args(SeedVerdict) else None


def ignored(config: Config, seeds: tuple[int, int]) -> StudyError:
    """Return the error of a study whose baseline is the same run under two seeds."""
    trainer = trainer_of(config)
    return StudyError(
        f"the seed does not reach the training: under seeds {seeds[0]} and {seeds[1]} the baseline is one and the same run",
        place=next(iter(trainer.keys), None),
        hint=f"{trainer.seed_advice()}; where runs are meant to be equal, say `deterministic: true`",
    )


def _measured(plan: Plan, runs: list[Run], executor: Executor) -> SeedCheck:
    config = plan.config(runs[0])

    def job(number: int) -> Job:
        def payload(slot: Slot) -> RunPayload:
            return RunPayload(
                config=config.tree(),
                seed=runs[number].seed,
                device=slot.device,
                source=config.source,
                data=plan.fingerprint(runs[number]),
                metric=plan.study.metric,
                code=plan.code(runs[number]),
            )

        return Job(f"seed-check-{number}", payload)

    began = time.monotonic()
    try:
        with executor:
            results = run_jobs(executor, [job(number) for number in range(3)], timeout=LONGEST)
    except TrainingError as error:
        return SeedCheck("not checked", error.message, time.monotonic() - began)
    verdict, reason = compared(*(results[f"seed-check-{number}"] for number in range(3)))
    return SeedCheck(verdict, reason, time.monotonic() - began)


def compared(
    one: Finished, again: Finished, other: Finished
) -> tuple[Literal["fixed", "ignored", "never repeatable", "unknown"], str]:
    """Return what three results of `first_epochs` say, the first two of one seed, and why nothing where they do not."""
    repeats = _distances(one.metrics, again.metrics)
    changes = _distances(one.metrics, other.metrics)
    same_seed, other_seed = not any(repeats.values()), not any(changes.values())
    if same_seed and other_seed:
        if one.facts["digits"] >= ENOUGH_DIGITS:
            return "ignored", ""
        return (
            "unknown",
            "the first epochs are alike under both seeds, and show too few digits of a loss to tell",
        )
    if all(repeats[name] <= LAST_DIGITS * changes.get(name, 0.0) for name in repeats):
        return "fixed", ""
    return "never repeatable", ""


def _distances(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return by how much two runs differ in each metric; infinite where only one of them has it, or a number."""
    distances = {}
    for name in {*one, *other}:
        if name not in one or name not in other:
            distances[name] = math.inf
            continue
        a, b = one[name], other[name]
        same = a == b or (math.isnan(a) and math.isnan(b))
        distances[name] = 0.0 if same else abs(a - b) if math.isfinite(a - b) else math.inf
    return distances


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        content = json.loads(plain_files.read(path))
        if isinstance(content, dict):
            return content
    return {}


def _write(path: Path, checks: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a store that cannot be written only costs the check again
        path.parent.mkdir(parents=True, exist_ok=True)
        plain_files.write(path, json.dumps(checks).encode())
