"""Paths that Python code names, computed from its syntax tree without running it.

Training of the user's own often lies next to a clone that is no package: `sys.path.insert(0, "vendor/makemore")` and
`import makemore`, or `runpy.run_path(HERE / "net.py")`. This module evaluates such expressions: text, `__file__`, `os.path`,
`pathlib`, environment variables, and names that are assigned or looped over in the same file.
"""

# Paths are computed as the evaluated code computes them, mostly with os.path: pathlib would resolve links, or keep `..`.
# ruff: noqa: PTH100, PTH109, PTH111, PTH112, PTH113, PTH118, PTH120

from __future__ import annotations

import ast
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_VALUES = 16
"""Values of an expression that are looked at: a name may be assigned several times."""

MOST_STEPS = 10_000
"""Expressions of one file that are evaluated: names that are assigned by each other would be gone through for hours."""

DEEPEST = 12
"""Names within names that are followed."""

LONGEST_PATH = 4096
"""Characters of a text that may be a path."""

_LOADERS = (b"exec", b"run_path", b"spec_from_file_location", b"SourceFileLoader", b"load_source")


@dataclass(frozen=True)
class CodePaths:
    """The expressions of a file that name places of code. assigned: name → what is assigned to it.

    first, last: what is put at the front or at the end of `sys.path`. loads: whether the file may run other files by path.
    """

    tree: ast.Module | None = None
    assigned: Mapping[str, Sequence[ast.expr]] = field(default_factory=dict)
    first: tuple[ast.expr, ...] = ()
    last: tuple[ast.expr, ...] = ()
    loads: bool = False

    def folders(self, file: str) -> tuple[list[str], list[str]]:
        """Return the folders that the file puts at the front and at the end of `sys.path`. file: where it lies.

        Where an expression cannot be evaluated, all folders that the file names count.
        """
        evaluate = _Evaluation(self.assigned, file)
        first = [list(_folders(evaluate(node))) for node in self.first]
        last = [list(_folders(evaluate(node))) for node in self.last]
        others: list[str] = []
        if self.tree is not None and not all(first + last):
            others = list(_folders(_all_values(self.tree, evaluate)))
        return _distinct(itertools.chain(*first)), _distinct(itertools.chain(*last, others))

    def files(self, file: str) -> list[str]:
        """Return the Python files that the file may run by their paths; itself is none of them."""
        if self.tree is None or not self.loads:
            return []
        named = [
            value
            for value in _all_values(self.tree, _Evaluation(self.assigned, file))
            if value.endswith(".py")
        ]
        places = (Path.cwd(), Path(file).parent)
        existing = (
            next((str(place / name) for place in places if (place / name).is_file()), None) for name in named
        )
        itself = os.path.realpath(file)
        return _distinct(path for each in existing if each and (path := os.path.realpath(each)) != itself)


def code_paths(tree: ast.Module, content: bytes) -> CodePaths:
    """Return the expressions of a file that name places of code; none for most files."""
    first, last = [], []
    changes_path = b"sys" in content and (b".path" in content or b"addsitedir" in content)
    loads = b".py" in content and any(loader in content for loader in _LOADERS)
    if not (changes_path or loads):
        return CodePaths()
    if changes_path:
        for node in ast.walk(tree):
            front, back = _added_to_path(node)
            first += front
            last += back
    if not (first or last or loads):
        return CodePaths()
    return CodePaths(tree, _assigned(tree), tuple(first), tuple(last), loads)


def _added_to_path(node: ast.AST) -> tuple[list[ast.expr], list[ast.expr]]:
    """Return what a statement or call puts at the front and at the end of `sys.path`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "insert" and _is_path(node.func.value):
            return node.args[1:2], []
        if node.func.attr in {"append", "extend"} and _is_path(node.func.value):
            return [], node.args[:1]
        if node.func.attr == "addsitedir":
            return [], node.args[:1]
    if isinstance(node, ast.AugAssign) and _is_path(node.target):
        return [], [node.value]
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if _is_path(target.value if isinstance(target, ast.Subscript) else target):
                return [node.value], []
    return [], []


def _is_path(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "path" and ast.unparse(node.value).endswith("sys")


def _assigned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Return name → the expressions that are assigned to it, or that it goes through in a loop."""
    assigned: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        value: ast.expr | None = None
        targets: Sequence[ast.AST] = ()
        match node:
            case ast.Assign():
                value, targets = node.value, node.targets
            case ast.AnnAssign() | ast.NamedExpr():
                value, targets = node.value, (node.target,)
            case ast.For() | ast.comprehension():
                value, targets = node.iter, (node.target,)
        if value is not None:
            for target in targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(value)
    return assigned


def _all_values(tree: ast.Module, evaluate: Callable[[ast.AST], Sequence[str]]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.BinOp | ast.Call | ast.JoinedStr):
            yield from evaluate(node)


def _folders(values: Iterable[str]) -> Iterator[str]:
    """Yield those that are folders or archives, as absolute paths."""
    for value in values:
        if value and len(value) < LONGEST_PATH and "\0" not in value:
            path = os.path.abspath(value)
            if os.path.isdir(path) or (path.endswith((".zip", ".egg")) and os.path.isfile(path)):
                yield path


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


_WITH_ONE: Mapping[str, Callable[[str], str]] = {
    "dirname": os.path.dirname,
    "abspath": os.path.abspath,
    "realpath": os.path.realpath,
    "normpath": os.path.normpath,
    "expanduser": os.path.expanduser,
    "expandvars": os.path.expandvars,
    "fspath": str,
    "str": str,
    "open": str,
}
_OF_PATH: Mapping[str, Callable[[str], str]] = {
    "resolve": os.path.realpath,
    "absolute": os.path.abspath,
    "expanduser": os.path.expanduser,
    "as_posix": str,
    "read_text": str,
    "read_bytes": str,
    "open": str,
    "read": str,
}


class _Evaluation:
    """Evaluates expressions of one file to text; what cannot be evaluated has no values."""

    def __init__(self, assigned: Mapping[str, Sequence[ast.expr]], file: str) -> None:
        self._assigned, self._file = assigned, file
        self._depth = self._steps = 0

    def __call__(self, node: ast.AST) -> list[str]:
        if self._depth > DEEPEST or self._steps >= MOST_STEPS:
            return []
        self._depth += 1
        self._steps += 1
        try:
            return list(itertools.islice(dict.fromkeys(self._values(node)), MOST_VALUES))
        finally:
            self._depth -= 1

    def _values(self, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.Name(id="__file__"):
                yield os.path.abspath(self._file)
            case ast.Name():
                for value in self._assigned.get(node.id, ()):
                    yield from self(value)
            case ast.List() | ast.Tuple():
                for element in node.elts:
                    yield from self(element)
            case ast.Starred():
                yield from self(node.value)
            case ast.ListComp() | ast.GeneratorExp():
                yield from self(node.elt)
            case ast.IfExp():
                yield from self(node.body)
                yield from self(node.orelse)
            case ast.BoolOp():
                for each in node.values:
                    yield from self(each)
            case ast.JoinedStr():
                yield from map("".join, itertools.product(*map(self, node.values)))
            case ast.FormattedValue():
                yield from self(node.value)
            case ast.BinOp(op=ast.Div()):
                yield from itertools.starmap(
                    os.path.join, itertools.product(self(node.left), self(node.right))
                )
            case ast.BinOp(op=ast.Add()):
                left, right = self(node.left), self(node.right)
                if any(
                    isinstance(side, ast.List | ast.ListComp | ast.Attribute)
                    for side in (node.left, node.right)
                ):
                    yield from (*left, *right)
                else:
                    yield from map("".join, itertools.product(left, right))
            case ast.Attribute(attr="parent"):
                yield from map(os.path.dirname, self(node.value))
            case ast.Attribute(attr="pardir"):
                yield os.pardir
            case ast.Subscript():
                yield from self._subscript(node)
            case ast.Call():
                yield from self._call(node)

    def _subscript(self, node: ast.Subscript) -> Iterator[str]:
        match node:
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))):
                if name in os.environ:
                    yield os.environ[name]
            case ast.Subscript(
                value=ast.Attribute(attr="parents", value=path), slice=ast.Constant(value=int(up))
            ):
                for value in self(path):
                    for _ in range(min(up + 1, 64)):
                        value = os.path.dirname(value)  # noqa: PLW2901
                    yield value

    def _call(self, node: ast.Call) -> Iterator[str]:
        name = ast.unparse(node.func).rpartition(".")[2]
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        arguments = [self(argument) for argument in node.args]
        if name in {"getcwd", "cwd"} and not arguments:
            yield os.getcwd()
        elif name == "home" and not arguments:
            yield os.path.expanduser("~")
        elif (name == "getenv" or (name == "get" and _is_environment(owner))) and node.args:
            for variable in arguments[0]:
                yield from (
                    [os.environ[variable]] if variable in os.environ else itertools.chain(*arguments[1:])
                )
        elif name in {"Path", "PurePath", "PosixPath"} or (
            name == "join" and not isinstance(owner, ast.Constant)
        ):
            yield from itertools.starmap(os.path.join, itertools.product(*arguments)) if arguments else ()
        elif name == "joinpath" and owner is not None:
            yield from itertools.starmap(os.path.join, itertools.product(self(owner), *arguments))
        elif name == "with_name" and owner is not None and arguments:
            for path, file in itertools.product(self(owner), arguments[0]):
                yield os.path.join(os.path.dirname(path), file)
        elif name in _WITH_ONE and arguments:
            yield from map(_WITH_ONE[name], arguments[0])
        elif name in _OF_PATH and owner is not None:
            yield from map(_OF_PATH[name], self(owner))


def _is_environment(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).endswith("environ")
