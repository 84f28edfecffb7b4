"""Networks of the user's in the built-in training: their code is what was planned, and a bundle sees nothing of those before it."""

from __future__ import annotations

import itertools
import sys
from functools import partial

import pytest

from ablate.config import RunConfig
from ablate.events import Bundle, Failed, Finished, Task, is_last
from ablate.executors.local import LocalExecutor, cpu_slots
from ablate.training import runs
from ablate.training.payload import TORCH, Folders, RunPayload

NETS = """
from torch import nn

CALLS = []

def build(classes, channels, width=4, leaks=False):
    if leaks:
        CALLS.append(width)
    import parts
    return nn.Sequential(*parts.first(channels, width + 4 * len(CALLS)), nn.Flatten(), nn.LazyLinear(classes))
"""
PARTS = """
from torch import nn

def first(channels, width):
    return nn.Conv2d(channels, width, 3), nn.ReLU()
"""

number = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    (folder / "parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        yield folder


@pytest.fixture(scope="module")
def worker(folder, shared_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(shared_cache))
        training = partial(runs.train, folders=Folders.under(folder / "mlruns"))
        preload = (*TORCH, "ablate.training.builtin.bundle")
        with LocalExecutor(training, cpu_slots(1), preload) as executor:
            yield executor


def config(**arguments) -> RunConfig:
    return RunConfig.parse(
        {
            "data": {"name": "digits", "subset": 100},
            "model": {"name": "import", "target": "nets:build", "args": arguments},
            "training": {"epochs": 1, "batch_size": 32},
        }
    )


def end_of(executor, run: RunConfig, code: str):
    """Train a run that was planned with a digest of its code. Returns how it ended."""
    task = Task(str(next(number)), 1, RunPayload(run.tree(), 1, code=code, metric="val/loss"))
    executor.submit(Bundle((task,)), executor.slots[0])
    events = []
    while not events or not is_last(events[-1]):
        arrived = executor.wait(60)
        assert arrived, "the run hangs"
        events += arrived
    return events[-1]


def test_what_a_network_leaves_in_its_module_is_not_seen_by_the_next(worker):
    leaking, quiet = config(leaks=True), config(leaks=False)
    first = end_of(worker, quiet, quiet.code())
    assert isinstance(first, Finished), first
    leaks = [end_of(worker, leaking, leaking.code()) for _ in range(2)]
    assert all("nets.CALLS" in end.facts["left_behind"] for end in leaks)
    again = end_of(worker, quiet, quiet.code())
    for one, other in (leaks, (first, again)):
        for metric in ("model/parameters", "test/loss"):
            assert one.metrics[metric] == other.metrics[metric]


@pytest.mark.parametrize(
    ("file", "old", "new"), [("nets.py", "LazyLinear", "LazyLinear "), ("parts.py", "3)", "5)")]
)
def test_a_process_that_imports_other_code_than_was_planned_trains_nothing(worker, folder, file, old, new):
    """As where a worker has died, and another begins after an edit: also of a module that is imported in the middle of a run."""
    run = config(leaks=True)  # of which every process is spent
    planned = run.code()
    assert isinstance(end_of(worker, run, planned), Finished)
    text = (folder / file).read_text()
    is_edit = new.strip() != old
    (folder / file).write_text(text.replace(old, new))
    try:
        end = end_of(worker, run, planned)
        assert isinstance(end, Failed if is_edit else Finished)
        assert not is_edit or (end.kind, "has changed since the plan was made" in end.reason) == (
            "code",
            True,
        )
    finally:
        (folder / file).write_text(text)
    assert isinstance(end_of(worker, run, planned), Finished)
