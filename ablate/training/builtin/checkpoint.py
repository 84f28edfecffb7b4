"""The state of runs on disk, so that those that are broken off resume where they were, to the bit.

A checkpoint is written aside, synced and renamed. It begins with its own digest and the keys of its runs, and names the conditions
under which resuming gives the same bits. What is damaged, or was made under other conditions, is not used.

Runs that train together have one checkpoint for all of them. It is good for exactly those runs together, and for none of them
alone: a run that begins otherwise removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ablate import plain_files

EVERY = 60.0
"""Seconds between checkpoints; a run that takes less has none."""

LARGEST = 1 << 34
"""Bytes of a checkpoint that is read."""

NO_STATE = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What loading raises where a file is a checkpoint by its first line and its digest, and holds something else."""

_MARK = ["ablate", "checkpoint"]
_VERSION = "5"
_TOGETHER = "together-"


def place(folder: Path, run: str) -> Path:
    """Return the checkpoint of a run that trains alone, by its key."""
    return folder / f"{run}.checkpoint"


def remove(folder: Path, run: str) -> None:
    """Remove the checkpoint of a run that is done."""
    discard(place(folder, run))


def discard(path: Path) -> None:
    """Remove a checkpoint, and a later one that was not written to its end."""
    for file in (path, path.with_suffix(".tmp")):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def place_together(folder: Path, runs: Collection[str]) -> Path:
    """Return the checkpoint of runs that begin together, by their keys."""
    digest = hashlib.sha256(",".join(sorted(runs)).encode()).hexdigest()[:16]
    return folder / f"{_TOGETHER}{digest}.checkpoint"


def together(folder: Path) -> dict[Path, frozenset[str]]:
    """List the checkpoints of runs that train together, of any version, each with its unfinished runs. Only first lines are read."""
    checkpoints: dict[Path, frozenset[str]] = {}
    for path in sorted(folder.glob(f"{_TOGETHER}*.checkpoint")):
        with contextlib.suppress(OSError, ValueError), plain_files.open_plain(path) as file:
            words = file.readline(1 << 16).decode().split()
            if words[:2] == _MARK and len(words) == 5:
                checkpoints[path] = frozenset(words[-1].split(","))
    return checkpoints


def left(folder: Path) -> dict[Path, frozenset[str]]:
    """List all checkpoints in a folder, half-written ones included, each with its runs."""
    paths = {
        path.with_suffix(".checkpoint") for kind in ("checkpoint", "tmp") for path in folder.glob(f"*.{kind}")
    }
    alone = {path: frozenset({path.stem}) for path in sorted(paths) if not path.name.startswith(_TOGETHER)}
    return alone | together(folder)


def saved_together(folder: Path, runs: Collection[str]) -> Path | None:
    """Return the checkpoint of exactly these runs from training together; None where there is none."""
    return next((path for path, saved in together(folder).items() if saved == frozenset(runs)), None)


def remove_together(folder: Path, runs: Collection[str]) -> None:
    """Remove checkpoints of runs that trained together, where one of `runs` begins without the others."""
    for path, saved in together(folder).items():
        if not saved.isdisjoint(runs):
            discard(path)


class Keeper:
    """Saves the latest state of runs that train together, or of one run. path: None saves nothing. every: seconds between checkpoints.

    conditions: plain values; a state that was saved under others is not loaded. runs: keys of the runs whose state is saved; the
    owner of the keeper changes them as runs leave.
    """

    def __init__(
        self, path: Path | None, every: float, conditions: Mapping[str, Any], runs: Collection[str]
    ) -> None:
        self._path, self._every, self._conditions = path, every, dict(conditions)
        self.runs = frozenset(runs)
        self._due = time.perf_counter() + every

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save a state if it is time to. state: makes it, of tensors and plain values."""
        if time.perf_counter() >= self._due:
            self._try_to_save(state)

    def renew(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save a state in place of an earlier one, where there is one that has become invalid."""
        if self._path is not None and self._path.exists():
            self._try_to_save(state)

    def remove(self) -> None:
        """Remove what was saved."""
        if self._path is not None:
            discard(self._path)

    def _try_to_save(self, state: Callable[[], dict[str, Any]]) -> None:
        if self._path is None:
            return
        # A disk that is full must not end a run that may well finish without.
        with contextlib.suppress(OSError):
            self._save(self._path, state())
        self._due = time.perf_counter() + self._every

    def _save(self, path: Path, state: dict[str, Any]) -> None:
        import torch

        content = io.BytesIO()
        torch.save({"state": state, "conditions": self._conditions, "runs": sorted(self.runs)}, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(f"{_first_line(digest, self.runs)}\n".encode())
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def load(self) -> dict[str, Any] | None:
        """Return the state that was saved last; None where there is none to resume from."""
        if self._path is None or not self._path.exists():
            return None
        import torch

        try:
            first, _, content = plain_files.read(self._path, LARGEST).partition(b"\n")
            if first.decode() != _first_line(hashlib.sha256(content).hexdigest(), self.runs):
                return None
            # Weights only: a checkpoint is data, and loading it runs no code.
            saved = torch.load(io.BytesIO(content), weights_only=True)
            if json.dumps(saved["conditions"]) != json.dumps(self._conditions):
                return None
            state: dict[str, Any] = saved["state"]
            return state if saved["runs"] == sorted(self.runs) else None
        except (EOFError, MemoryError, OSError, pickle.UnpicklingError, *NO_STATE):
            return None


def _first_line(digest: str, runs: Collection[str]) -> str:
    return " ".join([*_MARK, _VERSION, digest, ",".join(sorted(runs))])
