"""Figures that the runs of the user's own training logged, under one seed, for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ablate.figure_files import KINDS, LoggedFigures
from ablate.study.record import PlanRecord
from ablate.text import counted, format_bytes
from ablate.tracking.queries import StoredRun, artifact, artifact_sizes
from ablate.tracking.store import Store

MOST_ARMS = 12
"""Arms whose figures are read, the reference among them."""

MOST_NAMES = 12
"""Figures of one arm."""

MOST_BYTES = 2 << 20
"""Of one figure. A page has to stay one that can be sent by mail."""

MOST_OF_ALL = 12 << 20
"""Bytes of all figures."""


def logged_figures(store: Store, plan: PlanRecord, runs: Mapping[str, StoredRun]) -> LoggedFigures | None:
    """Return the figures of the reference and of the arms, None where there are none. runs: of `counted_runs`.

    The seed is the first under which the most arms finished.
    """
    if plan.own_training is None:
        return None
    planned = plan.runs_by_key()
    by_seed: dict[int, dict[str, StoredRun]] = {}
    for key, run in runs.items():
        if planned[key].phase == "report" and run.tags.get("ablate.outcome") == "finished" and run.has_result:
            by_seed.setdefault(planned[key].seed, {})[planned[key].arm] = run
    if not by_seed:
        return None
    seed = min(
        by_seed, key=lambda number: (plan.reference not in by_seed[number], -len(by_seed[number]), number)
    )
    names = [plan.reference, *(arm.name for arm in plan.arms if arm.name != plan.reference)]
    finished = [name for name in names if name in by_seed[seed]]
    sizes = {arm: artifact_sizes(store, by_seed[seed][arm], KINDS) for arm in finished[:MOST_ARMS]}
    figures = list(dict.fromkeys(name for of_arm in sizes.values() for name in of_arm))
    if not figures:
        return None
    left_out = []
    if len(finished) > MOST_ARMS:
        left_out.append(f"the first {MOST_ARMS} of {len(finished)} arms are shown")
    if len(figures) > MOST_NAMES:
        left_out.append(f"the first {MOST_NAMES} of {len(figures)} figures are shown")
    files: dict[str, dict[str, bytes]] = {}
    large: Counter[str] = Counter()
    total = 0
    for name in figures[:MOST_NAMES]:
        for arm, of_arm in sizes.items():
            if name not in of_arm:
                continue
            if (of_arm[name] or 0) > MOST_BYTES:
                large[name] += 1
                continue
            content = artifact(store, by_seed[seed][arm], name)
            if content is None:
                continue
            if len(content) > MOST_BYTES or total + len(content) > MOST_OF_ALL:
                large[name] += 1
                continue
            total += len(content)
            files.setdefault(arm, {})[name] = content
    left_out += [
        f"{name} of {counted(number, 'run')} is left out: a figure may have {format_bytes(MOST_BYTES)}, and all of "
        f"them {format_bytes(MOST_OF_ALL)}"
        for name, number in large.items()
    ]
    return LoggedFigures(seed, files, tuple(left_out))
