"""Which runs the store holds: finished ones that can be reused, duplicates, orphans, and what runs cost."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablate.errors import StoreError
from ablate.study.record import PlanRecord
from ablate.text import counted
from ablate.tracking.queries import StoredRun, queries
from ablate.tracking.store import Store, is_abandoned
from ablate.tracking.tags import is_number, is_whole

if TYPE_CHECKING:
    from ablate.study.design import Run

_RESULT_TAGS = tuple(
    f"ablate.{name}"
    for name in (
        "key",
        "outcome",
        "attempt",
        "epoch",
        "weights",
        "trace",
        "reason",
        "resolution",
        "device",
        "torch",
        "fused",
        "inputs",
        "source_run",
    )
)
"""Tags that a row of the replicates frame is made from."""

_ACCEPTED = "ablate.accepted_code"
"""Tag of a run that was taken from older code: the key that it has there."""

SHORT = 2.0
"""Seconds that training may be held up by a database that another program holds."""

ASK_AGAIN_AFTER = 60.0
"""Seconds for which a store that did not answer is not asked for new results."""

Curves = Mapping[str, list[tuple[int, float]]]
"""Metric → [(step, value)], in the order of steps; of equal steps the one that was logged last comes last."""


def finished_runs(
    store: Store,
    keys: Iterable[str],
    *,
    by: Literal["key", "recipe"] = "key",
    first: str | None = None,
    accepted: Callable[[StoredRun], bool] = lambda _: True,
) -> dict[str, StoredRun]:
    """Return the runs with a result, in any experiment, by their key (or recipe, which does not depend on the training code).

    first: an experiment whose own runs are preferred, copies among them; otherwise the oldest run counts. accepted: whether a
    run may count at all.
    """
    wanted = set(keys)
    finished: dict[str, StoredRun] = {}
    # A single run is selected by its key, so that asking costs the same however many runs there are.
    single = {f"ablate.{by}": next(iter(wanted))} if len(wanted) == 1 else {}
    for run in queries(store).runs({"ablate.kind": "replicate"} | single):
        name = run.tags.get(f"ablate.{by}", "")
        if name not in wanted or not run.has_result or not accepted(run):
            continue
        if name not in finished or (run.experiment == first != finished[name].experiment):
            finished[name] = run
    return finished


def same_runs(store: Store, keys: Iterable[str]) -> tuple[set[str], list[str]]:
    """Return these keys with all under which the same trainings stand for other code, and the names of the studies that hold such runs.

    Other keys are those of runs that were taken with --accept-code. However a run ended, it is held.
    """
    same, before = set(keys), -1
    if not same:
        return same, []
    runs = queries(store).runs({"ablate.kind": "replicate"}, only_tags=("ablate.key", _ACCEPTED))
    pairs = [{run.tags.get("ablate.key", ""), run.tags[_ACCEPTED]} for run in runs if _ACCEPTED in run.tags]
    while len(same) > before:
        before = len(same)
        same.update(*(pair for pair in pairs if not pair.isdisjoint(same)))
    return same, sorted({run.experiment for run in runs if run.tags.get("ablate.key") in same})


class NewResults:
    """The runs that ended with a result since this object was made. A lookup costs what has been written since then.

    A store that does not answer has no new results, and is not asked again for a minute: it must not hold up training.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: set[str] = set()
        self._position = queries(store, SHORT).position()
        self._ask_again_at = 0.0

    def __contains__(self, key: str) -> bool:
        if time.monotonic() < self._ask_again_at:
            return False
        try:
            return self._has(key)
        except StoreError:
            self._ask_again_at = time.monotonic() + ASK_AGAIN_AFTER
            return False

    def _has(self, key: str) -> bool:
        source = queries(self._store, SHORT)
        new = source.keys_since(self._position)
        if new is not None:
            keys, self._position = new
            self._keys |= keys
            if key not in self._keys:
                return False
        # A run whose outcome is written may not have been closed yet.
        return bool(finished_runs(self._store, [key]))


def duplicates(store: Store, study: str) -> dict[str, str]:
    """Return the runs of a study that another run had finished before, as two machines at one store may do.

    By run id → the id of the run that counts.
    """
    first: dict[str, StoredRun] = {}
    later: dict[str, str] = {}
    runs = [run for run in queries(store).runs({"ablate.kind": "replicate"}, study) if run.has_result]
    for run in sorted(runs, key=lambda run: (run.end or run.start, run.run_id)):
        counts = first.setdefault(run.tags.get("ablate.key", ""), run)
        if counts is not run:
            later[run.run_id] = counts.run_id
    return later


def orphans(store: Store) -> list[str]:
    """Return the ids of the runs of ablate that are RUNNING though their owner is gone, or its lease has expired."""
    return [run.run_id for run in queries(store).runs({}, status="RUNNING") if is_abandoned(run.tags)]


def is_gone(store: Store, owner: str) -> bool:
    """Return whether a process has trained for the store, and has no run there under a lease any more.

    The store cannot tell of a process that it has never heard of.
    """
    runs = queries(store).runs({"ablate.owner": owner})
    return bool(runs) and all(run.status != "RUNNING" or is_abandoned(run.tags) for run in runs)


def highest_attempts(store: Store, study: str) -> dict[str, int]:
    """Return run key → the highest attempt recorded in a study's experiment."""
    highest: dict[str, int] = {}
    needed = ("ablate.key", "ablate.attempt")
    for run in queries(store).runs({"ablate.kind": "replicate"}, study, only_tags=needed):
        key = run.tags.get("ablate.key", "")
        highest[key] = max(highest.get(key, 0), run.attempt)
    return highest


def recipes(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Return run key → recipe, of runs that were started in any study, whatever became of them."""
    wanted = set(keys)
    if not wanted:
        return {}
    needed = ("ablate.key", "ablate.recipe")
    runs = queries(store).runs({"ablate.kind": "replicate"}, only_tags=needed)
    return {
        run.tags["ablate.key"]: run.tags["ablate.recipe"]
        for run in runs
        if run.tags.get("ablate.key") in wanted and "ablate.recipe" in run.tags
    }


def counted_runs(store: Store, plan: PlanRecord) -> dict[str, StoredRun]:
    """Return run key → the recorded run that counts.

    Of several runs of one replicate the finished one counts, else the last attempt. Runs still under way are left out, and those
    that were killed: they have no outcome, and the next command trains them again.
    """
    planned = {run.key for run in plan.runs}
    counted: dict[str, StoredRun] = {}
    for run in queries(store).runs({"ablate.kind": "replicate"}, plan.study, only_tags=_RESULT_TAGS):
        key = run.tags.get("ablate.key", "")
        if key not in planned or run.status in ("RUNNING", "KILLED"):
            continue
        other = counted.get(key)
        if other is None or (run.has_result, run.attempt) > (other.has_result, other.attempt):
            counted[key] = run
    return counted


def damaged_tags(runs: Iterable[StoredRun]) -> list[str]:
    """Return in sentences which tags of runs hold no number where they should."""
    checks: Mapping[str, Callable[[str], bool]] = {
        "epoch": is_whole,
        "attempt": is_whole,
        "resolution": is_number,
    }
    wrong: Counter[str] = Counter()
    for run in runs:
        wrong.update(n for n, right in checks.items() if not right(run.tags.get(f"ablate.{n}", "0")))
    consequences = {
        "epoch": "; what it is judged by is not known, so that it counts as failed and is trained again"
    }
    return [
        f"the tag ablate.{name} of {counted(number, 'run')} holds no number{consequences.get(name, '')}"
        for name, number in wrong.items()
    ]


def outcome_counts(store: Store, plan: PlanRecord) -> Counter[str]:
    """Return how many replicates of a recorded plan ended in which way, counted as in the replicates frame."""
    return Counter(
        recorded_outcome(run.tags, has_result=run.has_result) for run in counted_runs(store, plan).values()
    )


def recorded_outcome(tags: Mapping[str, str], *, has_result: bool) -> str:
    """Return how a run ended: finished, diverged, pruned or failed."""
    outcome = tags.get("ablate.outcome", "failed")
    return outcome if has_result or outcome == "pruned" else "failed"


def search_runs(store: Store, study: str, plan: str) -> list[Run]:
    """Return what a plan's searches have trained so far, whether it was recorded with the plan or not."""
    from ablate.study.design import Run  # which takes longer to import than a status to read

    tags = {"ablate.kind": "replicate", "ablate.phase": "tune", "ablate.plan": plan}
    searched = []
    for run in queries(store).runs(tags, study):
        # Of a run whose tags somebody has changed, it is not known what it tried: it counts as not there.
        with contextlib.suppress(ValueError, LookupError, RecursionError):
            values = json.loads(run.tags["ablate.values"])
            seed = int(run.tags["ablate.seed"])
            if isinstance(values, dict):
                key, recipe = run.tags["ablate.key"], run.tags.get("ablate.recipe", "")
                searched.append(Run(key, recipe, run.tags["ablate.arm"], seed, "tune", values))
    return searched


@dataclass(frozen=True)
class RecordedCost:
    """What a finished run cost, and where. seconds: of its device. device: `cpu` or `cuda`."""

    seconds: float
    parameters: int | None
    flops: int | None
    device: str
    host: str


def run_costs(store: Store, keys: Iterable[str]) -> dict[str, RecordedCost]:
    """Return the costs of the finished runs of these keys, in any study, by key; runs whose time was not recorded are left out."""
    costs = {}
    for key, run, points in _with_curves(store, keys):
        seconds = last_value(points, "time/train_seconds")
        sizes = (last_value(points, "model/parameters"), last_value(points, "model/flops"))
        if math.isfinite(seconds):
            parameters, flops = (int(size) if math.isfinite(size) else None for size in sizes)
            device = run.tags.get("ablate.device", "").partition(":")[0]
            host = run.tags.get("ablate.host", "")
            costs[key] = RecordedCost(seconds, parameters, flops, device, host)
    return costs


def metric_values(store: Store, keys: Iterable[str], metric: str) -> list[float]:
    """Return the finite values of a metric at the epoch that counts, of the finished runs of these keys, in any study."""
    values = [
        dict(points.get(metric, [])).get(run.epoch, math.nan)
        for _, run, points in _with_curves(store, keys)
        if run.tags["ablate.outcome"] == "finished"
    ]
    return [value for value in values if math.isfinite(value)]


def _with_curves(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, StoredRun, Curves]]:
    """Yield the finished runs of these keys, each with its key and its metrics."""
    runs = finished_runs(store, keys)
    curves = run_curves(store, [run.run_id for run in runs.values()])
    yield from ((key, run, curves[run.run_id]) for key, run in runs.items())


def run_curves(store: Store, run_ids: list[str]) -> Mapping[str, Curves]:
    """Return every metric of some runs, by run id."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {run: {} for run in run_ids}
    if run_ids:
        points = queries(store).points(run_ids)
        for i, metric, step, _, value in sorted(points, key=lambda point: point[:4]):
            curves[run_ids[i]].setdefault(metric, []).append((step, value))
    return curves


def last_value(curves: Curves, metric: str) -> float:
    """Return the last value of a metric, NaN where the run has none."""
    values = curves.get(metric)
    return values[-1][1] if values else math.nan
