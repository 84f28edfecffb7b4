"""What may be wrong with data: everything that lies in a folder is used, or counted and named, or refused; nothing shrinks silently."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from painted_folders import paint

from ablate.data import datasets
from ablate.data.datasets import ImageFolder

SIZES = (12, 0, 6)
"""Images that a painted folder has to train on, to validate of its own, and to test."""


@pytest.fixture
def pets(tmp_path) -> Path:
    return paint(tmp_path / "pets")


def prepared(root, tmp_path, **fields):
    return datasets.prepare(ImageFolder(root=str(root), **fields), tmp_path / "cache")


def sizes(data) -> tuple[int, int, int]:
    return len(data.train_labels) - data.validation, data.validation, len(data.test_labels)


def cat(root: Path) -> Path:
    return root / "train" / "cat"


def _nested(root: Path) -> None:
    (cat(root) / "2019" / "may").mkdir(parents=True)
    (cat(root) / "0.png").rename(cat(root) / "2019" / "0.png")
    (cat(root) / "1.png").rename(cat(root) / "2019" / "may" / "1.png")


def _renamed(suffix: str) -> Callable[[Path], None]:
    return lambda root: [file.rename(file.with_suffix(suffix)) for file in cat(root).iterdir()] and None


def _beside(name: str) -> Callable[[Path], object]:
    return lambda root: shutil.copytree(root / "test", root / name)


def _copy(name: str) -> Callable[[Path], object]:
    return lambda root: shutil.copy(cat(root) / "0.png", cat(root) / name)


def _file(name: str, content: bytes = b"not an image") -> Callable[[Path], object]:
    return lambda root: (root / "train" / name).write_bytes(content)


def _link(name: str, to: str) -> Callable[[Path], object]:
    return lambda root: (root / "train" / name).symlink_to(to)


def _two_and_more(*acts: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda root: [act(root) for act in acts] and None


# Fault → what makes it, the sizes that result, and the notes of it.
USED: dict[str, tuple[Callable[[Path], object], tuple[int, int, int], list[str]]] = {
    "nothing": (lambda _root: None, SIZES, []),
    "jfif": (_renamed(".jfif"), SIZES, []),
    "capitals": (_renamed(".PNG"), SIZES, []),
    "another format's suffix": (_renamed(".jpg"), SIZES, []),
    "no suffix": (_renamed(""), SIZES, []),
    "numbers for suffixes": (
        lambda root: [f.rename(f"{f.with_suffix('')}.00{f.stem}") for f in cat(root).iterdir()],
        SIZES,
        [],
    ),
    "heic": (_file("cat/a.heic"), SIZES, [r"1 file is not used, .*: train/cat/a\.heic"]),
    "npy": (_file("cat/a.npy"), SIZES, [r"1 file is not used, .*: train/cat/a\.npy"]),
    "backup of an image": (_copy("0.png.bak"), SIZES, [r"1 file is not used, .*: train/cat/0\.png\.bak"]),
    "text without a suffix": (_file("cat/LICENSE"), SIZES, [r"1 file is not used, .*: train/cat/LICENSE"]),
    "four files": (
        _two_and_more(*(_file(f"dog/{n}.svg") for n in range(4))),
        SIZES,
        [r"4 files are not used, .*: train/dog/0\.svg, train/dog/1\.svg, train/dog/2\.svg, …"],
    ),
    "subfolders": (
        _nested,
        SIZES,
        [r"2 images in subfolders of a class belong to that class: train/cat/2019/0\.png, "],
    ),
    "system files": (
        _two_and_more(
            _file("cat/._0.png"), _file("cat/Thumbs.db"), _file("dog/.DS_Store"), _file("dog/desktop.ini")
        ),
        SIZES,
        [r"4 hidden or system files are not used: train/cat/\._0\.png, "],
    ),
    "a folder of a Mac": (
        lambda root: _copy_tree(root, "__MACOSX"),
        SIZES,
        [r"1 hidden or system file is not used: train/__MACOSX"],
    ),
    "dangling link": (
        _link("cat/z.png", "nowhere.png"),
        SIZES,
        [r"1 link is not used because it leads nowhere: train/cat/z\.png"],
    ),
    "dangling class": (
        _link("wolf", "nowhere"),
        SIZES,
        [r"1 link is not used because it leads nowhere: train/wolf"],
    ),
    "link to itself": (_link("cat/z.png", "z.png"), SIZES, [r"leads nowhere: train/cat/z\.png"]),
    "loop": (_link("cat/again", "."), SIZES, [r"1 link .* searched already: train/cat/again"]),
    "loop over the root": (_link("cat/up", "../.."), SIZES, [r"1 link .* searched already: train/cat/up"]),
    "loop over another class": (
        _link("cat/dogs", "../dog"),
        SIZES,
        [r"1 link .* searched already: train/cat/dogs"],
    ),
    "pipe": (
        lambda root: os.mkfifo(cat(root) / "p.png"),
        SIZES,
        [r"1 file is not used, being a pipe.*: train/cat/p\.png"],
    ),
    "image beside classes": (_file("x.png"), SIZES, [r"1 image is not used, lying outside .*: train/x\.png"]),
    "folder beside parts": (_beside("extra"), SIZES, [r"1 folder is not used, being no part .*: extra"]),
    **{
        f"{name}/": (
            _beside(name),
            (12, 6, 6),
            [r"6 of 6 test images are the same, .* as the validation images"],
        )
        for name in ("val", "valid", "validation", "dev", "VAL", "Validation")
    },
    "val without a class": (
        _two_and_more(_beside("val"), lambda root: shutil.rmtree(root / "val" / "dog")),
        (12, 3, 6),
        [
            r"val/ has no images of 1 class: dog",
            r"3 of 6 test images are the same, .* as the validation images",
        ],
    ),
    "no test": (
        lambda root: shutil.rmtree(root / "test"),
        (10, 0, 2),
        [r"no test set: 2 of 12 training images are held out"],
    ),
    "val and no test": (
        lambda root: (root / "test").rename(root / "val"),
        (10, 6, 2),
        [r"no test set: 2 of 12 training"],
    ),
    "capital parts": (
        _two_and_more(
            lambda root: (root / "train").rename(root / "Train"),
            lambda root: (root / "test").rename(root / "TESTING"),
        ),
        SIZES,
        [],
    ),
    "the same images in both": (
        lambda root: [
            shutil.copy(root / "train" / kind / "0.png", root / "test" / kind / "0.png")
            for kind in ("cat", "dog")
        ],
        SIZES,
        [r"2 of 6 test images are the same, pixel for pixel, as the training images"],
    ),
    "two forms of Unicode": (
        _two_and_more(
            lambda root: (root / "train" / "cat").rename(root / "train" / "caf\u00e9"),
            lambda root: (root / "test" / "cat").rename(root / "test" / "cafe\u0301"),
        ),
        SIZES,
        [],
    ),
    "a class called train": (
        lambda root: (
            [shutil.move(root / "train" / kind, root / kind) for kind in ("cat", "dog")]
            and [
                shutil.rmtree(root / "test"),
                shutil.rmtree(root / "train"),
                shutil.copytree(root / "cat", root / "train"),
            ]
        ),
        (14, 0, 4),
        [r"no test set: 4 of 18", r"1 of 4 test images is the same"],
    ),
}


def _copy_tree(root: Path, name: str) -> None:
    shutil.copytree(root / "train" / "cat", root / "train" / name)


@pytest.mark.parametrize(("spoil", "expected", "notes"), USED.values(), ids=USED)
def test_what_lies_in_a_folder_is_used_or_counted_and_named(tmp_path, pets, spoil, expected, notes):
    spoil(pets)
    data = prepared(pets, tmp_path)
    assert sizes(data) == expected
    assert len(data.notes) == len(notes), data.notes
    for note, pattern in zip(data.notes, notes, strict=True):
        assert re.search(pattern, note), note
    again = prepared(pets, tmp_path)
    assert again.notes == data.notes, "the cache keeps them"
