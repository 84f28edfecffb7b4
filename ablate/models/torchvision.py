"""`torchvision`: the classification networks of the package torchvision, always with fresh weights."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ablate import targets
from ablate.errors import StudyError, nearest
from ablate.fields import Arguments, ArgumentsField
from ablate.models.options import ModelOptions, SmallInput, refuse_arguments

if TYPE_CHECKING:
    from torch import nn

SIZED = {"vit_": "image_size", "maxvit_": "input_size"}
"""Beginnings of the names of networks that are made for one size of images, and the argument that gives it."""

PLAIN = {"googlenet": {"aux_logits": False, "init_weights": True}}
PLAIN["inception_v3"] = PLAIN["googlenet"]
"""Arguments of networks that would otherwise return auxiliary logits in a form of their own, and warn."""


class TorchvisionModel(ModelOptions):
    """A classification network of torchvision (https://docs.pytorch.org/vision/stable/models.html), with fresh weights."""

    is_foreign: ClassVar[bool] = True
    preload: ClassVar[tuple[str, ...]] = ("torchvision.models",)

    name: Literal["torchvision"] = "torchvision"
    arch: Annotated[
        str,
        Field(
            pattern=r"^\w+$",
            description="The network, by torchvision's name. Its weights are drawn anew, never downloaded.",
            examples=["resnet18", "mobilenet_v3_small"],
        ),
    ]
    small_input: SmallInput = False
    args: Annotated[
        ArgumentsField,
        Field(
            default_factory=Arguments,
            description="Arguments of the network's function in torchvision.",
            examples=[{"dropout": 0.1}],
        ),
    ]

    def code_beside(self) -> tuple[str, ...]:
        return (f"torchvision {metadata.version('torchvision')}",)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        from torchvision import models

        from ablate.models import stem
        from ablate.models.foreign import with_own_dropout

        known = models.list_models(module=models)
        if self.arch not in known:
            raise StudyError(
                f"torchvision has no network {self.arch!r}",
                place="model.arch",
                hint=nearest(self.arch, known),
            )
        refuse_arguments(self.args, ("weights", "weights_backbone", "num_classes", "progress"))
        channels, height, width = shape
        sized: dict[str, Any] = {
            name: height if name == "image_size" else (height, width)
            for beginning, name in SIZED.items()
            if self.arch.startswith(beginning)
        }
        arguments = {"num_classes": classes, **sized, **PLAIN.get(self.arch, {}), **self.args}
        network: nn.Module = targets.call(
            models.get_model,
            self.arch,
            {"name": self.arch, "weights": None, **arguments},
            "model.args" if self.args else "model.arch",
        )
        stem.for_channels(network, channels)
        if self.small_input:
            stem.for_small_images(network, self.arch)
        return with_own_dropout(network)
