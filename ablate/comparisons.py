"""Verdicts on results that are there already, as a sequence of comparisons, and how they are shown."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ablate.text import counted, escape_markdown, visible

if TYPE_CHECKING:
    import pandas as pd

    from ablate.analysis import Analysis
    from ablate.analysis.contents import BlockedAnalysis
    from ablate.report import Material

SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
}
"""Suffix of `--output` → format of a report or of verdicts."""


@dataclass(frozen=True)
class ArmVerdict:
    """One arm against the baseline.

    verdict: `helps`, `hurts`, `no practical effect`, `inconclusive`, `unstable` or `not independent`. effect and ci are
    oriented: higher is better, whatever the metric; None where there is none. p_adjusted: over all arms, below .05 exactly
    when the interval excludes 0. n: pairs, or runs of the arm where runs are not paired. clearly: it helps or hurts by at
    least the margin.
    """

    arm: str
    verdict: str
    effect: float | None
    ci: tuple[float, float] | None
    p_adjusted: float | None
    n: int
    sentence: str
    clearly: bool = False


@dataclass(frozen=True, eq=False)
class Comparisons(Sequence[ArmVerdict]):
    """The verdicts of all arms, in the order in which the arms appear.

    material: what a report is made from; `analysis`: everything that was computed. paired: whether runs were paired by a seed. n_baseline: the baseline's runs.
    correlation: of arms with the baseline over seeds, on average; None where runs are not paired. notes: what to know
    before trusting a verdict. blocks: (block, verdicts within it) of each block, where there are any: the verdicts of this
    sequence are over them then, with the block as the unit. results: the columns that were read, as they were; None for a
    study that was run.
    """

    items: tuple[ArmVerdict, ...]
    material: Material
    paired: bool
    n_baseline: int
    correlation: float | None
    notes: tuple[str, ...]
    blocks: tuple[tuple[str, tuple[ArmVerdict, ...]], ...] = ()
    results: pd.DataFrame | None = None

    @classmethod
    def of(cls, material: Material) -> Comparisons:
        """Return the verdicts of a study that was run: on its arms, or on its effects where those get the verdicts."""
        from ablate.analysis import caution, pairing
        from ablate.analysis.words import effect_code, sentence, subject

        analysis = material.analysis
        rules = analysis.rules

        def ends(lo: float | None, hi: float | None) -> tuple[float, float] | None:
            return None if lo is None or hi is None else (lo, hi)

        arms = [
            ArmVerdict(
                c.arm,
                c.verdict,
                c.effect,
                ends(c.lo, c.hi),
                c.p_adjusted,
                c.n,
                sentence(c, rules),
                c.clearly,
            )
            for c in analysis.comparisons
        ]
        effects = [
            ArmVerdict(
                effect_code(e.terms),
                e.verdict,
                e.estimate,
                ends(e.lo, e.hi),
                e.p_adjusted,
                e.n,
                sentence(e, rules),
                e.clearly,
            )
            for e in analysis.effects
        ]
        gain = pairing.gain([analysis])
        runs = analysis.runs
        counts = ((runs.failed, "failed"), (runs.missing, "missing"))
        notes = [f"{counted(number, 'run')} {what}" for number, what in counts if number]
        notes += [caution(item, rules, subject(item, rules)) for item in analysis.warnings]
        return cls(
            (*arms, *effects),
            material,
            rules.paired,
            analysis.baseline.n,
            None if gain is None else gain.correlation,
            tuple(notes),
        )

    @property
    def analysis(self) -> Analysis:
        return self.material.analysis

    @property
    def blocked(self) -> BlockedAnalysis | None:
        return self.material.blocked

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> ArmVerdict: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[ArmVerdict, ...]: ...
    def __getitem__(self, index: int | slice) -> ArmVerdict | tuple[ArmVerdict, ...]:
        return self.items[index]

    def __iter__(self) -> Iterator[ArmVerdict]:
        return iter(self.items)

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {item.sentence}" for item in self), *self.notes])

    def with_environment(self, environment: Mapping[str, str]) -> Comparisons:
        """Return the same with what it was made by, for its page: name → version, commit, time."""
        return replace(self, material=replace(self.material, environment=dict(environment)))

    @property
    def headline(self) -> str:
        """What was found, in one sentence."""
        from ablate.analysis import headline

        return headline(self.analysis)

    def frame(self) -> pd.DataFrame:
        """Return a row for each arm: arm, verdict, effect, lo, hi, p_adjusted, n, sentence."""
        import pandas as pd

        columns = ["arm", "verdict", "effect", "lo", "hi", "p_adjusted", "n", "sentence"]
        rows = [
            (c.arm, c.verdict, c.effect, *(c.ci or (None, None)), c.p_adjusted, c.n, c.sentence) for c in self
        ]
        return pd.DataFrame(rows, columns=columns).astype(
            dict.fromkeys(["effect", "lo", "hi", "p_adjusted"], float)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the verdicts as `ablate judge --format json` prints them: plain values, nothing rounded."""
        from ablate.report import verdicts

        return verdicts(self.material)

    def markdown(self) -> str:
        """Return headline, table and notes, short enough for a comment on a pull request; how it was done is folded."""
        from ablate.report import summarise
        from ablate.report.export import paper_in_markdown

        runs = f"{self.analysis.rules.unit.capitalize()}s"
        lines = [self.headline, "", f"| Arm | Verdict | Effect | Interval | Adj. p | {runs} |"]
        lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
        for arm, verdict, effect, interval, p, n in self._cells():
            lines.append(f"| {escape_markdown(arm)} | {verdict} | {effect} | {interval} | {p} | {n} |")
        if self.blocks:
            lines += ["", "| Block | Arm | Verdict | Effect | Interval | Adj. p | Runs |"]
            lines.append("| --- | --- | --- | ---: | ---: | ---: | ---: |")
            for block, items in self.blocks:
                for arm, verdict, effect, interval, p, n in self._cells(items):
                    lines.append(
                        f"| {escape_markdown(block)} | {escape_markdown(arm)} | {verdict} | {effect} | {interval} | {p} | {n} |"
                    )
        lines += [
            "",
            f"{escape_markdown(self.about)}",
            "",
            *(f"- {escape_markdown(note)}" for note in self.notes),
            "",
            *paper_in_markdown(summarise(self.material).for_paper),
        ]
        return "\n".join(lines) + "\n"

    @property
    def about(self) -> str:
        """What was compared: metric, direction, margin and baseline."""
        rules, baseline = self.analysis.rules, self.analysis.baseline
        better = "more" if rules.direction == "maximize" else "less"
        spread = f" ± {baseline.sd:.4g}" if baseline.sd is not None else ""
        mean = f" ({baseline.mean:.6g}{spread})" if baseline.mean is not None else ""
        return (
            f"{rules.metric}, {better} is better; effects are against {rules.reference}{mean}, {counted(self.n_baseline, 'run')}; "
            f"positive is better; the margin is {rules.margin:g}"
            f"{', and like the effects a share of the mean of the baseline' if rules.relative else ''}."
        )

    def page(self) -> str:
        """Return the report's page: one HTML file that works offline."""
        from ablate import report

        return report.html(report.summarise(self.material))

    def html(self, path: str | Path) -> Path:
        """Write the report's page to a file, and return its path. Raises OSError where it cannot be written."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.page(), encoding="utf-8")
        return file

    def latex(self) -> str:
        r"""Return a table for a paper, and a macro for each of its numbers: `\ablate{width=128}{effect}`."""
        from ablate import report

        return report.latex(report.summarise(self.material))

    def _cells(self, items: Sequence[ArmVerdict] | None = None) -> list[tuple[str, str, str, str, str, str]]:
        """The cells of a table of arms, as text. items: None for all of them."""
        from ablate.report.wording import MOST_DECIMALS, p_value, span

        items = self.items if items is None else items
        widths = [c.ci[1] - c.ci[0] for c in items if c.ci is not None and c.ci[1] > c.ci[0]]
        size = min([self.analysis.rules.margin, *widths])
        digits = min(MOST_DECIMALS, max(0, 2 - math.floor(math.log10(size))))
        rows = []
        for c in items:
            effect = "" if c.effect is None else f"{c.effect:+.{digits}f}"
            interval = "" if c.ci is None else span(*c.ci, digits)
            p = "" if c.p_adjusted is None else p_value(c.p_adjusted)
            verdict = f"clearly {c.verdict}" if c.clearly else c.verdict
            rows.append((visible(c.arm), verdict, effect.replace("-", "−"), interval, p, str(c.n)))
        return rows

    def _repr_html_(self) -> str:
        """Return a table with interval bars, for notebooks, on a light or on a dark ground."""
        from ablate.report.palette import SHADES, mark

        margin = self.analysis.rules.margin
        ends = [abs(end) for c in self for end in (*(c.ci or ()), c.effect or 0.0)]
        # One arm that is far off must not flatten the others; its bar runs off the picture.
        typical = sorted([*ends, margin])[len(ends) // 2]
        most = max(margin, min(max([*ends, margin]), 5.0 * typical)) * 1.1

        def at(value: float) -> float:
            return float(min(200.0, max(0.0, 100.0 + 100.0 * value / most)))

        band = (
            f'<rect x="{at(-margin):.1f}" width="{at(margin) - at(-margin):.1f}" y="0" height="18" fill="currentColor" '
            'opacity="0.1"/><line x1="100" x2="100" y1="0" y2="18" stroke="currentColor" opacity="0.5"/>'
        )
        rows = []
        for c, (arm, verdict, effect, interval, p, n) in zip(self, self._cells(), strict=True):
            sign = mark(c.verdict)
            # The shade that stands out from white and from black.
            colour = SHADES[sign.colour][-1]
            dash = ' stroke-dasharray="4 3"' if c.verdict == "inconclusive" else ""
            line = f'stroke="{colour}" stroke-width="2.5"{dash}'
            drawn = band
            if c.ci is not None:
                drawn += f'<line x1="{at(c.ci[0]):.1f}" x2="{at(c.ci[1]):.1f}" y1="9" y2="9" {line}/>'
            if c.effect is not None and abs(c.effect) <= most:
                drawn += f'<circle cx="{at(c.effect):.1f}" cy="9" r="4" fill="{colour}"/>'
            bar = (
                f'<svg width="200" height="18" role="img" aria-label="{html.escape(interval)}">{drawn}</svg>'
            )
            said = f'<td style="text-align:left;color:{colour}">{html.escape(f"{sign.sign} {verdict}")}</td>'
            cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (effect, interval, p, n))
            rows.append(
                f'<tr><th style="text-align:left">{html.escape(arm)}</th><td>{bar}</td>{said}{cells}</tr>'
            )
        names = ("arm", "", "verdict", "effect", "interval", "adj. p", f"{self.analysis.rules.unit}s")
        left = ' style="text-align:left"'
        head = "".join(f"<th{left if name in ('arm', 'verdict') else ''}>{name}</th>" for name in names)
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return (
            f"<p><b>{html.escape(self.headline)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
            f"<p>{html.escape(self.about)}</p><ul>{notes}</ul>"
        )
