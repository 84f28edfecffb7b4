"""How often the interval of an effect that is a share of the baseline's mean misses, that mean taken as known or as one of a few runs.

One arm and a baseline, at α = .05, runs paired or not: the worst over noise that seeds share (0 to 20 % of the baseline's mean), noise
that they don't (0.3 to 10 %), effects from −80 % to +300 %, and seeds that shift both or scale both. 37 s.

    python benchmarks/shares.py
    python benchmarks/shares.py --common 0.5 1 2     noise that seeds share, of these shares of the baseline's mean
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy import special

STUDIES = 40_000
COMMON, OWN = (0.0, 0.01, 0.03, 0.1, 0.2), (0.003, 0.01, 0.03, 0.1)
EFFECTS = (0.0, 0.02, 0.1, 0.5, -0.3, -0.8, 1.0, 3.0)


def main() -> None:
    """Print the worst share of intervals that miss, for each number of runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--common", type=float, nargs="+", default=COMMON, help="default: 0 to 0.2")
    common_noise = parser.parse_args().common
    rng = np.random.default_rng(1)
    print("| runs | | baseline's mean as known | as a mean of runs |\n| ---: | --- | ---: | ---: |")
    for n in (3, 5, 10):
        worst = {True: (0.0, 0.0), False: (0.0, 0.0)}
        t = float(special.stdtrit(n - 1, 0.975))
        for common, own, effect, scales in itertools.product(common_noise, OWN, EFFECTS, (False, True)):
            shared = common * rng.normal(size=(STUDIES, n))
            arm = 1 + effect + shared * ((1 + effect) if scales else 1)
            arm += own * rng.normal(size=(STUDIES, n))
            for paired in (True, False):
                level = shared if paired else common * rng.normal(size=(STUDIES, n))
                base = 1 + level + own * rng.normal(size=(STUDIES, n))
                mean = np.abs(base.mean(axis=1, keepdims=True))
                a, b = arm / mean, base / mean
                found = a.mean(axis=1) - b.mean(axis=1)
                if paired:
                    known = np.var(a - b, axis=1, ddof=1)
                    taken = np.maximum(known, np.var(a - b - found[:, None] * b, axis=1, ddof=1))
                else:
                    known = np.var(a, axis=1, ddof=1) + np.var(b, axis=1, ddof=1)
                    stretch = np.maximum(1.0, np.abs(a.mean(axis=1))) ** 2
                    taken = np.var(a, axis=1, ddof=1) + stretch * np.var(b, axis=1, ddof=1)
                misses = [float(np.mean(np.abs(found - effect) > t * np.sqrt(v / n))) for v in (known, taken)]
                worst[paired] = (max(worst[paired][0], misses[0]), max(worst[paired][1], misses[1]))
        for paired, (known_mean, mean_of_runs) in worst.items():
            name = "paired" if paired else "not paired"
            print(f"| {n} | {name} | {known_mean:.3f} | {mean_of_runs:.3f} |")


if __name__ == "__main__":
    main()
