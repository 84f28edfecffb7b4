"""docs/tour.md: its commands run, in their order, and print what the page says they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from ablate import cli

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "tour.md").read_text()


def steps() -> list[tuple[list[str], list[str]]]:
    """Commands of the page with the lines that it shows of their output."""
    commands: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((shlex.split(line.removeprefix("$ ")), []))
            else:
                commands[-1][1].append(line)
    return commands


def test_every_command_that_the_tour_speaks_of_can_be_typed_so():
    known = typer.main.get_command(cli.app)
    spoken = [shlex.split(text) for text in re.findall(r"`ablate ([a-z][^`]*)`", PAGE)]
    typed = [command[1:] for command, _ in steps()] + spoken
    assert {arguments[0] for arguments in typed} >= {"init", "run", "report", "top-up", "ui", "plan"}
    for name, *arguments in typed:
        command = known.commands[name]
        if arguments or name in ("schema", "ui"):  # `ablate init` alone only names the command
            command.make_context(name, arguments)


@pytest.mark.slow
def test_every_command_of_the_tour_runs_and_says_what_the_page_says(workplace):
    assert len(steps()) >= 10
    for (program, *arguments), shown in steps():
        assert program == "ablate"
        # In this process: the tour is about commands.
        trains = arguments[0] in {"run", "top-up"} and "--dry-run" not in arguments
        output = workplace.ablate(*arguments, *(["--executor", "inline"] if trains else []))
        for line in shown:
            assert line in output, f"{arguments} printed:\n{output}"
    assert (workplace.root / "reports" / "mine.html").stat().st_size > 100_000


def test_every_page_and_picture_that_the_tour_leads_to_is_there():
    links = re.findall(r"\]\(([\w.-]+)\)", PAGE)
    assert len(links) > 6
    assert [link for link in links if not (DOCS / link).is_file()] == []
