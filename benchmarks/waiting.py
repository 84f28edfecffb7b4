"""What a person waits for besides training: a short study in a new folder, and the same command with nothing left to do.

    python benchmarks/waiting.py [--repeat 3]
    python benchmarks/waiting.py --images FOLDER      also from the prompt to the end of the first epoch, by the clock

Seconds are the processor's, of all processes that the command has started, until the last of them has ended; other work on the machine
slows them less than the clock's. The first command is left out: it fills the user's cache. Needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import speed

SUBREAPER = 36
"""Of `prctl`: processes whose parent has ended become children of this one, so that it can wait for them."""

STUDY = """
study: six
metric: val/accuracy
margin: 0.02
baseline:
  data: {name: digits, validation: 0.25}
  model: {name: cnn, depth: 2, width: 16, batch_norm: false}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 1, batch_size: 64}
factors: {optimizer.lr: [0.05, 0.2]}
seeds: 2
"""


def used() -> float:
    about = resource.getrusage(resource.RUSAGE_CHILDREN)
    return about.ru_utime + about.ru_stime


def spent(folder: str) -> float:
    before = used()
    command = [sys.executable, "-m", "ablate", "run", "six.yaml", "-q"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return used() - before


def until_first_epoch(study: str) -> float:
    """Return the seconds until the first epoch of a study has ended, in a new folder; the study ends there. study: its content."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "many.yaml").write_text(study)
        command = [sys.executable, "-m", "ablate", "run", "many.yaml", "--json"]
        began = time.monotonic()
        with subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            kinds = (json.loads(line)["kind"] for line in process.stdout)
            took = next(time.monotonic() - began for kind in kinds if kind == "epoch")
            process.terminate()
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="with train/<class>/* and test/<class>/*"
    )
    given = parser.parse_args()
    repeat: int = given.repeat
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    takes: dict[str, list[float]] = {
        "six digit runs of one epoch, in a new folder": [],
        "the same command again": [],
    }
    for _ in range(repeat + 1):
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "six.yaml").write_text(STUDY)
            for seconds in takes.values():
                seconds.append(spent(folder))
    print("| what | of the processor |\n| --- | ---: |")
    for what, seconds in takes.items():
        print(
            f"| {what} | {statistics.median(seconds[1:]):.2f} s ({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f}) |"
        )
    if given.images:
        with tempfile.TemporaryDirectory() as folder:
            place = speed.linked(given.images, Path(folder) / "images", 5500, 500)
            study = speed.many_study(place, 5000, epochs=3)
            seconds = [until_first_epoch(study) for _ in range(repeat + 1)][1:]
        print(
            f"| prompt to the end of the first epoch, sixteen runs (clock) | {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}) |"
        )


if __name__ == "__main__":
    main()
