"""Images and labels that a function of the user's returns."""

from __future__ import annotations

import json
import random

import numpy as np
import own_package
import pytest
import torch

from ablate.config import RunConfig
from ablate.data import datasets, own_data
from ablate.data.datasets import ImportedData
from ablate.errors import AblateError, DataError
from ablate.training import trainer_of

LOADER = '''
import json
from pathlib import Path

import numpy as np


def load(count=40, classes=4, layout="NHW", split="test", scale=1):
    """Images that depend on a file beside the package."""
    shade = json.loads(Path("shade.json").read_text()) if Path("shade.json").exists() else 100
    calls = Path("calls")
    calls.write_text((calls.read_text() if calls.exists() else "") + "x")
    draw = np.random.default_rng(0)
    shape = {"NHW": (8, 8), "NHWC": (8, 8, 3), "NCHW": (3, 8, 8)}[layout]

    def part(n):
        return draw.integers(0, shade, (n, *shape), dtype=np.uint8), np.arange(n) % classes

    parts = {"train": part(count)}
    if "test" in split:
        parts["test"] = part(20)
    if "validation" in split:
        parts["validation"] = part(12)
    return parts


def drawn():
    return {"train": (np.random.randint(0, 255, (40, 8, 8)).astype(np.uint8), np.arange(40) % 2)}


def leaves():
    raise SystemExit("gone")


def raises():
    raise OSError("the disk is gone")
'''


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    with own_package.installed(tmp_path, monkeypatch, data=LOADER) as folder:
        yield folder


def own(function: str = "load", **args) -> ImportedData:
    return ImportedData(target=f"my_package.data:{function}", args=args)


@pytest.mark.parametrize(("layout", "shape"), [("NHW", (1, 8, 8)), ("NHWC", (3, 8, 8)), ("NCHW", (3, 8, 8))])
def test_images_come_in_any_usual_order_of_axes(layout, shape):
    dataset = datasets.prepare(own(layout=layout))
    assert dataset.shape == shape
    assert dataset.train_images.shape == (40, *shape)
    assert dataset.test_images.shape == (20, *shape)
    assert dataset.classes == ("0", "1", "2", "3")
    assert dataset.train_labels.tolist() == [n % 4 for n in range(40)]


def test_channels_last_and_first_are_the_same_images():
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (10, 5, 6, 3), dtype=np.uint8), [0, 1] * 5
    last = own_data.content({"train": (images, labels)}, "t")
    first = own_data.content({"train": (images.transpose(0, 3, 1, 2), labels)}, "t")
    tensors = own_data.content({"train": (torch.from_numpy(images), torch.tensor(labels))}, "t")
    for other in (first, tensors):
        assert np.array_equal(other.train_images, last.train_images)
        assert np.array_equal(other.test_labels, last.test_labels)


def test_without_a_test_set_a_fifth_of_every_class_becomes_it():
    dataset = datasets.prepare(own(split=""))
    assert np.bincount(dataset.test_labels).tolist() == [2, 2, 2, 2]
    assert np.bincount(dataset.train_labels).tolist() == [8, 8, 8, 8]


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize(
    ("names", "told"), [(None, "2 classes: 0, 2"), (["cat", "dog", "emu"], "2 classes: cat, emu")]
)
def test_classes_that_a_part_lacks_are_noted(part, names, told):
    images = np.random.default_rng(0).integers(0, 255, (30, 5, 6), dtype=np.uint8)
    returned = {
        "train": (images[:15], [0, 1, 2] * 5),
        "validation": (images[15:21], [0, 1, 2] * 2),
        "test": (images[21:27], [0, 1, 2] * 2),
        "classes": names,
    }
    assert own_data.content(returned, "t").notes == ()
    returned[part] = (images[27:], [1] * 3)
    assert own_data.content(returned, "t").notes == (f"{part} has no images of {told}",)


def test_a_validation_split_of_their_own_is_the_one_that_is_used():
    config = RunConfig.parse(
        {
            "data": {
                "name": "import",
                "target": "my_package.data:load",
                "args": {"split": "validation test"},
            },
            "model": {"name": "cnn", "depth": 1, "width": 2},
            "training": {"epochs": 1, "batch_size": 16},
        }
    )
    facts = trainer_of(config).preparer()(config)
    assert (facts.train, facts.validation, facts.test) == (40, 12, 20)
    small = config.override({"data.subset": 16, "data.split": "per-seed"})
    facts = trainer_of(config).preparer()(small)
    assert (facts.train, facts.validation, facts.test) == (16, 12, 20)
    dataset = datasets.prepare(config.data)
    for seed in (0, 1):
        train, validation = datasets.split(
            dataset.train_labels, small.data, seed, own_validation=dataset.validation
        )
        assert validation.tolist() == list(range(40, 52))
        assert len(train) == 16
        assert train.max() < 40
    assert dataset.fingerprint != datasets.prepare(own(split="test")).fingerprint


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "t returned NoneType"),
        ([1, 2], "a list of 2"),
        ({"test": 1}, "a dict of 'test'"),
        ({"train": 3}, "should be a pair"),
        ({"train": (np.zeros((4, 8, 8)), [0, 1, 0, 1])}, "4×8×8 of float64, not uint8"),
        ({"train": (np.zeros((4, 8), np.uint8), [0, 1, 0, 1])}, "4×8 of uint8"),
        ({"train": (np.zeros((4, 8, 8, 4), np.uint8), [0, 1, 0, 1])}, "4×8×8×4 of uint8"),
        ({"train": (np.zeros((4, 3, 8, 3), np.uint8), [0, 1, 0, 1])}, "cannot be told which side"),
        ({"train": (np.zeros((0, 8, 8), np.uint8), [])}, "0×8×8 of uint8"),
        ({"train": (np.zeros((1, 5000, 8), np.uint8), [0])}, "at most 4,096 pixels"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 1])}, "a list of 4 whole numbers"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0.0, 1, 0, 1])}, "the labels of `train`"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [-1, 1, 0, 1])}, "labels go from -1 to 1"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 0, 0, 0])}, "only one class"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 2, 0, 2])}, "the class '1' has no training image"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "classes": ["a"]}, "1 class are named"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "classes": "ab"}, "a list of names"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "classes": ["a", "a"]}, "are called 'a'"),
        ({"train": (np.zeros((2, 8, 8), np.uint8), np.array(["a", 1.5], object))}, "the labels of `train`"),
        ({"train": (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "trian": 1}, "returned 'trian'"),
        (
            {
                "train": (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]),
                "test": (np.zeros((4, 8, 9), np.uint8), [0, 1, 0, 1]),
            },
            "images of different shapes",
        ),
    ],
)
def test_what_a_function_returns_is_checked_before_anything_is_kept(returned, words):
    with pytest.raises(DataError) as caught:
        own_data.content(returned, "t")
    assert words in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        ("raises", {}, "data.target: my_package.data:raises raised OSError: the disk is gone (data.py:"),
        ("leaves", {}, "data.target: my_package.data:leaves raised SystemExit: gone (data.py:"),
        ("laod", {}, "did you mean 'load'?"),
        ("load", {"cuont": 3}, "data.args.cuont: my_package.data:load takes no argument 'cuont'"),
    ],
)
def test_a_mistake_in_the_function_is_one_line(function, args, words):
    with pytest.raises(AblateError) as caught:
        datasets.prepare(own(function, **args))
    assert words in str(caught.value)


def test_texts_are_classes_by_name():
    images = np.zeros((10, 4, 4), np.uint8)
    content = own_data.content({"train": (images, ["dog", "cat"] * 5)}, "t")
    assert content.classes == ("cat", "dog")
    assert content.train_labels.tolist()[:2] == [1, 0]
    column = np.array(["dog", "cat"] * 5, dtype=object)  # of pandas
    assert own_data.content({"train": (images, column)}, "t").classes == ("cat", "dog")
    named = own_data.content({"train": (images, [0, 1] * 5), "classes": ["x", "y"]}, "t")
    assert named.classes == ("x", "y")


def test_data_that_are_drawn_at_random_are_the_same_in_every_command():
    before = random.getstate()
    first = datasets.prepare(own("drawn")).fingerprint
    assert random.getstate() == before
    np.random.seed(5)  # noqa: NPY002
    assert datasets.prepare(own("drawn")).fingerprint == first


def test_the_content_is_the_key_and_the_function_is_asked_each_time(package):
    first = datasets.prepare(own())
    assert datasets.prepare(own()).fingerprint == first.fingerprint
    assert datasets.prepare(own(scale=2)).fingerprint == first.fingerprint, "other code, same images"
    (package / "shade.json").write_text(json.dumps(50))
    changed = datasets.prepare(own())
    assert changed.fingerprint != first.fingerprint, "it may read files of which nobody knows"
    calls = (package / "calls").read_text()
    # A worker asks the cache for what the plan has prepared.
    assert datasets.prepare(own(), wanted=first.fingerprint).fingerprint == first.fingerprint
    assert (package / "calls").read_text() == calls
    config = RunConfig(data=own(), model={"name": "cnn"})
    assert config.recipe("f") == config.override({"data.args": {"scale": 3}}).recipe("f")
    assert config.recipe("f") != config.recipe("g")


STUDY = """
study: own
margin: 0.05
baseline:
  data: {name: import, target: "my_package.data:load", args: {count: 40}}
  model: {name: import, target: "my_package.nets:build", args: {width: 4}}
  training: {epochs: 1, batch_size: 16}
factors:
  model.args.width: [6]
  data.args.count: [60]
seeds: 3
"""


def test_a_study_of_own_data_and_an_own_network_from_consent_to_verdict(workplace, package):
    (package / "own.yaml").write_text(STUDY)
    said = workplace.ablate("run", "own.yaml", code=2)
    assert "the study would import 'my_package'" in said
    assert not (package / "calls").exists()
    workplace.ablate("run", "own.yaml", "--allow-import", "my_package", "--executor", "inline", "--quiet")
    assert (package / "calls").read_text() == "xx", "once for each of the two data sets"
    verdicts = json.loads(workplace.ablate("report", "own", "--format", "json"))
    assert verdicts["runs"]["finished"] == 9
    assert {arm["arm"] for arm in verdicts["arms"]} == {"model.args.width=6", "data.args.count=60"}
    [run] = [r for r in workplace.runs("own") if r.data.tags["ablate.arm"] == "model.args.width=6"][:1]
    assert run.data.params["model.args.width"] == "6"
    workplace.ablate("report", "own")
    again = workplace.ablate("run", "own.yaml", "--allow-import", "my_package", "--executor", "inline")
    assert len(workplace.runs("own")) == 9, again


def test_the_command_describes_own_data(workplace):
    said = workplace.ablate("data", "import", "--set", "target=my_package.data:load")
    assert "36 training, 4 validation and 20 test images" in said
    assert "needs the argument" not in said
    fewer = workplace.ablate(
        "data", "import", "--set", "target=my_package.data:load", "--set", "args.count=45"
    )
    assert fewer != said
    wrong = workplace.ablate(
        "data", "import", "--set", "target=my_package.data:load", "--set", "args.cuont=45", code=2
    )
    assert "data.args.cuont: my_package.data:load takes no argument 'cuont'" in wrong
