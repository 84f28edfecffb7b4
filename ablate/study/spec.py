"""The study file: YAML ↔ Study.

Reading is where most mistakes are made, so it is where they are named: every message says the file, the line, the key,
and the nearest thing that would have been right.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import math
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from ablate.config import CHANGES_NO_RESULT, Config, FreeConfig, RunConfig
from ablate.errors import StudyError, nearest
from ablate.study import fraction, ranges
from ablate.study.fraction import Fraction
from ablate.study.ranges import Range
from ablate.study.record import Design, Direction, SearchSettings
from ablate.study.seeds import REPLICATES
from ablate.text import BOOLEAN, INTEGER, REAL, brief, cut, format_value

MOST_BYTES = 200_000
MOST_NODES = 20_000
MOST_DEPTH = 50
MOST_ARMS = 5_000
METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
DESIGNS = ("one-at-a-time", "leave-one-out", "both", "factorial", "fractional", "path", "search")
ONE_LEVEL = {
    "leave-one-out": "the one of the full system",
    "both": "the one of the full system",
    "fractional": "to stand beside the baseline's",
    "path": "the one at the end of the path",
}
"""Designs whose factors have one level each, and which level that is."""

MOST_STEPS = 8
"""Factors on a path: its plan names all 2^k configurations that it might come to."""

_CELLS = (
    "its effects get verdicts, its cells get none",
    "a cell can be the one arm of a study of its own: a factor that zips its levels, and `confirm: true`",
)
NO_WINNER: Mapping[str, tuple[str, str]] = {
    "factorial": _CELLS,
    "fractional": _CELLS,
    "search": (
        "its trials get no verdicts",
        "`ablate init --from STUDY` writes the study that confirms what it found",
    ),
}
"""Designs without an arm that could win: why not, and what to do instead."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
C = TypeVar("C", bound=Config)
KEYS = (
    "study",
    "question",
    "metric",
    "direction",
    "margin",
    "resolution",
    "baseline",
    "factors",
    "design",
    "fraction",
    "nuisance",
    "search",
    "seeds",
    "noise_floor",
    "confirm",
    "train",
    "deterministic",
)


@dataclass(frozen=True)
class Factor:
    """One thing that is changed. name: a dotted path, or a plain name for several paths that change together.

    levels: each a set of overrides, path → value; a factor of one path has one-entry levels.
    """

    name: str
    levels: tuple[Mapping[str, Any], ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.levels[0])


@dataclass(frozen=True)
class Study:
    """A study as its file says it, checked. looks: numbers of seeds at which the arms are judged, ascending.

    margin: smallest difference worth having, in the metric's units. resolution: smallest step of the metric, or None
    where the data decide it. text: the file as it was read. baseline: the reference configuration. fraction: which of all
    combinations a fractional design runs. nuisance: settings that are tuned for each arm; space: what a search looks through,
    which then has no factors. search: how either is looked for.
    """

    name: str
    question: str
    metric: str
    direction: Direction
    margin: float
    baseline: Config
    factors: tuple[Factor, ...]
    design: Design
    looks: tuple[int, ...]
    fraction: Fraction | None = None
    nuisance: tuple[Range, ...] = ()
    space: tuple[Range, ...] = ()
    search: SearchSettings | None = None
    resolution: float | None = None
    noise_floor: bool = False
    confirm: bool = False
    train: str | None = None
    deterministic: bool = False
    text: str = field(default="", compare=False)

    def plain(self) -> dict[str, Any]:
        """What the study declares, as plain values for its record."""
        fraction = self.fraction
        return {
            "study": self.name,
            "question": self.question,
            "metric": self.metric,
            "direction": self.direction,
            "margin": self.margin,
            "resolution": self.resolution,
            "design": self.design,
            "fraction": fraction and {**dataclasses.asdict(fraction), "words": fraction.words},
            "nuisance": {one.path: one.plain() for one in self.nuisance},
            "space": {one.path: one.plain() for one in self.space},
            "search": self.search and self.search.plain(),
            "looks": list(self.looks),
            "noise_floor": self.noise_floor,
            "confirm": self.confirm,
            "deterministic": self.deterministic,
            "train": self.train,
            "baseline": self.baseline.tree(),
            "factors": [{"name": f.name, "levels": [dict(row) for row in f.levels]} for f in self.factors],
        }


@dataclass(frozen=True)
class _Document:
    """Plain values of a YAML text, and where each path stands in it."""

    source: str
    values: Any
    lines: Mapping[tuple[str, ...], int]

    def place(self, path: str) -> str:
        """`file:line: path`, with the line of the nearest enclosing key that is in the file."""
        parts = tuple(path.split(".")) if path else ()
        for line_of in (parts[:length] for length in range(len(parts), -1, -1)):
            if line_of in self.lines:
                return f"{self.source}:{self.lines[line_of]}" + (f": {cut(path)}" if path else "")
        return f"{self.source}: {cut(path)}" if path else self.source


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a number and a boolean: `1e-5` is a number; `no`, `on`, `1:30` and `012` are text."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp) for tag, regexp in found if tag in {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    ]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", BOOLEAN, "tf"),
    ("int", INTEGER, "-+0123456789"),
    ("float", REAL, "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def read(path: Path, *, sets: Iterable[str] = (), seeds: int | None = None) -> Study:
    """The study in a file. sets: `path=value` overrides of the baseline. seeds: one look of that many instead.

    Raises StudyError for every mistake in the file or the overrides.
    """
    try:
        missing = not path.exists()
    except OSError as error:
        raise StudyError(f"cannot be read ({error.strerror})", place=brief(str(path))) from None
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
    return parse(text, source=str(path), sets=sets, seeds=seeds)


def _other_file(path: Path) -> str:
    """A hint: the study file that was meant, beside the one that was asked for or in studies/."""
    folders = dict.fromkeys((path.parent, Path("studies")))
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.y*ml"))]
    close = difflib.get_close_matches(path.stem, [file.stem for file in files], n=1, cutoff=0.6)
    meant = next((file for file in files if [file.stem] == close), None)
    if meant is not None:
        return f"did you mean {str(meant)!r}?"
    return "name the study's YAML file; `ablate init NAME` writes one"


def parse(text: str, *, source: str = "study", sets: Iterable[str] = (), seeds: int | None = None) -> Study:
    """The study in a YAML text; as `read`."""
    document = _load(text, source)
    values = document.values
    if not isinstance(values, dict):
        raise StudyError(
            "is not a study: the top level must be keys such as `study:` and `factors:`",
            place=source,
            hint="`ablate init NAME` writes one to start from",
        )
    for name in values:
        if name not in KEYS:
            raise StudyError(
                f"unknown key {cut(str(name))!r}",
                place=document.place(str(name)),
                hint=nearest(str(name), KEYS),
            )
    for name in ("study", "margin", "baseline", "factors"):
        if values.get(name) is None:
            raise StudyError(f"`{name}:` is missing", place=source, hint=_MISSING[name])

    name = values["study"]
    if not isinstance(name, str):
        raise StudyError(
            f"should be text (got {brief(name)})",
            place=document.place("study"),
            hint="a number can be a name in quotes" if isinstance(name, int | float) else None,
        )
    if not _NAME.match(name):
        raise StudyError(
            f"{cut(name)!r} cannot name a study",
            place=document.place("study"),
            hint="use up to 100 letters, digits, `-`, `_` and `.`, beginning with a letter or digit: it names files",
        )
    train = _typed(document, values, "train", str, None)
    baseline = _baseline(document, train, sets)
    metric = _metric(document, values, train)
    design = _typed(document, values, "design", str, "one-at-a-time")
    if design not in DESIGNS:
        raise StudyError(
            f"{cut(design)!r} is not a design", place=document.place("design"), hint=nearest(design, DESIGNS)
        )
    space = _ranges(document, "factors", baseline)[0] if design == "search" else ()
    factors = _factors(document, values["factors"], baseline) if design != "search" else ()
    _check_design(document, design, factors)
    if design == "factorial" and (cells := math.prod(1 + len(f.levels) for f in factors)) > MOST_ARMS:
        raise StudyError(
            f"makes {cells:,} arms; at most {MOST_ARMS:,}",
            place=document.place("design"),
            hint="take fewer factors or levels, or `design: one-at-a-time`",
        )
    if design != "one-at-a-time":
        _check_combinations(document, factors, baseline)
    direction = _typed(
        document, values, "direction", str, "minimize" if metric.endswith("loss") else "maximize"
    )
    if direction not in ("maximize", "minimize"):
        raise StudyError(
            f"{cut(direction)!r} is not a direction",
            place=document.place("direction"),
            hint=nearest(direction, ("maximize", "minimize")),
        )
    better = "minimize" if metric.endswith("/loss") else "maximize"
    if train is None and direction != better:
        raise StudyError(
            f"{metric!r} is to be {better}d, not {direction}d",
            place=document.place("direction"),
            hint="leave `direction:` out: it is known for the built-in metrics",
        )
    nuisance, trials = _nuisance(document, baseline, factors, design)
    search = None
    if nuisance or space:
        of: Literal["nuisance", "search"] = "search" if space else "nuisance"
        search = ranges.search(values.get("search"), of=of, trials=trials, place=document.place)
        if train is not None and search.cost == "flops":
            raise StudyError(
                "the FLOPs of your own training are not known",
                place=document.place("search.cost"),
                hint="`seconds`, or `parameters` where it yields model/parameters",
            )
    elif values.get("search") is not None:
        raise StudyError(
            "says how Optuna searches, and nothing is searched",
            place=document.place("search"),
            hint="it belongs to `design: search` or to `nuisance:`",
        )
    return Study(
        name=name,
        question=_typed(document, values, "question", str, "") or "",
        metric=metric,
        direction=direction,
        margin=_positive(document, values, "margin"),
        resolution=None if values.get("resolution") is None else _positive(document, values, "resolution"),
        baseline=baseline,
        factors=factors,
        design=design,
        fraction=_fraction(document, values.get("fraction"), design, factors),
        nuisance=nuisance,
        space=space,
        search=search,
        looks=_looks(document, values.get("seeds", {"initial": 5, "max": 10}) if seeds is None else seeds),
        noise_floor=_typed(document, values, "noise_floor", bool, False),
        confirm=_confirm(document, values, design),
        train=train,
        deterministic=_typed(document, values, "deterministic", bool, False),
        text=text,
    )


_MISSING = {
    "study": "give the study a name, for example `study: width`",
    "margin": "say the smallest difference worth having, in the metric's units: 0.005 is half a point of accuracy",
    "baseline": "describe the run that every arm is compared with, at least `data:` and `model:`",
    "factors": "say what is changed, for example `factors: {model.width: [32, 128]}`",
}


def _load(text: str, source: str) -> _Document:
    lines: dict[tuple[str, ...], int] = {}
    nodes = 0

    def walk(node: yaml.Node, path: tuple[str, ...], inside: tuple[yaml.Node, ...]) -> None:
        # Composing only links aliases, so a short text can stand for billions of values: count before building them.
        nonlocal nodes
        nodes += 1
        place = f"{source}:{node.start_mark.line + 1}"
        if any(node is outer for outer in inside):
            raise StudyError("an alias stands for the block that it is in", place=place)
        if nodes > MOST_NODES:
            raise StudyError(f"more than {MOST_NODES:,} values, with aliases unfolded", place=place)
        if len(inside) > MOST_DEPTH:
            raise StudyError(f"is nested too deeply for a study: more than {MOST_DEPTH} levels", place=place)
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen: dict[Hashable, int] = {}
            for key_node, value in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise StudyError("a key must be plain text", place=f"{source}:{line}")
                name = str(key_node.value)
                if name in seen and key_node.tag != "tag:yaml.org,2002:merge":
                    raise StudyError(
                        f"the key {cut(name)!r} stands here twice (first on line {seen[name]})",
                        place=f"{source}:{line}",
                        hint="leave one of them; a factor's levels belong into one list",
                    )
                seen[name] = line
                inner = (*path, *name.split("."))
                lines.setdefault(inner, line)
                walk(value, inner, (*inside, node))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                walk(value, path, (*inside, node))

    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise StudyError("is empty", place=source, hint="`studies/` holds examples")
            walk(node, (), ())
            return _Document(source, loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise StudyError(
            f"is not YAML: {error.problem or error.context}", place=where, hint=_not_yaml(error)
        ) from None
    except yaml.YAMLError as error:
        what = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise StudyError(f"is not YAML: {what}", place=source) from None
    except RecursionError:
        raise StudyError(
            f"is nested too deeply for a study: more than {MOST_DEPTH} levels", place=source
        ) from None
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
        # What PyYAML lets through where an explicit tag and its value disagree (`!!bool maybe`).
        raise StudyError(f"holds a value that cannot be read: {error}", place=source) from None


_OPENED = {
    "flow sequence": "the list `[`",
    "flow mapping": "the block `{`",
    "quoted scalar": "the quoted text",
}


def _not_yaml(error: yaml.MarkedYAMLError) -> str | None:
    """A hint: what PyYAML's words mean for whoever wrote the file; None where they say it themselves."""
    problem, context = str(error.problem), str(error.context)
    if "'\\t'" in problem:
        return "lines begin with spaces in YAML, never with a tab"
    if "cannot start any token" in problem:
        return "text that begins with such a sign needs quotes"
    if "mapping values are not allowed" in problem:
        return "text with a `: ` in it needs quotes; or the line above lacks the space after its `:`, or is indented otherwise"
    for kind, opened in _OPENED.items():
        if kind in context and error.context_mark is not None:
            return f"{opened} that begins on line {error.context_mark.line + 1} is not closed there"
    return None


def _typed(document: _Document, values: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = values.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        wanted = {str: "text", bool: "true or false"}[kind]
        raise StudyError(f"should be {wanted} (got {brief(value)})", place=document.place(name))
    return value


def _positive(document: _Document, values: Mapping[str, Any], name: str) -> float:
    value = values[name]
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise StudyError(
            f"should be a number above 0, in the metric's units (got {brief(value)})",
            place=document.place(name),
        )
    return number


def _baseline(document: _Document, train: str | None, sets: Iterable[str]) -> Config:
    tree = document.values["baseline"]
    if not isinstance(tree, dict):
        raise StudyError("should be a block of keys", place=document.place("baseline"))

    def place(path: str) -> str:
        return document.place(f"baseline.{path}" if path else "baseline")

    if "seed" in tree:
        raise StudyError(
            "the seed is not part of the baseline", place=place("seed"), hint="`seeds:` says how many"
        )
    config: Config
    if train is not None:
        if not re.match(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z", train):
            raise StudyError(
                f"{cut(train)!r} does not name a function",
                place=document.place("train"),
                hint="write `package.module:function`",
            )
        config = FreeConfig.parse(train, tree, place=place)
    else:
        config = RunConfig.parse(tree, place=place)
    return override(config, sets)


def override(config: C, sets: Iterable[str]) -> C:
    """A config with `path=value` texts applied, as `--set` takes them. Raises StudyError."""
    changes: dict[str, Any] = {}
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
        changes[path.removeprefix("baseline.")] = _value(path, value)
    try:
        return config.override(changes) if changes else config
    except StudyError as error:
        raise StudyError(error.message, place=f"--set {cut(error.place or '')}", hint=error.hint) from None


def _value(path: str, text: str) -> Any:
    """What the right side of a `--set` says, read as in a study file; nothing is the empty text."""
    try:
        return _load(text, "").values if text.strip() else ""
    except StudyError as error:
        raise StudyError(
            f"{cut(text)!r} {error.message}",
            place=f"--set {cut(path)}",
            hint="quote what YAML would take for something else: --set \"data.root='#1'\"",
        ) from None


def _metric(document: _Document, values: Mapping[str, Any], train: str | None) -> str:
    metric = str(_typed(document, values, "metric", str, "val/accuracy"))
    place = document.place("metric")
    if metric.startswith("test/"):
        raise StudyError(
            f"{cut(metric)!r} would choose arms by the test set",
            place=place,
            hint="choose on validation data, for example val/accuracy; the test set is scored once and reported beside it",
        )
    if train is None and metric not in METRICS:
        raise StudyError(
            f"{cut(metric)!r} is not a metric of the built-in training",
            place=place,
            hint=nearest(metric, METRICS),
        )
    if not re.match(r"[\w\-. :/]+\Z", metric):
        raise StudyError(
            f"{cut(metric)!r} cannot name a metric", place=place, hint="use letters, digits and - . : / _"
        )
    return metric


def _looks(document: _Document, seeds: Any) -> tuple[int, ...]:
    place = document.place("seeds")
    if isinstance(seeds, dict):
        for name in seeds:
            if name not in ("initial", "max"):
                raise StudyError(
                    f"unknown key {cut(str(name))!r}",
                    place=place,
                    hint=nearest(str(name), ("initial", "max")),
                )
        counts = [seeds.get("initial"), seeds.get("max")]
        if None in counts:
            raise StudyError(
                "needs both `initial` and `max`", place=place, hint="or write one number for a single look"
            )
    else:
        counts = seeds if isinstance(seeds, list) else [seeds]
    if not counts:
        raise StudyError("is empty", place=place)
    for n in counts:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= REPLICATES:
            raise StudyError(
                f"should be whole numbers of seeds from 1 to {REPLICATES:,} (got {brief(n)})", place=place
            )
    if isinstance(seeds, dict) and counts[0] == counts[1]:
        counts.pop()
    if any(later <= earlier for earlier, later in itertools.pairwise(counts)):
        raise StudyError(f"each look needs more seeds than the one before (got {brief(counts)})", place=place)
    return tuple(counts)


def _factors(document: _Document, factors: Any, baseline: Config) -> tuple[Factor, ...]:
    if not isinstance(factors, dict) or not factors:
        raise StudyError(
            "should be keys with lists of levels", place=document.place("factors"), hint=_MISSING["factors"]
        )
    found: list[Factor] = []
    owner: dict[str, str] = {}
    for name, levels in factors.items():
        place = document.place(f"factors.{name}")
        _check_path(name, place)
        if isinstance(levels, dict):
            if set(levels) != {"zip"} or not isinstance(levels["zip"], dict) or not levels["zip"]:
                raise StudyError(
                    "should be a list of levels, or `{zip: {path: [levels], …}}`",
                    place=place,
                    hint=_MISSING["factors"],
                )
            if "." in name:
                raise StudyError(
                    f"{cut(name)!r} names paths that change together: use a name without dots", place=place
                )
            columns = levels["zip"]
            for path, column in columns.items():
                _check_path(path, place)
                if not isinstance(column, list) or not column:
                    raise StudyError(
                        "should be a list of levels", place=document.place(f"factors.{name}.zip.{path}")
                    )
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
        _check_levels(document, name, rows, baseline)
        found.append(Factor(name, tuple(rows)))
    return tuple(found)


def _check_design(document: _Document, design: str, factors: tuple[Factor, ...]) -> None:
    """Whether a design can be made of so many factors and levels."""
    if design in ONE_LEVEL:
        for factor in factors:
            if len(factor.levels) != 1:
                raise StudyError(
                    f"{design} takes one level a factor, {ONE_LEVEL[design]}; here are {len(factor.levels)}",
                    place=document.place(f"factors.{factor.name}"),
                )
    place = document.place("factors")
    if design in ("leave-one-out", "path") and len(factors) < 2:
        raise StudyError(f"{design} needs at least two factors", place=place)
    if design in ("both", "fractional") and len(factors) < 3:
        raise StudyError(
            f"{design} needs at least three factors",
            place=place,
            hint="with two, `design: factorial` runs the same four arms and gives their interaction",
        )
    most = {"path": MOST_STEPS, "fractional": fraction.MOST_FACTORS}.get(design, len(factors))
    if len(factors) > most:
        raise StudyError(f"{design} takes {most} factors at most; here are {len(factors)}", place=place)


def _confirm(document: _Document, values: Mapping[str, Any], design: str) -> bool:
    """Whether the winner is run again, where a design has one."""
    said: bool = _typed(document, values, "confirm", bool, False)
    if said and design in NO_WINNER:
        why, instead = NO_WINNER[design]
        raise StudyError(
            f"design {design} has no winner to confirm: {why}", place=document.place("confirm"), hint=instead
        )
    return said


def _fraction(
    document: _Document, said: Any, design: str, factors: tuple[Factor, ...]
) -> fraction.Fraction | None:
    """Which fraction is run: chosen for a number of cells, or as its generators say."""
    place = document.place("fraction")
    if design != "fractional":
        if said is not None:
            raise StudyError("belongs to `design: fractional`", place=place)
        return None
    names = [factor.name for factor in factors]
    if not isinstance(said, dict) or len(said) != 1 or not {"cells", "generators"} & set(said):
        sizes = ", ".join(
            f"{n} (resolution {fraction.roman(r)})" for n, r in fraction.possible(len(names)).items()
        )
        raise StudyError(
            "should say how many of all combinations are run, or name the generators",
            place=place,
            hint=f"write `fraction: {{cells: N}}`; {len(names)} factors: {sizes}",
        )
    if "cells" in said:
        cells = said["cells"]
        known = [2**m for m in range(2, len(names)) if len(names) < 2**m <= fraction.MOST_CELLS]
        if isinstance(cells, bool) or cells not in known:
            raise StudyError(
                f"{len(names)} factors take {' or '.join(map(str, known))} cells (got {brief(cells)})",
                place=document.place("fraction.cells"),
                hint="a power of two, more than there are factors; all combinations are `design: factorial`",
            )
        return fraction.chosen(names, cells)
    generators = said["generators"]
    place = document.place("fraction.generators")
    if not isinstance(generators, dict) or not generators:
        raise StudyError(
            "should be factors with the list of those whose interaction they take the place of", place=place
        )
    basic = [name for name in names if name not in generators]
    for name, of in generators.items():
        if name not in names:
            raise StudyError(f"{cut(str(name))!r} is no factor", place=place, hint=nearest(str(name), names))
        if not isinstance(of, list) or len(of) < 2 or len({str(f) for f in of}) < len(of):
            raise StudyError(f"{name} needs a list of two or more different factors", place=place)
        for other in of:
            if other not in basic:
                raise StudyError(
                    f"{name} cannot be generated from {cut(str(other))!r}",
                    place=place,
                    hint=f"factors without a generator of their own: {', '.join(basic)}",
                )
    if len({frozenset(of) for of in generators.values()}) < len(generators):
        raise StudyError("two factors have the same generator, so nothing could tell them apart", place=place)
    if 1 << len(basic) > fraction.MOST_CELLS:
        raise StudyError(f"leaves {1 << len(basic):,} cells; at most {fraction.MOST_CELLS}", place=place)
    return fraction.generated(names, generators)


def _ranges(document: _Document, key: str, baseline: Config) -> tuple[tuple[Range, ...], int | None]:
    """The ranges of a block of the file, and how many trials they say, where they do."""
    said = document.values[key]
    if not isinstance(said, dict) or not said:
        raise StudyError(
            "should be settings with ranges",
            place=document.place(key),
            hint=f"for example `{key}: {{optimizer.lr: {{log: [1e-5, 1]}}}}`",
        )
    found: list[Range] = []
    trials: set[Any] = set()
    for path, one in said.items():
        place = document.place(f"{key}.{path}")
        _check_path(path, place)
        if path == "data" or path.startswith("data."):
            raise StudyError("a search changes no data: its runs would not be comparable", place=place)
        if isinstance(one, dict) and "trials" in one and key == "nuisance":
            trials.add(brief(one["trials"]) if isinstance(one["trials"], list | dict) else one["trials"])
            one = {name: value for name, value in one.items() if name != "trials"}  # noqa: PLW2901
        found.append(ranges.read(path, one, place))
        for values in ranges.corners(found[-1:]):
            try:
                changed = baseline.override(values)
            except StudyError as error:
                raise StudyError(f"{_words(values)}: {error.message}", place=place, hint=error.hint) from None
            if _changes_no_result(changed, baseline):
                raise StudyError(
                    f"{_words(values)} changes no result, so there is nothing to tune",
                    place=place,
                    hint="set it in the baseline, or with --set",
                )
    if len(trials) > 1:
        raise StudyError("settings that are tuned together have the same `trials`", place=document.place(key))
    for one, other in itertools.combinations([r.path for r in found], 2):
        outer, inner = sorted((one, other), key=len)
        if inner.startswith(f"{outer}."):
            raise StudyError(
                f"`{outer}` holds `{inner}`",
                place=document.place(key),
                hint="say the range within the block",
            )
    return tuple(found), next(iter(trials), None)


def _nuisance(
    document: _Document, baseline: Config, factors: tuple[Factor, ...], design: str
) -> tuple[tuple[Range, ...], int | None]:
    """What is tuned for each arm."""
    if document.values.get("nuisance") is None:
        return (), None
    place = document.place("nuisance")
    if design in ("path", "search"):
        raise StudyError(f"`design: {design}` tunes nothing per arm", place=place)
    found, trials = _ranges(document, "nuisance", baseline)
    for one, factor in itertools.product(found, factors):
        for path in factor.paths:
            if one.path == path or path.startswith(f"{one.path}."):
                raise StudyError(
                    f"{one.path!r} cannot be tuned: the factor {factor.name!r} sets it",
                    place=document.place(f"nuisance.{one.path}"),
                )
    for factor in factors:
        for row in factor.levels:
            for values in ranges.corners(found):
                try:
                    baseline.override(row).override(values)
                except StudyError as error:
                    raise StudyError(
                        f"{_words(values)} does not go with {_words(row)} of {factor.name!r}: {error.message}",
                        place=place,
                        hint=error.hint,
                    ) from None
    return found, trials


def _check_path(path: Any, place: str) -> None:
    if not isinstance(path, str):
        raise StudyError(f"{format_value(path)} is not a path such as `model.width`", place=place)


def _check_combinations(document: _Document, factors: tuple[Factor, ...], baseline: Config) -> None:
    """Whether the levels of any two factors can be in one arm, where the design puts them there."""
    for first, second in itertools.combinations(factors, 2):
        place = document.place(f"factors.{second.name}")
        for one, other in itertools.product(first.paths, second.paths):
            outer, inner = sorted((one, other), key=len)
            if inner.startswith(f"{outer}."):
                raise StudyError(
                    f"`{outer}` and `{inner}` cannot both be changed in one arm: the one holds the other",
                    place=place,
                    hint="`design: one-at-a-time` never combines them",
                )
        for one_row, other_row in itertools.product(first.levels, second.levels):
            try:
                baseline.override({**one_row, **other_row})
            except StudyError as error:
                raise StudyError(
                    f"{_words(one_row)} of {first.name!r} and {_words(other_row)} of {second.name!r} do not go"
                    f" together: {error.message}",
                    place=place,
                    hint=error.hint,
                ) from None


def _changes_no_result(changed: Config, baseline: Config) -> bool:
    """Return whether all that differs from the baseline are settings that no result depends on."""
    if changed == baseline or not isinstance(changed, RunConfig):
        return False
    settings = baseline.flatten()
    return changed.override({path: settings[path] for path in CHANGES_NO_RESULT}) == baseline


def _check_levels(document: _Document, name: str, rows: list[dict[str, Any]], baseline: Config) -> None:
    place = document.place(f"factors.{name}")
    seen: dict[Config, dict[str, Any]] = {}
    for row in rows:
        try:
            changed = baseline.override(row)
        except StudyError as error:
            raise StudyError(f"level {_words(row)}: {error.message}", place=place, hint=error.hint) from None
        if changed == baseline:
            raise StudyError(
                f"level {_words(row)} is the baseline's own",
                place=place,
                hint="leave it out: the baseline always runs",
            )
        if _changes_no_result(changed, baseline):
            raise StudyError(
                f"{_words(row)} changes no result, so there is nothing to compare",
                place=place,
                hint="set it in the baseline, or with --set",
            )
        if changed in seen:
            raise StudyError(f"level {_words(row)} stands here twice", place=place)
        seen[changed] = row


def _words(row: Mapping[str, Any]) -> str:
    if len(row) == 1:
        return brief(next(iter(row.values())))
    return ", ".join(f"{path}={brief(value)}" for path, value in row.items())
