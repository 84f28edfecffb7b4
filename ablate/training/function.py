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
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from ablate.code_digest import look_in_working_folder, training_code, training_folder
from ablate.config import Config, FreeConfig
from ablate.errors import StudyError, TrainingError, nearest
from ablate.events import Task
from ablate.text import cut
from ablate.training.outcome import Message
from ablate.training.own import OwnTrainer, messages
from ablate.training.payload import TORCH, Folders, RunPayload
from ablate.training.permission import Permission, to_import

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


# --- the trainer ------------------------------------------------------------------------------------------------------


class FunctionConfig(FreeConfig):
    """The configuration of a run whose training is a function of the user's."""

    @property
    def train(self) -> str:
        """The function, as `package.module:function`."""
        return str(self.source["train"])

    def code(self) -> str:
        return training_code(self.train).digest


class FunctionTrainer(OwnTrainer):
    """Training by a function of the user's, which a study names under `train:`."""

    kind = "function"
    keys: tuple[str, ...] = ("train",)

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

    def permissions(self, config: Config) -> tuple[Permission, ...]:
        return (to_import("train", self.code_name(config)),)

    def code_name(self, config: Config) -> str:
        return cast("FunctionConfig", config).train

    def code_folder(self, config: Config) -> Path | None:
        return training_folder(self.code_name(config))

    def preload(self, config: Config) -> tuple[str, ...]:
        """Return torch where the training mentions it anywhere: a worker that has it for nothing has lost a second or two, one that
        lacks it as much for every run.
        """
        return TORCH if training_code(self.code_name(config)).imports_torch else ()

    def messages(self, task: Task, folders: Folders, cancelled: Collection[str]) -> Iterator[Message]:  # noqa: ARG002 — the function saves what it wants saved
        return messages(partial(self._epochs, task.payload), task.payload.metric)

    def _epochs(self, payload: RunPayload) -> Iterator[Mapping[str, float]]:
        """Start the function, with as many threads as its slot has."""
        if "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(payload.threads)  # read where torch is imported
        fit = load(payload.source["train"])
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(payload.threads)
        return fit(payload.config, payload.seed)
