"""What averages of weights do to noise: the spread over seeds and the mean, against the last weights of the same trainings.

    python benchmarks/average.py                            digits, 40 seeds, about 3 minutes of one core
    python benchmarks/average.py --cifar FOLDER --seeds 20  1,500 images of CIFAR-10 (train/<class>/*), about 6
    python benchmarks/average.py --read FILE                the tables of what an earlier call has measured

Every training goes on as if nothing were averaged; beside it are exponential moving averages of the weights (of all steps; their
windows are 1/(1 − decay) steps, here in epochs) and means of the weights at the ends of the last epochs. All are evaluated at the end of
training. *averaged*: the running statistics of batch norm are averaged like weights; *estimated*: they are those of 1,024 training
images under the averaged weights. The arms (baseline, half the rate, dropout 0.2) train stacked, on the same batches.

SD: of val/accuracy over seeds, pooled over arms. paired: of the differences of the two arms from the baseline on the same seed, pooled.
Ratios are to the last weights under the same schedule, with the middle 90 % of 2,000 bootstrap samples of the seeds; seeds needed for the
same interval are the square of the ratio. gain: mean of val/accuracy over that of the last weights, in points, ± its standard error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.training.builtin.batches import Pixels, Splits, augmented_batches
from ablate.training.builtin.evaluation import evaluate
from ablate.training.builtin.learner import TorchLearner
from ablate.training.builtin.randomness import batch_streams
from ablate.training.builtin.schedules import schedule
from ablate.training.builtin.stack import Stacked

CPU = torch.device("cpu")
RESULTS = Path(__file__).parent / "results"
DIGITS = {
    "data": {"name": "digits", "validation": 0.25},
    "model": {"name": "cnn", "depth": 2, "width": 8},
    "augment": {"crop": 1},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"epochs": 15, "batch_size": 64},
}
CIFAR = {
    "data": {"name": "image_folder", "subset": 1500, "validation": 1 / 3},
    "model": {"name": "cnn", "depth": 3, "width": 8},
    "augment": {"flip": True, "crop": 4},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "training": {"epochs": 8, "batch_size": 64},
}
ARMS = {"baseline": {}, "half the rate": {}, "dropout": {"model.dropout": 0.2}}
SCHEDULES = ("constant", "cosine", "onecycle")
WINDOWS = (0.5, 1.0, 2.0, 4.0)
"""Of the moving averages, in epochs."""
LAST = (4,)
"""Epochs at whose ends weights are averaged."""
ESTIMATED_ON = 1024

Weights = list[Tensor]


def arms(base: RunConfig, seed: int) -> list[RunConfig]:
    half = {"half the rate": {"optimizer.lr": base.optimizer.lr / 2}}
    return [base.override(changes | half.get(name, {})).with_seed(seed) for name, changes in ARMS.items()]


class Averages:
    """Moving averages of tensors that training changes in place. steps: of an epoch."""

    def __init__(self, tensors: Weights, steps: int) -> None:
        self._tensors = tensors
        self._decays = {window: 1 - 1 / (window * steps) for window in WINDOWS}
        self._moving = {window: [t.detach().clone() for t in tensors] for window in WINDOWS}
        self._ends: list[Weights] = []
        self._step = 0

    @torch.no_grad()
    def after_step(self) -> None:
        self._step += 1
        for window, decay in self._decays.items():
            # The first weights are forgotten sooner than the decay alone would forget them.
            rate = 1 - min(decay, self._step / (self._step + 3))
            torch._foreach_lerp_(self._moving[window], self._tensors, rate)

    def after_epoch(self) -> None:
        self._ends = [*self._ends, [t.detach().clone() for t in self._tensors]][-max(LAST) :]

    def all(self) -> Iterator[tuple[str, Weights]]:
        yield "last", self._ends[-1]
        for window, weights in self._moving.items():
            yield f"moving, {window:g} epochs", weights
        for count in LAST:
            ends = self._ends[-count:]
            yield f"mean of {count} ends", [torch.stack(each).mean(0) for each in zip(*ends, strict=True)]


def trained(base: RunConfig, data: datasets.Dataset, seed: int) -> Iterator[tuple[str, str, float]]:
    """Train all arms on a seed; yield arm, average and val/accuracy."""
    configs = arms(base, seed)
    recipe, splits = configs[0], Splits(configs[0], data, CPU)
    classes = len(data.classes)
    networks = Stacked(configs, [TorchLearner(c, data.shape, classes, CPU) for c in configs], CPU)
    stack, streams = networks.stack, batch_streams(seed, CPU)
    running = [t for t in stack.buffers.values() if t.is_floating_point()]
    tensors = [*stack.parameters.values(), *running]
    count, epochs = len(splits.training), recipe.training.epochs
    steps = -(-count // recipe.training.batch_size)
    rates = [schedule(c.schedule, c.optimizer.lr, epochs * steps) for c in configs]
    averages = Averages(tensors, steps)
    for epoch in range(epochs):
        networks.set_rates([[rate(epoch * steps + step) for rate in rates] for step in range(steps)])
        order = torch.randperm(count, generator=streams["order"])
        for images, targets, _ in augmented_batches(recipe, streams, splits.training, order, classes):
            networks.step(images, targets)
            averages.after_step()
        averages.after_epoch()
    for name, weights in averages.all():
        with torch.no_grad():
            for tensor, average in zip(tensors, weights, strict=True):
                tensor.copy_(average)
        for kind in ("averaged", "estimated"):
            if kind == "estimated":
                estimate(networks, running, splits.training)
            for position, arm in enumerate(ARMS):
                accuracy = evaluate(lambda x, at=position: networks.logits(x)[at], splits.validation).accuracy
                yield arm, f"{name}, {kind}" if (name, kind) != ("last", "averaged") else name, accuracy


@torch.no_grad()
def estimate(networks: Stacked, running: Weights, training: Pixels) -> None:
    """Set the running statistics of batch norm to those of one large batch."""
    images, _ = training.batch(torch.arange(min(ESTIMATED_ON, len(training))))
    for tensor in running:
        tensor.zero_()
    networks.stack.training = True
    network = networks.stack
    network(training.normalised(images))
    for tensor in running:
        tensor.mul_(10)  # a tenth of a batch's statistics are added in a step: torch's momentum


# --- the tables -------------------------------------------------------------------------------------------------------


def spreads(values: np.ndarray) -> tuple[float, float]:
    """values: (seeds, arms), the baseline first → the pooled SD over seeds, and that of differences from the baseline."""
    paired = values[:, 1:] - values[:, :1]
    return tuple(float(np.sqrt(each.var(axis=0, ddof=1).mean())) for each in (values, paired))


def table(frame: pd.DataFrame) -> Iterator[str]:
    """Yield the lines of a table for each schedule."""
    names = list(dict.fromkeys(frame["average"]))
    for kind, part in frame.groupby("schedule", sort=False):
        values = {
            name: rows.pivot_table("accuracy", "seed", "arm")[list(ARMS)].to_numpy() * 100
            for name, rows in part.groupby("average", sort=False)
        }
        seeds = len(values["last"])
        yield f"\n{kind}, {seeds} seeds\n"
        yield "| weights | mean, % | gain, points | SD | ratio | paired SD | ratio |"
        yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
        draws = np.random.default_rng(0).integers(seeds, size=(2000, seeds))
        last = spreads(values["last"])
        last_draws = np.array([spreads(values["last"][draw]) for draw in draws])
        for name in names:
            found = spreads(values[name])
            gain = (values[name] - values["last"]).mean(axis=1)
            cells = [
                f"{values[name].mean():.2f}",
                f"{gain.mean():+.2f} ± {gain.std(ddof=1) / seeds**0.5:.2f}",
            ]
            ratios = np.array([spreads(values[name][draw]) for draw in draws]) / last_draws
            for which in range(2):
                low, high = np.quantile(ratios[:, which], (0.05, 0.95))
                ratio = found[which] / last[which]
                cells += [f"{found[which]:.2f}", f"{ratio:.2f} ({low:.2f} to {high:.2f})"]
            yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--schedules", nargs="*", default=SCHEDULES)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="seeds that it has are not trained again"
    )
    parser.add_argument("--read", type=Path)
    given = parser.parse_args()
    if given.read:
        print("\n".join(table(pd.read_csv(given.read))))
        return
    torch.set_num_threads(1)
    tree = dict(DIGITS)
    if given.cifar:
        tree = CIFAR | {"data": CIFAR["data"] | {"root": str(given.cifar)}}
    base = RunConfig.parse(tree)
    if given.epochs:
        base = base.override({"training.epochs": given.epochs})
    data = datasets.prepare(base.data)
    output = given.output or RESULTS / f"average_{'cifar' if given.cifar else 'digits'}.csv"
    output.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.read_csv(output) if output.exists() else pd.DataFrame()
    done = set(zip(frame.get("schedule", ()), frame.get("seed", ()), strict=True))
    began = time.process_time()
    for seed in range(given.first, given.first + given.seeds):
        for name in given.schedules:
            if (name, seed) in done:
                continue
            results = trained(base.override({"schedule": {"name": name}}), data, seed)
            rows = [(name, seed, *row) for row in results]
            columns = ["schedule", "seed", "arm", "average", "accuracy"]
            frame = pd.concat([frame, pd.DataFrame(rows, columns=columns)], ignore_index=True)
            frame.to_csv(output, index=False)
        print(f"seed {seed}: {time.process_time() - began:.0f} s of the processor", flush=True)
    print("\n".join(table(frame)))


if __name__ == "__main__":
    main()
