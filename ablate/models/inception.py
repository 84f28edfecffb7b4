"""`inception_v1` and `inception_v2`: GoogLeNet for small images, with a field for each idea of its later versions.

The network is a stem, nine modules of one kind (`inception_module`) and a classifier, with two auxiliary heads in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from ablate.models.options import ModelOptions
from ablate.models.shapes import Window, slide

if TYPE_CHECKING:
    from torch import nn

Factorise = Literal["none", "3x3", "nx1"]


class Widths(NamedTuple):
    """Channels of a module's four branches; `_reduce` is the 1×1 convolution that reduces the cost of the next one."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


# Table 1 of Szegedy et al. 2014.
MODULES = {
    "3a": Widths(64, 96, 128, 16, 32, 32),
    "3b": Widths(128, 128, 192, 32, 96, 64),
    "4a": Widths(192, 96, 208, 16, 48, 64),
    "4b": Widths(160, 112, 224, 24, 64, 64),
    "4c": Widths(128, 128, 256, 24, 64, 64),
    "4d": Widths(112, 144, 288, 32, 64, 64),
    "4e": Widths(256, 160, 320, 32, 128, 128),
    "5a": Widths(256, 160, 320, 32, 128, 128),
    "5b": Widths(384, 192, 384, 48, 128, 128),
}
STEM = (64, 64, 192)
POOLED_AFTER = ("3b", "4e")
HEADS_AFTER = ("4a", "4d")
HEAD_CHANNELS, HEAD_HIDDEN, HEAD_DROPOUT = 128, 1024, 0.7

POOL = Window("pooling", 3, stride=2, padding=1)
HEAD_POOL = Window("average pooling of the auxiliary heads", 5, stride=3)

_BatchNorm = Annotated[bool, Field(description="Batch normalisation after every convolution.")]
_Factorised = Annotated[
    Factorise,
    Field(
        description="How the larger convolutions of a module are factorised. none: not at all. 3x3: two 3×3 instead of the "
        "5×5. nx1: a 1×n and an n×1 instead of the 3×3 and of the 5×5."
    ),
]


class _Inception(ModelOptions):
    """The fields of both versions."""

    name: str
    auxiliary: Annotated[
        bool,
        Field(
            description="Two auxiliary classifiers after the modules 4a and 4d, whose losses are added with weight 0.3 in training.",
            examples=[False],
        ),
    ] = True
    batch_norm: Annotated[_BatchNorm, Field(examples=[True])] = False
    factorise: Annotated[_Factorised, Field(examples=["3x3", "nx1"])] = "none"
    width: Annotated[
        float,
        Field(
            gt=0,
            le=8,
            description="Factor for the channels of every layer, rounded to integers.",
            examples=[0.5, 2.0],
        ),
    ] = 1.0
    stem_pool: Annotated[
        bool,
        Field(
            description="3×3 max-pooling with stride 2 at the end of the stem: a quarter of the work, for larger images.",
            examples=[True],
        ),
    ] = False
    dropout: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Probability that a feature before the last layer is set to 0 in training.",
            examples=[0.1, 0.3],
        ),
    ] = 0.4

    def widths(self) -> dict[str, Widths]:
        """Return the channels of every module."""
        return {name: Widths(*map(self._scaled, widths)) for name, widths in MODULES.items()}

    def _scaled(self, channels: int) -> int:
        return max(round(channels * self.width), 1)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise TrainingError where the image is too small for the auxiliary heads; without them every shape is accepted."""
        if self.auxiliary:
            before = (POOL,) * (2 if self.stem_pool else 1)
            slide(
                self.name,
                shape[1:],
                (*before, HEAD_POOL),
                place="model.auxiliary",
                hint="or model.auxiliary: false",
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. shape: (channels, height, width).

        In training with auxiliary heads the module returns (logits, [logits of each head]). Raises TrainingError.
        """
        from torch import nn

        from ablate.models.layers import Dropout, Headed

        self.check(shape)
        inside, sides = shape[0], shape[1:]
        parts: dict[str, nn.Module] = {}
        heads: dict[str, nn.Module] = {}
        first, second, third = map(self._scaled, STEM)
        stem = [
            convolution(inside, first, 3, batch_norm=self.batch_norm),
            convolution(first, second, 1, batch_norm=self.batch_norm),
            convolution(second, third, 3, batch_norm=self.batch_norm),
        ]
        if self.stem_pool:
            stem.append(pool())
            sides = (POOL.places(sides[0]), POOL.places(sides[1]))
        parts["stem"], inside = nn.Sequential(*stem), third
        for name, widths in self.widths().items():
            parts[name] = inception_module(inside, widths, self.factorise, batch_norm=self.batch_norm)
            inside = widths.one + widths.three + widths.five + widths.pool
            if self.auxiliary and name in HEADS_AFTER:
                hidden = (self._scaled(HEAD_CHANNELS), self._scaled(HEAD_HIDDEN))
                heads[name] = auxiliary_head(inside, sides, hidden, classes, batch_norm=self.batch_norm)
            if name in POOLED_AFTER:
                parts[f"pool_{name}"] = pool()
                sides = (POOL.places(sides[0]), POOL.places(sides[1]))
        parts["classifier"] = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(self.dropout), nn.Linear(inside, classes)
        )
        network = Headed(parts, heads)
        for module in network.modules():
            # torch's default initial weights more than halve the signal at every layer: after 22 layers it would vanish.
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return network


class InceptionV1(_Inception):
    """GoogLeNet with a stem for small images (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).

    The paper's stem reduces 224 pixels to 28 before the first module; this one has no strides, so that an image of 32 pixels
    has nearly the paper's sizes in the modules. Its local response normalisation is left out.

    Stages for a (3, 32, 32) input: stem 3×3, 1×1, 3×3 (192, 32, 32) → 3a (256, 32, 32) → 3b (480, 32, 32) →
    pool (480, 16, 16) → 4a (512, 16, 16) → 4b, 4c (512, 16, 16) → 4d (528, 16, 16) → 4e (832, 16, 16) →
    pool (832, 8, 8) → 5a (832, 8, 8) → 5b (1024, 8, 8) → mean 1024 → classes. Auxiliary heads, after 4a and 4d: average
    pooling 5×5 by 3 (…, 4, 4) → 1×1 (128, 4, 4) → 1024 → classes.

    A report on both versions, without transfer learning, gives 84 % validation and 80 % test accuracy on CIFAR-10.
    """

    name: Literal["inception_v1"] = "inception_v1"


class InceptionV2(_Inception):
    """`inception_v1` with batch normalisation and with two 3×3 convolutions for every 5×5.

    Batch normalisation: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167. Two 3×3 for a 5×5, and a 1×n and an n×1
    for an n×n: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567. The nine modules and their channels are those of
    `inception_v1`, so that the two differ in these ideas only; the networks of the papers also differ in channels and
    pooling.

    Stages for a (3, 32, 32) input are thus the same: stem (192, 32, 32) → 3a, 3b (480, 32, 32) → pool (480, 16, 16) →
    4a to 4e (832, 16, 16) → pool (832, 8, 8) → 5a, 5b (1024, 8, 8) → mean 1024 → classes.

    A report on both versions, without transfer learning, gives 84 % validation and 80 % test accuracy on CIFAR-10.
    """

    name: Literal["inception_v2"] = "inception_v2"
    batch_norm: Annotated[_BatchNorm, Field(examples=[False])] = True
    factorise: Annotated[_Factorised, Field(examples=["none", "nx1"])] = "3x3"


# --- parts of the network ---------------------------------------------------------------------------------------------


def inception_module(inside: int, widths: Widths, factorise: Factorise, *, batch_norm: bool) -> nn.Module:
    """Return a module of four parallel branches, (n, inside, h, w) → (n, one + three + five + pool, h, w)."""
    from torch import nn

    from ablate.models.layers import Branches

    return Branches(
        {
            "1x1": convolution(inside, widths.one, 1, batch_norm=batch_norm),
            "3x3": nn.Sequential(
                convolution(inside, widths.three_reduce, 1, batch_norm=batch_norm),
                *spatial(widths.three_reduce, widths.three, 3, factorise, batch_norm=batch_norm),
            ),
            "5x5": nn.Sequential(
                convolution(inside, widths.five_reduce, 1, batch_norm=batch_norm),
                *spatial(widths.five_reduce, widths.five, 5, factorise, batch_norm=batch_norm),
            ),
            "pool": nn.Sequential(
                nn.MaxPool2d(3, stride=1, padding=1),
                convolution(inside, widths.pool, 1, batch_norm=batch_norm),
            ),
        }
    )


def spatial(inside: int, out: int, side: int, factorise: Factorise, *, batch_norm: bool) -> list[nn.Module]:
    """Return a side×side convolution, or cheaper ones with the same receptive field."""
    if factorise == "3x3" and side == 5:
        return [
            convolution(inside, out, 3, batch_norm=batch_norm),
            convolution(out, out, 3, batch_norm=batch_norm),
        ]
    if factorise == "nx1":
        return [
            convolution(inside, inside, (1, side), batch_norm=batch_norm),
            convolution(inside, out, (side, 1), batch_norm=batch_norm),
        ]
    return [convolution(inside, out, side, batch_norm=batch_norm)]


def convolution(inside: int, out: int, kernel: int | tuple[int, int], *, batch_norm: bool) -> nn.Module:
    """Return a convolution that keeps the image's size, with batch norm if asked for, and a ReLU."""
    from torch import nn

    # Batch norm subtracts the mean: the gradient of a bias before it would be rounding error only.
    layers: list[nn.Module] = [nn.Conv2d(inside, out, kernel, padding="same", bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(out))
    return nn.Sequential(*layers, nn.ReLU())


def pool() -> nn.Module:
    """Return max-pooling that halves the image's sides, rounded up."""
    from torch import nn

    return nn.MaxPool2d(POOL.kernel, POOL.stride, POOL.padding)


def auxiliary_head(
    inside: int, sides: tuple[int, int], hidden: tuple[int, int], classes: int, *, batch_norm: bool
) -> nn.Module:
    """Return a classifier on intermediate features, (n, inside, *sides) → (n, classes). hidden: channels, units."""
    from torch import nn

    from ablate.models.layers import Dropout

    channels, units = hidden
    pixels = HEAD_POOL.places(sides[0]) * HEAD_POOL.places(sides[1])
    return nn.Sequential(
        nn.AvgPool2d(HEAD_POOL.kernel, HEAD_POOL.stride),
        convolution(inside, channels, 1, batch_norm=batch_norm),
        nn.Flatten(),
        nn.Linear(channels * pixels, units),
        nn.ReLU(),
        Dropout(HEAD_DROPOUT),
        nn.Linear(units, classes),
    )
