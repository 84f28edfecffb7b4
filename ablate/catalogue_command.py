"""`ablate models`, `data` and `docs`: which networks, data sets and pages there are, and what one of them is like."""

# Without `from __future__ import annotations`, as in `cli.py`.
import sys
from pathlib import Path
from typing import Annotated

import typer

from ablate import completion, launch, streams
from ablate.errors import StudyError, nearest
from ablate.options import AllowImport, Sets, print_result


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A network, or one of your own: package.module:function; by default all networks.",
            autocompletion=completion.models,
        ),
    ] = None,
    input: Annotated[  # noqa: A002 — as the option
        str, typer.Option("--input", metavar="CxHxW", help="Channels, height and width of an image.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(min=1, max=100_000, help="Number of classes.")] = 10,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change a field, e.g. width=32, args.heads=4; repeatable."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks with parameters and FLOPs, or print the layers of one in the order they run."""
    from ablate.models import table
    from ablate.study import spec

    shape = table.parse_shape(input)
    if name is None:
        if sets:
            raise StudyError(
                "which network?", place="models", hint="for example `ablate models cnn --set width=32`"
            )
        rows = table.listing(shape, classes)
        print_result(table.listing_json(rows) if json else table.listing_text(rows))
        return
    layers = table.describe(table.by_name(name, spec.changes(sets or ())), shape, classes)
    print_result(table.as_json(name, layers, shape, classes) if json else table.text(layers))


def data(
    name: Annotated[
        str | None,
        typer.Argument(help="A data set; by default all of them.", autocompletion=completion.data_sets),
    ] = None,
    sets: Sets = None,
    study: Annotated[
        Path | None,
        typer.Option(
            help="Take data and augmentation from this study's baseline.",
            autocompletion=completion.study_files,
        ),
    ] = None,
    show: Annotated[
        int | None, typer.Option(min=0, help="Draw this training image: channels, values, augmentation.")
    ] = None,
    allow_import: AllowImport = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --show: the SVG file to draw to; by default data.svg."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Describe a data set as training sees it, or draw one of its images; without a name, list the data sets."""
    from dataclasses import asdict

    from ablate import reporting
    from ablate.data import datasets, describe
    from ablate.measuring import inputs

    if name is None and study is None:
        if sets or show is not None:
            raise StudyError(
                "which data set?", place="data", hint="for example `ablate data cifar10 --show 0`"
            )
        rows = describe.listing()
        print_result([asdict(row) for row in rows] if json else describe.listing_text(rows))
        return
    if name is not None and name not in datasets.DATASETS:
        raise StudyError(
            f"there is no data set {name!r}",
            place="data",
            hint=f"{nearest(name, datasets.DATASETS)}; your own images: image_folder --set root=FOLDER",
        )
    config = launch.data_config(name, sets or [], study, {"imports": allow_import})
    if output is not None and (show is None or output.suffix != ".svg"):
        raise StudyError(
            "only an image can be written to a file"
            if show is None
            else f"{output.name} is not an .svg file",
            place="--output",
            hint="--show 0 draws the first image"
            if show is None
            else "the drawing is an SVG: give the file that suffix",
        )
    if show is not None and json:
        raise StudyError(
            "--show draws an image, and prints no JSON",
            place="--json",
            hint="leave out one of the two: --json describes the data set, --show N draws a training image",
        )
    if show is None:
        description = inputs.description(config)
        print_result(description.to_json() if json else describe.text(description))
        return
    shows_augmentation = study is not None or any(text.startswith("augment") for text in sets or ())
    target = output or Path("data.svg")
    reporting.write(target, inputs.drawing(config, show, config.augment if shows_augmentation else None))
    launch.notify(str(target))


def docs(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A page, such as own, or a study, such as studies/width.yaml; by default a list of them.",
            autocompletion=completion.documents,
        ),
    ] = None,
) -> None:
    """List the documentation and the studies that come with ablate, or print one of them."""
    from ablate import documents

    if name is None:
        print_result(documents.listing(streams.width(sys.stdout)))
        return
    path = documents.find(name)
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md" and sys.stdout.isatty():
        from ablate import console

        console.out.print(console.page(text))
    else:
        print_result(text, end="")
