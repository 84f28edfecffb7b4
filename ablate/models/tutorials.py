"""Networks of well-known tutorials, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.errors import TrainingError
from ablate.fields import Block

if TYPE_CHECKING:
    from torch import nn


class SmallCnn(Block):
    """Conv–ReLU–Pool–Conv–ReLU–Pool–Flatten–Linear–ReLU–Linear–ReLU–Linear: the net of PyTorch's CIFAR-10 tutorial.

    Source: https://pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html, after LeCun et al. 1998 (LeNet-5).
    Stages for a (3, 32, 32) input: (6, 28, 28) → (6, 14, 14) → (16, 10, 10) → (16, 5, 5) → 400 → 120 → 84 → classes.
    """

    name: Literal["small_cnn"] = "small_cnn"
    channels: Annotated[
        tuple[int, int], Field(strict=False, description="Channels of the first and the second convolution.")
    ] = (6, 16)
    kernel_size: Annotated[
        int, Field(ge=1, le=15, description="Side of the convolution kernels in pixels.")
    ] = 5
    hidden: Annotated[
        tuple[int, int],
        Field(strict=False, description="Units of the first and the second hidden linear layer."),
    ] = (120, 84)
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Chance that a hidden unit is zeroed in training, after each hidden layer.",
        ),
    ] = 0.0

    def check(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Height and width that reach the first linear layer. Raises TrainingError where nothing does."""
        sides = shape[1:]
        for number in (1, 2):
            side = min(sides)
            sides = ((sides[0] - self.kernel_size + 1) // 2, (sides[1] - self.kernel_size + 1) // 2)
            if min(sides) < 1:
                raise TrainingError(
                    f"small_cnn shrinks its input to nothing: convolution {number} makes (W−F+2P)/S+1 = "
                    f"({side}−{self.kernel_size}+0)/1+1 = {side - self.kernel_size + 1}, then a pooling halves it",
                    place="model.kernel_size",
                    hint="choose a smaller kernel, or larger images with data.resize",
                )
        return sides

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """shape: (channels, height, width) → a module (n, *shape) float → (n, classes). Raises TrainingError."""
        from torch import nn

        from ablate.models.layers import Dropout, pooled_activation

        inside, (height, width) = shape[0], self.check(shape)
        first, second = self.channels
        h1, h2 = self.hidden
        return nn.Sequential(
            nn.Conv2d(inside, first, self.kernel_size),
            *pooled_activation("relu", 2),
            nn.Conv2d(first, second, self.kernel_size),
            *pooled_activation("relu", 2),
            nn.Flatten(),
            nn.Linear(second * height * width, h1),
            nn.ReLU(),
            Dropout(self.dropout),
            nn.Linear(h1, h2),
            nn.ReLU(),
            Dropout(self.dropout),
            nn.Linear(h2, classes),
        )
