"""What figures are made of: traces, layouts and axes as plotly.js reads them."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ablate.report.palette import FAINT, GROUND, INK, MUTED, fade
from ablate.text import cut

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
CLEAR = "rgba(0,0,0,0)"

Figure = dict[str, Any]
"""What plotly.js draws: its traces under `data`, and its `layout`. Plain values: plotly's Python classes check each against a
schema, which took longer than all else on the page; the tests let them check every figure instead."""


def figure(traces: list[Any], layout: dict[str, Any]) -> Figure:
    """Return a figure of its traces and its layout."""
    return {"data": traces, "layout": layout}


def trace(kind: str, **fields: Any) -> dict[str, Any]:
    """Return a trace of a kind; fields that are None are left out."""
    return {"type": kind} | {name: value for name, value in fields.items() if value is not None}


def scatter(**fields: Any) -> dict[str, Any]:
    return trace("scatter", **fields)


def layout(height: int) -> dict[str, Any]:
    """Return the layout that all figures begin with. height: in pixels."""
    axis = {
        "gridcolor": fade(FAINT, 0.7),
        "linecolor": FAINT,
        "tickcolor": FAINT,
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": MUTED},
        "title": {"font": {"color": MUTED, "size": 12}, "standoff": 12},
    }
    return {
        "height": height,
        "font": {"family": FONT, "size": 12, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 48, "r": 16, "t": 12, "b": 44},
        "hoverlabel": {
            "bgcolor": GROUND,
            "bordercolor": FAINT,
            "font": {"color": INK, "size": 12},
            "align": "left",
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"color": INK}},
        # Anywhere on a figure the nearest point answers.
        "hovermode": "closest",
        "hoverdistance": -1,
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def axis(layout: dict[str, Any], which: str, title: str, **more: Any) -> None:
    """Give an axis of a layout its title, and what else it has. which: `xaxis` or `yaxis`."""
    layout[which] |= more
    layout[which]["title"] = layout[which]["title"] | {"text": title}


def rounded(values: Iterable[float]) -> list[float | None]:
    """Return five significant digits of each, None for what is not finite: more than a screen shows, in a fraction of the bytes."""
    array = np.asarray(list(values), dtype=float)
    finite = np.isfinite(array)
    size = np.floor(np.log10(np.abs(array), out=np.zeros_like(array), where=finite & (array != 0)))
    # Multiplied and divided by a whole power of ten, so that what comes out is the float that is written with these digits.
    power = 10.0 ** np.clip(4 - size, 0, 22)
    near = np.rint(array * power, out=np.zeros_like(array), where=finite) / power
    return [v if is_finite else None for v, is_finite in zip(near.tolist(), finite.tolist(), strict=True)]


def rounded_rows(rows: Iterable[Sequence[float]]) -> list[list[float | None]]:
    """Return what `rounded` returns of each row, in a single step for all of them."""
    values = [*rows]
    every = iter(rounded(itertools.chain.from_iterable(values)))
    return [list(itertools.islice(every, len(row))) for row in values]


def text(name: str) -> str:
    """Return a name as plotly must be given it to show it as it is."""
    return html.escape(name, quote=False)


def short(name: str, width: int = 28) -> str:
    """Return a name that leaves room for the figure; the hover text and the tables have all of it."""
    return text(cut(name, width))
