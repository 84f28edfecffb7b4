"""Time that passes by what a study does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ablate.scheduling import budget
from ablate.study.design import Run


@pytest.fixture
def pass_by_runs(monkeypatch):
    """Let the time of budgets pass by runs alone, so many seconds for each, however busy the machine is."""

    def begin(seconds: float) -> None:
        passed = [0.0]
        ended = budget.Budget.ended

        def end(self, run: Run, _: float) -> None:
            passed[0] += seconds
            ended(self, run, seconds)

        monkeypatch.setattr(budget.Budget, "ended", end)
        monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: passed[0]))

    return begin
