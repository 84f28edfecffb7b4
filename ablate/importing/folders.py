"""Folders that Lightning, Hydra and TensorBoard write, with a folder for each run and its settings beside its results."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ablate.errors import DataError
from ablate.importing.columns import FILE
from ablate.importing.runs import overrides, read_files, settings
from ablate.importing.source import MOST_FILES, ResultSource, natural
from ablate.importing.table import HowToRead, Table
from ablate.text import counted, joined

RUN = "run"
"""Column with the folder of a run, as it is called within the one that was named."""

_DEEPEST = 8
"""Folders within folders that are looked through."""

_OVERRIDES = (".hydra", "overrides.yaml")

# What a run leaves beside its results that are none: settings.
_NO_REPORTS = ("config", "hparams", "args", "params", "settings", "manifest", "package", "tokenizer", "vocab")


def recognizes(source: ResultSource) -> bool:
    """Return whether a folder is named, or a pattern of folders: `multirun/{date}/{time}`."""
    return source.is_folder


def read(source: ResultSource, how: HowToRead) -> Table:
    """Return the rows of all runs in a folder.

    A run is a folder with `.hydra` in it (Hydra), else one with a `metrics.csv` (Lightning), event files (TensorBoard) or, with
    `how.lines`, logs. Its columns are its settings, by `.hydra/overrides.yaml` and `hparams.yaml`, and `run`, its folder.
    Raises DataError where there is none.
    """
    return read_folders([(source.path, {})], how)


def read_folders(folders: list[tuple[Path, Mapping[str, str]]], how: HowToRead) -> Table:
    """Return the rows of all runs in some folders. folders: each with the columns that its runs have besides their own."""
    files: list[tuple[Path, Mapping[str, str]]] = []
    empty: list[str] = []
    for root, columns in folders:
        for folder, inside in _runs(root, how):
            if not inside:
                empty.append(str(folder))
                continue
            own = {
                **settings_of(inside[0].parent, folder),
                RUN: folder.relative_to(root).as_posix(),
                **columns,
            }
            files += [(path, {**own, FILE: str(folder)}) for path in inside]
    if not files:
        root = folders[0][0]
        if any(root.glob("*/meta.yaml")):
            raise DataError(
                "is a file store of MLflow",
                place=str(root),
                hint=f"judge an experiment in it: 'mlflow:{root}#EXPERIMENT'",
            )
        raise DataError(
            "has no results that are recognized: no metrics.csv, no event file, no run of Hydra with a JSON file"
            if not how.lines
            else "has no *.log and no *.txt",
            place=str(root),
            hint=f"name the files, with what their folders are called in braces: {shlex.quote(_pattern(root))}",
        )
    table = read_files(files, how)
    settings = {name for _, columns in files for name in columns} - {
        RUN,
        FILE,
        *(name for _, c in folders for name in c),
    }
    notes = table.notes
    if empty:
        named = joined([*empty[:5], *(["others"] if len(empty) > 5 else [])])
        notes += (f"{counted(len(empty), 'run')} left out, with settings and no results: {named}",)
    return replace(table, settings=tuple(name for name in table.rows if name in settings), notes=notes)


def _pattern(root: Path) -> str:
    """A pattern of the files under a folder, made from the first that may hold results: `runs/{arm}/seed{seed}.json`."""
    kinds = (".json", ".jsonl", ".csv", ".tsv", ".log", ".txt")
    paths = [folder / name for folder, names, _ in _walk(root) for name in names]
    found = next((path for kind in kinds for path in paths if path.suffix == kind), None)
    if found is None:
        return f"{root}/{{arm}}/{{seed}}/results.json"
    parts = list(found.relative_to(root).parts)
    parts[-1] = parts[-1].removesuffix(found.suffix)
    numbered = next((i for i in reversed(range(len(parts))) if re.search(r"\d+\Z", parts[i])), None)
    named = next((i for i in range(len(parts) - 1) if i != numbered), None)
    for i, part in enumerate(parts):
        if i == numbered:
            before = re.sub(r"\d+\Z", "", part)
            name = re.search(r"(?<![a-z])s(?:eed)?[\s_=.-]*\Z", before, re.IGNORECASE) or not before
            ends = re.search(r"(?:[\s_=.-]+(?:seed|s|run|r)?[\s_=.-]*)\Z", before, re.IGNORECASE)
            if named is None and ends is not None and ends.start() > 0:
                before = "{arm}" + ends[0]
            parts[i] = f"{before}{'{seed}' if name else '{run}'}"
        elif i == named:
            parts[i] = "{arm}"
        elif i < len(parts) - 1:
            parts[i] = "*"
    return f"{root}/{'/'.join(parts)}{found.suffix}"


def settings_of(folder: Path, run: Path) -> dict[str, str]:
    """Return what is known of a run besides its results. folder: that of its results; run: that of the run."""
    found = overrides(run.joinpath(*_OVERRIDES))
    for place in dict.fromkeys((run, folder)):
        found |= settings(place / "hparams.yaml")
    return found


def _runs(root: Path, how: HowToRead) -> Iterator[tuple[Path, list[Path]]]:
    """Every run under a folder with the files of its results: none where it left its settings alone."""
    walked = list(_walk(root))
    jobs = [folder for folder, names, inner in walked if ".hydra" in inner and _is_job(folder)]
    if jobs:
        for job in jobs:
            files = [
                folder / name
                for folder, names, _ in walked
                if job in (folder, *folder.parents) and ".hydra" not in folder.parts
                for name in names
            ]
            yield job, _results(files, job, how)
        return
    for folder, names, _ in walked:
        inside = _results([folder / name for name in names], folder, how, reports=False)
        if inside or "hparams.yaml" in names:
            yield folder, inside


def _is_job(folder: Path) -> bool:
    return folder.joinpath(*_OVERRIDES).is_file()


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders under a folder, with their files and folders, all in the order of their names. Links are not followed."""
    number = 0
    for place, folders, names in os.walk(root):
        folders.sort(key=natural)
        folder = Path(place)
        if len(folder.relative_to(root).parts) >= _DEEPEST:
            folders.clear()
        number += len(names)
        if number > MOST_FILES:
            raise DataError(
                f"has more than {MOST_FILES:,} files in it", place=str(root), hint="name a folder within it"
            )
        yield folder, sorted(names), list(folders)


def _results(files: list[Path], run: Path, how: HowToRead, *, reports: bool = True) -> list[Path]:
    """Which files are the results of a run. reports: JSON files may be."""
    if how.lines:
        logs = [path for path in files if path.suffix == ".log"] or [
            path for path in files if path.suffix == ".txt"
        ]
        return _one_of(logs, run)
    tables = [path for path in files if path.name == "metrics.csv"]
    if tables:
        return _one_of(tables, run)
    if events := [path for path in files if ".tfevents." in path.name]:
        return events
    found = [
        path
        for path in files
        if reports and path.suffix in {".json", ".jsonl"} and not path.stem.lower().startswith(_NO_REPORTS)
    ]
    return _one_of(found, run)


def _one_of(files: list[Path], run: Path) -> list[Path]:
    """The files, where there is one at most. Raises DataError where there are several."""
    if len(files) > 1:
        raise DataError(
            f"has {counted(len(files), 'file')} that may be its results: "
            f"{joined(str(path.relative_to(run)) for path in files[:4])}{' and more' if len(files) > 4 else ''}",
            place=str(run),
            hint=f"name them by a pattern, for example '{run.parent}/{{run}}/{files[0].relative_to(run)}'",
        )
    return files
