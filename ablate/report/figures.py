"""The figures of a report: dataclasses of the summary in, figures as plotly.js reads them out.

Every colour comes from the palette, in its light form; the page swaps each for its twin on dark screens. Names are
escaped, because plotly reads a little markup in every text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ablate.report import figure_parts, palette, wording
from ablate.report.contents import (
    GROUPS,
    ArmCurves,
    Axis,
    ClassShift,
    Confusion,
    Cost,
    Crossing,
    Curves,
    Front,
    Interactions,
    Interval,
    Level,
    Line,
    Response,
    Row,
    SettingResponse,
)
from ablate.report.figure_parts import Figure
from ablate.report.palette import (
    BETTER,
    FAINT,
    GROUND,
    INK,
    MUTED,
    NEUTRALS,
    SHARE,
    WORSE,
    fade,
    mark,
)
from ablate.report.scales import reach
from ablate.text import counted, joined, measured

OVERLAID = 3
"""Up to this many arms share one figure with their reference; more get a figure each."""

MOST_NAMED = 12
"""Points that can carry their name without covering each other."""

MOST_WRITTEN = 12
"""Classes up to which a cell of a matrix has room for its number."""

LEVEL_LINES = ((MUTED, "solid"), (NEUTRALS[0], "solid"), (NEUTRALS[2], "5px,4px"), (NEUTRALS[1], "dot"))
"""Colour and dash of the lines of a factor's levels, the baseline's first: no verdict is about a level alone."""


def forest(axis: Axis, rows: Sequence[Row]) -> Figure:
    """Draw every arm's effect with its interval, against zero and the margin. An arrow: it runs off the scale."""
    shown = [row for row in rows if row.kind != "baseline" and row.interval.estimate is not None]
    # By verdict, the largest effects first, as in the list of verdicts.
    places = {verdict: i for i, (*_, verdicts) in enumerate(GROUPS) for verdict in verdicts}
    shown.sort(
        key=lambda row: (places.get(row.interval.verdict, len(places)), -abs(row.interval.estimate or 0.0))
    )
    names = [_wrap(row.label) for row in shown]
    traces: list[Any] = []
    layout_notes: list[dict[str, Any]] = []
    for row, y in zip(shown, range(len(shown)), strict=True):
        interval, sign = row.interval, mark(row.interval.verdict)
        lo, hi = interval.lo, interval.hi
        assert interval.estimate is not None
        hover = _hover_of(row, axis)
        if interval.images_lo is not None and interval.images_hi is not None:
            ends = [_within(e, axis) for e in (interval.images_lo, interval.images_hi)]
            traces.append(_segment(ends, y, sign.colour, 1.0, dash="dot"))
        if lo is not None and hi is not None:
            dash = "dash" if interval.verdict == "inconclusive" else "solid"
            traces.append(_segment([_within(lo, axis), _within(hi, axis)], y, sign.colour, 2.5, dash=dash))
        if not axis.low <= interval.estimate <= axis.high:
            layout_notes.append(_beyond(interval, axis, y, sign.colour))
        traces.append(
            figure_parts.scatter(
                visible=axis.low <= interval.estimate <= axis.high,
                x=[_within(interval.estimate, axis)],
                y=[y],
                mode="markers",
                marker={
                    "symbol": sign.symbol,
                    "size": 11,
                    "color": sign.colour,
                    "line": {"width": 1.5, "color": sign.colour},
                },
                hovertemplate="%{customdata}<extra></extra>",
                customdata=[hover],
                showlegend=False,
            )
        )
        ends = [e for e in (lo, interval.estimate, hi) if e is not None]
        for off, symbol, edge in (
            (min(ends) < axis.low, "triangle-left", axis.low),
            (max(ends) > axis.high, "triangle-right", axis.high),
        ):
            if off:
                traces.append(
                    figure_parts.scatter(
                        x=[edge],
                        y=[y],
                        mode="markers",
                        cliponaxis=False,
                        marker={"symbol": symbol, "size": 9, "color": sign.colour},
                        hovertemplate="%{customdata}<extra></extra>",
                        customdata=[hover],
                        showlegend=False,
                    )
                )
    # Rows are equally high: each has room for the longest name.
    layout = figure_parts.layout(
        80 + len(shown) * (28 + 12 * max((name.count("<br>") for name in names), default=0))
    )
    unit = f"effect, {axis.unit}" if axis.unit else "effect"
    figure_parts.axis(
        layout,
        "xaxis",
        f"{unit} (right of 0 is better)",
        range=[axis.low, axis.high],
        tickvals=list(axis.ticks),
        ticktext=[_tick(t, axis.ticks) for t in axis.ticks],
    )
    _names(layout, names)
    layout["yaxis"]["fixedrange"] = True
    layout["shapes"] = [
        _rectangle(x0=-axis.margin, x1=axis.margin, y0=0, y1=1, xref="x", yref="paper"),
        {
            "type": "line",
            "x0": 0,
            "x1": 0,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": MUTED, "width": 1.2},
        },
    ]
    layout["annotations"] = layout_notes
    return figure_parts.figure(traces, layout)


def response(data: Response) -> Figure:
    """Draw the metric at every level, a dot per seed. Named levels stand below each other, numbers along an axis."""
    along = data.scale != "named"
    places: list[Any] = [level.x if along else i for i, level in enumerate(data.levels)]
    value_title = _titled(data.metric, data.unit)
    dots: tuple[list[Any], list[float], list[str]] = ([], [], [])
    for place, level in zip(places, data.levels, strict=True):
        for seed, value in level.dots:
            dots[0].append(_dot_place(place, data))
            dots[1].append(value)
            which = f", {data.dots_are} {seed}" if data.dots_are == "seed" else ""
            dots[2].append(f"{figure_parts.text(level.label)}{which}: {_number(value, data)}")
    means = [(p, level) for p, level in zip(places, data.levels, strict=True) if level.mean is not None]

    def scatter(where: Iterable[Any], values: Iterable[Any], **more: Any) -> Any:
        x, y = (list(where), list(values)) if along else (list(values), list(where))
        return figure_parts.scatter(x=x, y=y, showlegend=False, **more)

    hovered = {"hovertemplate": "%{customdata}<extra></extra>"}
    traces = []
    if along:
        line = {"color": fade(INK, 0.55), "width": 1.5}
        traces.append(
            scatter(
                [p for p, _ in means], [m.mean for _, m in means], mode="lines", line=line, hoverinfo="skip"
            )
        )
    traces.append(
        scatter(
            dots[0],
            dots[1],
            mode="markers",
            marker={"size": 7, "color": fade(INK, 0.28), "line": {"width": 1, "color": fade(INK, 0.45)}},
            customdata=dots[2],
            **hovered,
        )
    )
    traces.append(
        scatter(
            [p for p, _ in means],
            [level.mean for _, level in means],
            mode="markers",
            marker={
                "size": 12,
                "symbol": [mark(level.verdict).symbol for _, level in means],
                "color": [mark(level.verdict).colour for _, level in means],
                "line": {"width": 2, "color": [mark(level.verdict).colour for _, level in means]},
            },
            customdata=[_level_hover(level, data) for _, level in means],
            **hovered,
        )
    )
    notes = [f"<br>{figure_parts.text(level.trouble)}" if level.trouble else "" for level in data.levels]
    names = [_wrap(level.text) + note for level, note in zip(data.levels, notes, strict=True)]
    layout = figure_parts.layout(
        340 if along else 90 + 36 * len(names) + 12 * sum(name.count("<br>") for name in names)
    )
    ends = [v for _, level in means for v in (level.mean, *(d for _, d in level.dots)) if v is not None]
    ends += data.band or ()
    pad = 0.06 * (max(ends) - min(ends)) or 1e-9
    shown = {"range": [min(ends) - pad, max(ends) + pad]}
    if along:
        many = len(names) > MOST_NAMED
        labels: dict[str, Any] = {} if many else {"tickvals": places, "ticktext": names}
        if len(means) < len(places):
            # Levels of which every run failed or diverged have no mark: the axis would end before them.
            at = [math.log10(p) if data.scale == "log" else p for p in places]
            margin = 0.08 * (max(at) - min(at))
            labels["range"] = [min(at) - margin, max(at) + margin]
        figure_parts.axis(
            layout,
            "xaxis",
            _scaled(figure_parts.short(data.title, 60), data.scale),
            type=data.scale,
            **labels,
        )
        figure_parts.axis(layout, "yaxis", value_title, **shown)
    else:
        figure_parts.axis(layout, "xaxis", value_title, **shown)
        _names(layout, names)
    if data.band:
        low, high = data.band
        across = {"y0": low, "y1": high, "x0": 0, "x1": 1, "xref": "paper", "yref": "y"}
        down = {"x0": low, "x1": high, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
        layout["shapes"] = [_rectangle(**(across if along else down))]
    return figure_parts.figure(traces, layout)


def setting_response(data: SettingResponse) -> Figure:
    """Draw the metric over a setting that was tuned: a dot per trial, a ring per re-evaluation, a line at the chosen value."""
    traces = []
    for again, symbol in ((False, "circle"), (True, "circle-open")):
        points = [(x, y) for x, y, second in data.points if second == again]
        if points:
            traces.append(
                figure_parts.scatter(
                    x=figure_parts.rounded(x for x, _ in points),
                    y=figure_parts.rounded(y for _, y in points),
                    mode="markers",
                    marker={
                        "size": 13 if again else 8,
                        "symbol": symbol,
                        "color": INK if again else fade(INK, 0.55),
                    },
                    customdata=[
                        f"{data.setting} {x:.3g}: {wording.plain(y, data.digits)} {data.unit}".strip()
                        for x, y in points
                    ],
                    hovertemplate="%{customdata}<extra></extra>",
                    showlegend=False,
                )
            )
    layout = figure_parts.layout(260)
    low, high = (math.log10(end) if data.scale == "log" else end for end in data.ends)
    room = 0.03 * (high - low)
    ticks = {"dtick": 1, "exponentformat": "e"} if data.scale == "log" and high - low > 2 else {}
    extent = {"range": [low - room, high + room]}
    figure_parts.axis(
        layout,
        "xaxis",
        _scaled(figure_parts.short(data.setting, 60), data.scale),
        type=data.scale,
        **extent,
        **ticks,
    )
    figure_parts.axis(layout, "yaxis", _titled(data.metric, data.unit))
    line = {"color": fade(INK, 0.55), "width": 1.5, "dash": "dot"}
    across = {"x0": data.chosen, "x1": data.chosen, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    layout["shapes"] = [{"type": "line", "line": line} | across]
    return figure_parts.figure(traces, layout)


def pareto(data: Front) -> Figure:
    """Draw the metric of trials against their cost: the front that no other trial beats in both, and its candidates."""
    trials = [p for p in data.points if p.candidate is None]
    front = sorted({(p.cost, p.value) for p in trials if p.front})
    traces = [
        figure_parts.scatter(
            x=[cost for cost, _ in front],
            y=figure_parts.rounded(value for _, value in front),
            mode="lines",
            line={"color": fade(INK, 0.6), "width": 1.5, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        )
    ]
    for name, points, marker in (
        ("a trial", [p for p in trials if not p.front], {"size": 7, "color": fade(MUTED, 0.6)}),
        ("on the front", [p for p in trials if p.front], {"size": 9, "color": INK}),
        (
            "a candidate, re-evaluated",
            [p for p in data.points if p.candidate is not None],
            {"size": 15, "symbol": "circle-open", "color": INK, "line": {"width": 1.8}},
        ),
    ):
        if points:
            traces.append(
                figure_parts.scatter(
                    x=[p.cost for p in points],
                    y=figure_parts.rounded(p.value for p in points),
                    mode="markers+text" if points[0].candidate is not None else "markers",
                    text=[str(p.candidate) for p in points] if points[0].candidate is not None else None,
                    textposition="bottom right",
                    textfont={"size": 11, "color": INK},
                    marker=marker,
                    cliponaxis=False,
                    name=name,
                    customdata=[
                        f"{_wrap(p.words, 60)}<br>{wording.plain(p.value, data.digits)} {data.unit} at {wording.compact(p.cost)}"
                        for p in points
                    ],
                    hovertemplate="%{customdata}<extra></extra>",
                )
            )
    layout = figure_parts.layout(380)
    costs = [p.cost for p in data.points]
    if min(costs) > 0 and max(costs) > 4 * min(costs):
        ends = math.log10(min(costs)), math.log10(max(costs))
        room = 0.06 * (ends[1] - ends[0])
        ticks = [t for t in _powers(ends) if ends[0] - room <= math.log10(t) <= ends[1] + room]
        axis: dict[str, Any] = {
            "type": "log",
            "range": [ends[0] - room, ends[1] + room],
            "tickvals": ticks,
            "ticktext": [wording.compact(t) for t in ticks],
        }
    else:
        axis = {"tickformat": ".3~s"}
    figure_parts.axis(layout, "xaxis", _scaled(data.cost, axis.get("type", "")), **axis)
    figure_parts.axis(layout, "yaxis", _titled(data.metric, data.unit))
    return figure_parts.figure(traces, layout)


def crossing(data: Crossing) -> Figure:
    """Draw how two factors act together: the metric over the levels of one, a line for each level of the other. Parallel: they don't."""
    traces = [
        figure_parts.scatter(
            x=list(range(len(data.across))),
            y=figure_parts.rounded(math.nan if v is None else v for v in line),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 8, "color": colour},
            name=figure_parts.short(name),
            customdata=[f"{figure_parts.text(name)}, {figure_parts.text(level)}" for level in data.across],
            hovertemplate=f"%{{customdata}}: %{{y:.4~g}}{f' {data.unit}' if data.unit else ''}<extra></extra>",
        )
        for (name, line), (colour, dash) in zip(data.lines, LEVEL_LINES, strict=False)
    ]
    layout = figure_parts.layout(250)
    last = len(data.across) - 1
    figure_parts.axis(
        layout,
        "xaxis",
        figure_parts.short(data.factor, 40),
        tickvals=list(range(last + 1)),
        ticktext=[figure_parts.short(level, 16) for level in data.across],
        range=[-0.25, last + 0.25],
        showgrid=False,
    )
    figure_parts.axis(layout, "yaxis", _titled(data.metric, data.unit), nticks=5)
    layout["legend"] |= {
        "title": {"text": figure_parts.short(data.other, 40), "font": {"color": MUTED, "size": 11}}
    }
    return figure_parts.figure(traces, layout)


def curves(data: Curves) -> list[tuple[str, Figure]]:
    """Return (title, figure): all arms in one where they are few, otherwise one each.

    Training dashed, validation solid. An arm has the colour of its verdict, the reference is grey.
    """
    if len(data.arms) <= OVERLAID:
        colours = palette.lines([arm.verdict for arm in data.arms])
        coloured = list(zip(data.arms, colours, strict=True))
        return [("", _curves(data, coloured, legend=True, height=340))]
    return [
        (
            arm.label,
            _curves(data, [(arm, palette.lines([arm.verdict])[0])], legend=False, height=230),
        )
        for arm in data.arms
    ]


def costs(points: Sequence[Cost], basis: str, metric: str, unit: str, digits: int) -> Figure:
    """Draw the metric of arms against their cost, and the front that no other arm beats on both."""
    low, high = _level_range(points)
    inside = [p for p in points if low <= p.mean <= high]
    front = sorted((p for p in inside if p.best), key=lambda p: p.cost)
    traces = [
        figure_parts.scatter(
            x=[p.cost for p in front],
            y=[p.mean for p in front],
            mode="lines",
            line={"color": fade(INK, 0.5), "width": 1.5, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        ),
        figure_parts.scatter(
            x=[p.cost for p in points],
            y=[min(max(p.mean, low), high) for p in points],
            mode="markers",
            cliponaxis=False,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [p.high - p.mean if p in inside else 0.0 for p in points],
                "arrayminus": [p.mean - p.low if p in inside else 0.0 for p in points],
                "color": fade(INK, 0.3),
                "thickness": 1.2,
                "width": 0,
            },
            marker={
                "size": 11,
                "symbol": [mark(p.verdict).symbol for p in points],
                "color": [mark(p.verdict).colour for p in points],
                "line": {"width": 1.5, "color": [mark(p.verdict).colour for p in points]},
            },
            customdata=[
                f"{figure_parts.text(p.label)}<br>{wording.plain(p.mean, digits)} {unit} at {wording.ratio(p.cost)}"
                for p in points
            ],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        ),
    ]
    layout = figure_parts.layout(400)
    ratios = [p.cost for p in points]
    if _is_wide(points):
        ends = math.log10(min(ratios)), math.log10(max(ratios))
        pad = 0.12 * (ends[1] - ends[0])
        ticks = [t for t in _powers(ends) if ends[0] - pad <= math.log10(t) <= ends[1] + pad]
        axis = {
            "type": "log",
            "range": [ends[0] - pad, ends[1] + pad],
            "tickvals": ticks,
            "ticktext": [f"{t:g}×" for t in ticks],
        }
    else:
        axis = {"ticksuffix": "×"}
    figure_parts.axis(
        layout, "xaxis", _scaled(f"{basis} against the baseline", str(axis.get("type", ""))), **axis
    )
    figure_parts.axis(
        layout, "yaxis", _titled(metric, unit), range=[low - 0.04 * (high - low), high + 0.08 * (high - low)]
    )
    layout["annotations"] = _captions(points, low, high, unit, digits)
    return figure_parts.figure(traces, layout)


def interactions(data: Interactions) -> Figure:
    """Draw estimated effects of a factorial design: main effects on the diagonal, interactions off it."""
    largest = max((abs(v) for row in data.estimates for v in row if v is not None), default=1.0)
    return _heatmap(
        [[math.nan if v is None else v for v in row] for row in data.estimates],
        data.terms,
        data.terms,
        ("", ""),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[["" if v is None else wording.signed(v, data.digits) for v in row] for row in data.estimates],
        unit=data.unit,
    )


def confusion(data: Confusion) -> Figure:
    """Draw how the images of each class are classified, in percent of the class."""
    return _heatmap(
        data.shares,
        data.classes,
        data.classes,
        ("predicted", "true"),
        scale=[[0.0, GROUND], [1.0, SHARE]],
        limits=(0.0, 100.0),
        texts=[[f"{v:.0f}" if v >= 0.5 else "" for v in row] for row in data.shares],
        unit="%",
    )


def shift(data: ClassShift, classes: Sequence[str]) -> Figure:
    """Draw an arm's confusion matrix minus the reference's, in points of each class.

    Blue is better, as everywhere: more on the diagonal, less off it.
    """
    largest = max((abs(v) for row in data.difference for v in row), default=0.0) or 1.0
    better = [
        [v if row == column else -v for column, v in enumerate(values)]
        for row, values in enumerate(data.difference)
    ]
    return _heatmap(
        data.difference,
        classes,
        classes,
        ("predicted", "true"),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[[wording.signed(v, 0) if abs(v) >= 0.5 else "" for v in row] for row in data.difference],
        unit="points",
        colours=better,
    )


def per_class(data: Confusion) -> Figure:
    """Draw what each arm adds to the accuracy on each class, in points; – where a class has no test image."""
    has_images = [any(row) for row in data.shares]
    table = [[arm.difference[i][i] for i in range(len(data.classes))] for arm in data.arms]
    largest = max((abs(v) for row in table for v in row), default=0.0) or 1.0
    return _heatmap(
        table,
        data.classes,
        [arm.label for arm in data.arms],
        ("class", ""),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[
            [wording.signed(v, 1) if there else "–" for v, there in zip(row, has_images, strict=True)]
            for row in table
        ],
        unit="points",
        row_height=30,
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def _names(layout: dict[str, Any], names: Sequence[str], title: str = "") -> None:
    """An axis of names, from top to bottom."""
    figure_parts.axis(
        layout,
        "yaxis",
        title,
        tickvals=list(range(len(names))),
        ticktext=list(names),
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        showline=False,
        ticks="",
        ticklabelstandoff=8,
        tickfont={"color": INK},
    )


def _curves(data: Curves, arms: list[tuple[ArmCurves, str]], *, legend: bool, height: int) -> Figure:
    drawn = ([(data.reference, MUTED)] if data.reference else []) + arms
    traces: list[Any] = []
    layout = figure_parts.layout(height)
    for arm, colour in drawn:
        # No more than four bands over each other: of several arms those of validation alone.
        bands = [
            line for line in arm.lines if len(drawn) <= 2 or line.split != "train" or len(arm.lines) == 1
        ]
        traces += [_band(line, colour) for line in bands]
    for group, (arm, colour) in enumerate(drawn):
        named = False
        for line in reversed(arm.lines):
            split = f", {line.split}" if line.split else ""
            traces.append(
                figure_parts.scatter(
                    x=list(line.epochs),
                    y=figure_parts.rounded(line.mean),
                    mode="lines" if len(line.epochs) > 1 else "markers",
                    line={
                        "color": colour,
                        "width": 1.4 if line.split == "train" else 2.2,
                        "dash": _dash(line),
                    },
                    name=figure_parts.short(arm.label),
                    legendgroup=str(group),
                    showlegend=legend and not named,
                    # The name goes in as data: in the template, plotly would read what looks like a variable in it.
                    customdata=[f"{figure_parts.text(arm.label)}{split} ({counted(line.seeds, 'seed')})"]
                    * len(line.epochs),
                    hovertemplate=f"%{{y:.4~g}}{data.unit} %{{customdata}}<extra></extra>",
                )
            )
            named = True
        traces += _overfit(arm, colour)
        if not legend and arm.overfits:
            layout.setdefault("annotations", []).append(
                {
                    "x": arm.overfits,
                    "y": 1,
                    "yref": "paper",
                    "yanchor": "top",
                    "xanchor": "right"
                    if arm.overfits > max(line.epochs[-1] for line in arm.lines) / 2
                    else "left",
                    "text": f"over-fits from {arm.overfits}" if colour != MUTED else "",
                    "showarrow": False,
                    "font": {"size": 11, "color": colour},
                }
            )
    layout["hovermode"] = "x unified"
    last = max((line.epochs[-1] for arm, _ in drawn for line in arm.lines if line.epochs), default=1)
    # Left to itself plotly marks half epochs on a short axis, and writes them as whole ones.
    ticks: dict[str, Any] = {"dtick": 1} if last <= 8 else {"nticks": 8}
    figure_parts.axis(layout, "xaxis", "epoch", tickformat="d", **ticks)
    title = f"{figure_parts.short(data.quantity)}{', %' if data.unit == '%' else ''}"
    if data.log:
        figure_parts.axis(
            layout,
            "yaxis",
            f"{title} (log scale)",
            type="log",
            range=[math.log10(data.low), math.log10(data.high)],
            dtick=1,
        )
    else:
        figure_parts.axis(layout, "yaxis", title, range=[data.low, data.high])
    if not legend:
        layout["margin"] = {"l": 36, "r": 12, "t": 8, "b": 40}
    return figure_parts.figure(traces, layout)


def _band(line: Line, colour: str) -> Any:
    """From the lowest seed to the highest."""
    return figure_parts.scatter(
        x=[*line.epochs, *reversed(line.epochs)],
        y=figure_parts.rounded([*line.high, *reversed(line.low)]),
        mode="none",
        fill="toself",
        fillcolor=fade(colour, 0.10 if line.split == "train" else 0.18),
        hoverinfo="skip",
        showlegend=False,
    )


def _dash(line: Line) -> str:
    return "5px,4px" if line.split == "train" else "solid"


def _overfit(arm: ArmCurves, colour: str) -> list[Any]:
    """Return a ring on the validation curve where over-fitting begins."""
    for line in arm.lines:
        if line.split == "validation" and arm.overfits in line.epochs:
            at = line.epochs.index(arm.overfits)
            return [
                figure_parts.scatter(
                    x=[arm.overfits],
                    y=figure_parts.rounded([line.mean[at]]),
                    mode="markers",
                    marker={
                        "symbol": "circle-open",
                        "size": 11,
                        "color": colour,
                        "line": {"width": 2, "color": colour},
                    },
                    customdata=[f"{figure_parts.text(arm.label)} over-fits from here"],
                    hovertemplate="%{customdata}<extra></extra>",
                    showlegend=False,
                )
            ]
    return []


def _heatmap(
    values: Sequence[Sequence[float]],
    columns: Sequence[str],
    rows: Sequence[str],
    titles: tuple[str, str],
    *,
    scale: list[list[Any]],
    limits: tuple[float, float],
    texts: list[list[str]],
    unit: str,
    row_height: int = 34,
    colours: Sequence[Sequence[float]] | None = None,
) -> Figure:
    """Return a table in colours. values: to show; colours: what each is coloured by, where that is not the value itself."""
    written = len(columns) <= MOST_WRITTEN
    row_texts, column_texts = (list(map(figure_parts.text, names)) for names in (rows, columns))
    arrow = " → " if titles[1] else ", "
    trace = figure_parts.trace(
        "heatmap",
        z=figure_parts.rounded_rows(colours or values),
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        zmin=limits[0],
        zmax=limits[1],
        colorscale=scale,
        showscale=not written,
        colorbar={"thickness": 10, "outlinewidth": 0, "tickfont": {"color": MUTED}} if not written else None,
        xgap=2,
        ygap=2,
        text=texts,
        texttemplate="%{text}" if written else None,
        textfont={"size": 11, "color": INK},
        customdata=[
            [
                f"{row}{arrow}{column}: {wording.plain(value, 2)} {unit}"
                for column, value in zip(column_texts, line, strict=True)
            ]
            for row, line in zip(row_texts, values, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )
    names = [_wrap(row) for row in rows]
    row_height += 14 * max((name.count("<br>") for name in names), default=0)
    layout = figure_parts.layout(110 + (row_height if written else 14) * len(rows))
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    figure_parts.axis(
        layout,
        "xaxis",
        titles[0],
        tickvals=list(range(len(columns))),
        ticktext=[_wrap(c, 14) for c in columns],
        **bare,
    )
    _names(layout, names, titles[1])
    return figure_parts.figure([trace], layout)


def _diverging() -> list[list[Any]]:
    return [[0.0, WORSE], [0.5, GROUND], [1.0, BETTER]]


def _beyond(interval: Interval, axis: Axis, y: int, colour: str) -> dict[str, Any]:
    """Return an effect that is off the scale, as a number at its edge; above the line where the interval crosses it."""
    assert interval.estimate is not None
    left = interval.estimate < axis.low
    near = interval.hi if left else interval.lo
    return {
        "x": axis.low if left else axis.high,
        "y": y,
        "text": wording.signed(interval.estimate, axis.digits),
        "showarrow": False,
        "xanchor": "left" if left else "right",
        "xshift": 8 if left else -8,
        "yshift": 9 if near is not None and axis.low < near < axis.high else 0,
        "font": {"size": 11, "color": colour},
    }


def _segment(ends: Sequence[float], y: int, colour: str, width: float, *, dash: str) -> Any:
    return figure_parts.scatter(
        x=list(ends),
        y=[y, y],
        mode="lines",
        line={"color": colour, "width": width, "dash": "5px,4px" if dash == "dash" else dash},
        hoverinfo="skip",
        showlegend=False,
    )


def _rectangle(**corners: Any) -> dict[str, Any]:
    """Return the band of the margin."""
    return {"type": "rect", "layer": "below", "fillcolor": fade(FAINT, 0.45), "line": {"width": 0}} | corners


def _within(value: float, axis: Axis) -> float:
    return min(max(value, axis.low), axis.high)


def _hover_of(row: Row, axis: Axis) -> str:
    interval = row.interval
    lines = [f"<b>{figure_parts.text(row.label)}</b>: {figure_parts.text(row.verdict)}"]
    lines.append(measured(wording.signed(interval.estimate, axis.digits), axis.unit))
    if interval.lo is not None:
        lines[-1] += (
            f" ({wording.span(interval.lo, interval.hi, axis.digits)}), adjusted p {wording.p_value(row.p)}"
        )
    if interval.images_lo is not None:
        lines.append(f"for new images {wording.span(interval.images_lo, interval.images_hi, axis.digits)}")
    lines.append(counted(row.n, "seed"))
    return "<br>".join(line.replace("< 0", "&lt; 0") for line in lines)


def _level_hover(level: Level, data: Response) -> str:
    text = f"<b>{figure_parts.text(level.label)}</b>: mean {_number(level.mean, data)} over {counted(len(level.dots), 'seed')}"
    return f"{text}<br>{figure_parts.text(level.trouble)}" if level.trouble else text


def _number(value: float | None, data: Response) -> str:
    return measured(wording.plain(value, data.digits), data.unit)


def _dot_place(place: Any, data: Response) -> Any:
    """Return where the dots of a level are drawn: just after its mark, which would cover them."""
    if data.scale == "named":
        return place + 0.26
    places = [level.x for level in data.levels if level.x is not None]
    if data.scale == "log":
        return place * (max(places) / min(places)) ** 0.018
    return place + 0.018 * (max(places) - min(places))


def _level_range(points: Sequence[Cost]) -> tuple[float, float]:
    """Values to show, without those so far from the baseline that the others would be one line."""
    base = next((p.mean for p in points if p.verdict is None), points[0].mean)
    limit = reach((max(abs(p.high - base), abs(p.low - base)) for p in points), 0.0)
    inside = [e for p in points for e in (p.low, p.high) if abs(p.mean - base) <= limit] or [base]
    if min(inside) == max(inside):  # one line all the same, on which what is left out would be drawn
        inside = [e for p in points for e in (p.low, p.high)]
    return min(inside), max(inside)


def _powers(ends: tuple[float, float]) -> list[float]:
    """Round costs for the ticks of an axis with these logarithms at its ends."""
    powers = range(math.floor(ends[0]) - 1, math.ceil(ends[1]) + 2)
    steps = (1,) if ends[1] - ends[0] > 3 else (1, 2, 5)
    return [step * 10.0**power for power in powers for step in steps]


def _captions(
    points: Sequence[Cost], low: float, high: float, unit: str, digits: int
) -> list[dict[str, Any]]:
    """Names of the points. Neighbouring points share one, and a point off the scale has its value in it."""
    width = math.log10(max(p.cost for p in points) / min(p.cost for p in points)) or 1.0
    groups: list[list[Cost]] = []
    for point in sorted(points, key=lambda p: -p.mean):
        near = next(
            (
                group
                for group in groups
                if abs(math.log10(group[-1].cost / point.cost)) < 0.14 * width
                and (group[-1].mean - point.mean <= 0.09 * (high - low) or group[-1].mean < low)
                and (group[-1].mean < low) == (point.mean < low)
            ),
            None,
        )
        if near is None:
            groups.append([point])
        else:
            near.append(point)
    captions = []
    least, most = min(p.cost for p in points), max(p.cost for p in points)
    middle = math.sqrt(least * most) if _is_wide(points) else (least + most) / 2
    for group in groups:
        # Beside the line that reaches from the lowest seed to the highest, on the side where there is room.
        before = group[0].cost > middle
        off = not low <= group[0].mean <= high
        number = f"{wording.plain(group[0].mean, digits)}\u00a0{unit}".rstrip("\u00a0")
        value = f" ({number})" if off and len(group) == 1 else ""
        names = [p.label.replace(" ", "\u00a0") for p in group]
        text = joined(names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} others"])
        captions.append(
            {
                "x": math.log10(group[0].cost) if _is_wide(points) else group[0].cost,
                "y": min(max(low, group[0].mean), high),
                "text": _wrap(text + value, 40),
                "name": "caption",  # the page wraps these where it is narrow
                "align": "right" if before else "left",
                "showarrow": False,
                "xanchor": "right" if before else "left",
                "xshift": -9 if before else 9,
                "yanchor": "bottom",
                "font": {"size": 11, "color": MUTED},
            }
        )
    return captions


def _is_wide(points: Sequence[Cost]) -> bool:
    """Costs so far apart that their axis is logarithmic."""
    return max(p.cost for p in points) > 4 * min(p.cost for p in points)


def _scaled(title: str, scale: str) -> str:
    """Return the title of an axis, which says so where it is logarithmic."""
    return f"{title} (log scale)" if scale == "log" else title


def _titled(metric: str, unit: str) -> str:
    return f"{figure_parts.short(metric)}, {unit}" if unit else figure_parts.short(metric)


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    return wording.signed(value, max(0, -math.floor(math.log10(step) + 1e-9)))


def _wrap(name: str, width: int = 26) -> str:
    """Return a name broken into lines of about `width`, at spaces or commas; of three lines at most."""
    lines = [""]
    for word in name.replace(",", ", ").split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip(" ")
    if len(lines) > 3:
        lines = [*lines[:2], f"{lines[2]} …"]
    return "<br>".join(figure_parts.short(line, width + 2) for line in lines)
