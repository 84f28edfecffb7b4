"""Losses of a batch: pure functions of logits and targets.

Targets are what `torch.nn.functional.cross_entropy` takes: (b,) int64 classes, or (b, classes) float probabilities,
each row adding up to 1. The loss that is reported is always plain cross-entropy, whatever is minimised, so that arms which differ in
their loss can be compared, and training with validation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ablate.config import TrainingConfig

SMALLEST = 1e-8
"""Stands for 1 − p where p rounds to 1: below γ = 1 the slope of (1 − p)^γ is infinite at 0."""


def minimised(logits: Tensor, targets: Tensor, training: TrainingConfig) -> Tensor:
    """Return the loss that training minimises: the batch's mean of the one that `training` names. logits: (b, classes) float32."""
    if training.loss == "focal":
        return focal(logits, targets, training.focal_gamma, training.label_smoothing)
    return F.cross_entropy(logits, targets, label_smoothing=training.label_smoothing)


def is_plain(training: TrainingConfig) -> bool:
    """Return whether plain cross-entropy is minimised."""
    return training.loss == "cross-entropy" and training.label_smoothing == 0


def focal(logits: Tensor, targets: Tensor, gamma: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean of −Σ t · (1 − p)^γ · log p, with t the targets and p the softmax (Lin et al. 2017, without class weights).

    With γ = 0 it is cross-entropy.
    """
    expected = probabilities(targets, logits.shape[1], logits.dtype)
    if label_smoothing:
        expected = expected * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    log_p = F.log_softmax(logits, dim=1)
    weight = (1 - log_p.exp()).clamp_min(SMALLEST) ** gamma
    return -(expected * weight * log_p).sum(dim=1).mean()


def minimised_by_each(
    logits: Tensor, targets: Tensor, label_smoothing: Tensor, gamma: Tensor | None = None
) -> Tensor:
    """Return the loss that each of several networks minimises: logits (m, b, classes) → (m,).

    targets: those of one batch for all; or of a batch for each network, (m, b) int64 or (m, b, classes) float.
    label_smoothing, gamma: (m,), one of each network. gamma: 0 is cross-entropy, and None is 0 for all.
    """
    classes = logits.shape[-1]
    expected = probabilities(targets, classes, logits.dtype)
    smoothing = label_smoothing.to(logits.dtype)[:, None, None]
    log_p = F.log_softmax(logits, dim=-1)
    terms = (expected * (1 - smoothing) + smoothing / classes) * log_p
    if gamma is not None:
        terms = terms * (1 - log_p.exp()).clamp_min(SMALLEST) ** gamma.to(logits.dtype)[:, None, None]
    return -terms.sum(dim=-1).mean(dim=-1)


def probabilities(targets: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(…, b) int64 classes → (…, b, classes) probabilities; what is probabilities already is returned as it is."""
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).to(dtype)


def correct(logits: Tensor, targets: Tensor) -> Tensor:
    """Count the correct predictions of a batch: each counts by the share that its most likely class has in the target.

    That is 1 or 0 for a class, and the correct share of a mixture for mixed labels. logits: (…, b, classes) → (…). targets: those of
    one batch for all, or with the same leading dimensions.
    """
    likeliest = logits.argmax(-1)
    if not targets.is_floating_point():
        return (likeliest == targets).sum(-1)
    return targets.expand_as(logits).gather(-1, likeliest[..., None]).sum((-2, -1))
