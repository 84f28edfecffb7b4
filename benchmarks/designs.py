"""Whether designs recover effects that are known, by simulation, as the markdown tables of docs/designs.md.

    python benchmarks/designs.py            all of them, some minutes on one core
    python benchmarks/designs.py --quick    the same with a fiftieth of the studies

Every study is planned by `ablate.study.design` from a text, its family comes from `ablate.analysis.family`, and its
looks run through `ablate.analysis.intervals`, the lines that judge a real study. Only the trainings are made up: a
configuration is worth the sum of what its changes are worth, alone and in pairs, plus noise. Units are SDs of one run.
"""

from __future__ import annotations

import argparse
import functools
import time
from dataclasses import dataclass

import numpy as np

from ablate.analysis import plan as recorded_plan
from ablate.analysis.intervals import HELPS, HURTS, NEGLIGIBLE, sequence
from ablate.analysis.rules import schedule
from ablate.analysis.words import effect_code
from ablate.data.facts import DataFacts
from ablate.study import design, spec

CHUNK = 2_000
LOOKS, EXTRA = (5, 10), (15,)
MARGIN = 1.0

LEVELS = {
    "model.width": 64,
    "model.depth": 3,
    "model.dropout": 0.2,
    "model.batch_norm": False,
    "optimizer.lr": 0.2,
    "optimizer.momentum": 0.5,
    "optimizer.weight_decay": 0.01,
    "augment.flip": True,
    "augment.crop": 1,
    "training.batch_size": 32,
}


def planned(kind, factors, cells=None):
    """The plan of a study of the first so many factors, each with one level."""
    levels = "".join(f"  {path}: [{str(level).lower()}]\n" for path, level in list(LEVELS.items())[:factors])
    text = (
        f"study: simulated\nmargin: 0.01\nbaseline:\n  data: {{name: digits}}\n  model: {{name: cnn, depth: 2, width: 16}}\n"
        f"factors:\n{levels}design: {kind}\n" + (f"fraction: {{cells: {cells}}}\n" if cells else "")
    )
    return design.plan(spec.parse(text), lambda _: DataFacts("digits"))


@dataclass(frozen=True)
class Response:
    """alone: what each factor's change is worth. together: (factor, factor) → what both are worth on top of that."""

    name: str
    alone: tuple[float, ...]
    together: dict[tuple[int, int], float]

    def of(self, changed):
        """changed: of each factor, whether it is at its level → the true value of that configuration."""
        whole = sum(worth for worth, on in zip(self.alone, changed, strict=False) if on)
        return whole + sum(
            worth
            for (f, g), worth in self.together.items()
            if max(f, g) < len(changed) and changed[f] and changed[g]
        )


NOTHING = Response("nothing matters", (0.0,) * 10, {})
SOME = Response(
    "some matter, two interact",
    (2.0, 0.0, -1.5, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
    {(0, 1): 1.5, (0, 2): -1.0},
)
MARGINAL = Response("each is worth the margin", (MARGIN,) * 10, {})
RESPONSES = (NOTHING, SOME, MARGINAL)


def equal(rng, shape):
    return rng.standard_normal(shape)


def unequal(rng, shape):
    """(…, cells, pairs): from the first cell to the last, the noise grows to three times as much."""
    return rng.standard_normal(shape) * np.linspace(1, 3, shape[-2])[:, None]


def skewed(rng, shape):
    """Centred exponential with its tail on the bad side. SD 1."""
    return 1.0 - rng.standard_exponential(shape)


NOISES = {"equal": equal, "1:1 to 3:1": unequal, "skewed": skewed}


@dataclass(frozen=True)
class Found:
    """false: share of studies with any false claim. covers: in which every interval holds its true effect.

    estimates, truths: (units,) means over studies. each: (units,) share of studies in which each interval covers.
    """

    cells: int
    k: int
    studies: int
    false: float
    covers: float
    estimates: np.ndarray
    truths: np.ndarray
    each: np.ndarray


def units(plan):
    """(units, cells): the weights of everything that gets a verdict, and the cells' changed factors."""
    rules = recorded_plan.rules(plan.record())
    at = {arm.name: i for i, arm in enumerate(plan.arms)}
    rows = []
    if not rules.factorial:
        rows += [{arm.name: 1.0, rules.reference_of(arm): -1.0} for arm in rules.arms]
    if rules.factorial or rules.mixed:
        rows += [dict(contrast.weights) for contrast in rules.contrasts]
    weights = np.zeros((len(rows), len(at)))
    for i, row in enumerate(rows):
        for arm, weight in row.items():
            weights[i, at[arm]] = weight
    return rules.k, weights, [changed(plan, arm) for arm in plan.arms]


def changed(plan, arm):
    base = plan.study.baseline
    return tuple(arm.config.get(f.name) != base.get(f.name) for f in plan.study.factors)


def simulate(plan, response, noise, studies, rng, family=None):
    """A design whose arms are fixed beforehand. family: size to correct for, where it is not the design's own."""
    k, weights, cells = units(plan)
    truth = np.array([response.of(on) for on in cells])
    pairs = max((*LOOKS, *EXTRA))

    def drawn(size):
        values = truth[:, None] + NOISES[noise](rng, (size, len(cells), pairs))
        return np.einsum("uc,scp->sup", weights, values), np.broadcast_to(
            weights @ truth, (size, len(weights))
        )

    return _judged(drawn, len(cells), family or k, studies)


def walk(factors, response, noise, studies, rng, family=None):
    """Greedy paths: the steps are chosen on the seeds of the first look, by which they are judged too."""
    size_of = 1 << factors
    edges = factors * 2 ** (factors - 1)
    truth = np.array([response.of([bool(c >> f & 1) for f in range(factors)]) for c in range(size_of)])
    pairs = max((*LOOKS, *EXTRA))

    def drawn(size):
        values = truth[:, None] + NOISES[noise](rng, (size, size_of, pairs))
        at, rows = np.zeros(size, int), np.arange(size)
        differences, truths = [], []
        for _ in range(factors):
            means, steps = np.full((size, factors), -np.inf), []
            for f in range(factors):
                free = (at >> f & 1) == 0
                there = at | 1 << f
                d = values[rows, there] - values[rows, at]
                means[:, f] = np.where(free, d[:, : LOOKS[0]].mean(axis=1), -np.inf)
                steps.append((free, d, truth[there] - truth[at]))
            # The free factors of each study side by side: there are equally many in all of them.
            free = np.stack([s[0] for s in steps], axis=1)
            order = np.argsort(~free, axis=1, kind="stable")[:, : free[0].sum()]
            differences.append(
                np.take_along_axis(np.stack([s[1] for s in steps], 1), order[:, :, None], axis=1)
            )
            truths.append(np.take_along_axis(np.stack([s[2] for s in steps], 1), order, axis=1))
            at = at | 1 << means.argmax(axis=1)
        return np.concatenate(differences, axis=1), np.concatenate(truths, axis=1)

    return _judged(drawn, 1 + factors * (factors + 1) // 2, family or edges, studies)


def _judged(drawn, cells, k, studies):
    looks = tuple((look.pairs, look.alpha) for look in schedule((*LOOKS, *EXTRA), LOOKS[-1]))
    false = covers = 0
    sums = []
    for start in range(0, studies, CHUNK):
        d, truth = drawn(min(CHUNK, studies - start))
        found = sequence(d, looks, k=k, margin=MARGIN)
        wrong = (found.code == HELPS) & (truth <= 1e-9) | (found.code == HURTS) & (truth >= -1e-9)
        wrong |= (found.code == NEGLIGIBLE) & (np.abs(truth) >= MARGIN - 1e-9)
        held = (found.lo <= truth) & (truth <= found.hi)
        false += int(wrong.any(axis=-1).sum())
        covers += int(held.all(axis=-1).sum())
        sums.append((d[..., : LOOKS[0]].mean(axis=-1).sum(axis=0), truth.sum(axis=0), held.sum(axis=0)))
    estimates, truths, each = (np.sum(column, axis=0) / studies for column in zip(*sums, strict=True))
    return Found(cells, k, studies, false / studies, covers / studies, estimates, truths, each)


DESIGNS = {
    "one-at-a-time, 5 factors": ("one-at-a-time", 5, None),
    "leave-one-out, 5 factors": ("leave-one-out", 5, None),
    "both, 5 factors": ("both", 5, None),
    "factorial, 3 factors": ("factorial", 3, None),
    "factorial, 4 factors": ("factorial", 4, None),
    "fractional, 7 factors in 16 cells": ("fractional", 7, 16),
    "fractional, 10 factors in 16 cells": ("fractional", 10, 16),
}


def rates_table(studies, rng):
    print(
        f"\n**Error and coverage**, {studies} studies of each of {len(RESPONSES)} responses, looks 5 and 10 and an "
        "undeclared one at 15.\nEach number is the worst of the responses.\n"
    )
    print("| design | cells | k | " + " | ".join(f"{noise}: error | covers" for noise in NOISES) + " |")
    print("| --- | ---: | ---: |" + " ---: | ---: |" * len(NOISES))
    ways = {title: functools.partial(simulate, planned(*how)) for title, how in DESIGNS.items()}
    ways |= {f"path, {factors} factors": functools.partial(walk, factors) for factors in (3, 5)}
    for title, way in ways.items():
        cells = []
        for noise in NOISES:
            found = [way(response, noise, studies, rng) for response in RESPONSES]
            cells += [f"{max(f.false for f in found):.4f}", f"{min(f.covers for f in found):.4f}"]
        print(f"| {title} | {found[0].cells} | {found[0].k} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nStandard error at .05: {(0.05 * 0.95 / studies) ** 0.5:.4f}.")


def recovery_table(studies, rng):
    print(
        f"\n**Effects recovered**, factorial of three factors ({SOME.name}, equal noise, five seeds), {studies} studies.\n"
    )
    print("| effect | true | mean estimate | its interval covers |\n| --- | ---: | ---: | ---: |")
    plan = planned("factorial", 3)
    found = simulate(plan, SOME, "equal", studies, rng)
    named = recorded_plan.rules(plan.record()).contrasts
    for c, truth, estimate, each in zip(named, found.truths, found.estimates, found.each, strict=True):
        print(f"| {effect_code(c.terms)} | {truth:.3f} | {estimate:.3f} | {each:.4f} |")


def family_table(studies, rng):
    print(
        f"\n**What a path must be corrected for**, {studies} studies for each cell, no factor has an effect: any false claim.\n"
    )
    print("| factors | corrected for | " + " | ".join(NOISES) + " |")
    print("| ---: | --- |" + " ---: |" * len(NOISES))
    for factors in (3, 5, 7):
        made, all_of_them = factors * (factors + 1) // 2, factors * 2 ** (factors - 1)
        for said, k in (("it made", made), ("any path could make", all_of_them)):
            found = [walk(factors, NOTHING, noise, studies, rng, family=k) for noise in NOISES]
            rates = " | ".join(f"{f.false:.4f}" for f in found)
            print(f"| {factors} | the {k} comparisons that {said} | {rates} |", flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the studies")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    began = time.perf_counter()
    studies = 10_000 // (50 if given.quick else 1)
    recovery_table(studies, rng)
    rates_table(studies, rng)
    family_table(studies, rng)
    print(f"\n{time.perf_counter() - began:.0f} s, seed {given.seed}.")


if __name__ == "__main__":
    main()
