"""Designs from their file to their verdicts, on real trainings and on made-up ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ablate.standing import standing
from ablate.tracking.store import current_store

DIGITS = """
study: {design}
margin: 0.02
baseline:
  data: {{name: digits, subset: 200, validation: 0.5}}
  model: {{name: cnn, depth: 1, width: 4}}
  optimizer: {{name: sgd, lr: 0.1}}
  schedule: {{name: constant}}
  training: {{epochs: 1, batch_size: 50}}
factors:
  model.width: [8]
  optimizer.lr: [0.0001]
  training.batch_size: [25]
design: {design}
{more}
seeds: 3
"""

LEFT_TO_TRAIN = {
    "factorial": 24,
    "fractional": 0,
    "both": 0,
    "path": 0,
    "leave-one-out": 0,
    "one-at-a-time": 0,
}


def verdicts(workplace, name):
    return json.loads(workplace.ablate("report", name, "--format", "json"))


@pytest.mark.slow
def test_every_design_of_three_factors_on_digits_is_made_of_the_same_eight_configurations(workplace):
    for name, runs in LEFT_TO_TRAIN.items():
        more = "fraction: {cells: 4}" if name == "fractional" else ""
        Path(f"{name}.yaml").write_text(DIGITS.format(design=name, more=more))
        said = workplace.ablate("run", f"{name}.yaml", "--executor", "inline")
        trained = [r for r in workplace.runs(name) if "ablate.source_run" not in r.data.tags]
        assert len(trained) == runs, said
    found = {name: verdicts(workplace, name) for name in LEFT_TO_TRAIN}
    assert {name: (len(f["arms"]), len(f["effects"]), f["k"]) for name, f in found.items()} == {
        "factorial": (0, 6, 6),
        "fractional": (0, 3, 3),
        "both": (6, 3, 9),
        "path": (6, 0, 12),
        "leave-one-out": (3, 0, 3),
        "one-at-a-time": (3, 0, 3),
    }
    (rate,) = [e for e in found["factorial"]["effects"] if e["terms"] == ["optimizer.lr=0.0001"]]
    assert rate["estimate"] < 0, "without a learning rate to speak of less is learned"
    assert found["path"]["path"][-1] == "model.width=8,optimizer.lr=0.0001,training.batch_size=25"
    alone = {arm["arm"]: arm["effect"] for arm in found["both"]["arms"]}
    given = {effect["terms"][0]: effect["given_the_rest"] for effect in found["both"]["effects"]}
    assert given["optimizer.lr=0.0001"] == pytest.approx(-alone["full but optimizer.lr=0.1"])
    page = workplace.ablate("report", "fractional", "--format", "md")
    assert "this fraction cannot tell it from" in page
    for name in ("both", "path", "fractional"):
        workplace.ablate("report", name)
        assert Path(f"reports/{name}.html").stat().st_size > 10_000


PATH = "design: path\n"


def test_a_path_that_was_broken_off_goes_on_the_way_it_went(workplace, pass_by_runs):
    study = workplace.study(factors="{gain: [0.2], width: [16], spread: [0.002]}", more=PATH)
    assert "3 more configurations follow" in workplace.ablate("run", study, "--dry-run")
    pass_by_runs(0.1)
    workplace.ablate("run", study, "--executor", "inline", "--budget", "1.3s")
    broken = verdicts(workplace, "toy")
    assert broken["provisional"]
    assert len(broken["path"]) < 3
    workplace.ablate("run", study, "--executor", "inline")
    whole = verdicts(workplace, "toy")
    assert whole["path"][: len(broken["path"])] == broken["path"]
    assert whole["path"][0] == "gain=0.2"
    assert whole["path"][-1] == "gain=0.2,width=16,spread=0.002"
    assert {arm["reference"] for arm in whole["arms"]} == {"baseline", *whole["path"][:-1]}
    assert (whole["provisional"], whole["runs"]["missing"]) == (False, 0)
    trained = {run.info.run_id for run in workplace.runs()}
    assert len(trained) == (1 + 3 * 4 // 2) * 3, "no configuration but those on the way, and none twice"
    assert len(workplace.runs(kind="report")) == 1, "it is one plan"
    workplace.ablate("run", study, "--executor", "inline")
    assert {run.info.run_id for run in workplace.runs()} == trained, "a finished path is not walked again"


def test_a_path_ends_where_everything_diverges(workplace):
    study = workplace.study(factors="{diverges: [true], gain: [0.2]}", more=PATH)
    said = workplace.ablate("run", study, "--executor", "inline")
    assert "the path ends at gain=0.2" in said
    found = verdicts(workplace, "toy")
    assert found["path"] == ["gain=0.2"]
    assert not found["provisional"]
    assert {arm["arm"]: arm["verdict"] for arm in found["arms"]} == {
        "diverges=true": "unstable",
        "gain=0.2": "helps",
        "diverges=true,gain=0.2": "unstable",
    }


def test_the_plan_of_a_fraction_names_its_aliases(workplace):
    study = workplace.study(
        factors="{gain: [0.2], width: [16], spread: [0.002], epochs: [3]}",
        more="design: fractional\nfraction: {cells: 8}\n",
    )
    said = workplace.ablate("plan", study)
    assert "a fraction of all combinations: 8 cells, 2^(4−1), resolution IV; 7 effects" in said
    assert "epochs takes the place of the interaction gain × width × spread" in said
    assert "gain × width cannot be told from spread × epochs" in said
    found = json.loads(workplace.ablate("plan", study, "--json"))
    assert found["family"] == 7
    assert found["fraction"]["generators"] == {"epochs": ["gain", "width", "spread"]}
    assert sum(bool(effect["aliases"]) for effect in found["fraction"]["effects"]) == 3


def test_the_list_of_studies_counts_an_interaction_as_positive_or_negative(workplace):
    Path("pair.py").write_text(
        "import random\n"
        "def fit(config, seed):\n"
        "    noise = random.Random(f'{sorted(config.items())}/{seed}').gauss(0, 0.001)\n"
        "    yield {'val/accuracy': 0.5 + 0.2 * config['a'] * config['b'] + noise}\n"
    )
    Path("pair.yaml").write_text(
        "study: pair\nmargin: 0.02\ntrain: pair:fit\nbaseline: {a: 0, b: 0}\n"
        "factors: {a: [1], b: [1]}\nseeds: 3\ndesign: factorial\n"
    )
    workplace.ablate("run", "pair.yaml", "--executor", "inline", "--allow-import", "pair")
    assert dict(standing(current_store(), "pair").verdicts) == {"helps": 2, "positive": 1}
