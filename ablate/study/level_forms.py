"""What can stand under `factors:` and `nuisance:`, as JSON Schema: paths, their levels, and their ranges.

A level is checked by the fields that its path has in any kind of its block: whether the baseline's network has that field, the reader
of studies says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ablate.config import CHANGES_NO_RESULT
from ablate.study import search

Form = dict[str, Any]
"""A part of a JSON Schema."""

KINDS = {
    "log": "From the first number to the second, evenly on a logarithmic scale: for rates and decays.",
    "range": "From the first number to the second.",
    "int": "Whole numbers from the first to the second.",
}
"""The kinds of range, and what they are."""

ARGUMENTS = r"^(data|model)\.args\..+$"
"""Pattern of the paths of arguments of the user's own code, of which only that code knows what they take."""

_NAMED = "Which one, by its name; the rest of the block is then as that has it by default."

_ABOUT = ("title", "description", "default", "examples")
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_TRIALS = {"description": f"Trials of each arm. Default: {search.TRIALS['nuisance']}.", **search.TRIALS_FORM}


class Changes:
    """The forms of changes to a configuration of the built-in training.

    blocks: block → its form. members: name of a definition → it. meanings: path → what it means. defs: what the forms refer to, to be
    put into the schema's `$defs` once all forms are made.
    """

    def __init__(
        self, blocks: Mapping[str, Form], members: Mapping[str, Form], meanings: Mapping[str, str]
    ) -> None:
        self._blocks, self._members = blocks, members
        self._meanings = {path: words or _NAMED for path, words in meanings.items()}
        self._levels = dict(self._level_forms())
        columns = {path: _list(_reference(path)) for path in self._levels}
        others = {ARGUMENTS: _list({})}
        zipped = zip_form({"properties": columns, "patternProperties": others, "additionalProperties": False})
        self.defs: dict[str, Form] = self._levels | {"zip": zipped}

    def factors(self) -> Form:
        """Return the form of `factors:` of all designs but a search."""
        zipped = _reference("zip")
        properties = {
            # A factor of several paths may be called like a block.
            path: {"description": self._meanings[path]}
            | (_list(_reference(path)) if "." in path else {"anyOf": [_list(_reference(path)), zipped]})
            for path in self._levels
            if path not in CHANGES_NO_RESULT
        }
        others = {ARGUMENTS: _list({}), f"^(?!({'|'.join(self._blocks)})$)[^.]+$": zipped}
        return {"properties": properties, "patternProperties": others, "additionalProperties": False}

    def space(self) -> Form:
        """Return the form of `nuisance:`, and of `factors:` of a search."""
        properties = {
            path: {"description": self._meanings[path]} | self._range_of(path)
            for path in self._levels
            # A search that changed the data would have runs that cannot be compared.
            if path.partition(".")[0] != "data" and path not in CHANGES_NO_RESULT
        }
        others = {ARGUMENTS.replace("data|", ""): range_form([{}], {})}
        return {"properties": properties, "patternProperties": others, "additionalProperties": False}

    def _kinds(self, block: str) -> list[Form]:
        """Return the definitions of all kinds of a block."""
        form = self._blocks[block]
        refs = [form, *form.get("oneOf", ()), *form.get("anyOf", ())]
        return [self._members[ref["$ref"].rpartition("/")[2]] for ref in refs if "$ref" in ref]

    def _level_forms(self) -> Iterator[tuple[str, Form]]:
        """Yield the path of every block, and of every field of a block of any kind, with the form of one level."""
        for block, form in self._blocks.items():
            yield block, _bare(form)
            fields: dict[str, list[Form]] = {}
            for kind in self._kinds(block):
                for name, field in kind["properties"].items():
                    forms = fields.setdefault(name, [])
                    if _bare(field) not in forms:
                        forms.append(_bare(field))
            for name, forms in fields.items():
                yield f"{block}.{name}", forms[0] if len(forms) == 1 else {"anyOf": forms}

    def _range_of(self, path: str) -> Form:
        if "." in path:
            return range_form(_numbers(self._levels[path]), _reference(path))
        # A choice that is a block may have ranges in it.
        choices: list[Form] = [
            _bare(kind)
            | {
                "properties": {
                    name: {"anyOf": [_bare(field), self._range_within(field)]}
                    if _numbers(field)
                    else _bare(field)
                    for name, field in kind["properties"].items()
                }
            }
            for kind in self._kinds(path)
        ]
        choices += [form for form in self._blocks[path].get("anyOf", ()) if form == {"type": "null"}]
        return range_form([], {"anyOf": choices})

    def _range_within(self, field: Form) -> Form:
        """Return a reference to the form of a range of a field's numbers. Fields with the same limits share it: there are many fields."""
        numbers = [
            {name: part[name] for name in ("type", *_LIMITS) if name in part} for part in _numbers(field)
        ]
        name = "-".join(
            ["Range", *(f"{key}-{value}" for part in numbers for key, value in part.items())]
        ).replace("type-", "")
        self.defs.setdefault(name, {"anyOf": _ends(numbers)})
        return _reference(name)


def any_factors() -> Form:
    """Return the form of `factors:` of a training whose settings only the user's code knows."""
    return {"additionalProperties": {"anyOf": [_list({}), zip_form({"additionalProperties": _list({})})]}}


def any_space() -> Form:
    """Return the form of `nuisance:` of such a training, and of `factors:` of a search."""
    return {"additionalProperties": range_form([{}], {})}


def zip_form(columns: Form) -> Form:
    """Return the form of a factor of several paths. columns: the form of these."""
    return {
        "description": "Paths that change together: path → its levels, as many for each.",
        "type": "object",
        "properties": {"zip": {"type": "object", "minProperties": 1, **columns}},
        "required": ["zip"],
        "additionalProperties": False,
    }


def range_form(numbers: list[Form], choice: Form) -> Form:
    """Return the form of a range. numbers: forms that its numbers may have; an empty one is any. choice: the form of a choice."""
    choices = {"description": "Choices: values, or blocks with ranges in them.", **_list(choice, 2)}
    return {"anyOf": [*_ends(numbers, trials=True), choices]}


def _reference(name: str) -> Form:
    return {"$ref": f"#/$defs/{name}"}


def _bare(form: Form) -> Form:
    return {name: part for name, part in form.items() if name not in _ABOUT}


def _list(item: Form, least: int = 1) -> Form:
    return {"type": "array", "minItems": least, **({"items": item} if item else {})}


def _numbers(form: Form) -> list[Form]:
    """Return the parts of a form that are numbers of which a range can be made."""
    parts = [part for each in form.get("anyOf", [form]) for part in each.get("anyOf", [each])]
    return [part for part in parts if part.get("type") in ("integer", "number") and "enum" not in part]


def _ends(numbers: list[Form], *, trials: bool = False) -> list[Form]:
    """Return the forms of the ranges of numbers of these forms."""
    ranges: list[Form] = []
    for number in numbers:
        limits = {name: number[name] for name in _LIMITS if name in number}
        for kind in ["int"] if number.get("type") == "integer" else KINDS:
            lowest = {"exclusiveMinimum": 0} if kind == "log" else {}
            end = {"type": "integer" if kind == "int" else "number", **lowest, **limits}
            ends = {"description": KINDS[kind], **_list(end, 2), "maxItems": 2}
            form = {
                "type": "object",
                "properties": {kind: ends, **({"trials": _TRIALS} if trials else {})},
                "required": [kind],
                "additionalProperties": False,
            }
            if form not in ranges:
                ranges.append(form)
    return ranges
