"""`ablate docs`: the pages and studies that come with ablate, from a checkout and from an installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ablate import documents
from ablate.cli import app
from ablate.errors import StudyError

ROOT = Path(__file__).parent.parent


def test_every_page_and_study_is_listed_and_found_by_its_name():
    known = documents.names()
    pages = {path for path in (ROOT / "docs").glob("**/*.md") if "examples" not in path.parts}
    studies = set((ROOT / "studies").glob("**/*.yaml"))
    assert pages | studies <= set(known.values())
    for name, path in known.items():
        assert documents.find(name) == path
    for name in ("docs/own.md", "own.md", "own"):
        assert documents.find(name) == ROOT / "docs" / "own.md"
    assert documents.find("width.yaml") == documents.find("studies/width") == ROOT / "studies" / "width.yaml"


def test_the_wheel_carries_every_page_and_study():
    """What pyproject.toml says, without building one; below a wheel is built."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    carried = {
        f"{target}/{file.name}"
        for target, patterns in told.items()
        for pattern in patterns
        for file in ROOT.glob(pattern)
    }
    assert {
        f"share/ablate/{path.relative_to(ROOT).as_posix()}" for path in documents.names().values()
    } <= carried


@pytest.mark.parametrize(
    ("name", "hint"), [("owm", "did you mean 'own'?"), ("../README", "lists them"), ("", "lists them")]
)
def test_a_page_that_is_not_there_is_named_with_the_nearest(name, hint):
    with pytest.raises(StudyError, match="no page") as error:
        documents.find(name)
    assert hint in error.value.hint


def test_every_option_of_every_command_is_on_a_page_about_the_command():
    told = [ROOT / "README.md", *(path for path in (ROOT / "docs").glob("*.md") if path.name != "log.md")]
    pages = [page.read_text() for page in told]
    missing = [
        f"ablate {name} {spelling}"
        for name, command in get_command(app).commands.items()
        for option in command.params
        if option.param_type_name == "option"
        for spellings in (option.opts, option.secondary_opts)
        if spellings and not any(names(page, name, spellings) for page in pages)
        for spelling in spellings[:1]
    ]
    assert missing == []


def names(page: str, command: str, spellings: list[str]) -> bool:
    option = "|".join(map(re.escape, spellings))
    return f"ablate {command}" in page and re.search(rf"(?<![\w-])({option})(?![\w-])", page) is not None


def test_docs_prints_a_page_as_it_is():
    told = CliRunner().invoke(app, ["docs", "own"])
    assert told.stdout == (ROOT / "docs" / "own.md").read_text()
    listed = CliRunner().invoke(app, ["docs"]).stdout.splitlines()
    assert "Your own training" in next(line for line in listed if line.startswith("own "))


@pytest.mark.slow
def test_an_installed_wheel_has_pages_and_studies(tmp_path):
    """Built from what git tracks, installed without dependencies beside those of this environment."""
    source = tmp_path / "source"
    source.mkdir()
    tracked = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=source, input=tracked, check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", tmp_path, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, f"--python={python}", "install", "--no-deps", wheel], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "zz.pth").write_text(sysconfig.get_path("purelib"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def ablate(*options: str) -> str:
        command = [tmp_path / "venv" / "bin" / "ablate", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=clean, check=True, capture_output=True, text=True
        ).stdout

    assert ablate("docs", "own") == (source / "docs" / "own.md").read_text()
    (tmp_path / "mine.yaml").write_text(ablate("docs", "studies/quickstart.yaml"))
    assert "45 runs" in ablate("run", "mine.yaml", "--dry-run")
