import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import report_examples
from hypothesis import given
from hypothesis import strategies as st
from report_examples import ATTACK

import ablate
from ablate.report import render
from ablate.report.contents import Axis, Interval, Tracking
from ablate.report.summary import summarise
from ablate.text import shown_values

NO_CURVES = pd.DataFrame(columns=["arm", "seed", "phase", "epoch", "metric", "value"])
VOID = {"meta", "input", "br", "hr", "img", "link"}
AXIS = Axis(-2.0, 2.0, 0.5, "points", 2, (-2.0, -1.0, 0.0, 1.0, 2.0))


class Page(HTMLParser):
    """Elements with their attributes, visible text, and whether tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.stack, self.texts, self.torn = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.torn.append(tag)

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in {"script", "style"}:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_every_element_closes_and_every_id_is_its_own(page):
    found = Page(page)
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert not found.torn
    assert not found.stack
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_a_place_on_the_page(page):
    found = Page(page)
    ids = {a["id"] for _, a in found.elements if "id" in a}
    links = [a["href"] for tag, a in found.elements if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_nothing_on_the_page_asks_for_anything_outside(page):
    found = Page(page)
    assert not [(t, a) for t, a in found.elements if {"srcset", "action", "data", "poster"} & a.keys()]
    assert all(a["src"].startswith("data:image/webp;base64,") for _, a in found.elements if "src" in a)
    assert not [t for t, _ in found.elements if t in {"link", "iframe", "object", "embed", "base"}]
    bare = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", bare)


def test_a_policy_forbids_what_the_page_does_not_do(page):
    policy = next(
        a["content"] for _, a in Page(page).elements if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert not re.search(r"script-src[^;]*unsafe-inline", policy)


def test_a_normal_report_stays_small(page):
    assert len(page.encode()) < 1_000_000


def test_the_plotting_library_is_the_version_that_plotly_expects():
    """Where this fails after an upgrade of plotly: ablate/report/library/README.md says how to refresh the bundle."""
    from plotly.offline import get_plotlyjs_version

    if int(get_plotlyjs_version().partition(".")[0]) < 4:
        pytest.skip("the bundle is of a newer plotly")
    first = render.plotly_js()[:200].decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in first
    assert "MIT license" in first


def test_names_stay_text_wherever_they_stand(hostile_page):
    found = Page(hostile_page)
    scripts = [a.get("type") for tag, a in found.elements if tag == "script"]
    assert scripts.count(None) == 1
    assert set(scripts) == {None, "application/json", "text/plain"}
    assert all(a["src"].startswith("data:") for tag, a in found.elements if tag == "img")
    assert not any(name.startswith("on") for _, a in found.elements for name in a)
    assert not found.torn
    assert ATTACK in found.text


def test_a_run_leads_to_its_page_on_an_mlflow_server(material):
    server = Tracking("https://mlflow.example/", "7")
    found = Page(render.html(summarise(dataclasses.replace(material, tracking=server))))
    ids = {run for run in material.replicates["run_id"] if run}
    links = [a["href"] for tag, a in found.elements if tag == "a" and not a["href"].startswith("#")]
    assert set(links) == {f"https://mlflow.example/#/experiments/7/runs/{run}" for run in ids}
    assert "ablate ui" not in found.text


def test_a_large_study_keeps_within_two_megabytes():
    page = render.html(summarise(report_examples.large()))
    assert len(page.encode()) < 2_000_000
    assert page.count("<tr data-outcome") == render.MOST_ROWS


def test_data_in_scripts_cannot_end_them():
    text = str(render.script_json({"name": ATTACK, "line": "\u2028"}))
    assert "</" not in text
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"name": ATTACK, "line": r"\u2028"}


def test_a_page_has_a_section_for_everything_it_knows(page):
    found = Page(page)
    ids = {a.get("id") for _, a in found.elements}
    assert {
        "verdicts",
        "curves",
        "effects",
        "study",
        "factor-0",
        "factor-1",
        "factor-2",
        "cost",
        "classes",
        "runs",
        "methods",
    } <= ids
    for words in (
        "What worked",
        "What didn’t",
        "Don’t know yet",
        "the worker died (signal 9), twice",
        "seeds: {initial: 5",
    ):
        assert words in found.text


def test_verdicts_stand_before_every_note_and_fact_with_their_intervals_and_curves(page, summary):
    first = page[page.index("<main>") : page.index('id="curves"')]
    findings = [f for group in summary.groups for f in group.findings]
    assert first.count('<svg class="interval') - len(summary.groups) == len(findings) > 0
    assert first.count('<svg class="curve') == len(findings)
    assert all(notice.text not in first for notice in summary.notices if notice.kind == "warning")
    assert "<dl" not in first
    assert page.index('id="verdicts"') < page.index('id="curves"') < page.index('id="study"')
    assert ">Loss curves</a>" in page


def test_the_evidence_of_a_verdict_is_its_curves_where_it_has_any(page, summary):
    anchors = re.findall(r'<a href="#([^"]+)">Evidence', page)
    arms = [f.arm for group in summary.groups for f in group.findings]
    assert anchors == [f"curves-{row.anchor}" for arm in arms for row in summary.rows if row.arm == arm]
    without = summarise(dataclasses.replace(report_examples.material(), curves=NO_CURVES))
    page = render.html(without)
    assert 'class="curve' not in page
    assert 'id="curves"' not in page
    assert re.findall(r'<a href="#([^"]+)">Evidence', page)[0].startswith("arm-")


def test_other_metrics_are_folded_away(page):
    factor = page[page.index('id="factor-0"') : page.index('id="factor-1"')]
    visible, _, folded = factor.partition('<details class="folded">')
    assert "<h4>Accuracy</h4>" in visible
    assert "<h4>Loss</h4>" not in factor
    assert folded == "" or "<h4>" in folded


def test_p_stands_only_beside_its_effect(page):
    heads = [
        re.sub(r"<.*?>", "", h)
        for h in re.findall(r"<th scope=\"col\".*?</th>", page.split('id="arms-table"')[1])
    ][:5]
    assert heads[2:5] == ["Effect, points", "Interval", "Adj. p"]
    by_image = re.findall(
        r"broken(?:: [+−][\d.]+ points \(−?[\d.]+ to −?[\d.]+; McNemar p (?:&lt;|=) [\d.]+\))?\.", page
    )
    assert len(by_image) == page.count("by majority")
    assert page.count("McNemar p") == sum("McNemar" in found for found in by_image) > 0


@pytest.mark.parametrize(
    "name",
    ["leave_one_out", "factorial", "of_loss", "unfinished", "not_started", "diverged_baseline", "hostile"],
)
def test_every_kind_of_study_has_a_page(name):
    found = Page(render.html(summarise(getattr(report_examples, name)())))
    assert not found.torn
    assert "How verdicts are made" in found.text


def test_the_same_summary_makes_the_same_page(summary, page):
    assert render.html(summary) == page


def test_a_small_drawing_says_its_numbers_to_those_who_cannot_see_it():
    drawn = str(render.interval_svg(Interval(1.0, 0.4, 1.6, "helps"), AXIS))
    assert 'role="img"' in drawn
    assert 'aria-label="+1.00 points, +0.40 to +1.60"' in drawn


def test_a_small_drawing_points_to_what_runs_off_its_scale():
    drawn = str(render.interval_svg(Interval(-9.0, -12.0, -6.0, "hurts"), AXIS))
    assert drawn.count('class="arrow"') == 2
    assert "−9.00</text>" in drawn
    assert 'class="mark"' not in drawn


def test_a_number_off_the_scale_is_not_struck_through_by_its_own_interval():
    def height(drawn):
        return float(re.search(r'<text x="\d+" y="([\d.]+)"[^>]*>−9.00', str(drawn)).group(1))

    apart = render.interval_svg(Interval(-9.0, -12.0, -6.0, "hurts"), AXIS)
    crossed = render.interval_svg(Interval(-9.0, -18.0, AXIS.low / 2, "hurts"), AXIS)
    assert height(crossed) < height(apart) - 8


def test_an_arm_without_an_effect_has_an_empty_drawing():
    drawn = str(render.interval_svg(Interval(None, None, None, "no override"), AXIS))
    assert 'aria-label="no effect to show"' in drawn
    assert 'class="span"' not in drawn


def test_the_index_leads_to_every_report_and_counts_its_verdicts():
    text = render.index_html(
        [
            render.Entry("width", "How wide?", "Of 4 arms, 2 help.", "width.html", {"worked": 2, "open": 0}),
            render.Entry("a b", "", "<b>x</b>", "a b.html", {}),
        ]
    )
    found = Page(text)
    assert not found.torn
    assert [a["href"] for t, a in found.elements if t == "a"] == ["width.html", "a%20b.html"]
    assert "What worked: 2" in found.text
    assert "How wide?" in found.text
    assert text.count('class="question"') == 1
    assert "Don’t know yet" not in found.text
    assert "<b>x</b>" not in text


def test_commands_in_a_sentence_are_code_and_whatever_else_stays_text():
    assert render._tidy("run `ablate plan` at 80 % of <b>") == (
        "run <code>ablate plan</code> at 80\u00a0% of &lt;b&gt;"
    )


@pytest.mark.parametrize("name", ["judged", "judged_in_blocks"])
def test_the_page_of_results_shows_nothing_that_nobody_recorded(name):
    page = getattr(report_examples, name)()
    for unknown in ("MLflow run", ">Epochs<", ">Cost<", ">Parameters<", ">Device<", ">nan<", ">None<"):
        assert unknown not in page
    for section in ("verdicts", "effects", "factor-0", "runs", "methods", "for-paper"):
        assert f'id="{section}"' in page
    assert ATTACK not in page
    assert ("Within blocks" in page) == (name == "judged_in_blocks")
    for target in set(re.findall(r'href="#([^"]+)"', page)):
        assert f'id="{target}"' in page, "every link on the page leads somewhere"


def test_results_of_very_many_runs_make_a_page_of_some_size():
    draw = np.random.default_rng(0)
    rows = [(arm, seed, draw.normal()) for arm in ("baseline", "b") for seed in range(11_000)]
    frame = pd.DataFrame(rows, columns=["arm", "seed", "loss"])
    page = ablate.compare(frame, metric="loss", margin=0.1).page()
    assert 'id="runs"' not in page
    assert "for the first 200 of 11,000" in page
    unpaired = ablate.compare(frame, metric="loss", margin=0.1, paired=False).page()
    assert max(len(page), len(unpaired)) < 900_000


@given(
    value=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
        | st.text(st.sampled_from('a\\"nrbfu\n\t\r\b\x7f\u200b\u200d\u0645×−\ud800')),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=12,
    )
)
def test_json_in_a_page_is_that_of_the_values_as_they_are_shown(value):
    expected = json.dumps(shown_values(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    assert render._json(value) == expected
