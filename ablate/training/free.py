"""The user's own training: a generator function, named by import path, that yields a dict of metrics an epoch.

    def fit(config: dict, seed: int):
        for epoch in range(config["epochs"]):
            ...
            yield {"train/loss": 0.7, "val/accuracy": 0.81}

The last yield may add `test/…` metrics; they are kept apart from those that arms are chosen by.
"""

from __future__ import annotations

import importlib
import inspect
import math
import numbers
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ablate.config import look_in_working_folder, may_be_recorded
from ablate.errors import TrainingError, nearest
from ablate.training.runs import Progress, Result, Steps, Trace, machine

Fit = Callable[[Mapping[str, Any], int], Iterator[Mapping[str, float]]]


def load(path: str) -> Fit:
    """The function that `package.module:function` names, looked for in the working folder too. Raises TrainingError."""
    module_name, _, function = path.partition(":")
    look_in_working_folder()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise TrainingError(f"cannot import {module_name!r}: {error}", place=path) from error
    fit = getattr(module, function, None)
    if not inspect.isgeneratorfunction(fit):
        found = [name for name, value in vars(module).items() if inspect.isgeneratorfunction(value)]
        raise TrainingError(
            f"{function!r} is not a generator function of {module_name}",
            place=path,
            hint=nearest(function, found),
        )
    return fit


def checked(values: Any) -> dict[str, float]:
    """Metrics as plain floats. Raises TrainingError where they are not a dict of numbers."""
    if not isinstance(values, Mapping) or not values:
        raise TrainingError(f"training yielded {values!r} where a dict of metrics belongs")
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise TrainingError(f"the metric {name!r} is {value!r}, not a number")
        if not may_be_recorded(name):
            raise TrainingError(
                f"the metric {name!r} cannot be recorded: letters, digits, spaces and . _ - : / make a name"
            )
    return {name: float(value) for name, value in values.items()}


def steps(payload: Mapping[str, Any]) -> Steps:
    """One run, epoch by epoch. payload: as `runs.train` describes it."""
    began = time.perf_counter()
    trace = Trace()
    last: dict[str, float] = {}
    epoch = 0
    yield Progress(0, {}, machine("cpu"))
    for values in _begun(payload):
        epoch += 1
        last = checked(values)
        shown = {
            name: value for name, value in last.items() if not name.startswith(("test/", "time/", "model/"))
        }
        # Only where a loss is among them: accuracies of a few hundred images are the same under two seeds by honest chance.
        if any(name.endswith("loss") for name in shown):
            trace.add(*(value for name, value in sorted(shown.items()) if name != "lr"))
        yield Progress(epoch, shown, {})
        if any(not math.isfinite(value) for value in shown.values()):
            yield Result(True, epoch, {"time/train_seconds": time.perf_counter() - began}, {}, trace.facts())
            return
    if epoch == 0:
        raise TrainingError("the training function yielded no metrics", place=payload["train"])
    final = {name: value for name, value in last.items() if name.startswith(("test/", "model/"))}
    yield Result(False, epoch, final | {"time/train_seconds": time.perf_counter() - began}, {}, trace.facts())


def _begun(payload: Mapping[str, Any]) -> Iterator[Mapping[str, float]]:
    """The user's training, which has as many threads as its slot."""
    threads = int(payload["threads"])
    if "torch" not in sys.modules:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read where it is imported
    fit = load(payload["train"])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return fit(payload["config"], payload["seed"])
