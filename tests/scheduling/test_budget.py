"""What a budget of time allows: whole rounds of seeds, as far as it is known what they take."""

from __future__ import annotations

from ablate.scheduling.budget import Budget, Rounds
from ablate.study.design import Run


def runs_of(arms, seeds):
    return [Run(f"{arm}/{seed}", "", arm, seed, "report") for seed in seeds for arm in arms]


def test_a_round_is_begun_where_it_fits_and_finished_once_it_is_begun():
    a0, b0, a1, b1 = runs = runs_of("ab", range(2))
    rounds = Rounds(runs, {"a": [10.0], "b": [30.0]}, 1)
    assert rounds.expected(a0) == 40
    assert not rounds.may_begin(a0, 39.0)
    assert rounds.may_begin(a0, 40.0)
    assert rounds.may_begin(b0, -5.0), "the round is under way"
    assert not rounds.may_begin(a1, 0.0)
    assert rounds.may_begin(b0, -9.0), "and a run of it that has to be tried again is tried again"
    assert "2 runs of a seed take about 40 s" in rounds.refusal([a1, b1], 12.0)


def test_a_round_of_arms_that_were_never_timed_ends_with_the_budget():
    a0, b0, *_ = runs = runs_of("ab", range(2))
    rounds = Rounds(runs, {}, 1)
    assert rounds.may_begin(a0, 1.0)
    rounds.took(a0, 10.0)
    assert rounds.may_begin(b0, 1.0), "one arm's time does not tell another's"
    assert not rounds.may_begin(b0, 0.0)
    assert "unequal numbers of seeds" in rounds.refusal([b0], 0.0)


def test_a_round_takes_what_its_slots_need_for_it():
    runs = [Run(str(i), "", "slow" if i == 0 else "quick", i // 3, "report") for i in range(6)]
    rounds = Rounds(runs, {"slow": [10.0], "quick": [2.0]}, 2)
    assert rounds.expected(runs[0]) == 10.0
    assert rounds.expected(runs[3]) == 4.0, "three runs on two slots are two waves"
    assert Rounds(runs, {}, 2).expected(runs[0]) == 0.0


def test_a_budget_that_refuses_a_run_says_why_once_and_stays_spent():
    said = []
    budget = Budget(100.0, 1, said.append)
    a0, b0, a1, b1 = runs = runs_of("ab", range(2))
    budget.begin(runs)
    assert budget.allows(a0, iter(runs))
    for run in (a0, b0):
        budget.ended(run, 40.0)
    assert budget.allows(b0, iter([b0, a1, b1]))
    assert budget.allows(a1, iter([a1, b1])), "a round of 80 s fits into 100 s"
    budget.ended(a1, 200.0)
    budget.begin([a1, b1])
    assert not budget.allows(a1, iter([a1, b1]))
    assert not budget.allows(a1, iter([a1, b1]))
    assert len(said) == 1
    assert "2 runs of a seed take about" in said[0]
    assert budget.spent


def test_without_a_limit_everything_is_allowed():
    budget = Budget(None, 1, [].append)
    [run] = runs_of("a", [0])
    assert budget.allows(run, iter([run]))
    assert not budget.is_over()
