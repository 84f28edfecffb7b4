"""Names, links, pipes and second names in a folder that somebody else has filled lead nowhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import plain_files

LEADS_OUT = [
    "..",
    "../x",
    "a/../../x",
    "/x",
    "",
    ".",
    "a//b",
    "a/",
    "/",
    "./x",
    "a\0b",
    "a\nb",
    "n" * 256,
    7,
    None,
]


@pytest.mark.parametrize("name", LEADS_OUT, ids=repr)
def test_a_name_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    assert not plain_files.is_inner(name)
    if isinstance(name, str):
        with pytest.raises((OSError, ValueError)):
            plain_files.inner(tmp_path, name)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "ü", "a b", "/", "\0", "\\"]), min_size=1).map("/".join))
def test_a_name_that_is_taken_stays_below_its_folder(name):
    if plain_files.is_inner(name):
        assert Path(os.path.normpath(Path("/folder", name))).is_relative_to("/folder")
        assert os.path.normpath(Path("/folder", name)) == str(Path("/folder", name))


def planted(folder: Path, target: Path, kind: str) -> Path:
    """Put something in a folder that leads to `target`, or nowhere."""
    path = folder / "file"
    match kind:
        case "link":
            path.symlink_to(target)
        case "dangling link":
            path.symlink_to(target.with_name("not-there"))
        case "second name":
            path.hardlink_to(target)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    return path


KINDS = ("link", "dangling link", "second name", "pipe", "folder")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_changes_nothing_elsewhere(tmp_path, kind):
    (tmp_path / "store").mkdir()
    target = tmp_path / "target"
    target.write_text("mine")
    path = planted(tmp_path / "store", target, kind)
    if kind == "folder":
        with pytest.raises(OSError, match="irectory"):
            plain_files.write(path, b"new")
    else:
        plain_files.write(path, b"new")
        assert path.read_bytes() == b"new"
        assert not path.is_symlink()
    assert target.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "store", target]
    assert [*(tmp_path / "store").iterdir()] == [path]


@pytest.mark.parametrize("kind", KINDS)
def test_a_lock_is_no_file_elsewhere(tmp_path, kind):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "store").mkdir()
    with pytest.raises(OSError, match=r"."):
        plain_files.open_in_place(planted(tmp_path / "store", target, kind))
    assert sorted(tmp_path.iterdir()) == [tmp_path / "store", target]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "second name"])
def test_a_link_or_a_pipe_is_not_read(tmp_path, kind):
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "store").mkdir()
    with pytest.raises(OSError, match=r"."):
        plain_files.read(planted(tmp_path / "store", target, kind))


def test_a_name_with_nul_is_no_mistake_of_the_programs(tmp_path):
    path = tmp_path / "a\0b"
    for use in (plain_files.read, plain_files.open_in_place, lambda path: plain_files.write(path, b"")):
        with pytest.raises(OSError, match="Invalid"):
            use(path)


def test_a_folder_within_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="leads out"):
        plain_files.inner(tmp_path / "store", "plots/x.png")


def test_what_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), plain_files.written_aside(path) as file:
        file.writelines([b"half", "text"])
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]
