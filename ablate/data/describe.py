"""Facts about a data set as training uses it: sizes, classes, balance, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data import datasets
from ablate.data.datasets import DATASETS, DataOptions, Dataset, Presence


@dataclass(frozen=True)
class Description:
    """A data set and its split.

    counts: class → images in (train, validation, test). mean, std: one number for each channel, over the training split,
    pixels scaled to [0, 1]; `normalize` subtracts and divides by them. notes: what of the data is not used, or not as it is.
    """

    name: str
    shape: tuple[int, int, int]
    train: int
    validation: int
    test: int
    counts: Mapping[str, tuple[int, int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalize: bool
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def imbalance(self) -> float:
        """Return how many times as frequent the most frequent class is as the rarest, in the training split."""
        train = [count for count, _, _ in self.counts.values()]
        return max(train) / min(train)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the standard deviation stands under `deviation`, its name in `ablate data --json`."""
        values = {"deviation" if name == "std" else name: value for name, value in asdict(self).items()}
        return values | {"imbalance": self.imbalance}


def describe(config: DataOptions, dataset: Dataset, split_seed: int) -> Description:
    """Describe a data set split under `split_seed`. Raises DataError where the split is impossible."""
    train, validation = datasets.divided(dataset, config, split_seed)
    mean, std = datasets.normalization(dataset.train_images, train)
    parts = (dataset.train_labels[train], dataset.train_labels[validation], dataset.test_labels)
    counts = [np.bincount(labels, minlength=len(dataset.classes)).tolist() for labels in parts]
    return Description(
        name=str(config.model_dump()["name"]),
        shape=dataset.shape,
        train=len(train),
        validation=len(validation),
        test=len(dataset.test_labels),
        counts=dict(zip(dataset.classes, zip(*counts, strict=True), strict=True)),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        normalize=bool(config.normalize),
        fingerprint=dataset.fingerprint,
        notes=dataset.notes,
    )


MOST_CLASSES = 20
"""Most classes that the terminal lists; `--json` lists all of them."""


def text(description: Description) -> str:
    """Return a description as lines for a terminal."""
    channels, height, width = description.shape
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    columns = [["class", "train", "validation", "test"]]
    columns += [[name, *(f"{n:,}" for n in counts)] for name, counts in description.counts.items()]
    shown = columns[: MOST_CLASSES + 1]
    widths = [max(len(row[i]) for row in shown) for i in range(4)]
    lines = [
        f"{description.name}: {description.train:,} training, {description.validation:,} validation and {description.test:,} test images",
        f"images      {width}×{height} pixels, {kind}",
        f"classes     {len(description.counts)}, the most frequent {description.imbalance:.2f} times as frequent as the rarest",
        f"mean        {_row(description.mean)}   of the training images, pixels in [0, 1]",
        f"std         {_row(description.std)}   "
        + (
            "images are normalised by these"
            if description.normalize
            else "images are not normalised (data.normalize)"
        ),
        f"content     {description.fingerprint[:16]}",
        *(f"note        {note}" for note in description.notes),
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
class ListedDataset:
    """A data set as `ablate data` lists it. presence: None where it depends on a `root` that is not given."""

    name: str
    about: str
    presence: Presence | None


def listing(cache: Path | None = None) -> tuple[ListedDataset, ...]:
    """Return every data set, and whether it is on this machine."""
    return tuple(
        ListedDataset(
            name,
            (kind.__doc__ or "").partition("\n")[0],
            None
            if any(field.is_required() for field in kind.model_fields.values())
            else datasets.presence(kind(), cache),
        )
        for name, kind in DATASETS.items()
    )


def listing_text(rows: tuple[ListedDataset, ...]) -> str:
    """Return the listing as lines for a terminal."""
    wide = max(len(row.name) for row in rows)
    state = max(len(row.presence or _YOURS) for row in rows)
    return "\n".join(f"{row.name:{wide}}  {row.presence or _YOURS:{state}}  {row.about}" for row in rows)


_YOURS = "yours"
