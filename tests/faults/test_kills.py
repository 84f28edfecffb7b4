"""kill -9 at random moments: every run is finished once in the end, to the bit. The long form is in `make soak`."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time

import kills
import pytest
from typer.testing import CliRunner

from ablate import cli


def with_store(folder, template):
    """The long form makes its databases itself, and is killed while it does."""
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(template, folder / "mlruns" / template.name)
    return folder


def in_this_process(folder, *options: str) -> tuple[int, str]:
    """Run the study to its end without processes, which trains the same weights. Returns its exit code and what it printed."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli.app, ["run", "killed.yaml", "--executor", "inline", *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def apart(folder) -> tuple[int, str]:
    return in_this_process(folder, "--no-fuse")


# In the quick suite a bundle loses its worker (below), and top-ups and interrupted studies their coordinator.
@pytest.mark.slow
@pytest.mark.parametrize("kills_of_it", [1, 3])
def test_a_study_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(
    tmp_path, template_store, shared_cache, monkeypatch, kills_of_it
):
    monkeypatch.setenv("ABLATE_CACHE", str(shared_cache))
    expected = kills.undisturbed(with_store(tmp_path / "undisturbed", template_store), apart)
    assert len(expected) == kills.RUNS
    draw = random.Random(0)
    victims = draw.sample(kills.VICTIMS, kills_of_it)
    killed = with_store(tmp_path / "killed", template_store)
    assert kills.survive(killed, expected, draw, victims, apart).wrong == []


HOLD = """
import os, sys, time

saves = 0

def hold(event, arguments):
    global saves
    if event == "open" and "/together-" in (place := str(arguments[0])) and place.endswith(".tmp"):
        saves += 1
        while saves == 2 and not os.path.exists({go!r}):
            time.sleep(0.005)

sys.addaudithook(hold)
"""
"""What Python imports when it begins: a bundle waits before its second checkpoint, so that nobody can be too late to kill it."""


@pytest.mark.parametrize(
    "victims", [("worker",), pytest.param(("coordinator", "worker"), marks=pytest.mark.slow)], ids="+".join
)
def test_a_bundle_that_is_killed_resumes_together(
    tmp_path, template_store, shared_cache, monkeypatch, victims
):
    # One cache: what the measurement decides in one folder holds in the other.
    monkeypatch.setenv("ABLATE_CACHE", str(shared_cache))
    folders = [tmp_path / "undisturbed", tmp_path / "killed"]
    for folder in folders:
        with_store(folder, template_store)
        (folder / "killed.yaml").write_text(kills.TOGETHER)
    undisturbed, folder = folders
    code, said = in_this_process(undisturbed)
    assert code == 0, said

    def saved() -> set:
        return {path.stat().st_mtime_ns for path in folder.glob("mlruns/checkpoints/together-*.checkpoint")}

    go = tmp_path / "go"
    (tmp_path / "sitecustomize.py").write_text(HOLD.format(go=str(go)))
    held = {"PYTHONPATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))}
    for victim in victims:
        before = saved()
        with kills.start(folder, "--workers", "1", variables=held) as process:
            while not saved() - before and process.poll() is None:
                time.sleep(0.005)
            assert kills.kill(victim, process, random.Random(0)), "it was over too soon"
            if victim == "worker":
                go.touch()
                assert process.wait(600) == 0
    assert kills.wrong(folder, kills.weights(undisturbed)) == []
    with contextlib.closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as db:
        tags = (
            "SELECT key, count(*) FROM tags JOIN runs USING (run_uuid) WHERE status = 'FINISHED' GROUP BY key"
        )
        counts = dict(db.execute(tags).fetchall())
    # The two that train together go on where they were, as one.
    assert counts["ablate.resumed"] == counts["ablate.fused"] == 2


SEARCH = f"""{kills.BASE}  training: {{epochs: 4, batch_size: 32}}
factors:
  optimizer.lr: {{log: [1e-3, 1]}}
  model.width: {{int: [4, 16]}}
design: search
search: {{trials: 8, pruner: asha, candidates: 2}}
seeds: 2
"""
TRIED_AND_CONFIRMED = 8 + 2 * 3


@pytest.mark.slow
def test_a_search_that_is_killed_resumes_and_runs_no_further_trials(tmp_path):
    (tmp_path / "killed.yaml").write_text(SEARCH)
    for ended in (2, 3):
        with kills.start(tmp_path) as process:
            assert process.stderr is not None
            lines = (line for line in process.stderr if line.startswith("["))
            for _ in range(ended):
                next(lines)
            os.killpg(process.pid, signal.SIGKILL)
    with kills.start(tmp_path) as process:
        assert process.wait(600) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "mlruns/mlflow.db")) as db:
        states = dict(db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())
        keys = db.execute(
            "SELECT count(*) FROM tags JOIN runs USING (run_uuid) WHERE key = 'ablate.key' AND status = 'FINISHED' "
            "GROUP BY tags.value"
        ).fetchall()
    assert states.keys() <= {"FINISHED", "KILLED"}
    assert keys == [(1,)] * TRIED_AND_CONFIRMED
    assert not list((tmp_path / "mlruns" / "spool").iterdir())
