"""Optuna: every run that is trained is a trial, in a journal that optuna-dashboard opens.

Where there is nothing to decide — a planned arm under a planned seed — Optuna keeps the ledger: the run is added as a trial
with its levels, and told its result. The record of what is done is MLflow's; after a crash the ledger is made to agree with
it. The only module that imports Optuna.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from ablate import locks, plain_files
from ablate.errors import StoreError
from ablate.events import Event, Finished
from ablate.study.design import Plan, Run, parameter
from ablate.study.ranges import Range
from ablate.study.search import SearchSettings
from ablate.study.seeds import NOISE_FLOOR
from ablate.text import without_password
from ablate.tracking.store import is_dead, open_lock, owner

OWNER = "owner"
"""User attribute of an open trial: the process that has it, as `tracking.store.owner` names it. Several coordinators may share
a storage, and each closes only trials that no living process has.
"""

UNSIGNED = 60.0
"""Seconds after which an open trial without an owner belongs to nobody: a search's trial is signed right after it was asked for,
and an older ablate signed none.
"""


LEASE = 900.0
"""Seconds after which an open trial of another machine may belong to nobody: the runs of a coordinator that lives have leases of ten
minutes in the store.
"""

BUSY = 60.0
"""Seconds that SQLite waits while other processes write to `--storage`."""

OPEN_AGAIN_AFTER = (0.1, 0.3, 1.0, 3.0)
"""Seconds after which `--storage` is opened again where another process may have been making its tables."""


class Queue:
    """The ledger of one plan. storage: a URL, or None for a journal file in `folder`.

    is_gone: whether a coordinator of another machine is known to train no more. Every run is opened with `ask` and closed with `tell`.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        storage: str | None = None,
        is_gone: Callable[[str], bool] = lambda _: False,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("optuna").propagate = False
        self._plan = plan
        self._is_gone = is_gone
        self._optuna = optuna

        def opened() -> tuple[Any, Any]:
            storage_of_study = _opened(storage, folder)
            # A stored categorical can never gain a level, so another set of factors is another Optuna study.
            study = optuna.create_study(
                study_name=f"{plan.study.name}-{plan.id}",
                storage=storage_of_study,
                sampler=optuna.samplers.RandomSampler(seed=0),
                direction=plan.study.direction,
                load_if_exists=True,
            )
            _name_objectives(study, plan.study.metric)
            study.get_trials(deepcopy=False)
            return storage_of_study, study

        self.rebuilt: Path | None = None
        """Where a ledger that could not be read was put; a new one is made from the record."""
        with warnings.catch_warnings(), _opening(storage):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                self._storage, self._study = opened()
            except Exception as error:
                is_of_system = isinstance(
                    error, OSError | StoreError
                )  # no space, no permission: nothing is broken
                self.rebuilt = None if is_of_system else _set_aside(storage, folder)
                if self.rebuilt is None:
                    raise
                self._storage, self._study = opened()
        self._space = _space(plan, optuna)
        self._open: dict[str, Any] = {}
        self._searching: dict[str, Search] = {}

    @property
    def name(self) -> str:
        return str(self._study.study_name)

    def search(self, arm: str, space: Sequence[Range]) -> Search:
        """Return Optuna's study of one arm, or of the whole search: its name contains the arm and the plan."""
        name = f"{self.name}-{arm}" if self._plan.study.nuisance else f"{self.name}-search"
        assert self._plan.study.search is not None
        return Search(
            name,
            space,
            self._plan.study.search,
            storage=self._storage,
            metric=self._plan.study.metric,
            direction=self._plan.study.direction,
            searching=self._searching,
            is_gone=self._is_gone,
        )

    def match(self, done: Mapping[str, float], runs: Mapping[str, Run]) -> None:
        """Make the ledger agree with the record. done: run key → its value (NaN where it diverged). runs: by key.

        Open trials of this process that it knows nothing of, and those of processes that are gone, are closed; those of
        another coordinator on the same storage are left to it.
        """
        states = self._optuna.trial.TrialState
        recorded: set[str] = set()
        own = {trial.number for trial in self._open.values()}
        # An older ablate enqueued trials and then asked for them. One that was killed in between has left a trial that has to
        # be asked for before it can be closed.
        for _ in self._study.get_trials(deepcopy=False, states=(states.WAITING,)):
            _close(self._study, self._study.ask(), state=states.FAIL)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is states.RUNNING:
                if trial.number not in own and _is_left_behind(trial, self._is_gone):
                    _close(self._study, trial.number, state=states.FAIL)
            elif trial.state is states.COMPLETE or trial.user_attrs.get("outcome") == "diverged":
                recorded.add(trial.user_attrs.get("run", ""))
        for key, value in done.items():
            if key in recorded or key not in runs or runs[key].values:
                continue
            run = runs[key]
            finite = math.isfinite(value)
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=states.COMPLETE if finite else states.FAIL,
                    value=value if finite else None,
                    params=self._parameters(run),
                    distributions=self._space,
                    user_attrs=self._attributes(run) | ({} if finite else {"outcome": "diverged"}),
                )
            )

    def ask(self, run: Run) -> None:
        """Open the trial of a run that is about to start. The trials of a search are open already."""
        if run.key in self._searching:
            return
        # Added as running, with its owner, in one step: another process that asks could be handed a trial that is enqueued
        # first and asked for then.
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=self._optuna.trial.TrialState.RUNNING,
                params=self._parameters(run),
                distributions=self._space,
                user_attrs=self._attributes(run) | {OWNER: owner()},
            )
        )
        self._open[run.key] = self._added(run.key)

    def _added(self, key: str) -> Any:
        """Return the trial that was added last for a run, to report to."""
        for trial in reversed(self._study.get_trials(deepcopy=False)):
            if trial.user_attrs.get("run") == key and trial.user_attrs.get(OWNER) == owner():
                return self._optuna.trial.Trial(self._study, trial._trial_id)  # noqa: SLF001 — there is no other way in
        raise AssertionError(f"Optuna has no trial of the run {key}, which was added to it")

    def report(self, run: str, epoch: int, value: float) -> bool:
        """Report an intermediate value, for Optuna's own plots and for pruning. Returns whether the run is to be broken off."""
        if run in self._searching:
            return self._searching[run].report(run, epoch, value)
        if math.isfinite(value) and run in self._open:
            with _ignoring_finished():
                self._open[run].report(value, epoch)
        return False

    def tell(self, event: Event, value: float) -> None:
        """Close the trial of a run that ended. value: its primary metric, NaN where it has none."""
        trial = self._open.pop(event.run, None)
        if trial is None:
            return
        if isinstance(event, Finished) and event.outcome == "finished" and math.isfinite(value):
            _close(self._study, trial, [value])
            return
        outcome = event.outcome if isinstance(event, Finished) else "failed"
        _close(self._study, trial, state=self._optuna.trial.TrialState.FAIL, outcome=outcome)

    def _parameters(self, run: Run) -> dict[str, Any]:
        arm = self._plan.arms[0] if run.arm == NOISE_FLOOR else self._plan.arm(run.arm)
        return {
            name: _as(self._space[name], level) if name in self._space else level
            for name, level in arm.levels.items()
        }

    def _attributes(self, run: Run) -> dict[str, Any]:
        return {"run": run.key, "arm": run.arm, "seed": run.seed, "phase": run.phase}


class Search:
    """One Optuna study that decides: what to try next on an arm, and which trials are broken off.

    A trial stays open over the attempts of its run. Trials that diverged or were broken off count as worse than those that
    finished, so that the search goes elsewhere.
    """

    def __init__(
        self,
        name: str,
        space: Sequence[Range],
        how: SearchSettings,
        *,
        storage: Any,
        metric: str,
        direction: Literal["minimize", "maximize"],
        searching: dict[str, Search],
        is_gone: Callable[[str], bool] = lambda _: False,
    ) -> None:
        import optuna

        self._is_gone = is_gone
        self._optuna, self._space, self._how = optuna, tuple(space), how
        self._searching = searching
        self._open: dict[str, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=self._sampler(0),
                pruner=_pruner(how.pruner),
                directions=[direction] if how.cost is None else [direction, "minimize"],
                load_if_exists=True,
            )
            _name_objectives(self._study, metric, *([how.cost] if how.cost is not None else []))

    @property
    def name(self) -> str:
        return str(self._study.study_name)

    def match(self, known: Mapping[str, Attempted]) -> None:
        """Make the ledger agree with the record. known: run key → what was tried and how it ended."""
        states = self._optuna.trial.TrialState
        recorded: set[str] = set()
        own = {trial.number for trial in self._open.values()}
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is states.RUNNING:
                if trial.number not in own and _is_left_behind(trial, self._is_gone):
                    _close(self._study, trial.number, state=states.FAIL)
            elif trial.state in (states.COMPLETE, states.PRUNED):
                recorded.add(trial.user_attrs.get("run", ""))
        for key, tried in known.items():
            if key in recorded or tried.outcome == "failed":
                continue
            good = tried.outcome == "finished" and all(map(math.isfinite, tried.scores))
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=states.COMPLETE if good else states.PRUNED,
                    values=list(tried.scores) if good else None,
                    params=self._parameters(tried.values),
                    distributions=self._distributions(tried.values),
                    user_attrs={
                        "run": key,
                        "values": dict(tried.values),
                        "seed": tried.seed,
                        "outcome": tried.outcome,
                    },
                    intermediate_values={} if self._how.cost else dict(tried.curve),
                )
            )

    def known(self) -> dict[str, tuple[dict[str, Any], int]]:
        """Return run key → the values it tried and its seed, of every trial that has ended with a result."""
        states = self._optuna.trial.TrialState
        return {
            trial.user_attrs["run"]: (trial.user_attrs["values"], trial.user_attrs["seed"])
            for trial in self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
            if trial.user_attrs.keys() >= {"run", "values", "seed"}
        }

    def start_from(self, values: Mapping[str, Any]) -> None:
        """Try these values first, unless something was tried already. values: of every range, each within it."""
        if not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(self._parameters(values))

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Return what to try next: the trial, and its values by path."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            number = len(self._study.get_trials(deepcopy=False))
            # The sampler's draws depend on how many trials there were, and on nothing else that this process has done.
            self._study.sampler = self._sampler(number)
            trial = self._study.ask()
            trial.set_user_attr(OWNER, owner())
            values = {
                setting.path: setting.draw(lambda r: self._suggest(trial, r)) for setting in self._space
            }
        return trial, values

    def begin(self, trial: Any, run: Run) -> None:
        """Say which run a trial is; it is about to start."""
        with _ignoring_finished():
            trial.set_user_attr("run", run.key)
            trial.set_user_attr("values", dict(run.values))
            trial.set_user_attr("seed", run.seed)
        self._open[run.key] = trial
        self._searching[run.key] = self

    def report(self, run: str, epoch: int, value: float) -> bool:
        trial = self._open[run]
        if self._how.cost is not None or not math.isfinite(value):
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a second attempt reports its epochs again
            with _ignoring_finished():
                trial.report(value, epoch)
            return self._how.pruner != "none" and bool(trial.should_prune())

    def tell(self, run: str, outcome: str, scores: Sequence[float]) -> None:
        """Close the trial of a run that has had its last attempt."""
        trial = self._open.pop(run)
        del self._searching[run]
        states = self._optuna.trial.TrialState
        if outcome == "finished" and all(map(math.isfinite, scores)):
            _close(self._study, trial, list(scores), outcome=outcome)
        else:
            state = states.FAIL if outcome == "failed" else states.PRUNED
            _close(self._study, trial, state=state, outcome=outcome)

    def importances(self) -> dict[str, dict[str, float]]:
        """Return method → parameter → share of the metric's variance; empty where there are too few trials."""
        evaluators: dict[str, Callable[[], Any]] = {
            "fANOVA": lambda: self._optuna.importance.FanovaImportanceEvaluator(seed=0),
            "PED-ANOVA": self._optuna.importance.PedAnovaImportanceEvaluator,
        }
        importances: dict[str, dict[str, float]] = {}
        for name, evaluator in evaluators.items():
            with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):
                warnings.simplefilter("ignore")  # that an evaluator is experimental, too
                shares = self._optuna.importance.get_param_importances(
                    self._study,
                    evaluator=evaluator(),
                    target=None if self._how.cost is None else lambda trial: trial.values[0],
                )
                if all(map(math.isfinite, shares.values())):
                    importances[name] = {path: float(share) for path, share in shares.items()}
        return importances

    def _sampler(self, number: int) -> Any:
        samplers = self._optuna.samplers
        # Ten random trials of a dozen would leave a sampler two to choose.
        starting = min(10, max(3, self._how.trials // 3))
        match self._how.sampler:
            case "random":
                return samplers.RandomSampler(seed=number)
            case "qmc":
                return samplers.QMCSampler(
                    seed=0, warn_asynchronous_seeding=False, warn_independent_sampling=False
                )
            case "gp":
                return samplers.GPSampler(
                    seed=number, n_startup_trials=starting, warn_independent_sampling=False
                )
            case "nsgaii":
                # Its first generation is drawn at random, and Optuna's default is 50: most searches have fewer trials.
                return samplers.NSGAIISampler(seed=number, population_size=max(4, self._how.trials // 5))
        return samplers.TPESampler(seed=number, n_startup_trials=starting)

    def _suggest(self, trial: Any, setting: Range) -> Any:
        match setting.kind:
            case "choice":
                return trial.suggest_categorical(setting.path, [choice.label for choice in setting.choices])
            case "int":
                return trial.suggest_int(setting.path, int(setting.low), int(setting.high))
        return trial.suggest_float(setting.path, setting.low, setting.high, log=setting.kind == "log")

    def _parameters(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: v for setting in self._space for name, v in setting.parameters(values[setting.path]).items()
        }

    def _distributions(self, values: Mapping[str, Any]) -> dict[str, Any]:
        kinds = self._optuna.distributions
        distributions = {}
        within = {r.path: r for setting in self._space for r in setting.within()}
        for name in self._parameters(values):
            setting = within[name]
            if setting.kind == "choice":
                distributions[name] = kinds.CategoricalDistribution(
                    [choice.label for choice in setting.choices]
                )
            elif setting.kind == "int":
                distributions[name] = kinds.IntDistribution(int(setting.low), int(setting.high))
            else:
                distributions[name] = kinds.FloatDistribution(
                    setting.low, setting.high, log=setting.kind == "log"
                )
        return distributions


@dataclass(frozen=True)
class Attempted:
    """A trial that is over. outcome: finished, diverged, pruned or failed. scores: of each objective. curve: (epoch, value)."""

    values: Mapping[str, Any]
    seed: int
    outcome: str
    scores: tuple[float, ...]
    curve: tuple[tuple[int, float], ...] = ()


def _pruner(name: str) -> Any:
    import optuna

    pruners: Mapping[str, Callable[[], Any]] = {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, reduction_factor=3),
    }
    return pruners[name]()


class _Lock:
    """The journal's lock, as a lock of the kernel, which ends with its process; and a repair of half-written lines.

    Optuna's own file locks outlive a killed process for 30 s, and a line that a kill has cut short makes the journal unreadable
    as soon as another is appended to it.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.acquire()  # reading takes no lock, so a line that is cut short is removed before the first reading
        self.release()

    def acquire(self) -> bool:
        path = self._journal.with_suffix(".lock")
        self._file = open_lock(path)
        try:
            locks.lock(self._file, path)
            _repair(self._journal)
        except BaseException:
            self._file.close()
            raise
        return True

    def release(self) -> None:
        self._file.close()


def _repair(journal: Path) -> None:
    """Remove a last line that was not written to its end. Called at every append; reads one byte where there is none."""
    try:
        opened = plain_files.open_in_place(journal)
    except OSError as error:
        raise StoreError(
            f"cannot be used as Optuna's journal ({error.strerror})",
            place=str(journal),
            hint="remove it: it is made again from the record",
        ) from None
    with opened as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def _ignoring_finished() -> Iterator[None]:
    """Nothing happens to a trial that is finished already: another coordinator took this one for dead and closed it.

    The ledger lacks a value then, until the next command makes it agree with the record.
    """
    import optuna

    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):
        yield


def _close(
    study: Any,
    trial: Any,
    values: list[float] | None = None,
    *,
    state: Any = None,
    outcome: str | None = None,
) -> None:
    """Tell Optuna the end of a trial, if it has none yet. trial: itself, or its number. outcome: in the record's words."""
    with _ignoring_finished():
        if outcome is not None:
            trial.set_user_attr("outcome", outcome)
        study.tell(trial, values, state=state, skip_if_finished=True)


def _is_left_behind(trial: Any, is_gone: Callable[[str], bool]) -> bool:
    """Return whether an open trial that this coordinator knows nothing of belongs to none that lives.

    is_gone: says it of coordinators of other machines, where anyone can.
    """
    began = trial.datetime_start
    age = math.inf if began is None else (datetime.now(began.tzinfo) - began).total_seconds()
    name = trial.user_attrs.get(OWNER)
    if name is None:
        return age > UNSIGNED
    return bool(name == owner() or is_dead(name) or (age > LEASE and is_gone(name)))


@contextlib.contextmanager
def _opening(storage: str | None) -> Iterator[None]:
    """Raise StoreError where the storage of `--storage` cannot be opened."""
    try:
        yield
    except Exception as error:
        if storage is None and isinstance(error, OSError):
            place = str(error.filename or "optuna.journal")
            raise StoreError(
                f"Optuna's journal cannot be used ({error.strerror})",
                place=place,
                hint="remove it: it is made again from the record",
            ) from None
        if storage is None or isinstance(error, StoreError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(
            f"Optuna cannot open it ({without_password(reason)})",
            place=f"--storage {without_password(storage)}",
            hint="for example sqlite:///optuna.db",
        ) from None


def _space(plan: Plan, optuna: Any) -> dict[str, Any]:
    """Return factor → distribution over the levels of the plan: numbers as numbers, anything else as choices of text."""
    space: dict[str, Any] = {}
    for name in plan.arms[0].levels:
        levels = [parameter(arm.levels[name]) for arm in plan.arms]
        if all(isinstance(level, int) for level in levels):
            space[name] = optuna.distributions.IntDistribution(min(levels), max(levels))
        elif all(isinstance(level, int | float) for level in levels):
            space[name] = optuna.distributions.FloatDistribution(float(min(levels)), float(max(levels)))
        else:
            choices = sorted({str(level) for level in levels})
            space[name] = optuna.distributions.CategoricalDistribution(choices)
    return space


def _as(distribution: Any, level: Any) -> Any:
    value = parameter(level)
    if hasattr(distribution, "choices"):
        return str(value)
    return float(value) if type(distribution).__name__ == "FloatDistribution" else value


def _name_objectives(study: Any, *objectives: str) -> None:
    """Give the objectives their names, for Optuna's dashboard. Written once for each study."""
    if study.metric_names is None:
        study.set_metric_names(list(objectives))


def _journal(folder: Path) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    file = folder / "optuna.journal"
    lock = _Lock(file)

    class UnsyncedJournal(JournalFileBackend):
        """Appends without waiting for the disk, as Optuna's own does: a wait at every epoch of every run would hold up the coordinator, and
        what a power cut takes from the ledger the record gives back.
        """

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
            lock.acquire()
            try:
                with plain_files.open_in_place(file) as journal:
                    journal.write(lines.encode())
            finally:
                lock.release()

    return optuna.storages.JournalStorage(UnsyncedJournal(str(file), cast("Any", lock)))


def _opened(storage: str | None, folder: Path) -> Any:
    """Return a storage, which is made where it does not exist. storage: a URL; None: the journal in `folder`.

    Of several processes that make the tables of one database at the same time all but one fail, and find them a moment later.
    """
    if storage is None:
        return _journal(folder)
    import optuna

    waits = {"connect_args": {"timeout": BUSY}} if storage.startswith("sqlite") else None
    for wait in (*OPEN_AGAIN_AFTER, None):
        try:
            return optuna.storages.RDBStorage(storage, engine_kwargs=waits)
        except Exception as error:
            if wait is None or not _may_be_a_race(error):
                raise
            time.sleep(wait)
    raise AssertionError


def _set_aside(storage: str | None, folder: Path) -> Path | None:
    """Rename a journal, or a database of SQLite, that Optuna cannot read. Returns where it is now; None where it is something else.

    What it held of this plan is in the record, and is added to the new one.
    """
    if storage is None:
        path = folder / "optuna.journal"
    elif storage.startswith("sqlite:///"):
        path = Path(storage.removeprefix("sqlite:///").partition("?")[0])
        if not _is_broken_database(path):
            return None
    else:
        return None
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns() // 10**6}")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside


def _is_broken_database(path: Path) -> bool:
    """Return whether a file is a database of SQLite's that is damaged; one of another program's is none of ours to move."""
    import sqlite3

    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                return False
        with contextlib.closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except (sqlite3.DatabaseError, UnicodeError):  # a message that quotes damaged bytes is no text
        return True
    except OSError:
        return False


def _may_be_a_race(error: BaseException) -> bool:
    """Return whether a database refused what another process may have done at the same time; a wrong address is no such error."""
    words = str(error).lower()
    return any(word in words for word in ("already exists", "unique", "duplicate", "locked", "no such table"))


def try_storage(storage: str | None, folder: Path) -> str:
    """Write a trial into a storage and delete it again. storage: a URL, or None for a journal in `folder`.

    Returns what was done, in words. Raises StoreError where it cannot be opened, OSError where a journal cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings(), _opening(storage):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        opened = _opened(storage, folder)
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(
            study_name=f"ablate-doctor-{os.getpid()}", storage=opened, sampler=sampler
        )
        study.tell(study.ask(), 0.0)
        optuna.delete_study(study_name=study.study_name, storage=opened)
    return "a trial was written and taken out again"
