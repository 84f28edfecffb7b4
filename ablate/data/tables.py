"""Tables with a column of encoded images and one of labels: parquet files, and data sets that Hugging Face's `datasets` saved.

Both are read by pyarrow, a batch of rows at a time; `datasets` itself is not needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data import parts
from ablate.data.cache import Content, Progress, Source, check_space
from ablate.data.decode import BrokenImageError, Decoded, Survey, decode, decoded_file, decoding, few
from ablate.errors import DataError, nearest
from ablate.text import counted, cut, format_bytes, joined, visible

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

BATCH = 256
"""Rows that are read at a time."""

MOST_GROUP_BYTES = 1 << 33
"""Bytes of a group of rows of a parquet file, which is decompressed as a whole."""

MOST_JSON_BYTES = 1 << 26


@dataclass(frozen=True)
class RowFile:
    """A file of rows. part: of the data, as in `parts.PARTS`. batches: reads columns, a batch of rows at a time."""

    path: Path
    part: str
    schema: Schema
    batches: Callable[[Sequence[str]], Iterator[RecordBatch]]


@dataclass(frozen=True)
class ImageColumns:
    """Names of the columns that are read, and the classes' names where the data tell them."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def parquet(root: str, image: str | None, label: str | None, resize: int | None) -> Source:
    """Return the source of parquet files. root: a file, or a folder of them. image, label: columns; None: found by their types.

    Files are told apart by their names, or by those of their folders: what begins with `train`, `validation`, `val`, `valid`,
    `dev` or `test` belongs to that part. Where none does, all are training images. Raises DataError.
    """
    top = parts.existing(root)
    files, notes = ([top], []) if top.is_file() else _parquet_files(top)
    if not files:
        raise DataError(
            f"{visible(str(top))} has no .parquet files", place="data.root", hint="; ".join(notes) or None
        )
    by_file = {file: _part_of(file, top) for file in files}
    if not any(by_file.values()):
        by_file = dict.fromkeys(files, "train")
    unknown = [file for file, part in by_file.items() if part is None]
    if unknown:
        raise DataError(
            f"{visible(str(unknown[0]))} is of no part",
            place="data.root",
            hint="where one file is called after its part, all of them begin with train, validation or test",
        )
    known = {file: part for file, part in by_file.items() if part is not None}
    notes += _missing_shards(files, top)
    return _source("parquet", top, known, _parquet_table, (image, label), resize, notes)


def _parquet_files(top: Path) -> tuple[list[Path], list[str]]:
    """Return the parquet files in a folder and below it, and what to know of other files there."""
    files: list[Path] = []
    others: list[str] = []
    for folder, folders, found in os.walk(top, onerror=_raise):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(found):
            path = Path(folder) / name
            if name.startswith("."):
                continue
            if not name.lower().endswith(".parquet"):
                # Cards and descriptions lie beside most data sets.
                if not name.lower().endswith(
                    (".md", ".txt", ".json", ".yaml", ".yml", ".crc")
                ) and not name.startswith("_"):
                    others.append(os.path.relpath(path, top))
            elif not path.exists():
                raise DataError(f"{visible(str(path))} is a link that leads nowhere", place="data.root")
            else:
                files.append(path)
    notes = []
    if others:
        verb = "is" if len(others) == 1 else "are"
        notes.append(
            f"{counted(len(others), 'file')} {verb} not used, not ending in .parquet: {few(others, len(others))}"
        )
    return files, notes


def _raise(error: OSError) -> None:
    raise DataError(
        f"{visible(str(error.filename))} cannot be read: {error.strerror}", place="data.root"
    ) from error


def _missing_shards(files: Sequence[Path], top: Path) -> list[str]:
    """Return which files are missing where names such as `train-00000-of-00004` tell how many there should be."""
    there: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if match := re.fullmatch(r"(.*?)(\d+)-of-(\d+)(.*)", os.path.relpath(file, top)):
            there.setdefault((match[1], match[3]), set()).add(int(match[2]))
    return [
        f"{counted(missing, 'file')} of {int(total):,} {'is' if missing == 1 else 'are'} missing of {visible(name)}…-of-{total}"
        for (name, total), numbers in there.items()
        if (missing := int(total) - len(numbers & set(range(int(total))))) > 0
    ]


def huggingface(root: str, image: str | None, label: str | None, resize: int | None) -> Source:
    """Return the source of a data set that `datasets` saved by `save_to_disk`; arguments as for `parquet`.

    Splits called other than train, validation (val, valid, dev) and test are not used, which is noted. Raises DataError.
    """
    top = parts.existing(root)
    splits = [""]
    if (top / "dataset_dict.json").is_file():
        splits = _texts(_json(top / "dataset_dict.json").get("splits"), top / "dataset_dict.json")
    by_file: dict[Path, str] = {}
    unused: list[str] = []
    for split in splits:
        part = "train" if split == "" else parts.part_of(split)
        if part is None:
            unused.append(split)
            continue
        folder = top / split
        state = _json(folder / "state.json")
        if state.get("_indices_data_files"):
            raise DataError(
                f"{folder} was saved by an old version of datasets, with a list of indices",
                place="data.root",
                hint="load it and save it again with save_to_disk",
            )
        listed = state.get("_data_files")
        files = (
            [entry.get("filename") for entry in listed if isinstance(entry, dict)]
            if isinstance(listed, list)
            else None
        )
        for name in _texts(files, folder / "state.json"):
            # Only files of this folder: their names come from a file that someone else may have written.
            by_file[folder / Path(name).name] = part
    if not by_file:
        raise DataError(
            f"{top} has no split that is called train, validation or test",
            place="data.root",
            hint=f"its splits: {joined(splits)}" if splits else None,
        )
    notes = _missing_shards(list(by_file), top)
    if unused:
        are = (
            "split is not used, not being called"
            if len(unused) == 1
            else "splits are not used, not being called"
        )
        notes.append(f"{len(unused):,} {are} train, validation or test: {few(unused, len(unused))}")
    return _source("huggingface", top, by_file, _arrow_table, (image, label), resize, notes)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_JSON_BYTES or not path.is_file():
            raise DataError(f"{path} is no file, or too large", place="data.root")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path.parent} was not saved by save_to_disk: it has no {path.name}",
            place="data.root",
            hint="`load_dataset(…).save_to_disk(FOLDER)` writes such a folder; parquet files are `name: parquet`",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}", place="data.root") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not what datasets writes", place="data.root")
    return content


def _texts(value: Any, path: Path) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise DataError(f"{visible(str(path))} is not what datasets writes", place="data.root")
    return value


def _part_of(file: Path, top: Path) -> str | None:
    """Return the part that a file belongs to by its name, or by those of its folders below `top`; None where none tells."""
    for word in (
        file.name,
        *(folder.name for folder in file.parents if folder.is_relative_to(top) and folder != top),
    ):
        beginning = word.lower().replace("_", "-").partition(".")[0].partition("-")[0]
        if beginning in parts.NAMES:
            return parts.NAMES[beginning]
    return None


def _source(
    kind: str,
    top: Path,
    by_file: Mapping[Path, str],
    open_table: Callable[[Path, str], RowFile],
    columns: tuple[str | None, str | None],
    resize: int | None,
    notes: Sequence[str],
) -> Source:
    """Return the source of files of rows. Its key is a digest of their listing, as that of an image folder."""
    digest = hashlib.sha256()
    ordered = sorted(by_file, key=lambda file: (parts.PARTS.index(by_file[file]), file))
    for file in ordered:
        try:
            status = file.stat()
        except OSError as error:
            raise DataError(
                f"{visible(str(file))} cannot be read: {error.strerror}", place="data.root"
            ) from error
        name = os.path.relpath(file, top)
        listed = (by_file[file], name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(repr(listed).encode())

    def read(scratch: Path, progress: Progress) -> Content:
        return _read(
            [open_table(file, by_file[file]) for file in ordered], columns, resize, scratch, progress
        )

    return Source((kind, repr(columns), str(resize), digest.hexdigest()), read, notes=tuple(notes))


def _parquet_table(path: Path, part: str) -> RowFile:
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    try:
        file = pq.ParquetFile(path)
        for number in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(number).total_byte_size
            if size > MOST_GROUP_BYTES:
                raise DataError(
                    f"{path} has a group of rows of {format_bytes(size)}; at most {format_bytes(MOST_GROUP_BYTES)}",
                    place="data.root",
                    hint="write it with a smaller row_group_size",
                )
    except (ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return RowFile(
        path,
        part,
        file.schema_arrow,
        lambda columns: file.iter_batches(batch_size=BATCH, columns=list(columns)),
    )


_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def _arrow_table(path: Path, part: str) -> RowFile:
    import pyarrow as pa

    try:
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, len(_END_OF_STREAM)), os.SEEK_END)
            # A stream may end after any batch: of one that was cut off there, pyarrow reads the beginning without an error.
            if file.read() != _END_OF_STREAM:
                raise pa.ArrowInvalid("it was cut off, for it lacks the end of a stream")
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error

    def opened() -> Any:
        try:
            return pa.ipc.open_stream(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, error) from error

    def batches(columns: Sequence[str]) -> Iterator[RecordBatch]:
        for batch in opened():
            # Unchecked, offsets in a damaged file lead pyarrow outside its memory, which ends the process.
            batch.validate(full=True)
            yield batch.select(list(columns))

    schema = opened().schema
    try:
        _ = schema.names
    except ValueError as error:  # bytes that are no UTF-8
        raise _unreadable(path, error) from error
    return RowFile(path, part, schema, batches)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{visible(str(path))} cannot be read: {_reason(error)}", place="data.root")


def _reason(error: Exception) -> str:
    return visible((str(error).splitlines() or [type(error).__name__])[0])


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(
    tables: Sequence[RowFile],
    columns: tuple[str | None, str | None],
    resize: int | None,
    scratch: Path,
    progress: Progress,
) -> Content:
    """Decode every row. The labels come first: they say where each image goes."""
    from pyarrow import ArrowException

    chosen = _columns(tables[0], *columns)
    for table in tables:
        lacking = {chosen.image, chosen.label} - set(table.schema.names)
        if lacking:
            raise DataError(
                f"{table.path} has no column {lacking.pop()!r}",
                place="data.root",
                hint=f"its columns: {joined(table.schema.names)}",
            )
        _check_names(table, tables[0], chosen)
    values: dict[str, list[Any]] = {}
    try:
        for table in tables:
            of_part = values.setdefault(table.part, [])
            for batch in table.batches([chosen.label]):
                of_part += batch.column(0).to_pylist()
        labels, classes = parts.indices(values, chosen.classes, "data.label")
        arranged = parts.arrange(labels, classes, "data.root")
        with decoding():
            return _decoded(tables, chosen, (labels, classes, arranged), resize, scratch, progress)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"the data cannot be read: {_reason(error)}", place="data.root") from error


def _decoded(
    tables: Sequence[RowFile],
    columns: ImageColumns,
    truth: tuple[Mapping[str, Any], tuple[str, ...], parts.PartOrder],
    resize: int | None,
    scratch: Path,
    progress: Progress,
) -> Content:
    labels, classes, arranged = truth
    total = len(arranged.order)
    goes_to = np.empty(total, dtype=np.int64)
    goes_to[arranged.order] = np.arange(total)
    pixels: Any = None
    survey = Survey(total, "data.root")
    for table in tables:
        own_row = 0
        for batch in table.batches([columns.image]):
            for cell in batch.column(0):
                image = _image(cell.as_py(), table.path.parent, resize)
                row = survey.seen
                if survey.takes(f"row {own_row} of {table.path}", image):
                    assert isinstance(image, Decoded)
                    if pixels is None:
                        width, height = image.size
                        check_space(scratch, 3 * width * height * total)
                        shape = (total, height, width, 3)
                        pixels = np.memmap(scratch / "pixels", dtype=np.uint8, mode="w+", shape=shape)
                    pixels[goes_to[row]] = np.frombuffer(image.pixels, np.uint8).reshape(pixels.shape[1:])
                own_row += 1
            progress("reading images", survey.seen, total)
    survey.check()
    images = pixels.transpose(0, 3, 1, 2)[:, : 1 if survey.is_grey else 3]
    every = np.concatenate([labels[part] for part in parts.PARTS if part in labels])[arranged.order]
    cut_at = total - arranged.test
    return Content(
        *(images[:cut_at], every[:cut_at], images[cut_at:], every[cut_at:], classes),
        validation=arranged.validation,
        notes=(*arranged.notes, *parts.lacking_classes(labels, classes), *survey.notes()),
    )


def _image(cell: Any, folder: Path, resize: int | None) -> Decoded | BrokenImageError:
    """Return the image of a cell: its bytes, or a struct of `bytes` and `path`, as Hugging Face has them."""
    content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    if content is None and path:
        if not (folder / str(path)).is_file():
            return BrokenImageError(
                f"names {cut(visible(str(path)))}, which does not exist",
                "put the file there or remove the row",
            )
        return decoded_file(folder / str(path), resize)
    if not isinstance(content, bytes) or not content:
        return BrokenImageError("has no image", "fill the cell or remove the row")
    try:
        return decode(content, resize)
    except BrokenImageError as error:
        return error


def _columns(table: RowFile, image: str | None, label: str | None) -> ImageColumns:
    """Return the columns of images and labels: those that are named, or the only ones that can be. Raises DataError."""
    import pyarrow as pa

    schema = table.schema
    features = _features(schema)
    for name, key in ((image, "data.image"), (label, "data.label")):
        if name is not None and name not in schema.names:
            raise DataError(
                f"{table.path.name} has no column {name!r}", place=key, hint=nearest(name, schema.names)
            )

    def holds_images(name: str) -> bool:
        kind = schema.field(name).type
        is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        return bool(is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def holds_labels(name: str) -> bool:
        kind = schema.field(name).type
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    image = image or _only([n for n in schema.names if holds_images(n)], ("image", "img"), "image", schema)
    named = [n for n in schema.names if features.get(n, {}).get("_type") == "ClassLabel"]
    label = label or _only(
        named or [n for n in schema.names if holds_labels(n)], ("label", "labels"), "label", schema
    )
    if not holds_images(image):
        raise DataError(
            f"the column {image!r} holds {schema.field(image).type}",
            place="data.image",
            hint="encoded images are bytes, or a struct of bytes and path as Hugging Face has them",
        )
    if not holds_labels(label):
        raise DataError(
            f"the column {label!r} holds {schema.field(label).type}",
            place="data.label",
            hint="labels are whole numbers or texts",
        )
    return ImageColumns(image, label, _class_names(features, label))


def _class_names(features: Mapping[str, Any], label: str) -> tuple[str, ...] | None:
    """Return the names of the classes in the order of their numbers; None where the metadata do not tell."""
    names = features.get(label, {}).get("names")
    is_named = isinstance(names, list) and all(isinstance(name, str) for name in names) and len(names) > 0
    return tuple(names) if is_named else None


def _check_names(table: RowFile, first: RowFile, columns: ImageColumns) -> None:
    """Raise DataError where a number means another class in a file than in the first."""
    names = _class_names(_features(table.schema), columns.label)
    for number, (name, known) in enumerate(zip(names or (), columns.classes or (), strict=False)):
        if name != known:
            raise DataError(
                f"the label {number} is {cut(visible(known))!r} in {visible(first.path.name)} and {cut(visible(name))!r} in"
                f" {visible(table.path.name)}",
                place="data.label",
                hint="give every file the same names in the same order (`cast_column` of datasets), or labels that are texts",
            )


def _only(candidates: Sequence[str], usual: Sequence[str], kind: str, schema: Schema) -> str:
    """Return the one candidate, or the one with a usual name. Raises DataError."""
    chosen = candidates if len(candidates) == 1 else [name for name in usual if name in candidates][:1]
    if chosen:
        return chosen[0]
    problem = f"several columns may be the {kind}s" if candidates else f"no column can be the {kind}s"
    raise DataError(
        f"{problem}: {joined(candidates or schema.names)}",
        place=f"data.{kind}",
        hint=f"`data.{kind}` names the column",
    )


def _features(schema: Schema) -> dict[str, Any]:
    """Return what Hugging Face's metadata tell of the columns; nothing where there are none."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    try:
        features = json.loads(metadata)["info"]["features"] if metadata else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}
