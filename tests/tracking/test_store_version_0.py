"""A store that version 0.1.0 wrote, before records had a version: reports on it stay what they were.

`store_version_0.tar.xz` holds, as that version left them, a local MLflow database and the artifacts that reports read; beside them the
study files (`studies/`), the trainings of the user's own that they name (`response.py`, `slow.py`), and what that version's
`ablate report STUDY --format json|csv|md` and `ablate status` said of them (`expected/`; `STUDY@PLAN.json` of an older plan). The studies,
all of a few epochs, on 240 of scikit-learn's digits or, marked *, with `response:fit`, which needs no data:

    one_at_a_time  three factors and one that zips two paths, A/A runs, confirmation declared, an arm that diverges under every seed
    topped_up      one at a time, then `ablate top-up --seeds 1`; its baseline's runs are copies of those of one_at_a_time
    tuned          a nuisance setting of three trials an arm, and the same arms at the baseline's fixed setting
    searched       `design: search`, random, with candidates that were evaluated again
    weighed        `design: search` with two objectives (`cost: parameters`)
    pruned*        `design: search` with a pruner that stopped no trial
    broken_off*    the same, with trials that it stopped
    cells          `design: factorial`, of val/loss, which is to be minimized
    screened*      `design: fractional`, whose interactions are aliased
    steps          `design: path` of three factors
    both_ways*     `design: both`, under two plans: margins of 0.02, then of 0.05
    left_out*      `design: leave-one-out`
    fails*         an arm whose runs fail from the third seed on, and A/A runs
    confirmed*     one at a time with a zipped factor, A/A runs, and the winner confirmed on fresh seeds

The store lay at `/store/mlruns`; where it is unpacked it is a store that was moved.
"""

from __future__ import annotations

import json
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ablate import cli

ARCHIVE = Path(__file__).with_name("store_version_0.tar.xz")

with tarfile.open(ARCHIVE) as _archive:
    EXPECTED = sorted(
        name.removeprefix("expected/").removesuffix(".json")
        for name in _archive.getnames()
        if name.startswith("expected/") and name.endswith(".json")
    )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("version_0")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture
def store(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(unpacked)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ABLATE_CACHE", str(unpacked / "no-data"))
    return unpacked


def ablate(*arguments: str) -> str:
    """What a command that has to succeed prints on standard output."""
    result = CliRunner().invoke(cli.app, list(arguments))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def differences(expected: Any, got: Any, place: str = "") -> list[str]:
    """Where two JSON values differ: in keys that are gone, lengths, types, or in numbers by more than 1e-9 of their size (quantiles differ by 1e-10 between versions of scipy)."""
    if isinstance(expected, dict) and isinstance(got, dict):
        # A later version may say more of a study, and must not say less.
        keys = [f"{place}: without {sorted({*expected} - {*got})}"] if {*expected} - {*got} else []
        common = [key for key in expected if key in got]
        return keys + [d for key in common for d in differences(expected[key], got[key], f"{place}.{key}")]
    if isinstance(expected, list) and isinstance(got, list):
        length = [f"{place}: {len(expected)} entries, not {len(got)}"] if len(expected) != len(got) else []
        pairs = enumerate(zip(expected, got, strict=False))
        return length + [d for i, (a, b) in pairs for d in differences(a, b, f"{place}[{i}]")]
    if isinstance(expected, float) and isinstance(got, float):
        same = math.isclose(expected, got, rel_tol=1e-9, abs_tol=0)
    else:
        same = type(expected) is type(got) and expected == got
    return [] if same else [f"{place}: {expected!r}, not {got!r}"]


def arguments(name: str) -> list[str]:
    study, _, plan = name.partition("@")
    return [study, "--plan", plan] if plan else [study]


@pytest.mark.parametrize("name", EXPECTED)
def test_report_as_json_is_what_it_was(store: Path, name: str):
    expected = json.loads((store / "expected" / f"{name}.json").read_text(encoding="utf-8"))
    got = json.loads(ablate("report", *arguments(name), "--format", "json"))
    # Version 0.1.0 said this on the page alone: of the second plan of the only study that has two.
    told = [text for text in got["warnings"] if "were judged by 1 other plan" in text]
    assert len(told) == (name == "both_ways")
    got["warnings"] = [text for text in got["warnings"] if text not in told]
    # It also called the steps of any metric images, and one point points.
    images = ": two misclassified images are already worth having"
    steps = ", the smallest step that it can make: measure it on more data, or declare a larger margin"
    expected["warnings"] = [
        text.replace(images, steps).replace(" is 1 points.", " is 1 point.") for text in expected["warnings"]
    ]
    # What follows from an arm's noise it did not say either.
    misses = ": over so few seeds its interval may miss more often than it says"
    got["warnings"] = [text.replace(misses, "") for text in got["warnings"]]
    assert differences(expected, got) == []


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("form", ["md", "csv"])
def test_other_reports_are_made(store: Path, name: str, form: str):
    text = ablate("report", *arguments(name), "--format", form)
    before = (store / "expected" / f"{name}.{form}").read_text(encoding="utf-8")
    # A search has no arms to list: its csv was empty.
    assert text.strip() or not before.strip()


def test_every_study_is_complete(store: Path):
    """The names of the studies, and which runs there are of each."""
    lines = ablate("status").splitlines()
    expected = (store / "expected" / "status.txt").read_text(encoding="utf-8").splitlines()
    assert len(expected) == len({name.partition("@")[0] for name in EXPECTED})
    assert {line.partition(":")[0] for line in lines} == {line.partition(":")[0] for line in expected}
    assert all("complete" in line for line in lines)


def test_archive_holds_its_studies(store: Path):
    studies = {file.stem for file in (store / "studies").glob("*.yaml")}
    assert studies == {name.partition("@")[0] for name in EXPECTED}
