"""Delivery: operations of a spool, done on an MLflow store. Every operation is harmless when it is repeated."""

from __future__ import annotations

import base64
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ablate.tracking import client, views
from ablate.tracking import store as stores
from ablate.tracking.queries import search_runs
from ablate.tracking.store import Store

LEASE = 600.0
LONGEST_TAG = 7500
LONGEST_PARAM = 6000
# MLflow takes so many of each in one call, and 1000 in all.
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100

Record = dict[str, Any]


def attach_artifact(store: Store, plan: Mapping[str, Any], name: str, content: bytes) -> None:
    """Keep a file with the plan it is about, as an artifact of its run. plan: as `plans.stored_plans` has it. Raises StoreError."""
    place = urlparse(plan["artifacts"])
    with client.writing(store):
        if place.scheme in ("", "file"):
            folder = Path(unquote(place.path))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            return
        with tempfile.TemporaryDirectory() as aside:
            (Path(aside) / name).write_bytes(content)
            client.connect(store.uri).log_artifacts(plan["run_id"], aside)


class Delivery:
    """Operations on an MLflow store, each harmless when repeated. again: it may have been delivered already."""

    def __init__(self, store: Store) -> None:
        self._client = client.open_for_writing(store)
        self._store = store
        self._experiments: dict[str, str] = {}
        self._known: dict[tuple[str, ...], str] = {}
        self._open: set[str] = set()
        self._artifacts: dict[str, str] = {}

    def deliver(self, records: list[Record], *, again: bool) -> None:
        """Do what the records say, in their order; what several say of one run is done at once."""
        for together in _by_run(records):
            experiment = self._experiment(together[0]["experiment"])
            if together[0]["op"] in _OF_A_REPLICATE:
                self.replicate(experiment, together, again)
            else:
                _OPERATIONS[together[0]["op"]](self, experiment, together[0], again)

    def renew(self) -> None:
        """Say that the runs under way still have an owner."""
        for run in self._open:
            self._client.set_tag(run, "ablate.lease", f"{time.time() + LEASE:.0f}")

    @property
    def under_way(self) -> set[str]:
        """Runs that were opened through this and not closed."""
        return set(self._open)

    def reap(self, run: str) -> None:
        """End a run whose process is gone."""
        self._tag(run, {"ablate.outcome": "failed", "ablate.reason": "its process died"})
        self._client.set_terminated(run, "KILLED")

    # --- operations ---

    def plan(self, experiment: str, record: Record, _again: bool) -> None:
        plan = record["plan"]
        run = self._of_plan(experiment, plan["plan"])
        self._tag(
            run,
            {f"ablate.{name}": value for name, value in record["environment"].items()}
            | {
                "ablate.metric": plan["metric"],
                "ablate.margin": repr(plan["margin"]),
                "ablate.recorded": repr(time.time()),
                "ablate.ending": "killed",  # until `end` says otherwise
            }
            | {"mlflow.note.content": plan["question"]},
        )
        self._files(
            run, {"plan.json": json.dumps(plan, indent=1).encode(), "study.yaml": plan["text"].encode()}
        )
        for arm in plan["arms"]:
            self._dataset(self._arm(experiment, arm["name"]), arm)
        known = self._client.get_experiment(experiment).tags
        for name, value in views.tags(plan["metric"], record["time"]).items():
            if name not in known:  # a view that someone has changed stays changed
                self._client.set_experiment_tag(experiment, name, value)

    def replicate(self, experiment: str, records: list[Record], again: bool) -> None:
        """What happened to one attempt of a replicate, or the next part of it."""
        run = self._replicate(experiment, records[0], again)
        points: list[Point] = []
        tags: dict[str, str] = {}
        params: dict[str, str] = {}
        files: dict[str, bytes] = {}
        status = None
        for record in records:
            points += [
                (name, value, record["time"], record["epoch"])
                for name, value in record.get("metrics", {}).items()
            ]
            match record["op"]:
                case "started":
                    # Not where the run is made: a crash between the two must not leave a run without parameters.
                    params |= {name: str(value)[:LONGEST_PARAM] for name, value in record["params"].items()}
                case "finished":
                    tags |= {f"ablate.{name}": str(value) for name, value in record["facts"].items()}
                    tags |= {"ablate.outcome": record["outcome"], "ablate.epoch": str(record["epoch"])}
                    files |= {name: base64.b64decode(text) for name, text in record["files"].items()}
                    status = "FINISHED"
                case "failed":
                    pruned = record["kind"] == "pruned"
                    tags |= {"ablate.outcome": "pruned" if pruned else "failed"}
                    tags |= {} if pruned else {"ablate.failure": record["kind"]}
                    tags["ablate.reason"] = record["reason"][:4000]
                    if record["detail"]:
                        files["traceback.txt"] = record["detail"].encode()
                    ends = {"cancelled": "KILLED", "pruned": "FINISHED"}
                    status = ends.get(record["kind"], "FAILED")
        self._log(run, points, tags, params)
        self._files(run, files)
        if status is not None:
            self._close(run, status, records[-1]["time"])

    def model(self, experiment: str, record: Record, again: bool) -> None:
        """The network of a run, as a model of MLflow's."""
        from ablate.tracking import model

        run, file = self._replicate(experiment, record, again), Path(record["file"])
        if not file.exists():
            if not self._client.list_artifacts(run, model.FOLDER):
                self._tag(run, {"ablate.model": "not saved: its weights are gone"})
            return
        with tempfile.TemporaryDirectory() as aside:
            try:
                model.write(file, record["config"], Path(aside) / model.FOLDER)
            except Exception as error:  # noqa: BLE001 — a network that torch cannot trace must not hold up the record
                self._tag(run, {"ablate.model": f"not saved: {client.first_line(error)}"})
            else:
                self._client.log_artifacts(run, aside)
        file.unlink(missing_ok=True)

    def copy(self, experiment: str, record: Record, again: bool) -> None:
        facts, source = record["run"], self._client.get_run(record["source"])
        origin = source.data.tags.get("ablate.source_run", record["source"])
        run = (
            self._find(experiment, {"ablate.key": facts["key"], "ablate.source_run": origin})
            if again
            else None
        )
        if run is None:
            its = {
                n: v for n, v in source.data.tags.items() if n.startswith("ablate.") and n not in _OWN_TAGS
            }
            tags = its | _replicate_tags(record) | {"ablate.source_run": origin} | record["tags"]
            run = self._create(
                experiment, _run_name(facts), tags, self._arm(experiment, facts["arm"]), record["time"]
            )
        points = [
            (p.key, p.value, p.timestamp / 1000, p.step)
            for name in source.data.metrics
            for p in self._client.get_metric_history(record["source"], name)
        ]
        self._log(run, points, {}, source.data.params)
        with tempfile.TemporaryDirectory() as folder:
            for item in self._client.list_artifacts(record["source"]):
                self._client.download_artifacts(record["source"], item.path, folder)
            self._client.log_artifacts(run, folder)
        self._close(run, "FINISHED", record["time"])

    def arms(self, experiment: str, record: Record, _again: bool) -> None:
        for name, row in record["arms"].items():
            run = self._arm(experiment, name)
            points = [(n, v, record["time"], record["step"]) for n, v in row["metrics"].items()]
            self._log(run, points, row["tags"])

    def supersede(self, _experiment: str, record: Record, _again: bool) -> None:
        self._tag(record["run_id"], {"ablate.outcome": "superseded", "ablate.superseded_by": record["by"]})

    def end(self, experiment: str, record: Record, again: bool) -> None:
        run = self._of_plan(experiment, record["plan"], reopen=False)
        self._files(run, {name: base64.b64decode(content) for name, content in record["files"].items()})
        note = {"mlflow.note.content": record["note"]} if record.get("note") else {}
        self._tag(run, {"ablate.ending": record["ending"], **note})
        if again:  # the runs that were open are not known here
            self._open |= {
                run,
                *self._found(experiment, "attributes.status = 'RUNNING' and tags.`ablate.kind` = 'arm'"),
            }
        for open_run in [*self._open]:
            self._close(open_run, "FINISHED" if record["ending"] == "complete" else "KILLED", record["time"])

    # --- building blocks ---

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                location = (
                    (self._store.folder("artifacts") / name).resolve().as_uri()
                    if self._store.database
                    else None
                )
                kind = {"mlflow.experimentKind": "custom_model_development"}
                self._experiments[name] = self._client.create_experiment(
                    name, artifact_location=location, tags=kind
                )
            elif found.lifecycle_stage != "active":
                raise client.DeletedExperimentError("the experiment was deleted in MLflow", place=name)
            else:
                self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _of_plan(self, experiment: str, plan: str, *, reopen: bool = True) -> str:
        """The run that carries a plan."""
        tags = {"ablate.kind": "report", "ablate.plan": plan}
        return self._lasting(experiment, ("plan", experiment, plan), f"report · {plan}", tags, reopen=reopen)

    def _arm(self, experiment: str, name: str) -> str:
        """The run under which an arm's replicates are nested, whatever the plan."""
        return self._lasting(
            experiment, ("arm", experiment, name), name, {"ablate.kind": "arm", "ablate.arm": name}
        )

    def _lasting(
        self,
        experiment: str,
        known_as: tuple[str, ...],
        name: str,
        tags: Mapping[str, str],
        *,
        reopen: bool = True,
    ) -> str:
        """A run that goes on from one `ablate run` to the next: found and opened again, or made."""
        if known_as not in self._known:
            run = self._find(experiment, tags)
            if run is None:
                run = self._create(experiment, name, tags)
            elif reopen:
                self._tag(run, {"ablate.owner": stores.owner(), "ablate.lease": f"{time.time() + LEASE:.0f}"})
                self._client.update_run(run, "RUNNING")
                self._open.add(run)
            self._known[known_as] = run
        return self._known[known_as]

    def _replicate(self, experiment: str, record: Record, again: bool) -> str:
        """The run of one attempt of a replicate; made where this is the first that is heard of it."""
        attempt = str(record["attempt"])
        known_as = ("replicate", experiment, record["key"], attempt)
        if known_as not in self._known:
            identity = {"ablate.kind": "replicate", "ablate.key": record["key"], "ablate.attempt": attempt}
            run = self._find(experiment, identity) if again else None
            if run is None:
                facts, config = record["run"], json.dumps(record["config"])
                tags = {f"ablate.{name}": str(value) for name, value in record.get("facts", {}).items()}
                tags |= identity | _replicate_tags(record)
                if len(config) <= LONGEST_TAG:
                    tags["ablate.config"] = config
                run = self._create(
                    experiment, _run_name(facts), tags, self._arm(experiment, facts["arm"]), record["time"]
                )
            self._known[known_as] = run
        return self._known[known_as]

    def _dataset(self, run: str, arm: Record) -> None:
        """Say what an arm is trained on, where MLflow shows data sets; saying it twice says it once."""
        data = arm["data"]
        if not data["fingerprint"]:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        asked = arm["config"]["data"]
        sizes = {name: data[name] for name in ("train", "validation", "test")}
        profile = json.dumps(sizes | {"shape": data["shape"], "classes": len(data["classes"])})
        source = json.dumps({name: value for name, value in asked.items() if value is not None})
        digest = data["fingerprint"][:16]
        found = Dataset(asked["name"], digest, "ablate", source, profile=profile)
        self._client.log_inputs(run, [DatasetInput(found, [InputTag("mlflow.data.context", "training")])])

    def _find(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        quoted = {name: value.replace("'", "\\'") for name, value in tags.items()}
        found = self._found(
            experiment, " and ".join(f"tags.`{name}` = '{value}'" for name, value in quoted.items())
        )
        return found[0] if found else None

    def _found(self, experiment: str, condition: str) -> list[str]:
        return [str(run.info.run_id) for run in search_runs(self._client, [experiment], condition)]

    def _create(
        self,
        experiment: str,
        name: str,
        tags: Mapping[str, str],
        parent: str | None = None,
        at: float | None = None,
    ) -> str:
        study = next(known for known, identity in self._experiments.items() if identity == experiment)
        own = {
            "ablate.study": study,
            "ablate.owner": stores.owner(),
            "ablate.lease": f"{time.time() + LEASE:.0f}",
            **({"mlflow.parentRunId": parent} if parent else {}),
        }
        start = int((at or time.time()) * 1000)
        made = self._client.create_run(experiment, start_time=start, tags={**tags, **own}, run_name=name)
        self._open.add(made.info.run_id)
        self._artifacts[made.info.run_id] = made.info.artifact_uri
        return str(made.info.run_id)

    def _close(self, run: str, status: str, at: float) -> None:
        self._client.set_terminated(run, status, end_time=int(at * 1000))
        self._open.discard(run)
        self._artifacts.pop(run, None)

    def _tag(self, run: str, tags: Mapping[str, str]) -> None:
        self._log(run, [], tags)

    def _log(
        self,
        run: str,
        points: list[Point],
        tags: Mapping[str, str],
        params: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # The event's own time: the same point logged twice is one point.
        metrics = [Metric(name, value, int(at * 1000), step) for name, value, at, step in points]
        labels = [RunTag(name, value) for name, value in tags.items()]
        settings = [Param(name, value) for name, value in (params or {}).items()]
        while metrics or labels or settings:
            self._client.log_batch(
                run, metrics=metrics[:MOST_METRICS], params=settings[:MOST_PARAMS], tags=labels[:MOST_TAGS]
            )
            metrics, settings = metrics[MOST_METRICS:], settings[MOST_PARAMS:]
            labels = labels[MOST_TAGS:]

    def _files(self, run: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        place = urlparse(self._artifacts.get(run, ""))
        if place.scheme == "file":
            # As MLflow would, but for asking its database where.
            folder = Path(unquote(place.path))
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (folder / name).write_bytes(content)
            return
        with tempfile.TemporaryDirectory() as aside:
            for name, content in files.items():
                (Path(aside) / name).write_bytes(content)
            self._client.log_artifacts(run, aside)


Point = tuple[str, float, float, int]
"""Metric, value, seconds since the epoch, step."""

_OF_A_REPLICATE = frozenset({"started", "epoch", "finished", "failed"})


def _by_run(records: list[Record]) -> Iterator[list[Record]]:
    """Records in their order, those of one attempt of a replicate together; none moves past one of another kind."""
    together: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        if record["op"] in _OF_A_REPLICATE:
            attempt = (record["experiment"], record["key"], record["attempt"])
            together.setdefault(attempt, []).append(record)
        else:
            yield from together.values()
            together = {}
            yield [record]
    yield from together.values()


_OWN_TAGS = frozenset({"ablate.owner", "ablate.lease", "ablate.kind", "ablate.study", "ablate.plan"})
_OPERATIONS: Mapping[str, Callable[[Delivery, str, Record, bool], None]] = {
    "plan": Delivery.plan,
    "copy": Delivery.copy,
    "model": Delivery.model,
    "arms": Delivery.arms,
    "supersede": Delivery.supersede,
    "end": Delivery.end,
}


def _replicate_tags(record: Record) -> dict[str, str]:
    run = record["run"]
    return {
        "ablate.kind": "replicate",
        "ablate.plan": record["plan"],
        "ablate.arm": run["arm"],
        "ablate.seed": str(run["seed"]),
        "ablate.phase": run["phase"],
        "ablate.key": run["key"],
        "ablate.recipe": run["recipe"],
    } | ({"ablate.values": json.dumps(run["values"])} if run.get("values") else {})


def _run_name(run: Mapping[str, Any]) -> str:
    return f"{run['arm']} · seed {run['seed']}"
