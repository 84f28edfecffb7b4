"""Networks that are not ablate's own: of the user's package, of torchvision and of timm."""

# Others draw from it.
# ruff: noqa: NPY002

from __future__ import annotations

import importlib.util
import random
import sys

import numpy as np
import own_package
import pytest
import torch
from torch import nn

from ablate.config import RunConfig
from ablate.errors import AblateError, StudyError
from ablate.models import MODELS, foreign, stem, table, trial
from ablate.models.own_model import ImportedModel, offered
from ablate.training import trainer_of

DIGITS = (1, 8, 8)
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    with own_package.installed(tmp_path, monkeypatch) as folder:
        yield folder


def own(function: str, **args) -> ImportedModel:
    return ImportedModel(target=f"my_package.nets:{function}", args=args)


def config(model: dict, **changes) -> RunConfig:
    return RunConfig.parse({"data": {"name": "digits"}, "model": model}).override(changes)


# --- arguments --------------------------------------------------------------------------------------------------------


def test_a_builder_is_called_with_its_arguments_and_with_what_its_signature_asks_for():
    assert own("build", width=6).build(DIGITS, 10)[0].weight.shape == (6, 1, 3, 3)
    assert own("Net", hidden=2).build((3, 16, 16), 7).fc.weight.shape == (7, 2 * 64)
    assert own("build", classes=3).build(DIGITS, 10)[-1].out_features == 3, "what the study gives counts"
    assert offered((3, 4, 5), 2) == {
        **dict.fromkeys(("classes", "num_classes", "n_classes"), 2),
        **dict.fromkeys(("channels", "in_channels", "in_chans"), 3),
        **dict.fromkeys(("size", "image_size", "img_size")),
        "height": 4,
        "width": 5,
        "shape": (3, 4, 5),
    }


@pytest.mark.parametrize(
    ("function", "args", "place", "words"),
    [
        ("build", {"widht": 3}, "model.args.widht", "takes no argument 'widht'\n  did you mean 'width'?"),
        ("long", {}, "model.args", "needs the argument 'x'\n  write `args: {x: VALUE}`"),
        ("buld", {}, "model.target", "my_package.nets has no 'buld'\n  did you mean 'build'?"),
        ("awaited", {}, "model.target", "is `async`, and nobody would await it"),
        ("not_callable", {}, "model.target", "is no function or class"),
        ("text", {}, "model.target", "returned str, not a torch module"),
        ("breaks", {}, "model.target", "raised RuntimeError: it was told to (nets.py:"),
        ("build", {"width": "wide"}, "model.target", "raised TypeError"),
        ("build", {"width": -1}, "model.target", "raised"),
        ("nothing", {}, "model", "no weights to train"),
        ("lazy_and_deep", {}, "model.target", "on an image of 1×8×8, raised RuntimeError"),
        ("two_rows", {}, "model", "for 2 images of 1×8×8 the network returned 2×11, not 2×10 logits"),
        ("returns_dict", {}, "model", "in evaluation, the network returned dict, not logits"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(function, args, place, words):
    with pytest.raises(AblateError) as caught:
        trial.try_out(own(function, **args), DIGITS, 10, 32)
    assert caught.value.place == place
    assert words in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("my_package.nest:build", "there is no module 'my_package.nest' to import"),
        ("your_package:build", "there is no module 'your_package' to import"),
        ("my_package.broken:build", "importing 'my_package.broken' raised SyntaxError"),
        ("my_package.lacking:build", "importing 'my_package.lacking' raised ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(package, target, words):
    (package / "my_package" / "broken.py").write_text("def build(:\n")
    (package / "my_package" / "lacking.py").write_text("import a_package_that_nobody_has\n")
    with pytest.raises(StudyError) as caught:
        ImportedModel(target=target).build(DIGITS, 10)
    assert words in str(caught.value)


def test_a_square_image_has_one_side_and_another_has_none():
    with pytest.raises(AblateError, match="asks for `size`, but the images are 8×16"):
        own("Net").build((1, 8, 16), 10)
    assert own("Net", size=8).build((1, 8, 16), 10).fc.in_features == 128


def test_each_argument_is_a_setting_of_its_own():
    study = config(
        {"name": "import", "target": "my_package.nets:build", "args": {"width": 4, "more": {"a": 1}}}
    )
    assert study.flatten()["model.args.width"] == 4
    assert study.get("model.args.more.a") == 1
    assert study.override({"model.args.width": 8}).model.args["width"] == 8
    assert study.override({"model.args.width": True}) != study.override({"model.args.width": 1})
    assert len({study, study.override({"model.args.width": 4}), study.override({"model.args.width": 5})}) == 2
    with pytest.raises(StudyError, match="the baseline gives no 'widht'") as caught:
        study.override({"model.args.widht": 8})
    assert "args: {widht: VALUE}" in caught.value.hint


@pytest.mark.parametrize("args", [{"a b": 1}, {"a": float("nan")}, {"a": {"b.c": 1}}, {1: 2}, [1], "text"])
def test_arguments_are_plain_values_with_plain_names(args):
    with pytest.raises(StudyError):
        config({"name": "import", "target": "my_package.nets:build", "args": args})


@pytest.mark.parametrize(
    "target", ["build", "my_package.nets", "my package:build", "a:b:c", "os.path:join()"]
)
def test_a_target_names_a_function_in_a_module(target):
    with pytest.raises(StudyError, match=r"package\.module:function"):
        config({"name": "import", "target": target})


# --- the key, and consent ---------------------------------------------------------------------------------------------


def test_the_code_of_the_users_package_is_in_the_key(package):
    study = config({"name": "import", "target": "my_package.nets:build"})
    before = study.code()
    module = package / "my_package" / "nets.py"
    module.write_text(module.read_text() + "\n# a comment\n")
    assert study.code() == before
    module.write_text(module.read_text() + "\nEPSILON = 1\n")
    assert study.code() != before
    assert study.override({"model.target": "my_package.nets:lazy"}).code() != study.code()
    assert "my_package" not in sys.modules, "naming a run executes nothing"


def test_the_version_of_the_package_is_in_the_key(monkeypatch):
    study = config({"name": "torchvision", "arch": "resnet18"})
    before = study.code()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    assert study.code() != before


def test_only_what_a_study_imports_needs_consent():
    own_network = config({"name": "import", "target": "my_package.nets:build"})
    [wanted] = trainer_of(own_network).permissions(own_network)
    assert (wanted.key, wanted.value, wanted.option) == (
        "model.target",
        "my_package",
        "--allow-import my_package",
    )
    for model in ({"name": "torchvision", "arch": "resnet18"}, {"name": "cnn"}):
        assert trainer_of(config(model)).permissions(config(model)) == ()


STUDY = """
study: own
margin: 0.05
baseline:
  data: {name: digits, subset: 100}
  model: MODEL
  training: {epochs: 1, batch_size: 32}
factors: FACTORS
seeds: 1
"""


@pytest.mark.parametrize(
    ("model", "factors"),
    [
        ("{name: import, target: 'my_package.nets:build'}", "{optimizer.lr: [0.1]}"),
        ("{name: cnn}", "{model: [{name: import, target: 'my_package.nets:build'}]}"),
        ("{name: cnn}", "{both: {zip: {model.name: [import], model.target: ['my_package.nets:build']}}}"),
    ],
    ids=["baseline", "level", "zipped"],
)
@pytest.mark.parametrize("command", ["run", "plan", "lr"])
def test_nothing_is_imported_without_consent_wherever_it_stands(workplace, package, command, model, factors):
    (package / "my_package" / "__init__.py").write_text("open('imported', 'w')\n")
    (package / "own.yaml").write_text(STUDY.replace("MODEL", model).replace("FACTORS", factors))
    said = workplace.ablate(command, "own.yaml", code=2)
    assert "model.target: the study would import 'my_package', which you have not allowed" in said
    assert "--allow-import my_package" in said
    assert not (package / "imported").exists()


def test_a_search_over_networks_asks_for_all_of_them(workplace, package):
    text = STUDY.replace("MODEL", "{name: cnn}").replace(
        "FACTORS", "{model: [{name: cnn}, {name: import, target: 'my_package.nets:build'}]}\ndesign: search"
    )
    (package / "own.yaml").write_text(text.replace("seeds: 1\n", ""))
    assert "would import 'my_package'" in workplace.ablate("run", "own.yaml", code=2)


def test_what_the_command_line_names_needs_no_consent(workplace):
    said = workplace.ablate("models", "my_package.nets:build", "--input", "1x8x8", "--set", "args.width=6")
    made = table.describe(own("build", width=6), DIGITS, 10)
    assert said == table.text(made) + "\n"
    assert "takes no argument 'widht'" in workplace.ablate(
        "models", "my_package.nets:build", "--set", "args.widht=6", code=2
    )


# --- what a network needs, said before anything runs ------------------------------------------------------------------


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_sees_one_pixel():
    trial.try_out(own("tiny"), DIGITS, 10, 2)
    with pytest.raises(AblateError, match="the last batch of an epoch has one image") as caught:
        trial.try_out(own("tiny"), DIGITS, 10, 1)
    assert "training.batch_size" in caught.value.hint
    trial.try_out(own("build"), DIGITS, 10, 1)


def test_a_network_of_ablates_own_is_tried_where_the_last_batch_has_one_image():
    tiny = MODELS["cnn"](depth=1, width=2)
    trial.try_out(tiny, (1, 1, 1), 10, 2)
    with pytest.raises(AblateError, match="one image"):
        trial.try_out(tiny, (1, 1, 1), 10, 1)


def test_the_plan_of_a_study_tries_the_size_of_its_last_batch(shared_cache, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(shared_cache))
    prepare = trainer_of(config({"name": "cnn"})).preparer()
    model = {"name": "import", "target": "my_package.nets:tiny"}
    prepare(config(model, **{"data.subset": 100, "training.batch_size": 30}))
    with pytest.raises(AblateError, match="one image"):
        prepare(config(model, **{"data.subset": 101, "training.batch_size": 30}))


def test_an_image_that_is_too_small_is_said():
    with pytest.raises(AblateError, match="1×8×8") as caught:
        trial.try_out(own("deep"), DIGITS, 10, 32)
    assert "data.resize" in caught.value.hint


# --- randomness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["build", "Net", "lazy", "drawn"])
def test_initial_weights_depend_on_the_seed_alone(function):
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(random.randrange(1000))
        with foreign.seeded(seed):
            return nn.utils.parameters_to_vector(own(function).build(DIGITS, 10).parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_seeding_leaves_every_global_stream_as_it_was():
    streams = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()]
    with foreign.seeded(5):
        torch.rand(3), random.random(), np.random.rand(3)
    draws = foreign.GlobalDraws(7, torch.device("cpu"))
    with draws():
        torch.rand(3), random.random(), np.random.rand(3)
    assert torch.equal(streams[0], torch.get_rng_state())
    assert streams[1] == random.getstate()
    assert (streams[2] == np.random.get_state()[1]).all()


def test_a_runs_draws_go_on_where_they_stopped_whatever_others_draw():
    def drawn(draws: foreign.GlobalDraws, between) -> list[float]:
        values = []
        for _ in range(3):
            with draws():
                values += [float(torch.rand(())), random.random(), np.random.rand()]
            between()
        return values

    device = torch.device("cpu")
    quiet = drawn(foreign.GlobalDraws(7, device), lambda: None)
    assert (
        drawn(foreign.GlobalDraws(7, device), lambda: (torch.rand(100), random.random(), np.random.rand()))
        == quiet
    )
    assert drawn(foreign.GlobalDraws(8, device), lambda: None) != quiet
    assert len(set(quiet)) == 9


def test_torchs_dropout_becomes_ablates():
    network = own("build", dropout=0.4).build(DIGITS, 10)
    [dropout] = [layer for layer in network if type(layer).__name__ == "Dropout"]
    assert type(dropout).__module__ == "ablate.models.layers"
    assert dropout.p == 0.4
    assert type(foreign.with_own_dropout(nn.Dropout(0.1))).__module__ == "ablate.models.layers"


# --- torchvision and timm ---------------------------------------------------------------------------------------------


def meta(name: str, shape: tuple[int, int, int], classes: int = 10, **fields) -> nn.Module:
    with torch.device("meta"):
        network = MODELS[name](**fields).build(shape, classes).eval()
        assert network(torch.zeros(2, *shape)).shape == (2, classes)
        return network


@pytest.mark.parametrize(
    ("arch", "shape", "small"),
    [
        ("resnet18", (3, 32, 32), True),
        ("resnet50", (1, 28, 28), True),
        ("wide_resnet50_2", (3, 32, 32), False),
        ("densenet121", (1, 32, 32), True),
        ("mobilenet_v3_small", (1, 28, 28), True),
        ("mobilenet_v2", (3, 32, 32), False),
        ("efficientnet_b0", (3, 32, 32), True),
        ("googlenet", (1, 32, 32), True),
        ("squeezenet1_1", (3, 32, 32), True),
        ("shufflenet_v2_x0_5", (3, 32, 32), True),
        ("convnext_tiny", (1, 32, 32), False),
        ("swin_t", (3, 32, 32), False),
        ("vit_b_16", (1, 32, 32), False),
        ("vgg11", (1, 32, 32), False),
        ("alexnet", (1, 64, 64), False),
        ("inception_v3", (3, 80, 80), False),
    ],
)
def test_networks_of_torchvision_take_the_images_and_classes_of_the_data(arch, shape, small):
    network = meta("torchvision", shape, 7, arch=arch, small_input=small)
    assert not network.training


def test_a_small_residual_network_is_the_usual_one_for_cifar():
    """11,173,962 weights and 0.56 billion multiply-adds, as in github.com/kuangliu/pytorch-cifar."""
    network = meta("torchvision", (3, 32, 32), arch="resnet18", small_input=True)
    assert table.parameters(network) == 11_173_962
    assert table.flops(network, (3, 32, 32)) == 1_110_845_440
    assert network.conv1.stride == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)


def test_the_first_convolution_is_drawn_as_the_others_are():
    with foreign.seeded(3):
        network = MODELS["torchvision"](arch="resnet18").build((1, 32, 32), 10)
    weight = network.conv1.weight
    assert weight.shape == (64, 1, 7, 7)
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_patches_have_no_first_layers_to_change():
    with pytest.raises(AblateError, match="cuts its images into patches of 4×4 pixels"):
        meta("torchvision", (3, 32, 32), arch="convnext_tiny", small_input=True)
    with pytest.raises(AblateError, match="no convolution"):
        stem.for_channels(nn.Sequential(nn.Linear(1, 1)), 3)


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"arch": "resnt18"}, "model.arch", "did you mean 'resnet18'"),
        ({"arch": "fasterrcnn_resnet50_fpn"}, "model.arch", "torchvision has no network"),
        ({"arch": "resnet18", "args": {"weights": "DEFAULT"}}, "model.args.weights", "is not yours to set"),
        ({"arch": "resnet18", "args": {"heads": 3}}, "model.args", "raised TypeError"),
    ],
)
def test_a_mistake_about_torchvision_is_one_line(fields, place, words):
    with pytest.raises(AblateError) as caught:
        MODELS["torchvision"](**fields).build((3, 32, 32), 10)
    assert caught.value.place == place
    assert words in str(caught.value)


def test_an_architecture_is_a_plain_name():
    for name in ("hf-hub:someone/weights", "resnet18.a1_in1k", "../x"):
        with pytest.raises(StudyError):
            config({"name": "timm", "arch": name})


@needs_timm
@pytest.mark.parametrize(
    ("arch", "shape", "small"),
    [
        ("resnet18", (1, 28, 28), True),
        ("vit_tiny_patch16_224", (3, 32, 32), False),
        ("convnext_atto", (1, 32, 32), False),
    ],
)
def test_networks_of_timm_take_the_images_and_classes_of_the_data(arch, shape, small):
    meta("timm", shape, 7, arch=arch, small_input=small)


@needs_timm
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"arch": "resnet19"}, "did you mean 'resnet10t'|did you mean 'resnet18'|did you mean 'resnet1"),
        ({"arch": "qqqqqqqq"}, "timm.list_models"),
        ({"arch": "resnet18", "args": {"pretrained": True}}, "is not yours to set"),
        ({"arch": "resnet18", "args": {"nonsense": 3}}, "raised TypeError"),
    ],
)
def test_a_mistake_about_timm_is_one_line(fields, words):
    with pytest.raises(StudyError) as caught:
        MODELS["timm"](**fields).build((3, 32, 32), 10)
    assert any(word in str(caught.value) for word in words.split("|"))


def test_without_timm_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    model = config({"name": "timm", "arch": "resnet18"})
    for use in (model.code, lambda: model.model.build((3, 32, 32), 10)):
        with pytest.raises(StudyError, match="need the package timm") as caught:
            use()
        assert caught.value.hint == "pip install timm"
