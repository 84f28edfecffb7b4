"""Data sets by name: what a study may say about them, and how a name becomes arrays.

A new one is a config class, a function (or a line about one that torchvision knows), and a line in `_SOURCES`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ablate.data import downloads, folders
from ablate.data.cache import Content, Dataset, Progress, Source, Stderr, default_folder, entry, find, obtain
from ablate.data.split import normalization, split, stratified
from ablate.errors import DataError
from ablate.fields import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_CHUNK = 1024

__all__ = [
    "Cifar10",
    "Cifar100",
    "Data",
    "DataConfig",
    "Dataset",
    "Digits",
    "FashionMnist",
    "ImageFolder",
    "Mnist",
    "Presence",
    "Progress",
    "fingerprint",
    "named",
    "normalization",
    "prepare",
    "presence",
    "split",
]

_Root = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Folder that holds the archive, or what it unpacks to; it is downloaded to there if neither is."
        " null: a folder in the cache.",
    ),
]


class Data(Block):
    """What every data set can be asked for."""

    subset: Annotated[
        int | None,
        Field(
            gt=0,
            description="Number of training images to use, drawn stratified before the validation split; null: all."
            " The test set stays whole.",
        ),
    ] = None
    validation: Annotated[
        float, Field(gt=0, lt=1, description="Share of the training images kept for validation, stratified.")
    ] = 0.1
    split: Annotated[
        Literal["fixed", "per-seed"],
        Field(description="Whether all seeds share one subset and validation split, or each draws its own."),
    ] = "fixed"
    normalize: Annotated[
        bool,
        Field(description="Shift and scale each channel by the mean and deviation of the training split."),
    ] = True
    resize: Annotated[
        int | None,
        Field(
            gt=0,
            le=4096,
            description="Side in pixels of the square that every image is scaled to (bilinear, antialiased, without"
            " keeping its aspect ratio); null: as it is.",
        ),
    ] = None
    channels: Annotated[
        Literal["grey", "rgb"] | None,
        Field(
            description="grey: one channel, the luminance 0.299 R + 0.587 G + 0.114 B (ITU-R 601, as PIL's mode L). rgb:"
            " three channels, alike where the image is grey. null: as the images are.",
        ),
    ] = None


class Digits(Data):
    """1,797 handwritten digits, 8×8 grey, in scikit-learn: no download (Alpaydin & Kaynak, UCI 1998)."""

    name: Annotated[Literal["digits"], Field(description="scikit-learn's handwritten digits.")] = "digits"


class Cifar10(Data):
    """60,000 images of 10 classes, 32×32 RGB (Krizhevsky 2009)."""

    name: Annotated[Literal["cifar10"], Field(description="CIFAR-10, through torchvision.")] = "cifar10"
    root: _Root = None


class Cifar100(Data):
    """60,000 images of 100 classes, 32×32 RGB (Krizhevsky 2009)."""

    name: Annotated[Literal["cifar100"], Field(description="CIFAR-100, through torchvision.")] = "cifar100"
    root: _Root = None


class Mnist(Data):
    """70,000 handwritten digits, 28×28 grey (LeCun et al. 1998)."""

    name: Annotated[Literal["mnist"], Field(description="MNIST, through torchvision.")] = "mnist"
    root: _Root = None


class FashionMnist(Data):
    """70,000 articles of clothing of 10 kinds, 28×28 grey (Xiao et al. 2017)."""

    name: Annotated[Literal["fashion_mnist"], Field(description="Fashion-MNIST, through torchvision.")] = (
        "fashion_mnist"
    )
    root: _Root = None


class ImageFolder(Data):
    """A folder of images, one folder for each class. Grey if every image is grey, else RGB."""

    name: Annotated[Literal["image_folder"], Field(description="Your own images, in folders.")] = (
        "image_folder"
    )
    root: Annotated[
        str,
        Field(
            min_length=1,
            description="Folder that holds train/<class>/* and test/<class>/*; or <class>/*, of which a fifth is kept as"
            " the test set.",
        ),
    ]


DataConfig = Annotated[
    Digits | Cifar10 | Cifar100 | Mnist | FashionMnist | ImageFolder, Field(discriminator="name")
]


def prepare(
    config: Data,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    wanted: str | None = None,
) -> Dataset:
    """The data set as memory-mapped arrays: decoded (and downloaded) once, a look into the cache ever after.

    config: `subset`, `validation`, `split` and `normalize` play no part here. cache: None is $ABLATE_CACHE, else
    $XDG_CACHE_HOME/ablate, else ~/.cache/ablate. progress: None writes to stderr when it takes long. Processes that prepare
    the same data at once wait for the first of them; one that is killed does no harm. wanted: the fingerprint that they had; where
    the cache holds it, the source is not looked at, which takes a while where it is a folder of many files.

    Raises DataError if the data cannot be found, fetched, read or written to the cache, or are not what is wanted any longer.
    """
    cache = cache or default_folder()
    if wanted and (held := entry(wanted, cache / "datasets")):
        return held
    found = obtain(_source(config, cache), cache / "datasets", progress or Stderr())
    if wanted and found.fingerprint != wanted:
        raise DataError(
            "the data are not what they were when this run was planned",
            place=f"data.{'root' if isinstance(config, ImageFolder) else 'name'}",
            hint="run the study again: it makes a new plan with the data as they are",
        )
    return found


def fingerprint(config: Data, cache: Path | None = None) -> str | None:
    """The data set's fingerprint if it is in the cache (as the image folder is now), else None. Builds nothing."""
    cache = cache or default_folder()
    try:
        found = find(_source(config, cache), cache / "datasets")
    except DataError:
        return None
    return found.fingerprint if found else None


Presence = Literal["prepared", "here", "to be downloaded", "not here"]


def presence(config: Data, cache: Path | None = None) -> Presence:
    """How far a data set is: decoded in the cache, its files (or archive) on this machine, or neither. Builds nothing."""
    cache = cache or default_folder()
    if fingerprint(config, cache) is not None:
        return "prepared"
    if isinstance(config, Digits):
        return "here"
    if isinstance(config, ImageFolder):
        return "here" if Path(config.root).expanduser().is_dir() else "not here"
    assert isinstance(config, Cifar10 | Cifar100 | Mnist | FashionMnist)
    root = Path(config.root).expanduser() if config.root else cache / "downloads"
    return "here" if downloads.is_here(_TORCHVISION[config.name], root) else "to be downloaded"


def named() -> dict[str, type[Data]]:
    """Every data set by name, with the class of its config."""
    kinds = (Digits, Cifar10, Cifar100, Mnist, FashionMnist, ImageFolder)
    return {str(kind.model_fields["name"].default): kind for kind in kinds}


def _digits(_config: Digits, _cache: Path) -> Source:
    def read(_scratch: Path, _progress: Progress) -> Content:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
        labels = bunch.target.astype(np.int64)
        test = stratified(labels, round(0.2 * len(labels)), np.random.default_rng(0))
        train = np.setdiff1d(np.arange(len(labels)), test)
        return Content(images[train], labels[train], images[test], labels[test], tuple("0123456789"))

    return Source(("digits",), read)


_TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}


def _torchvision(config: Any, cache: Path) -> Source:
    return downloads.source(config.name, _TORCHVISION[config.name], config.root, cache / "downloads")


_SOURCES: dict[str, Callable[[Any, Path], Source]] = {
    "digits": _digits,
    **dict.fromkeys(_TORCHVISION, _torchvision),
    # The only one that resizes as it decodes: its images need not have one size before.
    "image_folder": lambda config, _cache: folders.source(config.root, config.resize),
}


def _source(config: Any, cache: Path) -> Source:
    source = _SOURCES[config.name](config, cache)
    if config.resize is not None and not isinstance(config, ImageFolder):
        source = _changed(source, f"resize {config.resize}", lambda *given: _resized(config.resize, *given))
    if config.channels is not None:
        change = {"grey": luminance, "rgb": _tripled}[config.channels]
        source = _changed(source, f"channels {config.channels}", change)
    return source


def _changed(
    source: Source, how: str, change: Callable[[NDArray[np.uint8], Progress], NDArray[np.uint8]]
) -> Source:
    """A source whose images are changed once they are decoded."""

    def read(scratch: Path, progress: Progress) -> Content:
        whole = source.read(scratch, progress)
        train, test = (change(images, progress) for images in (whole.train_images, whole.test_images))
        return replace(whole, train_images=train, test_images=test)

    return Source((*source.key, how), read)


def luminance(images: NDArray[np.uint8], progress: Progress) -> NDArray[np.uint8]:
    """(N, 3, H, W) uint8 → (N, 1, H, W); grey images stay what they are.

    In whole numbers, rounded as PIL's `convert("L")` does: the same picture whichever of them made it grey.
    """
    if images.shape[1] == 1:
        return images
    grey = np.empty((len(images), 1, *images.shape[2:]), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        red, green, blue = images[start : start + _CHUNK].astype(np.uint32).transpose(1, 0, 2, 3)
        grey[start : start + _CHUNK, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        progress("making images grey", start, len(images))
    return grey


def _tripled(images: NDArray[np.uint8], _progress: Progress) -> NDArray[np.uint8]:
    """(N, 1 or 3, H, W) uint8 → (N, 3, H, W), a view."""
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:]))


def _resized(side: int, images: NDArray[np.uint8], progress: Progress) -> NDArray[np.uint8]:
    """(N, C, H, W) uint8 → (N, C, side, side), as an image folder's are."""
    from PIL import Image

    resized = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for n, image in enumerate(images):
        for channel, plane in enumerate(image):
            scaled = Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR)
            resized[n, channel] = np.asarray(scaled)
        if n % 1000 == 0:
            progress("resizing images", n, len(images))
    return resized
