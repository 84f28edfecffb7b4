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

TOP = 5
"""Classes among which the true one counts as found in the top-5 accuracy."""


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy. truth, predicted: (n,) class indices. confusion: (classes, classes) counts.

    in_top: (n,) bool, whether the true class is among the TOP likeliest; None where there are no more classes than that.
    """

    loss: float
    accuracy: float
    truth: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    confusion: np.ndarray[Any, Any]
    in_top: np.ndarray[Any, Any] | None = None

    def metrics(self, split: str) -> dict[str, float]:
        """Return every metric of the evaluation, named as of a split: `val/loss`, `val/accuracy`, `val/f1_macro`, ….

        All of them are recorded whatever the study's metric is: another study may reuse the run and compare by another.
        """
        scores = metrics.scores(self.confusion)
        values = {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "f1_macro": scores.f1_macro,
            "precision_macro": scores.precision_macro,
            "recall_macro": scores.recall_macro,
            "balanced_accuracy": scores.balanced_accuracy,
        }
        if self.in_top is not None:
            values["top5_accuracy"] = float(self.in_top.mean())
        return {f"{split}/{name}": value for name, value in values.items()}

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


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type in which losses are summed: float64, except on accelerators that may not have it."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32


class EvaluationSums:
    """What an `Evaluation` is made of, collected batch by batch; on the device until the end."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device, dtype=sum_dtype(device))
        self._truth: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._in_top: list[Tensor] = []
        self._classes = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: (b, classes). labels: (b,) int64."""
        logits = logits.float()
        self._loss += F.cross_entropy(logits, labels, reduction="sum")
        self._truth.append(labels)
        self._predicted.append(logits.argmax(1))
        if logits.shape[1] > TOP:
            self._in_top.append(in_top(logits, labels))
        self._classes = logits.shape[1]

    def evaluation(self) -> Evaluation:
        dtype: type[np.unsignedinteger[Any]] = np.uint8 if self._classes <= 256 else np.uint16
        truth, predicted = (
            torch.cat(parts).cpu().numpy().astype(dtype) for parts in (self._truth, self._predicted)
        )
        confusion = metrics.confusion_matrix(truth, predicted, self._classes)
        correct = float(np.trace(confusion))
        loss = float(self._loss) / len(truth)
        top = torch.cat(self._in_top).cpu().numpy() if self._in_top else None
        return Evaluation(loss, correct / len(truth), truth, predicted, confusion, top)


def in_top(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the true class is among the TOP likeliest: (b, classes), (b,) int64 → (b,) bool.

    Of equally likely classes the first count first, on any device.
    """
    true = logits.gather(1, labels[:, None])
    position = torch.arange(logits.shape[1], device=logits.device)
    before = (logits > true) | ((logits == true) & (position < labels[:, None]))
    return before.sum(1) < TOP
