"""Networks of well-known tutorials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ablate.models.options import ModelOptions
from ablate.models.shapes import Window, pooling, slide

if TYPE_CHECKING:
    from torch import nn

_Channels = Annotated[int, Field(ge=1, le=16_384)]
_Units = Annotated[int, Field(ge=1, le=65_536)]


class SmallCnn(ModelOptions):
    """Conv–ReLU–Pool–Conv–ReLU–Pool–Flatten–Linear–ReLU–Linear–ReLU–Linear: the network of PyTorch's CIFAR-10 tutorial.

    Source: https://pytorch.org/tutorials/beginner/blitz/cifar10_tutorial.html, after LeCun et al. 1998 (LeNet-5).
    The tutorial reports about 55 % test accuracy on CIFAR-10, after two epochs.
    Stages for a (3, 32, 32) input: (6, 28, 28) → (6, 14, 14) → (16, 10, 10) → (16, 5, 5) → 400 → 120 → 84 → classes.
    """

    name: Literal["small_cnn"] = "small_cnn"
    channels: Annotated[
        tuple[_Channels, _Channels],
        Field(
            strict=False, description="Channels of the first and the second convolution.", examples=[[12, 32]]
        ),
    ] = (6, 16)
    kernel_size: Annotated[
        int, Field(ge=1, le=15, description="Side of the convolution kernels in pixels.", examples=[3])
    ] = 5
    hidden: Annotated[
        tuple[_Units, _Units],
        Field(
            strict=False,
            description="Units of the first and the second hidden linear layer.",
            examples=[[240, 84]],
        ),
    ] = (120, 84)
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Probability that a hidden unit is set to 0 in training, after each hidden layer.",
            examples=[0.1, 0.3],
        ),
    ] = 0.0

    def check(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Return height and width at the first linear layer. Raises TrainingError where the image is too small."""
        first, second = (Window(f"convolution {n}", self.kernel_size) for n in (1, 2))
        return slide(
            self.name,
            shape[1:],
            (first, pooling(1), second, pooling(2)),
            place="model.kernel_size",
            hint="or choose a smaller kernel",
        )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. shape: (channels, height, width). Raises TrainingError."""
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


class TutorialCnn(ModelOptions):
    """Two or three convolutions, each with ReLU and max-pooling; then dropout, a hidden layer, dropout, a linear layer.

    Source: the CIFAR-10 notebook of Udacity's deep-learning course,
    https://github.com/udacity/deep-learning-v2-pytorch (convolutional-neural-networks/cifar-cnn), which calls 70 % test
    accuracy a good result.
    Stages for a (3, 32, 32) input and three layers: (16, 32, 32) → (16, 16, 16) → (32, 16, 16) → (32, 8, 8) →
    (64, 8, 8) → (64, 4, 4) → 1024 → 500 → classes.
    """

    name: Literal["tutorial_cnn"] = "tutorial_cnn"
    layers: Annotated[Literal[2, 3], Field(description="Number of convolutions: 2 or 3.", examples=[2])] = 3
    width: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="Channels of the first convolution; each next one has twice as many.",
            examples=[8, 32],
        ),
    ] = 16
    kernel_size: Annotated[
        Literal[1, 3, 5, 7],
        Field(
            description="Side of the convolution kernels in pixels; padding keeps the image's size.",
            examples=[5, 7],
        ),
    ] = 3
    hidden: Annotated[
        int, Field(ge=1, le=65_536, description="Units of the hidden linear layer.", examples=[100, 1000])
    ] = 500
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Probability that a unit is set to 0 in training, before each of the two linear layers.",
            examples=[0.1, 0.3],
        ),
    ] = 0.25
    batch_norm: Annotated[
        bool, Field(description="Batch normalisation after every convolution.", examples=[True])
    ] = False

    def check(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Return height and width at the first linear layer. Raises TrainingError where the image is too small."""
        windows: list[Window] = []
        for n in range(1, self.layers + 1):
            windows += [
                Window(f"convolution {n}", self.kernel_size, padding=self.kernel_size // 2),
                pooling(n),
            ]
        hint = "or choose model.layers: 2" if self.layers == 3 else ""
        return slide(self.name, shape[1:], windows, place="model.layers", hint=hint)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. shape: (channels, height, width). Raises TrainingError."""
        from torch import nn

        from ablate.models.layers import Dropout, pooled_activation

        channels, (height, width) = shape[0], self.check(shape)
        layers: list[nn.Module] = []
        for n in range(self.layers):
            out = self.width * 2**n
            # Batch norm subtracts the mean: the gradient of a bias before it would be rounding error only.
            layers.append(
                nn.Conv2d(
                    channels, out, self.kernel_size, padding=self.kernel_size // 2, bias=not self.batch_norm
                )
            )
            if self.batch_norm:
                layers.append(nn.BatchNorm2d(out))
            layers += pooled_activation("relu", 2)
            channels = out
        return nn.Sequential(
            *layers,
            nn.Flatten(),
            Dropout(self.dropout),
            nn.Linear(channels * height * width, self.hidden),
            nn.ReLU(),
            Dropout(self.dropout),
            nn.Linear(self.hidden, classes),
        )


class WhatWorked(ModelOptions):
    """Six convolutions of up to 256 channels down to a single pixel, then a hidden layer, dropout, a linear layer.

    Source: the post "Image Classification with Cifar 10" (https://97harsh.github.io, 2023), whose layer table it
    reproduces row for row, in the same order: 2,211,338 parameters. The post states neither an accuracy nor the probability
    of its dropout; the default is torch's.

    Stages for a (3, 32, 32) input; a convolution is 3×3 and has batch norm and ReLU after it, the sixth only ReLU:
    1 (64, 32, 32) → pool (64, 16, 16) → 2 (128, 16, 16) → 3 (256, 16, 16) → pool (256, 8, 8) → 4 (256, 8, 8) →
    5, unpadded (256, 6, 6) → pool (256, 3, 3) → 6, unpadded (256, 1, 1) → 256 → classes.

    `depth` below six leaves out the fourth convolution, then the second as well; above six it repeats the fourth.
    """

    name: Literal["what_worked"] = "what_worked"
    depth: Annotated[
        int,
        Field(
            ge=4,
            le=64,
            description="Number of convolutions: 5 leaves out the fourth, 4 also the second, more than 6 repeat the fourth.",
            examples=[4, 8],
        ),
    ] = 6
    width: Annotated[
        float,
        Field(
            gt=0,
            le=16,
            description="Factor for the channels of every convolution and the units of the hidden layer.",
            examples=[0.5, 2.0],
        ),
    ] = 1.0
    middle: Annotated[
        float,
        Field(
            gt=0,
            le=16,
            description="Further factor for the channels of all convolutions but the first and the last two.",
            examples=[0.5, 2.0],
        ),
    ] = 1.0
    batch_norm: Annotated[
        bool, Field(description="Batch normalisation after every convolution but the last.", examples=[False])
    ] = True
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Probability that a hidden unit is set to 0 in training.",
            examples=[0.1, 0.3],
        ),
    ] = 0.5

    def stages(self) -> list[tuple[tuple[int, ...], int]]:
        """Return four stages, each but the last followed by pooling: (channels of each convolution, padding of the last one).

        All other convolutions are padded so that the image keeps its size.
        """
        wide = self.width * self.middle
        repeats = max(self.depth - 5, 0)
        edge, double, middle, end = (
            max(round(channels * factor), 1)
            for channels, factor in ((64, self.width), (128, wide), (256, wide), (256, self.width))
        )
        return [
            ((edge,), 1),
            ((double, middle) if self.depth > 4 else (middle,), 1),
            ((middle,) * repeats + (end,), 0),
            ((end,), 0),
        ]

    def check(self, shape: tuple[int, int, int]) -> tuple[int, int]:
        """Return height and width at the first linear layer. Raises TrainingError where the image is too small."""
        windows: list[Window] = []
        stages, number = self.stages(), 0
        for stage, (channels, last) in enumerate(stages, 1):
            for position in range(1, len(channels) + 1):
                number += 1
                windows.append(
                    Window(f"convolution {number}", 3, padding=last if position == len(channels) else 1)
                )
            if stage < len(stages):
                windows.append(pooling(stage))
        return slide(self.name, shape[1:], windows)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. shape: (channels, height, width). Raises TrainingError."""
        from torch import nn

        from ablate.models.layers import Dropout, Flattened

        inside, (height, width) = shape[0], self.check(shape)
        layers: list[nn.Module] = []
        stages = self.stages()
        for stage, (channels, last) in enumerate(stages, 1):
            for position, out in enumerate(channels, 1):
                # The convolutions of the post have a bias before batch norm: it has no effect, but it counts as parameters.
                layers.append(nn.Conv2d(inside, out, 3, padding=last if position == len(channels) else 1))
                if self.batch_norm and stage < len(stages):
                    layers.append(nn.BatchNorm2d(out))
                layers.append(nn.ReLU())
                inside = out
            if stage < len(stages):
                layers.append(nn.MaxPool2d(2))
        hidden = max(round(256 * self.width), 1)
        return nn.Sequential(
            *layers,
            Flattened(nn.Linear(inside * height * width, hidden), nn.ReLU()),
            Dropout(self.dropout),
            nn.Linear(hidden, classes),
        )
