import csv
import io
import json
import shutil
import subprocess

import pytest
import report_examples
from report_examples import ATTACK

from ablate.analysis import to_json
from ablate.report import export
from ablate.report.summary import summarise
from ablate.text import escape_markdown


def test_json_is_the_contract_and_nothing_else(material):
    assert json.loads(export.json_text(export.verdicts(material))) == to_json(
        material.analysis, "width-and-friends"
    )


def test_json_has_no_nan():
    text = export.json_text(export.verdicts(report_examples.not_started()))
    assert "NaN" not in text
    assert json.loads(text)["arms"][0]["ci"] is None


def test_csv_has_a_line_per_arm_with_unrounded_numbers(material):
    rows = list(csv.DictReader(io.StringIO(export.csv(export.verdicts(material)))))
    comparison = material.analysis.comparison("model.width=128")
    row = next(row for row in rows if row["arm"] == "model.width=128")
    assert len(rows) == len(material.analysis.comparisons)
    assert float(row["effect"]) == comparison.effect
    assert (float(row["ci_lo"]), float(row["ci_hi"])) == (comparison.lo, comparison.hi)
    assert row["clearly"] == "true"


def test_csv_of_a_factorial_study_has_a_line_per_effect():
    rows = list(csv.DictReader(io.StringIO(export.csv(export.verdicts(report_examples.factorial())))))
    assert [row["terms"] for row in rows] == [
        "model.width=128",
        "augment.flip=false",
        "model.width=128 augment.flip=false",
    ]


def test_markdown_has_the_verdicts_and_a_whole_table(summary):
    text = export.markdown(summary)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert "**What worked**" in text
    assert "> **Provisional.**" in text
    assert len(table) == 2 + len(summary.rows)
    assert len({line.count("|") for line in table}) == 1


def test_names_cannot_break_out_of_markdown():
    text = export.markdown(summarise(report_examples.hostile()))
    assert "<script" not in text
    assert "<img" not in text
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_a_bar_in_a_name_stays_in_its_cell():
    assert escape_markdown("a|b *c* [d](e)") == r"a\|b \*c\* \[d\](e)"


def test_latex_has_a_line_per_arm_between_its_rules(summary):
    text = export.latex(summary)
    body = text.split("\\midrule")[2].split("\\bottomrule")[0].strip().splitlines()
    assert len(body) == 8
    assert {line.count(" & ") for line in body} == {6}
    assert text.count("\\mathbf") == 1
    assert "Width 256 & $\\mathbf{" in text
    assert "Bold: the arm that helps most." in text


def test_latex_ticks_off_components():
    text, note = export.latex(summarise(report_examples.leave_one_out())).split("\\bottomrule")
    assert "Bold: no arm helps, so it is the reference." in note
    assert "$\\checkmark$: there" in note
    assert "Flip & Dropout & Batch norm" in text
    assert text.count("$\\times$ &") == 3
    assert text.count("$\\checkmark$") == 9


def test_names_cannot_break_out_of_latex():
    assert export._tex(r"a_b & \input{x} 50% #1 ~^ $y$") == (
        r"a\_b \& \textbackslash{}input\{x\} 50\% \#1 \textasciitilde{}\textasciicircum{} \$y\$"
    )
    text = export.latex(summarise(report_examples.hostile()))
    assert ATTACK not in "\n".join(line for line in text.splitlines() if not line.startswith("%"))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed (no pdflatex)")
@pytest.mark.parametrize("name", ["material", "leave_one_out", "factorial", "hostile"])
def test_latex_compiles(name, tmp_path):
    table = export.latex(summarise(getattr(report_examples, name)()))
    text = (
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,amssymb}\\begin{document}\n"
    )
    (tmp_path / "table.tex").write_text(f"{text}{table}\\end{{document}}\n")
    subprocess.run(
        ["pdflatex", "-halt-on-error", "table.tex"], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    assert (tmp_path / "table.pdf").exists()
    if name == "material":
        assert "Overfull" not in (tmp_path / "table.log").read_text(), "it stays between the margins"
