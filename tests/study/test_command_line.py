"""A command line → a template, a baseline and an environment; nothing is executed."""

from __future__ import annotations

import pytest

from ablate.errors import StudyError
from ablate.study import command_line


@pytest.mark.parametrize(
    ("text", "arguments", "baseline"),
    [
        ("python train.py --lr 0.1", ["python", "train.py", "--lr", "{lr}"], {"lr": 0.1}),
        ("python3 train.py --lr=1e-3", ["python", "train.py", "--lr={lr}"], {"lr": 0.001}),
        (
            "./train --width 64 --deep",
            ["./train", "--width", "{width}", "{deep?--deep}"],
            {"width": 64, "deep": True},
        ),
        (
            "python t.py --amp --lr 1",
            ["python", "t.py", "{amp?--amp}", "--lr", "{lr}"],
            {"amp": True, "lr": 1},
        ),
        ("python t.py --layers 64 32", ["python", "t.py", "--layers", "{layers}"], {"layers": [64, 32]}),
        ("python t.py -b 8", ["python", "t.py", "-b", "{b}"], {"b": 8}),
        ("python t.py --shift -1", ["python", "t.py", "--shift", "{shift}"], {"shift": -1}),
        (
            "python t.py --weight-decay 0.5",
            ["python", "t.py", "--weight-decay", "{weight_decay}"],
            {"weight_decay": 0.5},
        ),
        (
            "python t.py model.width=64 optimizer.lr=0.1 +extra=a",
            ["python", "t.py", "model.width={model.width}", "optimizer.lr={optimizer.lr}", "+extra={extra}"],
            {"model": {"width": 64}, "optimizer": {"lr": 0.1}, "extra": "a"},
        ),
        (
            """python gpt.py --system.work_dir="'./out'" --model.type="'nano'" """,
            ["python", "gpt.py", "--system.work_dir='{run_dir}'", "--model.type={model.type}"],
            {"model": {"type": "'nano'"}},
        ),
        (
            """python t.py --seed '"3"' --lr 1""",
            ["python", "t.py", "--seed", '"{seed}"', "--lr", "{lr}"],
            {"lr": 1},
        ),
        (
            "python gpt.py --model.n_layer=3",
            ["python", "gpt.py", "--model.n_layer={model.n_layer}"],
            {"model": {"n_layer": 3}},
        ),
        ("python -m pkg.train --lr 0.1", ["python", "-m", "pkg.train", "--lr", "{lr}"], {"lr": 0.1}),
        (
            "python -u -X dev train.py --lr 0.1",
            ["python", "-u", "-X", "dev", "train.py", "--lr", "{lr}"],
            {"lr": 0.1},
        ),
        (
            "torchrun --nproc_per_node 2 train.py --lr 0.1",
            ["torchrun", "--nproc_per_node", "{nproc_per_node}", "train.py", "--lr", "{lr}"],
            {"nproc_per_node": 2, "lr": 0.1},
        ),
        ("bash run.sh data {x}", ["bash", "run.sh", "data", "{{x}}"], {}),
        ("python t.py --lr 0.1 --lr 0.2", ["python", "t.py", "--lr", "0.1", "--lr", "{lr}"], {"lr": 0.2}),
        (
            "python t.py --d a --d=b x=1 +x=2 --d c -- --d e",
            ["python", "t.py", "--d", "a", "--d=b", "x=1", "+x={x}", "--d", "{d}", "--", "--d", "e"],
            {"x": 2, "d": "c"},
        ),
        (
            "torchrun --standalone --nproc_per_node=2 --no-python train.py --lr 0.1 --config other.py",
            [
                *("torchrun", "{standalone?--standalone}", "--nproc_per_node={nproc_per_node}"),
                *("{no_python?--no-python}", "train.py", "--lr", "{lr}", "--config", "{config}"),
            ],
            {"standalone": True, "nproc_per_node": 2, "no_python": True, "lr": 0.1, "config": "other.py"},
        ),
        ("CUDA_VISIBLE_DEVICES=1 python t.py --lr 1", ["python", "t.py", "--lr", "{lr}"], {"lr": 1}),
        (
            "python t.py --name 'a b' -- --x 1",
            ["python", "t.py", "--name", "{name}", "--", "--x", "1"],
            {"name": "a b"},
        ),
    ],
)
def test_flags_become_the_baseline_and_the_rest_stays(text, arguments, baseline):
    line = command_line.read(text)
    assert line.arguments == arguments
    assert line.baseline == baseline


@pytest.mark.parametrize(
    "text",
    [
        "python t.py --seed 3",
        "python t.py --seed=3",
        "python t.py seed=3",
        "python t.py --manual-seed 3",
        "python t.py training.seed=3",
    ],
)
def test_the_seed_is_no_setting(text):
    line = command_line.read(text)
    assert line.given == {"seed"}
    assert "{seed}" in line.arguments[-1]
    assert line.baseline == {}


@pytest.mark.parametrize(
    "word", ["1.10", "007", "1_000", "0x10", "+1", ".5", "nan", "true", "1e400", "0.10", "-", "1" * 50 + ".5"]
)
def test_what_would_not_come_back_as_it_was_stays_text(word):
    assert command_line.plain_value(word) == word


@pytest.mark.parametrize(
    ("word", "value"), [("1", 1), ("-3", -3), ("0.1", 0.1), ("1e-5", 1e-5), ("1.0", 1.0), ("5E2", 500.0)]
)
def test_numbers_are_numbers(word, value):
    assert command_line.plain_value(word) == value


def test_variables_and_the_interpreter_are_kept():
    line = command_line.read("CUBLAS=1 OMP=2 .venv/bin/python3.12 t.py")
    assert (line.env, line.python, line.arguments) == (
        {"CUBLAS": "1", "OMP": "2"},
        ".venv/bin/python3.12",
        ["python", "t.py"],
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "A=1",
        "python 'x",
        "python t.py | tee log",
        "python t.py > log",
        "a && b",
        "python $HOME/t.py",
    ],
)
def test_what_is_no_command_or_needs_a_shell_is_refused(text):
    with pytest.raises(StudyError) as error:
        command_line.read(text)
    assert error.value.place == "--command"


def test_signs_of_a_shell_in_quotes_are_the_commands_own():
    assert command_line.read("python t.py --pattern 'a|b'").baseline == {"pattern": "a|b"}
