"""What a plan fixes before its first run."""

import pytest
from analysis_frames import rules

from ablate.analysis import ArmRule
from ablate.analysis.rules import schedule
from ablate.errors import StudyError


def test_undeclared_looks_follow_in_the_order_of_their_pairs():
    looks = schedule((5, 10), (14, 20))
    assert [(look.index, look.pairs, look.alpha, look.declared) for look in looks] == [
        (1, 5, pytest.approx(0.01125), True),
        (2, 10, pytest.approx(0.03375), True),
        (3, 14, 0.0025, False),
        (4, 20, 0.00125, False),
    ]


def test_an_undeclared_look_may_come_between_declared_ones_and_keeps_its_own_error():
    assert [(look.pairs, look.declared) for look in schedule((5, 10), (7,))] == [
        (5, True),
        (7, False),
        (10, True),
    ]


def test_the_look_after_the_last_is_the_next_undeclared_one():
    plan = rules(looks=(5, 10))
    assert (plan.look_after(0).alpha, plan.look_after(1).alpha) == (
        pytest.approx(0.01125),
        pytest.approx(0.03375),
    )
    assert (plan.look_after(2).alpha, plan.look_after(2).declared) == (0.0025, False)
    assert rules(looks=(5,), extra_looks=(8,)).look_after(2).alpha == 0.00125


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
        {"extra_looks": (10,)},
        {"extra_looks": (20, 14)},
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


def test_results_that_nobody_planned_are_read_at_one_look_with_the_whole_error():
    plan = rules(looks=(8,), planned=False)
    assert [(look.pairs, look.alpha) for look in plan.schedule()] == [(8, 0.05)]
    with pytest.raises(StudyError, match="one look"):
        rules(looks=(5, 10), planned=False)


def test_only_plans_are_kept_from_choosing_by_the_test_set():
    assert rules(metric="test/accuracy", looks=(5,), planned=False).metric == "test/accuracy"
    with pytest.raises(StudyError, match="by the test set"):
        rules(metric="test/accuracy", looks=(5,))


def test_a_family_may_be_larger_than_its_arms_but_not_smaller():
    assert rules(("A", "B"), family=7).k == 7
    with pytest.raises(StudyError, match="too small"):
        rules(("A", "B"), family=1)
