"""Image folders: `train/<class>/*`, with `val/` and `test/` beside it or not, or one tree `<class>/*` that is split here."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablate.data import parts
from ablate.data.cache import Content, Progress, Source, check_space
from ablate.data.decode import (
    BrokenImageError,
    Decoded,
    Survey,
    decoded_file,
    decoding,
    few,
    image_format,
)
from ablate.errors import DataError
from ablate.text import counted, joined, visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (
    *(
        ".apng",
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
    ),
    *(".ppm", ".tif", ".tiff", ".webp"),
)
"""Ends of the names of images. A file without a suffix is one if it begins as one."""

_CHUNK = 64
_DEEPEST = 3
"""Levels below `data.root` on which a data set is looked for where it is no data set itself."""

_LAYOUT = "data.root is a folder with train/<class>/* and test/<class>/*, or with <class>/*"
# Below this many bytes for each file, switching between threads costs more time than they save in decoding.
_WORTH_THREADS = 8_192

# Files that tell of data, beside the folders that hold them.
_TEXTS = frozenset(
    (
        *(".cfg", ".csv", ".htm", ".html", ".json", ".log", ".md", ".pdf", ".py"),
        *(".rst", ".sh", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
    )
)

# Files and folders that systems make beside those of people.
_SYSTEM = frozenset(
    (
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
    )
)


@dataclass
class _Ignored:
    """Names of what is not used, by the reason, in the order in which they are told."""

    top: Path
    by_reason: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: Path) -> None:
        self.by_reason.setdefault(reason, []).append(os.path.relpath(path, self.top))

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each reason."""
        return tuple(
            f"{counted(len(paths), noun)} {'is' if len(paths) == 1 else 'are'} not used{why}: {few(sorted(paths), len(paths))}"
            for reason, (noun, why) in _REASONS.items()
            if (paths := self.by_reason.get(reason))
        )


_REASONS: Mapping[str, tuple[str, str]] = {
    "not an image": ("file", " (by name not an image)"),
    "dangling": ("link", " (leads nowhere)"),
    "seen": ("link", " (to a folder that is searched already)"),
    "special": ("file", " (a pipe, a socket or a device)"),
    "outside": ("image", " (outside the folders of classes)"),
    "outside too": ("file", " (outside the folders of classes)"),
    "beside": ("folder", " (by name no part of the data)"),
    "hidden": ("hidden or system file", ""),
}
"""Reason → what is not used, and why."""


@dataclass(frozen=True)
class _Tree:
    """Images in class folders. files: paths relative to `folder`, sorted, class by class. size: bytes of all of them.

    nested: files that lie in subfolders of their class.
    """

    folder: Path
    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: NDArray[np.int64]
    size: int
    nested: tuple[str, ...]


def source(root: str, resize: int | None) -> Source:
    """Return the source of an image folder as it is now. root: may begin with `~`.

    Its key is a digest of the listing: relative path, size and times of every image, without `root`, so that a folder that
    was moved keeps its key. The time of the last status change (ctime) is among them: it distinguishes two folders whose
    files were given the same size and modification time.

    Raises DataError if the folder does not exist or is not laid out as class folders.
    """
    top = parts.existing(root, _LAYOUT)
    if not top.is_dir():
        raise DataError(f"{visible(str(top))} is a file, not a folder", place="data.root", hint=_LAYOUT)
    digest = hashlib.sha256()
    ignored = _Ignored(top)
    folders = _parts(top, ignored)
    trees = {part: _scan(folder, digest, ignored, part) for part, folder in folders.items()}
    notes = [*ignored.notes()]
    if nested := [f"{tree.folder.name}/{name}" for tree in trees.values() for name in tree.nested]:
        notes.append(
            f"{counted(len(nested), 'image')} in subfolders of a class {'belongs' if len(nested) == 1 else 'belong'} to"
            f" that class: {few(nested, len(nested))}"
        )
    notes += _same_classes(trees, top)
    if folders == {"train": top} and (beside := _sibling(top)) is not None:
        notes.append(
            f"{visible(beside.name)}/ lies beside {visible(top.name)}/ and is not used; data.root={visible(str(top.parent))} uses both"
        )
    layout = " ".join(trees) if folders != {"train": top} else "one tree"
    return Source(
        ("image_folder", layout, str(resize), digest.hexdigest()),
        lambda scratch, progress: _read(trees, top, resize, scratch, progress),
        notes=tuple(notes),
    )


# --- layout -----------------------------------------------------------------------------------------------------------


def _parts(top: Path, ignored: _Ignored) -> dict[str, Path]:
    """Return part → its folder, in the order train, validation, test; one tree of classes is `train` alone, and `top` itself."""
    folders = _subfolders(top)
    by_part: dict[str, list[Path]] = {}
    others = []
    for folder in folders:
        part = parts.part_of(folder.name)
        if part is None:
            others.append(folder)
        else:
            by_part.setdefault(part, []).append(folder)
    # A class may be called `train`, too; then it lies among others, and no folder lies in it.
    if not by_part or (others and not any(_subfolders(f) for found in by_part.values() for f in found)):
        _not_above(top, folders)
        return {"train": top}
    shown = {part: joined(f"{visible(f.name)}/" for f in found) for part, found in by_part.items()}
    for part, found in by_part.items():
        if len(found) > 1:
            raise DataError(
                f"in {visible(str(top))} both {shown[part]} are called as the {part} part is",
                place="data.root",
                hint="leave one of them there",
            )
    if "train" not in by_part:
        raise DataError(
            f"{visible(str(top))} has {joined(shown.values())} but no train/",
            place="data.root",
            hint="add train/, or set data.root to one tree of class folders, of which a fifth becomes the test set",
        )
    if set(by_part) == {"train"} and (classes := [f for f in others if _holds_images(f)]):
        raise DataError(
            f"{visible(str(top))} has {shown['train']} and beside it {joined(f'{visible(f.name)}/' for f in classes[:3])}"
            f"{', …' if len(classes) > 3 else ''}, which hold images too",
            place="data.root",
            hint=f"`--set data.root={visible(str(by_part['train'][0]))}` takes {shown['train']} alone; a test set lies in test/",
        )
    for entry in _entries(top):
        if not _is_hidden(entry.name) and not _is_folder(entry):
            _ignore_outside(entry, ignored)
    for folder in others:
        ignored.add("beside", folder)
    return {part: by_part[part][0] for part in parts.PARTS if part in by_part}


def _not_above(top: Path, folders: Sequence[Path]) -> None:
    """Raise DataError where what lies in `top` are not classes but data sets, or where classes lie above or below it."""
    if (found := _whole_below(folders)) is not None:
        inside = [f for f in _subfolders(found) if parts.part_of(f.name) is not None]
        raise DataError(
            f"{visible(str(top))} has no train/, but {visible(os.path.relpath(found, top))}/ in it has"
            f" {joined(f'{visible(f.name)}/' for f in inside)}",
            place="data.root",
            hint=f"`--set data.root={visible(str(found))}`",
        )
    if not folders:
        hint = _LAYOUT
        if _images_in(top) and _subfolders(top.absolute().parent):
            hint += f"; images are here, so this may be a class: `--set data.root={visible(str(top.absolute().parent))}` is the folder above"
        raise DataError(f"{visible(str(top))} has no class folders", place="data.root", hint=hint)


def _whole_below(folders: Sequence[Path]) -> Path | None:
    """Return a folder with train/ in it that is one of `folders`, or a few folders below them; None where there is none."""
    level = list(folders)
    for _ in range(_DEEPEST):
        below: list[Path] = []
        for folder in level:
            inside = _folders_of_no_class(folder)
            if any(parts.part_of(f.name) == "train" for f in inside):
                return folder
            below += inside
        level = below
    return None


def _folders_of_no_class(folder: Path) -> list[Path]:
    """Return the folders in a folder; none where there are images beside them, because then it is a class."""
    inside = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
                if _is_folder(entry):
                    inside.append(Path(entry.path))
                elif entry.name.lower().endswith(SUFFIXES):
                    return []
    except OSError as error:
        raise DataError(
            f"{visible(str(folder))} cannot be read: {error.strerror}", place="data.root"
        ) from error
    return sorted(inside)


def _sibling(top: Path) -> Path | None:
    """Return a folder beside `top` that is another part of the same data; None where there is none."""
    whole = top.absolute()
    own = parts.part_of(whole.name)
    if own is None:
        return None
    try:
        beside = _subfolders(whole.parent)
    except DataError:
        return None
    return next((f for f in beside if parts.part_of(f.name) not in (None, own) and _subfolders(f)), None)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name. Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{visible(str(folder))} cannot be read: {error.strerror}", place="data.root"
        ) from error


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, links to folders among them, by name."""
    return [Path(e.path) for e in _entries(folder) if not _is_hidden(e.name) and _is_folder(e)]


def _images_in(folder: Path) -> list[str]:
    """Return the names of the images directly in a folder, told by their names."""
    return [
        e.name
        for e in _entries(folder)
        if not _is_hidden(e.name) and e.name.lower().endswith(SUFFIXES) and not _is_folder(e)
    ]


def _holds_images(folder: Path) -> bool:
    """Return whether there are images in a folder, or in the folders in it."""
    return bool(_images_in(folder)) or any(map(_images_in, _subfolders(folder)))


def _is_hidden(name: str) -> bool:
    """Return whether a file is one that file managers and systems make, whatever its suffix."""
    return name.startswith(".") or name.lower() in _SYSTEM


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


# --- listing ----------------------------------------------------------------------------------------------------------


def _scan(folder: Path, digest: hashlib._Hash, ignored: _Ignored, part: str) -> _Tree:
    """List the images of a part by class. part: of the data, as in `parts.PARTS`. Raises DataError."""
    folders: dict[str, str] = {}
    for entry in _entries(folder):
        if _is_hidden(entry.name):
            ignored.add("hidden", Path(entry.path))
        elif _is_folder(entry):
            name = parts.class_name(entry.name)
            if name in folders:
                raise DataError(
                    f"two folders in {visible(str(folder))} are both called {name!r}, written in different ways",
                    place="data.root",
                    hint="put their images into one of them",
                )
            folders[name] = entry.name
        else:
            _ignore_outside(entry, ignored)
    if not folders:
        raise DataError(f"{visible(str(folder))} has no class folders", place="data.root", hint=_LAYOUT)
    above = {_identity(path) for path in (folder, *folder.resolve().parents)}
    above |= {_identity(folder / name) for name in folders.values()}
    classes: list[str] = []
    files: list[str] = []
    nested: list[str] = []
    counts: list[int] = []
    total = 0
    for name, called in sorted(folders.items()):
        listing, size = _class_listing(folder, called, above, ignored)
        if not listing and part != "validation":
            raise DataError(
                f"there are no images in {visible(str(folder / called))}",
                place="data.root",
                hint=_why_empty(folder / called),
            )
        digest.update(os.fsencode("\n".join(listing) + "\n\n"))
        found = [line.partition("\0")[0] for line in listing]
        nested += [file for file in found if file.count("/") > 1]
        files += found
        total += size
        if listing:
            classes.append(name)
            counts.append(len(listing))
    digest.update(b"\n")
    if len(classes) < 2 and part != "validation":
        inside = _subfolders(folder / next(iter(folders.values())))
        raise DataError(
            f"{visible(str(folder))} has only one class, {classes[0]!r}",
            place="data.root",
            hint="a classification needs at least two class folders"
            + (
                f"; if {joined(visible(f.name) for f in inside[:3])} in it are the classes, they belong one folder higher"
                if len(inside) > 1
                else ""
            ),
        )
    labels = np.repeat(np.arange(len(classes)), counts).astype(np.int64)
    return _Tree(folder, tuple(classes), tuple(files), labels, total, tuple(nested))


def _ignore_outside(entry: os.DirEntry[str], ignored: _Ignored) -> None:
    """Note what lies beside folders and is none: images, and what may hold some. Texts about the data are left out."""
    path = Path(entry.path)
    try:
        status = entry.stat()
    except OSError:
        ignored.add("dangling", path)
        return
    if not stat.S_ISREG(status.st_mode):
        ignored.add("special", path)
    elif _is_image(path):
        ignored.add("outside", path)
    elif (path.suffix and path.suffix.lower() not in _TEXTS) or parts.part_of(path.stem) is not None:
        ignored.add("outside too", path)


def _class_listing(
    folder: Path, called: str, above: set[tuple[int, int]], ignored: _Ignored
) -> tuple[list[str], int]:
    """Return a line for each image of a class, sorted, with its path, size and times, and the bytes of all of them.

    Subfolders are searched, links to folders too, each folder once. above: folders that are not searched from here: those
    above, and the other classes.
    """
    listing: list[str] = []
    total = 0
    searched = set(above)
    waiting = [called]
    while waiting:
        within = waiting.pop()
        for entry in _entries(folder / within):
            path = Path(entry.path)
            if _is_hidden(entry.name):
                ignored.add("hidden", path)
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if not entry.is_symlink():
                    raise DataError(
                        f"{visible(str(path))} cannot be read: {error.strerror}", place="data.root"
                    ) from error
                ignored.add("dangling", path)
                continue
            if stat.S_ISDIR(status.st_mode):
                identity = (status.st_dev, status.st_ino)
                if identity in searched:
                    ignored.add("seen", path)
                else:
                    searched.add(identity)
                    waiting.append(f"{within}/{entry.name}")
            elif not stat.S_ISREG(status.st_mode):
                ignored.add("special", path)
            elif not _is_image(path):
                ignored.add("not an image", path)
            else:
                total += status.st_size
                listing.append(
                    f"{within}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}"
                )
    return sorted(listing), total


def _is_image(file: Path) -> bool:
    """Return whether a file is an image by its name, or by how it begins where its name has no suffix."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix.strip(".0123456789"):
        return False
    try:
        with file.open("rb") as opened:
            return image_format(opened.read(32)) is not None
    except OSError as error:
        raise DataError(
            f"{visible(str(file))} cannot be read: {error.strerror}", place="data.root"
        ) from error


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _why_empty(folder: Path) -> str:
    there = sorted({Path(e.name).suffix.lower() for e in _entries(folder) if not _is_hidden(e.name)} - {""})
    found = f"; there are {joined(map(visible, there[:5]))}" if there else ""
    return f"images are files whose names end in {joined(SUFFIXES, 'or')}{found}"


def _same_classes(trees: Mapping[str, _Tree], top: Path) -> tuple[str, ...]:
    """Return what to know of classes that the parts do not share: only the validation split may lack some. Raises DataError."""
    train = trees["train"]
    notes = []
    for part, tree in trees.items():
        extra, lacking = (
            sorted(set(tree.classes) - set(train.classes)),
            sorted(set(train.classes) - set(tree.classes)),
        )
        if extra or (lacking and part == "test"):
            differences = [
                f"only in {visible(folder.name)}/: {', '.join(some)}"
                for folder, some in ((train.folder, lacking), (tree.folder, extra))
                if some
            ]
            alike = next((pair for pair in itertools.product(lacking, extra) if _alike(*pair)), None)
            raise DataError(
                f"{visible(train.folder.name)}/ and {visible(tree.folder.name)}/ in {visible(str(top))} have different classes"
                f" ({'; '.join(differences)})",
                place="data.root",
                hint="both need a folder of images for every class"
                if alike is None
                else f"{alike[0]!r} and {alike[1]!r} differ in case, spaces or signs only: give both folders one name",
            )
        if lacking:
            notes.append(
                f"{visible(tree.folder.name)}/ has no images of {counted(len(lacking), 'class', 'classes')}: {few(lacking, len(lacking))}"
            )
    return tuple(notes)


def _alike(one: str, other: str) -> bool:
    plain = (
        "".join(filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())) for name in (one, other)
    )
    return next(plain) == next(plain)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(
    trees: Mapping[str, _Tree], top: Path, resize: int | None, scratch: Path, progress: Progress
) -> Content:
    """Decode all images, in the order in which they are kept. Where there is no test set, a fifth of every class becomes it."""
    classes = trees["train"].classes
    labels = {
        part: np.array([classes.index(name) for name in tree.classes], np.int64)[tree.labels]
        for part, tree in trees.items()
    }
    arranged = parts.arrange(labels, classes, "data.root")
    paths = [os.path.relpath(tree.folder / file, top) for tree in trees.values() for file in tree.files]
    truth = np.concatenate(list(labels.values()))[arranged.order]
    survey = Survey(len(paths), "data.root", within=f"{top}{os.sep}")
    in_order = [paths[i] for i in arranged.order]
    threads = sum(tree.size for tree in trees.values()) >= _WORTH_THREADS * len(paths)
    with decoding():
        images = _decode(top, in_order, survey, resize, scratch, progress, threads=threads)
    cut_at = len(paths) - arranged.test
    return Content(
        *(images[:cut_at], truth[:cut_at], images[cut_at:], truth[cut_at:], classes),
        validation=arranged.validation,
        notes=(*arranged.notes, *survey.notes()),
    )


def _decode(
    top: Path,
    paths: Sequence[str],
    survey: Survey,
    resize: int | None,
    scratch: Path,
    progress: Progress,
    *,
    threads: bool,
) -> NDArray[np.uint8]:
    """Return all images as (N, 1 or 3, H, W) uint8, in order, mapped from a file in `scratch`. Raises DataError."""
    batches = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with (scratch / "pixels").open("wb") as file:
        for batch, images in zip(batches, _in_order(top, batches, resize, threads=threads), strict=True):
            for name, image in zip(batch, images, strict=True):
                if survey.takes(name, image):
                    assert isinstance(image, Decoded)
                    if not file.tell():
                        check_space(scratch, len(image.pixels) * len(paths))
                    file.write(image.pixels)
            progress("reading images", survey.seen, len(paths))
    survey.check()
    assert survey.size is not None
    width, height = survey.size
    pixels = np.memmap(scratch / "pixels", dtype=np.uint8, mode="r", shape=(len(paths), height, width, 3))
    return pixels.transpose(0, 3, 1, 2)[:, : 1 if survey.is_grey else 3]


_Images = list[Decoded | BrokenImageError]


def _in_order(
    top: Path, batches: Sequence[Sequence[str]], resize: int | None, *, threads: bool
) -> Iterator[_Images]:
    def work(batch: Sequence[str]) -> _Images:
        return [decoded_file(top / name, resize) for name in batch]

    if not threads:
        yield from map(work, batches)
        return
    with ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(work, batches)
        finally:
            pool.shutdown(cancel_futures=True)
