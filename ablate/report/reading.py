"""A study's material with what every part of its report needs: units, labels, anchors, and references."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.analysis import words
from ablate.analysis.contents import Analysis, BlockedAnalysis, Comparison, Effect
from ablate.analysis.family import Terms
from ablate.analysis.grids import Grids
from ablate.analysis.rules import Rules
from ablate.figure_files import LoggedFigures
from ablate.report import wording
from ablate.report.contents import Interval, Tracking
from ablate.study.record import ArmRecord, PlanRecord
from ablate.study.seeds import NOISE_FLOOR
from ablate.text import joined, measured

REPORT = "report"


@dataclass(frozen=True)
class Material:
    """Everything a report is made from.

    record: the recorded plan. analysis: of its replicates. replicates: a row per recorded replicate
    (arm, seed, phase, outcome, value, test, seconds, flops, parameters, epochs, run_id, weights, trace, device, torch,
    fused, reason, source_run; all but the first five may be absent). curves: long (arm, seed, phase, epoch, metric,
    value), or their `grids`. confusion: arm → (classes, classes) counts on the test images, summed over seeds, rows the truth.
    environment: name → what the study ran in (`command`, `commit`, versions, date). correct: arm → whether each test image was
    classified correctly (index: seeds, columns: positions of the images); only arms that see the same images as their reference. truth: (images,) their classes. pixels: (N, C, H, W) uint8, all test images, where they are available. tracking: the
    server that shows the runs, if there is one. blocked: of results in blocks, the analysis within each; `analysis` is over them.
    notes: of results that were there already, what to know before trusting a verdict. damaged: what of the record could not be
    read, and is left out, in sentences. figures: that the user's own training logged.
    """

    record: PlanRecord
    analysis: Analysis
    replicates: pd.DataFrame
    curves: pd.DataFrame | Grids = field(default_factory=pd.DataFrame)
    confusion: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    correct: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    truth: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pixels: npt.NDArray[np.uint8] | None = None
    tracking: Tracking | None = None
    blocked: BlockedAnalysis | None = None
    notes: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    figures: LoggedFigures | None = None


class Reading:
    """Made once from a material, and handed to everything that writes a part of the report."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.record = material.record
        self.analysis = material.analysis
        self.rules: Rules = material.analysis.rules
        scale = self.rules.scale(material.analysis.baseline.mean)
        self.factor, self.unit = scale.factor, scale.unit
        self.margin = self.rules.margin * self.factor
        self.digits = wording.decimals(self.margin)
        self.value_factor, self.value_unit = self.factor, "%" if scale.unit == "points" else scale.unit
        self.difference_factor, self.value_digits = self.factor, self.digits
        if self.rules.relative:
            # Effects are shares of the baseline's mean, and the metric itself is what it was.
            mean = abs(material.analysis.baseline.mean or 1.0)
            self.value_factor, self.value_unit = 1.0, ""
            self.difference_factor = self.factor / mean
            self.value_digits = wording.decimals(self.rules.margin * mean)
        self.arms: dict[str, ArmRecord] = {arm.name: arm for arm in self.record.arms}
        # The baseline is the first of the references; only some arms are compared with the further ones.
        self.others = tuple(s for s in self.analysis.references if s.arm != self.rules.reference)
        self._labels: dict[str, str] = {}
        self.anchors = {arm: f"arm-{i}" for i, arm in enumerate(self.arms)}
        self.fits = {s.arm: s.fit for s in (self.analysis.baseline, *self.others, *self.analysis.cells)}
        self.fits |= {c.arm: c.fit for c in self.analysis.comparisons}
        self.replicates = material.replicates
        self.report = self.replicates[self.replicates["phase"] == REPORT]
        self.outcomes: dict[str, dict[int, tuple[str, float]]] = {}
        columns = (self.report[name].to_numpy(dtype=object) for name in ("arm", "seed", "outcome", "value"))
        for arm, seed, outcome, value in zip(*columns, strict=True):
            self.outcomes.setdefault(str(arm), {})[int(seed)] = (str(outcome), float(value))

    @property
    def margin_words(self) -> str:
        """The margin with its unit: "0.5 points"."""
        return measured(wording.trimmed(self.margin, self.digits), self.unit)

    def shown(self, value: float | None) -> float | None:
        """Return an effect in shown units."""
        return None if value is None or not math.isfinite(value) else value * self.factor

    def shown_value(self, value: float | None) -> float | None:
        """Return a value of the metric itself in shown units."""
        return None if value is None or not math.isfinite(value) else value * self.value_factor

    def label(self, arm: str) -> str:
        """Return how an arm is called in the report."""
        if arm not in self._labels:
            self._labels[arm] = self._label(arm)
        return self._labels[arm]

    def _label(self, arm: str) -> str:
        fixed_names = {"baseline": "Baseline", "full": "Full", NOISE_FLOOR: "A/A: the baseline again"}
        if arm in fixed_names:
            return fixed_names[arm]
        if not self.rules.factorial:
            return words.label(arm, self.rules)
        base = self.levels(self.rules.reference)
        changed = [
            words.setting(factor, level)
            for factor, level in self.levels(arm).items()
            if level != base.get(factor)
        ]
        return words.capitalized(joined(changed)) if changed else arm

    def levels(self, arm: str) -> Mapping[str, Any]:
        """Return factor → its level in this arm."""
        return self.arms[arm].levels if arm in self.arms else {}

    def subject(self, subject: str | Terms | None) -> str | None:
        """Return what the arm or the effect of a caution is called; None for the whole study."""
        if subject is None:
            return None
        return self.label(subject) if isinstance(subject, str) else words.effect_label(subject)

    def the(self, arm: str) -> str:
        """Return a reference within a sentence."""
        return {"baseline": "the baseline", "full": "the full arm"}.get(arm, self.label(arm))

    @property
    def items(self) -> tuple[Comparison | Effect, ...]:
        """Everything that has a verdict, in the order of the plan."""
        return (*self.analysis.comparisons, *self.analysis.effects)

    def interval(self, item: Comparison | Effect) -> Interval:
        estimate = item.effect if isinstance(item, Comparison) else item.estimate
        images = item.ci_new_images if isinstance(item, Comparison) else None
        return Interval(
            self.shown(estimate),
            self.shown(item.lo),
            self.shown(item.hi),
            item.verdict,
            self.shown(images[0]) if images else None,
            self.shown(images[1]) if images else None,
        )

    def values(self, arm: str) -> tuple[tuple[int, float], ...]:
        """(seed, value) of an arm's finished report replicates, in shown units."""
        by_seed = sorted(self.outcomes.get(arm, {}).items())
        return tuple(
            (s, v * self.value_factor) for s, (o, v) in by_seed if o == "finished" and math.isfinite(v)
        )

    def copied(self) -> list[bool]:
        """Return whether a replicate was taken from an earlier study, for every row of the frame."""
        if "source_run" not in self.replicates.columns:
            return [False] * len(self.replicates)
        return [isinstance(source, str) and bool(source) for source in self.replicates["source_run"]]


def trouble(failed: int, diverged: int, missing: int) -> str:
    """Return what went wrong with an arm's runs: "2 diverged and 1 failed"; nothing where nothing did."""
    parts = [
        f"{n} {word}" for n, word in ((diverged, "diverged"), (failed, "failed"), (missing, "missing")) if n
    ]
    return joined(parts) if parts else ""
