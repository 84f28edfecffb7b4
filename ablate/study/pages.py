"""The same as pages for people: an index of every key and field, and a section on each, by block.

Types, ranges, defaults and meanings come from the fields themselves; what two runs that differ in a field can still share comes
from the configuration that decides it. Only the places where a field acts are written here; a test runs every example.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ablate.config import CHANGES_NO_RESULT, RunConfig
from ablate.study.keys import KEYS
from ablate.study.schema import schema

EXPLAINED = ("augment", "optimizer", "schedule", "training")
"""Blocks whose fields docs/recipe.md explains at length."""

_ON_TRAINING = "on every training batch; validation and test images stay as they are"
_IN_NETWORK = "in the network, in training and evaluation alike"
_DROPS = "in the network, in training only"
_STEP = "at every step, in the update of the weights"
_RATE = "at every step: the schedule says what share of `optimizer.lr` it gets"
_LOSS = "in the loss that is minimised; the losses that are recorded are plain cross-entropy all the same"
_PREPARED = "when the images are prepared, once for all runs that ask for the same"
_DIVIDED = "before training, when the images are divided"
_STOPS = "at the end of every epoch, where it may be the last"

# Where a field acts; of a block, of a field, of a field of one kind.
_ACTS = {
    "data": _DIVIDED,
    "data.channels": _PREPARED,
    "data.root": _PREPARED,
    "data.resize": _PREPARED,
    "data.normalize": "on every batch: training, validation and test",
    "model": _IN_NETWORK,
    "model.dropout": _DROPS,
    "model.auxiliary": _DROPS,
    "model.initialisation": "before the first step",
    "augment": _ON_TRAINING,
    "optimizer": _STEP,
    "schedule": _RATE,
    "training": "in the training loop",
    "training.epochs": "the loop: how long it goes on, and what the schedule is stretched over",
    "training.batch_size": "the loop: what a step sees",
    "training.loss": _LOSS,
    "training.focal_gamma": f"{_LOSS}; with `training.loss: focal` only",
    "training.label_smoothing": _LOSS,
    "training.max_grad_norm": "at every step, between the gradient and the update",
    "training.precision": "in the forward pass, in training and evaluation",
    "training.checkpoint": "after training: which weights meet the test set, and at which epoch the metric is read",
    "training.save_model": "beside training: it writes down weights and changes none",
    "training.patience": _STOPS,
    "training.min_delta": f"{_STOPS}; with `training.patience` only",
}

# What else an example has to say for its field to count.
BESIDE: dict[str, dict[str, Any]] = {
    "training.focal_gamma": {"training.loss": "focal"},
    "training.min_delta": {"training.patience": 5},
}

_TOP = """\
# Every key and every field

A study file has the keys below; its `baseline` has the blocks `data`, `model`, `augment`, `optimizer`, `schedule` and
`training`. Every field of a block is a factor by its path: `model.width: [32, 128]` under `factors:`. A whole block is one too:
`optimizer: [{name: adam, lr: 0.002}]`. An editor that reads the first line of a study, `# yaml-language-server: $schema=…`,
shows the same words while you type.

Made from the configuration by `ablate schema --markdown -o docs`; a test keeps all of it fresh.
"""

_ABOUT = {
    "data": "What is learned from: which images, how many, and how they are divided.",
    "model": "The network. A change of `model.name` starts from that network's own defaults.",
    "augment": "Random changes to training images, drawn anew for every image of every batch. `augment: null` is none.",
    "optimizer": "How weights are changed. A change of `optimizer.name` starts from that optimizer's own defaults.",
    "schedule": "How the learning rate goes from step to step. A change of `schedule.name` starts from its own defaults.",
    "training": "The loop itself.",
}


@dataclass(frozen=True)
class Field:
    """A field in one of its forms.

    kinds: names of the block that have it in this form. everyone: whether all names do. examples: levels for a factor; none
    for a field that is no factor.
    """

    block: str
    name: str
    kinds: tuple[str, ...]
    everyone: bool
    values: str
    default: str
    meaning: str
    examples: tuple[Any, ...]

    @property
    def path(self) -> str:
        return f"{self.block}.{self.name}"


def fields() -> Iterator[Field]:
    """Every field of the built-in training but names, by block and name, each of its forms by itself."""
    configured = RunConfig.model_json_schema()
    for block in _ABOUT:
        members = _kinds(configured, block)
        # A field that several kinds have in the same form is listed once, with the examples of the first of them.
        rows: dict[tuple[str, str, str, str], list[str]] = {}
        examples: dict[tuple[str, str, str, str], tuple[Any, ...]] = {}
        for kind, member in members.items():
            for name, said in member["properties"].items():
                if name != "name":
                    default = _code(said["default"]) if "default" in said else "required"
                    row = (name, _values(said), default, " ".join(said.get("description", "").split()))
                    rows.setdefault(row, []).append(kind)
                    examples.setdefault(row, tuple(said.get("examples", ())))
        for row, kinds in sorted(rows.items(), key=lambda item: item[0][0]):
            name, values, default, meaning = row
            everyone = len(kinds) == len(members)
            yield Field(block, name, tuple(kinds), everyone, values, default, meaning, examples[row])


def pages() -> dict[str, str]:
    """File below docs/ → its text: `fields.md`, the index, and a page for the keys of a study and for every block."""
    every: dict[str, dict[str, list[Field]]] = {block: {} for block in _ABOUT}
    for field in fields():
        every[field.block].setdefault(field.name, []).append(field)
    found = {"fields.md": _index(every), "fields/study.md": _keys()}
    configured = RunConfig.model_json_schema()
    for block, names in every.items():
        lines = [f"# `{block}`", "", _ABOUT[block], "", "[Every key and every field](../fields.md)"]
        if block in EXPLAINED:
            lines[-1] += " · [the recipe in words](../recipe.md)"
        kinds = {kind: member for kind, member in _kinds(configured, block).items() if kind}
        if kinds:
            lines += ["", "| name | what it is |", "| --- | --- |"]
            for kind, member in kinds.items():
                first = " ".join(member.get("description", "").partition("\n\n")[0].split())
                lines.append(f"| `{block}.name: {kind}` | {_cell(first)} |")
        for forms in names.values():
            lines += ["", *_section(forms)]
        found[f"fields/{block}.md"] = "\n".join(lines) + "\n"
    return found


def _index(every: dict[str, dict[str, list[Field]]]) -> str:
    lines = [_TOP, "## Keys of a study", "", "| key | values | meaning |", "| --- | --- | --- |"]
    for name, about in schema()["properties"].items():
        link = f"[`{name}`](fields/study.md#{name})"
        lines.append(f"| {link} | {_values(about)} | {_cell(about['description'])} |")
        for inner, of in _inner(name, about).items():
            lines.append(
                f"| [`{name}.{inner}`](fields/study.md#{name}) | {_values(of)} | {_cell(of['description'])} |"
            )
    for block, names in every.items():
        lines += ["", f"## `{block}`", "", _ABOUT[block], ""]
        lines += ["| path | values | default | meaning |", "| --- | --- | --- | --- |"]
        for name, forms in names.items():
            # GitHub's anchor of a heading keeps its letters, digits and underscores.
            link = f"[`{block}.{name}`](fields/{block}.md#{block}{name})"
            columns = (
                [f.values for f in forms],
                [f.default for f in forms],
                [_cell(f.meaning) for f in forms],
            )
            cells = [" / ".join(dict.fromkeys(column)) for column in columns]
            if len(set(columns[2])) > 1:
                cells[2] = f"{columns[2][0]} (more than one form)"
            lines.append(f"| {link} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _keys() -> str:
    """The page of a study's own keys."""
    said = schema()
    lines = ["# The keys of a study", "", "[Every key and every field](../fields.md)"]
    for name, about in said["properties"].items():
        need = "required" if name in said["required"] else "may be left out"
        default = f"; default {_code(about['default'])}" if "default" in about else ""
        lines += ["", f"## `{name}`", "", about["description"], "", f"- **Values:** {_values(about)}"]
        lines += [
            f"- **Needed:** {need}{default}",
            "",
            "```yaml",
            *(KEYS[name].example or "").splitlines(),
            "```",
        ]
        if inside := _inner(name, about):
            lines += ["", "| key | values | meaning |", "| --- | --- | --- |"]
            lines += [
                f"| `{key}` | {_values(of)} | {_cell(of['description'])} |" for key, of in inside.items()
            ]
    return "\n".join(lines) + "\n"


def _inner(name: str, about: dict[str, Any]) -> dict[str, Any]:
    """What a key of a study has inside, where that is keys of its own and no paths of fields."""
    inside: dict[str, Any] = about.get("properties", {}) if name == "search" else {}
    return inside


def _section(forms: list[Field]) -> list[str]:
    """What there is to say of a field."""
    path, block = forms[0].path, forms[0].block
    lines = [f"## `{path}`", ""]
    meanings = list(dict.fromkeys(form.meaning for form in forms))
    for meaning in meanings:
        of = ", ".join(_listed(form.kinds) for form in forms if form.meaning == meaning)
        lines.append(meaning if len(meanings) == 1 else f"- Of {of}: {meaning}")
    lines += ["", "| of | values | default | as a factor |", "| --- | --- | --- | --- |"]
    for form in forms:
        levels = f"`{path}: {json.dumps(form.examples)}`" if form.examples else "–"
        of = "all" if form.everyone else _listed(form.kinds)
        lines.append(f"| {of} | {form.values} | {form.default} | {levels} |")
    lines += ["", f"- **Acts** {_ACTS.get(path) or _ACTS[block]}."]
    if path in CHANGES_NO_RESULT:
        lines.append(
            "- **No factor:** runs that differ in nothing else are the same run. It is set in the baseline."
        )
    elif path == "data.root":
        lines.append("- **No factor by itself:** it says where the images lie. A whole `data` block is one.")
    else:
        lines.append(f"- **Arms that differ in it** {_company(forms)}.")
    if path in BESIDE:
        beside = ", ".join(f"`{other}: {value}`" for other, value in BESIDE[path].items())
        lines.append(f"- **Needs** a baseline with, for example, {beside}.")
    if block in EXPLAINED:
        lines.append(
            f"- **In words**, with the values people use: [recipe.md](../recipe.md#{block}{forms[0].name})."
        )
    return lines


def example(form: Field) -> tuple[RunConfig, list[RunConfig]] | None:
    """A baseline that has the field in this form, and the arms that its example makes of it; None where it has none."""
    if not form.examples:
        return None
    kind = form.kinds[0]
    tree: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "cnn"}}
    if kind and form.block != "data":
        tree[form.block] = {"name": kind}
    baseline = RunConfig.parse(tree).override(BESIDE.get(form.path, {}))
    return baseline, [baseline.override({form.path: level}) for level in form.examples]


def _company(forms: list[Field]) -> str:
    """What arms that differ in a field alone can share while they train, as the configuration decides it."""
    found = [one for form in forms if (one := example(form)) is not None]
    if any(arm.batches() != baseline.batches() for baseline, arms in found for arm in arms):
        return "train on batches of their own ([fused.md](../fused.md))"
    if any(arm.shape() != baseline.shape() for baseline, arms in found for arm in arms):
        return "train on the same batches, in turn ([fused.md](../fused.md))"
    return "train on the same batches, stacked where that pays ([fused.md](../fused.md))"


def _kinds(configured: dict[str, Any], block: str) -> dict[str, Any]:
    """Names that a block can have → their schemas; one without names under the empty one."""
    about = configured["properties"][block]
    refs = [about, *about.get("oneOf", ()), *about.get("anyOf", ())]
    members = [configured["$defs"][ref["$ref"].rpartition("/")[2]] for ref in refs if "$ref" in ref]
    return {m["properties"]["name"]["const"] if "name" in m["properties"] else "": m for m in members}


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _values(said: dict[str, Any]) -> str:
    """What a property may be, in a few words: `number from 0 to below 1`, `grey, rgb or null`."""
    if "anyOf" in said:
        words = dict.fromkeys(_values(one) for one in said["anyOf"])
        return " or ".join(word for word in words if word)
    if "enum" in said:
        return " or ".join(_code(value) for value in said["enum"])
    if "const" in said:
        return _code(said["const"])
    match said.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return "text"
        case "object":
            return "a block"
        case "array":
            inside = said.get("items") or {}
            most = f", at most {said['maxItems']}" if "maxItems" in said else ""
            return (
                f"a list of {_values(inside).replace('number', 'numbers', 1)}{most}" if inside else "a list"
            )
        case "integer" | "number" as kind:
            name = "whole number" if kind == "integer" else "number"
            low = f"above {said['exclusiveMinimum']:g}" if "exclusiveMinimum" in said else ""
            low = f"from {said['minimum']:g}" if "minimum" in said else low
            high = f"to below {said['exclusiveMaximum']:g}" if "exclusiveMaximum" in said else ""
            high = f"to {said['maximum']:,}" if "maximum" in said else high
            return " ".join(word for word in (name, low, high) if word)
    return "a block" if "$ref" in said or not said.keys() - {"description"} else ""


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|").replace("<", "&lt;")
