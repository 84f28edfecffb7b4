"""A trained network as it is handed on: from the pixels of an image to logits, with nothing to be done before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ablate.models import ModelConfig, NumpyMlp


class FromPixels(nn.Module):
    """images: (n, C, H, W) uint8, as the data set has them → (n, classes) float32 logits.

    Normalisation is part of it, by the same arithmetic as in training; random changes, dropout and auxiliary classifiers are
    not. mean, std: (C,) in units of [0, 1].
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
        found = self.network(torch.addcmul(self.shift, images.to(torch.float32), self.scale))
        logits: Tensor = found[0] if isinstance(found, tuple) else found
        return logits


def read(file: Path, config: ModelConfig) -> tuple[FromPixels, dict[str, Any]]:
    """The network that training wrote to `file`, and what is known about it: epoch, val/loss, val/accuracy, classes, shape.

    config: of the network. Raises OSError, RuntimeError.
    """
    assert not isinstance(config, NumpyMlp), "numpy_mlp is no torch module"
    kept = torch.load(file, weights_only=True, map_location="cpu")
    about: dict[str, Any] = json.loads(kept["about"])
    network = config.build(tuple(about["shape"]), len(about["classes"]))
    network.load_state_dict(kept["weights"])
    return FromPixels(network, kept["mean"], kept["std"]).eval(), about
