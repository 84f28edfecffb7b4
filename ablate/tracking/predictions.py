"""What finished runs said about each image, and a cache of it on disk.

A run leaves its predictions as artifacts, two small files. Thousands of them take longer to open than to read, so what the report
needs of them is kept in one file: a confusion matrix of the test images, and a bit for every validation image.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate.tracking.columns import write_whole

LAYOUT = 1
"""Part of the file's name: raise it when the arrays or their meaning change."""

NONE = ""
"""The digest where a run saw no validation images that are known."""


@dataclass(frozen=True)
class Seen:
    """confusion: (classes, classes) counts on the test images, rows the truth; (0, 0) where it is not known.

    images: digest of the indices of the validation images, a key of `Predictions.indices`. bits: whether each of them was
    classified correctly, packed.
    """

    confusion: npt.NDArray[np.int32]
    images: str
    bits: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Predictions:
    """runs: (run id, when it ended) → what it saw. indices: digest → (V,) indices into the training images."""

    runs: Mapping[tuple[str, float], Seen]
    indices: Mapping[str, npt.NDArray[np.int32]]

    def right(self, run: tuple[str, float]) -> npt.NDArray[np.bool_]:
        """(V,) whether the run was right about each of its validation images."""
        seen = self.runs[run]
        found: npt.NDArray[np.bool_] = np.unpackbits(seen.bits, count=len(self.indices[seen.images])).view(
            bool
        )
        return found


NOTHING = Predictions({}, {NONE: np.zeros(0, dtype=np.int32)})


def read(matrix: bytes | None, predicted: bytes | None) -> tuple[Seen, npt.NDArray[np.int32]]:
    """From `confusion_matrix.json` and `predictions.npz`, either of which may be absent or unreadable; with the indices."""
    confusion, index = np.zeros((0, 0), dtype=np.int32), NOTHING.indices[NONE]
    bits, digest = np.zeros(0, dtype=np.uint8), NONE
    if matrix is not None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            confusion = np.asarray(json.loads(matrix)["counts"], dtype=np.int32)
    if predicted is not None:
        with (
            contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
            np.load(io.BytesIO(predicted), allow_pickle=False) as held,
        ):
            right = held["val_truth"] == held["val_predicted"]
            index = held["val_index"].astype(np.int32)
            bits, digest = np.packbits(right), hashlib.sha256(index.tobytes()).hexdigest()[:16]
    return Seen(confusion, digest, bits), index


def load(path: Path) -> Predictions:
    """What was saved there; nothing where it cannot be read."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            held: dict[str, Any] = dict(file)
        indices = dict(zip(held["digests"].tolist(), _parts(held["index"], held["lengths"]), strict=True))
        sides = held["sides"]
        tables = (t.reshape(n, n) for t, n in zip(_parts(held["confusion"], sides**2), sides, strict=True))
        seen = zip(tables, held["images"].tolist(), _parts(held["bits"], held["bytes"]), strict=True)
        runs = zip(held["ids"].tolist(), held["ends"].tolist(), strict=True)
        return Predictions(
            {run: Seen(*of) for run, of in zip(runs, seen, strict=True)}, {**NOTHING.indices, **indices}
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return NOTHING


def save(path: Path, found: Predictions) -> None:
    """As `write_whole`."""
    seen = list(found.runs.values())
    write_whole(
        path,
        ids=np.array([run for run, _ in found.runs]),
        ends=np.array([end for _, end in found.runs]),
        sides=np.array([len(one.confusion) for one in seen]),
        confusion=np.concatenate([one.confusion.ravel() for one in seen]),
        images=np.array([one.images for one in seen]),
        bytes=np.array([len(one.bits) for one in seen]),
        bits=np.concatenate([one.bits for one in seen]),
        digests=np.array(list(found.indices)),
        lengths=np.array([len(index) for index in found.indices.values()]),
        index=np.concatenate(list(found.indices.values())),
    )


def _parts(values: npt.NDArray[Any], lengths: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    ends = np.cumsum(lengths).tolist()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]
