"""The parts of data that come divided, train, validation and test, put together as a data set is kept."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data.decode import few
from ablate.data.split import stratified
from ablate.errors import DataError, nearest
from ablate.text import counted, cut, joined, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ablate.data.options import DataOptions

TEST_SHARE = 0.2
"""Share of the training images that become the test set where the data have none."""

MOST_CLASSES = 1 << 16

NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    "test": "test",
    "testing": "test",
}
"""Name of a split, in small letters → which part it is."""


def part_of(name: str) -> str | None:
    """Return the part that a split or a folder of this name is, whatever its case; None where it is none."""
    return NAMES.get(name.strip().lower())


def existing(root: str, hint: str | None = None) -> Path:
    """Return the file or folder that `data.root` names; it may begin with `~`. Raises DataError where there is none."""
    try:
        top = Path(root).expanduser()
        if top.exists():
            return top
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{cut(visible(root), 200)} cannot be read: {reason}", place="data.root", hint=hint
        ) from error
    what = "is a link that leads nowhere" if top.is_symlink() else "does not exist"
    raise DataError(f"{visible(str(top))} {what}", place="data.root", hint=hint)


@dataclass(frozen=True)
class PartOrder:
    """Where each image of the parts goes. order: (N,) positions among the images of all parts, in the order train, validation,
    test: first those of the training set, whose last `validation` are its validation split, then `test` of the test set.
    notes: what to know of it, in sentences.
    """

    order: NDArray[np.int64]
    validation: int
    test: int
    notes: tuple[str, ...] = ()


def class_name(name: str) -> str:
    """Return the name of a class as it is kept: in one form of Unicode, with nothing in it that cannot be seen."""
    return unicodedata.normalize("NFC", visible(name))


def arrange(labels: Mapping[str, NDArray[np.int64]], classes: Sequence[str], place: str) -> PartOrder:
    """Put parts together, and hold out a fifth of the training images where there is no test set.

    labels: part → (n,) class indices. place: the field that messages name. Raises DataError.
    """
    train, validation, test = (labels.get(part, np.zeros(0, np.int64)) for part in PARTS)
    if len(train) == 0:
        raise DataError("there are no training images", place=place, hint="one split is called `train`")
    if len(classes) < 2:
        raise DataError(
            f"there is only one class, {classes[0]!r}",
            place=place,
            hint="a classification needs at least two classes",
        )
    if len(classes) > MOST_CLASSES:
        raise DataError(f"there are {len(classes):,} classes; at most {MOST_CLASSES:,}", place=place)
    for index, count in enumerate(np.bincount(train, minlength=len(classes))):
        if count == 0:
            raise DataError(f"the class {classes[index]!r} has no training image", place=place)
    every = np.arange(len(train) + len(validation) + len(test), dtype=np.int64)
    own = every[: len(train)]
    held_out = every[len(train) + len(validation) :]
    notes = []
    if len(test) == 0:
        least = 2 if len(validation) else 3
        counts = np.bincount(train, minlength=len(classes))
        if (counts < least).any():
            rare = int(np.argmax(counts < least))
            among = (
                ("training set", "test set")
                if least == 2
                else ("training set", "validation split", "test set")
            )
            raise DataError(
                f"class {classes[rare]!r} has {counted(int(counts[rare]), 'image')}: too few to have one in each part",
                place=place,
                hint=f"{joined(among)} each need at least one image of every class",
            )
        held_out = stratified(
            train,
            max(round(TEST_SHARE * len(train)), len(classes)),
            np.random.default_rng(0),
            keep=(1, least - 1),
            classes=classes,
            place=place,
        )
        notes.append(
            f"the data have no test set: {len(held_out):,} of {len(train):,} training images are held out as one"
        )
        own = np.setdiff1d(own, held_out)
    between = every[len(train) : len(train) + len(validation)]
    order = np.concatenate([own, between, held_out])
    return PartOrder(order, len(validation), len(held_out), tuple(notes))


def lacking_classes(labels: Mapping[str, NDArray[np.int64]], classes: Sequence[str]) -> tuple[str, ...]:
    """Return a note for each part, beside the training set, that has no image of some class. labels: as for `arrange`."""
    notes = []
    for part, own in labels.items():
        counts = np.bincount(own, minlength=len(classes))
        lacking = [name for name, count in zip(classes, counts, strict=True) if count == 0]
        if lacking and len(own):
            named = few(lacking, len(lacking))
            notes.append(f"{part} has no images of {counted(len(lacking), 'class', 'classes')}: {named}")
    return tuple(notes)


def check_share(config: DataOptions, total: int, classes: int) -> None:
    """Raise DataError, with the shares that are possible, where `data.validation` cannot give both parts an image of every class.

    total: training images of which that share is held out. classes: how many they have.
    """
    total = total if config.subset is None else min(total, config.subset)
    held_out = round(config.validation * total)
    if (
        classes <= held_out <= total - classes or total < 2 * classes
    ):  # of fewer images, the split says which class is rare
        return
    part = "to validate" if held_out < classes else "to train on"
    raise DataError(
        f"the share {config.validation:g} of {counted(total, 'image')} is {held_out:,}, which leaves some of the"
        f" {classes:,} classes without an image {part}",
        place="data.validation",
        hint=f"choose a share {_shares(classes, total - classes, total)}",
    )


def _shares(least: int, most: int, total: int) -> str:
    """Write the shares of `total` images that are, rounded, between `least` and `most` of them, in as few digits as will do."""
    for digits in range(1, 17):
        unit = 10**digits
        low, high = math.ceil(least * unit / total) / unit, math.floor(most * unit / total) / unit
        if least <= round(low * total) and round(high * total) <= most and 0 < low <= high < 1:
            return f"between {low:.{digits}f} and {high:.{digits}f}" if low < high else f"of {low:.{digits}f}"
    return f"of {least} / {total}"


PARTS = ("train", "validation", "test")


def indices(
    values: Mapping[str, Sequence[Any]], names: Sequence[str] | None, place: str
) -> tuple[dict[str, NDArray[np.int64]], tuple[str, ...]]:
    """Return part → class indices, and the classes' names.

    values: part → the label of every image: whole numbers from 0, or texts, which are sorted. names: of the classes, where the data
    tell; None: not told. Raises DataError.
    """
    names = None if names is None else [class_name(name) for name in names]
    twice = next((name for i, name in enumerate(names or ()) if name in (names or ())[:i]), None)
    if twice is not None:
        raise DataError(
            f"two classes are called {cut(twice)!r}", place=place, hint="every class has a name of its own"
        )
    kinds = {type(value) for part in values.values() for value in part}
    if bool in kinds or not (kinds <= {int} or kinds <= {str}):
        missing = type(None) in kinds
        raise DataError(
            "an image has no label" if missing else "labels are neither whole numbers nor texts",
            place=place,
            hint="every image has one label: a whole number from 0, or a text",
        )
    if kinds == {str}:
        spelled = {
            value: class_name(value) for value in {value for part in values.values() for value in part}
        }
        values = {part: [spelled[value] for value in each] for part, each in values.items()}
        classes = tuple(names or sorted({value for part in values.values() for value in part}))
        known = {name: index for index, name in enumerate(classes)}
        unknown = next((value for part in values.values() for value in part if value not in known), None)
        if unknown is not None:
            raise DataError(f"{unknown!r} is no class", place=place, hint=nearest(unknown, classes))
        numbers = {part: np.array([known[v] for v in each], np.int64) for part, each in values.items()}
        return numbers, classes
    numbers = {part: np.array(each, np.int64) for part, each in values.items()}
    largest = max((int(each.max()) for each in numbers.values() if len(each)), default=-1)
    smallest = min((int(each.min()) for each in numbers.values() if len(each)), default=0)
    if smallest < 0 or largest >= MOST_CLASSES or (names is not None and largest >= len(names)):
        limit = (
            f"{counted(len(names), 'class', 'classes')} are named"
            if names is not None
            else f"at most {MOST_CLASSES:,}"
        )
        raise DataError(
            f"labels go from {smallest} to {largest}; {limit}",
            place=place,
            hint="labels count the classes from 0; −1 is what some data sets write where there is none",
        )
    return numbers, tuple(names) if names is not None else tuple(map(str, range(largest + 1)))
