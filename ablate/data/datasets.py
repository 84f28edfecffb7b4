"""Data sets by name: the configuration of each, and where its images come from.

To add one: write a class with its `name` and its function `source`, and add it to the union `AnyDataset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

import numpy as np
from pydantic import Field

from ablate import targets
from ablate.cache_folder import default_folder
from ablate.data import downloads, folders, own_data, parts, tables
from ablate.data.cache import Content, Dataset, Progress, Source, Stderr, entry, find, obtain
from ablate.data.options import DataOptions
from ablate.data.split import normalization, split, stratified
from ablate.errors import DataError
from ablate.fields import Arguments, ArgumentsField

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1024

__all__ = [
    "DATASETS",
    "AnyDataset",
    "Cifar10",
    "Cifar100",
    "DataConfig",
    "DataOptions",
    "Dataset",
    "Digits",
    "FashionMnist",
    "HuggingFace",
    "ImageFolder",
    "ImportedData",
    "Mnist",
    "Parquet",
    "Presence",
    "Progress",
    "divided",
    "fingerprint",
    "normalization",
    "prepare",
    "presence",
    "split",
]

_Root = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Folder with the archive, or with the files it unpacks to; where it has neither, the archive is"
        " downloaded into it. null: a folder in the cache.",
    ),
]


class Digits(DataOptions):
    """1,797 handwritten digits, 8×8 grey, in scikit-learn: no download (Alpaydin & Kaynak, UCI 1998)."""

    name: Annotated[Literal["digits"], Field(description="scikit-learn's handwritten digits.")] = "digits"

    def source(self, _cache: Path) -> Source:
        def read(_scratch: Path, _progress: Progress) -> Content:
            from sklearn.datasets import load_digits

            bunch = load_digits()
            images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
            labels = bunch.target.astype(np.int64)
            test = stratified(labels, round(0.2 * len(labels)), np.random.default_rng(0))
            train = np.setdiff1d(np.arange(len(labels)), test)
            return Content(images[train], labels[train], images[test], labels[test], tuple("0123456789"))

        return Source(("digits",), read)


class Cifar10(DataOptions):
    """60,000 images of 10 classes, 32×32 RGB (Krizhevsky 2009)."""

    name: Annotated[Literal["cifar10"], Field(description="CIFAR-10, through torchvision.")] = "cifar10"
    root: _Root = None

    def source(self, cache: Path) -> Source:
        files = downloads.Archive("CIFAR10", "cifar-10-python.tar.gz", "cifar-10-batches-py")
        return downloads.source(self.name, files, self.root, cache)


class Cifar100(DataOptions):
    """60,000 images of 100 classes, 32×32 RGB (Krizhevsky 2009)."""

    name: Annotated[Literal["cifar100"], Field(description="CIFAR-100, through torchvision.")] = "cifar100"
    root: _Root = None

    def source(self, cache: Path) -> Source:
        files = downloads.Archive("CIFAR100", "cifar-100-python.tar.gz", "cifar-100-python")
        return downloads.source(self.name, files, self.root, cache)


class Mnist(DataOptions):
    """70,000 handwritten digits, 28×28 grey (LeCun et al. 1998)."""

    name: Annotated[Literal["mnist"], Field(description="MNIST, through torchvision.")] = "mnist"
    root: _Root = None

    def source(self, cache: Path) -> Source:
        return downloads.source(self.name, downloads.IdxFiles("MNIST"), self.root, cache)


class FashionMnist(DataOptions):
    """70,000 articles of clothing of 10 kinds, 28×28 grey (Xiao et al. 2017)."""

    name: Annotated[Literal["fashion_mnist"], Field(description="Fashion-MNIST, through torchvision.")] = (
        "fashion_mnist"
    )
    root: _Root = None

    def source(self, cache: Path) -> Source:
        return downloads.source(self.name, downloads.IdxFiles("FashionMNIST"), self.root, cache)


class ImageFolder(DataOptions):
    """A folder of images, with one folder for each class. Grey if every image is grey, else RGB."""

    resizes_while_decoding: ClassVar[bool] = True

    name: Annotated[Literal["image_folder"], Field(description="Your own images, in folders.")] = (
        "image_folder"
    )
    root: Annotated[
        str,
        Field(
            min_length=1,
            description="Folder with train/<class>/*, and where there are such val/<class>/* and test/<class>/*; or with <class>/*."
            " Without test/ a fifth of the training images becomes the test set; subfolders of a class belong to it.",
        ),
    ]

    def source(self, _cache: Path) -> Source:
        return folders.source(self.root, self.resize)


_ImageColumn = Annotated[
    str | None,
    Field(min_length=1, description="Column of the images; null: the only one that holds some, or `image`."),
]
_LabelColumn = Annotated[
    str | None,
    Field(
        min_length=1, description="Column of the labels; null: the only one that may hold them, or `label`."
    ),
]


class Parquet(DataOptions):
    """Parquet files with a column of encoded images and one of labels. Grey if every image is grey, else RGB."""

    resizes_while_decoding: ClassVar[bool] = True

    name: Annotated[Literal["parquet"], Field(description="Parquet files with images and labels.")] = (
        "parquet"
    )
    root: Annotated[
        str,
        Field(
            min_length=1,
            description="A parquet file, or a folder of them: those whose names begin with train, validation and test are those"
            " splits. Without test files a fifth of the training images becomes the test set.",
        ),
    ]
    image: _ImageColumn = None
    label: _LabelColumn = None

    def source(self, _cache: Path) -> Source:
        return tables.parquet(self.root, self.image, self.label, self.resize)


class HuggingFace(DataOptions):
    """A data set of images that Hugging Face's `datasets` saved by `save_to_disk`. Grey if every image is grey, else RGB."""

    resizes_while_decoding: ClassVar[bool] = True

    name: Annotated[Literal["huggingface"], Field(description="A Hugging Face data set on disk.")] = (
        "huggingface"
    )
    root: Annotated[
        str,
        Field(
            min_length=1,
            description="Folder that `save_to_disk` wrote, with the splits train, validation and test. Without a test split a"
            " fifth of the training images becomes the test set.",
        ),
    ]
    image: _ImageColumn = None
    label: _LabelColumn = None

    def source(self, _cache: Path) -> Source:
        return tables.huggingface(self.root, self.image, self.label, self.resize)


class ImportedData(DataOptions):
    """Images and labels that a function of your package returns."""

    name: Annotated[Literal["import"], Field(description="What a function of yours returns.")] = "import"
    target: Annotated[
        targets.Target,
        Field(
            description="The function, as `package.module:name`. It returns {'train': (images, labels), 'test': …}: uint8 arrays"
            " N×H×W, N×H×W×C or N×C×H×W, and N labels from 0; `validation` and `classes` may be there too.",
            examples=["my_package.data:load", "my_package.data:load_clean"],
        ),
    ]
    args: Annotated[
        ArgumentsField,
        Field(
            default_factory=Arguments,
            description="Arguments of `target` by name. Each is a setting of its own: `data.args.year: [2020]` is a factor.",
            examples=[{"year": 2020}],
        ),
    ]

    @property
    def target_to_import(self) -> str:
        return self.target

    def source(self, _cache: Path) -> Source:
        return own_data.source(self.target, self.args)


AnyDataset = (
    Digits | Cifar10 | Cifar100 | Mnist | FashionMnist | ImageFolder | Parquet | HuggingFace | ImportedData
)
DataConfig = Annotated[AnyDataset, Field(discriminator="name")]

DATASETS: Mapping[str, type[DataOptions]] = {d.model_fields["name"].default: d for d in get_args(AnyDataset)}
"""Name → config class."""


def prepare(
    config: DataOptions,
    cache: Path | None = None,
    progress: Progress | None = None,
    *,
    wanted: str | None = None,
) -> Dataset:
    """Return the data set as memory-mapped arrays; the first call downloads and decodes it into the cache.

    config: `subset`, `validation`, `split` and `normalize` have no effect on the arrays. cache: None is $ABLATE_CACHE, else
    $XDG_CACHE_HOME/ablate, else ~/.cache/ablate. progress: None writes to stderr when preparing takes long. wanted: the
    fingerprint that the data should have; where the cache has it, the source is not read at all, which saves time where
    that is a folder of many files. Processes that prepare the same data at once wait for the first of them; a process that
    is killed leaves the cache usable.

    Raises DataError if the data cannot be found, downloaded, read or written to the cache, or differ from `wanted`.
    """
    cache = cache or default_folder()
    if wanted and (cached := entry(wanted, cache / "datasets")):
        return cached
    dataset = obtain(_source(config, cache), cache / "datasets", progress or Stderr())
    if wanted and dataset.fingerprint != wanted:
        raise DataError(
            "the data have changed since this run was planned",
            place=f"data.{next((f for f in ('target', 'root') if getattr(config, f, None)), 'name')}",
            hint="run the study again: that makes a new plan with the data as they are now",
        )
    return dataset


def fingerprint(config: DataOptions, cache: Path | None = None) -> str | None:
    """Return the fingerprint of the data set if the cache has it (an image folder as it is now), else None. Builds nothing."""
    cache = cache or default_folder()
    try:
        dataset = find(_source(config, cache), cache / "datasets")
    except DataError:
        return None
    return dataset.fingerprint if dataset else None


def divided(
    dataset: Dataset, config: DataOptions, split_seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the training and of the validation images of a prepared data set, as `split` does.

    Raises DataError, which says what is possible, where the data cannot be divided so.
    """
    if not dataset.validation:
        parts.check_share(config, len(dataset.train_labels), len(dataset.classes))
    return split(
        dataset.train_labels,
        config,
        split_seed,
        classes=dataset.classes,
        own_validation=dataset.validation,
    )


Presence = Literal["prepared", "here", "to be downloaded", "not here"]


def presence(config: DataOptions, cache: Path | None = None) -> Presence:
    """Return whether a data set is decoded in the cache, its files are on this machine, or neither. Builds nothing."""
    cache = cache or default_folder()
    try:
        source = _source(config, cache)
    except DataError:
        return "not here"
    if find(source, cache / "datasets"):
        return "prepared"
    return "here" if source.is_local() else "to be downloaded"


def _source(config: DataOptions, cache: Path) -> Source:
    """Return the source of a data set with its images resized, and with the channels that the config asks for."""
    source = config.source(cache)
    side = config.resize
    if side is not None and not config.resizes_while_decoding:
        source = _converted(
            source, f"resize {side}", lambda images, progress: _resized(side, images, progress)
        )
    if config.channels is not None:
        convert = {"grey": luminance, "rgb": _tripled}[config.channels]
        source = _converted(source, f"channels {config.channels}", convert)
    return source


def _converted(
    source: Source, conversion: str, convert: Callable[[NDArray[np.uint8], Progress], NDArray[np.uint8]]
) -> Source:
    """Return a source that converts the images of another once they are decoded. conversion: part of its key."""

    def read(scratch: Path, progress: Progress) -> Content:
        content = source.read(scratch, progress)
        train, test = (convert(images, progress) for images in (content.train_images, content.test_images))
        return replace(content, train_images=train, test_images=test)

    return replace(source, key=(*source.key, conversion), read=read)


def luminance(images: NDArray[np.uint8], progress: Progress) -> NDArray[np.uint8]:
    """Convert (N, 3, H, W) uint8 → (N, 1, H, W); grey images are returned as they are.

    In integers, rounded as PIL's `convert("L")` does: both give the same picture.
    """
    if images.shape[1] == 1:
        return images
    grey = np.empty((len(images), 1, *images.shape[2:]), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        red, green, blue = images[start : start + _CHUNK].astype(np.uint32).transpose(1, 0, 2, 3)
        grey[start : start + _CHUNK, 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        progress("converting images to grey", start, len(images))
    return grey


def _tripled(images: NDArray[np.uint8], _progress: Progress) -> NDArray[np.uint8]:
    """Repeat (N, 1 or 3, H, W) uint8 → (N, 3, H, W), a view."""
    return np.broadcast_to(images, (len(images), 3, *images.shape[2:]))


def _resized(side: int, images: NDArray[np.uint8], progress: Progress) -> NDArray[np.uint8]:
    """Resize (N, C, H, W) uint8 → (N, C, side, side), as the images of an image folder are."""
    from PIL import Image

    resized = np.empty((*images.shape[:2], side, side), dtype=np.uint8)
    for n, image in enumerate(images):
        for channel, plane in enumerate(image):
            scaled = Image.fromarray(plane).resize((side, side), Image.Resampling.BILINEAR)
            resized[n, channel] = np.asarray(scaled)
        if n % _CHUNK == 0:
            progress("resizing images", n, len(images))
    return resized
