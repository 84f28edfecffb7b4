"""What a plan fixes before its first run: metric, margin, arms, looks, and the error that each look may spend.

Nothing here is estimated. The family (`Rules.k`) and the error of every look are functions of the plan alone, so they
cannot move when results come in.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from ablate import metrics
from ablate.analysis.family import FACTORIAL, ArmRule, Contrast, arm_name, contrasts
from ablate.errors import StudyError, nearest
from ablate.metrics import Direction, JudgedOn
from ablate.study.record import Design
from ablate.study.seeds import NOISE_FLOOR

ALPHA = 0.05
"""Probability of any false claim in a study, over all arms and all looks."""

DECLARED_ALPHA, EXTRA_ALPHA = 0.045, 0.005
"""The parts of ALPHA that looks within the most seeds, and extra ones beyond them, share."""

DESIGNS: tuple[Design, ...] = get_args(Design)

_RATES = {"accuracy", "precision", "recall", "f1"}


@dataclass(frozen=True)
class Scale:
    """How a metric is shown: value × factor, then `unit` ("points" for accuracies in [0, 1], "% of the baseline", or nothing)."""

    factor: float
    unit: str


def scale(metric: str, margin: float, value: float | None) -> Scale:
    """Return points for accuracy, precision, recall and F1 in [0, 1]; for other metrics their own units.

    value: one of the metric where one is known: one above 1 says that the metric is in percent already.
    """
    words = set(metric.rpartition("/")[2].split("_"))
    in_unit_range = margin < 0.5 and (value is None or -1.0 <= value <= 1.0)
    return Scale(100.0, "points") if words & _RATES and in_unit_range else Scale(1.0, "")


@dataclass(frozen=True)
class Look:
    """One time at which verdicts are read. pairs: total pairs per arm. alpha: error spent here, over the family.

    declared: within the most pairs that were declared before anything was judged; otherwise it is an extra look.
    """

    index: int  # 1, 2, … in the order of `pairs`
    pairs: int
    alpha: float
    declared: bool


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Everything about a study that its verdicts depend on, besides the results.

    metric: the primary metric, e.g. `val/accuracy`. margin: δ > 0, the smallest difference worth having, in the metric's
    units. direction: whether more (`maximize`) or less (`minimize`) of the metric is better; None: what its name says
    (`ablate.metrics`), which must then be known. resolution: q ≥ 0, the metric's step (1/N_val for accuracies; 0:
    continuous). looks: total pairs at each look, increasing: those taken and those that were asked for. most: the most pairs, N,
    which were declared before anything was judged; 0: those of the last look. Looks beyond it are extra ones. arms: the declared arms without reference and A/A, in the order of the report.
    seeds: the planned report seeds in order; empty: those of the frame, sorted. baseline_levels: {path: value} of the
    baseline for the factors. deterministic: the training is meant to ignore its seed. confirm_seeds: fresh seeds planned
    for the winner. retunes: how often the nuisance factors were tuned independently; 0: not at all.
    path: the configurations that a greedy path has come to, in order; steps: how many it will come to. edges: every
    comparison that it might have come to make, whatever the results; they are its family, because which of them are made
    depends on the results that they are judged by. typical: a value of the metric, where one is known: it tells an
    accuracy of 0.8 from one of 80. unit: what `n` counts: seeds under which arms are paired, runs that are not paired, or
    blocks (tasks, data sets) within which they are. planned: whether arms, margin and numbers of runs were fixed before the
    results were known; if not, the first look spends ALPHA, every further one is an extra look, and any metric may be read.
    family: its size where it is larger than the arms say; 0: what they say. relative: differences, margin and resolution are
    shares of the baseline's mean. earlier_looks: at results that nobody planned, the looks before the first of these: the first
    of all spends ALPHA, look i after it `extra_alpha(i)`. read_before: how many other
    plans have judged runs of this one. judged_on: the data that the metric is measured on. has_study_file: whether there is a
    study whose keys can be changed; results of others have none.

    Numbers may be numpy's, and arms may be called by whole numbers. Raises StudyError where these contradict themselves.
    """

    metric: str
    margin: float
    looks: tuple[int, ...]
    arms: tuple[ArmRule, ...]
    direction: Direction | None = None
    resolution: float = 0.0
    most: int = 0
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
    unit: Literal["seed", "run", "block"] = "seed"
    planned: bool = True
    family: int = 0
    relative: bool = False
    earlier_looks: int = 0
    read_before: int = 0
    judged_on: JudgedOn = "validation"
    has_study_file: bool = True

    def __post_init__(self) -> None:
        def fix(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        fix("reference", arm_name(self.reference))
        fix("arms", _arms(self.arms))
        if self.design not in DESIGNS:
            raise StudyError(
                f"{self.design!r} is not a design", place="design", hint=nearest(str(self.design), DESIGNS)
            )
        if not self.planned and metrics.reads_test_set(str(self.metric)):
            fix("judged_on", "test")
        fix("direction", _direction(self.metric, self.direction, judged_on=self.judged_on))
        fix("margin", _number(self.margin, "margin"))
        fix("resolution", _number(self.resolution, "resolution"))
        fix("looks", _counts(self.looks, "seeds"))
        fix("seeds", _counts(self.seeds, "seeds"))
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
        [most] = _counts(self.most, "seeds")
        if most < 0:
            raise StudyError(f"the most seeds must be 1 or more, not {most}", place="seeds")
        fix("most", (most or self.looks[-1]) if self.planned else self.looks[0])
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise StudyError(
                f"two arms have the same name: {sorted(n for n in set(names) if names.count(n) > 1)}"
            )
        if NOISE_FLOOR in names or any(arm.name == self.reference_of(arm) for arm in self.arms):
            raise StudyError("the reference and A/A are not arms of the family: they get no verdict")
        if self.family and self.family < self._judged:
            raise StudyError(
                f"a family of {self.family} is too small for {self._judged} comparisons",
                place="k",
                hint="k counts every comparison that was looked at, the ones that are left out among them",
            )

    def scale(self, mean: float | None = None) -> Scale:
        """Return how the primary metric is shown, where its values lie about `mean`, or about `typical`."""
        if self.relative:
            return Scale(100.0, "% of the baseline")
        return scale(self.metric, self.margin, self.typical if mean is None else mean)

    @property
    def is_against_its_name(self) -> bool:
        """Whether the direction is not the one that the metric's name says."""
        return metrics.direction(self.metric) not in (None, self.direction)

    @property
    def sign(self) -> float:
        """+1 or −1: what turns a raw difference into one where higher is better."""
        return 1.0 if self.direction == "maximize" else -1.0

    @property
    def paired(self) -> bool:
        """Each replicate is compared with one of its reference; otherwise arms are groups of runs that share nothing."""
        return self.unit != "run"

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

    @functools.cached_property
    def contrasts(self) -> tuple[Contrast, ...]:
        """The effects that get verdicts; none in designs whose verdicts are about arms alone.

        Raises StudyError where a cell does not say its levels.
        """
        return contrasts(
            self.arms, reference=self.reference, design=self.design, baseline_levels=self.baseline_levels
        )

    @property
    def k(self) -> int:
        """Size of the family: declared arms, effects in a factorial design, or both. It never shrinks."""
        return max(1, self.family or self._judged)

    @property
    def _judged(self) -> int:
        return self.edges or (0 if self.factorial else len(self.arms)) + len(self.contrasts)

    def arm(self, name: str) -> ArmRule:
        """Return the rule of an arm. Raises StudyError where there is none of this name."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise StudyError(
            f"no arm {name!r} in this study",
            place="arms",
            hint=nearest(str(name), [a.name for a in self.arms]),
        )

    def reference_of(self, arm: ArmRule | str) -> str:
        """Return the name of the arm that this one is compared with."""
        rule = self.arm(arm) if isinstance(arm, str) else arm
        return rule.reference or self.reference

    def schedule(self) -> tuple[Look, ...]:
        """Return the looks in order, each with the error it spends."""
        looks = schedule(self.looks, self.most)
        if self.planned:
            return looks
        return tuple(replace(look, alpha=self.unplanned_alpha) if look.declared else look for look in looks)

    @property
    def spent(self) -> float:
        """The error over all looks of the schedule."""
        return math.fsum(look.alpha for look in self.schedule())

    @property
    def unplanned_alpha(self) -> float:
        """The error that the look at results that nobody planned spends."""
        return extra_alpha(self.earlier_looks) if self.earlier_looks else ALPHA

    def last_look(self) -> Look:
        """Return the look at the most pairs; where none was asked for there, with what one after the others would spend."""
        before = tuple(pairs for pairs in self.looks if pairs < self.most)
        last = schedule((*before, self.most), self.most)[-1]
        return last if self.planned else replace(last, alpha=self.unplanned_alpha)

    def look_after(self, index: int) -> Look:
        """Return the look after the index-th (0: the first). After the last: one that nobody asked for yet, with pairs = 0."""
        looks = self.schedule()
        return looks[index] if index < len(looks) else replace(self.settling_look(index), pairs=0)

    def settling_look(self, index: int) -> Look:
        """Return the look at whose error it is said what would settle an arm that is open after the index-th (0: before all).

        The one at the most pairs, as long as it lies ahead; after that the next extra one, with pairs = 0.
        """
        taken = self.looks[:index]
        if not taken or taken[-1] < self.most:
            return self.last_look()
        extra = self.earlier_looks + sum(pairs > self.most for pairs in taken) + 1
        return Look(index + 1, 0, extra_alpha(extra), declared=False)


def _arms(arms: object) -> tuple[ArmRule, ...]:
    if isinstance(arms, str) or not isinstance(arms, Iterable):
        raise StudyError(f"{arms!r} is no list of arms", place="arms", hint="write `arms=(ArmRule('…'), …)`")
    rules = tuple(arms)
    for arm in rules:
        if not isinstance(arm, ArmRule):
            raise StudyError(f"{arm!r} is no ArmRule", place="arms", hint=f"write `ArmRule({arm!r})`")
    return rules


def _direction(metric: object, direction: object, *, judged_on: JudgedOn) -> Direction:
    """Return the direction as given, or as the metric's name says it."""
    if not isinstance(metric, str) or not metric:
        raise StudyError(f"{metric!r} cannot name a metric", place="metric")
    if judged_on != "test" and metrics.reads_test_set(metric):
        raise StudyError(
            f"{metric!r} would choose arms by the test set",
            place="metric",
            hint="choose on validation data, for example val/accuracy; without any, say judged_on='test'",
        )
    if direction is None:
        by_name = metrics.direction(metric)
        if by_name is None:
            raise StudyError(
                f"the name {metric!r} does not say whether more or less of it is better",
                place="direction",
                hint="write direction='maximize' or direction='minimize'",
            )
        return by_name
    for allowed in metrics.DIRECTIONS:
        if direction == allowed:
            return allowed
    raise StudyError(
        f"a metric is to be maximized or minimized, not {direction!r}",
        place="direction",
        hint=nearest(str(direction), metrics.DIRECTIONS),
    )


def _number(value: object, place: str) -> float:
    """Return a number as a plain float, numpy's too. Raises StudyError for anything else, text and booleans among it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise StudyError(f"the {place} must be a number, not {value!r}", place=place)
    # The decimal digits of a short float of numpy: 0.005, not 0.004999999888.
    return float(str(value)) if hasattr(value, "dtype") else float(value)


def _counts(values: object, place: str) -> tuple[int, ...]:
    """Whole numbers as plain ints; a single one is a list of one. Raises StudyError for anything else."""
    if isinstance(values, numbers.Integral) and not isinstance(values, bool):
        return (int(values),)
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise StudyError(f"should be whole numbers, not {values!r}", place=place)
    whole = list(values)
    for value in whole:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise StudyError(f"should be whole numbers, not {value!r}", place=place)
    return tuple(int(value) for value in whole)


def declared_alpha(pairs: int, before: int, most: int) -> float:
    """Return the error spent by a look after one at `before` pairs (0: none), wherever the two are within the most pairs.

    The looks to `most` share DECLARED_ALPHA in proportion to the growth of n², so that the next one can be chosen freely.
    """
    return DECLARED_ALPHA * (pairs**2 - before**2) / most**2


def extra_alpha(i: int) -> float:
    """Return the error spent by the i-th look beyond the most pairs (i = 1, 2, …): halving, so that any number stays affordable."""
    return EXTRA_ALPHA / 2.0**i


def schedule(looks: tuple[int, ...], most: int = 0) -> tuple[Look, ...]:
    """Return each look with the error it spends. looks: their pairs, increasing. most: the most pairs; 0: those of the last."""
    most = most or looks[-1]
    within = sum(pairs <= most for pairs in looks)
    return tuple(
        Look(i, pairs, declared_alpha(pairs, before, most), declared=True)
        if i <= within
        else Look(i, pairs, extra_alpha(i - within), declared=False)
        for i, (before, pairs) in enumerate(zip((0, *looks), looks, strict=False), start=1)
    )
