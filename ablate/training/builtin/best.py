"""The weights of a run's best epoch, saved for users who want the network itself: `training.save_model: best`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.training.builtin.evaluation import Evaluation


class Best:
    """The best epoch so far. metric: a study's; its counterpart on the validation split is what counts, of which more is better
    unless it is `val/loss`. Of equal epochs the later counts. file: where the weights are to be written.
    """

    def __init__(self, metric: str, file: Path) -> None:
        self.metric = "val/" + metric.partition("/")[2]
        self._file = file
        self.epoch = 0
        self.loss, self.accuracy = float("inf"), -1.0
        self.value = float("inf") if self.metric == "val/loss" else -1.0
        self._weights: Any = None

    def is_better(self, evaluation: Evaluation) -> bool:
        """Return whether an epoch's evaluation is at least as good as the best so far."""
        value = evaluation.metrics("val")[self.metric]
        return value <= self.value if self.metric == "val/loss" else value >= self.value

    def take(self, epoch: int, evaluation: Evaluation, weights: Any) -> None:
        """Make an epoch the best. weights: a copy that nobody changes, as a `state_dict`."""
        self.epoch, self.loss, self.accuracy = epoch, evaluation.loss, evaluation.accuracy
        self.value = evaluation.metrics("val")[self.metric]
        self._weights = weights

    def save(self) -> dict[str, Any]:
        """Return the best epoch as tensors and plain values, for `load`."""
        return {name: value for name, value in vars(self).items() if name not in ("metric", "_file")}

    def load(self, saved: Mapping[str, Any]) -> None:
        vars(self).update(saved)

    def write(
        self,
        shape: tuple[int, int, int],
        mean: np.ndarray[Any, Any],
        std: np.ndarray[Any, Any],
        classes: tuple[str, ...],
        tested: int,
    ) -> tuple[str | None, str]:
        """Write the file. Returns its path, None where that failed, and a note for the record.

        shape: (C, H, W) of an image. mean, std: (C,) in units of [0, 1], what training took off the pixels and divided them by. classes: names, in the order
        of the outputs. tested: the epoch whose weights met the test set.
        """
        note = f"epoch {self.epoch}, {self.metric} {self.value:.4g}"
        note += "" if tested == self.epoch else f"; the test metrics are those of epoch {tested}"
        about = {"epoch": self.epoch, "val/loss": self.loss, "val/accuracy": self.accuracy, "tested": tested}
        content = {
            "weights": {name: tensor.cpu() for name, tensor in self._weights.items()},
            "mean": torch.tensor(mean, dtype=torch.float64),
            "std": torch.tensor(std, dtype=torch.float64),
            "about": json.dumps(about | {"classes": list(classes), "shape": list(shape)}),
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside = self._file.with_suffix(".tmp")
            torch.save(content, aside)
            aside.replace(self._file)
        except (OSError, RuntimeError) as error:
            # torch turns a full disk into a RuntimeError. The result stands without its network.
            return None, f"not saved: {getattr(error, 'strerror', None) or str(error).partition(chr(10))[0]}"
        return str(self._file), note
