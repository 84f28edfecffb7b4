"""Phases of a study, and which seeds each of them has.

Every phase numbers its replicates 0, 1, 2, … and trains them under seeds of its own: a setting must not be chosen on the
seeds that it is judged by, and a winner is confirmed on seeds that had no part in choosing it. Nothing else in the package
knows the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Phase = Literal["report", "A/A", "tune", "fixed", "confirm"]

NOISE_FLOOR = "A/A"
"""Name of the arm that is the reference under other seeds: its differences are those that chance alone makes."""

REPLICATES = 1000
"""Seeds that a phase has: the most replicates of an arm in it."""

REEVALUATED_FROM = 900
"""Replicates of the tuning phase from this one on re-evaluate the best trials of a search."""

REEVALUATIONS = 3
"""Seeds under which each of the best trials is re-evaluated."""

_FIRST: Mapping[Phase, int] = {"report": 0, "A/A": 1000, "tune": 2000, "fixed": 0, "confirm": 3000}


def seed_of(phase: Phase, replicate: int) -> int:
    """Return the seed that a replicate (0 … REPLICATES − 1) of a phase trains under."""
    assert 0 <= replicate < REPLICATES, f"replicate {replicate} of the phase {phase}"
    return _FIRST[phase] + replicate


def replicate_of(seed: int) -> int:
    """Return the number of the replicate that trains under `seed`, in whatever phase: A/A seed 1004 is held against report seed 4."""
    return seed % REPLICATES


def is_reported(phase: Phase | str) -> bool:
    """Return whether verdicts, or the check of the noise floor, are read from the runs of a phase."""
    return phase in ("report", NOISE_FLOOR)


def is_reevaluation(seed: int) -> bool:
    """Return whether a run of the tuning phase re-evaluates a trial that was among the best."""
    return replicate_of(seed) >= REEVALUATED_FROM
