"""From a finished search to the study that confirms its best candidates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import StudyError
from ablate.study import design, keys
from ablate.study.record import PlanRecord
from ablate.training import trainer_of

_KEPT = ("metric", "judged_on", "direction", "margin", "resolution", "deterministic", "unpaired")
"""Keys that the study of the candidates has in common with their search, beside those of its training."""


def study(record: PlanRecord, name: str, best: int | None = None, *, beside: Path = Path()) -> str:
    """Return the YAML text of a study that compares a search's candidates with its baseline. best: how many; None: all.

    beside: the folder that its file will be in.

    Its seeds are the report seeds, of which the search has seen none. Raises StudyError where the search is not over, or has
    no candidate that could be confirmed.
    """
    place = record.study
    if record.design != "search":
        raise StudyError("is no search", place=place, hint="`--from` takes a study with `design: search`")
    if not record.tuned:
        raise StudyError("the search is not over yet", place=place, hint="`ablate run` goes on with it")
    (search,) = record.tuned.values()
    base = design.from_record(record).study.baseline
    usable = [dict(c.values) for c in search.candidates if c.mean is not None]
    usable = [values for values in usable if base.override(values) != base][:best]
    if not usable:
        raise StudyError("the search found nothing better than the baseline to confirm", place=place)
    # What no candidate changes is no part of the question.
    changed = [path for path in record.space if any(base.override({path: v[path]}) != base for v in usable)]
    same = (*_KEPT, *trainer_of(base).keys)
    defaults = keys.read_some(("judged_on", *trainer_of(base).keys), {})
    kept = {
        key: record.declared[key]
        for key in same
        if record.declared.get(key) not in (None, False) and record.declared[key] != defaults.get(key)
    }
    kept |= folder_beside(kept, beside)
    columns = {path: [values[path] for values in usable] for path in changed}
    tree = {
        "study": name,
        "question": f"Are the best candidates of the search {record.study} better than its baseline?",
        **kept,
        "baseline": {name: value for name, value in record.baseline.items() if name != "seed"},
        "factors": {"candidate": {"zip": columns}},
        "design": "one-at-a-time",
        "seeds": record.stops[0] if len(record.stops) == 1 else list(record.stops),
    }
    head = (
        f"# The best of the search {record.study} (plan {record.id}) against its baseline, on fresh seeds.\n"
    )
    return head + dump(tree)


def folder_beside(values: Mapping[str, Any], beside: Path) -> dict[str, str]:
    """Return the key `folder` of a study whose file will be in another folder; it is recorded relative to the working folder."""
    if not values.get("folder"):
        return {}
    return {"folder": os.path.relpath(Path(values["folder"]).absolute(), beside.absolute())}


def dump(tree: dict[str, Any]) -> str:
    """Return the YAML text of a study, from the values of its keys."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Writes blocks out wherever they occur, and floats so that they are read as the same number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 — of the protocol
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))


_Dumper.add_representer(float, _float)
