"""What a sweep of learning rates says: the best rate, those that are as good, and levels for a study.

The lowest rate and the decades in which most networks learn are trained for a part of the epochs, then a decade that was left out
beside the best, and the half decade above it. The best of all these and the half decade below are trained for all epochs, because
shorter training favours higher rates, and the next one on the better side where the metric says that it still rises.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ablate.text import counted, joined

DECADES = (1,)
"""Rates are these times powers of ten."""

HALVES = (1, 3)
"""The same about half a decade apart, in numbers that people write."""

USUAL = (1e-3, 1.0)
"""Ends of the decades to begin with, if at least two lie there: most networks learn in them. Others follow where the best lies beside them."""

NOISE = 2.0
"""Standard errors of an accuracy by which two of them differ for no reason: they are of two trainings, and the best of several."""

NEIGHBOUR = 0.25
"""Weight of each neighbour when a rate is judged by `ranked_by`: a rate that is next to one that fails is a worse choice than one that is not."""

LARGEST = 1e100
"""Where a metric is larger, or not a number, the training has diverged, whatever it calls that itself."""

BY_CHANCE = ("val/accuracy", "val/balanced_accuracy")
"""Metrics that are one by the number of classes where all is guessed."""

CLEARLY = 3.0
"""Standard errors by which the best of many accuracies has to exceed that of guessing."""

NOT_LEARNT = 0.99
"""From this share of the loss of guessing on, nothing was learnt."""


@dataclass(frozen=True)
class RateTrial:
    """A training under one rate and seed. epochs: that it was to have. is_whole: whether these are all of the study's.

    curve: what short trainings are ranked by, at the end of each epoch. score: the same at the epoch that counts. value: the
    study's metric there. Both are None where the training diverged or failed, and below `LARGEST` where not. reason: why it did.
    """

    rate: float
    seed: int
    epochs: int
    is_whole: bool
    curve: tuple[float, ...]
    score: float | None
    value: float | None
    outcome: Literal["finished", "diverged", "failed"] = "finished"
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values; None for what is not finite."""
        finite = {name: _finite(getattr(self, name)) for name in ("score", "value")}
        return asdict(self) | finite | {"curve": [_finite(value) for value in self.curve]}


@dataclass(frozen=True)
class RateRules:
    """How a sweep is read. low, high: ends of the rates. ranked_by: the metric of short trainings; metric: the study's, which decides
    among whole ones; for each whether higher is better. margin: the study's. images: of the validation split, 0 where that is not
    known. guessing: `ranked_by` of a network that has learnt nothing; None where that is not known.
    """

    low: float
    high: float
    metric: str
    is_higher_better: bool
    ranked_by: str
    is_rank_higher_better: bool
    margin: float
    images: int = 0
    guessing: float | None = None


@dataclass(frozen=True)
class RateSweep:
    """trials: in the order in which they were trained. suggestion: a baseline rate, None where there is none; `reason` says why.

    between: the lowest and the highest rate that the metric does not tell from the suggestion; within: by how much. levels: for a factor, a decade
    apart, without the suggestion, none below or above every rate that was tried; there may be none. notes: what limits the suggestion.
    """

    rules: RateRules
    trials: tuple[RateTrial, ...]
    suggestion: float | None
    between: tuple[float, float] | None
    within: float | None
    levels: tuple[float, ...]
    reason: str
    notes: tuple[str, ...]

    @property
    def limits(self) -> list[str]:
        """What limits the suggestion, in sentences without a full stop."""
        if self.between is None or self.within is None:
            return list(self.notes)
        low, high = self.between
        amount = (
            f"the margin of {self.rules.margin:g}"
            if self.within == self.rules.margin
            else f"{self.within:.2g}, two standard errors of an accuracy on {counted(self.rules.images, 'image')}"
        )
        return [f"from {low:g} to {high:g} the difference is no more than {amount}", *self.notes]

    @property
    def rates(self) -> tuple[float, ...]:
        """Every rate that was trained, rising."""
        return tuple(sorted({trial.rate for trial in self.trials}))

    def to_json(self) -> dict[str, Any]:
        """As plain values; None for what is not finite."""
        return {
            "metric": self.rules.metric,
            "ranked_by": self.rules.ranked_by,
            "margin": self.rules.margin,
            "rates": list(self.rates),
            "trials": [trial.to_json() for trial in self.trials],
            "suggestion": self.suggestion,
            "between": None if self.between is None else list(self.between),
            "within": self.within,
            "levels": list(self.levels),
            "reason": self.reason,
            "notes": list(self.notes),
        }


def ladder(low: float, high: float, steps: Sequence[int] = HALVES) -> list[float]:
    """Return the rates from low to high: both of them, and `steps` times the powers of ten between them, rising."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_rates = [float(f"{step}e{power}") for power in powers for step in steps]
    # An end that is nearly a round rate takes its place.
    inner = [rate for rate in round_rates if low * 1.01 < rate < high / 1.01]
    return [low, *inner, high]


def first_rates(rules: RateRules) -> list[float]:
    """Return the rates to begin with, rising: the lowest, with which those that learn nothing are compared, and the usual decades."""
    decades = ladder(rules.low, rules.high, DECADES)
    low, high = USUAL
    usual = [rate for rate in decades if low / 1.01 < rate < high * 1.01]
    return sorted({rules.low, *usual}) if len(usual) > 1 else decades


def next_rates(rules: RateRules, trials: Sequence[RateTrial]) -> tuple[list[float], bool]:
    """Return the rates to be trained now, rising, and whether to the end; no rates where the best is known, or nothing can be.

    trials: all so far, of every first rate among them.
    """
    if not any(trial.outcome == "finished" for trial in trials):
        return [], False
    whole = merits(rules, trials, is_whole=True)
    short = merits(rules, trials, is_whole=False)
    rates = ladder(rules.low, rules.high)
    if not whole or not short:
        first = short or whole
        best = best_rate(first)
        halves = _neighbours(best, rates)
        # The half decade below is trained to the end in any case.
        halves = halves if whole else [rate for rate in halves if rate > best]
        for beside in (_neighbours(best, ladder(rules.low, rules.high, DECADES)), halves):
            if new := [rate for rate in beside if rate not in first]:
                return new, not short
    if not whole:
        at = rates.index(best_rate(short))
        return rates[max(at - 1, 0) : at + 1], True
    if short and max(whole.values()) <= max(merits(rules, trials, is_whole=False, by_value=True).values()):
        # Where longer training comes to no more than shorter, it is unstable, which a lower rate may mend.
        return [rate for rate in rates if rate < min(whole)][-1:], True
    best, tried = chosen_rate(rules, trials), list(whole)
    further = []
    for rate in _neighbours(best, rates):
        inner = tried.index(best) + (1 if rate < best else -1)
        # Beyond an end that is hardly better than what lies within, hardly anything is to be won.
        rises = not 0 <= inner < len(tried) or whole[best] - whole[tried[inner]] > tolerance(rules, whole)
        if rate not in whole and rises:
            further.append(rate)
    return further, True


def _neighbours(rate: float, rates: Sequence[float]) -> list[float]:
    """Return those of `rates`, rising, that are next to a rate, which need not be among them."""
    return [*[r for r in rates if r < rate][-1:], *[r for r in rates if r > rate][:1]]


def merits(
    rules: RateRules, trials: Sequence[RateTrial], *, is_whole: bool, by_value: bool | None = None
) -> dict[float, float]:
    """Return how good each rate is, rising; higher is better: the mean over its seeds.

    is_whole: of whole trainings, else of the short ones. by_value: by the study's metric, else by `ranked_by`; None: as `is_whole`.
    No rate is worse than the lowest was at first: that has hardly changed the network, and how much worse another is must not
    bend its neighbours.
    """
    by_value = is_whole if by_value is None else by_value

    def merit(trial: RateTrial) -> float:
        value = trial.value if by_value else trial.score
        if value is None:
            return -math.inf
        return value if (rules.is_higher_better if by_value else rules.is_rank_higher_better) else -value

    first = min((trial.epochs for trial in trials), default=0)
    chosen = [trial for trial in trials if trial.is_whole == is_whole]
    of_lowest = [merit(trial) for trial in trials if trial.rate == rules.low and trial.epochs == first]
    finite = [value for value in map(merit, chosen) if math.isfinite(value)]
    floor = max(filter(math.isfinite, of_lowest), default=min(finite, default=0.0))
    by_rate: dict[float, list[float]] = {}
    for trial in sorted(chosen, key=lambda trial: trial.rate):
        by_rate.setdefault(trial.rate, []).append(max(merit(trial), floor))
    return {rate: statistics.fmean(values) for rate, values in by_rate.items()}


def best_rate(merit_of: Mapping[float, float]) -> float:
    """Return the rate that is best together with its neighbours; of equals the best by itself, then the lowest.

    merit_of: by rate, rising, higher is better.
    """
    smooth = with_neighbours(merit_of)
    return max(merit_of, key=lambda rate: (smooth[rate], merit_of[rate], -rate))


def with_neighbours(merit_of: Mapping[float, float]) -> dict[float, float]:
    """Return the mean of each rate's merit and a part of its neighbours'. merit_of: by rate, rising."""
    values = list(merit_of.values())
    padded = [*values[:1], *values, *values[-1:]]
    triples = zip(padded, values, padded[2:], strict=False)
    return {
        rate: (own + NEIGHBOUR * (below + above)) / (1 + 2 * NEIGHBOUR)
        for rate, (below, own, above) in zip(merit_of, triples, strict=True)
    }


def chosen_rate(rules: RateRules, trials: Sequence[RateTrial]) -> float:
    """Return the best of the rates that were trained to the end: of those that the metric does not tell apart, the one that is best
    by `ranked_by`, which is less noisy, together with its neighbours. What diverged is chosen only where all did.
    """
    whole = merits(rules, trials, is_whole=True)
    finished = {trial.rate for trial in trials if trial.is_whole and trial.outcome == "finished"}
    eligible = {rate: merit for rate, merit in whole.items() if rate in finished or not finished}
    least = max(eligible.values()) - tolerance(rules, whole)
    rank = with_neighbours(merits(rules, trials, is_whole=True, by_value=False))
    return max(
        (r for r in eligible if eligible[r] >= least), key=lambda rate: (rank[rate], eligible[rate], -rate)
    )


def tolerance(rules: RateRules, whole: Mapping[float, float]) -> float:
    """Return the difference up to which the metric does not tell rates apart: the margin, or the noise of an accuracy."""
    best = max(whole.values())
    is_share = rules.images > 0 and "accuracy" in rules.metric and 0 <= best <= 1
    return max(rules.margin, NOISE * math.sqrt(best * (1 - best) / rules.images) if is_share else 0.0)


def rate_sweep(rules: RateRules, trials: Sequence[RateTrial]) -> RateSweep:
    """Read the trials of a sweep that is over."""
    whole = merits(rules, trials, is_whole=True)
    reason = _why_nothing(rules, trials)
    if reason:
        return RateSweep(rules, tuple(trials), None, None, None, (), reason, ())
    suggestion = chosen_rate(rules, trials)
    lost = {trial.rate for trial in trials if trial.is_whole and trial.outcome != "finished"}
    near = _as_good(whole, suggestion, tolerance(rules, whole), lost)
    dropped = min(
        (t.rate for t in trials if t.outcome != "finished" and t.rate > suggestion), default=math.inf
    )
    lowest, highest = min(trial.rate for trial in trials), max(trial.rate for trial in trials)
    return RateSweep(
        rules=rules,
        trials=tuple(trials),
        suggestion=suggestion,
        between=near if near[0] < near[1] else None,
        within=tolerance(rules, whole),
        levels=tuple(
            rate for rate in levels(suggestion, lowest) if lowest <= rate <= highest and rate < dropped
        ),
        reason="",
        notes=tuple(_notes(rules, whole, suggestion, is_unfinished=bool(next_rates(rules, trials)[0]))),
    )


def levels(suggestion: float, lowest: float) -> tuple[float, ...]:
    """Return the powers of ten from about `lowest` to the first that is at least five times the suggestion, that itself left out."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = math.ceil(math.log10(5 * suggestion) - 1e-9)
    powers = [float(f"1e{power}") for power in range(first, last + 1)]
    return tuple(rate for rate in powers if not math.isclose(rate, suggestion, rel_tol=1e-6))


def _as_good(
    whole: Mapping[float, float], suggestion: float, within: float, lost: Collection[float]
) -> tuple[float, float]:
    """Return the ends of the rates around the suggestion that are worse or better by no more than `within`.

    lost: rates at which a training diverged or failed, whose merit is that of the lowest rate; none of them is as good.
    """
    rates = list(whole)
    low = high = rates.index(suggestion)

    def is_near(at: int) -> bool:
        if not 0 <= at < len(rates) or rates[at] in lost:
            return False
        return abs(whole[rates[at]] - whole[suggestion]) <= within

    while is_near(low - 1):
        low -= 1
    while is_near(high + 1):
        high += 1
    return rates[low], rates[high]


def _why_nothing(rules: RateRules, trials: Sequence[RateTrial]) -> str:
    """Return why no rate can be suggested; empty where one can."""
    finished = [trial for trial in trials if trial.outcome == "finished"]
    rates = [trial.rate for trial in trials]
    span = f"from {min(rates):g} to {max(rates):g}"
    if not finished:
        return (
            f"the training diverges at every rate {span}: begin lower with --from; "
            "if that changes nothing, look for NaN in the data and for values that overflow in the network"
        )
    first = [trial for trial in finished if trial.epochs == trials[0].epochs and trial.seed == trials[0].seed]
    if len(first) > 1 and len({(trial.curve, trial.value) for trial in first}) == 1:
        return (
            f"{counted(len(first), 'rate')} {span} give the same curve to the last digit: the rate does not reach the training, "
            "or all of them are far too high or far too low"
        )
    if not any(trial.is_whole for trial in finished):
        tried = sorted({trial.rate for trial in trials if trial.is_whole})
        return (
            f"the whole training diverges at {joined(f'{rate:g}' for rate in tried or [rules.low])}, though a shorter one did not: "
            "end lower with --to"
        )
    guessing = rules.guessing
    if guessing is not None and not _is_beyond_chance(rules, finished):
        best = min(finished, key=lambda trial: math.inf if trial.score is None else trial.score)
        if best.score is not None and best.score > NOT_LEARNT * guessing:
            lower = best.score > guessing / NOT_LEARNT and not _hardly_changes(finished)
            higher = best.rate == rules.high and not lower
            first_of_all = (
                "begin lower with --from, " if lower else "end higher with --to, " if higher else ""
            )
            return (
                f"nothing is learnt at any rate {span}: the lowest {rules.ranked_by} is {best.score:.3f}, after {counted(best.epochs, 'epoch')} "
                f"at {best.rate:g}, and guessing has {guessing:.3f}; {first_of_all}train longer, or look at data and network"
            )
    return ""


def _hardly_changes(finished: Sequence[RateTrial]) -> bool:
    """Return whether the lowest rate leaves the network about as it was: then the next one has nearly the same score. Initial weights
    may be far worse than guessing, so that the score alone does not tell them from weights that too high a rate has ruined.
    """
    epochs = min(trial.epochs for trial in finished)
    lowest = sorted((t for t in finished if t.epochs == epochs and t.score is not None), key=lambda t: t.rate)
    scores = [abs(t.score) for t in lowest if t.seed == lowest[0].seed and t.score is not None][:2]
    return len(scores) == 2 and min(scores) >= NOT_LEARNT * max(scores)


def _is_beyond_chance(rules: RateRules, finished: Sequence[RateTrial]) -> bool:
    """Return whether some accuracy is better than that of guessing: a network that over-fits may have a worse loss all the same."""
    if rules.metric not in BY_CHANCE or not rules.images or rules.guessing is None:
        return False
    chance = math.exp(-rules.guessing)
    clearly = chance + CLEARLY * math.sqrt(chance * (1 - chance) / rules.images)
    return any(trial.value is not None and trial.value > clearly for trial in finished)


def _notes(
    rules: RateRules, whole: Mapping[float, float], suggestion: float, *, is_unfinished: bool
) -> list[str]:
    """Return what limits the suggestion beside what the metric does not tell apart: where it lies among the rates."""
    if suggestion == rules.low:
        return ["it is the lowest rate that was tried: --from would go lower"]
    if suggestion == rules.high:
        return ["it is the highest rate that was tried: --to would go higher"]
    rates = list(whole)
    if suggestion in (rates[0], rates[-1]) and is_unfinished:
        end, beyond = ("lowest", "lower") if suggestion == rates[0] else ("highest", "higher")
        return [f"it is the {end} rate that was trained to the end: a {beyond} one may be better still"]
    return []


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
