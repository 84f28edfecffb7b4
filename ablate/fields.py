"""The base of every configuration block: frozen, strict, finite; and a validation's mistakes in a person's words."""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, ValidationError, WithJsonSchema

from ablate.errors import StudyError, nearest
from ablate.text import NUMBERS, brief, cut, format_value


class Block(BaseModel):
    """A block of configuration fields.

    Strict, because YAML's `true` is no number; finite, because no comparison with NaN is true; without unknown keys, because
    a misspelt key that is ignored makes another experiment than the one that was meant. Every field has a description: the
    documentation of the fields is generated from them.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True
    )

    @classmethod
    def parse(cls, tree: Mapping[str, Any], *, place: Callable[[str], str] = str) -> Self:
        """Make a block of plain values. place: dotted path → how to name it in a message. Raises StudyError."""
        try:
            return cls.model_validate(dict(tree))
        except ValidationError as error:
            raise _mistake(error, cls, tree, place) from None


def _mistake(
    error: ValidationError, model: type[BaseModel], tree: Mapping[str, Any], place: Callable[[str], str]
) -> StudyError:
    """Return the first mistake of a validation, in a person's words."""
    first = error.errors()[0]
    path, fields = _real_path(first["loc"], model, tree)
    kind, got = first["type"], first["input"]
    message, hint = first["msg"], None
    if kind in {"extra_forbidden", "invalid_key"}:
        message, hint = f"unknown key {cut(str(path[-1]))!r}", nearest(str(path[-1]), fields)
    elif kind == "union_tag_invalid":
        named = got["name"]
        message = f"unknown name {brief(named)!r}"
        hint = nearest(str(named), re.findall(r"'([^']*)'", first["ctx"]["expected_tags"]))
        path = (*path, "name")
    elif kind == "union_tag_not_found":
        message = "a `name` is missing"
    elif kind == "missing":
        message = "is missing"
    elif kind == "literal_error":
        message = f"{brief(got)} is not one of {first['ctx']['expected']}"
        if path[-1] == "loss" and "softmax" in str(got):
            hint = "the softmax loss is the cross-entropy of a softmax: loss: cross-entropy"
    elif kind in {"model_type", "model_attributes_type", "dict_type"}:
        message = f"{brief(got)} is a value where a block of keys belongs"
    elif kind in _SHOULD:
        limits = {name: format_value(limit) for name, limit in first.get("ctx", {}).items()}
        message = f"should be {_SHOULD[kind].format(**limits)} (got {brief(got)})"
        if kind.startswith(("int_", "float_")) and isinstance(got, str) and re.search(r"\d", got):
            hint = NUMBERS
    else:
        message = message.removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        if not isinstance(got, Mapping):
            message += f" (got {brief(got)})"
    return StudyError(message, place=place(".".join(str(p) for p in path)), hint=hint)


_SHOULD = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list",
    "finite_number": "a finite number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
}


def _real_path(
    loc: tuple[int | str, ...], model: type[BaseModel], tree: Any
) -> tuple[tuple[int | str, ...], list[str]]:
    """Return a pydantic location without the union tags that it inserts, and the fields of the innermost block."""
    path: list[int | str] = []
    annotation: Any = model
    fields = list(model.model_fields)
    position = 0
    while position < len(loc):
        part = loc[position]
        path.append(part)
        position += 1
        tree = tree.get(part) if isinstance(tree, Mapping) else None
        if (
            not (isinstance(annotation, type) and issubclass(annotation, BaseModel))
            or part not in annotation.model_fields
        ):
            continue
        annotation = annotation.model_fields[str(part)].annotation
        members = [m for m in get_args(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]
        if len(members) == 1:
            annotation = members[0]
        elif members and position < len(loc):
            tag = loc[position]
            annotation = next((m for m in members if m.model_fields["name"].default == tag), members[0])
            position += 1
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = list(annotation.model_fields)
    return tuple(path), fields


# --- plain values -----------------------------------------------------------------------------------------------------


def may_be_recorded(name: str) -> bool:
    """Return whether MLflow takes it as the name of a metric or a parameter: what it refuses it would refuse for good."""
    plain = re.fullmatch(r"[\w.\- :/]{1,250}", name) is not None
    return plain and posixpath.normpath(name) == name and not name.startswith(("/", ".."))


def check_plain(value: Any, path: tuple[str, ...], place: Callable[[str], str]) -> None:
    """Check that a value is a tree of plain values whose dotted paths can be recorded.

    path: where it stands. place: dotted path → how to name it in a message. Raises StudyError.
    """
    where = place(".".join(path))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str) or "." in name or not name:
                raise StudyError(f"the key {cut(str(name))!r} is not a plain name without dots", place=where)
            if not may_be_recorded(".".join((*path, name))):
                raise StudyError(
                    f"the key {cut(name)!r} cannot be recorded",
                    place=where,
                    hint="letters, digits, spaces and _ - : / make a name",
                )
            check_plain(inner, (*path, name), place)
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner, path, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise StudyError(f"{value} is not a finite number", place=where)
    elif not isinstance(value, str | int | float | bool | None):
        raise StudyError(
            f"{type(value).__name__} is not a plain value (text, number, true, false, null, list)",
            place=where,
        )


class Arguments(dict[str, Any]):
    """Arguments by name, as plain values. Not to be changed: it has a hash, and is equal to what JSON cannot tell apart from it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Arguments) and self._text() == other._text()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._text())

    def _text(self) -> str:
        # Compared as text: to Python, True equals 1.
        return json.dumps(self, sort_keys=True)


def _arguments(value: Any) -> Arguments:
    if not isinstance(value, Mapping):
        raise ValueError("should be a block of keys: the arguments by name")  # noqa: TRY004 — pydantic's kind of mistake
    for name in value:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"{cut(str(name))!r} is not the name of an argument")
    try:
        check_plain(value, (), str)
    except StudyError as error:
        raise ValueError(f"{error.place}: {error.message}" if error.place else error.message) from None
    return Arguments(json.loads(json.dumps(value)))


ArgumentsField = Annotated[
    Arguments,
    PlainValidator(_arguments),
    PlainSerializer(lambda value: json.loads(json.dumps(value))),
    WithJsonSchema({"type": "object", "default": {}}),
]
"""A field of arguments: each of them is a setting of its own, by its path."""
