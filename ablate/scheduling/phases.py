"""The phases of a study: search or tuning, greedy path, looks, top-up, fixed comparison, confirmation.

Each is a generator. It yields the runs that it wants next, is resumed when they have been trained as far as the budget allows,
and reads from what is known how they ended. It returns how many of its runs are left undone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ablate.analysis import Analysis, Look, Rules, judge, next_step, undecided, winner
from ablate.analysis.arm_rows import arm_rows
from ablate.analysis.intervals import rounding
from ablate.analysis.plan import rules
from ablate.analysis.words import caution
from ablate.errors import StudyError
from ablate.scheduling.budget import Budget, runs_of_a_seed
from ablate.scheduling.known import Known, earlier_trials, recorded
from ablate.scheduling.observer import JudgedLook, Observer
from ablate.scheduling.queue import Queue
from ablate.scheduling.tuning import Searches
from ablate.study.design import Plan, Run
from ablate.study.looks import LookPlan
from ablate.study.record import PlanRecord
from ablate.study.seeds import NOISE_FLOOR, REPLICATES, replicate_of
from ablate.text import counted, format_duration, format_value
from ablate.tracking.frames import plan_frames
from ablate.tracking.plans import stored_plans, study_names
from ablate.tracking.runs import same_runs
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Store

DECIDED = frozenset({"helps", "hurts", "no practical effect"})


@dataclass(frozen=True)
class Batch:
    """Runs that a phase wants next, in this order. more: asked for further ones as slots become free, with their number."""

    runs: Sequence[Run] = ()
    more: Callable[[int], Iterable[Run]] = lambda _: ()


Steps = Generator[Batch, None, int]
LookSteps = Generator[Batch, None, tuple[int, Analysis]]


class OngoingStudy:
    """A study under way: its plan and record as they are by now, and what is known of its runs.

    The record is immutable: what is added makes a new one, which is recorded before anything of it is trained.
    """

    def __init__(
        self,
        plan: Plan,
        record: PlanRecord,
        environment: Mapping[str, str],
        *,
        known: Known,
        budget: Budget,
        store: Store,
        tracker: Tracker,
        ledger: Queue,
        observer: Observer,
    ) -> None:
        self.plan = plan
        self.record = record
        self.known = known
        self.budget = budget
        self.store = store
        self.ledger = ledger
        self.observer = observer
        self._environment = environment
        self._tracker = tracker

    # --- the record ---

    def extend(self, runs: Iterable[Run] = (), **changes: Any) -> None:
        """Record the plan with further runs, and with other values of the given fields."""
        planned = {run.key for run in self.record.runs}
        added = tuple(recorded(run) for run in runs if run.key not in planned)
        self.record = replace(self.record, runs=(*self.record.runs, *added), **changes)
        self._tracker.plan(self.record, self._environment)

    def extend_where_new(self, runs: Iterable[Run]) -> None:
        """Record the plan with further runs, where it has not all of these."""
        planned = {run.key for run in self.record.runs}
        if any(run.key not in planned for run in runs):
            self.extend(runs)

    def add_earlier(self, seeds: int | None) -> None:
        """Add what earlier commands recorded for this plan: looks, steps of a path, tuned values, a confirmation.

        seeds: where this command asks for a look; None: where the study file does.
        """
        if self.plan.study.name in study_names(self.store):
            plans = (stored.record for stored in stored_plans(self.store, self.plan.study.name))
            same = [record for record in plans if record.id == self.plan.id]
            if same:
                # The text may have changed in what makes no other plan: a comment, the question, the seeds.
                text, declared = self.record.text, self.record.declared
                looks = self._looks(same[-1], seeds)
                self.record = replace(same[-1], declared=declared, text=text, looks=looks)
        for step in self.record.path:
            self.plan = self.plan.onward(step)

    def _looks(self, earlier: PlanRecord, seeds: int | None) -> LookPlan:
        """Return the looks of an earlier command on this plan, with those that this one asks for; seeds as for `add_earlier`."""
        looks = earlier.looks
        replicates, _ = plan_frames(self.store, earlier)
        if looks.taken < len(looks.at) and len(replicates) and not self.plan.study.space:
            # A process that was killed may have left a look with all its runs, which reports then read. Records of
            # earlier versions never say what was taken.
            looks = looks.judged(judge(rules(earlier), replicates).look)
        stops = self.plan.study.looks
        if not looks.taken:
            return self.record.looks
        asked = looks.resumed(stops) if seeds is None else looks.until(seeds)
        if seeds is not None and seeds <= looks.last_taken:
            self.observer.note(
                f"the study was judged at {counted(looks.last_taken, 'seed')}; a look at {seeds} adds nothing"
            )
        if looks.most < asked.at[-1] != looks.at[-1]:
            self.observer.note(
                f"the plan was judged with at most {counted(looks.most, 'seed')}: what goes beyond is an extra look, at a small "
                "part of the error"
            )
        return asked

    def count_readings(self) -> None:
        """Count the other plans that have judged runs of this one: what this one claims is claimed on top of what they did.

        They may be of other studies: the same question under another name is read from the same runs.
        """
        if not self.record.read_before:
            arms = [name for name in self.plan.names if name not in (self.plan.reference, NOISE_FLOOR)]
            judged = {run.key for run in self.record.runs if run.arm in arms and run.phase == "report"}
            if self.plan.settled:
                runs = self.plan.replicates(arms, range(self.record.looks.at[-1]))
                judged |= self.known.keys_of_older_code(runs, self.record)
            judged, studies = same_runs(self.store, judged)
            readers = [
                stored.record
                for study in studies
                for stored in stored_plans(self.store, study)
                if (stored.record.looks.taken or stored.environment.get("ending") == "complete")
                and judged & {run.key for run in stored.record.runs}
            ]
            me = (self.plan.study.name, self.plan.id)
            others = {(record.study, record.id) for record in readers} - {me}
            self.record = replace(self.record, read_before=len(others))
        if before := self.record.read_before:
            self.observer.note(
                f"runs of this plan were judged by {counted(before, 'other plan')}: the error of each stands for itself, and "
                "reading the same runs again is not paid for"
            )

    def record_arms(self, analysis: Analysis, pairs: int) -> None:
        """Record what is known of each arm after so many pairs."""
        self._tracker.arms(arm_rows(analysis), pairs)

    # --- what is known ---

    def reuse(self, runs: Iterable[Run]) -> None:
        """Take the results that the store has of these runs."""
        self.known.reuse(runs, self.plan, self.record)

    def rules(self) -> Rules:
        return rules(self.record)

    def replicates(self, arms: Iterable[str], look: Look) -> list[Run]:
        """Return the runs that these arms have up to a look."""
        return list(self.plan.replicates(arms, range(look.pairs)))

    def looks(self) -> tuple[Look, ...]:
        """Return every look of the plan: those that were taken, and those that were asked for."""
        return tuple(self.rules().schedule())

    def judge(self, closed: int | None) -> Analysis:
        """Judge what is known. closed: the last look that is complete; None: none that was not complete before."""
        self._learn_resolution()
        replicates, curves = self.known.frames()
        return judge(self.rules(), replicates, curves, closed=closed)

    def _learn_resolution(self) -> None:
        """Record the resolution of the metric as the runs printed it, where neither the study nor its training knows it."""
        if self.plan.resolution:
            return
        rows = [row for row in self.known.rows.values() if row["outcome"] == "finished"]
        if not (printed := [row["resolution"] for row in rows if row["resolution"] > 0]):
            return
        # A number that was printed in full has no step but that of its last bits.
        sizes = [abs(row["value"]) for row in rows if math.isfinite(row["value"])]
        is_full = min(printed) <= rounding(max(sizes, default=0.0))
        finest = 0.0 if is_full else min(printed)
        if finest != self.record.resolution:
            self.extend(resolution=finest)

    def undecided(self, analysis: Analysis) -> list[str]:
        """Undecided arms with those that they are compared with, in plan order; empty where all are decided.

        The noise floor goes with them while it is undecided itself.
        """
        arms = set(undecided(analysis))
        if not arms:
            return []
        rules = self.rules()
        keep = arms | {self.plan.reference} | {rules.reference_of(arm) for arm in arms}
        if analysis.aa is None or analysis.aa.verdict == "inconclusive":
            keep.add(NOISE_FLOOR)
        return [name for name in self.plan.names if name in keep]

    # --- training ---

    def train(self, runs: Sequence[Run], announce: Callable[[int, int], None]) -> Steps:
        """Train those of `runs` that have no result. announce: told how many runs there are, and how many are done."""
        self.known.plan(runs)
        missing = self.known.missing(runs)
        announce(len(runs), len(runs) - len(missing))
        yield Batch(missing)
        return len(self.known.missing(runs))

    def train_for_look(self, number: int, pairs: int, runs: Sequence[Run]) -> Steps:
        """Train what a look lacks."""
        return self.train(runs, partial(self.observer.looking, number, pairs))


def under_recorded_id(plan: Plan, store: Store) -> Plan:
    """Return the plan under the id that it has in the store, where a version recorded it that told plans apart by their looks."""
    if plan.earlier_id == plan.id or plan.study.name not in study_names(store):
        return plan
    ids = {stored.record.id for stored in stored_plans(store, plan.study.name)}
    return replace(plan, recorded_id=plan.earlier_id) if plan.earlier_id in ids else plan


# --- a study ------------------------------------------------------------------------------------------------------


def whole_study(study: OngoingStudy, seeds: int | None = None) -> Steps:
    """Go through all phases of a plan, what earlier commands added to it included.

    seeds: take one look, at so many seeds; None: take those of the study file.
    """
    study.add_earlier(seeds)
    study.count_readings()
    study.extend()
    plan = study.plan
    if plan.study.search is not None and (left := (yield from search(study))):
        return left
    if plan.study.space:
        return 0
    all_looks = study.looks()
    study.reuse(study.plan.replicates(study.plan.names, range(all_looks[-1].pairs)))
    study.known.tidy()
    if kept := study.known.keep_failures(study.record):
        study.observer.note(
            f"{counted(kept, 'failed run')} {'stays' if kept == 1 else 'stay'} failed: the look that they belong to has decided "
            "arms, and what is decided is final"
        )
    if left := (yield from path(study, all_looks[0])):
        return left
    left, analysis = yield from take_looks(study, all_looks, list(study.plan.names))
    if left or analysis.error:
        return left
    if left := (yield from fixed_comparison(study)):
        return left
    return (yield from confirmation(study, analysis))


def take_looks(study: OngoingStudy, looks: Sequence[Look], arms: list[str]) -> LookSteps:
    """Take looks in order, until these arms are decided or something is left undone; see `take_look`."""
    for look in looks:
        runs = study.replicates(arms, look)
        study.extend_where_new(runs)
        left, analysis = yield from take_look(study, look, runs)
        arms = study.undecided(analysis)
        if left or analysis.error or not arms:
            break
    return left, analysis


def take_look(study: OngoingStudy, look: Look, runs: Sequence[Run]) -> LookSteps:
    """Train what a look lacks, and judge it where nothing is left undone. Returns also the analysis as it is by then."""
    if left := (yield from study.train_for_look(look.index, look.pairs, runs)):
        return left, study.judge(closed=None)
    analysis = study.judge(closed=look.index)
    verdicts = {c.verdict for c in analysis.comparisons} | {e.verdict for e in analysis.effects}
    looks = study.record.looks.judged(look.index)
    final = max(study.record.final, look.pairs) if verdicts & DECIDED else study.record.final
    if (looks, final) != (study.record.looks, study.record.final):
        study.extend(looks=looks, final=final)
    study.observer.judged(JudgedLook(study.record, analysis, study.known.replicates()))
    study.record_arms(analysis, look.pairs)
    return 0, analysis


def path(study: OngoingStudy, look: Look) -> Steps:
    """Follow a greedy path to its end, on the seeds of the first look.

    Each step is recorded before what lies beyond it is trained: a path that is resumed goes the same way.
    """
    while (choices := study.plan.choices) and study.rules().walking:
        position = study.plan.path[-1] if study.plan.path else study.plan.reference
        names = [position, *(arm.name for arm in choices)]
        runs = list(study.plan.replicates(names, range(look.pairs)))
        if left := (yield from study.train_for_look(look.index, look.pairs, runs)):
            return left
        best = next_step(study.rules(), study.known.frames()[0], range(look.pairs))
        if best is None:
            study.observer.note(
                f"the path ends at {position}: nothing that it could go on to trains without diverging"
            )
            study.extend(steps=len(study.plan.path))
            break
        study.observer.note(f"step {len(study.plan.path) + 1} of the path: {best}")
        arms_before = len(study.plan.arms)
        study.plan = study.plan.onward(best)
        added = [arm.name for arm in study.plan.arms[arms_before:]]
        runs = list(study.plan.replicates(added, range(study.record.looks.at[-1])))
        study.extend(runs, path=study.plan.path, arms=study.plan.arm_records())
        study.reuse(runs)
    return 0


# --- search and tuning --------------------------------------------------------------------------------------------


def search(study: OngoingStudy) -> Steps:
    """Tune every arm, or search; re-evaluate the best, and record the result. A search that is over is not resumed."""
    if study.record.tuned:
        _compare_at_tuned_values(study)
        return 0
    searches = Searches(study.plan, study.ledger)
    _resume(study, searches)
    trials, observer = searches.done + searches.left, study.observer
    observer.searching(trials, searches.done)
    try:
        # Where the store has all that was asked for, nothing is trained, and there is more to ask for.
        while searches.left and not study.budget.is_over():
            yield Batch(more=partial(_trials_to_add, study, searches))
            searches.settle(study.known.rows)
    finally:
        searches.settle(study.known.rows)
        study.extend(run for run in searches.runs if run.key in study.known.rows)
    if searches.left:
        return searches.left
    best = [run for arm in searches.arms for run in searches.reevaluations(arm, study.known.rows)]
    study.extend(best)
    study.reuse(study.known.missing(best))
    if left := (
        yield from study.train(best, lambda runs, done: observer.searching(trials + runs, trials + done))
    ):
        return left
    tuned = {arm: searches.result(arm, study.known.rows) for arm in searches.arms}
    for arm, result in tuned.items() if study.plan.study.nuisance else ():
        values = ", ".join(f"{path}={format_value(value)}" for path, value in result.values.items())
        observer.note(f"{arm}: {values}" if result.searched else f"{arm}: nothing trained; {values} stays")
        rows = study.known.rows
        outcomes = [rows[r.key]["outcome"] for r in searches.runs if r.arm == arm and r.key in rows]
        if result.searched and (failed := outcomes.count("failed")):
            observer.note(
                f"{arm}: {failed} of {len(outcomes)} trials failed, so it was tuned on {len(outcomes) - failed}"
            )
    study.record = replace(study.record, tuned=tuned)
    if study.plan.study.space:
        study.record = replace(study.record, importances=searches.importances(study.plan.reference))
    _compare_at_tuned_values(study)
    return 0


def _resume(study: OngoingStudy, searches: Searches) -> None:
    """Add the trials of earlier commands: from the record, the store and Optuna, each of which may lack some."""
    trials, earlier = earlier_trials(study.store, study.plan, study.record, searches.known())
    study.known.plan(trials)
    study.known.reuse_trials(trials, study.plan, study.record)
    rows = study.known.rows
    if counting := len(earlier & rows.keys()):
        study.observer.note(
            f"{counted(counting, 'trial')} of earlier plans {'counts' if counting == 1 else 'count'}: "
            "those arms were searched in the same way"
        )
    searches.match([run for run in trials if run.key in rows], rows, study.known.curves)


def _trials_to_add(study: OngoingStudy, searches: Searches, room: int) -> list[Run]:
    """Runs that the searches ask for next, for as many slots as are free."""
    searches.settle(study.known.rows)
    runs: list[Run] = []
    while len(runs) < room and not study.budget.is_over():
        run = searches.next()
        if run is None:
            break
        study.known.plan([run])
        runs.append(run)
    return runs


def _compare_at_tuned_values(study: OngoingStudy) -> None:
    """Record the runs of the comparison that follows a tuning: each arm at its tuned values, on the seeds that are reported."""
    if not study.plan.study.nuisance:
        study.extend()
        return
    tuned = {arm: result.values for arm, result in study.record.tuned.items()}
    study.plan = replace(study.plan, tuned=tuned)
    runs = study.plan.replicates(study.plan.names, range(study.looks()[-1].pairs))
    study.extend([*runs, *_fixed_runs(study)])
    if not study.record.read_before:
        study.count_readings()
        study.extend()


def _fixed_runs(study: OngoingStudy) -> list[Run]:
    """Return the arms at the values of the study file, as often as the first look takes.

    Where tuning left an arm at those, its own runs serve.
    """
    plan = study.plan
    moved = [arm.name for arm in plan.arms if plan.tuned[arm.name] != plan.file_values(arm.name)]
    return list(plan.replicates(moved, range(study.record.looks.at[0]), "fixed"))


def fixed_comparison(study: OngoingStudy) -> Steps:
    """Return the same comparison without tuning, to stand beside the tuned one."""
    if not study.plan.study.nuisance:
        return 0
    runs = _fixed_runs(study)
    study.reuse(runs)
    if study.known.missing(runs):
        study.observer.note("the same arms at the values of the study file, to stand beside the tuned ones")
    return (yield from study.train(runs, study.observer.searching))


def confirmation(study: OngoingStudy, analysis: Analysis) -> Steps:
    """Train the winner again, on fresh seeds, where the study asks for it."""
    pairs = study.record.looks.most
    best = study.record.confirmed or (winner(analysis) if study.plan.study.confirm else None)
    if study.record.confirmed is None and undecided(analysis) and analysis.pairs < pairs:
        if study.plan.study.confirm:
            study.observer.note(
                f"the winner is confirmed once every arm is decided, or judged at {pairs} seeds"
            )
        return 0
    if best is None:
        if study.plan.study.confirm:
            study.observer.note("no arm helps, so there is nothing to confirm")
        return 0
    reference = study.rules().reference_of(best)
    runs = list(study.plan.replicates([reference, best], range(pairs), "confirm"))
    if study.record.confirmed is None:
        study.extend(runs, confirmed=best)
    study.reuse(runs)
    study.observer.note(f"confirming {best} on {counted(pairs, 'fresh seed')}")
    return (yield from study.train_for_look(0, pairs, runs))


# --- top-ups ------------------------------------------------------------------------------------------------------


def top_up(study: OngoingStudy, seeds: int | None) -> Steps:
    """Take a look at the undecided arms with `seeds` more of each than at the last one, or as many as the budget allows.

    Within the most seeds that is a look like any other; one that goes beyond passes the look at the most seeds on its way. A
    look that was broken off was read by nobody, so the new one takes its place.
    """
    study.known.reuse_recorded(study.record)
    analysis = study.judge(closed=None)
    looks = study.record.looks.judged(analysis.look)
    if looks.taken > analysis.look:
        analysis = study.judge(closed=looks.taken)
    arms = study.undecided(analysis)
    name = study.plan.study.name
    if analysis.error:
        raise StudyError(caution(analysis.error, analysis.rules), place=name)
    if looks.taken > max(study.record.looks.taken, 1):
        # A top-up whose process died between its last run and its record: this concludes that one, and spends no further look.
        look = study.looks()[looks.taken - 1]
        last = study.record.first_seed + look.pairs - 1
        of_look = {run.arm for run in study.record.runs if replicate_of(run.seed) == last}
        study.observer.note(
            f"the look at {look.pairs} seeds was complete, but not recorded: it is now, and no seed is added"
        )
        return (yield from take_looks(study, [look], [arm for arm in study.plan.names if arm in of_look]))[0]
    if not arms:
        raise StudyError(
            "no arm is undecided, so more seeds would change nothing",
            place=name,
            hint="a new question wants a new study, or `confirm: true`",
        )
    pairs = looks.last_taken
    if not pairs:
        raise StudyError(
            "its first look is not complete yet",
            place=name,
            hint="`ablate run` with its file goes on with it; then a top-up can add to it",
        )
    if seeds is None:
        return (yield from _top_up_by_budget(study, arms, looks))
    total, there_are = pairs + seeds, REPLICATES - study.record.first_seed
    if total > there_are:
        raise StudyError(
            f"a study has {there_are} seeds at most, and {pairs} of them are in use",
            place=name,
            hint=f"`--seeds {there_are - pairs}` takes the rest" if pairs < there_are else None,
        )
    asked = looks.until(total)
    if asked.at == study.record.looks.at:
        study.observer.note(f"going on with the look at {total} seeds that was broken off")
    runs = list(study.plan.replicates(arms, range(total)))
    study.reuse(study.known.missing(runs))
    study.extend(runs, looks=asked)
    return (yield from take_looks(study, study.looks()[looks.taken :], arms))[0]


def _top_up_by_budget(study: OngoingStudy, arms: list[str], looks: LookPlan) -> Steps:
    """As many further seeds as the budget allows, in whole rounds, so that the arms stay even; not beyond the most seeds.

    Where those are used up, it goes on to an extra look. looks: of the study, so far.
    """
    pairs = looks.last_taken
    most = looks.most if pairs < looks.most else REPLICATES - study.record.first_seed
    runs = list(study.plan.replicates(arms, range(pairs, most)))
    study.reuse(runs)
    study.observer.note(
        f"adding seeds to {counted(len(arms), 'arm')}, the reference included, until the budget is spent"
    )
    study.known.plan(runs)
    limit = study.budget.limit or 0.0
    each = study.budget.expected(runs)
    if each > limit:
        raise StudyError(
            f"{format_duration(limit)} buy no seed: {runs_of_a_seed(len(arms))} about {format_duration(each)}",
            place="--budget",
            hint="nothing was trained, and the study is as it was; `--seeds 1` adds one whatever it takes",
        )
    rounds = min(len(runs) // len(arms), max(1, int(limit / each))) if each else 1
    study.observer.looking(looks.taken + 1, pairs + rounds, rounds * len(arms), 0)
    yield Batch(study.known.missing(runs))
    done = [sum(run.arm == arm and run.key in study.known.rows for run in runs) for arm in arms]
    if not min(done):
        each = study.budget.expected(runs)
        raise StudyError(
            f"{format_duration(limit)} bought no whole seed: {runs_of_a_seed(len(arms))} about {format_duration(each)}",
            place="--budget",
            hint="the study is as it was; what was trained is kept for the next top-up",
        )
    total = pairs + min(done)
    study.observer.note(
        f"the budget allowed {counted(min(done), 'more seed', 'more seeds')} of each; what goes beyond waits for the next top-up"
    )
    study.extend(study.plan.replicates(arms, range(pairs, total)), looks=looks.until(total))
    study.known.keep_only({run.key for run in study.record.runs})
    return (yield from take_look(study, study.looks()[-1], []))[0]
