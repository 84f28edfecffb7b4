"""Metrics of many runs as columns, and a cache of them on disk.

A run that has ended never changes, so its points need to be read from the store only once. A cache that is absent, torn or of
another layout costs time and nothing else: it is rebuilt.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ablate import plain_files
from ablate.tracking.arrays import Arrays, DamagedError, check_whole, read_arrays

LAYOUT = 1
"""Part of the file's name: raise it when the arrays or their meaning change."""

MOST_STEPS = 2**31 - 1

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Columns:
    """Metric values of some runs, run by run, within a run by metric and step.

    names: of the metrics. counts: (runs,) points of each run. metric: (points,) indices into `names`. step, value: (points,).
    """

    names: tuple[str, ...]
    counts: Ints
    metric: Ints
    step: Ints
    value: npt.NDArray[np.float64]

    @classmethod
    def of(cls, runs: int, rows: Sequence[tuple[int, str, int, int, float]]) -> Self:
        """Return the columns of rows in any order. rows: (index of the run, metric, step, time, value); of one step the latest comes last."""
        if not rows:
            nothing = np.zeros(0, dtype=np.int32)
            return cls((), np.zeros(runs, dtype=np.int32), nothing.astype(np.int16), nothing, np.zeros(0))
        run, named, step, at, value = zip(*rows, strict=True)
        names = sorted(set(named))
        place = {name: i for i, name in enumerate(names)}
        metric = np.fromiter((place[name] for name in named), dtype=np.int16, count=len(named))
        return cls.ordered(
            runs,
            names,
            np.array(run, dtype=np.int32),
            metric,
            np.array(step, dtype=np.int64),
            np.array(at, dtype=np.int64),
            np.array(value, dtype=np.float64),
        )

    @classmethod
    def ordered(
        cls,
        runs: int,
        names: Sequence[str],
        run: Ints,
        metric: Ints,
        step: Ints,
        at: Ints,
        value: npt.NDArray[np.float64],
    ) -> Self:
        """Return the columns of points in any order. run, metric, step, at, value: (points,), as in `of`; metric: indices into `names`."""
        # A step that somebody else has logged may be beyond what is kept; none of ablate's is.
        step = np.clip(step, -MOST_STEPS, MOST_STEPS).astype(np.int32)
        order = np.lexsort((at, step, metric, run))
        counts = np.bincount(run, minlength=runs).astype(np.int32)
        return cls(tuple(names), counts, metric[order], step[order], value[order])

    @functools.cached_property
    def run(self) -> Ints:
        """Return (points,) the index of the run that each point belongs to."""
        return np.repeat(np.arange(len(self.counts), dtype=np.int32), self.counts)

    def take(self, runs: Sequence[int]) -> Columns:
        """Return the given runs, in the given order. runs: their indices."""
        if list(runs) == list(range(len(self.counts))):  # a million points need no copy
            return self
        selected = np.asarray(runs, dtype=np.int64)
        ends = np.cumsum(self.counts)
        starts = ends - self.counts
        counts = self.counts[selected]
        shifts = np.repeat(starts[selected] - (np.cumsum(counts) - counts), counts)
        rows = np.arange(int(counts.sum())) + shifts
        return Columns(self.names, counts, self.metric[rows], self.step[rows], self.value[rows])

    def __add__(self, other: Columns) -> Columns:
        """Return these runs, then the other's."""
        names = tuple(dict.fromkeys((*self.names, *other.names)))
        other_names = np.array([names.index(name) for name in other.names], dtype=np.int16)
        metric = other_names[other.metric] if len(other_names) else other.metric
        return Columns(
            names,
            np.concatenate([self.counts, other.counts]),
            np.concatenate([self.metric, metric]),
            np.concatenate([self.step, other.step]),
            np.concatenate([self.value, other.value]),
        )

    def at(self, metric: str, steps: Ints | None = None) -> npt.NDArray[np.float64]:
        """Return (runs,) a metric at the step given for each run, or at its last step; NaN where it is not there.

        Where a step was logged twice the later value counts.
        """
        values = np.full(len(self.counts), np.nan)
        if metric in self.names:
            is_metric = self.metric == self.names.index(metric)
            rows = np.flatnonzero(is_metric if steps is None else is_metric & (self.step == steps[self.run]))
            # The points stand in the order of their steps, and the value that is written last stays.
            values[self.run[rows]] = self.value[rows]
        return values

    def steps_of(self, metric: str, steps: Ints | None = None) -> Ints:
        """Return (runs,) the step at which `at` reads a metric of each run; -1 where it is not there."""
        read = np.full(len(self.counts), -1, dtype=np.int64)
        if metric in self.names:
            is_metric = self.metric == self.names.index(metric)
            rows = np.flatnonzero(is_metric if steps is None else is_metric & (self.step == steps[self.run]))
            read[self.run[rows]] = self.step[rows]
        return read

    def not_finite(self, metric: str) -> npt.NDArray[np.bool_]:
        """Return (runs,) whether a run has a value of a metric that is no finite number."""
        broken = np.zeros(len(self.counts), dtype=bool)
        if metric in self.names:
            rows = np.flatnonzero((self.metric == self.names.index(metric)) & ~np.isfinite(self.value))
            broken[self.run[rows]] = True
        return broken

    def highest_steps(self, rows: Ints) -> Ints:
        """Return (runs,) the highest step of each run among some points, 0 where it has none above. rows: their indices, ascending."""
        highest = np.zeros(len(self.counts), dtype=np.int64)
        owner = self.run[rows]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        if len(starts):
            highest[owner[starts]] = np.maximum(np.maximum.reduceat(self.step[rows], starts), 0)
        return highest

    def among(self, kept: Callable[[str], bool]) -> Ints:
        """Return the indices of the points of the metrics whose names `kept` accepts."""
        wanted = np.array([kept(name) for name in self.names], dtype=bool)
        return np.flatnonzero(wanted[self.metric]) if len(wanted) else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Cached:
    """runs: (run id, when it ended) → its index in `columns`."""

    runs: Mapping[tuple[str, float], int]
    columns: Columns


NOTHING = Cached({}, Columns.of(0, ()))


def load(path: Path) -> Cached:
    """Return what was saved at `path`; nothing where it cannot be read."""
    try:
        arrays = read_arrays(path)
        return _cached(arrays)
    except (OSError, DamagedError, LookupError, TypeError, ValueError):
        return NOTHING


def _cached(arrays: Arrays) -> Cached:
    """Return what the arrays of a cache hold. Raises DamagedError, and Python's errors about values, where they do not fit."""
    ids, ends, counts = arrays["ids"].tolist(), arrays["ends"].tolist(), arrays["counts"]
    names, value = arrays["names"].tolist(), arrays["value"]
    check_whole(counts, len(ids))
    check_whole(value, int(counts.sum()), kinds="f")
    check_whole(arrays["metric"], len(value), below=len(names))
    check_whole(arrays["step"], len(value))
    columns = Columns(tuple(map(str, names)), counts, arrays["metric"], arrays["step"], value)
    runs = {run: i for i, run in enumerate(zip(ids, ends, strict=True))}
    if len(runs) < len(ids):
        raise DamagedError("a run stands there twice")
    return Cached(runs, columns)


def save(path: Path, cached: Cached) -> None:
    """Save columns as `write_whole` does."""
    columns = cached.columns
    write_whole(
        path,
        ids=np.array([run for run, _ in cached.runs]),
        ends=np.array([end for _, end in cached.runs]),
        names=np.array(columns.names),
        counts=columns.counts,
        metric=columns.metric,
        step=columns.step,
        value=columns.value,
    )


def write_whole(path: Path, **arrays: Any) -> None:
    """Write a cache whole or not at all; without space or permission nothing is written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with plain_files.written_aside(path, sync=False) as file:
            np.savez(file, **arrays)
