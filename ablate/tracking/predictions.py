"""What finished runs predicted for each image, and a cache of it on disk.

A run leaves its predictions as artifacts, two small files. Thousands of them take longer to open than to read, so what the report
needs of them is kept in one file: a confusion matrix of the test images, and a bit for every validation and test image.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablate.tracking.arrays import ArrayFile, Arrays, DamagedError, check_whole, read_arrays
from ablate.tracking.columns import write_whole

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 3
"""Part of the file's name: raise it when the arrays or their meaning change."""

FILES = ("confusion_matrix.json", "predictions.npz")
"""Artifacts of a run that `read` reads."""

PARTS = ("validation", "test", "validation_top")
"""Fields of `RunPredictions` that hold a bit for every image, in their order."""

NO_IMAGES = ""
"""The digest where it is not known on which images a run was evaluated."""


class CorrectBits(NamedTuple):
    """images: digest of the images, a key of `Predictions.images`. bits: whether each was classified correctly, packed."""

    images: str
    bits: npt.NDArray[np.uint8]


UNKNOWN = CorrectBits(NO_IMAGES, np.zeros(0, dtype=np.uint8))


class RunPredictions(NamedTuple):
    """confusion: (classes, classes) counts on the test images, rows the truth; (0, 0) where it is not known.

    validation_top: whether the class of each image is among the five likeliest; unknown where there are no more classes.
    """

    confusion: npt.NDArray[np.int32]
    validation: CorrectBits
    test: CorrectBits
    validation_top: CorrectBits


@dataclass(frozen=True)
class ImageSet:
    """place: (n,) position of each image among the training, or the test images. truth: (n,) its class."""

    place: npt.NDArray[np.int32]
    truth: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Predictions:
    """runs: (run id, when it ended) → its predictions. images: digest → the images."""

    runs: Mapping[tuple[str, float], RunPredictions]
    images: Mapping[str, ImageSet]

    def correct(self, runs: Sequence[CorrectBits]) -> npt.NDArray[np.bool_]:
        """Return (runs, n) whether each image was classified correctly. runs: at least one, all on the same images."""
        count = len(self.images[runs[0].images].place)
        bits = np.stack([run.bits for run in runs])
        correct: npt.NDArray[np.bool_] = np.unpackbits(bits, axis=1, count=count).view(bool)
        return correct


NOTHING = Predictions({}, {NO_IMAGES: ImageSet(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint16))})


class CorrectFrames(Mapping[str, "pd.DataFrame"]):
    """arm → whether each image was classified correctly: a bool frame, index seed, a column for each image.

    Only the last two frames are kept, because a byte for each image is much where there are thousands of runs: comparing one arm
    after the other with the same reference makes the frame of the reference once.
    """

    def __init__(self, by_arm: Mapping[str, Mapping[int, CorrectBits]], predictions: Predictions) -> None:
        """by_arm: arm → seed → results, each arm's on one set of images."""
        self._by_arm, self._predictions = by_arm, predictions
        self._cached = functools.lru_cache(maxsize=2)(self._frame)

    def __getitem__(self, arm: str) -> pd.DataFrame:
        return self._cached(arm)

    def __contains__(self, arm: object) -> bool:
        return arm in self._by_arm

    def _frame(self, arm: str) -> pd.DataFrame:
        import pandas as pd

        seeds = sorted(self._by_arm[arm])
        results = [self._by_arm[arm][seed] for seed in seeds]
        places = self._predictions.images[results[0].images].place
        # By default pandas copies, column after column.
        return pd.DataFrame(
            self._predictions.correct(results), index=pd.Index(seeds), columns=pd.Index(places), copy=False
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_arm)

    def __len__(self) -> int:
        return len(self._by_arm)


KnownImages = dict[tuple[Any, ...], tuple[str, ImageSet]]
"""Checksums of the arrays that describe a set of images → its digest, and the set."""


def read(
    confusion_file: bytes | None, predictions_file: bytes | None, known: KnownImages, classes: int = 0
) -> tuple[RunPredictions, list[str]]:
    """Read `confusion_matrix.json` and `predictions.npz`, either of which may be absent, and return what is wrong with them.

    known: images of other runs, which are not read again; those of this run are added. classes: their number; 0: not known.
    """
    confusion = np.zeros((0, 0), dtype=np.int32)
    validation = test = validation_top = UNKNOWN
    damaged = []
    if confusion_file is not None:
        try:
            confusion = _confusion(confusion_file, classes)
        except (ArithmeticError, DamagedError, LookupError, RecursionError, TypeError, ValueError):
            damaged.append(FILES[0])
    if predictions_file is not None:
        try:
            arrays = ArrayFile(predictions_file)
            parts = []
            for part in ("val", "test"):
                digest, images = _images(arrays, part, known, classes)
                predicted = arrays[f"{part}_predicted"]
                check_whole(predicted, len(images.truth))
                parts.append(CorrectBits(digest, np.packbits(images.truth == predicted)))
                if part == "val" and "val_in_top5" in arrays.checksums:
                    in_top5 = arrays["val_in_top5"]
                    check_whole(in_top5, len(images.truth), kinds="b")
                    validation_top = CorrectBits(digest, np.packbits(in_top5))
            validation, test = parts
        except (DamagedError, LookupError, TypeError, ValueError):
            damaged.append(FILES[1])
    return RunPredictions(confusion, validation, test, validation_top), damaged


def _confusion(content: bytes, classes: int) -> npt.NDArray[np.int32]:
    """Return the counts of a confusion matrix, square and not negative."""
    counts = np.array(json.loads(content)["counts"])
    side = len(counts)
    if counts.shape != (side, side) or classes not in (0, side) or counts.dtype.kind not in "iu":
        raise DamagedError("it is no square of counts")
    if side and not 0 <= int(counts.min()) <= int(counts.max()) < 2**31:
        raise DamagedError("a count is out of its range")
    return counts.astype(np.int32)


def _images(arrays: ArrayFile, part: str, known: KnownImages, classes: int) -> tuple[str, ImageSet]:
    """Return the images of a part of `predictions.npz`, with their digest; those that are known are not read again."""
    names = [f"{part}_truth", *(["val_index"] if part == "val" else [])]
    sums = (part, *(arrays.checksums[name] for name in names))
    if sums not in known:
        truth = arrays[f"{part}_truth"]
        check_whole(truth, len(truth), below=classes or 2**16)
        place = arrays["val_index"] if part == "val" else np.arange(len(truth))
        check_whole(place, len(truth), below=2**31)
        images = ImageSet(place.astype(np.int32), truth.astype(np.uint16))
        digest = hashlib.sha256(images.place.tobytes() if part == "val" else b"")
        digest.update(images.truth.tobytes())
        known[sums] = digest.hexdigest()[:16], images
    return known[sums]


def load(path: Path) -> Predictions:
    """Return what was saved at `path`; nothing where it cannot be read."""
    try:
        arrays = read_arrays(path)
        return _cached(arrays)
    except (OSError, DamagedError, LookupError, TypeError, ValueError):
        return NOTHING


def _cached(arrays: Arrays) -> Predictions:
    """Return what the arrays of a cache hold. Raises DamagedError, and Python's errors about values, where they do not fit."""
    lengths, sides = arrays["lengths"], arrays["sides"]
    check_whole(lengths, len(arrays["digests"]))
    check_whole(arrays["place"], int(lengths.sum()))
    check_whole(arrays["truth"], int(lengths.sum()))
    sets = map(ImageSet, _split(arrays["place"], lengths), _split(arrays["truth"], lengths))
    images = {**NOTHING.images, **dict(zip(arrays["digests"].tolist(), sets, strict=True))}
    check_whole(sides, len(arrays["ids"]), below=2**15)
    check_whole(arrays["confusion"], int((sides.astype(np.int64) ** 2).sum()))
    matrices = (
        counts.reshape(side, side)
        for counts, side in zip(_split(arrays["confusion"], sides**2), sides, strict=True)
    )
    parts = [_bits(arrays, part, images) for part in PARTS]
    names = zip(arrays["ids"].tolist(), arrays["ends"].tolist(), strict=True)
    runs = itertools.starmap(RunPredictions, zip(matrices, *parts, strict=True))
    return Predictions(dict(zip(names, runs, strict=True)), images)


def _bits(arrays: Arrays, part: str, images: Mapping[str, ImageSet]) -> list[CorrectBits]:
    """Return a part of the predictions of every run: as many bits as it has images."""
    digests, lengths, bits = (arrays[f"{part}_{name}"] for name in ("images", "bytes", "bits"))
    check_whole(lengths, len(arrays["ids"]))
    check_whole(bits, int(lengths.sum()), below=256)
    names = list(map(str, digests.tolist()))
    size = {name: (len(images[name].place) + 7) // 8 for name in set(names)}
    if lengths.tolist() != [size[name] for name in names]:
        raise DamagedError("there are not as many bits as images")
    return list(map(CorrectBits, names, _split(bits.astype(np.uint8, copy=False), lengths)))


def save(path: Path, predictions: Predictions) -> None:
    """Save the predictions of at least one run, as `write_whole` does."""
    runs = list(predictions.runs.values())
    arrays = {
        "ids": np.array([run for run, _ in predictions.runs]),
        "ends": np.array([end for _, end in predictions.runs]),
        "sides": np.array([len(run.confusion) for run in runs]),
        "confusion": np.concatenate([run.confusion.ravel() for run in runs]),
        "digests": np.array(list(predictions.images)),
        "lengths": np.array([len(images.place) for images in predictions.images.values()]),
        "place": np.concatenate([images.place for images in predictions.images.values()]),
        "truth": np.concatenate([images.truth for images in predictions.images.values()]),
    }
    for part in PARTS:
        results: list[CorrectBits] = [getattr(run, part) for run in runs]
        arrays[f"{part}_images"] = np.array([bits.images for bits in results])
        arrays[f"{part}_bytes"] = np.array([len(bits.bits) for bits in results])
        arrays[f"{part}_bits"] = np.concatenate([bits.bits for bits in results])
    write_whole(path, **arrays)


def _split(values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    ends = np.cumsum(lengths).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
