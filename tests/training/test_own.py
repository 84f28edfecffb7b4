"""What comes of the dicts of metrics that a training of the user's yields."""

import math
import random
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from ablate.training.outcome import Epoch, MetricsError
from ablate.training.own import checked, messages

NOT_FINITE = [
    math.nan,
    math.inf,
    -math.inf,
    float("-1e400"),
    10**400,
    -(10**400),
    np.float32("nan"),
    Decimal("Infinity"),
]
FINITE = [
    0.5,
    1,
    -3,
    np.float32(0.25),
    np.int64(7),
    np.array([0.5]),
    np.array(2),
    Decimal("0.1"),
    Fraction(1, 3),
    5e-324,
]
NO_NUMBERS = [
    "0.5",
    True,
    np.bool_(False),
    [0.5],
    (1,),
    {"x": 1},
    np.array([1, 2]),
    1j,
    b"1",
    object(),
    [10**5000],
    np.array(["a"]),
]


def test_only_a_loss_or_the_metric_condemns_a_run_and_the_last_epoch_with_the_metric_counts():
    draw = random.Random(0)
    side = ["val/auc", "val/f1", "lr", "train/grad_norm", "test/loss", "time/step", "model/size"]
    for _ in range(300):
        epochs, expected, counts = [], None, 0
        for number in range(1, draw.randint(2, 6)):
            values = {name: draw.choice(FINITE + NOT_FINITE + [None]) for name in side if draw.random() < 0.5}
            for name in ("val/acc", "train/loss", "Loss/val"):
                if (where := draw.random()) < 0.6:
                    values[name] = draw.choice(NOT_FINITE) if where < 0.03 else draw.choice(FINITE)
                elif where < 0.7:
                    values[name] = None
            epochs.append(values)
            if expected is None:
                bad = [
                    name
                    for name in ("val/acc", "train/loss", "Loss/val")
                    if any(values.get(name) is value for value in NOT_FINITE)
                ]
                expected = (number, set(bad)) if bad else None
                counts = number if values.get("val/acc") is not None else counts
        *_, end = told = list(messages(lambda epochs=epochs: iter(epochs), "val/acc"))
        if expected is None:
            assert (end.diverged, end.epoch) == (False, counts or len(epochs))
            assert sum(isinstance(message, Epoch) for message in told) == len(epochs)
        else:
            named = end.facts["reason"].removesuffix(f" not finite in epoch {expected[0]}")
            assert (end.diverged, end.epoch, set(named.split(", "))) == (True, *expected)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number_is_named_in_one_line(value):
    with pytest.raises(MetricsError, match=r"the metric 'val/acc' is .*, not a number") as error:
        checked({"val/acc": value})
    assert len(error.value.message) < 120
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "value",
    [None, 0.5, "text", [{"a": 1}], ("a", 10**5000), object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_dict_is_named_in_one_line(value):
    with pytest.raises(MetricsError, match="where a dict of metrics belongs"):
        checked(value)


def test_what_is_returned_is_held_to_the_same():
    def training():
        yield {"train/loss": 0.5}
        return {"val/acc": math.nan, "test/acc": math.nan}

    *_, end = messages(training, "val/acc")
    assert (end.diverged, end.facts["reason"]) == (True, "val/acc not finite in epoch 1")


def test_values_of_the_run_as_a_whole_are_kept_wherever_they_are_yielded():
    epochs = [{"val/acc": 0.5, "test/acc": 0.4, "time/load": 3.0}, {"val/acc": 0.6, "model/size": 2}]
    *_, end = messages(lambda: iter(epochs), "val/acc")
    assert {name: end.metrics[name] for name in ("test/acc", "time/load", "model/size")} == {
        "test/acc": 0.4,
        "time/load": 3.0,
        "model/size": 2.0,
    }
