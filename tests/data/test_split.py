"""Subset, validation split and the statistics of the training part."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ablate.data import parts
from ablate.data.datasets import Digits, normalization, split
from ablate.errors import DataError

BALANCED = np.repeat(np.arange(10), 100)
COUNTS = st.lists(st.integers(2, 60), min_size=2, max_size=8)


def labels_of(counts, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


def test_a_balanced_set_is_split_in_exact_proportion():
    train, validation = split(BALANCED, Digits(validation=0.1), 0)
    assert np.bincount(BALANCED[train]).tolist() == [90] * 10
    assert np.bincount(BALANCED[validation]).tolist() == [10] * 10


def test_a_subset_is_drawn_before_the_split():
    train, validation = split(BALANCED, Digits(validation=0.2, subset=500), 0)
    assert (len(train), len(validation)) == (400, 100)
    assert np.bincount(BALANCED[train]).tolist() == [40] * 10


@settings(deadline=None)
@given(COUNTS, st.floats(0.01, 0.99), st.integers(0, 2**62))
def test_both_parts_have_their_size_and_every_class_in_proportion(counts, share, seed):
    labels = labels_of(counts)
    size = round(share * len(labels))
    assume(len(counts) <= size <= len(labels) - len(counts))
    train, validation = split(labels, Digits(validation=share), seed)
    assert len(validation) == size
    assert sorted([*train, *validation]) == list(range(len(labels)))
    for part in (train, validation):
        assert part.dtype == np.int64
        assert np.all(np.diff(part) > 0)
        assert set(labels[part]) == set(range(len(counts)))
    quota = size * np.array(counts) / len(labels)
    got = np.bincount(labels[validation])
    inside = (quota >= 1) & (quota <= np.array(counts) - 1)
    if inside.all():  # no class was held at its least: then it is the plain largest remainder
        assert np.all(np.abs(got - quota) < 1)


@settings(deadline=None)
@given(COUNTS, st.integers(1, 400), st.integers(0, 2**62))
def test_a_subset_has_its_size_or_is_refused(counts, subset, seed):
    labels = labels_of(counts)
    try:
        train, validation = split(labels, Digits(subset=subset, validation=0.5), seed)
    except DataError:
        assert subset > len(labels) or subset < 2 * len(counts)
    else:
        assert len(train) + len(validation) == subset
        assert set(labels[train]) == set(labels[validation]) == set(range(len(counts)))


def test_the_same_seed_gives_the_same_split():
    config = Digits(subset=300)
    for one, two in zip(split(BALANCED, config, 7), split(BALANCED.copy(), config, 7), strict=True):
        assert np.array_equal(one, two)


def test_another_seed_gives_another_split():
    config = Digits(subset=300)
    first, second = split(BALANCED, config, 7), split(BALANCED, config, 8)
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])


def test_a_larger_subset_contains_the_smaller():
    small, large = (set(np.concatenate(split(BALANCED, Digits(subset=n), 3))) for n in (200, 500))
    assert small < large


def test_the_split_does_not_depend_on_whether_all_are_a_subset():
    plain, whole = split(BALANCED, Digits(), 3), split(BALANCED, Digits(subset=1000), 3)
    assert np.array_equal(plain[1], whole[1])


def test_a_subset_larger_than_the_data_states_both_numbers():
    with pytest.raises(DataError, match="a subset of 1,001 of 1,000 images") as caught:
        split(BALANCED, Digits(subset=1001), 0)
    assert caught.value.place == "data.subset"


def test_the_message_about_a_subset_too_small_for_its_classes_names_the_possible_sizes():
    with pytest.raises(DataError, match="each of the 10 classes has 2") as caught:
        split(BALANCED, Digits(subset=19), 0)
    assert "between 20 and 1,000" in str(caught.value)


def test_a_class_of_one_image_is_named():
    with pytest.raises(DataError, match="class 'dog' has 1 image"):
        split(np.array([0, 0, 0, 1]), Digits(validation=0.5), 0, classes=("cat", "dog"))


@pytest.mark.parametrize(("share", "word"), [(0.001, "those drawn"), (0.999, "the rest")])
def test_a_share_too_small_or_too_large_is_refused(share, word):
    with pytest.raises(DataError, match=f"among {word}") as caught:
        split(BALANCED, Digits(validation=share), 0)
    assert caught.value.place == "data.validation"
    assert "between 10 and 990" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "classes"), [(1000, 10), (900, 300), (7, 3), (100_000, 2), (12, 6), (33_333, 1_111)]
)
@pytest.mark.parametrize("end", ["too small", "too large"])
def test_a_share_that_is_impossible_is_told_the_shares_that_are_possible(images, classes, end):
    labels = np.arange(images) % classes
    share = 1e-9 if end == "too small" else 1 - 1e-9
    part = "without an image to validate" if end == "too small" else "without an image to train on"
    with pytest.raises(DataError, match=part) as caught:
        parts.check_share(Digits(validation=share), images, classes)
    assert caught.value.place == "data.validation"
    told = [float(number) for number in re.findall(r"0\.\d+", str(caught.value.hint))]
    assert told
    for possible in told:
        parts.check_share(Digits(validation=possible), images, classes)
        train, validation = split(labels, Digits(validation=possible), 0)
        assert len(np.unique(labels[train])) == len(np.unique(labels[validation])) == classes


def test_normalization_is_numpys_mean_and_standard_deviation_of_the_chosen_images():
    images = np.random.default_rng(0).integers(0, 256, (3000, 3, 5, 4), dtype=np.uint8)
    idx = np.arange(0, 3000, 2)
    mean, std = normalization(images, idx)
    chosen = images[idx].astype(np.float64) / 255
    assert mean == pytest.approx(chosen.mean(axis=(0, 2, 3)), rel=1e-6)
    assert std == pytest.approx(chosen.std(axis=(0, 2, 3)), rel=1e-6)
    assert mean.dtype == std.dtype == np.float32


def test_normalization_of_a_constant_channel_has_standard_deviation_one():
    images = np.full((10, 2, 3, 3), 77, dtype=np.uint8)
    images[0, 1, 0, 0] = 78
    mean, std = normalization(images, np.arange(10))
    assert mean[0] == np.float32(77 / 255)
    assert std[0] == 1
    assert 0 < std[1] < 0.01
