"""Known effects are recovered by every design: the simulation that the tables of docs/designs.md come from, in short."""

import importlib.util
import sys
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


@pytest.mark.parametrize(
    "how",
    [("one-at-a-time", 5, None), ("both", 4, None), ("factorial", 3, None), ("fractional", 10, 16)],
    ids=lambda how: how[0],
)
@pytest.mark.parametrize("noise", ["equal", "1:1 to 3:1"])
def test_known_effects_lie_in_their_intervals_at_the_nominal_rate(benchmark, how, noise):
    rng = np.random.default_rng(0)
    for response in benchmark.RESPONSES:
        found = benchmark.simulate(benchmark.planned(*how), response, noise, STUDIES, rng)
        assert not above(1 - found.covers)
        assert not above(found.false)
        assert found.estimates == pytest.approx(found.truths, abs=0.35)


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
    looks = tuple((look.pairs, look.alpha) for look in benchmark.schedule((5, 10), ()))[:1]
    simulated = benchmark.sequence((weights @ values)[None], looks, k=k, margin=1.0)
    table = pd.DataFrame(
        [row(arm.name, seed, values[i, seed]) for i, arm in enumerate(plan.arms) for seed in range(5)]
    )
    record = plan.record() | {"looks": [5, 10], "metric": "score", "resolution": 0.0}
    found = judge(recorded_plan.rules(record), table)
    assert [e.lo for e in found.effects] == pytest.approx(simulated.lo[0].tolist())
    assert [e.hi for e in found.effects] == pytest.approx(simulated.hi[0].tolist())
