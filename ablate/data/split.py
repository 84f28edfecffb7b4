"""The split of a data set into training and validation images, and the pixel statistics of the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.errors import DataError
from ablate.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ablate.data.options import DataOptions

_CHUNK = 1024


def split(
    labels: NDArray[np.integer[Any]],
    config: DataOptions,
    generator_seed: int,
    *,
    classes: Sequence[str] = (),
    own_validation: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the training images and those of the validation images.

    labels: (N,) class indices of the training images → two sorted, disjoint arrays of indices into them, together
    `config.subset` (or N) long. The second is the share `config.validation` of that, rounded. Both have the classes in the
    proportions of `labels` (largest remainder), at least one image of each. The subset is drawn before the split; apart from
    rounding, a larger subset under the same seed contains the smaller one. classes: names for the messages. own_validation: how
    many of the images, the last, the data bring as their validation split: those are it then, whatever `config.validation`.

    Raises DataError if there are fewer images than `subset`, or too few to give both parts an image of each class.
    """
    total = len(labels) - own_validation
    if config.subset is not None and config.subset > total:
        raise DataError(
            f"a subset of {config.subset:,} of {total:,} images is impossible",
            place="data.subset",
            hint=f"choose at most {total:,}, or null for all of them",
        )
    # One random stream for each, so that a change of the subset changes no draw of the split, and vice versa.
    subset_generator, split_generator = (np.random.default_rng([generator_seed, part]) for part in (0, 1))
    chosen = np.arange(total, dtype=np.int64)
    if config.subset is not None and config.subset < total:
        least = 1 if own_validation else 2
        chosen = stratified(
            labels[:total],
            config.subset,
            subset_generator,
            keep=(least, 0),
            classes=classes,
            place="data.subset",
        )
    if own_validation:
        return chosen, np.arange(total, len(labels), dtype=np.int64)
    size = round(config.validation * len(chosen))
    positions = stratified(
        labels[chosen], size, split_generator, keep=(1, 1), classes=classes, place="data.validation"
    )
    held_out = np.zeros(len(chosen), dtype=bool)
    held_out[positions] = True
    return chosen[~held_out], chosen[held_out]


def stratified(
    labels: NDArray[np.integer[Any]],
    size: int,
    generator: np.random.Generator,
    *,
    keep: tuple[int, int] = (1, 1),
    classes: Sequence[str] = (),
    place: str | None = None,
) -> NDArray[np.int64]:
    """Return sorted indices of `size` labels drawn without replacement, each class in proportion (largest remainder).

    keep: the least number of each class among those drawn, and among the rest. classes: names for the messages. place: the
    field that a message names. Raises DataError where that is impossible.
    """
    values, counts = np.unique(labels, return_counts=True)
    low, high = np.full_like(counts, keep[0]), counts - keep[1]
    if (low > high).any():
        rare = int(np.argmax(low > high))
        raise DataError(
            f"class {_name(values[rare], classes)} has {counted(int(counts[rare]), 'image')}: too few to have one in each part",
            place=place,
            hint="training and validation each need at least one image of every class",
        )
    if not low.sum() <= size <= high.sum():
        part = f"{keep[0]} among those drawn" if size < low.sum() else f"{keep[1]} among the rest"
        raise DataError(
            f"{counted(size, 'image')} of {len(labels):,} cannot be drawn so that each of the {len(values)} classes has {part}",
            place=place,
            hint=f"choose a number of images between {low.sum():,} and {high.sum():,}",
        )
    take = _apportion(counts, size, low, high)
    parts = [
        generator.permutation(np.flatnonzero(labels == v))[:n] for v, n in zip(values, take, strict=True)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _apportion(
    counts: NDArray[np.int64], size: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Divide `size` in proportion to `counts`, within bounds: whole parts first, then by the largest remainders."""
    quota = size * counts / counts.sum()
    share: NDArray[np.int64] = np.clip(np.floor(quota).astype(np.int64), low, high)
    while share.sum() < size:
        share[np.argmax(np.where(share < high, quota - share, -np.inf))] += 1
    while share.sum() > size:
        share[np.argmin(np.where(share > low, quota - share, np.inf))] -= 1
    return share


def normalization(
    images: NDArray[np.uint8], idx: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each channel over the images at `idx`, pixels scaled to [0, 1].

    images: (N, C, H, W) uint8 → two arrays (C,) of population statistics. The standard deviation of a constant channel is
    given as 1, so that dividing by it does no harm. Sums are of integers, so the result is exact in whatever order.
    """
    channels = images.shape[1]
    total, squares = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.int64)
    values = np.arange(256)
    for start in range(0, len(idx), _CHUNK):
        chunk = images[idx[start : start + _CHUNK]]
        for channel in range(channels):
            histogram = np.bincount(chunk[:, channel].ravel(), minlength=256)
            total[channel] += histogram @ values
            squares[channel] += histogram @ values**2
    pixels = len(idx) * images.shape[2] * images.shape[3]
    mean = total / pixels
    # In integers up to here: the difference of two large floats would not be exactly 0 for a constant channel.
    variance = np.array(
        [pixels * int(s) - int(t) ** 2 for s, t in zip(squares, total, strict=True)], dtype=object
    )
    std = np.sqrt(variance.astype(np.float64)) / pixels
    std[std == 0] = 255
    return (mean / 255).astype(np.float32), (std / 255).astype(np.float32)


def _name(value: Any, classes: Sequence[str]) -> str:
    return repr(classes[value]) if value < len(classes) else str(value)
