"""`ablate init`: a study to begin with."""

# Without `from __future__ import annotations`, as in `cli.py`.
from pathlib import Path
from typing import Annotated

import typer

from ablate import completion, launch
from ablate.errors import StudyError
from ablate.options import print_result


def init(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the study, and of its file; with --from STUDY-again or SEARCH-confirm.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STUDY",
            help="A judged study: its undecided arms on fresh seeds; a finished search: its best candidates.",
            autocompletion=completion.studies,
        ),
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, help="With --from SEARCH: how many candidates; by default all.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --from: the file to write.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help='A study of your command: "python train.py --lr 0.1"; its flags are the baseline.',
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--template",
            metavar="TEMPLATE",
            help="width (the default), learning_rate, function (your own training), command (any program), or judge (results).",
            autocompletion=completion.templates,
        ),
    ] = None,
) -> None:
    """Write a commented study that runs as it stands, or one of your command; with --from, one that follows from another.

    The file goes into studies/ where that folder exists. An existing file is never overwritten.
    """
    from ablate import follow_up, reporting

    folder = Path("studies") if Path("studies").is_dir() else Path()
    if source is None and (best is not None or output is not None):
        place = "--best" if best is not None else "--output"
        raise StudyError("belongs to --from", place=place, hint="name the study that this one follows from")
    if source is not None and (command is not None or kind is not None):
        place = "--command" if command is not None else "--template"
        raise StudyError("does not go with --from", place=place, hint="leave one of them out")
    if source is not None:
        path, text, does = follow_up.text(source, name, best, output, folder)
        reporting.write(path, text)
        print_result(str(path))
        launch.notify(f"`ablate run {path}` {does}")
        return
    if name is None:
        raise StudyError("a study needs a name", place="init", hint="for example `ablate init width`")
    if command is not None and kind is not None:
        raise StudyError("is a template by itself", place="--command", hint="leave out --template")
    from ablate.study import template

    path = template.create(name, folder, command, kind or "width")
    print_result(str(path))
    launch.notify(
        template.then(name, kind or "width", path.as_posix())
        if command is None
        else f"say in {path} which line of its output holds the metric; then `ablate run {path} --try --allow-command`"
    )
