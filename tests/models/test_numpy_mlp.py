"""Backpropagation written out: against finite differences, against autograd, and through the whole training."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import threadpoolctl
import torch
from torch import nn
from torch.nn import functional as F

from ablate.config import Adam, AdamW, RunConfig, Sgd
from ablate.errors import StudyError
from ablate.events import EpochEnd, Finished, Started, Task
from ablate.models import NumpyMlp, table
from ablate.models import numpy_mlp as mlp
from ablate.training.builtin.numpy_learner import NumpyLearner, rule
from ablate.training.payload import RunPayload
from ablate.training.runs import events_of

SIZES = (12, 7, 5, 4)
OPTIMIZERS = [
    Sgd(lr=0.1, momentum=0.0),
    Sgd(lr=0.1, momentum=0.9, weight_decay=0.01),
    Sgd(lr=0.1, momentum=0.9, nesterov=True),
    Adam(lr=0.01),
    Adam(lr=0.01, weight_decay=0.1),
    AdamW(lr=0.01, weight_decay=0.1),
]


@pytest.fixture
def batch():
    generator = np.random.default_rng(3)
    images = generator.standard_normal((9, SIZES[0]))
    labels = generator.integers(SIZES[-1], size=9)
    return images, np.eye(SIZES[-1])[labels], labels


def network(sizes=SIZES, seed=0, dtype=np.float64):
    made = mlp.initialize_network(sizes, "xavier", np.random.default_rng(seed), dtype)
    for layer in made:
        layer.bias += np.random.default_rng(seed + 1).standard_normal(len(layer.bias)).astype(dtype)
    return made


def twin(ours):
    """The same network in torch."""
    layers = []
    for layer in ours:
        linear = nn.Linear(*layer.weights.shape, dtype=torch.float64)
        linear.weight.data = torch.from_numpy(layer.weights.T.copy())
        linear.bias.data = torch.from_numpy(layer.bias.copy())
        layers += [linear, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def relative(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def loss(ours, images, targets):
    return mlp.cross_entropy(mlp.forward_propagation(ours, images)[-1], targets).mean()


def trained(**changes):
    """All events of a run on the handwritten digits."""
    tree = {
        "data": {"name": "digits", "validation": 0.25},
        "model": {"name": "numpy_mlp", "hidden": [50, 20]},
        "optimizer": {"name": "sgd", "lr": 0.2},
        "training": {"epochs": 6, "batch_size": 32},
    }
    config = RunConfig.parse(tree).override(changes.pop("override", {}))
    return list(events_of(Task("run", 1, RunPayload(config.tree(), **{"seed": 0} | changes))))


# --- the steps --------------------------------------------------------------------------------------------------------


def test_gradients_agree_with_finite_differences(batch):
    images, targets, _ = batch
    ours = network()
    gradients = mlp.backward_propagate_error(ours, mlp.forward_propagation(ours, images), targets)
    step = 1e-5
    for values, found in zip(mlp.arrays(ours), mlp.arrays(gradients), strict=True):
        expected = np.zeros_like(values)
        for place in itertools.product(*map(range, values.shape)):
            kept = values[place]
            values[place] = kept + step
            above = loss(ours, images, targets)
            values[place] = kept - step
            expected[place] = (above - loss(ours, images, targets)) / (2 * step)
            values[place] = kept
        assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("sizes", [SIZES, (12, 4), (12, 30, 4), (12, 6, 6, 6, 6, 4)])
def test_gradients_agree_with_autograd(batch, sizes):
    images, targets, labels = batch
    ours = network(sizes)
    theirs = twin(ours)
    F.cross_entropy(theirs(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
    gradients = mlp.backward_propagate_error(ours, mlp.forward_propagation(ours, images), targets)
    for layer, linear in zip(gradients, (m for m in theirs if isinstance(m, nn.Linear)), strict=True):
        assert relative(layer.weights, linear.weight.grad.numpy().T) < 1e-6
        assert relative(layer.bias, linear.bias.grad.numpy()) < 1e-6


def test_gradients_of_the_full_size_network_agree_with_autograd():
    generator = np.random.default_rng(0)
    images, labels = generator.standard_normal((16, 784)), generator.integers(10, size=16)
    ours = network((784, 500, 50, 10))
    theirs = twin(ours)
    F.cross_entropy(theirs(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
    activations = mlp.forward_propagation(ours, images)
    gradients = mlp.backward_propagate_error(ours, activations, np.eye(10)[labels])
    for layer, linear in zip(gradients, (m for m in theirs if isinstance(m, nn.Linear)), strict=True):
        assert relative(layer.weights, linear.weight.grad.numpy().T) < 1e-6


def test_the_forward_pass_and_the_loss_are_torchs(batch):
    images, targets, labels = batch
    ours = network()
    outputs = mlp.forward_propagation(ours, images)[-1]
    expected = twin(ours)(torch.from_numpy(images)).detach()
    np.testing.assert_allclose(outputs, expected.numpy(), rtol=1e-12)
    losses = F.cross_entropy(expected, torch.from_numpy(labels), reduction="none")
    np.testing.assert_allclose(mlp.cross_entropy(outputs, targets), losses.numpy(), rtol=1e-12)


def test_targets_may_be_probabilities_instead_of_classes(batch):
    images, _, _ = batch
    targets = np.random.default_rng(5).dirichlet(np.ones(SIZES[-1]), size=len(images))
    ours = network()
    theirs = twin(ours)
    expected = F.cross_entropy(theirs(torch.from_numpy(images)), torch.from_numpy(targets))
    expected.backward()
    assert loss(ours, images, targets) == pytest.approx(expected.item(), rel=1e-12)
    gradients = mlp.backward_propagate_error(ours, mlp.forward_propagation(ours, images), targets)
    assert relative(gradients[0].weights, theirs[0].weight.grad.numpy().T) < 1e-6


def test_the_gradient_of_a_batch_is_the_mean_over_its_images(batch):
    images, targets, _ = batch
    ours = network()
    together = mlp.backward_propagate_error(ours, mlp.forward_propagation(ours, images), targets)
    alone = [
        mlp.backward_propagate_error(ours, mlp.forward_propagation(ours, image), target)[0].weights
        for image, target in zip(images[:, None], targets[:, None], strict=True)
    ]
    np.testing.assert_allclose(together[0].weights, np.mean(alone, axis=0), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
def test_the_update_is_that_of_torchs_optimizer(batch, optimizer):
    from ablate.training.builtin.optimizers import optimizer as make_optimizer

    images, targets, labels = batch
    ours = network()
    theirs = twin(ours)
    reference = make_optimizer(optimizer, theirs)
    remembered = rule(optimizer)
    for lr in (optimizer.lr, optimizer.lr / 2, optimizer.lr / 3, optimizer.lr):
        for group in reference.param_groups:
            group["lr"] = lr
        reference.zero_grad()
        F.cross_entropy(theirs(torch.from_numpy(images)), torch.from_numpy(labels)).backward()
        reference.step()
        mlp.train(ours, images, targets, remembered, lr)
    for layer, linear in zip(ours, (m for m in theirs if isinstance(m, nn.Linear)), strict=True):
        assert relative(layer.weights, linear.weight.detach().numpy().T) < 1e-9
        assert relative(layer.bias, linear.bias.detach().numpy()) < 1e-9


def test_the_sigmoid_neither_overflows_nor_leaves_its_range():
    z = np.array([-1e4, -50, -1, 0, 1, 50, 1e4], dtype=np.float32)
    a = mlp.sigmoid_activation(z)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, torch.sigmoid(torch.from_numpy(z)).numpy(), atol=1e-7)


@pytest.mark.parametrize(
    ("name", "std"),
    [("normal", 1), ("lecun", 400**-0.5), ("xavier", (2 / 700) ** 0.5), ("he", (2 / 400) ** 0.5)],
)
def test_initial_weights_have_the_standard_std_of_their_scheme(name, std):
    layer = mlp.initialize_network((400, 300), name, np.random.default_rng(0))[0]
    assert layer.weights.dtype == np.float32
    assert layer.weights.std() == pytest.approx(std, rel=0.01)
    assert not layer.bias.any()


# --- in the training --------------------------------------------------------------------------------------------------


def test_it_trains_through_the_same_events_as_a_torch_network():
    ours = trained()
    theirs = trained(override={"model": {"name": "cnn", "width": 4, "depth": 1}, "training.epochs": 6})
    assert [type(event) for event in ours] == [Started, *[EpochEnd] * 6, Finished]
    assert [type(event) for event in ours] == [type(event) for event in theirs]
    assert [event.seq for event in ours] == list(range(8))
    for one, other in zip(ours, theirs, strict=True):
        for part in ("facts", "metrics", "files"):
            assert getattr(one, part, {}).keys() == getattr(other, part, {}).keys()
    assert ours[0].facts["device"].startswith("cpu")


def test_it_learns_the_digits():
    last = trained(override={"training.epochs": 15})[-1]
    assert last.outcome == "finished"
    assert last.metrics["test/accuracy"] > 0.93
    assert last.metrics["model/parameters"] == 64 * 50 + 50 + 50 * 20 + 20 + 20 * 10 + 10


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_it_learns_with_every_optimizer(optimizer):
    last = trained(override={"optimizer": {"name": optimizer, "lr": 0.02}, "training.epochs": 8})[-1]
    assert last.metrics["test/accuracy"] > 0.93


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = (trained(seed=seed)[-1].facts for seed in (0, 0, 1))
    assert first == again
    assert first["weights"] != other["weights"]


def test_the_best_epochs_weights_are_those_that_are_tested():
    override = {"training.checkpoint": "best", "optimizer.lr": 1.0, "schedule.name": "constant"}
    events = trained(override=override)
    epochs = [event.metrics["val/loss"] for event in events if isinstance(event, EpochEnd)]
    assert events[-1].epoch == epochs.index(min(epochs)) + 1


def test_a_network_whose_loss_explodes_is_diverged_and_not_failed():
    last = trained(override={"optimizer": {"name": "sgd", "lr": 1e38}, "training.epochs": 3})[-1]
    assert isinstance(last, Finished)
    assert last.outcome == "diverged"


def test_the_device_of_torch_has_no_effect_on_it():
    assert isinstance(trained(device="meta")[-1], Finished)


def test_it_uses_only_its_threads():
    torch.set_num_threads(1)
    NumpyLearner(NumpyMlp(), Sgd(), (1, 28, 28), 10, 0)
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    assert pools
    assert {pool["num_threads"] for pool in pools} == {1}


def test_restored_weights_are_a_copy():
    learner = NumpyLearner(NumpyMlp(hidden=(6,)), Sgd(), (1, 4, 4), 3, 0)
    kept, before = learner.weights(), learner.digest()
    learner.step(torch.ones(2, 1, 4, 4), torch.tensor([0, 1]), 0.5)
    assert learner.digest() != before
    learner.restore(kept)
    assert learner.digest() == before


def test_colour_images_are_read_channel_by_channel():
    learner = NumpyLearner(NumpyMlp(hidden=(6,)), Sgd(), (3, 4, 5), 3, 0)
    images = torch.randn(2, 3, 4, 5)
    expected = mlp.forward_propagation(learner.network, images.reshape(2, -1).numpy())[-1]
    found = learner.logits(images.contiguous(memory_format=torch.channels_last)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("training", "message"),
    [({"precision": "bfloat16"}, "NumPy has no bfloat16"), ({"loss": "focal"}, "has no focal loss")],
)
def test_what_numpy_cannot_do_is_refused_before_anything_trains(training, message):
    tree = {"data": {"name": "digits"}, "model": {"name": "numpy_mlp"}, "training": training}
    with pytest.raises(StudyError, match=message):
        RunConfig.parse(tree)


def test_the_layer_table_is_784_500_50_10_by_default():
    made = table.describe(NumpyMlp(), (1, 28, 28), 10)
    assert [(row.kind, row.shape, row.parameters) for row in made.rows] == [
        ("Linear", (500,), 784 * 500 + 500),
        ("Sigmoid", (500,), 0),
        ("Linear", (50,), 500 * 50 + 50),
        ("Sigmoid", (50,), 0),
        ("Linear", (10,), 50 * 10 + 10),
    ]
    same_in_torch = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, 500), nn.Sigmoid(), nn.Linear(500, 50), nn.Sigmoid()),
        nn.Linear(50, 10),
    )
    assert made.flops == table.flops(same_in_torch, (1, 28, 28))
    assert made.parameters == table.parameters(same_in_torch)


def test_sizes_are_free():
    assert table.describe(NumpyMlp(hidden=()), (1, 28, 28), 10).parameters == 7850
    assert len(table.describe(NumpyMlp(hidden=(8,) * 5), (1, 28, 28), 10).rows) == 11
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        NumpyMlp(hidden=(0,))
