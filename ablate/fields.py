"""The base of every configuration block: frozen, strict, finite; and a validation's mistakes in a person's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ablate.errors import StudyError, nearest
from ablate.text import brief, cut, format_value


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
        if members and position < len(loc):
            tag = loc[position]
            annotation = next((m for m in members if m.model_fields["name"].default == tag), members[0])
            position += 1
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            fields = list(annotation.model_fields)
    return tuple(path), fields
