"""Optuna's part: every run that is trained is a trial, in a journal that optuna-dashboard opens.

Where there is nothing to decide — a planned arm under a planned seed — Optuna keeps the ledger: the run is enqueued with
its levels, asked for, and told its result. The record of what is done is MLflow's; after a crash the ledger is made to
match it. The only module that imports Optuna.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from ablate.errors import StoreError
from ablate.events import Event, Finished
from ablate.study.design import NOISE_FLOOR, Plan, Run, parameter


class Queue:
    """The ledger of one plan. storage: a URL, or None for a journal file in `folder`.

    Hand every run out through `ask` and bring it back through `tell`: one asker, because storages differ in whether two
    of them would get the same trial.
    """

    def __init__(self, plan: Plan, folder: Path, storage: str | None = None) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("optuna").propagate = False
        self._plan = plan
        self._optuna = optuna
        opened = _journal(folder) if storage is None else storage
        with warnings.catch_warnings(), _opening(storage):
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # A stored categorical can never gain a level, so another set of factors is another Optuna study.
            self._study = optuna.create_study(
                study_name=f"{plan.study.name}-{plan.id}",
                storage=opened,
                sampler=optuna.samplers.RandomSampler(seed=0),
                direction=plan.study.direction,
                load_if_exists=True,
            )
        self._space = _space(plan, optuna)
        self._open: dict[str, Any] = {}

    @property
    def name(self) -> str:
        return str(self._study.study_name)

    def match(self, done: Mapping[str, float], runs: Mapping[str, Run]) -> None:
        """Make the ledger say what the record says. done: run key → its value (NaN where it diverged). runs: by key."""
        states = self._optuna.trial.TrialState
        told: set[str] = set()
        # What is open was left behind by a coordinator that is gone: there is only ever one, and this is it. A trial that
        # was enqueued and not yet asked for has to be asked for before it can be told anything.
        for _ in self._study.get_trials(deepcopy=False, states=(states.WAITING,)):
            self._study.ask()
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state is states.RUNNING:
                self._study.tell(trial.number, state=states.FAIL)
            elif trial.state is states.COMPLETE or trial.user_attrs.get("outcome") == "diverged":
                told.add(trial.user_attrs.get("run", ""))
        for key, value in done.items():
            if key in told or key not in runs:
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
        """Open the trial of a run that is about to start."""
        parameters = self._parameters(run)
        self._study.enqueue_trial(parameters, user_attrs=self._attributes(run))
        trial = self._study.ask(self._space)
        assert trial.user_attrs.get("run") == run.key, "another process asks this Optuna study for trials"
        self._open[run.key] = trial

    def report(self, run: str, epoch: int, value: float) -> None:
        """An intermediate value, for Optuna's own plots."""
        if math.isfinite(value) and run in self._open:
            self._open[run].report(value, epoch)

    def tell(self, event: Event, value: float) -> None:
        """Close the trial of a run that ended. value: its primary metric, NaN where it has none."""
        trial = self._open.pop(event.run, None)
        if trial is None:
            return
        states = self._optuna.trial.TrialState
        if isinstance(event, Finished) and event.outcome == "finished" and math.isfinite(value):
            self._study.tell(trial, value)
            return
        trial.set_user_attr("outcome", event.outcome if isinstance(event, Finished) else "failed")
        self._study.tell(trial, state=states.FAIL)

    def _parameters(self, run: Run) -> dict[str, Any]:
        arm = self._plan.arms[0] if run.arm == NOISE_FLOOR else self._plan.arm(run.arm)
        return {
            name: _as(self._space[name], level) if name in self._space else level
            for name, level in arm.levels.items()
        }

    def _attributes(self, run: Run) -> dict[str, Any]:
        return {"run": run.key, "arm": run.arm, "seed": run.seed, "phase": run.phase}


class _Lock:
    """The journal's lock, as the kernel's own, which dies with its process; and no half-written line behind it.

    Optuna's file locks outlive a killed process for 30 s, and a line that was cut short, once another is appended to it,
    makes its journal unreadable for good.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self.acquire()  # reading takes no lock, so what is cut short is mended before the first of it
        self.release()

    def acquire(self) -> bool:
        self._file = self._journal.with_suffix(".lock").open("a")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        _mend(self._journal)
        return True

    def release(self) -> None:
        self._file.close()


def _mend(journal: Path) -> None:
    """Cut off a last line that was not written to its end. Asked at every append, so it looks at one byte where all is well."""
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def _opening(storage: str | None) -> Iterator[None]:
    """Raise StoreError where the storage that the user named cannot be opened."""
    try:
        yield
    except Exception as error:
        if storage is None:
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(
            f"Optuna cannot open it ({said})",
            place=f"--storage {storage}",
            hint="for example sqlite:///optuna.db",
        ) from None


def _space(plan: Plan, optuna: Any) -> dict[str, Any]:
    """Factor → distribution over the levels of the plan: numbers as numbers, anything else as choices of text."""
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


def _journal(folder: Path) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    file = folder / "optuna.journal"
    return optuna.storages.JournalStorage(JournalFileBackend(str(file), cast("Any", _Lock(file))))


def try_storage(storage: str | None, folder: Path) -> str:
    """Write a trial into a storage and take it out again. storage: a URL, or None for a journal in `folder`.

    What was done, in words. Raises StoreError where it cannot be opened, OSError where a journal cannot be written.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = _journal(folder) if storage is None else storage
    with warnings.catch_warnings(), _opening(storage):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(
            study_name=f"ablate-doctor-{os.getpid()}", storage=opened, sampler=sampler
        )
        study.tell(study.ask(), 0.0)
        optuna.delete_study(study_name=study.study_name, storage=opened)
    return "a trial was written and taken out again"
