"""Studies whose runs share nothing, from the plan to the report: `unpaired: true`."""

from __future__ import annotations

import json

import pytest

BUILT_IN = """
study: tiny
margin: 0.02
baseline:
  data: {name: digits, subset: 200}
  model: {name: cnn, width: 2, depth: 1}
  training: {epochs: 1}
factors: {model.width: [4]}
seeds: 3
unpaired: true
"""


def verdicts(workplace, name: str = "toy") -> dict:
    return json.loads(workplace.ablate("report", name, "--format", "json"))


def run(workplace, *arguments: str, code: int = 0) -> str:
    return workplace.ablate(*arguments, "--executor", "inline", code=code)


def test_a_study_of_groups_from_its_plan_over_looks_and_a_top_up_to_its_report(workplace):
    study = workplace.study(
        factors="{gain: [0.2], spread: [0.06]}", seeds="{initial: 3, max: 5}", more="unpaired: true\n"
    )
    workplace.train(study, "--executor", "inline")
    planned = workplace.ablate("plan", study)
    assert "noise of a difference of two runs" in planned
    assert "5 runs of each arm detect" in planned
    found = verdicts(workplace)
    helps, open_arm = found["arms"]
    assert (found["paired"], found["n_baseline"], found["look"]) == (False, 5, 2)
    assert (helps["verdict"], helps["n"], helps["n_baseline"], helps["look"]) == ("helps", 3, 3, 1)
    assert (open_arm["verdict"], open_arm["n"], open_arm["n_baseline"]) == ("inconclusive", 5, 5)
    run(workplace, "top-up", "toy", "--seeds", "2")
    again = verdicts(workplace)
    assert again["arms"][0] == helps, "what is decided stays as it was"
    assert (again["arms"][1]["n"], again["n_baseline"]) == (7, 7)

    text = workplace.ablate("report", "toy", "--format", "md")
    assert "3 runs against 3" in text
    assert "| Runs |" in text
    workplace.ablate("report", "toy")
    page = (workplace.root / "reports" / "toy.html").read_text()
    assert "no two of its runs share anything" in page
    assert "The runs of each arm" in page
    assert "no seed was to make two of them alike" in page
    assert "seed by seed" not in page


@pytest.mark.parametrize("design", ["leave-one-out", "factorial", "path"])
def test_every_design_compares_groups(workplace, design):
    study = workplace.study(factors="{gain: [0.2], width: [16]}", more=f"design: {design}\nunpaired: true\n")
    workplace.train(study, "--executor", "inline")
    found = verdicts(workplace)
    assert found["paired"] is False
    judged = [*found["arms"], *found["effects"]]
    assert judged
    assert all(item["ci"] is not None for item in judged)
    workplace.ablate("report", "toy")
    page = (workplace.root / "reports" / "toy.html").read_text()
    assert ("Σ w²" in page) == (design == "factorial")
    anchors = {part.split('"')[0] for part in page.split('href="#')[1:]}
    assert {anchor for anchor in anchors if anchor and f'id="{anchor}"' not in page} == set()


def test_the_built_in_training_can_be_compared_so_too(workplace):
    path = workplace.root / "tiny.yaml"
    path.write_text(BUILT_IN)
    run(workplace, "run", str(path))
    [arm] = verdicts(workplace, "tiny")["arms"]
    assert (arm["n"], arm["n_baseline"], arm["ci"] is not None, arm["ci_new_images"] is not None) == (
        3,
        3,
        True,
        True,
    )
    assert arm["test_effect"] is not None


def test_nothing_is_both_deterministic_and_unpaired(workplace):
    study = workplace.study(more="deterministic: true\nunpaired: true\n")
    message = workplace.ablate("run", study, "--dry-run", code=2)
    assert "keep the one that is true of your training" in message
