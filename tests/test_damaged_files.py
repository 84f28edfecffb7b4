"""Whatever lies in the place of a file that ablate reads by itself: what cannot be read is left out, made again or refused in one line.

Each reader is tried alone, with files changed at random, and with links, pipes, devices, folders and files of holes in their place.
"""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mutations import Watch, damage, peak_bytes
from PIL import Image

from ablate import cache_folder, launch, plain_files
from ablate.data import cache
from ablate.data.datasets import ImageFolder, prepare
from ablate.data.facts import DataFacts
from ablate.errors import AblateError
from ablate.scheduling import seed_check
from ablate.study import design, spec
from ablate.study.record import PlanRecord
from ablate.tracking import columns, predictions
from ablate.tracking.rejected import VALUE_ERRORS
from ablate.tracking.spool import delivered_operations, read_spool
from ablate.training.builtin import checkpoint
from ablate.training.output import left_output

MOST_BYTES = 1 << 29
"""Memory that reading a damaged file of a few kilobytes may take."""


class Reader(NamedTuple):
    """make: writes whole files into a folder. read: them; what it may raise is in `refusals`. name: pattern of the files to damage."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...] = ()
    name: str = "*"


def content(path: Path) -> bytes | None:
    """Return a file as the reader of artifacts does."""
    try:
        return plain_files.read(path)
    except OSError:
        return None


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


PARTS = {
    f"{part}_{name}": np.arange(20) % 4 for part in ("val", "test") for name in ("predicted", "index", "true")
}


def save_curves(folder: Path) -> None:
    made = columns.Columns.of(2, [(run, "val/loss", step, 0, 0.5) for run in (0, 1) for step in range(9)])
    columns.save(folder / "toy.curves.npz", columns.Cached({("a", 1.0): 0, ("b", 2.0): 1}, made))


def save_predictions(folder: Path) -> None:
    read, _ = predictions.read(json.dumps([[3, 1], [0, 4]]).encode(), npz(**PARTS), {}, 0)
    predictions.save(
        folder / "toy.predictions.npz",
        predictions.Predictions({("a", 1.0): read}, predictions.NOTHING.images),
    )


CONDITIONS = {"device": "cpu", "torch": torch.__version__, "threads": 1}


def keeper(folder: Path) -> checkpoint.Keeper:
    return checkpoint.Keeper(checkpoint.place(folder, "k" * 16), 0, CONDITIONS, ["k" * 16])


def resume(folder: Path) -> object:
    checkpoint.left(folder)
    checkpoint.saved_together(folder, ["k" * 16])
    return keeper(folder).load()


def save_spool(folder: Path) -> None:
    opening = {
        "run": {"key": "k" * 16, "recipe": "r" * 16, "arm": "baseline", "seed": 0, "phase": "report"},
        "plan": "p",
        "config": {},
    }
    lines = [
        {"owner": "host/boot/1/1"},
        {"op": "epoch", "experiment": "x", "time": 1.0, "key": "k" * 16, "attempt": 1, "opening": opening, "epoch": 1, "metrics": {"val/loss": 0.5}},
    ]  # fmt: skip
    (folder / "0-x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "0-x.delivered").write_text("1")


def read_spools(folder: Path) -> None:
    with plain_files.open_plain(folder / "0-x.jsonl") as file:
        read_spool(file)
    delivered_operations(folder / "0-x.jsonl")


def source() -> cache.Source:
    images, labels = np.arange(5 * 3 * 4 * 4, dtype=np.uint8).reshape(5, 3, 4, 4), np.arange(5) % 2
    data = cache.Content(images, labels, images, labels, ("a", "b"))
    return cache.Source(("test",), lambda _scratch, _progress: data)


def obtain(folder: Path) -> None:
    """Whatever is damaged, the data are what they were: those of the cache are known by their digest, or made again."""
    data = cache.obtain(source(), folder, lambda *_: None)
    assert data.train_images.sum() == np.arange(5 * 3 * 4 * 4, dtype=np.uint8).sum()
    assert data.classes == ("a", "b")


def paint(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for place in ("train/cat/0", "train/dog/0", "train/cat/1", "train/dog/1", "test/cat/0", "test/dog/0"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{place}.png")


def decode(folder: Path) -> None:
    with_cache = folder.parent / "cache of images"
    shutil.rmtree(with_cache, ignore_errors=True)
    prepare(ImageFolder(root=str(folder)), with_cache, lambda *_: None)


BUILT_IN = "study: s\nmargin: 0.01\nbaseline: {data: {name: digits}, model: {name: cnn}}\nfactors: {model.width: [8]}\nseeds: 3\n"
STUDY = "study: s\nmargin: 0.01\nmetric: val/loss\ntrain: own:train\nbaseline: {gain: 0}\nfactors: {gain: [1]}\nseeds: 3\n"

READERS = {
    "predictions and confusion of a run": Reader(
        lambda folder: (
            (folder / "predictions.npz").write_bytes(npz(**PARTS)),
            (folder / "confusion_matrix.json").write_text(json.dumps({"classes": ["a", "b"], "matrix": [[3, 1], [0, 4]]})),
        ),
        lambda folder: predictions.read(content(folder / "confusion_matrix.json"), content(folder / "predictions.npz"), {}, 0),
    ),
    "curves in the cache": Reader(save_curves, lambda folder: columns.load(folder / "toy.curves.npz")),
    "predictions in the cache": Reader(save_predictions, lambda folder: predictions.load(folder / "toy.predictions.npz")),
    "a checkpoint": Reader(lambda folder: keeper(folder).offer(lambda: {"weights": torch.ones(9), "step": 3}), resume),
    "a spool": Reader(save_spool, read_spools, (OSError,)),
    "the record of a plan": Reader(
        lambda folder: (folder / "plan.json").write_text(json.dumps(design.plan(spec.parse(BUILT_IN), lambda _: DataFacts(fingerprint="f")).record().to_json())),
        lambda folder: design.from_record(PlanRecord.from_json(json.loads(plain_files.read(folder / "plan.json")))),
        (OSError, AblateError, *VALUE_ERRORS),
    ),
    "decoded data": Reader(lambda folder: cache.obtain(source(), folder, lambda *_: None), obtain, (AblateError,)),
    "images": Reader(paint, decode, (AblateError,), "*.png"),
    "a measurement in the cache": Reader(
        lambda folder: cache_folder.keep(folder / "x.json", {"stacked": True}), lambda folder: cache_folder.kept(folder / "x.json")
    ),
    "what the seed does": Reader(
        lambda folder: seed_check._write(folder / "x.json", {"k": {"kind": "fixed"}}), lambda folder: seed_check._read(folder / "x.json")
    ),
    "what a command printed": Reader(lambda folder: (folder / "k.output").write_text("epoch 1\n"), lambda folder: left_output(folder / "k.output")),
    "a study": Reader(lambda folder: (folder / "s.yaml").write_text(STUDY), lambda folder: spec.read(folder / "s.yaml"), (AblateError,)),
    "what a project permits": Reader(
        lambda folder: (folder / "pyproject.toml").write_text('[tool.ablate]\nimports = ["own"]\n'),
        lambda _folder: launch._allowed_by_project("imports"),
        (AblateError,),
    ),
}  # fmt: skip


def check(name: str, tmp_path: Path, monkeypatch, rounds: int, seed: int) -> None:
    reader, rng, watch = READERS[name], random.Random(f"{name} {seed}"), Watch()
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    folder.mkdir()
    (outside / "notes.txt").write_text("mine")
    reader.make(folder)
    whole = {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    monkeypatch.chdir(folder)
    with watch.on(tmp_path):
        reader.read(folder)  # whole, and whatever it loads
    names = [path for path in whole if path.match(reader.name)]
    before = peak_bytes()
    for _ in range(rounds):
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder, ignore_errors=True)
        for path, data in whole.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        path = rng.choice(names)
        what = f"{path}: {damage(folder / path, rng, list(whole.values()), outside)}"
        try:
            with watch.on(tmp_path):
                reader.read(folder)
        except reader.refusals as error:
            said = error.sentence if isinstance(error, AblateError) else ""
        except Exception as error:
            raise AssertionError(what) from error
        else:
            said = ""
        assert "\n" not in said, what
        assert watch.started == [], what
        assert watch.written == [], what
        assert peak_bytes() - before < MOST_BYTES, what
        assert [(item.name, item.read_text()) for item in outside.iterdir()] == [("notes.txt", "mine")], what
        assert not (folder / "executed").exists(), what


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_left_out_made_again_or_refused(name, tmp_path, monkeypatch):
    check(name, tmp_path, monkeypatch, 4 if name == "images" else 12, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_hundreds_of_damaged_files_of_each_kind(name, tmp_path, monkeypatch):
    check(name, tmp_path, monkeypatch, 50 if name == "images" else 400, 1)
