"""Templates of a command's arguments and of its environment: what a run's settings are put into.

    --lr={lr}           a setting, by its dotted path; a list or block in a longer text is its JSON
    {layers}            alone: a list makes an argument of each of its values
    {amp?--amp}         --amp where the setting is true, nothing (alone: no argument) where it is false or null
    {{ }}               braces

Everything else is passed on as it stands, quotes included: no shell reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.errors import StudyError
from ablate.text import brief, cut

GIVEN = ("seed", "run_dir", "device", "attempt")
"""Names that ablate gives a value in every run: its seed, the folder of its own, its device, and the number of the attempt."""

_PART = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}?]*)(?P<switch>\?[^{}]*)?\}|[{}]")
_BRACES = "write {{ and }} for braces that are meant as such"

Lookup = Callable[[str], Any]


@dataclass(frozen=True)
class Placeholder:
    """A place for a setting. path: its dotted path, or one of `GIVEN`. switch: what stands there where it is true; None: its value."""

    path: str
    switch: str | None = None


@dataclass(frozen=True)
class Template:
    """A text with placeholders."""

    parts: tuple[str | Placeholder, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(part.path for part in self.parts if isinstance(part, Placeholder))

    def arguments(self, lookup: Lookup) -> list[str]:
        """Return the arguments that this one makes: none, one, or one for each value of a list. Raises StudyError."""
        if len(self.parts) == 1 and isinstance(only := self.parts[0], Placeholder):
            if only.switch is not None:
                return [only.switch] if _is_on(only, lookup(only.path)) else []
            value = lookup(only.path)
            return [value_text(each) for each in value] if isinstance(value, list) else [value_text(value)]
        return [self.text(lookup)]

    def text(self, lookup: Lookup) -> str:
        """Return the text with every placeholder filled in. Raises StudyError."""
        return "".join(part if isinstance(part, str) else _filled(part, lookup) for part in self.parts)


def parse(text: str, place: str) -> Template:
    """Return the template of a text. place: of it, for messages. Raises StudyError."""
    parts: list[str | Placeholder] = []
    end = 0
    for match in _PART.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match["path"] is None:
            raise StudyError(f"{cut(text)!r} has a brace without its other half", place=place, hint=_BRACES)
        elif not match["path"].strip():
            raise StudyError(f"{cut(text)!r} has a placeholder without a name", place=place, hint=_BRACES)
        else:
            switch = match["switch"]
            parts.append(Placeholder(match["path"].strip(), None if switch is None else switch[1:]))
    parts.append(text[end:])
    return Template(tuple(part for part in parts if part != ""))


def value_text(value: Any) -> str:
    """Return a setting as a program is given it: text as it is, `true`, `false`, `null`, numbers, and JSON of lists and blocks."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def _is_on(placeholder: Placeholder, value: Any) -> bool:
    if value is not None and not isinstance(value, bool):
        raise StudyError(
            f"{{{placeholder.path}?…}} needs true or false, and `{placeholder.path}` is {brief(value)}",
            place=placeholder.path,
            hint=f"write {{{placeholder.path}}} for the value itself",
        )
    return bool(value)


def _filled(placeholder: Placeholder, lookup: Lookup) -> str:
    value = lookup(placeholder.path)
    if placeholder.switch is None:
        return value_text(value)
    return placeholder.switch if _is_on(placeholder, value) else ""


@dataclass(frozen=True)
class CommandTemplate:
    """A command and its environment before a run's settings are filled in. environment: name → template."""

    command: tuple[Template, ...]
    environment: Mapping[str, Template]

    @classmethod
    def parse(cls, command: Sequence[str], environment: Mapping[str, str]) -> CommandTemplate:
        """Raises StudyError."""
        return cls(
            tuple(parse(argument, "command") for argument in command),
            {name: parse(text, f"env.{name}") for name, text in environment.items()},
        )

    def places(self) -> Iterator[tuple[str, str]]:
        """Yield every path that is filled in, with the key of the study in which it stands."""
        for template in self.command:
            yield from ((path, "command") for path in template.paths)
        for name, template in self.environment.items():
            yield from ((path, f"env.{name}") for path in template.paths)

    def filled(self, lookup: Lookup) -> tuple[list[str], dict[str, str]]:
        """Return the arguments and the variables of a run. Raises StudyError."""
        arguments = [argument for template in self.command for argument in template.arguments(lookup)]
        return arguments, {name: template.text(lookup) for name, template in self.environment.items()}
