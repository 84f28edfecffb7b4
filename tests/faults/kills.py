"""A study that is killed at random moments, again and again, and what must hold when it is done at last.

python tests/faults/kills.py --rounds 100        a table of all rounds, for docs/reliability.md
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]
VICTIMS = ("worker", "coordinator", "process group", "forkserver")

BASE = """
study: killed
margin: 0.05
baseline:
  data: {name: digits, validation: 0.25, subset: 300}
  model: {name: cnn, depth: 1, width: 4}
  optimizer: {name: sgd, lr: 0.1}
"""

STUDY = f"""{BASE}  training: {{epochs: 4, batch_size: 32}}
factors:
  model.width: [8]
  augment.crop: [1]
seeds: 3
"""
RUNS = 9

TOGETHER = f"""{BASE}  training: {{epochs: 10, batch_size: 32}}
factors:
  optimizer.lr: [0.05]
  model.width: [8]
seeds: 1
"""
"""Three runs of one seed: two train together, the third, of another shape, by itself."""


@dataclass
class Round:
    """kills: the process that was killed, and after how many lines of progress. wrong: what did not hold, in words."""

    kills: list[tuple[str, int]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def start(folder: Path, *options: str, variables: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ABLATE, "run", "killed.yaml", *(options or ("--workers", "2", "--no-fuse"))],
        cwd=folder,
        # Runs are saved all the time, so that kills meet the saving and the taking up as well.
        env={**os.environ, "ABLATE_CHECKPOINT_EVERY": "0.02", **(variables or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def children(pid: int) -> dict[int, str]:
    """Living children of a process → their command line."""
    found = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == pid and state != "Z":
                    found[int(place.name)] = (place / "cmdline").read_text().replace("\0", " ")
    return found


def kill(victim: str, coordinator: subprocess.Popen[str], draw: random.Random) -> bool:
    """Whether there was such a process to kill."""
    forkservers = [pid for pid, command in children(coordinator.pid).items() if "forkserver" in command]
    workers = [pid for server in forkservers for pid in children(server)]
    if victim == "coordinator":
        coordinator.kill()
    elif victim == "process group":
        os.killpg(coordinator.pid, signal.SIGKILL)
    else:
        among = workers if victim == "worker" else forkservers
        if not among:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(among), signal.SIGKILL)
    return True


def disturb(folder: Path, victim: str, draw: random.Random) -> tuple[int, str]:
    """Run the study and kill one of its processes. Returns after how many runs, and what the study said."""
    after, said, reached = draw.randrange(RUNS), [], threading.Event()
    with start(folder) as process:
        assert process.stderr is not None

        def listen() -> None:
            for line in process.stderr:  # type: ignore[union-attr]
                said.append(line)
                # The first line says that the study begins, each of the others that a run has ended.
                if len(said) > after:
                    reached.set()
            reached.set()

        listener = threading.Thread(target=listen)
        listener.start()
        reached.wait()
        time.sleep(draw.uniform(0, 0.3))
        while not kill(victim, process, draw) and process.poll() is None:
            time.sleep(0.01)
        if victim in ("coordinator", "process group"):
            process.wait()
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(120)
        process.kill()
        listener.join()
    return after, "".join(said)


def weights(folder: Path) -> dict[tuple[str, str], list[str]]:
    """(arm, seed) → digests of the weights of its finished runs."""
    found: dict[tuple[str, str], list[str]] = {}
    with contextlib.closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as db:
        tags: dict[str, dict[str, str]] = {}
        for run, name, value in db.execute(
            "SELECT run_uuid, key, value FROM tags JOIN runs USING (run_uuid) WHERE status = 'FINISHED'"
        ):
            tags.setdefault(run, {})[name] = value
    for of in tags.values():
        if of.get("ablate.kind") == "replicate" and of["ablate.outcome"] != "superseded":
            found.setdefault((of["ablate.arm"], of["ablate.seed"]), []).append(of["ablate.weights"])
    return found


def wrong(folder: Path, expected: dict[tuple[str, str], list[str]]) -> list[str]:
    """What does not hold of a study that is done."""
    found = []
    seen = weights(folder)
    for run in sorted(expected.keys() | seen.keys()):
        if seen.get(run) != expected.get(run):
            found.append(f"{run}: weights {seen.get(run)}, undisturbed {expected.get(run)}")
    with contextlib.closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as db:
        [(running,)] = db.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'")
    if running:
        found.append(f"{running} runs are still RUNNING")
    left = [
        str(path.relative_to(folder))
        for pattern in ("spool/*", "checkpoints/**/*", "**/*.tmp", "**/*.part")
        for path in (folder / "mlruns").glob(pattern)
        if path.is_file()
    ]
    if left:
        found.append(f"left behind: {', '.join(left)}")
    return found


def finish(folder: Path) -> tuple[int, str]:
    """Run the study to its end. Returns its exit code and what it printed."""
    with start(folder) as process:
        _, said = process.communicate()
    return process.returncode, said


def undisturbed(
    folder: Path, finish: Callable[[Path], tuple[int, str]] = finish
) -> dict[tuple[str, str], list[str]]:
    (folder / "killed.yaml").write_text(STUDY)
    code, said = finish(folder)
    assert code == 0, said
    return weights(folder)


def survive(
    folder: Path,
    expected: dict[tuple[str, str], list[str]],
    draw: random.Random,
    victims: list[str],
    finish: Callable[[Path], tuple[int, str]] = finish,
) -> Round:
    """One round: kill as listed, one run of the study each; then let it run to its end, and look."""
    began = time.monotonic()
    (folder / "killed.yaml").write_text(STUDY)
    done = Round()
    for victim in victims:
        after, said = disturb(folder, victim, draw)
        done.kills.append((victim, after))
        if "Traceback" in said:
            done.wrong.append(f"a traceback after the {victim} was killed: {said[-2000:]}")
    code, said = finish(folder)
    if code != 0 or "Traceback" in said:
        done.wrong.append(f"the last run ended with {code}: {said[-2000:]}")
    done.wrong += wrong(folder, expected)
    done.seconds = time.monotonic() - began
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    kills, bad, seconds = Counter(), Counter(), 0.0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        first = root / "undisturbed"
        first.mkdir()
        expected = undisturbed(first)
        assert len(expected) == RUNS
        for number in range(given.rounds):
            folder = root / str(number)
            folder.mkdir()
            victims = [VICTIMS[number % len(VICTIMS)]]
            if draw.random() < 0.3:
                victims.append(draw.choice(VICTIMS))
            done = survive(folder, expected, draw, victims)
            seconds += done.seconds
            for victim, _ in done.kills:
                kills[victim] += 1
                bad[victim] += bool(done.wrong)
            print(
                f"round {number}: {done.kills}: {'; '.join(done.wrong) or 'all holds'}",
                file=sys.stderr,
                flush=True,
            )
            shutil.rmtree(folder)
    print("| killed | times | rounds in which something did not hold |\n| --- | ---: | ---: |")
    for victim in VICTIMS:
        print(f"| {victim} | {kills[victim]} | {bad[victim]} |")
    print(f"\n{given.rounds} rounds of {RUNS} runs, {seconds / 60:.0f} min, seed {given.seed}.")
    return bool(sum(bad.values()))


if __name__ == "__main__":
    sys.exit(main())
