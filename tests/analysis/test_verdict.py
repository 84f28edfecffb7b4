"""Verdicts read from frames: every rule of the protocol, one behaviour a test."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate.analysis import ArmRule, judge, undecided, winner
from ablate.analysis.intervals import sequence
from ablate.analysis.verdict import new_images_half
from ablate.errors import StoreError, StudyError
from analysis_frames import V3, V4, change, drop, replicates, row, rules


def six(*values):
    return pytest.approx(values, abs=5e-7)


def only(found):
    (comparison,) = found.comparisons
    return comparison


# --- the protocol's vectors, through the frames ---


def test_v3_from_frames():
    found = judge(rules("ABCDE"), replicates(V3))
    a, b, c, d, e = found.comparisons
    assert [x.verdict for x in found.comparisons] == [
        "helps",
        "no practical effect",
        "inconclusive",
        "inconclusive",
        "inconclusive",
    ]
    assert (a.lo, a.hi, a.p_adjusted) == six(0.397797, 1.602203, 0.001817)
    assert (c.lo, c.hi) == six(-0.425979, 0.825979)
    assert (d.lo, d.hi) == six(-3.178091, 0.778091)
    assert (e.lo, e.hi) == six(-0.395830, 0.595830)
    assert [x.ruled_out for x in (a, b, c, d, e)] == [None, None, "loss", None, "loss"]
    assert (found.look, found.pairs, found.alpha) == (1, 5, pytest.approx(0.01125))
    assert undecided(found) == ["C", "D", "E"]


def test_v4_decided_arms_stay_frozen_at_the_look_that_decided_them():
    frame = drop(drop(replicates(V4), "A", *range(5, 10)), "B", *range(5, 10))
    found = judge(rules("ABCDE"), frame)
    a, b, c, d, e = found.comparisons
    assert (a.lo, a.hi, a.look, a.n, a.alpha) == (*six(0.397797, 1.602203).expected, 1, 5, pytest.approx(0.01125))
    assert (b.verdict, b.look) == ("no practical effect", 1)
    assert (c.verdict, c.look, c.lo, c.hi) == ("no practical effect", 2, *six(-0.008385, 0.488385).expected)
    assert c.p_adjusted == pytest.approx(0.061625, abs=5e-7)
    assert (d.verdict, d.clearly) == ("hurts", True)
    assert (d.lo, d.hi, d.p_adjusted) == six(-2.057298, -0.502702, 0.001072)
    assert (e.verdict, e.lo, e.hi) == ("no practical effect", *six(-0.083954, 0.263954).expected)
    assert undecided(found) == []
