"""Which plan of the store a command means that was given a file: the one that came from it, or it says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import ablate
from ablate import given_study

TWO_PLANS = {"study.yaml": "{gain: [0.2]}", "other.yaml": "{gain: [0.3]}"}


@pytest.fixture
def both(workplace, monkeypatch):
    """Two files of one study, both of which have run; the second last. Returns what running them printed."""
    for file, factors in TWO_PLANS.items():
        Path(workplace.study(factors=factors, seeds="2")).rename(file)
        monkeypatch.setattr(sys, "argv", ["ablate", "run", file])
        printed = workplace.ablate("run", file, "--executor", "inline", "-q")
    assert "toy has run from another file too" in printed
    assert "`ablate run study.yaml`" in printed
    return workplace


def changed(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def test_a_file_means_the_plan_that_came_from_it(both):
    shown = {file: both.ablate("report", file, "--format", "csv") for file in (*TWO_PLANS, "toy")}
    assert "\ngain=0.2," in shown["study.yaml"]
    assert "the plan that came from it is" in shown["study.yaml"]
    assert shown["other.yaml"] == shown["toy"]
    assert "\ngain=0.3," in shown["toy"]
    assert "the plan that came from it is" in both.ablate("status", "study.yaml")
    for file, level in {"study.yaml": 0.2, "other.yaml": 0.3, "toy": 0.3}.items():
        assert [each.arm for each in ablate.load(file)] == [f"gain={level}"]
    assert "two plans of the study 'toy'" in both.ablate("report", *TWO_PLANS, code=2)

    # A comment, another order, or a question that is put otherwise makes no other study.
    changed("study.yaml", "margin: 0.02\n", "# what counts\n")
    Path("study.yaml").write_text(Path("study.yaml").read_text() + "margin: 0.020\nquestion: Is it better?\n")
    assert "\ngain=0.2," in both.ablate("report", "study.yaml", "--format", "csv")

    both.ablate("top-up", "study.yaml", "--seeds", "1", "--executor", "inline", "-q")
    (verdicts,) = json.loads(both.ablate("report", "toy", "--format", "json"))["arms"]
    assert (verdicts["arm"], verdicts["n"]) == ("gain=0.2", 3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[0.2]", "[0.4]"),
        ("margin: 0.02", "margin: 0.01"),
        ("epochs: 2", "epochs: 3"),
        ("seeds: 2", "seeds: 4"),
    ],
)
def test_where_no_plan_came_from_a_file_the_latest_is_shown_and_said_to_be_another(workplace, old, new):
    file = workplace.trained(factors="{gain: [0.2]}", seeds="2")
    changed(file, old, new)
    said = f"{file}: no plan of toy came from this text"
    for command in (["report", file, "--format", "csv"], ["status", file]):
        assert said in workplace.ablate(*command)
    assert said in workplace.ablate("top-up", file, "--seeds", "1", code=2)
    given = given_study.find(workplace.store, file)
    assert (given.name, given.plan, given.is_of_file) == ("toy", None, False)
