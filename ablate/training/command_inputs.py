"""What a command may read besides its code and its arguments. A program cannot be watched, but its code names what it reads.

Beside the code count: files whose names stand in it, or in the files that it names; folders that arguments name, and folders and files
elsewhere whose paths stand in the code or its settings as texts, those of `data/*.csv` and `data/{split}.csv` too; variables of the
environment that it asks for, or whose names stand in it in capitals. What changes while the command runs is what it writes;
of a file that it only appends to nobody reads what another has written.
"""

from __future__ import annotations

import fnmatch
import functools
import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ablate.training.inputs import (
    as_text,
    begins_with,
    content_of,
    is_of_machine,
    is_setting,
    listing_of,
    named,
    value_of,
)
from ablate.training.source_files import DOCUMENTS, LANGUAGES, RECIPES, WRITTEN, FolderCode

MOST_ENTRIES = 5000
"""Files and folders beside the code that are looked at."""

LONGEST_TEXT = 1 << 20
"""Bytes of a file in which names are looked for."""

MOST_TEXT = 16 << 20
"""Bytes of all of them."""

_SETTINGS = (".yaml", ".yml", ".json", ".toml", ".ini", ".cfg", ".conf")
"""Endings that are often left out where a file of settings is named: `config_name="small"`."""

_ASKED = re.compile(
    rb"(?:environ(?:\.get|\.setdefault|\.pop)?\s*[\[(]|getenv\s*\()\s*[rbuf]?['\"]([A-Za-z_]\w*)['\"]"
    rb"|process\.env\.(\w+)",
    re.IGNORECASE,
)
_IN_CAPITALS = re.compile(rb"['\"]([A-Z][A-Z0-9_]+)['\"]")
"""How most variables are called, whatever asks for them: `click.option(envvar="GAIN")`, `env = os.environ`, `ENV["GAIN"]`."""

_ASKED_BY_SETTINGS = re.compile(rb"\$\{(?:oc\.)?env:\s*(\w+)|\$\{([A-Z][A-Z0-9_]*)\b")
_ASKED_BY_SHELL = re.compile(rb"\$\{?([A-Za-z_]\w*)")
_SET_BY_SHELL = re.compile(
    rb"(?:^|[\s;&|(])(?:for\s+|read\s+(?:-\w+\s+)*|local\s+|export\s+)?([A-Za-z_]\w*)(?:=|\s+in\s|$)",
    re.MULTILINE,
)
_WITH_DEFAULT = re.compile(rb"\$\{([A-Za-z_]\w*):?[-=]")
_ASKED_BY_MAKE = re.compile(rb"\$[({](?!MAKE|CURDIR)(\w+)[)}]|\$\$\{?([A-Za-z_]\w*)")
_SET_BY_MAKE = re.compile(rb"^\s*(?:(?:export|override)\s+)*(\w+)\s*(?::{0,3}|\+)=", re.MULTILINE)
_DEFAULT_OF_MAKE = re.compile(rb"^\s*(?:export\s+)?(\w+)\s*\?=", re.MULTILINE)
_WORDS = re.compile(r"[\w.-]+")
_SHELLS = (".sh", ".bash", ".zsh")
_SHELL_SCRIPT = re.compile(rb"#!.*\b(?:ba|z|da)?sh\b")
_FOR_PEOPLE = (".log", ".out", ".png", ".jpg", ".svg", ".pdf", ".html")
"""Endings of files that programs write and do not read again."""

_TEXTS = re.compile(rb"['\"]([^'\"\n]{1,300})['\"]")
_READING = re.compile(
    rb"(?:\w*(?:read|load|glob)\w*\(\s*[rbuf]{0,2}['\"]([^'\"\n]{1,300})['\"]"
    rb"|open\(\s*[rbuf]{0,2}['\"]([^'\"\n]{1,300})['\"][^,)\n]*(?:\)|,\s*(?:mode\s*=\s*)?['\"]r))"
)
"""Texts that are names of files which are read, and not written."""

_PATHS = re.compile(rb"[^\s'\"=:,;&|<>(){}]{1,300}")
_FILLED_IN = re.compile(r"\{[^{}]*\}?|%[\d.]*\w|\$\w*|\*+|\?|\[[^\]]*\]?")
"""What stands for other text in the name of a file: `fold{k}.csv`, `fold%d.csv`, `fold$k.csv`, `fold*.csv`."""

_RUNNERS = frozenset({"make", "gmake", "just", "task", "snakemake", "rake", "dvc", "npm"})
"""Programs that run what stands in a file that no argument names."""

_Times = tuple[int, int, int]
"""When a file has changed, its size, and its inode."""

MOST_PATHS = 5000
"""Words of one file of settings, or of a script of a shell, that are looked at as paths."""


class CommandInputs:
    """What a command may read, as it is when a run begins. folder: that the command runs in. texts: its arguments, and values of
    variables. without: files and folders that do not count, such as the run's own. variables: that the study sets.
    """

    def __init__(
        self,
        code: FolderCode,
        folder: Path,
        texts: Sequence[str],
        *,
        without: Collection[Path],
        variables: Mapping[str, str],
    ) -> None:
        files = [Path(path) for path, *_ in code.signature]
        self._without = {os.path.realpath(path) for path in (*without, *files)}
        source = _source_of(code).copy()
        for file in without:
            source.read(file)  # a file of settings that an argument names may name others
        for text in texts:
            source.add(text.encode(errors="surrogateescape"))
            source.ask_of_shell(text.encode(errors="surrogateescape"))
        self._source, self._root = source, code.root
        self._folders: dict[str, tuple[str, dict[str, _Times | None]]] = {}
        self._files: dict[str, tuple[str, _Times | None]] = {}
        beside = list(self._beside(code.root))
        self._seen = frozenset(beside)
        # Settings that git tracks count as code, and may name what it does not track.
        waiting = [*beside, *(str(file) for file in files if file.suffix.lower() in _SETTINGS)]
        if os.path.basename(texts[0]) in _RUNNERS:  # noqa: PTH119 — of a text
            for file in files:
                if file.name.lower() in RECIPES:
                    source.read(file)
        while new := [path for path in waiting if source.names(path)]:
            for path in new:
                if path in self._seen:
                    self._add_file(path)
                source.read(Path(path))
            waiting = [path for path in waiting if path not in new]
        for text in {text.partition("=")[2] or text for text in texts} | source.paths:
            place = folder / os.path.expanduser(text)  # noqa: PTH111 — of a text that may name no user
            self._add_folder(place, code.root)
            self._add_elsewhere(place, code.root)
        self._variables = {
            name: value_of(os.environ.get(name))
            for name in sorted(source.variables)
            if name not in variables and is_setting(name)
        }

    def text(self) -> str:
        """Return what was there when the run began and has not changed since, for the record."""
        folders = {path: held for path, (held, tree) in self._folders.items() if _tree(path) == tree}
        written = [path + os.sep for path in self._folders if path not in folders]
        files = {
            path: held
            for path, (held, times) in self._files.items()
            if _times(path) == times and not path.startswith(tuple(written))
        }
        new, again = set(map(named, self._made())), set(map(named, self._made_again()))
        return as_text(
            {named(path): held for path, held in files.items()},
            self._variables,
            {named(path): held for path, held in folders.items()},
            new | again,
            again,
        )

    def _made(self) -> Iterator[str]:
        """Yield the files that came since the run began, where all runs write: by it, or by another."""
        return (
            path for path in self._beside(self._root) if path not in self._seen and self._is_for_all(path)
        )

    def _made_again(self) -> Iterator[str]:
        """Yield the files that were there, and were written anew; one that is only appended to is not."""
        for path, (held, times) in self._files.items():
            if times is None or _times(path) in (times, None) or not self._is_for_all(path):
                continue
            _, size, _ = times
            if not begins_with(path, held, size):
                yield path

    def _is_for_all(self, path: str) -> bool:
        """Return whether all runs may write and read a file: its whole path stands in the code, or in its settings."""
        root = os.path.realpath(self._root) + os.sep
        parts = Path(path.removeprefix(root)).parts if path.startswith(root) else (Path(path).name,)
        return not path.endswith(_FOR_PEOPLE) and all(map(self._source.spells, parts))

    def _counts(self, path: str) -> bool:
        return not self._without.intersection([path, *map(str, Path(path).parents)])

    def _beside(self, root: Path) -> Iterator[str]:
        """Yield the files beneath a folder that are no code."""
        left = MOST_ENTRIES
        for place, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in WRITTEN)
            left -= len(files) + len(folders)
            if left < 0:
                return
            for name in sorted(files):
                path = os.path.realpath(os.path.join(place, name))  # noqa: PTH118 — of texts
                if not name.endswith((".pyc", ".md")) and self._counts(path):
                    yield path

    def _add_file(self, path: str) -> None:
        self._files[path] = content_of(path), _times(path)

    def _add_elsewhere(self, file: Path, root: Path) -> None:
        """Add a file that is named where it is not beneath the code, where its name would do."""
        if not os.path.isfile(file):  # noqa: PTH113 — a text may be no path at all
            return
        path = os.path.realpath(file)
        if (
            not path.startswith(os.path.realpath(root) + os.sep)
            and self._counts(path)
            and not is_of_machine(path)
        ):
            self._add_file(path)

    def _add_folder(self, folder: Path, root: Path) -> None:
        """Add a folder that is named, where it is one of data: neither of code, nor around it, nor of results."""
        path = os.path.realpath(folder)
        if not os.path.isdir(path) or f"{os.path.realpath(root)}{os.sep}".startswith(path + os.sep):  # noqa: PTH112 — a text
            return
        if not self._counts(path) or WRITTEN.intersection(Path(path).parts) or len(Path(path).parts) < 3:
            return
        if is_of_machine(path + os.sep):  # files of /proc never end
            return
        if any(
            known.startswith(path + os.sep) for known in self._without if known.endswith(tuple(LANGUAGES))
        ):
            return
        tree = _tree(path)
        if not tree:
            return
        self._folders[path] = listing_of(path), tree
        for inner in tree:
            if self._counts(inner):
                self._files.setdefault(inner, (content_of(inner), _times(inner)))


class _Source:
    """What stands in code, and in files that it names. words: of all texts, such as `small.yaml` and `small`. paths: texts that may be
    paths. patterns: of names of files.
    """

    def __init__(self) -> None:
        self._left = MOST_TEXT
        self._words: set[str] = set()
        self._patterns: set[str] = set()
        self.variables: set[str] = set()
        self.paths: set[str] = set()

    def copy(self) -> _Source:
        other = _Source()
        other._left, other._words, other._patterns = self._left, set(self._words), set(self._patterns)
        other.variables, other.paths = set(self.variables), set(self.paths)
        return other

    def read(self, file: Path) -> None:
        try:
            size = file.stat().st_size if file.is_file() else LONGEST_TEXT + 1
            if size > min(LONGEST_TEXT, self._left):
                return
            content = file.read_bytes()
        except (OSError, ValueError):
            return
        self._left -= size
        self.add(content)
        suffix, is_recipe = file.suffix.lower(), file.name.lower() in RECIPES
        is_of_shell = suffix in _SHELLS or _SHELL_SCRIPT.match(content) is not None
        self._ask(_ASKED, content)
        if is_of_shell:
            self.ask_of_shell(content)
        if is_recipe or suffix == ".mk":
            self._ask(_ASKED_BY_MAKE, content, but=_SET_BY_MAKE)
            self._ask(_DEFAULT_OF_MAKE, content)
        if suffix in _SETTINGS:
            self._ask(_ASKED_BY_SETTINGS, content)
        if suffix in LANGUAGES or is_recipe:
            self._ask(_IN_CAPITALS, content)
        texts: set[bytes] = set()
        if suffix in LANGUAGES:
            texts |= set(_TEXTS.findall(content))
        if is_of_shell or is_recipe or suffix in _SETTINGS:
            texts |= {match[0] for match in itertools.islice(_PATHS.finditer(content), MOST_PATHS)}
        read = {match[match.lastindex or 0] for match in _READING.finditer(content)}
        for text in texts | read:
            self._add_path(text.decode(errors="replace"), is_read=text in read)

    def ask_of_shell(self, content: bytes) -> None:
        """Take in the variables that a script of a shell asks for."""
        self._ask(_ASKED_BY_SHELL, content, but=_SET_BY_SHELL)
        self._ask(_WITH_DEFAULT, content)

    def _ask(self, pattern: re.Pattern[bytes], content: bytes, but: re.Pattern[bytes] | None = None) -> None:
        names = {match[match.lastindex or 0] for match in pattern.finditer(content)}
        own = set() if but is None else set(but.findall(content))
        self.variables |= {name.decode() for name in names - own}

    def add(self, text: bytes) -> None:
        words = set(_WORDS.findall(text.decode(errors="surrogateescape")))
        self._words |= words | {word.strip(".-") for word in words}

    def _add_path(self, text: str, *, is_read: bool) -> None:
        self._words.add(text.rpartition("/")[2])
        if "\0" in text:
            return
        filled_in = _FILLED_IN.search(text)
        if filled_in is not None:
            folder, _, name = text.rpartition("/")
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 — of a name
            pattern = _FILLED_IN.sub("*", stem)
            # Names that are filled in are often those of results.
            if suffix[1:].isalnum() and not folder.strip("*/") and (is_read or "*" in stem):
                self._patterns.add(pattern + suffix)
            if (around := text[: filled_in.start()].rpartition("/")[0]).strip("./ "):
                self.paths.add(around)
        if text.strip("./ "):
            self.paths.add(text)

    def spells(self, name: str) -> bool:
        """Return whether the whole name of a file or a folder stands in the texts."""
        return name in self._words

    def names(self, path: str) -> bool:
        """Return whether the texts name a file."""
        name = os.path.basename(path)  # noqa: PTH119 — of a text
        stem, suffix = os.path.splitext(name)  # noqa: PTH122 — of a name
        if name.startswith(".env") and any("dotenv" in word for word in self._words):
            return True
        if name in self._words or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._patterns):
            return True
        return suffix.lower() in _SETTINGS and stem in self._words


@functools.lru_cache(maxsize=4)
def _source_of(code: FolderCode) -> _Source:
    """Return what stands in the code of a folder, read once for many runs. It is not to be changed."""
    source = _Source()
    for path, *_ in code.signature:
        if Path(path).suffix.lower() in LANGUAGES:
            source.read(Path(path))
    return source


def _times(path: str) -> _Times | None:
    try:
        about = Path(path).stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _tree(path: str) -> dict[str, _Times | None] | None:
    """Return the files beneath a folder with their times; None where they are too many to be looked at."""
    tree: dict[str, _Times | None] = {}
    entries = 0
    for place, folders, files in os.walk(path):
        entries += len(folders) + len(files)
        if entries > MOST_ENTRIES:
            return None
        for name in files:
            if not name.lower().endswith(tuple(DOCUMENTS)):
                inner = os.path.join(place, name)  # noqa: PTH118 — of texts
                tree[inner] = _times(inner)
    return tree
