"""Training of the user's own: a generator function, named by import path, that yields a dict of metrics an epoch."""

from __future__ import annotations

import errno
import importlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from ablate.errors import TrainingError
from ablate.events import Bundle, EpochEnd, Failed, Finished, Started, Task
from ablate.scheduling.dispatch import RETRIED
from ablate.training import function, outcome, runs
from ablate.training.payload import RunPayload

MODULE = '''
"""Trainings as users write them, good and bad."""
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

def forest(config, seed):
    x, y = load_iris(return_X_y=True)
    test = np.random.default_rng(seed).permutation(len(x))[:50]
    rest = np.setdiff1d(np.arange(len(x)), test)
    for depth in range(1, config["depth"] + 1):
        model = DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(x[rest], y[rest])
        yield {"train/loss": 1 - model.score(x[rest], y[rest]), "val/accuracy": np.float32(model.score(x[rest], y[rest])),
               "test/accuracy": model.score(x[test], y[test]), "model/leaves": model.get_n_leaves(), "time/mine": 3.0}

def echo(config, seed):
    yield {"seed": seed, **config}

def numbers(config, seed):
    yield {"a": 1, "b": 0.5, "c": np.float64(2), "d": np.int64(3), "e": Fraction(1, 4), "f": Decimal("0.75"),
           "g": np.array(5), "h": np.array([[6.5]]), "i": np.float16(7)}

def tensors(config, seed):
    import torch

    yield {"a": torch.tensor(1), "b": torch.tensor([0.5], requires_grad=True), "c": torch.tensor([[2.0]], dtype=torch.bfloat16)}

def two_values(config, seed):
    yield {"val/accuracy": np.array([0.5, 0.6])}

def numpy_true(config, seed):
    yield {"val/accuracy": np.bool_(True)}

def huge(config, seed):
    yield {"val/accuracy": 10**400}

def returns_a_test_metric(config, seed):
    yield {"val/accuracy": 0.4}
    yield {"val/accuracy": 0.5}
    return {"test/accuracy": 0.6, "val/accuracy": 0.5, "val/f1": 0.7}

def returns_the_best(config, seed):
    yield {"val/accuracy": 0.5}
    yield {"val/accuracy": 0.4}
    return {"val/accuracy": 0.5, "test/accuracy": 0.6}

def returns_something_else(config, seed):
    yield {"val/accuracy": 0.5}
    return "the model"

def returns_a_generator(config, seed):
    return echo({"a": 1}, seed)

def returns_a_list(config, seed):
    return [{"val/accuracy": 0.4}, {"val/accuracy": 0.5}]

def returns_a_number(config, seed):
    return 0.5

def nan(config, seed):
    yield {"val/loss": 0.5}
    yield {"val/loss": float("nan"), "test/loss": 1.0}
    yield {"val/loss": 0.5}

def infinite(config, seed):
    yield {"train/loss": float("inf")}

def nan_of_the_metric(config, seed):
    yield {"train/loss": 0.5, "val/accuracy": float("nan"), "test/accuracy": 0.5}

def nan_before_the_metric(config, seed):
    yield {"train/loss": float("nan")}
    yield {"train/loss": 0.5, "val/accuracy": 0.5}

def nan_of_another(config, seed):
    yield {"val/accuracy": 0.5, "val/f1": float("nan"), "lr": float("inf")}
    yield {"val/accuracy": 0.6, "val/f1": 0.5, "val/Loss": 0.5}

def now_and_then(config, seed):
    for epoch in range(1, 9):
        yield {"train/loss": 1 / epoch} | ({"val/accuracy": epoch / 10} if epoch % 3 == 0 else {})

def never(config, seed):
    yield {"train/loss": 0.5}
    yield {"train/loss": 0.4}

def nan_then_absent(config, seed):
    yield {"train/loss": 0.5, "val/accuracy": 0.5}
    yield {"train/loss": 0.5, "val/f1": 0.1}
    yield {"train/loss": 0.5, "val/accuracy": float("nan")}

def several(config, seed):
    yield {"train/loss": 0.5, "val/loss": 0.5, "lr": 0.1}
    yield {"train/loss": float("nan"), "val/loss": float("-inf"), "lr": 0.1}

def nothing(config, seed):
    return
    yield

def empty(config, seed):
    yield {}

def a_list(config, seed):
    yield [0.5]

def text(config, seed):
    yield {"val/accuracy": 0.5}
    yield {"val/accuracy": "high"}

def true(config, seed):
    yield {"val/accuracy": True}

def no_name(config, seed):
    yield {3: 0.5}

def odd_name(config, seed):
    yield {"val/top@5": 0.5}

def raises(config, seed):
    yield {"val/accuracy": 0.5}
    raise KeyError("learning\\nrate")

def exits(config, seed):
    yield {"val/accuracy": 0.5}
    sys.exit("enough")

def changes_its_config(config, seed):
    config["depth"] = 99
    yield {"val/accuracy": 0.5}

def prints(config, seed):
    print("hello")
    yield {"val/accuracy": 0.5}

def cleans_up(config, seed):
    from pathlib import Path

    try:
        for _ in range(5):
            yield {"val/accuracy": config["value"]}
    finally:
        Path("cleaned").touch()

def plain(config, seed):
    return {"val/accuracy": 0.5}
'''


LINES = {
    name: next(
        number + 2 for number, line in enumerate(MODULE.splitlines(), 1) if line.startswith(f"def {name}(")
    )
    for name in ("raises", "exits")
}


@pytest.fixture(autouse=True)
def trainings(tmp_path, monkeypatch):
    (tmp_path / "trainings_of_ones_own.py").write_text(MODULE)
    (tmp_path / "broken_training.py").write_text("def fit(:\n")
    (tmp_path / "lacking_training.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "raising_training.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("trainings_of_ones_own", "broken_training", "lacking_training", "raising_training"):
        sys.modules.pop(name, None)


def task(name: str, config: dict | None = None, seed: int = 0, module: str = "trainings_of_ones_own") -> Task:
    return Task(
        "run",
        1,
        RunPayload(
            config or {},
            seed,
            source={"train": f"{module}:{name}"},
            metric="val/accuracy",
        ),
    )


def events(
    name: str, config: dict | None = None, seed: int = 0, module: str = "trainings_of_ones_own"
) -> list:
    return list(runs.events_of(task(name, config, seed, module)))


def test_every_yield_is_an_epoch_and_test_metrics_are_kept_for_the_end():
    found = events("forest", {"depth": 3})
    assert [type(event) for event in found] == [Started, EpochEnd, EpochEnd, EpochEnd, Finished]
    assert [event.seq for event in found] == [0, 1, 2, 3, 4]
    assert [event.epoch for event in found[1:4]] == [1, 2, 3]
    assert all(set(event.metrics) == {"train/loss", "val/accuracy"} for event in found[1:4])
    last = found[-1]
    assert (last.outcome, last.epoch) == ("finished", 3)
    assert set(last.metrics) == {"test/accuracy", "model/leaves", "time/mine", "time/train_seconds"}
    assert last.metrics["test/accuracy"] > 0.8


def test_a_training_is_told_its_config_and_its_seed():
    assert events("echo", {"a": 3, "b": 0.5}, seed=7)[1].metrics == {"seed": 7.0, "a": 3.0, "b": 0.5}


def test_the_same_seed_leaves_the_same_trace_and_another_seed_another():
    traces = [events("forest", {"depth": 2}, seed)[-1].facts["trace"] for seed in (0, 0, 1)]
    assert traces[0] == traces[1] != traces[2]


def test_accuracies_and_rounded_losses_leave_no_trace_because_honest_runs_tie():
    assert "trace" not in events("echo", {"val/accuracy": 0.5}, 0)[-1].facts
    assert "trace" not in events("echo", {"val/accuracy": 0.5, "val/loss": 0.2531}, 0)[-1].facts
    with_loss = {"val/accuracy": 0.5, "val/loss": 1 / 3}
    one, again, other = (
        events("echo", values, 0)[-1].facts["trace"]
        for values in (with_loss, with_loss, with_loss | {"val/accuracy": 0.75})
    )
    assert one == again != other


def test_numbers_of_any_kind_become_floats():
    found = events("numbers")[1].metrics
    assert found == {"a": 1, "b": 0.5, "c": 2, "d": 3, "e": 0.25, "f": 0.75, "g": 5, "h": 6.5, "i": 7}
    assert {type(value) for value in found.values()} == {float}
    assert events("tensors")[1].metrics == {"a": 1.0, "b": 0.5, "c": 2.0}


@pytest.mark.parametrize(
    ("name", "epochs", "final"),
    [
        (
            "returns_a_test_metric",
            [{"val/accuracy": 0.4}, {"val/accuracy": 0.5}],
            {"test/accuracy": 0.6, "val/f1": 0.7},
        ),
        (
            "returns_the_best",
            [{"val/accuracy": 0.5}, {"val/accuracy": 0.4}, {"val/accuracy": 0.5}],
            {"test/accuracy": 0.6},
        ),
        ("returns_something_else", [{"val/accuracy": 0.5}], {}),
        ("returns_a_generator", [{"a": 1.0, "seed": 0.0}], {}),
        ("returns_a_list", [{"val/accuracy": 0.4}, {"val/accuracy": 0.5}], {}),
        ("plain", [{"val/accuracy": 0.5}], {}),
    ],
)
def test_what_a_function_returns_belongs_to_its_last_epoch_or_is_an_epoch(name, epochs, final):
    *_, last = found = events(name)
    assert [event.metrics for event in found if isinstance(event, EpochEnd)] == epochs
    assert last.epoch == len(epochs)
    assert {name: value for name, value in last.metrics.items() if name != "time/train_seconds"} == final


DIVERGED = {
    "nan": (2, "val/loss not finite in epoch 2"),
    "infinite": (1, "train/loss not finite in epoch 1"),
    "nan_of_the_metric": (1, "val/accuracy not finite in epoch 1"),
    "nan_before_the_metric": (1, "train/loss not finite in epoch 1"),
    "several": (2, "train/loss, val/loss not finite in epoch 2"),
    "nan_then_absent": (3, "val/accuracy not finite in epoch 3"),
}


@pytest.mark.parametrize("name", DIVERGED)
def test_a_metric_that_is_not_finite_is_divergence_and_is_named(name):
    epoch, reason = DIVERGED[name]
    found = events(name)
    assert [type(event) for event in found] == [Started, *[EpochEnd] * epoch, Finished]
    assert not all(math.isfinite(value) for value in found[-2].metrics.values())
    last = found[-1]
    assert (last.outcome, last.epoch, last.facts["reason"]) == ("diverged", epoch, reason)
    assert set(last.metrics) == {"time/train_seconds"}, "there is no other value"


@pytest.mark.parametrize(
    ("name", "epochs", "counts"), [("nan_of_another", 2, 2), ("now_and_then", 8, 6), ("never", 2, 2)]
)
def test_a_metric_that_is_absent_or_is_not_what_runs_are_judged_by_condemns_none(name, epochs, counts):
    found = events(name)
    assert [type(event) for event in found] == [Started, *[EpochEnd] * epochs, Finished]
    assert (found[-1].outcome, found[-1].epoch) == ("finished", counts)


@pytest.mark.parametrize(
    ("function", "epochs", "reason"),
    [
        ("nothing", 0, "training yielded no metrics"),
        ("a_list", 0, "training yielded [0.5] where a dict of metrics belongs"),
        ("text", 1, "the metric 'val/accuracy' is 'high', not a number"),
        ("true", 0, "the metric 'val/accuracy' is True, not a number"),
        ("two_values", 0, "the metric 'val/accuracy' is array([0.5, 0.6]), not a number"),
        ("numpy_true", 0, f"the metric 'val/accuracy' is {np.bool_(True)!r}, not a number"),
        ("returns_a_number", 0, "training returned 0.5: `yield` a dict of metrics an epoch, or `return` one"),
        ("no_name", 0, "training yielded a metric called 3, which is no text"),
        (
            "odd_name",
            0,
            "the metric 'val/top@5' cannot be recorded: letters, digits, spaces and . _ - : / make a name",
        ),
    ],
)
def test_a_training_that_yields_anything_else_has_failed_at_a_line_and_is_not_tried_again(
    function, epochs, reason
):
    found = events(function)
    assert [type(event) for event in found] == [Started, *[EpochEnd] * epochs, Failed]
    last = found[-1]
    assert last.kind == "metrics"
    assert last.kind not in RETRIED
    assert last.reason == (f"{reason} ({last.place})" if last.place else reason)
    assert last.place.startswith("trainings_of_ones_own.py:") or function in ("nothing", "returns_a_number")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raises", f"KeyError: 'learning\\nrate' (trainings_of_ones_own.py:{LINES['raises']})"),
        ("exits", f"SystemExit: enough (trainings_of_ones_own.py:{LINES['exits']})"),
    ],
)
def test_a_training_that_raises_has_failed(function, reason):
    found = events(function)
    assert [type(event) for event in found] == [Started, EpochEnd, Failed]
    assert (found[-1].kind, found[-1].reason) == ("error", reason)


def test_an_epoch_in_which_nothing_was_measured_is_one():
    found = events("empty")
    assert [type(event) for event in found] == [Started, EpochEnd, Finished]


def test_a_number_beyond_all_floats_is_infinite():
    assert events("huge")[-1].facts["reason"] == "val/accuracy not finite in epoch 1"


def test_a_training_that_raises_says_where():
    detail = events("raises")[-1].detail
    assert 'raise KeyError("learning' in detail
    assert "trainings_of_ones_own.py" in detail


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("nowhere_to_be_found", "cannot import 'nowhere_to_be_found': No module named 'nowhere_to_be_found'"),
        (
            "lacking_training",
            "cannot import 'lacking_training': No module named 'nowhere_to_be_found' (lacking_training.py:1)",
        ),
        (
            "broken_training",
            "cannot import 'broken_training': SyntaxError: invalid syntax (broken_training.py:1)",
        ),
        (
            "raising_training",
            "cannot import 'raising_training': ZeroDivisionError: division by zero (raising_training.py:1)",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_fails_the_run(module, reason):
    last = events("fit", module=module)[-1]
    assert isinstance(last, Failed)
    assert last.spent
    assert last.reason.removeprefix(f"{module}:fit: ") == reason


def test_a_misspelt_function_is_told_the_nearest():
    with pytest.raises(TrainingError, match="did you mean 'forest'"):
        function.load("trainings_of_ones_own:forets")


def test_the_working_folder_is_looked_in(tmp_path):
    sys.path[:] = [entry for entry in sys.path if entry not in ("", str(tmp_path))]
    assert function.load("trainings_of_ones_own:forest").__name__ == "forest"


def test_a_training_may_write_into_its_config():
    config = {"depth": 1}
    assert isinstance(events("changes_its_config", config)[-1], Finished)


def test_a_training_that_is_broken_off_or_diverges_may_clean_up(tmp_path):
    mark = tmp_path / "cleaned"
    training = runs.train(Bundle((task("cleans_up", {"value": 0.5}),)))
    next(training)
    next(training)
    assert training.send(frozenset({"run"})).kind == "cancelled"
    assert list(training) == []
    assert mark.exists()
    mark.unlink()
    assert events("cleans_up", {"value": math.nan})[-1].outcome == "diverged"
    assert mark.exists()


def test_training_of_ones_own_needs_no_torch_and_has_the_threads_of_its_slot_where_it_has_some(tmp_path):
    (tmp_path / "plain.py").write_text(
        "def fit(config, seed):\n"
        "    import sys\n"
        "    yield {'frameworks': float('tor' + 'ch' in sys.modules)}\n"
    )
    (tmp_path / "threads.py").write_text(
        "def fit(config, seed):\n    import torch\n    yield {'threads': torch.get_num_threads()}\n"
    )
    (tmp_path / "here.py").write_text(
        "from ablate.events import Bundle, Task\n"
        "from ablate.training.payload import RunPayload\n"
        "from ablate.training.runs import train\n"
        "for name in ('plain', 'threads'):\n"
        "    payload = RunPayload({}, 0, source={'train': f'{name}:fit'})\n"
        "    started, epoch, finished = train(Bundle((Task('run', 1, payload),)))\n"
        "    print(*epoch.metrics.values())\n"
    )
    done = subprocess.run(
        [sys.executable, "here.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0.0", "1.0"]


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("could not create a primitive"), True),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), True),
        (ImportError("libx.so: failed to map segment from shared object: Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("cannot allocate memory of a childhood"), False),
    ],
)
def test_what_counts_as_too_little_memory(error, is_memory):
    assert outcome.is_out_of_memory(error) is is_memory


@pytest.mark.parametrize(
    "text",
    [
        "import json as fit",
        "class fit:\n    def __call__(self, config, seed): yield {}",
        "class C:\n    async def __call__(self, config, seed): yield {}\nfit = C()",
        "class C:\n    def __call__(self, config): yield {}\nfit = C()",
        "import functools\nasync def f(config, seed): yield {}\nfit = functools.partial(f)",
        "import functools\nfit = functools.partial(lambda config, seed: [], 1, 2)",
        "fit = lambda config, seed: []",
        "fit = len",
        "import numpy\nfit = numpy.sin",
        "fit = 3",
        "def fit(config, seed, extra, /): yield {}",
        "def fit(*, config, seed, lr): yield {}",
        "def fit(config): yield {}",
        "def fit(config, seed): print('hello')",
        "fit = property(lambda self: 1)",
    ],
)
def test_what_cannot_be_a_training_is_told_by_importing_it(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no_training.py").write_text(text)
    monkeypatch.delitem(sys.modules, "no_training", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(TrainingError, match="fit"):
        function.load("no_training:fit")
    sys.modules.pop("no_training", None)
