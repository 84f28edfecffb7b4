"""A working folder may hold files with the names of any module: none of our processes runs them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from importlib import metadata
from pathlib import Path

import pytest
from free_ports import free_port

import ablate

HERE = Path(__file__).parent
ROOT = Path(ablate.__file__).parent.parent

SCRIPT = """
import sys
sys.path.append({executors!r})
import scripted
from ablate.events import Bundle
from ablate.executors.local import LocalExecutor, cpu_slots
if __name__ == "__main__":
    with LocalExecutor(scripted.train, cpu_slots(1), ("scripted",)) as executor:
        executor.submit(Bundle((scripted.task("r", ("environment", "PYTHONSAFEPATH"), "finish"),)), executor.slots[0])
        events = []
        while len(events) < 2:
            events += executor.wait(60)
        print(events[0].facts)
"""

STUDY = """
study: trapped
metric: val/accuracy
margin: 2
seeds: [1]
baseline: {data: {name: digits, subset: 100}, model: {name: cnn, width: 4}, training: {epochs: 1}}
factors: {optimizer.lr: [0.02]}
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """A folder with a file for every module of Python's library and of every installed package, each of which leaves a mark."""
    folder = tmp_path / "folder"
    folder.mkdir()
    names = {*sys.stdlib_module_names, *metadata.packages_distributions()}
    names |= {"sitecustomize", "usercustomize", "conftest", "gunicorn.conf"}
    trap = f"open({str(tmp_path / 'mark')!r}, 'a').write(__file__ + chr(10))\nraise ImportError('a trap')\n"
    for name in names:
        if "/" not in name and not name.startswith(("ablate", "__editable__")):
            (folder / f"{name}.py").write_text(trap)
    (folder / "x.pth").write_text(f"import os; open({str(tmp_path / 'mark')!r}, 'a').write('pth')\n")
    return folder


def run(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> str:
    """Run Python in a folder, and return what it printed. Nothing in the folder has been run afterwards."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not (folder.parent / "mark").exists(), (folder.parent / "mark").read_text()
    return ran.stdout


def test_traps_are_sprung_by_what_looks_in_the_folder(trapped):
    subprocess.run([sys.executable, "-c", "import selectors"], cwd=trapped, capture_output=True, check=False)
    assert (trapped.parent / "mark").exists()


def test_the_module_does_not_look_in_the_folder(trapped):
    run(trapped, "-m", "ablate", "--version")


def test_workers_do_not_look_in_the_folder_and_what_they_start_is_free_to(trapped):
    script = trapped.parent / "script.py"
    script.write_text(SCRIPT.format(executors=str(HERE / "executors")))
    assert run(trapped, str(script)) == "{'PYTHONSAFEPATH': None}\n"
    assert run(trapped, str(script), variables={"PYTHONSAFEPATH": "yes"}) == "{'PYTHONSAFEPATH': 'yes'}\n"


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_study_does_not_look_in_the_folder(trapped, shared_cache, executor):
    pytest.importorskip("ray")
    (trapped / "study.yaml").write_text(STUDY)
    cache = {"ABLATE_CACHE": str(shared_cache)}
    options = ["--executor", executor, "--workers", "1", "--quiet"]
    run(trapped, "-m", "ablate", "run", "study.yaml", *options, variables=cache)
    run(trapped, "-m", "ablate", "report", "trapped", variables=cache)


@pytest.mark.slow
def test_mlflows_pages_do_not_look_in_the_folder(trapped):
    port = free_port()
    command = [sys.executable, "-m", "ablate", "ui", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = trapped.parent / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=trapped, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            while server.poll() is None:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        assert answer.status == 200
                    break
                except OSError:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        server.wait(0.2)
            assert server.poll() is None, log.read_text()
        finally:
            server.terminate()
            server.wait(30)
    assert not (trapped.parent / "mark").exists(), (trapped.parent / "mark").read_text()
