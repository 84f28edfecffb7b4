"""Checks of this machine: what a study needs is tried out, one line per check, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ablate import locks
from ablate.errors import AblateError
from ablate.text import counted, format_bytes, without_password

if TYPE_CHECKING:
    from ablate.tracking.store import Store

State = Literal["ok", "note", "broken"]
MARK: dict[State, str] = {"ok": "✓", "note": "·", "broken": "✗"}


@dataclass(frozen=True)
class Check:
    """The result of one check. group: its heading. state: a `note` is worth knowing; only `broken` is an obstacle."""

    group: str
    name: str
    state: State
    detail: str


def examine(storage: str | None = None) -> tuple[Check, ...]:
    """Run all checks, in the order they are printed. storage: Optuna's, as `ablate run --storage` takes it; None: the journal."""
    checks: list[Check] = []
    for examined in (python, packages, devices, cores, lambda: store(storage), data):
        checks += examined()
    return tuple(checks)


def text(checks: Iterable[Check]) -> str:
    """Write a line per check, under the name of its group."""
    checks = tuple(checks)
    width = max(len(check.name) for check in checks)
    lines: list[str] = []
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(group)
        lines.append(f"  {MARK[check.state]} {check.name:{width}}  {check.detail}")
    return "\n".join(lines)


def to_json(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Return the checks as plain values for `--json`."""
    return [
        {"group": check.group, "name": check.name, "state": check.state, "said": check.detail}
        for check in checks
    ]


def python() -> list[Check]:
    """Check the version of Python."""
    version = platform.python_version()
    try:
        bounds = metadata.metadata("ablate")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return [
            Check(
                "python", "python", "note", f"{version}; ablate is not installed, so its bounds are unknown"
            )
        ]
    return [_bounded("python", "python", version, bounds)]


def packages() -> list[Check]:
    """Check every package that ablate declares: is it installed, and in a version that ablate supports?"""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires("ablate") or ()]
    except metadata.PackageNotFoundError:
        return [Check("packages", "ablate", "broken", "is not installed: `pip install -e .` in its folder")]
    checks = []
    for requirement in declared:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, bounds = requirement.name, str(requirement.specifier)
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            checks.append(Check("packages", name, "broken", f"is missing: `pip install '{name}{bounds}'`"))
            continue
        checks.append(_bounded("packages", name, version, bounds))
    return checks


def _bounded(group: str, name: str, version: str, bounds: str) -> Check:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(bounds).contains(version, prereleases=True):
        return Check(group, name, "ok", f"{version} ({bounds or 'any'})")
    return Check(group, name, "note", f"{version} is outside {bounds}, so it is untested")


def devices() -> list[Check]:
    """Check the CPU and every accelerator that torch knows by computing a convolution."""
    from ablate.executors.devices import driver_devices

    try:
        from ablate.measuring import device_check
    except (ImportError, OSError) as error:
        return [Check("devices", "torch", "broken", f"cannot be imported: {str(error).splitlines()[0]}")]

    checks = []
    for device in device_check.devices():
        memory = f", {format_bytes(device.memory)}" if device.memory else ""
        if device.problem:
            checks.append(Check("devices", device.name, "broken", f"{device.kind}{memory}: {device.problem}"))
            continue
        speed = f"a convolution took {1e3 * device.seconds:.2f} ms ({device.flops / 1e9:,.0f} GFLOP/s)"
        checks.append(Check("devices", device.name, "ok", f"{device.kind}{memory}: {speed}"))
        state: State = "ok" if device.bfloat16 >= 1 else "note"
        speedup = f"{device.bfloat16:.2g} times as fast as float32" + (
            "" if device.bfloat16 >= 1 else ": `training.precision: float32` is faster here"
        )
        checks.append(Check("devices", f"{device.name} bfloat16", state, speedup))
    if all(check.name.startswith("cpu") for check in checks):
        driver = Path("/dev/nvidiactl").exists() or driver_devices() > 0
        detail = (
            "there is a driver of CUDA, but torch finds no device"
            if driver
            else "none; studies run on the CPU"
        )
        checks.append(Check("devices", "accelerator", "broken" if driver else "note", detail))
    return checks


def cores() -> list[Check]:
    """Report the cores that runs can use, and what limits their threads."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.cpu_count() or usable
    slots = f"{usable} usable of {total}: as many runs at the same time, one thread each"
    set_by = [
        f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
    ]
    threads = ", ".join(set_by) or "not limited by the environment; a run takes one"
    return [Check("cores", "cores", "ok", slots), Check("cores", "threads", "ok", threads)]


def store(storage: str | None = None) -> list[Check]:
    """Check that the store and what lies beside it can be reached and written."""
    from ablate.tracking.store import current_store

    place = current_store()
    return [
        _tried("store", "folder", lambda: _writable(place.root)),
        _tried("store", "locks", lambda: _locks(place.root)),
        _tried("store", "MLflow", lambda: _reached(place)),
        _tried("store", "Optuna", lambda: _optuna(place.root, storage)),
    ]


def _reached(place: Store) -> str:
    from ablate.tracking.plans import study_names

    uri = place.place
    if not place.exists:
        return f"{uri} is not there yet; the first run creates it"
    if place.database is not None:
        _check_writable(place.database)
    studies = len(study_names(place))
    return f"{uri} answers: {counted(studies, 'study', 'studies')}"


def _writable(folder: Path) -> str:
    """Say that `folder` can be written, after writing to it or to where it would be made. Raises OSError."""
    parent = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            file.write(b"ablate")
    except OSError as error:
        # The folder has to be mended, not the temporary file that the error names.
        raise OSError(error.errno, error.strerror, str(parent)) from None
    free = format_bytes(shutil.disk_usage(parent).free)
    return f"{folder} {'is writable' if parent == folder else 'can be created'}, {free} free"


def _locks(folder: Path) -> str:
    """Say that files in `folder` can be locked, after both kinds of locks that ablate and its databases use. Raises StoreError, OSError."""
    with tempfile.NamedTemporaryFile(dir=_nearest(folder), prefix=".ablate-doctor-") as file:
        locks.lock(file, folder)
        locks.lock_byte(file, folder, 0)
    return "files can be locked"


def _optuna(root: Path, storage: str | None) -> str:
    from ablate.scheduling import queue

    if storage is not None:
        return f"{without_password(storage)} opens: {queue.try_storage(storage, root)}"
    journal = root / "optuna.journal"
    exists = _check_writable(journal)
    # Tried on the disk of the journal, because what can fail there is locking.
    with tempfile.TemporaryDirectory(dir=_nearest(root), prefix=".ablate-doctor-") as folder:
        return f"{journal} {'is' if exists else 'can be'} written: {queue.try_storage(None, Path(folder))}"


def _nearest(folder: Path) -> Path:
    """Return the folder or, where it does not exist, the closest parent that does. Raises OSError where that is a file."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(folder))
    return folder if folder.exists() else _nearest(folder.parent)


def _check_writable(file: Path) -> bool:
    """Return whether a file exists. Raises OSError where it does and cannot be written."""
    if not file.exists():
        return False
    with file.open("ab"):
        return True


def _tried(group: str, name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(group, name, "ok", check())
    except AblateError as error:
        return Check(group, name, "broken", " ".join(f"{error}".split()))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Check(group, name, "broken", f"{where}{error.strerror or error}")
    except ImportError as error:
        return Check(group, name, "broken", str(error))


def data() -> list[Check]:
    """Check which data sets are on this machine, and whether the cache can be written."""
    from ablate.cache_folder import default_folder
    from ablate.data import describe

    checks = [_tried("data", "cache", lambda: _writable(default_folder()))]
    for known in describe.listing():
        if known.presence is not None:
            is_present = known.presence in ("prepared", "here")
            checks.append(Check("data", known.name, "ok" if is_present else "note", known.presence))
    return checks
