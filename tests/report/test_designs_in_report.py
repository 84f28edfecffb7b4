"""Designs with arms of several references, and fractions, as their reports show them."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pytest
from report_examples import EMPTY_CURVES, replicate

from ablate import report
from ablate.analysis import judge
from ablate.analysis.plan import rules
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
        spec.parse(f"{STUDY}design: {kind}\n{more}"), lambda _: design.Data("digits", 900, 300, 100)
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
    lines = list(csv.DictReader(io.StringIO(report.csv(made))))
    assert [line["verdict"] for line in lines] == [item.verdict for item in items]
    found = json.loads(report.json_text(made))
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
