"""Prediction changes: images that an arm classifies correctly and its reference does not, or the other way round, under every seed.

Exploratory throughout: they choose nothing, and are no part of the family of verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from ablate.analysis.intervals import ENOUGH_PAIRS, paired_variance
from ablate.errors import StoreError

CONSISTENT = 0.9
"""Share of the seeds under which an image must be fixed (or broken) to be called so; with fewer than ten, all of them."""

ALPHA = 0.05

MOST_PERMUTATIONS = 512
"""Permutations that are counted: all of them below ten seeds, random ones from there on."""

BLOCK = 4096
"""Images that are permuted at a time, so that it takes a few megabytes however many there are."""


@dataclass(frozen=True)
class ChangedImage:
    """An image that an arm fixes (newly correct) or breaks (newly wrong).

    index: label of its column. truth: its class. seeds: under how many it changes, of how many. right, reference_right: under
    how many it is correct with the arm, and with the reference.
    """

    index: int
    truth: str
    seeds: int
    of: int
    right: int
    reference_right: int


@dataclass(frozen=True)
class ClassChange:
    """What an arm changes of one class. effect: mean difference of the share of its images that is correct, in [−1, 1].

    lo, hi: 95 % interval over seeds, for all classes together; None below 3 seeds. fixed, broken: images, consistently.
    """

    name: str
    images: int
    effect: float
    lo: float | None
    hi: float | None
    fixed: int
    broken: int

    @property
    def consistent(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.lo is not None and self.hi is not None and (self.lo > 0 or self.hi < 0)


@dataclass(frozen=True)
class McNemar:
    """The exact McNemar test, on the predictions pooled over seeds: an image is correct where most seeds classify it correctly.

    fixed: images that are correct with the arm and not with the reference, broken: the other way round. p: two-sided, for
    as many fixed as broken. effect: fixed minus broken as a share of all images, in [−1, 1]: of the majority votes, not of a single
    training. lo, hi: its 95 % interval over drawing the images (Tango 1998), which leaves out 0 where p < .05.

    It adds the noise of drawing these images: would another test set of the same kind show the difference? It leaves
    out the noise of seeds, which the verdicts are read from: these trainings are taken as fixed, so that a small p says
    nothing about other seeds, and two halves of one arm's trainings may well differ by it. Neither replaces the other, and no
    verdict rests on this. Where there are many arms, nothing is corrected for their number.
    """

    fixed: int
    broken: int
    p: float
    effect: float
    lo: float
    hi: float


@dataclass(frozen=True)
class PredictionChanges:
    """What an arm fixes and breaks against its reference, on one set of images.

    seeds: those that both have. fixed, broken: images that change consistently, most often first. by_chance: how many of
    each chance makes: the mean over permutations, which exchange arm and reference under some of the seeds but not under all.
    seldom_more: the number that at most one permutation in twenty exceeds. For an arm that changes nothing a permutation makes
    no difference; for one that changes much, both are approximate. classes: in their order.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    images: int
    fixed: tuple[ChangedImage, ...]
    broken: tuple[ChangedImage, ...]
    by_chance: float
    seldom_more: int
    classes: tuple[ClassChange, ...]
    mcnemar: McNemar


def prediction_changes(
    arm: str,
    reference: str,
    correct: Mapping[str, pd.DataFrame],
    truth: npt.NDArray[np.integer],
    classes: Sequence[str] = (),
) -> PredictionChanges | None:
    """Compare an arm with its reference image by image; None where no seed has predictions of both.

    correct: arm → bool frame, index seed, a column per image (its number among the test images). truth: (images,) class
    numbers, in the order of the columns. classes: their names.
    Raises StoreError where the frames and `truth` are not about the same images.
    """
    if arm not in correct or reference not in correct:
        return None
    own, others = correct[arm], correct[reference]
    if not (own.columns.equals(others.columns) and own.shape[1] == len(truth)):
        raise StoreError(
            f"predictions of {arm!r} and {reference!r} are not about the same {len(truth):,} images"
        )
    seeds = tuple(sorted({int(s) for s in own.index} & {int(s) for s in others.index}))
    if not seeds:
        return None
    rows, reference_rows = (under(f, seeds) for f in (own, others))
    changes = rows.view(np.int8) - reference_rows.view(np.int8)
    correct_seeds, reference_correct_seeds, both = map(
        per_image, (rows, reference_rows, rows & reference_rows)
    )
    fixes, breaks = correct_seeds - both, reference_correct_seeds - both
    needed = _needed(len(seeds))
    names = list(classes) or [str(c) for c in range(int(truth.max(initial=0)) + 1)]

    def images(counts: npt.NDArray[np.int64]) -> tuple[ChangedImage, ...]:
        enough = np.flatnonzero(counts >= needed)
        consistent = enough[np.argsort(-counts[enough], kind="stable")]
        return tuple(
            ChangedImage(
                int(own.columns[i]),
                names[truth[i]],
                int(counts[i]),
                len(seeds),
                int(correct_seeds[i]),
                int(reference_correct_seeds[i]),
            )
            for i in consistent
        )

    permuted = _permuted(changes, fixes + breaks, needed)
    return PredictionChanges(
        arm=arm,
        reference=reference,
        seeds=seeds,
        images=len(truth),
        fixed=images(fixes),
        broken=images(breaks),
        by_chance=float(permuted.mean()),
        seldom_more=int(np.quantile(permuted, 0.95, method="higher")),
        classes=_classes(changes, truth, names, fixes >= needed, breaks >= needed),
        mcnemar=mcnemar(2 * correct_seeds > len(seeds), 2 * reference_correct_seeds > len(seeds)),
    )


def under(correct: pd.DataFrame, seeds: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return the rows of these seeds, in their order: (len(seeds), images).

    On the array, because pandas takes rows of a wide frame column by column.
    """
    values = correct.to_numpy(bool)
    if correct.index.equals(pd.Index(seeds)):
        return values
    rows: npt.NDArray[np.bool_] = values[correct.index.get_indexer(pd.Index(seeds))]
    return rows


def per_image(right: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return under how many seeds each image is correct: (seeds, images) → (images,).

    Summed in bytes, as many rows at a time as cannot overflow one: wider sums take ten times as long.
    """
    counts = np.zeros(right.shape[1], dtype=np.int64)
    for at in range(0, len(right), 255):
        counts += np.add.reduce(right[at : at + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return counts


def mcnemar(arm: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> McNemar:
    """Return the exact McNemar test. arm, reference: (images,) whether each is correct; at least one image."""
    fixed, broken = int((arm & ~reference).sum()), int((~arm & reference).sum())
    p = _even(fixed, fixed + broken)
    lo, hi = paired_shares(fixed, broken, arm.size)
    if p >= ALPHA:
        # The exact test is the more careful of the two: the interval must not claim what it does not.
        lo, hi = min(lo, 0.0), max(hi, 0.0)
    return McNemar(fixed, broken, p, (fixed - broken) / arm.size, lo, hi)


def _even(k: int, n: int) -> float:
    """Return the exact two-sided binomial test's p for k of n where half are expected, as `scipy.stats.binomtest` has it.

    That searches the other tail, which here is as large; and `scipy.stats` takes a third of a second to import.
    """
    fewer = min(k, n - k)
    return 1.0 if 2 * fewer == n else 2.0 * float(special.betainc(n - fewer, fewer + 1, 0.5))


def paired_shares(gained: int, lost: int, images: int) -> tuple[float, float]:
    """Return a 95 % interval for the difference of two shares of the same images, of which `gained` have only the one, `lost` only the other.

    Tango's score interval (Statistics in Medicine 17, 1998, 891–908). Unlike the exact interval for the share of `gained` among
    those that differ, it knows that another draw of images would not have as many that differ.
    """
    effect, z2 = (gained - lost) / images, float(special.ndtri(1.0 - ALPHA / 2.0)) ** 2

    def beyond(difference: float) -> float:
        """Above 0 where the data are further from this difference than z standard errors."""
        b = -gained - lost + (2 * images - gained + lost) * difference
        c = -lost * difference * (1.0 - difference)
        # The most likely share of `lost` under this difference; rounding may leave the root of a tiny negative number.
        share = (math.sqrt(max(b * b - 8.0 * images * c, 0.0)) - b) / (4.0 * images)
        variance = max(2.0 * share + difference * (1.0 - difference), 0.0) / images
        return (effect - difference) ** 2 - z2 * variance

    near = 1e-9  # at the effect itself there is no variance where no image differs
    lo = _root(beyond, -1.0, effect - near) if effect - near > -1.0 else -1.0
    hi = _root(beyond, 1.0, effect + near) if effect + near < 1.0 else 1.0
    return lo, hi


def _root(function: Callable[[float], float], outer: float, inner: float) -> float:
    """Return where a function turns from above 0, at `outer`, to below, at `inner`, which are at most 2 apart: to 2e-15, by halving.

    `scipy.optimize` takes a fifth of a second to import.
    """
    for _ in range(50):
        middle = (outer + inner) / 2
        if function(middle) > 0:
            outer = middle
        else:
            inner = middle
    return middle


def _permuted(
    changes: npt.NDArray[np.int8], times: npt.NDArray[np.int64], needed: int
) -> npt.NDArray[np.int64]:
    """(permutations,) how many images would be fixed if arm and reference were exchanged under some of the seeds.

    changes: (seeds, images) 1 where an image is fixed, −1 where it is broken. times: (images,) how often either happens. The images of one training are correlated, which
    a sum over images ignores; an exchange keeps them together. A single seed cannot be permuted in part: half of its changes.
    """
    seeds = len(changes)
    signs: npt.NDArray[Any] = (
        1 - 2 * ((np.arange(2**seeds)[:, None] >> np.arange(seeds)) & 1)
        if 2**seeds <= MOST_PERMUTATIONS
        else np.random.default_rng(0).choice([-1, 1], (MOST_PERMUTATIONS, seeds))
    )
    if seeds > 1:
        signs = signs[np.abs(signs.sum(axis=1)) < seeds]
    often = times >= needed
    able = changes[:, often].astype(np.float32)
    # Fixed as often as `needed`: the sum of n signs of which m are −1 is n − 2m.
    least = (2 * needed - times[often]).astype(np.float32)
    counts = np.zeros(len(signs), dtype=np.int64)
    for at in range(0, able.shape[1], BLOCK):
        part = slice(at, at + BLOCK)
        counts += (signs.astype(np.float32) @ able[:, part] >= least[part]).sum(axis=1)
    return counts


def _needed(seeds: int) -> int:
    return math.ceil(CONSISTENT * seeds)


def _classes(
    changes: npt.NDArray[np.int8],
    truth: npt.NDArray[np.integer],
    names: Sequence[str],
    fixed: npt.NDArray[np.bool_],
    broken: npt.NDArray[np.bool_],
) -> tuple[ClassChange, ...]:
    sizes = np.bincount(truth, minlength=len(names))
    present = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[present])
    starts = np.concatenate([[0], ends[:-1]])
    order = np.argsort(truth, kind="stable")
    # As many images at a time as cannot overflow a byte: wider sums take ten times as long.
    blocks = np.concatenate([np.arange(start, end, 127) for start, end in zip(starts, ends, strict=True)])
    first_blocks = np.searchsorted(blocks, starts)

    def by_class(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Sums over the images of each class that has any; the last axis is the images. values: each −1, 0 or 1."""
        # Not `of[..., order]`, whose rows do not lie together: five times as slow to sum.
        ordered = np.take(values.view(np.int8), order, axis=-1, mode="clip")
        parts = np.add.reduceat(ordered, blocks, axis=-1, dtype=np.int8)
        sums: npt.NDArray[np.int64] = np.add.reduceat(parts, first_blocks, axis=-1, dtype=np.int64)
        return sums

    n = len(changes)
    differences = by_class(changes) / sizes[present]
    effects = differences.mean(axis=0)
    half = np.full(len(present), np.nan)
    if n >= ENOUGH_PAIRS:
        variance = paired_variance(differences.T, 1.0 / sizes[present])
        half = special.stdtrit(n - 1, 1.0 - ALPHA / (2.0 * len(present))) * np.sqrt(variance / n)
    return tuple(
        ClassChange(
            names[c],
            int(sizes[c]),
            float(effect),
            None if n < ENOUGH_PAIRS else float(effect - h),
            None if n < ENOUGH_PAIRS else float(effect + h),
            int(mended),
            int(spoilt),
        )
        for c, effect, h, mended, spoilt in zip(
            present.tolist(), effects, half, by_class(fixed), by_class(broken), strict=True
        )
    )
