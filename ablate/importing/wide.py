"""Tables with a column for each seed, run or arm, turned into tables with a row for each run."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from ablate.errors import DataError
from ablate.importing.columns import SUMMARIES, UNDEFINED, is_counter, is_seed, step_rank
from ablate.importing.curves import named_row
from ablate.text import counted, joined

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 10_000
"""A table with a column for each run has fewer rows."""

_NUMBERED = re.compile(r"(.*?)[\s_.:=-]*(\d+)\Z")


def numbered(names: list[str]) -> tuple[str, list[str]]:
    """Return the columns that differ by a number alone, `seed0 seed1 …` or `0 1 …`, and what stands before it.

    The largest such group of two or more; without one, the list is empty.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        match = _NUMBERED.match(name)
        if match is not None:
            groups.setdefault(match[1].strip(), []).append(name)
    stem, columns = max(groups.items(), key=lambda item: len(item[1]), default=("", []))
    return (stem, columns) if len(columns) > 1 else ("", [])


def lengthened(rows: pd.DataFrame, over: str, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """Return a row for each result, with the columns `over` and `metric`, and notes.

    over: what the columns are. `arm`: each column of numbers is one, named by its head. Otherwise (`seed`, `run`): they are
    the columns that differ by a number alone, and that number is what stands in the new column. An empty cell is no run.
    Raises DataError where there are no such columns, or a new one is there already.
    """
    names = [str(name) for name in rows.columns]
    summaries: list[str] = []
    if over == "arm":
        columns = [
            name for name in names if _is_numeric(rows[name]) and not _is_beside_arms(name, rows[name])
        ]
        summaries = [name for name in columns if _is_summary(name, rows[columns])]
        columns = [name for name in columns if name not in summaries]
        labels = {name: name for name in columns}
    else:
        columns = numbered(names)[1]
        labels = {name: name[match.start(2) :] for name in columns if (match := _NUMBERED.match(name))}
    rows, sums = _without_sums(rows, columns)
    if len(columns) < 2:
        kind = (
            "columns of numbers"
            if over == "arm"
            else f"columns that differ by a number, such as {over}0, {over}1"
        )
        raise DataError(f"there are no {kind}", place="--wide", hint=f"the columns are {joined(names)}")
    kept = [name for name in names if name not in columns and name not in summaries]
    if taken := [name for name in (over, metric) if name in kept]:
        raise DataError(f"there is a column {taken[0]!r} already", place="--wide", hint="rename it")
    parts = []
    for name in columns:
        part = rows[kept].copy()
        part[over], part[metric] = labels[name], rows[name]
        parts.append(part)
    import pandas as pd

    long = pd.concat(parts)
    empty = long[metric] == ""
    notes = (
        [f"{counted(int(empty.sum()), 'empty cell')} taken for runs that do not exist"] if empty.any() else []
    )
    notes += sums
    if summaries:
        notes.append(f"{joined(summaries)} left out: a summary of the other columns, and no arm")
    return long[~empty], notes


def _is_beside_arms(name: str, cells: pd.Series[str]) -> bool:
    """Whether a column of numbers tells rows apart and is no arm: a seed, a counter, a step, or an index without a name."""
    if is_seed(name) or is_counter(name) or step_rank(name) is not None:
        return True
    numbers = [int(cell) for cell in cells if re.fullmatch(r"\d+", cell)]
    rises = len(numbers) == len(cells) and all(a < b for a, b in itertools.pairwise(numbers))
    return rises and bool(re.match(r"column \d+\Z|unnamed", name.lower()))


def _is_summary(name: str, rows: pd.DataFrame) -> bool:
    """Whether a column has a summary of the others in every row, such as their mean, by its name and its values."""
    import numpy as np
    import pandas as pd

    if not _is_called_a_summary(name):
        return False
    every, own = rows.apply(pd.to_numeric, errors="coerce"), pd.to_numeric(rows[name], errors="coerce")
    others = [other for other in map(str, rows.columns) if other != name]
    # Another column that is called so may be an arm, such as `max`, or one more summary.
    for used in (others, [other for other in others if not _is_called_a_summary(other)]):
        values = every[used]
        if len(used) < 2:
            continue
        off = 0.02 * float(np.nanstd(values.to_numpy(dtype=float))) + 1e-12
        summaries = [values.std(axis=1, ddof=ddof) for ddof in (0, 1)]
        summaries += [values.agg(kind, axis=1) for kind in ("mean", "median", "min", "max", "sum")]
        if any(bool(((own - summary).abs().dropna() <= off).all()) for summary in summaries):
            return True
    return False


def _without_sums(rows: pd.DataFrame, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """The rows without those that are called a summary of the others and are one in every column; and a note of them."""
    names = [name for name in map(str, rows.columns) if name not in columns]
    called: dict[int, str] = {}
    for name in names if len(rows) <= _MOST_ROWS else ():
        called |= {i: cell for i, cell in enumerate(rows[name]) if _is_called_a_summary(cell)}
    position = range(len(rows))
    turned = rows[columns].T.set_axis([called.get(i, str(i)) for i in position], axis=1)
    if not turned.columns.is_unique:
        return rows, []
    sums = [i for i in position if i in called and _is_summary(called[i], turned)]
    if not sums:
        return rows, []
    named = joined(f"row {named_row(rows.index[i])} ({called[i]})" for i in sums)
    return rows.iloc[[i for i in position if i not in sums]], [
        f"{named} left out: a summary of the others, and no run"
    ]


def _is_called_a_summary(name: str) -> bool:
    return bool(set(re.split(r"[^a-z]+", name.lower())) & (SUMMARIES | {"all", "overall"}))


def _is_numeric(cells: pd.Series[str]) -> bool:
    """Whether a column holds nothing but numbers, and what stands where one is missing."""
    import pandas as pd

    numbers = pd.to_numeric(cells, errors="coerce")
    return bool(numbers.notna().any()) and bool((numbers.notna() | cells.str.lower().isin(UNDEFINED)).all())
