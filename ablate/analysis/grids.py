"""Curves as arrays: from the long frame of a study to a table of seeds × epochs for every arm and metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ablate.analysis.intervals import Floats


@dataclass(frozen=True)
class Grid:
    """One metric of one arm. values: (n, E), the column e − 1 holding epoch e, NaN where there is none.

    seeds: (n,) ascending. ends: (n,) the last epoch recorded of each.
    """

    seeds: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    values: Floats

    def under(self, seeds: Iterable[int]) -> Grid | None:
        """Only these seeds, without the epochs that none of them reached; None where none of them is here."""
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


def grids(curves: pd.DataFrame | Grids | None) -> Grids:
    """Every grid of a study. curves: long frame (arm, seed, phase, epoch, metric, value), epochs from 1; or what this made of one."""
    if not isinstance(curves, pd.DataFrame):
        return curves or {}
    if curves.empty:
        return {}
    # Sorting whole rows would cost more than all that is done with them: codes of the texts are enough.
    arm, phase, metric = (pd.factorize(curves[name]) for name in ("arm", "phase", "metric"))
    group = (arm[0].astype(np.int64) * len(phase[1]) + phase[0]) * len(metric[1]) + metric[0]
    place, seeds = pd.factorize(curves["seed"], sort=True)
    known = np.asarray(seeds, dtype=np.int64)
    epoch = curves["epoch"].to_numpy(np.int64)
    value = curves["value"].to_numpy(np.float64)
    # Numbers of two bytes are sorted by radix, several times faster.
    order = np.argsort(group.astype(np.int16) if group.max() < 2**15 else group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order])) + 1
    found: dict[tuple[str, str], dict[str, Grid]] = {}
    for rows in np.split(order, edges):
        code, metric_code = divmod(int(group[rows[0]]), len(metric[1]))
        arm_code, phase_code = divmod(code, len(phase[1]))
        of, epochs = place[rows], epoch[rows]
        counts = np.bincount(of, minlength=len(known))
        row = np.cumsum(counts > 0) - 1
        ends = np.zeros(len(known), dtype=np.int64)
        np.maximum.at(ends, of, epochs)
        values = np.full((int(row[-1]) + 1, int(ends.max())), np.nan)
        values[row[of], epochs - 1] = value[rows]
        mine = found.setdefault((str(arm[1][arm_code]), str(phase[1][phase_code])), {})
        mine[str(metric[1][metric_code])] = Grid(known[counts > 0], ends[counts > 0], values)
    return {place: dict(sorted(metrics.items())) for place, metrics in found.items()}
