"""Curves, with a row for each step of a run, turned into one row for each run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablate.errors import StudyError
from ablate.importing.columns import FILE, is_counter, plain_name, step_rank
from ablate.metrics import Direction
from ablate.text import counted, cut, joined

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LAST, LAST_OF_EACH, BEST = "last", "last-of-each", "best"

HOW = f"{LAST}, {BEST} or a STEP"

_RUNS = ("run id", "run", "run name", "run uuid", "uuid", "id", "trial", "trial id", "version", "name", "job")
"""Names of columns that tell runs apart, the most telling first."""

_SHOWN = 4


@dataclass(frozen=True)
class CurveRows:
    """Rows that are steps of runs.

    step: the column that counts them. runs: the columns by whose cells a run is told from others.
    """

    step: str
    runs: tuple[str, ...]


def curves(
    rows: pd.DataFrame,
    metric: str,
    within: Sequence[str],
    *,
    step: str | None = None,
    run: Sequence[str] = (),
) -> CurveRows | None:
    """Return what makes the rows curves; None where there is a row for each run.

    within: columns that have one value in all rows of a run: arms, block, seed. step, run: the columns, where they were told;
    several columns tell runs apart together.

    Raises StudyError where the rows are curves, but nothing says which run a row is of.
    """
    named = [str(name) for name in rows.columns]
    steps = (
        [step]
        if step is not None
        else sorted(
            (name for name in named if step_rank(name) is not None and name not in {metric, *within}),
            key=lambda name: step_rank(name) or 0,
        )
    )
    # A column without values, or with one alone, counts nothing.
    steps = [name for name in steps if step is not None or len(rows[name].unique()) > 1]
    if not steps:
        return None
    logged = rows[rows[metric] != ""]
    files = [FILE] if FILE in named else []
    if run:
        identities: list[tuple[str, ...]] = [tuple(dict.fromkeys([*within, *run]))]
    else:
        runs = [
            name
            for name in named
            if plain_name(name) in _RUNS and name not in {metric, *within, *steps, *files}
        ]
        runs.sort(key=lambda name: _RUNS.index(plain_name(name)))
        together = [*dict.fromkeys([*within, *files])]
        identities = [tuple(together), *((*together, name) for name in runs)]
    if files or run:
        # A step that a run in a file of its own has twice is that of a run that was resumed; several runs in one file have
        # a column that tells them apart.
        name = steps[0]
        numbers = [int(logged.duplicated([*columns, name]).sum()) for columns in identities]
        columns = identities[numbers.index(0) if 0 in numbers else 0]
        several = bool(logged.duplicated(list(columns)).any())
        return CurveRows(name, columns) if several or step is not None else None
    best: tuple[int, CurveRows] | None = None
    for columns in identities:
        for name in steps:
            found = CurveRows(name, columns)
            number = int(logged.duplicated([*columns, name]).sum())
            if number == 0:
                several = bool(logged.duplicated(list(columns)).any())
                return found if several or step is not None else None
            if best is None or number < best[0]:
                best = number, found
    assert best is not None
    _, found = best
    if not _counts_steps(logged, found):
        return None  # an epoch that was recorded beside the result of each run
    row, other = _first_repeat(logged, [*found.runs, found.step])
    raise StudyError(
        f"rows {row} and {other} have the same {joined(dict.fromkeys([*found.runs, found.step]))}: which rows are one run?",
        place="--run",
        hint="--run COL names the column that tells runs apart",
    )


def _counts_steps(logged: pd.DataFrame, found: CurveRows) -> bool:
    """Whether a column counts steps: it has several values among the rows of one arm (and block, and seed)."""
    if not found.runs:
        return True
    different = logged.drop_duplicates([*found.runs, found.step])
    return bool(different.duplicated(list(found.runs)).any())


def _first_repeat(rows: pd.DataFrame, columns: Sequence[str]) -> tuple[object, object]:
    again = rows.duplicated(list(columns))
    second = rows.loc[again].index[0]
    cells = rows.loc[again, list(columns)].iloc[0]
    first = rows[(rows[list(columns)] == cells).all(axis=1)].index[0]
    return first, second


@dataclass(frozen=True)
class Ends:
    """One row for each run. failed: whether a run ended before it had a value to judge. notes: what to know of them."""

    rows: pd.DataFrame
    failed: NDArray[np.bool_]
    notes: tuple[str, ...]


def read_at(
    rows: pd.DataFrame, found: CurveRows, metric: str, arms: pd.Series[str], at: str, direction: Direction
) -> Ends:
    """Return one row of each run: its last, its best, or that of a step.

    arms: the arm of each row. at: `last`, for which all arms have to end at the same step; `last-of-each`, whose runs have
    to reach the step at which their own arm ends; `best`; or a step. A run that stopped short has failed; one without any
    value has an empty cell, as in the file.

    Raises StudyError where `at` is nothing of these, where a step is no number, and where arms end at different steps.
    """
    import numpy as np
    import pandas as pd

    if at not in (LAST, LAST_OF_EACH, BEST):
        try:
            float(at)
        except ValueError:
            raise StudyError(f"{cut(at)!r} is not {HOW}", place="--at") from None
    run = (
        rows.groupby(list(found.runs), sort=False, observed=True).ngroup().to_numpy()
        if found.runs
        else np.zeros(len(rows), np.int64)
    )
    steps = pd.to_numeric(rows[found.step], errors="coerce").to_numpy(dtype=float)
    logged = (rows[metric] != "").to_numpy()
    # What has the step −1 comes after all others, or before them.
    lacking = np.flatnonzero(logged & ~(np.isfinite(steps) & (steps >= 0)))
    if lacking.size:
        raise StudyError(
            f"row {named_row(rows.index[lacking[0]])} has no step: {cut(str(rows[found.step].iloc[lacking[0]])) or '(empty)'}",
            place="--step",
            hint="--step COL names the column that counts the steps; in a log, the line with a step stands before its values, "
            "and without a pattern of the step they are counted",
        )
    # Runs in the order in which they appear; of each its rows by step, and of one step the later row.
    position = np.flatnonzero(logged)
    order = position[np.lexsort((position, steps[position], run[position]))]
    number = int(run.max()) + 1 if len(run) else 0
    last = np.full(number, -1)
    last[run[order]] = order  # the last assignment to a run stays
    any_row = np.zeros(number, np.int64)
    any_row[run[::-1]] = np.arange(len(run))[::-1]
    has_value = last >= 0
    chosen: NDArray[np.integer] = np.where(has_value, last, any_row)
    end = np.where(has_value, steps[chosen], -np.inf)
    arm = arms.to_numpy(dtype=object)[any_row]
    names = list(dict.fromkeys(arm[has_value]))
    ends = {name: float(end[has_value & (arm == name)].max()) for name in names}
    notes: list[str] = []
    if at == BEST:
        chosen = _best(rows, metric, run, order, chosen, direction)
        due = np.full(number, -np.inf)
        final = max(ends.values(), default=0.0)
        early = np.flatnonzero(has_value & (end < final))
        if early.size:
            notes.append(
                f"{counted(early.size, 'run')} ended before {found.step} {final:g}, with fewer values to be the best of: "
                f"{_named(rows, any_row, arm, early, end, found)}"
            )
    elif at in (LAST, LAST_OF_EACH):
        if at == LAST and len(set(ends.values())) > 1:
            least, most = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
            raise StudyError(
                f"arms end at different steps: {most!r} at {found.step} {ends[most]:g}, {least!r} at {ends[least]:g}",
                place="--at",
                hint=f"--at {ends[least]:g} compares all arms there; --at {LAST_OF_EACH} compares each arm at its own last "
                f"{found.step}; where the runs of an arm were all cut off, run them again",
            )
        due = np.array([ends.get(name, -np.inf) for name in arm])
    else:
        wanted = float(at)
        at_step = order[steps[order] == wanted]
        chosen[run[at_step]] = at_step
        reached = np.zeros(number, bool)
        reached[run[at_step]] = True
        passed = np.flatnonzero(has_value & ~reached & (end > wanted))
        if passed.size or not reached.any():
            one = int(passed[0]) if passed.size else int(np.argmax(end))
            own = np.unique(steps[order][run[order] == one])
            near = own[np.argsort(np.abs(own - wanted))[:2]]
            raise StudyError(
                f"{_run(rows, any_row, one, found)} ({arm[one]}) has no value at {found.step} {wanted:g}",
                place="--at",
                hint=f"its nearest are at {joined(f'{step:g}' for step in np.sort(near))}"
                if near.size
                else None,
            )
        due = np.full(number, wanted)
    failed = has_value & (end < due)
    if failed.any():
        short = np.flatnonzero(failed)
        notes.append(
            f"{counted(short.size, 'run')} stopped short and {'counts' if short.size == 1 else 'count'} as failed: "
            f"{_named(rows, any_row, arm, short, end, found)}"
        )
    ended = rows.iloc[chosen].copy()
    ended.loc[failed, metric] = ""
    return Ends(ended, failed, tuple(notes))


def _best(
    rows: pd.DataFrame,
    metric: str,
    run: NDArray[np.integer],
    order: NDArray[np.integer],
    last: NDArray[np.integer],
    direction: Direction,
) -> NDArray[np.integer]:
    """The row of each run with its best value, the first of equal ones; the last row of a run whose last value is no number."""
    import numpy as np
    import pandas as pd

    values = pd.to_numeric(rows[metric], errors="coerce").to_numpy(dtype=float)
    signed = -values if direction == "maximize" else values
    chosen = last.copy()
    finite = order[np.isfinite(values[order])]
    worst_first = finite[np.lexsort((-np.arange(finite.size), -signed[finite]))]
    best = chosen.copy()
    best[run[worst_first]] = worst_first
    ends_well = np.isfinite(values[last])
    return np.where(ends_well, best, chosen)


def named_row(label: object) -> str:
    """Return the label of a row as messages have it: `7`, or `7 of runs/adam/0.csv` where there are several files."""
    if isinstance(label, tuple) and len(label) == 2:
        return f"{label[1]} of {label[0]}"
    return str(label)


def _run(rows: pd.DataFrame, first: NDArray[np.integer], number: int, found: CurveRows) -> str:
    """One run in a message, by what tells it from others."""
    name = found.runs[-1] if found.runs else found.step
    cell = cut(str(rows[name].iloc[first[number]]), 60)
    return cell if name == FILE or (not is_counter(name) and name.lower() != "seed") else f"{name} {cell}"


def _named(
    rows: pd.DataFrame,
    first: NDArray[np.integer],
    arm: NDArray[np.object_],
    runs: NDArray[np.integer],
    end: NDArray[np.float64],
    found: CurveRows,
) -> str:
    """Some runs with their arm and their last step."""
    shown = [
        f"{_run(rows, first, int(i), found)} ({cut(str(arm[i]), 40)}, at {found.step} {end[i]:g})"
        for i in runs[:_SHOWN]
    ]
    return "; ".join(shown) + (f"; and {len(runs) - _SHOWN} more" if len(runs) > _SHOWN else "")
