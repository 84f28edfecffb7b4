"""What a network is made of: its layers in execution order, their output shapes, parameters, and the work they do."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ablate.errors import StudyError, nearest
from ablate.models import MODELS, AnyModel
from ablate.models.numpy_mlp import NumpyMlp

INPUT, CLASSES = (3, 32, 32), 10
LARGEST_SIDE = 16_384


@dataclass(frozen=True)
class Layer:
    """One leaf module as it was executed. shape: output without the batch. parameters: its own, shared ones once.

    number: depth and place in the definition, `2-1`; modules that hold others are counted. part: the named part of the
    network that it belongs to, '' where parts have no names.
    """

    kind: str
    shape: tuple[int, ...]
    parameters: int
    number: str = field(default="", compare=False)
    part: str = field(default="", compare=False)


@dataclass(frozen=True)
class Summary:
    """rows: layers in execution order, as an image meets them in evaluation. parameters: trainable ones, in all.

    flops: floating-point operations of one image's forward pass, a multiply-add being two.
    """

    rows: tuple[Layer, ...]
    parameters: int
    flops: int

    @property
    def training_only(self) -> int:
        """Parameters that take part in training alone: those of auxiliary heads."""
        return self.parameters - sum(row.parameters for row in self.rows)


def summary(model: nn.Module, shape: tuple[int, int, int]) -> Summary:
    """Of a torch module, for images of `shape` (channels, height, width)."""
    return Summary(tuple(layers(model, shape)), parameters(model), flops(model, shape))


def describe(config: AnyModel, shape: tuple[int, int, int], classes: int) -> Summary:
    """Of any model's config; no weights are made. Raises TrainingError where the image shrinks to nothing."""
    config.check(shape)
    if isinstance(config, NumpyMlp):
        return perceptron(config.sizes(shape, classes))
    with torch.device("meta"):
        model = config.build(shape, classes)
    return summary(model, shape)


def perceptron(sizes: Sequence[int]) -> Summary:
    """Of linear layers with sigmoids between them. sizes: units of every layer, inputs first."""
    rows: list[Layer] = []
    pairs = list(itertools.pairwise(sizes))
    for position, (inputs, outputs) in enumerate(pairs, 1):
        rows.append(Layer("Linear", (outputs,), inputs * outputs + outputs, f"1-{len(rows) + 1}"))
        if position < len(pairs):
            rows.append(Layer("Sigmoid", (outputs,), 0, f"1-{len(rows) + 1}"))
    size = sum(row.parameters for row in rows)
    return Summary(tuple(rows), size, sum(2 * inputs * outputs for inputs, outputs in pairs))


def layers(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """The leaf modules of `model` in the order in which an image of `shape` (channels, height, width) meets them."""
    rows: list[Layer] = []
    seen: set[int] = set()
    places = {id(module): (number, part) for module, number, part in _numbered(model)}

    def note(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        own = sum(p.numel() for p in module.parameters()) if id(module) not in seen else 0
        seen.add(id(module))
        rows.append(Layer(type(module).__name__, tuple(output.shape[1:]), own, *places[id(module)]))

    _run(model, shape, note)
    return rows


def _numbered(model: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Every module with its number and part."""
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
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def flops(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's forward pass (a multiply-add is two), in convolutions and linear layers.

    What `torch.utils.flop_counter` counts of such a network, which takes seconds to import: too long for every worker.
    """
    work = 0

    def count(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal work
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Each output element is a sum over the inputs that one output channel's weights meet.
            work += 2 * output.numel() * module.weight[0].numel()

    _run(model, shape, count)
    return work


def _run(
    model: nn.Module, shape: tuple[int, int, int], note: Callable[[nn.Module, Any, torch.Tensor], None]
) -> None:
    """Pass one image through, and `note` every leaf module with its inputs and output as it is executed."""
    hooks = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    with _evaluated(model), contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        model(_image(model, shape))


@contextlib.contextmanager
def _evaluated(model: nn.Module) -> Any:
    """In evaluation mode and without gradients, and afterwards as it was."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def _image(model: nn.Module, shape: tuple[int, int, int]) -> torch.Tensor:
    weight = next(model.parameters())
    return torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device)


# --- by name, in words ------------------------------------------------------------------------------------------------


def by_name(name: str) -> AnyModel:
    """The default config of a model. Raises StudyError."""
    if name not in MODELS:
        raise StudyError(f"there is no model {name!r}", hint=nearest(name, MODELS))
    return MODELS[name]()  # type: ignore[return-value]


def parse_shape(text: str) -> tuple[int, int, int]:
    """`3x32x32` → (3, 32, 32): channels, height, width. Raises StudyError."""
    match = re.fullmatch(r"([1-9]\d{0,4})[x×]([1-9]\d{0,4})[x×]([1-9]\d{0,4})", text.strip())
    sides = tuple(int(group) for group in match.groups()) if match else ()
    if len(sides) != 3 or max(sides) > LARGEST_SIDE:
        raise StudyError(
            f"{text!r} is not the shape of an image",
            place="--input",
            hint="write channels, height and width: 3x32x32",
        )
    return sides


def listing(
    shape: tuple[int, int, int] = INPUT, classes: int = CLASSES
) -> list[tuple[str, Summary | str, str]]:
    """Every model by default: name, its summary (or why it cannot take such an image), what it is in a sentence."""
    from ablate.errors import TrainingError

    rows: list[tuple[str, Summary | str, str]] = []
    for name, kind in MODELS.items():
        what = (kind.__doc__ or "").strip().partition("\n")[0]
        try:
            rows.append((name, describe(by_name(name), shape, classes), what))
        except TrainingError as error:
            rows.append((name, error.message, what))
    return rows


def listing_text(rows: list[tuple[str, Summary | str, str]]) -> str:
    """The listing as lines of text."""
    lines = [("model", "parameters", "FLOPs", "")]
    for name, made, what in rows:
        if isinstance(made, str):
            lines.append((name, "–", "–", made))
        else:
            lines.append((name, f"{made.parameters:,}", f"{made.flops:,}", what))
    return _columns(lines, right=(1, 2))


def listing_json(rows: list[tuple[str, Summary | str, str]]) -> list[dict[str, Any]]:
    """The listing as plain values; `error` instead of figures where a model cannot take such an image."""
    return [
        {"model": name, "what": what}
        | ({"error": made} if isinstance(made, str) else {"parameters": made.parameters, "flops": made.flops})
        for name, made, what in rows
    ]


def text(made: Summary) -> str:
    """The layer table as lines of text; −1 stands for the batch, -- for no parameters of its own."""
    named = any(row.part for row in made.rows)
    lines = [("layer", "output shape", "parameters", "part" if named else "")]
    for row in made.rows:
        count = f"{row.parameters:,}" if row.parameters else "--"
        shape = "[" + ", ".join(map(str, (-1, *row.shape))) + "]"
        lines.append((f"{row.kind}: {row.number}", shape, count, row.part))
    total = f"{made.parameters:,} parameters"
    if made.training_only:
        total += f", {made.training_only:,} of them in auxiliary heads, which only train"
    return f"{_columns(lines, right=(2,))}\n\n{total}\n{made.flops:,} FLOPs forward, an image"


def as_json(name: str, made: Summary, shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """The layer table as plain values."""
    return {
        "model": name,
        "input": list(shape),
        "classes": classes,
        "parameters": made.parameters,
        "parameters_training_only": made.training_only,
        "flops": made.flops,
        "layers": [
            {
                "layer": f"{row.kind}: {row.number}",
                "part": row.part,
                "output_shape": list(row.shape),
                "parameters": row.parameters,
            }
            for row in made.rows
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
