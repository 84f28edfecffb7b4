"""Whether a seed reaches the user's training: what `ablate plan` finds by a little training, and `ablate run` on its runs."""

from __future__ import annotations

import json
import math
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import launch
from ablate.errors import StudyError
from ablate.events import Bundle, Failed, Finished, Task
from ablate.executors.inline import InlineExecutor
from ablate.measuring import first_epochs
from ablate.scheduling import seed_check
from ablate.study import design, spec
from ablate.training import TRAINERS
from ablate.training.payload import RunPayload

TRAININGS = """
import itertools
import random
from pathlib import Path

calls = itertools.count()

def losses(rng, epochs=5):
    for _ in range(epochs):
        yield {"train/loss": rng.random(), "val/accuracy": round(rng.random(), 2)}

def seeded(config, seed):
    yield from losses(random.Random(seed))

def ignores(config, seed):
    yield from losses(random.Random(0))

def unseeded(config, seed):
    yield from losses(random.Random())

def almost(config, seed):
    for epoch, values in enumerate(losses(random.Random(seed))):
        yield {"train/loss": values["train/loss"] + next(calls) * 1e-12, "val/accuracy": 0.5}

def coarse(config, seed):
    for _ in range(9):
        yield {"val/accuracy": 0.5}

def rounded(config, seed):
    for _ in range(9):
        yield {"val/accuracy": 0.5, "val/loss": 0.25}

def late(config, seed):
    rng = random.Random(seed)
    for epoch in range(9):
        yield {"epochs": epoch, "lr": 0.1} | ({"val/accuracy": rng.random()} if epoch == 2 else {})

def raises(config, seed):
    raise RuntimeError("no such file")
    yield

def counts_epochs(config, seed):
    for epoch in range(1000):
        with Path("epochs").open("a") as file:
            print(seed, file=file)
        yield {"train/loss": random.Random(seed + epoch).random(), "val/accuracy": 0.5}
"""

STUDY = """
study: own
margin: 0.1
train: mine:{name}
metric: val/accuracy
baseline: {{width: 1}}
factors: {{width: [2]}}
seeds: 3
"""

SCRIPT = """
import os, random, sys, time
with open("pids", "a") as file:
    print(os.getpid(), file=file)
rng = random.Random({seed})
for epoch in range(3):
    for _ in range(4):
        print(f"Loss: {{rng.random():.6f}}", flush=True)
    print(f"Accuracy: {{rng.random():.2f}}", flush=True)
time.sleep(30)  # a program that is broken off never comes to its end
"""

COMMAND = r"""
study: own
margin: 0.1
command: [python, script.py, "{{width}}"{more}]
metric: accuracy
metrics:
  train/loss: {{line: 'Loss: ([\d.]+)'}}
  accuracy: {{line: 'Accuracy: ([\d.]+)'}}
baseline: {{width: 1}}
factors: {{width: [2]}}
seeds: 3
"""


@pytest.fixture
def mine(workplace, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (workplace.root / "mine.py").write_text(TRAININGS)
    return workplace


def written(workplace, text: str) -> str:
    (workplace.root / "own.yaml").write_text(text)
    return "own.yaml"


def checked(workplace, text: str, said: list[str] | None = None) -> seed_check.SeedCheck | None:
    """The result of a check in this process."""
    plan = design.plan(spec.read(workplace.root / written(workplace, text)), launch.data_lookup(), None)

    def executor():
        return InlineExecutor(first_epochs.train)

    return seed_check.check(plan, workplace.store, executor, (said if said is not None else []).append)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("seeded", "fixed"),
        ("almost", "fixed"),
        ("unseeded", "never repeatable"),
        ("coarse", "unknown"),
        ("rounded", "unknown"),
        ("late", "fixed"),
        ("raises", "not checked"),
    ],
)
def test_what_the_seed_does_to_a_function(mine, name, verdict):
    result = checked(mine, STUDY.format(name=name))
    assert (result.verdict, bool(result.reason)) == (verdict, verdict in ("unknown", "not checked"))


def test_a_function_that_ignores_its_seed_is_an_error_with_the_way_out(mine):
    with pytest.raises(StudyError, match="does not reach the training") as error:
        checked(mine, STUDY.format(name="ignores"))
    assert error.value.place == "train"
    assert "argument `seed`" in error.value.hint
    assert "deterministic: true" in error.value.hint
    assert checked(mine, STUDY.format(name="ignores") + "deterministic: true\n") is None


@pytest.mark.parametrize(
    ("seed", "more", "verdict"),
    [
        ("int(sys.argv[2])", ', "{seed}"', "fixed"),
        ('int(os.environ["ABLATE_SEED"])', "", "fixed"),
        ("None", "", "never repeatable"),
    ],
)
def test_what_the_seed_does_to_a_command(workplace, seed, more, verdict):
    (workplace.root / "script.py").write_text(SCRIPT.format(seed=seed))
    assert checked(workplace, COMMAND.format(more=more)).verdict == verdict
    for pid in (workplace.root / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_command_that_ignores_its_seed_is_an_error_with_the_way_out(workplace):
    (workplace.root / "script.py").write_text(SCRIPT.format(seed=0))
    with pytest.raises(StudyError, match="does not reach the training") as error:
        checked(workplace, COMMAND.format(more=""))
    assert error.value.place == "command"
    assert "{seed}" in error.value.hint
    assert "ABLATE_SEED" in error.value.hint


def test_it_stops_at_the_first_epoch_that_tells_and_is_done_once(mine):
    said: list[str] = []
    assert checked(mine, STUDY.format(name="counts_epochs"), said).verdict == "fixed"
    assert (mine.root / "epochs").read_text().split() == ["0", "0", "1"]
    assert len(said) == 1
    assert checked(mine, STUDY.format(name="counts_epochs"), said).verdict == "fixed"
    assert len(said) == 1


def test_the_built_in_training_needs_no_check():
    assert [trainer.keys for trainer in TRAINERS if trainer.seed_advice() is None] == [()]


def test_a_plan_says_what_the_seed_does_and_what_to_do(mine):
    path = written(mine, STUDY.format(name="unseeded"))
    (mine.root / "pyproject.toml").write_text('[tool.ablate]\nimports = ["mine"]\n')
    output = mine.ablate("plan", path, "--workers", "1")
    assert "training the first epoch of the baseline three times" in output
    assert "say `unpaired: true`" in output
    again = mine.ablate("plan", path, "--workers", "1", "--json")
    assert "three times" not in again
    assert json.loads(again)["seed"]["verdict"] == "never repeatable"
    written(mine, STUDY.format(name="unseeded") + "unpaired: true\n")
    assert "no two runs are a pair" in mine.ablate("plan", path, "--workers", "1")


def test_a_plan_runs_nothing_that_is_not_allowed(mine):
    (mine.root / "pyproject.toml").unlink(missing_ok=True)
    output = mine.ablate("plan", written(mine, STUDY.format(name="counts_epochs")), code=2)
    assert "which you have not allowed" in output
    assert not (mine.root / "epochs").exists()


def test_a_run_stops_as_soon_as_two_seeds_gave_one_run(mine):
    path = written(mine, STUDY.format(name="ignores").replace("seeds: 3", "seeds: 20"))
    for trained in (3, 5):  # the second command knows the runs of the first
        output = mine.ablate("run", path, "--executor", "inline", "--allow-import", "mine", code=2)
        assert "the seed does not reach the training: under seeds" in output
        assert len(mine.runs("own")) <= trained
    written(mine, STUDY.format(name="ignores") + "deterministic: true\n")
    mine.ablate("run", path, "--executor", "inline", "--allow-import", "mine")


values = st.dictionaries(
    st.sampled_from(["1/a", "1/b"]), st.floats(allow_nan=True, allow_infinity=True), min_size=1
)


@settings(max_examples=200)
@given(one=values, again=values, other=values, digits=st.sampled_from([0, 99]))
def test_every_three_runs_get_one_verdict(one, again, other, digits):
    def result(metrics):
        return Finished("run", 1, 1, 0.0, metrics=metrics, facts={"digits": digits})

    verdict, _ = seed_check.compared(result(one), result(again), result(other))

    def same(a, b):
        return a.keys() == b.keys() and all(
            a[n] == b[n] or (math.isnan(a[n]) and math.isnan(b[n])) for n in a
        )

    if same(one, again) and same(one, other):
        assert verdict == ("ignored" if digits else "unknown")
    elif same(one, again):
        assert verdict == "fixed"
    else:
        assert verdict in ("never repeatable", "fixed")


def test_a_training_that_ends_early_or_fails_is_told_of(mine, monkeypatch):
    monkeypatch.syspath_prepend(str(mine.root))

    def events(name):
        payload = RunPayload({}, 0, source={"train": f"mine:{name}"}, metric="never")
        return list(first_epochs.train(Bundle((Task("run", 1, payload),))))

    *_, last = events("seeded")
    assert isinstance(last, Finished)
    assert last.epoch == first_epochs.MOST_EPOCHS
    *_, last = events("raises")
    assert isinstance(last, Failed)
    assert "no such file" in last.reason
