"""How long `ablate judge` takes from the prompt to the page, as a markdown table.

    python benchmarks/judge.py [--repeat 5] [--seeds 5] [--arms 10 100] [--form page text]

Each time is that of a new process that reads a CSV of so many arms, 5 seeds each, and writes the report's page; the first one is
left out, unless there is no other (`--repeat 0`). Processor seconds are those of the process, which a busy machine does not change.
Modules are compiled once, as those of an installed package are, whatever PYTHONDONTWRITEBYTECODE says.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]
FORMS = {
    "page": ["--output", "page.html"],
    "text": ["--output", "text.txt"],
}


def write(path: Path, arms: int, seeds: int) -> None:
    """Write results of a loss: the baseline and arms that differ from it a little."""
    draw = random.Random(1)
    rows = [
        f"{'baseline' if arm == 0 else f'arm-{arm}'},{seed},{0.6 + 0.001 * arm + draw.gauss(0, 0.01):.4f}"
        for arm in range(arms)
        for seed in range(seeds)
    ]
    path.write_text("\n".join(["arm,seed,val_loss", *rows]) + "\n")


def seconds(folder: Path, options: list[str]) -> tuple[float, float]:
    """Return wall and processor seconds of one command."""
    command = [
        *ABLATE,
        "judge",
        "results.csv",
        "--baseline",
        "baseline",
        "--margin",
        "0.005",
        "--seed",
        "seed",
    ]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, *options], cwd=folder, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--form", choices=FORMS, nargs="+", default=[*FORMS])
    asked = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    print("| arms × seeds | written | seconds (median) | of the processor |")
    print("| --- | --- | ---: | ---: |")
    for arms in asked.arms:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "results.csv", arms, asked.seeds)
            for form in asked.form:
                times = [seconds(Path(folder), FORMS[form]) for _ in range(asked.repeat + 1)]
                times = times[1:] or times
                wall, processor = (statistics.median(side) for side in zip(*times, strict=True))
                print(f"| {arms} × {asked.seeds} | {form} | {wall:.2f} | {processor:.2f} |")


if __name__ == "__main__":
    main()
