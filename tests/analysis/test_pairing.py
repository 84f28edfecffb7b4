"""What pairing gained: against the definition, and where nothing can be said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from ablate.analysis.pairing import MOST_SEEDS, pairing

OPTIONS = {"alpha": 0.05, "k": 3, "moderated": False, "resolution": 0.0}


def results(seed: int, n: int, shared: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of an arm and of its reference, whose correlation is about shared²/(1 + shared²)."""
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=n)
    return common + rng.normal(size=n), common + rng.normal(size=n)


@pytest.mark.parametrize("shared", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_seeds_without_pairing_are_the_fewest_that_give_as_narrow_an_interval(n, shared):
    own, reference = results(n, n, shared)
    differences = own - reference
    half = stats.t.ppf(1 - 0.05 / 6, n - 1) * differences.std(ddof=1) / math.sqrt(n)
    found = pairing(own, reference, half, **OPTIONS)
    assert found.correlation == pytest.approx(stats.pearsonr(own, reference).statistic)
    variance = own.var(ddof=1) + reference.var(ddof=1)

    def unpaired(runs: int) -> float:
        return stats.t.ppf(1 - 0.05 / 6, runs - 1) * math.sqrt(variance / runs)

    assert unpaired(found.unpaired_seeds) <= half < unpaired(found.unpaired_seeds - 1)
    assert (found.unpaired_seeds > n) == (found.correlation > 0)


def test_borrowed_noise_needs_fewer_seeds():
    own, reference = results(1, 4, 3.0)
    plain = pairing(own, reference, 1.5, **OPTIONS)
    borrowed = pairing(own, reference, 1.5, **OPTIONS | {"moderated": True})
    assert borrowed.unpaired_seeds <= plain.unpaired_seeds


@pytest.mark.parametrize(
    ("own", "reference"), [([1.0, 2.0], [1.0, 3.0]), ([1.0] * 5, [1.0, 2, 3, 4, 5]), ([], [])]
)
def test_without_noise_or_pairs_nothing_is_said(own, reference):
    assert pairing(own, reference, 1.0, **OPTIONS) is None


def test_beyond_what_anyone_would_train_no_number_is_given():
    own, reference = results(2, 5, 1.0)
    assert pairing(own, reference, 1e-9, **OPTIONS).unpaired_seeds is None
    assert pairing(own, reference, None, **OPTIONS).unpaired_seeds is None
    assert MOST_SEEDS > 999
