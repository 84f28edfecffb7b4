"""The kinds of training, and the protocol of their trainers.

A kind of training is one file and one line in `TRAINERS`. Nobody outside asks which kind a config is of: they ask its
`Trainer`. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from ablate.config import Config
from ablate.data.facts import DataFacts
from ablate.events import Task
from ablate.training.builtin_trainer import BuiltinTrainer, builtin_config
from ablate.training.command import CommandTrainer
from ablate.training.function import FunctionTrainer
from ablate.training.outcome import Steps
from ablate.training.payload import Folders
from ablate.training.permission import Permission


class Trainer(Protocol):
    """One kind of training.

    keys: the keys of a study that belong to it, the first of which asks for it; empty: the kind of studies that ask for no other.
    metrics: every metric that all of its configs yield and arms may be compared by; empty where that is the user's to say.
    imports_code: whether workers import code of the user's, which is tried before anything is trained (`RunPayload.check`).
    """

    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    imports_code: bool

    def owns(self, config: Config) -> bool:
        """Return whether a config is of this kind."""
        ...

    def parse(
        self, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> Config:
        """Return the config of plain values. source: what the study says under each of `keys`. place: names a path in messages.

        Raises StudyError, also where `source` cannot name a training.
        """
        ...

    def yields(self, config: Config) -> tuple[str, ...]:
        """Return the metrics that arms may be compared by; empty where only the user's code knows."""
        ...

    def direction(self, metric: str) -> Literal["maximize", "minimize"] | None:
        """Return which way a metric is better; None where its name does not tell."""
        ...

    def resolution(self, metric: str, data: DataFacts) -> float:
        """Return the smallest step of a metric; 0 where it has none or it is not known.

        Raises StudyError where nothing can be compared by it on such data.
        """
        ...

    def changes_no_result(self, path: str) -> bool:
        """Return whether a setting changes no result, so that it is no factor and nothing is tuned by it."""
        ...

    def permissions(self, config: Config) -> tuple[Permission, ...]:
        """Return what the user has to allow before this is trained; nothing where all of the code is ablate's."""
        ...

    def code_name(self, config: Config) -> str | None:
        """Return what reports call the user's code that trains; None where all of the code is ablate's."""
        ...

    def isolation(self, config: Config) -> str:
        """Return in sentences, for reports, how runs that share a process are kept apart; '' where there is nothing to say."""
        ...

    def seed_advice(self) -> str | None:
        """Return how the user's code comes by its seed, as advice where it ignores it; None where all of the code is ablate's."""
        ...

    def code_folder(self, config: Config) -> Path | None:
        """Return the folder of the user's code that trains, whose commit is recorded; None where there is none."""
        ...

    def preparer(self) -> Callable[[Config], DataFacts]:
        """Return a function that prepares what a config trains on, each data set once, and checks that it can be trained.

        The function raises StudyError, DataError and TrainingError.
        """
        ...

    def is_prepared(self, config: Config) -> bool:
        """Return whether preparing takes no time: the data are there, or looking for them says what is wrong."""
        ...

    def preload(self, config: Config) -> tuple[str, ...]:
        """Return the modules that worker processes should have from their first moment."""
        ...

    def devices(self, config: Config) -> int:
        """Return how many devices a run takes."""
        ...

    def same_cost(self, config: Config) -> str | None:
        """Return what runs have in common that cost the same, where `measuring` can tell it by training a little.

        None where only a whole run shows what it costs.
        """
        ...

    def steps(self, tasks: Sequence[Task], folders: Folders, cancelled: Collection[str]) -> Steps:
        """Train the runs of a bundle. cancelled: keys of the runs to break off; it grows meanwhile."""
        ...

    def trial(self, task: Task) -> Iterator[str]:
        """Train a run and yield lines that show what came of it, as it comes. Nothing is recorded.

        The last lines say whether it failed; what it raises is for the caller.
        """
        ...


__all__ = [
    "TRAINERS",
    "Permission",
    "Trainer",
    "builtin_config",
    "parse_config",
    "trainer_of",
    "trainer_wanted",
]

TRAINERS: tuple[Trainer, ...] = (BuiltinTrainer(), FunctionTrainer(), CommandTrainer())


def trainer_of(config: Config) -> Trainer:
    """Return the trainer of a config."""
    return next(trainer for trainer in TRAINERS if trainer.owns(config))


def trainer_wanted(keys: Mapping[str, Any]) -> Trainer:
    """Return the trainer that the keys of a study ask for."""
    default = next(trainer for trainer in TRAINERS if not trainer.keys)
    wanted = (trainer for trainer in TRAINERS if trainer.keys and keys.get(trainer.keys[0]) is not None)
    return next(wanted, default)


def parse_config(keys: Mapping[str, Any], tree: Mapping[str, Any]) -> Config:
    """Return the config of plain values. keys: of the study, with all of those of its kind of training. Raises StudyError."""
    trainer = trainer_wanted(keys)
    return trainer.parse({key: keys.get(key) for key in trainer.keys}, tree)
