"""The cells of a metric as numbers: percent signs, counts out of a total, thousands; and how finely they were printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ablate.errors import StudyError
from ablate.importing.columns import THOUSANDS, THOUSANDS_WITH_POINTS, UNDEFINED
from ablate.importing.curves import named_row
from ablate.shares import GAP_OF_UNITS, is_share
from ablate.text import counted, cut

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal["share", "percent"]

UNITS: tuple[Unit, Unit] = ("share", "percent")

_PERCENT = r"[-+−]?(?:\d+\.?\d*|\.\d+)\s*%"
_COUNT = r"(\d+)\s*/\s*(\d+)"
_DECIMALS = r"[-+]?\d*(?:\.(\d*))?\Z"

_MOST_DECIMALS = 8
"""More decimals than this are those of a computation, and say nothing of how fine a metric is."""


@dataclass(frozen=True)
class MeasuredCells:
    """A metric's cells with their numbers as plain text, and what was seen of them.

    unit: None where they are neither shares nor percentages. resolution: their smallest step; 0 where it is not known. notes:
    what was taken for what, where it could be something else. comma, point: a cell with one comma, or one point, where all such
    cells may be decimals as well as thousands; "" where there is none.
    """

    cells: pd.Series[str]
    unit: Unit | None
    resolution: float
    notes: tuple[str, ...] = ()
    comma: str = ""
    point: str = ""


def measured(
    cells: pd.Series[str], metric: str, *, unit: Unit | None, resolution: float | None
) -> MeasuredCells:
    """Return the numbers of a metric. unit, resolution: what was told; None: to be seen.

    Cells that are no number in any of these ways stay as they are. Raises StudyError where some are shares and others percentages.
    """
    levels = cells.drop_duplicates().reset_index(
        drop=True
    )  # a row of several runs stands there several times
    text = levels.str.replace("−", "-")
    numbers = text.copy()
    percent = text.str.fullmatch(_PERCENT)
    counts = text.str.fullmatch(_COUNT)
    thousands = text.str.fullmatch(THOUSANDS)
    totals: list[int] = []
    notes: tuple[str, ...] = ()
    comma = ""
    if percent.any():
        plain = ~percent & ~text.str.lower().isin(UNDEFINED)
        if unit is None and (plain & ~counts).any():
            raise _mixed(cells, metric, levels[percent].iloc[0], levels[plain].iloc[0])
        stripped = text[percent].str.rstrip("% ")
        numbers[percent] = stripped.map(lambda t: _text(float(t) / 100)) if unit == "share" else stripped
        unit = unit or "percent"
    if counts.any():
        factor = 100 if unit == "percent" else 1

        def of_total(cell: str) -> str:
            above, below = map(int, cell.split("/"))
            if below and above > below:
                raise StudyError(
                    f"{cell} is more than all: row {named_row(cells.index[int((cells == cell).to_numpy().argmax())])} ({metric})",
                    place="--metric",
                )
            totals.extend([below] if below > 0 else [])
            return _text(factor * above / below) if below > 0 else "nan"

        numbers[counts] = text[counts].map(of_total)
        unit = unit or "share"
    point = _with_points(text, metric)
    if thousands.any():
        numbers[thousands] = text[thousands].str.replace(",", "")
        one = levels[thousands].iloc[0]
        # Beside 992 or 992.5 the comma of 1,015 is none of a decimal.
        is_told = text.str.fullmatch(r"[-+]?(\d{3,}|\d*\.\d+)").any()
        may_be_decimal = not is_told and text[thousands].str.fullmatch(r"[-+]?\d+,\d+").all()
        comma = one if may_be_decimal else ""
        notes = (f"commas in {metric} stand between thousands: {one} is {numbers[thousands].iloc[0]}",)
    changed = bool((numbers != levels).any())
    result = cells.map(dict(zip(levels, numbers, strict=True))) if changed else cells
    if resolution is None:
        resolution = (
            (100 if unit == "percent" else 1) / min(totals)
            if totals
            else _printed(numbers, unit if percent.any() else None)
        )
    if unit is None and is_share(metric):
        unit = _unit(cells, numbers, metric)
    return MeasuredCells(result, unit, resolution, notes, comma, point)


def _with_points(levels: pd.Series[str], metric: str) -> str:
    """Return a number whose point may stand between thousands, where all points of a metric may; "" where one cannot.

    Raises StudyError where whole numbers beside them say that they do: 987 beside 1.205 is not printed with its decimals.
    """
    pointed = levels[levels.str.contains(".", regex=False)]
    if not len(pointed) or not pointed.str.fullmatch(THOUSANDS_WITH_POINTS).all():
        return ""
    whole = levels[levels.str.fullmatch(r"[-+]?[1-9]\d{2}")]
    one = str(pointed.iloc[0])
    if len(whole):
        raise StudyError(
            f"is {one} in {metric!r} {one.replace('.', '')} or a decimal? Beside {whole.iloc[0]} its point may stand between thousands",
            place="--metric",
            hint=f"write thousands without a point; where it is a decimal, write {whole.iloc[0]}.0 too",
        )
    return one


def _text(value: float) -> str:
    return repr(round(value, 15))


def _unit(cells: pd.Series[str], numbers: pd.Series[str], metric: str) -> Unit | None:
    """Whether values are shares or percentages, by their size. Raises StudyError where they seem to be both."""
    import pandas as pd

    values = pd.to_numeric(numbers, errors="coerce").dropna()
    if values.empty or float(values.min()) < 0 or float(values.max()) > 100:
        return None
    small, large = values[(values > 0) & (values <= 1)], values[values > 1]
    if large.empty:
        return "share"
    if len(small) and float(large.min()) >= GAP_OF_UNITS * float(small.max()):
        raise _mixed(cells, metric, numbers[large.index[0]], numbers[small.index[0]])
    return "percent"


def _mixed(cells: pd.Series[str], metric: str, one: str, other: str) -> StudyError:
    rows = []
    for text in (one, other):
        same = cells[cells == text]
        rows.append(f"row {named_row(same.index[0])} ({metric} {cut(text)})" if len(same) else cut(text))
    return StudyError(
        f"some values of {metric!r} look like percentages and others like shares: {rows[0]} and {rows[1]}",
        place="--unit",
        hint="write them all in one unit; where they are in one already, --unit percent or --unit share says which",
    )


def _printed(numbers: pd.Series[str], percent: Unit | None) -> float:
    """The step of the last decimal that values were printed with; 0 where they were not rounded, or there are too few to say."""
    defined = numbers[~numbers.str.lower().isin(UNDEFINED)]
    found = defined.str.extract(_DECIMALS, expand=False)
    if len(defined) < 3 or not defined.str.match(_DECIMALS).all():
        return 0.0
    most = int(found.fillna("").str.len().max())
    if most > _MOST_DECIMALS:
        return 0.0
    return float(f"1e-{most}") / (100 if percent == "share" else 1)


def unit_of_margin(unit: Unit | None, margin: float, *, relative: bool) -> str | None:
    """Return a note where a margin is too small for its unit. Raises StudyError where it is larger than a share can be."""
    if relative or unit is None:
        return None
    if unit == "share" and margin >= 1:
        raise StudyError(
            f"the values are shares, of which {margin:g} is all there is",
            place="--margin",
            hint=f"for {counted(round(margin), 'point')} of a hundred write {margin / 100:g}; --unit percent where they are percentages",
        )
    if unit == "percent" and margin < 0.05:
        return f"the values are percentages, so that a margin of {margin:g} is {margin:g} of a point"
    return None
