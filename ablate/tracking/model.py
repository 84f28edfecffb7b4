"""A saved network as MLflow's own kind of model, which `mlflow.pytorch.load_model("runs:/ID/model")` loads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "model"
"""Of the artifacts of a run; the name in `runs:/ID/model`."""


def write(file: Path, tree: Mapping[str, Any], target: Path) -> None:
    """Make the folder `target` of the weights that training wrote to `file`.

    As a traced graph (`pt2`): loading one runs no code of its maker's, and needs no ablate. tree: of the run's config.
    Raises whatever keeps torch from tracing the network.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow.models.signature import ModelSignature
    from mlflow.types import Schema, TensorSpec

    from ablate.config import RunConfig
    from ablate.models import saved

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    network, about = saved.read(file, RunConfig.parse(tree).model)
    shape = about["shape"]
    pixels, logits = np.dtype(np.uint8), np.dtype(np.float32)
    signature = ModelSignature(
        Schema([TensorSpec(pixels, (-1, *shape))]), Schema([TensorSpec(logits, (-1, len(about["classes"])))])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and MLflow tell each other of their insides
        mlflow.pytorch.save_model(
            network,
            str(target),
            signature=signature,
            # Two of them, for a size of one would be taken for the only one.
            input_example=np.zeros((2, *shape), np.uint8),
            serialization_format="pt2",
            # Else MLflow loads the model in another process to find out.
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("mlflow", "torch", "numpy")],
            metadata={**about, "input": "uint8 pixels (n, C, H, W) as in the data set", "output": "logits"},
        )
