"""The globals of a module of the user's, as digests of everything that they lead to: a run that changes any of it is noticed."""

from __future__ import annotations

import contextlib
import contextvars
import decimal
import enum
import functools
import hashlib
import io
import logging
import os
import pickle
import queue
import random
import re
import sys
import threading
import types
import warnings
import weakref
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from datetime import time as time_of_day
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

MOST_OBJECTS = 200_000
"""Objects of a module that are looked at; where there are more, the module counts as changed."""

WHOLE = 64 << 20
"""Bytes of an array that are compared whole; of a larger one, evenly spread pieces are."""

STDERR = 2

PIECES = 1024
PIECE = 4096
"""How many pieces of a large array are compared, and the bytes of each."""

_OF_MODULES = frozenset(
    ("__builtins__", "__cached__", "__spec__", "__loader__", "__warningregistry__", "__annotations__")
)
_OF_CLASSES = frozenset(
    (
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__abstractmethods__",
        "_abc_impl",
        "__annotations__",
        "__slotnames__",
    )
)
_OF_FUNCTIONS = frozenset(("__wrapped__",))
_SHOWN_BY_REPR = (
    type(None),
    type(...),
    type(NotImplemented),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    range,
    slice,
    decimal.Decimal,
    Fraction,
    date,
    time_of_day,
    timedelta,
    PurePath,
    re.Pattern,
    UUID,
    enum.Enum,
)
_LOCKS = (type(threading.Lock()), type(threading.RLock()))


class _TooManyError(Exception):
    """More objects than are looked at."""


class ModuleGlobals:
    """The globals of a module, as digests of all that they lead to."""

    def __init__(self, module: types.ModuleType) -> None:
        self._module = module
        self._kept: list[Any] = []
        self._before = self._digests()

    def changed(self) -> set[str]:
        """Return the names that lead to something else than before. `Class.name` for an attribute of a class of the module."""
        now = self._digests()
        return {name for name in self._before.keys() | now.keys() if self._before.get(name) != now.get(name)}

    def _digests(self) -> dict[str, bytes]:
        digests: dict[str, bytes] = {}
        walk = _Walk(
            self._module.__name__,
            self._kept,
            {value for value in list(vars(self._module).values()) if self._is_own_class(value)},
        )
        try:
            for name, value in list(vars(self._module).items()):
                if name in _OF_MODULES:
                    continue
                digests[name] = walk.digest(value)
                if self._is_own_class(value):
                    for inner, attribute in list(vars(value).items()):
                        if inner not in _OF_CLASSES:
                            digests[f"{name}.{inner}"] = walk.digest(attribute)
        except Exception:  # noqa: BLE001 — too many objects, or code of theirs that looking at them runs
            # Unlike itself: whatever cannot be compared counts as changed.
            return {"*": os.urandom(16)}
        return digests

    def _is_own_class(self, value: Any) -> bool:
        return isinstance(value, type) and value.__module__ == self._module.__name__


class _Walk:
    """Digests objects with all that they lead to. module: the user's; functions and classes of others count by their identity.

    kept: objects that count by their identity, so that no other object takes their address. named: classes whose attributes are
    looked at by their names, and not here.
    """

    def __init__(self, module: str, kept: list[Any], named: Collection[type] = ()) -> None:
        self._package = module.partition(".")[0]
        self._kept = kept
        self._named = named
        self._made = 0  # how deep this is in what was made to be looked at, whose identity says nothing
        self._seen: set[int] = set()
        self._alive: list[Any] = []
        self._left = MOST_OBJECTS

    def digest(self, value: Any) -> bytes:
        hashed = hashlib.blake2b(digest_size=16)
        self._add(value, hashed)
        return hashed.digest()

    def _add(self, value: Any, hashed: Any) -> None:
        kind = type(value)
        hashed.update(kind.__qualname__.encode())
        if isinstance(value, _SHOWN_BY_REPR):
            is_bytes = isinstance(value, bytes | bytearray)
            hashed.update(value if is_bytes else repr(value).encode(errors="backslashreplace"))
            if not getattr(value, "__dict__", None):
                return
        self._left -= 1
        if self._left < 0:
            raise _TooManyError
        if id(value) in self._seen:
            hashed.update(b"%d" % id(value))
            return
        self._seen.add(id(value))
        self._alive.append(value)
        is_shown = isinstance(value, _SHOWN_BY_REPR)
        for part in self._attributes(value) if is_shown else self._parts(value, hashed):
            self._add(part, hashed)

    def _identity(self, value: Any, hashed: Any) -> None:
        self._kept.append(value)
        hashed.update(b"%d" % id(value))

    def _parts(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Yield what an object leads to; what it is itself goes into the digest."""
        kind = type(value)
        if isinstance(value, Mapping) and hasattr(value, "items"):
            for key, inner in list(value.items()):
                yield key
                yield inner
            yield from self._attributes(value)
        elif isinstance(value, list | tuple | deque):
            yield from list(value)
            yield from self._attributes(value)
        elif isinstance(value, set | frozenset):
            hashed.update(b"".join(sorted(self.digest(inner) for inner in value)))
            yield from self._attributes(value)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, hashed)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif hasattr(kind, "cache_info") and hasattr(kind, "cache_clear"):
            hashed.update(repr(value.cache_info()[1:]).encode())
            yield getattr(value, "__wrapped__", None)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset, value.fdel)
        elif isinstance(value, type):
            self._identity(value, hashed)
            if self._is_own(value) and value not in self._named:
                yield {name: inner for name, inner in list(vars(value).items()) if name not in _OF_CLASSES}
        elif isinstance(value, random.Random):
            yield value.getstate()
        elif isinstance(value, types.GeneratorType):
            frame = value.gi_frame
            if frame is not None:
                yield frame.f_lasti
                yield frame.f_locals
        elif hasattr(kind, "to_numpy") and kind.__module__.partition(".")[0] == "pandas":
            yield from _columns(value)
        elif isinstance(value, logging.Logger):
            yield from (value.level, value.disabled, value.propagate, [id(each) for each in value.handlers])
        elif not self._is_of_arrays(value):
            attributes = list(self._attributes(value))
            if isinstance(value, types.ModuleType | threading.Thread | logging.Handler):
                self._identity(value, hashed)
            elif attributes and not isinstance(value, io.IOBase):
                yield from attributes
            else:
                yield from self._compiled(value, hashed)
        else:
            yield from self._arrays(value, hashed)

    def _compiled(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Take in an object that has no attributes: by its identity, and by what it tells of its state, or would be pickled as."""
        if not self._made:
            self._identity(value, hashed)
        self._made += 1
        yield _state_of(value)
        self._made -= 1

    def _attributes(self, value: Any) -> Iterator[Any]:
        """Yield names and values of the attributes of an instance."""
        for name, inner in list(getattr(value, "__dict__", {}).items()):
            yield name
            yield inner
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    yield name
                    yield getattr(value, name, None)

    def _function(self, value: types.FunctionType, hashed: Any) -> Iterator[Any]:
        self._identity(value, hashed)
        if not self._is_own(value):
            return
        self._identity(value.__code__, hashed)
        yield from (value.__defaults__, value.__kwdefaults__)
        yield {name: inner for name, inner in vars(value).items() if name not in _OF_FUNCTIONS}
        yield getattr(value, "__wrapped__", None)
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty one
                yield cell.cell_contents

    def _is_own(self, value: Any) -> bool:
        """Return whether a class or a function is of the user's package."""
        module = value.__module__
        return isinstance(module, str) and module.partition(".")[0] == self._package

    def _is_of_arrays(self, value: Any) -> bool:
        kind = type(value)
        return kind.__module__.partition(".")[0] in ("numpy", "torch") and not hasattr(kind, "state_dict")

    def _arrays(self, value: Any, hashed: Any) -> Iterator[Any]:
        """Take in an array, a tensor or a generator of random numbers; other objects of NumPy and torch by their attributes."""
        numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
        if numpy is not None and isinstance(value, numpy.ndarray):
            yield from (str(value.dtype), value.shape)
            if value.dtype.hasobject:
                yield value.tolist()
            elif value.flags.writeable or value.base is None:
                hashed.update(b"%d" % _checksum(value))
            if "numpy.ma" in sys.modules and isinstance(value, numpy.ma.MaskedArray):
                yield from (value.mask, value.fill_value, value.hardmask)
        elif numpy is not None and isinstance(value, numpy.random.RandomState):
            yield value.get_state(legacy=False)
        elif numpy is not None and isinstance(value, numpy.random.Generator):
            yield value.bit_generator.state
        elif torch is not None and isinstance(value, torch.Tensor):
            yield from (str(value.dtype), tuple(value.shape), str(value.device), value.requires_grad)
            yield value.data_ptr() if value.layout is torch.strided else 0
            yield 0 if value.is_inference() else value._version  # noqa: SLF001 — there is no other door
            if value.device.type == "cpu" and value.layout is torch.strided and value.numel():
                whole = value.detach().contiguous().view(-1).view(torch.uint8)
                hashed.update(b"%d" % _checksum(whole.numpy()))
            if value.is_leaf:
                yield value.grad
        elif torch is not None and isinstance(value, torch.UntypedStorage):
            if value.device.type == "cpu":
                yield torch.empty(0, dtype=torch.uint8).set_(value)
        elif torch is not None and isinstance(value, torch.Generator):
            hashed.update(value.get_state().numpy().tobytes())
        elif isinstance(value, _values_of(numpy, "generic", "dtype") + _values_of(torch, "device", "dtype")):
            hashed.update(repr(value).encode())
        else:
            attributes = list(self._attributes(value))
            yield from attributes
            if not attributes:
                is_numpys = type(value).__module__.startswith("numpy")
                yield from self._compiled(value, hashed) if is_numpys else ()
                if not is_numpys:
                    self._identity(value, hashed)


def _columns(value: Any) -> Iterator[Any]:
    """Yield the content of an object of pandas: what else it keeps changes as it is looked at."""
    numpy = sys.modules["numpy"]
    columns = getattr(value, "columns", None)
    yield str(getattr(value, "dtypes", None))
    for each in (columns, getattr(value, "index", None)):
        if each is not None:
            yield numpy.array(each.to_numpy())
    for each in [value] if columns is None else (value.iloc[:, i] for i in range(len(columns))):
        yield numpy.array(each.to_numpy())


def _state_of(value: Any) -> Any:
    """Return what a compiled object tells of its state; None where it tells nothing."""
    if isinstance(value, io.IOBase):
        return _position(value), getattr(value, "__dict__", None)
    if isinstance(value, contextvars.ContextVar):
        return value.get(None)
    if isinstance(value, _LOCKS):
        return repr(value)  # whether it is held, and by whom
    if isinstance(value, queue.SimpleQueue):
        return value.qsize()
    if isinstance(value, weakref.ReferenceType):
        return value()
    if isinstance(value, memoryview | pickle.PickleBuffer):
        with contextlib.suppress(ValueError, BufferError, TypeError):  # it is released, or has gaps
            return _checksum_of_bytes(value)
        return None
    if "mmap" in sys.modules and isinstance(value, sys.modules["mmap"].mmap):
        with contextlib.suppress(ValueError, BufferError):  # it is closed
            return value.tell(), _checksum_of_bytes(value)
        return None
    if "sqlite3" in sys.modules and isinstance(value, sys.modules["sqlite3"].Connection):
        with contextlib.suppress(Exception):  # of another thread
            return value.total_changes, value.in_transaction
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        return value.__reduce_ex__(5)
    return None


def _position(file: io.IOBase) -> Any:
    """Return where an open file stands, and what is in it where that is in memory."""
    if file.closed:
        return "closed"
    if isinstance(file, io.StringIO | io.BytesIO):
        return file.tell(), file.getvalue()
    with contextlib.suppress(Exception):
        if file.fileno() <= STDERR:
            return None  # whatever is printed
    with contextlib.suppress(Exception):  # a pipe, or a text that is being iterated over
        return file.tell()
    with contextlib.suppress(Exception):
        return file.buffer.tell()  # type: ignore[attr-defined]
    return None


def _values_of(module: Any, *names: str) -> tuple[type, ...]:
    """Return classes of a module whose instances are what their representation says; none where it is not loaded."""
    return () if module is None else tuple(getattr(module, name) for name in names)


def _checksum(array: Any) -> int:
    """Return a checksum of the bytes of an array."""
    numpy = sys.modules["numpy"]
    return _checksum_of_bytes(numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8))


def _checksum_of_bytes(content: Any) -> int:
    data = memoryview(content).cast("B")
    if data.nbytes <= WHOLE:
        return zlib.crc32(data)
    checksum = 0
    for start in range(0, data.nbytes - PIECE, (data.nbytes - PIECE) // PIECES):
        checksum = zlib.crc32(data[start : start + PIECE], checksum)
    return checksum
