"""Every sampler and every pruner that a study file may name looks, and ends."""

from __future__ import annotations

import itertools
import math

import pytest

from ablate.data.facts import DataFacts
from ablate.scheduling.queue import Attempted, Queue
from ablate.scheduling.tuning import Searches
from ablate.study import design, spec
from ablate.study.search import PRUNERS, SAMPLERS

SPACE = """
study: look
margin: 0.01
baseline:
  data: {{name: digits}}
  model: {{name: cnn, depth: 1, width: 8}}
  training: {{batch_size: 64}}
factors:
  optimizer.lr: {{log: [1e-5, 1]}}
  optimizer.momentum: {{range: [0, 0.99]}}
  training.batch_size: [32, 64, 128]
  model: [{{name: cnn, depth: 1, width: {{int: [4, 64]}}}}, {{name: tutorial_cnn}}]
design: search
search: {search}
"""
TRIALS = 24
DEAR = {"gp": 8}
"""Trials of a sampler that takes its time to choose: too few to say how well."""

START = {
    "optimizer.lr": 0.01,
    "optimizer.momentum": 0.5,
    "training.batch_size": 64,
    "model": {"name": "cnn", "depth": 1, "width": 8},
}


def planned(search):
    return design.plan(spec.parse(SPACE.format(search=search)), lambda _: DataFacts("digits", 900, 300, 100))


def worth(values):
    """Best at a rate of 0.01, with momentum, and in a wide network; between 0 and 1."""
    off = abs(math.log10(values["optimizer.lr"]) + 2) / 3
    return (
        1
        - 0.6 * off
        - 0.2 * (1 - values["optimizer.momentum"])
        - 0.002 * (64 - values["model"].get("width", 4))
    )


def look(plan, folder, trials=TRIALS, epochs=9):
    """Search without training: (values, outcome, epochs reached) of each trial, and Optuna's own view of it."""
    search = Queue(plan, folder).search("baseline", plan.study.space)
    search.start_from(START)
    tried, open_runs = [], []
    for number in itertools.count():
        if number < trials:
            trial, values = search.ask()
            again = sum(values == known for known, *_ in tried) + sum(values == r.values for r in open_runs)
            run = plan.trial("baseline", values, again)
            search.begin(trial, run)
            open_runs.append(run)
        if not open_runs:
            break
        # Two are under way at any time.
        if len(open_runs) == 2 or number >= trials:
            run = open_runs.pop(0)
            for epoch in range(1, epochs + 1):
                broken = search.report(run.key, epoch, worth(run.values) * (0.6 + 0.4 * epoch / epochs))
                if broken:
                    break
            scores = (worth(run.values), float(run.values["model"].get("width", 4)))
            outcome = "pruned" if broken else "finished"
            search.tell(run.key, outcome, scores[: 2 if plan.study.search.cost else 1])
            tried.append((run.values, outcome, epoch))
    return tried, search


def test_the_files_own_values_come_first_though_a_choice_leaves_settings_of_its_block_out(tmp_path):
    plan = planned("{trials: 5}")
    assert set(plan.study.baseline.get("model")) > {"name", "depth", "width"}
    searches = Searches(plan, Queue(plan, tmp_path))
    searches.match([], {}, {})
    run = searches.next()
    assert plan.arm("baseline").config.override(run.values) == plan.study.baseline
    assert run.values["model"] == {"name": "cnn", "depth": 1, "width": 8}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("cost", ["", ", cost: parameters"], ids=["one objective", "two objectives"])
def test_every_sampler_looks_through_conditional_ranges(tmp_path, sampler, cost):
    trials = DEAR.get(sampler, TRIALS)
    plan = planned(f"{{sampler: {sampler}, trials: {trials}{cost}}}")
    tried, search = look(plan, tmp_path, trials)
    assert [outcome for _, outcome, _ in tried] == ["finished"] * trials
    values = [v for v, *_ in tried]
    assert {v["model"]["name"] for v in values} == {"cnn", "tutorial_cnn"}
    assert {v["training.batch_size"] for v in values} <= {32, 64, 128}
    assert len({str(v) for v in values}) > trials / 2
    assert values[0] == START
    if not cost and sampler not in DEAR:
        assert max(map(worth, values)) > worth(values[0]) + 0.02
    kept = search._study.get_trials()
    for trial, known in zip(kept, values, strict=True):
        named = {"optimizer.lr", "optimizer.momentum", "training.batch_size", "model"}
        assert set(trial.params) == named | (
            {"model.cnn.width"} if known["model"]["name"] == "cnn" else set()
        )
        assert isinstance(trial.params["optimizer.lr"], float)
        assert trial.params["training.batch_size"] in (32, 64, 128)
        assert bool(trial.intermediate_values) == (not cost)
    if cost:
        assert 1 <= len(search._study.best_trials) < trials


def test_candidates_of_two_objectives_are_the_front_of_the_trials_that_the_record_has(tmp_path):
    plan = planned("{sampler: random, trials: 12, cost: parameters, candidates: 12}")
    searches = Searches(plan, Queue(plan, tmp_path))
    searches.match([], {}, {})
    rows, values = {}, {}
    while run := searches.next():
        cost = run.values["model"].get("width", 4)
        rows[run.key] = {"outcome": "finished", "value": worth(run.values), "parameters": cost}
        values[run.key] = run.values
        searches.settle(rows)
    assert len(rows) == 12
    for lost in (None, *rows):  # deleted in MLflow: Optuna still has it
        left = {key: row for key, row in rows.items() if key != lost}
        front = [
            key
            for key, row in left.items()
            if not any(
                other["value"] >= row["value"] and other["parameters"] <= row["parameters"]
                for other in left.values()
                if other is not row
            )
        ]
        best_first = sorted(front, key=lambda key: -left[key]["value"])
        assert searches.best("baseline", left) == [values[key] for key in best_first]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_goes_on_from_its_record_where_the_journal_was_lost(tmp_path, sampler):
    plan = planned(f"{{sampler: {sampler}, trials: {TRIALS}}}")
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    tried, _ = look(plan, tmp_path / "one", trials=6)
    search = Queue(plan, tmp_path / "other").search("baseline", plan.study.space)
    known = {
        f"run {i}": Attempted(values, 2000, "finished", (worth(values),), ((1, worth(values)),))
        for i, (values, *_) in enumerate(tried)
    }
    search.match(known)
    assert set(search.known()) == set(known)
    _, values = search.ask()
    # A sequence begins anew where nobody knows how far it was; what repeats a trial runs under another seed.
    assert sampler == "qmc" or values not in [v for v, *_ in tried]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_breaks_off_the_hopeless_and_keeps_the_best(tmp_path, pruner):
    plan = planned(f"{{sampler: random, pruner: {pruner}, trials: {TRIALS}}}")
    tried, _ = look(plan, tmp_path)
    broken = [(values, epoch) for values, outcome, epoch in tried if outcome == "pruned"]
    assert bool(broken) == (pruner != "none")
    ranked = sorted((worth(values) for values, *_ in tried), reverse=True)
    kept = max(worth(values) for values, outcome, _ in tried if outcome == "finished")
    assert kept in ranked[:3], "where all curves have one shape, pruning loses little"
