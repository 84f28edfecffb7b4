"""Frames become pairs: who is held against whom, under which seeds, and which arms are no comparison at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ablate.errors import StoreError

REPORT, AA, CONFIRM = "report", "A/A", "confirm"
TUNE, FIXED = "tune", "fixed"

Outcome = Literal["finished", "diverged", "failed"]

SHORTEST_SECONDS = 0.05
"""Times below this say nothing of what an arm costs."""


@dataclass(frozen=True)
class Replicate:
    """One recorded training. value, test: raw; NaN unless finished. weights, trace: digests, None where unknown."""

    seed: int
    outcome: Outcome
    value: float = math.nan
    test: float = math.nan
    weights: str | None = None
    trace: str | None = None
    seconds: float = math.nan
    flops: float = math.nan
    parameters: float = math.nan
    epochs: float = math.nan

    @property
    def finished(self) -> bool:
        return self.outcome == "finished"


def numbers(frame: pd.DataFrame, name: str) -> list[float]:
    """A column of a frame as plain numbers; NaN where there is none, and where there is no such column."""
    if name not in frame.columns:
        return [math.nan] * len(frame)
    found: list[float] = frame[name].to_numpy(dtype=float, na_value=math.nan).tolist()
    return found


def texts(frame: pd.DataFrame, name: str) -> list[str]:
    """A column of a frame as text; empty where there is none, which pandas may have turned into NaN, and where there is no such column."""
    if name not in frame.columns:
        return [""] * len(frame)
    return [value if isinstance(value, str) else "" for value in frame[name].to_numpy(dtype=object)]


Record = Mapping[int, Replicate]
"""The replicates of one arm in one phase, by seed."""


class Ledger:
    """All replicates of a study, by phase, arm and seed. The order of the rows leaves no trace."""

    def __init__(self, replicates: pd.DataFrame) -> None:
        """Reads the frame. Raises StoreError where a column is absent or two rows record the same replicate."""
        absent = [c for c in ("arm", "seed", "phase", "outcome", "value") if c not in replicates.columns]
        if absent:
            raise StoreError(f"the replicates have no column {', '.join(absent)}")
        self._by_arm: dict[tuple[str, str], dict[int, Replicate]] = {}
        for arm, phase, replicate in _read(replicates):
            record = self._by_arm.setdefault((phase, arm), {})
            if replicate.seed in record:
                raise StoreError(
                    f"arm {arm!r} has two replicates under seed {replicate.seed}",
                    hint="mark all but one of them as superseded in the store",
                )
            record[replicate.seed] = replicate

    def record(self, arm: str, phase: str = REPORT) -> Record:
        return self._by_arm.get((phase, arm), {})

    def arms(self, phase: str) -> list[str]:
        return sorted(arm for kind, arm in self._by_arm if kind == phase)

    def seeds(self, phase: str = REPORT) -> tuple[int, ...]:
        """Every seed of a phase, sorted."""
        return tuple(
            sorted({s for (kind, _), record in self._by_arm.items() if kind == phase for s in record})
        )


@dataclass(frozen=True)
class Sample:
    """What one arm (or effect) has to show under some seeds.

    seeds, differences: the pairs, oriented. failed, diverged, missing: of the arm itself, among those seeds.
    copied: two replicates under different seeds are one and the same. unchanged: identical to its reference under
    every seed. unstable: a replicate diverged; hurt_is_safe: dropping it can only have hidden harm, so that `hurts`
    may still be read. reference_diverged: seeds under which the reference did.
    scale: the largest magnitude among the values, the yardstick of rounding errors.
    """

    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    failed: int = 0
    diverged: int = 0
    missing: int = 0
    copied: bool = False
    unchanged: bool = False
    unstable: bool = False
    hurt_is_safe: bool = True
    reference_diverged: tuple[int, ...] = ()
    scale: float = 0.0

    @property
    def n(self) -> int:
        return len(self.seeds)

    def variance(self, resolution: float) -> float:
        """s², floored at q²/4; NaN below two pairs. Differences that agree to the last digits have none of their own."""
        if self.n < 2:
            return math.nan
        own = float(np.var(self.differences, ddof=1))
        if own <= (8.0 * np.finfo(float).eps * self.scale) ** 2:
            own = 0.0
        return max(own, resolution**2 / 4.0)


Sampler = Callable[[Sequence[int]], Sample]
"""Seeds of a look → what there is under them."""


def pair(
    arm: Record,
    reference: Record,
    seeds: Iterable[int],
    *,
    sign: float,
    deterministic: bool = False,
    same_arm: bool = False,
) -> Sample:
    """Pairs an arm with its reference under the given seeds (the keys of both records).

    sign: +1 where higher is better, −1 where lower is. deterministic: copies across seeds are as they should be.
    same_arm: both are one arm under different seeds (A/A), so that a match between them is a copy, not a lame override.
    Copies and unchanged arms are told by weights or by the loss trace, never by the metric: honest ties exist.
    """
    wanted = list(seeds)
    mine = {s: arm[s] for s in wanted if s in arm}
    theirs = {s: reference[s] for s in wanted if s in reference}
    both = [s for s in wanted if s in mine and s in theirs and mine[s].finished and theirs[s].finished]
    done = [r for r in mine.values() if r.finished]
    reference_done = [r for r in theirs.values() if r.finished]
    groups = [done + reference_done] if same_arm else [done, reference_done]
    return Sample(
        seeds=tuple(both),
        differences=tuple(sign * (mine[s].value - theirs[s].value) for s in both),
        failed=sum(r.outcome == "failed" for r in mine.values()),
        diverged=sum(r.outcome == "diverged" for r in mine.values()),
        missing=len(wanted) - len(mine),
        copied=not deterministic and any(copies(group) for group in groups),
        unchanged=not same_arm and bool(both) and all(same(mine[s], theirs[s]) for s in both),
        unstable=any(r.outcome == "diverged" for r in mine.values()),
        reference_diverged=tuple(s for s in wanted if s in theirs and theirs[s].outcome == "diverged"),
        scale=max((abs(r.value) for s in both for r in (mine[s], theirs[s])), default=0.0),
    )


def copies(replicates: Iterable[Replicate]) -> bool:
    """Whether two of these finished replicates have identical weights, or identical loss traces."""
    done = list(replicates)
    for digests in ([r.weights for r in done], [r.trace for r in done]):
        known = [d for d in digests if d is not None]
        if len(set(known)) < len(known):
            return True
    return False


def same(one: Replicate, other: Replicate) -> bool:
    """Whether two finished replicates are one training: by weights where both are known, else by loss trace."""
    if one.weights is not None and other.weights is not None:
        return one.weights == other.weights
    return one.trace is not None and one.trace == other.trace


def mean_of(replicates: Iterable[Replicate], name: str) -> float | None:
    """Mean of a field over replicates; None where one of them lacks it, or there is none."""
    values = [float(getattr(r, name)) for r in replicates]
    return float(np.mean(values)) if values and all(math.isfinite(v) for v in values) else None


def typical_seconds(replicates: Iterable[Replicate]) -> float | None:
    """Median time of a replicate: the first run of a process pays for imports that the others don't.

    None where one is unknown, or where the times are too short to be told from overhead.
    """
    values = [float(r.seconds) for r in replicates]
    if not values or not all(math.isfinite(v) for v in values):
        return None
    middle = float(np.median(values))
    return middle if middle >= SHORTEST_SECONDS else None


def ratio(arm: float | None, reference: float | None) -> float | None:
    return arm / reference if arm is not None and reference is not None and reference > 0 else None


def _read(frame: pd.DataFrame) -> Iterator[tuple[str, str, Replicate]]:
    """(arm, phase, replicate) of every row, in their order."""
    rest: tuple[list[Any], ...] = (
        numbers(frame, "test"),
        *([text or None for text in texts(frame, name)] for name in ("weights", "trace")),
        *(numbers(frame, name) for name in ("seconds", "flops", "parameters", "epochs")),
    )
    known = (texts(frame, name) for name in ("arm", "phase", "outcome"))
    columns = zip(*known, frame["seed"].tolist(), numbers(frame, "value"), *rest, strict=True)
    for arm, phase, outcome, seed, value, *more in columns:
        # What was tried is no replicate of an arm: its runs differ in more than their seeds.
        if phase == TUNE:
            continue
        if outcome not in {"finished", "diverged", "failed"}:
            raise StoreError(f"a replicate of arm {arm!r} has the unknown outcome {outcome!r}")
        if outcome == "finished" and math.isfinite(value):
            yield arm, phase, Replicate(int(seed), "finished", value, *more)
        else:
            # A run that ends without a finite metric did not end well.
            ended: Outcome = "failed" if outcome == "failed" else "diverged"
            yield arm, phase, Replicate(int(seed), ended, math.nan, *more)
