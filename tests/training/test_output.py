"""What a run prints: head and tail are kept, within bounds, whatever the bytes are."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.training.output import MOST_OUTPUT, KeptOutput, left_output


def kept(*pieces: bytes, most: int = MOST_OUTPUT) -> KeptOutput:
    output = KeptOutput(most)
    for piece in pieces:
        output.write(piece)
    return output


def test_little_output_is_kept_as_it_is():
    assert kept(b"a\n", b"\xff\x00", b"b").content() == b"a\n\xff\x00b"
    assert kept().content() == b""


@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(200, 600))
def test_head_and_tail_are_kept_within_the_bound(pieces, most):
    output, whole = kept(*pieces, most=most), b"".join(pieces)
    content = output.content()
    assert output.total == len(whole)
    assert len(content) <= most
    if len(whole) <= most - 100 - 1:
        assert content == whole
    elif content != whole:
        head, note, tail = content.partition("[… ".encode())
        assert note
        tail = tail.partition(b"\n")[2]
        assert whole.startswith((head, head[:-1]))
        assert whole.endswith(tail)


def test_a_hundred_megabytes_take_few():
    line = b"progress 0.5 of something that prints a lot\r" * 1000
    output = KeptOutput()
    tracemalloc.start()
    for _ in range(100_000_000 // len(line)):
        output.write(line)
    output.write(b"the end\n")
    content = output.content()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert output.total > 99_000_000
    assert 990_000 < len(content) <= MOST_OUTPUT
    assert b"MiB left out" in content
    assert content.endswith(b"the end\n")
    assert peak < 8 * MOST_OUTPUT


def test_what_is_missing_is_said_between_two_lines():
    output = kept(*(f"line {i}\n".encode() for i in range(10_000)), most=1000)
    lines = output.content().decode().splitlines()
    assert lines[0] == "line 0"
    assert lines[-1] == "line 9999"
    note = next(line for line in lines if "left out" in line)
    # 98,890 bytes were printed, 900 may be kept, and lines stay whole.
    assert note == "[… 95.7 KiB left out …]"
    assert all(line.startswith("line ") for line in lines if line != note)


def test_one_line_longer_than_all_is_cut_anywhere():
    content = kept(b"\xe2\x82\xac" * 10_000, most=1000).content()
    assert len(content) > 900
    assert b"left out" in content


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        (b"", []),
        (b"a\n\n b\n", ["a", " b"]),
        (b"1%\r2%\r100%\r\ndone", ["100%", "done"]),
        (b"loading \r\x1b[K\x1b[31mError\x1b[0m: bad\n", ["Error: bad"]),
        (b"\xff\n", ["�"]),
        (b"x" * 1000, ["x" * 299 + "…"]),
    ],
)
def test_the_last_lines_are_those_that_a_terminal_shows(printed, lines):
    assert kept(printed).last_lines() == lines


@pytest.mark.parametrize("most", [200, 1000, MOST_OUTPUT])
def test_the_last_lines_are_the_last_whatever_is_left_out(most):
    output = kept(*(b"%d\n" % i for i in range(1000)), most=most)
    assert output.last_lines(3) == ["997", "998", "999"]


@given(st.lists(st.binary(max_size=900), max_size=12))
def test_a_copy_has_head_and_tail_of_what_was_printed_up_to_a_kill(pieces):
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "runs", "key.output")
        output = KeptOutput(1000, copy)
        for piece in pieces:
            output.write(piece)
        size, printed = copy.stat().st_size, b"".join(pieces)
        left = left_output(copy)
        output.discard_copy()
        assert size <= 2000 + 1000
        if len(printed) <= 900:
            assert left == printed
        assert left is not None
        assert left[:400] == printed[:400] or b"\n" in printed or b"\r" in printed
        assert left[-400:] == printed[-400:] or b"\n" in printed or b"\r" in printed
        assert left_output(copy) is None
