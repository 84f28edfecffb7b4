"""Ranges and choices in a study file: what is tuned per arm, and what a search looks through."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


ALIKE = (
    0,
    False,
    "0",
    "false",
    1,
    True,
    "1",
    "true",
    None,
    "null",
    "",
    "None",
    [0],
    [False],
    "[0]",
    {"a": 1},
    {"a": True},
)


@given(st.lists(st.sampled_from(range(len(ALIKE))), min_size=2, unique=True))
def test_choices_that_look_alike_are_told_apart_by_optuna_and_read_back_with_their_types(chosen):
    values = [ALIKE[place] for place in chosen]
    setting = ranges.read("x", values, "")
    labels = [choice.label for choice in setting.choices]
    assert len(set(labels)) == len(values)
    for value, label in zip(values, labels, strict=True):
        drawn = setting.draw(lambda _, label=label: label)
        assert json.dumps(drawn) == json.dumps(value)
        assert setting.parameters(value) == {"x": label}
    (again,) = ranges.from_plain(json.loads(json.dumps(ranges.to_plain([setting]))))
    assert again == setting


@pytest.mark.parametrize("values", [[8, 16], [0.1, 1], ["a", "b"], [True, False], ["a", 1], ["0", 1]])
def test_choices_that_cannot_be_confused_are_labelled_by_themselves(values):
    """As the studies in stores have them: a stored categorical cannot change."""
    assert [choice.label for choice in ranges.read("x", values, "").choices] == values
