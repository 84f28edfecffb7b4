"""`ablate judge`: files of results → their rows → verdicts as text.

What decides a verdict is told: the baseline, the margin, and whether runs are paired. How a file is written and what its
columns are is guessed, and printed as options that can be typed instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ablate import importing, metrics
from ablate.asking import Ask, choose, positive, yes
from ablate.comparing import Caller, Origin, Undefined, judge_frame, naming_strips, quoted
from ablate.comparisons import SUFFIXES, Comparisons
from ablate.errors import StudyError, nearest
from ablate.importing import HowToRead, Table
from ablate.importing.columns import (
    UNDEFINED,
    Column,
    candidates,
    is_seed,
    is_task,
    is_telling,
    names_metrics,
    numbers_of,
    survey,
)
from ablate.importing.curves import BEST, HOW, LAST, named_row
from ablate.importing.judged_rows import (
    Curve,
    arm_of,
    judged_rows,
    means_of,
    repeats,
    seen_as_curves,
    state_column,
    strips_of_tasks,
    unfinished_rows,
)
from ablate.importing.source import split
from ablate.importing.values import Unit, unit_of_margin
from ablate.importing.wide import lengthened, numbered
from ablate.metrics import Direction
from ablate.text import NUMBERS, counted, cut, joined, parse_whole, visible

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("text", "html", "md", "latex", "csv", "json")

Notify = Callable[[str], None]
"""Takes a line for people."""

_BASELINES = ("baseline", "base", "control", "default", "vanilla", "reference", "none")

_COMMAND = Caller(is_command=True)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was said on the command line; None, or empty, where nothing was."""

    arm: tuple[str, ...] = ()
    metric: str | None = None
    baseline: str | None = None
    margin: float | None = None
    block: str | None = None
    relative: bool = False
    seed: str | None = None
    unpaired: bool = False
    mean: str | None = None
    sd: str | None = None
    n: str | None = None
    where: tuple[str, ...] = ()
    direction: Direction | None = None
    resolution: float | None = None
    unit: Unit | None = None
    k: int | None = None
    wide: str | None = None
    nan: Undefined | None = None
    at: str | None = None
    step: str | None = None
    run: str | None = None
    strip: tuple[str, ...] = ()
    looks: tuple[int, ...] | None = None
    split: tuple[str, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was said of what to judge, so that the file is described instead."""
        said = (self.arm, self.metric, self.baseline, self.margin, self.seed, self.unpaired, self.mean)
        return all(value in ((), None, False) for value in said)

    @property
    def is_told(self) -> bool:
        """Whether all that is never guessed was said."""
        pairing = self.unpaired or self.seed is not None or self.mean is not None
        return self.baseline is not None and self.margin is not None and pairing


def judge(
    sources: Sequence[str],
    how: HowToRead,
    asked: Asked,
    notify: Notify,
    origin: Origin | None = None,
    ask: Ask | None = None,
) -> Comparisons | str:
    """Return the verdicts on results of others; where nothing is asked yet, a description and the command to type.

    sources: files, folders, patterns of files, addresses of stores. notify: takes what was guessed. origin: what a report says
    of where the results come from. ask: asks for what was not told; None: nobody is there to answer. Raises DataError where one cannot be read, StudyError where it cannot be judged so.
    """
    how = replace(how, metric=asked.metric, history=asked.at is not None)
    table = importing.read(sources, how)
    if asked.wide is not None:
        if asked.metric is None:
            raise StudyError(
                "what do the cells hold?",
                place="--metric",
                hint="with --wide it names them, for example --metric val/loss",
            )
        rows, notes = lengthened(table.rows, asked.wide, asked.metric)
        table = replace(table, rows=rows, notes=(*table.notes, *notes))
    table = replace(table, rows=_split(table.rows, asked.split))
    rows = _kept(table.rows, asked.where)
    if asked.is_nothing:
        described = describe(sources, how, table, rows, asked)
        if ask is None or (asked.wide is None and numbered([str(name) for name in rows.columns])[1]):
            return described
        for line in described.partition("\nnext, with")[0].splitlines():
            notify(line)
    if ask is not None and not asked.is_told:
        asked = _completed(table, rows, asked, ask)
        surveyed = survey(table.rows, table.measured)
        command = _command(sources, how, asked, asked.arm, _metric(asked, surveyed), surveyed)
        notify(f"without questions: {command}")
    metric = asked.metric or asked.mean
    # What --where leaves of a file may be too little to guess from. A large file is not looked through in vain.
    columns = () if asked.arm and metric is not None and asked.is_told else survey(table.rows, table.measured)
    arm = list(asked.arm) or [_the(_free(columns, asked), "arm")]
    metric = _metric(asked, columns)
    if asked.direction is None and metric in table.directions:
        known = table.directions[metric]
        asked, direction_option = replace(asked, direction=known), [f"--direction {known}"]
    else:
        direction_option = []
    told = (asked.block, asked.seed, asked.sd, asked.n, asked.step, asked.run)
    if shared := [name for name in (*arm, metric, *told) if name in table.repeated]:
        raise StudyError(
            f"several columns are called {shared[0]!r}",
            place=sources[0],
            hint="rename all but one of them",
        )
    _require_told(sources, how, asked, arm, metric, columns)
    assert asked.baseline is not None
    assert asked.margin is not None
    runs = judged_rows(
        rows,
        metric=metric,
        arm=arm,
        block=asked.block,
        seed=asked.seed,
        is_means=asked.mean is not None,
        direction=asked.direction,
        curve=Curve(asked.at, asked.step, asked.run, table.step, table.run),
        strip=asked.strip,
        unit=asked.unit,
        resolution=asked.resolution,
        known_resolution=table.resolutions.get(metric),
        settings=table.settings,
        is_search=table.is_search,
    )
    if runs.comma and asked.margin < 1 and not asked.relative:
        raise StudyError(
            f"is {runs.comma} in {metric!r} {runs.comma.replace(',', '')} or {runs.comma.replace(',', '.')}? A margin of "
            f"{asked.margin:g} is for decimals",
            place="--metric",
            hint="write decimals with a point, or thousands without a comma",
        )
    notes = [*runs.notes]
    if (note := unit_of_margin(runs.unit, asked.margin, relative=asked.relative)) is not None:
        notes.append(note)
    largest = 0.0 if asked.relative or metric not in runs.rows else _largest(runs.rows[metric], asked.margin)
    if asked.margin > largest > 0:
        if runs.point:
            raise StudyError(
                f"is {runs.point} in {metric!r} {runs.point.replace('.', '')} or a decimal? A margin of {asked.margin:g} is more than every "
                "value, and the points may stand between thousands",
                place="--metric",
                hint="write thousands without a point; where these are decimals, --margin is to be smaller than they are",
            )
        notes.append(
            f"the margin of {asked.margin:g} is more than every {metric} here, the largest being {largest:g}"
        )
    if asked.at is None and (note := _ends_differ(table, rows, metric)) is not None:
        notes.append(note)
    judged = judge_frame(
        runs.rows,
        _COMMAND,
        metric=metric,
        margin=asked.margin,
        arm=arm,
        seed=asked.seed,
        baseline=asked.baseline,
        block=asked.block,
        paired=not asked.unpaired,
        looks=asked.looks,
        direction=asked.direction,
        resolution=runs.resolution,
        relative=asked.relative,
        k=asked.k,
        nan=asked.nan,
        sd=asked.sd,
        n=asked.n,
        origin=origin,
        outcomes=runs.outcomes,
        notes_on_rows=notes,
    )
    for note in table.notes:
        notify(note)
    direction = judged.analysis.rules.direction
    guessed = [_COMMAND.setting(name, value) for name, value in table.options.items()]
    guessed += [] if asked.arm else [_COMMAND.setting("arm", arm[0])]
    guessed += [] if asked.metric or asked.mean else [_COMMAND.setting("metric", metric)]
    guessed += [_COMMAND.setting(name, value) for name, value in runs.options.items()]
    guessed += direction_option if asked.direction else [f"--direction {direction}"]
    notify(f"read as: {' '.join(guessed)}")
    return judged


def _largest(cells: pd.Series[str], enough: float) -> float:
    """Return the largest value of a metric, whatever its sign; of many cells the first that reach what is enough."""
    first = float(numbers_of(cells.head(100)).abs().max())
    return first if first >= enough else float(numbers_of(cells).abs().max())


def _ends_differ(table: Table, rows: pd.DataFrame, metric: str) -> str | None:
    """Return a note where the last values that runs have of a metric are of different steps; None otherwise."""
    known = table.last_steps.get(metric)
    if known is None or table.run not in rows:
        return None
    cells = rows.loc[rows[metric] != "", table.run]
    steps = {label: known[run] for label, run in cells.items() if run in known}
    if len(set(steps.values())) < 2:
        return None
    first, last = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
    return (
        f"The last values of {metric} are of different steps: of step {steps[first]} in row {named_row(first)}, of {steps[last]} "
        f"in row {named_row(last)}. --at {LAST} counts runs that stopped short as failed; --at {steps[first]} compares all at one "
        "step"
    )


def _completed(table: Table, rows: pd.DataFrame, asked: Asked, ask: Ask) -> Asked:
    """What was told, with the answers to what was not."""
    columns = survey(table.rows, table.measured)
    names = [column.name for column in columns]
    if not asked.arm:
        arms = candidates(_free(columns, asked), "arm")
        proposed = arms[0] if arms else None
        asked = replace(
            asked, arm=(choose("Which column names the arms?", arms or names, ask, proposed=proposed),)
        )
    if asked.metric is None and asked.mean is None:
        measured = candidates(columns, "metric")
        proposed = measured[0] if measured else None
        asked = replace(
            asked, metric=choose("Which column is judged?", measured or names, ask, proposed=proposed)
        )
    metric = _metric(asked, columns)
    if asked.direction is None and metric not in table.directions and metrics.direction(metric) is None:
        better = choose(f"Is {metric} to be maximized or minimized?", metrics.DIRECTIONS, ask)
        asked = replace(asked, direction=next(known for known in metrics.DIRECTIONS if known == better))
    if any(name not in rows for name in (*asked.arm, metric)):
        return asked  # the message about it says more than a question
    seeds = candidates(columns, "seed")
    arms = [asked.arm[0], *(name for name in candidates(columns, "arm") if name not in asked.arm)]
    if asked.block is None and asked.mean is None:
        block = _block(rows, arms, seeds[0] if seeds else None)
        if block is not None and yes(f"Are arms to be compared within each {block}, and over them?", ask):
            asked = replace(asked, block=block)
    within = [*asked.arm, *([asked.block] if asked.block else []), *seeds[:1]]
    seen = seen_as_curves(rows, metric, within) if asked.at is None and asked.mean is None else None
    if seen is not None:
        steps = [LAST, BEST]
        asked = replace(asked, at=choose(f"{seen}. Which value counts?", steps, ask))
    if asked.baseline is None:
        levels = [str(level) for level in arm_of(rows, asked.arm).unique()]
        asked = replace(asked, baseline=choose("Which arm is the baseline?", levels, ask))
    if asked.margin is None:
        asked = replace(
            asked, margin=positive(f"What is the smallest difference worth having, in {metric}?", ask)
        )
    if asked.seed is None and not asked.unpaired and asked.mean is None:
        if seeds and yes(f"Are runs with one {seeds[0]} pairs: did it fix what varies between runs?", ask):
            asked = replace(asked, seed=seeds[0])
        else:
            asked = replace(asked, unpaired=yes("Is it so that no two runs share anything?", ask))
    return asked


def looks_of(text: str | None) -> tuple[int, ...] | None:
    """Return the numbers of `--looks 5,10`. Raises StudyError where one is no whole number."""
    if text is None:
        return None
    looks = [number for part in text.split(",") if (number := parse_whole(part)) is not None]
    if len(looks) != len(text.split(",")):
        raise StudyError(
            f"{text!r} should be numbers of seeds",
            place="--looks",
            hint=f"for example --looks 5,10; {NUMBERS}",
        )
    return tuple(looks)


def check_name(name: str) -> None:
    """Raise StudyError where a study cannot be called so."""
    from ablate.study.keys import read_name

    try:
        read_name(name)
    except StudyError as error:
        raise StudyError(error.message, place="--name", hint=error.hint) from None


def format_of(given: str | None, output: Path | None) -> str:
    """Return the format to write: the given one; else what the suffix of the file says; text at a terminal."""
    return given or SUFFIXES.get("" if output is None else output.suffix.lower(), "text")


def study_of(sources: Sequence[str]) -> str:
    """Return what verdicts on some sources are called: the name of the first, without its folder and ending."""
    name = re.split(r"[/\\#:]", sources[0].rstrip("/"))[-1]
    stem = name.rpartition(".")[0] if "." in name.strip(".") else name
    return stem or name


def text(judged: Comparisons, format: str) -> str:  # noqa: A002 — as the option
    """Return verdicts in one of `FORMATS`."""
    writers = {"md": judged.markdown, "html": judged.page, "latex": judged.latex}
    if format in writers:
        return writers[format]()
    if format == "text":
        lines = [judged.headline, "", *(f"- {item.sentence}" for item in judged), ""]
        for block, items in judged.blocks:
            lines += [f"{block}:", *(f"- {item.sentence}" for item in items)]
        lines += [*([""] if judged.blocks else []), judged.about]
        return "\n".join([*lines, *(f"note: {note}" for note in judged.notes)]) + "\n"
    from ablate.report.export import csv, json_text

    content = judged.to_json()
    return csv(content) if format == "csv" else json_text(content)


# --- what the file is -------------------------------------------------------------------------------------------------


def _split(rows: pd.DataFrame, patterns: Sequence[str]) -> pd.DataFrame:
    """The rows with the columns that `--split COLUMN=PATTERN` takes out of the cells of one."""
    for text in patterns:
        column, _, pattern = text.partition("=")
        if column not in rows:
            raise StudyError(
                f"there is no column {column!r}", place="--split", hint=nearest(column, map(str, rows))
            )
        regex, names = split(pattern)
        cells = rows[column].unique()
        parts = {str(cell): regex.fullmatch(str(cell)) for cell in cells}
        if other := [cell for cell, match in parts.items() if match is None]:
            raise StudyError(
                f"{cut(other[0])!r} in {column!r} is not written as {pattern!r}, nor are {len(other) - 1} more of "
                f"{counted(len(cells), 'value')}",
                place="--split",
                hint="--where keeps the rows that are",
            )
        if taken := [name for name in names if name in rows and name != column]:
            raise StudyError(
                f"there is a column {taken[0]!r} already", place="--split", hint="use another name"
            )
        new = {
            name: rows[column].map({cell: match[f"n{i}"] for cell, match in parts.items() if match})
            for i, name in enumerate(names)
        }
        rows = rows.assign(**new)
    return rows


def _kept(rows: pd.DataFrame, where: Sequence[str]) -> pd.DataFrame:
    """The rows that every `--where COLUMN=VALUE` keeps. Raises StudyError where a column or a value is not there."""
    for condition in where:
        splits = [(condition[:i], condition[i + 1 :]) for i, c in enumerate(condition) if c == "="]
        known = [(column, value) for column, value in splits if column in rows]
        if not splits:
            raise StudyError(f"{condition!r} is not COLUMN=VALUE", place="--where")
        if not known:
            raise StudyError(
                f"there is no column {splits[0][0]!r}",
                place="--where",
                hint=nearest(splits[0][0], map(str, rows)),
            )
        column, value = known[0]
        values = [str(cell) for cell in rows[column].unique()]
        if value.strip() not in values:
            raise StudyError(
                f"no row has {value!r} in {column!r}", place="--where", hint=nearest(value, values[:1000])
            )
        rows = rows[rows[column] == value.strip()]
    return rows


def _free(columns: Sequence[Column], asked: Asked) -> Sequence[Column]:
    """The columns that may be the arms: not those that --where or --block name, where there are others."""
    free = [
        column
        for column in columns
        if column.name != asked.block and not any(c.startswith(f"{column.name}=") for c in asked.where)
    ]
    return free if candidates(free, "arm") else columns


def _the(columns: Sequence[Column], role: Literal["arm", "metric"]) -> str:
    """The only column that may be the arms, or the metric, or the only one of them that is called so.

    Raises StudyError where there are several, or none.
    """
    names = candidates([c for c in columns if len(c.levels) > 1], role) or candidates(columns, role)
    telling = [name for name in names if is_telling(name, role)]
    names = telling if len(telling) == 1 else names
    if len(names) == 1:
        return names[0]
    if not names:
        for column in columns if role == "metric" else ():
            if _has_spread(column):
                raise StudyError(_spread_in(column), place="--metric", hint=_SPREAD_ADVICE)
        if role == "metric" and (unread := _not_numbers(columns)) is not None:
            raise StudyError(unread, place="--metric", hint=_NUMBERS_ADVICE)
        every = ", ".join(column.name for column in columns)
        raise StudyError(f"which column is the {role}?", place=f"--{role}", hint=f"the columns are {every}")
    raise StudyError(
        f"{joined(names[:8], 'or')}?",
        place=f"--{role}",
        hint=f"{_COMMAND.setting(role, names[0])} takes the first of them",
    )


def _metric(asked: Asked, columns: Sequence[Column]) -> str:
    if asked.mean is not None:
        if asked.metric not in (None, asked.mean):
            raise StudyError(
                f"--metric {asked.metric} and --mean {asked.mean}: which is it?",
                place="--mean",
                hint="a table of means has --mean, --sd and --n; single runs have --metric",
            )
        return asked.mean
    return asked.metric or _the(columns, "metric")


def _require_told(
    sources: Sequence[str],
    how: HowToRead,
    asked: Asked,
    arm: Sequence[str],
    metric: str,
    columns: Sequence[Column],
) -> None:
    """Raise StudyError where the baseline, the margin or the pairing was not said, with the command to type."""
    if asked.seed is not None and asked.unpaired:
        raise StudyError("the runs are paired by a seed, or they are not", place="--unpaired")
    means = asked.mean is not None or asked.sd is not None or asked.n is not None
    if means and (asked.sd is None or asked.n is None):
        raise StudyError(
            "a table of means needs the standard deviation of single runs and the number of runs too",
            place="--mean",
            hint="--mean COL --sd COL --n COL",
        )
    missing = [f"--{name}" for name in ("baseline", "margin") if getattr(asked, name) is None]
    if asked.seed is None and not (asked.unpaired or means):
        missing.append("--seed COLUMN or --unpaired")
    if missing:
        raise StudyError(
            f"say {joined(missing)} too: {'that is' if len(missing) == 1 else 'these are'} never guessed",
            place="judge",
            hint=f"for example: {_command(sources, how, asked, arm, metric, columns)}",
        )


# --- what can be asked ------------------------------------------------------------------------------------------------


def describe(sources: Sequence[str], how: HowToRead, table: Table, rows: pd.DataFrame, asked: Asked) -> str:
    """Return what is seen of results: their columns, what these may be, repeats, and the command to type next."""
    columns = survey(rows, table.measured)
    options = " ".join(_COMMAND.setting(name, value) for name, value in table.options.items())
    lines = [
        (
            f"{visible(joined(sources))}: {counted(len(rows), 'row')}, {counted(len(columns), 'column')}"
            f"{f' ({options})' if options else ''}"
        )
    ]
    lines += [f"  {visible(note)}" for note in table.notes]
    width = min(30, max(len(column.name) for column in columns))
    lines += [f"  {cut(visible(column.name)):<{width}}  {column.line()}" for column in columns]
    arms, measured = candidates(columns, "arm"), candidates(columns, "metric")
    seeds, counters = candidates(columns, "seed"), candidates(columns, "counter")
    remarks: list[str] = []
    stem, wide = numbered([str(name) for name in rows.columns])
    if not arms and measured and not asked.split and (found := _in_names(rows, counters)) is not None:
        listed = describe(sources, how, table, _split(rows, [found]), replace(asked, split=(found,)))
        column, _, pattern = found.partition("=")
        return listed.replace("\n\n", f"\n\n{column} is written as {pattern}: --split takes it apart\n", 1)
    if not measured:
        several = next((c for c in columns if _has_spread(c)), None)
        if several is not None:
            return "\n".join([*lines, "", _spread_in(several), _SPREAD_ADVICE]) + "\n"
        unread = _not_numbers(columns)
        remarks += [] if unread is None else [unread, _NUMBERS_ADVICE]
        if not how.lines and (patterns := _log_lines(sources, rows)):
            told = replace(how, lines=tuple(patterns))
            command = _command(
                sources, told, replace(asked, at="last"), arms[:1] or ["COLUMN"], "METRIC", columns
            )
            remark = (
                "no column may be the metric, and lines have values in them, as a log has: --line reads them"
            )
            command = command.replace(" --metric METRIC", "")
            return (
                "\n".join(
                    [
                        *lines,
                        "",
                        remark,
                        "",
                        "next, with a baseline and a margin of your choice:",
                        f"  {command}",
                    ]
                )
                + "\n"
            )
    kinds = next(
        (c for c in columns if len(c.levels) > 1 and names_metrics(c.name, [v for v, _ in c.levels])), None
    )
    if kinds is not None and not asked.where:
        levels = [value for value, _ in kinds.levels]
        one = next(value for value in levels if metrics.direction(value) is not None)
        remarks.append(
            f"{kinds.name} says which metric a row has, {cut(joined(levels[:4]), 100)}: --where keeps one"
        )
        asked = replace(
            asked, where=(f"{kinds.name}={one}",), direction=asked.direction or metrics.direction(one)
        )
        rows = _kept(rows, asked.where)
    others = [name for name in measured if metrics.direction(name) is None]
    if not arms and len(others) > 1 and others == measured and not wide and asked.wide is None:
        asked = replace(asked, wide="arm")
        remarks.append(
            f"no column names the arms; {joined(others[:6])} may be arms, a column each: --wide arm makes a row of each run"
        )
        arms, measured = ["arm"], []
    over_steps = None
    if arms and measured and arms[0] in rows:
        within = [arms[0], *seeds[:1]]
        over_steps = seen_as_curves(rows, measured[0], within)
        if over_steps is not None:
            remarks.append(f"{over_steps}: --at {HOW} says which of them counts")
            asked = replace(asked, at=asked.at or "last")
        elif not wide or seeds:
            remarks.append(repeats(rows, arms[0], seeds[0] if seeds else None))
    state = state_column(rows, [*arms[:1], *measured[:1]])
    if state is not None:
        unfinished = unfinished_rows(rows, state)
        remarks += (
            [f"{counted(unfinished, 'row')} did not finish, by {state}, and will count as failed"]
            if unfinished
            else []
        )
    if len(arms) > 1 and measured and over_steps is None and asked.block is None:
        asked = replace(asked, block=_block(rows, arms, seeds[0] if seeds else None))
        if asked.block is not None:
            remarks.append(
                f"{asked.block} tells apart the rows of one arm{f' and {seeds[0]}' if seeds else ''}: it may be the block, in which "
                "arms are compared"
            )
    if asked.block is None and arms and (task := next((c.name for c in columns if is_task(c.name)), None)):
        strips = strips_of_tasks(rows, arms[0], task) if task != arms[0] else None
        if strips is not None:
            asked = replace(asked, block=task, strip=tuple(strips))
            remarks.append(
                f"the names of the arms depend on {task}: --strip takes it out of them, and --block compares within each"
            )
    elif asked.block is not None and arms and not asked.strip:
        asked = replace(asked, strip=_strips(rows, arms[0], asked.block))
        if asked.strip:
            remarks.append(
                f"in some blocks arms are called otherwise: --strip takes {joined(asked.strip)} out of their names"
            )
    if arms and measured and seeds and over_steps is None and asked.block is None:
        remarks.append(_pairing(rows, arms[0], measured[0], seeds[0]))
        asked = replace(asked, unpaired=asked.unpaired or _shares_nothing(rows, arms[0], seeds[0]))
    elif counters and not seeds:
        remarks.append(
            f"no column is called a seed; {counters[-1]} pairs nothing, so the runs are not paired"
        )
    spread, runs = means_of(rows, arms[0] if arms and arms[0] in rows else None)
    means = [name for name in measured if name not in (spread, runs)]
    if spread is not None and runs is not None and means and asked.mean is None:
        asked = replace(asked, mean=means[0], sd=spread, n=runs)
        remarks = [
            f"one row for each arm, with {spread} and {runs}: this may be a table of means, standard deviations and numbers of runs"
        ]
    if wide and not seeds and asked.wide is None:
        over = "seed" if is_seed(stem) or not stem else stem.split()[-1]
        asked = replace(asked, wide=over)
        arms = [name for name in arms if name not in wide]
        measured = ["METRIC"]
        remarks.append(
            f"{wide[0]} to {wide[-1]} may be {counted(len(wide), 'run')} of each row: --wide makes a row of each"
        )
    if table.is_search:
        remarks.append(
            "these are the trials of a search: they are judged only where the trials of an arm differ in nothing else"
        )
    arm, metric = (arms or ["COLUMN"])[:1], (measured or ["METRIC" if asked.wide == "arm" else "COLUMN"])[0]
    if asked.direction is None and metric in table.directions:
        asked = replace(asked, direction=table.directions[metric])
    lines += ["", *map(visible, remarks)] if remarks else []
    lines += ["", "next, with a baseline and a margin of your choice:"]
    lines.append(f"  {_command(sources, how, asked, arm, metric, columns)}")
    return "\n".join(lines) + "\n"


def _command(
    sources: Sequence[str],
    how: HowToRead,
    asked: Asked,
    arm: Sequence[str],
    metric: str,
    columns: Sequence[Column],
) -> str:
    """The command with everything that was said, and with what is still to be said in capitals or as a proposal."""
    levels = [value for column in columns if [column.name] == list(arm) for value, _ in column.levels]
    baselines = [value for name in _BASELINES for value in levels if value.lower() == name]
    parts = ["ablate judge", *(quoted(path) for path in sources)]
    parts += [_COMMAND.setting("line", pattern) for pattern in how.lines]
    parts += [_COMMAND.setting("split", pattern) for pattern in asked.split]
    parts += [_COMMAND.setting("where", condition) for condition in asked.where]
    parts += [] if asked.wide is None else [_COMMAND.setting("wide", asked.wide)]
    parts += [_COMMAND.setting("arm", name) for name in arm]
    if asked.mean is None:
        parts.append(_COMMAND.setting("metric", metric))
    parts += [
        _COMMAND.setting(name, value)
        for name, value in (("mean", asked.mean), ("sd", asked.sd), ("n", asked.n))
        if value is not None
    ]
    parts += [_COMMAND.setting("strip", part) for part in asked.strip]
    parts += [
        _COMMAND.setting(name, value)
        for name, value in (("at", asked.at), ("step", asked.step), ("run", asked.run), ("unit", asked.unit))
        if value is not None
    ]
    parts.append(_COMMAND.setting("baseline", asked.baseline or (baselines or ["ARM"])[0]))
    parts += [] if asked.block is None else [_COMMAND.setting("block", asked.block)]
    parts += ["--relative"] if asked.relative else []
    parts.append(_COMMAND.setting("margin", "X" if asked.margin is None else f"{asked.margin:g}"))
    if asked.direction is not None or (
        metric not in ("COLUMN", "METRIC") and metrics.direction(metric) is None
    ):
        parts.append(_COMMAND.setting("direction", asked.direction or "maximize|minimize"))
    if asked.mean is None:
        wide_seed = asked.wide if asked.wide is not None and is_seed(asked.wide) else None
        seed = (
            asked.seed
            or wide_seed
            or next((c.name for c in columns if is_seed(c.name) and len(c.levels) > 1), None)
        )
        parts.append("--unpaired" if asked.unpaired or seed is None else _COMMAND.setting("seed", seed))
    return " ".join(parts)


_RUN_NAME = re.compile(r"(.+?)([\s_./:-]+(?:seed|s|run|r|rep|trial|v)?[\s_=.:-]*)(\d+)\Z", re.IGNORECASE)

_SPREAD_ADVICE = "write mean, standard deviation of single runs and number of runs in columns of their own, and name them: --mean COL --sd COL --n COL"


def _has_spread(column: Column) -> bool:
    return any("±" in value or "+/-" in value for value, _ in column.levels)


def _spread_in(column: Column) -> str:
    return f"{column.name!r} holds means with their spread, as {cut(column.levels[0][0])!r}"


_NUMBERS_ADVICE = "write numbers as 1198.1 or 0.91, without a unit or a sign between thousands; a cell that has none is empty or nan"

_LIKE_A_NUMBER = re.compile(r"[^\w\s\[{(]{0,2}\s*[-+−]?\d[\d.,’'_\s]*\s*[^\d\s]{0,9}")
"""A number with more than a number: `1'198.1`, `€ 12`, `12.5 ms`."""


def _not_numbers(columns: Sequence[Column]) -> str | None:
    """What keeps a column from being the metric: cells that are no numbers, where most are, or all look like some; None without one."""
    import pandas as pd

    for column in columns:
        if column.low is not None or column.role not in ("arm", "other") or is_telling(column.name, "arm"):
            continue
        levels = pd.Series([value for value, _ in column.levels])
        lacking = numbers_of(levels).isna() & ~levels.str.lower().isin(UNDEFINED)
        rows = pd.Series([number for _, number in column.levels])
        is_written = len(levels) > 1 and bool(levels[lacking].map(_LIKE_A_NUMBER.fullmatch).notna().all())
        is_measured = is_telling(column.name, "metric") or len(levels) > rows.sum() // 2
        if int(rows[lacking].sum()) * 2 < int(rows.sum()) or (is_written and is_measured):
            shown = ", ".join(repr(cut(cell, 30)) for cell in levels[lacking][:4])
            some = counted(int(rows[lacking].sum()), "cell is no number", "cells are no numbers")
            return f"{column.name!r} may be the metric, but {some} as written: {shown}"
    return None


def _in_names(rows: pd.DataFrame, counters: Sequence[str]) -> str | None:
    """What `--split` is to be given where a column of runs' names has the arm and a number in each: `run={arm}-seed{seed}`."""
    for column in counters:
        names = [str(name) for name in rows[column].unique()]
        matches = [_RUN_NAME.match(name) for name in names]
        between = {match[2] for match in matches if match is not None}
        arms = {match[1] for match in matches if match is not None}
        if None in matches or len(between) != 1 or not 2 <= len(arms) < len(names):
            continue
        text = between.pop()
        number = "seed" if re.fullmatch(r"s|seed", text.strip(" \t_./:=-").lower()) else "number"
        if not {"arm", number} & set(map(str, rows.columns)):
            return f"{column}={{arm}}{text}{{{number}}}"
    return None


def _log_lines(sources: Sequence[str], rows: pd.DataFrame) -> list[str]:
    """Patterns for `--line` where the first of the files that were read is a log."""
    from ablate.importing.columns import FILE
    from ablate.importing.runs import proposed_lines

    first = str(rows[FILE].iloc[0]) if FILE in rows and len(rows) else sources[0]
    return proposed_lines(Path(first))


def _strips(rows: pd.DataFrame, arm: str, block: str) -> tuple[str, ...]:
    """What to take out of the arms' names, so that some arm is called the same in every block; empty where none is needed."""
    pairs = rows[[block, arm]].drop_duplicates()
    arms_in = {
        str(name): set(map(str, group[arm]))
        for name, group in pairs.groupby(block, sort=False, observed=True)
    }
    names = list(arms_in.values())
    if set.intersection(*names):
        return ()
    found = [tuple(naming_strips(names, name) or ()) for name in sorted(set.union(*names))]
    return min(filter(None, found), key=lambda texts: (len(texts), len("".join(texts))), default=())


def _shares_nothing(rows: pd.DataFrame, arm: str, seed: str) -> bool:
    """Whether several arms have no seed in common."""
    pairs = rows[[arm, seed]].drop_duplicates()
    return len(pairs[arm].unique()) > 1 and not bool(pairs.duplicated([seed]).any())


def _block(rows: pd.DataFrame, arms: Sequence[str], seed: str | None) -> str | None:
    """The column that tells apart what would be one arm's rows under one seed; None where there is none, or no need of one.

    Without seeds: a column of tasks in each of which two arms or more have rows.
    """
    if seed is None:
        tasks = [name for name in arms[1:] if is_task(name)]
        return next(
            (name for name in tasks if rows.groupby(name, observed=True)[arms[0]].nunique().min() > 1), None
        )
    if not rows.duplicated([arms[0], seed]).any():
        return None
    return next((name for name in arms[1:] if not rows.duplicated([arms[0], seed, name]).any()), None)


def _pairing(rows: pd.DataFrame, arm: str, metric: str, seed: str) -> str:
    """What pairing by a seed would gain: how results correlate over seeds between arms."""
    import numpy as np
    import pandas as pd

    values = numbers_of(rows[metric])
    frame = pd.DataFrame({"arm": rows[arm], "seed": rows[seed], "value": values}).dropna()
    if len(frame) > 1 and len(set(frame["seed"])) == 1:
        return f"{seed} is {frame['seed'].iloc[0]} in every row: no repeats, and no verdicts"
    if len(set(frame["arm"])) == 1:
        return "there is one arm alone: nothing to compare it with, and no verdicts"
    if _shares_nothing(rows, arm, seed):
        return f"no two arms share a {seed}: it pairs nothing, so the runs are not paired"
    if frame.duplicated(["arm", "seed"]).any():
        return f"{seed} repeats within {arm}: say what tells the rows apart, with --block, --where or a second --arm"
    table = frame.pivot_table(index="seed", columns="arm", values="value").iloc[:, :50]
    matrix = table.corr(min_periods=3).to_numpy(dtype=float)
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    pairs = pairs[np.isfinite(pairs)]
    if not pairs.size:
        return f"{seed} may pair the runs, but no two arms share three seeds"
    return (
        f"{seed} may pair the runs: over seeds the arms correlate by {pairs.mean():.2f} on average. Pair by it where it fixed "
        "what varies between runs; --unpaired otherwise"
    )
