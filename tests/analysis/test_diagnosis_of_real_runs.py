"""Diagnoses of networks that were trained, by the built-in training, to have what is to be found."""

from __future__ import annotations

import dataclasses
import re
from functools import cache

import pytest

from ablate.analysis import ArmRule, Rules, judge
from ablate.analysis.diagnosis import curves_of, diagnose
from ablate.analysis.grids import grids
from ablate.config import RunConfig
from ablate.data.facts import DataFacts
from ablate.events import Bundle, EpochEnd, Finished, Task
from ablate.study.looks import LookPlan
from ablate.study.record import ArmRecord, PlanRecord, RunRecord
from ablate.tracking.frames import curve_frame, curve_rows, replicate_frame, replicate_row
from ablate.training.payload import RunPayload
from ablate.training.runs import train

SOUND = {
    "data": {"name": "digits", "subset": 600, "validation": 0.5},
    "model": {"name": "cnn", "depth": 2, "width": 16, "batch_norm": True},
    "augment": None,
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"name": "onecycle"},
    "training": {"epochs": 8, "batch_size": 50},
}
MARGIN = 0.02


@dataclasses.dataclass(frozen=True)
class Trained:
    """Rows of the replicates frame and of the curves frame, as a study would record them."""

    rows: tuple[dict, ...]
    curves: tuple[dict, ...]


@cache
def trained(arm: str, overrides: tuple[tuple[str, object], ...], seeds: int) -> Trained:
    config = RunConfig.parse(SOUND).override(dict(overrides))
    facts = DataFacts("digits", train=300)
    plan = PlanRecord(
        id="plan",
        declared={"metric": "val/accuracy"},
        text="",
        resolution=0.0,
        reference=arm,
        arms=(ArmRecord(arm, None, None, {}, None, {}, facts, "code"),),
        runs=(),
        looks=LookPlan(1, (1,)),
    )
    points: dict[str, list[tuple[int, float]]] = {}
    rows, curves = [], []
    for event in train(Bundle(tuple(Task(str(s), 1, RunPayload(config.tree(), s)) for s in range(seeds)))):
        if isinstance(event, EpochEnd | Finished):
            for metric, value in event.metrics.items():
                points.setdefault(metric, []).append((event.epoch, value))
        if isinstance(event, Finished):
            run = RunRecord(arm, int(event.run), "report", event.run)
            tags = {f"ablate.{name}": str(value) for name, value in event.facts.items()}
            tags |= {"ablate.outcome": event.outcome, "ablate.epoch": str(event.epoch)}
            rows.append(replicate_row(plan, run, tags, points, event.run, has_result=True))
            curves += curve_rows(run, points, plan.metric)
            points = {}
    assert len(rows) == seeds
    return Trained(tuple(rows), tuple(curves))


def diagnosed(seeds: int = 3, reference: bool = True, **overrides: object):
    """Diagnoses of the sound network with these overrides (`__` for a dot), by code."""

    def curves(arm: str, given: tuple[tuple[str, object], ...]):
        made = trained(arm, given, seeds)
        frame = curve_frame(list(made.curves))
        finished = [row["seed"] for row in made.rows if row["outcome"] == "finished"]
        return curves_of(grids(frame), arm, finished), seeds - len(finished)

    mine, diverged = curves("arm", tuple((path.replace("__", "."), v) for path, v in overrides.items()))
    theirs = curves("baseline", ())[0] if reference else None
    found = diagnose(
        mine,
        metric="val/accuracy",
        sign=1.0,
        margin=MARGIN,
        diverged=diverged,
        runs=seeds,
        reference=theirs,
    )
    return {d.code: d for d in found}


def test_a_sound_network_gets_no_diagnosis():
    assert diagnosed(reference=False) == {}


def test_a_large_network_on_forty_images_over_fits_after_it_has_learned_them():
    found = diagnosed(
        seeds=4,
        data__subset=400,
        data__validation=0.9,
        model__batch_norm=False,
        model__depth=3,
        model__width=32,
        optimizer__name="adam",
        optimizer__lr=0.01,
        schedule__name="constant",
        training__epochs=32,
        training__batch_size=8,
    )
    assert list(found) == ["over-fits"]
    assert 8 <= found["over-fits"].epoch <= 25
    assert float(re.search(r"rises by (\d+) %", found["over-fits"].detail)[1]) > 10


@pytest.mark.parametrize("reference", [True, False])
def test_a_learning_rate_that_is_far_too_small_under_fits(reference):
    assert list(diagnosed(reference=reference, optimizer__lr=1e-4)) == ["under-fits"]


def test_a_network_that_is_far_too_small_under_fits():
    found = diagnosed(model__width=2)
    assert found["under-fits"].code == "under-fits"
    assert "over-fits" not in found


def test_dropout_that_costs_nothing_is_no_under_fitting_though_it_raises_the_training_loss():
    mild = trained("arm", (("model.dropout", 0.1),), 3)
    losses = [
        [row["value"] for row in made.curves if (row["metric"], row["epoch"]) == ("train/loss", 8)]
        for made in (mild, trained("baseline", (), 3))
    ]
    assert sum(losses[0]) > 1.5 * sum(losses[1]), "the trap that this test is about"
    assert diagnosed(model__dropout=0.1) == {}


def test_dropout_that_leaves_too_little_of_a_network_under_fits():
    found = diagnosed(model__dropout=0.8)
    assert list(found) == ["under-fits"]


def test_a_training_that_stops_early_is_still_improving():
    found = diagnosed(reference=False, optimizer__lr=0.02, schedule__name="constant", training__epochs=5)
    assert found["still-improving"].epoch == 5
    assert float(re.search(r"gained ([\d.]+) points", found["still-improving"].detail)[1]) > 100 * MARGIN


def test_an_absurd_learning_rate_diverges_in_every_run():
    found = diagnosed(model__batch_norm=False, optimizer__lr=1e12)
    assert [(d.code, d.words) for d in found.values()] == [("diverged", "diverged in 3 of 3 runs")]


def test_a_learning_rate_that_throws_the_network_about_is_unstable_and_not_under_fitting_as_well():
    found = diagnosed(
        seeds=5,
        reference=False,
        model__batch_norm=False,
        model__width=8,
        optimizer__lr=200.0,
        schedule__name="constant",
    )
    assert list(found) == ["unstable"]


# --- through a whole study ---


def study(arms: dict[str, dict[str, object]], *, factor: str, base: object, margin: float, seeds: int = 3):
    """The verdicts of a one-at-a-time study of one factor, trained for real."""
    rules = Rules(
        metric="val/accuracy",
        margin=margin,
        resolution=1 / 300,
        looks=(seeds,),
        arms=tuple(ArmRule(name, factor, given[factor]) for name, given in arms.items()),
        baseline_levels={factor: base},
    )
    made = [trained("baseline", (), seeds)]
    made += [trained(name, tuple(given.items()), seeds) for name, given in arms.items()]
    rows = [row for each in made for row in each.rows]
    curves = [row for each in made for row in each.curves]
    return judge(rules, replicate_frame(rows), curve_frame(curves))


def test_a_best_learning_rate_at_the_edge_of_its_levels_is_marked_also_where_it_is_the_baseline_s():
    rates = {"low": {"optimizer.lr": 0.001}, "lower": {"optimizer.lr": 0.0001}}
    found = study(rates, factor="optimizer.lr", base=0.1, margin=MARGIN)
    assert [d.code for d in found.baseline.fit] == ["edge-of-levels"]
    assert "highest learning rate tried" in found.baseline.fit[0].words
    assert not any(d.code == "edge-of-levels" for c in found.comparisons for d in c.fit)


def test_a_learning_rate_beyond_which_training_diverged_is_not_at_the_edge():
    rates = {
        "low": {"optimizer.lr": 0.001},
        "lower": {"optimizer.lr": 0.0001},
        "absurd": {"optimizer.lr": 1e30},
    }
    found = study(rates, factor="optimizer.lr", base=0.1, margin=MARGIN)
    assert found.comparison("absurd").verdict == "unstable"
    assert found.baseline.fit == ()


def test_a_network_many_times_as_wide_that_gains_nothing_is_too_slow_for_it():
    found = study({"wide": {"model.width": 48}}, factor="model.width", base=16, margin=0.1)
    wide = found.comparison("wide")
    assert wide.verdict == "no practical effect"
    assert wide.cost_ratio > 4
    assert [d.code for d in wide.fit] == ["too-slow-for-its-gain"]
    assert wide.fit[0].detail.startswith(f"{wide.cost_ratio:.1f} times the compute")
