"""Event files of TensorBoard: the scalars in them, by step.

A file is a row of records, length, check sum, message, check sum (TFRecord), and a message is an `Event` of protocol
buffers: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto. Reading the few fields of a
scalar needs no package.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ablate.errors import DataError
from ablate.importing.source import ResultSource
from ablate.importing.table import HowToRead, Table, checked_columns

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""

_FLOAT, _DOUBLE = 1, 2
"""Types of a tensor that a scalar may have."""


def recognizes(source: ResultSource) -> bool:
    """Return whether a file is called as TensorBoard calls its files."""
    return source.is_file and ".tfevents." in source.path.name


def read(source: ResultSource, how: HowToRead) -> Table:  # noqa: ARG001 — of the protocol
    """Return a row for each step, with a column for each tag. Raises DataError where the file is none of TensorBoard's.

    What a run that was killed left unfinished at the end of its file is left out.
    """
    import pandas as pd

    path = source.path
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
    checked_columns(path, names)
    rows = pd.DataFrame(
        [{"step": str(step), **scalars} for step, scalars in sorted(steps.items())],
        columns=["step", *names],
        dtype=object,
    )
    rows.index = pd.RangeIndex(1, len(rows) + 1)
    return Table(rows.fillna(""), {})


def _records(path: Path) -> Iterator[bytes]:
    """The messages of a file."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            while True:
                header = file.read(12)
                if len(header) < 12:
                    return
                [length] = struct.unpack("<Q", header[:8])
                if file.tell() + length + 4 > size:
                    return
                yield file.read(length)
                file.read(4)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", place=str(path)) from None


def _fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(number, wire type, value) of the fields of a message. Raises IndexError or struct.error where it is none."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
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
