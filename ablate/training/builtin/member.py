"""One run of a training loop: its config, what it carries from epoch to epoch, and its result."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate.config import RunConfig
from ablate.models import table
from ablate.training.builtin import metrics
from ablate.training.builtin.batches import Splits
from ablate.training.builtin.best import Best
from ablate.training.builtin.evaluation import Evaluation
from ablate.training.builtin.learner import Weighted
from ablate.training.outcome import Result, Trace


@dataclass(frozen=True)
class CountedEpoch:
    """The epoch that counts by the checkpoint rule. weights: None while they are still those of the network."""

    number: int
    evaluation: Evaluation
    weights: Any


class Member:
    """A run in training.

    run: its key. epoch: how many are done. counted: None before the first epoch. lowest, stalled: for early
    stopping, the val/loss that others are compared with, and how many epochs in a row were not lower. best: None where no network is
    to be saved. history: the metrics of every epoch that is done. seconds: its share of the time. fused: how it shares batches
    with others, for the record; None where it trains alone.
    """

    def __init__(self, run: str, config: RunConfig, summary: table.ModelSummary, best: Best | None) -> None:
        self.run, self.config, self.summary, self.best = run, config, summary, best
        self.trace = Trace()
        self.epoch = 0
        self.counted: CountedEpoch | None = None
        self.lowest, self.stalled = math.inf, 0
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self.fused: str | None = None

    def end_epoch(self, evaluation: Evaluation, network: Weighted) -> None:
        """Count an epoch that ended with `evaluation` on the validation split."""
        training = self.config.training
        self.epoch += 1
        if training.checkpoint == "last":
            self.counted = CountedEpoch(self.epoch, evaluation, None)
        elif self.counted is None or evaluation.loss < self.counted.evaluation.loss:
            self.counted = CountedEpoch(self.epoch, evaluation, network.weights())
        if self.best is not None and self.best.is_better(evaluation):
            self.best.take(self.epoch, evaluation, network.weights())
        if evaluation.loss < self.lowest - training.min_delta:
            self.lowest, self.stalled = evaluation.loss, 0
        else:
            self.stalled += 1

    @property
    def is_stopped_early(self) -> bool:
        training = self.config.training
        return (
            self.epoch < training.epochs
            and training.patience is not None
            and self.stalled >= training.patience
        )

    @property
    def is_done(self) -> bool:
        """Whether training is over, and the test set is next."""
        return self.epoch == self.config.training.epochs or self.is_stopped_early

    def save(self) -> dict[str, Any]:
        """Return what the run carries as tensors and plain values, for `load`."""
        counted = self.counted and (
            self.counted.number,
            self.counted.evaluation.to_plain(),
            self.counted.weights,
        )
        return {name: getattr(self, name) for name in self._PLAIN} | {
            "trace": self.trace.link.hex(),
            "counted": counted,
            "best": self.best and self.best.save(),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Resume from what `save` returned."""
        for name in self._PLAIN:
            setattr(self, name, saved[name])
        self.trace.link = bytes.fromhex(saved["trace"])
        if saved["counted"] is not None:
            number, evaluation, weights = saved["counted"]
            self.counted = CountedEpoch(number, Evaluation.from_plain(evaluation), weights)
        if self.best is not None and saved["best"] is not None:
            self.best.load(saved["best"])

    _PLAIN = ("epoch", "lowest", "stalled", "history", "seconds", "fused")

    def diverged(self) -> Result:
        """Return the result of a run whose loss was not finite in the epoch after those that are done."""
        epoch = self.epoch + 1
        reason = {"reason": f"loss not finite in epoch {epoch}"}
        return Result(True, epoch, self._costs(), {}, self.trace.facts() | reason)

    def finished(self, splits: Splits, tested: Evaluation, weights: str) -> Result:
        """Return the result of a run that trained to its end.

        tested: on the test set, with the weights that count. weights: their digest.
        """
        counted = self.counted
        assert counted is not None
        scores = metrics.scores(tested.confusion)
        files = {
            "config.json": json.dumps(self.config.tree(), indent=2).encode(),
            "layers.json": json.dumps([vars(row) for row in self.summary.rows]).encode(),
            "confusion_matrix.json": json.dumps(
                {
                    "classes": splits.classes,
                    "counts": tested.confusion.tolist(),
                    "per_class_accuracy": scores.per_class,
                }
            ).encode(),
            "confusion_matrix.svg": metrics.confusion_svg(tested.confusion, splits.classes).encode(),
            "predictions.npz": _npz(
                val_index=splits.val_index.astype(np.int32),
                val_truth=counted.evaluation.truth,
                val_predicted=counted.evaluation.predicted,
                test_truth=tested.truth,
                test_predicted=tested.predicted,
                **_top(val=counted.evaluation, test=tested),
            ),
        }
        facts = self.trace.facts() | {"weights": weights}
        if self.is_stopped_early:
            facts["stopped"] = f"early, after epoch {self.epoch}: no lower val/loss in {self.stalled} epochs"
        model = None
        if self.best is not None:
            model, facts["model"] = self.best.write(
                splits.shape, splits.mean, splits.std, splits.classes, counted.number
            )
        return Result(False, counted.number, tested.metrics("test") | self._costs(), files, facts, model)

    def _costs(self) -> dict[str, float]:
        return {
            "time/train_seconds": self.seconds,
            "model/parameters": self.summary.parameters,
            "model/flops": self.summary.flops,
        }


def _top(**evaluations: Evaluation) -> dict[str, np.ndarray[Any, Any]]:
    """Return whether each image's true class is among the likeliest, by the name of the array; nothing for few classes."""
    return {f"{split}_in_top5": e.in_top for split, e in evaluations.items() if e.in_top is not None}


def _npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
