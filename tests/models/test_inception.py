"""GoogLeNet's modules, its auxiliary heads, and the ideas of its successor."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ablate.config import RunConfig
from ablate.errors import TrainingError
from ablate.models import InceptionV1, InceptionV2, table
from ablate.models.inception import MODULES, inception_module, spatial
from ablate.models.layers import AUXILIARY_WEIGHT
from ablate.training.builtin.learner import TorchLearner

CIFAR = (3, 32, 32)
SLIM = 0.0625

# Table 1 of Szegedy et al. 2014: channels in and out.
PAPER = {
    "3a": (192, 256),
    "3b": (256, 480),
    "4a": (480, 512),
    "4b": (512, 512),
    "4c": (512, 512),
    "4d": (512, 528),
    "4e": (528, 832),
    "5a": (832, 832),
    "5b": (832, 1024),
}
# Of the paper's network as its authors' model in Caffe's zoo has it: a 7×7 stem, 1,000 classes, no heads.
GOOGLENET_PARAMETERS = 6_998_552


def learner(**model):
    tree = {
        "data": {"name": "digits"},
        "model": {"name": "inception_v1", "width": SLIM, "dropout": 0.0, "stem_pool": True} | model,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
    }
    return TorchLearner(RunConfig.parse(tree), CIFAR, 10, torch.device("cpu"))


@pytest.fixture(autouse=True)
def one_thread():
    # Two threads on a small network wait for each other more than they work.
    torch.set_num_threads(1)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, *CIFAR, generator=generator), torch.randint(10, (4,), generator=generator)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_papers_channels(name):
    inside, out = PAPER[name]
    with torch.device("meta"):
        module = inception_module(inside, MODULES[name], "none", batch_norm=False)
        assert module(torch.empty(1, inside, 14, 14)).shape == (1, out, 14, 14)


def test_v1_has_googlenets_parameters_except_in_the_first_kernel():
    made = table.describe(InceptionV1(auxiliary=False), CIFAR, 1000)
    assert made.parameters + 3 * 64 * (7 * 7 - 3 * 3) == GOOGLENET_PARAMETERS


def test_the_stages_are_those_of_the_docstring():
    with torch.device("meta"):
        model = InceptionV1().build(CIFAR, 10).eval()
    stages = {}
    for name, part in model.named_children():
        part.register_forward_hook(lambda _m, _i, out, name=name: stages.update({name: tuple(out.shape[1:])}))
    model(torch.empty(1, *CIFAR, device="meta"))
    assert stages == {
        "stem": (192, 32, 32),
        "3a": (256, 32, 32),
        "3b": (480, 32, 32),
        "pool_3b": (480, 16, 16),
        "4a": (512, 16, 16),
        "4b": (512, 16, 16),
        "4c": (512, 16, 16),
        "4d": (528, 16, 16),
        "4e": (832, 16, 16),
        "pool_4e": (832, 8, 8),
        "5a": (832, 8, 8),
        "5b": (1024, 8, 8),
        "classifier": (10,),
    }


def test_a_pooled_stem_leaves_a_quarter_of_the_pixels_and_of_the_flops():
    full, pooled = (table.describe(InceptionV1(stem_pool=p), CIFAR, 10) for p in (False, True))
    stem = sum(2 * 32 * 32 * weights for weights in (3 * 64 * 9, 64 * 64, 64 * 192 * 9))
    classifier = 2 * 1024 * 10
    assert (pooled.flops - stem - classifier) * 4 == full.flops - stem - classifier


def test_v2_is_v1_with_batch_norm_and_two_3x3_for_a_5x5():
    first, second = InceptionV1().model_dump(), InceptionV2().model_dump()
    assert {field: (first[field], second[field]) for field in first if first[field] != second[field]} == {
        "name": ("inception_v1", "inception_v2"),
        "batch_norm": (False, True),
        "factorise": ("none", "3x3"),
    }
    same = InceptionV1(batch_norm=True, factorise="3x3")
    assert table.describe(same, CIFAR, 10) == table.describe(InceptionV2(), CIFAR, 10)


@pytest.mark.parametrize(
    ("factorise", "side", "weights", "kernels"),
    [
        ("none", 3, 9 * 8 * 12, [(3, 3)]),
        ("none", 5, 25 * 8 * 12, [(5, 5)]),
        ("3x3", 3, 9 * 8 * 12, [(3, 3)]),
        ("3x3", 5, 9 * 8 * 12 + 9 * 12 * 12, [(3, 3), (3, 3)]),
        ("nx1", 3, 3 * 8 * 8 + 3 * 8 * 12, [(1, 3), (3, 1)]),
        ("nx1", 5, 5 * 8 * 8 + 5 * 8 * 12, [(1, 5), (5, 1)]),
    ],
)
def test_factorised_convolutions_have_the_same_receptive_field_with_other_weights(
    factorise, side, weights, kernels
):
    layers = torch.nn.Sequential(*spatial(8, 12, side, factorise, batch_norm=False))
    convolutions = [m for m in layers.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [m.kernel_size for m in convolutions] == kernels
    assert sum(m.weight.numel() for m in convolutions) == weights
    for m in convolutions:
        torch.nn.init.constant_(m.weight, 1.0)
        torch.nn.init.constant_(m.bias, 1.0)
    image = torch.ones(1, 8, 11, 11, requires_grad=True)
    layers(image)[0, 0, 5, 5].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.min(), seen.max()) == (5 - side // 2, 5 + side // 2)
    assert len(seen) == side * side


def test_batch_norm_follows_every_convolution():
    for factorise in ("none", "3x3", "nx1"):
        with torch.device("meta"):
            model = InceptionV2(factorise=factorise).build(CIFAR, 10)
        found = [type(m).__name__ for m in model.modules()]
        assert found.count("BatchNorm2d") == found.count("Conv2d") > 50
    rows = table.describe(InceptionV1(), CIFAR, 10).rows
    assert not any(row.kind == "BatchNorm2d" for row in rows)


def test_width_multiplies_every_layers_channels():
    widths = {
        n: InceptionV1(width=w).widths()["5b"] for n, w in (("half", 0.5), ("double", 2), ("none", 0.001))
    }
    assert widths["half"] == (192, 96, 192, 24, 64, 64)
    assert widths["double"] == (768, 384, 768, 96, 256, 256)
    assert widths["none"] == (1, 1, 1, 1, 1, 1)
    full, half = (table.describe(InceptionV1(width=w), CIFAR, 10).flops for w in (1.0, 0.5))
    assert full / half == pytest.approx(4, rel=0.05)


# --- auxiliary heads --------------------------------------------------------------------------------------------------


def test_heads_give_logits_in_training_only():
    model = InceptionV1(width=SLIM).build(CIFAR, 10)
    logits, heads = model(torch.zeros(2, *CIFAR))
    assert logits.shape == (2, 10)
    assert [head.shape for head in heads] == [(2, 10), (2, 10)]
    assert model.eval()(torch.zeros(2, *CIFAR)).shape == (2, 10)


def test_without_heads_training_gives_logits_alone():
    model = InceptionV2(width=SLIM, auxiliary=False).build(CIFAR, 10)
    assert model(torch.zeros(2, *CIFAR)).shape == (2, 10)


def test_losses_of_the_heads_are_added_with_their_weight(batch):
    images, labels = batch
    with_heads = learner()
    model = with_heads.model.train()
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    logits, heads = model(images)
    total = F.cross_entropy(logits, labels)
    expected = float(total.detach())
    for head in heads:
        total = total + 0.3 * F.cross_entropy(head, labels)
    gradients = torch.autograd.grad(total, list(model.parameters()))
    before = [p.detach().clone() for p in model.parameters()]
    loss, _ = with_heads.step(images, labels, 0.1)
    assert AUXILIARY_WEIGHT == 0.3
    assert float(loss) / len(labels) == pytest.approx(expected, rel=1e-6)
    for old, new, gradient in zip(before, model.parameters(), gradients, strict=True):
        torch.testing.assert_close(new.detach(), old - 0.1 * gradient)


def test_heads_are_counted_as_parameters_used_in_training_only():
    with_heads, without = (table.describe(InceptionV1(auxiliary=a), CIFAR, 10) for a in (True, False))
    head = sum(
        inside * 128 + 128 + (128 * 4 * 4) * 1024 + 1024 + 1024 * 10 + 10
        for inside in (MODULES["4a"], MODULES["4d"])
        for inside in [inside.one + inside.three + inside.five + inside.pool]
    )
    assert with_heads.training_only == head
    assert with_heads.parameters - without.parameters == head
    assert with_heads.flops == without.flops
    assert without.training_only == 0
    assert f"{head:,} of them in auxiliary heads, which are used in training only" in table.text(with_heads)


def test_an_image_too_small_for_the_heads_is_refused():
    with pytest.raises(
        TrainingError, match=r"average pooling of the auxiliary heads: \(4−5\+0\)/3\+1 = 0.667, so 0"
    ):
        InceptionV1().check((1, 8, 8))
    InceptionV1(auxiliary=False).check((1, 1, 1))
    model = InceptionV1(auxiliary=False, width=SLIM).build((1, 1, 1), 3).eval()
    assert model(torch.zeros(1, 1, 1, 1)).shape == (1, 3)


def test_parts_are_named_in_the_table():
    text = table.text(table.describe(InceptionV2(), CIFAR, 10))
    for part in ("stem", "3a.1x1", "4e.5x5", "5b.pool", "classifier"):
        assert part in text


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("factorise", "batch_norm"), [("none", False), ("3x3", True), ("nx1", True)])
def test_initial_weights_keep_the_signal_through_twenty_two_layers(factorise, batch_norm):
    torch.manual_seed(0)
    config = InceptionV1(
        width=0.25, factorise=factorise, batch_norm=batch_norm, auxiliary=False, stem_pool=True
    )
    model = config.build(CIFAR, 10)
    with torch.no_grad():
        spread = model(torch.randn(8, *CIFAR)).std(dim=0).mean()
    assert 0.05 < float(spread) < 20


def test_it_can_overfit_one_batch(batch):
    images, labels = batch
    for model in ({"name": "inception_v1"}, {"name": "inception_v2"}):
        trained = learner(**model)
        losses = [float(trained.step(images, labels, 0.05)[0]) for _ in range(25)]
        assert losses[-1] < losses[0] / 3
