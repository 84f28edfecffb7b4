"""Is the rate that `ablate lr` suggests a good one? Held against a sweep of real runs of the same length.

    python benchmarks/lr.py                                     digits, five networks and optimizers, about 3 minutes
    python benchmarks/lr.py --cifar FOLDER                      5,000 images of CIFAR-10 (train/<class>/*), about 5 minutes

For every case: what a range test of three seeds (2000 to 2002) suggests, the best rate of a sweep in half decades (seeds
from 0), and validation accuracy at both, the suggestion trained as one more rate of the sweep.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch

from ablate.analysis.rates import RangeTest, range_test
from ablate.config import RunConfig
from ablate.data import datasets
from ablate.events import EpochEnd, Failed, Task
from ablate.measuring import range_test as testing
from ablate.training.payload import RunPayload
from ablate.training.runs import events_of

GRID = [10 ** (k / 2) for k in range(-8, 2)]

DIGITS = {
    "data": {"name": "digits", "validation": 0.25},
    "model": {"name": "cnn", "depth": 2, "width": 16, "batch_norm": False},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"epochs": 8, "batch_size": 64},
}
DIGITS_CASES = {
    "cnn without batch norm, sgd": {},
    "cnn without batch norm, adam": {"optimizer.name": "adam"},
    "cnn, sgd": {"model.batch_norm": True},
    "cnn, adamw": {"model.batch_norm": True, "optimizer.name": "adamw"},
    "numpy_mlp, sgd": {"model.name": "numpy_mlp"},
    "numpy_mlp, adam": {"model.name": "numpy_mlp", "optimizer.name": "adam"},
}
CIFAR = {
    "data": {"name": "image_folder", "subset": 5000, "validation": 0.2},
    "model": {"name": "cnn", "depth": 3, "width": 8},
    "augment": {"flip": True, "crop": 4},
    "optimizer": {"name": "sgd", "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"epochs": 4, "batch_size": 64},
}
CIFAR_CASES = {
    "cnn, sgd": {},
    "cnn, adam": {"optimizer.name": "adam"},
    "small_cnn, sgd": {"model.name": "small_cnn"},
}


def suggestion(config: RunConfig, data: datasets.Dataset, passes: int) -> RangeTest:
    curves = [testing.losses(config.with_seed(2000 + s), data, 1e-5, 10.0, passes=passes) for s in range(3)]
    return range_test(curves[0][0], [losses for _, losses in curves])


def accuracy(config: RunConfig, seeds: int) -> float:
    """Mean over seeds of the last epoch's validation accuracy, in percent."""
    found = []
    for seed in range(seeds):
        events = list(events_of(Task("sweep", 1, RunPayload(config.tree(), seed))))
        if isinstance(events[-1], Failed):
            raise SystemExit(events[-1].reason)
        found.append([event for event in events if isinstance(event, EpochEnd)][-1].metrics["val/accuracy"])
    return 100 * statistics.mean(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=2, help="of every rate of the sweep")
    parser.add_argument("--passes", type=int, help="of the range test; by default 5 on digits, 1 on CIFAR-10")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tree, cases = (CIFAR, CIFAR_CASES) if asked.cifar else (DIGITS, DIGITS_CASES)
    if asked.cifar:
        tree = tree | {"data": {**tree["data"], "root": asked.cifar}}
    passes = asked.passes or (1 if asked.cifar else 5)
    base = RunConfig.parse(tree)
    data = datasets.prepare(base.data)
    print(
        "| case | suggested | single seeds | best of the sweep | accuracy there | at the suggestion | test, sweep |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, changes in cases.items():
        config = base.override(changes)
        began = time.perf_counter()
        found = suggestion(config, data, passes)
        tested = time.perf_counter()
        at = {rate: accuracy(config.override({"optimizer.lr": rate}), asked.seeds) for rate in GRID}
        best = max(at, key=lambda rate: at[rate])
        swept = time.perf_counter()
        took = f"{tested - began:.0f} s, {swept - tested:.0f} s"
        print(name, {f"{rate:.2g}": float(np.round(value, 1)) for rate, value in at.items()}, file=sys.stderr)
        if found.suggestion is None:
            print(
                f"| {name} | inconclusive: {found.reason} | | {best:.2g} | {at[best]:.1f} | | {took} |",
                flush=True,
            )
            continue
        mine = accuracy(config.override({"optimizer.lr": found.suggestion}), asked.seeds)
        between = f"{found.between[0]:g}–{found.between[1]:g}" if found.between else ""
        print(
            f"| {name} | {found.suggestion:g} | {between} | {best:.2g} | {at[best]:.1f} | {mine:.1f} | {took} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
