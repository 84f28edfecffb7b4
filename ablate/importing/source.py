"""What `ablate judge` is given: a file, a folder, a pattern of files, or the address of a store."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ablate.errors import DataError, StudyError
from ablate.importing.table import head_of
from ablate.text import counted, joined

MOST_FILES = 100_000
"""More files than this are not read in one judgement."""

_NAME = r"\{([A-Za-z_][\w.-]*)\}"


@dataclass(frozen=True)
class ResultSource:
    """One of the places that results are read from. text: as it was typed."""

    text: str

    @property
    def path(self) -> Path:
        return Path(self.text)

    @cached_property
    def is_folder(self) -> bool:
        try:
            return self.path.is_dir()
        except (OSError, ValueError):
            return False

    @cached_property
    def is_file(self) -> bool:
        try:
            return self.path.is_file()
        except (OSError, ValueError):
            return False

    @property
    def is_pattern(self) -> bool:
        """Whether this is a pattern of files, `runs/{arm}/log.txt`, and not a file that is called so."""
        return not (self.is_file or self.is_folder) and bool(re.search(rf"{_NAME}|\*", self.text))

    def after(self, kind: str) -> str | None:
        """Return what stands after `KIND:`; None where the text is of another kind, or a file is called so."""
        start, colon, rest = self.text.partition(":")
        return rest if colon and start == kind and not (self.is_file or self.is_folder) else None

    @cached_property
    def head(self) -> bytes:
        """The first bytes of a file. Raises DataError where it cannot be read."""
        return head_of(self.path)


def matching(pattern: str) -> list[tuple[Path, dict[str, str]]]:
    """Return the files that a pattern matches, sorted, each with what stands where the pattern has its names in braces.

    `runs/{arm}/seed{seed}/log.txt`: a name stands for text without a slash, as does `*`; `**` stands for any folders. A name
    that occurs twice stands for the same text. Numbers are sorted by their size.

    Raises StudyError for a pattern that could be read in several ways, DataError where no file or too many files match.
    """
    regex, names, search = _parsed(pattern, "[^/]+")
    found, folders = [], []
    for number, text in enumerate(glob.iglob(search, recursive=True)):  # noqa: PTH207 — the pattern may be absolute
        if number >= MOST_FILES:
            raise DataError(
                f"matches more than {MOST_FILES:,} files", place=pattern, hint="judge them in parts"
            )
        match = regex.fullmatch(text.replace("\\", "/"))
        if match is not None and Path(text).is_dir():
            folders.append(text)
        elif match is not None:
            if not ResultSource(text).is_file:
                raise DataError(
                    "is no file", place=text, hint="a link to nothing, a pipe or a device is not read"
                )
            found.append((Path(text), {name: match[f"n{i}"] for i, name in enumerate(names)}))
    if folders and not found:
        folder = min(folders, key=natural)
        raise DataError(
            f"{counted(len(folders), 'folder')} and no file {'is' if len(folders) == 1 else 'are'} called so",
            place=pattern,
            hint=f"name the files in them, such as {pattern.rstrip('/')}/*: in {folder} there is {_inside(folder)}",
        )
    if not found:
        raise DataError("no file is called so", place=pattern, hint=_how_far(pattern))
    return sorted(found, key=lambda item: natural(str(item[0])))


def split(pattern: str) -> tuple[re.Pattern[str], list[str]]:
    """Return the expression of a text with names in braces, `{arm}-{seed}`, and the names: those of its groups `n0`, `n1`, …

    Raises StudyError for a pattern without a name, or one that could be read in several ways.
    """
    regex, names, _ = _parsed(pattern, ".+")
    if not names:
        raise StudyError(
            f"{pattern!r} has no name in braces", place="--split", hint="for example {arm}-{seed}"
        )
    return regex, names


def _parsed(pattern: str, part_of_name: str) -> tuple[re.Pattern[str], list[str], str]:
    """A pattern as an expression, its names, and as one of `glob`. part_of_name: what a name stands for, as an expression."""
    names: list[str] = []
    expression, search, end = "", "", 0
    for part in re.finditer(rf"{_NAME}|\*+", pattern):
        between = pattern[end : part.start()]
        if part[1] and end and not between and names:
            raise StudyError(
                f"where does {part[0]} begin in {pattern!r}?",
                place="the pattern",
                hint="put something between the two names, for example {arm}-{seed}",
            )
        expression += re.escape(between)
        search += glob.escape(between)
        if part[1] and part[1] in names:
            expression += rf"(?P=n{names.index(part[1])})"
        elif part[1]:
            expression += rf"(?P<n{len(names)}>{part_of_name})"
            names.append(part[1])
        else:
            expression += r"[^/]*" if part[0] == "*" else r".*"
        search += part[0] if part[0] == "**" else "*"
        end = part.end()
    rest = pattern[end:]
    return re.compile(expression + re.escape(rest)), names, search + glob.escape(rest)


def _how_far(pattern: str) -> str:
    """Which folders of a pattern exist, and what is in the last of them."""
    parts = pattern.split("/")
    for number in range(len(parts) - 1, 0, -1):
        search = "/".join(
            re.sub(_NAME, "*", glob.escape(part)) if "*" not in part else part for part in parts[:number]
        )
        folders = [path for path in glob.glob(search or "/") if Path(path).is_dir()][:100]  # noqa: PTH207 — as above
        if folders:
            match = "matches" if len(folders) == 1 else "match"
            return (
                f"{counted(len(folders), 'folder')} {match} {'/'.join(parts[:number])!r}; in {folders[0]} there is "
                f"{_inside(folders[0])}"
            )
    return "a name in braces stands for text without a slash: 'runs/{arm}/{seed}/log.txt'"


def _inside(folder: str) -> str:
    """A few of the names in a folder."""
    names = sorted(path.name for path in Path(folder).iterdir())[:5]
    return joined(names) if names else "nothing"


def natural(text: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts `seed2` before `seed10`."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [(bool(i % 2), int(part) if i % 2 else 0, part) for i, part in enumerate(parts)]
