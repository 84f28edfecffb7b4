"""What a learning-rate range test says: the loss against the rate, a rate to begin with, and levels around it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEWEST_STEPS = 30
"""With fewer steps the rate jumps by so much that a fall of the loss cannot be distinguished from one odd batch."""

BANDWIDTH = 0.3
"""Of the smoothing, in decades of the rate: standard deviation of its Gaussian weights."""

REACHED = 0.9
"""Share of the fall from the starting loss to its lowest at which the suggestion lies: `docs/log.md` has what else was
tried.
"""

CLEAR = 5.0
"""Times that the fall must exceed the standard error of the smoothed loss; the lowest of many is low by luck alone."""

AGREE = 10.0
"""Ratio of single seeds' suggestions up to which they count as one answer."""

NICE = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class RangeTest:
    """rates: of each step, rising. losses: of each seed, fewer where it ended early. smooth: the median over seeds,
    smoothed, as long as most seeds went on.

    start: the loss before the rate matters, infinite where `smooth` is empty. lowest: of `smooth`, at the rate `floor`. suggestion: a baseline rate, None
    where the test is inconclusive; `reason` says why. between: the lowest and the highest that a single seed suggests.
    levels: for a factor, a decade apart, without the suggestion.
    """

    rates: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    smooth: tuple[float, ...]
    start: float
    lowest: float
    floor: float
    suggestion: float | None
    between: tuple[float, float] | None
    levels: tuple[float, ...]
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values; None for `start` and `lowest` where no loss was finite."""
        losses = {"start": self.start, "lowest": self.lowest}
        return asdict(self) | {name: loss if math.isfinite(loss) else None for name, loss in losses.items()}


FEW_RATES = 100.0
"""Rates that are within this factor of the lowest one say that it is too high, where the loss is hopeless among them."""


def range_test(rates: Sequence[float], losses: Sequence[Sequence[float]]) -> RangeTest:
    """Read a learning-rate range test.

    rates: (steps,), rising. losses: a curve for each seed; one that is shorter than `rates` ended early, and what follows
    a loss that is not finite is left out.

    The suggestion is the lowest rate at which the smoothed loss has made most (`REACHED`) of its fall, rounded to
    1, 2, 3 or 5 times a power of ten.
    """
    x = np.log10(np.asarray(rates, dtype=np.float64))
    curves = np.full((len(losses), len(rates)), np.inf)
    for row, curve in zip(curves, losses, strict=True):
        row[: len(curve)] = np.where(np.isfinite(curve), curve, np.inf)
    middle = np.median(curves, axis=0)
    until = len(middle) if np.isfinite(middle).all() else int(np.argmin(np.isfinite(middle)))
    beginning = max(1, int(np.searchsorted(x, x[0] + 0.5)))
    # How far up it goes once it diverges says nothing, and must not bend the curve before that.
    ceiling = 2 * np.median(middle[:beginning])
    smooth, error = _smoothed(x[:until], np.minimum(middle[:until], ceiling))
    # A flat beginning, not its first point: a batch is not more telling for being the first.
    start = float(np.median(smooth[:beginning])) if until else math.inf
    low = int(np.argmin(smooth)) if until else 0
    lowest = float(smooth[low]) if until else math.inf
    reason = _not_finite(curves, rates[0]) if until == 0 else _doubt(rates, until, low, start - lowest, error)
    suggestion = None
    if not reason:
        reached = int(np.argmax(smooth <= start - REACHED * (start - lowest)))
        suggestion = _nice(float(rates[reached]))
    single = (
        [] if suggestion is None or len(losses) == 1 else [range_test(rates, [curve]) for curve in losses]
    )
    suggestions = [test.suggestion for test in single if test.suggestion is not None]
    if suggestions and max(suggestions) > AGREE * min(suggestions):
        suggestion = None
        reason = f"the seeds disagree, from {min(suggestions):g} to {max(suggestions):g}: more --passes or --seeds, or a larger batch"
    return RangeTest(
        rates=tuple(rates),
        losses=tuple(tuple(itertools.takewhile(math.isfinite, curve)) for curve in losses),
        smooth=tuple(float(value) for value in smooth),
        start=start,
        lowest=lowest,
        floor=float(rates[low]),
        suggestion=suggestion,
        between=(min(suggestions), max(suggestions)) if suggestions else None,
        levels=() if suggestion is None else levels(suggestion, float(rates[0])),
        reason=reason,
    )


def levels(suggestion: float, lowest: float) -> tuple[float, ...]:
    """Return the powers of ten from about `lowest` to the first that is at least five times the suggestion, that itself left out."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = math.ceil(math.log10(5 * suggestion) - 1e-9)
    powers = [float(f"1e{power}") for power in range(first, last + 1)]
    return tuple(rate for rate in powers if not math.isclose(rate, suggestion, rel_tol=1e-6))


def _smoothed(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return a local straight line at every point (Cleveland 1979, with Gaussian weights), and its typical standard error."""
    if len(x) < 3:
        return y, math.inf
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / BANDWIDTH) ** 2)
    away = x[None, :] - x[:, None]
    s0, s1, s2 = (np.sum(weights * away**power, axis=1) for power in (0, 1, 2))
    pull = weights * (s2[:, None] - away * s1[:, None]) / (s0 * s2 - s1**2)[:, None]
    # From neighbours' differences, so that the bend of the curve does not count as noise; the median forgets its end.
    noise = float(np.median(np.abs(np.diff(y)))) / (0.6745 * math.sqrt(2))
    return pull @ y, noise * float(np.median(np.sqrt(np.sum(pull**2, axis=1))))


def _not_finite(curves: NDArray[np.float64], lowest: float) -> str:
    """Why nothing can be concluded where the median loss of the very first step is not finite. curves: (seeds, steps)."""
    ruined = int(np.sum(~np.isfinite(curves[:, 0])))
    whose = "the loss" if ruined == len(curves) else f"the loss of {ruined} of {len(curves)} seeds"
    return (
        f"{whose} is not finite at the lowest rate, {lowest:g}: begin lower with --from; "
        "if that changes nothing, look for NaN in the data and for values that overflow in the network"
    )


def _doubt(rates: Sequence[float], until: int, low: int, fall: float, error: float) -> str:
    """Why nothing can be concluded; empty where something can."""
    steps = len(rates)
    if steps < FEWEST_STEPS:
        return (
            f"one pass is only {counted(steps, 'step')}, and at least {FEWEST_STEPS} are needed: "
            f"`--passes {math.ceil(2 * FEWEST_STEPS / max(1, steps))}` or more, or a smaller batch"
        )
    if until < FEWEST_STEPS // 3:
        # Few steps, but over a range in which a good rate may lie: then the steps are too wide, not too high.
        if rates[until] > FEW_RATES * rates[0]:
            return f"the loss is hopeless from {rates[until]:.2g} on, after {counted(until, 'step')}: end lower with --to"
        return "the loss is hopeless from the first steps on: begin lower with --from"
    if not fall > CLEAR * error:
        return (
            f"the loss does not fall clearly: by {fall:.3g}, where noise alone moves the curve by about {error:.2g}; "
            "more --passes or --seeds would tell, or rates that reach further with --to"
        )
    if low == steps - 1:
        return "the loss still falls at the highest rate: go further with --to"
    return ""


def _nice(rate: float) -> float:
    """Return the nearest of 1, 2, 3 and 5 times a power of ten, by ratio."""
    power = math.floor(math.log10(rate))
    nearest = min(NICE, key=lambda n: abs(math.log(rate / 10**power / n)))
    return float(f"{nearest}e{power}")
