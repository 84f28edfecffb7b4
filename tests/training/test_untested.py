"""Runs that end without the test set, as those of a sweep of rates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ablate.config import RunConfig
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.training import runs
from ablate.training.builtin.batches import Splits
from ablate.training.payload import RunPayload

BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 100, "validation": 0.2},
        "model": {"name": "cnn", "depth": 2, "width": 4, "batch_norm": False},
        "optimizer": {"name": "sgd", "lr": 0.3},
        "training": {"epochs": 3, "batch_size": 32},
    }
)


def trained(*changes, tested: bool, breaks_off: frozenset[str] = frozenset()) -> dict[str, list]:
    """The epochs of each run of a bundle, and its end. breaks_off: when training has begun."""
    payloads = [RunPayload(BASE.override(change).tree(), 0, fuse=True, tested=tested) for change in changes]
    events: dict[str, list] = {str(number): [] for number in range(len(changes))}
    training = runs.train(Bundle(tuple(Task(str(i), 1, payload) for i, payload in enumerate(payloads))))
    answer = None
    while True:
        try:
            event = training.send(answer)
        except StopIteration:
            return events
        answer = breaks_off
        if isinstance(event, EpochEnd | Finished | Failed):
            events[event.run].append(replace(event, time=0.0, seq=0))


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize("fused", [True, False])
def test_an_untested_run_is_the_tested_one_without_the_test_set(monkeypatch, checkpoint, fused):
    rates = [
        {"optimizer.lr": lr, "training.checkpoint": checkpoint}
        for lr in (0.03, 3.0, 1e30)[: 3 if fused else 1]
    ]
    tested = trained(*rates, tested=True)

    def unseen(_splits):
        raise AssertionError("the test set was asked for")

    monkeypatch.setattr(Splits, "test", unseen)
    untested = trained(*rates, tested=False)
    for run, events in tested.items():
        *epochs, end = events
        assert list(map(repr, untested[run][:-1])) == list(map(repr, epochs))  # NaN is no equal of itself
        last = untested[run][-1]
        assert (last.outcome, last.epoch) == (end.outcome, end.epoch)
        assert not any(name.startswith("test/") for name in last.metrics)
        assert not last.files
    assert [events[-1].outcome for events in untested.values()] == ["finished", "finished", "diverged"][
        : len(rates)
    ]


def test_a_run_that_somebody_breaks_off_before_its_last_epoch_is_cancelled():
    first, second = trained({}, {"optimizer.lr": 0.1}, tested=False, breaks_off=frozenset({"0"})).values()
    assert [end.kind for end in first] == ["cancelled"]
    assert (len(second), second[-1].outcome) == (4, "finished")
