"""Classification metrics, all from one confusion matrix."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_NUMBERED = 40
"""Classes up to which a picture of a confusion matrix shows its counts as numbers."""


def confusion_matrix(
    truth: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Count pairs of classes: truth, predicted (n,) class indices → (classes, classes) counts; rows are the truth, columns the prediction."""
    return np.bincount(truth.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(
        classes, classes
    )


@dataclass(frozen=True)
class Scores:
    """All in [0, 1]. per_class: (classes,) recall of each class, which is its accuracy. balanced_accuracy: its mean over the classes
    that occur; `recall_macro` is that over all classes.
    """

    accuracy: float
    precision_macro: float
    recall_macro: float
    f1_macro: float
    balanced_accuracy: float
    per_class: tuple[float, ...]


def scores(confusion: npt.NDArray[np.int64]) -> Scores:
    """Return the scores of a confusion matrix. A class that is never predicted has precision 0, as in scikit-learn."""
    correct = np.diag(confusion).astype(np.float64)
    precision = _ratio(correct, confusion.sum(axis=0))
    recall = _ratio(correct, confusion.sum(axis=1))
    occurs = confusion.sum(axis=1) > 0
    f1 = _ratio(2 * precision * recall, precision + recall)
    return Scores(
        accuracy=float(correct.sum() / max(confusion.sum(), 1)),
        precision_macro=float(precision.mean()),
        recall_macro=float(recall.mean()),
        f1_macro=float(f1.mean()),
        balanced_accuracy=float(recall[occurs].mean()) if occurs.any() else 0.0,
        per_class=tuple(recall.tolist()),
    )


def _ratio(
    top: npt.NDArray[np.float64], bottom: npt.NDArray[np.float64 | np.int64]
) -> npt.NDArray[np.float64]:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)


def confusion_svg(confusion: npt.NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Draw a confusion matrix as SVG: rows are the truth; each row is shaded by its share.

    With more than MOST_NUMBERED classes only the shades are drawn: a thousand classes would make a million unreadable numbers.
    """
    numbers = len(classes) <= MOST_NUMBERED
    cell, left, top = (36 if numbers else 12), 110, 110
    side = cell * len(classes)
    shares = _ratio(
        confusion.astype(np.float64), confusion.sum(axis=1, keepdims=True).repeat(len(classes), 1)
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + side + 10}" height="{top + side + 10}" '
        f'font-family="sans-serif" font-size="{11 if numbers else 10}">'
        '<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{left + side / 2}" y="14" text-anchor="middle">predicted</text>'
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">truth</text>'
    )
    parts = [head]
    for i, name in enumerate(classes):
        at = i * cell + cell / 2
        label = html.escape(name)
        parts.append(f'<text x="{left - 6}" y="{top + at + 4}" text-anchor="end">{label}</text>')
        parts.append(f'<text transform="translate({left + at + 4} {top - 6}) rotate(-60)">{label}</text>')
        for j in range(len(classes)) if numbers else np.flatnonzero(confusion[i]):
            share = shares[i, j]
            parts.append(
                f'<rect x="{left + j * cell}" y="{top + i * cell}" width="{cell - 1}" height="{cell - 1}" '
                f'fill="#1f5fa8" fill-opacity="{share:.3f}"/>'
            )
            if numbers:
                parts.append(
                    f'<text x="{left + j * cell + cell / 2}" y="{top + i * cell + cell / 2 + 4}" '
                    f'text-anchor="middle" fill="{"white" if share > 0.5 else "#333"}">{confusion[i, j]}</text>'
                )
    return "".join(parts) + "</svg>"
