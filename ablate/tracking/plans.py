"""Recorded plans: which a study has, which of its runs count, and how they ended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ablate.errors import StoreError, nearest
from ablate.tracking.client import without_password
from ablate.tracking.queries import artifact, queries
from ablate.tracking.store import Store

_ENVIRONMENT = frozenset(
    {"command", "version", "commit", "python", "torch", "mlflow", "optuna", "host", "recorded", "ending"}
)


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


def stored_plans(store: Store, study: str) -> list[dict[str, Any]]:
    """Return the plans recorded for a study, the latest last; each as `Plan.record()`, with `run_id`, `status`,
    `environment` and where its `artifacts` lie.

    Raises StoreError where the study is not in the store.
    """
    runs = [run for run in queries(store).runs({"ablate.kind": "report"}, study) if "ablate.plan" in run.tags]
    if not runs:
        known = study_names(store)
        raise StoreError(
            f"there is no study {study!r} in {without_password(store.uri)}",
            hint=nearest(study, known) if known else "`ablate run studies/quickstart.yaml` makes one",
        )
    records = []
    for run in sorted(runs, key=lambda run: float(run.tags.get("ablate.recorded", run.start))):
        text = artifact(store, run, "plan.json")
        if text is None:
            continue
        tags = {name.removeprefix("ablate."): value for name, value in run.tags.items()}
        environment = {name: value for name, value in tags.items() if name in _ENVIRONMENT}
        records.append(
            json.loads(text)
            | {"run_id": run.run_id, "status": run.status, "environment": environment}
            | {"artifacts": run.artifacts}
        )
    return records


def verdict_counts(store: Store, plan: Mapping[str, Any]) -> Counter[str]:
    """Return how many arms, or effects, got which verdict when the plan last ended; nothing where it has not ended."""
    identity = {"ablate.kind": "report", "ablate.plan": plan["plan"]}
    runs = queries(store).runs(identity, plan["study"])
    texts = [artifact(store, run, "verdicts.json") for run in runs]
    nothing: dict[str, Any] = {"arms": [], "effects": []}
    verdicts = next((json.loads(text) for text in texts if text), nothing)
    return Counter(item["verdict"] for item in [*verdicts["arms"], *verdicts["effects"]])
