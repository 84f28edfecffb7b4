"""Code that a study names runs only where the user allowed it; a file that came with the folder does so aloud."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable

import pytest

from ablate import launch
from ablate.errors import StudyError
from ablate.study import spec
from ablate.study.keys import Study

FUNCTION = "study: s\nmargin: 0.01\nmetric: val/loss\ntrain: toy:fit\nbaseline: {gain: 0}\nfactors: {gain: [1]}\nseeds: 3\n"
COMMAND = 'study: s\nmargin: 0.01\nmetric: val/loss\ncommand: [python, train.py, "{gain}", "{seed}"]\nmetrics: {val/loss: {line: "loss (.*)"}}\nbaseline: {gain: 0}\nfactors: {gain: [1]}\nseeds: 3\n'


def said(study: Study, imports: tuple[str, ...] = (), *, commands: bool = False) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        launch.check_permission(study, {"imports": imports, "commands": [commands]})
    return printed.getvalue()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Callable[[str], None]:
    """A folder whose pyproject.toml holds what the function is given below [tool.ablate]."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    return lambda text: (tmp_path / "pyproject.toml").write_text(f"[tool.ablate]\n{text}\n") and None


@pytest.mark.parametrize(("text", "setting"), [(FUNCTION, 'imports = ["toy"]'), (COMMAND, "commands = true")])
def test_what_a_file_permits_is_said_once_and_again_where_it_permits_more(project, tmp_path, text, setting):
    study = spec.parse(text)
    with pytest.raises(StudyError, match="which you have not allowed"):
        said(study)
    project(setting)
    line = said(study)
    assert line.startswith(
        f"{tmp_path / 'pyproject.toml'} permits the code of this study: {setting.split(' =')[0]} = "
    )
    assert len(line.splitlines()) == 1
    assert said(study) == ""
    project('imports = ["toy", "evil"]\ncommands = true')
    assert '"evil"' in said(study)
    assert said(study) == ""


def test_what_the_command_line_allows_needs_no_word(project):
    project('imports = ["toy"]\ncommands = true')
    assert said(spec.parse(FUNCTION), ("toy",)) == ""
    assert said(spec.parse(COMMAND), commands=True) == ""
    assert "permits" in said(spec.parse(FUNCTION))


def test_where_nothing_can_be_remembered_it_is_said_each_time(project, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    project('imports = ["toy"]')
    assert said(spec.parse(FUNCTION)) == said(spec.parse(FUNCTION)) != ""


def test_a_file_of_permissions_that_is_no_file_permits_nothing(project, tmp_path):
    study = spec.parse(FUNCTION)
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):  # fmt: skip
        make(tmp_path / "pyproject.toml")
        with pytest.raises(StudyError, match="which you have not allowed"):
            said(study)
        path = tmp_path / "pyproject.toml"
        path.rmdir() if path.is_dir() else path.unlink()
    with (tmp_path / "pyproject.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StudyError, match="too large"):
        said(study)
