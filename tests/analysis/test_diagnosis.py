"""Diagnoses on curves made by hand, and on a network that learns wrong labels by heart."""

import re

import numpy as np
import pandas as pd
import pytest
from analysis_frames import replicates, rules
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from ablate.analysis import ArmRule, judge
from ablate.analysis.diagnosis import (
    at_the_edge,
    curves_of,
    diagnose,
    over_fitting,
    spikes,
    too_slow,
    under_fitting,
    unfinished,
)
from ablate.analysis.grids import grids

EPOCHS = np.arange(1, 21)


def curves(val, train, *, seeds=5, noise=0.0, **more):
    rng = np.random.default_rng(0)
    made = {"val/loss": val, "train/loss": train, **{name.replace("_", "/"): c for name, c in more.items()}}
    return {
        name: np.asarray(c, float) * np.ones((seeds, 1)) + noise * rng.normal(size=(seeds, len(c)))
        for name, c in made.items()
    }


FALLING = 2.0 * np.exp(-EPOCHS / 4) + 0.1
LEVEL = np.exp(-EPOCHS) + 0.1
TURNING = np.where(EPOCHS <= 14, 0.5 + (14 - EPOCHS) ** 2 / 100, 0.5 + (EPOCHS - 14) / 30)


def codes(found):
    return [d.code for d in found]


# --- over-fitting ---


def test_validation_loss_that_turns_up_over_fits_from_its_lowest_epoch():
    found = over_fitting(curves(TURNING, FALLING))
    assert (found.code, found.epoch, found.words) == ("over-fits", 14, "over-fits from epoch 14")
    rise = float(re.search(r"rises by (\d+) %", found.detail)[1])
    assert rise == pytest.approx(100 * 0.2 / 0.5, rel=0.15)
    assert "training loss falls" in found.detail


def test_over_fitting_is_seen_through_noise():
    assert over_fitting(curves(TURNING, FALLING, noise=0.02)).epoch in range(12, 17)


def test_a_falling_validation_loss_does_not_over_fit():
    assert over_fitting(curves(FALLING + 0.2, FALLING)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_flickering_plateau_does_not_over_fit(seed):
    rng = np.random.default_rng(seed)
    plateau = {
        "val/loss": FALLING + 0.2 + 0.03 * rng.normal(size=(5, 20)),
        "train/loss": FALLING * np.ones((5, 1)),
    }
    assert over_fitting(plateau) is None


def test_both_losses_rising_is_no_over_fitting():
    assert over_fitting(curves(TURNING, TURNING)) is None


def test_a_network_that_has_learned_nothing_and_drifts_does_not_over_fit():
    assert over_fitting(curves(2.3 + EPOCHS / 100, 2.42 - EPOCHS / 1000)) is None


def test_one_seed_suffices_for_a_clear_turn():
    assert over_fitting(curves(TURNING, FALLING, seeds=1)).epoch == 14


def test_without_curves_nothing_is_diagnosed():
    assert diagnose({}, metric="val/accuracy", sign=1, margin=0.005) == ()
    assert curves_of(grids(None), "A", [0]) == {}


def test_runs_that_over_fit_to_different_heights_over_fit_all_the_same():
    heights = np.array([[0.2], [0.3], [1.1]])
    val = 1.2 + np.where(EPOCHS > 10, heights * (EPOCHS - 10) / 10, (10 - EPOCHS) ** 2 / 100)
    assert over_fitting({"val/loss": val, "train/loss": FALLING * np.ones((3, 1))}).epoch in {9, 10}


def test_a_spike_at_the_last_epoch_alone_is_no_over_fitting():
    made = curves(FALLING + 0.2, FALLING)
    made["val/loss"][:, -1] += 1.0
    assert over_fitting(made) is None


def test_two_epochs_are_too_few_to_turn():
    assert over_fitting(curves([1.0, 2.0], [2.0, 1.0])) is None


# --- under-fitting ---


def test_poor_on_its_own_training_data_under_fits():
    flat = np.full(20, 1.5)
    found = under_fitting(curves(flat, flat, train_accuracy=np.full(20, 0.5), val_accuracy=np.full(20, 0.5)))
    assert found.code == "under-fits"
    assert found.detail == "50.0 % on its own training data, no better than on validation data"


def test_a_gap_to_validation_is_no_under_fitting():
    found = under_fitting(
        curves(FALLING + 1, FALLING, train_accuracy=np.full(20, 0.7), val_accuracy=np.full(20, 0.5))
    )
    assert found is None


def test_heavy_augmentation_alone_is_no_under_fitting():
    found = under_fitting(
        curves(FALLING, FALLING, train_accuracy=np.full(20, 0.7), val_accuracy=np.full(20, 0.97))
    )
    assert found is None


def test_a_training_loss_that_ends_well_above_the_reference_s_under_fits():
    arm, reference = curves(FALLING + 0.5, FALLING + 0.5), curves(FALLING + 0.1, FALLING)
    found = under_fitting(arm, reference)
    assert found.code == "under-fits"
    assert "times the reference's" in found.detail
    assert under_fitting(reference, reference) is None


@pytest.mark.parametrize(("accuracy", "found"), [(0.94, False), (0.90, True)])
def test_a_training_loss_that_dropout_raises_counts_only_where_validation_suffers_too(accuracy, found):
    ends = {"val_accuracy": np.full(20, accuracy), "train_accuracy": np.full(20, 0.90)}
    arm = curves(FALLING + 0.1, FALLING + 0.3, **ends)
    reference = curves(
        FALLING + 0.1, FALLING, val_accuracy=np.full(20, 0.95), train_accuracy=np.full(20, 0.97)
    )
    assert (under_fitting(arm, reference, metric="val/accuracy", sign=1.0, margin=0.02) is not None) == found


def test_worse_on_new_data_than_on_its_own_is_no_under_fitting():
    arm, reference = curves(FALLING + 2.0, FALLING + 0.1), curves(FALLING + 0.1, FALLING)
    assert under_fitting(arm, reference) is None


# --- unfinished ---


def test_a_metric_that_gained_the_margin_at_the_end_is_still_improving():
    rising = {"val/accuracy": (0.5 + 0.01 * EPOCHS) * np.ones((5, 1))}
    found = unfinished(rising, metric="val/accuracy", sign=1.0, margin=0.005)
    assert (found.code, found.epoch) == ("still-improving", 20)
    assert found.detail == "the last 2 epochs alone gained 2 points"


def test_a_metric_that_levelled_off_is_not():
    level = {"val/accuracy": (0.9 - 0.4 * np.exp(-EPOCHS / 2)) * np.ones((5, 1))}
    assert unfinished(level, metric="val/accuracy", sign=1.0, margin=0.005) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_metric_that_only_flickers_is_not_improving(seed):
    rng = np.random.default_rng(seed)
    level = {"val/accuracy": 0.9 - 0.4 * np.exp(-EPOCHS / 2) + 0.002 * rng.normal(size=(5, 20))}
    assert unfinished(level, metric="val/accuracy", sign=1.0, margin=0.005) is None


def test_a_loss_still_falling_is_improving():
    falling = {"val/loss": (2.0 - 0.05 * EPOCHS) * np.ones((5, 1))}
    assert unfinished(falling, metric="val/loss", sign=-1.0, margin=0.01).detail == (
        "the last 2 epochs alone gained 0.1"
    )


def test_without_a_curve_of_the_metric_validation_loss_is_read():
    falling = {"val/loss": (2.0 - 0.05 * EPOCHS) * np.ones((5, 1))}
    assert unfinished(falling, metric="my_score", sign=1.0, margin=0.5).detail == (
        "the last 2 epochs alone gained 0.1"
    )


def test_an_arm_that_over_fits_is_not_called_unfinished():
    made = curves(TURNING, FALLING) | {"val/accuracy": (0.5 + 0.01 * EPOCHS) * np.ones((5, 1))}
    assert codes(diagnose(made, metric="val/accuracy", sign=1.0, margin=0.005)) == ["over-fits"]


# --- runs that stopped early ---


def stopping(curve, ends, level=0.0):
    """One row a run, NaN from the epoch on at which it stopped; level: added to the row that goes on to the end."""
    rows = np.asarray(curve, float) * np.ones((len(ends), 1))
    rows[np.argmax(ends)] += level
    return np.where(np.asarray(ends)[:, None] >= EPOCHS, rows, np.nan)


def test_where_all_runs_but_one_stopped_the_one_does_not_make_the_arm_still_improving():
    rising = {"val/accuracy": stopping(0.6 + 0.01 * EPOCHS, [8, 9, 10, 11, 20], level=0.05)}
    said = {"metric": "val/accuracy", "sign": 1.0, "margin": 0.005}
    assert codes(diagnose(rising, **said)) == []
    going_on = {"val/accuracy": stopping(0.6 + 0.01 * EPOCHS, [8, 20, 20, 20, 20])}
    assert codes(diagnose(going_on, **said)) == ["still-improving"]


def test_runs_that_stopped_early_count_at_the_end_when_it_is_asked_whether_an_arm_fits():
    said = {"metric": "val/loss", "sign": -1.0, "margin": 0.1}
    ends = [8, 8, 9, 9, 20]
    fitted = {"train/loss": stopping(FALLING, ends), "val/loss": stopping(FALLING, ends)}
    accuracy = stopping(0.99 * np.ones(20), ends, level=-0.2)
    assert codes(diagnose(fitted | {"train/accuracy": accuracy, "val/accuracy": accuracy}, **said)) == []
    poor = stopping(0.6 * np.ones(20), ends, level=0.35)
    assert codes(diagnose(fitted | {"train/accuracy": poor, "val/accuracy": poor}, **said)) == ["under-fits"]


def test_runs_that_stop_a_few_epochs_after_their_best_over_fit_from_about_there():
    ends = [17, 18, 19, 20, 20]
    found = diagnose(
        {"train/loss": stopping(FALLING, ends), "val/loss": stopping(TURNING, ends)},
        metric="val/loss",
        sign=-1.0,
        margin=0.1,
    )
    assert [(d.code, d.epoch) for d in found] == [("over-fits", 14)]


def test_a_run_without_a_value_of_a_metric_leaves_the_others_to_tell():
    values = (0.5 + 0.01 * EPOCHS) * np.ones((5, 1))
    values[0] = np.nan
    found = diagnose({"val/accuracy": values}, metric="val/accuracy", sign=1.0, margin=0.005)
    assert codes(found) == ["still-improving"]


# --- unstable, diverged, slow, at the edge ---


def test_a_training_loss_that_jumps_is_unstable():
    train = np.array([FALLING, FALLING])
    train[1, 8] = 3.0
    found = spikes({"train/loss": train})
    assert (found.code, found.epoch, found.detail) == ("unstable", 9, "in 1 of 2 runs")
    assert spikes({"train/loss": np.array([FALLING])}) is None


def test_what_jumps_about_is_called_unstable_and_not_under_fitting_as_well():
    jumps = np.where(EPOCHS == 9, 9.0, 2.3)
    poor = np.full(20, 0.1)
    made = curves(jumps, jumps, train_accuracy=poor, val_accuracy=poor)
    assert codes(diagnose(made, metric="val/accuracy", sign=1.0, margin=0.01)) == ["unstable"]


def test_diverged_runs_are_counted():
    found = diagnose({}, metric="m", sign=1, margin=1, diverged=2, runs=5)
    assert [(d.code, d.words) for d in found] == [("diverged", "diverged in 2 of 5 runs")]


@pytest.mark.parametrize(
    ("effect", "verdict", "cost", "slow"),
    [
        (1.8, "helps", 2.6, False),
        (0.6, "helps", 2.6, True),  # 2.6× is 1.4 doublings, each worth a margin of .5
        (0.0, "no practical effect", 2.0, True),
        (-1.0, "hurts", 2.0, True),
        (0.0, "no practical effect", 1.1, False),
        (0.0, "inconclusive", 4.0, False),
        (None, "unstable", 4.0, False),
        (0.0, "no practical effect", None, False),
    ],
)
def test_every_doubling_of_the_compute_ought_to_buy_the_margin(effect, verdict, cost, slow):
    found = too_slow(effect=effect, verdict=verdict, cost=cost, margin=0.5)
    assert (found is not None) == slow


def test_a_gain_that_noise_may_have_made_smaller_is_not_called_too_little():
    given = {"effect": 0.6, "verdict": "helps", "cost": 2.6, "margin": 0.5}
    assert too_slow(**given, error=0.01) is not None
    assert too_slow(**given, error=0.1) is None


def test_the_best_level_at_either_end_is_at_the_edge():
    levels = {"a": 0.1, "baseline": 0.01, "b": 0.001}
    arm, found = at_the_edge(levels, {"a": 3.0, "baseline": 2.0, "b": 1.0}, "optimizer.lr")
    assert (arm, found.words) == ("a", "is the best and the highest learning rate tried")
    assert found.detail == "of 3 levels: the optimum may lie higher"
    arm, found = at_the_edge(levels, {"a": 1.0, "baseline": 2.0, "b": 3.0}, "optimizer.lr")
    assert (arm, found.words) == ("b", "is the best and the lowest learning rate tried")
    assert "lie lower" in found.detail


def test_a_best_level_inside_or_one_of_two_is_not():
    levels = {"a": 0.1, "baseline": 0.01, "b": 0.001}
    assert at_the_edge(levels, {"a": 1.0, "baseline": 2.0, "b": 1.0}, "lr") is None
    assert at_the_edge({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.0}, "lr") is None


@pytest.mark.parametrize(("lowest", "marked"), [(0.0, False), (0.1, True), (-0.1, True)])
def test_nothing_is_less_than_off(lowest, marked):
    levels = {"baseline": lowest, "a": 0.25, "b": 0.5}
    found = at_the_edge(levels, {"baseline": 3.0, "a": 2.0, "b": 1.0}, "model.dropout")
    assert (found is not None) == marked


def test_of_levels_that_are_alike_the_best_is_not_at_the_edge():
    levels, means = {"a": 0.1, "baseline": 0.01, "b": 0.001}, {"a": 0.2, "baseline": 0.0, "b": -0.1}
    assert at_the_edge(levels, means, "lr", {"a": 0.2, "b": 0.2}) is None
    assert at_the_edge(levels, means, "lr", {"a": 0.05, "b": 0.2}) is not None


def test_a_level_that_diverged_was_tried_all_the_same():
    levels = {"a": 0.1, "baseline": 0.01, "b": 0.001, "too high": 1.0}
    assert at_the_edge(levels, {"a": 3.0, "baseline": 2.0, "b": 1.0}, "lr") is None


# --- through judge ---


def long(arm, made, seeds=5):
    return pd.DataFrame(
        [
            (arm, seed, "report", epoch + 1, metric, values[seed, epoch])
            for metric, values in made.items()
            for seed in range(seeds)
            for epoch in range(values.shape[1])
        ],
        columns=["arm", "seed", "phase", "epoch", "metric", "value"],
    )


def test_judge_hangs_diagnoses_on_arms_and_baseline():
    frame = replicates(
        {"optimizer.lr=1": [0.8, 0.3, 0.6, 0.5, 0.9], "optimizer.lr=2": [1.8, 1.3, 1.6, 1.5, 1.9]}
    )
    table = pd.concat(
        [long("optimizer.lr=1", curves(TURNING, FALLING)), long("baseline", curves(LEVEL, LEVEL))]
    )
    arms = [ArmRule("optimizer.lr=1", "optimizer.lr", 1), ArmRule("optimizer.lr=2", "optimizer.lr", 2)]
    plan = rules(arms, looks=(5,), baseline_levels={"optimizer.lr": 0.5})
    found = judge(plan, frame, table)
    assert [codes(c.fit) for c in found.comparisons] == [["over-fits"], ["edge-of-levels"]]
    assert found.baseline.fit == ()
    assert judge(plan, frame, table.sample(frac=1, random_state=1)) == found


# --- real runs ---


def train(*, hidden, images, epochs, rate, label_noise=0.0):
    """Curves of a small network on digits, three seeds."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    fit, held = order[:images], order[1000:1500]
    target = y.copy()
    wrong = fit[rng.random(images) < label_noise]
    target[wrong] = rng.integers(0, 10, wrong.size)
    names = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
    made = {name: np.zeros((3, epochs)) for name in names}
    for seed in range(3):
        net = MLPClassifier((hidden,), learning_rate_init=rate, batch_size=32, random_state=seed)
        for epoch in range(epochs):
            net.partial_fit(x[fit], target[fit], classes=range(10))
            for part, rows, truth in (("train", fit, target), ("val", held, y)):
                p = net.predict_proba(x[rows])
                made[f"{part}/loss"][seed, epoch] = log_loss(truth[rows], p, labels=range(10))
                made[f"{part}/accuracy"][seed, epoch] = (p.argmax(1) == truth[rows]).mean()
    return made


def test_a_network_that_learns_wrong_labels_by_heart_over_fits():
    made = train(hidden=64, images=200, epochs=25, rate=0.01, label_noise=0.2)
    found = diagnose(made, metric="val/accuracy", sign=1.0, margin=0.01)
    assert codes(found) == ["over-fits"]
    assert 1 <= found[0].epoch < 20
    assert float(re.search(r"rises by (\d+) %", found[0].detail)[1]) > 10
