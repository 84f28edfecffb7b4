"""Too little memory: the run is tried again by itself, then fails with the batch size that would fit."""

from __future__ import annotations

import os
import subprocess
import sys

# In a process of its own, whose address space is limited to a little more than it needs to begin with.
LIMITED = """
import resource, sys
from ablate.config import RunConfig
from ablate.events import Bundle, Task
from ablate.training.payload import RunPayload
from ablate.training.runs import train

def run(batch_size):
    config = RunConfig.parse({
        "data": {"name": "digits", "validation": 0.1},
        "model": {"name": "cnn", "depth": 2, "width": 256},
        "training": {"epochs": 1, "batch_size": batch_size},
    })
    return list(train(Bundle((Task("run", 1, RunPayload(config.tree(), seed=0)),))))[-1]

run(8)  # so that what every run needs is there, the memory of a whole epoch too
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000, resource.RLIM_INFINITY))
ended = run(int(sys.argv[1]))
print(type(ended).__name__, getattr(ended, "kind", ""), getattr(ended, "reason", ""), sep="|")
"""


def trained_in_little_memory(batch_size: int) -> tuple[str, str, str]:
    """How a run ends: the type of its last event, and the kind and the reason of a failure."""
    done = subprocess.run(
        # A thread that has to wait for the allocator is given an arena of its own: address space that nobody asked for.
        [sys.executable, "-c", LIMITED, str(batch_size)],
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ended, kind, reason = done.stdout.strip("\n").split("|")
    return ended, kind, reason


def test_a_run_that_finds_too_little_memory_says_which_batch_size_would_fit_and_that_one_does(shared_cache):
    ended, kind, reason = trained_in_little_memory(1400)
    assert (ended, kind) == ("Failed", "memory"), reason
    assert reason.startswith("out of memory with training.batch_size 1400; ")
    fits = int(reason.rpartition("; ")[2].split()[0])
    # As it is used: in a process of its own, which has not run out of memory before.
    assert trained_in_little_memory(fits)[0] == "Finished"
