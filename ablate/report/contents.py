"""The contents of a report, as frozen data: findings, tables, curves, words.

Nothing in this file draws. The page and the exports only lay out what stands in a `Summary`. Effects and intervals are in shown
units (points for accuracies) and oriented, so that higher is better; raw means are as the metric is written, in percent
for accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from ablate.analysis import ClassChange, McNemar


@dataclass(frozen=True)
class Notice:
    """Something to know before reading on."""

    kind: Literal["error", "caveat", "provisional", "warning"]
    text: str


@dataclass(frozen=True)
class Axis:
    """The scale shared by all intervals, in shown units. cut: something runs off it."""

    low: float
    high: float
    margin: float
    unit: str
    digits: int
    ticks: tuple[float, ...]
    cut: bool = False


@dataclass(frozen=True)
class Interval:
    """An effect with its interval, in shown units. images_lo, images_hi: the wider interval, for new images."""

    estimate: float | None
    lo: float | None
    hi: float | None
    verdict: str
    images_lo: float | None = None
    images_hi: float | None = None


@dataclass(frozen=True)
class Finding:
    """A verdict in words. subject: how the sentence begins, where it does. anchor: of the evidence on the page."""

    arm: str
    label: str
    subject: str
    sentence: str
    verdict: str
    interval: Interval
    notes: tuple[str, ...]
    anchor: str


@dataclass(frozen=True)
class FindingGroup:
    """Findings of one kind. meaning: what being in this group says. verdict: that its findings share; empty where they don't."""

    key: str
    title: str
    meaning: str
    findings: tuple[Finding, ...]
    verdict: str = ""


Kind = Literal["baseline", "arm", "effect", "A/A", "confirmation"]


@dataclass(frozen=True)
class Row:
    """A line of the table of arms. Effects in shown units; mean, sd, test of the metric itself, in shown units too."""

    kind: Kind
    arm: str
    label: str
    anchor: str
    verdict: str
    interval: Interval
    p: float | None
    n: int
    mean: float | None = None
    sd: float | None = None
    test: float | None = None
    test_effect: float | None = None
    cost_ratio: float | None = None
    cost_is_time: bool = False
    parameter_ratio: float | None = None
    seconds: float | None = None
    parameters: float | None = None
    fit: tuple[str, ...] = ()
    trouble: str = ""
    levels: tuple[tuple[str, str], ...] = ()
    present: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Level:
    """One level of a factor with every seed's value, in shown units. x: its place, None on a named axis.

    verdict: None for the reference, empty where there is none (a cell of a factorial design).
    """

    text: str
    x: float | None
    arm: str
    label: str
    mean: float | None
    dots: tuple[tuple[int, float], ...]
    verdict: str | None
    trouble: str = ""


@dataclass(frozen=True)
class Response:
    """The metric over the levels of a factor. scale: of the level axis. band: the reference's mean ± margin.

    dots_are: what each dot is; the runs of an arm that are not paired have no number that says anything.
    """

    title: str
    metric: str
    unit: str
    digits: int
    scale: Literal["linear", "log", "named"]
    levels: tuple[Level, ...]
    band: tuple[float, float] | None
    dots_are: Literal["seed", "run", "block"] = "seed"


@dataclass(frozen=True)
class Line:
    """Mean over seeds by epoch, between the lowest and the highest seed."""

    split: Literal["train", "validation", ""]
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int
    percent: bool = False


@dataclass(frozen=True)
class ArmCurves:
    """verdict: None for the reference, empty where there is none (a cell of a factorial design).

    overfits: the epoch from which the arm over-fits, where it does.
    """

    arm: str
    label: str
    verdict: str | None
    lines: tuple[Line, ...]
    overfits: int | None = None


@dataclass(frozen=True)
class Curves:
    """One quantity (loss, accuracy, …) over training, for a reference and the arms compared with it.

    low, high: range to show, narrower than the data where `cut`.
    """

    quantity: str
    unit: str
    reference: ArmCurves | None
    arms: tuple[ArmCurves, ...]
    low: float
    high: float
    log: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Pairs:
    """The evidence itself: the reference's value under each seed, and what each arm adds to it there.

    heads: of the columns, `seed 3` or the name of a block. cells: text where there is no number (`failed`, `diverged`, …).
    """

    heads: tuple[str, ...]
    reference: str
    values: tuple[float | str, ...]
    rows: tuple[tuple[Row, tuple[float | str, ...]], ...]
    title: str = "Differences seed by seed"
    caption: str = "Each arm minus the reference under the same seed"


@dataclass(frozen=True)
class Values:
    """The runs of an arm that are paired with none. values: in the order of their size, the first of them where there are many."""

    row: Row
    values: tuple[float, ...]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class BlockRow:
    """An arm within one block (a task, a data set, a fold). n: its runs there, or its pairs. digits: decimals of mean and sd."""

    block: str
    label: str
    verdict: str
    interval: Interval
    p: float | None
    n: int
    mean: float | None
    sd: float | None
    digits: int


@dataclass(frozen=True)
class Section:
    """A factor and what is known of it. remarks: (arm, what its curves show)."""

    anchor: str
    title: str
    code: str
    intro: str
    remarks: tuple[tuple[str, str], ...]
    response: Response | None
    curves: tuple[Curves, ...]
    pairs: Pairs
    values: tuple[Values, ...] = ()
    blocks: tuple[BlockRow, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What an arm costs and what it gives. cost: against the baseline. best: nothing is both cheaper and better."""

    label: str
    cost: float
    mean: float
    low: float
    high: float
    verdict: str | None
    best: bool


@dataclass(frozen=True)
class Interactions:
    """Estimated effects of a factorial design, in shown units: main effects on the diagonal, interactions off it."""

    terms: tuple[str, ...]
    estimates: tuple[tuple[float | None, ...], ...]
    unit: str
    digits: int


@dataclass(frozen=True)
class Crossing:
    """How two factors act together: mean of the metric, in shown units, over all runs with a level of each.

    across: the levels of `factor`, the baseline's first. lines: (level of `other`, a mean for each of `across`), None without a run.
    """

    factor: str
    other: str
    across: tuple[str, ...]
    lines: tuple[tuple[str, tuple[float | None, ...]], ...]
    metric: str
    unit: str


@dataclass(frozen=True)
class ClassShift:
    """An arm's confusion against the reference's, in points of each true class's images."""

    arm: str
    label: str
    difference: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Confusion:
    """Shares in percent of each true class (rows), over the test images of all seeds."""

    classes: tuple[str, ...]
    reference: str
    shares: tuple[tuple[float, ...], ...]
    arms: tuple[ClassShift, ...]


@dataclass(frozen=True)
class Thumbnail:
    """A test image. picture: a data URI. correct, reference_correct: share of the seeds under which each is right."""

    index: int
    picture: str
    truth: str
    correct: float
    reference_correct: float


@dataclass(frozen=True)
class ImageShift:
    """How many images an arm fixes and breaks against its reference, and the clearest of them.

    by_chance, seldom_more: how many of each there are in permutations of the two (see `PredictionChanges`). classes: those whose
    share of correct answers changed. verdict: of the arm; empty where it has none.
    """

    arm: str
    label: str
    reference: str
    seeds: int
    fixed: int
    broken: int
    fixes: tuple[Thumbnail, ...]
    breaks: tuple[Thumbnail, ...]
    by_chance: float
    seldom_more: int
    mcnemar: McNemar
    classes: tuple[ClassChange, ...]
    verdict: str = ""

    @property
    def differs(self) -> bool:
        """Whether McNemar's test finds what the verdict does not, or the other way round."""
        says = "helps" if self.mcnemar.effect > 0 else "hurts"
        if self.mcnemar.p < 0.05:
            return self.verdict not in ("", says)
        return self.verdict in ("helps", "hurts")


@dataclass(frozen=True)
class ImageChanges:
    """images: in the test set. reference: of the study; an arm may have one of its own."""

    reference: str
    images: int
    arms: tuple[ImageShift, ...]


@dataclass(frozen=True, slots=True)
class RunRow:
    """One replicate, recorded or missing. value, test: in shown units, None without a result. digits: their decimals, where they
    are not those of the summary.
    """

    arm: str
    label: str
    seed: int
    phase: str
    outcome: str
    value: float | None
    test: float | None
    epochs: int | None
    seconds: float | None
    device: str
    run_id: str
    reason: str
    source_run: str
    block: str = ""
    digits: int | None = None


@dataclass(frozen=True)
class Trouble:
    """Runs of an arm that went wrong in the same way, or are missing. seeds: in words. run_ids: where there are any."""

    label: str
    seeds: str
    phase: str
    outcome: str
    reason: str
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Tracking:
    """An MLflow server, and the id of the study's experiment there."""

    server: str
    experiment: str

    def page(self, run_id: str) -> str:
        """Return where the server shows a run."""
        return f"{self.server.rstrip('/')}/#/experiments/{quote(self.experiment)}/runs/{quote(run_id)}"


@dataclass(frozen=True)
class SettingResponse:
    """The metric over one setting that was tuned. points: (value, metric in shown units, whether a re-evaluation).

    ends: of the range.
    """

    setting: str
    label: str
    scale: str
    points: tuple[tuple[float, float, bool], ...]
    chosen: float
    ends: tuple[float, float]
    metric: str
    unit: str
    digits: int


@dataclass(frozen=True)
class Weighed:
    """A trial of a search with two objectives. value: of the metric, in shown units. words: what was tried.

    front: no other trial is better in both. candidate: its number among the re-evaluated, at the mean of its re-evaluations;
    None for a trial.
    """

    cost: float
    value: float
    words: str
    front: bool = False
    candidate: int | None = None


@dataclass(frozen=True)
class Front:
    """The trials of a search with two objectives. cost: the second of them, in words with its unit."""

    cost: str
    metric: str
    unit: str
    digits: int
    points: tuple[Weighed, ...]


@dataclass(frozen=True)
class TuningPart:
    """Tables as rows of texts, the first their headings; empty where there is none. pareto: of a search with two objectives."""

    title: str
    paragraphs: tuple[str, ...]
    table: tuple[tuple[str, ...], ...]
    beside: tuple[tuple[str, ...], ...]
    curves: tuple[SettingResponse, ...]
    importances: tuple[tuple[str, ...], ...]
    pareto: Front | None = None
    front: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class OwnFigure:
    """A figure that a run of an arm logged. verdict: as in `ArmCurves`. image: a data URI. plot: a figure of Plotly as data. page: HTML.
    All are empty where it cannot be shown. has_script: whether the page has scripts, which do not run.
    """

    label: str
    verdict: str | None
    image: str = ""
    page: str = ""
    plot: dict[str, Any] | None = None
    has_script: bool = False


@dataclass(frozen=True)
class OwnFigures:
    """Figures that the runs under a seed logged. sets: (name, one of each arm that has it). left_out: what is not shown, in sentences."""

    seed: int
    sets: tuple[tuple[str, tuple[OwnFigure, ...]], ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """A report as data. answer: two sentences. facts, environment: (name, text). methods: (heading, paragraph).

    kind: what the page says above its title. unit_of_n: what `Row.n` counts. for_paper: how the intervals are made, as a
    paragraph for a paper. looks_count: what the numbers of `looks` are of.
    """

    study: str
    question: str
    answer: tuple[str, str]
    notices: tuple[Notice, ...]
    facts: tuple[tuple[str, str], ...]
    metric: str
    unit: str
    value_unit: str
    digits: int
    value_digits: int
    axis: Axis
    groups: tuple[FindingGroup, ...]
    rows: tuple[Row, ...]
    cells: tuple[Row, ...]
    components: tuple[str, ...]
    sections: tuple[Section, ...]
    costs: tuple[Cost, ...]
    cost_basis: str
    interactions: Interactions | None
    crossings: tuple[Crossing, ...]
    confusion: Confusion | None
    images: ImageChanges | None
    runs: tuple[RunRow, ...]
    trouble: tuple[Trouble, ...]
    counts: tuple[tuple[str, int], ...]
    methods: tuple[tuple[str, str], ...]
    looks: tuple[tuple[str, ...], ...]
    environment: tuple[tuple[str, str], ...]
    reproduce: tuple[str, ...]
    text: str
    tracking: Tracking | None = None
    tuning: TuningPart | None = None
    own_figures: OwnFigures | None = None
    kind: str = "Ablation study"
    unit_of_n: Literal["seed", "run", "block"] = "seed"
    direction: Literal["maximize", "minimize"] = "maximize"
    for_paper: str = ""
    looks_count: str = "Seeds"

    @property
    def headline(self) -> str:
        """What the study found, in one sentence."""
        return self.answer[0]

    @property
    def tally(self) -> dict[str, int]:
        """Number of findings in each group that has any, by its key."""
        return {group.key: len(group.findings) for group in self.groups}


GROUPS: tuple[tuple[str, str, str, frozenset[str]], ...] = (
    ("worked", "What worked", "better than the baseline, beyond the noise of seeds", frozenset({"helps"})),
    ("hurt", "What didn’t", "worse than the baseline, beyond the noise of seeds", frozenset({"hurts"})),
    (
        "none",
        "No practical effect",
        "any difference is smaller than the margin",
        frozenset({"no practical effect"}),
    ),
    ("open", "Don’t know yet", "more than one answer still fits the interval", frozenset({"inconclusive"})),
    ("unstable", "Unstable", "training diverged under some seeds", frozenset({"unstable"})),
    (
        "void",
        "Not a comparison",
        "nothing was compared: the runs are copies of one another, or of the baseline’s",
        frozenset({"not independent", "no override"}),
    ),
)

INTERACTIONS = (
    "interactions",
    "Interactions",
    "how far two changes together differ from the sum of what each does alone",
)
"""The group of a factorial design's interactions: none of them is better or worse than the baseline."""
