"""Runs of one seed that differ in learning rate and dropout: as one bundle, against one at a time, as a markdown table.

    python benchmarks/fused.py --cifar FOLDER                   16 small_cnn runs on 5,000 images of CIFAR-10 (train/<class>/*)
    python benchmarks/fused.py                                  the same on digits, which are far smaller
    python benchmarks/fused.py --accuracy --seeds 20            test accuracies of fused and single runs, seed by seed

One process, one thread; repeats are interleaved. `in turn` is the bundle with stacking forbidden, `fused` the bundle as
`ablate run` trains it, which measures first and then decides. Processor time knows of no other work on the machine; the wall
clock does: look at the load beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.events import Bundle, Failed, Finished, Task
from ablate.training.builtin import choose
from ablate.training.outcome import machine
from ablate.training.payload import RunPayload
from ablate.training.runs import train

RESULTS = Path(__file__).parent / "results" / "fused.json"

DIGITS = {
    "data": {"name": "digits", "validation": 0.1},
    "model": {"name": "small_cnn", "kernel_size": 2},
    "augment": {"crop": 1},
}
CIFAR = {
    "data": {"name": "image_folder", "subset": 5000, "validation": 0.1},
    "model": {"name": "small_cnn"},
    "augment": {"flip": True, "crop": 4},
}


def arms(base: RunConfig, runs: int) -> list[RunConfig]:
    """Learning rates × probabilities of dropout."""
    rates = max(1, runs // 4)
    return [
        base.override({"optimizer.lr": 0.01 * 2 ** (n % rates / 2), "model.dropout": 0.1 * (n // rates)})
        for n in range(runs)
    ]


def bundle(recipes: list[RunConfig], seed: int, device: str, *, fuse: bool) -> Bundle:
    payloads = [RunPayload(recipe.tree(), seed, device=device, fuse=fuse) for recipe in recipes]
    return Bundle(tuple(Task(str(n), 1, payload) for n, payload in enumerate(payloads)))


def trained(given: Bundle) -> list[Finished]:
    events = list(train(given))
    failed = [event for event in events if isinstance(event, Failed)]
    assert not failed, failed[0]
    found = {event.run: event for event in events if isinstance(event, Finished)}
    return [found[task.run] for task in given.tasks]


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the wall and by the processor."""
    wall, own = time.perf_counter(), time.process_time()
    do()
    return time.perf_counter() - wall, time.process_time() - own


def row(*cells: object) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def speed(base: RunConfig, runs: int, repeat: int, device: str) -> dict[str, object]:
    recipes = arms(base, runs)

    def shared() -> None:
        with mock.patch.object(choose, "pays", return_value=False):
            trained(bundle(recipes, 0, device, fuse=True))

    ways: dict[str, Callable[[], object]] = {
        "one at a time": lambda: trained(bundle(recipes, 0, device, fuse=False)),
        "in turn": shared,
        "fused": lambda: trained(bundle(recipes, 0, device, fuse=True)),
    }
    first = [
        event
        for event in train(bundle(recipes, 0, device, fuse=True))
        if "fused" in vars(event).get("facts", {})
    ]
    decision = sorted({event.facts["fused"] for event in first})
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    loads = []
    for _ in range(repeat):
        for name, do in ways.items():
            seconds[name].append(timed(do))
            loads.append(os.getloadavg()[0])
    images = runs * base.training.epochs * datasets_size(base)
    print(f"decided: {', '.join(decision)}; load {min(loads):.1f} to {max(loads):.1f}\n")
    row(
        f"{runs} runs",
        "processor, s",
        "wall, s (least to most)",
        "images per processor second",
        "speed-up, processor",
        "speed-up, wall",
    )
    row(*["---"] * 6)
    one_wall, one_own = (statistics.median(column) for column in zip(*seconds["one at a time"], strict=True))
    table = {}
    for name, found in seconds.items():
        walls, owns = zip(*found, strict=True)
        wall, own = statistics.median(walls), statistics.median(owns)
        row(
            name,
            f"{own:.2f}",
            f"{wall:.2f} ({min(walls):.2f} to {max(walls):.2f})",
            f"{images / own:,.0f}",
            f"{one_own / own:.2f}×",
            f"{one_wall / wall:.2f}×",
        )
        table[name] = {"wall": walls, "processor": owns}
    return {
        "decided": decision,
        "runs": runs,
        "seconds": table,
        "load": [min(loads), max(loads)],
        "images": images,
    }


def datasets_size(base: RunConfig) -> int:
    labels = datasets.prepare(base.data).train_labels
    return len(datasets.split(labels, base.data, 0)[0])


def accuracy(base: RunConfig, seeds: int, device: str) -> dict[str, object]:
    """Test accuracies of two arms, fused and single, under each seed."""
    # One that learns digits in a few epochs: where all guess, all are equal.
    base = base.override({"model": {"name": "cnn", "depth": 2, "width": 8}, "optimizer.lr": 0.1})
    recipes = [base, base.override({"model.dropout": 0.2})]
    differences, single = [], []
    for seed in range(seeds):
        with mock.patch.object(choose, "pays", return_value=True):
            ours = trained(bundle(recipes, seed, device, fuse=True))
        theirs = trained(bundle(recipes, seed, device, fuse=False))
        for mine, other in zip(ours, theirs, strict=True):
            differences.append(mine.metrics["test/accuracy"] - other.metrics["test/accuracy"])
            single.append(other.metrics["test/accuracy"])
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean, spread = statistics.fmean(differences), statistics.stdev(single)
    row("pairs", "single, test accuracy", "its spread", "stacked − single", "± 2 standard errors")
    row(*["---"] * 5)
    row(
        len(differences),
        f"{100 * statistics.fmean(single):.2f} %",
        f"{100 * spread:.2f}",
        f"{100 * mean:+.3f} points",
        f"{200 * error:.3f}",
    )
    return {"differences": differences, "single": single}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar", metavar="FOLDER", help="CIFAR-10 as an image folder; by default, digits")
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--seeds", type=int, default=20, help="of --accuracy")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tree = CIFAR if asked.cifar else DIGITS
    if asked.cifar:
        tree = tree | {"data": {**tree["data"], "root": asked.cifar}}
    loop = {"epochs": asked.epochs, "batch_size": 128}
    base = RunConfig.parse(tree | {"optimizer": {"name": "sgd", "lr": 0.02}, "training": loop})
    print(f"{base.data.name}, {machine(asked.device)['device']}, torch {torch.__version__}", file=sys.stderr)
    if asked.accuracy:
        found, name = accuracy(base, asked.seeds, asked.device), "accuracy"
    else:
        found, name = speed(base, asked.runs, asked.repeat, asked.device), "speed"
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[f"{name}, {base.data.name}, {torch.device(asked.device).type}"] = found | {
        name: machine(asked.device)[name] for name in ("device", "torch", "python")
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
