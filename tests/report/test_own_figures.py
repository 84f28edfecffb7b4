"""Figures that runs of the user's own training logged: shown as they are, and nothing of theirs acts on the page."""

import base64
import dataclasses
import json

import plotly.graph_objects as go
import pytest
from playwright.sync_api import expect
from test_page_in_browser import CHROMIUM, Visit, browser  # noqa: F401 - a fixture

from ablate.figure_files import LoggedFigures
from ablate.report import render
from ablate.report.own_figures import LARGEST_PLOT, plotly_figure
from ablate.report.summary import summarise

HOSTILE_PAGE = """
<meta http-equiv="refresh" content="0;url=https://example.com/">
<base href="https://example.com/" target="_top">
<script>parent.document.title = "theirs"; top.location = "https://example.com/"; alert(1)</script>
<script src="https://example.com/s.js"></script><link rel="stylesheet" href="https://example.com/s.css">
<img src="https://example.com/p.png" onerror="alert(2)"><iframe src="https://example.com/"></iframe>
<svg onload="alert(3)"></svg></iframe></div></main><script>alert(4)</script><h3>A table of theirs</h3>
<form action="https://example.com/"><button>send</button></form>
"""

HOSTILE_SVG = """<svg xmlns="http://www.w3.org/2000/svg" width="100" height="50" onload="alert(5)"><script>alert(6)</script>
<image href="https://example.com/q.png" width="9" height="9"/><rect width="100" height="50" fill="teal"/></svg>"""

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def written(figure: go.Figure, **options) -> str:
    return figure.to_html(**{"include_plotlyjs": "cdn", **options})


@pytest.fixture(scope="module")
def pages(material, tmp_path_factory):
    """The report of a study whose runs logged figures of every kind, hostile ones among them."""
    bars = written(go.Figure(go.Bar(x=["a", "b"], y=[1, 2]), layout={"title": "</script><b>bars</b>"}))
    broken = bars.replace('"type":"bar"', '"type":"bar","x0":{"y":[{}]},"error_y":{"array":"%"}')
    files = {
        "figures/table.html": HOSTILE_PAGE.encode(),
        "figures/drawing.svg": HOSTILE_SVG.encode(),
        "figures/point.png": PNG,
        "figures/bars.html": bars.encode(),
        "figures/broken.html": broken.encode(),
        "figures/space.html": written(go.Figure(go.Scatter3d(x=[1], y=[1], z=[1]))).encode(),
        "figures/bytes.html": b"\xff\xfe<p>odd</p>\x00",
        '<script>alert("name")</script>.png': PNG,
    }
    arms = [material.record.reference, "model.width=128"]
    logged = LoggedFigures(0, dict.fromkeys(arms, files), ("big.png of 1 run is left out",))
    text = render.html(summarise(dataclasses.replace(material, figures=logged)))
    path = tmp_path_factory.mktemp("figures") / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to look at the page with")
def test_what_runs_logged_is_shown_and_neither_acts_on_the_page_nor_fetches_anything(browser, pages):  # noqa: F811
    seen = Visit(browser, pages)
    unfolded = ".figure:not(details .figure)"
    expect(seen.page.locator(f"{unfolded}[data-drawn]")).to_have_count(
        seen.page.locator(unfolded).count(), timeout=60_000
    )
    section = seen.page.locator("#figures-of-runs")
    assert (
        "A table of theirs"
        in seen.page.frame_locator("#figures-of-runs iframe").first.locator("h3").inner_text()
    )
    for image in section.locator("img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("(i) => i.complete && i.naturalWidth > 0")
    assert section.locator(".figure .trace").count() >= 2
    assert "big.png of 1 run is left out." in section.inner_text()
    assert section.locator("h5").all_inner_texts()[:2] == ["◆ Baseline", "▲ Width 128"]
    assert seen.page.title().startswith("width-and-friends")
    assert seen.page.url == pages.as_uri()
    assert [url for url in seen.requests if not url.startswith(("file:", "data:"))] == []
    assert not any(complaint.startswith("dialog") for complaint in seen.complaints)
    for width in (390, 1440):
        seen.page.set_viewport_size({"width": width, "height": 900})
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    seen.context.close()


def test_a_page_of_plotly_is_read_as_the_figure_that_it_shows():
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="a"), layout={"title": "t", "height": 9_999})
    read = plotly_figure(written(figure))
    assert read["data"] == json.loads(figure.to_json())["data"]
    assert read["layout"]["title"] == {"text": "t"}
    assert read["layout"]["height"] == 320
    assert plotly_figure(written(go.Figure(go.Scattergl(y=[1]))))["data"][0]["type"] == "scatter"


@pytest.mark.parametrize("number", ["1e999", "-1e999", "Infinity", "NaN"])
def test_a_number_that_json_lacks_is_a_gap(number):
    page = written(go.Figure(go.Scatter(y=[15.5, 2]), layout={"height": 15.5})).replace("15.5", number)
    read = plotly_figure(page)
    assert json.loads(render.script_json(read))["data"][0]["y"] == [None, 2]


DEEP = 'Plotly.newPlot("id", ' + "[" * 500 + "]" * 500 + ", {})"


@pytest.mark.parametrize(
    "text",
    [
        written(go.Figure(go.Scatter3d(x=[1], y=[1], z=[1]))),
        written(go.Figure()),
        written(go.Figure(go.Scatter(y=[0.123456] * (LARGEST_PLOT // 8)))),
        DEEP,
        DEEP.replace("[" * 500, "[" * 200_000),
        written(go.Figure(go.Bar(y=[1]))).replace('"y":', '"y'),
        written(go.Figure(go.Bar(y=[1]))).replace('"type":"bar"', '"type":["bar"]'),
        written(go.Figure(go.Bar(y=[1]))).replace('[{"y"', '[7,{"y"'),
    ],
    ids=["3d", "empty", "large", "deep", "deeper", "torn", "odd type", "no trace"],
)
def test_a_page_of_plotly_that_cannot_be_drawn_here_is_not_drawn(text):
    assert plotly_figure(text) is None
