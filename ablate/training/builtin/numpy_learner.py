"""How `numpy_mlp` takes part in the training loop: batches in, NumPy inside, sums out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import threadpoolctl
import torch
from torch import Tensor

from ablate import config as configs
from ablate.models import numpy_mlp, table
from ablate.models.numpy_mlp import Adaptive, Momentum, NumpyMlp


class NumpyLearner:
    """A network of NumPy arrays with its rule of update; a `Learner`, on the CPU."""

    def __init__(
        self,
        model: NumpyMlp,
        optimizer: configs.Sgd | configs.Adam | configs.AdamW,
        shape: tuple[int, int, int],
        classes: int,
        seed: int,
        training: configs.TrainingConfig | None = None,
    ) -> None:
        """seed: of the initial weights. training: for what it says of the loss and the gradients; None: nothing."""
        # NumPy's matrix products take every core unless told; torch has been told already.
        threadpoolctl.threadpool_limits(torch.get_num_threads(), user_api="blas")
        sizes = model.sizes(shape, classes)
        self.summary = table.perceptron(sizes)
        self.network = numpy_mlp.initialize_network(sizes, model.initialisation, np.random.default_rng(seed))
        self._rule = rule(optimizer)
        self._training = training or configs.TrainingConfig()
        self._one_hot = np.eye(classes, dtype=np.float32)

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        given = targets.numpy()
        true = given if given.ndim == 2 else self._one_hot[given]
        smoothing = self._training.label_smoothing
        smooth = true * (1 - smoothing) + smoothing / true.shape[1] if smoothing else true
        # A diverging network overflows; the loop sees that in its loss.
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
        for mine, given in zip(numpy_mlp.arrays(self.network), weights, strict=True):
            np.copyto(mine, given.numpy())

    def digest(self) -> str:
        return numpy_mlp.digest(self.network)

    def state(self) -> dict[str, Any]:
        remembered = {
            name: [torch.from_numpy(array) for array in value] if isinstance(value, list) else value
            for name, value in vars(self._rule).items()
        }
        weights = [torch.from_numpy(array) for array in numpy_mlp.arrays(self.network)]
        return {"weights": weights, "rule": remembered}

    def load(self, state: Mapping[str, Any]) -> None:
        self.restore(state["weights"])
        for name, value in state["rule"].items():
            setattr(self._rule, name, [t.numpy() for t in value] if isinstance(value, list) else value)


def rule(config: configs.Sgd | configs.Adam | configs.AdamW) -> Momentum | Adaptive:
    """The rule of update that an optimizer's config asks for."""
    if isinstance(config, configs.Sgd):
        return Momentum(config.momentum, config.nesterov, config.weight_decay)
    decoupled = isinstance(config, configs.AdamW)
    return Adaptive(config.beta1, config.beta2, config.weight_decay, decoupled)


def _rows(images: Tensor) -> np.ndarray[Any, Any]:
    """(b, C, H, W) → (b, C·H·W)."""
    return images.contiguous().numpy().reshape(len(images), -1)
