"""What makes one doubt that values are those of runs, all in one unit: a leap between them, a stand-in, a rise from row to row."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

from ablate.importing.curves import named_row
from ablate.text import counted, cut, joined

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Bools = np.ndarray[Any, np.dtype[np.bool_]]

LEAP = 30.0
"""Seconds and milliseconds, shares and percentages are apart by more; runs of one study seldom are."""

_STAND_INS = (0.0, -1.0, *(sign * (10.0**n - 1) for n in range(2, 10) for sign in (1, -1)))
"""What programs write where there is no number: 0, −1, 99, 999 and so on."""

_FEWEST, _FAR = 4, 3.0
"""Values from which on one may be far from the others; how far, in ranges of the others."""

_TREND, _LONG, _MOST = 2e-3, 4, 100
"""How improbable a rise from row to row is by chance; the fewest rows of an arm for it, and the most that are looked at."""


def of_values(runs: pd.DataFrame, metric: str) -> list[str]:
    """Return a note on values that may be in another unit than the others, or stand for none.

    runs: `value`, `arm` and `row`, its label, of each run that finished.
    """
    import numpy as np

    values = runs["value"].to_numpy()
    known = np.abs(values) < math.inf
    far = _stand_ins(values, known)
    if far is not None:
        others = values[known & ~far]
        one, number = runs[far].iloc[0], int(far.sum())
        return [
            (
                f"{counted(number, 'run')} {'has' if number == 1 else 'have'} {one['value']:g} where the others lie between "
                f"{others.min():g} and {others.max():g}: row {named_row(one['row'])} ({cut(str(one['arm']), 40)}). Where that stands for "
                "no result, empty the cell, and --nan says what it means"
            )
        ]
    sizes = np.where(known, np.abs(values), 0.0)
    ordered = np.sort(sizes[sizes > 0])
    if len(ordered) < _FEWEST or (leaps := ordered[1:] / ordered[:-1]).max() < LEAP:
        return []
    at = int(leaps.argmax())
    large, small = runs[sizes > ordered[at]], runs[(sizes > 0) & (sizes <= ordered[at])]
    sides = [[cut(str(name), 40) for name in side["arm"].unique()[:3]] for side in (large, small)]
    whose = f"in {joined(sides[0])} against {joined(sides[1])}"
    before, after = small.loc[small["value"].abs().idxmax()], large.loc[large["value"].abs().idxmin()]
    return [
        (
            f"{metric} leaps by a factor of {leaps[at]:.3g}, {whose}: from {before['value']:g} (row {named_row(before['row'])}) to "
            f"{after['value']:g} (row {named_row(after['row'])}). Are all values in one unit?"
        )
    ]


def _stand_ins(values: Floats, known: Bools) -> Bools | None:
    """Which values, few and all the same, are written as where there is no result, and lie far from all others; None: there are none.

    known: which values are finite.
    """
    for stand_in in _STAND_INS:
        is_one: Bools = known & (values == stand_in)
        others = values[known & ~is_one]
        if not is_one.any() or len(others) < _FEWEST or 4 * is_one.sum() > known.sum():
            continue
        if abs(others - stand_in).min() > _FAR * (others.max() - others.min()):
            return is_one
    return None


def of_order(runs: pd.DataFrame, metric: str) -> list[str]:
    """Return a note where a metric rises, or falls, from row to row in every arm, more than it does by chance: steps do so.

    runs: as for `of_values`, in the order of the file.
    """
    score, variance, signs = 0, 0.0, set()
    for _, group in runs.groupby("arm", sort=False, observed=True):
        own = group["value"].to_list()[:_MOST]
        n = len(own)
        if n < _LONG:
            return []
        kendall = sum((b > a) - (b < a) for a, b in itertools.combinations(own, 2))
        score += kendall
        variance += n * (n - 1) * (2 * n + 5) / 18
        signs.add((kendall > 0) - (kendall < 0))
    if len(signs) != 1 or 0 in signs or math.erfc((abs(score) - 1) / math.sqrt(2 * variance)) > _TREND:
        return []
    return [
        (
            f"{metric} {'rises' if score > 0 else 'falls'} from row to row in every arm, as over the steps of one run. Rows that are "
            "steps are no runs: --step COL names the column that counts them, and --at says which of them counts"
        )
    ]
