"""Images that an arm gets right where the reference does not, seed after seed, and the other way round."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.report.contents import ImageChanges, ImageShift, Thumbnail
from ablate.report.reading import Images, Reading

CONSISTENT = 0.8
"""An image counts from here: the part of the seeds by which being right differs between arm and reference."""

FEWEST_SEEDS = 3
MOST_SHOWN = 8
"""Images of an arm that are shown, of each kind."""

MOST_PICTURES = 240
"""Images on a page, so that it stays small. Arms that come later have their counts only."""

SIDE = 48
"""Pixels: larger images are made smaller."""


def changes(reading: Reading) -> ImageChanges | None:
    """What every arm fixes and breaks; None where it is not known image by image."""
    correct, reference = reading.material.correct, reading.rules.reference
    if reference not in correct:
        return None
    base = correct[reference]
    album = _Album(reading.material.images)
    most = min(MOST_SHOWN, max(2, MOST_PICTURES // (2 * len(correct))))
    shifts = []
    for arm in reading.arms:
        if arm == reference or arm not in correct or not correct[arm].columns.equals(base.columns):
            continue
        mine = correct[arm]
        seeds = mine.index.intersection(base.index)
        if len(seeds) < FEWEST_SEEDS:
            continue
        here, there = (_share(of, seeds) for of in (mine, base))
        gain = here - there
        fixed, broken = (
            # The clearest first; of equals the one that comes first in the data set.
            order[: int((sign * gain >= CONSISTENT - 1e-9).sum())]
            for sign in (1, -1)
            for order in [np.argsort(-sign * gain, kind="stable")]
        )
        shown = []
        for places in (fixed, broken):
            ids = base.columns.to_numpy()[places[:most]]
            thumbnails = (
                album.of(int(i), float(here[p]), float(there[p])) for i, p in zip(ids, places, strict=False)
            )
            shown.append(tuple(t for t in thumbnails if t is not None))
        shifts.append(
            ImageShift(arm, reading.label(arm), len(seeds), len(fixed), len(broken), shown[0], shown[1])
        )
    if not any(shift.fixed or shift.broken for shift in shifts):
        return None
    return ImageChanges(reading.the(reference), base.shape[1], tuple(shifts))


def _share(of: pd.DataFrame, seeds: pd.Index) -> npt.NDArray[np.float64]:
    """(V,) part of the seeds that got each image right."""
    # On the array: pandas takes rows of a wide frame column by column.
    rows = of.to_numpy()[of.index.get_indexer(seeds)]
    share: npt.NDArray[np.float64] = rows.sum(axis=0, dtype=np.int32) / len(seeds)
    return share


class _Album:
    """Makes thumbnails as long as there is room on the page."""

    def __init__(self, images: Images | None) -> None:
        self._images = images
        self._made: dict[int, str] = {}
        self._given = 0

    def of(self, index: int, here: float, there: float) -> Thumbnail | None:
        if self._images is None or index >= len(self._images.pixels) or self._given >= MOST_PICTURES:
            return None
        self._given += 1
        if index not in self._made:
            self._made[index] = picture(self._images.pixels[index])
        label = int(self._images.labels[index])
        return Thumbnail(index, self._made[index], str(self._images.classes[label]), here, there)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """A small image as a data URI. pixels: (1 or 3, H, W)."""
    from PIL import Image

    plane: npt.NDArray[Any] = pixels[0] if len(pixels) != 3 else np.moveaxis(pixels, 0, -1)
    image = Image.fromarray(np.ascontiguousarray(plane))
    image.thumbnail((SIDE, SIDE))
    found = io.BytesIO()
    # A handful of pixels must not be blurred by a codec for photographs.
    kind: dict[str, Any] = {"lossless": True} if max(image.size) <= 16 else {"quality": 75}
    image.save(found, "WEBP", method=4, **kind)
    return "data:image/webp;base64," + base64.b64encode(found.getvalue()).decode()
