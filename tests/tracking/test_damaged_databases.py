"""A database that cannot be read is named in one line, with what to do about it, by every command."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ablate import cli
from ablate.errors import AblateError

DATABASE = Path("mlruns/mlflow.db")


def changed(*statements: str) -> Callable[[bytes], None]:
    def change(content: bytes) -> None:
        DATABASE.write_bytes(content)
        with contextlib.closing(sqlite3.connect(DATABASE)) as db, db:
            for statement in statements:
                db.execute(statement)

    return change


def folder(_: bytes) -> None:
    DATABASE.unlink()
    DATABASE.mkdir()


def pipe(_: bytes) -> None:
    DATABASE.unlink()
    os.mkfifo(DATABASE)


KINDS: dict[str, Callable[[bytes], object]] = {
    "empty": lambda _: DATABASE.write_bytes(b""),
    "text": lambda _: DATABASE.write_bytes(b"hello" * 999),
    "cut short": lambda content: DATABASE.write_bytes(content[: len(content) // 2]),
    "header alone": lambda content: DATABASE.write_bytes(content[:100]),
    "zeros": lambda content: DATABASE.write_bytes(bytes(len(content))),
    "without runs": changed("DROP TABLE runs"),
    "without tags": changed("DROP TABLE tags"),
    "another program's": changed(*(f"DROP TABLE {name}" for name in ("tags", "metrics", "params", "runs"))),
    "a column of another name": changed("ALTER TABLE runs RENAME COLUMN artifact_uri TO place"),
    "runs that begin at a text": changed("UPDATE runs SET start_time = 'x'"),
    "a status that is no text": changed(
        "PRAGMA ignore_check_constraints = 1", "UPDATE runs SET status = x'00ff'"
    ),
    "tags that are no text": changed("UPDATE tags SET value = x'00ff' WHERE key = 'ablate.key'"),
    "bytes in what sqlite says": changed(
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_master SET sql = CAST(x'435245415445205441424c45207461677328612920fffe' AS TEXT) WHERE name = 'tags'",
    ),
    "folder": folder,
    "pipe": pipe,
}


IN_METRICS = {
    "steps": "step = 'x'",
    "steps that are absent": "step = NULL",
    "values": "value = x'00ff'",
    "values that are texts": "value = 'x'",
    "times": "timestamp = 'x'",
    "names": "key = x'00ff'",
}


def test_metrics_of_another_type_are_named(workplace):
    workplace.trained()
    content = DATABASE.read_bytes()
    for kind, change in IN_METRICS.items():
        DATABASE.write_bytes(content)
        with contextlib.closing(sqlite3.connect(DATABASE)) as db, db:
            db.execute("PRAGMA ignore_check_constraints = 1")
            db.execute("PRAGMA writable_schema = 1")
            db.execute("UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'metrics'")
        with contextlib.closing(sqlite3.connect(DATABASE)) as db, db:
            db.execute(f"UPDATE metrics SET {change} WHERE rowid = 1")
        said = workplace.ablate("report", "toy", code=2)
        assert "mlflow.db" in said, kind
        assert len(said.strip().splitlines()) == 2, said


def flipped(content: bytes, draw: random.Random) -> bytes:
    """Change a few bytes of what is not zero."""
    changed = bytearray(content)
    used = [place for place, byte in enumerate(content) if byte]
    for _ in range(draw.choice((1, 1, 5, 100))):
        place = draw.choice(used)
        is_text = 32 <= changed[place] < 127 and draw.random() < 0.7
        changed[place] = draw.randrange(32, 127) if is_text else draw.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("rounds", [8, pytest.param(500, marks=pytest.mark.slow)])
def test_flips_anywhere_in_a_database_end_in_no_traceback(workplace, rounds):
    workplace.trained()
    content = DATABASE.read_bytes()
    for seed in range(rounds):
        DATABASE.write_bytes(flipped(content, random.Random(seed)))
        for rest in DATABASE.parent.glob("mlflow.db-*"):
            rest.unlink()
        for command in (["status"], ["list"], ["report", "toy", "--format", "json"]):
            done = CliRunner().invoke(cli.app, command)
            if isinstance(done.exception, AblateError):
                assert "\n" not in str(done.exception.message), (seed, command)
            elif not isinstance(done.exception, SystemExit | None):
                raise done.exception


def test_a_damaged_database_is_named_with_what_to_do(workplace):
    workplace.trained()
    content = DATABASE.read_bytes()
    for kind, damage in KINDS.items():
        damage(content)
        for command in (
            ["status", "toy"],
            ["report", "toy"],
            ["run", "toy.yaml", "--executor", "inline", "-q"],
        ):
            said = workplace.ablate(*command, code=2)
            [first, *hint] = said.strip().splitlines()
            assert first.startswith("error: "), (kind, command, said)
            assert "mlflow.db" in first, (kind, command, said)
            assert len(hint) == 1, (kind, command, said)
        if DATABASE.is_dir():
            DATABASE.rmdir()
        DATABASE.unlink(missing_ok=True)
        for rest in DATABASE.parent.glob("mlflow.db-*"):
            rest.unlink()
        DATABASE.write_bytes(content)
    assert "9 finished" in workplace.ablate("status", "toy")
