"""The Trainer of the built-in training. The training itself is `training/builtin/`, all of which is part of the key of its runs.

Importing this file loads no torch: `steps` imports the loop where runs are trained.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal, cast

from ablate.config import CHANGES_NO_RESULT, Config, RunConfig
from ablate.data import datasets
from ablate.data.facts import DataFacts
from ablate.errors import StudyError
from ablate.events import Task
from ablate.training import foreign_code
from ablate.training.builtin.randomness import split_seed
from ablate.training.outcome import Steps, shown
from ablate.training.payload import NO_FOLDERS, TORCH, Folders
from ablate.training.permission import Permission, to_import
from ablate.training.untested import untested

MOST_IN_TOP = 5
"""Classes of which all are among the likeliest of the top-5 accuracy."""


def builtin_config(config: Config) -> RunConfig | None:
    """Return a config of the built-in training, for questions about its images; None for any other kind."""
    return config if isinstance(config, RunConfig) else None


def _try_out(config: RunConfig, shape: tuple[int, int, int], classes: int, images: int) -> None:
    """Pass a few images through a network where only that shows whether it can be trained. images: of the training split."""
    last_batch = images % config.training.batch_size or config.training.batch_size
    if config.model.is_foreign or last_batch == 1:
        from ablate.models.trial import try_out

        try_out(config.model, shape, classes, last_batch)


def _spare_dynamo() -> None:
    """Let torch's optimizers do without `torch._dynamo` in this worker: its import takes 1.2 s of the processor.

    They ask for it to tell `torch.compile` what it should not compile, and the built-in training compiles nothing. What they compute
    stays the same, bit for bit. In a torch that has this elsewhere, they import it as ever; and so they do in a process that is not
    ours alone, which may compile something of its own.
    """
    import torch
    from torch import optim

    if multiprocessing.parent_process() is None or "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        function = getattr(getattr(optim.Optimizer, name, None), "__wrapped__", None)
        if function is not None:
            setattr(function, "__dynamo_disable", function)
    for kind in (optim.SGD, optim.Adam, optim.AdamW):
        # Wrapped in what turns gradients off around a call of dynamo's.
        step = getattr(kind.step, "__wrapped__", None)
        if step is not None and not hasattr(kind.step, "hooked"):
            kind.step = torch.no_grad()(step)  # type: ignore[method-assign]


class BuiltinTrainer:
    """The kind of training that studies have which name no other."""

    imports_code = False
    keys: tuple[str, ...] = ()
    metrics: tuple[str, ...] = (
        "val/accuracy",
        "val/loss",
        "val/f1_macro",
        "val/precision_macro",
        "val/recall_macro",
        "val/balanced_accuracy",
        "val/top5_accuracy",
        "train/accuracy",
        "train/loss",
    )

    def owns(self, config: Config) -> bool:
        return isinstance(config, RunConfig)

    def parse(
        self,
        source: Mapping[str, Any],  # noqa: ARG002 — it has no keys
        tree: Mapping[str, Any],
        *,
        place: Callable[[str], str] = str,
    ) -> RunConfig:
        return RunConfig.parse(tree, place=place)

    def yields(self, config: Config) -> tuple[str, ...]:  # noqa: ARG002 — whatever the config
        return self.metrics

    def direction(self, metric: str) -> Literal["maximize", "minimize"]:
        return "minimize" if metric.endswith("/loss") else "maximize"

    def resolution(self, metric: str, data: DataFacts) -> float:
        """Return the share of one image: the step of accuracies, and on average about that of the scores of classes.

        Raises StudyError for the top-5 accuracy of five classes or fewer, which is always 1.
        """
        if metric == "val/top5_accuracy" and data.classes and len(data.classes) <= MOST_IN_TOP:
            raise StudyError(
                f"the data have {len(data.classes)} classes, so every image's is among the five likeliest",
                place="metric",
                hint="val/accuracy compares arms on few classes",
            )
        images = {"val": data.validation, "train": data.train}[metric.partition("/")[0]]
        return 1 / images if images and not metric.endswith("/loss") else 0.0

    def changes_no_result(self, path: str) -> bool:
        return path in CHANGES_NO_RESULT

    def permissions(self, config: Config) -> tuple[Permission, ...]:
        run = cast("RunConfig", config)
        targets = {"model.target": run.model.target_to_import, "data.target": run.data.target_to_import}
        return tuple(to_import(key, target) for key, target in targets.items() if target is not None)

    def isolation(self, config: Config) -> str:  # noqa: ARG002 — nothing in it leaves anything behind
        return ""

    def code_name(self, config: Config) -> None:  # noqa: ARG002 — all of its code is ablate's
        return None

    def seed_advice(self) -> None:
        return None

    def code_folder(self, config: Config) -> None:  # noqa: ARG002 — all of its code is ablate's
        return None

    def preparer(self) -> Callable[[Config], DataFacts]:
        @cache
        def of_data(data: datasets.DataConfig) -> DataFacts:
            dataset = datasets.prepare(data)
            train, validation = datasets.divided(dataset, data, split_seed(0, "fixed"))
            sizes = (len(train), len(validation), len(dataset.test_labels))
            return DataFacts(
                dataset.fingerprint,
                *sizes,
                tuple(dataset.shape),
                tuple(dataset.classes),
                tuple(dataset.notes),
            )

        def facts(config: Config) -> DataFacts:
            run = cast("RunConfig", config)
            data = of_data(run.data)
            shape = cast("tuple[int, int, int]", data.shape)
            run.model.check(shape)
            _try_out(run, shape, len(data.classes), data.train)
            return data

        return facts

    def is_prepared(self, config: Config) -> bool:
        # Where there are no data, the error of preparing them says what is wrong.
        return datasets.presence(cast("RunConfig", config).data) in ("prepared", "not here")

    def preload(self, config: Config) -> tuple[str, ...]:
        model = cast("RunConfig", config).model
        torch = TORCH if model.is_foreign else ("torch",)
        return (*torch, "ablate.training.builtin.bundle", *model.preload)

    def devices(self, config: Config) -> int:  # noqa: ARG002 — whatever the config
        return 1

    def same_cost(self, config: Config) -> str:
        """Return all but rates and schedules, which cost nothing."""
        run = cast("RunConfig", config)
        return repr((run.data, run.model, run.augment, run.training, run.optimizer.name))

    def steps(self, tasks: Sequence[Task], folders: Folders, cancelled: Collection[str]) -> Steps:
        from ablate.training.builtin import bundle

        def train(some: Sequence[Task]) -> Steps:
            if all(task.payload.tested for task in some):
                return bundle.steps(some, folders, cancelled)
            return untested(lambda ended: bundle.steps(some, folders, ended), some, cancelled)

        if all(task.payload.config["model"]["name"] != "import" for task in tasks):
            _spare_dynamo()
            return train(tasks)
        return foreign_code.watched(train, tasks)

    def trial(self, task: Task) -> Iterator[str]:
        for _, message in self.steps((task,), NO_FOLDERS, ()):
            yield from shown(message)
