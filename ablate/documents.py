"""The documentation and the studies that come with ablate: files of the repository, which an installed package has too."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from ablate.errors import StudyError
from ablate.text import cut

_SHARED = "share/ablate"
"""Folder of an environment in which an installed package has them, as pyproject.toml says."""


def root() -> Path:
    """Return the folder that holds `docs` and `studies`. Raises StudyError where this installation has none."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "docs").is_dir():
        return checkout
    from importlib import metadata

    mark = f"{_SHARED}/docs/own.md"
    for file in metadata.files("ablate") or ():
        path = Path(str(file.locate()))
        if str(file).endswith(mark) and path.is_file():
            return path.resolve().parents[1]
    raise StudyError("this installation has no documentation", hint="install ablate from its wheel")


def names() -> dict[str, Path]:
    """Return what there is by its name: pages of docs, `own`, and files of studies, `studies/width.yaml`; pages first."""
    folder = root()
    pages = sorted((folder / "docs").glob("*.md")) + sorted((folder / "docs" / "fields").glob("*.md"))
    studies = sorted((folder / "studies").glob("**/*.yaml"))
    examples = sorted(path for path in (folder / "docs" / "examples").glob("**/*") if path.is_file())
    return {
        **{path.relative_to(folder / "docs").with_suffix("").as_posix(): path for path in pages},
        **{
            path.relative_to(folder / "docs").as_posix(): path
            for path in examples
            if "__pycache__" not in path.parts
        },
        **{path.relative_to(folder).as_posix(): path for path in studies},
    }


def find(name: str) -> Path:
    """Return the file of that name; its ending, and the folder `docs` or `studies`, may be left out. Raises StudyError."""
    known = names()
    plain = name.removeprefix("docs/")
    for candidate in (
        plain,
        plain.removesuffix(".md"),
        f"studies/{plain}",
        f"studies/{plain}.yaml",
        f"{plain}.yaml",
    ):
        if candidate in known:
            return known[candidate]
    close = difflib.get_close_matches(plain, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "`ablate docs` lists them"
    raise StudyError(f"there is no page {cut(name)!r}", place="docs", hint=hint)


def listing(width: int | None = None) -> str:
    """Return a line for each page and study: its name, and its title or question. width: at which lines are cut; None: nowhere."""
    known = names()
    longest = max(map(len, known))
    lines = [f"{name:{longest}}  {_title(path)}".rstrip() for name, path in known.items()]
    return "\n".join(lines if width is None else (cut(line, width) for line in lines))


def _title(path: Path) -> str:
    """Return the heading of a page, or the question of a study."""
    pattern = r"^# (.*)" if path.suffix == ".md" else r"^question: (.*)"
    found = re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else ""
