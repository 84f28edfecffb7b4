import base64
import gzip
import itertools
import json
import math
import re
from dataclasses import replace

import pytest
import report_examples

from ablate.report import figures, palette, rate_figures, render
from ablate.report.contents import Crossing
from ablate.report.summary import summarise


def every_figure(page):
    packed = re.search(r'<script type="text/plain" id="figures">(.*?)</script>', page)[1]
    return list(json.loads(gzip.decompress(base64.b64decode(packed))).values())


def texts(value, key=""):
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, key)


def test_every_colour_has_a_twin_for_the_dark(page):
    colours = {
        v[:7] for f in every_figure(page) for k, v in texts(f) if "color" in k.lower() and v.startswith("#")
    }
    assert colours
    assert colours <= set(palette.DARK_OF)


def test_the_forest_shows_every_arm_with_its_verdicts_mark(summary):
    figure = figures.forest(summary.axis, summary.rows)
    marks = [t for t in figure["data"] if t["mode"] == "markers" and t["marker"]["size"] == 11]
    labels = [name.replace("<br>", " ") for name in figure["layout"]["yaxis"]["ticktext"]]
    verdicts = {row.label: row.interval.verdict for row in summary.rows if row.kind == "arm"}
    assert [t["marker"]["symbol"] for t in marks] == [palette.mark(verdicts[each]).symbol for each in labels]
    assert len(figure["layout"]["yaxis"]["ticktext"]) == 8


def test_the_forest_is_in_the_order_of_the_verdicts_the_largest_effects_first(summary):
    figure = figures.forest(summary.axis, summary.rows)
    order = [name.replace("<br>", " ") for name in figure["layout"]["yaxis"]["ticktext"]]
    listed = [f.label for group in summary.groups for f in group.findings]
    settled = [f.label for group in summary.groups[:2] for f in group.findings]
    assert order[: len(settled)] == settled
    assert sorted(order) == sorted(listed)


def test_several_arms_share_a_figure_with_no_more_than_four_bands(summary):
    overlaid = [c for s in summary.sections for c in s.curves if 1 < len(c.arms) <= figures.OVERLAID]
    assert overlaid
    for curves in overlaid:
        [(_, figure)] = figures.curves(curves)
        assert sum(t.get("fill") == "toself" for t in figure["data"]) <= 4


def test_an_axis_that_is_logarithmic_says_so(page):
    axes = [f["layout"][axis] for f in every_figure(page) for axis in ("xaxis", "yaxis")]
    logarithmic = [axis for axis in axes if axis.get("type") == "log"]
    assert logarithmic
    assert all("log scale" in axis["title"]["text"] for axis in logarithmic)
    assert not any("log scale" in a["title"]["text"] for a in axes if a not in logarithmic and "title" in a)
    assert not any(axis["title"]["text"].startswith(("log scale", "(log scale")) for axis in logarithmic)


def test_every_axis_of_curves_names_what_it_shows(summary):
    for section in summary.sections:
        for curves in section.curves:
            for _, figure in figures.curves(curves):
                title = figure["layout"]["yaxis"]["title"]["text"]
                assert title.startswith(curves.quantity)
                assert (", %" in title) == (curves.unit == "%")


def test_what_runs_off_the_scale_is_an_arrow_with_its_number(summary):
    figure = figures.forest(summary.axis, summary.rows)
    arrows = [t for t in figure["data"] if t.get("marker", {}).get("symbol") == "triangle-left"]
    row = next(row for row in summary.rows if row.arm == "optimizer.lr=1.0")
    assert len(arrows) == 1
    assert arrows[0]["x"] == [summary.axis.low]
    assert [a["text"] for a in figure["layout"]["annotations"]] == [f"−{abs(row.interval.estimate):.2f}"]


def test_levels_on_a_logarithmic_axis_are_ticked_where_they_stand(summary):
    figure = figures.response(summary.sections[0].response)
    assert figure["layout"]["xaxis"]["type"] == "log"
    assert figure["layout"]["xaxis"]["tickvals"] == [16, 32, 64, 128, 256]


def test_a_level_of_which_no_run_finished_still_stands_on_the_axis_with_its_reason(summary):
    found = summary.sections[0].response
    last = replace(found.levels[-1], mean=None, dots=(), trouble="5 diverged")
    axis = figures.response(replace(found, levels=(*found.levels[:-1], last)))["layout"]["xaxis"]
    assert axis["ticktext"][-1] == "256<br>5 diverged"
    low, high = axis["range"]
    assert low < math.log10(16)
    assert math.log10(256) < high


def test_few_arms_share_a_figure_and_many_get_one_each(summary):
    assert len(figures.curves(summary.sections[0].curves[0])) == 4
    assert len(figures.curves(summary.sections[1].curves[0])) == 1


def test_training_is_dashed_and_validation_solid(summary):
    (_, figure) = figures.curves(summary.sections[1].curves[0])[0]
    lines = [t for t in figure["data"] if t["mode"] == "lines"]
    assert {t["line"]["dash"] for t in lines if ", train " in t["customdata"][0]} == {"5px,4px"}
    assert {t["line"]["dash"] for t in lines if ", validation " in t["customdata"][0]} == {"solid"}


def test_figures_beside_each_other_share_their_range(summary):
    loss = summary.sections[0].curves[0]
    ranges = [tuple(f["layout"]["yaxis"]["range"]) for _, f in figures.curves(loss)]
    assert set(ranges) == {(loss.low, loss.high)}


@pytest.mark.parametrize(
    "made",
    [
        report_examples.material,
        report_examples.factorial,
        report_examples.leave_one_out,
        report_examples.hostile,
    ],
)
def test_plotly_knows_every_field_of_every_figure(made):
    for figure in every_figure(render.html(summarise(made()))):
        report_examples.plotly_takes(figure)


def colours_of(figure):
    """Every colour of a figure, without its opacity."""
    return {
        v[:7] for k, v in texts(figure) if v.startswith("#") and ("color" in k.lower() or k == "colorscale")
    }


NEUTRAL = {palette.MUTED, palette.FAINT, palette.GROUND, palette.SHARE, *palette.NEUTRALS}
VERDICTS = [verdict for verdict in palette.MARKS if verdict]


@pytest.mark.parametrize(
    "verdicts", list(itertools.combinations_with_replacement(VERDICTS, 3)), ids=", ".join
)
def test_a_curve_has_the_colour_of_its_arms_verdict_and_shares_it_with_no_other(summary, verdicts):
    found = next(c for s in summary.sections for c in s.curves if len(c.arms) > 3)
    arms = [replace(arm, verdict=v) for arm, v in zip(found.arms[:3], verdicts, strict=True)]
    for count in (1, 2, 3):
        ((_, figure),) = figures.curves(replace(found, arms=tuple(arms[:count])))
        drawn = {t["name"]: t["line"]["color"] for t in figure["data"] if t["mode"] == "lines"}
        assert drawn.pop(found.reference.label) == palette.MUTED
        assert len(set(drawn.values())) == count
        for arm in arms[:count]:
            assert drawn[arm.label] in palette.SHADES[palette.mark(arm.verdict).colour]
    apart = [replace(arm, arm=f"{arm.arm}{i}", label=f"{arm.label}{i}") for i in range(2) for arm in arms]
    for (_, figure), arm in zip(figures.curves(replace(found, arms=tuple(apart))), apart, strict=True):
        drawn = {t["name"]: t["line"]["color"] for t in figure["data"] if t["mode"] == "lines"}
        assert drawn[arm.label] in {palette.mark(arm.verdict).colour, palette.INK} - {palette.MUTED}


def test_shades_of_different_verdicts_are_different_and_none_is_the_baselines():
    by_verdict = {
        colour: set(shades)
        for colour, shades in palette.SHADES.items()
        if colour not in {palette.MUTED, palette.INK}
    }
    every = [shade for shades in (*by_verdict.values(), palette.NEUTRALS) for shade in shades]
    assert len(every) == len(set(every))
    assert palette.MUTED not in every
    assert {palette.mark(v).colour for v in VERDICTS} <= palette.SHADES.keys()


def test_what_is_no_verdict_has_no_colour_of_one(summary):
    searched = summarise(report_examples.searched())
    crossed = figures.crossing(
        Crossing("Width", "Rate", ("8", "16"), tuple((str(i), (80.0, 81.0 + i)) for i in range(4)), "m", "%")
    )
    drawn = [
        *map(figures.setting_response, searched.tuning.curves),
        figures.pareto(searched.tuning.pareto),
        rate_figures.response(report_examples.rate_sweep(), is_value=True),
        *(figure for _, figure in rate_figures.curves(report_examples.rate_sweep())),
        figures.confusion(summary.confusion),
        crossed,
    ]
    for figure in drawn:
        assert colours_of(figure) <= NEUTRAL
    lines = [(t["line"]["color"], t["line"]["dash"]) for t in crossed["data"]]
    assert len(set(lines)) == 4


def test_a_table_of_differences_is_blue_where_it_is_better(summary):
    classes = summary.confusion.classes
    for arm in summary.confusion.arms:
        figure = figures.shift(arm, classes)
        (table,) = figure["data"]
        assert table["colorscale"][0][1] == palette.WORSE
        assert table["colorscale"][-1][1] == palette.BETTER
        for row, values in enumerate(arm.difference):
            for column, value in enumerate(values):
                better = value if row == column else -value
                assert table["z"][row][column] == pytest.approx(better, rel=1e-4, abs=1e-9)
                assert f"{abs(value):.2f} points" in table["customdata"][row][column]
    assert figures.per_class(summary.confusion)["data"][0]["colorscale"][-1][1] == palette.BETTER


def test_a_class_without_a_test_image_has_no_difference(summary):
    shares = [[0.0] * len(row) if i == 1 else row for i, row in enumerate(summary.confusion.shares)]
    (table,) = figures.per_class(replace(summary.confusion, shares=tuple(map(tuple, shares))))["data"]
    assert [[text == "–" for text in row] for row in table["text"]] == [
        [i == 1 for i in range(len(shares))] for _ in summary.confusion.arms
    ]


@pytest.mark.parametrize("means", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.3), (1.0, 0.3, 0.3)])
def test_names_of_points_on_one_place_are_one_caption(summary, means):
    """Where every run is perfect, the axis has no length, and its points still have names that can be read."""
    some = summary.costs[:3]
    points = [replace(p, mean=m, low=m, high=m, cost=1.0) for p, m in zip(some, means, strict=True)]
    layout = figures.costs(points, "compute", "val/accuracy", "", 2)["layout"]
    assert len(layout["annotations"]) == len(set(means))
    assert len({caption["y"] for caption in layout["annotations"]}) == len(set(means))


def test_names_reach_plotly_as_text():
    page = render.html(summarise(report_examples.hostile()))
    said = [text for figure in every_figure(page) for _, text in texts(figure)]
    assert any("&lt;b&gt;" in text for text in said)
    assert not any(re.search(r"<(?!br>|b>|/b>|extra>|/extra>)", text) for text in said)
    # Plotly reads variables in templates only, so no name may stand in one.
    templates = [t for figure in every_figure(page) for k, t in texts(figure) if "template" in k.lower()]
    assert templates
    assert not any("alert" in t for t in templates)


def test_numbers_are_as_short_as_a_screen_needs(summary):
    (_, figure) = figures.curves(summary.sections[1].curves[0])[0]
    values = [v for t in figure["data"] for v in t["y"]]
    assert all(len(repr(v)) <= 8 for v in values)


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_in_figures_reach_the_contrast_of_wcag_aa(dark):
    shown = palette.DARK_OF.get if dark else lambda colour: colour
    ground = shown(palette.GROUND)
    for colour in (palette.INK, palette.MUTED, *(m.colour for m in palette.MARKS.values())):
        assert contrast(shown(colour), ground) >= 4.5, colour
    for colour in (shade for shades in palette.SHADES.values() for shade in shades):
        assert contrast(shown(colour), ground) >= 3.0, colour
    for colour in (palette.BETTER, palette.WORSE, palette.SHARE):
        assert contrast(shown(palette.INK), shown(colour)) >= 4.5, colour


@pytest.mark.parametrize("dark", [False, True])
def test_text_on_the_page_reaches_the_contrast_of_wcag_aa(dark):
    style = (render.TEMPLATES / "report.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    names = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[1 if dark else 0]))
    for ground in ("ground", "panel", "wash"):
        for text in ("ink", "muted", "accent", "helps", "hurts", "none", "open", "unstable", "void"):
            assert contrast(names[text], names[ground]) >= 4.5, (text, ground)


def test_the_style_sheet_and_the_figures_agree_on_the_colours_of_verdicts():
    style = (render.TEMPLATES / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", b))
        for b in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    for verdict, mark in palette.MARKS.items():
        if verdict:
            assert light[mark.tone] == mark.colour
            assert dark[mark.tone] == palette.DARK_OF[mark.colour]
    assert (light["ink"], light["muted"], light["ground"]) == (palette.INK, palette.MUTED, palette.GROUND)
