"""The first layers of networks that were made for large colour images, changed for other ones."""

from __future__ import annotations

from torch import nn

from ablate.errors import TrainingError

USUAL_KERNEL = 3


def for_channels(network: nn.Module, channels: int) -> None:
    """Make the first convolution one of images with so many channels."""
    parent, name, first = _first_convolution(network)
    if first.in_channels != channels:
        setattr(parent, name, _convolution(first, channels, first.kernel_size, first.stride, first.padding))


def for_small_images(network: nn.Module, arch: str) -> None:
    """Keep the size of the images in the first convolution: 3×3 at most, with stride 1, and without the pooling after it.

    That is how residual networks are trained on images of 32 pixels (He et al. 2016, https://arxiv.org/abs/1512.03385, 4.2).
    Raises TrainingError for a network whose first convolution cuts the image into patches.
    """
    parent, name, first = _first_convolution(network)
    if first.kernel_size == first.stride:
        side = "×".join(map(str, first.kernel_size))
        raise TrainingError(
            f"{arch} cuts its images into patches of {side} pixels, so it has no first layers for large images",
            place="model.small_input",
            hint="leave small_input out, and enlarge the images with data.resize",
        )
    if first.kernel_size[0] > USUAL_KERNEL:
        setattr(parent, name, _convolution(first, first.in_channels, (USUAL_KERNEL,) * 2, (1, 1), (1, 1)))
    elif first.stride != (1, 1):
        first.stride = (1, 1)
    pooling = _pooling_before_the_next_convolution(network)
    if pooling is not None:
        setattr(*pooling, nn.Identity())


def _convolution(
    like: nn.Conv2d,
    channels: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | tuple[int, ...],
) -> nn.Conv2d:
    layer = nn.Conv2d(
        channels,
        like.out_channels,
        kernel,  # type: ignore[arg-type]
        stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        bias=like.bias is not None,
    )
    # As torchvision draws those of its residual networks.
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _first_convolution(network: nn.Module) -> tuple[nn.Module, str, nn.Conv2d]:
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and path:
            parent, _, name = path.rpartition(".")
            return network.get_submodule(parent), name, module
    raise TrainingError("the network has no convolution", place="model.arch")


def _pooling_before_the_next_convolution(network: nn.Module) -> tuple[nn.Module, str] | None:
    """Return parent and name of the max-pooling between the first two convolutions; None where there is none."""
    convolutions = 0
    for path, module in network.named_modules():
        convolutions += isinstance(module, nn.Conv2d)
        if convolutions == 2:
            return None
        if convolutions and isinstance(module, nn.MaxPool2d):
            parent, _, name = path.rpartition(".")
            return network.get_submodule(parent), name
    return None
