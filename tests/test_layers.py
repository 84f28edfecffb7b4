"""The layering of the design, checked on what the files import, wherever in a file the import stands."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import ablate

ROOT = Path(ablate.__file__).parent

# Every room, and the rooms of ablate, or single files of them (`study.record`), that it may import besides itself.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "addresses": set(),
    "interrupts": set(),
    "locks": {"errors"},
    "events": set(),
    "figure_files": set(),
    "plain_files": set(),
    "repository": {"plain_files"},
    "text": {"errors"},
    "fields": {"errors", "text"},
    "metrics": set(),
    "lines": {"errors", "text"},
    "code_paths": set(),
    "cache_folder": {"errors", "plain_files"},
    "code_digest": {"errors", "cache_folder", "code_paths"},
    "targets": {"errors", "code_digest", "text"},
    "data": {"errors", "cache_folder", "locks", "code_digest", "fields", "targets", "text"},
    "models": {"errors", "code_digest", "fields", "targets", "text"},
    "config": {"errors", "code_digest", "fields", "data", "models", "text"},
    "training": {
        "errors",
        "cache_folder",
        "figure_files",
        "repository",
        "plain_files",
        "code_digest",
        "events",
        "fields",
        "data",
        "models",
        "config",
        "lines",
        "metrics",
        "text",
    },
    "study": {"errors", "plain_files", "data", "fields", "config", "metrics", "text", "training"},
    "measuring": {"errors", "events", "metrics", "data", "config", "text", "training"},
    # Side branches, joined only by `launch`, `reporting` and `scheduling`.
    "executors": {"errors", "events", "interrupts", "text"},
    "tracking": {
        "addresses",
        "cache_folder",
        "locks",
        "errors",
        "plain_files",
        "events",
        "figure_files",
        "metrics",
        "models",
        "config",
        "study",
        "text",
    },
    "shares": set(),
    "analysis": {"errors", "metrics", "shares", "study.record", "study.search", "study.seeds", "text"},
    "importing": {"addresses", "errors", "metrics", "plain_files", "shares", "text", "lines"},
    "report": {"errors", "figure_files", "metrics", "analysis", "study.record", "study.seeds", "text"},
    # Where they are joined.
    "scheduling": {
        "errors",
        "metrics",
        "plain_files",
        "locks",
        "events",
        "config",
        "data.facts",
        "study",
        "training",
        "measuring",
        "executors",
        "tracking",
        "analysis",
        "text",
    },
    "given_study": {"errors", "study", "text", "tracking"},
    "documents": {"errors", "text"},
    "kept_answer": {"cache_folder", "study", "tracking", "training.inputs"},
    "streams": set(),
    "launch": {
        "errors",
        "cache_folder",
        "interrupts",
        "streams",
        "kept_answer",
        "repository",
        "given_study",
        "code_digest",
        "events",
        "text",
        "data",
        "config",
        "study",
        "training",
        "measuring",
        "executors",
        "tracking",
        "analysis",
        "scheduling",
    },
    "standing": {"errors", "text", "tracking"},
    "follow_up": {"errors", "given_study", "study", "analysis", "tracking", "launch"},
    "comparisons": {"text", "analysis", "report"},
    "comparing": {
        "errors",
        "metrics",
        "shares",
        "text",
        "data",
        "study",
        "analysis",
        "importing",
        "report",
        "comparisons",
    },
    "asking": {"text"},
    "results": {
        "asking",
        "errors",
        "metrics",
        "text",
        "study",
        "importing",
        "report",
        "comparisons",
        "comparing",
    },
    "judgements": {"errors", "text", "study", "tracking", "analysis", "report", "comparisons", "comparing"},
    "reporting": {
        "errors",
        "cache_folder",
        "plain_files",
        "text",
        "data",
        "study",
        "tracking",
        "analysis",
        "report",
        "judgements",
        "comparisons",
    },
    "ui": {"addresses", "errors", "interrupts", "tracking"},
    "console": {"kept_answer", "study", "scheduling", "analysis", "text", "launch", "standing"},
    "progress": {"console", "events", "executors", "study", "scheduling", "analysis", "report", "text"},
    "from_python": {
        "errors",
        "given_study",
        "text",
        "study",
        "tracking",
        "scheduling",
        "comparisons",
        "launch",
        "progress",
        "reporting",
    },
    "completion": {"errors", "documents", "data", "models", "study", "tracking", "text"},
    "doctor": {
        "errors",
        "cache_folder",
        "locks",
        "executors",
        "data",
        "measuring",
        "tracking",
        "scheduling",
        "text",
    },
    "usage": {"errors", "interrupts", "text"},
    "options": {"errors", "text", "study", "completion", "launch"},
    "slurm": {"errors", "text"},
    "slurm_command": {"errors", "study", "training", "launch", "options", "reporting", "slurm"},
    "catalogue_command": {
        "errors",
        "data",
        "models",
        "measuring",
        "study",
        "completion",
        "console",
        "documents",
        "launch",
        "reporting",
        "options",
        "streams",
    },
    "init_command": {"errors", "study", "completion", "follow_up", "launch", "options", "reporting"},
    "judge_command": {
        "metrics",
        "importing",
        "comparing",
        "results",
        "reporting",
        "completion",
        "launch",
        "options",
        "text",
        "judgements",
        "streams",
        "tracking",
    },
    "cli": {"*"},
}

# Packages that only these rooms or files may import; a name with a slash is one file.
HOMES: dict[str, set[str]] = {
    "mlflow": {"tracking", "importing/mlflow"},
    "optuna": {"scheduling/queue", "importing/optuna"},
    "ray": {"executors/ray"},
    "torch": {"data", "models", "training", "measuring", "launch"},
    "torchvision": {"data", "models"},
    "timm": {"models"},
    "tensorboard": {"training/channels/tensorboard"},
    "sklearn": {"data"},
    "plotly": {"report"},
    "jinja2": {"report"},
    "typer": {
        "catalogue_command",
        "cli",
        "init_command",
        "judge_command",
        "options",
        "slurm_command",
        "usage",
    },
    "rich": {"console", "progress"},
}

# Modules that importing the command line must not load.
HEAVY = ("torch", "torchvision", "mlflow", "optuna", "pandas", "plotly", "sklearn", "scipy", "jinja2")


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    """`scheduling/queue` for ablate/scheduling/queue.py."""
    return file.relative_to(ROOT).with_suffix("").as_posix()


def room_of(name: str) -> str:
    return name.partition("/")[0]


@functools.cache
def imports(file: Path) -> set[tuple[str, int]]:
    """Dotted names that a file imports, at its top or inside functions, under TYPE_CHECKING or not, with their lines."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            found |= {(f"{node.module}.{alias.name}", node.lineno) for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and node.args
            and isinstance(node.args[0], ast.Constant)
            and ast.unparse(node.func) in {"__import__", "importlib.import_module", "import_module"}
        ):
            found.add((node.args[0].value, node.lineno))
    return found


def breaches(name: str, imported: set[tuple[str, int]]) -> list[str]:
    room = room_of(name)
    allowed = ROOMS[room] | {room}
    found = []
    for module, line in sorted(imported):
        top, _, inside = module.partition(".")
        if top == "ablate":
            target = inside.partition(".")[0]
            file = ".".join(inside.split(".")[:2])
            if target and not {target, file, "*"} & allowed:
                found.append(f"ablate/{name}.py:{line}: {room} may not import {module}")
        elif top in HOMES and not {name, room} & HOMES[top]:
            found.append(
                f"ablate/{name}.py:{line}: {top} is imported in {', '.join(sorted(HOMES[top]))} alone"
            )
    return found


def test_every_room_is_in_the_table():
    rooms = {room_of(name_of(file)) for file in files()} - {"__init__", "__main__"}
    assert rooms == set(ROOMS)


@pytest.mark.parametrize("file", files(), ids=name_of)
def test_a_file_imports_only_what_its_room_may(file):
    if name_of(file) not in {"__init__", "__main__"}:
        assert breaches(name_of(file), imports(file)) == []


def test_the_table_has_no_circle():
    """A room may import only rooms that come before it."""
    seen: set[str] = set()
    for room, allowed in ROOMS.items():
        rooms = {name.partition(".")[0] for name in allowed}
        assert rooms <= seen or allowed == {"*"}, f"{room} imports what stands below it"
        seen.add(room)


def test_the_check_sees_imports_wherever_they_stand(tmp_path):
    file = tmp_path / "some.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "import torch.nn as t, mlflow\n"
        "if TYPE_CHECKING:\n    from ablate.study import spec\n"
        "def f():\n    import optuna\n    from ablate.training.runs import train\n"
        "class A:\n    def g(self):\n        importlib.import_module('ray')\n"
    )
    names = {name for name, _ in imports(file)}
    assert {
        "torch.nn",
        "mlflow",
        "ablate.study.spec",
        "optuna",
        "ablate.training.runs.train",
        "ray",
    } <= names


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("analysis/judging", "torch.nn"),
        ("analysis/judging", "ablate.study.spec"),
        ("report/figures", "mlflow"),
        ("training/runs", "ablate.executors.local"),
        ("training/builtin/loop", "optuna"),
        ("executors/local", "ablate.config.RunConfig"),
        ("scheduling/coordinate", "optuna.trial"),
        ("config", "ablate.study.spec"),
        ("tracking/queries", "ablate.analysis"),
    ],
)
def test_the_check_reports_what_the_design_forbids(name, module):
    assert len(breaches(name, {(module, 1)})) == 1


# --- circles between files --------------------------------------------------------------------------------------------

Graph = dict[str, dict[str, set[str]]]


def graph(root: Path) -> Graph:
    """File → file that it imports, under TYPE_CHECKING or not → the names that it imports. root: the folder `ablate`.

    `from ablate.models.cnn import Cnn` imports the file models/cnn; `from ablate.models import Cnn` the file models/__init__.
    """
    names = {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(root.rglob("*.py"))}
    modules = {".".join(["ablate", *name.split("/")]).removesuffix(".__init__"): name for name in names}
    edges: Graph = {name: {} for name in names}
    for name, file in names.items():
        for imported, _ in imports(file):
            module = imported if imported in modules else imported.rpartition(".")[0]
            target = modules.get(module)
            if target is not None and target != name:
                edges[name].setdefault(target, set()).add(
                    imported.removeprefix(f"{module}.").rpartition(".")[2]
                )
    return edges


def reachable(edges: Graph, start: str) -> set[str]:
    """Files that `start` imports, directly or through others."""
    seen: set[str] = set()
    waiting = [*edges[start]]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges[name]
    return seen


def circles(edges: Graph) -> set[frozenset[str]]:
    """Groups of files that import each other, directly or through others."""
    reach = {name: reachable(edges, name) for name in edges}
    return {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in edges
        if name in reach[name]
    }


def described(edges: Graph, circle: frozenset[str]) -> str:
    return "; ".join(
        f"{name} imports {', '.join(sorted(edges[name][target]))} from {target}"
        for name in sorted(circle)
        for target in sorted(edges[name].keys() & circle)
    )


def test_no_circle_between_files():
    edges = graph(ROOT)
    assert [described(edges, circle) for circle in circles(edges)] == []


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"a": "import ablate.b", "b": ""}, []),
        ({"a": "from ablate import b", "b": "from ablate.a import x"}, [{"a", "b"}]),
        (
            {"a": "from ablate.b import x", "b": "import ablate.c", "c": "def f():\n    import ablate.a"},
            [{"a", "b", "c"}],
        ),
        (
            {
                "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ablate.b import B",
                "b": "import ablate.a",
            },
            [{"a", "b"}],
        ),
        # A file may import from its own folder beside a file that imports it.
        ({"r/__init__": "from ablate.r.a import A", "r/a": "from ablate.r.b import B", "r/b": ""}, []),
        (
            {"r/__init__": "from ablate.r.a import A", "r/a": "from ablate.r import A"},
            [{"r/__init__", "r/a"}],
        ),
        (
            {"a": "import ablate.b", "b": "import ablate.a", "c": "import ablate.d", "d": "import ablate.c"},
            [{"a", "b"}, {"c", "d"}],
        ),
    ],
)
def test_the_check_finds_circles_however_they_are_imported(tmp_path, sources, expected):
    for name, source in sources.items():
        file = tmp_path / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    edges = graph(tmp_path)
    assert circles(edges) == set(map(frozenset, expected))
    assert all(" imports " in described(edges, circle) for circle in circles(edges))


# --- what is loaded ---------------------------------------------------------------------------------------------------


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_command_line_loads_nothing_heavy():
    assert loaded_by("import ablate.cli") & set(HEAVY) == set()


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import ablate.study.design", {"torch", "mlflow", "optuna", "pandas"}),
        (
            "import ablate.study.record, ablate.study.search, ablate.study.seeds",
            {"pydantic", "yaml", "numpy", "torch", "mlflow", "optuna", "pandas"},
        ),
        ("import ablate.executors.inline, ablate.executors.local", {"torch", "mlflow", "optuna", "pydantic"}),
        ("import ablate.analysis", {"torch", "mlflow", "optuna"}),
        (
            "import ablate.importing, ablate.lines",
            {"torch", "mlflow", "optuna", "pandas", "pydantic", "yaml"},
        ),
        (
            "import ablate.training.isolation, ablate.training.process",
            {"torch", "mlflow", "optuna", "pandas"},
        ),
        (
            "import ablate.measuring.probe, ablate.training.runs, ablate.training.function",
            {"torch", "mlflow", "optuna"},
        ),
    ],
)
def test_a_room_loads_nothing_that_it_may_not_even_at_second_hand(statement, absent):
    assert loaded_by(statement) & absent == set()


# Runs the commands that need no torch, one after the other in one process, and prints whether any of them imported it.
WITHOUT_TORCH = """
import contextlib, sys
from ablate import cli
for command in (
    "run function.yaml --allow-import own --dry-run",
    "run function.yaml --allow-import own --workers 1",
    "report function",
    "run command.yaml --allow-command --workers 1",
    "report command",
    "judge results.csv --arm arm --metric loss --baseline a --margin 0.1 --seed seed",
):
    sys.argv = ["ablate", *command.split()]
    with contextlib.suppress(SystemExit):
        cli.main()
    if "--dry-run" in command:
        print("pandas was loaded:", "pandas" in sys.modules)
print("torch was loaded:", "tor" + "ch" in sys.modules)
"""

# The name is not written out: a worker has loaded what the code of its training mentions.
OWN = """
import sys


def train(config, seed):
    assert "tor" + "ch" not in sys.modules, "the worker has loaded it"
    yield {"val/accuracy": config["gain"], "val/loss": 1.0}
"""


def test_judging_reports_and_own_training_load_no_torch(workplace):
    study = (
        "study: {name}\nmargin: 0.1\n{train}\nbaseline: {{gain: 0.5}}\nfactors: {{gain: [0.7]}}\nseeds: 2\n"
    )
    (workplace.root / "own.py").write_text(OWN)
    (workplace.root / "say.py").write_text("import sys\nprint('val/accuracy:', sys.argv[1])\n")
    command = f'command: [{sys.executable}, say.py, "{{gain}}"]\nmetrics: {{val/accuracy: {{line: "accuracy: (.*)"}}}}'
    for name, train in (("function", "train: own:train"), ("command", command)):
        (workplace.root / f"{name}.yaml").write_text(study.format(name=name, train=train))
    (workplace.root / "results.csv").write_text("arm,seed,loss\na,0,1\na,1,2\nb,0,3\nb,1,4\n")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=True)
    assert "pandas was loaded: False\n" in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("torch was loaded: False\n"), done.stdout + done.stderr
    assert "failed" not in done.stdout + done.stderr, done.stderr
    reports = {file.stem for file in (workplace.root / "reports").glob("*.html")}
    assert reports == {"function", "command"}, done.stdout + done.stderr
    assert "The only arm" in done.stdout, done.stdout + done.stderr
