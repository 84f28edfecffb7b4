"""Configs: overriding by paths, flattening, equality, and the key that names a run."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate import config as configs
from ablate.config import RunConfig, key
from ablate.data.augment import Augment
from ablate.errors import StudyError
from ablate.text import brief, format_value
from ablate.training.command import CommandConfig
from ablate.training.function import FunctionConfig

quick = settings(max_examples=40, deadline=None, derandomize=True)

TREE = {
    "data": {"name": "digits", "validation": 0.2, "subset": 600},
    "model": {"name": "cnn", "depth": 2, "width": 8, "dropout": 0.1},
    "augment": {"flip": True},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "schedule": {"name": "onecycle", "warmup": 0.2},
    "training": {"epochs": 3},
}
BASE = RunConfig.parse(TREE)
FREE_TREE = {
    "depth": 3,
    "rate": 0.5,
    "on": True,
    "nothing": None,
    "name": "forest",
    "tree": {"leaves": [1, 2], "cut": 1.0},
}
FREE = FunctionConfig.parse({"train": "some.where:fit"}, FREE_TREE)

# Values that each leaf may take, one of them perhaps its own.
LEAVES = {
    "data.validation": st.floats(0.01, 0.9),
    "data.subset": st.one_of(st.none(), st.integers(1, 10_000)),
    "data.split": st.sampled_from(["fixed", "per-seed"]),
    "data.normalize": st.booleans(),
    "data.resize": st.one_of(st.none(), st.integers(1, 64)),
    "data.channels": st.sampled_from([None, "grey", "rgb"]),
    "model.depth": st.integers(3, 6),
    "model.width": st.integers(1, 64),
    "model.dropout": st.floats(0, 0.9),
    "model.batch_norm": st.booleans(),
    "model.profile": st.sampled_from(["constant", "growing", "wide-middle"]),
    "model.activation": st.sampled_from(["relu", "tanh", "gelu"]),
    "augment.flip": st.booleans(),
    "augment.crop": st.integers(0, 8),
    "augment.rotation": st.floats(0, 180),
    "augment.brightness": st.floats(0, 1),
    "augment.contrast": st.floats(0, 1),
    "augment.saturation": st.floats(0, 1),
    "augment.cutout": st.integers(0, 16),
    "augment.mixup": st.floats(0, 2),
    "optimizer.lr": st.floats(1e-6, 10),
    "optimizer.momentum": st.floats(0, 0.99),
    "optimizer.weight_decay": st.floats(0, 1),
    "schedule.warmup": st.floats(0.01, 0.99),
    "training.epochs": st.integers(1, 100),
    "training.batch_size": st.integers(1, 1000),
    "training.precision": st.sampled_from(["float32", "bfloat16"]),
    "training.checkpoint": st.sampled_from(["last", "best"]),
    "training.loss": st.sampled_from(["cross-entropy", "focal"]),
    "training.focal_gamma": st.floats(0, 5),
    "training.label_smoothing": st.floats(0, 0.9),
    "training.max_grad_norm": st.one_of(st.none(), st.floats(0.01, 10)),
    "training.patience": st.one_of(st.none(), st.integers(1, 50)),
    "training.min_delta": st.floats(0, 1),
}


@st.composite
def changes(draw):
    paths = draw(st.sets(st.sampled_from(sorted(LEAVES)), max_size=6))
    found = {path: draw(LEAVES[path]) for path in sorted(paths)}
    if found.get("model.profile") == "wide-middle":
        found["model.depth"] = max(3, found.get("model.depth", 3))
    return found


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
trees = st.dictionaries(st.text("abcxyz", min_size=1, max_size=3), plain, max_size=4)


# --- overriding -----------------------------------------------------------------------------------------------------


@quick
@given(changes())
def test_an_override_sets_what_it_names_and_nothing_else(found):
    flat = BASE.override(found).flatten()
    assert {path: flat[path] for path in found} == found
    assert {p: v for p, v in flat.items() if p not in found} == {
        p: v for p, v in BASE.flatten().items() if p not in found
    }


@quick
@given(changes())
def test_overriding_with_the_flattened_config_is_the_config(found):
    config = BASE.override(found)
    flat = {path: value for path, value in config.flatten().items() if path != "seed"}
    assert BASE.override(flat) == config
    assert config.override(flat) == config


@quick
@given(changes(), changes())
def test_overrides_of_different_leaves_may_come_in_any_order(one, other):
    other = {path: value for path, value in other.items() if path not in one}
    try:
        together = BASE.override(one | other)
        in_turn = BASE.override(one).override(other), BASE.override(other).override(one)
    except StudyError:
        assume(False)  # a profile and a depth that meet only half-way
    assert in_turn == (together, together)
    shuffled = dict(reversed((one | other).items()))
    assert BASE.override(shuffled) == together


@quick
@given(changes())
def test_a_config_survives_json_and_pickle(found):
    config = BASE.override(found).with_seed(3)
    assert RunConfig.parse(json.loads(json.dumps(config.tree()))) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(pickle.loads(pickle.dumps(config))) == hash(config)


def test_an_override_leaves_its_config_as_it_was():
    before = copy.deepcopy(BASE)
    BASE.override({"model.width": 5, "augment": None})
    assert before == BASE


def test_a_whole_block_replaces_every_field_of_it():
    changed = BASE.override({"model": {"name": "cnn", "depth": 4}})
    assert changed.get("model.depth") == 4
    assert changed.get("model.width") == 64, "the default, not the baseline's"


def test_null_for_augmentation_is_everything_off():
    assert BASE.override({"augment": None}).augment == Augment()
    assert BASE.override({"augment": None}) == BASE.override({"augment.flip": False})
    assert RunConfig.parse(TREE | {"augment": None}) == RunConfig.parse(
        {k: v for k, v in TREE.items() if k != "augment"}
    )


def test_a_new_name_resets_its_block_and_keeps_only_what_every_member_has():
    changed = BASE.override({"schedule.name": "cosine"})
    assert changed.schedule == configs.Cosine()
    back = changed.override({"schedule.name": "onecycle"})
    assert back.get("schedule.warmup") == 0.3, "the default again"

    other = BASE.override({"data.split": "per-seed", "data.resize": 16, "data.normalize": False}).override(
        {"data.name": "mnist"}
    )
    assert other.tree()["data"] == {
        "name": "mnist",
        "subset": 600,
        "validation": 0.2,
        "split": "per-seed",
        "normalize": False,
        "resize": 16,
        "channels": None,
        "root": None,
    }


def test_a_new_model_begins_with_its_own_defaults():
    changed = BASE.override({"model.name": "small_cnn"}).tree()["model"]
    assert changed["name"] == "small_cnn"
    assert changed["hidden"] == [120, 84]
    assert "width" not in changed
    assert "depth" not in changed


def test_the_name_that_a_block_has_already_resets_nothing():
    assert BASE.override({"model.name": "cnn"}) == BASE
    assert BASE.override({"model.name": "cnn", "model.width": 9}) == BASE.override({"model.width": 9})


@pytest.mark.parametrize("order", [1, -1])
def test_a_new_name_is_applied_before_the_fields_that_come_with_it(order):
    found = [
        ("data.root", "/some/where"),
        ("data.name", "image_folder"),
        ("data.subset", 40),
        ("model.name", "small_cnn"),
    ]
    found += [("model.hidden", [10, 20]), ("model.channels", [3, 4])]
    changed = BASE.override(dict(found[::order]))
    assert changed.get("data.root") == "/some/where"
    assert changed.get("data.subset") == 40
    assert changed.get("data.validation") == 0.2
    assert changed.get("model.hidden") == [10, 20]


@pytest.mark.parametrize("order", [1, -1])
def test_a_block_is_applied_before_the_leaves_inside_it(order):
    found = [("model", {"name": "cnn", "depth": 5}), ("model.width", 7)]
    changed = BASE.override(dict(found[::order]))
    assert (changed.get("model.depth"), changed.get("model.width")) == (5, 7)


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"model.widht": 3}, "model.widht", "did you mean 'width'?"),
        ({"modle.width": 3}, "modle", "did you mean 'model'?"),
        ({"width": 3}, "width", "did you mean 'model.width'?"),
        ({"model.width.x": 3}, "model.width", "is a value, not a block"),
        ({"model.nothing.x": 3}, "model.nothing", "unknown key 'nothing'"),
        ({"": 3}, "", "unknown key ''"),
        ({"model.name": "resnet"}, "model.name", "unknown name 'resnet'"),
        ({"model.name": None}, "model.name", "unknown name 'null'"),
        ({"model": None}, "model", "null is a value where a block of keys belongs"),
        ({"augment": None, "augment.flip": True}, "augment", "is a value, not a block"),
        ({"seed": 3}, "seed", "the seed is not a factor"),
        ({"model.name": "small_cnn", "model.width": 3}, "model.width", "unknown key 'width'"),
        ({"model.hidden": [1]}, "model.hidden", "unknown key 'hidden'"),
        (
            {"model": {"name": "small_cnn", "hidden": [1, True]}},
            "model.hidden.1",
            "a whole number (got true)",
        ),
        ({"model": {"name": "small_cnn", "hidden": 3}}, "model.hidden", "a list (got 3)"),
    ],
)
def test_a_wrong_override_is_a_message_with_its_path(changes, place, said):
    with pytest.raises(StudyError) as caught:
        BASE.override(changes)
    assert caught.value.place == place
    assert said in str(caught.value)


def test_get_reads_what_override_sets():
    assert BASE.get("model.width") == 8
    assert BASE.get("schedule") == {"name": "onecycle", "warmup": 0.2}
    for path in ("model.widht", "modle", "model.width.x"):
        with pytest.raises(StudyError):
            BASE.get(path)


def test_flattening_resolves_every_default():
    flat = BASE.flatten()
    assert flat["optimizer.momentum"] == 0.9
    assert flat["data.subset"] == 600
    assert flat["seed"] == 0
    assert all(isinstance(value, str | int | float | bool | None) for value in flat.values())
    assert BASE.override({"model.name": "small_cnn"}).flatten()["model.hidden"] == "[120, 84]"


def test_a_seed_changes_nothing_else():
    assert BASE.with_seed(5).seed == 5
    assert BASE.with_seed(5).with_seed(0) == BASE
    assert BASE.with_seed(5) != BASE
    assert FREE.with_seed(5).with_seed(0) == FREE
    assert FREE.with_seed(5).override({"depth": 4}).seed == 5
    assert BASE.with_seed(5).override({"model.width": 4}).seed == 5


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        BASE.model.width = 3
    tree = FREE.tree()
    tree["tree"]["leaves"].append(3)
    assert FREE.tree() == FREE_TREE


# --- the user's own -------------------------------------------------------------------------------------------------


@quick
@given(trees, st.data())
def test_a_free_override_sets_what_it_names_and_nothing_else(tree, data):
    config = FunctionConfig.parse({"train": "some.where:fit"}, tree)
    paths = sorted(path for path in config.flatten() if path != "seed")
    assume(paths)
    path = data.draw(st.sampled_from(paths))
    old = config.get(path)
    value = data.draw(st.booleans() if isinstance(old, bool) else st.integers() | st.text(max_size=3))
    changed = config.override({path: value})
    assert changed.get(path) == value
    assert {p: v for p, v in changed.flatten().items() if p != path} == {
        p: v for p, v in config.flatten().items() if p != path
    }
    assert changed.override({path: old}) == config or (
        old is not None and isinstance(old, bool) != isinstance(value, bool)
    )


@quick
@given(trees)
def test_a_free_config_survives_json_and_pickle(tree):
    config = FunctionConfig.parse({"train": "some.where:fit"}, tree).with_seed(2)
    again = pickle.loads(pickle.dumps(config))
    assert (again, again.seed, hash(again)) == (config, 2, hash(config))
    assert (
        FunctionConfig.parse({"train": "some.where:fit"}, json.loads(json.dumps(config.tree()))).with_seed(2)
        == config
    )
    assert again.recipe("") == config.recipe("")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 0}, {"a": -0.0}),
        ({"a": 1.0, "b": 2}, {"a": 1, "b": 2.0}),
        ({"a": [1, {"b": 2.0}]}, {"a": [1.0, {"b": 2}]}),
        ({"a": {"b": 10**16}}, {"a": {"b": 1e16}}),
    ],
)
def test_a_function_is_not_given_the_result_of_a_number_of_the_other_type(one, other):
    def recipe(values):
        return FunctionConfig.parse({"train": "some.where:fit"}, values).recipe("")

    assert recipe(one) != recipe(other)
    assert recipe(one) == recipe(dict(reversed(one.items())))


def test_free_configs_are_equal_where_their_values_are_to_a_person():
    def free(**values):
        return FunctionConfig.parse({"train": "some.where:fit"}, values)

    assert free(a=1) == free(a=1.0)
    assert hash(free(a=1)) == hash(free(a=1.0))
    assert free(a=[1, {"b": 2.0}]) == free(a=[1.0, {"b": 2}])
    assert free(a=1) != free(a=True)
    assert free(a=[1]) != free(a=[True])
    assert free(a="1") != free(a=1)
    assert free(a=None) != free(a="null")
    assert free(a=1, b=2) == free(b=2, a=1)
    assert free(a=1) != FunctionConfig.parse({"train": "else.where:fit"}, {"a": 1})
    assert free(a=1) != BASE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dept": 3}, "did you mean 'depth'?"),
        ({"leaves": [3]}, "did you mean 'tree.leaves'?"),
        ({"tree.leafs": [3]}, "did you mean 'leaves'?"),
        ({"depth.x": 3}, "`depth` is a value, not a block of keys"),
        ({"on": 1}, "1 where the baseline has true"),
        ({"depth": True}, "true where the baseline has 3"),
        ({"rate": float("nan")}, "nan is not a finite number"),
        ({"rate": {1, 2}}, "set is not a plain value"),
        ({"tree": {"a.b": 1}}, "not a plain name without dots"),
        ({"tree": {"rate (max)": 1}}, "cannot be recorded"),
        ({"seed": 1}, "the seed is not a factor"),
    ],
)
def test_a_wrong_free_override_is_a_message(changes, said):
    with pytest.raises(StudyError) as caught:
        FREE.override(changes)
    assert said in str(caught.value)


def test_a_free_level_may_be_null_or_a_whole_block():
    assert FREE.override({"depth": None}).get("depth") is None
    assert FREE.override({"nothing": True}).get("nothing") is True
    assert FREE.override({"tree": {"other": 1}}).get("tree") == {"other": 1}


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[
            (None, "null"),
            (True, "true"),
            (False, "false"),
            (3, "3"),
            (0.05, "0.05"),
            (1e-5, "1e-05"),
            (1.0, "1"),
        ],
        *[
            (0.1 + 0.2, "0.30000000000000004"),
            (1 / 3, "0.3333333333333333"),
            (1e22, "1e+22"),
            (float("nan"), ".nan"),
        ],
        *[(float("-inf"), "-.inf"), ("relu", "relu"), ([1, None], "[1, null]"), ((1, 2), "[1, 2]")],
        *[
            ({"name": "cnn", "depth": 2}, "{name: cnn, depth: 2}"),
            ({None: 1, 3: 2, True: 3, 0.5: 4}, "{null: 1, 3: 2, true: 3, 0.5: 4}"),
            ("1", "'1'"),
            ("1e-5", "'1e-5'"),
            ("", "''"),
        ],
        *[
            ("true", "'true'"),
            ("null", "'null'"),
            ("~", "'~'"),
            (".nan", "'.nan'"),
            ("012", "012"),
            ("no", "no"),
        ],
    ],
)
def test_values_are_shown_as_a_person_would_write_them(value, text):
    assert format_value(value) == text


@quick
@given(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("a1e.+~truefalsn0", max_size=6)
)
def test_what_is_shown_is_read_back_as_what_it_was(value):
    from ablate.study import document

    read = document.load(f"x: {format_value(value)}\n", "test").values["x"]
    assert type(read) in ({type(value), int} if isinstance(value, float) else {type(value)})
    assert read == value


def test_a_value_in_a_message_is_cut_and_a_whole_float_keeps_its_point():
    assert brief(2.0) == "2.0"
    assert brief([2.0]) == "[2]"
    assert len(brief("x" * 1000)) == 60


# --- keys -----------------------------------------------------------------------------------------------------------


@quick
@given(changes())
def test_the_recipe_changes_with_every_field_that_matters_and_with_nothing_else(found):
    config = BASE.override(found)
    # The number of channels is in the data's content.
    same = config.override({"data.channels": None}) == BASE
    assert (config.recipe("data") == BASE.recipe("data")) == same


def test_the_key_changes_with_the_seed_the_data_and_the_code():
    mine = key(BASE, "data", "code")
    assert key(BASE, "data", "code") == mine
    assert (
        len(
            {
                mine,
                key(BASE.with_seed(1), "data", "code"),
                key(BASE, "other", "code"),
                key(BASE, "data", "other"),
            }
        )
        == 4
    )
    mine = key(FREE, "", "code")
    assert (
        len({mine, key(FREE.with_seed(1), "", "code"), key(FREE, "data", "code"), key(FREE, "", "other")})
        == 4
    )


def test_where_the_data_lie_and_what_they_are_called_is_not_in_the_key():
    here = BASE.override({"data.name": "image_folder", "data.root": "/here"})
    there = BASE.override({"data.name": "image_folder", "data.root": "/there"})
    other = BASE.override({"data.name": "mnist"})
    assert here.recipe("same") == there.recipe("same") == other.recipe("same")
    assert here.recipe("same") != here.override({"data.subset": 7}).recipe("same")


@pytest.mark.parametrize(
    "other",
    [
        FunctionConfig({"train": "else.where:fit"}, FREE_TREE),
        FunctionConfig({"train": "some.where:other"}, FREE_TREE),
        CommandConfig({"command": ["some.where:fit"], "env": {}, "metrics": {}}, FREE_TREE),
    ],
)
def test_runs_of_which_the_study_says_another_source_are_other_runs(other):
    """Whatever the digest of the code covers."""
    assert key(other, "data", "code") != key(FREE, "data", "code")


def test_keys_do_not_depend_on_the_process():
    code = (
        "from ablate.config import *; from ablate.training.function import FunctionConfig\n"
        f"print(RunConfig.parse({TREE!r}).recipe('d'), FunctionConfig.parse({{'train': 'a:b'}}, {FREE_TREE!r}).recipe('d'),"
        "RunConfig.parse(" + repr(TREE) + ").code())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    }
    assert said == {
        f"{BASE.recipe('d')} {FunctionConfig.parse({'train': 'a:b'}, FREE_TREE).recipe('d')} {BASE.code()}\n"
    }


def test_another_optimizer_by_name_alone_starts_from_its_own_defaults():
    config = RunConfig.parse(
        {"data": {"name": "digits"}, "model": {"name": "cnn"}, "optimizer": {"name": "sgd", "lr": 0.05}}
    )
    assert config.override({"optimizer.name": "adam"}).get("optimizer.lr") == 1e-3
