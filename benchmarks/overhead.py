"""What a run costs beyond its training, and what the command line costs at all; as a markdown table.

    python benchmarks/overhead.py                        stores with 100, 1,000 and 10,000 earlier runs; about 5 minutes
    python benchmarks/overhead.py --stores 100 --repeat 1
    python benchmarks/overhead.py --only-commands

- **Commands**: `ablate --help` and `ablate status` against a typer app that does nothing, in turns, each a new process.
- **A run**: a study of short runs on digits with one worker, once with few seeds and once with many; what the many take longer, per run,
  less the seconds that these runs trained and evaluated in between. Artifacts, checks and verdicts are all in it. The studies lie in
  the experiment that already holds the earlier runs.
- **A command's run**: as *a run*, for a command that prints three epochs in a fifth of a second; and of that, what its worker takes from
  asking for the command to having its result. From both is subtracted what the same command takes by itself, started in turns with them.
- **A worker**: from asking for one to its first event, of a training that does nothing: the first, which brings the forkserver
  up, and the ones after.
- **Memory**: of two workers that train `small_cnn` on as many 32×32 colour images as CIFAR-10 has: what is theirs alone, and what
  the data takes in both together.

Modules are compiled once, as those of an installed package are, whatever PYTHONDONTWRITEBYTECODE says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import report as report_benchmark

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "overhead.json"
ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]
EMPTY = [
    sys.executable,
    "-c",
    "import typer\napp = typer.Typer()\n@app.command()\ndef nothing() -> None: ...\napp()",
]
FEW, MANY = 4, 28

STUDY = """
study: many
margin: 0.02
baseline:
  data: {{name: digits, validation: 0.2}}
  model: {{name: small_cnn, kernel_size: 2}}
  optimizer: {{name: sgd, lr: {lr}, momentum: 0.9, weight_decay: 5.0e-4}}
  training: {{epochs: {epochs}, batch_size: 128}}
factors: {{model.dropout: [0.1]}}
seeds: {seeds}
"""

PROGRAM = """\
import sys, time
seed = int(sys.argv[2])
for epoch in range(3):
    time.sleep(0.05)
    print(f"loss {1 / (epoch + 1 + seed)} accuracy {0.5 + seed / 1000}", flush=True)
"""
COMMAND_STUDY = """
study: command-{seeds}-{lr}
command: [python, program.py, "{{lr}}", "{{seed}}"]
metric: accuracy
metrics: {{accuracy: {{line: 'accuracy (\\S+)'}}, train/loss: {{line: 'loss (\\S+)'}}}}
margin: 0.02
baseline: {{lr: {lr}}}
factors: {{lr: [9]}}
seeds: {seeds}
"""

MEMORY = """
study: memory
margin: 0.02
baseline:
  data: {{name: image_folder, root: {root}, validation: 0.1}}
  model: {{name: small_cnn}}
  augment: {{flip: true, crop: 4}}
  optimizer: {{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 5.0e-4}}
  training: {{epochs: 1, batch_size: 128}}
factors: {{model.dropout: [0.1]}}
seeds: 1
"""


def spent(command: list[str], where: Path) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[-3:])}: {done.stderr[-2000:]}")
    return taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(where: Path, repeat: int) -> Iterator[dict[str, Any]]:
    """where: a folder with a store."""
    takes: dict[str, list[float]] = {}
    for _ in range(repeat + 1):
        for name, command in (
            ("", [*EMPTY, "--help"]),
            ("--help", [*ABLATE, "--help"]),
            ("status", [*ABLATE, "status"]),
        ):
            takes.setdefault(name, []).append(spent(command, where)[1])
    empty = takes.pop("")[1:]
    for name, mine in takes.items():
        ratio = statistics.median(a / b for a, b in zip(mine[1:], empty, strict=True))
        yield {
            "what": f"ablate {name}, processor time against an empty typer app",
            "found": f"{1000 * statistics.median(mine[1:]):.0f} ms against {1000 * statistics.median(empty):.0f}",
            "ratio": ratio,
        }


def per_run(root: Path, runs: int, repeat: int) -> Iterator[dict[str, Any]]:
    """root: a folder whose store holds that many runs."""
    beyond: list[float] = []
    longest = 0.0
    for number in range(repeat):
        takes = []
        for seeds in (FEW, MANY):
            path = root / f"short-{number}-{seeds}.yaml"
            # A rate of its own for every study, so that none finds its runs done.
            lr = round(0.05 + 0.001 * number + (0.0001 if seeds == MANY else 0), 5)
            path.write_text(STUDY.format(lr=lr, epochs=3, seeds=seeds))
            command = [*ABLATE, "run", path.name, "--quiet", "--workers", "1", "--no-fuse"]
            wall, _ = spent(command, root)
            trained = training_seconds(root, lr)
            assert len(trained) == 2 * seeds, (len(trained), seeds)
            longest = max(longest, *trained)
            takes.append(wall - sum(trained))
        beyond.append((takes[1] - takes[0]) / (2 * (MANY - FEW)))
    yield {
        "what": f"scheduling and tracking of a run (the longest trained {longest:.2f} s), {runs:,} runs in the store",
        "found": f"{1000 * statistics.median(beyond):.0f} ms",
        "milliseconds": [1000 * one for one in beyond],
    }


def of_commands(repeat: int) -> Iterator[dict[str, Any]]:
    from ablate.events import Bundle, Task
    from ablate.study import spec
    from ablate.training import runs
    from ablate.training.payload import Folders, RunPayload

    scheduled: list[float] = []
    in_worker: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "program.py").write_text(PROGRAM)
        alone: list[float] = []

        def by_itself() -> float:
            alone.append(spent([sys.executable, "-u", "program.py", "1", "0"], root)[0])
            return alone[-1]

        for number in range(repeat):
            takes = []
            for seeds in (FEW, MANY):
                path = root / f"{number}-{seeds}.yaml"
                path.write_text(COMMAND_STUDY.format(lr=number + 1 + 0.1 * (seeds == MANY), seeds=seeds))
                takes.append(
                    spent([*ABLATE, "run", path.name, "-q", "--workers", "1", "--allow-command"], root)[0]
                )
            own = statistics.median(by_itself() for _ in range(10))
            scheduled.append((takes[1] - takes[0]) / (2 * (MANY - FEW)) - own)
        config = spec.read(path).baseline
        payload = RunPayload(config.tree(), 0, source=config.source, metric="accuracy", code=config.code())
        folders = Folders.under(root / "mlruns")
        for number in range(1, 10 * repeat + 1):
            own = by_itself()
            began = time.perf_counter()
            ends = list(runs.train(Bundle((Task("run", number, payload),)), folders))
            in_worker.append(time.perf_counter() - began - own)
            assert len(ends) == 5, ends
    for what, takes in (("in its worker", in_worker), ("scheduling and tracking included", scheduled)):
        yield {
            "what": f"a command's run beyond its own {statistics.median(alone):.2f} s, {what}",
            "found": f"{1000 * statistics.median(takes):.0f} ms",
            "milliseconds": [1000 * one for one in takes],
        }


def training_seconds(root: Path, lr: float) -> list[float]:
    """What the finished runs of this learning rate took to train."""
    from ablate.tracking.runs import run_costs
    from ablate.tracking.store import Store

    store = Store(f"sqlite:///{root / 'mlruns' / 'mlflow.db'}", root / "mlruns")
    with contextlib.closing(__import__("sqlite3").connect(store.database)) as db:
        keys = [
            key
            for key, config in db.execute(
                "SELECT k.value, c.value FROM tags k JOIN tags c ON c.run_uuid = k.run_uuid "
                "WHERE k.key = 'ablate.key' AND c.key = 'ablate.config'"
            )
            if json.loads(config).get("optimizer", {}).get("lr") == lr
        ]
    return [cost.seconds for cost in run_costs(store, keys).values()]


def workers(repeat: int) -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(HERE))
    import idle

    from ablate.events import Bundle, Task
    from ablate.executors.local import LocalExecutor, cpu_slots

    takes = []
    with LocalExecutor(idle.nothing, cpu_slots(repeat + 1)) as executor:
        for slot in executor.slots:
            began = time.perf_counter()
            executor.submit(Bundle((Task("run", 1, {}),)), slot)
            assert executor.wait(60)
            takes.append(time.perf_counter() - began)
    yield {
        "what": "a worker after the first, until its first event",
        "found": f"{1000 * statistics.median(takes[1:]):.0f} ms (the first {takes[0]:.1f} s)",
        "milliseconds": [1000 * one for one in takes[1:]],
    }


def memory(images: int) -> Iterator[dict[str, Any]]:
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        rng = np.random.default_rng(0)
        for part, count in (("train", images), ("test", 1000)):
            for number in range(count):
                place = root / "images" / part / str(number % 10)
                place.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.bmp")
        (root / "memory.yaml").write_text(MEMORY.format(root=root / "images"))
        command = [*ABLATE, "run", "memory.yaml", "--quiet", "--workers", "2", "--no-fuse"]
        own: dict[int, int] = {}
        shared: list[int] = []
        with subprocess.Popen(
            command, cwd=root, env=os.environ | {"ABLATE_CACHE": str(root / "cache")}
        ) as run:
            while run.poll() is None:
                time.sleep(0.2)
                taken = 0
                for pid in below(run.pid):
                    with contextlib.suppress(OSError):
                        mine, data = mapped(pid, root / "cache")
                        if data:
                            own[pid] = max(own.get(pid, 0), mine)
                            taken += data
                shared.append(taken)
            assert run.returncode == 0
    bytes_of_data = images * 32 * 32 * 3
    yield {
        "what": "memory of a worker beyond the data",
        "found": f"{max(own.values()) / 1e6:.0f} MB (proportional set size)",
        "bytes": max(own.values()),
    }
    yield {
        "what": f"the data, in {len(own)} processes together",
        "found": f"{max(shared) / 1e6:.0f} MB, of {bytes_of_data / 1e6:.0f} MB on disk",
        "ratio": max(shared) / bytes_of_data,
    }


def below(pid: int) -> list[int]:
    """Every process that this one started, and theirs."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                left += map(int, (thread / "children").read_text().split())
    return found


def mapped(pid: int, cache: Path) -> tuple[int, int]:
    """Bytes of a process's proportional set: of everything but the cached data, and of the cached data."""
    own = data = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0]:
            inside = str(cache) in line
        elif head[0] == "Pss:":
            data, own = (data + int(head[1]), own) if inside else (data, own + int(head[1]))
    return 1024 * own, 1024 * data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument(
        "--only-commands", action="store_true", help="Measure the runs of commands and nothing else."
    )
    parser.add_argument("--images", type=int, default=50_000, help="Of the data for the memory's figures.")
    given = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rows: list[dict[str, Any]] = []
    print("| what | measured | ratio | load |\n| --- | ---: | ---: | ---: |")

    def tell(found: Iterator[dict[str, Any]]) -> None:
        for row in found:
            row["load"] = round(os.getloadavg()[0], 1)
            rows.append(row)
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            print(f"| {row['what']} | {row['found']} | {ratio} | {row['load']} |", flush=True)

    tell(of_commands(given.repeat))
    if given.only_commands:
        return
    tell(workers(given.repeat))
    for runs in given.stores:
        root = Path(tempfile.mkdtemp())
        try:
            report_benchmark.generate(root, 10, runs // 10, images=100)
            if runs == given.stores[0]:
                tell(commands(root, max(15, given.repeat)))
            tell(per_run(root, runs, given.repeat))
        finally:
            shutil.rmtree(root)
    tell(memory(given.images))
    RESULTS.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
