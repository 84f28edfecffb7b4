"""A command line that someone types → the study that runs it: its flags become the baseline, its arguments a template.

Nothing is executed. `docs/own.md` shows what comes of it.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.errors import StudyError
from ablate.text import INTEGER, REAL, cut

_GIVEN = {
    "seed": ("seed", "random_seed", "rng_seed", "manual_seed"),
    "device": ("device",),
    "run_dir": (
        *("run_dir", "output_dir", "out_dir", "outdir", "save_dir", "log_dir", "logdir", "results_dir"),
        *("hydra.run.dir", "checkpoint_dir", "work_dir", "workdir"),
    ),
}
"""What ablate gives a run → what programs call it."""

_DEVICES = "CUDA_VISIBLE_DEVICES"
"""What ablate sets for every run: a run that names its GPU itself would be on it beside all others."""

_ENVIRONMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_FLAG = re.compile(r"(--?)([A-Za-z][\w.-]*)(=(.*))?", re.DOTALL)
_OVERRIDE = re.compile(r"(\+{0,2})([A-Za-z_][\w.]*)=(.*)", re.DOTALL)  # Hydra's, and those of configurators
_PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")
_PYTHONS_OWN = re.compile(r"-[bBdEiIOPqsSuvx]*([mcWX])?(?<!-)")
_QUOTED = re.compile(r"(['\"]).*\1", re.DOTALL)
_SHELL = re.compile(r"[|&;<>`]|\$\(|\$\{?\w")


@dataclass
class CommandLine:
    """A command line, taken apart. arguments: the template of the command. baseline: the values of its flags, as a tree. env: variables
    that stood before the command, but for the devices, which are ablate's. python: the interpreter that it named by a path; None: whichever runs ablate. given: what ablate
    gives each run (its seed, its folder, its device) and an argument asks for.
    """

    arguments: list[str] = field(default_factory=list)
    baseline: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    python: str | None = None
    given: set[str] = field(default_factory=set)

    def add(self, path: str, value: Any) -> str | None:
        """Put a value into the baseline and return its name in the template; None where another value has the place."""
        tree = self.baseline
        *groups, leaf = path.split(".")
        for group in groups:
            tree = tree.setdefault(group, {})
            if not isinstance(tree, dict):
                return None
        if not leaf or leaf in tree:
            return None
        tree[leaf] = value
        return path


def read(text: str) -> CommandLine:
    """Take a command line apart. Raises StudyError where it is none, and where it needs a shell."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise StudyError(f"{cut(text)!r} cannot be read ({str(error).lower()})", place="--command") from None
    line = CommandLine()
    while words and (variable := _ENVIRONMENT.fullmatch(words[0])):
        line.env[variable[1]] = variable[2]
        words.pop(0)
    if not words:
        raise StudyError(
            "is no command", place="--command", hint='for example `--command "python train.py --lr 0.1"`'
        )
    if shell := next((word for word in _unquoted(text) if _SHELL.search(word)), None):
        raise StudyError(
            f"{cut(shell)!r} is for a shell, and a command runs without one",
            place="--command",
            hint="put what needs a shell into a script, and give its name",
        )
    if line.env.pop(_DEVICES, None) is not None:
        line.given.add("device")
    program = words.pop(0)
    script: int | None = None
    if not _PYTHON.fullmatch(program):
        line.arguments.append(_literal(program))
        # Of `torchrun --standalone train.py` the script is what the launcher starts, and no value of its switch.
        script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
    else:
        line.arguments.append("python")
        line.python = program if "/" in program else None
        # The interpreter's own options, and the module or code that it runs instead of a script, are no settings.
        while words and (option := _PYTHONS_OWN.fullmatch(words[0])):
            count = 1 if option[1] is None else 2
            line.arguments += [_literal(word) for word in words[:count]]
            del words[:count]
    _flags(words, line, script)
    return line


def _unquoted(text: str) -> list[str]:
    """Return the words of a command line that stand in no quotes: only in them a shell would read its own signs."""
    lexer = shlex.shlex(text, posix=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    return [word for word in lexer if not re.search(r"['\"]", word)]


def _flags(words: Sequence[str], line: CommandLine, script: int | None) -> None:
    """Add the arguments after the program: `--lr 0.1`, `--lr=0.1`, `--amp`, `optimizer.lr=0.1`; what is none of them stays as it is.

    script: position of a script that a launcher starts. Of a flag that stands more than once the last is the setting: programs take it.
    """
    end = words.index("--") if "--" in words else len(words)
    last = {name: i for i, word in enumerate(words[:end]) if (name := _name(word)) is not None}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if position <= end and last.get(_name(word) or "", position - 1) != position - 1:
            line.arguments.append(_literal(word))
            continue
        if word == "--":
            line.arguments += [_literal(rest) for rest in words[position - 1 :]]
            return
        if override := _OVERRIDE.fullmatch(word):
            template = _template(override[2], [override[3]], line)
            line.arguments.append(
                _literal(f"{override[1]}{override[2]}=") + (template or _literal(override[3]))
            )
            continue
        flag = _FLAG.fullmatch(word)
        if flag is None:
            line.arguments.append(_literal(word))
            continue
        dashes, name, attached, value = flag.groups()
        if attached is not None:
            template = _template(name, [value], line)
            line.arguments.append(_literal(f"{dashes}{name}=") + (template or _literal(value)))
            continue
        values: list[str] = []
        # Several values only of numbers, as in `--layers 64 32`: after a word the next may be the script, as in `torchrun --standalone`.
        while (
            position < len(words)
            and position != script
            and _is_value(words[position])
            and (not values or (_is_number(values[0]) and _is_number(words[position])))
        ):
            values.append(words[position])
            position += 1
        if values:
            template = _template(name, values, line)
            line.arguments += [word, template] if template else [word, *map(_literal, values)]
        else:
            key = line.add(_key(name), True)
            line.arguments.append(f"{{{key}?{word}}}" if key else word)


def _name(word: str) -> str | None:
    """Return which setting a word names; None where it is no flag and no override."""
    match = _OVERRIDE.fullmatch(word) or _FLAG.fullmatch(word)
    return match and _key(match[2])


def _is_value(word: str) -> bool:
    """Return whether a word after a flag is its value: no other flag (a negative number is none) and no override."""
    return _is_number(word) or (word != "--" and not _FLAG.fullmatch(word) and not _OVERRIDE.fullmatch(word))


def _is_number(word: str) -> bool:
    return re.fullmatch(f"{INTEGER}|{REAL}", word) is not None


def _template(name: str, values: Sequence[str], line: CommandLine) -> str | None:
    """Return what stands for values in the template; None where they stay as they are, because their name is taken."""
    path = _key(name)
    for given, names in _GIVEN.items():
        if (path in names or path.rpartition(".")[2] in names) and len(values) == 1:
            line.given.add(given)
            # Quotes that are not the shell's, as in `--work_dir="'out'"`, are for a program that reads its arguments as Python.
            quote = quotes[1] if (quotes := _QUOTED.fullmatch(values[0])) else ""
            return f"{quote}{{{given}}}{quote}"
    plain = [plain_value(value) for value in values]
    key = line.add(path, plain[0] if len(plain) == 1 else plain)
    return f"{{{key}}}" if key else None


def _key(name: str) -> str:
    """Return how the baseline calls a flag: `--weight-decay` is `weight_decay`."""
    return name.replace("-", "_").strip(".")


def _literal(word: str) -> str:
    """Return a word as it stands in a template, where braces mean something."""
    return word.replace("{", "{{").replace("}", "}}")


def plain_value(word: str) -> Any:
    """Return a number where the command would be given the very same text for it, or the same number; otherwise the text.

    `1e-3` is a number. `1.10` may be a version, `007` an agent: they stay text.
    """
    if re.fullmatch(INTEGER, word) and str(int(word)) == word:
        return int(word)
    if re.fullmatch(REAL, word) and not word.lstrip("-+").startswith(".") and len(word) < 30:
        value = float(word)
        if repr(value) == word or (("e" in word or "E" in word) and value != 0 and math.isfinite(value)):
            return value
    return word


def settings(tree: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """Return the values of a baseline, dotted path → value, in the order of the command line."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{place}.{name}" if place else name
        values |= settings(value, path) if isinstance(value, Mapping) else {path: value}
    return values
