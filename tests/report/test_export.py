import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import report_examples
from report_examples import ATTACK

import ablate
from ablate.analysis import to_json
from ablate.report import export
from ablate.report.summary import summarise
from ablate.text import escape_markdown


def test_json_is_the_contract_with_the_value_of_every_run(material):
    content = json.loads(export.json_text(export.verdicts(material)))
    values = {row["arm"]: row.pop("values") for row in (content["baseline"], *content["arms"])}
    assert content == to_json(material.analysis, "width-and-friends")
    for row in (content["baseline"], *content["arms"]):
        own = list(values[row["arm"]].values())
        assert len(own) == row.get("n")
        assert np.isclose(np.mean(own), row["mean"])
        assert np.isclose(np.std(own, ddof=1), row["sd"])


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


LOSS = pd.DataFrame(
    [
        (arm, seed, 0.6 + gain + 0.01 * (seed * 7 % 5) + 0.001 * ((seed + i) * 3 % 4))
        for i, (arm, gain) in enumerate({"base": 0.0, "better": -0.05, "worse": 0.04}.items())
        for seed in range(5)
    ],
    columns=["arm", "seed", "val/loss"],
)


def judged(frame: pd.DataFrame = LOSS, **options):
    given = {"metric": "val/loss", "margin": 0.005, "baseline": "base"} | options
    return ablate.compare(frame, **given)


def test_the_sign_of_an_effect_beside_a_loss_is_explained_where_it_stands():
    """A mean that falls is better, and its effect has a plus sign."""
    found = judged()
    assert [c.verdict for c in found] == ["helps", "hurts"]
    for text in (found.latex(), export.markdown(summarise(found.material)), found.page()):
        assert "effects are turned, so that positive is better" in text
    assert "val/loss $\\downarrow$" in found.latex()
    assert re.search(r"better & .*\+0\.\d+\$ & \$\[\+0", found.latex())
    upwards = judged(LOSS.rename(columns={"val/loss": "score"}), metric="score", direction="maximize")
    assert "are turned" not in upwards.latex() + upwards.page()
    assert "score $\\uparrow$" in upwards.latex()


def test_the_paragraph_for_a_paper_answers_the_checklists(summary):
    """What varies, what the bars are, how they are computed, n, what is assumed, compute (NeurIPS, items 7 and 8)."""
    study = summary.for_paper
    for words in (
        "differ in their seed, which fixes initial weights, order of batches, augmentation and dropout",
        "simultaneous 95 % confidence intervals of the mean difference",
        "mean ± t(1 − α/2k, ν)·s/√n",
        "seeds)",
        "k = 8 comparisons by Bonferroni",
        "assume that runs are independent",
        "one standard deviation over seeds",
        "Compute: ",
        "of device time in all",
    ):
        assert words in study
    unpaired = summarise(judged(paired=False).material).for_paper
    assert "Banerjee 1961" in unpaired
    assert "n = 5 runs of an arm, 5 of the baseline" in unpaired
    assert "The compute is not recorded" in unpaired
    tasks = pd.concat([LOSS.assign(task=f"t{i}") for i in range(6)])
    assert "over n = 6 blocks" in summarise(judged(tasks, block="task").material).for_paper
    assert summarise(report_examples.searched()).for_paper == ""


@pytest.mark.parametrize("how", [{}, {"paired": False}], ids=["paired", "not paired"])
@pytest.mark.parametrize("arms", [2, 3, 4, 5, 6])
def test_the_paragraph_for_a_paper_says_noise_is_moderated_where_it_is(arms, how):
    rows = [
        (f"a{i}" if i else "base", seed, 0.6 + 0.01 * ((seed * 7 + i * i) % 5) + 0.0013 * ((seed + i) % 3))
        for i in range(arms + 1)
        for seed in range(5)
    ]
    found = judged(pd.DataFrame(rows, columns=["arm", "seed", "val/loss"]), **how)
    # Five differences, or five groups with the baseline among them.
    borrows = arms >= 5 if not how else arms >= 4
    text = summarise(found.material).for_paper
    assert ("moderated by the typical one" in text) is borrows
    assert "as shares of" not in text


@pytest.mark.parametrize("how", [{}, {"paired": False}], ids=["paired", "not paired"])
def test_the_paragraph_for_a_paper_says_that_effects_are_shares(how):
    text = summarise(judged(relative=True, margin=0.01, **how).material).for_paper
    assert "as shares of the mean of the baseline, whose own error is included" in text


# --- LaTeX ------------------------------------------------------------------------------------------------------------

HEAD = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs,amssymb}\\begin{document}\n"
needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="LaTeX is not installed (no pdflatex)"
)


def typeset(text: str, folder, name: str = "table") -> subprocess.CompletedProcess:
    (folder / f"{name}.tex").write_text(f"{HEAD}{text}\\end{{document}}\n")
    return subprocess.run(
        ["pdflatex", "-halt-on-error", f"{name}.tex"],
        check=False,
        cwd=folder,
        capture_output=True,
        timeout=60,
    )


@needs_latex
@pytest.mark.parametrize("name", ["material", "leave_one_out", "factorial", "hostile"])
def test_latex_compiles(name, tmp_path):
    table = export.latex(summarise(getattr(report_examples, name)()))
    done = typeset(f"{table}\n\\ablatemethods\n", tmp_path)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "table.pdf").exists()
    if name == "material":
        log = (tmp_path / "table.log").read_text(errors="replace")
        assert "Overfull" not in log, "it stays between the margins"


NAMES = ["width=128", "model.weight_decay=0.1", "a & b", "50% data", "x#1", "$y$", "a^b~c", "{curly}", "back\\slash", '<3>|"q"', "größe"]  # fmt: skip


@needs_latex
def test_a_macro_finds_each_number_whatever_the_arm_is_called(tmp_path):
    """Each macro is written to the log as text, in a caption and in a table too, and is the number of the table."""
    rows = [("base", seed, 0.6 + 0.001 * (seed * 3 % 4)) for seed in range(5)]
    rows += [
        (arm, seed, 0.6 + 0.01 * i + 0.001 * ((seed + i) * 5 % 7))
        for i, arm in enumerate(NAMES, start=1)
        for seed in range(5)
    ]
    found = judged(pd.DataFrame(rows, columns=["arm", "seed", "val/loss"]), margin=0.004)
    table = found.latex()
    lines = []
    for name in NAMES:
        for spelled in export.macro_names(name):
            lines += [
                f"\\immediate\\write-1{{<{what}: \\ablate{{{spelled}}}{{{what}}}>}}"
                for what in ("n", "effect", "interval")
            ]
            lines += [f"\\begin{{tabular}}{{l}}\\ablate{{{spelled}}}{{verdict}}\\end{{tabular}}"]
            lines += [
                f"\\begin{{table}}\\caption{{\\ablate{{{spelled}}}{{effect}}}}\\end{{table}}\\clearpage"
            ]
    done = typeset(table + "\n" + "\n".join(lines), tmp_path)
    log = (tmp_path / "table.log").read_text(errors="replace").replace("\n", "")
    assert done.returncode == 0, log[-2000:]
    shown = re.findall(r"<effect: .*?>", log)
    written = re.findall(r"\\ablateset\{.*\}\{effect\}\{\\ensuremath\{(.*)\}\}", table)
    assert len(shown) == len(written) == sum(len(export.macro_names(name)) for name in NAMES)
    assert all(number in text for number, text in zip(written, shown, strict=True))
    wrong = typeset(table + "\n\\ablate{widht=128}{effect}", tmp_path, "wrong")
    assert wrong.returncode != 0
    assert b"there is no effect of widht=128" in wrong.stdout
