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
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from ablate import metrics as known_metrics
from ablate.code_digest import look_in_working_folder, training_code, training_folder
from ablate.config import Config, FreeConfig, may_be_recorded
from ablate.data.facts import DataFacts
from ablate.errors import StudyError, TrainingError, nearest
from ablate.events import Task
from ablate.text import cut
from ablate.training.outcome import (
    CANCELLED,
    Epoch,
    Message,
    Result,
    Start,
    Steps,
    Trace,
    failure,
    is_end,
    machine,
)
from ablate.training.payload import TORCH, Folders, RunPayload
from ablate.training.permission import Permission

FUNCTION = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""What `train:` looks like: `package.module:function`."""

Fit = Callable[[Mapping[str, Any], int], Iterator[Mapping[str, float]]]


def load(path: str) -> Fit:
    """Import the function that `package.module:function` names, from the working folder too. Raises TrainingError."""
    module_name, _, function = path.partition(":")
    look_in_working_folder()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise TrainingError(f"cannot import {module_name!r}: {error}", place=path) from error
    fit = getattr(module, function, None)
    if not inspect.isgeneratorfunction(fit):
        functions = [name for name, value in vars(module).items() if inspect.isgeneratorfunction(value)]
        raise TrainingError(
            f"{function!r} is not a generator function of {module_name}",
            place=path,
            hint=nearest(function, functions),
        )
    return fit


def checked(values: Any) -> dict[str, float]:
    """Return metrics as plain floats. Raises TrainingError where they are not a dict of numbers."""
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


def _cancellable(run: str, payload: RunPayload, cancelled: Collection[str]) -> Iterator[Message]:
    if run in cancelled:
        yield CANCELLED
        return
    for message in messages(payload):
        yield message
        if run in cancelled and not is_end(message):
            yield CANCELLED
            return


def messages(payload: RunPayload) -> Iterator[Message]:
    """Train one run, epoch by epoch. A metric that is not finite ends it as diverged; metrics of the test set, times and sizes
    do not count for that.
    """
    began = time.perf_counter()
    trace = Trace()
    last: dict[str, float] = {}
    epoch = 0
    yield Start(machine("cpu"))
    for values in _started(payload):
        epoch += 1
        last = checked(values)
        curve = {
            name: value for name, value in last.items() if not name.startswith(("test/", "time/", "model/"))
        }
        # Only where a loss is among them: two seeds may well have the same accuracies of a few hundred images by chance.
        if any(name.endswith("loss") for name in curve):
            trace.add(*(value for name, value in sorted(curve.items()) if name != "lr"))
        yield Epoch(epoch, curve)
        if not_finite := [name for name, value in curve.items() if not math.isfinite(value)]:
            facts = trace.facts() | {"reason": f"{', '.join(not_finite)} not finite in epoch {epoch}"}
            yield Result(True, epoch, {"time/train_seconds": time.perf_counter() - began}, {}, facts)
            return
    if epoch == 0:
        raise TrainingError("the training function yielded no metrics", place=payload.source["train"])
    final = {name: value for name, value in last.items() if name.startswith(("test/", "model/"))}
    yield Result(False, epoch, final | {"time/train_seconds": time.perf_counter() - began}, {}, trace.facts())


def _started(payload: RunPayload) -> Iterator[Mapping[str, float]]:
    """Start the user's training, with as many threads as its slot has."""
    if "torch" not in sys.modules:
        os.environ["OMP_NUM_THREADS"] = str(payload.threads)  # read where torch is imported
    fit = load(payload.source["train"])
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(payload.threads)
    return fit(payload.config, payload.seed)


# --- the trainer ------------------------------------------------------------------------------------------------------


class FunctionConfig(FreeConfig):
    """The configuration of a run whose training is a function of the user's."""

    @property
    def train(self) -> str:
        """The function, as `package.module:function`."""
        return str(self.source["train"])

    def code(self) -> str:
        return training_code(self.train).digest


class FunctionTrainer:
    """Training by a function of the user's, which a study names under `train:`."""

    kind = "function"
    keys: tuple[str, ...] = ("train",)
    metrics: tuple[str, ...] = ()

    def owns(self, config: Config) -> bool:
        return isinstance(config, FunctionConfig)

    def parse(
        self, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> FunctionConfig:
        train = source["train"]
        if not re.fullmatch(FUNCTION, train):
            raise StudyError(
                f"{cut(train)!r} does not name a function",
                place="train",
                hint="write `package.module:function`",
            )
        return FunctionConfig.parse(source, tree, place=place)

    def direction(self, metric: str) -> Literal["maximize", "minimize"] | None:
        return known_metrics.direction(metric)

    def resolution(self, metric: str, data: DataFacts) -> float:  # noqa: ARG002 — only the study can say
        return 0.0

    def changes_no_result(self, path: str) -> bool:  # noqa: ARG002 — nobody but the user's code knows
        return False

    def permission(self, config: Config) -> Permission:
        package = self.code_name(config).partition(":")[0].partition(".")[0]
        return Permission("train", "imports", package, f"import {package!r}", f"--allow-import {package}")

    def code_name(self, config: Config) -> str:
        return cast("FunctionConfig", config).train

    def code_folder(self, config: Config) -> Path | None:
        return training_folder(self.code_name(config))

    def preparer(self) -> Callable[[Config], DataFacts]:
        return lambda _config: DataFacts()

    def is_prepared(self, config: Config) -> bool:  # noqa: ARG002 — it brings its own data
        return True

    def preload(self, config: Config) -> tuple[str, ...]:
        """Return torch where the training mentions it anywhere: a worker that has it for nothing has lost a second or two, one that
        lacks it as much for every run.
        """
        return TORCH if training_code(self.code_name(config)).imports_torch else ()

    def same_cost(self, config: Config) -> None:  # noqa: ARG002 — it cannot be trained a little
        return None

    def steps(
        self,
        tasks: Sequence[Task],
        folders: Folders,  # noqa: ARG002 — the user's function saves what it wants saved
        cancelled: Collection[str],
    ) -> Steps:
        """Train the runs of a bundle one after another."""
        for task in tasks:
            try:
                for message in _cancellable(task.run, task.payload, cancelled):
                    yield task.run, message
            except (Exception, SystemExit) as error:  # noqa: BLE001 — a failed attempt, not a dead worker
                end = failure(error)
            else:
                continue
            yield task.run, end
