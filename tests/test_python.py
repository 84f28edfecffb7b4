"""What is public from Python: the names, what they load, and the page that shows them, executed."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ablate

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/python.md"


def test_the_page_shows_what_happens(workplace):
    (workplace.root / "optimizers.csv").write_bytes((ROOT / "docs/examples/optimizers.csv").read_bytes())
    blocks = PAGE.read_text(encoding="utf-8").split("```pycon\n")[1:]
    session = "\n".join(block.partition("```")[0] for block in blocks)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    test = doctest.DocTestParser().get_doctest(session, {}, "docs/python.md", str(PAGE), 0)
    assert len(test.examples) > 15
    said: list[str] = []
    doctest.DocTestRunner(optionflags=options).run(test, out=said.append)
    assert said == [], "".join(said)


def test_the_public_names_are_these():
    assert ablate.__all__ == ["AblateError", "ArmVerdict", "Comparisons", "compare", "load", "run"]
    assert set(ablate.__all__) <= set(dir(ablate))
    assert [getattr(ablate, name).__name__ for name in ablate.__all__] == ablate.__all__
    with pytest.raises(AttributeError, match="no attribute 'compair'"):
        _ = ablate.compair


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_ablate_loads_the_standard_library_alone():
    """The names of what is loaded do not depend on how fast the machine is."""
    more = loaded_by("import ablate") - loaded_by("import __future__, typing")
    assert {name for name in more if name.partition(".")[0] not in sys.stdlib_module_names} == {"ablate"}


def test_comparing_loads_no_framework():
    program = (
        "import ablate, pandas as pd\n"
        "frame = pd.DataFrame({'arm': ['baseline'] * 3 + ['b'] * 3, 'loss': [1, 2, 3, 4, 5, 7]})\n"
        "judged = ablate.compare(frame, metric='loss', margin=1, paired=False)\n"
        "judged._repr_html_(), judged.page(), judged.markdown(), judged.latex()"
    )
    packages = {name.partition(".")[0] for name in loaded_by(program)}
    assert packages & {"torch", "mlflow", "optuna", "plotly", "pydantic", "sklearn", "yaml", "rich"} == set()


WRONG = {
    "no study": (7, "a int is no study"),
    "no such file": ("nothing.yaml", "nothing.yaml"),
    "an object": ({"study": object()}, "holds what a study file cannot"),
    "an unknown key": ({"study": "a", "fctors": {}}, "did you mean 'factors'"),
}


@pytest.mark.parametrize(("study", "message"), WRONG.values(), ids=WRONG)
def test_a_study_that_is_none_is_refused_in_a_sentence(workplace, study, message):
    with pytest.raises(ablate.AblateError, match=message):
        ablate.run(study)


@pytest.mark.parametrize("seeds", [0, -1, 3.5, "3", True, [3]])
def test_a_number_of_seeds_that_is_none_is_refused_in_a_sentence(workplace, seeds):
    with pytest.raises(ablate.AblateError, match="is no number of seeds"):
        ablate.run("toy.yaml", seeds=seeds)


def test_changes_that_are_no_mapping_are_refused_in_a_sentence(workplace):
    with pytest.raises(ablate.AblateError, match="a list is no mapping of paths to values"):
        ablate.run("toy.yaml", sets=["training.epochs=2"])


def test_a_dict_may_hold_numbers_of_numpy_and_tuples(workplace):
    from ablate.from_python import _yaml

    text = _yaml({"margin": np.float64(0.5), "seeds": (np.int64(3), 5), "data": {"root": Path("x")}})
    assert text == "margin: 0.5\nseeds:\n- 3\n- 5\ndata:\n  root: x\n"


def test_a_study_that_ran_is_a_sequence_with_all_its_forms(workplace):
    workplace.trained()
    judged = ablate.load("toy")
    assert [c.arm for c in judged] == ["gain=0.2", "gain=0.001"]
    assert judged.paired
    assert judged.html(workplace.root / "deep" / "page.html").exists()
    assert '<section id="runs">' in judged.page()
    assert judged.to_json()["study"] == "toy"
    assert "\\begin{tabular}" in judged.latex()
    assert judged.markdown().startswith(judged.headline)
    assert judged._repr_html_().count("<svg") == 2
    file = workplace.study()
    assert [c.ci for c in ablate.load(file)] == [c.ci for c in judged]
    with pytest.raises(ablate.AblateError, match="no plan"):
        ablate.load("toy", plan="ffff")


def test_effects_of_a_factorial_study_are_its_sequence(workplace):
    workplace.trained(factors="{gain: [0.2], width: [16]}", more="design: factorial\n")
    judged = ablate.load("toy")
    assert len(judged) == 3
    assert judged[2].arm == "gain=0.2 × width=16"
    assert judged.frame()["n"].tolist() == [3, 3, 3]
    assert "no attribute" not in judged._repr_html_()
