"""What a run of the user's leaves behind in its process, where the next run would find it.

    state = ProcessState(modules)     # once the user's code is imported
    …                                 # a run
    left = state.left_behind()        # undoes what can be undone; the names of the rest

Two ways keep runs apart. What is set before every run cannot leak: the generators of random numbers, the number of threads, the working
folder, the environment. What a run may change besides is compared with what it was: settings of Python, NumPy, torch and other packages,
which are set back, and everything that the globals of the user's modules lead to, which is not: where that has changed, the process is
spent, and the next run begins in a fresh one.

What is not seen: the inside of compiled objects, files, and what other packages keep for themselves beyond `process_settings.SETTINGS`.
"""

from __future__ import annotations

import abc
import contextlib
import multiprocessing
import os
import random
import re
import sys
import threading
import types
from collections.abc import Callable, Collection
from pathlib import Path

from ablate.training import process_settings
from ablate.training.module_globals import ModuleGlobals
from ablate.training.other_packages import (
    PackageFunctions,
    PackageNames,
    is_code,
    is_constant,
    names_in_functions,
)


def seed_everything(seed: int) -> None:
    """Seed the global generators of `random`, NumPy and torch, where they are loaded: a run depends on none that was before it."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


class ProcessState:
    """The state of this process at the moment it is made. modules: names of the modules whose globals count, the user's."""

    def __init__(self, modules: Collection[str]) -> None:
        self._loaded = dict(sys.modules)
        self._modules = [name for name in sorted(modules) if name in sys.modules]
        self._globals = {name: ModuleGlobals(sys.modules[name]) for name in self._modules}
        self._named, self._set = names_in_functions([sys.modules[name] for name in self._modules])
        self._functions = PackageFunctions(self._modules, self._named)
        self._names = PackageNames(self._modules)
        self._registrations = abc.get_cache_token()
        self._registered = _registered()
        self.begin()

    def begin(self) -> None:
        """Take what is there when a run begins: outside worker processes ablate itself has settings and threads too."""
        self._settings = process_settings.read_settings()
        self._threads = set(threading.enumerate())
        self._children = _children()
        self._files = _open_files()

    def left_behind(self, is_users: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Undo what a run has changed, as far as that is possible, and return the names of the rest, sorted.

        is_users: says of the name of a module whether it belongs to the user; such modules that were loaded meanwhile count, since what
        they were at first is not known.
        """
        new_modules = set(sys.modules) - self._loaded.keys()
        replaced = [name for name, module in self._loaded.items() if sys.modules.get(name) is not module]
        names = {f"the module {name}" for name in new_modules if is_users(name)}
        # What these would have drawn before they were loaded was not seeded.
        names |= {f"the module {name}" for name in ("numpy", "torch") if name in new_modules}
        names |= {f"the module {name}" for name in replaced}
        self._loaded = dict(sys.modules)
        process_settings.add_at_import(self._settings, new_modules)
        names |= process_settings.restore(self._settings)
        for name in self._modules:
            names |= {f"{name}.{inner}" for inner in self._globals[name].changed()}
        names |= self._set_in({name for name in new_modules if not is_users(name)})
        names |= self._functions.replaced() | self._names.added() | self._new_registrations(new_modules)
        files = _open_files()
        names |= {
            f"the open file {place}" for number, place in files.items() if self._files.get(number) != place
        }
        names |= {
            f"the thread {thread.name}"
            for thread in threading.enumerate()
            # A progress bar's thread redraws the bar and does nothing else.
            if thread not in self._threads and thread.is_alive() and type(thread).__name__ != "TMonitor"
        }
        if _children() - self._children:
            names.add("a child process")
        return sorted(names)

    def _set_in(self, new_modules: Collection[str]) -> set[str]:
        """Return what functions of the user's may have set in modules that a run has loaded, of which nobody knows what was there before."""
        return {
            f"{name}.{key}"
            for name in new_modules
            if self._is_named(name) and isinstance(sys.modules.get(name), types.ModuleType)
            for key, value in list(vars(sys.modules[name]).items())
            if key in self._set and (is_code(value) or is_constant(key, value))
        }

    def _is_named(self, module: str) -> bool:
        """Return whether a function of the user's names a module: `import a.b`, or `from a import b`."""
        package, _, name = module.rpartition(".")
        return module in self._named or (package in self._named and name in self._named)

    def _new_registrations(self, new_modules: Collection[str]) -> set[str]:
        """Return the classes that abstract classes have taken in since, but for those of modules that were loaded meanwhile."""
        if abc.get_cache_token() == self._registrations:
            return set()
        self._registrations = abc.get_cache_token()
        new = _registered() - self._registered
        self._registered |= new
        return {
            f"{kind}: {member}"
            for kind, member in new
            if not {kind.rpartition(".")[0], member.rpartition(".")[0]} & set(new_modules)
        }


def worker_state(modules: Collection[str]) -> ProcessState | None:
    """Return the state of this process where it is a worker; None elsewhere. modules: as `ProcessState` takes them.

    A process that is no worker has threads of its own, which set and import things meanwhile, and would be set back with them.
    """
    return None if multiprocessing.parent_process() is None else ProcessState(modules)


def _children() -> set[int]:
    """Return the processes that this one has started and that still run; without /proc only those of `multiprocessing`."""
    children = {child.pid for child in multiprocessing.active_children() if child.pid is not None}
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            children |= {int(pid) for pid in task.read_text().split() if _is_running(pid)}
    return children


def _is_running(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


_NO_FILE = re.compile(r"/dev/(?!shm/[^/]*/)|/proc/|/sys/|anon_inode:")
"""Devices and the like, and memory that processes share. People make folders beside that, for files that are to be read fast."""


def _open_files() -> dict[int, str]:
    """Return the open files, pipes and sockets of this process, as far as /proc tells."""
    files = {}
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError, ValueError):  # it is the one by which this folder is read
            place = os.readlink(entry)  # noqa: PTH115 — `pipe:[1]` is no path
            if not _NO_FILE.match(place):
                files[int(entry.name)] = place
    return files


def _registered() -> set[tuple[str, str]]:
    """Return each abstract class of anybody's with the classes that it takes for its own, of loaded modules."""
    found = set()
    waiting: list[type] = [object]
    seen: set[type] = set()
    while waiting:
        kinds: list[type] = type.__subclasses__(waiting.pop())
        for kind in kinds:
            if kind in seen:
                continue
            seen.add(kind)
            waiting.append(kind)
            if isinstance(kind, abc.ABCMeta) and "_abc_impl" in vars(kind):
                for reference in abc._get_dump(kind)[0]:  # type: ignore[attr-defined]  # noqa: SLF001 — there is no other door
                    member = reference()
                    if member is not None:
                        at, what = (f"{each.__module__}.{each.__qualname__}" for each in (kind, member))
                        found.add((at, what))
    return found
