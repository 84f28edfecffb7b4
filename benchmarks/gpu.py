"""Runs on a GPU: one against the tutorial with four loader workers, sixteen as one against one after another and at once.

    python benchmarks/gpu.py FOLDER                          about ten minutes; writes results/gpu.json with the device's name
    python benchmarks/gpu.py FOLDER --device cpu --quick     a dry run of the benchmark itself, at a tiny size; writes nothing

FOLDER holds `train/<class>/*` and `test/<class>/*`, or is `cifar-10-batches-py` or holds it. All sides read the same small
folder of images. Each figure is the median over repeats of a ratio within one repeat, after a round to warm up. Imports
`ablate.training` and what lies below it only: a machine with a GPU need have neither MLflow nor Optuna.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gpu.json"
ARCHIVE = "cifar-10-batches-py"


def unpacked(archive: Path, place: Path, train: int, test: int) -> Path:
    """The first images of CIFAR-10's own files as an image folder."""
    from PIL import Image

    names = archive.joinpath("batches.meta").read_bytes()
    classes = pickle.loads(names, encoding="latin1")["label_names"]
    files = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    for split, wanted in (("train", train), ("test", test)):
        written = 0
        for name in files[split]:
            part = pickle.loads(archive.joinpath(name).read_bytes(), encoding="latin1")
            for row, label in zip(part["data"], part["labels"], strict=True):
                if written == wanted:
                    break
                folder = place / split / classes[label]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)).save(folder / f"{written:05}.png")
                written += 1
    return place


@contextmanager
def prepared(folder: Path, train: int, test: int) -> Iterator[Path]:
    """The images that all sides read, and a cache of their own beside them: what is measured once is measured here."""
    from speed import linked

    with tempfile.TemporaryDirectory() as name:
        os.environ["ABLATE_CACHE"] = str(Path(name) / "cache")
        archives = [path for path in (folder, folder / ARCHIVE) if (path / "batches.meta").is_file()]
        if archives:
            yield unpacked(archives[0], Path(name) / "images", train, test)
        elif (folder / "train").is_dir():
            yield linked(folder, Path(name) / "images", train, test)
        else:
            raise SystemExit(f"{folder}: neither train/<class>/* nor {ARCHIVE}")


# --- ours -----------------------------------------------------------------------------------------------------------


def task(given: dict[str, Any], name: str = "run", seed: int = 0, **changes: float) -> Any:
    """given: folder, model, epochs, precision, device, share held out. changes: `lr`, `dropout`."""
    from ablate.config import RunConfig
    from ablate.events import Task
    from ablate.training.payload import RunPayload

    config = RunConfig.parse(
        {
            "data": {"name": "image_folder", "root": given["folder"], "validation": given["validation"]},
            "model": {"name": given["model"], "dropout": changes.get("dropout", 0.0)},
            "augment": {"flip": True, "crop": 4},
            "optimizer": {
                "name": "sgd",
                "lr": changes.get("lr", 0.05),
                "momentum": 0.9,
                "weight_decay": 5e-4,
            },
            "training": {"epochs": given["epochs"], "batch_size": 128, "precision": given["precision"]},
        }
    )
    payload = RunPayload(config.tree(), seed, device=given["device"], threads=given["threads"])
    return Task(name, 1, payload)


def arms(given: dict[str, Any], runs: int, seeds: int) -> list[Any]:
    """Runs that differ in learning rate and dropout, and in their seeds where there are several."""
    settings = [(0.01 * 2 ** (n % 4 / 2), 0.1 * (n // 4)) for n in range(runs // seeds)]
    return [
        task(given, f"{n} {seed}", seed, lr=lr, dropout=p)
        for seed in range(seeds)
        for n, (lr, p) in enumerate(settings)
    ]


def trained(tasks: list[Any], *, fuse: bool) -> dict[str, Any]:
    """seconds: from the first start to the last epoch's end. whole: to the last result."""
    from ablate.events import Bundle, EpochEnd, Failed, Finished, Task
    from ablate.training.runs import train

    given = tuple(Task(t.run, t.attempt, replace(t.payload, fuse=fuse)) for t in tasks)
    first = last = 0.0
    how, scores = set(), {}
    for event in train(Bundle(given)):
        if isinstance(event, Failed):
            raise SystemExit(f"{event.run}: {event.reason}")
        first = first or time.perf_counter()
        if isinstance(event, EpochEnd):
            last = time.perf_counter()
            scores[event.run] = event.metrics["val/accuracy"]
        elif not isinstance(event, Finished):
            how.add(vars(event)["facts"].get("fused", "single"))
    found = {"seconds": last - first, "whole": time.perf_counter() - first, "how": sorted(how)}
    return found | {"val_accuracy": statistics.mean(scores.values())}


def at_once(tasks: list[Any]) -> float:
    """Seconds that a process per run takes, all at once, from the moment when all of them are ready to begin."""
    command = [sys.executable, str(HERE / "gpu.py"), "--process"]
    processes = [
        subprocess.Popen(
            [*command, json.dumps([t.run, asdict(t.payload)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for t in tasks
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    began = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        if process.returncode:
            raise SystemExit("one of the processes failed")
    return time.perf_counter() - began


def in_process(run: str, payload: dict[str, Any]) -> None:
    import torch

    from ablate.events import Task
    from ablate.training.builtin import bundle  # noqa: F401 — before it says that it is ready
    from ablate.training.payload import RunPayload

    torch.zeros(1, device=payload["device"]).cpu()
    print("ready", flush=True)
    sys.stdin.readline()
    trained([Task(run, 1, RunPayload(**payload))], fuse=False)


# --- the table --------------------------------------------------------------------------------------------------------


def row(what: str, goal: str, ratios: list[float], mine: str, theirs: str) -> dict[str, Any]:
    ratio = statistics.median(ratios)
    print(f"| {what} | {mine} | {theirs} | {ratio:.2f}× | {goal} |", flush=True)
    return {"what": what, "ours": mine, "theirs": theirs, "ratio": ratio, "ratios": ratios, "goal": goal}


def one(given: dict[str, Any], images: int, goal: str, repeat: int, workers: int) -> dict[str, Any]:
    from speed import timed

    command = [sys.executable, str(HERE / "tutorial.py"), given["folder"], "--model", given["model"]]
    command += ["--images", str(images), "--validation", "500", "--epochs", str(given["epochs"])]
    command += ["--workers", str(workers), "--device", given["device"], "--no-test"]
    mine, theirs, accuracy = [], [], ([], [])
    for _ in range(1 + repeat):
        ours = trained([task(given)], fuse=False)
        other = json.loads(timed(command)[1])
        mine.append(given["epochs"] * images / ours["seconds"])
        theirs.append(other["images_per_second"])
        accuracy[0].append(ours["val_accuracy"])
        accuracy[1].append(other["val_accuracy"])
    shown = [
        f"{statistics.median(rates[1:]):,.0f} images/s, {100 * statistics.mean(scores):.1f} %"
        for rates, scores in zip((mine, theirs), accuracy, strict=True)
    ]
    ratios = [a / b for a, b in zip(mine[1:], theirs[1:], strict=True)]
    what = f"one {given['model']}, {given['precision']}, against the tutorial with {workers} loader workers"
    return row(what, goal, ratios, *shown)


def many(given: dict[str, Any], runs: int, seeds: int, repeat: int) -> list[dict[str, Any]]:
    tasks = arms(given, runs, seeds)
    times: dict[str, list[float]] = {"fused": [], "serial": [], "processes": []}
    how: list[str] = []
    for _ in range(1 + repeat):
        found = trained(tasks, fuse=True)
        how = found["how"]
        times["fused"].append(found["whole"])
        times["serial"].append(trained(tasks, fuse=False)["whole"])
        times["processes"].append(at_once(tasks))
    what = f"{runs} {given['model']} runs of {seeds} {'seed' if seeds == 1 else 'seeds'}"
    goals = {"serial": "≥ 8×", "processes": "≥ 2×"}
    names = {"serial": "one after another", "processes": f"{runs} processes at once"}
    return [
        row(
            f"{what} ({', '.join(how)}), against {names[other]}",
            goals[other],
            [theirs / mine for theirs, mine in zip(times[other][1:], times["fused"][1:], strict=True)],
            f"{statistics.median(times['fused'][1:]):.1f} s",
            f"{statistics.median(times[other][1:]):.1f} s",
        )
        for other in goals
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny: a look at whether it runs")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    sys.path.insert(0, str(HERE))
    if asked.process:
        in_process(*json.loads(asked.process))
        return
    import torch

    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; `--device cpu --quick` tries the benchmark itself")
    if not asked.device.startswith("cuda") and not asked.quick:
        raise SystemExit("figures of a GPU want one; on another device add `--quick`")
    if asked.folder is None:
        parser.error("which FOLDER of images?")
    images, epochs, repeat, workers, runs = 20_000, 5, asked.repeat, 4, 16
    if asked.quick:
        images, epochs, repeat, workers, runs = 300, 1, 1, 1, 4
    from ablate.training.outcome import machine

    found: dict[str, Any] = {name: machine(asked.device)[name] for name in ("device", "torch", "python")}
    label = "dry run at a tiny size, no figures: " if asked.quick else ""
    print(f"{label}{found['device']}, torch {found['torch']}\n")
    print("| what | ours | theirs | ratio | goal |\n| --- | ---: | ---: | ---: | ---: |")
    with prepared(asked.folder, images + 500, 500) as place:
        given = {"folder": str(place), "epochs": epochs, "device": asked.device, "threads": 1}
        given |= {"validation": 500 / (images + 500), "precision": "float32"}
        rows = []
        for model, goal in (("small_cnn", "≥ 30×"), ("what_worked", "≥ 8×")):
            for precision in ("float32", "bfloat16"):
                each = given | {"model": model, "precision": precision}
                if asked.quick and (model, precision) != ("small_cnn", "float32"):
                    continue  # the same code
                rows.append(one(each, images, goal, repeat, workers))
        for seeds in (1, 4):
            rows += many(given | {"model": "small_cnn"}, runs, seeds, repeat)
    if not asked.quick:
        RESULTS.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
