"""The keys of a study: the one list of them.

The reader of study files, their JSON schema, the pages in docs/fields, the id of a plan and its record derive from the
fields of `Study`. A new key is a field there, and code where it acts; checks that need several keys are in `spec`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, create_model

from ablate import metrics, plain_files
from ablate.config import Config
from ablate.errors import StudyError, nearest
from ablate.fields import Block
from ablate.metrics import Direction, JudgedOn
from ablate.study import ranges, search
from ablate.study.fraction import Fraction
from ablate.study.ranges import Range
from ablate.study.record import Design
from ablate.study.search import SearchSettings
from ablate.study.seeds import REPLICATES
from ablate.text import brief, cut, is_secret_setting, is_secret_variable, parse_duration, without_password
from ablate.training import TRAINERS
from ablate.training.arguments import value_text
from ablate.training.channels import METRICS_FORM, read_metrics
from ablate.training.function import FUNCTION

METRICS = tuple(metric for trainer in TRAINERS for metric in trainer.metrics)
"""Metrics by which arms can be compared, where a kind of training knows its own."""

DESIGNS: tuple[Design, ...] = get_args(Design)


@dataclass(frozen=True)
class Key:
    """What a field of `Study` tells of its key, besides description, type and default.

    example: lines of a study file with the key, for the pages; None: the field is no key of its own. names_plan: whether
    another value makes another plan; not where the keys of the plan's runs differ with it anyway, nor for mere words.
    missing: a hint for a file that lacks the key, where it is required.
    """

    example: str | None
    names_plan: bool = True
    missing: str | None = None


class Factor(Block):
    """One thing that is changed. name: a dotted path, or a plain name for several paths that change together.

    levels: each a set of overrides, path → value; a factor of one path has one-entry levels.
    """

    name: str
    levels: Annotated[tuple[dict[str, Any], ...], Field(strict=False)]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.levels[0])


# --- from the values in a file to those of a study --------------------------------------------------------------------


def read_name(value: Any) -> str:
    """Return the name of a study. Raises StudyError."""
    if not isinstance(value, str):
        raise StudyError(
            f"should be text (got {brief(value)})",
            place="study",
            hint="a number can be a name in quotes" if isinstance(value, int | float) else None,
        )
    if not plain_files.can_name_files(value):
        raise StudyError(
            f"{cut(value)!r} cannot name a study",
            place="study",
            hint="use up to 100 letters, digits, `-`, `_` and `.`, beginning with a letter or digit: it names files",
        )
    return value


def read_metric(value: Any) -> Any:
    """Return the name of a metric. Raises StudyError for what MLflow cannot record."""
    if not isinstance(value, str):
        return value
    if not re.fullmatch(r"[\w\-. :/]+", value):
        raise StudyError(
            f"{cut(value)!r} cannot name a metric", place="metric", hint="use letters, digits and - . : / _"
        )
    return value


def read_direction(value: Any) -> Any:
    """Return a direction. Raises StudyError."""
    return _one_of("direction", value, metrics.DIRECTIONS)


def read_judged_on(value: Any) -> Any:
    """Return the data that arms are chosen by. Raises StudyError."""
    names = get_args(JudgedOn)
    if value not in names:
        raise StudyError(
            f"{cut(str(value))!r} are no data to choose arms by", place="judged_on", hint=" or ".join(names)
        )
    return value


def read_design(value: Any) -> Any:
    """Return the name of a design. Raises StudyError."""
    return _one_of("design", value, DESIGNS)


def _one_of(name: str, value: Any, names: tuple[str, ...]) -> Any:
    if value not in names:
        raise StudyError(f"{cut(str(value))!r} is not a {name}", place=name, hint=nearest(str(value), names))
    return value


def _amount(value: Any) -> float:
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError("should be a number above 0, in the metric's units")
    return number


def read_command(value: Any) -> Any:
    """Return the arguments of a command as texts. Raises StudyError."""
    if value is None or (isinstance(value, list | tuple) and not value):
        return None
    if not isinstance(value, list | tuple):
        words = _words(value) if isinstance(value, str) else []
        raise StudyError(
            f"should be a list of arguments (got {brief(value)})",
            place="command",
            hint=f"no shell reads it; write `command: {json.dumps(words)}`" if words else None,
        )
    for argument in value:
        if not isinstance(argument, str | int | float):
            raise StudyError(
                f"an argument should be text or a number (got {brief(argument)})",
                place="command",
                hint='a placeholder needs quotes: "{lr}"' if isinstance(argument, dict) else None,
            )
    arguments = tuple(value_text(argument) for argument in value)
    _refuse_password(shlex.join(arguments), "command")
    return arguments


def _refuse_password(text: str, place: str, *, is_named: bool = False) -> None:
    """Raise StudyError for a password in a study, which is recorded and shown in reports. is_named: its name says that it is one."""
    if (text and is_named) or without_password(text) != text:
        raise StudyError(
            "holds a password, and a study is recorded",
            place=place,
            hint="set it as a variable of your shell (`export NAME=…`): training inherits those, and they are not recorded",
        )


def refuse_passwords(value: Any, place: str) -> None:
    """Raise StudyError where plain values, such as the baseline, hold a password. place: of the value, a dotted path."""
    if isinstance(value, str):
        _refuse_password(value, place, is_named=is_secret_setting(place.rpartition(".")[2]))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_passwords(inner, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            refuse_passwords(inner, place)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def read_environment(value: Any) -> Any:
    """Return environment variables as texts. Raises StudyError."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise StudyError("should be names of variables with their values", place="env")
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise StudyError(f"{cut(str(name))!r} cannot name a variable", place=f"env.{name}")
        if not isinstance(text, str | int | float):
            raise StudyError(
                f"should be text or a number (got {brief(text)})",
                place=f"env.{name}",
                hint='a placeholder needs quotes: "{lr}"' if isinstance(text, dict) else None,
            )
        _refuse_password(value_text(text), f"env.{name}", is_named=is_secret_variable(name))
    return {name: value_text(text) for name, text in value.items()}


class Until(Block):
    """When a command is stopped."""

    epoch: Annotated[int, Field(ge=1, description="Number of its last epoch.")]


def read_silence(value: Any) -> Any:
    """Return a time as text. Raises StudyError."""
    if value is not None:
        parse_duration(value, "silence")
    return value if value is None else str(value)


def read_paths(value: Any) -> Any:
    """Return paths. Raises StudyError."""
    if not isinstance(value, list | tuple) or not all(isinstance(path, str) and path for path in value):
        raise StudyError(
            f"should be a list of paths (got {brief(value)})",
            place="data",
            hint="write `data: [data/train.csv]`",
        )
    return tuple(value)


def read_looks(value: Any) -> tuple[int, ...]:
    """Return the numbers of seeds at which the arms are judged. Raises StudyError."""
    if isinstance(value, dict):
        for name in value:
            if name not in ("initial", "max"):
                raise StudyError(
                    f"unknown key {cut(str(name))!r}",
                    place="seeds",
                    hint=nearest(str(name), ("initial", "max")),
                )
        counts: list[Any] = [value.get("initial"), value.get("max")]
        if None in counts:
            raise StudyError(
                "needs both `initial` and `max`", place="seeds", hint="or write one number for a single look"
            )
    else:
        counts = list(value) if isinstance(value, list | tuple) else [value]
    if not counts:
        raise StudyError("is empty", place="seeds")
    for n in counts:
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= REPLICATES:
            raise StudyError(
                f"should be whole numbers of seeds from 1 to {REPLICATES:,} (got {brief(n)})", place="seeds"
            )
    if isinstance(value, dict) and counts[0] == counts[1]:
        counts.pop()
    if any(later <= earlier for earlier, later in itertools.pairwise(counts)):
        raise StudyError(
            f"each look needs more seeds than the one before (got {brief(counts)})", place="seeds"
        )
    return tuple(counts)


# --- types ------------------------------------------------------------------------------------------------------------
# Of keys whose values in the file are not those of the study: how they come back from a record, how they are written into
# it, and what JSON schema their form in the file has.

Amount = Annotated[float, Field(gt=0), BeforeValidator(_amount)]

_COUNT = {"type": "integer", "minimum": 1, "maximum": REPLICATES}
Looks = Annotated[
    tuple[int, ...],
    PlainValidator(read_looks),
    PlainSerializer(list),
    WithJsonSchema(
        {
            "anyOf": [
                _COUNT,
                {"type": "array", "items": _COUNT, "minItems": 1},
                {
                    "type": "object",
                    "properties": {"initial": _COUNT, "max": _COUNT},
                    "required": ["initial", "max"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]

Baseline = Annotated[
    Config,
    PlainValidator(lambda config: config),
    PlainSerializer(lambda config: config.tree()),
    WithJsonSchema({}),
]

_PATHS = WithJsonSchema({"type": "object", "minProperties": 1})
"""Dotted paths; `schema` adds which there are, and what each can have."""

Factors = Annotated[tuple[Factor, ...], Field(strict=False), _PATHS]

Ranges = Annotated[
    tuple[Range, ...],
    PlainValidator(lambda value: ranges.from_plain(value) if isinstance(value, Mapping) else value),
    PlainSerializer(ranges.to_plain),
    _PATHS,
]

FractionRun = Annotated[
    Fraction | None,
    PlainValidator(lambda value: Fraction.from_plain(value) if isinstance(value, Mapping) else value),
    PlainSerializer(lambda fraction: fraction and fraction.plain()),
    WithJsonSchema({}),
]

Search = Annotated[
    SearchSettings | None,
    PlainValidator(lambda value: SearchSettings(**value) if isinstance(value, Mapping) else value),
    PlainSerializer(lambda settings: settings and settings.plain()),
    WithJsonSchema(search.form()),
]


# --- the keys ---------------------------------------------------------------------------------------------------------


class Study(Block):
    """A study as its file declares it, checked."""

    name: Annotated[
        str,
        Field(
            alias="study",
            pattern=f"^{plain_files.NAME}$",
            description="Name of the study, of its MLflow experiment, and of its report.",
        ),
        BeforeValidator(read_name),
        Key("study: width", missing="give the study a name, for example `study: width`"),
    ]
    question: Annotated[
        str,
        Field(description="The question of the study, as a sentence; the report starts with it."),
        Key("question: Do wider networks help?", names_plan=False),
    ] = ""
    metric: Annotated[
        str,
        BeforeValidator(read_metric),
        Field(
            description="The metric by which arms are compared; one of the test set only with `judged_on: test`."
        ),
        WithJsonSchema({"anyOf": [{"enum": list(METRICS)}, {"type": "string"}]}),
        Key("metric: val/accuracy"),
    ] = "val/accuracy"
    judged_on: Annotated[
        JudgedOn,
        BeforeValidator(read_judged_on),
        Field(
            description="The data that the metric is measured on. `test` is for your own training without a validation split: arms"
            " are then chosen by the test set, and the report says so."
        ),
        Key("train: my_package.fit:train\nmetric: test/accuracy\njudged_on: test"),
    ] = "validation"
    direction: Annotated[
        Direction,
        BeforeValidator(read_direction),
        Field(
            description="Whether a higher metric is better. Needed where the name of the metric does not say so: a loss, an error or"
            " a perplexity is minimised; an accuracy or a known score (F1, AUC, BLEU) is maximised.",
            # pydantic before 2.12 asks for it also where the metric is none.
            default_factory=lambda data: metrics.direction(data.get("metric", "")) or "maximize",
        ),
        Key("train: my_package.fit:train\nmetric: val/surprise\ndirection: minimize"),
    ]
    margin: Annotated[
        Amount,
        Field(
            description="Smallest difference worth having, in the metric's units: 0.005 is half a point of accuracy."
        ),
        Key(
            "margin: 0.005",
            missing="say the smallest difference worth having, in the metric's units: 0.005 is half a point of accuracy",
        ),
    ]
    resolution: Annotated[
        Amount | None,
        Field(description="Smallest step of the metric, where the data do not determine it."),
        Key("resolution: 0.001"),
    ] = None
    baseline: Annotated[
        Baseline,
        Field(description="The run that every arm is compared with."),
        Key(
            "baseline:\n  data: {name: cifar10}\n  model: {name: cnn, width: 64}\n  training: {epochs: 20}",
            names_plan=False,
            missing="describe the run that every arm is compared with, at least `data:` and `model:`",
        ),
    ]
    factors: Annotated[
        Factors,
        Field(
            description="The changes: a dotted path into the baseline with its levels, or a name with a `zip` of several paths."
            " For `design: search`: a path with its range."
        ),
        Key(
            "factors:\n  model.width: [32, 128]\n  optimizer: [{name: adam, lr: 0.002}]\n"
            "  larger: {zip: {model.width: [128], optimizer.lr: [0.1]}}",
            names_plan=False,
            missing="say what is changed, for example `factors: {model.width: [32, 128]}`",
        ),
    ]
    space: Annotated[
        Ranges, Field(description="The ranges of a search: the `factors` of `design: search`."), Key(None)
    ] = ()
    design: Annotated[
        Design,
        BeforeValidator(read_design),
        Field(description="Which combinations of levels are run."),
        Key("design: leave-one-out"),
    ] = "one-at-a-time"
    fraction: Annotated[
        FractionRun,
        Field(description="For `design: fractional`: how many of all combinations are run, or which."),
        Key("design: fractional\nfraction: {cells: 8}", names_plan=False),
    ] = None
    nuisance: Annotated[
        Ranges,
        Field(description="Settings that are tuned for every arm in the same way."),
        Key("nuisance:\n  optimizer.lr: {log: [1e-4, 1], trials: 12}"),
    ] = ()
    search: Annotated[
        Search,
        Field(description="How Optuna searches, for `nuisance` and for `design: search`."),
        Key("search: {sampler: tpe, trials: 40}"),
    ] = None
    looks: Annotated[
        Looks,
        Field(
            alias="seeds",
            description="The most seeds of each arm, which the plan declares: one number, {initial, max}, or a list that ends in it."
            " Arms that are undecided at a look continue to the next.",
        ),
        Key("seeds: {initial: 5, max: 10}", names_plan=False),
    ] = (5, 10)
    first_seed: Annotated[
        int,
        Field(
            ge=0,
            lt=REPLICATES,
            description="The seed of the first run of each arm. Another than 0 takes fresh seeds, for arms that were judged on the"
            " first ones already.",
        ),
        Key("first_seed: 10", names_plan=False),
    ] = 0
    noise_floor: Annotated[
        bool,
        Field(
            description="Also compare the baseline with itself (A/A), which shows the differences that chance alone makes."
        ),
        Key("noise_floor: true"),
    ] = False
    confirm: Annotated[
        bool,
        Field(
            description="Run the winner and its reference again on new seeds. Factorial designs and searches have no"
            " confirmation."
        ),
        Key("confirm: true"),
    ] = False
    train: Annotated[
        Annotated[str, WithJsonSchema({"type": "string", "pattern": FUNCTION})] | None,
        Field(
            description="Your own training, as `package.module:function`; the baseline is then any tree of values."
        ),
        Key("train: my_package.fit:train", names_plan=False),
    ] = None
    command: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(read_command),
        Field(
            description="Your own training, as a command: a list of arguments. `{path}` stands for a setting of the baseline, which is then"
            " any tree of values; `{seed}`, `{run_dir}`, `{device}` and `{attempt}` are filled in too.",
        ),
        WithJsonSchema({"type": "array", "items": {"type": ["string", "number", "boolean"]}, "minItems": 1}),
        Key('command: [python, main.py, --lr, "{lr}", --seed, "{seed}"]', names_plan=False),
    ] = None
    folder: Annotated[
        str | None,
        Field(
            description="The folder that the command runs in, relative to the study file; by default the study's own. Its code is part of"
            " what a run is: every file that git tracks in its repository, or, without git, the files of programming languages in it."
        ),
        Key("folder: ../examples/mnist", names_plan=False),
    ] = None
    python: Annotated[
        str | None,
        Field(
            min_length=1,
            description="The Python that `python` stands for at the beginning of the command, relative to its folder; by default the one that"
            " runs ablate. Programs that lie beside it are found before all others.",
        ),
        Key("python: .venv/bin/python", names_plan=False),
    ] = None
    env: Annotated[
        dict[str, str],
        BeforeValidator(read_environment),
        Field(
            description="Environment variables of the command, with placeholders as in it. Beside them it has those that ablate itself runs"
            " with, ABLATE_SEED, ABLATE_RUN_DIR, ABLATE_DEVICE, ABLATE_ATTEMPT, PYTHONUNBUFFERED, OMP_NUM_THREADS and"
            " CUDA_VISIBLE_DEVICES; its MLflow writes into a store of its own in ABLATE_RUN_DIR."
        ),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}),
        Key('env: {WIDTH: "{width}"}', names_plan=False),
    ] = {}  # noqa: RUF012 — pydantic copies it
    metrics: Annotated[
        dict[str, dict[str, Any]],
        BeforeValidator(lambda value: read_metrics(value) if value else {}),
        Field(
            description="The metrics of a command, each with where it is found. `line`: a regular expression for a printed line, with a group"
            " for the value, or with two for a share, and `(?P<step>…)` for the step. `json`: a key of JSON lines that are printed."
            " `file`, with `column`: a CSV file, JSON lines or a JSON file in {run_dir}, or in the folder with `isolate: true`. `tensorboard`: the tag of a scalar in"
            " event files in {run_dir}. `mlflow`: a name that is logged to MLflow. Of several values in an epoch the last counts. One"
            " that is never found fails the run."
        ),
        WithJsonSchema(METRICS_FORM),
        Key(
            "metrics:\n  accuracy: {line: 'Accuracy: (\\d+)/(\\d+)'}\n  train/loss: {line: 'Loss: ([\\d.]+)'}\n"
            "  val/f1: {json: val.f1}\n  test/accuracy: {file: results.csv, column: acc}",
            names_plan=False,
        ),
    ] = {}  # noqa: RUF012 — pydantic copies it
    epoch: Annotated[
        str | None,
        Field(
            description="The metric of a command whose value ends an epoch; by default the one that arms are compared by. Where it has a"
            " step, the step is the number of the epoch."
        ),
        Key("epoch: train/loss", names_plan=False),
    ] = None
    until: Annotated[
        Until | None,
        Field(
            description="When a command is stopped, and counts as finished: after the epoch of that number."
        ),
        WithJsonSchema(
            {
                "type": "object",
                "properties": {
                    "epoch": {"type": "integer", "minimum": 1, "description": "Number of its last epoch."}
                },
                "required": ["epoch"],
                "additionalProperties": False,
            }
        ),
        Key("until: {epoch: 20}", names_plan=False),
    ] = None
    silence: Annotated[
        str | None,
        BeforeValidator(read_silence),
        Field(
            description="The time without output after which a command is ended, as a failure: 90s, 10m, 1h."
        ),
        Key("silence: 10m", names_plan=False),
    ] = None
    resume: Annotated[
        bool,
        Field(
            description="A command that is tried again finds {run_dir} as it left it, to resume from what it saved there. Otherwise it finds"
            " it empty."
        ),
        Key("resume: true", names_plan=False),
    ] = False
    tty: Annotated[
        bool,
        Field(
            description="The command gets a terminal, of 50 lines of 200 characters, at which nobody types."
        ),
        Key("tty: true", names_plan=False),
    ] = False
    isolate: Annotated[
        bool | Literal["process"] | None,
        Field(
            description="Of a command, `true`: each run runs in a copy of its folder, where it may write beside itself. Of a function,"
            " `process`: each run has a fresh process; `false`: none has. By default a run has one where the run before it has left"
            " anything behind in its process, such as a changed global of a module."
        ),
        Key("isolate: process", names_plan=False),
    ] = None
    devices: Annotated[
        int,
        Field(
            ge=1,
            le=1024,
            description="Devices that each run of a command takes: GPUs, or cores where there are none.",
        ),
        Key("devices: 2", names_plan=False),
    ] = 1
    data: Annotated[
        tuple[str, ...],
        BeforeValidator(read_paths),
        Field(
            description="Files and folders that a command or a function reads, relative to its folder. Their content is part of what a run is:"
            " other data are other runs."
        ),
        WithJsonSchema({"type": "array", "items": {"type": "string"}}),
        Key("data: [data/train.csv]", names_plan=False),
    ] = ()
    deterministic: Annotated[
        bool,
        Field(
            description="The training ignores its seed on purpose, so equal runs are no error. An interval still needs three runs."
        ),
        Key("deterministic: true"),
    ] = False
    unpaired: Annotated[
        bool,
        Field(
            description="No two runs share anything, so arms are compared as groups of runs: for a training whose seed fixes"
            " nothing. Comparing runs of the same seed, the default, is sharper wherever the seed fixes something."
        ),
        Key("unpaired: true"),
    ] = False
    text: Annotated[str, Field(description="The file as it was read."), Key(None, names_plan=False)] = ""

    def plain(self) -> dict[str, Any]:
        """Return what the study declares, key → plain value, for its record. `Study.parse` reads it, with a Config as `baseline`."""
        return self.model_dump(mode="json", by_alias=True, exclude={"text"})

    def naming(self, *, stops: bool = False) -> dict[str, Any]:
        """Return the plain values that name a plan of this study, besides its runs. stops: its `seeds` among them.

        A key at its default is left out, so that a key that is added later leaves the plans of older studies their names.
        """
        plain = self.plain()
        return {
            field.alias or name: plain[field.alias or name]
            for name, field in Study.model_fields.items()
            if (key_of(name).names_plan or (stops and name == "looks"))
            and getattr(self, name) != field.default
        }


def key_of(name: str) -> Key:
    """Return what a field of `Study` tells of its key."""
    return next(about for about in Study.model_fields[name].metadata if isinstance(about, Key))


KEYS: Mapping[str, Key] = {
    field.alias or name: key_of(name)
    for name, field in Study.model_fields.items()
    if key_of(name).example is not None
}
"""Keys that a study file can have."""


def read_some(names: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values of some keys of a file, checked each by itself, with the defaults of those that it lacks.

    Raises StudyError.
    """
    fields: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in Study.model_fields.items()
        if (field.alias or name) in names
    }
    some = create_model("SomeKeys", __base__=Block, **fields)
    given = {name: values[name] for name in names if name in values}
    return some.parse(given).model_dump(mode="json", by_alias=True)
