"""The training loop: runs whose batches are drawn once for all of them, from their start to the end of the last. Often it is one run.

A run that ends (at its last epoch, early, diverged, cancelled, out of memory) leaves, and the others go on as if it had never been
there. All runs of a loop are saved together (`checkpoint`); broken off, they resume together, to the bit, or begin again.

Every run draws its randomness from streams of its own seed, so on a CPU the same config gives the same weights bit for bit, in
every process, alone and beside others, unless it is stacked with them (`stack`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ablate.training.builtin.batches import Pixels, Splits, augmented_batches
from ablate.training.builtin.checkpoint import Keeper
from ablate.training.builtin.evaluation import Evaluation, EvaluationSums, sum_dtype
from ablate.training.builtin.learner import Learner, TorchLearner
from ablate.training.builtin.member import Member
from ablate.training.builtin.randomness import batch_streams
from ablate.training.builtin.schedules import schedule
from ablate.training.builtin.stack import Networks, Single, Stacked
from ablate.training.outcome import (
    CANCELLED,
    Epoch,
    Failure,
    Message,
    Result,
    Start,
    Steps,
    failure,
    is_out_of_memory,
    machine,
)

Batch = tuple[Tensor, Tensor, bool]
"""Images, targets, and whether nothing has been drawn beyond: as `augmented_batches` yields them."""


@dataclass
class StepGroup:
    """Runs that take each step at once. networks: theirs, in the same order. losses, correct: (m,) float64 sums over the epoch under
    way, on the device.
    """

    members: list[Member]
    networks: Networks
    losses: Tensor
    correct: Tensor

    def step(self, batches: Mapping[int, Batch]) -> None:
        """Take one step. batches: by seed."""
        drawn = [batches[member.config.seed] for member in self.members]
        if self.networks.own_batches:
            images = torch.cat([images for images, _, _ in drawn], dim=1)
            targets = torch.stack([targets for _, targets, _ in drawn])
        else:
            images, targets, _ = drawn[0]
        loss, correct = self.networks.step(images, targets)
        self.losses += loss
        self.correct += correct

    def subset(self, positions: Sequence[int]) -> StepGroup:
        if len(positions) == len(self.members):
            return self
        members = [self.members[i] for i in positions]
        chosen = list(positions)
        return StepGroup(members, self.networks.subset(chosen), self.losses[chosen], self.correct[chosen])


def step_group(
    members: Sequence[Member], learners: Mapping[str, Learner], device: torch.device, *, stacked: bool
) -> StepGroup:
    """Return a group before its first step. learners: by run. stacked: whether the members are; else there is one."""
    own = [learners[member.run] for member in members]
    networks: Networks
    if stacked:
        modules = [learner for learner in own if isinstance(learner, TorchLearner)]
        networks = Stacked([member.config for member in members], modules, device)
    else:
        (learner,) = own
        networks = Single(learner)
    sums = torch.zeros(len(members), dtype=sum_dtype(device), device=device)
    return StepGroup(list(members), networks, sums, sums.clone())


def saved_groups(saved: Mapping[str, Any]) -> list[tuple[list[str], bool]]:
    """Return the groups of a checkpoint's state: the runs of each, and whether they are stacked."""
    return [(group["runs"], group["stacked"]) for group in saved["groups"]]


class Loop:
    """Trains runs that share their batches: of the same data, augmentation, batch size and number of epochs.

    groups: all of the runs. splits: their images. keeper: of their checkpoint. alone: whether there has been one run from the beginning.
    began: when training began, by `time.perf_counter`. cancelled: keys of the runs to break off; it grows while the loop runs.
    """

    def __init__(
        self,
        groups: Sequence[StepGroup],
        splits: Splits,
        device: torch.device,
        keeper: Keeper,
        *,
        alone: bool,
        began: float,
        cancelled: Collection[str],
    ) -> None:
        self.groups = list(groups)
        self._splits, self._device, self._keeper, self._alone = splits, device, keeper, alone
        self._clock = began
        self._attributed = 0.0
        self._resumed = False
        self._cancelled = cancelled
        self._recipe = self.members[0].config
        self._epoch_steps = math.ceil(len(splits.training) / self._recipe.training.batch_size)
        # Early stopping is not foreseen: a schedule is made for all epochs.
        self._rates = {
            member.run: schedule(
                member.config.schedule,
                member.config.optimizer.lr,
                member.config.training.epochs * self._epoch_steps,
            )
            for member in self.members
        }
        # By seed: the streams, and the order of the images in the epoch under way; no orders between two epochs.
        self._streams = {
            seed: batch_streams(seed, device)
            for seed in dict.fromkeys(member.config.seed for member in self.members)
        }
        self._orders: dict[int, Tensor] = {}
        self._batches = 0

    @property
    def members(self) -> list[Member]:
        """The runs that have not ended."""
        return [member for group in self.groups for member in group.members]

    def steps(self) -> Steps:
        """Train to the end of the last run."""
        for member in self.members:
            yield member.run, Start(self._facts(member))
            # A resumed run tells all of its epochs, like any other attempt.
            for number, values in enumerate(member.history, 1):
                if member.run not in self._cancelled:
                    yield member.run, Epoch(number, values)
        yield from self._end_cancelled()
        while self.groups:
            yield from self._epoch()

    def _facts(self, member: Member) -> dict[str, Any]:
        facts = machine(self._device)
        if member.fused is not None:
            facts["fused"] = member.fused
        facts |= {"parameters": member.summary.parameters, "flops": member.summary.flops}
        if self._resumed:
            facts["resumed"] = f"in epoch {member.epoch + 1}"
        return facts

    # --- an epoch ---

    def _epoch(self) -> Steps:
        first = self.members[0].epoch * self._epoch_steps
        if not self._orders:
            self._begin_epoch()
        last_rates: dict[str, float] = {}
        for group in self.groups:
            rates = [
                [self._rates[member.run](first + step) for member in group.members]
                for step in range(self._epoch_steps)
            ]
            group.networks.set_rates(rates[self._batches :])
            last_rates |= {member.run: rate for member, rate in zip(group.members, rates[-1], strict=True)}
        yield from self._train()
        self._orders = {}
        evaluations = yield from self._evaluate(self._splits.validation, self.groups)
        self._share_time()
        ends: dict[str, Result] = {}
        for group in self.groups:
            sums = zip(group.members, group.losses.tolist(), group.correct.tolist(), strict=True)
            for position, (member, loss, correct) in enumerate(sums):
                evaluation = evaluations[member.run]
                values = {
                    "train/loss": loss / len(self._splits.training),
                    "train/accuracy": correct / len(self._splits.training),
                    **evaluation.metrics("val"),
                    "lr": last_rates[member.run],
                }
                member.trace.add(values["train/loss"], values["val/loss"])
                member.history.append(values)
                yield member.run, Epoch(member.epoch + 1, values)
                if math.isfinite(loss) and math.isfinite(evaluation.loss):
                    member.end_epoch(evaluation, group.networks.network(position))
                else:
                    ends[member.run] = member.diverged()
        yield from self._end_cancelled()
        done = {member.run for member in self.members if member.run not in ends and member.is_done}
        if done:
            ends |= yield from self._test(done)
        ends = {member.run: ends[member.run] for member in self.members if member.run in ends}
        if ends:
            # Before their ends are yielded: the receiver may rely on their checkpoints being gone.
            self._leave(ends)
            self._renew_checkpoint()
        yield from ends.items()

    def _begin_epoch(self) -> None:
        """Draw the order of the images, and set the sums to zero."""
        count = len(self._splits.training)
        seeds = dict.fromkeys(member.config.seed for member in self.members)
        self._orders = {seed: torch.randperm(count, generator=self._streams[seed]["order"]) for seed in seeds}
        self._batches = 0
        for group in self.groups:
            group.losses.zero_()
            group.correct.zero_()

    def _train(self) -> Steps:
        """Do the steps of an epoch, or what is left of them. Nothing in it waits for the device."""
        size = self._recipe.training.batch_size
        feeds = [
            augmented_batches(
                self._recipe,
                self._streams[seed],
                self._splits.training,
                order[self._batches * size :],
                len(self._splits.classes),
            )
            for seed, order in self._orders.items()
        ]
        is_checkpoint_outdated = False
        for drawn in zip(*feeds, strict=True):
            batches = dict(zip(self._orders, drawn, strict=True))
            for group in list(self.groups):
                began = time.perf_counter()
                try:
                    group.step(batches)
                except Exception as error:  # noqa: BLE001 — failed attempts, not a dead worker
                    failed = self._failure(error)
                else:
                    self._attribute(group, began)
                    continue
                is_checkpoint_outdated = True
                yield from self._fail(group, failed)
            self._batches += 1
            if all(is_last_drawn for _, _, is_last_drawn in drawn):
                if is_checkpoint_outdated:
                    is_checkpoint_outdated = False
                    self._renew_checkpoint()
                self._keeper.offer(self._state)

    def _evaluate(
        self, pixels: Pixels, groups: Sequence[StepGroup]
    ) -> Generator[tuple[str, Message], None, dict[str, Evaluation]]:
        """Evaluate groups on a split. Returns the evaluations by run, without the runs that failed at it."""
        sums = {member.run: EvaluationSums(self._device) for group in groups for member in group.members}
        groups = list(groups)
        for images, labels in pixels.in_order():
            for group in list(groups):
                began = time.perf_counter()
                try:
                    with torch.no_grad():
                        for member, logits in zip(group.members, group.networks.logits(images), strict=True):
                            sums[member.run].add(logits, labels)
                except Exception as error:  # noqa: BLE001 — failed attempts, not a dead worker
                    failed = self._failure(error)
                else:
                    self._attribute(group, began)
                    continue
                groups.remove(group)
                yield from self._fail(group, failed)
        return {member.run: sums[member.run].evaluation() for group in groups for member in group.members}

    def _test(self, done: Collection[str]) -> Generator[tuple[str, Message], None, dict[str, Result]]:
        """Evaluate runs on the test set, with the weights that count. Returns their results, without those that failed at it."""
        staying = self._groups_of(lambda member: member.run not in done)
        ending = self._groups_of(lambda member: member.run in done)
        self.groups = [*staying, *ending]
        for group in ending:
            for position, member in enumerate(group.members):
                assert member.counted is not None
                if member.counted.weights is not None:
                    group.networks.network(position).restore(member.counted.weights)
        tested = yield from self._evaluate(self._splits.test(), ending)
        self._share_time()
        return {
            member.run: member.finished(self._splits, tested[member.run], group.networks.digest(position))
            for group in ending
            for position, member in enumerate(group.members)
            if member.run in tested
        }

    # --- runs that leave ---

    def _end_cancelled(self) -> Steps:
        cancelled = [member.run for member in self.members if member.run in self._cancelled]
        if not cancelled:
            return
        self._leave(cancelled)
        # A run that trains alone keeps its checkpoint: what cancelled it may ask for it again.
        if self.groups or not self._alone:
            self._renew_checkpoint()
        for run in cancelled:
            yield run, CANCELLED

    def _failure(self, error: Exception) -> Failure:
        """Return how an exception ends the runs of a group. Called where it is handled; raises it where there is no other group."""
        if len(self.groups) == 1:
            raise  # noqa: PLE0704 — called where it is handled
        if is_out_of_memory(error):
            # The traceback holds every tensor of the step.
            error.__traceback__ = None
            return Failure("memory", beside_others(len(self.members)))
        return failure(error)

    def _fail(self, group: StepGroup, failed: Failure) -> Steps:
        runs = [member.run for member in group.members]
        self._leave(runs)
        for run in runs:
            yield run, failed

    def _leave(self, runs: Collection[str]) -> None:
        self.groups = self._groups_of(lambda member: member.run not in runs)

    def _groups_of(self, chosen: Callable[[Member], bool]) -> list[StepGroup]:
        """Return the groups with the chosen members alone."""
        groups = []
        for group in self.groups:
            positions = [i for i, member in enumerate(group.members) if chosen(member)]
            if positions:
                groups.append(group.subset(positions))
        return groups

    def _attribute(self, group: StepGroup, began: float) -> None:
        """Give the time since `began` to the runs of a group, evenly: they are of one shape. On a GPU it is the time in which their
        operations were queued.
        """
        seconds = time.perf_counter() - began
        for member in group.members:
            member.seconds += seconds / len(group.members)
        self._attributed += seconds

    def _share_time(self) -> None:
        """Divide the time since the last call evenly among the runs that have not ended, but for what groups had to themselves."""
        now, members = time.perf_counter(), self.members
        shared = now - self._clock - self._attributed
        for member in members:
            member.seconds += shared / len(members)
        self._clock, self._attributed = now, 0.0

    # --- checkpoints ---

    def _state(self) -> dict[str, Any]:
        """Return all that the next step depends on, as tensors and plain values, for `load`."""
        self._share_time()
        groups = [
            {
                "runs": [member.run for member in group.members],
                "stacked": isinstance(group.networks, Stacked),
                "losses": group.losses,
                "correct": group.correct,
                "networks": group.networks.state(),
            }
            for group in self.groups
        ]
        seeds = {member.config.seed for member in self.members}
        streams = {
            seed: {source: stream.get_state() for source, stream in self._streams[seed].items()}
            for seed in seeds
        }
        return {
            "groups": groups,
            "members": {member.run: member.save() for member in self.members},
            "streams": streams,
            "orders": {seed: order for seed, order in self._orders.items() if seed in seeds},
            "batches": self._batches,
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Resume from a checkpoint's state. The groups are those of `saved_groups`."""
        self._resumed = True
        for group, state in zip(self.groups, saved["groups"], strict=True):
            group.networks.load(state["networks"])
            group.losses, group.correct = (state[name].to(self._device) for name in ("losses", "correct"))
        for member in self.members:
            member.load(saved["members"][member.run])
        for seed, states in saved["streams"].items():
            for source, state in states.items():
                self._streams[seed][source].set_state(state.cpu())
        self._orders = {seed: order.cpu() for seed, order in saved["orders"].items()}
        self._batches = saved["batches"]

    def _renew_checkpoint(self) -> None:
        """Save again without the runs that left, where there is something saved: it would restore them."""
        self._keeper.runs = frozenset(member.run for member in self.members)
        if self.groups:
            self._keeper.renew(self._state)
        else:
            self._keeper.remove()


def beside_others(runs: int) -> str:
    """Return the reason where runs ran out of memory together. runs: how many were in training."""
    return f"out of memory beside {runs - 1} other runs"
