"""Which runs are handed out together."""

from __future__ import annotations

import pytest

from ablate.config import RunConfig
from ablate.scheduling import bundles
from ablate.training.function import FunctionConfig

BASE = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "small_cnn"}})


def configs(**changes) -> list[RunConfig]:
    """One for each value of one field."""
    ((path, values),) = changes.items()
    return [BASE.override({path.replace("__", "."): value}) for value in values]


def take(waiting, slots: int, left: float | None = None):
    return bundles.take(waiting, lambda one: one, len(waiting) if left is None else left, slots)


@pytest.mark.parametrize(
    ("runs", "slots", "sizes"),
    [
        (16, 2, [8, 8]),
        (16, 1, [16]),
        (40, 1, [16, 16, 8]),
        (5, 2, [3, 2]),
        (3, 4, [1, 1, 1]),
        (10, 4, [3, 3, 3, 1]),
    ],
)
def test_slots_share_the_runs_evenly(runs, slots, sizes):
    waiting = configs(optimizer__lr=[0.01 + n / 1000 for n in range(runs)])
    found, under_way = [], 0
    while waiting:
        taken = take(waiting, slots, len(waiting) + under_way)
        waiting = [one for one in waiting if one not in taken]
        found.append(len(taken))
        under_way += len(taken) if len(found) < slots else 0
    assert found == sizes


def test_what_is_left_of_runs_in_training_keeps_a_slot_from_taking_all_that_waits():
    waiting = configs(optimizer__lr=[0.1, 0.2, 0.3, 0.4])
    assert len(take(waiting, 2, left=4 + 4)) == 4
    assert len(take(waiting, 2, left=4 + 0.4)) == 3


ALONE = {
    "data.subset": 100,
    "data.split": "per-seed",
    "augment.flip": True,
    "training.batch_size": 64,
    "training.epochs": 3,
    "model": {"name": "numpy_mlp"},
}


@pytest.mark.parametrize("path", ALONE)
def test_runs_that_do_not_share_batches_are_apart(path):
    assert take([BASE, BASE.override({path: ALONE[path]})], 1) == [BASE]


def test_runs_of_another_seed_are_apart():
    assert take([BASE, BASE.with_seed(1)], 1) == [BASE]


@pytest.mark.parametrize(
    "change",
    [
        {"model.dropout": 0.2},
        {"optimizer": {"name": "adam"}},
        {"training.label_smoothing": 0.1},
        {"training.patience": 3},
        {"schedule": {"name": "constant"}},
        {"model.hidden": (60, 42)},
    ],
    ids=str,
)
def test_runs_that_share_batches_go_together(change):
    waiting = [BASE, BASE.override(change)]
    assert take(waiting, 1, left=4) == waiting


def test_networks_of_one_shape_come_first_and_others_fill_half_a_share_at_most():
    wider = configs(model__hidden=[(60 + n, 42) for n in range(8)])
    same = configs(optimizer__lr=[0.1, 0.2, 0.3])
    assert take([BASE, *wider, *same], 1) == [BASE, *wider[:2], *same]
    assert len(take(wider, 1)) == 4
    assert len(take(wider, 2)) == 2


def test_training_of_the_users_own_is_never_joined():
    free = [FunctionConfig({"train": "toy:fit"}, {"gain": gain}) for gain in (0.1, 0.2)]
    assert take(free, 1) == free[:1]


# --- broken off ---------------------------------------------------------------------------------------------------


def test_runs_that_were_broken_off_together_go_together_again():
    saved = [frozenset("cd"), frozenset("abx")]
    assert bundles.resumable("a", saved, {"a", "b", "c", "x"}) == frozenset("abx")
    assert bundles.resumable("e", saved, {"a", "b", "e", "x"}) == frozenset()


def test_runs_one_of_whom_is_done_or_elsewhere_do_not_go_together_again():
    assert bundles.resumable("a", [frozenset("abx")], {"a", "b"}) == frozenset()


# --- several seeds ------------------------------------------------------------------------------------------------


def test_runs_of_other_seeds_fill_a_bundle_where_the_device_takes_them():
    first = configs(optimizer__lr=[0.1, 0.2])
    second = [one.with_seed(1) for one in first]
    wide = [one.override({"model.hidden": (60, 42)}) for one in second]
    waiting = [*first, *wide, *second]

    def taken(left):
        return bundles.take(waiting, lambda one: one, left, 1, any_seed=True)

    assert taken(left=6) == [*first, *second]
    assert taken(left=3) == [*first, second[0]]
    assert bundles.take(waiting, lambda one: one, 6, 1) == first


def test_seeds_that_split_the_data_each_their_own_way_are_apart():
    base = BASE.override({"data.split": "per-seed"})
    assert bundles.take([base, base.with_seed(1)], lambda one: one, 2, 1, any_seed=True) == [base]
