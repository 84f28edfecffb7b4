"""The command line: each command parses, calls, and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ablate import completion
from ablate.errors import AblateError, StoreError, StudyError, nearest
from ablate.text import parse_duration
from ablate.usage import INTERRUPTED as WAS_INTERRUPTED
from ablate.usage import Commands

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ablate.analysis import Analysis, Comparison, Effect
    from ablate.config import Config, RunConfig
    from ablate.executors import Executor, Slot
    from ablate.report import Material, Tracking
    from ablate.scheduling.coordinate import Observer, Options, Outcome
    from ablate.study.design import Data, Plan
    from ablate.study.spec import Study
    from ablate.tracking.store import Store

app = typer.Typer(
    name="ablate",
    cls=Commands,
    help="Ablation studies that end in a verdict with an interval.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_ENDINGS = {
    "complete": "complete",
    "budget": "stopped at its budget",
    "interrupted": "interrupted",
    "killed": "its process died",
}

_NO_STUDY = (
    "the store holds no study yet; `ablate init mine` writes one, and `ablate run mine.yaml` trains it"
)

_NO_FAULT_OF_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

MOST_LINKS = 3
"""Studies that `ablate ui` gives the addresses of, the latest first."""

MOST_SENTENCES = 20
"""In a description: MLflow takes 8,000 characters."""

FORMATS = ("html", "md", "latex", "csv", "json")
FAILING = ("hurts", "inconclusive")
"""Verdicts that a pipeline can be made to fail on."""

SOME_FAILED, MISTAKE, INTERRUPTED = 1, 2, 130

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
    int | None, typer.Option(min=1, max=1000, help="One look of that many seeds, on a new plan.")
]
Devices = Annotated[str, typer.Option(help="auto, cpu, or devices such as cuda:0,cuda:1.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Slots in all; by default one a core or one a GPU.")]
PerDevice = Annotated[int, typer.Option(min=1, help="Runs at a time on each GPU.")]
Kind = Annotated[
    str,
    typer.Option(
        "--executor",
        help="local (a process per slot) or inline (this process).",
        autocompletion=completion.one_of("local", "inline"),
    ),
]
Budget = Annotated[
    str | None, typer.Option(help="Begin no seed that does not fit into this, e.g. 90s, 30m, 2h.")
]
Timeout = Annotated[str | None, typer.Option(help="Longest a run may take, e.g. 30m.")]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Optuna's storage instead of the journal in mlruns/.")
]
AcceptCode = Annotated[
    bool, typer.Option("--accept-code", help="Reuse runs of older training code, labelled as such.")
]
NoFuse = Annotated[
    bool,
    typer.Option(
        "--no-fuse", help="Train every run by itself: bit for bit the same whatever runs beside it."
    ),
]
AllowImport = Annotated[
    list[str] | None,
    typer.Option(metavar="PACKAGE", help="Let a study's `train:` import this package; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only what went wrong, and the verdicts.")]


def _version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"ablate {metadata.version('ablate')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    study: StudyFile,
    sets: Sets = None,
    seeds: Seeds = None,
    devices: Devices = "auto",
    workers: Workers = None,
    runs_per_device: PerDevice = 1,
    executor: Kind = "local",
    budget: Budget = None,
    timeout: Timeout = None,
    storage: Storage = None,
    accept_code: AcceptCode = False,
    no_fuse: NoFuse = False,
    allow_import: AllowImport = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show arms, seeds and what is done; train nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train what a study still lacks, look by look, until its arms are decided."""
    from ablate.study import spec
    from ablate.tracking.store import here

    read = spec.read(study, sets=sets or (), seeds=seeds)
    _may_import(read.train, allow_import)
    store = here()
    pool = _executor(read.baseline, executor, devices, workers, runs_per_device)
    if not dry_run:
        pool.warm_up()  # while more is imported, and the data are made
    from ablate import console
    from ablate.scheduling.coordinate import Options
    from ablate.study import design

    options = Options(
        budget=_seconds(budget, "--budget"),
        timeout=_seconds(timeout, "--timeout"),
        accept_code=accept_code,
        fuse=not no_fuse,
    )
    if dry_run:
        _dry_run(read, store)
        return
    with console.preparing(quiet=quiet or json):
        made = design.plan(read, data_lookup())
    outcome = _coordinate(made, store, pool, options, storage, json=json, quiet=quiet)
    _conclude(outcome, f"ablate run {study}", json=json, quiet=quiet)


@app.command()
def plan(
    study: StudyFile,
    sets: Sets = None,
    seeds: Seeds = None,
    devices: Devices = "auto",
    workers: Workers = None,
    runs_per_device: PerDevice = 1,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a study would cost and what it could see, by training a little of each arm."""
    from ablate import console
    from ablate.executors.local import LocalExecutor
    from ablate.scheduling import outlook
    from ablate.study import design, spec
    from ablate.tracking.store import here
    from ablate.training.start import probe

    read = spec.read(study, sets=sets or (), seeds=seeds)
    made = design.plan(read, data_lookup())
    measuring = LocalExecutor(probe, _slots(devices, workers, runs_per_device))
    found = outlook.outlook(made, here(), measuring)
    if json:
        import json as json_module

        print(json_module.dumps(outlook.to_json(found), indent=1))
    else:
        console.out.print(console.outlook(found))


@app.command("top-up")
def top_up(
    study: StudyName,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=990, help="Seeds to add to each undecided arm.")
    ] = None,
    budget: Budget = None,
    devices: Devices = "auto",
    workers: Workers = None,
    runs_per_device: PerDevice = 1,
    executor: Kind = "local",
    timeout: Timeout = None,
    storage: Storage = None,
    no_fuse: NoFuse = False,
    allow_import: AllowImport = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add seeds to the undecided arms of a finished study: an undeclared look, paid for as one."""
    if (seeds is None) == (budget is None):
        raise StudyError("top-up needs either --seeds or --budget", hint="for example --seeds 5")
    from ablate.scheduling.coordinate import Options
    from ablate.study import design
    from ablate.tracking import read
    from ablate.tracking.store import here

    store = here()
    name = _name(store, study)
    record = read.plans(store, name)[-1]
    _may_import(record["train"], allow_import)
    made = design.from_record(record)
    data = data_lookup()
    for arm in made.arms:
        if arm.config.code() != made.codes[arm.name]:
            raise StudyError(
                "the training code has changed since this study ran, so new seeds would not be comparable",
                place=name,
                hint="run the study again: `ablate run` makes a new plan with the code as it is",
            )
        if data(arm.config) != made.data[arm.name]:
            raise StudyError(
                "the data have changed since this study ran", place=name, hint="run the study again"
            )
    options = Options(
        budget=_seconds(budget, "--budget"), timeout=_seconds(timeout, "--timeout"), fuse=not no_fuse
    )
    pool = _executor(made.study.baseline, executor, devices, workers, runs_per_device)
    outcome = _coordinate(
        made, store, pool, options, storage, json=json, quiet=quiet, record=record, more=(seeds,)
    )
    _conclude(outcome, f"ablate top-up {name}", json=json, quiet=quiet)


@app.command()
def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Studies by name or file; none: all in the store.", autocompletion=completion.studies
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        str, typer.Option(help="html, md, latex, csv or json.", autocompletion=completion.one_of(*FORMATS))
    ] = "html",
    plan: Annotated[str | None, typer.Option(metavar="ID", help="An older plan of the study.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead.")] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 where an arm or an effect hurts, or is inconclusive.",
            autocompletion=completion.one_of(*FAILING),
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write the page again whenever a run ends, until the studies have."),
    ] = False,
) -> None:
    """Compile what worked and what didn't, with intervals and curves."""
    from ablate.tracking import read
    from ablate.tracking.store import here

    if format not in FORMATS:
        raise StudyError(f"{format!r} is not a format", place="--format", hint=f"one of {', '.join(FORMATS)}")
    if fail_on not in (None, *FAILING):
        raise StudyError(
            f"{fail_on!r} is not a verdict to fail on", place="--fail-on", hint="hurts or inconclusive"
        )
    store = here()
    _recover_to_read(store)
    names = [_name(store, text) for text in studies or ()] or read.experiments(store)
    if not names:
        raise StudyError(
            "the store holds no study yet",
            place=store.uri,
            hint="`ablate init mine` writes one, and `ablate run mine.yaml` trains it",
        )
    if len(names) > 1 and (output is not None and output.suffix):
        raise StudyError(
            "several studies need a folder to go to", place="--output", hint="name one without a suffix"
        )
    if watch and format != "html":
        raise StudyError("only the page is written again", place="--watch", hint="leave --format out")
    if watch:
        _watch(store, names, plan, output)
    failing = _reports(store, names, format, plan, output, fail_on)
    if failing:
        _say(f"{fail_on}: {', '.join(failing)}")
        raise typer.Exit(SOME_FAILED)


@app.command()
def status(
    study: Annotated[
        str | None,
        typer.Argument(help="A study; none: all in the store.", autocompletion=completion.studies),
    ] = None,
) -> None:
    """Say how far studies are."""
    from ablate.tracking import read
    from ablate.tracking.store import here

    store = here()
    _recover_to_read(store)
    names = [_name(store, study)] if study else read.experiments(store)
    for name in names:
        record = read.plans(store, name)[-1]
        counts = read.outcomes(store, record)
        said = ", ".join(
            f"{counts[outcome]} {outcome}"
            for outcome in ("finished", "diverged", "failed")
            if outcome in counts
        )
        print(f"{name}: {said or 'nothing yet'} of at most {len(record['runs'])} runs; {_state(record)}")
    if not names:
        _say(_NO_STUDY)


@app.command("list")
def list_studies() -> None:
    """List the studies in the store, the latest first."""
    from ablate.tracking import read
    from ablate.tracking.store import here

    store = here()
    names = read.experiments(store)
    if not names:
        _say(_NO_STUDY)
    elif not sys.stdout.isatty():  # for scripts: names and nothing else
        print("\n".join(names))
    else:
        from ablate import console

        latest = [(name, read.plans(store, name)[-1]) for name in names]
        rows = [(name, _state(record), dict(read.verdicts(store, record))) for name, record in latest]
        console.out.print(console.studies(rows))


@app.command()
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="A network; none: all of them.", autocompletion=completion.models),
    ] = None,
    input: Annotated[  # noqa: A002
        str, typer.Option("--input", metavar="CxHxW", help="Channels, height and width of an image.")
    ] = "3x32x32",
    classes: Annotated[int, typer.Option(min=1, max=100_000, help="Number of classes.")] = 10,
    json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """List the networks with parameters and FLOPs, or print the layers of one in the order they are executed."""
    import json as json_module

    from ablate.models import table

    shape = table.parse_shape(input)
    if name is None:
        rows = table.listing(shape, classes)
        print(json_module.dumps(table.listing_json(rows), indent=1) if json else table.listing_text(rows))
        return
    made = table.describe(table.by_name(name), shape, classes)
    plain = table.as_json(name, made, shape, classes)
    print(json_module.dumps(plain, indent=1) if json else table.text(made))


@app.command()
def data(
    name: Annotated[
        str | None,
        typer.Argument(help="A data set; none: all of them.", autocompletion=completion.data_sets),
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
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --show: the SVG file to draw to; by default data.svg."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Say what a data set holds as training sees it, or draw one of its images; without a name, list them all."""
    import json as json_module
    from dataclasses import asdict

    from ablate.data import datasets, describe
    from ablate.training import inputs

    if name is None and study is None:
        if sets or show is not None:
            raise StudyError(
                "which data set?", place="data", hint="for example `ablate data cifar10 --show 0`"
            )
        rows = describe.listing()
        print(
            json_module.dumps([asdict(row) for row in rows], indent=1)
            if json
            else describe.listing_text(rows)
        )
        return
    if name is not None and name not in datasets.named():
        raise StudyError(
            f"there is no data set {name!r}",
            place="data",
            hint=f"{nearest(name, datasets.named())}; your own images: image_folder --set root=FOLDER",
        )
    config = _data_config(name, sets or [], study)
    if output is not None and (show is None or output.suffix != ".svg"):
        raise StudyError(
            "only an image is drawn to a file" if show is None else f"{output.name} is no .svg",
            place="--output",
            hint="--show 0 draws the first" if show is None else "the drawing is an SVG: name the file so",
        )
    if show is None:
        found = inputs.description(config)
        print(json_module.dumps(found.to_json(), indent=1) if json else describe.text(found))
        return
    own = study is not None or any(text.startswith("augment") for text in sets or ())
    target = output or Path("data.svg")
    _write(target, inputs.drawing(config, show, config.augment if own else None))
    _say(str(target))


@app.command()
def lr(
    study: StudyFile,
    sets: Sets = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Curves to take the median of.")] = 3,
    lowest: Annotated[float, typer.Option("--from", help="Rate of the first step.")] = 1e-5,
    highest: Annotated[float, typer.Option("--to", help="Rate of the last step.")] = 10.0,
    passes: Annotated[
        int, typer.Option(min=1, help="Over the training images; more, where one is too short.")
    ] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML to draw to; by default in reports/.")
    ] = None,
    devices: Devices = "auto",
    workers: Workers = None,
    json: Annotated[bool, typer.Option("--json", help="Rates, losses and suggestion as JSON.")] = False,
) -> None:
    """Find a learning rate: raise it from step to step of one pass over the data, and look at the loss."""
    import json as json_module

    from ablate import console
    from ablate.executors.local import LocalExecutor
    from ablate.report import range_test as drawn
    from ablate.scheduling import rates
    from ablate.study import spec
    from ablate.training.start import range_test

    read = spec.read(study, sets=sets or ())
    asked = rates.Range(lowest, highest, seeds, passes)
    # Says what is wrong with data and network before a process is started for each seed.
    data_lookup()(read.baseline)
    found = rates.range_test(read, asked, LocalExecutor(range_test, _slots(devices, workers, 1)), _say)
    target = output or Path("reports") / f"{read.name}-lr.html"
    _write(target, drawn.page(found, read.name))
    print(
        json_module.dumps(found.to_json(), indent=1)
        if json
        else console.range_test(found, rates.paste(read, found))
    )
    _say(str(target))


@app.command()
def doctor(
    storage: Storage = None,
    json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Say what this machine offers and whether anything needed is broken: exit code 1 if so."""
    import json as json_module
    from dataclasses import asdict

    from ablate import doctor as examination

    checks = examination.examine(storage)
    print(json_module.dumps([asdict(c) for c in checks], indent=1) if json else examination.text(checks))
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(SOME_FAILED)


@app.command()
def init(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the study, and of its file; for a search SEARCH-confirm.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SEARCH",
            help="A finished search: confirm its best candidates.",
            autocompletion=completion.studies,
        ),
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=1, help="With --from: how many candidates; by default all of them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="With --from: the file to write.")
    ] = None,
) -> None:
    """Write a commented study that runs as it stands, or with --from the one that confirms what a search has found.

    Into studies/ where there is such a folder. A file that is there is never written over.
    """
    folder = Path("studies")
    if source is not None:
        _confirming(source, name, best, output, folder if folder.is_dir() else Path())
        return
    if name is None:
        raise StudyError("a study needs a name", place="init", hint="for example `ablate init width`")
    from ablate.study import template

    path = template.create(name, folder if folder.is_dir() else Path())
    print(path)
    _say(f"`ablate run {path}` trains it in about a minute; the comments say what to change")


def _confirming(source: str, name: str | None, best: int | None, output: Path | None, folder: Path) -> None:
    """Write the study that holds the best of a search against its baseline, on fresh seeds."""
    from ablate.study import confirm, spec
    from ablate.tracking import read
    from ablate.tracking.store import here

    store = here()
    _recover_to_read(store)
    searched = _name(store, source)
    called = name or f"{searched}-confirm"
    text = confirm.study(read.plans(store, searched)[-1], called, best)
    target = output or folder / f"{called}.yaml"
    spec.parse(text, source=str(target))
    if target.exists():
        raise StudyError("is there already", place=str(target), hint="name another file with -o")
    _write(target, text)
    print(target)
    _say(f"`ablate run {target}` confirms what the search has found")


@app.command("schema")
def print_schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The same for people: pages of all keys and fields.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write instead; with --markdown, the folder of the pages."
        ),
    ] = None,
) -> None:
    """Print the JSON Schema of study files, by which editors complete and check them."""
    from ablate.study import pages, schema

    if markdown and output is not None:
        for name, page in pages.pages().items():
            _write(output / name, page)
        _say(str(output / "fields.md"))
        return
    text = "\n".join(pages.pages().values()) if markdown else schema.text()
    if output is None:
        print(text, end="")
    else:
        _write(output, text)
        _say(str(output))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open MLflow's own pages on the store, on this machine only."""
    import socket

    from ablate.tracking import read, views, write
    from ablate.tracking.store import here

    store = here()
    write.create(store)
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    address = f"http://127.0.0.1:{port}"
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            raise StudyError(
                f"port {port} cannot be used ({error.strerror})",
                place="--port",
                hint=f"is MLflow open at {address} already? Another one: --port {port % 65535 + 1}",
            ) from None
    for study in read.experiments(store)[:MOST_LINKS]:
        experiment = read.experiment_id(store, study)
        _say(f"{study}: arms with their verdicts  {address}{views.address(experiment, views.ARMS)}")
        _say(
            f"{' ' * len(study)}  curves, by arm            {address}{views.address(experiment, views.CURVES)}"
        )
    _say(f"all of it: {address}  (Ctrl-C ends it)")
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(_served(command, environment))


# --- what commands share ----------------------------------------------------------------------------------------------


_ENDS_WITHIN = 5.0
"""Seconds in which a server that was asked to end has to."""


def _served(command: list[str], environment: Mapping[str, str]) -> int:
    """Run a server until it ends, or this process is asked to: then it ends first, with all that it started.

    Returns its exit code. Raises KeyboardInterrupt for Ctrl-C, SIGTERM and SIGHUP.
    """
    import subprocess

    def ask(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    old = {kind: signal.signal(kind, ask) for kind in kinds}
    try:
        # In a group of its own, for MLflow's workers are no children of this process.
        server = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            return server.wait()
        finally:
            for kind in kinds:  # whoever asks twice gets the same
                signal.signal(kind, signal.SIG_IGN)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(_ENDS_WITHIN)
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
    finally:
        for kind, handler in old.items():
            signal.signal(kind, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _state(record: Mapping[str, Any]) -> str:
    """How the latest run of a plan ended, in words."""
    ending = record["environment"].get("ending", "killed")
    return "running" if record["status"] == "RUNNING" else _ENDINGS[ending]


def _may_import(train: str | None, allowed: list[str] | None) -> None:
    """Refuse to run code that a study file names, unless the user said that its package may be imported."""
    if train is None:
        return
    import tomllib

    package = train.partition(":")[0].partition(".")[0]
    names = list(allowed or ())
    project = Path("pyproject.toml")
    if project.is_file():
        try:
            named = (
                tomllib.loads(project.read_text(encoding="utf-8"))
                .get("tool", {})
                .get("ablate", {})
                .get("imports", [])
            )
        except (ValueError, OSError) as error:
            raise StudyError(f"cannot be read ({error})", place="pyproject.toml") from None
        names += named if isinstance(named, list) else [named]
    if package not in names:
        raise StudyError(
            f"the study would import {package!r}, and nobody allowed that",
            place="train",
            hint=f'if you trust that code: --allow-import {package}, or `imports = ["{package}"]` under [tool.ablate] '
            "in pyproject.toml",
        )


def _name(store: Store, text: str) -> str:
    """A study's name, from itself or from its file. Raises StudyError where the study in a file has not run."""
    path = Path(text)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        from ablate.study import spec
        from ablate.tracking import read

        name = spec.read(path).name
        if name not in read.experiments(store):
            raise StudyError("this study has not run yet", place=text, hint=f"`ablate run {text}` trains it")
        return name
    return text


def _data_config(name: str | None, sets: list[str], study: Path | None) -> RunConfig:
    """The baseline of a study, or of none, on the data set of that name."""
    from ablate.config import RunConfig
    from ablate.study import spec

    # Everything here is about data, so `root=…` is enough; blocks keep their names.
    bare = re.compile(r"(?!augment=)[a-z_]+=")
    sets = [f"data.{text}" if bare.match(text) else text for text in sets]
    sets = [*([f"data.name={name}"] if name is not None else []), *sets]
    if study is None:
        plain = RunConfig.parse({"data": {"name": "digits"}, "model": {"name": "cnn"}})
        return spec.override(plain, sets)
    baseline = spec.read(study, sets=sets).baseline
    if not isinstance(baseline, RunConfig):
        raise StudyError("the study brings its own training, and its data with it", place=str(study))
    return baseline


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else parse_duration(text, option)


def data_lookup() -> Callable[[Config], Data]:
    """Tells of a config what it trains on, prepared. Of arms with the same data these are looked for once."""
    from functools import cache

    from ablate.config import RunConfig
    from ablate.data import datasets
    from ablate.study.design import Data
    from ablate.training.randomness import FIXED_SPLIT, derive

    prepared = cache(datasets.prepare)

    def data(config: Config) -> Data:
        if not isinstance(config, RunConfig):
            return Data()
        dataset = prepared(config.data)
        train, validation = datasets.split(dataset.train_labels, config.data, derive(0, FIXED_SPLIT))
        config.model.check(dataset.shape)
        sizes = (len(train), len(validation), len(dataset.test_labels))
        return Data(dataset.fingerprint, *sizes, tuple(dataset.shape), tuple(dataset.classes))

    return data


def _dry_run(study: Study, store: Store) -> None:
    from ablate import console
    from ablate.config import RunConfig
    from ablate.data import datasets
    from ablate.study import design
    from ablate.study.forecast import further
    from ablate.tracking import read

    data = data_lookup()

    def known(config: Config) -> Data:
        here = not isinstance(config, RunConfig) or datasets.fingerprint(config.data) is not None
        if isinstance(config, RunConfig) and isinstance(config.data, datasets.ImageFolder):
            here |= not Path(config.data.root).is_dir()  # preparing it says what is wrong
        if isinstance(config, RunConfig) and not here:
            # Two arms on two data sets that are both unknown are not the same run.
            return design.Data(fingerprint=f"unknown: {config.data!r}")
        return data(config)

    made = design.plan(study, known)
    prepared = all(not data.fingerprint.startswith("unknown") for data in made.data.values())
    runs = list(made.replicates(made.names, range(study.looks[-1])))
    done = None
    if prepared:
        found = read.done(store, [run.key for run in runs])
        done = {name: sum(run.key in found for run in runs if run.arm == name) for name in made.names}
    arms = len(made.names) + further(made)
    first, last = arms * study.looks[0], arms * study.looks[-1]
    console.out.print(console.plan_table(made, done))
    for line in console.design(made):
        console.out.print(line)
    most = f" (at most {last})" if last > first else ""
    if study.search is not None:
        from ablate.study.forecast import searching

        before = searching(made) * len(made.arms)
        console.out.print(f"{before} runs of searching and of the fixed comparison at most", markup=False)
        if study.space:
            return
    console.out.print(
        f"{arms} arms, {first} runs{most}; margin {study.margin:g} of {study.metric}", markup=False
    )
    if not prepared:
        console.out.print("The data are not prepared yet, so nothing can be said of runs already done.")


def _executor(config: Config, kind: str, devices: str, workers: int | None, per_device: int) -> Executor:
    from ablate.training.runs import train

    if kind == "inline":
        from ablate.executors import Slot
        from ablate.executors.inline import InlineExecutor

        device = "cpu" if devices in ("auto", "cpu") else devices
        return InlineExecutor(train, Slot("inline", device))
    if kind != "local":
        raise StudyError(f"{kind!r} is not an executor", place="--executor", hint="local or inline")
    from ablate.config import RunConfig
    from ablate.executors.local import WITH_TORCH, LocalExecutor

    preload: tuple[str, ...] = WITH_TORCH if config.imports_torch() else ()
    if isinstance(config, RunConfig):
        preload += ("ablate.training.fused",)
    return LocalExecutor(train, _slots(devices, workers, per_device), preload)


def _slots(devices: str, workers: int | None, per_device: int) -> tuple[Slot, ...]:
    from ablate.executors import local

    numbers = _cuda(devices)
    slots = local.cuda_slots(numbers, per_device) if numbers else local.cpu_slots(workers)
    return slots[:workers] if workers else slots


def _cuda(devices: str) -> tuple[int, ...]:
    """Numbers of the CUDA devices to use; none: the CPU."""
    if devices == "cpu":
        return ()
    wanted = None if devices == "auto" else [part.strip() for part in devices.split(",")]
    if wanted is not None:
        for part in wanted:
            if not re.fullmatch(r"cuda:\d+", part):
                raise StudyError(
                    f"{part!r} is not a device", place="--devices", hint="auto, cpu, or cuda:0,cuda:1"
                )
    elif not Path("/dev/nvidiactl").exists():
        return ()  # without a driver there is nothing to ask torch for
    import torch

    found = torch.cuda.device_count()
    if wanted is None:
        return tuple(range(found))
    numbers = tuple(int(part.partition(":")[2]) for part in wanted)
    if any(number >= found for number in numbers):
        raise StudyError(
            f"this machine has {found} CUDA devices", place="--devices", hint="`--devices cpu` needs none"
        )
    return numbers


def _coordinate(
    plan: Plan,
    store: Store,
    executor: Executor,
    options: Options,
    storage: str | None,
    *,
    json: bool,
    quiet: bool,
    record: Any = None,
    more: tuple[int | None] | None = None,
) -> Outcome:
    """Run a plan, or top it up by `more` seeds, with everything it takes around it."""
    from ablate import console
    from ablate.analysis import to_json
    from ablate.scheduling.coordinate import Coordinator
    from ablate.scheduling.queue import Queue
    from ablate.tracking import read, write
    from ablate.tracking.store import Claims

    every = _seconds(os.environ.get("ABLATE_CHECKPOINT_EVERY"), "ABLATE_CHECKPOINT_EVERY")
    with contextlib.ExitStack() as stack:
        stack.enter_context(store.lock(plan.study.name))
        read.refuse_deleted(store, plan.study.name)
        _recover(store)
        observer: Observer
        if json:
            observer = console.JsonLines(plan.study.name)
        elif quiet or not console.is_terminal():
            observer = console.Lines(plan, quiet=quiet)
        else:
            observer = stack.enter_context(console.Display(plan))
        stop = stack.enter_context(_interruptible())
        claims = stack.enter_context(contextlib.closing(Claims(store)))
        tracker = stack.enter_context(write.Tracker(store, plan.study.name))
        stack.enter_context(executor)
        coordinator = Coordinator(
            plan,
            executor=executor,
            tracker=tracker,
            ledger=Queue(plan, store.root, storage),
            store=store,
            claims=claims,
            options=replace(options, stop=stop, checkpoint_every=every),
            observer=observer,
            record=record,
        )
        environment = _environment()
        try:
            outcome = coordinator.run(environment) if more is None else coordinator.top_up(environment, *more)
        except BaseException:
            # A top-up that ends before it has added anything leaves its study as it was.
            as_before = None if record is None or tracker.planned else record["environment"].get("ending")
            try:
                tracker.end(plan.id, as_before or "interrupted")
            finally:
                # Whoever interrupts does not want to wait; what is not delivered by then, the next command delivers.
                tracker.close(timeout=1)
            raise
        import json as json_module

        verdicts = json_module.dumps(to_json(outcome.analysis, plan.study.name), indent=1)
        note = _note(plan.study.question, outcome.analysis)
        tracker.end(plan.id, outcome.ending, {"verdicts.json": verdicts.encode()}, note)
        tracker.settle()
        delivered = tracker.close()
        if tracker.broken is not None:
            raise tracker.broken
        if not delivered:
            _say(
                f"not yet delivered to {store.uri}: {tracker.problem}; the next command delivers it from mlruns/spool"
            )
        return outcome


def _note(question: str, analysis: Analysis) -> str:
    """What MLflow shows as a plan's description, in Markdown: the question, and the answer arm by arm."""
    from ablate.analysis import headline, sentence

    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    lines = [f"- {sentence(item, analysis.rules)}" for item in items[:MOST_SENTENCES]]
    rest = [f"- … and {len(items) - MOST_SENTENCES} more"] if len(items) > MOST_SENTENCES else []
    asked = [f"**{question}**", ""] if question else []
    return "\n".join([*asked, headline(analysis), "", *lines, *rest])


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM asked for the end; a second Ctrl-C ends the process at once."""
    asked = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _conclude(outcome: Outcome, command: str, *, json: bool, quiet: bool) -> None:
    from ablate import console

    name = outcome.record["study"]
    searching = outcome.record["design"] == "search"
    if not json:
        said = console.candidates(outcome.record) if searching else console.verdicts(outcome.analysis)
        console.out.print(said)
    if searching and outcome.record.get("tuned"):
        _say(f"`ablate init --from {name}` writes the study that confirms these against the baseline")
    if outcome.ending == "budget":
        _say(f"the budget is spent: {outcome.left} planned runs left undone; `{command}` goes on")
    if outcome.failed:
        _say(f"{outcome.failed} runs failed; `ablate report {name}` says why")
    if not (json or quiet):
        _say(f"`ablate report {name}` writes the report, `ablate ui` opens MLflow")
    if outcome.failed or outcome.analysis.error:
        raise typer.Exit(SOME_FAILED)


def _recover_to_read(store: Store) -> None:
    """Put in order what can be; where the store cannot be written, it can be read all the same."""
    try:
        _recover(store)
    except StoreError as error:
        _say(f"what killed processes left behind is not counted: {error}")


def _recover(store: Store) -> None:
    """Put in order what killed processes left behind, if there is any. Raises StoreError."""
    spooled = store.root / "spool"
    from ablate.tracking import read

    if (spooled.is_dir() and any(spooled.glob("*.jsonl"))) or read.orphans(store):
        from ablate.tracking import write

        ended = write.recover(store)
        if ended:
            _say(f"{ended} runs of a process that died were marked as killed")


def _environment() -> dict[str, str]:
    """What a study ran with, for the record."""
    import platform
    import shlex
    import subprocess
    from importlib import metadata

    found = {
        "command": "ablate " + shlex.join(sys.argv[1:]),
        "version": metadata.version("ablate"),
        "python": platform.python_version(),
        "host": platform.node(),
    }
    for package in ("torch", "mlflow", "optuna"):
        found[package] = metadata.version(package)
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    if git.returncode == 0:
        found["commit"] = git.stdout.strip()
    return found


def _material(store: Store, name: str, plan_id: str | None) -> Material:
    """Everything the report of a study is made from."""
    from ablate.analysis import judge
    from ablate.analysis import plan as recorded_plan
    from ablate.analysis.grids import grids
    from ablate.report import Material
    from ablate.tracking import read

    plans = read.plans(store, name)
    found = [record for record in plans if plan_id is None or record["plan"].startswith(plan_id)]
    if not found:
        raise StudyError(
            f"no plan {plan_id!r} of {name}",
            place="--plan",
            hint="plans: " + ", ".join(r["plan"] for r in plans),
        )
    record = found[-1]
    runs = read.chosen(store, record)
    replicates, curves = read.frames(store, record, runs)
    seen = read.classified(store, record, runs)
    laid_out = grids(curves)
    analysis = judge(recorded_plan.rules(record), replicates, laid_out, correct=seen.validation)
    return Material(
        record,
        analysis,
        replicates,
        laid_out,
        seen.confusion,
        record["environment"],
        seen.test,
        seen.truth,
        _pixels(record),
        _tracking(store, name),
    )


def _tracking(store: Store, name: str) -> Tracking | None:
    """The server's own pages, where the store is one. A password in its address stays out of the report."""
    from urllib.parse import urlsplit

    from ablate.report import Tracking
    from ablate.tracking import read

    parts = urlsplit(store.uri)
    if parts.scheme not in ("http", "https"):
        return None
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return Tracking(place, read.experiment_id(store, name))


def _pixels(record: Mapping[str, Any]) -> NDArray[Any] | None:
    """The test images that the reference meets, where they still lie in the cache."""
    from ablate.data import cache

    reference = next(arm for arm in record["arms"] if arm["name"] == record["reference"])
    held = cache.entry(reference["data"]["fingerprint"], cache.default_folder() / "datasets")
    return None if held is None else held.test_images


def _reports(
    store: Store,
    names: list[str],
    format: str,  # noqa: A002
    plan: str | None,
    output: Path | None,
    fail_on: str | None,
    *,
    reload: int | None = None,
) -> list[str]:
    """Write or print the reports. Returns what has the verdict to fail on. reload: seconds after which a page asks for itself."""
    from ablate import report as reports

    failing: list[str] = []
    pages: list[reports.Entry] = []
    for name in names:
        material = _material(store, name, plan)
        analysis = material.analysis
        found = [(c.arm, c.verdict) for c in analysis.comparisons]
        found += [(" × ".join(e.terms), e.verdict) for e in analysis.effects]
        failing += [f"{name}: {what}" for what, verdict in found if verdict == fail_on]
        if format == "html":
            path = _target(output, name, several=len(names) > 1)
            summary = reports.summarise(material)
            page = reports.html(summary, reload=reload)
            _write(path, page)
            if reload is None:
                from ablate.tracking import write

                # Beside the study file; a store that can only be read is no reason to go without the page.
                with contextlib.suppress(StoreError):
                    write.attach(store, material.record, "report.html", page.encode())
            pages.append(reports.Entry(name, summary.question, summary.headline, path.name, summary.tally))
            folder = path.parent
            if reload is None:
                _say(f"{path}")
            continue
        writers: dict[str, Callable[[Material], str]] = {
            "json": reports.json_text,
            "csv": reports.csv,
            "md": lambda m: reports.markdown(reports.summarise(m)),
            "latex": lambda m: reports.latex(reports.summarise(m)),
        }
        text = writers[format](material)
        if output is None:
            print(text, end="")
        else:
            _write(output if len(names) == 1 else output / f"{name}.{format}", text)
    if len(pages) > 1:
        index = folder / "index.html"
        _write(index, reports.index_html(pages))
        if reload is None:
            _say(f"{index}")
    return failing


_LOOK_EVERY, _RELOAD_EVERY = 2.0, 10
"""Seconds between two looks at the store, and between two looks of a browser at the page."""


def _watch(store: Store, names: list[str], plan: str | None, output: Path | None) -> None:
    """Write the pages again as long as one of the studies runs; the last time is left to whoever called."""
    import time

    from ablate.tracking import read

    def state() -> list[Any]:
        records = [read.plans(store, name)[-1] for name in names]
        runs = [read.chosen(store, record).values() for record in records]
        return [
            (record["plan"], record["status"], [(run.run_id, run.end) for run in of])
            for record, of in zip(records, runs, strict=True)
        ]

    seen, now = None, state()
    if not any(status == "RUNNING" for _, status, _ in now):
        _say(f"{', '.join(names)}: nothing is running, so there is nothing to wait for")
    with contextlib.suppress(KeyboardInterrupt):
        while any(status == "RUNNING" for _, status, _ in now):
            if now != seen:
                _reports(store, names, "html", plan, output, None, reload=_RELOAD_EVERY)
                done = sum(len(runs) for _, _, runs in now)
                _say(f"{done} runs in; the page loads itself again (Ctrl-C ends this)")
                seen = now
            time.sleep(_LOOK_EVERY)
            _recover_to_read(store)
            now = state()


def _target(output: Path | None, name: str, *, several: bool) -> Path:
    if output is None:
        return Path("reports") / f"{name}.html"
    return output / f"{name}.html" if several or not output.suffix else output


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".tmp")
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise StudyError(
            f"cannot be written ({error.strerror})", place=str(path), hint="--output names another place"
        ) from None


def main() -> None:
    """The entry point: one place where a mistake becomes a message and an exit code."""
    try:
        app()
    except AblateError as error:
        _say(f"error: {error}")
        sys.exit(MISTAKE)
    except OSError as error:
        if error.errno not in _NO_FAULT_OF_OURS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        _say(
            f"error: {place}{error.strerror}\n  what is finished is kept; the same command goes on from there"
        )
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        _say(WAS_INTERRUPTED)
        sys.exit(INTERRUPTED)
