"""What a plan fixes before its first run: metric, margin, arms, looks, and the error that each look may spend.

Nothing here is estimated. The family (`Rules.k`) and the error of every look are functions of the plan alone, so they
cannot move when results come in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablate.errors import StudyError, nearest

AA_ARM = "A/A"
"""Name of the arm that is the baseline under other seeds: a check of the noise floor, outside the family."""

AA_OFFSET = 1000
"""A/A replicate i trains under seed AA_OFFSET + i and is held against the baseline's seed i."""

ALPHA = 0.05
"""Chance of any false claim in a study, over all arms and all looks."""

DECLARED_ALPHA, UNDECLARED_ALPHA = 0.045, 0.005
"""The parts of ALPHA that the declared looks, and the undeclared ones, share."""

FACTORIAL = ("factorial", "fractional")

_RATES = {"accuracy", "precision", "recall", "f1"}


@dataclass(frozen=True)
class Scale:
    """How a metric is said: value × factor, then `unit` ("points" for accuracies in [0, 1], else nothing)."""

    factor: float
    unit: str


def scale(metric: str, margin: float, value: float | None) -> Scale:
    """Points for accuracy, precision, recall and F1 in [0, 1]; other metrics in their own units.

    value: one of the metric where one is at hand: one above 1 says that the metric is in percent already.
    """
    words = set(metric.rpartition("/")[2].split("_"))
    in_unit_range = margin < 0.5 and (value is None or -1.0 <= value <= 1.0)
    return Scale(100.0, "points") if words & _RATES and in_unit_range else Scale(1.0, "")


@dataclass(frozen=True)
class Look:
    """One time at which verdicts are read. pairs: total pairs per arm. alpha: error spent here, over the family."""

    index: int  # 1, 2, … in the order of `pairs`
    pairs: int
    alpha: float
    declared: bool


@dataclass(frozen=True)
class ArmRule:
    """An arm as the plan declares it.

    factor: the dotted path (or the name of a zipped factor) that the arm changes; None where it has no single one.
    level: the scalar it is set to, or {path: value} where several are. In factorial designs every cell has such a
    mapping; a path that is absent, or at `Rules.baseline_levels`, stands at the baseline's level.
    reference: the arm it is compared with, where that is not the study's (a design of both kinds has two).
    """

    name: str
    factor: str | None = None
    level: Any = None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything about a study that its verdicts depend on, besides the results.

    metric: the primary metric, e.g. `val/accuracy`. margin: δ > 0, the smallest difference worth having, in the
    metric's units. resolution: q ≥ 0, the metric's step (1/N_val for accuracies; 0: continuous).
    looks: declared numbers of pairs, increasing. extra_looks: total pairs of the undeclared looks taken so far, in the
    order they were taken. arms: the declared arms without reference and A/A, in the order of the report.
    seeds: the planned report seeds in order; empty: those found, sorted. baseline_levels: {path: value} of the baseline
    for the factors. deterministic: the training is meant to ignore its seed. confirm_seeds: fresh seeds planned for the
    winner. retunes: how often the nuisance factors were tuned independently; 0: not at all.
    path: the configurations that a greedy path has come to, in order; steps: how many it will come to. edges: every
    comparison that it might have come to make, whatever the results; they are its family, because which of them are made
    depends on the results that they are judged by. typical: a value of the metric, where one is known: it tells an accuracy of
    0.8 from one of 80.

    Raises StudyError where these contradict themselves.
    """

    metric: str
    margin: float
    looks: tuple[int, ...]
    arms: tuple[ArmRule, ...]
    direction: Literal["maximize", "minimize"] = "maximize"
    resolution: float = 0.0
    extra_looks: tuple[int, ...] = ()
    reference: str = "baseline"
    design: str = "one-at-a-time"
    deterministic: bool = False
    seeds: tuple[int, ...] = ()
    baseline_levels: Mapping[str, Any] = field(default_factory=dict)
    confirm_seeds: int = 0
    retunes: int = 0
    path: tuple[str, ...] = ()
    steps: int = 0
    edges: int = 0
    typical: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in {"maximize", "minimize"}:
            raise StudyError(
                f"a metric is to be maximized or minimized, not {self.direction!r}",
                place="direction",
                hint=nearest(str(self.direction), ["maximize", "minimize"]),
            )
        if not (math.isfinite(self.margin) and self.margin > 0):
            raise StudyError(f"the margin must be a positive number, not {self.margin!r}", place="margin")
        if not (math.isfinite(self.resolution) and self.resolution >= 0):
            raise StudyError(
                f"the resolution must be zero or more, not {self.resolution!r}", place="resolution"
            )
        if (
            not self.looks
            or self.looks[0] < 1
            or any(b <= a for a, b in zip(self.looks, self.looks[1:], strict=False))
        ):
            raise StudyError(
                f"looks are increasing numbers of seeds, not {list(self.looks)}",
                place="seeds",
                hint="write `seeds: {initial: 5, max: 10}`, a list such as [3, 5, 8], or one number",
            )
        taken = sorted((*self.looks, *self.extra_looks))
        if list(self.extra_looks) != sorted(self.extra_looks) or len(set(taken)) != len(taken):
            raise StudyError(
                f"every look needs more seeds than the one before it: declared {list(self.looks)}, "
                f"undeclared {list(self.extra_looks)}",
                place="seeds",
            )
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise StudyError(
                f"two arms have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}"
            )
        if AA_ARM in names or any(arm.name == self.reference_of(arm) for arm in self.arms):
            raise StudyError("the reference and A/A are not arms of the family: they get no verdict")

    def scale(self, mean: float | None = None) -> Scale:
        """How the primary metric is said, where its values lie about `mean`, or about `typical`."""
        return scale(self.metric, self.margin, self.typical if mean is None else mean)

    @property
    def sign(self) -> float:
        """+1 or −1: what turns a raw difference into one where higher is better."""
        return 1.0 if self.direction == "maximize" else -1.0

    @property
    def factorial(self) -> bool:
        """Verdicts are about effects, each from every run; the cells get none."""
        return self.design in FACTORIAL

    @property
    def mixed(self) -> bool:
        """Arms get verdicts, and so do the interactions that follow from them."""
        return self.design == "both"

    @property
    def walking(self) -> bool:
        """A greedy path that has not come to its end: what it will be judged by is not all there."""
        return len(self.path) < self.steps

    @property
    def k(self) -> int:
        """Size of the family: declared arms, or effects in a factorial design. It never shrinks."""
        if self.edges:
            return self.edges
        found = 0 if self.factorial else len(self.arms)
        if self.factorial or self.mixed:
            from ablate.analysis.effects import contrasts

            found += len(contrasts(self))
        return max(1, found)

    def arm(self, name: str) -> ArmRule:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise StudyError(f"no arm {name!r} in this study", hint=nearest(name, [a.name for a in self.arms]))

    def reference_of(self, arm: ArmRule | str) -> str:
        """Name of the arm that this one is compared with."""
        rule = self.arm(arm) if isinstance(arm, str) else arm
        return rule.reference or self.reference

    def schedule(self) -> tuple[Look, ...]:
        """Declared looks and the undeclared ones taken, by number of pairs, each with the error it spends."""
        return schedule(self.looks, self.extra_looks)

    def look_after(self, index: int) -> Look:
        """The look after the index-th (0: the first). After the last, the next undeclared one, with pairs = 0."""
        looks = self.schedule()
        if index < len(looks):
            return looks[index]
        return Look(index + 1, 0, extra_alpha(len(self.extra_looks) + 1), declared=False)


def declared_alphas(looks: tuple[int, ...]) -> tuple[float, ...]:
    """Error spent by each declared look: in proportion to n_j² − n_{j−1}², DECLARED_ALPHA in all."""
    last = looks[-1] ** 2
    return tuple(
        DECLARED_ALPHA * (now**2 - before**2) / last for before, now in zip((0, *looks), looks, strict=False)
    )


def extra_alpha(i: int) -> float:
    """Error spent by the i-th undeclared look (i = 1, 2, …): halving, so that any number of them stays affordable."""
    return UNDECLARED_ALPHA / 2.0**i


def schedule(looks: tuple[int, ...], extra_looks: tuple[int, ...] = ()) -> tuple[Look, ...]:
    """Every look in the order of its number of pairs, with the error it spends."""
    declared = [(n, alpha, True) for n, alpha in zip(looks, declared_alphas(looks), strict=True)]
    extra = [(n, extra_alpha(i), False) for i, n in enumerate(extra_looks, start=1)]
    return tuple(
        Look(i, n, alpha, kind) for i, (n, alpha, kind) in enumerate(sorted(declared + extra), start=1)
    )
