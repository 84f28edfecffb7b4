"""Judgements that the store keeps as studies: results that have grown are an extra look, and the same ones change nothing.

A kept judgement has no runs of its own: its plan's record says how the results were judged, and beside it lies a file of
the rows that were read. Whoever reports it judges these rows again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ablate.comparing import OUTCOME, Caller, Origin, judge_frame, row_texts
from ablate.comparisons import Comparisons
from ablate.errors import StoreError, StudyError
from ablate.study.record import PlanRecord
from ablate.text import counted

if TYPE_CHECKING:
    import pandas as pd

    from ablate.tracking.plans import StoredPlan
    from ablate.tracking.store import Store

RESULTS = "results.json"
"""The rows that were judged, as an artifact of the run that carries the plan."""

MOST_SENTENCES = 20
"""Arms in the description that MLflow shows: it takes 8,000 characters."""

MOST_ARMS = 50
"""Arms that get a run of their own in MLflow, which shows what is known of them; making one takes some 40 ms."""

Notify = Callable[[str], None]
"""Takes a line for people."""


def load(store: Store, stored: StoredPlan) -> Comparisons:
    """Return a kept judgement, made again from its rows. Raises StoreError where they cannot be read."""
    return _judge_again(stored.record, _results(store, stored), stored.environment)


def keep(store: Store, judged: Comparisons, environment: Mapping[str, str], notify: Notify) -> Comparisons:
    """Keep a judgement under the name of its study, and return it as it is kept.

    Results that were judged before in the same way and have grown since are judged at an extra look: what was settled
    stays as it was. The same results change nothing. Any other are a judgement of their own under that name.
    notify: says which of these it is. Raises StudyError where a study of this name was run, StoreError where the store cannot
    be written, or another process writes it.
    """
    from ablate.tracking.plans import refuse_deleted, stored_plans, study_names

    record, frame = judged.material.record, judged.results
    assert record.judged is not None
    assert frame is not None
    with store.lock(record.study):
        refuse_deleted(store, record.study)
        stored = stored_plans(store, record.study) if record.study in study_names(store) else []
        if any(plan.record.judged is None for plan in stored):
            raise StudyError(
                f"the store holds a study {record.study!r} that was run",
                place="--name",
                hint="choose another name",
            )
        earlier = [(plan, _results(store, plan)) for plan in stored]
        for plan, before in reversed(earlier):
            if not _same_question(plan.record, record):
                continue
            grown = _grown(before, frame, plan.record)
            if grown is None:
                continue
            if len(grown) <= len(before):
                notify(f"{record.study}: these results were judged before, and nothing changes")
                return _judge_again(plan.record, before, plan.environment)
            of_plan = plan.record.judged
            assert of_plan is not None
            sizes = (*of_plan.sizes, len(grown))
            now = replace(record.judged, sizes=sizes)
            kept = replace(plan.record, judged=now)
            again = _judge_again(kept, grown, environment)
            kept = replace(kept, declared=again.material.record.declared)
            alpha = again.analysis.rules.schedule()[-1].alpha
            notify(
                f"{record.study}: the results have grown by {counted(len(grown) - len(before), 'row')}; look {len(sizes)} "
                f"spends {alpha:.4g}"
            )
            break
        else:
            shared = sum(_share_runs(plan.record, before, record, frame) for plan, before in earlier)
            kept = replace(record, id=_digest(record, frame), read_before=shared)
            # Judged already; but that others have read these runs is one more thing to say.
            again = judged.with_environment(environment)
            again = _judge_again(kept, frame, environment) if shared else again
            if stored:
                notify(f"{record.study}: another judgement under this name; the report shows the latest")
        final = replace(again, material=replace(again.material, record=kept))
        _write(store, final, environment, notify)
    return final


def _judge_again(record: PlanRecord, frame: pd.DataFrame, environment: Mapping[str, str]) -> Comparisons:
    judged = record.judged
    assert judged is not None
    origin = Origin(record.study, judged.source, judged.command, judged.sizes, record.read_before)
    outcomes = frame[OUTCOME].tolist() if OUTCOME in frame else None
    again = judge_frame(
        frame.drop(columns=OUTCOME, errors="ignore"),
        Caller(is_command=True),
        **judged.options,
        origin=origin,
        outcomes=outcomes,
    )
    return replace(again, material=replace(again.material, record=record, environment=dict(environment)))


# --- what has changed -------------------------------------------------------------------------------------------------


def _same_question(one: PlanRecord, other: PlanRecord) -> bool:
    """Whether two judgements ask the same of the same arms."""
    assert one.judged is not None
    assert other.judged is not None
    options = [json.dumps(each.judged.options, sort_keys=True) for each in (one, other) if each.judged]
    return options[0] == options[1] and {arm.name for arm in one.arms} == {arm.name for arm in other.arms}


def _grown(before: pd.DataFrame, now: pd.DataFrame, record: PlanRecord) -> pd.DataFrame | None:
    """The rows of both, those that were there before in their order first; None where one of them is gone or has changed."""
    import pandas as pd

    if list(before) != list(now):
        return None
    assert record.judged is not None
    options = record.judged.options
    if options["n"] is not None:
        last = before.iloc[([0, *record.judged.sizes])[-2] :]
        if sorted(row_texts(last)) == sorted(row_texts(now)):
            return last.iloc[:0]
        arms, count = options["arm"], options["n"]
        runs = [
            {tuple(row[:-1]): float(row[-1]) for row in row_texts(frame[[*arms, count]])}
            for frame in (last, now)
        ]
        more = runs[0].keys() == runs[1].keys() and all(runs[1][arm] >= n for arm, n in runs[0].items())
        grew = more and sum(runs[1].values()) > sum(runs[0].values())
        return pd.concat([before, now], ignore_index=True) if grew else None
    left = Counter(row_texts(before))
    added = []
    for position, row in enumerate(row_texts(now)):
        if left[row] > 0:
            left[row] -= 1
        else:
            added.append(position)
    if any(left.values()):
        return None
    return pd.concat([before, now.iloc[added]], ignore_index=True)


def _share_runs(one: PlanRecord, before: pd.DataFrame, other: PlanRecord, now: pd.DataFrame) -> bool:
    """Whether two judgements read some of the same runs: rows that are alike in all that both read of them.

    Where they read another metric, or other arms, the runs of one source are taken for the same.
    """
    assert one.judged is not None
    assert other.judged is not None
    both = [name for name in before if name in now.columns]
    if {other.judged.options["metric"], *other.judged.options["arm"]} <= set(both):
        return not set(row_texts(before[both])).isdisjoint(row_texts(now[both]))
    return one.judged.source == other.judged.source


def _digest(record: PlanRecord, frame: pd.DataFrame) -> str:
    """A name for what is asked of these rows, whatever their order."""
    assert record.judged is not None
    arms = sorted(arm.name for arm in record.arms)
    content = json.dumps([record.judged.options, arms, sorted(row_texts(frame))], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:8]


# --- the store --------------------------------------------------------------------------------------------------------


def _results(store: Store, stored: StoredPlan) -> pd.DataFrame:
    """The rows of a kept judgement, in the order of its looks."""
    import pandas as pd

    from ablate.tracking.plans import plan_artifact

    text = plan_artifact(store, stored, RESULTS)
    try:
        content = json.loads(text or "")
        return pd.DataFrame(content["rows"], columns=content["columns"], dtype=object)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise StoreError(
            f"the results of this judgement are damaged or gone ({error})",
            place=stored.record.study,
            hint="judge the file again under another name",
        ) from None


def _plain(cell: Any) -> Any:
    """A cell as JSON has it; a number that is none as text, which reads as one again."""
    cell = cell.item() if hasattr(cell, "item") else cell
    if cell is None or isinstance(cell, str | bool | int):
        return cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None if math.isnan(cell) else str(cell)
    return str(cell)


def _write(store: Store, judged: Comparisons, environment: Mapping[str, str], notify: Notify) -> None:
    from ablate.analysis.arm_rows import arm_rows
    from ablate.report.export import verdicts
    from ablate.tracking.rejected import told
    from ablate.tracking.spool import Tracker

    record, frame = judged.material.record, judged.results
    assert frame is not None
    cells = [[_plain(cell) for cell in row] for row in frame.itertuples(index=False, name=None)]
    files = {
        "verdicts.json": json.dumps(verdicts(judged.material), indent=1).encode(),
        RESULTS: json.dumps({"columns": list(frame), "rows": cells}).encode(),
    }
    note = "\n".join([judged.headline, "", *(f"- {item.sentence}" for item in judged.items[:MOST_SENTENCES])])
    rows = dict(itertools.islice(arm_rows(judged.analysis).items(), MOST_ARMS))
    with Tracker(store, record.study) as tracker:
        tracker.plan(record, environment)
        tracker.arms(rows, judged.analysis.pairs)
        tracker.end(record.id, "complete", files, note)
        tracker.settle(notify=notify)
        delivered = tracker.close(timeout=5)
        if tracker.broken is not None:
            raise tracker.broken
        if not delivered:
            raise StoreError(
                f"not yet delivered to {store.place}: {tracker.undelivered}",
                hint="the next command delivers it from mlruns/spool",
            )
        if tracker.rejected.records:
            raise StoreError(
                f"its record is incomplete: {told(tracker.rejected.records)}", place=record.study
            )
