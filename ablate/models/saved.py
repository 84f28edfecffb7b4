"""A trained network in the form in which it is saved for use: from the pixels of an image to logits, without preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.models import ModelConfig, NumpyMlp


class FromPixels(nn.Module):
    """images: (n, C, H, W) uint8, as in the data set → (n, classes) float32 logits.

    It includes the normalisation, with the same arithmetic as in training, but no augmentation, dropout or auxiliary
    classifiers. mean, std: (C,), for pixels scaled to [0, 1].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.network = network.eval()
        scale, shift = 1 / (255 * std), -mean / std
        self.register_buffer("scale", scale.to(torch.float32).view(1, -1, 1, 1))
        self.register_buffer("shift", shift.to(torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        output = self.network(torch.addcmul(self.shift, images.to(torch.float32), self.scale))
        logits: Tensor = output[0] if isinstance(output, tuple) else output
        return logits


def read(file: Path, config: ModelConfig) -> tuple[FromPixels, dict[str, Any]]:
    """Return the network that training wrote to `file`, and its facts: epoch, val/loss, val/accuracy, classes, shape.

    config: of the network. Raises OSError, RuntimeError.
    """
    assert not isinstance(config, NumpyMlp), "numpy_mlp is no torch module"
    saved = torch.load(file, weights_only=True, map_location="cpu")
    about: dict[str, Any] = json.loads(saved["about"])
    network = config.build(tuple(about["shape"]), len(about["classes"]))
    network.load_state_dict(saved["weights"])
    return FromPixels(network, saved["mean"], saved["std"]).eval(), about
