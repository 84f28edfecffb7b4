"""What a study file says when it is right: numbers and words as YAML 1.2 has them, defaults, looks, factors, --set."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.config import RunConfig
from ablate.errors import StudyError
from ablate.study import spec
from ablate.training.function import FunctionConfig

quick = settings(max_examples=60, deadline=None, derandomize=True)

SHORT = """\
study: width
margin: 0.005
baseline:
  data: {name: digits}
  model: {name: cnn, width: 16}
factors:
  model.width: [8, 32]
"""

FREE = """\
study: forest
train: some.where:fit
metric: score
direction: maximize
margin: 0.1
baseline: {trees: 10, tree: {depth: 3, kind: null}, on: yes}
factors: {trees: [20, 30], tree.depth: [null]}
"""

TUNED = (
    SHORT + "nuisance: {optimizer.lr: {log: [1e-4, 1], trials: 9}}\nsearch: {pruner: asha, candidates: 2}\n"
)
SEARCHED = (
    SHORT.replace("[8, 32]", "{int: [8, 32]}\n  optimizer.momentum: [0, 0.9]")
    + "design: search\nsearch: {budget: 2h, cost: flops}\nseeds: {initial: 3, max: 6}\n"
)
FRACTION = (
    SHORT.replace("[8, 32]", "[8]\n  model.depth: [2]\n  optimizer.lr: [0.2]\n  augment.crop: [2]")
    + "design: fractional\nfraction: {generators: {augment.crop: [model.width, model.depth]}}\ndirection: maximize\n"
)


def parse(text, **more):
    return spec.parse(text, source="study.yaml", **more)


def value_of(text: str):
    """What a plain word is read as."""
    return parse(
        FREE.replace("trees: 10", f"trees: {text}").replace("trees: [20, 30]", "on: [no]")
    ).baseline.get("trees")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("1e-5", 1e-5),
            ("1E5", 1e5),
            ("5.0e-4", 5e-4),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1.5", -1.5),
            ("+3", 3),
        ],
        *[("0", 0), ("-0", 0), ("12", 12), ("0.10", 0.1)],
        *[("true", True), ("false", False), ("null", None), ("~", None), ("", None)],
        *[
            ("no", "no"),
            ("yes", "yes"),
            ("on", "on"),
            ("off", "off"),
            ("y", "y"),
            ("True", "True"),
            ("TRUE", "TRUE"),
        ],
        *[
            ("012", "012"),
            ("0o14", "0o14"),
            ("0x1f", "0x1f"),
            ("0b1", "0b1"),
            ("1_000", "1_000"),
            ("1:30", "1:30"),
        ],
        *[("2001-01-01", "2001-01-01"), ("1e", "1e"), ("e5", "e5"), ("1.2.3", "1.2.3"), ("--1", "--1")],
        *[("'12'", "12"), ('"true"', "true"), ("a b", "a b"), ("=", "=")],
    ],
)
def test_a_plain_word_is_what_yaml_1_2_says(text, value):
    read = value_of(text)
    assert (type(read), read) == (type(value), value)


def test_a_key_that_is_left_out_has_its_default():
    study = parse(SHORT)
    assert (study.name, study.question, study.metric, study.direction) == (
        "width",
        "",
        "val/accuracy",
        "maximize",
    )
    assert (study.margin, study.design, study.looks) == (0.005, "one-at-a-time", (5, 10))
    assert (study.resolution, study.noise_floor, study.confirm, study.deterministic) == (
        None,
        False,
        False,
        False,
    )
    assert study.train is None
    assert study.text == SHORT
    assert study.baseline == RunConfig.parse(
        {"data": {"name": "digits"}, "model": {"name": "cnn", "width": 16}}
    )


def test_every_key_is_read():
    study = parse(
        SHORT.replace("[8, 32]", "[32]\n  model.dropout: [0.5]")
        + "question: Why?\nmetric: val/loss\nresolution: 0.01\ndesign: path\nseeds: [3, 5, 8]\n"
        + "noise_floor: true\nconfirm: true\ndeterministic: true\n"
    )
    assert (study.question, study.metric, study.resolution) == ("Why?", "val/loss", 0.01)
    assert (study.direction, study.design, study.looks) == ("minimize", "path", (3, 5, 8))
    assert (study.noise_floor, study.confirm, study.deterministic) == (True, True, True)


def test_a_loss_is_minimised_and_the_direction_of_a_known_metric_cannot_be_turned():
    assert parse(SHORT + "metric: train/loss\n").direction == "minimize"
    with pytest.raises(StudyError, match="is to be minimized, not maximized"):
        parse(SHORT + "metric: val/loss\ndirection: maximize\n")


@pytest.mark.parametrize(
    ("seeds", "looks"),
    [
        ("4", (4,)),
        ("[3, 5, 8]", (3, 5, 8)),
        ("{initial: 5, max: 10}", (5, 10)),
        ("{initial: 5, max: 5}", (5,)),
    ],
)
def test_seeds_say_at_how_many_the_arms_are_judged(seeds, looks):
    assert parse(SHORT + f"seeds: {seeds}\n").looks == looks


def test_factors_are_levels_by_path():
    (factor,) = parse(SHORT).factors
    assert (factor.name, factor.paths) == ("model.width", ("model.width",))
    assert factor.levels == ({"model.width": 8}, {"model.width": 32})


def test_zipped_paths_change_together():
    text = SHORT.replace(
        "model.width: [8, 32]",
        "both: {zip: {model.width: [8, 32], optimizer.lr: [0.2, 1e-2], augment: [null, {flip: true}]}}",
    )
    (factor,) = parse(text).factors
    assert factor.paths == ("model.width", "optimizer.lr", "augment")
    assert factor.levels == (
        {"model.width": 8, "optimizer.lr": 0.2, "augment": None},
        {"model.width": 32, "optimizer.lr": 0.01, "augment": {"flip": True}},
    )


def test_a_level_may_agree_with_the_baseline_in_a_part():
    text = SHORT.replace(
        "model.width: [8, 32]", "both: {zip: {model.width: [16, 32], optimizer.lr: [0.2, 0.1]}}"
    )
    assert len(parse(text).factors[0].levels) == 2


def test_a_level_may_be_a_whole_block_or_nothing():
    text = SHORT.replace("model.width: [8, 32]", "model: [{name: small_cnn}, {name: cnn, depth: 2}]").replace(
        "factors:", "  augment: {flip: true}\nfactors:\n  augment: [null]"
    )
    assert [f.levels for f in parse(text).factors] == [
        ({"augment": None},),
        ({"model": {"name": "small_cnn"}}, {"model": {"name": "cnn", "depth": 2}}),
    ]


def test_anchors_and_merges_are_read():
    text = SHORT.replace("  data:", "  optimizer: &sgd {name: sgd, lr: 0.1}\n  data:").replace(
        "model.width: [8, 32]",
        "optimizer: [{<<: *sgd, lr: 0.2}, *sgd2]".replace("*sgd2", "{<<: *sgd, momentum: 0}"),
    )
    assert [level["optimizer"] for level in parse(text).factors[0].levels] == [
        {"name": "sgd", "lr": 0.2},
        {"name": "sgd", "lr": 0.1, "momentum": 0},
    ]


def test_a_study_of_ones_own_training_has_a_free_baseline():
    study = parse(FREE)
    assert isinstance(study.baseline, FunctionConfig)
    assert study.baseline.tree() == {"trees": 10, "tree": {"depth": 3, "kind": None}, "on": "yes"}
    assert (study.metric, study.direction, study.train) == ("score", "maximize", "some.where:fit")
    assert [f.paths for f in study.factors] == [("trees",), ("tree.depth",)]


def test_a_study_of_ones_own_training_may_not_choose_by_the_test_set_either():
    with pytest.raises(StudyError, match="by the test set"):
        parse(FREE.replace("metric: score", "metric: test/score"))


def test_a_seed_is_no_setting_of_ones_own_training_either():
    with pytest.raises(StudyError, match="the seed is not part of the baseline"):
        parse(FREE.replace("trees: 10", "trees: 10, seed: 3"))


# --- --set ----------------------------------------------------------------------------------------------------------


def test_overrides_change_the_baseline():
    study = parse(SHORT, sets=["training.epochs=3", "baseline.optimizer.lr=1e-3", "augment={flip: true}"])
    assert study.baseline.get("training.epochs") == 3
    assert study.baseline.get("optimizer.lr") == 1e-3
    assert study.baseline.get("augment.flip") is True
    assert study.text == SHORT


def test_another_data_set_comes_with_its_own_fields_in_any_order():
    for sets in (
        ["data.name=image_folder", "data.root=/some/where", "data.subset=4000"],
        ["data.subset=4000", "data.root=/some/where", "data.name=image_folder"],
    ):
        data = parse(SHORT, sets=sets).baseline.get("data")
        assert (data["name"], data["root"], data["subset"]) == ("image_folder", "/some/where", 4000)


def test_an_override_says_its_value_as_the_file_does():
    def root(text):
        return parse(SHORT, sets=["data.name=image_folder", f"data.root={text}"]).baseline.get("data.root")

    assert root("a=b") == "a=b"
    assert root("'#1'") == "#1"
    assert root("C:\\images") == "C:\\images"
    assert root("../images of cats") == "../images of cats"
    assert parse(SHORT, sets=["data.subset=null"]).baseline.get("data.subset") is None


def test_the_last_of_two_overrides_of_a_path_holds():
    assert parse(SHORT, sets=["training.epochs=3", "training.epochs=4"]).baseline.get("training.epochs") == 4


# --- what does not matter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n\n" + SHORT.replace("margin: 0.005", "margin:   5.0e-3   # half a point"),
        SHORT.replace("{name: digits}", "\n    name: digits"),
        SHORT.replace("[8, 32]", "\n    - 8\n    - 32"),
        SHORT.replace("study: width", "'study': \"width\""),
        "factors:\n  model.width: [8, 32]\n" + SHORT[: SHORT.index("factors:")],
        SHORT.replace("\n", "\r\n"),
    ],
)
def test_layout_comments_and_order_do_not_matter(text):
    assert text != SHORT
    assert parse(text).plain() == parse(SHORT).plain()


# --- anything at all ------------------------------------------------------------------------------------------------

PIECES = [
    *"[]{}:,-&*#'\"|>?%@`!\t\n ~",
    "true",
    ".nan",
    "1e400",
    "<<: *a",
    "&a ",
    "!!set {a}",
    "!!int x",
    "- ",
    ": ",
]
PIECES += [
    "model",
    "zip",
    "seed",
    "{zip: {model.width: [1]}}",
    "x" * 99,
    "null",
    "0x1f",
    "\u2028",
    "[[1]]",
    "factorial",
]
PIECES += ["\0", "é"]


def message_of(text: str, **more) -> str:
    """The message where the study is wrong, nothing where it is right; anything else that is raised passes through."""
    try:
        parse(text, **more)
    except StudyError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", [SHORT, FREE, TUNED, SEARCHED, FRACTION])
def test_the_studies_that_the_next_test_changes_are_right(text):
    assert message_of(text) == ""


@quick
@given(
    st.sampled_from([SHORT, FREE, TUNED, SEARCHED, FRACTION]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
def test_whatever_is_written_is_a_study_or_a_mistake(text, edits):
    for share, length, piece in edits:
        at = math.floor(share * len(text))
        text = text[:at] + piece + text[at + length :]
    message = message_of(text)
    assert len(message) < 700
    assert "object at 0x" not in message


@quick
@given(
    st.text(max_size=60)
    | st.tuples(st.sampled_from(["model", "model.width", "data.root"]), st.text(max_size=20)).map("=".join)
)
def test_whatever_is_overridden_is_a_study_or_a_mistake(text):
    message = message_of(SHORT, sets=[text])
    assert not message or message.startswith(("--set", "study.yaml:7: factors.model.width"))
