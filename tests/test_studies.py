"""Every shipped study can be read and planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from ablate.analysis.plan import rules
from ablate.data.facts import DataFacts
from ablate.study import design, spec

STUDIES = sorted((Path(__file__).parent.parent / "studies").rglob("*.yaml"))


def test_the_studies_that_the_readme_speaks_of_are_there():
    names = {path.stem for path in STUDIES}
    assert names >= {"quickstart", "width", "depth", "learning_rate", "dropout", "augmentation", "recipe"}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_named_after_its_file_asks_a_question_and_makes_a_plan(path):
    study = spec.read(path)
    assert study.name == path.stem
    assert study.question.endswith((".", "?"))
    made = design.plan(study, lambda config: DataFacts(fingerprint=str(config.get("data.name"))))
    assert len(made.arms) > 1 or study.space
    for arm in made.arms[1:]:
        assert arm.config != made.arms[0].config


def test_the_screening_study_holds_ten_factors_in_sixteen_cells_apart_from_each_other():
    study = spec.read(next(path for path in STUDIES if path.stem == "screening"))
    made = design.plan(study, lambda _: DataFacts(fingerprint="images"))
    assert (len(study.factors), len(made.arms)) == (10, 16)
    family = rules(made.record()).contrasts
    assert [len(c.terms) for c in family] == [1] * 10 + [2] * 5


def test_the_learning_rate_study_starts_at_a_hundred_thousandth_and_goes_up_to_one():
    study = spec.read(next(path for path in STUDIES if path.stem == "learning_rate"))
    levels = [level["optimizer.lr"] for level in study.factors[0].levels]
    assert levels == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]
