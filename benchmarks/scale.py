"""What one coordinator costs per run and per event, whatever trains; as a markdown table.

    python benchmarks/scale.py                                      10,000 runs through local and ray, over 1, 2, 4 and 8 slots; hours
    python benchmarks/scale.py --runs 1000 --executors local --slots 2

The runs train nothing: workers send their events at once (`trivial.py`). All else is as `ablate run` has it: phases, dispatcher,
claims, Optuna's journal, spool, MLflow's rows and files. Every figure is the processor's time of the process that coordinates, its
threads included: other work on the machine slows it less than the clock's. Each row is a process and a store of its own:

- **per run**: from the first run that is handed out to the end of the study, over its runs of two epochs.
- **per run, among those**: a further study of a tenth as many runs, in the store that the first has left.
- **per event**: what 20 more epochs a run add, in a study of that size.
- **resume**: the first study broken off before its last tenth, from the start of the command until a run is handed out.
- **again**: the finished study, `ablate run STUDY.yaml`: all of the process, imports included; and once more, when the answer is kept.
- **report**: the first of the finished study, and the next of the same process, imports not included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results" / "scale.json"
ARMS = 10
EPOCHS, MORE_EPOCHS = 2, 20

STUDY = """
study: {name}
question: Does the learning rate matter?
metric: val/accuracy
margin: 0.005
baseline:
  data: {{name: digits, validation: 0.25}}
  model: {{name: cnn, depth: 1, width: 16, batch_norm: false}}
  optimizer: {{name: sgd, lr: {lr}, momentum: 0.9}}
  training: {{epochs: {epochs}, batch_size: 64}}
factors:
  optimizer.lr: {levels}
seeds: {seeds}
"""


def write_study(name: str, runs: int, lr: float = 0.1, epochs: int = EPOCHS) -> None:
    """Write a study of so many runs, as NAME.yaml. lr: no two studies that share no run have the same."""
    levels = [round(lr * (1 + i / 20), 6) for i in range(1, ARMS)]
    text = STUDY.format(name=name, lr=lr, levels=levels, seeds=max(2, runs // ARMS), epochs=epochs)
    Path(f"{name}.yaml").write_text(text)


def study(name: str, executor: str, slots: int, stop_after: int) -> dict[str, Any]:
    """Run a study of trivial runs in the working folder. stop_after: runs after which it is interrupted; 0: it is not."""
    import trivial

    from ablate import launch
    from ablate.executors.local import LocalExecutor, cpu_slots
    from ablate.scheduling.coordinate import Options
    from ablate.scheduling.observer import Observer
    from ablate.study import design, spec
    from ablate.tracking.store import current_store

    class Marks(Observer):
        """first: processor's time and clock when a run was handed out first."""

        first: tuple[float, float] | None = None
        trained = 0

        def running(self, run: Any, slot: Any, attempt: int) -> None:  # noqa: ARG002
            self.first = self.first or (time.process_time(), time.perf_counter())

        def settled(self, run: Any, outcome: str, value: float) -> None:  # noqa: ARG002
            self.trained += self.first is not None
            if stop_after and self.trained == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

    planned = design.plan(spec.read(Path(f"{name}.yaml")), launch.data_lookup())
    pool: Any
    if executor == "local":
        pool = LocalExecutor(trivial.train, cpu_slots(slots))
    else:
        from ablate.executors import Wanted, ray

        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT)])
        pool = ray.create(trivial.train, Wanted("cpu", slots, 1, None), tuple, ())
    marks = Marks()
    with contextlib.suppress(KeyboardInterrupt):
        launch.run(planned, current_store(), pool, Options(), None, contextlib.nullcontext(marks))
    end = time.process_time(), time.perf_counter()
    first = marks.first or end
    return {
        "runs": marks.trained,
        "until the first": first[0],
        "per run": (end[0] - first[0]) / max(1, marks.trained),
        "clock per run": (end[1] - first[1]) / max(1, marks.trained),
        "memory": peak(),
    }


def report(name: str) -> dict[str, Any]:
    """The first report of a process and the next. Returns processor's seconds."""
    from ablate import report as pages
    from ablate import reporting
    from ablate.tracking.store import current_store

    takes = []
    for _ in range(2):
        began = time.process_time()
        pages.html(pages.summarise(reporting.material(current_store(), name)))
        takes.append(time.process_time() - began)
    return {"first": takes[0], "warm": takes[1], "memory": peak()}


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def asked(*arguments: str | int) -> dict[str, Any]:
    """Return what this program prints in a process of its own."""
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def again(name: str) -> float:
    """Return the processor's seconds of `ablate run` on a study that is done."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "ablate", "run", f"{name}.yaml", "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rows(executor: str, slots: int, runs: int) -> dict[str, Any]:
    """Measure everything in a new folder."""
    few = max(2 * ARMS, runs // 10)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_study("first", runs)
        begun = asked("study", "first", executor, slots, runs - few)
        resumed = asked("study", "first", executor, slots, 0)
        write_study("further", few, lr=0.01)
        further = asked("study", "further", executor, slots, 0)
        write_study("longer", few, lr=0.001, epochs=EPOCHS + MORE_EPOCHS)
        longer = asked("study", "longer", executor, slots, 0)
        return {
            "executor": executor,
            "slots": slots,
            "runs": runs,
            "per run": begun["per run"],
            "among those": further["per run"],
            "per event": max(0.0, longer["per run"] - further["per run"]) / MORE_EPOCHS,
            "clock per run": begun["clock per run"],
            "resume": resumed["until the first"],
            "again": again("first"),
            "once more": again("first"),
            "report": asked("report", "first"),
            "memory": max(begun["memory"], resumed["memory"], further["memory"]),
            "load": os.getloadavg()[0],
        }


def table(found: list[dict[str, Any]]) -> str:
    heads = (
        "executor", "slots", "runs", "per run", "per run, among those", "per event", "one processor takes", "resume", "again",
        "once more", "report, first", "warm", "memory", "of the report", "clock, per run", "load",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in found:
        cells = (
            row["executor"], str(row["slots"]), f"{row['runs']:,}", f"{1000 * row['per run']:.1f} ms",
            f"{1000 * row['among those']:.1f} ms", f"{1000 * row['per event']:.2f} ms", f"{1 / max(row['per event'], 1e-6):,.0f} events/s",
            f"{row['resume']:.1f} s", f"{row['again']:.1f} s", f"{row['once more']:.1f} s", f"{row['report']['first']:.1f} s", f"{row['report']['warm']:.1f} s",
            f"{row['memory']:.0f} MB", f"{row['report']['memory']:.0f} MB", f"{1000 * row['clock per run']:.0f} ms", f"{row['load']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--executors", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--json", type=Path, help="Write the figures there too.")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, name, *rest = options.measure
        found = (
            report(name) if what == "report" else study(name, rest[0], *(int(number) for number in rest[1:]))
        )
        print(json.dumps(found))
        return
    measured = []
    for executor in options.executors:
        for slots in options.slots:
            measured.append(rows(executor, slots, options.runs))
            print(table(measured), flush=True)
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
