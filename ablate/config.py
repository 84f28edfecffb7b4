"""What one run is: the configuration of the built-in training, or a free tree of values for the user's own.

Both are a `Config`: frozen, strict, and able to be overridden by dotted paths, flattened, and named by a key. Everything
that asks "what differs?", "was this run already?" or "what is recorded?" goes through these, so that nothing outside
training knows about networks.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, cast, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from ablate.data import datasets
from ablate.data.augment import Augment
from ablate.errors import StudyError, nearest
from ablate.fields import Block
from ablate.models import ModelConfig

Scalar = str | int | float | bool | None


class Config(Protocol):
    """One run's configuration, seed included."""

    @property
    def seed(self) -> int: ...

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted paths set: a leaf (`optimizer.lr`) or a whole block (`model`). Raises StudyError."""
        ...

    def with_seed(self, seed: int) -> Self: ...

    def flatten(self) -> dict[str, Scalar]:
        """Dotted path → value, every default resolved."""
        ...

    def get(self, path: str) -> Any:
        """The value at a dotted path: a scalar or a block as plain values. Raises StudyError."""
        ...

    def tree(self) -> dict[str, Any]:
        """The whole configuration as plain values."""
        ...

    def recipe(self, fingerprint: str) -> str:
        """Digest of what is trained on which data, whatever the code."""
        ...

    def code(self) -> str:
        """Digest of the code that training this config runs through."""
        ...


def key(config: Config, fingerprint: str, code: str) -> str:
    """The name of a run: what is trained (seed included), on which data, by which code (`Config.code()`).

    fingerprint: of the data's content, so that a moved or copied folder stays the same data. Two runs with the same key
    are the same run, in whatever study.
    """
    return _digest([config.recipe(fingerprint), code])[:16]


# --- built-in training ------------------------------------------------------------------------------------------


class Sgd(Block):
    """Stochastic gradient descent with momentum (Polyak 1964; `torch.optim.SGD`)."""

    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1, description="Share of the last step that is kept.")] = 0.9
    nesterov: Annotated[
        bool, Field(description="Look ahead along the momentum before taking the gradient.")
    ] = False
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty added to the gradient.")] = 0.0


class Adam(Block):
    """Adam (Kingma & Ba 2015; `torch.optim.Adam`): weight decay is an L2 penalty added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of the gradient.")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of its square.")] = 0.999
    weight_decay: Annotated[float, Field(ge=0, description="L2 penalty added to the gradient.")] = 0.0


class AdamW(Block):
    """AdamW (Loshchilov & Hutter 2019; `torch.optim.AdamW`): weight decay is decoupled from the gradient."""

    name: Literal["adamw"] = "adamw"
    lr: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    beta1: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of the gradient.")] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1, description="Decay of the mean of its square.")] = 0.999
    weight_decay: Annotated[
        float, Field(ge=0, description="Shrinkage of the weights per unit of learning rate.")
    ] = 0.01


class Constant(Block):
    """The learning rate stays at its peak."""

    name: Literal["constant"] = "constant"


class Cosine(Block):
    """From the peak to zero along half a cosine, step by step (Loshchilov & Hutter 2017, without restarts)."""

    name: Literal["cosine"] = "cosine"


class OneCycle(Block):
    """Up from a 25th of the peak, then down to nearly zero, along cosines (Smith & Topin 2018)."""

    name: Literal["onecycle"] = "onecycle"
    warmup: Annotated[float, Field(gt=0, lt=1, description="Share of the steps that go up.")] = 0.3


class TrainingConfig(Block):
    """The loop itself."""

    epochs: Annotated[int, Field(ge=1, le=100_000, description="Passes over the training split.")] = 20
    batch_size: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="Images per step; the last batch of an epoch may be smaller."),
    ] = 256
    loss: Annotated[
        Literal["cross-entropy"], Field(description="Training loss, averaged over the batch.")
    ] = "cross-entropy"
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="Arithmetic of the forward pass; weights and optimizer are always float32."),
    ] = "float32"
    checkpoint: Annotated[
        Literal["last", "best"],
        Field(description="Epoch whose weights count: the last, or the one with the lowest validation loss."),
    ] = "last"


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]
Schedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="name")]


class RunConfig(Block):
    """One run of the built-in training."""

    data: datasets.DataConfig
    model: ModelConfig
    # `augment: null` in a study means none; as a block with everything off there is only one way to say it.
    augment: Annotated[Augment, BeforeValidator(lambda value: Augment() if value is None else value)] = (
        Augment()
    )
    optimizer: Optimizer = Sgd()
    schedule: Schedule = OneCycle()
    training: TrainingConfig = TrainingConfig()
    seed: Annotated[int, Field(ge=0, description="Fixes every source of variation of the run.")] = 0

    @classmethod
    def parse(cls, tree: Mapping[str, Any], *, place: Callable[[str], str] = str) -> Self:
        """From plain values. place: dotted path → how to name it in a message. Raises StudyError."""
        try:
            return cls.model_validate(dict(tree))
        except ValidationError as error:
            raise _readable(error, cls, tree, place) from None

    def override(self, changes: Mapping[str, Any]) -> Self:
        tree: Any = self.model_dump()
        # Outermost first, and a block's name before its other fields: a name resets the block that they live in.
        for path in sorted(changes, key=lambda p: (p.count("."), not p.endswith(".name"))):
            if path == "seed":
                raise StudyError(
                    "the seed is not a factor: `seeds` says how many replicates there are", place=path
                )
            value = changes[path]
            parts = path.split(".")
            inner = tree
            for depth, part in enumerate(parts[:-1]):
                if not isinstance(inner, dict) or part not in inner:
                    _unknown(inner, parts[: depth + 1])
                inner = inner[part]
            if not isinstance(inner, dict):
                raise StudyError(f"`{'.'.join(parts[:-1])}` is a value, not a block", place=path)
            if parts[-1] not in inner:
                _unknown(inner, parts)
            if len(parts) == 2 and parts[1] == "name":
                tree[parts[0]] = {"name": value} | {
                    f: inner[f] for f in _shared_fields(parts[0]) if f in inner
                }
            else:
                inner[parts[-1]] = value
        return self.parse(tree)

    def with_seed(self, seed: int) -> Self:
        return self.model_copy(update={"seed": seed})

    def flatten(self) -> dict[str, Scalar]:
        return _flatten(self.tree())

    def get(self, path: str) -> Any:
        return _get(self.tree(), path)

    def tree(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def recipe(self, fingerprint: str) -> str:
        tree = self.tree()
        # Where the data lies is not what they are: their fingerprint stands for them.
        tree["data"] = {f: v for f, v in tree["data"].items() if f not in {"root", "name"}} | {
            "content": fingerprint
        }
        return _digest(tree)[:16]

    def code(self) -> str:
        here = Path(__file__).parent
        module = Path(cast("str", importlib.util.find_spec(type(self.model).__module__).origin))  # type: ignore[union-attr]
        files = [*sorted((here / "training").glob("*.py")), here / "models" / "layers.py", module]
        return code_digest((*files, here / "data" / "split.py", here / "data" / "augment.py"))


def _shared_fields(block: str) -> frozenset[str]:
    """Fields that every member of a block's union has: they survive a change of `name`."""
    annotation: Any = RunConfig.model_fields[block].annotation
    members = [m for m in get_args(annotation) if isinstance(m, type) and issubclass(m, BaseModel)] or [
        annotation
    ]
    return frozenset.intersection(*(frozenset(m.model_fields) for m in members)) - {"name"}


# --- the user's own training ------------------------------------------------------------------------------------


class FreeConfig:
    """Any tree of plain values, for training code that is not ours; `train` names it as `package.module:function`.

    values: nested dicts with string keys; leaves are strings, finite numbers, booleans, None, or lists of those.
    """

    def __init__(self, train: str, values: Mapping[str, Any], seed: int = 0) -> None:
        self.train = train
        self._values = json.loads(json.dumps(values, allow_nan=False))
        self._seed = seed

    @classmethod
    def parse(cls, train: str, tree: Mapping[str, Any], *, place: Callable[[str], str] = str) -> Self:
        """From plain values. Raises StudyError."""
        _plain(tree, (), place)
        return cls(train, tree)

    @property
    def seed(self) -> int:
        return self._seed

    def override(self, changes: Mapping[str, Any]) -> Self:
        tree = self.tree()
        for path in sorted(changes, key=lambda p: p.count(".")):
            *outer, last = path.split(".")
            inner: Any = tree
            for depth, part in enumerate(outer):
                if not isinstance(inner, dict) or part not in inner:
                    _unknown(inner, path.split(".")[: depth + 1])
                inner = inner[part]
            if not isinstance(inner, dict) or last not in inner:
                _unknown(inner, path.split("."))
            old, new = inner[last], changes[path]
            _plain(new, tuple(path.split(".")), str)
            if old is not None and new is not None and isinstance(old, bool) != isinstance(new, bool):
                raise StudyError(f"{show(new)} where the baseline has {show(old)}", place=path)
            inner[last] = new
        return type(self)(self.train, tree, self._seed)

    def with_seed(self, seed: int) -> Self:
        return type(self)(self.train, self._values, seed)

    def flatten(self) -> dict[str, Scalar]:
        return _flatten(self._values) | {"seed": self._seed}

    def get(self, path: str) -> Any:
        return _get(self._values, path)

    def tree(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(json.dumps(self._values)))

    def recipe(self, fingerprint: str) -> str:
        return _digest([self._values, self._seed, fingerprint])[:16]

    def code(self) -> str:
        module = self.train.partition(":")[0]
        try:
            top = importlib.util.find_spec(module.partition(".")[0])
        except (ImportError, ValueError):
            top = None
        if top is None:
            raise StudyError(
                f"there is no module {module.partition('.')[0]!r} to import",
                place="train",
                hint="install it, or run from the folder that holds it",
            )
        if top.submodule_search_locations:
            # Which of a package's modules matter cannot be told from outside, so all of them do.
            return code_digest(
                tuple(sorted(f for root in top.submodule_search_locations for f in Path(root).rglob("*.py")))
            )
        return code_digest((Path(cast("str", top.origin)),))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeConfig) and (self.train, self._values, self._seed) == (
            other.train,
            other._values,
            other._seed,
        )

    def __hash__(self) -> int:
        return hash((self.train, json.dumps(self._values, sort_keys=True), self._seed))


# --- shared ------------------------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as a person would write it in a study file: `true`, `null`, `1e-05`, `{depth: 2, name: cnn}`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(v) for v in value) + "]"
    return str(value)


def code_digest(files: tuple[Path, ...]) -> str:
    """Digest of what Python files do: their syntax trees without comments, docstrings and layout.

    Independent of where the files lie and of the Python version that parses them.
    """
    return _digest([[f.name, _file_digest(f, f.stat().st_mtime_ns)] for f in files])[:16]


@functools.lru_cache(maxsize=1024)
def _file_digest(file: Path, _changed: int) -> str:
    return _digest(_shape(ast.parse(file.read_bytes())))


def _shape(node: Any) -> Any:
    """A syntax tree as nested lists. Absent and empty fields are left out: newer Pythons add such fields."""
    if isinstance(node, ast.AST):
        parts: list[Any] = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name == "body" and isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                value = value[1:] if ast.get_docstring(node, clean=False) is not None else value  # noqa: PLW2901
            if value is None or value == [] or name in {"kind", "type_comment"}:
                continue
            parts.append([name, _shape(value)])
        return parts
    if isinstance(node, list):
        return [_shape(n) for n in node]
    return repr(node)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _get(tree: Any, path: str) -> Any:
    parts = path.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(tree, dict) or part not in tree:
            _unknown(tree, parts[: depth + 1])
        tree = tree[part]
    return tree


def _unknown(inner: Any, parts: list[str]) -> None:
    """Raise for the last of `parts`, which is no key of the block `inner`."""
    known = inner.keys() if isinstance(inner, dict) else ()
    prefix = ".".join(parts[:-1])
    raise StudyError(
        f"unknown key {parts[-1]!r}",
        place=".".join(parts),
        hint=nearest(parts[-1], known) if known else f"`{prefix}` is a value, not a block",
    )


def _plain(value: Any, path: tuple[str, ...], place: Callable[[str], str]) -> None:
    where = place(".".join(path))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str) or "." in name or not name:
                raise StudyError(f"the key {name!r} is not a plain name without dots", place=where)
            _plain(inner, (*path, name), place)
    elif isinstance(value, list):
        for inner in value:
            _plain(inner, path, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"{value} is not a finite number", place=where)
    elif not isinstance(value, str | int | float | bool | None):
        raise StudyError(
            f"{type(value).__name__} is not a plain value (text, number, true, false, null, list)",
            place=where,
        )


def _readable(
    error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any], place: Callable[[str], str]
) -> StudyError:
    """The first mistake of a validation, in a person's words."""
    first = error.errors()[0]
    path, fields = _real_path(first["loc"], model, tree)
    message, hint = first["msg"], None
    match first["type"]:
        case "extra_forbidden":
            message, hint = f"unknown key {path[-1]!r}", nearest(str(path[-1]), fields)
        case "union_tag_invalid":
            message, hint = (
                f"unknown name {first['ctx']['tag']!r}",
                nearest(
                    str(first["ctx"]["tag"]),
                    [t.strip(" '") for t in first["ctx"]["expected_tags"].split(",")],
                ),
            )
            path = (*path, "name")
        case "union_tag_not_found":
            message = "a `name` is missing"
        case "missing":
            message = "is missing"
        case "literal_error":
            message = f"{show(first['input'])} is not one of {first['ctx']['expected']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            message = f"{show(first['input'])} is a value where a block of keys belongs"
        case _:
            message = message.removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            if not isinstance(first["input"], Mapping):
                message += f" (got {show(first['input'])})"
    return StudyError(message, place=place(".".join(str(p) for p in path)), hint=hint)


def _real_path(
    loc: tuple[int | str, ...], model: type[BaseModel], tree: Any
) -> tuple[tuple[int | str, ...], list[str]]:
    """A pydantic location without the union tags it inserts, and the fields of the innermost block."""
    path: list[int | str] = []
    annotation: Any = model
    fields = list(model.model_fields)
    position = 0
    while position < len(loc):
        part = loc[position]
        path.append(part)
        position += 1
        tree = tree.get(part) if isinstance(tree, Mapping) else None
        if (
            not (isinstance(annotation, type) and issubclass(annotation, BaseModel))
            or part not in annotation.model_fields
        ):
            continue
        annotation = annotation.model_fields[str(part)].annotation
        members = [m for m in get_args(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
        if members and position < len(loc):
            tag = loc[position]
            annotation = next((m for m in members if m.model_fields["name"].default == tag), members[0])
            position += 1
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = list(annotation.model_fields)
    return tuple(path), fields
