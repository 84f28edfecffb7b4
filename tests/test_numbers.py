"""Numbers are written alike in every option and in every study: digits 0 to 9, a sign, a point, an exponent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import typer.main
from typer.testing import CliRunner

from ablate import cli
from ablate.asking import positive
from ablate.errors import AblateError, StudyError
from ablate.results import looks_of
from ablate.study import spec
from ablate.text import parse_duration, parse_real, parse_whole

NONE = ("1_0", "９", "٣", "१", "0x10", "0o7", "0b1", "1e", "e3", " 5", "5 ", "5\n", "1,000", "1 000", "½", "²", "Ⅴ", "--5", "+-5", "five", "", "1__0", "１e-3", "−5", "5.", "1:30", "inf", "nan", "Infinity", "1e999", "007")  # fmt: skip
"""Texts that are no whole number in any option; Python's `int` or pydantic takes some of them."""


def numeric_options() -> Iterator[tuple[str, str, type]]:
    group = typer.main.get_command(cli.app)
    with group.make_context("ablate", ["list"]) as context:
        for command in group.list_commands(context):
            for parameter in group.get_command(context, command).params:
                kind = parameter.type_descriptor.annotation
                if kind in (int, float):
                    yield command, next((o for o in parameter.opts if o.startswith("--")), ""), kind


OPTIONS = [option for option in numeric_options() if option[1]]


def test_the_options_with_numbers_are_found():
    assert {"--seeds", "--workers", "--margin", "--from", "--port"} <= {name for _, name, _ in OPTIONS}


@pytest.mark.parametrize(("command", "option"), [each[:2] for each in OPTIONS])
def test_an_option_takes_no_other_writing_of_a_number(command, option):
    for text in ("1_0", "nan"):  # Typer refuses others by itself
        done = CliRunner().invoke(cli.app, [command, f"{option}={text}"])
        assert isinstance(done.exception, StudyError), (text, done.output)
        assert option in str(done.exception), text
        assert "the digits 0 to 9" in str(done.exception), text


@pytest.mark.parametrize(
    "text", [text for text in NONE if text not in ("", " 5", "5 ", "5\n", "2", "5.", "1,000", "1 000")]
)
def test_a_study_takes_no_other_writing_of_a_number(text):
    base = "study: s\nmargin: {margin}\nmetric: val/accuracy\nbaseline: {{data: {{name: digits}}, model: {{name: cnn, width: {width}}}, optimizer: {{name: sgd, lr: {lr}}}}}\nfactors: {{optimizer.lr: [{level}]}}\nseeds: {seeds}\n"
    good = {"margin": "0.01", "width": "8", "lr": "0.1", "level": "0.2", "seeds": "3"}
    spec.parse(base.format(**good))
    for key in good:
        with pytest.raises(AblateError) as refused:
            spec.parse(base.format(**good | {key: f'"{text}"' if text in ("--5", "+-5") else text}))
        assert "number" in str(refused.value) or "is not YAML" in str(refused.value), (
            key,
            str(refused.value),
        )


@pytest.mark.parametrize("text", NONE)
def test_what_is_read_by_hand_follows_the_rule(text):
    assert parse_whole(text) is None
    with pytest.raises(StudyError):
        looks_of(f"3,{text}")
    if text not in (" 5", "5 ", "5\n", "007"):  # a time may stand apart from its unit
        with pytest.raises(StudyError):
            parse_duration(f"{text}s", "--budget")


def test_numbers_as_people_write_them_are_taken():
    assert [parse_whole(text) for text in ("5", "+5", "-3", "0")] == [5, 5, -3, 0]
    assert [parse_real(text) for text in ("5", "+5", "1e-3", ".5", "1E6", "-0.25")] == [
        5,
        5,
        0.001,
        0.5,
        1e6,
        -0.25,
    ]
    answers = iter(["1_0", "９", "0.01"])
    assert positive("what?", lambda *_: next(answers)) == 0.01
