"""Paths that Python code names, computed from its syntax tree without running it.

Training of the user's own often lies next to a clone that is no package: `sys.path.insert(0, "vendor/makemore")` and
`import makemore`, or `runpy.run_path(HERE / "net.py")`. This module evaluates such expressions: text, `__file__`, `os.path`,
`pathlib`, environment variables, and names that are assigned or looped over in the same file.
"""

# Paths are computed as the evaluated code computes them, mostly with os.path: pathlib would resolve links, or keep `..`.
# ruff: noqa: PTH100, PTH109, PTH111, PTH112, PTH113, PTH118, PTH120

from __future__ import annotations

import ast
import contextlib
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MOST_VALUES = 16
"""Values of an expression that are looked at: a name may be assigned several times."""

MOST_STEPS = 10_000
"""Expressions of one file that are evaluated: names that are assigned by each other would be gone through for hours."""

DEEPEST = 12
"""Names within names that are followed."""

DEEPEST_READ = 4
"""Names within names that are followed to where a text was read."""

LONGEST_PATH = 4096
"""Characters of a text that may be a path."""

_LOADERS = {"run_path": 0, "spec_from_file_location": 1, "SourceFileLoader": 1, "load_source": 1}
"""Functions that run a file by its path → which argument that is."""

_READING = {"open", "read_text", "read_bytes"}


@dataclass(frozen=True)
class CodePaths:
    """The expressions of a file that name places of code. assigned: name → what is assigned to it.

    first, last: what is put at the front or at the end of `sys.path`. loads: whether the file may run other files by path.
    loaded: the paths of those, as far as calls say them.
    """

    tree: ast.Module | None = None
    assigned: Mapping[str, Sequence[ast.expr]] = field(default_factory=dict)
    first: tuple[ast.expr, ...] = ()
    last: tuple[ast.expr, ...] = ()
    loads: bool = False
    loaded: tuple[ast.expr, ...] = ()

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

    def files(self, file: str) -> tuple[list[str], bool]:
        """Return the files that the file may run by their paths, itself being none of them, and whether it may run others."""
        if self.tree is None or not (self.loads or self.loaded):
            return [], False
        evaluate = _Evaluation(self.assigned, file)
        found = []
        if self.loads:
            named = (value for value in _all_values(self.tree, evaluate) if value.endswith(".py"))
            found += [path for value in named if (path := _existing(value, file))]
        others = False
        for node in self.loaded:
            evaluated = [path for value in evaluate(node) if (path := _existing(value, file))]
            found += evaluated
            others |= not evaluated
        itself = os.path.realpath(file)
        return _distinct(path for each in found if (path := os.path.realpath(each)) != itself), others


def code_paths(tree: ast.Module, content: bytes) -> CodePaths:
    """Return the expressions of a file that name places of code; none for most files."""
    first, last = [], []
    changes_path = b"sys" in content and (b"path" in content or b"addsitedir" in content)
    may_load = b"exec" in content or any(loader.encode() in content for loader in _LOADERS)
    if not (changes_path or may_load):
        return CodePaths()
    assigned = _assigned(tree)
    if changes_path:
        names = _names_of_path(tree)
        for node in ast.walk(tree):
            front, back = _added_to_path(node, names)
            first += front
            last += back
    loads = may_load and b".py" in content
    loaded = tuple(_loaded(tree, assigned)) if may_load else ()
    if not (first or last or loads or loaded):
        return CodePaths()
    return CodePaths(tree, assigned, tuple(first), tuple(last), loads, loaded)


def _loaded(tree: ast.Module, assigned: Mapping[str, Sequence[ast.expr]]) -> Iterator[ast.expr]:
    """Yield the paths of the files that calls run, or whose text they give to `exec`."""
    loaders = dict(_LOADERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            loaders |= {a.asname: loaders[a.name] for a in node.names if a.asname and a.name in loaders}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        if name in loaders:
            named = [word.value for word in node.keywords if word.arg in ("path_name", "location", "path")]
            yield from (node.args[loaders[name] : loaders[name] + 1] or named)
        elif name == "exec" and node.args:
            yield from _read(node.args[0], assigned)


def _read(node: ast.expr, assigned: Mapping[str, Sequence[ast.expr]], depth: int = 0) -> Iterator[ast.expr]:
    """Yield the paths of the files that an expression reads, also through names that are assigned in the file."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and depth < DEEPEST_READ:
            for value in assigned.get(inner.id, ()):
                yield from _read(value, assigned, depth + 1)
        if isinstance(inner, ast.Call):
            owner = inner.func.value if isinstance(inner.func, ast.Attribute) else None
            name = _called(inner)
            is_of_path = name in _READING and owner is not None and not _is_module(owner)
            if name == "open" and inner.args and not is_of_path:
                yield inner.args[0]
            elif is_of_path and owner is not None:
                yield owner


def _called(call: ast.Call) -> str:
    """Return the name of the function or method that is called; '' where it has none."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"io", "os", "codecs", "tokenize", "builtins"}


def _existing(name: str, file: str) -> str | None:
    """Return the path of a file that is named, from the working folder or from where the naming file lies; None for none."""
    if not name or len(name) >= LONGEST_PATH or "\0" in name:
        return None
    places = (Path.cwd(), Path(file).parent)
    with contextlib.suppress(OSError):  # no name of a file
        return next((str(place / name) for place in places if (place / name).is_file()), None)
    return None


def _names_of_path(tree: ast.Module) -> frozenset[str]:
    """Return the names under which a file has `sys` and `sys.path`, as texts."""
    names = {"sys.path"}
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                names |= {
                    f"{alias.asname}.path" for alias in node.names if alias.name == "sys" and alias.asname
                }
            case ast.ImportFrom(module="sys"):
                names |= {alias.asname or alias.name for alias in node.names if alias.name == "path"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and _is_path(node.value, names):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def _added_to_path(node: ast.AST, names: Collection[str]) -> tuple[list[ast.expr], list[ast.expr]]:
    """Return what a statement or call puts at the front and at the end of `sys.path`. names: that this has in the file."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "insert" and _is_path(node.func.value, names):
            return node.args[1:2], []
        if node.func.attr in {"append", "extend"} and _is_path(node.func.value, names):
            return [], node.args[:1]
        if node.func.attr == "addsitedir":
            return [], node.args[:1]
    if isinstance(node, ast.AugAssign) and _is_path(node.target, names):
        return [], [node.value]
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if _is_path(target.value if isinstance(target, ast.Subscript) else target, names):
                return [node.value], []
    return [], []


def _is_path(node: ast.AST, names: Collection[str]) -> bool:
    if isinstance(node, ast.Name):
        return node.id in names
    if not (isinstance(node, ast.Attribute) and node.attr == "path"):
        return False
    text = ast.unparse(node)
    return text in names or text.endswith("sys.path")


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
            case ast.withitem(optional_vars=ast.Name() as bound):
                value, targets = node.context_expr, (bound,)
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
