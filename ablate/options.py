"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ablate import completion
from ablate.errors import StudyError, nearest
from ablate.launch import EXECUTORS
from ablate.study.seeds import REPLICATES
from ablate.text import joined, shown

StudyFile = Annotated[
    Path,
    typer.Argument(help="The study's YAML file.", show_default=False, autocompletion=completion.study_files),
]
StudyName = Annotated[
    str,
    typer.Argument(
        help="A study in the store, or its YAML file.", show_default=False, autocompletion=completion.studies
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a setting, e.g. data.root=FOLDER; repeatable.",
        autocompletion=completion.settings,
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        min=1, max=REPLICATES, help="Look at so many seeds instead of those of the study file; the same plan."
    ),
]
Devices = Annotated[str, typer.Option(help="auto, cpu, or accelerators such as cuda:0,cuda:1, xpu:0, mps.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Slots in total; by default one per core, or one per GPU.")
]
PerDevice = Annotated[int, typer.Option(min=1, help="Runs at a time on each GPU.")]
Kind = Annotated[
    str,
    typer.Option(
        "--executor",
        help=f"{joined((f'{name} ({where})' for name, where in EXECUTORS.items()), 'or')}.",
        autocompletion=completion.one_of(*EXECUTORS),
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="With --executor ray: the cluster; `auto` for the one that this machine belongs to.",
        show_default=False,
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="Time to spend: a seed that does not fit is not begun, e.g. 90s, 30m, 2h.")
]
Timeout = Annotated[str | None, typer.Option(help="Time that one run may take, e.g. 30m.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="ABLATE_STORAGE",
        show_envvar=True,
        help="Optuna's storage instead of the journal in mlruns/.",
    ),
]
AcceptCode = Annotated[
    bool, typer.Option("--accept-code", help="Reuse runs of older training code, labelled as such.")
]
NoFuse = Annotated[
    bool,
    typer.Option(
        "--no-fuse", help="Train every run alone: the same result bit for bit, whatever else is running."
    ),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE", help="Allow a study to import this package; repeatable."),
]
AllowCommand = Annotated[bool, typer.Option("--allow-command", help="Allow a study to run its `command:`.")]
Try = Annotated[
    bool,
    typer.Option(
        "--try",
        help="Run the baseline once, record nothing, and show which metrics were found; --set shortens it.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print events as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures and verdicts only.")]

FAILING = ("hurts", "inconclusive")
"""Verdicts that `--fail-on` takes."""

SOME_FAILED = 1
"""Exit code where runs failed, or an arm has the verdict of `--fail-on`."""

Word = TypeVar("Word", bound=str)


def one_of(value: str | None, allowed: tuple[Word, ...], option: str) -> Word | None:
    """Return the word that an option was given; None where it was not. Raises StudyError where it takes no such word."""
    if value is None:
        return None
    for word in allowed:
        if value == word:
            return word
    raise StudyError(f"{value!r} is not allowed", place=option, hint=nearest(value, allowed))


def print_result(result: Any, end: str = "\n") -> None:
    """Print a result on stdout: text, with what cannot be seen as its code, anything else as JSON. end: what follows it."""
    if not isinstance(result, str):
        import json

        result = json.dumps(result, indent=1)
    print(shown(result), end=end)
