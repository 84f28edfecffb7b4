"""The one-sentence reading of every kind of verdict."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis_frames import V3, change, drop, replicates, row, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analysis import ArmRule, Diagnosis, MoreSeeds, headline, judge, label, sentence
from ablate.analysis.rules import scale
from ablate.analysis.words import percent

WIDTH = ArmRule("model.width=128", "model.width", 128)


def accuracy_rules(arms=(WIDTH,), **options):
    return rules(arms, metric="val/accuracy", margin=0.005, resolution=1 / 5000, **options)


def accuracies(differences, **columns):
    """One arm in points of accuracy, against a baseline of .9."""
    base = [0.9 + 0.001 * (i % 3) for i in range(len(differences))]
    frame = replicates({WIDTH.name: [d / 100 for d in differences]}, base=base)
    for name, value in columns.items():
        frame.loc[frame["arm"] == WIDTH.name, name] = value
    return frame


def read(frame, plan=None, **changes):
    plan = plan or accuracy_rules(looks=(5,))
    (comparison,) = judge(plan, frame).comparisons
    return sentence(replace(comparison, **changes), plan)


OVER_FITS = Diagnosis("over-fits", "over-fits from epoch 14", epoch=14)


def test_helps_with_cost_and_diagnosis():
    frame = accuracies([1.2, 2.5, 1.9, 1.6, 1.8], flops=2.6e9)
    assert read(frame, fit=(OVER_FITS,)) == (
        "Width 128 clearly helps: +1.8 points (1.2 to 2.4, 5 seeds), at 2.6× the compute; "
        "it over-fits from epoch 14."
    )


def test_helps_but_not_by_the_margin_for_sure():
    frame = accuracies([0.2, 1.3, 0.9, 1.2, 0.6])
    assert read(frame) == "Width 128 helps: +0.8 points (0.3 to 1.4, 5 seeds)."


def test_hurts():
    frame = accuracies([-0.2, -1.3, -0.9, -1.2, -0.6])
    assert read(frame) == "Width 128 hurts: −0.8 points (−1.4 to −0.3, 5 seeds)."
    assert read(accuracies([-1.2, -2.5, -1.9, -1.6, -1.8])).startswith("Width 128 clearly hurts: −1.8 points")


def test_no_practical_effect():
    assert read(accuracies([0.1, -0.1, 0.05, 0.0, 0.1])) == (
        "Width 128 makes no practical difference: 0.0 points (−0.1 to 0.1, 5 seeds)."
    )


def test_no_practical_effect_that_is_real():
    assert read(accuracies([0.2, 0.25, 0.3, 0.2, 0.25])) == (
        "Width 128 makes no practical difference: +0.2 points (0.2 to 0.3, 5 seeds); "
        "the effect is real, but below the margin of 0.5 points."
    )


def test_inconclusive_says_what_is_ruled_out_and_what_certainty_costs():
    said = read(accuracies([0.4, -0.3, 0.5, 0.1, 0.3]), accuracy_rules())
    assert re.fullmatch(
        r"Width 128 is inconclusive: \+0\.2 points \(−0\.4 to 0\.8, 5 seeds\); "
        r"a loss of 0\.5 points or more is ruled out; "
        r"even chance of a verdict by \d seeds, \d+ % by the most of 10 \(\d+ (s|min) of device time\)\.",
        said,
    )


def test_inconclusive_with_a_gain_ruled_out():
    assert "a gain of 0.5 points or more is ruled out" in read(accuracies([-0.4, 0.3, -0.5, -0.1, -0.3]))


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (MoreSeeds(None, None, None), "no number of seeds up to 999 gives it an even chance of a verdict"),
        (MoreSeeds(40, None, None), "even chance of a verdict by 40 seeds in an extra look."),
        (MoreSeeds(40, 80, 527), "even chance of a verdict by 40 seeds, 80 % by 80 in an extra look."),
        (
            MoreSeeds(40, None, None, seconds50=60.0),
            "by 40 seeds (60 s of device time) in an extra look.",
        ),
        (MoreSeeds(40, 80, 70, most=90, chance=0.9), "even chance of a verdict by 40 seeds, 80 % by 80."),
        (
            MoreSeeds(
                40, 80, 120, seconds50=60.0, seconds80=7200.0, seconds_any=9000.0, most=200, chance=0.95
            ),
            "80 % by 80 (2.0 h of device time), by about 120 whatever the effect.",
        ),
        (MoreSeeds(40, 80, 527, most=200, chance=0.95), "even chance of a verdict by 40 seeds, 80 % by 80."),
        (
            MoreSeeds(40, 80, 527, most=60, chance=0.66, seconds_most=60.0),
            "even chance of a verdict by 40 seeds, 66 % by the most of 60 (60 s of device time).",
        ),
        (
            MoreSeeds(80, None, None, most=60, chance=0.31),
            "31 % chance of a verdict by the most of 60 seeds.",
        ),
        (
            MoreSeeds(None, None, None, most=60, chance=0.002),
            "under 1 % chance of a verdict by the most of 60",
        ),
    ],
)
def test_the_price_of_certainty_in_words(price, said):
    assert said in read(accuracies([0.4, -0.3, 0.5, 0.1, 0.3]), more_seeds=price)


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "0"),
        (1e-9, "under 1"),
        (0.0051, "1"),
        (0.5, "50"),
        (0.994, "99"),
        (0.9999, "over 99"),
        (1.0, "100"),
    ],
)
def test_what_may_come_is_neither_impossible_nor_certain(probability, said):
    assert percent(probability) == said


def test_too_few_seeds_for_an_interval():
    assert read(accuracies([0.4]), accuracy_rules(looks=(1,))) == (
        "Width 128 is inconclusive: +0.4 points in 1 seed, too few for an interval."
    )
    assert "in 2 seeds, too few" in read(accuracies([0.4, 0.5]), accuracy_rules(looks=(2,)))


def test_no_pair_at_all():
    frame = change(accuracies([0.4]), WIDTH.name, 0, outcome="failed", value=np.nan)
    assert read(frame, accuracy_rules(looks=(1,))) == (
        "Width 128 is inconclusive: no run has finished together with its counterpart; 1 run failed."
    )


def test_no_noise_to_judge_by():
    frame = replicates({WIDTH.name: [0.75] * 5})
    plan = rules([WIDTH], looks=(5,))
    assert read(frame, plan) == (
        "Width 128 is inconclusive: +0.75 in score under each of 5 seeds, which leaves no noise to judge by."
    )


def test_unstable():
    frame = change(accuracies([1.2, 2.5, 1.9, 1.6, 1.8]), WIDTH.name, 0, outcome="diverged", value=np.nan)
    said = read(frame)
    assert said.startswith("Width 128 is unstable: 1 of 5 runs diverged, +2.0 points")
    assert said.endswith("4 seeds) among those that finished.")


def test_unstable_without_a_finished_run():
    frame = accuracies([1.2, 2.5, 1.9])
    for seed in range(3):
        frame = change(frame, WIDTH.name, seed, outcome="diverged", value=np.nan)
    assert read(frame, accuracy_rules(looks=(3,))) == "Width 128 is unstable: 3 of 3 runs diverged."


def test_hurts_although_some_runs_diverged():
    frame = change(
        accuracies([-1.2, -2.5, -1.9, -1.6, -1.8]), WIDTH.name, 0, outcome="diverged", value=np.nan
    )
    said = read(frame)
    assert said.startswith("Width 128 clearly hurts: −2.0 points")
    assert said.endswith("it diverged in 1 of 5 runs.")


def test_what_the_verdict_and_its_cost_say_already_is_not_said_again():
    slow = Diagnosis("too-slow-for-its-gain", "gains too little for its compute")
    gained, lost = accuracies([0.2, 1.3, 0.9, 1.2, 0.6]), accuracies([-0.2, -1.3, -0.9, -1.2, -0.6])
    assert read(gained, fit=(slow,)).endswith("; it gains too little for its compute.")
    assert "too little" not in read(lost, fit=(slow,))


def test_not_independent():
    frame = change(accuracies([1.2, 2.5, 1.9, 1.6, 1.8]), WIDTH.name, 0, weights=f"w/{WIDTH.name}/report/1")
    assert read(frame) == (
        "Width 128 is no comparison: runs under different seeds are identical, so the seed does not reach the training."
    )


def test_no_override():
    frame = accuracies([0.0] * 5)
    for seed in range(5):
        frame = change(frame, WIDTH.name, seed, weights=f"w/baseline/report/{seed}")
    assert read(frame) == (
        "Width 128 is no comparison: the override changed nothing, every run is the baseline's."
    )


def test_a_diverged_baseline():
    frame = change(accuracies([1.2, 2.5, 1.9, 1.6, 1.8]), "baseline", 0, outcome="diverged", value=np.nan)
    assert read(frame) == "Width 128 cannot be judged: the baseline diverged."
    assert headline(judge(accuracy_rules(looks=(5,)), frame)).startswith("No verdict: the baseline diverged")


def test_provisional_failed_and_missing():
    frame = drop(accuracies([1.2, 2.5, 1.9, 1.6, 1.8]), WIDTH.name, 4)
    assert read(frame).endswith("provisional, because the first look is not complete.")
    plan = accuracy_rules(looks=(5,))
    frame = change(frame, WIDTH.name, 3, outcome="failed", value=np.nan)
    (closed,) = judge(plan, frame, closed=1).comparisons
    assert sentence(closed, plan).endswith("3 seeds); 1 run failed; 1 run missing.")


def test_an_extra_look_is_called_one():
    said = read(accuracies([0.6, -0.3, 0.5, 0.1, 0.3] * 4), accuracy_rules(looks=(5, 20), most=5))
    assert "20 seeds, an extra look)" in said


def test_tuned_values_are_qualified_until_tuning_was_repeated():
    frame = accuracies([0.2, 1.3, 0.9, 1.2, 0.6])
    assert read(frame, accuracy_rules(looks=(5,), retunes=1)).endswith(
        "; at the values found, tuning was run once."
    )
    assert "tuning" not in read(frame, accuracy_rules(looks=(5,), retunes=3))


def test_time_where_compute_is_unknown_and_nothing_where_it_is_the_same():
    frame = accuracies([0.2, 1.3, 0.9, 1.2, 0.6], flops=np.nan, seconds=5.0)
    assert ", at 0.5× the time" in read(frame)
    assert "×" not in read(accuracies([0.2, 1.3, 0.9, 1.2, 0.6], flops=1.05e9))


def test_a_minimised_loss_in_its_own_units():
    frame = replicates({WIDTH.name: [-0.02, -0.03, -0.025, -0.028, -0.022]}, base=[1.0, 1.1, 1.2, 1.1, 1.0])
    plan = rules([WIDTH], metric="val/loss", direction="minimize", margin=0.01, looks=(5,))
    assert read(frame, plan) == (
        "Width 128 clearly helps: +0.0250 in val/loss (0.0197 to 0.0303, 5 seeds; positive is better)."
    )


@pytest.mark.parametrize("resolution", [0.0, 1e-16])
@pytest.mark.parametrize("shift", [0.1, -0.1])
def test_differences_that_only_arithmetic_tells_apart_are_no_noise(shift, resolution):
    """The resolution is that of values which were printed in full."""
    plan = rules([WIDTH], metric="acc", direction="maximize", margin=0.1, looks=(5,), resolution=resolution)
    shown = read(replicates({WIDTH.name: [shift] * 5}, base=[0.8 + 0.01 * i for i in range(5)]), plan)
    sign = "+" if shift > 0 else "−"
    assert shown == (
        f"Width 128 is inconclusive: {sign}0.10 in acc under each of 5 seeds, which leaves no noise to judge by."
    )


@pytest.mark.parametrize(
    ("margin", "lo", "hi", "said"),
    [
        (0.01, 0.1 - 7e-17, 0.1 + 7e-17, "+0.100 in acc (0.100 to 0.100, 5 seeds)"),
        (0.1, 0.1 - 7e-17, 0.1 + 7e-17, "+0.100 in acc (0.100 to 0.100, 5 seeds)"),
        (0.1, 0.1 - 7e-17, 0.3, "+0.20 in acc (0.10 to 0.30, 5 seeds)"),
        (0.1, -1e-17, 0.3, "+0.15 in acc (0.00 to 0.30, 5 seeds)"),
        (0.00001, 0.00002 - 1e-17, 0.00002, "+0.00002 in acc (0.00002 to 0.00002, 5 seeds)"),
        (0.1, 0.1 + 1e-6, 0.3, "+0.200000 in acc (0.100001 to 0.300000, 5 seeds)"),
    ],
)
def test_digits_that_only_arithmetic_has_made_are_not_shown(margin, lo, hi, said):
    plan = rules([WIDTH], metric="acc", direction="maximize", margin=margin, looks=(5,))
    frame = replicates({WIDTH.name: [0.1, 0.2, 0.3, 0.2, 0.2]})
    assert said in read(frame, plan, lo=lo, hi=hi, effect=(lo + hi) / 2)


def test_accuracies_in_percent_stay_in_percent():
    assert accuracy_rules().scale(0.9).unit == "points"
    assert accuracy_rules().scale(90.0).unit == ""
    assert rules(metric="val/accuracy", margin=0.5).scale().unit == ""
    assert scale("test/f1_macro", 0.01, None).unit == "points"
    assert rules(metric="val/loss", margin=0.01).scale().unit == ""


@pytest.mark.parametrize(
    ("factor", "level", "said"),
    [
        ("model.width", 128, "Width 128"),
        ("optimizer.lr", 0.05, "Learning rate 0.05"),
        ("optimizer.weight_decay", 5e-4, "Weight decay 0.0005"),
        ("optimizer.name", "adam", "Optimizer adam"),
        ("augment.flip", True, "Flip on"),
        ("augment.flip", False, "Flip off"),
        ("augment", None, "No augment"),
        ("model.hidden", [500, 50], "Hidden [500, 50]"),
        ("model.hidden", [], "Hidden []"),
        ("model", {"name": "cnn", "depth": 3}, "Model cnn (depth 3)"),
        ("both", {"model.width": 32, "optimizer.lr": 0.1}, "Width 32 and learning rate 0.1"),
        (None, None, "arm"),
    ],
)
def test_arms_are_called_by_what_they_change(factor, level, said):
    assert label("arm", rules([ArmRule("arm", factor, level)])) == said


def test_full_minus_one_is_without():
    plan = rules([ArmRule("full-flip", "augment.flip", False)], reference="full")
    assert label("full-flip", plan) == "Without flip"
    assert label("full", plan) == "full"


def test_effects_read_like_arms():
    factors = [("a=1", {"a": 1}), ("b=1", {"b": 1}), ("a=1,b=1", {"a": 1, "b": 1})]
    plan = rules(
        [ArmRule(n, None, at) for n, at in factors],
        design="factorial",
        looks=(3,),
        baseline_levels={"a": 0, "b": 0},
    )
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        [
            row(name, seed, 50 + 5 * at.get("a", 0) + 0.1 * rng.normal())
            for name, at in [("baseline", {}), *factors]
            for seed in range(3)
        ]
    )
    found = judge(plan, frame)
    said = [sentence(e, plan) for e in found.effects]
    assert said[0].startswith("A 1 clearly helps: +4.9")
    assert said[2].startswith("The interaction of a 1 and b 1 ")
    assert headline(found).startswith("Of 2 main effects, 1 helps")
    unstable = judge(plan, change(frame, "b=1", 0, outcome="diverged", value=np.nan))
    assert "is unstable: runs of its cells diverged" in sentence(unstable.effects[0], plan)


def test_the_headline_counts_verdicts_and_names_the_best():
    plan = rules("ABCDE")
    assert headline(judge(plan, replicates(V3))) == (
        "Of 5 arms, 1 helps, 1 makes no practical difference and 3 are inconclusive, "
        "the best being A with +1.00 in score."
    )
    none = rules("BCE", looks=(5,))
    assert headline(judge(none, replicates(dict.fromkeys("BCE", V3["C"])))) == "All 3 arms are inconclusive."
    assert headline(judge(rules("A", looks=(5,)), replicates({"A": V3["A"]}))) == (
        "The only arm helps: A with +1.00 in score."
    )
    early = headline(judge(plan, drop(replicates(V3), "A", 4)))
    assert early.endswith("(provisional: the first look is not complete).")
    assert headline(judge(rules(()), replicates(V3))).startswith("Nothing to compare")


@given(st.lists(st.integers(-30, 30).map(lambda i: i / 20), min_size=3, max_size=8))
@settings(max_examples=60, deadline=None)
def test_the_numbers_shown_never_say_something_else_than_the_verdict(differences):
    plan = accuracy_rules(looks=(len(differences),))
    (c,) = judge(plan, accuracies(differences)).comparisons
    shown = re.search(r"\((−?[\d.]+) to (−?[\d.]+),", sentence(c, plan))
    lo, hi = (float(x.replace("−", "-")) for x in shown.groups())
    assert ((lo > 0), (hi < 0)) == ((c.lo > 0), (c.hi < 0))
    assert (lo > -0.5 and hi < 0.5) == (c.verdict == "no practical effect")
    assert (lo >= 0.5 or hi <= -0.5) == c.clearly
