"""The coordinator: plan × executor × tracker × ledger.

Puts the phases of a study (which runs come next) and the dispatcher (where they are trained, and how often they are tried)
together, in one thread. Executors only run, the tracker only records.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ablate.analysis import Analysis
from ablate.config import Config
from ablate.errors import AblateError, StudyError, TrainingError
from ablate.events import LONGEST_REASON, EpochEnd, Event, Failed, Finished, Task, is_last
from ablate.executors import Executor, Slot
from ablate.metrics import is_beyond_shares
from ablate.scheduling.budget import Budget
from ablate.scheduling.bundles import SharedSlots
from ablate.scheduling.dispatch import Claim, Client, Dispatcher, Flight
from ablate.scheduling.known import Known, metric_points, outcome_tags, recorded
from ablate.scheduling.observer import Observer
from ablate.scheduling.phases import Batch, OngoingStudy, Steps, top_up, whole_study
from ablate.scheduling.queue import Queue
from ablate.scheduling.seed_check import ignored
from ablate.study.design import Plan, Run
from ablate.study.record import PlanRecord
from ablate.text import counted, cut, joined, margin_in_points, without_password
from ablate.tracking.frames import replicate_row
from ablate.tracking.runs import duplicates
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Claims, Store
from ablate.tracking.write import TRACEBACK
from ablate.training import trainer_of
from ablate.training.builtin import checkpoint
from ablate.training.output import OUTPUT, left_output
from ablate.training.own_run import discard_checkpoint
from ablate.training.payload import Folders, RunPayload

FLUSH = 10.0
"""Seconds that a study waits at its end until the store has all its runs, to see which of them another machine has trained."""

FEWEST = 3
"""Runs of a search that have to fail at the same place before it is given up."""

HOPELESS = frozenset({"error", "metrics", "crash"})
"""Kinds of failure that every other run will end with too, where every arm's first run has."""

Ending = Literal["complete", "budget", "interrupted"]


@dataclass(frozen=True)
class Options:
    """budget: seconds after which nothing new is started. timeout: seconds a run may take. threads: of a run on a CPU.

    checkpoint_every: seconds after which a run in training is saved; None: as training has it. accept_code: reuse runs of
    older training code, labelled as such. fuse: train runs of one seed together where they can share their batches.
    stop: whether someone wants the study to end; asked between batches of events, so that it never ends in the middle of
    recording one.
    """

    budget: float | None = None
    timeout: float | None = None
    threads: int = 1
    checkpoint_every: float | None = None
    accept_code: bool = False
    fuse: bool = True
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Outcome:
    """How a study ended. left: planned runs of the current look that were not done. trained: runs that this
    command trained.

    is_recorded: whether the store has all of it; else some is not delivered yet, or was refused.
    """

    record: PlanRecord
    analysis: Analysis
    ending: Ending
    failed: int
    left: int
    is_recorded: bool = True
    trained: int = 0


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
        self._record = record or plan.record()
        self._executor = executor
        self._tracker = tracker
        self._ledger = ledger
        self._store = store
        self._options = options
        self._observer = observer
        self._budget = Budget(options.budget, len(executor.slots), observer.note)
        self._known = Known(
            plan.study.name,
            store=store,
            tracker=tracker,
            ledger=ledger,
            claims=claims,
            observer=observer,
            took=self._budget.took,
            accept_code=options.accept_code,
        )

    def run(self, environment: Mapping[str, str], seeds: int | None = None) -> Outcome:
        """Go through the looks, those of earlier commands included, then confirm the winner where the study asks for it.

        seeds: take one look, at so many seeds; None: take those of the study file.
        """
        return self._complete(environment, lambda study: whole_study(study, seeds))

    def top_up(self, environment: Mapping[str, str], seeds: int | None) -> Outcome:
        """Take one more look at the undecided arms: `seeds` more of each, or as many as the budget allows."""
        return self._complete(environment, lambda study: top_up(study, seeds))

    def _complete(self, environment: Mapping[str, str], phases: Callable[[OngoingStudy], Steps]) -> Outcome:
        study = OngoingStudy(
            self._plan,
            self._record,
            environment,
            known=self._known,
            budget=self._budget,
            store=self._store,
            tracker=self._tracker,
            ledger=self._ledger,
            observer=self._observer,
        )
        training = _Training(study, self._tracker, self._options)

        def config(run: Run) -> Config:
            return study.plan.config(run)  # the plan of a path or a tuning changes on the way

        company = SharedSlots(
            config,
            self._known.checkpoints,
            len(self._executor.slots),
            in_rounds=self._options.budget is not None,
        )
        dispatcher = Dispatcher(
            self._executor,
            training,
            company=company if self._options.fuse else None,
            timeout=self._options.timeout,
        )
        # A phase that is interrupted is closed, and records what it has by then.
        with contextlib.closing(phases(study)) as steps:
            while True:
                try:
                    training.batch = next(steps)
                except StopIteration as end:
                    return self._end(study, end.value)
                self._budget.begin(training.batch.runs)
                dispatcher.run(training.batch.runs)

    def _end(self, study: OngoingStudy, left: int) -> Outcome:
        ending: Ending = "budget" if self._budget.spent and left else "complete"
        analysis = study.judge(closed=None if left else len(study.looks()))
        failed = sum(row["outcome"] == "failed" for row in self._known.rows.values())
        # Which runs another machine has finished first can be told from the store once it has this process's own.
        self._tracker.flush(FLUSH)
        for double, first in duplicates(self._store, study.plan.study.name).items():
            self._tracker.supersede(double, first)
        return Outcome(study.record, analysis, ending, failed, left, trained=self._known.trained)


class _Training(Client[Run]):
    """The runs of a study, for the dispatcher. batch: what the phase that is going on asked for."""

    def __init__(self, study: OngoingStudy, tracker: Tracker, options: Options) -> None:
        self.batch = Batch()
        self._study = study
        self._known = study.known
        self._tracker = tracker
        self._options = options
        # Arms a run of which finished without what it is judged by → what was missing, and what there was instead.
        self._useless: dict[str, StudyError] = {}
        # Runs whose attempts have failed, and arms of which none has finished → where, or else why.
        self._failures: dict[str, dict[str, str]] = {}
        self._stop: AblateError | None = None
        self._margin_is_possible = study.record.margin < 1
        # Trace of a finished run of the reference → its seed.
        self._traces: dict[str, int] = {}

    # --- what is begun ---

    def task(self, work: Run, attempt: int, slot: Slot, *, fuse: bool) -> Task:
        plan = self._study.plan
        config = plan.config(work)
        payload = RunPayload(
            config=config.tree(),
            seed=work.seed,
            device=slot.device,
            threads=self._options.threads,
            source=config.source,
            data=plan.fingerprint(work),
            fuse=fuse,
            metric=plan.study.metric,
            checkpoint_every=self._options.checkpoint_every,
            code=plan.code(work),
        )
        return Task(work.key, attempt, payload)

    def attempts(self, work: Run) -> int:
        return self._known.attempts(work)

    def more(self, room: int) -> Iterable[Run]:
        return self.batch.more(room)

    def claim(self, work: Run) -> Claim:
        if not self._known.claim(work):
            return "elsewhere"
        if self._known.has_new_result(work):
            self._study.reuse([work])
            self._known.release(work)
            return "done"
        return "taken"

    def release(self, work: Run) -> None:
        self._known.release(work)

    def elsewhere(self, work: Run) -> None:
        self._study.observer.note(f"another study is training {work.arm} · seed {work.seed}; waiting for it")

    def may_start(self, work: Run, waiting: Iterator[Run]) -> bool:
        return self._study.budget.allows(work, waiting)

    def spent(self) -> bool:
        return self._study.budget.spent

    def starting(self, work: Run, attempt: int, slot: Slot) -> None:
        self._known.begun(work, attempt)
        left_output(self._output(work))  # of an attempt that another command has not seen the end of
        self._study.ledger.ask(work)
        self._study.observer.running(work, slot, attempt)

    # --- what comes back ---

    def verified(self, flight: Flight[Run], event: Event) -> Event:
        """Return the event; a run that finished without what the study judges it by has failed instead."""
        if not isinstance(event, Finished) or event.outcome == "diverged":
            return event
        lacking = self._lacking(flight.work, [*flight.events, event])
        if lacking is None:
            return event
        if event.model is not None:
            Path(event.model).unlink(missing_ok=True)
        self._useless[flight.work.arm] = lacking
        reason = cut(f"{lacking.message}; {lacking.hint}", LONGEST_REASON)
        return Failed(event.run, event.attempt, event.seq, event.time, "metrics", reason, files=event.files)

    def _lacking(self, run: Run, events: list[Event]) -> StudyError | None:
        """Return what a finished run lacks of what the study judges it by; None where it has all."""
        study, points = self._study.plan.study, metric_points(events)
        last = events[-1]
        assert isinstance(last, Finished)
        yielded = ", ".join(sorted(points.keys() - {"time/train_seconds"})) or "nothing"
        if study.metric not in points:
            message = f"training never yielded the metric {study.metric!r}"
            return StudyError(message, place="metric", hint=f"it yielded {yielded}")
        if last.epoch not in dict(points[study.metric]):
            message = (
                f"training did not yield the metric {study.metric!r} at epoch {last.epoch}, which counts"
            )
            return StudyError(message, place="metric", hint="yield it with the metrics of every epoch")
        cost = study.search.cost if study.search is not None else None
        if cost is not None:
            row = replicate_row(
                self._study.record, recorded(run), outcome_tags(events), points, "", has_result=True
            )
            if not math.isfinite(row[cost]):
                return StudyError(
                    f"training never yielded what it costs in {cost}",
                    place="search.cost",
                    hint=f"yield model/{cost} with the metrics of the last epoch, or weigh `seconds`",
                )
        return None

    def event(self, flight: Flight[Run], event: Event) -> bool:
        run, ledger, metric = flight.work, self._study.ledger, self._study.plan.study.metric
        event = self._with_output(run, event)
        self._record(run, event)
        self._study.observer.event(run, event)
        if is_last(event):
            self._study.budget.ended(run, flight.seconds)
        match event:
            case EpochEnd():
                hopeless = ledger.report(run.key, event.epoch, event.metrics.get(metric, math.nan))
                # After its last epoch there is nothing left to save.
                epochs = self._study.plan.config(run).flatten().get("training.epochs")
                return hopeless and event.epoch != epochs
            case Finished():
                values = dict(metric_points(flight.events).get(metric, []))
                ledger.tell(event, values.get(event.epoch, math.nan))
            case Failed():
                if event.place:  # else it may do better when it is tried again
                    self._stop = self._stop or self._hopeless(run, event)
                if event.kind == "pruned":  # it is never resumed
                    checkpoint.remove(self._known.checkpoints, run.key)
                    discard_checkpoint(Folders.under(self._known.checkpoints.parent), run.key)
                ledger.tell(event, math.nan)
        return False

    def _hopeless(self, run: Run, event: Failed) -> AblateError | None:
        """Return why no other run needs to be tried after this failure; None where one may do better.

        The code is not what was planned; or each arm has failed at the same place of the user's code, or for the same reason where no
        place is known, and nothing has ever finished. Of a search, whose arm is tried at other values each time, three runs have.
        """
        if event.kind == "code":
            return TrainingError(event.reason, place=event.place)
        if event.kind not in HOPELESS:
            return None
        self._failures.setdefault(run.arm, {})[run.key] = event.place or event.reason
        causes = {cause for runs in self._failures.values() for cause in runs.values()}
        arms = {arm.name for arm in self._study.plan.arms}
        tried = sum(map(len, self._failures.values()))
        if len(causes) > 1 or not arms <= self._failures.keys() or (run.phase == "tune" and tried < FEWEST):
            return None
        if any(row["outcome"] == "finished" for row in self._known.rows.values()):
            return None
        others = f"the first runs of all {counted(len(arms), 'arm')}" if len(arms) > 1 else "every run so far"
        where = "there" if event.place else "for this reason"
        told = [
            name for name, is_kept in ((OUTPUT, OUTPUT in event.files), (TRACEBACK, event.detail)) if is_kept
        ]
        return TrainingError(
            f"{event.reason}: {others} failed {where}",
            hint=f"`ablate ui` shows {joined(told)} among the artifacts of each run" if told else None,
        )

    def outcome(self, flight: Flight[Run], event: Finished | Failed) -> None:
        self._known.add(flight.work, flight.events, self._study.record)
        if isinstance(event, Failed) and not event.place:
            self._stop = self._stop or self._hopeless(flight.work, event)
        if not self._margin_is_possible:
            self._stop = self._stop or self._beyond_the_metric()
        self._compare_seeds(flight.work)

    def _beyond_the_metric(self) -> StudyError | None:
        """Return a mistake where a run of every arm has finished, all at values that cannot differ by more than the margin."""
        record = self._study.record
        values = {
            row["arm"]: row["value"] for row in self._known.rows.values() if row["outcome"] == "finished"
        }
        if values and not is_beyond_shares(record.margin, values.values()):
            self._margin_is_possible = True
        if self._margin_is_possible or not {arm.name for arm in self._study.plan.arms} <= values.keys():
            return None
        return StudyError(
            f"every {record.metric} so far lies between 0 and 1, so no difference can be more than {record.margin:g}",
            place="margin",
            hint=f"{margin_in_points(record.margin)} What is trained is kept, and used with another margin too",
        )

    def _compare_seeds(self, run: Run) -> None:
        """Note where the reference has come out the same under two seeds, to the last digit of its losses."""
        plan = self._study.plan
        if run.arm != plan.reference or run.phase != "report" or plan.study.deterministic:
            return
        trace = self._known.rows[run.key]["trace"]
        if trace is None:
            return
        if not self._traces:  # what earlier commands have trained counts too
            rows = self._known.rows.values()
            mine = (row for row in rows if row["arm"] == run.arm and row["phase"] == run.phase)
            self._traces = {row["trace"]: row["seed"] for row in mine if row["seed"] != run.seed}
        seed = self._traces.setdefault(trace, run.seed)
        if seed != run.seed and trainer_of(plan.config(run)).seed_advice() is not None:
            self._stop = ignored(plan.config(run), (seed, run.seed))

    def interrupted(self, flight: Flight[Run], event: Failed) -> None:
        self._record(flight.work, self._with_output(flight.work, event))
        self._study.ledger.tell(event, math.nan)

    def _with_output(self, run: Run, event: Event) -> Event:
        """Return the event; a failure that tells nothing of what its run printed gets what its process left behind."""
        if not isinstance(event, Failed) or OUTPUT in event.files:
            return _without_passwords(event)
        left = left_output(self._output(run))
        return _without_passwords(replace(event, files={**event.files, OUTPUT: left}) if left else event)

    def _output(self, run: Run) -> Path:
        output = Folders.under(self._known.checkpoints.parent).output(run.key)
        assert output is not None
        return output

    def _record(self, run: Run, event: Event) -> None:
        plan = self._study.plan
        self._tracker.event(event, run, plan.config(run), plan.id)

    def poll(self) -> None:
        """End the study where someone asked for it, where nothing can be recorded, or where no run can be judged or is a repeat."""
        self._known.release_delivered()
        if self._tracker.broken is not None:
            raise self._tracker.broken
        arms = {arm.name for arm in self._study.plan.arms}
        if arms <= self._useless.keys() and not any(
            row["outcome"] == "finished" for row in self._known.rows.values()
        ):
            # Once every arm has shown it, further seeds would be trained for nothing.
            raise next(iter(self._useless.values()))
        if self._stop is not None:
            raise self._stop
        if self._options.stop():
            raise KeyboardInterrupt


def _without_passwords(event: Event) -> Event:
    """Return an event in which the passwords that an exception or a program has printed are masked: it is shown and recorded."""
    if isinstance(event, Finished | Failed) and OUTPUT in event.files:
        output = event.files[OUTPUT].decode(errors="surrogateescape")
        masked = without_password(output).encode(errors="surrogateescape")
        event = replace(event, files={**event.files, OUTPUT: masked})
    if isinstance(event, Failed):
        event = replace(event, reason=without_password(event.reason), detail=without_password(event.detail))
    return event
