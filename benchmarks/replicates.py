"""Many replicates of one small network on handwritten digits: real A/A runs, for `verdicts.py --real` to split.

    python benchmarks/replicates.py                       256 of them, into benchmarks/results/digits.csv
    python benchmarks/replicates.py --replicates 300 pool.csv

One process, one thread, a second or two a replicate. The split is fixed, as it is in a study: what varies is what the
seed varies. The same settings give the same file, on one kind of processor.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import pandas as pd

from ablate.config import RunConfig
from ablate.errors import TrainingError
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.training.payload import RunPayload
from ablate.training.runs import train

DEFAULT = Path(__file__).parent / "results" / "digits.csv"

METRIC = "val/accuracy"

# The baseline of studies/quickstart.yaml, written out so that an edit there does not change the pool.
CONFIG = RunConfig.parse(
    {
        "data": {"name": "digits", "validation": 0.25, "split": "fixed"},
        "model": {"name": "cnn", "depth": 2, "width": 16, "batch_norm": False},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
        "schedule": {"name": "onecycle"},
        "training": {"epochs": 8, "batch_size": 64},
    }
)


def replicates(config, seeds, device="cpu"):
    """(seed, value of METRIC at the epoch that counts) of one training a seed; NaN where it diverged."""
    tasks = tuple(Task(str(seed), 1, RunPayload(config.tree(), seed, device=device)) for seed in seeds)
    values: dict[int, float] = {}
    for event in train(Bundle(tasks)):
        if isinstance(event, Failed):
            raise TrainingError(event.reason, place=f"seed {event.run}")
        if isinstance(event, EpochEnd):
            values[event.epoch] = event.metrics[METRIC]
        if isinstance(event, Finished):
            yield int(event.run), values[event.epoch] if event.outcome == "finished" else math.nan
            values.clear()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path, default=DEFAULT, help=f"CSV to write ({DEFAULT.name})")
    parser.add_argument("--replicates", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    rows = []
    for seed, value in replicates(CONFIG, range(given.replicates), given.device):
        rows.append((seed, value))
        if (seed + 1) % 32 == 0:
            print(f"{seed + 1} of {given.replicates} in {time.perf_counter() - began:.0f} s", flush=True)
    frame = pd.DataFrame(rows, columns=["seed", "value"])
    given.path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(given.path, index=False)
    spread = f"mean {frame['value'].mean():.4f}, SD {frame['value'].std():.4f}"
    print(f"{given.path}: {len(frame)} replicates, {METRIC} {spread}, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
