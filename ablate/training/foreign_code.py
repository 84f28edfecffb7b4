"""Watches over the user's own code within the built-in training: over networks that a study imports.

Its runs stand under the digest of the code that they were planned with, so a process that imports other code trains nothing; and
what its modules keep from one run is not seen by the next bundle, which begins in a fresh process. Not a part of `builtin`, since no
result of a run depends on it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ablate.code_digest import is_users, look_in_working_folder, training_code
from ablate.config import RunConfig
from ablate.events import Task
from ablate.text import cut
from ablate.training.outcome import Failure, Message, Result, Steps, is_end
from ablate.training.payload import RunPayload
from ablate.training.state import ProcessState, seed_everything, worker_state

LONGEST_LEFT = 300
"""Characters of the names of what a bundle left behind, in the record of its last run."""

CHANGED = "its code has changed since the plan was made; run the study again: it makes a plan with the code as it is"

_states: dict[tuple[str, ...], ProcessState | None] = {}
"""What there was before the first bundle of some targets, once their modules were imported."""


def is_users_module(name: str) -> bool:
    """Return whether a module that is loaded belongs to the user."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file is not None and is_users(file)


def watched(train: Callable[[Sequence[Task]], Steps], tasks: Sequence[Task]) -> Steps:
    """Train the runs of a bundle by `train`, some of which have networks of the user's."""
    targets = {task.run: target for task in tasks if (target := _target(task)) is not None}
    names = tuple(sorted(set(targets.values())))
    loaded = set(sys.modules)
    if names not in _states:
        # What its modules draw while they are imported is the same in every process. Each run seeds the generators anew.
        seed_everything(0)
        for name in names:
            # What is wrong with it fails the runs that need it, in words of their own.
            _import(name)
        stale = [task for task in tasks if task.run in targets and _is_of_other_code(task)]
        yield from ((task.run, _changed(targets[task.run])) for task in stale)
        if stale:
            tasks = [task for task in tasks if task not in stale]
        else:
            new = {name for name in set(sys.modules) - loaded if is_users_module(name)}
            _states[names] = worker_state({*new, *_modules(names)})
    if names not in _states:
        yield from train(tasks)
        return
    state = _states[names]
    if state is not None:
        state.begin()
    by_run = {task.run: task for task in tasks}
    seen = _users_modules()
    held: tuple[str, Message] | None = None
    failed = False
    for run, message in train(tasks):
        if held is not None:
            yield held
            held = None
        end = message
        # What was imported in the middle of the run may have been edited since the plan was made.
        has_imported = isinstance(message, Result) and run in targets and _users_modules() - seen
        if has_imported and _is_of_other_code(by_run[run]):
            end = _changed(targets[run])
        failed |= isinstance(end, Failure) and end.kind != "cancelled"
        if is_end(end):
            held = run, end
        else:
            yield run, end
    if held is not None:
        yield held[0], _last(held[1], state, failed=failed)


def _last(end: Message, state: ProcessState | None, *, failed: bool) -> Message:
    """Return the last end of a bundle, with whether its process may train anything else."""
    assert isinstance(end, Result | Failure)
    left = state.left_behind(is_users_module) if state is not None else []
    if isinstance(end, Result) and left:
        end = replace(end, facts={**end.facts, "left_behind": cut(", ".join(left), LONGEST_LEFT)})
    return replace(end, spent=bool(left) or failed)


def _target(task: Task) -> str | None:
    """Return what builds the network of a run, where that is the user's code."""
    payload: RunPayload = task.payload
    model = payload.config.get("model", {})
    return model.get("target") if model.get("name") == "import" else None


def _import(target: str) -> None:
    look_in_working_folder()
    # Importing runs code of the user's, which may raise anything.
    with contextlib.suppress(Exception, SystemExit):
        importlib.import_module(target.partition(":")[0])


def _modules(targets: Sequence[str]) -> Iterator[str]:
    for target in targets:
        yield from training_code(target, "model.target").modules


def _users_modules() -> set[str]:
    return {name for name in list(sys.modules) if is_users_module(name)}


def _is_of_other_code(task: Task) -> bool:
    payload: RunPayload = task.payload
    return payload.code is not None and RunConfig.parse(payload.config).code() != payload.code


def _changed(target: str) -> Failure:
    return Failure("code", CHANGED, place=target)
