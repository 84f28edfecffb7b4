"""`ablate judge`: verdicts from results that are there already. Its options are most of it, so it has a file of its own."""

# Without `from __future__ import annotations`, as in `cli.py`.
import sys
from pathlib import Path
from typing import Annotated

import typer

from ablate import completion, launch, streams
from ablate.options import FAILING, SOME_FAILED, one_of, print_result
from ablate.text import folded

_PACKAGES = ("numpy", "pandas", "scipy")
"""Packages that a judgement depends on."""


def judge(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE…",
            help="Results: CSV, JSON, a folder of runs, a pattern 'runs/{arm}/{seed}/log.txt', mlflow:EXPERIMENT, "
            "optuna:STORAGE#STUDY.",
            show_default=False,
        ),
    ],
    arm: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Column that names the arms; repeatable.")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="COL", help="Column of results.")] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="VALUE", help="The arm that all others are compared with.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(metavar="X", help="The smallest difference worth having, in the metric's units."),
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(
            metavar="COL", help="Column of tasks or data sets: arms are compared within each and over them."
        ),
    ] = None,
    relative: Annotated[
        bool, typer.Option("--relative", help="Margin and effects are shares of the baseline's mean.")
    ] = False,
    seed: Annotated[
        str | None, typer.Option(metavar="COL", help="Column of seeds: runs that share theirs are pairs.")
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="No two runs share anything.")] = False,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COL=VALUE", help="Keep these rows alone; repeatable.")
    ] = None,
    wide: Annotated[
        str | None,
        typer.Option(metavar="COL", help="What the file has a column for each of: seed, run or arm."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="STEP", help="Of runs with a row for each step: last, best or a step."),
    ] = None,
    step: Annotated[str | None, typer.Option(metavar="COL", help="With --at: the column of steps.")] = None,
    run: Annotated[
        str | None, typer.Option(metavar="COL", help="With --at: the column that tells runs apart.")
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGEX", help=r"Of logs: what their lines say, e.g. 'val_loss ([\d.]+)'; repeatable."
        ),
    ] = None,
    strip: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Take this out of the arms' names; repeatable."),
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COL=PATTERN", help="Take columns out of a column: 'run={arm}-{seed}'; repeatable."
        ),
    ] = None,
    direction: Annotated[
        str | None,
        typer.Option(
            help="maximize or minimize; by default what the metric's name says.",
            autocompletion=completion.one_of("maximize", "minimize"),
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--k", min=1, help="Arms that were tried, where the file has only some of them."),
    ] = None,
    looks: Annotated[
        str | None,
        typer.Option(
            metavar="N,…", help="Numbers of seeds at which results were to be judged, if that was declared."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Of a table with a row for each arm: the column of means."),
    ] = None,
    sd: Annotated[
        str | None,
        typer.Option("--sd", metavar="COL", help="With --mean: standard deviations of single runs."),
    ] = None,
    n: Annotated[str | None, typer.Option("--n", metavar="COL", help="With --mean: numbers of runs.")] = None,
    resolution: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="Q",
            help="The metric's step, e.g. 0.001 with 1,000 images; by default as printed.",
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="What the values are: share or percent.",
            autocompletion=completion.one_of("share", "percent"),
        ),
    ] = None,
    nan: Annotated[
        str | None,
        typer.Option(
            "--nan",
            help="What a cell without a number is: undefined, diverged or missing.",
            autocompletion=completion.one_of("undefined", "diverged", "missing"),
        ),
    ] = None,
    reader: Annotated[str | None, typer.Option(help="Kind of the files, e.g. csv or json.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the files, e.g. utf-8.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="What separates the cells of a line.")] = None,
    header: Annotated[
        int | None, typer.Option(min=1, metavar="LINE", help="Line that names the columns.")
    ] = None,
    format: Annotated[  # noqa: A002 — as the option
        str | None,
        typer.Option(
            help="text, html, md, latex, csv or json; by default what the suffix of --output says, else text.",
            autocompletion=completion.one_of("text", "html", "md", "latex", "csv", "json"),
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write to, e.g. page.html.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY",
            help="Keep the judgement in the store under this name; judging a grown file again is a look that costs.",
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 where an arm hurts, or is inconclusive.",
            autocompletion=completion.one_of(*FAILING),
        ),
    ] = None,
) -> None:
    """Judge results that are there already: CSV or JSON, from any training. With a file alone: show what can be asked of it."""
    from ablate import reporting, results
    from ablate.comparing import UNDEFINED_MEANS, Origin
    from ablate.importing import HowToRead
    from ablate.importing.values import UNITS
    from ablate.metrics import DIRECTIONS
    from ablate.text import joined

    one_of(format, results.FORMATS, "--format")
    one_of(fail_on, FAILING, "--fail-on")
    if output is not None:
        reporting.check_replaceable(output, sources)
    asked = results.Asked(
        arm=tuple(arm or ()),
        metric=metric,
        baseline=baseline,
        margin=margin,
        block=block,
        relative=relative,
        seed=seed,
        unpaired=unpaired,
        mean=mean,
        sd=sd,
        n=n,
        where=tuple(where or ()),
        wide=wide,
        direction=one_of(direction, DIRECTIONS, "--direction"),
        resolution=resolution,
        unit=one_of(unit, UNITS, "--unit"),
        at=at,
        step=step,
        run=run,
        strip=tuple(strip or ()),
        split=tuple(split or ()),
        k=k,
        nan=one_of(nan, UNDEFINED_MEANS, "--nan"),
        looks=results.looks_of(looks),
    )
    if name is not None:
        results.check_name(name)
    origin = Origin(
        study=name or results.study_of(sources), source=joined(sources), command=launch.command_line()
    )
    how = HowToRead(reader, encoding, delimiter, header, tuple(line or ()))
    judged = results.judge(sources, how, asked, launch.notify, origin, _ask if _is_at_terminal() else None)
    if isinstance(judged, str):
        print_result(_for_people(judged), end="")
        return
    written_as = results.format_of(format, output)
    if name is None:
        if written_as == "html":
            judged = judged.with_environment(launch.environment(packages=_PACKAGES))
    else:
        from ablate import judgements
        from ablate.tracking.store import current_store

        store = current_store()
        launch.recover(store)
        judged = judgements.keep(store, judged, launch.environment(packages=_PACKAGES), launch.notify)
    text = results.text(judged, written_as)
    if output is None:
        print_result(_for_people(text) if written_as == "text" else text, end="")
    else:
        reporting.write(output, text)
        launch.notify(str(output))
    failing = [item.arm for item in judged if item.verdict == fail_on]
    if failing:
        launch.notify(f"{fail_on}: {', '.join(failing)}")
        raise typer.Exit(SOME_FAILED)


def _is_at_terminal() -> bool:
    """Whether somebody is there to answer questions."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _for_people(told: str) -> str:
    """Return a text with lines that a terminal does not have to break; for a file or a pipe as it is."""
    width = streams.width(sys.stdout)
    return told if width is None else folded(told, width)


def _ask(question: str, proposed: str | None) -> str:
    return str(typer.prompt(question, default=proposed, err=True))
