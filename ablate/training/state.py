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

import abc
import atexit
import builtins
import contextlib
import contextvars
import copyreg
import decimal
import dis
import enum
import functools
import gc
import hashlib
import inspect
import io
import locale
import logging
import multiprocessing
import os
import pickle
import queue
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import warnings
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from datetime import time as time_of_day
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

MOST_OBJECTS = 200_000
"""Objects of a module that are looked at; where there are more, the module counts as changed."""

WHOLE = 64 << 20
"""Bytes of an array that are compared whole; of a larger one, evenly spread pieces are."""

STDERR = 2

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
        names, self._set = _names_in_functions([sys.modules[name] for name in self._modules])
        self._named = names
        self._functions = _Functions(self._modules, names)
        self._attributes = _Attributes(self._modules)
        self._registrations = abc.get_cache_token()
        self._registered = _registered()
        self.begin()

    def begin(self) -> None:
        """Take what is there when a run begins: outside worker processes ablate itself has settings and threads too."""
        self._settings = _read_settings()
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
        for setting in SETTINGS:
            if setting.at_import is not None and setting.package in new_modules:
                with contextlib.suppress(Exception):  # of a version without it
                    self._settings.setdefault(setting.name, setting.at_import())
        names |= self._restore()
        for name in self._modules:
            names |= {f"{name}.{inner}" for inner in self._globals[name].changed()}
        names |= self._set_in({name for name in new_modules if not is_users(name)})
        names |= self._functions.replaced() | self._attributes.added() | self._new_registrations(new_modules)
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
            if key in self._set and (_is_code(value) or _is_constant(key, value))
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

    write: sets it back to what `read` returned; None: it cannot be set back. at_import: returns what `read` does once the package is
    imported, for one that runs import themselves; None: not known.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any] | None = None
    package: str = "sys"
    at_import: Callable[[], Any] | None = None


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


def _write_signals(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _finds_metadata(finder: Any) -> bool:
    """Return whether a finder is that of importlib_metadata, which takes the place of Python's own: without it no package has a version."""
    return type(finder).__module__.partition(".")[0] == "importlib_metadata"


def _write_finders(finders: list[Any]) -> None:
    sys.meta_path[:] = [*finders, *(each for each in sys.meta_path if _finds_metadata(each))]


def _write_dispatch(table: Mapping[Any, Any]) -> None:
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(table)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _write_filters(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    with contextlib.suppress(AttributeError):
        warnings._filters_mutated()  # type: ignore[attr-defined]  # noqa: SLF001 — what `catch_warnings` does


Loggers = dict[str, tuple[Any, ...]]


def _read_logging() -> tuple[Any, ...]:
    """Return what is set for all loggers, and of each one that differs from a new one, by name; '' is the root."""
    root = logging.getLogger()
    loggers = {
        name: each for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)
    }
    states = {name: _state_of_logger(logger) for name, logger in {"": root, **loggers}.items()}
    plain: tuple[Any, ...] = (logging.NOTSET, True, False, [], [])
    return (
        root.manager.disable,
        logging.raiseExceptions,
        {name: state for name, state in states.items() if state != plain},
    )


def _state_of_logger(logger: logging.Logger) -> tuple[Any, ...]:
    # Packages that are imported meanwhile have such a handler.
    handlers = [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]
    return logger.level, logger.propagate, logger.disabled, handlers, list(logger.filters)


def _write_logging(values: tuple[Any, ...]) -> None:
    root = logging.getLogger()
    states: Loggers
    root.manager.disable, logging.raiseExceptions, states = values
    for name in states.keys() | _read_logging()[2].keys():
        logger = logging.getLogger(name)
        level, propagate, disabled, handlers, filters = states.get(
            name, (logging.NOTSET, True, False, [], [])
        )
        logger.level, logger.propagate, logger.disabled = level, propagate, disabled
        logger.handlers[:], logger.filters[:] = handlers, filters
    root.manager._clear_cache()  # type: ignore[attr-defined]  # noqa: SLF001 — levels are remembered


def _open_files() -> dict[int, str]:
    """Return the open files, pipes and sockets of this process, as far as /proc tells; devices and the like are none."""
    files = {}
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError, ValueError):  # it is the one by which this folder is read
            place = os.readlink(entry)  # noqa: PTH115 — `pipe:[1]` is no path
            if not place.startswith(("/dev/", "/proc/", "/sys/", "anon_inode:")):
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


def _write_context(context: tuple[Any, ...]) -> None:
    now = decimal.getcontext()
    now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, traps = context
    now.traps.update(traps)


def _read_context() -> tuple[Any, ...]:
    now = decimal.getcontext()
    return now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, dict(now.traps)


def _read_limits() -> dict[int, tuple[int, int]]:
    resource = _module("resource")
    return {
        value: resource.getrlimit(value)
        for name, value in vars(resource).items()
        if name.startswith("RLIMIT_")
    }


def _write_limits(limits: Mapping[int, tuple[int, int]]) -> None:
    resource = _module("resource")
    for limit, value in limits.items():
        if resource.getrlimit(limit) != value:
            resource.setrlimit(limit, value)


def _generator_of_numpy() -> str:
    return type(_module("numpy.random").mtrand._rand._bit_generator).__name__  # noqa: SLF001


def _torch_modes() -> tuple[Any, ...]:
    """Return how many modes are entered that change what the operations of torch do."""
    core = _module("torch")._C  # noqa: SLF001
    hooks = getattr(core._autograd, "_top_saved_tensors_default_hooks", None)  # noqa: SLF001 — torch 2.6 has none
    return (
        core._len_torch_function_stack(),  # noqa: SLF001
        core._len_torch_dispatch_stack(),  # noqa: SLF001
        hooks(True) if hooks is not None else None,
    )


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


def _write_mlflow(values: tuple[Any, ...]) -> None:
    """Forget the run that was not ended: its store is not that of the next."""
    fluent, service = _module("mlflow.tracking.fluent"), _module("mlflow.tracking._tracking_service.utils")
    if values[2] is None:
        fluent._active_run_stack.get().clear()  # noqa: SLF001
    fluent._active_experiment_id, service._tracking_uri = values[:2]  # noqa: SLF001


def _torch_hooks() -> list[int]:
    module = _module("torch.nn.modules.module")
    return [
        key
        for name, hooks in vars(module).items()
        if name.startswith("_global_") and isinstance(hooks, dict)
        for key in hooks
    ]


def _without_backend(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return matplotlib's settings but for the window that it draws in, which is looked for once it is asked for."""
    return {name: settings[name] for name in settings if name != "backend"}


def _read_pandas() -> dict[str, Any]:
    config = _module("pandas._config.config")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some options are deprecated
        return {name: config.get_option(name) for name in config._registered_options}  # noqa: SLF001


def _pandas_at_import() -> dict[str, Any]:
    return {n: option.defval for n, option in _module("pandas._config.config")._registered_options.items()}  # noqa: SLF001


def _write_pandas(options: Mapping[str, Any]) -> None:
    config, now = _module("pandas._config.config"), _read_pandas()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in options.items():
            if not _is_same(now[name], value):
                config.set_option(name, value)


def _read_masks() -> tuple[Any, ...]:
    masks = _module("numpy.ma")
    shown = masks.masked_print_option
    return shown.display(), shown.enabled(), dict(masks.core.default_filler)


def _write_masks(values: tuple[Any, ...]) -> None:
    masks = _module("numpy.ma")
    masks.masked_print_option.set_display(values[0])
    masks.masked_print_option.enable(values[1])
    masks.core.default_filler.clear()
    masks.core.default_filler.update(values[2])


def _write_safe_globals(values: list[Any]) -> None:
    serialization = _module("torch").serialization
    serialization.clear_safe_globals()
    serialization.add_safe_globals(values)


def _write_dynamo(values: Mapping[str, Any]) -> None:
    config, now = _module("torch._dynamo.config"), _module("torch._dynamo.config").get_config_copy()
    for name, value in values.items():
        if not _is_same(now.get(name), value):
            setattr(config, name, value)


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
    Setting("loggers", _read_logging, _write_logging),
    Setting("atexit", atexit._ncallbacks),  # noqa: SLF001 — it tells nothing else
    Setting("copyreg.dispatch_table", lambda: dict(copyreg.dispatch_table), _write_dispatch),
    Setting(
        "sys.path_hooks", lambda: list(sys.path_hooks), lambda v: sys.path_hooks.__setitem__(slice(None), v)
    ),
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
    Setting(
        "the blocked signals",
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda value: signal.pthread_sigmask(signal.SIG_SETMASK, value),
    ),
    Setting("resource limits", _read_limits, _write_limits, package="resource"),
    # The variable TZ has been set back by now; this is what was made of it.
    Setting("the time zone", lambda: (time.tzname, time.timezone), lambda _: time.tzset()),
    Setting("sys.get_int_max_str_digits", sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    Setting(
        "sys.meta_path", lambda: [each for each in sys.meta_path if not _finds_metadata(each)], _write_finders
    ),
    Setting("logging.getLoggerClass", logging.getLoggerClass, logging.setLoggerClass),
    Setting("builtins", lambda: {n: id(v) for n, v in vars(builtins).items() if n != "_"}),
    Setting("the bit generator of numpy.random", _generator_of_numpy, package="numpy.random"),
    Setting("numpy.geterrcall", _through("numpy", "geterrcall"), _through("numpy", "seterrcall"), "numpy"),
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
        "torch.get_autocast_dtype",
        lambda: [_module("torch").get_autocast_dtype(kind) for kind in ("cpu", "cuda")],
        lambda v: [
            _module("torch").set_autocast_dtype(kind, each)
            for kind, each in zip(("cpu", "cuda"), v, strict=True)
        ],
        "torch",
    ),
    Setting(
        "torch.is_autocast_cache_enabled",
        _through("torch", "is_autocast_cache_enabled"),
        _through("torch", "set_autocast_cache_enabled"),
        "torch",
    ),
    Setting(
        "torch.is_inference_mode_enabled", _through("torch", "is_inference_mode_enabled"), package="torch"
    ),
    Setting("modes of torch", _torch_modes, package="torch"),
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
    _attribute("torch.backends.opt_einsum.enabled"),
    _attribute("torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction"),
    _attribute("torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction"),
    *(
        Setting(
            f"torch.backends.cuda.{kind}_sdp_enabled",
            _through("torch", f"backends.cuda.{kind}_sdp_enabled"),
            _through("torch", f"backends.cuda.enable_{kind}_sdp"),
            "torch",
        )
        for kind in ("flash", "mem_efficient", "math", "cudnn")
    ),
    Setting(
        "torch.distributions.Distribution.set_default_validate_args",
        lambda: _module("torch.distributions").Distribution._validate_args,  # noqa: SLF001
        _through("torch", "distributions.Distribution.set_default_validate_args"),
        "torch.distributions",
    ),
    _attribute("torch.utils.deterministic.fill_uninitialized_memory"),
    Setting("hooks of every torch module", _torch_hooks, package="torch.nn.modules.module"),
    Setting(
        "torch.distributed",
        lambda: _module("torch.distributed").is_available() and _module("torch.distributed").is_initialized(),
        package="torch.distributed",
    ),
    Setting(
        "matplotlib.rcParams",
        lambda: _without_backend(_module("matplotlib").rcParams),
        _through("matplotlib", "rcParams.update"),
        "matplotlib",
        at_import=lambda: _without_backend(_module("matplotlib").rcParamsOrig),
    ),
    Setting(
        "sklearn.get_config",
        _through("sklearn", "get_config"),
        lambda v: _module("sklearn").set_config(**v),
        "sklearn",
        at_import=lambda: dict(_module("sklearn")._config._global_config),  # noqa: SLF001
    ),
    Setting("pandas.options", _read_pandas, _write_pandas, "pandas", at_import=_pandas_at_import),
    Setting("numpy.ma", _read_masks, _write_masks, "numpy.ma"),
    Setting("numpy.getbufsize", _through("numpy", "getbufsize"), _through("numpy", "setbufsize"), "numpy"),
    Setting(
        "torch.set_printoptions",
        lambda: dict(vars(_module("torch")._tensor_str.PRINT_OPTS)),  # noqa: SLF001
        lambda v: vars(_module("torch")._tensor_str.PRINT_OPTS).update(v),  # noqa: SLF001
        "torch",
    ),
    Setting(
        "torch.is_warn_always_enabled",
        _through("torch", "is_warn_always_enabled"),
        _through("torch", "set_warn_always"),
        "torch",
    ),
    Setting(
        "torch.serialization.get_safe_globals",
        lambda: list(_module("torch").serialization.get_safe_globals()),
        _write_safe_globals,
        "torch",
    ),
    Setting(
        "torch.backends.mha.get_fastpath_enabled",
        _through("torch", "backends.mha.get_fastpath_enabled"),
        _through("torch", "backends.mha.set_fastpath_enabled"),
        "torch",
    ),
    _attribute("torch.backends.quantized.engine"),
    Setting(
        "torch._dynamo.config",
        _through("torch._dynamo.config", "get_config_copy"),
        _write_dynamo,
        "torch._dynamo.config",
    ),
    Setting("mlflow", _read_mlflow, _write_mlflow, "mlflow", at_import=lambda: (None, None, None)),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


# --- functions of other packages --------------------------------------------------------------------------------------

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


class _Functions:
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
            values = {key: value for key, value in contents if _is_code(value) or _is_constant(key, value)}
            self._owners.append((name, module, values))
            for key, value in values.items():
                if isinstance(value, type) and str(value.__module__).startswith(name):
                    methods = {
                        m: v
                        for m, v in list(vars(value).items())
                        if type(v) is types.FunctionType or _is_constant(m, v)
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
                and not (_is_constant(key, value) and now.get(key) == value)
                and not _is_set_up(value, now.get(key))
            }
        return places


class _Attributes:
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


def _names_in_functions(modules: Iterable[types.ModuleType]) -> tuple[set[str], set[str]]:
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


def _is_code(value: Any) -> bool:
    return callable(value) and not isinstance(value, types.ModuleType)


def _is_constant(name: str, value: Any) -> bool:
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
        "__slotnames__",
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
    time_of_day,
    timedelta,
    PurePath,
    re.Pattern,
    UUID,
    enum.Enum,
)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


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
        walk = _Walk(
            self._module.__name__,
            self._kept,
            {value for value in list(vars(self._module).values()) if self._is_own_class(value)},
        )
        try:
            for name, value in list(vars(self._module).items()):
                if name in _OF_MODULES:
                    continue
                digests[name] = walk.digest(value)
                if self._is_own_class(value):
                    for inner, attribute in list(vars(value).items()):
                        if inner not in _OF_CLASSES:
                            digests[f"{name}.{inner}"] = walk.digest(attribute)
        except Exception:  # noqa: BLE001 — too many objects, or code of theirs that looking at them runs
            # Unlike itself: whatever cannot be compared counts as changed.
            return {"*": os.urandom(16)}
        return digests

    def _is_own_class(self, value: Any) -> bool:
        return isinstance(value, type) and value.__module__ == self._module.__name__


class _Walk:
    """Digests objects with all that they lead to. module: the user's; functions and classes of others count by their identity.

    kept: objects that count by their identity, so that no other object takes their address. named: classes whose attributes are
    looked at by their names, and not here.
    """

    def __init__(self, module: str, kept: list[Any], named: Collection[type] = ()) -> None:
        self._package = module.partition(".")[0]
        self._kept = kept
        self._named = named
        self._made = 0  # how deep this is in what was made to be looked at, whose identity says nothing
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
            is_bytes = isinstance(value, bytes | bytearray)
            hashed.update(value if is_bytes else repr(value).encode(errors="backslashreplace"))
            if not getattr(value, "__dict__", None):
                return
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        if id(value) in self._seen:
            hashed.update(b"%d" % id(value))
            return
        self._seen.add(id(value))
        self._alive.append(value)
        is_shown = isinstance(value, _SHOWN_BY_REPR)
        for part in self._attributes(value) if is_shown else self._parts(value, hashed):
            self._add(part, hashed)

    def _identity(self, value: Any, hashed: Any) -> None:
        self._kept.append(value)
        hashed.update(b"%d" % id(value))

    def _parts(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Yield what an object leads to; what it is itself goes into the digest."""
        kind = type(value)
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
            yield from self._attributes(value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, hashed)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif hasattr(kind, "cache_info") and hasattr(kind, "cache_clear"):
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
            if self._is_own(value) and value not in self._named:
                yield {name: inner for name, inner in list(vars(value).items()) if name not in _OF_CLASSES}
        elif isinstance(value, random.Random):
            yield value.getstate()
        elif isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            if frame is not None:
                yield frame.f_lasti
                yield frame.f_locals
        elif hasattr(kind, "to_numpy") and kind.__module__.partition(".")[0] == "pandas":
            yield from _columns(value)
        elif isinstance(value, logging.Logger):
            yield from (value.level, value.disabled, value.propagate, [id(each) for each in value.handlers])
        elif not self._is_of_arrays(value):
            attributes = list(self._attributes(value))
            if isinstance(value, types.ModuleType | threading.Thread | logging.Handler):
                self._identity(value, hashed)
            elif attributes and not isinstance(value, io.IOBase):
                yield from attributes
            else:
                yield from self._compiled(value, hashed)
        else:
            yield from self._arrays(value, hashed)

    def _compiled(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Take in an object that has no attributes: by its identity, and by what it tells of its state, or would be pickled as."""
        if not self._made:
            self._identity(value, hashed)
        self._made += 1
        yield _state_of(value)
        self._made -= 1

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
        if not self._is_own(value):
            return
        self._identity(value.__code__, hashed)
        yield from (value.__defaults__, value.__kwdefaults__)
        yield {name: inner for name, inner in vars(value).items() if name not in _OF_FUNCTIONS}
        yield getattr(value, "__wrapped__", None)
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield cell.cell_contents

    def _is_own(self, value: Any) -> bool:
        """Return whether a class or a function is of the user's package."""
        module = value.__module__
        return isinstance(module, str) and module.partition(".")[0] == self._package

    def _is_of_arrays(self, value: Any) -> bool:
        kind = type(value)
        return kind.__module__.partition(".")[0] in ("numpy", "torch") and not hasattr(kind, "state_dict")

    def _arrays(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Take in an array, a tensor or a generator of random numbers; other objects of NumPy and torch by their attributes."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None and isinstance(value, numpy.ndarray):
            yield from (str(value.dtype), value.shape)
            if value.dtype.hasobject:
                yield value.tolist()
            elif value.flags.writeable or value.base is None:
                hashed.update(b"%d" % _checksum(value))
            if "numpy.ma" in sys.modules and isinstance(value, numpy.ma.MaskedArray):
                yield from (value.mask, value.fill_value, value.hardmask)
        elif numpy is not None and isinstance(value, numpy.random.RandomState):
            yield value.get_state(legacy=False)
        elif numpy is not None and isinstance(value, numpy.random.Generator):
            yield value.bit_generator.state
        elif torch is not None and isinstance(value, torch.Tensor):
            yield from (str(value.dtype), tuple(value.shape), str(value.device), value.requires_grad)
            yield value.data_ptr() if value.layout is torch.strided else 0
            yield 0 if value.is_inference() else value._version  # noqa: SLF001
            if value.device.type == "cpu" and value.layout is torch.strided and value.numel():
                whole = value.detach().contiguous().view(-1).view(torch.uint8)
                hashed.update(b"%d" % _checksum(whole.numpy()))
            if value.is_leaf:
                yield value.grad
        elif torch is not None and isinstance(value, torch.UntypedStorage):
            if value.device.type == "cpu":
                yield torch.empty(0, dtype=torch.uint8).set_(value)
        elif torch is not None and isinstance(value, torch.Generator):
            hashed.update(value.get_state().numpy().tobytes())
        elif isinstance(value, _values_of(numpy, "generic", "dtype") + _values_of(torch, "device", "dtype")):
            hashed.update(repr(value).encode())
        else:
            attributes = list(self._attributes(value))
            yield from attributes
            if not attributes:
                is_numpys = type(value).__module__.startswith("numpy")
                yield from self._compiled(value, hashed) if is_numpys else ()
                if not is_numpys:
                    self._identity(value, hashed)


def _columns(value: Any) -> Iterator[Any]:
    """Yield the content of an object of pandas: what else it keeps changes as it is looked at."""
    numpy = _module("numpy")
    columns = getattr(value, "columns", None)
    yield str(getattr(value, "dtypes", None))
    for each in (columns, getattr(value, "index", None)):
        if each is not None:
            yield numpy.array(each.to_numpy())
    for each in [value] if columns is None else (value.iloc[:, i] for i in range(len(columns))):
        yield numpy.array(each.to_numpy())


def _state_of(value: Any) -> Any:
    """Return what a compiled object tells of its state; None where it tells nothing."""
    if isinstance(value, io.IOBase):
        return _position(value), getattr(value, "__dict__", None)
    if isinstance(value, contextvars.ContextVar):
        return value.get(None)
    if isinstance(value, _LOCKS):
        return repr(value)  # whether it is held, and by whom
    if isinstance(value, queue.SimpleQueue):
        return value.qsize()
    if isinstance(value, weakref.ReferenceType):
        return value()
    if isinstance(value, memoryview | pickle.PickleBuffer):
        with contextlib.suppress(ValueError, BufferError, TypeError):  # it is released, or has gaps
            return _checksum_of_bytes(value)
        return None
    if "mmap" in sys.modules and isinstance(value, _module("mmap").mmap):
        with contextlib.suppress(ValueError, BufferError):  # it is closed
            return value.tell(), _checksum_of_bytes(value)
        return None
    if "sqlite3" in sys.modules and isinstance(value, _module("sqlite3").Connection):
        with contextlib.suppress(Exception):  # of another thread
            return value.total_changes, value.in_transaction
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return value.__reduce_ex__(5)
    return None


def _position(file: io.IOBase) -> Any:
    """Return where an open file stands, and what is in it where that is in memory."""
    if file.closed:
        return "closed"
    if isinstance(file, io.StringIO | io.BytesIO):
        return file.tell(), file.getvalue()
    with contextlib.suppress(Exception):
        if file.fileno() <= STDERR:
            return None  # whatever is printed
    with contextlib.suppress(Exception):  # a pipe, or a text that is being iterated over
        return file.tell()
    with contextlib.suppress(Exception):
        return file.buffer.tell()  # type: ignore[attr-defined]
    return None


def _values_of(module: Any, *names: str) -> tuple[type, ...]:
    """Return classes of a module whose instances are what their representation says; none where it is not loaded."""
    return () if module is None else tuple(getattr(module, name) for name in names)


def _checksum(array: Any) -> int:
    """Return a checksum of the bytes of an array."""
    numpy = _module("numpy")
    return _checksum_of_bytes(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8))


def _checksum_of_bytes(content: Any) -> int:
    data = memoryview(content).cast("B")
    if data.nbytes <= WHOLE:
        return zlib.crc32(data)
    checksum = 0
    for start in range(0, data.nbytes - PIECE, (data.nbytes - PIECE) // PIECES):
        checksum = zlib.crc32(data[start : start + PIECE], checksum)
    return checksum
