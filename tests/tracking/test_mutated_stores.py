"""Stores of a finished study, damaged at random: every command ends with an answer or one sentence, and nothing else happens."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from mutations import Watch, damage
from typer.testing import CliRunner

COMMANDS = (
    ["status"],
    ["status", "toy"],
    ["list"],
    ["report", "--format", "json"],
    ["report", "toy", "--format", "md"],
    ["run", "toy.yaml", "--dry-run"],
    ["run", "toy.yaml", "--executor", "inline", "-q"],
)


def check(workplace, shared_cache: Path, number: int, seed: int) -> Counter[int]:
    """Damage a file of a finished study, and run commands. Returns how many ended with which exit code."""
    from ablate import cli
    from ablate.errors import AblateError, refused_by_machine

    workplace.trained()
    root = workplace.root
    outside = root.parent / f"{root.name}-outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("mine")
    whole = root.parent / f"{root.name}-whole"
    shutil.copytree(root, whole)
    contents = [path.read_bytes() for path in sorted(whole.rglob("*")) if path.is_file()]
    rng, watch, codes = random.Random(seed), Watch(), Counter[int]()
    for _ in range(number):
        shutil.rmtree(root / "mlruns")
        shutil.copytree(whole / "mlruns", root / "mlruns")
        by_name: dict[str, list[Path]] = {}
        for path in sorted((root / "mlruns").rglob("*")):
            if path.is_file():
                by_name.setdefault(path.name, []).append(path)
        path = rng.choice(by_name[rng.choice(sorted(by_name))])
        what = f"{path.relative_to(root)}: {damage(path, rng, contents, outside)}"
        for command in rng.sample(COMMANDS, 2):
            with watch.on(root, shared_cache):
                result = CliRunner().invoke(cli.app, command)
            error = result.exception
            if isinstance(error, AblateError):
                assert "\n" not in error.message, (what, command)
                codes[cli.MISTAKE] += 1
            elif error is not None and refused_by_machine(error):
                codes[cli.MISTAKE] += 1
            else:
                assert error is None or isinstance(error, SystemExit), (what, command, error)
                codes[result.exit_code] += 1
            assert "Traceback" not in result.output, (what, command)
            assert (watch.started, watch.written) == ([], []), (what, command)
            assert [(item.name, item.read_text()) for item in outside.iterdir()] == [("notes.txt", "mine")]
    assert not (root / "executed").exists()
    assert set(codes) <= {0, 1, 2}
    return codes


def test_a_damaged_store_costs_a_sentence_and_nothing_else(workplace, shared_cache):
    assert check(workplace, shared_cache, 8, 0)[0] > 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_five_hundred_damaged_stores(workplace, shared_cache, seed):
    assert {0, 2} <= set(check(workplace, shared_cache, 50, seed)) <= {0, 1, 2}


def test_a_study_whose_only_plan_cannot_be_read_runs_again(workplace):
    workplace.trained()
    [plan] = Path("mlruns/artifacts/toy").glob("*/artifacts/plan.json")
    plan.write_text("{")
    workplace.ablate("run", "toy.yaml", "--executor", "local", "--workers", "1", "-q")


@pytest.mark.parametrize("command", [["status"], ["report"], ["top-up", "--seeds", "1"], ["init", "--from"]])
def test_a_name_of_bytes_is_no_study(workplace, command):
    said = workplace.ablate(*command, "caf\udce9", code=2)
    assert "there is no study" in said
