"""Values, durations, sizes and lists as text for people: one function for each kind, used by every message and page."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ablate.errors import StudyError

# What a plain word means in a study file, by YAML 1.2; anything else is text.
NULL = r"~|null|Null|NULL|"
BOOLEAN = r"true|false"
INTEGER = r"[-+]?(0|[1-9][0-9]*)"
REAL = r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
# Patterns are text: compiling them takes a millisecond of every command, and most print nothing that needs them.
_NOT_TEXT = rf"(?:{NULL}|{BOOLEAN}|{INTEGER}|{REAL})\Z"

_UNSEEN_SPACES = r"\A\Z|\A\s|\s\Z|\s\s|[^\S ]"
"""Nothing at all, or spaces that neither a page nor a sentence shows."""

NUMBERS = "numbers are written with the digits 0 to 9, as 10, -0.5 or 1e-3"
"""The rule of all numbers in options and in studies: no `1_000`, no `0x10`, no digits of other scripts, nothing around them."""

# What separates values and keys where several are written in a row; text that begins like quoted text.
_SEPARATOR = r"[,={}\[\]\\\x00-\x1f\x7f]|: |\A[\s\"']|\s\Z"

# What is not seen, or moves what is: controls, directions of writing, marks of no width, letters that are blank, tags, halves of
# characters. What joins letters of other scripts, or signs, stays between them.
_UNSEEN = (
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff\ud800-\udfff\ue000-\uf8ff]"
    r"|(?<![^\x00-\u02ff])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\u02ff])"
)

# Up to the last @, because a password may have one, too.
_CREDENTIALS = r"(\b[A-Za-z][\w+.-]*://)(?:[^\s/'\"]*|[^\s/'\"@:]+:(?!\d+(?:/|$))[^\s'\"@]*)@"

_SENSITIVE = r"passwords?|passwd|secret|api[_-]?key|(?:access|secret|private|account)[_-]?key|(?:access|auth|api|bearer)[_-]?token|credentials?"
# Of settings in a row (`x_token=…` may be one of a network): only the words that mean nothing else. In an address or behind `--`: more.
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\",;&}]+)"
# Behind a slash it is a file of that name, and what follows is said of it: `/etc/passwd: is no table`.
_NAMED = (
    rf"((?:(?<![A-Za-z])(?:[\w.-]*[_.-])?(?i:{_SENSITIVE})['\"]?\s*=|(?<![\w./-])(?:[\w.-]*[\d_.-])?(?i:{_SENSITIVE})['\"]?\s*:)\s*"
    rf"|\b[A-Z0-9_]*TOKEN\s*=\s*){_VALUE}"
)
_OPTION = rf"(--(?:[\w-]*-)?(?:{_SENSITIVE}|token)(?:=|\s+))(?!-){_VALUE}"
_QUERY = rf"([?&;][\w.-]*(?:{_SENSITIVE}|pwd|token|sig|signature)=)[^&;#\s'\"]+"
_HEADER = r"(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?|\bbearer\s+)[\w.~+/=-]{8,}"

# Keys of services whose form tells what they are: GitHub, GitLab, Hugging Face, OpenAI and Anthropic, Slack, Amazon, Google, JWT.
_KEY = (
    r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|sk-[\w-]{30,}|xox[abepr]-[\w-]{20,}"
    r"|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
)

_SENSITIVE_SETTING = (
    r"(?:.*[_.-])?(?:password|passwd|secret|api[_-]?key|(?:access|secret|private|account)[_-]?key"
    r"|(?:access|auth|api|bearer)[_-]?token)"
)

_SENSITIVE_VARIABLE = (
    r"(?:.*_)?(?:PASSWORD|PASSWD|SECRET|TOKEN|API_KEY|APIKEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS)"
)
_SHORTEST_SECRET = 6
"""Characters of a password from which it is looked for in other text: a shorter one may stand there by chance."""

LONGEST_NUMBER = 100
"""Characters of a whole number."""

_NOT_FINITE = (".inf", ".nan")

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)"


def format_value(value: Any) -> str:
    """Write a value as a study file has it: `true`, `null`, `1e-05`, `{depth: 2, name: cnn}`.

    Text that YAML would read as something else, or that holds what separates values, stands in quotes, so that different
    values never look the same, not even several of them in a row.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return f"{value:g}".replace("nan", ".nan").replace("inf", ".inf")
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, Mapping):
        # YAML has keys that are no text, and a message about them must be written too.
        keys = [format_key(k) if isinstance(k, str) else format_value(k) for k in value]
        values = [format_value(v) for v in value.values()]
        return "{" + ", ".join(f"{k}: {v}" for k, v in zip(keys, values, strict=True)) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(v) for v in value) + "]"
    if not isinstance(value, str):
        return str(value)
    return repr(value) if re.match(_NOT_TEXT, value) else format_key(value)


def format_level(value: Any, words: Collection[str]) -> str:
    """Write a level for people: a number with all of its digits, text as it is, in quotes where it could be taken for another value.

    That is what reads as a number, and what has spaces at an end or in a row.

    words: what values that are no text are called there, `none` or `off`.
    """
    if isinstance(value, str):
        is_other = value in words or re.match(_NOT_TEXT, value) or re.search(_UNSEEN_SPACES, value)
        return repr(value) if is_other else value
    return format_value(value)


def format_key(key: str) -> str:
    """Write a key or a dotted path: as it is, in quotes where it holds what separates keys from values."""
    return repr(key) if re.search(_SEPARATOR, key) else key


def format_tried(value: Any) -> str:
    """Write a value that a search tried: `0.0123`, `true`, `adamw (lr=0.001)`; numbers to three digits, for reading only."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{name}={format_tried(v)}" for name, v in value.items() if name != "name")
        return f"{value.get('name', '')}{f' ({rest})' if rest else ''}".strip()
    return f"{value:.3g}" if isinstance(value, float) and math.isfinite(value) else format_value(value)


def brief(value: Any) -> str:
    """Write a value for a message: as `format_value`, but a whole float keeps its point, and a long value is cut."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e16
    text = f"{value:.1f}" if is_whole else format_value(value)
    return cut(text)


def without_password(text: str) -> str:
    """Return a text in which passwords are masked: `postgresql://***@host/name`, `?password=***`, `--token ***`, `API_KEY=***`.

    So is whatever the environment holds as a password, as in MLFLOW_TRACKING_TOKEN or in the address of a proxy.
    """
    if "@" in text:
        text = re.sub(_CREDENTIALS, r"\1***@", text)
    for pattern in (_NAMED, _OPTION, _QUERY, _HEADER):
        text = re.sub(pattern, r"\1***", text, flags=re.IGNORECASE if pattern != _NAMED else 0)
    text = re.sub(_KEY, "***", text)
    for secret in _secrets():
        if secret in text:
            text = text.replace(secret, "***")
    return text


@functools.lru_cache(4096)
def is_secret_variable(name: str) -> bool:
    """Return whether a variable of the environment holds a password by its name."""
    return re.fullmatch(_SENSITIVE_VARIABLE, name, re.IGNORECASE) is not None


def is_secret_setting(name: str) -> bool:
    """Return whether a setting of training holds a password by its name: `db_password`, not `token`, which a network may have."""
    return re.fullmatch(_SENSITIVE_SETTING, name, re.IGNORECASE) is not None


def _secrets() -> set[str]:
    """Return the passwords in the environment, by the names of variables and in addresses."""
    import os
    from urllib.parse import unquote

    secrets = set()
    for name, value in os.environ.items():
        if is_secret_variable(name):
            secrets.add(value)
        elif "@" in value and re.match(r"[A-Za-z][\w+.-]*://[^\s/]*@", value):
            userinfo = value.partition("://")[2].rpartition("@")[0]
            password = userinfo.partition(":")[2]
            secrets |= {password, unquote(password)}
    return {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}


def storable(text: str) -> str:
    r"""Return a text that every database and file takes: what is no character (a byte of a file's name, NUL) as `\udcff`, `\x00`."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", r"\x00")


def visible(text: str) -> str:
    r"""Return a text in one line that says nothing to a terminal: what cannot be seen or turns a sentence round stands as its code.

    `\x1b`, `\u202e`; bytes that are no UTF-8 in the name of a file as `\xff`. Letters of all scripts and signs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNSEEN, lambda found: _code(found[0]), text)


def is_visible(text: str) -> bool:
    """Return whether a text holds only what is seen, which `visible` leaves as it is; False too where neighbours of a letter decide.

    Quick for a long text, which has few different characters.
    """
    characters = set(text)
    return not characters & {"\u200c", "\u200d"} and not re.search(_UNSEEN, "".join(characters))


def shown(text: str) -> str:
    """Return a text of several lines as `visible` writes each: breaks of lines and tabs stay. For whatever is printed or written."""
    if text.isascii() and text.isprintable():
        return text
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def shown_values(value: Any) -> Any:
    """Return plain values with all text in them as `shown` writes it, for what reads them as JSON and shows them."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {shown(name) if isinstance(name, str) else name: shown_values(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown_values(v) if isinstance(v, str | Mapping | list | tuple) else v for v in value]
    return value


def shown_json(text: str) -> str:
    """Return JSON in which what cannot be seen stands as JSON's own escapes, so that it reads as it did."""
    import json

    return re.sub(_UNSEEN, lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def _code(character: str) -> str:
    """Return the code of a character that cannot be seen."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def cut(text: str, most: int = 60) -> str:
    """Shorten text to `most` characters: what a message quotes is for recognising, not for reading."""
    return text if len(text) <= most else text[: most - 1] + "…"


def format_duration(seconds: float) -> str:
    """Write seconds in the unit people use: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_short_duration(seconds: float) -> str:
    """Write what may be over at once: `0.012 s`, `0.8 s`, `40 s`, `12 min`, `3.5 h`."""
    if seconds >= 10:
        return format_duration(seconds)
    return f"{seconds:.3f} s" if 0.0005 <= seconds < 0.095 else f"{seconds:.1f} s"


def parse_whole(text: str) -> int | None:
    """Return the whole number that a text is, as YAML has it; None where it is none."""
    return int(text) if re.fullmatch(INTEGER, text) and len(text) < LONGEST_NUMBER else None


def parse_real(text: str) -> float | None:
    """Return the finite number that a text is, as YAML has it; None where it is none."""
    if not re.fullmatch(REAL, text) or text.lstrip("-+").lower() in _NOT_FINITE:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def parse_duration(value: Any, place: str) -> float:
    """Return the seconds of `90`, `90s`, `30m`, `2h` or `1d`. place: names the option or key in the error.

    Raises StudyError where it is no positive, finite time.
    """
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    match = re.fullmatch(_DURATION, str(value).strip()) if plain else None
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise StudyError(f"{brief(value)!r} is not a time", place=place, hint="write 90s, 30m, 2h or 1d")
    return seconds


def format_bytes(size: float) -> str:
    """Write a number of bytes: `512 bytes`, `3.4 MiB`, `1.2 GiB`."""
    if size < 1024:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            break
    return f"{size:,.1f} {unit}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a count with its noun: `1 run`, `1,200 runs`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def measured(number: str, unit: str) -> str:
    """Write a number that is already text with its unit, if there is one: `0.5 points`, `1 point`."""
    if unit == "points" and number.lstrip("+-−") == "1":
        unit = "point"
    return f"{number} {unit}".rstrip()


def folded(text: str, width: int) -> str:
    """Return a text whose lines break between words where a terminal would break them anywhere; what follows is set in.

    A line with a command, an option or an address stays whole, to be copied.
    """
    import textwrap

    lines = []
    for line in text.split("\n"):
        indent = line[: len(line) - len(line.lstrip())] + "  "
        is_copied = any(mark in line for mark in ("ablate ", " --", "://"))
        parts = (
            []
            if is_copied or len(line) <= width
            else textwrap.wrap(
                line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
        )
        lines += parts or [line]
    return "\n".join(lines)


def margin_in_points(margin: float) -> str:
    """Return what was probably meant by a margin of 1 or more on values between 0 and 1."""
    if margin >= 100:
        return "state it in the units of the metric"
    return f"did you mean {margin / 100:g}, {measured(f'{margin:g}', 'points')} of a hundred?"


def joined(parts: Iterable[str], word: str = "and") -> str:
    """Join at least one part as a sentence does: `a`, `a and b`, `a, b and c`."""
    *most, last = parts
    return f"{', '.join(most)} {word} {last}" if most else last


def escape_markdown(text: str) -> str:
    """Write a text so that Markdown shows it as it is, in one line, within a table too."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]|#~$" else c for c in " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
