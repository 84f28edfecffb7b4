"""A plan that cannot be read costs its own study: every command goes on with the others, and `ablate run` records it again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ablate.errors import StoreError
from ablate.study.record import PlanRecord


def declared(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda plan: {"declared": plan["declared"] | changed}


def each(part: str, **changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda plan: {part: [item | changed for item in plan[part]]}


SHAPES: Mapping[str, Callable[[dict[str, Any]], Mapping[str, Any]]] = {
    **{
        f"{name} is {value!r}": lambda _, n=name, v=value: {n: v}
        for value, names in (
            (17, ("declared", "text", "reference", "arms", "runs", "looks", "path", "tuned", "importances", "judged")),
            ("text", ("declared", "resolution", "reference", "arms", "runs", "looks", "steps", "final", "read_before", "tuned", "judged")),
            ([1], ("declared", "text", "resolution", "arms", "runs", "looks", "final", "tuned", "importances", "judged")),
            ({"a": 1}, ("declared", "text", "resolution", "arms", "runs", "looks", "tuned", "judged")),
        )
        for name in names
    },
    "a later version": lambda _: {"version": 99},
    "a version that is a text": lambda _: {"version": "2"},
    "no arms": lambda _: {"arms": []},
    "an arm twice": lambda plan: {"arms": [*plan["arms"], plan["arms"][-1]]},
    "no arm of a run": lambda plan: {"arms": plan["arms"][:1]},
    "a key more": lambda _: {"more": 1},
    "no looks": lambda _: {"looks": {"most": 3, "at": [], "taken": 0}},
    "more looks taken than there are": lambda _: {"looks": {"most": 3, "at": [3], "taken": 4}},
    "a margin that is a text": declared(margin="much"),
    "a margin that is none": declared(margin=float("nan")),
    "a direction that is none": declared(direction="up"),
    "a design that is none": declared(design="magic"),
    "factors without levels": declared(factors=[{"name": "gain"}]),
    "a study of a name that leads out": declared(study="../x"),
    "arms without data": each("arms", data={}),
    "arms without a config": each("arms", config=None),
    "runs of a phase that is none": each("runs", phase="late"),
    "runs of a seed that is a text": each("runs", seed="0"),
    "another plan": lambda _: {"id": "0" * 12},
}  # fmt: skip
"""What is wrong with a plan that is valid JSON → what it has instead."""


def damage(path: Path, kind: str) -> None:
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "binary":
            path.write_bytes(os.urandom(999))
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "deep":
            path.write_bytes(b"[" * 100_000)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "wrong shape":
            path.write_bytes(b'[{"version": 2}]')


FILES = ("missing", "empty", "truncated", "binary", "zeros", "deep", "folder", "pipe", "wrong shape")


def plan_file(study: str) -> Path:
    [path] = Path("mlruns/artifacts", study).glob("*/artifacts/plan.json")
    return path


def test_a_record_of_the_wrong_shape_is_refused_in_one_line(workplace):
    workplace.trained(name="toy")
    plain = json.loads(plan_file("toy").read_bytes())
    assert PlanRecord.from_json(plain).study == "toy"
    for name, change in SHAPES.items():
        if name == "another plan":
            continue
        with pytest.raises(StoreError) as refused:
            PlanRecord.from_json(plain | change(plain))
        assert "\n" not in refused.value.message, name


def test_a_damaged_plan_costs_its_study_alone(workplace, capsys):
    workplace.trained(name="toy")
    workplace.ablate("run", workplace.study(name="sound", seeds="2"), "--executor", "inline", "-q")
    path = plan_file("toy")
    content = path.read_bytes()
    wrong = {
        name: json.dumps(json.loads(content) | SHAPES[name](json.loads(content)))
        for name in ("another plan", "no arms")
    }
    for kind in (*FILES, *wrong):
        if kind in wrong:
            path.write_text(wrong[kind])
        else:
            damage(path, kind)
        capsys.readouterr()
        everything = workplace.ablate("status", code=1)
        assert "sound: 6 finished" in everything, kind
        assert "error: toy" in everything, kind
        assert "error: toy" in workplace.ablate("status", "toy", code=2), kind
        assert set(workplace.ablate("list").split()) == {"sound", "toy"}
        reports = workplace.ablate("report", "--format", "json", code=1)
        assert '"study": "sound"' in reports, kind
        assert '"study": "toy"' not in reports, kind
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(content)
    damage(path, "truncated")
    again = workplace.ablate("run", "toy.yaml", "--executor", "inline")
    assert "is damaged" in again
    assert "9 finished" in workplace.ablate("status", "toy")
    assert not list(path.parent.glob(".*")), "what was written aside has been renamed"
