"""Every network on CIFAR-10, long enough to show that it learns: test accuracy and time, as a markdown table.

    python benchmarks/accuracies.py FOLDER                 all of them, some three hours of one core
    python benchmarks/accuracies.py FOLDER small_cnn cnn   these
    python benchmarks/accuracies.py --mnist FOLDER         `numpy_mlp` on MNIST, as its study has it

FOLDER holds `train/<class>/*` and `test/<class>/*`. One thread, seed 0, float32; 45,000 images to train on, 5,000 to validate. A run that
is broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

from ablate.config import RunConfig
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.study import spec
from ablate.training.payload import Folders, RunPayload
from ablate.training.runs import train

STUDIES = Path(__file__).parent.parent / "studies"

SMALL = {"width": 0.25, "stem_pool": True}
"""Inceptions as a CPU can bear them."""

RECIPES = {
    "small_cnn": ({}, {"name": "adam", "lr": 0.002}, 15, 128),
    "tutorial_cnn": ({}, {"name": "adam", "lr": 0.002}, 12, 128),
    "cnn": (
        {"depth": 3, "width": 32},
        {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
        6,
        128,
    ),
    "what_worked": ({}, {"name": "adam", "lr": 0.001}, 3, 64),
    "inception_v1": (SMALL, {"name": "adam", "lr": 0.001}, 8, 128),
    "inception_v2": (SMALL, {"name": "adam", "lr": 0.002}, 5, 128),
}
"""Settings of the network, optimizer, epochs, batch size."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("names", nargs="*", help=f"Of {', '.join(RECIPES)}; all of them if none is said.")
    parser.add_argument("--mnist", type=Path)
    given = parser.parse_args()
    if unknown := set(given.names) - RECIPES.keys():
        parser.error(f"no recipe for {', '.join(sorted(unknown))}")
    print("| network | epochs | validation | test | seconds |\n| --- | ---: | ---: | ---: | ---: |")
    if given.mnist:
        baseline = spec.read(STUDIES / "numpy_mlp.yaml").baseline
        data = {"data.name": "image_folder", "data.root": str(given.mnist), "data.channels": "grey"}
        tell("numpy_mlp", baseline.override(data))
    for name in (given.names or RECIPES) if given.folder else ():
        settings, optimizer, epochs, batch_size = RECIPES[name]
        tell(
            name,
            RunConfig.parse(
                {
                    "data": {"name": "image_folder", "root": str(given.folder), "validation": 0.1},
                    "model": {"name": name} | settings,
                    "augment": {"flip": True, "crop": 4},
                    "optimizer": optimizer,
                    "schedule": {"name": "onecycle"},
                    "training": {"epochs": epochs, "batch_size": batch_size},
                }
            ),
        )


def tell(name: str, config: RunConfig) -> None:
    """Train it and print its row."""
    run = hashlib.sha256(json.dumps(config.tree(), sort_keys=True).encode()).hexdigest()[:16]
    payload = RunPayload(config.tree(), seed=0, checkpoint_every=60.0)
    folders = Folders(checkpoints=Path(tempfile.gettempdir()) / "ablate-accuracies")
    began, validation = time.perf_counter(), float("nan")
    for event in train(Bundle((Task(run, 1, payload),)), folders):
        if isinstance(event, Failed):
            raise SystemExit(f"{name}: {event.reason}")
        if isinstance(event, EpochEnd):
            validation = event.metrics["val/accuracy"]
        if isinstance(event, Finished):
            test, took = event.metrics["test/accuracy"], time.perf_counter() - began
            cells = (name, event.epoch, f"{100 * validation:.1f} %", f"{100 * test:.1f} %", f"{took:.0f}")
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
