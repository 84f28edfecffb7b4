"""How often verdicts are right, measured by simulation and on real replicates, as markdown tables.

    python benchmarks/verdicts.py                    all tables of docs/verdicts.md, some minutes on one core
    python benchmarks/verdicts.py --quick            the same with a fiftieth of the studies
    python benchmarks/verdicts.py --real pool.csv    one network's replicates (columns seed, value), split at random
                                                     into a baseline and null arms

The simulated studies run through `ablate.analysis.intervals` (and `unpaired`), the lines that judge a real study; a test holds the two
against each other. Noise is drawn for every replicate and the arms share their baseline, so that their differences are
correlated as they are in a study.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from ablate.analysis.groups import group_intervals
from ablate.analysis.intervals import (
    HELPS,
    HURTS,
    INCONCLUSIVE,
    NEGLIGIBLE,
    intervals,
    paired_variance,
    sequence,
)
from ablate.analysis.power import detectable, more_seeds
from ablate.analysis.rules import declared_alpha, schedule

CHUNK = 5_000
"""Studies held in memory at once."""

LOOKS, EXTRA = (5, 10), (15,)

REAL_ENOUGH = 200
"""Fewer real replicates cannot tell an error rate of five percent from one of eight."""


# --- noise ---


def normal(rng, shape):
    return rng.standard_normal(shape)


def skewed(rng, shape):
    """Centred exponential with its tail on the bad side: most runs alike, a few much worse. SD 1."""
    return 1.0 - rng.standard_exponential(shape)


def heavy(rng, shape):
    """Student's t with 3 degrees of freedom, scaled to SD 1."""
    return rng.standard_t(3, shape) / math.sqrt(3.0)


@dataclass(frozen=True)
class Scenario:
    """baseline: its SD. arms: SD of each arm, repeated over the family. step: the metric's resolution in SDs."""

    name: str
    draw: object = normal
    baseline: float = 1.0
    arms: tuple[float, ...] = (1.0,)
    step: float = 0.0


SCENARIOS = (
    Scenario("normal, equal noise"),
    Scenario("normal, arms 1:1 to 3:1", arms=(1.0, 1.5, 2.0, 2.5, 3.0)),
    Scenario("normal, one arm in five 3:1", arms=(3.0, 1.0, 1.0, 1.0, 1.0)),
    Scenario("normal, four arms in five 3:1", arms=(1.0, 3.0, 3.0, 3.0, 3.0)),
    Scenario("normal, baseline 3:1", baseline=3.0),
    Scenario("normal, quiet baseline, arms 1:3 to 1:1", baseline=0.1, arms=(1.0, 0.33, 0.33, 0.5, 0.7)),
    Scenario("normal, quiet baseline, one arm in five 10:1", baseline=0.1, arms=(1.0, 0.1, 0.1, 0.1, 0.1)),
    Scenario("normal, resolution of half an SD", step=0.5),
    Scenario("skewed (exponential), equal noise", draw=skewed),
    Scenario("skewed (exponential), arms 1:1 to 3:1", draw=skewed, arms=(1.0, 1.5, 2.0, 2.5, 3.0)),
    Scenario("heavy-tailed (t3), equal noise", draw=heavy),
    Scenario("heavy-tailed (t3), arms 1:1 to 3:1", draw=heavy, arms=(1.0, 1.5, 2.0, 2.5, 3.0)),
)


def differences(scenario, arms, pairs, effect, studies, rng):
    """(studies, arms, pairs): arm − baseline, with the given true effect for every arm."""
    base = scenario.draw(rng, (studies, 1, pairs)) * scenario.baseline
    sd = np.resize(np.asarray(scenario.arms), arms)[:, None]
    values = effect + scenario.draw(rng, (studies, arms, pairs)) * sd
    if scenario.step:
        # Somewhere on the metric's grid, different in every study.
        level = rng.random((studies, 1, 1)) * scenario.step
        values = np.round((values + level) / scenario.step) * scenario.step
        base = np.round((base + level) / scenario.step) * scenario.step
    return values - base


def looks(extra=EXTRA, declared=LOOKS):
    return tuple((look.pairs, look.alpha) for look in schedule((*declared, *extra), declared[-1]))


# --- what is measured ---


@dataclass(frozen=True)
class Rate:
    """A share of studies, with its standard error."""

    value: float
    studies: int

    @property
    def error(self):
        return math.sqrt(max(self.value * (1 - self.value), 1e-9) / self.studies)

    def __str__(self):
        return f"{self.value:.4f}"


def claims(scenario, arms, effect, margin, studies, rng):
    """Through the declared looks and one extra: (any false claim, any false direction, all intervals cover).

    A false claim is `helps` or `hurts` at no effect, `no practical effect` at one of the margin or more, and the wrong
    direction anywhere.
    """
    wrong = directed = covered = 0
    for start in range(0, studies, CHUNK):
        size = min(CHUNK, studies - start)
        d = differences(scenario, arms, max(n for n, _ in looks()), effect, size, rng)
        found = sequence(d, looks(), k=arms, margin=margin, resolution=scenario.step)
        direction = (found.code == HURTS) | ((found.code == HELPS) & (effect <= 0))
        negligible = (found.code == NEGLIGIBLE) & (abs(effect) >= margin)
        directed += int(direction.any(axis=-1).sum())
        wrong += int((direction | negligible).any(axis=-1).sum())
        covered += int(((found.lo <= effect) & (effect <= found.hi)).all(axis=-1).sum())
    return Rate(wrong / studies, studies), Rate(directed / studies, studies), Rate(covered / studies, studies)


def error_tables(studies, rng, sizes=(1, 6, 20)):
    """Two tables: errors of null arms, and of arms whose effect is exactly the margin.

    Each number is the worst of three margins: 0.2, 1 and 2.5 standard deviations of a typical difference.
    """
    header = "| noise | " + " | ".join(f"k = {k}: error | covers" for k in sizes) + " |"
    rule = "| --- |" + " ---: | ---: |" * len(sizes)
    for title, at_margin in (
        ("False `helps` or `hurts` among null arms", False),
        ("False `no practical effect` (or `hurts`) at a true effect of exactly the margin", True),
    ):
        print(f"\n**{title}.** {studies} studies for each cell, looks 5 and 10 and an extra one at 15.\n")
        print(header, rule, sep="\n")
        for scenario in SCENARIOS:
            cells = []
            for k in sizes:
                spread = math.hypot(scenario.baseline, float(np.median(np.resize(scenario.arms, k))))
                found = [
                    claims(scenario, k, margin if at_margin else 0.0, margin, studies, rng)
                    for margin in (0.2 * spread, 1.0 * spread, 2.5 * spread)
                ]
                error, cover = max(f[0].value for f in found), min(f[2].value for f in found)
                cells.append(f"{error:.4f} | {cover:.4f}")
            print(f"| {scenario.name} | " + " | ".join(cells) + " |", flush=True)
    worst = Rate(0.05, studies)
    print(f"\nStandard error at .05: {worst.error:.4f}.")


def power_table(studies, rng, sizes=(1, 6, 20), pairs=(3, 5, 8, 10, 15, 20)):
    """Print the share of arms with the verdict `helps` after one look, by pairs; effects in SDs of a paired difference."""
    print(
        f"\n**Power against n**: one declared look, share of arms with the verdict `helps`, {studies} studies for each cell.\n"
    )
    print("| k | effect | " + " | ".join(f"n = {n}" for n in pairs) + " |")
    print("| ---: | ---: |" + " ---: |" * len(pairs))
    for k in sizes:
        for effect in (0.5, 1.0, 1.5, 2.0, 3.0):
            cells = [f"{helped(k, n, effect, 0.045, studies, rng):.2f}" for n in pairs]
            print(f"| {k} | {effect} | " + " | ".join(cells) + " |", flush=True)
    print("\n**Power at the effect that the plan calls detectable with 80 %**, equal noise in all arms.\n")
    print("| k | n | α | detectable effect | measured power |\n| ---: | ---: | ---: | ---: | ---: |")
    for k, n, alpha in ((1, 5, 0.045), (6, 5, 0.01125), (6, 10, 0.03375), (20, 10, 0.03375)):
        effect = detectable(k, n, alpha)
        print(
            f"| {k} | {n} | {alpha} | {effect:.3f} | {helped(k, n, effect, alpha, studies, rng):.3f} |",
            flush=True,
        )


def helped(k, n, effect, alpha, studies, rng):
    """Share of arms whose verdict is `helps`, at one look; the margin is a tenth of an SD."""
    scenario = SCENARIOS[0]
    count = 0
    for start in range(0, studies, CHUNK):
        size = min(CHUNK, studies - start)
        d = differences(scenario, k, n, effect * math.sqrt(2.0), size, rng)
        found = sequence(d, ((n, alpha),), k=k, margin=0.1 * math.sqrt(2.0))
        count += int((found.code == HELPS).sum())
    return count / (studies * k)


def calibration_table(studies, rng, sizes=(1, 6)):
    """Print how often arms are decided at the number of seeds that a report gives, beside the probability that it gives."""
    print(
        f"\n**How many more seeds**: arms that are inconclusive at 5 pairs, continued to the given total; {studies} studies for each row."
    )
    print(
        "Effects uniform within ±3 margins, noise log-uniform between a third of the margin and three times the margin.\n"
    )
    print("| k | given probability | mean of it | decided | standard error | arms | median total |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for k in sizes:
        for name, row in calibration(k, studies, rng).items():
            promised, settled, totals = (np.array(column, float) for column in zip(*row, strict=True))
            error = math.sqrt(settled.mean() * (1 - settled.mean()) / settled.size)
            print(
                f"| {k} | {name} | {promised.mean():.3f} | {settled.mean():.3f} | {error:.3f} | {settled.size} "
                f"| {np.median(totals):.0f} |",
                flush=True,
            )


def calibration(k, studies, rng):
    """Given probability → list of (that probability, decided, total pairs) over one inconclusive arm of each study."""
    (first, alpha), (_, later) = looks(())
    found = {"50 % (N50)": [], "80 % (N80)": [], "whatever the effect (N_any)": []}
    for _ in range(studies):
        sd = math.exp(rng.uniform(math.log(1 / 3), math.log(3)))
        effects = rng.uniform(-3, 3, k)
        base = rng.standard_normal(200) * sd / math.sqrt(2)
        d = effects[:, None] + rng.standard_normal((k, 200)) * sd / math.sqrt(2) - base
        now = one_look(d, first, alpha, k)
        arm = int(np.argmax(now.code == INCONCLUSIVE))
        if now.code[arm] != INCONCLUSIVE:
            continue
        price = more_seeds(
            float(d[arm, :first].mean()),
            float(now.variance[arm]),
            float(now.df[arm]),
            first,
            alpha=later,
            k=k,
            margin=1.0,
            moderated=bool(np.isfinite(now.typical)),
        )
        kept = np.where(now.code == INCONCLUSIVE, np.nan, now.corrected)
        named = (price.n50, price.probability50), (price.n80, price.probability80), (price.n_any, 1.0)
        for row, (total, chance) in zip(found.values(), named, strict=True):
            if total is not None and total <= 200:
                then = one_look(d, total, later, k, kept)
                row.append((chance, then.code[arm] != INCONCLUSIVE, total))
    return found


def one_look(d, pairs, alpha, k, kept=None):
    seen = d[:, :pairs]
    return intervals(
        seen.mean(axis=-1),
        paired_variance(seen, 0.0),
        np.full(k, pairs),
        alpha=alpha,
        k=k,
        margin=1.0,
        kept=kept,
    )


# --- looks wherever they are taken ---

MOST = LOOKS[-1]


def fixed(*at):
    """Look at these numbers of pairs."""

    def following(n, p):
        return np.full(p.shape, next((pairs for pairs in at if pairs > n), MOST + 1))

    return following


def by_p(first, threshold, near, far):
    """Look at `first`, then `near` pairs later where the smallest p of the open arms is below the threshold, else `far` later."""

    def following(n, p):
        if n == 0:
            return np.full(p.shape, first)
        return np.minimum(n + np.where(p < threshold, near, far), MOST if n < MOST else MOST + 1)

    return following


STRATEGIES = {
    "[5, 10]": fixed(5, 10),
    "[3, 4, 10]": fixed(3, 4, 10),
    "every n": fixed(*range(3, MOST + 1)),
    "next seed while p < .1": by_p(3, 0.1, 1, MOST),
    "next seed while p ≥ .1": by_p(3, 0.1, MOST, 1),
}
"""The last two are what an impatient reader does: chase a small p, or wait for one and then spend all that is left."""

SEARCHED = [
    (first, threshold, near, far)
    for first in (3, 4, 5)
    for threshold in (0.02, 0.05, 0.1, 0.2, 0.4)
    for near in (1, 2, 3, MOST)
    for far in (1, 2, 3, MOST)
    if near != far
]


def adaptive(d, following, *, k, margin, resolution=0.0):
    """Take looks at differences (studies, arms, MOST) where `following` says. Returns code, lo and hi: (studies, arms).

    following: n and the smallest p of each study's open arms at that look (not adjusted) → the next n; beyond MOST: none.
    """
    studies, arms = d.shape[:2]
    code = np.full((studies, arms), INCONCLUSIVE)
    lo, hi, kept = (np.full((studies, arms), np.nan) for _ in range(3))
    before, due = np.zeros(studies, int), following(0, np.ones(studies))
    for n in range(1, MOST + 1):
        p = np.ones(studies)
        for last in np.unique(before[due == n]):
            rows = np.flatnonzero((due == n) & (before == last))
            seen = d[rows, :, :n]
            found = intervals(
                seen.mean(axis=-1),
                paired_variance(seen, resolution),
                np.full((rows.size, arms), n),
                alpha=declared_alpha(n, int(last), MOST),
                k=k,
                margin=margin,
                kept=kept[rows],
            )
            is_open = code[rows] == INCONCLUSIVE
            lo[rows], hi[rows] = np.where(is_open, found.lo, lo[rows]), np.where(is_open, found.hi, hi[rows])
            newly = is_open & (found.code != INCONCLUSIVE)
            kept[rows] = np.where(newly, found.corrected, kept[rows])
            code[rows] = np.where(newly, found.code, code[rows])
            each = 2.0 * special.stdtr(found.df, -found.t)
            p[rows] = np.where(code[rows] == INCONCLUSIVE, each, 1.0).min(axis=-1)
        now = due == n
        before[now] = n
        due = np.where(now, following(n, p), due)
    return code, lo, hi


def adaptive_error(scenario, following, arms, margin, studies, rng):
    """(share of studies with any false direction among null arms, share in which every interval covers)."""
    wrong = covered = 0
    for start in range(0, studies, CHUNK):
        d = differences(scenario, arms, MOST, 0.0, min(CHUNK, studies - start), rng)
        code, lo, hi = adaptive(d, following, k=arms, margin=margin, resolution=scenario.step)
        wrong += int(((code == HELPS) | (code == HURTS)).any(axis=-1).sum())
        covered += int(((lo <= 0) & (hi >= 0)).all(axis=-1).sum())
    return Rate(wrong / studies, studies), Rate(covered / studies, studies)


def looks_table(studies, rng, sizes=(1, 6, 20)):
    print(
        f"\n**Looks wherever they are taken, at most {MOST} seeds**: any false `helps` or `hurts` among null arms; {studies} studies for "
        "each cell, the margin 0.2 SD of a typical difference.\n"
    )
    print("| noise | looks | " + " | ".join(f"k = {k}: error | covers" for k in sizes) + " |")
    print("| --- | --- |" + " ---: | ---: |" * len(sizes))
    for scenario in (SCENARIOS[0], SCENARIOS[1], SCENARIOS[6], SCENARIOS[9], SCENARIOS[11]):
        for name, following in STRATEGIES.items():
            cells = []
            for k in sizes:
                spread = math.hypot(scenario.baseline, float(np.median(np.resize(scenario.arms, k))))
                error, cover = adaptive_error(scenario, following, k, 0.2 * spread, studies, rng)
                cells.append(f"{error} | {cover}")
            print(f"| {scenario.name} | {name} | " + " | ".join(cells) + " |", flush=True)
    errors = [
        adaptive_error(SCENARIOS[0], by_p(*each), 1, 0.2 * math.sqrt(2.0), max(studies // 5, CHUNK), rng)[
            0
        ].value
        for each in SEARCHED
    ]
    worst = SEARCHED[int(np.argmax(errors))]
    again = adaptive_error(SCENARIOS[0], by_p(*worst), 1, 0.2 * math.sqrt(2.0), 10 * studies, rng)[0]
    first, threshold, near, far = worst
    print(
        f"\nOf {len(SEARCHED)} strategies that choose the next look by the last p (k = 1, equal normal noise), the worst looks at {first} "
        f"seeds, then {near} later where p < {threshold:g}, else {far} later, and at {MOST}: {again} on {again.studies} fresh studies "
        f"(standard error {again.error:.4f}). Standard error at .05 in the table: {Rate(0.05, studies).error:.4f}."
    )


# --- repeats that are not paired ---


@dataclass(frozen=True)
class GroupScenario:
    """baseline: its SD. arms: SD of each arm, repeated over the family."""

    name: str
    draw: object = normal
    baseline: float = 1.0
    arms: tuple[float, ...] = (1.0,)


GROUP_SCENARIOS = tuple(
    GroupScenario(f"{noise}, {name}", draw, baseline, arms)
    for noise, draw in (("normal", normal), ("skewed", skewed), ("heavy-tailed", heavy))
    for name, baseline, arms in (
        ("equal noise", 1.0, (1.0,)),
        ("arms 1:1 to 3:1", 1.0, (1.0, 1.5, 2.0, 2.5, 3.0)),
        ("one arm in five 3:1", 1.0, (3.0, 1.0, 1.0, 1.0, 1.0)),
        ("baseline 3:1", 3.0, (1.0,)),
        ("one arm in five 10:1", 1.0, (10.0, 1.0, 1.0, 1.0, 1.0)),
        ("baseline 10:1", 10.0, (1.0,)),
    )
)

LAYOUTS = {
    "5 each": (5,),
    "3 each": (3,),
    "3 to 30": (8, 3, 30, 5, 12, 4, 20),
    "30 against 3": (30, 3),
    "3 against 30": (3, 30),
}
"""Numbers of runs: the baseline's first, then the arms', whose part is repeated over the family."""


def runs_of(layout, arms):
    first, rest = layout[0], layout[1:] or layout
    return np.array([first, *np.resize(rest, arms)])


def moments(scenario, runs, studies, rng):
    """Mean and variance (studies, groups) of runs whose true mean is 0."""
    sd = np.array([scenario.baseline, *np.resize(scenario.arms, runs.size - 1)])
    if scenario.draw is normal:  # they are independent, and need not be drawn run by run
        mean = rng.standard_normal((studies, runs.size)) / np.sqrt(runs)
        variance = rng.chisquare(runs - 1, (studies, runs.size)) / (runs - 1)
    else:
        values = [scenario.draw(rng, (studies, n)) for n in runs]
        mean = np.stack([v.mean(axis=-1) for v in values], axis=-1)
        variance = np.stack([v.var(axis=-1, ddof=1) for v in values], axis=-1)
    return mean * sd, variance * sd**2


def welch(mean, variance, runs):
    """Two-sided p of each arm, without any correction for their number: (studies, arms)."""
    error = variance / runs
    both = error[:, 1:] + error[:, :1]
    parts = error**2 / (runs - 1)
    df = both**2 / (parts[:, 1:] + parts[:, :1])
    return 2 * special.stdtr(df, -np.abs(mean[:, 1:] - mean[:, :1]) / np.sqrt(both))


def holm(p, alpha=0.05):
    """Which hypotheses Holm's procedure rejects, of p (studies, arms)."""
    order = np.argsort(p, axis=-1)
    thresholds = alpha / np.arange(p.shape[-1], 0, -1)
    passed = np.logical_and.accumulate(np.take_along_axis(p, order, -1) <= thresholds, axis=-1)
    rejected = np.empty_like(passed)
    np.put_along_axis(rejected, order, passed, axis=-1)
    return rejected


def group_error(scenario, layout, arms, studies, rng):
    """(share of studies in which any of our intervals misses, in which Welch finds any difference that is none).

    Where no arm has an effect, Holm rejects something exactly where Bonferroni does. An interval moves with the effect, so
    that its misses bound false claims of every kind, at any margin.
    """
    missed = rejected = 0
    runs = runs_of(layout, arms)
    for start in range(0, studies, CHUNK):
        mean, variance = moments(scenario, runs, min(CHUNK, studies - start), rng)
        found = group_intervals(mean, variance, runs, k=arms, margin=1.0)
        missed += int(((found.lo > 0) | (found.hi < 0)).any(axis=-1).sum())
        rejected += int((welch(mean, variance, runs) <= 0.05 / arms).any(axis=-1).sum())
    return Rate(missed / studies, studies), Rate(rejected / studies, studies)


def group_power(arms, n, effect, studies, rng):
    """Share of the arms with an effect (every second one, in SDs of a run) that are found by us, Bonferroni and Holm."""
    runs, with_effect = np.full(arms + 1, n), np.arange(arms) % 2 == 0
    ours = bonferroni = stepwise = 0.0
    for start in range(0, studies, CHUNK):
        size = min(CHUNK, studies - start)
        mean, variance = moments(GROUP_SCENARIOS[0], runs, size, rng)
        mean[:, 1:] += effect * with_effect
        p = welch(mean, variance, runs)
        ours += (group_intervals(mean, variance, runs, k=arms, margin=0.1).lo > 0)[
            :, with_effect
        ].mean() * size
        bonferroni += (p <= 0.05 / arms)[:, with_effect].mean() * size
        stepwise += holm(p)[:, with_effect].mean() * size
    return ours / studies, bonferroni / studies, stepwise / studies


MOST = 10
"""The most runs of an arm that a simulated plan of groups declares."""


def next_of(*plan):
    return lambda n, _: next((look for look in plan if look > n), None)


def one_more_where(holds):
    """One run more for as long as it holds, all that are left otherwise."""

    def choose(n, near):
        if n == MOST:
            return None
        return max(3, n + 1) if n == 0 or holds(near) else MOST

    return choose


GROUP_LOOKS = {
    "10": next_of(10),
    "5, 10": next_of(5, 10),
    "3, 4, 10": next_of(3, 4, 10),
    "every n": next_of(*range(3, 11)),
    "one more while nearly decided": one_more_where(lambda near: near > 0.7),
    "one more while far from it": one_more_where(lambda near: near < 0.7),
}
"""Which look comes next, of the number of runs at the last one (0: none yet), and of the largest effect in half-widths there."""


def at_looks(values, choose, *, margin):
    """Which studies have any interval that misses, over all looks. values: (studies, groups, MOST), true means 0, baseline first.

    A look at n after one at m spends .045·(n² − m²)/MOST². Decided arms keep their interval and their runs.
    """
    studies, arms = len(values), values.shape[1] - 1
    sums, squares = np.cumsum(values, axis=-1), np.cumsum(values**2, axis=-1)
    runs = np.ones((studies, arms + 1), dtype=np.int64)
    decided = np.zeros((studies, arms), dtype=bool)
    missed = np.zeros((studies, arms), dtype=bool)
    before, near = np.zeros(studies, dtype=int), np.zeros(studies)
    going = np.ones(studies, dtype=bool)
    while going.any():
        chosen = [
            choose(int(n), float(r)) if on else None for n, r, on in zip(before, near, going, strict=True)
        ]
        now = np.array([n or 0 for n in chosen])
        going = now > 0
        for m, n in {(int(m), int(n)) for m, n in zip(before[going], now[going], strict=True)}:
            these = np.flatnonzero(going & (before == m) & (now == n))
            is_open = ~decided[these]
            runs[these] = np.where(np.hstack([np.ones((len(these), 1), bool), is_open]), n, runs[these])
            at = (these[:, None], np.arange(arms + 1), runs[these] - 1)
            mean = sums[at] / runs[these]
            variance = (squares[at] - runs[these] * mean**2) / (runs[these] - 1)
            alpha = 0.045 * (n**2 - m**2) / MOST**2
            found = group_intervals(mean, variance, runs[these], k=arms, margin=margin, alpha=alpha)
            missed[these] = np.where(is_open, (found.lo > 0) | (found.hi < 0), missed[these])
            near[these] = np.where(is_open, np.abs(found.effect) / found.half, 0.0).max(axis=1)
            decided[these] |= found.code != INCONCLUSIVE
            before[these] = n
        going &= ~decided.all(axis=1)
    return missed.any(axis=1)


def group_looks_error(scenario, arms, choose, studies, rng, *, margin=1.0):
    sd = np.array([scenario.baseline, *np.resize(scenario.arms, arms)])
    missed = 0
    for start in range(0, studies, CHUNK):
        values = scenario.draw(rng, (min(CHUNK, studies - start), arms + 1, MOST)) * sd[:, None]
        missed += int(at_looks(values, choose, margin=margin).sum())
    return Rate(missed / studies, studies)


def group_looks_table(studies, rng, sizes=(1, 6)):
    print(
        "\n**Looks at repeats that are not paired: studies with any interval that misses.** At most 10 runs; a look at n after one "
        f"at m spends .045·(n² − m²)/100. {studies} studies for each cell, margin 1.\n"
    )
    print("| noise | k | " + " | ".join(GROUP_LOOKS) + " |")
    print("| --- | ---: |" + " ---: |" * len(GROUP_LOOKS))
    for scenario in GROUP_SCENARIOS:
        for k in sizes:
            rates = [group_looks_error(scenario, k, choose, studies, rng) for choose in GROUP_LOOKS.values()]
            print(
                f"| {scenario.name} | {k} | " + " | ".join(f"{r.value:.4f}" for r in rates) + " |", flush=True
            )
    print(f"\nStandard error at .045: {Rate(0.045, studies).error:.4f}.")


def group_tables(studies, rng, sizes=(1, 6, 20)):
    print(
        "\n**Repeats that are not paired: an interval that misses, or a false difference by Welch's test with Bonferroni (or "
        f"Holm).** The worst of {len(LAYOUTS)} layouts ({', '.join(LAYOUTS)} runs), {studies} studies for each.\n"
    )
    print("| noise | " + " | ".join(f"k = {k} | Welch" for k in sizes) + " |")
    print("| --- |" + " ---: | ---: |" * len(sizes))
    for scenario in GROUP_SCENARIOS:
        cells = []
        for k in sizes:
            found = [group_error(scenario, layout, k, studies, rng) for layout in LAYOUTS.values()]
            cells.append(
                " | ".join(f"{max(rate.value for rate in rates):.4f}" for rates in zip(*found, strict=True))
            )
        print(f"| {scenario.name} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nStandard error at .05: {Rate(0.05, studies).error:.4f}.")
    print(
        "\n**Power of repeats that are not paired**, equal normal noise; every second arm has the effect, in SDs of a run. Ours / "
        f"Welch with Bonferroni / with Holm, {studies} studies for each cell.\n"
    )
    numbers = (3, 5, 10, 20)
    print("| k | effect | " + " | ".join(f"n = {n}" for n in numbers) + " |")
    print("| ---: | ---: |" + " ---: |" * len(numbers))
    for k in sizes:
        for effect in (1.0, 2.0, 3.0):
            cells = [
                " / ".join(f"{share:.2f}" for share in group_power(k, n, effect, studies, rng))
                for n in numbers
            ]
            print(f"| {k} | {effect} | " + " | ".join(cells) + " |", flush=True)


# --- beside AdaStop ---

ADASTOP_PERMUTATIONS = 500
"""AdaStop's default is 10,000, twenty times the time. The 252 permutations of five against five runs are all there."""


@dataclass(frozen=True)
class Contest:
    """What a procedure did in simulated studies.

    wrong: studies with any false direction. found: arms with an effect that were called better. runs: mean per study.
    """

    wrong: float
    found: float
    runs: float


def ours_in_looks(values, margin):
    """Judge runs (groups, MOST) as groups at two looks. Returns (code of each arm, runs used)."""
    arms = values.shape[0] - 1
    code, used = np.full(arms, INCONCLUSIVE), np.zeros(arms + 1, int)
    for n, alpha in looks(()):
        going_on = code == INCONCLUSIVE
        if not going_on.any():
            break
        used[1:] = np.where(going_on, n, used[1:])
        used[0] = n
        # Decided arms stop; those that go on are compared with all that is there of the baseline.
        mean = np.array([group[:m].mean() for group, m in zip(values, used, strict=True)])
        variance = np.array([group[:m].var(ddof=1) for group, m in zip(values, used, strict=True)])
        found = group_intervals(mean, variance, used, k=arms, margin=margin, alpha=alpha)
        code = np.where(going_on, found.code, code)
    return code, int(used.sum())


def adastop_of(values, comparator):
    """Judge runs (groups, MOST) by AdaStop, in as many blocks as our looks. Returns (signs of the arms, runs used)."""
    names = [str(group) for group in range(values.shape[0])]
    runs = {name: np.empty(0) for name in names}
    block = MOST // comparator.K
    for look in range(comparator.K):
        open_groups = (
            range(values.shape[0])
            if look == 0
            else sorted(set(comparator.current_comparisons.ravel().tolist()))
        )
        for group in open_groups:
            runs[names[group]] = values[group, : (look + 1) * block]
        comparator.partial_compare(runs, verbose=False)
        if comparator.is_finished:
            break
    # A comparison is (baseline, arm): where the baseline is smaller, the arm is better.
    sign = {"larger": HURTS, "smaller": HELPS}
    decided = (comparator.decisions[str(pair)] for pair in comparator.comparisons)
    return np.array([sign.get(d, INCONCLUSIVE) for d in decided]), sum(run.size for run in runs.values())


def contest(scenario, arms, effect, studies, rng):
    """Procedure → Contest, all on the same simulated runs. effect: of every second arm, in SDs of a run of the baseline."""
    from adastop import MultipleAgentsComparator

    sd = np.array([scenario.baseline, *np.resize(scenario.arms, arms)])[:, None]
    true = np.where(np.arange(arms) % 2 == 0, effect, 0.0)
    pairs = np.array([(0, arm) for arm in range(1, arms + 1)])
    totals = {name: [0, 0, 0] for name in ("ours", "AdaStop", "Welch, Bonferroni", "Welch, Holm")}

    def count(name, code, runs):
        wrong = ((code == HURTS) & (true >= 0)) | ((code == HELPS) & (true <= 0))
        totals[name][0] += int(wrong.any())
        totals[name][1] += int(((code == HELPS) & (true > 0)).sum())
        totals[name][2] += runs

    for study in range(studies):
        values = scenario.draw(rng, (arms + 1, MOST)) * sd
        values[1:] += true[:, None]
        count("ours", *ours_in_looks(values, margin=0.1))
        adastop = MultipleAgentsComparator(
            n=MOST // len(LOOKS),
            K=len(LOOKS),
            B=ADASTOP_PERMUTATIONS,
            comparisons=pairs,
            alpha=0.05,
            seed=study,
        )
        count("AdaStop", *adastop_of(values, adastop))
        mean, variance = values.mean(axis=-1)[None], values.var(axis=-1, ddof=1)[None]
        p = welch(mean, variance, np.full(arms + 1, MOST))
        way = np.where(mean[0, 1:] > mean[0, 0], HELPS, HURTS)
        for name, rejected in (("Welch, Bonferroni", p <= 0.05 / arms), ("Welch, Holm", holm(p))):
            count(name, np.where(rejected[0], way, INCONCLUSIVE), values.size)
    with_effect = max(1, int((true > 0).sum())) * studies
    return {
        name: Contest(wrong / studies, found / with_effect, runs / studies)
        for name, (wrong, found, runs) in totals.items()
    }


def contest_table(studies, rng):
    """Print error, power and runs used of ours, AdaStop and Welch's test on the same runs; one line where AdaStop is missing."""
    try:
        import adastop
    except ImportError:
        print("\nAdaStop is not installed (`pip install adastop`), so there is no table beside it.")
        return
    scenarios = (
        GROUP_SCENARIOS[0],
        GROUP_SCENARIOS[3],
        GROUP_SCENARIOS[6],
    )
    version = getattr(adastop, "__version__", "")
    print(
        f"\n**Beside AdaStop {version}**, runs that are not paired, at most {MOST} of each arm, judged at {LOOKS[0]} and {MOST} (AdaStop: "
        f"{len(LOOKS)} blocks, {ADASTOP_PERMUTATIONS} permutations, α = .05; Welch: all {MOST} at once). Every second arm has the effect, in "
        f"SDs of a run. Wrong: studies with any false direction; found: arms with an effect that were called better; {studies} studies "
        f"for each row of one arm, {studies * 2 // 5} for each of six (AdaStop takes a tenth of a second for each).\n"
    )
    names = ("ours", "AdaStop", "Welch, Bonferroni", "Welch, Holm")
    print("| noise | k | effect | " + " | ".join(f"{name}: wrong | found | runs" for name in names) + " |")
    print("| --- | ---: | ---: |" + " ---: | ---: | ---: |" * len(names))
    for scenario in scenarios:
        for k, repeats in ((1, studies), (6, studies * 2 // 5)):
            for effect in (0.0, 1.0, 2.0):
                found = contest(scenario, k, effect, repeats, rng)
                cells = [
                    f"{c.wrong:.3f} | {f'{c.found:.2f}' if effect else '–'} | {c.runs:.1f}"
                    for c in (found[name] for name in names)
                ]
                print(f"| {scenario.name} | {k} | {effect:g} | " + " | ".join(cells) + " |", flush=True)
    errors = (Rate(0.05, repeats).error for repeats in (studies, studies * 2 // 5))
    print(f"\nStandard error at .05: {' and '.join(f'{error:.3f}' for error in errors)}.")


# --- real replicates ---


@dataclass(frozen=True)
class RealNull:
    """rate: share of studies with any false `helps` or `hurts`. error: its standard error. negligible: share of null
    arms found to make no practical difference, which they do. covers: share of studies all of whose intervals hold 0."""

    rate: float
    error: float
    negligible: float
    covers: float
    replicates: int
    studies: int

    @property
    def holds(self):
        return self.rate - 3.0 * self.error <= 0.05


def real_null(values, *, margin, resolution, rng, arms=5, studies=20_000, resamples=200):
    """Splits replicates of one network at random into a baseline and null arms, many times, and judges them.

    values: (replicates,) of the metric, finite. The splits share one pool, so that the error of the rate is not that of
    independent studies: it is found by drawing the pool itself again, with replacement, and splitting that; what the
    finite number of splits adds is taken off there and put back once.
    """
    values = np.asarray(values, float)
    rate, negligible, covers = split(values, margin, resolution, arms, studies, rng)
    each = max(200, studies // 20)
    rates = []
    for _ in range(resamples):
        again = rng.choice(values, values.size)
        rates.append(split(again, margin, resolution, arms, each, rng)[0])
    inner = float(np.mean([r * (1 - r) for r in rates])) / each
    between = max(0.0, float(np.var(rates, ddof=1)) - inner)
    error = math.sqrt(between + rate * (1 - rate) / studies)
    return RealNull(rate, error, negligible, covers, values.size, studies)


def split(values, margin, resolution, arms, studies, rng):
    """(any false direction, share of arms negligible, all intervals hold 0) over random splits of one pool."""
    pairs = max(n for n, _ in looks())
    needed = (arms + 1) * pairs
    if values.size < needed:
        raise SystemExit(f"{values.size} replicates are too few: one split needs {needed}")
    directed = covered = negligible = 0
    for start in range(0, studies, CHUNK):
        size = min(CHUNK, studies - start)
        drawn = np.argsort(rng.random((size, values.size)), axis=1)[:, :needed]
        table = values[drawn].reshape(size, arms + 1, pairs)
        found = sequence(table[:, 1:] - table[:, :1], looks(), k=arms, margin=margin, resolution=resolution)
        directed += int(((found.code == HELPS) | (found.code == HURTS)).any(axis=-1).sum())
        negligible += int((found.code == NEGLIGIBLE).sum())
        covered += int(((found.lo <= 0) & (found.hi >= 0)).all(axis=-1).sum())
    return directed / studies, negligible / (studies * arms), covered / studies


def smallest_step(values):
    """The metric's resolution as the replicates show it: the smallest gap between two that differ."""
    gaps = np.diff(np.unique(np.round(np.asarray(values, float), 12)))
    return float(gaps.min()) if gaps.size else 0.0


def real_table(path, margin, resolution, studies, rng):
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    values = frame.drop_duplicates("seed")["value"].to_numpy(float)
    values = values[np.isfinite(values)]
    if values.size < REAL_ENOUGH:
        raise SystemExit(f"{path} has {values.size} usable replicates; at least {REAL_ENOUGH} are needed")
    q = smallest_step(values) if resolution is None else resolution
    found = real_null(values, margin=margin, resolution=q, rng=rng, studies=studies)
    skew = float(pd.Series(values).skew())
    print(
        f"\n**Real replicates**: {values.size} of one network, mean {values.mean():.4f}, SD {values.std(ddof=1):.4f},"
    )
    print(
        f"skewness {skew:.2f}, resolution {q:.5f}; margin {margin:g}; a baseline and 5 null arms, {studies} splits.\n"
    )
    print(
        "| false helps/hurts | standard error | ≤ .05 within 3 of them | covers | null arms found negligible |"
    )
    print("| ---: | ---: | :---: | ---: | ---: |")
    verdict = "yes" if found.holds else "**no**"
    print(
        f"| {found.rate:.4f} | {found.error:.4f} | {verdict} | {found.covers:.4f} | {found.negligible:.3f} |"
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the studies")
    parser.add_argument(
        "--only",
        choices=("errors", "power", "calibration", "unpaired", "unpaired-looks", "looks", "adastop"),
        help="one part of the simulation",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", type=Path, metavar="FILE", help="csv or parquet with columns seed, value")
    parser.add_argument("--margin", type=float, default=0.005, help="of the real metric (default 0.005)")
    parser.add_argument("--resolution", type=float, help="of the real metric (default: its smallest step)")
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    began = time.perf_counter()
    shrink = 50 if given.quick else 1
    if given.real is not None:
        real_table(given.real, given.margin, given.resolution, 50_000 // shrink, rng)
        return
    if given.only in {None, "errors"}:
        error_tables(100_000 // shrink, rng)
    if given.only in {None, "looks"}:
        looks_table(20_000 // shrink, rng)
    if given.only in {None, "power"}:
        power_table(20_000 // shrink, rng)
    if given.only in {None, "calibration"}:
        calibration_table(4_000 // shrink, rng)
    if given.only in {None, "unpaired"}:
        group_tables(20_000 // shrink, rng)
    if given.only in {None, "unpaired", "adastop"}:
        contest_table(500 // shrink, rng)
    if given.only in {None, "unpaired-looks"}:
        group_looks_table(20_000 // shrink, rng)
    print(f"\n{time.perf_counter() - began:.0f} s, seed {given.seed}.")


if __name__ == "__main__":
    main()
