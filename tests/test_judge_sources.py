"""Every source of results that the page of `ablate judge` names, by the command that it gives."""

from __future__ import annotations

import json
import re
import shlex
import struct
from pathlib import Path

import pandas as pd
import pytest

from ablate.importing.tensorboard import check_sum

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "judge.md").read_text()
OPTIMIZERS = DOCS / "examples" / "optimizers.csv"


def varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80]) + varint(number >> 7) if number > 0x7F else bytes([number])


def event(step: int, tag: str, value: float) -> bytes:
    """A record of an event file of TensorBoard."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    scalar = field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)
    message = b"\x10" + varint(step) + field(5, field(1, scalar))
    length = struct.pack("<Q", len(message))
    return b"".join(part + struct.pack("<I", check_sum(part)) for part in (length, message))


@pytest.fixture
def root(workplace):
    """A folder with the results of optimizers.csv as each program writes them."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    root = workplace.root
    frame = pd.read_csv(OPTIMIZERS)
    columns = (frame[name].tolist() for name in ("optimizer", "seed", "val/loss"))
    runs = list(zip(*columns, strict=True))

    def write(path: str, text: str | bytes) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(text.encode() if isinstance(text, str) else text)

    write("optimizers.csv", OPTIMIZERS.read_bytes())
    records = [{"config": {"optimizer": arm, "seed": seed}, "val/loss": loss} for arm, seed, loss in runs]
    write("runs.jsonl", "\n".join(map(json.dumps, records)))
    write("mlruns/17/meta.yaml", "experiment_id: '17'\nlifecycle_stage: active\nname: optimizers\n")
    chart: dict[str, list[float]] = {"Step": [1, 2]}
    cells = []
    for number, (arm, seed, loss) in enumerate(runs):
        report = {"val/loss": loss, "history": [{"loss": 2.0}]}
        write(f"results/{arm}/seed{seed}.json", json.dumps(report))
        write(f"runs/{arm}/{seed}/log.txt", f"epoch 1 val_loss 2.0\nepoch 2 val_loss {loss}\n")
        version = f"lightning_logs/version_{number}"
        write(f"{version}/metrics.csv", f"epoch,step,lr,val/loss\n0,1,,2.0\n1,2,,{loss}\n1,3,0.1,\n")
        write(f"{version}/hparams.yaml", f"optimizer: {arm}\nseed: {seed}\n")
        job = f"multirun/2026-01-01/10-00-00/{number}"
        write(f"{job}/result.json", json.dumps({"val/loss": loss}))
        write(f"{job}/.hydra/overrides.yaml", f"- optimizer={arm}\n- seed={seed}\n")
        events = event(1, "val/loss", 2.0) + event(300, "val/loss", loss)
        write(f"tensorboard/{arm}/{seed}/events.out.tfevents.1.x", events)
        run = f"mlruns/17/{number:032}"
        write(f"{run}/meta.yaml", f"artifact_uri: x\nlifecycle_stage: active\nrun_id: {number}\nstatus: 3\n")
        write(f"{run}/params/optimizer", arm)
        write(f"{run}/params/seed", str(seed))
        write(f"{run}/metrics/val/loss", f"1795916822342 2.0 1\n1795916822343 {loss} 2\n")
        config = {"optimizer": arm, "seed": seed}
        cells.append({"summary": {"val/loss": loss}, "config": config, "name": f"sun-{number}"})
        for end in ("", "__MIN", "__MAX"):
            chart[f"{arm}-{seed} - val/loss{end}"] = [2.0, loss]
    pd.DataFrame(cells).to_csv(root / "project.csv")
    pd.DataFrame(chart).to_csv(root / "chart.csv", index=False)
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    losses = {(arm, seed): loss for arm, seed, loss in runs}
    arms, seeds = list(dict.fromkeys(frame["optimizer"])), list(range(5))
    grid = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(root / "journal.log"))),
        study_name="grid",
        sampler=optuna.samplers.GridSampler({"optimizer": arms, "seed": seeds}, seed=0),
    )
    grid.optimize(
        lambda t: losses[t.suggest_categorical("optimizer", arms), t.suggest_int("seed", 0, 4)], n_trials=20
    )
    return root


def test_every_source_of_the_page_gives_the_same_verdicts_by_its_command(root, workplace):
    sources = re.search(r"^\| results in \|.*\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)[1]
    commands = [re.search(r"\| `(.*)` \|$", line)[1] for line in sources.splitlines()]
    assert len(commands) == 11
    found = {}
    for command in commands:
        output = workplace.ablate("judge", *shlex.split(command), "--format", "json")
        content = json.loads(output[output.index("{\n") : output.rindex("\n}") + 2])
        found[command] = {a["arm"]: (a["verdict"], a["n"], a["effect"]) for a in content["arms"]}
    expected = {
        arm: (verdict, n, pytest.approx(effect, abs=1e-6))
        for arm, (verdict, n, effect) in found[commands[0]].items()
    }
    assert len(expected) == 3
    assert {command: arms for command, arms in found.items() if arms != expected} == {}
