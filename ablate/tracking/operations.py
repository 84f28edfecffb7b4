"""What can be recorded: one dataclass for each operation, and the lines of a spool that carry them.

A line is a JSON object: `op` names the operation, the other keys are its fields. What is known of an attempt from the start
(its run, plan and configuration) stands only in the first line of the attempt; lines that were written before this rule
carry it every time and read the same.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ablate import plain_files
from ablate.errors import StoreError
from ablate.study.record import PlanRecord
from ablate.text import cut, format_value, storable


@dataclass(frozen=True)
class RunFacts:
    """What identifies a run, as in `study.design.Run`. values: of a run that tunes or searches, what it tries, by path."""

    key: str
    recipe: str
    arm: str
    seed: int
    phase: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opening:
    """What is known of an attempt from its start. plan: its id. config: as plain values, without the seed where it is free."""

    run: RunFacts
    plan: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """experiment: the study's name. time: seconds since the epoch, when it was put or when its event happened."""

    op: ClassVar[str]
    experiment: str
    time: float


@dataclass(frozen=True)
class StorePlan(Operation):
    """Record a plan, or the plan again with what has been added to it. environment: what it runs with."""

    op: ClassVar[str] = "plan"
    plan: PlanRecord
    environment: Mapping[str, str]


@dataclass(frozen=True)
class AttemptOperation(Operation):
    """An operation on one attempt of a replicate. opening: in the first line of the attempt."""

    key: str
    attempt: int
    opening: Opening | None


@dataclass(frozen=True)
class StartAttempt(AttemptOperation):
    """facts: what is known before the first step."""

    op: ClassVar[str] = "started"
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class LogEpoch(AttemptOperation):
    op: ClassVar[str] = "epoch"
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class FinishAttempt(AttemptOperation):
    """Fields as in `events.Finished`."""

    op: ClassVar[str] = "finished"
    outcome: Literal["finished", "diverged"]
    epoch: int
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class FailAttempt(AttemptOperation):
    """Fields as in `events.Failed`."""

    op: ClassVar[str] = "failed"
    kind: str
    reason: str
    detail: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class SaveModel(AttemptOperation):
    """Keep the trained network with its run. file: where training left the weights; removed when they are stored."""

    op: ClassVar[str] = "model"
    file: str


@dataclass(frozen=True)
class CopyRun(Operation):
    """Record a run that was trained for another study as this study's own. source: MLflow's id of the other run."""

    op: ClassVar[str] = "copy"
    run: RunFacts
    plan: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class SummariseArms(Operation):
    """Record what is known of each arm: name → {"metrics": {…}, "tags": {…}}. step: number of seeds so far."""

    op: ClassVar[str] = "arms"
    arms: Mapping[str, Mapping[str, Any]]
    step: int


@dataclass(frozen=True)
class SupersedeRun(Operation):
    """Record that a run does not count. by: the id of the one that counts."""

    op: ClassVar[str] = "supersede"
    run_id: str
    by: str


@dataclass(frozen=True)
class EndPlan(Operation):
    """Close the plan's own run and the arms'. ending: complete, budget or interrupted. note: the answer in words."""

    op: ClassVar[str] = "end"
    plan: str
    ending: str
    files: Mapping[str, bytes]
    note: str | None


_KINDS: Mapping[str, type[Operation]] = {
    kind.op: kind
    for kind in (
        StorePlan,
        StartAttempt,
        LogEpoch,
        FinishAttempt,
        FailAttempt,
        SaveModel,
        CopyRun,
        SummariseArms,
        SupersedeRun,
        EndPlan,
    )
}


def to_json(operation: Operation) -> dict[str, Any]:
    """Return an operation as plain values, for `from_json`."""
    plain = dict(vars(operation))
    if "opening" in plain and (opening := plain.pop("opening")) is not None:
        plain |= vars(opening)
    if "run" in plain:
        plain["run"] = vars(plain["run"])
    if isinstance(operation, StorePlan):
        plain["plan"] = operation.plan.to_json()
    if "files" in plain:
        plain["files"] = {name: base64.b64encode(file).decode() for name, file in plain["files"].items()}
    return {"op": operation.op, **plain}


def storable_line(plain: Mapping[str, Any]) -> str | None:
    """Return plain values as a line of a spool; None where they hold text that no database takes."""
    line = json.dumps(plain, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        return None
    return None if r"\u0000" in line else line


def storable_values(value: Any) -> Any:
    """Return plain values with all their text as `text.storable` writes it."""
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else storable(value)
    if isinstance(value, Mapping):
        return {storable_values(name): storable_values(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable_values(inner) for inner in value]
    return value


def from_json(plain: Mapping[str, Any]) -> Operation:
    """Return the operation in plain values, of this version or an older one.

    Raises StoreError where it is unknown, or holds a name that leads out of the store: a spool may be from somebody else. Raises
    ValueError where it is not what this version or an older one writes.
    """
    if not isinstance(plain, Mapping) or not isinstance(plain.get("op"), str):
        raise ValueError("it is no record of ablate")  # noqa: TRY004 — it is read, not passed
    kind = _KINDS.get(plain["op"])
    if kind is None:
        raise StoreError(
            f"the spool was written by a newer ablate: its operation {cut(plain['op'])!r} is not known here",
            hint="upgrade ablate to deliver it",
        )
    values = dict(plain)
    if "run" in values:
        values["run"] = _facts(values["run"])
    if issubclass(kind, AttemptOperation):
        opened = "run" in values
        values["opening"] = _opening(values) if opened else None
    if kind is StorePlan:
        _check("plan", values.get("plan"), Mapping)
        values["plan"] = PlanRecord.from_json(values["plan"])
    values.setdefault("note", None)
    values.setdefault("files", {})
    names = [f.name for f in dataclasses.fields(kind)]
    if missing := [name for name in names if name not in values]:
        raise ValueError(f"its {missing[0]} is missing")
    for name in names:
        if name in _TYPES:
            _check(name, values[name], *_TYPES[name])
    if not 0 <= values["time"] < LATEST or not values["experiment"]:
        raise ValueError("its time or its experiment is none")
    if kind is FinishAttempt and values["outcome"] not in ("finished", "diverged"):
        raise ValueError(f"its outcome is {cut(str(values['outcome']))!r}")
    for name in ("attempt", "epoch", "step"):
        if name in names and not 0 <= values[name] < MOST_STEPS:
            raise ValueError(f"its {name} is {cut(str(values[name]))}")
    if "arms" in names:
        for summary in values["arms"].values():
            _check("arms", summary, Mapping)
            _check("metrics", summary.get("metrics"), Mapping)
            _check("tags", summary.get("tags"), Mapping)
    _check_names(values)
    values["files"] = {name: base64.b64decode(text, validate=True) for name, text in values["files"].items()}
    return kind(**{name: values[name] for name in names})


LATEST = 1e11
"""Seconds since the epoch; MLflow counts milliseconds in 64 bits."""

MOST_STEPS = 2**31
"""Epochs and steps are less than this."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "experiment": (str,),
    "time": (int, float),
    "key": (str,),
    "attempt": (int,),
    "epoch": (int,),
    "step": (int,),
    "metrics": (Mapping,),
    "facts": (Mapping,),
    "files": (Mapping,),
    "environment": (Mapping,),
    "tags": (Mapping,),
    "arms": (Mapping,),
    "outcome": (str,),
    "kind": (str,),
    "reason": (str,),
    "detail": (str,),
    "file": (str,),
    "source": (str,),
    "run_id": (str,),
    "by": (str,),
    "ending": (str,),
    "note": (str, type(None)),
}
"""Field of an operation → what its value is."""


def _check(name: str, value: Any, *types: type) -> None:
    """Raise ValueError where a value is none of some types; a truth value is no number."""
    if not isinstance(value, types) or isinstance(value, bool):
        raise ValueError(f"its {name} is {cut(format_value(value))!r}")  # noqa: TRY004 — it is read, not passed


def _facts(plain: Any) -> RunFacts:
    _check("run", plain, Mapping)
    fields = {f.name for f in dataclasses.fields(RunFacts)}
    if not fields - {"values"} <= plain.keys() <= fields:
        raise ValueError("its run has not the fields that a run has")
    for name in ("key", "recipe", "arm", "phase"):
        _check(name, plain[name], str)
    _check("seed", plain["seed"], int)
    _check("values", plain.get("values", {}), Mapping)
    return RunFacts(**plain)


def _opening(values: Mapping[str, Any]) -> Opening:
    _check("plan", values.get("plan"), str)
    _check("config", values.get("config"), Mapping)
    return Opening(values["run"], values["plan"], values["config"])


def _check_names(values: Mapping[str, Any]) -> None:
    """Raise StoreError for a name after which no folder in the store may be called; files are checked when they are written."""
    run = values.get("run")
    for name in (values["experiment"], values.get("key", "key"), run.key if run else "key"):
        if not plain_files.is_inner(name) or "/" in name:
            raise StoreError(f"the spool holds a name that leads out of the store: {cut(format_value(name))}")
