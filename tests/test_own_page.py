"""docs/own.md: what it shows of a user's own training runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlparse

import yaml

from ablate import reporting
from ablate.training import left_figures

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "own.md").read_text()


def section(title: str) -> str:
    """The text of a section of the page, to the next of its level."""
    return re.split(r"^## ", PAGE.partition(f"## {title}\n")[2], flags=re.MULTILINE)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_command_of_the_page_trains_the_study_of_the_page(workplace):
    """From the command line that `init` takes to the report, by the commands of the page."""
    text = section("A command")
    (code,), (study,), (commands,) = blocks(text, "python"), blocks(text, "yaml"), blocks(text, "bash")
    Path("train.py").write_text(code)
    told = []
    for line in commands.splitlines():
        program, *options = shlex.split(line, comments=True)
        assert program == "ablate"
        here = ["--executor", "inline"] if options[0] == "run" and "--try" not in options else []
        told.append(workplace.ablate(*options, *here))
    written = yaml.safe_load(Path("mine.yaml").read_text())
    assert written == yaml.safe_load(study)
    _, tried, planned, said, _ = told
    assert "accuracy: found 2 times" in tried
    assert "another seed changes it" in planned
    assert "lr=0.2 · seed 4: finished" in said
    assert "Learning rate 0.2 clearly helps" in said
    assert len(workplace.runs("mine")) == 15
    assert Path("reports/mine.html").exists()


def test_what_the_page_links_to_is_there():
    """Files, and headings of other pages."""
    for target in re.findall(r"\]\(([^)#]+(?:#[^)]*)?)\)", PAGE):
        file, _, heading = target.partition("#")
        there = DOCS / file
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            names = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in names, target


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


def test_the_figures_of_the_page_stand_in_the_report(workplace):
    text = section("Figures")
    (code,), (study,) = blocks(text, "python"), blocks(text, "yaml")
    Path("draw.py").write_text(code)
    Path("figures.yaml").write_text(study)
    workplace.ablate("run", "figures.yaml", "--allow-import", "draw", "--executor", "inline")
    logged = reporting.material(workplace.store, "figures").figures
    assert logged.seed == 0
    assert {arm: set(files) for arm, files in logged.files.items()} == {
        "baseline": {"figures/losses.html", "figures/bar.svg"},
        "lr=0.2": {"figures/losses.html", "figures/bar.svg"},
    }
    workplace.ablate("report", "figures")
    page = Path("reports/figures.html").read_text()
    for name in ("losses.html", "bar.svg"):
        assert f"<h4>{name}</h4>" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    sys.modules.pop("draw", None)


def test_figures_are_kept_past_links_and_within_bounds(tmp_path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"secret")
    folder = tmp_path / "run" / left_figures.FOLDER
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.PNG").write_bytes(b"a")
    (folder / "notes.txt").write_bytes(b"no figure")
    (folder / "link.png").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "large.png").write_bytes(b"x" * (left_figures.MOST_BYTES + 1))
    os.mkfifo(folder / "pipe.png")
    logged = tmp_path / "run" / "mlflow" / "0" / "abc" / "artifacts"
    logged.mkdir(parents=True)
    (logged / "b.svg").write_bytes(b"b")
    assert left_figures.left_figures(tmp_path / "run") == {"figures/deep/a.PNG": b"a", "figures/b.svg": b"b"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / left_figures.FOLDER).symlink_to(tmp_path)
    assert left_figures.left_figures(tmp_path / "other") == {}
