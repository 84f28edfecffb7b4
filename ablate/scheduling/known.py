"""What is known of a study's runs: results of the store and of this process, claims, attempts, checkpoints that are left."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.errors import StoreError, StudyError
from ablate.events import EpochEnd, Event, Failed, Finished, Started
from ablate.scheduling.budget import SecondsByArm
from ablate.scheduling.observer import Observer
from ablate.scheduling.queue import Queue
from ablate.study.design import Plan, Run
from ablate.study.record import PlanRecord, RunRecord
from ablate.study.seeds import is_reevaluation, is_reported, replicate_of
from ablate.text import counted, cut, joined
from ablate.tracking.frames import curve_frame, curve_rows, plan_frames, replicate_frame, replicate_row
from ablate.tracking.plans import stored_plans, study_names
from ablate.tracking.queries import StoredRun
from ablate.tracking.runs import (
    NewResults,
    finished_runs,
    highest_attempts,
    recipes,
    run_curves,
    search_runs,
)
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Claims, Store
from ablate.training import inputs
from ablate.training.builtin import checkpoint

Points = dict[str, list[tuple[int, float]]]
"""Metric → (epoch, value) of each time that it was yielded."""


MOST_NAMED = 3
"""Files and variables that a message names."""


class Known:
    """Results by run key: `rows` of the replicates frame, `curves` of the curves frame; and all runs that were planned.

    trained: runs that this process has trained to their end. took: the budget's; what stored runs took is added to it.
    """

    def __init__(
        self,
        study: str,
        *,
        store: Store,
        tracker: Tracker,
        ledger: Queue,
        claims: Claims,
        observer: Observer,
        took: SecondsByArm,
        accept_code: bool,
    ) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.curves: dict[str, list[dict[str, Any]]] = {}
        self.planned: dict[str, Run] = {}
        self.trained = 0
        self.checkpoints: Path = store.root / "checkpoints"
        self._study = study
        self._store = store
        self._tracker = tracker
        self._ledger = ledger
        self._claims = claims
        self._observer = observer
        self._took = took
        self._accept_code = accept_code
        self._attempts = highest_attempts(store, study)
        self._new_results = NewResults(store)
        # Arms of which a stored run lacks the study's metric → the metrics that it has.
        self._lacking: dict[str, set[str]] = {}
        # Runs of this process that have ended, until the store has them: then another study finds them there.
        self._undelivered: deque[tuple[int, str]] = deque()

    # --- results ---

    def plan(self, runs: Iterable[Run]) -> None:
        """Say which runs there are, whether they have a result or not."""
        self.planned |= {run.key: run for run in runs}

    def missing(self, runs: Iterable[Run]) -> list[Run]:
        """Return the runs that have no result yet."""
        return [run for run in runs if run.key not in self.rows]

    def frames(self) -> tuple[Any, Any]:
        """Replicates and curves, as the analysis reads them."""
        curves = curve_frame([row for rows in self.curves.values() for row in rows])
        return self.replicates(), curves

    def replicates(self) -> Any:
        """A row for each result, as the analysis reads them."""
        return replicate_frame(list(self.rows.values()))

    def add(self, run: Run, events: Sequence[Event], record: PlanRecord) -> None:
        """Add the result of a run that was trained here. events: of its last attempt, all of them."""
        self.trained += 1
        tags, points = outcome_tags(events), metric_points(events)
        done = isinstance(events[-1], Finished)
        row = replicate_row(record, recorded(run), tags, points, "", has_result=done)
        self.rows[run.key] = row
        self.curves[run.key] = curve_rows(recorded(run), points, record.metric)
        self._observer.settled(run, row["outcome"], row["value"])
        self._undelivered.append((self._tracker.put, run.key))

    def reuse(self, runs: Iterable[Run], plan: Plan, record: PlanRecord) -> None:
        """Take the results that the store has, of whatever study; copy those that are not in this one."""
        wanted = {run.key: run for run in runs}
        self.plan(wanted.values())
        stored = finished_runs(self._store, wanted, first=self._study)
        self._check_inputs(run.tags.get("ablate.inputs") for run in stored.values())
        own = {key: run for key, run in stored.items() if run.experiment == self._study}
        copied = {key: run for key, run in stored.items() if run.experiment != self._study}
        labels: dict[str, dict[str, str]] = {}
        by_recipe = {run.recipe: run for run in wanted.values() if run.key not in stored}
        older = self._of_older_code(by_recipe, record) if by_recipe else {}
        if older and self._accept_code:
            points = run_curves(self._store, [run.run_id for run in older.values()])
            lacking = [recipe for recipe, run in older.items() if record.metric not in points[run.run_id]]
            for recipe in lacking:
                del older[recipe]
            if lacking:
                self._observer.note(
                    f"{counted(len(lacking), 'finished run')} of older training code did not record {record.metric}: trained again"
                )
            for recipe, run in older.items():
                copied[by_recipe[recipe].key] = run
                labels[by_recipe[recipe].key] = {"ablate.accepted_code": run.tags["ablate.key"]}
        elif older:
            self._observer.note(
                f"{counted(len(older), 'finished run')} of older training code not reused (--accept-code takes them, labelled)"
            )
        for key, run in copied.items():
            self._tracker.copy(wanted[key], run.run_id, plan.id, labels.get(key))
        if copied:
            self._observer.note(f"{counted(len(copied), 'finished run')} reused from the store")
        without_model = [
            key
            for key, run in {**own, **copied}.items()
            if "ablate.model" not in run.tags and _keeps_model(plan, wanted[key])
        ]
        if without_model:
            self._observer.note(
                f"{len(without_model)} of the runs already done {'has' if len(without_model) == 1 else 'have'} no saved model: "
                "training.save_model was none when they were trained (deleted in MLflow, they are trained again)"
            )
        self._take({**own, **copied}, record)
        self._refuse_useless(record)
        self._ledger.match(self._values(), wanted)

    def _refuse_useless(self, record: PlanRecord) -> None:
        """Raise StudyError where runs of every arm have ended, trained for another metric, and none of them has the study's."""
        outcomes = [row["outcome"] for row in self.rows.values()]
        if {arm.name for arm in record.arms} <= self._lacking.keys() and "finished" not in outcomes:
            yielded = ", ".join(sorted(set().union(*self._lacking.values()) - {"time/train_seconds"}))
            raise StudyError(
                f"training never yielded the metric {record.metric!r}",
                place="metric",
                hint=f"it yielded {yielded or 'nothing'}",
            )

    def _check_inputs(
        self, of_runs: Iterable[str | None], otherwise: str = "--accept-code takes the runs as they are"
    ) -> None:
        """Raise StudyError where what finished runs read, which no key holds, is not what it was then.

        of_runs: as each recorded it. otherwise: what can be done without changing the study.

        Beside runs that read something else, or in place of them, these would answer another question.
        """
        counts = Counter(text for text in of_runs if text)
        changed = {text: names for text in counts if (names := inputs.changed(text))}
        if not changed:
            return
        names = list(dict.fromkeys(name for of_run in changed.values() for name in of_run))
        shown = joined([cut(name, 80) for name in names[:MOST_NAMED]])
        if more := len(names) - MOST_NAMED:
            shown += f" and {more} more" if more > 0 else ""
        runs = counted(sum(counts[text] for text in changed), "finished run")
        has = "has" if len(names) == 1 else "have"
        if self._accept_code:
            self._observer.note(f"{shown} {has} changed since {runs} read it (--accept-code)")
            return
        files = [name for name in names if not name.startswith("$")]
        hints = [
            f"`data: [{', '.join(files[:MOST_NAMED])}]` in the study makes it a part of what runs are"
            if files
            else ""
        ]
        hints += ["make a setting of the variable, under `baseline:`" if len(files) < len(names) else ""]
        raise StudyError(
            f"{shown} {has} changed since {runs} read it, and no run's key holds it",
            hint="; ".join([*filter(None, hints), otherwise]),
        )

    def _of_older_code(self, recipes: Iterable[str], record: PlanRecord) -> dict[str, StoredRun]:
        """Return finished runs by recipe, which does not depend on the code; none of other code of the user's than the record's."""
        if record.own_training is None:
            return finished_runs(self._store, recipes, by="recipe")
        names: dict[str, dict[str, str | None]] = {}

        def is_by_the_same(run: StoredRun) -> bool:
            if run.experiment not in names:
                names[run.experiment] = {}
                with contextlib.suppress(StoreError):  # a plan that is gone cannot say what trained its runs
                    plans = [stored.record for stored in stored_plans(self._store, run.experiment)]
                    names[run.experiment] = {plan.id: plan.own_training for plan in plans}
            return names[run.experiment].get(run.tags.get("ablate.plan", "")) == record.own_training

        return finished_runs(self._store, recipes, by="recipe", accepted=is_by_the_same)

    def keys_of_older_code(self, runs: Iterable[Run], record: PlanRecord) -> set[str]:
        """Return the keys of the finished runs of older code that will be taken for these runs: none but with --accept-code."""
        wanted = {run.key: run.recipe for run in runs} if self._accept_code else {}
        done = finished_runs(self._store, wanted) if wanted else {}
        recipes = [recipe for key, recipe in wanted.items() if key not in done]
        older = self._of_older_code(recipes, record) if recipes else {}
        return {run.tags["ablate.key"] for run in older.values()}

    def reuse_recorded(self, record: PlanRecord) -> None:
        """Take all runs that the record names, as they ended: none of those is trained again, not even one that failed."""
        keys: dict[Any, str] = {}
        for run in record.runs:
            self.planned[run.key] = Run(run.key, "", run.arm, run.seed, run.phase, run.values)
            keys[run.arm, run.seed, run.phase] = run.key
        rows, curves = plan_frames(self._store, record)
        self._check_inputs(rows["inputs"], "put back what it held: these runs are to be added to")
        self.rows |= {row["key"]: row for row in rows.to_dict("records")}
        for key, row in self.rows.items():
            self._time(row)
            self._observer.settled(self.planned[key], row["outcome"], row["value"])
        tuned = curves["phase"] == "tune"
        for place, points in curves[~tuned].groupby(["arm", "seed", "phase"], sort=False, observed=True):
            self.curves[keys[place]] = [_row(row) for row in points.to_dict("records")]
        self._ledger.match(self._values(), self.planned)

    def reuse_trials(self, runs: Sequence[Run], plan: Plan, record: PlanRecord) -> None:
        """Take the results of runs that a search has tried, those that were pruned included."""
        self.reuse(runs, plan, record)
        undone = {run.key: recorded(run) for run in self.missing(runs)}
        rows, _ = plan_frames(self._store, replace(record, runs=tuple(undone.values())))
        pruned = {row["key"]: row for row in rows.to_dict("records") if row["outcome"] == "pruned"}
        points = run_curves(self._store, [row["run_id"] for row in pruned.values()])
        for key, row in pruned.items():
            self.rows[key] = _row(row)
            self.curves[key] = curve_rows(undone[key], points[row["run_id"]], record.metric)

    def keep_failures(self, record: PlanRecord) -> int:
        """Let what failed within a look that decided something stay failed. Returns how many runs that are.

        With such a run done after all, that look would be read again, and a verdict that is final might not be.
        """
        if not record.final:
            return 0
        kept = {
            str(row["key"]): _row(row)
            for row in plan_frames(self._store, record)[0].to_dict("records")
            if row["outcome"] == "failed"
            and is_reported(row["phase"])
            and replicate_of(row["seed"]) - record.first_seed < record.final
            and row["key"] not in self.rows
        }
        self.rows |= kept
        return len(kept)

    def keep_only(self, keys: Collection[str]) -> None:
        """Forget the results of all other runs."""
        self.rows = {key: row for key, row in self.rows.items() if key in keys}

    def _take(self, stored: Mapping[str, StoredRun], record: PlanRecord) -> None:
        points = run_curves(self._store, [run.run_id for run in stored.values()])
        for key, run in stored.items():
            planned, its_points = recorded(self.planned[key]), points[run.run_id]
            row = replicate_row(record, planned, run.tags, its_points, run.run_id, has_result=True)
            self.rows[key] = row
            if row["outcome"] == "failed":  # although the run has finished
                self._lacking.setdefault(row["arm"], set()).update(its_points)
            self.curves[key] = curve_rows(planned, its_points, record.metric)
            self._time(row)
            self._observer.settled(self.planned[key], row["outcome"], row["value"])

    def _time(self, row: Mapping[str, Any]) -> None:
        if math.isfinite(row["seconds"]):
            self._took.setdefault(row["arm"], []).append(float(row["seconds"]))

    def _values(self) -> dict[str, float]:
        return {key: row["value"] for key, row in self.rows.items()}

    # --- other processes ---

    def claim(self, run: Run) -> bool:
        """Return whether the run is this process's to train now; False where another process trains it."""
        return self._claims.take(run.key)

    def release(self, run: Run) -> None:
        """Let other processes train the run."""
        self._claims.give_back(run.key)

    def has_new_result(self, run: Run) -> bool:
        """Return whether another process has finished the run since this one began."""
        return run.key in self._new_results

    def release_delivered(self) -> None:
        """Release the claims of ended runs that the store has by now."""
        while self._undelivered and self._undelivered[0][0] <= self._tracker.delivered:
            self._claims.give_back(self._undelivered.popleft()[1])

    def attempts(self, run: Run) -> int:
        """Return how many attempts of a run were begun, by whatever process."""
        return self._attempts.get(run.key, 0)

    def begun(self, run: Run, attempt: int) -> None:
        """An attempt of a run is about to begin."""
        self._attempts[run.key] = attempt

    # --- checkpoints ---

    def tidy(self) -> None:
        """Remove checkpoints that no run will be resumed from: of runs that are done, and of planned runs that other code began.

        To be called before anything is trained. What another process trains stays, and so does what only another study plans.
        """
        left = checkpoint.left(self.checkpoints)
        keys = frozenset().union(*left.values())
        if not keys:
            return
        over = set(finished_runs(self._store, keys))
        planned = {run.recipe for run in self.planned.values()}
        begun = recipes(self._store, keys - self.planned.keys())
        over |= {key for key, recipe in begun.items() if recipe in planned}
        for path, runs in left.items():
            if runs.isdisjoint(over):
                continue
            claimed = [key for key in runs if self._claims.take(key)]
            if len(claimed) == len(runs):
                checkpoint.discard(path)
            for key in claimed:
                self._claims.give_back(key)


# --- earlier trials of a search -----------------------------------------------------------------------------------


def earlier_trials(
    store: Store, plan: Plan, record: PlanRecord, known_to_optuna: Iterable[Run]
) -> tuple[list[Run], set[str]]:
    """Return the trials that were made before, of Optuna's, the record's and the store's, each of which may lack some.

    Also returns the keys of those that earlier plans of the study have made. Not every trial has a result in the store.
    """
    trials = {run.key: run for run in known_to_optuna}
    of_this_plan = [run for run in record.runs if run.phase == "tune"]
    of_earlier_plans = _trials_of_earlier_plans(store, plan, record)
    stored = search_runs(store, plan.study.name, plan.id)
    others: list[Run | RunRecord] = [*of_this_plan, *stored, *of_earlier_plans]
    for run in others:
        recipe = run.recipe if isinstance(run, Run) else ""
        trials[run.key] = Run(run.key, recipe, run.arm, run.seed, "tune", run.values)
    return list(trials.values()), {run.key for run in of_earlier_plans}


def _trials_of_earlier_plans(store: Store, plan: Plan, record: PlanRecord) -> list[RunRecord]:
    """Trials of arms that are still the same, in the same ranges, for the same metric and by the same sampler and pruner.

    Another number of seeds, another margin or a further level is no reason to search again.
    """
    name, search = plan.study.name, plan.study.search
    assert search is not None
    if record.runs or name not in study_names(store):
        return []
    trials: dict[str, dict[str, RunRecord]] = {arm.name: {} for arm in plan.arms}
    for other in (stored.record for stored in stored_plans(store, name)):
        if (other.nuisance, other.space) != (record.nuisance, record.space) or not other.search:
            continue
        how = (other.search.sampler, other.search.pruner, other.search.cost)
        if how != (search.sampler, search.pruner, search.cost):
            continue
        # What was tried next, and what was pruned, followed from the metric.
        if (other.metric, other.direction) != (record.metric, record.direction):
            continue
        for run in other.runs:
            if run.phase != "tune" or is_reevaluation(run.seed) or run.arm not in trials:
                continue
            # The key is the same where the arm's config, its data and the code that trains it are.
            key = plan.trial(run.arm, run.values, replicate_of(run.seed)).key
            if key == run.key and len(trials[run.arm]) < search.trials:
                trials[run.arm].setdefault(run.key, run)
    return [run for of_arm in trials.values() for run in of_arm.values()]


# --- from events to a row -----------------------------------------------------------------------------------------


def metric_points(events: Iterable[Event]) -> Points:
    """Return what the events of an attempt say of each metric."""
    points: Points = {}
    for event in events:
        if isinstance(event, EpochEnd | Finished):
            for metric, value in event.metrics.items():
                points.setdefault(metric, []).append((event.epoch, value))
    return points


def outcome_tags(events: Iterable[Event]) -> dict[str, str]:
    """Return the tags that the store will have of an attempt, from its events."""
    tags: dict[str, str] = {}
    for event in events:
        if isinstance(event, Started | Finished):
            tags |= {f"ablate.{name}": str(value) for name, value in event.facts.items()}
        if isinstance(event, Finished):
            tags |= {"ablate.outcome": event.outcome, "ablate.epoch": str(event.epoch)}
        if isinstance(event, Failed):
            outcome = "pruned" if event.kind == "pruned" else "failed"
            tags |= {"ablate.outcome": outcome, "ablate.reason": event.reason}
    return tags


def recorded(run: Run) -> RunRecord:
    """Return a run as the record of its plan has it."""
    return RunRecord(run.arm, run.seed, run.phase, run.key, dict(run.values))


def _keeps_model(plan: Plan, run: Run) -> bool:
    return bool(plan.config(run).flatten().get("training.save_model", "none") != "none")


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
