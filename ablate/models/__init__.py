"""Models by name. A model is a file, its config class, and one line in the union below."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ablate.models.cnn import Cnn
from ablate.models.tutorials import SmallCnn

ModelConfig = Annotated[Cnn | SmallCnn, Field(discriminator="name")]

__all__ = ["Cnn", "ModelConfig", "SmallCnn"]
