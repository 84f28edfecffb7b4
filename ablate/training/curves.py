"""From the values that a command's channels find to the epochs of its run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ablate.metrics import is_by_epoch, is_loss
from ablate.training.channels.reading import Found, StepBegins
from ablate.training.outcome import DIGITS_OF_A_COPY, Epoch, Trace, digits_that_seeds_do_not_share
from ablate.training.own import names_not_finite

_FULL_PRECISION = 7


@dataclass
class _OpenEpoch:
    values: dict[str, float] = field(default_factory=dict)
    step: int | None = None


class CurveBuilder:
    """Puts the values of one run together into epochs. metric: the study's. ends: the metric whose value ends an epoch.

    Of a metric that is found several times in an epoch the last value counts. Where the metric that ends an epoch has a step, all values
    of a step belong to one epoch, which ends with the next step: a progress bar shows the metric more than once. The number of such an
    epoch is its step, counted from 1 where the steps begin with 0 or below; other epochs are counted.

    final: the last values of the metrics that belong to no epoch. resolution: the finest of the study's metric; 0: full precision.
    """

    def __init__(self, metric: str, ends: str) -> None:
        self._metric = metric
        self._ends = ends
        self._values: dict[str, float] = {}
        self._held: _OpenEpoch | None = None
        self._offset: int | None = None
        self._trace = Trace()
        self._digits = 0
        self._resolutions: list[float] = []
        self.final: dict[str, float] = {}
        self.last: Epoch | None = None
        self.counts: int = 0
        """Of the last epoch that has the study's metric; 0: none has."""

    @property
    def resolution(self) -> float:
        return min(self._resolutions, default=0.0)

    def facts(self) -> dict[str, str]:
        """Return the trace, where the losses were printed with so many digits that only a copy has the same ones."""
        return self._trace.facts() if self._digits >= DIGITS_OF_A_COPY else {}

    def add(self, findings: list[Found | StepBegins]) -> Iterator[Epoch]:
        """Yield the epochs that have ended. findings: of one line, or of one look."""
        # What a line tells beside the metric that ends an epoch belongs to that epoch.
        for finding in sorted(findings, key=lambda f: isinstance(f, Found) and f.metric == self._ends):
            ends = isinstance(finding, Found) and finding.metric == self._ends
            if (
                self._held is not None
                and finding.step != self._held.step
                and (finding.step is not None or ends)
            ):
                yield self._end(self._held)
                self._held = None
            if isinstance(finding, Found):
                yield from self._value(finding)

    def _value(self, found: Found) -> Iterator[Epoch]:
        self._note(found)
        if not is_by_epoch(found.metric, self._metric):
            self.final[found.metric] = found.value
        else:
            target = self._values if self._held is None or found.step is None else self._held.values
            target[found.metric] = found.value
        if found.metric != self._ends:
            return
        if found.step is None:
            values, self._values = self._values, {}
            yield self._end(_OpenEpoch(values))
        elif self._held is None:
            self._held = _OpenEpoch(self._values, found.step)
            self._values = {}

    def end(self) -> Iterator[Epoch]:
        """Yield what is open when the command has ended. What follows the last epoch is one only with the study's metric in it."""
        if self._held is not None:
            yield self._end(self._held)
            self._held = None
        if self._metric in self._values:
            values, self._values = self._values, {}
            yield self._end(_OpenEpoch(values))

    def _end(self, epoch: _OpenEpoch) -> Epoch:
        number = self.last.number if self.last else 0
        if epoch.step is None:
            number += 1
        else:
            if self._offset is None:
                self._offset = max(0, 1 - epoch.step)
            number = max(number + 1, epoch.step + self._offset)
        self.last = Epoch(number, epoch.values)
        if self._metric in epoch.values:
            self.counts = number
        return self.last

    def not_finite(self) -> list[str]:
        """Return the metrics whose last values show that training diverged: the study's, and losses."""
        values = {
            **(self.last.metrics if self.last else {}),
            **(self._held.values if self._held else {}),
            **self._values,
        }
        return names_not_finite(values, self._metric)

    def _note(self, found: Found) -> None:
        """Take from a value what only all of them together tell."""
        if found.metric == self._metric and found.resolution is not None and math.isfinite(found.value):
            self._resolutions.append(found.resolution)
        if is_loss(found.metric) and math.isfinite(found.value):
            self._trace.add(found.value)
            self._digits += digits_that_seeds_do_not_share(found.value, _significant_digits(found))


def _significant_digits(found: Found) -> int:
    if found.resolution is None:
        return _FULL_PRECISION
    if found.value == 0 or found.resolution == 0:
        return 0
    return max(0, math.floor(math.log10(abs(found.value) / found.resolution) + 1e-9) + 1)
