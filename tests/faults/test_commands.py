"""Commands that behave badly, through `ablate run`: each ends as what it is, and nothing of it is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ABLATE = [sys.executable, "-c", "from ablate.cli import main; main()"]

BAD = r'''
import os, random, signal, sys, time
from pathlib import Path

kind, seed = sys.argv[1], int(sys.argv[2])
folder = Path(os.environ["ABLATE_RUN_DIR"])
first = os.environ["ABLATE_ATTEMPT"] == "1"
random.seed(seed)


def escape():
    """Start a process that belongs to no group, session or parent of this one, and write its id."""
    if os.fork() == 0:
        os.setsid()
        parent = os.getpid()
        if os.fork() > 0:
            os._exit(0)
        while os.getppid() == parent:
            time.sleep(0.001)
        new = folder / "escaped.new"
        new.write_text(str(os.getpid()))
        new.rename(folder / "escaped")
        time.sleep(1000)
        os._exit(0)
    while not (folder / "escaped").exists():
        time.sleep(0.001)


def metric(epoch):
    print(f"epoch {epoch} | loss {1 / epoch + random.gauss(0, 0.01):.6f} | acc {90 + random.random():.2f}%", flush=True)


if kind == "bar":
    for epoch in (1, 2):
        for batch in range(100):
            print(f"\r\x1b[32m{batch}%\x1b[0m |{'#' * batch:100}|", end="", flush=batch % 10 == 0)
        print("\r", end="")
        metric(epoch)
elif kind == "forks":
    escape()
    metric(1)
elif kind == "loud":
    metric(1)
    for i in range(100):
        sys.stdout.buffer.write(b"\xff" * 99_000 + b"\r" + b"a word and another\n" * 53)
    metric(2)
elif kind == "dies":
    metric(1)
    escape()
    os.kill(os.getpid(), signal.SIGSEGV)
elif kind == "dies-once":
    assert not (folder / "left").exists(), "the folder is not a fresh one"
    (folder / "left").touch()
    if first:
        sys.exit("the disk was away")
    metric(1)
elif kind == "hangs":
    metric(1)
    escape()
    time.sleep(1000)
elif kind == "waits":
    escape()
    while True:
        print("still here", flush=True)
        time.sleep(0.05)
elif kind == "waits-once" and first:
    escape()
    time.sleep(1000)
elif kind == "sized":
    # As the progress bar of pytorch-cifar.
    _, width = os.popen("stty size", "r").read().split()
    for batch in range(3):
        sys.stdout.write(" [" + "=" * 65 + "]  Step: 5ms | " + f"loss {1 / (batch + 1):.3f} | acc {90 + random.random():.3f}%")
        sys.stdout.write(" " * (int(width) - 120) + "\b" * (int(width) - 40) + f" {batch + 1}/3 ")
        sys.stdout.write("\r" if batch < 2 else "\n")
elif kind == "beside":
    # Writes beside itself what the next run of it would read.
    saved = Path("checkpoint/last")
    assert not saved.exists(), "another run has written here"
    saved.parent.mkdir()
    saved.write_text("weights")
    metric(1)
elif kind == "resumes":
    epochs = len(list(folder.glob("epoch-*")))
    metric(epochs + 1)
    (folder / f"epoch-{epochs + 1}").touch()
    if first:
        sys.exit("the machine goes away")
elif kind == "mute":
    print("Acc@1 91.3, as ever")
else:
    metric(1)
    metric(2)
'''

STUDY = """
study: bad
command: [python, bad.py, "{{kind}}", "{{seed}}"]
baseline: {{kind: good}}
factors: {{kind: [{kinds}]}}
metric: val/accuracy
metrics:
  val/accuracy: {{line: 'acc ([\\d.]+)%'}}
  train/loss: {{line: 'loss ([\\d.]+)'}}
margin: 0.5
seeds: 1
"""


def write(folder: Path, *kinds: str, more: str = "") -> str:
    (folder / "bad.py").write_text(BAD)
    (folder / "bad.yaml").write_text(STUDY.format(kinds=", ".join(kinds)) + more)
    return "bad.yaml"


def escaped(folder: Path) -> list[int]:
    """Process ids of what escaped from the runs."""
    return [int(file.read_text()) for file in folder.glob("mlruns/runs/*/escaped")]


def ends(pid: int) -> bool:
    """Wait until a process has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 60)[0])
    finally:
        os.close(descriptor)


def by_kind(workplace) -> dict[str, list]:
    """Kind of the script → the attempts of its run."""
    attempts: dict[str, list] = {}
    for run in sorted(workplace.runs("bad"), key=lambda run: run.data.tags["ablate.attempt"]):
        attempts.setdefault(run.data.tags["ablate.arm"].removeprefix("kind="), []).append(run)
    return attempts


def printed(workplace, run) -> bytes:
    return Path(workplace.client.download_artifacts(run.info.run_id, "output.txt")).read_bytes()


def test_each_bad_script_ends_as_what_it_is(workplace):
    study = write(
        workplace.root, "bar", "forks", "loud", "dies", "dies-once", "hangs", "mute", more="silence: 3s\n"
    )
    workplace.ablate("run", study, "--allow-command", "--executor", "inline", code=1)
    attempts = by_kind(workplace)
    assert {kind: [run.info.status for run in runs] for kind, runs in attempts.items()} == {
        "baseline": ["FINISHED"],
        "bar": ["FINISHED"],
        "forks": ["FINISHED"],
        "loud": ["FINISHED"],
        "dies": ["FAILED", "FAILED"],
        "dies-once": ["FAILED", "FINISHED"],
        "hangs": ["FAILED"],
        "mute": ["FAILED"],  # a second attempt would lack the metric too
    }
    reasons = {
        kind: runs[0].data.tags.get("ablate.reason", "").partition("; its last line: ")
        for kind, runs in attempts.items()
    }
    assert {kind: (what, last) for kind, (what, _, last) in reasons.items() if last} == {
        "dies": (
            "the command was killed by SIGSEGV (Segmentation fault)",
            "epoch 1 | loss 1.009417 | acc 90.42%",
        ),
        "dies-once": ("the command exited with 1", "the disk was away"),
        "hangs": (
            "the command printed nothing for 3 s and was ended",
            "epoch 1 | loss 1.009417 | acc 90.42%",
        ),
        "mute": (
            r"the metric 'val/accuracy' was never found: no line matched 'acc ([\d.]+)%'",
            "Acc@1 91.3, as ever",
        ),
    }
    # The same seed, the same values, whatever is printed beside them.
    good, *others = (attempts[kind][-1].data.metrics["train/loss"] for kind in ("baseline", "bar", "loud"))
    assert others == [good, good]
    loud = printed(workplace, attempts["loud"][-1])
    assert len(loud) <= 1_000_000
    assert b" MiB left out" in loud
    assert loud.startswith(b"epoch 1 | ")
    assert loud.splitlines()[-1].startswith(b"epoch 2 | ")
    assert printed(workplace, attempts["dies"][0]).endswith(b"acc 90.42%\n")
    assert len(escaped(workplace.root)) == 3
    assert all(ends(pid) for pid in escaped(workplace.root))


@pytest.mark.parametrize("more", ["tty: true\n", ""])
def test_a_script_that_needs_a_terminal_gets_one(workplace, more):
    study = write(workplace.root, "sized", more=more)
    workplace.ablate("run", study, "--allow-command", "--executor", "inline", code=0 if more else 1)
    run = by_kind(workplace)["sized"][-1]
    if more:
        assert run.data.metrics["train/loss"] == 0.333
        assert run.data.metrics["val/accuracy"] > 90
    else:
        assert "Inappropriate ioctl for device" in printed(workplace, run).decode()


def test_runs_that_write_beside_themselves_are_isolated(workplace):
    study = write(workplace.root, "beside", more="isolate: true\n")
    before = sorted(path.name for path in workplace.root.iterdir())
    workplace.ablate("run", study, "--allow-command", "--executor", "inline", "--seeds", "2")
    assert [run.info.status for run in by_kind(workplace)["beside"]] == ["FINISHED"] * 2
    assert sorted(path.name for path in workplace.root.iterdir()) == before
    left = [path for path in workplace.root.glob("mlruns/runs/*/folder/**/*") if path.is_file()]
    assert [(path.name, path.read_text()) for path in left] == [("last", "weights")] * 2


@pytest.mark.parametrize(("more", "epochs"), [("resume: true\n", 2), ("", 1)])
def test_a_retry_finds_its_folder_only_where_the_study_says_so(workplace, more, epochs):
    study = write(workplace.root, "resumes", more=more)
    workplace.ablate("run", study, "--allow-command", "--executor", "inline")
    failed, finished = by_kind(workplace)["resumes"]
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert f"epoch {epochs} | ".encode() in printed(workplace, finished)


def wait_for(find, process: subprocess.Popen):
    """Return what `find` returns, once it is something; asked for again and again while the process lives."""
    while not (found := find()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_nothing_outlives_a_worker_or_the_coordinator(workplace):
    """Kill the worker of a waiting run, then the coordinator of its retry, and press Ctrl-C at last."""
    study = write(workplace.root, "waits")
    command = [*ABLATE, "run", study, "--allow-command", "--workers", "1"]
    seen: set[int] = set()

    def new() -> list[int]:
        return [pid for pid in escaped(workplace.root) if pid not in seen]

    for sign in (signal.SIGKILL, signal.SIGINT):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            [pid] = wait_for(new, process)
            guardian = parent(pid)
            family = [pid, guardian]
            seen.add(pid)
            if sign is signal.SIGKILL:
                os.kill(parent(guardian), signal.SIGKILL)
                assert all(map(ends, family))
                [pid] = wait_for(new, process)
                guardian = parent(pid)
                family = [pid, guardian, parent(guardian)]
                seen.add(pid)
            process.send_signal(sign)
            assert all(map(ends, family))
            process.communicate()
        assert process.returncode == (-sign if sign is signal.SIGKILL else 130)
    workplace.ablate("status")
    statuses = {kind: {run.info.status for run in runs} for kind, runs in by_kind(workplace).items()}
    assert statuses == {"baseline": {"FINISHED"}, "waits": {"FAILED", "KILLED"}}
    # What it printed is kept, of the attempt whose worker was killed as of the one that Ctrl-C ended.
    attempts = by_kind(workplace)["waits"]
    kept = [
        run
        for run in attempts
        if "output.txt" in {f.path for f in workplace.client.list_artifacts(run.info.run_id)}
    ]
    assert {run.info.status for run in kept} == {"FAILED", "KILLED"}
    assert all(printed(workplace, run).startswith(b"still here\n") for run in kept)
    assert not list(workplace.root.glob("mlruns/runs/*.output"))


@pytest.mark.slow
def test_a_trial_that_is_interrupted_keeps_nothing_and_says_so(workplace):
    study = write(workplace.root, "bar", more="silence: 30s\n")
    command = [*ABLATE, "run", study, "--try", "--allow-command", "--set", "kind=waits"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("$ python bad.py waits 0")
        process.send_signal(signal.SIGINT)
        assert "interrupted: nothing is kept of a trial" in process.communicate()[0]
    assert process.returncode == 130
    assert not list(workplace.root.glob("mlruns/runs/*"))


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_broken_off_and_what_it_printed_is_kept(workplace):
    study = write(workplace.root, "waits")
    workplace.ablate("run", study, "--allow-command", "--workers", "1", "--timeout", "6s", code=1)
    [run] = by_kind(workplace)["waits"]
    assert run.data.tags["ablate.reason"] == "took longer than 6 s"
    assert printed(workplace, run).startswith(b"still here\nstill here\n")
    assert all(ends(pid) for pid in escaped(workplace.root))
