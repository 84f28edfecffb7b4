"""What is read off a sweep of learning rates, on trials whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analysis.rates import (
    RateRules,
    RateTrial,
    best_rate,
    first_rates,
    ladder,
    levels,
    merits,
    next_rates,
    rate_sweep,
)

RULES = RateRules(1e-5, 10.0, "val/accuracy", True, "val/loss", False, 0.01, guessing=math.log(10))


def trial(rate, *, whole=False, centre=0.1, width=1.0, ruined=math.inf, seed=2000):
    """A loss that is lowest, and an accuracy that is highest, at `centre`; nothing is finite from `ruined` on."""
    if rate >= ruined:
        return RateTrial(
            rate, seed, 8 if whole else 2, whole, (math.inf,), None, None, "diverged", "diverged"
        )
    depth = math.exp(-((math.log10(rate / centre) / width) ** 2)) * (1.0 if whole else 0.5)
    loss, accuracy = 2.3 * (1 - depth), 0.1 + 0.85 * depth
    return RateTrial(rate, seed, 8 if whole else 2, whole, (2.3, loss), loss, accuracy)


def swept(rules=RULES, shift=1.0, extensions=3, **shape):
    """All trials of a sweep. shift: by how much short trainings favour a higher rate."""
    centre = shape.pop("centre", 0.1)
    trials = [trial(rate, centre=shift * centre, **shape) for rate in first_rates(rules)]
    done = 0
    while done <= extensions:
        chosen, whole = next_rates(rules, trials)
        if not chosen:
            break
        done += whole
        trials += [trial(r, whole=whole, centre=centre if whole else shift * centre, **shape) for r in chosen]
    return trials


@pytest.mark.parametrize("centre", [1e-5, 3e-4, 1e-3, 0.03, 0.1, 0.3, 3.0])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_suggestion_is_the_best_rate_also_where_short_trainings_favour_a_higher_one(centre, shift):
    result = rate_sweep(RULES, swept(centre=centre, shift=shift))
    assert result.suggestion == pytest.approx(centre)
    assert result.reason == ""
    assert result.notes == (
        () if centre > RULES.low else ("it is the lowest rate that was tried: --from would go lower",)
    )
    assert sum(t.is_whole for t in result.trials) <= 4
    assert len({(t.rate, t.is_whole) for t in result.trials}) == len(result.trials)


@pytest.mark.parametrize(
    "poor", [(0.244, 0.283, 0.1), (0.283, 0.244, 0.1), (0.25, 0.25, 0.25), (0.3, 0.2, 0.1)]
)
def test_where_whole_trainings_come_to_little_at_the_rates_that_short_ones_favour_lower_ones_are_tried(poor):
    ruined = dict(zip((0.3, 1.0, 3.0), poor, strict=True))  # whole trainings of an unstable network

    def whole_trial(rate):
        if rate not in ruined:
            return trial(rate, whole=True)
        return RateTrial(rate, 2000, 8, True, (), 2.3 - 2 * (ruined[rate] - 0.1), ruined[rate])

    trials = [trial(rate, centre=0.8) for rate in first_rates(RULES)]
    for _ in range(4):
        chosen, whole = next_rates(RULES, trials)
        trials += [whole_trial(rate) if whole else trial(rate, centre=0.8) for rate in chosen]
    assert {0.3, 1.0} <= {t.rate for t in trials if t.is_whole}
    assert rate_sweep(RULES, trials).suggestion == 0.1


def test_the_usual_decades_come_first_then_what_lies_beside_the_best_then_whole_trainings():
    short = [trial(rate, centre=0.15) for rate in first_rates(RULES)]
    assert [t.rate for t in short] == [1e-5, 1e-3, 1e-2, 0.1, 1.0]
    assert next_rates(RULES, short) == ([0.3], False)
    assert next_rates(RULES, [*short, trial(0.3, centre=0.05)]) == ([0.03, 0.1], True)
    assert next_rates(RULES, [*short, trial(0.3, centre=0.3)]) == ([0.1, 0.3], True)


@pytest.mark.parametrize(
    ("centre", "beside"),
    [(1e-5, [1e-4]), (1e-3, [1e-4]), (1.0, [10.0]), (0.01, [0.03]), (30.0, [10.0])],
)
def test_a_decade_that_was_left_out_follows_where_the_best_lies_beside_it(centre, beside):
    short = [trial(rate, centre=centre) for rate in first_rates(RULES)]
    assert next_rates(RULES, short) == (beside, False)


def test_where_every_usual_decade_ruins_a_trained_network_those_below_are_tried():
    short = [trial(rate, centre=1e-4, ruined=1e-3) for rate in first_rates(RULES)]
    assert next_rates(RULES, short) == ([1e-4], False)


@pytest.mark.parametrize(
    ("low", "high", "rates"),
    [
        (1e-5, 0.3, [1e-5, 1e-3, 1e-2, 0.1, 0.3]),
        (1e-2, 1.0, [1e-2, 0.1, 1.0]),
        (1e-6, 1e-3, [1e-6, 1e-5, 1e-4, 1e-3]),
        (1e8, 1e10, [1e8, 1e9, 1e10]),
    ],
)
def test_a_range_of_ones_own_begins_with_its_usual_decades_or_with_all_where_it_has_none(low, high, rates):
    assert first_rates(replace(RULES, low=low, high=high)) == rates


def test_where_the_first_trainings_are_whole_only_neighbours_of_the_best_follow():
    trials = [trial(rate, whole=True, centre=0.15) for rate in first_rates(RULES)]
    steps = []
    while (step := next_rates(RULES, trials))[0]:
        steps.append(step)
        trials += [trial(rate, whole=True, centre=0.15) for rate in step[0]]
    assert steps == [([0.03, 0.3], True)]
    assert rate_sweep(RULES, trials).suggestion == 0.1


def test_a_rate_beside_one_that_fails_is_not_chosen_for_a_hair():
    assert best_rate({0.05: 0.94, 0.1: 0.95, 0.2: 0.955, 0.3: 0.1}) == 0.1
    assert best_rate({0.05: 0.94, 0.1: 0.95, 0.2: 0.955, 0.3: 0.95}) == 0.2


def test_how_much_worse_than_the_lowest_rate_another_is_makes_no_difference():
    trials = [trial(rate) for rate in (1e-5, 0.1, 1.0)]
    for ruined in (3.0, 80.0, 1e30):
        worse = RateTrial(3.0, 2000, 2, False, (ruined,), ruined, 0.1)
        assert merits(RULES, [*trials, worse], is_whole=False)[3.0] == pytest.approx(-2.3, abs=0.01)


def test_seeds_count_by_their_mean_and_their_order_does_not():
    one = [RateTrial(r, 1, 2, True, (v,), 1.0, v) for r, v in ((0.1, 0.8), (0.3, 0.9))]
    two = [RateTrial(r, 2, 2, True, (v,), 1.0, v) for r, v in ((0.1, 0.9), (0.3, 0.6))]
    for trials in ([*one, *two], [*two[::-1], *one]):
        assert merits(RULES, trials, is_whole=True) == pytest.approx({0.1: 0.85, 0.3: 0.75})


def test_rates_within_the_margin_of_the_suggestion_are_said():
    values = {0.05: 0.90, 0.1: 0.945, 0.2: 0.95, 0.3: 0.943, 0.5: 0.2}
    trials = [trial(1e-5), *(RateTrial(r, 2000, 8, True, (1.0,), 0.2, v) for r, v in values.items())]
    result = rate_sweep(RULES, trials)
    assert (result.suggestion, result.between) == (0.2, (0.1, 0.3))


def test_the_ends_of_the_rates_are_said_where_the_best_lies_there():
    low = rate_sweep(rules := replace(RULES, low=1e-2), swept(rules, centre=1e-3))
    assert low.suggestion == 1e-2
    assert "--from" in low.notes[0]
    high = rate_sweep(rules := replace(RULES, high=0.02), swept(rules, centre=1.0))
    assert high.suggestion == 0.02
    assert "--to" in high.notes[0]


def test_a_search_that_ends_at_its_edge_says_on_which_side_more_may_lie():
    result = rate_sweep(RULES, swept(centre=0.01, shift=30, extensions=1))
    assert result.notes == (
        "it is the lowest rate that was trained to the end: a lower one may be better still",
    )


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([trial(r, ruined=0.0) for r in (1e-5, 1.0)], "diverges at every rate from 1e-05 to 1:"),
        ([trial(r, centre=1e-3) for r in (1e-5, 1.0)], "whole training diverges"),
        (
            [
                RateTrial(r, 2000, 2, w, (2.3, 2.31 - r / 1e4), 2.31 - r / 1e4, 0.1)
                for r in (1e-5, 1.0)
                for w in (0, 1)
            ],
            "nothing is learnt at any rate",
        ),
        (
            [RateTrial(r, 2000, 2, True, (2.3, 2.302 - r), 2.302 - r, 0.1) for r in (1e-7, 1e-6)],
            "guessing has 2.303; end higher with --to, train longer, or look at data and network",
        ),
        (
            [RateTrial(r, 2000, 2, True, (2.3, r / 2), r / 2, 0.1) for r in (100.0, 1000.0)],
            "guessing has 2.303; begin lower with --from, train longer, or look at data and network",
        ),
        (
            # Initial weights that are worse than guessing, and rates that leave them as they are.
            [RateTrial(r, 2000, 1, True, (s,), s, 0.1) for r, s in ((1e-9, 7.3), (1e-8, 7.299), (1e-7, 7.2))],
            "guessing has 2.303; end higher with --to, train longer, or look at data and network",
        ),
        (
            # Every rate ruins the network; which of them is the least bad is chance.
            [
                RateTrial(r, 2000, 1, True, (s,), s, 0.1)
                for r, s in ((100.0, 1e11), (300.0, 500.0), (1000.0, 2519.0))
            ],
            "guessing has 2.303; begin lower with --from, train longer, or look at data and network",
        ),
        (
            [
                RateTrial(r, 2000, 2, True, (2.3, s), s, 0.1)
                for r, s in ((0.01, 2.32), (0.1, 2.31), (1.0, 9.0))
            ],
            "guessing has 2.303; train longer, or look at data and network",
        ),
        (
            [RateTrial(r, 2000, 1, True, (0.5,), 0.5, 0.8) for r in (1e-5, 1.0)],
            "the rate does not reach the training, or all of them are far too high or far too low",
        ),
    ],
)
def test_where_nothing_can_be_suggested_the_reason_is_said(trials, said):
    if "whole" in said:
        trials = [*trials, trial(1e-5, whole=True, ruined=0.0)]
    ends = sorted(trial.rate for trial in trials)
    result = rate_sweep(replace(RULES, low=ends[0], high=ends[-1]), trials)
    assert said in result.reason
    assert (result.suggestion, result.between, result.levels) == (None, None, ())
    json.dumps(result.to_json(), allow_nan=False)


def test_what_diverges_is_no_level():
    result = rate_sweep(RULES, swept(centre=0.1, ruined=0.5))
    assert result.suggestion <= 0.2
    assert max(result.levels) < 0.5


def test_a_rate_that_failed_is_not_said_to_be_as_good_where_the_lowest_one_is_suggested():
    rules = replace(RULES, low=0.3, high=1.0)
    lost = RateTrial(1.0, 2000, 8, True, (), None, None, "failed", "overflow")
    result = rate_sweep(rules, [trial(0.3, whole=True), lost])
    assert (result.suggestion, result.between) == (0.3, None)


@pytest.mark.parametrize(
    ("low", "high", "found"), [(1.0, 2.0, ()), (2e-3, 5e-3, ()), (5e-6, 2e-5, (1e-5,)), (5e-4, 1e-2, (1e-3,))]
)
def test_levels_lie_among_the_rates_that_were_tried(low, high, found):
    trials = [
        RateTrial(r, 2000, 8, True, (1.0,), 1.0 + i, 0.9 - i / 10)
        for i, r in enumerate((low, (low * high) ** 0.5, high))
    ]
    result = rate_sweep(replace(RULES, low=low, high=high), trials)
    assert result.suggestion == low
    assert set(found) <= set(result.levels)
    assert all(low <= rate <= high for rate in result.levels)


@given(st.floats(1e-12, 1e6), st.floats(1.0001, 1e12))
def test_the_ladder_rises_from_one_end_to_the_other(low, ratio):
    rates = ladder(low, low * ratio)
    assert (rates[0], rates[-1]) == (low, low * ratio)
    assert rates == sorted(set(rates))
    assert all(b / a <= 3.37 for a, b in itertools.pairwise(rates))
    assert set(ladder(low, low * ratio, (1,))) <= set(rates)


@settings(max_examples=50)
@given(st.data())
def test_every_sweep_ends_in_a_rate_that_was_trained_to_the_end_or_in_a_reason(data):
    value = st.none() | st.floats(-1e99, 1e99)

    def any_trial(rate, *, whole):
        score, metric = data.draw(value), data.draw(value)
        over = score is not None and metric is not None
        return RateTrial(
            rate, 2000, 8 if whole else 2, whole, (), score if over else None, metric if over else None,
            "finished" if over else "diverged",
        )  # fmt: skip

    trials = [any_trial(rate, whole=False) for rate in first_rates(RULES)]
    for _ in range(4):
        rates, whole = next_rates(RULES, trials)
        trials += [any_trial(rate, whole=whole) for rate in rates]
    result = rate_sweep(RULES, trials)
    assert (result.suggestion is None) == bool(result.reason)
    assert result.suggestion is None or result.suggestion in {t.rate for t in trials if t.is_whole}
    json.dumps(result.to_json(), allow_nan=False)


def test_levels_are_powers_of_ten_around_the_suggestion():
    assert levels(0.1, 1e-5) == (1e-5, 1e-4, 1e-3, 1e-2, 1.0)
    assert levels(0.03, 1e-4) == (1e-4, 1e-3, 1e-2, 0.1, 1.0)


def test_what_the_metric_does_not_tell_apart_is_decided_by_the_loss():
    values = {0.1: (0.36, 1.70), 0.2: (0.362, 1.69), 0.3: (0.366, 1.72), 0.5: (0.372, 1.80)}
    trials = [trial(1e-5), *(RateTrial(r, 2000, 8, True, (s,), s, v) for r, (v, s) in values.items())]
    assert rate_sweep(replace(RULES, margin=0.001), trials).suggestion == 0.5
    few = rate_sweep(replace(RULES, margin=0.001, images=1000), trials)
    assert (few.suggestion, few.between) == (0.2, (0.1, 0.5))
    assert few.limits[0].endswith("no more than 0.031, two standard errors of an accuracy on 1,000 images")
    clear = [replace(t, value=0.5) if t.rate == 0.5 else t for t in trials]
    assert rate_sweep(replace(RULES, images=1000), clear).suggestion == 0.5


def test_what_diverged_is_not_suggested_even_where_nothing_else_is_better_than_the_lowest_rate():
    trials = [trial(rate, centre=1e-3) for rate in first_rates(RULES)]
    lost = RateTrial(0.05, 2000, 8, True, (math.inf,), None, None, "diverged")
    bad = RateTrial(0.1, 2000, 8, True, (2.0, 1.9), 1.9, 0.05)
    assert rate_sweep(RULES, [*trials, lost, bad]).suggestion == 0.1


def test_a_network_that_over_fits_has_learnt_something_whatever_its_loss():
    trials = [RateTrial(r, 2000, 8, True, (2.3, 3.0 + r), 3.0 + r, 0.6 - r) for r in (1e-5, 0.01)]
    assert rate_sweep(replace(RULES, images=400), trials).suggestion == 1e-5
    chance = [replace(t, value=0.12) for t in trials]
    assert "nothing is learnt" in rate_sweep(replace(RULES, images=400), chance).reason


def test_of_rates_that_the_metric_does_not_tell_apart_one_beside_a_failure_is_not_chosen():
    values = {0.1: (0.95, 0.16), 0.3: (0.951, 0.15), 1.0: (0.1, 2.3)}
    trials = [trial(1e-5), *(RateTrial(r, 2000, 8, True, (s,), s, v) for r, (v, s) in values.items())]
    assert rate_sweep(RULES, trials).suggestion == 0.1
    assert rate_sweep(RULES, trials[:-1]).suggestion == 0.3
