"""What a network is made of: its layers in execution order, their output shapes, parameters, and the work they do."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Layer:
    """One leaf module as it was executed. shape: output without the batch. parameters: its own, shared ones once."""

    kind: str
    shape: tuple[int, ...]
    parameters: int


def layers(model: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """The leaf modules of `model` in the order in which an image of `shape` (channels, height, width) meets them."""
    rows: list[Layer] = []
    seen: set[int] = set()

    def note(module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        own = sum(p.numel() for p in module.parameters()) if id(module) not in seen else 0
        seen.add(id(module))
        rows.append(Layer(type(module).__name__, tuple(output.shape[1:]), own))

    hooks = [m.register_forward_hook(note) for m in model.modules() if not list(m.children())]
    with _evaluated(model), contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        model(_image(model, shape))
    return rows


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def flops(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Floating-point operations of one image's forward pass (a multiply-add is two), as torch's own counter sees them."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with _evaluated(model), counter:
        model(_image(model, shape))
    return int(counter.get_total_flops())


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
