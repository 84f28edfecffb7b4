"""The study file as a JSON Schema, made from the fields of `Study` and of the configuration: editors complete and check with it.

A study says where its schema is in its first line, `# yaml-language-server: $schema=…`. What the schema cannot say (that the
baseline's network has what a factor changes, that a leave-one-out factor has one level) the reader of studies says, with file and line.
"""

from __future__ import annotations

import json
from typing import Any

from ablate.config import RunConfig
from ablate.study import level_forms
from ablate.study.keys import KEYS, Study
from ablate.training import TRAINERS

_ON_VALIDATION_DATA: dict[str, Any] = {
    "if": {"not": {"properties": {"judged_on": {"const": "test"}}, "required": ["judged_on"]}},
    "then": {"properties": {"metric": {"not": {"pattern": "^test/"}}}},
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
    changes = level_forms.Changes(configured["properties"], defs, paths())
    space = changes.space()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of ablate",
        "type": "object",
        "properties": {name: _form(declared["properties"][name]) for name in KEYS},
        "required": declared["required"],
        "additionalProperties": False,
        "if": {"anyOf": [{"required": [trainer.keys[0]]} for trainer in TRAINERS if trainer.keys]},
        "then": _of_training(
            {"type": "object"},
            level_forms.any_factors(),
            level_forms.any_space(),
        ),
        "else": _of_training(configured, changes.factors(), {"$ref": "#/$defs/space"}),
        "allOf": [_ON_VALIDATION_DATA],
        "$defs": {**defs, **changes.defs, "space": space},
    }


def _of_training(baseline: dict[str, Any], factors: dict[str, Any], space: dict[str, Any]) -> dict[str, Any]:
    """Return the form of the studies of one kind of training. space: of what is tuned, and of the factors of a search."""
    return {
        "properties": {"baseline": baseline, "nuisance": space},
        "if": {"properties": {"design": {"const": "search"}}, "required": ["design"]},
        "then": {"properties": {"factors": space}},
        "else": {"properties": {"factors": factors}},
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
