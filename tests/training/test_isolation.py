"""Copies of the folder of a command: what is copied, what is linked, and what remains."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from file_times import wait_past

from ablate.errors import TrainingError
from ablate.training import isolation
from ablate.training.isolation import FolderCopy


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with code, data, an environment, links, and a store inside. Files of 1,000 bytes are large."""
    monkeypatch.setattr(isolation, "LARGE", 1000)
    root = tmp_path / "project"
    for name in (
        "package/sub",
        "data/images",
        "runs",
        ".git/objects",
        ".venv/bin",
        "package/__pycache__",
        "mlruns/1",
    ):
        (root / name).mkdir(parents=True)
    (root / "train.py").write_text("print('hi')\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "package/sub/net.py").write_text("x = 1\n")
    (root / "package/__pycache__/net.pyc").write_bytes(b"old")
    (root / "data/images/1.png").write_bytes(b"png")
    (root / "data.bin").write_bytes(b"x" * 1000)
    (root / ".git/HEAD").write_text("ref")
    (root / ".venv/pyvenv.cfg").write_text("home")
    (root / "mlruns/1/store").write_text("store")
    (root / "latest").symlink_to("runs")
    (root / "absolute").symlink_to(root / "train.py")
    (root / "broken").symlink_to("nowhere")
    (tmp_path / "elsewhere").write_text("far")
    (root / "elsewhere").symlink_to("../elsewhere")
    os.mkfifo(root / "fifo")
    return root


def contents(folder: Path) -> dict[str, str]:
    """Path → `link`, `folder` or the text of a file, links not followed."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(place, name)
            kind = (
                "link"
                if path.is_symlink()
                else "folder"
                if path.is_dir()
                else "fifo"
                if path.is_fifo()
                else path.read_text()
            )
            found[str(path.relative_to(folder))] = kind
    return found


def test_code_is_copied_and_what_is_large_is_linked(project):
    copy = FolderCopy(
        project, project / "mlruns/runs/1/copy", data=[Path("data/images")], without=[project / "mlruns"]
    )
    assert contents(copy.folder) == {
        "train.py": "print('hi')\n",
        "run.sh": "#!/bin/sh\n",
        "package": "folder",
        "package/sub": "folder",
        "package/sub/net.py": "x = 1\n",
        "data": "folder",
        "data/images": "link",
        "data.bin": "link",
        "runs": "folder",
        ".git": "link",
        ".venv": "link",
        "latest": "link",
        "absolute": "link",
        "broken": "link",
        "elsewhere": "link",
    }  # fmt: skip
    assert os.access(copy.folder / "run.sh", os.X_OK)
    assert (copy.folder / "data/images/1.png").read_bytes() == b"png"
    assert (copy.folder / "data.bin").stat().st_size == 1000
    assert (copy.folder / "elsewhere").read_text() == "far"
    assert (copy.folder / "absolute").resolve() == (copy.folder / "train.py").resolve()
    (copy.folder / "latest/log").write_text("of this run")
    assert not (project / "runs/log").exists()


def test_a_store_in_the_folder_is_left_out_whatever_the_paths_are(project):
    other = project.parent / "other"
    other.symlink_to(project.name)
    (project / "by_other_path").symlink_to(other / "train.py")
    with FolderCopy(
        other, project / "mlruns/copy", data=[Path("./data/../data/images")], without=[other / "mlruns"]
    ) as copy:
        assert not (copy.folder / "mlruns").exists()
        assert (copy.folder / "data/images").is_symlink()
        assert (copy.folder / "by_other_path").resolve() == copy.folder / "train.py"
    with FolderCopy(project, other / "runs/copy") as copy:
        assert contents(copy.folder)["runs"] == "folder"
        assert not (copy.folder / "runs/copy").exists()


def test_what_the_run_writes_remains_and_the_project_is_as_it_was(project):
    before = contents(project)
    with FolderCopy(project, project.parent / "copy", without=[project / "mlruns"]) as copy:
        (copy.folder / "train.py").write_text("changed\n")
        (copy.folder / "package/__pycache__").mkdir()
        (copy.folder / "package/__pycache__/net.pyc").write_bytes(b"new")
        (copy.folder / "runs/new").mkdir()
        (copy.folder / "runs/new/log").write_text("log")
        (copy.folder / "package/sub/net.py").unlink()
        copy.check()
    assert contents(copy.folder) == {
        "train.py": "changed\n",
        "runs": "folder",
        "runs/new": "folder",
        "runs/new/log": "log",
    }
    assert contents(project) == before


def test_a_run_that_wrote_nothing_leaves_nothing(project):
    with FolderCopy(project, project.parent / "copy"):
        pass
    assert not (project.parent / "copy").exists()


def test_a_run_that_writes_through_a_link_is_found_out(project):
    with FolderCopy(project, project.parent / "copy") as copy:
        wait_past(project / "data.bin")
        (copy.folder / "data.bin").write_bytes(b"y" * 1000)
        assert copy.written() == [project / "data.bin"]
        with pytest.raises(
            TrainingError, match=r"has changed data\.bin in .*project, which is too large to be copied"
        ):
            copy.check()


def test_a_run_that_replaces_a_link_changes_no_original(project):
    with FolderCopy(project, project.parent / "copy") as copy:
        (copy.folder / "data.bin").unlink()
        (copy.folder / "data.bin").write_bytes(b"own")
        copy.check()
    assert contents(copy.folder) == {"data.bin": "own"}


def test_what_an_earlier_attempt_wrote_stays_and_what_it_lacks_is_copied_again(project):
    place = project.parent / "copy"
    first = FolderCopy(project, place, without=[project / "mlruns"])
    whole = contents(place)
    (place / "train.py").write_text("changed\n")
    (place / "data.bin").unlink()
    (place / "data.bin").write_text("own")
    (place / "checkpoint").write_text("epoch 3")
    (place / "run.sh.ablate-copy").write_text("half a copy")
    (place / "run.sh").unlink()
    for tidied in (False, True):
        if tidied:
            first.tidy()
        with FolderCopy(project, place, without=[project / "mlruns"]) as copy:
            assert contents(place) == whole | {
                "train.py": "changed\n",
                "data.bin": "own",
                "checkpoint": "epoch 3",
            }
            copy.check()
        assert contents(place) == {"train.py": "changed\n", "data.bin": "own", "checkpoint": "epoch 3"}


def test_too_many_files_are_refused(project, monkeypatch):
    monkeypatch.setattr(isolation, "MOST_FILES", 5)
    with pytest.raises(TrainingError, match="more than 5 files") as caught:
        FolderCopy(project, project.parent / "copy")
    assert "data:" in caught.value.hint
    assert not (project.parent / "copy").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ENOSPC, "No space left on device", "train.py"), "No space left on device"),
     (PermissionError(errno.EACCES, "Permission denied", "train.py"), "Permission denied")],
)  # fmt: skip
def test_a_copy_that_cannot_be_made_is_told_in_a_sentence(project, monkeypatch, error, reason):
    def copy2(*_):
        raise error

    monkeypatch.setattr(shutil, "copy2", copy2)
    with pytest.raises(TrainingError) as caught:
        FolderCopy(project, project.parent / "copy")
    assert caught.value.message.endswith(f"can be made in {project.parent}: {reason}")
    assert "\n" not in caught.value.message
    assert not (project.parent / "copy").exists()


def test_a_place_where_nothing_can_be_written_is_told_in_a_sentence(project):
    (project.parent / "file").write_text("")
    with pytest.raises(TrainingError, match=r"no copy of .* can be made in .*file: Not a directory"):
        FolderCopy(project, project.parent / "file/copy")
