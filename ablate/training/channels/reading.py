"""What a channel finds, and where it looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Where a run leaves files. run: the folder of its own. folder: the one that its command runs in.

    scratch: where the MLflow of the command writes.
    """

    run: Path
    folder: Path
    scratch: Path


@dataclass(frozen=True)
class Found:
    """A value of a metric. step: where on its curve; None where nothing tells.

    resolution: the smallest step that the value can make as it was printed; None where it has full precision, or is not finite.
    """

    metric: str
    value: float
    step: int | None = None
    resolution: float | None = None


@dataclass(frozen=True)
class StepBegins:
    """A step was named, with or without values. metric: whose pattern tells only steps, and told this one; '': another's."""

    step: int
    metric: str = ""


Findings = list[Found | StepBegins]
"""What was told at once: by a line, or by a row of a file."""


def whole_step(value: object) -> int | None:
    """Return a step that is written as a number, or as the text of one; None for all else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return int(value) if value == int(value) else None
