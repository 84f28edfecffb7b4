"""What a sweep of learning rates says: the best rate, those that are as good, and levels for a study.

A rate of every decade is trained for a part of the epochs, then those half a decade from the best. The best of all these and the
rates just below are trained for all epochs, and so are the neighbours of whatever is best then. Shorter training favours higher
rates, so what is trained to the end lies below first.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ablate.text import counted, joined

LADDER = (1, 2, 3, 5)
"""Rates are these times powers of ten: ratios of 1.5 to 2, in numbers that people write."""

HALVES = (1, 3)
"""Those of the ladder that are about half a decade apart."""

BELOW = 2
"""How many rates of the ladder below the best of the short trainings are trained to the end, beside that one."""

NEIGHBOUR = 0.25
"""Weight of each neighbour when a rate is judged: a rate that is next to one that fails is a worse choice than one that is not."""

LARGEST = 1e100
"""Where a metric is larger, or not a number, the training has diverged, whatever it calls that itself."""

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
    among whole ones; for each whether higher is better. margin: the study's. guessing: `ranked_by` of a network that has
    learnt nothing; None where that is not known.
    """

    low: float
    high: float
    metric: str
    is_higher_better: bool
    ranked_by: str
    is_rank_higher_better: bool
    margin: float
    guessing: float | None = None


@dataclass(frozen=True)
class RateSweep:
    """trials: in the order in which they were trained. suggestion: a baseline rate, None where there is none; `reason` says why.

    between: the lowest and the highest rate that differ from the suggestion by less than the margin. levels: for a factor, a decade
    apart, without the suggestion. notes: what limits the suggestion.
    """

    rules: RateRules
    trials: tuple[RateTrial, ...]
    suggestion: float | None
    between: tuple[float, float] | None
    levels: tuple[float, ...]
    reason: str
    notes: tuple[str, ...]

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
            "levels": list(self.levels),
            "reason": self.reason,
            "notes": list(self.notes),
        }


def ladder(low: float, high: float, steps: Sequence[int] = LADDER) -> list[float]:
    """Return the rates from low to high: both of them, and `steps` times the powers of ten between them, rising."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_rates = [float(f"{step}e{power}") for power in powers for step in steps]
    # An end that is nearly a round rate takes its place.
    inner = [rate for rate in round_rates if low * 1.01 < rate < high / 1.01]
    return [low, *inner, high]


def first_rates(rules: RateRules) -> list[float]:
    """Return the rates to begin with: both ends, and the powers of ten between them."""
    return ladder(rules.low, rules.high, (1,))


def next_rates(rules: RateRules, trials: Sequence[RateTrial]) -> tuple[list[float], bool]:
    """Return the rates to be trained now, rising, and whether to the end; no rates where the best is known, or nothing can be.

    trials: all so far, of every first rate among them.
    """
    if not any(trial.outcome == "finished" for trial in trials):
        return [], False
    whole = merits(rules, trials, is_whole=True)
    short = merits(rules, trials, is_whole=False)
    if not whole or not short:
        beside = _neighbours(best_rate(short or whole), ladder(rules.low, rules.high, HALVES))
        if new := [rate for rate in beside if rate not in (short or whole)]:
            return new, not short
    rates = ladder(rules.low, rules.high)
    if not whole:
        at = rates.index(best_rate(short))
        return rates[max(at - BELOW, 0) : at + 1], True
    best = best_rate(whole)
    tried = list(whole)
    is_level = len(set(whole.values())) == 1
    further = []
    for rate in _neighbours(best, rates):
        inner = tried.index(best) + (1 if rate < best else -1)
        # Beyond an end that is better by less than the margin than what lies within, no more than a margin is to be won.
        rises = not 0 <= inner < len(tried) or whole[best] - whole[tried[inner]] > rules.margin
        if rate not in whole and (rises or is_level):
            further.append(rate)
    return further, True


def _neighbours(rate: float, rates: Sequence[float]) -> list[float]:
    """Return those of `rates`, rising, that are next to a rate, which need not be among them."""
    return [*[r for r in rates if r < rate][-1:], *[r for r in rates if r > rate][:1]]


def merits(rules: RateRules, trials: Sequence[RateTrial], *, is_whole: bool) -> dict[float, float]:
    """Return how good each rate is, rising; higher is better: the mean over its seeds.

    is_whole: of whole trainings, by the study's metric; else of the short ones, by `ranked_by`. No rate is worse than the lowest
    was at first: that has hardly changed the network, and how much worse another is must not bend its neighbours.
    """

    def merit(trial: RateTrial) -> float:
        value = trial.value if is_whole else trial.score
        if value is None:
            return -math.inf
        return value if (rules.is_higher_better if is_whole else rules.is_rank_higher_better) else -value

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
    rates, values = list(merit_of), list(merit_of.values())

    def with_neighbours(at: int) -> float:
        beside = [values[i] if 0 <= i < len(values) else values[at] for i in (at - 1, at + 1)]
        return (values[at] + NEIGHBOUR * sum(beside)) / (1 + 2 * NEIGHBOUR)

    return rates[max(range(len(rates)), key=lambda at: (with_neighbours(at), values[at], -at))]


def rate_sweep(rules: RateRules, trials: Sequence[RateTrial]) -> RateSweep:
    """Read the trials of a sweep that is over."""
    whole = merits(rules, trials, is_whole=True)
    reason = _why_nothing(rules, trials)
    if reason:
        return RateSweep(rules, tuple(trials), None, None, (), reason, ())
    suggestion = best_rate(whole)
    near = _within_margin(whole, suggestion, rules.margin)
    dropped = min(
        (t.rate for t in trials if t.outcome != "finished" and t.rate > suggestion), default=math.inf
    )
    return RateSweep(
        rules=rules,
        trials=tuple(trials),
        suggestion=suggestion,
        between=near if near[0] < near[1] else None,
        levels=tuple(rate for rate in levels(suggestion, rules.low) if rate < dropped),
        reason="",
        notes=tuple(_limits(rules, whole, suggestion, is_unfinished=bool(next_rates(rules, trials)[0]))),
    )


def levels(suggestion: float, lowest: float) -> tuple[float, ...]:
    """Return the powers of ten from about `lowest` to the first that is at least five times the suggestion, that itself left out."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = math.ceil(math.log10(5 * suggestion) - 1e-9)
    powers = [float(f"1e{power}") for power in range(first, last + 1)]
    return tuple(rate for rate in powers if not math.isclose(rate, suggestion, rel_tol=1e-6))


def _within_margin(whole: Mapping[float, float], suggestion: float, margin: float) -> tuple[float, float]:
    """Return the ends of the rates around the suggestion that are worse or better by less than the margin."""
    rates = list(whole)
    low = high = rates.index(suggestion)

    def is_near(at: int) -> bool:
        return 0 <= at < len(rates) and abs(whole[rates[at]] - whole[suggestion]) < margin

    while is_near(low - 1):
        low -= 1
    while is_near(high + 1):
        high += 1
    return rates[low], rates[high]


def _why_nothing(rules: RateRules, trials: Sequence[RateTrial]) -> str:
    """Return why no rate can be suggested; empty where one can."""
    finished = [trial for trial in trials if trial.outcome == "finished"]
    span = f"from {rules.low:g} to {rules.high:g}"
    if not finished:
        return (
            f"the training diverges at every rate {span}: begin lower with --from; "
            "if that changes nothing, look for NaN in the data and for values that overflow in the network"
        )
    first = [trial for trial in finished if trial.epochs == trials[0].epochs and trial.seed == trials[0].seed]
    if len(first) > 1 and len({(trial.curve, trial.value) for trial in first}) == 1:
        return f"the rate does not reach the training: {counted(len(first), 'rate')} {span} give the same curve to the last digit"
    if not any(trial.is_whole for trial in finished):
        tried = sorted({trial.rate for trial in trials if trial.is_whole})
        return (
            f"the whole training diverges at {joined(f'{rate:g}' for rate in tried or [rules.low])}, though a shorter one did not: "
            "end lower with --to"
        )
    guessing = rules.guessing
    if guessing is not None:
        best = min(finished, key=lambda trial: math.inf if trial.score is None else trial.score)
        if best.score is not None and best.score > NOT_LEARNT * guessing:
            return (
                f"nothing is learnt at any rate {span}: the lowest {rules.ranked_by} is {best.score:.3f}, after "
                f"{counted(best.epochs, 'epoch')} at {best.rate:g}, and guessing has {guessing:.3f}; train longer, or look at data and network"
            )
    return ""


def _limits(
    rules: RateRules, whole: Mapping[float, float], suggestion: float, *, is_unfinished: bool
) -> list[str]:
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
