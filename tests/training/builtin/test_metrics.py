"""Classification metrics against scikit-learn, and the picture of a confusion matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from ablate.training.builtin import metrics

quick = settings(max_examples=50, deadline=None, derandomize=True)


@st.composite
def predictions(draw):
    classes = draw(st.integers(2, 6))
    size = draw(st.integers(1, 40))
    label = st.lists(st.integers(0, classes - 1), min_size=size, max_size=size)
    return np.array(draw(label)), np.array(draw(label)), classes


@quick
@given(predictions())
def test_all_scores_are_those_of_scikit_learn(drawn):
    truth, predicted, classes = drawn
    labels = range(classes)
    confusion = metrics.confusion_matrix(truth, predicted, classes)
    assert np.array_equal(confusion, reference.confusion_matrix(truth, predicted, labels=labels))
    seen = metrics.scores(confusion)
    options = {"labels": labels, "average": "macro", "zero_division": 0}
    assert seen.accuracy == pytest.approx(reference.accuracy_score(truth, predicted))
    assert seen.precision_macro == pytest.approx(reference.precision_score(truth, predicted, **options))
    assert seen.recall_macro == pytest.approx(reference.recall_score(truth, predicted, **options))
    assert seen.f1_macro == pytest.approx(reference.f1_score(truth, predicted, **options))
    per_class = reference.recall_score(truth, predicted, labels=labels, average=None, zero_division=0)
    assert seen.per_class == pytest.approx(tuple(per_class))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_many_classes_do_not_overflow_a_small_integer(kind):
    labels = np.arange(200).astype(kind)
    assert np.array_equal(
        metrics.confusion_matrix(labels, labels[::-1].copy(), 200), np.eye(200, dtype=int)[::-1]
    )


def test_scores_of_nothing_are_zero():
    assert metrics.scores(np.zeros((3, 3), dtype=np.int64)) == metrics.Scores(0, 0, 0, 0, (0, 0, 0))


def test_a_perfect_prediction_scores_one():
    seen = metrics.scores(np.diag([3, 5, 1]))
    assert (seen.accuracy, seen.precision_macro, seen.recall_macro, seen.f1_macro) == (1, 1, 1, 1)


def test_the_picture_shows_every_count_and_names_that_are_escaped():
    confusion = np.array([[11, 2], [0, 7]])
    picture = metrics.confusion_svg(confusion, ("<cats> & 'dogs'", "b"))
    root = ET.fromstring(picture)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text.isdigit()] == ["11", "2", "0", "7"]
    assert texts.count("<cats> & 'dogs'") == 2
    shades = [
        r.get("fill-opacity") for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("fill-opacity")
    ]
    assert shades == ["0.846", "0.154", "0.000", "1.000"], "each row by its share"


def test_a_picture_of_many_classes_is_shades_alone_and_stays_small():
    classes = 300
    confusion = np.diag(np.full(classes, 50))
    confusion[7, 9] = 3
    picture = metrics.confusion_svg(confusion, tuple(f"class {i}" for i in range(classes)))
    root = ET.fromstring(picture)
    shaded = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("fill-opacity")]
    assert len(shaded) == classes + 1
    assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) == 2 * classes + 2
    assert len(picture) < 150_000
