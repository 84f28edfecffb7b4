"""What may be wrong with data: everything that lies in a folder is used, or counted and named, or refused; nothing shrinks silently."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from painted_folders import paint
from PIL import Image

from ablate.data import datasets
from ablate.data.datasets import ImageFolder
from ablate.errors import DataError

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
    "heic": (_file("cat/a.heic"), SIZES, [r"1 file is not used \(by name not an image\): train/cat/a\.heic"]),
    "npy": (_file("cat/a.npy"), SIZES, [r"1 file is not used \(by name not an image\): train/cat/a\.npy"]),
    "backup of an image": (
        _copy("0.png.bak"),
        SIZES,
        [r"1 file is not used \(by name not an image\): train/cat/0\.png\.bak"],
    ),
    "text without a suffix": (
        _file("cat/LICENSE"),
        SIZES,
        [r"1 file is not used \(by name not an image\): train/cat/LICENSE"],
    ),
    "four files": (
        _two_and_more(*(_file(f"dog/{n}.svg") for n in range(4))),
        SIZES,
        [
            r"4 files are not used \(by name not an image\): train/dog/0\.svg, train/dog/1\.svg, train/dog/2\.svg, …"
        ],
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
        [r"1 link is not used \(leads nowhere\): train/cat/z\.png"],
    ),
    "dangling class": (
        _link("wolf", "nowhere"),
        SIZES,
        [r"1 link is not used \(leads nowhere\): train/wolf"],
    ),
    "link to itself": (_link("cat/z.png", "z.png"), SIZES, [r"\(leads nowhere\): train/cat/z\.png"]),
    "loop": (_link("cat/again", "."), SIZES, [r"1 link .*searched already\): train/cat/again"]),
    "loop over the root": (_link("cat/up", "../.."), SIZES, [r"1 link .*searched already\): train/cat/up"]),
    "loop over another class": (
        _link("cat/dogs", "../dog"),
        SIZES,
        [r"1 link .*searched already\): train/cat/dogs"],
    ),
    "pipe": (
        lambda root: os.mkfifo(cat(root) / "p.png"),
        SIZES,
        [r"1 file is not used \(a pipe.*: train/cat/p\.png"],
    ),
    "image beside classes": (_file("x.png"), SIZES, [r"1 image is not used \(outside .*: train/x\.png"]),
    "no image beside classes": (_file("a.heic"), SIZES, [r"1 file is not used \(outside .*: train/a\.heic"]),
    "a class that is packed": (_file("elk.zip"), SIZES, [r"1 file is not used \(outside .*: train/elk\.zip"]),
    "texts beside classes": (_two_and_more(_file("labels.csv"), _file("LICENSE")), SIZES, []),
    "a pipe beside classes": (
        lambda root: os.mkfifo(root / "train" / "p"),
        SIZES,
        [r"1 file is not used \(a pipe.*: train/p"],
    ),
    **{
        f"{name} beside parts": (
            lambda root, name=name, to=to: (
                (root / name).symlink_to(to) if to else (root / name).write_text("")
            ),
            SIZES,
            [pattern],
        )
        for name, to, pattern in (
            ("val", "nowhere", r"1 link is not used \(leads nowhere\): val"),
            ("dev", "dev", r"1 link is not used \(leads nowhere\): dev"),
            ("valid", "", r"1 file is not used \(outside .*: valid"),
            ("val.zip", "", r"1 file is not used \(outside .*: val\.zip"),
            ("test.tar.gz", "", r"1 file is not used \(outside .*: test\.tar\.gz"),
        )
    },
    "folder beside parts": (_beside("extra"), SIZES, [r"1 folder is not used \(by name no part .*: extra"]),
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
    "one image under two labels": (
        lambda root: shutil.copy(root / "train" / "cat" / "0.png", root / "train" / "dog" / "twin.png"),
        (13, 0, 6),
        [
            r"2 of 13 training images are the same, pixel for pixel, as another training image with another label"
        ],
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
        [
            r"no test set: 4 of 18",
            r"1 of 4 test images is the same",
            r"training images are the same, .* with another label",
            r"2 of 4 test images are the same, .* with another label",
        ],
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


def _tangle(root: Path, draw: random.Random) -> int:
    """Add files, folders and links of all kinds to the classes of an image folder, at random. Returns how many."""
    picture = (root / "train" / "cat" / "0.png").read_bytes()
    folders = [root / part / kind for part in ("train", "test") for kind in ("cat", "dog")]
    for number in range(draw.randrange(1, 12)):
        within = draw.choice(folders)
        name = draw.choice(["a", "é", "sp ace", "\x1b[31m", "\u202e", "\udcff", "A", "-rf"]) + str(number)
        suffix = draw.choice([".png", ".PNG", ".jfif", "", ".7", ".txt", ".heic", ".npy", ".png~"])
        match draw.randrange(6):
            case 0 | 1:
                (within / f"{name}{suffix}").write_bytes(picture)
            case 2:
                (within / f".{name}{suffix}").write_bytes(picture)
            case 3:
                (within / f"{name}{suffix}").symlink_to(
                    draw.choice(["nowhere", ".", "..", f"{name}{suffix}", "../dog"])
                )
            case 4:
                os.mkfifo(within / f"{name}{suffix}")
            case _:
                folders.append(within / f"{name}-more")
                folders[-1].mkdir()
                (folders[-1] / "x.png").write_bytes(picture)
    return sum(
        len(files) + len(set(folders) - _real(folder, folders)) for folder, folders, files in os.walk(root)
    )


def _real(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not Path(folder, name).is_symlink()}


def counted_in(notes: tuple[str, ...]) -> int:
    """How many files and links the notes say are not used."""
    return sum(int(note.split()[0]) for note in notes if "not used" in note)


@pytest.mark.parametrize("seed", range(25))
def test_files_that_are_used_and_files_that_are_counted_are_all_files(tmp_path, pets, seed):
    lies_there = _tangle(pets, random.Random(seed))
    data = prepared(pets, tmp_path)
    assert sum(sizes(data)) + counted_in(data.notes) == lies_there
    assert all(note.isprintable() for note in data.notes)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "one folder too high": (
        lambda root: [
            (root.parent / "inner").mkdir(),
            root.rename(root.parent / "inner" / "x"),
            (root.parent / "inner").rename(root),
        ],
        r"has no train/, but x/ in it has test/ and train/\n.*--set data\.root=.*pets/x",
    ),
    "folders too high": (
        lambda root: [
            (root.parent / "a" / "b").mkdir(parents=True),
            root.rename(root.parent / "a" / "b" / "x"),
            (root.parent / "a").rename(root),
        ],
        r"has no train/, but b/x/ in it has test/ and train/\n.*--set data\.root=.*pets/b/x",
    ),
    "classes one folder too low": (
        lambda root: [
            [
                (root / part / "all").mkdir(),
                *(shutil.move(root / part / kind, root / part / "all") for kind in ("cat", "dog")),
            ]
            for part in ("train", "test")
        ],
        r"only one class, 'all'\n.*if cat and dog in it are the classes",
    ),
    "two names of one part": (
        _beside("training"),
        r"both train/ and training/ are called as the train part is",
    ),
    "two names of validation": (_two_and_more(_beside("val"), _beside("dev")), r"both dev/ and val/"),
    "a class of the test set only": (
        lambda root: shutil.copytree(root / "test" / "cat", root / "test" / "elk"),
        r"only in test/: elk",
    ),
    "a class of val only": (
        _two_and_more(_beside("val"), lambda root: (root / "val" / "cat").rename(root / "val" / "elk")),
        r"only in val/: elk",
    ),
    "names that differ in case": (
        lambda root: (root / "test" / "cat").rename(root / "test" / "Cat "),
        r"'cat' and 'Cat ' differ in case, spaces or signs only",
    ),
    "two forms of one name": (
        lambda root: [
            shutil.copytree(root / "train" / "cat", root / "train" / name)
            for name in ("caf\u00e9", "cafe\u0301")
        ],
        r"two folders in .*train are both called 'café'",
    ),
    "an empty class": (lambda root: (root / "train" / "elk").mkdir(), r"no images in .*train/elk"),
    "a class of no images": (_renamed(".heic"), r"no images in .*train/cat\n.*there are \.heic"),
    "training images beside classes": (
        lambda root: [shutil.rmtree(root / "test"), shutil.copytree(root / "train" / "cat", root / "cat")],
        r"has train/ and beside it cat/, which hold images too",
    ),
    "images without classes": (
        lambda root: [shutil.rmtree(root), root.mkdir(), Image.new("L", (4, 4)).save(root / "a.png")],
        r"has no class folders\n.*this may be a class",
    ),
    "an empty file": (_file("cat/0.png", b""), r"train/cat/0\.png cannot be read as an image: it is empty"),
    "a photograph of a phone": (
        _file("cat/0.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        r"0\.jpg cannot be read as an image: it is HEIC",
    ),
    "a pointer": (
        _file("cat/0.png", b"version https://git-lfs.github.com/spec/v1\n"),
        r"it is a pointer of Git LFS\n`git lfs pull`",
    ),
    "PostScript": (
        _file("cat/0.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n"),
        r"it is PostScript",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_meant_is_refused_with_what_to_do(tmp_path, pets, spoil, message):
    spoil(pets)
    with pytest.raises(DataError) as caught:
        prepared(pets, tmp_path)
    assert caught.value.place == "data.root"
    assert re.search(message, f"{caught.value.message}\n{caught.value.hint}"), str(caught.value)


def test_a_root_one_folder_too_low_is_said(tmp_path, pets):
    assert any(
        "test/ lies beside train/ and is not used; data.root=" in n
        for n in prepared(pets / "train", tmp_path).notes
    )


# --- images -----------------------------------------------------------------------------------------------------


def pictured(tmp_path: Path, pets: Path, image: Image.Image, suffix: str, **options):
    """Save an image in the place of another → its pixels as they are trained on, and what is noted."""
    shutil.rmtree(pets)
    paint(pets)
    for file in pets.rglob("*.png"):
        Image.open(file).resize((16, 16)).save(file)
    (cat(pets) / "0.png").unlink()
    image.save(cat(pets) / f"0{suffix}", **options)
    data = prepared(pets, tmp_path)
    return data.train_images[0].transpose(1, 2, 0).astype(int), data.notes


HALVES = np.zeros((16, 16, 3), np.uint8)
HALVES[:8] = (255, 0, 0)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_images_lie_as_their_orientation_says(tmp_path, pets, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: what was up is at the right
    pixels, _ = pictured(
        tmp_path,
        pets,
        Image.fromarray(HALVES),
        suffix,
        exif=exif,
        **({"quality": 95} if suffix == ".jpg" else {}),
    )
    assert pixels[:, 10:, 0].min() > 200
    assert pixels[:, :6, 0].max() < 60


def _transparent(mode: str) -> Image.Image:
    alpha = np.full((16, 16), 255, np.uint8)
    alpha[:8] = 0
    return Image.fromarray(np.dstack([HALVES // 3, alpha])).convert(mode)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "P by bytes", "RGB by colour", "L by value"])
def test_what_is_transparent_becomes_white(tmp_path, pets, kind):
    options = {}
    image = _transparent({"RGBA": "RGBA", "LA": "LA"}.get(kind, "RGB"))
    if kind == "P":
        image, options = (
            Image.fromarray((HALVES[..., 0] > 0).astype(np.uint8)).convert("P"),
            {"transparency": 1},
        )
    elif kind == "P by bytes":
        image, options = (
            Image.fromarray((HALVES[..., 0] > 0).astype(np.uint8)).convert("P"),
            {"transparency": bytes([255, 0])},
        )
    elif kind == "RGB by colour":
        options = {"transparency": (85, 0, 0)}
    elif kind == "L by value":
        image, options = Image.fromarray(HALVES[..., 0]), {"transparency": 255}
    pixels, notes = pictured(tmp_path, pets, image, ".png", **options)
    assert pixels[:8].min() == 255
    assert pixels[8:].max() < 255
    assert notes == ("1 image has transparent pixels, which become white: train/cat/0.png",)


def _animated(tmp_path, pets, suffix: str):
    frames = [Image.fromarray(np.full((16, 16, 3), shade, np.uint8)) for shade in (0, 200)]
    return pictured(tmp_path, pets, frames[0], suffix, save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_of_several_frames_the_first_is_used_which_is_noted(tmp_path, pets, suffix):
    pixels, notes = _animated(tmp_path, pets, suffix)
    assert pixels.max() < 20
    assert notes == (f"1 image has several frames, of which the first is used: train/cat/0{suffix}",)


def test_other_colours_and_depths_are_noted(tmp_path, pets):
    _, notes = pictured(tmp_path, pets, Image.fromarray(HALVES).convert("CMYK"), ".jpg")
    assert notes == ("1 image is CMYK, converted to RGB without a colour profile: train/cat/0.jpg",)
    deep = cat(pets) / "1.png"
    deep.write_bytes(_png(16, 16, 2, 16 * (b"\0" + bytes([200, 1] * 3 * 16))))
    assert any(
        "16 bits in each channel, of which the upper 8 are used: train/cat/1.png" in n
        for n in prepared(pets, tmp_path).notes
    )


def _png(side: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG of any header, which PIL need not be able to write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_500, 10_000, 14_000, 2_000_000_000])
def test_an_image_too_large_to_be_meant_is_refused_in_words_of_ours(tmp_path, pets, side, recwarn):
    (cat(pets) / "0.png").write_bytes(_png(side, 1, 0, b""))
    with pytest.raises(DataError, match=r"0\.png claims .* pixels; at most 67,108,864 pixels") as caught:
        prepared(pets, tmp_path, resize=8)
    assert "repair" not in str(caught.value.hint)
    assert not recwarn.list


def test_pillow_says_nothing_by_itself(tmp_path, pets, recwarn):
    """What decoders warn of names no file. Damaged EXIF keeps no image from being used."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\xff"
    pixels, _ = pictured(tmp_path, pets, Image.fromarray(HALVES), ".jpg", exif=exif, quality=95)
    assert pixels[:6, :, 0].min() > 200
    assert not recwarn.list


# --- what a person reads ----------------------------------------------------------------------------------------


@pytest.fixture
def faulty_study(workplace) -> tuple[str, list[str]]:
    """A study of two data sets with faults, and what is to be said of them."""
    for name, classes in (("two", ("cat", "dog")), ("three", ("cat", "dog", "elk"))):
        paint(workplace.root / name, classes=classes, size=(16, 16))
    (workplace.root / "two" / "train" / "cat" / "\x1b[2J\udcff.heic").write_text("a photograph of a phone")
    shutil.copy(
        workplace.root / "two" / "train" / "cat" / "0.png", workplace.root / "two" / "test" / "cat" / "0.png"
    )
    shutil.copy(
        workplace.root / "two" / "train" / "cat" / "1.png",
        workplace.root / "two" / "train" / "dog" / "twin.png",
    )
    (workplace.root / "faulty.yaml").write_text(
        "study: faulty\nmargin: 0.1\nseeds: 1\nfactors: {data.root: [three]}\n"
        "baseline: {data: {name: image_folder, root: two, validation: 0.5}, model: {name: cnn, depth: 1, width: 2},"
        " training: {epochs: 1, batch_size: 8}}\n"
    )
    return "faulty.yaml", [
        r"baseline: 1 file is not used (by name not an image): train/cat/\x1b[2J\xff.heic",
        "baseline: 1 of 6 test images is the same, pixel for pixel, as one of the training images",
        "baseline: 2 of 13 training images are the same, pixel for pixel, as another training image with another label",
        "data.root=three has other classes than baseline, with elk: its 3 classes are another task",
    ]


def test_what_is_wrong_with_data_is_said_by_every_command_and_in_the_report(workplace, faulty_study):
    study, notes = faulty_study
    described = workplace.ablate("data", "--study", study)
    for note in notes[:2]:
        assert note.removeprefix("baseline: ") in described
    for arguments in (["run", study, "--executor", "inline", "--quiet"], ["run", study, "--dry-run"]):
        printed = workplace.ablate(*arguments)
        assert [note for note in notes if f"data: {note}" not in printed] == []
        assert "\x1b" not in printed
    workplace.ablate("report", "faulty", "--format", "json", "-o", "faulty.json")
    assert json.loads((workplace.root / "faulty.json").read_text())["data_notes"] == notes
    workplace.ablate("report", "faulty")
    page = (workplace.root / "reports" / "faulty.html").read_text()
    assert [note for note in notes if note not in page] == []


@pytest.mark.slow
def test_what_is_wrong_with_data_is_said_by_plan(workplace, faulty_study):
    study, notes = faulty_study
    printed = workplace.ablate("plan", study, "--devices", "cpu")
    assert [note for note in notes if f"data: {note}" not in printed] == []
    assert json.loads(workplace.ablate("plan", study, "--devices", "cpu", "--json"))["data_notes"] == notes


def test_a_drawing_and_json_are_not_asked_for_at_once(workplace):
    assert "--show draws an image, and prints no JSON" in workplace.ablate(
        "data", "digits", "--show", "0", "--json", code=2
    )
