"""From frames to pairs: which arm is compared with which, under which seeds, and which arms are no comparison at all."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from ablate.analysis.family import arm_name
from ablate.analysis.groups import Group
from ablate.analysis.intervals import Floats, rounding, t_quantile
from ablate.analysis.rules import Rules
from ablate.errors import StoreError, StudyError, nearest
from ablate.study.seeds import Phase

REPORT: Phase = "report"
CONFIRM: Phase = "confirm"
TUNE: Phase = "tune"
FIXED: Phase = "fixed"

PHASES: tuple[Phase, ...] = get_args(Phase)

Outcome = Literal["finished", "diverged", "failed"]

SHORTEST_SECONDS = 0.05
"""Times below this say nothing of what an arm costs."""


class Replicate(NamedTuple):
    """One recorded training. value, test: raw; NaN unless finished. weights, trace: digests, None where unknown.

    not_finite: recorded as finished, but its metric is no finite number, which counts as a divergence. reason: why it did not finish.
    """

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
    not_finite: bool = False
    reason: str = ""

    @property
    def finished(self) -> bool:
        return self.outcome == "finished"


def numbers(frame: pd.DataFrame, name: str) -> list[float]:
    """Return a column of a frame as plain numbers; NaN where there is none, and where there is no such column.

    Raises StoreError where it holds something else.
    """
    if name not in frame.columns:
        return [math.nan] * len(frame)
    values: list[float] = number_array(frame, name).tolist()
    return values


def number_array(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column that a frame has as numbers, as `numbers` does."""
    if frame[name].dtype.kind == "c":
        raise StoreError("holds complex numbers, which have no order", place=f"column {name!r}")
    try:
        return np.asarray(frame[name].to_numpy(dtype=float, na_value=math.nan))
    except (TypeError, ValueError) as error:
        raise StoreError(f"holds something that is no number: {error}", place=f"column {name!r}") from error


def texts(frame: pd.DataFrame, name: str) -> list[str]:
    """Return a column of a frame as text; empty where there is none, and where there is no such column.

    (pandas may have turned what is missing into NaN.)
    """
    if name not in frame.columns:
        return [""] * len(frame)
    return [value if isinstance(value, str) else "" for value in frame[name].to_numpy(dtype=object)]


def arm_names(frame: pd.DataFrame) -> list[str]:
    """Return the arm of every row. Raises StoreError where one is neither text nor a whole number."""
    values = frame["arm"].to_numpy(dtype=object)
    unique = pd.unique(values)
    names = dict(zip(unique, names_of(unique), strict=True))
    return [names[value] for value in values]


def names_of(values: Iterable[object]) -> list[str]:
    """Return the name of every value of a column of arms, as `arm_names` does."""
    try:
        return [arm_name(value) for value in values]
    except StudyError as error:
        raise StoreError(error.message, place="column 'arm'", hint=error.hint) from error


def seed_numbers(values: Iterable[object], place: str) -> list[int]:
    """Return seeds as plain ints. pandas may have turned whole numbers into floats.

    place: names the column in the error. Raises StoreError where one is no whole number: replicates are paired by seed.
    """
    seeds = []
    for value in values:
        if isinstance(value, bool | np.bool_) or not isinstance(
            value, int | float | np.integer | np.floating
        ):
            raise _no_seed(value, place)
        if isinstance(value, float | np.floating) and not value.is_integer():
            raise _no_seed(value, place)
        seeds.append(int(value))
    return seeds


def _no_seed(value: object, place: str) -> StoreError:
    return StoreError(
        f"{value!r} is no seed",
        place=place,
        hint="replicates are paired by whole numbers: give replicate i of every arm the same one; runs of arms that "
        "share no seed are no pairs",
    )


def frame_seeds(frame: pd.DataFrame) -> list[int]:
    """Return the seed of every row of a frame of replicates. Raises StoreError where one is no whole number."""
    if frame["seed"].dtype.kind in "iu":
        return list(frame["seed"].tolist())
    return seed_numbers(frame["seed"].to_numpy(dtype=object).tolist(), "column 'seed'")


def refuse_repeated(frame: pd.DataFrame) -> None:
    """Raise StoreError where two columns of a frame have the same name."""
    if repeated := sorted(set(map(str, frame.columns[frame.columns.duplicated()]))):
        raise StoreError(
            "two columns have this name", place=f"column {repeated[0]!r}", hint="drop or rename one of them"
        )


Record = Mapping[int, Replicate]
"""The replicates of one arm in one phase, by seed."""

COLUMNS = ("arm", "seed", "phase", "outcome", "value")
"""Columns that a frame of replicates must have."""


class Ledger:
    """All replicates of a study, by phase, arm and seed. The order of the rows leaves no trace."""

    def __init__(self, replicates: pd.DataFrame) -> None:
        """Read the frame. Raises StoreError where a column is absent, holds what it may not, or two rows are one replicate."""
        if not isinstance(replicates, pd.DataFrame):
            raise StoreError(
                f"the replicates are a {type(replicates).__name__}, not a DataFrame",
                hint="try pandas.DataFrame(…)",
            )
        absent = [c for c in COLUMNS if c not in replicates.columns]
        if absent:
            raise StoreError(
                f"the replicates have no column {', '.join(absent)}",
                hint=f"needed: {', '.join(COLUMNS)}; there: {', '.join(map(str, replicates.columns))}",
            )
        refuse_repeated(replicates)
        self._by_arm: dict[tuple[str, str], dict[int, Replicate]] = {}
        with no_garbage_collection():
            for arm, phase, replicate in _read(replicates):
                record = self._by_arm.get((phase, arm))
                if record is None:
                    record = self._by_arm[phase, arm] = {}
                if replicate.seed in record:
                    raise StoreError(
                        f"arm {arm!r} has two replicates under seed {replicate.seed}",
                        hint="mark all but one of them as superseded in the store",
                    )
                record[replicate.seed] = replicate

    def record(self, arm: str, phase: str = REPORT) -> Record:
        """Return the replicates of an arm in a phase, by seed; empty where there are none."""
        return self._by_arm.get((phase, arm), {})

    def under(self, arms: Iterable[str], seeds: Iterable[int], phase: str = REPORT) -> dict[str, Record]:
        """Return the replicates of some arms under some seeds."""
        wanted = list(seeds)
        records = {arm: self.record(arm, phase) for arm in arms}
        return {arm: {s: record[s] for s in wanted if s in record} for arm, record in records.items()}

    def arms(self, phase: str) -> list[str]:
        """Return the arms that have replicates in a phase, sorted."""
        return sorted(arm for kind, arm in self._by_arm if kind == phase)

    def seeds(self, phase: str = REPORT) -> tuple[int, ...]:
        """Return every seed of a phase, sorted."""
        return tuple(
            sorted({s for (kind, _), record in self._by_arm.items() if kind == phase for s in record})
        )

    def require_reference(self, arm: str, reference: str, declared: Iterable[str]) -> None:
        """Check that an arm is compared with one of the declared arms, or with one that has runs. Raises StoreError."""
        known = list(dict.fromkeys((*declared, *self.arms(REPORT))))
        if reference not in known:
            raise StoreError(
                f"no run of {reference!r}, the reference of the arm {arm!r}",
                place="column 'arm'",
                hint=nearest(reference, [name for name in known if name != arm]),
            )

    def require(self, arms: Iterable[str]) -> None:
        """Check that the arms of the rules are those of the frame, or have no run yet.

        Raises StoreError where one has no run while the frame has runs of an arm that the rules don't name: one of the
        two names is misspelt.
        """
        declared, recorded = list(dict.fromkeys(arms)), self.arms(REPORT)
        unknown = [arm for arm in recorded if arm not in declared]
        for arm in declared:
            if unknown and arm not in recorded:
                raise StoreError(
                    f"no run of the arm {arm!r}, but runs of {', '.join(map(repr, unknown))}, which the rules don't name",
                    place="column 'arm'",
                    hint=nearest(arm, unknown),
                )


@dataclass(frozen=True)
class WeightedGroup:
    """The finished runs of an arm, oriented, with the weight of their mean in what is estimated."""

    arm: str
    weight: float
    runs: Group


@dataclass(frozen=True)
class Sample:
    """What is known of one arm (or effect) under some seeds.

    seeds, differences: the pairs, oriented; none where runs are not paired. groups: the runs where they are not. failed, diverged, missing: of the arm itself, among those seeds.
    copied: two replicates under different seeds are one and the same. unchanged: identical to its reference under
    every seed. unstable: a replicate diverged; hurt_is_safe: dropping it can only have hidden harm, so that `hurts`
    may still be read. reference_diverged: seeds under which the reference did.
    scale: the largest magnitude among the values, the yardstick of rounding errors. shares: where differences are shares of the
    reference's mean, what the reference's runs are of it, about 1, pair by pair; otherwise none.
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
    groups: tuple[WeightedGroup, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def n(self) -> int:
        """Pairs; of groups, the runs of the smallest."""
        return min((group.runs.n for group in self.groups), default=len(self.seeds))

    @property
    def effect(self) -> float | None:
        """The oriented mean difference, or weighted sum of means; None where one of them has no run."""
        if not self.n:
            return None
        if self.groups:
            return math.fsum(group.weight * group.runs.mean for group in self.groups)
        return float(np.mean(self.differences))

    @property
    def noise(self) -> float | None:
        """The standard deviation of a difference, or of a weighted sum of single runs; None below 2."""
        if self.n < 2:
            return None
        if self.groups:
            return math.hypot(*(group.weight * group.runs.std for group in self.groups))
        return float(np.std(self.differences, ddof=1))

    def variance(self, resolution: float) -> float:
        """s², floored at q²/4; NaN below two pairs. Differences that agree to the last digits have none of their own,
        and a resolution in the last digits is none.

        Of shares of the reference's mean, which is itself a mean of these runs, also at least that of the ratio estimator
        (Cochran 1977, Sampling Techniques, 6.3): where the reference did well by chance, the same difference is a smaller share.
        """
        if self.n < 2:
            return math.nan
        variance = max(float(np.var(self.differences, ddof=1)), resolution**2 / 4.0)
        if self.shares:
            differences = np.array(self.differences)
            of_ratio = differences - differences.mean() * np.array(self.shares)
            variance = max(variance, float(np.var(of_ratio, ddof=1)))
        return variance if variance > rounding(self.scale) ** 2 else 0.0


Sampler = Callable[[Sequence[int]], Sample]
"""Seeds of a look → the sample under them."""


def pair(
    arm: Record,
    reference: Record,
    seeds: Iterable[int],
    *,
    sign: float,
    deterministic: bool = False,
    same_arm: bool = False,
) -> Sample:
    """Pair an arm with its reference under the given seeds (the keys of both records).

    sign: +1 where higher is better, −1 where lower is. deterministic: copies across seeds are as they should be.
    same_arm: both are one arm under different seeds (A/A), so that a match between them is a copy, not an override that
    changed nothing. Copies and unchanged arms are recognised by weights or by the loss trace, never by the metric: honest
    ties exist.
    """
    wanted = list(seeds)
    runs = {s: arm[s] for s in wanted if s in arm}
    reference_runs = {s: reference[s] for s in wanted if s in reference}
    finished = {s: r for s, r in runs.items() if r.outcome == "finished"}
    reference_finished = {s: r for s, r in reference_runs.items() if r.outcome == "finished"}
    both = [s for s in finished if s in reference_finished]
    # Apart, not in pairs: a million new objects would set off the garbage collection again and again.
    values = [finished[s].value for s in both]
    reference_values = [reference_finished[s].value for s in both]
    groups = [[*finished.values()], [*reference_finished.values()]]
    if same_arm:
        groups = [groups[0] + groups[1]]
    outcomes = Counter(r.outcome for r in runs.values())
    return Sample(
        seeds=tuple(both),
        differences=tuple(
            sign * (value - other) for value, other in zip(values, reference_values, strict=True)
        ),
        failed=outcomes["failed"],
        diverged=outcomes["diverged"],
        missing=len(wanted) - len(runs),
        copied=not deterministic and any(copies(group) for group in groups),
        unchanged=not same_arm and bool(both) and all(same(finished[s], reference_finished[s]) for s in both),
        unstable=outcomes["diverged"] > 0,
        reference_diverged=tuple(s for s, r in reference_runs.items() if r.outcome == "diverged"),
        scale=max(map(abs, itertools.chain(values, reference_values)), default=0.0),
    )


def not_paired(
    sample: Sample, weights: Mapping[str, float], records: Mapping[str, Record], rules: Rules
) -> Sample:
    """Return a sample with its runs in groups in place of its pairs.

    weights: of each arm's mean in what is estimated. records: of those arms, under the seeds of the look.
    """
    groups = []
    for arm, weight in weights.items():
        finished = [run for run in records[arm].values() if run.finished]
        copied = not rules.deterministic and copies(finished)
        group = Group.of([rules.sign * run.value for run in finished], copied=copied)
        groups.append(WeightedGroup(arm, weight, group))
    return replace(sample, seeds=(), differences=(), groups=tuple(groups))


def copies(replicates: Iterable[Replicate]) -> bool:
    """Return whether two of these finished replicates have identical weights, or identical loss traces."""
    finished = list(replicates)
    for digests in ([r.weights for r in finished], [r.trace for r in finished]):
        recorded = [d for d in digests if d is not None]
        if len(set(recorded)) < len(recorded):
            return True
    return False


def same(one: Replicate, other: Replicate) -> bool:
    """Return whether two finished replicates are one training: by weights where both are known, otherwise by loss trace."""
    if one.weights is not None and other.weights is not None:
        return one.weights == other.weights
    return one.trace is not None and one.trace == other.trace


def mean_of(replicates: Iterable[Replicate], name: str) -> float | None:
    """Return the mean of a field over replicates; None where one of them lacks it, or there is none."""
    values = list(map(operator.attrgetter(name), replicates))
    return float(np.mean(values)) if values and all(map(math.isfinite, values)) else None


def typical_seconds(replicates: Iterable[Replicate]) -> float | None:
    """Return the median time of a replicate: the first run of a process pays for imports that the others don't.

    None where one is unknown, or where the times are too short to be distinguished from overhead.
    """
    values = [replicate.seconds for replicate in replicates]
    if not values or not all(map(math.isfinite, values)):
        return None
    middle = float(np.median(values))
    return middle if middle >= SHORTEST_SECONDS else None


def ratio(arm: float | None, reference: float | None) -> float | None:
    """Return arm / reference; None where one is unknown or the reference is zero."""
    return arm / reference if arm is not None and reference is not None and reference > 0 else None


SAME_TIME = 1.1
"""Ratio of times up to which nobody would speak of a difference."""


def time_ratio(arm: Sequence[Replicate], reference: Sequence[Replicate]) -> float | None:
    """Return the typical time of an arm's runs over the reference's; None where their spread leaves open whether they differ.

    That is where its 95 % interval (Welch's, of logarithms) holds 1 and a ratio beyond `SAME_TIME`: a machine that does other things,
    and runs of less than a second, make such ratios out of nothing.
    """
    found = ratio(typical_seconds(arm), typical_seconds(reference))
    if found is None or min(len(arm), len(reference)) < 2:
        return None
    logs = [np.log([max(r.seconds, 1e-9) for r in runs]) for runs in (arm, reference)]
    parts = [float(np.var(values, ddof=1)) / len(values) for values in logs]
    middle, variance = float(np.mean(logs[0]) - np.mean(logs[1])), sum(parts)
    half = 0.0
    if variance > 0.0:
        freedom = variance**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, logs, strict=True))
        half = float(t_quantile(0.975, np.array(freedom))) * math.sqrt(variance)
    low, high, same = middle - half, middle + half, math.log(SAME_TIME)
    return found if low > 0.0 or high < 0.0 or (-same <= low and high <= same) else None


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect no garbage for a while: a million new objects, none of them in a circle, set it off again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(frame: pd.DataFrame) -> Iterator[tuple[str, str, Replicate]]:
    """(arm, phase, replicate) of every row, in their order."""
    rest: tuple[list[Any], ...] = (
        numbers(frame, "test"),
        *([text or None for text in texts(frame, name)] for name in ("weights", "trace")),
        *(numbers(frame, name) for name in ("seconds", "flops", "parameters", "epochs")),
    )
    arms, phases, outcomes = arm_names(frame), texts(frame, "phase"), texts(frame, "outcome")
    reasons = texts(frame, "reason")
    seeds, values = frame_seeds(frame), numbers(frame, "value")
    for arm, phase, outcome, seed, value, reason, figures in zip(
        arms, phases, outcomes, seeds, values, reasons, zip(*rest, strict=True), strict=True
    ):
        # What was tried is no replicate of an arm: its runs differ in more than their seeds.
        if phase == TUNE:
            continue
        if phase not in PHASES:
            raise StoreError(
                f"a replicate of arm {arm!r} has the unknown phase {phase!r}",
                place="column 'phase'",
                hint=f"verdicts are read from 'report'; phases are {', '.join(PHASES)}",
            )
        if outcome not in {"finished", "diverged", "failed"}:
            raise StoreError(
                f"a replicate of arm {arm!r} has the unknown outcome {outcome!r}",
                place="column 'outcome'",
                hint="outcomes are finished, diverged and failed",
            )
        if outcome == "finished" and math.isfinite(value):
            yield arm, phase, Replicate(seed, "finished", value, *figures)
        else:
            # A run that ends without a finite metric did not end well.
            ended: Outcome = "failed" if outcome == "failed" else "diverged"
            not_finite = outcome == "finished"
            replicate = Replicate(seed, ended, math.nan, *figures)
            yield arm, phase, replicate._replace(not_finite=not_finite, reason=reason)
