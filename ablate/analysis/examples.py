"""Which images an arm gets right that its reference gets wrong, and the other way round, seed after seed.

Exploratory throughout: it chooses nothing, and stands outside the family of verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ablate.analysis.intervals import ENOUGH_PAIRS, paired_variance
from ablate.errors import StoreError

CONSISTENT = 0.9
"""Share of the seeds under which an image must be fixed (or broken) to be called so; with fewer than ten, all of them."""

ALPHA = 0.05


@dataclass(frozen=True)
class Image:
    """An image that an arm fixes or breaks. index: label of its column. truth: its class. seeds: under how many, of how many."""

    index: int
    truth: str
    seeds: int
    of: int


@dataclass(frozen=True)
class ClassChange:
    """What an arm changes of one class. effect: mean difference of the share of its images that is right, in [−1, 1].

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
    """The exact McNemar test, on the answers pooled over seeds: an image counts as right where most seeds get it right.

    fixed: images that are right with the arm and not with the reference, broken: the other way round. p: two-sided, for
    as many fixed as broken. effect: fixed minus broken as a share of all images, in [−1, 1]. lo, hi: its exact 95 % interval, given
    on how many images the two disagree (Clopper & Pearson 1934); None where they agree on all. It leaves out 0 where p < .05.

    It adds the noise of drawing these images: would another test set of the same kind show the difference? It leaves
    out the noise of seeds, which the verdicts are made of: these trainings are taken as they are, so that a small p says
    nothing of other seeds. Neither replaces the other, and no verdict rests on this.
    """

    fixed: int
    broken: int
    p: float
    effect: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True)
class Examples:
    """What an arm fixes and breaks against its reference, on one set of images.

    seeds: those that both have. fixed, broken: images that change consistently, most often first. by_chance: how many of
    each would be expected if the arm changed nothing, given on which images the two disagree. classes: in their order.
    """

    arm: str
    reference: str
    seeds: tuple[int, ...]
    images: int
    fixed: tuple[Image, ...]
    broken: tuple[Image, ...]
    by_chance: float
    classes: tuple[ClassChange, ...]
    mcnemar: McNemar


def examples(
    arm: str,
    reference: str,
    correct: Mapping[str, pd.DataFrame],
    truth: npt.NDArray[np.integer],
    classes: Sequence[str] = (),
) -> Examples | None:
    """Holds an arm against its reference image by image; None where no seed has predictions of both.

    correct: arm → bool frame, index seed, a column per image (its number in the data set), as `judge` takes it; of the test
    images, or of validation images that are the same under every seed. truth: (images,) class numbers, in the order of
    the columns. classes: their names.
    Raises StoreError where the frames and `truth` are not about the same images.
    """
    if arm not in correct or reference not in correct:
        return None
    mine, theirs = correct[arm], correct[reference]
    if not (mine.columns.equals(theirs.columns) and mine.shape[1] == len(truth)):
        raise StoreError(
            f"predictions of {arm!r} and {reference!r} are not about the same {len(truth):,} images"
        )
    seeds = tuple(sorted({int(s) for s in mine.index} & {int(s) for s in theirs.index}))
    if not seeds:
        return None
    ours, refs = (under(f, seeds) for f in (mine, theirs))
    fixes, breaks = (ours & ~refs).sum(axis=0), (~ours & refs).sum(axis=0)
    needed = _needed(len(seeds))
    names = list(classes) or [str(c) for c in range(int(truth.max()) + 1)]

    def images(counts: npt.NDArray[np.int64]) -> tuple[Image, ...]:
        enough = np.flatnonzero(counts >= needed)
        found = enough[np.argsort(-counts[enough], kind="stable")]
        return tuple(Image(int(mine.columns[i]), names[truth[i]], int(counts[i]), len(seeds)) for i in found)

    return Examples(
        arm=arm,
        reference=reference,
        seeds=seeds,
        images=len(truth),
        fixed=images(fixes),
        broken=images(breaks),
        by_chance=float(stats.binom.sf(needed - 1, fixes + breaks, 0.5).sum()),
        classes=_classes(ours, refs, truth, names, fixes >= needed, breaks >= needed),
        mcnemar=mcnemar(_mostly(ours), _mostly(refs)),
    )


def under(correct: pd.DataFrame, seeds: Sequence[int]) -> npt.NDArray[np.bool_]:
    """(len(seeds), images): the rows of these seeds, in their order.

    On the array, because pandas takes rows of a wide frame column by column.
    """
    values = correct.to_numpy(bool)
    if correct.index.equals(pd.Index(seeds)):
        return values
    rows: npt.NDArray[np.bool_] = values[correct.index.get_indexer(pd.Index(seeds))]
    return rows


def mcnemar(arm: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_]) -> McNemar:
    """arm, reference: (images,) whether each is right."""
    fixed, broken = int((arm & ~reference).sum()), int((~arm & reference).sum())
    differ, images = fixed + broken, arm.size
    if not differ:
        return McNemar(0, 0, 1.0, 0.0, None, None)
    test = stats.binomtest(fixed, differ)
    share = test.proportion_ci(0.95, "exact")
    lo, hi = ((2.0 * end - 1.0) * differ / images for end in (share.low, share.high))
    return McNemar(fixed, broken, float(test.pvalue), (fixed - broken) / images, float(lo), float(hi))


def _needed(seeds: int) -> int:
    return math.ceil(CONSISTENT * seeds)


def _mostly(right: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(seeds, images) → (images,): right under more than half of the seeds."""
    most: npt.NDArray[np.bool_] = 2 * right.sum(axis=0) > len(right)
    return most


def _classes(
    ours: npt.NDArray[np.bool_],
    refs: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.integer],
    names: Sequence[str],
    fixed: npt.NDArray[np.bool_],
    broken: npt.NDArray[np.bool_],
) -> tuple[ClassChange, ...]:
    present = [c for c in range(len(names)) if (truth == c).any()]
    n = len(ours)
    found = []
    for c in present:
        of = truth == c
        differences = ours[:, of].mean(axis=1) - refs[:, of].mean(axis=1)
        effect = float(differences.mean())
        half = None
        if n >= ENOUGH_PAIRS:
            variance = float(paired_variance(differences, 1.0 / int(of.sum())))
            half = float(stats.t.ppf(1.0 - ALPHA / (2.0 * len(present)), n - 1)) * math.sqrt(variance / n)
        found.append(
            ClassChange(
                names[c],
                int(of.sum()),
                effect,
                None if half is None else effect - half,
                None if half is None else effect + half,
                int((fixed & of).sum()),
                int((broken & of).sum()),
            )
        )
    return tuple(found)
