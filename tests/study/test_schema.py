"""The JSON Schema of study files: it accepts what the reader accepts, and its files in the repository are fresh."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import yaml

from ablate.errors import StudyError
from ablate.study import document, pages, schema, spec, template
from ablate.study.keys import KEYS

ROOT = Path(__file__).parent.parent.parent
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    (page.name, block)
    for page in PAGES
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    if re.search(r"^study:", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def complaints():
    """Where a study's text breaks the schema: dotted paths."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: `make install` does")
    validator = jsonschema.Draft202012Validator(schema.schema())
    validator.check_schema(validator.schema)

    def found(text: str) -> list[str]:
        errors = validator.iter_errors(document.load(text, "study").values)
        return [".".join(map(str, error.absolute_path)) for error in errors]

    return found


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_keeps_to_the_schema_and_says_where_it_is(path, complaints):
    first, rest = path.read_text().split("\n", 1)
    assert first == template.HEADER
    assert (path.parent / first.partition("$schema=")[2]).is_file()
    assert complaints(rest) == []


def test_every_study_in_the_documentation_can_be_read_and_keeps_to_the_schema(complaints):
    assert EXAMPLES
    for page, text in EXAMPLES:
        spec.parse(text, source=page)
        assert complaints(text) == [], page


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("margin: 0.02", "margn: 0.02"), ""),
        (("margin: 0.02", "margin: 0"), "margin"),
        (("metric: val/accuracy", "metric: test/accuracy"), "metric"),
        (("batch_size: 64", "bath_size: 64"), "baseline.training"),
        (("lr: 0.1", "lr: true"), "baseline.optimizer"),
        (("name: cnn", "name: resnet"), "baseline.model"),
        (("one-at-a-time", "all-at-once"), "design"),
        (("[8, 32]", "8"), "factors.model.width"),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses_at_the_same_place(change, where, complaints):
    text = (ROOT / "studies" / "quickstart.yaml").read_text()
    wrong = text.replace(*change)
    assert wrong != text
    with pytest.raises(StudyError):
        spec.parse(wrong)
    assert any(place.startswith(where) for place in complaints(wrong))


def test_a_study_with_training_of_its_own_may_have_any_baseline(complaints):
    text = "study: own\nmargin: 1\ntrain: mine:fit\nmetric: val/rmse\nbaseline: {a: 1}\nfactors: {a: [2]}\n"
    assert complaints(text) == []
    assert complaints(text.replace("train: mine:fit\n", "")) != []


def test_ranges_and_searches_are_described_to_their_ends(complaints):
    study = (
        "study: s\nmargin: 0.1\nbaseline: {data: {name: digits}, model: {name: cnn}}\n"
        "factors: {model.width: [32]}\nnuisance: {optimizer.lr: {log: [1e-5, 1], trials: 9}}\n"
    )
    assert complaints(study) == []
    for wrong in ("{log: [0, 1]}", "{log: [1e-5]}", "{log: [1e-5, 1], range: [0, 1]}", "{trials: 9}", "0.1"):
        assert complaints(study.replace("{log: [1e-5, 1], trials: 9}", wrong)), wrong
    for wrong in ("{sampler: best}", "{pruner: hyper}", "{trial: 9}", "{candidates: 0}"):
        assert complaints(f"{study}search: {wrong}\n"), wrong
    made = schema.schema()
    inside = [
        *made["properties"]["search"]["properties"].values(),
        *made["$defs"]["Range"]["properties"].values(),
    ]
    assert all(len(about["description"]) > 15 for about in inside)
    # What an editor offers under `nuisance:`, and what it must not: data are never tuned.
    assert {"optimizer.lr", "training.batch_size"} < set(made["properties"]["nuisance"]["properties"])
    assert not any(path.startswith("data") for path in made["properties"]["nuisance"]["properties"])


def test_every_key_and_every_path_has_words():
    keys = schema.schema()["properties"]
    assert set(keys) == set(KEYS)
    assert [name for name, form in keys.items() if len(form["description"]) < 15] == []
    unexplained = [path for path, words in schema.paths().items() if not words and not path.endswith(".name")]
    assert unexplained == []


def test_the_files_made_from_the_fields_are_fresh():
    """`ablate schema -o studies/study.schema.json` and `ablate schema --markdown -o docs` make them."""
    assert json.loads((ROOT / "studies" / template.SCHEMA_FILE).read_text()) == schema.schema()
    written = pages.pages()
    assert {name: (ROOT / "docs" / name).read_text() for name in written} == written
    assert {f"fields/{file.name}" for file in (ROOT / "docs" / "fields").iterdir()} | {"fields.md"} == set(
        written
    )


def test_the_pages_of_fields_lead_only_to_sections_that_are_there():
    made = pages.pages()
    sections = {
        name: {re.sub(r"[^\w]", "", heading) for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)}
        for name, text in {**made, "recipe.md": (ROOT / "docs" / "recipe.md").read_text()}.items()
    }
    links = [
        (os.path.normpath(Path(name).parent / page), anchor)
        for name, text in made.items()
        for page, anchor in re.findall(r"\(([\w./]+\.md)#(\w+)\)", text)
    ]
    assert len(links) > 80
    assert [link for link in links if link[1] not in sections[link[0]]] == []


@pytest.mark.parametrize("form", list(pages.fields()), ids=lambda form: f"{form.path}:{'-'.join(form.kinds)}")
def test_the_example_of_a_field_makes_arms(form):
    made = pages.example(form)
    if made is None:
        assert form.path in ("data.root", "data.image", "data.label", "training.save_model")
        return
    baseline, arms = made
    assert len({baseline, *arms}) == len(arms) + 1


def test_the_example_of_every_key_can_stand_in_a_study(complaints):
    """By the schema; what a key needs beside it the reader says."""
    for name, key in KEYS.items():
        assert name in yaml.safe_load(key.example)
        assert [place for place in complaints(key.example) if place.startswith(name)] == []
