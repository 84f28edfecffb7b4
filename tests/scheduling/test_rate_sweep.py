"""`ablate lr` on real digits, from the study file to its page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from ablate import launch
from ablate.errors import StudyError, TrainingError
from ablate.executors import Slot
from ablate.executors.inline import InlineExecutor
from ablate.scheduling import rates
from ablate.study import spec
from ablate.training import runs

STUDY = """
study: digits
margin: 0.02
baseline:
  data: {name: digits, validation: 0.25, subset: 400}
  model: {name: cnn, depth: 2, width: 8}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 4, batch_size: 32}
factors:
  training.epochs: [9]
seeds: 3
"""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def swept(text=STUDY, options=None, sets=()):
    study, said = spec.parse(text, sets=sets), []
    executor = InlineExecutor(runs.train, Slot("inline", "cpu"))
    facts = launch.data_lookup()(study.baseline)
    options = options or rates.SweepOptions(1e-3, 1.0)
    result = rates.sweep(study, options, executor, said.append, facts)
    return study, result, said


def test_rates_are_trained_briefly_and_the_best_of_them_to_the_end(workplace):
    study, result, said = swept()
    short = [trial for trial in result.trials if not trial.is_whole]
    whole = [trial for trial in result.trials if trial.is_whole]
    assert len(short) in (4, 5)
    assert {(t.epochs, len(t.curve), t.seed) for t in short if t.outcome == "finished"} == {(1, 1, 2000)}
    assert {(t.epochs, len(t.curve)) for t in whole if t.outcome == "finished"} == {(4, 4)}
    assert 2 <= len(whole) <= 4
    assert result.suggestion in {trial.rate for trial in whole}
    assert 0.02 <= result.suggestion <= 1
    assert said[0].startswith("4 rates from 0.001 to 1, 1 of 4 epochs each")
    assert said[1].startswith("stacked 4")
    pasted = spec.parse(f"study: again\nmargin: 0.02\n{_merged(study, rates.paste(study, result))}")
    assert pasted.baseline.get("optimizer.lr") == result.suggestion
    assert [row["optimizer.lr"] for row in pasted.factors[0].levels] == list(result.levels)
    # A factor without levels is refused in a study.
    assert (
        rates.paste(study, replace(result, levels=())) == rates.paste(study, result).partition("\nfactors")[0]
    )


def _merged(study, paste) -> str:
    """What a person does with the suggestion: its optimizer into the baseline, its factor into the factors."""
    optimizer, _, factors = paste.removeprefix("baseline:\n").partition("factors:")
    rest = json.dumps({k: v for k, v in study.baseline.tree().items() if k in {"data", "model", "training"}})
    tree = "\n".join(f"  {name}: {json.dumps(value)}" for name, value in json.loads(rest).items())
    return f"baseline:\n{tree}\n{optimizer}factors:{factors}\nseeds: 3\n"


def test_the_same_study_gives_the_same_sweep_and_what_cannot_be_stacked_says_what_it_costs(workplace):
    options = rates.SweepOptions(0.01, 1.0)
    sets = ["model.name=numpy_mlp", "optimizer.name=adam"]
    _, first, said = swept(options=options, sets=sets)
    assert "as much training as about 3 runs of the study, and more where the best lies at an end" in said[0]
    assert said[1].startswith("they are not stacked")
    assert swept(options=options, sets=sets)[1] == first


def test_a_study_of_one_epoch_has_no_shorter_training(workplace):
    _, result, said = swept(sets=["training.epochs=1"])
    assert all(trial.is_whole for trial in result.trials)
    assert "a whole run each" in said[0]


def test_every_seed_trains_every_rate(workplace):
    _, result, _ = swept(options=rates.SweepOptions(0.03, 0.3, seeds=2, epochs=2), sets=["training.epochs=2"])
    assert {(t.rate, t.seed) for t in result.trials} >= {
        (r, s) for r in (0.03, 0.1, 0.3) for s in (2000, 2001)
    }


def test_where_every_rate_diverges_the_reason_is_said(workplace):
    sets = ["model.batch_norm=false", "training.epochs=1"]
    _, result, _ = swept(options=rates.SweepOptions(1e8, 1e12), sets=sets)
    assert "diverges at every rate from 1e+08 to 1e+12" in result.reason


def test_the_command_writes_a_page_and_what_came_of_it(workplace):
    (workplace.root / "digits.yaml").write_text(STUDY)
    said = workplace.ablate(
        "lr", "digits.yaml", "--from", "0.01", "--to", "0.3", "--workers", "1", "--set", "model.name=numpy_mlp", "--json"
    )  # fmt: skip
    result = json.loads(said[said.index("{\n") : said.rindex("}") + 1])
    assert result["rates"][0] == 0.01
    page = (workplace.root / "reports" / "digits-lr.html").read_text()
    assert f"Suggested baseline: {result['suggestion']:g}." in page


def test_a_page_that_cannot_be_written_takes_no_result_with_it(workplace):
    (workplace.root / "digits.yaml").write_text(STUDY)
    options = ["--from", "0.1", "--to", "0.11", "--workers", "1", "--set", "training.epochs=1"]
    said = workplace.ablate("lr", "digits.yaml", *options, "--output", "digits.yaml/page.html", code=2)
    assert "cannot be written (Not a directory)" in said
    assert "suggested: 0.1" in said
    said = workplace.ablate("lr", "digits.yaml", *options, "--output", "digits.yaml", code=2)
    assert "is there already, and would be lost" in said
    assert "rates from" not in said  # nothing was trained


def test_an_interrupted_sweep_says_what_came_of_the_rates_until_then(monkeypatch):
    said = []

    def interrupted(rules, trials):
        raise KeyboardInterrupt

    monkeypatch.setattr(rates.analysis, "next_rates", interrupted)
    study = spec.parse(STUDY, sets=["training.epochs=1", "model.name=numpy_mlp"])
    executor = InlineExecutor(runs.train, Slot("inline", "cpu"))
    facts = launch.data_lookup()(study.baseline)
    with pytest.raises(KeyboardInterrupt):
        rates.sweep(study, rates.SweepOptions(0.1, 0.11), executor, said.append, facts)
    assert re.fullmatch(
        r"val/loss until then: [\d.]+ at 0\.1 after 1 epoch, [\d.]+ at 0\.11 after 1 epoch", said[-1]
    )


def test_a_network_that_shrinks_its_input_to_nothing_is_named_with_what_to_do(workplace):
    (workplace.root / "digits.yaml").write_text(STUDY)
    output = workplace.ablate("lr", "digits.yaml", "--set", "model.name=small_cnn", code=2)
    assert "model.kernel_size: an input of 8×8 pixels is too small for small_cnn" in output
    assert "data.resize: 16 is the smallest size that works" in output


@pytest.mark.parametrize(
    ("low", "high", "wrong"),
    [
        (0.0, 1.0, "--from"),
        (1.0, 1.0, "--to"),
        (2.0, 1.0, "--to"),
        (-1.0, 1.0, "--from"),
        (float("nan"), 1.0, "--from"),
        (float("inf"), 1.0, "--from"),
        (1.0, float("nan"), "--to"),
        (1.0, float("inf"), "--to"),
        (1e-5, 0.0, "--to"),
        (1e-5, -1.0, "--to"),
    ],
)
def test_rates_that_do_not_rise_or_have_no_end_are_refused(low, high, wrong):
    with pytest.raises(StudyError, match=f"^{wrong}: rates from .* are no range"):
        rates.SweepOptions(low, high)


OWN = """
import math

def fit(config, seed):
    depth = math.exp(-math.log10(config["optim"]["lr"] / 0.03) ** 2)
    if config["optim"]["lr"] > 0.5:
        raise FloatingPointError("loss is NaN")
    for epoch in range(1, config["epochs"] + 1):
        yield {"val/accuracy": depth * epoch / config["epochs"] + seed * 1e-9}
"""

OWN_STUDY = """
study: own
margin: 0.01
train: rated:fit
baseline: {optim: {name: sgd, lr: 0.1}, epochs: 8, width: 3}
factors: {width: [5]}
"""


def test_training_of_ones_own_is_swept_where_the_baseline_names_its_rate(workplace, monkeypatch):
    (workplace.root / "rated.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace.root)
    study, result, said = swept(OWN_STUDY, rates.SweepOptions())
    assert said[0].startswith("5 rates from 1e-05 to 1, 2 of 8 epochs each")
    assert (result.suggestion, result.rules.ranked_by) == (0.03, "val/accuracy")
    assert {t.rate: t.outcome for t in result.trials}[1.0] == "failed"
    assert "loss is NaN" in next(t.reason for t in result.trials if t.rate == 1)
    assert rates.paste(study, result).splitlines()[1] == "  optim: {name: sgd, lr: 0.03}"
    assert 1 not in result.levels


def test_short_trainings_that_would_be_longer_than_whole_ones_are_refused(workplace, monkeypatch):
    """`--epochs` says how long the short ones are; what it cannot say is not taken for something else."""
    for sets, epochs, said in [
        (["training.epochs=2"], 3, "3 are more than a whole training has \\(2\\)"),
        (["training.epochs=1"], 2, "2 are more than a whole training has \\(1\\)"),
    ]:
        with pytest.raises(StudyError, match=said) as error:
            swept(options=rates.SweepOptions(0.1, 0.3, epochs=epochs), sets=sets)
        assert (error.value.place, "--set training.epochs=N" in error.value.hint) == ("--epochs", True)
    (workplace.root / "rated.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace.root)
    without = OWN_STUDY.replace("epochs: 8, ", "")
    with pytest.raises(StudyError, match="names no number of epochs"):
        swept(without, rates.SweepOptions(0.01, 0.1, epochs=1))


def test_where_every_training_fails_its_error_is_said(workplace, monkeypatch):
    (workplace.root / "rated.py").write_text(OWN)
    monkeypatch.syspath_prepend(workplace.root)
    with pytest.raises(TrainingError, match="loss is NaN"):
        swept(OWN_STUDY, rates.SweepOptions(6, 60))


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("width: 3", "the baseline names no learning rate"),
        ("lr: fast", "the baseline names no learning rate"),
        ("generator: {lr: 0.1}, critic: {lr: 0.2}", "the baseline has generator.lr and critic.lr"),
    ],
)
def test_a_baseline_that_names_no_rate_or_several_is_told_to_say_which(baseline, said):
    text = f"study: own\nmargin: 1\ntrain: a:b\nbaseline: {{extra: 1, {baseline}}}\nfactors: {{extra: [2]}}"
    study = spec.parse(text)
    with pytest.raises(StudyError, match=said) as error:
        rates.rate_path(study.baseline)
    assert "--path" in error.value.hint
