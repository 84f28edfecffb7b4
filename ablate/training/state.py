"""What a run of the user's leaves behind in its process, where the next run would find it.

    state = ProcessState(modules)     # once the user's code is imported
    …                                 # a run
    left = state.left_behind()        # undoes what can be undone; the names of the rest

Two ways keep runs apart. What is set before every run cannot leak: the generators of random numbers, the number of threads, the working
folder, the environment. What a run may change besides is compared with what it was: settings of Python, NumPy, torch and other packages,
which are set back, and everything that the globals of the user's modules lead to, which is not: where that has changed, the process is
spent, and the next run begins in a fresh one.

What is not seen: the inside of compiled objects, files, and what other packages keep for themselves beyond `SETTINGS`.
"""

from __future__ import annotations

import builtins
import contextlib
import decimal
import enum
import functools
import gc
import hashlib
import itertools
import locale
import logging
import multiprocessing
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import types
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

MOST_OBJECTS = 200_000
"""Objects of a module that are looked at; where there are more, the module counts as changed."""

WHOLE = 64 << 20
"""Bytes of an array that are compared whole; of a larger one, evenly spread pieces are."""

PIECES = 1024
PIECE = 4096
"""How many pieces of a large array are compared, and the bytes of each."""


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
        self._globals = {name: _Globals(sys.modules[name]) for name in self._modules}
        self._functions = _Functions(self._modules)
        self.begin()

    def begin(self) -> None:
        """Take what is there when a run begins: outside worker processes ablate itself has settings and threads too."""
        self._settings = _read_settings()
        self._threads = set(threading.enumerate())
        self._children = {child.pid for child in multiprocessing.active_children()}

    def left_behind(self, is_users: Callable[[str], bool] = lambda _: False) -> list[str]:
        """Undo what a run has changed, as far as that is possible, and return the names of the rest, sorted.

        is_users: says of the name of a module whether it belongs to the user; such modules that were loaded meanwhile count, since what
        they were at first is not known.
        """
        new_modules = sys.modules.keys() - self._loaded.keys()
        replaced = [name for name, module in self._loaded.items() if sys.modules.get(name) is not module]
        names = {f"the module {name}" for name in new_modules if is_users(name)}
        # What these would have drawn before they were loaded was not seeded.
        names |= {f"the module {name}" for name in ("numpy", "torch") if name in new_modules}
        names |= {f"the module {name}" for name in replaced}
        self._loaded = dict(sys.modules)
        names |= self._restore()
        for name in self._modules:
            names |= {f"{name}.{inner}" for inner in self._globals[name].changed()}
        names |= self._functions.replaced()
        names |= {
            f"the thread {thread.name}"
            for thread in threading.enumerate()
            # A progress bar's thread redraws the bar and does nothing else.
            if thread not in self._threads and thread.is_alive() and type(thread).__name__ != "TMonitor"
        }
        if any(child.pid not in self._children for child in multiprocessing.active_children()):
            names.add("a child process")
        return sorted(names)

    def _restore(self) -> set[str]:
        """Set the settings back that differ from what they were, and return the names of those that cannot be."""
        now = _read_settings()
        different = [
            name for name, value in self._settings.items() if name in now and not _is_same(value, now[name])
        ]
        for name in different:
            setting = _BY_NAME[name]
            if setting.write is not None:
                with contextlib.suppress(Exception):
                    setting.write(self._settings[name])
        again = _read_settings() if different else now
        return {name for name in different if not _is_same(self._settings[name], again.get(name))}


# --- settings of the process and of packages --------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Something global that a run may change. package: it belongs to; it is read only where that is loaded.

    write: sets it back to what `read` returned; None: it cannot be set back.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any] | None = None
    package: str = "sys"


def _is_same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 — comparing runs the code of whatever the values are
        return False


def _read_settings() -> dict[str, Any]:
    values = {}
    for setting in SETTINGS:
        if setting.package in sys.modules:
            with contextlib.suppress(Exception):  # of a version without it
                values[setting.name] = setting.read()
    return values


def _module(name: str) -> Any:
    return sys.modules[name]


def _through(package: str, place: str) -> Callable[..., Any]:
    """Return a function that calls one of a package, which is looked for when it is called."""

    def call(*values: Any) -> Any:
        return _object(f"{package}.{place}")(*values)

    return call


def _attribute(place: str) -> Setting:
    """Return the setting that is an attribute of a module, or of an object in it: `torch.backends.cudnn.benchmark`."""
    owner, _, name = place.rpartition(".")

    def read() -> Any:
        return getattr(_object(owner), name)

    return Setting(place, read, lambda value: setattr(_object(owner), name, value), place.partition(".")[0])


def _object(place: str) -> Any:
    package, *names = place.split(".")
    return functools.reduce(getattr, names, _module(package))


def _write_signals(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _write_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with contextlib.suppress(AttributeError):
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 — what `catch_warnings` does


def _read_logging() -> tuple[Any, ...]:
    root = logging.getLogger()
    return root.level, list(root.handlers), root.manager.disable, logging.raiseExceptions


def _write_logging(values: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    root.level, root.handlers[:], root.manager.disable, logging.raiseExceptions = values
    root.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 — levels are remembered


def _write_context(context: tuple[Any, ...]) -> None:
    now = decimal.getcontext()
    now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, traps = context
    now.traps.update(traps)


def _read_context() -> tuple[Any, ...]:
    now = decimal.getcontext()
    return now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, dict(now.traps)


def _flushes_denormal() -> bool:
    torch = _module("torch")
    return bool((torch.full((1,), 1e-310, dtype=torch.float64) * 0.5).item() == 0)


def _read_mlflow() -> tuple[Any, ...]:
    fluent = sys.modules.get("mlflow.tracking.fluent")
    service = sys.modules.get("mlflow.tracking._tracking_service.utils")
    active = _module("mlflow").active_run()
    return (
        getattr(fluent, "_active_experiment_id", None),
        getattr(service, "_tracking_uri", None),
        active and active.info.run_id,
    )


def _torch_hooks() -> list[int]:
    module = _module("torch.nn.modules.module")
    return [
        key
        for name, hooks in vars(module).items()
        if name.startswith("_global_") and isinstance(hooks, dict)
        for key in hooks
    ]


SETTINGS: tuple[Setting, ...] = (
    Setting("sys.path", lambda: list(sys.path), lambda value: sys.path.__setitem__(slice(None), value)),
    Setting("sys.argv", lambda: list(sys.argv), lambda value: sys.argv.__setitem__(slice(None), value)),
    _attribute("sys.excepthook"),
    _attribute("sys.dont_write_bytecode"),
    Setting("sys.getrecursionlimit", sys.getrecursionlimit, sys.setrecursionlimit),
    Setting("sys.getswitchinterval", sys.getswitchinterval, sys.setswitchinterval),
    Setting("sys.gettrace", sys.gettrace, sys.settrace),
    Setting("sys.getprofile", sys.getprofile, sys.setprofile),
    Setting("warnings.filters", lambda: list(warnings.filters), _write_filters),
    _attribute("warnings.showwarning"),
    Setting(
        "signal handlers", lambda: {n: signal.getsignal(n) for n in signal.valid_signals()}, _write_signals
    ),
    Setting(
        "a pending alarm",
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda _: signal.setitimer(signal.ITIMER_REAL, 0),
    ),
    Setting("the root logger", _read_logging, _write_logging),
    Setting("socket.getdefaulttimeout", socket.getdefaulttimeout, socket.setdefaulttimeout, package="socket"),
    Setting("gc.isenabled", gc.isenabled, lambda value: gc.enable() if value else gc.disable()),
    Setting("gc.get_threshold", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    Setting("decimal.getcontext", _read_context, _write_context),
    Setting(
        "the locale", lambda: locale.setlocale(locale.LC_ALL), lambda v: locale.setlocale(locale.LC_ALL, v)
    ),
    Setting("the umask", _umask, os.umask),
    Setting("tempfile.tempdir", lambda: tempfile.tempdir, lambda v: setattr(tempfile, "tempdir", v)),
    Setting(
        "the CPUs of the process",
        lambda: os.sched_getaffinity(0),
        lambda value: os.sched_setaffinity(0, value),
    ),
    Setting("the priority of the process", lambda: os.getpriority(os.PRIO_PROCESS, 0)),
    Setting(
        "multiprocessing.get_start_method",
        lambda: multiprocessing.get_start_method(allow_none=True),
        lambda value: multiprocessing.set_start_method(value, force=True),
    ),
    Setting("builtins", lambda: {n: id(v) for n, v in vars(builtins).items() if n != "_"}),
    Setting("numpy.geterr", _through("numpy", "geterr"), lambda v: _module("numpy").seterr(**v), "numpy"),
    Setting(
        "numpy.get_printoptions",
        _through("numpy", "get_printoptions"),
        lambda v: _module("numpy").set_printoptions(**v),
        "numpy",
    ),
    Setting(
        "torch.get_default_dtype",
        _through("torch", "get_default_dtype"),
        _through("torch", "set_default_dtype"),
        "torch",
    ),
    Setting(
        "torch.get_default_device",
        lambda: str(_module("torch").get_default_device()),
        # Not by its name: that would leave a mode behind which every later call goes through.
        lambda v: _module("torch").set_default_device(None if v == "cpu" else v),
        "torch",
    ),
    Setting(
        "torch.is_grad_enabled",
        _through("torch", "is_grad_enabled"),
        _through("torch", "set_grad_enabled"),
        "torch",
    ),
    Setting(
        "torch.is_anomaly_enabled",
        _through("torch", "is_anomaly_enabled"),
        _through("torch", "autograd.set_detect_anomaly"),
        "torch",
    ),
    Setting(
        "torch.are_deterministic_algorithms_enabled",
        lambda: (
            _module("torch").are_deterministic_algorithms_enabled(),
            _module("torch").is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda v: _module("torch").use_deterministic_algorithms(v[0], warn_only=v[1]),
        "torch",
    ),
    Setting(
        "torch.get_float32_matmul_precision",
        _through("torch", "get_float32_matmul_precision"),
        _through("torch", "set_float32_matmul_precision"),
        "torch",
    ),
    Setting(
        "torch.is_autocast_enabled",
        lambda: [_module("torch").is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
        lambda v: [
            _module("torch").set_autocast_enabled(kind, on)
            for kind, on in zip(("cpu", "cuda"), v, strict=True)
        ],
        "torch",
    ),
    Setting(
        "torch.set_flush_denormal",
        _flushes_denormal,
        _through("torch", "set_flush_denormal"),
        "torch",
    ),
    Setting(
        "torch.multiprocessing.get_sharing_strategy",
        _through("torch", "multiprocessing.get_sharing_strategy"),
        _through("torch", "multiprocessing.set_sharing_strategy"),
        "torch",
    ),
    _attribute("torch.backends.cudnn.enabled"),
    _attribute("torch.backends.cudnn.benchmark"),
    _attribute("torch.backends.cudnn.deterministic"),
    _attribute("torch.backends.cudnn.allow_tf32"),
    _attribute("torch.backends.cuda.matmul.allow_tf32"),
    _attribute("torch.backends.mkldnn.enabled"),
    _attribute("torch.utils.deterministic.fill_uninitialized_memory"),
    Setting("hooks of every torch module", _torch_hooks, package="torch.nn.modules.module"),
    Setting(
        "torch.distributed",
        lambda: _module("torch.distributed").is_available() and _module("torch.distributed").is_initialized(),
        package="torch.distributed",
    ),
    Setting(
        "matplotlib.rcParams",
        lambda: dict(_module("matplotlib").rcParams),
        _through("matplotlib", "rcParams.update"),
        "matplotlib",
    ),
    Setting(
        "sklearn.get_config",
        _through("sklearn", "get_config"),
        lambda v: _module("sklearn").set_config(**v),
        "sklearn",
    ),
    Setting("mlflow", _read_mlflow, package="mlflow"),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


# --- functions of other packages --------------------------------------------------------------------------------------

_CODE = (types.FunctionType, types.BuiltinFunctionType, type)


class _Functions:
    """The functions, classes and methods of the packages that the user's modules name.

    A run may put its own in their place, as in `torch.nn.functional.relu = mine`. Two levels of each package are looked at.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        named = _modules_in([sys.modules[name] for name in modules], lambda name: name not in modules)
        inner = _modules_in(named.values(), lambda name: name.rpartition(".")[0] in named)
        self._owners: list[tuple[str, Any, dict[str, Any]]] = []
        for name, module in (named | inner).items():
            values = {key: value for key, value in list(vars(module).items()) if type(value) in _CODE}
            self._owners.append((name, module, values))
            for key, value in values.items():
                if type(value) is type and value.__module__.startswith(name):
                    methods = {m: v for m, v in list(vars(value).items()) if type(v) is types.FunctionType}
                    self._owners.append((f"{name}.{key}", value, methods))

    def replaced(self) -> set[str]:
        """Return the places of those that are not what they were."""
        places = set()
        for place, owner, values in self._owners:
            now = vars(owner)
            places |= {f"{place}.{key}" for key, value in values.items() if now.get(key) is not value}
        return places


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


# --- the globals of a module ------------------------------------------------------------------------------------------

_OF_MODULES = frozenset(
    ("__builtins__", "__cached__", "__spec__", "__loader__", "__warningregistry__", "__annotations__")
)
_OF_CLASSES = frozenset(
    (
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__abstractmethods__",
        "_abc_impl",
        "__annotations__",
    )
)
_OF_FUNCTIONS = frozenset(("__wrapped__",))
_SHOWN_BY_REPR = (
    type(None),
    type(...),
    type(NotImplemented),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    range,
    slice,
    decimal.Decimal,
    Fraction,
    date,
    time,
    timedelta,
    PurePath,
    re.Pattern,
    UUID,
    enum.Enum,
)
_ITERATORS: tuple[type, ...] = (
    type(iter([])),
    type(iter(())),
    type(iter("")),
    type(iter(range(0))),
    type(iter({})),
    enumerate,
    zip,
    map,
    itertools.count,
    itertools.cycle,
    itertools.chain,
    itertools.islice,
)


class _TooManyError(Exception):
    """More objects than are looked at."""


class _Globals:
    """The globals of a module, as digests of all that they lead to."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module
        self._kept: list[Any] = []
        self._before = self._digests()

    def changed(self) -> set[str]:
        """Return the names that lead to something else than before. `Class.name` for an attribute of a class of the module."""
        now = self._digests()
        return {name for name in self._before.keys() | now.keys() if self._before.get(name) != now.get(name)}

    def _digests(self) -> dict[str, bytes]:
        digests: dict[str, bytes] = {}
        walk = _Walk(self._module.__name__, self._kept)
        try:
            for name, value in list(vars(self._module).items()):
                if name in _OF_MODULES:
                    continue
                digests[name] = walk.digest(value)
                if isinstance(value, type) and value.__module__ == self._module.__name__:
                    for inner, attribute in list(vars(value).items()):
                        if inner not in _OF_CLASSES:
                            digests[f"{name}.{inner}"] = walk.digest(attribute)
        except (_TooManyError, RecursionError):
            # Unlike itself: whatever cannot be compared counts as changed.
            return {"*": os.urandom(16)}
        return digests


class _Walk:
    """Digests objects with all that they lead to. module: the user's; functions and classes of others count by their identity.

    kept: objects that count by their identity, so that no other object takes their address.
    """

    def __init__(self, module: str, kept: list[Any]) -> None:
        self._package = module.partition(".")[0]
        self._kept = kept
        self._seen: set[int] = set()
        self._alive: list[Any] = []
        self._left = MOST_OBJECTS

    def digest(self, value: Any) -> bytes:
        hashed = hashlib.blake2b(digest_size=16)
        self._add(value, hashed)
        return hashed.digest()

    def _add(self, value: Any, hashed: Any) -> None:
        kind = type(value)
        hashed.update(kind.__qualname__.encode())
        if isinstance(value, _SHOWN_BY_REPR):
            hashed.update(repr(value).encode(errors="backslashreplace"))
            return
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        if id(value) in self._seen:
            hashed.update(b"%d" % id(value))
            return
        self._seen.add(id(value))
        self._alive.append(value)
        for part in self._parts(value, hashed):
            self._add(part, hashed)

    def _identity(self, value: Any, hashed: Any) -> None:
        self._kept.append(value)
        hashed.update(b"%d" % id(value))

    def _parts(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Yield what an object leads to; what it is itself goes into the digest."""
        if isinstance(value, Mapping) and hasattr(value, "items"):
            for key, inner in list(value.items()):
                yield key
                yield inner
            yield from self._attributes(value)
        elif isinstance(value, list | tuple | deque):
            yield from list(value)
            yield from self._attributes(value)
        elif isinstance(value, set | frozenset):
            hashed.update(b"".join(sorted(self.digest(inner) for inner in value)))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, hashed)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif hasattr(value, "cache_info") and hasattr(value, "cache_clear"):
            hashed.update(repr(value.cache_info()[1:]).encode())
            yield getattr(value, "__wrapped__", None)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset, value.fdel)
        elif isinstance(value, type):
            self._identity(value, hashed)
        elif isinstance(value, random.Random):
            yield value.getstate()
        elif isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            if frame is not None:
                yield frame.f_lasti
                yield frame.f_locals
        elif isinstance(value, _ITERATORS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield value.__reduce__()[1:]
        elif isinstance(value, logging.Logger):
            yield from (value.level, value.disabled, value.propagate, [id(each) for each in value.handlers])
        elif not self._is_of_arrays(value):
            attributes = list(self._attributes(value))
            if attributes and not isinstance(value, types.ModuleType | threading.Thread | logging.Handler):
                yield from attributes
            else:
                self._identity(value, hashed)
        else:
            yield from self._arrays(value, hashed)

    def _attributes(self, value: Any) -> Iterator[Any]:
        """Yield names and values of the attributes of an instance."""
        for name, inner in list(getattr(value, "__dict__", {}).items()):
            yield name
            yield inner
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    yield name
                    yield getattr(value, name, None)

    def _function(self, value: types.FunctionType, hashed: Any) -> Iterator[Any]:
        self._identity(value, hashed)
        if value.__module__ is None or value.__module__.partition(".")[0] != self._package:
            return
        self._identity(value.__code__, hashed)
        yield from (value.__defaults__, value.__kwdefaults__)
        yield {name: inner for name, inner in vars(value).items() if name not in _OF_FUNCTIONS}
        yield getattr(value, "__wrapped__", None)
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield cell.cell_contents

    def _is_of_arrays(self, value: Any) -> bool:
        return type(value).__module__.partition(".")[0] in ("numpy", "torch") and not hasattr(
            value, "state_dict"
        )

    def _arrays(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Take in an array, a tensor or a generator of random numbers; other objects of NumPy and torch by their attributes."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None and isinstance(value, numpy.ndarray):
            yield from (str(value.dtype), value.shape)
            if value.dtype.hasobject:
                yield value.tolist()
            elif value.flags.writeable or value.base is None:
                hashed.update(b"%d" % _checksum(value))
        elif numpy is not None and isinstance(value, numpy.random.RandomState):
            yield value.get_state(legacy=False)
        elif numpy is not None and isinstance(value, numpy.random.Generator):
            yield value.bit_generator.state
        elif torch is not None and isinstance(value, torch.Tensor):
            yield from (str(value.dtype), tuple(value.shape), str(value.device), value.requires_grad)
            yield from (value.data_ptr() if value.layout is torch.strided else 0, value._version)  # noqa: SLF001
            if value.device.type == "cpu" and value.layout is torch.strided and value.numel():
                whole = value.detach().contiguous().view(-1).view(torch.uint8)
                hashed.update(b"%d" % _checksum(whole.numpy()))
            if value.is_leaf:
                yield value.grad
        elif torch is not None and isinstance(value, torch.Generator):
            hashed.update(value.get_state().numpy().tobytes())
        elif isinstance(value, _values_of(numpy, "generic", "dtype") + _values_of(torch, "device", "dtype")):
            hashed.update(repr(value).encode())
        else:
            attributes = list(self._attributes(value))
            yield from attributes
            if not attributes:
                self._identity(value, hashed)


def _values_of(module: Any, *names: str) -> tuple[type, ...]:
    """Return classes of a module whose instances are what their representation says; none where it is not loaded."""
    return () if module is None else tuple(getattr(module, name) for name in names)


def _checksum(array: Any) -> int:
    """Return a checksum of the bytes of an array."""
    numpy = _module("numpy")
    data = numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8)
    if data.nbytes <= WHOLE:
        return zlib.crc32(data)
    checksum = 0
    for start in range(0, data.nbytes - PIECE, (data.nbytes - PIECE) // PIECES):
        checksum = zlib.crc32(data[start : start + PIECE], checksum)
    return checksum
