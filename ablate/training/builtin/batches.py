"""Images of a split, normalised and in batches; and the augmented batches that a network is trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ablate.config import RunConfig
from ablate.data import augment, datasets
from ablate.data.datasets import Dataset
from ablate.training.builtin import losses
from ablate.training.builtin.randomness import split_seed

EVALUATION_BATCH = {"cpu": 250, "cuda": 1000}
"""Images of a batch in evaluation, by kind of device. Larger batches are no faster on a CPU, and inception at its full width fills
gigabytes with them."""

AHEAD = 1 << 28
"""Bytes of augmented, normalised images that a GPU makes at once, of small data a whole epoch's: few large operations for many small
ones. A CPU makes a batch at a time, which stays in its caches."""


def evaluation_batch(device: torch.device) -> int:
    """Return the number of images of a batch in evaluation on `device`."""
    return EVALUATION_BATCH.get(device.type, 250)


class Pixels:
    """Images of one split, ready to be batched. On a GPU they are resident there; on a CPU they stay mapped.

    images: (N, C, H, W) uint8, best as `Dataset` has them in memory. index: (n,) which of them. mean, std: (C,) in units of [0, 1].
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        index: np.ndarray[Any, Any],
        mean: np.ndarray[Any, Any],
        std: np.ndarray[Any, Any],
        device: torch.device,
    ) -> None:
        # (N, H, W, C): channels last in memory, whatever the shape says.
        self._images = images.transpose(0, 2, 3, 1)
        self._labels, self._index, self.device = labels, index, device
        # (x/255 − mean)/std as one multiply-add, over rows of (width, C) values: long enough for vector instructions.
        width = images.shape[-1]
        self._scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device).repeat(width)
        self._shift = torch.tensor(-mean / std, dtype=torch.float32, device=device).repeat(width)
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu":
            self._resident = (
                torch.from_numpy(self._images[index]).to(device),
                torch.from_numpy(labels[index]).to(device),
            )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as `normalised` makes it."""
        return 4 * int(math.prod(self._images.shape[1:]))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """index: (b,) int64 on the CPU → (b, C, H, W) uint8, channels last, and (b,) int64, on the device."""
        if self._resident is not None:
            positions = index.to(self.device, non_blocking=True)
            images, labels = self._resident[0][positions], self._resident[1][positions]
        else:
            rows = self._index[index.numpy()]
            images, labels = torch.from_numpy(self._images[rows]), torch.from_numpy(self._labels[rows])
        return images.permute(0, 3, 1, 2), labels

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the whole split in order, in batches for evaluation: normalised images and labels."""
        for index in torch.split(torch.arange(len(self)), evaluation_batch(self.device)):
            images, labels = self.batch(index)
            yield self.normalised(images), labels

    def normalised(self, images: Tensor) -> Tensor:
        """(b, C, H, W) uint8 → normalised float32 in channels_last order."""
        wide = images.to(torch.float32, memory_format=torch.channels_last).permute(0, 2, 3, 1)
        scaled = torch.addcmul(self._shift, wide.reshape(*wide.shape[:2], -1), self._scale)
        return scaled.view(wide.shape).permute(0, 3, 1, 2)


class Splits:
    """The training, validation and test images of a run, normalised by its training split.

    mean, std: (C,) in units of [0, 1]. val_index: (n,) indices of the validation images among the data set's training images.
    """

    def __init__(self, config: RunConfig, data: Dataset, device: torch.device) -> None:
        train_index, self.val_index = datasets.split(
            data.train_labels,
            config.data,
            split_seed(config.seed, config.data.split),
            own_validation=data.validation,
        )
        mean, std = (
            datasets.normalization(data.train_images, train_index)
            if config.data.normalize
            else (np.zeros(data.shape[0]), np.ones(data.shape[0]))
        )
        self.mean: np.ndarray[Any, Any] = mean
        self.std: np.ndarray[Any, Any] = std
        self._data, self._device = data, device
        self.classes, self.shape = data.classes, data.shape
        self.training = self._pixels(data.train_images, data.train_labels, train_index)
        self.validation = self._pixels(data.train_images, data.train_labels, self.val_index)

    def test(self) -> Pixels:
        """Return the test images. Made at the end of a run: until then a device need not hold them."""
        every = np.arange(len(self._data.test_labels))
        return self._pixels(self._data.test_images, self._data.test_labels, every)

    def _pixels(
        self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], index: np.ndarray[Any, Any]
    ) -> Pixels:
        return Pixels(images, labels, index, self.mean, self.std, self._device)


def augmented_batches(
    config: RunConfig,
    streams: Mapping[str, torch.Generator],
    training: Pixels,
    order: Tensor,
    classes: int,
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Yield training images in an order, augmented and in batches, and their targets, as `Learner.step` takes them.

    streams: as `randomness.batch_streams`. order: (n,) int64 on the CPU. The last of the three is whether nothing has been drawn
    beyond this batch: the streams then stand where training does, and may be saved.
    """
    size = config.training.batch_size
    at_once = 1 if training.device.type == "cpu" else max(1, AHEAD // (size * training.image_bytes))
    # `split` makes an empty part of an empty order.
    for part in torch.split(order, size * at_once) if len(order) else ():
        images, labels = training.batch(part)
        images = training.normalised(augment.augment(images, config.augment, streams))
        pairs = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
        for number, (pixels, targets) in enumerate(pairs, 1):
            is_last_drawn = number == len(pairs)
            if config.augment.mixup:
                drawn = augment.draw_mixup(len(pixels), config.augment.mixup, streams["mixup"])
                mixed = augment.mixup(losses.probabilities(targets, classes), *drawn)
                yield augment.mixup(pixels, *drawn), mixed, is_last_drawn
            else:
                yield pixels, targets, is_last_drawn
