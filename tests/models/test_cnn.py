"""The `cnn` whose every dimension is a factor, and the small one of the tutorial."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from ablate.errors import TrainingError
from ablate.models import Cnn, SmallCnn, table

GREY, RGB = 1, 3


def rows(config, shape, classes=10):
    return [(row.kind, row.shape) for row in table.layers(config.build(shape, classes), shape)]


@pytest.mark.parametrize("depth", [1, 3, 9])
@pytest.mark.parametrize("side", [1, 2, 4, 7, 28, 64])
@pytest.mark.parametrize("channels", [GREY, RGB])
def test_any_depth_runs_on_any_input(depth, side, channels):
    model = Cnn(depth=depth, width=2).build((channels, side, side), 7)
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 1, 64), (3, 64, 3), (3, 5, 17), (1, 4, 40)])
def test_images_need_not_be_square(shape):
    assert Cnn(depth=4, width=2).build(shape, 3)(torch.zeros(2, *shape)).shape == (2, 3)


@pytest.mark.parametrize("kernel", [1, 3, 7, 15])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "gelu", "silu"])
def test_every_kernel_and_activation_keeps_the_size_of_the_image(kernel, activation):
    config = Cnn(depth=1, width=3, kernel_size=kernel, activation=activation, batch_norm=False)
    assert rows(config, (1, 3, 3))[0] == ("Conv2d", (3, 3, 3))
    assert config.build((1, 3, 3), 4)(torch.ones(1, 1, 3, 3)).shape == (1, 4)


def test_the_stages_are_those_of_the_docstring():
    assert rows(Cnn(depth=3, width=64), (3, 32, 32)) == [
        *[
            ("Conv2d", (64, 32, 32)),
            ("BatchNorm2d", (64, 32, 32)),
            ("MaxPool2d", (64, 16, 16)),
            ("ReLU", (64, 16, 16)),
        ],
        *[
            ("Conv2d", (64, 16, 16)),
            ("BatchNorm2d", (64, 16, 16)),
            ("MaxPool2d", (64, 8, 8)),
            ("ReLU", (64, 8, 8)),
        ],
        *[
            ("Conv2d", (64, 8, 8)),
            ("BatchNorm2d", (64, 8, 8)),
            ("MaxPool2d", (64, 4, 4)),
            ("ReLU", (64, 4, 4)),
        ],
        *[("AdaptiveAvgPool2d", (64, 1, 1)), ("Flatten", (64,)), ("Dropout", (64,)), ("Linear", (10,))],
    ]


def test_a_block_pools_only_while_both_sides_are_at_least_four():
    kinds = [kind for kind, _ in rows(Cnn(depth=6, width=2, batch_norm=False), (3, 17, 9))]
    # 17×9 → 8×4 → 4×2, and no further.
    assert kinds.count("MaxPool2d") == 2
    assert rows(Cnn(depth=6, width=2, batch_norm=False), (3, 17, 9))[-5] == ("ReLU", (2, 4, 2))


@pytest.mark.parametrize(
    ("profile", "depth", "widths"),
    [
        ("constant", 4, [8, 8, 8, 8]),
        ("growing", 4, [8, 16, 32, 64]),
        ("wide-middle", 3, [8, 16, 8]),
        ("wide-middle", 4, [8, 16, 16, 8]),
        ("wide-middle", 5, [8, 16, 16, 16, 8]),
        ("wide-middle", 6, [8, 8, 16, 16, 8, 8]),
        ("wide-middle", 9, [8] * 3 + [16] * 3 + [8] * 3),
    ],
)
def test_the_profile_says_how_channels_change_with_depth(profile, depth, widths):
    config = Cnn(profile=profile, depth=depth, width=8)
    assert config.widths() == widths
    assert [shape[0] for kind, shape in rows(config, (3, 8, 8)) if kind == "Conv2d"] == widths


def test_parameters_and_flops_are_those_counted_by_hand():
    # 3·64·9 + 2·64·64·9 weights, 2·64 of each of three batch norms, 64·10 + 10 of the last layer.
    model = Cnn(depth=3, width=64).build((3, 32, 32), 10)
    assert table.parameters(model) == 1728 + 2 * 36864 + 3 * 128 + 650 == 76490
    # A multiply-add is two: convolutions at 32², 16² and 8² pixels, then the last layer.
    assert table.flops(model, (3, 32, 32)) == 2 * (1728 * 32**2 + 36864 * 16**2 + 36864 * 8**2 + 640)


def test_parameters_and_flops_of_a_growing_grey_network_without_batch_norm():
    config = Cnn(depth=3, width=16, profile="growing", kernel_size=5, batch_norm=False)
    model = config.build((1, 8, 8), 5)
    # Biases are there now: (1·16 + 16·32 + 32·64)·25 weights, 16 + 32 + 64 biases, 64·5 + 5.
    assert table.parameters(model) == 2576 * 25 + 112 + 325 == 64837
    assert table.flops(model, (1, 8, 8)) == 2 * (400 * 8**2 + 12800 * 4**2 + 51200 * 2**2 + 320)


def test_convolutions_have_a_bias_only_where_no_batch_norm_follows():
    for batch_norm in (True, False):
        model = Cnn(depth=2, width=2, batch_norm=batch_norm).build((3, 8, 8), 2)
        assert [m.bias is None for m in model if isinstance(m, torch.nn.Conv2d)] == [batch_norm] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depth": 2, "profile": "wide-middle"}, "needs a depth of at least 3; the depth is 2"),
        ({"depth": 12, "profile": "growing", "width": 64}, "the widest block would have 131072 channels"),
        ({"kernel_size": 4}, "should be odd"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        Cnn(**fields)


def test_every_field_of_a_model_is_described():
    for kind in (Cnn, SmallCnn):
        assert [n for n, f in kind.model_fields.items() if n != "name" and not f.description] == []


# --- the tutorial's -----------------------------------------------------------------------------------------------


def test_small_cnn_is_the_network_of_the_tutorial():
    model = SmallCnn().build((3, 32, 32), 10)
    assert table.parameters(model) == 62006  # the figure that goes with this net everywhere
    assert [
        shape for kind, shape in rows(SmallCnn(), (3, 32, 32)) if kind in {"Conv2d", "MaxPool2d", "Linear"}
    ] == [
        *[(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)],
        *[(120,), (84,), (10,)],
    ]


@pytest.mark.parametrize(
    ("shape", "kernel"), [((1, 28, 28), 5), ((3, 16, 16), 5), ((1, 8, 8), 2), ((3, 20, 33), 3)]
)
def test_what_check_says_reaches_the_first_linear_layer(shape, kernel):
    config = SmallCnn(kernel_size=kernel, channels=(2, 3), hidden=(5, 4))
    height, width = config.check(shape)
    assert dict(rows(config, shape))["Flatten"] == (3 * height * width,)


@pytest.mark.parametrize(("side", "kernel"), [(8, 5), (15, 5), (4, 3), (1, 1), (3, 1)])
def test_an_input_that_is_too_small_is_refused_with_the_formula_and_what_to_do(side, kernel):
    with pytest.raises(TrainingError) as caught:
        SmallCnn(kernel_size=kernel).check((3, side, side))
    assert f"an input of {side}×{side} pixels is too small for small_cnn" in caught.value.message
    assert "(W−F+2P)/S+1" in caught.value.message
    assert caught.value.place == "model.kernel_size"
    passing = int(caught.value.hint.partition("data.resize: ")[2].split()[0])
    assert min(SmallCnn(kernel_size=kernel).check((3, passing, passing))) >= 1
    with pytest.raises(TrainingError):
        SmallCnn(kernel_size=kernel).check((3, passing - 1, passing - 1))


def test_the_size_is_checked_before_torch_is_needed():
    code = (
        "import sys\n"
        "from ablate.errors import TrainingError\n"
        "from ablate.models import SmallCnn\n"
        "try:\n    SmallCnn().check((3, 8, 8))\n"
        "except TrainingError:\n    sys.exit('torch' in sys.modules)\n"
        "sys.exit('no error')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
