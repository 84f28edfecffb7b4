"""Greedy paths: which step is taken, and by what its comparisons are judged."""

import itertools

import numpy as np
import pandas as pd
import pytest
from analysis_frames import change, row, rules

from ablate.analysis import ArmRule, headline, judge, label, next_step, sentence

FACTORS = ("a", "b", "c")


def name(changed) -> str:
    return ",".join(f"{f}=1" for f in FACTORS if f in changed) or "baseline"


def walked(*steps, **options):
    """Rules of a path that took these steps, with the arms that it came to."""
    arms, here = [], set()
    for step in (*steps, ""):
        arms += [ArmRule(name({*here, f}), f, 1, name(here)) for f in FACTORS if f not in here]
        here |= {step} if step else set()
    path = tuple(name(steps[: i + 1]) for i in range(len(steps)))
    return rules(arms, design="path", path=path, steps=3, edges=12, **options)


def frame(worth, noise=None, seeds=3):
    cells = [set(c) for size in range(4) for c in itertools.combinations(FACTORS, size)]
    noise = np.zeros((seeds, 8)) if noise is None else noise
    return pd.DataFrame(
        [row(name(c), s, worth(c) + noise[s, i]) for s in range(seeds) for i, c in enumerate(cells)]
    )


def worth(changed):
    """a alone is best; c is worth something only with b."""
    return 50 + 3 * ("a" in changed) + 1 * ("b" in changed) - ("c" in changed) + 4 * (changed >= {"b", "c"})


def test_a_path_takes_the_best_change_at_each_step_and_goes_on_at_a_loss():
    table = frame(worth)
    assert next_step(walked(), table, range(3)) == "a=1"
    assert next_step(walked("a"), table, range(3)) == "a=1,b=1"
    assert next_step(walked("a", "b"), table, range(3)) == "a=1,b=1,c=1"
    down = frame(lambda changed: 50 - len(changed) - ("b" in changed))
    assert next_step(walked(), down, range(3)) == "a=1"


def test_a_metric_that_is_minimised_is_followed_downwards():
    assert next_step(walked(direction="minimize"), frame(worth), range(3)) == "c=1"


def test_a_step_reads_no_more_than_the_seeds_it_is_given():
    table = change(frame(worth, seeds=4), "b=1", 3, value=1000.0)
    assert next_step(walked(), table, range(3)) == "a=1"
    assert next_step(walked(), table, range(4)) == "b=1"


def test_what_diverged_is_passed_by_and_where_all_did_the_path_ends():
    table = change(frame(worth), "a=1", 1, outcome="diverged", value=np.nan)
    assert next_step(walked(), table, range(3)) == "b=1"
    for arm in ("b=1", "c=1"):
        table = change(table, arm, 0, outcome="diverged", value=np.nan)
    assert next_step(walked(), table, range(3)) is None


def test_each_arm_is_held_against_the_configuration_that_it_was_a_step_from():
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 8))
    found = judge(walked("a", "b", "c", looks=(3,)), frame(worth, noise))
    effects = {c.arm: c.effect for c in found.comparisons}
    assert effects == pytest.approx(
        {"a=1": 3, "b=1": 1, "c=1": -1, "a=1,b=1": 1, "a=1,c=1": -1, "a=1,b=1,c=1": 3}, abs=0.1
    )
    assert found.rules.k == 12, "every comparison that any path could have made"
    assert [s.arm for s in found.references] == ["baseline"]
    assert label("a=1,c=1", found.rules) == "C 1 on top of a 1"
    assert sentence(found.comparison("a=1,b=1,c=1"), found.rules).startswith(
        "C 1 on top of a 1 and b 1 clearly helps: +3.0"
    )
    assert headline(found).startswith("The greedy path from the baseline: a 1 (helps, +2.996), then b 1 (")


def test_nothing_is_judged_before_a_path_is_at_its_end():
    noise = np.random.default_rng(0).normal(0, 0.02, (3, 8))
    found = judge(walked("a", looks=(3,)), frame(worth, noise))
    assert found.look == 0
    assert all(c.provisional for c in found.comparisons)
    assert "provisional" in headline(found)
