"""The keys of a study: each is one field, and everything that knows keys derives from the fields."""

from __future__ import annotations

import json

import pytest
import yaml

from ablate.errors import StudyError
from ablate.study import spec
from ablate.study.keys import KEYS, Study, key_of
from ablate.training import TRAINERS

SMALL = {
    "study": "some",
    "margin": 0.01,
    "baseline": {"data": {"name": "digits"}, "model": {"name": "cnn", "depth": 2, "width": 16}},
    "factors": {"model.width": [32]},
}
THREE = {"model.width": [32], "model.depth": [3], "optimizer.lr": [0.01]}

COMMAND = {
    "command": ["program", "--lr", "{lr}"],
    "metrics": {"accuracy": {"line": "accuracy (.*)"}},
    "metric": "accuracy",
    "baseline": {"lr": 0.1},
    "factors": {"lr": [0.3]},
}

# Key → a study that differs from SMALL in that key; what it needs beside it is in both.
DIFFERENT: dict[str, tuple[dict, dict]] = {
    "study": ({}, {"study": "other"}),
    "question": ({}, {"question": "Why?"}),
    "metric": ({}, {"metric": "train/accuracy"}),
    "direction": (
        {"train": "own:fit", "metric": "score", "direction": "maximize"},
        {"direction": "minimize"},
    ),
    "margin": ({}, {"margin": 0.02}),
    "resolution": ({}, {"resolution": 0.001}),
    "baseline": ({}, {"baseline": {"data": {"name": "digits"}, "model": {"name": "cnn"}}}),
    "factors": ({}, {"factors": {"model.width": [8]}}),
    "design": ({}, {"design": "factorial"}),
    "fraction": (
        {"factors": THREE | {"model.dropout": [0.5]}, "design": "fractional", "fraction": {"cells": 8}},
        {"fraction": {"generators": {"model.width": ["model.depth", "optimizer.lr"]}}},
    ),
    "nuisance": ({}, {"nuisance": {"optimizer.lr": {"log": [1e-4, 1]}}}),
    "search": (
        {"nuisance": {"optimizer.lr": {"log": [1e-4, 1]}}},
        {"search": {"sampler": "random", "candidates": 2}},
    ),
    "seeds": ({}, {"seeds": [3, 6, 9]}),
    "first_seed": ({}, {"first_seed": 10}),
    "noise_floor": ({}, {"noise_floor": True}),
    "confirm": ({}, {"confirm": True}),
    "train": ({"train": "own:fit"}, {"train": "own:other"}),
    "command": (COMMAND, {"command": ["other", "{lr}"]}),
    "folder": (COMMAND, {"folder": ".."}),
    "env": (COMMAND, {"env": {"LR": "{lr}"}}),
    "python": (COMMAND, {"python": "python3"}),
    "epoch": (COMMAND, {"epoch": "accuracy"}),
    "until": (COMMAND, {"until": {"epoch": 3}}),
    "silence": (COMMAND, {"silence": "10m"}),
    "resume": (COMMAND, {"resume": True}),
    "tty": (COMMAND, {"tty": True}),
    "isolate": (COMMAND, {"isolate": True}),
    "devices": (COMMAND, {"devices": 2}),
    "data": (COMMAND, {"data": ["train.csv"]}),
    "metrics": (COMMAND, {"metrics": {"accuracy": {"line": "Accuracy: (.*)"}}}),
    "deterministic": ({}, {"deterministic": True}),
    "judged_on": ({"train": "own:fit", "metric": "score", "direction": "maximize"}, {"judged_on": "test"}),
    "unpaired": ({}, {"unpaired": True}),
}
SEARCH = {"factors": {"optimizer.lr": {"log": [1e-4, 1]}}, "design": "search"}


def study(*changes: dict) -> Study:
    tree: dict = {}
    for change in (SMALL, *changes):
        tree |= change
    return spec.parse(yaml.safe_dump(tree))


def reread(declared: Study, plain: dict) -> Study:
    """What a record of plain values comes back as."""
    values = json.loads(json.dumps(plain, allow_nan=False))
    return Study.parse({**values, "baseline": declared.baseline, "text": declared.text})


STUDIES = {name: study(*changes) for name, changes in DIFFERENT.items()} | {"a search": study(SEARCH)}


def test_every_field_tells_what_its_key_is():
    assert set(DIFFERENT) == set(KEYS)
    for name, field in Study.model_fields.items():
        assert len(field.description) > 15
        assert key_of(name).missing is None or field.is_required()


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_comes_back_from_its_plain_values(name):
    assert reread(STUDIES[name], STUDIES[name].plain()) == STUDIES[name]


@pytest.mark.parametrize("name", STUDIES)
def test_a_record_from_before_a_key_existed_is_read_with_its_default(name):
    declared, plain = STUDIES[name], STUDIES[name].plain()
    for key in KEYS:
        if key not in (*SMALL, "direction", "design") and plain[key] == study().plain()[key]:
            assert reread(declared, {k: v for k, v in plain.items() if k != key}) == declared


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_value_of_a_key_names_another_plan_unless_the_runs_differ_with_it(name):
    alike, different = DIFFERENT[name]
    one, two = study(alike), study(alike, different)
    assert one.plain()[name] != two.plain()[name]
    assert (one.naming() != two.naming()) == KEYS[name].names_plan


def test_other_ranges_of_a_search_name_another_plan():
    other = SEARCH | {"factors": {"optimizer.lr": {"log": [1e-3, 1]}}}
    assert study(SEARCH).naming() != study(other).naming()


def test_a_key_that_says_its_default_or_nothing_changes_nothing():
    """So that a key that is added to ablate leaves plans of older studies their names."""
    plain = study().plain()
    of_trainings = {key for trainer in TRAINERS for key in trainer.keys}
    optional = [name for name in KEYS if name not in SMALL and name not in of_trainings]
    defaults = {name: plain[name] for name in optional if plain[name] not in (None, {})}
    assert set(study().naming()) == {"study", "margin", "direction"}
    assert study(defaults) == study().model_copy(update={"text": study(defaults).text})
    nothing = dict.fromkeys(name for name in KEYS if name not in SMALL)
    assert study(nothing).plain() == plain


# --- direction ------------------------------------------------------------------------------------------------------

NAMES = {
    "minimize": "loss val/loss val_loss VAL-LOSS val/rmse valRMSE mae ppl val/perplexity error_rate cer WER nll bits_per_byte",
    "maximize": "accuracy val/accuracy valAccuracy top5_accuracy f1 val/F1_macro roc_auc bleu val.mAP neg_mean_squared_error",
}


def own(metric: str, **more: str) -> Study:
    return study({"train": "own:fit", "metric": metric, **more})


@pytest.mark.parametrize(
    ("metric", "direction"), [(metric, way) for way, metrics in NAMES.items() for metric in metrics.split()]
)
def test_the_direction_of_a_known_metric_is_that_of_its_name(metric, direction):
    assert own(metric).direction == direction
    assert own(metric, direction="maximize").direction == "maximize", "the study has the last word"


@pytest.mark.parametrize("metric", ["score", "val/energy", "1-accuracy", "reconstruction"])
def test_an_unknown_metric_needs_a_direction(metric):
    with pytest.raises(StudyError) as caught:
        own(metric)
    assert "does not say whether more of it is better" in str(caught.value)
    assert "direction: minimize" in str(caught.value)
    assert ": metric" in str(caught.value.place)
    assert own(metric, direction="minimize").direction == "minimize"
