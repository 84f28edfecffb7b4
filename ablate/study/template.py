"""The study that `ablate init` writes: commented, and ready to run as it stands."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from ablate.errors import StudyError, nearest
from ablate.study import command_line, schema, spec
from ablate.study.templates import TEMPLATES, WIDTH
from ablate.text import cut

SCHEMA_FILE = "study.schema.json"
HEADER = f"# yaml-language-server: $schema=./{SCHEMA_FILE}"
"""First line of a study: names the schema with which an editor completes and checks it."""


def files(name: str, template: str, file: str | None = None) -> dict[str, str]:
    """Return the ends of the names of a template's files → their contents; a study is among them, except where results are judged.

    file: how comments name the first of them. Raises StudyError where no study can have the name, or there is no such template.
    """
    if template not in TEMPLATES:
        raise StudyError(
            f"there is no template {cut(template)!r}", place="--template", hint=nearest(template, TEMPLATES)
        )
    chosen = TEMPLATES[template]
    place = f"init {cut(name)}"
    try:
        spec.parse(_filled(f"{HEADER}\n{WIDTH}", name, file or f"{name}.yaml"))
    except StudyError as error:
        raise StudyError(error.message, place=place, hint=error.hint) from None
    made = {
        end: _filled(content, name, file or f"{name}{chosen.main}") for end, content in chosen.files.items()
    }
    if ".yaml" in made:
        made[".yaml"] = f"{HEADER}\n{made['.yaml']}"
    return made


def then(name: str, template: str, file: str) -> str:
    """Return what to type after a template's files were written."""
    return _filled(TEMPLATES[template].then, name, file)


def _filled(content: str, name: str, file: str) -> str:
    return content.format(name=name, module=module(name), file=file)


def module(name: str) -> str:
    """Return a study's name as the beginning of a module's."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{plain}" if plain[:1].isdigit() else plain


_COMMAND = """\
# 1. Say below which lines of its output hold the metric, then see whether they match, on one run of the baseline:
#                 ablate run {file} --try --allow-command
# 2. What it costs, and what it could see:
#                 ablate plan {file} --allow-command
# 3. Run it, and look at it:
#                 ablate run {file} --allow-command && ablate report {name}
study: {name}
command: {command}
{settings}
metrics:                           # where the values are: a pattern for a line, with one group; two groups are a share, (\\d+)/(\\d+)
  accuracy: {{line: 'accuracy[^\\d]*([\\d.]+)'}}
metric: accuracy                   # what arms are compared by, on validation data; where there are none: judged_on: test
# direction: minimize              # or maximize: needed where the metric's name does not say it
margin: 0.01                       # smallest difference worth having, in the metric's units

baseline: {baseline}

factors:                           # a setting of the baseline: the levels that are tried besides the baseline's own
{factors}
seeds: {{initial: 5, max: 10}}       # undecided arms go on from 5 seeds to 10
"""


def text_of_command(name: str, command: str, file: str | None = None, folder: str | None = None) -> str:
    """Return the study of a command line, its flags the baseline. file: how its comments name it. folder: where the command runs,
    from the study's file; None: beside it. Raises StudyError.
    """
    line = command_line.read(command)
    settings = []
    if folder is not None:
        settings.append(f"folder: {_flow(folder)}    # where it runs, from this file")
    if line.python is not None:
        settings.append(f"python: {_flow(line.python)}")
    if line.env:
        settings.append(f"env: {_flow(line.env)}")
    if "seed" not in line.given:
        settings.append(
            "# No argument holds the seed: it is in the variable ABLATE_SEED, and {seed} puts it into the command."
        )
    if "run_dir" not in line.given:
        settings.append(
            "# Runs go side by side: what the command writes should go to {run_dir}, each run's own."
        )
    path, levels = _example_factor(line, name)
    content = f"{HEADER}\n" + _COMMAND.format(
        name=name,
        file=file or f"{name}.yaml",
        command=_flow(line.arguments),
        settings="\n".join(settings),
        baseline=_flow(line.baseline),
        factors=f"  {path}: {_flow(levels)}",
    ).replace("\n\nmetrics", "\nmetrics")
    try:
        spec.parse(content)
    except StudyError as error:
        raise StudyError(error.message, place=f"init {cut(name)}", hint=error.hint) from None
    return content


def _flow(value: Any) -> str:
    """Return a value as YAML in one line. A real number stays one: `1.0` is given to the command as `1.0`."""
    line = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf)
    return line.removesuffix("\n").removesuffix("\n...")


RATE_NAMES = ("lr", "learning_rate", "lr0", "max_lr")
"""What programs call the learning rate."""

_OPPOSITES = {"true": "false", "false": "true", "yes": "no", "no": "yes", "on": "off", "off": "on"}

ANOTHER = "WRITE-ANOTHER-VALUE"
"""A level of a setting whose other values only the program knows."""


def _example_factor(line: command_line.CommandLine, name: str) -> tuple[str, list[Any]]:
    """Return a setting of a command and levels for it: a learning rate where there is one, else its first number, a switch, or a text.

    Raises StudyError where it has none.
    """
    settings = command_line.settings(line.baseline)
    numbers = {
        path: v for path, v in settings.items() if isinstance(v, int | float) and not isinstance(v, bool)
    }
    path = next(
        (path for path in numbers if path.rpartition(".")[2] in RATE_NAMES), next(iter(numbers), None)
    )
    if path is not None:
        return path, _around(numbers[path])
    switch = next((path for path, value in settings.items() if value is True), None)
    if switch is not None:
        return switch, [False]
    texts = {path: value for path, value in settings.items() if isinstance(value, str)}
    for path, value in texts.items():
        if value.lower() in _OPPOSITES:
            opposite = _OPPOSITES[value.lower()]
            return path, [opposite.capitalize() if value[0].isupper() else opposite]
    if not texts:
        raise StudyError(
            "the command has no setting that a study could change",
            place=f"init {cut(name)}",
            hint="add what you would change, with the value that it has now: `--lr 0.1`",
        )
    return next(iter(texts)), [ANOTHER]


def _around(value: float) -> list[float]:
    """Return a smaller and a larger value."""
    if isinstance(value, int):
        return [value // 2, value * 2] if value > 1 else [value + 1]
    return [float(f"{value / 2:.6g}"), float(f"{value * 2:.6g}")] if value else [0.1]


def create(name: str, folder: Path, command: str | None = None, template: str = "width") -> Path:
    """Write a commented study into a folder, with the schema beside it where there is none, and return its path. Overwrites nothing.

    command: a command line that the study runs, in the working folder; None: what the template says. The code of a template goes into
    the working folder, where it is found. Raises StudyError.
    """
    main = ".yaml" if command is not None else TEMPLATES[template].main if template in TEMPLATES else ".yaml"
    path = folder / f"{name}{main}"
    where = None if folder == Path() else "/".join([".."] * len(folder.parts))
    if command is not None:
        contents = {path: text_of_command(name, command, path.as_posix(), where)}
    else:
        contents = {
            (folder / f"{name}{end}" if end == main else Path(f"{module(name)}{end}")): content
            for end, content in files(name, template, path.as_posix()).items()
        }
    if where is not None and template == "command" and command is None:
        contents[path] = contents[path].replace("\ncommand:", f"\nfolder: {where}\ncommand:", 1)
    for there in contents:
        if there.exists():
            raise _there_already(there, path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(content)
        if main == ".yaml" and not (schema_file := folder / SCHEMA_FILE).exists():
            schema_file.write_text(schema.text(), encoding="utf-8")
    except FileExistsError:
        raise _there_already(path, path) from None
    except OSError as error:
        raise StudyError(f"cannot be written ({error.strerror})", place=str(path)) from None
    return path


def _there_already(file: Path, study: Path) -> StudyError:
    run = f", or run it: `ablate run {study}`" if file == study else ""
    return StudyError(
        "is there already, and is not overwritten", place=str(file), hint=f"choose another name{run}"
    )
