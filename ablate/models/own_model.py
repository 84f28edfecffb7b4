"""`import`: a network of the user's own, built by a function or class that a study names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ablate import targets
from ablate.code_digest import training_code
from ablate.errors import TrainingError
from ablate.fields import Arguments, ArgumentsField
from ablate.models.options import ModelOptions

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("classes", "num_classes", "n_classes")
CHANNELS = ("channels", "in_channels", "in_chans")
SIZE = ("size", "image_size", "img_size")
"""Parameters of a builder that ablate fills in, where its signature has one of these names: the number of classes, the channels
of an image, and the side of a square one. `height`, `width` and `shape`, (channels, height, width), have one name each.
"""


class ImportedModel(ModelOptions):
    """A network of your own, which a function or a class of your package returns."""

    is_foreign: ClassVar[bool] = True
    takes_channels_last: ClassVar[bool] = (
        False  # `x.view(len(x), -1)`, which many networks have, needs the other order
    )

    name: Literal["import"] = "import"
    target: Annotated[
        targets.Target,
        Field(
            description="What builds the network, as `package.module:name`. It is called with `args`, and with those of"
            f" `{CLASSES[0]}`, `{CHANNELS[0]}`, `{SIZE[0]}`, `height`, `width` and `shape` that its signature names; it returns a"
            " torch module from images (n, channels, height, width) to logits (n, classes).",
            examples=["my_package.nets:build", "my_package.nets:build_deep"],
        ),
    ]
    args: Annotated[
        ArgumentsField,
        Field(
            default_factory=Arguments,
            description="Arguments of `target` by name. Each is a setting of its own: `model.args.heads: [8]` is a factor.",
            examples=[{"heads": 8}],
        ),
    ]

    @property
    def target_to_import(self) -> str:
        return self.target

    def code_beside(self) -> tuple[str, ...]:
        return (training_code(self.target, "model.target").digest,)

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        import torch
        from torch import nn

        from ablate.models.foreign import with_own_dropout

        builder = targets.load(self.target, "model.target")
        arguments = targets.arguments(builder, self.target, self.args, offered(shape, classes), "model.args")
        for name in SIZE:
            if name in arguments and arguments[name] is None and name not in self.args:
                raise TrainingError(
                    f"{self.target} asks for `{name}`, but the images are {shape[1]}×{shape[2]}",
                    place="model.target",
                    hint="let it ask for `height` and `width`, or make the images square with data.resize",
                )
        network = targets.call(builder, self.target, arguments, "model.target")
        if not isinstance(network, nn.Module):
            raise TrainingError(
                f"{self.target} returned {type(network).__name__}, not a torch module", place="model.target"
            )
        network = with_own_dropout(network)
        if any(isinstance(parameter, nn.UninitializedParameter) for parameter in network.parameters()):
            # Lazy layers draw their weights at their first input.
            with torch.no_grad():
                targets.call(
                    network.eval(),
                    f"the network of {self.target}, on an image of {'×'.join(map(str, shape))},",
                    {},
                    "model.target",
                    torch.zeros(1, *shape),
                )
            network.train()
        return network


def offered(shape: tuple[int, int, int], classes: int) -> dict[str, Any]:
    """Return what a builder may ask for, under all names that it may have; None for the side of images that are not square."""
    channels, height, width = shape
    side = height if height == width else None
    return {
        **dict.fromkeys(CLASSES, classes),
        **dict.fromkeys(CHANNELS, channels),
        **dict.fromkeys(SIZE, side),
        "height": height,
        "width": width,
        "shape": shape,
    }
