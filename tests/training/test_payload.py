"""The folders of runs."""

from __future__ import annotations

import pytest

from ablate.errors import TrainingError
from ablate.training.payload import NO_FOLDERS, Folders


def test_every_attempt_of_a_run_begins_in_an_empty_folder_unless_it_resumes(tmp_path):
    folders = Folders.under(tmp_path)
    with folders.run("key") as folder:
        assert folder == tmp_path / "runs" / "key"
        (folder / "left").mkdir()
        (folder / "left" / "file").write_text("by the first attempt")
    with folders.run("key", keep=True) as folder:
        assert (folder / "left" / "file").exists()
    with folders.run("other") as other:
        assert other != folder
    with folders.run("key") as folder:
        assert list(folder.iterdir()) == []


def test_where_nothing_is_kept_the_folder_of_a_run_is_gone_afterwards():
    with NO_FOLDERS.run("key") as folder:
        (folder / "file").write_text("")
    assert not folder.exists()


def test_a_relative_store_has_absolute_run_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Folders.under(tmp_path.relative_to(tmp_path)).run("key") as folder:
        assert folder == tmp_path / "runs" / "key"


def test_a_run_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with (
        pytest.raises(
            TrainingError, match=r"^the folder of the run cannot be made: Not a directory: .*runs/key"
        ),
        Folders.under(tmp_path).run("key"),
    ):
        pass
