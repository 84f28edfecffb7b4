"""A network on a whole split: its loss, its predictions, and their confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ablate.training.builtin import metrics
from ablate.training.builtin.batches import Pixels


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy. truth, predicted: (n,) class indices. confusion: (classes, classes) counts."""

    loss: float
    accuracy: float
    truth: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    confusion: np.ndarray[Any, Any]

    def to_plain(self) -> dict[str, Any]:
        """Return the fields as tensors and plain values, for `from_plain`."""
        return {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in vars(self).items()}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Evaluation:
        fields: dict[str, Any] = {n: v.numpy() if isinstance(v, Tensor) else v for n, v in plain.items()}
        return cls(**fields)


@torch.no_grad()
def evaluate(logits_of: Callable[[Tensor], Tensor], pixels: Pixels) -> Evaluation:
    """Evaluate a network on a whole split. logits_of: (n, C, H, W) float → (n, classes), in evaluation mode."""
    sums = EvaluationSums(pixels.device)
    for images, labels in pixels.in_order():
        sums.add(logits_of(images), labels)
    return sums.evaluation()


class EvaluationSums:
    """What an `Evaluation` is made of, collected batch by batch; on the device until the end."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device, dtype=torch.float64)
        self._truth: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._classes = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: (b, classes). labels: (b,) int64."""
        logits = logits.float()
        self._loss += F.cross_entropy(logits, labels, reduction="sum")
        self._truth.append(labels)
        self._predicted.append(logits.argmax(1))
        self._classes = logits.shape[1]

    def evaluation(self) -> Evaluation:
        dtype: type[np.unsignedinteger[Any]] = np.uint8 if self._classes <= 256 else np.uint16
        truth, predicted = (
            torch.cat(parts).cpu().numpy().astype(dtype) for parts in (self._truth, self._predicted)
        )
        confusion = metrics.confusion_matrix(truth, predicted, self._classes)
        correct = float(np.trace(confusion))
        return Evaluation(float(self._loss) / len(truth), correct / len(truth), truth, predicted, confusion)
