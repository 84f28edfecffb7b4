"""Grey or RGB: every data set can be asked for either."""

from __future__ import annotations

import numpy as np
import pytest
from painted_folders import Counter, paint
from PIL import Image

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.data.datasets import Digits, ImageFolder


@pytest.fixture
def folder(tmp_path):
    return str(paint(tmp_path / "pets", size=(8, 6)))


def colours(images):
    return [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images]


def test_grey_is_the_luminance_that_pil_and_torchvision_make(folder, tmp_path):
    from torchvision.transforms import functional

    grey = datasets.prepare(ImageFolder(root=folder, channels="grey"), tmp_path)
    colour = datasets.prepare(ImageFolder(root=folder), tmp_path)
    assert grey.shape == (1, 6, 8)
    for part in ("train_images", "test_images"):
        expected = colours(getattr(colour, part))
        found = getattr(grey, part)
        assert np.array_equal(found[:, 0], [np.asarray(image.convert("L")) for image in expected])
        assert np.array_equal(
            found[:, 0], [np.asarray(functional.rgb_to_grayscale(image)) for image in expected]
        )


def test_every_colour_is_made_grey_as_pil_makes_it():
    some = np.random.default_rng(0).integers(0, 256, (3, 300, 300), dtype=np.uint8)
    expected = np.asarray(colours([some])[0].convert("L"))
    assert np.array_equal(datasets.luminance(some[None], Counter()), expected[None, None])


def test_grey_images_as_rgb_have_three_equal_channels(tmp_path):
    plain, wide = (datasets.prepare(Digits(channels=c), tmp_path) for c in (None, "rgb"))
    assert wide.shape == (3, 8, 8)
    for channel in range(3):
        assert np.array_equal(wide.train_images[:, channel], plain.train_images[:, 0])
    assert np.array_equal(wide.train_labels, plain.train_labels)
    assert wide.fingerprint != plain.fingerprint


def test_images_that_have_these_channels_already_stay_the_same_data(folder, tmp_path):
    assert (
        datasets.prepare(Digits(channels="grey"), tmp_path).fingerprint
        == datasets.prepare(Digits(), tmp_path).fingerprint
    )
    assert (
        datasets.prepare(ImageFolder(root=folder, channels="rgb"), tmp_path).fingerprint
        == datasets.prepare(ImageFolder(root=folder), tmp_path).fingerprint
    )


def test_images_are_resized_then_converted_to_grey_and_cached(folder, tmp_path):
    config, counter = ImageFolder(root=folder, channels="grey", resize=4), Counter()
    found = datasets.prepare(config, tmp_path, counter)
    small = datasets.prepare(ImageFolder(root=folder, resize=4), tmp_path)
    assert np.array_equal(
        found.train_images[:, 0], [np.asarray(image.convert("L")) for image in colours(small.train_images)]
    )
    counter.calls.clear()
    assert datasets.prepare(config, tmp_path, counter).fingerprint == found.fingerprint
    assert counter.calls == []


def test_channels_are_a_factor_and_the_same_pixels_are_the_same_run():
    base = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "cnn"}})
    grey = base.override({"data.channels": "grey"})
    assert grey.get("data.channels") == "grey"
    assert grey.override({"data.name": "cifar10"}).get("data.channels") == "grey"
    assert grey.recipe("these pixels") == base.recipe("these pixels")
    assert grey.recipe("these pixels") != base.recipe("other pixels")
