"""Augmentation: small functions, tensor → tensor, a batch at a time but each image for itself.

Drawing and applying are apart. `draw` is the only place that uses randomness; `flip`, `pad_crop` and `rotate` are plain
functions of their arguments. All take (n, C, H, W) of float or uint8 on any device, leave the argument as it is, and keep
dtype, device and memory format (channels_last too).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablate.fields import Block

if TYPE_CHECKING:
    import torch


class Augment(Block):
    """Random changes to training images, drawn anew for every image of every batch. All off: none."""

    flip: Annotated[bool, Field(description="Mirror each image left to right with probability 1/2.")] = False
    crop: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="Padding in pixels: each image is padded with zeros on all sides, then cut out at a random place"
            " in its old size. 0: off.",
        ),
    ] = 0
    rotation: Annotated[
        float,
        Field(
            ge=0,
            le=180,
            description="Greatest angle in degrees: each image is turned about its centre by an angle uniform in"
            " ±rotation (bilinear, corners filled with zeros). 0: off.",
        ),
    ] = 0.0


@dataclass(frozen=True, eq=False)
class Draws:
    """What was drawn for a batch of n images; None where that augmentation is off."""

    mask: torch.Tensor | None = None  # (n,) bool: mirrored?
    degrees: torch.Tensor | None = None  # (n,) float32, counter-clockwise
    dy: torch.Tensor | None = None  # (n,) int64 in [0, 2·crop]
    dx: torch.Tensor | None = None


def augment(x: torch.Tensor, config: Augment, generator: torch.Generator) -> torch.Tensor:
    """x: (n, C, H, W) float or uint8 → the same shape: mirrored, turned, then cut out. All off: `x` itself.

    Zeros fill the borders in whatever scale `x` has: black in raw pixels, the mean in normalized ones.
    """
    return apply(x, draw(len(x), config, generator), config.crop)


def draw(n: int, config: Augment, generator: torch.Generator) -> Draws:
    """Draws for n images, on the generator's device, from `generator` only.

    Every augmentation takes its share of the stream whether it is on or off, so that configurations which differ in one
    of them make the same draws in the others (common random numbers). With all off nothing is drawn.
    """
    import torch

    if config == Augment():
        return Draws()
    u = torch.rand(4, n, generator=generator, device=generator.device)
    # The product may round up to the bound itself.
    offsets = (u[1:3] * (2 * config.crop + 1)).long().clamp_(max=2 * config.crop)
    return Draws(
        mask=u[0] < 0.5 if config.flip else None,
        degrees=(2 * u[3] - 1) * config.rotation if config.rotation else None,
        dy=offsets[0] if config.crop else None,
        dx=offsets[1] if config.crop else None,
    )


def apply(x: torch.Tensor, draws: Draws, pad: int) -> torch.Tensor:
    """Apply what was drawn. pad: the `crop` that it was drawn with."""
    if draws.mask is not None:
        x = flip(x, draws.mask)
    if draws.degrees is not None:
        x = rotate(x, draws.degrees)
    if draws.dy is not None and draws.dx is not None:
        x = pad_crop(x, draws.dy, draws.dx, pad)
    return x


def flip(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mirror left to right the images where mask, (n,) bool, is true."""
    import torch

    return torch.where(mask.to(x.device)[:, None, None, None], x.flip(-1), x)


def pad_crop(x: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, pad: int) -> torch.Tensor:
    """Pad with `pad` zeros on all sides, then cut out (H, W) from row dy and column dx; both (n,) int64 in [0, 2·pad]."""
    import torch
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    # A view of every window of every image, indexed once: no copy but the answer.
    windows = F.pad(x, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    n = torch.arange(len(x), device=x.device)
    dy, dx = dy.to(x.device), dx.to(x.device)
    if _is_channels_last(x):
        return windows.permute(0, 2, 3, 4, 5, 1)[n, dy, dx].permute(0, 3, 1, 2)
    return windows[n, :, dy, dx]


def rotate(x: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Turn each image about its centre, counter-clockwise; degrees: (n,).

    Bilinear, zeros outside, size kept: `torchvision.transforms.v2.functional.rotate(image, angle, BILINEAR)` image by
    image. Computed in float32 at least; uint8 is rounded.
    """
    import torch
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    real = x if x.dtype in {torch.float32, torch.float64} else x.float()
    angle = torch.deg2rad(degrees.to(device=x.device, dtype=real.dtype))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # Pixel centres relative to the image's centre, then where each comes from, in units of half the image.
    xs = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=x.device, dtype=real.dtype)
    ys = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=x.device, dtype=real.dtype)[
        :, None
    ]
    grid = torch.stack(((cos * xs - sin * ys) * (2 / width), (sin * xs + cos * ys) * (2 / height)), dim=-1)
    turned = F.grid_sample(real, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if real is not x:
        turned = (turned.round() if x.dtype == torch.uint8 else turned).to(x.dtype)
    return turned.contiguous(memory_format=torch.channels_last) if _is_channels_last(x) else turned


def _is_channels_last(x: torch.Tensor) -> bool:
    import torch

    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
