"""The completions that a shell gets, requested in the way that shells request them."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess

import pytest
from typer.testing import CliRunner

from ablate import cli


def completed(line: str, shell: str = "bash") -> list[str]:
    """Return the completions at the end of the line, as bash gets them."""
    words = line.split(" ")
    environment = {
        "_ABLATE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
    }
    result = CliRunner().invoke(cli.app, [], prog_name="ablate", env=environment)
    assert result.exit_code == 0, result.output
    return result.output.split()


def test_study_files_are_completed_where_a_command_takes_a_file(workplace):
    workplace.study("narrow")
    workplace.study("wide")
    (workplace.root / "studies").mkdir()
    (workplace.root / "studies" / "deep.yaml").write_text("study: deep\nquestion: How deep?\n")
    assert completed("ablate run ") == ["narrow.yaml", "wide.yaml", "studies/deep.yaml"]
    assert completed("ablate plan w") == ["wide.yaml"]
    assert "deep?" in " ".join(completed("ablate run st", "zsh"))


def test_studies_of_the_store_are_completed_where_a_command_takes_a_name(workplace):
    workplace.ablate(
        "run", workplace.study("kept", factors="{gain: [0.2]}"), "--executor", "inline", "--quiet"
    )
    for command in ("report", "status", "top-up"):
        assert completed(f"ablate {command} ke") == ["kept", "kept.yaml"]
    assert completed("ablate run ke") == ["kept.yaml"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ablate models inc", ["inception_v1", "inception_v2"]),
        ("ablate data cif", ["cifar10", "cifar100"]),
        ("ablate run x.yaml --set optimizer.l", ["optimizer.lr="]),
        ("ablate data digits --set data.ch", ["data.channels="]),
        ("ablate rep", ["report"]),
    ],
)
def test_names_that_ablate_knows_are_completed(line, expected, workplace):
    assert completed(line) == expected


def test_a_store_that_cannot_be_read_hides_no_file_and_says_nothing(workplace):
    workplace.study("fine")
    (workplace.root / "mlruns" / "mlflow.db").write_bytes(b"no database")
    (workplace.root / "folder.yaml").mkdir()
    assert completed("ablate report ") == ["fine.yaml"]


def test_a_server_is_not_asked(workplace, monkeypatch):
    workplace.study("fine")
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert completed("ablate report ") == ["fine.yaml"]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has come
            server.accept()


HOSTILE = (
    "$(touch mark)",
    "`touch mark`",
    r"\$(touch mark)",
    r"\\`touch mark`",
    "'; touch mark; '",
    '"; touch mark; "',
    "')); touch mark; : '((",
    "<(touch mark) >(touch mark) =(touch mark)",
    "${x:=$(touch mark)} $((1)) ~root *",
    "a\x1b]0;x\x07b",
    "!! | & touch mark",
    "[red]x[/red] :x: a:b",
)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_no_shell_is_told_what_it_would_evaluate(workplace, shell):
    for number, text in enumerate(HOSTILE):
        name = text.replace("/", "").replace("\0", "")
        (workplace.root / f"{name}.yaml").write_text(f"study: a\nquestion: {text}\n")
        (workplace.root / f"plain{number}.yaml").write_text(f"study: a\nquestion: {text}\n")
    environment = {
        "_ABLATE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_CWORD": "2",
    }
    for incomplete in ("ablate run plain", "ablate run "):
        environment |= dict.fromkeys(("COMP_WORDS", "_TYPER_COMPLETE_ARGS"), incomplete)
        environment["_TYPER_COMPLETE_WORD_TO_COMPLETE"] = incomplete.split(" ")[-1]
        output = CliRunner().invoke(cli.app, [], prog_name="ablate", env=environment).output
        assert output.count("plain") == len(HOSTILE)
        offered = output.replace("_arguments '*: :((", "").replace("))'", "")
        assert not re.search(r"[$`\\'!|&;<>(){}\[\]*~\x00-\x08\x0b-\x1f]", offered)
        assert "mark" not in offered or shell != "bash"
    command = f"_arguments() {{ :; }}; eval {shlex.quote(output)}"
    subprocess.run(["bash", "-c", command], cwd=workplace.root, capture_output=True, check=False)
    assert not (workplace.root / "mark").exists()
