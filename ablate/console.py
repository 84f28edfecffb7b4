"""Everything that is shown in the terminal: progress while a study runs, tables of plans and studies, verdicts."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ablate.events import EpochEnd, Event, Failed, Finished
from ablate.kept_answer import AnswerLine
from ablate.scheduling.observer import Observer
from ablate.study.record import PlanRecord
from ablate.study.seeds import NOISE_FLOOR, Phase, is_reported, replicate_of
from ablate.text import (
    counted,
    cut,
    format_duration,
    format_short_duration,
    format_tried,
    measured,
    shown,
    visible,
)

if TYPE_CHECKING:
    from ablate.analysis import Analysis, Comparison, Effect
    from ablate.analysis.family import Terms
    from ablate.analysis.rates import RateSweep
    from ablate.executors import Slot
    from ablate.launch import Preview
    from ablate.scheduling.outlook import Outlook
    from ablate.standing import Standing
    from ablate.study.design import Plan, Run


def _line(text: str, style: str = "") -> Text:
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

WAITING, RUNNING, FINISHED, DIVERGED, FAILED = "·", "▸", "■", "≈", "✗"
RUN_BAR, GAP = 10, 2
"""Width of the bar of a run, and of what is between two columns."""

FORETOLD_FROM = 0.5
"""Share of the first run that has to be done before the time left is shown."""

WIDE = 100
"""Characters of a line in which there is room for the bars of runs too."""

SHORTEST_ARM = 12
"""Characters of an arm's name that are shown at least."""

STYLE = {WAITING: "dim", RUNNING: "bold cyan", FINISHED: "green", DIVERGED: "yellow", FAILED: "bold red"}
LEGEND = {
    WAITING: "waiting",
    RUNNING: "running",
    FINISHED: "finished",
    DIVERGED: "diverged",
    FAILED: "failed",
}
VERDICT_STYLE = {
    "helps": "bright_blue",
    "hurts": "dark_orange",
    "no practical effect": "bright_black",
    "inconclusive": "yellow",
}
"""The report's colours, as far as a terminal has them: blue helps, orange hurts, grey does neither."""
WIDEST_GRID = 40
SHORTEST_NAME, FEWEST_CELLS = 12, 8
RATE_WINDOW = 30.0
"""Seconds over which images are counted for the rate shown."""

Cell = tuple[str, Phase, int]
"""A place in the grid: arm, phase, and the number of the replicate in it."""


@dataclass
class _Tally:
    """How many runs of a study are done, of how many that are known to be needed. It goes on from look to look, and never back."""

    done: int = 0
    total: int = 0

    def go_on(self, runs: int, done: int, ended: int = 0) -> None:
        """Add what a look, or a search, still lacks. runs: that it needs; done: of these. ended: runs of the study known to be done."""
        self.done = max(self.done, done, ended)
        self.total = self.done + runs - done

    def __str__(self) -> str:
        return f"{self.done}/{self.total}"


class Lines(Observer):
    """Prints a plain line on stderr for every run that ends: for logs and pipes. quiet: prints failures only."""

    def __init__(self, plan: Plan, *, quiet: bool = False) -> None:
        self._plan = plan
        self._quiet = quiet
        self._tally = _Tally()

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        title = (
            f"look {look}: {counted(pairs, 'seed')} per arm"
            if look
            else f"confirmation: {counted(pairs, 'fresh seed')}"
        )
        if self._tally.total:
            self._print(f"{title}, {counted(runs - done, 'more run')}")
        else:
            self._print(f"{title}, {counted(runs, 'run')}" + (f", {done} of them done" if done else ""))
        self._tally.go_on(runs, done)

    def searching(self, runs: int, done: int) -> None:
        self._tally.go_on(runs, done)

    def event(self, run: Run, event: Event) -> None:
        name = f"{run.arm} · seed {run.seed}"
        if run.values:
            tried = ", ".join(f"{path}={format_tried(value)}" for path, value in run.values.items())
            name = f"{run.arm} · {tried}"
        if isinstance(event, Failed) and event.kind == "pruned":
            self._tally.done += 1
            self._print(f"[{self._tally}] {name}: pruned")
        elif isinstance(event, Finished):
            self._tally.done += 1
            seconds = event.metrics.get("time/train_seconds", float("nan"))
            self._print(f"[{self._tally}] {name}: {event.outcome} in {seconds:.1f} s")
        elif isinstance(event, Failed):
            err.print(_line(f"{name}: attempt {event.attempt} failed: {event.reason}", style="red"))

    def note(self, text: str) -> None:
        self._print(text)

    def caution(self, text: str) -> None:
        err.print(_line(text))

    def _print(self, text: str) -> None:
        if not self._quiet:
            err.print(_line(text))


@contextlib.contextmanager
def observer(plan: Plan, *, json: bool, quiet: bool) -> Iterator[Observer]:
    """Yield what shows a study while it runs: JSON lines, the display of a terminal, or plain lines elsewhere."""
    if json:
        yield JsonLines(plan.study.name)
    elif quiet or not is_terminal():
        yield Lines(plan, quiet=quiet)
    else:
        with Display(plan) as display:
            yield display


@contextlib.contextmanager
def preparing(*, quiet: bool) -> Iterator[None]:
    """Show at a terminal that data and plan are being prepared, before there is anything else to show. quiet: show nothing."""
    if quiet or not is_terminal():
        yield
        return
    with err.status("preparing data, networks and the record"):
        yield


class JsonLines(Observer):
    """Prints one JSON object per line on stdout, for programs: see docs/scripting.md. study: its name."""

    def __init__(self, study: str) -> None:
        self._study = study

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        self._print(kind="look", look=look, pairs=pairs, runs=runs, done=done)

    def searching(self, runs: int, done: int) -> None:
        self._print(kind="search", runs=runs, done=done)

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        self._print(kind="running", run=run.key, arm=run.arm, seed=run.seed, slot=slot.name, attempt=attempt)

    def event(self, run: Run, event: Event) -> None:
        line: dict[str, Any] = {
            "kind": "epoch" if isinstance(event, EpochEnd) else type(event).__name__.lower(),
            "run": run.key,
            "arm": run.arm,
            "seed": run.seed,
        }
        for name in ("epoch", "outcome", "reason", "attempt"):
            if hasattr(event, name):
                line[name] = getattr(event, name)
        if isinstance(event, EpochEnd | Finished):
            line["metrics"] = {n: v if math.isfinite(v) else None for n, v in event.metrics.items()}
        self._print(**line)

    def judged(self, analysis: Analysis) -> None:
        from ablate.analysis import to_json

        self._print(kind="verdicts", verdicts=to_json(analysis, self._study))

    def note(self, text: str) -> None:
        self._print(kind="note", text=text)

    @staticmethod
    def _print(**line: Any) -> None:
        print(json.dumps(line), flush=True)


@dataclass
class _Progress:
    """A run that is training. epoch: the last one that ended, of `epochs` where that is known; at: when, in seconds."""

    run: Run
    slot: str
    attempt: int
    epochs: int | None
    at: float
    epoch: int = 0
    value: float | None = None

    @property
    def share(self) -> float:
        return min(1.0, self.epoch / self.epochs) if self.epochs else 0.0


class Display(Observer):
    """A grid of arms × seeds that fills, the state of each slot, effects so far, and the time left. A context manager."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        from ablate.analysis.plan import rules

        self._plan = plan
        self._console = console or err
        self._marks: dict[Cell, str] = {}
        self._values: dict[Cell, float] = {}
        self._verdicts: dict[str, str] = {}
        self._decided: set[str] = set()
        self._running: dict[str, _Progress] = {}
        # Times at which epochs ended, with the images trained on: those of the last RATE_WINDOW, for the rate.
        self._images: deque[tuple[float, int]] = deque()
        self._rules = rules(plan.record())
        self._scale = self._rules.scale()
        self._title = ""
        self._pairs = plan.looks.at[0]
        self._tally, self._ended = _Tally(), 0
        self._began = time.monotonic()
        self._lock = threading.RLock()
        self._live = Live(
            self._picture(),
            console=self._console,
            refresh_per_second=4,
            get_renderable=self._picture,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        with self._lock:
            of_most = f" of at most {most}" if (most := self._plan.looks.most) > pairs else ""
            self._title = (
                f"look {look} · {counted(pairs, 'seed')} per arm{of_most}"
                if look
                else f"confirmation · {counted(pairs, 'fresh seed')} per arm"
            )
            self._go_on(runs, done)
            self._pairs = max(self._pairs, pairs) if look else self._pairs
            self._images.clear()

    def searching(self, runs: int, done: int) -> None:
        with self._lock:
            self._title = "searching"
            self._go_on(runs, done)

    def _go_on(self, runs: int, done: int) -> None:
        ended = sum(mark in (FINISHED, DIVERGED, FAILED) for mark in self._marks.values())
        self._tally.go_on(runs, done, ended)
        self._ended, self._began = 0, time.monotonic()

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        with self._lock:
            epochs = self._plan.config(run).flatten().get("training.epochs")
            known = epochs if isinstance(epochs, int) else None
            self._marks[_cell(run)] = RUNNING
            self._running[run.key] = _Progress(run, slot.name, attempt, known, time.monotonic())

    def event(self, run: Run, event: Event) -> None:
        with self._lock:
            progress = self._running.get(run.key)
            if isinstance(event, EpochEnd) and progress is not None:
                progress.epoch, progress.at = event.epoch, time.monotonic()
                progress.value = event.metrics.get(self._plan.study.metric, progress.value)
                data = self._plan.data.get(run.arm)
                self._images.append((progress.at, data.train if data else 0))
            elif isinstance(event, Finished) or (isinstance(event, Failed) and event.kind == "pruned"):
                self._running.pop(run.key, None)
                self._tally.done += 1
                self._ended += 1
            elif isinstance(event, Failed):
                self._marks[_cell(run)] = FAILED
                self._running.pop(run.key, None)
                self._console.print(
                    _line(
                        f"{run.arm} · seed {run.seed}: attempt {event.attempt} failed: {event.reason}",
                        style="red",
                    )
                )

    def settled(self, run: Run, outcome: str, value: float) -> None:
        with self._lock:
            mark = {"finished": FINISHED, "diverged": DIVERGED}.get(outcome, FAILED)
            self._marks[_cell(run)] = mark
            if mark == FINISHED and math.isfinite(value):
                self._values[_cell(run)] = value

    def judged(self, analysis: Analysis) -> None:
        from ablate.analysis import undecided

        with self._lock:
            self._verdicts = {c.arm: c.verdict for c in analysis.comparisons}
            self._decided = self._verdicts.keys() - set(undecided(analysis))

    def note(self, text: str) -> None:
        self._console.print(_line(text))

    # --- the picture ---

    def _picture(self) -> RenderableType:
        with self._lock:
            head = Text.assemble((self._plan.study.name, "bold"), f"  {self._title}")
            slots = self._slot_table()
            other_lines = 5 + slots.row_count
            grid = self._grid(self._console.height - other_lines)
            marks = [f"{mark} {word}" for mark, word in LEGEND.items() if mark in self._marks.values()]
            return Group(head, self._progress_line(), grid, _line("   ".join(marks), style="dim"), slots)

    def _progress_line(self) -> Text:
        """Return how much of what is known to be needed is done, the images per second, and the time left."""
        now = time.monotonic()
        in_progress = sum(progress.share for progress in self._running.values())
        if not self._tally.total:
            return Text("starting, and looking up what is done already", style="dim")
        done = self._tally.done + in_progress
        parts = [f"{self._tally.done}/{counted(self._tally.total, 'run')}"]
        while self._images and now - self._images[0][0] > RATE_WINDOW:
            self._images.popleft()
        if (images := sum(n for _, n in self._images)) and now - self._began > 1:
            parts.append(f"{images / min(RATE_WINDOW, now - self._began):,.0f} images/s")
        furthest = max((progress.share for progress in self._running.values()), default=0.0)
        # Before a run is half done, most of the time that went by was that of the start.
        if (self._ended or furthest >= FORETOLD_FROM) and (left := self._tally.total - done) > 0:
            ended = self._ended + in_progress
            parts.append(f"about {format_duration((now - self._began) / ended * left)} left")
        return Text.assemble(_bar(done / self._tally.total, 30), "  ", " · ".join(parts))

    def _grid(self, height: int) -> Table:
        arms = list(dict.fromkeys([*self._plan.names, *(arm for arm, _, _ in self._marks)]))
        figures = {arm: self._figures(arm) for arm in arms}
        titles = (self._plan.study.metric, "" if self._rules.factorial else "effect", "")
        figure_width = sum(
            max(len(title), *(cells[i].cell_len for cells in figures.values())) + 2
            for i, title in enumerate(titles)
        )
        # Where the line is short, names are cut before seeds, and seeds before a figure or a verdict.
        free = self._console.width - figure_width - 2
        seeds = max(len(self._cells(arm)) for arm in arms)
        cell_width = min(WIDEST_GRID, max(FEWEST_CELLS, seeds), max(FEWEST_CELLS, free - SHORTEST_NAME))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(max_width=max(SHORTEST_NAME, free - cell_width), no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_row("arm", "seeds", *titles, style="dim")
        shown = arms
        if len(arms) > (room := max(3, height)):
            # Arms that are running come first, then those that are not complete; shown in the order of the plan.
            urgency = {arm: (not self._is_running(arm), self._is_complete(arm)) for arm in arms}
            most_urgent = sorted(arms, key=lambda arm: urgency[arm])[: room - 1]
            shown = [arm for arm in arms if arm in most_urgent]
        for arm in shown:
            grid.add_row(_line(arm), self._cell_marks(arm, cell_width), *figures[arm])
        if len(shown) < len(arms):
            grid.add_row(_line(f"… and {counted(len(arms) - len(shown), 'more arm')}", style="dim"))
        return grid

    def _is_running(self, arm: str) -> bool:
        return any(cell[0] == arm and mark == RUNNING for cell, mark in self._marks.items())

    def _is_complete(self, arm: str) -> bool:
        return arm in self._decided or all(cell in self._marks for cell in self._cells(arm))

    def _cells(self, arm: str) -> list[Cell]:
        """Return an arm's places in the grid: its seeds up to this look, and those that confirm it."""
        phase: Phase = "A/A" if arm == NOISE_FLOOR else "report"
        confirmation = sorted(cell for cell in self._marks if cell[:2] == (arm, "confirm"))
        first = self._plan.study.first_seed
        return [*((arm, phase, first + i) for i in range(self._pairs)), *confirmation]

    def _cell_marks(self, arm: str, width: int) -> Text:
        # A decided arm waits for nothing more.
        waiting = " " if arm in self._decided else WAITING
        marks = [self._marks.get(cell, waiting) for cell in self._cells(arm)]
        text = Text()
        if len(marks) > width:  # finished seeds are cut first, so that the running ones are seen
            first_open = next((i for i, mark in enumerate(marks) if mark in (WAITING, RUNNING)), len(marks))
            start = max(0, min(first_open - width // 2, len(marks) - width))
            marks = marks[start : start + width]
            if start:
                text.append("…", style="dim")
                marks = marks[1:]
        for mark in marks:
            text.append(mark, style=STYLE.get(mark, ""))
        return text

    def _figures(self, arm: str) -> tuple[Text, Text, Text]:
        """Return an arm's mean so far, its mean difference from its reference, and its verdict where it has one."""
        values = self._values_of(arm)
        if not values:
            return Text(), Text(), Text()
        digits = max(0, 1 - math.floor(math.log10(self._rules.margin * self._scale.factor)))
        raw_digits = digits + round(math.log10(self._scale.factor))
        mean = _line(f"{sum(values.values()) / len(values):.{raw_digits}f}")
        reference = self._reference(arm)
        reference_values = self._values_of(reference)
        differences = [v - reference_values[i] for i, v in values.items() if i in reference_values]
        if reference == arm or not differences:
            return mean, Text(), Text()
        effect = self._rules.sign * self._scale.factor * sum(differences) / len(differences)
        verdict = self._verdicts.get(arm)
        state = (
            _line(verdict, style=VERDICT_STYLE.get(verdict, "magenta")) if verdict else _line("so far", "dim")
        )
        return mean, _line(measured(f"{effect:+.{digits}f}".replace("-", "−"), self._scale.unit)), state

    def _values_of(self, arm: str) -> dict[int, float]:
        """Return an arm's values of the metric by replicate, without tuning and confirmation."""
        return {
            i: value for (name, phase, i), value in self._values.items() if name == arm and is_reported(phase)
        }

    def _reference(self, arm: str) -> str:
        """Return the arm that an arm is compared with, or the arm itself where there is none."""
        if arm == NOISE_FLOOR:
            return self._plan.reference
        if self._rules.factorial or arm not in {planned.name for planned in self._plan.arms}:
            return arm
        return self._plan.arm(arm).reference or self._plan.reference

    def _slot_table(self) -> Table:
        """Return what each slot trains, for as many slots as there is room for."""
        by_slot: dict[str, list[_Progress]] = {}
        for progress in self._running.values():
            by_slot.setdefault(progress.slot, []).append(progress)
        room = max(1, self._console.height // 3)
        rows = []
        for slot in sorted(by_slot, key=_by_number)[:room]:
            first, *others = by_slot[slot]
            which = f" · seed {first.run.seed}" + (f" and {len(others)} more" if others else "")
            retry = f"attempt {first.attempt} · " if first.attempt > 1 else ""
            state = f"{retry}starting"
            if first.epoch:
                epochs = f"{first.epoch}/{first.epochs}" if first.epochs else f"{first.epoch}"
                value = f" · {self._plan.study.metric} {first.value:.4f}" if first.value is not None else ""
                state = f"{retry}epoch {epochs}{value}"
            rows.append((slot, first, which, state))
        # Of all that stands here, the name of an arm can be cut: the grid has it whole.
        widest = max((len(slot) + len(which) + len(state) for slot, _, which, state in rows), default=0)
        has_bar = self._console.width >= WIDE
        left = self._console.width - widest - (RUN_BAR + 3 * GAP if has_bar else 2 * GAP)
        table = Table.grid(padding=(0, GAP))
        for _ in range(4 if has_bar else 3):
            table.add_column(no_wrap=True, overflow="ellipsis")
        for slot, progress, which, state in rows:
            name = f"{cut(visible(progress.run.arm), max(left, SHORTEST_ARM))}{which}"
            bar = (_bar(progress.share, RUN_BAR),) if has_bar else ()
            table.add_row(
                _line(slot, style="dim"),
                _line(name),
                *bar,
                _line(state, style="cyan" if progress.epoch else "dim"),
            )
        if len(by_slot) > room:
            table.add_row(_line(f"… and {counted(len(by_slot) - room, 'more slot')}", style="dim"))
        return table


def _cell(run: Run) -> Cell:
    return run.arm, run.phase, replicate_of(run.seed)


def _by_number(slot: str) -> list[tuple[int, str]]:
    """Return a key that sorts cpu-10 after cpu-9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", slot)]


def _bar(share: float, width: int) -> Text:
    full = round(max(0.0, min(1.0, share)) * width)
    return Text.assemble(("━" * full, "green"), ("━" * (width - full), "bright_black"))


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
            _line(f"at most {counted(preview.search_runs, 'run')} of searching and of the fixed comparison")
        )
        if study.space:
            return Group(*lines)
    at_most = f" (at most {preview.most})" if preview.most > preview.first else ""
    arms, first = counted(preview.configurations, "arm"), counted(preview.first, "run")
    lines.append(_line(f"{arms}, {first}{at_most}; margin {study.margin:g} of {study.metric}"))
    if preview.done is None:
        lines.append(_line("The data are not prepared yet, so finished runs cannot be looked up."))
    return Group(*lines)


def _data_notes(plan: Plan) -> list[Text]:
    return [_line(f"data: {note}", style="yellow") for note in plan.data_notes]


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
        table.add_row(_line(name), *seeds, *([str(done.get(name, 0))] if done is not None else []))
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
        verdicts = _line(" · ").join(
            _line(f"{counts[verdict]} {verdict}", style=VERDICT_STYLE.get(verdict, "magenta"))
            for verdict in ranked
        )
        table.add_row(_line(row.study), _line(date, style="dim"), _line(row.state, style="dim"), verdicts)
    return table


def design(plan: Plan) -> list[Text]:
    """Return what a reader of a plan has to know of its design: the steps of a path, tuning, aliases. Often nothing."""
    from ablate.analysis.plan import rules
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
    return [_line(line) for line in lines]


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
            _line(arm.arm),
            *(cells[number] for cells in sizes.values()),
            _span(arm.seconds, arm.seconds),
            str(arm.first) if arm.first == arm.most else f"{arm.first}–{arm.most}",
            _span(
                None if arm.seconds is None else arm.seconds * arm.first,
                None if arm.seconds is None else arm.seconds * arm.most,
            ),
        )
    lines: list[RenderableType] = [table, _line(""), *_data_notes(plan), *design(plan)]
    runs = counted(cost.runs_first, "run")
    if cost.runs_most > cost.runs_first:
        runs = f"{cost.runs_first:,}–{counted(cost.runs_most, 'run')}"
    arms, slots = counted(len(cost.arms), "arm"), counted(outlook.slots, "slot")
    time = (
        f": about {_span(cost.first, cost.most)}"
        if cost.first is not None
        else "; how long they take is known once a run of each arm has finished"
    )
    lines.append(_line(f"{arms}, {runs} on {slots}{time}"))
    lines += _seed_matters(outlook)
    if study.space:
        return Group(*lines)
    sd = outlook.noise.sd
    difference = "a difference of two runs" if study.unpaired else "a paired difference"
    if study.design in ("factorial", "fractional"):
        difference = "an effect"
    if sd is None:
        lines.append(_line(f"noise of {difference} {outlook.noise.source}"))
    else:
        shown = measured(f"{sd * scale.factor:.2g}", scale.unit)
        lines.append(_line(f"noise of {difference}: {shown} ({outlook.noise.source})"))
    for reach, in_sds in zip(outlook.reaches, outlook.in_sds, strict=True):
        seeds = (
            f"{counted(reach.pairs, 'run')} of each arm" if study.unpaired else counted(reach.pairs, "seed")
        )
        detect = "detects" if reach.pairs == 1 else "detect"
        if reach.pairs < ENOUGH_PAIRS:
            give = "gives" if reach.pairs == 1 else "give"
            lines.append(
                _line(f"{seeds} {give} no interval: at least {ENOUGH_PAIRS} are needed", style="yellow")
            )
        elif sd is None:
            lines.append(
                _line(
                    f"{seeds} {detect} about {in_sds:.2f} standard deviations of {difference} with 80 % power"
                )
            )
        else:
            shown = measured(f"{reach.effect * scale.factor:.2g}", scale.unit)
            text = f"{seeds} {detect} about {shown} with 80 % power"
            if reach.within:
                lines.append(_line(text))
            else:
                margin = f"the margin of {study.margin * scale.factor:g} is out of reach"
                lines.append(_line(f"{text}; {margin}", style="yellow"))
    if plan.resolution and study.margin < 2 * plan.resolution:
        step = f"{plan.resolution * scale.factor:.2g}"
        lines.append(_line(f"the margin is less than two steps of the metric ({step} each)", style="yellow"))
    return Group(*lines)


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
            return [_line(f"a seed fixes a run of the baseline: {advice}", style="yellow")]
        case "fixed":
            return [_line("a seed fixes a run of the baseline, and another seed changes it")]
        case "never repeatable" if unpaired:
            return [_line("two runs of the baseline under one seed differ, so that no two runs are a pair")]
        case "never repeatable":
            advice = (
                "seed all that is random, or say `unpaired: true`, and arms are compared as groups of runs"
            )
            return [_line(f"two runs of the baseline under one seed differ: {advice}", style="yellow")]
    return [_line(f"whether the seed matters is not known: {check.reason}", style="yellow")]


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
            yield _line("  ").append_text(self._text)
            return
        for number, line in enumerate(self._text.wrap(console, max(20, options.max_width - 4))):
            line.rstrip()
            yield _line("    " if number else "  ").append_text(line)


def paragraphs(lines: Iterable[AnswerLine]) -> RenderableType:
    """Return lines as they are printed."""
    return Group(
        *(
            _Hanging(_line(line.text, style=line.style))
            if line.is_item
            else _line(line.text, style=line.style)
            for line in lines
        )
    )


def verdicts(analysis: Analysis, study: str) -> list[AnswerLine]:
    """Return the result of a study of that name: its headline, a sentence per arm, and what would settle the undecided ones."""
    from ablate.analysis import headline, sentence
    from ablate.analysis.words import beyond, caution, subject

    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    lines = [(sentence(item, analysis.rules), VERDICT_STYLE.get(item.verdict, "magenta")) for item in items]
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


def rate_sweep(result: RateSweep, settings: str) -> str:
    """Return what each training of a sweep came to, a line for each, and the suggestion. settings: it as a study file has it."""
    from ablate.analysis.rates import merits

    rules = result.rules
    merit_of = {is_whole: merits(rules, result.trials, is_whole=is_whole) for is_whole in (False, True)}
    names = list(dict.fromkeys([rules.ranked_by, rules.metric]))
    lines = [f"{'rate':>8} {'epochs':>6}" + "".join(f" {name:>12}" for name in names)]
    for trial in sorted(result.trials, key=lambda trial: (trial.is_whole, trial.rate, trial.seed)):
        values = [trial.score, trial.value][-len(names) :]
        numbers = "".join(" " * 13 if value is None else f" {value:12.4f}" for value in values)
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


def is_terminal() -> bool:
    return sys.stderr.isatty()
