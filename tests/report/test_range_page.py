"""The page of a learning-rate range test."""

from __future__ import annotations

import plotly.graph_objects as plotly
import pytest
import report_examples

from ablate import console
from ablate.analysis.rates import range_test
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


@pytest.mark.parametrize(
    "losses",
    [[[], []], [[float("nan")] * 40], [[2.3], [2.3]], [[2.3, float("inf")]], [[], [2.3] * 40], [[2.3]]],
    ids=[
        "none is finite",
        "all NaN",
        "one point each",
        "one point, then none",
        "one seed of two",
        "one point",
    ],
)
def test_a_loss_that_is_not_finite_leaves_a_page_and_a_table_that_say_so(losses):
    found = range_test([10 ** (-5 + i / 10) for i in range(40)], losses)
    assert f"Inconclusive:</strong> {found.reason.partition(':')[0]}" in page(found, "study")
    assert f"inconclusive: {found.reason}" in console.range_test(found, "")
