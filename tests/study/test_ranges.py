"""Ranges and choices in a study file: what is tuned per arm, and what a search looks through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ablate.data.facts import DataFacts
from ablate.errors import StudyError
from ablate.study import design, ranges, spec
from ablate.study.record import TunedArm

BASE = """
study: some
margin: 0.01
baseline:
  data: {name: digits}
  model: {name: cnn, depth: 2, width: 16}
"""
TUNED = BASE + "factors: {model.width: [32]}\nnuisance: {optimizer.lr: {log: [1.0e-5, 1], trials: 9}}\n"
SEARCH = BASE + "factors: {optimizer.lr: {log: [1.0e-5, 1]}, training.batch_size: [32, 64]}\ndesign: search\n"
OWN = """
study: some
margin: 0.01
train: mine:fit
baseline: {lr: 0.1}
factors: {lr: {log: [1.0e-5, 1]}}
design: search
search: {trials: 5}
"""


def made(text):
    return design.plan(spec.parse(text), lambda _: DataFacts("digits", 900, 300, 100))


def test_what_is_tuned_is_part_of_the_plan_and_comes_back_from_its_record():
    plan = made(TUNED)
    assert plan.id != made(TUNED.replace("trials: 9", "trials: 10")).id
    assert plan.record().runs == (), "nobody knows yet what the arms will train"
    tuned = {arm.name: TunedArm({"optimizer.lr": 0.5}, True, (), {}, arm.name) for arm in plan.arms}
    record = replace(plan.record(), tuned=tuned)
    again = design.from_record(record)
    assert again.id == plan.id
    run = again.run("model.width=32", 0)
    assert again.config(run).get("optimizer.lr") == 0.5
    fixed = again.run("model.width=32", 0, "fixed")
    assert again.config(fixed).get("optimizer.lr") == plan.arm("baseline").config.get("optimizer.lr")
    assert fixed.key != run.key


@pytest.mark.parametrize(
    ("text", "wrong", "instead"),
    [
        (TUNED, "{log: [1.0e-5, 1], trials: 9}", "{log: [0, 1]}"),
        (TUNED, "{log: [1.0e-5, 1], trials: 9}", "{log: [1, 0.1]}"),
        (TUNED, "{log: [1.0e-5, 1], trials: 9}", "{logs: [1.0e-5, 1]}"),
        (TUNED, "{log: [1.0e-5, 1], trials: 9}", "0.1"),
        (TUNED, "{log: [1.0e-5, 1], trials: 9}", "{log: [1.0e-5, 1], trials: many}"),
        (TUNED, "nuisance: {optimizer.lr", "nuisance: {model.width"),
        (TUNED, "nuisance: {optimizer.lr", "nuisance: {optimizer.rate"),
        (TUNED, "nuisance: {optimizer.lr", "nuisance: {data.subset"),
        (TUNED, "nuisance:", "search: {sampler: best}\nnuisance:"),
        (TUNED, "nuisance:", "search: {pruner: asha, cost: flops}\nnuisance:"),
        (TUNED, "nuisance:", "design: path\nnuisance:"),
        (SEARCH, "[32, 64]", "[32]"),
        (SEARCH, "[32, 64]", "[32, none]"),
        (SEARCH, "design: search", "design: search\nsearch: {cost: flops, pruner: asha}"),
        (SEARCH, "design: search", "design: search\nsearch: {budget: soon}"),
        (SEARCH, "design: search", "search: {trials: 5}"),
        (OWN, "trials: 5", "cost: flops"),
    ],
)
def test_a_mistake_in_a_range_is_named_with_its_place(text, wrong, instead):
    assert wrong in text
    with pytest.raises(StudyError) as caught:
        made(text.replace(wrong, instead))
    assert caught.value.place
    assert caught.value.place.startswith("study:")


def test_a_block_is_drawn_with_the_ranges_in_it_and_read_back():
    plain = [{"name": "cnn", "depth": {"int": [1, 3]}, "width": 8}, {"name": "tutorial_cnn"}]
    models = ranges.read("model", plain, "")
    drawn = models.draw(lambda asked: {"model": "cnn", "model.cnn.depth": 2}[asked.path])
    assert drawn == {"name": "cnn", "width": 8, "depth": 2}
    assert models.parameters(drawn) == {"model": "cnn", "model.cnn.depth": 2}
    assert models.parameters({"name": "tutorial_cnn"}) == {"model": "tutorial_cnn"}
    assert models.plain() == [{"name": "cnn", "width": 8, "depth": {"int": [1, 3]}}, {"name": "tutorial_cnn"}]
    with pytest.raises(StudyError):
        models.parameters({"name": "cnn", "width": 9, "depth": 2})


@pytest.mark.parametrize(("value", "edge"), [(1e-5, "lower"), (1e-3, ""), (0.5, "upper"), (0.2, "")])
def test_the_edge_of_a_range_is_a_tenth_of_its_own_scale(value, edge):
    assert ranges.read("lr", {"log": [1e-5, 1]}, "").edge(value) == edge
