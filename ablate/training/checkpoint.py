"""A run's state on disk, so that one that is broken off goes on where it was, to the bit.

A checkpoint is written aside, synced and renamed, begins with its own digest, and names the conditions under which going on
gives the same bits. What is damaged, or was made under other conditions, is as good as none.

Runs that train together have one checkpoint for all of them, which names them in its first line: it is good for exactly those
runs together, and for none of them alone. Who begins with one of them otherwise removes it.
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

EVERY = 60.0
"""Seconds between checkpoints; a run that takes less has none."""

_FIRST_LINE = "ablate checkpoint 2"
_TOGETHER = "together-"


def place(folder: Path, run: str) -> Path:
    """The checkpoint of a run, by its key."""
    return folder / f"{run}.checkpoint"


def remove(folder: Path, run: str) -> None:
    """Remove what is left of a run that is done."""
    discard(place(folder, run))


def discard(path: Path) -> None:
    """Remove a checkpoint, and what there is of a later one that was not written to its end."""
    for each in (path, path.with_suffix(".tmp")):
        with contextlib.suppress(OSError):
            each.unlink(missing_ok=True)


def place_together(folder: Path, runs: Collection[str]) -> Path:
    """The checkpoint of runs that begin together, by their keys."""
    digest = hashlib.sha256(",".join(sorted(runs)).encode()).hexdigest()[:16]
    return folder / f"{_TOGETHER}{digest}.checkpoint"


def together(folder: Path) -> dict[Path, frozenset[str]]:
    """Checkpoints of runs that train together → those of them that were not done yet. Only first lines are read."""
    found: dict[Path, frozenset[str]] = {}
    for path in sorted(folder.glob(f"{_TOGETHER}*.checkpoint")):
        with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
            first = file.readline(1 << 16).decode().split()
            if " ".join(first[:-2]) == _FIRST_LINE:
                found[path] = frozenset(first[-1].split(","))
    return found


def left(folder: Path) -> dict[Path, frozenset[str]]:
    """All checkpoints in a folder, half-written ones among them → the runs that each is of."""
    paths = {
        path.with_suffix(".checkpoint") for kind in ("checkpoint", "tmp") for path in folder.glob(f"*.{kind}")
    }
    alone = {path: frozenset({path.stem}) for path in sorted(paths) if not path.name.startswith(_TOGETHER)}
    return alone | together(folder)


def saved_together(folder: Path, runs: Collection[str]) -> Path | None:
    """The checkpoint of exactly these runs; None where there is none."""
    return next((path for path, of in together(folder).items() if of == frozenset(runs)), None)


def remove_together(folder: Path, runs: Collection[str]) -> None:
    """Remove checkpoints of runs that trained together, where one of `runs` begins without the others."""
    for path, of in together(folder).items():
        if not of.isdisjoint(runs):
            discard(path)


class Keeper:
    """Keeps the latest state of one run, or of several together. path: None keeps nothing. every: seconds between checkpoints.

    conditions: plain values; a state that was saved under others is not taken up. runs: keys of runs that are saved together;
    who has them may set others.
    """

    def __init__(
        self, path: Path | None, every: float, conditions: Mapping[str, Any], runs: Collection[str] = ()
    ) -> None:
        self._path, self._every, self._conditions = path, every, dict(conditions)
        self.runs = frozenset(runs)
        self._began = time.perf_counter()
        self._due = self._began + every
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """What the run has taken so far, in all its parts."""
        return self._before + time.perf_counter() - self._began

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save a state if it is time to. state: makes it, of tensors and plain values."""
        if time.perf_counter() >= self._due:
            self._try(state)

    def renew(self, state: Callable[[], dict[str, Any]]) -> None:
        """Save a state in place of an earlier one, where there is one: it would not do any more."""
        if self._path is not None and self._path.exists():
            self._try(state)

    def remove(self) -> None:
        """What was saved is done with."""
        if self._path is not None:
            discard(self._path)

    def _try(self, state: Callable[[], dict[str, Any]]) -> None:
        if self._path is None:
            return
        # A disk that is full must not end a run that may well finish without.
        with contextlib.suppress(OSError):
            self._save(self._path, state())
        self._due = time.perf_counter() + self._every

    def _save(self, path: Path, state: dict[str, Any]) -> None:
        import torch

        content = io.BytesIO()
        kept = {
            "state": state,
            "seconds": self.seconds,
            "conditions": self._conditions,
            "runs": sorted(self.runs),
        }
        torch.save(kept, content)
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
        """The state that was saved last; None where there is none to go on from."""
        if self._path is None or not self._path.exists():
            return None
        import torch

        try:
            first, _, content = self._path.read_bytes().partition(b"\n")
            if first.decode() != _first_line(hashlib.sha256(content).hexdigest(), self.runs):
                return None
            # Weights only: a checkpoint is data, and loading it runs no code.
            saved = torch.load(io.BytesIO(content), weights_only=True)
        except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError):
            return None
        if json.dumps(saved["conditions"]) != json.dumps(self._conditions) or saved["runs"] != sorted(
            self.runs
        ):
            return None
        self._before = saved["seconds"]
        state: dict[str, Any] = saved["state"]
        return state


def _first_line(digest: str, runs: Collection[str]) -> str:
    return " ".join([_FIRST_LINE, digest, *([",".join(sorted(runs))] if runs else [])])
