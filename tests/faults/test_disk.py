"""Disks that are full or read-only, and databases of another MLflow: one clear line, and nothing is damaged."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from stores import copy_store

from ablate.cli import main

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


class Disk:
    """A file system of its own, of a given size in KiB."""

    def __init__(self, place, size: int) -> None:
        self.place = place
        self._mount("-t", "tmpfs", "-o", f"size={size}k", "tmpfs")

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments, str(self.place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("mounting a small disk needs root")

    def change(self, options: str) -> None:
        self._mount("-o", f"remount,{options}")


@pytest.fixture
def disk(workplace, monkeypatch):
    """A disk that takes an empty store and little more, as the working folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = workplace.root / "disk"
    place.mkdir()
    made = Disk(place, (place.parent / "mlruns" / "mlflow.db").stat().st_size // 1024 + 78)
    try:
        for name in ("toy.py", "pyproject.toml"):
            shutil.copy(workplace.root / name, place / name)
        shutil.copytree(workplace.root / "mlruns", place / "mlruns")
        shutil.copy(workplace.study(factors="{gain: [0.2]}", seeds="20"), place / "toy.yaml")
        monkeypatch.chdir(place)
        yield made
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def ablate(monkeypatch, capfd):
    """Run a command in this process, to its exit code. Returns that, and what was printed on either stream."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ablate", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, "".join(capfd.readouterr())

    return run


def test_a_full_disk_is_reported_in_one_line_and_the_study_resumes_when_there_is_space(disk, ablate):
    # In a process of its own: what its threads print, and what it prints as it ends, counts as well.
    command = [*ABLATE, "run", "toy.yaml", "--executor", "inline", "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "\n".join(line for line in done.stderr.splitlines() if "permits the code" not in line)
    assert done.returncode == 2
    assert [line for line in said.splitlines() if line.startswith("error: ")] == said.splitlines()[:1]
    assert "No space left on device" in said
    disk.change("size=20m")
    code, said = ablate("run", "toy.yaml", "--executor", "inline", "-q")
    assert code == 0, said
    with sqlite3.connect("mlruns/mlflow.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = db.execute(
            "SELECT count(*), count(DISTINCT k.value) FROM runs r JOIN tags k ON k.run_uuid = r.run_uuid "
            "AND k.key = 'ablate.key' WHERE r.status = 'FINISHED'"
        ).fetchone()
    assert counted == (40, 40)


def test_a_read_only_folder_is_reported_in_one_line_and_its_studies_can_be_reported(workplace, disk, ablate):
    disk.change("size=20m")
    with contextlib.chdir(workplace.root):
        workplace.ablate("run", "disk/toy.yaml", "--executor", "inline", "--seeds", "3", "-q")
    # A file system with a database that this process holds open could not be made read-only.
    copy_store(workplace.root / "mlruns", disk.place / "mlruns")
    disk.change("ro")
    code, said = ablate("run", "toy.yaml", "--executor", "inline", "--seeds", "4")
    assert code == 2
    assert "Read-only file system" in said
    assert "Traceback" not in said
    code, said = ablate("report", "toy", "--format", "md")
    assert code == 0, said
    assert "gain" in said


def test_a_database_of_another_mlflow_is_named_before_much_is_trained_and_left_as_it_is(workplace, ablate):
    database = workplace.root / "mlruns/mlflow.db"
    with sqlite3.connect(database) as db:
        db.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    before = database.read_bytes()
    code, said = ablate("run", workplace.study(seeds="4"), "--executor", "inline")
    assert code == 2
    assert "another version of MLflow" in said
    assert "mlflow db upgrade" in said
    assert "Traceback" not in said
    assert database.read_bytes() == before


@pytest.mark.parametrize(
    "what", ["removed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("moved", "store moved"))]
)
def test_a_project_that_goes_while_it_runs_is_named_and_continues_where_it_lies(workplace, what):
    project, elsewhere = workplace.root / "project", workplace.root / "elsewhere"
    project.mkdir()
    (project / "goes.py").write_text(
        "import shutil\nfrom pathlib import Path\n"
        f"PROJECT, ELSEWHERE, WHAT = Path({str(project)!r}), Path({str(elsewhere)!r}), {what!r}\n"
        "def train(config, seed):\n"
        "    yield {'accuracy': seed + config['gain']}\n"
        "    if seed == 1 and PROJECT.exists() and not ELSEWHERE.exists():\n"
        "        if WHAT == 'removed':\n            shutil.rmtree(PROJECT)\n"
        "        else:\n            (PROJECT if WHAT == 'moved' else PROJECT / 'mlruns').rename(ELSEWHERE)\n"
        "    yield {'accuracy': seed + config['gain']}\n"
    )
    study = "train: goes:train\nmetric: accuracy\nmargin: 1\nseeds: 3\nbaseline: {gain: 0}\nfactors: {gain: [2]}\nstudy: goes\n"
    (project / "goes.yaml").write_text(study)
    command = [*ABLATE, "run", "goes.yaml", "--allow-import", "goes", "--executor", "inline", "-q"]
    first = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    gone = project / "mlruns" if what == "store moved" else project
    assert first.returncode == 2, first.stderr
    errors = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {gone}: has been moved or removed while the command ran"], first.stderr
    assert "Traceback" not in first.stderr
    if what == "removed":
        return
    if what == "store moved":
        shutil.rmtree(gone, ignore_errors=True)  # what was being written in that moment
        elsewhere.rename(gone)
        elsewhere.mkdir()
    place = elsewhere if what == "moved" else project
    second = subprocess.run([*command, "--json"], cwd=place, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert '"effect": 2.0' in second.stdout
