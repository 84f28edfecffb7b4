"""Delivery: operations of a spool, done on an MLflow store. Every operation is harmless when it is repeated."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ablate import addresses, plain_files
from ablate.config import RunConfig, flatten_tree
from ablate.errors import StoreError
from ablate.study.record import ArmRecord, PlanRecord
from ablate.text import cut, format_level, storable, without_password
from ablate.tracking import client, views
from ablate.tracking import store as stores
from ablate.tracking.operations import (
    AttemptOperation,
    CopyRun,
    EndPlan,
    FailAttempt,
    FinishAttempt,
    LogEpoch,
    Opening,
    Operation,
    RunFacts,
    SaveModel,
    StartAttempt,
    StorePlan,
    SummariseArms,
    SupersedeRun,
    to_json,
)
from ablate.tracking.queries import queries
from ablate.tracking.rejected import Rejected, Rejection, is_refusal, is_unclear, reason
from ablate.tracking.store import Store
from ablate.tracking.tags import number

LEASE = 600.0
"""Seconds for which a run belongs to its owner without being renewed."""

LONGEST_TAG = 7500
LONGEST_PARAM = 6000
LONGEST_REASON = 4000
TRACEBACK = "traceback.txt"
# MLflow takes so many of each in one call, and 1000 in all.
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 800, 100, 100

Kind = Literal["metrics", "params", "tags"]
"""What a client logs."""

Point = tuple[str, float, float, int]
"""Metric, value, seconds since the epoch, step."""

Permit = Callable[[RunConfig], None]
"""Raises NotPermittedError where the code that a config names may not be imported."""


class NotPermittedError(Exception):
    """Code of the user's that a record names may not be imported. Its text says which, and how it can be allowed."""


def permit_nothing(config: RunConfig) -> None:
    """Raise NotPermittedError for a config that names any code of the user's."""
    for target in (config.model.target_to_import, config.data.target_to_import):
        if target is not None:
            raise NotPermittedError(f"to store it would import {target.partition(':')[0]!r}")


_NOT_COPIED = frozenset({"ablate.owner", "ablate.lease", "ablate.kind", "ablate.study", "ablate.plan"})
"""Tags that a copy of a run has of its own."""


def attach_artifact(store: Store, plan: PlanRecord, name: str, content: bytes) -> None:
    """Store a file with a plan, as an artifact of the run that carries the plan. Raises StoreError."""
    runs = queries(store).runs({"ablate.kind": "report", "ablate.plan": plan.id}, plan.study)
    if not runs:
        raise StoreError(f"there is no plan {plan.id}", place=plan.study)
    folder = _local_folder(store, runs[0].artifacts, runs[0].run_id)
    with client.writing(store):
        if folder is not None:
            plain_files.write(plain_files.inner(folder, name), content)
            return
        with tempfile.TemporaryDirectory() as temporary:
            (Path(temporary) / name).write_bytes(content)
            client.connect(store.uri).log_artifacts(runs[0].run_id, temporary)


class Delivery:
    """Does operations on an MLflow store. again: they may have been done already, wholly or in part.

    rejected: takes what MLflow refuses, down to a single metric of a run; the rest of it is done.
    Without `recovering` the operations are this process's own. recovering: they were left by another process, named by
    `stores.owner()` ('' where its spool does not name it). Only runs of that process are then changed: what another process has
    worked on since stays as it is. permit: of these operations, says where the code that a config names may not be imported, as it is
    where its network is built; None: no code of the user's may be. patience: seconds that a local database is waited for while another
    process writes. waiting: weights that stay in the store's folder: why their networks may not be built here → runs. steps: how many
    operations were tried, for whoever wonders whether it goes on.
    """

    def __init__(
        self,
        store: Store,
        rejected: Rejected,
        recovering: str | None = None,
        permit: Permit | None = None,
        patience: float | None = None,
    ) -> None:
        self._client = client.open_for_writing(store, patience)
        self._store = store
        self._rejected = rejected
        self._subject = ("", "")
        self._recovering = recovering is not None
        self._permit = permit
        self.waiting: dict[str, list[str]] = {}
        self._owner = stores.owner() if recovering is None else recovering
        self._experiments: dict[str, str] = {}
        self._latest_start = 0
        self._openings: dict[tuple[str, str, int], Opening] = {}
        self._attempts: dict[tuple[str, str, int], str] = {}
        self._shared: dict[tuple[str, str, str], str] = {}
        self._arm_names: dict[str, set[str]] = {}
        self._arms: dict[str, dict[str, str]] = {}
        self._last_active: dict[str, float] = {}
        self._others_recorded: dict[str, float] = {}
        self.steps = 0
        self._open_attempts: set[str] = set()
        self._open_shared: set[str] = set()
        self._artifacts: dict[str, str] = {}

    def deliver(self, operations: Sequence[Operation], *, again: bool) -> None:
        """Do the operations in their order; several on one attempt of a replicate are done at once.

        On a local database they are one transaction, but for networks, which take seconds to store. Raises what keeps the store from
        taking anything. What it refuses is set aside.
        """
        self.resume(operations)
        groups = itertools.groupby(_by_attempt(operations), key=lambda group: isinstance(group[0], SaveModel))
        for is_model, together in groups:
            before = self._known_runs()
            try:
                with contextlib.nullcontext() if is_model else self._client.together():
                    for group in together:
                        self._do_or_set_aside_each(group, again=again)
            except BaseException:
                if self._client.undoes and not is_model:
                    self._forget(before)
                raise

    def _do_or_set_aside_each(self, group: Sequence[Operation], *, again: bool) -> None:
        """Do a group; where it is refused, each of its operations by itself, so that only what is refused is set aside."""
        self._subject = (group[0].experiment, self._run_of(group[0]))
        self.steps += len(group)
        try:
            self._try(group, again=again)
        except Exception as error:
            if not self._is_refused(error):
                raise
            for operation in group:
                self._do_or_set_aside(operation, error, alone=len(group) == 1)

    def _do_or_set_aside(self, operation: Operation, error: Exception, *, alone: bool) -> None:
        """Do an operation of a group that was refused; set it aside where it is refused by itself. error: of the group."""
        refused = error
        if not alone:
            try:
                self._try([operation], again=True)
            except Exception as its_own:
                if not self._is_refused(its_own):
                    raise
                refused = its_own
            else:
                return
        self._set_aside(f"its record {operation.op!r}", refused, to_json(operation))

    def _try(self, group: Sequence[Operation], *, again: bool) -> None:
        """Do a group; once more where it was the store that may have failed, and takes other records."""
        try:
            self._do(group, again=again)
        except Exception as error:
            if not is_unclear(error):
                raise
            experiment = self._experiment(group[0].experiment)
            self._client.set_experiment_tag(experiment, "ablate.checked", f"{time.time():.0f}")
            try:
                self._do(group, again=True)
            except Exception as second:
                if is_unclear(second):
                    raise RefusedError(reason(second)) from None
                raise

    def _is_refused(self, error: Exception) -> bool:
        return isinstance(error, RefusedError) or is_refusal(error)

    def _set_aside(self, what: str, error: BaseException, record: Any) -> None:
        self._rejected.add(Rejection(*self._subject, what, reason(error)), record)

    def _run_of(self, operation: Operation) -> str:
        """Return what a run that an operation is about is called: arm and seed where they are known, else its key."""
        if isinstance(operation, CopyRun):
            return _run_name(operation.run)
        if not isinstance(operation, AttemptOperation):
            return ""
        opening = self._openings.get(_attempt(operation))
        return operation.key if opening is None else _run_name(opening.run)

    def _do(self, group: Sequence[Operation], *, again: bool) -> None:
        experiment = self._experiment(group[0].experiment)
        match group[0]:
            case SaveModel() as operation:
                self._save_model(experiment, operation, again=again)
            case AttemptOperation():
                self._attempt_operations(experiment, group, again=again)
            case StorePlan() as operation:
                self._store_plan(experiment, operation)
            case CopyRun() as operation:
                self._copy_run(experiment, operation, again=again)
            case SummariseArms() as operation:
                self._summarise_arms(experiment, operation)
            case SupersedeRun() as operation:
                tags = {"ablate.outcome": "superseded", "ablate.superseded_by": operation.by}
                self._client.get_run(operation.run_id)
                self._tag(operation.run_id, tags)
            case EndPlan() as operation:
                self._end_plan(experiment, operation)

    def _known_runs(self) -> tuple[Any, ...]:
        """Return a copy of what is known of the store's runs, for `_forget`."""
        return tuple(
            known.copy()
            for known in (
                self._experiments,
                self._attempts,
                self._shared,
                self._open_attempts,
                self._open_shared,
                self._artifacts,
            )
        )

    def _forget(self, before: tuple[Any, ...]) -> None:
        """Forget what was learnt since `before`: the transaction was rolled back, and its runs with it."""
        (
            self._experiments,
            self._attempts,
            self._shared,
            self._open_attempts,
            self._open_shared,
            self._artifacts,
        ) = before
        self._arms.clear()

    def resume(self, operations: Sequence[Operation]) -> None:
        """Take from operations what later ones refer to, without doing them."""
        for operation in operations:
            names = self._arm_names.setdefault(operation.experiment, set())
            match operation:
                case AttemptOperation(opening=Opening() as opening):
                    self._openings[_attempt(operation)] = opening
                    names.add(opening.run.arm)
                case StorePlan():
                    names.update(arm.name for arm in operation.plan.arms)
                case CopyRun():
                    names.add(operation.run.arm)
                case SummariseArms():
                    names.update(operation.arms)

    def renew(self) -> None:
        """Renew the lease of the runs under way."""
        for run in self._open_attempts | self._open_shared:
            self._client.set_tag(run, "ablate.lease", f"{time.time() + LEASE:.0f}")

    def end_abandoned(self, operations: Sequence[Operation]) -> int:
        """End the runs that the owner of a spool had under way when it died. operations: all of the spool, delivered.

        Returns the number of runs that were ended.
        """
        ends = {
            _attempt(operation): isinstance(operation, FinishAttempt | FailAttempt)
            for operation in operations
            if isinstance(operation, AttemptOperation) and not isinstance(operation, SaveModel)
        }
        runs = self._open_attempts | self._open_shared
        for (study, key, attempt), ended in ends.items():
            if not ended:
                with self._going_on():
                    run = self._find(self._experiment(study), _identity(key, attempt), own=True)
                    runs |= {run.info.run_id} if run is not None else set()
        plans = {(op.experiment, op.plan.id) for op in operations if isinstance(op, StorePlan)}
        for study, plan in plans:
            with self._going_on():
                runs |= set(self._shared_runs(study, plan, own=True))
        ended_runs = 0
        for run_id in runs:
            with self._going_on():
                if self._client.get_run(run_id).info.status == "RUNNING":
                    self.end_killed(run_id)
                    ended_runs += 1
        return ended_runs

    def remove_unfinished_files(self, studies: Collection[str]) -> None:
        """Remove the files that a process was writing among the artifacts of some studies when it was killed."""
        if not self._client.undoes:
            return  # on a server, whoever keeps the artifacts sees to them
        # Delivery writes files within its transaction, so that none is being written while this one lasts.
        with self._client.together():
            for study in studies:
                for path in (self._store.root / "artifacts" / study).glob("*/artifacts/.*.tmp"):
                    with contextlib.suppress(OSError):
                        path.unlink()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """Let a run be that cannot be found or ended: it is gone, or nothing of it was recorded."""
        try:
            yield
        except Exception as error:
            if not self._is_refused(error):
                raise

    def end_killed(self, run: str) -> None:
        """End a run whose process is gone."""
        self._tag(run, {"ablate.outcome": "failed", "ablate.reason": "its process died"})
        self._client.set_terminated(run, "KILLED")

    # --- operations ---

    def _store_plan(self, experiment: str, operation: StorePlan) -> None:
        plan = operation.plan
        run = self._plan_run(experiment, plan.id)
        if not self._is_later(run, operation):
            self._tag(
                run,
                {f"ablate.{name}": value for name, value in operation.environment.items()}
                | {
                    "ablate.metric": plan.metric,
                    "ablate.margin": repr(plan.margin),
                    "ablate.recorded": repr(self._recorded_at(experiment, run, operation.time)),
                    "ablate.ending": "killed",  # until the plan is ended
                }
                | {"mlflow.note.content": plan.question},
            )
            files = {
                "plan.json": json.dumps(plan.to_json(), indent=1).encode(),
                "study.yaml": plan.text.encode(),
            }
            self._files(run, files)
        # What was judged trained on nothing that is known.
        for arm in plan.arms if plan.judged is None else ():
            self._dataset(self._arm_run(experiment, arm.name), arm, plan.declared.get("data"))
        present = self._client.get_experiment(experiment).tags
        for name, value in views.tags(plan.metric, operation.time).items():
            if name not in present:  # a view that someone has changed stays changed
                self._client.set_experiment_tag(experiment, name, value)

    def _recorded_at(self, experiment: str, plan_run: str, at: float) -> float:
        """Return when a plan counts as recorded: at that time, or right after the study's other plans where the clock has gone back since.

        What is recorded last is the latest plan, which a study's name stands for. What a killed process left may be older than others.
        """
        if self._recovering:
            return at
        if plan_run not in self._others_recorded:
            others = (run for run in self._client.matching(experiment, {"ablate.kind": "report"}))
            times = (
                number(run.data.tags, "ablate.recorded", 0) for run in others if run.info.run_id != plan_run
            )
            self._others_recorded[plan_run] = max(times, default=0.0)
        return max(at, self._others_recorded[plan_run] + 0.001)

    def _attempt_operations(self, experiment: str, operations: Sequence[Operation], *, again: bool) -> None:
        """Record what happened to one attempt of a replicate, or the next part of it."""
        first = operations[0]
        assert isinstance(first, AttemptOperation)
        run = self._attempt_run(experiment, first, again=again)
        if run is None:
            return
        points: list[Point] = []
        tags: dict[str, str] = {}
        params: dict[str, str] = {}
        files: dict[str, bytes] = {}
        status = None
        for operation in operations:
            match operation:
                case StartAttempt():
                    # Not where the run is made: a crash between the two must not leave a run without parameters.
                    config = flatten_tree(self._openings[_attempt(operation)].config)
                    params = {n: _param(v)[:LONGEST_PARAM] for n, v in config.items() if n != "seed"}
                case LogEpoch():
                    points += [(n, v, operation.time, operation.epoch) for n, v in operation.metrics.items()]
                case FinishAttempt():
                    points += [(n, v, operation.time, operation.epoch) for n, v in operation.metrics.items()]
                    tags |= {f"ablate.{name}": str(value) for name, value in operation.facts.items()}
                    tags |= {"ablate.outcome": operation.outcome, "ablate.epoch": str(operation.epoch)}
                    files |= operation.files
                    status = "FINISHED"
                case FailAttempt():
                    pruned = operation.kind == "pruned"
                    tags |= {"ablate.outcome": "pruned" if pruned else "failed"}
                    tags |= {} if pruned else {"ablate.failure": operation.kind}
                    tags["ablate.reason"] = operation.reason[:LONGEST_REASON]
                    files |= operation.files
                    if operation.detail:
                        files[TRACEBACK] = operation.detail.encode()
                    statuses = {"cancelled": "KILLED", "pruned": "FINISHED"}
                    status = statuses.get(operation.kind, "FAILED")
        self._log(run, points, tags, params)
        self._files(run, files)
        if status is not None:
            self._close(run, status, operations[-1].time)

    def _save_model(self, experiment: str, operation: SaveModel, *, again: bool) -> None:
        """Store the network of a run as a model of MLflow's."""
        from ablate.tracking import model

        run = self._attempt_run(experiment, operation, again=again)
        if run is None:
            return
        # Only from the store's own folder, whatever folder is written down: a spool may be from somebody else.
        file = self._model_file(operation)
        try:
            opened = plain_files.open_plain(file)
            with opened as weights, tempfile.TemporaryDirectory() as folder:
                try:
                    opening = self._openings[_attempt(operation)]
                    if self._recovering and self._may_not_be_built(opening):
                        return
                    copy = Path(folder) / file.name
                    with copy.open("wb") as target:
                        shutil.copyfileobj(weights, target)
                    model.write(copy, opening.config, Path(folder) / "files" / model.FOLDER)
                except Exception as error:  # noqa: BLE001 — a network that torch cannot trace must not hold up the record
                    self._tag(run, {"ablate.model": f"not saved: {client.first_line(error)}"})
                else:
                    self._client.log_artifacts(run, str(Path(folder) / "files"))
        except OSError:
            if not self._client.list_artifacts(run, model.FOLDER):
                self._tag(run, {"ablate.model": "not saved: its weights are gone"})
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)

    def _model_file(self, operation: SaveModel) -> Path:
        return self._store.root / "models" / f"{operation.key}-{operation.attempt}.pt"

    def _may_not_be_built(self, opening: Opening) -> bool:
        """Return whether the network of a run is one that this process may not build; it is noted then.

        Raises AblateError where the config is none.
        """
        try:
            (self._permit or permit_nothing)(RunConfig.parse(opening.config))
        except NotPermittedError as error:
            self.waiting.setdefault(str(error), []).append(_run_name(opening.run))
            return True
        return False

    def deliver_waiting(self, operations: Sequence[Operation]) -> None:
        """Store the networks of delivered operations whose weights are still there: an earlier process might not build them."""
        self.deliver(
            [
                operation
                for operation in operations
                if isinstance(operation, SaveModel) and self._model_file(operation).exists()
            ],
            again=True,
        )

    def _copy_run(self, experiment: str, operation: CopyRun, *, again: bool) -> None:
        source = self._client.get_run(operation.source)
        origin = source.data.tags.get("ablate.source_run", operation.source)
        identity = {"ablate.key": operation.run.key, "ablate.source_run": origin}
        copy = self._find(experiment, identity, own=True) if again else None
        if copy is not None:
            run = str(copy.info.run_id)
        else:
            tags = {
                name: value
                for name, value in source.data.tags.items()
                if name.startswith("ablate.") and name not in _NOT_COPIED
            }
            tags |= _run_tags(operation.run, operation.plan) | {"ablate.source_run": origin}
            tags |= operation.tags
            parent = self._arm_run(experiment, operation.run.arm)
            run = self._create(experiment, _run_name(operation.run), tags, parent, operation.time)
            self._open_attempts.add(run)
        points = [
            (point.key, point.value, point.timestamp / 1000, point.step)
            for name in source.data.metrics
            for point in self._client.get_metric_history(operation.source, name)
        ]
        self._log(run, points, {}, source.data.params)
        with tempfile.TemporaryDirectory() as folder:
            for name in self._artifact_names(operation.source):
                try:
                    self._client.download_artifacts(operation.source, name, folder)
                except Exception as error:
                    if not (
                        self._is_refused(error) or isinstance(error, FileNotFoundError | PermissionError)
                    ):
                        raise
                    self._set_aside(
                        f"file {cut(storable(name))!r} of {operation.source}", error, {"name": name}
                    )
            self._client.log_artifacts(run, folder)
        self._close(run, "FINISHED", operation.time)

    def _artifact_names(self, run: str) -> list[str]:
        """Return the names of a run's artifacts; none, and that set aside, where they cannot be listed."""
        try:
            return [str(item.path) for item in self._client.list_artifacts(run)]
        except Exception as error:
            if not (self._is_refused(error) or isinstance(error, FileNotFoundError | PermissionError)):
                raise
            self._set_aside(f"the files of {run}", error, {"run": run})
            return []

    def _summarise_arms(self, experiment: str, operation: SummariseArms) -> None:
        for name, summary in operation.arms.items():
            run = self._arm_run(experiment, name)
            if not self._is_later(run, operation):
                points = [(n, v, operation.time, operation.step) for n, v in summary["metrics"].items()]
                self._log(run, points, summary["tags"])

    def _end_plan(self, experiment: str, operation: EndPlan) -> None:
        run = self._plan_run(experiment, operation.plan, reopen=False)
        if not self._is_later(run, operation):
            self._files(run, operation.files)
            note = {"mlflow.note.content": operation.note} if operation.note else {}
            self._tag(run, {"ablate.ending": operation.ending, **note})
        shared = set(self._open_shared)
        if self._recovering:  # the process that had them open is another
            shared |= set(self._shared_runs(operation.experiment, operation.plan))
        for open_run in shared:
            if not self._is_later(open_run, operation):
                status = "FINISHED" if operation.ending == "complete" else "KILLED"
                self._close(open_run, status, operation.time)
        if not self._recovering:
            for attempt in [*self._open_attempts]:  # what has no result by now gets none
                self._close(attempt, "KILLED", operation.time)

    # --- building blocks ---

    def _experiment(self, name: str) -> str:
        """Return the id of a study's experiment, which is made where there is none."""
        if name not in self._experiments:
            experiment = self._client.get_experiment_by_name(name)
            if experiment is None:
                location = (
                    addresses.folder_address((self._store.folder("artifacts") / name).resolve())
                    if self._store.database
                    else None
                )
                kind = {"mlflow.experimentKind": "custom_model_development"}
                self._experiments[name] = self._client.create_experiment(
                    name, artifact_location=location, tags=kind
                )
            elif experiment.lifecycle_stage != "active":
                raise client.DeletedExperimentError("the experiment was deleted in MLflow", place=name)
            else:
                self._experiments[name] = experiment.experiment_id
        return self._experiments[name]

    def _plan_run(self, experiment: str, plan: str, *, reopen: bool = True) -> str:
        """Return the run that carries a plan."""
        tags = {"ablate.kind": "report", "ablate.plan": plan}
        return self._shared_run(experiment, f"report · {plan}", tags, reopen=reopen)

    def _arm_run(self, experiment: str, name: str) -> str:
        """Return the run under which an arm's replicates are nested, whatever the plan."""
        return self._shared_run(experiment, name, {"ablate.kind": "arm", "ablate.arm": name})

    def _shared_run(self, experiment: str, name: str, tags: Mapping[str, str], *, reopen: bool = True) -> str:
        """Return a run that every `ablate run` of a study continues; made where there is none, and else opened again."""
        known = (experiment, tags["ablate.kind"], name)
        if known not in self._shared:
            run = self._find_shared(experiment, tags)
            if run is None:
                self._shared[known] = self._create(experiment, name, tags)
                self._open_shared.add(self._shared[known])
                if "ablate.arm" in tags:
                    self._arms[experiment][tags["ablate.arm"]] = self._shared[known]
                return self._shared[known]
            self._shared[known] = str(run.info.run_id)
            if self._recovering:
                self._note_owner(run)
            elif reopen:
                lease = f"{time.time() + LEASE:.0f}"
                self._tag(self._shared[known], {"ablate.owner": self._owner, "ablate.lease": lease})
                self._client.update_run(self._shared[known], "RUNNING")
                self._open_shared.add(self._shared[known])
        return self._shared[known]

    def _shared_runs(self, study: str, plan: str, *, own: bool = False) -> list[str]:
        """Return the runs of a plan and of the arms that the operations name, as far as they are there.

        own: only those that belong to the owner of the operations.
        """
        experiment = self._experiment(study)
        identities = [{"ablate.kind": "report", "ablate.plan": plan}]
        identities += [{"ablate.kind": "arm", "ablate.arm": name} for name in self._arm_names.get(study, ())]
        runs = [run for tags in identities if (run := self._find_shared(experiment, tags)) is not None]
        for run in runs:
            self._note_owner(run)
        return [str(run.info.run_id) for run in runs if not own or self._is_own(run.data.tags)]

    def _attempt_run(self, experiment: str, operation: AttemptOperation, *, again: bool) -> str | None:
        """Return the run of one attempt of a replicate; made where this is its first operation.

        None where the run is not there and nothing is known to make it from.
        """
        attempt = _attempt(operation)
        if attempt not in self._attempts:
            identity = _identity(operation.key, operation.attempt)
            run = self._find(experiment, identity, own=True) if again else None
            opening = self._openings.get(attempt)
            if run is not None:
                self._attempts[attempt] = str(run.info.run_id)
                if run.info.status == "RUNNING":
                    self._open_attempts.add(self._attempts[attempt])
            elif opening is None:
                return None
            else:
                facts = operation.facts if isinstance(operation, StartAttempt | FinishAttempt) else {}
                tags = {f"ablate.{name}": str(value) for name, value in facts.items()}
                tags |= identity | _run_tags(opening.run, opening.plan)
                config = json.dumps(opening.config)
                if len(config) <= LONGEST_TAG:
                    tags["ablate.config"] = config
                parent = self._arm_run(experiment, opening.run.arm)
                self._attempts[attempt] = self._create(
                    experiment, _run_name(opening.run), tags, parent, operation.time
                )
                self._open_attempts.add(self._attempts[attempt])
        return self._attempts[attempt]

    def _dataset(self, run: str, arm: ArmRecord, paths: Any) -> None:
        """Record what an arm is trained on, where MLflow shows data sets; recorded twice, it stands there once.

        paths: files that the study names as the data of its command; None where it has no command, or names none.
        """
        data = arm.data
        if not data.fingerprint:
            return
        if paths:
            name, source, profile = ", ".join(map(str, paths)), json.dumps({"paths": paths}), "{}"
        else:
            config = arm.config["data"]
            sizes = {"train": data.train, "validation": data.validation, "test": data.test}
            profile = json.dumps(sizes | {"shape": data.shape, "classes": len(data.classes)})
            source = json.dumps({name: value for name, value in config.items() if value is not None})
            name = config["name"]
        self._client.log_dataset(run, cut(name, 100), data.fingerprint[:16], source, profile)

    def _find(self, experiment: str, tags: Mapping[str, str], *, own: bool = False) -> Any:
        """Return MLflow's object of a run that carries the tags, None where there is none. own: of the operations' owner."""
        for run in self._client.matching(experiment, tags):
            if not own or self._is_own(run.data.tags):
                return run
        return None

    def _find_shared(self, experiment: str, tags: Mapping[str, str]) -> Any:
        """Return `_find` of the run of a plan or an arm. The arms of an experiment are looked for together: there may be thousands."""
        if "ablate.arm" not in tags:
            return self._find(experiment, tags)
        if experiment not in self._arms:
            self._arms[experiment] = {}
            for run in self._client.matching(experiment, {"ablate.kind": tags["ablate.kind"]}):
                self._arms[experiment].setdefault(run.data.tags.get("ablate.arm", ""), run.info.run_id)
        known = self._arms[experiment].get(tags["ablate.arm"])
        return None if known is None else self._client.get_run(known)

    def _is_own(self, tags: Mapping[str, str]) -> bool:
        """Return whether a run with these tags belongs to the process whose operations these are."""
        if self._owner:
            return tags.get("ablate.owner") == self._owner
        # The spool does not name its owner, who is gone.
        return tags.get("ablate.owner") == stores.owner() or stores.is_abandoned(tags)

    def _note_owner(self, run: Any) -> None:
        """Note when another process was last at work on a run, where its owner is another."""
        tags = run.data.tags
        if self._is_own(tags):
            return
        if run.info.status != "RUNNING":
            last = (run.info.end_time or 0) / 1000
        else:
            last = number(tags, "ablate.lease", 0) - LEASE if stores.is_abandoned(tags) else math.inf
        self._last_active[run.info.run_id] = last

    def _is_later(self, run: str, operation: Operation) -> bool:
        """Return whether another process has worked on a run since an operation was put."""
        return self._last_active.get(run, 0.0) > operation.time

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
            "ablate.owner": self._owner or stores.owner(),
            "ablate.lease": f"{time.time() + LEASE:.0f}",
            **({"mlflow.parentRunId": parent} if parent else {}),
        }
        start = int((at or time.time()) * 1000)
        if at is None:
            # MLflow shows runs by their start: those that begin within a millisecond keep their order.
            start = self._latest_start = max(start, self._latest_start + 1)
        run = self._client.create_run(experiment, start_time=start, tags={**tags, **own}, run_name=name)
        self._artifacts[run.info.run_id] = run.info.artifact_uri
        return str(run.info.run_id)

    def _close(self, run: str, status: str, at: float) -> None:
        self._client.set_terminated(run, status, end_time=int(at * 1000))
        self._open_attempts.discard(run)
        self._open_shared.discard(run)
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
        metrics = self._points(points)
        labels = [(name, cut(str(value), LONGEST_TAG)) for name, value in tags.items()]
        settings = list((params or {}).items())
        while metrics or labels or settings:
            parts: dict[Kind, list[Any]] = {
                "metrics": metrics[:MOST_METRICS],
                "params": settings[:MOST_PARAMS],
                "tags": labels[:MOST_TAGS],
            }
            try:
                self._client.log(run, **parts)
            except Exception as error:
                if not self._is_refused(error):
                    raise
                if self._client.get_run(run).info.lifecycle_stage != "active":
                    raise  # it takes nothing any more, and that is said once
                for kind, items in parts.items():
                    for item in items:
                        self._log_alone(run, kind, item)
            metrics, settings = metrics[MOST_METRICS:], settings[MOST_PARAMS:]
            labels = labels[MOST_TAGS:]

    def _log_alone(self, run: str, kind: Kind, item: Sequence[Any]) -> None:
        """Log a metric, a parameter or a tag by itself, or set it aside where it is refused."""
        try:
            self._client.log(run, **{kind: [item]})
        except Exception as error:
            if not self._is_refused(error):
                raise
            names = {"metrics": "metric", "params": "parameter", "tags": "tag"}
            fields = ("key", "value", "timestamp", "step")
            self._set_aside(
                f"{names[kind]} {cut(storable(str(item[0])))!r}", error, dict(zip(fields, item, strict=False))
            )

    def _points(self, points: Sequence[Point]) -> list[tuple[str, float, int, int]]:
        """Return points as a client takes them; one whose value is no number is set aside."""
        metrics = []
        for name, value, at, step in points:
            try:
                number = float(value) if isinstance(value, int | float) else math.nan
            except OverflowError:
                number = math.inf if value > 0 else -math.inf
            if isinstance(value, int | float) and not isinstance(value, bool):
                # The event's own time: the same point logged twice is one point.
                metrics.append((name, number, int(at * 1000), step))
            else:
                error = TypeError(f"its value is {cut(repr(value))}")
                self._set_aside(f"metric {cut(storable(str(name)))!r}", error, [name, value, at, step])
        return metrics

    def _files(self, run: str, files: Mapping[str, bytes]) -> None:
        if not files:
            return
        if run not in self._artifacts:
            self._artifacts[run] = self._client.get_run(run).info.artifact_uri
        try:
            folder = _local_folder(self._store, self._artifacts[run], run)
        except StoreError as error:  # this run's alone
            for name, content in files.items():
                self._set_file_aside(name, content, error)
            return
        if folder is not None:
            # As MLflow would do it, but past no link that lies there.
            for name, content in files.items():
                with self._file_alone(name, content):
                    plain_files.write(plain_files.inner(folder, name), content, sync=name == "plan.json")
            return
        with tempfile.TemporaryDirectory() as folder_name:
            written = Path(folder_name)
            for name, content in files.items():
                with self._file_alone(name, content):
                    plain_files.inner(written, name).write_bytes(content)
            try:
                self._client.log_artifacts(run, folder_name)
            except Exception as error:
                if not self._is_refused(error):
                    raise
                for name, content in files.items():
                    if (written / name).is_file():
                        with self._file_alone(name, content):
                            self._client.log_artifact(
                                run, str(written / name), str(Path(name).parent) if "/" in name else None
                            )

    @contextlib.contextmanager
    def _file_alone(self, name: str, content: bytes) -> Iterator[None]:
        """Set a file aside where it is refused."""
        try:
            yield
        except Exception as error:
            if not self._is_refused(error):
                raise
            self._set_file_aside(name, content, error)

    def _set_file_aside(self, name: str, content: bytes, error: Exception) -> None:
        record = {"name": name, "content": base64.b64encode(content).decode()}
        self._set_aside(f"file {cut(storable(name))!r}", error, record)


class RefusedError(Exception):
    """MLflow failed twice on a record, and took another one in between."""


def _local_folder(store: Store, address: str, run: str) -> Path | None:
    """Return the folder of a run's artifacts; None where they are not on this machine. address: of them, as MLflow has it.

    Raises StoreError where a local database, which may be from somebody else, names a folder that no ablate makes.
    """
    folder = store.artifacts(address)
    if store.database is None:
        return folder
    if folder is None or not stores.is_run_folder(folder, run):
        raise StoreError(
            f"the database names {cut(without_password(address) if folder is None else str(folder))!r} as the folder of a run, where no ablate puts files",
            place=str(store.database),
            hint="it was made or changed by another program",
        )
    if (link := stores.link_in(folder)) is not None:
        raise stores.link_error(link)
    return folder


def _param(value: Any) -> str:
    """Write a setting as MLflow's parameters are: `0.1`, `True`, `None`; text that could be taken for such a value in quotes."""
    return format_level(value, ("None", "True", "False")) if isinstance(value, str) else str(value)


def _attempt(operation: AttemptOperation) -> tuple[str, str, int]:
    return operation.experiment, operation.key, operation.attempt


def _identity(key: str, attempt: int) -> dict[str, str]:
    return {"ablate.kind": "replicate", "ablate.key": key, "ablate.attempt": str(attempt)}


def _by_attempt(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """Yield operations in their order, those on one attempt of a replicate together; none moves past one of another kind."""
    groups: dict[tuple[str, str, int], list[Operation]] = {}
    for operation in operations:
        if isinstance(operation, AttemptOperation) and not isinstance(operation, SaveModel):
            groups.setdefault(_attempt(operation), []).append(operation)
        else:
            yield from groups.values()
            groups = {}
            yield [operation]
    yield from groups.values()


def _run_tags(run: RunFacts, plan: str) -> dict[str, str]:
    return {
        "ablate.kind": "replicate",
        "ablate.plan": plan,
        "ablate.arm": run.arm,
        "ablate.seed": str(run.seed),
        "ablate.phase": run.phase,
        "ablate.key": run.key,
        "ablate.recipe": run.recipe,
    } | ({"ablate.values": json.dumps(run.values)} if run.values else {})


def _run_name(run: RunFacts) -> str:
    return f"{run.arm} · seed {run.seed}"
