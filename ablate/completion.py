"""What a shell may complete: studies, networks, data sets, paths. Quick, and silent where anything is wrong.

Nothing here loads torch or pandas or asks a server: whoever presses Tab waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

Choices = list[tuple[str, str]]
"""What may stand here, each with a few words on it."""


def _silent(found: Callable[[], Iterable[tuple[str, str]]]) -> Callable[[str], Choices]:
    """A completion of whatever begins with what was typed; nothing where it cannot be found out."""

    def complete(incomplete: str) -> Choices:
        try:
            return [(value, words) for value, words in found() if value.startswith(incomplete)]
        except Exception:  # noqa: BLE001 — a message in the middle of a command line helps nobody
            return []

    return complete


def one_of(*values: str) -> Callable[[str], Choices]:
    """A completion of an option that takes one of a few words."""
    return _silent(lambda: [(value, "") for value in values])


def _files() -> Iterable[tuple[str, str]]:
    for folder in (Path(), Path("studies")):
        for path in sorted(filter(Path.is_file, folder.glob("*.y*ml"))):
            yield path.as_posix(), _question(path)


def _question(path: Path) -> str:
    """What a study file asks, without reading the file as YAML: that would take as long as all the rest."""
    with path.open(encoding="utf-8", errors="replace") as file:
        asked = (line.partition(":")[2] for line in file if line.startswith("question:"))
        return next(asked, "").strip()


def _recorded() -> Iterable[tuple[str, str]]:
    from ablate.tracking.plans import study_names
    from ablate.tracking.store import here

    store = here()
    return [(name, "in the store") for name in study_names(store)] if store.database else []


@_silent
def study_files() -> Iterable[tuple[str, str]]:
    return _files()


def studies(incomplete: str) -> Choices:
    """Names in the store, then files; a store that cannot be read hides no file."""
    return [*_silent(_recorded)(incomplete), *study_files(incomplete)]


@_silent
def models() -> Iterable[tuple[str, str]]:
    from ablate.models import MODELS

    return [(name, (model.__doc__ or "").partition("\n")[0]) for name, model in MODELS.items()]


@_silent
def data_sets() -> Iterable[tuple[str, str]]:
    from ablate.data import datasets

    return [(name, (kind.__doc__ or "").partition("\n")[0]) for name, kind in datasets.DATASETS.items()]


@_silent
def settings() -> Iterable[tuple[str, str]]:
    """Paths that `--set` can change, up to the `=`."""
    from ablate.study import schema

    return [(f"{path}=", words) for path, words in schema.paths().items() if "." in path]
