"""Runs trained as one: against the same runs trained each by itself."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ablate.config import RunConfig, TrainingConfig
from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
from ablate.executors import stream
from ablate.models import layers
from ablate.training import runs
from ablate.training.builtin import choose, loop, losses
from ablate.training.builtin.learner import TorchLearner
from ablate.training.builtin.optimizers import optimizer
from ablate.training.builtin.randomness import generator
from ablate.training.builtin.stack import Stacked
from ablate.training.payload import RunPayload

BASE = RunConfig.parse(
    {
        "data": {"name": "digits", "subset": 100, "validation": 0.2},
        "model": {"name": "cnn", "depth": 2, "width": 4},
        "augment": {"flip": True, "crop": 1},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "cosine"},
        "training": {"epochs": 3, "batch_size": 32},
    }
)
cuda = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=cuda)])


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """A second one would wait for its turn on a busy machine. And what is called float32 is float32 on a GPU too."""
    torch.set_num_threads(1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def stacked(monkeypatch):
    """Whatever can be stacked is, whether it pays or not."""
    monkeypatch.setattr(choose, "measure", lambda *_: {"stacked": 0.0, "in turn": 1.0})
    monkeypatch.setattr(choose.cache_folder, "keep", lambda *_: None)


@pytest.fixture
def in_turn(monkeypatch):
    monkeypatch.setattr(choose, "pays", lambda *_: False)


def tasks(
    changes: dict[str, dict], seed: int = 0, device: str = "cpu", base: RunConfig = BASE
) -> tuple[Task, ...]:
    return tuple(
        Task(name, 1, RunPayload(base.override(change).tree(), seed, device=device, fuse=True))
        for name, change in changes.items()
    )


def together(given: tuple[Task, ...], cancelled=frozenset) -> dict[str, list]:
    """Events of each run of a bundle; that they keep the contract is checked on the way."""
    found: dict[str, list] = {task.run: [] for task in given}
    for event in stream.events(runs.train, Bundle(given), cancelled):
        found[event.run].append(event)
    return found


def alone(given: tuple[Task, ...]) -> dict[str, list]:
    return {task.run: list(runs.events_of(task)) for task in given}


def curves(events: list) -> list[dict[str, float]]:
    return [dict(event.metrics) for event in events if isinstance(event, EpochEnd)]


def identity(last: Finished) -> tuple:
    metrics = {name: value for name, value in last.metrics.items() if not name.startswith("time/")}
    return last.facts, metrics, last.epoch, last.files


# --- one step -------------------------------------------------------------------------------------------------------

RULES = {
    "sgd": [
        {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}},
        {"optimizer": {"name": "sgd", "lr": 0.2, "momentum": 0.0}},
        {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "training.max_grad_norm": 0.1},
    ],
    "nesterov": [
        {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": m, "nesterov": True}} for m in (0.5, 0.9, 0.7)
    ],
    "adam": [
        {"optimizer": {"name": "adam", "lr": 0.01, "beta1": 0.8, "weight_decay": 0.1}},
        {"optimizer": {"name": "adam", "lr": 0.001, "beta2": 0.99}, "training.label_smoothing": 0.1},
        {"optimizer": {"name": "adam", "lr": 0.003}, "training.loss": "focal"},
    ],
    "adamw": [
        {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": w}, "training.label_smoothing": w / 2}
        for w in (0.0, 0.1, 0.5)
    ],
}
NETWORKS = {
    "cnn": {"name": "cnn", "depth": 3, "width": 8},
    "cnn, gelu, no batch norm": {
        "name": "cnn",
        "depth": 2,
        "width": 6,
        "activation": "gelu",
        "batch_norm": False,
    },
    "small_cnn": {"name": "small_cnn"},
    "tutorial_cnn": {"name": "tutorial_cnn", "width": 4, "hidden": 20},
    "what_worked": {"name": "what_worked", "width": 0.05},
}
SHAPE = (3, 32, 32)


def case(network: str, rule: str, dtype: torch.dtype, device: str = "cpu", *, own: bool = False):
    """Three members as a stack and each by itself, from weights of their own; and the batch of each, one or their own."""
    recipes = [
        BASE.override({"model": NETWORKS[network]} | change).override({"model.dropout": p}).with_seed(seed)
        for change, p, seed in zip(RULES[rule], (0.0, 0.2, 0.5), (3, 4, 4) if own else (3, 3, 3), strict=True)
    ]
    learners = [
        TorchLearner(recipe.with_seed(seed), SHAPE, 10, torch.device(device))
        for seed, recipe in enumerate(recipes)
    ]
    for learner in learners:
        learner.model.to(dtype)
    singles = copy.deepcopy([learner.model for learner in learners])
    for model in singles:
        layers.use_generator(model, generator(3, "dropout", device))
    for learner in learners:
        layers.use_generator(learner.model, generator(3, "dropout", device))
    stack = Stacked(recipes, learners, torch.device(device))
    draw = torch.Generator().manual_seed(0)
    batches = [
        (
            torch.randn(16, *SHAPE, generator=draw, dtype=dtype).to(
                device, memory_format=torch.channels_last
            ),
            torch.randint(10, (16,), generator=draw).to(device),
        )
        for _ in recipes
    ]
    return recipes, singles, stack, batches if own else batches[:1] * len(recipes)


def separate_step(recipe, model: nn.Module, optimizer, images, labels):
    """Written without anything of stacked training. Returns the cross-entropy before it."""
    model.train()
    optimizer.zero_grad()
    logits = model(images)
    loss = losses.minimised(logits, labels, recipe.training)
    loss.backward()
    if recipe.training.max_grad_norm:
        nn.utils.clip_grad_norm_(model.parameters(), recipe.training.max_grad_norm)
    optimizer.step()
    return nn.functional.cross_entropy(logits.detach(), labels)


PAIRS = [(network, "sgd", False) for network in NETWORKS]
PAIRS += [("small_cnn", rule, False) for rule in RULES if rule != "sgd"]
PAIRS += [("cnn", "sgd", True), ("small_cnn", "adam", True)]


@devices
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)], ids=str)
@pytest.mark.parametrize(("network", "rule", "own"), PAIRS)
def test_steps_from_the_same_state_agree_with_separate_training(network, rule, own, dtype, within, device):
    recipes, singles, stack, batches = case(network, rule, dtype, device, own=own)
    assert stack.own_batches == own
    if device != "cpu" and dtype == torch.float32:
        within *= 10  # cuDNN has other algorithms for other shapes
    images, labels = batches[0]
    fed, named = images, labels
    if own:
        fed, named = (
            torch.cat([each for each, _ in batches], dim=1),
            torch.stack([each for _, each in batches]),
        )
    optimizers = [optimizer(r.optimizer, m) for r, m in zip(recipes, singles, strict=True)]
    lr = torch.tensor([r.optimizer.lr for r in recipes], dtype=torch.float64, device=device)
    # Two steps: only the second shows what momentum and the averages of Adam remember.
    for _ in range(2):
        for i, model in enumerate(singles):
            model.load_state_dict(stack.stack.state(i))
            with torch.no_grad():
                theirs = model.eval()(images)
                assert float((stack.logits(images)[i] - theirs).abs().max()) <= within * float(
                    theirs.abs().max()
                )
        expected = [
            separate_step(*one, *batch)
            for *one, batch in zip(recipes, singles, optimizers, batches, strict=True)
        ]
        found, _ = stack.advance(fed, named, lr)
        assert found.tolist() == pytest.approx([float(loss) for loss in expected], rel=within)
    for i, (model, recipe) in enumerate(zip(singles, recipes, strict=True)):
        mine = stack.stack.state(i)
        for name, p in model.named_parameters():
            # A gradient that is nothing but rounding is another one in each of the two.
            if float(p.grad.abs().max()) > 1e-4:
                # Adam divides by the size of a gradient, however small: rounding shows in units of a step.
                apart = float((mine[name] - p.detach()).abs().max())
                assert apart <= 100 * within * max(float(p.detach().abs().max()), recipe.optimizer.lr), name


SETTINGS = [
    (name, example) for name, field in TrainingConfig.model_fields.items() for example in field.examples or ()
]


@pytest.mark.parametrize(("name", "example"), SETTINGS)
def test_every_setting_of_training_does_to_a_stack_what_it_does_to_a_run_by_itself(name, example):
    """So that a setting that acts on a run by itself is not forgotten where runs are stacked."""
    with_it = BASE.override({"training.loss": "focal", f"training.{name}": example})
    # Members of a stack differ in anything but their arithmetic, of which bfloat16 keeps three digits.
    without, within = (with_it, 0.03) if name == "precision" else (BASE, 1e-4)
    recipes = [with_it, without.override({"optimizer.lr": 0.02})]
    singles, members = (
        [TorchLearner(config, SHAPE, 10, torch.device("cpu")) for config in recipes] for _ in range(2)
    )
    stack = Stacked(recipes, members, torch.device("cpu"))
    draw = torch.Generator().manual_seed(0)
    rates = [config.optimizer.lr for config in recipes]
    stack.set_rates([rates, rates])
    for _ in range(2):
        images, labels = torch.randn(16, *SHAPE, generator=draw), torch.randint(10, (16,), generator=draw)
        losses_of_each, _ = stack.step(images, labels)
        expected = [learner.step(images, labels, lr)[0] for learner, lr in zip(singles, rates, strict=True)]
        assert losses_of_each.tolist() == pytest.approx([float(loss) for loss in expected], rel=within)


# --- whole runs -----------------------------------------------------------------------------------------------------

ARMS = {
    "baseline": {},
    "lr": {"optimizer.lr": 0.02},
    "dropout": {"model.dropout": 0.4},
    "schedule": {"schedule": {"name": "onecycle"}, "training.label_smoothing": 0.1},
}
SHAPES = {
    "wide": {"model.width": 6},
    "inception": {"model": {"name": "inception_v1", "width": 0.1, "auxiliary": False}},
    "lr": ARMS["lr"],
}


def test_members_in_turn_are_the_single_runs_bit_for_bit(in_turn):
    changes = {
        "augment": {"flip": True, "crop": 1, "cutout": 2, "brightness": 0.2, "mixup": 0.3},
        "training.checkpoint": "best",
    }
    given = tasks(ARMS, seed=5, base=BASE.override(changes))
    found = together(given)
    for run, events in alone(given).items():
        assert curves(found[run]) == curves(events)
        assert found[run][0].facts.pop("fused") == "in turn 4"
        assert identity(found[run][-1]) == identity(events[-1])


def test_a_bundle_that_does_not_ask_for_it_is_trained_run_by_run(stacked):
    given = tuple(Task(t.run, 1, replace(t.payload, fuse=False)) for t in tasks(ARMS))
    found = together(given)
    assert "fused" not in found["lr"][0].facts
    assert {run: identity(events[-1]) for run, events in found.items()} == {
        run: identity(events[-1]) for run, events in alone(given).items()
    }


@devices
def test_stacked_runs_say_so_and_follow_their_single_runs(stacked, device):
    given = tasks(ARMS, seed=1, device=device)
    found, single = together(given), alone(given)
    for run, events in found.items():
        assert [type(e) for e in events] == [type(e) for e in single[run]]
        assert events[0].facts == single[run][0].facts | {"fused": "stacked 4"}
        for mine, theirs in zip(curves(events), curves(single[run]), strict=True):
            assert mine["lr"] == theirs["lr"]
            assert mine["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-3)
            assert mine["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-2)
        assert set(events[-1].files) == set(single[run][-1].files)
        assert events[-1].metrics["test/accuracy"] == pytest.approx(
            single[run][-1].metrics["test/accuracy"], abs=0.02
        )
    # Four arms, four networks.
    assert len({events[-1].facts["weights"] for events in found.values()}) == 4


@pytest.fixture
def own_batches(monkeypatch):
    """As on a GPU."""
    monkeypatch.setattr(choose, "OWN_BATCHES", {"cpu"})


def of_two_seeds(**more) -> tuple[Task, ...]:
    first, second = tasks(ARMS, seed=1, **more), tasks(ARMS, seed=2, **more)
    return tuple(Task(f"{t.run} {t.payload.seed}", 1, t.payload) for t in (*first, *second))


def test_runs_of_several_seeds_in_one_stack_follow_their_single_runs(stacked, own_batches):
    base = BASE.override({"augment": {"flip": True, "crop": 1, "mixup": 0.3}, "training.batch_size": 20})
    given = of_two_seeds(base=base)
    found, single = together(given), alone(given)
    for run, events in found.items():
        assert events[0].facts == single[run][0].facts | {"fused": "stacked 8"}
        for mine, theirs in zip(curves(events), curves(single[run]), strict=True):
            assert mine["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-3)
            assert mine["train/accuracy"] == pytest.approx(theirs["train/accuracy"], abs=0.02)
            assert mine["val/loss"] == pytest.approx(theirs["val/loss"], rel=1e-2)
    losses_of = {run: curves(events)[0]["train/loss"] for run, events in found.items()}
    assert abs(losses_of["lr 1"] - losses_of["lr 2"]) > 0.01, "they are trained on batches of their own"


def test_runs_of_several_seeds_in_turn_are_the_single_runs_bit_for_bit(in_turn, own_batches):
    given = of_two_seeds()
    found, single = together(given), alone(given)
    assert {events[0].facts["fused"] for events in found.values()} == {"in turn 8"}
    assert [identity(found[run][-1]) for run in found] == [identity(single[run][-1]) for run in found]


def test_seeds_are_stacked_each_by_itself_where_all_together_do_not_pay(monkeypatch, own_batches):
    monkeypatch.setattr(choose, "pays", lambda recipes, *_: len({recipe.seed for recipe in recipes}) == 1)
    assert {events[0].facts["fused"] for events in together(of_two_seeds()).values()} == {"stacked 4 of 8"}


def test_on_a_cpu_seeds_are_apart(stacked):
    assert {events[0].facts["fused"] for events in together(of_two_seeds()).values()} == {"stacked 4"}


def test_what_cannot_be_stacked_is_stepped_in_turn_beside_what_can(stacked):
    given = tasks(ARMS | SHAPES)
    found, single = together(given), alone(given)
    said = {run: events[0].facts["fused"] for run, events in found.items()}
    assert said == dict.fromkeys(ARMS, "stacked 4 of 6") | dict.fromkeys(
        ("wide", "inception"), "in turn 2 of 6"
    )
    for run in ("wide", "inception"):
        assert identity(found[run][-1]) == identity(single[run][-1])


def test_large_networks_that_are_not_stacked_train_by_themselves_in_the_same_bundle(in_turn, monkeypatch):
    monkeypatch.setattr(choose, "LARGE", 20_000)
    given = tasks({"small": {}, "lr": ARMS["lr"], "large": {"model.width": 16}})
    found, single = together(given), alone(given)
    assert [events[0].facts.get("fused") for events in found.values()] == ["in turn 2", "in turn 2", None]
    assert identity(found["large"][-1]) == identity(single["large"][-1])


def test_numpys_network_shares_batches_too():
    base = BASE.override({"model": {"name": "numpy_mlp"}})
    given = tasks({"one": {}, "lr": {"optimizer.lr": 0.02}}, base=base)
    found, single = together(given), alone(given)
    assert {events[0].facts["fused"] for events in found.values()} == {"in turn 2"}
    assert [identity(found[run][-1]) for run in found] == [identity(single[run][-1]) for run in found]


def test_a_stacked_member_is_the_same_run_twice(stacked):
    given = tasks(ARMS, seed=2)
    first, second = together(given), together(given)
    assert [identity(first[run][-1]) for run in first] == [identity(second[run][-1]) for run in first]


def test_members_that_stop_diverge_or_are_cancelled_leave_the_others_as_they_were(stacked):
    # The same seven beside each other, once with three that leave after their first epochs and once with three that stay.
    leaving = {
        "diverges": {"optimizer.lr": 1e38},
        "stops": {"optimizer.lr": 1e-9, "training.patience": 1, "training.min_delta": 10.0},
        "cancelled": {"optimizer.lr": 0.03},
    }
    staying = {name: {"optimizer.lr": 0.03 + i / 100} for i, name in enumerate(leaving)}
    base = BASE.override({"training.epochs": 4, "model.dropout": 0.1})
    asked: list[int] = []

    def cancelled():
        asked.append(0)
        return frozenset({"cancelled"} if len(asked) > 12 else set())

    broken = together(tasks(ARMS | leaving, base=base), cancelled)
    whole = together(tasks(ARMS | staying, base=base))
    for run in ARMS:
        for mine, theirs in zip(curves(broken[run]), curves(whole[run]), strict=True):
            assert mine["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-4)
        assert isinstance(broken[run][-1], Finished)
    diverged, stopped, gone = (broken[name][-1] for name in leaving)
    assert (diverged.outcome, diverged.facts["reason"]) == ("diverged", "loss not finite in epoch 1")
    assert stopped.facts["stopped"].startswith("early, after epoch 2")
    assert stopped.epoch == len(curves(broken["stops"])) == 2
    assert isinstance(gone, Failed)
    assert gone.kind == "cancelled"


def test_a_member_that_cannot_be_made_fails_alone(stacked):
    given = tasks(
        {**ARMS, "too small": {"model": {"name": "tutorial_cnn", "layers": 3}, "data.resize": None}}
    )
    bad = Task(
        "wrong",
        1,
        replace(given[0].payload, config={**given[0].payload.config, "training": {"epochs": 0}}),
    )
    found = together((*given, bad))
    assert isinstance(found["wrong"][-1], Failed)
    assert len(found["wrong"]) == 1
    assert all(isinstance(found[run][-1], Finished) for run in ARMS)


def test_a_stack_that_raises_fails_its_members_and_no_others(stacked, monkeypatch):
    def raising(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Stacked, "advance", raising)
    found = together(tasks(ARMS | {"wide": SHAPES["wide"]}))
    reasons = {found[run][-1].reason for run in ARMS}
    assert all(reason.startswith("RuntimeError: out of memory") for reason in reasons)
    assert isinstance(found["wide"][-1], Finished)


@pytest.mark.parametrize("more", [{}, {"wide": SHAPES["wide"]}], ids=["one stack", "and a run in turn"])
def test_a_stack_without_memory_says_beside_how_many_it_ran(stacked, monkeypatch, more):
    def raising(*_):
        raise MemoryError

    monkeypatch.setattr(Stacked, "advance", raising)
    found = together(tasks(ARMS | more))
    for run in ARMS:
        last = found[run][-1]
        assert (last.kind, last.reason) == ("memory", f"out of memory beside {3 + len(more)} other runs")
    assert all(isinstance(found[run][-1], Finished) for run in more)


def test_what_all_members_need_fails_all_of_them_and_no_other_bundle(in_turn, tmp_path):
    nowhere = {"data": {"name": "image_folder", "root": str(tmp_path / "nowhere")}}
    lost = tasks({"one": {}, "two": {"optimizer.lr": 0.02}}, base=BASE.override(nowhere))
    found = together((*lost, *tasks(ARMS)))
    assert all("nowhere" in found[run][-1].reason for run in ("one", "two"))
    assert all(isinstance(found[run][-1], Finished) for run in ARMS)


@pytest.mark.parametrize("how", ["stacked", "in turn"])
def test_a_cancelled_member_takes_no_further_epoch(monkeypatch, how):
    monkeypatch.setattr(choose, "pays", lambda *_: how == "stacked")
    training = runs.train(Bundle(tasks(ARMS)))
    events = [next(training)]
    while not isinstance(events[-1], EpochEnd):
        events.append(next(training))
    events.append(training.send(frozenset({"lr", "dropout"})))
    events += training
    found = {run: [event for event in events if event.run == run] for run in ARMS}
    for run in ("lr", "dropout"):
        assert found[run][-1].kind == "cancelled"
        assert len(curves(found[run])) == 1
    assert all(len(curves(found[run])) == 3 for run in ("baseline", "schedule"))


@pytest.fixture
def passed(monkeypatch):
    """The seconds that steps take by the clock of the loop: as many as the network is wide, beside which those of the machine are few."""
    clock, passed, step = time.perf_counter, [0.0], loop.StepGroup.step

    def slow_step(group, batches):
        step(group, batches)
        passed[0] += group.members[0].config.model.width

    monkeypatch.setattr(loop.StepGroup, "step", slow_step)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock() + passed[0]))
    return passed


def test_the_time_of_a_bundle_is_divided_among_its_members(stacked, passed):
    given = tasks(ARMS)
    events = list(runs.train(Bundle(given)))
    took = events[-1].time - events[0].time + passed[0]
    parts = [e.metrics["time/train_seconds"] for e in events if isinstance(e, Finished)]
    assert sum(parts) >= 0.5 * took
    assert max(parts) < 1.5 * min(parts)


def test_a_network_that_takes_longer_has_more_of_the_time(in_turn, passed):
    found = together(tasks({"narrow": {"model.width": 2}, "wide": {"model.width": 16}}))
    narrow, wide = (found[run][-1].metrics["time/train_seconds"] for run in ("narrow", "wide"))
    assert wide == pytest.approx(8 * narrow, rel=0.2)
    assert narrow + wide == pytest.approx(passed[0], rel=0.2)


def test_best_weights_are_kept_for_each_member(stacked):
    base = BASE.override(
        {"training.checkpoint": "best", "training.epochs": 4, "schedule": {"name": "constant"}}
    )
    for run, events in together(tasks(ARMS, base=base)).items():
        losses_of_epochs = [epoch["val/loss"] for epoch in curves(events)]
        assert events[-1].epoch == 1 + losses_of_epochs.index(min(losses_of_epochs)), run


# --- stacked or in turn ---------------------------------------------------------------------------------------------


def test_the_measurement_decides_and_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path))
    recipes = [BASE, BASE.override({"optimizer.lr": 0.02})]
    cpu = torch.device("cpu")
    measured = choose.measure(recipes, (1, 8, 8), 10, cpu)
    assert all(seconds > 0 for seconds in measured.values())
    for quicker, decision in (("stacked", True), ("in turn", False)):
        found = {"stacked": 1.0, "in turn": 1.0, quicker: 0.5}
        shape = (1, 8, 8) if decision else (1, 9, 9)
        monkeypatch.setattr(choose, "measure", lambda *_, found=found: found)
        assert choose.pays(recipes, shape, 10, cpu) == decision
        monkeypatch.setattr(choose, "measure", None)
        assert choose.pays(recipes, shape, 10, cpu) == decision
    assert len(list((tmp_path / "fused").iterdir())) == 2


def test_inception_is_never_stacked():
    recipes = [BASE.override(SHAPES["inception"])] * 2
    assert not choose.pays(recipes, (1, 8, 8), 10, torch.device("cpu"))


# --- accuracy -------------------------------------------------------------------------------------------------------


def test_accuracies_over_seeds_are_those_of_single_runs(stacked):
    base = BASE.override(
        {
            "data": {"name": "digits", "subset": 400, "validation": 0.2},
            "training.epochs": 6,
            "training.batch_size": 16,
            "model.width": 6,
            "augment": None,
        }
    )
    pairs = []
    for seed in range(3):
        given = tasks({"baseline": {}, "dropout": {"model.dropout": 0.2}}, seed=seed, base=base)
        found, single = together(given), alone(given)
        pairs += [
            found[run][-1].metrics["test/accuracy"] - single[run][-1].metrics["test/accuracy"]
            for run in found
        ]
        assert all(found[run][-1].facts["weights"] != single[run][-1].facts["weights"] for run in found)
    assert min(events[-1].metrics["test/accuracy"] for events in single.values()) > 0.5, (
        "they learn something"
    )
    differences = torch.tensor(pairs, dtype=torch.float64)
    # Paired by seed, so that only rounding tells them apart: an interval of three standard errors holds 0 and little else.
    error = float(differences.std()) / math.sqrt(len(pairs))
    assert abs(float(differences.mean())) <= 3 * error + 1e-12
    assert error < 0.01
