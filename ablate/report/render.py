"""The page: a summary becomes one HTML file that works offline, for good.

Nothing in it leaves the page: scripts, styles, figures and the plotting library are inside, and a content security
policy forbids the rest. Scripts run only if their digest is named in that policy, so that a name in a study could not
become one even if it slipped through the escaping.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ablate.analysis.compare import no_garbage_collection
from ablate.report import figures, palette, wording
from ablate.report.contents import GROUPS, INTERACTIONS, Curves, OwnFigure, RunRow, Section, Summary
from ablate.report.drawings import SmallCurves, axis_svg, interval_svg
from ablate.report.figure_parts import Figure
from ablate.text import counted, is_visible, shown, shown_values

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
LIBRARY = Path(__file__).parent / "library" / "plotly-cartesian.min.js.gz"
MOST_ROWS = 200
"""Runs shown at first; the page holds the others compressed."""

LONGEST_BODY = 50_000
"""Characters of a table's body from which on it is compressed: some two thousand cells."""


@dataclass(frozen=True)
class Picture:
    """A figure's place on the page. small: several share a line. anchors: by which links lead to it."""

    id: str
    title: str
    label: str
    height: int
    small: bool
    anchors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Pictures of one kind under a heading. caption: how to read them."""

    title: str
    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Shelf:
    """Figures of one name that runs logged. shown: (place of one that the page draws, None for another; the figure)."""

    title: str
    shown: tuple[tuple[Picture | None, OwnFigure], ...]


@dataclass(frozen=True)
class Chapter:
    """A section with its pictures. panels: of what the study is judged by. loss: its curves. others: folded away."""

    section: Section
    panels: tuple[Panel, ...]
    loss: tuple[Panel, ...]
    others: tuple[Panel, ...]


@no_garbage_collection()
def html(summary: Summary, *, reload: int | None = None) -> str:
    """Return the whole report as one offline HTML file. reload: seconds after which it loads itself again, for a study that runs."""
    album = _Figures()
    page = _environment().get_template("report.html")
    panels = {
        "forest": album.panel(
            "", "", [("", figures.forest(summary.axis, summary.rows))], "Effects with their intervals"
        )
        if summary.rows
        else None,
        "tuning": _tuning_panels(album, summary),
        "costs": _cost_panel(album, summary),
        "interactions": _interaction_panel(album, summary),
        "crossings": _crossing_panel(album, summary),
        "pareto": _pareto_panel(album, summary),
        "classes": _class_panels(album, summary),
    }
    small_curves = SmallCurves(summary)
    anchors = {row.arm: f"curves-{row.anchor}" for row in summary.rows if row.kind == "arm" and row.anchor}
    chapters = [
        _chapter(album, section, summary, small_curves.quantity, anchors) for section in summary.sections
    ]
    drawn = {
        anchor
        for chapter in chapters
        for panel in chapter.loss
        for picture in panel.pictures
        for anchor in picture.anchors
    }
    text: str = page.render(
        s=summary,
        panels=panels,
        chapters=chapters,
        small_curves=small_curves,
        curves_title="Loss curves" if "loss" in small_curves.quantity.lower() else "Curves",
        shelves=_shelves(album, summary),
        evidence={arm: anchor for arm, anchor in anchors.items() if anchor in drawn},
        figures=_packed(_json(album.figures).encode(), 6),
        runs=_run_table(summary),
        reload=reload,
        **_scripts(),
        **_shared(),
    )
    return text


@dataclass(frozen=True)
class Entry:
    """A report on the page that leads to several. path: relative to that page. tally: `Summary.tally`."""

    study: str
    question: str
    headline: str
    path: str
    tally: Mapping[str, int]


def index_html(studies: Iterable[Entry]) -> str:
    """Return a page that links to several reports."""
    titles = {key: title for key, title, *_ in (*GROUPS, INTERACTIONS)}
    tones = {key: palette.mark(next(iter(members))) for key, _, _, members in GROUPS}
    tones[INTERACTIONS[0]] = palette.mark("")
    entries = [
        (
            entry,
            quote(entry.path),
            [(titles[key], tones[key], n) for key, n in entry.tally.items() if n and key in titles],
        )
        for entry in studies
    ]
    text: str = _environment().get_template("index.html").render(entries=entries, **_shared())
    return text


@dataclass(frozen=True)
class FigureGroup:
    """Figures under a heading of a page. drawn: (name, figure). label: for screen readers. small: several share a line."""

    title: str
    caption: str
    drawn: Sequence[tuple[str, Figure]]
    label: str
    small: bool = False


def figures_html(
    eyebrow: str,
    title: str,
    answer: str,
    more: str,
    groups: Iterable[FigureGroup],
    table: Sequence[Sequence[str]] = (),
) -> str:
    """Return a page of figures, as offline as the report. answer, more: the sentence that stands out, and what follows it.

    table: below the figures, its header first; the first cell of a row names it.
    """
    album = _Figures()
    panels = [album.panel(g.title, g.caption, g.drawn, g.label, small=g.small) for g in groups]
    text: str = (
        _environment()
        .get_template("figures.html")
        .render(
            eyebrow=eyebrow,
            title=title,
            answer=answer,
            more=more,
            panels=panels,
            table=table,
            figures=_packed(_json(album.figures).encode(), 6),
            **_scripts(),
            **_shared(),
        )
    )
    return text


def _scripts() -> dict[str, Any]:
    """Return what draws the figures of a page, and the digests by which a browser knows it."""
    script, library = _asset("report.js"), plotly_js()
    return {
        "digests": [_digest(script.encode()), _digest(library)],
        "palette": script_json(palette.DARK_OF),
        "library": _packed_library(),
        "script": _markup(script),
    }


@functools.cache
def plotly_js() -> bytes:
    """Return the plotting library that goes into a report: plotly.js with the kinds of trace that our figures need."""
    return gzip.decompress(LIBRARY.read_bytes())


def script_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element, whatever its texts hold."""
    text = _json(value)
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return _markup(text)


# --- pictures ---------------------------------------------------------------------------------------------------------


class _Figures:
    """Numbers the pictures and keeps their figures."""

    def __init__(self) -> None:
        self.figures: dict[str, Mapping[str, Any]] = {}

    def panel(
        self,
        title: str,
        caption: str,
        drawn: Iterable[tuple[str, Figure]],
        label: str,
        *,
        small: bool = False,
        anchors: Iterable[tuple[str, ...]] = (),
    ) -> Panel:
        added = []
        for (name, spec), leading in zip(drawn, itertools.chain(anchors, itertools.repeat(()))):  # noqa: B905 - endless
            text = f"{label}: {name}" if name else label
            height = int(spec["layout"].get("height", 340))
            added.append(Picture(f"figure-{len(self.figures)}", name, text, height, small, leading))
            self.figures[added[-1].id] = spec
        return Panel(title, caption, tuple(added))


def _chapter(
    album: _Figures, section: Section, summary: Summary, loss: str, anchors: dict[str, str]
) -> Chapter:
    """loss: the quantity whose curves all stand in one place. anchors: of the arms' curves; those that are used are taken out."""
    panels: list[Panel] = []
    losses: list[Panel] = []
    others: list[Panel] = []
    if section.response is not None:
        panels.append(_response_panel(album, section, is_factorial=bool(summary.cells)))
    judged_by = {summary.metric, summary.metric.partition("/")[2], "lr"}
    for curves in section.curves:
        if curves.quantity == loss:
            losses.append(_curve_panel(album, section, curves, anchors, is_factorial=bool(summary.cells)))
        else:
            (panels if curves.quantity in judged_by else others).append(
                _curve_panel(album, section, curves, {}, is_factorial=bool(summary.cells))
            )
    return Chapter(section, tuple(panels), tuple(losses), tuple(others))


def _response_panel(album: _Figures, section: Section, *, is_factorial: bool) -> Panel:
    response = section.response
    assert response is not None
    direction = "horizontal" if response.scale != "named" else "vertical"
    caption = (
        f"A dot for every {response.dots_are}, a mark for the mean. The {direction} band is the reference ± the margin."
        if response.dots_are != "block"
        else "A dot for every block, a mark for the mean. The vertical band is ± the margin."
    )
    title = f"{response.metric} by {'level' if section.code else 'combination' if is_factorial else 'arm'}"
    return album.panel(
        title,
        caption,
        [("", figures.response(response))],
        f"{section.title}: {title}",
    )


def _curve_panel(
    album: _Figures, section: Section, curves: Curves, anchors: Mapping[str, str], *, is_factorial: bool
) -> Panel:
    drawn = figures.curves(curves)
    few = len(drawn) == 1
    splits = {line.split for arm in curves.arms for line in arm.lines}
    text = ["Training dashed, validation solid."] if len(splits) > 1 else []
    text.append("Mean over seeds, with a band from the lowest seed to the highest.")
    if is_factorial and any(arm.verdict for arm in curves.arms):
        text.append(
            "A combination that changes one thing has the colour of that main effect's verdict; the others have no colour."
        )
    elif is_factorial:
        text.append("Combinations have no verdict of their own, and no colour.")
    else:
        text.append("An arm has the colour of its verdict.")
    if few and len({palette.mark(arm.verdict).colour for arm in curves.arms}) < len(curves.arms):
        text.append("Arms with the same verdict differ in shade.")
    if curves.reference is not None:
        text.append(f"Grey: the {curves.reference.label.lower()}.")
    if any(arm.overfits for arm in (*curves.arms, *([curves.reference] if curves.reference else []))):
        text.append("A ring: over-fitting begins.")
    if curves.cut:
        text.append("Some of it runs off the scale; double-click to see all.")
    name = wording.quantity(curves.quantity)
    own = [(anchors[arm.arm],) if arm.arm in anchors else () for arm in curves.arms]
    return album.panel(
        name,
        " ".join(text),
        drawn,
        f"{section.title}: {name} by epoch",
        small=not few,
        anchors=[tuple(itertools.chain(*own))] if few else own,
    )


def _tuning_panels(album: _Figures, summary: Summary) -> tuple[Panel, ...]:
    content = summary.tuning.curves if summary.tuning is not None else ()
    return tuple(
        album.panel(
            f"{summary.metric} over {setting}",
            "A dot for every trial; rings: the best, re-evaluated on fresh seeds. Dotted: what was chosen.",
            [(curve.label, figures.setting_response(curve)) for curve in content if curve.setting == setting],
            f"{summary.metric} over {setting}",
            small=len({curve.label for curve in content}) > 1,
        )
        for setting in dict.fromkeys(curve.setting for curve in content)
    )


def _cost_panel(album: _Figures, summary: Summary) -> Panel | None:
    if not summary.costs:
        return None
    basis = "device time" if summary.cost_basis == "time" else "compute"
    figure = figures.costs(summary.costs, basis, summary.metric, summary.value_unit, summary.digits)
    explanation = "" if summary.cost_basis == "time" else "Compute: FLOPs × epochs of a run. "
    caption = f"{explanation}Lines reach from the lowest seed to the highest."
    if figure["data"][0]["x"][1:]:
        caption += " Dotted: the front of arms that no other beats on both counts."
    return album.panel("", caption, [("", figure)], f"{summary.metric} against cost")


def _interaction_panel(album: _Figures, summary: Summary) -> Panel | None:
    if summary.interactions is None:
        return None
    caption = "Main effects on the diagonal, interactions off it."
    return album.panel(
        "", caption, [("", figures.interactions(summary.interactions))], "Effects and interactions"
    )


def _crossing_panel(album: _Figures, summary: Summary) -> Panel | None:
    if not summary.crossings:
        return None
    caption = (
        "Means over all runs with both levels. Lines that run side by side: the two don’t interact. No interval is drawn: those of "
        "the interactions are above."
    )
    drawn = [(f"{c.factor} × {c.other}", figures.crossing(c)) for c in summary.crossings]
    return album.panel("How factors act together", caption, drawn, "Interaction", small=len(drawn) > 1)


def _pareto_panel(album: _Figures, summary: Summary) -> Panel | None:
    content = summary.tuning.pareto if summary.tuning is not None else None
    if content is None:
        return None
    caption = (
        "A dot for every trial. Dotted: the front that no other trial beats in both. Rings: the candidates at the mean of their "
        "re-evaluations, on fresh seeds."
    )
    title = f"{content.metric} against {content.cost.partition(',')[0]}"
    return album.panel(title, caption, [("", figures.pareto(content))], title)


def _class_panels(album: _Figures, summary: Summary) -> tuple[Panel, ...]:
    content = summary.confusion
    if content is None:
        return ()
    panels = []
    without = "" if all(map(any, content.shares)) else " –: a class without a test image."
    if content.arms:
        panels.append(
            album.panel(
                "Accuracy on each class",
                f"Points against {content.reference}, on the test images of all seeds.{without} Exploratory: no interval stands behind"
                " these.",
                [("", figures.per_class(content))],
                "Accuracy on each class, by arm",
            )
        )
    panels.append(
        album.panel(
            f"Confusion matrix of {content.reference}",
            "Percent of each true class (row), over the test images of all seeds.",
            [("", figures.confusion(content))],
            "Confusion matrix",
        )
    )
    if content.arms:
        panels.append(
            album.panel(
                "What each arm confuses more, and less",
                f"Points of each true class against {content.reference}. Blue is better: more on the diagonal, less off it; orange is worse.",
                [(arm.label, figures.shift(arm, content.classes)) for arm in content.arms],
                "Confusion against the reference",
                small=True,
            )
        )
    return tuple(panels)


def _shelves(album: _Figures, summary: Summary) -> tuple[Shelf, ...]:
    """Return the figures that runs logged; those of Plotly are drawn as the page's own are."""

    def place(name: str, figure: OwnFigure) -> Picture | None:
        if figure.plot is None:
            return None
        return album.panel("", "", [("", figure.plot)], f"{name}: {figure.label}", small=True).pictures[0]

    sets = summary.own_figures.sets if summary.own_figures is not None else ()
    return tuple(
        Shelf(name, tuple((place(name, figure), figure) for figure in shown)) for name, shown in sets
    )


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunTable:
    """first: rows as HTML. rest: those of a large study that the page unpacks when it needs them, compressed.

    columns: what is known of at least one run, and therefore has a column.
    """

    columns: frozenset[str]
    first: tuple[Markup, ...]
    rest: str


RUN_COLUMNS = (
    "block",
    "seed",
    "phase",
    "outcome",
    "value",
    "test",
    "epochs",
    "seconds",
    "device",
    "run_id",
)
"""Columns of the table of runs after the arm, in their order."""


def _run_table(summary: Summary) -> RunTable:
    columns = {"phase"} if any(run.phase != "report" for run in summary.runs) else set()
    known = ("block", "test", "epochs", "seconds", "device", "run_id")
    # Of a study that has not begun nothing is known, and of results from elsewhere some things never are.
    is_run = summary.unit_of_n == "seed" and not any(run.outcome == "finished" for run in summary.runs)
    columns |= {
        name for name in known if any(getattr(run, name) not in ("", None) for run in summary.runs)
    } | ({"test", "epochs", "seconds", "device", "run_id"} if is_run else set())
    # Ten thousand rows through the template would take longer than everything else.
    escaped = functools.cache(_escaped)
    drawn = [column for column in RUN_COLUMNS if column in columns | {"seed", "outcome", "value"}]
    rows = [_run_row(summary, run, escaped, drawn) for run in summary.runs]
    rest = "".join(rows[MOST_ROWS:])
    first = tuple(_markup(row) for row in rows[:MOST_ROWS])
    return RunTable(frozenset(columns), first, _packed(rest.encode(), 6) if rest else "")


def _run_row(summary: Summary, run: RunRow, escape: Callable[[str], str], columns: Sequence[str]) -> str:
    """escape: `_escaped`, which may be cached, for texts of many rows. columns: of `RUN_COLUMNS`, in its order."""

    def number(value: float | None, text: str) -> str:
        return (
            '<td class="n"></td>' if value is None else f'<td class="n" data-value="{value:.6g}">{text}</td>'
        )

    outcome = run.outcome if run.outcome == "finished" else f'<span class="bad">{escape(run.outcome)}</span>'
    reason = f'<span class="sub">{escape(run.reason)}</span>' if run.reason else ""
    # No two runs have the same: there is nothing to keep.
    name = f"<code>{_escaped(run.run_id)}</code>" if run.run_id else ""
    if name and summary.tracking is not None:
        name = f'<a href="{escape(summary.tracking.page(run.run_id))}" rel="noreferrer">{name}</a>'
    source = (
        f'<span class="sub">taken from <code>{escape(run.source_run)}</code></span>' if run.source_run else ""
    )
    digits = summary.value_digits if run.digits is None else run.digits
    cells = {
        "block": f"<td>{escape(run.block)}</td>",
        "seed": number(run.seed, str(run.seed)),
        "phase": f"<td>{escape(run.phase)}</td>",
        "outcome": f"<td>{outcome}{reason}</td>",
        "value": number(run.value, wording.plain(run.value, digits)),
        "test": number(run.test, wording.plain(run.test, digits)),
        "epochs": number(run.epochs, str(run.epochs)),
        "seconds": number(run.seconds, wording.duration(run.seconds)),
        "device": f"<td>{escape(run.device)}</td>",
        "run_id": f"<td>{name}{source}</td>",
    }
    shown = "".join([cells[column] for column in columns])
    return (
        f'<tr data-outcome="{escape(run.outcome)}"><th scope="row" title="{escape(run.arm)}">{escape(run.label)}</th>'
        f"{shown}</tr>\n"
    )


def _escaped(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text
    from markupsafe import escape

    return str(escape(shown(text)))


# --- assembling -------------------------------------------------------------------------------------------------------


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "signed": wording.signed,
        "plain": wording.plain,
        "span": wording.span,
        "ratio": wording.ratio,
        "p": wording.p_value,
        "compact": wording.compact,
        "duration": wording.duration,
        "tidy": _tidy,
        "source": _source,
    }
    return environment


def _finalize(value: Any) -> Any:
    """Return what an expression of a template puts into the page, before it is escaped."""
    return shown(value) if type(value) is str else value


def _tidy(text: str) -> Markup:
    """Return a sentence that does not break between a number and its percent sign, with its `commands` as code."""
    return _markup(re.sub("`([^`]+)`", r"<code>\1</code>", _escaped(text.replace(" %", "\u00a0%"))))


def _source(text: str) -> Markup:
    """Return a page that is an attribute of this one, every character as it is."""
    from markupsafe import escape

    return escape(text)


def _shared() -> dict[str, Any]:
    """Return what both pages need."""
    return {
        "style": _markup(_asset("report.css")),
        "mark": palette.mark,
        "interval_svg": interval_svg,
        "axis_svg": axis_svg,
        "count": counted,
        "ranking": wording.RANKING,
        "body": _body,
    }


@functools.cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    dumped = functools.partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    with contextlib.suppress(TypeError):  # some mapping
        text = dumped(value)
        # Going through a hundred thousand values takes longer than to see that there is nothing in any of them.
        escapes = text.replace(r"\\", "") if "\\" in text else ""
        if is_visible(text) and not any(escape in escapes for escape in (r"\u", r"\b", r"\f", r"\r")):
            return text
    return dumped(shown_values(value))


def _packed(content: bytes, level: int) -> str:
    """Compressed, as text that cannot end a script element. The page inflates it again."""
    return base64.b64encode(gzip.compress(content, level, mtime=0)).decode()


@functools.cache
def _packed_library() -> str:
    return base64.b64encode(LIBRARY.read_bytes()).decode()


@functools.cache
def _digest(script: bytes) -> str:
    """Return how a content security policy names a script that may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script).digest()).decode()


def _body(rows: Markup) -> Markup:
    """Return the body of a table; that of a very large one goes compressed, and the page unpacks it."""
    if len(rows) <= LONGEST_BODY:
        return _markup(f"<tbody>{rows}</tbody>")
    return _markup(f'<tbody data-packed="{_packed(str(rows).encode(), 6)}"></tbody>')


def _markup(text: str) -> Markup:
    """Text that is safe as it stands: our own files, or values already escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 — as it says
