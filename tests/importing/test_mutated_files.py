"""Files of results, damaged at random: whatever they hold, the answer is a table, a verdict or a sentence."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
from pathlib import Path

import pytest
from mutations import Watch, mutated

from ablate.errors import AblateError
from ablate.importing import HowToRead
from ablate.importing.tensorboard import check_sum
from ablate.results import Asked, judge

ROWS = [
    (arm, seed, 0.9 + 0.01 * seed + 0.02 * (arm == "adam")) for arm in ("sgd", "adam") for seed in range(4)
]
HEADER = "arm,seed,val_acc"
PAIRED = Asked(baseline="sgd", margin=0.01, seed="seed", nan="missing")


def sealed(message: bytes) -> bytes:
    """A record of an event file, with its check sums."""
    length = struct.pack("<Q", len(message))
    return b"".join(part + struct.pack("<I", check_sum(part)) for part in (length, message))


SEEDS: dict[str, tuple[str, bytes]] = {
    "csv": ("r.csv", "\n".join([HEADER, *(f"{a},{s},{v:.4f}" for a, s, v in ROWS)]).encode()),
    "prose, semicolons, decimal commas": (
        "r.txt",
        (
            "Some prose: it is here, really.\n\n"
            "arm;seed;val_acc\n" + "".join(f"{a};{s};{v:.4f}\n" for a, s, v in ROWS).replace(".", ",")
        ).encode(),
    ),
    "utf-16": (
        "u.csv",
        "\n".join([HEADER, *(f"{a},{s},{100 * v:.1f}%" for a, s, v in ROWS)]).encode("utf-16"),
    ),
    "json": (
        "r.json",
        json.dumps({"runs": [{"arm": a, "config": {"seed": s}, "val_acc": v} for a, s, v in ROWS]}).encode(),
    ),
    "json lines": (
        "r.jsonl",
        "\n".join(json.dumps({"arm": a, "seed": s, "val_acc": v}) for a, s, v in ROWS).encode(),
    ),
    "frame of wandb": (
        "w.csv",
        b"summary,config,name\n"
        + "".join(
            f"\"{{'val_acc': {v}, 'x': nan}}\",\"{{'arm': '{a}', 'seed': {s}}}\",n{s}\n" for a, s, v in ROWS
        ).encode(),
    ),
    "chart of wandb": (
        "c.csv",
        b"Step,sgd-0 - val_acc,sgd-0 - val_acc__MIN,sgd-0 - val_acc__MAX\n1,.5,.4,.6\n2,.6,.5,.7\n",
    ),
    "curves": (
        "k.csv",
        "\n".join(
            [
                "arm,seed,epoch,val_acc,state",
                *(f"{a},{s},{e},{v},finished" for a, s, v in ROWS for e in (1, 2)),
            ]
        ).encode(),
    ),
    "log": ("log.txt", b"".join(b"epoch %d val_acc 0.9%d\n" % (i, i) for i in range(9))),
    "events of tensorboard": (
        "events.out.tfevents.1.host",
        sealed(bytes.fromhex("09000000000000000010072a0c0a0a0a03616363150000803f")),
    ),
    "hparams": (
        "lightning_logs/version_0/hparams.yaml",
        b"opt: adam\nnet: {width: 3, tags: [a, b]}\nseed: 0\n",
    ),
}


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path, Watch()


def check(root: Path, watch: Watch, number: int, seed: int) -> set[str]:
    rng = random.Random(seed)
    outcomes = set()
    for _ in range(number):
        kind = rng.choice(list(SEEDS))
        name, data = SEEDS[kind]
        shutil.rmtree(root / "in", ignore_errors=True)
        path = root / "in" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(mutated(data, rng))
        if kind == "hparams":
            (path.parent / "metrics.csv").write_text("step,val_acc\n1,0.5\n2,0.6\n")
        before = tree(root)
        source = "in/lightning_logs" if kind == "hparams" else f"in/{name}"
        how = HowToRead(lines=(r"val_acc (\S+)", r"epoch (?P<step>\d+)")) if kind == "log" else HowToRead()
        for asked in (
            Asked(),
            PAIRED,
            Asked(arm=("arm",), metric="val_acc", baseline="sgd", margin=0.01, unpaired=True, at="last"),
        ):
            try:
                with watch.on():
                    judged = judge([source], how, asked, lambda _: None)
            except AblateError as error:
                outcomes.add("refused" if str(error) else "refused without a word")
            except Exception as error:
                kept = Path("/tmp") / f"mutated-{seed}-{name.replace('/', '-')}"
                kept.write_bytes(path.read_bytes())
                raise AssertionError(f"{kind}, {asked}: kept as {kept}") from error
            else:
                outcomes.add("described" if isinstance(judged, str) else "judged")
        assert tree(root) == before, kind
        assert (watch.started, watch.written) == ([], []), kind
    return outcomes


def test_damaged_files_are_described_judged_or_refused_and_nothing_else_happens(sandbox):
    assert check(*sandbox, 60, 12) == {"described", "judged", "refused"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_two_thousand_damaged_files(sandbox, seed):
    assert check(*sandbox, 200, seed) == {"described", "judged", "refused"}


DEEP = "{'a': " * 4000 + "1" + "}" * 4000
HOSTILE = {
    "deep": {"summary": DEEP},
    "deep lists": {"summary": "[" * 100_000},
    "deep JSON": {"config": '{"a":' * 3000 + "1" + "}" * 3000},
    "NaN": {"summary": "{'val_acc': NaN, 'b': nan, 'c': -Infinity}"},
    "a huge number": {"summary": "{'val_acc': " + "9" * 5000 + "}"},
    "a number beyond all floats": {"summary": "{'val_acc': 1e999}"},
    "a huge power": {"summary": "{'val_acc': 9**9**9**9}"},
    "keys that are paths": {"config": "{'../../etc/passwd': 1, '/tmp/x': 2, 'a/../..': 3, 'C:\\\\x': 4}"},
    "keys that are the names of columns": {
        "config": "{'summary': 1, 'config': 2, 'name': 3, 'seed': 4, 'arm': 5}"
    },
    "keys of other types": {"config": "{1: 2, None: 3, (4, 5): 6, 1.5: 7}"},
    "keys of the terminal": {"config": "{'\\x1b[2J\\nFAKE: 1': 1, '\\u202e': 2, '\\ud800': 3, '\\x00': 4}"},
    "code": {"summary": "__import__('os').system('touch executed')", "config": "{'a': (lambda: 1)()}"},
    "many keys": {"config": "{" + ", ".join(f"'k{i}': {i}" for i in range(20_000)) + "}"},
    "a long key": {"config": "{'" + "k" * 100_000 + "': 1}"},
    "no dict": {"summary": "[1, 2]", "config": "7"},
    "bytes": {"config": "{'a': b'\\xff', 'b': {1, 2}, 'c': ..., 'd': 1j}"},
    "a name that is a path": {"name": "../../x"},
}
"""Cells of an export of Weights & Biases."""


def test_hostile_exports_are_judged_described_or_refused(sandbox):
    import csv

    root, watch = sandbox
    for kind, changed in HOSTILE.items():
        with (root / "w.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["summary", "config", "name"])
            for number, (arm, seed, value) in enumerate(ROWS):
                whole = {
                    "summary": str({"val_acc": value}),
                    "config": str({"arm": arm, "seed": seed}),
                    "name": f"n{number}",
                }
                rows.writerow((whole | (changed if number % 3 == 0 else {})).values())
        before = tree(root)
        for asked in (
            Asked(),
            PAIRED,
            Asked(arm=("arm",), metric="val_acc", baseline="sgd", margin=0.01, unpaired=True, nan="missing"),
        ):
            try:
                with watch.on():
                    judged = judge(["w.csv"], HowToRead(), asked, lambda _: None)
            except AblateError as error:
                said = error.sentence
            else:
                said = judged if isinstance(judged, str) else str(judged)
            assert not any(line.startswith("FAKE") for line in said.splitlines()), kind
            assert len(said) < 20_000, kind
        assert tree(root) == before, kind
        assert (watch.started, watch.written) == ([], []), kind


def test_the_check_sees_what_is_written_and_what_is_run(sandbox, tmp_path):
    _, watch = sandbox
    with watch.on(tmp_path / "in"):
        (tmp_path / "x").write_text("")
        (tmp_path / "x").unlink()
        os.system("true")
        with pytest.raises(OSError, match="no network"):
            socket.create_connection(("127.0.0.1", 1))
    assert (len(watch.written), len(watch.started)) == (2, 1)


def test_the_check_sees_what_does_not_end(sandbox):
    _, watch = sandbox
    watch.seconds = 0.05

    def endless() -> None:
        while True:
            pass

    with pytest.raises(AssertionError, match="processor time"), watch.on():
        endless()


@pytest.mark.parametrize("kind", ["json", "jsonl", "a name of a file"])
def test_text_with_half_a_character_in_it_is_judged(sandbox, kind):
    root, _ = sandbox
    half = "sgd\ud800"
    rows = [
        {"arm": half if arm == "sgd" else arm, "seed": seed, "val_acc": value, "\udcff": 1}
        for arm, seed, value in ROWS
    ]
    where, how = ["r.json"], HowToRead()
    if kind == "json":
        (root / "r.json").write_text(json.dumps(rows))
    elif kind == "jsonl":
        (root / "r.json").write_text("\n".join(map(json.dumps, rows)))
    else:
        where, how = ["runs/{arm}/{seed}.txt"], HowToRead(lines=(r"val_acc (\S+)",))
        for row in rows:
            path = Path(
                os.fsdecode(f"{root}/runs/{row['arm']}/{row['seed']}.txt".encode("utf-8", "surrogatepass"))
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"val_acc {row['val_acc']}\n")
    try:
        judged = judge(
            where,
            how,
            Asked(arm=("arm",), metric="val_acc", baseline="adam", margin=0.01, seed="seed"),
            lambda _: None,
        )
    except AblateError as error:
        pytest.fail(str(error))
    assert not isinstance(judged, str)
    str(judged).encode()
