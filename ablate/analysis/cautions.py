"""What a reader must know before trusting a verdict, as data: codes, arms and figures. `words` says it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis.compare import REPORT, Ledger, Record
from ablate.analysis.contents import Analysis, Caution, CautionCode
from ablate.analysis.family import Terms
from ablate.analysis.groups import Group, group_variance
from ablate.analysis.intervals import ENOUGH_PAIRS, Floats
from ablate.analysis.looks import Unit, UnitReading, is_open
from ablate.analysis.rules import Rules
from ablate.analysis.ties import FEWEST, repeating
from ablate.shares import GAP_OF_UNITS, is_share

NOISY = 3.0
"""An arm whose differences vary this many times more than the typical arm's is named in a caution."""

ENOUGH_SEEDS = 10
"""From so many pairs on, intervals of noisy arms miss as seldom as others although their noise is averaged (docs/verdicts.md)."""


def study_error(
    units: Sequence[Unit],
    readings: Sequence[UnitReading],
    rules: Rules,
    ledger: Ledger,
    seeds: Sequence[int],
) -> Caution | None:
    """Return what makes the whole study unreadable: a reference that diverged under a seed that was needed, or failed under all.

    seeds: all of the study, in order.
    """
    compared = [r for unit, r in zip(units, readings, strict=True) if rules.reference in unit.arms]
    diverged = tuple(sorted({s for r in compared for s in r.sample.reference_diverged}))
    runs = ledger.record(rules.reference)
    if not diverged:
        due = seeds[: max((r.look.pairs for r in compared), default=0)]
        if due and all(s in runs and runs[s].outcome == "failed" for s in due):
            return Caution("reference-failed", rules.reference, seeds=tuple(due), reason=runs[due[0]].reason)
        return None
    lost = all(s in runs and runs[s].not_finite for s in diverged)
    reason = next((runs[s].reason for s in diverged if s in runs), "")
    return Caution(
        "reference-not-finite" if lost else "reference-diverged",
        rules.reference,
        seeds=diverged,
        reason=reason,
    )


def cautions(
    analysis: Analysis, readings: Sequence[UnitReading], arms: Mapping[str, Record], replicates: pd.DataFrame
) -> tuple[Caution, ...]:
    """Return what to know about an analysis, most serious first.

    readings: of its comparisons, then of its effects. arms: the reference's replicates, then those of each compared arm,
    at the last closed look. replicates: the frame.
    """
    return tuple(_cautions(analysis, readings, arms, replicates))


def _cautions(
    analysis: Analysis, readings: Sequence[UnitReading], arms: Mapping[str, Record], replicates: pd.DataFrame
) -> Iterator[Caution]:
    rules = analysis.rules
    if analysis.error is not None:
        yield analysis.error
    if rules.read_before:
        yield Caution("judged-before", figures={"plans": float(rules.read_before)})
    if rules.is_against_its_name:
        yield Caution("direction-against-name")
    if rules.judged_on == "test":
        yield Caution("judged-on-test")
    subjects: list[str | Terms] = [c.arm for c in analysis.comparisons]
    subjects += [e.terms for e in analysis.effects]
    judged = list(zip(subjects, readings, strict=True))
    if rules.margin < 2.0 * rules.resolution:
        yield Caution("coarse-metric", figures={"margin": rules.margin, "resolution": rules.resolution})
    aa = analysis.aa
    if aa is not None and aa.verdict in {"helps", "hurts", "not independent"}:
        yield Caution("aa-repeats" if aa.verdict == "not independent" else "aa-differs")
    for arm, record in arms.items():
        if arm != rules.reference and record and all(run.outcome == "failed" for run in record.values()):
            reasons = {run.reason for run in record.values()}
            yield Caution(
                "arm-failed", arm, seeds=tuple(record), reason=reasons.pop() if len(reasons) == 1 else ""
            )
    for subject, reading in judged:
        if reading.withheld == "no noise":
            names = (rules.reference, subject) if isinstance(subject, str) else ()
            alike = bool(names) and all(_are_alike(arms.get(name, {})) for name in names)
            yield Caution("no-noise", subject, figures={"alike": float(alike)})
    # Of results that are judged, `comparing` says it, also where they are not in the metric's own units.
    told = any(r.withheld == "no noise" or r.verdict == "not independent" for r in readings)
    if rules.has_study_file and not (rules.deterministic or rules.relative or rules.resolution or told):
        yield from _repeated_values(replicates)
    if rules.has_study_file and rules.paired and not rules.deterministic:
        same = [
            c.arm
            for c in analysis.comparisons
            if _has_values_of(arms.get(c.reference, {}), arms.get(c.arm, {}))
        ]
        if same:
            yield Caution("values-of-reference", arms=tuple(same))
    if rules.paired:
        stds = [r.noise for r in readings if r.noise is not None and r.sample.n >= ENOUGH_PAIRS]
        typical = float(np.median(stds)) if len(stds) >= 3 else math.inf
        for subject, reading in judged:
            if reading.noise is not None and 0 < NOISY * typical < reading.noise:
                # Its noise counts as known better than it is where it is averaged with that of quieter arms over few seeds.
                is_narrow = reading.moderated and reading.sample.n < ENOUGH_SEEDS
                figures = {"times": reading.noise / typical, **({"narrow": 1.0} if is_narrow else {})}
                yield Caution("noisy", subject, figures=figures)
    else:
        groups = {group.arm: group.runs for r in readings for group in r.sample.groups}
        yield from noisy_groups(groups, rules.resolution)
    if not rules.factorial:
        yield from skewed(
            rules.reference,
            {arm: np.array([r.value for r in record.values() if r.finished]) for arm, record in arms.items()},
            paired=rules.paired,
        )
    still_open = any(is_open(r) and r.lo is not None for r in readings)
    if still_open and analysis.detectable is not None and analysis.detectable > rules.margin:
        yield Caution(
            "margin-out-of-reach", figures={"detectable": analysis.detectable, "margin": rules.margin}
        )
    yield from _read_before_the_end(replicates)
    yield from _reasons_of_finished(replicates, rules.judged_on)
    yield from _mixtures(replicates)
    yield from _mixed_inputs(replicates)
    yield from _shared_files(replicates)
    yield from _mixed_units(replicates, rules.metric)
    yield from _unequal_epochs(replicates, rules.reference)
    aliased = sum(bool(e.aliases) for e in analysis.effects)
    if aliased:
        yield Caution("aliased", figures={"aliased": aliased, "effects": len(analysis.effects)})


def _repeated_values(replicates: pd.DataFrame) -> Iterator[Caution]:
    """Yield a caution where runs of an arm have the value of another one, although it has too many digits for chance."""
    finished = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    by_arm = finished.groupby("arm", sort=False, observed=True)["value"]
    if arms := repeating({str(arm): values.to_numpy(dtype=float) for arm, values in by_arm}):
        yield Caution("repeated-values", arms=tuple(arms))


def _has_values_of(reference: Record, record: Record) -> bool:
    """Return whether the runs of an arm have the values of the reference's, which differ from seed to seed, and nothing tells the runs
    apart.

    Where nothing tells that they are the same either, the metric is all there is: a share without a loss beside it.
    """
    pairs = [
        (reference[s], run)
        for s, run in record.items()
        if run.finished and s in reference and reference[s].finished
    ]
    if any(one.value != other.value for one, other in pairs) or len({one.value for one, _ in pairs}) < FEWEST:
        return False
    digests = [((one.weights, other.weights), (one.trace, other.trace)) for one, other in pairs]
    return not any(None not in pair for both in digests for pair in both)


def _are_alike(record: Record) -> bool:
    """Return whether two runs or more have all the same value, whatever their seeds."""
    values = [run.value for run in record.values() if run.finished]
    return len(values) > 1 and len(set(values)) == 1


def noisy_groups(groups: Mapping[str, Group], resolution: float) -> Iterator[Caution]:
    """Yield a caution for each group of runs that vary much more than the typical group's."""
    stds = {
        arm: math.sqrt(float(group_variance(np.array(group.std), resolution)))
        for arm, group in groups.items()
        if group.n >= ENOUGH_PAIRS
    }
    typical = float(np.median(list(stds.values()))) if len(stds) >= 3 else math.inf
    for arm, std in stds.items():
        if 0 < NOISY * typical < std:
            yield Caution("noisy", arm, figures={"times": std / typical})


def skewed(reference: str, arms: Mapping[str, Floats], *, paired: bool = True) -> Iterator[Caution]:
    """Yield a caution where strong skew comes with unequal noise, which no t interval repairs.

    arms: values of the finished runs by arm, the reference's among them. The two skews of a difference cancel where the
    noise is equal; without pairs the numbers of runs must be about equal too.
    """
    residuals: list[Floats] = []
    stds: dict[str, float | None] = {}
    for arm, values in arms.items():
        std = float(values.std(ddof=1)) if values.size >= ENOUGH_PAIRS else 0.0
        if std and std <= 1e-12 * float(np.abs(values).max()):
            std = 0.0  # rounding errors of equal values
        stds[arm] = std or None
        if std:
            residuals.append((values - values.mean()) / std)
    base = stds.pop(reference)
    if sum(map(len, residuals)) < 20 or base is None:
        return

    def alike(arm: str, std: float) -> bool:
        sizes = arms[arm].size / arms[reference].size
        return 0.5 <= std / base <= 2.0 and (paired or 0.5 <= sizes <= 2.0)

    unequal = tuple(arm for arm, std in stds.items() if std and not alike(arm, std))
    if not unequal:
        return
    skewness, p = skewness_test(np.concatenate(residuals))
    if abs(skewness) >= 0.5 and p <= 0.001:
        yield Caution("skewed", arms=unequal)


def skewness_test(values: Floats) -> tuple[float, float]:
    """Return the skewness of at least 8 values that differ, and the p of its being 0 (D'Agostino 1970, Biometrika 57, 679–681).

    What `scipy.stats.skew` and `skewtest` return, without the half-second that importing them takes.
    """
    n = float(values.size)
    centred = values - values.mean()
    skewness = float((centred**3).mean() / (centred**2).mean() ** 1.5)
    y = skewness * math.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    kurtosis = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w_squared = math.sqrt(2 * (kurtosis - 1)) - 1
    z = math.asinh(y / math.sqrt(2 / (w_squared - 1))) / math.sqrt(math.log(w_squared) / 2)
    return skewness, 2.0 * float(special.ndtr(-abs(z)))


def _read_before_the_end(replicates: pd.DataFrame) -> Iterator[Caution]:
    """Yield how many runs were judged at an epoch before their last, because no later one has the metric."""
    if "read_at" not in replicates.columns or "epochs" not in replicates.columns:
        return
    finished = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    early = finished[finished["read_at"] < finished["epochs"]]
    if len(early):
        lag = (early["epochs"] - early["read_at"]).max()
        yield Caution(
            "read-before-the-end", figures={"runs": len(early), "of": len(finished), "epochs": float(lag)}
        )


_OF_FINISHED: tuple[tuple[str, CautionCode], ...] = (
    ("ended well, but told of ", "told-of-errors"),
    ("was judged by a line of the test set: ", "read-from-test-line"),
)
"""What the reason of a run begins with that has a result all the same."""


def _reasons_of_finished(replicates: pd.DataFrame, judged_on: str) -> Iterator[Caution]:
    """Yield how many runs have a value although an error stands in their output, or that of another line than was meant."""
    if "reason" not in replicates.columns:
        return
    finished = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    reasons = finished["reason"].fillna("").astype(str)
    for beginning, code in _OF_FINISHED:
        runs = finished[reasons.str.startswith(beginning)]
        if len(runs) and not (code == "read-from-test-line" and judged_on == "test"):
            reason = str(runs["reason"].iloc[0]).removeprefix(beginning)
            figures = {"runs": len(runs), "of": len(finished)}
            yield Caution(code, arms=tuple(map(str, runs["arm"].unique())), reason=reason, figures=figures)


def _mixtures(replicates: pd.DataFrame) -> Iterator[Caution]:
    """Yield what differs between finished report replicates besides arm and seed."""
    compared = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    columns: tuple[tuple[str, CautionCode], ...] = (("device", "mixed-devices"), ("torch", "mixed-torch"))
    for column, code in columns:
        if column not in compared.columns:
            continue
        names = compared[column].dropna().astype(str)
        if column == "device":  # cuda:0 and cuda:1 are one kind
            names = names.str.replace(r":\d+\b", "", regex=True)
        counts = names[names != ""].value_counts(sort=False).sort_index()
        if len(counts) > 1:
            yield Caution(code, counts=tuple((str(name), int(n)) for name, n in counts.items()))
    # Runs that were stepped in turn are to the bit what they are alone.
    fused = compared["fused"] if "fused" in compared.columns else ()
    if len({str(how).startswith("stacked") for how in fused}) > 1:
        yield Caution("stacked-and-single")


def _mixed_inputs(replicates: pd.DataFrame) -> Iterator[Caution]:
    """Yield which files and variables of the environment did not hold the same for all runs that read them."""
    if "inputs" not in replicates.columns:
        return
    compared = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    held: dict[str, dict[str, int]] = {}
    for text, runs in compared["inputs"].dropna().value_counts().items():
        with contextlib.suppress(ValueError, TypeError, AttributeError, LookupError):
            known = json.loads(str(text))
            read = {
                **known["files"],
                **known["folders"],
                **{f"${n}": v for n, v in known["variables"].items()},
            }
            for name, content in read.items():
                contents = held.setdefault(str(name), {})
                contents[str(content)] = contents.get(str(content), 0) + int(runs)
    mixed = {name: sum(contents.values()) for name, contents in sorted(held.items()) if len(contents) > 1}
    if mixed:
        yield Caution("mixed-inputs", counts=tuple(mixed.items()))


def _shared_files(replicates: pd.DataFrame) -> Iterator[Caution]:
    """Yield the files that runs of an arm wrote and those of another one read, or wrote and read again."""
    if "inputs" not in replicates.columns:
        return
    compared = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    made: dict[str, dict[str, int]] = {}
    read: dict[str, set[str]] = {}
    for pair, runs in compared[["arm", "inputs"]].value_counts().items():
        arm, text = cast("tuple[str, str]", pair)
        with contextlib.suppress(ValueError, TypeError, AttributeError, LookupError):
            known = json.loads(str(text))
            its_own = dict(known.get("made", {}))
            for name in its_own:
                by_arm = made.setdefault(str(name), {})
                by_arm[str(arm)] = by_arm.get(str(arm), 0) + int(runs)
            for name in [*known["files"], *(name for name, is_read in its_own.items() if is_read)]:
                read.setdefault(str(name), set()).add(str(arm))
    shared = {
        name: sum(by_arm.values())
        for name, by_arm in sorted(made.items())
        if name in read and len(by_arm.keys() | read[name]) > 1
    }
    if shared:
        yield Caution("shared-files", counts=tuple(shared.items()))


def _mixed_units(replicates: pd.DataFrame, metric: str) -> Iterator[Caution]:
    """Yield how many runs have a metric that is a share as a percentage, where others have it as a share."""
    if not is_share(metric):
        return
    values = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]["value"]
    shares, percentages = values[(values > 0) & (values <= 1)], values[values > 1]
    if not len(shares) or not len(percentages) or float(values.min()) < 0 or float(values.max()) > 100:
        return
    if float(percentages.min()) >= GAP_OF_UNITS * float(shares.max()):
        yield Caution("mixed-units", counts=(("percentages", len(percentages)), ("shares", len(shares))))


def _unequal_epochs(replicates: pd.DataFrame, reference: str) -> Iterator[Caution]:
    """Yield the arms all of whose runs ended after fewer epochs than all of the reference's, or after more; not those that say so by
    their names.
    """
    if "read_at" not in replicates.columns:
        return
    compared = replicates[(replicates["phase"] == REPORT) & (replicates["outcome"] == "finished")]
    ends = compared[compared["read_at"].notna()].groupby("arm", observed=True)["read_at"].agg(["min", "max"])
    if reference not in ends.index:
        return
    least, most = (float(ends[which].loc[reference]) for which in ("min", "max"))
    is_meant = ends.index.str.contains("epoch|step", case=False)
    others = ends[((ends["max"] < least) | (ends["min"] > most)) & ~is_meant]
    if len(others):
        figures = {"least": least, "most": most}
        figures |= {"others least": float(others["min"].min()), "others most": float(others["max"].max())}
        yield Caution("unequal-epochs", arms=tuple(map(str, others.index)), figures=figures)
