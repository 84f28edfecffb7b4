"""A command does the same whoever reads what it prints: any encoding, closed streams, a pipe that has ended, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ablate.text import folded

HELLO = (
    "import sys; from ablate import streams; streams.prepare(); "
    "print('gr\\u00f6\\u00dfer \\u2192 \\u65e5\\u672c \\udcff'); print('note \\u2713 \\udc80', file=sys.stderr); "
    "open('made', 'w').write('whole'); "
    "print('x' * 200_000); problem = streams.flush(); sys.exit(3 if problem else 0)"
)


@pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "utf-8", "cp1252", "utf-16", "utf-8:strict", "ascii:strict"]
)
def test_signs_that_an_encoding_lacks_are_replaced(tmp_path, encoding):
    done = subprocess.run(
        [sys.executable, "-c", HELLO],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    plain = encoding.partition(":")[0]
    assert "gr" in done.stdout.decode(plain)
    assert "note" in done.stderr.decode(plain)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_replaced_by_an_empty_one(tmp_path, closed):
    """Otherwise the next file that is opened has its number, and what is printed ends up in it."""
    command = f'"{sys.executable}" -c "$HELLO" {closed}'
    subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"HELLO": HELLO},
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "made").read_text() == "whole"


@pytest.mark.parametrize(
    ("end", "code"), [("| head -c 3", 0), ("> /dev/full", 3), ("2> /dev/full", 0), ("2>&1 | true", 0)]
)
def test_a_stream_that_ends_does_not_end_the_command(tmp_path, end, code):
    if "full" in end and not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("there is no /dev/full")
    command = f'{{ "{sys.executable}" -c "$HELLO"; echo $? > code; }} {end}'
    subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"HELLO": HELLO},
        check=False,
        capture_output=True,
    )
    assert (tmp_path / "made").read_text() == "whole"
    assert int((tmp_path / "code").read_text()) == code


def test_warnings_of_packages_never_end_a_command(tmp_path):
    code = "from ablate import streams; streams.prepare(); import warnings; warnings.warn('x', DeprecationWarning)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, check=True
    )
    assert b"DeprecationWarning" in done.stderr


@pytest.mark.parametrize("width", [20, 40, 80])
def test_lines_for_people_break_between_words_and_commands_stay_whole(width):
    prose = "note: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    command = "  for example: ablate judge results.csv --arm optimizer --metric val/loss --baseline sgd --margin 0.01"
    address = f"  http://127.0.0.1:5000/{'x' * 90}"
    table = "  minutes    7 values, 10.8 (5)"
    told = folded(f"{prose}\n{command}\n{address}\n{table}", width).split("\n")
    assert command in told
    assert address in told
    rest = [line for line in told if line not in (command, address)]
    assert all(len(line) <= width for line in rest)
    assert " ".join(" ".join(rest).split()) == " ".join(f"{prose} {table}".split())
    if width == 80:
        assert table in told
