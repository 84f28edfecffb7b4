"""The rows of a table as they are judged: one for each run, with the number of its metric and what became of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ablate import metrics
from ablate.errors import StudyError, nearest
from ablate.importing import doubts
from ablate.importing.columns import (
    FILE,
    OUTCOMES,
    SUMMARIES,
    UNDEFINED,
    Outcome,
    is_counter,
    is_generic,
    is_seed,
    is_setting,
    is_state,
    is_task,
    names_metrics,
    step_rank,
)
from ablate.importing.curves import BEST, HOW, CurveRows, curves, named_row, read_at
from ablate.importing.values import Unit, measured
from ablate.text import counted, cut, joined

if TYPE_CHECKING:
    import pandas as pd

_SPREADS, _NUMBERS = (
    {"std", "sd", "stdev", "stddev", "sigma"},
    {"n", "runs", "seeds", "repeats", "count", "replicates"},
)
"""Words in the names of standard deviations, and of numbers of runs, in a table of means."""

_MEANS = {"mean", "avg", "average", "std", "stdev", "sem", "overall"}
"""Last words of what a row is called that sums up others, where arms stand."""

_SHOWN = 4


@dataclass(frozen=True)
class Curve:
    """What was told of rows that are steps of runs; None: nothing. at: see `curves.read_at`. step, run: columns.

    known_step, known_run: the columns by what the source says.
    """

    at: str | None = None
    step: str | None = None
    run: str | None = None
    known_step: str | None = None
    known_run: str | None = None


@dataclass(frozen=True)
class JudgedRows:
    """A row for each run.

    outcomes: what became of each, None where all finished. resolution: of the metric, 0 where it is not known. options: what
    was seen and not told, as options of `ablate judge`. notes: what to know of the runs. comma, point: as in `MeasuredCells`.
    """

    rows: pd.DataFrame
    outcomes: list[Outcome] | None
    unit: Unit | None
    resolution: float
    options: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    comma: str = ""
    point: str = ""


def judged_rows(
    rows: pd.DataFrame,
    *,
    metric: str,
    arm: Sequence[str],
    block: str | None = None,
    seed: str | None = None,
    is_means: bool = False,
    direction: metrics.Direction | None = None,
    curve: Curve,
    strip: Sequence[str] = (),
    unit: Unit | None = None,
    resolution: float | None = None,
    known_resolution: float | None = None,
    settings: Sequence[str] = (),
    is_search: bool = False,
) -> JudgedRows:
    """Return the rows that are judged. A column that is not there is left to be found missing.

    rows: cells as text. is_means: they are means of runs, and the resolution of a run is not to be seen. strip: texts that are
    taken out of the arms' names. unit, resolution: what was told; None: to be seen. known_resolution: what the source says of
    the metric's step. settings: columns with settings of the runs; is_search: a search chose them.

    Raises StudyError where rows are of several metrics, where they are curves and nobody said what to read of them, where nothing
    says which run a row is of, where runs of an arm are trials of a search, and where some values are shares and others percentages.
    """
    import pandas as pd

    names = [name for name in (*arm, metric, block, seed) if name is not None]
    if any(name not in rows for name in names) or not len(rows):
        return JudgedRows(rows, None, None, resolution or 0.0)
    rows = _stripped(rows, arm, strip)
    _refuse_several_metrics(rows, metric)
    if block is None and len(arm) == 1:
        _refuse_names_of_tasks(rows, arm[0], [metric, *names[2:]])
    if not is_means:
        _refuse_summaries(rows, arm, metric)
    notes: list[str] = []
    options: dict[str, str] = {}
    for name in (curve.step, curve.run):
        if name is not None and name not in rows:
            raise StudyError(
                f"there is no column {name!r}",
                place="--step" if name == curve.step else "--run",
                hint=nearest(name, map(str, rows)),
            )
    seeds = [name for name in map(str, rows.columns) if is_seed(name)] if seed is None else [seed]
    within = [*dict.fromkeys([*arm, *([block] if block else []), *seeds[:1]])]
    found = (
        None
        if is_means
        else curves(
            rows, metric, within, step=curve.step or curve.known_step, run=_columns_of_runs(curve, rows)
        )
    )
    failed = None
    if found is not None:
        if curve.at is None:
            raise StudyError(
                _curves_seen(rows, metric, found), place="--at", hint=f"say what counts: --at {HOW}"
            )
        better = direction or metrics.direction(metric)
        if better is None and curve.at == BEST:
            raise StudyError(
                f"is more or less of {metric!r} better?",
                place="--direction",
                hint="--direction maximize or minimize",
            )
        ended = read_at(rows, found, metric, arm_of(rows, arm), curve.at, better or "minimize")
        rows, failed = ended.rows, ended.failed
        notes += ended.notes
        options |= {} if curve.step else {"step": found.step}
        if curve.run is None and curve.known_run is None and len(found.runs) > len(within):
            options["run"] = found.runs[-1]
    elif curve.at is not None:
        raise StudyError(
            "there is one row for each run, and no step to read it at",
            place="--at",
            hint="leave --at out; where a column counts the steps, --step COL names it",
        )
    used = [*within, *names, *([found.step] if found is not None else [])]
    # An epoch that differs between runs of one arm is that of an early stop, beside the result.
    steps = [] if settings else [name for name in map(str, rows.columns) if step_rank(name) is not None]
    settings = settings or [name for name in map(str, rows.columns) if is_setting(name) or is_task(name)]
    notes += _varying(rows, arm, used, settings, is_search=is_search)
    notes += [] if block is not None else _differing(rows, arm, used, [*settings, *steps])
    if found is None and not seeds and not is_means:
        _refuse_trials(rows, arm, names)
    outcomes = _outcomes(rows, names)
    if outcomes is not None:
        column, states = outcomes
        ends = (
            ["failed" if f else o for f, o in zip(failed, states, strict=True)]
            if failed is not None
            else states
        )
        notes += _unfinished(rows, column, states, arm_of(rows, arm))
        states = ends
    else:
        states = ["failed" if f else "finished" for f in failed] if failed is not None else []
    if is_means:
        return JudgedRows(rows, None, None, resolution or 0.0, options, tuple(notes))
    values = measured(
        rows[metric], metric, unit=unit, resolution=known_resolution if resolution is None else resolution
    )
    if values.cells is not rows[metric]:
        rows = rows.assign(**{metric: values.cells})
    if unit is None and values.unit is not None:
        options["unit"] = values.unit
    if resolution is None and values.resolution > 0:
        options["resolution"] = f"{values.resolution:g}"
    notes += values.notes
    known = states if any(state != "finished" for state in states) else None
    if block is None:
        numbers = pd.to_numeric(rows[metric], errors="coerce").to_numpy(dtype=float)
        runs = pd.DataFrame({"value": numbers, "arm": arm_of(rows, arm).array, "row": rows.index})
        finished = runs if known is None else runs[[state == "finished" for state in states]]
        notes += doubts.of_values(finished, metric)
        if found is None and not seeds:
            notes += doubts.of_order(finished, metric)
    return JudgedRows(
        rows, known, values.unit, values.resolution, options, tuple(notes), values.comma, values.point
    )


def _columns_of_runs(curve: Curve, rows: pd.DataFrame) -> list[str]:
    """The columns that tell runs apart, by what was told, else by what the source says; none where neither does."""
    if curve.run is not None:
        return [curve.run]
    if curve.known_run is None:
        return []
    return [FILE, curve.known_run] if FILE in rows else [curve.known_run]


def arm_of(rows: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Return the name of every row's arm, for messages and groups."""
    if len(columns) == 1:
        return rows[columns[0]]
    parts = [column + "=" + rows[column] for column in columns]
    name = parts[0]
    for part in parts[1:]:
        name = name + "," + part
    return name


def _stripped(rows: pd.DataFrame, arm: Sequence[str], strip: Sequence[str]) -> pd.DataFrame:
    for text in strip:
        inside = [name for name in arm if rows[name].str.contains(text, regex=False).any()]
        if not text or not inside:
            raise StudyError(f"no arm has {text!r} in its name", place="--strip")
        rows = rows.assign(
            **{name: rows[name].str.replace(text, "", regex=False).str.strip() for name in inside}
        )
    return rows


def _varying(
    rows: pd.DataFrame, arm: Sequence[str], fixed: Sequence[str], settings: Sequence[str], *, is_search: bool
) -> list[str]:
    """A note of settings that differ between the runs of one arm. Raises StudyError where a search chose them."""
    varying: list[str] = []
    for name in settings:
        if name in fixed or name not in rows or is_seed(name) or is_counter(name):
            continue
        levels = rows[name].unique()
        # What differs in every run, such as a folder, tells runs apart and is no setting, unless a search chose it.
        if len(levels) < 2 or (len(levels) > len(rows) // 2 and not is_search):
            continue
        pairs = rows[[*dict.fromkeys(arm), name]].drop_duplicates()
        if bool(pairs.duplicated(list(arm)).any()):
            varying.append(name)
    if not varying:
        return []
    names = joined(varying[:_SHOWN])
    shown = ", ".join(cut(str(level), 20) for level in rows[varying[0]].unique()[:_SHOWN])
    if is_search:
        raise StudyError(
            f"these are the trials of a search: those of one arm differ in {names} ({shown}, …), which the search chose by what it "
            "had seen. No verdict: they are no repeats",
            place="--arm",
            hint="run the baseline and the arms that matter again, under three seeds or more, with everything else fixed",
        )
    return [
        (
            f"runs of one arm differ in {names} ({shown}): they are no repeats of one setting; `--where {varying[0]}=…` keeps one, "
            f"`--arm {varying[0]}` beside the other makes arms of them, `--block {varying[0]}` compares within each"
        )
    ]


def _differing(
    rows: pd.DataFrame, arm: Sequence[str], used: Sequence[str], settings: Sequence[str]
) -> list[str]:
    """A note of settings that each arm has its own value of, beside what names the arms.

    One setting may be what an arm's name stands for: `variant` with its `lr`; a task is not, nor is a second setting.
    """
    import pandas as pd

    names = arm_of(rows, arm)
    own = []
    for name in settings:
        if name in used or name not in rows or is_seed(name) or is_counter(name):
            continue
        different = pd.DataFrame({"arm": names.to_numpy(), "level": rows[name].to_numpy()}).drop_duplicates()
        pairs = list(different.itertuples(index=False, name=None))
        is_label = all(str(one).lower() in str(level).lower() for one, level in pairs)  # such as a folder
        is_of_arms = len(pairs) == len({one for one, _ in pairs}) and len({level for _, level in pairs}) > 1
        if is_of_arms and not is_label:
            own.append((name, pairs))
    stands_for = len(arm) == 1 and is_generic(arm[0])
    if not own or (stands_for and len(own) == 1 and not is_task(own[0][0])):
        return []
    name, pairs = own[0]
    shown = ", ".join(
        f"{cut(str(level), 20) or '(empty)'} in {cut(str(one), 40)}" for one, level in pairs[:_SHOWN]
    )
    more = ", …" if len(pairs) > _SHOWN else ""
    return [
        (
            f"arms differ in {joined([name for name, _ in own][:_SHOWN])} too ({name} {shown}{more}): an effect is that of all that "
            "differs together"
        )
    ]


def _refuse_summaries(rows: pd.DataFrame, arm: Sequence[str], metric: str) -> None:
    """Raise StudyError where rows are means or other summaries of runs, by what stands where runs are counted or named.

    That may be the name of an arm too: `mean`, or `adam mean`, of which there is one row where others have several.
    """
    for column in arm:
        counts = rows[column].value_counts()
        single = [str(name) for name in counts.index[counts == 1]] if (counts > 1).any() else []
        for name in single:
            *of, last = re.split(r"[\s_:(-]+", name.lower().strip(" ).:"))
            if last in _MEANS and (
                not of
                or any(
                    " ".join(of) == " ".join(re.split(r"[\s_:(-]+", str(other).lower()))
                    for other in counts.index
                )
            ):
                row = rows.index[int((rows[column] == name).to_numpy().argmax())]
                raise StudyError(
                    f"{name!r} seems to be no arm, but to sum up others: row {named_row(row)} ({metric} {cut(str(rows.loc[[row], metric].iloc[0]), 40)})",
                    place="--arm",
                    hint="leave such rows out of the file; where it is an arm, give it another name",
                )
    for column in map(str, rows.columns):
        if column in arm or not (is_seed(column) or is_counter(column)):
            continue
        counts = rows[column].value_counts()
        levels = counts.index.to_series()
        plain = levels.str.lower()
        # Among whole numbers a word is none of a run: `Mittelwert`, `mean ± std`.
        whole = counts[levels.str.fullmatch(r"[-+]?\d+(\.0*)?")].sum()
        is_word = levels.str.fullmatch(r"\D*[^\W\d_]\D*") & ~plain.isin(UNDEFINED) & (whole * 2 > len(rows))
        found = rows[column][rows[column].isin(levels[plain.isin(SUMMARIES) | is_word])]
        if len(found) and len(found) < len(rows):
            raise StudyError(
                f"{counted(len(found), 'row')} of {len(rows)} {'sums' if len(found) == 1 else 'sum'} up others, and "
                f"{'is' if len(found) == 1 else 'are'} no run: row {named_row(found.index[0])} ({column} {found.iloc[0]})",
                place="--metric",
                hint="leave them out of the file",
            )


def _refuse_trials(rows: pd.DataFrame, arm: Sequence[str], used: Sequence[str]) -> None:
    """Raise StudyError where nearly every run has settings of its own, by the names of columns: those of a search."""
    own = [
        name
        for name in map(str, rows.columns)
        if name not in used and is_setting(name) and len(rows[name].unique()) > len(rows) // 2
    ]
    if own and len(rows) > len(arm_of(rows, arm).unique()):
        raise StudyError(
            f"runs of one arm differ in {joined(own[:_SHOWN])}, nearly every run with its own: these look like the trials of a "
            "search. No verdict: they are no repeats",
            place="--arm",
            hint="run the baseline and the arms that matter again, under three seeds or more, with everything else fixed. Where "
            f"{'this is no setting' if len(own) == 1 else 'these are no settings'}, leave {'it' if len(own) == 1 else 'them'} out of "
            "the file",
        )


def strips_of_tasks(rows: pd.DataFrame, arm: str, task: str) -> list[str] | None:
    """Return what to take out of the names of arms that all say on which task they were run; None where they do not.

    `adam_ant`, `sgd_ant`, `adam_cheetah`: `_ant`, `_cheetah`.
    """
    pairs = rows[[arm, task]].drop_duplicates()
    levels = [str(level) for level in pairs[task].unique()]
    if len(levels) < 2 or bool(pairs.duplicated([arm]).any()) or len(pairs) <= len(levels):
        return None
    strips = []
    for level in levels:
        names = [str(name) for name in pairs[arm][pairs[task] == level]]
        text = re.escape(level)
        matches = [
            re.search(rf"[\s_./:@-]+{text}(?![^\W_])|(?<![^\W_]){text}[\s_./:@-]+", name) for name in names
        ]
        found = {match[0] for match in matches if match is not None}
        if not level or len(found) != 1 or None in matches:
            return None
        strips.append(found.pop())
    return strips


def _refuse_names_of_tasks(rows: pd.DataFrame, arm: str, used: Sequence[str]) -> None:
    """Raise StudyError where the names of the arms say on which task each was run, and nobody said that tasks are blocks."""
    for column in map(str, rows.columns):
        if column in (arm, *used) or not is_task(column):
            continue
        strips = strips_of_tasks(rows, arm, column)
        if strips is None:
            continue
        typed = " ".join(f"--strip {shlex.quote(text)}" for text in strips[:_SHOWN])
        more = " …" if len(strips) > _SHOWN else ""
        raise StudyError(
            f"the names of the arms depend on {column}: {cut(str(rows[arm].iloc[0]), 60)!r} has no run in another",
            place="--arm",
            hint=f"compare within each {column}, by names without it: --block {shlex.quote(column)} {typed}{more}; in one alone, "
            f"--where {shlex.quote(f'{column}={rows[column].iloc[0]}')}",
        )


def _refuse_several_metrics(rows: pd.DataFrame, metric: str) -> None:
    """Raise StudyError where a column says that the rows hold values of several metrics."""
    for column in map(str, rows.columns):
        if column == metric:
            continue
        levels = [str(level) for level in rows[column].unique()[:1000]]
        if len(levels) > 1 and names_metrics(column, levels):
            first = next(level for level in levels if metrics.direction(level) is not None)
            raise StudyError(
                f"the rows hold {counted(len(levels), 'metric')}, by {column!r}: {cut(joined(levels[:_SHOWN]), 200)}",
                place="--metric",
                hint=f"choose one of them: --where '{column}={first}'",
            )


def _curves_seen(rows: pd.DataFrame, metric: str, found: CurveRows) -> str:
    """What is seen of curves, in a sentence."""
    logged = rows[rows[metric] != ""]
    number = logged.groupby(list(found.runs), sort=False, observed=True).ngroups if found.runs else 1
    return f"{counted(len(logged), 'row')} of {counted(number, 'run')}: each has several values of {metric}, over {found.step}"


def seen_as_curves(rows: pd.DataFrame, metric: str, within: Sequence[str]) -> str | None:
    """Return what is seen of curves, in a sentence; None where there is a row for each run, or nothing tells runs apart."""
    try:
        found = curves(rows, metric, within)
    except StudyError as error:
        return error.message
    return None if found is None else _curves_seen(rows, metric, found)


def repeats(rows: pd.DataFrame, arm: str, seed: str | None) -> str:
    """Return how many rows the arms have, in a sentence."""
    counts = rows[arm].value_counts()
    least, most = int(counts.min()), int(counts.max())
    per_arm = f"{least}" if least == most else f"{least} to {most}"
    seeds = f", under {counted(len(rows[seed].unique()), 'seed')}" if seed is not None else ""
    single = ": no repeats, and without them no verdicts" if most == 1 else ""
    return f"{counted(len(counts), 'arm')} by {arm}, {per_arm} {'row' if most == 1 else 'rows'} each{seeds}{single}"


def means_of(rows: pd.DataFrame, arm: str | None) -> tuple[str | None, str | None]:
    """Return the columns of standard deviations and of numbers of runs in a table with a row for each arm; None without one."""
    if arm is None or len(rows) < 2 or rows.duplicated([arm]).any():
        return None, None
    words = {str(name): set(re.split(r"[^a-z]+", str(name).lower())) for name in rows}
    spread = next((name for name, own in words.items() if own & _SPREADS), None)
    number = next((name for name, own in words.items() if own & _NUMBERS and name != spread), None)
    return spread, number


def unfinished_rows(rows: pd.DataFrame, column: str) -> int:
    """Return how many rows are of runs that did not finish, by the column that says so."""
    return sum(OUTCOMES.get(str(cell).lower(), "finished") != "finished" for cell in rows[column])


def state_column(rows: pd.DataFrame, used: Sequence[str]) -> str | None:
    """Return the column that says what became of each run; None without one. used: columns that are something else."""
    for column in map(str, rows.columns):
        if column not in used and is_state(column, rows[column].unique()):
            return column
    return None


def _outcomes(rows: pd.DataFrame, used: Sequence[str]) -> tuple[str, list[Outcome]] | None:
    column = state_column(rows, used)
    if column is None:
        return None
    return column, [OUTCOMES.get(str(cell).lower(), "finished") for cell in rows[column]]


def _unfinished(
    rows: pd.DataFrame, column: str, states: Sequence[Outcome], arms: pd.Series[str]
) -> list[str]:
    """A note of the runs that did not finish."""
    positions = [i for i, state in enumerate(states) if state != "finished"]
    if not positions:
        return []
    shown = "; ".join(
        f"row {named_row(rows.index[i])} ({cut(str(arms.iloc[i]), 40)}, {column} {rows[column].iloc[i]})"
        for i in positions[:_SHOWN]
    )
    more = f"; and {len(positions) - _SHOWN} more" if len(positions) > _SHOWN else ""
    does = "counts" if len(positions) == 1 else "count"
    return [
        f"{counted(len(positions), 'run')} did not finish and {does} as failed or diverged: {shown}{more}"
    ]
