"""A study as commands are given it, by name or by file, and the plan in the store that is meant.

A file is more than the name in it: other files may be of the same study, and it may have been edited since it ran.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.text import cut

if TYPE_CHECKING:
    from ablate.study.design import Plan
    from ablate.study.keys import Study
    from ablate.tracking.plans import StoredPlan
    from ablate.tracking.store import Store

_SUFFIXES = (".yaml", ".yml")

_WORDS = ("question",)
"""Keys that change nothing but words."""


@dataclass(frozen=True)
class GivenStudy:
    """A study of the store. plan: id of the plan that came from the file; None: the latest, which is meant by a name too.

    file: as it was given; None for a name. note: where the file's plan is not the latest one, that in words; else ''.
    is_of_file: whether the file's text made the plan.
    """

    name: str
    plan: str | None = None
    file: str | None = None
    note: str = ""
    is_of_file: bool = True


def find(store: Store, text: str) -> GivenStudy:
    """Return the study that is given by name or by file, of a file the latest plan that came from it.

    Raises StudyError where a file is none of a study, or its study has not run.
    """
    path = Path(text)
    if path.suffix not in _SUFFIXES and not path.is_file():
        return GivenStudy(text)
    from ablate.study import spec
    from ablate.tracking.plans import refuse_deleted, stored_plans, study_names

    study = spec.read(path)
    if study.name not in study_names(store):
        refuse_deleted(store, study.name)
        raise StudyError("this study has not run yet", place=text, hint=f"`ablate run {text}` trains it")
    plans = stored_plans(store, study.name)
    if not plans:  # none of them can be read, or the first is being recorded: whoever reads it says so
        return GivenStudy(study.name, None, text)
    latest = plans[-1]
    mine = [plan for plan in plans if _came_from(plan, study)]
    if not mine:
        note = f"{text}: no plan of {study.name} came from this text; the latest, {_named(latest)}, came from another"
        return GivenStudy(
            study.name, None, text, f"{note}. `ablate run {text}` trains what the file says", False
        )
    if mine[-1] is latest:
        return GivenStudy(study.name, None, text)
    note = f"{text}: the plan that came from it is {mine[-1].record.id}; the latest of {study.name} is {_named(latest)}"
    return GivenStudy(study.name, mine[-1].record.id, text, note)


def plans(
    store: Store, texts: Sequence[str], plan: str | None, notify: Callable[[str], None]
) -> dict[str, str | None]:
    """Return study → id of the plan that is meant, None for the latest, of the studies that are given, or else of all.

    plan: the beginning of an id, which is meant whatever file is given. notify: takes what is to be said of files. Raises
    StudyError, also where two files are of one study and made two plans of it.
    """
    from ablate.tracking.plans import study_names

    found: dict[str, GivenStudy] = {}
    for given in (find(store, text) for text in texts):
        if given.note and plan is None:
            notify(given.note)
        other = found.setdefault(given.name, given)
        if plan is None and other.plan != given.plan:
            raise StudyError(
                f"{other.file or other.name} and {given.file or given.name} are two plans of the study {given.name!r}",
                hint="report one at a time; another name under `study:` keeps them apart",
            )
    named = {name: plan or given.plan for name, given in found.items()}
    return named if texts else dict.fromkeys(study_names(store), plan)


def other_files(store: Store, plan: Plan, command: str) -> str:
    """Return in words that the study of a plan has run from another file than a command names; '' where it has not."""
    from ablate.tracking.plans import stored_plans, study_names

    name = plan.study.name
    stored = stored_plans(store, name) if name in study_names(store) else []
    if not stored:
        return ""
    latest = stored[-1]
    theirs, mine = _files(latest.environment.get("command", "")), _files(command)
    if (
        latest.record.id == plan.id
        or not theirs
        or not mine
        or theirs & mine
        or _came_from(latest, plan.study)
    ):
        return ""
    return (
        f"{name} has run from another file too: {_named(latest)}. Reports show the plan that ran last, and that one with"
        f" `--plan {latest.record.id}`; another name under `study:` keeps them apart"
    )


def _came_from(plan: StoredPlan, study: Study) -> bool:
    """Return whether a study file made a plan: its text did, or one that declares the same."""
    record = plan.record
    return record.judged is None and (
        record.text == study.text or _declared(record.declared) == _declared(study.plain())
    )


def _declared(declared: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in declared.items() if key not in _WORDS}


def _named(plan: StoredPlan) -> str:
    """Return the id of a plan with the command that last worked on it, where that is known."""
    command = plan.environment.get("command")
    return f"{plan.record.id} (`{cut(command)}`)" if command else plan.record.id


def _files(command: str) -> set[str]:
    """Return the names of the study files in a command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return set()
    return {Path(word).name for word in words if Path(word).suffix in _SUFFIXES}
