"""The options that every data set has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ablate.fields import Block

if TYPE_CHECKING:
    from pathlib import Path

    from ablate.data.cache import Source


class DataOptions(Block):
    """Options of every data set; each data set is a subclass that adds its `name` and `source`."""

    subset: Annotated[
        int | None,
        Field(
            gt=0,
            description="Number of training images to use, drawn stratified by class before the validation split;"
            " null: all. The test set is never reduced.",
            examples=[500, 1000],
        ),
    ] = None
    validation: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of the training images held out for validation, stratified by class. Data that bring a validation"
            " split of their own are validated on that, whatever this says.",
            examples=[0.2, 0.3],
        ),
    ] = 0.1
    split: Annotated[
        Literal["fixed", "per-seed"],
        Field(
            description="fixed: all seeds share one subset and one validation split. per-seed: each seed draws its own.",
            examples=["per-seed"],
        ),
    ] = "fixed"
    normalize: Annotated[
        bool,
        Field(
            description="Subtract from each channel the mean of the training split and divide by its standard deviation.",
            examples=[False],
        ),
    ] = True
    resize: Annotated[
        int | None,
        Field(
            gt=0,
            le=4096,
            description="Side in pixels of the square that every image is resized to (bilinear, antialiased; the aspect"
            " ratio is not kept); null: no resizing.",
            examples=[16, 48],
        ),
    ] = None
    channels: Annotated[
        Literal["grey", "rgb"] | None,
        Field(
            description="grey: one channel, the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601, as PIL's mode L). rgb:"
            " three channels, equal where the image is grey. null: the channels of the images.",
            examples=["grey"],
        ),
    ] = None

    resizes_while_decoding: ClassVar[bool] = False
    """Whether `source` applies `resize` itself, because its images need not have one size before."""

    @property
    def target_to_import(self) -> str | None:
        """The code of the user's that `source` imports, as `package.module:name`; None: none."""
        return None

    def source(self, cache: Path) -> Source:
        """Return where the images come from. cache: folder for downloads. Raises DataError where there are none."""
        raise NotImplementedError
