"""What `ablate plan` says that a study takes, against what it then takes, as a markdown table.

    python benchmarks/forecast.py                                   the quickstart, and a heavier study of digits
    python benchmarks/forecast.py --repeat 3 studies/depth.yaml --set training.epochs=1 --seeds 3
    python benchmarks/forecast.py --processor …                     a run of each arm, by the processor's time
    python benchmarks/forecast.py --afterwards                      short runs, forecast from what those of the store took

Each round begins with an empty store. Other work on the machine slows what it meets: look at the load beside each row, or
at the processor's time, which knows of no other work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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

FUNCTION = """
import random, time

def train(config, seed):
    random.seed(seed)
    time.sleep(0.005)
    yield {"val/accuracy": 0.8 + random.gauss(0, 0.01)}
"""

COMMAND = """
import random, sys, time

random.seed(int(sys.argv[2]))
time.sleep(0.3)
print(f"val/accuracy = {0.8 + random.gauss(0, 0.01):.5f}")
"""

OWN = """
study: {name}
metric: val/accuracy
margin: 0.02
{training}
baseline: {{a: 1}}
factors: {{a: [2, 3, 4]}}
seeds: {seeds}
"""

COMMANDS = r"""command: [python, short_command.py, "{a}", "{seed}"]
metrics: {val/accuracy: {line: 'val/accuracy = ([\d.]+)'}}"""


def short_studies(folder):
    """Write studies of runs of milliseconds, of 0.3 seconds, and of digits; return their paths."""
    (folder / "short_function.py").write_text(FUNCTION)
    (folder / "short_command.py").write_text(COMMAND)
    digits = HEAVIER.partition("factors:")[0].replace("depth: 3, width: 32", "depth: 2, width: 16")
    few, some = "{model.width: [8]}\nseeds: 3", "{model.width: [8, 32], model.depth: [3]}\nseeds: 4"
    texts = {
        "function": OWN.format(name="function", training="train: short_function:train", seeds=10),
        "command": OWN.format(name="command", training=COMMANDS, seeds=5),
        "digits_6": f"{digits}factors: {few}\n".replace("heavier", "digits_6"),
        "digits_16": f"{digits}factors: {some}\n".replace("heavier", "digits_16"),
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder / f"{name}.yaml" for name in texts]


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


def compare(study, options, afterwards):
    """One row: forecast and reality of one study in a store of its own. afterwards: forecast from the runs that it has then."""
    own = (
        ["--allow-import", "short_function", "--allow-command"]
        if study.stem in ("function", "command")
        else []
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in study.parent.glob("short_*.py"):
            shutil.copy(file, folder)
        study = Path(shutil.copy(study, folder))
        before = os.getloadavg()[0]
        said = {}
        took = 0.0
        for step in ("run", "plan") if afterwards else ("plan", "run"):
            if step == "plan":
                said = json.loads(ablate(folder, "plan", str(study), "--json", *own, *options))
                continue
            began = time.perf_counter()
            ablate(folder, "run", str(study), "-q", *own, *options)
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
        f"{first:.2g}" if first == most else f"{first:.2g} to {most:.2g}",
        f"{took:.2g}",
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
    parser.add_argument("--afterwards", action="store_true", help="forecast when the runs are in the store")
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
        defaults = short_studies(Path(name)) if given.afterwards else [STUDIES / "quickstart.yaml", heavier]
        for study in [path.resolve() for path in given.studies] or defaults:
            for _ in range(given.repeat):
                if given.processor:
                    compare_processor(study, options)
                else:
                    compare(study, options, given.afterwards)


if __name__ == "__main__":
    main()
