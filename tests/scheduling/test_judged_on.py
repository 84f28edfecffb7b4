"""Projects without a validation split: `judged_on: test`, which the report says at its top."""

from __future__ import annotations

import json

import pytest

OWN = """
import random

def fit(config, seed):
    rng = random.Random(f"{sorted(config.items())}/{seed}")
    for epoch in range(1, 6):
        values = {"train/loss": rng.random()}
        if epoch % 2 == 0:
            values |= {"test/accuracy": 0.5 + config["gain"] + rng.gauss(0, 0.001), "test/loss": 0.5}
        yield values
"""
STUDY = """
study: own
margin: 0.02
train: scored:fit
metric: {metric}
baseline: {{gain: 0.0}}
factors: {{gain: [0.2]}}
seeds: 3
"""
SAID = "Arms are chosen on the test set (test/accuracy)"


@pytest.fixture
def study(workplace):
    (workplace.root / "scored.py").write_text(OWN)
    (workplace.root / "pyproject.toml").write_text('[tool.ablate]\nimports = ["scored"]\n')

    def write(more: str = "", metric: str = "test/accuracy") -> str:
        (workplace.root / "own.yaml").write_text(STUDY.format(metric=metric) + more)
        return "own.yaml"

    return write


def test_a_study_judged_on_the_test_set_says_so_wherever_it_speaks(workplace, study):
    workplace.ablate("run", study("judged_on: test\n"), "--executor", "inline")
    found = json.loads(workplace.ablate("report", "own", "--format", "json"))
    assert found["judged_on"] == "test"
    assert found["warnings"][0].startswith(SAID)
    [arm] = found["arms"]
    assert (arm["verdict"], arm["n"], arm["test_effect"]) == ("helps", 3, None)
    assert 0.48 < found["baseline"]["mean"] < 0.52
    assert any("up to 1 epoch earlier" in warning for warning in found["warnings"])
    text = workplace.ablate("report", "own", "--format", "md")
    assert f"**Caveat.** {SAID}" in text.replace("\\", "")
    workplace.ablate("report", "own")
    page = (workplace.root / "reports" / "own.html").read_text()
    # At the top, in the methods; and the metric has its curve.
    assert page.count("Arms are chosen on the test set") >= 2
    assert page.index("Arms are chosen on the test set") < page.index('id="methods"')
    assert "never used to choose" not in page
    run = next(run for run in workplace.runs("own"))
    assert [m.step for m in workplace.client.get_metric_history(run.info.run_id, "test/accuracy")] == [2, 4]


@pytest.mark.parametrize("metric", ["test/accuracy", "test_acc"])
def test_without_it_a_metric_of_the_test_set_is_refused_with_the_way_out(workplace, study, metric):
    said = workplace.ablate("run", study(metric=metric), "--dry-run", code=2)
    assert "would choose arms by the test set" in said
    assert "judged_on: test" in said


def test_it_is_one_of_two_and_not_for_the_built_in_training(workplace, study):
    said = workplace.ablate("run", study("judged_on: tets\n"), "--dry-run", code=2)
    assert "validation or test" in said
    (workplace.root / "tiny.yaml").write_text(
        "study: tiny\nmargin: 0.1\nbaseline: {data: {name: digits}, model: {name: cnn}}\n"
        "factors: {model.width: [4]}\njudged_on: test\n"
    )
    said = workplace.ablate("run", "tiny.yaml", "--dry-run", code=2)
    assert "keeps validation data" in said


def test_a_study_on_validation_data_says_that_of_itself(workplace):
    workplace.trained()
    found = json.loads(workplace.ablate("report", "toy", "--format", "json"))
    assert found["judged_on"] == "validation"
    assert not any("test set" in warning for warning in found["warnings"])


COMMAND = r"""
study: own
margin: 0.02
command: [python, script.py, "{gain}", "{seed}"]
metric: {metric}
metrics:
  accuracy: {line: 'Accuracy: ([\d.]+)'}
  val/loss: {line: 'Loss: ([\d.]+)'}
  quality: {line: 'Quality: ([\d.]+)'}
epoch: val/loss
baseline: {gain: 0.0}
factors: {gain: [0.2]}
seeds: 3
"""
SCRIPT = """
import random, sys
gain, seed = map(float, sys.argv[1:])
rng = random.Random(f"{gain}/{seed}")
for epoch in range(1, 6):
    if epoch % 2 == 0:
        print("Accuracy:", 0.5 + gain + rng.gauss(0, 0.001))
        print("Quality:", rng.random())
    print("Loss:", rng.random(), flush=True)
"""


def test_a_command_can_be_judged_on_a_metric_of_the_test_set_that_not_every_epoch_has(workplace):
    (workplace.root / "script.py").write_text(SCRIPT)
    (workplace.root / "own.yaml").write_text(COMMAND.replace("{metric}", "accuracy") + "judged_on: test\n")
    workplace.ablate("run", "own.yaml", "--executor", "inline", "--allow-command")
    found = json.loads(workplace.ablate("report", "own", "--format", "json"))
    assert (found["judged_on"], found["arms"][0]["verdict"], found["arms"][0]["n"]) == ("test", "helps", 3)
    assert found["warnings"][0].startswith("Arms are chosen on the test set (accuracy)")
    assert any("6 of 6 runs accuracy was read at an epoch before the last" in w for w in found["warnings"])


def test_a_command_s_metric_needs_a_direction_where_its_name_does_not_tell(workplace):
    (workplace.root / "script.py").write_text(SCRIPT)
    (workplace.root / "own.yaml").write_text(COMMAND.replace("{metric}", "quality"))
    said = workplace.ablate("run", "own.yaml", "--dry-run", "--allow-command", code=2)
    assert "'quality' does not say whether more of it is better" in said
    assert "direction: maximize" in said


def test_the_study_that_confirms_a_search_is_judged_as_the_search_was(workplace, study):
    path = study("judged_on: test\nunpaired: true\ndesign: search\nsearch: {trials: 3, candidates: 1}\n")
    text = (workplace.root / path).read_text()
    (workplace.root / path).write_text(text.replace("gain: [0.2]", "gain: {range: [0.1, 0.3]}"))
    workplace.ablate("run", path, "--executor", "inline")
    workplace.ablate("init", "confirmed", "--from", "own", "-o", "confirmed.yaml")
    written = (workplace.root / "confirmed.yaml").read_text()
    assert "judged_on: test" in written
    assert "unpaired: true" in written
