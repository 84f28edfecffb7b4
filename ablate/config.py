"""What one run is: the configuration of the built-in training, or a free tree of values for the user's own.

Both are a `Config`: frozen, strict, and able to be overridden by dotted paths, flattened, and named by a key. Everything
that asks "what differs?", "was this run already?" or "what is recorded?" goes through these, so that nothing outside
training knows about networks.
"""

from __future__ import annotations

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Protocol, Self, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ablate import code_digest
from ablate.data import datasets
from ablate.data.augment import Augment
from ablate.errors import StudyError, nearest
from ablate.fields import Block, check_plain
from ablate.models import ModelConfig, NumpyMlp
from ablate.models.numpy_mlp import OPTIMIZERS
from ablate.text import brief, cut

Scalar = str | int | float | bool | None

CHANGES_NO_RESULT = frozenset({"training.save_model"})
"""Paths that a run's key leaves out, and that therefore are no factors."""

_NOT_A_FACTOR = "the seed is not a factor: `seeds` says how many replicates there are"


class Config(Protocol):
    """One run's configuration, seed included."""

    @property
    def seed(self) -> int: ...

    @property
    def source(self) -> Mapping[str, Any]:
        """What the study says of the code that trains, by key; empty where all of it is ablate's."""
        ...

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        """The part of `source` that results depend on."""
        ...

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with dotted paths set: a leaf (`optimizer.lr`) or a whole block (`model`). Raises StudyError."""
        ...

    def with_seed(self, seed: int) -> Self: ...

    def flatten(self) -> dict[str, Scalar]:
        """Dotted path → value, every default resolved."""
        ...

    def get(self, path: str) -> Any:
        """Return the value at a dotted path: a scalar or a block as plain values. Raises StudyError."""
        ...

    def tree(self) -> dict[str, Any]:
        """Return the whole configuration as plain values."""
        ...

    def recipe(self, fingerprint: str) -> str:
        """Digest of what is trained on which data, whatever the code."""
        ...

    def code(self) -> str:
        """Digest of the code that training this config runs through."""
        ...

    def batches(self, *, any_seed: bool = False) -> str | None:
        """Return what runs must have in common to train on the same batches; None where that is not known.

        any_seed: to train side by side on batches of their own, of the same images in orders of their own.
        """
        ...

    def shape(self) -> str:
        """Return what runs must have in common for their networks to be stacked, as far as the config tells."""
        ...


def key(config: Config, fingerprint: str, code: str) -> str:
    """Return the name of a run: what is trained (seed included), on which data, by which code (`Config.code()`).

    fingerprint: of the data's content, so that a moved or copied folder stays the same data. Two runs with the same key
    are the same run, in whatever study.
    """
    return key_and_recipe(config, fingerprint, code)[0]


def key_and_recipe(config: Config, fingerprint: str, code: str) -> tuple[str, str]:
    """Return the name of a run, as `key`, and the part of it that does not depend on the code."""
    # The recipe leaves out what the study says of the code. It counts here, so that no kind of training can forget it in its digest.
    source = [dict(config.keyed_source)] if config.keyed_source else []
    recipe = config.recipe(fingerprint)
    return code_digest.digest_of([recipe, code, *source])[:16], recipe


# --- built-in training ------------------------------------------------------------------------------------------


AdamRate = Annotated[float, Field(gt=0, description="Peak learning rate.", examples=[0.0003, 0.003])]
Beta1 = Annotated[
    float,
    Field(ge=0, lt=1, description="Decay rate of the running mean of the gradient.", examples=[0.8, 0.95]),
]
Beta2 = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Decay rate of the running mean of the squared gradient.",
        examples=[0.99, 0.9999],
    ),
]
L2Penalty = Annotated[
    float,
    Field(
        ge=0,
        description="L2 penalty: weight_decay · weights is added to the gradient.",
        examples=[0.0001, 0.0005],
    ),
]


class Sgd(Block):
    """Stochastic gradient descent with momentum (Polyak 1964; `torch.optim.SGD`)."""

    name: Literal["sgd"] = "sgd"
    lr: Annotated[float, Field(gt=0, description="Peak learning rate.", examples=[0.02, 0.1])] = 0.05
    momentum: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Momentum: factor by which the velocity of the previous step is kept. 0: no momentum.",
            examples=[0.0, 0.95],
        ),
    ] = 0.9
    nesterov: Annotated[bool, Field(description="Nesterov momentum.", examples=[True])] = False
    weight_decay: L2Penalty = 0.0


class Adam(Block):
    """Adam (Kingma & Ba 2015; `torch.optim.Adam`): weight decay is an L2 penalty added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: AdamRate = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    weight_decay: L2Penalty = 0.0


class AdamW(Block):
    """AdamW (Loshchilov & Hutter 2019; `torch.optim.AdamW`): weight decay is decoupled from the gradient."""

    name: Literal["adamw"] = "adamw"
    lr: AdamRate = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            description="Decoupled weight decay: each step multiplies the weights by 1 − learning rate · weight_decay.",
            examples=[0.05, 0.1],
        ),
    ] = 0.01


Warmup = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        description="Share of the steps, at the start, in which the learning rate rises linearly to its peak. 0: no warmup.",
        examples=[0.05, 0.1],
    ),
]


class Constant(Block):
    """The learning rate stays at its peak, after the warmup if there is one."""

    name: Literal["constant"] = "constant"
    warmup: Warmup = 0.0


class Cosine(Block):
    """The learning rate falls from its peak to 0 along half a cosine, at every step (Loshchilov & Hutter 2017, no restarts)."""

    name: Literal["cosine"] = "cosine"
    warmup: Warmup = 0.0


class Step(Block):
    """The learning rate is multiplied by `gamma` at every milestone (`torch.optim.lr_scheduler.MultiStepLR`)."""

    name: Literal["step"] = "step"
    milestones: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...],
        Field(
            strict=False,
            min_length=1,
            max_length=100,
            description="Shares of the steps after which the learning rate falls, in increasing order.",
            examples=[[0.3, 0.6, 0.8]],
        ),
    ] = (0.5, 0.75)
    gamma: Annotated[
        float,
        Field(gt=0, lt=1, description="Factor for the learning rate at each milestone.", examples=[0.2, 0.5]),
    ] = 0.1
    warmup: Warmup = 0.0

    @field_validator("milestones")
    @classmethod
    def _in_order(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in itertools.pairwise(milestones)):
            raise ValueError("milestones should be in increasing order")
        return milestones


class OneCycle(Block):
    """The learning rate rises from 1/25 of its peak, then falls to nearly 0, both along cosines (Smith & Topin 2018)."""

    name: Literal["onecycle"] = "onecycle"
    warmup: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of the steps in which the learning rate rises.",
            examples=[0.1, 0.5],
        ),
    ] = 0.3


class TrainingConfig(Block):
    """The training loop."""

    epochs: Annotated[
        int, Field(ge=1, le=100_000, description="Passes over the training split.", examples=[10, 40])
    ] = 20
    batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="Images in each step; the last batch of an epoch may be smaller.",
            examples=[64, 512],
        ),
    ] = 256
    loss: Annotated[
        Literal["cross-entropy", "focal"],
        Field(
            description="The loss that training minimises, averaged over the batch. The metrics train/loss, val/loss and"
            " test/loss are cross-entropy in any case.",
            examples=["focal"],
        ),
    ] = "cross-entropy"
    focal_gamma: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="γ of the focal loss: the larger it is, the less weight images have that are already classified well.",
            examples=[1.0, 5.0],
        ),
    ] = 2.0
    label_smoothing: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Share of each label's probability that is spread evenly over all classes. 0: off.",
            examples=[0.05, 0.1],
        ),
    ] = 0.0
    max_grad_norm: Annotated[
        float | None,
        Field(
            gt=0,
            description="Gradient clipping: a gradient whose norm over all weights is larger than this is scaled down to it. null: off.",
            examples=[1.0, 5.0],
        ),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(
            description="Arithmetic of the forward pass; weights and optimizer state are always float32.",
            examples=["bfloat16"],
        ),
    ] = "float32"
    checkpoint: Annotated[
        Literal["last", "best"],
        Field(
            description="Epoch whose weights are evaluated on the test set, and at which the metric is read: the last, or the"
            " one with the lowest validation loss.",
            examples=["best"],
        ),
    ] = "last"
    save_model: Annotated[
        Literal["none", "best"],
        Field(
            description="Whether the network is saved in MLflow, with the weights of the epoch that is best by the study's metric"
            " on the validation split; of equal epochs, the later one. It changes no result and cannot be a factor."
        ),
    ] = "none"
    patience: Annotated[
        int | None,
        Field(
            ge=1,
            description="Early stopping: training ends after this many epochs in a row without a new lowest val/loss."
            " null: off.",
            examples=[5, 10],
        ),
    ] = None
    min_delta: Annotated[
        float,
        Field(
            ge=0,
            description="Early stopping: val/loss must fall by more than this to count as a new lowest.",
            examples=[0.001],
        ),
    ] = 0.0


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]
Schedule = Annotated[Constant | Cosine | Step | OneCycle, Field(discriminator="name")]


def shared_in_a_stack(optimizer: Block) -> dict[str, Any]:
    """Return what the optimizers of all members of a stack have in common: every field that is no real number."""
    return {name: value for name, value in optimizer if not isinstance(value, float)}


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
    seed: Annotated[int, Field(ge=0, description="Seed of all random streams of the run.")] = 0

    @model_validator(mode="after")
    def _model_can_train_so(self) -> Self:
        if isinstance(self.model, NumpyMlp) and self.optimizer.name not in OPTIMIZERS:
            raise ValueError(f"numpy_mlp trains with {', '.join(OPTIMIZERS)} only")
        if isinstance(self.model, NumpyMlp) and self.training.precision != "float32":
            raise ValueError(f"numpy_mlp trains in float32 only: NumPy has no {self.training.precision}")
        if isinstance(self.model, NumpyMlp) and self.training.loss != "cross-entropy":
            raise ValueError(
                f"numpy_mlp trains with cross-entropy only: its backpropagation has no {self.training.loss} loss"
            )
        if isinstance(self.model, NumpyMlp) and self.training.save_model != "none":
            raise ValueError(
                "numpy_mlp is no torch module, so MLflow cannot load it: set training.save_model to none"
            )
        return self

    @property
    def source(self) -> Mapping[str, Any]:
        return {}

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        return {}

    def override(self, changes: Mapping[str, Any]) -> Self:
        tree: Any = self.model_dump()
        # Outermost first, and a block's name before its other fields: a name resets the block that they live in.
        for path in sorted(changes, key=lambda p: (p.count("."), not p.endswith(".name"))):
            if path == "seed":
                raise StudyError(_NOT_A_FACTOR, place=path)
            value = changes[path]
            *outer, last = path.split(".")
            inner = _block(tree, outer, self.flatten())
            if inner is tree and last not in tree:
                _unknown(tree, [last], self.flatten())
            if outer[1:] and last not in inner:
                # Only the arguments of the user's own code have no names of ablate's: a factor needs the baseline's value.
                raise StudyError(
                    f"the baseline gives no {cut(last)!r} in `{'.'.join(outer)}`",
                    place=path,
                    hint=f"write the value that it has there: `{outer[-1]}: {{{last}: VALUE}}`",
                )
            if len(outer) == 1 and last == "name" and inner.get("name", value) != value:
                # A learning rate or a dropout means another thing in another optimizer or network: defaults hold there.
                # How the images are drawn and split means the same for any data set.
                kept = {f: inner[f] for f in datasets.DataOptions.model_fields} if outer == ["data"] else {}
                tree[outer[0]] = kept | {"name": value}
            else:
                # Whether the block has such a field depends on its name, so validation finds out.
                inner[last] = value
        return self.parse(tree)

    def with_seed(self, seed: int) -> Self:
        return self.model_copy(update={"seed": seed})

    def flatten(self) -> dict[str, Scalar]:
        return flatten_tree(self.tree())

    def get(self, path: str) -> Any:
        return _get(self.tree(), path)

    def tree(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def recipe(self, fingerprint: str) -> str:
        tree = self.tree()
        # Where the data lie, or what they were made of, is not what they are: their fingerprint stands for them.
        kept = datasets.DataOptions.model_fields.keys() - {"channels"}
        tree["data"] = {f: v for f, v in tree["data"].items() if f in kept} | {"content": fingerprint}
        # A run is the same run whether its network was kept or not.
        for path in CHANGES_NO_RESULT:
            block, _, field = path.partition(".")
            tree[block] = {f: v for f, v in tree[block].items() if f != field}
        return code_digest.digest_of(tree)[:16]

    def code(self) -> str:
        package = Path(__file__).parent
        training = sorted((package / "training" / "builtin").glob("*.py"))
        module = type(self.model).__module__.rpartition(".")[2]
        models = code_digest.with_imports(package / "models", module, "layers")
        data = [package / "data" / name for name in ("split.py", "augment.py")]
        own = code_digest.files_digest([*training, *models, *data])
        beside = self.model.code_beside()
        return code_digest.digest_of([own, *beside])[:16] if beside else own

    def batches(self, *, any_seed: bool = False) -> str:
        """Seed, data, augmentation, batch size and epochs; and NumPy's networks by themselves, as they know no device."""
        training = self.training
        seed = None if any_seed and self.data.split == "fixed" else self.seed
        loop = [seed, training.batch_size, training.epochs, isinstance(self.model, NumpyMlp)]
        return json.dumps([self.data.model_dump(mode="json"), self.augment.model_dump(), loop])

    def shape(self) -> str:
        model = {name: value for name, value in self.model.model_dump().items() if name != "dropout"}
        return json.dumps([model, shared_in_a_stack(self.optimizer), self.training.precision])


# --- the user's own training ------------------------------------------------------------------------------------


class FreeConfig(ABC):
    """Any tree of plain values, for training code that is not ours; each kind of training that takes one has a subclass.

    source: what the study says of that code, by key, as plain values. values: nested dicts with string keys; leaves are
    strings, finite numbers, booleans, None, or lists of those.
    """

    def __init__(self, source: Mapping[str, Any], values: Mapping[str, Any], seed: int = 0) -> None:
        self._source = dict(source)
        self._values = json.loads(json.dumps(values, allow_nan=False))
        self._seed = seed

    @classmethod
    def parse(
        cls, source: Mapping[str, Any], tree: Mapping[str, Any], *, place: Callable[[str], str] = str
    ) -> Self:
        """Make a config of plain values. Raises StudyError."""
        check_plain(tree, (), place)
        return cls(source, tree)

    @property
    def source(self) -> Mapping[str, Any]:
        return self._source

    @property
    def keyed_source(self) -> Mapping[str, Any]:
        return self._source

    @property
    def seed(self) -> int:
        return self._seed

    def override(self, changes: Mapping[str, Any]) -> Self:
        tree = self.tree()
        for path in sorted(changes, key=lambda p: p.count(".")):
            if path == "seed":
                raise StudyError(_NOT_A_FACTOR, place=path)
            *outer, last = path.split(".")
            inner = _block(tree, outer, self.flatten())
            if last not in inner:
                _unknown(inner, path.split("."), self.flatten())
            old, new = inner[last], changes[path]
            check_plain(new, tuple(path.split(".")), str)
            if old is not None and new is not None and isinstance(old, bool) != isinstance(new, bool):
                raise StudyError(f"{brief(new)} where the baseline has {brief(old)}", place=path)
            inner[last] = new
        return type(self)(self._source, tree, self._seed)

    def with_seed(self, seed: int) -> Self:
        return type(self)(self._source, self._values, seed)

    def flatten(self) -> dict[str, Scalar]:
        return flatten_tree(self._values) | {"seed": self._seed}

    def get(self, path: str) -> Any:
        return _get(self._values, path)

    def tree(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(json.dumps(self._values)))

    def recipe(self, fingerprint: str) -> str:
        return code_digest.digest_of([canonical(self._values), self._seed, fingerprint])[:16]

    @abstractmethod
    def code(self) -> str: ...

    def batches(self, *, any_seed: bool = False) -> None:  # noqa: ARG002 — whatever the seed
        """Training of the user's own makes its batches itself."""
        return

    def shape(self) -> str:
        return json.dumps(self._source, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity() == cast("Self", other)._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[str, str, int]:
        # Compared as text: to Python, True equals 1.
        return self.shape(), json.dumps(canonical(self._values), sort_keys=True), self._seed


# --- shared ------------------------------------------------------------------------------------------------------


def flatten_tree(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Scalar]:
    """Return dotted path → value of a tree of plain values; a list is its JSON text."""
    flat: dict[str, Scalar] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten_tree(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _get(tree: dict[str, Any], path: str) -> Any:
    *outer, last = path.split(".")
    inner = _block(tree, outer, ())
    if last not in inner:
        _unknown(inner, path.split("."))
    return inner[last]


def _block(tree: Any, path: list[str], leaves: Iterable[str]) -> Any:
    """Return the block of `tree` at `path`. leaves: every path there is, to suggest one of. Raises StudyError."""
    for depth, part in enumerate(path):
        if part not in tree:
            _unknown(tree, path[: depth + 1], leaves)
        tree = tree[part]
        if not isinstance(tree, dict):
            raise StudyError(
                f"`{'.'.join(path[: depth + 1])}` is a value, not a block of keys", place=".".join(path)
            )
    return tree


def _unknown(block: Mapping[str, Any], path: list[str], leaves: Iterable[str] = ()) -> NoReturn:
    """Raise for the last of `path`, which is no key of `block`."""
    known = [leaf for leaf in leaves if leaf.rpartition(".")[2] == path[-1]] if len(path) == 1 else []
    raise StudyError(
        f"unknown key {cut(path[-1])!r}",
        place=".".join(path),
        hint=f"did you mean {known[0]!r}?" if known else nearest(path[-1], block) or "this block has no keys",
    )


def canonical(value: Any) -> Any:
    """Plain values with whole floats as integers: 1 and 1.0 are one setting."""
    if isinstance(value, dict):
        return {name: canonical(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_reals(value: Any, path: tuple[str | int, ...] = ()) -> list[list[str | int]]:
    """Return the paths, sorted, of the floats in plain values that are whole numbers: what `canonical` takes for integers."""
    if isinstance(value, dict):
        return [each for name in sorted(value) for each in whole_reals(value[name], (*path, name))]
    if isinstance(value, list):
        return [each for at, inner in enumerate(value) for each in whole_reals(inner, (*path, at))]
    return [list(path)] if isinstance(value, float) and value.is_integer() else []
