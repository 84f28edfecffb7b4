"""The layers of a network in execution order, with output shapes, parameters and FLOPs."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ablate.errors import StudyError, nearest
from ablate.models import MODELS, AnyModel, foreign, trial
from ablate.models.layers import Headed
from ablate.models.numpy_mlp import NumpyMlp

INPUT, CLASSES = (3, 32, 32), 10
LARGEST_SIDE = 16_384


@dataclass(frozen=True)
class LayerRow:
    """One leaf module as it was executed. shape: of its output, without the batch. parameters: shared ones count once.

    number: depth and position in the definition, `2-1`, counting modules that contain others. part: the named part of the
    network that it belongs to; '' where parts have no names.
    """

    kind: str
    shape: tuple[int, ...]
    parameters: int
    number: str = field(default="", compare=False)
    part: str = field(default="", compare=False)


@dataclass(frozen=True)
class ModelSummary:
    """rows: layers in the order in which they are executed in evaluation. parameters: number of all trainable ones.

    flops: floating-point operations of the forward pass for one image; a multiply-add counts as two. training_only: number of
    parameters that are used in training only, those of ablate's auxiliary heads.
    """

    rows: tuple[LayerRow, ...]
    parameters: int
    flops: int
    training_only: int = 0

    @property
    def in_no_row(self) -> int:
        """Return the number of parameters that are neither in a row nor in auxiliary heads: a network may use some by itself."""
        return max(0, self.parameters - self.training_only - sum(row.parameters for row in self.rows))


def summary(model: nn.Module, shape: tuple[int, int, int]) -> ModelSummary:
    """Return the summary of a torch module for images of `shape` (channels, height, width)."""
    heads = [p for name, p in model.named_parameters() if name.startswith("auxiliary_") and p.requires_grad]
    training_only = sum(p.numel() for p in heads) if isinstance(model, Headed) else 0
    return ModelSummary(tuple(layers(model, shape)), parameters(model), flops(model, shape), training_only)


def describe(config: AnyModel, shape: tuple[int, int, int], classes: int) -> ModelSummary:
    """Return the summary of a model's config; of ablate's own networks no weights are allocated.

    Raises TrainingError where the image is too small, and where a network of others cannot be trained on such images.
    """
    config.check(shape)
    if isinstance(config, NumpyMlp):
        return perceptron(config.sizes(shape, classes))
    if config.is_foreign:
        trial.try_out(config, shape, classes, trial.FEW)
        with foreign.seeded(0):
            return summary(config.build(shape, classes), shape)
    with torch.device("meta"):
        model = config.build(shape, classes)
    return summary(model, shape)


def perceptron(sizes: Sequence[int]) -> ModelSummary:
    """Return the summary of linear layers with sigmoids between them. sizes: units of every layer, inputs first."""
    rows: list[LayerRow] = []
    pairs = list(itertools.pairwise(sizes))
    for position, (inputs, outputs) in enumerate(pairs, 1):
        rows.append(LayerRow("Linear", (outputs,), inputs * outputs + outputs, f"1-{len(rows) + 1}"))
        if position < len(pairs):
            rows.append(LayerRow("Sigmoid", (outputs,), 0, f"1-{len(rows) + 1}"))
    size = sum(row.parameters for row in rows)
    return ModelSummary(tuple(rows), size, sum(2 * inputs * outputs for inputs, outputs in pairs))


def layers(model: nn.Module, shape: tuple[int, int, int]) -> list[LayerRow]:
    """Return the leaf modules of `model` in execution order for an image of `shape` (channels, height, width)."""
    rows: list[LayerRow] = []
    seen: set[int] = set()
    places = {id(module): (number, part) for module, number, part in _numbered(model)}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        own = sum(p.numel() for p in module.parameters()) if id(module) not in seen else 0
        seen.add(id(module))
        # Layers of others may return several tensors: the first of them is their output.
        while isinstance(output, tuple | list) and output:
            output = output[0]
        shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
        rows.append(LayerRow(type(module).__name__, shape, own, *places[id(module)]))

    _run(model, shape, note)
    return rows


def _numbered(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield every module with its number and part."""
    count: Counter[int] = Counter()
    for path, module in model.named_modules():
        steps = path.split(".") if path else []
        count[len(steps)] += 1
        while steps and steps[-1].isdecimal():
            steps.pop()
        depth = path.count(".") + 1 if path else 0
        part = ".".join(steps)
        yield module, f"{depth}-{count[depth]}", part


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def flops(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of convolutions and linear layers in the forward pass for one image.

    A multiply-add counts as two. `torch.utils.flop_counter` gives the same number, but takes seconds to import, which is too
    long for every worker.
    """
    total = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Each output element is a sum with one term for every weight of its output channel.
            total += 2 * output.numel() * module.weight[0].numel()

    _run(model, shape, count)
    return total


def _run(
    model: nn.Module, shape: tuple[int, int, int], note: Callable[[nn.Module, Any, torch.Tensor], None]
) -> None:
    """Run the model on one image, calling `note` with every leaf module, its inputs and its output as it is executed."""
    hooks = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    with _evaluating(model), contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        model(_image(model, shape))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Any:
    """Set evaluation mode without gradients, and restore the mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _image(model: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    weight = next(model.parameters())
    return torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)


# --- as text and as JSON ----------------------------------------------------------------------------------------------


def by_name(name: str, changes: Mapping[str, Any] | None = None) -> AnyModel:
    """Return the config of a model, or of a network of the user's own that is named as `package.module:name`.

    changes: path → value, as in `width` or `args.heads`; other fields have their defaults. Raises StudyError.
    """
    tree: dict[str, Any] = {"name": name}
    if ":" in name:
        tree = {"name": "import", "target": name}
    elif name not in MODELS:
        raise StudyError(
            f"there is no model {name!r}", hint=f"{nearest(name, MODELS)}; your own: package.module:function"
        )
    for path, value in (changes or {}).items():
        *outer, last = path.removeprefix("model.").split(".")
        block = tree
        for part in outer:
            block = block.setdefault(part, {})
            if not isinstance(block, dict):
                raise StudyError(f"`{part}` is a value, not a block of keys", place=path)
        block[last] = value
    return MODELS[tree["name"]].parse(tree, place=lambda path: f"model.{path}" if path else "model")  # type: ignore[return-value]


def parse_shape(text: str) -> tuple[int, int, int]:
    """Parse `3x32x32` → (3, 32, 32): channels, height, width. Raises StudyError."""
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text.strip())
    sides = tuple(int(group) for group in match.groups()) if match else ()
    if len(sides) != 3 or max(sides) > LARGEST_SIDE:
        raise StudyError(
            f"{text!r} is not the shape of an image",
            place="--input",
            hint="write channels, height and width, for example 3x32x32",
        )
    return sides


Listed = tuple[str, ModelSummary | str | None, str]
"""A model with its default fields: name, summary (why such an image does not work; None where it has no defaults), description."""


def listing(shape: tuple[int, int, int] = INPUT, classes: int = CLASSES) -> list[Listed]:
    """Return every model with its default fields."""
    from ablate.errors import TrainingError

    rows: list[Listed] = []
    for name, kind in MODELS.items():
        description = (kind.__doc__ or "").strip().partition("\n")[0]
        needed = [field for field, about in kind.model_fields.items() if about.is_required()]
        if needed:
            rows.append((name, None, f"{description} (`--set {needed[0]}=…`)"))
            continue
        try:
            rows.append((name, describe(by_name(name), shape, classes), description))
        except TrainingError as error:
            rows.append((name, error.message, description))
    return rows


def listing_text(rows: list[Listed]) -> str:
    """Return the listing as lines of text."""
    lines = [("model", "parameters", "FLOPs", "")]
    for name, summarised, description in rows:
        if summarised is None or isinstance(summarised, str):
            lines.append((name, "–", "–", summarised or description))
        else:
            lines.append((name, f"{summarised.parameters:,}", f"{summarised.flops:,}", description))
    return _columns(lines, right=(1, 2))


def listing_json(rows: list[Listed]) -> list[dict[str, Any]]:
    """Return the listing as plain values; `error` instead of numbers where such an image does not work."""
    return [
        {"model": name, "what": description}
        | (
            {}
            if summarised is None
            else {"error": summarised}
            if isinstance(summarised, str)
            else {"parameters": summarised.parameters, "flops": summarised.flops}
        )
        for name, summarised, description in rows
    ]


def text(summarised: ModelSummary) -> str:
    """Return the layer table as lines of text; −1 stands for the batch, -- for a layer without parameters."""
    named = any(row.part for row in summarised.rows)
    lines = [("layer", "output shape", "parameters", "part" if named else "")]
    for row in summarised.rows:
        count = f"{row.parameters:,}" if row.parameters else "--"
        shape = "[" + ", ".join(map(str, (-1, *row.shape))) + "]"
        lines.append((f"{row.kind}: {row.number}", shape, count, row.part))
    total = f"{summarised.parameters:,} parameters"
    if summarised.training_only:
        total += f", {summarised.training_only:,} of them in auxiliary heads, which are used in training only"
    if summarised.in_no_row:
        total += f", {summarised.in_no_row:,} of them outside these layers"
    return f"{_columns(lines, right=(2,))}\n\n{total}\n{summarised.flops:,} FLOPs in the forward pass for one image"


def as_json(name: str, summarised: ModelSummary, shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Return the layer table as plain values."""
    return {
        "model": name,
        "input": list(shape),
        "classes": classes,
        "parameters": summarised.parameters,
        "parameters_training_only": summarised.training_only,
        "parameters_outside_layers": summarised.in_no_row,
        "flops": summarised.flops,
        "layers": [
            {
                "layer": f"{row.kind}: {row.number}",
                "part": row.part,
                "output_shape": list(row.shape),
                "parameters": row.parameters,
            }
            for row in summarised.rows
        ],
    }


def _columns(lines: Sequence[tuple[str, ...]], right: tuple[int, ...]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if position in right else cell.ljust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
