"""What is read off a learning-rate range test, on curves whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ablate.analysis.rates import REACHED, levels, range_test

RATES = np.geomspace(1e-5, 10, 120).tolist()


def curve(seed=0, *, centre=1e-2, fall=1.5, noise=0.03, blows_up=1.0):
    """Flat, then down along a logistic of the rate, then up without end."""
    x = np.log10(RATES)
    loss = 2.3 - fall / (1 + np.exp(-4 * (x - np.log10(centre))))
    loss += 5 * np.maximum(0, x - np.log10(blows_up)) ** 2
    return (loss + np.random.default_rng(seed).normal(0, noise, len(x))).tolist()


@pytest.mark.parametrize("centre", [1e-3, 1e-2, 1e-1])
def test_the_suggestion_lies_where_most_of_the_fall_is_made(centre):
    expected = centre * 10 ** (np.log(REACHED / (1 - REACHED)) / 4)
    found = range_test(RATES, [curve(seed, centre=centre, blows_up=100 * centre) for seed in range(3)])
    assert expected / 1.6 < found.suggestion < expected * 1.6
    assert found.between[0] <= found.suggestion <= found.between[1]
    assert found.lowest == pytest.approx(0.8, abs=0.05)
    assert found.start == pytest.approx(2.3, abs=0.05)


def test_the_order_of_seeds_does_not_matter():
    curves = [curve(seed) for seed in range(3)]
    assert range_test(RATES, curves).suggestion == range_test(RATES, curves[::-1]).suggestion


def test_seeds_that_diverged_early_say_what_they_saw_before():
    curves = [curve(seed)[: 90 - seed] for seed in range(3)]
    found = range_test(RATES, curves)
    assert len(found.smooth) == 89
    assert found.suggestion == range_test(RATES, [curve(seed) for seed in range(3)]).suggestion


@pytest.mark.parametrize(
    ("rates", "curves", "said"),
    [
        (RATES[::8], [curve()[::8]], "only 15 steps"),
        (RATES, [curve(seed, fall=0, noise=0.1) for seed in range(3)], "does not fall clearly"),
        (RATES[:60], [curve(seed)[:60] for seed in range(3)], "still falls at the highest rate"),
        (RATES, [[2.3, 30.0]] * 3, "hopeless from the first steps on"),
        (RATES, [[2.3, float("nan")]] * 3, "hopeless from the first steps on"),
        (RATES, [[2.3]], "hopeless from the first steps on"),
        (np.geomspace(1e-5, 1e30, 40), [[2.3, 2.2, 2.1, 2.0, 30.0]] * 3, "end lower with --to"),
        (RATES, [[]] * 3, "the loss is not finite at the lowest rate, 1e-05: begin lower with --from"),
        (RATES, [[float("nan")] * len(RATES)], "the loss is not finite at the lowest rate"),
        (RATES[:1], [[]], "the loss is not finite at the lowest rate"),
        (RATES, [curve(), []], "the loss of 1 of 2 seeds is not finite at the lowest rate"),
        (
            RATES,
            [curve(0, centre=1e-4, blows_up=0.01), curve(1), curve(2, centre=0.3, blows_up=10)],
            "the seeds disagree",
        ),
    ],
)
def test_an_inconclusive_test_says_why_and_suggests_nothing(rates, curves, said):
    found = range_test(rates, curves)
    assert said in found.reason
    assert found.suggestion is None
    assert found.levels == ()
    json.dumps(found.to_json(), allow_nan=False)


def test_a_seed_that_diverges_at_once_does_not_outvote_two_that_do_not():
    curves = [curve(0), [], curve(1)]
    assert range_test(RATES, curves).suggestion is not None


def test_noise_alone_is_seldom_taken_for_a_fall():
    flat = [
        range_test(RATES, [curve(3 * i + k, fall=0, noise=0.1, blows_up=99) for k in range(3)])
        for i in range(100)
    ]
    assert sum(found.suggestion is not None for found in flat) <= 5


def test_levels_are_decades_from_1e_5_to_beyond_the_suggestion_which_is_no_level_itself():
    assert levels(0.05, 1e-5) == (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    assert levels(0.1, 1e-5) == (1e-5, 1e-4, 1e-3, 1e-2, 1.0)
    assert levels(2e-3, 1e-4) == (1e-4, 1e-3, 1e-2)
