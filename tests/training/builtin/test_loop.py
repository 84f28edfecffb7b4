"""The built-in training: against a plain torch loop, bit for bit against itself, and in what it says and keeps."""

from __future__ import annotations

import io
import json
import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from torch import nn
from torch.nn import functional as F

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.events import Bundle, EpochEnd, Failed, Finished, Started, Task, is_last
from ablate.executors.local import LocalExecutor, cpu_slots
from ablate.models import layers
from ablate.training import runs, trainer_wanted
from ablate.training.builtin import learner, schedules
from ablate.training.builtin.batches import Pixels
from ablate.training.builtin.randomness import FIXED_SPLIT, derive, generator
from ablate.training.payload import RunPayload

# A hundred digits, of which eighty train: an epoch takes a few milliseconds.
BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 100, "validation": 0.2},
        "model": {"name": "cnn", "depth": 2, "width": 4},
        "augment": {"flip": True, "crop": 1},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "cosine"},
        "training": {"epochs": 2, "batch_size": 32},
    }
)
cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=cuda)])


def task(config: RunConfig = BASE, seed: int = 0, run: str = "run", device: str = "cpu", **changes) -> Task:
    tree = config.override({path.replace("__", "."): value for path, value in changes.items()}).tree()
    return Task(run, 1, RunPayload(tree, seed, device=device))


def events(*args, **changes) -> list:
    return list(runs.events_of(task(*args, **changes)))


def ended(*args, **changes) -> Finished:
    last = events(*args, **changes)[-1]
    assert isinstance(last, Finished), last
    return last


def curve(found: list, metric: str) -> list[float]:
    return [event.metrics[metric] for event in found if isinstance(event, EpochEnd)]


def arrays(last: Finished) -> dict[str, np.ndarray]:
    return dict(np.load(io.BytesIO(last.files["predictions.npz"]), allow_pickle=False))


# --- against a plain loop -------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": (
        {"name": "sgd", "lr": 0.05, "momentum": 0.8, "weight_decay": 0.01, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, weight_decay=0.01, nesterov=True),
    ),
    "adam": (
        {"name": "adam", "lr": 0.01, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.1),
    ),
    "adamw": (
        {"name": "adamw", "lr": 0.01, "beta1": 0.8, "beta2": 0.99, "weight_decay": 0.1},
        lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.99), weight_decay=0.1),
    ),
}
SCHEDULES = {
    "constant": ({"name": "constant"}, lambda o, _steps: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    "cosine": ({"name": "cosine"}, torch.optim.lr_scheduler.CosineAnnealingLR),
    "onecycle": (
        {"name": "onecycle", "warmup": 0.4},
        lambda o, steps: torch.optim.lr_scheduler.OneCycleLR(
            o, o.param_groups[0]["lr"], total_steps=steps, pct_start=0.4, cycle_momentum=False
        ),
    ),
}


def plain_network(seed: int, dropout: float) -> nn.Module:
    """The network of `BASE` as one would write it down, activation before pooling."""
    torch.manual_seed(derive(seed, "weights"))
    model = nn.Sequential(
        *[nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)],
        *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), layers.Dropout(dropout), nn.Linear(4, 10)],
    )
    layers.use_generator(model, generator(seed, "dropout"))
    return model


def plain_loop(config: RunConfig, seed: int, make_optimizer, make_scheduler):
    """Ten steps of training, written without anything of ablate's training. Yields loss, correct predictions, size and rate of each."""
    digits = datasets.prepare(config.data)
    index, _ = datasets.split(digits.train_labels, config.data, derive(0, FIXED_SPLIT))
    pixels = digits.train_images[index].astype(np.float64) / 255
    pixels = (pixels - pixels.mean()) / pixels.std()
    x, y = torch.tensor(pixels, dtype=torch.float32), torch.tensor(digits.train_labels[index])
    model = plain_network(seed, config.model.dropout).train()
    optimizer = make_optimizer(model.parameters())
    scheduler = make_scheduler(optimizer, 10)
    order = generator(seed, "order")
    for _ in range(config.training.epochs):
        for batch in torch.randperm(len(x), generator=order).split(config.training.batch_size):
            rate = optimizer.param_groups[0]["lr"]
            optimizer.zero_grad()
            logits = model(x[batch])
            loss = F.cross_entropy(logits, y[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            yield loss.item(), (logits.argmax(1) == y[batch]).sum().item(), len(batch), rate


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_the_first_ten_steps_are_those_of_a_plain_loop(optimizer, schedule):
    blocks = {"optimizer": OPTIMIZERS[optimizer][0], "schedule": SCHEDULES[schedule][0], "augment": None}
    # One batch an epoch, so that the loss of an epoch is the loss of a step.
    config = BASE.override(blocks | {"training.epochs": 10, "training.batch_size": 80, "model.dropout": 0.2})
    found = events(config, seed=3)
    steps = list(plain_loop(config, 3, OPTIMIZERS[optimizer][1], SCHEDULES[schedule][1]))
    assert curve(found, "train/loss") == pytest.approx([loss for loss, _, _, _ in steps], rel=1e-4)
    assert curve(found, "train/accuracy") == pytest.approx(
        [correct / 80 for _, correct, _, _ in steps], abs=1 / 79
    )
    assert curve(found, "lr") == pytest.approx([rate for _, _, _, rate in steps], rel=1e-9)


def test_an_epochs_loss_is_the_mean_over_its_images_whatever_the_batches():
    config = BASE.override({"augment": None, "training.epochs": 5, "training.batch_size": 50})
    found = events(config, seed=1)
    steps = list(
        plain_loop(config, 1, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), SCHEDULES["cosine"][1])
    )
    assert [size for _, _, size, _ in steps] == [50, 30] * 5
    losses = [(50 * a[0] + 30 * b[0]) / 80 for a, b in zip(steps[::2], steps[1::2], strict=True)]
    assert curve(found, "train/loss") == pytest.approx(losses, rel=1e-4)
    assert curve(found, "lr") == pytest.approx([rate for _, _, _, rate in steps[1::2]], rel=1e-9)


# Where the warm-up is a single step, torch divides by zero.
CYCLES = [(w, n) for w in (0.01, 0.3, 0.5, 0.99) for n in (1, 2, 3, 4, 7, 10, 100) if w * n != 1]


@pytest.mark.parametrize(("warmup", "steps"), CYCLES)
def test_one_cycle_is_torchs_step_by_step(steps, warmup):
    config = BASE.override({"schedule": {"name": "onecycle", "warmup": warmup}})
    rate_at = schedules.schedule(config.schedule, 0.5, steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=steps, pct_start=warmup)
    for step in range(steps):
        assert rate_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_schedules_stay_between_nothing_and_the_peak_and_reach_it(steps):
    for block in ({"name": "constant"}, {"name": "cosine"}, {"name": "onecycle", "warmup": 0.5}):
        rate_at = schedules.schedule(BASE.override({"schedule": block}).schedule, 0.5, steps)
        rates = [rate_at(step) for step in range(steps)]
        assert all(0 < rate <= 0.5 for rate in rates)
        assert max(rates) == 0.5 or (block["name"] == "onecycle" and steps % 2)


# --- the same seed, the same answer ---------------------------------------------------------------------------------

CONFIGS = {
    "as it is": {},
    "dropout": {"model.dropout": 0.3},
    "adamw, best": {"optimizer.name": "adamw", "training.checkpoint": "best"},
    "per-seed split, rotation": {"data.split": "per-seed", "augment.rotation": 20},
    "bfloat16": {"training.precision": "bfloat16"},
    "every augmentation": {"augment": {"flip": True, "crop": 1, "contrast": 0.3, "cutout": 3, "mixup": 0.4}},
    "the rest of the recipe": {
        "schedule": {"name": "step", "warmup": 0.2},
        "training": {
            "epochs": 3,
            "batch_size": 32,
            "loss": "focal",
            "label_smoothing": 0.1,
            "max_grad_norm": 0.5,
            "checkpoint": "best",
            "patience": 1,
        },
    },
    "small cnn": {"model": {"name": "small_cnn", "kernel_size": 2, "dropout": 0.1}},
}


def identity(last: Finished) -> tuple:
    metrics = {name: value for name, value in last.metrics.items() if not name.startswith("time/")}
    return last.facts, metrics, last.epoch, last.files


@pytest.fixture(scope="module")
def in_a_worker(shared_cache):
    """Every config, trained in another process, one after another."""
    with pytest.MonkeyPatch.context() as patch, LocalExecutor(runs.train, cpu_slots(1)) as executor:
        patch.setenv("ABLATE_CACHE", str(shared_cache))
        datasets.prepare(BASE.data)
        tasks = tuple(task(BASE.override(changes), 5, name) for name, changes in CONFIGS.items())
        executor.submit(Bundle(tasks), executor.slots[0])
        found: dict[str, Finished] = {}
        while len(found) < len(tasks):
            events_now = executor.wait(timeout=60)
            assert events_now, "the worker hangs"
            found |= {event.run: event for event in events_now if is_last(event)}
        return found


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_seed_gives_the_same_weights_bit_for_bit_in_any_process(in_a_worker, name):
    here = ended(BASE.override(CONFIGS[name]), seed=5)
    torch.manual_seed(12345)  # whatever else draws from torch's own stream
    assert identity(ended(BASE.override(CONFIGS[name]), seed=5)) == identity(here)
    assert identity(in_a_worker[name]) == identity(here)


@pytest.mark.parametrize("name", CONFIGS)
def test_another_seed_gives_other_weights(name):
    config = BASE.override(CONFIGS[name])
    digests = {ended(config, seed=seed).facts["weights"] for seed in range(3)}
    assert len(digests) == 3


def test_training_leaves_torchs_own_stream_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ended(model__dropout=0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_neighbours_in_a_bundle_change_nothing():
    alone = ended(seed=1)
    bundle = Bundle((task(seed=0, run="a"), task(seed=1, run="b"), task(seed=1, run="c")))
    ends = {event.run: event for event in runs.train(bundle) if is_last(event)}
    assert identity(ends["b"]) == identity(ends["c"]) == identity(alone)
    assert identity(ends["a"]) != identity(alone)


def test_arms_of_a_seed_share_what_their_factors_do_not_touch():
    """Common random numbers: another learning rate shifts neither the initial weights nor any draw."""
    still = {"optimizer.lr": 1e-12, "optimizer.momentum": 0.0, "model.batch_norm": False}
    base = BASE.override(still)
    for changes in ({"optimizer.lr": 2e-12}, {"schedule.name": "constant"}, {"training.checkpoint": "best"}):
        ours, theirs = events(base), events(base.override(changes))
        assert curve(ours, "train/loss") == pytest.approx(curve(theirs, "train/loss"), rel=1e-6)
    # Dropout and augmentation change what is seen, but not the order of the images or the weights.
    assert curve(events(base), "val/loss") == curve(events(base.override({"model.dropout": 0.5})), "val/loss")
    assert curve(events(base), "val/loss") == curve(events(base.override({"augment": None})), "val/loss")


def test_initial_weights_depend_on_the_seed_and_the_model_alone():
    def first(config, seed=0):
        return learner.weights_digest(learner.initialised(config.with_seed(seed), (1, 8, 8), 10))

    assert first(BASE) == first(
        BASE.override({"optimizer.lr": 3.0, "augment": None, "data.split": "per-seed"})
    )
    assert first(BASE) != first(BASE, seed=1)
    assert first(BASE) != first(BASE.override({"model.width": 5}))


# --- data -----------------------------------------------------------------------------------------------------------


def test_a_fixed_split_is_shared_by_all_seeds_and_a_seeds_own_is_not():
    def validation(**more):
        return arrays(ended(training__epochs=1, **more))["val_index"].tolist()

    assert validation(seed=0) == validation(seed=1)
    assert validation(seed=0, data__split="per-seed") != validation(seed=1, data__split="per-seed")
    assert validation(seed=1, data__split="per-seed") == validation(seed=1, data__split="per-seed")


def test_pixels_are_normalised_by_the_training_split_alone_or_only_scaled():
    digits = datasets.prepare(BASE.data)
    index = np.arange(40)
    device = torch.device("cpu")
    raw = digits.train_images[:60] / 255
    mean, std = datasets.normalization(digits.train_images, index)
    pixels = Pixels(digits.train_images, digits.train_labels, index, mean, std, device)
    seen = pixels.normalised(pixels.batch(torch.arange(40))[0])
    assert seen.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(seen, (raw[:40] - raw[:40].mean()) / raw[:40].std(), atol=1e-5)
    plain = Pixels(digits.train_images, digits.train_labels, index, np.zeros(1), np.ones(1), device)
    np.testing.assert_allclose(plain.normalised(plain.batch(torch.arange(40))[0]), raw[:40], atol=1e-6)


def test_normalising_can_be_turned_off_and_matters():
    one, other = ended(), ended(data__normalize=False)
    assert one.facts["weights"] != other.facts["weights"]


class Watched(np.ndarray):
    """An array that counts how often its elements are read."""

    def __array_finalize__(self, source):
        self.reads = getattr(source, "reads", None)

    def __getitem__(self, rows):
        if self.reads is not None:
            np.add.at(self.reads, rows, 1)
        return np.asarray(self)[rows]


def test_the_test_set_is_seen_once_at_the_end(monkeypatch):
    digits = datasets.prepare(BASE.data)
    watched = np.asarray(digits.test_images).view(Watched)
    watched.reads = np.zeros(len(watched), dtype=int)
    seen = type(digits)(
        digits.train_images,
        digits.train_labels,
        watched,
        digits.test_labels,
        digits.classes,
        digits.fingerprint,
    )
    monkeypatch.setattr(datasets, "prepare", lambda _config, **_: seen)
    for event in runs.events_of(task(training__epochs=3, training__checkpoint="best")):
        assert set(watched.reads) == ({1} if is_last(event) else {0})
    assert isinstance(event, Finished)


# --- what it says ---------------------------------------------------------------------------------------------------


@devices
def test_a_run_starts_ends_its_epochs_and_finishes(device):
    found = events(device=device)
    assert [type(event) for event in found] == [Started, EpochEnd, EpochEnd, Finished]
    assert [event.seq for event in found] == [0, 1, 2, 3]
    assert [event.epoch for event in found[1:3]] == [1, 2]
    assert all(event.run == "run" and event.attempt == 1 for event in found)
    times = [event.time for event in found]
    assert times == sorted(times)
    for event in found[1:3]:
        assert set(event.metrics) == {*trainer_wanted({}).metrics, "lr"}
        assert all(math.isfinite(value) for value in event.metrics.values())
        assert all(type(value) is float for value in event.metrics.values())
    facts, last = found[0].facts, found[-1]
    assert facts["device"].startswith("cuda" if device != "cpu" else "cpu: ")
    assert set(facts) >= {"device", "torch", "python", "host", "pid", "parameters", "flops"}
    assert set(last.metrics) == {
        *("test/loss", "test/accuracy", "test/precision_macro", "test/recall_macro", "test/f1_macro"),
        *("test/balanced_accuracy", "test/top5_accuracy"),
        *("time/train_seconds", "model/parameters", "model/flops"),
    }
    assert (last.outcome, last.epoch) == ("finished", 2)
    assert set(last.facts) == {"trace", "weights"}


@devices
def test_training_learns(device):
    config = BASE.override({"data.subset": None, "augment": None, "training.epochs": 3, "model.width": 16})
    found = events(config, device=device)
    assert curve(found, "train/loss")[0] > 2 * curve(found, "train/loss")[-1]
    assert curve(found, "val/accuracy")[-1] > 0.8
    assert found[-1].metrics["test/accuracy"] > 0.8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_trains_what_a_cpu_trains():
    config = BASE.override({"model.activation": "tanh"})
    here, there = events(config), events(config, device="cuda:0")
    for metric in ("train/loss", "val/loss"):
        assert curve(there, metric) == pytest.approx(curve(here, metric), rel=0.05)


@devices
def test_bfloat16_is_close_to_float32_but_not_the_same(device):
    full, half = events(device=device), events(device=device, training__precision="bfloat16")
    assert curve(half, "train/loss") == pytest.approx(curve(full, "train/loss"), rel=0.1)
    assert curve(half, "train/loss") != curve(full, "train/loss")
    assert isinstance(half[-1], Finished)


def test_weights_stay_in_float32_under_bfloat16():
    network = learner.TorchLearner(
        BASE.override({"training.precision": "bfloat16"}), (1, 8, 8), 10, torch.device("cpu")
    )
    network.step(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), 0.1)
    assert {p.dtype for p in network.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("changes", [{"training.checkpoint": "last"}, {"training.checkpoint": "best"}])
def test_divergence_ends_a_run_that_counts_as_done_and_claims_nothing(changes):
    wild = {
        "optimizer.lr": 1e15,
        "schedule.name": "constant",
        "model.batch_norm": False,
        "training.epochs": 50,
    }
    found = events(BASE.override(wild | changes))
    last = found[-1]
    assert isinstance(last, Finished)
    assert last.outcome == "diverged"
    assert len(found) - 2 == last.epoch < 50
    losses = [(event.metrics["train/loss"], event.metrics["val/loss"]) for event in found[1:-1]]
    assert [all(map(math.isfinite, pair)) for pair in losses] == [True] * (len(losses) - 1) + [False]
    assert not any(name.startswith("test/") for name in last.metrics)
    assert last.files == {}
    assert last.facts["reason"] == f"loss not finite in epoch {last.epoch}"
    assert "weights" not in last.facts


# --- checkpoints ----------------------------------------------------------------------------------------------------


def noisy(checkpoint: str, epochs: int = 8) -> RunConfig:
    """A validation loss that goes up and down."""
    return BASE.override(
        {
            "optimizer.lr": 0.8,
            "schedule.name": "constant",
            "training.epochs": epochs,
            "training.checkpoint": checkpoint,
        }
    )


def test_best_is_the_epoch_of_the_lowest_validation_loss_and_last_the_last():
    found = events(noisy("best"))
    losses = curve(found, "val/loss")
    best = losses.index(min(losses)) + 1
    assert best < 8, "otherwise this shows nothing"
    assert found[-1].epoch == best
    assert ended(noisy("last")).epoch == 8
    assert curve(events(noisy("last")), "val/loss") == losses


def test_the_best_weights_meet_the_test_set_not_the_last():
    best = ended(noisy("best"))
    # Stopped there, the same training has the very weights that were kept.
    stopped = ended(noisy("last", epochs=best.epoch))
    assert stopped.facts["weights"] == best.facts["weights"]
    mine, theirs = (dict(e.metrics) | {"time/train_seconds": 0} for e in (best, stopped))
    assert mine == theirs
    assert {n: a.tolist() for n, a in arrays(best).items()} == {
        n: a.tolist() for n, a in arrays(stopped).items()
    }
    assert ended(noisy("last")).facts["weights"] != best.facts["weights"]


# --- what it keeps --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(shared_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATE_CACHE", str(shared_cache))
        return events(BASE.override({"training.epochs": 4, "training.checkpoint": "best"}))


def test_predictions_are_those_of_the_kept_weights(kept):
    last, digits = kept[-1], datasets.prepare(BASE.data)
    saved = arrays(last)
    _, validation = datasets.split(digits.train_labels, BASE.data, derive(0, FIXED_SPLIT))
    assert saved["val_index"].tolist() == validation.tolist()
    assert saved["val_truth"].tolist() == digits.train_labels[validation].tolist()
    assert saved["test_truth"].tolist() == digits.test_labels.tolist()
    assert (
        np.mean(saved["val_truth"] == saved["val_predicted"]) == curve(kept, "val/accuracy")[last.epoch - 1]
    )
    assert {array.dtype for name, array in saved.items() if name != "val_index"} == {
        np.dtype(np.uint8),
        np.dtype(bool),
    }


def test_test_scores_are_scikit_learns_on_the_saved_predictions(kept):
    saved, scores = arrays(kept[-1]), kept[-1].metrics
    truth, predicted = saved["test_truth"], saved["test_predicted"]
    options = {"average": "macro", "zero_division": 0, "labels": range(10)}
    assert scores["test/accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert scores["test/precision_macro"] == pytest.approx(
        reference.precision_score(truth, predicted, **options)
    )
    assert scores["test/recall_macro"] == pytest.approx(reference.recall_score(truth, predicted, **options))
    assert scores["test/f1_macro"] == pytest.approx(reference.f1_score(truth, predicted, **options))


def test_the_confusion_matrix_is_that_of_the_test_set_as_numbers_and_as_a_picture(kept):
    saved = arrays(kept[-1])
    found = json.loads(kept[-1].files["confusion_matrix.json"])
    assert found["classes"] == list("0123456789")
    assert (
        found["counts"] == reference.confusion_matrix(saved["test_truth"], saved["test_predicted"]).tolist()
    )
    rows = np.array(found["counts"])
    assert found["per_class_accuracy"] == pytest.approx((np.diag(rows) / rows.sum(1)).tolist())
    picture = ET.fromstring(kept[-1].files["confusion_matrix.svg"])
    numbers = [
        e.text for e in picture.iter("{http://www.w3.org/2000/svg}text") if e.get("text-anchor") == "middle"
    ]
    assert [int(n) for n in numbers if n.isdigit()] == rows.ravel().tolist()


def test_config_and_layers_are_kept(kept):
    files = kept[-1].files
    assert RunConfig.parse(json.loads(files["config.json"])) == BASE.override(
        {"training.epochs": 4, "training.checkpoint": "best"}
    )
    rows = json.loads(files["layers.json"])
    assert [row["kind"] for row in rows][:3] == ["Conv2d", "BatchNorm2d", "MaxPool2d"]
    assert (
        sum(row["parameters"] for row in rows)
        == kept[-1].metrics["model/parameters"]
        == kept[0].facts["parameters"]
    )


# --- when it cannot go on -------------------------------------------------------------------------------------------


def test_a_network_too_small_for_its_input_fails_with_the_formula_and_no_traceback():
    (failed,) = events(model={"name": "small_cnn"})
    assert isinstance(failed, Failed)
    assert failed.kind == "error"
    assert failed.reason.startswith("model.kernel_size: an input of 8×8 pixels is too small")
    assert "\n" not in failed.reason
    assert "data.resize" in failed.detail
    assert "Traceback" not in failed.detail


def test_data_that_cannot_be_found_fail_the_run(tmp_path):
    (failed,) = events(data={"name": "image_folder", "root": str(tmp_path / "nowhere")})
    assert (failed.kind, failed.seq) == ("error", 0)
    assert "nowhere" in failed.reason + failed.detail
    assert "Traceback" not in failed.detail


def test_a_cancelled_run_is_broken_off_and_the_next_goes_on():
    training = runs.train(Bundle((task(run="a", training__epochs=50), task(run="b"), task(run="c"))))
    found = [next(training), training.send(None), training.send(frozenset("ac"))]
    found += list(training)
    assert [type(e) for e in found if e.run == "a"] == [Started, EpochEnd, Failed]
    last = [e for e in found if e.run == "a"][-1]
    assert (last.kind, last.seq) == ("cancelled", 2)
    assert isinstance([e for e in found if e.run == "b"][-1], Finished)
    assert [(e.kind, e.seq) for e in found if e.run == "c"] == [("cancelled", 0)]


def test_a_run_that_fails_does_not_take_its_bundle_along():
    bundle = Bundle((task(run="a", model={"name": "small_cnn"}), task(run="b")))
    ends = {event.run: event for event in runs.train(bundle) if is_last(event)}
    assert isinstance(ends["a"], Failed)
    assert isinstance(ends["b"], Finished)
