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
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ablate.config import look_in_working_folder, may_be_recorded
from ablate.errors import TrainingError, nearest

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
