"""How a study of the store stands, in words: what is finished, whether it is running, which verdicts there are."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablate.errors import StoreError
from ablate.text import counted

if TYPE_CHECKING:
    from ablate.tracking.plans import StoredPlan
    from ablate.tracking.store import Store

_ENDINGS = {
    "complete": "complete",
    "budget": "stopped at its budget",
    "interrupted": "interrupted",
    "killed": "its process died",
}


def status(store: Store, study: str, plan: str | None) -> str:
    """Return in words how far a study is. plan: as for `stored_plan`. Raises StoreError where its plan cannot be read."""
    from ablate.tracking.plans import PlanBeginsError, stored_plan

    try:
        return progress(store, stored_plan(store, study, plan))
    except PlanBeginsError:
        return "begins"


@dataclass(frozen=True)
class Standing:
    """How a study stands. recorded: when its plan was, in seconds since the epoch; None where that is not known.

    state: in words. verdicts: how many arms or effects got which.
    """

    study: str
    recorded: float | None
    state: str
    verdicts: Mapping[str, int]


def standing(store: Store, study: str) -> Standing:
    """Return how a study stands, whatever is wrong with its plan."""
    from ablate.tracking.plans import PlanBeginsError, stored_plan, verdict_counts

    try:
        stored = stored_plan(store, study)
    except PlanBeginsError:
        return Standing(study, None, "begins", {})
    except StoreError as error:
        return Standing(study, None, error.message, {})
    counts = verdict_counts(store, stored.record)
    return Standing(study, _recorded(stored), state(stored), dict(counts))


def _recorded(stored: StoredPlan) -> float | None:
    with contextlib.suppress(ValueError):
        return float(stored.environment.get("recorded", ""))
    return None


def progress(store: Store, stored: StoredPlan) -> str:
    """Return in words how far a study is."""
    from ablate.tracking.plans import verdict_counts
    from ablate.tracking.rejected import rejections
    from ablate.tracking.runs import outcome_counts

    judged = stored.record.judged
    if judged is not None:
        looks = f" at {counted(len(judged.sizes), 'look')}" if len(judged.sizes) > 1 else ""
        return f"judged from {judged.source}{looks}"
    counts = outcome_counts(store, stored.record)
    ended = [f"{counts[name]} {name}" for name in ("finished", "diverged", "failed") if name in counts]
    runs = counted(len(stored.record.runs), "run")
    rejected = len(rejections(store, stored.record.study))
    incomplete = (
        f"; {counted(rejected, 'record')} could not be stored (mlruns/spool/rejected)" if rejected else ""
    )
    how = state(stored)
    if how == "complete" and (undecided := verdict_counts(store, stored.record)["inconclusive"]):
        how = f"complete, {undecided} undecided"
    return f"{', '.join(ended) or 'nothing yet'} of at most {runs}; {how}{incomplete}"


def state(stored: StoredPlan) -> str:
    """Return in words whether a plan is running, or how the last command on it ended."""
    ending = stored.environment.get("ending", "killed")
    if stored.record.judged is not None and ending == "complete":
        return "judged"
    return "running" if stored.status == "RUNNING" else _ENDINGS.get(ending, ending)
