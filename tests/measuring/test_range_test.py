"""The learning-rate range test on real digits."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from ablate.data import datasets
from ablate.errors import StudyError
from ablate.executors import Slot
from ablate.executors.inline import InlineExecutor
from ablate.measuring import range_test
from ablate.scheduling import rates
from ablate.study import spec

STUDY = """
study: digits
margin: 0.02
baseline:
  data: {name: digits, validation: 0.25}
  model: {name: cnn, depth: 2, width: 8}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 2, batch_size: 32}
factors:
  model.dropout: [0.5]
seeds: 3
"""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(workplace):
    return spec.parse(STUDY).baseline


@pytest.fixture
def digits(config):
    return datasets.prepare(config.data)


def test_the_rate_rises_in_equal_ratios_over_one_pass(config, digits):
    given, losses = range_test.losses(config, digits, 1e-5, 10.0)
    assert len(given) == 34, "1,078 images in batches of 32"
    assert (given[0], given[-1]) == pytest.approx((1e-5, 10.0))
    assert {round(b / a, 6) for a, b in itertools.pairwise(given)} == {round(1e6 ** (1 / 33), 6)}
    assert len(losses) <= 34


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(config, digits):
    short = config.override({"training.batch_size": 256})
    first, again, other = (
        range_test.losses(short.with_seed(seed), digits, 1e-3, 1.0)[1] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_rate_that_ruins_the_network_ends_the_test(config, digits):
    config = config.override({"model.batch_norm": False, "training.batch_size": 16})
    given, losses = range_test.losses(config, digits, 1e-3, 1e6)
    assert len(losses) < len(given)


@pytest.mark.parametrize(
    "changes",
    [{"optimizer.name": "adam"}, {"optimizer.name": "adamw"}, {"model.name": "numpy_mlp"}],
    ids=lambda changes: next(iter(changes.values())),
)
def test_every_optimizer_and_the_network_in_numpy_learn_in_it(config, digits, changes):
    _, losses = range_test.losses(config.override(changes), digits, 1e-4, 1.0, passes=2)
    assert min(losses) < 0.8 * losses[0]


def test_seeds_run_on_an_executor_and_give_a_rate_near_those_that_work(workplace):
    study = spec.parse(STUDY)
    said = []
    found = rates.range_test(
        study, rates.Sweep(passes=3), InlineExecutor(range_test.run, Slot("inline", "cpu")), said.append
    )
    assert len(found.losses) == len(said) == 3
    # A sweep (benchmarks/lr.py) finds 0.03 to 1 within two points of the best.
    assert 0.03 <= found.suggestion <= 1
    pasted = spec.parse(f"study: again\nmargin: 0.02\n{_merged(study, rates.paste(study, found))}")
    assert pasted.baseline.get("optimizer.lr") == found.suggestion
    assert [row["optimizer.lr"] for row in pasted.factors[0].levels] == list(found.levels)


def _merged(study, paste) -> str:
    """What a person does with the suggestion: its optimizer into the baseline, its factor into the factors."""
    optimizer, _, factors = paste.removeprefix("baseline:\n").partition("factors:")
    rest = json.dumps({k: v for k, v in study.baseline.tree().items() if k in {"data", "model", "training"}})
    tree = "\n".join(f"  {name}: {json.dumps(value)}" for name, value in json.loads(rest).items())
    return f"baseline:\n{tree}\n{optimizer}factors:{factors}\nseeds: 3\n"


def test_the_command_writes_a_page_and_what_it_found(workplace):
    (workplace.root / "digits.yaml").write_text(STUDY)
    said = workplace.ablate(
        "lr", "digits.yaml", "--seeds", "2", "--workers", "1", "--set", "data.subset=200", "--json"
    )
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert found["suggestion"] is None
    assert "one pass is only 5 steps" in found["reason"]
    assert [len(curve) for curve in found["losses"]] == [5, 5]
    assert "one pass is only 5 steps" in (workplace.root / "reports" / "digits-lr.html").read_text()


def test_a_network_that_shrinks_its_input_to_nothing_is_named_with_what_to_do(workplace):
    (workplace.root / "digits.yaml").write_text(STUDY)
    output = workplace.ablate("lr", "digits.yaml", "--set", "model.name=small_cnn", code=2)
    assert "model.kernel_size: an input of 8×8 pixels is too small for small_cnn" in output
    assert "data.resize: 16 is the smallest size that works" in output


def test_training_of_ones_own_is_refused(workplace):
    output = workplace.ablate("lr", workplace.study(), code=2)
    assert "only the built-in training" in output


@pytest.mark.parametrize(
    ("low", "high", "wrong"),
    [
        (0.0, 1.0, "--from"),
        (1.0, 1.0, "--to"),
        (2.0, 1.0, "--to"),
        (-1.0, 1.0, "--from"),
        (float("nan"), 1.0, "--from"),
        (float("inf"), 1.0, "--from"),
        (1.0, float("nan"), "--to"),
        (1.0, float("inf"), "--to"),
        (1e-5, 0.0, "--to"),
        (1e-5, -1.0, "--to"),
    ],
)
def test_rates_that_do_not_rise_or_have_no_end_are_refused(low, high, wrong):
    with pytest.raises(StudyError, match=f"^{wrong}: rates from .* are no range"):
        rates.Sweep(low, high)
