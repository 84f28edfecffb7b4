"""CSV and its relatives: encoding, delimiter and header line are guessed, and said.

Exports often have prose above the header. The table is the longest run of lines with the same number of cells, under the
delimiter that makes it largest.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from ablate.errors import DataError
from ablate.importing.columns import THOUSANDS, THOUSANDS_WITH_POINTS
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, checked_columns, decoded
from ablate.text import counted, cut

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}

_DRAWN = {"drawn lines, as polars prints some of its rows": "│", "LaTeX": r"\\\\\s*$"}
"""Tables for the eye → what is in their lines."""

_SAMPLE = 500
"""Lines that the guesses are made from."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\Z")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?\s*%?\Z")

_POINT_AND_COMMA = rf"{THOUSANDS_WITH_POINTS}(,\d+)?"
"""`1.205,5`, as German has it."""


def recognizes(source: ResultSource) -> bool:
    """Return true for every file: any text may be a table with a delimiter."""
    return not (source.is_pattern or source.is_folder)


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return the rows of a table with a delimiter and a line that names its columns.

    Raises DataError where no such line is there, where a line has too many cells, and where the text cannot be decoded.
    """
    import pandas as pd

    path = source.path
    text, encoding = decoded(path, how.encoding)
    lines = list(islice(io.StringIO(text), (how.header or 0) + _SAMPLE))
    for kind, is_row in _DRAWN.items():
        if 3 * sum(bool(re.search(is_row, line)) for line in lines) > len(lines):
            raise DataError(
                f"is a table in {kind}", place=str(path), hint="write it as CSV, with all its rows and digits"
            )
    given = None if how.delimiter is None else how.delimiter.replace("\\t", "\t")
    if given == " " or (given is None and _is_aligned(lines, how.header)):
        text, given = _between_spaces(text, how.header), " "
        lines = list(islice(io.StringIO(text), (how.header or 0) + _SAMPLE))
    if given is not None and (len(given) != 1 or given in '"\r\n'):
        raise DataError(f"{given!r} is not one character that can separate cells", place="--delimiter")
    try:
        layouts = [_layout(lines, delimiter, how.header) for delimiter in ([given] if given else DELIMITERS)]
        size, start, delimiter = max(layouts, key=lambda layout: layout[0])
        header = [cell.strip() for cell in next(csv.reader(lines[start:], delimiter=delimiter), [])]
    except csv.Error as error:
        raise DataError(f"cannot be read as a table ({error})", place=str(path)) from None
    if not size or not any(header):
        raise DataError(
            "no table in it", place=str(path), hint="--header N says which line names its columns"
        )
    checked_columns(path, header)
    numbers = [cell for cell in header if _NUMBER.match(cell) and "." in cell]
    if numbers:
        raise DataError(
            f"line {start + 1} should name the columns, and has the number {numbers[0]}",
            place=str(path),
            hint="write a line with the names of the columns above it, or give the line's number: --header N",
        )
    names = _names(header)
    body = io.StringIO(text)
    for _ in range(start):
        body.readline()
    try:
        rows = pd.read_csv(
            body, sep=delimiter, dtype=str, keep_default_na=False, header=0, names=names
        ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(
            _parser_message(str(error), start),
            place=str(path),
            hint="--delimiter and --header say how the file is written",
        ) from None
    if not isinstance(rows.index, pd.RangeIndex):  # pandas took what is left over for an index
        raise DataError(
            f"the rows have more cells than the header (line {start + 1}) has names",
            place=str(path),
            hint="name every column",
        )
    for name in names:
        rows[name] = rows[name].str.strip()
    rows.index = pd.RangeIndex(1, len(rows) + 1)
    if delimiter == "|":
        rows = _without_frame(rows)
        for name in rows.columns:  # bold, as the best of a column is
            rows[name] = rows[name].str.replace(r"^(\*\*|__)(.+)\1$", r"\2", regex=True)
    notes: tuple[str, ...] = ()
    is_unique = len(set(header)) == len(header) > 1
    if is_unique and (rows.iloc[:, 0] == header[0]).any() and (again := (rows == header).all(axis=1)).any():
        rows = rows[~again]
        notes = (
            f"{counted(int(again.sum()), 'line repeats', 'lines repeat')} the header, and {'is' if again.sum() == 1 else 'are'} no run",
        )
    if delimiter != ",":
        notes += _read_decimal_commas(rows, delimiter)
    options = {
        "reader": "csv",
        "encoding": encoding,
        "delimiter": delimiter.replace("\t", "\\t"),
        "header": str(start + 1),
    }
    above = sum(bool(line.strip()) for line in lines[:start])
    if above:
        first = cut(next(line for line in lines if line.strip()).strip(), 40)
        notes += (
            f"{counted(above, 'line')} above the header (line {start + 1}) passed over, from “{first}”",
        )
    repeated = frozenset(name for name, times in Counter(header).items() if times > 1)
    return Table(rows, options, notes, repeated)


def _layout(lines: list[str], delimiter: str, header: int | None) -> tuple[int, int, str]:
    """How many cells the table has under a delimiter, and where it starts: (cells, index of its header line, delimiter).

    The table is the longest run of records with as many cells; a table of one column counts as the smallest there is.
    """
    if header is not None:
        rest = lines[header - 1 :] if header > 0 else []
        width = len(next(csv.reader(rest, delimiter=delimiter), []))
        return width * len(rest), header - 1, delimiter
    records: list[tuple[int, int]] = []  # (index of the first line, cells) of each record that is not blank
    reader = csv.reader(lines, delimiter=delimiter)
    start = 0
    read: list[list[str]] = []
    for cells in reader:
        if any(cell.strip() for cell in cells):
            records.append((start, len(cells)))
            read.append([cell.strip() for cell in cells])
        start = reader.line_num
    best = (0, 0, delimiter)
    i = 0
    while i < len(records):
        width = records[i][1]
        end = i
        # A row may lack its last cells, but it cannot be where the table begins.
        while end < len(records) and (
            records[end][1] == width or (end > i + 1 and 1 < records[end][1] < width)
        ):
            end += 1
        size = (end - i) * (width if width > 1 else 0) or (1 if end - i > 1 else 0)
        if size > best[0] and (end - i > 1):
            first = i + _prose(read[i:end], [start for start, _ in records[i:end]])
            # Numbers are seldom names of columns: commas in 1,015,000 make cells too, below a header that has none.
            size //= 2 if any(map(_is_number, read[first])) else 1
            best = max(best, (size, records[first][0], delimiter), key=lambda layout: layout[0])
        i = max(end, i + 1)
    return best


def _prose(records: list[list[str]], starts: list[int]) -> int:
    """How many records above the header have as many cells as the table by chance: `We ran a, b, and c`.

    The columns that hold numbers tell: none of them has one in the prose nor in the header. starts: line of each record.
    """
    rest = records[len(records) // 2 :]
    numeric = [
        i
        for i in range(len(records[0]))
        if sum(len(cells) > i and bool(_is_number(cells[i])) for cells in rest) > 0.8 * len(rest)
    ]
    first = next(
        (
            k
            for k, cells in enumerate(records)
            if any(_is_number(cells[i]) for i in numeric if i < len(cells))
        ),
        0,
    )
    if first > 1 and all(re.fullmatch(":?-+:?|", cell) for cell in records[first - 1]):
        first -= 1  # the line below a header of Markdown
    after_blank = first > 1 and starts[first - 1] - starts[first - 2] > 1
    return first - 1 if first > 1 and (len(numeric) > 1 or after_blank) else 0


def _is_number(cell: str) -> bool:
    return bool(_NUMBER.match(cell.rstrip("% ")) or _DECIMAL_COMMA.match(cell))


def _is_aligned(lines: list[str], header: int | None) -> bool:
    """Whether a table has spaces between its cells, as programs print one: no other delimiter, as many words in every line."""
    rows = [line.split() for line in lines[(header or 1) - 1 :] if line.strip()]
    if len(rows) < 3 or any(delimiter in line for line in lines for delimiter in DELIMITERS):
        return False
    widths = {len(cells) for cells in rows[1:]}
    return (
        len(widths) == 1
        and max(widths) > 1
        and max(widths) - len(rows[0]) in (0, 1)
        and not any(_is_number(cell) for cell in rows[0])
        and any(_is_number(cell) for cell in rows[1])
    )


def _between_spaces(text: str, header: int | None) -> str:
    """A table with one space between its cells; the numbers of rows that pandas prints have a column of their own."""
    lines = [" ".join(line.split()) for line in text.split("\n")]
    start = next((i for i, line in enumerate(lines) if i >= (header or 1) - 1 and line), 0)
    below = next((line for line in lines[start + 1 :] if line), "")
    if lines and below.count(" ") == lines[start].count(" ") + 1:
        lines[start] = f"index {lines[start]}"
    return "\n".join(lines)


def _names(header: list[str]) -> list[str]:
    """The columns' names, each different from the others: a second `loss` is `loss.2`, one without a name `column 3`."""
    names: list[str] = []
    for number, cell in enumerate(header, 1):
        name, times = cell or f"column {number}", 1
        while name in names:
            times += 1
            name = f"{cell}.{times}"
        names.append(name)
    return names


def _without_frame(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of Markdown without the bars at its sides and the line below its header; others as they are."""
    sides = [
        name
        for name in {rows.columns[0], rows.columns[-1]}
        if str(name).startswith("column ") and not rows[name].any()
    ]
    rows = rows.drop(columns=sides)
    if not len(rows.columns) or not rows.iloc[0].str.fullmatch(":?-+:?").all():
        return rows
    rows = rows.iloc[1:]
    return rows.set_axis(range(1, len(rows) + 1))


def _read_decimal_commas(rows: pd.DataFrame, delimiter: str) -> tuple[str, ...]:
    """Write `0,91` as `0.91` in columns that hold nothing but such numbers and whole ones, and `1.205,5` as `1205.5`.

    `1,015` may be a thousand and fifteen. Where all the commas of a column may stand between thousands, another column tells:
    one that has decimal commas for sure, else one with decimal points. Where none does, a table with semicolons has decimal
    commas, unless the column has numbers below a thousand without one.

    Beside decimal commas, points stand between thousands, also in columns without commas. Returns notes of these.
    """
    levels: dict[str, list[str]] = {
        name: [cell.rstrip("% ") for cell in rows[name].unique() if cell] for name in rows.columns
    }
    with_commas = {
        name: own
        for name, cells in levels.items()
        if (own := [cell for cell in cells if "," in cell])
        and all(_is_number(cell) or re.fullmatch(_POINT_AND_COMMA, cell) for cell in cells)
    }
    if not with_commas:
        return ()
    sure = {
        name
        for name, cells in with_commas.items()
        if not all(re.fullmatch(THOUSANDS, cell) for cell in cells)
    }
    has_points = any("." in cell and _NUMBER.match(cell) for cells in levels.values() for cell in cells)
    for name in with_commas:
        whole = any(re.fullmatch(r"[-+]?\d{3}", cell) for cell in levels[name])
        if sure or (delimiter == ";" and not has_points and not whole):
            if all(re.fullmatch(_POINT_AND_COMMA, cell) for cell in levels[name] if "." in cell):
                rows[name] = rows[name].str.replace(".", "", regex=False)
            rows[name] = rows[name].str.replace(",", ".", regex=False)
    notes = []
    for name, cells in levels.items() if sure else ():
        pointed = [cell for cell in cells if "." in cell]
        is_measured = bool(pointed) and name not in with_commas and all(map(_is_whole_or_pointed, cells))
        if is_measured and len(cells) > 1:
            rows[name] = rows[name].str.replace(".", "", regex=False)
            notes.append(
                f"points in {name} stand between thousands, as {min(sure)} has decimal commas: {pointed[0]} is {pointed[0].replace('.', '')}"
            )
    return tuple(notes)


def _is_whole_or_pointed(cell: str) -> bool:
    return bool(re.fullmatch(rf"[-+]?\d+|{THOUSANDS_WITH_POINTS}", cell))


def _parser_message(message: str, start: int) -> str:
    """What is wrong with a line, in words; pandas counts lines from the header."""
    match = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", message)
    if match is None:
        return f"cannot be read as a table ({message.splitlines()[0]})"
    return f"line {int(match[2]) + start} has {match[3]} cells, and the header {match[1]}"
