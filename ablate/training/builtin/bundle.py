"""The runs of a bundle, sorted into training loops: runs of the same seed, data and augmentation share one."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ablate.config import RunConfig
from ablate.data import datasets
from ablate.data.datasets import Dataset
from ablate.events import Task
from ablate.models import foreign
from ablate.training.builtin import checkpoint, choose, memory
from ablate.training.builtin.batches import Splits
from ablate.training.builtin.best import Best
from ablate.training.builtin.checkpoint import Keeper
from ablate.training.builtin.learner import Learner, TorchLearner, device_of, make_learner
from ablate.training.builtin.loop import Loop, beside_others, saved_groups, step_group
from ablate.training.builtin.member import Member
from ablate.training.outcome import CANCELLED, Steps, failure, is_end, is_out_of_memory, machine
from ablate.training.payload import Folders, RunPayload


@dataclass(frozen=True)
class _Run:
    """A task, and what its payload says. config: with its seed."""

    task: Task
    payload: RunPayload
    config: RunConfig

    @property
    def key(self) -> str:
        return self.task.run

    @property
    def device(self) -> torch.device:
        return device_of(self.config, self.payload.device)


def steps(tasks: Sequence[Task], folders: Folders, cancelled: Collection[str]) -> Steps:
    """Train the runs of a bundle: in one loop those that may share batches, where their payloads ask for it; else one by one.

    A run that has a checkpoint of its own trains alone. cancelled: keys of the runs to break off; it grows meanwhile.
    """
    fuse = all(task.payload.fuse for task in tasks)
    loops: dict[Any, list[_Run]] = {}
    for position, task in enumerate(tasks):
        payload: RunPayload = task.payload
        try:
            run = _Run(task, payload, RunConfig.parse(payload.config).with_seed(payload.seed))
            is_alone = not fuse or _has_checkpoint(task.run, folders)
            loops.setdefault(position if is_alone else _what_is_shared(run), []).append(run)
        except Exception as error:  # noqa: BLE001 — a failed attempt, not a dead worker
            yield task.run, failure(error)
    for runs in loops.values():
        yield from _train(runs, folders, cancelled, fuse=fuse)


def _has_checkpoint(run: str, folders: Folders) -> bool:
    return folders.checkpoints is not None and checkpoint.place(folders.checkpoints, run).exists()


def _what_is_shared(run: _Run) -> tuple[Any, ...]:
    """Return what runs of the same loop have in common."""
    any_seed = torch.device(run.payload.device).type in choose.OWN_BATCHES
    return run.config.batches(any_seed=any_seed), run.payload.device, run.payload.threads


def _train(runs: Sequence[_Run], folders: Folders, cancelled: Collection[str], *, fuse: bool) -> Steps:
    """Train runs that may share a loop, and end each of them, also where training raises. fuse: whether runs may share at all."""
    unfinished = {run.key: run for run in runs}
    for key in [key for key in unfinished if key in cancelled]:
        del unfinished[key]
        yield key, CANCELLED
    if not unfinished:
        return
    first, *others = unfinished.values()
    separate: list[str] = []
    keeper: Keeper | None = None
    data: Dataset | None = None

    def advice() -> str:
        if len(failing) > 1:
            return beside_others(len(failing))
        return memory.advice(first_failing.config, data, first_failing.device) if data else "out of memory"

    try:
        torch.set_num_threads(first.payload.threads)
        keeper, alone = _keeper([first, *others], folders, fuse=fuse)
        data = datasets.prepare(first.config.data, wanted=first.payload.data)
        for key, message in _loop([first, *others], data, folders, keeper, cancelled, separate, alone=alone):
            if is_end(message):
                del unfinished[key]
            yield key, message
    except (Exception, SystemExit) as error:  # noqa: BLE001 — failed attempts, not a dead worker
        failing = [run for run in unfinished.values() if run.key not in separate]
        first_failing = failing[0]
        end = failure(error, advice)
        if keeper is not None:
            # What failed would only fail again.
            keeper.remove()
    else:
        failing = []
    for run in failing:
        yield run.key, end
    for key in separate:
        yield from _train([unfinished[key]], folders, cancelled, fuse=False)


def _keeper(runs: Sequence[_Run], folders: Folders, *, fuse: bool) -> tuple[Keeper, bool]:
    """Return where a loop is saved, and whether it has one run only, from the beginning."""
    keys = [run.key for run in runs]
    folder, path, alone = folders.checkpoints, None, len(runs) == 1
    if folder is not None:
        saved = checkpoint.saved_together(folder, keys) if fuse else None
        # The last of a bundle resumes as part of it.
        alone = alone and saved is None
        if alone:
            # A checkpoint of training together is none for this run alone.
            checkpoint.remove_together(folder, keys)
            path = checkpoint.place(folder, *keys)
        else:
            path = saved or checkpoint.place_together(folder, keys)
    every = runs[0].payload.checkpoint_every
    # The same arithmetic gives the same bits.
    facts = machine(runs[0].device)
    conditions = {"device": facts["device"], "torch": facts["torch"], "threads": torch.get_num_threads()}
    return Keeper(path, checkpoint.EVERY if every is None else every, conditions, keys), alone


def _loop(
    runs: Sequence[_Run],
    data: Dataset,
    folders: Folders,
    keeper: Keeper,
    cancelled: Collection[str],
    separate: list[str],
    *,
    alone: bool,
) -> Steps:
    """Train runs in one loop. Those that train faster one after another are left out and put into `separate`."""
    began = time.perf_counter()
    device, classes = runs[0].device, len(data.classes)
    splits = Splits(runs[0].config, data, device)
    learners: dict[str, Learner] = {}
    for run in runs:
        try:
            learners[run.key] = make_learner(run.config, data.shape, classes, device)
        except Exception as error:
            if len(runs) == 1:
                raise
            end = failure(error)
        else:
            continue
        yield run.key, end
    for run in runs:
        learner = learners.get(run.key)
        if run.config.model.is_foreign and isinstance(learner, TorchLearner):
            foreign.claim(learner.model)
    members = {
        run.key: Member(run.key, run.config, learners[run.key].summary, _best(run, folders))
        for run in runs
        if run.key in learners
    }

    def loop_of(chosen: Sequence[tuple[Sequence[str], bool]]) -> Loop:
        groups = [
            step_group([members[key] for key in keys], learners, device, stacked=stacked)
            for keys, stacked in chosen
        ]
        loop = Loop(groups, splits, device, keeper, alone=alone, began=began, cancelled=cancelled)
        keeper.runs = frozenset(member.run for member in loop.members)
        return loop

    saved = keeper.load() if len(members) == len(runs) else None
    if saved is not None:
        try:
            loop = loop_of(saved_groups(saved))
            loop.load(saved)
        except checkpoint.NO_STATE as error:
            if is_out_of_memory(error):
                raise
            keeper.remove()
            yield from _loop(runs, data, folders, keeper, cancelled, separate, alone=alone)
            return
        learners.clear()
        yield from loop.steps()
        return
    if alone:
        chosen = [([run.key for run in runs], False)]
    else:
        if folders.checkpoints is not None:
            checkpoint.remove_together(folders.checkpoints, [run.key for run in runs])
        keys = list(members)
        configs = [member.config for member in members.values()]
        arrangement = choose.arrange(configs, [learners[key] for key in keys], data.shape, classes, device)
        separate += [keys[position] for position in arrangement.separate]
        for position, label in arrangement.labels.items():
            members[keys[position]].fused = label
        chosen = [([keys[i] for i in group], len(group) > 1) for group in arrangement.groups]
    if not chosen:
        return
    loop = loop_of(chosen)
    learners.clear()
    yield from loop.steps()


def _best(run: _Run, folders: Folders) -> Best | None:
    """Return where the network of the best epoch is to be saved; None where it is not."""
    if run.config.training.save_model == "none" or folders.models is None:
        return None
    assert run.payload.metric is not None, "the best epoch is that of the study's metric"
    return Best(run.payload.metric, folders.models / f"{run.key}-{run.task.attempt}.pt")
