"""The steps of a greedy path through a space of configurations (Fawcett & Hoos 2016, doi 10.1007/s10732-014-9275-9).

From the baseline, each step takes the one change that does best on top of the changes before it. Which comparisons are
made thus depends on the very results that they are judged by: a step looks better than it is, because it was the best of
several, and the next one looks worse, because it is held against a lucky one. Its intervals therefore hold for every
comparison that any path could have made (`Rules.edges`), k·2^(k−1) for k factors, of which a path makes k(k+1)/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablate.analysis.compare import Ledger, pair
from ablate.analysis.rules import Rules


def next_step(rules: Rules, replicates: pd.DataFrame, seeds: Sequence[int]) -> str | None:
    """The arm to which a path goes on: the largest mean difference to where it stands, even where that is a loss.

    Arms of which a run diverged are passed by; None where no other is left. Of equals, the one that stands first in the
    plan.
    """
    ledger = Ledger(replicates)
    at = rules.path[-1] if rules.path else rules.reference
    best: tuple[float, str] | None = None
    for arm in rules.arms:
        if rules.reference_of(arm) != at:
            continue
        found = pair(ledger.record(arm.name), ledger.record(at), seeds, sign=rules.sign)
        if found.unstable or found.reference_diverged or not found.n:
            continue
        mean = float(np.mean(found.differences))
        if best is None or mean > best[0]:
            best = (mean, arm.name)
    return None if best is None else best[1]
