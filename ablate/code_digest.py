"""The digest of the code that a run goes through: which Python files these are, and what they do. No code of the user's is imported.

For training of the user's own it covers every module that the training imports, directly or indirectly, from outside the installed
packages and Python's own library: wherever in a file the import stands, in packages and namespace packages, in zip files, in folders
that the training itself puts on `sys.path`, in files that it runs by their paths, and in `importlib.import_module` with a literal name.
Where a name is computed (`import_module(f"models.{name}")`), all modules of the package that it names count; where nothing of it is
known, or a file is run whose path is not, all Python files of the project. The name of the function counts too.

What it does not see: data files, environment variables, programs that are started, code in strings, and installed packages.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import itertools
import json
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from ablate import cache_folder, code_paths
from ablate.code_paths import CodePaths
from ablate.errors import DataError, StudyError

Signature = tuple[tuple[str, int, int], ...]
"""Paths with their times of modification in nanoseconds and their sizes."""


def look_in_working_folder() -> None:
    """Let the user's modules be imported from the working folder, where an installed command does not look by itself.

    It is the last of all places, so that a file that happens to be called `queue.py` breaks nothing.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


# --- files ------------------------------------------------------------------------------------------------------------


def files_digest(files: Iterable[Path]) -> str:
    """Return the digest of what Python files do: of their syntax trees without comments, docstrings and layout.

    Independent of where the files lie and of the Python version that parses them.
    """
    digest = digest_of([[file.name, _parsed(file).digest] for file in files])[:16]
    _parsed_before.keep()
    return digest


def with_imports(folder: Path, *modules: str) -> list[Path]:
    """Return the files of modules in a folder of ablate, and of those in it that they import, wherever the import stands."""
    files: set[Path] = set()
    waiting = [folder / f"{module}.py" for module in modules]
    while waiting:
        file = waiting.pop()
        if file in files or not file.is_file():
            continue
        files.add(file)
        waiting += [
            folder / f"{imported.name.rpartition('.')[2]}.py"
            for imported in _parsed(file).imports
            if imported.name.startswith(f"ablate.{folder.name}.")
        ]
    return sorted(files)


@dataclass(frozen=True)
class Import:
    """An import of a file. level: dots of a relative one. name: of the module, '' in `from . import x`. members: what is
    imported from it, `*` included. whole: all modules of the package, because the name of the module is computed; without a name
    and a level, all of the project.
    """

    name: str
    level: int = 0
    members: tuple[str, ...] = ()
    whole: bool = False


@dataclass(frozen=True)
class Parsed:
    """A file's digest, its imports, the submodules that its `__all__` names, whether it mentions torch, and where it looks for
    code.
    """

    digest: str
    imports: tuple[Import, ...]
    exported: tuple[str, ...]
    mentions_torch: bool
    paths: CodePaths = field(default_factory=CodePaths)


def _parsed(file: Path) -> Parsed:
    about = file.stat()
    return _parsed_file(file, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=8192)
def _parsed_file(file: Path, _changed: int, _size: int) -> Parsed:
    return _parsed_before.parsed(file.read_bytes())


MOST_PARSED = 1000
"""Files of which the user's cache keeps what was parsed."""


class _ParsedBefore:
    """What files hold that an earlier command has parsed, in the user's cache: parsing all of the built-in training takes 0.2 s.

    A file is told by its content, whatever its name and times are; and what is kept counts for one version of Python and of this
    code. A file that looks for code by paths is parsed each time, because its syntax tree is needed.
    """

    def __init__(self) -> None:
        self._new: dict[str, Any] = {}
        self._used: dict[str, Any] = {}

    def parsed(self, content: bytes) -> Parsed:
        digest = hashlib.sha256(content).hexdigest()
        known = _kept(_cache()).get(digest)
        if known is not None:
            with contextlib.suppress(TypeError, ValueError):
                code, imports, exported, mentions_torch = known
                its_imports = tuple(
                    Import(name, level, tuple(of), whole) for name, level, of, whole in imports
                )
                self._used[digest] = known
                return Parsed(str(code), its_imports, tuple(exported), bool(mentions_torch))
        parsed = parse(content)
        if parsed.paths == CodePaths():
            imports = [[each.name, each.level, each.members, each.whole] for each in parsed.imports]
            self._new[digest] = [parsed.digest, imports, parsed.exported, parsed.mentions_torch]
        return parsed

    def keep(self) -> None:
        """Write down what was parsed anew. Of too many files those go first that nobody has asked for."""
        place = _cache()
        if not self._new or place is None:
            return
        self._used = {**self._new, **self._used}
        self._new = {}
        files = dict(itertools.islice({**self._used, **_kept(place)}.items(), MOST_PARSED))
        cache_folder.keep(place, {"by": _parser(), "files": files})


def _cache() -> Path | None:
    try:
        return cache_folder.default_folder() / "parsed-code.json"
    except DataError:
        return None


@functools.cache
def _parser() -> str:
    """Return Python's version and the digest of the code that parses."""
    own = b"".join(Path(file).read_bytes() for file in (__file__, code_paths.__file__))
    return f"{sys.version_info[:2]} {hashlib.sha256(own).hexdigest()}"


@functools.lru_cache(maxsize=1)
def _kept(place: Path | None) -> Mapping[str, Any]:
    """Return what is kept at a place, by the digest of a file's content. It is read once."""
    kept = {} if place is None else cache_folder.kept(place)
    files = kept.get("files")
    return files if kept.get("by") == _parser() and isinstance(files, dict) else {}


_parsed_before = _ParsedBefore()


def parse(content: bytes) -> Parsed:
    """Return what counts of a Python file. Of what is not Python (a template, a compiled module) every byte counts.

    Docstrings count where the code may read them.
    """
    mentions_torch = b"torch" in content
    reads_docstrings = any(word in content for word in (b"__doc__", b"getdoc", b"docopt"))
    try:
        tree = ast.parse(content)
        digest = digest_of(_shape(tree, reads_docstrings))
    except (SyntaxError, ValueError, RecursionError):
        return Parsed(hashlib.sha256(content).hexdigest(), (), (), mentions_torch)
    return Parsed(
        digest,
        tuple(_imports(tree, content)),
        tuple(_exported(tree)),
        mentions_torch,
        code_paths.code_paths(tree, content),
    )


_ANYTHING = Import("", whole=True)
"""An import of a module of which nothing is known."""

_IMPORTING = {
    "import_module": b"import_module",
    "__import__": b"__import__",
    "run_module": b"run_module",
    "resolve_name": b"resolve_name",
    "locate": b"pydoc",
    "find_spec": b"module_from_spec",
}
"""Functions that import a module by its name → what a file has in it that uses them for that."""


def _imports(tree: ast.Module, content: bytes) -> Iterator[Import]:
    importing = {name for name, sign in _IMPORTING.items() if sign in content}
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", node.level, tuple(alias.name for alias in node.names))
            aliases |= {alias.asname for alias in node.names if alias.asname and alias.name in importing}
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in {"iter_modules", "walk_packages"}:
                yield Import("", 1, whole=True)
            elif _is_named(node.func, importing, aliases):
                called.add(node.func)
                yield _called(node)
    if importing:
        for node in ast.walk(tree):
            # Called under another name, by `partial`, by `map`: with whatever name.
            if node not in called and _is_named(node, importing, aliases):
                yield _ANYTHING


def _is_named(node: ast.AST, names: Collection[str], aliases: Collection[str]) -> bool:
    """Return whether an expression has one of some names, as a name, an attribute or a text, or an alias as a name."""
    match node:
        case ast.Name(id=str(name)):
            return name in names or name in aliases
        case ast.Attribute(attr=str(name)) | ast.Constant(value=str(name)):
            return name in names
    return False


def _called(call: ast.Call) -> Import:
    """Return what `importlib.import_module(…)` or a function like it imports."""
    arguments: list[ast.expr | None] = [*call.args, None, None][:2]
    named = {word.arg: word.value for word in call.keywords}
    start, computed = _start_of_text(arguments[0] or named.get("name") or named.get("mod_name"))
    if start is None:
        return _ANYTHING
    name = start.lstrip(".")
    level = len(start) - len(name)
    package = arguments[1] or named.get("package")
    if level and isinstance(package, ast.Constant) and isinstance(package.value, str):
        outer = package.value.split(".")
        name, level = ".".join([*outer[: len(outer) - level + 1], *([name] if name else [])]), 0
    if not computed:
        return Import(name.partition(":")[0], level, tuple(_texts(named.get("fromlist"))))
    return Import(name.rpartition(".")[0], level, whole=True)


def _start_of_text(node: ast.expr | None) -> tuple[str | None, bool]:
    """Return the text that an expression begins with, None where it cannot be told; and whether more follows."""
    match node:
        case ast.Constant(value=str(text)):
            return text, False
        case ast.JoinedStr(values=[first, *_]):
            return _start_of_text(first)[0], True
        case ast.BinOp(op=ast.Add(), left=left):
            return _start_of_text(left)[0], True
        case ast.BinOp(op=ast.Mod(), left=ast.Constant(value=str(text))):
            return text.partition("%")[0], True
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Constant(value=str(text)))):
            return text.partition("{")[0], True
    return None, True


def _texts(node: ast.expr | None) -> Iterator[str]:
    """Yield the texts of a list or tuple."""
    for element in node.elts if isinstance(node, ast.List | ast.Tuple) else ():
        if isinstance(element, ast.Constant) and isinstance(element.value, str):
            yield element.value


def _exported(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                        yield inner.value


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _shape(node: Any, docstrings: bool = False) -> Any:
    """Return a syntax tree as nested lists. Absent and empty fields are left out: newer Pythons add such fields.

    docstrings: whether they count.
    """
    if isinstance(node, ast.AST):
        parts: list[Any] = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            kept = value
            if name == "body" and not docstrings and isinstance(node, _DOCUMENTED):
                kept = value[1:] if ast.get_docstring(node, clean=False) is not None else value
            if kept is None or kept == [] or name in {"kind", "type_comment"}:
                continue
            parts.append([name, _shape(kept, docstrings)])
        return parts
    if isinstance(node, list):
        return [_shape(n, docstrings) for n in node]
    return repr(node)


def digest_of(value: Any) -> str:
    """Return the digest of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


# --- the user's own training ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Code:
    """The code of a training. modules: names of the modules that count. imports_torch: whether any of them mentions it. files: whose
    content counts, without links.
    """

    digest: str
    modules: tuple[str, ...]
    imports_torch: bool
    files: frozenset[str] = frozenset()


def training_code(train: str, key: str = "train") -> Code:
    """Return the code of what a study names as `package.module:function`. key: of the study, that names it.

    Raises StudyError where there is no such module.

    Modules are looked for as at import time: in the working folder, and along `sys.path`. Circular imports do no harm; a module
    that cannot be found is left out.
    """
    look_in_working_folder()
    place = (train, str(Path.cwd()), tuple(sys.path))
    known = _codes.get(place)
    if known is not None and _signature(path for path, _, _ in known[0]) == known[0]:
        return known[1]
    importlib.invalidate_caches()
    search = _Search(train, key)
    code = search.code()
    _parsed_before.keep()
    _codes[place] = (_signature(search.paths()), code)
    return code


def code_elsewhere(
    arguments: Sequence[str], folder: Path, is_code: Callable[[str], bool], path: Sequence[str]
) -> list[list[str]]:
    """Return name and digest of the modules that scripts of a command import from outside its code, and that are not installed.

    arguments: of the command; each that names a Python file, and the module behind `-m`, is such a script. folder: that it runs in.
    is_code: says of a path without links whether the file counts by itself; one that git ignores does not. path: where modules are
    looked for first, as in PYTHONPATH.
    """
    scripts = tuple(
        str(folder / text) for text in arguments if text.endswith(".py") and (folder / text).is_file()
    )
    modules = tuple(name for flag, name in itertools.pairwise(arguments) if flag == "-m")
    if not scripts and not modules:
        return []
    place = (scripts, modules, str(folder), tuple(path), tuple(sys.path))
    known = _elsewhere.get(place)
    if known is None or _signature(path for path, _, _ in known[0]) != known[0]:
        importlib.invalidate_caches()
        search = _Search(":")
        found = search.of_scripts(scripts, modules, [str(folder), *path])
        _parsed_before.keep()
        known = _elsewhere[place] = _signature(search.paths()), found
    return sorted([Path(file).name, digest] for file, digest in known[1].items() if not is_code(file))


_elsewhere: dict[Any, tuple[Signature, Mapping[str, str]]] = {}


def training_folder(train: str) -> Path | None:
    """Return the folder of a training's module; None where there is none, or no file of it."""
    look_in_working_folder()
    spec = _Search(train).spec(train.partition(":")[0])
    if spec is None:
        return None
    origin = getattr(spec.loader, "archive", spec.origin)
    return Path(origin).resolve().parent if origin and spec.has_location else None


_codes: dict[Any, tuple[Signature, Code]] = {}


def _signature(paths: Iterable[str]) -> Signature:
    signature = []
    for path in sorted(set(paths)):
        try:
            about = Path(path).stat()
            signature.append((path, about.st_mtime_ns, about.st_size))
        except OSError:
            signature.append((path, 0, -1))
    return tuple(signature)


class _Search:
    """The modules that a training imports, found without importing any."""

    def __init__(self, train: str, key: str = "train") -> None:
        self._train = train
        module, _, self._function = train.partition(":")
        self._key = key
        self._top = module.partition(".")[0]
        self._train_module = module
        self._specs: dict[str, ModuleSpec | None] = {}
        self._installed = _installed_folders()
        self._modules: dict[str, Parsed] = {}
        self._waiting: list[str] = []
        # What the training puts on `sys.path`, before and behind what is there.
        self._first: list[str] = []
        self._last: list[str] = []
        # Files that are run by their paths.
        self._files: dict[str, Parsed] = {}
        # Folders all of whose files count.
        self._projects: set[Path] = set()

    def code(self) -> Code:
        self.check()
        places = None
        while places != (self._first, self._last):
            # Folders that are put on the path change what every import finds.
            places = (list(self._first), list(self._last))
            self._specs, self._modules, self._files, self._projects = {}, {}, {}, set()
            self._add(self._train_module)
            while self._waiting:
                name = self._waiting.pop()
                for imported in self._modules[name].imports:
                    self._follow(name, imported)
        names = sorted(self._modules)
        parts = [[name, self._modules[name].digest] for name in names]
        imported_files = {os.path.realpath(file) for name in names if (file := self._file_of(name))}
        run = {path: file for path, file in self._files.items() if path not in imported_files}
        parts += sorted([Path(path).name, file.digest] for path, file in run.items())
        return Code(
            # Of several modules the one with the function counts too: the others may have one of the same name.
            digest_of([self._train if len(names) > 1 else self._function, parts])[:16],
            tuple(names),
            any(code.mentions_torch for code in (*self._modules.values(), *run.values())),
            frozenset(imported_files | run.keys()),
        )

    def of_scripts(
        self, scripts: Sequence[str], modules: Sequence[str], path: Sequence[str]
    ) -> dict[str, str]:
        """Return file → digest of scripts that are run, of modules that are run by their names, and of all that these import."""
        self._first = [*(str(Path(script).parent) for script in scripts), *path]
        for script in scripts:
            self._add_file(os.path.realpath(script))
        for module in modules:
            self._add(module)
            self._add(f"{module}.__main__")
        while self._waiting:
            name = self._waiting.pop()
            for imported in self._modules[name].imports:
                self._follow(name, imported)
        digests = {path: parsed.digest for path, parsed in self._files.items()}
        for name, parsed in self._modules.items():
            if (file := self._file_of(name)) is not None:
                digests[os.path.realpath(file)] = parsed.digest
        return digests

    def paths(self) -> Iterator[str]:
        """Yield the files and folders by which the answer stands: folders change where a module is added or removed."""
        yield from (entry or str(Path.cwd()) for entry in sys.path)
        yield from (*self._first, *self._last, *self._files, *map(str, self._projects))
        for name, spec in self._specs.items():
            if spec is not None and self._counts(name, spec):
                yield from _locations(spec)
                if spec.origin is not None:
                    yield getattr(spec.loader, "archive", spec.origin)

    def check(self) -> None:
        """Raise StudyError unless the training's module can be found."""
        top = None if self._top == "__main__" else self.spec(self._top)
        own = _own_code(self._top)
        if top is not None and _is_of_python(top):
            raise StudyError(
                f"{self._top!r} is a part of Python itself, not code of your own",
                place=self._key,
                hint=f"give your {own} another name: Python's own is found first" if own else None,
            )
        if top is not None and own and _is_installed(top):
            raise StudyError(
                f"{self._top!r} is an installed package, not your {own}",
                place=self._key,
                hint="give yours another name: the installed one is found first",
            )
        for name in (self._top, self._train_module):
            if top is None or self.spec(name) is None:
                raise StudyError(
                    f"there is no module {name!r} to import",
                    place=self._key,
                    hint="install it, or run from the folder that holds it",
                )

    def _follow(self, module: str, imported: Import) -> None:
        """Add what a module imports."""
        name = imported.name
        if imported.level:
            package = module if self._is_package(module) else module.rpartition(".")[0]
            parents = package.split(".") if package else []
            if imported.level > 1:
                parents = parents[: 1 - imported.level]
            name = ".".join([*parents, *([name] if name else [])])
        if imported.whole:
            if name:
                for each in self._all_modules(name):
                    self._add(each)
            else:
                self._add_project(module)
            return
        if not name:
            return
        self._add(name)
        for member in imported.members:
            if member == "*":
                exported = self._modules[name].exported if name in self._modules else ()
                for submodule in exported:
                    self._add(f"{name}.{submodule}")
            else:
                self._add(f"{name}.{member}")

    def _add(self, name: str) -> None:
        """Add a module and the packages that it is in, where they count and can be found."""
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            each = ".".join(parts[:depth])
            spec = self.spec(each)
            if spec is None or not self._counts(each, spec):
                return
            if each not in self._modules:
                parsed = _parsed_spec(spec)
                if parsed is not None:
                    self._modules[each] = parsed
                    self._waiting.append(each)
                    if (file := self._file_of(each)) is not None:
                        self._look_where(parsed, file)

    def _file_of(self, name: str) -> str | None:
        """Return the file of a module; None where it has none of its own."""
        spec = self.spec(name)
        if spec is None or not spec.has_location or hasattr(spec.loader, "archive"):
            return None
        return spec.origin

    def _look_where(self, parsed: Parsed, file: str) -> None:
        """Take in the folders that a file puts on `sys.path`, and the files that it runs by their paths."""
        first, last = parsed.paths.folders(file)
        on_path = {os.path.realpath(entry) for entry in sys.path}
        for folders, known in ((first, self._first), (last, self._last)):
            # Compared by where they lead: one that is named by a link would be added for ever.
            seen = on_path | {os.path.realpath(folder) for folder in known}
            known += [folder for folder in folders if os.path.realpath(folder) not in seen]
        files, others = parsed.paths.files(file)
        for path in files:
            self._add_file(path)
        if others:
            self._add_project(file)

    def _add_file(self, path: str) -> None:
        """Add a file that is run by its path."""
        if path in self._files or _is_under(path, self._installed):
            return
        with contextlib.suppress(OSError):
            self._files[path] = _parsed(Path(path))
            for imported in self._files[path].imports:
                if not imported.level:
                    self._follow(path, imported)
            self._look_where(self._files[path], path)

    def _add_project(self, asking: str) -> None:
        """Add all Python files of the project: of the folders in which the training lies, and the code that asks for any of them.

        asking: the module, or the path of the file.
        """
        for each in filter(None, (self._train_module, asking)):
            root = _root(self._file_of(each) or each, each)
            if root is None or root in self._projects:
                continue
            self._projects.add(root)
            for file in _python_files(root):
                parts = file.relative_to(root).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                itself = str(file)
                if all(part.isidentifier() for part in parts):
                    self._add(name)
                if not name or name not in self._modules or self._file_of(name) != itself:
                    self._add_file(itself)

    def spec(self, name: str) -> ModuleSpec | None:
        """Return where a module is; None where it cannot be found. Its parents are not imported."""
        if name not in self._specs:
            parent = name.rpartition(".")[0]
            path: list[str] | None = None
            if parent:
                outer = self.spec(parent)
                path = _locations(outer) if outer is not None and self._counts(parent, outer) else []
            self._specs[name] = None if path == [] else _find(name, path, (self._first, self._last))
        return self._specs[name]

    def _counts(self, name: str, spec: ModuleSpec) -> bool:
        """Return whether a module belongs to the user: it is neither installed nor a part of Python or of ablate."""
        if name.partition(".")[0] == self._top:
            return True
        places = _locations(spec) or ([spec.origin] if spec.has_location and spec.origin else [])
        return bool(places) and not all(_is_under(place, self._installed) for place in places)

    def _is_package(self, name: str) -> bool:
        spec = self.spec(name)
        return spec is not None and bool(_locations(spec))

    def _all_modules(self, package: str) -> Iterator[str]:
        """Yield the modules of a package, those of its packages included."""
        spec = self.spec(package) if package else None
        if spec is None or not self._counts(package, spec):
            return
        for location in _locations(spec):
            for file in sorted(Path(location).rglob("*.py")):
                parts = file.relative_to(location).with_suffix("").parts
                yield ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])


MOST_FILES = 5000
"""Python files of a project that are looked at where any of them may be run."""

MOST_ENTRIES = 200_000
"""Files and folders that are gone through for them: data may lie there too."""

_NO_CODE_OF_TRAINING = {
    "tests",
    "test",
    "docs",
    "build",
    "dist",
    "mlruns",
    "setup",
    "conftest",
    "node_modules",
}


def _root(file: str, module: str) -> Path | None:
    """Return the folder that the outermost package of a module lies in, or a file without one; None where there is none."""
    path = Path(os.path.realpath(file))
    if not path.is_file():
        return None
    if path.suffix == ".py" and module.endswith(".py"):
        return path.parent
    up = module.count(".") + (path.stem == "__init__")
    return path.parents[min(up, len(path.parents) - 1)]


def _python_files(root: Path) -> Iterator[Path]:
    """Yield the Python files beneath a folder, without those of environments, tests and hidden folders."""
    left, entries = MOST_FILES, MOST_ENTRIES
    for place, folders, files in os.walk(root):
        entries -= len(folders) + len(files)
        if entries < 0:
            return
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith((".", "__"))
            and name not in _NO_CODE_OF_TRAINING
            and name not in {"site-packages", "dist-packages"}
            and not Path(place, name, "pyvenv.cfg").exists()
        )
        for name in sorted(files):
            is_code = name.endswith(".py") and not name.startswith((".", "test_"))
            if is_code and name.removesuffix(".py") not in _NO_CODE_OF_TRAINING:
                left -= 1
                if left < 0:
                    return
                yield Path(place, name)


def _find(
    name: str, path: Sequence[str] | None, added: tuple[Sequence[str], Sequence[str]] = ((), ())
) -> ModuleSpec | None:
    """Return a module's spec. path: of the package that it is in, which is not imported; None: `sys.path`, with `added` before
    and behind it.
    """
    if path is None and any(added):
        spec = PathFinder.find_spec(name, [*added[0], *sys.path, *added[1]])
        if spec is not None:
            return spec
    if path is not None:
        # By the last part of the name: by the whole of it, a namespace package would ask for its parent.
        spec = PathFinder.find_spec(name.rpartition(".")[2], path)
        if spec is not None:
            return spec
    for finder in sys.meta_path:
        with contextlib.suppress(Exception):  # finders of other packages may raise anything
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec
    return None


def _locations(spec: ModuleSpec) -> list[str]:
    """Return the folders of a package; an empty list for a module."""
    # A namespace package's own list would ask for its parent, which has not been imported.
    places = spec.submodule_search_locations
    return list(getattr(places, "_path", places) or [])


def _parsed_spec(spec: ModuleSpec) -> Parsed | None:
    """Return what counts of a module; None for a namespace package, which has no file."""
    if spec.origin is None or not spec.has_location:
        return None
    archive = getattr(spec.loader, "archive", None)
    try:
        if archive is None:
            return _parsed(Path(spec.origin))
        about = Path(archive).stat()
        return _parsed_in_archive(spec.origin, spec.loader, about.st_mtime_ns, about.st_size)
    except (OSError, ImportError):
        return None


@functools.lru_cache(maxsize=1024)
def _parsed_in_archive(origin: str, loader: Any, _changed: int, _size: int) -> Parsed:
    return parse(loader.get_data(origin))


# Every bundle of a user's network asks it of every module that is loaded, some thousands: links are followed once.
@functools.lru_cache(maxsize=1 << 15)
def is_users(file: str) -> bool:
    """Return whether a file is the user's: neither installed nor a part of Python or of ablate."""
    return not file.startswith("<") and not _is_under(file, _installed_folders())


@functools.cache
def _installed_folders() -> tuple[str, ...]:
    """Return the folders of Python's library, of installed packages, and of ablate."""
    folders = {sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages(), str(Path(__file__).parent)}
    return tuple(sorted({os.path.realpath(folder) for folder in folders}))


def _own_code(module: str) -> str | None:
    """Return the file or folder of the working folder that a module may be meant to be; None where there is none."""
    if Path(f"{module}.py").exists():
        return f"{module}.py"
    return module if any(Path(module).glob("*.py")) else None


def _is_installed(spec: ModuleSpec) -> bool:
    """Return whether a module lies among the installed packages, and nowhere else."""
    places = _locations(spec) or ([spec.origin] if spec.has_location and spec.origin else [])
    return bool(places) and not any(is_users(place) for place in places)


def _is_of_python(spec: ModuleSpec) -> bool:
    """Return whether a module is built in, or of Python's own library."""
    places = _locations(spec) or ([spec.origin] if spec.has_location and spec.origin else [])
    library = {os.path.realpath(sysconfig.get_paths()[name]) for name in ("stdlib", "platstdlib")}
    return not places or any(
        os.path.realpath(place).startswith(f"{folder}{os.sep}")
        and not {"site-packages", "dist-packages"} & set(Path(os.path.realpath(place)).parts)
        for place in places
        for folder in library
    )


def _is_under(place: str, folders: Sequence[str]) -> bool:
    path = os.path.realpath(place)
    if {"site-packages", "dist-packages"} & set(Path(path).parts):
        return True
    return any(path == folder or path.startswith(folder + os.sep) for folder in folders)
