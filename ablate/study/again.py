"""From a judged study to one of its undecided arms alone, on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.errors import StudyError
from ablate.study.confirm import dump, folder_beside
from ablate.study.keys import Study
from ablate.study.record import PlanRecord
from ablate.study.seeds import REPLICATES

_OTHERWISE = frozenset(
    {
        "study",
        "question",
        "baseline",
        "factors",
        "space",
        "design",
        "fraction",
        "seeds",
        "first_seed",
        "confirm",
    }
)
"""Keys of which the new study has values of its own."""


def study(
    record: PlanRecord,
    undecided: Sequence[str],
    name: str,
    *,
    seeds: Sequence[int],
    first_seed: int,
    beside: Path = Path(),
) -> str:
    """Return the YAML text of a study that asks about some arms of a recorded one again.

    undecided: names of the arms, which are all compared with the study's reference. seeds: its looks. first_seed: the first
    that nothing was judged on. beside: the folder that its file will be in. Raises StudyError where too few seeds are left.
    """
    if first_seed + seeds[-1] > REPLICATES:
        raise StudyError(
            f"{REPLICATES} seeds are all there are, and {first_seed} of them are in use",
            place=record.study,
            hint="a smaller question, or a larger margin, needs fewer",
        )
    reference = record.arm(record.reference)
    factors: dict[str, list[Mapping[str, Any]]] = {}
    for arm in (record.arm(each) for each in undecided):
        (factor,) = (factor for factor in record.factors if factor.name == arm.factor)
        paths = tuple(factor.levels[0])
        factors.setdefault(factor.name, []).append({paths[0]: arm.level} if len(paths) == 1 else arm.level)
    defaults = {field.alias or key: field.default for key, field in Study.model_fields.items()}
    kept = {
        key: _without_unset(value)
        for key, value in record.declared.items()
        if key not in _OTHERWISE and value not in (None, "", [], {}, False) and value != defaults.get(key)
    }
    tree = {
        "study": name,
        "question": f"What of the arms that {record.study} left undecided?",
        **kept,
        **folder_beside(kept, beside),
        "baseline": {key: value for key, value in reference.config.items() if key != "seed"},
        "factors": {name: _levels(rows) for name, rows in factors.items()},
        "design": "one-at-a-time",
        "seeds": seeds[0] if len(seeds) == 1 else list(seeds),
        "first_seed": first_seed,
    }
    head = f"# The undecided arms of {record.study} (plan {record.id}), on seeds that it has not used.\n"
    return head + dump(tree)


def _without_unset(value: Any) -> Any:
    """Return a key's value without what a record has unset in it: a tuning has no `budget`, and its record says so."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _levels(rows: list[Mapping[str, Any]]) -> Any:
    """Return the levels of a factor as a study file has them. rows: each a set of overrides, path → value."""
    columns = {path: [row[path] for row in rows] for path in rows[0]}
    return next(iter(columns.values())) if len(columns) == 1 else {"zip": columns}
