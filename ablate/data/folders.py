"""Image folders: `train/<class>/*` and `test/<class>/*`, or one tree `<class>/*` that is split here."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablate.data.cache import Content, Progress, Source, check_space
from ablate.data.decode import BrokenImageError, Decoded, decoded_file, refusal
from ablate.data.split import stratified
from ablate.errors import DataError
from ablate.text import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_SHARE = 0.2
_CHUNK = 64
_LAYOUT = "data.root is a folder with train/<class>/* and test/<class>/*, or with <class>/*"
# Below this many bytes for each file, switching between threads costs more time than they save in decoding.
_WORTH_THREADS = 8_192


@dataclass(frozen=True)
class _Tree:
    """Images in class folders. files: paths relative to `folder`, sorted, class by class. size: bytes of all of them."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    size: int


def source(root: str, resize: int | None) -> Source:
    """Return the source of an image folder as it is now. root: may begin with `~`.

    Its key is a digest of the listing: relative path, size and times of every image, without `root`, so that a folder that
    was moved keeps its key. The time of the last status change (ctime) is among them: it distinguishes two folders whose
    files were given the same size and modification time.

    Raises DataError if the folder does not exist or is not laid out as class folders.
    """
    top = Path(root).expanduser()
    digest = hashlib.sha256()
    if not top.is_dir():
        raise DataError(
            f"{top} {'is a file, not a folder' if top.exists() else 'does not exist'}",
            place="data.root",
            hint=_LAYOUT,
        )
    present = {name for name in ("train", "test") if (top / name).is_dir()}
    if len(present) == 1:
        only, missing = present.pop(), "test" if (top / "train").is_dir() else "train"
        raise DataError(
            f"{top} has {only}/ but no {missing}/",
            place="data.root",
            hint="add the other one, or set data.root to one tree of class folders, of which a fifth becomes the test set",
        )
    if present:
        train, test = _scan(top / "train", digest), _scan(top / "test", digest)
        _same_classes(train, test, top)
        return Source(
            ("image_folder", "two trees", str(resize), digest.hexdigest()),
            lambda scratch, progress: _two_trees(train, test, resize, scratch, progress),
        )
    tree = _scan(top, digest)
    return Source(
        ("image_folder", "one tree", str(resize), digest.hexdigest()),
        lambda scratch, progress: _one_tree(tree, resize, scratch, progress),
    )


def _scan(folder: Path, digest: hashlib._Hash) -> _Tree:
    classes: list[str] = []
    files: list[str] = []
    counts: list[int] = []
    total = 0
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
        for name in names:
            listing: list[str] = []
            with os.scandir(folder / name) as entries:
                for entry in entries:
                    # Files whose names begin with a dot are made by file managers, whatever their suffix.
                    if (
                        entry.name.lower().endswith(SUFFIXES)
                        and not entry.name.startswith(".")
                        and entry.is_file()
                    ):
                        status = entry.stat()
                        total += status.st_size
                        listing.append(
                            f"{name}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
                        )
            listing.sort()
            digest.update(os.fsencode("\n".join(listing) + "\n\n"))
            classes.append(name)
            counts.append(len(listing))
            files += [line.partition("\0")[0] for line in listing]
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}", place="data.root") from error
    digest.update(b"\n")
    if not classes:
        raise DataError(
            f"{folder} has no class folders",
            place="data.root",
            hint=_LAYOUT,
        )
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DataError(
                f"there are no images in {folder / name}",
                place="data.root",
                hint=f"images are files whose names end in {joined(SUFFIXES, 'or')}; subfolders are not searched",
            )
    if len(classes) == 1:
        raise DataError(
            f"{folder} has only one class, {classes[0]!r}",
            place="data.root",
            hint="a classification needs at least two class folders",
        )
    return _Tree(
        folder,
        tuple(classes),
        tuple(files),
        np.repeat(np.arange(len(classes)), counts).astype(np.int64),
        total,
    )


def _same_classes(train: _Tree, test: _Tree, top: Path) -> None:
    if train.classes == test.classes:
        return
    differences = [
        f"only in {name}/: {', '.join(extra)}"
        for name, one, other in (("train", train, test), ("test", test, train))
        if (extra := sorted(set(one.classes) - set(other.classes)))
    ]
    raise DataError(
        f"train/ and test/ in {top} have different classes ({'; '.join(differences)})",
        place="data.root",
        hint="both need a folder of images for every class",
    )


def _two_trees(train: _Tree, test: _Tree, resize: int | None, scratch: Path, progress: Progress) -> Content:
    images, grey = _decode([train, test], resize, scratch, progress)
    if grey:
        images = images[:, :1]
    cut = len(train.files)
    return Content(images[:cut], train.labels, images[cut:], test.labels, train.classes)


def _one_tree(tree: _Tree, resize: int | None, scratch: Path, progress: Progress) -> Content:
    """Split a fifth of every class off as the test set: the same files whenever the names are the same."""
    held_out = stratified(
        tree.labels,
        round(TEST_SHARE * len(tree.files)),
        np.random.default_rng(0),
        keep=(1, 2),
        classes=tree.classes,
        place="data.root",
    )
    rest = np.setdiff1d(np.arange(len(tree.files)), held_out)
    train, test = (
        replace(tree, files=tuple(tree.files[i] for i in part), labels=tree.labels[part])
        for part in (rest, held_out)
    )
    return _two_trees(train, test, resize, scratch, progress)


def _decode(
    parts: list[_Tree], resize: int | None, scratch: Path, progress: Progress
) -> tuple[NDArray[np.uint8], bool]:
    """Return all images as (N, 3, H, W) uint8, in order, mapped from a file in `scratch`, and whether all are grey."""
    paths = [(part.folder, name) for part in parts for name in part.files]
    shared = os.path.commonpath([part.folder for part in parts])
    batches = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    grey, first, done = True, None, 0
    broken: list[tuple[str, BrokenImageError]] = []
    with (scratch / "pixels").open("wb") as file:
        for batch, images in zip(batches, _in_order(batches, resize, parts), strict=True):
            for (folder, name), image in zip(batch, images, strict=True):
                if isinstance(image, BrokenImageError):
                    broken.append((str(folder / name), image))
                    continue
                if first is None:
                    first = (folder / name, image.size)
                    check_space(scratch, 3 * image.size[0] * image.size[1] * len(paths))
                if image.size != first[1]:
                    raise _different_sizes(first, (folder / name, image.size), shared)
                grey &= image.is_grey
                file.write(image.pixels)
            done += len(batch)
            progress("reading images", done, len(paths))
    if broken:
        raise refusal(broken, len(paths), "data.root")
    assert first is not None
    width, height = first[1]
    shape = (len(paths), height, width, 3)
    pixels_ = np.memmap(scratch / "pixels", dtype=np.uint8, mode="r", shape=shape)
    return pixels_.transpose(0, 3, 1, 2), grey


_Images = list[Decoded | BrokenImageError]


def _in_order(
    batches: list[list[tuple[Path, str]]], resize: int | None, parts: list[_Tree]
) -> Iterator[_Images]:
    def work(batch: list[tuple[Path, str]]) -> _Images:
        return [decoded_file(folder / name, resize) for folder, name in batch]

    trees = {part.folder: part.size for part in parts}
    if sum(trees.values()) < _WORTH_THREADS * sum(len(batch) for batch in batches):
        yield from map(work, batches)
        return
    with ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(work, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def _different_sizes(
    one: tuple[Path, tuple[int, int]], other: tuple[Path, tuple[int, int]], shared: str
) -> DataError:
    first, second = (f"{os.path.relpath(path, shared)} is {w}×{h}" for path, (w, h) in (one, other))
    side = min(*one[1], *other[1])
    return DataError(
        f"the images in {shared} have different sizes: {first}, {second}",
        place="data.root",
        hint=f"`--set data.resize={side}` makes every image {side}×{side}",
    )
