"""Settings of Python, NumPy, torch and other packages that a run of the user's may change: how they are read, and set back."""

# Packages keep much of this behind an underscore, and have no other door to it.
# ruff: noqa: SLF001

from __future__ import annotations

import atexit
import builtins
import contextlib
import copyreg
import decimal
import functools
import gc
import locale
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any


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
        warnings._filters_mutated()  # type: ignore[attr-defined]  # what `catch_warnings` does


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
    root.manager._clear_cache()  # type: ignore[attr-defined]  # levels are remembered


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
    return type(_module("numpy.random").mtrand._rand._bit_generator).__name__


def _torch_modes() -> tuple[Any, ...]:
    """Return how many modes are entered that change what the operations of torch do."""
    core = _module("torch")._C
    hooks = getattr(core._autograd, "_top_saved_tensors_default_hooks", None)  # torch 2.6 has none
    return (
        core._len_torch_function_stack(),
        core._len_torch_dispatch_stack(),
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
        fluent._active_run_stack.get().clear()
    fluent._active_experiment_id, service._tracking_uri = values[:2]


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
        return {name: config.get_option(name) for name in config._registered_options}


def _pandas_at_import() -> dict[str, Any]:
    return {n: option.defval for n, option in _module("pandas._config.config")._registered_options.items()}


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
    Setting("atexit", atexit._ncallbacks),  # it tells nothing else
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
        lambda: _module("torch.distributions").Distribution._validate_args,
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
        at_import=lambda: dict(_module("sklearn")._config._global_config),
    ),
    Setting("pandas.options", _read_pandas, _write_pandas, "pandas", at_import=_pandas_at_import),
    Setting("numpy.ma", _read_masks, _write_masks, "numpy.ma"),
    Setting("numpy.getbufsize", _through("numpy", "getbufsize"), _through("numpy", "setbufsize"), "numpy"),
    Setting(
        "torch.set_printoptions",
        lambda: dict(vars(_module("torch")._tensor_str.PRINT_OPTS)),
        lambda v: vars(_module("torch")._tensor_str.PRINT_OPTS).update(v),
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


def read_settings() -> dict[str, Any]:
    """Return the settings of this process and of the packages that are loaded, by name."""
    values = {}
    for setting in SETTINGS:
        if setting.package in sys.modules:
            with contextlib.suppress(Exception):  # of a version without it
                values[setting.name] = setting.read()
    return values


def add_at_import(settings: dict[str, Any], new_modules: Collection[str]) -> None:
    """Add to settings that were read those of packages that were loaded since, as they are once these are imported."""
    for setting in SETTINGS:
        if setting.at_import is not None and setting.package in new_modules:
            with contextlib.suppress(Exception):  # of a version without it
                settings.setdefault(setting.name, setting.at_import())


def restore(settings: Mapping[str, Any]) -> set[str]:
    """Set the settings back that differ from those that were read, and return the names of those that cannot be."""
    now = read_settings()
    different = [name for name, value in settings.items() if name in now and not _is_same(value, now[name])]
    for name in different:
        setting = _BY_NAME[name]
        if setting.write is not None:
            with contextlib.suppress(Exception):
                setting.write(settings[name])
    again = read_settings() if different else now
    return {name for name in different if not _is_same(settings[name], again.get(name))}
