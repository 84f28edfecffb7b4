"""Copies among runs: found where there are some, and hardly ever where there are none."""

from __future__ import annotations

import numpy as np
import pytest

from ablate.analysis.ties import are_copies, has_copies, repeating, step


@pytest.mark.parametrize("resolution", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize("runs", [5, 10, 40])
def test_independent_runs_are_seldom_taken_for_copies(resolution, runs):
    draw = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        a, b = 0.6 + 0.004 * draw.standard_normal((2, runs))
        if resolution:
            a, b = (np.round(x / resolution) * resolution for x in (a, b))
        q = resolution or step([a, b])
        wrong += has_copies(a, q) + has_copies(b, q) + are_copies(a, b, q)
    assert wrong <= 3


@pytest.mark.parametrize("steps", [150, 1000])
def test_the_step_of_a_share_is_seen_where_it_is_not_told(steps):
    draw = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        a, b = draw.binomial(steps, 0.9, (2, 10)) / steps
        q = step([a, b])
        wrong += has_copies(a, q) + are_copies(a, b, q)
    assert wrong <= 3


@pytest.mark.parametrize("resolution", [0.0, 1e-4])
def test_copies_are_found(resolution):
    draw = np.random.default_rng(2)
    a, b = np.round(0.6 + 0.004 * draw.standard_normal((2, 5)), 4)
    q = resolution or step([a, b])
    assert has_copies(np.concatenate([a, a]), q)
    assert are_copies(a[::-1], a, q)
    assert not are_copies(a, b, q)


def test_a_metric_that_saturates_is_no_copy():
    draw = np.random.default_rng(3)
    a = np.minimum(1.0, 1.0 + 0.1 * draw.standard_normal(40))
    assert not has_copies(a, step([a]))


def collapsing(draw, runs):
    good, bad = draw.binomial(100, 0.95, runs), draw.binomial(100, 0.1, runs)
    return np.where(draw.random(runs) < 0.2, bad, good) / 100


def many_times_noisier(draw, runs):
    return np.round(0.5 + 0.2 * draw.standard_normal(runs), 2)


@pytest.mark.parametrize("other", [collapsing, many_times_noisier])
@pytest.mark.parametrize("runs", [5, 10, 20, 40])
def test_runs_that_tie_are_no_copies_beside_an_arm_of_much_more_noise(other, runs):
    draw = np.random.default_rng(5)
    wrong = 0
    for _ in range(100):
        a, b = draw.binomial(100, 0.95, runs) / 100, other(draw, runs)
        q = step([a, b])
        wrong += has_copies(a, q, 2) + has_copies(b, q, 2) + are_copies(a, b, q, 2)
    assert wrong <= 3


REPEATED = [0, 1, 2, 0, 1, 0]
"""Six seeds of which three are others again."""


def single(values):
    return values.astype(np.float32).astype(float)


@pytest.mark.parametrize(
    "honest",
    [
        *(lambda draw, n=n: draw.integers(0, n, 3) / n for n in (7, 30, 360, 9973, 10_000)),
        *(lambda draw, n=n: draw.integers(0, n, 3) / n * 100 for n in (7, 30, 360, 9973, 10_000)),
        *(lambda draw, n=n: 1 - draw.integers(0, n, 3) / n for n in (30, 9973)),
        *(lambda draw, d=d: np.round(draw.normal(0, 10.0 ** (3 - d), 3), d) for d in range(10)),
        lambda draw: single(draw.integers(0, 9973, 3) / 9973),
        lambda draw: single(draw.normal(0, 1, 3)),
        lambda draw: draw.integers(-(10**6), 10**6, 3).astype(float),
        lambda draw: np.array([0.0, np.inf, -np.inf]) + draw.integers(0, 2, 3),
    ],
)
def test_values_that_two_runs_have_by_chance_repeat_nothing(honest):
    draw = np.random.default_rng(4)
    for _ in range(50):
        assert repeating({arm: honest(draw)[REPEATED] for arm in "ab"}) == []


def matthews(draw):
    right, left = draw.binomial(15, 0.9, (2, 10)).astype(float)
    wrong, missed = 15 - left, 15 - right
    return (right * left - wrong * missed) / np.sqrt((right + wrong) * (left + missed)) / 15


OF_FEW_COUNTS = {
    "Matthews correlation": matthews,
    "root of an error": lambda draw: np.sqrt(draw.binomial(30, 0.2, 10) / 30),
    "nDCG": lambda draw: (draw.random((10, 5)) < 0.7) @ (1 / np.log2(np.arange(2, 7))),
    "balanced accuracy": lambda draw: np.mean([draw.binomial(n, 0.95, 10) / n for n in (13, 7, 31)], axis=0),
}


@pytest.mark.parametrize("metric", OF_FEW_COUNTS.values(), ids=OF_FEW_COUNTS)
def test_values_of_few_counts_that_arms_share_are_no_repeats(metric):
    draw = np.random.default_rng(6)
    wrong = sum(bool(repeating({arm: metric(draw) for arm in "abcd"})) for _ in range(50))
    assert wrong <= 5


def test_copies_are_seen_beside_collapsed_runs_and_arms_that_are_one():
    own, collapsed = np.random.default_rng(7).normal(0, 1, 3), np.log([10.0])
    copied = own[REPEATED]
    assert repeating({"a": copied, "b": copied}) == ["a", "b"]
    assert repeating({"a": copied, "b": own}) == ["a"]
    both = {"a": np.append(copied, collapsed), "b": np.append(copied + 1, collapsed)}
    assert repeating(both) == ["a", "b"]


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e-3, 1.0, 1e5, 1e300])
@pytest.mark.parametrize("center", [0.0, 3.0])
def test_values_of_full_precision_that_come_again_are_repeats(center, scale):
    draw = np.random.default_rng(5)
    for _ in range(50):
        own = scale * (center + draw.normal(0, 1, 3))
        other = scale * (center + draw.normal(0, 1, 6))
        assert repeating({"a": own[REPEATED], "b": other}) == ["a"]
        assert repeating({"a": own, "b": other}) == []
        assert (
            repeating({"a": own[[0, 1, 2, 0]], "b": other}) == []
        )  # one row that was copied is no sign of ignored seeds
