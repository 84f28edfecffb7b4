"""A run's state on disk, so that one that is broken off goes on where it was, to the bit.

A checkpoint is written aside, synced and renamed, begins with its own digest, and names the conditions under which going on
gives the same bits. What is damaged, or was made under other conditions, is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVERY = 60.0
"""Seconds between checkpoints; a run that takes less has none."""

_FIRST_LINE = "ablate checkpoint 1"


def place(folder: Path, run: str) -> Path:
    """The checkpoint of a run, by its key."""
    return folder / f"{run}.checkpoint"


def remove(folder: Path, run: str) -> None:
    """Remove what is left of a run that is done."""
    for path in (place(folder, run), place(folder, run).with_suffix(".tmp")):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


class Keeper:
    """Keeps the latest state of one run. path: None keeps nothing. every: seconds between two checkpoints.

    conditions: plain values; a state that was saved under others is not taken up.
    """

    def __init__(self, path: Path | None, every: float, conditions: Mapping[str, Any]) -> None:
        self._path, self._every, self._conditions = path, every, dict(conditions)
        self._began = time.perf_counter()
        self._due = self._began + every
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """What the run has taken so far, in all its parts."""
        return self._before + time.perf_counter() - self._began

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save a state if it is time to. state: makes it, of tensors and plain values."""
        if self._path is None or time.perf_counter() < self._due:
            return
        # A disk that is full must not end a run that may well finish without.
        with contextlib.suppress(OSError):
            self._save(self._path, state())
        self._due = time.perf_counter() + self._every

    def _save(self, path: Path, state: dict[str, Any]) -> None:
        import torch

        content = io.BytesIO()
        torch.save({"state": state, "seconds": self.seconds, "conditions": self._conditions}, content)
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(f"{_FIRST_LINE} {digest}\n".encode())
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last; None where there is none to go on from."""
        if self._path is None or not self._path.exists():
            return None
        import torch

        try:
            first, _, content = self._path.read_bytes().partition(b"\n")
            if first.decode() != f"{_FIRST_LINE} {hashlib.sha256(content).hexdigest()}":
                return None
            # Weights only: a checkpoint is data, and loading it runs no code.
            saved = torch.load(io.BytesIO(content), weights_only=True)
        except (OSError, ValueError, RuntimeError):
            return None
        if json.dumps(saved["conditions"]) != json.dumps(self._conditions):
            return None
        self._before = saved["seconds"]
        state: dict[str, Any] = saved["state"]
        return state
