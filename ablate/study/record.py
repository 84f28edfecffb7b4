"""The record of a plan: everything the store holds of it, typed, frozen and versioned.

A study is judged, reported, resumed and extended by its record, never by its file: an edit of the file or an upgrade of
ablate does not change what a finished study says. What a run adds (top-ups, the steps of a path, tuned values, a
confirmation) makes a new record (`dataclasses.replace`); none is changed in place. Importing this module loads nothing but
the standard library, so that `status` and `report` begin at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from ablate import plain_files
from ablate.data.facts import DataFacts, notes
from ablate.errors import StoreError
from ablate.metrics import Direction, JudgedOn
from ablate.study.looks import LookPlan
from ablate.study.search import SearchSettings
from ablate.study.seeds import NOISE_FLOOR, Phase
from ablate.text import cut, format_value

VERSION = 2
"""Of the JSON form. 1 had no `looks` but those of the study file, and beside them the totals of undeclared ones. 0 is the form
without a version, in which the study's keys stood among the plan's own."""

Design = Literal["one-at-a-time", "leave-one-out", "both", "factorial", "fractional", "path", "search"]


@dataclass(frozen=True)
class ArmRecord:
    """One arm as it was planned; fields as in `study.design.Arm`. config: its configuration as plain values.

    data: what it trains on. code: digest of the code that trains it.
    """

    name: str
    factor: str | None
    level: Any
    levels: Mapping[str, Any]
    reference: str | None
    config: Mapping[str, Any]
    data: DataFacts
    code: str


@dataclass(frozen=True)
class RunRecord:
    """One planned run. values: of a run that tunes or searches, what it tries, by path."""

    arm: str
    seed: int
    phase: Phase
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FactorRecord:
    """A factor with its levels, each a set of overrides: path → value."""

    name: str
    levels: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class FractionRecord:
    """Which of all combinations a fractional design runs; fields as in `study.fraction.Fraction`. words: it in a sentence."""

    factors: tuple[str, ...]
    columns: tuple[int, ...]
    cells: int
    words: str


@dataclass(frozen=True)
class CandidateRecord:
    """Values that did well in a search, re-evaluated on `runs` seeds. mean: of the metric; None where not all of them trained.

    cost: mean of the second objective, where there is one.
    """

    values: Mapping[str, Any]
    mean: float | None
    runs: int
    cost: float | None = None


@dataclass(frozen=True)
class TunedArm:
    """What an arm's search came to. values: what the arm trains from here on, by path.

    searched: whether anything that was tried trained; if not, `values` are those of the study file. edge: settings whose best
    value lies at an end of their range → `lower` or `upper`. optuna: name of the search in Optuna's storage.
    """

    values: Mapping[str, Any]
    searched: bool
    candidates: tuple[CandidateRecord, ...]
    edge: Mapping[str, str]
    optuna: str


@dataclass(frozen=True)
class JudgedRecord:
    """How results that were there already were judged: what a study has in place of planned runs.

    source: what they were read from. options: arguments of `ablate.compare`, as plain values. command: what judges them
    again. sizes: at each look, the number of runs (or rows of a table of means) that it read.
    """

    source: str
    options: Mapping[str, Any]
    command: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class PlanRecord:
    """A plan, complete enough to judge, report, resume and extend the study without its file.

    id: names the plan. declared: what the study declares, key → plain value (`Study.plain`); the properties below read it.
    text: the study file as it was read. resolution: smallest step of the metric (0: none). reference: the arm that every arm
    is compared with unless it names one of its own. runs: every run that was planned, in order. own_training: what the user's
    code that trains is called; None: the built-in training. isolation: how its runs are kept apart, in sentences. looks: when the study is judged, `most` as it was when the first look
    was taken. judged: of results that were there already, which have no runs here.

    What is added while the study runs: looks; path: the configurations that a greedy path has reached; steps: how many it will
    reach. confirmed: the arm that is confirmed. final: pairs of the last look that decided an arm (0: none), within which failures
    stay failures. read_before: how many other plans, of this study or another, have judged runs of this one. tuned: arm → what its search came to.
    importances: method → setting → share.
    """

    id: str
    declared: Mapping[str, Any]
    text: str
    resolution: float
    reference: str
    arms: tuple[ArmRecord, ...]
    runs: tuple[RunRecord, ...]
    looks: LookPlan
    own_training: str | None = None
    isolation: str = ""
    path: tuple[str, ...] = ()
    steps: int = 0
    confirmed: str | None = None
    final: int = 0
    read_before: int = 0
    tuned: Mapping[str, TunedArm] = field(default_factory=dict)
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    judged: JudgedRecord | None = None

    @property
    def data_notes(self) -> tuple[str, ...]:
        """Return what to know of the data of the arms, in sentences."""
        return notes({arm.name: arm.data for arm in self.arms})

    # --- what the study declares ---

    @property
    def study(self) -> str:
        """Name of the study, and of its experiment."""
        return str(self.declared["study"])

    @property
    def question(self) -> str:
        return str(self.declared["question"])

    @property
    def metric(self) -> str:
        return str(self.declared["metric"])

    @property
    def direction(self) -> Direction:
        return cast("Direction", self.declared["direction"])

    @property
    def margin(self) -> float:
        """Smallest difference worth having, in the metric's units."""
        return float(self.declared["margin"])

    @property
    def design(self) -> Design:
        return cast("Design", self.declared["design"])

    @property
    def stops(self) -> tuple[int, ...]:
        """Numbers of seeds at which the study file asks for a look, ascending."""
        return tuple(self.declared["seeds"])

    @property
    def first_seed(self) -> int:
        """Seed of the first report replicate."""
        return int(self.declared.get("first_seed", 0))

    @property
    def noise_floor(self) -> bool:
        return bool(self.declared["noise_floor"])

    @property
    def confirm(self) -> bool:
        return bool(self.declared["confirm"])

    @property
    def deterministic(self) -> bool:
        return bool(self.declared["deterministic"])

    @property
    def judged_on(self) -> JudgedOn:
        """The data by which arms are chosen."""
        return cast("JudgedOn", self.declared.get("judged_on", "validation"))

    @property
    def unpaired(self) -> bool:
        return bool(self.declared.get("unpaired", False))

    @property
    def baseline(self) -> Mapping[str, Any]:
        """The baseline's configuration as plain values."""
        return cast("Mapping[str, Any]", self.declared["baseline"])

    @property
    def factors(self) -> tuple[FactorRecord, ...]:
        return tuple(FactorRecord(f["name"], tuple(f["levels"])) for f in self.declared["factors"])

    @property
    def fraction(self) -> FractionRecord | None:
        plain = self.declared.get("fraction")
        if not plain:
            return None
        return FractionRecord(
            tuple(plain["factors"]), tuple(plain["columns"]), plain["cells"], plain.get("words", "")
        )

    @property
    def nuisance(self) -> Mapping[str, Any]:
        """Settings that are tuned for every arm → their ranges, as the study has them."""
        return self.declared.get("nuisance") or {}

    @property
    def space(self) -> Mapping[str, Any]:
        """What a search searches: setting → range, as the study has it."""
        return self.declared.get("space") or {}

    @property
    def search(self) -> SearchSettings | None:
        plain = self.declared.get("search")
        return SearchSettings(**plain) if plain else None

    # --- its parts ---

    def arm(self, name: str) -> ArmRecord:
        """Return the arm of that name; of A/A the reference, which it trains under other seeds. Raises KeyError."""
        wanted = self.reference if name == NOISE_FLOOR else name
        for arm in self.arms:
            if arm.name == wanted:
                return arm
        raise KeyError(name)

    def runs_by_key(self) -> dict[str, RunRecord]:
        """Run key → planned run."""
        return {run.key: run for run in self.runs}

    # --- JSON ---

    def to_json(self) -> dict[str, Any]:
        """As plain values for `from_json`; they share their parts with this record."""
        plain = dict(vars(self))
        plain["arms"] = [vars(arm) | {"data": vars(arm.data)} for arm in self.arms]
        plain["runs"] = [
            {name: value for name, value in vars(run).items() if name != "values" or value}
            for run in self.runs
        ]
        plain["looks"] = vars(self.looks)
        plain["tuned"] = {
            arm: vars(tuned) | {"candidates": [vars(candidate) for candidate in tuned.candidates]}
            for arm, tuned in self.tuned.items()
        }
        plain["judged"] = None if self.judged is None else vars(self.judged)
        return {"version": VERSION, **plain}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> PlanRecord:
        """Return the record in plain values, of this version or an older one.

        Raises StoreError for one of a newer ablate, and where they are not what a record is written as.
        """
        version = plain.get("version", 0) if isinstance(plain, Mapping) else None
        if isinstance(version, int) and version > VERSION:
            raise StoreError(
                f"the plan was recorded by a newer ablate (version {version} of the record, known here: {VERSION})",
                hint="upgrade ablate to read it",
            )
        try:
            record = cls._from_plain(plain, version)
            record._check()  # noqa: SLF001 — of its own class
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            line = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise StoreError(
                f"the record of its plan is damaged ({cut(line, 100)})",
                hint="`ablate run` of its study file records it again",
            ) from None
        return record

    @classmethod
    def _from_plain(cls, plain: Mapping[str, Any], version: Any) -> PlanRecord:
        values = _of_version_0(plain) if version == 0 else {k: v for k, v in plain.items() if k != "version"}
        if version < 2:
            values["looks"] = _looks_of_version_1(values)
        _check_names(values)
        return cls(
            **values
            | {
                "arms": tuple(_arm(arm) for arm in values["arms"]),
                "runs": tuple(RunRecord(**run) for run in values["runs"]),
                "path": tuple(values["path"]),
                "looks": LookPlan(**values["looks"] | {"at": tuple(values["looks"]["at"])}),
                "tuned": {arm: _tuned(search) for arm, search in values["tuned"].items()},
                "judged": _judged(values.get("judged")),
            }
        )

    def _check(self) -> None:
        """Raise one of Python's errors about values where a part is not of its kind, or refers to one that is not there."""
        texts = (self.id, self.text, self.reference, self.study, self.question, self.metric, self.direction)
        looks = (*self.stops, *self.looks.at, self.looks.most, self.looks.taken)
        counts = (self.first_seed, self.final, self.steps, self.read_before)
        numbers = (self.resolution, self.margin, *looks, *counts)
        for value, kind in [*((text, str) for text in texts), *((number, int | float) for number in numbers)]:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{cut(repr(value))} is no {'text' if kind is str else 'number'}")
        if self.direction not in ("minimize", "maximize"):
            raise ValueError(f"the direction is {cut(self.direction)!r}")
        if self.design not in get_args(Design) or not math.isfinite(self.margin):
            raise ValueError(f"the design is {cut(repr(self.design))}, the margin {self.margin}")
        if not 0 <= self.looks.taken <= len(self.looks.at) or (self.judged is None and not self.looks.at):
            raise ValueError(f"{cut(repr(self.looks))} are no looks")
        if self.judged is None:
            self.arm(self.reference)
            names = {arm.name for arm in self.arms} | {NOISE_FLOOR}
            if len(names) <= len(self.arms):
                raise ValueError("two of its arms have one name")
            phases = get_args(Phase)
            for run in self.runs:
                if not (isinstance(run.seed, int) and run.phase in phases and run.arm in names):
                    raise ValueError(f"a run of {cut(repr(run.arm))} is not one of its arms'")
        for part in (self.declared, self.nuisance, self.space, self.tuned, self.importances, *self._trees()):
            if not isinstance(part, Mapping):
                raise TypeError(f"{cut(repr(part))} is no mapping")
        _ = (self.factors, self.fraction, self.noise_floor, self.confirm, self.search)

    def _trees(self) -> list[Any]:
        return [tree for arm in self.arms for tree in (arm.levels, arm.config)] + [
            run.values for run in self.runs
        ]


# Key in version 0 → key of the study.
_DECLARED_IN_0 = {
    **{
        name: name
        for name in (
            *("study", "question", "metric", "direction", "margin", "design", "fraction", "nuisance"),
            *("space", "search", "noise_floor", "confirm", "deterministic", "train", "baseline", "factors"),
        )
    },
    "looks": "seeds",
    "declared_resolution": "resolution",
}


def _of_version_0(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record without a version: there, what the study declares stood beside the rest of the plan."""
    declared = {key: plain[name] for name, key in _DECLARED_IN_0.items() if name in plain}
    return {
        "id": plain["plan"],
        "declared": declared,
        "text": plain["text"],
        "resolution": plain["resolution"] or 0.0,
        "own_training": plain.get("train"),
        "reference": plain["reference"],
        "arms": [{"reference": None} | arm for arm in plain["arms"]],
        "runs": plain["runs"],
        "path": plain.get("path") or (),
        "steps": plain.get("steps") or 0,
        "extra_looks": plain.get("extra_looks", ()),
        "confirmed": plain.get("confirmed"),
        "final": plain.get("final", 0),
        "read_before": plain.get("read_before", 0),
        "tuned": plain.get("tuned") or {},
        "importances": plain.get("importances") or {},
    }


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse a record whose study or runs have names that no ablate gives: files are named after them. Raises StoreError."""
    names = [values["declared"]["study"], *(run["key"] for run in values["runs"])]
    names += [arm["data"]["fingerprint"] for arm in values["arms"] if arm["data"]["fingerprint"]]
    for name in names:
        if not plain_files.can_name_files(name):
            raise StoreError(
                f"the record of a plan holds a name that no ablate gives: {cut(format_value(name))}",
                hint="it was made or changed by another program; nothing of it is used",
            )


def _looks_of_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """Return the looks of a record that had those of the study file and, beyond them, undeclared ones: they stay what they were.

    Which of them were taken is not recorded, but can be told from the runs. Takes `extra_looks` out of the values.
    """
    declared = values["declared"]["seeds"]
    return {"most": declared[-1], "at": [*declared, *values.pop("extra_looks")], "taken": 0}


def _arm(plain: Mapping[str, Any]) -> ArmRecord:
    data = plain["data"]
    lists = {name: tuple(data.get(name, ())) for name in ("shape", "classes", "notes")}
    facts = DataFacts(**data | lists)
    return ArmRecord(**{**plain, "data": facts})


def _judged(plain: Mapping[str, Any] | None) -> JudgedRecord | None:
    return None if plain is None else JudgedRecord(**{**plain, "sizes": tuple(plain["sizes"])})


def _tuned(plain: Mapping[str, Any]) -> TunedArm:
    candidates = tuple(CandidateRecord(**candidate) for candidate in plain["candidates"])
    return TunedArm(**{**plain, "candidates": candidates})
