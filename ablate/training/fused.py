"""Runs of the same seed, data and augmentation as one: every batch is drawn, augmented and normalised once for all of them.

Networks of the same shape are moreover *stacked*: parameters (members, …), convolutions grouped, linear layers as batched
products, one update with every member's own hyperparameters (Wang et al., HFTA, MLSys 2021, arXiv:2102.02344). Others are
stepped *in turn* on the shared batch, and are bit for bit what they are alone; large ones train one after another, because
the batch is nothing beside the step. Stacked members are not: the same sums in
another order differ in their last digits, and training makes more of that. Which of the two is faster depends on network and
device, so a short measurement decides (`pays`). On a GPU, which one small network leaves idle, runs of different seeds are stacked
too, each on batches of its own.

A member that ends (at its last epoch, early, diverged, cancelled) leaves, and the others go on as if it had never been there.
All that are together are saved together (`checkpoint`), with the seats that they have: broken off, they go on together, to the bit,
or begin again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate import config as configs
from ablate.config import RunConfig
from ablate.data import cache, datasets
from ablate.events import Bundle, Event, Failed, Task, is_last
from ablate.models import layers as own_layers
from ablate.models import table
from ablate.models.numpy_mlp import NumpyMlp
from ablate.training import checkpoint, losses, runs, train
from ablate.training.runs import Progress, Result
from ablate.training.train import Evaluation, Learner, TorchLearner

MOST_STACKED = {"cpu": 8, "cuda": 32}
"""Members of one stack. On a CPU more of them fall out of its caches; on a GPU fewer leave it idle."""

LARGE = 20_000_000
"""Operations of an image's forward pass beyond which a run that is not stacked trains by itself: drawing and augmenting a batch
are then a few hundredths of a step, and by itself it ends before the last of its bundle does."""

OWN_BATCHES = frozenset({"cuda"})
"""Kinds of devices on which runs of different seeds may be stacked. On a CPU that loses (0.53×)."""

Events = Generator[Event, frozenset[str] | None, None]


def train_bundle(bundle: Bundle) -> Events:
    """Events of the runs of a bundle, each in a sequence of its own. Payloads as `runs.train` describes them.

    Runs that have no others to share their batches with are trained as they are alone.
    """
    together: dict[Any, list[_Member]] = {}
    for task in bundle.tasks:
        member = _Member(task)
        try:
            torch.set_num_threads(int(task.payload["threads"]))
            assert task.payload["train"] is None, "only the built-in training can be fused"
            member.config = RunConfig.parse(task.payload["config"]).with_seed(task.payload["seed"])
        except Exception as error:  # noqa: BLE001 — a failed attempt, not a dead worker
            yield runs.failure(error, member.task, member.mark())
            continue
        if runs.has_checkpoint(task):
            # What was saved by itself goes on by itself.
            yield from runs.one_by_one(Bundle((task,)))
            continue
        device = task.payload["device"]
        any_seed = torch.device(device).type in OWN_BATCHES
        key = (member.config.batches(any_seed=any_seed), device, task.payload["threads"])
        together.setdefault(key, []).append(member)
    for members in together.values():
        company = _Company(members)
        apart = members
        if len(members) > 1 or company.was_saved:
            yield from company.events()
            apart = company.apart
        for member in apart:
            yield from runs.one_by_one(Bundle((member.task,)))


class _Member:
    """A run in company: its events' numbers, its state, and its share of the time."""

    config: RunConfig
    state: train.State
    rate: Callable[[int], float]
    how: str

    def __init__(self, task: Task) -> None:
        self.task = task
        self.seconds = 0.0
        self._seq = 0

    def mark(self) -> runs.Stamp:
        self._seq += 1
        return self.task.run, self.task.attempt, self._seq - 1, time.time()


class Group(Protocol):
    """Members that take a step at once. losses, hits: (m,) sums over the epoch so far, on the device."""

    members: list[_Member]
    losses: Tensor
    hits: Tensor

    def begin_epoch(self, rates: Sequence[Sequence[float]]) -> None:
        """rates: (steps, m) learning rates. All of an epoch at once, so that a GPU need not wait at every step."""
        ...

    def step(self, images: Tensor, targets: Tensor) -> None:
        """One update of every member on a batch, as `train.Learner.step` takes it; or of each on its own, where the group says
        so: (b, m·C, H, W), and targets with a leading dimension of members.
        """
        ...

    @property
    def own(self) -> bool:
        """Whether members have batches of their own."""
        ...

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        """(b, C, H, W) float → (b, classes) of each member, in evaluation mode."""
        ...

    def seat(self, position: int) -> train.Weighted: ...

    def digest(self, position: int) -> str: ...

    def subset(self, positions: Sequence[int]) -> Group:
        """Some of the members, as they are."""
        ...

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, as tensors and plain values, for `load`. Not a copy."""
        ...

    def load(self, state: Mapping[str, Any]) -> None: ...


class _Company:
    """Members whose batches are drawn side by side, from their start to the end of the last of them.

    apart: members that turned out to be better off by themselves, of which nothing was told.
    """

    def __init__(self, members: list[_Member]) -> None:
        self._members = members
        self.apart: list[_Member] = []
        self._cancelled: frozenset[str] = frozenset()
        self._clock = time.perf_counter()
        self._groups: list[Group] = []
        payload = members[0].task.payload
        device = torch.device(payload["device"])
        self._device = torch.device("cpu") if isinstance(members[0].config.model, NumpyMlp) else device
        self._shared = members[0].config
        # By seed: what is drawn from, and the order of the epoch under way; none between two epochs.
        self._streams: dict[int, Mapping[str, torch.Generator]] = {}
        self._orders: dict[int, Tensor] = {}
        self._batches = 0
        # Of the epoch under way, where it was taken up: losses and hits of every member so far.
        self._sums: dict[_Member, tuple[Tensor, Tensor]] = {}
        self._folder = runs.checkpoints(members[0].task)
        names = [member.task.run for member in members]
        saved = self._folder and checkpoint.saved_together(self._folder, names)
        self.was_saved = saved is not None
        self._keeper = checkpoint.Keeper(
            saved or (self._folder and checkpoint.place_together(self._folder, names)),
            payload.get("checkpoint_every", checkpoint.EVERY),
            train.conditions(self._device),
            names,
        )

    def events(self) -> Events:
        shared = self._shared
        try:
            wanted = self._members[0].task.payload.get("data")
            images = train.Images(shared, datasets.prepare(shared.data, wanted=wanted), self._device)
        except Exception as error:  # noqa: BLE001 — failed attempts, not a dead worker
            for member in self._members:
                yield runs.failure(error, member.task, member.mark())
            return
        steps = math.ceil(len(images.training) / shared.training.batch_size)
        for member in self._members:
            config = member.config
            if config.seed not in self._streams:
                self._streams[config.seed] = train.streams(config.seed, self._device)
            member.rate = train.schedule(config.schedule, config.optimizer.lr, config.training.epochs * steps)
            best = train.best_of(config, member.task)
            member.state = train.State(self._streams[config.seed], runs.Trace(), best=best)
        yield from self._start(images)
        while self._groups:
            yield from self._epoch(images, steps)
        self._keeper.remove()

    def _living(self) -> list[_Member]:
        return [member for group in self._groups for member in group.members]

    def _tell(self, member: _Member, step: Progress | Result) -> Events:
        """Pass on what a member has to say; of one that was cancelled, its end."""
        if member.task.run in self._cancelled:
            event: Event = Failed(*member.mark(), "cancelled", "cancelled")
        else:
            event = runs.event_of(step, member.mark())
        self._cancelled |= (yield event) or frozenset()
        if is_last(event):
            self._leave({member})

    def _leave(self, gone: set[_Member]) -> None:
        left: list[Group] = []
        for group in self._groups:
            stay = [i for i, member in enumerate(group.members) if member not in gone]
            if len(stay) == len(group.members):
                left.append(group)
            elif stay:
                left.append(group.subset(stay))
        self._groups = left

    def _fail(self, group: Group, error: Exception) -> Events:
        """What a group cannot survive ends its members only."""
        memory = runs.is_out_of_memory(error)
        if memory:
            # The traceback holds every tensor of the step.
            error.__traceback__ = None
        for member in group.members:
            if memory:
                said = f"out of memory beside {len(self._living()) - 1} other runs"
                event = Failed(*member.mark(), "memory", said)
            else:
                event = runs.failure(error, member.task, member.mark())
            self._cancelled |= (yield event) or frozenset()
        self._leave(set(group.members))

    def _share_time(self) -> None:
        """Since it was last asked, to those who are here in equal parts."""
        now = time.perf_counter()
        here = self._living()
        for member in here:
            member.seconds += (now - self._clock) / len(here)
        self._clock = now

    # --- broken off and taken up ---

    def _state(self) -> dict[str, Any]:
        self._share_time()
        groups = [
            {
                "runs": [member.task.run for member in group.members],
                "stacked": isinstance(group, Stacked),
                "sums": [group.losses, group.hits] if self._orders else None,
                "state": group.state(),
            }
            for group in self._groups
        ]
        members = {
            member.task.run: {"loop": member.state.save(), "seconds": member.seconds, "how": member.how}
            for member in self._living()
        }
        seeds = {member.config.seed for member in self._living()}
        orders = {seed: order for seed, order in self._orders.items() if seed in seeds}
        return {"groups": groups, "members": members, "orders": orders, "batches": self._batches}

    def _take_up(self, saved: Mapping[str, Any], learners: Mapping[_Member, Learner]) -> None:
        by_run = {member.task.run: member for member in learners}
        for of in saved["groups"]:
            group = _group([by_run[run] for run in of["runs"]], learners, self._device, stacked=of["stacked"])
            group.load(of["state"])
            self._groups.append(group)
            if of["sums"] is not None:
                losses_and_hits = zip(*(sums.to(self._device) for sums in of["sums"]), strict=True)
                self._sums |= dict(zip(group.members, losses_and_hits, strict=True))
        for run, of in saved["members"].items():
            member = by_run[run]
            member.state.load(of["loop"], self._device)
            member.seconds, member.how = of["seconds"], of["how"]
        self._orders = {seed: order.cpu() for seed, order in saved["orders"].items()}
        self._batches = saved["batches"]

    def _renew(self) -> None:
        """Save again without those who left, where there is something saved: of them it would make others."""
        self._keeper.runs = frozenset(member.task.run for member in self._living())
        if self._groups:
            self._keeper.renew(self._state)
        else:
            self._keeper.remove()

    # --- the parts of a training ---

    def _start(self, images: train.Images) -> Events:
        classes = len(images.classes)
        learners: dict[_Member, Learner] = {}
        for member in self._members:
            try:
                learners[member] = train.make_learner(member.config, images.shape, classes, self._device)
            except Exception as error:  # noqa: BLE001 — a failed attempt of this member alone
                yield runs.failure(error, member.task, member.mark())
        self._summaries = {member: learner.summary for member, learner in learners.items()}
        saved = self._keeper.load() if len(learners) == len(self._members) else None
        if saved is not None:
            self._take_up(saved, learners)
        else:
            if self._folder is not None:
                checkpoint.remove_together(self._folder, [member.task.run for member in self._members])
            self._groups = _arranged(learners, images.shape, classes, self._device)
            self._settle_in(len(learners))
        for group in list(self._groups):
            for member in group.members:
                of = self._summaries[member]
                facts = runs.machine(self._device) | {"fused": member.how}
                facts |= {"parameters": of.parameters, "flops": of.flops}
                if saved is not None:
                    facts["resumed"] = f"in epoch {member.state.epoch + 1}"
                yield from self._tell(member, Progress(0, {}, facts))
                for epoch, values in enumerate(member.state.history, 1):
                    if member in self._living():
                        yield from self._tell(member, Progress(epoch, values, {}))
        self._keeper.runs = frozenset(member.task.run for member in self._living())

    def _settle_in(self, number: int) -> None:
        """Let those go who are better off apart, and say of the others how they are trained. number: of members."""
        large = [
            group.members[0]
            for group in self._groups
            if isinstance(group, Single) and self._summaries[group.members[0]].flops > LARGE
        ]
        here = number - len(large)
        self.apart = large if here > 1 else self._living()
        self._leave(set(self.apart))
        in_turn = sum(len(group.members) for group in self._groups if isinstance(group, Single))
        for group in self._groups:
            own = in_turn if isinstance(group, Single) else len(group.members)
            how = f"{'in turn' if isinstance(group, Single) else 'stacked'} {own}"
            for member in group.members:
                member.how = how + (f" of {here}" if own < here else "")

    def _epoch(self, images: train.Images, steps: int) -> Events:
        first = self._living()[0].state.step
        if not self._orders:
            count = len(images.training)
            seeds = dict.fromkeys(member.config.seed for member in self._living())
            self._orders = {
                seed: torch.randperm(count, generator=self._streams[seed]["order"]) for seed in seeds
            }
            self._batches = 0
        last_rates: dict[_Member, float] = {}
        for group in self._groups:
            rates = [[member.rate(first + n) for member in group.members] for n in range(steps)]
            group.begin_epoch(rates[self._batches :])
            last_rates |= dict(zip(group.members, rates[-1], strict=True))
            if self._sums:
                so_far = [self._sums[member] for member in group.members]
                group.losses, group.hits = (torch.stack(sums) for sums in zip(*so_far, strict=True))
        self._sums = {}
        yield from self._pass(images)
        self._orders = {}
        seen: dict[_Member, Evaluation] = {}
        before = self._living()
        yield from self._evaluate(images.validation, seen)
        ended: dict[_Member, Result] = {}
        done: set[_Member] = set()
        self._share_time()
        for group in list(self._groups):
            sums_of_each = zip(group.members, group.losses.tolist(), group.hits.tolist(), strict=True)
            for position, (member, loss, hits) in enumerate(sums_of_each):
                state, recipe, found = member.state, member.config.training, seen[member]
                state.step = first + steps
                values = {
                    "train/loss": loss / len(images.training),
                    "train/accuracy": hits / len(images.training),
                    "val/loss": found.loss,
                    "val/accuracy": found.accuracy,
                    "lr": last_rates[member],
                }
                state.trace.add(values["train/loss"], values["val/loss"])
                state.history.append(values)
                yield from self._tell(member, Progress(state.epoch + 1, values, {}))
                if member not in self._living():
                    continue
                if not (math.isfinite(loss) and math.isfinite(found.loss)):
                    ended[member] = train.diverged(state, self._summaries[member], member.seconds)
                    continue
                state.end_epoch(found, group.seat(position), recipe)
                if state.epoch == recipe.epochs or state.is_stopped_early(recipe):
                    done.add(member)
        if done:
            yield from self._end(done, images, ended)
        self._leave(set(ended))
        if self._living() != before:
            # Before they say that they are done: whoever hears it may count on their being gone.
            self._renew()
        for member, end in ended.items():
            yield from self._tell(member, end)

    def _pass(self, images: train.Images) -> Events:
        """The training of an epoch, or what is left of it. Nothing in it waits for the device."""
        size = self._shared.training.batch_size
        feeds = [
            train.batches(
                self._shared,
                self._streams[seed],
                images.training,
                order[self._batches * size :],
                len(images.classes),
            )
            for seed, order in self._orders.items()
        ]
        someone_left = False
        for drawn in zip(*feeds, strict=True):
            of_seed = dict(zip(self._orders, drawn, strict=True))
            for group in list(self._groups):
                try:
                    group.step(*_fed(group, of_seed))
                except Exception as error:  # noqa: BLE001 — failed attempts, not a dead worker
                    someone_left = True
                    yield from self._fail(group, error)
            if not self._groups:
                return
            self._batches += 1
            if all(is_even for _, _, is_even in drawn):
                if someone_left:
                    someone_left = False
                    self._renew()
                self._keeper.offer(self._state)

    def _evaluate(self, pixels: train.Pixels, found: dict[_Member, Evaluation]) -> Events:
        """Put into `found` what the members make of a split."""
        tallies = {member: train.Tally(self._device) for member in self._living()}
        for batch, labels in pixels.whole():
            for group in list(self._groups):
                try:
                    with torch.no_grad():
                        for member, logits in zip(group.members, group.logits(batch), strict=True):
                            tallies[member].add(logits, labels)
                except Exception as error:  # noqa: BLE001 — failed attempts, not a dead worker
                    yield from self._fail(group, error)
        for member in self._living():
            found[member] = tallies[member].evaluation()

    def _end(self, done: set[_Member], images: train.Images, ended: dict[_Member, Result]) -> Events:
        """Meet the test set, with the weights that count. done: the members whose training is over, and are put into `ended`."""
        everyone = self._groups
        staying: list[Group] = []
        ending: list[Group] = []
        for group in everyone:
            for part, inside in ((staying, False), (ending, True)):
                positions = [i for i, m in enumerate(group.members) if (m in done) == inside]
                if positions:
                    part.append(group if len(positions) == len(group.members) else group.subset(positions))
        self._groups = ending
        for group in ending:
            for position, member in enumerate(group.members):
                kept = member.state.kept
                assert kept is not None
                if kept.weights is not None:
                    group.seat(position).restore(kept.weights)
        seen: dict[_Member, Evaluation] = {}
        yield from self._evaluate(images.test(), seen)
        self._groups = [*staying, *self._groups]
        self._share_time()
        for group in [g for g in self._groups if g.members[0] in done]:
            for position, member in enumerate(group.members):
                ended[member] = train.finished(
                    member.config,
                    member.state,
                    images,
                    seen[member],
                    self._summaries[member],
                    group.digest(position),
                    member.seconds,
                )


def _fed(group: Group, of_seed: Mapping[int, tuple[Tensor, Tensor, bool]]) -> tuple[Tensor, Tensor]:
    """A group's batch, or those of its members side by side."""
    drawn = [of_seed[member.config.seed] for member in group.members]
    if not group.own:
        return drawn[0][:2]
    return torch.cat([images for images, _, _ in drawn], dim=1), torch.stack([t for _, t, _ in drawn])


# --- in turn ------------------------------------------------------------------------------------------------------


class Single:
    """A member by itself, stepped as it would be alone."""

    own = False

    def __init__(self, member: _Member, learner: Learner, device: torch.device) -> None:
        self.members = [member]
        self._learner = learner
        self._device = device

    def begin_epoch(self, rates: Sequence[Sequence[float]]) -> None:
        self._rates = iter([rate for (rate,) in rates])
        self.losses = torch.zeros(1, device=self._device, dtype=torch.float64)
        self.hits = torch.zeros(1, device=self._device, dtype=torch.float64)

    def step(self, images: Tensor, targets: Tensor) -> None:
        loss, hits = self._learner.step(images, targets, next(self._rates))
        self.losses += loss
        self.hits += hits

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        return [self._learner.logits(images)]

    def seat(self, position: int) -> train.Weighted:  # noqa: ARG002 — there is one
        return self._learner

    def digest(self, position: int) -> str:  # noqa: ARG002
        return self._learner.digest()

    def subset(self, positions: Sequence[int]) -> Single:
        assert list(positions) == [0]
        return self

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def load(self, state: Mapping[str, Any]) -> None:
        self._learner.load(state)


# --- stacked ------------------------------------------------------------------------------------------------------


class NotStackableError(Exception):
    """A network has a part that this file cannot stack; its runs are stepped in turn."""


def structure(model: nn.Module) -> str:
    """What networks must have in common to be stacked: everything but weights and the chance of dropout."""
    return re.sub(r"Dropout\(p=[^)]*\)", "Dropout()", repr(model))


class Network:
    """Several torch modules of the same structure as one function of parameters with a leading dimension of members.

    Activations are (b, m·C, H, W) before they are flattened and (m, b, F) afterwards; what comes before the first layer with
    weights is the same for all members, (b, C, H, W), and so is computed once. own: the members' images differ, and come as
    (b, m·C, H, W). generators, chances: of each member's dropout, in the order of the layers.

    Raises NotStackableError.
    """

    def __init__(self, models: Sequence[nn.Module], *, own: bool = False) -> None:
        if len({structure(model) for model in models}) != 1:
            raise NotStackableError("networks of different structure")
        self.models = list(models)
        self.training = True
        self.parameters = {
            name: _stack([dict(model.named_parameters())[name].detach() for model in models]).requires_grad_()
            for name, _ in models[0].named_parameters()
        }
        self.buffers = {
            name: torch.stack([dict(model.named_buffers())[name] for model in models])
            for name, _ in models[0].named_buffers()
        }
        self._same = not own
        self._layout = "maps"
        self._layers = list(self._walked("", list(models)))
        if self._layout != "rows" or self._same:
            raise NotStackableError("a network without a linear layer at its end")

    @property
    def size(self) -> int:
        return len(self.models)

    def __call__(self, images: Tensor) -> Tensor:
        """(b, C, H, W) float → (m, b, classes) logits."""
        x = images
        for layer in self._layers:
            x = layer(x)
        return x

    def state(self, position: int) -> dict[str, Tensor]:
        """A member's parameters and buffers, as its module's `state_dict` has them; views."""
        return {name: t.detach()[position] for name, t in {**self.parameters, **self.buffers}.items()}

    def _walked(self, name: str, modules: list[nn.Module]) -> Iterable[Callable[[Tensor], Tensor]]:
        """The layers of what is called `name` in every member."""
        module = modules[0]
        kind = type(module)
        if kind is own_layers.Flattened:
            yield self._flatten()
        if kind in (nn.Sequential, own_layers.Flattened):
            for child, _ in module.named_children():
                parts = [m.get_submodule(child) for m in modules]
                yield from self._walked(f"{name}.{child}" if name else child, parts)
        elif isinstance(module, nn.Conv2d) and kind is nn.Conv2d:
            yield self._convolution(name, module)
        elif isinstance(module, nn.BatchNorm2d) and kind is nn.BatchNorm2d:
            yield self._batch_norm(name, module)
        elif isinstance(module, nn.Linear) and kind is nn.Linear:
            yield self._linear(name)
        elif isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
            yield self._flatten()
        elif kind is own_layers.Dropout:
            yield self._dropout(modules)
        elif (kind in _POOLS and self._layout == "maps") or kind in _POINTWISE:
            yield module
        else:
            raise NotStackableError(f"{kind.__name__}")

    def _convolution(self, name: str, layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
        if layer.groups != 1 or layer.padding_mode != "zeros" or self._layout != "maps":
            raise NotStackableError(f"{layer}")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        # On the same images it is simply a convolution with more channels.
        groups = 1 if self._same else self.size
        self._same = False

        def convolved(x: Tensor) -> Tensor:
            offset = None if bias is None else bias.flatten()
            stride, padding, dilation = layer.stride, layer.padding, layer.dilation
            return F.conv2d(x, weight.flatten(0, 1), offset, stride, padding, dilation, groups)

        return convolved

    def _batch_norm(self, name: str, layer: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
        if not (layer.affine and layer.track_running_stats) or self._same or layer.momentum is None:
            raise NotStackableError(f"{layer}")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        mean, var, count = (
            self.buffers[f"{name}.{part}"] for part in ("running_mean", "running_var", "num_batches_tracked")
        )
        momentum, eps = layer.momentum, layer.eps

        def normalised(x: Tensor) -> Tensor:
            if self.training:
                count.add_(1)
            # Views: the running statistics are updated where they are.
            running = mean.view(-1), var.view(-1)
            scale, shift = weight.flatten(), bias.flatten()
            return F.batch_norm(x, *running, scale, shift, self.training, momentum, eps)

        return normalised

    def _linear(self, name: str) -> Callable[[Tensor], Tensor]:
        if self._layout != "rows":
            raise NotStackableError("a linear layer on images")
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        same, self._same = self._same, False

        def transformed(x: Tensor) -> Tensor:
            if same:
                offset = None if bias is None else bias.flatten()
                rows = F.linear(x[0], weight.flatten(0, 1), offset)
                return _apart(rows, self.size)
            if bias is None:
                return torch.bmm(x, weight.transpose(1, 2))
            return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

        return transformed

    def _flatten(self) -> Callable[[Tensor], Tensor]:
        members = 1 if self._same else self.size
        was, self._layout = self._layout, "rows"

        def flattened(x: Tensor) -> Tensor:
            return _apart(x, members).flatten(2)

        return flattened if was == "maps" else nn.Identity()

    def _dropout(self, layers: Sequence[nn.Module]) -> Callable[[Tensor], Tensor]:
        """Every member draws from its own generator what it would draw alone: of shape (b, F), and nothing where p is 0."""
        drops = [layer for layer in layers if isinstance(layer, own_layers.Dropout)]
        if all(layer.p == 0 for layer in drops):
            return nn.Identity()
        if self._layout != "rows":
            raise NotStackableError("dropout on images")
        self._same = False

        def dropped(x: Tensor) -> Tensor:
            if not self.training:
                return x if len(x) == len(drops) else x.expand(len(drops), -1, -1)
            keep = x.new_ones((len(drops), *x.shape[1:]))
            for mask, layer in zip(keep, drops, strict=True):
                if layer.p:
                    mask.bernoulli_(1 - layer.p, generator=layer.generator).mul_(1 / (1 - layer.p))
            return x * keep

        return dropped


_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Identity)


def _apart(x: Tensor, members: int) -> Tensor:
    """(b, m·C, …) → (m, b, C, …), a view."""
    return x.view(len(x), members, -1, *x.shape[2:]).transpose(0, 1)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """(m, …); of convolutions' weights every member channels_last, so that they join to one weight without a copy."""
    if tensors[0].dim() == 4:
        return torch.stack([t.permute(0, 2, 3, 1) for t in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(list(tensors))


class Update:
    """SGD, Adam or AdamW on stacked parameters, with hyperparameters of each member; the rules of `torch.optim`.

    rules: of one kind. moments: name of a parameter → what the rule remembers of it.
    """

    def __init__(
        self, rules: Sequence[configs.Sgd] | Sequence[configs.Adam | configs.AdamW], device: torch.device
    ) -> None:
        self._rules = list(rules)
        self._device = device
        self._kind = type(rules[0])
        assert all(type(rule) is self._kind for rule in rules), "one kind of optimizer for a stack"
        self.moments: dict[str, list[Tensor]] = {}
        self.steps = 0

        def column(name: str) -> Tensor:
            # In float64 as torch's own scalars: 1 − β₂ of a float32 β₂ is off in its sixth digit.
            values = [getattr(rule, name) for rule in rules]
            return torch.tensor(values, dtype=torch.float64, device=device)

        self._decay = column("weight_decay")
        if isinstance(rules[0], configs.Sgd):
            self._momentum = column("momentum")
            self._nesterov = rules[0].nesterov
            assert all(rule.nesterov == self._nesterov for rule in rules if isinstance(rule, configs.Sgd))
            self._remembers = any(rule.momentum for rule in rules if isinstance(rule, configs.Sgd))
        else:
            self._beta1, self._beta2 = column("beta1"), column("beta2")
        self._decays = any(rule.weight_decay for rule in rules)

    def subset(self, positions: Sequence[int]) -> Update:
        fewer = Update([self._rules[i] for i in positions], self._device)  # type: ignore[arg-type]
        fewer.steps = self.steps
        fewer.moments = {
            name: [_stack([t[i] for i in positions]) for t in kept] for name, kept in self.moments.items()
        }
        return fewer

    @torch.no_grad()
    def step(self, parameters: Mapping[str, Tensor], lr: Tensor) -> None:
        """Take the gradients of `parameters`, each (m, …), and change them. lr: (m,) float64."""
        self.steps += 1
        if self._kind is not configs.Sgd:
            slope = lr / (1 - self._beta1**self.steps)
            root = (1 - self._beta2**self.steps).sqrt()
        for name, p in parameters.items():
            gradient = p.grad
            assert gradient is not None

            def each(values: Tensor, like: Tensor = p) -> Tensor:
                return values.to(like.dtype).view(-1, *[1] * (like.dim() - 1))

            if self._decays and self._kind is configs.AdamW:
                p.mul_(each(1 - lr * self._decay))
            elif self._decays:
                gradient = torch.addcmul(gradient, p, each(self._decay))
            if self._kind is configs.Sgd:
                p.addcmul_(self._moved(name, gradient, each), each(lr), value=-1)
                continue
            if name not in self.moments:
                self.moments[name] = [torch.zeros_like(p), torch.zeros_like(p)]
            mean, square = self.moments[name]
            mean.lerp_(gradient, each(1 - self._beta1).expand_as(gradient))
            square.mul_(each(self._beta2)).addcmul_(gradient * gradient, each(1 - self._beta2))
            denominator = (square.sqrt() / each(root)).add_(EPSILON)
            p.addcdiv_(mean * each(slope), denominator, value=-1)

    def _moved(self, name: str, gradient: Tensor, each: Callable[[Tensor], Tensor]) -> Tensor:
        """The direction that SGD goes in."""
        if not self._remembers:
            return gradient
        if name not in self.moments:
            self.moments[name] = [gradient.clone()]
        else:
            self.moments[name][0].mul_(each(self._momentum)).add_(gradient)
        (kept,) = self.moments[name]
        return torch.addcmul(gradient, kept, each(self._momentum)) if self._nesterov else kept


EPSILON = 1e-8
"""Of Adam, as torch has it by default."""


class Stacked:
    """Members whose networks are stacked. learners: as they are at their start; their modules are where states go back to.

    own: their seeds differ, and so do their batches.
    """

    def __init__(
        self,
        members: Sequence[_Member],
        recipes: Sequence[RunConfig],
        learners: Sequence[TorchLearner],
        device: torch.device,
    ) -> None:
        self.members = list(members)
        self._recipes, self._learners, self._device = list(recipes), list(learners), device
        self.own = len({recipe.seed for recipe in recipes}) > 1
        self.network = Network([learner.model for learner in learners], own=self.own)
        self.update = Update([recipe.optimizer for recipe in recipes], device)  # type: ignore[arg-type]
        training = [recipe.training for recipe in recipes]
        precision = training[0].precision
        assert all(other.precision == precision for other in training), "one precision for a stack"
        self._amp = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        focal = [t.focal_gamma if t.loss == "focal" else 0.0 for t in training]
        self._smoothing = column([t.label_smoothing for t in training])
        self._gamma = column(focal) if any(t.loss == "focal" for t in training) else None
        self._plain = all(losses.is_plain(t) for t in training)
        norms = [math.inf if t.max_grad_norm is None else t.max_grad_norm for t in training]
        self._most = column(norms) if min(norms) < math.inf else None

    def begin_epoch(self, rates: Sequence[Sequence[float]]) -> None:
        self._rates = iter(torch.tensor(rates, dtype=torch.float64).to(self._device, non_blocking=True))
        self.losses = torch.zeros(len(self.members), device=self._device, dtype=torch.float64)
        self.hits = torch.zeros(len(self.members), device=self._device, dtype=torch.float64)

    def step(self, images: Tensor, targets: Tensor) -> None:
        plain, hits = self.advance(images, targets, next(self._rates))
        self.losses += plain * len(images)
        self.hits += hits

    def advance(self, images: Tensor, targets: Tensor, lr: Tensor) -> tuple[Tensor, Tensor]:
        """One update, on a batch as `Group.step` takes it. lr: (m,) float64. Returns (m,) mean cross-entropies and hits before it."""
        self.network.training = True
        parameters = self.network.parameters
        for p in parameters.values():
            p.grad = None
        with self._amp:
            logits = self.network(images)
        if logits.dtype != torch.float64:
            logits = logits.float()
        loss = losses.of_each(logits, targets, self._smoothing, self._gamma)
        # What is summed has every member's own gradients: no parameter is in two terms.
        loss.sum().backward()  # type: ignore[no-untyped-call]
        if self._most is not None:
            self._clip(self._most)
        self.update.step(parameters, lr)
        logits = logits.detach()
        plain = loss.detach()
        if not self._plain:
            plain = losses.of_each(logits, targets, torch.zeros_like(self._smoothing))
        return plain, losses.hits(logits, targets)

    @torch.no_grad()
    def _clip(self, most: Tensor) -> None:
        """As `torch.nn.utils.clip_grad_norm_`, of every member by itself."""
        gradients = [p.grad for p in self.network.parameters.values() if p.grad is not None]
        parts = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]
        norm = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        factor = (most / (norm + 1e-6)).clamp_max(1).to(norm.dtype)
        for g in gradients:
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        self.network.training = False
        if self.own:
            # The images that all are judged by are the same.
            images = torch.cat([images] * self.network.size, dim=1)
        with self._amp:
            return self.network(images).unbind()

    def seat(self, position: int) -> train.Weighted:
        return _Seat(self.network, position)

    def digest(self, position: int) -> str:
        learner = self._learners[position]
        learner.restore(self.network.state(position))
        return learner.digest()

    def subset(self, positions: Sequence[int]) -> Stacked:
        for position in positions:
            self._learners[position].restore(self.network.state(position))
        fewer = Stacked(
            [self.members[i] for i in positions],
            [self._recipes[i] for i in positions],
            [self._learners[i] for i in positions],
            self._device,
        )
        fewer.update = self.update.subset(positions)
        return fewer

    def state(self) -> dict[str, Any]:
        return {
            "network": {name: t.detach() for name, t in self._tensors().items()},
            "moments": self.update.moments,
            "steps": self.update.steps,
            "dropout": [learner.dropout.get_state() for learner in self._learners],
        }

    @torch.no_grad()
    def load(self, state: Mapping[str, Any]) -> None:
        for name, mine in self._tensors().items():
            mine.copy_(state["network"][name])
        self.update.moments = {
            name: [t.to(self._device) for t in kept] for name, kept in state["moments"].items()
        }
        self.update.steps = state["steps"]
        for learner, drawn in zip(self._learners, state["dropout"], strict=True):
            learner.dropout.set_state(drawn.cpu())

    def _tensors(self) -> dict[str, Tensor]:
        return {**self.network.parameters, **self.network.buffers}


class _Seat:
    """A member's place in a stack, where its weights are kept from and brought back to."""

    def __init__(self, network: Network, position: int) -> None:
        self._network, self._position = network, position

    def weights(self) -> dict[str, Tensor]:
        return {name: t.clone() for name, t in self._network.state(self._position).items()}

    def restore(self, weights: Mapping[str, Tensor]) -> None:
        for name, mine in self._network.state(self._position).items():
            mine.copy_(weights[name])


# --- stacked or in turn -------------------------------------------------------------------------------------------


def _arranged(
    learners: Mapping[_Member, Learner], shape: tuple[int, int, int], classes: int, device: torch.device
) -> list[Group]:
    """Members in groups: in stacks where they can be and it pays, the others each by itself."""
    alike: dict[Any, list[_Member]] = {}
    for number, (member, learner) in enumerate(learners.items()):
        # What is no torch module is alike to nothing.
        model = structure(learner.model) if isinstance(learner, TorchLearner) else number
        alike.setdefault((model, _rule(member.config)), []).append(member)

    def groups(members: list[_Member]) -> list[Group]:
        recipes = [member.config for member in members]
        can = len(members) > 1 and all(isinstance(learners[member], TorchLearner) for member in members)
        if can and pays(recipes, shape, classes, device):
            return [_group(members, learners, device, stacked=True)]
        seeds = dict.fromkeys(recipe.seed for recipe in recipes)
        if can and len(seeds) > 1:
            return [
                group for seed in seeds for group in groups([m for m in members if m.config.seed == seed])
            ]
        return [_group([member], learners, device, stacked=False) for member in members]

    found: list[Group] = []
    for members in alike.values():
        parts = -(-len(members) // MOST_STACKED.get(device.type, 8))
        for i in range(parts):
            found += groups(members[i::parts])
    return found


def _group(
    members: Sequence[_Member], learners: Mapping[_Member, Learner], device: torch.device, *, stacked: bool
) -> Group:
    if not stacked:
        (member,) = members
        return Single(member, learners[member], device)
    parts = [learner for member in members if isinstance(learner := learners[member], TorchLearner)]
    return Stacked(members, [member.config for member in members], parts, device)


def _rule(config: RunConfig) -> tuple[Any, ...]:
    """Of a recipe, what all members of a stack have in common."""
    optimizer = config.optimizer
    nesterov = isinstance(optimizer, configs.Sgd) and optimizer.nesterov
    return optimizer.name, nesterov, config.training.precision


ROUND = 0.25
"""Seconds that one round of steps in turn should take in the measurement, about."""

ROUNDS = 2
"""Rounds that are measured, after one to warm up."""

MOST_BYTES = 1 << 29
"""What the layers of a stack may put out in a step on a CPU, gradients included: a worker should need little beside its data."""

WORTH = 0.95
"""Stacking has to be faster by this much: steps in turn give the very bits of a single run."""


def pays(
    recipes: Sequence[RunConfig], shape: tuple[int, int, int], classes: int, device: torch.device
) -> bool:
    """Whether these members are faster stacked than in turn, on this device; measured once and remembered.

    recipes: of the same structure, rule and precision. shape: of an image. False where they cannot be stacked.
    """
    own = len({recipe.seed for recipe in recipes}) > 1
    model = train.initialised(recipes[0], shape, classes)
    try:
        Network([model], own=own)
    except NotStackableError:
        return False
    batch = recipes[0].training.batch_size
    outputs = sum(math.prod(row.shape) for row in table.summary(model, shape).rows)
    if device.type == "cpu" and 2 * 4 * outputs * batch * len(recipes) > MOST_BYTES:
        return False
    key = {
        "device": runs.machine(device)["device"],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "network": structure(model),
        "rule": _rule(recipes[0]),
        "dropout": sum(any(_chances(recipe)) for recipe in recipes),
        "members": len(recipes),
        "own batches": own,
        "batch": batch,
        "shape": shape,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    file = cache.default_folder() / "fused" / f"{digest}.json"
    try:
        return bool(json.loads(file.read_bytes())["stacked"])
    except (OSError, ValueError, KeyError, TypeError):
        try:
            seconds = measure(recipes, shape, classes, device)
        except Exception as error:
            if not runs.is_out_of_memory(error):
                raise
            return False
        stacked = seconds["stacked"] < WORTH * seconds["in turn"]
        _keep(file, {"stacked": stacked, "seconds": seconds, "of": key})
        return stacked


def _chances(config: RunConfig) -> list[float]:
    return [value for name, value in config.model.model_dump().items() if name == "dropout"]


def _keep(file: Path, content: Mapping[str, Any]) -> None:
    """Complete or not at all; where nothing can be written, the next process measures again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(content, indent=1))
        part.replace(file)


def measure(
    recipes: Sequence[RunConfig], shape: tuple[int, int, int], classes: int, device: torch.device
) -> dict[str, float]:
    """Seconds of a step of all members, `stacked` and `in turn`: the quicker of a few, on images of noise.

    Of large networks on fewer images than a batch has.
    """

    def learners() -> list[TorchLearner]:
        return [TorchLearner(recipe, shape, classes, device) for recipe in recipes]

    noise = torch.Generator().manual_seed(0)
    size = recipes[0].training.batch_size
    images = torch.randn(size, *shape, generator=noise).to(device, memory_format=torch.channels_last)
    labels = torch.randint(classes, (size,), generator=noise).to(device)
    alone = learners()
    one = Stacked([], recipes, learners(), device)
    # Each member's own, where the seeds differ; which images they are makes no difference to the time.
    fed = torch.cat([images] * len(recipes), dim=1) if one.own else images
    named = labels.expand(len(recipes), -1) if one.own else labels
    # Small enough to change nothing that a loss could run away from.
    lr = torch.full((len(recipes),), 1e-6, dtype=torch.float64, device=device)

    def in_turn(count: int) -> None:
        for learner in alone:
            learner.step(images[:count], labels[:count], 1e-6)

    def stacked(count: int) -> None:
        one.advance(fed[:count], named[..., :count], lr)

    few = min(size, 16)
    in_turn(few)
    each = _seconds(lambda: in_turn(few), device) / few
    count = min(size, max(few, int(ROUND / each)))
    found: dict[str, list[float]] = {"stacked": [], "in turn": []}
    for _ in range(1 + ROUNDS):
        found["stacked"].append(_seconds(lambda: stacked(count), device))
        found["in turn"].append(_seconds(lambda: in_turn(count), device))
    return {name: min(times[1:]) for name, times in found.items()}


def _seconds(do: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    # On one thread, of this process's own time: other work on the machine makes no difference to that.
    own = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if own else time.perf_counter
    began = clock()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began
