"""A saved network as MLflow's own kind of model, which `mlflow.pytorch.load_model("runs:/ID/model")` loads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "model"
"""Folder among the artifacts of a run; the name in `runs:/ID/model`."""


def write(file: Path, tree: Mapping[str, Any], target: Path) -> None:
    """Write the network whose weights training left in `file` into the folder `target`.

    It is a traced graph (`pt2`): loading one runs no code of its author, and needs no ablate. tree: the run's config as plain
    values. Raises whatever keeps torch from tracing the network.
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
        warnings.simplefilter("ignore")  # about internals of torch and MLflow
        mlflow.pytorch.save_model(
            network,
            str(target),
            signature=signature,
            # Two images: a batch of one would be taken for a fixed batch size.
            input_example=np.zeros((2, *shape), np.uint8),
            serialization_format="pt2",
            # Without a list MLflow loads the model in another process to find the packages.
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("mlflow", "torch", "numpy")],
            metadata={**about, "input": "uint8 pixels (n, C, H, W) as in the data set", "output": "logits"},
        )
