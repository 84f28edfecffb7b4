"""How far an axis goes, how its levels are spaced, and where its ticks are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ablate.report.contents import Line

FAR = 4.0
"""A value this many times the typical one may run off the scale, so that the others can be read."""


def reach(sizes: Iterable[float], least: float) -> float:
    """Return how far a scale goes: to the largest size that is not FAR beyond the median, which is taken as `least` at least."""
    finite = sorted(s for s in sizes if math.isfinite(s))
    if not finite:
        return least
    typical = max(least, finite[len(finite) // 2])
    return max([least, *(size for size in finite if size <= FAR * typical)])


def ticks(low: float, high: float) -> tuple[float, ...]:
    """Return round numbers along a scale, 0 among them, at most nine."""
    return round_numbers(low, high, 8)


def round_numbers(low: float, high: float, most: int) -> tuple[float, ...]:
    """Return round numbers from low to high, at most one more than `most`."""
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    return tuple(step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))


def spacing(levels: Iterable[Any]) -> Literal["linear", "log", "named"]:
    """Return how levels are spaced: evenly in their logarithm, in themselves, or as names."""
    values = list(levels)
    if len(values) < 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return "named"
    numbers = np.sort(np.asarray(values, dtype=float))
    if len(set(numbers)) < len(numbers) or not np.isfinite(numbers).all():
        return "named"
    if len(numbers) < 3 or numbers[0] <= 0:
        return "linear"

    def unevenness(places: npt.NDArray[np.float64]) -> float:
        gaps = np.diff(places)
        return float(gaps.std() / gaps.mean())

    return "log" if unevenness(np.log(numbers)) < unevenness(numbers) - 1e-9 else "linear"


def extent(lines: Sequence[Line]) -> tuple[float, float, bool, bool]:
    """Return (low, high, log, cut) of an axis for these curves: one arm that explodes must not flatten the others."""
    low = min(min(line.low) for line in lines)
    tops = [max(line.high) for line in lines]
    high = reach(tops, 0.0) if low >= 0 else max(tops)
    cut = high < max(tops)
    # Beyond a million it is the tail of a schedule, which no logarithm makes worth showing.
    log = low > 0 and 100 < high / low < 1e6
    if log:
        return low / 1.15, high * 1.15, True, cut
    pad = 0.05 * (high - low) or 0.05 * max(abs(high), 1e-9)
    return low - pad, high + pad, False, cut
