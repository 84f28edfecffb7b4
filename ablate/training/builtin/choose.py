"""Which runs of a bundle are stacked, which are stepped in turn on a shared batch, and which train by themselves.

Stepped in turn, a run is bit for bit what it is alone. Whether stacking is faster depends on network and device, so a short
measurement decides (`pays`); it is cached. Large networks that are not stacked train one after another, because drawing the batch is
nothing beside their step. On a GPU, which one small network leaves idle, runs of different seeds are stacked too, each on batches of
its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ablate import cache_folder
from ablate.config import RunConfig, shared_in_a_stack
from ablate.models import table
from ablate.training.builtin.evaluation import sum_dtype
from ablate.training.builtin.learner import Learner, TorchLearner, initialised
from ablate.training.builtin.stack import Network, NotStackableError, Stacked, structure
from ablate.training.outcome import is_out_of_memory, machine

MOST_STACKED = {"cpu": 8, "cuda": 32}
"""Members of one stack. On a CPU more of them fall out of its caches; on a GPU fewer leave it idle."""

LARGE = 20_000_000
"""Operations of an image's forward pass beyond which a run that is not stacked trains by itself: drawing and augmenting a batch
are then a few hundredths of a step, and by itself it ends before the last of its bundle does."""

OWN_BATCHES = frozenset({"cuda"})
"""Kinds of devices on which runs of different seeds may be stacked. On a CPU that loses (0.53×)."""

MEASURED_SECONDS = 0.25
"""Seconds that one round of steps in turn should take in the measurement, about."""

ROUNDS = 2
"""Rounds that are measured, after one to warm up."""

MOST_BYTES = 1 << 29
"""Bytes that the layers of a stack may put out in a step on a CPU, gradients included: a worker should need little beside its data."""

WORTH = 0.95
"""Stacking has to take less than this share of the time in turn: steps in turn give the very bits of a single run."""


@dataclass(frozen=True)
class Arrangement:
    """How runs train, by their positions. groups: runs that take each step at once; one of more than a run is a stack.
    separate: runs that train alone, one after another. labels: of each run in a group, for the record, as `stacked 4 of 6`.
    """

    groups: tuple[tuple[int, ...], ...]
    separate: tuple[int, ...]
    labels: Mapping[int, str]


def arrange(
    configs: Sequence[RunConfig],
    learners: Sequence[Learner],
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device,
) -> Arrangement:
    """Choose how runs with the same batches train: in stacks where they can be stacked and it pays, the others in turn or alone."""
    groups = _stacks(configs, learners, shape, classes, device)
    separate = [group[0] for group in groups if len(group) == 1 and learners[group[0]].summary.flops > LARGE]
    together = len(configs) - len(separate)
    if together <= 1:
        return Arrangement((), tuple(position for group in groups for position in group), {})
    groups = [group for group in groups if group[0] not in separate]
    in_turn = sum(len(group) == 1 for group in groups)
    labels: dict[int, str] = {}
    for group in groups:
        kind, size = ("in turn", in_turn) if len(group) == 1 else ("stacked", len(group))
        label = f"{kind} {size}" + (f" of {together}" if size < together else "")
        labels |= dict.fromkeys(group, label)
    return Arrangement(tuple(tuple(group) for group in groups), tuple(separate), labels)


def _stacks(
    configs: Sequence[RunConfig],
    learners: Sequence[Learner],
    shape: tuple[int, int, int],
    classes: int,
    device: torch.device,
) -> list[list[int]]:
    alike: dict[Any, list[int]] = {}
    for position, (config, learner) in enumerate(zip(configs, learners, strict=True)):
        # Only torch modules have a structure to compare.
        network = structure(learner.model) if isinstance(learner, TorchLearner) else position
        alike.setdefault((network, _rule(config)), []).append(position)

    def split(positions: list[int]) -> list[list[int]]:
        if len(positions) > 1 and all(isinstance(learners[i], TorchLearner) for i in positions):
            members = [configs[i] for i in positions]
            if pays(members, shape, classes, device):
                return [positions]
            seeds = dict.fromkeys(config.seed for config in members)
            if len(seeds) > 1:
                return [
                    group
                    for seed in seeds
                    for group in split([i for i in positions if configs[i].seed == seed])
                ]
        return [[i] for i in positions]

    groups: list[list[int]] = []
    for positions in alike.values():
        parts = -(-len(positions) // MOST_STACKED.get(device.type, 8))
        for i in range(parts):
            groups += split(positions[i::parts])
    return groups


def _rule(config: RunConfig) -> str:
    """Return what the optimizers and the arithmetic of all members of a stack have in common."""
    return json.dumps([shared_in_a_stack(config.optimizer), config.training.precision], sort_keys=True)


def pays(
    configs: Sequence[RunConfig], shape: tuple[int, int, int], classes: int, device: torch.device
) -> bool:
    """Return whether runs are faster stacked than in turn on this device; measured once and cached.

    configs: of the same structure, rule and precision. shape: of an image. False where they cannot be stacked.
    """
    if sum_dtype(device) != torch.float64:
        return False  # stacked updates compute in it
    own_batches = len({config.seed for config in configs}) > 1
    model = initialised(configs[0], shape, classes)
    try:
        Network([model], own_batches=own_batches)
    except NotStackableError:
        return False
    batch = configs[0].training.batch_size
    outputs = sum(math.prod(row.shape) for row in table.summary(model, shape).rows)
    if device.type == "cpu" and 2 * 4 * outputs * batch * len(configs) > MOST_BYTES:
        return False
    key = {
        "device": machine(device)["device"],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "network": structure(model),
        "rule": _rule(configs[0]),
        "dropout": sum(bool(getattr(config.model, "dropout", 0)) for config in configs),
        "members": len(configs),
        "own batches": own_batches,
        "batch": batch,
        "shape": shape,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = cache_folder.default_folder() / "fused" / f"{digest}.json"
    measured = cache_folder.kept(file)
    if "stacked" in measured:
        return bool(measured["stacked"])
    try:
        seconds = measure(configs, shape, classes, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    stacked = seconds["stacked"] < WORTH * seconds["in turn"]
    cache_folder.keep(file, {"stacked": stacked, "seconds": seconds, "of": key})
    return stacked


def measure(
    configs: Sequence[RunConfig], shape: tuple[int, int, int], classes: int, device: torch.device
) -> dict[str, float]:
    """Return the seconds of a step of all members, `stacked` and `in turn`: the quicker of a few, on images of noise.

    Large networks are measured on fewer images than a batch has.
    """

    def learners() -> list[TorchLearner]:
        return [TorchLearner(config, shape, classes, device) for config in configs]

    noise = torch.Generator().manual_seed(0)
    size = configs[0].training.batch_size
    images = torch.randn(size, *shape, generator=noise).to(device, memory_format=torch.channels_last)
    labels = torch.randint(classes, (size,), generator=noise).to(device)
    single = learners()
    stack = Stacked(configs, learners(), device)
    # Each member's own, where the seeds differ; which images they are makes no difference to the time.
    stack_images = torch.cat([images] * len(configs), dim=1) if stack.own_batches else images
    stack_labels = labels.expand(len(configs), -1) if stack.own_batches else labels
    # Small enough that no loss can run away.
    lr = torch.full((len(configs),), 1e-6, dtype=torch.float64, device=device)

    def in_turn(count: int) -> None:
        for learner in single:
            learner.step(images[:count], labels[:count], 1e-6)

    def stacked(count: int) -> None:
        stack.advance(stack_images[:count], stack_labels[..., :count], lr)

    few = min(size, 16)
    in_turn(few)
    per_image = _seconds(lambda: in_turn(few), device) / few
    count = min(size, max(few, int(MEASURED_SECONDS / per_image)))
    seconds: dict[str, list[float]] = {"stacked": [], "in turn": []}
    for _ in range(1 + ROUNDS):
        seconds["stacked"].append(_seconds(lambda: stacked(count), device))
        seconds["in turn"].append(_seconds(lambda: in_turn(count), device))
    return {name: min(times[1:]) for name, times in seconds.items()}


def _seconds(do: Callable[[], None], device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    # With one thread, the time of this process: other work on the machine makes no difference to it.
    own_time = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own_time else time.perf_counter
    began = clock()
    do()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return clock() - began
