"""What the columns of somebody's results may be: arms, a metric, a seed, or a counter that no run can be paired by.

Everything here is a proposal from names and contents. Nothing of it decides what is compared with what.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ablate import metrics
from ablate.text import counted, cut, visible

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["arm", "metric", "seed", "counter", "step", "state", "other"]

UNDEFINED = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "?", "missing"})
"""What stands, in any case, where a number is missing."""

FILE = "file"
"""The column that says which file a row is from, where there are several."""

THOUSANDS = r"[-+−]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?"
"""A number with commas between its thousands. `0,912` is none: its comma is a decimal one."""

THOUSANDS_WITH_POINTS = r"[-+−]?[1-9]\d{0,2}(?:\.\d{3})+"
"""A number with points between its thousands; with one point, it may be a decimal one."""

_ARMS = (
    *("arm", "method", "algorithm", "algo", "config", "configuration", "variant", "setting", "condition"),
    *("model", "optimizer", "treatment", "ablation", "group", "system", "name", "experiment"),
)
"""Names of columns that hold arms, the most telling first."""

_OF_RUNS = ("name", "experiment")
"""Those that may name single runs too."""

_COUNTERS = frozenset(
    {
        *(
            "run",
            "runs",
            "trial",
            "trials",
            "id",
            "uid",
            "uuid",
            "guid",
            "index",
            "idx",
            "row",
            "number",
            "no",
        ),
        *("rep", "repeat", "repetition", "replicate", "attempt", "job", "try", "num", "counter", "#"),
    }
)

Outcome = Literal["finished", "diverged", "failed"]

_STATES = {"state", "status", "outcome", "run state", "run_state", "run status", "run_status"}
"""Names of columns that say what became of a run."""

OUTCOMES: dict[str, Outcome] = {
    **dict.fromkeys(
        ("finished", "complete", "completed", "done", "success", "successful", "succeeded", "ok", "passed"),
        "finished",
    ),
    **dict.fromkeys(("diverged", "nan"), "diverged"),
    **dict.fromkeys(
        (
            *(
                "failed",
                "fail",
                "failure",
                "error",
                "crashed",
                "killed",
                "aborted",
                "interrupted",
                "canceled",
                "cancelled",
            ),
            *("timeout", "oom", "out_of_memory", "preempted", "preempting", "pruned", "stopped"),
            *("running", "pending", "scheduled", "waiting", "queued", "starting"),
        ),
        "failed",
    ),
}
"""What is said of a run, in lower case → what became of it. A run that still goes on has no result."""

METRIC_NAMES = frozenset(
    {
        *("metric", "metric_name", "metric name", "metrics", "measure", "measurement"),
        *("key", "tag", "score_name"),
    }
)
"""Names of columns that say which metric a row has."""

_SCORES = frozenset({"score", "result", "performance", "return"})
"""Last words of names of metrics that do not say which way they are better."""

SUMMARIES = frozenset(
    {"mean", "avg", "average", "std", "sd", "stdev", "sem", "median", "min", "max", "total", "sum"}
)
"""What stands for a seed or a run in a line that sums up the others."""

_TASKS = frozenset(
    {
        *("task", "dataset", "data", "env", "environment", "fold", "game", "benchmark", "domain", "problem"),
        *("corpus", "language", "split"),
    }
)
"""Last words of names of columns that hold what arms are compared on."""

_SETTINGS = re.compile(
    r"(^|[^a-z])(lr|learning rate|weight decay|wd|dropout|drop rate|momentum|batch size|width|depth|hidden|layers?|units"
    r"|warmup|beta ?\d?|gamma|alpha|eps|epsilon|temperature|l1|l2|clip|label smoothing)$"
)
"""Names of settings of a training that a search chooses."""

MOST_ARMS = 200
"""A column with more values than this is not proposed as the arms."""


@dataclass(frozen=True)
class Column:
    """What is seen of one column. levels: (value, rows) of its values, the most frequent first. low, high: of its numbers."""

    name: str
    role: Role
    levels: tuple[tuple[str, int], ...]
    low: float | None = None
    high: float | None = None
    undefined: int = 0

    def line(self) -> str:
        """Say what the column holds, and what it may be."""
        if self.role == "metric":
            better = {"maximize": "more is better", "minimize": "less is better"}.get(
                metrics.direction(self.name) or "", "its name does not say whether more is better"
            )
            lacking = f", {counted(self.undefined, 'cell')} without a number" if self.undefined else ""
            return f"{self.low:g} to {self.high:g}{lacking}: may be the metric ({better})"
        if self.role == "seed":
            return f"{counted(len(self.levels), 'value')}: may pair the runs"
        if self.role == "counter":
            return f"{counted(len(self.levels), 'value')}: counts or names runs, and pairs nothing"
        if self.role == "step":
            return f"{self.low:g} to {self.high:g}, {counted(len(self.levels), 'value')}: may count the steps of a run"
        says = (
            ": may be the arms"
            if self.role == "arm"
            else ": what became of the runs"
            if self.role == "state"
            else ""
        )
        shown = ", ".join(
            f"{visible(cut(value, 30)) or '(empty)'} ({rows})" for value, rows in self.levels[:6]
        )
        more = f" and {len(self.levels) - 6} more" if len(self.levels) > 6 else ""
        values = f"{counted(len(self.levels), 'value')}, {shown}{more}"
        return f"{values}{says}"


def is_seed(name: str) -> bool:
    """Return whether a column is called a seed: `seed`, `random_seed`, `config.seed`."""
    return bool(re.search(r"(^|[^a-z])seed$", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))


def is_counter(name: str) -> bool:
    """Return whether a column is called what counts or names runs, which says nothing of what two runs share."""
    words = re.split(r"[^a-z#]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return bool(_COUNTERS & set(words)) and not is_seed(name)


_STEPS = (
    *(
        "step",
        "global step",
        "trainer/global step",
        "training step",
        "train step",
        "iteration",
        "iter",
        "timestep",
    ),
    *("env step", "environment step", "frame", "update", "batch", "epoch", "checkpoint", "ckpt", "reading"),
)
"""Names of columns that hold steps, the finest first."""


def step_rank(name: str) -> int | None:
    """Return how fine a column's steps are by its name, 0 the finest: `epoch`, `_step`, `timesteps`; None where it counts none."""
    plain = re.sub(r"^(num|n|current) | ?(#|number|no|idx|index)$", "", plain_name(name)).rstrip("s")
    return _STEPS.index(plain) if plain in _STEPS else None


def plain_name(name: str) -> str:
    """Return a column's name in lower case, with spaces between its words and without a plural: `runId`, `run_ids`: `run id`."""
    return re.sub(r"[\s_-]+", " ", re.sub(r"([a-z])([A-Z])", r"\1 \2", name)).strip().lower().rstrip("s")


def is_task(name: str) -> bool:
    """Return whether a column is called what arms are compared on: `task`, `env_id`."""
    words = [word for word in re.split(r"[^a-z]+", plain_name(name)) if word and word not in ("id", "name")]
    return bool(words) and words[-1] in _TASKS


def is_setting(name: str) -> bool:
    """Return whether a column is called what a search chooses: `lr`, `config.weight_decay`."""
    return bool(_SETTINGS.search(plain_name(name)))


def names_metrics(name: str, levels: Iterable[object]) -> bool:
    """Return whether a column says which metric a row has: it is called so, and one of its values is a metric's name."""
    return name.lower() in METRIC_NAMES and any(metrics.direction(str(level)) is not None for level in levels)


def is_state(name: str, levels: Iterable[object]) -> bool:
    """Return whether a column says what became of the runs: it is called so, and has no other words. levels: its values."""
    words = {str(level).lower() for level in levels} - {""} if name.lower() in _STATES else set()
    return bool(words) and words <= OUTCOMES.keys()


def survey(rows: pd.DataFrame, measured: Sequence[str] = ()) -> list[Column]:
    """Return what is seen of every column, in the order of the file.

    rows: cells as text. measured: the columns that can be the metric, where the source says it; empty: to be guessed.
    """
    columns = []
    for name in rows.columns:
        cells = rows[name]
        counts = cells.value_counts()
        levels = tuple((str(value), int(n)) for value, n in counts.items())
        values = counts.index.to_series()
        numbers = numbers_of(values)
        lacking = values.str.lower().isin(UNDEFINED)
        numeric = bool(numbers.notna().any()) and bool((numbers.notna() | lacking).all())
        undefined = int(counts[lacking.to_numpy()].sum())
        role = _role(str(name), levels, numeric, len(rows))
        if measured:
            role = "metric" if name in measured and numeric else "other" if role == "metric" else role
        low, high = (float(numbers.min()), float(numbers.max())) if numeric else (None, None)
        columns.append(Column(str(name), role, levels, low, high, undefined))
    if any(column.role == "arm" and len(column.levels) < len(rows) for column in columns):
        # Beside arms that have several rows, a name that no two rows share is that of a run.
        columns = [
            replace(column, role="counter")
            if column.role == "arm"
            and _last_word(column.name) in _OF_RUNS
            and len(column.levels) == len(rows)
            else column
            for column in columns
        ]
    return columns


def numbers_of(cells: pd.Series[str]) -> pd.Series[float]:
    """Return cells as numbers, `91.2 %`, `912/1000` and `1,234.5` too; NaN where a cell is none."""
    import pandas as pd

    numbers = pd.to_numeric(cells, errors="coerce")
    if not numbers.isna().any():
        return numbers
    others = cells[numbers.isna()]
    parts = others.str.extract(r"^\s*([-+]?[\d.]+)\s*(?:%|/\s*(\d+))\s*$")
    thousands = others.where(others.str.fullmatch(THOUSANDS)).str.replace(",", "")
    numbers = numbers.fillna(pd.to_numeric(thousands, errors="coerce"))
    above, below = (pd.to_numeric(parts[i], errors="coerce") for i in (0, 1))
    return numbers.fillna(above / below.fillna(1.0))


def candidates(columns: Sequence[Column], role: Role) -> list[str]:
    """Return the columns that may play a role, the most likely first."""

    def order(column: Column) -> tuple[int, int, int]:
        if role == "arm":
            last = _last_word(column.name)
            return int(len(column.levels) < 2), _ARMS.index(last) if last in _ARMS else len(_ARMS), 0
        if role != "metric":
            return 0, 0, -len(column.levels)
        words = set(re.split(r"[^a-z]+", column.name.lower()))
        where = 0 if words & {"val", "valid", "validation", "eval", "dev"} else 2 if "train" in words else 1
        return int(metrics.direction(column.name) is None), where, -len(column.levels)

    return [column.name for column in sorted((c for c in columns if c.role == role), key=order)]


def is_telling(name: str, role: Literal["arm", "metric"]) -> bool:
    """Return whether a column is called what such columns are called: `method`; `val/loss`."""
    return _last_word(name) in _ARMS if role == "arm" else metrics.direction(name) is not None


def is_generic(name: str) -> bool:
    """Return whether a column of arms is called something that stands for settings, and is none: `variant`, and not `optimizer`."""
    return _last_word(name) in _ARMS and _last_word(name) not in ("model", "optimizer")


def _last_word(name: str) -> str:
    return re.split(r"[^a-z]+", name.lower().rstrip("s"))[-1]


def _role(name: str, levels: tuple[tuple[str, int], ...], numeric: bool, rows: int) -> Role:
    if is_seed(name):
        return "seed"
    if numeric and step_rank(name) is not None and len(levels) > 1:
        return "step"
    if is_counter(name):
        return "counter"
    if names_metrics(name, [value for value, _ in levels]):
        return "other"
    if is_state(name, [value for value, _ in levels]):
        return "state"
    if name == FILE and all("/" in value for value, _ in levels):
        return "counter"  # a file for each run
    repeated = 2 <= len(levels) <= min(MOST_ARMS, max(2, rows // 2))
    fractions = any(re.search(r"[.e%/]", value.lower()) for value, _ in levels)
    named = metrics.direction(name) is not None or (fractions and _last_word(name) in _SCORES)
    if numeric and (named or (fractions and len(levels) > max(2, rows // 2))):
        return "metric"
    # A learning rate has as many runs at each level; minutes, rounded, do not.
    uneven = numeric and fractions and len({rows for _, rows in levels}) > 1
    if is_telling(name, "arm"):
        return "arm" if len(levels) <= MOST_ARMS else "other"
    return "arm" if repeated and not uneven else "other"
