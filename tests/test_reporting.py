"""Where reports are written, and what several of them make together."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import reporting
from ablate.errors import StudyError

# Few letters, so that names often differ by their capitals alone.
NAMES = st.one_of(
    st.sampled_from(
        ["index", "Index", "INDEX", "index.html", "index-lr", "INDEX-LR", "width", "Width", "width-lr"]
    ),
    st.from_regex(r"[aA1][aA1_.-]{0,3}(-lr|-LR)?", fullmatch=True),
)


@given(st.lists(NAMES, unique=True, min_size=1, max_size=12))
def test_no_page_takes_the_place_of_another_even_where_capitals_do_not_count(studies):
    """The index, the reports and the sweeps of any studies lie side by side, and a second report replaces the first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "index.html").touch()
        pages = {}
        for study in studies:
            for kind in (reporting.page_for, reporting.rate_page_for):
                pages[kind, study] = kind(folder, study)
                pages[kind, study].touch()
        files = ["index.html", *(page.name.casefold() for page in pages.values())]
        assert len(set(files)) == len(files)
        assert {place: place[0](folder, place[1]) for place in pages} == pages


@pytest.mark.parametrize("study", ["width", "Width-2", "index.html", "my-index", "lr", "width-lr-2"])
def test_a_usual_name_is_the_name_of_its_page(tmp_path, study):
    assert reporting.page_for(tmp_path, study) == tmp_path / f"{study}.html"
    assert reporting.rate_page_for(tmp_path, study) == tmp_path / f"{study}-lr.html"


def test_a_pipe_is_written_to_and_stays_what_it_is(tmp_path):
    pipe = tmp_path / "page.html"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, Path(f"/dev/fd/{os.open(pipe, os.O_WRONLY)}")):
        reporting.write(path, "größer")
        assert os.read(reader, 100).decode() == "größer"
        assert pipe.is_fifo()
        assert list(tmp_path.iterdir()) == [pipe]
    os.close(int(path.name))
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (".", "is a folder"),
        ("file/page.html", r"cannot be written \(Not a directory\)"),
        ("file/deeper/page.html", r"cannot be written \(Not a directory\)"),
        ("study.yaml", "is there already"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_and_left_as_it_is(tmp_path, name, reason):
    for file in ("file", "study.yaml"):
        (tmp_path / file).write_text("kept")
    with pytest.raises(StudyError, match=reason):
        reporting.write(tmp_path / name, "page")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "file": "kept",
        "study.yaml": "kept",
    }


@pytest.fixture
def studies(workplace):
    """Studies whose names meet that of the index, and each other's where capitals do not count."""
    names = ["index", "Toy", "toy"]
    for name in names:
        study = workplace.study(name, factors="{gain: [0.2]}", seeds="2")
        workplace.ablate("run", study, "--executor", "inline", "-q")
    return names


def test_several_studies_make_as_many_pages_and_an_index_one_array_and_one_table(workplace, studies):
    for folder, options in (("reports", []), ("elsewhere", ["-o", "elsewhere"])):
        workplace.ablate("report", *studies, *options)
        index = Path(folder, "index.html").read_text()
        pages = {path.name: path.read_text() for path in Path(folder).iterdir() if path.name != "index.html"}
        assert len({name.casefold() for name in pages}) == len(studies)
        for name, page in pages.items():
            assert "</html>" in page
            assert f'href="{name}"' in index

    one = {name: json.loads(workplace.ablate("report", name, "--format", "json")) for name in studies}
    assert [one[name]["study"] for name in studies] == studies
    assert json.loads(workplace.ablate("report", *studies, "--format", "json")) == [
        one[name] for name in studies
    ]
    alone = list(csv.DictReader(io.StringIO(workplace.ablate("report", "toy", "--format", "csv"))))
    rows = list(csv.DictReader(io.StringIO(workplace.ablate("report", *studies, "--format", "csv"))))
    assert [row.pop("study") for row in rows] == studies
    assert rows[-1] == alone[0]

    for ending in reporting.ONE_DOCUMENT:
        printed = workplace.ablate("report", *studies, "--format", ending)
        workplace.ablate("report", *studies, "--format", ending, "-o", f"all.{ending}")
        assert Path(f"all.{ending}").read_text() == printed
        workplace.ablate("report", *studies, "--format", ending, "-o", "texts")
        texts = [path for path in Path("texts").iterdir() if path.suffix == f".{ending}"]
        assert len({path.name.casefold() for path in texts}) == len(studies)
    output = workplace.ablate("report", *studies, "--format", "md", "-o", "all.md", code=2)
    assert "name a folder" in output
    assert json.loads(workplace.ablate("report", "toy", "toy.yaml", "--format", "json")) == one["toy"]


def test_no_output_takes_the_place_of_a_study_of_code_or_of_a_database(workplace):
    study = workplace.trained(factors="{gain: [0.2]}")
    for target in ("toy.yaml", "toy.py", "mlruns/mlflow.db", "mlruns/../pyproject.toml"):
        before = Path(target).read_bytes()
        assert f"{target}: is there already" in workplace.ablate("schema", "-o", target, code=2)
        assert Path(target).read_bytes() == before
    for command in (["report", "toy"], ["report", "toy", "--format", "csv"], ["slurm", study]):
        assert "would be lost" in workplace.ablate(*command, "-o", "toy.yaml", code=2)
    assert "study: toy" in Path("toy.yaml").read_text()


def test_what_is_judged_is_not_replaced_by_its_verdicts(workplace):
    rows = "arm,seed,val_acc\n" + "".join(f"{arm},{seed},0.{seed}\n" for arm in "ab" for seed in range(3))
    Path("r.csv").write_text(rows)
    Path("link.csv").symlink_to("r.csv")
    options = ["--seed", "seed", "--baseline", "a", "--margin", "0.01", "--metric", "val_acc", "--arm", "arm"]
    for target in ("r.csv", "link.csv"):
        assert "would be lost" in workplace.ablate("judge", "r.csv", *options, "-o", target, code=2)
    assert Path("r.csv").read_text() == rows
    for _ in range(2):  # an earlier output is replaced
        workplace.ablate("judge", "r.csv", *options, "-o", "verdicts.csv")
