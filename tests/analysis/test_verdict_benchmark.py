"""The simulation that the tables of docs/verdicts.md come from."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

SOURCE = Path(__file__).parents[2] / "benchmarks" / "verdicts.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("verdicts_benchmark", SOURCE)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up while they are made.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


def within_three(rate, limit=0.05):
    return rate.value <= limit + 3 * (limit * (1 - limit) / rate.studies) ** 0.5


@pytest.mark.parametrize("arms", [1, 6, 20])
@pytest.mark.parametrize("scenario", range(7))
def test_under_normal_noise_false_claims_stay_below_five_percent(benchmark, scenario, arms):
    rng = np.random.default_rng(scenario)
    chosen = benchmark.SCENARIOS[scenario]
    assert chosen.name.startswith("normal")
    for effect in (0.0, 1.0):
        wrong, _, covered = benchmark.claims(chosen, arms, effect, 1.0, 2000, rng)
        assert within_three(wrong)
        assert within_three(benchmark.Rate(1 - covered.value, covered.studies))


def test_power_at_the_detectable_effect_is_about_what_the_plan_says(benchmark):
    rng = np.random.default_rng(1)
    plain = benchmark.helped(1, 5, benchmark.detectable(1, 5, 0.045), 0.045, 5000, rng)
    assert plain == pytest.approx(0.80, abs=0.02)
    shrunk = benchmark.helped(6, 5, benchmark.detectable(6, 5, 0.01125), 0.01125, 5000, rng)
    assert 0.72 < shrunk < 0.82


def test_promised_seeds_settle_arms_at_least_about_as_often_as_promised(benchmark):
    found = benchmark.calibration(6, 150, np.random.default_rng(2))
    for promised, settled in (
        zip(*rows, strict=True) for rows in (r and [x[:2] for x in r] for r in found.values())
    ):
        assert np.mean(settled) > np.mean(promised) - 0.2


@pytest.mark.parametrize("arms", [1, 6, 20])
@pytest.mark.parametrize("scenario", range(6))
def test_without_pairs_intervals_seldom_miss_under_normal_noise(benchmark, scenario, arms):
    rng = np.random.default_rng(scenario)
    chosen = benchmark.GROUP_SCENARIOS[scenario]
    assert chosen.name.startswith("normal")
    for layout in benchmark.LAYOUTS.values():
        assert within_three(benchmark.group_error(chosen, layout, arms, 2000, rng)[0])


def test_welch_and_holm_are_those_of_scipy_and_statsmodels(benchmark):
    rng = np.random.default_rng(1)
    groups = [rng.normal(0.4 * i, 1 + i, 4 + i) for i in range(5)]
    runs = np.array([g.size for g in groups])
    mean, variance = np.array([[g.mean() for g in groups]]), np.array([[g.var(ddof=1) for g in groups]])
    p = benchmark.welch(mean, variance, runs)
    assert p[0] == pytest.approx([stats.ttest_ind(g, groups[0], equal_var=False).pvalue for g in groups[1:]])
    # Few rows: statsmodels collects all garbage of the process for each.
    values = rng.uniform(0, 0.25, (4, 30)) ** 2
    expected = [multipletests(row, 0.05, method="holm")[0] for row in values]
    assert np.array_equal(benchmark.holm(values), expected)
    assert 0.1 < np.mean(expected) < 0.9


def test_without_pairs_a_large_effect_is_found_and_a_small_one_is_not(benchmark):
    rng = np.random.default_rng(2)
    assert min(benchmark.group_power(6, 10, 4.0, 500, rng)) > 0.99
    assert max(benchmark.group_power(6, 3, 0.2, 500, rng)) < 0.05


def test_null_arms_of_one_pool_are_seldom_told_apart(benchmark):
    rng = np.random.default_rng(3)
    pool = np.round(rng.normal(0.95, 0.01, 250) * 360) / 360
    found = benchmark.real_null(pool, margin=0.005, resolution=1 / 360, rng=rng, studies=2000, resamples=30)
    assert found.holds
    assert found.rate < 0.06
    assert 0 < found.error < 0.03
    assert found.covers > 0.94


def test_a_pool_that_is_no_pool_is_refused(benchmark, tmp_path):
    path = tmp_path / "pool.csv"
    pd.DataFrame({"seed": range(150), "value": 0.5}).to_csv(path, index=False)
    with pytest.raises(SystemExit, match="at least 200"):
        benchmark.main(["--real", str(path)])


def test_real_replicates_are_read_from_csv_and_told_as_a_table(benchmark, tmp_path, capsys):
    path = tmp_path / "pool.csv"
    values = np.round(np.random.default_rng(4).normal(0.95, 0.01, 220) * 360) / 360
    pd.DataFrame({"seed": range(220), "value": values}).to_csv(path, index=False)
    benchmark.main(["--real", str(path), "--quick"])
    told = capsys.readouterr().out
    assert "220 of one network" in told
    assert "resolution 0.00278" in told
    assert told.count("|") > 15


def test_the_same_seed_gives_the_same_table_and_another_another(benchmark):
    rates = [
        benchmark.claims(benchmark.SCENARIOS[0], 6, 0.0, 1.0, 500, np.random.default_rng(seed))[2].value
        for seed in (5, 5, 6)
    ]
    assert rates[0] == rates[1]
    draws = [
        benchmark.differences(benchmark.SCENARIOS[0], 2, 3, 0.0, 1, np.random.default_rng(s)) for s in (5, 6)
    ]
    assert not np.array_equal(*draws)


# --- looks wherever they are taken, and AdaStop ----------------------------------------------------------------------


@pytest.mark.parametrize("arms", [1, 6])
def test_looks_that_are_chosen_on_the_way_are_read_like_those_that_are_fixed(benchmark, arms):
    rng = np.random.default_rng(3)
    d = benchmark.differences(benchmark.SCENARIOS[1], arms, 10, 0.8, 300, rng)
    for at in ((5, 10), (3, 4, 10)):
        looks = tuple((look.pairs, look.alpha) for look in benchmark.schedule(at))
        fixed = benchmark.sequence(d, looks, k=arms, margin=0.3)
        code, lo, hi = benchmark.adaptive(d, benchmark.fixed(*at), k=arms, margin=0.3)
        np.testing.assert_array_equal(code, fixed.code)
        np.testing.assert_allclose(lo, fixed.lo)
        np.testing.assert_allclose(hi, fixed.hi)


@pytest.mark.parametrize("name", ["every n", "next seed while p < .1", "next seed while p ≥ .1"])
def test_whoever_chooses_the_next_look_by_the_last_p_makes_few_false_claims(benchmark, name):
    rng = np.random.default_rng(4)
    wrong, _ = benchmark.adaptive_error(
        benchmark.SCENARIOS[0], benchmark.STRATEGIES[name], 6, 0.2 * 2**0.5, 2000, rng
    )
    assert within_three(wrong)


def test_adastop_judges_the_same_runs(benchmark):
    pytest.importorskip("adastop", reason="the comparison needs `pip install adastop`")
    found = benchmark.contest(benchmark.GROUP_SCENARIOS[0], 1, 10.0, 3, np.random.default_rng(5))
    assert {name: (each.wrong, each.found) for name, each in found.items()} == dict.fromkeys(
        ("ours", "AdaStop", "Welch, Bonferroni", "Welch, Holm"), (0.0, 1.0)
    )
    assert (found["ours"].runs, found["AdaStop"].runs, found["Welch, Holm"].runs) == (10.0, 10.0, 20.0)


def test_without_adastop_the_benchmark_says_so(benchmark, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "adastop", None)
    benchmark.contest_table(1, np.random.default_rng(6))
    assert "not installed" in capsys.readouterr().out
