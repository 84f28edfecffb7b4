"""Runs and studies against the tutorial script, and against the usual ways of running many of it; side by side, interleaved.

    python benchmarks/speed.py FOLDER                 all of it, about 20 minutes on two quiet cores
    python benchmarks/speed.py FOLDER --only one      single runs (also: loading, bfloat16, many, shapes)
    python benchmarks/speed.py FOLDER --quick         a tenth of the work, for a look

FOLDER holds `train/<class>/*` and `test/<class>/*`; a small folder of links into it is what all sides read. Each figure is the
median over repeats of a ratio within one repeat; the load of the machine stands beside. Ray takes part where it is installed. Single
runs are repeated three times, many of one shape twice, many of sixteen shapes once: the peers need two minutes each.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "speed.json"
ABLATE = [sys.executable, "-c", "from ablate.__main__ import main; main()"]
LEARNING_RATES = (0.01, 0.02, 0.05, 0.1)
DROPOUTS = (0.0, 0.1, 0.2, 0.3)
FIRST, FURTHER, IN_TURN = "the first study of a machine", "a further study", "ablate, one at a time"


def linked(folder: Path, place: Path, train: int, test: int) -> Path:
    """A folder of links to the first images of every class."""
    for split, images in (("train", train), ("test", test)):
        classes = sorted(path for path in (folder / split).iterdir() if path.is_dir())
        for source in classes:
            target = place / split / source.name
            target.mkdir(parents=True)
            for image in itertools.islice(sorted(source.iterdir()), images // len(classes)):
                (target / image.name).symlink_to(image.resolve())
    return place


def timed(command: list[str], **environment: str) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} …: {done.stderr[-2000:]}")
    return time.perf_counter() - began, done.stdout


# --- one run ------------------------------------------------------------------------------------------------------


def ours(given: dict) -> dict[str, float]:
    """One run of the built-in training, in this process; seconds of its epochs, as the tutorial counts them."""
    import torch

    from ablate.config import RunConfig
    from ablate.events import Bundle, EpochEnd, Finished, Started, Task
    from ablate.training.payload import RunPayload
    from ablate.training.runs import train

    del torch
    config = RunConfig.parse(
        {
            "data": {"name": "image_folder", "root": given["folder"], "validation": given["validation"]},
            "model": {"name": given["model"]} | given.get("settings", {}),
            "augment": {"flip": True, "crop": 4},
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
            "training": {"epochs": given["epochs"], "batch_size": 128, "precision": given["precision"]},
        }
    )
    payload = RunPayload(config.tree(), given["seed"], threads=given["threads"])
    marks, scores, end = [], {}, None
    for event in train(Bundle((Task("run", 1, payload),))):
        if isinstance(event, Started | EpochEnd):
            marks.append(time.perf_counter())
        if isinstance(event, EpochEnd):
            scores = event.metrics
        end = event
    assert isinstance(end, Finished), end
    seconds = marks[-1] - marks[0]
    return {"images_per_second": given["epochs"] * given["images"] / seconds, **scores, **end.metrics}


def one(folder: Path, repeat: int, share: float, cores: list[int]) -> list[dict]:
    from ablate.executors import local  # what workers start with

    rows = []
    plans = (
        # name, images, epochs, precisions, threads of ours, settings of the tutorial (threads, loader workers)
        ("small_cnn", 5000, 3, ("float32",), cores[:1], [(1, 0)]),
        ("what_worked", 1000, 1, ("float32",), cores, [(2, 0), (1, 1), (2, 2)]),
        # A fifth of the images: where it is emulated, each takes a fifteenth of a second or more.
        ("what_worked", 200, 1, ("bfloat16",), cores, [(2, 0)]),
    )
    for model, whole, epochs, precisions, allowed, settings in plans:
        images = max(200, int(whole * share))
        validation = images // 10
        with tempfile.TemporaryDirectory() as name:
            place = linked(folder, Path(name) / "images", images + validation, 100)
            pin = ["taskset", "-c", ",".join(map(str, allowed))]
            base = {"folder": str(place), "model": model, "epochs": epochs, "images": images}
            base |= {"validation": validation / (images + validation), "threads": len(allowed), "seed": 0}
            rates: dict[str, list[float]] = {}
            scores: dict[str, list[float]] = {}
            for _ in range(repeat):
                for precision in precisions:
                    given = json.dumps(base | {"precision": precision})
                    _, said = timed(
                        [*pin, sys.executable, str(HERE / "speed.py"), str(folder), "--ours", given],
                        ABLATE_CACHE=str(Path(name) / "cache"),
                        **local.AT_START,
                    )
                    rates.setdefault(precision, []).append(json.loads(said)["images_per_second"])
                    scores.setdefault(precision, []).append(json.loads(said)["val/accuracy"])
                best, scored = 0.0, 0.0
                for count, workers in settings:
                    command = [*pin, sys.executable, str(HERE / "tutorial.py"), str(place), "--model", model]
                    command += [
                        "--images",
                        str(images),
                        "--validation",
                        str(validation),
                        "--epochs",
                        str(epochs),
                    ]
                    command += ["--threads", str(count), "--workers", str(workers), "--no-test"]
                    said = json.loads(timed(command)[1])
                    best = max(best, said["images_per_second"])
                    scored = said["val_accuracy"]
                rates.setdefault("tutorial", []).append(best)
                scores.setdefault("tutorial", []).append(scored)
        for precision in precisions:
            ratios = [a / b for a, b in zip(rates[precision], rates["tutorial"], strict=True)]
            rows.append(
                row(
                    f"one {model}, {precision}, cores {', '.join(map(str, allowed))}",
                    ratios,
                    f"{statistics.median(rates[precision]):,.0f} images/s, {100 * statistics.mean(scores[precision]):.1f} %",
                    f"{statistics.median(rates['tutorial']):,.0f} images/s, {100 * statistics.mean(scores['tutorial']):.1f} %",
                )
            )
    return rows


def bfloat16(folder: Path, share: float) -> list[dict]:
    """What bfloat16 changes of the accuracy: the same seeds in both precisions; where the processor computes in it."""
    import torch
    from scipy import stats

    from ablate.measuring import device_check

    what = "accuracy of what_worked in bfloat16 less that in float32, 5,000 images, 5 seeds, in points"
    rate = device_check.devices()[0].bfloat16
    if rate < 1:
        return [
            {
                "what": what,
                "ours": "not measured",
                "theirs": f"bfloat16 is emulated here, at {rate:.2g}×",
                "ratio": None,
            }
        ]
    images = max(200, int(5000 * share))
    with tempfile.TemporaryDirectory() as name:
        place = linked(folder, Path(name) / "images", images + 1000, 1000)
        base = {
            "folder": str(place),
            "model": "what_worked",
            "epochs": 3,
            "images": images,
            "threads": torch.get_num_threads(),
        }
        base |= {"validation": 1000 / (images + 1000)}
        found = {
            p: [ours(base | {"precision": p, "seed": s})["val/accuracy"] for s in range(5)]
            for p in ("float32", "bfloat16")
        }
    differences = [100 * (a - b) for a, b in zip(found["bfloat16"], found["float32"], strict=True)]
    half = stats.t.ppf(0.975, 4) * statistics.stdev(differences) / 5**0.5
    mean = statistics.mean(differences)
    return [
        {
            "what": what,
            "ours": f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})",
            "theirs": "",
            "ratio": None,
        }
    ]


def loading(folder: Path, repeat: int, share: float) -> list[dict]:
    """Batches of augmented, normalised images, without a network."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets as vision
    from torchvision import transforms

    from ablate.config import RunConfig
    from ablate.data import augment, datasets
    from ablate.training.builtin.batches import Pixels
    from ablate.training.builtin.learner import TorchLearner
    from ablate.training.builtin.randomness import batch_streams

    sys.path.insert(0, str(HERE))
    import tutorial

    torch.set_num_threads(1)
    # As workers have it, and here for both sides.
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 64 << 20)):
        ctypes.CDLL(None).mallopt(option, value)
    images = max(1000, int(5000 * share))
    with tempfile.TemporaryDirectory() as name:
        place = linked(folder, Path(name) / "images", images + 500, 100)
        os.environ["ABLATE_CACHE"] = str(Path(name) / "cache")
        config = RunConfig.parse(
            {
                "data": {"name": "image_folder", "root": str(place), "validation": 500 / (images + 500)},
                "model": {"name": "small_cnn"},
                "augment": {"flip": True, "crop": 4},
                "training": {"batch_size": 128},
            }
        )
        data = datasets.prepare(config.data)
        index, _ = datasets.split(data.train_labels, config.data, 0)
        mean, std = datasets.normalization(data.train_images, index)
        pixels = Pixels(data.train_images, data.train_labels, index, mean, std, torch.device("cpu"))
        streams = batch_streams(0, torch.device("cpu"))
        learner = TorchLearner(config, data.shape, len(data.classes), torch.device("cpu"))
        composed = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(tutorial.MEAN, tutorial.STD),
            ]
        )
        usual = DataLoader(vision.ImageFolder(f"{place}/train", composed), 128, shuffle=True)
        clock = time.process_time  # of this process alone, which does all of it
        rates: dict[str, list[float]] = {"ours": [], "usual": [], "share": []}
        for _ in range(repeat + 1):
            load = step = 0.0
            for batch in torch.split(torch.randperm(len(pixels)), 128):
                a = clock()
                inputs, labels = pixels.batch(batch)
                inputs = pixels.normalised(augment.augment(inputs, config.augment, streams))
                b = clock()
                learner.step(inputs, labels, 0.01)
                load, step = load + b - a, step + clock() - b
            began, seen = clock(), 0
            for inputs, _labels in usual:
                seen += len(inputs)
            rates["ours"].append(len(pixels) / load)
            rates["usual"].append(seen / (clock() - began))
            rates["share"].append(load / step)
    # The first round imports and allocates.
    ratios = [a / b for a, b in zip(rates["ours"][1:], rates["usual"][1:], strict=True)]
    return [
        row(
            "loading and augmentation alone, against PIL, one thread",
            ratios,
            f"{statistics.median(rates['ours'][1:]):,.0f} images/s",
            f"{statistics.median(rates['usual'][1:]):,.0f} images/s",
        ),
        {
            "what": "loading and augmentation, share of a small_cnn step",
            "ours": f"{100 * statistics.median(rates['share'][1:]):.0f} %",
            "theirs": "",
            "ratio": statistics.median(rates["share"][1:]),
        },
    ]


# --- many runs ----------------------------------------------------------------------------------------------------

OPTUNA = """
import itertools, json, optuna, sys
sys.path.insert(0, {here!r})
import tutorial
optuna.logging.set_verbosity(optuna.logging.WARNING)
runs = json.loads(sys.argv[1])
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.GridSampler({{"run": list(range(len(runs)))}}))
def objective(trial):
    return tutorial.train(**runs[trial.suggest_int("run", 0, len(runs) - 1)])["val_accuracy"]
study.optimize(objective, n_trials=len(runs), n_jobs={slots})
print(json.dumps([trial.value for trial in study.trials]))
"""

RAY = """
import json, os, sys
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
from ray import tune
import ray
ray.init(address="local", num_cpus={slots}, include_dashboard=False, log_to_driver=False)
runs = json.loads(sys.argv[1])
def trainable(config):
    sys.path.insert(0, {here!r})
    import tutorial
    tune.report({{"val_accuracy": tutorial.train(**runs[config["run"]])["val_accuracy"]}})
tuner = tune.Tuner(
    tune.with_resources(trainable, {{"cpu": 1}}),
    param_space={{"run": tune.grid_search(list(range(len(runs))))}},
    run_config=tune.RunConfig(storage_path={storage!r}, verbose=0),
)
print(json.dumps([result.metrics["val_accuracy"] for result in tuner.fit()]))
"""

STUDY = """
study: many
margin: 0.02
baseline:
  data: {{name: image_folder, root: {root}, validation: {validation}}}
  model: {{name: small_cnn}}
  augment: {{flip: true, crop: 4}}
  optimizer: {{name: sgd, lr: {lr}, momentum: 0.9, weight_decay: 5.0e-4}}
  training: {{epochs: {epochs}, batch_size: 128}}
factors: {factors}
design: {design}
seeds: 1
"""


def many_study(place: Path, images: int, epochs: int, *, shapes: bool = False) -> str:
    """Return a study of sixteen runs of `small_cnn`, of one shape or of sixteen. place: images to train on, and 500 to validate."""
    if shapes:
        factors = (
            "{model.channels: [[8, 16], [10, 16], [12, 16]], model.hidden: [[100, 84], [80, 84], [60, 84]]}"
        )
    else:
        factors = f"{{optimizer.lr: {list(LEARNING_RATES[1:])}, model.dropout: {list(DROPOUTS[1:])}}}"
    return STUDY.format(
        root=place,
        validation=500 / (images + 500),
        lr=0.05 if shapes else LEARNING_RATES[0],
        epochs=epochs,
        factors=factors,
        design="factorial",
    )


def many(folder: Path, repeat: int, share: float, slots: int, *, shapes: bool) -> list[dict]:
    """Sixteen runs, from the command to the last result."""
    images, epochs = max(1000, int(5000 * share)), 3
    takes: dict[str, list[float]] = {}
    scores: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = linked(folder, Path(name) / "images", images + 500, 500)
        each = {"folder": str(place), "images": images, "validation": 500, "epochs": epochs, "threads": 1}
        if shapes:
            variants = [
                {"lr": 0.05, "channels": [6 + 2 * a, 16], "hidden": [120 - 20 * b, 84]}
                for a, b in itertools.product(range(4), range(4))
            ]
        else:
            variants = [{"lr": lr, "dropout": p} for lr, p in itertools.product(LEARNING_RATES, DROPOUTS)]
        runs = json.dumps([each | variant for variant in variants])
        text = many_study(place, images, epochs, shapes=shapes)
        for number in range(repeat):
            work = Path(name) / f"repeat-{number}"
            work.mkdir()
            (work / "many.yaml").write_text(text)
            # Each in a new folder. The first study of a machine has an empty cache.
            for kind, more in ((FIRST, []), (FURTHER, []), (IN_TURN, ["--no-fuse"])):
                home = work / kind.replace(" ", "-")
                home.mkdir()
                began = time.perf_counter()
                subprocess.run(
                    [*ABLATE, "run", "../many.yaml", "-q", "--workers", str(slots), *more],
                    cwd=home,
                    env=os.environ | {"ABLATE_CACHE": str(work / "cache")},
                    check=True,
                    capture_output=True,
                )
                takes.setdefault(kind, []).append(time.perf_counter() - began)
                scores.setdefault(kind, []).append(accuracies(home))
            given = {"here": str(HERE), "slots": slots, "storage": str(work / "ray")}
            peers = {"Optuna n_jobs": OPTUNA} | ({"Ray Tune": RAY} if importlib.util.find_spec("ray") else {})
            for kind, script in peers.items():
                seconds, said = timed([sys.executable, "-c", script.format(**given), runs])
                takes.setdefault(kind, []).append(seconds)
                scores.setdefault(kind, []).append(statistics.mean(json.loads(said.splitlines()[-1])))
            if not shapes:
                began = time.perf_counter()
                with ThreadPoolExecutor(slots) as pool:
                    done = list(pool.map(single, json.loads(runs)))
                takes.setdefault("a process per run", []).append(time.perf_counter() - began)
                scores.setdefault("a process per run", []).append(statistics.mean(done))
    what = "16 small_cnn runs of " + ("16 shapes" if shapes else "one shape")
    return [
        row(
            f"{what}, {name}, against {kind}",
            [theirs / mine for theirs, mine in zip(takes[kind], takes[name], strict=True)],
            f"{statistics.median(takes[name]):.1f} s, {100 * statistics.mean(scores[name]):.1f} %",
            f"{statistics.median(takes[kind]):.0f} s, {100 * statistics.mean(scores[kind]):.1f} %",
        )
        for name in (FIRST, FURTHER)
        for kind in takes
        if kind not in (FIRST, FURTHER) and (name, kind) != (FIRST, IN_TURN)
    ]


def single(run: dict) -> float:
    command = [sys.executable, str(HERE / "tutorial.py"), run["folder"], "--lr", str(run["lr"])]
    command += ["--dropout", str(run["dropout"]), "--images", str(run["images"]), "--threads", "1"]
    command += ["--validation", str(run["validation"]), "--epochs", str(run["epochs"])]
    return float(json.loads(timed(command)[1])["val_accuracy"])


def accuracies(home: Path) -> float:
    """Mean validation accuracy of the runs of the study `many` under a folder."""
    from ablate.tracking.frames import plan_frames
    from ablate.tracking.plans import stored_plans
    from ablate.tracking.store import Store

    store = Store(f"sqlite:///{home}/mlruns/mlflow.db", home / "mlruns")
    runs, _ = plan_frames(store, stored_plans(store, "many")[-1].record)
    assert len(runs) == 16, len(runs)
    return float(runs["value"].mean())


def row(what: str, ratios: list[float], mine: str, theirs: str) -> dict:
    return {
        "what": what,
        "ours": mine,
        "theirs": theirs,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=("loading", "one", "bfloat16", "many", "shapes"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ours:
        print(json.dumps(ours(json.loads(given.ours))))
        return
    share, repeat = (0.1, 1) if given.quick else (1.0, given.repeat)
    cores = sorted(os.sched_getaffinity(0))
    parts = {
        "loading": lambda: loading(given.folder, repeat, share),
        "one": lambda: one(given.folder, repeat, share, cores[:2]),
        "bfloat16": lambda: bfloat16(given.folder, share),
        "many": lambda: many(given.folder, max(1, repeat - 1), share, len(cores), shapes=False),
        "shapes": lambda: many(given.folder, max(1, repeat - 2), share, len(cores), shapes=True),
    }
    found = {"machine": f"{platform.machine()}, {len(cores)} cores", "rows": []}
    print("| what | ours | theirs | ratio | load |\n| --- | ---: | ---: | ---: | ---: |")
    for part in [given.only] if given.only else parts:
        before = os.getloadavg()[0]
        for line in parts[part]():
            line["load"] = f"{before:.1f} → {os.getloadavg()[0]:.1f}"
            found["rows"].append(line)
            cells = (
                line["what"],
                line["ours"],
                line["theirs"],
                "" if line["ratio"] is None else f"{line['ratio']:.2f}",
                line["load"],
            )
            print(f"| {' | '.join(cells)} |", flush=True)
    if not given.quick and not given.only:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
