"""Figures of the user's own training: which files are figures, and those that a report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FOLDER = "figures"
"""Folder of a run, and of its artifacts, for figures."""

HTML = "text/html"

KINDS: Mapping[str, str] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
    ".html": HTML,
}
"""How the name of a figure ends, in small letters → what it holds."""


@dataclass(frozen=True)
class LoggedFigures:
    """files: arm → the figures of its run under `seed`, name → content. left_out: what is not among them, in sentences."""

    seed: int
    files: Mapping[str, Mapping[str, bytes]]
    left_out: tuple[str, ...] = ()
