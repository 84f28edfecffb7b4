"""The study file as a JSON Schema, made from the fields of the configuration: editors complete and check with it.

A study says where its schema is in its first line, `# yaml-language-server: $schema=…`. What the schema cannot say (that a
level fits its path, that a leave-one-out factor has one level) the reader of studies says, with file and line.
"""

from __future__ import annotations

import json
from typing import Any

from ablate.config import RunConfig
from ablate.study import ranges, spec
from ablate.study.seeds import REPLICATES

_WORDS = {
    "study": "Name of the study, of its MLflow experiment, and of its report.",
    "question": "What the study asks, in a sentence; the report begins with it.",
    "metric": "What arms are compared by; never a test metric. Default: val/accuracy.",
    "direction": "Whether more of the metric is better. Known for the built-in metrics.",
    "margin": "Smallest difference worth having, in the metric's units: 0.005 is half a point of accuracy.",
    "resolution": "Smallest step of the metric, where the data do not decide it.",
    "baseline": "The run that every arm is compared with.",
    "factors": "What is changed: a dotted path into the baseline with its levels, or a name with `zip` of several.",
    "design": "Which combinations of levels are run.",
    "fraction": "Of `design: fractional`: how many of all combinations are run, or which.",
    "seeds": "Seeds an arm: one number, a list of looks, or {initial, max}.",
    "noise_floor": "Also compare the baseline with itself (A/A): what differences does chance alone make?",
    "confirm": "Run the winner, and what it is compared with, again on fresh seeds. Factorial designs and searches have none.",
    "train": "Training of your own, `package.module:function`; the baseline is then any tree of values.",
    "deterministic": "The training ignores its seed on purpose: equal runs are no mistake. An interval takes three all the same.",
    "nuisance": "Settings that are tuned for every arm, each in the same way.",
    "search": "How Optuna looks: for `nuisance`, and for `design: search`.",
}
_SEEDS = {"type": "integer", "minimum": 1, "maximum": REPLICATES}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
_TRIALS = {"type": "integer", "minimum": 2, "maximum": ranges.MOST_TRIALS}
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
_TUNED: dict[str, Any] = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                **_ENDS,
                "trials": {"description": "Trials of each arm. Default: 12.", **_TRIALS},
            },
            "minProperties": 1,
            "maxProperties": 2,
            "oneOf": [{"required": [kind]} for kind in _ENDS],
            "additionalProperties": False,
        },
        {"description": "Choices: values, or blocks with ranges in them.", "type": "array", "minItems": 2},
    ]
}
_TYPES: dict[str, dict[str, Any]] = {
    "study": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"},
    "question": {"type": "string"},
    "metric": {"anyOf": [{"enum": list(spec.METRICS)}, {"type": "string", "not": {"pattern": "^test/"}}]},
    "direction": {"enum": ["maximize", "minimize"]},
    "margin": _POSITIVE,
    "resolution": _POSITIVE,
    "design": {"enum": list(spec.DESIGNS), "default": spec.DESIGNS[0]},
    "seeds": {
        "anyOf": [
            _SEEDS,
            {"type": "array", "items": _SEEDS, "minItems": 1},
            {
                "type": "object",
                "properties": {"initial": _SEEDS, "max": _SEEDS},
                "required": ["initial", "max"],
                "additionalProperties": False,
            },
        ]
    },
    "nuisance": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"$ref": "#/$defs/Tuned"},
    },
    "search": {
        "type": "object",
        "properties": {
            "sampler": {
                "description": "Optuna's, by name: which values are tried next.",
                "enum": list(ranges.SAMPLERS),
                "default": "tpe",
            },
            "pruner": {
                "description": "Optuna's, by name: which trials are broken off because others were better by then.",
                "enum": list(ranges.PRUNERS),
                "default": "none",
            },
            "trials": {
                "description": "Trials of each search. Default: 12 of an arm, 50 of `design: search`.",
                **_TRIALS,
            },
            "budget": {
                "description": "Of `design: search`: time after which no trial is begun: 90s, 30m, 2h, 1d.",
                "anyOf": [_POSITIVE, {"type": "string", "pattern": r"^\d+(\.\d+)?[smhd]?$"}],
            },
            "cost": {
                "description": "Of `design: search`: a second objective, the less the better; it ends with the front of both.",
                "enum": list(ranges.COSTS),
            },
            "candidates": {
                "description": "How many of the best are looked at again on fresh seeds.",
                "type": "integer",
                "minimum": 1,
                "maximum": 20,
                "default": 3,
            },
        },
        "additionalProperties": False,
    },
    "noise_floor": {"type": "boolean", "default": False},
    "confirm": {"type": "boolean", "default": False},
    "deterministic": {"type": "boolean", "default": False},
    "train": {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"},
}


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a study file."""
    configured = RunConfig.model_json_schema(ref_template="#/$defs/{model}")
    defs = configured.pop("$defs")
    configured["properties"].pop("seed")
    augment = configured["properties"]["augment"]
    augment["anyOf"] = [
        {"$ref": augment.pop("$ref")},
        {"type": "null"},
    ]  # `augment: null` is how a study says none
    properties: dict[str, Any] = {
        name: {"description": _WORDS[name]} | _TYPES.get(name, {}) for name in spec.KEYS
    }
    levels = {"type": "array", "minItems": 1}
    zipped = {
        "type": "object",
        "properties": {"zip": {"type": "object", "additionalProperties": levels}},
        "required": ["zip"],
        "additionalProperties": False,
    }
    properties["factors"] |= {
        "type": "object",
        "minProperties": 1,
        "properties": {
            path: {"description": words, "anyOf": [levels, {"$ref": "#/$defs/Range"}]}
            for path, words in paths().items()
        },
        "additionalProperties": {"anyOf": [levels, zipped, {"$ref": "#/$defs/Range"}]},
    }
    properties["nuisance"]["properties"] = {
        path: {"description": words, "$ref": "#/$defs/Tuned"}
        for path, words in paths().items()
        if path.partition(".")[0] != "data"
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study of ablate",
        "type": "object",
        "properties": properties,
        "required": ["study", "margin", "baseline", "factors"],
        "additionalProperties": False,
        "if": {"required": ["train"]},
        "then": {"properties": {"baseline": {"type": "object"}}},
        "else": {"properties": {"baseline": configured}},
        "$defs": {**defs, "Range": _RANGE, "Tuned": _TUNED},
    }


def text() -> str:
    """The schema as the file that editors read."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def paths() -> dict[str, str]:
    """Every dotted path of the built-in training that can be a factor → what it means."""
    found: dict[str, str] = {}
    configured = RunConfig.model_json_schema()
    for block, said in configured["properties"].items():
        if block == "seed":
            continue
        found[block] = "A whole block."
        for member in _members(said):
            for name, field in configured["$defs"][member].get("properties", {}).items():
                found.setdefault(f"{block}.{name}", field.get("description", ""))
    return found


def _members(said: dict[str, Any]) -> list[str]:
    """Names of the definitions that a property may be."""
    refs = [said, *said.get("oneOf", ()), *said.get("anyOf", ())]
    return [ref["$ref"].rpartition("/")[2] for ref in refs if "$ref" in ref]
