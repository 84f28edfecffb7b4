"""Curves as arrays: from the long frame of a study to a table of seeds × epochs for every arm and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.analysis.compare import names_of, number_array, refuse_repeated, seed_numbers
from ablate.analysis.intervals import Floats
from ablate.errors import StoreError


@dataclass(frozen=True)
class Grid:
    """One metric of one arm. values: (n, E), the column e − 1 holding epoch e, NaN where there is none.

    seeds: (n,) ascending. ends: (n,) the last epoch recorded of each.
    """

    seeds: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    values: Floats

    def under(self, seeds: Iterable[int]) -> Grid | None:
        """Return only these seeds, without the epochs that none of them reached; None where the grid has none of them."""
        wanted = list(seeds)
        if wanted == self.seeds.tolist():
            return self
        kept = np.isin(self.seeds, wanted)
        if kept.all():
            return self
        if not kept.any():
            return None
        ends = self.ends[kept]
        return Grid(self.seeds[kept], ends, self.values[kept, : ends.max()])


Grids = Mapping[tuple[str, str], Mapping[str, Grid]]
"""(arm, phase) → metric → its grid."""


COLUMNS = ("arm", "seed", "phase", "epoch", "metric", "value")
"""Columns that a frame of curves must have."""


def grids(curves: pd.DataFrame | Grids | None) -> Grids:
    """Return every grid of a study.

    curves: long frame (arm, seed, phase, epoch, metric, value), epochs from 1; or what this made of one. Raises
    StoreError where a column is absent, or a seed, an epoch or an arm's name is none.
    """
    if not isinstance(curves, pd.DataFrame):
        if curves is None or isinstance(curves, Mapping):
            return curves or {}
        raise StoreError(
            f"the curves are a {type(curves).__name__}, not a DataFrame", hint="try pandas.DataFrame(…)"
        )
    if absent := [name for name in COLUMNS if name not in curves.columns]:
        raise StoreError(
            f"the curves have no column {', '.join(absent)}", hint=f"needed: {', '.join(COLUMNS)}"
        )
    refuse_repeated(curves)
    if curves.empty:
        return {}
    for name in ("phase", "metric"):
        if curves[name].isna().any():
            raise StoreError(f"a row has no {name}", place=f"column {name!r} of the curves")
    # Sorting whole rows would cost more than all that is done with them: codes of the texts are enough.
    arm, phase, metric = (pd.factorize(curves[name]) for name in ("arm", "phase", "metric"))
    if curves["seed"].isna().any():
        raise StoreError("a row has no seed", place="column 'seed' of the curves")
    place, seeds = pd.factorize(curves["seed"], sort=True)
    all_seeds = np.asarray(seed_numbers(seeds.tolist(), "column 'seed' of the curves"))
    if (arm[0] < 0).any():
        names_of(curves.loc[arm[0] < 0, "arm"].to_numpy(dtype=object))  # raises: an arm has no name
    # Two values may be one name: 1 and "1".
    codes, names = pd.factorize(np.array(names_of(arm[1]), dtype=object))
    group = (codes.astype(np.int64)[arm[0]] * len(phase[1]) + phase[0]) * len(metric[1]) + metric[0]
    epoch = number_array(curves, "epoch")
    # The remainder of a division takes ten times as long.
    if not ((epoch >= 1) & (epoch == np.floor(epoch)) & (epoch < np.inf)).all():
        raise StoreError("epochs are whole numbers from 1 on", place="column 'epoch' of the curves")
    epoch = epoch.astype(np.int64)
    value = number_array(curves, "value")
    # Numbers of two bytes are sorted by radix, several times faster.
    group = group.astype(np.int16) if group.max() < 2**15 else group
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    tables: dict[tuple[str, str], dict[str, Grid]] = {}
    for rows in np.split(order, edges):
        code, metric_code = divmod(int(group[rows[0]]), len(metric[1]))
        arm_code, phase_code = divmod(code, len(phase[1]))
        seed_codes, epochs = place[rows], epoch[rows]
        counts = np.bincount(seed_codes, minlength=len(all_seeds))
        row = np.cumsum(counts > 0) - 1
        ends = np.zeros(len(all_seeds), dtype=np.int64)
        np.maximum.at(ends, seed_codes, epochs)
        values = np.full((int(row[-1]) + 1, int(ends.max())), np.nan)
        values[row[seed_codes], epochs - 1] = value[rows]
        by_metric = tables.setdefault((str(names[arm_code]), str(phase[1][phase_code])), {})
        by_metric[str(metric[1][metric_code])] = Grid(all_seeds[counts > 0], ends[counts > 0], values)
    return {key: dict(sorted(metrics.items())) for key, metrics in tables.items()}
