"""A database that cannot be read is named in one line, with what to do about it, by every command."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

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
    "folder": folder,
    "pipe": pipe,
}


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
