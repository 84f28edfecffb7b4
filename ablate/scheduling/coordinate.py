"""The coordinator: plan × executor × tracker × ledger.

All decisions are made here, in one thread: what runs next, what is retried, when a look is complete, which arms go on,
when to stop. Executors only run, the tracker only records.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ablate.analysis import Analysis, Look, judge, next_step, undecided, winner
from ablate.analysis import plan as recorded_plan
from ablate.analysis.words import caution, sentence
from ablate.errors import StoreError, StudyError
from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task, is_last
from ablate.executors import Executor, Slot
from ablate.scheduling import bundles
from ablate.scheduling.queue import Queue
from ablate.scheduling.tuning import Searching
from ablate.study.design import Plan, Run
from ablate.study.record import PlanRecord, RunRecord
from ablate.study.seeds import NOISE_FLOOR, REPLICATES, Phase, is_reevaluation, is_reported, replicate_of
from ablate.text import format_duration, format_value
from ablate.tracking.frames import curve_frame, curve_rows, plan_frames, replicate_frame, replicate_row
from ablate.tracking.plans import stored_plans, study_names
from ablate.tracking.queries import StoredRun
from ablate.tracking.runs import (
    NewResults,
    duplicates,
    finished_runs,
    highest_attempts,
    recipes,
    run_curves,
    search_runs,
)
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Claims, Store
from ablate.training import trainer_of
from ablate.training.builtin import checkpoint
from ablate.training.payload import RunPayload

RETRIES = 1
NEAR = 256
"""Of the runs that wait, those that are looked through for others of the same shape."""

DECIDED = frozenset({"helps", "hurts", "no practical effect"})
TRIED_AGAIN = frozenset({"error", "memory", "crash"})
TICK = 0.25

Ending = Literal["complete", "budget", "interrupted"]


@dataclass(frozen=True)
class Options:
    """budget: seconds after which nothing new is started. timeout: seconds a run may take. threads: of a run on a CPU.

    checkpoint_every: seconds after which a run under way is saved; None: as training has it. accept_code: reuse runs of
    older training code, labelled as such. fuse: train runs of one seed together where they can share their batches.
    stop: whether someone wants the study to end; asked
    between events, so that it never ends in the middle of recording one.
    """

    budget: float | None = None
    timeout: float | None = None
    threads: int = 1
    checkpoint_every: float | None = None
    accept_code: bool = False
    fuse: bool = True
    stop: Callable[[], bool] = lambda: False


class Observer:
    """What a display may want to know; every method may be overridden."""

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        """A look begins: its number, pairs an arm, runs it takes, and how many of them are done already."""

    def searching(self, runs: int, done: int) -> None:
        """Values are looked for: trials in all, and how many of them are done already."""

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        """A run was handed to a slot."""

    def event(self, run: Run, event: Event) -> None:
        """Something happened to a run."""

    def settled(self, run: Run, outcome: str, value: float) -> None:
        """A run counts from here on, trained or reused: finished, diverged or failed, and the value it is judged by."""

    def judged(self, analysis: Analysis) -> None:
        """A look is complete and was judged."""

    def note(self, text: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True)
class Outcome:
    """How a study ended. left: planned runs of the current look that were not done."""

    record: PlanRecord
    analysis: Analysis
    ending: Ending
    failed: int
    left: int


class Coordinator:
    """Runs one plan. record: the plan's record where it is an extended one; the plan's own otherwise."""

    def __init__(
        self,
        plan: Plan,
        *,
        executor: Executor,
        tracker: Tracker,
        ledger: Queue,
        store: Store,
        claims: Claims,
        options: Options,
        observer: Observer,
        record: PlanRecord | None = None,
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._tracker = tracker
        self._ledger = ledger
        self._store = store
        self._options = options
        self._show = observer
        self._began = time.monotonic()
        self.record = record or plan.record()
        self._rows: dict[str, dict[str, Any]] = {}
        self._curves: dict[str, list[dict[str, Any]]] = {}
        self._planned: dict[str, Run] = {}
        self._attempts = highest_attempts(store, plan.study.name)
        self._meanwhile = NewResults(store)
        self._claims = claims
        # Runs whose bundle died, and that go on together from its checkpoint: once.
        self._taken_up: set[str] = set()
        # Shapes of networks that were handed out together and trained by themselves all the same.
        self._unsociable: set[str] = set()
        self._checkpoints = store.root / "checkpoints"
        self._environment: Mapping[str, str] = {}
        # Seconds that runs took, by arm: those of this process, and those that were taken from the store.
        self._took: dict[str, list[float]] = {}
        # Runs of this process that ended, until the store has them: then another study finds them there.
        self._ended: deque[tuple[int, str]] = deque()
        self._spent = False
        self._searching: Searching | None = None
        self._pruned: set[str] = set()

    # --- a study from its plan to its verdicts ---

    def run(self, environment: Mapping[str, str]) -> Outcome:
        """Go through the looks, those of earlier top-ups included, then confirm the winner where the study asks for it."""
        self.record = self._with_earlier()
        for step in self.record.path:
            self._plan = self._plan.onward(step)
        self._environment = environment
        self._count_readings()
        self._tracker.plan(self.record, environment)
        if self._plan.study.search is not None and (left := self._search(environment)):
            return self._end(left)
        if self._plan.study.space:
            return self._end(0)
        looks = recorded_plan.rules(self.record).schedule()
        self._reuse(self._plan.replicates(self._plan.names, range(looks[-1].pairs)))
        self._tidy()
        self._keep_failures()
        left = self._walk(looks[0], environment)
        analysis = self._judge(closed=0)
        going = list(self._plan.names)
        for look in looks if not left else ():
            left, analysis = self._take_look(look, list(self._plan.replicates(going, range(look.pairs))))
            going = self._still_going(analysis)
            if left or analysis.error or not going:
                break
        if not left and not analysis.error:
            left = self._fixed() or self._confirm(analysis, environment)
        return self._end(left)

    def top_up(self, environment: Mapping[str, str], seeds: int | None) -> Outcome:
        """One undeclared look at the undecided arms: `seeds` more of each, or as many as the budget allows.

        Where an earlier top-up was broken off, that one goes on: another look would cost more of the study's error.
        """
        self._environment = environment
        self._reuse_recorded()
        analysis = self._judge(closed=None)
        going = self._still_going(analysis)
        if analysis.error:
            raise StudyError(caution(analysis.error, analysis.rules), place=self._plan.study.name)
        if not going:
            raise StudyError(
                "no arm is undecided, so more seeds would change nothing",
                place=self._plan.study.name,
                hint="a new question wants a new study, or `confirm: true`",
            )
        looks = recorded_plan.rules(self.record).schedule()
        if analysis.look < len(looks):
            return self._go_on(looks[analysis.look], going)
        have = looks[-1].pairs
        most = have + seeds if seeds is not None else REPLICATES
        if not have < most <= REPLICATES:
            raise StudyError(
                f"a study has {REPLICATES} seeds at most, and {have} of them are in use",
                place=self._plan.study.name,
                hint=f"`--seeds {REPLICATES - have}` takes the rest" if have < REPLICATES else None,
            )
        runs = list(self._plan.replicates(going, range(have, most)))
        self._reuse(runs)
        if seeds is not None:
            self._extend(runs, environment, look=most)
            return self._end(self._take_look(self._last_look(), runs)[0])
        # The budget decides how many: whole rounds only, so that the arms stay even.
        self._show.note(
            f"adding seeds to {len(going)} arms, the reference included, until the budget is spent"
        )
        self._planned |= {run.key: run for run in runs}
        budget = self._options.budget or 0.0
        each = _Rounds(runs, self._took, len(self._executor.slots)).expected(runs[0])
        if each > budget:
            raise StudyError(
                f"{format_duration(budget)} buy no seed: {_runs_of_a_seed(len(going))} about {format_duration(each)}",
                place="--budget",
                hint="nothing was trained, and the study is as it was; `--seeds 1` adds one whatever it takes",
            )
        rounds = min(most - have, max(1, int(budget / each))) if each else 1
        self._show.looking(len(looks) + 1, have + rounds, rounds * len(going), 0)
        self._execute([run for run in runs if run.key not in self._rows])
        done = [sum(run.arm == arm and run.key in self._rows for run in runs) for arm in going]
        pairs = have + min(done)
        if pairs == have:
            each = _Rounds(runs, self._took, len(self._executor.slots)).expected(runs[0])
            raise StudyError(
                f"{format_duration(budget)} bought no whole seed: {_runs_of_a_seed(len(going))} about {format_duration(each)}",
                place="--budget",
                hint="the study is as it was; what was trained is kept for the next top-up",
            )
        self._show.note(
            f"the budget allowed {pairs - have} more seeds of each; what goes beyond waits for the next top-up"
        )
        self._extend([run for run in runs if replicate_of(run.seed) < pairs], environment, look=pairs)
        kept = {run.key for run in self.record.runs}
        self._rows = {key: row for key, row in self._rows.items() if key in kept}
        return self._end(self._take_look(self._last_look(), [])[0])

    def _go_on(self, look: Look, going: list[str]) -> Outcome:
        """Complete an undeclared look that was broken off."""
        if look.declared:
            raise StudyError(
                "its declared looks are not complete yet",
                place=self._plan.study.name,
                hint="`ablate run` with its file goes on with them; then a top-up can add to them",
            )
        self._show.note(f"going on with the top-up to {look.pairs} seeds that was broken off; none are added")
        runs = list(self._plan.replicates(going, range(look.pairs)))
        self._reuse(run for run in runs if run.key not in self._rows)
        return self._end(self._take_look(look, runs)[0])

    def _take_look(self, look: Look, runs: list[Run]) -> tuple[int, Analysis]:
        """Do what a look lacks, and judge it where nothing is left undone. Returns the number of runs that are left."""
        left = self._look(look.index, look.pairs, runs)
        if left:
            return left, self._judge(closed=None)
        analysis = self._judge(closed=look.index)
        verdicts = {c.verdict for c in analysis.comparisons} | {e.verdict for e in analysis.effects}
        if look.pairs > self.record.final and verdicts & DECIDED:
            self.record = replace(self.record, final=look.pairs)
            self._tracker.plan(self.record, self._environment)
        self._show.judged(analysis)
        self._tracker.arms(_arm_rows(analysis), look.pairs)
        return 0, analysis

    def _walk(self, look: Look, environment: Mapping[str, str]) -> int:
        """Let a greedy path come to its end on the seeds of the first look. Returns the number of runs left undone.

        Each step is recorded before what is beyond it is trained: a path that is taken up again goes the same way.
        """
        while (choices := self._plan.choices) and recorded_plan.rules(self.record).walking:
            at = self._plan.path[-1] if self._plan.path else self._plan.reference
            left = self._look(
                look.index,
                look.pairs,
                list(self._plan.replicates([at, *(arm.name for arm in choices)], range(look.pairs))),
            )
            if left:
                return left
            best = next_step(recorded_plan.rules(self.record), self._frame(), range(look.pairs))
            if best is None:
                self._show.note(
                    f"the path ends at {at}: nothing that it could go on to trains without diverging"
                )
                self.record = replace(self.record, steps=len(self._plan.path))
                self._tracker.plan(self.record, environment)
                break
            self._show.note(f"step {len(self._plan.path) + 1} of the path: {best}")
            known = len(self._plan.arms)
            self._plan = self._plan.onward(best)
            self.record = replace(self.record, path=self._plan.path, arms=self._plan.arm_records())
            joined = [arm.name for arm in self._plan.arms[known:]]
            runs = list(self._plan.replicates(joined, range(self.record.looks[-1])))
            self._extend(runs, environment)
            self._reuse(runs)
        return 0

    def _search(self, environment: Mapping[str, str]) -> int:
        """Tune every arm, or search; then the best are looked at again, and what is found recorded.

        Returns the number of runs left undone. A search that is over is not taken up again.
        """
        if self.record.tuned:
            self._meet(environment)
            return 0
        searching = Searching(self._plan, self._ledger)
        self._take_up(searching)
        trials = searching.done + searching.left
        self._show.searching(trials, searching.done)
        self._searching = searching
        try:
            # Where all that was asked for is found in the store, there is nothing to execute, and more to ask for.
            while searching.left and not self._over_time():
                self._execute([])
                searching.settle(self._rows)
        finally:
            searching.settle(self._rows)
            self._searching = None
            self._extend([run for run in searching.runs if run.key in self._rows], environment)
        if searching.left:
            return searching.left
        best = [run for arm in searching.arms for run in searching.again(arm, self._rows)]
        self._extend(best, environment)
        self._reuse(run for run in best if run.key not in self._rows)
        self._show.searching(trials + len(best), trials + sum(run.key in self._rows for run in best))
        self._planned |= {run.key: run for run in best}
        self._execute([run for run in best if run.key not in self._rows])
        if left := sum(run.key not in self._rows for run in best):
            return left
        tuned = {arm: searching.found(arm, self._rows) for arm in searching.arms}
        self.record = replace(self.record, tuned=tuned)
        if self._plan.study.space:
            importances = searching.importances(self._plan.reference)
            self.record = replace(self.record, importances=importances)
        for arm, found in tuned.items() if self._plan.study.nuisance else ():
            said = ", ".join(f"{path}={format_value(value)}" for path, value in found.values.items())
            self._show.note(f"{arm}: {said}" if found.searched else f"{arm}: nothing trained; {said} stays")
        self._meet(environment)
        return 0

    def _take_up(self, searching: Searching) -> None:
        """What an earlier command has tried: by the record, by the store, and by Optuna, who may each know of more."""
        study = self._plan.study.name
        known = {run.key: run for run in searching.known()}
        tagged = search_runs(self._store, study, self._plan.id)
        recorded = [run for run in self.record.runs if run.phase == "tune"]
        earlier = self._tried_before()
        tried: list[Run | RunRecord] = [*recorded, *tagged, *earlier]
        for run in tried:
            recipe = run.recipe if isinstance(run, Run) else ""
            known[run.key] = Run(run.key, recipe, run.arm, run.seed, "tune", run.values)
        self._planned |= known
        self._reuse(known.values())
        broken_off = replace(
            self.record, runs=tuple(_recorded(run) for run in known.values() if run.key not in self._rows)
        )
        rows, _ = plan_frames(self._store, broken_off)
        if earlier:
            self._show.note(
                f"{len(earlier)} trials of earlier plans count: those arms were looked at in the same way"
            )
        pruned = {row["key"]: row for row in rows.to_dict("records") if row["outcome"] == "pruned"}
        points = run_curves(self._store, [row["run_id"] for row in pruned.values()])
        for key, row in pruned.items():
            self._rows[key] = {str(name): value for name, value in row.items()}
            self._curves[key] = curve_rows(_recorded(known[key]), points[row["run_id"]])
        searching.match([run for run in known.values() if run.key in self._rows], self._rows, self._curves)

    def _tried_before(self) -> list[RunRecord]:
        """What earlier plans of this study have tried on arms that are still the same, in the same ranges and by the same sampler
        and pruner: another number of seeds, another margin or a further level is no reason to search again.
        """
        name, search = self._plan.study.name, self._plan.study.search
        assert search is not None
        if self.record.runs or name not in study_names(self._store):
            return []
        found: dict[str, dict[str, RunRecord]] = {arm.name: {} for arm in self._plan.arms}
        for other in (stored.record for stored in stored_plans(self._store, name)):
            if (other.nuisance, other.space) != (self.record.nuisance, self.record.space) or not other.search:
                continue
            how = (other.search.sampler, other.search.pruner, other.search.cost)
            if how != (search.sampler, search.pruner, search.cost):
                continue
            for run in other.runs:
                if run.phase != "tune" or is_reevaluation(run.seed) or run.arm not in found:
                    continue
                # The key says it all: the arm's config, its data and the code that trains it.
                if (
                    self._plan.trial(run.arm, run.values, replicate_of(run.seed)).key == run.key
                    and len(found[run.arm]) < search.trials
                ):
                    found[run.arm].setdefault(run.key, run)
        return [run for runs in found.values() for run in runs.values()]

    def _meet(self, environment: Mapping[str, str]) -> None:
        """Let the arms meet at their tuned values, on the seeds that are reported."""
        if not self._plan.study.nuisance:
            self._tracker.plan(self.record, environment)
            return
        tuned = {arm: found.values for arm, found in self.record.tuned.items()}
        self._plan = replace(self._plan, tuned=tuned)
        pairs = recorded_plan.rules(self.record).schedule()[-1].pairs
        self._extend(
            [*self._plan.replicates(self._plan.names, range(pairs)), *self._fixed_runs()], environment
        )
        if not self.record.read_before:
            self._count_readings()
            self._tracker.plan(self.record, environment)

    def _fixed_runs(self) -> list[Run]:
        """The arms at the values of the study file, as often as the first look takes.

        Where tuning left an arm at those, its own runs serve.
        """
        moved = [
            a.name for a in self._plan.arms if self._plan.tuned[a.name] != self._plan.file_values(a.name)
        ]
        return list(self._plan.replicates(moved, range(self._plan.study.looks[0]), "fixed"))

    def _fixed(self) -> int:
        """The same comparison without tuning, to stand beside it. Returns the number of runs left undone."""
        if not self._plan.study.nuisance:
            return 0
        runs = self._fixed_runs()
        self._reuse(runs)
        missing = [run for run in runs if run.key not in self._rows]
        if missing:
            self._show.note("the same arms at the values of the study file, to stand beside the tuned ones")
        self._show.searching(len(runs), len(runs) - len(missing))
        self._planned |= {run.key: run for run in runs}
        self._execute(missing)
        return sum(run.key not in self._rows for run in runs)

    def _fill(self, waiting: deque[tuple[Run, int]], free: int) -> bool:
        """Let a search add what it asks for next, where slots are free. Returns whether anything waits."""
        if self._searching is None:
            return bool(waiting)
        self._searching.settle(self._rows)
        while len(waiting) < free and not self._over_time():
            run = self._searching.next()
            if run is None:
                break
            self._planned[run.key] = run
            waiting.append((run, 0))
        return bool(waiting)

    def _last_look(self) -> Look:
        return recorded_plan.rules(self.record).schedule()[-1]

    def _with_earlier(self) -> PlanRecord:
        """The record with what earlier commands added to this plan, where it was recorded before."""
        if self._plan.study.name not in study_names(self._store):
            return self.record
        plans = (stored.record for stored in stored_plans(self._store, self._plan.study.name))
        same = [record for record in plans if record.id == self._plan.id]
        # The text may have changed in what makes no other plan: a comment, the question.
        return (
            replace(same[-1], declared=self.record.declared, text=self.record.text) if same else self.record
        )

    def _keep_failures(self) -> None:
        """What failed within a look that decided something stays failed: with it done after all, that look would be read again,
        and a verdict that is final might not be.
        """
        if not self.record.final:
            return
        kept = {
            str(row["key"]): {str(name): value for name, value in row.items()}
            for row in plan_frames(self._store, self.record)[0].to_dict("records")
            if row["outcome"] == "failed"
            and is_reported(row["phase"])
            and replicate_of(row["seed"]) < self.record.final
            and row["key"] not in self._rows
        }
        self._rows |= kept
        if kept:
            self._show.note(
                f"{len(kept)} failed {'run stays' if len(kept) == 1 else 'runs stay'} failed: the look that they belong to has "
                "decided arms, and what is decided is final"
            )

    def _count_readings(self) -> None:
        """How many other plans have judged runs of this one: what this one claims is claimed on top of what they did."""
        if not self.record.read_before and self._plan.study.name in study_names(self._store):
            arms = set(self._plan.names) - {self._plan.reference, NOISE_FLOOR}
            mine = {run.key for run in self.record.runs if run.arm in arms and run.phase == "report"}
            others = {
                stored.record.id
                for stored in stored_plans(self._store, self._plan.study.name)
                if stored.record.id != self._plan.id
                and stored.environment.get("ending") == "complete"
                and mine & {run.key for run in stored.record.runs}
            }
            self.record = replace(self.record, read_before=len(others))
        if before := self.record.read_before:
            self._show.note(
                f"runs of this plan were judged by {before} other {'plan' if before == 1 else 'plans'} of this study: the error "
                "of each stands for itself, and reading the same runs again is not paid for"
            )

    def _confirm(self, analysis: Analysis, environment: Mapping[str, str]) -> int:
        """The winner again, on fresh seeds. Returns the number of runs left undone."""
        best = self.record.confirmed or (winner(analysis) if self._plan.study.confirm else None)
        if best is None:
            if self._plan.study.confirm:
                self._show.note("no arm helps, so there is nothing to confirm")
            return 0
        pairs = self._plan.study.looks[-1]
        reference = recorded_plan.rules(self.record).reference_of(best)
        runs = list(self._plan.replicates([reference, best], range(pairs), "confirm"))
        if self.record.confirmed is None:
            self.record = replace(self.record, confirmed=best)
            self._extend(runs, environment)
        self._reuse(runs)
        self._show.note(f"confirming {best} on {pairs} fresh seeds")
        return self._look(0, pairs, runs)

    def _extend(self, runs: Iterable[Run], environment: Mapping[str, str], look: int | None = None) -> None:
        """Record what is added to the plan before it runs."""
        known = {run.key for run in self.record.runs}
        added = [_recorded(run) for run in runs if run.key not in known]
        extra = () if look is None else (look,)
        self.record = replace(
            self.record,
            runs=(*self.record.runs, *added),
            extra_looks=(*self.record.extra_looks, *extra),
        )
        self._tracker.plan(self.record, environment)

    def _still_going(self, analysis: Analysis) -> list[str]:
        """Undecided arms with what they are compared with, in plan order; empty where all is decided.

        The noise floor goes with them while it is undecided itself.
        """
        open_arms = set(undecided(analysis))
        if not open_arms:
            return []
        rules = recorded_plan.rules(self.record)
        keep = open_arms | {self._plan.reference} | {rules.reference_of(arm) for arm in open_arms}
        if analysis.aa is None or analysis.aa.verdict == "inconclusive":
            keep.add(NOISE_FLOOR)
        return [name for name in self._plan.names if name in keep]

    def _end(self, left: int) -> Outcome:
        ending: Ending = "budget" if self._spent and left else "complete"
        looks = self.record.looks + self.record.extra_looks
        analysis = self._judge(closed=None if left else len(looks))
        failed = sum(row["outcome"] == "failed" for row in self._rows.values())
        # What another machine has finished meanwhile can be told from what is in the store, own runs included.
        self._tracker.flush(10)
        for double, first in duplicates(self._store, self._plan.study.name).items():
            self._tracker.supersede(double, first)
        return Outcome(self.record, analysis, ending, failed, left)

    # --- what is known ---

    def _frame(self) -> Any:
        return replicate_frame(list(self._rows.values()))

    def _judge(self, closed: int | None) -> Analysis:
        rows = self._frame()
        curves = curve_frame([row for rows in self._curves.values() for row in rows])
        return judge(recorded_plan.rules(self.record), rows, curves, closed=closed)

    def _reuse(self, runs: Iterable[Run]) -> None:
        """Take what the store has already, from whatever study; copy what is not in this one."""
        wanted = {run.key: run for run in runs}
        self._planned |= wanted
        found = finished_runs(self._store, wanted, first=self._plan.study.name)
        here: dict[str, StoredRun] = {}
        elsewhere: dict[str, StoredRun] = {}
        for key, run in found.items():
            (here if run.experiment == self._plan.study.name else elsewhere)[key] = run
        labels: dict[str, dict[str, str]] = {}
        older = {run.recipe: run for run in wanted.values() if run.key not in found}
        if older:
            others = finished_runs(self._store, older, by="recipe")
            if others and self._options.accept_code:
                for recipe, run in others.items():
                    elsewhere[older[recipe].key] = run
                    labels[older[recipe].key] = {"ablate.accepted_code": run.tags["ablate.key"]}
            elif others:
                self._show.note(
                    f"{len(others)} finished {'run' if len(others) == 1 else 'runs'} of older training code "
                    "not reused (--accept-code takes them, labelled)"
                )
        for key, run in elsewhere.items():
            self._tracker.copy(wanted[key], run.run_id, self._plan.id, labels.get(key))
        if elsewhere:
            self._show.note(
                f"{len(elsewhere)} finished {'run' if len(elsewhere) == 1 else 'runs'} reused from the store"
            )
        bare = [
            key
            for key, run in {**here, **elsewhere}.items()
            if "ablate.model" not in run.tags and self._keeps_model(wanted[key])
        ]
        if bare:
            self._show.note(
                f"{len(bare)} of the runs already done {'has' if len(bare) == 1 else 'have'} no saved model: "
                "training.save_model was none when they were trained (deleted in MLflow, they are trained again)"
            )
        self._take({**here, **elsewhere})
        self._ledger.match({key: row["value"] for key, row in self._rows.items()}, wanted)

    def _keeps_model(self, run: Run) -> bool:
        return bool(self._plan.config(run).flatten().get("training.save_model", "none") != "none")

    def _take(self, found: Mapping[str, StoredRun]) -> None:
        points = run_curves(self._store, [run.run_id for run in found.values()])
        for key, run in found.items():
            planned = _recorded(self._planned[key])
            mine = points[run.run_id]
            row = self._rows[key] = replicate_row(
                self.record, planned, run.tags, mine, run.run_id, has_result=True
            )
            self._curves[key] = curve_rows(planned, mine)
            self._remember(row)
            self._show.settled(self._planned[key], row["outcome"], row["value"])

    def _reuse_recorded(self) -> None:
        """All runs that the record names, as they ended; none of those is trained again, not even what failed."""
        keys: dict[Any, str] = {}
        for run in self.record.runs:
            self._planned[run.key] = Run(run.key, "", run.arm, run.seed, run.phase, run.values)
            keys[run.arm, run.seed, run.phase] = run.key
        rows, curves = plan_frames(self._store, self.record)
        self._rows |= {row["key"]: row for row in rows.to_dict("records")}
        for key, row in self._rows.items():
            self._remember(row)
            self._show.settled(self._planned[key], row["outcome"], row["value"])
        for place, of in curves[curves["phase"] != "tune"].groupby(["arm", "seed", "phase"], sort=False):
            self._curves[keys[place]] = [
                {str(name): value for name, value in row.items()} for row in of.to_dict("records")
            ]
        self._ledger.match({key: row["value"] for key, row in self._rows.items()}, self._planned)

    def _remember(self, row: Mapping[str, Any]) -> None:
        if math.isfinite(row["seconds"]):
            self._took.setdefault(row["arm"], []).append(float(row["seconds"]))

    # --- running ---

    def _look(self, number: int, pairs: int, runs: list[Run]) -> int:
        """Do the runs of a look that are not done. Returns how many are left undone."""
        self._planned |= {run.key: run for run in runs}
        missing = [run for run in runs if run.key not in self._rows]
        self._show.looking(number, pairs, len(runs), len(runs) - len(missing))
        self._execute(missing)
        return sum(run.key not in self._rows for run in runs)

    def _execute(self, runs: list[Run]) -> None:
        waiting = deque((run, 0) for run in runs)
        # Runs that another study on this machine is at.
        elsewhere: list[Run] = []
        # Runs that found too little memory, and are tried again while nothing else runs.
        alone: set[str] = set()
        free = list(self._executor.slots)
        at: dict[str, tuple[Run, Slot, int, float]] = {}
        seqs: dict[str, int] = {}
        points: dict[str, dict[str, list[tuple[int, float]]]] = {}
        tags: dict[str, dict[str, str]] = {}
        expired: set[str] = set()
        # How many runs share a run's slot, itself included.
        company: dict[str, int] = {}
        rounds = _Rounds(runs, self._took, len(self._executor.slots))
        try:
            while self._fill(waiting, len(free)) or at or elsewhere:
                self._give_back()
                elsewhere = [run for run in elsewhere if not self._claimed(run, waiting)]
                while waiting and free and not self._out_of_budget(waiting, rounds):
                    if at and (waiting[0][0].key in alone or not alone.isdisjoint(at)):
                        break
                    run, failures = waiting.popleft()
                    if not failures and not self._claims.take(run.key):
                        if not elsewhere:
                            self._show.note(
                                f"another study is training {run.arm} · seed {run.seed}; waiting for it"
                            )
                        elsewhere.append(run)
                        continue
                    if not failures and self._found_meanwhile(run):
                        continue
                    slot = free.pop(0)
                    members = [run]
                    fuse = False
                    # What failed goes by itself: it may have been the company.
                    if self._options.fuse and not failures:
                        goes_on, others = self._companions(run, waiting, self._unfinished(at, seqs), slot)
                        members += others
                        fuse = goes_on or len(members) > 1
                    tasks: list[Task] = []
                    for member in members:
                        attempt = self._attempts.get(member.key, 0) + 1
                        self._attempts[member.key] = attempt
                        self._ledger.ask(member)
                        tasks.append(self._task(member, attempt, slot, fuse=fuse))
                        at[member.key] = (member, slot, failures, time.monotonic())
                        points[member.key], tags[member.key], seqs[member.key] = {}, {}, 0
                        company[member.key] = len(members)
                    self._executor.submit(Bundle(tuple(tasks)), slot)
                    for member, task in zip(members, tasks, strict=True):
                        self._show.running(member, slot, task.attempt)
                if not at:
                    if self._spent or not (waiting or elsewhere):
                        return
                    time.sleep(TICK)
                    self._heed()
                    continue
                for event in self._executor.wait(TICK):
                    self._heed()
                    run, slot, failures, since = at[event.run]
                    if event.run in expired and isinstance(event, Failed):
                        limit = f"took longer than {self._options.timeout:g} s"
                        event = replace(event, kind="timeout", reason=limit)  # noqa: PLW2901
                    seqs[run.key] = event.seq
                    if isinstance(event, Started) and company[run.key] > 1 and "fused" not in event.facts:
                        self._unsociable.add(self._plan.config(run).shape())
                    if is_last(event):
                        del at[run.key]
                        expired.discard(run.key)  # where it is tried again, its time begins anew
                        if all(slot != other for _, other, _, _ in at.values()):
                            free.append(slot)
                    self._note(event, run, points[run.key], tags[run.key])
                    if not isinstance(event, Finished | Failed):
                        continue
                    rounds.took(run, (time.monotonic() - since) / company[run.key])
                    # Of a bundle that took too long nobody knows which member it was.
                    again = TRIED_AGAIN if company[run.key] == 1 else TRIED_AGAIN | {"timeout"}
                    if isinstance(event, Failed) and event.kind in again and failures < RETRIES:
                        if event.kind == "memory":
                            alone.add(run.key)
                        goes_on = event.kind == "crash" and self._goes_on_together(run)
                        waiting.appendleft((run, failures if goes_on else failures + 1))
                    else:
                        self._settle(event, run, points[run.key], tags[run.key])
                        self._ended.append((self._tracker.put, run.key))
                self._heed()
                self._expire(at, expired, company)
        except KeyboardInterrupt:
            for key, (run, _, _, _) in at.items():
                event = Failed(
                    key, self._attempts[key], seqs[key] + 1, time.time(), "cancelled", "interrupted"
                )
                self._tracker.event(event, run, self._plan.config(run), self._plan.id)
                self._ledger.tell(event, float("nan"))
            raise

    def _unfinished(self, at: Mapping[str, tuple[Run, Slot, int, float]], seqs: Mapping[str, int]) -> float:
        """What is left of the runs in training, in runs."""
        left = 0.0
        for key, (run, _, _, _) in at.items():
            epochs = self._plan.config(run).flatten().get("training.epochs")
            # The events of an attempt are its start and its epochs.
            left += 1 - min(seqs[key] / epochs, 1) if isinstance(epochs, int) else 1
        return left

    def _companions(
        self, run: Run, waiting: deque[tuple[Run, int]], unfinished: float, slot: Slot
    ) -> tuple[bool, list[Run]]:
        """Take from `waiting` the runs that are to be trained with `run`.

        Returns whether they are those that it was broken off with, and the runs.
        """
        fresh = [other for other, failures in waiting if not failures]
        together: frozenset[str] = frozenset()
        if saved := tuple(checkpoint.together(self._checkpoints).values()):
            keys = {run.key, *(other.key for other in fresh)}
            together = bundles.again(run.key, saved, keys)
            # Those whose turn comes later, together too.
            promised = {key for of in saved if of <= keys for key in of - together}
            fresh = [other for other in fresh if other.key not in promised]
        if together:
            chosen = [other for other in fresh if other.key in together]
        else:
            chosen = self._company(run, fresh, unfinished + 1 + len(waiting), slot)
        # What another study is at, or has done meanwhile, is seen to when it is next.
        ready = [other for other in chosen if self._claims.take(other.key)]
        done = [other for other in ready if self._found_meanwhile(other)]
        for other in ready:
            waiting.remove((other, 0))
        found = [other for other in ready if other not in done]
        return bool(together) and len(found) == len(together) - 1, found

    def _company(self, run: Run, others: list[Run], left: float, slot: Slot) -> list[Run]:
        """Those of `others` that a new bundle with `run` is made of."""
        # On a GPU runs of several seeds can be stacked; a budget wants its rounds of seeds one by one.
        any_seed = slot.device.startswith("cuda") and self._options.budget is None
        # Of another seed none can be elsewhere, and asking thousands of configs would take its time.
        near = others[:NEAR] if any_seed else [other for other in others if other.seed == run.seed]
        if self._plan.config(run).shape() in self._unsociable:
            return []
        near = [one for one in near if self._plan.config(one).shape() not in self._unsociable]
        slots = len(self._executor.slots)
        return bundles.take([run, *near], self._plan.config, left, slots, any_seed=any_seed)[1:]

    def _goes_on_together(self, run: Run) -> bool:
        """Whether a run whose process died goes on with those that it was trained with, from what was saved of them.

        Once: where they die again, it may be one of them who is to blame, and each is tried by itself.
        """
        saved = checkpoint.together(self._checkpoints).values()
        if run.key in self._taken_up or not any(run.key in of for of in saved):
            return False
        self._taken_up.add(run.key)
        return True

    def _claimed(self, run: Run, waiting: deque[tuple[Run, int]]) -> bool:
        """Whether a run that another study was at is that no more; it is next then, where it has no result."""
        if not self._claims.take(run.key):
            return False
        self._claims.give_back(run.key)
        waiting.appendleft((run, 0))
        return True

    def _found_meanwhile(self, run: Run) -> bool:
        """Take the result of a run that another study has finished since this one began."""
        if run.key not in self._meanwhile:
            return False
        self._reuse([run])
        self._claims.give_back(run.key)
        return True

    def _tidy(self) -> None:
        """Remove checkpoints from which nobody goes on: of runs that are done, and of runs of this plan that other code has begun.

        Asked before anything is trained. What another process is at stays, and so does what only another study plans.
        """
        left = checkpoint.left(self._checkpoints)
        keys = frozenset().union(*left.values())
        if not keys:
            return
        over = set(finished_runs(self._store, keys))
        now = {run.recipe for run in self._planned.values()}
        begun = recipes(self._store, keys - self._planned.keys())
        over |= {key for key, recipe in begun.items() if recipe in now}
        for path, of in left.items():
            if of.isdisjoint(over):
                continue
            taken = [key for key in of if self._claims.take(key)]
            if len(taken) == len(of):
                checkpoint.discard(path)
            for key in taken:
                self._claims.give_back(key)

    def _give_back(self) -> None:
        while self._ended and self._ended[0][0] <= self._tracker.delivered:
            self._claims.give_back(self._ended.popleft()[1])

    def _heed(self) -> None:
        """End the study where someone asked for it, or where nothing can be recorded."""
        if self._tracker.broken is not None:
            raise self._tracker.broken
        if self._options.stop():
            raise KeyboardInterrupt

    def _task(self, run: Run, attempt: int, slot: Slot, *, fuse: bool) -> Task:
        config = self._plan.config(run)
        payload = RunPayload(
            config=config.tree(),
            seed=run.seed,
            kind=trainer_of(config).kind,
            device=slot.device,
            threads=self._options.threads,
            train=self._plan.study.train,
            data=self._plan.fingerprint(run),
            fuse=fuse,
            metric=self._plan.study.metric,
            checkpoint_every=self._options.checkpoint_every,
        )
        return Task(run.key, attempt, payload)

    def _note(
        self, event: Event, run: Run, points: dict[str, list[tuple[int, float]]], tags: dict[str, str]
    ) -> None:
        """Pass an event on, and keep what the judgement needs of it."""
        if isinstance(event, Failed) and event.kind == "cancelled" and run.key in self._pruned:
            event = replace(event, kind="pruned", reason="broken off: others were better by then")
        self._tracker.event(event, run, self._plan.config(run), self._plan.id)
        self._show.event(run, event)
        match event:
            case Started():
                tags |= {f"ablate.{name}": str(value) for name, value in event.facts.items()}
            case EpochEnd():
                for metric, value in event.metrics.items():
                    points.setdefault(metric, []).append((event.epoch, value))
                value = event.metrics.get(self._plan.study.metric, float("nan"))
                hopeless = self._ledger.report(run.key, event.epoch, value)
                # At its last epoch there is nothing left to save.
                over = event.epoch == self._plan.config(run).flatten().get("training.epochs")
                if hopeless and not over and run.key not in self._pruned:
                    self._pruned.add(run.key)
                    self._executor.cancel(run.key)
            case Finished():
                for metric, value in event.metrics.items():
                    points.setdefault(metric, []).append((event.epoch, value))
                tags |= {f"ablate.{name}": str(value) for name, value in event.facts.items()}
                tags |= {"ablate.outcome": event.outcome, "ablate.epoch": str(event.epoch)}
                values = dict(points.get(self._plan.study.metric, []))
                self._ledger.tell(event, values.get(event.epoch, float("nan")))
            case Failed():
                outcome = "pruned" if event.kind == "pruned" else "failed"
                if event.kind == "pruned":  # it never goes on
                    checkpoint.remove(self._checkpoints, run.key)
                tags |= {"ablate.outcome": outcome, "ablate.reason": event.reason}
                self._ledger.tell(event, float("nan"))

    def _settle(
        self,
        event: Finished | Failed,
        run: Run,
        points: Mapping[str, list[tuple[int, float]]],
        tags: Mapping[str, str],
    ) -> None:
        """The run has had its last attempt: it counts."""
        if isinstance(event, Finished) and self._plan.study.metric not in points:
            raise StoreError(
                f"training never yielded the metric {self._plan.study.metric!r}",
                place="metric",
                hint=f"it yielded {', '.join(sorted(points)) or 'nothing'}",
            )
        done = isinstance(event, Finished)
        row = self._rows[run.key] = replicate_row(
            self.record, _recorded(run), tags, points, "", has_result=done
        )
        cost = self._plan.study.search.cost if self._plan.study.search is not None else None
        if cost is not None and row["outcome"] == "finished" and not math.isfinite(row[cost]):
            raise StoreError(
                f"training never yielded what it costs in {cost}",
                place="search.cost",
                hint=f"yield model/{cost} with the metrics of the last epoch, or weigh `seconds`",
            )
        self._curves[run.key] = curve_rows(_recorded(run), points)
        self._show.settled(run, row["outcome"], row["value"])

    def _over_time(self) -> bool:
        """Whether the budget is spent to its last second."""
        budget = self._options.budget
        if budget is not None and time.monotonic() - self._began >= budget:
            self._spent = True
        return self._spent

    def _out_of_budget(self, waiting: deque[tuple[Run, int]], rounds: _Rounds) -> bool:
        """Whether the budget forbids the next run that waits."""
        if self._options.budget is None:
            return False
        run = waiting[0][0]
        left = self._options.budget - (time.monotonic() - self._began)
        if rounds.may_ask(run, left):
            return False
        # Said once; a run of an earlier round that has to be tried again may come after it.
        if not self._spent and (why := rounds.refusal([one for one, _ in waiting], left)):
            self._show.note(why)
        self._spent = True
        return True

    def _expire(
        self,
        at: Mapping[str, tuple[Run, Slot, int, float]],
        expired: set[str],
        company: Mapping[str, int],
    ) -> None:
        if self._options.timeout is None:
            return
        for key, (_, slot, _, since) in at.items():
            if key not in expired and time.monotonic() - since > self._options.timeout * company[key]:
                expired.add(key)
                self._executor.kill(slot)


class _Rounds:
    """Runs grouped by replicate number. A round is one seed of every arm, and what a budget is spent by.

    seconds: arm → what its runs took so far; added to as runs end. slots: how many runs are trained at a time.
    """

    def __init__(self, runs: Iterable[Run], seconds: dict[str, list[float]], slots: int) -> None:
        self._seconds = seconds
        self._slots = slots
        self._rounds: dict[tuple[Phase, int], list[Run]] = {}
        for run in runs:
            self._rounds.setdefault(self._round(run), []).append(run)
        # Rounds under way, and whether it was known what each of their arms takes.
        self._begun: dict[tuple[Phase, int], bool] = {}

    def may_ask(self, run: Run, left: float) -> bool:
        """Whether `run` may be trained with `left` seconds of the budget to go.

        A round is begun where it can be expected to fit, and then finished though it should take longer: half a round would
        leave the arms uneven. Before every arm has been timed nothing can be expected; such a round ends with the budget.
        """
        place = self._round(run)
        together = self._rounds.get(place, [])  # what a search asks for belongs to none
        if not self._begun.get(place, False):
            if left <= 0:
                return False
            if place not in self._begun:
                known = bool(together) and all(self._seconds.get(each.arm) for each in together)
                if known and self.expected(run) > left:
                    return False
                self._begun[place] = known
        return True

    def refusal(self, waiting: list[Run], left: float) -> str:
        """Why the first of these may not be trained, in words; nothing where all there is to say is that time is up."""
        place = self._round(waiting[0])
        size = len(self._rounds.get(place, []))
        lacking = sum(self._round(run) == place for run in waiting)
        if place in self._begun and lacking < size:
            return (
                f"the budget ended within a seed that was begun before every arm had been timed: {lacking} of its {size} runs are "
                "left, and the arms are not even"
            )
        if not (takes := self.expected(waiting[0])):
            return ""
        return (
            f"{_runs_of_a_seed(size)} about {format_duration(takes)}, and {format_duration(max(left, 0))} of the budget are left: "
            "none is begun, so that the arms stay even"
        )

    def took(self, run: Run, seconds: float) -> None:
        self._seconds.setdefault(run.arm, []).append(seconds)

    def expected(self, run: Run) -> float:
        """Seconds of the whole round that `run` belongs to; 0 while nothing is known."""
        known = [second for of in self._seconds.values() for second in of]
        if not known:
            return 0.0
        free = [0.0] * self._slots
        for each in self._rounds.get(self._round(run), []):
            of = self._seconds.get(each.arm) or known
            heapq.heapreplace(free, free[0] + sum(of) / len(of))
        return max(free)

    @staticmethod
    def _round(run: Run) -> tuple[Phase, int]:
        return ("report" if run.phase == NOISE_FLOOR else run.phase, replicate_of(run.seed))


def _recorded(run: Run) -> RunRecord:
    return RunRecord(run.arm, run.seed, run.phase, run.key, dict(run.values))


def _runs_of_a_seed(runs: int) -> str:
    return f"the {runs} runs of a seed take" if runs > 1 else "the one run of a seed takes"


def _arm_rows(analysis: Analysis) -> dict[str, dict[str, Any]]:
    """What an arm's own run in MLflow carries: means, spreads, the verdict and its sentence."""
    base = analysis.baseline
    rows: dict[str, dict[str, Any]] = {}
    if base.mean is not None:
        tags = {"ablate.verdict": "baseline", "mlflow.note.content": "What every other arm is compared with."}
        rows[base.arm] = {"metrics": _numbers({"mean": base.mean, "sd": base.sd, "n": base.n}), "tags": tags}
    for cell in analysis.cells:
        numbers = _numbers({"mean": cell.mean, "sd": cell.sd, "n": cell.n})
        rows[cell.arm] = {
            "metrics": numbers,
            "tags": {"mlflow.note.content": "A cell: effects get the verdicts."},
        }
    for c in (*analysis.comparisons, *((analysis.aa,) if analysis.aa else ())):
        numbers = {"mean": c.summary.mean, "sd": c.summary.sd, "n": c.n, "effect": c.effect}
        numbers |= {"effect_low": c.lo, "effect_high": c.hi, "cost_ratio": c.cost_ratio}
        tags = {"ablate.verdict": c.verdict, "mlflow.note.content": sentence(c, analysis.rules)}
        rows[c.arm] = {"metrics": _numbers(numbers), "tags": tags}
    return rows


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    # For the eye, in a narrow column: the report and its JSON have them in full.
    return {name: float(f"{value:.5g}") for name, value in values.items() if value is not None}
