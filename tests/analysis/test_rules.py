"""What a plan fixes before its first run."""

import pytest
from analysis_frames import rules

from ablate.analysis import ArmRule
from ablate.analysis.rules import schedule
from ablate.errors import StudyError


def test_extra_looks_follow_in_the_order_of_their_pairs():
    looks = schedule((5, 10, 14, 20), most=10)
    assert [(look.index, look.pairs, look.alpha, look.declared) for look in looks] == [
        (1, 5, pytest.approx(0.01125), True),
        (2, 10, pytest.approx(0.03375), True),
        (3, 14, 0.0025, False),
        (4, 20, 0.00125, False),
    ]


@pytest.mark.parametrize("most", [1, 2, 7, 10, 100])
def test_whatever_looks_are_taken_those_within_the_most_seeds_spend_their_part_and_no_more(most):
    everywhere = tuple(range(1, most + 1))
    for looks in {everywhere, everywhere[::3], everywhere[-1:], everywhere[: most // 2]} - {()}:
        spent = sum(look.alpha for look in schedule(looks, most))
        assert spent == pytest.approx(0.045 * looks[-1] ** 2 / most**2)
        assert all(look.declared for look in schedule(looks, most))
    beyond = schedule((most, *range(most + 1, most + 40)), most)[1:]
    assert not any(look.declared for look in beyond)
    assert sum(look.alpha for look in beyond) < 0.005


def test_a_look_spends_the_same_whoever_asked_for_it():
    (first, second, third) = schedule((3, 5, 10), most=10)
    assert (first.alpha, second.alpha, third.alpha) == (
        pytest.approx(0.00405),
        pytest.approx(0.0072),
        pytest.approx(0.03375),
    )
    assert schedule((3, 5), most=10) == (first, second)


def test_what_would_settle_an_arm_is_said_at_the_most_seeds_and_beyond_them_at_the_next_extra_look():
    plan = rules(looks=(3, 5), most=10)
    assert [plan.settling_look(i).alpha for i in (0, 1, 2)] == [pytest.approx(0.03375)] * 3
    assert (plan.settling_look(2).pairs, plan.look_after(2).pairs, plan.look_after(2).declared) == (
        10,
        0,
        True,
    )
    used_up = rules(looks=(3, 10, 12, 15), most=10)
    assert [used_up.settling_look(i).alpha for i in (2, 3, 4)] == [0.0025, 0.00125, 0.000625]
    assert rules(looks=(3, 5, 8)).settling_look(1).alpha == pytest.approx(0.027421875)


def test_the_look_after_the_last_is_the_next_extra_one():
    plan = rules(looks=(5, 10))
    assert (plan.look_after(0).alpha, plan.look_after(1).alpha) == (
        pytest.approx(0.01125),
        pytest.approx(0.03375),
    )
    assert (plan.look_after(2).alpha, plan.look_after(2).declared) == (0.0025, False)
    assert rules(looks=(5, 8), most=5).look_after(2).alpha == 0.00125


def test_the_family_is_the_declared_arms():
    assert rules("ABC").k == 3
    assert rules(()).k == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "up"},
        {"margin": 0.0},
        {"margin": float("nan")},
        {"resolution": -1.0},
        {"looks": ()},
        {"looks": (10, 5)},
        {"most": -1},
        {"most": 2.5},
        {"looks": (5, 5)},
        {"arms": ("A", "A")},
        {"arms": ("A", "baseline")},
        {"arms": ("A", "A/A")},
    ],
)
def test_contradictory_rules_are_a_mistake_of_the_study(wrong):
    with pytest.raises(StudyError):
        rules(**{"arms": ("A",), **wrong})


def test_an_unknown_arm_suggests_the_nearest():
    with pytest.raises(StudyError, match="width=64"):
        rules([ArmRule("width=64")]).arm("width=65")


def test_the_first_look_at_results_that_nobody_planned_spends_the_whole_error_and_further_ones_are_extra():
    plan = rules(looks=(8, 12, 20), planned=False)
    assert [(look.pairs, look.alpha, look.declared) for look in plan.schedule()] == [
        (8, 0.05, True),
        (12, 0.0025, False),
        (20, 0.00125, False),
    ]
    assert plan.settling_look(3).alpha == 0.000625


def test_only_plans_are_kept_from_choosing_by_the_test_set():
    assert rules(metric="test/accuracy", looks=(5,), planned=False).metric == "test/accuracy"
    with pytest.raises(StudyError, match="by the test set"):
        rules(metric="test/accuracy", looks=(5,))


def test_a_family_may_be_larger_than_its_arms_but_not_smaller():
    assert rules(("A", "B"), family=7).k == 7
    with pytest.raises(StudyError, match="too small"):
        rules(("A", "B"), family=1)
