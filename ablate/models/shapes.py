"""The size of an image after each layer of a network: plain arithmetic, before anything is built or trained.

A window of F pixels with stride S has (W−F+2P)/S+1 positions, rounded down, on W pixels with P pixels of padding on either
side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.errors import TrainingError

LARGEST = 4096


@dataclass(frozen=True)
class Window:
    """A convolution or a pooling. name: with its number, from 1: `convolution 2`. kernel, stride, padding: in pixels."""

    name: str
    kernel: int
    stride: int = 1
    padding: int = 0

    def places(self, side: int) -> int:
        """Return the output side for an input side; 0 where the window does not fit."""
        return max((side - self.kernel + 2 * self.padding) // self.stride + 1, 0)

    def worked(self, side: int) -> str:
        """Return the formula with its numbers: `convolution 2: (14−5+0)/1+1 = 10`."""
        exact = (side - self.kernel + 2 * self.padding) / self.stride + 1
        rounded = self.places(side)
        result = f"{exact:g}" if exact == rounded else f"{exact:.3g}, so {rounded}"
        return f"{self.name}: ({side}−{self.kernel}+{2 * self.padding})/{self.stride}+1 = {result}"


def pooling(number: int, kernel: int = 2) -> Window:
    """Return the window of a pooling whose stride is its kernel."""
    return Window(f"pooling {number}", kernel, stride=kernel)


def slide(
    model: str, sides: tuple[int, int], windows: Sequence[Window], *, place: str = "model", hint: str = ""
) -> tuple[int, int]:
    """Return height and width after all the windows.

    model: its name, for the message. place: the field to change. hint: another way to correct it. Raises TrainingError, with
    the formula for each layer, where the image becomes too small for a window.
    """
    height, width = (_after(side, windows) for side in sides)
    if min(height, width) > 0:
        return height, width
    side, steps = min(sides), []
    for window in windows:
        steps.append(window.worked(side))
        side = window.places(side)
        if side == 0:
            break
    passing = next((s for s in range(min(sides) + 1, LARGEST + 1) if _after(s, windows) > 0), None)
    ways = [f"data.resize: {passing} is the smallest size that works"] if passing else []
    raise TrainingError(
        f"an input of {sides[0]}×{sides[1]} pixels is too small for {model}; the size after each layer, (W−F+2P)/S+1: "
        f"{'; '.join(steps)}",
        place=place,
        hint="; ".join([*ways, *([hint] if hint else [])]) or None,
    )


def _after(side: int, windows: Sequence[Window]) -> int:
    for window in windows:
        side = window.places(side)
        if side == 0:
            return 0
    return side
