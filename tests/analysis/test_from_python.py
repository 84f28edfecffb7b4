"""Called from Python with frames of one's own: each mistake is named with its place, and what is no mistake just works."""

from __future__ import annotations

import uuid
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from analysis_frames import V3, change, replicates, row

from ablate.analysis import ArmRule, Caution, Rules, caution, headline, judge, sentence, to_json
from ablate.errors import AblateError, StoreError, StudyError

ARMS = ("model.width=64", "model.width=128")
FRAME = replicates({ARMS[0]: V3["A"], ARMS[1]: V3["C"]}, base=[0.9, 0.91, 0.92, 0.9, 0.91])


def rules(**options) -> Rules:
    given = {"metric": "val/accuracy", "margin": 0.5, "looks": (5, 10), "arms": tuple(map(ArmRule, ARMS))}
    return Rules(**given | options)


def told(plan: Rules, frame: pd.DataFrame) -> dict:
    """Everything that is read from a frame, as JSON and as sentences."""
    found = judge(plan, frame)
    said = [headline(found), *(sentence(c, found.rules) for c in found.comparisons)]
    return {"json": to_json(found), "said": said}


MISTAKES = {
    "a margin as text": ({"margin": "0.005"}, StudyError, "margin", "must be a number"),
    "no margin": ({"margin": None}, StudyError, "margin", "must be a number"),
    "a margin of zero": ({"margin": np.float64(0)}, StudyError, "margin", "positive"),
    "a margin that is not finite": ({"margin": np.float32("nan")}, StudyError, "margin", "positive"),
    "a boolean for a margin": ({"margin": True}, StudyError, "margin", "must be a number"),
    "a resolution as text": ({"resolution": "1/360"}, StudyError, "resolution", "must be a number"),
    "looks as text": ({"looks": "5, 10"}, StudyError, "seeds", "whole numbers"),
    "half a look": ({"looks": (2.5, 5)}, StudyError, "seeds", "whole numbers"),
    "looks that fall": ({"looks": np.array([10, 5])}, StudyError, "seeds", "increasing"),
    "arms by name alone": ({"arms": ARMS}, StudyError, "arms", "ArmRule('model.width=64')"),
    "one arm instead of a list": ({"arms": "A"}, StudyError, "arms", "no list of arms"),
    "a metric of the test set": ({"metric": "test/accuracy"}, StudyError, "metric", "by the test set"),
    "no metric": ({"metric": ""}, StudyError, "metric", "cannot name a metric"),
    "a name that does not say what is better": (
        {"metric": "score"},
        StudyError,
        "direction",
        "direction='maximize'",
    ),
    "a design that does not exist": ({"design": "one at a time"}, StudyError, "design", "one-at-a-time"),
    "a direction that does not exist": ({"direction": "maximise"}, StudyError, "direction", "'maximize'"),
}


@pytest.mark.parametrize(("wrong", "kind", "place", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_rules_is_named_with_its_place(wrong, kind, place, words):
    with pytest.raises(AblateError) as caught:
        rules(**wrong)
    assert (type(caught.value), caught.value.place) == (kind, place)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", [True, None, 1.5, "", ("a", 1), float("nan")])
def test_what_cannot_name_an_arm_is_refused(name):
    with pytest.raises(StudyError, match="cannot name an arm"):
        ArmRule(name)
    with pytest.raises(StudyError, match="cannot name an arm"):
        rules(reference=name)


FRAMES = {
    "seeds that are UUIDs as text": (
        FRAME.assign(seed=[str(uuid.UUID(int=i)) for i in range(len(FRAME))]),
        "column 'seed'",
        "paired by whole numbers",
    ),
    "seeds that are UUIDs": (
        FRAME.assign(seed=[uuid.UUID(int=i) for i in range(len(FRAME))]),
        "column 'seed'",
        "is no seed",
    ),
    "half a seed": (FRAME.assign(seed=FRAME["seed"] + 0.5), "column 'seed'", "0.5 is no seed"),
    "a seed that is missing": (
        FRAME.assign(seed=[np.nan, *FRAME["seed"][1:]]),
        "column 'seed'",
        "nan is no seed",
    ),
    "an arm that is missing": (
        FRAME.assign(arm=[None, *FRAME["arm"][1:]]),
        "column 'arm'",
        "cannot name an arm",
    ),
    "an arm that is half a number": (FRAME.assign(arm=0.5), "column 'arm'", "cannot name an arm"),
    "a misspelt arm": (
        FRAME.replace({"arm": {ARMS[1]: "model.widht=128"}}),
        "column 'arm'",
        "no run of the arm 'model.width=128'",
    ),
    "a misspelt reference": (
        FRAME.replace({"arm": {"baseline": "base line"}}),
        "column 'arm'",
        "did you mean 'base line'?",
    ),
    "a value that is no number": (
        FRAME.assign(value=["good", *FRAME["value"][1:]]),
        "column 'value'",
        "no number",
    ),
    "a column twice": (pd.concat([FRAME, FRAME[["value"]]], axis=1), "column 'value'", "two columns"),
    "complex numbers": (FRAME.assign(value=FRAME["value"] + 1j), "column 'value'", "complex"),
    "an unknown phase": (FRAME.assign(phase="test"), "column 'phase'", "'report'"),
    "no phase": (FRAME.assign(phase=None), "column 'phase'", "'report'"),
    "an unknown outcome": (FRAME.assign(outcome="ok"), "column 'outcome'", "finished, diverged and failed"),
    "a column that is missing": (FRAME.drop(columns="phase"), None, "no column phase"),
    "no frame": ([{"arm": "baseline"}], None, "not a DataFrame"),
}


@pytest.mark.parametrize(("frame", "place", "words"), FRAMES.values(), ids=FRAMES)
def test_a_mistake_in_the_frame_is_named_with_its_place(frame, place, words):
    with pytest.raises(StoreError) as caught:
        judge(rules(), frame)
    assert caught.value.place == place
    assert words in str(caught.value)


def test_a_misspelt_arm_of_the_rules_suggests_the_one_of_the_frame():
    with pytest.raises(StoreError, match=r"did you mean 'model.width=64'"):
        judge(rules(arms=(ArmRule("model.widht=64"), ArmRule(ARMS[1]))), FRAME)
    with pytest.raises(StoreError, match=r"(?s)no run of 'basline'.*did you mean 'baseline'"):
        judge(rules(arms=(ArmRule(ARMS[0], reference="basline"), ArmRule(ARMS[1]))), FRAME)
    with pytest.raises(StoreError, match="no run of the arm 'bse'"):
        judge(rules(arms=(ArmRule(ARMS[0], reference="bse"),)), FRAME)
    with pytest.raises(StudyError, match=r"did you mean 'model.width=64'"):
        judge(rules(), FRAME).comparison("model.width=46")


def test_an_arm_without_a_run_yet_is_no_mistake():
    found = judge(rules(), FRAME[FRAME["arm"] != ARMS[1]])
    assert found.provisional
    assert found.comparison(ARMS[1]).n == 0


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("val_loss", "minimize"),
        ("val/loss", "minimize"),
        ("RMSE", "minimize"),
        ("ppl", "minimize"),
        ("val_acc", "maximize"),
    ],
)
def test_the_direction_is_what_the_name_says(metric, direction):
    assert rules(metric=metric).direction == direction
    worse = -1.0 if direction == "minimize" else 1.0
    given = judge(rules(metric=metric, looks=5), FRAME).comparison(ARMS[0])
    assert given.effect == pytest.approx(worse * 1.0)
    assert rules(metric=metric, direction="maximize").direction == "maximize", "what is said stands"


PLAIN = told(rules(), FRAME)
ALIKE = {
    "a margin of numpy": (rules(margin=np.float64(0.5)), FRAME),
    "a margin of numpy in 32 bits": (rules(margin=np.float32(0.5)), FRAME),
    "a margin that is an integer of numpy over two": (rules(margin=Fraction(1, 2)), FRAME),
    "a resolution of numpy": (rules(resolution=np.int64(0)), FRAME),
    "looks of numpy": (rules(looks=np.array([5, 10])), FRAME),
    "looks in a list": (rules(looks=[5, 10]), FRAME),
    "seeds of numpy": (rules(seeds=np.arange(10)), FRAME),
    "arms in a list": (rules(arms=[ArmRule(name) for name in ARMS]), FRAME),
    "seeds as floats": (rules(), FRAME.assign(seed=FRAME["seed"].astype(float))),
    "seeds as objects": (rules(), FRAME.assign(seed=FRAME["seed"].astype(object))),
    "arms as a category": (rules(), FRAME.assign(arm=FRAME["arm"].astype("category"))),
    "values in 64 bits of pandas": (rules(), FRAME.assign(value=FRAME["value"].astype("Float64"))),
}


@pytest.mark.parametrize(("plan", "frame"), ALIKE.values(), ids=ALIKE)
def test_numbers_and_names_of_numpy_and_pandas_are_as_good_as_plain_ones(plan, frame):
    assert told(plan, frame) == PLAIN


def test_arms_may_be_called_by_whole_numbers():
    numbered = FRAME.assign(arm=[{"baseline": 0, ARMS[0]: 64, ARMS[1]: 128}[arm] for arm in FRAME["arm"]])
    for names in ((64, 128, 0), (np.int64(64), np.int16(128), np.int32(0)), ("64", "128", "0")):
        found = judge(rules(arms=(ArmRule(names[0]), ArmRule(names[1])), reference=names[2]), numbered)
        assert [(c.arm, c.reference, c.n) for c in found.comparisons] == [("64", "0", 5), ("128", "0", 5)]
        assert [c["effect"] for c in to_json(found)["arms"]] == [c["effect"] for c in PLAIN["json"]["arms"]]


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
def test_a_baseline_without_a_number_says_so_and_does_not_speak_of_divergence_alone(value):
    found = judge(rules(looks=5), change(FRAME.astype({"value": object}), "baseline", 3, value=value))
    assert found.error == Caution("reference-not-finite", "baseline", seeds=(3,))
    text = caution(found.error, found.rules)
    assert text.startswith("the baseline has no finite value under seed 3, though its outcome is `finished`")
    assert "leave out the rows" in text
    assert [c.verdict for c in found.comparisons] == ["inconclusive"] * 2
    diverged = judge(rules(looks=5), change(FRAME, "baseline", 3, value=np.nan, outcome="diverged"))
    assert diverged.error == Caution("reference-diverged", "baseline", seeds=(3,))


def test_rows_that_are_left_out_cost_a_pair_and_no_more():
    lost = FRAME[~((FRAME["arm"] == "baseline") & (FRAME["seed"] == 3))]
    found = judge(rules(looks=5), lost, closed=1)
    assert found.error is None
    assert [c.n for c in found.comparisons] == [4, 4]


def test_a_frame_of_five_columns_is_enough():
    bare = FRAME[["arm", "seed", "phase", "outcome", "value"]]
    assert [c.verdict for c in judge(rules(), bare).comparisons] == [
        c["verdict"] for c in PLAIN["json"]["arms"]
    ]


def test_curves_may_call_arms_by_numbers_and_their_seeds_are_checked_too():
    numbered = pd.DataFrame(
        [row(arm, seed, 0.5 + arm / 100 + seed / 1000) for arm in (0, 1) for seed in range(3)]
    )
    curves = pd.DataFrame(
        [
            {"arm": arm, "seed": seed, "phase": "report", "epoch": epoch, "metric": "val/loss", "value": 1.0}
            for arm in (0, 1)
            for seed in range(3)
            for epoch in (1, 2, 3)
        ]
    )
    plan = rules(arms=(ArmRule(1),), reference=0, looks=3)
    assert judge(plan, numbered, curves).comparisons[0].arm == "1"
    with pytest.raises(StoreError, match="is no seed"):
        judge(plan, numbered, curves.assign(seed="s3ed"))
    with pytest.raises(StoreError, match="no column epoch"):
        judge(plan, numbered, curves.drop(columns="epoch"))


CURVES = pd.DataFrame(
    [
        {"arm": arm, "seed": seed, "phase": "report", "metric": "val/accuracy", "epoch": epoch, "value": 0.9}
        for arm in ("baseline", *ARMS)
        for seed in range(5)
        for epoch in (1, 2)
    ]
)
WRONG_CURVES = {
    "a value that is no number": (CURVES.assign(value="high"), "column 'value'"),
    "an epoch that is no number": (CURVES.assign(epoch="first"), "column 'epoch'"),
    "an epoch before the first": (CURVES.assign(epoch=0), "column 'epoch' of the curves"),
    "no epoch": (CURVES.assign(epoch=None), "column 'epoch' of the curves"),
    "no seed": (CURVES.assign(seed=[None, *CURVES["seed"][1:]]), "column 'seed' of the curves"),
    "no metric": (CURVES.assign(metric=None), "column 'metric' of the curves"),
    "no phase": (CURVES.assign(phase=None), "column 'phase' of the curves"),
    "no arm": (CURVES.assign(arm=None), "column 'arm'"),
    "a column twice": (pd.concat([CURVES, CURVES[["seed"]]], axis=1), "column 'seed'"),
    "a column that is missing": (CURVES.drop(columns="phase"), None),
    "rows": (CURVES.to_dict("records"), None),
    "a series": (CURVES["value"], None),
}


@pytest.mark.parametrize(("curves", "place"), WRONG_CURVES.values(), ids=WRONG_CURVES)
def test_a_mistake_in_the_curves_is_named_with_its_place(curves, place):
    with pytest.raises(StoreError) as caught:
        judge(rules(), FRAME, curves)
    assert caught.value.place == place


def test_seeds_may_be_as_large_as_they_like():
    def later(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(seed=[10**30 + seed for seed in frame["seed"]])

    analysis = judge(rules(), later(FRAME), later(CURVES))
    assert to_json(analysis)["arms"] == to_json(judge(rules(), FRAME, CURVES))["arms"]


@pytest.mark.parametrize("factor", [3, 1.5, ("a", "b"), True])
def test_what_cannot_name_a_factor_is_refused(factor):
    with pytest.raises(StudyError, match="cannot name a factor"):
        ArmRule("wide", factor=factor, level=1)
