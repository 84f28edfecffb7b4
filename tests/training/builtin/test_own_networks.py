"""Networks that are not ablate's own, in the training: alone, in turn and stacked."""

from __future__ import annotations

import json

import numpy as np
import own_package
import pytest
import torch

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.models import saved
from ablate.models.own_model import ImportedModel
from ablate.training import runs
from ablate.training.builtin import choose
from ablate.training.builtin.stack import Network, NotStackableError
from ablate.training.payload import Folders, RunPayload


@pytest.fixture(autouse=True)
def _package(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    with own_package.installed(tmp_path, monkeypatch):
        yield


def base(function: str, **args) -> RunConfig:
    return RunConfig.parse(
        {
            "data": {"name": "digits", "subset": 100, "validation": 0.2},
            "model": {"name": "import", "target": f"my_package.nets:{function}", "args": args},
            "augment": {"flip": True},
            "training": {"epochs": 2, "batch_size": 32},
        }
    )


def trained(configs: dict[str, RunConfig], folders: Folders | None = None, **payload) -> dict[str, Finished]:
    """Train runs in one bundle; their last events."""
    tasks = tuple(
        Task(name, 1, RunPayload(config.tree(), config.seed, fuse=len(configs) > 1, **payload))
        for name, config in configs.items()
    )
    events = runs.train(Bundle(tasks), *([folders] if folders else []))
    return {event.run: event for event in events if isinstance(event, Finished)}


def weights(finished: dict[str, Finished]) -> dict[str, str]:
    return {name: event.facts["weights"] for name, event in finished.items()}


@pytest.mark.parametrize("function", ["build", "Net", "lazy", "drawn", "with_heads"])
def test_a_run_is_its_seeds_bit_for_bit_alone_and_beside_others(function, monkeypatch):
    monkeypatch.setattr(choose, "pays", lambda *_: False)
    config = base(function)
    arms = {
        "a": config,
        "b": config.override({"optimizer.lr": 0.01}),
        "c": config.override({"training.label_smoothing": 0.1}),
    }
    together = trained(arms)
    assert len(together) == 3
    assert all(event.outcome == "finished" for event in together.values())
    torch.manual_seed(99)
    alone = {name: trained({name: arm})[name] for name, arm in arms.items()}
    assert weights(alone) == weights(together)
    assert weights(trained({"a": config.with_seed(5)})) != weights({"a": alone["a"]})


@pytest.mark.parametrize(
    ("function", "is_refused"),
    [
        ("kept", True),
        ("on_backbone", True),
        ("keeps_statistics", True),
        ("copied", False),
        ("on_frozen_backbone", False),
    ],
)
def test_runs_of_one_process_that_would_train_the_same_weights_are_refused(function, is_refused, monkeypatch):
    monkeypatch.setattr(choose, "pays", lambda *_: False)
    arms = {"a": base(function), "b": base(function).override({"optimizer.lr": 0.01})}
    outcomes = outcomes_of(arms)
    if not is_refused:
        assert outcomes == {"a": "finished", "b": "finished"}
        return
    assert set(outcomes) == {"a", "b"}
    # Nor one after the other: what the first has trained is still there.
    outcomes |= {"alone": outcomes_of({"a": arms["a"]})["a"]}
    for outcome in outcomes.values():
        assert "would train the same weights" in outcome


def outcomes_of(configs: dict[str, RunConfig]) -> dict[str, str]:
    """Train runs in one bundle; `finished`, or why not."""
    tasks = [Task(name, 1, RunPayload(config.tree(), 0, fuse=True)) for name, config in configs.items()]
    ends = [event for event in runs.train(Bundle(tuple(tasks))) if isinstance(event, Finished | Failed)]
    return {end.run: end.reason if isinstance(end, Failed) else end.outcome for end in ends}


def test_layers_that_torch_has_are_stacked_and_agree_with_separate_training(monkeypatch):
    monkeypatch.setattr(choose, "measure", lambda *_: {"stacked": 0.0, "in turn": 1.0})
    monkeypatch.setattr(choose.cache_folder, "keep", lambda *_: None)
    config = base("build", width=4, dropout=0.2)
    arms = {
        "a": config,
        "b": config.override({"optimizer.lr": 0.01}),
        "c": config.override({"model.args.dropout": 0.0}),
    }
    tasks = tuple(Task(name, 1, RunPayload(arm.tree(), 0, fuse=True)) for name, arm in arms.items())
    curves: dict[str, list[float]] = {name: [] for name in arms}
    for event in runs.train(Bundle(tasks)):
        if isinstance(event, EpochEnd):
            curves[event.run].append(event.metrics["train/loss"])
        elif not isinstance(event, Finished):
            assert event.facts["fused"] == "stacked 3"
    for name, arm in arms.items():
        alone = [
            event.metrics["train/loss"]
            for event in runs.events_of(Task(name, 1, RunPayload(arm.tree(), 0)))
            if isinstance(event, EpochEnd)
        ]
        assert curves[name] == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("Net", "Net"),
        ("shared", "share"),
        ("frozen", "not trained"),
        ("hooked", "hooks"),
        ("normed", "ParametrizedConv2d"),
        ("input_first", "changes its input"),
    ],
)
def test_what_is_no_plain_sequence_of_layers_is_not_stacked(function, why):
    networks = [ImportedModel(target=f"my_package.nets:{function}").build((1, 8, 8), 10) for _ in range(2)]
    with pytest.raises(NotStackableError, match=why):
        Network(networks)


def test_a_network_that_is_broken_off_resumes_to_the_bit(tmp_path):
    """What it draws from torch's global generators included."""
    config = base("Net").override({"training.epochs": 3})
    whole = trained({"a": config})
    folders = Folders.under(tmp_path / "store")
    task = Task("a", 1, RunPayload(config.tree(), 0, checkpoint_every=0.0))
    events = runs.train(Bundle((task,)), folders)
    for event in events:
        if isinstance(event, EpochEnd) and event.epoch == 2:
            break
    events.close()
    torch.rand(7)
    resumed = trained({"a": config}, folders, checkpoint_every=0.0)
    assert weights(resumed) == weights(whole)


def test_the_network_of_the_best_epoch_is_saved_and_is_the_one_that_was_trained(tmp_path):
    config = base("build").override({"training.save_model": "best"})
    finished = trained({"a": config}, Folders.under(tmp_path / "store"), metric="val/loss")["a"]
    network, about = saved.read(finished.model, config.model)
    data = datasets.prepare(config.data)
    with torch.no_grad():
        logits = network(torch.from_numpy(np.array(data.test_images)))
    accuracy = float((logits.argmax(1).numpy() == data.test_labels).mean())
    assert about["epoch"] == 2, "the loss falls"
    assert accuracy == pytest.approx(finished.metrics["test/accuracy"], abs=1e-12)


def test_the_layer_table_of_a_run_is_kept():
    finished = trained({"a": base("build")})["a"]
    assert [row["kind"] for row in json.loads(finished.files["layers.json"])][:2] == ["Conv2d", "BatchNorm2d"]
    assert finished.metrics["model/parameters"] > 0


def test_torchvision_trains():
    config = base("build").override(
        {
            "data.subset": 60,
            "training.epochs": 1,
            "model": {"name": "torchvision", "arch": "squeezenet1_1", "small_input": True},
            "data.resize": 16,
        }
    )
    finished = trained({"a": config})["a"]
    assert finished.outcome == "finished"
