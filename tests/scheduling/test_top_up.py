"""Top-ups, confirmations, noise floors and looks in unusual orders: after a kill, twice, in every design."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ablate.analysis import rules as rules_module
from ablate.scheduling import budget
from ablate.study import design, spec
from ablate.study.looks import LookPlan
from ablate.study.record import PlanRecord
from ablate.tracking.plans import stored_plans

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]
UNDECIDED = "{gain: [0.2], spread: [0.06]}"


def verdicts(workplace, name: str = "toy") -> dict:
    return json.loads(workplace.ablate("report", name, "--format", "json"))


def arms(found: dict) -> dict[str, dict]:
    return {arm["arm"]: arm for arm in found["arms"]}


def trained(workplace, name: str = "toy", *, copies: bool = True) -> dict[str, list[int]]:
    """Arm → seeds of its finished runs."""
    seeds: dict[str, list[int]] = {}
    for run in workplace.runs(name):
        if run.info.status == "FINISHED" and (copies or "ablate.source_run" not in run.data.tags):
            seeds.setdefault(run.data.tags["ablate.arm"], []).append(int(run.data.tags["ablate.seed"]))
    return {arm: sorted(found) for arm, found in seeds.items()}


def record(workplace, name: str = "toy") -> PlanRecord:
    return stored_plans(workplace.store, name)[-1].record


def run(workplace, *arguments: str, code: int = 0) -> str:
    return workplace.ablate(*arguments, "--executor", "inline", code=code)


def test_every_top_up_is_a_look_of_its_own_and_costs_half_of_the_one_before(workplace):
    workplace.trained(factors=UNDECIDED)
    run(workplace, "top-up", "toy", "--seeds", "1")
    first = verdicts(workplace)
    run(workplace, "top-up", "toy", "--seeds", "2")
    second = verdicts(workplace)
    assert (first["alpha"], second["alpha"]) == (pytest.approx(0.0025), pytest.approx(0.00125))
    assert record(workplace).looks == LookPlan(3, (3, 4, 6), 3)
    assert arms(second)["spread=0.06"]["n"] == 6
    assert arms(second)["gain=0.2"] == arms(first)["gain=0.2"], "what is decided stays as it was"
    assert trained(workplace)["gain=0.2"] == [0, 1, 2]


@pytest.mark.parametrize("more", [("--seeds", "2"), ("--seeds", "1"), ("--budget", "1h")])
def test_a_top_up_that_was_killed_before_its_record_is_concluded_and_spends_no_second_look(workplace, more):
    workplace.trained(factors=UNDECIDED)
    run(workplace, "top-up", "toy", "--seeds", "2")
    before, seeds, looks = verdicts(workplace), trained(workplace), record(workplace).looks
    # The plan as it was between the last run and the record of the look.
    stored = stored_plans(workplace.store, "toy")[-1]
    plan = Path(stored.artifacts.removeprefix("file://")) / "plan.json"
    content = json.loads(plan.read_text())
    content["looks"]["taken"] -= 1
    plan.write_text(json.dumps(content))
    output = run(workplace, "top-up", "toy", *more)
    assert "was complete, but not recorded" in output
    assert record(workplace).looks == looks
    assert trained(workplace) == seeds
    assert verdicts(workplace) == before


def test_running_a_study_again_after_a_top_up_forgets_nothing_of_it(workplace):
    study = workplace.trained(factors=UNDECIDED)
    run(workplace, "top-up", "toy", "--seeds", "2")
    before, seeds = verdicts(workplace), trained(workplace)
    run(workplace, "run", study)
    assert record(workplace).looks == LookPlan(3, (3, 5), 2)
    assert verdicts(workplace) == before
    assert trained(workplace) == seeds
    run(workplace, "top-up", "toy", "--seeds", "1")
    assert verdicts(workplace)["alpha"] == pytest.approx(0.00125), "the second top-up is the second"


def test_a_top_up_of_a_study_whose_runs_were_copied_from_another_counts_them(workplace):
    run(workplace, "run", workplace.study("first", factors=UNDECIDED, seeds="3"))
    run(workplace, "run", workplace.study("second", factors=UNDECIDED, seeds="3"))
    run(workplace, "top-up", "second", "--seeds", "2")
    found = arms(verdicts(workplace, "second"))
    assert (found["gain=0.2"]["n"], found["spread=0.06"]["n"]) == (3, 5)
    assert trained(workplace, "second", copies=False) == {"baseline": [3, 4], "spread=0.06": [3, 4]}


def test_a_top_up_takes_runs_that_another_study_has_made_already(workplace):
    run(workplace, "run", workplace.study("wide", factors=UNDECIDED, seeds="5"))
    run(workplace, "run", workplace.study(factors=UNDECIDED, seeds="3"))
    run(workplace, "top-up", "toy", "--seeds", "2")
    assert trained(workplace, copies=False) == {}
    assert arms(verdicts(workplace))["spread=0.06"]["n"] == 5


def kill_in_the_middle(workplace, *arguments: str, after: int) -> None:
    """Run a command on one worker, and kill it once so many runs have ended."""
    with (
        workplace.turns(after),
        subprocess.Popen(
            [*ABLATE, *arguments, "--workers", "1"], stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process,
    ):
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith(f"[{after}/"))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    workplace.ablate("status")  # puts in order what was left behind, and says so


def test_a_top_up_that_was_killed_goes_on_and_opens_no_second_look(workplace, monkeypatch):
    study = workplace.study(factors="{spread: [0.06]}", seeds="3")
    run(workplace, "run", study)
    kill_in_the_middle(workplace, "top-up", "toy", "--seeds", "5", after=8)
    assert verdicts(workplace)["look"] == 1, "an interrupted look is no look yet"
    for again in ("top-up", "run"):
        place = workplace.copy(again)
        monkeypatch.chdir(place.root)
        if again == "top-up":
            assert "going on" in run(place, "top-up", "toy", "--seeds", "5")
        else:
            run(place, "run", study)
        assert trained(place) == {arm: list(range(8)) for arm in ("baseline", "spread=0.06")}
        found = verdicts(place)
        assert record(place).looks == LookPlan(3, (3, 8), 2)
        assert (found["look"], found["alpha"], found["declared"]) == (2, pytest.approx(0.0025), False)


@pytest.mark.slow
def test_a_top_up_by_budget_that_was_killed_keeps_what_it_trained(workplace):
    study = workplace.study(factors="{spread: [0.06]}", seeds="3")
    run(workplace, "run", study, "--set", "sleep=0.15")
    kill_in_the_middle(workplace, "top-up", "toy", "--budget", "1h", after=4)
    run(workplace, "top-up", "toy", "--seeds", "2")
    seeds = trained(workplace)
    assert seeds["baseline"][:5] == seeds["spread=0.06"][:5] == [0, 1, 2, 3, 4]
    assert len(seeds["baseline"]) == len(set(seeds["baseline"])), "nothing is trained twice"
    assert arms(verdicts(workplace))["spread=0.06"]["n"] == 5


def test_a_top_up_whose_budget_ends_in_its_middle_has_whole_rounds_and_no_promise_left(
    workplace, monkeypatch
):
    run(workplace, "run", workplace.study(factors="{spread: [0.06, 0.07]}", seeds="3"))
    # Ten seconds that pass as the budget is asked, however busy the machine is.
    asked = itertools.count()
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: 0.25 * next(asked)))
    run(workplace, "top-up", "toy", "--budget", "10s")
    found, seeds = verdicts(workplace), trained(workplace)
    [_, pairs] = record(workplace).looks.at
    assert pairs > 3
    assert {arm["n"] for arm in found["arms"]} == {pairs}
    assert {tuple(s) for s in seeds.values()} == {tuple(range(pairs))}
    assert found["runs"]["missing"] == 0


def test_a_top_up_whose_budget_buys_no_seed_says_what_one_takes_and_leaves_the_study_as_it_was(workplace):
    run(workplace, "run", workplace.study(factors="{spread: [0.06]}", seeds="3"))
    before, status = verdicts(workplace), workplace.ablate("status")
    said = run(workplace, "top-up", "toy", "--budget", "0.0001s", code=2)
    assert "buy no seed: the 2 runs of a seed take about " in said
    assert (verdicts(workplace), workplace.ablate("status")) == (before, status)
    assert "complete" in status
    assert trained(workplace) == {"baseline": [0, 1, 2], "spread=0.06": [0, 1, 2]}
    assert record(workplace).looks == LookPlan(3, (3,), 1)


def test_a_top_up_beyond_the_seeds_that_there_are_is_refused(workplace):
    run(workplace, "run", workplace.study(factors=UNDECIDED, seeds="11"), "--set", "epochs=1")
    said = run(workplace, "top-up", "toy", "--seeds", "990", code=2)
    assert "1000" in said
    assert record(workplace).looks == LookPlan(11, (11,), 1)


def test_a_top_up_of_a_study_whose_baseline_diverged_says_so(workplace):
    study = workplace.study(factors="{gain: [0.2]}", seeds="3")
    run(workplace, "run", study, "--set", "diverges=true", code=1)
    said = run(workplace, "top-up", "toy", "--seeds", "2", code=2)
    assert "the baseline diverged" in said


def test_a_leave_one_out_study_is_topped_up_against_its_full_arm(workplace):
    study = workplace.study(
        factors="{gain: [0.2], spread: [0.06], width: [9]}", seeds="3", more="design: leave-one-out\n"
    )
    run(workplace, "run", study)
    before = arms(verdicts(workplace))
    undecided = [name for name, arm in before.items() if arm["verdict"] == "inconclusive"]
    assert undecided, "the study must leave something open"
    run(workplace, "top-up", "toy", "--seeds", "2")
    seeds, after = trained(workplace), arms(verdicts(workplace))
    assert {arm["reference"] for arm in after.values()} == {"full"}
    assert seeds["full"] == [0, 1, 2, 3, 4]
    for name, arm in after.items():
        assert arm["n"] == len(seeds[name]) == (5 if name in undecided else 3)
        if name not in undecided:
            assert arm == before[name]


def test_a_factorial_study_is_topped_up_by_the_cells_of_its_undecided_effects(workplace):
    study = workplace.study(
        factors="{gain: [0.2], spread: [0.05]}", seeds="3", more="design: factorial\nnoise_floor: true\n"
    )
    run(workplace, "run", study)
    before = {tuple(e["terms"]): e for e in verdicts(workplace)["effects"]}
    assert before[("gain=0.2",)]["verdict"] == "helps"
    assert any(effect["verdict"] == "inconclusive" for effect in before.values())
    run(workplace, "top-up", "toy", "--seeds", "2")
    found = verdicts(workplace)
    after = {tuple(e["terms"]): e for e in found["effects"]}
    assert found["k"] == 3
    for terms, effect in after.items():
        if before[terms]["verdict"] == "inconclusive":
            assert (effect["n"], effect["look"]) == (5, 2)
        else:
            assert effect == before[terms]
    seeds = trained(workplace)
    assert {len(seeds[cell]) for cell in ("baseline", "gain=0.2", "spread=0.05", "gain=0.2,spread=0.05")} == {
        5
    }


@pytest.mark.slow
def test_a_confirmation_that_was_interrupted_confirms_the_same_arm_although_another_would_win_now(workplace):
    # Both help; the wider one is ahead. Its lead is then taken away, by hand, in the record.
    study = workplace.study(factors="{gain: [0.2, 0.1]}", seeds="3", more="confirm: true\n")
    kill_in_the_middle(workplace, "run", study, after=10)
    assert record(workplace).confirmed == "gain=0.2"
    runs = [run for run in workplace.runs() if run.data.tags["ablate.arm"] == "gain=0.2"]
    for each in runs:
        if each.data.tags["ablate.phase"] == "report":
            workplace.client.log_metric(each.info.run_id, "val/accuracy", 0.75, step=2)
    run(workplace, "run", study)
    confirmed = {
        run.data.tags["ablate.arm"] for run in workplace.runs() if run.data.tags["ablate.phase"] == "confirm"
    }
    assert confirmed == {"baseline", "gain=0.2"}
    assert verdicts(workplace)["confirmation"]["arm"] == "gain=0.2"
    assert verdicts(workplace)["confirmation"]["n"] == 3


def test_a_noise_floor_is_judged_also_where_every_arm_is_decided_at_the_first_look(workplace):
    study = workplace.study(
        factors="{gain: [0.2, 0.3]}", seeds="{initial: 3, max: 5}", more="noise_floor: true\n"
    )
    run(workplace, "run", study)
    found = verdicts(workplace)
    assert {arm["verdict"] for arm in found["arms"]} == {"helps"}
    assert (found["look"], found["aa"]["n"], found["runs"]["missing"]) == (1, 3, 0)
    assert trained(workplace)["A/A"] == [1000, 1001, 1002]


def test_a_noise_floor_that_is_decided_goes_on_to_no_further_look(workplace):
    study = Path(
        workplace.study(factors="{spread: [0.5]}", seeds="{initial: 3, max: 5}", more="noise_floor: true\n")
    )
    study.write_text(study.read_text().replace("margin: 0.02", "margin: 0.2"))
    run(workplace, "run", str(study))
    seeds, found = trained(workplace), verdicts(workplace)
    assert (found["aa"]["verdict"], found["aa"]["n"]) == ("no practical effect", 3)
    assert (len(seeds["spread=0.5"]), seeds["A/A"]) == (5, [1000, 1001, 1002])


def test_three_declared_looks_each_take_up_what_the_one_before_left_open(workplace):
    study = workplace.study(factors="{gain: [0.2], spread: [0.05]}", seeds="[3, 5, 8]")
    said = run(workplace, "run", study)
    assert all(f"look {number}: {pairs} seeds per arm" in said for number, pairs in ((1, 3), (2, 5), (3, 8)))
    found = verdicts(workplace)
    assert trained(workplace) == {"baseline": [*range(8)], "gain=0.2": [0, 1, 2], "spread=0.05": [*range(8)]}
    alphas = [look.alpha for look in rules_module.schedule((3, 5, 8))]
    assert arms(found)["gain=0.2"]["alpha"] == pytest.approx(alphas[0])
    assert arms(found)["spread=0.05"]["alpha"] == pytest.approx(alphas[2])


def test_two_seeds_decide_nothing_until_a_top_up_makes_three_of_them(workplace):
    run(workplace, "run", workplace.study(factors="{gain: [0.2]}", seeds="2"))
    found = verdicts(workplace)
    [arm] = found["arms"]
    assert (arm["verdict"], arm["withheld"], arm["ci"], arm["more_seeds"]) == (
        "inconclusive",
        "too few pairs",
        None,
        None,
    )
    run(workplace, "top-up", "toy", "--seeds", "3")
    [arm] = verdicts(workplace)["arms"]
    assert (arm["verdict"], arm["n"], arm["alpha"]) == ("helps", 5, pytest.approx(0.0025))


def test_the_plan_s_text_and_runs_are_kept_through_a_top_up_and_a_second_run(workplace):
    study = workplace.trained(factors=UNDECIDED)
    first = record(workplace)
    run(workplace, "top-up", "toy", "--seeds", "1")
    run(workplace, "run", study)
    last = record(workplace)
    assert last.text == first.text == Path(study).read_text()
    assert last.runs[: len(first.runs)] == first.runs
    assert len({run.key for run in last.runs}) == len(last.runs) == 9 + 2
    assert len(stored_plans(workplace.store, "toy")) == 1


# --- looks wherever they are asked for -------------------------------------------------------------------------------

OPEN = "{spread: [0.06]}"


def test_run_with_seeds_and_top_up_take_looks_of_one_plan_that_cost_their_share(workplace):
    study = workplace.study(factors=OPEN, seeds="{initial: 5, max: 10}")
    alphas = []
    for command in (
        ("run", study, "--seeds", "3"),
        ("top-up", "toy", "--seeds", "1"),
        ("run", study, "--seeds", "7"),
        ("run", study),
        ("top-up", "toy", "--seeds", "2"),
    ):
        run(workplace, *command)
        alphas.append(verdicts(workplace)["alpha"])
    assert record(workplace).looks == LookPlan(10, (3, 4, 7, 10, 12), 5)
    shares = [0.045 * (now**2 - before**2) / 100 for before, now in ((0, 3), (3, 4), (4, 7), (7, 10))]
    assert alphas == pytest.approx([*shares, 0.0025])
    assert len(stored_plans(workplace.store, "toy")) == 1
    found = verdicts(workplace)
    assert (found["look"], found["declared"], arms(found)["spread=0.06"]["n"]) == (5, False, 12)


def test_a_look_at_seeds_that_were_judged_already_adds_nothing_and_says_so(workplace):
    study = workplace.study(factors=OPEN, seeds="{initial: 5, max: 10}")
    run(workplace, "run", study, "--seeds", "4")
    before, seeds = verdicts(workplace), trained(workplace)
    for fewer in ("4", "3"):
        assert f"judged at 4 seeds; a look at {fewer} adds nothing" in run(
            workplace, "run", study, "--seeds", fewer
        )
        assert (verdicts(workplace), trained(workplace)) == (before, seeds)
    assert record(workplace).looks == LookPlan(10, (4,), 1)


def test_the_first_look_may_raise_the_most_seeds_and_a_later_one_is_extra(workplace):
    study = workplace.study(factors=OPEN, seeds="{initial: 3, max: 4}")
    run(workplace, "run", study, "--seeds", "6")
    assert (record(workplace).looks, verdicts(workplace)["alpha"]) == (LookPlan(6, (6,), 1), 0.045)
    said = run(workplace, "run", study, "--seeds", "8")
    assert "judged with at most 6 seeds: what goes beyond is an extra look" in said
    assert (record(workplace).looks, verdicts(workplace)["alpha"]) == (LookPlan(6, (6, 8), 2), 0.0025)


def test_a_look_beyond_the_most_seeds_spends_what_is_declared_on_its_way(workplace):
    study = workplace.study(factors=OPEN, seeds="{initial: 3, max: 5}")
    run(workplace, "run", study, "--seeds", "3")
    run(workplace, "top-up", "toy", "--seeds", "4")
    assert record(workplace).looks == LookPlan(5, (3, 5, 7), 3)
    assert verdicts(workplace)["alpha"] == 0.0025


def test_a_look_that_was_broken_off_was_not_read_and_gives_way_to_another(workplace):
    study = workplace.study(factors=OPEN, seeds="{initial: 3, max: 9}")
    run(workplace, "run", study, "--seeds", "3")
    kill_in_the_middle(workplace, "run", study, after=10)
    assert record(workplace).looks == LookPlan(9, (3, 9), 1)
    run(workplace, "top-up", "toy", "--seeds", "1")
    assert record(workplace).looks == LookPlan(9, (3, 4), 2)
    assert verdicts(workplace)["alpha"] == pytest.approx(0.045 * (16 - 9) / 81)


def test_the_most_seeds_of_an_edited_file_count_until_something_was_judged(workplace):
    study = Path(workplace.study(factors=OPEN, seeds="{initial: 3, max: 5}"))
    run(workplace, "run", str(study), "--seeds", "3")
    study.write_text(study.read_text().replace("max: 5", "max: 8"))
    said = run(workplace, "run", str(study))
    assert "judged with at most 5 seeds: what goes beyond is an extra look" in said
    assert record(workplace).looks == LookPlan(5, (3, 5, 8), 3)
    assert record(workplace).stops == (3, 8)


def test_a_winner_is_confirmed_once_no_declared_look_can_change_it(workplace):
    study = workplace.study(
        factors="{gain: [0.2], spread: [0.06]}", seeds="{initial: 3, max: 4}", more="confirm: true\n"
    )
    assert "the winner is confirmed once every arm is decided, or judged at 4 seeds" in run(
        workplace, "run", study, "--seeds", "3"
    )
    assert record(workplace).confirmed is None
    run(workplace, "run", study)
    assert record(workplace).confirmed == "gain=0.2"


def test_a_plan_that_an_earlier_version_recorded_goes_on_under_its_name(workplace, monkeypatch):
    study = workplace.study(factors=OPEN, seeds="{initial: 3, max: 5}")
    with monkeypatch.context() as version_1:
        version_1.setattr(design.Plan, "id", property(lambda plan: plan.recorded_id or plan.earlier_id))
        run(workplace, "run", study)
    old = record(workplace)
    run(workplace, "run", study, "--seeds", "5")
    run(workplace, "top-up", "toy", "--seeds", "1")
    assert [stored.record.id for stored in stored_plans(workplace.store, "toy")] == [old.id]
    assert record(workplace).looks == LookPlan(5, (3, 5, 6), 3)


# --- beyond the most seeds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("design_name", ["one-at-a-time", "leave-one-out"])
def test_the_undecided_arms_are_asked_about_again_on_fresh_seeds_alone(workplace, design_name):
    study = workplace.study(
        factors="{gain: [0.2], spread: [0.06], width: [9]}",
        seeds="3",
        more=f"design: {design_name}\nnoise_floor: true\n",
    )
    said = run(workplace, "run", study)
    before = verdicts(workplace)
    undecided = [arm for arm in before["arms"] if arm["verdict"] == "inconclusive"]
    assert undecided
    assert before["beyond"]["undecided"] == len(undecided)
    assert "To settle" in said
    assert "fresh" in said
    assert workplace.ablate("init", "--from", "toy").startswith("toy-again.yaml")
    again = spec.read(workplace.root / "toy-again.yaml")
    assert (again.first_seed, again.noise_floor, again.margin) == (3, True, 0.02)
    assert again.looks == (before["beyond"]["fresh"] or 3,)
    run(workplace, "run", "toy-again.yaml", "--seeds", "3")
    after = verdicts(workplace, "toy-again")
    assert {(arm["factor"], arm["level"]) for arm in after["arms"]} == {
        (arm["factor"], arm["level"]) for arm in undecided
    }
    assert after["k"] == len(undecided)
    seeds = trained(workplace, "toy-again")
    assert seeds.pop("A/A") == [1003, 1004, 1005]
    assert {tuple(each) for each in seeds.values()} == {(3, 4, 5)}
    assert not any("ablate.source_run" in each.data.tags for each in workplace.runs("toy-again")), (
        "nothing that was judged is judged again"
    )
    assert arms(after)[undecided[0]["arm"] if design_name == "one-at-a-time" else after["arms"][0]["arm"]][
        "alpha"
    ] == pytest.approx(0.045 * 9 / again.looks[-1] ** 2)
    workplace.ablate("init", "--from", "toy", "-o", "third.yaml")
    assert spec.read(workplace.root / "third.yaml").first_seed == 6, "the second study has used seeds too"


def test_a_study_of_fresh_seeds_goes_on_in_looks_and_top_ups_like_any_other(workplace, pass_by_runs):
    study = workplace.study(
        factors=OPEN, seeds="{initial: 3, max: 4}", more="first_seed: 20\nconfirm: true\n"
    )
    run(workplace, "run", study)
    run(workplace, "top-up", "toy", "--seeds", "1")
    pass_by_runs(2)
    run(workplace, "top-up", "toy", "--budget", "10s")
    seeds = trained(workplace)
    assert seeds["baseline"][:5] == [20, 21, 22, 23, 24]
    assert seeds["baseline"] == seeds["spread=0.06"] == [*range(20, 20 + record(workplace).looks.at[-1])]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("design: factorial\n", "cannot be asked about alone"),
        ("design: path\n", "cannot be asked about alone"),
    ],
)
def test_arms_that_are_judged_together_are_not_asked_about_alone(workplace, more, message):
    study = workplace.study(factors="{gain: [0.2], spread: [0.06]}", seeds="3", more=more)
    run(workplace, "run", study)
    assert message in workplace.ablate("init", "--from", "toy", code=2)


def test_a_study_without_undecided_arms_has_nothing_to_ask_again(workplace):
    workplace.trained(factors="{gain: [0.2]}")
    assert "no arm is undecided" in workplace.ablate("init", "--from", "toy", code=2)
    assert "only a search has candidates" in workplace.ablate("init", "--from", "toy", "--best", "1", code=2)
