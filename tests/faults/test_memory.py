"""Too little memory: the run is tried again by itself, then fails with the batch size that would fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

# In a process of its own, whose children have little more address space than it needs. Prints for each limit how a run ended that
# does not fit, and how one did with the batch size that would: the type of its last event, and the kind and the reason of a
# failure. Each has a child to itself: what it leaves of the memory in pieces is none of the next run's.
LIMITED = """
import os, resource, sys, torch
from ablate.config import RunConfig
from ablate.events import Bundle, Task
from ablate.training.payload import RunPayload
from ablate.training.runs import train

torch.set_num_threads(1)  # a child has no other threads

def run(batch_size):
    config = RunConfig.parse({
        "data": {"name": "digits", "validation": 0.1, "subset": 800},
        "model": {"name": "cnn", "depth": 2, "width": 256},
        "training": {"epochs": 1, "batch_size": batch_size},
    })
    ended = list(train(Bundle((Task("run", 1, RunPayload(config.tree(), seed=0)),))))[-1]
    return "|".join((type(ended).__name__, getattr(ended, "kind", ""), getattr(ended, "reason", "")))

def run_limited(batch_size, limit):
    reading, writing = os.pipe()
    if os.fork() == 0:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.write(writing, run(batch_size).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as ended:
        return ended.read()

run(32)  # so that what every run needs is there, the memory of a whole epoch too
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
for megabytes in map(int, sys.argv[1:]):
    limit = used + megabytes * 1_000_000
    too_large = run_limited(700, limit)
    print(too_large)
    print(run_limited(int(too_large.rpartition("; ")[2].split()[0]), limit))
"""


@pytest.mark.parametrize(
    "megabytes", [[100], pytest.param(range(66, 186, 3), marks=pytest.mark.slow)], ids=["one", "forty"]
)
def test_a_run_that_finds_too_little_memory_says_which_batch_size_would_fit_and_that_one_does(
    shared_cache, megabytes
):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, megabytes)],
        # A thread that has to wait for the allocator is given an arena of its own: address space that nobody asked for.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "ABLATE_CACHE": str(shared_cache)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    ends = [line.split("|") for line in done.stdout.splitlines()]
    assert len(ends) == 2 * len(megabytes)
    for too_large, that_size in zip(ends[::2], ends[1::2], strict=True):
        assert too_large[:2] == ["Failed", "memory"], too_large
        size = re.fullmatch(r"out of memory with training.batch_size 700; (\d+) would fit", too_large[2])
        # What the run leaves in pieces does not count as full.
        assert size is not None, too_large
        assert int(size[1]) > 10
        assert that_size[0] == "Finished", (too_large, that_size)
