"""docs/own.md: what it shows of a user's own training runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlparse

PAGE = (Path(__file__).parent.parent / "docs" / "own.md").read_text()


def section(title: str) -> str:
    """The text of a section of the page, to the next of its level."""
    return re.split(r"^## ", PAGE.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_function_of_the_page_trains_the_study_of_the_page(workplace):
    text = section("A function")
    (code,), (study,) = blocks(text, "python"), blocks(text, "yaml")
    Path("fit.py").write_text(code)
    Path("study.yaml").write_text(study)
    said = workplace.ablate("run", "study.yaml", "--allow-import", "fit", "--workers", "1")
    assert "clearly helps" in said
    for run in workplace.runs("own"):
        assert {"val/accuracy", "test/accuracy"} <= run.data.metrics.keys()
        assert "ablate.left_behind" not in run.data.tags
        artifacts = Path(urlparse(run.info.artifact_uri).path)
        assert (artifacts / "notes.txt").read_text() == "kept with the run\n"
