"""`cnn`: a plain convolutional network with a field for each of its dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ablate.models.options import ModelOptions

if TYPE_CHECKING:
    from torch import nn


MOST_CHANNELS = 16384


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("the side of the kernel should be odd, so that padding keeps the image's size")
    return value


class Cnn(ModelOptions):
    """Blocks of convolution, batch norm, activation and pooling; then global average pooling, dropout, one linear layer.

    Stages, for a (3, 32, 32) input, depth 3 and width 64, constant profile:
    (64, 32, 32) → pool (64, 16, 16) → (64, 16, 16) → pool (64, 8, 8) → (64, 8, 8) → pool (64, 4, 4) → mean (64) → classes.
    A block pools only while both sides are at least 4 pixels, so any depth runs on any input.

    It follows no publication: it is the baseline of studies about depth, width and the like. With depth 3 and width 32 it
    reached 64.4 % test accuracy on CIFAR-10 after six epochs (docs/log.md).
    """

    name: Literal["cnn"] = "cnn"
    depth: Annotated[
        int, Field(ge=1, le=64, description="Number of convolution blocks.", examples=[2, 4])
    ] = 3
    width: Annotated[
        int,
        Field(
            ge=1,
            le=4096,
            description="Channels of a block; `profile` says of which blocks.",
            examples=[32, 128],
        ),
    ] = 64
    profile: Annotated[
        Literal["constant", "growing", "wide-middle"],
        Field(
            description="How the number of channels changes with depth. constant: `width` in every block. growing: `width` in "
            "the first block, doubled at each next one. wide-middle: `width`, and twice that in the middle third.",
            examples=["growing", "wide-middle"],
        ),
    ] = "constant"
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Probability that a feature before the last layer is set to 0 in training.",
            examples=[0.1, 0.3],
        ),
    ] = 0.0
    batch_norm: Annotated[
        bool, Field(description="Batch normalisation after every convolution.", examples=[False])
    ] = True
    kernel_size: Annotated[
        int,
        Field(
            ge=1,
            le=15,
            description="Side of the convolution kernels in pixels; an odd number.",
            examples=[5, 7],
        ),
        AfterValidator(_odd),
    ] = 3
    activation: Annotated[
        Literal["relu", "leaky_relu", "tanh", "gelu", "silu"],
        Field(description="Activation function of every block.", examples=["gelu", "silu"]),
    ] = "relu"

    @model_validator(mode="after")
    def _profile_fits_depth(self) -> Self:
        if self.profile == "wide-middle" and self.depth < 3:
            raise ValueError(
                f"the profile `wide-middle` needs a depth of at least 3; the depth is {self.depth}"
            )
        if max(self.widths()) > MOST_CHANNELS:
            raise ValueError(
                f"the widest block would have {max(self.widths())} channels; the most is {MOST_CHANNELS}"
            )
        return self

    def widths(self) -> list[int]:
        """Return the number of channels of block 1 … depth."""
        if self.profile == "growing":
            return [self.width * 2**i for i in range(self.depth)]
        if self.profile == "wide-middle":
            edge = self.depth // 3
            return [self.width * (2 if edge <= i < self.depth - edge else 1) for i in range(self.depth)]
        return [self.width] * self.depth

    def check(self, shape: tuple[int, int, int]) -> None:
        """Accept every shape."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. shape: (channels, height, width)."""
        from torch import nn

        from ablate.models.layers import Dropout, activation, pooled_activation

        channels, height, width = shape
        layers: list[nn.Module] = []
        for out in self.widths():
            # Batch norm subtracts the mean: the gradient of a bias before it would be rounding error only.
            layers.append(
                nn.Conv2d(channels, out, self.kernel_size, padding="same", bias=not self.batch_norm)
            )
            if self.batch_norm:
                layers.append(nn.BatchNorm2d(out))
            if min(height, width) >= 4:
                layers += pooled_activation(self.activation, 2)
                height, width = height // 2, width // 2
            else:
                layers.append(activation(self.activation))
            channels = out
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(self.dropout), nn.Linear(channels, classes)]
        return nn.Sequential(*layers)
