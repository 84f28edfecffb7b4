"""A report as text: JSON for scripts, Markdown for a pull request, LaTeX for a paper, CSV for a spreadsheet."""

from __future__ import annotations

import csv as table
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ablate.analysis import blocks_to_json, to_json, tuning
from ablate.report import palette, wording
from ablate.report.contents import Row, Summary
from ablate.report.reading import Material
from ablate.text import escape_markdown, measured, shown, shown_json, visible

MOST_VALUES = 10_000
"""Runs up to which the JSON holds each one's value."""


def verdicts(material: Material) -> dict[str, Any]:
    """Return a study's verdicts as plain values, by the documented contract: in the metric's own units, nothing rounded."""
    record, analysis = material.record, material.analysis
    blocked = material.blocked
    content = to_json(analysis, record.study) if blocked is None else blocks_to_json(blocked, record.study)
    if record.data_notes:
        content["data_notes"] = list(record.data_notes)
    if material.damaged:
        content["damaged"] = list(material.damaged)
    if blocked is None:
        _add_values(content, material)
    if record.judged is not None:
        gain = content["pairing"]
        baselines = (
            [analysis.baseline] if blocked is None else [within.baseline for _, within in blocked.within]
        )
        content |= {
            "paired": bool(record.judged.options["paired"]),
            "n_baseline": sum(baseline.n for baseline in baselines),
            "correlation": None if gain is None else gain["correlation"],
            "notes": list(material.notes),
        }
        return content
    tuned = tuning.tuning(material.record, material.analysis, material.replicates)
    if tuned is not None:
        content["tuning"] = tuning.to_json(tuned)
    return content


def _add_values(content: dict[str, Any], material: Material) -> None:
    """Add each arm's own results: seed → the metric as it was recorded, of its finished runs."""
    frame = material.replicates
    if len(frame) > MOST_VALUES:
        return
    finished = frame[(frame["phase"] == "report") & (frame["outcome"] == "finished")]
    values: dict[str, dict[str, float]] = {}
    for arm, seed, value in zip(finished["arm"], finished["seed"], finished["value"], strict=True):
        if math.isfinite(value):
            values.setdefault(str(arm), {})[str(int(seed))] = float(value)
    for row in (content["baseline"], *content["arms"], *content["cells"]):
        row["values"] = dict(sorted(values.get(row["arm"], {}).items(), key=lambda item: int(item[0])))


def json_text(content: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Write the `verdicts` of one study as a JSON object, or those of several as one array."""
    return shown_json(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def csv(*studies: Mapping[str, Any]) -> str:
    """Write the `verdicts` of studies, a line per arm and per effect under one header; with several, `study` comes first."""
    rows = [
        ({"study": content["study"]} if len(studies) > 1 else {}) | _flat(row)
        for content in studies
        for row in (*content["arms"], *content["effects"])
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = table.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return shown(out.getvalue())


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: text that would begin one begins with an apostrophe.

    Also behind a semicolon or a tab, where spreadsheets of many countries begin a cell.
    """
    if not isinstance(value, str):
        return value
    text = re.sub(rf"([;\t][\s\"]*)(?=[{_FORMULA}])", r"\1'", value)
    # One line a row, also where a name has a break in it: a terminal shows the table as it is.
    text = visible(text)
    return f"'{text}" if re.match(rf"[\s\"]*[{_FORMULA}]", text) else text


_FORMULA = r"=+\-@\uff1d\uff0b\uff0d\uff20"
"""What begins a formula, in its wide form too."""


def markdown(summary: Summary) -> str:
    """Write question, answer, verdicts and the table of arms, for a README or a pull request."""
    lines = [
        f"## {escape_markdown(summary.question or summary.study)}",
        "",
        escape_markdown(" ".join(summary.answer)),
        "",
    ]
    for notice in summary.notices:
        if notice.kind != "warning":
            lines += [f"> **{notice.kind.capitalize()}.** {escape_markdown(notice.text)}", ""]
    for group in summary.groups:
        lines += [f"**{group.title}**", ""]
        lines += [f"- {escape_markdown(finding.sentence)}" for finding in group.findings]
        lines.append("")
    if summary.rows:
        columns = _columns(summary, escape_markdown)
        rows = [[cell(row) for _, cell, _ in columns] for row in summary.rows]
        lines.append("| " + " | ".join(escape_markdown(head) for head, _, _ in columns) + " |")
        lines.append("| " + " | ".join("---:" if right else "---" for _, _, right in columns) + " |")
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += ["", escape_markdown(_note(summary)), ""]
    if summary.for_paper:
        lines += [*paper_in_markdown(summary.for_paper), ""]
    if summary.tuning is not None:
        lines += [f"**{summary.tuning.title}**", ""]
        lines += [line for text in summary.tuning.paragraphs for line in (escape_markdown(text), "")]
        for cells in (
            summary.tuning.table,
            summary.tuning.front,
            summary.tuning.beside,
            summary.tuning.importances,
        ):
            if len(cells) > 1:
                head, *others = (f"| {' | '.join(map(escape_markdown, row))} |" for row in cells)
                lines += [head, f"|{' --- |' * len(cells[0])}", *others, ""]
        if summary.tuning.importances:
            lines += [escape_markdown(wording.RANKING), ""]
    return shown("\n".join(lines))


def paper_in_markdown(paragraph: str) -> tuple[str, ...]:
    """Return the paragraph for a paper as lines of Markdown that stay folded until someone opens them."""
    return (
        "<details><summary>Methods, for a paper</summary>",
        "",
        escape_markdown(paragraph),
        "",
        "</details>",
    )


def latex(summary: Summary) -> str:
    r"""Write the table of arms for a paper, and a macro for each of its numbers. Needs the packages booktabs and amssymb.

    Where factors are there or not, each gets a column of ticks. Bold: the arm that helps most, else the reference, and of a
    factorial design the best combination; the note under the table says so. `\ablate{width=128}{effect}` is the number as the table has it, `\ablatemethods` the paragraph on how
    the intervals are made.
    """
    ticks = summary.components if any(row.present for row in summary.rows) else ()
    best = _best(summary)
    costs = ("Cost",) if any(row.cost_ratio is not None for row in (*summary.rows, *summary.cells)) else ()
    head = [*(_tex(wording.title(name)) for name in ticks)] or ["Arm"]
    better = r"$\downarrow$" if summary.direction == "minimize" else r"$\uparrow$"
    head += [
        f"{_tex(summary.metric)} {better}{_tex(f' ({summary.value_unit})') if summary.value_unit else ''}"
    ]
    effect = _tex(f"Effect{f' ({summary.unit})' if summary.unit else ''}")
    head += [
        f"\\multicolumn{{2}}{{c}}{{{effect}}}",
        "$p$",
        "Verdict",
        *costs,
    ]
    lines = [
        f"% {' '.join(summary.study.split())}: needs \\usepackage{{booktabs,amssymb}}",
        *_macros(summary),
        # As narrow as it can be: it is to fit between the margins of a paper.
        "{\\footnotesize\\setlength{\\tabcolsep}{3pt}\\noindent",
        "\\begin{tabular}{@{}" + ("c" * len(ticks) or "l") + "rr@{~}rrl" + "r" * len(costs) + "@{}}",
        "\\toprule",
        " & ".join(head) + " \\\\",
        "\\midrule",
    ]
    table_rows = [row for row in summary.rows if row.kind not in {"A/A", "confirmation"}]
    if summary.cells:
        effects = [row for row in table_rows if row.kind == "effect"]
        table_rows = [row for row in table_rows if row.kind != "effect"] + list(summary.cells) + effects
    for i, row in enumerate(table_rows):
        named = (
            [("$\\checkmark$" if present else "$\\times$") for present in row.present]
            if ticks
            else [_tex(row.label)]
        )
        if ticks and not row.present:
            named = [_tex(row.label), *[""] * (len(ticks) - 1)]
        mean = "" if row.mean is None else _tex_number(wording.plain(row.mean, summary.value_digits))
        if row.sd is not None:
            mean += f" \\pm {_tex_number(wording.plain(row.sd, summary.value_digits))}"
        if mean:
            mean = f"$\\mathbf{{{mean}}}$" if row is best else f"${mean}$"
        cells = [
            *named,
            mean,
            *_tex_effect(row, summary.digits),
            *(_tex_ratio(row.cost_ratio) for _ in costs),
        ]
        lines.append(" & ".join(cells) + " \\\\")
        if i == 0 and len(table_rows) > 1:
            lines.append("\\midrule")
    note = [_tex(_note(summary))]
    if best is not None:
        meant = (
            "the best combination, picked for its mean"
            if summary.cells
            else "no arm helps, so it is the reference"
            if best.kind == "baseline"
            else "the arm that helps most"
        )
        note.append(f"Bold: {meant}.")
    if ticks:
        note.append(r"$\checkmark$: there, $\times$: not.")
    lines += [
        "\\bottomrule",
        "\\end{tabular}}",
        "\\par\\smallskip",
        f"{{\\footnotesize {' '.join(note)}\\par}}",
        "",
    ]
    return shown("\n".join(lines))


# --- parts ------------------------------------------------------------------------------------------------------------


def _columns(summary: Summary, escape: Callable[[str], str]) -> list[tuple[str, Callable[[Row], str], bool]]:
    """(heading, cell, whether it is aligned right) of the table of arms."""
    digits = summary.digits

    def known(value: float | None, write: Callable[[float], str]) -> str:
        return "" if value is None else write(value)

    def verdict(row: Row) -> str:
        return f"{palette.mark(row.interval.verdict).sign} {row.verdict}" if row.verdict else ""

    def mean(row: Row) -> str:
        of_values = summary.value_digits
        spread = f" ± {wording.plain(row.sd, of_values)}" if row.sd is not None else ""
        return known(row.mean, lambda value: wording.plain(value, of_values)) + spread

    unit, value_unit = (f", {u}" if u else "" for u in (summary.unit, summary.value_unit))
    return [
        ("Effect" if summary.cells else "Arm", lambda row: escape(row.label), False),
        ("Verdict", lambda row: escape(verdict(row)), False),
        (
            f"Effect{unit}",
            lambda row: known(row.interval.estimate, lambda v: wording.signed(v, digits)),
            True,
        ),
        (
            "Interval",
            lambda row: known(row.interval.lo, lambda v: wording.span(v, row.interval.hi, digits)),
            True,
        ),
        ("Adj. p", lambda row: escape(known(row.p, wording.p_value)), True),
        (f"{summary.unit_of_n.capitalize()}s", lambda row: str(row.n), True),
        (f"{summary.metric}{value_unit}", mean, True),
        (f"Test{unit}", lambda row: known(row.test_effect, lambda v: wording.signed(v, digits)), True),
        ("Cost", lambda row: "1×" if row.kind == "baseline" else known(row.cost_ratio, wording.ratio), True),
        ("Parameters", lambda row: known(row.parameters, wording.compact), True),
    ]


def _note(summary: Summary) -> str:
    margin = measured(wording.trimmed(summary.axis.margin, summary.digits), summary.unit)
    # Beside means that fall, an effect with a plus sign has to say what it means.
    less = f" Less of {summary.metric} is better; effects are turned, so that positive is better."
    return (
        f"{summary.metric}: mean ± standard deviation over {summary.unit_of_n}s."
        f"{less if summary.direction == 'minimize' else ''} Intervals hold together for the whole study; "
        f"the margin is {margin}."
    )


def _best(summary: Summary) -> Row | None:
    """Return the row to print bold: the best combination, or the largest effect that helps, else the reference."""
    if summary.cells:
        means = [row for row in (*summary.rows, *summary.cells) if row.mean is not None]
        sign = -1.0 if summary.direction == "minimize" else 1.0
        return max(means, key=lambda row: sign * (row.mean or 0.0), default=None)
    helping = [row for row in summary.rows if row.kind == "arm" and row.interval.verdict == "helps"]
    if helping:
        return max(helping, key=lambda row: row.interval.estimate or 0.0)
    return next((row for row in summary.rows if row.kind == "baseline"), None)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of the JSON as cells: intervals in two columns, lists and blocks as text."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if name in {"ci", "ci_new_images"}:
            low, high = value or (None, None)
            cells |= {f"{name}_lo": low, f"{name}_hi": high}
        elif name == "more_seeds":
            cells |= {part: (value or {}).get(part) for part in ("n50", "n80", "n_any")}
        elif isinstance(value, list):
            cells[name] = " ".join(map(str, value))
        elif isinstance(value, Mapping):
            cells[name] = json.dumps(value, ensure_ascii=False)
        elif isinstance(value, bool):
            cells[name] = str(value).lower()
        else:
            cells[name] = value
    return cells


_MACROS = r"""\providecommand{\ablateset}[3]{\expandafter\gdef\csname ablate:\detokenize{#1}:#2\endcsname{#3}}
\providecommand{\ablate}[2]{\ifcsname ablate:\detokenize{#1}:#2\endcsname\csname ablate:\detokenize{#1}:#2\endcsname
  \else\errmessage{ablate: there is no #2 of \detokenize{#1}}\fi}"""
"""A number is found by the same tokens that it was set under, so that a name may hold `_`, `&`, `$`, `^` and `~` as they are."""

_IN_NAMES = {"\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "#": r"\#", "%": r"\%"}
"""Characters that no argument of a macro can hold as they are."""

_AS_TYPED = {"_": r"\_", "&": r"\&", "$": r"\$"}
"""Characters that people escape out of habit: both ways are found."""


def macro_names(name: str) -> tuple[str, ...]:
    r"""Return how an arm is called in `\ablate{…}`: its name, where it can stand so; and with `_`, `&` and `$` escaped as well."""
    plain = "".join(_IN_NAMES.get(c, c) for c in visible(" ".join(name.split())))
    # Two of them are the code of a character, which TeX reads before anything else: `^^5c` is a backslash, `^^7d` ends an argument.
    plain = re.sub(r"\^(?=\^)", "^{}", plain)
    escaped = "".join(_AS_TYPED.get(c, c) for c in plain)
    return tuple(dict.fromkeys((plain, escaped)))


def _macros(summary: Summary) -> list[str]:
    """Define a macro for each number of the table, and one for the paragraph on the intervals."""
    lines = _MACROS.splitlines()
    first = next((row for row in summary.rows if row.interval.estimate is not None), None)
    if first is not None:
        lines.append(
            f"% \\ablate{{{macro_names(first.arm)[0]}}}{{effect}}; also interval, p, n, verdict, mean, sd; and \\ablatemethods"
        )
    for row in (*summary.rows, *summary.cells):
        if row.kind in {"A/A", "confirmation"}:
            continue
        interval = row.interval
        values = {
            "n": str(row.n),
            "mean": _in_math(row.mean, lambda v: wording.plain(v, summary.value_digits)),
            "sd": _in_math(row.sd, lambda v: wording.plain(v, summary.value_digits)),
            "effect": _in_math(interval.estimate, lambda v: wording.signed(v, summary.digits)),
            "interval": ""
            if interval.lo is None or interval.hi is None
            else rf"\ensuremath{{[{', '.join(map(_tex_number, wording.ends(interval.lo, interval.hi, summary.digits)))}]}}",
            "p": _in_math(row.p, wording.p_value),
            "verdict": _tex(row.verdict),
        }
        lines += [
            f"\\ablateset{{{name}}}{{{what}}}{{{value}}}"
            for name in macro_names(row.arm)
            for what, value in values.items()
            if value
        ]
    if summary.for_paper:
        lines += [f"\\gdef\\ablatemethods{{{_tex(summary.for_paper)}}}"]
    return lines


def _in_math(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else rf"\ensuremath{{{_tex_number(write(value))}}}"


def _tex_effect(row: Row, digits: int) -> list[str]:
    interval = row.interval
    if interval.estimate is None:
        return ["", "", "", ""]
    ends = ""
    if interval.lo is not None and interval.hi is not None:
        ends = f"$[{', '.join(map(_tex_number, wording.ends(interval.lo, interval.hi, digits)))}]$"
    return [
        f"${_tex_number(wording.signed(interval.estimate, digits))}$",
        ends,
        "" if row.p is None else f"${_tex_number(wording.p_value(row.p))}$",
        _tex(row.verdict),
    ]


def _tex_ratio(value: float | None) -> str:
    return "" if value is None else f"${wording.ratio(value).removesuffix('×')}\\times$"


def _tex_number(text: str) -> str:
    """Return a written number within mathematics."""
    return text.replace(wording.MINUS, "-").replace(",", "{,}")


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    wording.MINUS: "$-$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "√": r"$\surd$",
    "α": r"$\alpha$",
    "ν": r"$\nu$",
    "₀": "$_0$",
    "₁": "$_1$",
    "²": "$^2$",
    "·": r"$\cdot$",
    "δ": r"$\delta$",
    "\n": " ",
    "\r": " ",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(c, c) for c in visible(" ".join(text.splitlines())))
