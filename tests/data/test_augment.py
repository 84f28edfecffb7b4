"""Batched augmentation against torchvision, one image at a time."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from pydantic import ValidationError
from torchvision.transforms import InterpolationMode

from ablate.data.augment import (
    Augment,
    apply,
    augment,
    cutout,
    draw,
    draw_mixup,
    flip,
    jitter,
    mixup,
    pad_crop,
    rotate,
)

EVERYTHING = Augment(flip=True, crop=3, rotation=30.0, cutout=4)
DTYPES = [torch.uint8, torch.float32, torch.float64, torch.bfloat16]
FORMATS = [torch.contiguous_format, torch.channels_last]


def batch(
    n=12, *, channels=3, height=9, width=11, dtype=torch.float32, memory_format=torch.contiguous_format
):
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0)) * 255
    return x.to(dtype).contiguous(memory_format=memory_format)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_flip_mirrors_exactly_the_chosen_images(dtype, memory_format):
    x = batch(dtype=dtype, memory_format=memory_format)
    mask = torch.arange(len(x)) % 3 == 0
    expected = torch.stack([reference.horizontal_flip(i) if m else i for i, m in zip(x, mask, strict=True)])
    assert torch.equal(flip(x, mask), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pad_crop_is_torchvisions_pad_then_crop(dtype, memory_format, channels):
    x = batch(49, channels=channels, dtype=dtype, memory_format=memory_format)
    pad = 3
    dy, dx = torch.arange(49) // 7, torch.arange(49) % 7  # every offset there is
    expected = torch.stack(
        [
            reference.crop(reference.pad(i, [pad]), int(r), int(c), 9, 11)
            for i, r, c in zip(x, dy, dx, strict=True)
        ]
    )
    assert torch.equal(pad_crop(x, dy, dx, pad), expected)


def test_a_crop_in_the_middle_changes_nothing():
    x = batch()
    middle = torch.full((len(x),), 5)
    assert torch.equal(pad_crop(x, middle, middle, 5), x)


def rotated(x, degrees):
    return torch.stack(
        [reference.rotate(i, float(d), InterpolationMode.BILINEAR) for i, d in zip(x, degrees, strict=True)]
    )


@pytest.mark.parametrize("size", [(9, 11), (32, 32), (8, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rotate_is_torchvisions_bilinear_rotation(size, dtype):
    x = batch(height=size[0], width=size[1], dtype=dtype)
    degrees = torch.linspace(-180, 180, len(x)) + 0.3
    # 5e-4 of 255: the last places of float32 in the sampling positions.
    torch.testing.assert_close(rotate(x, degrees), rotated(x, degrees), atol=5e-4 * max(size) / 8, rtol=0)


def test_rotate_rounds_bytes_as_torchvision_does():
    x = batch(height=32, width=32, dtype=torch.uint8)
    degrees = torch.linspace(-170, 170, len(x))
    difference = (rotate(x, degrees).int() - rotated(x, degrees).int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3, "only where the value lies on the edge between two bytes"


def test_rotate_turns_counter_clockwise_about_the_centre_by_quarter_turns():
    x = batch(4, height=10, width=10)
    degrees = torch.tensor([0.0, 90.0, 180.0, -90.0])
    expected = torch.stack([torch.rot90(i, k, dims=(-2, -1)) for i, k in zip(x, (0, 1, 2, 3), strict=True)])
    torch.testing.assert_close(rotate(x, degrees), expected, atol=1e-3, rtol=0)


def test_rotate_fills_the_corners_with_zeros():
    turned = rotate(torch.full((1, 1, 20, 20), 9.0), torch.tensor([45.0]))[0, 0]
    assert turned[0, 0] == turned[0, -1] == turned[-1, 0] == turned[-1, -1] == 0
    assert turned[10, 10] == pytest.approx(9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    "config",
    [
        Augment(flip=True),
        Augment(crop=2),
        Augment(rotation=5.0),
        Augment(brightness=0.5),
        Augment(contrast=0.5, saturation=0.5),
        Augment(cutout=4),
        EVERYTHING,
    ],
)
def test_shape_dtype_and_memory_format_stay_and_the_argument_is_left_alone(dtype, memory_format, config):
    x = batch(dtype=dtype, memory_format=memory_format)
    before = x.clone()
    y = augment(x, config, seeded())
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.is_contiguous(memory_format=memory_format)
    assert torch.equal(x, before)


def test_both_memory_formats_give_the_same_answer():
    one, two = (augment(batch(memory_format=m), EVERYTHING, seeded()) for m in FORMATS)
    assert torch.equal(one, two)


def test_all_off_is_the_batch_itself_and_draws_nothing():
    x, generator = batch(), seeded()
    state = generator.get_state()
    assert augment(x, Augment(), generator) is x
    assert torch.equal(generator.get_state(), state)


def test_augment_applies_the_draws_in_their_order():
    x = batch()
    drawn = draw(len(x), EVERYTHING, seeded())
    expected = cutout(
        pad_crop(rotate(flip(x, drawn.mask), drawn.degrees), drawn.dy, drawn.dx, 3), drawn.centre, 4
    )
    assert torch.equal(augment(x, EVERYTHING, seeded()), expected)
    assert torch.equal(apply(x, drawn, 3, 4), expected)


def test_every_image_has_its_own_draw():
    same = batch(1, height=32, width=32).expand(64, -1, -1, -1)
    for config, least in (
        (Augment(flip=True), 2),
        (Augment(crop=4), 30),
        (Augment(rotation=20.0), 64),
        (Augment(cutout=9), 50),
        (Augment(contrast=0.5), 30),
    ):
        assert len({image.numpy().tobytes() for image in augment(same, config, seeded())}) >= least


def test_an_image_does_not_depend_on_its_neighbours():
    x = batch()
    whole = augment(x, EVERYTHING, seeded())
    others = torch.zeros_like(x)
    others[4] = x[4]
    assert torch.equal(augment(others, EVERYTHING, seeded())[4], whole[4])


def test_the_same_seed_gives_the_same_answer_and_another_another():
    x = batch(dtype=torch.uint8)
    colour = Augment(brightness=0.3, contrast=0.2, saturation=0.1)
    for config in (
        Augment(flip=True),
        Augment(crop=2),
        Augment(rotation=10.0),
        Augment(cutout=2),
        colour,
        EVERYTHING,
    ):
        assert torch.equal(augment(x, config, seeded(1)), augment(x, config, seeded(1)))
        assert not torch.equal(augment(x, config, seeded(1)), augment(x, config, seeded(2)))


def test_the_next_batch_is_drawn_anew():
    x, generator = batch(), seeded()
    assert not torch.equal(augment(x, EVERYTHING, generator), augment(x, EVERYTHING, generator))


def test_the_global_generator_is_not_used():
    state = torch.get_rng_state()
    augment(batch(), EVERYTHING, seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_configurations_that_differ_in_one_part_share_the_draws_of_the_others():
    less, more = (seeded(5) for _ in range(2))
    for _ in range(3):  # and stay in step from batch to batch
        one = draw(50, Augment(flip=True, crop=2), less)
        two = draw(50, Augment(flip=True, rotation=9.0), more)
        assert torch.equal(one.mask, two.mask)


def streams():
    return {name: seeded(i) for i, name in enumerate(("augmentation", "colour", "cutout"))}


def test_colour_and_cutout_have_separate_streams_and_change_no_other():
    less, more = streams(), streams()
    everything = Augment(flip=True, crop=2, brightness=0.1, saturation=0.3, cutout=4)
    for _ in range(3):
        one, two = draw(50, Augment(flip=True, crop=2), less), draw(50, everything, more)
        assert torch.equal(one.mask, two.mask)
        assert torch.equal(one.dy, two.dy)
    without = streams()
    for _ in range(2):
        draw(50, Augment(saturation=0.3), without)
    assert torch.equal(draw(50, Augment(saturation=0.3), without).saturation, two.saturation)
    assert torch.equal(less["cutout"].get_state(), streams()["cutout"].get_state()), (
        "nothing on, nothing drawn"
    )


COLOURS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
}


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_adjusted_as_torchvision_does(name, channels):
    factors = torch.linspace(0, 2, 12)
    x = batch(channels=channels) / 255
    expected = torch.stack([COLOURS[name](i, float(f)) for i, f in zip(x, factors, strict=True)])
    torch.testing.assert_close(jitter(x, **{name: factors}), expected, atol=1e-5, rtol=0)
    x = batch(channels=channels, dtype=torch.uint8)
    expected = torch.stack([COLOURS[name](i, float(f)) for i, f in zip(x, factors, strict=True)])
    # torchvision cuts bytes off where we round them, the grey of a pixel too.
    assert (jitter(x, **{name: factors}).int() - expected.int()).abs().max() <= 2


def test_a_factor_of_one_changes_no_colour_and_grey_has_no_saturation():
    x = batch(dtype=torch.uint8)
    one = torch.ones(len(x))
    assert torch.equal(jitter(x, one, one, one), x)
    grey = batch(channels=1, dtype=torch.uint8)
    assert jitter(grey, saturation=2 * one) is grey
    assert jitter(x) is x


def test_cutout_zeroes_one_square_about_its_centre_and_nothing_else():
    x = batch(3, height=10, width=12) + 1
    # The middle; a corner, where three quarters of the square lie outside; the last pixel.
    centre = torch.tensor([[0.5, 0.0, 0.999], [0.5, 0.0, 0.999]])
    holes = cutout(x, centre, 4) == 0
    assert holes.sum(dim=(1, 2, 3)).tolist() == [3 * 16, 3 * 4, 3 * 9]
    assert holes[0, :, 3:7, 4:8].all()
    assert holes[1, :, :2, :2].all()
    assert holes[2, :, 7:, 9:].all()
    assert torch.equal(cutout(x, centre, 4)[~holes], x[~holes])


def test_mixup_keeps_a_share_of_each_image_and_takes_the_rest_from_its_partner():
    x = batch(dtype=torch.float64)
    labels = torch.eye(10)[torch.arange(len(x)) % 10]
    partner, share = draw_mixup(len(x), 0.4, seeded())
    mixed = mixup(x, partner, share)
    for i in range(len(x)):
        expected = share[i].double() * x[i] + (1 - share[i].double()) * x[partner[i]]
        torch.testing.assert_close(mixed[i], expected)
    soft = mixup(labels, partner, share)
    torch.testing.assert_close(soft.sum(1), torch.ones(len(x)))
    assert soft.min() >= 0
    assert ((soft > 0).sum(1) <= 2).all()
    one = torch.ones(len(x))
    assert torch.equal(mixup(x, partner, one), x)
    layout = batch(memory_format=torch.channels_last)
    assert mixup(layout, partner, share).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0])
def test_shares_of_mixup_are_drawn_from_beta_and_partners_do_not_depend_on_it(alpha):
    partner, share = draw_mixup(20_000, alpha, seeded())
    assert sorted(partner.tolist()) == list(range(20_000))
    assert torch.equal(partner, draw_mixup(20_000, 1.0, seeded())[0])
    assert 0 <= share.min() < share.max() <= 1
    assert share.mean() == pytest.approx(0.5, abs=0.01)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    assert torch.equal(share, draw_mixup(20_000, alpha, seeded())[1])


def test_draws_are_uniform_over_what_the_config_allows():
    n = 40_000
    drawn = draw(n, EVERYTHING, seeded())
    assert drawn.mask.float().mean() == pytest.approx(0.5, abs=0.01)
    for offsets in (drawn.dy, drawn.dx):
        counts = torch.bincount(offsets, minlength=7)
        assert len(counts) == 7
        assert (counts / n - 1 / 7).abs().max() < 0.01
    assert drawn.degrees.abs().max() <= 30
    assert drawn.degrees.mean().abs() < 0.3
    assert drawn.degrees.std() == pytest.approx(60 / 12**0.5, rel=0.02)
    assert (
        torch.corrcoef(torch.stack([drawn.mask, drawn.dy, drawn.dx, drawn.degrees]).float())
        .fill_diagonal_(0)
        .abs()
        .max()
        < 0.02
    )


@pytest.mark.parametrize(
    "change",
    [
        {"flip": 1},
        {"crop": -1},
        {"crop": 1.5},
        {"crop": True},
        {"rotation": -1.0},
        {"rotation": 181.0},
        {"rotation": float("nan")},
        {"rotation": True},
        {"rotations": 3.0},
        {"cutout": 1.5},
        {"contrast": 1.1},
        {"saturation": -0.1},
        {"mixup": -1.0},
    ],
)
def test_a_value_that_does_not_fit_is_refused(change):
    with pytest.raises(ValidationError):
        Augment(**change)


def test_whole_degrees_are_taken_and_every_field_is_described():
    assert Augment(rotation=15).rotation == 15.0
    assert [name for name, field in Augment.model_fields.items() if not field.description] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
def test_a_gpu_gives_what_the_cpu_gives(generator_device):
    x = batch(height=32, width=32)
    drawn = draw(len(x), EVERYTHING, torch.Generator(device=generator_device).manual_seed(0))
    on_gpu = apply(x.cuda(), drawn, 3, 4)
    assert on_gpu.is_cuda
    on_cpu = apply(
        x,
        type(drawn)(**{name: value.cpu() for name, value in vars(drawn).items() if value is not None}),
        3,
        4,
    )
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=1e-2, rtol=0)
