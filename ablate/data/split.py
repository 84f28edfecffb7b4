"""The training and validation parts of a data set, and the statistics of the training part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ablate.data.datasets import Data

_CHUNK = 1024


def split(
    labels: NDArray[np.integer[Any]], config: Data, generator_seed: int, *, classes: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training and the validation images.

    labels: (N,) class indices of the training images → two sorted, disjoint arrays of indices into them, together
    `config.subset` (or N) long; the second is `config.validation` of that, rounded, and both hold the classes in the
    proportions of `labels` (largest remainder), at least one image each. The subset is drawn before the split; but for
    rounding, a larger subset under the same seed contains the smaller. classes: names for the messages.

    Raises DataError if there are fewer images than `subset`, or too few to give both parts one of each class.
    """
    total = len(labels)
    if config.subset is not None and config.subset > total:
        raise DataError(
            f"a subset of {config.subset:,} images out of {total:,}",
            place="data.subset",
            hint=f"at most {total:,}, or null for all of them",
        )
    # A stream each, so that a change of the subset shifts no draw of the split, and the other way round.
    for_subset, for_split = (np.random.default_rng([generator_seed, part]) for part in (0, 1))
    chosen = np.arange(total, dtype=np.int64)
    if config.subset is not None and config.subset < total:
        chosen = stratified(
            labels, config.subset, for_subset, keep=(2, 0), classes=classes, place="data.subset"
        )
    size = round(config.validation * len(chosen))
    inner = stratified(labels[chosen], size, for_split, keep=(1, 1), classes=classes, place="data.validation")
    held_out = np.zeros(len(chosen), dtype=bool)
    held_out[inner] = True
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
    """Sorted indices of `size` labels drawn without replacement, each class in proportion (largest remainder).

    keep: the least number of each class among those drawn and among those left. Raises DataError where that cannot be.
    """
    values, counts = np.unique(labels, return_counts=True)
    low, high = np.full_like(counts, keep[0]), counts - keep[1]
    if (low > high).any():
        rare = int(np.argmax(low > high))
        raise DataError(
            f"class {_name(values[rare], classes)} has {_images(counts[rare])}: too few to have one in each part",
            place=place,
            hint="training and validation each need at least one image of every class",
        )
    if not low.sum() <= size <= high.sum():
        side = "drawn" if size < low.sum() else "left"
        raise DataError(
            f"{_images(size)} out of {len(labels):,} cannot be drawn so that each of the {len(values)} classes has"
            f" {keep[0] if side == 'drawn' else keep[1]} among those {side}",
            place=place,
            hint=f"between {low.sum():,} and {high.sum():,} images can",
        )
    take = _apportion(counts, size, low, high)
    parts = [
        generator.permutation(np.flatnonzero(labels == v))[:n] for v, n in zip(values, take, strict=True)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _apportion(
    counts: NDArray[np.int64], size: int, low: NDArray[np.int64], high: NDArray[np.int64]
) -> NDArray[np.int64]:
    """`size` shared out in proportion to `counts`, within bounds: whole parts first, then the largest remainders."""
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
    """Mean and standard deviation of each channel over the images at `idx`, pixels scaled to [0, 1].

    images: (N, C, H, W) uint8 → two arrays (C,) of population statistics. A channel that never varies has deviation 1, so that dividing by it is
    harmless. Sums are of whole numbers, so the answer is exact whatever the order.
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
    # Whole numbers up to here: the difference of two large floats would not be zero for a constant channel.
    variance = np.array(
        [pixels * int(s) - int(t) ** 2 for s, t in zip(squares, total, strict=True)], dtype=object
    )
    deviation = np.sqrt(variance.astype(np.float64)) / pixels
    deviation[deviation == 0] = 255
    return (mean / 255).astype(np.float32), (deviation / 255).astype(np.float32)


def _name(value: Any, classes: Sequence[str]) -> str:
    return repr(classes[value]) if value < len(classes) else str(value)


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
