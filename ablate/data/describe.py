"""What a data set holds, as training will meet it: sizes, classes, balance, mean and deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data import datasets
from ablate.data.datasets import Data, Dataset, ImageFolder, Presence

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Description:
    """counts: class → images in (train, validation, test). mean, deviation: a figure for each channel, of the training
    split, pixels scaled to [0, 1]; what `normalize` subtracts and divides by.
    """

    name: str
    shape: tuple[int, int, int]
    train: int
    validation: int
    test: int
    counts: Mapping[str, tuple[int, int, int]]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    normalize: bool
    fingerprint: str

    @property
    def imbalance(self) -> float:
        """Images of the most frequent class for one of the rarest, in the training split."""
        train = [count for count, _, _ in self.counts.values()]
        return max(train) / min(train)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"imbalance": self.imbalance}


def describe(config: Data, dataset: Dataset, split_seed: int) -> Description:
    """split_seed: of the run that is described. Raises DataError where the split cannot be made."""
    train, validation = datasets.split(dataset.train_labels, config, split_seed, classes=dataset.classes)
    mean, deviation = datasets.normalization(dataset.train_images, train)
    parts = (dataset.train_labels[train], dataset.train_labels[validation], dataset.test_labels)
    counts = [np.bincount(labels, minlength=len(dataset.classes)).tolist() for labels in parts]
    return Description(
        name=str(config.model_dump()["name"]),
        shape=dataset.shape,
        train=len(train),
        validation=len(validation),
        test=len(dataset.test_labels),
        counts=dict(zip(dataset.classes, zip(*counts, strict=True), strict=True)),
        mean=_figures(mean),
        deviation=_figures(deviation),
        normalize=bool(config.normalize),
        fingerprint=dataset.fingerprint,
    )


def _figures(values: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


MOST_CLASSES = 20
"""Classes that are listed one by one in a terminal; `--json` lists all."""


def text(found: Description) -> str:
    """A description for a terminal."""
    channels, height, width = found.shape
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    columns = [["class", "train", "validation", "test"]]
    columns += [[name, *(f"{n:,}" for n in counts)] for name, counts in found.counts.items()]
    shown = columns[: MOST_CLASSES + 1]
    widths = [max(len(row[i]) for row in shown) for i in range(4)]
    lines = [
        f"{found.name}: {found.train:,} training, {found.validation:,} validation and {found.test:,} test images",
        f"images      {width}×{height} pixels, {kind}",
        f"classes     {len(found.counts)}, the most frequent {found.imbalance:.2f} times as frequent as the rarest",
        f"mean        {_row(found.mean)}   of the training images, pixels in [0, 1]",
        f"deviation   {_row(found.deviation)}   "
        + (
            "images are normalised by these"
            if found.normalize
            else "images are not normalised (data.normalize)"
        ),
        f"content     {found.fingerprint[:16]}",
        "",
        *(
            "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))])
            for row in shown
        ),
    ]
    if len(columns) > len(shown):
        lines.append(f"… and {len(columns) - len(shown)} more classes (--json lists them)")
    return "\n".join(lines)


def _row(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4f}" for value in values)


@dataclass(frozen=True)
class Known:
    """A data set by name. presence: None where that depends on a `root` that is not given."""

    name: str
    about: str
    presence: Presence | None


def listing(cache: Path | None = None) -> tuple[Known, ...]:
    """Every data set, and whether it is on this machine."""
    return tuple(
        Known(
            name,
            (kind.__doc__ or "").partition("\n")[0],
            None if kind is ImageFolder else datasets.presence(kind(), cache),
        )
        for name, kind in datasets.named().items()
    )


def listing_text(rows: tuple[Known, ...]) -> str:
    wide = max(len(row.name) for row in rows)
    state = max(len(row.presence or _YOURS) for row in rows)
    return "\n".join(f"{row.name:{wide}}  {row.presence or _YOURS:{state}}  {row.about}" for row in rows)


_YOURS = "yours"
