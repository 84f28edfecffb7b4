"""`ablate slurm`: a study as a job of a SLURM cluster."""

# Without `from __future__ import annotations`, as in `cli.py`.
from pathlib import Path
from typing import Annotated, Any

import typer

from ablate import launch
from ablate.errors import StudyError
from ablate.options import StudyFile, print_result


def slurm(
    context: typer.Context,
    study: StudyFile,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTIONS…", help="Of `ablate run`, after a --.", show_default=False),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each; 0 trains on processors.")] = 0,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="Processors of each; by default 4 for each GPU, or 1.")
    ] = None,
    time: Annotated[
        str, typer.Option(metavar="TIME", help="Of one allocation: 90 (minutes), 4:00:00, 1-12.")
    ] = "1:00:00",
    notice: Annotated[
        int, typer.Option(min=10, metavar="SECONDS", help="How long before its end the study stops.")
    ] = 120,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="Of sbatch, as --option=--partition=gpu; repeatable."),
    ] = None,
    before: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help='Of bash, run first: "module load cuda"; repeatable.'),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The script; by default STUDY.sbatch.")
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit it, too.")] = False,
) -> None:
    """Write a batch script that runs a study on the nodes of a SLURM job, and goes on in the next where its time was up."""
    from ablate import reporting
    from ablate import slurm as batch
    from ablate.study import spec
    from ablate.training import trainer_of

    # A mistake is said now, not when the job has waited for its nodes.
    parent: Any = context.parent
    run = parent.command.commands["run"].make_context("run", [str(study), *(arguments or ())], parent)
    parsed = spec.read(study, sets=run.params["sets"] or ())
    name, devices = parsed.name, trainer_of(parsed.baseline).devices(parsed.baseline)
    for each in option or ():
        if not each.startswith("-"):
            raise StudyError(f"{each!r} is no option of sbatch", place="--option", hint=f"--option=--{each}")
    job = batch.BatchJob(
        nodes, gpus_per_node, cpus_per_node, time, notice, tuple(option or ()), tuple(before or ()), devices
    )
    file = output or Path(f"{name}.sbatch")
    reporting.write(file, batch.script(study, name, job, arguments or (), file))
    print_result(str(file))
    if submit:
        launch.notify(f"job {batch.submit(file)}; `ablate status {name}` shows how far it is")
    else:
        launch.notify(f"`sbatch {file}` submits it")
