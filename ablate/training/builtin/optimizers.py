"""One rule of update per optimizer, for a single network and for a stack of networks.

A single network takes torch's own optimizer. A stack takes the same rule on parameters with a leading dimension of members, with the
hyperparameters of each member; it computes in another order, so that the last digits differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ablate import config as configs
from ablate.fields import Block

EPSILON = 1e-8
"""Added to Adam's denominator: torch's default."""

T = TypeVar("T", bound=Block)
AnyAdam = TypeVar("AnyAdam", configs.Adam, configs.AdamW)


class UpdateRule(ABC, Generic[T]):
    """How an optimizer changes the parameters of a stack; `single` gives the same rule for one network.

    blocks: the config of each member's optimizer; they differ in fields of type float alone (`config.shared_in_a_stack`).
    moments: name of a parameter → what the rule remembers of it, each (m, …).
    """

    def __init__(self, blocks: Sequence[T], device: torch.device) -> None:
        self._blocks = list(blocks)
        self._device = device
        self.moments: dict[str, list[Tensor]] = {}
        self.steps = 0
        values = {
            name: [getattr(block, name) for block in blocks]
            for name, value in blocks[0]
            if isinstance(value, float)
        }
        # In float64 as torch's own scalars: 1 − β₂ of a float32 β₂ is off in its sixth digit.
        self.columns = {
            name: torch.tensor(column, dtype=torch.float64, device=device) for name, column in values.items()
        }
        self._in_use = {name for name, column in values.items() if any(column)}

    @staticmethod
    @abstractmethod
    def single(block: T, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return torch's optimizer for one network."""
        ...

    @abstractmethod
    def update(self, name: str, p: Tensor, gradient: Tensor, lr: Tensor) -> None:
        """Change a parameter in place. p, gradient: (m, …). lr: (m,) float64."""
        ...

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: Tensor) -> None:
        """Change `parameters`, each (m, …), by their gradients. lr: (m,) float64."""
        self.steps += 1
        for name, p in parameters.items():
            assert p.grad is not None
            self.update(name, p, p.grad, lr)

    def subset(self, positions: Sequence[int]) -> UpdateRule[T]:
        """Return the rule of some of the members, with what it remembers of them."""
        rule = type(self)([self._blocks[i] for i in positions], self._device)
        rule.steps = self.steps
        rule.moments = {
            name: [stack_tensors([t[i] for i in positions]) for t in moments]
            for name, moments in self.moments.items()
        }
        return rule

    def uses(self, name: str) -> bool:
        """Return whether a hyperparameter is other than 0 for any member."""
        return name in self._in_use

    def column(self, name: str, like: Tensor) -> Tensor:
        """Return a hyperparameter of every member, in the type of `like` (m, …), with which it broadcasts."""
        return as_column(self.columns[name], like)


class SgdRule(UpdateRule[configs.Sgd]):
    @staticmethod
    def single(block: configs.Sgd, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=block.lr,
            momentum=block.momentum,
            nesterov=block.nesterov,
            weight_decay=block.weight_decay,
        )

    def update(self, name: str, p: Tensor, gradient: Tensor, lr: Tensor) -> None:
        if self.uses("weight_decay"):
            gradient = torch.addcmul(gradient, p, self.column("weight_decay", p))
        p.addcmul_(self._direction(name, gradient), as_column(lr, p), value=-1)

    def _direction(self, name: str, gradient: Tensor) -> Tensor:
        if not self.uses("momentum"):
            return gradient
        momentum = self.column("momentum", gradient)
        if name not in self.moments:
            self.moments[name] = [gradient.clone()]
        else:
            self.moments[name][0].mul_(momentum).add_(gradient)
        (velocity,) = self.moments[name]
        return torch.addcmul(gradient, velocity, momentum) if self._blocks[0].nesterov else velocity


class _RunningAverages(UpdateRule[AnyAdam]):
    """What Adam and AdamW have in common; they differ in how weights decay."""

    def step(self, parameters: Mapping[str, Tensor], lr: Tensor) -> None:
        steps = self.steps + 1
        self._rate = lr / (1 - self.columns["beta1"] ** steps)
        self._root = (1 - self.columns["beta2"] ** steps).sqrt()
        super().step(parameters, lr)

    def _descend(self, name: str, p: Tensor, gradient: Tensor) -> None:
        beta1, beta2 = self.columns["beta1"], self.columns["beta2"]
        if name not in self.moments:
            self.moments[name] = [torch.zeros_like(p), torch.zeros_like(p)]
        mean, square = self.moments[name]
        mean.lerp_(gradient, as_column(1 - beta1, p).expand_as(gradient))
        square.mul_(as_column(beta2, p)).addcmul_(gradient * gradient, as_column(1 - beta2, p))
        denominator = (square.sqrt() / as_column(self._root, p)).add_(EPSILON)
        p.addcdiv_(mean * as_column(self._rate, p), denominator, value=-1)


class AdamRule(_RunningAverages[configs.Adam]):
    @staticmethod
    def single(block: configs.Adam, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            parameters, lr=block.lr, betas=(block.beta1, block.beta2), weight_decay=block.weight_decay
        )

    def update(self, name: str, p: Tensor, gradient: Tensor, lr: Tensor) -> None:  # noqa: ARG002 — in the rate
        if self.uses("weight_decay"):
            gradient = torch.addcmul(gradient, p, self.column("weight_decay", p))
        self._descend(name, p, gradient)


class AdamWRule(_RunningAverages[configs.AdamW]):
    @staticmethod
    def single(block: configs.AdamW, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=block.lr, betas=(block.beta1, block.beta2), weight_decay=block.weight_decay
        )

    def update(self, name: str, p: Tensor, gradient: Tensor, lr: Tensor) -> None:
        if self.uses("weight_decay"):
            p.mul_(as_column(1 - lr * self.columns["weight_decay"], p))
        self._descend(name, p, gradient)


RULES: dict[type[Block], type[UpdateRule[Any]]] = {
    configs.Sgd: SgdRule,
    configs.Adam: AdamRule,
    configs.AdamW: AdamWRule,
}


def optimizer(block: Block, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a single network."""
    return RULES[type(block)].single(block, list(model.parameters()))


def stacked_rule(blocks: Sequence[Block], device: torch.device) -> UpdateRule[Any]:
    """Return the rule of a stack. blocks: of one kind, one of each member."""
    (kind,) = {type(block) for block in blocks}
    return RULES[kind](blocks, device)


def as_column(values: Tensor, like: Tensor) -> Tensor:
    """(m,) → (m, 1, …), in the type of `like` (m, …), with which it broadcasts."""
    return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def stack_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Stack the members' tensors: (m, …); weights of convolutions channels_last, so that they join to one weight without a copy."""
    if tensors[0].dim() == 4:
        return torch.stack([t.permute(0, 2, 3, 1) for t in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(tensors))
