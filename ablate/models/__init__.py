"""Models by name. A model is a file, its config class, and one line in the union below.

A config has `check(shape)`, plain arithmetic that raises where an image of that shape would shrink to nothing, and
`build(shape, classes)`, which makes a torch module: images (n, channels, height, width) float → logits (n, classes). A
module with auxiliary heads returns (logits, [logits of each head]) in training; the training adds their losses to the
network's own, each times `layers.AUXILIARY_WEIGHT`.

`numpy_mlp` is no torch module and has no `build`: training knows how it learns, and `table` what it is made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, get_args

from pydantic import Field

from ablate.fields import Block
from ablate.models.cnn import Cnn
from ablate.models.inception import InceptionV1, InceptionV2
from ablate.models.numpy_mlp import NumpyMlp
from ablate.models.tutorials import SmallCnn, TutorialCnn, WhatWorked

AnyModel = Cnn | TutorialCnn | WhatWorked | SmallCnn | NumpyMlp | InceptionV1 | InceptionV2
ModelConfig = Annotated[AnyModel, Field(discriminator="name")]

MODELS: Mapping[str, type[Block]] = {m.model_fields["name"].default: m for m in get_args(AnyModel)}
"""Name → config class."""

__all__ = [
    "MODELS",
    "AnyModel",
    "Cnn",
    "InceptionV1",
    "InceptionV2",
    "ModelConfig",
    "NumpyMlp",
    "SmallCnn",
    "TutorialCnn",
    "WhatWorked",
]
