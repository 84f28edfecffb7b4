"""Figures that the user's own training logged, made safe for the page: no script of theirs runs, nothing of theirs is fetched.

A figure that Plotly wrote as HTML is read as data, and drawn by the page's own Plotly.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from ablate.figure_files import FOLDER, HTML, KINDS
from ablate.report.contents import OwnFigure, OwnFigures
from ablate.report.reading import Reading
from ablate.text import parse_real

_TRACES = frozenset(
    {
        "bar",
        "box",
        "contour",
        "heatmap",
        "histogram",
        "histogram2d",
        "histogram2dcontour",
        "image",
        "pie",
        "scatter",
        "scatterternary",
        "violin",
    }
)
"""Kinds of trace that the page's Plotly can draw."""

LARGEST_PLOT = 400_000
"""Characters of a figure of Plotly that is drawn: what is larger keeps a browser busy for seconds."""

DEEPEST = 40
"""Levels of a figure of Plotly, which has no more than ten."""

LOWEST, HIGHEST = 160, 640
"""Height of a figure in pixels."""


def own_figures(reading: Reading) -> OwnFigures | None:
    """Return the figures that runs logged, by name, those of the reference first; None where there are none."""
    logged = reading.material.figures
    if logged is None:
        return None
    verdicts: dict[str, str | None] = {c.arm: c.verdict for c in reading.analysis.comparisons}
    verdicts[reading.rules.reference] = None
    names = dict.fromkeys(name for of_arm in logged.files.values() for name in of_arm)
    return OwnFigures(
        logged.seed,
        tuple(
            (
                _title(name),
                tuple(
                    _figure(name, of_arm[name], reading.label(arm), verdicts.get(arm, ""))
                    for arm, of_arm in logged.files.items()
                    if name in of_arm
                ),
            )
            for name in names
        ),
        logged.left_out,
    )


def _title(name: str) -> str:
    return name.removeprefix(f"{FOLDER}/")


def _figure(name: str, content: bytes, label: str, verdict: str | None) -> OwnFigure:
    suffix = f".{name.rpartition('.')[2].lower()}"
    if KINDS[suffix] != HTML:
        encoded = base64.b64encode(content).decode()
        return OwnFigure(label, verdict, image=f"data:{KINDS[suffix]};base64,{encoded}")
    text = content.decode(errors="replace")
    if _PLOTLY.search(text):
        return OwnFigure(label, verdict, plot=plotly_figure(text))
    return OwnFigure(label, verdict, page=text, has_script="<script" in text.lower())


_PLOTLY = re.compile(r"Plotly\.newPlot\(\s*\"[^\"]{1,100}\",\s*(?=\[)")
"""What stands before the data of a figure in a page that Plotly wrote."""


def plotly_figure(text: str) -> dict[str, Any] | None:
    """Return the figure in a page that Plotly wrote, as data: `data`, `layout`; None where it is another page, or cannot be drawn here."""
    call = _PLOTLY.search(text)
    if call is None:
        return None
    # What is no finite number, `Infinity` or `1e999`, is a gap, as in Plotly; the page's JSON has none.
    reader = json.JSONDecoder(parse_constant=lambda _: None, parse_float=parse_real)
    try:
        data, end = reader.raw_decode(text, call.end())
        comma = re.compile(r"\s*,\s*").match(text, end)
        layout, end = reader.raw_decode(text, comma.end()) if comma else ({}, end)
    except (ValueError, RecursionError):
        return None
    is_figure = isinstance(data, list) and isinstance(layout, dict) and end - call.end() <= LARGEST_PLOT
    if not is_figure or not data or not _is_flat([data, layout], DEEPEST):
        return None
    traces = []
    for trace in data:
        kind = trace.get("type", "scatter") if isinstance(trace, dict) else None
        # What Plotly Express makes of more than a thousand points.
        kind = "scatter" if kind == "scattergl" else kind
        if not isinstance(kind, str) or kind not in _TRACES:
            return None
        traces.append({**trace, "type": kind})
    height = layout.get("height")
    kept = int(height) if isinstance(height, int | float) and LOWEST <= height <= HIGHEST else 320
    return {"data": traces, "layout": {**layout, "height": kept}, "own": True}


def _is_flat(value: Any, levels: int) -> bool:
    """Return whether lists and dicts are nested no deeper than so many levels."""
    if not isinstance(value, list | dict):
        return True
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(_is_flat(item, levels - 1) for item in items)
