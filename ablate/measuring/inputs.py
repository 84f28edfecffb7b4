"""What training sees of its data: the figures that it normalises by, and an image on its way into a network."""

from __future__ import annotations

import numpy as np

from ablate.config import RunConfig
from ablate.data import augment, datasets, describe, picture
from ablate.data.augment import Augment
from ablate.data.describe import Description
from ablate.errors import StudyError
from ablate.training.builtin.randomness import generator, split_seed

SHEET = 24
"""Augmented versions of the image that is shown."""


def description(config: RunConfig) -> Description:
    """Describe the data of a config, which are prepared if need be. Raises DataError."""
    return describe.describe(config.data, datasets.prepare(config.data), _split_seed(config))


def _split_seed(config: RunConfig) -> int:
    return split_seed(config.seed, config.data.split)


def default_augment(shape: tuple[int, int, int]) -> Augment:
    """Return the usual augmentation: flip, and a crop by an eighth of the image: 4 pixels of 32, as is usual on CIFAR."""
    return Augment(flip=True, crop=max(1, min(shape[1:]) // 8))


def drawing(config: RunConfig, index: int, augmentation: Augment | None = None) -> str:
    """Draw training image `index` as an SVG: beside its normalised channels with values, and under an augmentation.

    augmentation: None is the default for images of this size. Raises DataError, or StudyError where there is no such image.
    """
    import torch

    dataset = datasets.prepare(config.data)
    if not 0 <= index < len(dataset.train_labels):
        raise StudyError(
            f"there is no training image {index}",
            place="--show",
            hint=f"0 to {len(dataset.train_labels) - 1} are there",
        )
    about = describe.describe(config.data, dataset, _split_seed(config))
    image = dataset.train_images[index]
    channels = len(image)
    mean, std = (about.mean, about.std) if config.data.normalize else ((0.0,) * channels, (1.0,) * channels)
    if augmentation is None:
        augmentation = default_augment(dataset.shape)
    copies = torch.from_numpy(np.repeat(image[None], SHEET, axis=0))
    augmented = augment.augment(copies, augmentation, generator(config.seed, "augmentation"))
    listed = ", ".join(
        name if value is True else f"{name} {value}"
        for name, value in augmentation.model_dump(exclude={"mixup"}).items()
        if value
    )
    mixed = "; mixup is not drawn, because it takes two images" if augmentation.mixup else ""
    name, kind = about.name, dataset.classes[dataset.train_labels[index]]
    return picture.svg(
        np.asarray(image),
        picture.normalised(np.asarray(image), mean, std),
        augmented.numpy(),
        title=f"{name}, training image {index}: {kind}",
        caption=f"the same under augmentation: {listed or 'none'}{mixed}",
    )
