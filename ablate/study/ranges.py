"""Ranges of settings: of those that are tuned for each arm (`nuisance`), and of the factors of a search.

Both have one notation: `{log: [lo, hi]}`, `{range: [lo, hi]}`, `{int: [lo, hi]}`, or a list of choices. A choice may be a
block that holds ranges of its own, which are searched only where that block is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import StudyError
from ablate.text import brief, format_value

KINDS = ("log", "range", "int")

NEAR_EDGE = 0.1
"""Share of a range, on its own scale, within which an optimum counts as one at the edge."""

Suggest = Callable[["Range"], Any]
"""Returns a value of a range; of choices, the label of one."""


@dataclass(frozen=True)
class Choice:
    """label: as Optuna stores it. value: a plain value, or a block without the settings that are ranges. inner: those."""

    label: str | int | float | bool
    value: Any
    inner: tuple[tuple[str, Range], ...] = ()


@dataclass(frozen=True)
class Range:
    """path: the setting; a range within a choice has a name of its own, `model.cnn.depth`. low, high: both included.

    choices: of the kind `choice`; numbers are labelled by themselves.
    """

    path: str
    kind: Literal["log", "range", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Choice, ...] = ()

    def draw(self, suggest: Suggest) -> Any:
        """Return a value of the range. suggest: asked for every number and every choice in it."""
        suggested = suggest(self)
        if self.kind != "choice":
            return suggested
        chosen = next(choice for choice in self.choices if _is(choice.label, suggested))
        if not chosen.inner:
            return chosen.value
        return {**chosen.value, **{name: inner.draw(suggest) for name, inner in chosen.inner}}

    def parameters(self, value: Any) -> dict[str, Any]:
        """Return what `suggest` has to answer for `draw` to give a value, by name. Raises StudyError where no answer does."""
        if self.kind != "choice":
            if isinstance(value, bool) or not isinstance(value, int | float) or not self.holds(value):
                raise StudyError(f"{brief(value)} is not in its range", place=self.path)
            return {self.path: int(value) if self.kind == "int" else float(value)}
        for choice in self.choices:
            names = {name for name, _ in choice.inner}
            if not choice.inner and format_value(choice.value) == format_value(value):
                return {self.path: choice.label}
            if choice.inner and isinstance(value, dict):
                rest = {name: v for name, v in value.items() if name not in names}
                if format_value(rest) == format_value(choice.value) and names <= set(value):
                    answers = {self.path: choice.label}
                    for name, inner in choice.inner:
                        answers |= inner.parameters(value[name])
                    return answers
        raise StudyError(f"{brief(value)} is not among its choices", place=self.path)

    def like(self, value: Any) -> list[Any]:
        """Return the values of the range that may stand for `value`: itself, or a block with only the settings that a choice has."""
        blocks = [choice for choice in self.choices if isinstance(choice.value, dict)]
        if not isinstance(value, dict):
            return [value]
        names = [{*choice.value, *(name for name, _ in choice.inner)} for choice in blocks]
        return [value, *({n: v for n, v in value.items() if n in named} for named in names)]

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def edge(self, value: Any) -> Literal["", "lower", "upper"]:
        """Return whether an optimum lies so near the end of its range that a better one may lie beyond."""
        if self.kind == "choice" or isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        scale: Callable[[float], float] = math.log if self.kind == "log" else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return "lower" if share <= NEAR_EDGE else "upper" if share >= 1 - NEAR_EDGE else ""

    def within(self) -> tuple[Range, ...]:
        """Return this range and those within its choices."""
        inside = [r for choice in self.choices for _, inner in choice.inner for r in inner.within()]
        return (self, *inside)

    def plain(self) -> Any:
        """Return the range as a study file has it."""
        if self.kind != "choice":
            ends = [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]
            return {self.kind: ends}
        return [
            {**c.value, **{name: inner.plain() for name, inner in c.inner}} if c.inner else c.value
            for c in self.choices
        ]


def read(path: str, plain: Any, place: str) -> Range:
    """Read a range as a study file has it. Raises StudyError."""
    if isinstance(plain, list):
        return Range(path, "choice", choices=_choices(path, plain, place))
    if not isinstance(plain, dict) or len(plain) != 1 or next(iter(plain)) not in KINDS:
        raise StudyError(
            f"should be a range or a list of choices (got {brief(plain)})",
            place=place,
            hint="write {log: [1e-5, 1]}, {range: [0, 0.5]}, {int: [8, 64]} or a list",
        )
    kind, ends = next(iter(plain.items()))
    numbers = isinstance(ends, list) and all(
        isinstance(e, int if kind == "int" else int | float) and not isinstance(e, bool) for e in ends
    )
    if not numbers or len(ends) != 2 or not all(abs(e) < 1e300 for e in ends) or not ends[0] < ends[1]:
        wanted = "two whole numbers" if kind == "int" else "two numbers"
        raise StudyError(f"`{kind}` takes {wanted}, the lower first (got {brief(ends)})", place=place)
    if kind == "log" and ends[0] <= 0:
        raise StudyError(
            "a logarithmic range begins above 0", place=place, hint="for example {log: [1e-5, 1]}"
        )
    return Range(path, kind, float(ends[0]), float(ends[1]))


def _choices(path: str, values: list[Any], place: str) -> tuple[Choice, ...]:
    if len(values) < 2:
        raise StudyError("a choice needs two or more", place=place)
    names = [
        value["name"] for value in values if isinstance(value, dict) and isinstance(value.get("name"), str)
    ]
    named_apart = len(set(names)) == len(values)
    labels = [value if isinstance(value, str | int | float) else format_value(value) for value in values]
    # To Python, and so to Optuna, 0 is False; and null is not the text "null".
    as_text = len(set(labels)) < len(labels)
    choices = []
    for value in values:
        if isinstance(value, dict):
            label = value["name"] if named_apart else format_value(value)
            inner = tuple(
                (name, read(f"{path}.{label}.{name}", v, place)) for name, v in value.items() if _is_range(v)
            )
            choices.append(Choice(label, {n: v for n, v in value.items() if not _is_range(v)}, inner))
        else:
            plain = isinstance(value, str | int | float | bool) and not as_text
            choices.append(Choice(value if plain else format_value(value), value))
    if len({c.label for c in choices}) < len(choices):
        raise StudyError("the same choice stands here twice", place=place)
    return tuple(choices)


def _is(label: Any, suggested: Any) -> bool:
    """Return whether Optuna suggested a label: to Python, True is 1."""
    return isinstance(label, bool) == isinstance(suggested, bool) and bool(label == suggested)


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


def corners(ranges: Sequence[Range]) -> list[dict[str, Any]]:
    """Return overrides that try both ends of every range and every choice, one range at a time."""
    overrides: list[dict[str, Any]] = []
    for searched in ranges:
        if searched.kind == "choice":
            overrides += [
                {searched.path: _corner(choice, end)} for choice in searched.choices for end in (0, 1)
            ]
        else:
            overrides += [{searched.path: _end(searched, end)} for end in (0, 1)]
    return overrides


def _corner(choice: Choice, end: int) -> Any:
    if not choice.inner:
        return choice.value
    return {**choice.value, **{name: inner.draw(lambda r: _end(r, end)) for name, inner in choice.inner}}


def _end(searched: Range, end: int) -> Any:
    if searched.kind == "choice":
        return searched.choices[-end].label
    value = searched.high if end else searched.low
    return int(value) if searched.kind == "int" else value


def to_plain(ranges: Sequence[Range]) -> dict[str, Any]:
    """Return path → range as a study file has it."""
    return {searched.path: searched.plain() for searched in ranges}


def from_plain(plain: Mapping[str, Any]) -> tuple[Range, ...]:
    """Read what `to_plain` returned."""
    return tuple(read(path, searched, path) for path, searched in plain.items())
