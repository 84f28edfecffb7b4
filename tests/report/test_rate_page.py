"""The page of a sweep of learning rates, and its table in the terminal."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import report_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import console
from ablate.analysis.rates import RateTrial, rate_sweep
from ablate.report import rate_figures
from ablate.report.rate_page import page

SWEEP = report_examples.rate_sweep()


def test_the_curve_over_rates_has_a_dot_for_every_training_and_a_cross_for_what_diverged():
    drawn = rate_figures.response(SWEEP, is_value=False)
    dots = [trace for trace in drawn["data"] if trace["mode"] == "markers"]
    for trace, is_whole in zip(dots, (False, True), strict=True):
        trials = [trial for trial in SWEEP.trials if trial.is_whole == is_whole]
        assert trace["x"] == [trial.rate for trial in trials]
        assert trace["marker"]["symbol"] == ["x" if t.outcome == "diverged" else "circle" for t in trials]
    assert [shape["x0"] for shape in drawn["layout"]["shapes"]] == [SWEEP.suggestion] == [0.1]
    report_examples.plotly_takes(drawn)


def test_every_rate_has_its_curves_in_front_of_all_others():
    drawn = rate_figures.curves(SWEEP)
    assert len(drawn) == len(SWEEP.rates)
    for (name, figure), rate in zip(drawn, SWEEP.rates, strict=True):
        own = [trial for trial in SWEEP.trials if trial.rate == rate]
        front = figure["data"][len(SWEEP.trials) :]
        assert [len(trace["y"]) for trace in front] == [len(trial.curve) for trial in own]
        assert name.startswith(f"{rate:g}")
        assert ("diverged" in name) == (rate >= 1)
        report_examples.plotly_takes(figure)


def test_the_page_needs_no_network_and_shows_names_as_they_are():
    text = page(SWEEP, "<b>me</b>")
    assert "&lt;b&gt;me&lt;/b&gt;" in text
    assert "Suggested baseline: 0.1." in text
    assert "loss not finite in epoch 1" in text
    assert 'src="http' not in text
    assert "As levels: " in text
    assert "As levels" not in page(replace(SWEEP, levels=()), "me")


def test_a_sweep_without_a_suggestion_says_why_on_the_page_and_in_the_terminal():
    nothing = report_examples.rate_sweep(learns=False)
    assert "the rate does not reach the training" in nothing.reason
    assert f"No suggestion:</strong> {nothing.reason}" in page(nothing, "study")
    assert f"no suggestion: {nothing.reason}" in console.rate_sweep(nothing, "")


def test_the_terminal_has_a_line_for_each_training_and_the_longest_bar_at_the_best():
    lines = console.rate_sweep(SWEEP, "baseline: …").splitlines()
    trials = lines[1 : 1 + len(SWEEP.trials)]
    short = sorted(trial.rate for trial in SWEEP.trials if not trial.is_whole)
    assert [float(line.split()[0]) for line in trials[: len(short)]] == short
    assert max(trials[len(short) :], key=lambda line: line.count("█")).split()[0] == "0.1"
    assert lines[-1] == "baseline: …"


@pytest.mark.parametrize(
    "metric", ["val/loss", "val/accuracy", "val/balanced_accuracy", "a metric with a rather long name"]
)
@pytest.mark.parametrize("value", [0.0, -0.25, 2e-7, 123456.789, 1.4e11, -9e99])
def test_numbers_stand_below_their_titles(metric, value):
    rules = replace(SWEEP.rules, metric=metric)
    trials = [RateTrial(rate, 2000, 2, True, (), value, value / 2) for rate in (1e-5, 1.0)]
    title, *rows = console.rate_sweep(rate_sweep(rules, trials), "").splitlines()[:3]
    ends = {len(row.split("█")[0].rstrip()) for row in rows}
    assert ends == {len(title)}


FINITE = st.floats(-1e99, 1e99) | st.sampled_from([0.0, 5e-324])


@st.composite
def any_trial(draw):
    outcome = draw(st.sampled_from(["finished", "diverged", "failed"]))
    score, value = (draw(FINITE) if outcome == "finished" else None for _ in range(2))
    is_whole = draw(st.booleans())
    curve = tuple(draw(st.lists(st.floats(), max_size=3)))
    rate = draw(st.sampled_from([1e-5, 1e-3, 0.1, 10.0]))
    return RateTrial(rate, 2000, 8 if is_whole else 2, is_whole, curve, score, value, outcome)


@settings(max_examples=50)
@given(st.lists(any_trial(), min_size=1, max_size=6))
def test_whatever_comes_out_of_the_trainings_there_is_a_page_and_a_table(trials):
    sweep = rate_sweep(SWEEP.rules, trials)
    drawn = [rate_figures.response(sweep, is_value=is_value) for is_value in (True, False)]
    for figure in [*drawn, *(figure for _, figure in rate_figures.curves(sweep))]:
        json.dumps(figure, allow_nan=False)
    assert len(console.rate_sweep(sweep, "").splitlines()) > len(trials)


@pytest.mark.parametrize(("worst", "is_inside"), [(2.6, True), (2.9, True), (50.0, False)])
def test_what_is_somewhat_worse_than_the_lowest_rate_stands_within_the_axis(worst, is_inside):
    scores = {1e-5: 2.4, 0.1: 1.8, 10.0: worst}
    trials = [RateTrial(r, 2000, 2, False, (score,), score, None, "finished") for r, score in scores.items()]
    drawn = rate_figures.response(rate_sweep(SWEEP.rules, trials), is_value=False)
    assert (drawn["layout"]["yaxis"]["range"][1] > worst) == is_inside
