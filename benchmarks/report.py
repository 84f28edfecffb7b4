"""How long the report of a large study takes, where the time goes, and what it weighs; as a markdown table.

    python benchmarks/report.py                     40 arms × 25 seeds and 100 arms × 100 seeds
    python benchmarks/report.py --sizes 40x25 --repeat 5

The runs are made by a formula and written into an MLflow store as `ablate run` leaves them: 30 epochs of 4 metrics, the final
metrics, tags, a confusion matrix, and predictions for 5,000 validation and 10,000 test images. "Cold" is the first report of a
new process, once its imports are done; "warm" the next one, the median of some repeats. `get_metric_history` is MLflow's own way to
read curves, one call a run and metric, measured on some of the runs. On a busy machine look at the processor's time, which other work
slows less.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import math
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np

EPOCHS = 30
METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
IMAGES = {"val": 5_000, "test": 10_000}
CLASSES = 10
ASKED = 30
"""Runs that MLflow is asked for one by one: enough for a rate."""

STUDY = """
study: many
question: Does any of so many changes matter?
margin: 0.005
baseline:
  data: {name: digits, validation: 0.25}
  model: {name: cnn, depth: 2, width: 16, batch_norm: false}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 5.0e-4}
  training: {epochs: 30, batch_size: 64}
factors:
  model.width: %s
  model.dropout: %s
  optimizer.lr: %s
  optimizer.weight_decay: %s
seeds: %d
"""


def study(arms, seeds):
    """A study of `arms` arms, the baseline among them, in four factors."""
    each, more = divmod(arms - 1, 4)
    counts = [each + (i < more) for i in range(4)]
    levels = [
        [17 + i for i in range(counts[0])],
        [round(0.9 * (i + 1) / (counts[1] + 1), 4) for i in range(counts[1])],
        [round(0.101 + 0.001 * i, 4) for i in range(counts[2])],
        [round(0.001 + 0.0001 * i, 5) for i in range(counts[3])],
    ]
    return STUDY % (*levels, seeds)


def generate(root, arms, seeds, images=None):
    """A store with a finished study in it. images: predicted in each part, IMAGES where None. Returns its plan's record."""
    from ablate import launch
    from ablate.study import design, spec
    from ablate.tracking.client import create
    from ablate.tracking.store import Store

    path = root / "many.yaml"
    path.write_text(study(arms, seeds))
    store = Store(f"sqlite:///{root / 'mlruns' / 'mlflow.db'}", root / "mlruns")
    create(store)
    record = design.plan(spec.read(path), launch.data_lookup()).record()
    rng = np.random.default_rng(0)
    counts = {part: images or n for part, n in IMAGES.items()}
    truth = {part: rng.integers(CLASSES, size=n) for part, n in counts.items()}
    hard = {part: rng.normal(0, 1, n) for part, n in counts.items()}
    gain = {arm.name: rng.normal(0, 0.01) for arm in record.arms}
    with sqlite3.connect(store.database) as db:
        now = int(time.time() * 1000)
        place = root / "mlruns" / "artifacts" / "many"
        db.execute(
            "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time) "
            "VALUES (1, 'many', ?, 'active', ?, ?)",
            [place.as_uri(), now, now],
        )

        def add(name, tags, metrics, files):
            run = uuid.UUID(bytes=rng.bytes(16)).hex
            folder = place / run / "artifacts"
            folder.mkdir(parents=True)
            for file, content in files.items():
                (folder / file).write_bytes(content)
            db.execute(
                "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, "
                "end_time, source_version, lifecycle_stage, artifact_uri, experiment_id) "
                "VALUES (?, ?, 'UNKNOWN', '', '', 'x', 'FINISHED', ?, ?, '', 'active', ?, 1)",
                [run, name, now, now + 1000, folder.as_uri()],
            )
            db.executemany(
                "INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
                [(f"ablate.{k}", v, run) for k, v in tags.items()],
            )
            db.executemany(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
                [(key, value, now + step, run, step) for key, step, value in metrics],
            )

        plan = json.dumps(record.to_json(), indent=1).encode()
        add(
            "report",
            {"kind": "report", "plan": record.id, "recorded": repr(time.time())},
            [],
            {"plan.json": plan},
        )
        for entry in record.runs:
            arm, seed = entry.arm, entry.seed
            right = {
                part: hard[part] + rng.normal(0, 0.7, n) < 0.8 + 8 * gain[arm] for part, n in counts.items()
            }
            files = _files(truth, right, rng)
            metrics = [*_curves(float(right["val"].mean()), rng), *_finals(float(right["test"].mean()))]
            tags = {
                "kind": "replicate", "key": entry.key, "recipe": entry.key, "attempt": "1", "plan": record.id,
                "arm": arm, "seed": str(seed), "phase": entry.phase, "study": "many", "owner": "somewhere/0/1/2",
                "outcome": "finished", "epoch": str(EPOCHS), "weights": rng.bytes(8).hex(), "trace": rng.bytes(8).hex(),
                "device": "cpu: x86_64", "torch": "2.15.0", "python": "3.11.7", "host": "somewhere", "lease": "0",
                "config": json.dumps(record.arms[0].config),
            }  # fmt: skip
            add(f"{arm} · seed {seed}", tags, metrics, files)
    return record


def _curves(final, rng):
    """Rows (metric, step, value) of one run's curves, which approach their end with some noise."""
    part = np.arange(1, EPOCHS + 1) / EPOCHS
    accuracy = (
        0.1 + (final - 0.1) * (1 - np.exp(-5 * part)) / (1 - math.exp(-5)) + rng.normal(0, 0.003, EPOCHS)
    )
    accuracy[-1] = final
    loss = 2.3 * (1 - accuracy) + 0.05
    values = dict(zip(METRICS, (0.8 * loss, accuracy + 0.02, loss, accuracy), strict=True))
    for metric, along in values.items():
        yield from ((metric, epoch, float(v)) for epoch, v in enumerate(along, 1))


def _finals(accuracy):
    for name, value in (
        ("test/loss", 1 - accuracy), ("test/accuracy", accuracy), ("time/train_seconds", 61.0), ("model/parameters", 2650.0),
        ("model/flops", 92480.0),
    ):  # fmt: skip
        yield name, EPOCHS, value


def _files(truth, right, rng):
    seen = {
        part: np.where(
            right[part], truth[part], (truth[part] + rng.integers(1, CLASSES, len(truth[part]))) % CLASSES
        )
        for part in truth
    }
    counts = np.zeros((CLASSES, CLASSES), dtype=int)
    np.add.at(counts, (truth["test"], seen["test"]), 1)
    packed = io.BytesIO()
    arrays = {f"{part}_truth": truth[part].astype(np.uint8) for part in truth}
    arrays |= {f"{part}_predicted": seen[part].astype(np.uint8) for part in truth}
    np.savez_compressed(packed, val_index=np.arange(len(truth["val"]), dtype=np.int32), **arrays)
    matrix = {"classes": list(map(str, range(CLASSES))), "counts": counts.tolist()}
    return {
        "confusion_matrix.json": json.dumps(matrix).encode(),
        "predictions.npz": packed.getvalue(),
    }


def measure(repeat):
    """In a process of its own, in the folder of a generated store: prints its findings as JSON."""
    from ablate import report, reporting
    from ablate.analysis import judge, plan
    from ablate.tracking.frames import plan_frames
    from ablate.tracking.store import current_store

    for name in (
        "pandas",
        "jinja2",
        "scipy.stats",
        "PIL.Image",
    ):  # what they cost to import is not the report's
        importlib.import_module(name)
    found = []
    for _ in range(repeat + 1):
        began, worked = time.perf_counter(), time.process_time()
        material = reporting.material(current_store(), "many")
        read_in = time.perf_counter()
        summary = report.summarise(material)
        summed = time.perf_counter()
        page = report.html(summary)
        done, spent = time.perf_counter(), time.process_time() - worked
        record, size = material.record, len(page.encode())
        del material, summary, page  # a command would not hold them beside what is read again here
        again = time.perf_counter()
        replicates, curves = plan_frames(current_store(), record)
        pulled = time.perf_counter()
        judge(plan.rules(record), replicates, curves)
        judged = time.perf_counter()
        found.append(
            {"all": done - began, "processor": spent, "read and judge": read_in - began, "summary": summed - read_in, "page": done - summed,
             "pull": pulled - again, "judge": judged - pulled, "bytes": size, "rows": len(curves)}
        )  # fmt: skip
    cold, *rest = found
    warm = {name: statistics.median(one[name] for one in rest) for name in cold}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"cold": cold, "warm": warm, "peak": peak, "history": _history(replicates["run_id"])}))


def _history(run_ids):
    """Seconds per run that MLflow's client takes for the four curves."""
    from ablate.tracking.client import connect
    from ablate.tracking.store import current_store

    client = connect(current_store().uri)
    some = list(run_ids)[:ASKED]
    client.get_metric_history(some[0], METRICS[0])
    began = time.perf_counter()
    for run in some:
        for metric in METRICS:
            assert len(client.get_metric_history(run, metric)) == EPOCHS
    return (time.perf_counter() - began) / len(some)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["40x25", "100x100"], metavar="ARMSxSEEDS")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--keep", type=Path, help="Folder for the generated stores, used again where they are there."
    )
    parser.add_argument("--json", type=Path, help="Write the figures there too.")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.repeat)
        return
    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            arms, seeds = map(int, size.split("x"))
            root = (options.keep or Path(scratch)).resolve() / size
            if not (root / "mlruns").exists():
                root.mkdir(parents=True)
                generate(root, arms, seeds)
            command = [sys.executable, __file__, "--measure", "--repeat", str(options.repeat)]
            done = subprocess.run(
                command, cwd=root, check=True, capture_output=True, text=True, env=dict(os.environ)
            )
            rows[arms * seeds] = json.loads(done.stdout.splitlines()[-1])
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def table(rows):
    heads = ("runs", "points", "report, cold", "warm", "processor's time", "of which by the clock data and verdicts", "summary", "page", "data pull, cold", "warm",
             "MLflow's `get_metric_history`", "pull against it, cold", "warm", "size", "peak memory")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |"]
    lines.append("|" + " ---: |" * len(heads))
    for runs, found in rows.items():
        cold, warm, history = found["cold"], found["warm"], found["history"] * runs
        cells = [f"{runs:,}", f"{cold['rows']:,}", f"{cold['all']:.2f} s", f"**{warm['all']:.2f} s**", f"{warm['processor']:.2f} s",
                 *(f"{warm[name]:.2f} s" for name in ("read and judge", "summary", "page")),
                 f"{cold['pull']:.2f} s", f"{warm['pull']:.2f} s", f"{history:.1f} s", f"{history / cold['pull']:.0f}×",
                 f"{history / warm['pull']:.0f}×", f"{cold['bytes'] / 1e6:.2f} MB", f"{found['peak']:.0f} MB"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
