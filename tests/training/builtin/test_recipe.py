"""The recipe: losses, clipping and schedules against torch's own; early stopping and mixup in the loop itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ablate.config import RunConfig, Sgd, Step, TrainingConfig
from ablate.data import augment, datasets
from ablate.events import EpochEnd, Finished, Task
from ablate.models import NumpyMlp, layers
from ablate.training import runs
from ablate.training.builtin import losses
from ablate.training.builtin.batches import Pixels, augmented_batches
from ablate.training.builtin.learner import TorchLearner, initialised
from ablate.training.builtin.numpy_learner import NumpyLearner
from ablate.training.builtin.randomness import batch_streams
from ablate.training.builtin.schedules import schedule
from ablate.training.payload import RunPayload

BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 100, "validation": 0.2},
        "model": {"name": "cnn", "depth": 2, "width": 4},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
        "training": {"epochs": 2, "batch_size": 32},
    }
)
CPU = torch.device("cpu")


def events(config: RunConfig, seed: int = 0) -> list:
    return list(runs.events_of(Task("run", 1, RunPayload(config.tree(), seed))))


def curve(found: list, metric: str) -> list[float]:
    return [event.metrics[metric] for event in found if isinstance(event, EpochEnd)]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, CLASSES = 3 * drawn(16, 10), torch.arange(16) % 10
PROBABILITIES = drawn(16, 10, seed=1).softmax(1)
either = pytest.mark.parametrize("targets", [CLASSES, PROBABILITIES], ids=["classes", "probabilities"])


# --- losses ---------------------------------------------------------------------------------------------------------


@either
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_of_gamma_zero_is_torchs_cross_entropy(targets, smoothing):
    training = TrainingConfig(loss="focal", focal_gamma=0.0, label_smoothing=smoothing)
    expected = F.cross_entropy(LOGITS, targets, label_smoothing=smoothing)
    torch.testing.assert_close(losses.minimised(LOGITS, targets, training), expected)
    plain = TrainingConfig(label_smoothing=smoothing)
    assert torch.equal(losses.minimised(LOGITS, targets, plain), expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_weighs_each_image_by_what_its_class_lacks(gamma):
    p = LOGITS.softmax(1)[torch.arange(16), CLASSES]
    expected = -((1 - p) ** gamma * p.log()).mean()
    torch.testing.assert_close(losses.focal(LOGITS, CLASSES, gamma), expected)
    one_hot = F.one_hot(CLASSES, 10).float()
    torch.testing.assert_close(losses.focal(LOGITS, one_hot, gamma), expected)
    assert losses.focal(LOGITS, CLASSES, gamma) < F.cross_entropy(LOGITS, CLASSES)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_finite_slope_where_an_image_is_certain(gamma):
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    for truth in range(3):
        (slope,) = torch.autograd.grad(losses.focal(logits, torch.tensor([truth]), gamma), logits)
        assert slope.isfinite().all()


def test_a_hit_counts_by_the_share_that_its_class_has_in_the_label():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert losses.correct(logits, torch.tensor([0, 1])) == 1
    assert losses.correct(logits, torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.25, 0.25]])) == 1.0
    assert losses.correct(logits, F.one_hot(torch.tensor([0, 1]), 3).float()) == 1


RECIPES = {
    "smoothing": (
        {"label_smoothing": 0.2},
        lambda logits, t: F.cross_entropy(logits, t, label_smoothing=0.2),
        math.inf,
    ),
    "clipping": ({"max_grad_norm": 0.05}, F.cross_entropy, 0.05),
    "focal": (
        {"loss": "focal", "focal_gamma": 1.0},
        lambda logits, t: torch.mean(
            (1 - logits.softmax(1).gather(1, t[:, None]))
            * F.cross_entropy(logits, t, reduction="none")[:, None]
        ),
        math.inf,
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_goes_down_on_the_loss_of_the_recipe_and_reports_plain_cross_entropy(name):
    fields, loss_of, longest = RECIPES[name]
    config = BASE.override({f"training.{field}": value for field, value in fields.items()})
    learner = TorchLearner(config, (1, 8, 8), 10, CPU)
    model = initialised(config, (1, 8, 8), 10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        images = drawn(16, 1, 8, 8, seed=step).contiguous(memory_format=torch.channels_last)
        reported, _ = learner.step(images, CLASSES, 0.1)
        logits = model(images)
        assert float(reported) == pytest.approx(
            16 * float(F.cross_entropy(logits.detach(), CLASSES)), rel=1e-5
        )
        optimizer.zero_grad()
        loss_of(logits, CLASSES).backward()
        nn.utils.clip_grad_norm_(model.parameters(), longest)
        optimizer.step()
    for mine, theirs in zip(learner.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_auxiliary_heads_are_trained_on_the_loss_of_the_recipe():
    changes = {
        "model": {"name": "inception_v1", "width": 0.05},
        "training.label_smoothing": 0.3,
    }
    learner = TorchLearner(BASE.override(changes), (3, 32, 32), 10, CPU)
    images = drawn(4, 3, 32, 32)
    learner.model.train()
    before = learner.dropout.get_state()
    heads = learner.model(images)[1]
    learner.dropout.set_state(before)
    assert heads, "otherwise this shows nothing"
    biases = [p for name, p in learner.model.named_parameters() if "auxiliary" in name and p.shape == (10,)]
    learner.step(images, CLASSES[:4], 0.0)
    # Of cross-entropy after softmax, the slope for the pre-activation is the error.
    errors = heads[-1].detach().softmax(1) - (F.one_hot(CLASSES[:4], 10) * 0.7 + 0.03)
    torch.testing.assert_close(
        biases[-1].grad, layers.AUXILIARY_WEIGHT * errors.mean(0), atol=1e-5, rtol=1e-3
    )


# --- clipping -------------------------------------------------------------------------------------------------------


def learners(training: TrainingConfig) -> list:
    config = BASE.override({"training": training.model_dump(), "optimizer.momentum": 0.0})
    perceptron = NumpyMlp(hidden=(12,))
    return [
        TorchLearner(config, (1, 8, 8), 10, CPU),
        NumpyLearner(perceptron, Sgd(momentum=0.0), (1, 8, 8), 10, 0, training),
    ]


def flat(learner) -> np.ndarray:
    if isinstance(learner, NumpyLearner):
        return np.concatenate([array.ravel() for array in learner.weights()])
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()]).numpy()


def test_clipping_bounds_how_far_a_step_goes_and_a_long_bound_changes_nothing():
    images = drawn(16, 1, 8, 8)
    for free, loose, tight in zip(
        *(learners(TrainingConfig(max_grad_norm=norm)) for norm in (None, 1e6, 0.01)), strict=True
    ):
        start = flat(free)
        for learner in (free, loose, tight):
            learner.step(images, CLASSES, 1.0)
        assert np.linalg.norm(flat(free) - start) > 0.1
        assert np.array_equal(flat(loose), flat(free))
        assert np.linalg.norm(flat(tight) - start) == pytest.approx(0.01, rel=1e-2)


@either
@pytest.mark.parametrize(
    "training",
    [TrainingConfig(label_smoothing=0.2), TrainingConfig(max_grad_norm=0.05)],
    ids=["smooth", "clip"],
)
def test_the_numpy_network_trains_as_the_same_in_torch(training, targets):
    ours = NumpyLearner(NumpyMlp(hidden=(12,)), Sgd(), (1, 8, 8), 10, 0, training)
    theirs = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Sigmoid(), nn.Linear(12, 10))
    for linear, layer in zip((theirs[1], theirs[3]), ours.network, strict=True):
        linear.weight.data, linear.bias.data = torch.tensor(layer.weights.T), torch.tensor(layer.bias)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    for step in range(3):
        images = drawn(16, 1, 8, 8, seed=step)
        loss, correct = ours.step(images, targets, 0.1)
        logits = theirs(images)
        assert float(loss) == pytest.approx(16 * float(F.cross_entropy(logits.detach(), targets)), rel=1e-5)
        assert float(correct) == pytest.approx(float(losses.correct(logits, targets)))
        optimizer.zero_grad()
        losses.minimised(logits, targets, training).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), training.max_grad_norm or math.inf)
        optimizer.step()
    for linear, layer in zip((theirs[1], theirs[3]), ours.network, strict=True):
        np.testing.assert_allclose(layer.weights.T, linear.weight.detach().numpy(), atol=1e-5)


# --- schedules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [10, 37])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("name", ["constant", "cosine", "step"])
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")
def test_schedules_are_torchs_after_a_linear_warm_up(name, warmup, steps):
    more = {"milestones": [0.5, 0.8], "gamma": 0.2} if name == "step" else {}
    config = BASE.override({"schedule": {"name": name, "warmup": warmup, **more}}).schedule
    rate_at = schedule(config, 0.5, steps)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    rising = round(warmup * steps)
    after = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, 1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, steps - rising),
        "step": lambda: lr_scheduler.MultiStepLR(
            optimizer, [math.ceil(0.5 * steps) - rising, math.ceil(0.8 * steps) - rising], 0.2
        ),
    }[name]
    theirs = after()
    if rising:
        optimizer.param_groups[0]["lr"] = 0.5
        warm = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), 1.0, rising)
        theirs = lr_scheduler.SequentialLR(optimizer, [warm, theirs], [rising])
    for step in range(steps):
        assert rate_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_a_warm_up_of_nearly_everything_still_reaches_the_peak(steps):
    for name in ("constant", "cosine", "step"):
        config = BASE.override({"schedule": {"name": name, "warmup": 0.99}}).schedule
        fallen = sum(steps - 1 >= share * steps for share in (0.5, 0.75)) if isinstance(config, Step) else 0
        peak = 0.5 * 0.1**fallen
        assert schedule(config, 0.5, steps)(steps - 1) == pytest.approx(peak)


# --- early stopping -------------------------------------------------------------------------------------------------


def restless(**training) -> RunConfig:
    """A validation loss that goes up and down."""
    changes = {f"training.{field}": value for field, value in training.items()}
    return BASE.override({"optimizer.lr": 0.8, "training.epochs": 15} | changes)


def stopping_epoch(curve: list[float], patience: int, min_delta: float) -> int:
    """By the definition, of a whole curve: the first epoch after `patience` of which none was lower by `min_delta`."""
    lowest, at = math.inf, 0
    for epoch, loss in enumerate(curve, start=1):
        if loss < lowest - min_delta:
            lowest, at = loss, epoch
        if epoch - at == patience:
            return epoch
    return len(curve)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
@pytest.mark.parametrize(("patience", "min_delta"), [(1, 0.0), (2, 0.0), (3, 0.0), (2, 0.3)])
def test_early_stopping_ends_a_run_when_its_patience_is_over_and_says_so(patience, min_delta, checkpoint):
    whole = curve(events(restless()), "val/loss")
    last = stopping_epoch(whole, patience, min_delta)
    found = events(restless(patience=patience, min_delta=min_delta, checkpoint=checkpoint))
    assert curve(found, "val/loss") == whole[:last], "the same training, only shorter"
    end = found[-1]
    assert isinstance(end, Finished)
    assert last < 15, "otherwise this shows nothing"
    assert end.facts["stopped"] == f"early, after epoch {last}: no lower val/loss in {patience} epochs"
    assert end.epoch == (last if checkpoint == "last" else whole.index(min(whole[:last])) + 1)


def test_a_run_that_its_patience_outlasts_is_the_run_without():
    patient, plain = events(restless(patience=15))[-1], events(restless())[-1]
    assert "stopped" not in patient.facts
    assert patient.facts == plain.facts


def test_early_stopping_does_not_shorten_the_schedule():
    changes = {"schedule.name": "cosine"}
    short, whole = events(restless(patience=1).override(changes)), events(restless().override(changes))
    assert 1 <= len(curve(short, "lr")) < 15
    assert curve(short, "lr") == curve(whole, "lr")[: len(curve(short, "lr"))]


# --- mixup in the loop ----------------------------------------------------------------------------------------------


def shown(mixup: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    config = BASE.override({"augment": {"flip": True, "mixup": mixup}})
    digits = datasets.prepare(config.data)
    pixels = Pixels(
        digits.train_images, digits.train_labels, np.arange(80), np.full(1, 0.3), np.full(1, 0.4), CPU
    )
    streams = batch_streams(5, CPU)
    order = torch.randperm(80, generator=streams["order"])
    batches = list(augmented_batches(config, streams, pixels, order, 10))
    assert len(batches) == 3
    return [(images, targets) for images, targets, _ in batches]


def test_mixup_shows_mixtures_of_the_same_batches_with_labels_mixed_alike():
    generator = batch_streams(5, CPU)["mixup"]
    for (plain, labels), (mixed, soft) in zip(shown(0.0), shown(0.5), strict=True):
        assert labels.dtype == torch.int64
        partner, share = augment.draw_mixup(len(plain), 0.5, generator)
        kept = share[:, None, None, None]
        torch.testing.assert_close(mixed, kept * plain + (1 - kept) * plain[partner])
        one_hot = F.one_hot(labels, 10).float()
        torch.testing.assert_close(soft, share[:, None] * one_hot + (1 - share[:, None]) * one_hot[partner])


@pytest.mark.parametrize("model", ["cnn", "numpy_mlp"])
def test_training_on_mixtures_learns_the_digits(model):
    config = BASE.override(
        {
            "data.subset": None,
            "model": {"name": model},
            "augment": {"mixup": 0.4},
            "training.epochs": 5,
            "training.label_smoothing": 0.1,
        }
    )
    found = events(config)
    assert curve(found, "val/accuracy")[-1] > 0.85
    # What is right of a mixture is never all of it.
    assert 0.3 < curve(found, "train/accuracy")[-1] < curve(found, "val/accuracy")[-1]
    assert curve(found, "val/loss")[-1] < curve(found, "train/loss")[-1]
