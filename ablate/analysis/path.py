"""The steps of a greedy path through a space of configurations (Fawcett & Hoos 2016, doi 10.1007/s10732-014-9275-9).

From the baseline, each step takes the one change that does best on top of the changes before it. Which comparisons are
made thus depends on the very results that they are judged by: a step looks better than it is, because it was the best of
several, and the next one looks worse, because it is compared with a lucky one. Its intervals therefore hold for every
comparison that any path could have made (`Rules.edges`), k·2^(k−1) for k factors, of which a path makes k(k+1)/2.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ablate.analysis.compare import Ledger, not_paired, pair
from ablate.analysis.rules import Rules


def next_step(rules: Rules, replicates: pd.DataFrame, seeds: Sequence[int]) -> str | None:
    """Return the arm that a path takes next: the largest mean difference to where it stands, even where that is a loss.

    Arms with a diverged run are left out; None where no other is left. Of equals, the first in the plan.
    """
    ledger = Ledger(replicates)
    current = rules.path[-1] if rules.path else rules.reference
    best: tuple[float, str] | None = None
    for arm in rules.arms:
        if rules.reference_of(arm) != current:
            continue
        sample = pair(ledger.record(arm.name), ledger.record(current), seeds, sign=rules.sign)
        if not rules.paired:
            weights = {arm.name: 1.0, current: -1.0}
            sample = not_paired(sample, weights, ledger.under(weights, seeds), rules)
        if sample.unstable or sample.reference_diverged or sample.effect is None:
            continue
        if best is None or sample.effect > best[0]:
            best = (sample.effect, arm.name)
    return None if best is None else best[1]
