"""Git is asked about folders of strangers: whatever their repositories name, nothing of it is run."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from ablate import repository
from ablate.training.source_files import folder_code

# What a repository can name → the command of plain git that runs it, where one of a few does.
CONFIGS: dict[str, tuple[dict[str, str], str | None]] = {
    "monitor": ({"core.fsmonitor": "EVIL"}, "status"),
    "hooks": ({"core.hooksPath": "HOOKS"}, "update-index --refresh"),
    "clean": ({"filter.f.clean": "EVIL"}, "diff HEAD"),
    "clean, required": ({"filter.f.clean": "EVIL", "filter.f.required": "true"}, "diff HEAD"),
    "process": ({"filter.f.process": "EVIL"}, "diff HEAD"),
    "smudge": ({"filter.f.smudge": "EVIL"}, None),
    "filter of an odd name": ({"filter.f .G-2.clean": "EVIL"}, "diff HEAD"),
    "filter with an equals sign": ({"filter.f=f.clean": "EVIL"}, "diff HEAD"),
    "textconv": ({"diff.d.textconv": "EVIL"}, "diff HEAD"),
    "driver": ({"diff.d.command": "EVIL"}, "diff HEAD"),
    "external": ({"diff.external": "EVIL"}, "diff HEAD"),
    "pager": ({"core.pager": "EVIL", "pager.diff": "EVIL", "pager.describe": "EVIL"}, None),
    "aliases": ({f"alias.{name}": "!EVIL" for name in ("describe", "diff", "ls-files", "config")}, None),
    "ssh": ({"core.sshCommand": "EVIL", "core.gitProxy": "EVIL", "credential.helper": "EVIL"}, None),
    "signatures": ({"gpg.program": "EVIL", "log.showSignature": "true"}, None),
    "editor": ({"core.editor": "EVIL", "core.askPass": "EVIL", "core.alternateRefsCommand": "EVIL"}, None),
    "included": ({"include.path": "INCLUDED"}, "diff HEAD"),
    "included by the folder": ({"includeIf.gitdir:/.path": "INCLUDED"}, "diff HEAD"),
    "of the worktree": ({"extensions.worktreeConfig": "true"}, "diff HEAD"),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A program that leaves a mark, and a way to make repositories that are not seen from outside."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path / 'mark'}\ncat 2>/dev/null\n")
    evil.chmod(0o755)
    (tmp_path / "hooks").mkdir()
    for hook in ("post-index-change", "pre-auto-gc", "fsmonitor-watchman", "reference-transaction"):
        (tmp_path / "hooks" / hook).symlink_to(evil)
    (tmp_path / "included").write_text(f'[filter "f"]\n\tclean = {evil}\n')
    return tmp_path


def git(folder: Path, *arguments: str, check: bool = True) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "init.templateDir="]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=check, capture_output=True, timeout=20)


def committed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    filters = "".join(f"*.txt filter={name} diff=d\n" for name in ("f",))
    (folder / ".gitattributes").write_text(filters)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "data.txt").write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def filled(value: str, stand_ins: Mapping[str, str]) -> str:
    for word, stand_in in stand_ins.items():
        value = value.replace(word, stand_in)
    return value


def hostile(place: Path, settings: Mapping[str, str]) -> Path:
    """Return a repository with settings, and with a file that git has to read to know whether it has changed."""
    folder = committed(place / "clone")
    stand_ins = {
        "EVIL": str(place / "evil"),
        "HOOKS": str(place / "hooks"),
        "INCLUDED": str(place / "included"),
    }
    attributes = (folder / ".gitattributes").read_text()
    for name, value in settings.items():
        git(folder, "config", name, filled(value, stand_ins))
        if name.startswith("filter.") and not name.startswith("filter.f."):
            attributes = f"*.txt filter={name.split('.')[1].split()[0]}\n"
    (folder / ".gitattributes").write_text(attributes)
    if "extensions.worktreeConfig" in settings:
        (folder / ".git" / "config.worktree").write_text((place / "included").read_text())
    if any(name.startswith("diff.") for name in settings):
        (folder / "data.txt").write_text("2\n")
    os.utime(folder / "data.txt", (1, 1))
    return folder


def asked(folder: Path) -> str | None:
    folder_code(folder)
    return repository.state(folder)


@pytest.mark.parametrize("kind", CONFIGS)
def test_nothing_that_a_repository_names_is_run(place, kind):
    settings, plain = CONFIGS[kind]
    folder = hostile(place, settings)
    commit = asked(folder)
    assert not (place / "mark").exists()
    if kind == "filter with an equals sign":
        assert commit is None, "it cannot be switched off by `-c`"
    else:
        assert commit is not None
        assert commit.removesuffix("-dirty").isalnum()
    if plain is not None and kind not in ("filter of an odd name", "filter with an equals sign"):
        git(folder, *plain.split(), check=False)
        assert (place / "mark").exists(), "the trap does not work"


@pytest.mark.parametrize(
    "settings", [{"core.fsmonitor": "EVIL"}, {"filter.f.clean": "EVIL"}], ids=["monitor", "filter"]
)
def test_nothing_that_a_submodule_names_is_run(place, settings):
    inner = hostile(place, settings)
    outer = committed(place / "outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "inner")
    git(outer, "commit", "-qm", "second")
    for name, value in settings.items():
        git(outer / "inner", "config", name, value.replace("EVIL", str(place / "evil")))
    (place / "mark").unlink(missing_ok=True)
    (outer / "inner" / "data.txt").write_text("2\n")
    assert asked(outer) is not None
    assert not (place / "mark").exists()


def test_what_is_missing_from_a_partial_clone_is_not_fetched(place):
    folder = committed(place / "clone")
    for name, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ext::touch {place / 'mark'}",
        "remote.origin.uploadpack": f"touch {place / 'mark'};",
        "remote.origin.promisor": "true",
        "protocol.ext.allow": "always",
        "protocol.file.allow": "always",
    }.items():
        git(folder, "config", name, value)
    for thing in (folder / ".git" / "objects").glob("??/*"):
        thing.unlink()
    os.utime(folder / "data.txt", (1, 1))
    asked(folder)
    assert not (place / "mark").exists()
    git(folder, "cat-file", "-p", "HEAD", check=False)
    assert (place / "mark").exists(), "the trap does not work"


@pytest.mark.parametrize(
    "variables",
    [
        {"GIT_EXTERNAL_DIFF": "EVIL", "GIT_PAGER": "EVIL", "GIT_SSH_COMMAND": "EVIL", "GIT_EDITOR": "EVIL"},
        {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.fsmonitor", "GIT_CONFIG_VALUE_0": "EVIL"},
        {"GIT_CONFIG_PARAMETERS": "'core.fsmonitor=EVIL'"},
        {"GIT_CONFIG_GLOBAL": "INCLUDED", "GIT_CONFIG_SYSTEM": "INCLUDED"},
        {"GIT_EXEC_PATH": "PROGRAMS"},
        {"GIT_DIR": "OTHER"},
    ],
    ids="+".join,
)
def test_no_variable_of_gits_makes_it_run_anything(place, monkeypatch, variables):
    folder = committed(place / "other")
    clean = asked(folder)
    git(folder, "config", "core.fsmonitor", str(place / "evil"))
    (place / "programs").mkdir()
    for name in ("git-describe", "git-diff", "git-ls-files"):
        (place / "programs" / name).symlink_to(place / "evil")
    files = {"EVIL": "evil", "INCLUDED": "included", "PROGRAMS": "programs", "OTHER": "other/.git"}
    stand_ins = {word: str(place / file) for word, file in files.items()}
    for name, value in variables.items():
        monkeypatch.setenv(name, filled(value, stand_ins))
    os.utime(folder / "data.txt", (1, 1))
    assert asked(folder) == clean
    assert not (place / "mark").exists()


def test_a_program_called_git_in_the_folder_is_not_run(place, monkeypatch):
    folder = committed(place / "clone")
    (folder / "git").symlink_to(place / "evil")
    monkeypatch.chdir(folder)
    for path in (".", "", f".{os.pathsep}/usr/bin"):
        monkeypatch.setenv("PATH", path)
        assert asked(folder) is None
    assert not (place / "mark").exists()


def test_a_change_is_told_from_a_touch(place):
    folder = committed(place / "clone")
    commit = asked(folder)
    assert commit is not None
    os.utime(folder / "data.txt", (1, 1))
    assert repository.state(folder) == commit
    (folder / "new.txt").write_text("not tracked\n")
    assert repository.state(folder) == commit
    (folder / "data.txt").write_text("2\n")
    assert repository.state(folder) == f"{commit}-dirty"
    git(folder, "add", ".")
    assert repository.state(folder) == f"{commit}-dirty"
    (folder / "data.txt").unlink()
    assert repository.state(folder) == f"{commit}-dirty"


def test_where_no_temporary_file_can_be_made_git_does_not_tell(place, monkeypatch):
    folder = committed(place / "clone")
    monkeypatch.setattr(tempfile, "tempdir", str(place / "missing"))
    assert repository.state(folder) is None


def test_no_other_file_calls_git():
    package = Path(repository.__file__).parent
    callers = [file.name for file in package.rglob("*.py") if '"git"' in file.read_text(encoding="utf-8")]
    assert callers == ["repository.py"]
