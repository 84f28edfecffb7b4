"""Layers that torch lacks, or whose torch version cannot be reproduced run by run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_MONOTONE = ("relu", "leaky_relu", "tanh")


class Dropout(nn.Module):
    """Inverted dropout with a generator of its own (Srivastava et al., JMLR 2014).

    `torch.nn.functional.dropout` draws from the global generator, so any other use of that generator would change the
    masks. Here the masks are a random stream of the run's seed: `use_generator` sets the generator before training.

    x: (n, …) float → the same shape; in training, each element is set to 0 with probability `p` and the others are scaled by
    1/(1 − p); in evaluation, x is returned as it is.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep.mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def use_generator(model: nn.Module, generator: torch.Generator) -> None:
    """Make every Dropout of `model` draw its masks from `generator`, which must be on the model's device."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.generator = generator


def activation(name: str) -> nn.Module:
    """Return the activation function of a name."""
    kinds: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "tanh": nn.Tanh,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }
    return kinds[name]()


def pooled_activation(name: str, pool: int) -> list[nn.Module]:
    """Return `pool`×`pool` max-pooling and an activation, in the cheaper order where both orders are the same function.

    A maximum commutes with a monotone activation, and pooling by 2 leaves only a quarter of the elements.
    """
    layers = [nn.MaxPool2d(pool), activation(name)]
    return layers if name in _MONOTONE else layers[::-1]


class Branches(nn.Module):
    """Named modules in parallel. x: (n, c, h, w) → their outputs concatenated along the channels, (n, Σ channels, h, w)."""

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


AUXILIARY_WEIGHT = 0.3
"""Weight of the loss of an auxiliary head in training; that of the network has weight 1 (Szegedy et al. 2014)."""


class Headed(nn.Module):
    """Named parts in sequence, some with an auxiliary head: a classifier that is used in training only.

    parts: name → module, in order. heads: name of a part → its head, from the output of that part to (n, classes).
    x: (n, c, h, w) → (n, classes) logits; in training, where there are heads, (logits, [logits of each head]).
    """

    def __init__(self, parts: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self._order = tuple(parts)
        self._headed = tuple(heads)
        for name, part in parts.items():
            self.add_module(name, part)
            if name in heads:
                self.add_module(f"auxiliary_{name}", heads[name])

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        head_logits: list[Tensor] = []
        for name in self._order:
            x = self._modules[name](x)  # type: ignore[misc]
            if self.training and name in self._headed:
                head_logits.append(self._modules[f"auxiliary_{name}"](x))  # type: ignore[misc]
        return (x, head_logits) if head_logits else x


class Flattened(nn.Sequential):
    """Modules in sequence after flattening. x: (n, c, h, w) → their output for (n, c·h·w)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for module in self:
            x = module(x)
        return x
