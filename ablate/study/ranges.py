"""Where a setting is looked for: a range of numbers, or a choice; and how a search is to look.

One notation for settings that are tuned per arm (`nuisance`) and for the factors of a `search`: `{log: [lo, hi]}`,
`{range: [lo, hi]}`, `{int: [lo, hi]}`, or a list of choices. A choice may be a block that holds ranges of its own; they are
looked at only where that block is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import StudyError, nearest
from ablate.study.record import SearchSettings
from ablate.text import brief, format_value, parse_duration

KINDS = ("log", "range", "int")
SAMPLERS = ("tpe", "random", "qmc", "gp", "nsgaii")
PRUNERS = ("none", "asha", "hyperband", "median")
COSTS = ("flops", "parameters", "seconds")
TRIALS = {"nuisance": 12, "search": 50}
MOST_TRIALS = 900
"""Trials of a search: repeated ones and the candidates' second look need seeds of the same thousand."""

NEAR_EDGE = 0.1
"""Share of a range, on its own scale, within which an optimum is called one at the edge."""

Suggest = Callable[["Range"], Any]
"""Asks for a value of a range; of choices, the label of one."""


@dataclass(frozen=True)
class Choice:
    """label: as Optuna stores it. value: a plain value, or a block without the settings that are ranges. inner: those."""

    label: str | int | float | bool
    value: Any
    inner: tuple[tuple[str, Range], ...] = ()


@dataclass(frozen=True)
class Range:
    """path: what is set; the name of a range within a chosen block is its own. low, high: both included.

    choices: of `kind` choice; numbers are labelled by themselves.
    """

    path: str
    kind: Literal["log", "range", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Choice, ...] = ()

    def draw(self, suggest: Suggest) -> Any:
        """A value, each number and each choice in it as `suggest` says."""
        said = suggest(self)
        if self.kind != "choice":
            return said
        chosen = next(choice for choice in self.choices if choice.label == said)
        if not chosen.inner:
            return chosen.value
        return {**chosen.value, **{name: inner.draw(suggest) for name, inner in chosen.inner}}

    def parameters(self, value: Any) -> dict[str, Any]:
        """What `suggest` must have said for `draw` to come to a value. Raises StudyError where it never does."""
        if self.kind != "choice":
            if isinstance(value, bool) or not isinstance(value, int | float) or not self.holds(value):
                raise StudyError(f"{brief(value)} is not in its range", place=self.path)
            return {self.path: int(value) if self.kind == "int" else float(value)}
        for choice in self.choices:
            names = {name for name, _ in choice.inner}
            if not choice.inner and (choice.value == value and type(choice.value) is type(value)):
                return {self.path: choice.label}
            if choice.inner and isinstance(value, dict):
                rest = {name: v for name, v in value.items() if name not in names}
                if rest == choice.value and names <= set(value):
                    found = {self.path: choice.label}
                    for name, inner in choice.inner:
                        found |= inner.parameters(value[name])
                    return found
        raise StudyError(f"{brief(value)} is not among its choices", place=self.path)

    def like(self, value: Any) -> list[Any]:
        """What `draw` might come to that stands for a value: itself, or a block by those of its settings that a choice names."""
        blocks = [choice for choice in self.choices if isinstance(choice.value, dict)]
        if not isinstance(value, dict):
            return [value]
        names = [{*choice.value, *(name for name, _ in choice.inner)} for choice in blocks]
        return [value, *({n: v for n, v in value.items() if n in named} for named in names)]

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def edge(self, value: Any) -> Literal["", "lower", "upper"]:
        """Whether an optimum lies so near the end of its range that a better one may lie beyond."""
        if self.kind == "choice" or isinstance(value, bool) or not isinstance(value, int | float):
            return ""
        scale: Callable[[float], float] = math.log if self.kind == "log" else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return "lower" if share <= NEAR_EDGE else "upper" if share >= 1 - NEAR_EDGE else ""

    def within(self) -> tuple[Range, ...]:
        """This range and those within its choices."""
        inside = [r for choice in self.choices for _, inner in choice.inner for r in inner.within()]
        return (self, *inside)

    def plain(self) -> Any:
        """As a study file says it."""
        if self.kind != "choice":
            ends = [int(self.low), int(self.high)] if self.kind == "int" else [self.low, self.high]
            return {self.kind: ends}
        return [
            {**c.value, **{name: inner.plain() for name, inner in c.inner}} if c.inner else c.value
            for c in self.choices
        ]


def read(path: str, said: Any, place: str) -> Range:
    """A range as a study says it. Raises StudyError."""
    if isinstance(said, list):
        return Range(path, "choice", choices=_choices(path, said, place))
    if not isinstance(said, dict) or len(said) != 1 or next(iter(said)) not in KINDS:
        raise StudyError(
            f"should be a range or a list of choices (got {brief(said)})",
            place=place,
            hint="write {log: [1e-5, 1]}, {range: [0, 0.5]}, {int: [8, 64]} or a list",
        )
    kind, ends = next(iter(said.items()))
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


def _choices(path: str, said: list[Any], place: str) -> tuple[Choice, ...]:
    if len(said) < 2:
        raise StudyError("a choice needs two or more", place=place)
    blocks = [
        value["name"] for value in said if isinstance(value, dict) and isinstance(value.get("name"), str)
    ]
    named = len(set(blocks)) == len(said)
    found = []
    for value in said:
        if isinstance(value, dict):
            label = value["name"] if named else format_value(value)
            inner = tuple(
                (name, read(f"{path}.{label}.{name}", v, place)) for name, v in value.items() if _is_range(v)
            )
            found.append(Choice(label, {n: v for n, v in value.items() if not _is_range(v)}, inner))
        else:
            plain = isinstance(value, str | int | float | bool)
            found.append(Choice(value if plain else format_value(value), value))
    if len({(type(c.label), c.label) for c in found}) < len(found):
        raise StudyError("the same choice stands here twice", place=place)
    return tuple(found)


def _is_range(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS


def corners(ranges: Sequence[Range]) -> list[dict[str, Any]]:
    """Values that try both ends of every range and every choice, one range at a time."""
    found: list[dict[str, Any]] = []
    for one in ranges:
        if one.kind == "choice":
            found += [{one.path: _corner(choice, end)} for choice in one.choices for end in (0, 1)]
        else:
            found += [{one.path: _end(one, end)} for end in (0, 1)]
    return found


def _corner(choice: Choice, end: int) -> Any:
    if not choice.inner:
        return choice.value
    return {**choice.value, **{name: inner.draw(lambda r: _end(r, end)) for name, inner in choice.inner}}


def _end(one: Range, end: int) -> Any:
    if one.kind == "choice":
        return one.choices[-end].label
    value = one.high if end else one.low
    return int(value) if one.kind == "int" else value


def search(
    said: Any, *, of: Literal["nuisance", "search"], trials: int | None, place: Callable[[str], str]
) -> SearchSettings:
    """The `search:` block of a study. trials: as the nuisance settings say it. Raises StudyError."""
    said = {} if said is None else said
    if not isinstance(said, dict):
        raise StudyError("should be a block of keys", place=place("search"))
    known = ("sampler", "pruner", "trials", "candidates") + (("budget", "cost") if of == "search" else ())
    for name in said:
        if name not in known:
            raise StudyError(
                f"unknown key {brief(name)}", place=place(f"search.{name}"), hint=nearest(str(name), known)
            )
    for name, of_these in (("sampler", SAMPLERS), ("pruner", PRUNERS), ("cost", COSTS)):
        value = said.get(name)
        if value is not None and value not in of_these:
            raise StudyError(
                f"{brief(value)} is not a {name}",
                place=place(f"search.{name}"),
                hint=nearest(str(value), of_these) or f"one of {', '.join(of_these)}",
            )
    if said.get("trials") is not None and trials is not None and said["trials"] != trials:
        raise StudyError("`trials` is said twice, and not the same", place=place("search.trials"))
    budget = (
        parse_duration(said["budget"], place("search.budget")) if said.get("budget") is not None else None
    )
    count = said.get("trials") if said.get("trials") is not None else trials
    if count is None:
        count = MOST_TRIALS if budget is not None else TRIALS[of]
    _count(count, 2, MOST_TRIALS, place("search.trials"))
    candidates = said.get("candidates", 3)
    _count(candidates, 1, 20, place("search.candidates"))
    cost, pruner = said.get("cost"), said.get("pruner") or "none"
    if cost is not None and pruner != "none":
        raise StudyError("a search with two objectives prunes nothing", place=place("search.pruner"))
    sampler = said.get("sampler") or "tpe"
    return SearchSettings(sampler, pruner, count, budget, cost, candidates)


def _count(value: Any, least: int, most: int, place: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise StudyError(f"should be a whole number from {least} to {most} (got {brief(value)})", place=place)


def from_plain(said: Mapping[str, Any]) -> tuple[Range, ...]:
    """Ranges as `Range.plain` gave them, by path."""
    return tuple(read(path, one, path) for path, one in said.items())
