"""The NumPy perceptron against the same network in torch: seconds an epoch of MNIST's size, on one thread.

python benchmarks/numpy_mlp.py [images]
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ablate.config import Sgd
from ablate.models import NumpyMlp
from ablate.training.builtin.numpy_learner import NumpyLearner

BATCH_SIZES = (32, 64, 128, 256)
LR = 0.05
ROUNDS = 3


class TorchPerceptron:
    """784–500–50–10 with sigmoids, autograd and `torch.optim.SGD`."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, 500), nn.Sigmoid(), nn.Linear(500, 50), nn.Sigmoid()),
            nn.Linear(50, 10),
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=0.9)

    def step(self, images: torch.Tensor, labels: torch.Tensor, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(images), labels).backward()
        self.optimizer.step()


def epoch(
    learner: NumpyLearner | TorchPerceptron, images: torch.Tensor, labels: torch.Tensor, size: int
) -> float:
    began = time.perf_counter()
    for batch, truth in zip(images.split(size), labels.split(size), strict=True):
        learner.step(batch, truth, LR)
    return time.perf_counter() - began


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 60_000
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 1, 28, 28, generator=generator)
    labels = torch.randint(10, (number,), generator=generator)
    for size in BATCH_SIZES:
        numpy, other = NumpyLearner(NumpyMlp(), Sgd(), (1, 28, 28), 10, 0), TorchPerceptron()
        times = np.array(
            [[epoch(learner, images, labels, size) for learner in (numpy, other)] for _ in range(ROUNDS)]
        )
        ours, theirs = times.min(axis=0)
        print(
            f"batches of {size:3}: NumPy {ours:5.2f} s, torch {theirs:5.2f} s an epoch, ratio {ours / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
