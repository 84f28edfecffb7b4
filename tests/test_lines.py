"""Metrics out of printed lines: which numbers are read, with which resolution, and which patterns are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.lines import (
    LONGEST_LINE,
    LineReader,
    LineSplitter,
    PrintedValue,
    has_decimal_comma,
    parse_number,
    parse_pattern,
    plain_text,
)


def reader(**patterns: str) -> LineReader:
    return LineReader({name: parse_pattern(text, f"metrics.{name}.line") for name, text in patterns.items()})


@pytest.mark.parametrize(
    ("printed", "value", "resolution"),
    [
        ("0.912", 0.912, 1e-3),
        (".5", 0.5, 0.1),
        ("5.", 5, 1),
        ("91", 91, 1),
        ("-0.25", -0.25, 0.01),
        ("+3", 3, 1),
        ("1.23e-4", 1.23e-4, 1e-6),
        ("2E3", 2000, 1000),
        ("1e-05", 1e-5, 1e-5),
        ("1e-400", 0, 0),
        ("1,234.5", 1234.5, 0.1),
        ("12,345,678", 12345678, 1),
        ("91.2%", 91.2, 0.1),
        ("0.91.", 0.91, 0.01),
        ("0.91,", 0.91, 0.01),
        (" 0.5 ", 0.5, 0.1),
        ("inf", math.inf, None),
        ("-Infinity", -math.inf, None),
    ],
)
def test_a_printed_number_is_read_with_the_step_of_its_last_digit(printed, value, resolution):
    read = parse_number(printed)
    assert read is not None
    assert read[0] == value
    assert read[1] == (resolution if resolution is None else pytest.approx(resolution))


@pytest.mark.parametrize("printed", ["nan", "NaN", "-nan", "NAN,"])
def test_nan_is_read_as_nan(printed):
    value, resolution = parse_number(printed)
    assert math.isnan(value)
    assert resolution is None


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "-",
        ".",
        "n/a",
        "None",
        "0,912",
        "1,23",
        "1,2345",
        "1.2.3",
        "1_000",
        "0x1f",
        "1e999",
        "tensor(0.5)",
    ],
)
def test_what_is_no_plain_number_is_not_read(printed):
    assert parse_number(printed) is None


@given(
    st.floats(-1e300, 1e300) | st.just(math.inf),
    st.sampled_from(["{!r}", "{:.0f}", "{:.4f}", "{:g}", "{:.3e}", "{:,.2f}"]),
)
def test_whatever_python_prints_of_a_float_is_read_back_to_within_its_resolution(value, style):
    printed = style.format(value)
    read, resolution = parse_number(printed)
    if math.isinf(value):
        assert (read, resolution) == (value, None)
    else:
        assert read == float(printed.replace(",", ""))
        assert abs(read - value) <= 0.5000001 * max(resolution, abs(value) * 1e-15) or style == "{!r}"


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (r"Accuracy: (\d+)/(\d+)", "Test set: Accuracy: 9840/10000 (98%)", PrintedValue(0.984, 1e-4)),
        (r"Accuracy: ([\d,]+)/([\d,]+)", "Accuracy: 9,840/10,000", PrintedValue(0.984, 1e-4)),
        (r"(\S+) of (\d+)", "2.5 of 10", PrintedValue(0.25, 0.01)),
        (r"loss ([\d.]+)", "loss 0.50 loss 0.25", PrintedValue(0.5, 0.01)),
        (r"step (?P<step>\d+) loss ([\d.]+)", "step 7 loss 0.5", PrintedValue(0.5, 0.1, 7)),
        (r"loss ([\d.]+) at (?P<step>[\d,]+)", "loss 0.5 at 1,200", PrintedValue(0.5, 0.1, 1200)),
        (r"(?P<loss>\d+)$", "loss 3", PrintedValue(3, 1)),
        (r"(\d+) right|accuracy (\S+)", "accuracy 0.5", PrintedValue(0.5, 0.1)),
        (r"acc (\d+)(?:/(\d+))?", "acc 3", PrintedValue(3, 1)),
        (r"acc (\d+)(?:/(\d+))?", "acc 3/4", PrintedValue(0.75, 0.25)),
        (r"^loss ([\d.]+)$", "\x1b[1;32mloss \x1b[0m0.5\x1b[K", PrintedValue(0.5, 0.1)),
        (r"Acc: ([\d.]+)%", "[==>...]  Acc: 12.5% (8/64)" + " " * 30 + "\b" * 30 + " 1/2 ", PrintedValue(12.5, 0.1)),
    ],
)  # fmt: skip
def test_a_pattern_reads_a_value_wherever_it_stands_in_a_line(pattern, line, expected):
    assert reader(m=pattern).read(line) == {
        "m": PrintedValue(pytest.approx(expected.value), pytest.approx(expected.resolution), expected.step)
    }


PATTERNS = (
    r"loss[^\d]*([\d.]+)",
    r"loss\D*(\d+)",
    r"loss[:= ]+([\d.]+)",
    r"loss.*?([\d.]+)",
    r"loss\W*([\w.+-]+)",
    r"loss.*([\d.]+), acc",
    r"loss\S* (\d+\.?\d*)",
    r"loss[:= ]+(\S+)",
    r"loss[:= ]+([\d.]+), acc",
)

WITH_THEIR_TYPES = (
    "np.float64({})",
    "float32({})",
    "tensor({})",
    "tensor({}, device='cuda:0')",
    "tensor({}, dtype=torch.float64, grad_fn=<NllLossBackward0>)",
    "Array({}, dtype=float32, weak_type=True)",
    "tf.Tensor({}, shape=(), dtype=float32)",
    "<tf.Tensor: shape=(), dtype=float32, numpy={}>",
)


@given(
    pattern=st.sampled_from(PATTERNS),
    value=st.floats(-1e300, 1e300)
    | st.floats(-2000, 2000)
    | st.sampled_from([math.nan, math.inf, -math.inf]),
    style=st.sampled_from(["{:.4f}", "{:.2f}", "{:.0f}", "{:.3e}", "{:g}", "{!r}", "{:+.3f}", "{:,.1f}"]),
    within=st.sampled_from(["{}", *WITH_THEIR_TYPES]),
)
def test_a_pattern_for_digits_reads_the_number_that_was_printed(pattern, value, style, within):
    """A part of it, the number of an earlier epoch, or the next number of the line would be a wrong result without a word."""
    printed = style.format(value)
    typed = printed if "," in style else within.format(printed)
    (read,) = reader(m=pattern).read(f"Epoch 3/10 - loss: {typed}, acc 0.71 in 12:05").values()
    expected = float(printed.replace(",", ""))
    assert read.value == expected or (math.isnan(read.value) and math.isnan(expected))


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        (r"0\.(\d+)", "acc 0.91", 91),
        (r"ELBO: -([\d.]+)", "ELBO: -12.5", 12.5),
        (r"(\d+)\.\d+ s", "12.75 s", 12),
        (r"nan steps: (\d+)", "nan steps: 3", 3),
        (r"run-(\d+)", "run-7", 7),
        (r"(\d+)-", "3-5", 3),
        (r"at (\d+):", "at 12:30", 12),
        (r"acc\.*([\d.]+)", "acc....91", 91),
        (r"lr (\d+)e-", "lr 3e-05", 3),
        (r"version (\d)", "version 3.11.2", 3.11),
        (r"(\d+) of", "0.3 of 1", 0.3),
        (r"loss ([\d.]+)", "inf-norm 3, loss 0.5", 0.5),
        (r"float(\d+)\(", "np.float64(0.5)", 64),
        (r"tensor\(([\d.]+), ", "loss tensor(0.5, device='cuda:0')", 0.5),
        (r"(\d+),(?:\d+)", "3,5", 3),
        (r"^\d+,([\d.]+)", "1,0.5,0.7", 0.5),
        (r",(\d+),", "1,2,3", 2),
    ],
)
def test_a_part_of_a_number_is_read_where_the_pattern_asks_for_the_rest(pattern, line, expected):
    assert reader(m=pattern).read(line)["m"].value == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_of_a_number_with_a_decimal_comma_no_part_is_read(pattern):
    lines = reader(m=pattern)
    assert lines.read("loss: 0,693, acc 1") == {}
    assert not lines.unreadable or has_decimal_comma(lines.unreadable["m"])


def test_a_step_on_another_line_counts_until_the_next_one():
    lines = reader(counter=r"Epoch (?P<step>\d+)", loss=r"loss (\S+)", accuracy=r"acc (\S+)")
    assert lines.read("loss 3") == {"loss": PrintedValue(3, 1, None)}
    assert lines.read("Epoch 1") == {}
    assert lines.read("loss 2, acc 1") == {"loss": PrintedValue(2, 1, 1), "accuracy": PrintedValue(1, 1, 1)}
    assert lines.read("acc 2 (Epoch 2)") == {"accuracy": PrintedValue(2, 1, 2)}
    assert lines.missing == ()


def test_a_pattern_with_a_step_of_its_own_keeps_it():
    lines = reader(a=r"a(?P<step>\d+)=(\d+)", b=r"b(?P<step>\d+)=(\d+)")
    assert lines.read("a1=5 b2=6") == {"a": PrintedValue(5, 1, 1), "b": PrintedValue(6, 1, 2)}


def test_what_never_matched_and_what_is_no_number_is_told():
    lines = reader(loss=r"loss (\S+)", share=r"(\d+)/(\d+)", other=r"other (\d)")
    assert lines.read("loss n/a 3/0") == {}
    assert lines.read("4/3") == {}
    assert lines.missing == ("loss", "share", "other")
    assert lines.unreadable == {"loss": "n/a", "share": "4/3"}
    assert lines.read("loss nan")["loss"].resolution is None
    assert lines.missing == ("share", "other")


def test_the_finest_resolution_of_a_run_counts():
    lines = reader(a=r"a (\S+)")
    for line in ("a 0.5", "a 0.4375", "a nan", "a 1"):
        lines.read(line)
    assert lines.resolutions == {"a": pytest.approx(1e-4)}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("loss (", "'loss (' is not a regular expression: missing ), unterminated subpattern"),
        ("*", "is not a regular expression: nothing to repeat"),
        ("(?P<step>a)(?P<step>b)", "is not a regular expression: redefinition of group name"),
        ("a{99999999999999}(b)", "is not a regular expression"),
        ("loss", "'loss' has no group for the value"),
        ("(a)(b)(c)", "'(a)(b)(c)' has 3 groups, where one is a value and two are a share"),
        ("", "'' is not a pattern"),
        (None, "None is not a pattern"),
        (3, "3 is not a pattern"),
        (["a"], "['a'] is not a pattern"),
        *(
            (pattern, "can take forever on a line")
            for pattern in (r"(a+)+$", r"(?:\w+\s?)*:(\d)", r"(?:x|\d+)*;(.)", r"(?:(?:.*))+!(\d)", r"(\s*\w*)*=", r"(?:a*?)*b(c)",
                            r"(?:(?:\d+,?)?x?){20}y(.)")
        ),
    ],
)  # fmt: skip
def test_a_pattern_that_cannot_work_is_refused_with_its_place(pattern, message):
    with pytest.raises(StudyError) as caught:
        parse_pattern(pattern, "metrics.loss.line")
    assert caught.value.place == "metrics.loss.line"
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "pattern",
    [r"(?:\d+,)*(\d+)", r"(?:\S+\s+)*loss (\d)", r"(\d+)", r"(?:a|b)*(c)", r"(?:[a-z]+=\d+ )+acc=(\S+)", r"((?:\d\d)+)",
     r"(?:\w+\.){0,3}loss (.+)", r"(?:ab?)+(c)", r"[[]loss (\d)", r"^.*?loss.*?([\d.]+)\s*$"],
)  # fmt: skip
def test_a_pattern_that_repeats_with_care_is_accepted(pattern):
    assert parse_pattern(pattern, "here").groups


def test_only_the_beginning_of_a_long_line_is_read_and_no_number_is_cut():
    lines = reader(loss=r"loss ([\d.]+)")
    assert lines.read("x" * (LONGEST_LINE - 10) + " loss 0.12345") == {}
    assert lines.read("x" * LONGEST_LINE + " loss 0.5") == {}
    assert lines.read("loss 0.5 " + "x" * 1_000_000)["loss"].value == 0.5


def test_a_pattern_whose_time_grows_with_the_square_of_a_line_ends():
    assert reader(loss=r"loss.*?(\d+)x").read("loss " * 200_000) == {}


@given(
    st.lists(st.sampled_from([b"loss 1", b"\r", b"\n", b"\r\n", "ä€".encode(), b"\xff\x00", b""])), st.data()
)
def test_lines_do_not_depend_on_how_the_bytes_arrive(parts, data):
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    splitter = LineSplitter()
    lines = [
        line
        for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
        for line in splitter.feed(whole[start:end])
    ]
    lines += splitter.end()
    assert lines == [
        line.decode(errors="replace") for line in whole.replace(b"\r", b"\n").split(b"\n") if line
    ]
    assert splitter.end() == []


def test_a_line_without_end_takes_bounded_memory():
    splitter = LineSplitter(longest=100)
    for _ in range(1000):
        assert splitter.feed(b"y" * 1000) == []
    assert splitter.feed(b"\nloss 1\n" + b"z" * 200 + b"\n") == ["y" * 100, "loss 1", "z" * 100]


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;https://x.y\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b(Bm\x1b[?25lno cursor\x1b=", "mno cursor"),
        ("a\x00b\x08c\x7f", "abc"),
        ("tab\tbed", "tab\tbed"),
        ("ü → 0.5", "ü → 0.5"),
    ],
)
def test_colours_and_control_characters_are_taken_out(line, plain):
    assert plain_text(line) == plain


@given(st.text(max_size=40))
def test_plain_text_has_no_escapes_and_is_left_alone_a_second_time(line):
    once = plain_text(line)
    assert "\x1b" not in once
    assert plain_text(once) == once
