"""Kills that fall in a given phase: data preparation, database creation, tuning, search, path, confirmation, top-up, report.

python tests/faults/kills_by_phase.py --rounds 100        a table of all rounds, for docs/reliability.md

In every round a command is killed with `kill -9`, by itself or with its process group, at a random moment of the phase; in a third
of the rounds its successor too. Then the command is run to its end, and everything must be as after a study that nobody disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ABLATE = [sys.executable, "-m", "ablate"]
TIMEOUT = 300

TOY = '''
import random
import time


def fit(config, seed):
    """A response with known effects and noise."""
    noise = random.Random(f"{sorted(config.items())}/{seed}")
    shared = random.Random(seed).gauss(0, 0.01)
    for epoch in (1, 2, 3):
        time.sleep(0.03)
        yield {"train/loss": 1 / epoch, "val/accuracy": 0.5 + config["gain"] * epoch / 3 - config["rate"] ** 2 + shared + noise.gauss(0, 0.001)}
'''

OWN = """
study: killed
margin: 0.02
train: toy:fit
baseline: {gain: 0.0, rate: 0.1, width: 8}
"""
BUILTIN = """
study: killed
margin: 0.05
baseline:
  data: {name: image_folder, root: images, validation: 0.25}
  model: {name: cnn, depth: 1, width: 4}
  optimizer: {name: sgd, lr: 0.1}
  training: {epochs: 1, batch_size: 64}
factors: {model.width: [8]}
seeds: 2
"""
RUN = ("run", "killed.yaml", "--workers", "2", "-q")


@dataclass(frozen=True)
class Phase:
    """study: its text. before: commands that come first, undisturbed. command: the one that is killed.

    within: returns whether the phase has been reached; the kill comes up to `spread` seconds later. counted: whether every run is the
    same whatever happened; else only how many there are of each phase.
    """

    study: str
    within: Callable[[Path, random.Random], Callable[[Path], bool]]
    before: Sequence[Sequence[str]] = ()
    command: Sequence[str] = RUN
    spread: float = 0.3
    same: bool = True


def query(folder: Path, statement: str) -> list[Any]:
    database = folder / "mlruns/mlflow.db"
    if not database.exists():
        return []
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(database, timeout=5)) as db:
        return db.execute(statement).fetchall()
    return []


def ended(folder: Path) -> Counter[str]:
    """Return how many runs of each phase have ended with a result."""
    rows = query(
        folder,
        "SELECT p.value, count(*) FROM runs r JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = 'ablate.phase' "
        "WHERE r.status = 'FINISHED' GROUP BY p.value",
    )
    return Counter(dict(rows))


def in_phase(
    phase: str, most: int, after: int = 0
) -> Callable[[Path, random.Random], Callable[[Path], bool]]:
    """Return when so many runs of a phase have ended; how many is drawn."""

    def drawn(_: Path, draw: random.Random) -> Callable[[Path], bool]:
        number = after + draw.randrange(most)
        return lambda folder: ended(folder)[phase] >= number

    return drawn


def once(pattern: str) -> Callable[[Path, random.Random], Callable[[Path], bool]]:
    return lambda _, __: lambda folder: any(folder.glob(pattern))


def at_any_time(_: Path, draw: random.Random) -> Callable[[Path], bool]:
    due = time.monotonic() + draw.uniform(0.2, 3.0)
    return lambda _: time.monotonic() > due


PHASES: dict[str, Phase] = {
    "data preparation": Phase(BUILTIN, once("cache/**/*"), spread=1.5),
    "database creation": Phase(OWN + "factors: {gain: [0.2]}\nseeds: 2\n", once("mlruns/*.tmp*"), spread=3.0),
    "tuning": Phase(
        OWN + "factors: {gain: [0.2]}\nnuisance: {rate: {log: [1e-3, 1], trials: 5}}\nseeds: 2\n",
        in_phase("tune", 10),
        same=False,
    ),
    "search": Phase(
        OWN
        + "factors: {rate: {log: [1e-3, 1]}, width: {int: [4, 16]}}\ndesign: search\n"
        + "search: {trials: 8, pruner: asha, candidates: 2}\nseeds: 2\n",
        in_phase("tune", 8),
        same=False,
    ),
    "path": Phase(
        OWN + "factors: {gain: [0.2], rate: [0.3], width: [16]}\ndesign: path\nseeds: 2\n",
        in_phase("report", 12),
    ),
    "confirmation": Phase(
        OWN + "factors: {gain: [0.2]}\nconfirm: true\nseeds: 3\n", in_phase("report", 1, after=6), spread=1.5
    ),
    "top-up": Phase(
        OWN + "factors: {gain: [0.002, 0.004]}\nseeds: 2\n",
        in_phase("report", 7, after=6),
        before=[RUN],
        command=("top-up", "killed", "--seeds", "2", "--workers", "2", "-q"),
        spread=0.6,
    ),
    "report": Phase(
        OWN + "factors: {gain: [0.2]}\nseeds: 3\n",
        at_any_time,
        before=[RUN],
        command=("report", "killed"),
        spread=0.1,
    ),
}


@dataclass
class Round:
    """killed: what was, in words. wrong: what did not hold."""

    killed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def start(folder: Path, command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*ABLATE, *command],
        cwd=folder,
        env=os.environ | {"ABLATE_CHECKPOINT_EVERY": "0.02", "ABLATE_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def complete(folder: Path, command: Sequence[str]) -> tuple[int, str]:
    with start(folder, command) as process:
        said, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, said


def prepare(folder: Path, phase: Phase, images: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "toy.py").write_text(TOY)
    (folder / "pyproject.toml").write_text('[tool.ablate]\nimports = ["toy"]\n')
    (folder / "killed.yaml").write_text(phase.study)
    if "root: images" in phase.study:
        (folder / "images").symlink_to(images)
    for command in phase.before:
        code, said = complete(folder, command)
        assert code == 0, said


def disturb(folder: Path, phase: Phase, draw: random.Random, group: bool) -> tuple[str, str]:
    """Start the command and kill it within its phase. Returns what was killed, and what the command said."""
    reached = phase.within(folder, draw)
    said: list[str] = []
    with start(folder, phase.command) as process:
        assert process.stdout is not None
        listener = threading.Thread(target=lambda: said.extend(process.stdout or ()))
        listener.start()
        while process.poll() is None and not reached(folder):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, phase.spread))
        was_alive = process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()
        listener.join(60)
    what = "process group" if group else "coordinator"
    return what if was_alive else f"{what}, too late", "".join(said)


def results(folder: Path) -> dict[tuple[str, str, str], list[str]]:
    """Return (arm, seed, phase) → the traces of its runs with a result; what does not count is left out."""
    rows = query(
        folder,
        "SELECT a.value, s.value, p.value, coalesce(w.value, t.value) FROM runs r "
        + " ".join(
            f"{how} JOIN tags {name} ON {name}.run_uuid = r.run_uuid AND {name}.key = 'ablate.{key}'"
            for name, key, how in (
                ("a", "arm", ""), ("s", "seed", ""), ("p", "phase", ""), ("o", "outcome", ""),
                ("w", "weights", "LEFT"), ("t", "trace", "LEFT"),
            )
        )
        + " WHERE r.status = 'FINISHED' AND o.value IN ('finished', 'diverged')",
    )  # fmt: skip
    found: dict[tuple[str, str, str], list[str]] = {}
    for arm, seed, phase, trace in rows:
        found.setdefault((arm, seed, phase), []).append(str(trace))
    return found


def record(folder: Path) -> dict[str, Any]:
    """Return what the latest plan says of its looks and runs."""
    [*_, path] = sorted(
        folder.glob("mlruns/artifacts/killed/*/artifacts/plan.json"), key=lambda p: p.stat().st_mtime
    )
    plan = json.loads(path.read_text())
    return {"looks": plan["looks"], "confirmed": plan["confirmed"], "read_before": plan["read_before"]}


def wrong(folder: Path, expected: Path, phase: Phase) -> list[str]:
    """Return in words what is not as in the folder where nobody disturbed anything."""
    found = []
    here, there = results(folder), results(expected)
    if phase.same:
        found += [
            f"{run}: {here.get(run)}, undisturbed {there.get(run)}"
            for run in sorted(here.keys() | there.keys())
            if here.get(run) != there.get(run)
        ]
        if record(folder) != record(expected):
            found.append(f"the record: {record(folder)}, undisturbed {record(expected)}")
    else:
        counts = [Counter(p for (_, _, p), runs in r.items() for _ in runs) for r in (here, there)]
        if counts[0] != counts[1] and "search" not in phase.study:
            found.append(f"runs: {counts[0]}, undisturbed {counts[1]}")
    keys = query(
        folder,
        "SELECT k.value, count(*) FROM runs r JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'ablate.key' "
        "WHERE r.status = 'FINISHED' GROUP BY k.value HAVING count(*) > 1",
    )
    if keys:
        found.append(f"runs twice: {keys}")
    if running := query(folder, "SELECT run_uuid FROM runs WHERE status = 'RUNNING'"):
        found.append(f"still RUNNING: {running}")
    left = [
        str(path.relative_to(folder))
        for pattern in (
            "mlruns/spool/**/*",
            "mlruns/checkpoints/**/*",
            "mlruns/runs/*.output",
            "**/*.tmp",
            "**/*.part",
        )
        for path in folder.glob(pattern)
        if path.is_file()
    ]
    if left:
        found.append(f"left behind: {', '.join(sorted(set(left)))}")
    for page in folder.glob("reports/*.html"):
        if not page.read_text().rstrip().endswith("</html>"):
            found.append(f"half of a page: {page.name}")
    return found


def survive(folder: Path, expected: Path, name: str, draw: random.Random, images: Path) -> Round:
    """One round: kill, and again in a third of them; then let the command run to its end, and look."""
    phase, done = PHASES[name], Round()
    prepare(folder, phase, images)
    for _ in range(1 + (draw.random() < 0.33)):
        what, said = disturb(folder, phase, draw, group=draw.random() < 0.5)
        done.killed.append(what)
        if "Traceback" in said:
            done.wrong.append(f"a traceback after the kill: {said[-1500:]}")
    # A top-up that was killed after it was recorded is concluded by the next `ablate run`, and is no reason for another look.
    command = (
        RUN if name == "top-up" and record(folder)["looks"] == record(expected)["looks"] else phase.command
    )
    code, said = complete(folder, command)
    if code != 0 or "Traceback" in said:
        done.wrong.append(f"{' '.join(command)} ended with {code}: {said[-1500:]}")
    done.wrong += wrong(folder, expected, phase)
    return done


def make_images(folder: Path, number: int = 1500) -> None:
    """Write small pictures of two classes, which take a second to read."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, share in (("train", number), ("test", number // 4)):
        for label in ("dark", "light"):
            (folder / part / label).mkdir(parents=True)
            for i in range(share // 2):
                pixels = draw.integers(0, 160, (12, 12, 3)) + (90 if label == "light" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / label / f"{i}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phase", choices=PHASES, action="append", help="only these")
    given = parser.parse_args()
    draw = random.Random(given.seed)
    names = given.phase or list(PHASES)
    rounds, kills, late, bad = (Counter[str]() for _ in range(4))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_images(root / "images")
        expected: dict[str, Path] = {}
        for number in range(given.rounds):
            name = names[number % len(names)]
            if name not in expected:
                expected[name] = root / f"undisturbed {name}"
                prepare(expected[name], PHASES[name], root / "images")
                code, said = complete(expected[name], PHASES[name].command)
                assert code == 0, said
            folder = root / str(number)
            done = survive(folder, expected[name], name, draw, root / "images")
            rounds[name] += 1
            kills[name] += sum("late" not in what for what in done.killed)
            late[name] += sum("late" in what for what in done.killed)
            bad[name] += bool(done.wrong)
            print(
                f"round {number} {name}: {done.killed}: {'; '.join(done.wrong) or 'all holds'}",
                file=sys.stderr,
                flush=True,
            )
            shutil.rmtree(folder)
    print("| phase | rounds | kills | came too late | rounds in which something did not hold |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        print(f"| {name} | {rounds[name]} | {kills[name]} | {late[name]} | {bad[name]} |")
    print(f"\n{sum(rounds.values())} rounds, {(time.monotonic() - began) / 60:.0f} min, seed {given.seed}.")
    return bool(sum(bad.values()))


if __name__ == "__main__":
    sys.exit(main())
