"""Metrics as columns and predictions of runs: the same as when they are read one by one, with a cache that only saves time."""

import shutil

import numpy as np
import pytest

from ablate.tracking import columns, frames, predictions
from ablate.tracking.columns import Columns
from ablate.tracking.frames import plan_frames
from ablate.tracking.local_client import LocalClient
from ablate.tracking.plans import stored_plans
from ablate.tracking.queries import queries
from ablate.tracking.runs import counted_runs
from ablate.tracking.store import Store

ROWS = [
    (1, "b", 2, 20, 0.5),
    (0, "a", 1, 10, 1.0),
    (1, "b", 1, 10, 0.7),
    (1, "a", 1, 10, 3.0),
    (1, "b", 2, 30, 0.4),
]


def finite(values):
    """Run → its value, of those that have one."""
    return {run: value for run, value in enumerate(values.tolist()) if not np.isnan(value)}


def ends(found):
    return {name: finite(found.at(name)) for name in found.names}


def test_points_stand_run_by_run_in_the_order_of_their_steps():
    found = Columns.of(3, ROWS)
    assert found.counts.tolist() == [1, 4, 0]
    assert found.run.tolist() == [0, 1, 1, 1, 1]
    assert [found.names[m] for m in found.metric] == ["a", "a", "b", "b", "b"]
    assert found.value.tolist() == [1.0, 3.0, 0.7, 0.5, 0.4]


def test_of_a_step_logged_twice_the_later_counts():
    found = Columns.of(2, ROWS)
    assert finite(found.at("b", np.array([9, 2]))) == {1: 0.4}
    assert finite(found.at("b", np.array([1, 1]))) == {1: 0.7}
    assert ends(found) == {"a": {0: 1.0, 1: 3.0}, "b": {1: 0.4}}
    assert not finite(found.at("c"))


def test_the_highest_step_of_a_run_is_that_of_the_points_that_are_asked_about():
    found = Columns.of(4, [*ROWS, (3, "a", -2, 10, 1.0)])
    assert found.highest_steps(found.among(lambda _: True)).tolist() == [1, 2, 0, 0]
    assert found.highest_steps(found.among("a".__eq__)).tolist() == [1, 1, 0, 0]
    assert found.highest_steps(found.among("c".__eq__)).tolist() == [0, 0, 0, 0]


def test_runs_are_taken_in_any_order_and_joined_with_others():
    some = Columns.of(3, ROWS)
    joined = some.take([1, 2]) + Columns.of(1, [(0, "c", 1, 1, 9.0), (0, "b", 1, 1, 8.0)])
    again = joined.take([2, 0])
    assert ends(again) == {"a": {1: 3.0}, "b": {0: 8.0, 1: 0.4}, "c": {0: 9.0}}


def test_runs_without_points_have_empty_columns():
    assert ends(Columns.of(2, [])) == {}
    assert ends((Columns.of(0, []) + Columns.of(2, ROWS)).take([0])) == {"a": {0: 1.0}, "b": {}}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path = tmp_path / "cache" / "x.npz"
    columns.save(path, columns.Cached({("r0", 1.0): 0, ("r1", 2.5): 1}, Columns.of(2, ROWS)))
    held = columns.load(path)
    assert held.runs == {("r0", 1.0): 0, ("r1", 2.5): 1}
    assert ends(held.columns) == ends(Columns.of(2, ROWS))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", b"anything"])
def test_a_torn_cache_is_ignored(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    assert columns.load(path) == columns.NOTHING
    assert predictions.load(path) == predictions.NOTHING


def test_predictions_are_saved_as_one_bit_for_each_image(tmp_path):
    import io

    file = io.BytesIO()
    truth, predicted = np.arange(11) % 3, np.zeros(11, dtype=int)
    np.savez(
        file,
        val_index=np.arange(5, 16),
        val_truth=truth,
        val_predicted=predicted,
        test_truth=np.array([2, 0, 1]),
        test_predicted=np.array([2, 1, 1]),
    )
    known_images = {}
    whole, _ = predictions.read(b'{"counts": [[3, 1], [0, 4]]}', file.getvalue(), known_images)
    torn, damaged = predictions.read(b"no json", b"no archive", known_images)
    assert damaged == [*predictions.FILES]
    images = {**predictions.NOTHING.images, **dict(known_images.values())}
    path = tmp_path / "x.npz"
    predictions.save(path, predictions.Predictions({("a", 1.0): whole, ("b", 2.0): torn}, images))
    found = predictions.load(path)
    one, other = found.runs["a", 1.0], found.runs["b", 2.0]
    assert found.correct([one.validation]).tolist() == [(truth == predicted).tolist()]
    assert found.correct([one.test]).tolist() == [[True, False, True]]
    validation, test = (found.images[answers.images] for answers in (one.validation, one.test))
    assert (validation.place.tolist(), validation.truth.tolist()) == (list(range(5, 16)), truth.tolist())
    assert (test.place.tolist(), test.truth.tolist()) == ([0, 1, 2], [2, 0, 1])
    assert one.confusion.tolist() == [[3, 1], [0, 4]]
    assert other.confusion.size == 0
    assert found.correct([other.validation]).size == found.correct([other.test]).size == 0


def test_a_report_from_the_cache_is_the_report_from_the_store(workplace, monkeypatch):
    monkeypatch.setattr(frames, "WORTH_SAVING", 1)
    workplace.ablate("run", workplace.study(seeds="3"), "--quiet")
    record = stored_plans(workplace.store, "toy")[-1].record
    first = plan_frames(workplace.store, record)
    cache = workplace.root / "mlruns" / "cache"
    assert (cache / f"toy.curves-{columns.LAYOUT}.npz").exists()
    # Every point is in the cache, so no run's points are read from the store.
    monkeypatch.setattr(frames, "queries", None)
    runs = counted_runs(workplace.store, record)
    for one, other in zip(first, plan_frames(workplace.store, record, runs), strict=True):
        assert one.equals(other)


@pytest.mark.parametrize("metrics", [0, 1, 5, 60])
def test_columns_of_a_database_are_those_of_its_points(tmp_path, template_store, metrics):
    rng = np.random.default_rng(metrics)
    database = tmp_path / "mlflow.db"
    shutil.copy(template_store, database)
    client = LocalClient(database)
    experiment = client.create_experiment("x", tmp_path.as_uri(), {})
    runs = [client.create_run(experiment, 1, {}, "r").info.run_id for _ in range(4)]
    for run in runs[:3] if metrics else ():
        values = rng.choice([0.5, np.nan, np.inf, -1.0], 80).tolist()
        client.log(
            run,
            [(f"m{rng.integers(metrics)}", v, int(rng.integers(5)), int(rng.integers(3))) for v in values],
        )
    source = queries(Store(f"sqlite:///{database}", tmp_path))
    asked = [runs[2], runs[0], runs[3]]
    expected, found = Columns.of(3, source.points(asked)), source.columns(asked)
    assert (found.names, found.counts.tolist()) == (expected.names, expected.counts.tolist())
    for name in ("metric", "step", "value"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
