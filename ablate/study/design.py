"""Study → Plan: which arms, under which seeds, in which order.

The plan is fixed before the first run and recorded as it is; everything afterwards reads the record, so that an edit of
the study or an upgrade never changes what a finished study says.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.config import Config, key_and_recipe
from ablate.data.facts import DataFacts, notes
from ablate.errors import StudyError
from ablate.study import ranges
from ablate.study.keys import Factor, Study
from ablate.study.looks import LookPlan
from ablate.study.record import ArmRecord, Design, PlanRecord, RunRecord
from ablate.study.seeds import NOISE_FLOOR, REPLICATES, Phase, seed_of
from ablate.text import counted, cut, format_key, format_value
from ablate.training import parse_config, trainer_of

LONGEST_NAME = 200
"""Characters of an arm's name in a message."""

MOST_RUNS = 250_000
"""Runs of a plan. So many take 8 s of processor time and 340 MB to plan, and 21 MB in the store, where each look reads them."""


@dataclass(frozen=True)
class Arm:
    """The baseline with one set of overrides.

    factor, level: what the arm changes (None for the reference; a level is a scalar, a block, or {path: value} of a zipped
    factor). levels: the level of every factor of the study in this arm. reference: the arm that it is compared with, where
    that is not the plan's.
    """

    name: str
    factor: str | None
    level: Any
    config: Config
    levels: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None


@dataclass(frozen=True)
class Run:
    """A planned replicate. key: names it. recipe: the part of the key that does not depend on the code.

    values: of a run that tunes or searches, what it tries, by path.
    """

    key: str
    recipe: str
    arm: str
    seed: int
    phase: Phase
    values: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class Plan:
    """Arms × seeds. arms[0] is the reference that every other arm is compared with, unless it names one of its own.

    data, codes: of each arm, by name. Keys of runs derive from them and the arm's config. path: the configurations that a
    greedy path has reached, in order; ahead: those that it may still reach.
    tuned: arm → the values of its nuisance settings at which the arms are compared; empty until the searches are over.
    looks: when the arms are judged. recorded_id: what the plan was called when it was recorded; '': it was not yet.
    """

    study: Study
    arms: tuple[Arm, ...]
    data: Mapping[str, DataFacts]
    codes: Mapping[str, str]
    looks: LookPlan
    path: tuple[str, ...] = ()
    ahead: tuple[Arm, ...] = ()
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    recorded_id: str = field(default="", compare=False)

    @property
    def reference(self) -> str:
        return self.arms[0].name

    def arm(self, name: str) -> Arm:
        return self._by_name[name]

    @functools.cached_property
    def _by_name(self) -> Mapping[str, Arm]:
        return {arm.name: arm for arm in (*self.arms, *self.ahead)}

    @property
    def choices(self) -> tuple[Arm, ...]:
        """Return the arms among which a greedy path takes its next step; none at its end, and for other designs."""
        if self.study.design != "path":
            return ()
        last = self.path[-1] if self.path else self.reference
        return tuple(arm for arm in self.arms[1:] if (arm.reference or self.reference) == last)

    def onward(self, name: str) -> Plan:
        """Return the plan after a greedy path has stepped to one of its choices: the configurations one change further join its arms."""
        reached = self.arm(name)
        steps = []
        for factor in self.study.factors:
            levels = {**reached.levels, factor.name: _level(factor.levels[0])}
            arm = next((arm for arm in self.ahead if arm.levels == levels), None)
            if arm is not None:
                level = levels[factor.name]
                steps.append(dataclasses.replace(arm, factor=factor.name, level=level, reference=name))
        joined = {arm.name for arm in steps}
        ahead = tuple(arm for arm in self.ahead if arm.name not in joined)
        return dataclasses.replace(self, arms=(*self.arms, *steps), path=(*self.path, name), ahead=ahead)

    def config(self, run: Run) -> Config:
        """Return the configuration that a run trains, seed included."""
        arm = self._trained_arm(run.arm)
        config = self.arm(arm).config
        if run.phase == "tune":
            return config.override(run.values).with_seed(run.seed)
        return (config if run.phase == "fixed" else self._tuned_config(arm)).with_seed(run.seed)

    def fingerprint(self, run: Run) -> str:
        """Return the fingerprint of the data that a run trains on."""
        return self.data[self._trained_arm(run.arm)].fingerprint

    def code(self, run: Run) -> str:
        """Return the digest of the code that a run is to be trained by."""
        return self.codes[self._trained_arm(run.arm)]

    def _trained_arm(self, arm: str) -> str:
        """Return the arm that runs of this name train: of A/A the reference, under other seeds."""
        return self.reference if arm == NOISE_FLOOR else arm

    def _tuned_config(self, arm: str) -> Config:
        """Return an arm's configuration at its tuned values, where the arms are compared."""
        config = self.arm(arm).config
        return config.override(self.tuned[arm]) if self.tuned.get(arm) else config

    def trial(self, arm: str, values: Mapping[str, Any], number: int = 0) -> Run:
        """Return a run that tries values on an arm. number: the replicate of the tuning phase that it is."""
        seed = seed_of("tune", number)
        config = self.arm(arm).config.override(values)
        # Another block may be other code.
        code = config.code() if any("." not in path for path in values) else self.codes[arm]
        config, fingerprint = config.with_seed(seed), self.data[arm].fingerprint
        return Run(*key_and_recipe(config, fingerprint, code), arm, seed, "tune", dict(values))

    def file_values(self, arm: str) -> dict[str, Any]:
        """Return the values that the study file gives an arm's nuisance settings, by path."""
        return {setting.path: self.arm(arm).config.get(setting.path) for setting in self.study.nuisance}

    def run(self, arm: str, replicate: int, phase: Phase = "report") -> Run:
        """Return the run of an arm's replicate 0, 1, … in a phase; every phase has its own range of seeds."""
        place = (arm, replicate, phase)
        if place not in self._runs:
            self._runs[place] = self._run(*place)
        return self._runs[place]

    @functools.cached_property
    def _runs(self) -> dict[tuple[str, int, Phase], Run]:
        """The runs whose keys are known."""
        return {}

    def _run(self, arm: str, replicate: int, phase: Phase) -> Run:
        # Trials are none of the runs that are judged: where a study takes fresh seeds, they may be those of an earlier one.
        seed = seed_of(phase, replicate if phase == "tune" else self.study.first_seed + replicate)
        trained = self._trained_arm(arm)
        config = (self.arm(trained).config if phase == "fixed" else self._tuned_config(trained)).with_seed(
            seed
        )
        fingerprint = self.data[trained].fingerprint
        # Another block may be other code.
        other_block = phase != "fixed" and any("." not in path for path in self.tuned.get(trained, {}))
        code = config.code() if other_block else self.codes[trained]
        return Run(*key_and_recipe(config, fingerprint, code), arm, seed, phase)

    def replicates(
        self, arms: Iterable[str], replicates: Iterable[int], phase: Phase = "report"
    ) -> Iterator[Run]:
        """Yield runs breadth first: every arm's first seed before any arm's second, so that an interrupted study is still balanced."""
        arms = list(arms)
        for replicate in replicates:
            for arm in arms:
                yield self.run(arm, replicate, "A/A" if arm == NOISE_FLOOR else phase)

    @property
    def names(self) -> tuple[str, ...]:
        """Arms in the order in which they run, the noise floor last."""
        return tuple(arm.name for arm in self.arms) + ((NOISE_FLOOR,) if self.study.noise_floor else ())

    @property
    def data_notes(self) -> tuple[str, ...]:
        """Return what to know of the data of the arms, in sentences."""
        return notes(self.data)

    @property
    def settled(self) -> bool:
        """Whether it is known what the arms train: nothing is tuned, or it has been; a search never has arms to compare."""
        return not self.study.space and (not self.study.nuisance or bool(self.tuned))

    @property
    def resolution(self) -> float:
        """Smallest step of the metric, as the study or else the training has it: 1 / images for accuracies; 0: none."""
        if self.study.resolution is not None:
            return self.study.resolution
        baseline, data = self.study.baseline, self.data[self.reference]
        return trainer_of(baseline).resolution(self.study.metric, data)

    @functools.cached_property
    def id(self) -> str:
        """Names the plan: other levels, another margin, other data or training code make another plan of the same study."""
        return self.recorded_id or self._named_by(self.study.naming())

    @property
    def earlier_id(self) -> str:
        """What versions before 0.2 called the plan: they told plans apart by the looks of the study file too."""
        return self._named_by(self.study.naming(stops=True))

    def _named_by(self, declarations: Mapping[str, Any]) -> str:
        study = self.study
        # A path names its plan by the first steps that it may take: the others follow from those and from the results.
        declared = self.arms[: 1 + len(study.factors)] if study.design == "path" else self.arms
        runs = [[run.arm, run.key] for run in self.replicates((arm.name for arm in declared), [0], "fixed")]
        return hashlib.sha256(json.dumps([declarations, runs]).encode()).hexdigest()[:12]

    def record(self) -> PlanRecord:
        """Return the record of the plan, complete enough to judge, report, resume and extend the study without its file."""
        study = self.study
        runs = self.replicates(self.names, range(self.looks.at[-1])) if self.settled else ()
        return PlanRecord(
            id=self.id,
            declared=study.plain(),
            text=study.text,
            resolution=self.resolution,
            own_training=trainer_of(study.baseline).code_name(study.baseline),
            isolation=trainer_of(study.baseline).isolation(study.baseline),
            reference=self.reference,
            arms=self.arm_records(),
            runs=tuple(RunRecord(run.arm, run.seed, run.phase, run.key) for run in runs),
            looks=self.looks,
            path=self.path,
            steps=len(study.factors) if study.design == "path" else 0,
        )

    def arm_records(self) -> tuple[ArmRecord, ...]:
        """Return the records of the arms."""
        return tuple(
            ArmRecord(
                arm.name,
                arm.factor,
                arm.level,
                dict(arm.levels),
                arm.reference,
                arm.config.tree(),
                self.data[arm.name],
                self.codes[arm.name],
            )
            for arm in self.arms
        )


def plan(study: Study, data: Callable[[Config], DataFacts], seeds: int | None = None) -> Plan:
    """Return the plan of a study. data: config → what it trains on. seeds: where to look, instead of where the file says.

    Raises StudyError where two arms turn out to be the same run, and where there would be more than `MOST_RUNS`.
    """
    arms = tuple(_ARMS[study.design](study))
    looks = looks_of(study, seeds)
    runs = len(arms) * looks.at[-1]
    if runs > MOST_RUNS and not study.space:
        raise StudyError(
            f"{counted(len(arms), 'arm')} under {counted(looks.at[-1], 'seed')} are {runs:,} runs; a plan holds at most {MOST_RUNS:,}",
            place="seeds",
            hint="take fewer seeds, or fewer levels; `--seeds N` takes one look at N",
        )
    first = 1 + len(study.factors) if study.design == "path" else len(arms)
    planned = Plan(
        study,
        arms[:first],
        {arm.name: data(arm.config) for arm in arms},
        {arm.name: arm.config.code() for arm in arms},
        looks,
        ahead=arms[first:],
    )
    for facts in planned.data.values():
        trainer_of(study.baseline).resolution(study.metric, facts)
    names = [arm.name for arm in arms]
    if len(planned.data) < len(arms):
        name = next(name for name in names if names.count(name) > 1)
        raise StudyError(
            f"two arms have the name {cut(name, LONGEST_NAME)!r}",
            place="factors",
            hint="a setting is called like an arm; give it another name",
        )
    seen: dict[str, str] = {}
    for run in planned.replicates(names, [0]):
        if run.key in seen:
            raise StudyError(
                f"the arms {cut(seen[run.key], LONGEST_NAME)!r} and {cut(run.arm, LONGEST_NAME)!r} are the same run: same settings, same data",
                place="factors",
                hint="leave one of them out; a copy of the same data under another name counts as the same",
            )
        seen[run.key] = run.arm
    return planned


def looks_of(study: Study, seeds: int | None) -> LookPlan:
    """Return the looks of a study of which nothing was judged yet. seeds: as for `plan`. Raises StudyError where there are fewer."""
    if seeds is not None and study.first_seed + seeds > REPLICATES:
        raise StudyError(
            f"{seeds} seeds from {study.first_seed} on are more than there are: {REPLICATES:,}",
            place="--seeds",
        )
    from_file = LookPlan(study.looks[-1], study.looks)
    return from_file if seeds is None else from_file.until(seeds)


def settings(study: Study) -> Iterator[Config]:
    """Yield configs that have every value which the study names: the baseline, and it at each level and each end of a range."""
    yield study.baseline
    for factor in study.factors:
        for row in factor.levels:
            yield study.baseline.override(row)
    for values in itertools.chain(*(ranges.corners([tuned]) for tuned in (*study.nuisance, *study.space))):
        yield study.baseline.override(values)


def from_record(record: PlanRecord) -> Plan:
    """Return the plan that a record describes, with the configs, data and code digests that it had."""
    arms = tuple(
        Arm(
            arm.name,
            arm.factor,
            arm.level,
            parse_config(record.declared, arm.config).with_seed(0),
            arm.levels,
            arm.reference,
        )
        for arm in record.arms
    )
    baseline = parse_config(record.declared, record.baseline).with_seed(0)
    study = Study.parse({**record.declared, "baseline": baseline, "text": record.text})
    data = {arm.name: arm.data for arm in record.arms}
    codes = {arm.name: arm.code for arm in record.arms}
    tuned = {arm: search.values for arm, search in record.tuned.items()}
    return Plan(study, arms, data, codes, record.looks, record.path, tuned=tuned, recorded_id=record.id)


def name_of(overrides: Mapping[str, Any]) -> str:
    """Return the name of an arm: `model.width=128`, comma-joined where several. Different overrides have different names."""
    return (
        ",".join(f"{format_key(path)}={format_value(value)}" for path, value in overrides.items())
        or "baseline"
    )


def _level(row: Mapping[str, Any]) -> Any:
    return next(iter(row.values())) if len(row) == 1 else dict(row)


def _base_level(study: Study, factor: Factor) -> Any:
    """Return the baseline's own level of a factor."""
    return _level({path: study.baseline.get(path) for path in factor.paths})


def _one_at_a_time(study: Study) -> Iterator[Arm]:
    base = {factor.name: _base_level(study, factor) for factor in study.factors}
    yield Arm("baseline", None, None, study.baseline, base)
    for factor in study.factors:
        for row in factor.levels:
            config = study.baseline.override(row)
            yield Arm(name_of(row), factor.name, _level(row), config, base | {factor.name: _level(row)})


def _leave_one_out(study: Study) -> Iterator[Arm]:
    base = {factor.name: _base_level(study, factor) for factor in study.factors}
    full = {factor.name: _level(factor.levels[0]) for factor in study.factors}
    rows = {factor.name: factor.levels[0] for factor in study.factors}
    yield Arm("full", None, None, study.baseline.override(_merged(rows.values())), full)
    for factor in study.factors:
        rest = _merged(row for name, row in rows.items() if name != factor.name)
        without = {path: study.baseline.get(path) for path in factor.paths}
        yield Arm(
            f"full but {name_of(without)}",
            factor.name,
            _level(without),
            study.baseline.override(rest),
            full | {factor.name: base[factor.name]},
        )


def _both(study: Study) -> Iterator[Arm]:
    """Yield every factor alone, compared with the baseline; then all factors but each one, compared with all of them."""
    yield from _one_at_a_time(study)
    full, *without = _leave_one_out(study)
    yield full
    yield from (dataclasses.replace(arm, reference=full.name) for arm in without)


def _factorial(study: Study) -> Iterator[Arm]:
    for cell in itertools.product(*((None, *factor.levels) for factor in study.factors)):
        yield _cell(study, cell)


def _fractional(study: Study) -> Iterator[Arm]:
    assert study.fraction is not None
    for number in range(study.fraction.cells):
        changed = study.fraction.changed(number)
        yield _cell(
            study, [f.levels[0] if on else None for f, on in zip(study.factors, changed, strict=True)]
        )


def _path(study: Study) -> Iterator[Arm]:
    """Yield every configuration between the baseline and the one with all factors at their levels, few changes first."""
    levels = [factor.levels[0] for factor in study.factors]
    for size in range(len(levels) + 1):
        for chosen in itertools.combinations(range(len(levels)), size):
            cell = _cell(study, [row if i in chosen else None for i, row in enumerate(levels)])
            yield dataclasses.replace(cell, reference="baseline") if size == 1 else cell


def _search(study: Study) -> Iterator[Arm]:
    """Yield the baseline, from which a search starts."""
    yield Arm("baseline", None, None, study.baseline, {})


def _cell(study: Study, rows: Sequence[Mapping[str, Any] | None]) -> Arm:
    """Return the arm of one combination of levels. rows: of each factor, None for the baseline's own level."""
    overrides = _merged(row for row in rows if row is not None)
    levels = {
        factor.name: _base_level(study, factor) if row is None else _level(row)
        for factor, row in zip(study.factors, rows, strict=True)
    }
    changed = [factor.name for factor, row in zip(study.factors, rows, strict=True) if row is not None]
    return Arm(
        name_of(overrides),
        changed[0] if len(changed) == 1 else None,
        _level(overrides) if overrides else None,
        study.baseline.override(overrides),
        levels,
    )


def _merged(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {path: value for row in rows for path, value in row.items()}


_ARMS: Mapping[Design, Callable[[Study], Iterator[Arm]]] = {
    "one-at-a-time": _one_at_a_time,
    "leave-one-out": _leave_one_out,
    "both": _both,
    "factorial": _factorial,
    "fractional": _fractional,
    "path": _path,
    "search": _search,
}


def parameter(value: Any) -> str | int | float:
    """Return a level as a number where it is one, else as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else format_value(value)
