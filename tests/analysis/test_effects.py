"""Factorial designs: effects as contrasts within each seed."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from analysis_frames import change, drop, row, rules, warnings

from ablate.analysis import ArmRule, headline, judge, sentence, undecided
from ablate.analysis.arm_rows import arm_rows
from ablate.analysis.effects import spread
from ablate.analysis.words import term_code, verdict_word
from ablate.errors import StudyError

FACTORS = {"t": (0, 1), "c": (0, 1), "k": (0, 1)}

BHH = (60, 72, 54, 68, 52, 83, 45, 80)
"""Box, Hunter & Hunter's pilot plant, standard order: t varies fastest."""


def cell(levels) -> str:
    named = [f"{f}={v}" for f, v in levels.items() if v != 0]
    return ",".join(named) or "baseline"


def factorial(factors, *, explicit=True, design="factorial", keep=lambda levels: True, **options):
    """Rules with every cell but the baseline's as an arm. explicit: cells name the baseline's levels too."""
    arms = []
    for values in itertools.product(*factors.values()):
        levels = dict(zip(factors, values, strict=True))
        if cell(levels) != "baseline" and keep(levels):
            changed = [name for name, value in levels.items() if value]
            arms.append(
                ArmRule(
                    cell(levels),
                    changed[0] if len(changed) == 1 else None,
                    levels if explicit else {f: v for f, v in levels.items() if v},
                )
            )
    base = {f: values[0] for f, values in factors.items()} if explicit else {}
    return rules(arms, design=design, baseline_levels=base, **options)


def frame_of(factors, yields, noise=None):
    """yields: function of the levels; noise: array (seeds, cells), or None for three seeds without any."""
    cells = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    noise = np.zeros((3, len(cells))) if noise is None else noise
    return pd.DataFrame(
        [
            row(cell(c), seed, yields(c) + noise[seed, i])
            for seed in range(len(noise))
            for i, c in enumerate(cells)
        ]
    )


def codes(terms) -> tuple[str, ...]:
    return tuple(map(term_code, terms))


def pilot(levels):
    return BHH[levels["t"] + 2 * levels["c"] + 4 * levels["k"]]


@pytest.mark.parametrize("explicit", [True, False])
def test_the_pilot_plant_of_box_hunter_and_hunter(explicit):
    found = judge(
        factorial(FACTORS, explicit=explicit, looks=(3,), deterministic=True), frame_of(FACTORS, pilot)
    )
    estimates = {" ".join(sorted(codes(e.terms))): e.estimate for e in found.effects}
    assert estimates == pytest.approx(
        {"t=1": 23.0, "c=1": -5.0, "k=1": 1.5, "c=1 t=1": 1.5, "k=1 t=1": 10.0, "c=1 k=1": 0.0}
    )


def test_the_family_is_the_effects_and_cells_get_no_verdict():
    plan = factorial(FACTORS, looks=(3,))
    assert plan.k == 6
    found = judge(plan, frame_of(FACTORS, pilot))
    assert found.comparisons == ()
    assert len(found.cells) == 7
    assert [c.mean for c in found.cells if c.arm == "t=1"] == [72.0]


@pytest.mark.parametrize("explicit", [True, False])
def test_the_row_of_a_cell_has_the_effect_of_its_changes(explicit):
    rng = np.random.default_rng(0)
    frame = frame_of(FACTORS, pilot, rng.normal(0, 0.5, (3, 8)))
    found = judge(factorial(FACTORS, explicit=explicit, looks=(3,)), frame)
    rows = arm_rows(found)
    effects = {frozenset(codes(e.terms)): e for e in found.effects}
    assert len(rows) == 8
    for name, shown in rows.items():
        if name == "baseline":
            continue
        if name.count(",") == 2:
            differences = frame.pivot_table(index="seed", columns="arm", values="value")
            expected = (differences[name] - differences["baseline"]).mean()
            assert shown["tags"]["ablate.verdict"] == "combination: helps"
            assert shown["tags"]["mlflow.note.content"].endswith(
                "(this combination against the baseline, corrected for all 7 combinations)"
            )
            assert shown["metrics"]["effect"] == pytest.approx(expected, rel=1e-4)
            assert 0 < shown["metrics"]["effect_low"] < shown["metrics"]["effect"]
            continue
        effect = effects[frozenset(name.split(","))]
        kind = "interaction" if "," in name else "main effect"
        assert shown["tags"]["ablate.verdict"] == f"{kind}: {verdict_word(effect)}"
        assert shown["metrics"]["effect"] == pytest.approx(effect.estimate, rel=1e-4)
        assert shown["metrics"]["effect_low"] == pytest.approx(effect.lo, rel=1e-4)


def test_an_interaction_is_positive_or_negative_and_helps_nothing():
    frame = frame_of(FACTORS, pilot, np.random.default_rng(0).normal(0, 0.5, (3, 8)))
    found = judge(factorial(FACTORS, looks=(3,)), frame)
    words = {codes(e.terms): verdict_word(e) for e in found.effects}
    assert words["t=1",] == "helps"
    assert words["c=1",] == "hurts"
    assert words["t=1", "k=1"] == "positive"
    assert arm_rows(found)["t=1,k=1"]["tags"]["ablate.verdict"] == "interaction: positive"


def test_effects_of_a_fraction_that_no_cell_stands_for_have_rows_of_their_own():
    half = factorial(FACTORS, design="fractional", keep=lambda at: sum(at.values()) % 2 == 0, looks=(3,))
    frame = frame_of(FACTORS, pilot, np.random.default_rng(0).normal(0, 0.5, (3, 8)))
    found = judge(half, frame[frame["arm"].isin({"baseline", *(arm.name for arm in half.arms)})])
    rows = arm_rows(found)
    names = [f"main effect: {term_code(e.terms[0])}" for e in found.effects]
    assert list(rows) == ["baseline", *(arm.name for arm in half.arms), *names]
    for name, effect in zip(names, found.effects, strict=True):
        assert rows[name]["tags"]["ablate.verdict"] == f"main effect: {effect.verdict}"
        assert rows[name]["metrics"]["effect_high"] == pytest.approx(effect.hi, rel=1e-4)
    assert all(rows[arm.name]["tags"]["ablate.verdict"].startswith("combination: ") for arm in half.arms)
    assert all("effect_low" in rows[arm.name]["metrics"] for arm in half.arms)


def test_effects_and_intervals_agree_with_regression_on_each_seed():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (4, 8))
    frame = frame_of(FACTORS, pilot, noise)
    found = judge(factorial(FACTORS, looks=(4,), margin=0.5), frame)
    cells = list(itertools.product((0, 1), repeat=3))
    per_seed = []
    for seed in range(4):
        data = pd.DataFrame(cells, columns=["t", "c", "k"]) * 2 - 1
        values = frame[frame["seed"] == seed].set_index("arm")["value"]
        data["y"] = [values[cell(dict(zip("tck", at, strict=True)))] for at in cells]
        per_seed.append(2 * smf.ols("y ~ t*c*k", data).fit().params)
    table = pd.DataFrame(per_seed)
    for effect, column in zip(found.effects, ["t", "c", "k", "t:c", "t:k", "c:k"], strict=True):
        assert [d for _, d in effect.differences] == pytest.approx(table[column].tolist())
        assert effect.estimate == pytest.approx(table[column].mean())
        assert effect.lo < effect.estimate < effect.hi


def test_each_level_is_held_against_the_baseline_s_averaged_over_the_other_factors():
    factors = {"w": (0, 1, 2), "d": (0, 1)}
    values = {(0, 0): 1.0, (0, 1): 2.0, (1, 0): 4.0, (1, 1): 8.0, (2, 0): 16.0, (2, 1): 32.0}
    frame = frame_of(factors, lambda at: values[at["w"], at["d"]])
    found = judge(factorial(factors, looks=(3,), deterministic=True), frame)
    assert {codes(e.terms): e.estimate for e in found.effects} == pytest.approx(
        {
            ("w=1",): (4 + 8) / 2 - (1 + 2) / 2,
            ("w=2",): (16 + 32) / 2 - (1 + 2) / 2,
            ("d=1",): (2 + 8 + 32) / 3 - (1 + 4 + 16) / 3,
            ("w=1", "d=1"): ((8 - 2) - (4 - 1)) / 2,
            ("w=2", "d=1"): ((32 - 2) - (16 - 1)) / 2,
        }
    )


def test_a_minimised_metric_turns_effects_too():
    found = judge(
        factorial(FACTORS, looks=(3,), deterministic=True, direction="minimize"), frame_of(FACTORS, pilot)
    )
    assert found.effects[0].estimate == pytest.approx(-23.0)
    assert found.effects[0].verdict == "hurts"


def test_a_half_fraction_names_what_it_cannot_tell_apart():
    half = factorial(FACTORS, design="fractional", keep=lambda at: sum(at.values()) % 2 == 0)
    found = {codes(c.terms): tuple(map(codes, c.aliases)) for c in half.contrasts}
    assert found == {
        ("t=1",): (("c=1", "k=1"),),
        ("c=1",): (("t=1", "k=1"),),
        ("k=1",): (("t=1", "c=1"),),
    }
    assert half.k == 3


def test_a_half_fraction_estimates_main_effects_from_every_run():
    keep = lambda at: sum(at.values()) % 2 == 0  # noqa: E731
    frame = frame_of(FACTORS, lambda at: 5 * at["t"] - 2 * at["c"] + 0.5 * at["k"])
    found = judge(factorial(FACTORS, design="fractional", keep=keep, looks=(3,), deterministic=True), frame)
    assert [e.estimate for e in found.effects] == pytest.approx([5, -2, 0.5])
    assert any("3 of 3 effects cannot be told from others" in w for w in warnings(found))
    assert "this fraction cannot tell it from c 1 × k 1" in sentence(found.effects[0], found.rules)


def test_one_failed_cell_costs_the_seed():
    rng = np.random.default_rng(2)
    frame = frame_of(FACTORS, pilot, rng.normal(0, 1, (4, 8)))
    frame = change(frame, "t=1,c=1", 2, outcome="failed", value=np.nan)
    found = judge(factorial(FACTORS, looks=(4,)), frame)
    assert {e.n for e in found.effects} == {3}
    assert [s for s, _ in found.effects[0].differences] == [0, 1, 3]


def test_a_look_waits_for_every_cell_and_undecided_effects_ask_for_theirs():
    rng = np.random.default_rng(3)
    frame = frame_of(FACTORS, pilot, rng.normal(0, 3, (3, 8)))
    plan = factorial(FACTORS, looks=(3, 6))
    assert judge(plan, drop(frame, "t=1,k=1", 2)).look == 0
    found = judge(plan, frame)
    assert found.look == 1
    assert set(undecided(found)) == {c.arm for c in found.cells}
    settled = judge(factorial(FACTORS, looks=(3,), deterministic=True), frame_of(FACTORS, pilot))
    assert undecided(settled) == []


def test_an_effect_with_a_diverged_cell_is_unstable_unless_it_can_only_be_worse():
    rng = np.random.default_rng(4)
    harm = lambda at: 50 - 20 * at["t"]  # noqa: E731
    frame = frame_of(FACTORS, harm, rng.normal(0, 0.1, (4, 8)))
    plus = judge(
        factorial(FACTORS, looks=(4,)), change(frame, "t=1,c=1,k=1", 0, outcome="diverged", value=np.nan)
    )
    verdicts = {codes(e.terms): e.verdict for e in plus.effects}
    assert verdicts["t=1",] == "hurts"
    assert verdicts["c=1",] == "unstable"
    minus = judge(
        factorial(FACTORS, looks=(4,)), change(frame, "c=1,k=1", 0, outcome="diverged", value=np.nan)
    )
    assert {codes(e.terms): e.verdict for e in minus.effects}["t=1",] == "unstable"


def test_a_factor_that_changes_nothing_anywhere_is_no_override():
    rng = np.random.default_rng(5)
    frame = frame_of(FACTORS, lambda at: 50 + 3 * at["t"], rng.normal(0, 1, (3, 8)))
    for seed, t, c in itertools.product(range(3), (0, 1), (0, 1)):
        plain, changed = ({"t": t, "c": c, "k": k} for k in (0, 1))
        frame = change(frame, cell(changed), seed, weights=f"w/{cell(plain)}/report/{seed}")
    found = judge(factorial(FACTORS, looks=(3,)), frame)
    flagged = {codes(e.terms) for e in found.effects if e.verdict == "no override"}
    assert flagged == {("k=1",), ("t=1", "k=1"), ("c=1", "k=1")}


def test_copies_in_a_cell_make_its_effects_not_independent():
    frame = frame_of(FACTORS, pilot)
    frame = change(frame, "t=1", 2, weights="w/t=1/report/0")
    assert {e.verdict for e in judge(factorial(FACTORS, looks=(3,)), frame).effects} == {"not independent"}


def test_a_diverged_baseline_cell_is_an_error_of_the_study():
    frame = change(frame_of(FACTORS, pilot), "baseline", 1, outcome="diverged", value=np.nan)
    found = judge(factorial(FACTORS, looks=(3,)), frame)
    assert (found.error.code, found.error.seeds) == ("reference-diverged", (1,))
    assert {e.lo for e in found.effects} == {None}


def test_levels_keep_their_kind():
    arms = [ArmRule("a", None, {"flip": True}), ArmRule("b", None, {"flip": 1})]
    found = rules(arms, design="factorial", baseline_levels={"flip": False}).contrasts
    assert [codes(c.terms) for c in found] == [("flip=true",), ("flip=1",)]


@pytest.mark.parametrize(
    "arms", [[ArmRule("a", "flip", True)], [ArmRule("a", None, {"flip": 1}), ArmRule("b", None, {"flip": 1})]]
)
def test_cells_that_do_not_say_their_levels_are_a_mistake_of_the_study(arms):
    with pytest.raises(StudyError):
        _ = rules(arms, design="factorial").contrasts


# --- alone and within everything ------------------------------------------------------------------------------------

PARTS = ("a", "b", "c")


def both(**options):
    alone = [ArmRule(f, f, 1) for f in PARTS]
    without = [ArmRule(f"full but {f}", f, 0, "full") for f in PARTS]
    return rules([*alone, *without], design="both", **options)


def both_frame(worth, noise):
    """worth: function of the set of parts that are there; noise: (seeds, arms)."""
    arms = {"baseline": "", "full": "abc"} | {f: f for f in PARTS}
    arms |= {f"full but {f}": "abc".replace(f, "") for f in PARTS}
    return pd.DataFrame(
        [
            row(arm, seed, worth(parts) + noise[seed, i])
            for seed in range(len(noise))
            for i, (arm, parts) in enumerate(arms.items())
        ]
    )


def test_what_is_enough_alone_and_not_needed_given_the_rest_interacts_with_it():
    redundant = lambda parts: 50 + 3 * bool(set(parts) & {"a", "b"}) - 2 * ("c" in parts)  # noqa: E731
    frame = both_frame(redundant, np.random.default_rng(0).normal(0, 0.05, (5, 8)))
    found = judge(both(looks=(5,)), frame)
    assert {c.arm: c.verdict for c in found.comparisons} == {
        "a": "helps",
        "b": "helps",
        "c": "hurts",
        "full but a": "no practical effect",
        "full but b": "no practical effect",
        "full but c": "helps",
    }
    interactions = {codes(e.terms): e for e in found.effects}
    assert {terms: e.verdict for terms, e in interactions.items()} == {
        ("a=1", "the rest"): "hurts",
        ("b=1", "the rest"): "hurts",
        ("c=1", "the rest"): "no practical effect",
    }
    a = interactions["a=1", "the rest"]
    alone, given_the_rest = a.apart
    assert alone == pytest.approx(found.comparison("a").effect)
    assert given_the_rest == pytest.approx(-found.comparison("full but a").effect)
    assert a.estimate == pytest.approx(given_the_rest - alone)
    assert sentence(a, found.rules).startswith("The interaction of a 1 and the rest is clearly negative: −3.")
    assert "alone it is worth +3.0" in sentence(a, found.rules)
    assert "2 of 3 factors interact with the rest" in headline(found)
    assert [s.arm for s in found.references] == ["baseline", "full"]


def test_an_interaction_with_the_rest_shares_the_error_and_asks_for_all_its_arms():
    plan = both(looks=(3, 6))
    assert plan.k == 9
    frame = both_frame(lambda parts: 50 + 8 * len(parts), np.random.default_rng(1).normal(0, 0.5, (3, 8)))
    found = judge(plan, frame)
    assert {c.verdict for c in found.comparisons} == {"helps", "hurts"}
    assert {e.verdict for e in found.effects} == {"inconclusive"}
    assert set(undecided(found)) == {arm.name for arm in plan.arms}


def test_a_full_arm_that_diverged_leaves_what_is_alone_to_be_judged():
    frame = both_frame(lambda parts: 50 + 3 * len(parts), np.random.default_rng(2).normal(0, 0.1, (3, 8)))
    found = judge(both(looks=(3, 6)), change(frame, "full", 1, outcome="diverged", value=np.nan))
    assert found.error is None
    assert {c.arm: c.verdict for c in found.comparisons} == dict.fromkeys(PARTS, "helps") | {
        f"full but {f}": "unstable" for f in PARTS
    }
    assert undecided(found) == []
    assert "cannot be judged: the full diverged" in sentence(found.comparison("full but a"), found.rules)


def test_every_run_serves_every_effect():
    plan = factorial(FACTORS)
    noise = np.random.default_rng(3).normal(0, 1, (4000, 8))
    at = {
        cell(dict(zip(FACTORS, levels, strict=True))): i
        for i, levels in enumerate(itertools.product((0, 1), repeat=3))
    }
    weights = dict(plan.contrasts[0].weights)
    effect = sum(weight * noise[:, at[arm]] for arm, weight in weights.items())
    difference = noise[:, 0] - noise[:, 1]
    assert spread(plan) == pytest.approx(0.5)
    assert effect.std() / difference.std() == pytest.approx(spread(plan), rel=0.05)
