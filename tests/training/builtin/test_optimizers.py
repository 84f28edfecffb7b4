"""One rule of update per optimizer: a stack takes the steps that torch takes for each of its members alone."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest
import torch
from torch import nn

from ablate.config import Optimizer, RunConfig
from ablate.models.numpy_mlp import OPTIMIZERS
from ablate.training.builtin import numpy_learner
from ablate.training.builtin.optimizers import RULES, stack_tensors, stacked_rule

KINDS = get_args(get_args(Optimizer)[0])
SHAPES = {"weight": (4, 3), "kernel": (2, 3, 5, 5), "bias": (4,)}
CHANGES = ({}, {"lr": 0.02}, {"weight_decay": 0.1, "lr": 0.003})


def test_every_optimizer_has_a_rule():
    assert set(RULES) == set(KINDS)


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()
    }


def taken(kind, change, member: int, steps: int) -> dict[str, torch.Tensor]:
    """The parameters of a member after some steps by itself."""
    parameters = {name: nn.Parameter(p) for name, p in drawn(member).items()}
    optimizer = RULES[kind].single(kind(**change), parameters.values())
    for step in range(steps):
        for name, gradient in drawn(100 + 10 * member + step).items():
            parameters[name].grad = gradient
        optimizer.step()
    return {name: p.detach() for name, p in parameters.items()}


def stacked(kind, changes, members, steps: int, leave_after: int | None = None) -> dict[str, torch.Tensor]:
    """The same in a stack, from which the first member leaves."""
    blocks = [kind(**change) for change in changes]
    of_each = [drawn(member) for member in members]
    parameters = {name: stack_tensors([p[name] for p in of_each]).requires_grad_() for name in SHAPES}
    rule = stacked_rule(blocks, torch.device("cpu"))
    members = list(members)
    for step in range(steps):
        if step == leave_after:
            rule = rule.subset(range(1, len(members)))
            members, blocks = members[1:], blocks[1:]
            parameters = {name: p.detach()[1:].clone().requires_grad_() for name, p in parameters.items()}
        gradients = [drawn(100 + 10 * member + step) for member in members]
        for name, p in parameters.items():
            p.grad = stack_tensors([gradient[name] for gradient in gradients])
        rule.step(parameters, torch.tensor([block.lr for block in blocks], dtype=torch.float64))
    return {name: p.detach() for name, p in parameters.items()}


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_stack_takes_the_steps_of_torch(kind, steps):
    found = stacked(kind, CHANGES, range(3), steps)
    for member, change in enumerate(CHANGES):
        for name, expected in taken(kind, change, member, steps).items():
            torch.testing.assert_close(found[name][member], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_others_go_on_where_a_member_leaves(kind):
    found = stacked(kind, CHANGES, range(3), 5, leave_after=2)
    for position, member in enumerate((1, 2)):
        for name, expected in taken(kind, CHANGES[member], member, 5).items():
            torch.testing.assert_close(found[name][position], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_numpys_network_has_the_rule_or_refuses_the_optimizer(kind):
    name = kind().name
    tree = {"data": {"name": "digits"}, "model": {"name": "numpy_mlp"}, "optimizer": {"name": name}}
    if name in OPTIMIZERS:
        assert numpy_learner.rule(RunConfig.parse(tree).optimizer)
    else:
        with pytest.raises(ValueError, match="numpy_mlp trains with"):
            RunConfig.model_validate(tree)


IN_A_WORKER = """
import multiprocessing, sys, torch
from ablate.training import builtin_trainer

multiprocessing.parent_process = lambda: "a forkserver"
builtin_trainer._spare_dynamo()
"""

STEPS = """
def steps(kind, **settings):
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    inputs = torch.randn(7, 5)
    optimizer = getattr(torch.optim, kind)(network.parameters(), **settings)
    for step in range(4):
        if step == 2:  # as a run that is resumed
            saved = optimizer.state_dict()
            optimizer = getattr(torch.optim, kind)(network.parameters(), **settings)
            optimizer.load_state_dict(saved)
        optimizer.zero_grad()
        network(inputs).square().mean().backward()
        optimizer.step()
    assert all(parameter.requires_grad for parameter in network.parameters())
    return [parameter.tolist() for parameter in network.parameters()]


found = [
    steps("SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    steps("Adam", lr=0.01, weight_decay=0.01),
    steps("AdamW", lr=0.01),
]
"""


def test_optimizers_compute_the_same_without_dynamo_which_a_worker_does_not_import():
    program = f"{IN_A_WORKER}{STEPS}\nprint(json.dumps(found))\nassert 'torch._dynamo' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{program}"], capture_output=True, text=True, check=True
    )
    ordinary = {"torch": torch}
    exec(STEPS, ordinary)
    assert json.loads(done.stdout) == ordinary["found"]
