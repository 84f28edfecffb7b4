"""Reading arrays from files that a crash, a disk or a person may have damaged: within bounds of memory, and checked whole."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate import plain_files

LARGEST = 1 << 30
"""Bytes that the arrays of one file may take: a gigabyte holds the predictions of a hundred million images."""

MOST_ARRAYS = 1000


class DamagedError(Exception):
    """The file is not what was written, or would take too much memory. Its text says why."""


SHORT_HEADER = 128
"""Bytes of the header that numpy writes for an array of plain numbers: it fills them up with spaces."""

Header = tuple[tuple[int, ...], bool, np.dtype[Any], int]
"""Shape, whether it is in Fortran's order, type, and where the array begins."""

Arrays = dict[str, npt.NDArray[Any]]


def read_arrays(source: bytes | Path) -> Arrays:
    """Return the arrays of an `.npz` file. Raises DamagedError; OSError where it cannot be opened."""
    if isinstance(source, Path):
        if source.stat().st_size > LARGEST:
            raise DamagedError("it would take too much memory")
        source = plain_files.read(source)
    archive = ArrayFile(source)
    return {name: archive[name] for name in archive.checksums}


class ArrayFile:
    """An `.npz` file whose arrays are read when they are asked for. checksums: name → checksum and size of each, as the file has them.

    Raises DamagedError. content: of the file.
    """

    def __init__(self, content: bytes) -> None:
        with _damaged():
            self._archive = zipfile.ZipFile(io.BytesIO(content))
            self._entries = {entry.filename.removesuffix(".npy"): entry for entry in _entries(self._archive)}
        self.checksums = {name: (entry.CRC, entry.file_size) for name, entry in self._entries.items()}

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return an array. Raises KeyError where there is none of that name."""
        entry = self._entries[name]
        with _damaged(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about headers
            # Read to its end, where its checksum is compared; and no further than it says that it is long.
            return _array(self._archive.read(entry))


@contextlib.contextmanager
def _damaged() -> Iterator[None]:
    try:
        yield
    except DamagedError:
        raise
    except (MemoryError, RecursionError) as error:
        raise DamagedError("it would take too much memory") from error
    except Exception as error:  # what zipfile, zlib and numpy raise on damaged files is not to be listed
        raise DamagedError(str(error) or type(error).__name__) from error


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > MOST_ARRAYS or sum(entry.file_size for entry in entries) > LARGEST:
        raise DamagedError("it would take too much memory")
    return entries


def _array(content: bytes) -> npt.NDArray[Any]:
    """Return the array of an `.npy` file, of plain numbers or text, whose header says just as much as follows it."""
    shape, is_fortran, dtype, start = _header(content[:SHORT_HEADER]) or _parsed(content)
    if (
        dtype.hasobject
        or dtype.kind not in "biufUS"
        or dtype.itemsize * math.prod(shape) != len(content) - start
    ):
        raise DamagedError("the header of an array does not fit what follows it")
    array = np.frombuffer(content, dtype, offset=start) if dtype.itemsize else np.zeros(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


@functools.lru_cache(maxsize=1000)
def _header(beginning: bytes) -> Header | None:
    """Return what the header at the beginning of an `.npy` file says, where it is as short as numpy writes it.

    numpy parses it as Python, which takes longer than to read what it describes, and those of thousands of runs are the same.
    """
    length = 10 + int.from_bytes(beginning[8:10], "little")
    return (
        _parsed(beginning) if beginning[6:8] == b"\1\0" and length == SHORT_HEADER == len(beginning) else None
    )


def _parsed(content: bytes) -> Header:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = header(file)
    return shape, is_fortran, dtype, file.tell()


def check_whole(array: npt.NDArray[Any], size: int, *, below: int | None = None, kinds: str = "iu") -> None:
    """Raise DamagedError where an array is not (size,), of the kinds of numbers, each from 0 to `below`."""
    if array.shape != (size,) or array.dtype.kind not in kinds:
        raise DamagedError(f"an array is {array.dtype} {array.shape} where {size} values are expected")
    if size and kinds == "iu" and (int(array.min()) < 0 or (below is not None and int(array.max()) >= below)):
        raise DamagedError("a value is out of its range")
