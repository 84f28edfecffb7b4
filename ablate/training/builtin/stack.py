"""Networks that take a training step at once: one by itself, or several of the same structure *stacked*.

Stacked networks have parameters with a leading dimension of members; convolutions are grouped, linear layers are batched products, and
one update has every member's own hyperparameters (Wang et al., HFTA, MLSys 2021, arXiv:2102.02344). The same sums in another order
differ in their last digits, and training makes more of that: a stacked run is not bit for bit what it is alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.config import RunConfig
from ablate.models import layers as own_layers
from ablate.training.builtin import losses
from ablate.training.builtin.learner import Learner, TorchLearner, Weighted
from ablate.training.builtin.optimizers import stack_tensors, stacked_rule


class Networks(Protocol):
    """Networks that take each step at once, by position 0 … m − 1."""

    @property
    def own_batches(self) -> bool:
        """Whether members have batches of their own."""
        ...

    def set_rates(self, rates: Sequence[Sequence[float]]) -> None:
        """rates: (steps, m) learning rates of the steps to come. All of an epoch at once, so that a GPU need not wait at every step."""
        ...

    def step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Update every member on a batch, as `Learner.step` takes it; or each on its own, where `own_batches`: (b, m·C, H, W), and
        targets with a leading dimension of members. Returns (m,) sums of losses and (m,) correct predictions, as `Learner.step`.
        """
        ...

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        """(b, C, H, W) float → (b, classes) of each member, in evaluation mode."""
        ...

    def network(self, position: int) -> Weighted: ...

    def digest(self, position: int) -> str: ...

    def subset(self, positions: Sequence[int]) -> Networks:
        """Return some of the members, as they are."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and plain values, for `load`. Not a copy."""
        ...

    def load(self, state: Mapping[str, Any]) -> None: ...


class Single:
    """One network by itself."""

    own_batches = False

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def set_rates(self, rates: Sequence[Sequence[float]]) -> None:
        self._rates = iter([rate for (rate,) in rates])

    def step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        loss, correct = self._learner.step(images, targets, next(self._rates))
        return loss.view(1), correct.view(1)

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        return [self._learner.logits(images)]

    def network(self, position: int) -> Weighted:  # noqa: ARG002 — there is one
        return self._learner

    def digest(self, position: int) -> str:  # noqa: ARG002
        return self._learner.digest()

    def subset(self, positions: Sequence[int]) -> Single:
        assert list(positions) == [0]
        return self

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def load(self, state: Mapping[str, Any]) -> None:
        self._learner.load(state)


# --- stacked ------------------------------------------------------------------------------------------------------


class NotStackableError(Exception):
    """A network has a part that cannot be stacked; its runs are stepped in turn."""


def _unlike_own(model: nn.Module) -> str | None:
    """Return what keeps a network from being a function of its layers, each with weights of its own that all are trained."""
    parameters = list(model.named_parameters(remove_duplicate=False))
    if len(parameters) != len(list(model.parameters())):
        return "weights that layers share"
    if not all(parameter.requires_grad for _, parameter in parameters):
        return "weights that are not trained"
    if len({parameter.dtype for _, parameter in parameters}) > 1:
        return "weights of several types"
    if any(getattr(module, hooks) for module in model.modules() for hooks in _HOOKS):
        return "hooks"
    return None


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def structure(model: nn.Module) -> str:
    """Return what networks must have in common to be stacked: everything but weights and the probability of dropout."""
    return re.sub(r"Dropout\(p=[^)]*\)", "Dropout()", repr(model))


class Network:
    """Several torch modules of the same structure as one function of parameters with a leading dimension of members.

    Activations are (b, m·C, H, W) before they are flattened and (m, b, F) afterwards; what comes before the first layer with
    weights is the same for all members, (b, C, H, W), and so is computed once. own_batches: the members' images differ, and come as
    (b, m·C, H, W).

    Raises NotStackableError.
    """

    def __init__(self, models: Sequence[nn.Module], *, own_batches: bool = False) -> None:
        if len({structure(model) for model in models}) != 1:
            raise NotStackableError("networks of different structure")
        if problem := _unlike_own(models[0]):
            raise NotStackableError(problem)
        self.models = list(models)
        self.training = True
        self.parameters = {
            name: stack_tensors(
                [dict(model.named_parameters())[name].detach() for model in models]
            ).requires_grad_()
            for name, _ in models[0].named_parameters()
        }
        self.buffers = {
            name: torch.stack([dict(model.named_buffers())[name] for model in models])
            for name, _ in models[0].named_buffers()
        }
        self._same = not own_batches
        self._layout = "maps"
        self._used: set[str] = set()
        self._layers = list(self._walk("", list(models)))
        if self._used != {*self.parameters, *self.buffers}:
            raise NotStackableError("weights or buffers of no layer")
        if self._layout != "rows" or self._same:
            raise NotStackableError("a network without a linear layer at its end")

    @property
    def size(self) -> int:
        return len(self.models)

    def __call__(self, images: Tensor) -> Tensor:
        """(b, C, H, W) float → (m, b, classes) logits."""
        x = images
        for layer in self._layers:
            x = layer(x)
        return x

    def state(self, position: int) -> dict[str, Tensor]:
        """Return a member's parameters and buffers, as its module's `state_dict` has them; views."""
        return {name: t.detach()[position] for name, t in {**self.parameters, **self.buffers}.items()}

    def _walk(self, name: str, modules: list[nn.Module]) -> Iterable[Callable[[Tensor], Tensor]]:
        """Yield the layers of the part called `name`. modules: that part of every member."""
        module = modules[0]
        kind = type(module)
        if self._same and getattr(module, "inplace", False):
            raise NotStackableError("a layer that changes its input, which others see too")
        if not list(module.children()):
            parts_of_layer = (*module.named_parameters(), *module.named_buffers())
            self._used |= {f"{name}.{part}" if name else part for part, _ in parts_of_layer}
        if kind is own_layers.Flattened:
            yield self._flatten()
        if kind in (nn.Sequential, own_layers.Flattened):
            for child, _ in module.named_children():
                parts = [m.get_submodule(child) for m in modules]
                yield from self._walk(f"{name}.{child}" if name else child, parts)
        elif isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
            yield self._convolution(name, module)
        elif isinstance(module, nn.BatchNorm2d) and kind is nn.BatchNorm2d:
            yield self._batch_norm(name, module)
        elif isinstance(module, nn.Linear) and kind is nn.Linear:
            yield self._linear(name)
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            yield self._flatten()
        elif kind is own_layers.Dropout:
            yield self._dropout(modules)
        elif (kind in _POOLS and self._layout == "maps") or kind in _POINTWISE:
            yield module
        else:
            raise NotStackableError(f"{kind.__name__}")

    def _convolution(self, name: str, layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
        if layer.groups != 1 or layer.padding_mode != "zeros" or self._layout != "maps":
            raise NotStackableError(f"{layer}")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        # On the same images it is simply a convolution with more channels.
        groups = 1 if self._same else self.size
        self._same = False

        def convolved(x: Tensor) -> Tensor:
            offset = None if bias is None else bias.flatten()
            stride, padding, dilation = layer.stride, layer.padding, layer.dilation
            return F.conv2d(x, weight.flatten(0, 1), offset, stride, padding, dilation, groups)

        return convolved

    def _batch_norm(self, name: str, layer: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
        if not (layer.affine and layer.track_running_stats) or self._same or layer.momentum is None:
            raise NotStackableError(f"{layer}")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        mean, var, count = (
            self.buffers[f"{name}.{part}"] for part in ("running_mean", "running_var", "num_batches_tracked")
        )
        momentum, eps = layer.momentum, layer.eps

        def normalised(x: Tensor) -> Tensor:
            if self.training:
                count.add_(1)
            # Views: the running statistics are updated where they are.
            running = mean.view(-1), var.view(-1)
            scale, shift = weight.flatten(), bias.flatten()
            return F.batch_norm(x, *running, scale, shift, self.training, momentum, eps)

        return normalised

    def _linear(self, name: str) -> Callable[[Tensor], Tensor]:
        if self._layout != "rows":
            raise NotStackableError("a linear layer on images")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        same, self._same = self._same, False

        def transformed(x: Tensor) -> Tensor:
            if same:
                offset = None if bias is None else bias.flatten()
                rows = F.linear(x[0], weight.flatten(0, 1), offset)
                return _by_member(rows, self.size)
            if bias is None:
                return torch.bmm(x, weight.transpose(1, 2))
            return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

        return transformed

    def _flatten(self) -> Callable[[Tensor], Tensor]:
        members = 1 if self._same else self.size
        was, self._layout = self._layout, "rows"

        def flattened(x: Tensor) -> Tensor:
            return _by_member(x, members).flatten(2)

        return flattened if was == "maps" else nn.Identity()

    def _dropout(self, layers: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
        """Return dropout in which every member draws the mask that it would draw alone, from its own generator: (b, F), and none where p is 0."""
        drops = [layer for layer in layers if isinstance(layer, own_layers.Dropout)]
        if all(layer.p == 0 for layer in drops):
            return nn.Identity()
        if self._layout != "rows":
            raise NotStackableError("dropout on images")
        self._same = False

        def dropped(x: Tensor) -> Tensor:
            if not self.training:
                return x if len(x) == len(drops) else x.expand(len(drops), -1, -1)
            keep = x.new_ones((len(drops), *x.shape[1:]))
            for mask, layer in zip(keep, drops, strict=True):
                if layer.p:
                    mask.bernoulli_(1 - layer.p, generator=layer.generator).mul_(1 / (1 - layer.p))
            return x * keep

        return dropped


_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Identity)


def _by_member(x: Tensor, members: int) -> Tensor:
    """(b, m·C, …) → (m, b, C, …), a view."""
    return x.view(len(x), members, -1, *x.shape[2:]).transpose(0, 1)


class Stacked:
    """Networks that are stacked. learners: as they are at their start; states go back to their modules. configs: theirs."""

    def __init__(
        self, configs: Sequence[RunConfig], learners: Sequence[TorchLearner], device: torch.device
    ) -> None:
        self._configs, self._learners, self._device = list(configs), list(learners), device
        self.own_batches = len({config.seed for config in configs}) > 1
        self.stack = Network([learner.model for learner in learners], own_batches=self.own_batches)
        self.rule = stacked_rule([config.optimizer for config in configs], device)
        training = [config.training for config in configs]
        precision = training[0].precision
        assert all(other.precision == precision for other in training), "one precision for a stack"
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        focal = [t.focal_gamma if t.loss == "focal" else 0.0 for t in training]
        self._smoothing = column([t.label_smoothing for t in training])
        self._gamma = column(focal) if any(t.loss == "focal" for t in training) else None
        self._is_plain = all(losses.is_plain(t) for t in training)
        norms = [math.inf if t.max_grad_norm is None else t.max_grad_norm for t in training]
        self._max_norm = column(norms) if min(norms) < math.inf else None

    def set_rates(self, rates: Sequence[Sequence[float]]) -> None:
        self._rates = iter(torch.tensor(rates, dtype=torch.float64).to(self._device, non_blocking=True))

    def step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        plain, correct = self.advance(images, targets, next(self._rates))
        return plain * len(images), correct

    def advance(self, images: Tensor, targets: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on a batch as `step` takes it. lr: (m,) float64. Returns (m,) mean cross-entropies and correct predictions
        before the update.
        """
        self.stack.training = True
        parameters = self.stack.parameters
        for p in parameters.values():
            p.grad = None
        with self._autocast:
            logits = self.stack(images)
        if logits.dtype != torch.float64:
            logits = logits.float()
        loss = losses.minimised_by_each(logits, targets, self._smoothing, self._gamma)
        # The sum's gradients are every member's own: no parameter is in two of its terms.
        loss.sum().backward()  # type: ignore[no-untyped-call]
        if self._max_norm is not None:
            self._clip(self._max_norm)
        self.rule.step(parameters, lr)
        logits = logits.detach()
        plain = loss.detach()
        if not self._is_plain:
            plain = losses.minimised_by_each(logits, targets, torch.zeros_like(self._smoothing))
        return plain, losses.correct(logits, targets)

    @torch.no_grad()
    def _clip(self, max_norm: Tensor) -> None:
        """Clip the gradients as `torch.nn.utils.clip_grad_norm_`, each member's by themselves."""
        gradients = [p.grad for p in self.stack.parameters.values() if p.grad is not None]
        parts = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        factor = (max_norm / (norm + 1e-6)).clamp_max(1).to(norm.dtype)
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        self.stack.training = False
        if self.own_batches:
            # All members are evaluated on the same images.
            images = torch.cat([images] * self.stack.size, dim=1)
        with self._autocast:
            return self.stack(images).unbind()

    def network(self, position: int) -> Weighted:
        return _MemberOfStack(self.stack, position)

    def digest(self, position: int) -> str:
        learner = self._learners[position]
        learner.restore(self.stack.state(position))
        return learner.digest()

    def subset(self, positions: Sequence[int]) -> Stacked:
        for position in positions:
            self._learners[position].restore(self.stack.state(position))
        remaining = Stacked(
            [self._configs[i] for i in positions], [self._learners[i] for i in positions], self._device
        )
        remaining.rule = self.rule.subset(positions)
        return remaining

    def state(self) -> dict[str, Any]:
        return {
            "network": {name: t.detach() for name, t in self._tensors().items()},
            "moments": self.rule.moments,
            "steps": self.rule.steps,
            "dropout": [learner.dropout.get_state() for learner in self._learners],
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state["network"][name])
        self.rule.moments = {
            name: [t.to(self._device) for t in moments] for name, moments in state["moments"].items()
        }
        self.rule.steps = state["steps"]
        for learner, drawn in zip(self._learners, state["dropout"], strict=True):
            learner.dropout.set_state(drawn.cpu())

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.stack.parameters, **self.stack.buffers}


class _MemberOfStack:
    """A member of a stack: keeps its weights and brings them back."""

    def __init__(self, stack: Network, position: int) -> None:
        self._stack, self._position = stack, position

    def weights(self) -> dict[str, Tensor]:
        return {name: t.clone() for name, t in self._stack.state(self._position).items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, tensor in self._stack.state(self._position).items():
            tensor.copy_(weights[name])
