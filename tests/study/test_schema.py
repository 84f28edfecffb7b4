"""The JSON Schema of study files: it accepts what the reader accepts, and its files in the repository are fresh."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
from pathlib import Path

import pytest
import yaml
from mutations import mutated_tree

from ablate.errors import StudyError
from ablate.study import document, pages, schema, spec, template
from ablate.study.keys import KEYS

ROOT = Path(__file__).parent.parent.parent
STUDIES = sorted((ROOT / "studies").rglob("*.yaml"))
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
    assert first.replace("../", "./") == template.HEADER
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
    ranges = made["$defs"]["space"]["properties"]
    inside = [
        *made["properties"]["search"]["properties"].values(),
        *(
            form
            for name, ranges in made["$defs"].items()
            if name.startswith("Range-")
            for kind in ranges["anyOf"]
            for form in kind["properties"].values()
        ),
        *ranges.values(),
    ]
    assert all(len(about["description"]) > 10 for about in inside)
    # What an editor offers under `nuisance:`, and what it must not: data are never tuned.
    assert {"optimizer.lr", "training.batch_size"} < set(ranges)
    assert not any(path.startswith("data") for path in ranges)


SPACE = """
study: s
margin: 0.1
baseline: {data: {name: digits}, model: {name: cnn}}
"""


@pytest.mark.parametrize(
    ("factors", "where"),
    [
        ("{model.widht: [32]}", ""),
        ("{width: [32]}", "width"),
        ("{optimizer.learning_rate: [0.1]}", ""),
        ("{model.dropout: [2]}", "model.dropout.0"),
        ("{model.dropout: [-0.1]}", "model.dropout.0"),
        ("{model.dropout: [0.1, one]}", "model.dropout.1"),
        ("{model.dropout: 0.1}", "model.dropout"),
        ("{model.dropout: []}", "model.dropout"),
        ("{model.width: [16.5]}", "model.width.0"),
        ("{model.width: [true]}", "model.width.0"),
        ("{model.batch_norm: [1]}", "model.batch_norm.0"),
        ("{model.batch_norm: ['true']}", "model.batch_norm.0"),
        ("{model.activation: [relu6]}", "model.activation.0"),
        ("{model.name: [resnet]}", "model.name.0"),
        ("{model: [cnn]}", "model"),
        ("{model: [{name: cnn, widht: 3}]}", "model"),
        ("{model: [{name: cnn, width: -3}]}", "model"),
        ("{optimizer.name: [adma]}", "optimizer.name.0"),
        ("{optimizer: [{name: adam, momentum: 0.9}]}", "optimizer"),
        ("{optimizer.lr: [0]}", "optimizer.lr.0"),
        ("{optimizer.lr: [null]}", "optimizer.lr.0"),
        ("{optimizer.momentum: [1.5]}", "optimizer.momentum.0"),
        ("{training.epochs: [0]}", "training.epochs.0"),
        ("{training.patience: [0]}", "training.patience.0"),
        ("{training.save_model: [best]}", ""),
        ("{training.loss: [softmax]}", "training.loss.0"),
        ("{schedule.name: [linear]}", "schedule.name.0"),
        ("{schedule.milestones: [[0.5, 1.5]]}", "schedule.milestones"),
        ("{augment.crop: [-1]}", "augment.crop.0"),
        ("{augment: [{flip: 1}]}", "augment"),
        ("{data.validation: [1.5]}", "data.validation.0"),
        ("{seed: [1]}", "seed"),
        ("{both: {zip: {model.widht: [8], model.dropout: [0.1]}}}", "both"),
        ("{both: {zip: {model.width: [8], model.dropout: [2]}}}", "both.zip.model.dropout.0"),
        ("{both: {zip: {}}}", "both.zip"),
        ("{both: {zap: {model.width: [8]}}}", "both"),
        ("{model.width: {zip: {model.width: [8]}}}", "model.width"),
        ("{model.width: {int: [8, 64]}}", "model.width"),
        ("{model.width: [8]}\nnuisance: {optimizer.lr: {log: [0, 1]}}", ""),
        ("{model.width: [8]}\nnuisance: {optimizer.lrr: {log: [1e-5, 1]}}", ""),
        ("{model.width: [8]}\nnuisance: {model.dropout: {range: [0, 2]}}", ""),
        ("{model.dropout: [0.1]}\nnuisance: {model.width: {log: [8, 64]}}", ""),
        ("{model.dropout: [0.1]}\nnuisance: {model.activation: {range: [0, 1]}}", ""),
        ("{model.dropout: [0.1]}\nnuisance: {model.activation: [relu, relu6]}", ""),
        ("{model.dropout: [0.1]}\nnuisance: {data.validation: {range: [0.1, 0.2]}}", ""),
        ("{model.width: [8]}\ndesign: search", ""),
        ("{model.width: {int: [8, 64.5]}}\ndesign: search", ""),
        ("{model.widht: {int: [8, 64]}}\ndesign: search", ""),
        ("{model: [{name: cnn}, {name: cnn, depht: {int: [1, 3]}}]}\ndesign: search", ""),
        ("{model: [{name: cnn}, {name: cnn, depth: {int: [0, 3]}}]}\ndesign: search", "model"),
        ("{model: [{name: cnn}, {name: cnn, depth: {log: [1, 3]}}]}\ndesign: search", "model"),
        ("{model: [{name: cnn}, {name: cnn, dropout: {range: [0, 1]}}]}\ndesign: search", "model"),
        ("{optimizer: [{name: adam}, {name: sgd, lr: {range: [0, 1]}}]}\ndesign: search", "optimizer"),
        (
            "{optimizer: [{name: adam}, {name: sgd, momentum: {range: [0.5, 1]}}]}\ndesign: search",
            "optimizer",
        ),
        (
            "{model.width: [8]}\nnuisance: {schedule: [{name: constant}, {name: step, gamma: {log: [0.1, 2]}}]}",
            "",
        ),
        ("{data.validation: [0.1, 0.2]}\ndesign: search", ""),
    ],
)
def test_mistakes_in_factors_and_levels_are_refused_by_the_schema_and_the_reader(factors, where, complaints):
    text = f"{SPACE}factors: {factors}\n"
    with pytest.raises(StudyError):
        spec.parse(text)
    assert any(place.startswith(f"factors.{where}" if where else "") for place in complaints(text))


@pytest.mark.parametrize(
    "factors",
    [
        "{optimizer: {zip: {optimizer.name: [adam], optimizer.lr: [0.002]}}}",
        "{optimizer: [{name: adam, lr: 0.002}]}",
        "{augment: [{flip: true}]}",
        "{training.patience: [3], training.max_grad_norm: [1, 5.0]}",
        "{schedule: [{name: step, milestones: [0.5]}, {name: constant}]}",
        "{schedule.name: [constant], optimizer.weight_decay: [5.0e-4]}",
        "{model: [{name: small_cnn, channels: [8, 16]}], model.name: [what_worked]}",
        "{data.subset: [200], data.split: [per-seed], data.validation: [0.2]}",
        "{model: [{name: cnn, depth: {int: [1, 3]}}, {name: small_cnn}]}\ndesign: search",
        "{model: [{name: cnn, dropout: {range: [0, 0.9]}}, {name: small_cnn}]}\ndesign: search",
        "{optimizer: [{name: sgd, lr: {log: [1e-5, 100]}, momentum: {range: [0, 0.99]}}, {name: adam}]}\ndesign: search",
        "{model.width: {int: [8, 64]}, model.activation: [relu, gelu], optimizer.lr: {log: [1e-3, 1]}}\ndesign: search",
        "{model.width: [8]}\nnuisance: {model.dropout: {range: [0, 0.5], trials: 5}, training.loss: [focal, cross-entropy]}",
    ],
)
def test_changes_that_the_reader_accepts_keep_to_the_schema(factors, complaints):
    text = f"{SPACE}factors: {factors}\n"
    spec.parse(text)
    assert complaints(text) == []


def test_arguments_of_a_network_of_the_users_may_have_any_levels(complaints):
    text = (
        "study: s\nmargin: 0.1\nbaseline: {data: {name: digits}, model: {name: import, target: 'nets:build', "
        "args: {width: 8, shape: [1, 2]}}}\nfactors: {model.args.width: [16], model.args.shape: [[3]], "
        "w: {zip: {model.args.width: [4]}}}\n"
    )
    assert complaints(text) == []


def test_every_key_and_every_path_has_words():
    keys = schema.schema()["properties"]
    assert set(keys) == set(KEYS)
    assert [name for name, form in keys.items() if len(form["description"]) < 15] == []
    unexplained = [path for path, words in schema.paths().items() if not words and not path.endswith(".name")]
    assert unexplained == []


@pytest.fixture(scope="module")
def written():
    """The pages of all fields: making them takes a second."""
    return pages.pages()


def test_the_files_made_from_the_fields_are_fresh(written):
    """`ablate schema -o studies/study.schema.json` and `ablate schema --markdown -o docs` make them."""
    assert json.loads((ROOT / "studies" / template.SCHEMA_FILE).read_text()) == schema.schema()
    assert {name: (ROOT / "docs" / name).read_text() for name in written} == written
    assert {f"fields/{file.name}" for file in (ROOT / "docs" / "fields").iterdir()} | {"fields.md"} == set(
        written
    )


def test_a_table_on_the_pages_of_fields_has_no_empty_values_and_no_entities_in_code(written):
    rows = [line for text in written.values() for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 200
    assert [row for row in rows if re.search(r"\b(of|or|from|to|above|below|most)\s+[|,]|\|\s+\|", row)] == []
    assert [code for row in rows for code in row.split("`")[1::2] if re.search(r"&\w+;", code)] == []


def test_the_pages_of_fields_lead_only_to_sections_that_are_there(written):
    sections = {
        name: {re.sub(r"[^\w]", "", heading) for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)}
        for name, text in {**written, "recipe.md": (ROOT / "docs" / "recipe.md").read_text()}.items()
    }
    links = [
        (os.path.normpath(Path(name).parent / page), anchor)
        for name, text in written.items()
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


def test_what_the_reader_accepts_of_changed_studies_keeps_to_the_schema(complaints):
    """Studies changed at random, of which the reader accepts about one in ten."""
    rng = random.Random(20)
    texts = [path.read_text() for path in STUDIES]
    accepted = 0
    for _ in range(400):  # which of them are accepted changes with every study that is added
        tree = mutated_tree(document.load(rng.choice(texts), "study").values, rng)
        text = yaml.safe_dump(tree, allow_unicode=True)
        with contextlib.suppress(StudyError):
            spec.parse(text)
            accepted += 1
            assert complaints(text) == [], text
        if accepted == 6:
            return
    pytest.fail(f"{accepted} accepted")
