"""`ablate lr`: a study's baseline under many learning rates, first for a part of its epochs, then the best of them to the end.

Runs that differ only in their rate share a slot and are stacked where that pays, as in a study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ablate.analysis import rates as analysis
from ablate.analysis.rates import LARGEST, RateRules, RateSweep, RateTrial
from ablate.config import Config
from ablate.data.facts import DataFacts
from ablate.errors import StudyError, TrainingError
from ablate.events import EpochEnd, Event, Failed, Finished, Started, Task
from ablate.executors import Executor, Slot
from ablate.scheduling.bundles import SharedSlots
from ablate.scheduling.dispatch import Client, Dispatcher, Flight
from ablate.study.design import Run
from ablate.study.keys import Study
from ablate.study.seeds import seed_of
from ablate.study.template import RATE_NAMES
from ablate.text import counted, format_value, joined
from ablate.training import trainer_of
from ablate.training.payload import RunPayload

PART = 4
"""Short trainings have about this part of the epochs: a quarter."""

EXTENSIONS = 2
"""Times that the neighbours of the best rate are trained to the end as well."""

EPOCH_NAMES = ("epochs", "num_epochs", "n_epochs", "max_epochs")
"""What training of the user's own calls the number of its epochs."""

LOSS = "val/loss"
"""Short trainings are ranked by it, where there is one: it tells rates apart while every accuracy is still that of guessing."""


@dataclass(frozen=True)
class SweepOptions:
    """low, high: the lowest and the highest rate. seeds: trainings of each rate. epochs: of the short trainings; None: a quarter.

    path: of the rate in the baseline; None: where it is named as rates usually are.
    """

    low: float = 1e-5
    high: float = 10.0
    seeds: int = 1
    epochs: int | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < math.inf:
            # Where the lowest rate could be one, the highest is what does not fit.
            raise StudyError(
                f"rates from {self.low:g} to {self.high:g} are no range",
                place="--to" if 0 < self.low < math.inf else "--from",
                hint="0 < from < to, both finite",
            )


def sweep(
    study: Study,
    options: SweepOptions,
    executor: Executor,
    say: Callable[[str], None],
    data: DataFacts,
) -> RateSweep:
    """Sweep the learning rate of a study's baseline.

    executor: runs `ablate.training.runs.train`. say: told what it will cost, and how far it is. data: what the baseline is trained on.
    The seeds are of the tuning phase: a rate must not be chosen on the seeds that it is then judged by. Raises StudyError where the
    baseline names no rate, TrainingError where no short training ends.
    """
    baseline = study.baseline
    path = options.path or rate_path(baseline)
    trainer = trainer_of(baseline)
    ranked_by = LOSS if LOSS in trainer.yields(baseline) else study.metric
    epochs_path, whole = _epochs(baseline)
    if options.epochs is not None and (epochs_path is None or options.epochs > whole):
        raise StudyError(
            "the baseline names no number of epochs, so no training is shorter than a whole one"
            if epochs_path is None
            else f"{options.epochs} are more than a whole training has ({whole})",
            place="--epochs",
            hint=f"short ones are shorter where it has {joined(EPOCH_NAMES, 'or')}"
            if epochs_path is None
            else f"it is the length of the short trainings; `--set {epochs_path}=N` is that of whole ones",
        )
    short = min(options.epochs or max(1, (whole + PART // 2) // PART), whole)
    rules = RateRules(
        low=options.low,
        high=options.high,
        metric=study.metric,
        is_higher_better=study.direction == "maximize",
        ranked_by=ranked_by,
        is_rank_higher_better=ranked_by != LOSS and study.direction == "maximize",
        margin=study.margin,
        images=data.validation,
        guessing=math.log(len(data.classes)) if ranked_by == LOSS and len(data.classes) > 1 else None,
    )
    rates = analysis.first_rates(rules)
    seeds = [seed_of("tune", replicate) for replicate in range(options.seeds)]
    trials: list[RateTrial] = []

    def config(run: Run) -> Config:
        return baseline.override(run.values).with_seed(run.seed)

    def train(chosen: Sequence[float], epochs: int) -> None:
        given = {epochs_path: epochs} if epochs_path is not None else {}
        runs = [
            Run(f"lr-{rate:g}-{epochs}-{seed}", "", f"{rate:g}", seed, "tune", {path: rate} | given)
            for seed in seeds
            for rate in chosen
        ]
        Dispatcher(executor, client, company=company).run(runs)
        trials.extend(client.trial(run, run.values[path], epochs, is_whole=epochs == whole) for run in runs)

    client = _SweepRuns(study, data.fingerprint, config, ranked_by, say)
    company = SharedSlots(config, None, len(executor.slots), in_rounds=False)
    for rate in (options.low, options.high):
        baseline.override({path: rate})  # what the setting does not take is said before anything is trained
    # The decades and the half decade above the best, or those beside it; then that and the one below to the end.
    runs = options.seeds * ((len(rates) + 1) * short / whole + 2 if short < whole else len(rates) + 2)
    part = f"{short} of {counted(whole, 'epoch')} each, then the best of them to the end"
    say(
        f"{counted(len(rates), 'rate')} from {rates[0]:g} to {rates[-1]:g}, {part if short < whole else 'a whole run each'}: "
        f"in all as much training as about {counted(math.ceil(runs), 'run')} of the study, and more where the best lies at an end"
    )
    try:
        with executor:
            train(rates, short)
            if all(trial.outcome == "failed" for trial in trials):
                raise TrainingError(trials[0].reason)
            extensions = 0
            while extensions <= EXTENSIONS:
                chosen, is_whole = analysis.next_rates(rules, trials)
                if not chosen:
                    break
                extensions += is_whole
                length = "to the end" if is_whole else counted(short, "epoch")
                say(f"{length} at {joined(f'{rate:g}' for rate in chosen)}")
                train(chosen, whole if is_whole else short)
    except KeyboardInterrupt:
        if trials:
            say(f"{ranked_by} until then: {', '.join(map(_outcome, trials))}")
        raise
    return analysis.rate_sweep(rules, trials)


def _outcome(trial: RateTrial) -> str:
    """Return in words what came of a trial: `2.1 at 0.1 after 2 epochs`."""
    result = trial.outcome if trial.score is None else f"{trial.score:.4g}"
    return f"{result} at {trial.rate:g} after {counted(trial.epochs, 'epoch')}"


def rate_path(config: Config) -> str:
    """Return the path of the learning rate in a config. Raises StudyError where it names none, or several."""
    numbers = [
        path
        for path, value in config.flatten().items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    paths = [path for path in numbers if path.rpartition(".")[2] in RATE_NAMES]
    if "optimizer.lr" in paths or len(paths) == 1:
        return "optimizer.lr" if "optimizer.lr" in paths else paths[0]
    raise StudyError(
        f"the baseline has {joined(paths)}" if paths else "the baseline names no learning rate",
        place="baseline",
        hint="say which setting it is: `ablate lr STUDY.yaml --path PATH`",
    )


def _epochs(config: Config) -> tuple[str | None, int]:
    """Return the path of the number of epochs, and the number; None and 1 where the baseline names none."""
    for path, value in config.flatten().items():
        if path.rpartition(".")[2] in EPOCH_NAMES and type(value) is int and value >= 1:
            return path, value
    return None, 1


class _SweepRuns(Client[Run]):
    """The runs of a sweep, and what came of them."""

    def __init__(
        self,
        study: Study,
        data: str,
        config: Callable[[Run], Config],
        ranked_by: str,
        say: Callable[[str], None],
    ) -> None:
        self._study, self._data, self._config = study, data, config
        self._ranked_by, self._say = ranked_by, say
        self._ends: dict[str, tuple[list[Event], Finished | Failed]] = {}
        self._has_said = False

    def task(self, work: Run, attempt: int, slot: Slot, *, fuse: bool) -> Task:
        config = self._config(work)
        payload = RunPayload(
            config=config.tree(),
            seed=work.seed,
            device=slot.device,
            source=config.source,
            data=self._data,
            fuse=fuse,
            metric=self._study.metric,
            tested=False,
        )
        return Task(work.key, attempt, payload)

    def event(self, flight: Flight[Run], event: Event) -> bool:  # noqa: ARG002 — of the protocol
        if isinstance(event, Started) and not self._has_said:
            self._has_said = True
            label = str(event.facts.get("fused", ""))
            self._say(
                f"{label}: together they take much less time than one after another"
                if label.startswith("stacked")
                else "they are not stacked, so each takes the time of its own training"
            )
        return False

    def outcome(self, flight: Flight[Run], event: Finished | Failed) -> None:
        self._ends[flight.key] = (list(flight.events), event)

    def trial(self, run: Run, rate: float, epochs: int, *, is_whole: bool) -> RateTrial:
        """Return what came of a run."""
        events, end = self._ends[run.key]
        by_epoch = {event.epoch: event.metrics for event in events if isinstance(event, EpochEnd)}
        curve = tuple(metrics[self._ranked_by] for metrics in by_epoch.values() if self._ranked_by in metrics)
        if isinstance(end, Failed):
            return RateTrial(rate, run.seed, epochs, is_whole, curve, None, None, "failed", end.reason)
        last = {**end.metrics, **by_epoch.get(end.epoch, {})}
        score, value = last.get(self._ranked_by), last.get(self._study.metric)
        outcome: Literal["finished", "diverged", "failed"] = end.outcome
        reason = str(end.facts.get("reason", ""))
        if outcome == "finished" and (score is None or value is None):
            outcome, reason = "failed", f"it yields no {self._study.metric}"
        elif outcome == "finished" and not (abs(score or 0.0) < LARGEST and abs(value or 0.0) < LARGEST):
            outcome, reason = "diverged", f"{self._study.metric} is not finite"
        if outcome != "finished":
            score = value = None
        return RateTrial(rate, run.seed, epochs, is_whole, curve, score, value, outcome, reason)


def paste(study: Study, result: RateSweep, path: str | None = None) -> str:
    """Return the suggestion as lines of a study file: the baseline's block with its rate, and a factor where there are levels.

    Empty without a suggestion.
    """
    if result.suggestion is None:
        return ""
    path = path or rate_path(study.baseline)
    *outer, name = path.split(".")
    if outer:
        block = study.baseline.get(".".join(outer)) | {name: result.suggestion}
        for key in reversed(outer[1:]):
            block = {key: block}
        line = f"{outer[0]}: {format_value(block)}"
    else:
        line = f"{name}: {result.suggestion:g}"
    factors = f"\nfactors:\n  {path}: {format_value(list(result.levels))}" if result.levels else ""
    return f"baseline:\n  {line}{factors}"
