"""The arithmetic of one look, against the protocol's vectors and against scipy and statsmodels."""

import math

import numpy as np
import pytest
from analysis_frames import V3, V4
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from ablate.analysis.intervals import (
    HELPS,
    HURTS,
    INCONCLUSIVE,
    NEGLIGIBLE,
    intervals,
    moderate,
    paired_variance,
    sequence,
    t_quantile,
    typical_noise,
    verdict_codes,
)
from ablate.analysis.rules import extra_alpha, schedule


def look(differences, *, alpha, k, margin=0.5, q=0.0, kept=None):
    arms = [np.asarray(d, float) for d in differences]
    return intervals(
        np.array([d.mean() for d in arms]),
        np.array([float(paired_variance(d, q)) for d in arms]),
        np.array([d.size for d in arms]),
        alpha=alpha,
        k=k,
        margin=margin,
        kept=kept,
    )


def six(*values):
    return pytest.approx(values, abs=5e-7)


def test_v1_declared_looks_share_forty_five_thousandths_and_extra_ones_halve_the_rest():
    def alphas(*looks, most):
        return tuple(look.alpha for look in schedule(looks, most))

    assert alphas(5, 10, 11, 20, most=10) == six(0.01125, 0.03375, 0.0025, 0.00125)
    assert alphas(3, 5, 8, most=8) == six(0.006328, 0.011250, 0.027422)
    assert alphas(3, 4, 10, most=10) == six(0.00405, 0.00315, 0.0378)
    assert sum(alphas(3, 5, 8, most=8)) == sum(alphas(*range(1, 9), most=8)) == pytest.approx(0.045)
    assert sum(extra_alpha(i) for i in range(1, 60)) == pytest.approx(0.005)


def test_v2_one_arm_has_the_plain_t_interval():
    found = look([[0.8, 0.3, 0.6, 0.5, 0.9]], alpha=0.045, k=1)
    assert float(t_quantile(1 - 0.045 / 2, np.array([4.0]))[0]) == pytest.approx(2.880290, abs=5e-7)
    assert (found.half[0], found.lo[0], found.hi[0]) == six(0.307531, 0.312469, 0.927531)
    assert found.p_adjusted[0] == pytest.approx(0.004862, abs=5e-7)
    assert found.code.tolist() == [HELPS]


def test_v3_five_arms_borrow_from_their_median_noise():
    found = look(V3.values(), alpha=0.01125, k=5)
    assert float(found.typical) == pytest.approx(0.101290, abs=5e-7)
    assert found.df.tolist() == [8.0] * 5
    assert found.variance == six(0.093145, 0.063145, 0.100645, 1.005, 0.063145)
    assert found.half == six(0.602203, 0.495830, 0.625979, 1.978091, 0.495830)
    assert found.lo == six(0.397797, -0.495830, -0.425979, -3.178091, -0.395830)
    assert found.hi == six(1.602203, 0.495830, 0.825979, 0.778091, 0.595830)
    assert found.p_adjusted[0] == pytest.approx(0.001817, abs=5e-7)
    assert found.code.tolist() == [HELPS, NEGLIGIBLE, INCONCLUSIVE, INCONCLUSIVE, INCONCLUSIVE]


def test_v4_at_the_second_look_decided_arms_keep_their_noise():
    first = look(V3.values(), alpha=0.01125, k=5)
    kept = np.where(first.code == INCONCLUSIVE, np.nan, first.corrected)
    found = look(V4.values(), alpha=0.03375, k=5, kept=kept)
    assert float(found.typical) == pytest.approx(0.062808, abs=5e-7)
    assert found.df[2:].tolist() == [13.0] * 3
    assert float(t_quantile(1 - 0.03375 / 10, np.array([13.0]))[0]) == pytest.approx(3.216481, abs=5e-7)
    assert found.lo[2:] == six(-0.008385, -2.057298, -0.083954)
    assert found.hi[2:] == six(0.488385, -0.502702, 0.263954)
    assert found.p_adjusted[2:4] == six(0.061625, 0.001072)
    assert found.code[2:].tolist() == [NEGLIGIBLE, HURTS, NEGLIGIBLE]


def test_v6_honest_ties_have_the_noise_of_the_metric_s_resolution():
    q = 100 / 360
    tied = look([[0, 0, 0]], alpha=0.045, k=1, q=q)
    assert (tied.lo[0], tied.hi[0]) == six(-0.365128, 0.365128)
    assert tied.code.tolist() == [NEGLIGIBLE]
    shifted = look([[q] * 5], alpha=0.045, k=1, q=q)
    assert (shifted.lo[0], shifted.hi[0]) == six(0.098874, 0.456681)
    assert shifted.code.tolist() == [NEGLIGIBLE]


def test_one_arm_agrees_with_scipy_s_paired_t_test():
    rng = np.random.default_rng(1)
    arm, base = rng.normal(1, 2, 12), rng.normal(0, 1, 12)
    found = look([arm - base], alpha=0.05, k=1)
    reference = stats.ttest_rel(arm, base)
    interval = reference.confidence_interval(0.95)
    assert (found.lo[0], found.hi[0]) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.p_adjusted[0] == pytest.approx(reference.pvalue, rel=1e-12)


def test_four_arms_agree_with_statsmodels_bonferroni_intervals():
    rng = np.random.default_rng(2)
    d = rng.normal(0.3, 1, (4, 9))
    found = look(d, alpha=0.05, k=4)
    for i, row in enumerate(d):
        assert (found.lo[i], found.hi[i]) == pytest.approx(
            DescrStatsW(row).tconfint_mean(0.05 / 4), rel=1e-10
        )
    raw = [stats.ttest_1samp(row, 0).pvalue for row in d]
    assert found.p_adjusted == pytest.approx(multipletests(raw, 0.05, method="bonferroni")[1], rel=1e-10)


def test_moderation_is_smyth_s_average_until_an_arm_is_noisier_than_typical():
    variance = np.array([1.0, 4.0, 25.0])
    pooled, df = moderate(variance, np.array([6.0, 6.0, 2.0]), np.array(4.0))
    assert pooled.tolist() == [(6 * 1 + 4 * 4) / 10, 4.0, 25.0]
    # The typical noise counts for four degrees of freedom, but never for more than the arm has itself.
    assert df.tolist() == [10.0, 10.0, 4.0]


def test_four_arms_are_too_few_to_borrow_from():
    assert math.isnan(float(typical_noise(np.array([1.0, 2.0, 3.0, 4.0]))))
    assert math.isnan(float(typical_noise(np.array([1.0, 2.0, 3.0, 4.0, np.nan]))))
    assert float(typical_noise(np.array([1.0, 2.0, 3.0, 4.0, 5.0, np.nan]))) == 3.0
    assert math.isnan(float(typical_noise(np.array([]))))


def test_two_pairs_give_no_interval():
    found = look([[0.1, 0.2]], alpha=0.045, k=1)
    assert np.isnan(found.lo[0])
    assert np.isnan(found.p_adjusted[0])
    assert found.code.tolist() == [INCONCLUSIVE]


def test_no_difference_without_noise_is_no_evidence():
    found = look([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], alpha=0.045, k=2)
    assert found.p_adjusted.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("lo", "hi", "code"),
    [
        (0.1, 0.4, NEGLIGIBLE),  # real, and yet below the margin
        (-0.4, 0.4, NEGLIGIBLE),
        (0.1, 0.5, HELPS),  # touching the margin is not inside it
        (-0.5, -0.1, HURTS),
        (-0.5, 0.4, INCONCLUSIVE),
        (0.0, 0.6, INCONCLUSIVE),  # touching zero excludes nothing
        (-0.6, 0.0, INCONCLUSIVE),
        (np.nan, np.nan, INCONCLUSIVE),
    ],
)
def test_an_interval_says_one_thing(lo, hi, code):
    assert int(verdict_codes(np.array([lo]), np.array([hi]), 0.5)[0]) == code


def test_leading_axes_broadcast_to_the_same_numbers_as_one_study_at_a_time():
    rng = np.random.default_rng(3)
    d = rng.normal(size=(7, 6, 5))
    together = intervals(
        d.mean(-1), paired_variance(d, 0.1), np.full((7, 6), 5), alpha=0.01125, k=6, margin=0.5
    )
    for i in range(7):
        alone = look(d[i], alpha=0.01125, k=6, q=0.1)
        assert together.lo[i].tolist() == alone.lo.tolist()
        assert together.p_adjusted[i].tolist() == alone.p_adjusted.tolist()


def test_looks_gone_through_at_once_freeze_what_was_decided():
    rng = np.random.default_rng(4)
    d = rng.normal(0.9, 0.5, size=(200, 5, 10))
    found = sequence(d, ((5, 0.01125), (10, 0.03375)), k=5, margin=0.5)
    first = intervals(
        d[..., :5].mean(-1),
        paired_variance(d[..., :5], 0),
        np.full((200, 5), 5),
        alpha=0.01125,
        k=5,
        margin=0.5,
    )
    decided = first.code != INCONCLUSIVE
    assert 0.1 < decided.mean() < 0.9
    assert np.array_equal(found.look == 1, decided)
    assert found.lo[decided].tolist() == first.lo[decided].tolist()
    assert np.array_equal(found.code[decided], first.code[decided])


finite = st.floats(-1e3, 1e3, allow_nan=False)


@given(
    mean=hnp.arrays(float, 6, elements=finite),
    variance=hnp.arrays(float, 6, elements=st.floats(0, 1e6)),
    pairs=hnp.arrays(np.int64, 6, elements=st.integers(0, 30)),
    alpha=st.floats(1e-6, 0.05),
    k=st.integers(1, 50),
    margin=st.floats(1e-3, 1e3),
)
def test_p_is_below_five_percent_exactly_when_the_interval_excludes_zero(
    mean, variance, pairs, alpha, k, margin
):
    found = intervals(mean, variance, pairs, alpha=alpha, k=k, margin=margin)
    usable = pairs >= 3
    excludes = (found.lo > 0) | (found.hi < 0)
    # Within rounding of the boundary either answer is right.
    clear = usable & (np.abs(found.p_adjusted - 0.05) > 1e-9)
    assert np.array_equal((found.p_adjusted < 0.05)[clear], excludes[clear])


@given(
    variance=hnp.arrays(float, 7, elements=st.floats(0, 1e6)),
    df=hnp.arrays(float, 7, elements=st.integers(2, 40).map(float)),
    typical=st.floats(0, 1e6),
)
def test_moderated_noise_never_falls_below_an_arm_s_own(variance, df, typical):
    moderated, total = moderate(variance, df, np.array(typical))
    assert (moderated >= variance).all()
    assert (total <= df + 4).all()
