"""Augmentation: small functions, tensor → tensor, a batch at a time with parameters of its own for every image.

Only `draw` and `draw_mixup` use randomness; `flip`, `pad_crop`, `jitter`, `cutout`, `mixup` and the rest are plain functions
of their arguments. All take (n, C, H, W), float or uint8, on any device, do not change their argument, and keep dtype, device
and memory format (channels_last too).

Mixup is separate from the others because it mixes labels too: `augment` works on raw pixels, `mixup` on normalised ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablate.fields import Block

if TYPE_CHECKING:
    import torch


class Augment(Block):
    """Random changes to training images, drawn anew for every image of every batch. By default none."""

    flip: Annotated[
        bool, Field(description="Mirror each image left to right with probability 1/2.", examples=[True])
    ] = False
    crop: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="Padding in pixels: each image is padded with zeros on all sides, then cropped to its size at a random"
            " position. 0: off.",
            examples=[2, 4],
        ),
    ] = 0
    rotation: Annotated[
        float,
        Field(
            ge=0,
            le=180,
            description="Largest angle in degrees: each image is rotated about its centre by an angle uniform in ±rotation"
            " (bilinear, corners filled with zeros). 0: off.",
            examples=[5.0, 15.0],
        ),
    ] = 0.0
    brightness: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Colour jitter: each image's pixels are multiplied by a factor uniform in 1 ± brightness. 0: off.",
            examples=[0.2, 0.4],
        ),
    ] = 0.0
    contrast: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Colour jitter: the difference of each pixel from the image's mean grey is multiplied by a factor"
            " uniform in 1 ± contrast, one for each image. 0: off.",
            examples=[0.2, 0.4],
        ),
    ] = 0.0
    saturation: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Colour jitter: the difference of each pixel from its own grey is multiplied by a factor uniform in"
            " 1 ± saturation, one for each image. 0: off. Grey images do not change.",
            examples=[0.2, 0.4],
        ),
    ] = 0.0
    cutout: Annotated[
        int,
        Field(
            ge=0,
            le=256,
            description="Side in pixels of a square that is set to zero. Its centre is uniform over the image, so a part of it"
            " may lie outside (DeVries & Taylor 2017). 0: off.",
            examples=[8, 16],
        ),
    ] = 0
    mixup: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="α: each image and its label are mixed with those of another image of the batch, its mixup partner,"
            " in shares drawn from Beta(α, α) (Zhang et al. 2018). 0: off.",
            examples=[0.2, 1.0],
        ),
    ] = 0.0


@dataclass(frozen=True, eq=False)
class Draws:
    """Random parameters for a batch of n images; None where that augmentation is off."""

    mask: torch.Tensor | None = None  # (n,) bool: mirrored?
    degrees: torch.Tensor | None = None  # (n,) float32, counter-clockwise
    dy: torch.Tensor | None = None  # (n,) int64 in [0, 2·crop]
    dx: torch.Tensor | None = None
    brightness: torch.Tensor | None = None  # (n,) float32 factors; contrast and saturation too
    contrast: torch.Tensor | None = None
    saturation: torch.Tensor | None = None
    centre: torch.Tensor | None = None  # (2, n) float32 in [0, 1): row and column of the hole, as shares


def augment(
    x: torch.Tensor, config: Augment, generators: torch.Generator | Mapping[str, torch.Generator]
) -> torch.Tensor:
    """Augment x: (n, C, H, W) float or uint8 → the same shape. With everything off it returns `x` itself.

    In this order: flip, rotation, crop, brightness, contrast, saturation, cutout. Borders and holes are filled with zeros in
    the scale of `x`: black in raw pixels, the mean in normalised ones. Mixup is not done here: it mixes labels too.
    """
    return apply(x, draw(len(x), config, generators), config.crop, config.cutout)


def draw(n: int, config: Augment, generators: torch.Generator | Mapping[str, torch.Generator]) -> Draws:
    """Draw the random parameters for n images, on the generators' device.

    generators: the streams `augmentation` (flip, crop, rotation), `colour` (brightness, contrast, saturation) and `cutout`; or
    one generator for all three, where no two configurations are compared. The augmentations of one stream draw whether they
    are on or off, so that configurations which differ in one of them draw the same for the others (common random numbers).
    Nothing is drawn from a stream whose augmentations are all off.
    """

    def uniform(stream: str, rows: int) -> torch.Tensor:
        import torch

        generator = generators[stream] if isinstance(generators, Mapping) else generators
        return torch.rand(rows, n, generator=generator, device=generator.device)

    drawn: dict[str, torch.Tensor] = {}
    if config.flip or config.crop or config.rotation:
        u = uniform("augmentation", 4)
        # The product may be rounded up to the excluded bound.
        offsets = (u[1:3] * (2 * config.crop + 1)).long().clamp_(max=2 * config.crop)
        drawn |= {"mask": u[0] < 0.5} if config.flip else {}
        drawn |= {"dy": offsets[0], "dx": offsets[1]} if config.crop else {}
        drawn |= {"degrees": (2 * u[3] - 1) * config.rotation} if config.rotation else {}
    strengths = {name: getattr(config, name) for name in ("brightness", "contrast", "saturation")}
    if any(strengths.values()):
        u = uniform("colour", 3)
        drawn |= {
            name: 1 + (2 * row - 1) * strength
            for row, (name, strength) in zip(u, strengths.items(), strict=True)
            if strength
        }
    if config.cutout:
        drawn["centre"] = uniform("cutout", 2)
    return Draws(**drawn)


def apply(x: torch.Tensor, draws: Draws, pad: int, hole: int = 0) -> torch.Tensor:
    """Apply draws to x: (n, C, H, W). pad, hole: the `crop` and the `cutout` of the config they were drawn with."""
    if draws.mask is not None:
        x = flip(x, draws.mask)
    if draws.degrees is not None:
        x = rotate(x, draws.degrees)
    if draws.dy is not None and draws.dx is not None:
        x = pad_crop(x, draws.dy, draws.dx, pad)
    x = jitter(x, draws.brightness, draws.contrast, draws.saturation)
    if draws.centre is not None:
        x = cutout(x, draws.centre, hole)
    return x


def flip(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mirror images left to right where mask, (n,) bool, is true."""
    import torch

    # Copies either an image or its mirror image as a whole; selecting pixel by pixel would be slower.
    pairs = torch.cat((x, x.flip(-1)))
    which = torch.arange(len(x), device=x.device) + len(x) * mask.to(x.device)
    if _is_channels_last(x):
        return pairs.permute(0, 2, 3, 1).index_select(0, which).permute(0, 3, 1, 2)
    return pairs.index_select(0, which)


def pad_crop(x: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, pad: int) -> torch.Tensor:
    """Pad with `pad` zeros on all sides, then crop (H, W) from row dy and column dx, both (n,) int64 in [0, 2·pad]."""
    import torch
    import torch.nn.functional as F

    n, channels, height, width = x.shape
    is_last = _is_channels_last(x)
    borders = (pad, pad, pad, pad)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *borders)) if is_last else F.pad(x, borders)
    # Number of planes of an image, and of values of a pixel in one plane.
    planes, depth = (1, channels) if is_last else (channels, 1)
    # A row of the result is contiguous in `padded`: this is a view of every such stretch, of which whole ones are copied.
    stretches = padded.reshape(-1).unfold(0, width * depth, depth)
    plane = torch.arange(n * planes, device=x.device).view(n, planes, 1)
    dy, dx = (drawn.to(x.device)[:, None, None] for drawn in (dy, dx))
    rows = plane * (height + 2 * pad) + dy + torch.arange(height, device=x.device)
    cropped = stretches.index_select(0, (rows * (width + 2 * pad) + dx).view(-1))
    if is_last:
        return cropped.view(n, height, width, channels).permute(0, 3, 1, 2)
    return cropped.view(x.shape)


def rotate(x: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate each image about its centre, counter-clockwise; degrees: (n,).

    Bilinear, with zeros outside and the size kept, as `torchvision.transforms.v2.functional.rotate(image, angle, BILINEAR)`
    does for one image. Computed in at least float32; uint8 is rounded.
    """
    import torch
    import torch.nn.functional as F

    height, width = x.shape[-2:]
    real = x if x.dtype in {torch.float32, torch.float64} else x.float()
    angle = torch.deg2rad(degrees.to(device=x.device, dtype=real.dtype))
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # Pixel centres relative to the image's centre, then the position each is sampled from, in units of half the image.
    xs = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=x.device, dtype=real.dtype)
    ys = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=x.device, dtype=real.dtype)[
        :, None
    ]
    grid = torch.stack(((cos * xs - sin * ys) * (2 / width), (sin * xs + cos * ys) * (2 / height)), dim=-1)
    rotated = F.grid_sample(real, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if real is not x:
        rotated = (rotated.round() if x.dtype == torch.uint8 else rotated).to(x.dtype)
    return rotated.contiguous(memory_format=torch.channels_last) if _is_channels_last(x) else rotated


def jitter(
    x: torch.Tensor,
    brightness: torch.Tensor | None = None,
    contrast: torch.Tensor | None = None,
    saturation: torch.Tensor | None = None,
) -> torch.Tensor:
    """Change brightness, then contrast, then saturation, each by one factor ≥ 0 for each image, (n,), or None.

    As torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation` do for one image, clamped after each to
    [0, 255] for uint8 and to [0, 1] for floats; but uint8 is rounded only once, at the end. C: 1 or 3; the saturation of
    grey images stays.
    """
    import torch

    if x.shape[1] == 1:
        saturation = None
    if brightness is None and contrast is None and saturation is None:
        return x
    top = 255.0 if x.dtype == torch.uint8 else 1.0
    real = x if x.dtype in {torch.float32, torch.float64} else x.float()

    def factors(drawn: torch.Tensor) -> torch.Tensor:
        return drawn.to(device=x.device, dtype=real.dtype)[:, None, None, None]

    if brightness is not None:
        real = (real * factors(brightness)).clamp(0, top)
    if contrast is not None:
        mean = _grey(real).mean(dim=(1, 2, 3), keepdim=True)
        real = (mean + (real - mean) * factors(contrast)).clamp(0, top)
    if saturation is not None:
        grey = _grey(real)
        real = (grey + (real - grey) * factors(saturation)).clamp(0, top)
    return (real.round() if x.dtype == torch.uint8 else real).to(x.dtype)


def cutout(x: torch.Tensor, centre: torch.Tensor, side: int) -> torch.Tensor:
    """Set a square of `side` pixels around `centre` to zero; centre: (2, n) in [0, 1), shares of height and width.

    The square may lie partly outside the image. As DeVries & Taylor 2017 (https://arxiv.org/abs/1708.04552), who fill with the
    mean of the data, because they work on normalised images.
    """
    import torch

    height, width = x.shape[-2:]

    def inside(shares: torch.Tensor, size: int) -> torch.Tensor:
        first = (shares.to(x.device) * size).long().clamp_(max=size - 1) - side // 2
        position = torch.arange(size, device=x.device)
        return (position >= first[:, None]) & (position < first[:, None] + side)

    hole = inside(centre[0], height)[:, :, None] & inside(centre[1], width)[:, None, :]
    # The out-of-place `masked_fill` would not keep the memory format.
    return x.clone().masked_fill_(hole[:, None], 0)


def draw_mixup(n: int, alpha: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the mixup partner of each of n images, (n,) int64 a permutation, and the share it keeps, (n,) float32 in [0, 1].

    generator: on the CPU. Shares are quantiles of Beta(α, α) at uniform draws, so that another α draws the same partners and
    as many numbers from the stream.
    """
    import torch
    from scipy.special import betaincinv

    partner = torch.randperm(n, generator=generator)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    return partner, torch.from_numpy(betaincinv(alpha, alpha, u.numpy())).float()


def mixup(x: torch.Tensor, partner: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Mix x: (n, …) float → share · x + (1 − share) · x[partner], row by row (Zhang et al. 2018, arXiv:1710.09412).

    For images and for labels, which are probabilities (n, classes).
    """
    # Drawn on the CPU and copied without waiting for the GPU.
    kept_share = share.to(device=x.device, dtype=x.dtype, non_blocking=True).view(-1, *[1] * (x.dim() - 1))
    return x[partner.to(x.device, non_blocking=True)].lerp(x, kept_share)


def _grey(x: torch.Tensor) -> torch.Tensor:
    """Return the luminance (ITU-R BT.601), (n, 3, H, W) → (n, 1, H, W); images of one channel as they are."""
    if x.shape[1] == 1:
        return x
    return 0.2989 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]


def _is_channels_last(x: torch.Tensor) -> bool:
    import torch

    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
