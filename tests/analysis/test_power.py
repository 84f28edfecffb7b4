"""Detectable effects and the price of certainty, against the protocol's vectors, statsmodels and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from ablate.analysis import power
from ablate.analysis.contents import Beyond
from ablate.analysis.intervals import INCONCLUSIVE, intervals, paired_variance
from ablate.analysis.power import assumed_noise, best_of, detectable, more_seeds, reach


@pytest.mark.parametrize(
    ("k", "n", "alpha", "effect"),
    [
        (1, 5, 0.045, 1.734679),
        (6, 5, 0.01125, 2.533857),
        (6, 10, 0.03375, 1.343001),
        (20, 10, 0.03375, 1.557085),
    ],
)
def test_v8_effect_with_80_percent_power(k, n, alpha, effect):
    assert detectable(k, n, alpha) == pytest.approx(effect, abs=5e-7)


def test_detectable_effect_agrees_with_statsmodels_where_nothing_is_borrowed():
    solved = TTestPower().solve_power(nobs=8, alpha=0.045 / 6, power=0.9, alternative="larger")
    assert detectable(3, 8, 0.045, power=0.9) == pytest.approx(solved, rel=1e-6)


def test_two_pairs_detect_nothing():
    assert detectable(1, 2, 0.045) == math.inf


def test_more_pairs_detect_less():
    effects = [detectable(6, n, 0.03375) for n in range(3, 40)]
    assert effects == sorted(effects, reverse=True)


def test_a_margin_is_within_reach_when_the_detectable_effect_is_no_larger():
    assert reach(1, 5, 0.045, noise=0.2, margin=0.5).within
    assert not reach(1, 5, 0.045, noise=0.3, margin=0.5).within
    assert reach(1, 5, 0.045, noise=0.3, margin=0.5).effect == pytest.approx(0.3 * 1.734679, abs=1e-6)


def test_v5_price_of_certainty():
    c = np.array([0.4, -0.3, 0.5, 0.1, 0.3])
    price = more_seeds(
        float(c.mean()),
        0.1006450717,
        8.0,
        5,
        alpha=0.03375,
        k=5,
        margin=0.5,
        moderated=True,
        seconds_per_pair=20.0,
    )
    assert (price.n50, price.n80, price.n_any) == (11, 15, 16)
    assert (price.probability50, price.probability80) == pytest.approx((0.580756, 0.812751), abs=5e-7)
    assert (price.seconds50, price.seconds80, price.seconds_any) == (120.0, 200.0, 220.0)


def test_price_agrees_with_drawing_the_grid_and_the_future_at_random():
    rng = np.random.default_rng(5)
    mean, variance, n, total, k, alpha, margin = 0.2, 0.1, 5, 11, 1, 0.03375, 0.5
    draws = 200_000
    sigma = np.sqrt(4 * variance / rng.chisquare(4, draws))
    theta = mean + sigma * rng.normal(size=draws) / math.sqrt(n)
    whole = (n * mean + (total - n) * rng.normal(theta, sigma / math.sqrt(total - n))) / total
    half = stats.t.ppf(1 - alpha / 2 / k, total - 1) * sigma / math.sqrt(total)
    settled = ((np.abs(whole) > half) | (np.abs(whole) + half < margin)).mean()
    price = more_seeds(mean, variance, 4.0, n, alpha=alpha, k=k, margin=margin, moderated=False)
    assert price.n50 is not None
    # The 15 × 15 grid has no far tails, so it agrees with random draws only about.
    assert (price.n50 <= total) == (settled > 0.5)
    assert abs(price.probability50 - settled) < 0.05 or price.n50 != total


def test_a_margin_far_below_the_noise_has_no_price():
    price = more_seeds(0.0, 1.0, 4.0, 5, alpha=0.0025, k=20, margin=1e-4, moderated=False)
    assert (price.n80, price.n_any) == (None, None)
    assert price.seconds_any is None


def test_a_price_is_more_pairs_than_there_are():
    price = more_seeds(0.3, 0.001, 9.0, 10, alpha=0.0025, k=1, margin=0.5, moderated=False)
    assert price.n50 == 11
    assert price.n_any == 11


def test_at_n_any_pairs_every_effect_is_settled():
    price = more_seeds(0.2, 0.1, 4.0, 5, alpha=0.03375, k=1, margin=0.5, moderated=False)
    n = price.n_any
    d = np.random.default_rng(6).normal(size=n)
    d = (d - d.mean()) / d.std(ddof=1) * math.sqrt(0.1)
    for effect in np.linspace(-1.5, 1.5, 301):
        found = intervals(
            np.array([effect]),
            np.array([float(paired_variance(d, 0))]),
            np.array([n]),
            alpha=0.03375,
            k=1,
            margin=0.5,
        )
        assert found.code[0] != 0


def test_the_best_of_equal_arms_looks_better_by_the_expected_maximum():
    assert [round(best_of(k), 2) for k in (1, 5, 10, 20)] == [0.0, 1.16, 1.54, 1.87]


def test_noise_assumed_from_one_arm_is_that_of_two_independent_ones():
    values = np.array([0.9, 0.92, np.nan, 0.94])
    assert assumed_noise(values) == pytest.approx(0.02 * math.sqrt(2))
    assert assumed_noise(np.array([0.9, np.nan])) is None


# --- beyond the most seeds -------------------------------------------------------------------------------------------


def test_seeds_of_a_fresh_study_settle_an_arm_as_often_as_they_promise():
    """By drawing noise and effect from what was seen, then the fresh study: what `fresh_seeds` averages over its grid."""
    rng = np.random.default_rng(0)
    mean, variance, pairs, margin, k = 0.5, 1.0, 10, 0.2, 2
    n = power.fresh_seeds(mean, variance, pairs - 1.0, pairs, alpha=0.045, k=k, margin=margin)
    studies = 20_000
    sigma = np.sqrt((pairs - 1) * variance / rng.chisquare(pairs - 1, studies))
    d = (mean + sigma * rng.standard_normal(studies) / math.sqrt(pairs))[:, None] + sigma[
        :, None
    ] * rng.standard_normal((studies, n))
    found = intervals(
        d.mean(axis=-1)[:, None],
        d.var(axis=-1, ddof=1)[:, None],
        np.full((studies, 1), n),
        alpha=0.045,
        k=k,
        margin=margin,
    )
    assert np.mean(found.code != INCONCLUSIVE) == pytest.approx(0.8, abs=0.04)


def test_fresh_runs_without_pairs_cost_what_pairs_of_the_same_noise_do():
    seeds = power.fresh_seeds(1.0, 2.0, 400.0, 400, alpha=0.05, k=1, margin=0.1)
    runs = power.fresh_runs(1.0, (1.0, 1.0), (400.0, 400.0), (400, 400), alpha=0.05, k=1, margin=0.1)
    assert abs(runs - seeds) <= 6, "Banerjee's interval adds the two sides as if each could be the noisy one"


@pytest.mark.parametrize(
    ("extra", "fresh", "writable", "recommended"),
    [
        (None, None, True, None),
        (30, None, True, "extra"),
        (None, 30, True, "fresh"),
        (30, 29, True, "fresh"),
        (29, 30, True, "extra"),
        (29, None, False, "extra"),
    ],
)
def test_the_cheaper_way_beyond_the_most_seeds_is_recommended(extra, fresh, writable, recommended):
    assert Beyond(2, extra, fresh, writable).recommended == recommended
