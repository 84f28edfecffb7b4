"""Figures that the user's code leaves in the folder of its run: they are kept with the run, and the report shows them."""

from __future__ import annotations

import os
from pathlib import Path

from ablate import plain_files
from ablate.figure_files import FOLDER, KINDS

MOST_BYTES = 10 << 20
"""Of one figure that is kept."""

MOST_FIGURES = 200
"""Of one run."""


def left_figures(folder: Path) -> dict[str, bytes]:
    """Return what a run left under `figures/` of its folder, and the figures that it logged to MLflow, name of the artifact → content.

    folder: of the run, with the store of its own that MLflow is given there (`surroundings.scratch_mlflow`). Links, other kinds of
    files, and what is larger than `MOST_BYTES` stay where they are.
    """
    figures: dict[str, bytes] = {}
    for root in (folder / FOLDER, *sorted(folder.glob("mlflow/*/*/artifacts"))):
        for path in _files(root) if not root.is_symlink() else ():
            name = path.relative_to(root).as_posix().removeprefix(f"{FOLDER}/")
            if len(figures) < MOST_FIGURES and (content := _content(path)) is not None:
                figures.setdefault(f"{FOLDER}/{name}", content)
    return figures


def _files(root: Path) -> list[Path]:
    """Return the files of the kinds of figures below a folder, past no link."""
    return sorted(
        Path(place) / name
        for place, _, names in os.walk(root)
        for name in names
        if Path(name).suffix.lower() in KINDS
        and plain_files.is_inner((Path(place) / name).relative_to(root).as_posix())
    )


def _content(path: Path) -> bytes | None:
    try:
        with plain_files.open_plain(path) as file:
            content = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MOST_BYTES else None
