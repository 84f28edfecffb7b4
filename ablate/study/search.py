"""How Optuna searches: the block `search:` of a study.

`SearchSettings` is the one list of its keys: reading, JSON schema, pages and record derive from its fields. Importing this
module loads nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ablate.errors import StudyError, nearest
from ablate.study.seeds import REEVALUATED_FROM
from ablate.text import brief, parse_duration

Purpose = Literal["nuisance", "search"]
"""What is searched: settings that are tuned for each arm, or the space of `design: search`."""

SAMPLERS = ("tpe", "random", "qmc", "gp", "nsgaii")
PRUNERS = ("none", "asha", "hyperband", "median")
COSTS = ("flops", "parameters", "seconds")

TRIALS: dict[Purpose, int] = {"nuisance": 12, "search": 50}
"""Trials of a search that does not say how many."""

MOST_TRIALS = REEVALUATED_FROM
"""Every trial has a seed of its own where a search repeats values; the seeds after those re-evaluate the best."""

MOST_CANDIDATES = 20

TRIALS_FORM = {"type": "integer", "minimum": 2, "maximum": MOST_TRIALS}
"""JSON schema of a number of trials."""


def _key(description: str, form: dict[str, Any], *, of_search: bool = False, **default: Any) -> Any:
    """Return a field of SearchSettings. form: its JSON schema. of_search: whether `design: search` alone has it."""
    metadata = {"description": description, "form": form, "of_search": of_search}
    return dataclasses.field(metadata=metadata, **default)


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How Optuna searches. budget: seconds after which a search asks for no more trials; None: no limit.

    cost: what a search weighs against the metric as its second objective; None: the metric alone.
    """

    sampler: str = _key(
        "Optuna's sampler, by name: which values are tried next.", {"enum": list(SAMPLERS)}, default="tpe"
    )
    pruner: str = _key(
        "Optuna's pruner, by name: which trials are stopped early because others were better at the same epoch.",
        {"enum": list(PRUNERS)},
        default="none",
    )
    trials: int = _key(
        f"Trials of each search. Default: {TRIALS['nuisance']} for each arm, {TRIALS['search']} for `design: search`.",
        TRIALS_FORM,
    )
    budget: float | None = _key(
        "For `design: search`: time after which no new trial starts: 90s, 30m, 2h, 1d.",
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^\d+(\.\d+)?[smhd]?$"},
            ]
        },
        of_search=True,
        default=None,
    )
    cost: str | None = _key(
        "For `design: search`: a second objective, which is minimised; the search ends with the Pareto front of both.",
        {"enum": list(COSTS)},
        of_search=True,
        default=None,
    )
    candidates: int = _key(
        "How many of the best trials are re-evaluated on new seeds.",
        {"type": "integer", "minimum": 1, "maximum": MOST_CANDIDATES},
        default=3,
    )

    def plain(self) -> dict[str, Any]:
        """Return the settings as plain values, for the record."""
        return dataclasses.asdict(self)


def form() -> dict[str, Any]:
    """Return the JSON schema of the block."""
    properties: dict[str, Any] = {}
    for name, about in _keys():
        default = SearchSettings.__dataclass_fields__[name].default
        shown = {} if default in (dataclasses.MISSING, None) else {"default": default}
        properties[name] = {"description": about["description"], **about["form"], **shown}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def read(plain: Any, *, purpose: Purpose, trials: int | None) -> SearchSettings:
    """Read the block; None: every key at its default. trials: as the nuisance settings have it. Raises StudyError."""
    plain = {} if plain is None else plain
    if not isinstance(plain, dict):
        raise StudyError("should be a block of keys", place="search")
    keys = {name: about["form"] for name, about in _keys() if purpose == "search" or not about["of_search"]}
    for name in plain:
        if name not in keys:
            raise StudyError(
                f"unknown key {brief(name)}", place=f"search.{name}", hint=nearest(str(name), keys)
            )
    given = {name: value for name, value in plain.items() if value is not None}
    if trials is not None and given.setdefault("trials", trials) != trials:
        raise StudyError("`trials` stands twice, with different numbers", place="search.trials")
    if "budget" in given:
        given["budget"] = parse_duration(given["budget"], "search.budget")
    given.setdefault("trials", MOST_TRIALS if "budget" in given else TRIALS[purpose])
    for name, value in given.items():
        _check(name, value, keys[name])
    settings = SearchSettings(**given)
    if settings.cost is not None and settings.pruner != "none":
        raise StudyError("a search with two objectives prunes nothing", place="search.pruner")
    return settings


def _keys() -> Iterator[tuple[str, Any]]:
    return ((field.name, field.metadata) for field in dataclasses.fields(SearchSettings))


def _check(name: str, value: Any, form: dict[str, Any]) -> None:
    place = f"search.{name}"
    if "enum" in form and value not in form["enum"]:
        raise StudyError(
            f"{brief(value)} is not a {name}",
            place=place,
            hint=nearest(str(value), form["enum"]) or f"one of {', '.join(form['enum'])}",
        )
    if form.get("type") == "integer":
        least, most = form["minimum"], form["maximum"]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise StudyError(
                f"should be a whole number from {least} to {most} (got {brief(value)})", place=place
            )
