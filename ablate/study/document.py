"""YAML text → plain values, with the line that each key stands on.

Numbers and booleans are those of YAML 1.2. What cannot be a study because of its size or depth is refused before anything
is built of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ablate.errors import StudyError
from ablate.text import BOOLEAN, INTEGER, REAL, cut

MOST_NODES = 20_000
MOST_DEPTH = 50

LONGEST_PART = 1_000
"""Characters of what a message says, and of its hint: they quote names of the file, which may be of any length."""


@dataclass(frozen=True)
class Document:
    """The values of a YAML text. source: how messages name it. lines: path of a key → line on which it stands."""

    source: str
    values: Any
    lines: Mapping[tuple[str, ...], int]

    def place(self, path: str) -> str:
        """Return `file:line: path`, with the line of the nearest enclosing key that is in the file."""
        parts = tuple(path.split(".")) if path else ()
        for enclosing in (parts[:length] for length in range(len(parts), -1, -1)):
            if enclosing in self.lines:
                return f"{self.source}:{self.lines[enclosing]}" + (f": {cut(path)}" if path else "")
        return f"{self.source}: {cut(path)}" if path else self.source

    @contextlib.contextmanager
    def places(self) -> Iterator[None]:
        """Name file and line in every StudyError whose place is a path in this document; without a place, the file."""
        try:
            yield
        except StudyError as error:
            place = self.source if error.place is None else self.place(error.place)
            hint = error.hint and cut(error.hint, LONGEST_PART)
            raise StudyError(cut(error.message, LONGEST_PART), place=place, hint=hint) from None


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of a number and a boolean: `1e-5` is a number; `no`, `on`, `1:30` and `012` are text.

    Raises RecursionError for lists and blocks within each other, before PyYAML spends a time on them that grows with their square.
    """

    def fetch_flow_collection_start(self, kind: Any) -> None:
        if self.flow_level > MOST_DEPTH:
            raise RecursionError
        super().fetch_flow_collection_start(kind)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if tag in {"tag:yaml.org,2002:null", "tag:yaml.org,2002:merge"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", BOOLEAN, "tf"),
    ("int", INTEGER, "-+0123456789"),
    ("float", REAL, "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def load(text: str, source: str) -> Document:
    """Read a YAML text. source: how messages name it. Raises StudyError."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise StudyError("is empty", place=source, hint="`studies/` holds examples")
            lines = _lines(node, source)
            return Document(source, loader.construct_document(node), lines)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{source}:{mark.line + 1}" if mark else source
        raise StudyError(
            f"is not YAML: {error.problem or error.context}", place=place, hint=_explained(error)
        ) from None
    except yaml.YAMLError as error:
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise StudyError(f"is not YAML: {reason}", place=source) from None
    except RecursionError:
        raise StudyError(
            f"is nested too deeply for a study: more than {MOST_DEPTH} levels", place=source
        ) from None
    except (ValueError, OverflowError, TypeError, LookupError, AttributeError) as error:
        # What PyYAML lets through where an explicit tag and its value disagree (`!!bool maybe`).
        raise StudyError(f"holds a value that cannot be read: {error}", place=source) from None


def _lines(root: yaml.Node, source: str) -> dict[tuple[str, ...], int]:
    """Return the line of every key, by its path. Raises StudyError for keys that stand twice, and for texts that are too large.

    Composing only links aliases, so a short text can stand for billions of values: they are counted before they are built.
    """
    lines: dict[tuple[str, ...], int] = {}
    nodes = 0

    def walk(node: yaml.Node, path: tuple[str, ...], enclosing: tuple[yaml.Node, ...]) -> None:
        nonlocal nodes
        nodes += 1
        place = f"{source}:{node.start_mark.line + 1}"
        if any(node is outer for outer in enclosing):
            raise StudyError("an alias stands for the block that it is in", place=place)
        if nodes > MOST_NODES:
            raise StudyError(f"more than {MOST_NODES:,} values, with aliases unfolded", place=place)
        if len(enclosing) > MOST_DEPTH:
            raise StudyError(f"is nested too deeply for a study: more than {MOST_DEPTH} levels", place=place)
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            node.value = _characters(node.value, place)
        if isinstance(node, yaml.MappingNode):
            seen: dict[Hashable, int] = {}
            for key_node, value in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise StudyError("a key must be plain text", place=f"{source}:{line}")
                name = key_node.value = _characters(str(key_node.value), f"{source}:{line}")
                if name in seen and key_node.tag != "tag:yaml.org,2002:merge":
                    raise StudyError(
                        f"the key {cut(name)!r} stands here twice (first on line {seen[name]})",
                        place=f"{source}:{line}",
                        hint="leave one of them; a factor's levels belong into one list",
                    )
                seen[name] = line
                inner = (*path, *name.split("."))
                lines.setdefault(inner, line)
                walk(value, inner, (*enclosing, node))
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                walk(value, path, (*enclosing, node))

    walk(root, (), ())
    return lines


def _characters(text: str, place: str) -> str:
    r"""Return a text in which `\ud83d\ude00`, as JSON writes what lies beyond 16 bits, is one character.

    Raises StudyError for what is none: no database would hold it, and no file of results.
    """
    if text.isascii() and "\0" not in text:
        return text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if odd := re.search(r"[\0\ud800-\udfff]", text):
        code = "\\0" if odd[0] == "\0" else f"\\u{ord(odd[0]):04x}"
        raise StudyError(
            f"{cut(text)!r} cannot be recorded: {code} is no character",
            place=place,
            hint="write the text without it",
        )
    return text


_OPENED = {
    "flow sequence": "the list `[`",
    "flow mapping": "the block `{`",
    "quoted scalar": "the quoted text",
}


def _explained(error: yaml.MarkedYAMLError) -> str | None:
    """Return a hint: what PyYAML's words mean for the writer of the file; None where its own words are plain."""
    problem, context = str(error.problem), str(error.context)
    if "'\\t'" in problem:
        return "lines begin with spaces in YAML, never with a tab"
    if "cannot start any token" in problem:
        return "text that begins with such a sign needs quotes"
    if "mapping values are not allowed" in problem:
        return "text with a `: ` in it needs quotes; or the line above lacks the space after its `:`, or is indented otherwise"
    for kind, opened in _OPENED.items():
        if kind in context and error.context_mark is not None:
            return f"{opened} that begins on line {error.context_mark.line + 1} is not closed there"
    return None
