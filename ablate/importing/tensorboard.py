"""Event files of TensorBoard: the scalars in them, by step.

A file is a row of records, length, check sum, message, check sum (TFRecord, https://www.tensorflow.org/tutorials/load_data/tfrecord),
and a message is an `Event` of protocol buffers: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto. Reading the few fields of a
scalar needs no package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ablate.errors import DataError
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, checked_columns, head_of

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""

_FLOAT, _DOUBLE = 1, 2
"""Types of a tensor that a scalar may have."""

_MOST_CHECKED = 1 << 16
"""Bytes of a message up to which its check sum is computed: a step of scalars has a few hundred, one of images millions."""


def recognizes(source: ResultSource) -> bool:
    """Return whether a file is called as TensorBoard calls its files."""
    return source.is_file and ".tfevents." in source.path.name


def read(source: ResultSource, how: HowToRead) -> Table:  # noqa: ARG001 — of the protocol
    """Return a row for each step, with a column for each tag. Raises DataError where the file is none of TensorBoard's.

    What a run that was killed left unfinished at the end of its file is left out: half of a record, or zeros.
    """
    import pandas as pd

    path = source.path
    head_of(path)
    steps: dict[int, dict[str, str]] = {}
    for event in _records(path):
        try:
            step, scalars = _scalars(event)
        except (IndexError, struct.error, UnicodeDecodeError):
            raise DataError("is no event file of TensorBoard", place=str(path)) from None
        if scalars:
            steps.setdefault(step, {}).update(scalars)
    names = list(dict.fromkeys(name for scalars in steps.values() for name in scalars))
    if not names:
        raise DataError("has no scalar in it", place=str(path))
    names = [name for name in names if name != "step"]  # the step of an event is told by the event
    checked_columns(path, names)
    rows = pd.DataFrame(
        [{**scalars, "step": str(step)} for step, scalars in sorted(steps.items())],
        columns=["step", *names],
        dtype=object,
    )
    rows.index = pd.RangeIndex(1, len(rows) + 1)
    return Table(rows.fillna(""), {})


def _records(path: Path) -> Iterator[bytes]:
    """The messages of a file. Raises DataError where one is not what was written, by its check sum."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while True:
                start = file.tell()
                header = file.read(12)
                if len(header) < 12 or not any(header):
                    return
                length, check = struct.unpack("<QI", header)
                if check != check_sum(header[:8]):
                    if start == 0:
                        raise DataError("is no event file of TensorBoard", place=str(path))
                    raise _damaged(path, start)
                if start + 12 + length + 4 > size:
                    return
                message = file.read(length)
                [check] = struct.unpack("<I", file.read(4))
                if length <= _MOST_CHECKED and check != check_sum(message):
                    raise _damaged(path, start)
                yield message
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _damaged(path: Path, start: int) -> DataError:
    return DataError(
        f"is damaged: the record at byte {start:,} is not what was written, by its check sum",
        place=str(path),
        hint="copy the file again, or leave it out",
    )


@cache
def _remainders() -> tuple[int, ...]:
    """CRC-32C of every byte."""
    found = []
    for number in range(256):
        for _ in range(8):
            number = (number >> 1) ^ (0x82F63B78 if number & 1 else 0)  # noqa: PLW2901 — shifted bit by bit
        found.append(number)
    return tuple(found)


def check_sum(content: bytes) -> int:
    """Return the check sum of a part of a record: CRC-32C, rotated by 15 bits, and a constant."""
    remainders, value = _remainders(), 0xFFFFFFFF
    for byte in content:
        value = (value >> 8) ^ remainders[(value ^ byte) & 0xFF]
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of the fields of a message. Raises IndexError or struct.error where it is none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if not number:
            raise IndexError("a field without a number")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            if at + size > len(message):
                raise IndexError("a field that ends too early")
            yield number, kind, message[at : at + size]
            at += size
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise IndexError("a field that ends too early")
            yield number, kind, message[at : at + size]
            at += size
        else:
            raise IndexError("a field of an unknown kind")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise IndexError("a number that does not end")


def _scalars(event: bytes) -> tuple[int, dict[str, str]]:
    """The step of an event and its scalars: tag → value as text."""
    step = 0
    scalars: dict[str, str] = {}
    for number, _, value in _fields(event):
        if number == 2 and isinstance(value, int):
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5 and isinstance(value, bytes):
            for inner, _, summary in _fields(value):
                if inner == 1 and isinstance(summary, bytes):
                    scalars |= _scalar(summary)
    return step, scalars


def _scalar(summary: bytes) -> dict[str, str]:
    """The tag and the value of one entry; empty where it is an image, a histogram or the like."""
    tag, found = "", None
    for number, kind, value in _fields(summary):
        if number == 1 and isinstance(value, bytes):
            tag = value.decode()
        elif number == 2 and kind == _FIXED32 and isinstance(value, bytes):
            [found] = struct.unpack("<f", value)
        elif number == 8 and isinstance(value, bytes):
            found = _tensor(value)
    return {} if found is None or not tag else {tag: _shortest(found)}


def _tensor(message: bytes) -> float | None:
    """The number of a tensor with one."""
    kind, content = 0, b""
    for number, _, value in _fields(message):
        if number == 1 and isinstance(value, int):
            kind = value
        elif number in (4, 5, 6) and isinstance(
            value, bytes
        ):  # its bytes, or its floats or doubles one by one
            content = value
    code, size = {_FLOAT: ("<f", 4), _DOUBLE: ("<d", 8)}.get(kind, ("", 0))
    return float(struct.unpack(code, content)[0]) if size and len(content) == size else None


def _shortest(value: float) -> str:
    """A number of 32 bits in as few digits as tell it from its neighbours; the others in full."""
    text = f"{value:.9g}"
    for digits in range(1, 9):
        shorter = f"{value:.{digits}g}"
        try:
            if struct.pack("<f", float(shorter)) == struct.pack("<f", value):
                return shorter
        except OverflowError:
            break
    return text
