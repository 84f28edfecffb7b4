"""Recorded plans: which a study has, which of its runs count, and how they ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.errors import StoreError, StudyError, nearest
from ablate.study.record import PlanRecord
from ablate.tracking.queries import artifact, queries
from ablate.tracking.store import Store

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
            hint=f"restore it with `mlflow experiments restore -x {experiment.id}`, or rename the study",
        )


def stored_plans(store: Store, study: str) -> list[StoredPlan]:
    """Return the plans recorded for a study, the latest last.

    Raises StoreError where the study is not in the store.
    """
    runs = [run for run in queries(store).runs({"ablate.kind": "report"}, study) if "ablate.plan" in run.tags]
    plans = []
    for run in sorted(runs, key=lambda run: float(run.tags.get("ablate.recorded", run.start))):
        text = artifact(store, run, "plan.json")
        if text is None:
            continue
        tags = {name.removeprefix("ablate."): value for name, value in run.tags.items()}
        environment = {name: value for name, value in tags.items() if name in _ENVIRONMENT}
        record = PlanRecord.from_json(json.loads(text))
        plans.append(StoredPlan(record, run.run_id, run.status, environment, run.artifacts))
    if not plans:
        known = [name for name in study_names(store) if name != study]
        raise StoreError(
            f"there is no study {study!r} in {store.place}",
            hint=nearest(study, known) if known else "`ablate run studies/quickstart.yaml` makes one",
        )
    return plans


def plan_artifact(store: Store, stored: StoredPlan, name: str) -> bytes | None:
    """Return a file that lies with a plan; None where there is none."""
    runs = queries(store).runs(
        {"ablate.kind": "report", "ablate.plan": stored.record.id}, stored.record.study
    )
    return next((content for run in runs if (content := artifact(store, run, name)) is not None), None)


def stored_plan(store: Store, study: str, plan_id: str | None = None) -> StoredPlan:
    """Return the latest plan of a study, or the latest whose id begins with `plan_id`.

    Raises StoreError where the study is not in the store, StudyError where it has no such plan.
    """
    plans = stored_plans(store, study)
    matching = [plan for plan in plans if plan_id is None or plan.record.id.startswith(plan_id)]
    if not matching:
        raise StudyError(
            f"no plan {plan_id!r} of {study}",
            place="--plan",
            hint="plans: " + ", ".join(plan.record.id for plan in plans),
        )
    return matching[-1]


def verdict_counts(store: Store, plan: PlanRecord) -> Counter[str]:
    """Return how many arms, or effects, got which verdict when the plan last ended; nothing where it has not ended."""
    identity = {"ablate.kind": "report", "ablate.plan": plan.id}
    runs = queries(store).runs(identity, plan.study)
    texts = [artifact(store, run, "verdicts.json") for run in runs]
    nothing: dict[str, Any] = {"arms": [], "effects": []}
    verdicts = next((json.loads(text) for text in texts if text), nothing)
    return Counter(item["verdict"] for item in [*verdicts["arms"], *verdicts["effects"]])
