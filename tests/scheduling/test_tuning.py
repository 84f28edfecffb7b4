"""Learning rates that are tuned for every arm, and searches: from the study file to what is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# The best rate of an arm depends on its width, so that arms compared at one rate are compared at different distances from
# their best.
PEAK = '''
import math
import random


def fit(config, seed):
    """Accuracy falls with the squared distance from the best rate, in decades; that is 0.1 / width."""
    noise = random.Random(f"{sorted(config.items())}/{seed}")
    off = math.log10(config["lr"]) - math.log10(0.1 / config["width"])
    for epoch in range(1, config["epochs"] + 1):
        loss = math.nan if config["lr"] > config["most"] else 1.0
        reached = 0.8 + config["gain"] - 0.05 * off**2 + noise.gauss(0, 0.001)
        accuracy = reached * (0.5 + 0.5 * epoch / config["epochs"])
        yield {"train/loss": loss, "val/loss": loss, "val/accuracy": accuracy}
'''

TUNED = """
study: tuned
margin: 0.02
train: peak:fit
baseline: {{lr: 0.1, width: 1, gain: 0.0, epochs: {epochs}, most: 2.0}}
factors: {factors}
nuisance: {{lr: {{log: [{low}, 1], trials: {trials}}}}}
{more}
seeds: {seeds}
"""


@pytest.fixture
def peak(workplace):
    Path("peak.py").write_text(PEAK)
    Path("pyproject.toml").write_text('[tool.ablate]\nimports = ["peak"]\n')

    def write(factors="{width: [100]}", low="1e-5", trials=10, seeds="3", epochs=1, more=""):
        text = TUNED.format(factors=factors, low=low, trials=trials, seeds=seeds, epochs=epochs, more=more)
        Path("tuned.yaml").write_text(text)
        return "tuned.yaml"

    return write


def verdicts(workplace, name="tuned"):
    return json.loads(workplace.ablate("report", name, "--format", "json"))


def test_arms_meet_at_the_rates_that_suit_them(workplace, peak):
    study = peak()
    workplace.ablate("run", study, "--executor", "inline")
    found = verdicts(workplace)
    (arm,) = found["arms"]
    assert arm["verdict"] == "no practical effect"
