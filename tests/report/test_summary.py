import dataclasses
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import report_examples
from report_examples import EMPTY_CURVES, LEVELS, SHAPES, record, replicate

from ablate.analysis import Caution, judge
from ablate.analysis.plan import rules
from ablate.report import render, scales
from ablate.report.contents import Line
from ablate.report.summary import Material, summarise


def of(summary, title):
    return next((group.findings for group in summary.groups if group.title == title), ())


def test_every_arm_stands_in_exactly_one_group(summary, material):
    found = [finding.arm for group in summary.groups for finding in group.findings]
    assert sorted(found) == sorted(c.arm for c in material.analysis.comparisons)
    assert sum(summary.tally.values()) == len(found)


def test_what_worked_starts_with_the_largest_gain_and_what_did_not_with_the_largest_loss(summary):
    gains = [f.interval.estimate for f in of(summary, "What worked")]
    losses = [f.interval.estimate for f in of(summary, "What didn’t")]
    assert gains == sorted(gains, reverse=True)
    assert losses == sorted(losses)
    assert gains
    assert losses


def test_effects_are_shown_in_points(summary, material):
    row = next(row for row in summary.rows if row.arm == "model.width=128")
    comparison = material.analysis.comparison("model.width=128")
    assert summary.unit == "points"
    assert row.interval.estimate == pytest.approx(100 * comparison.effect)
    assert (row.interval.lo, row.interval.hi) == pytest.approx((100 * comparison.lo, 100 * comparison.hi))


def test_a_loss_keeps_its_own_unit_and_its_effects_point_upwards():
    summary = summarise(report_examples.of_loss())
    row = next(row for row in summary.rows if row.arm == "model.width=256")
    assert summary.unit == ""
    assert row.interval.estimate > 0
    assert row.mean < summary.rows[0].mean
    assert ("Judged by", "val/loss, lower is better; a difference counts from 0.01") in summary.facts


def test_a_finding_begins_with_its_arm_and_leads_to_its_pairs(summary):
    for group in summary.groups:
        for finding in group.findings:
            assert finding.sentence.startswith(finding.subject)
            assert finding.subject
            anchors = [row.anchor for section in summary.sections for row, _ in section.pairs.rows]
            assert anchors.count(finding.anchor) == 1


def test_the_answer_has_two_sentences_and_says_what_is_open(summary):
    first, second = summary.answer
    assert first == summary.headline
    assert first.endswith(".")
    assert "2 arms are still open" in second


def test_a_settled_study_says_so():
    assert (
        summarise(report_examples.leave_one_out()).answer[1]
        == "Every arm is settled, with 5 seeds each at most."
    )


def test_an_arm_far_off_does_not_set_the_scale_of_the_others(summary):
    ends = [
        abs(r.interval.lo) for r in summary.rows if r.interval.lo is not None and r.arm != "optimizer.lr=1.0"
    ]
    assert summary.axis.cut
    assert summary.axis.low > -1.1 * max(ends)
    assert summary.axis.low < -summary.axis.margin < summary.axis.margin < summary.axis.high
    assert 0.0 in summary.axis.ticks


def test_failed_diverged_and_missing_runs_are_listed_with_their_reason(summary):
    found = {(t.label, t.outcome): t for t in summary.trouble}
    assert found["Dropout 0.5", "failed"].reason == "the worker died (signal 9), twice"
    assert found["Learning rate 1", "diverged"].seeds == "seeds 1 and 3"
    assert found["Baseline", "missing"].seeds == "seeds 5 to 9"
    assert len(found["Dropout 0.5", "failed"].run_ids) == 1


def test_missing_runs_are_as_many_as_the_analysis_counts(summary, material):
    outcomes = [run.outcome for run in summary.runs]
    runs = material.analysis.runs
    assert outcomes.count("missing") == runs.missing
    assert outcomes.count("failed") == runs.failed
    assert len(outcomes) == runs.planned


def test_only_what_is_open_goes_on(summary):
    assert {run.arm for run in summary.runs if run.outcome == "missing"} == {
        "baseline",
        "model.dropout=0.0",
        "model.dropout=0.5",
    }


def test_a_study_between_looks_is_announced_as_provisional(summary):
    assert [n.text for n in summary.notices if n.kind == "provisional"] == [
        "15 runs of 60 are not in yet. Settled verdicts are final; open ones may change."
    ]


def test_a_study_before_its_first_look_is_announced_as_provisional():
    summary = summarise(report_examples.unfinished())
    assert summary.notices[0].kind == "provisional"
    assert summary.notices[0].text.startswith("4 of 10 runs are in.")


def test_a_complete_study_is_not_provisional():
    assert not summarise(report_examples.leave_one_out()).notices


def test_a_study_without_a_single_run_still_has_a_report():
    summary = summarise(report_examples.not_started())
    assert [run.outcome for run in summary.runs] == ["missing"] * 10
    assert all(section.response is None for section in summary.sections)


def test_a_diverged_baseline_is_an_error_and_said_once():
    summary = summarise(report_examples.diverged_baseline())
    texts = [n.text for n in summary.notices]
    assert summary.notices[0].kind == "error"
    assert len(texts) == len(set(texts)) == 1
    assert summary.answer[1] == "No arm is judged until that is fixed."


def test_a_factor_with_several_levels_has_a_section_and_single_ones_share_one(summary):
    assert [s.title for s in summary.sections] == ["Width", "Dropout", "Single changes"]
    assert [level.text for level in summary.sections[0].response.levels] == ["16", "32", "64", "128", "256"]
    assert summary.sections[0].response.scale == "log"
    assert summary.sections[1].response.scale == "linear"
    assert summary.sections[2].response.scale == "named"


def test_every_finished_seed_is_a_dot(summary, material):
    finished = material.replicates[material.replicates["outcome"] == "finished"]
    for section in summary.sections:
        for level in section.response.levels:
            mine = finished[finished["arm"] == level.arm]
            assert dict(level.dots) == pytest.approx(
                dict(zip(mine["seed"], 100 * mine["value"], strict=True))
            )


def test_curves_are_means_between_the_lowest_and_the_highest_seed(summary, material):
    curves = material.curves
    mine = curves[(curves["arm"] == "model.width=16") & (curves["metric"] == "val/loss")]
    expected = mine.groupby("epoch")["value"].agg(["mean", "min", "max"])
    loss = summary.sections[0].curves[0]
    assert loss.quantity == "loss"
    line = next(line for line in loss.arms[0].lines if line.split == "validation")
    assert line.epochs == tuple(expected.index)
    assert line.mean == pytest.approx(tuple(expected["mean"]))
    assert line.low == pytest.approx(tuple(expected["min"]))
    assert line.high == pytest.approx(tuple(expected["max"]))
    assert line.seeds == 5


def test_accuracy_curves_are_in_percent_and_losses_are_not(summary):
    assert {(c.quantity, c.unit) for s in summary.sections for c in s.curves} == {
        ("loss", ""),
        ("accuracy", "%"),
    }


def test_curves_of_diverged_runs_are_left_out_where_others_finished(summary):
    lines = [a for c in summary.sections[2].curves for a in c.arms if a.arm == "optimizer.lr=1.0"]
    assert all(line.seeds == 3 for arm in lines for line in arm.lines)


def test_long_curves_are_thinned_and_keep_their_last_epoch():
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "phase": "report",
            "epoch": epoch,
            "metric": "val/loss",
            "value": 1.0 / epoch,
        }
        for arm in ("baseline", "model.width=128")
        for seed in range(3)
        for epoch in range(1, 1001)
    ]
    made = report_examples.unfinished(seeds=3)
    summary = summarise(dataclasses.replace(made, curves=pd.DataFrame(rows)))
    line = summary.sections[0].curves[0].arms[0].lines[0]
    assert len(line.epochs) <= 251
    assert line.epochs[-1] == 1000


def test_where_over_fitting_begins_is_marked_on_the_loss(summary):
    loss = summary.sections[0].curves[0]
    assert {arm.arm: arm.overfits for arm in loss.arms}["model.width=256"] is not None


def test_differences_by_seed_are_those_of_the_verdict(summary, material):
    row, cells = next(
        (row, cells)
        for section in summary.sections
        for row, cells in section.pairs.rows
        if row.arm == "model.width=256"
    )
    expected = [100 * d for _, d in material.analysis.comparison("model.width=256").differences]
    assert list(cells) == pytest.approx(expected)
    assert row.interval.estimate == pytest.approx(np.mean(expected))


def test_a_seed_without_a_result_shows_its_outcome_instead(summary):
    cells = next(
        cells for s in summary.sections for row, cells in s.pairs.rows if row.arm == "optimizer.lr=1.0"
    )
    assert [c for c in cells if isinstance(c, str)] == ["diverged", "diverged"]


def test_the_front_of_cost_holds_what_nothing_beats(summary):
    for point in summary.costs:
        beaten = any(
            (q.cost <= point.cost and q.mean > point.mean) or (q.cost < point.cost and q.mean >= point.mean)
            for q in summary.costs
        )
        assert point.best is not beaten
    assert summary.costs[0].cost == 1.0


def test_confusion_is_held_against_the_baseline_in_percent_of_each_class(summary):
    confusion = summary.confusion
    assert confusion.classes == report_examples.CLASSES
    assert [sum(row) for row in confusion.shares] == pytest.approx([100.0] * 10)
    assert all(abs(sum(row)) < 1e-9 for arm in confusion.arms for row in arm.difference)


def test_runs_on_different_devices_are_said_to_be_mixed(material):
    mixed = material.replicates.assign(device=["cuda:0", "cuda:1", "cpu"] * 15)
    analysis = judge(rules(material.record), mixed, material.curves)
    summary = summarise(dataclasses.replace(material, replicates=mixed, analysis=analysis))
    said = [n.text for n in summary.notices if "device" in n.text]
    assert said == [
        "Runs of different kinds of device are compared with each other: cpu (14 runs), cuda (28 runs)."
    ]


def test_two_devices_of_a_kind_are_not_mixed(material):
    pair = material.replicates.assign(device=["cuda:0", "cuda:1", "cuda:0"] * 15)
    analysis = judge(rules(material.record), pair, material.curves)
    summary = summarise(dataclasses.replace(material, replicates=pair, analysis=analysis))
    assert not any("device" in n.text for n in summary.notices)


def test_runs_taken_from_other_studies_cost_nothing_here(material):
    copied = material.replicates.assign(source_run=["abc"] * 44 + [None])
    facts = dict(summarise(dataclasses.replace(material, replicates=copied)).facts)
    assert "44 runs taken from earlier studies" in facts["Cost"]


def test_a_factorial_study_reports_effects_and_keeps_its_cells_apart():
    summary = summarise(report_examples.factorial())
    assert [row.kind for row in summary.rows] == ["baseline", "effect", "effect", "effect"]
    assert [row.label for row in summary.rows[1:]] == ["Width 128", "Flip off", "Width 128 × Flip off"]
    assert [row.label for row in summary.cells] == ["Width 128", "Flip off", "Width 128 and flip off"]
    assert summary.interactions.estimates[0][1] == summary.interactions.estimates[1][0]
    assert len(summary.sections[0].pairs.rows) == 3


def test_leaving_components_out_ticks_off_what_is_there():
    summary = summarise(report_examples.leave_one_out())
    assert summary.components == ("augment.flip", "model.dropout", "model.batch_norm")
    assert [row.present for row in summary.rows] == [
        (True, True, True),
        (False, True, True),
        (True, False, True),
        (True, True, False),
    ]
    assert [s.title for s in summary.sections] == ["Components"]


def test_columns_that_a_store_does_not_know_may_be_absent(material):
    bare = material.replicates[["arm", "seed", "phase", "outcome", "value"]]
    analysis = judge(rules(material.record), bare, EMPTY_CURVES)
    summary = summarise(Material(material.record, analysis, bare, EMPTY_CURVES))
    assert summary.runs[0].run_id == ""
    assert summary.costs == ()
    assert summary.confusion is None


def test_arms_that_are_copies_are_no_comparison():
    arms = ["baseline", "model.width=16", "model.width=32"]
    plan = record(arms, LEVELS)
    rows = [replicate(arm, seed, 0.8 + 0.001 * seed) for arm in arms for seed in range(5)]
    for row in rows:
        if row["arm"] == "model.width=16":
            row["weights"] = row["trace"] = "same"
        if row["arm"] == "model.width=32":
            row["weights"] = next(
                r["weights"] for r in rows if r["arm"] == "baseline" and r["seed"] == row["seed"]
            )
    frame = pd.DataFrame(rows)
    summary = summarise(Material(plan, judge(rules(plan), frame, EMPTY_CURVES), frame, EMPTY_CURVES))
    assert {f.verdict for f in of(summary, "Not a comparison")} == {"not independent", "no override"}
    assert all(f.subject.startswith("Width") for f in of(summary, "Not a comparison"))


def test_methods_state_the_family_the_margin_and_every_look(summary):
    text = dict(summary.methods)
    assert "8 arms share one error" in text["The interval"]
    assert text["The margin"].startswith("0.5 points is the smallest difference worth having")
    assert [look[:3] for look in summary.looks] == [("1", "5", "0.01125"), ("2", "10", "0.03375")]
    assert "Arms are chosen on validation data" in text["What the interval does not cover"]


def test_methods_claim_nothing_of_a_training_of_ones_own_but_what_it_yields(material):
    built_in = dict(summarise(material).methods)
    own = dict(
        summarise(
            dataclasses.replace(
                material, record=dataclasses.replace(material.record, own_training="mine.fit:go")
            )
        ).methods
    )
    assert "initial weights" in built_in["Pairs"]
    assert "initial weights" not in own["Pairs"]
    assert "mine.fit:go" in own["Pairs"]
    assert "prediction changes are shown for the built-in training alone" in own["Your own training"]
    assert "test set" not in own["What the interval does not cover"]


def test_methods_say_how_runs_of_a_function_were_kept_apart(material):
    record = dataclasses.replace(material.record, isolation="Runs shared processes.")
    assert (
        "Runs shared processes."
        in dict(summarise(dataclasses.replace(material, record=record)).methods)["Pairs"]
    )


def test_methods_name_the_runs_that_were_trained_together():
    plan = record(["baseline", "model.width=16"], LEVELS)
    kinds = {0: "stacked 2", 1: "in turn 2", 2: None}
    rows = [
        replicate(arm, seed, 0.8 + 0.001 * seed, fused=kinds[seed])
        for arm in ("baseline", "model.width=16")
        for seed in kinds
    ]
    frame = pd.DataFrame(rows)
    summary = summarise(Material(plan, judge(rules(plan), frame, EMPTY_CURVES), frame, EMPTY_CURVES))
    said = dict(summary.methods)["Runs trained together"]
    assert "2 runs were trained as one" in said
    assert "Baseline: seed 0; Width 16: seed 0" in said
    assert "Width 16: seed 1" in said
    assert "seed 2" not in said
    alone = frame.assign(fused=None)
    other = summarise(Material(plan, judge(rules(plan), alone, EMPTY_CURVES), alone, EMPTY_CURVES))
    assert "Runs trained together" not in dict(other.methods)


def test_the_summary_of_the_same_material_is_the_same(material, summary):
    assert summarise(material) == summary


def test_the_order_of_the_rows_leaves_no_trace(material, summary):
    shuffled = material.replicates.sample(frac=1.0, random_state=1)
    again = summarise(dataclasses.replace(material, replicates=shuffled))
    assert again.runs == summary.runs
    assert again.sections[0].response == summary.sections[0].response


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([16, 32, 64, 128], "log"),
        ([1e-5, 1e-3, 1e-1], "log"),
        ([0.0, 0.25, 0.5], "linear"),
        ([1, 2, 3, 4], "linear"),
        ([0.1, 0.2], "linear"),
        (["a", "b"], "named"),
        ([True, False], "named"),
        ([1, 1], "named"),
        ([1], "named"),
        ([1.0, math.inf, 2.0], "named"),
    ],
)
def test_levels_are_spaced_as_they_were_chosen(levels, expected):
    assert scales.spacing(levels) == expected


def test_a_scale_holds_what_is_not_far_beyond_the_typical():
    assert scales.reach([1.0, 2.0, 3.0, 7.0, 50.0], 0.5) == 7.0
    assert scales.reach([0.1, 0.1, 0.1, 5.0], 2.0) == 5.0
    assert scales.reach([math.inf, 1.0], 0.0) == 1.0
    assert scales.reach([], 2.0) == 2.0


def test_an_exploding_curve_is_cut_from_the_axis():
    calm = Line("train", (1, 2), (2.0, 1.0), (1.9, 0.9), (2.1, 1.1), 3)
    wild = Line("train", (1, 2), (2.0, 900.0), (1.9, 800.0), (2.1, 1000.0), 3)
    low, high, log, cut = scales.extent([calm, calm, wild])
    assert (log, cut) == (False, True)
    assert low < 0.9
    assert 2.1 < high < 10


def test_the_example_has_every_arm_it_promises():
    assert set(LEVELS) | {"baseline"} == set(SHAPES)


def answers(material, seeds=range(5), pixels=None, **right):
    """The material of a study in which the arms answered so. right: arm → (seeds, images)."""
    correct = {arm: pd.DataFrame(np.asarray(rows, bool), index=list(seeds)) for arm, rows in right.items()}
    truth = np.full(next(iter(correct.values())).shape[1], 3)
    return dataclasses.replace(material, correct=correct, truth=truth, pixels=pixels)


def test_images_that_an_arm_fixes_or_breaks_under_nearly_all_seeds_are_shown(material):
    base = np.array([[0, 1, 1, 0, 1, 0]] * 5, dtype=bool)
    arm = base.copy()
    arm[:, 0] = True  # fixed under every seed
    arm[:, 1] = False  # broken under every seed
    arm[:4, 2] = False  # not often enough to say so
    right = {"baseline": base, "model.width=128": arm}
    pixels = np.zeros((6, 3, 8, 8), dtype=np.uint8)
    found = summarise(answers(material, **right, pixels=pixels)).images
    [shift] = found.arms
    assert (shift.label, shift.seeds, shift.fixed, shift.broken) == ("Width 128", 5, 1, 1)
    [fixed], [broken] = shift.fixes, shift.breaks
    assert (fixed.index, fixed.truth, fixed.correct, fixed.reference_correct) == (0, "cat", 1.0, 0.0)
    assert (broken.index, broken.correct, broken.reference_correct) == (1, 0.0, 1.0)
    assert fixed.picture.startswith("data:image/webp;base64,")
    assert (shift.mcnemar.fixed, shift.mcnemar.broken, shift.mcnemar.p) == (1, 2, 1.0)
    without = summarise(answers(material, **right)).images.arms[0]
    assert (without.fixes, without.fixed) == ((), 1), "the pixels are gone, the counts are not"


@pytest.mark.parametrize(
    ("p", "effect", "verdict", "differs"),
    [
        (0.001, 0.02, "helps", False),
        (0.001, 0.02, "hurts", True),
        (0.001, -0.02, "inconclusive", True),
        (0.7, -0.01, "hurts", True),
        (0.7, 0.0, "no practical effect", False),
        (0.7, 0.01, "inconclusive", False),
    ],
)
def test_a_vote_that_contradicts_the_verdict_is_explained(material, p, effect, verdict, differs):
    base = np.ones((5, 4), dtype=bool)
    [shift] = summarise(answers(material, **{"baseline": base, "model.width=128": base})).images.arms
    found = replace(shift, verdict=verdict, mcnemar=replace(shift.mcnemar, p=p, effect=effect))
    assert found.differs is differs


def test_an_arm_that_changes_no_image_says_so(material):
    base = np.ones((5, 4), dtype=bool)
    [shift] = summarise(answers(material, **{"baseline": base, "model.width=128": base})).images.arms
    assert (shift.fixed, shift.broken, shift.by_chance, shift.mcnemar.p) == (0, 0, 0, 1)


def test_the_baseline_again_stands_first_among_those_that_change_images(material):
    base = np.ones((5, 4), dtype=bool)
    right = {"baseline": base, "model.width=128": base, "A/A": ~base}
    first, second = summarise(answers(material, **right)).images.arms
    assert (first.label, first.broken) == ("A/A: the baseline again", 4)
    assert second.label == "Width 128"


def test_images_are_held_against_the_reference_of_the_arm(material):
    base = np.ones((5, 4), dtype=bool)
    right = {"baseline": base, "model.width=128": ~base, "model.width=256": ~base}
    arms = [
        dataclasses.replace(arm, reference="model.width=128") if arm.name == "model.width=256" else arm
        for arm in material.record.arms
    ]
    record = dataclasses.replace(material.record, arms=tuple(arms))
    changed = dataclasses.replace(material, record=record)
    one, other = summarise(answers(changed, **right)).images.arms
    assert (one.reference, one.broken) == ("the baseline", 4)
    assert (other.reference, other.broken) == ("Width 128", 0)


def test_two_seeds_say_nothing_of_images(material):
    base = np.ones((2, 4), dtype=bool)
    assert (
        summarise(answers(material, range(2), **{"baseline": base, "model.width=128": ~base})).images is None
    )


def test_classes_of_other_data_are_not_subtracted(material):
    renamed = dataclasses.replace(material.record.arms[0].data, classes=report_examples.CLASSES[::-1])
    arms = [
        dataclasses.replace(arm, data=renamed) if arm.name == "model.width=128" else arm
        for arm in material.record.arms
    ]
    record = dataclasses.replace(material.record, arms=tuple(arms))
    before, after = (
        {shift.arm for shift in summarise(of).confusion.arms}
        for of in (material, dataclasses.replace(material, record=record))
    )
    assert before - after == {"model.width=128"}


def test_a_warning_about_an_arm_calls_it_as_the_rest_of_the_page_does():
    made = report_examples.material()
    warned = replace(
        made, analysis=replace(made.analysis, warnings=(Caution("noisy", "model.width=16", {"times": 4.2}),))
    )
    assert "Width 16: from seed to seed its differences vary 4.2 times as much as the typical arm's." in [
        notice.text for notice in summarise(warned).notices
    ]


@pytest.mark.parametrize(
    ("environment", "commands"),
    [
        ({}, ()),
        ({"commit": "abc"}, ("git checkout abc",)),
        ({"commit": "abc-dirty"}, ("git checkout abc  # with changes that were not committed",)),
        (
            {"commit": "abc", "training_commit": "def-dirty"},
            (
                "git checkout abc",
                "git checkout def  # in the folder of the training, with changes that were not committed",
            ),
        ),
    ],
)
def test_the_commands_that_reproduce_a_study_check_out_commits_that_exist(material, environment, commands):
    summary = summarise(dataclasses.replace(material, environment=environment))
    assert summary.reproduce == (
        *commands,
        "ablate run width-and-friends.yaml",
        "ablate report width-and-friends",
    )


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        ("train_loss", "val_loss"),
        ("loss", "val_loss"),
        ("training/loss", "eval/loss"),
        ("loss_train", "loss_valid"),
    ],
)
def test_losses_of_ones_own_training_are_one_figure_and_diagnosed_like_the_built_in(
    material, train, validation
):
    names = {"train/loss": train, "val/loss": validation}
    renamed = material.curves.assign(metric=material.curves["metric"].replace(names))
    analysis = judge(rules(material.record), material.replicates, renamed)
    theirs = summarise(dataclasses.replace(material, curves=renamed, analysis=analysis))
    ours = summarise(material)
    for own, built_in in zip(theirs.sections, ours.sections, strict=True):
        assert own.curves[0].quantity == "loss"
        assert own.curves[0].arms == built_in.curves[0].arms
        assert own.remarks == built_in.remarks
    assert any(section.remarks for section in ours.sections)


def test_one_point_is_singular_in_every_sentence():
    changed = summarise(report_examples.material(margin=0.01))
    assert dict(changed.facts)["Judged by"].endswith("counts from 1 point")
    assert dict(changed.methods)["The margin"].startswith("1 point is the smallest difference")
    assert not re.search(r"(?<![\d.,])1 (points|seeds|runs|arms)\b", render.html(changed))
