"""Classification metrics against scikit-learn, and the picture of a confusion matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from ablate.data.facts import DataFacts
from ablate.errors import StudyError
from ablate.training import trainer_wanted
from ablate.training.builtin import evaluation, metrics

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
    # scikit-learn warns of predicted classes that do not occur.
    occurring = np.unique(truth)
    assert seen.balanced_accuracy == pytest.approx(
        reference.recall_score(truth, predicted, labels=occurring, average="macro", zero_division=0)
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64])
def test_many_classes_do_not_overflow_a_small_integer(kind):
    labels = np.arange(200).astype(kind)
    assert np.array_equal(
        metrics.confusion_matrix(labels, labels[::-1].copy(), 200), np.eye(200, dtype=int)[::-1]
    )


def test_scores_of_nothing_are_zero():
    assert metrics.scores(np.zeros((3, 3), dtype=np.int64)) == metrics.Scores(0, 0, 0, 0, 0, (0, 0, 0))


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


# --- every metric of an evaluation ------------------------------------------------------------------------------------


@quick
@given(st.integers(6, 12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_top_5_accuracy_is_scikit_learns(classes, size, seed):
    draw = torch.Generator().manual_seed(seed)
    logits, labels = (
        torch.randn(size, classes, generator=draw),
        torch.randint(classes, (size,), generator=draw),
    )
    expected = reference.top_k_accuracy_score(labels.numpy(), logits.numpy(), k=5, labels=range(classes))
    assert float(evaluation.in_top(logits, labels).float().mean()) == pytest.approx(expected)


def test_of_equal_logits_the_first_classes_count():
    equal = torch.zeros(8, 8)
    assert evaluation.in_top(equal, torch.arange(8)).tolist() == [True] * 5 + [False] * 3


def evaluated(classes: int, parts: int = 1) -> evaluation.Evaluation:
    draw = torch.Generator().manual_seed(classes)
    logits, labels = torch.randn(60, classes, generator=draw), torch.randint(classes, (60,), generator=draw)
    sums = evaluation.EvaluationSums(torch.device("cpu"))
    for part in torch.split(torch.arange(60), 60 // parts):
        sums.add(logits[part], labels[part])
    return sums.evaluation()


def test_every_metric_that_a_study_may_have_is_evaluated_each_epoch():
    measured = {name for name in trainer_wanted({}).metrics if name.startswith("val/")}
    assert set(evaluated(7).metrics("val")) == measured
    assert set(evaluated(5).metrics("val")) == measured - {"val/top5_accuracy"}


def test_an_evaluation_does_not_depend_on_its_batches_and_can_be_kept():
    whole = evaluated(7)
    again = evaluation.Evaluation.from_plain(evaluated(7, parts=6).to_plain())
    whole_metrics, metrics_again = whole.metrics("val"), again.metrics("val")
    assert metrics_again.pop("val/loss") == pytest.approx(whole_metrics.pop("val/loss"))
    assert metrics_again == whole_metrics


def test_the_step_of_a_metric_is_the_share_of_an_image_and_five_classes_have_no_top_5():
    trainer = trainer_wanted({})
    data = DataFacts("f", 300, 50, 20, (1, 8, 8), tuple("abcdef"))
    for metric in trainer.metrics:
        images = 300 if metric.startswith("train/") else 50
        assert trainer.resolution(metric, data) == (0 if metric.endswith("/loss") else 1 / images)
        assert trainer.direction(metric) == ("minimize" if metric.endswith("/loss") else "maximize")
    few = DataFacts("f", 300, 50, 20, (1, 8, 8), tuple("abcde"))
    with pytest.raises(StudyError, match="the data have 5 classes"):
        trainer.resolution("val/top5_accuracy", few)
