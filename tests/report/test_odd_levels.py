"""Levels that hold what separates names and values elsewhere: every arm and effect keeps a name and a verdict of its own."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from report_examples import EMPTY_CURVES, replicate

from ablate import report
from ablate.analysis import judge
from ablate.analysis.plan import rules
from ablate.data.facts import DataFacts
from ablate.report.summary import Material, summarise
from ablate.study import design, spec

ODD = {
    "comma and equals sign": ("x", "x,b=y"),
    "the name of another arm": ("b=y", "y"),
    "times": ("x", "x × b=y"),
    "quotes": ("'x'", '"x"', "x"),
    "text that looks like another kind": ("true", "null", "1", "1e3", ""),
    "the same text as another kind": (1, "1", None, "null", "'1'"),
    "newlines and tabs": ("x\ny", "x\\ny", "x y", "x\ty"),
    "braces and brackets": ("{depth: 2}", "[1, 2]", [1, 2], ["1, 2"], {"depth": 2}),
    "colons and spaces": ("x: y", " x", "x ", "x"),
    "names of arms that are there anyway": ("baseline", "full", "A/A", "full but a=base"),
    "markup": ("<b>x</b>", "${x}", "{{x}}", "%{x}"),
}
DESIGNS = ("one-at-a-time", "leave-one-out", "both", "factorial", "fractional", "path")


@pytest.fixture
def own_training(tmp_path, monkeypatch):
    (tmp_path / "odd_levels.py").write_text("def fit(config, seed):\n    yield {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "odd_levels:fit"
    sys.modules.pop("odd_levels", None)


def planned(train, kind, factors):
    text = {
        "study": "odd",
        "train": train,
        "metric": "val/accuracy",
        "margin": 0.005,
        "baseline": dict.fromkeys(factors, "base"),
        "factors": factors,
        "design": kind,
        "seeds": 3,
    } | ({"fraction": {"cells": 4}} if kind == "fractional" else {})
    return design.plan(spec.parse(yaml.safe_dump(text, allow_unicode=True)), lambda _: DataFacts())


def material(plan):
    while choices := plan.choices:
        plan = plan.onward(choices[0].name)
    rng = np.random.default_rng(0)
    rows = [replicate(arm.name, s, 0.8 + rng.normal(0, 0.01)) for arm in plan.arms for s in range(3)]
    record, frame = plan.record(), pd.DataFrame(rows)
    return Material(record, judge(rules(record), frame, EMPTY_CURVES), frame, EMPTY_CURVES)


@pytest.mark.parametrize("kind", DESIGNS)
@pytest.mark.parametrize("levels", ODD.values(), ids=ODD)
def test_every_arm_and_effect_has_a_verdict_whatever_its_level_is_called(own_training, levels, kind):
    several = kind in {"one-at-a-time", "factorial"}
    odd = list(levels)
    tables = (
        [{"a": odd, "b": [*odd, "z"]}]
        if several
        else [{"a": [one], "b": [other], "c": ["y"]} for one, other in itertools.pairwise(odd)]
    )
    for factors in tables:
        plan = planned(own_training, kind, factors)
        names = [arm.name for arm in plan.arms]
        assert len(set(names)) == len(names)
        made = material(plan)
        found = made.analysis
        told = report.verdicts(made)
        assert len(told["arms"]) == len(found.comparisons)
        assert len({tuple(e.terms) for e in found.effects}) == len(found.effects) == len(told["effects"])
        summary = summarise(made)
        assert sum(len(group.findings) for group in summary.groups) == len(found.comparisons) + len(
            found.effects
        )
        differences = [dict(item.differences) for item in (*found.comparisons, *found.effects)]
        shown = [cells for section in summary.sections for _, cells in section.pairs.rows]
        if kind not in {"both", "path"}:
            assert shown == [tuple(100 * d[seed] for seed in range(3)) for d in differences]
        report.csv(told)
