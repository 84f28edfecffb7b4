"""The picture of a learning-rate range test, as one offline page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ablate.report import figures
from ablate.report.palette import INK
from ablate.report.render import plotly_js, script_json

if TYPE_CHECKING:
    from ablate.analysis.rates import RangeTest


def page(found: RangeTest, study: str) -> str:
    """The figure with what it says, as one HTML file that needs no network."""
    drawn = figures.range_test(found)
    drawing = f"Plotly.newPlot('range-test', {script_json(drawn['data'])}, {script_json(drawn['layout'])}, {{displaylogo: false}});"
    said = (
        f"Suggested baseline: {found.suggestion:g}. As levels: {', '.join(f'{rate:g}' for rate in found.levels)}."
        if found.suggestion is not None
        else f"Inconclusive: {found.reason}."
    )
    title = escape(f"Learning-rate range test of {study}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>body{{font:16px/1.6 {figures.FONT};color:{INK};max-width:64rem;margin:2rem auto;padding:0 1rem}}"
        f"h1{{font-size:1.4rem}}</style></head>"
        f"<body><h1>{title}</h1><p>{escape(said)}</p><div id='range-test'></div>"
        f"<script>{plotly_js().decode()}</script><script>{drawing}</script></body></html>\n"
    )
