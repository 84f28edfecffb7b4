"""The command line: each command parses its options, calls one function and prints. Heavy imports wait until a command needs them."""

# No `from __future__ import annotations`: Typer would compile the options of every command from text, 12 ms of each start.
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ablate import completion, interrupts, launch, streams
from ablate.catalogue_command import data, docs, models
from ablate.errors import AblateError, StoreError, StudyError, refused_by_machine
from ablate.init_command import init
from ablate.judge_command import judge
from ablate.options import (
    FAILING,
    SOME_FAILED,
    AcceptCode,
    Address,
    AllowCommand,
    AllowImport,
    Budget,
    Devices,
    Json,
    Kind,
    NoFuse,
    PerDevice,
    Quiet,
    Seeds,
    Sets,
    Storage,
    StudyFile,
    StudyName,
    Timeout,
    Try,
    Workers,
    print_result,
)
from ablate.slurm_command import slurm
from ablate.text import counted, visible
from ablate.usage import Commands, command

if TYPE_CHECKING:
    from ablate.scheduling.coordinate import Outcome
    from ablate.study.record import PlanRecord
    from ablate.tracking.store import Store

app = typer.Typer(
    name="ablate",
    cls=Commands,
    help="Ablation studies that end in a verdict with an interval.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_NO_STUDY = (
    "the store holds no study yet; `ablate init mine` writes one, and `ablate run mine.yaml` trains it"
)

MISTAKE = 2


def _show_version(is_given: bool) -> None:
    if is_given:
        from importlib import metadata

        print(f"ablate {metadata.version('ablate')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@command(app)
def run(
    study: StudyFile,
    sets: Sets = None,
    seeds: Seeds = None,
    devices: Devices = "auto",
    workers: Workers = None,
    runs_per_device: PerDevice = 1,
    executor: Kind = "local",
    address: Address = None,
    budget: Budget = None,
    timeout: Timeout = None,
    storage: Storage = None,
    accept_code: AcceptCode = False,
    no_fuse: NoFuse = False,
    allow_import: AllowImport = None,
    allow_command: AllowCommand = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show arms, seeds and finished runs; train nothing.")
    ] = False,
    try_: Try = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the runs that a study still lacks, look by look, until its arms are decided."""
    if dry_run and try_:
        raise StudyError("trains, and --dry-run does not", place="--try", hint="leave one of them out")
    if json and (dry_run or try_):
        place = "--dry-run" if dry_run else "--try"
        raise StudyError(
            f"has no events to print with {place}",
            place="--json",
            hint="`ablate plan --json` prints a plan as JSON",
        )
    launch.announce(f"reading {study}", quiet=quiet or json)
    if executor == "local" and not (dry_run or try_):
        launch.begin_workers(study)
    from ablate.study import spec
    from ablate.tracking.store import current_store

    parsed = spec.read(study, sets=sets or ())
    launch.check_permission(parsed, {"imports": allow_import, "commands": [allow_command]})
    if try_:
        try:
            for line in launch.try_baseline(parsed, devices):
                print_result(line)
        except KeyboardInterrupt:
            launch.notify("interrupted: nothing is kept of a trial")
            sys.exit(interrupts.EXIT_CODE)
        return
    store = current_store()
    limits = (launch.seconds(budget, "--budget"), launch.seconds(timeout, "--timeout"))
    where = (executor, devices, workers, runs_per_device)
    finished = launch.finished_plan(parsed, store, seeds)
    if dry_run or finished:
        launch.check_executor(parsed.baseline, *where, address)
    else:
        pool = launch.executor(parsed.baseline, *where, store.root, address)
        pool.warm_up()  # workers start while more is imported and the data are prepared
    from ablate import console, progress
    from ablate.study import design

    if dry_run:
        console.out.print(console.preview(launch.preview(parsed, store, seeds)))
        return
    with progress.preparing(quiet=quiet or json):
        planned = design.plan(parsed, launch.data_lookup(), seeds)
        lines = None
        if finished and not (json or seeds or storage):
            lines = launch.answer(store, finished, planned)
        if not lines:
            from ablate.scheduling.coordinate import Options  # takes a second
    if finished and lines:
        for note in planned.data_notes:
            launch.notify(f"data: {note}")
        if not quiet:
            launch.notify(f"nothing left to do: {planned.study.name} is complete")
        console.out.print(console.paragraphs(lines))
        _suggest(finished.record, quiet=quiet)
        return
    if finished:
        pool = launch.executor(parsed.baseline, *where, store.root, address)
    options = Options(*limits, accept_code=accept_code, fuse=not no_fuse)
    observer = progress.observer(planned, json=json, quiet=quiet)
    outcome = launch.run(planned, store, pool, options, storage, observer, seeds)
    _conclude(outcome, store, f"ablate run {study}", json=json, quiet=quiet)


@command(app)
def plan(
    study: StudyFile,
    sets: Sets = None,
    seeds: Seeds = None,
    devices: Devices = "auto",
    workers: Workers = None,
    runs_per_device: PerDevice = 1,
    allow_import: AllowImport = None,
    allow_command: AllowCommand = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate what a study costs and which effects it can detect, by training a little of each arm."""
    launch.announce(f"reading {study}, then training a little of each arm", quiet=json)
    from ablate import console
    from ablate.measuring import probe
    from ablate.scheduling import outlook
    from ablate.study import design, spec
    from ablate.tracking.store import current_store

    parsed = spec.read(study, sets=sets or ())
    launch.check_permission(parsed, {"imports": allow_import, "commands": [allow_command]})
    planned = design.plan(parsed, launch.data_lookup(), seeds)
    store = current_store()
    seed = launch.check_seed(planned, store, devices, workers, runs_per_device)
    pool = launch.local_executor(probe.measure, parsed.baseline, devices, workers, runs_per_device)
    expected = outlook.outlook(planned, store, pool, seed, seeds)
    if json:
        print_result(outlook.to_json(expected))
    else:
        console.out.print(console.outlook(expected))


@command(app, "top-up")
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
    address: Address = None,
    timeout: Timeout = None,
    storage: Storage = None,
    no_fuse: NoFuse = False,
    allow_import: AllowImport = None,
    allow_command: AllowCommand = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add seeds to the undecided arms of a study, and judge them again; beyond the most seeds, with wider intervals."""
    if (seeds is None) == (budget is None):
        raise StudyError("top-up needs either --seeds or --budget", hint="for example --seeds 5")
    launch.announce(f"reading the record of {study}", quiet=quiet or json)
    from ablate import given_study, progress
    from ablate.scheduling.coordinate import Options
    from ablate.tracking.plans import stored_plan
    from ablate.tracking.store import current_store

    store = current_store()
    given = given_study.find(store, study)
    if not given.is_of_file:
        raise StudyError(given.note, hint=f"`ablate top-up {given.name}` adds seeds to the latest plan")
    if given.note:
        launch.notify(given.note)
    name = given.name
    stored = stored_plan(store, name, given.plan)
    planned = launch.recorded_plan(
        stored.record, name, {"imports": allow_import, "commands": [allow_command]}
    )
    options = Options(
        budget=launch.seconds(budget, "--budget"),
        timeout=launch.seconds(timeout, "--timeout"),
        fuse=not no_fuse,
    )
    pool = launch.executor(
        planned.study.baseline, executor, devices, workers, runs_per_device, store.root, address
    )
    observer = progress.observer(planned, json=json, quiet=quiet)
    outcome = launch.top_up(stored, seeds, planned, store, pool, options, storage, observer)
    _conclude(outcome, store, f"ablate top-up {name}", json=json, quiet=quiet)


@command(app)
def report(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            help="Studies by name or file; by default all in the store.", autocompletion=completion.studies
        ),
    ] = None,
    format: Annotated[  # noqa: A002 — as the option
        str | None,
        typer.Option(
            help="html, md, latex, csv or json; by default what the suffix of --output says, else html.",
            autocompletion=completion.one_of("html", "md", "latex", "csv", "json"),
        ),
    ] = None,
    plan: Annotated[str | None, typer.Option(metavar="ID", help="An older plan of the study.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File or folder to write to.")] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 where an arm or an effect hurts, or is inconclusive.",
            autocompletion=completion.one_of(*FAILING),
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Write the page again whenever a run ends, until the studies end."),
    ] = False,
) -> None:
    """Write what worked and what didn't, with intervals and curves."""
    from ablate import given_study, reporting
    from ablate.comparisons import SUFFIXES
    from ablate.tracking.store import current_store

    format = format or SUFFIXES.get("" if output is None else output.suffix.lower(), "html")  # noqa: A001
    if format not in reporting.FORMATS:
        raise StudyError(
            f"{format!r} is not a format", place="--format", hint=f"one of {', '.join(reporting.FORMATS)}"
        )
    if fail_on not in (None, *FAILING):
        raise StudyError(
            f"{fail_on!r} is not a verdict to fail on", place="--fail-on", hint="hurts or inconclusive"
        )
    store = current_store()
    launch.recover_to_read(store)
    plans = given_study.plans(store, studies or (), plan, launch.notify)
    names = list(plans)
    if not names:
        raise StudyError(
            "the store holds no study yet",
            place=store.place,
            hint="`ablate init mine` writes one, and `ablate run mine.yaml` trains it",
        )
    if len(names) > 1 and output is not None and output.suffix and format not in reporting.ONE_DOCUMENT:
        raise StudyError(
            f"several studies make several {format} files",
            place="--output",
            hint="name a folder, without a suffix",
        )
    if watch and format != "html":
        raise StudyError("only pages can be watched", place="--watch", hint="leave --format out")
    if watch:
        reporting.watch(store, plans, output, launch.notify, launch.recover_to_read)
    written = reporting.write_reports(store, plans, format, output, launch.notify, fail_on=fail_on)
    if written.failing:
        launch.notify(f"{fail_on}: {', '.join(written.failing)}")
    if written.failing or written.unreadable:
        raise typer.Exit(SOME_FAILED)


command(app)(judge)
command(app)(slurm)
command(app)(init)


@command(app)
def status(
    study: Annotated[
        str | None,
        typer.Argument(help="A study; by default all in the store.", autocompletion=completion.studies),
    ] = None,
) -> None:
    """Show how far studies are."""
    from ablate import given_study, standing
    from ablate.tracking.store import current_store

    store = current_store()
    launch.recover_to_read(store)
    plans = given_study.plans(store, [study] if study else (), None, launch.notify)
    unreadable = []
    for name, plan in plans.items():
        try:
            print_result(visible(f"{name}: {standing.status(store, name, plan)}"))
        except StoreError as error:
            if study:
                raise
            unreadable.append(name)
            launch.notify_error(error)
    if not plans:
        launch.notify(_NO_STUDY)
    if unreadable:
        raise typer.Exit(SOME_FAILED)


@command(app, "list")
def list_studies() -> None:
    """List the studies in the store, the latest first."""
    from ablate.tracking.plans import study_names
    from ablate.tracking.store import current_store

    store = current_store()
    names = study_names(store)
    if not names:
        launch.notify(_NO_STUDY)
    elif not sys.stdout.isatty():  # for scripts: names and nothing else
        print_result("\n".join(map(visible, names)))
    else:
        from ablate import console, standing

        console.out.print(console.studies(standing.standing(store, name) for name in names))


command(app)(models)
command(app)(data)
command(app)(docs)


@command(app)
def lr(
    study: StudyFile,
    sets: Sets = None,
    lowest: Annotated[float, typer.Option("--from", help="Lowest rate to try.")] = 1e-5,
    highest: Annotated[float, typer.Option("--to", help="Highest rate to try.")] = 10.0,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the short trainings; by default a quarter of the study's."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each rate.")] = 1,
    path: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Setting that is the rate, where its name does not tell."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML file to write; by default in reports/.")
    ] = None,
    devices: Devices = "auto",
    workers: Workers = None,
    allow_import: AllowImport = None,
    allow_command: AllowCommand = False,
    json: Annotated[bool, typer.Option("--json", help="Print trials and suggestion as JSON.")] = False,
) -> None:
    """Suggest a learning rate: train the baseline briefly under many, and under the best to the end."""
    launch.announce(f"reading {study}", quiet=json)
    from ablate import console, reporting
    from ablate.report import rate_page
    from ablate.scheduling import rates
    from ablate.study import spec
    from ablate.training import runs

    parsed = spec.read(study, sets=sets or ())
    launch.check_permission(parsed, {"imports": allow_import, "commands": [allow_command]})
    options = rates.SweepOptions(lowest, highest, seeds, epochs, path)
    target = output or reporting.rate_page_for(reporting.FOLDER, parsed.name)
    reporting.check_replaceable(target)
    # Reports mistakes in data and network before a process is started.
    facts = launch.data_lookup()(parsed.baseline)
    executor = launch.local_executor(runs.train, parsed.baseline, devices, workers)
    try:
        result = rates.sweep(parsed, options, executor, launch.notify, facts)
    except KeyboardInterrupt:
        launch.notify("interrupted: nothing is kept of a sweep")
        sys.exit(interrupts.EXIT_CODE)
    # A page that cannot be written does not take what was trained with it.
    if json:
        print_result({"path": path or rates.rate_path(parsed.baseline)} | result.to_json())
    else:
        print_result(console.rate_sweep(result, rates.paste(parsed, result, path)))
    reporting.write(target, rate_page.page(result, parsed.name))
    launch.notify(str(target))


@command(app)
def doctor(
    storage: Storage = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check packages, devices, store and cache of this machine. Exits with 1 if anything needed is broken."""
    from ablate import doctor as checkup

    checks = checkup.examine(storage)
    print_result(checkup.to_json(checks) if json else checkup.text(checks))
    if any(check.state == "broken" for check in checks):
        raise typer.Exit(SOME_FAILED)


@command(app, "schema")
def print_schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print pages of all keys and fields, for people.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; with --markdown, the folder of the pages."),
    ] = None,
) -> None:
    """Print the JSON Schema of study files, which editors use to complete and check them."""
    from ablate import reporting
    from ablate.study import pages, schema

    if markdown and output is not None:
        for name, page in pages.pages().items():
            reporting.write(output / name, page)
        launch.notify(str(output / "fields.md"))
        return
    text = "\n".join(pages.pages().values()) if markdown else schema.text()
    if output is None:
        print_result(text, end="")
    else:
        reporting.write(output, text)
        launch.notify(str(output))


@command(app)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    browser: Annotated[
        bool | None,
        typer.Option(
            "--browser/--no-browser",
            help="Open the arms of the latest study; by default in a terminal with a display.",
        ),
    ] = None,
) -> None:
    """Serve MLflow's own pages of the store, on this machine only."""
    from ablate import ui as server
    from ablate.tracking.client import create, note_place
    from ablate.tracking.store import current_store

    store = current_store()
    address = server.address(port)
    create(store)
    note_place(store)
    pages = server.links(store, address)
    for about, page in pages:
        launch.notify(f"{about}:")
        launch.notify(f"  {page}")
    launch.notify("Ctrl-C ends the server")
    if browser or (browser is None and sys.stderr.isatty() and server.has_display()):
        server.open_when_served(address, pages[0][1])
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(server.serve(store, port))


# --- what commands share ----------------------------------------------------------------------------------------------


def _conclude(outcome: "Outcome", store: "Store", command: str, *, json: bool, quiet: bool) -> None:
    """Print what a study came to and what to do next. command: the one that continues it.

    Exits with 1 where runs failed, and where the store has not all of it.
    """
    from ablate import console, kept_answer

    record = outcome.record
    is_search = record.design == "search"
    lines = console.candidates(record) if is_search else console.verdicts(outcome.analysis, record.study)
    if not json:
        console.out.print(console.paragraphs(lines))
    if outcome.ending == "budget":
        launch.notify(
            f"the budget is spent with {counted(outcome.left, 'planned run')} left undone; `{command}` continues"
        )
    if outcome.failed:
        launch.notify(f"{counted(outcome.failed, 'run')} failed; `ablate report {record.study}` shows why")
    _suggest(record, quiet=quiet or json)
    if outcome.failed or outcome.analysis.error or not outcome.is_recorded:
        raise typer.Exit(SOME_FAILED)
    if outcome.ending == "complete" and not outcome.left:
        kept_answer.keep(store, record, lines)


def _suggest(record: "PlanRecord", *, quiet: bool) -> None:
    """Print what can be done with the results of a study."""
    name = record.study
    if record.design == "search" and record.tuned:
        launch.notify(
            f"`ablate init --from {name}` writes a study that compares these with the baseline on fresh seeds"
        )
    if not quiet:
        launch.notify(f"`ablate report {name}` writes the report, `ablate ui` opens MLflow")


def main() -> None:
    """Run the command line; a mistake becomes a message and an exit code."""
    streams.prepare()
    try:
        _run()
    finally:
        if problem := streams.flush():
            launch.notify(f"error: what was printed on stdout is not complete ({problem})")
            sys.exit(MISTAKE)


def _run() -> None:
    try:
        launch.prepare_process()
        app()
    except Exception as error:  # noqa: BLE001 — after an interrupt whatever fails may fail because of it
        if not interrupts.has_come():
            _tell(error)
            sys.exit(MISTAKE)
    except KeyboardInterrupt:
        pass
    else:
        return
    launch.notify(interrupts.MESSAGE)
    sys.exit(interrupts.EXIT_CODE)


def _tell(error: Exception) -> None:
    """Print a line and a hint about what has ended a command. Raises the error again where it is a fault of ablate's."""
    if isinstance(error, MemoryError):
        # Lets go of what filled the memory: a message needs some.
        error.__traceback__ = error.__context__ = None
    if (folder := launch.lost_folder()) is not None:  # whatever failed, failed there
        launch.notify(
            f"error: {folder}: has been moved or removed while the command ran", launch.CONTINUES_THERE
        )
        return
    if isinstance(error, AblateError):
        launch.notify_error(error)
        return
    refusal = refused_by_machine(error)
    if refusal is None:
        raise error
    launch.notify(f"error: {refusal[0]}", refusal[1])
