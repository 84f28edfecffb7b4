"""How a study is shown while it runs: the display of a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.console import VERDICT_STYLE, err, one_line
from ablate.events import EpochEnd, Event, Failed, Finished, is_last
from ablate.scheduling.observer import JudgedLook, Observer
from ablate.study.seeds import NOISE_FLOOR, Phase, is_reported, replicate_of
from ablate.text import counted, cut, format_duration, format_tried, measured, visible

if TYPE_CHECKING:
    from ablate.executors import Slot
    from ablate.study.design import Plan, Run

WAITING, RUNNING, FINISHED, DIVERGED, FAILED = "·", "▸", "■", "≈", "✗"
STYLE = {WAITING: "dim", RUNNING: "bold cyan", FINISHED: "green", DIVERGED: "yellow", FAILED: "bold red"}
LEGEND = {
    WAITING: "waiting",
    RUNNING: "running",
    FINISHED: "finished",
    DIVERGED: "diverged",
    FAILED: "failed",
}
RUN_BAR, GAP = 10, 2
"""Width of the bar of a run, and of what is between two columns."""

FORETOLD_FROM = 0.5
"""Share of the first run that has to be done before the time left is shown."""

WIDE = 100
"""Characters of a line in which there is room for the bars of runs too."""

SHORTEST_ARM = 12
"""Characters of an arm's name that are shown at least."""

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
            self._print(
                f"[{self._tally}] {name}: {event.outcome} in {seconds:.1f} s{_why_diverged(event, ': ')}"
            )
        elif isinstance(event, Failed):
            err.print(one_line(f"{name}: attempt {event.attempt} failed: {event.reason}", style="red"))

    def note(self, text: str) -> None:
        self._print(text)

    def caution(self, text: str) -> None:
        err.print(one_line(text))

    def _print(self, text: str) -> None:
        if not self._quiet:
            err.print(one_line(text))


def _why_diverged(event: Finished, before: str = "") -> str:
    reason = event.facts.get("reason") if event.outcome == "diverged" else None
    return f"{before}{reason}" if reason else ""


@contextlib.contextmanager
def observer(plan: Plan, *, json: bool, quiet: bool) -> Iterator[Observer]:
    """Yield what shows a study while it runs: JSON lines, the display of a terminal, or plain lines elsewhere."""
    if json:
        yield JsonLines()
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
    """Prints one JSON object per line on stdout, for programs: see docs/scripting.md."""

    def __init__(self) -> None:
        self._epochs: dict[str, dict[int, Mapping[str, float]]] = {}  # of each run that trains

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
        if isinstance(event, Finished) and (reason := _why_diverged(event)):
            line["reason"] = reason
        if isinstance(event, EpochEnd):
            self._epochs.setdefault(run.key, {})[event.epoch] = event.metrics
        if isinstance(event, EpochEnd | Finished):
            metrics = dict(event.metrics)
            if isinstance(
                event, Finished
            ):  # the result is both: what the epoch that counts gave, and what was known at the end
                metrics = {**self._epochs.get(run.key, {}).get(event.epoch, {}), **metrics}
            line["metrics"] = {n: v if math.isfinite(v) else None for n, v in metrics.items()}
        if is_last(event):
            self._epochs.pop(run.key, None)
        self._print(**line)

    def judged(self, look: JudgedLook) -> None:
        from ablate.report import Material, verdicts

        self._print(kind="verdicts", verdicts=verdicts(Material(look.record, look.analysis, look.replicates)))

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
                    one_line(
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

    def judged(self, look: JudgedLook) -> None:
        from ablate.analysis import undecided

        with self._lock:
            self._verdicts = {c.arm: c.verdict for c in look.analysis.comparisons}
            self._decided = self._verdicts.keys() - set(undecided(look.analysis))

    def note(self, text: str) -> None:
        self._console.print(one_line(text))

    # --- the picture ---

    def _picture(self) -> RenderableType:
        with self._lock:
            head = Text.assemble((self._plan.study.name, "bold"), f"  {self._title}")
            slots = self._slot_table()
            other_lines = 5 + slots.row_count
            grid = self._grid(self._console.height - other_lines)
            marks = [f"{mark} {word}" for mark, word in LEGEND.items() if mark in self._marks.values()]
            return Group(head, self._progress_line(), grid, one_line("   ".join(marks), style="dim"), slots)

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
        widths = [
            max(len(title), *(cells[i].cell_len for cells in figures.values()))
            for i, title in enumerate(titles)
        ]
        # Where the line is short, names are cut before seeds, and seeds before a figure or a verdict.
        free = (
            self._console.width - sum(width + 2 for width in widths) - 3
        )  # of which rich before 14 takes one
        seeds = max(len(self._cells(arm)) for arm in arms)
        cell_width = min(WIDEST_GRID, max(FEWEST_CELLS, seeds), max(FEWEST_CELLS, free - SHORTEST_NAME))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(max_width=max(SHORTEST_NAME, free - cell_width), no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True, min_width=min(cell_width, seeds))
        for at, width in enumerate(widths):  # rich before 14 would cut these, too
            grid.add_column(justify="left" if at == 2 else "right", no_wrap=True, min_width=width)
        grid.add_row("arm", "seeds", *titles, style="dim")
        shown = arms
        if len(arms) > (room := max(3, height)):
            # Arms that are running come first, then those that are not complete; shown in the order of the plan.
            urgency = {arm: (not self._is_running(arm), self._is_complete(arm)) for arm in arms}
            most_urgent = sorted(arms, key=lambda arm: urgency[arm])[: room - 1]
            shown = [arm for arm in arms if arm in most_urgent]
        for arm in shown:
            grid.add_row(one_line(arm), self._cell_marks(arm, cell_width), *figures[arm])
        if len(shown) < len(arms):
            grid.add_row(one_line(f"… and {counted(len(arms) - len(shown), 'more arm')}", style="dim"))
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
        mean = one_line(f"{sum(values.values()) / len(values):.{raw_digits}f}")
        reference = self._reference(arm)
        reference_values = self._values_of(reference)
        differences = [v - reference_values[i] for i, v in values.items() if i in reference_values]
        if reference == arm or not differences:
            return mean, Text(), Text()
        effect = self._rules.sign * self._scale.factor * sum(differences) / len(differences)
        verdict = self._verdicts.get(arm)
        state = (
            one_line(verdict, style=VERDICT_STYLE.get(verdict, "magenta"))
            if verdict
            else one_line("so far", "dim")
        )
        return mean, one_line(measured(f"{effect:+.{digits}f}".replace("-", "−"), self._scale.unit)), state

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
                one_line(slot, style="dim"),
                one_line(name),
                *bar,
                one_line(state, style="cyan" if progress.epoch else "dim"),
            )
        if len(by_slot) > room:
            table.add_row(one_line(f"… and {counted(len(by_slot) - room, 'more slot')}", style="dim"))
        return table


def _cell(run: Run) -> Cell:
    return run.arm, run.phase, replicate_of(run.seed)


def _by_number(slot: str) -> list[tuple[int, str]]:
    """Return a key that sorts cpu-10 after cpu-9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", slot)]


def _bar(share: float, width: int) -> Text:
    full = round(max(0.0, min(1.0, share)) * width)
    return Text.assemble(("━" * full, "green"), ("━" * (width - full), "bright_black"))


def is_terminal() -> bool:
    return sys.stderr.isatty()
