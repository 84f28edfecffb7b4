"""Frames for the analysis: one row for each replicate, and one for each point of its curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablate.metrics import is_by_epoch, is_loss
from ablate.study.record import PlanRecord, RunRecord
from ablate.tracking.queries import StoredRun, queries
from ablate.tracking.runs import Curves, counted_runs, last_value, recorded_outcome
from ablate.tracking.store import Store
from ablate.tracking.tags import number, whole

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from ablate.tracking.columns import Columns

REPLICATE_COLUMNS = (
    "arm",
    "seed",
    "phase",
    "outcome",
    "value",
    "test",
    "weights",
    "trace",
    "resolution",
    "seconds",
    "flops",
    "parameters",
    "epochs",
    "read_at",
    "run_id",
    "key",
    "attempt",
    "reason",
    "device",
    "torch",
    "fused",
    "inputs",
    "source_run",
)
CURVE_COLUMNS = ("arm", "seed", "phase", "epoch", "metric", "value")
NOT_FINITE = " not finite in epoch "
"""What stands in the reason of a run that has diverged, between the metrics that showed it and its last epoch."""

WORTH_SAVING = 20
"""Number of runs missing from the cache from which on it is written again: fewer are read again in no time."""


def plan_frames(
    store: Store, plan: PlanRecord, runs: Mapping[str, StoredRun] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return replicates and curves of a recorded plan: what the analysis reads. runs: of `counted_runs`, where it was called already."""
    import numpy as np

    if runs is None:
        runs = counted_runs(store, plan)

    planned = plan.runs_by_key()
    points = metric_columns(store, list(runs.values()), plan.study)
    metric, counted = plan.metric, np.array([run.epoch for run in runs.values()], dtype=np.int64)
    curve_rows = points.among(lambda name: is_by_epoch(name, metric))
    read_at = points.steps_of(metric, None if plan.own_training else counted)
    measured = (
        points.at(metric, read_at),
        *map(points.at, _final_metrics(metric)),
        points.highest_steps(curve_rows),
        read_at,
        points.not_finite(metric),
    )
    images = _images(plan)
    rows = [
        _row(plan, planned[key], run.tags, values, run.run_id, has_result=run.has_result, images=images)
        for (key, run), *values in zip(runs.items(), *(column.tolist() for column in measured), strict=True)
    ]
    return replicate_frame(rows), _curve_frame(points, curve_rows, [planned[key] for key in runs])


def _curve_frame(points: Columns, rows: npt.NDArray[Any], runs: list[RunRecord]) -> pd.DataFrame:
    """Return the curves frame that `curve_rows` makes run by run; texts are categories, of which there are few.

    rows: indices of the points in it. runs: as planned, in the order of `points`.
    """
    import numpy as np
    import pandas as pd

    owner = points.run[rows]

    def texts(values: list[str], places: Any) -> pd.Categorical:
        code = {name: i for i, name in enumerate(dict.fromkeys(values))}
        codes = np.array([code[name] for name in values], dtype=np.int32)
        return pd.Categorical.from_codes(codes[places], categories=pd.Index(list(code), dtype="str"))

    return pd.DataFrame(
        {
            "arm": texts([run.arm for run in runs], owner),
            "seed": np.array([run.seed for run in runs], dtype=np.int64)[owner],
            "phase": texts([run.phase for run in runs], owner),
            "epoch": points.step[rows].astype(np.int64),
            "metric": texts(list(points.names), points.metric[rows]),
            "value": points.value[rows],
        },
        columns=list(CURVE_COLUMNS),
        copy=False,  # by default pandas lays columns of one kind out together
    )


def metric_columns(store: Store, runs: list[StoredRun], experiment: str) -> Columns:
    """Return every metric of these runs, which have ended: as far as possible from the cache beside the store, else from the store."""
    from ablate.tracking import columns

    path = store.cache(experiment, f"curves-{columns.LAYOUT}")
    cached = columns.load(path)
    wanted = [(run.run_id, run.end or 0.0) for run in runs]
    missing = [run for run in wanted if run not in cached.runs]
    if missing:
        read = queries(store).columns([run for run, _ in missing])
        places = dict(cached.runs) | {run: len(cached.runs) + i for i, run in enumerate(missing)}
        cached = columns.Cached(places, cached.columns + read)
        if len(missing) >= WORTH_SAVING:
            columns.save(path, cached)
    return cached.columns.take([cached.runs[run] for run in wanted])


def replicate_row(
    plan: PlanRecord,
    run: RunRecord,
    tags: Mapping[str, str],
    curves: Curves,
    run_id: str,
    *,
    has_result: bool,
) -> dict[str, Any]:
    """Return one row of the replicates frame, from what was recorded of a run."""
    metric, epoch = plan.metric, whole(tags, "ablate.epoch", 0)
    epochs = max(
        (step for name, points in curves.items() if is_by_epoch(name, metric) for step, _ in points),
        default=0,
    )
    values = dict(curves.get(metric, []))
    read_at = max(values, default=-1) if plan.own_training else epoch if epoch in values else -1
    value = values.get(read_at, math.nan)
    measured = [value, *(last_value(curves, name) for name in _final_metrics(metric)), epochs, read_at]
    measured.append(any(not math.isfinite(value) for value in values.values()))
    return _row(plan, run, tags, measured, run_id, has_result=has_result, images=_images(plan))


def _final_metrics(metric: str) -> tuple[str, ...]:
    """Return the metrics whose last value stands in the replicates frame. metric: of the study."""
    return ("test/" + metric.partition("/")[2], "time/train_seconds", "model/flops", "model/parameters")


def _row(
    plan: PlanRecord,
    run: RunRecord,
    tags: Mapping[str, str],
    measured: Sequence[Any],
    run_id: str,
    *,
    has_result: bool,
    images: Mapping[str, int],
) -> dict[str, Any]:
    """measured: the metric where it counts, those of `_final_metrics`, the last epoch, the one at which the metric counts (-1: it is
    not there), and whether it was no finite number at some epoch. images: of `_images`.
    """
    value, test, seconds, forward, parameters, epochs, read_at, is_broken = measured
    outcome, reason = recorded_outcome(tags, has_result=has_result), tags.get("ablate.reason")
    if outcome in ("finished", "diverged"):
        outcome, reason = _outcome_here(plan, outcome, reason, read_at, is_broken=is_broken)
    trained_images = images.get(run.arm, plan.arms[0].data.train)
    return {
        "arm": run.arm,
        "seed": run.seed,
        "phase": run.phase,
        "outcome": outcome,
        "value": value if outcome == "finished" else math.nan,
        # A metric of the test set is no twin of itself.
        "test": test if outcome == "finished" and not plan.metric.startswith("test/") else math.nan,
        "weights": tags.get("ablate.weights"),
        "trace": tags.get("ablate.trace"),
        "resolution": number(tags, "ablate.resolution", math.nan),
        "seconds": seconds,
        # A backward pass costs about two forward ones.
        "flops": 3 * forward * trained_images * epochs if trained_images else math.nan,
        "parameters": parameters,
        "epochs": epochs,
        # The built-in training may choose an epoch; of any other the last that has the metric counts.
        "read_at": read_at if plan.own_training and read_at >= 0 else math.nan,
        "run_id": run_id,
        "key": run.key,
        "attempt": whole(tags, "ablate.attempt", 1),
        "reason": reason,
        "device": tags.get("ablate.device"),
        "torch": tags.get("ablate.torch"),
        "fused": tags.get("ablate.fused"),
        "inputs": tags.get("ablate.inputs"),
        "source_run": tags.get("ablate.source_run"),
    }


def _outcome_here(
    plan: PlanRecord, outcome: str, reason: str | None, read_at: int, *, is_broken: bool
) -> tuple[str, str | None]:
    """Return how a run with a result ended for a plan, and why, as if it had been trained for the plan's metric.

    The user's own training counts at the last epoch that has the metric, ends where it is no finite number, and has failed without it. What
    another study's metric has ended before its time has no result here.
    """
    if outcome == "finished" and read_at < 0:
        return "failed", f"training never yielded the metric {plan.metric!r}"
    if not plan.own_training:
        return outcome, reason
    if outcome == "finished" and is_broken:
        return "diverged", f"{plan.metric} not finite"
    names, is_told, _ = (reason or "").partition(NOT_FINITE)
    is_of_this = is_broken or any(name == plan.metric or is_loss(name) for name in names.split(", "))
    if outcome == "diverged" and is_told and not is_of_this:
        return (
            "failed",
            f"ended by the metric of another study ({reason}); deleted in MLflow, it is trained again",
        )
    return outcome, reason


def _images(plan: PlanRecord) -> dict[str, int]:
    """Return arm → number of images it trains on."""
    return {arm.name: arm.data.train for arm in plan.arms}


def curve_rows(run: RunRecord, curves: Curves, metric: str) -> list[dict[str, Any]]:
    """Return the rows of the curves frame for one run: the metrics that are logged epoch by epoch. metric: the study's."""
    return [
        {
            "arm": run.arm,
            "seed": run.seed,
            "phase": run.phase,
            "epoch": step,
            "metric": name,
            "value": value,
        }
        for name, points in curves.items()
        if is_by_epoch(name, metric)
        for step, value in points
    ]


def replicate_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the replicates frame of rows that `replicate_row` made."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(REPLICATE_COLUMNS))


def curve_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the curves frame of rows that `curve_rows` made."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(CURVE_COLUMNS))
