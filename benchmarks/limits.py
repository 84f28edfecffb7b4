"""Where verdicts are wrong more often than 5 %, as markdown tables: what no interval of a few runs repairs, and what ours pays for.

    python benchmarks/limits.py                      some minutes on one core
    python benchmarks/limits.py --quick              the same with a twentieth of the studies

A miss is a study with an interval that does not hold the true effect. benchmarks/verdicts.py has what is kept.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
from scipy import special

from ablate.analysis.groups import group_intervals, group_variance
from ablate.analysis.intervals import INCONCLUSIVE, intervals, paired_variance, sequence
from ablate.analysis.power import more_seeds
from ablate.analysis.rules import EXTRA_ALPHA, schedule

CHUNK = 1_000


def misses(found, effect, readable=True):
    return int((((found.lo > effect) | (found.hi < effect)) & readable).any(axis=-1).sum())


def paired_misses(draw, arms, looks, effect, studies):
    """The share of studies with a miss. draw: (studies, arms, runs) → runs of the baseline, and those of the arms."""
    taken = tuple((look.pairs, look.alpha) for look in schedule(looks))
    count = 0
    for _ in range(studies // CHUNK):
        base, values = draw((CHUNK, 1, looks[-1])), draw((CHUNK, arms, looks[-1]))
        found = sequence(values[1] - base[0], taken, k=arms, margin=0.1)
        count += misses(found, effect)
    return count / studies


def unpaired_misses(draw, arms, runs, effect, studies):
    base, values = draw((studies, 1, runs)), draw((studies, arms, runs))
    all_runs = np.concatenate([base[0], values[1]], axis=1)
    variance = group_variance(all_runs.std(axis=-1, ddof=1), 0.0)
    number = np.full(variance.shape, runs)
    return misses(group_intervals(all_runs.mean(-1), variance, number, k=arms, margin=0.1), effect) / studies


def unequal_noise(rng, ratio, noisy):
    """Normal noise, of which `noisy` arms in five have `ratio` times as much as the others, and the baseline hardly any."""

    def draw(shape):
        sd = np.resize(np.where(np.arange(5) < noisy, ratio, 1.0), shape[1])[:, None]
        return 0.1 * rng.standard_normal(shape), sd * rng.standard_normal(shape)

    return draw


def noise_table(studies, rng):
    print(
        "\n**Few seeds, several noisy arms**: studies of paired, normal runs with an interval that misses.\n"
    )
    print(
        "| seeds | noisy arms | k = 5 | k = 10 | k = 20 | k = 40 |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    for looks in ((3,), (5,), (5, 10), (10,)):
        for ratio, noisy in ((3.0, 1), (3.0, 2), (10.0, 1), (10.0, 2)):
            row = [
                paired_misses(unequal_noise(rng, ratio, noisy), k, looks, 0.0, studies)
                for k in (5, 10, 20, 40)
            ]
            name = f"{noisy} in five, {ratio:g}:1"
            print(
                f"| {', '.join(map(str, looks))} | {name} | {' | '.join(f'{r:.3f}' for r in row)} |",
                flush=True,
            )


def collapsing(rng, share):
    """Accuracies of .90 ± .01; of the arm, a share of runs learns nothing and is at .10."""

    def draw(shape):
        base, arm = 0.9 + 0.01 * rng.standard_normal((2, *shape))
        return base, np.where(rng.random(shape) < share, 0.1, arm)

    return draw


def exponential(rng, ratio):
    """Skewed noise, with the tail on the bad side; that of the arm is `ratio` times as large."""

    def draw(shape):
        base, arm = 1.0 - rng.standard_exponential((2, *shape))
        return base, ratio * arm

    return draw


def shape_table(studies, rng):
    print("\n**One arm of another shape**: studies with an interval that misses, one arm.\n")
    print("| runs of the arm | pairs: 3 | 5 | 5, 10 | 20 | not paired: 3 | 5 | 10 | 20 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    kinds = [(f"1 in {n} collapses", collapsing(rng, 1 / n), -0.8 / n) for n in (2, 5, 10, 20)]
    kinds += [(f"skewed, noise {n}:1", exponential(rng, float(n)), 0.0) for n in (3, 10)]
    for name, draw, effect in kinds:
        row = [paired_misses(draw, 1, looks, effect, studies) for looks in ((3,), (5,), (5, 10), (20,))]
        row += [unpaired_misses(draw, 1, n, effect, studies) for n in (3, 5, 10, 20)]
        print(f"| {name} | {' | '.join(f'{r:.3f}' for r in row)} |", flush=True)


def accuracy(train, test, features, labels, columns):
    """The accuracy of a ridge regression on some columns of the features."""
    x = features[:, columns]
    weights = np.linalg.solve(x[train].T @ x[train] + np.eye(x.shape[1]), x[train].T @ labels[train])
    return float(np.mean(np.sign(x[test] @ weights) == labels[test]))


def fold_table(studies, rng):
    """Two learners that are equally good: each sees three quarters of twenty features of the same worth."""
    print(
        "\n**Folds of one data set as blocks**: intervals over them that miss the difference on new data, two equal learners.\n"
    )
    print("| images | folds: 5 | 10 | random splits: 5 | 10 |\n| ---: | ---: | ---: | ---: | ---: |")
    for images in (60, 100, 300):
        row = []
        for kind, number in (("folds", 5), ("folds", 10), ("splits", 5), ("splits", 10)):
            missed = 0
            for _ in range(studies):
                features = rng.standard_normal((images, 20))
                labels = np.sign(features.sum(axis=1) + 3.0 * rng.standard_normal(images))
                order, d = rng.permutation(images), []
                for i in range(number):
                    order = rng.permutation(images) if kind == "splits" else order
                    test = order[i::number] if kind == "folds" else order[: images // 5]
                    train = np.setdiff1d(order, test)
                    sides = [accuracy(train, test, features, labels, c) for c in (slice(15), slice(5, 20))]
                    d.append(sides[0] - sides[1])
                half = special.stdtrit(number - 1, 0.975) * np.std(d, ddof=1) / math.sqrt(number)
                missed += abs(np.mean(d)) > half
            row.append(missed / studies)
        print(f"| {images} | {' | '.join(f'{r:.3f}' for r in row)} |", flush=True)


def forecast_table(studies, rng):
    print(
        "\n**How many more seeds, by the size of the effect**: one arm, inconclusive at 5 pairs, continued to an extra look.\n"
    )
    print(
        "| noise, margins | effect, margins | arms | decided at N50 | at N80 |\n| --- | --- | ---: | ---: | ---: |"
    )
    for low, high, most in (
        (1, 1, 3),
        (1, 1, 1),
        (1, 1, 0),
        (2, 2, 3),
        (2, 2, 1),
        (2, 2, 0),
        (3, 9, 9),
        (3, 9, 3),
    ):
        decided = {"n50": [], "n80": []}
        arms = 0
        for _ in range(studies):
            sd = math.exp(rng.uniform(math.log(low), math.log(high)))
            d = rng.uniform(-most, most) + sd * rng.standard_normal((1, 1000))
            now = look(d, 5, 0.045)
            if now.code[0] != INCONCLUSIVE:
                continue
            arms += 1
            seen = float(d[0, :5].mean()), float(now.variance[0]), float(now.df[0]), 5
            price = more_seeds(*seen, alpha=EXTRA_ALPHA / 2, k=1, margin=1.0, moderated=False)
            for name, into in decided.items():
                total = getattr(price, name)
                if total is not None:
                    into.append(look(d, total, EXTRA_ALPHA / 2).code[0] != INCONCLUSIVE)
        noise = f"{low}" if low == high else f"{low} to {high}"
        effect = f"within ±{most}" if most else "none"
        cells = " | ".join(f"{np.mean(found):.2f}" if found else "–" for found in decided.values())
        print(f"| {noise} | {effect} | {arms} | {cells} |", flush=True)


def look(d, pairs, alpha):
    seen = d[:, :pairs]
    number = np.full(1, pairs)
    return intervals(seen.mean(-1), paired_variance(seen, 0.0), number, alpha=alpha, k=1, margin=1.0)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a twentieth of the studies")
    shrink = 20 if parser.parse_args(arguments).quick else 1
    began, rng = time.process_time(), np.random.default_rng(0)
    noise_table(20_000 // shrink, rng)
    shape_table(20_000 // shrink, rng)
    fold_table(1_000 // shrink, rng)
    forecast_table(1_000 // shrink, rng)
    print(f"\n{time.process_time() - began:.0f} s of the processor.")


if __name__ == "__main__":
    main()
