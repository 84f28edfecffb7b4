"""Names of arms, studies, classes, metrics and reasons are text in every format, whatever is in them."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess

import pytest
import report_examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import console
from ablate.comparisons import Comparisons
from ablate.console import SafeConsole
from ablate.errors import AblateError
from ablate.report import export, render
from ablate.report.summary import summarise
from ablate.standing import Standing
from ablate.text import escape_markdown, shown, shown_json, shown_values, visible

SEEN = r"[^\n\t\x20-\x7e\xa0-\U0010ffff]|[\xad\u034f\u061c\u115f\u1160\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\ud800-\udfff]"
"""Characters that may stand in none of our files: controls, and what is not seen or moves what is."""

NAMES = {
    "a title of the terminal": "\x1b]0;owned\x07red\x1b[31m",
    "a line that overwrites another": "helps\r\x1b[2Khurts\b\b",
    "C1 controls": "a\x9b31mb\x85c\x90d\x9c",
    "a sentence turned round": "\u202eshtrap\u202c \u2067rtl\u2069 \u200fx\u200e",
    "marks of no width": "a\u200bb\u2060c\ufeffd\u00ade\u034ff\u200dg\u200ch",
    "blank letters": "\u3164\u115f\u1160\uffa0\u2800",
    "tags": "flag\U000e0067\U000e0062\U000e007f",
    "separators": "one\u2028two\u2029three\x0bfour\x0cfive\x1csix",
    "another line": "x\nFAKE: 9 finished",
    "lines of other systems": "x\r\nFAKE: 9 finished\rFAKE\x85FAKE\u2028FAKE",
    "a formula": '=HYPERLINK("http://x","y")',
    "another formula": "@SUM(1+1)*cmd|' /C calc'!A0",
    "one behind a space": " +1+1",
    "one behind a tab": "\t-2",
    "TeX": r"\input{/etc/passwd}%$#&_{}^~\write18{x}",
    "codes that TeX reads first": "^^7d^^7d^^5cimmediate^^5copenout9=written ^^5cimmediate^^5cwrite9^^7bx^^7d^^^^005c",
    "a formula behind a semicolon": 'a;=cmd|x;"@SUM(1)',
    "a wide formula": "\uff1d1+1",
    "Markdown": "[x](javascript:x) ![y](z) `a` | b | **c** <img> <!-- --> $x$",
    "HTML and scripts": "</script><!--<script>'\"><svg onload=x>${7*7}{{7*7}}%{x}",
    "one long word": "W" * 3000,
    "letters of other scripts": "ä é ñ 中文 עברית العربية नमस्ते 👩\u200d🔬 می\u200cخواهم",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_text_in_every_format(name):
    material = report_examples.hostile(name)
    summary = summarise(material)
    texts = {
        "md": export.markdown(summary),
        "latex": export.latex(summary),
        "csv": export.csv(export.verdicts(material)),
        "json": export.json_text(export.verdicts(material)),
        "html": render.html(summary),
    }
    printed = io.StringIO()
    terminal = SafeConsole(file=printed, width=60)
    terminal.print(
        console.verdicts(material.analysis, name), console.studies([Standing(name, 0.0, name, {})])
    )
    texts["terminal"] = printed.getvalue() + shown(
        f"{Comparisons.of(material)}\n{Comparisons.of(material).markdown()}"
    )
    for kind, text in texts.items():
        assert not re.search(SEEN, text), kind
        assert kind == "html" or not any(line.startswith("FAKE") for line in text.splitlines()), kind
        text.encode()
    assert json.loads(texts["json"])["study"] == name
    rows = list(csv.reader(io.StringIO(texts["csv"])))
    cells = [cell for row in rows for cell in row]
    cells += [part for cell in cells for part in re.split("[;\t]", cell)]
    assert not [cell for cell in cells if re.match(r"[\s\"]*([=+@\uff1d]|-(?![\d.]))", cell)]
    assert len({len(row) for row in rows}) == 1
    tex = "\n".join(line for line in texts["latex"].splitlines() if not line.startswith("% "))
    assert r"\input{" not in tex
    assert r"\write18" not in tex
    assert "^^" not in tex
    assert not re.search(r"\\[uUx][0-9a-f]", tex)


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="there is no TeX")
def test_tex_itself_reads_every_name_as_text(tmp_path):
    for number, name in enumerate(NAMES.values()):
        if name.isascii():
            text = export.latex(summarise(report_examples.hostile(name)))
            (tmp_path / f"{number}.tex").write_text(text)
    inputs = "\n".join(f"\\input{{{path.stem}}}" for path in sorted(tmp_path.glob("*.tex")))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{textcomp,booktabs,amssymb}"
        f"\\begin{{document}}{inputs}\\end{{document}}"
    )
    before = {path.name for path in tmp_path.iterdir()}
    said = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, [line for line in said.stdout.splitlines() if line.startswith("!")]
    assert {path.name for path in tmp_path.iterdir()} - before == {"all.aux", "all.log", "all.pdf"}


def test_what_is_shown_of_a_name_says_what_it_holds():
    assert visible("a\x1b[31m\u202eb\r\n\x9b") == r"a\x1b[31m\u202eb\r\n\x9b"
    assert shown("one\n\ttwo\x07") == "one\n\ttwo\\x07"
    assert visible(NAMES["letters of other scripts"]) == NAMES["letters of other scripts"]
    assert visible("a\ud800b\udcffc") == r"a\ud800b\xffc"
    assert visible("a\u200db") == r"a\u200db"
    assert shown_values({"a\x1b": ["\u202e", 1.5, None, {"x": ("\x07",)}]}) == {
        r"a\x1b": [r"\u202e", 1.5, None, {"x": [r"\x07"]}]
    }


@settings(max_examples=200)
@given(st.text(st.characters(), max_size=30))
def test_no_text_leaves_anything_unseen(text):
    assert not re.search(SEEN, shown(text))
    assert shown(shown(text)) == shown(text)
    assert "\n" not in visible(text)
    assert len(AblateError(text, place=text).sentence.splitlines()) <= 1
    assert not re.search(SEEN, escape_markdown(shown(text)))


@settings(max_examples=200)
@given(st.recursive(st.text(st.characters(exclude_categories=["Cs"])), st.lists, max_leaves=5))
def test_json_reads_as_it_did(value):
    text = shown_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert not re.search(SEEN, text)
