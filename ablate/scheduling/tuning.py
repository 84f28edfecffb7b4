"""Searches side by side: what is tried next, on which arm, and which of the trials are best.

Each arm has an Optuna study of its own and gets the same number of trials. All trials of an arm run under one seed, so that
what a seed does to all values alike decides nothing; a trial that repeats another takes the next seed. The best are
re-evaluated, each under the same few seeds, before one is chosen: the best of many is also the luckiest.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.errors import StudyError
from ablate.scheduling.queue import Attempted, Queue
from ablate.study.design import Plan, Run
from ablate.study.ranges import Range
from ablate.study.record import CandidateRecord, TunedArm
from ablate.study.seeds import REEVALUATED_FROM, REEVALUATIONS, is_reevaluation
from ablate.text import format_value

Rows = Mapping[str, Mapping[str, Any]]


class Searches:
    """The searches of a plan: one for each arm where settings are tuned, one in all for a search."""

    def __init__(self, plan: Plan, ledger: Queue) -> None:
        assert plan.study.search is not None
        self._plan = plan
        self._how = plan.study.search
        self._space: tuple[Range, ...] = plan.study.nuisance or plan.study.space
        self._began = time.monotonic()
        self.arms = [arm.name for arm in plan.arms]
        self._studies = {arm: ledger.search(arm, self._space) for arm in self.arms}
        self._runs: dict[str, dict[str, Run]] = {arm: {} for arm in self.arms}
        self._open: dict[str, tuple[str, Any]] = {}

    # --- what is known ---

    def known(self) -> list[Run]:
        """Return the runs that have a result in Optuna's studies."""
        return [
            Run(key, "", arm, seed, "tune", values)
            for arm, study in self._studies.items()
            for key, (values, seed) in study.known().items()
        ]

    def match(
        self, runs: Iterable[Run], rows: Rows, curves: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> None:
        """Add earlier trials. runs: those that have a row, in the order in which they were made."""
        tried: dict[str, dict[str, Attempted]] = {arm: {} for arm in self.arms}
        for run in runs:
            row = rows[run.key]
            if row["outcome"] == "failed" or is_reevaluation(run.seed):
                continue
            self._runs[run.arm][run.key] = run
            curve = tuple(
                (int(point["epoch"]), float(point["value"]))
                for point in curves.get(run.key, ())
                if point["metric"] == self._plan.study.metric and math.isfinite(point["value"])
            )
            tried[run.arm][run.key] = Attempted(
                run.values, run.seed, str(row["outcome"]), self._scores(row), curve
            )
        for arm, study in self._studies.items():
            study.match(tried[arm])
            start = self._start(arm)
            if start is not None:
                study.start_from(start)

    def _start(self, arm: str) -> dict[str, Any] | None:
        """Return the arm's values of the study file, as values that may be drawn; None where they lie outside the ranges.

        A block of the file has all settings of its kind, a choice only those that it names; the others keep their values.
        """
        config = self._plan.arm(arm).config
        start: dict[str, Any] = {}
        for setting in self._space:
            for value in setting.like(config.get(setting.path)):
                with contextlib.suppress(StudyError):
                    setting.parameters(value)
                    if config.override({setting.path: value}) == config:
                        start[setting.path] = value
                        break
            else:
                return None
        return start

    # --- what is asked for ---

    @property
    def left(self) -> int:
        """How many trials are neither done nor in training."""
        if self._how.budget is not None and time.monotonic() - self._began > self._how.budget:
            return 0
        return sum(max(0, self._how.trials - len(runs)) for runs in self._runs.values())

    @property
    def done(self) -> int:
        return sum(map(len, self._runs.values())) - len(self._open)

    def next(self) -> Run | None:
        """Return the next trial, of the arm that has had the fewest; None where no arm lacks any."""
        if not self.left:
            return None
        arm = min(self.arms, key=lambda name: len(self._runs[name]))
        trial, values = self._studies[arm].ask()
        repeated = sum(_same(run.values, values) for run in self._runs[arm].values())
        run = self._plan.trial(arm, values, repeated)
        self._runs[arm][run.key] = run
        self._studies[arm].begin(trial, run)
        self._open[run.key] = (arm, trial)
        return run

    def settle(self, rows: Rows) -> None:
        """Tell Optuna the results of trials that have one by now."""
        for key in [key for key in self._open if key in rows]:
            arm, _ = self._open.pop(key)
            self._studies[arm].tell(key, str(rows[key]["outcome"]), self._scores(rows[key]))

    def _scores(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        value = float(row["value"])
        return (value,) if self._how.cost is None else (value, float(row[self._how.cost]))

    # --- results ---

    @property
    def runs(self) -> list[Run]:
        return [run for runs in self._runs.values() for run in runs.values()]

    def best(self, arm: str, rows: Rows) -> list[dict[str, Any]]:
        """Return the best values, each once; with two objectives, those that no other beats in both."""
        sign = 1.0 if self._plan.study.direction == "maximize" else -1.0
        front = self._front(arm, rows) if self._how.cost is not None else None
        scores: dict[str, list[float]] = {}
        values: dict[str, dict[str, Any]] = {}
        for key, run in self._runs[arm].items():
            row = rows.get(key)
            if row is None or row["outcome"] != "finished" or (front is not None and key not in front):
                continue
            text = format_value(dict(run.values))
            values[text] = dict(run.values)
            scores.setdefault(text, []).append(sign * float(row["value"]))
        order = sorted(scores, key=lambda text: -statistics.fmean(scores[text]))
        return [values[text] for text in order[: self._how.candidates]]

    def _front(self, arm: str, rows: Rows) -> set[str]:
        """Return the keys of an arm's trials that no other beats in both objectives.

        Optuna's own front has trials that the record has lost since, deleted in MLflow.
        """
        sign = 1.0 if self._plan.study.direction == "maximize" else -1.0
        points = {}
        for key in self._runs[arm].keys() & rows.keys():
            if rows[key]["outcome"] == "finished" and all(map(math.isfinite, self._scores(rows[key]))):
                value, cost = self._scores(rows[key])
                points[key] = (sign * value, -cost)
        others = set(points.values())
        return {
            key
            for key, (value, saving) in points.items()
            if not any(v >= value and s >= saving and (v, s) != (value, saving) for v, s in others)
        }

    def reevaluations(self, arm: str, rows: Rows) -> list[Run]:
        """Return the runs that re-evaluate the best values of an arm."""
        seeds = 1 if self._plan.study.deterministic else REEVALUATIONS
        return [
            self._plan.trial(arm, values, REEVALUATED_FROM + i)
            for i in range(seeds)
            for values in self.best(arm, rows)
        ]

    def result(self, arm: str, rows: Rows) -> TunedArm:
        """Return the result of an arm's search.

        values: what the arm trains from here on; those of the file where nothing that was tried trained. edge: settings
        whose best value lies at an end of their range → which end.
        """
        sign = 1.0 if self._plan.study.direction == "maximize" else -1.0
        candidates: list[CandidateRecord] = []
        runs = self.reevaluations(arm, rows)
        for values in self.best(arm, rows):
            evaluated = [rows[run.key] for run in runs if _same(run.values, values) and run.key in rows]
            finished = [row for row in evaluated if row["outcome"] == "finished"]
            stable = bool(finished) and not any(row["outcome"] == "diverged" for row in evaluated)
            mean = statistics.fmean(float(row["value"]) for row in finished) if stable else None
            costs = [float(row[self._how.cost]) for row in finished] if self._how.cost and stable else []
            cost = statistics.fmean(costs) if costs else None
            candidates.append(CandidateRecord(values, mean, len(evaluated), cost))
        candidates.sort(key=lambda c: math.inf if c.mean is None else -sign * c.mean)
        usable = [c for c in candidates if c.mean is not None]
        config = self._plan.arm(arm).config
        own = {setting.path: config.get(setting.path) for setting in self._space}
        chosen = usable[0].values if usable else own
        edges = {setting.path: setting.edge(chosen[setting.path]) for setting in self._space}
        return TunedArm(
            values=chosen,
            searched=bool(usable),
            candidates=tuple(candidates),
            edge={path: edge for path, edge in edges.items() if edge},
            optuna=self._studies[arm].name,
        )

    def importances(self, arm: str) -> dict[str, dict[str, float]]:
        return self._studies[arm].importances()


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two sets of values are the same. Compared as text: to Python, 0 is False."""
    return format_value(one) == format_value(other)
