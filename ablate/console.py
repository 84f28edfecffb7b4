"""What a person sees in the terminal: progress while a study runs, tables, verdicts."""

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
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ablate.events import EpochEnd, Event, Failed, Finished
from ablate.scheduling.coordinate import Observer
from ablate.study.seeds import NOISE_FLOOR
from ablate.text import counted

if TYPE_CHECKING:
    from ablate.analysis import Analysis, Comparison, Effect
    from ablate.analysis.family import Terms
    from ablate.analysis.rates import RangeTest
    from ablate.executors import Slot
    from ablate.launch import Preview
    from ablate.scheduling.outlook import Outlook
    from ablate.study.design import Plan, Run

# Lines are broken for a reader at a terminal alone: in a file or a pipe a sentence is a line.
err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())

WAITING, RUNNING, FINISHED, DIVERGED, FAILED = "·", "▸", "■", "≈", "✗"
STYLE = {WAITING: "dim", RUNNING: "bold cyan", FINISHED: "green", DIVERGED: "yellow", FAILED: "bold red"}
WORDS = {
    WAITING: "waiting",
    RUNNING: "running",
    FINISHED: "finished",
    DIVERGED: "diverged",
    FAILED: "failed",
}
VERDICT_STYLE = {"helps": "green", "hurts": "red", "no practical effect": "blue", "inconclusive": "yellow"}
WIDEST_GRID = 40
SHORTEST_NAME, FEWEST_CELLS = 12, 8
RATE_OVER = 30.0
"""Seconds over which images are counted for their rate."""


class Lines(Observer):
    """Plain lines on stderr, one a finished run: for logs and pipes. quiet: only what went wrong."""

    def __init__(self, plan: Plan, *, quiet: bool = False) -> None:
        self._plan = plan
        self._quiet = quiet
        self._done = self._of = 0

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        self._done, self._of = done, runs
        title = f"look {look}: {pairs} seeds an arm" if look else f"confirmation: {pairs} fresh seeds"
        self._say(f"{title}, {runs} runs" + (f", {done} of them done" if done else ""))

    def searching(self, runs: int, done: int) -> None:
        self._done, self._of = done, runs

    def event(self, run: Run, event: Event) -> None:
        name = f"{run.arm} · seed {run.seed}"
        if run.values:
            name = f"{run.arm} · {', '.join(f'{path}={_short(value)}' for path, value in run.values.items())}"
        if isinstance(event, Failed) and event.kind == "pruned":
            self._done += 1
            self._say(f"[{self._done}/{self._of}] {name}: pruned")
        elif isinstance(event, Finished):
            self._done += 1
            seconds = event.metrics.get("time/train_seconds", float("nan"))
            self._say(f"[{self._done}/{self._of}] {name}: {event.outcome} in {seconds:.1f} s")
        elif isinstance(event, Failed):
            err.print(Text(f"{name}: attempt {event.attempt} failed: {event.reason}", style="red"))

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        if not self._quiet:
            err.print(Text(text))


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
    """Says at a terminal that something is going on before there is anything to show. quiet: says nothing."""
    if quiet or not is_terminal():
        yield
        return
    with err.status("preparing: data, networks, the record"):
        yield


class JsonLines(Observer):
    """One JSON object a line on stdout: for machines. study: its name."""

    def __init__(self, study: str) -> None:
        self._study = study

    def looking(self, look: int, pairs: int, runs: int, done: int) -> None:
        self._put(kind="look", look=look, pairs=pairs, runs=runs, done=done)

    def searching(self, runs: int, done: int) -> None:
        self._put(kind="search", runs=runs, done=done)

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        self._put(kind="running", run=run.key, arm=run.arm, seed=run.seed, slot=slot.name, attempt=attempt)

    def event(self, run: Run, event: Event) -> None:
        what: dict[str, Any] = {
            "kind": "epoch" if isinstance(event, EpochEnd) else type(event).__name__.lower(),
            "run": run.key,
            "arm": run.arm,
            "seed": run.seed,
        }
        for name in ("epoch", "outcome", "reason", "attempt"):
            if hasattr(event, name):
                what[name] = getattr(event, name)
        if isinstance(event, EpochEnd | Finished):
            what["metrics"] = {n: v if math.isfinite(v) else None for n, v in event.metrics.items()}
        self._put(**what)

    def judged(self, analysis: Analysis) -> None:
        from ablate.analysis import to_json

        self._put(kind="verdicts", verdicts=to_json(analysis, self._study))

    def note(self, text: str) -> None:
        self._put(kind="note", text=text)

    @staticmethod
    def _put(**what: Any) -> None:
        print(json.dumps(what), flush=True)


@dataclass
class _Progress:
    """A run under way. epoch: the last that ended, of `epochs` where that is known; at: when, in seconds."""

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
    """A grid of arms × seeds that fills, what each slot is doing, effects so far, and the time left. A context manager."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        from ablate.analysis.plan import rules

        self._plan = plan
        self._console = console or err
        self._marks: dict[tuple[str, int], str] = {}
        self._values: dict[tuple[str, int], float] = {}
        self._verdicts: dict[str, str] = {}
        self._decided: set[str] = set()
        self._at: dict[str, _Progress] = {}
        # When images were trained on, and how many: the last half minute's, for their rate.
        self._trained: deque[tuple[float, int]] = deque()
        self._rules = rules(plan.record())
        self._scale = self._rules.scale()
        self._look = ""
        self._pairs = plan.study.looks[0]
        self._of = self._done = self._ended = 0
        self._since = time.monotonic()
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
            looks = len(self._plan.study.looks)
            of = f" of {looks}" if 1 < looks >= look else ""
            self._look = (
                f"look {look}{of} · {pairs} seeds an arm"
                if look
                else f"confirmation · {pairs} fresh seeds an arm"
            )
            self._of, self._done, self._ended, self._since = runs, done, 0, time.monotonic()
            self._pairs = max(self._pairs, pairs) if look else self._pairs
            self._trained.clear()

    def searching(self, runs: int, done: int) -> None:
        with self._lock:
            self._look = "searching"
            self._of, self._done, self._ended, self._since = runs, done, 0, time.monotonic()

    def running(self, run: Run, slot: Slot, attempt: int) -> None:
        with self._lock:
            epochs = self._plan.config(run).flatten().get("training.epochs")
            known = epochs if isinstance(epochs, int) else None
            self._marks[run.arm, run.seed] = RUNNING
            self._at[run.key] = _Progress(run, slot.name, attempt, known, time.monotonic())

    def event(self, run: Run, event: Event) -> None:
        with self._lock:
            doing = self._at.get(run.key)
            if isinstance(event, EpochEnd) and doing is not None:
                doing.epoch, doing.at = event.epoch, time.monotonic()
                doing.value = event.metrics.get(self._plan.study.metric)
                data = self._plan.data.get(run.arm)
                self._trained.append((doing.at, data.train if data else 0))
            elif isinstance(event, Finished) or (isinstance(event, Failed) and event.kind == "pruned"):
                self._at.pop(run.key, None)
                self._done += 1
                self._ended += 1
            elif isinstance(event, Failed):
                self._marks[run.arm, run.seed] = FAILED
                self._at.pop(run.key, None)
                self._console.print(
                    Text(
                        f"{run.arm} · seed {run.seed}: attempt {event.attempt} failed: {event.reason}",
                        style="red",
                    )
                )

    def settled(self, run: Run, outcome: str, value: float) -> None:
        with self._lock:
            mark = {"finished": FINISHED, "diverged": DIVERGED}.get(outcome, FAILED)
            self._marks[run.arm, run.seed] = mark
            if mark == FINISHED and math.isfinite(value):
                self._values[run.arm, run.seed] = value

    def judged(self, analysis: Analysis) -> None:
        from ablate.analysis import undecided

        with self._lock:
            self._verdicts = {c.arm: c.verdict for c in analysis.comparisons}
            self._decided = self._verdicts.keys() - set(undecided(analysis))

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    # --- the picture ---

    def _picture(self) -> RenderableType:
        with self._lock:
            head = Text.assemble((self._plan.study.name, "bold"), f"  {self._look}")
            slots = self._working()
            used = 5 + slots.row_count
            parts: list[RenderableType] = [head, self._whole(), self._grid(self._console.height - used)]
            marks = [f"{mark} {word}" for mark, word in WORDS.items() if mark in self._marks.values()]
            parts.append(Text("   ".join(marks), style="dim"))
            return Group(*parts, slots)

    def _whole(self) -> Text:
        """How much of the look is done, how fast it goes, and what is left."""
        now = time.monotonic()
        under_way = sum(doing.share for doing in self._at.values())
        done = self._done + under_way
        said = [f"{self._done}/{self._of} runs"]
        while self._trained and now - self._trained[0][0] > RATE_OVER:
            self._trained.popleft()
        if (images := sum(n for _, n in self._trained)) and now - self._since > 1:
            said.append(f"{images / min(RATE_OVER, now - self._since):,.0f} images/s")
        if (progress := self._ended + under_way) > 0 and (left := self._of - done) > 0:
            said.append(f"about {duration((now - self._since) / progress * left)} left")
        return Text.assemble(_bar(done / self._of if self._of else 0, 30), "  ", " · ".join(said))

    def _grid(self, height: int) -> Table:
        known = list(dict.fromkeys([*self._plan.names, *(arm for arm, _ in self._marks)]))
        against = "" if self._rules.factorial else "effect"
        figures = {arm: self._figures(arm) for arm in known}
        titles = (self._plan.study.metric, against, "")
        taken = sum(
            max(len(title), *(said[i].cell_len for said in figures.values())) + 2
            for i, title in enumerate(titles)
        )
        # Where the line is short, names are cut before seeds, and seeds before a figure or a verdict.
        free = self._console.width - taken - 2
        seeds = max(len(self._seeds(arm)) for arm in known)
        cells = min(WIDEST_GRID, max(FEWEST_CELLS, seeds), max(FEWEST_CELLS, free - SHORTEST_NAME))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(max_width=max(SHORTEST_NAME, free - cells), no_wrap=True, overflow="ellipsis")
        grid.add_column(no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True)
        grid.add_row("arm", "seeds", *titles, style="dim")
        shown = known
        if len(known) > (room := max(3, height)):
            # What is under way comes first, then what is not done; in the order of the plan again.
            urgency = {arm: (not self._has(arm, RUNNING), self._complete(arm)) for arm in known}
            first = sorted(known, key=lambda arm: urgency[arm])[: room - 1]
            shown = [arm for arm in known if arm in first]
        for arm in shown:
            grid.add_row(Text(arm), self._cells(arm, cells), *figures[arm])
        if len(shown) < len(known):
            grid.add_row(Text(f"… and {len(known) - len(shown)} more arms", style="dim"))
        return grid

    def _has(self, arm: str, mark: str) -> bool:
        return any(a == arm and m == mark for (a, _), m in self._marks.items())

    def _complete(self, arm: str) -> bool:
        return arm in self._decided or all((arm, seed) in self._marks for seed in self._seeds(arm))

    def _seeds(self, arm: str) -> list[int]:
        base = 1000 if arm == NOISE_FLOOR else 0
        fresh = sorted(seed for of, seed in self._marks if of == arm and seed >= 3000)
        return [*range(base, base + self._pairs), *fresh]

    def _cells(self, arm: str, room: int) -> Text:
        # What is decided waits for nothing more.
        waits = " " if arm in self._decided else WAITING
        marks = [self._marks.get((arm, seed), waits) for seed in self._seeds(arm)]
        cells = Text()
        if len(marks) > room:  # what is done gives way to what is under way
            under_way = next((i for i, mark in enumerate(marks) if mark in (WAITING, RUNNING)), len(marks))
            first = max(0, min(under_way - room // 2, len(marks) - room))
            marks = marks[first : first + room]
            if first:
                cells.append("…", style="dim")
                marks = marks[1:]
        for mark in marks:
            cells.append(mark, style=STYLE.get(mark, ""))
        return cells

    def _figures(self, arm: str) -> tuple[Text, Text, Text]:
        """Mean of an arm's seeds so far, its mean difference from its reference, and its verdict where it has one."""
        mine = {seed % 1000: v for (of, seed), v in self._values.items() if of == arm and seed < 2000}
        if not mine:
            return Text(), Text(), Text()
        digits = max(0, 1 - math.floor(math.log10(self._rules.margin * self._scale.factor)))
        raw = digits + round(math.log10(self._scale.factor))
        mean = Text(f"{sum(mine.values()) / len(mine):.{raw}f}")
        reference = self._reference(arm)
        pairs = [v - self._values[reference, s] for s, v in mine.items() if (reference, s) in self._values]
        if reference == arm or not pairs:
            return mean, Text(), Text()
        effect = self._rules.sign * self._scale.factor * sum(pairs) / len(pairs)
        unit = f" {self._scale.unit}" if self._scale.unit else ""
        verdict = self._verdicts.get(arm)
        said = (
            Text(verdict, style=VERDICT_STYLE.get(verdict, "magenta")) if verdict else Text("so far", "dim")
        )
        return mean, Text(f"{effect:+.{digits}f}{unit}".replace("-", "−")), said

    def _reference(self, arm: str) -> str:
        """What an arm is compared with; itself where that is nothing."""
        if arm == NOISE_FLOOR:
            return self._plan.reference
        if self._rules.factorial or arm not in {planned.name for planned in self._plan.arms}:
            return arm
        return self._plan.arm(arm).reference or self._plan.reference

    def _working(self) -> Table:
        """What each slot is at, as far as there is room."""
        of: dict[str, list[_Progress]] = {}
        for doing in self._at.values():
            of.setdefault(doing.slot, []).append(doing)
        slots = Table.grid(padding=(0, 2))
        for _ in range(4):
            slots.add_column(no_wrap=True, overflow="ellipsis")
        room = max(1, self._console.height // 3)
        for slot in sorted(of, key=_by_number)[:room]:
            first, *others = of[slot]
            what = f"{first.run.arm} · seed {first.run.seed}"
            what += f" and {len(others)} more" if others else ""
            again = f"attempt {first.attempt} · " if first.attempt > 1 else ""
            if first.epoch:
                epochs = f"{first.epoch}/{first.epochs}" if first.epochs else f"{first.epoch}"
                value = f" · {self._plan.study.metric} {first.value:.4f}" if first.value is not None else ""
                said = Text(f"{again}epoch {epochs}{value}", style="cyan")
            else:
                said = Text(f"{again}starting", style="dim")
            slots.add_row(Text(slot, style="dim"), Text(what), _bar(first.share, 10), said)
        if len(of) > room:
            slots.add_row(Text(f"… and {len(of) - room} more slots", style="dim"))
        return slots


def _by_number(slot: str) -> list[tuple[int, str]]:
    """cpu-10 after cpu-9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", slot)]


def _bar(share: float, width: int) -> Text:
    full = round(max(0.0, min(1.0, share)) * width)
    return Text.assemble(("━" * full, "green"), ("━" * (width - full), "bright_black"))


def _short(value: Any) -> str:
    """A value that was tried, in three digits; a block by its name and what else it says."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{name}={_short(v)}" for name, v in value.items() if name != "name")
        return f"{value.get('name', '')}{f' ({rest})' if rest else ''}".strip()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `40 s`, `12 min`, `3.2 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def preview(ahead: Preview) -> RenderableType:
    """What a run would do: arms, seeds of each look, runs that are done already, and what the design implies."""
    study = ahead.plan.study
    lines: list[RenderableType] = [plan_table(ahead.plan, ahead.done), *design(ahead.plan)]
    if study.search is not None:
        lines.append(Text(f"{ahead.search_runs} runs of searching and of the fixed comparison at most"))
        if study.space:
            return Group(*lines)
    at_most = f" (at most {ahead.most})" if ahead.most > ahead.first else ""
    arms, first = counted(ahead.configurations, "arm"), counted(ahead.first, "run")
    lines.append(Text(f"{arms}, {first}{at_most}; margin {study.margin:g} of {study.metric}"))
    if ahead.done is None:
        lines.append(Text("The data are not prepared yet, so runs that are done already are not counted."))
    return Group(*lines)


def plan_table(plan: Plan, done: Mapping[str, int] | None) -> Table:
    """Arms with the number of seeds of each look and what is done already; done: arm → runs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for look, pairs in enumerate(plan.study.looks, 1):
        table.add_column(f"look {look}", justify="right")
        del pairs
    if done is not None:
        table.add_column("done", justify="right")
    for name in plan.names:
        counts = [
            f"{pairs} seeds" if look == 0 else f"to {pairs}" for look, pairs in enumerate(plan.study.looks)
        ]
        table.add_row(Text(name), *counts, *([str(done.get(name, 0))] if done is not None else []))
    return table


def studies(rows: Iterable[tuple[str, str, Mapping[str, int]]]) -> Table:
    """Studies with what they found. rows: name, how far it is, verdict → number of arms or effects."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("study", "", "verdicts"):
        table.add_column(title)
    for name, state, counts in rows:
        said = Text(" · ").join(
            Text(f"{n} {verdict}", style=VERDICT_STYLE.get(verdict, "magenta"))
            for verdict, n in sorted(counts.items(), key=lambda item: _rank(item[0]))
        )
        table.add_row(Text(name), Text(state, style="dim"), said)
    return table


def _rank(verdict: str) -> int:
    order = list(VERDICT_STYLE)
    return order.index(verdict) if verdict in order else len(order)


def design(plan: Plan) -> list[Text]:
    """What a reader of a plan must know of its design: what a fraction mixes up, where a path leads. Often nothing."""
    from ablate.analysis.plan import rules
    from ablate.study.forecast import further

    lines = []
    if (beyond := further(plan)) > 0:
        names = ", ".join(factor.name for factor in plan.study.factors)
        most = f"{beyond} more configuration{'' if beyond == 1 else 's'}"
        lines.append(
            Text(
                f"a greedy path through {names}: the arms above are its first step, {most} follow from the results"
            )
        )
    if plan.study.search is not None:
        how = plan.study.search
        searched = ", ".join(one.path for one in (*plan.study.nuisance, *plan.study.space))
        what = f"{how.trials} trials ({how.sampler}) of {searched}"
        before = "a search: " if plan.study.space else "before the arms meet, each is tuned: "
        again = f", then another look at the best {how.candidates}"
        lines.append(Text(before + what + again))
        if plan.study.nuisance:
            seeds = plan.study.looks[0]
            lines.append(
                Text(f"{seeds} runs an arm at the study file's own values stand beside the tuned ones")
            )
    if (fraction := plan.study.fraction) is not None:
        family = rules(plan.record()).contrasts
        lines.append(
            Text(
                f"a fraction of all combinations: {fraction.cells} cells, {fraction.words}; {len(family)} effects"
            )
        )
        lines += [
            Text(f"  {factor} takes the place of the interaction {' × '.join(of)}")
            for factor, of in fraction.generators.items()
        ]
        lines += [
            Text(f"  {_effect(c.terms)} cannot be told from {', '.join(map(_effect, c.aliases))}")
            for c in family
            if c.aliases
        ]
    return lines


def _effect(terms: Terms) -> str:
    """Name an effect of a two-level fraction by its factors: each has one level besides the baseline's."""
    return " × ".join(str(term.factor) for term in terms)


def outlook(found: Outlook) -> RenderableType:
    """What a plan costs and what it can see."""
    from ablate.analysis.intervals import ENOUGH_PAIRS
    from ablate.analysis.plan import rules

    plan, cost = found.plan, found.cost
    said = rules(plan.record()).scale(found.noise.typical)
    unit = f" {said.unit}" if said.unit else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("arm")
    for title in ("parameters", "MFLOP an image", "a run", "runs", "in all"):
        table.add_column(title, justify="right")
    for arm in cost.arms:
        runs = str(arm.first) if arm.first == arm.most else f"{arm.first}–{arm.most}"
        table.add_row(
            Text(arm.arm),
            f"{arm.parameters:,}" if arm.parameters else "",
            f"{arm.flops / 1e6:,.2f}" if arm.flops else "",
            _span(arm.seconds, arm.seconds),
            runs,
            _span(
                None if arm.seconds is None else arm.seconds * arm.first,
                None if arm.seconds is None else arm.seconds * arm.most,
            ),
        )
    runs = str(cost.runs_first) + (f"–{cost.runs_most}" if cost.runs_most > cost.runs_first else "")
    lines: list[RenderableType] = [table, Text("")]
    lines += design(plan)
    slots = f"{found.slots} slot{'' if found.slots == 1 else 's'}"
    lines.append(Text(f"{len(cost.arms)} arms, {runs} runs on {slots}: about {_span(cost.first, cost.most)}"))
    if plan.study.space:
        return Group(*lines)
    sd = found.noise.sd
    what = "an effect" if plan.study.design in ("factorial", "fractional") else "a paired difference"
    if sd is None:
        lines.append(Text(f"noise of {what} {found.noise.source}"))
    else:
        lines.append(Text(f"noise of {what}: {sd * said.factor:.2g}{unit} ({found.noise.source})"))
    for reach, in_sds in zip(found.reaches, found.in_sds, strict=True):
        seeds = f"{reach.pairs} seed{'' if reach.pairs == 1 else 's'}"
        if reach.pairs < ENOUGH_PAIRS:
            lines.append(
                Text(f"{seeds} give no interval: at least {ENOUGH_PAIRS} are needed", style="yellow")
            )
        elif sd is None:
            lines.append(Text(f"{seeds} detect about {in_sds:.2f} SDs of {what} with 80 % power"))
        else:
            text = f"{seeds} detect about {reach.effect * said.factor:.2g}{unit} with 80 % power"
            missed = f"; the margin of {plan.study.margin * said.factor:g} is out of reach"
            lines.append(
                Text(text if reach.within else text + missed, style="" if reach.within else "yellow")
            )
    if plan.resolution and plan.study.margin < 2 * plan.resolution:
        lines.append(
            Text(
                f"the margin is less than two steps of the metric ({plan.resolution * said.factor:.2g} each)",
                style="yellow",
            )
        )
    return Group(*lines)


def _span(first: float | None, most: float | None) -> str:
    if first is None or most is None:
        return "unknown"
    low, high = (f"{s:.1f} s" if s < 10 else duration(s) for s in (first, most))
    return low if low == high else f"{low} to {high}"


class _Hanging:
    """A sentence of a list: what does not fit into its line goes on further in. In a file or a pipe it is one line."""

    def __init__(self, text: Text) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.no_wrap:
            yield Text("  ").append_text(self._text)
            return
        for number, line in enumerate(self._text.wrap(console, max(20, options.max_width - 4))):
            line.rstrip()
            yield Text("    " if number else "  ").append_text(line)


def verdicts(analysis: Analysis) -> RenderableType:
    """The result of a study: its headline and a sentence an arm."""
    from ablate.analysis import headline, sentence
    from ablate.analysis.words import caution, subject

    lines: list[RenderableType] = [Text(headline(analysis), style="bold")]
    items: tuple[Comparison | Effect, ...] = (*analysis.comparisons, *analysis.effects)
    lines += [
        _Hanging(Text(sentence(item, analysis.rules), style=VERDICT_STYLE.get(item.verdict, "magenta")))
        for item in items
    ]
    for check, title in ((analysis.aa, "A/A check"), (analysis.confirmation, "confirmation")):
        if check is not None:
            lines.append(_Hanging(Text(f"{title}: {sentence(check, analysis.rules)}", style="dim")))
    lines += [
        _Hanging(Text(f"note: {caution(c, analysis.rules, subject(c, analysis.rules))}", style="dim"))
        for c in analysis.warnings
    ]
    return Group(*lines)


def candidates(record: Mapping[str, Any]) -> RenderableType:
    """What a search came to: its candidates, best first. No verdicts: they were chosen because they looked best."""
    if not record.get("tuned"):
        return Text("the search is not over yet")
    (found,) = record["tuned"].values()
    metric = record["metric"]
    cost = record["search"]["cost"]
    lines: list[RenderableType] = [
        Text("candidates, best first: they were chosen for looking best, and have no verdict", style="bold")
    ]
    for number, c in enumerate(found["candidates"], 1):
        mean = "diverged" if c["mean"] is None else f"{metric} {c['mean']:.4f}"
        costs = "" if c["cost"] is None else f", {cost} {c['cost']:.4g}"
        values = ", ".join(f"{path}={_short(c['values'][path])}" for path in record["space"])
        seeds = f"{c['runs']} seed{'' if c['runs'] == 1 else 's'}"
        lines.append(Text(f"  {number}. {mean}{costs} over {seeds}: {values}"))
    lines += [
        Text(f"  the best {path} lies at the {end} end of its range", style="yellow")
        for path, end in found["edge"].items()
    ]
    for method, shares in record.get("importances", {}).items():
        order = sorted(shares, key=lambda path: -shares[path])
        ranked = ", ".join(f"{path} ({shares[path]:.2f})" for path in order)
        lines.append(Text(f"  {method} ranks: {ranked}; a ranking, no verdict", style="dim"))
    return Group(*lines)


ROWS = 20
"""Lines of a curve in the terminal, about."""


def range_test(found: RangeTest, paste: str) -> str:
    """The loss against the rate, line by line, and what to do with it. paste: what a study would say of the suggestion."""
    high = found.start + 0.5 * (found.start - found.lowest)
    step = max(1, len(found.rates) // ROWS)
    lines = ["    rate     loss"]
    for i in range(0, len(found.smooth), step):
        loss = found.smooth[i]
        share = (
            min(1.0, max(0.0, (loss - found.lowest) / (high - found.lowest))) if high > found.lowest else 0.0
        )
        eighths = round(share * 8 * 24)
        bar = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
        lines.append(f"{found.rates[i]:8.2g} {loss:8.3f}  {bar}".rstrip())
    ended = len(found.rates) - len(found.smooth)
    if ended:
        lines.append(f"{found.rates[len(found.smooth)]:8.2g}           hopeless from here on")
    if found.suggestion is None:
        return "\n".join([*lines, "", f"inconclusive: {found.reason}"])
    spread = f"; single seeds say {found.between[0]:g} to {found.between[1]:g}" if found.between else ""
    said = f"the loss falls from {found.start:.3f} to {found.lowest:.3f} at {found.floor:.2g}{spread}"
    return "\n".join([*lines, "", said, f"suggested: {found.suggestion:g}; in the study:", "", paste])


def is_terminal() -> bool:
    return sys.stderr.isatty()
