"""The study file as a JSON Schema, made from the fields of `Study` and of the configuration: editors complete and check with it.

A study says where its schema is in its first line, `# yaml-language-server: $schema=…`. What the schema cannot say (that a
level fits its path, that a leave-one-out factor has one level) the reader of studies says, with file and line.
"""

from __future__ import annotations

import json
from typing import Any

from ablate.config import RunConfig
from ablate.study import search
from ablate.study.keys import KEYS, Study
from ablate.training import TRAINERS

_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_ENDS: dict[str, dict[str, Any]] = {
    "log": {
        "description": "From the first number to the second, evenly on a logarithmic scale: for rates and decays.",
        **_NUMBERS,
        "items": {"type": "number", "exclusiveMinimum": 0},
    },
    "range": {"description": "From the first number to the second.", **_NUMBERS},
    "int": {
        "description": "Whole numbers from the first to the second.",
        **_NUMBERS,
        "items": {"type": "integer"},
    },
}
_RANGE: dict[str, Any] = {
    "type": "object",
    "properties": _ENDS,
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
_ON_VALIDATION_DATA: dict[str, Any] = {
    "if": {"not": {"properties": {"judged_on": {"const": "test"}}, "required": ["judged_on"]}},
    "then": {"properties": {"metric": {"not": {"pattern": "^test/"}}}},
}
_TUNED: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                **_ENDS,
                "trials": {
                    "description": f"Trials of each arm. Default: {search.TRIALS['nuisance']}.",
                    **search.TRIALS_FORM,
                },
            },
            "minProperties": 1,
            "maxProperties": 2,
            "oneOf": [{"required": [kind]} for kind in _ENDS],
            "additionalProperties": False,
        },
        {"description": "Choices: values, or blocks with ranges in them.", "type": "array", "minItems": 2},
    ]
}


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a study file."""
    configured = RunConfig.model_json_schema(ref_template="#/$defs/{model}")
    defs = configured.pop("$defs")
    configured["properties"].pop("seed")
    augment = configured["properties"]["augment"]
    augment["anyOf"] = [
        {"$ref": augment.pop("$ref")},
        {"type": "null"},
    ]  # `augment: null` is how a study says none
    declared = Study.model_json_schema()
    properties: dict[str, Any] = {name: _form(declared["properties"][name]) for name in KEYS}
    levels = {"type": "array", "minItems": 1}
    zipped = {
        "type": "object",
        "properties": {"zip": {"type": "object", "additionalProperties": levels}},
        "required": ["zip"],
        "additionalProperties": False,
    }
    properties["factors"] |= {
        "properties": {
            path: {"description": meaning, "anyOf": [levels, {"$ref": "#/$defs/Range"}]}
            for path, meaning in paths().items()
        },
        "additionalProperties": {"anyOf": [levels, zipped, {"$ref": "#/$defs/Range"}]},
    }
    properties["nuisance"] |= {
        "properties": {
            path: {"description": meaning, "$ref": "#/$defs/Tuned"}
            for path, meaning in paths().items()
            if path.partition(".")[0] != "data"
        },
        "additionalProperties": {"$ref": "#/$defs/Tuned"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of ablate",
        "type": "object",
        "properties": properties,
        "required": declared["required"],
        "additionalProperties": False,
        "if": {"anyOf": [{"required": [trainer.keys[0]]} for trainer in TRAINERS if trainer.keys]},
        "then": {"properties": {"baseline": {"type": "object"}}},
        "else": {"properties": {"baseline": configured}},
        "allOf": [_ON_VALIDATION_DATA],
        "$defs": {**defs, "Range": _RANGE, "Tuned": _TUNED},
    }


def _form(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a key in a file, of its field's. Null is the same as leaving the key out, so it is no form of its own."""
    form = {name: value for name, value in declared.items() if name not in ("title", "default")}
    forms = [f for f in form.pop("anyOf", ()) if f != {"type": "null"}]
    form |= forms[0] if len(forms) == 1 else {"anyOf": forms} if forms else {}
    default = declared.get("default")
    return form | ({} if default in (None, "", []) else {"default": default})


def text() -> str:
    """Return the schema as the file that editors read."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def paths() -> dict[str, str]:
    """Return every dotted path of the built-in training that can be a factor, and what it means."""
    meanings: dict[str, str] = {}
    configured = RunConfig.model_json_schema()
    for block, form in configured["properties"].items():
        if block == "seed":
            continue
        meanings[block] = "A whole block."
        for member in _members(form):
            for name, field in configured["$defs"][member].get("properties", {}).items():
                meanings.setdefault(f"{block}.{name}", field.get("description", ""))
    return meanings


def _members(form: dict[str, Any]) -> list[str]:
    """Return the names of the definitions that a property may have."""
    refs = [form, *form.get("oneOf", ()), *form.get("anyOf", ())]
    return [ref["$ref"].rpartition("/")[2] for ref in refs if "$ref" in ref]
