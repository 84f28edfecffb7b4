"""docs/own.md: what it shows of a user's own training runs as it stands there."""

from __future__ import annotations

import re
import sys
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


def test_the_model_of_the_page_trains_the_study_of_the_page(workplace):
    """In a worker process, which imports it by itself."""
    text = section("A model")
    (code,), (study,) = blocks(text, "python"), blocks(text, "yaml")
    Path("nets.py").write_text(code)
    Path("model.yaml").write_text(study)
    assert "Conv2d: 1-1" in workplace.ablate("models", "nets:build", "--input", "1x8x8")
    assert "would import 'nets'" in workplace.ablate("run", "model.yaml", code=2)
    workplace.ablate("run", "model.yaml", "--allow-import", "nets", "--workers", "1")
    arms = {run.data.tags["ablate.arm"] for run in workplace.runs("model")}
    assert arms == {"baseline", "model.args.width=16", "model.args.dropout=0.2"}
    assert all(0 <= run.data.metrics["val/f1_macro"] <= 1 for run in workplace.runs("model"))
    sys.modules.pop("nets", None)


def test_the_data_of_the_page_train_the_study_of_the_page(workplace):
    text = section("Data")
    (code,), (study,) = blocks(text, "python"), blocks(text, "yaml")
    Path("load.py").write_text(code)
    Path("data.yaml").write_text(study)
    assert "would import 'load'" in workplace.ablate("run", "data.yaml", code=2)
    workplace.ablate("run", "data.yaml", "--allow-import", "load", "--executor", "inline")
    assert len(workplace.runs("data")) == 6
    assert "classes     3" in workplace.ablate("data", "--study", "data.yaml", "--allow-import", "load")
    sys.modules.pop("load", None)
