"""Prediction changes: images that an arm classifies correctly and its reference does not, and the other way round."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate.analysis import ClassChange, prediction_changes
from ablate.analysis.prediction_changes import ChangedImage
from ablate.report.contents import ImageChanges, ImageShift, Thumbnail
from ablate.report.reading import Reading
from ablate.study.seeds import NOISE_FLOOR

FEWEST_SEEDS = 3
MOST_SHOWN = 8
"""Images of an arm that are shown, of each kind."""

MOST_CLASSES = 3

MOST_PICTURES = 240
"""Images on a page, so that it stays small. Arms that come later have their counts only."""

SIDE = 48
"""Pixels: larger images are made smaller."""


def changes(reading: Reading) -> ImageChanges | None:
    """Return what every arm fixes and breaks, A/A first; None where predictions are not known image by image."""
    correct, study_reference, truth = (
        reading.material.correct,
        reading.rules.reference,
        reading.material.truth,
    )
    if study_reference not in correct:
        return None
    recorded = reading.arms[study_reference].data.classes
    classes = list(map(str, recorded if len(recorded) > truth.max(initial=0) else range(truth.max() + 1)))
    thumbnails = _Thumbnails(reading.material.pixels)
    most = min(MOST_SHOWN, max(2, MOST_PICTURES // (2 * len(correct))))
    shifts = []
    verdicts: dict[str, str] = {c.arm: c.verdict for c in reading.analysis.comparisons}
    for arm in (NOISE_FLOOR, *reading.arms):
        if arm == study_reference or arm not in correct:
            continue
        reference = (reading.arms[arm].reference if arm in reading.arms else None) or study_reference
        changes_of_arm = prediction_changes(arm, reference, correct, truth, classes)
        if changes_of_arm is None or len(changes_of_arm.seeds) < FEWEST_SEEDS:
            continue
        fixes, breaks = (
            tuple(picture for image in images[:most] if (picture := thumbnails.of(image)))
            for images in (changes_of_arm.fixed, changes_of_arm.broken)
        )
        shifts.append(
            ImageShift(
                arm,
                reading.label(arm),
                reading.the(reference),
                len(changes_of_arm.seeds),
                len(changes_of_arm.fixed),
                len(changes_of_arm.broken),
                fixes,
                breaks,
                changes_of_arm.by_chance,
                changes_of_arm.seldom_more,
                changes_of_arm.mcnemar,
                _clearest(changes_of_arm.classes),
                verdicts.get(arm, ""),
            )
        )
    return ImageChanges(reading.the(study_reference), len(truth), tuple(shifts)) if shifts else None


def _clearest(classes: tuple[ClassChange, ...]) -> tuple[ClassChange, ...]:
    """Return the classes that changed the most, among those whose interval excludes 0."""
    changed = [change for change in classes if change.consistent]
    return tuple(sorted(changed, key=lambda change: -abs(change.effect))[:MOST_CLASSES])


class _Thumbnails:
    """Makes thumbnails as long as there is room on the page."""

    def __init__(self, pixels: npt.NDArray[np.uint8] | None) -> None:
        self._pixels = pixels
        self._made: dict[int, str] = {}
        self._given = 0

    def of(self, image: ChangedImage) -> Thumbnail | None:
        index = image.index
        if self._pixels is None or index >= len(self._pixels) or self._given >= MOST_PICTURES:
            return None
        self._given += 1
        if index not in self._made:
            self._made[index] = picture(self._pixels[index])
        shares = image.right / image.of, image.reference_right / image.of
        return Thumbnail(index, self._made[index], image.truth, *shares)


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a small image as a data URI. pixels: (1 or 3, H, W)."""
    import PIL.Image

    plane: npt.NDArray[Any] = pixels[0] if len(pixels) != 3 else np.moveaxis(pixels, 0, -1)
    image = PIL.Image.fromarray(np.ascontiguousarray(plane))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    # A handful of pixels must not be blurred by a codec for photographs.
    kind: dict[str, Any] = {"lossless": True} if max(image.size) <= 16 else {"quality": 75}
    image.save(buffer, "WEBP", method=4, **kind)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
