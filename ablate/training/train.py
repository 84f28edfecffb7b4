"""The built-in training of one run, step by step.

Every run draws its randomness from streams of its own seed, so on a CPU the
same config gives the same weights bit for bit, in whatever process and whatever bundle.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate import config as configs
from ablate.config import RunConfig
from ablate.data import augment, datasets
from ablate.data.datasets import Dataset
from ablate.events import Task
from ablate.models import layers as own_layers
from ablate.models import table
from ablate.models.numpy_mlp import NumpyMlp
from ablate.training import checkpoint, losses, metrics, runs
from ablate.training.best import Best
from ablate.training.numpy_learner import NumpyLearner
from ablate.training.randomness import FIXED_SPLIT, Source, derive, generator
from ablate.training.runs import Progress, Result, Steps, Trace, is_out_of_memory, machine

# By kind of device. Larger ones are no faster on a CPU, and inception at its full width fills gigabytes with them.
EVALUATION_BATCH = {"cpu": 250, "cuda": 1000}


def best_of(config: RunConfig, task: Task) -> Best | None:
    """Where the network of a task's best epoch is to be kept; None where it is not."""
    if config.training.save_model == "none" or "models" not in task.payload:
        return None
    return Best(task.payload["metric"], Path(task.payload["models"]) / f"{task.run}-{task.attempt}.pt")


def steps(task: Task) -> Steps:
    """One run, alone: its payload as `runs.train` describes it."""
    payload, folder = task.payload, runs.checkpoints(task)
    torch.set_num_threads(int(payload["threads"]))
    config = RunConfig.parse(payload["config"]).with_seed(payload["seed"])
    return _steps(
        config,
        datasets.prepare(config.data, wanted=payload.get("data")),
        torch.device(payload["device"]),
        folder and checkpoint.place(folder, task.run),
        payload.get("checkpoint_every", checkpoint.EVERY),
        best_of(config, task),
    )


def conditions(device: torch.device) -> dict[str, Any]:
    """Of a checkpoint: the same bits come of the same arithmetic only."""
    known = machine(device)
    return {name: known[name] for name in ("device", "torch")} | {"threads": torch.get_num_threads()}


def advice(payload: Mapping[str, Any]) -> str:
    """What to say of a run that ran out of memory, with the batch size that would fit; found by trying."""
    config = RunConfig.parse(payload["config"]).with_seed(payload["seed"])
    device = torch.device(payload["device"])
    data = datasets.prepare(config.data, wanted=payload.get("data"))
    size = asked = min(config.training.batch_size, len(data.train_labels))
    while size:
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            learner = make_learner(config, data.shape, len(data.classes), device)
            images = torch.zeros((size, *data.shape), device=device)
            for _ in range(2):  # the second finds the optimizer's own tensors in place
                learner.step(images, torch.zeros(size, dtype=torch.int64, device=device), 0.0)
            evaluate_at = min(EVALUATION_BATCH.get(device.type, 250), len(data.train_labels))
            with torch.no_grad():
                learner.logits(torch.zeros((evaluate_at, *data.shape), device=device))
        except Exception as error:  # noqa: BLE001 — whatever it is, this size does not do
            if not is_out_of_memory(error):
                break
            size //= 2
            continue
        if size == asked:
            return (
                f"out of memory, though a step of {asked} images fits by itself: what else runs on {device}?"
            )
        return f"out of memory with training.batch_size {config.training.batch_size}; {size} would fit"
    return f"out of memory, even with a training.batch_size of 1 on {device}"


# --- one run ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """The epoch that counts by the checkpoint rule. weights: None while they are still the learner's own."""

    epoch: int
    seen: Evaluation
    weights: Any


@dataclass
class Pass:
    """An epoch under way. order: (n,) int64, the images in their order. batches: how many are done. loss, hits: sums of them,
    on the device.
    """

    order: Tensor
    loss: Tensor
    hits: Tensor
    batches: int = 0


@dataclass
class State:
    """All that a run carries from step to step, beside what its learner holds.

    streams: by source. epoch, step: how many are done. lowest, stalled: of early stopping, the val/loss that others are held
    against, and how many epochs in a row were not lower. under_way: None between two epochs. best: None where no network is to
    be kept. history: the metrics of every
    epoch that is done.
    """

    streams: Mapping[str, torch.Generator]
    trace: Trace
    epoch: int = 0
    step: int = 0
    kept: Kept | None = None
    lowest: float = math.inf
    stalled: int = 0
    under_way: Pass | None = None
    best: Best | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def end_epoch(self, seen: Evaluation, learner: Weighted, recipe: configs.TrainingConfig) -> None:
        """Count an epoch that ended with `seen` on the validation split."""
        self.epoch += 1
        if recipe.checkpoint == "last":
            self.kept = Kept(self.epoch, seen, None)
        elif self.kept is None or seen.loss < self.kept.seen.loss:
            self.kept = Kept(self.epoch, seen, learner.weights())
        if self.best is not None and self.best.is_better(seen):
            self.best.take(self.epoch, seen, learner.weights())
        if seen.loss < self.lowest - recipe.min_delta:
            self.lowest, self.stalled = seen.loss, 0
        else:
            self.stalled += 1

    def save(self) -> dict[str, Any]:
        """As tensors and plain values, for `load`."""
        kept = self.kept and (self.kept.epoch, self.kept.seen.plain(), self.kept.weights)
        under_way = self.under_way and vars(self.under_way)
        plain = {name: getattr(self, name) for name in ("epoch", "step", "lowest", "stalled", "history")}
        streams = {source: stream.get_state() for source, stream in self.streams.items()}
        return plain | {
            "streams": streams,
            "trace": self.trace.link.hex(),
            "kept": kept,
            "under_way": under_way,
            "best": self.best and self.best.save(),
        }

    def load(self, saved: Mapping[str, Any], device: torch.device) -> None:
        """Go on from what `save` gave."""
        for name in ("epoch", "step", "lowest", "stalled", "history"):
            setattr(self, name, saved[name])
        for source, stream in self.streams.items():
            stream.set_state(saved["streams"][source].cpu())
        self.trace.link = bytes.fromhex(saved["trace"])
        if saved["kept"] is not None:
            epoch, seen, weights = saved["kept"]
            self.kept = Kept(epoch, Evaluation.of(seen), weights)
        if self.best is not None and saved["best"] is not None:
            self.best.load(saved["best"])
        if (under_way := saved["under_way"]) is not None:
            sums = {name: under_way[name].to(device) for name in ("loss", "hits")}
            self.under_way = Pass(under_way["order"].cpu(), batches=under_way["batches"], **sums)

    def is_stopped_early(self, recipe: configs.TrainingConfig) -> bool:
        return self.epoch < recipe.epochs and recipe.patience is not None and self.stalled >= recipe.patience


def streams(seed: int, device: torch.device) -> dict[str, torch.Generator]:
    """What the loop draws from, each at its beginning: order and mixing on the CPU, pixels where they are."""
    places: dict[Source, torch.device | str] = {
        "order": "cpu",
        "mixup": "cpu",
        "augmentation": device,
        "colour": device,
        "cutout": device,
    }
    return {source: generator(seed, source, place) for source, place in places.items()}


def _steps(
    config: RunConfig,
    data: Dataset,
    device: torch.device,
    kept_at: Path | None = None,
    every: float = checkpoint.EVERY,
    best: Best | None = None,
) -> Steps:
    """kept_at: the file of the run's checkpoint, from which it goes on where there is one; None: it has none.

    best: for the network that is to be kept.
    """
    if isinstance(config.model, NumpyMlp):
        device = torch.device("cpu")
    keeper = checkpoint.Keeper(kept_at, every, conditions(device))
    seed, recipe = config.seed, config.training
    images = Images(config, data, device)
    classes = len(data.classes)
    learner = make_learner(config, data.shape, classes, device)
    made = learner.summary
    per_epoch = math.ceil(len(images.training) / recipe.batch_size)
    # Of all epochs, those included that early stopping may save: nobody knows beforehand which.
    lr_at = schedule(config.schedule, config.optimizer.lr, recipe.epochs * per_epoch)
    state = State(streams(seed, device), Trace(), best=best)
    facts: dict[str, Any] = {"parameters": made.parameters, "flops": made.flops}
    if (saved := keeper.load()) is not None:
        learner.load(saved["learner"])
        state.load(saved["loop"], device)
        facts["resumed"] = f"in epoch {state.epoch + 1}"
    yield Progress(0, {}, machine(device) | facts)
    # To whoever listens this is an attempt like any other, with all of its epochs.
    for epoch, values in enumerate(state.history, 1):
        yield Progress(epoch, values, {})

    def all_of_it() -> dict[str, Any]:
        return {"learner": learner.state(), "loop": state.save()}

    while state.epoch < recipe.epochs and not state.is_stopped_early(recipe):
        values = _train_epoch(
            config, state, learner, images.training, classes, lr_at, lambda: keeper.offer(all_of_it)
        )
        seen = evaluate(learner.logits, images.validation)
        lr = values.pop("lr")
        values |= {"val/loss": seen.loss, "val/accuracy": seen.accuracy, "lr": lr}
        state.trace.add(values["train/loss"], values["val/loss"])
        state.history.append(values)
        yield Progress(state.epoch + 1, values, {})
        if not (math.isfinite(values["train/loss"]) and math.isfinite(values["val/loss"])):
            yield diverged(state, made, keeper.seconds)
            return
        state.end_epoch(seen, learner, recipe)
    kept = state.kept
    assert kept is not None
    if kept.weights is not None:
        learner.restore(kept.weights)

    tested = evaluate(learner.logits, images.test())
    yield finished(config, state, images, tested, made, learner.digest(), keeper.seconds)


def finished(
    config: RunConfig,
    state: State,
    images: Images,
    tested: Evaluation,
    made: table.ModelSummary,
    weights: str,
    seconds: float,
) -> Result:
    """The result of a run that trained to its end. tested: with the weights that count, and `weights` their digest."""
    kept = state.kept
    assert kept is not None
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
        "layers.json": json.dumps([vars(row) for row in made.rows]).encode(),
        "confusion_matrix.json": json.dumps(
            {
                "classes": images.classes,
                "counts": tested.confusion.tolist(),
                "per_class_accuracy": scores.per_class,
            }
        ).encode(),
        "confusion_matrix.svg": metrics.confusion_svg(tested.confusion, images.classes).encode(),
        "predictions.npz": _npz(
            val_index=images.val_index.astype(np.int32),
            val_truth=kept.seen.truth,
            val_predicted=kept.seen.predicted,
            test_truth=tested.truth,
            test_predicted=tested.predicted,
        ),
    }
    facts = state.trace.facts() | {"weights": weights}
    if state.is_stopped_early(config.training):
        facts["stopped"] = f"early, after epoch {state.epoch}: no lower val/loss in {state.stalled} epochs"
    model = None
    if state.best is not None:
        model, facts["model"] = state.best.write(
            images.shape, images.mean, images.std, images.classes, kept.epoch
        )
    return Result(False, kept.epoch, final | _costs(seconds, made), files, facts, model)


def diverged(state: State, made: table.ModelSummary, seconds: float) -> Result:
    """The result of a run whose losses were not finite in the epoch after those that `state` counts."""
    epoch = state.epoch + 1
    reason = {"reason": f"loss not finite in epoch {epoch}"}
    return Result(True, epoch, _costs(seconds, made), {}, state.trace.facts() | reason)


def _train_epoch(
    config: RunConfig,
    state: State,
    learner: Learner,
    training: Pixels,
    classes: int,
    lr_at: Callable[[int], float],
    after_step: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Every training image once. Returns the epoch's metrics on the training split, and the rate of its last step."""
    now, lr = _pass(config, state, learner, training, classes, lr_at, after_step)
    return {
        "train/loss": float(now.loss) / len(training),
        "train/accuracy": float(now.hits) / len(training),
        "lr": lr,
    }


def _pass(
    config: RunConfig,
    state: State,
    learner: Learner,
    training: Pixels,
    classes: int,
    lr_at: Callable[[int], float],
    after_step: Callable[[], None] = lambda: None,
) -> tuple[Pass, float]:
    """Every training image once, in batches; what is left of them, where the epoch is under way. Takes from the streams of
    `state` and counts its steps. Nothing in it waits for the device.

    after_step: called where the state could be saved. Returns the sums of the epoch and the rate of its last step.
    """
    if state.under_way is None:
        # Sums stay on the device: reading a value at every step would make a GPU wait.
        none = torch.zeros((), device=training.device, dtype=torch.float64)
        order = torch.randperm(len(training), generator=state.streams["order"])
        state.under_way = Pass(order, none, none.clone())
    now, lr = state.under_way, lr_at(max(state.step - 1, 0))
    left = now.order[now.batches * config.training.batch_size :]
    for images, targets, is_even in batches(config, state.streams, training, left, classes):
        lr = lr_at(state.step)
        batch_loss, batch_hits = learner.step(images, targets, lr)
        state.step += 1
        now.loss += batch_loss
        now.hits += batch_hits
        now.batches += 1
        if is_even:
            after_step()
    state.under_way = None
    return now, lr


AHEAD = 1 << 28
"""Bytes of augmented, normalised images that a GPU makes at once, of small data a whole epoch's: few large operations for many small
ones. A CPU makes a batch at a time, which stays in its caches."""


def batches(
    config: RunConfig,
    drawn_from: Mapping[str, torch.Generator],
    training: Pixels,
    order: Tensor,
    classes: int,
) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Training images in an order, augmented and in batches, and their targets, as `Learner.step` takes them.

    drawn_from: the streams. order: (n,) int64 on the CPU. The last of the three is whether nothing has been drawn beyond this
    batch: the streams then stand where training does.
    """
    size = config.training.batch_size
    at_once = 1 if training.device.type == "cpu" else max(1, AHEAD // (size * training.floats_bytes))
    # Of nothing, `split` makes a part that is empty.
    for part in torch.split(order, size * at_once) if len(order) else ():
        images, labels = training.batch(part)
        images = training.floats(augment.augment(images, config.augment, drawn_from))
        pairs = list(zip(torch.split(images, size), torch.split(labels, size), strict=True))
        for number, (pixels, targets) in enumerate(pairs, 1):
            is_even = number == len(pairs)
            if config.augment.mixup:
                drawn = augment.draw_mixup(len(pixels), config.augment.mixup, drawn_from["mixup"])
                mixed = augment.mixup(losses.soft(targets, classes), *drawn)
                yield augment.mixup(pixels, *drawn), mixed, is_even
            else:
                yield pixels, targets, is_even


def _costs(seconds: float, made: table.ModelSummary) -> dict[str, float]:
    return {
        "time/train_seconds": seconds,
        "model/parameters": made.parameters,
        "model/flops": made.flops,
    }


def _npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


class Pixels:
    """Images of one split, ready to be batched. On a GPU they are resident there; on a CPU they stay mapped.

    images: (N, C, H, W) uint8, best as `Dataset` has them in memory. index: (n,) which of them. mean, std: (C,) in units of [0, 1].
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
        # (N, H, W, C): channels last in memory, whatever the shape says.
        self._images = images.transpose(0, 2, 3, 1)
        self._labels, self._index, self.device = labels, index, device
        # (x/255 − mean)/std as one multiply-add, over rows of (width, C) values: long enough for vector instructions.
        width = images.shape[-1]
        self._scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device).repeat(width)
        self._shift = torch.tensor(-mean / std, dtype=torch.float32, device=device).repeat(width)
        self._resident: tuple[Tensor, Tensor] | None = None
        if device.type != "cpu":
            self._resident = (
                torch.from_numpy(self._images[index]).to(device),
                torch.from_numpy(labels[index]).to(device),
            )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def floats_bytes(self) -> int:
        """Of an image, as `floats` makes it."""
        return 4 * int(math.prod(self._images.shape[1:]))

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """index: (b,) int64 on the CPU → (b, C, H, W) uint8, channels last, and (b,) int64, on the device."""
        if self._resident is not None:
            there = index.to(self.device, non_blocking=True)
            images, labels = self._resident[0][there], self._resident[1][there]
        else:
            rows = self._index[index.numpy()]
            images, labels = torch.from_numpy(self._images[rows]), torch.from_numpy(self._labels[rows])
        return images.permute(0, 3, 1, 2), labels

    def whole(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The split in order, in batches for evaluation: normalised images and labels."""
        for index in torch.split(torch.arange(len(self)), EVALUATION_BATCH.get(self.device.type, 250)):
            images, labels = self.batch(index)
            yield self.floats(images), labels

    def floats(self, images: Tensor) -> Tensor:
        """(b, C, H, W) uint8 → normalised float32 in channels_last order."""
        wide = images.to(torch.float32, memory_format=torch.channels_last).permute(0, 2, 3, 1)
        made = torch.addcmul(self._shift, wide.reshape(*wide.shape[:2], -1), self._scale)
        return made.view(wide.shape).permute(0, 3, 1, 2)


class Images:
    """The three splits of a run's data, normalised by its training split."""

    def __init__(self, config: RunConfig, data: Dataset, device: torch.device) -> None:
        per_seed = config.data.split == "per-seed"
        split_seed = derive(config.seed, "split") if per_seed else derive(0, FIXED_SPLIT)
        train_index, self.val_index = datasets.split(data.train_labels, config.data, split_seed)
        mean, std = (
            datasets.normalization(data.train_images, train_index)
            if config.data.normalize
            else (np.zeros(data.shape[0]), np.ones(data.shape[0]))
        )
        self.mean: np.ndarray[Any, Any] = mean
        self.std: np.ndarray[Any, Any] = std
        self._data, self._device = data, device
        self.classes, self.shape = data.classes, data.shape
        self.training = self._pixels(data.train_images, data.train_labels, train_index)
        self.validation = self._pixels(data.train_images, data.train_labels, self.val_index)

    def test(self) -> Pixels:
        """Made when it is asked for, at the end of a run: until then a device need not hold it."""
        every = np.arange(len(self._data.test_labels))
        return self._pixels(self._data.test_images, self._data.test_labels, every)

    def _pixels(
        self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], index: np.ndarray[Any, Any]
    ) -> Pixels:
        return Pixels(images, labels, index, self.mean, self.std, self._device)


@dataclass(frozen=True)
class Evaluation:
    """loss: mean cross-entropy. truth, predicted: (n,) class indices. confusion: (classes, classes) counts."""

    loss: float
    accuracy: float
    truth: np.ndarray[Any, Any]
    predicted: np.ndarray[Any, Any]
    confusion: np.ndarray[Any, Any]

    def plain(self) -> dict[str, Any]:
        """As tensors and plain values, for `of`."""
        return {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in vars(self).items()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Evaluation:
        fields: dict[str, Any] = {n: v.numpy() if isinstance(v, Tensor) else v for n, v in plain.items()}
        return cls(**fields)


@torch.no_grad()
def evaluate(logits_of: Callable[[Tensor], Tensor], pixels: Pixels) -> Evaluation:
    """A network on a whole split. logits_of: (n, C, H, W) float → (n, classes), in evaluation mode."""
    tally = Tally(pixels.device)
    for images, labels in pixels.whole():
        tally.add(logits_of(images), labels)
    return tally.evaluation()


class Tally:
    """What an `Evaluation` is made of, batch by batch; on the device until the end."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device, dtype=torch.float64)
        self._truth: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._classes = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """logits: (b, classes). labels: (b,) int64."""
        logits = logits.float()
        self._loss += F.cross_entropy(logits, labels, reduction="sum")
        self._truth.append(labels)
        self._predicted.append(logits.argmax(1))
        self._classes = logits.shape[1]

    def evaluation(self) -> Evaluation:
        small: type[np.unsignedinteger[Any]] = np.uint8 if self._classes <= 256 else np.uint16
        true, seen = (
            torch.cat(parts).cpu().numpy().astype(small) for parts in (self._truth, self._predicted)
        )
        confusion = metrics.confusion_matrix(true, seen, self._classes)
        hits = float(np.trace(confusion))
        return Evaluation(float(self._loss) / len(true), hits / len(true), true, seen, confusion)


# --- what the loop trains -----------------------------------------------------------------------------------------


class Weighted(Protocol):
    """Something with weights that can be kept and brought back."""

    def weights(self) -> Any:
        """A copy of the weights, for `restore`."""
        ...

    def restore(self, weights: Any) -> None: ...


class Learner(Weighted, Protocol):
    """A network together with its rule of update, on one device. The loop knows nothing else of what it trains."""

    summary: table.ModelSummary

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """One update on a batch → the sum of its losses and the number of hits before it, still on the device.

        images: (b, C, H, W) float, normalised. targets: (b,) int64 classes, or (b, classes) float chances where labels are
        mixed. The losses are plain cross-entropy with the targets, whatever is minimised, so that they can be held against
        val/loss. A hit counts as in `losses.hits`.
        """
        ...

    def logits(self, images: Tensor) -> Tensor:
        """(b, C, H, W) float → (b, classes), in evaluation mode."""
        ...

    def digest(self) -> str:
        """Digest of every weight, bit for bit."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values, for `load`. Not a copy."""
        ...

    def load(self, state: Mapping[str, Any]) -> None: ...


def make_learner(
    config: RunConfig, shape: tuple[int, int, int], classes: int, device: torch.device
) -> Learner:
    if isinstance(config.model, NumpyMlp):
        weights = derive(config.seed, "weights")
        return NumpyLearner(config.model, config.optimizer, shape, classes, weights, config.training)
    return TorchLearner(config, shape, classes, device)


class TorchLearner:
    """A torch module with a torch optimizer."""

    def __init__(
        self, config: RunConfig, shape: tuple[int, int, int], classes: int, device: torch.device
    ) -> None:
        model = initialised(config, shape, classes)
        self.summary = table.summary(model, shape)
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.dropout = generator(config.seed, "dropout", device)
        own_layers.use(self.model, self.dropout)
        self.optimizer = make_optimizer(config.optimizer, self.model)
        self._training = config.training
        self._amp = torch.autocast(
            device.type, torch.bfloat16, enabled=config.training.precision == "bfloat16"
        )

    def step(self, images: Tensor, targets: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        if not self.model.training:
            self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        with self._amp:
            output = self.model(images)
        logits, heads = output if isinstance(output, tuple) else (output, [])
        logits = logits.float()
        loss = losses.minimised(logits, targets, self._training)
        total = loss
        for head in heads:
            total = total + own_layers.AUXILIARY_WEIGHT * losses.minimised(
                head.float(), targets, self._training
            )
        total.backward()  # type: ignore[no-untyped-call]
        if self._training.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self._training.max_grad_norm)
        self.optimizer.step()
        # Auxiliary losses are left out, and so is whatever makes the loss another than cross-entropy: training and
        # validation loss measure the same.
        logits = logits.detach()
        plain = loss.detach() if losses.is_plain(self._training) else F.cross_entropy(logits, targets)
        return plain * len(targets), losses.hits(logits, targets)

    def logits(self, images: Tensor) -> Tensor:
        if self.model.training:
            self.model.eval()
        with self._amp:
            found: Tensor = self.model(images)
        return found

    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())

    def restore(self, weights: dict[str, Tensor]) -> None:
        self.model.load_state_dict(weights)

    def digest(self) -> str:
        return weights_digest(self.model)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "dropout": self.dropout.get_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.dropout.set_state(state["dropout"].cpu())


def initialised(config: RunConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The torch module of a config with the initial weights of its seed."""
    assert not isinstance(config.model, NumpyMlp), "numpy_mlp is no torch module"
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
    config: configs.Constant | configs.Cosine | configs.Step | configs.OneCycle, peak: float, steps: int
) -> Callable[[int], float]:
    """Step 0 … steps − 1 → learning rate. `onecycle` follows `torch.optim.lr_scheduler.OneCycleLR` step by step, the others
    `LinearLR` and then `ConstantLR`, `CosineAnnealingLR` or `MultiStepLR`.
    """
    if isinstance(config, configs.OneCycle):
        return _onecycle(config.warmup, peak, steps)
    rising = min(round(config.warmup * steps), steps - 1)

    def after(step: int) -> float:
        """The rate without a warm-up."""
        if isinstance(config, configs.Cosine):
            return peak * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
        if isinstance(config, configs.Step):
            # A tenth of seventy steps is seven, also where floats make it a hair more.
            fallen = sum(step + 1e-9 >= share * steps for share in config.milestones)
            return peak * config.gamma**fallen
        return peak

    def rate(step: int) -> float:
        # A cosine begins where the warm-up ends; a milestone within it counts at once.
        return after(max(step, rising) if isinstance(config, configs.Cosine) else step) * (
            (step + 1) / (rising + 1) if step < rising else 1.0
        )

    return rate


def _onecycle(warmup: float, peak: float, steps: int) -> Callable[[int], float]:
    top = warmup * steps - 1
    low, end = peak / 25, peak / 25 / 1e4

    def rate(step: int) -> float:
        if step <= top:
            return _cosine(low, peak, step / top if top > 0 else 1.0)
        return _cosine(peak, end, (step - top) / (steps - 1 - top) if steps - 1 > top else 1.0)

    return rate


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def weights_digest(model: nn.Module) -> str:
    """Digest of every weight and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
