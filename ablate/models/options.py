"""What every network's config has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ablate.errors import StudyError
from ablate.fields import Block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


SmallInput = Annotated[
    bool,
    Field(
        description="For images of about 32 pixels: the first convolution is 3×3 at most with stride 1, and the max-pooling"
        " after it is left out.",
        examples=[True],
    ),
]
"""A field of the networks of other packages, whose first layers are made for photographs."""


class ModelOptions(Block):
    """Base of every network's config; each network is a subclass that adds its `name`, its fields and `build`."""

    is_foreign: ClassVar[bool] = False
    """Whether the network is not ablate's own code: it may then draw from torch's global generators, change its input in place,
    and need what only trying it out shows."""

    takes_channels_last: ClassVar[bool] = True
    """Whether the network works with its weights and images in channels-last order, which is faster."""

    preload: ClassVar[tuple[str, ...]] = ()
    """Modules besides torch that workers should begin with."""

    @property
    def target_to_import(self) -> str | None:
        """The code of the user's that `build` imports, as `package.module:name`; None: none."""
        return None

    def code_beside(self) -> tuple[str, ...]:
        """Return digests or versions of the code that `build` goes through outside ablate. Raises StudyError."""
        return ()

    def check(self, shape: tuple[int, int, int]) -> object:
        """Raise TrainingError where images of `shape` (channels, height, width) are too small, by plain arithmetic."""

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return a module (n, *shape) float → (n, classes) logits. Raises TrainingError and StudyError.

        In training a module with auxiliary heads returns (logits, [logits of each head]).
        """
        raise NotImplementedError


def refuse_arguments(arguments: Iterable[str], names: Iterable[str]) -> None:
    """Raise StudyError for arguments that are not the study's to give. names: of those."""
    for name in arguments:
        if name in names:
            raise StudyError(
                "is not yours to set: ablate draws fresh weights, for the classes and channels of the data",
                place=f"model.args.{name}",
            )
