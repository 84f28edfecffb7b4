"""What `judge` returns: comparisons, effects, summaries and cautions, as frozen data.

Effects and intervals are oriented: higher is better, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ablate.analysis.diagnosis import Diagnosis
from ablate.analysis.family import ANEW, Terms
from ablate.analysis.power import MoreSeeds
from ablate.analysis.rules import Look, Rules
from ablate.errors import StudyError, nearest

Verdict = Literal[
    "helps", "hurts", "no practical effect", "inconclusive", "unstable", "not independent", "no override"
]

Withheld = Literal["too few pairs", "too few runs", "too few blocks", "no noise", "reference diverged"]
"""Why an arm that could have one has no interval."""


@dataclass(frozen=True)
class ArmSummary:
    """What was recorded for one arm, raw (as the metric is written), over its finished report replicates.

    n: finished replicates. mean, sd, low, high: of the primary metric (sd: ddof 1, None for one). test: mean test twin.
    flops, parameters, epochs: means per replicate, seconds: their median; None where unknown. failed, diverged, missing: counts among
    the seeds that were due.
    """

    arm: str
    n: int
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    test: float | None
    seconds: float | None
    flops: float | None
    parameters: float | None
    epochs: float | None
    failed: int
    diverged: int
    missing: int
    fit: tuple[Diagnosis, ...] = ()


@dataclass(frozen=True)
class Pairing:
    """What pairing by seed gained an arm. correlation: of its values with its reference's, over seeds.

    unpaired_seeds: as many runs of each would give an interval as narrow without pairing; None where there is no interval, or
    where it would take very many.
    """

    correlation: float
    unpaired_seeds: int | None


@dataclass(frozen=True)
class PairingGain:
    """What pairing gained a study. correlation: over its arms, on average.

    seeds, unpaired_seeds: of the median arm, with pairing and for the same interval without; None where that is not known.
    """

    correlation: float
    seeds: int | None
    unpaired_seeds: int | None


@dataclass(frozen=True)
class Comparison:
    """One arm against its reference, at the look that decided it (or the last one that has been closed).

    effect: oriented mean difference in the metric's units, None without a pair. lo, hi: the study-wide interval, None
    below 3 pairs and where there is no comparison to be made. p_adjusted: below .05 exactly when the interval excludes
    0. clearly: helps or hurts by at least the margin. real: no practical effect, and yet not zero.
    ruled_out: what an inconclusive interval excludes, a `gain` or a `loss` of the margin. n: pairs. noise: standard deviation
    (std) of the paired differences. ci_new_images: interval for new images, None without per-image correctness.
    cost_ratio: compute against the reference (FLOPs; device seconds where those are unknown and the spread of the
    runs shows whether they differ, then cost_is_time). seconds_ratio: of the typical times, whatever their spread.
    more_seeds: the price of certainty, for inconclusive arms. test_effect: oriented, never used to choose.
    differences: (seed, oriented difference) of each pair. summary: the arm's own raw figures. look: index of the look
    (0: none yet), alpha: what that look spends. provisional: no look is closed yet, and more pairs are due.
    withheld: why there is no interval, where flags are not the reason. n_reference: runs of the reference, where the arm's
    runs are not paired with them; n counts the arm's own then, and there are no differences. pairing: what it gained; None where
    nothing is paired.
    """

    arm: str
    factor: str | None
    level: Any
    reference: str
    verdict: Verdict
    n: int
    effect: float | None
    lo: float | None
    hi: float | None
    p_adjusted: float | None
    clearly: bool
    real: bool
    ruled_out: Literal["gain", "loss"] | None
    noise: float | None
    ci_new_images: tuple[float, float] | None
    cost_ratio: float | None
    cost_is_time: bool
    seconds_ratio: float | None
    parameter_ratio: float | None
    fit: tuple[Diagnosis, ...]
    failed: int
    diverged: int
    missing: int
    more_seeds: MoreSeeds | None
    test_effect: float | None
    differences: tuple[tuple[int, float], ...]
    summary: ArmSummary
    look: int
    alpha: float
    provisional: bool = False
    withheld: Withheld | None = None
    n_reference: int | None = None
    pairing: Pairing | None = None


@dataclass(frozen=True)
class Effect:
    """A main effect or an interaction, with the same reading as a Comparison.

    terms: one for a main effect and two for an interaction, the second `THE_REST` where a factor is known alone and
    within everything. aliases: other effects that this design cannot tell from it. estimate: oriented; lo, hi,
    p_adjusted, … as in Comparison. apart: of an interaction with the rest, what the factor is worth alone, and given
    the rest; the estimate is the second minus the first.
    """

    terms: Terms
    verdict: Verdict
    n: int
    estimate: float | None
    lo: float | None
    hi: float | None
    p_adjusted: float | None
    clearly: bool
    real: bool
    ruled_out: Literal["gain", "loss"] | None
    noise: float | None
    more_seeds: MoreSeeds | None
    differences: tuple[tuple[int, float], ...]
    look: int
    alpha: float
    provisional: bool = False
    withheld: Withheld | None = None
    aliases: tuple[Terms, ...] = ()
    apart: tuple[float, float] | None = None


@dataclass(frozen=True)
class Runs:
    """Counts over the replicates that are due (report, A/A and confirmation; not tuning)."""

    planned: int
    finished: int
    failed: int
    diverged: int
    missing: int


CautionCode = Literal[
    "reference-diverged",
    "reference-not-finite",
    "reference-failed",
    "arm-failed",
    "direction-against-name",
    "judged-on-test",
    "judged-before",
    "coarse-metric",
    "read-before-the-end",
    "told-of-errors",
    "read-from-test-line",
    "aa-differs",
    "aa-repeats",
    "single-runs",
    "no-noise",
    "repeated-values",
    "values-of-reference",
    "noisy",
    "skewed",
    "margin-out-of-reach",
    "mixed-devices",
    "mixed-torch",
    "mixed-inputs",
    "shared-files",
    "mixed-units",
    "unequal-epochs",
    "stacked-and-single",
    "aliased",
]


@dataclass(frozen=True)
class Caution:
    """Something to know before trusting a verdict. `words.caution` says it.

    code: stable, for machines. subject: the arm, or the effect, that it is about; None: the whole study. figures: the
    numbers it rests on, in the metric's units where they have any. seeds: those concerned. arms: those concerned, where
    it is about several. counts: (name, number of runs) of what is mixed. reason: why a run ended as it did, in words.
    """

    code: CautionCode
    subject: str | Terms | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    arms: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Beyond:
    """What settles the undecided arms once the most seeds are used up, each with a probability of 80 %; None: more than there are.

    undecided: how many there are. extra: further seeds of each, judged in an extra look with all those before. fresh: seeds
    of each in a study of them alone, with its whole error and its smaller family. writable: whether there can be such a study.
    """

    undecided: int
    extra: int | None
    fresh: int | None
    writable: bool

    @property
    def recommended(self) -> Literal["fresh", "extra"] | None:
        """The cheaper of the two, in seeds of the same arms; None where neither is within reach."""
        if self.fresh is None:
            return None if self.extra is None else "extra"
        return "fresh" if self.extra is None or self.fresh <= self.extra else "extra"


@dataclass(frozen=True)
class Analysis:
    """Everything the report says about a study.

    look: index of the last closed look (0: none), pairs: its number of pairs, alpha: what it spends (before the first
    is closed: what that one will spend). declared: whether it was a declared one. next_look: where the undecided go.
    comparisons: in arm order, empty in factorial designs, which have cells (raw figures) and effects instead. effects:
    of those, and the interactions with the rest where every factor is tried alone and left out. combinations: each cell
    against the reference, corrected for the cells alone: none of the study's verdicts.
    aa: A/A against the baseline, outside the family. confirmation: the winner on fresh seeds, with its own full error.
    noise: typical std of a paired difference. optimism: by how much the best of k equal arms is expected to look better.
    detectable: effect that the last declared look detects with 80 % power at that noise. moderated: whether the noise of any
    interval is averaged with that of others.
    warnings: what to know before trusting a verdict, most serious first; `error` is among them.
    error: what makes the whole study unreadable (a diverged reference), in which case no arm is judged.
    """

    rules: Rules
    look: int
    pairs: int
    alpha: float
    declared: bool
    provisional: bool
    next_look: Look
    comparisons: tuple[Comparison, ...]
    baseline: ArmSummary
    effects: tuple[Effect, ...] = ()
    cells: tuple[ArmSummary, ...] = ()
    combinations: tuple[Comparison, ...] = ()
    references: tuple[ArmSummary, ...] = ()
    aa: Comparison | None = None
    confirmation: Comparison | None = None
    noise: float | None = None
    optimism: float | None = None
    detectable: float | None = None
    moderated: bool = False
    runs: Runs = field(default_factory=lambda: Runs(0, 0, 0, 0, 0))
    warnings: tuple[Caution, ...] = ()
    error: Caution | None = None

    @property
    def beyond(self) -> Beyond | None:
        """The price of settling what is undecided once the most seeds are used up; None before, and where nothing is."""
        every: tuple[Comparison | Effect, ...] = (*self.comparisons, *self.effects)
        items = [item for item in every if item.verdict == "inconclusive"]
        prices = [item.more_seeds for item in items if item.more_seeds is not None]
        if not prices or self.provisional or any(price.most is not None for price in prices):
            return None
        totals, fresh = [price.n80 for price in prices], [price.fresh for price in prices]
        known, fresh_known = [n for n in totals if n], [n for n in fresh if n]
        least = min(item.n for item in items if item.more_seeds is not None)
        return Beyond(
            len(prices),
            max(known) - least if len(known) == len(prices) else None,
            max(fresh_known) if len(fresh_known) == len(prices) else None,
            self.rules.design in ANEW and self.rules.unit != "block",
        )

    def comparison(self, arm: str) -> Comparison:
        """Return the comparison of one arm. Raises StudyError for an arm that has none."""
        for comparison in self.comparisons:
            if comparison.arm == arm:
                return comparison
        raise StudyError(
            f"no comparison of an arm {arm!r}",
            place="arms",
            hint=nearest(str(arm), [c.arm for c in self.comparisons]),
        )


@dataclass(frozen=True)
class BlockedAnalysis:
    """Blocks (tasks, data sets, folds). within: (block, its analysis), in order; their family is arms × blocks.

    over: over all blocks, each block being one pair of means; its family is the arms. The numbers in its `differences` are
    those of the blocks in `within`, from 0.
    """

    within: tuple[tuple[str, Analysis], ...]
    over: Analysis


def undecided(analysis: Analysis) -> list[str]:
    """Return the arms that more seeds may settle, in arm order; their references need the same seeds.

    Unstable arms, copies and arms without an override get no more, and no arm does where the study itself is in error.
    An undecided effect needs all cells that it is made of.
    """
    if analysis.error is not None:
        return []
    needed = {c.arm for c in analysis.comparisons if c.provisional or c.verdict == "inconclusive"}
    for effect, contrast in zip(analysis.effects, analysis.rules.contrasts, strict=True):
        if effect.provisional or effect.verdict == "inconclusive":
            needed |= {arm for arm, _ in contrast.weights}
    return [arm.name for arm in analysis.rules.arms if arm.name in needed]


def winner(analysis: Analysis) -> str | None:
    """Return the arm with the largest effect among those that help; None where none does, or verdicts are provisional."""
    helping = [c for c in analysis.comparisons if c.verdict == "helps" and not c.provisional]
    return max(helping, key=lambda c: (c.effect or 0.0, c.arm)).arm if helping else None
