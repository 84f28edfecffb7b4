"""Data sets by name, and the cache that they are decoded into."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from file_times import wait_past
from painted_folders import Counter, paint
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from ablate import cache_folder
from ablate.data import cache, datasets
from ablate.data.datasets import (
    DATASETS,
    Cifar10,
    DataConfig,
    Digits,
    ImageFolder,
)
from ablate.errors import DataError


@pytest.fixture
def folder(tmp_path):
    return paint(tmp_path / "pets")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "cache"


def entries(store: Path) -> list[Path]:
    return [p for p in (store / "datasets").iterdir() if (p / "meta.json").exists()]


# --- configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DATASETS.values(), ids=DATASETS)
def test_every_data_set_has_the_common_fields_and_every_field_is_described(kind):
    assert {"name", "subset", "validation", "split", "normalize", "resize"} <= set(kind.model_fields)
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_the_union_finds_a_data_set_by_its_name():
    parse = TypeAdapter(DataConfig).validate_python
    assert parse({"name": "digits", "subset": 100}) == Digits(subset=100)
    assert parse({"name": "image_folder", "root": "pets"}) == ImageFolder(root="pets")
    assert DATASETS["digits"] is Digits
    assert DATASETS["image_folder"] is ImageFolder


@pytest.mark.parametrize(
    "change",
    [
        {"subset": 0},
        {"subset": 1.5},
        {"subset": True},
        {"validation": 0},
        {"validation": 1},
        {"validation": True},
        {"validation": float("nan")},
        {"validation": "0.1"},
        {"normalize": 1},
        {"split": "sometimes"},
        {"resize": 0},
        {"resize": float("inf")},
        {"colour": "red"},
        {"root": "x"},
    ],
)
def test_a_value_that_does_not_fit_is_refused(change):
    with pytest.raises(ValidationError):
        Digits(**change)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        Digits().subset = 3


def test_importing_and_a_warm_start_load_neither_torch_nor_sklearn_nor_pil(store, folder):
    datasets.prepare(ImageFolder(root=str(folder)), store)
    datasets.prepare(Digits(), store)
    code = (
        "import sys; from pathlib import Path; from ablate.data import augment, datasets as d\n"
        f"d.prepare(d.Digits(), Path({str(store)!r})); d.prepare(d.ImageFolder(root={str(folder)!r}), Path({str(store)!r}))\n"
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'PIL', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


# --- digits -----------------------------------------------------------------------------------------------------


def test_digits_are_sklearns_images_scaled_to_bytes_with_a_stratified_fifth_as_the_test_set(store):
    from sklearn.datasets import load_digits

    ours = datasets.prepare(Digits(), store)
    theirs = load_digits()
    assert (len(ours.train_labels), len(ours.test_labels), ours.shape) == (1438, 359, (1, 8, 8))
    assert ours.classes == tuple("0123456789")
    images = np.concatenate([ours.train_images, ours.test_images])[:, 0]
    labels = np.concatenate([ours.train_labels, ours.test_labels])
    expected = sorted(
        (t, np.round(i * 255 / 16).astype(int).tolist())
        for i, t in zip(theirs.images, theirs.target, strict=True)
    )
    assert sorted((t, i.tolist()) for i, t in zip(images, labels, strict=True)) == expected
    shares = np.bincount(ours.test_labels) / np.bincount(labels)
    assert np.all(np.abs(shares - 0.2) < 0.005)


def test_digits_are_the_same_in_every_cache(tmp_path):
    assert (
        datasets.prepare(Digits(), tmp_path / "a").fingerprint
        == datasets.prepare(Digits(), tmp_path / "b").fingerprint
    )


def test_resizing_digits_scales_them_as_pil_does_and_is_another_data_set(store):
    plain, large = datasets.prepare(Digits(), store), datasets.prepare(Digits(resize=12), store)
    assert large.shape == (1, 12, 12)
    expected = Image.fromarray(np.array(plain.train_images[5, 0])).resize((12, 12), Image.Resampling.BILINEAR)
    assert np.array_equal(large.train_images[5, 0], np.asarray(expected))
    assert plain.fingerprint != large.fingerprint


# --- arrays and fingerprints ------------------------------------------------------------------------------------


def test_images_are_memory_maps_with_channels_last_that_torch_takes_as_they_are(folder, store):
    import torch

    data = datasets.prepare(ImageFolder(root=str(folder)), store)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert isinstance(images, np.memmap)
        assert images.dtype == np.uint8
        assert images.transpose(0, 2, 3, 1).flags.c_contiguous
        assert labels.dtype == np.int64
        assert torch.from_numpy(images).shape == images.shape == (len(labels), 3, 6, 8)


def test_writing_into_the_arrays_does_not_reach_the_cache(folder, store):
    config = ImageFolder(root=str(folder))
    data = datasets.prepare(config, store)
    before = int(data.train_images[0, 0, 0, 0])
    data.train_images[0, 0, 0, 0] = before ^ 255
    del data
    assert int(datasets.prepare(config, store).train_images[0, 0, 0, 0]) == before


def test_the_fingerprint_depends_on_content_and_not_on_place_or_time(tmp_path, store):
    one = paint(tmp_path / "one")
    two = shutil.copytree(one, tmp_path / "two", copy_function=shutil.copyfile)
    os.utime(two / "train" / "cat" / "0.png", (1, 1))
    prints = [datasets.prepare(ImageFolder(root=str(root)), store).fingerprint for root in (one, two)]
    assert prints[0] == prints[1]
    assert [e.name for e in entries(store)] == [prints[0]]


@pytest.mark.parametrize("change", ["pixel", "label", "class name", "test image"])
def test_the_fingerprint_changes_with_any_part_of_the_content(tmp_path, store, change):
    root = paint(tmp_path / "one")
    before = datasets.prepare(ImageFolder(root=str(root)), store).fingerprint
    if change == "class name":
        for part in ("train", "test"):
            (root / part / "dog").rename(root / part / "eel")
    elif change == "label":
        (root / "train" / "dog" / "0.png").rename(root / "train" / "cat" / "9.png")
    else:
        file = root / ("train" if change == "pixel" else "test") / "dog" / "1.png"
        image = Image.open(file)
        image.putpixel((0, 0), (1, 2, 3))
        image.save(file)
    assert datasets.prepare(ImageFolder(root=str(root)), store).fingerprint != before


def test_fingerprint_builds_nothing_and_returns_that_of_a_built_entry(folder, store):
    config = ImageFolder(root=str(folder))
    assert datasets.fingerprint(config, store) is None
    assert not store.exists()
    data = datasets.prepare(config, store)
    assert datasets.fingerprint(config, store) == data.fingerprint
    assert datasets.fingerprint(ImageFolder(root=str(folder), resize=4), store) is None
    assert datasets.fingerprint(ImageFolder(root=str(folder / "nowhere")), store) is None
    assert datasets.fingerprint(Cifar10(), store) is None


def test_training_fields_have_no_effect_on_the_cache(folder, store):
    first = datasets.prepare(ImageFolder(root=str(folder)), store)
    counter = Counter()
    other = ImageFolder(root=str(folder), subset=8, validation=0.25, split="per-seed", normalize=False)
    assert datasets.prepare(other, store, counter).fingerprint == first.fingerprint
    assert counter.calls == []


# --- the cache --------------------------------------------------------------------------------------------------


def test_a_second_call_decodes_nothing(folder, store):
    config, counter = ImageFolder(root=str(folder)), Counter()
    first = datasets.prepare(config, store, counter)
    assert counter.calls[-1] == ("reading images", 18, 18)
    counter.calls.clear()
    second = datasets.prepare(config, store, counter)
    assert counter.calls == []
    assert np.array_equal(first.train_images, second.train_images)
    assert second.fingerprint == first.fingerprint


def test_a_folder_that_moved_keeps_its_entry(tmp_path, store):
    root = paint(tmp_path / "here")
    datasets.prepare(ImageFolder(root=str(root)), store)
    root.rename(tmp_path / "there")
    counter = Counter()
    datasets.prepare(ImageFolder(root=str(tmp_path / "there")), store, counter)
    assert counter.calls == []


def test_a_file_that_is_replaced_by_another_of_its_size_and_date_is_noticed(tmp_path, store):
    root = paint(tmp_path / "pets", mode="L")
    for file in root.rglob("*.png"):  # uncompressed, so that all have one size
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    before = datasets.prepare(ImageFolder(root=str(root)), store)
    one, other = root / "train" / "cat" / "0.bmp", root / "train" / "cat" / "1.bmp"
    status = one.stat()
    one.write_bytes(other.read_bytes())
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (one.stat().st_size, one.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = datasets.prepare(ImageFolder(root=str(root)), store)
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(after.train_images[0], after.train_images[1])


def _truncate(entry, _index):
    os.truncate(entry / "train_images.npy", 200)


def _lose_a_file(entry, _index):
    (entry / "test_labels.npy").unlink()


def _lose_meta(entry, _index):
    (entry / "meta.json").write_text("{")


def _other_shape(entry, _index):
    meta = json.loads((entry / "meta.json").read_text())
    meta["shapes"]["train_images"][0] += 1
    (entry / "meta.json").write_text(json.dumps(meta))


def _older_format(entry, _index):
    meta = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps(meta | {"format": -1}))


def _lose_entry(entry, _index):
    shutil.rmtree(entry)


def _tear_index(_entry, index):
    index.write_text('{"finger')


def _list_as_index(_entry, index):
    index.write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        _truncate,
        _lose_a_file,
        _lose_meta,
        _other_shape,
        _older_format,
        _lose_entry,
        _tear_index,
        _list_as_index,
    ],
)
def test_a_damaged_cache_is_rebuilt(folder, store, damage):
    config = ImageFolder(root=str(folder))
    before = datasets.prepare(config, store)
    expected = np.array(before.train_images)
    (index,) = (store / "datasets" / "sources").iterdir()
    damage(store / "datasets" / before.fingerprint, index)
    assert datasets.fingerprint(config, store) is None
    after = datasets.prepare(config, store)
    assert after.fingerprint == before.fingerprint
    assert np.array_equal(after.train_images, expected)
    assert len(entries(store)) == 1


def _flip(file, draw):
    content = bytearray(file.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def _cut(file, draw):
    os.truncate(file, draw.randrange(file.stat().st_size))


def _grow(file, draw):
    file.write_bytes(file.read_bytes() + draw.randbytes(9))


def _folder_instead(file, _draw):
    file.unlink()
    file.mkdir()


def _pipe_instead(file, _draw):
    file.unlink()
    os.mkfifo(file)


def _link_instead(file, _draw):
    file.unlink()
    file.symlink_to("nowhere")


def _another_file_instead(file, draw):
    file.write_bytes(draw.choice([b"", b"{}", b"[" * 5000, b"null", b"\x93NUMPY", draw.randbytes(200)]))


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_to_a_file_of_the_cache_the_data_are_those_of_the_source(folder, store, seed):
    """Flips keep the time of the file, as those of a disk do not; but of a file that is written to, the time of change is told."""
    draw = random.Random(seed)
    config = ImageFolder(root=str(folder))
    before = datasets.prepare(config, store)
    expected = {name: np.array(getattr(before, name)) for name in cache._ARRAYS}
    acts = [_flip] * 4 + [_cut, _grow, _folder_instead, _pipe_instead, _link_instead, _another_file_instead]
    for act in draw.sample(acts, len(acts)):
        file = draw.choice(
            [p for p in sorted((store / "datasets").rglob("*.*")) if p.is_file() and p.suffix != ".lock"]
        )
        status = file.stat()
        wait_past(file)
        act(file, draw)
        if act is _flip:
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        after = datasets.prepare(config, store)
        assert after.fingerprint == before.fingerprint
        for name, array in expected.items():
            assert np.array_equal(getattr(after, name), array), (act, file)


def test_a_cache_that_was_copied_is_read_through_once_and_used(folder, store, tmp_path):
    config = ImageFolder(root=str(folder))
    before = datasets.prepare(config, store)
    shutil.copytree(store, tmp_path / "copy")
    counter = Counter()
    assert datasets.prepare(config, tmp_path / "copy", counter).fingerprint == before.fingerprint
    assert counter.calls == []
    meta = json.loads((tmp_path / "copy" / "datasets" / before.fingerprint / "meta.json").read_text())
    images = tmp_path / "copy" / "datasets" / before.fingerprint / "train_images.npy"
    assert meta["files"]["train_images"]["stamp"][2] == images.stat().st_ctime_ns


def _without_lock(folder, store) -> tuple[ImageFolder, Path]:
    """Data that have to be decoded again, and where their lock lay."""
    config = ImageFolder(root=str(folder))
    datasets.prepare(config, store)
    (lock,) = (store / "datasets").glob("*.lock")
    lock.unlink()
    for entry in entries(store):
        shutil.rmtree(entry)
    return config, lock


def test_a_pipe_in_the_place_of_a_lock_makes_nothing_wait(folder, store):
    config, lock = _without_lock(folder, store)
    os.mkfifo(lock)
    assert len(datasets.prepare(config, store).train_images) == 12


def test_a_folder_in_the_place_of_a_lock_is_an_error_that_names_the_cache(folder, store):
    config, lock = _without_lock(folder, store)
    lock.mkdir()
    with pytest.raises(DataError, match="cannot be written: Is a directory"):
        datasets.prepare(config, store)


def test_without_a_home_folder_the_message_names_the_variable(monkeypatch):
    def homeless(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ABLATE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(DataError, match="ABLATE_CACHE"):
        cache_folder.default_folder()


def test_the_cache_is_in_the_folder_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "mine"))
    assert cache_folder.default_folder() == tmp_path / "mine"
    datasets.prepare(Digits())
    assert (tmp_path / "mine" / "datasets").is_dir()
    monkeypatch.delenv("ABLATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder.default_folder() == tmp_path / "xdg" / "ablate"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder.default_folder() == Path.home() / ".cache" / "ablate"


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written.*Not a directory") as caught:
        datasets.prepare(Digits(), tmp_path / "file")
    assert "ABLATE_CACHE" in str(caught.value)


def test_a_failed_build_leaves_nothing_behind(folder, store):
    (folder / "test" / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        datasets.prepare(ImageFolder(root=str(folder)), store)
    assert list((store / "datasets").glob("building-*")) == []
    assert entries(store) == []


# Builds in a process of its own. After the first batch, `hold` says so and waits for a line before it goes on.
BUILDER = """
import sys, fcntl
from pathlib import Path
from ablate.data import datasets
root, store, hold = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "hold"
calls = []
def progress(what, done, total):
    calls.append(done)
    if hold:
        print("building", flush=True)
        sys.stdin.readline()
flock = fcntl.flock
def say(*args):
    print("locking", flush=True)
    flock(*args)
fcntl.flock = say
data = datasets.prepare(datasets.ImageFolder(root=root), store, progress)
print("done", len(calls), data.fingerprint, int(data.train_images.sum()), flush=True)
"""


def builder(folder: Path, store: Path, how: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(folder), str(store), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_builder_that_is_killed_leaves_the_cache_usable(folder, store):
    config = ImageFolder(root=str(folder))
    with builder(folder, store, "hold") as process:
        assert [process.stdout.readline() for _ in range(2)] == ["locking\n", "building\n"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    (leftover,) = (store / "datasets").glob("building-*")
    assert (leftover / "pixels").exists()
    assert datasets.fingerprint(config, store) is None
    data = datasets.prepare(config, store)
    assert len(data.train_images) == 12
    assert list((store / "datasets").glob("building-*")) == []


def test_leftovers_of_a_killed_builder_are_removed_by_the_next_one(folder, store):
    with builder(folder, store, "hold") as process:
        assert [process.stdout.readline() for _ in range(2)] == ["locking\n", "building\n"]
        datasets.prepare(Digits(), store)
        assert len(list((store / "datasets").glob("building-*"))) == 1, "the living builder's folder stays"
        process.kill()
    datasets.prepare(Digits(resize=4), store)
    assert list((store / "datasets").glob("building-*")) == []


def test_a_second_builder_waits_for_the_first_and_reads_what_it_built(folder, store):
    with builder(folder, store, "hold") as first:
        assert [first.stdout.readline() for _ in range(2)] == ["locking\n", "building\n"]
        with builder(folder, store, "go") as second:
            assert second.stdout.readline() == "locking\n"  # and there it waits: the first holds the lock
            out, _ = first.communicate("\n")
            answer = out.split()
            assert answer[:2] == ["done", "1"]
            assert second.communicate()[0].split() == ["done", "0", *answer[2:]]


def test_builders_that_race_agree_and_only_one_decodes(folder, store):
    processes = [builder(folder, store, "go") for _ in range(4)]
    answers = [p.communicate()[0].split("done")[1].split() for p in processes]
    assert sorted(int(calls) for calls, *_ in answers) == [0, 0, 0, 1]
    assert len({tuple(rest) for _, *rest in answers}) == 1


def test_progress_on_stderr_prints_nothing_for_quick_steps_and_a_line_for_slow_ones(capsys):
    quick = cache.Stderr()
    quick("reading images", 1, 10)
    assert capsys.readouterr().err == ""
    slow = cache.Stderr(first=0, every=1000)
    slow("reading images", 2500, 10_000)
    slow("reading images", 2600, 10_000)
    assert capsys.readouterr().err == "reading images: 2,500 of 10,000 (25 %)\n"


# --- real data --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("ABLATE_CIFAR10_DIR"),
    reason="ABLATE_CIFAR10_DIR names no folder with CIFAR-10 as images (train/<class>/*, test/<class>/*)",
)
def test_all_of_cifar10_is_decoded_once_and_then_read_from_the_cache(store):
    config = ImageFolder(root=os.environ["ABLATE_CIFAR10_DIR"])
    data = datasets.prepare(config, store)
    assert (data.train_images.shape, data.test_images.shape) == ((50_000, 3, 32, 32), (10_000, 3, 32, 32))
    assert (len(data.classes), data.classes[0], data.classes[-1]) == (10, "airplane", "truck")
    assert set(np.bincount(data.train_labels)) == {5000}
    counter = Counter()
    again = datasets.prepare(config, store, counter)
    assert counter.calls == []
    assert again.fingerprint == data.fingerprint
    train, validation = datasets.split(data.train_labels, config, 0)
    assert (len(train), len(validation)) == (45_000, 5_000)
    mean, deviation = datasets.normalization(data.train_images, train)
    # The figures that everyone uses for CIFAR-10; a JPEG copy is within its loss of them.
    assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.003)
    assert deviation == pytest.approx([0.2470, 0.2435, 0.2616], abs=0.003)
