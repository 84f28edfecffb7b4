"""What a shell can complete: studies, networks, data sets, paths. Fast, and silent where anything fails.

Shells evaluate what they are told: zsh the words and their descriptions, the others the words once they stand on the line. Names of
files and studies may be from somebody else, so nothing leaves this file that a shell might take for more than text.

Nothing in this file loads torch or pandas or asks a server: a person who presses Tab is waiting.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Choices = list[tuple[str, str]]
"""Possible words, each with a short description."""


_PLAIN_WORD = r"[\w.][\w./=+,@%-]*"
"""Words that are the same to every shell, quoted or not; any other is not offered."""

_NOT_PLAIN = r"[^\w ?.,/+=%@-]+"
"""What stands in no description."""


def _plain(choices: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the choices that are plain words, with plain descriptions."""
    for word, about in choices:
        if re.fullmatch(_PLAIN_WORD, word):
            yield word, re.sub(_NOT_PLAIN, " ", about)


def _silent(choices: Callable[[], Iterable[tuple[str, str]]]) -> Callable[[str], Choices]:
    """Return a completion by the choices that begin with the typed text; it is empty where they cannot be read."""

    def complete(incomplete: str) -> Choices:
        try:
            return [(word, about) for word, about in _plain(choices()) if word.startswith(incomplete)]
        except Exception:  # noqa: BLE001 — a message in the middle of a command line helps nobody
            return []

    return complete


def one_of(*values: str) -> Callable[[str], Choices]:
    """Return a completion of an option that takes one of a few words."""
    return _silent(lambda: [(value, "") for value in values])


def _files() -> Iterable[tuple[str, str]]:
    for folder in (Path(), Path("studies")):
        for path in sorted(filter(Path.is_file, folder.glob("*.y*ml"))):
            yield path.as_posix(), _question(path)


def _question(path: Path) -> str:
    """Return the question of a study file, without parsing the YAML: that would take as long as all the rest."""
    with path.open(encoding="utf-8", errors="replace") as file:
        questions = (line.partition(":")[2] for line in file if line.startswith("question:"))
        return next(questions, "").strip()


def _stored_studies() -> Iterable[tuple[str, str]]:
    from ablate.tracking.plans import study_names
    from ablate.tracking.store import current_store

    store = current_store()
    return [(name, "in the store") for name in study_names(store)] if store.database else []


@_silent
def study_files() -> Iterable[tuple[str, str]]:
    return _files()


def studies(incomplete: str) -> Choices:
    """Complete names in the store, then files; files are completed even where the store cannot be read."""
    return [*_silent(_stored_studies)(incomplete), *study_files(incomplete)]


@_silent
def models() -> Iterable[tuple[str, str]]:
    from ablate.models import MODELS

    return [(name, (model.__doc__ or "").partition("\n")[0]) for name, model in MODELS.items()]


@_silent
def data_sets() -> Iterable[tuple[str, str]]:
    from ablate.data import datasets

    return [(name, (kind.__doc__ or "").partition("\n")[0]) for name, kind in datasets.DATASETS.items()]


@_silent
def templates() -> Iterable[tuple[str, str]]:
    from ablate.study.templates import TEMPLATES

    return [(name, template.about) for name, template in TEMPLATES.items()]


@_silent
def documents() -> Iterable[tuple[str, str]]:
    from ablate import documents as shipped

    return [(name, "") for name in shipped.names()]


@_silent
def settings() -> Iterable[tuple[str, str]]:
    """Complete the paths that `--set` can change, up to the `=`."""
    from ablate.study import schema

    return [(f"{path}=", about) for path, about in schema.paths().items() if "." in path]
