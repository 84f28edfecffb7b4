"""Parquet files, and data sets that Hugging Face's `datasets` saved."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from ablate.data import cache, datasets
from ablate.data.datasets import HuggingFace, Parquet
from ablate.errors import DataError

CLASSES = ("cat", "dog", "owl")


def picture(seed: int, size: int = 8, mode: str = "RGB", kind: str = "PNG") -> bytes:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 255, (size, size, 3) if mode == "RGB" else (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def table(
    count: int, start: int = 0, *, labels=None, images=None, names=CLASSES, struct_cells=True
) -> pa.Table:
    images = images or [picture(start + n) for n in range(count)]
    cells = [{"bytes": image, "path": None} for image in images] if struct_cells else images
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct_cells else pa.binary()
    labels = [n % 3 for n in range(count)] if labels is None else labels
    made = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def save_to_disk(root: Path, **splits: pa.Table) -> None:
    """As `datasets.DatasetDict.save_to_disk` does."""
    root.mkdir()
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for split, content in splits.items():
        folder = root / split
        folder.mkdir()
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
        (folder / "dataset_info.json").write_text("{}")
        with (
            pa.OSFile(str(folder / "data-0.arrow"), "wb") as file,
            pa.ipc.new_stream(file, content.schema) as out,
        ):
            out.write_table(content)


def prepared(config, tmp_path):
    return datasets.prepare(config, tmp_path / "cache")


def refusal(config, tmp_path) -> str:
    with pytest.raises(DataError) as caught:
        prepared(config, tmp_path)
    assert "\n" not in caught.value.message
    return str(caught.value)


# --- parquet ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("struct_cells", [True, False])
def test_files_are_told_apart_by_their_names(tmp_path, struct_cells):
    root = tmp_path / "data"
    (root / "deep").mkdir(parents=True)
    parts = {"train-00000-of-00002": 9, "train-00001-of-00002": 6, "validation": 3, "deep/test_all": 6}
    start = 0
    for name, count in parts.items():
        pq.write_table(
            table(count, start, struct_cells=struct_cells), root / f"{name}.parquet", row_group_size=4
        )
        start += count
    dataset = prepared(Parquet(root=str(root)), tmp_path)
    assert (len(dataset.train_labels), dataset.validation, len(dataset.test_labels)) == (18, 3, 6)
    assert dataset.classes == CLASSES
    assert dataset.shape == (3, 8, 8)
    for n, image in enumerate([*dataset.train_images, *dataset.test_images]):
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(picture(n))))), n


def test_without_names_of_parts_all_files_are_training_images(tmp_path):
    pq.write_table(table(30), tmp_path / "all.parquet")
    dataset = prepared(Parquet(root=str(tmp_path / "all.parquet")), tmp_path)
    assert np.bincount(dataset.train_labels).tolist() == [8, 8, 8]
    assert np.bincount(dataset.test_labels).tolist() == [2, 2, 2]
    every = [*dataset.train_images, *dataset.test_images]
    expected = {np.asarray(Image.open(io.BytesIO(picture(n)))).tobytes() for n in range(30)}
    assert {np.ascontiguousarray(image.transpose(1, 2, 0)).tobytes() for image in every} == expected


def test_texts_are_labels_and_numbers_are_named_by_themselves(tmp_path):
    pq.write_table(table(9, labels=["b", "a", "c"] * 3, names=None), tmp_path / "a.parquet")
    assert prepared(Parquet(root=str(tmp_path / "a.parquet")), tmp_path).classes == ("a", "b", "c")
    pq.write_table(table(9, names=None), tmp_path / "b.parquet")
    assert prepared(Parquet(root=str(tmp_path / "b.parquet")), tmp_path).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (CLASSES[::-1], "the label 0 is"),
        ((CLASSES[0], "another", CLASSES[2]), "the label 1 is"),
        (CLASSES, None),
        ((*CLASSES, "of no image"), None),
        (None, None),
    ],
)
def test_a_number_that_means_another_class_in_another_file_is_refused(tmp_path, names, words):
    root = tmp_path / "data"
    save_to_disk(root, train=table(12), test=table(6, 12, names=names))
    if words is None:
        assert prepared(HuggingFace(root=str(root)), tmp_path).classes == CLASSES
    else:
        refused = refusal(HuggingFace(root=str(root)), tmp_path)
        assert words in refused
        assert "data.label" in refused


def test_grey_images_have_one_channel_and_any_size_can_be_resized(tmp_path):
    grey = [
        picture(n, 8 + n, "L", kind) for n, kind in enumerate(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF"])
    ]
    grey = [image for image in grey if Image.open(io.BytesIO(image)).mode == "L"]
    assert len(grey) >= 4
    grey *= 3
    pq.write_table(
        table(len(grey), images=grey, labels=[n % 2 for n in range(len(grey))], names=None),
        tmp_path / "a.parquet",
    )
    config = Parquet(root=str(tmp_path / "a.parquet"))
    assert "the images have different sizes: row 0 of" in refusal(config, tmp_path)
    assert prepared(config.model_copy(update={"resize": 6}), tmp_path).shape == (1, 6, 6)


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 12_000, 60_000])
def test_an_image_that_claims_a_whole_memory_is_refused_before_it_is_decoded(tmp_path, side):
    pq.write_table(
        table(9, images=[picture(n) for n in range(8)] + [bomb(side, side)]), tmp_path / "a.parquet"
    )
    said = refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)
    assert "row 8 of" in said
    assert "at most 67,108,864 pixels" in said or "bomb" in said


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "has no image"),
        (None, "has no image"),
        (b"nothing that is an image", "its format is unknown"),
        (picture(1)[:60], "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "it is PostScript"),
    ],
)
def test_broken_images_are_counted_and_named(tmp_path, bad, words):
    images = [picture(n) for n in range(9)]
    images[4] = bad
    pq.write_table(table(9, images=images), tmp_path / "a.parquet")
    said = refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)
    assert f"row 4 of {tmp_path / 'a.parquet'}" in said
    assert words in said
    images[5:8] = [bad] * 3
    pq.write_table(table(9, images=images), tmp_path / "a.parquet")
    said = refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)
    assert "4 of 9 images cannot be used: row 4 of" in said
    assert said.count("row ") == 3


def test_sixteen_bits_are_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(buffer, "PNG")
    pq.write_table(table(9, images=[buffer.getvalue()] * 9), tmp_path / "a.parquet")
    assert "9 of 9 images" in refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (pa.table({"x": [1], "y": [2]}), {}, "data.image: no column can be the images: x and y"),
        (pa.table({"image": [b"1"], "z": [b"2"]}), {"label": "z"}, "the column 'z' holds binary"),
        (pa.table({"image": [b"1"], "b": [1], "c": [1]}), {}, "several columns may be the labels: b and c"),
        (pa.table({"image": [b"1"], "label": [1]}), {"image": "imgae"}, "did you mean 'image'?"),
        (pa.table({"image": [1], "label": [1]}), {"image": "image"}, "the column 'image' holds int64"),
        (table(3, labels=[0, 1, None]), {}, "an image has no label"),
        (table(3, labels=[0, 1, 5]), {}, "labels go from 0 to 5; 3 classes are named"),
        (table(3, labels=[0, 1, -1], names=None), {}, "labels go from -1 to 1"),
    ],
)
def test_a_column_that_cannot_be_it_is_named(tmp_path, content, options, words):
    pq.write_table(content, tmp_path / "a.parquet")
    assert words in refusal(Parquet(root=str(tmp_path / "a.parquet"), **options), tmp_path)


def test_what_is_no_parquet_is_said(tmp_path):
    assert "does not exist" in refusal(Parquet(root=str(tmp_path / "nothing")), tmp_path)
    (tmp_path / "empty").mkdir()
    assert "has no .parquet files" in refusal(Parquet(root=str(tmp_path / "empty")), tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    assert "a.parquet cannot be read" in refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)
    folder = tmp_path / "mixed"
    folder.mkdir()
    pq.write_table(table(9), folder / "train.parquet")
    pq.write_table(table(9), folder / "more.parquet")
    assert "more.parquet is of no part" in refusal(Parquet(root=str(folder)), tmp_path)


def test_the_cache_knows_the_files_as_they_are(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(30), file)
    config = Parquet(root=str(file))
    first = prepared(config, tmp_path)
    assert datasets.fingerprint(config, tmp_path / "cache") == first.fingerprint
    pq.write_table(table(30, start=100), file)
    assert datasets.fingerprint(config, tmp_path / "cache") is None
    assert prepared(config, tmp_path).fingerprint != first.fingerprint


def test_images_that_do_not_fit_on_the_disk_are_refused_before_they_are_written(tmp_path, monkeypatch):
    pq.write_table(table(30), tmp_path / "a.parquet")
    usage = cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    said = refusal(Parquet(root=str(tmp_path / "a.parquet")), tmp_path)
    assert "the decoded images take 5.8 kB" in said or "the decoded images take" in said
    assert "ABLATE_CACHE" in said


# --- Hugging Face -----------------------------------------------------------------------------------------------------


def test_a_saved_data_set_has_its_splits_and_its_classes(tmp_path):
    save_to_disk(
        tmp_path / "saved", train=table(12), validation=table(3, 50), test=table(6, 60), extra=table(3)
    )
    dataset = prepared(HuggingFace(root=str(tmp_path / "saved")), tmp_path)
    assert (len(dataset.train_labels), dataset.validation, len(dataset.test_labels)) == (15, 3, 6)
    assert dataset.classes == CLASSES
    pq.write_table(table(12), tmp_path / "train.parquet")
    as_parquet = prepared(Parquet(root=str(tmp_path / "train.parquet")), tmp_path)
    assert set(as_parquet.train_images.tobytes()) <= set(range(256))


def test_images_may_lie_beside_the_data_set(tmp_path):
    (tmp_path / "pictures").mkdir()
    cells = []
    for n in range(9):
        file = tmp_path / "pictures" / f"{n}.png"
        file.write_bytes(picture(n))
        cells.append({"bytes": None, "path": str(file)})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    content = pa.table({"image": pa.array(cells, kind), "label": [n % 3 for n in range(9)]})
    save_to_disk(tmp_path / "saved", train=content, test=content)
    assert prepared(HuggingFace(root=str(tmp_path / "saved")), tmp_path).train_images.shape == (9, 3, 8, 8)
    (tmp_path / "pictures" / "3.png").unlink()
    (tmp_path / "saved" / "train" / "state.json").touch()
    save_to_disk(tmp_path / "again", train=content)
    assert "row 3 of" in refusal(HuggingFace(root=str(tmp_path / "again")), tmp_path)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "train" / "state.json").unlink(), "was not saved by save_to_disk"),
        (lambda root: (root / "train" / "state.json").write_text("[]"), "is not what datasets writes"),
        (lambda root: (root / "train" / "state.json").write_text("{"), "cannot be read"),
        (lambda root: (root / "train" / "data-0.arrow").unlink(), "cannot be read"),
        (lambda root: (root / "train" / "data-0.arrow").write_bytes(b"x" * 99), "cannot be read"),
        (
            lambda root: (root / "dataset_dict.json").write_text('{"splits": ["extra"]}'),
            "no split that is called",
        ),
        (
            lambda root: (root / "train" / "state.json").write_text(
                '{"_data_files": [{"filename": "../../outside.arrow"}]}'
            ),
            "train/outside.arrow cannot be read",
        ),
        (
            lambda root: (root / "train" / "state.json").write_text(
                '{"_indices_data_files": [{"filename": "i"}]}'
            ),
            "an old version of datasets",
        ),
    ],
)
def test_a_folder_that_is_not_what_was_saved_is_refused(tmp_path, spoil, words):
    save_to_disk(tmp_path / "saved", train=table(9))
    spoil(tmp_path / "saved")
    assert words in refusal(HuggingFace(root=str(tmp_path / "saved")), tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_what_datasets_itself_saves_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own = pytest.importorskip("datasets", reason="the package datasets is not installed")
    features = own.Features({"img": own.Image(), "fine_label": own.ClassLabel(names=list(CLASSES))})
    parts = {
        split: own.Dataset.from_dict(
            {
                "img": [Image.open(io.BytesIO(picture(n))) for n in range(count)],
                "fine_label": [n % 3 for n in range(count)],
            },
            features=features,
        )
        for split, count in (("train", 12), ("test", 6))
    }
    own.disable_progress_bars()
    own.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    dataset = prepared(HuggingFace(root=str(tmp_path / "saved")), tmp_path)
    assert dataset.classes == CLASSES
    assert np.array_equal(
        dataset.train_images[5].transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(picture(5))))
    )
    parts["train"].select(range(3, 12)).save_to_disk(str(tmp_path / "one"))
    assert len(prepared(HuggingFace(root=str(tmp_path / "one")), tmp_path).train_labels) == 6
    parts["train"].to_parquet(str(tmp_path / "train.parquet"))
    assert prepared(Parquet(root=str(tmp_path / "train.parquet")), tmp_path).classes == CLASSES


# --- what is not used, or damaged -------------------------------------------------------------------------------------


def _other_files(root: Path) -> None:
    (root / "more.csv").write_text("a,b")
    (root / "README.md").write_text("about")
    (root / ".hidden.parquet").write_text("a file manager's")


def _missing_shards(root: Path) -> None:
    (root / "train.parquet").rename(root / "train-00000-of-00003.parquet")


def _repeated(root: Path) -> None:
    pq.write_table(table(3, 1), root / "test.parquet")


@pytest.mark.parametrize(
    ("spoil", "notes"),
    [
        (lambda _root: None, []),
        (_other_files, ["1 file is not used, not ending in .parquet: more.csv"]),
        (_missing_shards, ["2 files of 3 are missing of train-…-of-00003"]),
        (_repeated, ["3 of 3 test images are the same, pixel for pixel, as the training images"]),
        (
            lambda root: (root / "test.parquet").unlink(),
            ["the data have no test set: 3 of 12 training images are held out as one"],
        ),
    ],
)
def test_what_is_not_used_of_parquet_files_is_noted(tmp_path, spoil, notes):
    root = tmp_path / "rows"
    root.mkdir()
    pq.write_table(table(12), root / "train.parquet")
    pq.write_table(table(6, 50), root / "test.parquet")
    spoil(root)
    assert list(prepared(Parquet(root=str(root)), tmp_path).notes) == notes


def test_classes_that_the_test_set_of_a_table_lacks_are_noted(tmp_path):
    root = tmp_path / "rows"
    root.mkdir()
    pq.write_table(table(12), root / "train.parquet")
    pq.write_table(table(1, 50), root / "test.parquet")
    [note] = prepared(Parquet(root=str(root)), tmp_path).notes
    assert note.startswith("test has no images of ")


def test_splits_that_are_not_used_are_noted(tmp_path):
    save_to_disk(
        tmp_path / "saved", train=table(12), Test=table(6, 50), unsupervised=table(3), extra=table(3)
    )
    data = prepared(HuggingFace(root=str(tmp_path / "saved")), tmp_path)
    assert (len(data.train_labels), len(data.test_labels)) == (12, 6)
    assert data.notes == (
        "2 splits are not used, not being called train, validation or test: unsupervised, extra",
    )


def test_a_stream_that_ends_between_two_batches_is_refused(tmp_path):
    """pyarrow takes it for a shorter one."""
    save_to_disk(tmp_path / "saved", train=table(12))
    file = tmp_path / "saved" / "train" / "data-0.arrow"
    content = file.read_bytes()
    file.write_bytes(content[:-8])
    assert len(pa.ipc.open_stream(content[:-8]).read_all()) == 12
    assert "lacks the end of a stream" in refusal(HuggingFace(root=str(tmp_path / "saved")), tmp_path)


def test_texts_that_look_alike_are_one_class_and_say_nothing_to_a_terminal(tmp_path):
    labels = ["caf\u00e9", "cafe\u0301", "\x1b[31mred", "\u202eexe"] * 3
    pq.write_table(table(12, labels=labels, names=None), tmp_path / "train.parquet")
    assert prepared(Parquet(root=str(tmp_path)), tmp_path).classes == (
        "\\u202eexe",
        "\\x1b[31mred",
        "caf\u00e9",
    )


@pytest.mark.parametrize("kind", ["parquet", "huggingface"])
def test_damaged_tables_are_read_whole_or_refused(tmp_path, kind):
    root = tmp_path / "rows"
    if kind == "parquet":
        root.mkdir()
        pq.write_table(table(12), root / "train.parquet")
        config = Parquet(root=str(root))
    else:
        save_to_disk(root, train=table(12))
        config = HuggingFace(root=str(root))
    draw = random.Random(1)
    files = [file for file in sorted(root.rglob("*")) if file.is_file()]
    for _ in range(40):
        file = draw.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        if draw.random() < 0.7:
            for _ in range(draw.choice((1, 2, 8))):
                damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(damaged)) :]
        file.write_bytes(damaged)
        with contextlib.suppress(DataError):
            data = prepared(config, tmp_path)
            assert len(data.train_labels) + len(data.test_labels) == 12
        file.write_bytes(whole)
