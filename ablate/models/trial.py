"""Trying a network out before anything is trained: what arithmetic cannot tell of it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

from ablate.errors import AblateError, TrainingError
from ablate.models import AnyModel, NumpyMlp
from ablate.models.foreign import seeded
from ablate.targets import described

FEW = 2
"""Images of the batch that a network is tried on."""


def try_out(config: AnyModel, shape: tuple[int, int, int], classes: int, last_batch: int) -> None:
    """Check that a network can be trained on images of `shape`, by passing a few through it.

    Networks of ablate's own are tried only where the last batch of an epoch has one image, which batch norm may not take.
    last_batch: images of it. Raises TrainingError and StudyError.
    """
    if isinstance(config, NumpyMlp) or not (config.is_foreign or last_batch == 1):
        return
    _try_out(config, shape, classes, last_batch == 1)


@functools.lru_cache(maxsize=256)
def _try_out(config: AnyModel, shape: tuple[int, int, int], classes: int, one: bool) -> None:
    assert not isinstance(config, NumpyMlp)
    # Networks of others may read values of their weights, which the meta device has not.
    with seeded(0), torch.device("cpu" if config.is_foreign else "meta"):
        network = config.build(shape, classes)
        if config.is_foreign:
            if not any(parameter.requires_grad for parameter in network.parameters()):
                raise TrainingError("the network has no weights to train", place="model")
            _check_output(network.eval(), shape, classes, "evaluation")
            _check_output(network.train(), shape, classes, "training")
        if one:
            _check_one_image(network.train(), shape)


def _check_output(network: nn.Module, shape: tuple[int, int, int], classes: int, mode: str) -> None:
    """Check what a network makes of a few images. mode: the one that it is in."""
    with torch.no_grad():
        output = _called(
            network, FEW, shape, lambda error: f"in {mode}, the network raised {described(error)}"
        )
    logits: object = output
    heads: list[object] = []
    if mode == "training" and isinstance(output, tuple) and len(output) == 2 and isinstance(output[1], list):
        logits, heads = output
    for tensor in (logits, *heads):
        if not isinstance(tensor, torch.Tensor):
            raise TrainingError(
                f"in {mode}, the network returned {type(tensor).__name__}, not logits",
                place="model",
                hint="(n, classes) logits belong there, or in training (logits, [logits of each auxiliary head])",
            )
        if tuple(tensor.shape) != (FEW, classes):
            raise TrainingError(
                f"for {FEW} images of {'×'.join(map(str, shape))} the network returned {'×'.join(map(str, tensor.shape))},"
                f" not {FEW}×{classes} logits",
                place="model",
                hint=f"the data have {classes} classes",
            )
        if not tensor.is_floating_point():
            raise TrainingError(f"the network returned {tensor.dtype}, not logits", place="model")


def _check_one_image(network: nn.Module, shape: tuple[int, int, int]) -> None:
    """Check that a network in training takes a batch of one image."""
    with torch.no_grad():
        _called(
            network,
            1,
            shape,
            lambda error: (
                "the last batch of an epoch has one image, and the network cannot be trained on one: "
                + _first_line(error)
            ),
            hint="choose another training.batch_size, or another data.subset",
        )


def _called(
    network: nn.Module,
    count: int,
    shape: tuple[int, int, int],
    reason: Callable[[Exception], str],
    hint: str | None = None,
) -> object:
    try:
        return network(torch.zeros(count, *shape))
    except AblateError:
        raise
    except Exception as error:
        raise TrainingError(
            f"images of {'×'.join(map(str, shape))}: {reason(error)}",
            place="model",
            hint=hint or _larger(error),
        ) from error


def _larger(error: Exception) -> str | None:
    """Return a hint where the network is too deep for the size of its images."""
    text = str(error)
    too_small = ("Output size is too small", "Kernel size can't be greater", "more than 1 value per channel")
    return (
        "the images are too small for this network: enlarge them with data.resize"
        if any(part in text for part in too_small)
        else None
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
