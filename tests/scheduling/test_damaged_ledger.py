"""Optuna's journal keeps what the record has too: one that cannot be read is set aside, and made again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

JOURNAL = Path("mlruns/optuna.journal")


def flipped(content: bytes) -> bytes:
    return bytes(byte ^ 0x80 if i % 97 == 3 else byte for i, byte in enumerate(content))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "binary": lambda content: os.urandom(len(content)) + b"\n",
    "flipped": flipped,
    "zeros": lambda content: bytes(len(content)) + b"\n",
    "a line that is no JSON": lambda content: b"{'op_code': 1}\n" + content,
    "a line of another kind": lambda content: b"[1, 2]\n" + content,
    "an operation that is none": lambda content: b'{"op_code": 99}\n' + content,
    "a text": lambda content: b"hello\n",
}


@pytest.mark.parametrize("kind", ["binary", "a line of another kind"])
def test_a_journal_that_cannot_be_read_is_set_aside_and_rebuilt(workplace, kind):
    path = workplace.trained()
    before = JOURNAL.read_bytes()
    JOURNAL.write_bytes(DAMAGE[kind](before))
    damaged = JOURNAL.read_bytes()
    said = workplace.ablate("run", path, "--executor", "inline")
    assert "could not be read" in said
    [aside] = JOURNAL.parent.glob("optuna.journal.damaged-*")
    assert aside.read_bytes() == damaged
    assert JOURNAL.read_bytes().count(b'"run"') >= 9, "the runs of the record are in the new one"
    assert "could not be read" not in workplace.ablate("run", path, "--executor", "inline")


def test_every_kind_of_damage_is_noticed(workplace):
    from ablate.launch import data_lookup
    from ablate.scheduling.queue import Queue
    from ablate.study import design, spec

    path = workplace.trained()
    content = JOURNAL.read_bytes()
    plan = design.plan(spec.read(Path(path)), data_lookup(), None)
    for kind, damage in DAMAGE.items():
        JOURNAL.write_bytes(damage(content))
        assert Queue(plan, JOURNAL.parent).rebuilt is not None, kind
    # What a kill leaves, or a power failure, which leaves zeros where it has grown, is repaired, and nothing is lost.
    for torn in (content[:-20], content + bytes(4096), content[:-20] + bytes(20), content[:-1] + bytes(1)):
        JOURNAL.write_bytes(torn)
        assert Queue(plan, JOURNAL.parent).rebuilt is None
        assert b"\0" not in JOURNAL.read_bytes()
