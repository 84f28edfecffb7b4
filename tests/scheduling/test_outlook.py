"""What `ablate plan` says before the first run: costs that were measured or remembered, and noise whose source is stated."""

from __future__ import annotations

import io
import json
import math
import re
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from ablate import console, launch
from ablate.analysis import power
from ablate.executors import Slot
from ablate.executors.inline import InlineExecutor
from ablate.measuring import probe
from ablate.scheduling import outlook
from ablate.study import design, spec
from ablate.study.forecast import RunCost, forecast

DIGITS = """
study: {name}
margin: {margin}
baseline:
  data: {{name: digits, validation: 0.25, subset: 400}}
  model: {{name: cnn, depth: 2, width: 4}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
  training: {{epochs: 1, batch_size: 64}}
factors: {factors}
seeds: {seeds}
"""


@pytest.fixture
def digits(workplace):
    def write(
        name: str = "digits", factors: str = "{model.width: [2]}", margin: float = 0.02, seeds: int = 3
    ) -> str:
        path = workplace.root / f"{name}.yaml"
        path.write_text(DIGITS.format(name=name, factors=factors, margin=margin, seeds=seeds))
        return str(path)

    return write


def plan(path: str, *sets: str) -> design.Plan:
    return design.plan(spec.read(Path(path), sets=sets), launch.data_lookup())


def look_ahead(workplace, path: str, *sets: str) -> outlook.Outlook:
    return outlook.outlook(plan(path, *sets), workplace.store, InlineExecutor(probe.measure, Slot("inline")))


@pytest.fixture
def own_time(monkeypatch):
    """Let measurements count the time of this process alone, in which a machine that is held up does not show."""
    monkeypatch.setattr(probe, "run_seconds", partial(probe.run_seconds, clock=time.process_time))


def seconds(found: outlook.Outlook) -> dict[str, float]:
    return {arm.arm: arm.seconds for arm in found.cost.arms}


def test_the_forecast_of_real_arms_is_finite_and_a_much_wider_network_costs_more(workplace, digits, own_time):
    found = look_ahead(workplace, digits(factors="{model.width: [16, 192]}"))
    each = seconds(found)
    assert all(math.isfinite(value) and value > 0 for value in each.values())
    assert each["model.width=192"] > each["baseline"]
    sizes = [(arm.parameters, arm.flops) for arm in found.cost.arms]
    assert sizes == sorted(sizes)
    assert found.cost.first >= sum(each.values()) * 3
    assert found.cost.first == found.cost.most


def test_more_epochs_cost_more_in_proportion(workplace, digits, own_time):
    rounds = {
        epochs: seconds(look_ahead(workplace, digits(), f"training.epochs={epochs}"))["baseline"]
        for epochs in (10, 1000)
    }
    assert rounds[1000] > 10 * rounds[10]


def test_arms_that_differ_in_rates_alone_are_measured_once(workplace, digits, monkeypatch):
    asked = []
    true = probe.run_seconds
    monkeypatch.setattr(probe, "run_seconds", lambda *given: asked.append(given) or true(*given))
    each = seconds(look_ahead(workplace, digits(factors="{optimizer.lr: [0.01, 0.3], model.width: [2]}")))
    assert len(asked) == 2
    assert each["baseline"] == each["optimizer.lr=0.01"] == each["optimizer.lr=0.3"]


def test_an_arm_that_diverges_at_once_is_measured_all_the_same(workplace, digits):
    found = look_ahead(workplace, digits(factors="{optimizer.lr: [1.0e+30], model.batch_norm: [false]}"))
    assert all(value > 0 for value in seconds(found).values())


def test_without_earlier_runs_the_noise_is_an_assumption_and_called_one(workplace, digits):
    found = look_ahead(workplace, digits())
    assert found.noise.known_from == "assumption"
    assert found.noise.source == "assumed: two trainings disagree on 5 to 25 % of the 100 validation images"
    assert found.noise.sd == pytest.approx(math.sqrt(0.05 / 100))
    assert found.noise.most == pytest.approx(math.sqrt(0.25 / 100))


@pytest.mark.parametrize(
    ("margin", "said"), [(0.5, ""), (0.03, "may be out of reach"), (0.01, "is out of reach")]
)
def test_an_assumed_noise_is_a_range_and_so_is_what_seeds_detect(workplace, digits, margin, said):
    found = look_ahead(workplace, digits(margin=margin, seeds=10))
    screen = Console(width=200, file=io.StringIO())
    screen.print(console.outlook(found))
    text = screen.file.getvalue()
    assert re.search(r"noise of a paired difference: (2.2 to 5 points|0.022 to 0.05) \(assumed", text)
    low, high = map(
        float, re.search(r"10 seeds detect about ([\d.]+) to ([\d.]+) (?:points )?with", text).groups()
    )
    assert high / low == pytest.approx(math.sqrt(5), rel=0.1)
    assert re.findall(r"m\w* be out of reach|is out of reach", text) == ([said] if said else [])


def test_earlier_runs_of_the_same_baseline_in_another_study_tell_the_noise(workplace, digits):
    workplace.ablate("run", digits("first"), "--executor", "inline", "-q")
    second = digits("second", factors="{model.width: [8]}")
    found = look_ahead(workplace, second)
    assert found.noise.known_from == "the same baseline"
    assert found.noise.source == "from 3 earlier runs of the same baseline, as if pairing gained nothing"
    values = [
        run.data.metrics["val/accuracy"]
        for run in workplace.runs("first")
        if run.data.tags["ablate.arm"] == "baseline"
    ]
    assert found.noise.sd == pytest.approx(power.assumed_noise(values))
    for change in ("training.epochs=2", "data.subset=500", "optimizer.lr=0.2"):
        other = look_ahead(workplace, second, change)
        assert other.noise.known_from == "assumption", f"runs with another {change} are other runs"


def test_a_study_s_own_runs_tell_its_noise_and_its_costs(workplace, digits):
    path = digits()
    workplace.ablate("run", path, "--executor", "inline", "-q")
    recorded = {
        arm: sorted(
            run.data.metrics["time/train_seconds"]
            for run in workplace.runs("digits")
            if run.data.tags["ablate.arm"] == arm
        )
        for arm in ("baseline", "model.width=2")
    }
    found = look_ahead(workplace, path)
    assert (found.noise.known_from, found.noise.source) == (
        "this study",
        "from this study's own runs so far",
    )
    assert seconds(found) == {arm: values[1] for arm, values in recorded.items()}
    assert all(arm.parameters and arm.flops for arm in found.cost.arms), "sizes are remembered too"
    changed = look_ahead(workplace, path, "training.batch_size=32")
    assert changed.noise.known_from == "assumption"
    assert set(seconds(changed).values()).isdisjoint(
        value for values in recorded.values() for value in values
    )


def test_times_of_another_machine_or_another_kind_of_device_are_not_this_one_s(
    workplace, digits, monkeypatch
):
    path = digits()
    workplace.ablate("run", path, "--executor", "inline", "-q")
    remembered = seconds(look_ahead(workplace, path))
    monkeypatch.setattr(outlook.platform, "node", lambda: "elsewhere")
    assert seconds(look_ahead(workplace, path)) != remembered


def test_the_user_s_own_training_is_not_probed_and_its_cost_is_unknown_until_it_has_run(workplace):
    study = workplace.study()
    found = look_ahead(workplace, study)
    assert set(seconds(found).values()) == {None}
    assert (found.cost.first, found.noise.sd, found.noise.known_from) == (None, None, "")
    said = workplace.ablate("plan", study, "--workers", "1")
    assert "noise of a paired difference unknown: no earlier runs of this baseline" in said
    assert "3 seeds detect about" in said
    workplace.ablate("run", study, "--executor", "inline", "-q")
    assert look_ahead(workplace, study).cost.first > 0


def test_the_plan_on_the_screen_and_as_json_say_the_same(workplace, digits):
    path = digits()
    workplace.ablate(
        "run", path, "--executor", "inline", "-q"
    )  # what is remembered does not change between two calls
    said = workplace.ablate("plan", path, "--workers", "2")
    found = json.loads(workplace.ablate("plan", path, "--workers", "2", "--json"))
    assert set(found) == {
        *("study", "plan", "metric", "margin", "resolution", "slots", "family", "fraction"),
        *("arms", "runs", "seconds", "seed", "noise", "looks", "data_notes"),
    }
    assert (found["study"], found["slots"], found["runs"]) == (
        "digits",
        2,
        {"first": 6, "most": 6, "done": 6},
    )
    assert [arm["arm"] for arm in found["arms"]] == ["baseline", "model.width=2"]
    assert found["noise"]["from"] == "this study"
    [look] = found["looks"]
    assert look["pairs"] == 3
    assert look["margin_in_reach"] == (look["detectable"] <= 0.02)
    assert look["detectable"] == pytest.approx(look["detectable_sds"] * found["noise"]["sd"])
    assert ("the margin of 2 is out of reach" in said) != look["margin_in_reach"]
    assert f"3 seeds detect about {100 * look['detectable']:.2g} points" in said
    assert "2 arms, 6 runs on 2 slots" in said
    assert all(f"{arm['parameters']:,}" in said for arm in found["arms"])


def test_two_seeds_are_said_to_give_no_interval(workplace, digits):
    path = digits()
    found = json.loads(workplace.ablate("plan", path, "--seeds", "2", "--json", "--workers", "1"))
    assert [(look["pairs"], look["detectable"], look["margin_in_reach"]) for look in found["looks"]] == [
        (2, None, None)
    ]
    workplace.ablate(
        "run", path, "--seeds", "2", "--executor", "inline", "-q"
    )  # so that nothing is measured again
    assert "2 seeds give no interval" in workplace.ablate("plan", path, "--seeds", "2", "--workers", "1")


def test_what_is_still_searched_for_has_no_number_of_finished_runs(workplace):
    study = workplace.trained()
    assert look_ahead(workplace, study).done == 9
    text = Path(study).read_text().replace("study: toy", "study: found\ndesign: search")
    ranges = "factors: {gain: {range: [0, 1]}}\nsearch: {trials: 4}"
    Path("found.yaml").write_text(re.sub("factors: .*", ranges, text))
    found = look_ahead(workplace, "found.yaml")
    assert found.done is None
    assert outlook.to_json(found)["runs"]["done"] is None


def test_slots_share_the_runs_and_the_dearest_run_is_the_least_it_takes(workplace, digits):
    made = plan(digits())
    costs = {"baseline": RunCost(10.0), "model.width=2": RunCost(100.0)}
    one, three, many = (forecast(made, costs, slots, starting=0.0).first for slots in (1, 3, 1000))
    recording = one - 330
    assert recording > 0
    assert three == pytest.approx(110 + recording)
    assert many == pytest.approx(100 + recording)
    assert forecast(made, costs, 1, starting=2.0).first > one
    assert forecast(made, costs | {"baseline": RunCost()}, 1).first is None


@pytest.mark.parametrize(
    ("runs", "each", "starting", "took"),
    [
        (40, 0.006, None, 3.2),
        (20, 0.46, None, 7.3),
        (6, 0.28, None, 3.9),
        (6, 0.28, 1.55, 3.9),
        (16, 0.46, None, 6.5),
        (16, 0.46, 1.55, 6.5),
    ],
    ids=["function", "command", "digits", "digits, measured", "more digits", "more digits, measured"],
)
def test_short_runs_are_forecast_within_a_factor_of_two(workplace, digits, runs, each, starting, took):
    """What two idle cores took (docs/plan.md); `each` is the time of a run and `starting` that of the workers."""
    made = plan(digits(seeds=runs // 2))
    cost = forecast(made, dict.fromkeys(("baseline", "model.width=2"), RunCost(each)), 2, starting)
    assert cost.runs_first == runs
    assert took / 2 < cost.first < took * 2


def test_confirmation_and_the_noise_floor_are_counted(workplace, digits):
    path = digits()
    Path(path).write_text(Path(path).read_text() + "noise_floor: true\nconfirm: true\n")
    found = forecast(plan(path), {"baseline": RunCost(1.0), "model.width=2": RunCost(1.0)}, 1)
    assert [arm.arm for arm in found.arms] == ["baseline", "model.width=2", "A/A"]
    assert (found.runs_first, found.runs_most) == (9, 15)


def test_looks_that_were_taken_stay_what_they_spent_and_what_comes_after_is_an_extra_look(workplace):
    study = workplace.trained()
    Path(study).write_text(Path(study).read_text().replace("seeds: 3", "seeds: [2, 8]"))
    said = workplace.ablate("plan", study)
    assert "judged at 3 seeds so far, of 3 at most:" in said
    assert "8 seeds, an extra look, detect about" in said
    found = json.loads(workplace.ablate("plan", study, "--json"))
    assert [(look["pairs"], look["alpha"]) for look in found["looks"]] == [(3, 0.045), (8, 0.0025)]
    assert [(look["taken"], look["extra"]) for look in found["looks"]] == [(True, False), (False, True)]
    assert found["runs"] == {"first": 9, "most": 24, "done": 9}
    assert "9–24 runs on" in said
    assert "; 9 runs are done already" in said
