r"""Metrics in JSON: lines such as `{"epoch": 1, "val/accuracy": 0.7}`, on stdout or stderr.

metrics: {accuracy: {json: val/accuracy}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Self

from ablate.errors import StudyError
from ablate.lines import parse_number, plain_text
from ablate.text import brief, cut
from ablate.training.channels.reading import Findings, Found, Places, whole_step

STEPS = ("epoch", "step", "global_step", "iteration")
"""Names of what tells a step, the first of them that is there, unless the study names another."""


class PrintedFloat(float):
    """A number of a JSON text. resolution: of its text."""

    resolution: float | None

    def __new__(cls, text: str) -> Self:
        number = super().__new__(cls, text)
        parsed = parse_number(text)
        number.resolution = parsed[1] if parsed else None
        return number


def json_object(line: str) -> dict[str, Any] | None:
    """Return the object that a line is; None where it is none."""
    text = plain_text(line).strip()
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text, parse_float=PrintedFloat)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def value_at(tree: Mapping[str, Any], name: str) -> Any:
    """Return the value of a name, which may be a dotted path into blocks; None where there is none."""
    if name in tree:
        return tree[name]
    outer, _, inner = name.partition(".")
    block = tree.get(outer)
    return value_at(block, inner) if inner and isinstance(block, Mapping) else None


def step_of(row: Mapping[str, Any], named: str | None) -> int | None:
    """Return the step of a row of values. named: what the study says tells it."""
    names = STEPS if named is None else (named,)
    return next((step for name in names if (step := whole_step(value_at(row, name))) is not None), None)


def number_in(metric: str, value: Any, step: int | None) -> Found | None:
    """Return a value of a row as what was found; None where it is no number."""
    if isinstance(value, str):
        parsed = parse_number(value)
        return Found(metric, parsed[0], step, parsed[1]) if parsed else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond all floats
        number = math.inf if value > 0 else -math.inf
    resolution = getattr(value, "resolution", 1.0 if isinstance(value, int) else None)
    return Found(metric, number, step, resolution if math.isfinite(number) else None)


def check_names(metric: str, spec: Mapping[str, Any]) -> None:
    """Raise StudyError where a key of a metric's channel is no text."""
    for key, value in spec.items():
        if not isinstance(value, str) or not value:
            raise StudyError(f"should be text (got {brief(value)})", place=f"metrics.{metric}.{key}")


class JsonChannel:
    """Objects that stand in lines of their own."""

    key = "json"
    others: tuple[str, ...] = ("step",)

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        check_names(metric, spec)

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], places: Places) -> None:  # noqa: ARG002 — it reads no files
        self._specs = specs
        self._found: set[str] = set()
        self._names: dict[str, None] = {}

    def line(self, text: str) -> Findings:
        row = json_object(text)
        if row is None:
            return []
        self._names |= dict.fromkeys(row)
        findings: Findings = []
        for metric, spec in self._specs.items():
            found = number_in(metric, value_at(row, spec["json"]), step_of(row, spec.get("step")))
            if found is not None:
                self._found.add(metric)
                findings.append(found)
        return findings

    def look(self, ended: bool) -> list[Findings]:  # noqa: ARG002 — it reads no files
        return []

    def missing(self) -> Mapping[str, str]:
        told = f"they had {cut(', '.join(self._names))}" if self._names else "there were none"
        return {
            metric: f"no line of JSON had a number under {spec['json']!r}; {told}"
            for metric, spec in self._specs.items()
            if metric not in self._found
        }
