"""A network together with its optimizer: what the training loop takes steps with."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.config import RunConfig
from ablate.models import foreign, layers, table
from ablate.models.numpy_mlp import NumpyMlp
from ablate.training.builtin import losses
from ablate.training.builtin.numpy_learner import NumpyLearner
from ablate.training.builtin.optimizers import optimizer
from ablate.training.builtin.randomness import derive, generator


class Weighted(Protocol):
    """A network whose weights can be kept and brought back."""

    def weights(self) -> Any:
        """Return a copy of the weights, for `restore`."""
        ...

    def restore(self, weights: Any) -> None: ...


class Learner(Weighted, Protocol):
    """A network together with its rule of update, on one device. The loop knows nothing else of what it trains."""

    summary: table.ModelSummary

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """Take one step on a batch → the sum of its losses and the number of correct predictions before the update, on the device.

        images: (b, C, H, W) float, normalised. targets: (b,) int64 classes, or (b, classes) float probabilities where labels are
        mixed. The losses are plain cross-entropy with the targets, whatever is minimised, so that they can be compared with
        val/loss. Correct predictions are counted as in `losses.correct`.
        """
        ...

    def logits(self, images: Tensor) -> Tensor:
        """(b, C, H, W) float → (b, classes), in evaluation mode."""
        ...

    def digest(self) -> str:
        """Return a digest of every weight, bit for bit."""
        ...

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and plain values, for `load`. Not a copy."""
        ...

    def load(self, state: Mapping[str, Any]) -> None: ...


def make_learner(
    config: RunConfig, shape: tuple[int, int, int], classes: int, device: torch.device
) -> Learner:
    """Return the network of a config with its initial weights, and its optimizer."""
    if isinstance(config.model, NumpyMlp):
        weights = derive(config.seed, "weights")
        return NumpyLearner(config.model, config.optimizer, shape, classes, weights, config.training)
    return TorchLearner(config, shape, classes, device)


def device_of(config: RunConfig, device: str) -> torch.device:
    """Return the device that a config is trained on where `device` is offered: networks in NumPy know the CPU alone."""
    return torch.device("cpu" if isinstance(config.model, NumpyMlp) else device)


class TorchLearner:
    """A torch module with a torch optimizer."""

    def __init__(
        self, config: RunConfig, shape: tuple[int, int, int], classes: int, device: torch.device
    ) -> None:
        model = initialised(config, shape, classes)
        self.summary = table.summary(model, shape)
        self.model = model.to(device)
        if config.model.takes_channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        # A network of others may change its input, which other runs see too, want it in another layout, and draw from anywhere.
        self._format = torch.preserve_format if config.model.takes_channels_last else torch.contiguous_format
        self._is_foreign = config.model.is_foreign
        self._draws = (
            foreign.GlobalDraws(derive(config.seed, "dropout"), device) if self._is_foreign else None
        )
        self.dropout = generator(config.seed, "dropout", device)
        layers.use_generator(self.model, self.dropout)
        self.optimizer = optimizer(config.optimizer, self.model)
        self._training = config.training
        self._autocast = torch.autocast(
            device.type, torch.bfloat16, enabled=config.training.precision == "bfloat16"
        )

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        if not self.model.training:
            self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        with contextlib.nullcontext() if self._draws is None else self._draws():
            with self._autocast:
                output = self.model(self._input(images))
            logits, heads = output if isinstance(output, tuple) else (output, [])
            logits = logits.float()
            loss = losses.minimised(logits, targets, self._training)
            total = loss
            for head in heads:
                total = total + layers.AUXILIARY_WEIGHT * losses.minimised(
                    head.float(), targets, self._training
                )
            total.backward()  # type: ignore[no-untyped-call]
        if self._training.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._training.max_grad_norm)
        self.optimizer.step()
        # Auxiliary losses are left out, and so is whatever makes the loss another than cross-entropy: training and
        # validation loss measure the same.
        logits = logits.detach()
        plain = loss.detach() if losses.is_plain(self._training) else F.cross_entropy(logits, targets)
        return plain * len(targets), losses.correct(logits, targets)

    def logits(self, images: Tensor) -> Tensor:
        if self.model.training:
            self.model.eval()
        with contextlib.nullcontext() if self._draws is None else self._draws(), self._autocast:
            logits: Tensor = self.model(self._input(images))
        return logits

    def _input(self, images: Tensor) -> Tensor:
        return images.clone(memory_format=self._format) if self._is_foreign else images

    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def digest(self) -> str:
        return weights_digest(self.model)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "dropout": self.dropout.get_state(),
            "draws": None if self._draws is None else self._draws.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.dropout.set_state(state["dropout"].cpu())
        if self._draws is not None:
            self._draws.load(state["draws"])


def initialised(config: RunConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return the torch module of a config with the initial weights of its seed."""
    assert not isinstance(config.model, NumpyMlp), "numpy_mlp is no torch module"
    seed = derive(config.seed, "weights")
    if config.model.is_foreign:
        with foreign.seeded(seed):
            return config.model.build(shape, classes)
    # torch's layers draw their weights from the global generator: give them a private one for the time being.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return config.model.build(shape, classes)


def weights_digest(model: nn.Module) -> str:
    """Return a digest of every weight and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
