"""Is the rate that `ablate lr` suggests a good one, and what does it cost? Held against a sweep of whole runs.

    python benchmarks/lr.py                                     digits, six networks and optimizers, about 30 s
    python benchmarks/lr.py --cifar FOLDER                      5,000 images of CIFAR-10 (train/<class>/*), about 2 minutes
    python benchmarks/lr.py --sweeps 4 --seeds 4                each sweep four times, under other seeds

For every case: what `ablate lr` suggests (seed 2000, and those after it with `--sweeps`), the best rate of a sweep in half decades (seeds from 0), validation
accuracy at both, the suggestion trained as one more rate of the sweep, by how much it is below with the standard error over seeds, and
processor time: of `ablate lr`, of one run, and their ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from typing import Any

import torch

from ablate import launch
from ablate.config import RunConfig
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.executors import Slot
from ablate.executors.inline import InlineExecutor
from ablate.scheduling import rates
from ablate.study import spec
from ablate.study.seeds import seed_of
from ablate.training import runs
from ablate.training.payload import RunPayload

GRID = [10 ** (k / 2) for k in range(-6, 2)]
CIFAR_GRID = [10 ** (k / 2) for k in range(-4, 1)]

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


def accuracies(
    config: RunConfig, grid: list[float], seeds: list[int], *, tested: bool = False
) -> dict[float, list[float]]:
    """Return validation accuracy at the last epoch in percent, by rate and seed. What diverges is guessing: 10 %.

    tested: whether the runs end with the test set, as those of a study do.
    """
    values: dict[float, list[float]] = {rate: [] for rate in grid}
    for seed in seeds:
        payloads = [
            RunPayload(config.override({"optimizer.lr": r}).tree(), seed, fuse=len(grid) > 1, tested=tested)
            for r in grid
        ]
        last: dict[str, float] = {}
        for event in runs.train(
            Bundle(tuple(Task(f"{r!r}", 1, p) for r, p in zip(grid, payloads, strict=True)))
        ):
            if isinstance(event, Failed):
                raise SystemExit(event.reason)
            if isinstance(event, EpochEnd):
                last[event.run] = event.metrics["val/accuracy"]
            if isinstance(event, Finished) and event.outcome == "diverged":
                last[event.run] = 0.1
        for rate in grid:
            values[rate].append(100 * last[f"{rate!r}"])
    return values


def difference(best: list[float], suggested: list[float]) -> str:
    """Return how far the suggestion is below, with its standard error over seeds. best, suggested: accuracies by seed, in percent."""
    pairs = [a - b for a, b in zip(best, suggested, strict=True)]
    error = f" ± {statistics.stdev(pairs) / len(pairs) ** 0.5:.1f}" if len(pairs) > 1 else ""
    return f"{statistics.mean(pairs):.1f}{error}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=2, help="of every rate of the sweep")
    parser.add_argument("--sweeps", type=int, default=1, help="of each case, each under a seed of its own")
    parser.add_argument(
        "--first-sweep", type=int, default=0, metavar="N", help="the first sweep's seed is 2000 + N"
    )
    parser.add_argument("--case", action="append", help="only this one; repeatable")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as in `ablate lr`")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tree: dict[str, Any]
    tree, cases = (CIFAR, CIFAR_CASES) if asked.cifar else (DIGITS, DIGITS_CASES)
    if asked.cifar:
        tree = tree | {"data": {**tree["data"], "root": asked.cifar}}
    print(
        "| case | suggested | within the margin | best of the sweep | accuracy there | at the suggestion | below | whole runs | `ablate lr` | one run | ratio |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    sweeps = range(asked.first_sweep, asked.first_sweep + asked.sweeps)
    half_decades = CIFAR_GRID if asked.cifar else GRID
    known: dict[str, dict[float, list[float]]] = {}
    missed: list[float] = []
    for (name, changes), sweep in itertools.product(cases.items(), sweeps):
        if asked.case and name not in asked.case:
            continue
        rates.seed_of = lambda phase, replicate, first=sweep: seed_of(phase, first + replicate)
        study = spec.parse(
            json.dumps(
                {"study": "bench", "margin": 0.01, "baseline": tree, "factors": {"training.epochs": [99]}}
            ),
            sets=[*(f"{path}={json.dumps(value)}" for path, value in changes.items()), *asked.set],
        )
        config = study.baseline
        assert isinstance(config, RunConfig)
        facts = launch.data_lookup()(config)
        accuracies(
            config.override({"training.epochs": 1}), [0.01], [0]
        )  # what the first run of a process loads
        began = time.process_time()
        result = rates.sweep(
            study,
            rates.SweepOptions(),
            InlineExecutor(runs.train, Slot("inline", "cpu")),
            lambda _: None,
            facts,
        )
        swept = time.process_time()
        accuracies(config, [result.suggestion or 0.01], [2000], tested=True)
        one = time.process_time() - swept
        took = f"{swept - began:.1f} s | {one:.1f} s | {(swept - began) / one:.1f}"
        seeds = list(range(asked.seeds))
        by_seed = known.setdefault(name, {})
        wanted = [*half_decades, *([] if result.suggestion is None else [result.suggestion])]
        by_seed |= accuracies(config, [rate for rate in dict.fromkeys(wanted) if rate not in by_seed], seeds)
        at = {rate: statistics.mean(found) for rate, found in by_seed.items()}
        best = max(half_decades, key=lambda rate: at[rate])
        print(name, {f"{rate:.2g}": round(value, 1) for rate, value in at.items()}, file=sys.stderr)
        near = "" if result.between is None else f"{result.between[0]:g}–{result.between[1]:g}"
        suggested, there = (
            (f"none: {result.reason}", "")
            if result.suggestion is None
            else (f"{result.suggestion:g}", f"{at[result.suggestion]:.1f}")
        )
        below = ""
        if result.suggestion is not None:
            below = difference(by_seed[best], by_seed[result.suggestion])
            missed.append(at[best] - at[result.suggestion])
        whole = sum(trial.is_whole for trial in result.trials)
        print(
            f"| {name} | {suggested} | {near} | {best:.2g} | {at[best]:.1f} | {there} | {below} | {whole} | {took} |",
            flush=True,
        )
    many = sum(value > 1 for value in missed)
    print(
        f"\n{many} of {len(missed)} suggestions more than a point below the best, {statistics.mean(missed):.2f} points on average"
    )


if __name__ == "__main__":
    main()
