"""Data sets of torchvision: downloaded once, checked against its digests, and read by it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import math
import shutil
import struct
import tarfile
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ablate.data.cache import Content, Progress, Source, locked
from ablate.errors import DataError
from ablate.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE = 1 << 16
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Archive:
    """A data set that comes as one tar archive, as CIFAR does.

    torchvision_class: its name in `torchvision.datasets`. file: of the archive. folder: what it unpacks to, under the root.
    Both are repeated here because importing torchvision to ask it takes seconds.
    """

    torchvision_class: str
    file: str
    folder: str

    def is_local(self, root: Path) -> bool:
        """Return whether the files are under `root`, unpacked or not; whether they are complete shows when they are read."""
        return (root / self.folder).is_dir() or (root / self.file).is_file()

    def damaged(self, kind: Any, root: Path) -> str | None:
        """Return which unpacked file is not as it was published; None where none is. torchvision only says that one is.

        Files that are missing are not damaged.
        """
        meta = kind.meta
        for name, md5 in (*kind.train_list, *kind.test_list, (meta["filename"], meta["md5"])):
            file = root / self.folder / name
            if file.is_file() and _md5(file) != md5:
                return f"{file} is not the published file (its MD5 differs)"
        return None

    def fetch(self, name: str, kind: Any, root: Path, progress: Progress) -> None:
        """Download and unpack. kind: the class of torchvision, which checks the unpacked files one by one."""
        archive = root / kind.filename
        _fetch(name, [kind.url], archive, kind.tgz_md5, archive.name, progress)
        progress(f"unpacking {archive.name}", 0, None)
        with tarfile.open(archive) as inside:
            # The archive's digest was checked; refusing members that leave the folder came with Python 3.11.4 only.
            if hasattr(tarfile, "data_filter"):
                inside.extractall(root, filter="data")
            else:
                inside.extractall(root)  # noqa: S202


@dataclass(frozen=True)
class IdxFiles:
    """A data set of four gzipped files in the IDX format, as MNIST is. torchvision_class: its name there."""

    torchvision_class: str

    FILES: ClassVar = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    """Each is named with `-ubyte` at its end, and `.gz` until it is unpacked."""

    @property
    def folder(self) -> str:
        return f"{self.torchvision_class}/raw"

    def is_local(self, root: Path) -> bool:
        """Return whether the files are under `root`, unpacked or not; whether they are complete shows when they are read."""
        # All of them: the folder alone may be left from a download that failed.
        unpacked = [root / self.folder / f"{file}-ubyte" for file in self.FILES]
        return all(file.is_file() or file.with_name(f"{file.name}.gz").is_file() for file in unpacked)

    def damaged(self, _kind: Any, root: Path) -> str | None:
        """Return which unpacked file was cut off; None where none was. Files that are missing are not damaged.

        Raises DataError where files are none of this format, or have other images than labels: those are no rest of a download.
        """
        cut_off = None
        for images, labels in (self.FILES[:2], self.FILES[2:]):
            counts = {}
            for name, dimensions in ((images, 3), (labels, 1)):
                file = root / self.folder / f"{name}-ubyte"
                if not file.is_file():
                    continue
                shape = _idx_shape(file, dimensions)
                size, expected = file.stat().st_size, 4 + 4 * dimensions + math.prod(shape or ())
                if shape is None and size >= 4 + 4 * dimensions:
                    raise _own_idx(f"{file} is no IDX file of bytes in {counted(dimensions, 'dimension')}")
                if shape is None or size < expected:
                    cut_off = cut_off or f"{file} was cut off at {counted(size, 'byte')}"
                    continue
                if size > expected:
                    raise _own_idx(f"{file} has {size:,} bytes; its header says {expected:,}")
                if 0 in shape:
                    raise _own_idx(f"{file} holds nothing, by its header")
                counts[name] = shape[0]
            if len(counts) == 2 and counts[images] != counts[labels]:
                raise _own_idx(
                    f"{root / self.folder} has {counts[images]:,} images in {images}-ubyte and {counts[labels]:,} labels in"
                    f" {labels}-ubyte"
                )
        return cut_off

    def fetch(self, name: str, kind: Any, root: Path, progress: Progress) -> None:
        """Download, each file from the first mirror that has it, and unpack. kind: the class of torchvision."""
        raw = root / self.folder
        raw.mkdir(parents=True, exist_ok=True)
        needed = " ".join(packed_name for packed_name, _ in kind.resources)
        for packed_name, md5 in kind.resources:
            packed = raw / packed_name
            _fetch(name, [f"{mirror}{packed_name}" for mirror in kind.mirrors], packed, md5, needed, progress)
            unpacking = packed.with_suffix(".unpacking")
            with gzip.open(packed) as inside, unpacking.open("wb") as outside:
                shutil.copyfileobj(inside, outside)
            unpacking.rename(packed.with_suffix(""))


def _idx_shape(file: Path, dimensions: int) -> tuple[int, ...] | None:
    """Return the shape in the header of an IDX file of bytes (http://yann.lecun.com/exdb/mnist); None where it has no such header."""
    with file.open("rb") as opened:
        head = opened.read(4 + 4 * dimensions)
    if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
        return None
    return struct.unpack(f">{dimensions}I", head[4:])


def _own_idx(message: str) -> DataError:
    return DataError(
        message,
        place="data.root",
        hint="remove the files there and run again: they are then downloaded anew; a data set of your own is read as image_folder,"
        " parquet or import",
    )


def source(name: str, files: Archive | IdxFiles, root: str | None, cache: Path) -> Source:
    """Return the source of a data set that torchvision can read.

    root: folder with the archive or its unpacked files, to which missing ones are downloaded; None: `downloads` in the cache.
    """
    folder = Path(root).expanduser() if root else cache / "downloads"

    def read(_scratch: Path, progress: Progress) -> Content:
        return _read(name, files, folder, progress)

    # torchvision does not check the content of unpacked IDX files, so the content may differ from root to root.
    return Source((name, str(folder.resolve()) if root else ""), read, lambda: files.is_local(folder))


def _read(name: str, files: Archive | IdxFiles, root: Path, progress: Progress) -> Content:
    """Return the decoded data set, downloaded first where it is missing or incomplete. Raises DataError.

    Unpacking is done here because torchvision leaves half-unpacked files where it is killed.
    """
    import torchvision.datasets

    kind = getattr(torchvision.datasets, files.torchvision_class)
    try:
        damage = files.damaged(kind, root)
        if damage is None:
            with contextlib.suppress(RuntimeError):  # what torchvision raises where files are missing
                return _load(kind, root)
        root.mkdir(parents=True, exist_ok=True)
        # Processes with other settings may need the same archive at the same time.
        with locked(root / ".download.lock"):
            try:
                files.fetch(name, kind, root, progress)
            except DataError as error:
                if damage is None:
                    raise
                raise DataError(f"{damage}; {error.message}", place="data.root", hint=error.hint) from error
            content = _load(kind, root)
        return (
            content
            if damage is None
            else replace(content, notes=(f"{damage}, and was replaced by the published one",))
        )
    except (OSError, RuntimeError, AssertionError, ValueError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"{name} cannot be read from {root}: {str(error) or 'a file is damaged'}",
            place="data.root",
            hint="if a file there is damaged, remove it and run again: it is then downloaded anew",
        ) from error


def _load(kind: Any, root: Path) -> Content:
    parts = []
    with warnings.catch_warnings():
        # The archive's pickles contain a dtype in a form that the first releases of NumPy 2.4 warn about.
        warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
        for train in (True, False):
            part = kind(str(root), train=train, download=False)
            images = np.asarray(part.data)
            images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
            labels = np.asarray(part.targets, dtype=np.int64)
            known = len(part.classes)
            if len(images) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= known:
                span = f" from {labels.min()} to {labels.max()}" if len(labels) else ""
                raise ValueError(
                    f"its {'training' if train else 'test'} set has {len(images):,} images and {len(labels):,} labels{span}, of"
                    f" {known} classes"
                )
            parts.append((images, labels))
    # The classes of MNIST are named "0 - zero"; an image folder of it would name them by the digit.
    classes = tuple(c.partition(" - ")[0] for c in part.classes)
    return Content(*parts[0], *parts[1], classes)


def _fetch(name: str, urls: Iterable[str], file: Path, md5: str, needed: str, progress: Progress) -> None:
    """Download `file` from the first url that gives the right content, unless it is there. Raises DataError if none does.

    needed: names of the files that a person without a network has to copy.
    """
    if file.is_file() and _md5(file) == md5:
        return
    partial = file.with_name(f"{file.name}.partial")
    problems = []
    for url in urls:
        try:
            _download(url, partial, f"downloading {file.name}", progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The reason of an HTTPError lacks the status code; that of any other URLError is its whole text.
            http_error = isinstance(error, urllib.error.HTTPError)
            reason = error.reason if isinstance(error, urllib.error.URLError) and not http_error else error
            problems.append(f"{url}: {str(reason) or type(error).__name__}")
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            continue
        if _md5(partial) == md5:
            partial.rename(file)
            return
        problems.append(f"{url}: the downloaded file is not the expected one (its MD5 differs)")
    partial.unlink(missing_ok=True)
    raise DataError(
        f"{name} is missing or incomplete in {file.parent} and could not be downloaded ({'; '.join(problems)})",
        hint=f"without a network: put {needed} into {file.parent} (`--set data.root=FOLDER` for another place);"
        f" or train on a folder of images: `--set data.name=image_folder --set data.root=FOLDER`",
    )


def _download(url: str, file: Path, step: str, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "ablate"})  # noqa: S310 (torchvision's own addresses)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer, file.open("wb") as out:  # noqa: S310
        total, done = answer.length, 0
        progress(step, done, total)
        while piece := answer.read(_PIECE):
            out.write(piece)
            done += len(piece)
            progress(step, done, total)


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
