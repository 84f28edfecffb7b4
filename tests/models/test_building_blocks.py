"""Own dropout, pooled activations, and the table of a network's layers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ablate.models import MODELS, Cnn, SmallCnn, layers, table

ACTIVATIONS = ["relu", "leaky_relu", "tanh", "gelu", "silu"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def x():
    return torch.randn(64, 5, 12, 12, generator=generator(1)) * 3


# --- dropout ------------------------------------------------------------------------------------------------------


def dropout(p: float, seed: int = 0) -> layers.Dropout:
    module = layers.Dropout(p).train()
    layers.use_generator(module, generator(seed))
    return module


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_scales_the_rest(x, p):
    seen = dropout(p)(x)
    kept = seen != 0
    assert torch.equal(seen[kept], x[kept] * torch.tensor(1 / (1 - p)))
    std = math.sqrt(p * (1 - p) / x.numel())
    assert abs(1 - kept.float().mean().item() - p) < 5 * std


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(p):
    ones = torch.ones(200_000)
    std = math.sqrt(p / (1 - p) / ones.numel())
    assert abs(dropout(p)(ones).mean().item() - 1) < 5 * std


def test_dropout_drops_elements_independently_of_their_neighbours():
    kept = (dropout(0.5)(torch.ones(500, 500)) != 0).float() * 2 - 1
    for a, b in ((kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        assert abs((a * b).mean().item()) < 5 / math.sqrt(a.numel())


def test_dropout_passes_everything_in_evaluation_and_where_it_is_off(x):
    stream = generator()
    before = stream.get_state()
    for module in (layers.Dropout(0.5).eval(), layers.Dropout(0.0).train()):
        layers.use_generator(module, stream)
        assert module(x) is x
    assert torch.equal(stream.get_state(), before)


def test_dropout_draws_from_its_generator_and_from_nothing_else(x):
    torch.manual_seed(1)
    untouched = torch.get_rng_state()
    one = dropout(0.5, seed=7)(x)
    assert torch.equal(torch.get_rng_state(), untouched)
    torch.manual_seed(2)
    assert torch.equal(dropout(0.5, seed=7)(x), one)
    assert not torch.equal(dropout(0.5, seed=8)(x), one)


def test_masks_differ_from_call_to_call_and_between_the_layers_of_a_model(x):
    model = nn.Sequential(nn.Sequential(layers.Dropout(0.5)), layers.Dropout(0.5)).train()
    layers.use_generator(model, generator())
    first, second = model[0](x), model[1](x)
    assert not torch.equal(first, second)
    assert not torch.equal(model[0](x), first)


def test_dropout_passes_gradients_only_where_it_passed_values(x):
    x = x.requires_grad_()
    seen = dropout(0.3)(x)
    seen.sum().backward()
    assert torch.equal(x.grad != 0, seen != 0)


# --- pooled activations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("pool", [2, 3])
def test_pooling_before_a_monotone_activation_is_the_same_function(x, name, pool):
    cheap = nn.Sequential(*layers.pooled_activation(name, pool))
    plain = nn.Sequential(layers.activation(name), nn.MaxPool2d(pool))
    assert torch.equal(cheap(x), plain(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_pooling_before_a_monotone_activation_has_the_same_gradient(x, name):
    gradients = []
    for model in (
        nn.Sequential(*layers.pooled_activation(name, 2)),
        nn.Sequential(layers.activation(name), nn.MaxPool2d(2)),
    ):
        leaf = x.clone().requires_grad_()
        model(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_the_cheaper_order_is_used_only_for_monotone_activations():
    first = {name: type(layers.pooled_activation(name, 2)[0]) for name in ACTIVATIONS}
    assert first == {
        "relu": nn.MaxPool2d,
        "leaky_relu": nn.MaxPool2d,
        "tanh": nn.MaxPool2d,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
    }


# --- the table ----------------------------------------------------------------------------------------------------


def test_layers_are_listed_in_execution_order():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(3, 2)
            self.first = nn.Conv2d(1, 3, 1)
            self.shared = nn.ReLU()

        def forward(self, x):
            return self.last(self.shared(self.shared(self.first(x)).mean((2, 3))))

    found = table.layers(Backwards(), (1, 4, 4))
    assert [(row.kind, row.shape, row.parameters) for row in found] == [
        ("Conv2d", (3, 4, 4), 6),
        ("ReLU", (3, 4, 4), 0),
        ("ReLU", (3,), 0),
        ("Linear", (2,), 8),
    ]


def test_a_module_that_is_used_twice_counts_its_parameters_once():
    shared = nn.Conv2d(2, 2, 1)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert [row.parameters for row in table.layers(model, (2, 3, 3))] == [6, 0, 0]
    assert table.parameters(model) == 6
    assert table.flops(model, (2, 3, 3)) == 2 * 2 * (2 * 2 * 9)


def test_the_table_adds_up_to_all_parameters():
    for config in (Cnn(depth=4, width=3), SmallCnn()):
        model = config.build((3, 32, 32), 10)
        assert sum(row.parameters for row in table.layers(model, (3, 32, 32))) == table.parameters(model)


@pytest.mark.parametrize(
    "name", [n for n, kind in MODELS.items() if not kind.is_foreign and n != "numpy_mlp"]
)
def test_flops_are_those_of_torchs_counter(name):
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = MODELS[name]().build((3, 32, 32), 10).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 32, 32))
    assert table.flops(model, (3, 32, 32)) == counter.get_total_flops() > 0


def test_flops_of_groups_strides_and_layers_on_sequences_are_counted():
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.Flatten(2), nn.Linear(9, 5))
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 4, 8, 8))
    assert table.flops(model, (4, 8, 8)) == counter.get_total_flops()


def test_only_parameters_that_train_are_counted():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    model[0].requires_grad_(requires_grad=False)
    assert table.parameters(model) == 4


def test_summarising_a_network_does_not_change_it():
    model = Cnn(depth=2, width=3, dropout=0.5).build((3, 8, 8), 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    table.layers(model, (3, 8, 8))
    table.flops(model, (3, 8, 8))
    assert model.training
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in model.modules())


def test_flops_do_not_depend_on_the_batch_or_the_mode():
    model = Cnn(depth=2, width=4).build((1, 8, 8), 3)
    assert table.flops(model.train(), (1, 8, 8)) == table.flops(model.eval(), (1, 8, 8))
