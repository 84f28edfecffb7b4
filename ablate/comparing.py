"""Verdicts on runs that are there already: a frame of results in, comparisons out.

The caller says the baseline, the margin, and whether runs are paired by a seed. What would make a verdict meaningless is
refused, with the rows that show it.
"""

from __future__ import annotations

import itertools
import math
import numbers
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ablate import metrics
from ablate.comparisons import ArmVerdict, Comparisons
from ablate.errors import StudyError, nearest
from ablate.importing.columns import UNDEFINED, is_counter, is_seed, step_rank
from ablate.importing.curves import named_row
from ablate.shares import is_share
from ablate.text import brief, counted, cut, format_value, joined, margin_in_points

if TYPE_CHECKING:
    import pandas as pd

    from ablate.analysis import Analysis, ArmSummary
    from ablate.analysis.contents import BlockedAnalysis, CautionCode
    from ablate.analysis.groups import Group
    from ablate.analysis.intervals import Floats
    from ablate.analysis.rules import Rules
    from ablate.importing.columns import Outcome
    from ablate.study.record import PlanRecord

Undefined = Literal["missing", "diverged", "undefined"]
"""What a cell without a number is taken for: no run; one that diverged; one whose metric cannot be computed."""

UNDEFINED_MEANS: tuple[Undefined, ...] = ("missing", "diverged", "undefined")

OUTCOME = "ablate.outcome"
"""Column of `Comparisons.results`: what became of each row's run, where that is known."""

_SHOWN = 3
"""Rows that a message quotes."""

_IMPROBABLE, _SURELY_COPIES = 0.001, 10
"""Identical repeats of a metric in steps are copies where chance makes so many ties more seldom; where nothing varies, from so many on."""

_ENDS_OF_SHARES = (0.0, 1.0, 100.0)
"""Where nothing, or everything, is right. All runs of an arm may come to that; it is no sign of copies."""

_LARGEST = 1e100
"""The variance of larger numbers, or of those that are all below one over this, is more or less than a float holds."""

_MOST_STRIPS = 5
"""Parts of arms' names that a message proposes to take out."""

_MOST_NOTES = 6
"""Notes on single blocks that are shown."""


@dataclass(frozen=True)
class Caller:
    """How a message names what the user may change: as arguments of `compare`, or as options of the command line."""

    is_command: bool

    def place(self, name: str) -> str:
        return f"--{name}" if self.is_command else name

    def setting(self, name: str, value: str | None = None) -> str:
        """`--seed COL` or `seed='COL'`; without a value, what switches something on."""
        if self.is_command:
            return f"--{name}" if value is None else f"--{name} {quoted(value)}"
        return f"{name}=…" if value is None else f"{name}={value!r}"

    def unpaired(self) -> str:
        return "--unpaired" if self.is_command else "paired=False"

    def only(self, column: str, value: str) -> str:
        """What keeps the rows with one value."""
        return (
            f"--where {quoted(f'{column}={value}')}"
            if self.is_command
            else f"frame[frame[{column!r}] == {value!r}]"
        )


@dataclass(frozen=True)
class Origin:
    """Where results come from. study: what a report calls them. command: what judges them again.

    sizes: the rows up to each look, of results that have grown; empty: one look at all of them. read_before: how many other
    judgements under the same name read some of these rows.
    """

    study: str = "results"
    source: str = "a data frame"
    command: str = ""
    sizes: tuple[int, ...] = ()
    read_before: int = 0


def row_texts(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The rows of a frame as text, by which equal ones are known: 0.610 is 0.61."""
    columns = []
    for name in frame:
        texts = _texts(frame[name])
        spelled = {text: text for text in texts}
        for text in spelled:
            try:
                spelled[text] = repr(float(text))
            except ValueError:
                continue
        columns.append([spelled[text] for text in texts])
    return list(zip(*columns, strict=True))


def quoted(text: str) -> str:
    """Return text as a shell takes it."""
    import shlex

    return shlex.quote(text)


def compare(
    frame: pd.DataFrame,
    *,
    metric: str,
    margin: float,
    arm: str | Sequence[str] = "arm",
    seed: str | None = "seed",
    baseline: str | float | bool = "baseline",
    block: str | None = None,
    paired: bool | None = None,
    looks: Sequence[int] | None = None,
    direction: metrics.Direction | None = None,
    resolution: float = 0.0,
    relative: bool = False,
    k: int | None = None,
    nan: Undefined | None = None,
    sd: str | None = None,
    n: str | None = None,
) -> Comparisons:
    """Compare the arms of a frame with its baseline: one interval for each, which hold together.

    frame: a row for each run. metric: its column of results. margin: the smallest difference worth having, in the metric's
    units. arm: the column, or columns, that name what was changed. baseline: what stands there for the baseline; with
    several columns `a=1,b=2`. block: the column of tasks, data sets or folds: arms are compared within each, and over them
    with the block as the unit. seed: the column of seeds that runs are paired by. paired: None pairs where that column is
    there; False says that no two runs share anything. looks: the numbers of seeds at which the study was to be judged, where
    they were fixed before it began: `[8]`, `[5, 10]`. The last is the most that was declared; to judge fewer is a look that spends
    its part of the error, so that looks before it are named too. None: one look at α = .05. direction: None takes what the metric's name says.
    relative: margin and effects are shares of the baseline's mean (of its block), so that blocks have one scale.
    resolution: the metric's step, such as 1/1000 for an accuracy over 1,000 images. k: number of arms tried, where the frame
    holds only some. nan: what a cell without a number is, `missing`, `diverged` or `undefined`. sd, n: columns of a table of means, a row
    for each arm: `metric` is then the mean, `sd` the standard deviation of single runs, `n` their number.

    Raises StudyError where the frame cannot be judged so; it says why and shows the rows.
    """
    return judge_frame(
        frame,
        Caller(is_command=False),
        metric=metric,
        margin=margin,
        arm=arm,
        seed=seed,
        baseline=baseline,
        block=block,
        paired=paired,
        looks=looks,
        direction=direction,
        resolution=resolution,
        relative=relative,
        k=k,
        nan=nan,
        sd=sd,
        n=n,
    )


def judge_frame(
    frame: pd.DataFrame,
    caller: Caller,
    *,
    metric: str,
    margin: float,
    arm: str | Sequence[str],
    seed: str | None,
    baseline: str | float | bool,
    block: str | None,
    paired: bool | None,
    looks: Sequence[int] | None,
    direction: metrics.Direction | None,
    resolution: float,
    relative: bool,
    k: int | None,
    nan: Undefined | None,
    sd: str | None,
    n: str | None,
    origin: Origin | None = None,
    outcomes: Sequence[Outcome] | None = None,
    notes_on_rows: Sequence[str] = (),
) -> Comparisons:
    """Do what `compare` does.

    caller: whose words the errors use. origin: where the frame comes from, and how it has grown. outcomes: of each row's run,
    where they are known. notes_on_rows: what to know of the rows before trusting a verdict.
    """
    import pandas as pd

    from ablate.analysis import pairing, words
    from ablate.report.reading import Material

    origin = origin or Origin()
    if not isinstance(frame, pd.DataFrame):
        raise StudyError(
            f"a {type(frame).__name__} is no DataFrame", place="frame", hint="try pandas.DataFrame(…)"
        )
    if isinstance(margin, bool) or not isinstance(margin, numbers.Real):
        raise StudyError(f"the margin must be a number, not {margin!r}", place=caller.place("margin"))
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    arm_columns = [arm] if isinstance(arm, str) else list(arm)
    _require(frame, "arm", arm_columns, caller)
    _require(frame, "metric" if sd is None else "mean", [metric], caller)
    if direction is None and metrics.direction(metric) is None:
        raise StudyError(
            f"the name {metric!r} does not say whether more or less of it is better",
            place=caller.place("direction"),
            hint=f"{caller.setting('direction', 'maximize')} or {caller.setting('direction', 'minimize')}",
        )
    values = pd.to_numeric(frame[metric], errors="coerce")
    if not relative and metrics.is_beyond_shares(float(margin), values.to_list()):
        raise StudyError(
            f"every {metric} here lies between 0 and 1, so no difference can be more than {margin:g}",
            place=caller.place("margin"),
            hint=margin_in_points(float(margin)),
        )
    names = _arms(frame, arm_columns, caller)
    reference = _baseline(names, baseline, arm_columns, caller)
    arms = [name for name in dict.fromkeys(names) if name != reference]
    if k is not None and k < len(arms):
        raise StudyError(
            f"{k} is fewer than the {len(arms)} arms here",
            place=caller.place("k"),
            hint="k counts every arm that was tried, those that are not here among them",
        )
    if not arms:
        raise StudyError(
            f"the only arm is the baseline, {reference!r}: there is nothing to compare it with",
            place=caller.place("arm"),
        )
    question = _Question(
        frame,
        metric,
        names,
        arms,
        reference,
        float(margin),
        direction,
        resolution,
        k,
        nan,
        caller,
        arm_columns,
        relative,
        known_outcomes=tuple(outcomes or ()),
    )
    if looks is not None and (block is not None or relative):
        raise StudyError(
            "looks are declared for one study in the metric's own units", place=caller.place("looks")
        )
    if looks is not None:
        looks = list(looks) if isinstance(looks, Iterable) else [looks]
        numbers_only = all(
            isinstance(look, numbers.Integral) and not isinstance(look, bool) for look in looks
        )
        if not (looks and numbers_only and looks[0] >= 1 and looks == sorted(set(looks))):
            raise StudyError(
                f"looks are increasing numbers of seeds, not {looks}",
                place=caller.place("looks"),
                hint="--looks 5,10"
                if caller.is_command
                else "looks=[8] is one look at eight seeds, looks=[5, 10] are two",
            )
        looks = [int(look) for look in looks]
    means: tuple[str, str] | None = None
    if sd is not None or n is not None:
        if sd is None or n is None:
            missing = "sd" if sd is None else "n"
            raise StudyError(
                "a table of means needs the standard deviation and the number of runs too",
                place=caller.place(missing),
                hint="the standard deviation is that of single runs, not the standard error of their mean",
            )
        _require(frame, "sd", [sd], caller)
        _require(frame, "n", [n], caller)
        means = (sd, n)
    pairs_by = seed if means is None and _is_paired(question, seed, paired) else None
    if looks is not None and pairs_by is None:
        raise StudyError(
            "looks are numbers of pairs, and these runs are not paired", place=caller.place("looks")
        )
    if block is not None:
        _require(frame, "block", [block], caller)

    def judged(part: _Question) -> _Found:
        if means is not None:
            return _Found(_of_means(part, *means))
        if pairs_by is not None:
            return _of_pairs(part, pairs_by, looks, origin.sizes)
        return _of_groups(part, seed)

    sizes = origin.sizes or (len(frame),)
    # Declared looks are read in one go; any other has its own data and its own error.
    read_at = sizes if looks is None else (len(frame),)
    # Runs come on top of those that were there; a table of means takes the place of the last one.
    begins = (0, *read_at[:-1]) if means is not None else (0,) * len(read_at)
    parts = zip(begins, read_at, strict=True)
    asked = [question.part(*part, i) for i, part in enumerate(parts)]
    stages = [judged(part) if block is None else _in_blocks(part, block, judged) for part in asked]
    found = _together(stages)
    blocked = found.blocked
    baseline_runs = (
        found.analysis.baseline.n if blocked is None else sum(a.baseline.n for _, a in blocked.within)
    )
    notes = [*notes_on_rows, *found.notes, *_cautions(found.analysis)]
    gain = pairing.gain([found.analysis] if blocked is None else [a for _, a in blocked.within])
    if gain is not None:
        notes.insert(0, f"Paired by {pairs_by}: {words.gained(gain)}")
    if origin.read_before:
        notes.insert(
            0,
            f"Some of these runs were judged before, in {counted(origin.read_before, 'other judgement')} under this name: what "
            "each says holds for it alone",
        )
    if looks is None:
        notes.append(_nobody_planned(found.analysis.rules))
    used = [*arm_columns, metric, *(name for name in (pairs_by or seed, block, sd, n) if name in frame)]
    options = {
        "metric": metric,
        "margin": float(margin),
        "arm": arm_columns,
        "seed": seed,
        "baseline": reference,
        "block": block,
        "paired": pairs_by is not None,
        "looks": None if looks is None else list(looks),
        "direction": found.analysis.rules.direction,
        "resolution": float(resolution),
        "relative": relative,
        "k": k,
        "nan": nan,
        "sd": sd,
        "n": n,
    }
    return Comparisons(
        items=_verdicts(found.analysis),
        material=Material(
            _record(question, found.analysis, origin, options, sizes),
            found.analysis,
            found.replicates,
            pd.DataFrame(),
            blocked=blocked,
            notes=tuple(notes),
        ),
        paired=pairs_by is not None,
        n_baseline=baseline_runs,
        correlation=None if gain is None else gain.correlation,
        notes=tuple(notes),
        blocks=()
        if blocked is None
        else tuple((name, _verdicts(analysis)) for name, analysis in blocked.within),
        results=frame[list(dict.fromkeys(used))].assign(**({OUTCOME: list(outcomes)} if outcomes else {})),
    )


def _record(
    question: _Question,
    analysis: Analysis,
    origin: Origin,
    options: dict[str, Any],
    sizes: tuple[int, ...],
) -> PlanRecord:
    """The judgement as a study: what a plan declares, as far as anyone declared it."""
    import hashlib
    import json

    from ablate.data.facts import DataFacts
    from ablate.study.looks import LookPlan
    from ablate.study.record import ArmRecord, JudgedRecord, PlanRecord

    rules = analysis.rules
    declared: dict[str, Any] = {
        "study": origin.study,
        "question": "",
        "metric": rules.metric,
        "direction": rules.direction,
        "margin": rules.margin,
        "design": rules.design,
        "seeds": [n for n in rules.looks if n <= rules.most],
        "noise_floor": False,
        "confirm": False,
        "deterministic": False,
        "baseline": {},
        "factors": [],
    }
    arms = [question.baseline, *question.arms]
    family = json.dumps([options, sorted(arms)], sort_keys=True, default=str)
    return PlanRecord(
        id=hashlib.sha256(family.encode()).hexdigest()[:8],
        declared=declared,
        text="",
        resolution=rules.resolution,
        reference=question.baseline,
        arms=tuple(ArmRecord(name, None, None, {}, None, {}, DataFacts(), "") for name in arms),
        runs=(),
        looks=LookPlan(rules.most, rules.looks, analysis.look),
        judged=JudgedRecord(origin.source, options, origin.command, sizes),
    )


def _together(stages: Sequence[_Found]) -> _Found:
    """What several looks came to: an arm keeps the verdict and the interval of the look that decided it."""
    last = stages[-1]
    if len(stages) == 1:
        return last
    blocked = last.blocked
    if blocked is not None:
        earlier = [dict(stage.blocked.within) for stage in stages[:-1] if stage.blocked is not None]
        blocked = replace(
            blocked,
            over=_frozen([stage.analysis for stage in stages]),
            within=tuple(
                (name, _frozen([*(e[name] for e in earlier if name in e), analysis]))
                for name, analysis in blocked.within
            ),
        )
        return replace(last, analysis=blocked.over, blocked=blocked)
    return replace(last, analysis=_frozen([stage.analysis for stage in stages]))


def _frozen(analyses: Sequence[Analysis]) -> Analysis:
    """The last of several looks, with what was decided before as it was then."""
    last = analyses[-1]
    comparisons = []
    for arm in last.rules.arms:
        readings = [replace(a.comparison(arm.name), look=i) for i, a in enumerate(analyses, start=1)]
        comparisons.append(next((c for c in readings if c.verdict != "inconclusive"), readings[-1]))
    # These looks have a number of runs: what they are paired by may be as many as before.
    runs: list[int] = []
    for analysis in analyses:
        read = analysis.runs.finished + analysis.runs.diverged
        runs.append(max(read, runs[-1] + 1 if runs else 1))
    return replace(
        last,
        rules=replace(last.rules, looks=tuple(runs), most=0, earlier_looks=0),
        look=len(analyses),
        declared=False,
        comparisons=tuple(comparisons),
    )


def _no_runs() -> pd.DataFrame:
    """The frame of runs of which only means are known."""
    import pandas as pd

    return pd.DataFrame(columns=["arm", "seed", "phase", "outcome", "value"])


@dataclass(frozen=True)
class _Found:
    """What an analysis of some rows came to. replicates: a row for each run (arm, seed, phase, outcome, value, block)."""

    analysis: Analysis
    notes: tuple[str, ...] = ()
    replicates: pd.DataFrame = field(default_factory=_no_runs)
    blocked: BlockedAnalysis | None = None


def _verdicts(analysis: Analysis) -> tuple[ArmVerdict, ...]:
    from ablate.analysis import sentence

    return tuple(
        ArmVerdict(
            c.arm,
            c.verdict,
            c.effect,
            None if c.lo is None or c.hi is None else (c.lo, c.hi),
            c.p_adjusted,
            c.n,
            sentence(c, analysis.rules),
            c.clearly,
        )
        for c in analysis.comparisons
    )


def _cautions(analysis: Analysis, *, without: Sequence[CautionCode] = ()) -> list[str]:
    """The cautions of an analysis as sentences. without: the codes of those that are left out."""
    from ablate.analysis import caution
    from ablate.analysis.words import subject

    rules = analysis.rules
    return [
        caution(item, rules, subject(item, rules)) for item in analysis.warnings if item.code not in without
    ]


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """A frame with what is asked of it.

    names: the arm of every row; arms: those without the baseline. block: the one that all rows are of, where there are any.
    known_outcomes: what became of the run of every row; empty where only its metric tells.
    """

    frame: pd.DataFrame
    metric: str
    names: list[str]
    arms: list[str]
    baseline: str
    margin: float
    direction: metrics.Direction | None
    resolution: float
    k: int | None
    nan: Undefined | None
    caller: Caller
    arm_columns: list[str]
    relative: bool = False
    block: str | None = None
    earlier_looks: int = 0
    known_outcomes: tuple[Outcome, ...] = ()

    def part(self, start: int, stop: int, earlier_looks: int) -> _Question:
        """The question about some of the rows. earlier_looks: how many were taken before."""
        rows = slice(start, stop)
        return replace(
            self,
            frame=self.frame.iloc[rows],
            names=self.names[rows],
            known_outcomes=self.known_outcomes[rows],
            earlier_looks=earlier_looks,
        )

    def outcomes(self, values: Sequence[float]) -> list[Outcome | Literal["missing"]]:
        """What became of the run of every row; `missing`: there is none. values: of the metric; NaN where a cell has none."""
        meant: dict[Undefined | None, Outcome | Literal["missing"]] = {
            "missing": "missing",
            "undefined": "failed",
            "diverged": "diverged",
        }
        undefined = meant.get(self.nan, "missing")
        finished: Outcome = "finished"
        if not self.known_outcomes:
            return [finished if math.isfinite(value) else undefined for value in values]
        return [
            outcome if outcome != finished else finished if math.isfinite(value) else undefined
            for value, outcome in zip(values, self.known_outcomes, strict=True)
        ]

    def row(self, position: int, *columns: str) -> str:
        """One row in a message: `row 7 (adam, seed 3, loss 0.31)`."""
        cells = [cut(self.names[position], 40)]
        cells += [f"{name} {_quote(self.frame[name].iloc[position])}" for name in columns]
        return f"row {named_row(self.frame.index[position])} ({', '.join(cells)})"

    def rows(self, positions: Sequence[int], *columns: str) -> str:
        shown = "; ".join(self.row(p, *columns) for p in positions[:_SHOWN])
        rest = len(positions) - _SHOWN
        return f"{shown}{f'; and {rest} more' if rest > 0 else ''}"


def _require(frame: pd.DataFrame, option: str, columns: Sequence[str], caller: Caller) -> None:
    """Raise StudyError where the frame lacks a column, or has it twice."""
    present = [str(column) for column in frame.columns]
    for column in columns:
        if column not in present:
            raise StudyError(
                f"there is no column {column!r}",
                place=caller.place(option),
                hint=nearest(str(column), present),
            )
        if present.count(column) > 1:
            raise StudyError(
                f"{present.count(column)} columns are called {column!r}",
                place=caller.place(option),
                hint="rename all but one of them",
            )


def _plain(value: Any) -> Any:
    """A cell as a plain value: numpy's and pandas' as Python's, what is missing as None."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return None
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _quote(value: Any) -> str:
    """A cell in a message: text as it stands there."""
    value = _plain(value)
    return (cut(value) or "(empty)") if isinstance(value, str) else brief(value)


def _as_text(value: Any) -> str:
    value = _plain(value)
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else format_value(value)


def _texts(cells: pd.Series[Any]) -> list[str]:
    """The cells of a column as text, each different value written once."""
    import numpy as np
    import pandas as pd

    if isinstance(cells.dtype, pd.StringDtype):  # a million cells one by one take seconds
        codes, levels = pd.factorize(cells, use_na_sentinel=False)
        written = np.array([_as_text(level) for level in levels], dtype=object)
        return list(written[codes]) if len(written) else []
    known: dict[tuple[type, Any], str] = {}
    texts = []
    for value in cells.to_numpy(dtype=object).tolist():
        if isinstance(value, str | int | float):  # a bool and a whole number are different values of one hash
            key = (type(value), value)
            text = known.get(key)
            if text is None:
                text = known[key] = _as_text(value)
        else:
            text = _as_text(value)
        texts.append(text)
    return texts


def _keeping(frame: pd.DataFrame, without: Sequence[int], caller: Caller) -> str:
    """A condition that keeps all rows but some, to type behind a hint; empty where no column tells them apart."""
    leave = set(without)
    for at, name in enumerate(map(str, frame.columns)):
        cells = frame.iloc[:, at].tolist()  # which may be dicts, or missing
        kept = next((cell for i, cell in enumerate(cells) if i not in leave), None)
        if isinstance(kept, str) and all(
            (isinstance(cell, str) and cell == kept) is (i not in leave) for i, cell in enumerate(cells)
        ):
            return f": {caller.only(name, kept)} keeps the others"
    return ""


def _arms(frame: pd.DataFrame, columns: Sequence[str], caller: Caller) -> list[str]:
    """The name of every row's arm. Raises StudyError where one is empty, or two differ in case or spaces alone."""
    cells = [_texts(frame[column]) for column in columns]
    if len(columns) == 1:
        names = cells[0]
    else:
        names = [
            ",".join(f"{column}={cell}" for column, cell in zip(columns, row, strict=True))
            for row in zip(*cells, strict=True)
        ]
    empty = (
        [i for i, row in enumerate(zip(*cells, strict=True)) if not any(row)]
        if all("" in own for own in cells)
        else []
    )
    if empty:
        shown = joined(named_row(frame.index[i]) for i in empty[:_SHOWN])
        raise StudyError(
            f"{counted(len(empty), 'row')} without an arm: {'row' if len(empty) == 1 else 'rows'} {shown}"
            f"{' and more' if len(empty) > _SHOWN else ''}",
            place=caller.place("arm"),
            hint=f"name the arm in every row, or leave these rows out{_keeping(frame, empty, caller)}",
        )
    alike: dict[tuple[str, ...], dict[str, int]] = {}
    for (name, *parts), rows in Counter(zip(names, *cells, strict=True)).items():
        alike.setdefault(tuple(map(_plainest, parts)), {})[name] = rows
    for spellings in alike.values():
        if len(spellings) > 1:
            in_case = len({" ".join(name.casefold().split()) for name in spellings}) == 1
            written = repr if in_case else ascii  # what looks the same is told by its codes
            counts = joined(f"{written(name)} ({counted(rows, 'row')})" for name, rows in spellings.items())
            how = "differ in case or spaces alone" if in_case else "are one number, or one text to the eye"
            raise StudyError(
                f"one arm, or several? {counts} {how}",
                place=caller.place("arm"),
                hint="spell one arm in one way; give different arms different names",
            )
    return names


def _plainest(text: str) -> str:
    """Return a cell as what it means, whatever its capitals, spaces, dashes, invisible letters and the digits of a number."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(
        "-" if kind == "Pd" else letter for letter in plain if (kind := unicodedata.category(letter)) != "Cf"
    )
    plain = " ".join(plain.split())
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", plain) and (plain.isascii() and len(plain) < 40):
        number = float(plain)
        return repr(number + 0.0) if math.isfinite(number) else plain
    return plain


def _baseline(names: Sequence[str], baseline: object, columns: Sequence[str], caller: Caller) -> str:
    reference = _as_text(baseline)
    if reference not in names:
        raise StudyError(
            f"no row has the arm {reference!r}",
            place=caller.place("baseline"),
            hint=cut(nearest(reference, dict.fromkeys(names[:100_000])), 400)
            + ("" if len(columns) == 1 else f"; write it as {names[0]!r}" if names else ""),
        )
    return reference


def _numbers(question: _Question, column: str) -> list[float]:
    """A column as numbers; NaN where a cell has none. Raises StudyError where a cell is text of another kind."""
    import numpy as np
    import pandas as pd

    cells = question.frame[column]
    if pd.api.types.is_bool_dtype(cells):
        cells = cells.astype(float)
    if pd.api.types.is_numeric_dtype(cells):
        return list(cells.to_numpy(dtype=float, na_value=np.nan).tolist())
    values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    texts = cells.to_numpy(dtype=object)
    bad = [
        int(i)
        for i in np.flatnonzero(np.isnan(values))
        if isinstance(texts[i], str) and texts[i].strip().lower() not in UNDEFINED
    ]
    if bad:
        percent = all(texts[i].strip().endswith("%") for i in bad)
        raise StudyError(
            f"{counted(len(bad), 'cell')} of {column!r} should be a number: {question.rows(bad, column)}",
            place=question.caller.place("metric"),
            hint="write percentages without the sign"
            if percent
            else "choose another column, or write numbers as 0.91 or 9.1e-1",
        )
    return list(values.tolist())


def _defined(question: _Question, values: Sequence[float], *columns: str) -> list[str]:
    """Check that every run has a finite number, or that the user said what the others are. Returns a note of them."""
    import numpy as np

    finished = np.ones(len(values), bool)
    if question.known_outcomes:
        finished = np.array([outcome == "finished" for outcome in question.known_outcomes], bool)
    _refuse_beyond_squares(question, np.where(finished, values, np.nan), question.metric)
    undefined = [int(i) for i in np.flatnonzero(~np.isfinite(values) & finished)]
    if not undefined:
        return []
    caller = question.caller
    shown = question.rows(undefined, *columns, question.metric)
    if question.nan is None:
        raise StudyError(
            f"{counted(len(undefined), 'row')} of {len(values)} without a finite {question.metric}: {shown}",
            place=caller.place("metric"),
            hint=f"say what that means: {caller.setting('nan', 'diverged')} counts these runs as diverged, "
            f"{caller.setting('nan', 'undefined')} as runs whose {question.metric} cannot be computed; "
            f"{caller.setting('nan', 'missing')} leaves them out. The last two flatter an arm whose bad runs are among them",
        )
    if question.nan not in UNDEFINED_MEANS:
        raise StudyError(
            f"{question.nan!r} is not what a run can be",
            place=caller.place("nan"),
            hint=nearest(str(question.nan), UNDEFINED_MEANS),
        )
    done = {"missing": "left out", "diverged": "counted as diverged"}.get(question.nan, "counted as failed")
    return [f"{counted(len(undefined), 'run')} without a finite {question.metric} {done}: {shown}"]


def _refuse_beyond_squares(question: _Question, values: Floats, column: str) -> None:
    """Raise StudyError where a number is so large, or all are so small, that a float does not hold their squares."""
    import numpy as np

    size = np.abs(np.where(np.isfinite(values), values, 0.0))
    beyond = [int(i) for i in np.flatnonzero(size > _LARGEST)]
    if beyond:
        raise StudyError(
            f"{counted(len(beyond), 'cell')} of {column!r} {'is' if len(beyond) == 1 else 'are'} beyond {_LARGEST:g}: "
            f"{question.rows(beyond, column)}",
            place=question.caller.place("metric"),
            hint=f"where the run diverged write inf there, and {question.caller.setting('nan', 'diverged')} counts it so; else write "
            "the column in a larger unit",
        )
    if 0.0 < size.max(initial=0.0) < 1.0 / _LARGEST:
        raise StudyError(
            f"every number in {column!r} is below {1.0 / _LARGEST:g}: {question.row(int(size.argmax()), column)}",
            place=question.caller.place("metric"),
            hint="write the column in a smaller unit",
        )


def _is_paired(question: _Question, seed: str | None, paired: bool | None) -> bool:
    """Whether runs are paired by seed. Raises StudyError where they were to be, and cannot."""
    caller, present = question.caller, seed is not None and seed in question.frame.columns
    if paired is False:
        return False
    if seed is None or (not present and seed == "seed" and not caller.is_command):
        raise StudyError(
            "are the runs paired by a seed, or not? There is no column 'seed'",
            place=caller.place("seed"),
            hint=f"{caller.setting('seed', 'COLUMN')} pairs runs that share their seed; {caller.unpaired()} says that no two "
            "runs share anything",
        )
    _require(question.frame, "seed", [seed], caller)
    if step_rank(seed) is not None:
        raise StudyError(
            f"{seed!r} counts the steps of a run: several of one run are no runs",
            place=caller.place("seed"),
            hint="--at says which step of each run counts"
            if caller.is_command
            else "keep one row of each run",
        )
    if is_counter(seed):
        raise StudyError(
            f"{seed!r} counts or names runs: run 3 of one arm has nothing in common with run 3 of another",
            place=caller.place("seed"),
            hint=f"{caller.unpaired()} compares them as they are. If it is the seed of the training, call the column `seed`",
        )
    return True


# --- blocks -----------------------------------------------------------------------------------------------------------


def _in_blocks(question: _Question, column: str, judged: Callable[[_Question], _Found]) -> _Found:
    """The analysis over blocks, and of each. judged: judges the rows of one block."""
    import pandas as pd

    from ablate.analysis.blocks import over_blocks

    caller = question.caller
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(_texts(question.frame[column])):
        positions.setdefault(name, []).append(i)
    if "" in positions:
        raise StudyError(
            f"{counted(len(positions['']), 'row')} without a block: {question.rows(positions[''])}",
            place=caller.place("block"),
        )
    lacking = {
        name: sorted({question.names[i] for i in at})
        for name, at in positions.items()
        if question.baseline not in {question.names[i] for i in at}
    }
    if lacking:
        name, arms = next(iter(lacking.items()))
        raise StudyError(
            f"{len(lacking)} of {counted(len(positions), 'block')} have no run of {question.baseline!r}: {cut(name, 40)!r} has "
            f"{cut(joined(map(repr, arms)), 200)}",
            place=caller.place("block"),
            hint=_mended(question, positions)
            or "call an arm the same in every block, or leave out the blocks where the baseline is missing",
        )
    number = max(question.k or 0, len(question.arms))
    found = {}
    for name, at in positions.items():
        part = replace(
            question,
            frame=question.frame.iloc[at],
            names=[question.names[i] for i in at],
            k=number * len(positions),
            block=name,
            known_outcomes=tuple(question.known_outcomes[i] for i in at) if question.known_outcomes else (),
        )
        found[name] = judged(part)
    blocked_by = over_blocks({name: one.analysis for name, one in found.items()}, k=number)
    notes = [
        f"In {name}: {note}"
        for name, one in found.items()
        for note in (*one.notes, *_cautions(one.analysis, without=("margin-out-of-reach", "judged-on-test")))
    ]
    if len(notes) > _MOST_NOTES:
        notes = [*notes[:_MOST_NOTES], f"and {len(notes) - _MOST_NOTES} more such notes on blocks"]
    replicates = [one.replicates.assign(block=name) for name, one in found.items()]
    return _Found(blocked_by.over, tuple(notes), pd.concat(replicates), blocked_by)


def _mended(question: _Question, positions: Mapping[str, Sequence[int]]) -> str | None:
    """What to type where arms are called differently in some blocks, and the same without a part of their names.

    None where no part of names does that: `c51_atari` in some blocks and `c51` in others.
    """
    strips = naming_strips([{question.names[i] for i in at} for at in positions.values()], question.baseline)
    if strips is None:
        return None
    if question.caller.is_command:
        return f"{' '.join(question.caller.setting('strip', text) for text in strips)} takes that out of the arms' names"
    column = question.arm_columns[0]
    return "; ".join(f"frame[{column!r}] = frame[{column!r}].str.replace({text!r}, '')" for text in strips)


def naming_strips(arms_in: Sequence[set[str]], baseline: str) -> list[str] | None:
    """Return what to take out of the arms' names, so that every block has the baseline; None where nothing short does that.

    arms_in: the names of the arms in each block.
    """
    import re

    strips: list[str] = []
    for names in arms_in:
        now = {name: _without(name, strips) for name in names}
        if baseline in now.values():
            continue
        parts = {
            text
            for name in now.values()
            for start, end in itertools.combinations(
                [0, *(m.start() for m in re.finditer(r"(?<=.)[\s_./:-]+|(?<=[\s_./:-]).|\Z", name))], 2
            )
            if (text := name[start:end]) and text != name
        }
        mending = [
            text
            for text in sorted(parts, key=lambda text: (len(text), text))
            if baseline in (stripped := {_without(name, [text]) for name in now.values()})
            and len(stripped) == len(names)
        ]
        if not mending:
            return None
        strips.append(mending[0])
    if not strips or len(strips) > _MOST_STRIPS:
        return None
    for names in arms_in:
        stripped = {_without(name, strips) for name in names}
        if len(stripped) < len(names) or baseline not in stripped:
            return None
    return strips


def _without(name: str, texts: Sequence[str]) -> str:
    for text in texts:
        name = name.replace(text, "")
    return name.strip()


# --- paired by seed ---------------------------------------------------------------------------------------------------


def _seeds(question: _Question, column: str) -> list[int]:
    """The seed of every row. Raises StudyError where one is no whole number, or where all rows have the same."""
    import numpy as np
    import pandas as pd

    caller = question.caller
    # What is equal is one seed, whatever its type.
    codes, levels = pd.factorize(question.frame[column].to_numpy(dtype=object), use_na_sentinel=False)
    known: list[int] = []
    for code, cell in enumerate(levels):
        value = _plain(cell)
        if isinstance(value, str):
            value = _seed_of(value.strip())
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        whole = whole or (isinstance(value, float) and value.is_integer())
        if not whole:
            first = int(np.argmax(codes == code))
            raise StudyError(
                f"{_quote(cell)} is no seed: {question.row(first, column)}",
                place=caller.place("seed"),
                hint=f"seeds are whole numbers; {caller.unpaired()} compares runs that share none",
            )
        known.append(int(value))
    seeds = list(np.array(known, dtype=object)[codes]) if known else []
    _refuse_constant(question, column, seeds)
    return seeds


def _seed_of(text: str) -> int | float | None:
    """The number that a seed is written as, `3`, `03` or `3.0`; None for other texts, such as `1_0`."""
    if re.fullmatch(r"[-+]?[0-9]{1,1000}", text):
        return int(text)
    return float(text) if re.fullmatch(r"[-+]?[0-9]{1,15}(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?", text) else None


def _refuse_constant(question: _Question, column: str, seeds: Sequence[object]) -> None:
    if len(set(seeds)) == 1 and len(seeds) > len(set(question.names)):
        raise StudyError(
            f"{column!r} is {seeds[0]} in every row: runs under one seed are no repeats, and what varies between them is "
            "not the seed",
            place=question.caller.place("seed"),
            hint="train each arm under several seeds. If the runs did have different ones, leave this column out of the file",
        )


def _refuse_duplicates(question: _Question, column: str, seeds: Sequence[object], *, paired: bool) -> None:
    """Raise StudyError where two rows have the same arm and seed, with what else tells them apart."""
    if len(set(zip(question.names, seeds, strict=True))) == len(seeds):
        return
    first: dict[tuple[str, object], int] = {}
    pairs: list[tuple[int, int]] = []
    for i, cell in enumerate(zip(question.names, seeds, strict=True)):
        if cell in first:
            pairs.append((first[cell], i))
        else:
            first[cell] = i
    one, other = pairs[0]
    caller = question.caller
    frame = question.frame
    differing = []
    for name in frame.columns:
        values = [_plain(frame[name].iloc[i]) for i in (one, other)]
        if str(name) not in {question.metric, column, *question.arm_columns} and values[0] != values[1]:
            repeated = frame[name].nunique() <= len(frame) // 2 and not is_counter(str(name))
            if repeated and not isinstance(values[0], float):
                differing.append((str(name), str(values[0])))
    if differing:
        name, value = differing[0]
        hint = (
            f"they differ in {joined(d for d, _ in differing)}: compare within each, {caller.setting('block', name)}; in one alone, "
            f"{caller.only(name, value)}; or let it name the arm too, beside the other: {caller.setting('arm', name)}"
        )
    else:
        hint = "leave out all but one of them; " + (
            f"{caller.unpaired()} where {column!r} is no seed, and another name for it"
            if paired
            else f"give {column!r} another name where it is no seed"
        )
    raise StudyError(
        f"{counted(len(pairs), 'row repeats', 'rows repeat')} an arm under the same seed: {question.row(one, column, question.metric)} and "
        f"{question.row(other, column, question.metric)}",
        place=caller.place("seed"),
        hint=hint,
    )


def _of_pairs(question: _Question, column: str, looks: Sequence[int] | None, sizes: Sequence[int]) -> _Found:
    """The analysis of runs that are paired by seed.

    looks: the declared ones. sizes: the rows up to each look that was taken; empty: all of them, at one look.
    """
    import pandas as pd

    from ablate.analysis import ArmRule, Rules, judge
    from ablate.analysis.unpaired import baseline_scale

    caller = question.caller
    seeds = _seeds(question, column)
    _refuse_duplicates(question, column, seeds, paired=True)
    values = _numbers(question, question.metric)
    notes = _defined(question, values, column)
    frame = pd.DataFrame(
        {
            "arm": question.names,
            "seed": seeds,
            "phase": "report",
            "outcome": question.outcomes(values),
            "value": values,
        }
    )
    frame = frame[frame["outcome"] != "missing"]
    _refuse_single_runs(question, frame["arm"][frame["outcome"] != "failed"].tolist())
    seeds_of = {str(name): set(own) for name, own in frame.groupby("arm", sort=False, observed=True)["seed"]}
    shared = seeds_of.get(question.baseline, set())
    strangers = [a for a in question.arms if a in seeds_of and not shared & seeds_of[a]]
    if strangers:
        raise StudyError(
            f"{joined(map(repr, strangers[:_SHOWN]))} and the baseline share no seed: there is no pair",
            place=caller.place("seed"),
            hint=f"{caller.unpaired()} compares runs that share none",
        )
    copies = _copies(question, frame)
    notes += _shared_values(question, frame, copies, paired=True)
    # Runs whose results agree to the last digit have, as far as anyone can see, one trace.
    frame["trace"] = frame["arm"].map(dict.fromkeys(copies, "one")) if copies else ""
    most = max(1, len(set(frame["seed"])))
    own = frame["value"][(frame["arm"] == question.baseline) & (frame["outcome"] == "finished")]
    divisor = baseline_scale(float(own.mean())) if question.relative else 1.0
    replicates = frame.drop(columns="trace")
    frame["value"] /= divisor
    at: tuple[int, ...] = (most,)
    order: tuple[int, ...] = ()
    if looks is not None:
        at, order = _declared_looks(seeds, looks, sizes or (len(seeds),))
    rules = Rules(
        metric=question.metric,
        margin=question.margin,
        looks=at,
        most=looks[-1] if looks is not None else 0,
        seeds=order,
        arms=tuple(ArmRule(name) for name in question.arms),
        direction=question.direction,
        resolution=question.resolution / divisor,
        reference=question.baseline,
        planned=looks is not None,
        family=question.k or 0,
        relative=question.relative,
        earlier_looks=question.earlier_looks,
        judged_on="test" if metrics.reads_test_set(question.metric) else "validation",
        has_study_file=False,
    )
    analysis = judge(rules, frame, closed=len(rules.looks))
    if question.relative:  # what was recorded is shown as it was
        analysis = replace(
            analysis,
            baseline=_times(analysis.baseline, divisor),
            comparisons=tuple(replace(c, summary=_times(c.summary, divisor)) for c in analysis.comparisons),
        )
    return _Found(analysis, tuple(notes), replicates)


def _declared_looks(
    seeds: Sequence[int], declared: Sequence[int], sizes: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of seeds that were looked at, and the seeds in the order in which they came.

    Those that were declared, as far as the results reach, and where the results ended each time that they were judged.
    """
    order: dict[int, None] = {}
    taken = []
    for start, stop in zip((0, *sizes), sizes, strict=False):
        order |= dict.fromkeys(sorted(seeds[start:stop]))
        taken.append(len(order))
    return tuple(sorted({*taken, *(look for look in declared if look <= taken[-1])})), tuple(order)


def _times(summary: ArmSummary, factor: float) -> ArmSummary:
    """Return the figures of an arm on another scale."""

    def scaled(value: float | None) -> float | None:
        return None if value is None else value * factor

    return replace(
        summary,
        mean=scaled(summary.mean),
        sd=scaled(summary.sd),
        low=scaled(summary.low),
        high=scaled(summary.high),
    )


def _copies(question: _Question, frame: pd.DataFrame) -> set[str]:
    """Arms whose runs all have the same result, to the last digit: three at least.

    A metric in coarse steps ties honestly. There, such an arm has copies only where the noise of the others makes ties
    improbable, or, where nothing varies anywhere, from ten runs on. A share of which all runs have the whole ties at any step.
    """
    import numpy as np

    from ablate.analysis import ties

    finished = frame[frame["outcome"] == "finished"].groupby("arm", sort=False, observed=True)["value"]
    table = finished.agg(["size", "min", "max"])
    constant = table[(table["size"] >= 3) & (table["min"] == table["max"])]
    if is_share(question.metric):
        constant = constant[~constant["min"].isin(_ENDS_OF_SHARES)]
    q = question.resolution
    if q <= 0 or constant.empty:
        return {str(name) for name in constant.index}
    others = table[(table["size"] >= 2) & (table["min"] < table["max"])]
    if others.empty:
        return {str(name) for name in constant.index[constant["size"] >= _SURELY_COPIES]}
    # The median: an arm of much more noise than the others says nothing of how often theirs tie.
    noise = float(np.median([ties.noise(finished.get_group(name).to_numpy()) for name in others.index]))
    tie = ties.tie_probability(noise, q)
    chance = np.power(tie, constant["size"].to_numpy(dtype=float) - 1.0)
    return {str(name) for name in constant.index[chance < _IMPROBABLE]}


def _shared_values(
    question: _Question, frame: pd.DataFrame, copies: Collection[str], *, paired: bool
) -> list[str]:
    """Notes on arms whose runs have the values of the baseline's, or of each other, to the last digit, more often than chance gives.

    copies: arms of which that is known, and no comparison. Raises StudyError where runs that nothing else tells apart are there several times.
    """
    from ablate.analysis import ties

    finished = frame[frame["outcome"] == "finished"]
    values = {
        str(name): own.to_numpy(dtype=float)
        for name, own in finished.groupby("arm", sort=False, observed=True)["value"]
    }
    step = question.resolution if question.resolution > 0 else ties.step(values.values())
    repeated = [name for name, own in values.items() if ties.has_copies(own, step, len(values))]
    if repeated and not paired:
        raise StudyError(
            f"runs of {joined(map(repr, repeated[:_SHOWN]))} have the same {question.metric} to the last digit, more often than chance "
            "gives: rows that stand there several times are no more runs",
            place=question.caller.place("arm"),
            hint=f"leave out all but one of each; where {question.metric} comes in coarse steps, "
            f"{question.caller.setting('resolution', 'STEP')} says so",
        )
    repeated += ties.repeating(
        {name: own for name, own in values.items() if name not in {*repeated, *copies}}
    )
    of_whom = "under different seeds " if paired else ""
    notes = [
        f"runs of {name} {of_whom}have the same {question.metric} to the last digit, more often than chance gives: are they copies?"
        for name in repeated
    ]
    reference = values.get(question.baseline)
    if reference is not None:
        notes += [
            f"{name} has the values of {question.baseline} to the last digit: these are the same runs, or what {name} changes does not "
            "reach the training"
            for name, own in values.items()
            if name != question.baseline and ties.are_copies(own, reference, step, len(values))
        ]
    return notes


# --- not paired -------------------------------------------------------------------------------------------------------


def _of_groups(question: _Question, seed: str | None) -> _Found:
    """The analysis of runs that are not paired."""
    import numpy as np
    import pandas as pd

    from ablate.analysis.groups import Group

    if seed is None:
        seed = next((str(name) for name in question.frame.columns if is_seed(str(name))), None)
    if seed is not None and seed in question.frame.columns and not is_counter(seed):
        # They are not paired by it, but it tells what is no repeat.
        cells = _texts(question.frame[seed])
        _refuse_constant(question, seed, cells)
        _refuse_duplicates(question, seed, cells, paired=False)
    values = _numbers(question, question.metric)
    notes = _defined(question, values)
    frame = pd.DataFrame({"arm": question.names, "value": values})
    frame["outcome"] = question.outcomes(values)
    frame = frame[frame["outcome"] != "missing"]
    counts = frame.groupby(["arm", "outcome"], sort=False, observed=True).size().to_dict()
    _refuse_single_runs(question, frame["arm"][frame["outcome"] != "failed"].tolist())
    recorded, frame = frame, frame[frame["outcome"] == "finished"]
    copies = _copies(question, frame)
    notes += _shared_values(question, frame, copies, paired=False)
    groups: dict[str, Group] = {}
    by_arm = {
        str(name): own.to_numpy(dtype=float)
        for name, own in frame.groupby("arm", sort=False, observed=True)["value"]
    }
    for name in [question.baseline, *question.arms]:
        own = by_arm.get(name, np.empty(0))
        groups[name] = Group.of(
            own,
            failed=int(counts.get((name, "failed"), 0)),
            diverged=int(counts.get((name, "diverged"), 0)),
            copied=name in copies,
        )
    replicates = recorded.assign(
        seed=recorded.groupby("arm", sort=False, observed=True).cumcount() + 1, phase="report"
    )
    return _Found(_judge_groups(question, groups), tuple(notes), replicates)


_MOST_OF_SHARES = 0.71
"""Two runs of 0 and 1 have the largest standard deviation that values between 0 and 1 can have."""

_NO_DEVIATION = re.compile(
    r"(?<![a-z])(sem|stderr|std_?err(or)?|standard_error|se|ci|ci_?\d+|conf(idence)?(_interval)?)(?![a-z])",
    re.IGNORECASE,
)
"""What a column of standard errors, or of half-widths of intervals, is called."""


def _of_means(question: _Question, sd: str, n: str) -> Analysis:
    """The analysis of a table of means, standard deviations and numbers of runs."""
    import numpy as np

    from ablate.analysis.groups import Group

    caller = question.caller
    first: dict[str, int] = {}
    for i, name in enumerate(question.names):
        if name in first:
            raise StudyError(
                f"two rows have the arm {name!r}: {question.row(first[name], question.metric)} and "
                f"{question.row(i, question.metric)}",
                place=caller.place("arm"),
                hint="a table of means has one row for each arm",
            )
        first[name] = i
    means, stds, runs = (_numbers(question, column) for column in (question.metric, sd, n))
    _refuse_beyond_squares(question, np.array(means), question.metric)
    _refuse_beyond_squares(question, np.array(stds), sd)
    groups = {}
    for name, i in sorted(first.items(), key=lambda item: item[0] != question.baseline):
        number = runs[i]
        if not (math.isfinite(number) and number >= 1 and number == int(number)):
            raise StudyError(
                f"the number of runs is a whole number from 1: {question.row(i, n)}", place=caller.place("n")
            )
        if not math.isfinite(means[i]):
            raise StudyError(
                f"has no mean: {question.row(i, question.metric)}",
                place=caller.place("mean"),
                hint="leave the row out, and count its arm with k",
            )
        if number > 1 and stds[i] and (wrong := _NO_DEVIATION.search(sd)):
            kind = "half an interval" if wrong[0].lower().startswith("c") else "a standard error"
            raise StudyError(
                f"{sd!r} names {kind}, and no standard deviation",
                place=caller.place("sd"),
                hint="a standard error times the root of the number of runs is the standard deviation; rename the column where it is one",
            )
        if number > 1 and not (math.isfinite(stds[i]) and stds[i] >= 0):
            raise StudyError(
                f"the standard deviation is a number from 0: {question.row(i, sd)}",
                place=caller.place("sd"),
                hint="it is that of single runs (n − 1 below the line), not the standard error of their mean",
            )
        groups[name] = Group(int(number), means[i], stds[i] if number > 1 else math.nan)
    wide = [i for i, std in enumerate(stds) if std > _MOST_OF_SHARES]
    if wide and is_share(question.metric) and all(0 <= mean <= 1 for mean in means):
        raise StudyError(
            f"shares have no standard deviation of more than {_MOST_OF_SHARES}: {question.row(wide[0], question.metric, sd)}",
            place=caller.place("sd"),
            hint="write means and standard deviations in one unit",
        )
    return _judge_groups(question, groups)


def _judge_groups(question: _Question, groups: Mapping[str, Group]) -> Analysis:
    from ablate.analysis import ArmRule
    from ablate.analysis.unpaired import judge_groups

    return judge_groups(
        groups,
        metric=question.metric,
        margin=question.margin,
        baseline=question.baseline,
        direction=question.direction,
        resolution=question.resolution,
        relative=question.relative,
        k=question.k,
        arms=tuple(ArmRule(name) for name in question.arms),
        earlier_looks=question.earlier_looks,
    )


# --- what every judgement says ----------------------------------------------------------------------------------------


def _refuse_single_runs(question: _Question, names: Sequence[str]) -> None:
    """Raise StudyError where no arm has a second run: nothing says how much runs differ by themselves."""
    if question.baseline not in names:
        raise StudyError(
            f"no run of the baseline {question.baseline!r} has a finite {question.metric}",
            place=question.caller.place("baseline"),
        )
    # Over blocks the unit is the block, and one run in each says something.
    if question.block is not None or len(set(names)) < len(names):
        return
    kind = (
        f"{len(set(names)):,} settings were run once each: these are the trials of a search, and no repeats"
        if len(set(names)) > 30
        else "every arm was run once"
    )
    raise StudyError(
        f"{kind}. No verdict: nothing says how much two runs of one arm differ by their seeds alone",
        place=question.caller.place("arm"),
        hint="run the baseline and the arms that matter under three seeds or more",
    )


def _nobody_planned(rules: Rules) -> str:
    return (
        f"Nobody planned the arms, the number of runs or the margin: the error of {100 * rules.spent:.3g} % over "
        f"{counted(rules.k, 'comparison')} holds only if none of them was chosen by looking at the results"
    )
