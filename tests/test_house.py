"""Rules of the house that no linter knows: where a plan's record is read, where seeds are numbered, who asks what kind a training is."""

from __future__ import annotations

import ast
import itertools
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import ablate

ROOT = Path(ablate.__file__).parent


def matches(pattern: str) -> Callable[[str], list[int]]:
    """A check that returns the lines of a source in which the pattern occurs."""
    return lambda source: [
        number for number, line in enumerate(source.splitlines(), 1) if re.search(pattern, line)
    ]


def asks_for_the_kind_of_training(source: str) -> list[int]:
    """Lines with `isinstance(…, RunConfig)` (or FreeConfig, FunctionConfig), or with `train is None`."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            if re.search(r"\b(RunConfig|FreeConfig|FunctionConfig)\b", ast.unparse(node.args[1])):
                lines.append(node.lineno)
        elif (
            isinstance(node, ast.Compare)
            and isinstance(node.ops[0], ast.Is | ast.IsNot)
            and re.search(r"\btrain(['\"]\])?$", ast.unparse(node.left))
            and ast.unparse(node.comparators[0]) == "None"
        ):
            lines.append(node.lineno)
    return lines


@dataclass(frozen=True)
class Rule:
    """check: source → lines that break the rule. home: files and folders that may break it."""

    advice: str
    check: Callable[[str], list[int]]
    home: tuple[str, ...]


RULES = {
    "the keys of a plan's record": Rule(
        "read the fields of PlanRecord; only study/record.py knows its JSON",
        matches(r"\brecord\[[\"']"),
        ("study/record.py",),
    ),
    "the numbering of seeds": Rule(
        "use the functions of study/seeds.py; only that file knows the numbers",
        matches(r"%\s*1_?000\b|>=\s*900\b|\bAA_OFFSET\b|\b[A-Z_]*SEEDS\s*=\s*1_?000\b"),
        ("study/seeds.py",),
    ),
    "the keys of a kind of training": Rule(
        "ask the Trainer of the config, or take `config.source`: another kind has other keys than `train`",
        matches(r"\b(study|record|payload)\.train\b(?!\()|\b(declared|source)(\[|\.get\()[\"']train[\"']"),
        ("training/",),
    ),
    "the kind of a training": Rule(
        "ask the Trainer of the config; only ablate/training/ knows the kinds of training",
        asks_for_the_kind_of_training,
        # config.py defines the classes; in `analysis`, which knows no config, `train` is the curve of a training loss.
        ("training/", "analysis/", "config.py"),
    ),
}

# Classes of one name where one wraps the other, and why both keep it.
WRAPPED: dict[str, str] = {}


def sources() -> dict[str, str]:
    return {
        file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8")
        for file in sorted(ROOT.rglob("*.py"))
    }


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_the_house_is_kept(name):
    rule = RULES[name]
    places = [
        f"ablate/{file}:{line}"
        for file, source in sources().items()
        if not file.startswith(rule.home)
        for line in rule.check(source)
    ]
    assert places == [], f"{name}: {rule.advice}"


def test_no_two_classes_have_one_name():
    places: dict[str, list[str]] = {}
    for file, source in sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"ablate/{file}:{node.lineno}")
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: shared[name] for name in shared.keys() - WRAPPED.keys()} == {}
    assert sorted(WRAPPED.keys() - shared.keys()) == [], "take these names off the list"


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("the keys of a plan's record", 'margin = self.record["margin"]'),
        ("the keys of a plan's record", "record['tuned'] = {}"),
        ("the numbering of seeds", "replicate = run.seed % 1000"),
        ("the numbering of seeds", "again = seed % 1_000 >= 900"),
        ("the numbering of seeds", "MOST_SEEDS = 1000"),
        ("the keys of a kind of training", "place=plan.study.train,"),
        ("the keys of a kind of training", "if own := reading.record.train:"),
        ("the keys of a kind of training", 'record.declared["train"]'),
        ("the kind of a training", "isinstance(arm.config, RunConfig)"),
        ("the kind of a training", "isinstance(arm.config, (config.RunConfig, str))"),
        ("the kind of a training", "if self.study.train is None:\n    pass"),
        ("the kind of a training", 'own = plan["train"] is not None'),
    ],
)
def test_the_check_sees_what_breaks_the_rule(name, source):
    assert RULES[name].check(source) == [1]


@pytest.mark.parametrize("name", RULES)
def test_the_check_passes_plain_code(name):
    source = "records[0]\nshare = 100 % 7\nisinstance(config, Config)\nif trained is None:\n    train = 900\n"
    assert RULES[name].check(source) == []


def test_every_part_of_the_source_has_its_line_in_the_guide():
    guide = (ROOT.parent / "docs" / "contributing.md").read_text()
    parts = [
        f"{path.name}/" if path.is_dir() else path.name
        for path in ROOT.iterdir()
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")
    ]
    assert len(parts) > 30
    assert sorted(part for part in parts if part not in guide) == []


def test_the_list_of_licences_names_every_direct_dependency():
    root = ROOT.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    users = [extra for name, extra in project["optional-dependencies"].items() if name != "dev"]
    needed = {re.match(r"[\w.-]+", text)[0] for text in itertools.chain(project["dependencies"], *users)}
    rows = re.findall(
        r"^\| ([\w-]+)[^|]* \| (.+) \|$",
        (root / "docs" / "licences.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    listed = {name: licence for name, licence in rows if name not in ("package", "---")}
    assert listed.keys() == needed
    assert all(re.search(r"MIT|BSD|Apache|LGPL", licence) for licence in listed.values())
