"""What a task tells training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunPayload:
    """A run to train.

    config: the tree of the run's config. kind: of training, as in `ablate.training.TRAINERS`. source: of the config, what the
    study says of the code that trains. data: the fingerprint that the data should have; None where that does not matter. fuse:
    whether the run may share what it can with the other runs of its bundle. metric: the study's. checkpoint_every: seconds;
    None: the default.
    """

    config: Mapping[str, Any]
    seed: int
    kind: str = "builtin"
    device: str = "cpu"
    threads: int = 1
    source: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    fuse: bool = False
    metric: str | None = None
    checkpoint_every: float | None = None


@dataclass(frozen=True)
class Folders:
    """Where the machine that trains puts what runs leave behind. checkpoints, models: None saves none."""

    checkpoints: Path | None = None
    models: Path | None = None

    @classmethod
    def under(cls, root: Path) -> Folders:
        """Return the folders of a store. root: its folder."""
        return cls(root / "checkpoints", root / "models")


NO_FOLDERS = Folders()
"""Runs leave nothing behind."""

TORCH = ("torch", "torch._dynamo")
"""Modules that workers with torch begin with: its optimizers import the second when the first of them is made, which would take
every worker seconds."""
