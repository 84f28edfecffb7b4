r"""Metrics out of the lines that a program prints: patterns of the user's, and the values that they find. Needs no torch.

    accuracy:   'Accuracy: (\d+)/(\d+)'                     two groups: a share; its resolution is one part of the whole
    train/loss: 'step (?P<step>\d+) .* loss ([\d.]+)'       one group: the value; its last printed decimal is its resolution
    counter:    'Epoch (?P<step>\d+)'                       no group but `step`: the step of values on this and later lines

A pattern is a regular expression of Python's, and may match anywhere in a line; where it matches several times, the first counts. Lines
are read as a terminal shows them, without colours, and end where the cursor returns (`\r`), as progress bars do it.

Patterns are often written for the numbers that their author saw. One for digits, `loss[^\d]*([\d.]+)`, also reads `loss -0.2`, `loss 9e-05` and
`loss nan` as the program meant them, and not as 0.2, 9 and the next number in the line. `loss np.float64(0.5)` and `loss tensor(0.5)` are
0.5, and not 64. A decimal comma is not read: of `0,931` nothing is, rather than 0.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablate.errors import StudyError
from ablate.text import cut

LONGEST_LINE = 2_000
"""Characters of a line in which patterns are looked for: the time of some patterns grows with the square of it, or the cube."""

LONGEST_PART = 1 << 20
"""Bytes of a line that are kept; the rest is left out."""

_FEW = 8
"""Repetitions that cost no time worth mentioning, whatever is repeated."""

_ESCAPES = (
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and movements of the cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # titles and links
    r"|\x1b[ -/]*[0-~]"  # the rest
    r"|[\x00-\x08\x0e-\x1f\x7f]"
)
_THOUSANDS = r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?"
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]])[-+])?"  # a hyphen or minus between two words or numbers is no sign
    r"(?:(?<![\d.])[1-9]\d{0,2}(?:,\d{3})+(?!\d)(?:\.\d*)?|(?<!\d)(?<!\d[.,])\d+,\d+(?!\d|[.,]\d)|\d+\.?\d*|(?<!\.)\.\d+)"
    r"(?:[eE][-+]?\d+)?"
)
_NOT_FINITE = re.compile(r"(?<![\w.-])[-+]?(?:nan|inf(?:inity)?)(?![\w-])", re.IGNORECASE)
_BARE = r"(?P<%s>[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))"
_WRAPPED = re.compile(
    rf"\b(?:(?:np|numpy|jnp|torch|tf)\.)?(?:(?:u?int|b?float)\d+\({_BARE % 'scalar'}\)"  # NumPy since its version 2
    rf"|(?:tensor|Tensor|Array|array)\({_BARE % 'tensor'}(?:, [^()]*(?:\(\)[^()]*)*)?\))"  # torch, JAX, TensorFlow
    rf"|<tf\.Tensor: [^<>]*\bnumpy={_BARE % 'numpy'}>"
)
"""Numbers as they are printed within lists and dicts: with their types, in which a digit may stand."""

_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_IN_NUMBERS = frozenset("0123456789.,eE+-")
_UNUSUAL = frozenset(",eE+-")
_STAND_INS = ("0.0000", "0.000", "0.00", "0.0", "0", "0.0000e+00")
"""Numbers as patterns expect them, in the place of one that has a sign or an exponent, or is not finite."""

_MOST_UNUSUAL = 20
"""Of a line, how many of those are looked at."""

_PRINTED = r"[-+]?\d*\.?(?P<decimals>\d*)(?:[eE](?P<exponent>[-+]?\d+))?"


class PrintedValue(NamedTuple):
    """A value that a line told.

    resolution: the smallest step that the printed value can make; None where it is not finite. step: None where no line told one.
    """

    value: float
    resolution: float | None
    step: int | None = None


@dataclass(frozen=True)
class LinePattern:
    """A pattern of one metric, made by `parse_pattern`. groups: of its value, in order, without `step`."""

    regex: re.Pattern[str]
    groups: tuple[int, ...]

    @property
    def has_value(self) -> bool:
        return bool(self.groups)

    @property
    def has_step(self) -> bool:
        return "step" in self.regex.groupindex


def parse_pattern(text: Any, place: str) -> LinePattern:
    """Return the pattern of a metric. place: of the pattern, for messages.

    Raises StudyError where it is no regular expression, has no group or more than two, or could take forever on a line.
    """
    if not isinstance(text, str) or not text:
        raise StudyError(
            f"{cut(repr(text))} is not a pattern", place=place, hint="write a regular expression in quotes"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a later Python may read `[[` in another way
            regex = re.compile(text)
            takes_forever = _takes_forever(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise StudyError(
            f"{cut(text)!r} is not a regular expression: {error}",
            place=place,
            hint=r"a bracket that is meant as such needs a backslash: \( \[",
        ) from error
    groups = tuple(i for i in range(1, regex.groups + 1) if i != regex.groupindex.get("step"))
    if not groups and "step" not in regex.groupindex:
        raise StudyError(
            f"{cut(text)!r} has no group for the value",
            place=place,
            hint=r"put the number in parentheses: loss ([\d.]+)",
        )
    if len(groups) > 2:
        raise StudyError(
            f"{cut(text)!r} has {len(groups)} groups, where one is a value and two are a share",
            place=place,
            hint="write (?:…) for a group that only groups",
        )
    if takes_forever:
        raise StudyError(
            f"{cut(text)!r} can take forever on a line that does not match: it repeats what repeats already",
            place=place,
            hint="write (a+)+ as a+, or let each repetition begin with a character of its own",
        )
    return LinePattern(regex, groups)


def _takes_forever(text: str) -> bool:
    """Return whether a pattern repeats, many times, something that may be one long repetition itself, as `(a+)+` does.

    Such a pattern can divide a line in exponentially many ways, and tries all of them. Other patterns that do so are not found.
    """
    parser: Any = getattr(re, "_parser", None)  # private; without it nothing is found

    def within(operation: str, argument: Any) -> list[Any]:
        if operation in {"MAX_REPEAT", "MIN_REPEAT"}:
            return [argument[2]]
        if operation == "SUBPATTERN":
            return [argument[3]]
        return list(argument[1]) if operation == "BRANCH" else []

    def repeats(operation: str, argument: Any) -> bool:
        return operation in {"MAX_REPEAT", "MIN_REPEAT"} and argument[1] > _FEW

    def is_repetition(pattern: Any) -> bool:
        """Whether a pattern may match one long repetition and nothing beside it."""
        for i, (operation, argument) in enumerate(pattern):
            others_may_be_empty = pattern.getwidth()[0] == pattern[i : i + 1].getwidth()[0]
            if others_may_be_empty and (
                repeats(str(operation), argument) or any(map(is_repetition, within(str(operation), argument)))
            ):
                return True
        return False

    def search(pattern: Any) -> bool:
        for operation, argument in pattern:
            inner = within(str(operation), argument)
            if repeats(str(operation), argument) and any(map(is_repetition, inner)):
                return True
            if any(map(search, inner)):
                return True
        return False

    return parser is not None and search(parser.parse(text))


class LineReader:
    """Reads the lines of one run. patterns: metric → its pattern.

    step: the last one that a line told; None before. counters: patterns for a step alone that matched the last line. found: metric → number of its readings. unreadable: metric → what its pattern
    found last that is no number. resolutions: metric → the finest resolution of its readings: a value printed as `0.5` among others
    like `0.4375` was not rounded to a tenth.
    """

    def __init__(self, patterns: Mapping[str, LinePattern]) -> None:
        self._patterns = patterns
        self.step: int | None = None
        self.counters: list[str] = []
        self.found: dict[str, int] = dict.fromkeys(patterns, 0)
        self.unreadable: dict[str, str] = {}
        self.resolutions: dict[str, float] = {}

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the metrics of which no value was found; a pattern for a step alone has found something once it matched."""
        return tuple(name for name, number in self.found.items() if number == 0)

    def read(self, line: str) -> dict[str, PrintedValue]:
        """Return what a line tells. A value has the step of its own pattern, else the last step that any pattern found."""
        self.counters = []
        if not line:
            return {}
        line = plain_text(line)
        bare = _WRAPPED.sub(lambda found: found[found.lastgroup or 0], line) if "(" in line else line
        matches: dict[str, _Match] = {}
        for name, pattern in self._patterns.items():
            match = _match(pattern, bare) or (_match(pattern, line) if bare != line else None)
            if match is not None:
                matches[name] = match
                if (step := _whole_number(match.step)) is not None:
                    self.step = step
        readings: dict[str, PrintedValue] = {}
        for name, match in matches.items():
            texts = match.texts
            if not self._patterns[name].groups:
                self.found[name] += 1
                self.counters.append(name)
                continue
            number = share(*texts) if len(texts) == 2 else parse_number(texts[0]) if texts else None
            if number is None:
                self.unreadable[name] = "/".join(texts)
                continue
            value, resolution = number
            step = _whole_number(match.step)
            self.found[name] += 1
            readings[name] = PrintedValue(value, resolution, self.step if step is None else step)
            if resolution is not None:
                self.resolutions[name] = min(resolution, self.resolutions.get(name, math.inf))
        return readings


@dataclass(frozen=True)
class _Match:
    """What a pattern found in a line. step: what it told of a step; None: nothing. texts: of the value: one, or two that are a share.

    unusual: whether one of them stood where another number was put.
    """

    step: str | None
    texts: list[str]
    unusual: bool


def _match(pattern: LinePattern, line: str) -> _Match | None:
    """Return what a pattern finds in a line: numbers whole, also those that have a sign or an exponent or are not finite."""
    tokens = _unusual_numbers(line)
    for number in _STAND_INS if tokens else ():
        text, end, places = "", 0, {}
        for token in tokens:
            text += line[end : token.start()]
            places[range(len(text), len(text) + len(number))] = token[0]
            text, end = text + number, token.end()
        found = _search(pattern, text + line[end:], places)
        if found and found.unusual:
            return found
    return _search(pattern, line, {})


def _unusual_numbers(line: str) -> list[re.Match[str]]:
    """Return the numbers of a line that are not written with digits and a point alone."""
    tokens = [*_NOT_FINITE.finditer(line, 0, LONGEST_LINE)]
    tokens += [each for each in _NUMBER.finditer(line, 0, LONGEST_LINE) if set(each[0]) & _UNUSUAL]
    return sorted(tokens[:_MOST_UNUSUAL], key=lambda each: each.start())


def _search(pattern: LinePattern, line: str, stand_ins: Mapping[range, str]) -> _Match | None:
    """Return what a pattern finds in a line. stand_ins: place in the line → the number that stood there."""
    match = pattern.regex.search(line, 0, LONGEST_LINE)
    if match is None or match.end() == LONGEST_LINE < len(line):
        return None  # a number that reaches the limit may go on behind it
    texts, unusual = [], False
    # Of `(\d+) correct|accuracy (\S+)` only one group takes part in a match.
    for group in pattern.groups:
        if match[group] is None:
            continue
        start, end = match.span(group)
        number = next((n for place, n in stand_ins.items() if start < place.stop and place.start < end), None)
        unusual |= number is not None
        texts.append(_whole(pattern, line, match, group) if number is None else number)
    return _Match(match["step"] if pattern.has_step else None, texts, unusual)


def _whole(pattern: LinePattern, line: str, match: re.Match[str], group: int) -> str:
    r"""Return the number that a group found, whole where it found a part of one and the pattern does not ask for the rest.

    Of `0.91`, `acc.*([\d.]+)` finds `1`, and `0\.(\d+)`, which asks for the rest, `91`.
    """
    start, end = match.span(group)
    if (
        not line[start:end].strip()
        or not set(line[max(0, start - 1) : start] + line[end : end + 1]) & _IN_NUMBERS
    ):
        return match[group]
    for number in _NUMBER.finditer(line, 0, LONGEST_LINE):
        if number.start() <= start and end <= number.end() and number[0] != match[group]:
            for filler in " x=":
                before, after = filler * (start - number.start()), filler * (number.end() - end)
                without = f"{line[: number.start()]}{before}{line[start:end]}{after}{line[number.end() :]}"
                other = pattern.regex.search(without, 0, LONGEST_LINE)
                if other and other.span(group) == (start, end):
                    return number[0]
    return match[group]


def _whole_number(text: str | None) -> int | None:
    number = None if text is None else parse_number(text)
    return int(number[0]) if number and number[0].is_integer() else None


def parse_number(text: str) -> tuple[float, float | None] | None:
    """Return a printed number with its resolution, the step of its last digit; None where the text is no number.

    Reads `0.912`, `1.5e-3`, `1,234.5`, `nan` and `-inf` (whose resolution is None). A sentence's full stop, a comma or a percent sign
    after it is not part of it: `91.2%` is 91.2. A decimal comma is not read: `0,912` is no number.
    """
    text = text.strip().rstrip(".,;:%")
    if "," in text and re.fullmatch(_THOUSANDS, text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        # A number too large for a float is one all the same, and no sign of divergence.
        return None if any(map(str.isdigit, text)) else (value, None)
    printed = re.fullmatch(_PRINTED, text)
    if printed is None:
        return None
    exponent = int(printed["exponent"] or 0) - len(printed["decimals"])
    return value, 10.0**exponent if -323 <= exponent <= 308 else 0.0


def share(part: str, whole: str) -> tuple[float, float | None] | None:
    """Return `part` of `whole` as a number in [0, 1] with its resolution; None where it is no share."""
    above, below = parse_number(part), parse_number(whole)
    if above is None or below is None or not math.isfinite(below[0]) or below[0] <= 0:
        return None
    value, resolution = above
    if math.isfinite(value) and not 0 <= value <= below[0]:
        return None
    return value / below[0], None if resolution is None else resolution / below[0]


def has_decimal_comma(text: str) -> bool:
    """Return whether a text is a number as `0,931` is one."""
    return _DECIMAL_COMMA.fullmatch(text.strip().rstrip(".,;:%")) is not None


def plain_text(line: str) -> str:
    """Return a line without colours, movements of the cursor and other control characters; a tab stays."""
    return line if line.isprintable() else re.sub(_ESCAPES, "", line)


class LineSplitter:
    r"""Cuts bytes, which arrive in pieces of any length, into lines. `\n`, `\r` and both end a line; empty lines are left out.

    Bytes that are no UTF-8 become `�`. Of a line, the first `longest` bytes are kept.
    """

    def __init__(self, longest: int = LONGEST_PART) -> None:
        self._longest = longest
        self._open = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes."""
        first, *rest = data.replace(b"\r", b"\n").split(b"\n")
        self._open += first[: self._longest - len(self._open)]
        if not rest:
            return []
        lines = [bytes(self._open), *rest[:-1]]
        self._open = bytearray(rest[-1][: self._longest])
        return [line[: self._longest].decode(errors="replace") for line in lines if line]

    def end(self) -> list[str]:
        """Return the last line, where it has no end."""
        return self.feed(b"\n")
