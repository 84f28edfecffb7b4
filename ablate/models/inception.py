"""`inception_v1` and `inception_v2`: GoogLeNet for small images, and what made it better, each idea a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from ablate.fields import Block
from ablate.models.shapes import Window, slide

if TYPE_CHECKING:
    from torch import nn

Factorise = Literal["none", "3x3", "nx1"]


class Widths(NamedTuple):
    """Channels of a module's four branches; `_reduce` is the 1×1 convolution that makes the next one affordable."""

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

_POOL = Window("pooling", 3, stride=2, padding=1)
_HEAD_POOL = Window("average pooling of the auxiliary heads", 5, stride=3)

_BatchNorm = Annotated[bool, Field(description="Batch normalisation after every convolution.")]
_Factorised = Annotated[
    Factorise,
    Field(
        description="What becomes of a module's larger convolutions: `none`, as they are; `3x3`, two 3×3 for the 5×5; "
        "`nx1`, a 1×n and an n×1 for both the 3×3 and the 5×5."
    ),
]


class _Inception(Block):
    """Fields of both versions."""

    auxiliary: Annotated[
        bool,
        Field(description="Two more classifiers, after the modules 4a and 4d, whose losses count 0.3 in training."),
    ] = True
    batch_norm: _BatchNorm = False
    factorise: _Factorised = "none"
    width: Annotated[
        float, Field(gt=0, le=8, description="Multiplier of every layer's channels, rounded to whole ones.")
    ] = 1.0
    stem_pool: Annotated[
        bool, Field(description="3×3 max-pooling by 2 at the end of the stem: a quarter of the work, for larger images.")
    ] = False
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="Chance that a feature before the last layer is zeroed in training.")
    ] = 0.4

    def widths(self) -> dict[str, Widths]:
        """Channels of every module."""
        return {name: Widths(*map(self._scaled, widths)) for name, widths in MODULES.items()}

    def _scaled(self, channels: int) -> int:
        return max(round(channels * self.width), 1)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raises TrainingError where an auxiliary head finds too few pixels; without them any input will do."""
        if self.auxiliary:
            before = (_POOL,) * (2 if self.stem_pool else 1)
            hint = "or model.auxiliary: false"
            slide(
                type(self).model_fields["name"].default,
                shape[1:],
                (*before, _HEAD_POOL),
                place="model.auxiliary",
                hint=hint,
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """shape: (channels, height, width) → a module (n, *shape) float → (n, classes).

        In training and with auxiliary heads the module returns (logits, [logits of each head]). Raises TrainingError.
        """
        self.check(shape)
        sides = shape[1:]
        for _ in range(2 if self.stem_pool else 1):
            sides = (_POOL.places(sides[0]), _POOL.places(sides[1]))
        from ablate.models.inception_modules import GoogLeNet

        return GoogLeNet(self, shape[0], sides, classes)
