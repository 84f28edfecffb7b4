"""The figures of a report: dataclasses of the summary in, plotly figures out.

Every colour comes from the palette, in its light form; the page swaps each for its twin on dark screens. Names are
escaped, because plotly reads a little markup in every text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablate.report import palette, wording
from ablate.report.palette import BLUE, FAINT, GROUND, INK, MUTED, SKY, VERMILLION, fade, mark
from ablate.report.summary import (
    ArmCurves,
    Axis,
    ClassShift,
    Confusion,
    Cost,
    Curves,
    Interactions,
    Level,
    Line,
    Response,
    Row,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
OVERLAID = 3
"""So many arms share one figure with their reference; more stand beside each other, a figure each."""

MOST_NAMED = 12
"""Points that can carry their name without covering each other."""

MOST_WRITTEN = 12
"""Classes up to which a cell of a matrix has room for its number."""

CLEAR = "rgba(0,0,0,0)"


def forest(axis: Axis, rows: Sequence[Row]) -> go.Figure:
    """Every arm's effect with its interval, against nought and the margin. An arrow: it runs off the scale."""
    import plotly.graph_objects as go

    shown = [row for row in rows if row.kind != "baseline" and row.interval.estimate is not None]
    names = [_wrap(row.label) for row in shown]
    traces: list[Any] = []
    for row, y in zip(shown, range(len(shown)), strict=True):
        interval, sign = row.interval, mark(row.interval.verdict)
        lo, hi = interval.lo, interval.hi
        assert interval.estimate is not None
        hover = _hover_of(row, axis)
        if interval.images_lo is not None and interval.images_hi is not None:
            ends = [_within(e, axis) for e in (interval.images_lo, interval.images_hi)]
            traces.append(_segment(go, ends, y, sign.colour, 1.0, dash="dot"))
        if lo is not None and hi is not None:
            dash = "dash" if interval.verdict == "inconclusive" else "solid"
            traces.append(_segment(go, [_within(lo, axis), _within(hi, axis)], y, sign.colour, 2.5, dash=dash))
        traces.append(
            go.Scatter(
                x=[_within(interval.estimate, axis)],
                y=[y],
                mode="markers",
                marker={"symbol": sign.symbol, "size": 11, "color": sign.colour, "line": {"width": 1.5, "color": sign.colour}},
                hovertemplate="%{customdata}<extra></extra>",
                customdata=[hover],
                showlegend=False,
            )
        )
        for end, symbol, at in ((lo, "triangle-left", axis.low), (hi, "triangle-right", axis.high)):
            if end is not None and not axis.low <= end <= axis.high:
                traces.append(
                    go.Scatter(
                        x=[at],
                        y=[y],
                        mode="markers",
                        cliponaxis=False,
                        marker={"symbol": symbol, "size": 9, "color": sign.colour},
                        hovertemplate="%{customdata}<extra></extra>",
                        customdata=[hover],
                        showlegend=False,
                    )
                )
    title = f"effect, {axis.unit} (right of nought: better)" if axis.unit else "effect (right of nought: better)"
    layout = _layout(60 + 26 * len(shown) + 10 * sum("<br>" in n for n in names) + 30)
    layout["xaxis"] |= {"title": {"text": title}, "range": [axis.low, axis.high], "tickvals": list(axis.ticks)}
    layout["xaxis"] |= {"ticktext": [_tick(t, axis.ticks) for t in axis.ticks]}
    layout["yaxis"] |= {
        "tickvals": list(range(len(shown))),
        "ticktext": names,
        "range": [len(shown) - 0.4, -0.6],
        "showgrid": False,
        "ticklabelstandoff": 10,
        "tickfont": {"color": INK},
        "fixedrange": True,
    }
    layout["shapes"] = [
        _rectangle(x0=-axis.margin, x1=axis.margin, y0=0, y1=1, xref="x", yref="paper"),
        {"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "line": {"color": MUTED, "width": 1.2}},
    ]
    return go.Figure(traces, layout)


def response(found: Response) -> go.Figure:
    """The metric at every level, a dot per seed. Named levels stand below each other, numbers along an axis."""
    import plotly.graph_objects as go

    along = found.scale != "named"
    places: list[Any] = [level.x if along else i for i, level in enumerate(found.levels)]
    value_title = _titled(found.metric, found.unit)
    dots: tuple[list[Any], list[float], list[str]] = ([], [], [])
    for place, level in zip(places, found.levels, strict=True):
        for seed, value in level.dots:
            dots[0].append(place)
            dots[1].append(value)
            dots[2].append(f"{_text(level.label)}, seed {seed}: {_number(value, found)}")
    means = [(p, level) for p, level in zip(places, found.levels, strict=True) if level.mean is not None]

    def scatter(where: Iterable[Any], values: Iterable[Any], **more: Any) -> Any:
        x, y = (list(where), list(values)) if along else (list(values), list(where))
        return go.Scatter(x=x, y=y, showlegend=False, **more)

    hovered = {"hovertemplate": "%{customdata}<extra></extra>"}
    traces = []
    if along:
        line = {"color": fade(INK, 0.55), "width": 1.5}
        traces.append(scatter([p for p, _ in means], [m.mean for _, m in means], mode="lines", line=line, hoverinfo="skip"))
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
            customdata=[_level_hover(level, found) for _, level in means],
            **hovered,
        )
    )
    layout = _layout(340 if along else 90 + 34 * len(found.levels))
    value_axis, level_axis = ("yaxis", "xaxis") if along else ("xaxis", "yaxis")
    layout[value_axis] |= {"title": {"text": value_title}}
    notes = [f" ({level.trouble})" if level.trouble else "" for level in found.levels]
    names = [_wrap(level.text + note) for level, note in zip(found.levels, notes, strict=True)]
    layout[level_axis] |= {"tickvals": places, "ticktext": names, "showgrid": along}
    if along:
        layout["xaxis"] |= {"title": {"text": _text(found.title)}, "type": found.scale}
        if len(names) > MOST_NAMED:
            layout["xaxis"] |= {"tickvals": None, "ticktext": None}
    else:
        layout["yaxis"] |= {"range": [len(places) - 0.5, -0.5], "ticklabelstandoff": 8, "tickfont": {"color": INK}}
    if found.band:
        low, high = found.band
        across = {"y0": low, "y1": high, "x0": 0, "x1": 1, "xref": "paper", "yref": "y"}
        down = {"x0": low, "x1": high, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
        layout["shapes"] = [_rectangle(**(across if along else down))]
    return go.Figure(traces, layout)


def curves(found: Curves) -> list[tuple[str, go.Figure]]:
    """(title, figure): all arms in one where they are few, else one each. Training dashed, validation solid."""
    colours = palette.ordered(len(found.arms)) if found.ordered else palette.unordered(len(found.arms))
    if len(found.arms) <= OVERLAID:
        return [("", _curves(found, list(zip(found.arms, colours, strict=True)), legend=True, height=340))]
    return [
        (arm.label, _curves(found, [(arm, BLUE)], legend=False, height=240)) for arm in found.arms
    ]


def costs(points: Sequence[Cost], basis: str, metric: str, unit: str, digits: int) -> go.Figure:
    """What arms give against what they cost, and the front of those that nothing beats on both."""
    import plotly.graph_objects as go

    front = sorted((p for p in points if p.best), key=lambda p: p.cost)
    traces = [
        go.Scatter(
            x=[p.cost for p in front],
            y=[p.mean for p in front],
            mode="lines",
            line={"color": fade(INK, 0.5), "width": 1.5, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        ),
        go.Scatter(
            x=[p.cost for p in points],
            y=[p.mean for p in points],
            mode="markers+text" if len(points) <= MOST_NAMED else "markers",
            text=[_wrap(p.label) for p in points],
            textposition=_places(points),
            textfont={"size": 11, "color": MUTED},
            cliponaxis=False,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [p.high - p.mean for p in points],
                "arrayminus": [p.mean - p.low for p in points],
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
                f"{_text(p.label)}<br>{wording.plain(p.mean, digits)} {unit} at {wording.ratio(p.cost)}" for p in points
            ],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=False,
        ),
    ]
    layout = _layout(380)
    known = [p.cost for p in points]
    wide = max(known) > 4 * min(known)
    layout["xaxis"] |= {"title": {"text": f"{basis} against the baseline"}, "ticksuffix": "×"}
    if wide:
        low, high = math.log10(min(known)), math.log10(max(known))
        pad = 0.12 * (high - low)
        layout["xaxis"] |= {"type": "log", "dtick": "D2" if high - low < 2.2 else 1, "range": [low - pad, high + pad]}
    layout["yaxis"] |= {"title": {"text": _titled(metric, unit)}}
    return go.Figure(traces, layout)


def interactions(found: Interactions) -> go.Figure:
    """Estimated effects of a factorial design: main effects on the diagonal, interactions beside it."""
    names = [_wrap(term) for term in found.terms]
    largest = max((abs(v) for row in found.estimates for v in row if v is not None), default=1.0)
    return _heatmap(
        [[math.nan if v is None else v for v in row] for row in found.estimates],
        names,
        names,
        ("", ""),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[["" if v is None else wording.signed(v, found.digits) for v in row] for row in found.estimates],
        unit=found.unit,
    )


def confusion(found: Confusion) -> go.Figure:
    """Where the images of each class end up, in percent of the class."""
    return _heatmap(
        found.shares,
        [_text(c) for c in found.classes],
        [_text(c) for c in found.classes],
        ("predicted", "true"),
        scale=[[0.0, GROUND], [1.0, SKY]],
        limits=(0.0, 100.0),
        texts=[[f"{v:.0f}" if v >= 0.5 else "" for v in row] for row in found.shares],
        unit="%",
    )


def shift(found: ClassShift, classes: Sequence[str]) -> go.Figure:
    """An arm's confusion matrix minus the reference's, in points of each class."""
    largest = max((abs(v) for row in found.difference for v in row), default=0.0) or 1.0
    names = [_text(c) for c in classes]
    return _heatmap(
        found.difference,
        names,
        names,
        ("predicted", "true"),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[[wording.signed(v, 0) if abs(v) >= 0.5 else "" for v in row] for row in found.difference],
        unit="points",
    )


def per_class(found: Confusion) -> go.Figure:
    """What each arm adds to the accuracy on each class, in points."""
    table = [[arm.difference[i][i] for i in range(len(found.classes))] for arm in found.arms]
    largest = max((abs(v) for row in table for v in row), default=0.0) or 1.0
    return _heatmap(
        table,
        [_text(c) for c in found.classes],
        [_wrap(arm.label) for arm in found.arms],
        ("class", ""),
        scale=_diverging(),
        limits=(-largest, largest),
        texts=[[wording.signed(v, 1) for v in row] for row in table],
        unit="points",
        row_height=30,
    )


# --- parts ------------------------------------------------------------------------------------------------------------


def _layout(height: int) -> dict[str, Any]:
    axis = {
        "gridcolor": fade(FAINT, 0.7),
        "linecolor": FAINT,
        "tickcolor": FAINT,
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 12}, "standoff": 10},
    }
    return {
        "template": "none",
        "height": height,
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 48, "r": 16, "t": 12, "b": 44},
        "hoverlabel": {"bgcolor": GROUND, "bordercolor": FAINT, "font": {"color": INK, "size": 12}, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": INK}},
        "hovermode": "closest",
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def _curves(found: Curves, arms: list[tuple[ArmCurves, str]], *, legend: bool, height: int) -> go.Figure:
    import plotly.graph_objects as go

    drawn = ([(found.reference, MUTED)] if found.reference else []) + arms
    traces: list[Any] = []
    layout = _layout(height)
    for arm, colour in drawn:
        traces += [_band(go, line, colour) for line in arm.lines]
    for arm, colour in drawn:
        named = False
        for line in reversed(arm.lines):
            split = f", {line.split}" if line.split else ""
            traces.append(
                go.Scatter(
                    x=list(line.epochs),
                    y=_rounded(line.mean),
                    mode="lines" if len(line.epochs) > 1 else "markers",
                    line={"color": colour, "width": 1.4 if line.split == "train" else 2.2, "dash": _dash(line)},
                    name=_text(arm.label),
                    legendgroup=arm.arm,
                    showlegend=legend and not named,
                    # The name goes in as data: in the template, plotly would read what looks like a variable in it.
                    customdata=[f"{_text(arm.label)}{split} ({wording.count(line.seeds, 'seed')})"] * len(line.epochs),
                    hovertemplate=f"%{{y:.4~g}}{found.unit} %{{customdata}}<extra></extra>",
                )
            )
            named = True
        traces += _overfit(go, arm, colour)
        if not legend and arm.overfits:
            layout.setdefault("annotations", []).append(
                {
                    "x": arm.overfits,
                    "y": 1,
                    "yref": "paper",
                    "yanchor": "top",
                    "xanchor": "right" if arm.overfits > max(l.epochs[-1] for l in arm.lines) / 2 else "left",
                    "text": f"over-fits from {arm.overfits}" if colour != MUTED else "",
                    "showarrow": False,
                    "font": {"size": 11, "color": colour},
                }
            )
    layout["hovermode"] = "x unified"
    layout["xaxis"] |= {"title": {"text": "epoch"}, "tickformat": "d", "nticks": 8}
    title = f"{_text(found.quantity)}{', %' if found.unit == '%' else ''}{' (log)' if found.log else ''}"
    layout["yaxis"] |= {"title": {"text": title}, "range": [found.low, found.high]}
    if found.log:
        layout["yaxis"] |= {"type": "log", "range": [math.log10(found.low), math.log10(found.high)], "dtick": 1}
    if not legend:
        layout["margin"] = {"l": 44, "r": 12, "t": 8, "b": 40}
    return go.Figure(traces, layout)


def _band(go: Any, line: Line, colour: str) -> Any:
    """From the lowest seed to the highest."""
    return go.Scatter(
        x=[*line.epochs, *reversed(line.epochs)],
        y=_rounded([*line.high, *reversed(line.low)]),
        mode="none",
        fill="toself",
        fillcolor=fade(colour, 0.10 if line.split == "train" else 0.18),
        hoverinfo="skip",
        showlegend=False,
    )


def _dash(line: Line) -> str:
    return "5px,4px" if line.split == "train" else "solid"


def _overfit(go: Any, arm: ArmCurves, colour: str) -> list[Any]:
    """A ring on the validation curve where over-fitting begins."""
    for line in arm.lines:
        if line.split == "validation" and arm.overfits in line.epochs:
            at = line.epochs.index(arm.overfits)
            return [
                go.Scatter(
                    x=[arm.overfits],
                    y=_rounded([line.mean[at]]),
                    mode="markers",
                    marker={"symbol": "circle-open", "size": 11, "color": colour, "line": {"width": 2, "color": colour}},
                    customdata=[f"{_text(arm.label)} over-fits from here"],
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
) -> go.Figure:
    import plotly.graph_objects as go

    written = len(columns) <= MOST_WRITTEN
    trace = go.Heatmap(
        z=[_rounded(row) for row in values],
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
        textfont={"size": 11},
        customdata=[
            [f"{row} → {column}" if titles[1] else f"{row}, {column}" for column in columns] for row in rows
        ],
        hovertemplate=f"%{{customdata}}: %{{z:.2f}} {unit}<extra></extra>",
    )
    layout = _layout(110 + (row_height if written else 14) * len(rows))
    names = {"tickvals": list(range(len(columns))), "ticktext": list(columns), "showgrid": False}
    layout["xaxis"] |= {**names, "title": {"text": titles[0]}, "showline": False, "ticks": ""}
    layout["yaxis"] |= {
        "tickvals": list(range(len(rows))),
        "ticktext": list(rows),
        "title": {"text": titles[1]},
        "showgrid": False,
        "showline": False,
        "ticks": "",
        "range": [len(rows) - 0.5, -0.5],
    }
    return go.Figure([trace], layout)


def _diverging() -> list[list[Any]]:
    return [[0.0, VERMILLION], [0.5, GROUND], [1.0, BLUE]]


def _segment(go: Any, ends: Sequence[float], y: int, colour: str, width: float, *, dash: str) -> Any:
    return go.Scatter(
        x=list(ends),
        y=[y, y],
        mode="lines",
        line={"color": colour, "width": width, "dash": "5px,4px" if dash == "dash" else dash},
        hoverinfo="skip",
        showlegend=False,
    )


def _rectangle(**corners: Any) -> dict[str, Any]:
    """The band of the margin."""
    return {"type": "rect", "layer": "below", "fillcolor": fade(FAINT, 0.45), "line": {"width": 0}} | corners


def _within(value: float, axis: Axis) -> float:
    return min(max(value, axis.low), axis.high)


def _hover_of(row: Row, axis: Axis) -> str:
    interval = row.interval
    lines = [f"<b>{_text(row.label)}</b>: {_text(row.verdict)}"]
    lines.append(f"{wording.signed(interval.estimate, axis.digits)} {axis.unit}")
    if interval.lo is not None:
        lines[-1] += f" ({wording.span(interval.lo, interval.hi, axis.digits)}), adjusted p {wording.p_value(row.p)}"
    if interval.images_lo is not None:
        lines.append(f"for new images {wording.span(interval.images_lo, interval.images_hi, axis.digits)}")
    lines.append(wording.count(row.n, "seed"))
    return "<br>".join(line.replace("< 0", "&lt; 0") for line in lines)


def _level_hover(level: Level, found: Response) -> str:
    said = f"<b>{_text(level.label)}</b>: mean {_number(level.mean, found)} over {wording.count(len(level.dots), 'seed')}"
    return f"{said}<br>{_text(level.trouble)}" if level.trouble else said


def _number(value: float | None, found: Response) -> str:
    return f"{wording.plain(value, found.digits)} {found.unit}".strip()


def _places(points: Sequence[Cost]) -> list[str]:
    """Where names stand: above a point, or below where another one is near above it."""
    spread = (max(p.mean for p in points) - min(p.mean for p in points)) or 1.0
    widest = (math.log(max(p.cost for p in points)) - math.log(min(p.cost for p in points))) or 1.0

    def crowded(p: Cost) -> bool:
        return any(
            q is not p
            and 0 <= q.mean - p.mean < 0.18 * spread
            and abs(math.log(q.cost) - math.log(p.cost)) < 0.16 * widest
            for q in points
        )

    return ["bottom center" if crowded(p) else "top center" for p in points]


def _titled(metric: str, unit: str) -> str:
    return f"{_text(metric)}, {unit}" if unit else _text(metric)


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = abs(ticks[1] - ticks[0]) if len(ticks) > 1 else abs(value) or 1.0
    return wording.signed(value, max(0, -math.floor(math.log10(step) + 1e-9)))


def _rounded(values: Iterable[float]) -> list[float | None]:
    """Five significant digits: more than a screen shows, in a fraction of the bytes."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]


def _text(name: str) -> str:
    """A name as plotly must be given it to show it as it is."""
    return html.escape(name, quote=False)


def _wrap(name: str, width: int = 26) -> str:
    """A name broken into lines of about `width`, at spaces or commas."""
    lines = [""]
    for word in name.replace(",", ", ").split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(_text(line) for line in lines)


def as_json(figure: go.Figure) -> Mapping[str, Any]:
    """A figure as plain values, without the template that plotly adds."""
    found: dict[str, Any] = figure.to_plotly_json()
    found["layout"].pop("template", None)
    return found
