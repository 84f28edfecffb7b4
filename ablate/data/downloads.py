"""Data sets that torchvision knows: fetched once, checked against its digests, and read through it."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data.cache import Content, Progress, Source, locked
from ablate.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

UNPACKED = {
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
}
"""Where each of torchvision's classes keeps its files under a root: asking torchvision itself takes seconds."""
_ARCHIVES = {"CIFAR10": "cifar-10-python.tar.gz", "CIFAR100": "cifar-100-python.tar.gz"}
_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
"""Of the MNIST family: each with `-ubyte` after it, and `.gz` as long as it is packed."""

_PIECE = 1 << 16
_TIMEOUT_SECONDS = 30.0


def is_here(torchvision_name: str, root: Path) -> bool:
    """Whether the files lie under `root`, unpacked or not; whether they are whole is seen when they are read."""
    folder = root / UNPACKED[torchvision_name]
    if torchvision_name in _ARCHIVES:
        return folder.is_dir() or (root / _ARCHIVES[torchvision_name]).is_file()
    # The folder alone says nothing: a download that failed has made it.
    return all(
        (folder / f"{file}-ubyte").is_file() or (folder / f"{file}-ubyte.gz").is_file() for file in _FILES
    )


def source(name: str, torchvision_name: str, root: str | None, default_root: Path) -> Source:
    """torchvision_name: its class there. root: folder with the archive or what it unpacks to; downloads go there too."""
    folder = Path(root).expanduser() if root else default_root

    def read(_scratch: Path, progress: Progress) -> Content:
        return _read(name, torchvision_name, folder, progress)

    # The MNIST family is not checked by content once it is unpacked, so what lies under a root is that root's own.
    return Source((name, str(folder.resolve()) if root else ""), read)


def _read(name: str, torchvision_name: str, root: Path, progress: Progress) -> Content:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, torchvision_name)
    try:
        try:
            return _load(kind, root)
        except RuntimeError:  # torchvision's word for "not there, or not whole"
            root.mkdir(parents=True, exist_ok=True)
        # Builders with other settings may be here for the same archive.
        with locked(root / ".download.lock"):
            _fetch_all(name, kind, root, progress)
            return _load(kind, root)
    except (OSError, RuntimeError, AssertionError, ValueError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"{name} cannot be read from {root}: {str(error) or 'a file is damaged'}",
            place="data.root",
            hint="where a file there is damaged, remove it",
        ) from error


def _load(kind: Any, root: Path) -> Content:
    parts = []
    with warnings.catch_warnings():
        # The archive's pickles spell a dtype in a way that the first releases of NumPy 2.4 warn about.
        warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
        for train in (True, False):
            part = kind(str(root), train=train, download=False)
            images = np.asarray(part.data)
            images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
            parts.append((images, np.asarray(part.targets, dtype=np.int64)))
    # MNIST's are "0 - zero"; the digit alone is what an image folder of it would say.
    classes = tuple(c.partition(" - ")[0] for c in part.classes)
    return Content(*parts[0], *parts[1], classes)


def _fetch_all(name: str, kind: Any, root: Path, progress: Progress) -> None:
    """Fetch and unpack what is missing. Unpacking is ours because torchvision's leaves a half where it is killed."""
    if hasattr(kind, "mirrors"):  # the MNIST family: four gzipped files, from any of some mirrors
        raw = root / kind.__name__ / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        needed = " ".join(packed_name for packed_name, _ in kind.resources)
        for packed_name, md5 in kind.resources:
            packed = raw / packed_name
            _fetch(name, [f"{mirror}{packed_name}" for mirror in kind.mirrors], packed, md5, needed, progress)
            unpacking = packed.with_suffix(".unpacking")
            with gzip.open(packed) as inside, unpacking.open("wb") as outside:
                shutil.copyfileobj(inside, outside)
            unpacking.rename(packed.with_suffix(""))
    else:  # the CIFAR family: one archive, whose content torchvision checks file by file
        archive = root / kind.filename
        _fetch(name, [kind.url], archive, kind.tgz_md5, archive.name, progress)
        progress(f"unpacking {archive.name}", 0, None)
        with tarfile.open(archive) as inside:
            # The archive's digest was checked; refusing members that leave the folder came with Python 3.11.4 only.
            if hasattr(tarfile, "data_filter"):
                inside.extractall(root, filter="data")
            else:
                inside.extractall(root)  # noqa: S202


def _fetch(name: str, urls: Iterable[str], file: Path, md5: str, needed: str, progress: Progress) -> None:
    """Have `file` with that digest, from the first url that gives it. Raises DataError if none does.

    needed: the files that a person without a network would have to bring.
    """
    if file.is_file() and _md5(file) == md5:
        return
    partial = file.with_name(f"{file.name}.partial")
    problems = []
    for url in urls:
        try:
            _download(url, partial, f"downloading {file.name}", progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # An HTTPError's reason lacks its number; a plain URLError is nothing but its reason.
            http_error = isinstance(error, urllib.error.HTTPError)
            reason = error.reason if isinstance(error, urllib.error.URLError) and not http_error else error
            problems.append(f"{url}: {str(reason) or type(error).__name__}")
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            continue
        if _md5(partial) == md5:
            partial.rename(file)
            return
        problems.append(f"{url}: what arrived is not the file it should be (its MD5 differs)")
    partial.unlink(missing_ok=True)
    raise DataError(
        f"{name} is not (or not whole) in {file.parent} and could not be downloaded ({'; '.join(problems)})",
        hint=f"without a network: put {needed} into {file.parent} (`--set data.root=FOLDER` for another place);"
        f" or train on a folder of images: `--set data.name=image_folder --set data.root=FOLDER`",
    )


def _download(url: str, file: Path, what: str, progress: Progress) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "ablate"})  # noqa: S310 (torchvision's own addresses)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer, file.open("wb") as out:  # noqa: S310
        total, done = answer.length, 0
        progress(what, done, total)
        while piece := answer.read(_PIECE):
            out.write(piece)
            done += len(piece)
            progress(what, done, total)


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
