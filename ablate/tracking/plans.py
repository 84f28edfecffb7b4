"""Recorded plans: which a study has, which of its runs count, and how they ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ablate.errors import StoreError, StudyError, nearest
from ablate.plain_files import can_name_files
from ablate.study.record import PlanRecord
from ablate.text import cut, storable
from ablate.tracking.queries import StoredRun, artifact, queries
from ablate.tracking.store import Store
from ablate.tracking.tags import number

_ENVIRONMENT = frozenset(
    {
        "command",
        "version",
        "commit",
        "training_commit",
        "python",
        "torch",
        "mlflow",
        "optuna",
        "numpy",
        "pandas",
        "scipy",
        "host",
        "recorded",
        "ending",
    }
)


@dataclass(frozen=True)
class StoredPlan:
    """A plan as the store holds it. run_id: of the run that carries it. status: of that run, as MLflow has it.

    environment: what it ran with (`command`, `commit`, versions) and how it ended. artifacts: where that run's artifacts lie.
    """

    record: PlanRecord
    run_id: str
    status: str
    environment: Mapping[str, str]
    artifacts: str


def study_names(store: Store) -> list[str]:
    """Return the names of the studies in a store, the one with the latest plan first."""
    return queries(store).study_names()


def experiment_id(store: Store, study: str) -> str:
    """Return how MLflow names a study's experiment in its addresses; empty where there is none."""
    experiment = queries(store).experiment(study)
    return experiment.id if experiment else ""


def refuse_deleted(store: Store, study: str) -> None:
    """Raise StoreError where the study's experiment was deleted in MLflow: nothing could be recorded there."""
    experiment = queries(store).experiment(study)
    if experiment is not None and experiment.deleted:
        raise StoreError(
            "the experiment was deleted in MLflow",
            place=study,
            hint=f"restore it with `{store.variable}mlflow experiments restore -x {experiment.id}`, or rename the study",
        )


class PlanBeginsError(StoreError):
    """The study has just begun, and its plan is being recorded."""


def stored_plans(store: Store, study: str) -> list[StoredPlan]:
    """Return the plans recorded for a study that can be read, the latest last; none where there is no such study."""
    plans = []
    for run in _plan_runs(store, study):
        with contextlib.suppress(StoreError):
            plans.append(_read(store, run))
    return plans


def unreadable_plans(store: Store, study: str) -> list[StoreError]:
    """Return why the plans of a study that cannot be read cannot."""
    errors = []
    for run in _plan_runs(store, study):
        try:
            _read(store, run)
        except PlanBeginsError:
            pass
        except StoreError as error:
            errors.append(error)
    return errors


def stored_plan(store: Store, study: str, plan_id: str | None = None) -> StoredPlan:
    """Return the latest plan of a study, or the latest whose id begins with `plan_id`.

    Raises StoreError where the study is not in the store, or the plan cannot be read; PlanBeginsError where it is being recorded;
    StudyError where the study has no such plan.
    """
    runs = _plan_runs(store, study)
    if not runs:
        if can_name_files(study):
            refuse_deleted(store, study)
        known = [name for name in study_names(store) if name != study]
        raise StoreError(
            f"there is no study {cut(study)!r} in {store.place}",
            hint=nearest(study, known)
            if known
            else "`ablate init mine` writes one, and `ablate run mine.yaml` trains it",
        )
    matching = [run for run in runs if plan_id is None or run.tags["ablate.plan"].startswith(plan_id)]
    if not matching:
        raise StudyError(
            f"no plan {cut(plan_id or '')!r} of {study}",
            place="--plan",
            hint="plans: " + ", ".join(run.tags["ablate.plan"] for run in runs),
        )
    *earlier, latest = matching
    try:
        return _read(store, latest)
    except PlanBeginsError:
        if not earlier:
            raise
        return _read(store, earlier[-1])


def _plan_runs(store: Store, study: str) -> list[StoredRun]:
    """Return the runs that carry the plans of a study, the latest last."""
    if (
        not study or storable(study) != study
    ):  # bytes of the command line that are no text would not even reach the store
        return []
    runs = [run for run in queries(store).runs({"ablate.kind": "report"}, study) if "ablate.plan" in run.tags]
    return sorted(runs, key=lambda run: number(run.tags, "ablate.recorded", run.start))


def _read(store: Store, run: StoredRun) -> StoredPlan:
    """Return the plan that a run carries. Raises StoreError where it cannot be read.

    A study is called as its experiment is now, which people rename in MLflow's pages.
    """
    text = artifact(store, run, "plan.json")
    plan = run.tags["ablate.plan"]
    again = "`ablate run` of its study file records it again; `ablate report --plan ID` shows an older plan"
    if text is None and run.status == "RUNNING":
        raise PlanBeginsError(
            "its plan is being recorded", place=run.experiment, hint="ask again in a second"
        )
    if text is None:
        raise StoreError(
            f"the file of plan {plan} is missing or cannot be read", place=run.experiment, hint=again
        )
    try:
        record = PlanRecord.from_json(json.loads(text))
    except StoreError as error:
        raise StoreError(error.message, place=f"{run.experiment}, plan {plan}", hint=error.hint) from None
    except (ValueError, RecursionError) as error:
        what = "is empty" if not text.strip() else f"is damaged ({error})"
        raise StoreError(f"the file of plan {plan} {what}", place=run.experiment, hint=again) from None
    if record.id != plan:
        raise StoreError(
            f"the file of plan {plan} is that of plan {record.id} of {record.study}",
            place=run.experiment,
            hint=again,
        )
    if record.study != run.experiment:
        record = _renamed(store, record, run.experiment)
    tags = {name.removeprefix("ablate."): value for name, value in run.tags.items()}
    environment = {name: value for name, value in tags.items() if name in _ENVIRONMENT}
    return StoredPlan(record, run.run_id, run.status, environment, run.artifacts)


def _renamed(store: Store, record: PlanRecord, name: str) -> PlanRecord:
    """Return a plan under the name that its experiment has got in MLflow. Raises StoreError where no study can be called so."""
    if not can_name_files(name):
        place = experiment_id(store, name)
        raise StoreError(
            f"the experiment of study {record.study} was renamed in MLflow to what cannot name a study",
            place=cut(name),
            hint=f"letters, digits and . _ - make a name: `{store.variable}mlflow experiments rename --experiment-id {place} "
            f"--new-name NAME`",
        )
    return dataclasses.replace(record, declared={**record.declared, "study": name})


def plan_artifact(store: Store, stored: StoredPlan, name: str) -> bytes | None:
    """Return a file that lies with a plan; None where there is none."""
    runs = queries(store).runs(
        {"ablate.kind": "report", "ablate.plan": stored.record.id}, stored.record.study
    )
    return next((content for run in runs if (content := artifact(store, run, name)) is not None), None)


def verdict_counts(store: Store, plan: PlanRecord) -> Counter[str]:
    """Return how many arms, or effects, got which verdict when the plan last ended; nothing where it has not ended.

    An interaction counts as positive or negative: it neither helps nor hurts.
    """
    identity = {"ablate.kind": "report", "ablate.plan": plan.id}
    runs = queries(store).runs(identity, plan.study)
    texts = [artifact(store, run, "verdicts.json") for run in runs]
    for text in texts:
        with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):
            if text:
                verdicts = json.loads(text)
                alone = [item for item in verdicts["effects"] if len(item["terms"]) < 2]
                together = [item for item in verdicts["effects"] if len(item["terms"]) > 1]
                return Counter(
                    [str(item["verdict"]) for item in [*verdicts["arms"], *alone]]
                    + [_TOGETHER.get(item["verdict"], str(item["verdict"])) for item in together]
                )
    return Counter()


_TOGETHER = {"helps": "positive", "hurts": "negative"}
