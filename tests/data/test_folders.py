"""Image folders, well laid out and otherwise."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from painted_folders import paint
from PIL import Image

from ablate.data import datasets, folders
from ablate.data.datasets import ImageFolder
from ablate.errors import DataError


def prepare(root, tmp_path, **fields):
    return datasets.prepare(ImageFolder(root=str(root), **fields), tmp_path / "cache")


def refusal(root, tmp_path, **fields) -> str:
    with pytest.raises(DataError) as caught:
        prepare(root, tmp_path, **fields)
    assert caught.value.place == "data.root"
    return str(caught.value)


def test_images_come_in_sorted_order_with_sorted_classes(tmp_path):
    root = paint(tmp_path / "pets", classes=("zebra", "ant", "10", "9"))
    data = prepare(root, tmp_path)
    assert data.classes == ("10", "9", "ant", "zebra")
    assert data.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert data.test_labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for images, part, count in ((data.train_images, "train", 6), (data.test_images, "test", 3)):
        for n, image in enumerate(images):
            file = root / part / data.classes[n // count] / f"{n % count}.png"
            assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(file)))


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_images_that_are_all_grey_have_one_channel(tmp_path, mode):
    root = paint(tmp_path / "grey", mode=mode)
    data = prepare(root, tmp_path)
    assert data.shape == (1, 6, 8)
    expected = np.asarray(Image.open(root / "train" / "cat" / "0.png").convert("L"))
    assert np.array_equal(data.train_images[0, 0], expected)


def test_one_coloured_image_makes_all_of_them_rgb(tmp_path):
    root = paint(tmp_path / "mixed", mode="L")
    file = root / "test" / "dog" / "2.png"
    Image.open(file).convert("RGB").save(file)
    assert prepare(root, tmp_path).shape == (3, 6, 8)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_other_modes_are_read_as_rgb(tmp_path, mode):
    root = paint(tmp_path / "other", mode=mode)
    expected = np.asarray(Image.open(root / "train" / "cat" / "0.png").convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(prepare(root, tmp_path).train_images[0], expected)


def test_jpegs_are_read_as_pil_reads_them(tmp_path):
    root = paint(tmp_path / "pets")
    for file in root.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".JPG"), "JPEG")
        file.unlink()
    expected = np.asarray(Image.open(root / "train" / "cat" / "0.JPG")).transpose(2, 0, 1)
    assert np.array_equal(prepare(root, tmp_path).train_images[0], expected)


def test_threads_decode_the_same_as_one(tmp_path, monkeypatch):
    root = paint(tmp_path / "pets", train=80)
    one = prepare(root, tmp_path)
    monkeypatch.setattr(folders, "_WORTH_THREADS", 0)
    shutil.rmtree(tmp_path / "cache")
    assert prepare(root, tmp_path).fingerprint == one.fingerprint


def test_resize_scales_every_image_to_a_square_as_pil_does(tmp_path):
    root = paint(tmp_path / "pets")
    Image.new("RGB", (40, 20)).save(root / "train" / "cat" / "0.png")
    data = prepare(root, tmp_path, resize=4)
    assert data.shape == (3, 4, 4)
    expected = Image.open(root / "train" / "cat" / "1.png").resize((4, 4), Image.Resampling.BILINEAR)
    assert np.array_equal(data.train_images[1].transpose(1, 2, 0), np.asarray(expected))


def test_one_tree_is_split_four_to_one_and_reproducibly(tmp_path):
    paint(tmp_path / "pets", train=15)
    data = prepare(tmp_path / "pets" / "train", tmp_path)
    assert np.bincount(data.train_labels).tolist() == [12, 12]
    assert np.bincount(data.test_labels).tolist() == [3, 3]
    seen = [image.tobytes() for images in (data.train_images, data.test_images) for image in images]
    assert len(set(seen)) == 30, "no image is in both parts"
    shutil.rmtree(tmp_path / "cache")
    assert prepare(tmp_path / "pets" / "train", tmp_path).fingerprint == data.fingerprint


def test_one_tree_with_a_class_too_small_to_split_is_refused(tmp_path):
    paint(tmp_path / "pets", train=10)
    for i in range(1, 10):
        (tmp_path / "pets" / "train" / "dog" / f"{i}.png").unlink()
    message = refusal(tmp_path / "pets" / "train", tmp_path)
    assert "class 'dog' has 1 image: too few" in message


def test_files_that_are_no_images_are_ignored(tmp_path):
    root = paint(tmp_path / "pets")
    (root / "LICENSE").write_text("free")
    (root / "train" / ".hidden").mkdir()
    (root / "train" / "cat" / "notes.txt").write_text("a cat")
    (root / "train" / "cat" / "._0.png").write_bytes(b"a file manager's")
    (root / "train" / "cat" / "more.png").mkdir()
    assert len(prepare(root, tmp_path).train_images) == 12


def test_file_names_need_not_be_unicode(tmp_path):
    root = paint(tmp_path / "pets")
    file = root / "train" / "cat" / "0.png"
    try:
        file.rename(file.with_name("\udcff.png"))
    except OSError:
        pytest.skip("this file system takes only Unicode names")
    assert len(prepare(root, tmp_path).train_images) == 12


def test_a_home_folder_may_be_abbreviated(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    paint(tmp_path / "pets")
    assert prepare("~/pets", tmp_path).shape == (3, 6, 8)


# --- mistakes ---------------------------------------------------------------------------------------------------


def test_a_missing_folder_is_named(tmp_path):
    message = refusal(tmp_path / "nowhere", tmp_path)
    assert f"{tmp_path / 'nowhere'} does not exist" in message
    assert "train/<class>/*" in message


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in refusal(tmp_path / "file", tmp_path)


def test_a_test_set_without_training_images_is_refused(tmp_path):
    shutil.rmtree(paint(tmp_path / "pets") / "train")
    message = refusal(tmp_path / "pets", tmp_path)
    assert "has test/ but no train/" in message
    assert "one tree" in message


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no class folders" in refusal(tmp_path / "empty", tmp_path)


def test_classes_that_differ_are_listed(tmp_path):
    root = paint(tmp_path / "pets")
    (root / "test" / "dog").rename(root / "test" / "wolf")
    assert "(only in train/: dog; only in test/: wolf)" in refusal(root, tmp_path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_without_images_is_named(tmp_path, part):
    root = paint(tmp_path / "pets")
    for file in (root / part / "dog").iterdir():
        file.rename(file.with_suffix(".txt"))
    message = refusal(root, tmp_path)
    assert f"there are no images in {root / part / 'dog'}" in message
    assert ".png" in message


def test_one_class_alone_is_refused(tmp_path):
    root = paint(tmp_path / "pets", classes=("cat",))
    assert "only one class, 'cat'" in refusal(root, tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_an_unreadable_image_is_named(tmp_path, suffix, damage):
    root = paint(tmp_path / "pets", size=(32, 32))
    file = root / "train" / "dog" / f"0.{suffix}"
    Image.open(root / "train" / "dog" / "0.png").save(file)
    whole = file.read_bytes()
    file.write_bytes({"text": b"not an image", "cut": whole[: len(whole) // 2], "empty": b""}[damage])
    message = refusal(root, tmp_path)
    assert f"{file} cannot be read as an image" in message
    assert "BytesIO" not in message


def test_a_broken_link_is_ignored(tmp_path):
    root = paint(tmp_path / "pets")
    (root / "train" / "cat" / "z.png").symlink_to(tmp_path / "nowhere.png")
    assert len(prepare(root, tmp_path).train_images) == 12


def test_images_of_several_sizes_need_resize(tmp_path):
    root = paint(tmp_path / "pets")
    Image.new("RGB", (40, 30)).save(root / "test" / "dog" / "1.png")
    message = refusal(root, tmp_path)
    assert "train/cat/0.png is 8×6, test/dog/1.png is 40×30" in message
    assert "--set data.resize=6" in message


def test_deep_images_are_refused_rather_than_clipped(tmp_path):
    root = paint(tmp_path / "pets")
    deep = np.full((6, 8), 40_000, dtype=np.uint16)
    Image.fromarray(deep).save(root / "train" / "cat" / "3.png")
    assert f"{root / 'train' / 'cat' / '3.png'} has more than 8 bits" in refusal(root, tmp_path)


def test_cached_data_with_the_wanted_fingerprint_do_not_read_the_folder(tmp_path):
    root = paint(tmp_path / "pets")
    made = prepare(root, tmp_path)
    shutil.rmtree(root)
    config = ImageFolder(root=str(root))
    found = datasets.prepare(config, tmp_path / "cache", wanted=made.fingerprint)
    assert np.array_equal(found.train_images, made.train_images)


def test_a_folder_that_has_changed_since_the_plan_is_refused(tmp_path):
    root = paint(tmp_path / "pets")
    planned = prepare(root, tmp_path).fingerprint
    shutil.rmtree(tmp_path / "cache" / "datasets" / planned)  # as on another machine
    next(root.rglob("*.png")).unlink()
    config = ImageFolder(root=str(root))
    with pytest.raises(DataError, match="have changed since this run was planned") as caught:
        datasets.prepare(config, tmp_path / "cache", wanted=planned)
    assert caught.value.place == "data.root"
