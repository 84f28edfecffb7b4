"""The networks by name: what they are made of, what they take, and how their tables read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from ablate.cli import app
from ablate.data.facts import DataFacts
from ablate.errors import StudyError, TrainingError
from ablate.models import MODELS, Cnn, NumpyMlp, SmallCnn, TutorialCnn, WhatWorked, shapes, table
from ablate.models.shapes import Window
from ablate.study import design, spec

STUDIES = Path(__file__).parents[2] / "studies"

# The table of the post, as it prints it.
POST = """
Conv2d: 1-1       | [-1, 64, 32, 32]  | 1,792
BatchNorm2d: 1-2  | [-1, 64, 32, 32]  | 128
ReLU: 1-3         | [-1, 64, 32, 32]  | --
MaxPool2d: 1-4    | [-1, 64, 16, 16]  | --
Conv2d: 1-5       | [-1, 128, 16, 16] | 73,856
BatchNorm2d: 1-6  | [-1, 128, 16, 16] | 256
ReLU: 1-7         | [-1, 128, 16, 16] | --
Conv2d: 1-8       | [-1, 256, 16, 16] | 295,168
BatchNorm2d: 1-9  | [-1, 256, 16, 16] | 512
ReLU: 1-10        | [-1, 256, 16, 16] | --
MaxPool2d: 1-11   | [-1, 256, 8, 8]   | --
Conv2d: 1-12      | [-1, 256, 8, 8]   | 590,080
BatchNorm2d: 1-13 | [-1, 256, 8, 8]   | 512
ReLU: 1-14        | [-1, 256, 8, 8]   | --
Conv2d: 1-15      | [-1, 256, 6, 6]   | 590,080
BatchNorm2d: 1-16 | [-1, 256, 6, 6]   | 512
ReLU: 1-17        | [-1, 256, 6, 6]   | --
MaxPool2d: 1-18   | [-1, 256, 3, 3]   | --
Conv2d: 1-19      | [-1, 256, 1, 1]   | 590,080
ReLU: 1-20        | [-1, 256, 1, 1]   | --
Linear: 2-1       | [-1, 256]         | 65,792
ReLU: 2-2         | [-1, 256]         | --
Dropout: 1-22     | [-1, 256]         | --
Linear: 1-23      | [-1, 10]          | 2,570
"""

CIFAR = (3, 32, 32)
OWN_MODELS = [name for name, kind in MODELS.items() if not kind.is_foreign]
TORCH_MODELS = [name for name in OWN_MODELS if name != "numpy_mlp"]
# At a width at which the large ones are quick.
SLIM = {"what_worked": {"width": 0.1}, "inception_v1": {"width": 0.05}, "inception_v2": {"width": 0.05}}


@pytest.fixture(autouse=True)
def one_thread():
    # Two threads on a small network wait for each other more than they work.
    torch.set_num_threads(1)


def logits(config, shape, classes=10, n=2):
    model = config.build(shape, classes).eval()
    with torch.no_grad():
        return model(torch.randn(n, *shape))


def kinds(config, shape=CIFAR):
    return [row.kind for row in table.describe(config, shape, 10).rows]


# --- the table of the post --------------------------------------------------------------------------------------------


def test_the_printed_table_of_what_worked_is_the_posts_row_for_row():
    expected = [[cell.strip() for cell in line.split("|")] for line in POST.strip().splitlines()]
    header, *rows = table.text(table.describe(WhatWorked(), CIFAR, 10)).partition("\n\n")[0].splitlines()
    cut = header.index("output shape"), header.index("parameters")
    actual = [[row[: cut[0]].strip(), *row[cut[0] :].replace("]", "]|").split("|")] for row in rows]
    assert [[cell.strip() for cell in row] for row in actual] == expected


def test_what_worked_has_2_211_338_parameters():
    made = table.describe(WhatWorked(), CIFAR, 10)
    assert made.parameters == 2_211_338
    assert sum(row.parameters for row in made.rows) == 2_211_338


# --- what the networks are --------------------------------------------------------------------------------------------


def test_tutorial_cnn_is_the_notebooks_network():
    rows = [row for row in table.describe(TutorialCnn(), CIFAR, 10).rows if row.parameters]
    assert [(row.kind, row.shape, row.parameters) for row in rows] == [
        ("Conv2d", (16, 32, 32), 3 * 16 * 9 + 16),
        ("Conv2d", (32, 16, 16), 16 * 32 * 9 + 32),
        ("Conv2d", (64, 8, 8), 32 * 64 * 9 + 64),
        ("Linear", (500,), 64 * 4 * 4 * 500 + 500),
        ("Linear", (10,), 500 * 10 + 10),
    ]
    dropouts = [m.p for m in TutorialCnn().build(CIFAR, 10).modules() if type(m).__name__ == "Dropout"]
    assert dropouts == [0.25, 0.25]


def test_tutorial_cnn_has_two_or_three_convolutions():
    assert kinds(TutorialCnn(layers=2)).count("Conv2d") == 2
    assert table.describe(TutorialCnn(layers=2), CIFAR, 10).parameters == 448 + 4640 + 2048 * 500 + 500 + 5010
    with pytest.raises(ValueError, match="2 or 3"):
        TutorialCnn(layers=4)


def test_small_cnn_is_the_tutorials_network():
    assert table.describe(SmallCnn(), CIFAR, 10).parameters == 62_006


@pytest.mark.parametrize(
    ("changes", "convolutions"),
    [
        ({}, [64, 128, 256, 256, 256, 256]),
        ({"depth": 5}, [64, 128, 256, 256, 256]),
        ({"depth": 4}, [64, 256, 256, 256]),
        ({"depth": 8}, [64, 128, 256, 256, 256, 256, 256, 256]),
        ({"width": 0.5}, [32, 64, 128, 128, 128, 128]),
        ({"middle": 2.0}, [64, 256, 512, 512, 256, 256]),
        ({"width": 0.001}, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_posts_questions_are_fields_of_what_worked(changes, convolutions):
    rows = table.describe(WhatWorked(**changes), CIFAR, 10).rows
    assert [row.shape[0] for row in rows if row.kind == "Conv2d"] == convolutions
    assert [row.shape[1:] for row in rows if row.kind == "Conv2d"][-1] == (1, 1)


def test_batch_norm_is_an_option():
    for config in (TutorialCnn, WhatWorked):
        assert "BatchNorm2d" in kinds(config(batch_norm=True))
        assert "BatchNorm2d" not in kinds(config(batch_norm=False))


@pytest.mark.parametrize("name", TORCH_MODELS)
@pytest.mark.parametrize("shape", [(1, 33, 47), (4, 40, 32)])
def test_every_network_takes_any_input(name, shape):
    config = MODELS[name](**SLIM.get(name, {}))
    config.check(shape)
    assert logits(config, shape, classes=7).shape == (2, 7)


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_the_weights_follow_the_seed(name):
    def weights(seed):
        torch.manual_seed(seed)
        network = MODELS[name](**SLIM.get(name, {})).build(CIFAR, 10)
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# --- images that are too small ----------------------------------------------------------------------------------------


def test_the_message_about_an_image_that_is_too_small_has_the_formula_of_every_layer():
    with pytest.raises(TrainingError) as caught:
        WhatWorked().check((1, 28, 28))
    assert "an input of 28×28 pixels is too small for what_worked" in caught.value.message
    assert caught.value.message.endswith(
        "the size after each layer, (W−F+2P)/S+1: convolution 1: (28−3+2)/1+1 = 28; pooling 1: (28−2+0)/2+1 = 14; "
        "convolution 2: (14−3+2)/1+1 = 14; convolution 3: (14−3+2)/1+1 = 14; pooling 2: (14−2+0)/2+1 = 7; "
        "convolution 4: (7−3+2)/1+1 = 7; convolution 5: (7−3+0)/1+1 = 5; pooling 3: (5−2+0)/2+1 = 2.5, so 2; "
        "convolution 6: (2−3+0)/1+1 = 0"
    )


@pytest.mark.parametrize(
    ("config", "smallest"),
    [
        (WhatWorked(), 32),
        (WhatWorked(depth=4), 32),
        (SmallCnn(), 16),
        (TutorialCnn(), 8),
        (TutorialCnn(layers=2), 4),
    ],
)
def test_the_message_names_the_smallest_image_that_works(config, smallest):
    with pytest.raises(TrainingError) as caught:
        config.check((3, smallest - 1, 50))
    assert f"data.resize: {smallest} " in str(caught.value.hint)
    assert logits(config, (3, smallest, smallest), n=1).shape == (1, 10)


def test_networks_that_keep_their_size_take_a_single_pixel():
    for config in (Cnn(), NumpyMlp()):
        config.check((1, 1, 1))


@given(
    side=st.integers(1, 40),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 4),
    padding=st.integers(0, 4),
)
def test_the_output_size_is_torchs(side, kernel, stride, padding):
    places = Window("convolution", kernel, stride, padding).places(side)
    layer = nn.Conv1d(1, 1, kernel, stride, padding, device="meta")
    if side + 2 * padding < kernel:
        assert places == 0
    else:
        assert places == layer(torch.empty(1, 1, side, device="meta")).shape[-1]


def test_a_hint_is_given_even_where_no_image_works():
    with pytest.raises(TrainingError) as caught:
        shapes.slide("net", (5, 5), [Window("convolution 1", 5000)], hint="or another network")
    assert caught.value.hint == "or another network"


# --- lists and tables -------------------------------------------------------------------------------------------------


def test_the_list_has_every_model_with_parameters_and_flops():
    rows = table.listing()
    assert [name for name, _, _ in rows] == [*MODELS]
    lines = {line.split()[0]: line for line in table.listing_text(rows).splitlines()}
    assert lines["what_worked"].split()[:3] == ["what_worked", "2,211,338", "311,563,264"]
    values = {row["model"]: row for row in json.loads(json.dumps(table.listing_json(rows)))}
    assert values["small_cnn"]["parameters"] == 62_006


def test_the_page_on_networks_gives_the_same_figures():
    page = (STUDIES.parent / "docs" / "models.md").read_text(encoding="utf-8")
    on_page = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+ \| [\d,]+) \|", page, re.MULTILINE))
    summaries = {name: f"{made.parameters:,} | {made.flops:,}" for name, made, _ in table.listing() if made}
    assert on_page == {name: summaries[name] for name in on_page}
    assert len(on_page) >= 7


def test_the_list_names_the_models_for_which_an_image_is_too_small():
    found = {row["model"]: row for row in table.listing_json(table.listing((1, 8, 8)))}
    assert "too small" in found["what_worked"]["error"]
    assert found["numpy_mlp"]["parameters"] == 64 * 500 + 500 + 500 * 50 + 50 + 510
    assert "too small" in table.listing_text(table.listing((1, 8, 8)))


def test_a_table_as_json_has_the_content_of_the_text():
    made = table.describe(WhatWorked(), CIFAR, 10)
    found = table.as_json("what_worked", made, CIFAR, 10)
    assert found["parameters"] == 2_211_338
    assert found["layers"][0] == {
        "layer": "Conv2d: 1-1",
        "part": "",
        "output_shape": [64, 32, 32],
        "parameters": 1792,
    }
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", TORCH_MODELS)
def test_a_described_network_is_the_built_one(name):
    config = MODELS[name](**SLIM.get(name, {}))
    assert table.describe(config, CIFAR, 10) == table.summary(config.build(CIFAR, 10), CIFAR)


def test_the_message_about_an_unknown_model_names_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'what_worked'"):
        table.by_name("what_work")


@pytest.mark.parametrize(
    "text", ["", "32", "3x32", "3x32x32x1", "0x32x32", "-3x32x32", "3x32x99999", "axbxc"]
)
def test_text_that_is_no_shape_is_refused(text):
    with pytest.raises(StudyError, match="not the shape of an image"):
        table.parse_shape(text)


def test_a_shape_is_channels_height_width():
    assert table.parse_shape("1x28x30") == (1, 28, 30)
    assert table.parse_shape("3×32×32") == (3, 32, 32)


@pytest.mark.parametrize("kind", [MODELS[name] for name in OWN_MODELS], ids=OWN_MODELS)
def test_every_network_states_its_source_its_stages_and_describes_its_fields(kind):
    assert "Stages" in kind.__doc__
    assert kind is Cnn or "ource:" in kind.__doc__ or "https://" in kind.__doc__
    assert all(field.description for name, field in kind.model_fields.items() if name != "name")


def test_the_command_lists_models_and_prints_tables():
    runner = CliRunner()
    listed = runner.invoke(app, ["models"])
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["model", *MODELS]
    made = table.describe(WhatWorked(), CIFAR, 10)
    assert runner.invoke(app, ["models", "what_worked"]).stdout == table.text(made) + "\n"
    printed = runner.invoke(
        app, ["models", "numpy_mlp", "--input", "1x28x28", "--classes", "47", "--json"]
    ).stdout
    assert json.loads(printed)["layers"][-1]["output_shape"] == [47]
    assert [row["model"] for row in json.loads(runner.invoke(app, ["models", "--json"]).stdout)] == [*MODELS]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["nothing"], StudyError),
        (["--input", "32"], StudyError),
        (["what_worked", "--input", "1x9x9"], TrainingError),
    ],
)
def test_the_command_refuses_an_unknown_model_a_bad_shape_and_an_image_that_is_too_small(words, kind):
    assert isinstance(CliRunner().invoke(app, ["models", *words]).exception, kind)


# --- the studies of the networks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["tutorial_cnn", "what_worked", "small_cnn", "numpy_mlp", "inception", "tutorials"]
)
def test_the_images_of_every_shipped_study_are_large_enough_for_every_arm(name):
    study = spec.read(STUDIES / f"{name}.yaml")
    assert study.name == name
    for arm in design.plan(study, lambda _config: DataFacts("the same for all")).arms:
        shape = (1, 28, 28) if arm.config.data.name == "mnist" else CIFAR
        assert table.describe(arm.config.model, shape, 10).parameters > 0


def test_one_study_compares_seven_networks():
    study = spec.read(STUDIES / "tutorials.yaml")
    levels = [level["model"]["name"] for factor in study.factors for level in factor.levels]
    compared = {study.baseline.model.name, *levels}
    assert len(compared) == 7
    assert compared <= MODELS.keys()


def test_naming_a_model_does_not_import_torch():
    code = "import sys, ablate.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
