"""What a study came to, as it was printed, kept beside the store: a command with nothing left to do prints it again.

Working it out again takes pandas, scipy and Optuna, whose imports are most of what such a command takes. What is kept counts only
as long as nothing has changed by which it was found: the record of the plan, how each of its runs ended, and ablate itself; nor
Optuna's journal or a checkpoint, which such a command sees to. Whatever cannot be read, or is of something else, counts as not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ablate import cache_folder
from ablate.study.record import PlanRecord
from ablate.tracking.runs import counted_runs
from ablate.tracking.store import Store
from ablate.training import inputs

if TYPE_CHECKING:
    from ablate.study.design import Plan
    from ablate.tracking.plans import StoredPlan


class AnswerLine(NamedTuple):
    """A line for people. style: as rich has it. is_item: whether it is one of a list below the line before."""

    text: str
    style: str = ""
    is_item: bool = False


def keep(store: Store, record: PlanRecord, lines: Sequence[AnswerLine]) -> None:
    """Keep what a study has come to. record: its plan, of which nothing is left to do and no run has failed.

    Nothing is kept where a command would say more than these lines: that other plans have judged the same runs, or that saved networks
    are missing.
    """
    if store.database is None or record.read_before or _saves_networks(record):
        return
    value = {"of": _state(store, record), "lines": [list(line) for line in lines]}
    cache_folder.keep(_place(store, record.study), value)


def find(store: Store, latest: StoredPlan, plan: Plan) -> list[AnswerLine] | None:
    """Return what is kept of a plan; None where it has to be worked out.

    latest: of the study's plans, ended with nothing left to do. plan: what the study file asks for.
    """
    record, study = latest.record, plan.study
    is_same = (record.id, record.text) == (plan.id, study.text)
    has_checkpoints = any((store.root / "checkpoints").glob("*"))
    if not is_same or has_checkpoints or record.looks != record.looks.resumed(study.looks):
        return None
    kept = cache_folder.kept(_place(store, study.name))
    if "of" not in kept or kept["of"] != _state(store, record):
        return None
    try:
        lines = [AnswerLine(*line) for line in kept["lines"]]
    except (LookupError, TypeError):
        return None
    whole = all(isinstance(line.text, str) and isinstance(line.style, str) for line in lines)
    return lines if lines and whole else None


def _place(store: Store, study: str) -> Path:
    return store.root / "cache" / f"{study}.answer.json"


def _saves_networks(record: PlanRecord) -> bool:
    kinds = (arm.config.get("training") for arm in record.arms)
    return any(isinstance(kind, dict) and kind.get("save_model", "none") != "none" for kind in kinds)


def _state(store: Store, record: PlanRecord) -> str:
    """Return the digest of all that the answer follows from."""
    counted = counted_runs(store, record)
    runs = [
        [key, run.run_id, run.status, run.end, sorted(run.tags.items())]
        for key, run in sorted(counted.items())
    ]
    read = {text for run in counted.values() if (text := run.tags.get("ablate.inputs"))}
    journal = store.root / "optuna.journal"
    about = journal.stat() if journal.exists() else None
    ledger = about and [about.st_size, about.st_mtime_ns]
    changed = [inputs.changed(text) for text in sorted(read)]
    state = [record.to_json(), runs, ledger, changed, list(_own_files(Path(__file__).parent))]
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _own_files(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the files of ablate, each with its size and the time of its last change."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir() and entry.name != "__pycache__":
                yield from _own_files(Path(entry.path))
            elif entry.name.endswith(".py"):
                about = entry.stat()
                yield entry.path, about.st_size, about.st_mtime_ns
