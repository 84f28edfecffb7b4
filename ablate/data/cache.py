"""Decoded data sets on disk: written once, read as memory maps, named by their content.

    <cache>/datasets/
      <fingerprint>/          an entry: four .npy files, and meta.json with the digest of each
      sources/<key>.json      which entry a source (its name, its files, the resizing) was decoded to, and what was noted of it
      building-<key>/         what a process is writing; left behind only if it was killed
      <key>.lock              locked by the process that decodes that source

An entry appears by one rename, complete and synced to disk, so a reader needs no lock. A lock belongs to an open file and
ends with its process, in whatever way that ends. Every JSON file holds a digest of itself. An entry's arrays are read through
where their size or times are not those with which they were written; else they are taken as they are.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ablate import locks
from ablate.cache_folder import keep, read_json, with_digest
from ablate.errors import DataError
from ablate.text import counted, format_bytes, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Part of every source's key: raise it when the layout or the reading of any source changes.
FORMAT = 3

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_LATER = "contradictions"
"""Part of an index that older versions of ablate have not written."""

_ON_DISK = (0, 2, 3, 1)  # the axes (N, C, H, W) of images, as they are written
_CHUNK = 1024
_FINGERPRINT = re.compile("[0-9a-f]{64}").fullmatch

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
    notes: tuple[str, ...] = ()  # sentences: what of the source is not used, or not as it is

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


@dataclass(frozen=True, eq=False)
class Content:
    """A decoded source: images (N, C, H, W) uint8 with any strides, labels (N,).

    validation: how many of the training images, the last, are the validation split that the data bring; 0: none. notes: sentences,
    what of the source is not used, or not as it is.
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    validation: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    key: what the content depends on, such as a name or a listing. read: decodes it; its first argument is a scratch folder
    that is removed once the entry is written. is_local: whether its files are on this machine; otherwise `read` downloads
    them first. is_stable: whether the content is the same as long as the key is; otherwise it is read again each time.
    notes: what is known of the source before it is decoded, beside what decoding adds.
    """

    key: Sequence[str]
    read: Callable[[Path, Progress], Content]
    is_local: Callable[[], bool] = lambda: True
    is_stable: bool = True
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([FORMAT, *self.key]).encode()).hexdigest()[:32]


def find(source: Source, folder: Path) -> Dataset | None:
    """Return the entry of a source if the cache has it complete, else None."""
    if not source.is_stable:
        return None
    try:
        file = folder / "sources" / f"{source.digest}.json"
        index = read_json(file)
        if (dataset := _load(folder / index["fingerprint"])) is None:
            return None
        if _LATER not in index:
            index[_LATER] = list(_contradictions(dataset))
            keep(file, index)
        return replace(dataset, notes=(*source.notes, *index["notes"], *index[_LATER]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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

    Raises BlockingIOError if another process has the lock and `wait` is false, NoLocksError where the file system has none.
    """
    # Not as a pipe is opened, which waits for its other end.
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    try:
        try:
            taken = locks.lock(handle, file, wait=wait)
        except locks.NoLocksError as error:
            raise DataError(
                f"{error.place}: {error.message}",
                hint="set the environment variable ABLATE_CACHE to a folder on a local disk",
            ) from None
        if not taken:
            raise BlockingIOError(errno.EAGAIN, "another process has the lock", str(file))
        yield
    finally:
        os.close(handle)


def _build(source: Source, folder: Path, progress: Progress) -> Dataset:
    _sweep(folder, own=source.digest)
    scratch = folder / f"building-{source.digest}"
    scratch.mkdir()
    try:
        content = source.read(scratch, progress)
        fingerprint = fingerprint_of(content)
        notes, contradictions = (*content.notes, *_repeated(content)), tuple(_contradictions(content))
        if _load(folder / fingerprint) is None:
            _write(content, scratch / "entry")
            _publish(scratch / "entry", folder / fingerprint)
        index = folder / "sources" / f"{source.digest}.json"
        _write_json(scratch / "index", {"fingerprint": fingerprint, "notes": notes, _LATER: contradictions})
        if index.is_dir():
            shutil.rmtree(index)
        (scratch / "index").rename(index)
        _sync(index.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    dataset = _load(folder / fingerprint)
    if dataset is None:
        raise DataError(
            f"{folder / fingerprint} is not what was just written there: the disk, or another program, changes it",
            hint="set the environment variable ABLATE_CACHE to another folder",
        )
    return replace(dataset, notes=(*source.notes, *notes, *contradictions))


def _repeated(content: Content) -> Iterator[str]:
    """Yield how many images of a part have every pixel of an image of another one."""
    cut_at = len(content.train_images) - content.validation
    parts = {
        "training": content.train_images[:cut_at],
        "validation": content.train_images[cut_at:],
        "test": content.test_images,
    }
    digests = {part: list(_digests(images)) for part, images in parts.items()}
    for part, other in (("validation", "training"), ("test", "training"), ("test", "validation")):
        there = set(digests[other])
        if repeated := sum(digest in there for digest in digests[part]):
            verb = (
                "is the same, pixel for pixel, as one of"
                if repeated == 1
                else "are the same, pixel for pixel, as"
            )
            yield f"{repeated:,} of {counted(len(digests[part]), f'{part} image')} {verb} the {other} images"


def _contradictions(data: Content | Dataset) -> Iterator[str]:
    """Yield how many images of a part have every pixel of an image of the same part that has another label: one of the two is wrong."""
    cut_at = len(data.train_images) - data.validation
    for part, images, labels in (
        ("training", data.train_images[:cut_at], data.train_labels[:cut_at]),
        ("validation", data.train_images[cut_at:], data.train_labels[cut_at:]),
        ("test", data.test_images, data.test_labels),
    ):
        digests = list(_digests(images))
        labels_of: dict[bytes, set[int]] = {}
        for digest, label in zip(digests, labels.tolist(), strict=True):
            labels_of.setdefault(digest, set()).add(label)
        if number := sum(len(labels_of[digest]) > 1 for digest in digests):
            yield (
                f"{number:,} of {counted(len(digests), f'{part} image')} are the same, pixel for pixel, as another {part} image "
                "with another label"
            )


def _digests(images: NDArray[np.uint8]) -> Iterator[bytes]:
    for start in range(0, len(images), _CHUNK):
        for image in np.ascontiguousarray(images[start : start + _CHUNK]):
            yield hashlib.sha256(image.data).digest()


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
    files: dict[str, dict[str, Any]] = {}
    for name in _ARRAYS:
        array: NDArray[Any] = getattr(content, name)
        dtype = _dtype(name)
        order = _ON_DISK if name.endswith("images") else (0,)
        shapes[name] = [array.shape[axis] for axis in order]
        digest = hashlib.sha256()
        with (entry / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": dtype.str, "fortran_order": False, "shape": tuple(shapes[name])}
            )
            for start in range(0, len(array), _CHUNK):
                chunk = np.ascontiguousarray(array[start : start + _CHUNK], dtype=dtype)
                pixels = np.ascontiguousarray(chunk.transpose(order)).data
                digest.update(pixels)
                file.write(pixels)
            _flush(file)
            files[name] = {"digest": digest.hexdigest(), "stamp": _stamp(os.fstat(file.fileno()))}
    meta = {"format": FORMAT, "classes": content.classes, "shapes": shapes, "files": files}
    _write_json(entry / "meta.json", meta | {"validation": content.validation})
    _sync(entry)


def _publish(entry: Path, place: Path) -> None:
    """Move a finished entry to its place, unless a complete one is there already (from another source of the same content)."""
    with contextlib.suppress(OSError):
        entry.rename(place)
    if _load(place) is None:
        if place.is_symlink() or not place.is_dir():
            place.unlink()
        else:
            shutil.rmtree(place)
        entry.rename(place)
    _sync(place.parent)


def _stamp(status: os.stat_result) -> list[int]:
    """Return what changes whenever a file is written to, and also where it is copied."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _load(entry: Path) -> Dataset | None:
    """Return an entry, or None where it is incomplete or not what was written."""
    try:
        if not _FINGERPRINT(entry.name):
            return None
        meta = read_json(entry / "meta.json")
        arrays: dict[str, NDArray[Any]] = {}
        changed = False
        for name in _ARRAYS:
            file = entry / f"{name}.npy"
            status, written = file.stat(), meta["files"][name]
            if (
                meta["format"] != FORMAT
                or not stat.S_ISREG(status.st_mode)
                or status.st_size != written["stamp"][0]
            ):
                return None
            shape, dtype = tuple(meta["shapes"][name]), _dtype(name)
            # Shape and type are those of meta.json, which has a digest; the header of the file is for other programs.
            header = status.st_size - math.prod(shape) * dtype.itemsize
            # Copy-on-write, not read-only: torch warns about arrays that cannot be written to.
            arrays[name] = np.memmap(file, dtype, mode="c", offset=header, shape=shape)
            if written["stamp"] != _stamp(status):
                if hashlib.sha256(np.ascontiguousarray(arrays[name]).data).hexdigest() != written["digest"]:
                    return None
                written["stamp"] = _stamp(status)
                changed = True
            if name.endswith("images"):
                arrays[name] = arrays[name].transpose(np.argsort(_ON_DISK))
            else:
                arrays[name] = np.array(arrays[name])
        if changed:  # copied from elsewhere: once is enough to read it through
            with contextlib.suppress(OSError):
                _write_json(entry / f"meta.{os.getpid()}", meta)
                (entry / f"meta.{os.getpid()}").rename(entry / "meta.json")
        return Dataset(
            train_images=arrays["train_images"],
            train_labels=arrays["train_labels"],
            test_images=arrays["test_images"],
            test_labels=arrays["test_labels"],
            classes=tuple(meta["classes"]),
            fingerprint=entry.name,
            validation=meta["validation"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError):
        return None


def _write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file with a digest of what it says."""
    with file.open("wb") as handle:
        handle.write(json.dumps(with_digest(value)).encode())
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
            print(
                shown(f"{step}: {done:,}{f' of {total:,}' if total else ''}{share}"),
                file=sys.stderr,
                flush=True,
            )
