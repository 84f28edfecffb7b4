"""Known effects are recovered by every design: the simulation that the tables of docs/designs.md come from, in short."""

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from analysis_frames import row

from ablate.analysis import judge
from ablate.analysis import plan as recorded_plan

SOURCE = Path(__file__).parents[2] / "benchmarks" / "designs.py"
STUDIES = 1000


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("designs_benchmark", SOURCE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def above(rate, limit=0.05):
    return rate > limit + 3 * (limit * (1 - limit) / STUDIES) ** 0.5


def by_algebra(response, plan, cells):
    """What every unit of a design is worth, from what changes are worth alone and in pairs; contrasts have no part in it.

    A change is x = ±1: what is worth `a` alone and `b` with another has the main effect a + b/2, and the two interact by b/2
    (Box, Hunter & Hunter). Where a fraction cannot tell effects apart, their sum, each with its sign.
    """
    factors = range(len(plan.study.factors))

    def pair(f, g):
        return response.together.get((min(f, g), max(f, g)), 0.0)

    rest = [sum(pair(f, g) for g in factors if g != f) for f in factors]
    alone = [response.alone[f] for f in factors]
    if plan.study.design in ("one-at-a-time", "leave-one-out", "both"):
        given = [-(a + r) for a, r in zip(alone, rest, strict=True)]
        return {"one-at-a-time": alone, "leave-one-out": given, "both": alone + given + rest}[
            plan.study.design
        ]
    worth = {(f,): alone[f] + rest[f] / 2 for f in factors}
    worth |= {(f, g): pair(f, g) / 2 for f, g in itertools.combinations(factors, 2)}
    signs = np.where(np.array(cells), 1, -1)
    columns = {terms: signs[:, terms].prod(axis=1) for terms in worth}
    found = {}
    for column in columns.values():
        same = [(other, int(columns[other] @ column) // len(cells)) for other in worth]
        first = next(other for other, sign in same if sign)
        found.setdefault(first, sum(sign * worth[other] for other, sign in same))
    return list(found.values())


@pytest.mark.parametrize(
    "how",
    [
        ("one-at-a-time", 5, None),
        ("leave-one-out", 5, None),
        ("both", 4, None),
        ("factorial", 4, None),
        ("fractional", 7, 16),
        ("fractional", 10, 16),
    ],
    ids=str,
)
def test_what_a_design_estimates_is_what_its_changes_are_worth(benchmark, how):
    plan = benchmark.planned(*how)
    k, weights, cells = benchmark.units(plan)
    for response in benchmark.RESPONSES:
        truth = np.array([response.of(on) for on in cells])
        assert weights @ truth == pytest.approx(by_algebra(response, plan, cells), abs=1e-9)
    assert k == len(weights)


@pytest.mark.parametrize(
    "how",
    [("one-at-a-time", 5, None), ("both", 4, None), ("factorial", 3, None), ("fractional", 10, 16)],
    ids=lambda how: how[0],
)
@pytest.mark.parametrize("noise", ["equal", "1:1 to 3:1"])
def test_known_effects_lie_in_their_intervals_at_the_nominal_rate(benchmark, how, noise):
    rng = np.random.default_rng(0)
    covers = []
    for response in benchmark.RESPONSES:
        found = benchmark.simulate(benchmark.planned(*how), response, noise, STUDIES, rng)
        assert not above(1 - found.covers)
        assert not above(found.false)
        assert found.estimates == pytest.approx(found.truths, abs=0.12)
        covers.append(found.covers)
    assert min(covers) < 0.995, "intervals that always hold the truth say nothing"


def test_the_steps_of_a_path_lie_in_their_intervals_though_they_were_chosen_by_them(benchmark):
    rng = np.random.default_rng(1)
    for response in benchmark.RESPONSES:
        found = benchmark.walk(4, response, "1:1 to 3:1", STUDIES, rng)
        assert (found.cells, found.k) == (11, 32)
        assert not above(1 - found.covers)
        assert not above(found.false)


def test_what_is_simulated_is_what_a_study_is_judged_by(benchmark):
    plan = benchmark.planned("fractional", 7, 16)
    k, weights, cells = benchmark.units(plan)
    rng = np.random.default_rng(2)
    values = np.array([benchmark.SOME.of(on) for on in cells])[:, None] + rng.standard_normal((16, 5))
    looks = tuple((look.pairs, look.alpha) for look in benchmark.schedule((5, 10)))[:1]
    simulated = benchmark.sequence((weights @ values)[None], looks, k=k, margin=1.0)
    table = pd.DataFrame(
        [row(arm.name, seed, values[i, seed]) for i, arm in enumerate(plan.arms) for seed in range(5)]
    )
    record = plan.record()
    declared = record.declared | {"seeds": [5, 10], "metric": "score"}
    record = replace(record, declared=declared, resolution=0.0)
    found = judge(recorded_plan.rules(record), table)
    assert [e.lo for e in found.effects] == pytest.approx(simulated.lo[0].tolist())
    assert [e.hi for e in found.effects] == pytest.approx(simulated.hi[0].tolist())
