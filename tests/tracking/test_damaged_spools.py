"""One record that cannot be read, or that MLflow refuses, keeps no other from being delivered: it is set aside, and named."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from ablate.errors import StoreError
from ablate.events import EpochEnd, Finished, Started
from ablate.study.design import Run
from ablate.tracking import spool as spools
from ablate.tracking.operations import FinishAttempt, Opening, RunFacts, StartAttempt, SupersedeRun, to_json
from ablate.tracking.recover import recover
from ablate.tracking.rejected import is_refusal, rejections
from ablate.tracking.spool import Tracker
from ablate.tracking.store import Store
from ablate.training.function import FunctionConfig

AT = 1_700_000_000.0
NO_RUN = "0" * 32


def attempt(study: str, number: int, **changed: Any) -> list[dict[str, Any]]:
    """Return the lines of a run with a result. changed: fields of the last of them."""
    key = f"{number:016d}"
    opening = Opening(RunFacts(key, "r" * 16, "baseline", number, "report"), "p", {"gain": 0.5})
    start = StartAttempt(study, AT, key, 1, opening, {"device": "cpu"})
    end = FinishAttempt(
        study, AT + 9, key, 1, None, "finished", 1, {"val/loss": 0.5}, {"trace": "t"}, {"a": b"x"}
    )
    return [to_json(start), to_json(end) | changed]


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def epoch(**changed: Any) -> dict[str, Any]:
    """Return the record of an epoch, to be changed."""
    return {
        "op": "epoch",
        "experiment": "x",
        "time": AT,
        "key": "0" * 16,
        "attempt": 1,
        "epoch": 1,
        "metrics": {},
    } | changed


def without(name: str, record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != name}


STORE_PLAN = {"op": "plan", "experiment": "x", "time": AT, "environment": {}}

LINES: dict[str, bytes] = {
    "not JSON": b"{'op': 1}\n",
    "a line that was cut short": b'{"op": "epoch", "experiment": "x", "ti\n',
    "bytes": bytes(range(256)).replace(b"\n", b"") + b"\n",
    "not UTF-8": b'{"op": "epoch", "experiment": "\xff\xfe"}\n',
    "zeros, as a crash of the machine leaves them": b"\0" * 4096 + b"\n",
    "a number": b"17\n",
    "a list": b"[]\n",
    "a text": b'"op"\n',
    "null": b"null\n",
    "nothing in it": b"{}\n",
    "very deep": b"[" * 100_000 + b"\n",
    "a huge number": b'{"op": ' + b"9" * 10_000 + b"}\n",
    "an owner that is no name": line({"owner": ["a"]}),
    "an operation of a later version": line({"op": "teleport", "experiment": "x", "time": AT}),
    "an operation that is no name": line(epoch(op=["epoch"])),
    "a plan of a later version": line(STORE_PLAN | {"plan": {"version": 99}}),
    "a plan that is a list": line(STORE_PLAN | {"plan": []}),
    "a plan that is empty": line(STORE_PLAN | {"plan": {}}),
    "a plan of half its keys": line(
        STORE_PLAN | {"plan": {"version": 2, "id": "p", "declared": {}, "arms": []}}
    ),
    **{f"without its {name}": line(without(name, epoch())) for name in epoch() if name != "op"},
    **{f"{name} is a list": line(epoch(**{name: [1]})) for name in epoch()},
    **{f"{name} is null": line(epoch(**{name: None})) for name in epoch()},
    "a time that is none": line(epoch(time=float("nan"))),
    "an endless time": line(epoch(time=float("inf"))),
    "a time long before": line(epoch(time=-1e300)),
    "an epoch that is a truth value": line(epoch(epoch=True)),
    "an epoch beyond 64 bits": line(epoch(epoch=2**70)),
    "an attempt before the first": line(epoch(attempt=-3)),
    "a run without its key": line(epoch(run={"arm": "baseline"}, plan="p", config={})),
    "a run with a field too many": line(
        epoch(run=vars(RunFacts("k", "r", "a", 0, "report")) | {"more": 1}, plan="p", config={})
    ),
    "a config that is a text": line(
        epoch(run=vars(RunFacts("k", "r", "a", 0, "report")), plan="p", config="c")
    ),
    "an outcome that is none": line(attempt("x", 1, outcome="won")[1]),
    "files that are no base64": line(attempt("x", 1, files={"a": "*"})[1]),
    "files that are a list": line(attempt("x", 1, files=["a"])[1]),
    "a file that is a number": line(attempt("x", 1, files={"a": 3})[1]),
    "arms that are texts": line({"op": "arms", "experiment": "x", "time": AT, "step": 1, "arms": {"a": "b"}}),
    "arms without metrics": line({"op": "arms", "experiment": "x", "time": AT, "step": 1, "arms": {"a": {}}}),
    "a run that is gone": line(to_json(SupersedeRun("x", AT, NO_RUN, NO_RUN))),
    "a copy of a run that is gone": line(
        {"op": "copy", "experiment": "x", "time": AT, "plan": "p", "source": NO_RUN, "tags": {}}
        | {"run": vars(RunFacts("k", "r", "a", 0, "report"))}
    ),
    "an experiment without a name": line(epoch(experiment="")),
    "an experiment that MLflow does not take": line(
        attempt("x" * 600, 1)[0],
    ),
}
"""What is wrong with a line → the line."""

ENDS: dict[str, dict[str, Any]] = {
    "a metric that MLflow does not take": {"metrics": {"val/loss": 0.5, "a%b": 1.0}},
    "a metric without a name": {"metrics": {"val/loss": 0.5, "": 1.0}},
    "a metric with a long name": {"metrics": {"val/loss": 0.5, "m" * 300: 1.0}},
    "a metric that climbs out": {"metrics": {"val/loss": 0.5, "../m": 1.0}},
    "a metric that is a text": {"metrics": {"val/loss": 0.5, "m": "high"}},
    "a metric that is null": {"metrics": {"val/loss": 0.5, "m": None}},
    "a metric that is a truth value": {"metrics": {"val/loss": 0.5, "m": True}},
    "a fact with a name that MLflow does not take": {"facts": {"a%b": "x"}},
    "a fact with a long name": {"facts": {"f" * 300: "x"}},
    "a file with a long name": {"files": {"a": "eA==", "f" * 300: "eA=="}},
}
"""What is wrong with a part of a run's last record → its fields. The rest of it is recorded."""

TAKEN: dict[str, dict[str, Any]] = {
    "NaN": {"metrics": {"val/loss": 0.5, "m": float("nan")}},
    "endless": {"metrics": {"val/loss": 0.5, "m": float("-inf")}},
    "too large for a float": {"metrics": {"val/loss": 0.5, "m": 10**400}},
    "a long fact": {"facts": {"device": "x" * 20_000}},
    "lone surrogates": {"facts": {"device": "caf\udce9"}},
    "a NUL": {"facts": {"device": "a\0b"}},
    "a file called by bytes": {"files": {"a": "eA==", "caf\udce9.txt": "eA=="}},
}
"""What sounds bad and is recorded, in another form where that is needed."""


@dataclass(frozen=True)
class Spool:
    """What is wrong with a spool, and its lines. kept: whether nothing of it is set aside."""

    name: str
    lines: bytes
    kept: bool = False


def damaged() -> Iterator[Spool]:
    """Yield spools of one run each, whose number is the spool's, with something wrong in each."""
    numbers = iter(range(1, 10_000))
    first, last = attempt("x", next(numbers))
    yield Spool("lines", line(first) + b"".join(LINES.values()) + line(last))
    for parts, kept in ((ENDS, False), (TAKEN, True)):
        for name, changed in parts.items():
            yield Spool(name, b"".join(map(line, attempt("x", next(numbers), **changed))), kept)
    whole = b"".join(map(line, attempt("x", next(numbers))))
    yield Spool("cut short while it was written", whole + whole[:200], kept=True)


@pytest.fixture
def store(tmp_path, template_store) -> Store:
    root = tmp_path / "mlruns"
    root.mkdir()
    shutil.copy(template_store, root / "mlflow.db")
    return Store(f"sqlite:///{root / 'mlflow.db'}", root)


def replicates(store: Store, study: str = "x") -> dict[int, Any]:
    """Return seed → run."""
    client = MlflowClient(store.uri)
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    return {
        int(run.data.tags["ablate.seed"]): run for run in runs if run.data.tags["ablate.kind"] == "replicate"
    }


def test_a_damaged_spool_keeps_no_other_record_from_being_delivered(store, monkeypatch):
    owner = line({"owner": f"{socket.gethostname()}/another-boot/1/1"})
    folder = store.folder("spool")
    cases = list(damaged())
    for number, case in enumerate(cases, 1):
        (folder / f"{number:013d}-x.jsonl").write_bytes(owner + case.lines)
    wrong: dict[str, Callable[[Path], Any]] = {
        "empty": lambda path: path.write_bytes(b""),
        "binary": lambda path: path.write_bytes(os.urandom(5000) + b"\n"),
        "folder": lambda path: path.mkdir(),
        "pipe": os.mkfifo,
        "dangling": lambda path: path.symlink_to("nowhere"),
    }
    for number, (name, make) in enumerate(wrong.items()):
        make(folder / f"{number:013d}-{name}.jsonl")
    last = b"".join(map(line, attempt("good", 1)))
    (folder / f"{9:013d}9.jsonl").write_bytes(owner + last + b"\n")
    (folder / f"{9:013d}9.delivered").mkdir()
    monkeypatch.setattr(spools, "LONGEST_LINE", 1 << 17)
    (folder / f"{8:013d}9.jsonl").write_bytes(owner + b'{"op": "' + b"x" * 300_000 + b'"}\n' + last)
    other = attempt("x", 1)[0] | {"config": {"gain": 0.75}}
    (folder / f"{7:013d}9.jsonl").write_bytes(owner + line(other))
    unfinished = store.folder(f"artifacts/x/{NO_RUN}/artifacts") / ".0123456789abcdef.tmp"
    unfinished.touch()
    (folder / "0000000000001-gone.delivered").touch()  # its process was killed as it removed its spool
    said: list[str] = []
    recover(store, said.append)
    assert not unfinished.exists(), "what was being written when its process was killed"

    ended = replicates(store)
    for number, case in enumerate(cases, 1):
        run = ended.get(number)
        assert run is not None, case.name
        assert run.info.status == "FINISHED", case.name
        assert run.data.tags["ablate.outcome"] == "finished", case.name
        if "files" not in case.name:
            assert run.data.metrics["val/loss"] == 0.5, case.name
            artifacts = {item.path for item in MlflowClient(store.uri).list_artifacts(run.info.run_id)}
            assert "a" in artifacts, case.name
    assert replicates(store, "good").keys() == {1}
    left = {path.name.rpartition("-")[2] for path in folder.iterdir()}
    assert left == {"folder.jsonl", "pipe.jsonl", "dangling.jsonl", "rejected", f"{9:013d}9.delivered"}
    set_aside = {path.name for path in (folder / "rejected").iterdir()}
    for number, case in enumerate(cases, 1):
        assert (f"{number:013d}-x.jsonl" in set_aside) is not case.kept, case.name
    of_lines = (folder / "rejected" / f"{1:013d}-x.jsonl").read_text().splitlines()
    assert len(of_lines) == len(LINES)
    assert len(rejections(store)) >= len(set_aside)
    assert any("metric 'a%b'" in text for text in said)
    assert any("parameter 'gain'" in text for text in said)
    again: list[str] = []
    recover(store, again.append)
    assert [text for text in again if "could not be stored" in text] == []


def test_a_living_tracker_goes_on_after_what_mlflow_refuses(store):
    run = Run("k" * 16, "r" * 16, "caf\udce9", 0, "report")
    config = FunctionConfig({"train": "toy:fit"}, {"gain": "a\udc80\0"})
    with Tracker(store, "x") as tracker:
        tracker.supersede(NO_RUN, NO_RUN)
        tracker.event(Started(run.key, 1, 0, AT, {"device": "cpu"}), run, config, "plan")
        tracker.event(EpochEnd(run.key, 1, 1, AT, 1, {"val/loss": 0.5, "a%b": 1.0}), run, config, "plan")
        ended = Finished(run.key, 1, 2, AT, "finished", 1, {}, {"\udcff.txt": b"x", "b": b"y"}, {})
        tracker.event(ended, run, config, "plan")
        assert tracker.flush(60)
    [recorded] = replicates(store).values()
    assert (recorded.info.status, recorded.data.metrics) == ("FINISHED", {"val/loss": 0.5})
    assert recorded.data.tags["ablate.arm"] == r"caf\udce9"
    assert recorded.data.params["gain"] == r"a\udc80\x00"
    assert {item.path for item in MlflowClient(store.uri).list_artifacts(recorded.info.run_id)} == {
        r"\udcff.txt",
        "b",
    }
    whats = [rejection.what for rejection in tracker.rejected.records]
    assert whats == ["its record 'supersede'", "metric 'a%b'"]
    assert tracker.rejected.records[1].run == r"caf\udce9 · seed 0"
    assert rejections(store, "x") == tracker.rejected.records
    assert [path.name for path in (store.root / "spool").iterdir()] == ["rejected"]


def test_holes_in_a_spool_are_not_read_and_what_is_around_them_is(store):
    """A file may claim a terabyte and take a block."""
    path = store.folder("spool") / "0-x.jsonl"
    first, second = (b"".join(map(line, attempt("toy", number))) for number in (0, 1))
    with path.open("wb") as file:
        file.write(first)
        file.seek(1 << 39)
        file.write(b"\n" + second)
        file.truncate(1 << 40)
    recover(store)
    assert sorted(replicates(store, "toy")) == [0, 1]
    assert {rejection.what for rejection in rejections(store)} == {
        "line 3 of 0-x.jsonl",
        "line 6 of 0-x.jsonl",
    }


def test_bytes_that_are_no_text_in_the_database_are_not_the_fault_of_a_record(store):
    """sqlite quotes what is damaged, and Python cannot read the message: UnicodeDecodeError."""
    database = store.database
    whole = database.read_bytes()
    spool = store.folder("spool") / "0-x.jsonl"
    spool.write_bytes(b"".join(map(line, attempt("toy", 0))))
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("PRAGMA writable_schema = 1")
        db.execute(
            "UPDATE sqlite_master SET sql = CAST(x'435245415445205441424c45207461677328612920fffe' AS TEXT) WHERE name = 'tags'"
        )
    damaged = database.read_bytes()
    with contextlib.closing(sqlite3.connect(database)) as db, pytest.raises(UnicodeDecodeError) as decoded:
        db.execute("SELECT * FROM tags")
    assert not is_refusal(decoded.value)
    assert is_refusal(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"))
    with pytest.raises(StoreError):
        recover(store)
    assert database.read_bytes() == damaged
    assert rejections(store) == []
    database.write_bytes(whole)
    recover(store)
    assert [run.info.status for run in replicates(store, "toy").values()] == ["FINISHED"]
