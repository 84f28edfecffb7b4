"""Images that an arm gets right where the reference does not, seed after seed, and the other way round."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.analysis import ClassChange, examples
from ablate.analysis.examples import under
from ablate.report.contents import ImageChanges, ImageShift, Thumbnail
from ablate.report.reading import Images, Reading

FEWEST_SEEDS = 3
MOST_SHOWN = 8
"""Images of an arm that are shown, of each kind."""

MOST_CLASSES = 3

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
    truth, names = _truth(reading.material.images, base)
    most = min(MOST_SHOWN, max(2, MOST_PICTURES // (2 * len(correct))))
    place = {int(index): position for position, index in enumerate(base.columns)}
    shifts = []
    for arm in reading.arms:
        if arm == reference or arm not in correct or not correct[arm].columns.equals(base.columns):
            continue
        found = examples(arm, reference, correct, truth, names)
        if found is None or len(found.seeds) < FEWEST_SEEDS:
            continue
        here, there = (under(of, found.seeds).mean(axis=0) for of in (correct[arm], base))
        fixes, breaks = (
            tuple(
                picture
                for index in changed[:most]
                if (picture := album.of(index, float(here[place[index]]), float(there[place[index]])))
            )
            for changed in ([image.index for image in images] for images in (found.fixed, found.broken))
        )
        shifts.append(
            ImageShift(
                arm,
                reading.label(arm),
                len(found.seeds),
                len(found.fixed),
                len(found.broken),
                fixes,
                breaks,
                found.by_chance,
                found.mcnemar,
                _clearest(found.classes) if names else (),
            )
        )
    if not any(shift.fixed or shift.broken for shift in shifts):
        return None
    return ImageChanges(reading.the(reference), base.shape[1], tuple(shifts))


def _clearest(classes: tuple[ClassChange, ...]) -> tuple[ClassChange, ...]:
    """The classes that changed the most, of those of which that can be said."""
    changed = [change for change in classes if change.consistent]
    return tuple(sorted(changed, key=lambda change: -abs(change.effect))[:MOST_CLASSES])


def _truth(images: Images | None, base: pd.DataFrame) -> tuple[npt.NDArray[Any], list[str]]:
    """Class numbers of the validation images, and the classes' names; all of one class where the images are gone."""
    index = base.columns.to_numpy()
    if images is None or not len(index) or index.max() >= len(images.labels):
        return np.zeros(len(index), dtype=np.int64), []
    return images.labels[index], [str(name) for name in images.classes]


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
