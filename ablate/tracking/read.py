"""Reading the record: frames for the analysis, plans as they were recorded, runs that can be reused.

A local store is read with SQL, because MLflow's client needs seconds for what sqlite answers in a fraction; any other
store through the client. Both give the same frames.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlparse

from ablate.errors import StoreError, nearest
from ablate.tracking import store as stores
from ablate.tracking.store import Store

if TYPE_CHECKING:
    import numpy.typing as npt
    import pandas as pd

    from ablate.tracking.columns import Columns
    from ablate.tracking.predictions import Answers, Predictions

FINAL_METRICS = ("test/", "time/", "model/")
REPLICATE_COLUMNS = (
    "arm",
    "seed",
    "phase",
    "outcome",
    "value",
    "test",
    "weights",
    "trace",
    "seconds",
    "flops",
    "parameters",
    "epochs",
    "run_id",
    "key",
    "attempt",
    "reason",
    "device",
    "torch",
    "fused",
    "source_run",
)
CURVE_COLUMNS = ("arm", "seed", "phase", "epoch", "metric", "value")
WORTH_KEEPING = 20
"""Runs that were not in the cache, from which on it is written anew: fewer are read again in no time."""

AA_OFFSET = 1000
"""Seed of the first A/A run, as in `study.design`, which takes longer to import than a report to read."""

Outcome = Literal["finished", "diverged", "failed"]


@dataclass(frozen=True)
class Recorded:
    """A run as the store holds it. start, end: seconds since the epoch; end None while it runs."""

    run_id: str
    experiment: str
    status: str
    start: float
    end: float | None
    artifacts: str
    tags: Mapping[str, str]

    @property
    def done(self) -> bool:
        """It has a result, `diverged` counting as one."""
        return self.status == "FINISHED" and self.tags.get("ablate.outcome") in ("finished", "diverged")

    @property
    def attempt(self) -> int:
        return int(self.tags.get("ablate.attempt", 1))

    @property
    def epoch(self) -> int:
        """The epoch at which the primary metric counts; 0 where the run has none."""
        return int(self.tags.get("ablate.epoch", 0))


Points = dict[str, list[tuple[int, float]]]
"""Metric → [(step, value)], in the order of steps."""


def experiments(store: Store) -> list[str]:
    """Names of the experiments that hold studies, the latest first."""
    if not store.exists:
        return []
    if store.database is not None:
        with _sql(store) as db:
            rows = db.execute(
                "SELECT e.name, max(r.start_time) AS latest FROM experiments e JOIN runs r USING (experiment_id) "
                "JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'ablate.kind' AND t.value = 'report' "
                "WHERE e.lifecycle_stage = 'active' AND r.lifecycle_stage = 'active' GROUP BY e.name ORDER BY latest DESC"
            )
            return [str(name) for name, _ in rows]
    with _asked(store) as client:
        found = {
            e.name: max(
                (run.info.start_time for run in client.search_runs([e.experiment_id], _IS_REPORT)),
                default=None,
            )
            for e in client.search_experiments()
        }
    return sorted(
        (name for name, at in found.items() if at is not None), key=lambda name: -(found[name] or 0)
    )


def experiment_id(store: Store, study: str) -> str:
    """How a server names a study's experiment in its addresses; empty where there is none."""
    with _asked(store) as client:
        found = client.get_experiment_by_name(study)
    return str(found.experiment_id) if found else ""


def plans(store: Store, study: str) -> list[dict[str, Any]]:
    """The plans recorded for a study, the latest last; each as `Plan.record()`, with `run_id`, `status`,
    `environment` and where its `artifacts` lie.

    Raises StoreError where the study is not in the store.
    """
    runs = [run for run in _runs(store, {"ablate.kind": "report"}, study) if "ablate.plan" in run.tags]
    if not runs:
        known = experiments(store)
        raise StoreError(
            f"there is no study {study!r} in {store.uri}",
            hint=nearest(study, known) if known else "`ablate run studies/quickstart.yaml` makes one",
        )
    found = []
    for run in sorted(runs, key=lambda run: float(run.tags.get("ablate.recorded", run.start))):
        text = artifact(store, run, "plan.json")
        if text is None:
            continue
        environment = {
            n.removeprefix("ablate."): v
            for n, v in run.tags.items()
            if n.removeprefix("ablate.") in _ENVIRONMENT
        }
        found.append(
            json.loads(text)
            | {"run_id": run.run_id, "status": run.status, "environment": environment}
            | {"artifacts": run.artifacts}
        )
    return found


def verdicts(store: Store, plan: Mapping[str, Any]) -> Counter[str]:
    """How many arms, or effects, got which verdict when the plan last ended; nothing where it has not."""
    identity = {"ablate.kind": "report", "ablate.plan": plan["plan"]}
    texts = [artifact(store, run, "verdicts.json") for run in _runs(store, identity, plan["study"])]
    none: dict[str, Any] = {"arms": [], "effects": []}
    found = next((json.loads(text) for text in texts if text), none)
    return Counter(item["verdict"] for item in [*found["arms"], *found["effects"]])


_ENVIRONMENT = frozenset(
    {"command", "version", "commit", "python", "torch", "mlflow", "optuna", "host", "recorded", "ending"}
)
_RESULT = tuple(
    f"ablate.{name}"
    for name in (
        "key",
        "outcome",
        "attempt",
        "epoch",
        "weights",
        "trace",
        "reason",
        "device",
        "torch",
        "fused",
        "source_run",
    )
)
"""Tags that a row of the replicates frame is made from."""
_IS_REPORT = "tags.`ablate.kind` = 'report'"


def done(
    store: Store, keys: Iterable[str], *, by: Literal["key", "recipe"] = "key", first: str | None = None
) -> dict[str, Recorded]:
    """Runs with a result, in any experiment, by their key (or recipe, which does not depend on the training code).

    first: an experiment whose own runs are preferred, copies among them; else the oldest run counts.
    """
    wanted = set(keys)
    found: dict[str, Recorded] = {}
    # One is looked for by itself, so that asking costs the same however many runs there are.
    one = {f"ablate.{by}": next(iter(wanted))} if len(wanted) == 1 else {}
    for run in _runs(store, {"ablate.kind": "replicate"} | one):
        name = run.tags.get(f"ablate.{by}", "")
        if name not in wanted or not run.done:
            continue
        if name not in found or (run.experiment == first != found[name].experiment):
            found[name] = run
    return found


class Meanwhile:
    """Runs that ended with a result since this was made. Asking costs what has come since then, however much there was before."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: set[str] = set()
        self._seen = 0
        if store.database is not None and store.exists:
            with _sql(store) as db:
                self._seen = self._newest(db)

    def __contains__(self, key: str) -> bool:
        if self._store.database is None:
            return bool(done(self._store, [key]))
        self._look()
        # What has an outcome may still be without its end.
        return key in self._keys and bool(done(self._store, [key]))

    def _look(self) -> None:
        if not self._store.exists:
            return
        with _sql(self._store) as db:
            newest = self._newest(db)
            rows = db.execute(
                "SELECT k.value FROM tags t CROSS JOIN tags k ON k.run_uuid = t.run_uuid AND k.key = 'ablate.key' "
                "WHERE t.rowid > ? AND +t.key = 'ablate.outcome'",
                [self._seen],
            )
            self._keys.update(str(key) for (key,) in rows)
        self._seen = newest

    @staticmethod
    def _newest(db: sqlite3.Connection) -> int:
        """Rows are numbered as they come."""
        return int(db.execute("SELECT coalesce(max(rowid), 0) FROM tags").fetchone()[0])


def doubles(store: Store, study: str) -> dict[str, str]:
    """Runs of a study that another run had finished before, as two machines at one store may do → the one that counts."""
    first: dict[str, Recorded] = {}
    found: dict[str, str] = {}
    runs = [run for run in _runs(store, {"ablate.kind": "replicate"}, study) if run.done]
    for run in sorted(runs, key=lambda run: (run.end or run.start, run.run_id)):
        counts = first.setdefault(run.tags.get("ablate.key", ""), run)
        if counts is not run:
            found[run.run_id] = counts.run_id
    return found


def orphans(store: Store) -> list[str]:
    """Runs of ours that are RUNNING though their owner is gone, or its lease has passed."""
    import time

    if not store.exists:
        return []
    return [
        run.run_id
        for run in _runs(store, {}, status="RUNNING")
        if (owner := run.tags.get("ablate.owner"))
        and (stores.is_dead(owner) or float(run.tags.get("ablate.lease", 0)) < time.time())
    ]


def chosen(store: Store, plan: Mapping[str, Any]) -> dict[str, Recorded]:
    """Run key → the recorded run that counts.

    Of several runs of one replicate the finished one counts, else the last attempt. Runs still under way are left out, and those
    that were broken off: they have no outcome, and the next command does them again.
    """
    planned = {run["key"] for run in plan["runs"]}
    found: dict[str, Recorded] = {}
    for run in _runs(store, {"ablate.kind": "replicate"}, plan["study"], tags_of=_RESULT):
        key = run.tags.get("ablate.key", "")
        if key not in planned or run.status in ("RUNNING", "KILLED"):
            continue
        old = found.get(key)
        if old is None or (run.done, run.attempt) > (old.done, old.attempt):
            found[key] = run
    return found


def outcomes(store: Store, plan: Mapping[str, Any]) -> Counter[str]:
    """How many replicates of a recorded plan ended in which way, counted as in `frames`."""
    return Counter(_outcome(run.tags, done=run.done) for run in chosen(store, plan).values())


def _outcome(tags: Mapping[str, str], *, done: bool) -> str:
    outcome = tags.get("ablate.outcome", "failed")
    return outcome if done or outcome == "pruned" else "failed"


def frames(
    store: Store, plan: Mapping[str, Any], found: Mapping[str, Recorded] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Replicates and curves of a recorded plan: what the analysis reads. found: of `chosen`, where that was asked already."""
    import numpy as np

    recorded = chosen(store, plan) if found is None else found
    planned = {run["key"]: run for run in plan["runs"]}
    runs = list(recorded.values())
    points = _columns(store, runs, plan["study"])
    metric, counted = plan["metric"], np.array([run.epoch for run in runs], dtype=np.int64)
    curves = points.among(_is_curve)
    epochs = np.zeros(len(runs), dtype=np.int64)
    np.maximum.at(epochs, points.run[curves], points.step[curves])
    measured = (points.at(metric, counted), *map(points.at, _at_end(metric)), epochs)
    images = _images(plan)
    rows = [
        _row(plan, planned[key], run.tags, mine, run.run_id, done=run.done, images=images)
        for (key, run), *mine in zip(recorded.items(), *(of.tolist() for of in measured), strict=True)
    ]
    of = [planned[key] for key in recorded]
    return frame(rows, REPLICATE_COLUMNS), _curves_frame(points, curves, of)


def _curves_frame(found: Columns, rows: npt.NDArray[Any], runs: list[Mapping[str, Any]]) -> pd.DataFrame:
    """The curves frame, as `curve` makes it run by run; texts are categories, of which there are few. rows: the points in it."""
    import numpy as np
    import pandas as pd

    owner = found.run[rows]

    def texts(of: list[str], places: Any) -> pd.Categorical:
        code = {name: i for i, name in enumerate(dict.fromkeys(of))}
        codes = np.array([code[name] for name in of], dtype=np.int32)
        return pd.Categorical.from_codes(codes[places], categories=pd.Index(list(code), dtype="str"))

    return pd.DataFrame(
        {
            "arm": texts([run["arm"] for run in runs], owner),
            "seed": np.array([run["seed"] for run in runs], dtype=np.int64)[owner],
            "phase": texts([run["phase"] for run in runs], owner),
            "epoch": found.step[rows].astype(np.int64),
            "metric": texts(list(found.names), found.metric[rows]),
            "value": found.value[rows],
        },
        columns=list(CURVE_COLUMNS),
    )


def _columns(store: Store, runs: list[Recorded], experiment: str) -> Columns:
    """Every metric of these runs, which have ended: from the cache beside the store as far as it goes, then from the store."""
    from ablate.tracking import columns

    path = store.root / "cache" / f"{experiment}.curves-{columns.LAYOUT}.npz"
    cached = columns.load(path)
    wanted = [(run.run_id, run.end or 0.0) for run in runs]
    missing = [run for run in wanted if run not in cached.runs]
    if missing:
        found = _read_columns(store, [run for run, _ in missing])
        places = dict(cached.runs) | {run: len(cached.runs) + i for i, run in enumerate(missing)}
        cached = columns.Cached(places, cached.columns + found)
        if len(missing) >= WORTH_KEEPING:
            columns.save(path, cached)
    return cached.columns.take([cached.runs[run] for run in wanted])


def _read_columns(store: Store, run_ids: list[str]) -> Columns:
    from ablate.tracking.columns import Columns

    if store.database is None:
        asked = _asked_points(store, run_ids)
        points = [(i, *point) for i, run in enumerate(run_ids) for point in asked[run]]
        return Columns.of(len(run_ids), points)
    with _sql(store) as db:
        # The index of the run comes from the list of runs itself, so that no text is made for every point.
        rows = db.execute(
            "SELECT j.key, m.key, m.step, m.timestamp, CASE WHEN m.is_nan THEN NULL ELSE m.value END "
            "FROM json_each(?) j CROSS JOIN metrics m ON m.run_uuid = j.value",
            [json.dumps(run_ids)],
        ).fetchall()
    return Columns.of(len(run_ids), rows)


def replicate(
    plan: Mapping[str, Any],
    run: Mapping[str, Any],
    tags: Mapping[str, str],
    points: Mapping[str, list[tuple[int, float]]],
    run_id: str,
    *,
    done: bool,
) -> dict[str, Any]:
    """One row of the replicates frame, from what was recorded of a run."""
    metric, epoch = plan["metric"], int(tags.get("ablate.epoch", 0))
    epochs = max((step for name in filter(_is_curve, points) for step, _ in points[name]), default=0)
    value = dict(points.get(metric, [])).get(epoch, math.nan)
    measured = [value, *(_last(points, name) for name in _at_end(metric)), epochs]
    return _row(plan, run, tags, measured, run_id, done=done, images=_images(plan))


def _is_curve(metric: str) -> bool:
    """Whether a metric is logged epoch by epoch."""
    return not metric.startswith(FINAL_METRICS)


def _at_end(metric: str) -> tuple[str, ...]:
    """The metrics whose last value stands in the replicates frame. metric: of the study."""
    return ("test/" + metric.partition("/")[2], "time/train_seconds", "model/flops", "model/parameters")


def _row(
    plan: Mapping[str, Any],
    run: Mapping[str, Any],
    tags: Mapping[str, str],
    measured: Sequence[Any],
    run_id: str,
    *,
    done: bool,
    images: Mapping[str, int],
) -> dict[str, Any]:
    """measured: the metric at the epoch that counts, those of `_at_end`, the last epoch. images: of `_images`."""
    outcome = _outcome(tags, done=done)
    value, test, seconds, forward, parameters, epochs = measured
    seen = images.get(run["arm"], plan["arms"][0]["data"]["train"])
    return {
        "arm": run["arm"],
        "seed": run["seed"],
        "phase": run["phase"],
        "outcome": outcome,
        "value": value if outcome == "finished" else math.nan,
        "test": test if outcome == "finished" else math.nan,
        "weights": tags.get("ablate.weights"),
        "trace": tags.get("ablate.trace"),
        "seconds": seconds,
        # A backward pass costs about two forward ones.
        "flops": 3 * forward * seen * epochs if seen else math.nan,
        "parameters": parameters,
        "epochs": epochs,
        "run_id": run_id,
        "key": run["key"],
        "attempt": int(tags.get("ablate.attempt", 1)),
        "reason": tags.get("ablate.reason"),
        "device": tags.get("ablate.device"),
        "torch": tags.get("ablate.torch"),
        "fused": tags.get("ablate.fused"),
        "source_run": tags.get("ablate.source_run"),
    }


def _images(plan: Mapping[str, Any]) -> dict[str, int]:
    """Arm → number of images it trains on."""
    return {arm["name"]: arm["data"]["train"] for arm in plan["arms"]}


def curve(run: Mapping[str, Any], points: Mapping[str, list[tuple[int, float]]]) -> list[dict[str, Any]]:
    """Rows of the curves frame: the metrics that are logged epoch by epoch."""
    return [
        {
            "arm": run["arm"],
            "seed": run["seed"],
            "phase": run["phase"],
            "epoch": step,
            "metric": metric,
            "value": value,
        }
        for metric in filter(_is_curve, points)
        for step, value in points[metric]
    ]


def frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns))


def tried(store: Store, study: str, plan: str) -> list[dict[str, Any]]:
    """What a plan's searches have trained so far, whether it was recorded with the plan or not: as in its `runs`."""
    found = _runs(store, {"ablate.kind": "replicate", "ablate.phase": "tune", "ablate.plan": plan}, study)
    return [
        {
            "key": run.tags["ablate.key"],
            "recipe": run.tags.get("ablate.recipe", ""),
            "arm": run.tags["ablate.arm"],
            "seed": int(run.tags["ablate.seed"]),
            "phase": "tune",
            "values": json.loads(run.tags["ablate.values"]),
        }
        for run in found
        if "ablate.values" in run.tags
    ]


def artifact(store: Store, run: Recorded, name: str) -> bytes | None:
    """Content of an artifact of a run, None where it has none of that name."""
    place = urlparse(run.artifacts)
    if place.scheme in ("", "file"):
        path = Path(unquote(place.path)) / name
        return path.read_bytes() if path.exists() else None
    import tempfile

    with _asked(store) as client, tempfile.TemporaryDirectory() as folder:
        if name not in {item.path for item in client.list_artifacts(run.run_id)}:
            return None
        return Path(client.download_artifacts(run.run_id, name, folder)).read_bytes()


@dataclass(frozen=True)
class Classified:
    """What the finished runs of a plan said about the images.

    confusion: arm → (classes, classes) counts on the test images, summed over seeds, rows the truth. validation, test: arm → whether
    each image was classified correctly, a frame (index: seeds, columns: where the image stands among the training, or the test
    images). They hold only arms that saw the same images as what they are held against, under every seed: the test images are the
    same whatever the split and the subset; A/A has the seeds that it is held against. validation is empty unless the metric is
    the share that was right. truth: (images,) classes of the test images.
    """

    confusion: Mapping[str, npt.NDArray[Any]]
    validation: Mapping[str, pd.DataFrame]
    test: Mapping[str, pd.DataFrame]
    truth: npt.NDArray[Any]


def classified(store: Store, plan: Mapping[str, Any], found: Mapping[str, Recorded]) -> Classified:
    """What the finished report runs of a plan, and those of A/A, said about the images. found: of `chosen`."""
    import numpy as np

    from ablate.tracking import predictions

    planned = {run["key"]: run for run in plan["runs"]}
    runs = [
        (planned[key], run)
        for key, run in found.items()
        if planned[key]["phase"] in ("report", "A/A")
        and run.tags.get("ablate.outcome") == "finished"
        and run.done
    ]
    held = _predictions(store, [run for _, run in runs], plan["study"])
    confusion: dict[str, Any] = {}
    validation: dict[str, dict[int, predictions.Answers]] = {}
    test: dict[str, dict[int, predictions.Answers]] = {}
    for of, run in runs:
        arm, seed = of["arm"], of["seed"] - (AA_OFFSET if of["phase"] == "A/A" else 0)
        seen = held.runs[run.run_id, run.end or 0.0]
        if seen.confusion.size and of["phase"] == "report":
            old = confusion.get(arm)
            usable = old is None or old.shape == seen.confusion.shape
            confusion[arm] = seen.confusion.astype(np.int64) + (0 if old is None else old) if usable else old
        if seen.validation.images and plan["metric"] == "val/accuracy" and of["phase"] == "report":
            validation.setdefault(arm, {})[seed] = seen.validation
        if seen.test.images:
            test.setdefault(arm, {})[seed] = seen.test
    validation, test = _on_the_same(plan, validation), _on_the_same(plan, test)
    digest = next((one.images for one in test.get(plan["reference"], {}).values()), predictions.NONE)
    return Classified(
        confusion,
        predictions.Frames(validation, held),
        predictions.Frames(test, held),
        held.images[digest].truth,
    )


def _on_the_same(
    plan: Mapping[str, Any], answers: Mapping[str, dict[int, Answers]]
) -> dict[str, dict[int, Answers]]:
    """The arms whose runs all saw the same images as those of the arm they are held against, and so on up to the plan's reference."""
    arms = {arm["name"]: arm for arm in plan["arms"]}
    root = plan["reference"]
    saw = {name: {one.images for one in of.values()} for name, of in answers.items()}

    def same(name: str) -> bool:
        if len(saw.get(name, ())) != 1:
            return False
        if name == root:
            return True
        # A/A is the reference itself.
        arm = arms.get(name, arms[root])
        other = arm.get("reference") or root
        return saw[name] == saw.get(other) and _same_source(arm, arms[other]) and same(other)

    return {name: of for name, of in answers.items() if same(name)}


_WHAT_IS_MADE = frozenset({"subset", "validation", "split", "normalize", "resize", "channels"})
"""Fields of `data` that leave it whose images they are, and their order."""


def _same_source(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two arms have the same images, though they may be of another size or colour.

    Places and classes do not tell: two folders with as many images of each class have those in common.
    """

    def source(arm: Mapping[str, Any]) -> Any:
        data = arm["config"].get("data")
        return {k: v for k, v in data.items() if k not in _WHAT_IS_MADE} if isinstance(data, dict) else data

    fingerprints = one["data"]["fingerprint"], other["data"]["fingerprint"]
    return fingerprints[0] == fingerprints[1] or bool(source(one) == source(other))


def _predictions(store: Store, runs: list[Recorded], experiment: str) -> Predictions:
    """Of runs that have finished: from the cache beside the store as far as it goes, then from their artifacts."""
    from ablate.tracking import predictions

    path = store.root / "cache" / f"{experiment}.predictions-{predictions.LAYOUT}.npz"
    cached = predictions.load(path)
    missing = [run for run in runs if (run.run_id, run.end or 0.0) not in cached.runs]
    if missing:
        met: predictions.Met = {}
        added = {}
        for run in missing:
            matrix, predicted = (artifact(store, run, name) for name in predictions.FILES)
            added[run.run_id, run.end or 0.0] = predictions.read(matrix, predicted, met)
        images = {**cached.images, **dict(met.values())}
        cached = predictions.Predictions({**cached.runs, **added}, images)
        if len(missing) >= WORTH_KEEPING:
            predictions.save(path, cached)
    return cached


def attempts(store: Store, study: str) -> dict[str, int]:
    """Run key → the highest attempt recorded in a study's experiment."""
    highest: dict[str, int] = {}
    if not store.exists:
        return highest
    for run in _runs(store, {"ablate.kind": "replicate"}, study):
        key = run.tags.get("ablate.key", "")
        highest[key] = max(highest.get(key, 0), run.attempt)
    return highest


def recipes(store: Store, keys: Iterable[str]) -> dict[str, str]:
    """Run key → its recipe, of runs that were begun in any study, whatever became of them."""
    wanted = set(keys)
    if not wanted:
        return {}
    needed = ("ablate.key", "ablate.recipe")
    runs = [run.tags for run in _runs(store, {"ablate.kind": "replicate"}, tags_of=needed)]
    return {tags["ablate.key"]: tags["ablate.recipe"] for tags in runs if tags.get("ablate.key") in wanted}


@dataclass(frozen=True)
class RunCost:
    """What a finished run took, and where. seconds: of its device. device: `cpu` or `cuda`."""

    seconds: float
    parameters: int | None
    flops: int | None
    device: str
    host: str


def run_costs(store: Store, keys: Iterable[str]) -> list[RunCost]:
    """What the finished runs of these keys took, in whatever study; those whose time was not recorded are left out."""
    costs = []
    for run, points in _with_points(store, keys):
        seconds = _last(points, "time/train_seconds")
        sizes = (_last(points, "model/parameters"), _last(points, "model/flops"))
        if math.isfinite(seconds):
            parameters, flops = (int(size) if math.isfinite(size) else None for size in sizes)
            device = run.tags.get("ablate.device", "").partition(":")[0]
            costs.append(RunCost(seconds, parameters, flops, device, run.tags.get("ablate.host", "")))
    return costs


def values(store: Store, keys: Iterable[str], metric: str) -> list[float]:
    """The metric at the epoch that counts, of every finished run of these keys, in whatever study; finite ones only."""
    found = [
        dict(points.get(metric, [])).get(int(run.tags["ablate.epoch"]), math.nan)
        for run, points in _with_points(store, keys)
        if run.tags["ablate.outcome"] == "finished"
    ]
    return [value for value in found if math.isfinite(value)]


def _with_points(store: Store, keys: Iterable[str]) -> Iterator[tuple[Recorded, Points]]:
    """The finished runs of these keys, each with its metrics."""
    found = list(done(store, keys).values())
    for experiment in {run.experiment for run in found}:
        mine = [run for run in found if run.experiment == experiment]
        of = points(store, [run.run_id for run in mine], experiment)
        yield from ((run, of[run.run_id]) for run in mine)


def refuse_deleted(store: Store, study: str) -> None:
    """Raise StoreError where the study's experiment was deleted in MLflow: nothing could be recorded there."""
    if not store.exists:
        return
    if store.database is not None:
        with _sql(store) as db:
            found = db.execute(
                "SELECT experiment_id FROM experiments WHERE name = ? AND lifecycle_stage <> 'active'",
                [study],
            ).fetchone()
            identity = found and found[0]
    else:
        with _asked(store) as client:
            experiment = client.get_experiment_by_name(study)
        identity = experiment.experiment_id if experiment and experiment.lifecycle_stage != "active" else None
    if identity:
        raise StoreError(
            "the experiment was deleted in MLflow",
            place=study,
            hint=f"restore it with `mlflow experiments restore -x {identity}`, or rename the study",
        )


def _last(points: Mapping[str, list[tuple[int, float]]], metric: str) -> float:
    values = points.get(metric)
    return values[-1][1] if values else math.nan


# --- two ways to read ---------------------------------------------------------------------------------------------


def _runs(
    store: Store,
    tags: Mapping[str, str],
    experiment: str | None = None,
    status: str | None = None,
    *,
    tags_of: tuple[str, ...] = (),
) -> list[Recorded]:
    """Active runs that carry the given tags. tags_of: the tags that are needed of them; none: all of ours."""
    if not store.exists:
        return []
    if store.database is not None:
        return _sql_runs(store, tags, experiment, status, tags_of)
    with _asked(store) as client:
        return _client_runs(client, tags, experiment, status)


def _client_runs(
    client: Any, tags: Mapping[str, str], experiment: str | None, status: str | None
) -> list[Recorded]:
    if experiment is not None:
        one = client.get_experiment_by_name(experiment)
        among = [one] if one is not None and one.lifecycle_stage == "active" else []
    else:
        among = list(client.search_experiments())
    names = {e.experiment_id: e.name for e in among}
    parts = [f"tags.`{name}` = '{value}'" for name, value in tags.items()]
    parts += [f"attributes.status = '{status}'"] if status else []
    found, token = [], None
    while names:
        page = client.search_runs(list(names), " and ".join(parts), max_results=1000, page_token=token)
        found += [
            Recorded(
                run.info.run_id,
                names[run.info.experiment_id],
                run.info.status,
                run.info.start_time / 1000,
                run.info.end_time / 1000 if run.info.end_time else None,
                run.info.artifact_uri,
                dict(run.data.tags),
            )
            for run in page
        ]
        token = page.token
        if not token:
            break
    return sorted(found, key=lambda run: run.start)


def _sql_runs(
    store: Store,
    tags: Mapping[str, str],
    experiment: str | None,
    status: str | None,
    tags_of: tuple[str, ...],
) -> list[Recorded]:
    where = ["r.lifecycle_stage = 'active'", "e.lifecycle_stage = 'active'"]
    values: list[str] = []
    for name, value in tags.items():
        where.append("r.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)")
        values += [name, value]
    if experiment is not None:
        where.append("e.name = ?")
        values.append(experiment)
    if status is not None:
        where.append("r.status = ?")
        values.append(status)
    chosen = f"FROM runs r JOIN experiments e USING (experiment_id) WHERE {' AND '.join(where)}"
    with _sql(store) as db:
        rows = db.execute(
            f"SELECT r.run_uuid, e.name, r.status, r.start_time, r.end_time, r.artifact_uri {chosen} ORDER BY r.start_time",
            values,
        ).fetchall()
        named = f"+key IN ({', '.join('?' * len(tags_of))})" if tags_of else "key LIKE 'ablate.%'"
        of = dict(
            db.execute(
                # An object a run: fewer and shorter rows. The whole config is for those who look into MLflow; it is longer than all
                # else together.
                f"SELECT run_uuid, json_group_object(key, value) FROM tags WHERE {named} AND key <> 'ablate.config' "  # noqa: S608
                f"AND run_uuid IN (SELECT r.run_uuid {chosen}) GROUP BY run_uuid",
                [*tags_of, *values],
            )
        )
    return [
        Recorded(
            run,
            name,
            state,
            start / 1000,
            end / 1000 if end else None,
            artifacts,
            json.loads(of.get(run, "{}")),
        )
        for run, name, state, start, end, artifacts in rows
    ]


def points(store: Store, run_ids: list[str], experiment: str) -> dict[str, Points]:
    """Every metric of runs of one experiment, by run id."""
    found: dict[str, Points] = {run: {} for run in run_ids}
    if not run_ids:
        return found
    if store.database is None:
        for run, asked in _asked_points(store, run_ids).items():
            for metric, step, _, value in sorted(asked, key=lambda point: point[:3]):
                found[run].setdefault(metric, []).append((step, value))
        return found
    with _sql(store) as db:
        rows = db.execute(
            "SELECT m.run_uuid, m.key, m.step, m.value, m.is_nan FROM metrics m JOIN runs r USING (run_uuid) "
            "JOIN experiments e USING (experiment_id) WHERE e.name = ? ORDER BY m.step, m.timestamp",
            [experiment],
        )
        for run, metric, step, value, is_nan in rows:
            if run in found:
                found[run].setdefault(metric, []).append((step, math.nan if is_nan else value))
    return found


def _asked_points(store: Store, run_ids: list[str]) -> dict[str, list[tuple[str, int, int, float]]]:
    """(metric, step, time, value) of every point, by run id, from a store that is no local file."""
    with _asked(store) as client:
        return {
            run: [
                (metric, point.step, point.timestamp, point.value)
                for metric in client.get_run(run).data.metrics
                for point in client.get_metric_history(run, metric)
            ]
            for run in run_ids
        }


@contextlib.contextmanager
def _sql(store: Store) -> Iterator[sqlite3.Connection]:
    assert store.database is not None
    try:
        # Not `mode=ro`: a journal that a killed writer left behind has to be rolled back before anything can be read.
        with contextlib.closing(
            sqlite3.connect(f"file:{store.database}?mode=rw", uri=True, timeout=30)
        ) as db:
            yield db
    except sqlite3.Error as error:
        raise StoreError(
            f"cannot be read as an MLflow database ({error})",
            place=str(store.database),
            hint="`mlflow db upgrade` may help",
        ) from None


@contextlib.contextmanager
def _asked(store: Store) -> Iterator[Any]:
    """MLflow's client on a store that is no local file. Raises StoreError where it does not answer."""
    from mlflow.exceptions import MlflowException

    from ablate.tracking import write

    try:
        yield write.client(store.uri)
    except (MlflowException, OSError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        # What follows is the whole stack of the HTTP library, in one line.
        said = re.sub(r" failed with exception .*", " failed", said)
        raise StoreError(
            f"the store does not answer ({said[:300]})",
            place=store.uri,
            hint="is the server running? MLFLOW_TRACKING_URI names it; unset, everything stays under ./mlruns",
        ) from None
