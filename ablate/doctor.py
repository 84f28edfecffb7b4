"""Is this machine fit for a study? Every check is a line; what is tried leaves nothing behind."""

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

from ablate.errors import AblateError

if TYPE_CHECKING:
    from ablate.tracking.store import Store

State = Literal["ok", "note", "broken"]
MARK: dict[State, str] = {"ok": "✓", "note": "·", "broken": "✗"}


@dataclass(frozen=True)
class Check:
    """state: `note` is worth knowing and no obstacle; `broken` is. group: what the check belongs to."""

    group: str
    name: str
    state: State
    said: str


def examine(storage: str | None = None) -> tuple[Check, ...]:
    """All checks, in the order of a report. storage: Optuna's, as `ablate run --storage` takes it; None: the journal."""
    checks: list[Check] = []
    for examined in (python, packages, devices, cores, lambda: store(storage), data):
        checks += examined()
    return tuple(checks)


def text(checks: Iterable[Check]) -> str:
    """A line each, under the name of its group."""
    checks = tuple(checks)
    wide = max(len(check.name) for check in checks)
    lines: list[str] = []
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            lines.append(group)
        lines.append(f"  {MARK[check.state]} {check.name:{wide}}  {check.said}")
    return "\n".join(lines)


def python() -> list[Check]:
    version = platform.python_version()
    try:
        wanted = metadata.metadata("ablate")["Requires-Python"] or ""
    except metadata.PackageNotFoundError:
        return [
            Check(
                "python", "python", "note", f"{version}; ablate is not installed, so its bounds are unknown"
            )
        ]
    return [_bounded("python", "python", version, wanted)]


def packages() -> list[Check]:
    """Every package that ablate declares: is it there, and of a version that ablate was made for?"""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(line) for line in metadata.requires("ablate") or ()]
    except metadata.PackageNotFoundError:
        return [Check("packages", "ablate", "broken", "is not installed: `pip install -e .` in its folder")]
    found = []
    for need in declared:
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            asked = f"{need.name}{need.specifier}"
            found.append(Check("packages", need.name, "broken", f"is missing: `pip install '{asked}'`"))
            continue
        found.append(_bounded("packages", need.name, version, str(need.specifier)))
    return found


def _bounded(group: str, name: str, version: str, wanted: str) -> Check:
    from packaging.specifiers import SpecifierSet

    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(group, name, "ok", f"{version} ({wanted or 'any'})")
    return Check(group, name, "note", f"{version} is outside {wanted}, where nobody has tried it")


def devices() -> list[Check]:
    from ablate.executors.devices import driver_devices

    try:
        from ablate.training import device_check
    except (ImportError, OSError) as error:
        return [Check("devices", "torch", "broken", f"cannot be imported: {str(error).splitlines()[0]}")]

    found = []
    for device in device_check.devices():
        memory = f", {device.memory / 2**30:.1f} GiB" if device.memory else ""
        if device.problem:
            found.append(Check("devices", device.name, "broken", f"{device.kind}{memory}: {device.problem}"))
            continue
        speed = f"a convolution took {1e3 * device.seconds:.2f} ms ({device.flops / 1e9:,.0f} GFLOP/s)"
        found.append(Check("devices", device.name, "ok", f"{device.kind}{memory}: {speed}"))
        state: State = "ok" if device.bfloat16 >= 1 else "note"
        said = f"{device.bfloat16:.2g} times as fast as float32" + (
            "" if device.bfloat16 >= 1 else ": `training.precision: float32` is the faster one here"
        )
        found.append(Check("devices", f"{device.name} bfloat16", state, said))
    if not any(check.name.startswith("cuda") for check in found):
        driver = Path("/dev/nvidiactl").exists() or driver_devices() > 0
        said = "there is a driver, but torch finds no device" if driver else "none; studies run on the CPU"
        found.append(Check("devices", "CUDA", "broken" if driver else "note", said))
    return found


def cores() -> list[Check]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    all_of_them = os.cpu_count() or usable
    slots = f"{usable} usable of {all_of_them}: as many runs side by side, one thread each"
    set_by = [
        f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
    ]
    threads = ", ".join(set_by) or "not limited by the environment; a run takes one"
    return [Check("cores", "cores", "ok", slots), Check("cores", "threads", "ok", threads)]


def store(storage: str | None = None) -> list[Check]:
    """The record and what lies beside it: reachable, and writable?"""
    from ablate.tracking.store import here

    place = here()
    return [
        _tried("store", "folder", lambda: _writable(place.root)),
        _tried("store", "MLflow", lambda: _reached(place)),
        _tried("store", "Optuna", lambda: _optuna(place.root, storage)),
    ]


def _reached(place: Store) -> str:
    from ablate.tracking.plans import study_names

    if not place.exists:
        return f"{place.uri} is not there yet; the first run makes it"
    if place.database is not None:
        _may_be_written(place.database)
    studies = len(study_names(place))
    return f"{place.uri} answers: {studies} stud{'y' if studies == 1 else 'ies'}"


def _writable(folder: Path) -> str:
    """Try to write where `folder` is or would be. Raises OSError."""
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"ablate")
    except OSError as error:
        # Whoever mends it looks for the folder, not for the file that was tried.
        raise OSError(error.errno, error.strerror, str(there)) from None
    free = shutil.disk_usage(there).free / 2**30
    return f"{folder} {'is writable' if there == folder else 'can be made'}, {free:.1f} GiB free"


def _optuna(root: Path, storage: str | None) -> str:
    from ablate.scheduling import queue

    if storage is not None:
        return f"{storage} opens: {queue.try_storage(storage, root)}"
    journal = root / "optuna.journal"
    is_there = _may_be_written(journal)
    # On the disk that the journal is or will be on, because what fails is locking.
    with tempfile.TemporaryDirectory(dir=_nearest(root), prefix=".ablate-doctor-") as folder:
        return f"{journal} {'is' if is_there else 'can be'} written: {queue.try_storage(None, Path(folder))}"


def _nearest(folder: Path) -> Path:
    """The folder itself or, as long as that is not there, the one that it would be made in. Raises OSError."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(folder))
    return folder if folder.exists() else _nearest(folder.parent)


def _may_be_written(file: Path) -> bool:
    """Whether a file is there. Raises OSError where it is and cannot be written."""
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
    """Which data sets are on this machine, and whether the cache can take more."""
    from ablate.data import describe
    from ablate.data.cache import default_folder

    checks = [_tried("data", "cache", lambda: _writable(default_folder()))]
    for known in describe.listing():
        if known.presence is not None:
            here = known.presence in ("prepared", "here")
            checks.append(Check("data", known.name, "ok" if here else "note", known.presence))
    return checks
