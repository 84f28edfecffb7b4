"""The built-in training: a bundle of runs → a stream of events.

Knows nothing of who asked or who listens. Every run draws its randomness from streams of its own seed, so on a CPU the
same config gives the same weights bit for bit, in whatever process and whatever bundle.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import platform
import struct
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate import config as configs
from ablate.config import RunConfig
from ablate.data import augment, datasets
from ablate.data.datasets import Dataset
from ablate.errors import AblateError, TrainingError
from ablate.events import Bundle, EpochEnd, Event, Failed, Finished, Started, Task
from ablate.models import layers as own_layers
from ablate.models import table
from ablate.training import free, metrics
from ablate.training.randomness import FIXED_SPLIT, derive, generator

EVALUATION_BATCH = 1000

Steps = Generator["Progress | Result", None, None]


@dataclass(frozen=True)
class Progress:
    """facts where training begins, metrics where an epoch ends."""

    epoch: int
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """The end of a run; fields as in `Finished`."""

    diverged: bool
    epoch: int
    metrics: Mapping[str, float]
    files: Mapping[str, bytes]
    facts: Mapping[str, Any]


def train(bundle: Bundle) -> Generator[Event, frozenset[str] | None, None]:
    """Train the runs of a bundle, one after another.

    A task's payload: `config` (the tree of a RunConfig or FreeConfig), `seed`, `train` (None, or the user's own training
    as `package.module:function`), `device`, `threads`. What `yield` gives back is the set of runs to break off, or None.
    """
    cancelled: frozenset[str] = frozenset()
    for task in bundle.tasks:
        stamped = _stamp(task)
        try:
            event = next(stamped, None)
            while event is not None:
                cancelled |= (yield event) or frozenset()
                if task.run in cancelled and not isinstance(event, Finished | Failed):
                    yield Failed(task.run, task.attempt, event.seq + 1, time.time(), "cancelled", "cancelled")
                    break
                event = next(stamped, None)
        finally:
            stamped.close()


def _stamp(task: Task) -> Generator[Event, None, None]:
    """Events of one task, numbered and timed; an exception becomes the last of them."""
    seq = 0

    def mark() -> tuple[str, int, int, float]:
        nonlocal seq
        seq += 1
        return task.run, task.attempt, seq - 1, time.time()

    try:
        payload = task.payload
        torch.set_num_threads(int(payload["threads"]))
        if payload["train"] is None:
            config = RunConfig.parse(payload["config"]).with_seed(payload["seed"])
            steps = _steps(config, datasets.prepare(config.data), torch.device(payload["device"]))
        else:
            steps = _free_steps(payload)
        for step in steps:
            if isinstance(step, Result):
                yield Finished(
                    *mark(),
                    "diverged" if step.diverged else "finished",
                    step.epoch,
                    step.metrics,
                    step.files,
                    step.facts,
                )
            elif step.epoch == 0:
                yield Started(*mark(), step.facts)
            else:
                yield EpochEnd(*mark(), step.epoch, step.metrics)
    except AblateError as error:
        yield Failed(*mark(), "error", str(error))
    except Exception as error:  # noqa: BLE001 — whatever training raises is a failed attempt, not a dead worker
        yield Failed(*mark(), "error", f"{type(error).__name__}: {error}", traceback.format_exc())


def _free_steps(payload: Mapping[str, Any]) -> Steps:
    began = time.perf_counter()
    losses = Trace()
    last: dict[str, float] = {}
    epoch = 0
    yield Progress(0, {}, machine("cpu"))
    for values in free.load(payload["train"])(payload["config"], payload["seed"]):
        epoch += 1
        last = free.checked(values)
        shown = {
            name: value for name, value in last.items() if not name.startswith(("test/", "time/", "model/"))
        }
        losses.add(*(value for name, value in sorted(shown.items()) if name != "lr"))
        yield Progress(epoch, shown, {})
        if any(not math.isfinite(value) for value in shown.values()):
            yield Result(True, epoch, {"time/train_seconds": time.perf_counter() - began}, {}, losses.facts())
            return
    if epoch == 0:
        raise TrainingError("the training function yielded no metrics", place=payload["train"])
    final = {name: value for name, value in last.items() if name.startswith(("test/", "model/"))}
    yield Result(
        False, epoch, final | {"time/train_seconds": time.perf_counter() - began}, {}, losses.facts()
    )


class Trace:
    """Digest of full-precision values: what two runs share only if they were the same run."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, *values: float) -> None:
        self._hash.update(struct.pack(f"<{len(values)}d", *values))

    def facts(self) -> dict[str, str]:
        return {"trace": self._hash.hexdigest()[:16]}


def machine(device: torch.device | str) -> dict[str, Any]:
    """What runs were trained on, for the record."""
    device = torch.device(device)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "device": f"{device.type}: {name}",
        "torch": torch.__version__.partition("+")[0],
        "python": platform.python_version(),
        "host": platform.node(),
        "pid": os.getpid(),
    }


# --- one run ------------------------------------------------------------------------------------------------------


def _steps(config: RunConfig, data: Dataset, device: torch.device) -> Steps:
    began = time.perf_counter()
    seed, recipe = config.seed, config.training
    split_seed = derive(seed, "split") if config.data.split == "per-seed" else derive(0, FIXED_SPLIT)
    train_index, val_index = datasets.split(data.train_labels, config.data, split_seed)
    mean, std = (
        datasets.normalization(data.train_images, train_index)
        if config.data.normalize
        else (np.zeros(data.shape[0]), np.ones(data.shape[0]))
    )
    training = Pixels(data.train_images, data.train_labels, train_index, mean, std, device)
    validation = Pixels(data.train_images, data.train_labels, val_index, mean, std, device)

    model = initialised(config, data.shape, len(data.classes))
    rows = table.layers(model, data.shape)
    size, work = table.parameters(model), table.flops(model, data.shape)
    model = model.to(device).to(memory_format=torch.channels_last)
    own_layers.use(model, generator(seed, "dropout", device))
    optimizer = make_optimizer(config.optimizer, model)
    order = generator(seed, "order")
    draws = generator(seed, "augmentation", device)
    per_epoch = math.ceil(len(training) / recipe.batch_size)
    lr_at = schedule(config.schedule, config.optimizer.lr, recipe.epochs * per_epoch)
    amp = torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16")
    yield Progress(0, {}, machine(device) | {"parameters": size, "flops": work})

    losses, best, step = Trace(), (math.inf, 0), 0
    validated = None
    kept: dict[str, Any] = {}
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        lr = 0.0
        loss_sum = torch.zeros((), device=device, dtype=torch.float64)
        hits = torch.zeros((), device=device, dtype=torch.int64)
        for index in torch.split(torch.randperm(len(training), generator=order), recipe.batch_size):
            images, labels = training.batch(index)
            images = training.floats(augment.augment(images, config.augment, draws))
            lr = lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad()
            with amp:
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            # Sums stay on the device: reading a value here would make a GPU wait at every step.
            loss_sum += loss.detach() * len(labels)
            hits += (logits.detach().argmax(1) == labels).sum()
        seen = evaluate(model, validation, amp)
        values = {
            "train/loss": float(loss_sum) / len(training),
            "train/accuracy": float(hits) / len(training),
            "val/loss": seen.loss,
            "val/accuracy": seen.accuracy,
            "lr": lr,
        }
        losses.add(values["train/loss"], values["val/loss"])
        yield Progress(epoch, values, {})
        if not (math.isfinite(values["train/loss"]) and math.isfinite(values["val/loss"])):
            yield Result(
                True,
                epoch,
                _costs(began, size, work),
                {},
                losses.facts() | {"reason": f"loss not finite in epoch {epoch}"},
            )
            return
        if recipe.checkpoint == "best" and seen.loss < best[0]:
            best, kept, validated = (seen.loss, epoch), copy.deepcopy(model.state_dict()), seen
        elif recipe.checkpoint == "last":
            best, validated = (seen.loss, epoch), seen
    if kept:
        model.load_state_dict(kept)

    every = np.arange(len(data.test_labels))
    assert validated is not None
    tested = evaluate(model, Pixels(data.test_images, data.test_labels, every, mean, std, device), amp)
    scores = metrics.scores(tested.confusion)
    final = {
        "test/loss": tested.loss,
        "test/accuracy": scores.accuracy,
        "test/precision_macro": scores.precision_macro,
        "test/recall_macro": scores.recall_macro,
        "test/f1_macro": scores.f1_macro,
    }
    files = {
        "config.json": json.dumps(config.tree(), indent=2).encode(),
        "layers.json": json.dumps([vars(row) for row in rows]).encode(),
        "confusion_matrix.json": json.dumps(
            {
                "classes": data.classes,
                "counts": tested.confusion.tolist(),
                "per_class_accuracy": scores.per_class,
            }
        ).encode(),
        "confusion_matrix.svg": metrics.confusion_svg(tested.confusion, data.classes).encode(),
        "predictions.npz": _npz(
            val_index=val_index.astype(np.int32),
            val_truth=validated.truth,
            val_predicted=validated.predicted,
            test_truth=tested.truth,
            test_predicted=tested.predicted,
        ),
    }
    facts = losses.facts() | {"weights": weights_digest(model)}
    yield Result(False, best[1], final | _costs(began, size, work), files, facts)


def _costs(began: float, size: int, work: int) -> dict[str, float]:
    return {"time/train_seconds": time.perf_counter() - began, "model/parameters": size, "model/flops": work}


def _npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


class Pixels:
    """Images of one split, ready to be batched. On a GPU they are resident there; on a CPU they stay mapped.

    images: (N, C, H, W) uint8. index: (n,) which of them. mean, std: (C,) in units of [0, 1].
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        index: np.ndarray[Any, Any],
        mean: np.ndarray[Any, Any],
        std: np.ndarray[Any, Any],
        device: torch.device,
    ) -> None:
        self._images, self._labels, self._index, self.device = images, labels, index, device
        shape = (1, -1, 1, 1)
        # (x/255 − mean)/std as one multiply-add.
        self._scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device).view(shape)
        self._shift = torch.tensor(-mean / std, dtype=torch.float32, device=device).view(shape)
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu":
            self._resident = (
                torch.from_numpy(images[index]).to(device),
                torch.from_numpy(labels[index]).to(device),
            )

    def __len__(self) -> int:
        return len(self._index)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """index: (b,) int64 on the CPU → (b, C, H, W) uint8 and (b,) int64, on the device."""
        if self._resident is not None:
            there = index.to(self.device, non_blocking=True)
            return self._resident[0][there], self._resident[1][there]
        rows = self._index[index.numpy()]
        return torch.from_numpy(self._images[rows]), torch.from_numpy(self._labels[rows])

    def floats(self, images: Tensor) -> Tensor:
        """(b, C, H, W) uint8 → normalised float32 in channels_last order."""
        wide = images.to(torch.float32, memory_format=torch.channels_last)
        return torch.addcmul(self._shift, wide, self._scale)


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy. truth, predicted: (n,) class indices. confusion: (classes, classes) counts."""

    loss: float
    accuracy: float
    truth: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    confusion: np.ndarray[Any, Any]


@torch.no_grad()
def evaluate(model: nn.Module, pixels: Pixels, amp: torch.autocast) -> Evaluation:
    """The model in evaluation mode on a whole split."""
    model.eval()
    loss = torch.zeros((), device=pixels.device, dtype=torch.float64)
    truth, predicted, classes = [], [], 0
    for index in torch.split(torch.arange(len(pixels)), EVALUATION_BATCH):
        images, labels = pixels.batch(index)
        with amp:
            logits = model(pixels.floats(images)).float()
        loss += F.cross_entropy(logits, labels, reduction="sum")
        truth.append(labels)
        predicted.append(logits.argmax(1))
        classes = logits.shape[1]
    small: type[np.unsignedinteger[Any]] = np.uint8 if classes <= 256 else np.uint16
    true, seen = (torch.cat(parts).cpu().numpy().astype(small) for parts in (truth, predicted))
    confusion = metrics.confusion_matrix(true, seen, classes)
    return Evaluation(
        float(loss) / len(pixels), float(np.trace(confusion)) / len(pixels), true, seen, confusion
    )


def initialised(config: RunConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network of a config with the initial weights of its seed."""
    # torch's layers draw their weights from the global generator: give them a private one for the time being.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(config.seed, "weights"))
        return config.model.build(shape, classes)


def make_optimizer(
    config: configs.Sgd | configs.Adam | configs.AdamW, model: nn.Module
) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if isinstance(config, configs.Sgd):
        return torch.optim.SGD(
            parameters,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
    kind = torch.optim.Adam if isinstance(config, configs.Adam) else torch.optim.AdamW
    return kind(
        parameters, lr=config.lr, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay
    )


def schedule(
    config: configs.Constant | configs.Cosine | configs.OneCycle, peak: float, steps: int
) -> Callable[[int], float]:
    """Step 0 … steps − 1 → learning rate. `onecycle` follows `torch.optim.lr_scheduler.OneCycleLR` step by step."""
    if isinstance(config, configs.Constant):
        return lambda _step: peak
    if isinstance(config, configs.Cosine):
        return lambda step: peak * (1 + math.cos(math.pi * step / steps)) / 2
    top = config.warmup * steps - 1
    low, end = peak / 25, peak / 25 / 1e4

    def onecycle(step: int) -> float:
        if step <= top:
            return _cosine(low, peak, step / top if top > 0 else 1.0)
        return _cosine(peak, end, (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0)

    return onecycle


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def weights_digest(model: nn.Module) -> str:
    """Digest of every weight and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def events_of(task: Task) -> Iterator[Event]:
    """All events of a single task, for those who want no executor."""
    yield from train(Bundle((task,)))
