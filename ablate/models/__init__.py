"""Models by name. To add one: write a file with its config class, and add the class to the union `AnyModel`.

A config class has `check(shape)`, plain arithmetic that raises TrainingError where images of that shape are too small, and
`build(shape, classes)`, which returns a torch module: images (n, channels, height, width) float → logits (n, classes). In
training, a module with auxiliary heads returns (logits, [logits of each head]); their losses are added to that of the network,
each times `layers.AUXILIARY_WEIGHT`.

`numpy_mlp` is no torch module and has no `build`: the training runs it with NumPy, and `table` computes its layers from its
sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field

from ablate.models.cnn import Cnn
from ablate.models.inception import InceptionV1, InceptionV2
from ablate.models.numpy_mlp import NumpyMlp
from ablate.models.options import ModelOptions
from ablate.models.own_model import ImportedModel
from ablate.models.timm import TimmModel
from ablate.models.torchvision import TorchvisionModel
from ablate.models.tutorials import SmallCnn, TutorialCnn, WhatWorked

AnyModel = (
    Cnn
    | TutorialCnn
    | WhatWorked
    | SmallCnn
    | NumpyMlp
    | InceptionV1
    | InceptionV2
    | TorchvisionModel
    | TimmModel
    | ImportedModel
)
ModelConfig = Annotated[AnyModel, Field(discriminator="name")]

MODELS: Mapping[str, type[ModelOptions]] = {m.model_fields["name"].default: m for m in get_args(AnyModel)}
"""Name → config class."""

__all__ = [
    "MODELS",
    "AnyModel",
    "Cnn",
    "ImportedModel",
    "InceptionV1",
    "InceptionV2",
    "ModelConfig",
    "ModelOptions",
    "NumpyMlp",
    "SmallCnn",
    "TimmModel",
    "TorchvisionModel",
    "TutorialCnn",
    "WhatWorked",
]
