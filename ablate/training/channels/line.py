r"""Metrics in the lines that a command prints, on stdout or stderr: `accuracy: {line: 'Accuracy: (\d+)/(\d+)'}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate.lines import LineReader, has_decimal_comma, parse_pattern
from ablate.text import cut
from ablate.training.channels.reading import Findings, Found, Places, StepBegins
from ablate.training.outcome import MetricsError


class LineChannel:
    """Regular expressions; `ablate.lines` says what they can be."""

    key = "line"
    others: tuple[str, ...] = ()

    @staticmethod
    def check(metric: str, spec: Mapping[str, Any]) -> None:
        parse_pattern(spec["line"], f"metrics.{metric}.line")

    def __init__(self, specs: Mapping[str, Mapping[str, Any]], places: Places) -> None:  # noqa: ARG002 — it reads no files
        self._patterns = {name: str(spec["line"]) for name, spec in specs.items()}
        self._reader = LineReader(
            {name: parse_pattern(pattern, f"metrics.{name}.line") for name, pattern in self._patterns.items()}
        )
        self._step: int | None = None

    def line(self, text: str) -> Findings:
        findings: Findings = [
            Found(name, reading.value, reading.step, reading.resolution)
            for name, reading in self._reader.read(text).items()
        ]
        for name, found in self._reader.unreadable.items():
            if has_decimal_comma(found):
                # Others of its values may look like thousands: `1,234`.
                raise MetricsError(
                    f"{cut(self._patterns[name])!r} found {cut(found)!r}, and a decimal comma is not read; let the program print a point,"
                    " for example with `env: {LC_ALL: C}`",
                    place=f"metrics.{name}.line",
                )
        step = self._reader.step
        if step is not None:
            begins = [StepBegins(step, name) for name in self._reader.counters]
            if step != self._step and not begins:
                begins = [StepBegins(step)]
            self._step = step
            findings = [*begins, *findings]
        return findings

    def look(self, ended: bool) -> list[Findings]:  # noqa: ARG002 — it reads no files
        return []

    def missing(self) -> Mapping[str, str]:
        unreadable = self._reader.unreadable
        return {
            name: f"'{cut(self._patterns[name])}' found {cut(unreadable[name])!r}, which is no number"
            if name in unreadable
            else f"no line matched '{cut(self._patterns[name])}'"
            for name in self._reader.missing
        }
