"""The simulation of where verdicts are wrong more often than 5 %: no more often than docs/verdicts.md says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks" / "limits.py"


@pytest.fixture(scope="module")
def limits():
    spec = importlib.util.spec_from_file_location("limits_benchmark", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def within_three(rate, limit, studies):
    return abs(rate - limit) <= 3 * (limit * (1 - limit) / studies) ** 0.5


@pytest.mark.parametrize(
    ("ratio", "noisy", "arms", "looks", "said"),
    [
        (3.0, 2, 20, (5,), 0.065),
        (10.0, 2, 20, (3,), 0.131),
        (10.0, 1, 5, (5, 10), 0.041),
        (10.0, 2, 4, (3,), 0.05),
    ],
)
def test_noisy_arms_are_missed_as_often_as_the_page_says(limits, ratio, noisy, arms, looks, said):
    draw = limits.unequal_noise(np.random.default_rng(0), ratio, noisy)
    found = limits.paired_misses(draw, arms, looks, 0.0, 3000)
    assert found <= said or within_three(found, said, 3000)


def test_a_run_in_ten_that_collapses_is_not_seen_in_five(limits):
    draw = limits.collapsing(np.random.default_rng(1), 0.1)
    assert within_three(limits.paired_misses(draw, 1, (5,), -0.08, 2000), 0.59, 2000)
    assert within_three(limits.unpaired_misses(draw, 1, 5, -0.08, 2000), 0.59, 2000)
