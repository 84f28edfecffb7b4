"""`ablate data`: figures as NumPy computes them, and a drawing that says what a network is given."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from painted_folders import paint

from ablate.config import RunConfig
from ablate.data import datasets, picture
from ablate.measuring import inputs
from ablate.training.builtin.batches import Pixels
from ablate.training.builtin.randomness import FIXED_SPLIT, derive

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def pets(workplace):
    return paint(workplace.root / "pets", train=10, test=3, size=(8, 6))


def pets_config(root, **data):
    data = {"name": "image_folder", "root": str(root), "validation": 0.2} | data
    return RunConfig.parse({"data": data, "model": {"name": "cnn"}})


def test_the_description_has_numpys_statistics_of_the_training_split(pets):
    config = pets_config(pets)
    found = inputs.description(config)
    data = datasets.prepare(config.data)
    train, validation = datasets.split(data.train_labels, config.data, derive(0, FIXED_SPLIT))
    pixels = data.train_images[train] / 255
    assert found.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)), abs=1e-6)
    assert found.std == pytest.approx(pixels.std(axis=(0, 2, 3)), abs=1e-6)
    assert (found.train, found.validation, found.test) == (16, 4, 6)
    assert found.counts == {"cat": (8, 2, 3), "dog": (8, 2, 3)}
    assert found.shape == (3, 6, 8)
    assert len(validation) == 4


def test_normalised_values_are_those_that_training_feeds_the_network(pets):
    data = datasets.prepare(pets_config(pets).data)
    index = np.arange(len(data.train_labels))
    mean, std = datasets.normalization(data.train_images, index)
    pixels = Pixels(data.train_images, data.train_labels, index, mean, std, torch.device("cpu"))
    fed = pixels.normalised(pixels.batch(torch.tensor([3]))[0])[0].numpy()
    assert np.allclose(picture.normalised(data.train_images[3], mean, std), fed, atol=1e-5)


def test_the_drawing_has_every_value_of_every_channel_and_a_sheet_of_augmented_images(pets):
    config = pets_config(pets)
    drawn = ET.fromstring(inputs.drawing(config, 3))
    data, found = datasets.prepare(config.data), inputs.description(config)
    values = picture.normalised(data.train_images[3], found.mean, found.std)
    texts = [element.text for element in drawn.iter(f"{SVG}text")]
    written = [text for text in texts if re.fullmatch(r"-?\d+\.\d\d", text)]
    assert written == [f"{value:.2f}" for value in values.ravel()]
    assert "image_folder, training image 3: cat" in texts
    assert "the same under augmentation: flip, crop 1" in texts
    assert len(list(drawn.iter(f"{SVG}image"))) == 1 + 3 + inputs.SHEET


def test_a_large_image_has_values_in_a_window_only_with_a_note():
    image = np.random.default_rng(0).integers(0, 256, (1, 100, 90), dtype=np.uint8)
    text = picture.svg(image, image / np.float32(255), image[None], title="a < b", caption="none")
    drawn = ET.fromstring(text)
    texts = [element.text for element in drawn.iter(f"{SVG}text")]
    assert sum(bool(re.fullmatch(r"-?\d+\.\d\d", t)) for t in texts) == picture.WRITTEN**2
    assert any("the middle 40×40 pixels" in t for t in texts)
    assert "a < b" in texts


def test_the_command_prints_draws_and_lists(workplace, pets):
    assert "16 training, 4 validation and 6 test images" in workplace.ablate(
        "data", "image_folder", "--set", f"root={pets}", "--set", "data.validation=0.2"
    )
    found = json.loads(workplace.ablate("data", "digits", "--json"))
    assert (found["train"], found["shape"]) == (1294, [1, 8, 8])
    grey = json.loads(
        workplace.ablate("data", "image_folder", "--set", f"root={pets}", "--set", "channels=grey", "--json")
    )
    assert len(grey["mean"]) == 1
    workplace.ablate("data", "digits", "--show", "0", "-o", "zero.svg", "--set", "augment.rotation=20")
    assert "under augmentation: rotation 20.0" in (workplace.root / "zero.svg").read_text()
    listed = {row["name"]: row["presence"] for row in json.loads(workplace.ablate("data", "--json"))}
    assert listed.keys() == datasets.DATASETS.keys()
    assert listed["digits"] == "prepared"
    assert listed["image_folder"] is None


def test_the_command_takes_data_and_augmentation_from_a_study(workplace):
    (workplace.root / "s.yaml").write_text(
        "study: s\nmargin: 0.1\nbaseline: {data: {name: digits, subset: 500}, model: {name: cnn}, augment: {crop: 2}}\n"
        "factors: {model.width: [8]}\nseeds: 3\n"
    )
    assert "450 training, 50 validation" in workplace.ablate("data", "--study", "s.yaml")
    workplace.ablate("data", "--study", "s.yaml", "--show", "1")
    assert "under augmentation: crop 2" in (workplace.root / "data.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digit"], "did you mean 'digits'?"),
        (["digits", "--show", "5000"], "there is no training image 5000"),
        (["digits", "--show", "0", "-o", "zero.jpg"], "is not an .svg file"),
        (["image_folder"], "data.root: is missing"),
        (["--show", "0"], "which data set?"),
    ],
)
def test_a_mistake_is_one_message(workplace, arguments, message):
    assert message in workplace.ablate("data", *arguments, code=2)


@pytest.mark.parametrize(
    ("config", "name"), [(datasets.Cifar10(), "CIFAR10"), (datasets.Cifar100(), "CIFAR100")]
)
def test_an_archive_of_torchvision_is_here_packed_or_unpacked(tmp_path, config, name):
    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    assert datasets.presence(config, tmp_path) == "to be downloaded"
    (tmp_path / "downloads" / kind.base_folder).mkdir(parents=True)
    assert datasets.presence(config, tmp_path) == "here"
    (tmp_path / "downloads" / kind.base_folder).rmdir()
    (tmp_path / "downloads" / kind.filename).touch()
    assert datasets.presence(config, tmp_path) == "here"


@pytest.mark.parametrize(
    ("config", "name"), [(datasets.Mnist(), "MNIST"), (datasets.FashionMnist(), "FashionMNIST")]
)
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_files_of_the_mnist_family_are_here_once_all_of_them_are(tmp_path, config, name, suffix):
    import torchvision.datasets

    raw = tmp_path / "downloads" / name / "raw"
    raw.mkdir(parents=True)
    for packed, _ in getattr(torchvision.datasets, name).resources:
        assert datasets.presence(config, tmp_path) == "to be downloaded", "as a failed download leaves it"
        (raw / packed).with_suffix(suffix).touch()
    assert datasets.presence(config, tmp_path) == "here"


def test_a_folder_that_does_not_exist_is_not_here(tmp_path):
    assert datasets.presence(datasets.ImageFolder(root=str(tmp_path / "nowhere")), tmp_path) == "not here"
    assert datasets.presence(datasets.ImageFolder(root=str(paint(tmp_path / "pets"))), tmp_path) == "here"
