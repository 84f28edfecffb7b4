"""What finished runs said about each image, and a cache of it on disk.

A run leaves its predictions as artifacts, two small files. Thousands of them take longer to open than to read, so what the report
needs of them is kept in one file: a confusion matrix of the test images, and a bit for every validation and test image.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ablate.tracking.columns import write_whole

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 2
"""Part of the file's name: raise it when the arrays or their meaning change."""

FILES = ("confusion_matrix.json", "predictions.npz")
"""Artifacts of a run that `read` reads."""

NONE = ""
"""The digest where it is not known which images a run saw."""


class Answers(NamedTuple):
    """images: digest of what is known of the images, a key of `Predictions.images`. bits: whether each was classified correctly, packed."""

    images: str
    bits: npt.NDArray[np.uint8]


UNKNOWN = Answers(NONE, np.zeros(0, dtype=np.uint8))


class Seen(NamedTuple):
    """confusion: (classes, classes) counts on the test images, rows the truth; (0, 0) where it is not known."""

    confusion: npt.NDArray[np.int32]
    validation: Answers
    test: Answers


@dataclass(frozen=True)
class ImageSet:
    """place: (n,) where each stands among the training, or among the test images. truth: (n,) its class."""

    place: npt.NDArray[np.int32]
    truth: npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Predictions:
    """runs: (run id, when it ended) → what it saw. images: what is known of those that are meant by a digest."""

    runs: Mapping[tuple[str, float], Seen]
    images: Mapping[str, ImageSet]

    def right(self, answers: Sequence[Answers]) -> npt.NDArray[np.bool_]:
        """(answers, n) whether each image was classified correctly. answers: of at least one run, all about the same images."""
        count = len(self.images[answers[0].images].place)
        bits = np.stack([one.bits for one in answers])
        found: npt.NDArray[np.bool_] = np.unpackbits(bits, axis=1, count=count).view(bool)
        return found


NOTHING = Predictions({}, {NONE: ImageSet(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint16))})


class Frames(Mapping[str, "pd.DataFrame"]):
    """arm → whether each image was classified correctly: a bool frame, index seed, a column per image.

    Only the last two are kept, because a byte an image is much where there are thousands of runs: who holds one arm after the other
    against the same reference has that made once.
    """

    def __init__(self, of: Mapping[str, Mapping[int, Answers]], held: Predictions) -> None:
        self._of, self._held = of, held
        self._made = functools.lru_cache(maxsize=2)(self._frame)

    def __getitem__(self, arm: str) -> pd.DataFrame:
        return self._made(arm)

    def __contains__(self, arm: object) -> bool:
        return arm in self._of

    def _frame(self, arm: str) -> pd.DataFrame:
        import pandas as pd

        seeds = sorted(self._of[arm])
        answers = [self._of[arm][seed] for seed in seeds]
        places = self._held.images[answers[0].images].place
        # Left to itself pandas copies, column after column.
        return pd.DataFrame(
            self._held.right(answers), index=pd.Index(seeds), columns=pd.Index(places), copy=False
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)


Met = dict[tuple[Any, ...], tuple[str, ImageSet]]
"""Checksums of the arrays that tell of images → the digest of these, and what is known of them."""


def read(matrix: bytes | None, predicted: bytes | None, met: Met) -> Seen:
    """From `confusion_matrix.json` and `predictions.npz`, either of which may be absent or unreadable.

    met: images that other runs saw, which are not read again; those of this run are added.
    """
    confusion = np.zeros((0, 0), dtype=np.int32)
    validation = test = UNKNOWN
    if matrix is not None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            confusion = np.asarray(json.loads(matrix)["counts"], dtype=np.int32)
    if predicted is not None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(io.BytesIO(predicted), allow_pickle=False) as held,
        ):
            parts = []
            for part in ("val", "test"):
                name, known = _images(held, part, met)
                parts.append(Answers(name, np.packbits(known.truth == held[f"{part}_predicted"])))
            validation, test = parts
    return Seen(confusion, validation, test)


def _images(held: np.lib.npyio.NpzFile, part: str, met: Met) -> tuple[str, ImageSet]:
    """The images of a part of `predictions.npz`, with their digest."""
    assert held.zip is not None
    arrays = [f"{part}_truth", *(["val_index"] if part == "val" else [])]
    entries = [held.zip.getinfo(f"{name}.npy") for name in arrays]
    sums = (part, *((entry.CRC, entry.file_size) for entry in entries))
    if sums not in met:
        truth = held[f"{part}_truth"].astype(np.uint16)
        place = held["val_index"] if part == "val" else np.arange(len(truth))
        if len(place) != len(truth):
            raise ValueError
        known = ImageSet(place.astype(np.int32), truth)
        digest = hashlib.sha256(known.place.tobytes() if part == "val" else b"")
        digest.update(truth.tobytes())
        met[sums] = digest.hexdigest()[:16], known
    return met[sums]


def load(path: Path) -> Predictions:
    """What was saved there; nothing where it cannot be read."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            held: dict[str, Any] = dict(file)
        lengths = held["lengths"]
        known = map(ImageSet, _parts(held["place"], lengths), _parts(held["truth"], lengths))
        images = dict(zip(held["digests"].tolist(), known, strict=True))
        sides = held["sides"]
        tables = (t.reshape(n, n) for t, n in zip(_parts(held["confusion"], sides**2), sides, strict=True))
        parts = (
            itertools.starmap(
                Answers,
                zip(
                    held[f"{part}_images"].tolist(),
                    _parts(held[f"{part}_bits"], held[f"{part}_bytes"]),
                    strict=True,
                ),
            )
            for part in ("validation", "test")
        )
        runs = zip(held["ids"].tolist(), held["ends"].tolist(), strict=True)
        seen = itertools.starmap(Seen, zip(tables, *parts, strict=True))
        return Predictions(dict(zip(runs, seen, strict=True)), {**NOTHING.images, **images})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return NOTHING


def save(path: Path, found: Predictions) -> None:
    """As `write_whole`."""
    seen = list(found.runs.values())
    arrays = {
        "ids": np.array([run for run, _ in found.runs]),
        "ends": np.array([end for _, end in found.runs]),
        "sides": np.array([len(one.confusion) for one in seen]),
        "confusion": np.concatenate([one.confusion.ravel() for one in seen]),
        "digests": np.array(list(found.images)),
        "lengths": np.array([len(known.place) for known in found.images.values()]),
        "place": np.concatenate([known.place for known in found.images.values()]),
        "truth": np.concatenate([known.truth for known in found.images.values()]),
    }
    for part in ("validation", "test"):
        answers: list[Answers] = [getattr(one, part) for one in seen]
        arrays[f"{part}_images"] = np.array([one.images for one in answers])
        arrays[f"{part}_bytes"] = np.array([len(one.bits) for one in answers])
        arrays[f"{part}_bits"] = np.concatenate([one.bits for one in answers])
    write_whole(path, **arrays)


def _parts(values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    ends = np.cumsum(lengths).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
