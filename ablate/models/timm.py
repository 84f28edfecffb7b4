"""`timm`: the networks of the package timm, where it is installed; always with fresh weights."""

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


class TimmModel(ModelOptions):
    """A network of timm (https://huggingface.co/docs/timm, `pip install timm`), with fresh weights."""

    is_foreign: ClassVar[bool] = True
    takes_channels_last: ClassVar[bool] = False  # a thousand networks, some of which use `view`
    preload: ClassVar[tuple[str, ...]] = ("timm",)

    name: Literal["timm"] = "timm"
    arch: Annotated[
        str,
        Field(
            pattern=r"^\w+$",
            description="The network, by timm's name without a tag of weights. Its weights are drawn anew, never downloaded.",
            examples=["resnet18", "vit_tiny_patch16_224"],
        ),
    ]
    small_input: SmallInput = False
    args: Annotated[
        ArgumentsField,
        Field(
            default_factory=Arguments,
            description="Arguments of `timm.create_model`.",
            examples=[{"drop_path_rate": 0.1}],
        ),
    ]

    def code_beside(self) -> tuple[str, ...]:
        _check_installed()
        return (f"timm {metadata.version('timm')}",)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        _check_installed()
        import timm

        from ablate.models import stem
        from ablate.models.foreign import with_own_dropout

        if not timm.is_model(self.arch):
            raise StudyError(
                f"timm has no network {self.arch!r}",
                place="model.arch",
                hint=_near(self.arch, timm.list_models()),
            )
        refuse_arguments(
            self.args, ("pretrained", "checkpoint_path", "num_classes", "in_chans", "features_only")
        )
        channels, height, width = shape
        arguments: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
        # Networks that are made for one size of images take that size; the others have no such argument.
        about = timm.get_pretrained_cfg(self.arch)
        if about is not None and about.fixed_input_size:
            arguments["img_size"] = (height, width)
        network: nn.Module = targets.call(
            timm.create_model,
            self.arch,
            {"model_name": self.arch, "pretrained": False, **arguments, **self.args},
            "model.args" if self.args else "model.arch",
        )
        if self.small_input:
            stem.for_small_images(network, self.arch)
        return with_own_dropout(network)


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("timm") is None:
        raise StudyError(
            "the networks of timm need the package timm", place="model.name", hint="pip install timm"
        )


def _near(arch: str, known: list[str]) -> str:
    """Return a hint: the nearest name, or where to find one. There are more than a thousand."""
    hint = nearest(arch, known)
    return hint if hint.startswith("did you") else "timm.list_models() has its names"
