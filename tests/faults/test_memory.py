"""Too little memory: the run is tried again by itself, then fails with the batch size that would fit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# In a process of its own, whose address space is limited to a little more than it needs to begin with. Prints how each run
# ended: the type of its last event, and the kind and the reason of a failure. The run that does not fit has a child of that
# process to itself: what it leaves of the memory in pieces is none of the next run's.
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

run(32)  # so that what every run needs is there, the memory of a whole epoch too
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 1_000_000, resource.RLIM_INFINITY))
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, run(700).encode())
    os._exit(0)
os.close(writing)
too_large = os.read(reading, 10_000).decode()
print(too_large)
print(run(int(too_large.rpartition("; ")[2].split()[0])))
"""


# A step of 350 images fits into the last, by itself: a run needs a little more.
@pytest.mark.parametrize("megabytes", [68, 100, 132])
def test_a_run_that_finds_too_little_memory_says_which_batch_size_would_fit_and_that_one_does(
    shared_cache, megabytes
):
    done = subprocess.run(
        # A thread that has to wait for the allocator is given an arena of its own: address space that nobody asked for.
        [sys.executable, "-c", LIMITED, str(megabytes)],
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "ABLATE_CACHE": str(shared_cache)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    too_large, that_size = (line.split("|") for line in done.stdout.splitlines())
    assert too_large[:2] == ["Failed", "memory"], too_large
    assert too_large[2].startswith("out of memory with training.batch_size 700; ")
    assert that_size[0] == "Finished", that_size
