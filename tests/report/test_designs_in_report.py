"""Designs with arms of several references, and fractions, as their reports show them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import report_examples
from report_examples import EMPTY_CURVES, replicate

from ablate import report
from ablate.analysis import judge
from ablate.analysis.plan import rules
from ablate.data.facts import DataFacts
from ablate.report.summary import Material, summarise
from ablate.study import design, spec

WORTH = {"model.width": 0.03, "model.depth": 0.01, "optimizer.lr": -0.02, "augment.flip": 0.0}

STUDY = """
study: some
margin: 0.005
baseline:
  data: {name: digits}
  model: {name: cnn, depth: 2, width: 16}
factors: {model.width: [32], model.depth: [3], optimizer.lr: [0.2], augment.flip: [true]}
seeds: 5
"""


def material(kind, more=""):
    plan = design.plan(
        spec.parse(f"{STUDY}design: {kind}\n{more}"), lambda _: DataFacts("digits", 900, 300, 100)
    )
    for step in ("model.width=32", "model.width=32,model.depth=3") if kind == "path" else ():
        plan = plan.onward(step)
    rng = np.random.default_rng(0)
    base = plan.study.baseline
    rows = []
    for arm in plan.arms:
        worth = sum(gain for path, gain in WORTH.items() if arm.config.get(path) != base.get(path))
        rows += [replicate(arm.name, s, 0.8 + worth + rng.normal(0, 0.001)) for s in range(5)]
    record = plan.record()
    frame = pd.DataFrame(rows)
    return Material(record, judge(rules(record), frame, EMPTY_CURVES), frame, EMPTY_CURVES)


@pytest.fixture(scope="module", params=["both", "path", "fractional"])
def made(request):
    return material(request.param, "fraction: {cells: 8}\n" if request.param == "fractional" else "")


def test_every_verdict_stands_once_in_every_format(made):
    items = [*made.analysis.comparisons, *made.analysis.effects]
    summary = summarise(made)
    assert sum(len(group.findings) for group in summary.groups) == len(items)
    assert len([row for row in summary.rows if row.kind in {"arm", "effect"}]) == len(items)
    said = report.markdown(summary)
    page = report.html(summary)
    for group in summary.groups:
        for finding in group.findings:
            assert said.count(f"| {finding.label} |".replace("_", "\\_")) == 1
            assert finding.label in page
    lines = list(csv.DictReader(io.StringIO(report.csv(report.verdicts(made)))))
    assert [line["verdict"] for line in lines] == [item.verdict for item in items]
    found = json.loads(report.json_text(report.verdicts(made)))
    assert [e["estimate"] for e in found["effects"]] == [e.estimate for e in made.analysis.effects]
    assert found["k"] == made.analysis.rules.k


def test_differences_by_seed_are_those_of_the_verdicts_whatever_an_arm_is_held_against(made):
    summary = summarise(made)
    shown = {row.arm: cells for s in summary.sections for row, cells in s.pairs.rows}
    for c in made.analysis.comparisons:
        assert shown[c.arm] == pytest.approx([100 * d for _, d in c.differences])


def test_a_fraction_says_what_it_is_and_names_the_aliases_of_each_effect():
    summary = summarise(material("fractional", "fraction: {cells: 8}\n"))
    assert "a fraction of all combinations, 2^(4−1), resolution IV" in dict(summary.facts)["Compared"]
    said = report.markdown(summary)
    assert said.count("this fraction cannot tell it from") == 3


def test_a_path_in_progress_is_provisional_and_says_how_far_it_came():
    found = material("path")
    assert found.analysis.provisional
    summary = summarise(found)
    assert "width 32 (" in summary.headline
    assert "then depth 3 (" in summary.headline
    assert [section.title for section in summary.sections] == ["Step 1", "Step 2", "Step 3"]
    assert "32 comparisons that a greedy path might have made" in dict(summary.methods)["The interval"]


def test_a_search_is_reported_as_a_search_without_the_frame_of_verdicts():
    found = report_examples.searched()
    summary = summarise(found)
    assert (summary.groups, summary.rows, summary.looks) == ((), (), ())
    assert "first came to val/accuracy" in summary.headline
    assert "no verdict" in summary.answer[1]
    facts = dict(summary.facts)
    assert facts["Searched"] == "optimizer.lr and model.width: 12 trials, tpe sampler"
    assert facts["Cost"].startswith("21 runs")
    assert dict(summary.counts) == {"trained": 21, "pruned": 0, "diverged": 1, "failed": 0}
    assert {run.label.split()[0] for run in summary.runs} == {"lr"}, "a run is called by what it tried"
    points = summary.tuning.pareto.points
    front = {(p.cost, p.value) for p in points if p.front}
    trials = [p for p in points if p.candidate is None]
    assert len(trials) == 11
    assert front == {
        (p.cost, p.value)
        for p in trials
        if not any(o.cost <= p.cost and o.value >= p.value and o is not p for o in trials)
    }
    assert len(summary.tuning.front) == 1 + len(front)
    assert [p.candidate for p in points if p.candidate is not None] == [1, 2, 3]
    said, page = report.markdown(summary), report.html(summary)
    for text in (said, page):
        assert "is no verdict" in text
        assert "may lie beyond" in text
        assert "may be on the front by luck" in text
    assert 'id="verdicts"' not in page
    assert "No arm is judged" not in page
    (searched,) = json.loads(report.json_text(report.verdicts(found)))["tuning"]["searches"]
    assert {(t["cost"], 100 * t["value"]) for t in searched["trials"] if t["front"]} == front
    assert "tabular" in report.latex(summary)
    assert report.csv(report.verdicts(found)).strip() == ""


def test_how_two_factors_act_together_is_drawn_from_the_cells():
    found = material("factorial")
    summary = summarise(found)
    assert len(summary.crossings) == 6
    (drawn,) = [c for c in summary.crossings if {c.factor, c.other} == {"Width", "Learning rate"}]
    assert drawn.across == ("16", "32")
    assert [name for name, _ in drawn.lines] == ["0.05", "0.2"]
    base = {s.arm: s.mean for s in (found.analysis.baseline, *found.analysis.cells)}

    def mean(wide, fast):
        of = [
            value for arm, value in base.items() if ("width=32" in arm) == wide and ("lr=0.2" in arm) == fast
        ]
        assert len(of) == 4
        return 100 * sum(of) / 4

    for (_, line), fast in zip(drawn.lines, (False, True), strict=True):
        assert line == pytest.approx((mean(False, fast), mean(True, fast)))
    assert summarise(material("fractional", "fraction: {cells: 8}\n")).crossings == ()


def test_interactions_are_a_group_of_their_own_and_neither_help_nor_hurt():
    found = report_examples.factorial()
    summary = summarise(found)
    by_key = {group.key: [finding.arm for finding in group.findings] for group in summary.groups}
    assert by_key.pop("interactions") == ["model.width=128 × augment.flip=false"]
    assert not any(" × " in arm for arms in by_key.values() for arm in arms)
    said = report.markdown(summary)
    assert "is positive: +0.5 points" in said
    assert "together they do better than the sum of what each does alone" in said
    assert summary.answer[0] == "Of 2 main effects, 1 helps and 1 hurts; the interaction is positive."
    assert "Interactions" in report.html(summary)


def test_the_best_combination_is_named_as_one_that_was_picked_and_is_bold():
    found = report_examples.factorial()
    summary = summarise(found)
    cells = {s.arm: s.mean for s in (found.analysis.baseline, *found.analysis.cells)}
    best = max(cells, key=cells.get)
    assert best == "model.width=128"
    shown = f"{100 * cells[best]:.2f}"
    assert f"The best combination is width 128, with {shown} % on average" in summary.answer[1]
    assert "picked as the best of 4, so expect less of it on fresh seeds" in summary.answer[1]
    [bold] = [line for line in report.latex(summary).splitlines() if "\\mathbf" in line]
    assert shown in bold


def with_curves(found):
    """The material with curves of two epochs for every run."""
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "phase": "report",
            "epoch": epoch,
            "metric": metric,
            "value": 1 - value / epoch,
        }
        for arm, seed, value in zip(
            found.replicates["arm"], found.replicates["seed"], found.replicates["value"], strict=True
        )
        for metric in ("train/loss", "val/loss")
        for epoch in (2, 1)
    ]
    return replace(found, curves=pd.DataFrame(rows))


def test_the_curves_of_a_factorial_design_have_the_colours_of_the_verdicts_that_they_stand_beside():
    found = with_curves(report_examples.factorial())
    [section] = summarise(found).sections
    [curves] = section.curves
    assert {arm.arm: arm.verdict for arm in curves.arms} == {
        "model.width=128": "helps",
        "augment.flip=false": "hurts",
        "model.width=128,augment.flip=false": "",
    }
    page = report.html(summarise(found))
    verdicts = page[page.index('id="verdicts"') : page.index('id="curves"')]
    assert (
        verdicts.count('<svg class="curve tone-helps') == verdicts.count('<svg class="curve tone-hurts') == 1
    )
    assert "of the combination that changes this alone" in verdicts
    # Nothing is announced above interactions, which have no curves.
    effects, _, interactions = verdicts.partition("Interactions")
    assert (effects.count("loss over 2 epochs"), interactions.count("loss over 2 epochs")) == (2, 0)
    assert "has the colour of that main effect&#39;s verdict; the others have no colour" in page


def test_a_fraction_has_its_loss_curves_though_none_is_that_of_an_effect():
    page = report.html(summarise(with_curves(material("fractional", "fraction: {cells: 8}\n"))))
    verdicts, _, rest = page.partition('id="curves"')
    assert ">Loss curves</a>" in verdicts
    assert 'class="curve' not in verdicts
    assert "Curves: " not in verdicts
    assert "Combinations have no verdict of their own, and no colour." in rest


def test_a_table_of_effects_has_no_columns_that_only_the_baseline_fills():
    page = report.html(summarise(report_examples.factorial()))
    table = page[page.index('id="arms-table"') :].partition("</table>")[0]
    assert "val/accuracy" not in table
    assert "positive" in table
    assert "Effects seed by seed" in page
    assert "val/accuracy by combination" in page
