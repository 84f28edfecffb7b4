"""What training sees of its data: the figures that it normalises by, and an image on its way into a network."""

from __future__ import annotations

import numpy as np

from ablate.config import RunConfig
from ablate.data import augment, datasets, describe, picture
from ablate.data.augment import Augment
from ablate.data.describe import Description
from ablate.errors import StudyError
from ablate.training.randomness import FIXED_SPLIT, derive, generator

SHEET = 24
"""Augmented versions of the image that is shown."""


def split_seed(config: RunConfig) -> int:
    """Of the config's subset and validation split."""
    return derive(config.seed, "split") if config.data.split == "per-seed" else derive(0, FIXED_SPLIT)


def description(config: RunConfig) -> Description:
    """The data of a config, prepared if need be. Raises DataError."""
    return describe.describe(config.data, datasets.prepare(config.data), split_seed(config))


def default_augment(shape: tuple[int, int, int]) -> Augment:
    """Flip, and a crop by an eighth of the image: 4 pixels of 32, as is usual on CIFAR."""
    return Augment(flip=True, crop=max(1, min(shape[1:]) // 8))


def drawing(config: RunConfig, index: int, how: Augment | None = None) -> str:
    """Training image `index` as an SVG: beside its normalised channels with values, and under an augmentation.

    how: None is the default for images of this size. Raises DataError, or StudyError where there is no such image.
    """
    import torch

    dataset = datasets.prepare(config.data)
    if not 0 <= index < len(dataset.train_labels):
        raise StudyError(
            f"there is no training image {index}",
            place="--show",
            hint=f"0 to {len(dataset.train_labels) - 1} are there",
        )
    found = describe.describe(config.data, dataset, split_seed(config))
    image = dataset.train_images[index]
    channels = len(image)
    mean, deviation = (
        (found.mean, found.std) if config.data.normalize else ((0.0,) * channels, (1.0,) * channels)
    )
    how = default_augment(dataset.shape) if how is None else how
    copies = torch.from_numpy(np.repeat(image[None], SHEET, axis=0))
    augmented = augment.augment(copies, how, generator(config.seed, "augmentation"))
    said = ", ".join(
        name if value is True else f"{name} {value}"
        for name, value in how.model_dump(exclude={"mixup"}).items()
        if value
    )
    mixed = "; mixup is not drawn, because it takes two images" if how.mixup else ""
    name, kind = found.name, dataset.classes[dataset.train_labels[index]]
    return picture.svg(
        np.asarray(image),
        picture.normalised(np.asarray(image), mean, deviation),
        augmented.numpy(),
        title=f"{name}, training image {index}: {kind}",
        caption=f"the same under augmentation: {said or 'none'}{mixed}",
    )
