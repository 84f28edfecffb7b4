"""The learner of `numpy_mlp`: batches come in as tensors, NumPy computes, and sums go out as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import threadpoolctl
import torch
from torch import Tensor

from ablate import config as configs
from ablate.fields import Block
from ablate.models import numpy_mlp, table
from ablate.models.numpy_mlp import Adaptive, Momentum, NumpyMlp


class NumpyLearner:
    """A network of NumPy arrays with its rule of update; a `Learner`, on the CPU."""

    def __init__(
        self,
        model: NumpyMlp,
        optimizer: Block,
        shape: tuple[int, int, int],
        classes: int,
        seed: int,
        training: configs.TrainingConfig | None = None,
    ) -> None:
        """seed: of the initial weights. training: its loss and clipping are used; None: the defaults."""
        # NumPy's matrix products take every core unless limited; torch is limited already.
        threadpoolctl.threadpool_limits(torch.get_num_threads(), user_api="blas")
        sizes = model.sizes(shape, classes)
        self.summary = table.perceptron(sizes)
        self.network = numpy_mlp.initialize_network(sizes, model.initialisation, np.random.default_rng(seed))
        self._rule = rule(optimizer)
        self._training = training or configs.TrainingConfig()
        self._one_hot = np.eye(classes, dtype=np.float32)

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        labels = targets.numpy()
        true = labels if labels.ndim == 2 else self._one_hot[labels]
        smoothing = self._training.label_smoothing
        smooth = true * (1 - smoothing) + smoothing / true.shape[1] if smoothing else true
        # A diverging network overflows, which shows in its loss.
        with np.errstate(all="ignore"):
            losses, outputs = numpy_mlp.train(
                self.network, _rows(images), smooth, self._rule, lr, self._training.max_grad_norm
            )
            if smoothing:
                losses = numpy_mlp.cross_entropy(outputs, true)
        correct = true[np.arange(len(true)), outputs.argmax(axis=1)].sum(dtype=np.float64)
        return torch.tensor(float(losses.sum(dtype=np.float64)), dtype=torch.float64), torch.tensor(correct)

    def logits(self, images: Tensor) -> Tensor:
        with np.errstate(all="ignore"):
            return torch.from_numpy(numpy_mlp.forward_propagation(self.network, _rows(images))[-1])

    def weights(self) -> list[Tensor]:
        return [torch.from_numpy(array.copy()) for array in numpy_mlp.arrays(self.network)]

    def restore(self, weights: list[Tensor]) -> None:
        for array, saved in zip(numpy_mlp.arrays(self.network), weights, strict=True):
            np.copyto(array, saved.numpy())

    def digest(self) -> str:
        return numpy_mlp.digest(self.network)

    def state(self) -> dict[str, Any]:
        rule = {
            name: [torch.from_numpy(array) for array in value] if isinstance(value, list) else value
            for name, value in vars(self._rule).items()
        }
        weights = [torch.from_numpy(array) for array in numpy_mlp.arrays(self.network)]
        return {"weights": weights, "rule": rule}

    def load(self, state: Mapping[str, Any]) -> None:
        self.restore(state["weights"])
        for name, value in state["rule"].items():
            setattr(self._rule, name, [t.numpy() for t in value] if isinstance(value, list) else value)


def rule(config: Block) -> Momentum | Adaptive:
    """Return the rule of update of an optimizer. RunConfig refuses other optimizers than these for networks in NumPy."""
    match config:
        case configs.Sgd():
            return Momentum(config.momentum, config.nesterov, config.weight_decay)
        case configs.Adam():
            return Adaptive(config.beta1, config.beta2, config.weight_decay, decoupled=False)
        case configs.AdamW():
            return Adaptive(config.beta1, config.beta2, config.weight_decay, decoupled=True)
    raise TypeError(f"{type(config).__name__} has no rule in NumPy")


def _rows(images: Tensor) -> np.ndarray[Any, Any]:
    """(b, C, H, W) → (b, C·H·W)."""
    return images.contiguous().numpy().reshape(len(images), -1)
