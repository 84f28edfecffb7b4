"""The page of a learning-rate range test."""

from __future__ import annotations

import plotly.graph_objects as plotly
import report_examples

from ablate.report import figures
from ablate.report.range_test import page

FOUND = report_examples.range_test()


def test_the_figure_has_a_line_a_seed_their_median_and_the_suggestion():
    drawn = figures.range_test(FOUND)
    assert [trace["y"] for trace in drawn["data"]] == [*FOUND.losses, FOUND.smooth]
    assert FOUND.suggestion in [shape["x0"] for shape in drawn["layout"]["shapes"]]
    assert drawn["layout"]["xaxis"]["type"] == "log"
    plotly.Figure(drawn["data"], drawn["layout"])


def test_the_page_needs_no_network_and_shows_names_as_they_are():
    text = page(FOUND, "<b>me</b>")
    assert "&lt;b&gt;me&lt;/b&gt;" in text
    assert f"Suggested baseline: {FOUND.suggestion:g}." in text
    assert 'src="http' not in text
    assert "Inconclusive:</strong> one pass is only 10 steps" in page(
        report_examples.range_test(every=6), "short"
    )
