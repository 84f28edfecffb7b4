"""The small drawings beside a verdict: its interval, the scale of all intervals, and its curves. Plain SVG, seen without a script.

Colours come from the style sheet, by class; every number is escaped or made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ablate.report import palette, scales, wording
from ablate.report.contents import ArmCurves, Axis, FindingGroup, Interval, Line, Summary
from ablate.text import counted, measured, shown

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 320, 28
"""Of a small interval, in its own units; it is as wide as its place."""

CURVE_WIDTH, CURVE_HEIGHT, GUTTER = 240, 84, 34
"""Of a small curve, in its own units. GUTTER: left of the curves, for the numbers of the scale."""

MOST_POINTS = 36
"""Points of a small curve: more than its width shows."""

MOST_CURVES = 120
"""Findings with a small curve; a page of thousands of arms has room for no more."""


def interval_svg(interval: Interval, axis: Axis) -> Markup:
    """Draw a small picture of an effect with its interval, against zero and the margin. Colours come from the style sheet."""
    tone = palette.mark(interval.verdict).tone
    text = "no effect to show"
    parts = [_ground(axis)]
    if interval.estimate is not None:
        text = measured(wording.signed(interval.estimate, axis.digits), axis.unit)
        middle = HEIGHT / 2
        if interval.images_lo is not None and interval.images_hi is not None:
            said_images = (_place(interval.images_lo, axis), _place(interval.images_hi, axis))
            parts.append(_line(*said_images, middle, "images"))
        if interval.lo is not None and interval.hi is not None:
            text += f", {wording.span(interval.lo, interval.hi, axis.digits)}"
            parts.append(_line(_place(interval.lo, axis), _place(interval.hi, axis), middle, "span"))
            for end in (interval.lo, interval.hi):
                x = _place(end, axis)
                if axis.low <= end <= axis.high:
                    parts.append(f'<path class="span" d="M{x:.1f} {middle - 5}v10"/>')
                else:
                    outwards = -1 if end < axis.low else 1
                    parts.append(
                        f'<path class="arrow" d="M{x + 7 * outwards:.1f} {middle}L{x:.1f} {middle - 5}v10z"/>'
                    )
        if axis.low <= interval.estimate <= axis.high:
            parts.append(_symbol(tone, _place(interval.estimate, axis), middle))
        else:
            left = interval.estimate < axis.low
            text = wording.signed(interval.estimate, axis.digits)
            x, anchor = (16, "start") if left else (WIDTH - 16, "end")
            near = interval.hi if left else interval.lo
            is_crossed = near is not None and axis.low < near < axis.high
            # Above the line, where the interval reaches from there into the scale.
            y = middle - 5 if is_crossed else middle + 4
            parts.append(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>')
    return _svg(tone, text, parts, HEIGHT)


def axis_svg(axis: Axis) -> Markup:
    """Draw the scale that the small pictures share."""
    ticks = axis.ticks
    if len(ticks) > 5:
        ticks = tuple(t for i, t in enumerate(ticks) if (i - ticks.index(min(ticks, key=abs))) % 2 == 0)
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    digits = max(0, wording.decimals(step) - 1)
    parts = []
    for tick in ticks:
        x = _place(tick, axis)
        parts.append(f'<path class="tick" d="M{x:.1f} 16v4"/>')
        parts.append(f'<text x="{x:.1f}" y="11" text-anchor="middle">{wording.signed(tick, digits)}</text>')
    return _svg("axis", f"scale in {axis.unit}" if axis.unit else "scale", parts, 20)


class SmallCurves:
    """Small curves beside the findings: one quantity, on one scale for all arms.

    quantity: the loss where it is recorded, else what the study is judged by; empty where no arm has a curve. A finding without a
    curve of its own, such as an interaction, has no small one.
    """

    def __init__(self, summary: Summary) -> None:
        self.quantity = chosen_quantity(summary)
        self._of: dict[str, tuple[ArmCurves | None, ArmCurves]] = {}
        self._of_reference: dict[int, tuple[list[str], list[str]]] = {}
        shown: list[Line] = []
        self.unit = ""
        for section in summary.sections:
            for curves in section.curves:
                if curves.quantity == self.quantity:
                    self.unit = curves.unit
                    for arm in curves.arms:
                        self._of.setdefault(arm.arm, (curves.reference, arm))
                        shown += arm.lines
                    shown += curves.reference.lines if curves.reference else ()
        named = [finding.arm for group in summary.groups for finding in group.findings]
        self._of = {arm: self._of[arm] for arm in named[:MOST_CURVES] if arm in self._of}
        if not self._of:
            return
        self.low, self.high, self.log, _ = scales.extent(shown)
        self._ends = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        self.last = max(line.epochs[-1] for line in shown)
        self.first = min(line.epochs[0] for line in shown)
        self.splits = {line.split for line in shown}

    @property
    def draws(self) -> bool:
        """Whether any finding has a small curve."""
        return bool(self._of)

    @property
    def title(self) -> str:
        """What the column shows: "loss over 8 epochs, log scale"."""
        unit = ", %" if self.unit == "%" else ""
        return f"{self.quantity}{unit} over {counted(self.last, 'epoch')}{', log scale' if self.log else ''}"

    def draws_any(self, group: FindingGroup) -> bool:
        """Return whether a finding of the group has curves."""
        return any(finding.arm in self._of for finding in group.findings)

    def of(self, arm: str) -> Markup | None:
        """Draw the curves of an arm over those of its reference; None where it has none."""
        if arm not in self._of:
            return None
        reference, own = self._of[arm]
        parts = [*self._scale()]
        bands, lines = self._inside(own, "own")
        if reference is not None:
            # Many arms share it.
            if id(reference) not in self._of_reference:
                self._of_reference[id(reference)] = self._inside(reference, "base")
            bands, lines = (
                [*base, *its]
                for base, its in zip(self._of_reference[id(reference)], (bands, lines), strict=True)
            )
        inside = [*bands, *lines]
        # What lies beyond the scale is cut at its edge.
        width, height = CURVE_WIDTH - GUTTER, CURVE_HEIGHT
        parts.append(
            f'<svg x="{GUTTER}" y="0" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'overflow="hidden">{"".join(inside)}</svg>'
        )
        return _drawing(
            "curve",
            palette.mark(own.verdict).tone,
            self._label(reference, own),
            parts,
            CURVE_WIDTH,
            CURVE_HEIGHT,
        )

    def _inside(self, arm: ArmCurves, kind: str) -> tuple[list[str], list[str]]:
        """Return the bands of an arm's curves, which lie below all lines, and their lines."""
        bands = [
            f'<path class="{kind} band" d="{self._band(line)}"/>'
            for line in arm.lines
            if len(line.epochs) > 1 and (line.split != "train" or len(arm.lines) == 1)
        ]
        return bands, [self._line(line, kind) for line in arm.lines]

    def _line(self, line: Line, kind: str) -> str:
        if len(line.epochs) == 1:
            x, y = self._x(line.epochs[0]), self._y(line.mean[0])
            return f'<circle class="{kind} dot" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>'
        split = " train" if line.split == "train" else ""
        return f'<path class="{kind}{split} line" d="{self._path(_thin(line, line.mean))}"/>'

    def _label(self, reference: ArmCurves | None, own: ArmCurves) -> str:
        ends = [
            f"{arm.label} ends at {arm.lines[-1].mean[-1]:.3g}{self.unit}"
            for arm in (own, reference)
            if arm and arm.lines
        ]
        return f"{self.quantity} by epoch: {', '.join(ends)}"

    def _x(self, epoch: float) -> float:
        width = CURVE_WIDTH - GUTTER - 8
        return 4 + width * (epoch - self.first) / max(1, self.last - self.first)

    def _y(self, value: float) -> float:
        low, high = self._ends
        place = math.log10(value) if self.log and value > 0 else low if self.log else value
        # Far outside the drawing is as good as any place there, and keeps the numbers short.
        share = min(2.0, max(-1.0, (place - low) / ((high - low) or 1.0)))
        return 4 + (CURVE_HEIGHT - 8) * (1.0 - share)

    def _path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in points)

    def _band(self, line: Line) -> str:
        return self._path([*_thin(line, line.high), *reversed(_thin(line, line.low))]) + "z"

    def _scale(self) -> Iterable[str]:
        """A line and a number at two or three round values."""
        if self.log:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            ticks = [10.0**power for power in powers]
            ticks = ticks[:: max(1, math.ceil(len(ticks) / 3))]
        else:
            ticks = list(scales.round_numbers(self.low, self.high, 3))
        for tick in ticks:
            y = self._y(tick)
            yield f'<path class="tick" d="M{GUTTER} {y:.1f}H{CURVE_WIDTH}"/>'
            yield f'<text x="{GUTTER - 5}" y="{min(max(y + 4, 10), CURVE_HEIGHT - 1):.1f}" text-anchor="end">{_tick(tick)}</text>'


def chosen_quantity(summary: Summary) -> str:
    """Return what the small curves show: the loss, else the quantity of the primary metric, else nothing."""
    known = [curves.quantity for section in summary.sections for curves in section.curves]
    primary = summary.metric.rpartition("/")[2]
    wanted = (
        "loss",
        *(quantity for quantity in known if "loss" in quantity.lower()),
        primary,
        summary.metric,
    )
    return next((quantity for quantity in wanted if quantity in known), "")


def _tick(value: float) -> str:
    return (
        f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 0.001 else f"{value:g}".replace("-", "\u2212")
    )


def _thin(line: Line, values: Sequence[float]) -> list[tuple[float, float]]:
    last = len(line.epochs) - 1
    step = max(1, math.ceil((last + 1) / MOST_POINTS))
    return [(line.epochs[i], values[i]) for i in (*range(0, last, step), last)]


def _place(value: float, axis: Axis) -> float:
    """Return where a value is drawn in a small drawing, with room for an arrow at both ends."""
    inner = WIDTH - 20
    part = (min(max(value, axis.low), axis.high) - axis.low) / (axis.high - axis.low)
    return 10 + part * inner


def _ground(axis: Axis) -> str:
    left, right, zero = _place(-axis.margin, axis), _place(axis.margin, axis), _place(0.0, axis)
    return (
        f'<rect class="margin" x="{left:.1f}" y="0" width="{right - left:.1f}" height="{HEIGHT}"/>'
        f'<path class="zero" d="M{zero:.1f} 0V{HEIGHT}"/>'
    )


def _line(x0: float, x1: float, y: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{x0:.1f} {y}H{x1:.1f}"/>'


def _symbol(tone: str, x: float, y: float) -> str:
    """Return the mark of a verdict, the same as in the figures."""
    shape = {
        "helps": f"M{x:.1f} {y - 6}l6 11h-12z",
        "hurts": f"M{x:.1f} {y + 6}l6 -11h-12z",
        "none": f"M{x - 5:.1f} {y - 5}h10v10h-10z",
        "unstable": f"M{x - 5:.1f} {y - 5}l10 10m0 -10l-10 10",
        "void": f"M{x:.1f} {y - 6}l6 6l-6 6l-6 -6z",
    }.get(tone)
    if shape is None:
        return f'<circle class="mark" cx="{x:.1f}" cy="{y}" r="5"/>'
    return f'<path class="mark" d="{shape}"/>'


def _svg(tone: str, text: str, parts: Iterable[str], height: int) -> Markup:
    return _drawing("interval", tone, text, parts, WIDTH, height)


def _drawing(kind: str, tone: str, text: str, parts: Iterable[str], width: int, height: int) -> Markup:
    from markupsafe import Markup, escape

    opening = f'<svg class="{kind} tone-{tone}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(shown(text))}">'
    return Markup(f"{opening}{''.join(parts)}</svg>")  # noqa: S704 - made here of numbers and escaped text
