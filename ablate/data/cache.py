"""Decoded data sets on disk: written once, read as memory maps, named by their content.

    <cache>/datasets/
      <fingerprint>/          an entry: four .npy files and meta.json
      sources/<key>.json      which entry a source (its name, its files, the resizing) was decoded to
      building-<key>/         what a process is writing; left behind only if it was killed
      <key>.lock              locked by the process that decodes that source

An entry appears by one rename, complete and synced to disk, so a reader needs no lock. A lock belongs to an open file and
ends with its process, in whatever way that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ablate.errors import DataError
from ablate.text import format_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Part of every source's key: raise it when the layout or the reading of any source changes.
FORMAT = 2

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_ON_DISK = (0, 2, 3, 1)  # the axes (N, C, H, W) of images, as they are written
_CHUNK = 1024

Progress = Callable[[str, int, int | None], None]
"""Called with the name of the step, how much of it is done, and the total (None: unknown)."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready for training.

    The images are memory-mapped copy-on-write: changes to them stay in this process, and torch uses them without a copy.
    To use a data set in another process, prepare it there again; pickling would copy every pixel.
    """

    # In memory (N, H, W, C): networks are trained with channels last.
    train_images: NDArray[np.uint8]  # (N, C, H, W)
    train_labels: NDArray[np.int64]  # (N,), indices into `classes`
    test_images: NDArray[np.uint8]  # (M, C, H, W)
    test_labels: NDArray[np.int64]  # (M,)
    classes: tuple[str, ...]
    fingerprint: str  # sha256 of pixels, labels and class names; independent of the folder the data are in
    validation: int = (
        0  # how many of the training images, the last, are the validation split that the data bring; 0: none
    )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


@dataclass(frozen=True, eq=False)
class Content:
    """A decoded source: images (N, C, H, W) uint8 with any strides, labels (N,).

    validation: how many of the training images, the last, are the validation split that the data bring; 0: none.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: int = 0


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    key: what the content depends on, such as a name or a listing. read: decodes it; its first argument is a scratch folder
    that is removed once the entry is written. is_local: whether its files are on this machine; otherwise `read` downloads
    them first. is_stable: whether the content is the same as long as the key is; otherwise it is read again each time.
    """

    key: Sequence[str]
    read: Callable[[Path, Progress], Content]
    is_local: Callable[[], bool] = lambda: True
    is_stable: bool = True

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([FORMAT, *self.key]).encode()).hexdigest()[:32]


def default_folder() -> Path:
    """$ABLATE_CACHE, else $XDG_CACHE_HOME/ablate, else ~/.cache/ablate."""
    if chosen := os.environ.get("ABLATE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ablate"


def find(source: Source, folder: Path) -> Dataset | None:
    """Return the entry of a source if the cache has it complete, else None."""
    if not source.is_stable:
        return None
    try:
        index = json.loads((folder / "sources" / f"{source.digest}.json").read_bytes())
        return _load(folder / index["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def entry(fingerprint: str, folder: Path) -> Dataset | None:
    """Return the entry with this content if the cache has it complete, else None."""
    return _load(folder / fingerprint) if fingerprint else None


def obtain(source: Source, folder: Path, progress: Progress) -> Dataset:
    """Return the entry of a source, decoding it first where necessary. Raises DataError."""
    if dataset := find(source, folder):
        return dataset
    try:
        (folder / "sources").mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{source.digest}.lock"):
            # The process that had the lock before has very likely written the entry.
            return find(source, folder) or _build(source, folder, progress)
    except OSError as error:
        raise DataError(
            f"the cache {folder} cannot be written: {error.strerror or error}",
            hint="set the environment variable ABLATE_CACHE to another folder",
        ) from error


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Lock `file` exclusively. The file is kept: removing it would let two processes lock two files of that name.

    Raises BlockingIOError if another process has the lock and `wait` is false.
    """
    with file.open("ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _build(source: Source, folder: Path, progress: Progress) -> Dataset:
    _sweep(folder, own=source.digest)
    scratch = folder / f"building-{source.digest}"
    scratch.mkdir()
    try:
        content = source.read(scratch, progress)
        fingerprint = fingerprint_of(content)
        if _load(folder / fingerprint) is None:
            _write(content, scratch / "entry")
            _publish(scratch / "entry", folder / fingerprint)
        index = folder / "sources" / f"{source.digest}.json"
        _write_json(scratch / "index", {"fingerprint": fingerprint})
        (scratch / "index").rename(index)
        _sync(index.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    dataset = _load(folder / fingerprint)
    assert dataset is not None, f"{folder / fingerprint} is broken as soon as it is written"
    return dataset


def _sweep(folder: Path, *, own: str) -> None:
    """Remove the leftovers of processes that were killed. own: digest of the source whose lock the caller has."""
    for leftover in folder.glob("building-*"):
        digest = leftover.name.removeprefix("building-")
        if digest == own:
            shutil.rmtree(leftover)
            continue
        with contextlib.suppress(BlockingIOError), locked(folder / f"{digest}.lock", wait=False):
            shutil.rmtree(leftover, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Raise DataError where a folder's disk has less space than `needed` bytes."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the decoded images take {format_bytes(needed)}, and {folder} has {format_bytes(free)} left",
            place="data",
            hint="make the images smaller with data.resize, or set the environment variable ABLATE_CACHE to another disk",
        )


def fingerprint_of(content: Content) -> str:
    """Return the digest of what a data set is, not of how it is laid out."""
    digest = hashlib.sha256()
    for name in _ARRAYS:
        array: NDArray[Any] = getattr(content, name)
        digest.update(f"{name} {list(array.shape)}\n".encode())
        for start in range(0, len(array), _CHUNK):
            digest.update(np.ascontiguousarray(array[start : start + _CHUNK], dtype=_dtype(name)).data)
    digest.update(json.dumps(content.classes).encode())
    if content.validation:
        digest.update(f"validation {content.validation}".encode())
    return digest.hexdigest()


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype("u1" if name.endswith("images") else "<i8")


def _write(content: Content, entry: Path) -> None:
    """Write an entry. By plain writes: a full disk is then an error, not a SIGBUS."""
    entry.mkdir()
    check_space(entry, content.train_images.size + content.test_images.size)
    shapes: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for name in _ARRAYS:
        array: NDArray[Any] = getattr(content, name)
        dtype = _dtype(name)
        order = _ON_DISK if name.endswith("images") else (0,)
        shapes[name] = [array.shape[axis] for axis in order]
        with (entry / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": dtype.str, "fortran_order": False, "shape": tuple(shapes[name])}
            )
            for start in range(0, len(array), _CHUNK):
                chunk = np.ascontiguousarray(array[start : start + _CHUNK], dtype=dtype)
                file.write(np.ascontiguousarray(chunk.transpose(order)).data)
            sizes[name] = file.tell()
            _flush(file)
    meta = {"format": FORMAT, "classes": content.classes, "shapes": shapes, "sizes": sizes}
    _write_json(entry / "meta.json", meta | {"validation": content.validation})
    _sync(entry)


def _publish(entry: Path, place: Path) -> None:
    """Move a finished entry to its place, unless a complete one is there already (from another source of the same content)."""
    with contextlib.suppress(OSError):
        entry.rename(place)
    if _load(place) is None:
        shutil.rmtree(place, ignore_errors=True)
        entry.rename(place)
    _sync(place.parent)


def _load(entry: Path) -> Dataset | None:
    """Return an entry, or None where shapes or sizes show that it is incomplete."""
    try:
        meta = json.loads((entry / "meta.json").read_bytes())
        arrays: dict[str, NDArray[Any]] = {}
        for name in _ARRAYS:
            file = entry / f"{name}.npy"
            if meta["format"] != FORMAT or file.stat().st_size != meta["sizes"][name]:
                return None
            # Copy-on-write, not read-only: torch warns about arrays that cannot be written to.
            arrays[name] = np.load(file, mmap_mode="c" if name.endswith("images") else None)
            if arrays[name].shape != tuple(meta["shapes"][name]):
                return None
            if name.endswith("images"):
                arrays[name] = arrays[name].transpose(np.argsort(_ON_DISK))
        return Dataset(
            **arrays,
            classes=tuple(meta["classes"]),
            fingerprint=entry.name,
            validation=meta.get("validation", 0),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_json(file: Path, value: object) -> None:
    with file.open("wb") as handle:
        handle.write(json.dumps(value).encode())
        _flush(handle)


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Sync a folder's list of names to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Stderr:
    """Progress as lines on stderr: the first after two seconds, then one every five. Quick steps print nothing."""

    def __init__(self, first: float = 2.0, every: float = 5.0) -> None:
        self._next = time.monotonic() + first
        self._every = every

    def __call__(self, step: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._every
            share = f" ({100 * done // total} %)" if total else ""
            print(f"{step}: {done:,}{f' of {total:,}' if total else ''}{share}", file=sys.stderr, flush=True)
