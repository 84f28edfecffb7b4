"""What a task tells training."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path
from typing import Any

from ablate.errors import TrainingError


@dataclass(frozen=True)
class RunPayload:
    """A run to train.

    config: the tree of the run's config. source: of the config, what the study says of the code that trains. data: the fingerprint that the data should have; None where that does not matter. fuse:
    whether the run may share what it can with the other runs of its bundle. metric: the study's. checkpoint_every: seconds;
    None: the default. code: the digest of the code that the run was planned with; None where that does not matter. check: only see
    whether the run could be trained. tested: whether the built-in training evaluates the run on the test set when it has ended.
    """

    config: Mapping[str, Any]
    seed: int
    device: str = "cpu"
    threads: int = 1
    source: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    fuse: bool = False
    metric: str | None = None
    checkpoint_every: float | None = None
    code: str | None = None
    check: bool = False
    tested: bool = True


@dataclass(frozen=True)
class Folders:
    """Where the machine that trains puts what runs leave behind. checkpoints, models, runs: None keeps none."""

    checkpoints: Path | None = None
    models: Path | None = None
    runs: Path | None = None

    @classmethod
    def under(cls, root: Path) -> Folders:
        """Return the folders of a store. root: its folder."""
        return cls(root / "checkpoints", root / "models", root / "runs")

    @contextlib.contextmanager
    def run(self, key: str, *, keep: bool = False) -> Iterator[Path]:
        """Yield the absolute path of a run's own folder, which exists and is empty. key: of the run.

        keep: what an earlier attempt left there stays. Where nothing is kept, the folder is gone afterwards. Raises TrainingError where
        the folder cannot be made, or emptied.
        """
        if self.runs is None:
            # A worker may be killed within the run; the folder that its command has made for all of its workers is removed even so.
            is_worker = multiprocessing.parent_process() is not None
            place = util.get_temp_dir() if is_worker else None
            with tempfile.TemporaryDirectory(prefix="ablate-run-", dir=place) as temporary:
                yield Path(temporary)
            return
        folder = self.runs.absolute() / key
        try:
            if folder.is_symlink():  # whatever it leads to is not the run's
                folder.unlink()
            if not keep and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(
                f"the folder of the run cannot be made: {error.strerror}: {error.filename or folder}",
                hint="the store needs room, and the right to write into it",
            ) from error
        yield folder

    def output(self, key: str) -> Path | None:
        """Return the file that has what a run prints while it runs; None where nothing is kept. key: of the run."""
        return None if self.runs is None else self.runs.absolute() / f"{key}.output"


NO_FOLDERS = Folders()
"""Runs leave nothing behind."""

TORCH = ("torch", "torch._dynamo")
"""Modules that workers with torch begin with: its optimizers import the second when the first of them is made, which would take
every worker seconds."""
