"""What a function of the user's may ask of its run, where it has a parameter `run`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from ablate.errors import TrainingError
from ablate.text import format_bytes
from ablate.training.payload import Folders

MOST_ARTIFACTS = 100 << 20
"""Bytes of all artifacts of a run: they travel with its result. What is larger belongs in `run.folder`, which stays."""

CHECKPOINT = "checkpoint"


def discard_checkpoint(folders: Folders, run: str) -> None:
    """Remove what a run would have resumed from. run: its key."""
    if folders.runs is not None:
        shutil.rmtree(folders.runs / run / CHECKPOINT, ignore_errors=True)


class OwnRun:
    """One attempt of a run, for the function that trains it.

    folder: of this run alone, absolute; empty when an attempt begins, and kept afterwards where something is in it.
    checkpoint: a folder that survives retries, kills and interruptions, for the same run with the same code; it is removed when the run
    is done. attempt: 1, 2, …
    """

    def __init__(self, folder: Path, attempt: int, is_cancelled: Callable[[], bool]) -> None:
        self.folder = folder
        self.attempt = attempt
        self._is_cancelled = is_cancelled
        self._files: dict[str, bytes] = {}
        self._was_told = False
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        for item in folder.iterdir():
            if item.name != CHECKPOINT:
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def stopping(self) -> bool:
        """Whether the run is to end: a search has pruned it, it has taken too long, or the study is interrupted.

        A function that has seen it true may save what it needs and return; the run counts as broken off, whatever it yields then.
        """
        self._was_told = self._was_told or self._is_cancelled()
        return self._was_told

    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        """Keep a file, or all files of a folder, with the run. name: that it has there; by default its own.

        The content is read at once. Raises TrainingError where there is no such file, or where all of them come to more than 100 MiB.
        """
        source = Path(path)
        name = name or source.name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise TrainingError(f"the artifact {name!r} would lie outside its run", place="run.log_artifact")
        if source.is_dir():
            for file in sorted(source.rglob("*")):
                if file.is_file():
                    self._keep(file, f"{name}/{file.relative_to(source).as_posix()}")
        else:
            self._keep(source, name)

    def _keep(self, file: Path, name: str) -> None:
        try:
            size = file.stat().st_size
            others = sum(len(content) for other, content in self._files.items() if other != name)
            if others + size > MOST_ARTIFACTS:
                raise TrainingError(
                    f"the artifacts come to more than {format_bytes(MOST_ARTIFACTS)} with {name!r}",
                    place="run.log_artifact",
                    hint="leave large files in run.folder, which is kept",
                )
            self._files[name] = file.read_bytes()
        except OSError as error:
            raise TrainingError(
                f"cannot read {str(file)!r}: {error.strerror}", place="run.log_artifact"
            ) from None

    # What follows is ablate's.

    def files(self) -> dict[str, bytes]:
        """Return the artifacts, name → content."""
        return dict(self._files)

    def was_broken_off(self) -> bool:
        """Return whether the function knows that the run was to end."""
        return self._was_told

    def tidy(self, *, done: bool) -> None:
        """Remove the folder where nothing is in it. done: nothing will be resumed, so the checkpoint goes too."""
        if done:
            shutil.rmtree(self.checkpoint, ignore_errors=True)
        for folder in (self.checkpoint, self.folder):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
