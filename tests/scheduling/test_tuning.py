"""Learning rates that are tuned for every arm, and searches: from the study file to what is reported."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate import cli

# The best rate of an arm depends on its width, so that arms compared at one rate are compared at different distances from
# their best.
PEAK = '''
import math
import os
import random
import signal
from pathlib import Path


def fit(config, seed):
    """Accuracy falls with the squared distance from the best rate, in decades; that is 0.1 / width."""
    noise = random.Random(f"{sorted(config.items())}/{seed}")
    off = math.log10(config["lr"]) - math.log10(0.1 / config["width"])
    for epoch in range(1, config["epochs"] + 1):
        loss = math.nan if config["lr"] > config["most"] else 1.0
        reached = 0.8 + config["gain"] - 0.05 * off**2 + noise.gauss(0, 0.001)
        accuracy = reached * (0.5 + 0.5 * epoch / config["epochs"])
        yield {"train/loss": loss, "val/loss": loss, "val/accuracy": accuracy}
    mark = Path("interrupt")
    if mark.exists():
        left = int(mark.read_text()) - 1
        mark.write_text(str(left))
        if left == 0:
            mark.unlink()
            os.kill(os.getpid(), signal.SIGINT)
'''

TUNED = """
study: tuned
margin: 0.02
train: peak:fit
baseline: {{lr: 0.1, width: 1, gain: 0.0, epochs: {epochs}, most: 2.0}}
factors: {factors}
nuisance: {{lr: {{log: [{low}, 1], trials: {trials}}}}}
{more}
seeds: {seeds}
"""


@pytest.fixture
def peak(workplace):
    Path("peak.py").write_text(PEAK)
    Path("pyproject.toml").write_text('[tool.ablate]\nimports = ["peak"]\n')

    def write(factors="{width: [100]}", low="1e-5", trials=10, seeds="3", epochs=1, more=""):
        text = TUNED.format(factors=factors, low=low, trials=trials, seeds=seeds, epochs=epochs, more=more)
        Path("tuned.yaml").write_text(text)
        return "tuned.yaml"

    return write


def verdicts(workplace, name="tuned"):
    return json.loads(workplace.ablate("report", name, "--format", "json"))


def interrupted(*command, after):
    """Run a command that is interrupted after so many trainings."""
    Path("interrupt").write_text(str(after))
    result = CliRunner().invoke(cli.app, [*command, "--executor", "inline"])
    assert result.exit_code != 0
    assert not Path("interrupt").exists(), result.output


def test_arms_meet_at_the_rates_that_suit_them_and_what_tuning_does_is_shown(workplace, peak):
    study = peak()
    workplace.ablate("run", study, "--executor", "inline")
    found = verdicts(workplace)
    (arm,) = found["arms"]
    assert (arm["verdict"], arm["n"]) == ("no practical effect", 3)
    searches = {one["arm"]: one for one in found["tuning"]["searches"]}
    rates = {name: one["values"]["lr"] for name, one in searches.items()}
    assert rates["baseline"] == pytest.approx(0.1, rel=2)
    assert rates["width=100"] == pytest.approx(0.001, rel=2)
    for one in searches.values():
        assert sum(not trial["again"] for trial in one["trials"]) == 10
        assert sum(trial["again"] for trial in one["trials"]) == 3 * 3
        assert one["edge"] == {}
    (beside,) = found["tuning"]["effects"]
    assert beside["fixed"] == pytest.approx(-0.05 * 2**2, abs=0.01), (
        "at one rate the wide arm is two decades off"
    )
    assert beside["tuned"] == arm["effect"]
    page = workplace.ablate("report", "tuned", "--format", "md")
    assert "tuning was run once" in page
    assert "At the file’s values" in page
    workplace.ablate("report", "tuned")
    assert "Fixed and tuned effects" in Path("reports/tuned.html").read_text()

    trained = {run.info.run_id for run in workplace.runs("tuned")}
    workplace.ablate("run", study, "--executor", "inline")
    assert {run.info.run_id for run in workplace.runs("tuned")} == trained, "what is tuned is not tuned again"

    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend("mlruns/optuna.journal"))
    studies = {s.study_name: s for s in optuna.get_all_study_summaries(storage)}
    (name,) = [name for name in studies if name.endswith("-width=100")]
    kept = optuna.load_study(study_name=name, storage=storage).get_trials()
    assert len(kept) == 10
    assert {tuple(trial.params) for trial in kept} == {("lr",)}
    assert all(trial.intermediate_values for trial in kept)


def test_a_tuning_that_was_broken_off_goes_on_and_trains_nothing_twice(workplace, peak):
    study = peak(trials=6)
    interrupted("run", study, after=7)
    assert len([r for r in workplace.runs("tuned") if r.data.tags["ablate.outcome"] == "finished"]) >= 6
    assert "not over yet" in workplace.ablate("report", "tuned", "--format", "md")
    interrupted("run", study, after=10)
    workplace.ablate("run", study, "--executor", "inline", "--budget", "1h")
    runs = [r for r in workplace.runs("tuned") if r.data.tags["ablate.outcome"] == "finished"]
    assert len({r.data.tags["ablate.key"] for r in runs}) == len(runs)
    found = verdicts(workplace)
    searches = found["tuning"]["searches"]
    assert [sum(not t["again"] for t in one["trials"]) for one in searches] == [6, 6]
    assert len(workplace.runs("tuned", kind="report")) == 1, "it is one plan"
    assert found["arms"][0]["n"] == 3


def test_an_optimum_at_the_end_of_its_range_is_named_and_a_top_up_stays_at_tuned_values(workplace, peak):
    study = peak(factors="{gain: [0.02]}", low="0.3", trials=5, seeds="2")
    workplace.ablate("run", study, "--executor", "inline")
    found = verdicts(workplace)
    assert [one["edge"] for one in found["tuning"]["searches"]] == [{"lr": "lower"}] * 2
    assert "may lie beyond" in workplace.ablate("report", "tuned", "--format", "md")
    assert found["arms"][0]["verdict"] == "inconclusive"
    workplace.ablate("top-up", "tuned", "--seeds", "1", "--executor", "inline")
    rates = {
        run.data.tags["ablate.arm"]: float(run.data.params["lr"])
        for run in workplace.runs("tuned")
        if run.data.tags["ablate.phase"] == "report" and run.data.tags["ablate.seed"] == "2"
    }
    assert rates == {one["arm"]: one["values"]["lr"] for one in found["tuning"]["searches"]}


def test_hopeless_trials_are_broken_off_and_are_no_failures(workplace, peak):
    study = peak(trials=9, epochs=4, more="search: {pruner: asha}")
    workplace.ablate("run", study, "--executor", "inline")
    found = verdicts(workplace)
    trials = [trial for one in found["tuning"]["searches"] for trial in one["trials"]]
    assert sum(trial["outcome"] == "pruned" for trial in trials) >= 2
    assert len([trial for trial in trials if not trial["again"]]) == 18
    assert found["runs"]["failed"] == 0


SEARCH = """
study: look
question: Which rate and width are best?
margin: 0.02
train: peak:fit
baseline: {{lr: 1.0, width: 1, gain: 0.0, epochs: 2, most: 2.0, block: {{name: plain, size: 1}}}}
factors:
  lr: {{log: [1e-5, 1]}}
  width: {{int: [1, 100]}}
  block: [{{name: plain, size: {{int: [1, 4]}}}}, {{name: other}}]
design: search
search: {search}
seeds: 3
"""


def test_a_search_finds_better_than_it_began_with_and_goes_on_where_it_was(workplace, peak):
    peak()
    Path("look.yaml").write_text(SEARCH.format(search="{trials: 20}"))
    interrupted("run", "look.yaml", after=8)
    said = workplace.ablate("run", "look.yaml", "--executor", "inline")
    found = verdicts(workplace, "look")
    (search,) = found["tuning"]["searches"]
    trials = [trial for trial in search["trials"] if not trial["again"]]
    assert len(trials) == 20
    first = trials[0]
    assert first["values"] == {"lr": 1.0, "width": 1, "block": {"name": "plain", "size": 1}}
    assert len(search["candidates"]) == 3
    best = search["candidates"][0]
    assert best["mean"] > first["value"] + 0.03
    assert best["runs"] == 3
    assert set(found["tuning"]["importances"]) == {"fANOVA", "PED-ANOVA"}
    assert found["arms"] == []
    runs = [r for r in workplace.runs("look") if r.data.tags["ablate.outcome"] == "finished"]
    assert len(runs) == len({r.data.tags["ablate.key"] for r in runs}) == 20 + 9
    assert "ablate init --from look" in said
    page = workplace.ablate("report", "look", "--format", "md")
    assert "no verdict" in page
    workplace.ablate("report", "look")

    workplace.ablate("init", "--from", "look", "-o", "sure.yaml")
    from ablate.study import spec

    written = spec.read(Path("sure.yaml"))
    assert written.name == "look-confirm"
    assert len(written.factors[0].levels) == 3
    assert dict(written.factors[0].levels[0]) == best["values"]
    workplace.ablate("run", "sure.yaml", "--executor", "inline")
    assert verdicts(workplace, "look-confirm")["arms"][0]["verdict"] == "helps"


def test_a_search_for_accuracy_and_cost_ends_with_the_front_of_both(workplace, peak):
    peak()
    Path("look.yaml").write_text(SEARCH.format(search="{trials: 8, cost: seconds, candidates: 2}"))
    workplace.ablate("run", "look.yaml", "--executor", "inline")
    (search,) = verdicts(workplace, "look")["tuning"]["searches"]
    assert 1 <= len(search["candidates"]) <= 2
    assert all(candidate["cost"] > 0 for candidate in search["candidates"])
    trials = [t for t in search["trials"] if not t["again"] and t["value"] is not None]
    front = [t for t in trials if t["front"]]

    def beaten(trial):
        return any(
            t["cost"] <= trial["cost"] and t["value"] >= trial["value"] and t is not trial for t in trials
        )

    assert front == [t for t in trials if not beaten(t)]
    of_front = [t["values"] for t in front]
    assert all(c["values"] in of_front for c in search["candidates"])
    assert not any(t["front"] for t in search["trials"] if t["again"])
    assert "a Pareto front" in workplace.ablate("report", "look", "--format", "md")
    workplace.ablate("report", "look")
    page = Path("reports/look.html").read_text()
    assert "The Pareto front</h4>" in page
    assert "val/accuracy against device time of a run" in page


def trained(workplace, name="tuned"):
    """Arm → how many trials were trained for it, those that were broken off included."""
    runs = workplace.runs(name)
    return Counter(r.data.tags["ablate.arm"] for r in runs if r.data.tags["ablate.phase"] == "tune")


def test_more_seeds_or_a_further_level_tune_only_what_is_new(workplace, peak):
    more = "search: {pruner: asha}"
    workplace.ablate("run", peak(trials=6, epochs=3, more=more), "--executor", "inline")
    before, first = trained(workplace), verdicts(workplace)
    workplace.ablate("run", "tuned.yaml", "--seeds", "4", "--executor", "inline")
    assert trained(workplace) == before, "other seeds are no reason to search again"
    again = verdicts(workplace)
    assert again["arms"][0] == first["arms"][0], "what is decided stays as it is"
    assert again["tuning"]["searches"] == first["tuning"]["searches"]

    study = peak(factors="{width: [100, 10]}", trials=6, epochs=3, more=more)
    said = workplace.ablate("run", study, "--executor", "inline")
    assert "12 trials of earlier plans count" in said
    after = trained(workplace)
    assert {arm: after[arm] - before[arm] for arm in before} == dict.fromkeys(before, 0)
    assert after["width=10"] >= 6
    found = {one["arm"]: one["values"] for one in verdicts(workplace)["tuning"]["searches"]}
    assert {one["arm"]: one["values"] for one in first["tuning"]["searches"]}.items() <= found.items()

    # Elsewhere, or otherwise, looked for: nothing of it counts.
    workplace.ablate(
        "run",
        peak(low="1e-4", trials=6, epochs=3, more=more, factors="{width: [100]}"),
        "--executor",
        "inline",
    )
    assert trained(workplace)["width=100"] > before["width=100"]


def test_only_trials_of_the_same_metric_and_with_a_result_count_again(workplace, peak):
    said = []
    for more in ("", "direction: minimize", "metric: val/loss", "noise_floor: true"):
        if more.startswith("noise"):
            for run in workplace.runs("tuned"):
                tags = run.data.tags
                if tags["ablate.arm"] == "baseline" and tags["ablate.phase"] == "tune":
                    workplace.client.delete_run(run.info.run_id)
        study = peak(trials=2, seeds="1", more=f"search: {{candidates: 1}}\n{more}")
        said.append(workplace.ablate("run", study, "--executor", "inline"))
    assert ["of earlier plans count" in each for each in said] == [False, False, False, True]
    assert "2 trials of earlier plans count" in said[-1]


def test_an_arm_of_which_trials_failed_is_said_to_be_tuned_on_fewer(workplace, peak):
    study = peak(trials=3, seeds="1", more="search: {candidates: 1}")
    fails = 'if config["width"] == 100 and config["lr"] != 0.1:\n        raise MemoryError\n    noise ='
    Path("frail.py").write_text(PEAK.replace("noise =", fails))
    Path(study).write_text(Path(study).read_text().replace("peak:fit", "frail:fit"))
    said = workplace.ablate("run", study, "--executor", "inline", "--allow-import", "frail", code=1)
    assert "width=100: 2 of 3 trials failed, so it was tuned on 1" in said
    assert said.count("trials failed") == 1
    page = workplace.ablate("report", "tuned", "--format", "md")
    assert "Width 100: 2 of 3 trials failed, so it was tuned on 1." in page
    assert page.count("trials failed") == 1
