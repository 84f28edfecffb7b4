"""What `ablate plan` says that a study takes, against what it then takes, as a markdown table.

    python benchmarks/forecast.py                                   the quickstart, and a heavier study of digits
    python benchmarks/forecast.py --repeat 3 studies/depth.yaml --set training.epochs=1 --seeds 3
    python benchmarks/forecast.py --processor …                     a run of each arm, by the processor's time

Each round begins with an empty store. Other work on the machine slows what it meets: look at the load beside each row, or
at the processor's time, which knows of no other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ablate import launch
from ablate.events import Bundle, Failed, Task
from ablate.measuring import probe
from ablate.study import design, spec
from ablate.tracking.frames import plan_frames
from ablate.tracking.plans import stored_plans
from ablate.tracking.store import Store
from ablate.training.payload import RunPayload
from ablate.training.runs import train

STUDIES = Path(__file__).parents[1] / "studies"

HEAVIER = """
study: heavier
margin: 0.02
baseline:
  data: {name: digits, validation: 0.25}
  model: {name: cnn, depth: 3, width: 32, batch_norm: true}
  augment: {crop: 1}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}
  schedule: {name: onecycle}
  training: {epochs: 6, batch_size: 64}
factors:
  model.width: [64, 128]
  model.depth: [2]
seeds: 3
"""

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]


def ablate(folder, *arguments):
    done = subprocess.run(
        [*ABLATE, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment()
    )
    if done.returncode:
        raise SystemExit(f"ablate {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def environment():
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def compare(study, options):
    """One row: forecast and reality of one study in a store of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = os.getloadavg()[0]
        said = json.loads(ablate(folder, "plan", str(study), "--json", *options))
        began = time.perf_counter()
        ablate(folder, "run", str(study), "-q", *options)
        took = time.perf_counter() - began
        root = folder / "mlruns"
        store = Store(f"sqlite:///{root / 'mlflow.db'}", root)
        runs, _ = plan_frames(store, stored_plans(store, said["study"])[-1].record)
    ratios = [runs.loc[runs["arm"] == arm["arm"], "seconds"].mean() / arm["seconds"] for arm in said["arms"]]
    first, most = said["seconds"]["first"], said["seconds"]["most"]
    cells = [
        said["study"],
        f"{before:.1f} → {os.getloadavg()[0]:.1f}",
        str(len(runs)),
        f"{first:.0f}" if first == most else f"{first:.0f} to {most:.0f}",
        f"{took:.0f}",
        f"{took / (first if took < first else min(took, most)):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{statistics.median(ratios):.2f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def compare_processor(study, options):
    """A row an arm: what the probe says of one run and what the run takes, in this process, by its own time."""
    sets = options[1 : options.index("--seeds") if "--seeds" in options else None : 2]
    plan = design.plan(spec.read(study, sets=sets), launch.data_lookup())
    for arm in plan.arms:
        data = plan.data[arm.name]
        sizes = (data.train, data.validation, data.test)
        said = probe.run_seconds(arm.config, sizes, len(data.classes), clock=time.process_time)["seconds"]
        payload = RunPayload(arm.config.tree(), seed=0)
        began = time.process_time()
        for event in train(Bundle((Task("run", 1, payload),))):
            assert not isinstance(event, Failed), event.reason
        took = time.process_time() - began
        print(f"| {plan.study.name} | {arm.name} | {said:.2f} | {took:.2f} | {took / said:.2f} |", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="*", type=Path, help="default: two studies of digits")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--processor", action="store_true", help="processor's time of one run of each arm")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="as of `ablate run`")
    parser.add_argument("--seeds", type=int, help="as of `ablate run`")
    given = parser.parse_args(arguments)
    options = [part for value in given.set for part in ("--set", value)]
    options += ["--seeds", str(given.seeds)] if given.seeds else []
    titles = ("study", "load", "runs", "forecast, s", "actual, s", "ratio", "ratio of each arm", "median")
    if given.processor:
        titles = ("study", "arm", "forecast, s", "actual, s", "ratio")
    print(f"| {' | '.join(titles)} |\n| --- | ---: |{' ---: |' * (len(titles) - 2)}")
    with tempfile.TemporaryDirectory() as name:
        heavier = Path(name) / "heavier.yaml"
        heavier.write_text(HEAVIER)
        for study in [path.resolve() for path in given.studies] or [STUDIES / "quickstart.yaml", heavier]:
            for _ in range(given.repeat):
                (compare_processor if given.processor else compare)(study, options)


if __name__ == "__main__":
    main()
