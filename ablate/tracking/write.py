"""Writing the record: a thread of its own, fed through a spool on disk.

Everything to be recorded is first a line in `mlruns/spool/`, then delivered to MLflow in order. A slow or absent server
therefore never holds up training, and what a killed process had not delivered is delivered by the next one. Delivery may
be repeated after a crash; every operation is written so that doing it twice is doing it once.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import unquote, urlparse

from ablate.config import Config
from ablate.errors import StoreError
from ablate.events import EpochEnd, Event, Failed, Finished, Started
from ablate.study.design import Run
from ablate.tracking import store as stores
from ablate.tracking import views
from ablate.tracking.store import Store

LEASE = 600.0
RENEW = 120.0
RETRY_AFTER = (0.2, 0.5, 1, 2, 5, 10)
LONGEST_TAG = 7500
LONGEST_PARAM = 6000
MOST_AT_ONCE = 100
# MLflow takes so many of each in one call, and 1000 in all.
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100

Record = dict[str, Any]


class Tracker:
    """Takes operations from the coordinator, at once; delivers them to MLflow in a thread.

    problem: what keeps it from delivering, for the display; None while all is well. broken: why it never will, because the
    store cannot be opened; what was put stays spooled. planned: whether a plan was recorded, or extended, since this was opened.
    """

    def __init__(self, store: Store, experiment: str) -> None:
        self._store = store
        self._experiment = experiment
        self.problem: str | None = None
        self.broken: StoreError | None = None
        self._path = store.folder("spool") / f"{int(time.time() * 1000):013d}-{uuid.uuid4().hex[:8]}.jsonl"
        self._file = _own(self._path)
        self._inbox: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._delivered = 0
        self._spooled = 0
        self._changed = threading.Condition()
        self._give_up = threading.Event()
        self.planned = False
        self._thread = threading.Thread(target=self._work, name="ablate tracker", daemon=True)
        self._thread.start()

    # --- operations ---

    def plan(self, record: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Record a plan, or the plan again with what has been added to it."""
        self.planned = True
        self._put({"op": "plan", "plan": dict(record), "environment": dict(environment)})

    def event(self, event: Event, run: Run, config: Config, plan: str) -> None:
        """Record what happened to a run."""
        base: Record = {"key": run.key, "attempt": event.attempt, "time": event.time}
        base |= {"run": _facts(run), "plan": plan, "config": config.tree()}
        match event:
            case Started():
                params = {name: value for name, value in config.flatten().items() if name != "seed"}
                self._put(base | {"op": "started", "params": params, "facts": dict(event.facts)})
            case EpochEnd():
                self._put(base | {"op": "epoch", "epoch": event.epoch, "metrics": dict(event.metrics)})
            case Finished():
                files = {name: base64.b64encode(content).decode() for name, content in event.files.items()}
                ended = {"outcome": event.outcome, "epoch": event.epoch, "metrics": dict(event.metrics)}
                self._put(base | {"op": "finished", "facts": dict(event.facts), "files": files} | ended)
                if event.model is not None:
                    # By itself, after the result: tracing a network takes seconds.
                    self._put(base | {"op": "model", "file": event.model})
            case Failed():
                failed = {"kind": event.kind, "reason": event.reason, "detail": event.detail}
                self._put(base | {"op": "failed"} | failed)

    def copy(self, run: Run, source: str, plan: str, tags: Mapping[str, str] | None = None) -> None:
        """Record a run that was trained for another study, as this study's own."""
        self._put(
            {"op": "copy", "run": _facts(run), "source": source, "plan": plan, "tags": dict(tags or {})}
        )

    def arms(self, rows: Mapping[str, Mapping[str, Any]], step: int) -> None:
        """Record what is known of each arm: name → {"metrics": {…}, "tags": {…}}. step: number of seeds so far."""
        self._put({"op": "arms", "arms": {name: dict(row) for name, row in rows.items()}, "step": step})

    def end(
        self, plan: str, ending: str, files: Mapping[str, bytes] | None = None, note: str | None = None
    ) -> None:
        """Close the plan's own run and the arms'. ending: complete, budget or interrupted. note: what was found, in words."""
        encoded = {name: base64.b64encode(content).decode() for name, content in (files or {}).items()}
        self._put({"op": "end", "plan": plan, "ending": ending, "files": encoded, "note": note})

    def supersede(self, run_id: str, by: str) -> None:
        """Record that a run does not count, because another process had finished the same one before."""
        self._put({"op": "supersede", "run_id": run_id, "by": by})

    # --- life ---

    @property
    def put(self) -> int:
        """How many operations were taken so far."""
        return self._spooled

    @property
    def delivered(self) -> int:
        """How many of them, from the first on, are in the store."""
        return self._delivered

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything put so far is delivered; False where that took longer than `timeout` seconds."""
        with self._changed:
            target = self._spooled
            return self._changed.wait_for(lambda: self._delivered >= target, timeout)

    def settle(self, timeout: float = 30.0) -> None:
        """Wait for what was put so far, as long as something of it is delivered every `timeout` seconds."""
        with self._changed:
            before = -1
            while before < self._delivered < self._spooled and self.broken is None:
                before = self._delivered
                self._changed.wait(timeout)

    def close(self, timeout: float = 30.0) -> bool:
        """Deliver what can be delivered within `timeout` seconds; the rest stays spooled. Whether all was delivered."""
        if self._file.closed:
            return self._delivered == self._spooled
        self._inbox.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._give_up.set()
            self._thread.join(0.5)
        done = self._delivered == self._spooled
        if done:
            _discard(self._path)
        self._file.close()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, record: Record) -> None:
        record = {"experiment": self._experiment, "time": time.time()} | record
        line = json.dumps(record).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise StoreError(
                f"cannot write the spool ({error.strerror})",
                place=str(self._path),
                hint="free some space, then run again",
            ) from None
        with self._changed:
            self._spooled += 1
        self._inbox.put(record)

    def _work(self) -> None:
        delivery: _Delivery | None = None
        due = time.monotonic() + RENEW
        ending = False
        while not ending and not self._give_up.is_set():
            if time.monotonic() > due:
                due = time.monotonic() + RENEW
                if delivery is not None:
                    with contextlib.suppress(Exception):
                        delivery.renew()
            records, ending = self._waiting(due - time.monotonic())
            again = False
            for wait in _forever(RETRY_AFTER):
                try:
                    if records and delivery is None:
                        delivery = _reached(self._store)
                    if delivery is not None:
                        delivery.deliver(records, again=again)
                    break
                except Exception as error:  # noqa: BLE001 — a tracker that is away must not end the study
                    self.problem = _said(error)
                    if (
                        delivery is None
                        and isinstance(error, StoreError)
                        and self._store.database is not None
                    ):
                        self.broken = error
                        return
                    again = True
                    if self._give_up.wait(wait):
                        return
            self.problem = None
            if records:
                with self._changed:
                    self._delivered += len(records)
                    _mark(self._path, self._delivered)
                    self._changed.notify_all()

    def _waiting(self, timeout: float) -> tuple[list[Record], bool]:
        """What waits to be delivered, after `timeout` seconds at most; and whether nothing follows."""
        found: list[Record] = []
        with contextlib.suppress(queue.Empty):
            record = self._inbox.get(timeout=max(0.1, timeout))
            while record is not None and len(found) < MOST_AT_ONCE - 1:
                found.append(record)
                if record["op"] == "model":  # takes its time: what came before it counts as delivered first
                    return found, False
                record = self._inbox.get_nowait()
            if record is None:
                return found, True
            found.append(record)
        return found, False


def _own(path: Path) -> BinaryIO:
    """A new spool. Its lock says that the owner lives: whoever finds a spool unlocked delivers and removes it.

    Between making and locking it, too; so what was locked is held against what lies there.
    """
    while True:
        file = path.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        if _lies_there(file, path):
            return file
        file.close()


def _lies_there(file: BinaryIO, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _facts(run: Run) -> dict[str, Any]:
    return dataclasses.asdict(run)


def recover(store: Store) -> int:
    """Deliver what killed processes left in the spool, and end the runs that died with them.

    What is of an experiment that was deleted in MLflow waits until it is restored: other studies go on.
    Returns the number of runs that were ended. Raises StoreError where the store cannot be reached.
    """
    spool = store.root / "spool"
    left = sorted(spool.glob("*.jsonl")) if spool.is_dir() else []
    delivery: _Delivery | None = None
    for path in left:
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                continue  # its owner has ended meanwhile
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            if not _lies_there(file, path):
                continue  # another process has just delivered it
            records = []
            for line in file.read().splitlines():
                with contextlib.suppress(ValueError):  # the line that was being written when its process died
                    records.append(json.loads(line))
            try:
                delivery = _deliver_left(store, path, records, delivery)
            except _DeletedError:
                continue
            _discard(path)
    from ablate.tracking import read

    # Delivering made this process the owner of runs that the dead one had under way.
    orphans = set(read.orphans(store)) | (delivery.under_way if delivery else set())
    if orphans:
        delivery = delivery or _reached(store)
        for run in orphans:
            with _answering(store):
                delivery.reap(run)
    return len(orphans)


def _deliver_left(
    store: Store, path: Path, records: list[Record], delivery: _Delivery | None
) -> _Delivery | None:
    """Deliver what of a spool's records was not yet. Returns what they were delivered by."""
    delivered = _marked(path)
    while delivered < len(records):
        delivery = delivery or _reached(store)
        some = records[delivered : delivered + MOST_AT_ONCE]
        with _answering(store):
            delivery.deliver(some, again=True)
        delivered += len(some)
        _mark(path, delivered)
    return delivery


class _DeletedError(StoreError):
    """The experiment was deleted in MLflow, so that nothing can be recorded there."""


@contextlib.contextmanager
def _answering(store: Store) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from writing
        raise StoreError(f"cannot be written ({_said(error)})", place=store.uri) from None


def attach(store: Store, plan: Mapping[str, Any], name: str, content: bytes) -> None:
    """Keep a file with the plan it is about, as an artifact of its run. plan: as `read.plans` has it. Raises StoreError."""
    place = urlparse(plan["artifacts"])
    with _answering(store):
        if place.scheme in ("", "file"):
            folder = Path(unquote(place.path))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            return
        with tempfile.TemporaryDirectory() as aside:
            (Path(aside) / name).write_bytes(content)
            client(store.uri).log_artifacts(plan["run_id"], aside)


def _reached(store: Store) -> _Delivery:
    try:
        return _Delivery(store)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from opening it
        said = _said(error)
        if "database schema" in said:
            raise StoreError(
                "the database was made by another version of MLflow",
                place=store.uri,
                hint=f"`mlflow db upgrade {store.uri}` brings an older one up to date (keep a copy); a newer one needs a "
                "newer MLflow",
            ) from None
        raise StoreError(f"cannot be opened ({said})", place=store.uri) from None


def _said(error: Exception) -> str:
    """What an exception of MLflow's says, in a line."""
    text = str(getattr(error, "orig", error))
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]


def create(store: Store) -> None:
    """Make a local database, by one process only: MLflow's own migration is not safe against a second one."""
    if store.database is None or store.database.exists():
        return
    folder = store.folder("locks")
    with (folder / "database.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if store.database.exists():
            return
        # Built aside and renamed, so that a killed process leaves no half-made database.
        building = store.database.with_suffix(f".{os.getpid()}.tmp")
        for left in store.database.parent.glob(f"{store.database.stem}.*.tmp*"):
            left.unlink()
        try:
            client(f"{stores.SCHEME}{building}")
            building.rename(store.database)
        except Exception as error:  # noqa: BLE001 — whatever keeps MLflow from making it
            building.unlink(missing_ok=True)
            raise StoreError(
                f"the database cannot be made ({_said(error)})",
                place=str(store.database),
                hint="is there space, and may you write there?",
            ) from None


class _Delivery:
    """Operations on an MLflow store, each harmless when repeated. again: it may have been delivered already."""

    def __init__(self, store: Store) -> None:
        create(store)
        self._store = store
        self._client = client(store.uri)
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
                self._tag(run, {"ablate.model": f"not saved: {_said(error)}"})
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
                raise _DeletedError("the experiment was deleted in MLflow", place=name)
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
        return [str(run.info.run_id) for run in self._client.search_runs([experiment], condition)]

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
_OPERATIONS: Mapping[str, Callable[[_Delivery, str, Record, bool], None]] = {
    "plan": _Delivery.plan,
    "copy": _Delivery.copy,
    "model": _Delivery.model,
    "arms": _Delivery.arms,
    "supersede": _Delivery.supersede,
    "end": _Delivery.end,
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


def client(uri: str) -> Any:
    """MLflow's client on a store, quiet and quick to give up: whoever asks decides whether to ask again."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    from mlflow import MlflowClient

    # MLflow announces its migrations as a server would, and logs every error that it raises; here one line says it.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def _forever(waits: tuple[float, ...]) -> Iterator[float]:
    yield from waits
    while True:
        yield waits[-1]


# How far a spool is delivered stands beside it, in a file that is replaced whole.
def _mark(spool: Path, delivered: int) -> None:
    with contextlib.suppress(OSError):
        aside = spool.with_suffix(".tmp")
        aside.write_text(str(delivered))
        aside.replace(spool.with_suffix(".delivered"))


def _marked(spool: Path) -> int:
    try:
        return int(spool.with_suffix(".delivered").read_text())
    except (OSError, ValueError):
        return 0


def _discard(spool: Path) -> None:
    for path in (spool, spool.with_suffix(".delivered"), spool.with_suffix(".tmp")):
        path.unlink(missing_ok=True)
