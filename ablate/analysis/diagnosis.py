"""Why an arm does what it does, read from its curves: a code for machines, words for people, and the numbers.

Diagnoses are exploratory: they explain a verdict and never make one. Each asks for more than noise: what a curve does
must exceed twice its standard error over seeds, and a floor that is stated where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ablate.analysis.grids import Grids
from ablate.analysis.intervals import Floats
from ablate.analysis.rules import scale
from ablate.metrics import splits_of
from ablate.text import measured

Code = Literal[
    "over-fits",
    "under-fits",
    "still-improving",
    "unstable",
    "diverged",
    "edge-of-levels",
    "too-slow-for-its-gain",
]

Curves = Mapping[str, Floats]
"""Metric → array (seeds, epochs), NaN where a run ended earlier."""

SMOOTHING = 3
"""Epochs in the centred mean that curves are smoothed with before their turning point is searched."""

NOTICEABLE_RISE = 0.02
"""Validation loss must rise by this part of its minimum before it counts as over-fitting."""

NO_GAP = 0.02
"""Training accuracy may exceed validation accuracy by this much where a network counts as under-fitting."""

FITTED = 0.9
"""A network that reaches this accuracy on either set has fitted its task, whatever is left."""

POOR = 0.5
"""Stands for FITTED where training accuracy lies well below validation accuracy: dropout or augmentation press it down,
and then it says little about the fit."""

WORSE_FIT = 0.25
"""A training loss above the reference's by this part of it is clearly worse."""

SPIKE = 0.5
"""A jump of the training loss by this part of all that training gained is a spike."""


@dataclass(frozen=True)
class Diagnosis:
    """code: stable, for machines. words: a clause that follows "it" ("over-fits from epoch 14"). detail: how far.

    epoch: where it begins, 1 … E.
    """

    code: Code
    words: str
    detail: str = ""
    epoch: int | None = None


def curves_of(tables: Grids, arm: str, seeds: Iterable[int], phase: str = "report") -> dict[str, Floats]:
    """Return one arm's curves under the given seeds; those of a loss by the names `train/loss` and `val/loss` too."""
    wanted = list(seeds)
    by_metric = {metric: grid.under(wanted) for metric, grid in tables.get((arm, phase), {}).items()}
    curves = {metric: grid.values for metric, grid in by_metric.items() if grid is not None}
    for metric, (split, quantity) in splits_of(curves).items():
        if split and quantity == "loss":
            curves.setdefault(f"{'val' if split == 'validation' else split}/loss", curves[metric])
    return curves


def diagnose(
    curves: Curves,
    *,
    metric: str,
    sign: float,
    margin: float,
    diverged: int = 0,
    runs: int = 0,
    reference: Curves | None = None,
) -> tuple[Diagnosis, ...]:
    """Return what the curves of one arm's finished runs show. A run that stopped early counts as it ended in the epochs after.

    metric, sign (+1: higher is better), margin: of the study. diverged, runs: how many of how many replicates diverged.
    reference: the curves of the arm it is compared with.
    """
    curves, reference = _extended(curves), None if reference is None else _extended(reference)
    diagnoses = [
        divergence(diverged, runs),
        jumps := spikes(curves),
        over := over_fitting(curves),
    ]
    # A loss that jumps is not fitted either, but because the steps are too large, not for lack of capacity.
    if jumps is None:
        diagnoses.append(under_fitting(curves, reference, metric=metric, sign=sign, margin=margin))
    if over is None:
        diagnoses.append(unfinished(curves, metric=metric, sign=sign, margin=margin))
    return tuple(d for d in diagnoses if d is not None)


def divergence(diverged: int, runs: int) -> Diagnosis | None:
    """Diagnose an arm of which some runs diverged."""
    if not diverged:
        return None
    return Diagnosis("diverged", f"diverged in {diverged} of {runs} runs")


def over_fitting(curves: Curves) -> Diagnosis | None:
    """Diagnose a validation loss that rises while training loss goes on falling: from which epoch, and how far.

    Rises are compared as ratios, since runs that over-fit do so to very different heights, and at the end over the last
    epochs together, since the very last may be a spike.
    """
    val, train = curves.get("val/loss"), curves.get("train/loss")
    if val is None or train is None or val.shape[1] < 3 or train.shape[1] != val.shape[1]:
        return None
    mean = _mean(_smooth(val))
    turn = int(np.nanargmin(mean)) if np.isfinite(mean).any() else mean.size - 1
    if turn >= mean.size - 1:
        return None
    falls, lowest = _mean(_smooth(train)), float(mean[turn])
    # A network that drifts without having learned anything does not over-fit: either its training loss ends below the best
    # of validation, or, where dropout or augmentation hold it up, validation loss had come down, and training loss goes on to.
    learned = lowest < float(mean[0]) * (1 - NOTICEABLE_RISE) and falls[-1] < falls[turn] * (
        1 - NOTICEABLE_RISE
    )
    if not (falls[-1] < falls[turn] and (falls[-1] < lowest or learned)):
        return None
    positive = bool((val[np.isfinite(val)] > 0).all())
    heights = np.log(val) if positive else val / abs(lowest or 1.0)
    smooth = _smooth(heights)
    rise = _median(heights[:, max(turn + 1, mean.size - SMOOTHING) :]) - smooth[:, turn]
    # A plateau that only flickers has a lowest epoch too: the rise must stand out of the flicker after it.
    noise = max(2.0 * _standard_error(rise), 3.0 * _flicker(heights, slice(turn, None)))
    if not _average(rise) > max(noise, math.log1p(NOTICEABLE_RISE)):
        return None
    # Reported without the smoothing, which would flatten both ends.
    far = _average(val[:, -1] - val[:, turn]) / abs(lowest) if lowest else math.inf
    by = f"{far:.0%}".replace("%", " %") if far < 10 else f"{far + 1:.0f}-fold"
    return Diagnosis(
        "over-fits",
        f"over-fits from epoch {turn + 1}",
        f"validation loss rises by {by} from epoch {turn + 1} to {mean.size} while training loss falls",
        epoch=turn + 1,
    )


def under_fitting(
    curves: Curves,
    reference: Curves | None = None,
    *,
    metric: str = "val/accuracy",
    sign: float = 1.0,
    margin: float = 0.0,
) -> Diagnosis | None:
    """Diagnose a bad fit even of the training data, for what the task allows or for what the reference reaches.

    Badly for the task, where accuracies are known: below FITTED on either set, and no better on training data than on
    validation data. Badly for the reference: a training loss clearly above its, worse on the metric by the margin too,
    and most of the additional validation loss is there in training already. Training curves are taken with dropout and
    augmentation at work, which is why a worse training loss alone says nothing.
    """
    train, val = curves.get("train/loss"), curves.get("val/loss")
    if train is None or val is None:
        return None
    accuracies = [curves[m] for m in ("train/accuracy", "val/accuracy") if m in curves]
    if len(accuracies) == 2:
        on_train, on_val = (_average(_last(a)) for a in accuracies)
        pressed = on_train < on_val - NO_GAP
        if on_train - on_val <= NO_GAP and max(on_train, on_val) < (POOR if pressed else FITTED):
            return Diagnosis(
                "under-fits",
                "under-fits",
                f"{on_train:.1%} on its own training data, no better than on validation data".replace(
                    "%", " %"
                ),
            )
    if reference is None or "train/loss" not in reference or "val/loss" not in reference:
        return None
    reference_loss = _average(_last(reference["train/loss"]))
    excess, validation_excess = (
        _clearly_more(_last(curves[m]), _last(reference[m])) for m in ("train/loss", "val/loss")
    )
    if metric in curves and metric in reference:
        lost = _clearly_more(-sign * _last(curves[metric]), -sign * _last(reference[metric]))
        worse = lost > 0 and lost >= margin
    else:
        worse = validation_excess > 0
    if not (worse and reference_loss > 0 and excess > WORSE_FIT * reference_loss):
        return None
    # Had it the reference's training loss and lost all of this on new data, it would be over-fitting.
    if _average(_last(val)) - _average(_last(reference["val/loss"])) > 2.0 * excess:
        return None
    times = 1.0 + excess / reference_loss
    return Diagnosis(
        "under-fits",
        "under-fits",
        f"training loss ends at {times:.1f} times the reference's, and validation is worse too",
    )


def _clearly_more(values: Floats, others: Floats) -> float:
    """By how much the mean of one exceeds the other's; 0 where that is within twice its standard error."""
    excess = _average(values) - _average(others)
    return excess if excess > 2.0 * math.hypot(_standard_error(values), _standard_error(others)) else 0.0


def unfinished(curves: Curves, *, metric: str, sign: float, margin: float) -> Diagnosis | None:
    """Diagnose a metric that is still improving: the last tenth of training gained the margin, and ends at its best.

    Where the metric has no curve: validation loss, and one percent of it.
    """
    if metric in curves:
        values, worth = sign * curves[metric], margin
    elif "val/loss" in curves:
        values = -curves["val/loss"]
        worth = 0.01 * abs(_average(_last(values)))
    else:
        return None
    epochs = values.shape[1]
    if epochs < 3:
        return None
    span = max(1, round(epochs / 10))
    gain = _last(values) - values[:, -1 - span]
    mean = _mean(values)
    size = _average(gain)
    noise = 2.0 * _standard_error(gain)
    if np.isfinite(gain).sum() < 3:
        # Too few seeds to decide by. Without the last epoch, where the smoothed curve lags behind a steady rise.
        noise = max(noise, 3.0 * _flicker(values, slice(epochs // 2, -1)))
    if not (size >= worth and size > noise and mean[-1] >= max(mean[np.isfinite(mean)])):
        return None
    name = metric if metric in curves else "val/loss"
    shown = scale(name, worth, _average(_last(values)))
    last = "the last epoch" if span == 1 else f"the last {span} epochs"
    return Diagnosis(
        "still-improving",
        f"is still improving at epoch {epochs}",
        f"{last} alone gained {measured(f'{size * shown.factor:.2g}', shown.unit)}",
        epoch=epochs,
    )


def spikes(curves: Curves) -> Diagnosis | None:
    """Diagnose a training loss that jumps in the middle of training, by SPIKE of all that it gained and by half of itself."""
    train = curves.get("train/loss")
    if train is None or train.shape[1] < 3:
        return None
    whole = np.isfinite(train).all(axis=1)
    broken = (row[np.isfinite(row)][None] for row in train[~whole])
    firsts = [first for values in (train[whole], *broken) for first in _jumps(values)]
    if not firsts:
        return None
    first, runs = min(firsts), len(firsts)
    return Diagnosis(
        "unstable",
        f"is unstable (training loss jumps at epoch {first})",
        f"in {runs} of {train.shape[0]} runs",
        epoch=first,
    )


def _jumps(values: npt.NDArray[np.float64]) -> list[int]:
    """(runs, epochs) without gaps → the epoch of the first jump of each run that has one."""
    if values.size == 0 or values.shape[1] < 3:
        return []
    jumps = np.diff(values, axis=1)
    gained = values[:, 0] - values.min(axis=1)
    high = (jumps > SPIKE * gained[:, None]) & (jumps > 0.5 * np.abs(values[:, :-1]))
    return [int(epoch) + 2 for epoch in high.argmax(axis=1)[high.any(axis=1)]]


def too_slow(
    *,
    effect: float | None,
    verdict: str,
    cost: float | None,
    margin: float,
    error: float = 0.0,
    is_time: bool = False,
) -> Diagnosis | None:
    """Diagnose an arm that costs more than it gives: a doubling of the compute should gain at least the margin.

    For arms whose effect is settled. error: standard error of the effect. cost: against the reference.
    """
    if (
        effect is None
        or cost is None
        or cost < 1.25
        or verdict not in {"helps", "hurts", "no practical effect"}
    ):
        return None
    if effect + 2.0 * error >= margin * math.log2(cost):
        return None
    kind = "time" if is_time else "compute"
    return Diagnosis(
        "too-slow-for-its-gain",
        f"gains too little for its {kind}",
        f"{cost:.1f} times the {kind} should gain {math.log2(cost):.1f} margins",
    )


def at_the_edge(
    levels: Mapping[str, float],
    means: Mapping[str, float],
    factor: str,
    errors: Mapping[str, float] | None = None,
) -> tuple[str, Diagnosis] | None:
    """Return the arm with the best level and its diagnosis where that is the last level that was tried; else None.

    levels: arm → numeric level, the reference's included. means: arm → oriented mean of the metric; an arm without one,
    because it diverged, was tried all the same. errors: arm → standard error of its mean, 0 where it has none. Asks for
    three levels with a mean, since of two one is always at the edge, and for the best to be better than its neighbour: of
    levels that are all alike one is always the best. Zero is no edge where no level is below it: nothing is less than off.
    """
    tried = {arm: level for arm, level in levels.items() if arm in means}
    if len(set(tried.values())) < 3:
        return None
    best = max(sorted(tried), key=lambda arm: means[arm])
    others = [arm for arm in sorted(tried) if tried[arm] != tried[best]]
    neighbour = min(others, key=lambda arm: abs(tried[arm] - tried[best]))
    noise = math.hypot(*((errors or {}).get(arm, 0.0) for arm in (best, neighbour)))
    if not means[best] - means[neighbour] > 2.0 * noise:
        return None
    for edge, side in ((max(levels.values()), "higher"), (min(levels.values()), "lower")):
        if tried[best] == edge and (side == "higher" or edge != 0.0):
            name = factor.rpartition(".")[2]
            name = "learning rate" if name == "lr" else name.replace("_", " ")
            return best, Diagnosis(
                "edge-of-levels",
                f"is the best and the {side[:-2]}est {name} tried",
                f"of {len(set(levels.values()))} levels: the optimum may lie {side}",
            )
    return None


def _extended(curves: Curves) -> dict[str, Floats]:
    """Curves that stay at their last value once their run has ended.

    A mean over the runs that are left would jump where one stops, and would describe the longest run alone at its end.
    """
    extended = {}
    for metric, values in curves.items():
        finite = np.isfinite(values)
        # The last known epoch of each row; a gap before it stays one.
        last = values.shape[1] - 1 - np.argmax(finite[:, ::-1], axis=1)
        past_end = np.arange(values.shape[1]) > last[:, None]
        extended[metric] = np.where(past_end, values[np.arange(len(values)), last][:, None], values)
    return extended


def _smooth(values: Floats) -> Floats:
    """Centred mean over SMOOTHING epochs, shorter at both ends; curves of fewer than 5 epochs stay as they are."""
    if values.shape[1] < 5:
        return values
    reach = SMOOTHING // 2
    padded = np.pad(values, ((0, 0), (reach, reach)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING, axis=1)
    finite = np.isfinite(windows)
    count = finite.sum(axis=-1)
    total = np.where(finite, windows, 0.0).sum(axis=-1)
    return np.where(np.isfinite(values), total / np.maximum(count, 1), np.nan)


def _mean(values: Floats) -> Floats:
    """Mean over seeds, per epoch; NaN where no run got that far."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = np.where(finite, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _flicker(values: Floats, epochs: slice) -> float:
    """Return how much the mean over seeds jumps from epoch to epoch: std of what smoothing takes away."""
    taken = (_mean(values) - _mean(_smooth(values)))[epochs]
    finite = taken[np.isfinite(taken)]
    return float(np.std(finite)) if finite.size else 0.0


def _last(values: Floats) -> Floats:
    """Return each seed's value at the last epoch; NaN where its run ended earlier."""
    return values[:, -1]


def _median(values: Floats) -> Floats:
    """Return each seed's median over epochs; NaN where its run ended earlier."""
    return np.where(np.isfinite(values).all(axis=1), np.median(values, axis=1), np.nan)


def _average(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _standard_error(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.std(finite, ddof=1) / math.sqrt(finite.size)) if finite.size > 1 else 0.0
