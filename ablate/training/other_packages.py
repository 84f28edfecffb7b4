"""What a run of the user's may change in other packages: functions and constants that it replaces, and names that it adds."""

from __future__ import annotations

import dis
import inspect
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

ALWAYS = (
    "math",
    "os",
    "random",
    "time",
    "numpy",
    "numpy.random",
    "torch",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.optim",
    "torch.utils.data",
)
"""Modules whose functions are looked at, whether or not the user's modules name them: they may be imported within a function."""

_CONSTANTS = (bool, int, float, str)


class PackageFunctions:
    """The functions, classes, methods and constants of the packages that the user's modules name, and of `ALWAYS`.

    A run may put its own in their place, as in `torch.nn.functional.relu = mine`. Two levels of each package are looked at, and the
    modules of the classes and functions that the user's modules have imported. within: names in the user's functions, which may
    import modules too.
    """

    def __init__(self, modules: Sequence[str], within: Collection[str] = ()) -> None:
        named = _modules_in([sys.modules[name] for name in modules], lambda name: name not in modules)
        homes = {
            value.__module__
            for module in modules
            for value in list(vars(sys.modules[module]).values())
            if isinstance(value, type | types.FunctionType) and isinstance(value.__module__, str)
        }
        for name in (*ALWAYS, *homes.difference(modules), *set(within).difference(modules)):
            if isinstance(sys.modules.get(name), types.ModuleType):
                named.setdefault(name, sys.modules[name])
        inner = _modules_in(named.values(), lambda name: name.rpartition(".")[0] in named)
        self._owners: list[tuple[str, Any, dict[str, Any]]] = []
        for name, module in (named | inner).items():
            contents = list(vars(module).items())
            values = {key: value for key, value in contents if is_code(value) or is_constant(key, value)}
            self._owners.append((name, module, values))
            for key, value in values.items():
                if isinstance(value, type) and str(value.__module__).startswith(name):
                    methods = {
                        m: v
                        for m, v in list(vars(value).items())
                        if type(v) is types.FunctionType or is_constant(m, v)
                    }
                    self._owners.append((f"{name}.{key}", value, methods))

    def replaced(self) -> set[str]:
        """Return the places of those that are not what they were."""
        places = set()
        for place, owner, values in self._owners:
            now = vars(owner)
            places |= {
                f"{place}.{key}"
                for key, value in values.items()
                if now.get(key) is not value
                and not (is_constant(key, value) and now.get(key) == value)
                and not _is_set_up(value, now.get(key))
            }
        return places


class PackageNames:
    """The names in all modules that are loaded, but for the user's, whose globals are looked at, and in the classes of `ALWAYS`.

    A run may add to them: `numpy.MODE = 1`.
    """

    def __init__(self, modules: Collection[str]) -> None:
        owners: dict[str, Any] = {
            name: module
            for name, module in list(sys.modules.items())
            if type(module) is types.ModuleType
            and name not in modules
            and name not in ("__main__", "__mp_main__")
        }
        for name in ALWAYS:
            for key, value in list(vars(owners.get(name, types)).items()):
                if isinstance(value, type) and name in owners:
                    owners.setdefault(f"{name}.{key}", value)
        self._owners = [(place, owner, set(vars(owner))) for place, owner in owners.items()]

    def added(self) -> set[str]:
        """Return the places of names that are new. What a package sets within itself, once it is used, does not count."""
        places = set()
        for place, owner, names in self._owners:
            now = vars(owner)
            if len(now) != len(names):
                new = {name for name in now.keys() - names if not name.startswith("_")}
                places |= {f"{place}.{name}" for name in new if not _is_from(place, now.get(name))}
        return places


def names_in_functions(modules: Iterable[types.ModuleType]) -> tuple[set[str], set[str]]:
    """Return the names that functions of modules use, those of modules that they import among them, and the attributes that they set.

    Not those that they set in their arguments: `self.data = data` changes an object of theirs.
    """
    waiting: list[types.CodeType] = []
    for module in modules:
        for value in list(vars(module).values()):
            inner = list(vars(value).values()) if isinstance(value, type) else [value]
            for each in inner:
                function = inspect.unwrap(getattr(each, "__func__", each)) if callable(each) else each
                if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                    waiting.append(function.__code__)
    names: set[str] = set()
    attributes: set[str] = set()
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        names.update(code.co_names)
        attributes.update(_attributes_set(code))
    return names, attributes


def _attributes_set(code: types.CodeType) -> Iterator[str]:
    """Yield the attributes that code sets in what is none of its arguments."""
    before, extended, content = ("", 0), 0, code.co_code
    for at in range(0, len(content), 2):
        name, value = dis.opname[content[at]], content[at + 1] | extended
        extended = value << 8 if name == "EXTENDED_ARG" else 0
        if name == "STORE_ATTR":
            local = before[1] & 15 if before[0].count("LOAD_FAST") > 1 else before[1]
            if not (before[0].startswith("LOAD_FAST") and local < code.co_argcount):
                yield code.co_names[value]
        if name not in ("EXTENDED_ARG", "CACHE"):
            before = name, value


def _is_from(place: str, value: Any) -> bool:
    """Return whether a value belongs to the package of a place: a module, or code of the same package."""
    module = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    is_module = isinstance(value, types.ModuleType)
    return is_module or (isinstance(module, str) and module.partition(".")[0] == place.partition(".")[0])


def _is_set_up(before: Any, now: Any) -> bool:
    """Return whether a package has put a function of its own in the place of another of that name, as torch does once parts of it are
    loaded that wait for their first use. A run that replaces a function has one of its own, or of another name.
    """
    names = [(getattr(each, "__name__", None), getattr(each, "__module__", None)) for each in (before, now)]
    packages = {str(module).partition(".")[0] for _, module in names}
    return now is not None and names[0][0] is not None and names[0][0] == names[1][0] and len(packages) == 1


def is_code(value: Any) -> bool:
    """Return whether a value is a function, a class or another object that can be called."""
    return callable(value) and not isinstance(value, types.ModuleType)


def is_constant(name: str, value: Any) -> bool:
    """Return whether a value is a plain one under a public name."""
    return type(value) in _CONSTANTS and not name.startswith("_")


def _modules_in(
    modules: Iterable[types.ModuleType], wanted: Callable[[str], bool]
) -> dict[str, types.ModuleType]:
    """Return the modules among the globals of modules whose names are wanted."""
    return {
        value.__name__: value
        for module in modules
        for value in list(vars(module).values())
        if type(value) is types.ModuleType and wanted(value.__name__)
    }
