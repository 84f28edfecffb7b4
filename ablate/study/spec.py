"""Read study files: YAML → Study.

Reading is where most mistakes are made, so it is where they are named: every message says the file, the line, the key,
and the nearest thing that would have been right. What a key by itself can be is in `keys`; here are the keys that depend on
others, and the checks that need several. Functions raise StudyError with the path of a key as its place, which `parse`
turns into file and line.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ablate import metrics
from ablate.config import Config
from ablate.errors import StudyError, nearest
from ablate.study import document, fraction, keys, ranges, search
from ablate.study.fraction import Fraction
from ablate.study.keys import KEYS, Factor, Study
from ablate.study.ranges import Range
from ablate.study.record import Design
from ablate.study.search import SearchSettings
from ablate.study.seeds import REPLICATES
from ablate.text import brief, cut, margin_in_points
from ablate.training import TRAINERS, Trainer, trainer_of, trainer_wanted

MOST_BYTES = 200_000
MOST_ARMS = 5_000

MOST_STEPS = 8
"""Factors on a path: its plan names all 2^k configurations that it may come to."""

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class DesignRules:
    """What a design takes. one_level: which level that is, where its factors have one each. least, most: numbers of factors.

    no_winner: why no arm of it can be confirmed, and what to do instead; None: one can be. tunes: whether arms can be tuned.
    """

    one_level: str | None = None
    least: int = 1
    most: int | None = None
    no_winner: tuple[str, str] | None = None
    tunes: bool = True


_CELLS = (
    "its effects get verdicts, its cells get none",
    "a cell can be the one arm of a study of its own: a factor that zips its levels, and `confirm: true`",
)
_TRIALS = (
    "its trials get no verdicts",
    "`ablate init NAME --from STUDY` writes the study that compares its best candidates with the baseline",
)
DESIGN_RULES: Mapping[Design, DesignRules] = {
    "one-at-a-time": DesignRules(),
    "leave-one-out": DesignRules("the one of the full system", least=2),
    "both": DesignRules("the one of the full system", least=3),
    "factorial": DesignRules(no_winner=_CELLS),
    "fractional": DesignRules(
        "to stand beside the baseline's", least=3, most=fraction.MOST_FACTORS, no_winner=_CELLS
    ),
    "path": DesignRules("the one at the end of the path", least=2, most=MOST_STEPS, tunes=False),
    "search": DesignRules(no_winner=_TRIALS, tunes=False),
}


def read(path: Path, *, sets: Iterable[str] = ()) -> Study:
    """Read a study file. sets: `path=value` overrides of the baseline.

    Raises StudyError for every mistake in the file or the overrides.
    """
    try:
        missing = not path.exists()
    except OSError as error:
        raise StudyError(f"cannot be read ({error.strerror})", place=brief(str(path))) from None
    if missing and path.is_symlink():
        raise StudyError("is a link that leads nowhere", place=str(path), hint="name the study's YAML file")
    if missing:
        raise StudyError("there is no such file", place=str(path), hint=_other_file(path))
    if not path.is_file():
        raise StudyError("is not a file", place=str(path), hint="name the study's YAML file")
    if path.stat().st_size > MOST_BYTES:
        raise StudyError(
            f"{path.stat().st_size:,} bytes is too large for a study; at most {MOST_BYTES:,}", place=str(path)
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise StudyError(f"cannot be read as UTF-8 text ({error})", place=str(path)) from None
    return parse(text, source=str(path), sets=sets)


def _other_file(path: Path) -> str:
    """Return a hint: the study file that was meant, beside the one that was asked for or in studies/."""
    folders = dict.fromkeys((path.parent, Path("studies")))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.y*ml"))]
    close = difflib.get_close_matches(path.stem, [file.stem for file in files], n=1, cutoff=0.6)
    meant = next((file for file in files if [file.stem] == close), None)
    if meant is not None:
        return f"did you mean {str(meant)!r}?"
    return "name the study's YAML file; `ablate init NAME` writes one"


def parse(text: str, *, source: str = "study", sets: Iterable[str] = ()) -> Study:
    """Read the YAML text of a study. source: how messages name it. Otherwise as `read`."""
    file = document.load(text, source)
    with file.places():
        values = _known_keys(file.values)
        for name, value in values.items():
            keys.refuse_passwords(value, name)
        baseline = _baseline(values, Path(source).parent)
    baseline = override(baseline, sets)
    with file.places():
        values |= _dependent_keys(values, baseline)
        study = Study.parse(values | {"text": text})
        _check_metric(study)
        _check_confirm(study)
        _check_seeds(study)
        _check_unpaired(study)
    return study


def _known_keys(values: Any) -> dict[str, Any]:
    """Return the keys of a file that have a value. Raises StudyError for unknown and for missing ones."""
    if not isinstance(values, dict):
        raise StudyError(
            "is not a study: the top level must be keys such as `study:` and `factors:`",
            hint="`ablate init NAME` writes one to start from",
        )
    for name in values:
        if name not in KEYS:
            raise StudyError(
                f"unknown key {cut(str(name))!r}", place=str(name), hint=nearest(str(name), KEYS)
            )
    given = {name: value for name, value in values.items() if value is not None}
    for name, key in KEYS.items():
        if key.missing is not None and name not in given:
            raise StudyError(f"`{name}:` is missing", hint=key.missing)
    return given


def _dependent_keys(values: Mapping[str, Any], baseline: Config) -> dict[str, Any]:
    """Read the keys whose meaning depends on other keys, in the order in which they do."""
    design: Design = keys.read_design(values.get("design", Study.model_fields["design"].default))
    searches = design == "search"
    space, _ = _ranges("factors", values["factors"], baseline) if searches else ((), None)
    factors = () if searches else _factors(values["factors"], baseline)
    if not searches:
        _check_design(design, factors)
        if design != "one-at-a-time":
            _check_combinations(factors, baseline)
    nuisance, trials = _nuisance(values.get("nuisance"), baseline, factors, design)
    return {
        "baseline": baseline,
        "factors": factors,
        "space": space,
        "nuisance": nuisance,
        "search": _search(values.get("search"), nuisance, space, trials, baseline),
        "fraction": _fraction(values.get("fraction"), design, [factor.name for factor in factors]),
    }


def _baseline(values: dict[str, Any], beside: Path) -> Config:
    """Read the baseline as a configuration of the training that the study asks for. beside: the folder of the study file."""
    trainer = trainer_wanted(values)
    _check_training_keys(trainer, values)
    if "folder" in trainer.keys:
        values["folder"] = _recorded_folder(values.get("folder", ""), beside)
    source = keys.read_some(trainer.keys, values)
    tree = values["baseline"]
    if not isinstance(tree, dict):
        raise StudyError("should be a block of keys", place="baseline")
    if "seed" in tree:
        raise StudyError(
            "the seed is not part of the baseline", place="baseline.seed", hint="`seeds:` says how many"
        )
    return trainer.parse(source, tree, place=lambda path: f"baseline.{path}" if path else "baseline")


def _recorded_folder(folder: Any, beside: Path) -> str:
    """Return a folder that a study names as its record has it: relative to the working folder where it is in it, else absolute."""
    if not isinstance(folder, str):
        raise StudyError(f"should be text (got {brief(folder)})", place="folder")
    here, there = Path.cwd().resolve(), (beside / Path(folder).expanduser()).resolve()
    return str(there.relative_to(here)) if there.is_relative_to(here) else str(there)


def _check_training_keys(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Refuse keys that belong to another kind of training than the study asks for."""
    for other in TRAINERS:
        for key in other.keys if other is not trainer else ():
            if key not in values or key in trainer.keys:
                continue
            if key == other.keys[0]:
                raise StudyError(f"`{trainer.keys[0]}:` names a training already; a study has one", place=key)
            raise StudyError(f"belongs to studies with `{other.keys[0]}:`", place=key)


def changes(sets: Iterable[str]) -> dict[str, Any]:
    """Return path → value of `path=value` texts, as `--set` takes them. Raises StudyError."""
    values: dict[str, Any] = {}
    for text in sets:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise StudyError(
                f"{cut(text)!r} is not `path=value`",
                place="--set",
                hint="for example --set training.epochs=5",
            )
        if path in KEYS and path != "baseline":
            raise StudyError(
                f"`{path}` is not part of the baseline",
                place=f"--set {path}",
                hint="--set changes the baseline; anything else is changed in the file",
            )
        values[path.removeprefix("baseline.")] = _value(path, value)
    return values


def override(config: C, sets: Iterable[str]) -> C:
    """Return a config with `path=value` texts applied, as `--set` takes them. Raises StudyError."""
    changed = changes(sets)
    try:
        for path, value in changed.items():
            keys.refuse_passwords(value, path)
        return config.override(changed) if changed else config
    except StudyError as error:
        raise StudyError(error.message, place=f"--set {cut(error.place or '')}", hint=error.hint) from None


def _value(path: str, text: str) -> Any:
    """Return the value on the right side of a `--set`, read as in a study file; without one, the empty text."""
    try:
        return document.load(text, "").values if text.strip() else ""
    except StudyError as error:
        raise StudyError(
            f"{cut(text)!r} {error.message}",
            place=f"--set {cut(path)}",
            hint="quote what YAML would take for something else: --set \"data.root='#1'\"",
        ) from None


def _check_metric(study: Study) -> None:
    """Check that the training has the metric, and that it is known whether more of it is better."""
    trainer = trainer_of(study.baseline)
    yielded = trainer.yields(study.baseline)
    if study.judged_on == "test" and trainer.metrics:
        raise StudyError(
            "the built-in training keeps validation data, so no arm need be chosen by the test set",
            place="judged_on",
            hint="leave it out; the test set is scored once for every run and reported beside the verdicts",
        )
    if metrics.reads_test_set(study.metric) and study.judged_on != "test":
        raise StudyError(
            f"{cut(study.metric)!r} would choose arms by the test set",
            place="metric",
            hint="choose on validation data, for example val/accuracy; a project that has none says `judged_on: test`, and the "
            "report says so",
        )
    if yielded and study.metric not in yielded:
        raise StudyError(
            f"{cut(study.metric)!r} is not a metric of this training",
            place="metric",
            hint=nearest(study.metric, yielded),
        )
    known = trainer.direction(study.metric)
    if known is None and "direction" not in study.model_fields_set:
        raise StudyError(
            f"{cut(study.metric)!r} does not say whether more of it is better",
            place="metric",
            hint="add `direction: maximize` or `direction: minimize`",
        )
    if trainer.metrics and study.direction != known:
        raise StudyError(
            f"{study.metric!r} is to be {known}d, not {study.direction}d",
            place="direction",
            hint="leave `direction:` out: it is known for the built-in metrics",
        )
    if trainer.metrics and known == "maximize" and study.margin >= 1:
        raise StudyError(
            f"{study.metric} lies between 0 and 1, so no difference can be {study.margin:g}",
            place="margin",
            hint=margin_in_points(study.margin),
        )


def _check_unpaired(study: Study) -> None:
    if study.unpaired and study.deterministic:
        raise StudyError(
            "`deterministic: true` says that runs of one arm are all the same, `unpaired: true` that no two share anything",
            place="unpaired",
            hint="keep the one that is true of your training",
        )


def _check_seeds(study: Study) -> None:
    if study.first_seed + study.looks[-1] > REPLICATES:
        raise StudyError(
            f"{study.looks[-1]} seeds from {study.first_seed} on are more than there are: {REPLICATES:,}",
            place="first_seed",
            hint="begin earlier, or take fewer seeds",
        )


def _check_confirm(study: Study) -> None:
    no_winner = DESIGN_RULES[study.design].no_winner
    if study.confirm and no_winner is not None:
        why, instead = no_winner
        raise StudyError(
            f"design {study.design} has no winner to confirm: {why}", place="confirm", hint=instead
        )


def _factors(plain: Any, baseline: Config) -> tuple[Factor, ...]:
    if not isinstance(plain, dict) or not plain:
        raise StudyError("should be keys with lists of levels", place="factors", hint=KEYS["factors"].missing)
    factors: list[Factor] = []
    owner: dict[str, str] = {}
    for name, levels in plain.items():
        place = f"factors.{name}"
        _check_path(name, place)
        if isinstance(levels, dict):
            if set(levels) != {"zip"} or not isinstance(levels["zip"], dict) or not levels["zip"]:
                raise StudyError(
                    "should be a list of levels, or `{zip: {path: [levels], …}}`",
                    place=place,
                    hint=KEYS["factors"].missing,
                )
            if "." in name:
                raise StudyError(
                    f"{cut(name)!r} names paths that change together: use a name without dots", place=place
                )
            columns = levels["zip"]
            for path, column in columns.items():
                _check_path(path, place)
                if not isinstance(column, list) or not column:
                    raise StudyError("should be a list of levels", place=f"factors.{name}.zip.{path}")
            if len({len(column) for column in columns.values()}) > 1:
                lengths = ", ".join(f"{path} has {len(column)}" for path, column in columns.items())
                raise StudyError(f"zipped lists need equal lengths: {lengths}", place=place)
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        else:
            if not isinstance(levels, list):
                raise StudyError(
                    f"should be a list of levels (got {brief(levels)})",
                    place=place,
                    hint=f"write `[{brief(levels)}]`",
                )
            if not levels:
                raise StudyError(
                    "has no levels", place=place, hint="list at least one that differs from the baseline"
                )
            rows = [{name: level} for level in levels]
        for path in rows[0]:
            if path in owner:
                raise StudyError(f"{path!r} is already changed by the factor {owner[path]!r}", place=place)
            owner[path] = name
        _check_levels(name, rows, baseline)
        factors.append(Factor(name=name, levels=tuple(rows)))
    return tuple(factors)


def _check_design(design: Design, factors: tuple[Factor, ...]) -> None:
    """Check that a design can be made of so many factors and levels."""
    rules = DESIGN_RULES[design]
    for factor in factors:
        if rules.one_level is not None and len(factor.levels) != 1:
            raise StudyError(
                f"{design} takes one level a factor, {rules.one_level}; here are {len(factor.levels)}",
                place=f"factors.{factor.name}",
            )
    if len(factors) < rules.least:
        raise StudyError(
            f"{design} needs at least {'two' if rules.least == 2 else 'three'} factors",
            place="factors",
            hint="with two, `design: factorial` runs the same four arms and gives their interaction"
            if rules.least == 3
            else None,
        )
    if rules.most is not None and len(factors) > rules.most:
        raise StudyError(
            f"{design} takes {rules.most} factors at most; here are {len(factors)}", place="factors"
        )
    arms = math.prod(1 + len(factor.levels) for factor in factors)
    if design == "factorial" and arms > MOST_ARMS:
        raise StudyError(
            f"makes {arms:,} arms; at most {MOST_ARMS:,}",
            place="design",
            hint="take fewer factors or levels, or `design: one-at-a-time`",
        )


def _fraction(plain: Any, design: Design, names: list[str]) -> Fraction | None:
    """Return which fraction is run: chosen for a number of cells, or given by its generators. names: of the factors."""
    if design != "fractional":
        if plain is not None:
            raise StudyError("belongs to `design: fractional`", place="fraction")
        return None
    if not isinstance(plain, dict) or len(plain) != 1 or not {"cells", "generators"} & set(plain):
        sizes = ", ".join(
            f"{n} (resolution {fraction.roman(r)})" for n, r in fraction.possible(len(names)).items()
        )
        raise StudyError(
            "should say how many of all combinations are run, or name the generators",
            place="fraction",
            hint=f"write `fraction: {{cells: N}}`; {len(names)} factors: {sizes}",
        )
    if "cells" in plain:
        cells = plain["cells"]
        allowed = [2**m for m in range(2, len(names)) if len(names) < 2**m <= fraction.MOST_CELLS]
        if isinstance(cells, bool) or cells not in allowed:
            raise StudyError(
                f"{len(names)} factors take {' or '.join(map(str, allowed))} cells (got {brief(cells)})",
                place="fraction.cells",
                hint="a power of two, more than there are factors; all combinations are `design: factorial`",
            )
        return fraction.chosen(names, cells)
    generators = plain["generators"]
    place = "fraction.generators"
    if not isinstance(generators, dict) or not generators:
        raise StudyError(
            "should be factors with the list of those whose interaction they take the place of", place=place
        )
    basic = [name for name in names if name not in generators]
    for name, basis in generators.items():
        if name not in names:
            raise StudyError(f"{cut(str(name))!r} is no factor", place=place, hint=nearest(str(name), names))
        if not isinstance(basis, list) or len(basis) < 2 or len({str(f) for f in basis}) < len(basis):
            raise StudyError(f"{name} needs a list of two or more different factors", place=place)
        for other in basis:
            if other not in basic:
                raise StudyError(
                    f"{name} cannot be generated from {cut(str(other))!r}",
                    place=place,
                    hint=f"factors without a generator of their own: {', '.join(basic)}",
                )
    if len({frozenset(basis) for basis in generators.values()}) < len(generators):
        raise StudyError("two factors have the same generator, so nothing could tell them apart", place=place)
    if 1 << len(basic) > fraction.MOST_CELLS:
        raise StudyError(f"leaves {1 << len(basic):,} cells; at most {fraction.MOST_CELLS}", place=place)
    return fraction.generated(names, generators)


def _ranges(key: str, plain: Any, baseline: Config) -> tuple[tuple[Range, ...], int | None]:
    """Return the ranges of a key, and how many trials they ask for; None where they do not."""
    if not isinstance(plain, dict) or not plain:
        raise StudyError(
            "should be settings with ranges",
            place=key,
            hint=f"for example `{key}: {{optimizer.lr: {{log: [1e-5, 1]}}}}`",
        )
    settings: list[Range] = []
    trials: set[Any] = set()
    for path, value in plain.items():
        place = f"{key}.{path}"
        _check_path(path, place)
        if path == "data" or path.startswith("data."):
            raise StudyError("a search changes no data: its runs would not be comparable", place=place)
        ends = value
        if isinstance(value, dict) and "trials" in value and key == "nuisance":
            wanted = value["trials"]
            trials.add(brief(wanted) if isinstance(wanted, list | dict) else wanted)
            ends = {name: v for name, v in value.items() if name != "trials"}
        settings.append(ranges.read(path, ends, place))
        corners: list[tuple[dict[str, Any], Config]] = []
        for values in ranges.corners(settings[-1:]):
            try:
                changed = baseline.override(values)
            except StudyError as error:
                raise StudyError(
                    f"{_described(values)}: {error.message}", place=place, hint=error.hint
                ) from None
            if _changes_no_result(changed, baseline):
                raise StudyError(
                    f"{_described(values)} changes no result, so there is nothing to tune",
                    place=place,
                    hint="set it in the baseline, or with --set",
                )
            for other, known in corners:
                if _changes_no_result(changed, known):
                    raise StudyError(
                        f"{_described(values)} has the same results as {_described(other)}",
                        place=place,
                        hint="leave one of them out",
                    )
            corners.append((values, changed))
    if len(trials) > 1:
        raise StudyError("settings that are tuned together need the same `trials`", place=key)
    for paths in itertools.combinations([r.path for r in settings], 2):
        outer, inner = sorted(paths, key=len)
        if inner.startswith(f"{outer}."):
            raise StudyError(
                f"`{outer}` holds `{inner}`",
                place=key,
                hint="write the range within the block",
            )
    return tuple(settings), next(iter(trials), None)


def _nuisance(
    plain: Any, baseline: Config, factors: tuple[Factor, ...], design: Design
) -> tuple[tuple[Range, ...], int | None]:
    """Return what is tuned for each arm, and how many trials it asks for; None where it does not."""
    if plain is None:
        return (), None
    if not DESIGN_RULES[design].tunes:
        raise StudyError(f"`design: {design}` tunes nothing per arm", place="nuisance")
    tuned, trials = _ranges("nuisance", plain, baseline)
    for setting, factor in itertools.product(tuned, factors):
        for path in factor.paths:
            if setting.path == path or path.startswith(f"{setting.path}."):
                raise StudyError(
                    f"{setting.path!r} cannot be tuned: the factor {factor.name!r} sets it",
                    place=f"nuisance.{setting.path}",
                )
    for factor in factors:
        for row in factor.levels:
            for values in ranges.corners(tuned):
                try:
                    baseline.override(row).override(values)
                except StudyError as error:
                    raise StudyError(
                        f"{_described(values)} does not go with {_described(row)} of {factor.name!r}: {error.message}",
                        place="nuisance",
                        hint=error.hint,
                    ) from None
    return tuned, trials


def _search(
    plain: Any, nuisance: tuple[Range, ...], space: tuple[Range, ...], trials: int | None, baseline: Config
) -> SearchSettings | None:
    """Return how Optuna searches, where anything is searched. trials: as the nuisance settings have it."""
    if not nuisance and not space:
        if plain is not None:
            raise StudyError(
                "says how Optuna searches, but nothing is searched",
                place="search",
                hint="it belongs to `design: search` or to `nuisance:`",
            )
        return None
    settings = search.read(plain, purpose="search" if space else "nuisance", trials=trials)
    if settings.cost == "flops" and trainer_of(baseline).same_cost(baseline) is None:
        raise StudyError(
            "the FLOPs of your own training are not known",
            place="search.cost",
            hint="`seconds`, or `parameters` where it yields model/parameters",
        )
    return settings


def _check_path(path: Any, place: str) -> None:
    if not isinstance(path, str):
        raise StudyError(f"{brief(path)} is not a path such as `model.width`", place=place)


def _check_combinations(factors: tuple[Factor, ...], baseline: Config) -> None:
    """Check that the levels of any two factors can be in one arm."""
    for first, second in itertools.combinations(factors, 2):
        place = f"factors.{second.name}"
        for paths in itertools.product(first.paths, second.paths):
            outer, inner = sorted(paths, key=len)
            if inner.startswith(f"{outer}."):
                raise StudyError(
                    f"`{outer}` and `{inner}` cannot both be changed in one arm: the first holds the second",
                    place=place,
                    hint="`design: one-at-a-time` never combines them",
                )
        for row, other_row in itertools.product(first.levels, second.levels):
            try:
                baseline.override({**row, **other_row})
            except StudyError as error:
                raise StudyError(
                    f"{_described(row)} of {first.name!r} and {_described(other_row)} of {second.name!r} do not go"
                    f" together: {error.message}",
                    place=place,
                    hint=error.hint,
                ) from None


def _changes_no_result(changed: Config, baseline: Config) -> bool:
    """Return whether all that differs from the baseline are settings that no result depends on."""
    trainer = trainer_of(baseline)
    without_effect = {
        path: value for path, value in baseline.flatten().items() if trainer.changes_no_result(path)
    }
    return changed != baseline and without_effect != {} and changed.override(without_effect) == baseline


def _check_levels(name: str, rows: list[dict[str, Any]], baseline: Config) -> None:
    place = f"factors.{name}"
    seen: dict[Config, dict[str, Any]] = {}
    for row in rows:
        try:
            changed = baseline.override(row)
        except StudyError as error:
            raise StudyError(
                f"level {_described(row)}: {error.message}", place=place, hint=error.hint
            ) from None
        if changed == baseline:
            raise StudyError(
                f"level {_described(row)} is the baseline's own",
                place=place,
                hint="leave it out: the baseline always runs",
            )
        if _changes_no_result(changed, baseline):
            raise StudyError(
                f"{_described(row)} changes no result, so there is nothing to compare",
                place=place,
                hint="set it in the baseline, or with --set",
            )
        if changed in seen:
            raise StudyError(f"level {_described(row)} stands here twice", place=place)
        seen[changed] = row


def _described(row: Mapping[str, Any]) -> str:
    if len(row) == 1:
        return brief(next(iter(row.values())))
    return ", ".join(f"{path}={brief(value)}" for path, value in row.items())
