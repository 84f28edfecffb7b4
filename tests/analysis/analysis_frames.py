"""Small frames and rules for the tests of verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ablate.analysis import ArmRule, Rules, caution

BASE = 50.0


def rules(arms=("A",), *, looks=(5, 10), margin=0.5, **options) -> Rules:
    """Rules in the units of the protocol's vectors (points), one arm per name; more of the score is better."""
    metric = options.pop("metric", "score")
    if metric == "score":
        options.setdefault("direction", "maximize")
    return Rules(
        metric=metric,
        margin=margin,
        looks=tuple(looks),
        arms=tuple(a if isinstance(a, ArmRule) else ArmRule(a) for a in arms),
        **options,
    )


def row(arm: str, seed: int, value: float, **more) -> dict:
    phase = more.pop("phase", "report")
    return {
        "arm": arm,
        "seed": seed,
        "phase": phase,
        "outcome": "finished",
        "value": value,
        "test": np.nan,
        "weights": f"w/{arm}/{phase}/{seed}",
        "trace": f"t/{arm}/{phase}/{seed}",
        "seconds": 10.0,
        "flops": 1e9,
        "parameters": 1e4,
        "epochs": 20,
        "run_id": f"{arm}-{phase}-{seed}",
        **more,
    }


def replicates(
    differences: Mapping[str, Sequence[float]], *, base: Sequence[float] | None = None
) -> pd.DataFrame:
    """A frame in which arm − baseline is exactly what is asked for, up to rounding, seeds 0, 1, … ."""
    longest = max((len(d) for d in differences.values()), default=0)
    # Powers of two, so that base + d − base loses nothing to rounding that a six-digit test could see.
    level = list(base) if base is not None else [BASE + (i % 4) * 0.25 for i in range(longest)]
    rows = [row("baseline", i, level[i]) for i in range(len(level))]
    rows += [row(arm, i, level[i] + d) for arm, ds in differences.items() for i, d in enumerate(ds)]
    return pd.DataFrame(rows)


def change(frame: pd.DataFrame, arm: str, seed: int, **values) -> pd.DataFrame:
    """The frame with some cells of one replicate replaced."""
    frame = frame.copy()
    at = (frame["arm"] == arm) & (frame["seed"] == seed)
    for column, value in values.items():
        frame.loc[at, column] = value
    return frame


def drop(frame: pd.DataFrame, arm: str, *seeds: int) -> pd.DataFrame:
    return frame[~((frame["arm"] == arm) & frame["seed"].isin(seeds))]


def warnings(found) -> list[str]:
    """The cautions of an analysis as sentences."""
    return [caution(c, found.rules) for c in found.warnings]


V3 = {
    "A": [1.2, 0.8, 1.1, 0.6, 1.3],
    "B": [0.1, -0.2, 0.0, 0.2, -0.1],
    "C": [0.4, -0.3, 0.5, 0.1, 0.3],
    "D": [-1.0, -2.4, 0.2, -1.9, -0.9],
    "E": [0.0, 0.3, -0.1, 0.2, 0.1],
}

V4 = V3 | {
    "C": V3["C"] + [0.2, 0.4, 0.1, 0.5, 0.2],
    "D": V3["D"] + [-1.4, -0.6, -2.0, -1.1, -1.7],
    "E": V3["E"] + [0.1, 0.0, 0.2, 0.1, 0.0],
}
