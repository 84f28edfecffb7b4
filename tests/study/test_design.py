"""Study → plan: which arms under which seeds in which order, what names them, and the record of it all."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.analysis import plan as recorded_plan
from ablate.config import RunConfig, key
from ablate.data.facts import DataFacts
from ablate.errors import StudyError
from ablate.study import again, design, spec
from ablate.study.looks import LookPlan
from ablate.study.record import PlanRecord
from ablate.study.seeds import replicate_of
from ablate.text import format_value

quick = settings(max_examples=25, deadline=None, derandomize=True)

BASE = """\
study: some
margin: 0.005
baseline:
  data: {name: digits, validation: 0.2}
  model: {name: cnn, depth: 2, width: 16}
  augment: {flip: true}
"""
FREE = """\
study: forest
train: own_plan:fit
metric: score
direction: maximize
margin: 0.1
baseline: {trees: 10, tree: {depth: 3, kind: null}, on: yes}
"""


def reread(record):
    """A record as it comes back from the store."""
    return PlanRecord.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)))


SIZES = DataFacts("d1g1t5", 1000, 250, 500, (1, 8, 8), tuple("0123456789"))


def study(factors: str, more: str = "seeds: 3", base: str = BASE, **options) -> spec.Study:
    return spec.parse(f"{base}factors: {factors}\n{more}\n", source="some.yaml", **options)


def data_of(config) -> DataFacts:
    """Data that are told apart by name alone."""
    return (
        dataclasses.replace(SIZES, fingerprint=f"{config.get('data.name')}-pixels")
        if isinstance(config, RunConfig)
        else DataFacts()
    )


def plan(factors: str, more: str = "seeds: 3", base: str = BASE, **options) -> design.Plan:
    return design.plan(study(factors, more, base, **options), data_of)


def arms(made: design.Plan) -> list[tuple]:
    return [(arm.name, arm.factor, arm.level) for arm in made.arms]


@pytest.fixture
def own_plan(tmp_path, monkeypatch):
    (tmp_path / "own_plan.py").write_text("def fit(config, seed):\n    yield {'score': 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture(scope="module")
def own_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "odd_levels_plan.py").write_text("def fit(config, seed):\n    yield {'val/accuracy': 1}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield "odd_levels_plan:fit"


# --- designs --------------------------------------------------------------------------------------------------------


def test_one_at_a_time_changes_one_factor_in_each_arm():
    made = plan("{model.width: [8, 32], optimizer.lr: [1e-2]}")
    assert arms(made) == [
        ("baseline", None, None),
        ("model.width=8", "model.width", 8),
        ("model.width=32", "model.width", 32),
        ("optimizer.lr=0.01", "optimizer.lr", 0.01),
    ]
    assert made.reference == "baseline"
    assert [dict(arm.levels) for arm in made.arms] == [
        {"model.width": 16, "optimizer.lr": 0.05},
        {"model.width": 8, "optimizer.lr": 0.05},
        {"model.width": 32, "optimizer.lr": 0.05},
        {"model.width": 16, "optimizer.lr": 0.01},
    ]
    assert made.arms[1].config == made.arms[0].config.override({"model.width": 8})


def test_leave_one_out_compares_with_the_full_system():
    made = plan("{model.width: [32], optimizer.lr: [1e-2], augment: [null]}", "design: leave-one-out")
    base = made.study.baseline
    whole = base.get("augment")
    assert whole["flip"] is True
    assert arms(made) == [
        ("full", None, None),
        ("full but model.width=16", "model.width", 16),
        ("full but optimizer.lr=0.05", "optimizer.lr", 0.05),
        (f"full but augment={format_value(whole)}", "augment", whole),
    ]
    full = {"model.width": 32, "optimizer.lr": 0.01, "augment": None}
    assert made.reference == "full"
    assert made.arm("full").config == base.override(full)
    for arm in made.arms[1:]:
        assert arm.config == base.override({path: v for path, v in full.items() if path != arm.factor})
    assert made.arms[1].levels["model.width"] == 16
    assert made.arms[1].levels["optimizer.lr"] == 0.01


THREE = "{model.width: [32], optimizer.lr: [1e-2], model.depth: [3]}"


def test_both_tries_every_factor_alone_and_left_out_of_everything():
    made = plan(THREE, "design: both")
    assert [(arm.name, arm.factor, arm.reference) for arm in made.arms] == [
        ("baseline", None, None),
        ("model.width=32", "model.width", None),
        ("optimizer.lr=0.01", "optimizer.lr", None),
        ("model.depth=3", "model.depth", None),
        ("full", None, None),
        ("full but model.width=16", "model.width", "full"),
        ("full but optimizer.lr=0.05", "optimizer.lr", "full"),
        ("full but model.depth=2", "model.depth", "full"),
    ]
    rules = recorded_plan.rules(made.record())
    assert [(arm.name, rules.reference_of(arm)) for arm in rules.arms] == [
        (arm.name, arm.reference or "baseline") for arm in made.arms if arm.factor
    ]
    assert rules.k == 9, "three alone, three left out, three interactions with the rest"


def test_a_fraction_runs_the_cells_that_its_generators_say():
    made = plan(
        THREE, "design: fractional\nfraction: {generators: {model.depth: [model.width, optimizer.lr]}}"
    )
    assert [tuple(arm.levels.values()) for arm in made.arms] == [
        (16, 0.05, 2),
        (32, 0.05, 3),
        (16, 0.01, 3),
        (32, 0.01, 2),
    ]
    assert made.record().fraction.words == "2^(3−1), resolution III"
    assert plan(THREE, "design: fractional\nfraction: {cells: 4}").id == made.id


def test_a_path_begins_with_single_changes_and_goes_on_from_the_one_it_took():
    made = plan(THREE, "design: path")
    assert [arm.name for arm in made.arms] == [
        "baseline",
        "model.width=32",
        "optimizer.lr=0.01",
        "model.depth=3",
    ]
    assert len(made.ahead) == 4
    one = made.onward("optimizer.lr=0.01")
    assert [(arm.name, arm.factor, arm.reference) for arm in one.choices] == [
        ("model.width=32,optimizer.lr=0.01", "model.width", "optimizer.lr=0.01"),
        ("optimizer.lr=0.01,model.depth=3", "model.depth", "optimizer.lr=0.01"),
    ]
    two = one.onward("optimizer.lr=0.01,model.depth=3")
    (last,) = two.choices
    assert (last.factor, last.level) == ("model.width", 32)
    three = two.onward(last.name)
    assert three.choices == ()
    assert len(three.arms) == 1 + 3 * 4 // 2
    assert {step.id for step in (made, one, two, three)} == {made.id}, "results make no other plan"
    again = design.from_record(reread(two.record()))
    assert (again.id, again.path, again.choices) == (two.id, two.path, two.choices)
    assert again.record() == two.record()


@quick
@given(st.permutations(range(4)))
def test_every_step_of_a_path_changes_one_factor_of_the_configuration_before_it(order):
    made = plan(
        "{model.width: [32], optimizer.lr: [1e-2], model.depth: [3], augment.flip: [false]}", "design: path"
    )
    target = made.study.baseline.override({f.name: f.levels[0][f.name] for f in made.study.factors})
    for pick in order:
        made = made.onward(made.choices[pick % len(made.choices)].name)
    for arm in made.arms[1:]:
        before = made.arm(arm.reference).config
        assert before.override({arm.factor: arm.level}) == arm.config
        assert before != arm.config
    assert made.arm(made.path[-1]).config == target


def test_a_factorial_has_every_combination_the_baseline_first():
    made = plan("{model.width: [8, 32], optimizer.lr: [1e-2]}", "design: factorial")
    assert arms(made) == [
        ("baseline", None, None),
        ("optimizer.lr=0.01", "optimizer.lr", 0.01),
        ("model.width=8", "model.width", 8),
        ("model.width=8,optimizer.lr=0.01", None, {"model.width": 8, "optimizer.lr": 0.01}),
        ("model.width=32", "model.width", 32),
        ("model.width=32,optimizer.lr=0.01", None, {"model.width": 32, "optimizer.lr": 0.01}),
    ]
    assert {(arm.levels["model.width"], arm.levels["optimizer.lr"]) for arm in made.arms} == {
        (width, lr) for width in (16, 8, 32) for lr in (0.05, 0.01)
    }


@pytest.mark.parametrize("kind", ["one-at-a-time", "factorial"])
def test_zipped_paths_are_one_factor(kind):
    made = plan("{both: {zip: {model.width: [8, 32], optimizer.lr: [0.2, 1e-2]}}}", f"design: {kind}")
    levels = [{"model.width": 8, "optimizer.lr": 0.2}, {"model.width": 32, "optimizer.lr": 0.01}]
    assert arms(made) == [
        ("baseline", None, None),
        ("model.width=8,optimizer.lr=0.2", "both", levels[0]),
        ("model.width=32,optimizer.lr=0.01", "both", levels[1]),
    ]
    assert [arm.levels["both"] for arm in made.arms] == [{"model.width": 16, "optimizer.lr": 0.05}, *levels]


def test_zipped_paths_are_left_out_together():
    made = plan(
        "{both: {zip: {model.width: [32], optimizer.lr: [1e-2]}}, augment.crop: [2]}", "design: leave-one-out"
    )
    assert [arm.name for arm in made.arms] == [
        "full",
        "full but model.width=16,optimizer.lr=0.05",
        "full but augment.crop=0",
    ]
    assert made.arms[1].config == made.study.baseline.override({"augment.crop": 2})


def test_levels_may_be_blocks_and_nothing():
    made = plan("{model: [{name: small_cnn, kernel_size: 2}], augment: [null]}")
    assert arms(made) == [
        ("baseline", None, None),
        ("model={name: small_cnn, kernel_size: 2}", "model", {"name": "small_cnn", "kernel_size": 2}),
        ("augment=null", "augment", None),
    ]
    assert made.arms[1].config.get("model.hidden") == [120, 84]
    assert made.arms[2].config.get("augment.flip") is False


def test_a_new_name_is_a_level_too():
    made = plan("{model.name: [small_cnn], data.name: [mnist]}")
    assert [arm.name for arm in made.arms] == ["baseline", "model.name=small_cnn", "data.name=mnist"]
    assert made.arms[1].config.get("model.channels") == [6, 16]
    assert made.arms[2].config.get("data.validation") == 0.2
    assert made.data["data.name=mnist"].fingerprint == "mnist-pixels"


def test_two_ways_to_the_same_run_are_a_mistake():
    with pytest.raises(StudyError) as caught:
        plan("{augment: [null], augment.flip: [false]}")
    assert "the arms 'augment=null' and 'augment.flip=false' are the same run" in str(caught.value)


def test_a_copy_of_the_same_data_is_no_level():
    made = study("{data.root: [/here, /there]}", sets=["data.name=mnist"])
    with pytest.raises(StudyError, match="are the same run: same settings, same data"):
        design.plan(made, lambda _config: SIZES)
    different = iter(["a", "b", "c"])
    assert len(design.plan(made, lambda _config: DataFacts(next(different))).arms) == 3


def test_ones_own_training_is_planned_like_any_other(own_plan):
    made = plan("{trees: [20, '20'], tree.depth: [null], tree: [{depth: 9}]}", base=FREE)
    assert arms(made) == [
        ("baseline", None, None),
        ("trees=20", "trees", 20),
        ("trees='20'", "trees", "20"),
        ("tree.depth=null", "tree.depth", None),
        ("tree={depth: 9}", "tree", {"depth": 9}),
    ]


# --- laws -----------------------------------------------------------------------------------------------------------

FACTORS = {
    "model.width": [4, 8, 32],
    "model.depth": [1, 3],
    "model.activation": ["tanh", "gelu"],
    "model.batch_norm": [False],
    "augment.crop": [1, 2],
    "optimizer.lr": [0.1, 0.2],
    "training.epochs": [1, 2, 3],
    "data.subset": [500, 600],
}


@st.composite
def studies(draw, kind: str | None = None):
    kind = kind or draw(st.sampled_from(["one-at-a-time", "leave-one-out", "factorial"]))
    names = draw(st.lists(st.sampled_from(sorted(FACTORS)), min_size=2, max_size=3, unique=True))
    levels = {
        name: draw(
            st.lists(
                st.sampled_from(FACTORS[name]),
                min_size=1,
                max_size=1 if kind == "leave-one-out" else 3,
                unique=True,
            )
        )
        for name in names
    }
    looks = sorted(draw(st.sets(st.integers(1, 6), min_size=1, max_size=3)))
    return study(
        json.dumps(levels),
        f"design: {kind}\nseeds: {looks}\nnoise_floor: {draw(st.sampled_from(['true', 'false']))}",
    )


@quick
@given(studies())
def test_arms_differ_from_the_reference_only_in_their_factors(made):
    made = design.plan(made, data_of)
    reference = made.arms[0].config.flatten()
    for arm in made.arms[1:]:
        different = {path for path, value in arm.config.flatten().items() if reference[path] != value}
        changed = {name for name, level in arm.levels.items() if level != made.arms[0].levels[name]}
        assert different == changed
        assert different
        if made.study.design != "factorial":
            assert different == {arm.factor}
        assert all(arm.config.get(path) == level for path, level in arm.levels.items())


@quick
@given(studies())
def test_runs_go_breadth_first_over_seeds(made):
    made = design.plan(made, data_of)
    runs = list(made.replicates(made.names, range(made.study.looks[-1])))
    assert [run.arm for run in runs] == list(made.names) * made.study.looks[-1]
    replicates = [replicate_of(run.seed) for run in runs]
    assert replicates == sorted(replicates)
    assert len({run.key for run in runs}) == len(runs), "no two runs are the same"
    assert {run.phase for run in runs if run.arm == "A/A"} <= {"A/A"}


@quick
@given(studies())
def test_the_same_study_makes_the_same_plan(made):
    one, two = (
        design.plan(spec.parse(made.text, source=name), data_of) for name in ("here.yaml", "there.yaml")
    )
    assert one == two
    assert one.id == two.id


@quick
@given(studies())
def test_a_plan_comes_back_from_its_record_as_it_was(made):
    made = design.plan(made, data_of)
    record = reread(made.record())
    assert record == made.record()
    again = design.from_record(record)
    assert again == made
    assert again.id == made.id == record.id
    assert again.record() == record
    runs = list(again.replicates(again.names, range(made.study.looks[-1])))
    assert [(run.arm, run.seed, run.key) for run in runs] == [(r.arm, r.seed, r.key) for r in record.runs]
    for run in runs:
        assert again.config(run) == made.config(run)
        assert (
            key(
                again.config(run),
                again.data[run.arm if run.arm != "A/A" else again.reference].fingerprint,
                again.codes[again.reference],
            )
            == run.key
        )


def test_a_plan_of_ones_own_training_comes_back_from_its_record(own_plan):
    made = plan("{trees: [20], tree: [{depth: 9}]}", "seeds: [2, 4]\nresolution: 0.5", base=FREE)
    again = design.from_record(reread(made.record()))
    assert again == made
    assert again.id == made.id
    assert again.resolution == 0.5


def test_a_record_needs_neither_the_code_nor_the_data_that_it_was_made_with(own_plan, tmp_path):
    made = plan("{trees: [20]}", base=FREE)
    record = made.record()
    (tmp_path / "own_plan.py").write_text("def fit(config, seed):\n    yield {'score': 2}\n")
    assert design.from_record(record).id == made.id
    (tmp_path / "own_plan.py").unlink()
    assert design.from_record(record).id == made.id


# --- what names a plan ----------------------------------------------------------------------------------------------

ORIGINAL = "{model.width: [8, 32], optimizer.lr: [1e-2]}"


@pytest.mark.parametrize(
    ("factors", "more"),
    [
        ("{model.width: [8, 64], optimizer.lr: [1e-2]}", "seeds: 3"),
        ("{model.width: [8], optimizer.lr: [1e-2]}", "seeds: 3"),
        ("{optimizer.lr: [1e-2], model.width: [8, 32]}", "seeds: 3"),
        (ORIGINAL, "seeds: 3\nnoise_floor: true"),
        (ORIGINAL, "seeds: 3\nconfirm: true"),
        (ORIGINAL, "seeds: 3\nmetric: val/loss"),
        (ORIGINAL, "seeds: 3\nresolution: 0.25"),
        (ORIGINAL, "seeds: 3\ndesign: factorial"),
    ],
)
def test_another_question_is_another_plan(factors, more):
    assert plan(factors, more).id != plan(ORIGINAL).id


def test_another_margin_baseline_name_or_override_is_another_plan():
    ids = {
        plan(ORIGINAL).id,
        plan(ORIGINAL, base=BASE.replace("0.005", "0.01")).id,
        plan(ORIGINAL, base=BASE.replace("study: some", "study: other")).id,
        plan(ORIGINAL, base=BASE.replace("depth: 2", "depth: 3")).id,
        plan(ORIGINAL, sets=["training.epochs=3"]).id,
    }
    assert len(ids) == 5


def test_other_seeds_are_the_same_plan_wherever_they_are_asked_for():
    ids = {
        plan(ORIGINAL, more).id for more in ("seeds: 4", "seeds: [2, 3]", "seeds: {initial: 5, max: 10}", "")
    }
    made = plan(ORIGINAL)
    ids |= {design.plan(made.study, data_of, seeds).id for seeds in (None, 1, 3, 20)}
    assert ids == {made.id}


def test_a_look_that_is_asked_for_may_raise_the_most_seeds_of_a_plan_but_never_lowers_them():
    study_of_ten = study(ORIGINAL, "seeds: {initial: 5, max: 10}")
    looks = [design.plan(study_of_ten, data_of, seeds).looks for seeds in (None, 3, 10, 20)]
    assert looks == [LookPlan(10, (5, 10)), LookPlan(10, (3,)), LookPlan(10, (10,)), LookPlan(20, (20,))]


def test_a_plan_of_an_earlier_version_keeps_the_name_that_told_its_looks():
    """Version 0.1.0 named a plan by all that `naming(stops=True)` returns; the default looks were left out."""
    three, list_of_looks, default = (plan(ORIGINAL, more) for more in ("seeds: 3", "seeds: [3, 5, 8]", ""))
    assert [made.study.naming(stops=True)["seeds"] for made in (three, list_of_looks)] == [[3], [3, 5, 8]]
    assert len({three.earlier_id, list_of_looks.earlier_id, default.earlier_id}) == 3
    assert default.earlier_id == default.id == three.id


# --- looks ----------------------------------------------------------------------------------------------------------


@given(
    most=st.integers(1, 40),
    commands=st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=8),
)
@quick
def test_whatever_is_asked_for_looks_increase_and_pass_the_most_seeds_before_they_go_beyond(most, commands):
    looks = LookPlan(most, (most,))
    for finishes, seeds in commands:
        before = looks
        looks = looks.until(seeds)
        assert looks.at[: looks.taken] == before.at[: before.taken], "what was taken stays"
        assert list(looks.at) == sorted(set(looks.at))
        assert seeds in looks.at or seeds <= looks.last_taken
        if any(pairs > looks.most for pairs in looks.at):
            assert looks.most in looks.at
        if before.taken:
            assert looks.most == before.most
        if finishes and looks.at:
            looks = looks.judged(len(looks.at))


@pytest.mark.parametrize(
    ("looks", "stops", "resumed"),
    [
        (LookPlan(10, (3,), 1), (5, 10), LookPlan(10, (3, 5, 10), 1)),
        (LookPlan(10, (3,), 0), (5, 10), LookPlan(10, (5, 10), 0)),
        (LookPlan(10, (5, 7), 2), (5, 10), LookPlan(10, (5, 7, 10), 2)),
        (LookPlan(3, (3, 8), 1), (3,), LookPlan(3, (3, 8), 1)),
        (LookPlan(10, (5, 10), 1), (5, 20), LookPlan(10, (5, 10, 20), 1)),
        (LookPlan(10, (5,), 1), (5, 20), LookPlan(10, (5, 10, 20), 1)),
        (LookPlan(10, (5, 10), 2), (3,), LookPlan(10, (5, 10), 2)),
        (LookPlan(10, (20,), 0), (5, 10), LookPlan(10, (5, 10), 0)),
    ],
)
def test_a_study_that_is_run_again_goes_on_with_its_looks_and_then_with_those_of_its_file(
    looks, stops, resumed
):
    assert looks.resumed(stops) == resumed


def test_the_record_of_version_1_keeps_the_looks_that_it_had():
    plain = plan(ORIGINAL, "seeds: [3, 5]").record().to_json()
    del plain["looks"]
    old = {**plain, "version": 1, "extra_looks": [8, 9]}
    assert PlanRecord.from_json(old).looks == LookPlan(5, (3, 5, 8, 9), 0)


def test_other_data_or_other_code_is_another_plan():
    made = plan(ORIGINAL)
    other = design.plan(made.study, lambda _config: dataclasses.replace(SIZES, fingerprint="other"))
    edited = dataclasses.replace(made, codes=dict.fromkeys(made.codes, "edited"))
    assert len({made.id, other.id, edited.id}) == 3


def test_comments_layout_and_the_question_make_the_same_plan():
    text = f"{BASE}factors: {ORIGINAL}\nseeds: 3\n"
    same = f"# why\n{text}\nquestion: Does it matter?   # no\n".replace("{name: digits", "{  name: 'digits'")
    one, two = (design.plan(spec.parse(t, source="s.yaml"), data_of) for t in (text, same))
    assert one.id == two.id
    assert list(one.replicates(one.names, range(3))) == list(two.replicates(two.names, range(3)))


# --- seeds, noise, resolution ---------------------------------------------------------------------------------------


def test_every_phase_has_its_own_range_of_seeds():
    made = plan(ORIGINAL)
    assert [made.run("baseline", 2, phase).seed for phase in ("report", "A/A", "tune", "confirm")] == [
        2,
        1002,
        2002,
        3002,
    ]
    keys = {made.run("baseline", 2, phase).key for phase in ("report", "A/A", "tune", "confirm")}
    assert len(keys) == 4


def test_the_noise_floor_is_the_reference_under_seeds_of_its_own():
    made = plan(
        "{model.width: [32], optimizer.lr: [1e-2]}", "seeds: 2\nnoise_floor: true\ndesign: leave-one-out"
    )
    assert made.names[-1] == "A/A"
    runs = [run for run in made.replicates(made.names, range(2)) if run.arm == "A/A"]
    assert [(run.seed, run.phase) for run in runs] == [(1000, "A/A"), (1001, "A/A")]
    assert [made.config(run) for run in runs] == [
        made.arm("full").config.with_seed(seed) for seed in (1000, 1001)
    ]


def test_without_a_noise_floor_there_is_none():
    assert plan(ORIGINAL).names == tuple(arm.name for arm in plan(ORIGINAL).arms)


@pytest.mark.parametrize(
    ("more", "resolution"),
    [
        ("metric: val/accuracy", 1 / 250),
        ("metric: train/accuracy", 1 / 1000),
        ("metric: val/loss", 0.0),
        ("metric: val/accuracy\nresolution: 0.1", 0.1),
    ],
)
def test_the_smallest_step_of_an_accuracy_is_one_image(more, resolution):
    assert plan(ORIGINAL, more).resolution == resolution
    record = plan(ORIGINAL, more).record()
    assert record.resolution == resolution
    assert design.from_record(record).resolution == resolution


def test_the_smallest_step_of_another_training_is_not_known(own_plan):
    assert plan("{trees: [20]}", base=FREE).resolution == 0.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (0.5, 0.5),
        (True, "true"),
        (None, "null"),
        ("relu", "relu"),
        ([1, 2], "[1, 2]"),
        ({"a": 1}, "{a: 1}"),
    ],
)
def test_a_level_is_a_number_where_it_is_one_and_text_elsewhere(value, expected):
    found = design.parameter(value)
    assert (type(found), found) == (type(expected), expected)


ODD_TEXT = st.text("ab1,=:{}[]'\" \\\n×", max_size=6)
ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | ODD_TEXT | st.sampled_from(["true", "null", "1", "1e3"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(ODD_TEXT.filter(bool), inner, max_size=2),
    max_leaves=3,
)
OVERRIDES = st.dictionaries(ODD_TEXT.filter(bool), ODD_VALUES, min_size=1, max_size=3)


@given(OVERRIDES, OVERRIDES)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_different_overrides_never_share_a_name(one, other):
    assert (design.name_of(one) == design.name_of(other)) == (repr(one) == repr(other))


@given(OVERRIDES, ODD_TEXT.filter(bool), ODD_TEXT, ODD_TEXT)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_level_can_pass_for_further_overrides(overrides, path, before, after):
    """A level that is written as a whole name, or as the end of one."""
    text = f"{before}{design.name_of(overrides)}{after}"
    assert design.name_of({path: text}) != design.name_of({path: before} | overrides)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"model.width": 128}, "model.width=128"),
        ({"optimizer.lr": 1e-05, "augment": None}, "optimizer.lr=1e-05,augment=null"),
        ({"model": {"name": "cnn", "depth": 2}}, "model={name: cnn, depth: 2}"),
        ({"model.hidden": [500, 50]}, "model.hidden=[500, 50]"),
        ({"optimizer.name": "adam"}, "optimizer.name=adam"),
        ({"text": "it's a b/c:d"}, "text=it's a b/c:d"),
        ({"a": "true"}, "a='true'"),
        ({"a": "x,b=y"}, "a='x,b=y'"),
        ({}, "baseline"),
    ],
)
def test_ordinary_levels_are_named_as_they_are_and_others_in_quotes(overrides, name):
    assert design.name_of(overrides) == name


ODD_LEVELS = [
    *[
        "x,y",
        "a=1",
        "x,b=y",
        "'x'",
        '"x"',
        "x\ny",
        "{a: 1}",
        "[1]",
        "full",
        "baseline",
        " ",
        "null",
        "true",
        "1",
        "1.0",
        "x y",
        "ü=,\\",
    ],
    1,
    True,
]


@given(
    st.sampled_from(["one-at-a-time", "leave-one-out", "both", "factorial", "fractional", "path"]),
    st.lists(
        st.lists(st.sampled_from(ODD_LEVELS), min_size=1, max_size=3, unique_by=repr), min_size=3, max_size=3
    ),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_arm_of_every_design_has_a_name_of_its_own(own_module, kind, levels):
    one_level = kind not in ("one-at-a-time", "factorial")
    tree = {
        "study": "odd",
        "train": own_module,
        "metric": "val/accuracy",
        "margin": 0.1,
        "baseline": {"a": None, "b": None, "a b": None},
        "factors": {
            path: rows[:1] if one_level else rows
            for path, rows in zip(("a", "b", "a b"), levels, strict=True)
        },
        "design": kind,
    } | ({"fraction": {"cells": 4}} if kind == "fractional" else {})
    made = design.plan(spec.parse(yaml.safe_dump(tree, allow_unicode=True)), lambda _config: DataFacts())
    names = [arm.name for arm in (*made.arms, *made.ahead)]
    assert len(set(names)) == len(names)
    assert not {"A/A", ""} & set(names)


def test_arms_that_would_share_a_name_are_a_mistake(own_module):
    """Only a setting that is called like an arm can do that."""
    text = (
        f"study: odd\ntrain: {own_module}\nmetric: val/accuracy\nmargin: 0.1\ndesign: both\n"
        "baseline: {a: 1, full but a: 2, b: 1}\nfactors: {a: [3], full but a: [1], b: [2]}\n"
    )
    with pytest.raises(StudyError, match="two arms have the name 'full but a=1'"):
        design.plan(spec.parse(text), lambda _config: DataFacts())


# --- large plans ------------------------------------------------------------------------------------------------------


def test_planning_computes_what_names_a_run_once_and_looks_an_arm_up_at_once(own_plan, monkeypatch):
    """Time that grows with the square of the arms was 54 s for 5,000 arms of 5 seeds."""
    asked = []
    monkeypatch.setattr(design, "key_and_recipe", lambda *given: asked.append(given) or (str(len(asked)), ""))
    levels = ", ".join(str(n) for n in range(11, 311))
    planned = design.plan(study(f"{{trees: [{levels}]}}", "seeds: 5", FREE), data_of)
    record = planned.record()
    assert (len(record.runs), planned.id) == (301 * 5, planned.id)
    list(planned.replicates(planned.names, range(5)))
    # The seeds of all arms, and the first of each as it names the plan.
    assert len(asked) == 301 * 5 + 301

    looked = []

    class Arms(tuple):
        __slots__ = ()

        def __iter__(self):
            looked.append(1)
            return super().__iter__()

    again = dataclasses.replace(planned, arms=Arms(planned.arms))
    assert [again.arm(arm.name) for arm in planned.arms] == list(planned.arms)
    assert len(looked) == 1


@pytest.mark.parametrize(("levels", "seeds"), [(300, 1000), (599, 500)])
def test_a_plan_of_more_runs_than_can_be_held_is_refused_with_its_size(own_plan, levels, seeds):
    factors = f"{{trees: [{', '.join(str(n) for n in range(11, 11 + levels))}]}}"
    with pytest.raises(
        StudyError, match=rf"{levels + 1} arms under {seeds:,} seeds are {(levels + 1) * seeds:,} runs"
    ):
        design.plan(study(factors, f"seeds: {seeds}", FREE), data_of)
    with pytest.raises(StudyError, match="runs"):
        design.plan(study(factors, "seeds: 3", FREE), data_of, seeds=1000)
    assert design.plan(study(factors, f"seeds: {seeds}", FREE), data_of, seeds=3).looks.at[-1] == 3


@pytest.mark.parametrize(
    "more",
    [
        "nuisance: {tree.depth: {int: [1, 9]}}",
        "nuisance: {tree.depth: {int: [1, 9], trials: 5}}\nsearch: {sampler: random, candidates: 2}",
        "nuisance: {tree.depth: [1, 9]}\nsearch: {trials: 4, pruner: asha}\nnoise_floor: true",
        "deterministic: true\nseeds: 1",
        "unpaired: true\nseeds: {initial: 3, max: 6}",
        "judged_on: test\nresolution: 0.01\nconfirm: true",
    ],
)
def test_a_study_of_undecided_arms_declares_what_theirs_did(own_plan, more):
    before = plan("{trees: [20, 30]}", more, FREE)
    text = again.study(reread(before.record()), ["trees=30"], "more", seeds=[3, 6], first_seed=6)
    after = spec.parse(text, source="more.yaml")
    own = {"name", "question", "factors", "looks", "first_seed", "text", "confirm"}
    assert {name: value for name, value in after if name not in own} == {
        name: value for name, value in before.study if name not in own
    }
    assert [factor.levels for factor in after.factors] == [({"trees": 30},)]
    assert (after.looks, after.first_seed) == ((3, 6), 6)
