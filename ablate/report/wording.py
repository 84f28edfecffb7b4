"""How numbers, levels and durations are written: one way for the page, its figures and its exports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ablate.text import format_level, format_short_duration, joined

MOST_DECIMALS = 30
"""More decimals than this are written of no number."""

ROUNDING = 1e-9
"""Share of the larger end of an interval up to which the other one is zero but for arithmetic."""

MINUS = "−"
NOTHING = "–"
"""Stands where there is no number to give."""


def decimals(step: float) -> int:
    """Return the decimals that show a step (a margin, in shown units) to two significant digits, at most MOST_DECIMALS."""
    if not (math.isfinite(step) and step > 0):
        return 2
    return min(MOST_DECIMALS, max(0, 1 - math.floor(math.log10(step))))


def plain(value: float | None, digits: int) -> str:
    """Write a number with a real minus sign; never a negative zero."""
    if value is None or not math.isfinite(value):
        return NOTHING
    text = f"{abs(value):,.{digits}f}"
    return text if value >= 0 or _is_zero(text) else MINUS + text


def trimmed(value: float, digits: int) -> str:
    """Write a declared number without trailing zeros: `0.5`, `10`."""
    text = plain(value, digits)
    return text.rstrip("0").rstrip(".") if "." in text else text


def signed(value: float | None, digits: int) -> str:
    """Write a difference with its sign, zero without one."""
    text = plain(value, digits)
    positive = value is not None and math.isfinite(value) and value > 0 and not _is_zero(text)
    return f"+{text}" if positive else text


def _is_zero(text: str) -> bool:
    return not text.strip("0,.")


def span(lo: float | None, hi: float | None, digits: int) -> str:
    """Write an interval: `−0.2 to +0.5`."""
    if lo is None or hi is None:
        return NOTHING
    return " to ".join(ends(lo, hi, digits))


def ends(lo: float, hi: float, digits: int) -> tuple[str, str]:
    """Write both ends of an interval. One that excludes zero is never written as touching it: such an end gets more decimals."""
    least = ROUNDING * max(abs(lo), abs(hi))

    def written(end: float) -> str:
        decimals = digits
        while abs(end) > least and decimals < MOST_DECIMALS and _is_zero(plain(end, decimals)):
            decimals += 1
        return signed(end, decimals)

    return written(lo), written(hi)


def ratio(value: float | None) -> str:
    """Write a ratio: `2.6×`, `0.27×`, `120×`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value >= 100:
        return f"{value:,.0f}×"
    return f"{value:.1f}×" if value >= 1.05 else f"{value:.2f}×" if value >= 0.95 else f"{value:.2g}×"


def share(value: float, what: str) -> str:
    """Write a ratio with what it is of: `2.6× the compute`, `the same compute`."""
    return f"the same {what}" if 0.995 <= value <= 1.005 else f"{ratio(value)} the {what}"


def p_value(p: float | None) -> str:
    """Write an adjusted p, `< 0.001` where it is small, and `< 0.05` where it is below that and its digits do not show it."""
    if p is None or not math.isfinite(p):
        return NOTHING
    text = "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return "< 0.05" if p < 0.05 and text == "0.050" else text


def compact(value: float | None) -> str:
    """Write a large count: `1.2 M`, `340 k`."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Write a device time: `0.8 s`, `40 s`, `12 min`, `3.5 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    return format_short_duration(seconds)


def tried(value: Any) -> str:
    """Write a value that a search tried, short: three digits of a number, a block with its settings."""
    if isinstance(value, dict):
        rest = ", ".join(f"{name} {tried(v)}" for name, v in value.items() if name != "name")
        return f"{value.get('name', '')}{f' ({rest})' if rest else ''}".strip()
    return f"{value:.3g}".replace("e-0", "e-") if isinstance(value, float) else level(value)


def level(value: Any) -> str:
    """Write a level as an axis or a cell shows it: a scalar, a block by its name, or several paths with their values."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        name = value.get("name")
        rest = [f"{str(k).rpartition('.')[2]}={level(v)}" for k, v in value.items() if k != "name"]
        return f"{name} ({', '.join(rest)})" if name and rest else str(name) if name else ", ".join(rest)
    if isinstance(value, list | tuple):
        return ", ".join(level(v) for v in value)
    return format_level(value, ("none",))


def fact(name: str, value: str) -> str:
    """Write a part of the environment: a time as a date, anything else as it is."""
    if name != "recorded":
        return str(value)
    with contextlib.suppress(ValueError, OverflowError):
        return f"{datetime.fromtimestamp(float(value), UTC):%Y-%m-%d %H:%M} UTC"
    return str(value)


def title(factor: str) -> str:
    """Write a factor as a heading: `optimizer.lr` → "Learning rate"."""
    leaf = factor.rpartition(".")[2]
    text = {"lr": "learning rate"}.get(leaf, leaf.replace("_", " "))
    return text[:1].upper() + text[1:]


def quantity(name: str) -> str:
    """Write what is recorded by epoch as a heading: `f1_macro` → "F1 macro"."""
    text = {"lr": "learning rate"}.get(name, name.replace("_", " "))
    return text[:1].upper() + text[1:]


def verb(n: int, one: str, many: str) -> str:
    """Return the form of a verb that goes with a number."""
    return one if n == 1 else many


def seeds(numbers: Iterable[int]) -> str:
    """Write seeds, neighbours drawn together: `seed 4`, `seeds 5 to 9`, `seeds 0, 2 and 5 to 9`."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = [
        text
        for run in runs
        for text in ([str(n) for n in run] if len(run) < 3 else [f"{run[0]} to {run[-1]}"])
    ]
    return f"{'seed' if sum(map(len, runs)) == 1 else 'seeds'} {joined(parts)}"


RANKING = (
    "A ranking of settings by how much the metric varies with them over the trials of the search: rank (share). It depends on "
    "the ranges and on which values the search tried, and is no verdict."
)
