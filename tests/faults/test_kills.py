"""kill -9 at random moments: every run is finished once in the end, to the bit. The long form is in `make soak`."""

from __future__ import annotations

import random

import kills
import pytest


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return kills.undisturbed(tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.parametrize("seed", range(1))
def test_a_study_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(tmp_path, expected, seed):
    draw = random.Random(seed)
    victims = draw.sample(kills.VICTIMS, 2)
    assert len(expected) == kills.RUNS
    assert kills.survive(tmp_path, expected, draw, victims).wrong == []
