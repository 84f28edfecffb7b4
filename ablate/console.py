"""What is shown in the terminal before and after a study runs: tables of plans and studies, verdicts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ablate.kept_answer import AnswerLine
from ablate.study.record import PlanRecord
from ablate.text import (
    counted,
    format_short_duration,
    format_tried,
    joined,
    measured,
    shown,
    visible,
)

if TYPE_CHECKING:
    from ablate.analysis import Analysis, Comparison, Effect
    from ablate.analysis.family import Terms
    from ablate.analysis.rates import RateSweep
    from ablate.launch import Preview
    from ablate.scheduling.outlook import Outlook
    from ablate.standing import Standing
    from ablate.study.design import Plan


def one_line(text: str, style: str = "") -> Text:
    """Return a text in one line: no name in it can pretend to be another line."""
    return Text(visible(text), style)


class SafeConsole(Console):
    """A console on which text says nothing to the terminal, whoever wrote it: only styles and layout do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


# Lines are broken at a terminal only: in a file or a pipe every sentence is one line.
err = SafeConsole(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
out = SafeConsole(highlight=False, soft_wrap=not sys.stdout.isatty())

VERDICT_STYLE = {
    "helps": "bright_blue",
    "hurts": "dark_orange",
    "positive": "bright_black",
    "negative": "bright_black",
    "no practical effect": "bright_black",
    "inconclusive": "yellow",
}
"""The report's colours, as far as a terminal has them: blue helps, orange hurts, grey does neither."""


def preview(preview: Preview) -> RenderableType:
    """Return what a run would do: arms, seeds per look, finished runs, and what the design implies."""
    study = preview.plan.study
    lines: list[RenderableType] = [
        plan_table(preview.plan, preview.done),
        *_data_notes(preview.plan),
        *design(preview.plan),
    ]
    if study.search is not None:
        lines.append(
            one_line(
                f"at most {counted(preview.search_runs, 'run')} of searching and of the fixed comparison"
            )
        )
        if study.space:
            return Group(*lines)
    at_most = f" (at most {preview.most})" if preview.most > preview.first else ""
    arms, first = counted(preview.configurations, "arm"), counted(preview.first, "run")
    lines.append(one_line(f"{arms}, {first}{at_most}; margin {study.margin:g} of {study.metric}"))
    if preview.done is None:
        lines.append(one_line("The data are not prepared yet, so finished runs cannot be looked up."))
    return Group(*lines)


def _data_notes(plan: Plan) -> list[Text]:
    return [one_line(f"data: {note}", style="yellow") for note in plan.data_notes]


def plan_table(plan: Plan, done: Mapping[str, int] | None) -> Table:
    """Return a table of arms with their seeds at each look. done: finished runs by arm; None where they are not known."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for look in range(1, len(plan.looks.at) + 1):
        table.add_column(f"look {look}", justify="right")
    if done is not None:
        table.add_column("done", justify="right")
    first, *later = plan.looks.at
    seeds = [counted(first, "seed"), *(f"to {pairs}" for pairs in later)]
    for name in plan.names:
        table.add_row(one_line(name), *seeds, *([str(done.get(name, 0))] if done is not None else []))
    return table


def page(text: str) -> RenderableType:
    """Return a page of the documentation as a terminal shows it. text: Markdown."""
    from rich.markdown import Markdown

    return Markdown(text)


def studies(rows: Iterable[Standing]) -> Table:
    """Return a table of studies: name, date, state, and the number of arms or effects by verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("study", "date", "", "verdicts"):
        table.add_column(title)
    order = list(VERDICT_STYLE)
    for row in rows:
        counts = row.verdicts
        date = ""
        if row.recorded is not None:
            with contextlib.suppress(ValueError, OverflowError, OSError):
                date = f"{datetime.fromtimestamp(row.recorded, UTC).astimezone():%Y-%m-%d %H:%M}"
        ranked = sorted(counts, key=lambda verdict: order.index(verdict) if verdict in order else len(order))
        verdicts = one_line(" · ").join(
            one_line(f"{counts[verdict]} {verdict}", style=VERDICT_STYLE.get(verdict, "magenta"))
            for verdict in ranked
        )
        table.add_row(
            one_line(row.study), one_line(date, style="dim"), one_line(row.state, style="dim"), verdicts
        )
    return table


def design(plan: Plan) -> list[Text]:
    """Return what a reader of a plan has to know of its design: the steps of a path, tuning, aliases. Often nothing."""
    from ablate.study.forecast import further

    study = plan.study
    lines = []
    if (steps := further(plan)) > 0:
        names = ", ".join(factor.name for factor in study.factors)
        lines.append(
            f"a greedy path through {names}: the arms above are its first step, "
            f"{counted(steps, 'more configuration')} follow{'s' if steps == 1 else ''} from the results"
        )
    if study.search is not None:
        paths = ", ".join(tuned.path for tuned in (*study.nuisance, *study.space))
        purpose = "a search" if study.space else "each arm is tuned before the comparison"
        lines.append(
            f"{purpose}: {counted(study.search.trials, 'trial')} ({study.search.sampler}) of {paths}, "
            f"then the best {study.search.candidates} are re-evaluated"
        )
        if study.nuisance:
            fixed = counted(plan.looks.at[0], "run")
            lines.append(
                f"{fixed} per arm with the values of the study file are compared with the tuned ones"
            )
    if (fraction := study.fraction) is not None:
        from ablate.analysis.plan import rules  # with pandas and scipy: half a second

        effects = rules(plan.record()).contrasts
        lines.append(
            f"a fraction of all combinations: {fraction.cells} cells, {fraction.words}; {counted(len(effects), 'effect')}"
        )
        lines += [
            f"  {factor} takes the place of the interaction {' × '.join(interaction)}"
            for factor, interaction in fraction.generators.items()
        ]
        lines += [
            f"  {_effect(effect.terms)} cannot be told from {', '.join(map(_effect, effect.aliases))}"
            for effect in effects
            if effect.aliases
        ]
    return [one_line(line) for line in lines]


def _effect(terms: Terms) -> str:
    """Name an effect of a two-level fraction by its factors: each has one level besides the baseline's."""
    return " × ".join(str(term.factor) for term in terms)


def outlook(outlook: Outlook) -> RenderableType:
    """Return what a plan costs and which effects it can detect."""
    from ablate.analysis.intervals import ENOUGH_PAIRS
    from ablate.analysis.plan import rules

    plan, cost = outlook.plan, outlook.cost
    study = plan.study
    scale = rules(plan.record()).scale(outlook.noise.typical)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm", overflow="fold")
    # What nobody knows of training by the user's own code has no column.
    sizes = {
        "parameters": [f"{arm.parameters:,}" if arm.parameters else "" for arm in cost.arms],
        "MFLOP per image": [f"{arm.flops / 1e6:,.2f}" if arm.flops else "" for arm in cost.arms],
    }
    sizes = {title: cells for title, cells in sizes.items() if any(cells)}
    for title in (*sizes, "per run", "runs", "in all"):
        table.add_column(title, justify="right")
    for number, arm in enumerate(cost.arms):
        table.add_row(
            one_line(arm.arm),
            *(cells[number] for cells in sizes.values()),
            _span(arm.seconds, arm.seconds),
            str(arm.first) if arm.first == arm.most else f"{arm.first}–{arm.most}",
            _span(
                None if arm.seconds is None else arm.seconds * arm.first,
                None if arm.seconds is None else arm.seconds * arm.most,
            ),
        )
    lines: list[RenderableType] = [table, one_line(""), *_data_notes(plan), *design(plan)]
    runs = counted(cost.runs_first, "run")
    if cost.runs_most > cost.runs_first:
        runs = f"{cost.runs_first:,}–{counted(cost.runs_most, 'run')}"
    is_done = "is" if outlook.done == 1 else "are"
    done = f"; {counted(outlook.done, 'run')} {is_done} done already" if outlook.done else ""
    arms, slots = counted(len(cost.arms), "arm"), counted(outlook.slots, "slot")
    time = (
        f": about {_span(cost.first, cost.most)}"
        if cost.first is not None
        else "; how long they take is known once a run of each arm has finished"
    )
    lines.append(one_line(f"{arms}, {runs} on {slots}{time}{done}"))
    lines += _seed_matters(outlook)
    if study.space:
        return Group(*lines)
    sd, most = outlook.noise.sd, outlook.noise.most
    # The most that an assumed noise may be, as a multiple of the least.
    spread = 1.0 if sd is None or most is None else most / sd
    difference = "a difference of two runs" if study.unpaired else "a paired difference"
    if study.design in ("factorial", "fractional"):
        difference = "an effect"
    if sd is None:
        lines.append(one_line(f"noise of {difference} {outlook.noise.source}"))
    else:
        shown = _from_to(sd * scale.factor, spread, scale.unit)
        lines.append(one_line(f"noise of {difference}: {shown} ({outlook.noise.source})"))
    if taken := plan.looks.at[: plan.looks.taken]:
        judged = joined([str(pairs) for pairs in taken])
        lines.append(
            one_line(
                f"judged at {judged} seeds so far, of {plan.looks.most} at most: a look beyond the most is an extra one, at a small part"
                " of the error"
            )
        )
    for reach, in_sds in zip(outlook.reaches, outlook.in_sds, strict=True):
        seeds = (
            f"{counted(reach.pairs, 'run')} of each arm" if study.unpaired else counted(reach.pairs, "seed")
        )
        if reach.pairs > plan.looks.most:
            seeds += ", an extra look,"
        detect = "detects" if reach.pairs == 1 else "detect"
        if reach.pairs < ENOUGH_PAIRS:
            give = "gives" if reach.pairs == 1 else "give"
            lines.append(
                one_line(f"{seeds} {give} no interval: at least {ENOUGH_PAIRS} are needed", style="yellow")
            )
        elif sd is None:
            lines.append(
                one_line(
                    f"{seeds} {detect} about {in_sds:.2f} standard deviations of {difference} with 80 % power"
                )
            )
        else:
            shown = _from_to(reach.effect * scale.factor, spread, scale.unit)
            text = f"{seeds} {detect} about {shown} with 80 % power"
            if reach.effect * spread <= study.margin:
                lines.append(one_line(text))
            else:
                is_out = f"{'may be' if reach.within else 'is'} out of reach"
                lines.append(
                    one_line(
                        f"{text}; the margin of {study.margin * scale.factor:g} {is_out}", style="yellow"
                    )
                )
    if plan.resolution and study.margin < 2 * plan.resolution:
        step = f"{plan.resolution * scale.factor:.2g}"
        lines.append(
            one_line(f"the margin is less than two steps of the metric ({step} each)", style="yellow")
        )
    return Group(*lines)


def _from_to(least: float, spread: float, unit: str) -> str:
    """Write a number with its unit, or the range from it to `spread` times it."""
    low, high = f"{least:.2g}", f"{least * spread:.2g}"
    return measured(low if low == high else f"{low} to {high}", unit)


def _seed_matters(outlook: Outlook) -> list[Text]:
    """Say what the seed does to the user's own training, where that was checked."""
    check, unpaired = outlook.seed, outlook.plan.study.unpaired
    if check is None:
        return []
    match check.verdict:
        case "fixed" if unpaired:
            advice = (
                "without `unpaired: true` runs of one seed are compared with each other, which is sharper"
            )
            return [one_line(f"a seed fixes a run of the baseline: {advice}", style="yellow")]
        case "fixed":
            return [one_line("a seed fixes a run of the baseline, and another seed changes it")]
        case "never repeatable" if unpaired:
            return [
                one_line("two runs of the baseline under one seed differ, so that no two runs are a pair")
            ]
        case "never repeatable":
            advice = (
                "seed all that is random, or say `unpaired: true`, and arms are compared as groups of runs"
            )
            return [one_line(f"two runs of the baseline under one seed differ: {advice}", style="yellow")]
    return [one_line(f"whether the seed matters is not known: {check.reason}", style="yellow")]


def _span(first: float | None, most: float | None) -> str:
    """Write a range of seconds, or one duration where both ends read the same."""
    if first is None or most is None:
        return "unknown"
    low, high = map(format_short_duration, (first, most))
    return low if low == high else f"{low} to {high}"


class _Hanging:
    """A sentence of a list: further lines are indented at a terminal; in a file or a pipe it is one line."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.no_wrap:
            yield one_line("  ").append_text(self._text)
            return
        for number, line in enumerate(self._text.wrap(console, max(20, options.max_width - 4))):
            line.rstrip()
            yield one_line("    " if number else "  ").append_text(line)


def paragraphs(lines: Iterable[AnswerLine]) -> RenderableType:
    """Return lines as they are printed."""
    return Group(
        *(
            _Hanging(one_line(line.text, style=line.style))
            if line.is_item
            else one_line(line.text, style=line.style)
            for line in lines
        )
    )


def verdicts(analysis: Analysis, study: str) -> list[AnswerLine]:
    """Return the result of a study of that name: its headline, a sentence per arm, and what would settle the undecided ones."""
    from ablate.analysis import headline, sentence
    from ablate.analysis.words import beyond, caution, subject, verdict_word

    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    lines = [
        (sentence(item, analysis.rules), VERDICT_STYLE.get(verdict_word(item), "magenta")) for item in items
    ]
    for check, title in ((analysis.aa, "A/A check"), (analysis.confirmation, "confirmation")):
        if check is not None:
            lines.append((f"{title}: {sentence(check, analysis.rules)}", "dim"))
    lines += [
        (f"note: {caution(c, analysis.rules, subject(c, analysis.rules))}", "dim")
        for c in analysis.warnings
        # The methods of a report say which runs were stacked, and nobody needs to act on it; the headline has said the error.
        if c.code != "stacked-and-single" and c != analysis.error
    ]
    if (price := beyond(analysis, study)) is not None:
        lines.append((price, ""))
    return [
        AnswerLine(headline(analysis), "bold"),
        *(AnswerLine(text, style, is_item=True) for text, style in lines),
    ]


def candidates(record: PlanRecord) -> list[AnswerLine]:
    """Return the candidates of a search, best first. They have no verdicts: they were chosen because they looked best."""
    if not record.tuned or record.search is None:
        return [AnswerLine("the search is not over yet")]
    (tuned,) = record.tuned.values()
    metric = record.metric
    cost = record.search.cost
    title = "candidates, best first; they were chosen because they looked best, and have no verdict"
    lines = [AnswerLine(title, "bold")]
    for number, candidate in enumerate(tuned.candidates, 1):
        mean = "diverged" if candidate.mean is None else f"{metric} {candidate.mean:.4f}"
        costs = "" if candidate.cost is None else f", {cost} {candidate.cost:.4g}"
        values = ", ".join(f"{path}={format_tried(candidate.values[path])}" for path in record.space)
        lines.append(
            AnswerLine(f"  {number}. {mean}{costs} over {counted(candidate.runs, 'seed')}: {values}")
        )
    lines += [
        AnswerLine(f"  the best {path} lies at the {end} end of its range", "yellow")
        for path, end in tuned.edge.items()
    ]
    for method, shares in record.importances.items():
        order = sorted(shares, key=lambda path: -shares[path])
        ranked = ", ".join(f"{path} ({shares[path]:.2f})" for path in order)
        lines.append(AnswerLine(f"  {method} ranks: {ranked}; a ranking, not a verdict", "dim"))
    return lines


BAR = 24
"""Characters of the longest bar in the terminal."""


def _figure(value: float | None) -> str:
    """Return a number in at most 12 characters, with four decimals where they fit and say something; empty for None."""
    if value is None:
        return ""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"


def rate_sweep(result: RateSweep, settings: str) -> str:
    """Return what each training of a sweep came to, a line for each, and the suggestion. settings: it as a study file has it."""
    from ablate.analysis.rates import merits

    rules = result.rules
    merit_of = {is_whole: merits(rules, result.trials, is_whole=is_whole) for is_whole in (False, True)}
    names = list(dict.fromkeys([rules.ranked_by, rules.metric]))
    widths = [max(12, len(name)) for name in names]
    titles = "".join(f" {name:>{width}}" for name, width in zip(names, widths, strict=True))
    lines = [f"{'rate':>8} {'epochs':>6}{titles}"]
    for trial in sorted(result.trials, key=lambda trial: (trial.is_whole, trial.rate, trial.seed)):
        values = [trial.score, trial.value][-len(names) :]
        numbers = "".join(f" {_figure(v):>{width}}" for v, width in zip(values, widths, strict=True))
        merit = merit_of[trial.is_whole]
        low, high = min(merit.values()), max(merit.values())
        share = (merit[trial.rate] - low) / (high - low) if high > low else 0.0
        mark = "█" * round(share * BAR) if trial.outcome == "finished" else trial.outcome
        lines.append(f"{trial.rate:8g} {trial.epochs:6}{numbers}  {mark}".rstrip())
    if result.suggestion is None:
        return "\n".join([*lines, "", f"no suggestion: {result.reason}"])
    return "\n".join(
        [*lines, "", f"suggested: {result.suggestion:g}", *result.limits, "in the study:", "", settings]
    )
