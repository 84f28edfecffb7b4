"""`ablate init`: a study to begin with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ablate.errors import StudyError
from ablate.study import spec, template
from ablate.study.templates import TEMPLATES


def test_a_new_study_is_commented_and_can_be_read_as_it_stands(tmp_path):
    path = template.create("mine", tmp_path / "studies")
    study = spec.read(path)
    assert (study.name, path.name) == ("mine", "mine.yaml")
    assert len(study.factors) == 2
    assert path.read_text().startswith(template.HEADER + "\n")
    assert f"ablate run {path}" in path.read_text()
    assert (path.parent / template.SCHEMA_FILE).is_file()


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = template.create("mine", tmp_path)
    path.write_text("precious")
    with pytest.raises(StudyError, match="not overwritten"):
        template.create("mine", tmp_path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["../mine", "", "my study", "-x", "a{b}", "a" * 101, "1e5"])
def test_what_cannot_name_a_study_makes_no_file(name, tmp_path):
    with pytest.raises(StudyError) as error:
        template.create(name, tmp_path)
    assert error.value.place.startswith("init ")
    assert list(tmp_path.iterdir()) == []


def test_the_new_study_runs(workplace):
    """Two of its arms, one seed, one epoch: that it trains, not what it finds."""
    output = workplace.ablate("init", "mine")
    assert output.startswith("mine.yaml\n")
    workplace.ablate(
        *("run", "mine.yaml", "--seeds", "1", "--executor", "inline", "--quiet"),
        *("--set", "training.epochs=1", "--set", "data.subset=200"),
    )
    assert {run.data.tags["ablate.outcome"] for run in workplace.runs("mine")} == {"finished"}
    assert "already" in workplace.ablate("init", "mine", code=2)


@pytest.mark.parametrize("kind", [name for name, kind in TEMPLATES.items() if ".yaml" in kind.files])
def test_every_template_can_be_read_and_says_what_to_type(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("my-study", Path()), ("2nd", Path("studies"))):
        path = template.create(name, folder, template=kind)
        study = spec.read(path)
        assert study.name == name
        assert len(study.factors) >= 1
        assert "{" not in template.then(name, kind, str(path))
        # The code lies where it is looked for: in the folder that ablate runs in.
        code = sorted(file.name for file in Path().glob(f"{template.module(name)}_*.py"))
        assert code == [f"{template.module(name)}{end}" for end in TEMPLATES[kind].files if end != ".yaml"]
        for file in code:
            compile(Path(file).read_text(), file, "exec")


@pytest.mark.parametrize(
    ("kind", "allowed", "epochs"),
    [("function", ("--allow-import", "some_fit"), "epochs=1"), ("command", ("--allow-command",), "epochs=1")],
)
def test_a_template_with_code_runs_as_it_stands(workplace, kind, allowed, epochs):
    workplace.ablate("init", "some", "--template", kind)
    workplace.ablate(
        *("run", "some.yaml", "--seeds", "1", "--executor", "inline", "--quiet", "--set", epochs), *allowed
    )
    runs = workplace.runs("some")
    assert {run.data.tags["ablate.outcome"] for run in runs} == {"finished"}
    assert all(0.5 < run.data.metrics["val/accuracy"] <= 1 for run in runs)


def test_the_template_of_results_is_judged_by_the_command_that_is_named(workplace):
    output = workplace.ablate("init", "table", "--template", "judge")
    [command] = re.findall(r"`ablate (judge .*?)`", output)
    assert "helps" in workplace.ablate(*shlex.split(command))


def test_a_template_that_is_not_there_is_named_with_the_nearest(workplace):
    output = workplace.ablate("init", "mine", "--template", "functon", code=2)
    assert "did you mean 'function'" in output
    assert "leave out --template" in workplace.ablate(
        *("init", "mine", "--template", "width", "--command", "python t.py --lr 1"), code=2
    )
    assert "belongs to --from" in workplace.ablate("init", "mine", "--best", "2", code=2)


@pytest.mark.parametrize(
    ("command", "factor", "levels"),
    [
        ("python t.py --epochs 2 --lr 1.0 --seed 1", "lr", [0.5, 2.0]),
        ("python t.py --epochs 2", "epochs", [1, 4]),
        ("python t.py --amp", "amp", [False]),
        ("python t.py --optimizer adam --compile=False", "compile", ["True"]),
        ("python t.py --optimizer adam", "optimizer", [template.ANOTHER]),
        ("./t optimizer.lr=1e-3 model.width=8 name='a: b' version=1.10", "optimizer.lr", [0.0005, 0.002]),
    ],
)
def test_a_command_line_becomes_a_study_that_can_be_read(command, factor, levels, tmp_path):
    path = template.create("mine", tmp_path / "studies", command)
    study = spec.read(path)
    assert [(f.name, [level[factor] for level in f.levels]) for f in study.factors] == [(factor, levels)]
    assert study.command is not None
    assert "--allow-command" in path.read_text()


def test_a_real_number_is_given_to_the_command_as_one():
    text = template.text_of_command("mine", "python t.py --lr 1.0 --steps 10")
    assert "baseline: {lr: 1.0, steps: 10}" in text


def test_a_command_without_settings_says_what_to_add(tmp_path):
    with pytest.raises(StudyError, match="no setting that a study could change"):
        template.create("mine", tmp_path, "python t.py")
    assert list(tmp_path.iterdir()) == []
