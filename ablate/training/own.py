"""What kinds of training by the user's own code have in common: it yields a dict of metrics an epoch, and ablate knows no more.

The last dict may add `test/…` metrics; they are kept apart from those that arms are chosen by.
"""

from __future__ import annotations

import math
import numbers
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from ablate import metrics as known_metrics
from ablate.config import Config
from ablate.data.facts import DataFacts
from ablate.events import Task
from ablate.fields import may_be_recorded
from ablate.metrics import is_by_epoch, is_loss
from ablate.text import cut
from ablate.training.outcome import (
    CANCELLED,
    DIGITS_OF_A_COPY,
    Epoch,
    Message,
    MetricsError,
    Result,
    Start,
    Steps,
    Trace,
    digits_that_seeds_do_not_share,
    failure,
    is_end,
    machine,
    shown,
)
from ablate.training.payload import NO_FOLDERS, Folders


def checked(values: Any) -> dict[str, float]:
    """Return metrics as plain floats, without those that are None: they were not measured.

    Raises MetricsError where they are not a dict of numbers.
    """
    if not isinstance(values, Mapping):
        raise MetricsError(f"training yielded {shown_value(values)} where a dict of metrics belongs")
    numbers_by_name = {}
    for name, value in values.items():
        if not isinstance(name, str):
            raise MetricsError(f"training yielded a metric called {shown_value(name)}, which is no text")
        if value is None:
            continue
        number = _number(value)
        if number is None:
            raise MetricsError(f"the metric {name!r} is {shown_value(value)}, not a number")
        numbers_by_name[name] = number
        if not may_be_recorded(name):
            raise MetricsError(
                f"the metric {name!r} cannot be recorded: letters, digits, spaces and . _ - : / make a name"
            )
    return numbers_by_name


def shown_value(value: Any) -> str:
    """Return a value of the user's as a short text, whatever it is."""
    try:
        return cut(" ".join(repr(value).split()))
    except Exception:  # noqa: BLE001 — code of the user's, and numbers that are too long to be written
        return f"a {type(value).__name__}"


def _number(value: Any) -> float | None:
    """Return a number of Python, NumPy, torch or the like as a float, also out of an array of one element; None for all else.

    A number that is too large for a float is infinite, as it is in Python's own arithmetic of floats.
    """
    if not isinstance(value, numbers.Real | Decimal) and callable(getattr(value, "item", None)):
        try:
            value = value.item()
        except (TypeError, ValueError, RuntimeError):  # more than one element
            return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if abs(value) == value else -math.inf
    except ValueError:
        return None


def _epochs(steps: Iterator[Any]) -> Iterator[tuple[dict[str, float], bool]]:
    """Yield the metrics of each epoch, and True; then those that a training returned for its last epoch, if any, and False.

    What it returned is an epoch of its own where it has other values of metrics that the last epoch has, and where there was none.
    """
    last: dict[str, float] | None = None
    while True:
        try:
            last = checked(next(steps))
        except StopIteration as end:
            if isinstance(end.value, Mapping) and end.value:
                returned, before = checked(end.value), last or {}
                at_end = last is not None and all(
                    name not in before or before[name] == value for name, value in returned.items()
                )
                new = {name: value for name, value in returned.items() if name not in before}
                yield (new, False) if at_end else (returned, True)
            return
        yield last, True


def names_not_finite(values: Mapping[str, float], metric: str | None) -> list[str]:
    """Return the metrics by which training has diverged: losses, and the study's metric, that are no finite numbers."""
    return [
        name
        for name, value in values.items()
        if not math.isfinite(value) and (name == metric or (is_loss(name) and is_by_epoch(name, metric)))
    ]


def messages(
    start: Callable[[], Iterator[Mapping[str, float]]], metric: str | None = None, device: str = "cpu"
) -> Iterator[Message]:
    """Yield the messages of one run. start: begins its training, which yields the metrics of every epoch. metric: the study's.
    device: that it trains on.

    The study's metric, or a loss, that is not finite ends the run as diverged. The epoch that counts is the last one that has the
    study's metric: a metric that an epoch lacks was not measured there.
    """
    began = time.perf_counter()
    trace = Trace()
    final: dict[str, float] = {}
    epoch = counts = digits = 0
    returned: dict[str, float] = {}
    not_finite: list[str] = []
    yield Start(machine(device))

    def identity() -> dict[str, str]:
        # Losses that were rounded may be the same under two seeds by chance too.
        return trace.facts() if digits >= DIGITS_OF_A_COPY else {}

    for values, is_epoch in _epochs(start()):
        if not is_epoch:
            returned = values
            counts = epoch if metric in returned else counts
            break
        epoch += 1
        curve = {name: value for name, value in values.items() if is_by_epoch(name, metric)}
        final |= {name: value for name, value in values.items() if name not in curve}
        if metric in curve:
            counts = epoch
        # Only where a loss is among them: two seeds may well have the same accuracies of a few hundred images by chance.
        if losses := [value for name, value in curve.items() if is_loss(name)]:
            digits += sum(map(digits_that_seeds_do_not_share, losses))
            trace.add(*(value for name, value in sorted(curve.items()) if name != "lr"))
        yield Epoch(epoch, curve)
        if not_finite := names_not_finite(curve, metric):
            break
    if epoch == 0:
        raise MetricsError("training yielded no metrics")
    if not_finite := not_finite or names_not_finite(returned, metric):
        facts = identity() | {"reason": f"{', '.join(not_finite)} not finite in epoch {epoch}"}
        yield Result(True, epoch, {"time/train_seconds": time.perf_counter() - began}, {}, facts)
        return
    final |= returned
    yield Result(
        False, counts or epoch, final | {"time/train_seconds": time.perf_counter() - began}, {}, identity()
    )


class OwnTrainer(ABC):
    """The part of `ablate.training.Trainer` that is the same for every training by the user's own code."""

    metrics: tuple[str, ...] = ()
    imports_code = False

    @abstractmethod
    def messages(self, task: Task, folders: Folders, cancelled: Collection[str]) -> Iterator[Message]:
        """Train one run. What it raises is a failed attempt. cancelled: as for `steps`, which asks between two messages anyway."""
        ...

    def direction(self, metric: str) -> Literal["maximize", "minimize"] | None:
        return known_metrics.direction(metric)

    def isolation(self, config: Config) -> str:  # noqa: ARG002 — a process of its own needs no words
        return ""

    def yields(self, config: Config) -> tuple[str, ...]:  # noqa: ARG002 — only the user's code knows
        return ()

    @abstractmethod
    def seed_advice(self) -> str: ...

    def resolution(self, metric: str, data: DataFacts) -> float:  # noqa: ARG002 — only the study can say
        return 0.0

    def changes_no_result(self, path: str) -> bool:  # noqa: ARG002 — nobody but the user's code knows
        return False

    def preparer(self) -> Callable[[Config], DataFacts]:
        return lambda _config: DataFacts()

    def is_prepared(self, config: Config) -> bool:  # noqa: ARG002 — it brings its own data
        return True

    def devices(self, config: Config) -> int:  # noqa: ARG002 — whatever the config
        return 1

    def same_cost(self, config: Config) -> None:  # noqa: ARG002 — it cannot be trained a little
        return None

    def steps(
        self,
        tasks: Sequence[Task],
        folders: Folders,
        cancelled: Collection[str],
    ) -> Steps:
        """Train the runs of a bundle one after another."""
        for task in tasks:
            try:
                for message in self._cancellable(task, folders, cancelled):
                    yield task.run, message
            except (Exception, SystemExit) as error:  # noqa: BLE001 — a failed attempt, not a dead worker
                end = failure(error)
            else:
                continue
            yield task.run, end

    def trial(self, task: Task) -> Iterator[str]:
        for _, message in self.steps((task,), NO_FOLDERS, ()):
            yield from shown(message)

    def _cancellable(self, task: Task, folders: Folders, cancelled: Collection[str]) -> Iterator[Message]:
        if task.run in cancelled:
            yield CANCELLED
            return
        for message in self.messages(task, folders, cancelled):
            yield message
            if task.run in cancelled and not is_end(message):
                yield CANCELLED
                return
