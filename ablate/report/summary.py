"""What a report says, as data: an analysis and its frames become groups of findings, tables, curves and words.

Nothing here draws. The page and the exports only lay out what stands in a `Summary`. Effects and intervals are in shown
units (points for accuracies) and oriented, so that higher is better; raw means are as the metric is written, in percent
for accuracies.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.analysis import words
from ablate.analysis.rules import AA_ARM, Rules
from ablate.analysis.verdict import Analysis, Comparison, Effect, undecided
from ablate.analysis.verdict import Summary as Figures
from ablate.report import wording

REPORT = "report"
MOST_EPOCHS = 240
"""Points a curve is thinned to: more than a screen shows."""

FAR = 3.0
"""A value this many times beyond the others is let run off the scale, so that the others can be read."""


@dataclass(frozen=True)
class Material:
    """Everything a report is made from.

    record: the recorded plan (`Plan.record()`). analysis: of its replicates. replicates: a row per recorded replicate
    (arm, seed, phase, outcome, value, test, seconds, flops, parameters, epochs, run_id, weights, trace, device, torch,
    fused, reason, source_run; all but the first five may be absent). curves: long (arm, seed, phase, epoch, metric,
    value). confusion: arm → (classes, classes) counts on the test images, summed over seeds, rows the truth.
    environment: name → what the study ran in (`command`, `commit`, versions, date).
    """

    record: Mapping[str, Any]
    analysis: Analysis
    replicates: pd.DataFrame
    curves: pd.DataFrame
    confusion: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Notice:
    """Something to know before reading on."""

    kind: Literal["error", "provisional", "warning"]
    text: str


@dataclass(frozen=True)
class Axis:
    """The scale shared by all intervals, in shown units. cut: something runs off it."""

    low: float
    high: float
    margin: float
    unit: str
    digits: int
    ticks: tuple[float, ...]
    cut: bool = False


@dataclass(frozen=True)
class Interval:
    """An effect with its interval, in shown units. images_lo, images_hi: the wider interval, for new images."""

    estimate: float | None
    lo: float | None
    hi: float | None
    verdict: str
    images_lo: float | None = None
    images_hi: float | None = None


@dataclass(frozen=True)
class Finding:
    """A verdict in words. subject: how the sentence begins, where it does. anchor: of the evidence on the page."""

    arm: str
    label: str
    subject: str
    sentence: str
    verdict: str
    interval: Interval
    notes: tuple[str, ...]
    anchor: str


@dataclass(frozen=True)
class Group:
    """Findings of one kind. meaning: what being in this group says."""

    key: str
    title: str
    meaning: str
    findings: tuple[Finding, ...]


Kind = Literal["baseline", "arm", "effect", "A/A", "confirmation"]


@dataclass(frozen=True)
class Row:
    """A line of the table of arms. Effects in shown units; mean, sd, test of the metric itself, in shown units too."""

    kind: Kind
    arm: str
    label: str
    anchor: str
    verdict: str
    interval: Interval
    p: float | None
    n: int
    mean: float | None = None
    sd: float | None = None
    test: float | None = None
    test_effect: float | None = None
    cost_ratio: float | None = None
    cost_is_time: bool = False
    parameter_ratio: float | None = None
    seconds: float | None = None
    parameters: float | None = None
    fit: tuple[str, ...] = ()
    trouble: str = ""
    levels: tuple[tuple[str, str], ...] = ()
    present: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Level:
    """One level of a factor with every seed's value, in shown units. x: where it stands, None on a named axis."""

    text: str
    x: float | None
    arm: str
    label: str
    mean: float | None
    dots: tuple[tuple[int, float], ...]
    verdict: str | None
    trouble: str = ""


@dataclass(frozen=True)
class Response:
    """The metric over the levels of a factor. scale: of the level axis. band: the reference's mean ± margin."""

    title: str
    metric: str
    unit: str
    digits: int
    scale: Literal["linear", "log", "named"]
    levels: tuple[Level, ...]
    band: tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """Mean over seeds by epoch, between the lowest and the highest seed."""

    split: Literal["train", "validation", ""]
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    percent: bool = False


@dataclass(frozen=True)
class ArmCurves:
    """overfits: the epoch from which the arm over-fits, where it was found to."""

    arm: str
    label: str
    lines: tuple[Line, ...]
    overfits: int | None = None


@dataclass(frozen=True)
class Curves:
    """One quantity (loss, accuracy, …) over training, for a reference and the arms held against it.

    low, high: range to show, narrower than the data where `cut`.
    """

    quantity: str
    unit: str
    reference: ArmCurves | None
    arms: tuple[ArmCurves, ...]
    low: float
    high: float
    log: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Pairs:
    """The evidence itself: the reference's value under each seed, and what each arm adds to it there.

    cells: text where there is no number (`failed`, `diverged`, …).
    """

    seeds: tuple[int, ...]
    reference: str
    values: tuple[float | str, ...]
    rows: tuple[tuple[Row, tuple[float | str, ...]], ...]


@dataclass(frozen=True)
class Section:
    """A factor and what is known of it. remarks: (arm, what its curves show)."""

    anchor: str
    title: str
    code: str
    intro: str
    remarks: tuple[tuple[str, str], ...]
    response: Response | None
    curves: tuple[Curves, ...]
    pairs: Pairs


@dataclass(frozen=True)
class Cost:
    """What an arm costs and what it gives. cost: against the baseline. best: nothing is both cheaper and better."""

    label: str
    cost: float
    mean: float
    low: float
    high: float
    verdict: str | None
    best: bool


@dataclass(frozen=True)
class Interactions:
    """Estimated effects of a factorial design, in shown units: main effects on the diagonal, interactions beside it."""

    terms: tuple[str, ...]
    estimates: tuple[tuple[float | None, ...], ...]
    unit: str
    digits: int


@dataclass(frozen=True)
class ClassShift:
    """An arm's confusion against the reference's, in points of each true class's images."""

    arm: str
    label: str
    difference: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """Shares in percent of each true class (rows), over the test images of all seeds."""

    classes: tuple[str, ...]
    reference: str
    shares: tuple[tuple[float, ...], ...]
    arms: tuple[ClassShift, ...]


@dataclass(frozen=True)
class RunRow:
    """One replicate, recorded or missing. value, test: in shown units, None without a result."""

    arm: str
    label: str
    seed: int
    phase: str
    outcome: str
    value: float | None
    test: float | None
    epochs: int | None
    seconds: float | None
    device: str
    run_id: str
    reason: str
    source_run: str


@dataclass(frozen=True)
class Trouble:
    """Runs of an arm that went wrong in the same way, or are missing. seeds: in words. run_ids: where there are any."""

    label: str
    seeds: str
    phase: str
    outcome: str
    reason: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A report as data. answer: two sentences. facts, environment: (name, text). methods: (heading, paragraph)."""

    study: str
    question: str
    answer: tuple[str, str]
    notices: tuple[Notice, ...]
    facts: tuple[tuple[str, str], ...]
    metric: str
    unit: str
    value_unit: str
    digits: int
    axis: Axis
    groups: tuple[Group, ...]
    rows: tuple[Row, ...]
    cells: tuple[Row, ...]
    components: tuple[str, ...]
    sections: tuple[Section, ...]
    costs: tuple[Cost, ...]
    cost_basis: str
    interactions: Interactions | None
    confusion: Confusion | None
    runs: tuple[RunRow, ...]
    trouble: tuple[Trouble, ...]
    counts: tuple[tuple[str, int], ...]
    methods: tuple[tuple[str, str], ...]
    looks: tuple[tuple[str, ...], ...]
    environment: tuple[tuple[str, str], ...]
    reproduce: tuple[str, ...]
    text: str


GROUPS: tuple[tuple[str, str, str, frozenset[str]], ...] = (
    ("worked", "What worked", "better than the baseline, beyond the noise of seeds", frozenset({"helps"})),
    ("hurt", "What didn’t", "worse than the baseline, beyond the noise of seeds", frozenset({"hurts"})),
    (
        "none",
        "No practical effect",
        "any difference is smaller than the margin",
        frozenset({"no practical effect"}),
    ),
    ("open", "Don’t know yet", "more than one answer still fits the interval", frozenset({"inconclusive"})),
    ("unstable", "Unstable", "training diverged under some seeds", frozenset({"unstable"})),
    (
        "void",
        "Not a comparison",
        "nothing was compared: the runs are copies of one another, or of the baseline’s",
        frozenset({"not independent", "no override"}),
    ),
)


def summarise(material: Material) -> Summary:
    """Everything the report of a study says."""
    return _Writer(material).summary()


def tallies(analysis: Analysis) -> dict[str, int]:
    """How many arms (or effects) are in each group, by its key: what an index of studies shows."""
    verdicts = [item.verdict for item in _items(analysis)]
    return {key: sum(v in members for v in verdicts) for key, _, _, members in GROUPS}


def _items(analysis: Analysis) -> tuple[Comparison | Effect, ...]:
    return (*analysis.comparisons, *analysis.effects)


class _Writer:
    """Holds what all parts of a summary need: the rules, the units, the labels and the anchors."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.record = material.record
        self.analysis = material.analysis
        self.rules: Rules = material.analysis.rules
        scale = words.scale(self.rules, material.analysis.baseline.mean)
        self.factor, self.unit = scale.factor, scale.unit
        self.value_unit = "%" if scale.unit == "points" else scale.unit
        self.margin = self.rules.margin * self.factor
        self.digits = wording.decimals(self.margin)
        self.arms: dict[str, Mapping[str, Any]] = {arm["name"]: arm for arm in self.record["arms"]}
        # The baseline is the first of the references; further ones are those that only some arms are held against.
        self.others = tuple(s for s in self.analysis.references if s.arm != self.rules.reference)
        self.anchors = {arm: f"arm-{i}" for i, arm in enumerate(self.arms)}
        self.fits = {s.arm: s.fit for s in (self.analysis.baseline, *self.others, *self.analysis.cells)}
        self.fits |= {c.arm: c.fit for c in self.analysis.comparisons}
        self.replicates = material.replicates
        self.report = self.replicates[self.replicates["phase"] == REPORT]
        self.planned: dict[tuple[str, str], list[int]] = {}
        for run in self.record.get("runs", []):
            self.planned.setdefault((run["arm"], run["phase"]), []).append(run["seed"])
        self.rows = {row.arm: row for row in (self._comparison_row(c) for c in self.analysis.comparisons)}

    def summary(self) -> Summary:
        environment = dict(self.material.environment)
        rows = self._rows()
        runs = self._runs()
        counts = self.analysis.runs
        return Summary(
            study=str(self.record["study"]),
            question=str(self.record.get("question") or "").strip(),
            answer=self._answer(),
            notices=tuple(self._notices()),
            facts=tuple(self._facts()),
            metric=self.rules.metric,
            unit=self.unit,
            value_unit=self.value_unit,
            digits=self.digits,
            axis=self._axis(rows),
            groups=self._groups(),
            rows=rows,
            cells=tuple(
                self._raw_row(cell, "arm") for cell in self.analysis.cells if cell.arm != self.rules.reference
            ),
            components=self._components(),
            sections=tuple(self._sections()),
            costs=self._costs(),
            cost_basis="time" if any(c.cost_is_time for c in self.analysis.comparisons) else "compute",
            interactions=self._interactions(),
            confusion=self._confusion(),
            runs=runs,
            trouble=_troubles(runs),
            counts=(
                ("planned", counts.planned),
                ("finished", counts.finished),
                ("diverged", counts.diverged),
                ("failed", counts.failed),
                ("missing", counts.missing),
            ),
            methods=tuple(self._methods()),
            looks=self._looks(),
            environment=tuple((name, str(value)) for name, value in environment.items() if value),
            reproduce=self._reproduce(environment),
            text=str(self.record.get("text") or ""),
        )

    # --- units ----------------------------------------------------------------------------------------------------

    def _shown(self, value: float | None) -> float | None:
        return None if value is None or not math.isfinite(value) else value * self.factor

    def _label(self, arm: str) -> str:
        if arm == self.rules.reference:
            return (
                "Full" if arm == "full" else "Baseline" if arm == "baseline" else words.label(arm, self.rules)
            )
        if arm == AA_ARM:
            return "A/A: the baseline again"
        return words.label(arm, self.rules)

    def _the(self, arm: str) -> str:
        """A reference within a sentence."""
        return {"baseline": "the baseline", "full": "the full arm"}.get(arm, self._label(arm))

    def _interval(self, item: Comparison | Effect) -> Interval:
        estimate = item.effect if isinstance(item, Comparison) else item.estimate
        images = item.ci_new_images if isinstance(item, Comparison) else None
        return Interval(
            self._shown(estimate),
            self._shown(item.lo),
            self._shown(item.hi),
            item.verdict,
            self._shown(images[0]) if images else None,
            self._shown(images[1]) if images else None,
        )

    # --- the top --------------------------------------------------------------------------------------------------

    def _answer(self) -> tuple[str, str]:
        """The finding, and how settled it is."""
        analysis = self.analysis
        first = words.headline(analysis)
        if analysis.error:
            return first, "No arm is judged until that is mended."
        items = _items(analysis)
        open_items = [item for item in items if item.verdict == "inconclusive"]
        noun = "effect" if self.rules.factorial else "arm"
        if analysis.provisional:
            runs = analysis.runs
            return first, (
                f"This is provisional: {runs.finished + runs.diverged} of {wording.count(runs.planned, 'run')} are in, "
                f"and verdicts fall at {wording.count(analysis.next_look.pairs, 'seed')}."
            )
        if not open_items:
            every = f"Every {noun} is" if len(items) > 1 else f"The {noun} is"
            return first, f"{every} settled, with {wording.count(analysis.pairs, 'seed')} each at most."
        n80 = sorted(item.more_seeds.n80 for item in open_items if item.more_seeds and item.more_seeds.n80)
        many = (
            f"{wording.count(len(open_items), noun)} {wording.verb(len(open_items), 'is', 'are')} still open"
        )
        if not n80:
            return (
                first,
                f"{many}, and no number of seeds within reach would settle {wording.verb(len(open_items), 'it', 'them')}.",
            )
        reach = f"{n80[0]} seeds" if n80[0] == n80[-1] else f"{n80[0]} to {n80[-1]} seeds"
        which = "" if len(n80) == len(open_items) else f" ({len(n80)} of them)"
        return (
            first,
            f"{many}: to settle {wording.verb(len(open_items), 'it', 'them')}{which} with a chance of 80 % takes {reach} in all.",
        )

    def _notices(self) -> Iterable[Notice]:
        analysis, runs = self.analysis, self.analysis.runs
        if analysis.error:
            yield Notice("error", _sentence(analysis.error))
        if analysis.provisional:
            yield Notice(
                "provisional",
                f"{runs.finished + runs.diverged} of {wording.count(runs.planned, 'run')} are in. "
                "Verdicts are read when a look is complete; until then an effect is only a first impression.",
            )
        elif runs.missing:
            yield Notice(
                "provisional",
                f"{wording.count(runs.missing, 'run')} of {runs.planned} {wording.verb(runs.missing, 'is', 'are')} not in yet. "
                "Settled verdicts stand; open ones may change.",
            )
        if runs.failed:
            yield Notice(
                "warning",
                f"{wording.count(runs.failed, 'run')} failed and {wording.verb(runs.failed, 'counts', 'count')} as missing; "
                f"the {wording.verb(runs.failed, 'reason stands', 'reasons stand')} under Runs.",
            )
        for column, what in (
            ("device", "kinds of device"),
            ("torch", "versions of torch"),
            ("fused", "kinds of fusion"),
        ):
            found = self._mixture(column)
            if len(found) > 1:
                parts = wording.listing(f"{name} ({wording.count(n, 'run')})" for name, n in found.items())
                yield Notice("warning", f"Runs of different {what} are compared with each other: {parts}.")
        for warning in analysis.warnings:
            yield Notice("warning", _sentence(warning))

    def _mixture(self, column: str) -> dict[str, int]:
        """What the compared runs ran on, with the number of runs of each; numbers of devices aside."""
        if column not in self.report.columns:
            return {}
        known = self.report[self.report["outcome"] == "finished"][column].dropna().astype(str)
        names = known.str.replace(r":\d+$", "", regex=True) if column == "device" else known
        return {
            str(name): int(n) for name, n in names[names != ""].value_counts(sort=False).sort_index().items()
        }

    def _facts(self) -> Iterable[tuple[str, str]]:
        record, analysis = self.record, self.analysis
        reference = self.arms.get(self.rules.reference, {})
        design = {
            "one-at-a-time": "one change at a time",
            "leave-one-out": "one component left out at a time",
            "both": "one change at a time, and one component left out at a time",
            "factorial": "all combinations",
            "fractional": "a fraction of all combinations",
        }.get(self.rules.design, self.rules.design)
        arms = wording.count(len(self.arms) - 1, "arm")
        yield "Compared", f"{arms} with {self._the(self.rules.reference)}: {design}, {self._seeds()}"
        if training := _outline(reference.get("config", {})):
            yield "Baseline" if self.rules.reference == "baseline" else "Reference", training
        data = reference.get("data", {})
        named = (reference.get("config", {}) or {}).get("data")
        name = named.get("name", "") if isinstance(named, Mapping) else ""
        if data.get("train"):
            sizes = f"{data['train']:,} images to train on, {data['validation']:,} to validate, {data['test']:,} to test"
            yield "Data", f"{name}: {sizes}" if name else sizes
        elif name:
            yield "Data", str(name)
        orientation = "higher is better" if self.rules.direction == "maximize" else "lower is better"
        margin = f"{wording.plain(self.margin, self.digits).rstrip('0').rstrip('.')} {self.unit}".strip()
        yield "Judged by", f"{self.rules.metric}, {orientation}; a difference counts from {margin}"
        yield "Cost", self._cost_words()
        if plan := record.get("plan"):
            looks = len(self.rules.schedule())
            state = (
                f"look {analysis.look} of {looks}"
                if analysis.look
                else f"before the first of {wording.count(looks, 'look')}"
            )
            yield "Plan", f"{plan}, {state}"

    def _seeds(self) -> str:
        seeds = [c.n for c in self.analysis.comparisons] or [self.analysis.baseline.n]
        low, high = min(seeds), max(seeds)
        if not high:
            return "no seed in yet"
        return f"{wording.count(high, 'seed')} each" if low == high else f"{low} to {high} seeds each"

    def _cost_words(self) -> str:
        runs = self.analysis.runs
        done = runs.finished + runs.diverged
        of = f"{done} of {runs.planned} runs" if done != runs.planned else wording.count(done, "run")
        parts = [of]
        if "seconds" in self.replicates.columns and not self.replicates.empty:
            seconds = pd.to_numeric(self.replicates["seconds"], errors="coerce")
            copied = self._copied()
            spent = float(seconds[~copied].sum())
            if spent > 0:
                parts.append(f"{wording.duration(spent)} of device time")
            if copied.any():
                parts.append(f"{wording.count(int(copied.sum()), 'run')} taken from earlier studies")
        return ", ".join(parts)

    def _copied(self) -> pd.Series[bool]:
        if "source_run" not in self.replicates.columns:
            return pd.Series(False, index=self.replicates.index)
        return (
            self.replicates["source_run"]
            .map(lambda value: isinstance(value, str) and bool(value))
            .astype(bool)
        )

    # --- verdicts -------------------------------------------------------------------------------------------------

    def _axis(self, rows: Sequence[Row]) -> Axis:
        shown = [
            [e for e in (row.interval.lo, row.interval.hi, row.interval.estimate) if e is not None]
            for row in rows
            if row.kind != "baseline"
        ]
        # By arm, not by end: the near end of an interval must not be the step that lets its far end in.
        limit = reach((max(abs(e) for e in ends) for ends in shown if ends), 2.0 * self.margin)
        ends = [e for row in shown for e in row]
        low = max(-limit, min([*ends, -1.5 * self.margin]))
        high = min(limit, max([*ends, 1.5 * self.margin]))
        pad = 0.04 * (high - low)
        cut = any(e < low - pad or e > high + pad for e in ends)
        return Axis(
            low - pad, high + pad, self.margin, self.unit, self.digits, _ticks(low - pad, high + pad), cut
        )

    def _groups(self) -> tuple[Group, ...]:
        items = [(item, i) for i, item in enumerate(_items(self.analysis))]
        groups = []
        for key, title, meaning, members in GROUPS:
            mine = [(item, i) for item, i in items if item.verdict in members]
            sign = {"worked": -1.0, "hurt": 1.0}.get(key)
            if sign is not None:
                mine.sort(key=lambda pair: sign * (self._interval(pair[0]).estimate or 0.0))
            if mine:
                meaning = meaning.replace("the baseline", self._the(self.rules.reference))
                groups.append(Group(key, title, meaning, tuple(self._finding(item, i) for item, i in mine)))
        return tuple(groups)

    def _finding(self, item: Comparison | Effect, index: int) -> Finding:
        sentence = words.sentence(item, self.rules)
        if isinstance(item, Effect):
            name, label, anchor = " × ".join(item.terms), self._terms(item.terms), f"effect-{index}"
            notes: tuple[str, ...] = ()
        else:
            name, label, anchor = item.arm, self._label(item.arm), self.anchors.get(item.arm, f"arm-x{index}")
            notes = self._notes(item)
        subject = label if sentence.startswith(label) else _VERDICT.split(sentence, maxsplit=1)[0]
        return Finding(name, label, subject, sentence, item.verdict, self._interval(item), notes, anchor)

    def _notes(self, item: Comparison) -> tuple[str, ...]:
        notes = []
        if item.cost_ratio is not None:
            notes.append(wording.share(item.cost_ratio, "device time" if item.cost_is_time else "compute"))
        if item.parameter_ratio is not None:
            notes.append(wording.share(item.parameter_ratio, "parameters"))
        if item.test_effect is not None:
            notes.append(
                f"test {wording.signed(self._shown(item.test_effect), self.digits)} {self.unit}".strip()
            )
        if trouble := _trouble(item.failed, item.diverged, item.missing):
            notes.append(trouble)
        return tuple(notes)

    def _terms(self, terms: Iterable[str]) -> str:
        return " × ".join(map(_term, terms))

    def _rows(self) -> tuple[Row, ...]:
        rows = [self._raw_row(self.analysis.baseline, "baseline")]
        rows += [self._raw_row(summary, "baseline") for summary in self.others]
        rows += self.rows.values()
        for i, effect in enumerate(self.analysis.effects):
            rows.append(
                Row(
                    "effect",
                    " × ".join(effect.terms),
                    self._terms(effect.terms),
                    f"effect-{i}",
                    effect.verdict,
                    self._interval(effect),
                    effect.p_adjusted,
                    effect.n,
                )
            )
        for kind, item in (("confirmation", self.analysis.confirmation), ("A/A", self.analysis.aa)):
            if item is not None:
                row = self._comparison_row(item)
                label = f"{row.label}, on fresh seeds" if kind == "confirmation" else row.label
                rows.append(dataclasses.replace(row, kind=kind, label=label, anchor=""))
        return tuple(rows)

    def _comparison_row(self, item: Comparison) -> Row:
        raw = self._raw_row(item.summary, "arm")
        return dataclasses.replace(
            raw,
            arm=item.arm,
            label=self._label(item.arm),
            anchor=self.anchors.get(item.arm, ""),
            verdict=_verdict_words(item),
            interval=self._interval(item),
            p=item.p_adjusted,
            n=item.n,
            test_effect=self._shown(item.test_effect),
            cost_ratio=item.cost_ratio,
            cost_is_time=item.cost_is_time,
            parameter_ratio=item.parameter_ratio,
            fit=tuple(d.words for d in item.fit),
            trouble=_trouble(item.failed, item.diverged, item.missing),
        )

    def _raw_row(self, raw: Figures, kind: Kind) -> Row:
        recorded = self.arms.get(raw.arm, {})
        levels: Mapping[str, Any] = recorded.get("levels") or {}
        return Row(
            kind,
            raw.arm,
            self._label(raw.arm),
            self.anchors.get(raw.arm, ""),
            "",
            Interval(None, None, None, ""),
            None,
            raw.n,
            mean=self._shown(raw.mean),
            sd=self._shown(raw.sd),
            test=self._shown(raw.test),
            seconds=raw.seconds,
            parameters=raw.parameters,
            fit=tuple(d.words for d in raw.fit),
            trouble=_trouble(raw.failed, raw.diverged, raw.missing),
            levels=tuple((name, wording.level(value)) for name, value in levels.items()),
            present=tuple(levels.get(f) == _only_level(self.record, f) for f in self._components())
            if levels
            else (),
        )

    def _components(self) -> tuple[str, ...]:
        """Factors that are there or not, one level each: what a table can tick off."""
        if self.rules.design not in {"leave-one-out", "factorial", "fractional", "both"}:
            return ()
        factors = self.record.get("factors", [])
        return tuple(f["name"] for f in factors) if all(len(f["levels"]) == 1 for f in factors) else ()

    def _costs(self) -> tuple[Cost, ...]:
        """Every arm with a known cost, the baseline at 1; `best` by what no other arm beats on both counts."""
        found: list[tuple[str, float, Figures, str | None]] = []
        base = self.analysis.baseline
        if any(c.cost_ratio is not None for c in self.analysis.comparisons):
            found.append((self._label(base.arm), 1.0, base, None))
        found += [
            (self._label(c.arm), c.cost_ratio, c.summary, c.verdict)
            for c in self.analysis.comparisons
            if c.cost_ratio is not None and c.cost_ratio > 0 and c.reference == self.rules.reference
        ]
        known = [(label, cost, raw, verdict) for label, cost, raw, verdict in found if raw.mean is not None]
        sign = self.rules.sign
        costs = []
        for label, cost, raw, verdict in known:
            assert raw.mean is not None
            beaten = any(
                other.mean is not None
                and (c <= cost and sign * other.mean >= sign * raw.mean)
                and (c < cost or sign * other.mean > sign * raw.mean)
                for _, c, other, _ in known
            )
            low, high = raw.mean if raw.low is None else raw.low, raw.mean if raw.high is None else raw.high
            costs.append(
                Cost(
                    label,
                    cost,
                    raw.mean * self.factor,
                    low * self.factor,
                    high * self.factor,
                    verdict,
                    not beaten,
                )
            )
        return tuple(costs) if len({c.cost for c in costs}) > 1 else ()

    def _interactions(self) -> Interactions | None:
        """The square of main effects and interactions; None where there is at most one factor to show."""
        mains = [e.terms[0] for e in self.analysis.effects if len(e.terms) == 1]
        if len(mains) < 2:
            return None
        found = {frozenset(e.terms): self._shown(e.estimate) for e in self.analysis.effects}
        square = tuple(tuple(found.get(frozenset((a, b))) for b in mains) for a in mains)
        return Interactions(tuple(map(_term, mains)), square, self.unit, self.digits)

    # --- sections -------------------------------------------------------------------------------------------------

    def _sections(self) -> Iterable[Section]:
        bands = self._bands()
        by_factor: dict[str | None, list[str]] = {}
        for name, arm in self.arms.items():
            if name != self.rules.reference and name not in {s.arm for s in self.others}:
                by_factor.setdefault(arm.get("factor"), []).append(name)
        if self.rules.factorial:
            arms = [arm for arms in by_factor.values() for arm in arms]
            yield self._section(0, "All combinations", "", arms, bands, "Every combination that was run.")
            return
        single = [
            arm for factor, arms in by_factor.items() if len(arms) == 1 or factor is None for arm in arms
        ]
        index = 0
        for factor, arms in by_factor.items():
            if factor is not None and len(arms) > 1:
                yield self._section(index, _title(factor), factor, arms, bands, self._levels_intro(factor))
                index += 1
        if single:
            title = "Components" if self.rules.design == "leave-one-out" else "Single changes"
            intro = (
                "Each arm is everything but one component."
                if self.rules.design == "leave-one-out"
                else "Each arm changes one setting of the baseline."
            )
            if len(single) == 1:
                title, intro = self._label(single[0]), ""
            yield self._section(index, title, "", single, bands, intro)

    def _levels_intro(self, factor: str) -> str:
        base = (self.arms.get(self.rules.reference, {}).get("levels") or {}).get(factor)
        return f"The baseline stands at {wording.level(base)}." if base is not None else ""

    def _section(
        self,
        index: int,
        title: str,
        code: str,
        arms: list[str],
        bands: dict[tuple[str, str], Line],
        intro: str,
    ) -> Section:
        comparisons = {c.arm: c for c in self.analysis.comparisons}
        reference = next((comparisons[a].reference for a in arms if a in comparisons), self.rules.reference)
        response = self._response(title, code, arms, reference)
        if response is not None and response.scale != "named":
            arms = [level.arm for level in response.levels if level.arm != reference]
        return Section(
            f"factor-{index}",
            title,
            code,
            intro,
            tuple(self._remarks([reference, *arms])),
            response,
            tuple(self._curves(arms, reference, bands, code)),
            self._effect_pairs() if self.rules.factorial else self._pairs(arms, reference),
        )

    def _remarks(self, arms: Iterable[str]) -> Iterable[tuple[str, str]]:
        for arm in arms:
            if fits := self.fits.get(arm):
                yield (
                    self._label(arm),
                    "; ".join(f"{d.words} ({d.detail})" if d.detail else d.words for d in fits),
                )

    def _response(self, title: str, factor: str, arms: list[str], reference: str) -> Response | None:
        comparisons = {c.arm: c for c in self.analysis.comparisons}
        summaries = {s.arm: s for s in (self.analysis.baseline, *self.others, *self.analysis.cells)}
        places: dict[str, Any] = {}
        for arm in (reference, *arms):
            places[arm] = (self.arms.get(arm, {}).get("levels") or {}).get(factor) if factor else None
        scale = _scale(places.values()) if factor else "named"
        levels = []
        for arm, place in places.items():
            raw = (
                summaries[arm]
                if arm in summaries
                else comparisons[arm].summary
                if arm in comparisons
                else None
            )
            dots = self._values(arm)
            if raw is None and not dots:
                continue
            levels.append(
                Level(
                    wording.level(place) if factor else self._label(arm),
                    float(place) if scale != "named" else None,
                    arm,
                    self._label(arm),
                    self._shown(raw.mean) if raw else None,
                    dots,
                    comparisons[arm].verdict if arm in comparisons else None,
                    _trouble(raw.failed, raw.diverged, 0) if raw else "",
                )
            )
        if not any(level.dots for level in levels):
            return None
        if scale != "named":
            levels.sort(key=lambda level: level.x or 0.0)
        mean = self._shown(summaries[reference].mean) if reference in summaries else None
        band = None if mean is None else (mean - self.margin, mean + self.margin)
        axis = factor or ("" if self.rules.factorial else title)
        return Response(axis, self.rules.metric, self.value_unit, self.digits, scale, tuple(levels), band)

    def _values(self, arm: str) -> tuple[tuple[int, float], ...]:
        mine = self.report[(self.report["arm"] == arm) & (self.report["outcome"] == "finished")]
        pairs = sorted(zip(mine["seed"], mine["value"], strict=True))
        return tuple((int(s), float(v) * self.factor) for s, v in pairs if math.isfinite(v))

    def _factor_of(self, metric: str, mean: float) -> float:
        """100 for what is shown in percent, else 1. The primary metric's margin has no say in another's unit."""
        return words.scale(dataclasses.replace(self.rules, metric=metric, margin=1e-6), mean).factor

    def _bands(self) -> dict[tuple[str, str], Line]:
        """(arm, metric) → its curve, over the finished runs; over all where none finished."""
        curves = self.material.curves
        if curves.empty:
            return {}
        curves = curves[(curves["phase"] == REPORT) & np.isfinite(curves["value"].to_numpy(dtype=float))]
        finished = self.report[self.report["outcome"] == "finished"][["arm", "seed"]]
        usable = set(finished["arm"])
        done = pd.MultiIndex.from_frame(finished)
        keep = (
            pd.MultiIndex.from_frame(curves[["arm", "seed"]]).isin(done)
            | ~curves["arm"].isin(usable).to_numpy()
        )
        groups = curves[keep].groupby(["arm", "metric", "epoch"], sort=True)["value"]
        table = groups.agg(["mean", "min", "max", "count"]).reset_index()
        means = table.groupby("metric")["mean"].mean()
        units = {str(metric): self._factor_of(str(metric), float(mean)) for metric, mean in means.items()}
        found = {}
        for (arm, metric), rows in table.groupby(["arm", "metric"], sort=False):
            step = max(1, math.ceil(len(rows) / MOST_EPOCHS))
            thin = pd.concat([rows.iloc[:-1:step], rows.iloc[-1:]])
            unit = units[str(metric)]
            found[str(arm), str(metric)] = Line(
                _split(str(metric)),
                tuple(int(e) for e in thin["epoch"]),
                tuple((thin["mean"] * unit).astype(float)),
                tuple((thin["min"] * unit).astype(float)),
                tuple((thin["max"] * unit).astype(float)),
                int(thin["count"].max()),
                percent=unit != 1.0,
            )
        return found

    def _curves(
        self,
        arms: list[str],
        reference: str,
        bands: dict[tuple[str, str], Line],
        factor: str,
    ) -> Iterable[Curves]:
        quantities: dict[str, list[str]] = {}
        for arm, metric in bands:
            if arm == reference or arm in arms:
                known = quantities.setdefault(_quantity(metric), [])
                if metric not in known:
                    known.append(metric)
        if not any(part in factor for part in ("lr", "schedule", "optimizer")):
            quantities.pop("lr", None)
        order = {"loss": 0, "accuracy": 1, "lr": 3}
        for quantity in sorted(quantities, key=lambda q: (order.get(q, 2), q)):
            metrics = sorted(quantities[quantity], key=lambda m: m.startswith("val/"))

            def drawn(arm: str, metrics: list[str] = metrics, quantity: str = quantity) -> ArmCurves:
                start = next((d.epoch for d in self.fits.get(arm, ()) if d.code == "over-fits"), None)
                return ArmCurves(
                    arm,
                    self._label(arm),
                    tuple(bands[arm, m] for m in metrics if (arm, m) in bands),
                    start if quantity == "loss" else None,
                )

            mine = tuple(d for d in map(drawn, arms) if d.lines)
            base = drawn(reference)
            everything = [line for d in (base, *mine) for line in d.lines]
            if not mine or not everything:
                continue
            unit = "%" if everything[0].percent else ""
            low, high, log, cut = _range(everything)
            yield Curves(quantity, unit, base if base.lines else None, mine, low, high, log=log, cut=cut)

    def _pairs(self, arms: list[str], reference: str) -> Pairs:
        rows = [self.rows[arm] for arm in arms if arm in self.rows]
        mine = self.report[self.report["arm"].isin([reference, *arms])]
        found = {
            (str(arm), int(seed)): (str(outcome), float(value))
            for arm, seed, outcome, value in zip(
                mine["arm"], mine["seed"], mine["outcome"], mine["value"], strict=True
            )
        }
        seeds = tuple(sorted({seed for _, seed in found}))

        def value(seed: int) -> float | str:
            outcome, number = found.get((reference, seed), ("", math.nan))
            return number * self.factor if outcome == "finished" else outcome

        def difference(arm: str, seed: int) -> float | str:
            outcome, number = found.get((arm, seed), ("", math.nan))
            base, base_value = found.get((reference, seed), ("", math.nan))
            if outcome == base == "finished":
                return self.rules.sign * (number - base_value) * self.factor
            return outcome if outcome != "finished" else "unpaired"

        return Pairs(
            seeds,
            self._label(reference),
            tuple(value(seed) for seed in seeds),
            tuple((row, tuple(difference(row.arm, seed) for seed in seeds)) for row in rows),
        )

    def _effect_pairs(self) -> Pairs:
        effects = {" × ".join(e.terms): dict(e.differences) for e in self.analysis.effects}
        seeds = tuple(sorted({seed for found in effects.values() for seed in found}))
        rows = [row for row in self._rows() if row.kind == "effect"]
        return Pairs(
            seeds,
            "",
            (),
            tuple(
                (row, tuple(d[s] * self.factor if s in d else "" for s in seeds))
                for row, d in ((r, effects[r.arm]) for r in rows)
            ),
        )

    # --- classes --------------------------------------------------------------------------------------------------

    def _confusion(self) -> Confusion | None:
        confusion = self.material.confusion
        reference = self.rules.reference
        if reference not in confusion:
            return None
        base = _row_shares(confusion[reference])
        recorded = (self.arms.get(reference, {}).get("data") or {}).get("classes") or ()
        classes = (
            tuple(map(str, recorded)) if len(recorded) == len(base) else tuple(map(str, range(len(base))))
        )
        arms = tuple(
            ClassShift(arm, self._label(arm), _table(_row_shares(confusion[arm]) - base))
            for arm in self.arms
            if arm != reference and arm in confusion and confusion[arm].shape == base.shape
        )
        return Confusion(classes, self._the(reference), _table(base), arms)

    # --- runs -----------------------------------------------------------------------------------------------------

    def _runs(self) -> tuple[RunRow, ...]:
        found = [self._run(row) for row in self.replicates.to_dict("records")]
        found += [
            RunRow(
                arm,
                self._label(arm),
                seed,
                phase,
                "missing",
                None,
                None,
                None,
                None,
                "",
                "",
                "not run yet",
                "",
            )
            for arm, seed, phase in self._missing()
        ]
        place = {arm: i for i, arm in enumerate(self.arms)}
        return tuple(sorted(found, key=lambda run: (place.get(run.arm, len(place)), run.phase, run.seed)))

    def _run(self, row: Mapping[Any, Any]) -> RunRow:
        def text(name: str) -> str:
            value = row.get(name)
            return value if isinstance(value, str) else ""

        def number(name: str) -> float | None:
            value = row.get(name)
            return (
                float(value)
                if isinstance(value, int | float | np.number) and math.isfinite(float(value))
                else None
            )

        arm, epochs = str(row["arm"]), number("epochs")
        finished = row["outcome"] == "finished"
        return RunRow(
            arm,
            self._label(arm),
            int(row["seed"]),
            str(row["phase"]),
            str(row["outcome"]),
            self._shown(number("value")) if finished else None,
            self._shown(number("test")) if finished else None,
            None if epochs is None else int(epochs),
            number("seconds"),
            text("device"),
            text("run_id"),
            text("reason"),
            text("source_run"),
        )

    def _missing(self) -> Iterable[tuple[str, int, str]]:
        """Runs that are due and not there: up to the next look for what is open and its reference, else to the last."""
        analysis = self.analysis
        going_on = set(undecided(analysis))
        going_on |= {self.rules.reference_of(arm) for arm in going_on} | (
            {self.rules.reference} if going_on else set()
        )
        there = set(
            zip(self.replicates["arm"], self.replicates["seed"], self.replicates["phase"], strict=True)
        )
        absent = []
        for run in self.record.get("runs", []):
            pairs = analysis.next_look.pairs if run["arm"] in going_on else analysis.pairs
            due = self.planned.get((run["arm"], run["phase"]), [])[: max(pairs, analysis.pairs)]
            key = (run["arm"], run["seed"], run["phase"])
            if run["seed"] in due and key not in there:
                absent.append(key)
        # The analysis has the last word on how many; it knows whether the study is over.
        yield from absent[: analysis.runs.missing]

    # --- methods --------------------------------------------------------------------------------------------------

    def _looks(self) -> tuple[tuple[str, ...], ...]:
        return tuple(
            (
                str(look.index),
                str(look.pairs),
                f"{look.alpha:.4g}",
                "declared in the study" if look.declared else "added later",
                "closed" if look.index <= self.analysis.look else "to come",
            )
            for look in self.rules.schedule()
        )

    def _methods(self) -> Iterable[tuple[str, str]]:
        rules, analysis = self.rules, self.analysis
        k = rules.k
        family = wording.count(k, "effect" if rules.factorial else "arm")
        unit = f" {self.unit}" if self.unit else ""
        margin = wording.plain(self.margin, self.digits).rstrip("0").rstrip(".") + unit
        yield (
            "Pairs",
            "Replicate i of every arm trains under seed i, which fixes the initial weights, the order of batches, "
            "augmentation and dropout. Arms are compared with their reference seed by seed; what counts is the mean of "
            "these differences, oriented so that higher is better.",
        )
        yield (
            "The interval",
            f"Each interval is made for the whole study. Its {family} share one error: over all arms and all looks, the "
            "chance that any interval misses its true effect is at most 5 %. It is a t interval of the paired differences "
            f"at level 1 − α/k, with k = {k} and the α of the look that decided the arm.",
        )
        yield (
            "Looks",
            "Results are read only at numbers of seeds fixed beforehand. Each look spends its part of the 5 %, in proportion to "
            "the squares of its seeds; 0.5 % is kept for looks that nobody planned. An arm that is settled at a look keeps "
            "its verdict and its interval; only open arms and their reference go on.",
        )
        yield (
            "The margin",
            f"{margin} is the smallest difference worth having, fixed in the study before the first run. An interval wholly "
            "within ± the margin means no practical effect; otherwise one above 0 means the arm helps, one below 0 that it "
            "hurts, clearly so where it lies wholly beyond the margin. Anything else is not known yet.",
        )
        yield (
            "Noise",
            "The noise of an arm is the spread of its own differences, never below half of the metric’s smallest step. With "
            "five arms or more it is averaged with what is typical in the study, which counts as up to four more degrees of "
            "freedom; an arm noisier than that keeps its own. The adjusted p is below 0.05 exactly when the interval excludes 0.",
        )
        yield (
            "Failures and divergence",
            "A failed run counts as missing. A run whose loss is no longer finite has diverged: that is a result, and an arm "
            "with one is called unstable, unless the others already show that it hurts. Runs that are identical under "
            "different seeds, or identical to the baseline’s, are no comparison; weights and losses tell, never the metric.",
        )
        yield "What the interval does not cover", " ".join(self._limits())

    def _limits(self) -> Iterable[str]:
        rules, analysis = self.rules, self.analysis
        unit = f" {self.unit}" if self.unit else ""
        if any(c.ci_new_images for c in analysis.comparisons):
            yield "It holds for these validation images; the wider interval beside it is for new ones."
        else:
            yield "It holds for this validation set: for new data of the same kind it would be wider."
        if rules.retunes:
            yield f"Settings that were tuned stand at the values found, by {wording.count(rules.retunes, 'search', 'searches')}; a search is noisy too."
        else:
            yield "Nothing was tuned per arm: an arm is compared at the baseline’s other settings."
        yield "Arms are chosen on validation data. The test set is scored once per finished run, stands beside, and decides nothing."
        if analysis.optimism:
            yield (
                f"The best of {rules.k} arms that were all equal would look better by about "
                f"{wording.plain(self._shown(analysis.optimism), self.digits)}{unit}: its effect is partly luck of the draw."
            )
        if analysis.detectable and math.isfinite(analysis.detectable):
            yield (
                "At the noise seen, the last declared look finds an effect of about "
                f"{wording.plain(self._shown(analysis.detectable), self.digits)}{unit} with a chance of 80 %."
            )
        if rules.resolution > 0:
            yield f"The metric moves in steps of {wording.plain(self._shown(rules.resolution), self.digits + 1)}{unit}."

    def _reproduce(self, environment: Mapping[str, str]) -> tuple[str, ...]:
        steps = []
        if commit := environment.get("commit"):
            steps.append(f"git checkout {commit}")
        name = f"{self.record['study']}.yaml"
        steps.append(environment.get("command") or f"ablate run {name}")
        steps.append(f"ablate report {self.record['study']}")
        return tuple(steps)


_VERDICT = re.compile(
    r" (?:clearly |helps|hurts|makes no |is inconclusive|is unstable|is no comparison|cannot be )"
)
"""Where the subject of a sentence ends."""

# --- small readings ---------------------------------------------------------------------------------------------------


def _verdict_words(item: Comparison) -> str:
    if item.clearly:
        return f"clearly {item.verdict}"
    if item.real:
        return f"{item.verdict} (real, below the margin)"
    return item.verdict


def _trouble(failed: int, diverged: int, missing: int) -> str:
    parts = [
        f"{n} {word}" for n, word in ((diverged, "diverged"), (failed, "failed"), (missing, "missing")) if n
    ]
    return wording.listing(parts) if parts else ""


def _troubles(runs: Iterable[RunRow]) -> tuple[Trouble, ...]:
    """Failures first, then divergences, then what is missing."""
    together: dict[tuple[str, str, str, str], list[RunRow]] = {}
    for run in runs:
        if run.outcome != "finished":
            together.setdefault((run.outcome, run.label, run.phase, run.reason), []).append(run)
    order = {"failed": 0, "diverged": 1}
    return tuple(
        Trouble(
            label,
            wording.seeds([run.seed for run in found]),
            phase,
            outcome,
            reason,
            tuple(run.run_id for run in found if run.run_id),
        )
        for (outcome, label, phase, reason), found in sorted(
            together.items(), key=lambda item: order.get(item[0][0], 2)
        )
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _only_level(record: Mapping[str, Any], factor: str) -> Any:
    for entry in record.get("factors", []):
        if entry["name"] == factor:
            row = entry["levels"][0]
            return next(iter(row.values())) if len(row) == 1 else dict(row)
    return None


def _outline(config: Any) -> str:
    """The reference in a line: model, optimizer and epochs where it has them, else its first scalars."""
    if not isinstance(config, Mapping):
        return ""
    parts = []
    model, optimizer, training = (config.get(name) for name in ("model", "optimizer", "training"))
    if isinstance(model, Mapping) and "name" in model:
        inside = [
            f"{k.replace('_', ' ')} {wording.level(v)}"
            for k, v in model.items()
            if isinstance(v, int | float) and not isinstance(v, bool)
        ]
        parts.append(f"{model['name']} ({', '.join(inside[:4])})" if inside else str(model["name"]))
    if isinstance(optimizer, Mapping) and "name" in optimizer:
        rate = f", learning rate {wording.level(optimizer['lr'])}" if "lr" in optimizer else ""
        parts.append(f"{optimizer['name']}{rate}")
    if isinstance(training, Mapping) and "epochs" in training:
        parts.append(wording.count(int(training["epochs"]), "epoch"))
    if not parts:
        parts = [f"{k} {wording.level(v)}" for k, v in config.items() if not isinstance(v, Mapping | list)][
            :5
        ]
    return " · ".join(parts)


def _title(factor: str) -> str:
    """A factor as a heading: `optimizer.lr` → "Learning rate"."""
    leaf = factor.rpartition(".")[2]
    known = {"lr": "learning rate"}
    text = known.get(leaf, leaf.replace("_", " "))
    return text[:1].upper() + text[1:]


def _term(term: str) -> str:
    """One side of a factorial effect: `model.width=128` → "Width 128"."""
    factor, _, text = term.partition("=")
    return f"{_title(factor)} {text}" if text else _title(factor)


def _split(metric: str) -> Literal["train", "validation", ""]:
    head = metric.partition("/")[0]
    return "train" if head == "train" else "validation" if head == "val" else ""


def _quantity(metric: str) -> str:
    head, slash, rest = metric.partition("/")
    return rest if slash and head in {"train", "val"} else metric


def _scale(levels: Iterable[Any]) -> Literal["linear", "log", "named"]:
    """How levels want to be spaced: evenly in their logarithm, in themselves, or as names."""
    values = list(levels)
    if len(values) < 2 or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return "named"
    numbers = np.sort(np.asarray(values, dtype=float))
    if len(set(numbers)) < len(numbers) or not np.isfinite(numbers).all():
        return "named"
    if len(numbers) < 3 or numbers[0] <= 0:
        return "linear"

    def unevenness(places: npt.NDArray[np.float64]) -> float:
        gaps = np.diff(places)
        return float(gaps.std() / gaps.mean())

    return "log" if unevenness(np.log(numbers)) < unevenness(numbers) - 1e-9 else "linear"


def reach(sizes: Iterable[float], least: float) -> float:
    """How far a scale goes: to the largest size, leaving out those FAR beyond the rest."""
    known = sorted(s for s in sizes if math.isfinite(s))
    limit = max([least, *known[: (len(known) + 1) // 2]])
    for size in known:
        if size > FAR * limit:
            break
        limit = max(limit, size)
    return limit


def _ticks(low: float, high: float) -> tuple[float, ...]:
    """Round numbers along a scale, nought among them, at most seven."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw * 0.999)
    return tuple(step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1))


def _range(lines: Sequence[Line]) -> tuple[float, float, bool, bool]:
    """(low, high, log, cut) of an axis for these curves: one arm that explodes must not flatten the others."""
    low = min(min(line.low) for line in lines)
    tops = [max(line.high) for line in lines]
    high = reach(tops, 0.0) if low >= 0 else max(tops)
    cut = high < max(tops)
    log = low > 0 and high / low > 100
    if log:
        return low / 1.15, high * 1.15, True, cut
    pad = 0.05 * (high - low) or 0.05 * max(abs(high), 1e-9)
    return low - pad, high + pad, False, cut


def _row_shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    counts = np.asarray(counts, dtype=float)
    total = counts.sum(axis=1, keepdims=True)
    return 100.0 * np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)


def _table(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in values)
