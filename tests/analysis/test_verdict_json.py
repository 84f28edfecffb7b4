"""The JSON contract of a report."""

import json

import numpy as np
import pandas as pd
from analysis_frames import V3, change, replicates, row, rules
from test_effects import FACTORS, factorial, frame_of, pilot

from ablate.analysis import ArmRule, judge, to_json

ARM_KEYS = {
    "arm", "factor", "level", "verdict", "clearly", "n", "effect", "ci", "p_adjusted", "ruled_out", "ci_new_images",
    "cost_ratio", "parameter_ratio", "fit", "failed", "diverged", "missing", "more_seeds", "test_effect", "real",
}  # fmt: skip


def test_every_promised_key_is_there_with_its_type():
    frame = change(replicates(V3), "B", 0, outcome="failed", value=np.nan)
    told = to_json(judge(rules("ABCDE"), frame), study="width")
    assert told["study"] == "width"
    assert {
        "study",
        "metric",
        "direction",
        "margin",
        "alpha",
        "look",
        "baseline",
        "arms",
        "effects",
        "runs",
    } <= set(told)
    assert told["runs"] == {"planned": 55, "finished": 29, "failed": 1, "diverged": 0, "missing": 25}
    assert all(isinstance(count, int) for count in told["runs"].values())
    c = told["arms"][2]
    assert set(c) >= ARM_KEYS
    assert (c["ruled_out"], c["fit"], c["more_seeds"]["n50"]) == ("loss", [], 11)
    assert [type(x) for x in c["ci"]] == [float, float]
    assert told["baseline"]["arm"] == "baseline"
    assert "baseline" not in [arm["arm"] for arm in told["arms"]]


def test_what_is_unknown_is_null_and_never_nan():
    frame = replicates({"A": [0.5]}).assign(flops=np.nan, seconds=np.nan, parameters=np.nan, epochs=np.nan)
    told = to_json(judge(rules("A", looks=(1,)), frame))
    (arm,) = told["arms"]
    assert (arm["ci"], arm["p_adjusted"], arm["cost_ratio"], arm["parameter_ratio"]) == (
        None,
        None,
        None,
        None,
    )
    assert "NaN" not in json.dumps(told, allow_nan=False)


def test_levels_stay_scalars_or_mappings_of_plain_values():
    arms = [ArmRule("a", "w", np.int64(3)), ArmRule("b", "both", {"x": np.float64(0.5), "y": (1, 2)})]
    told = to_json(judge(rules(arms), replicates({"a": V3["A"], "b": V3["B"]})))
    assert [arm["level"] for arm in told["arms"]] == [3, {"x": 0.5, "y": [1, 2]}]
    assert json.loads(json.dumps(told)) == told


def test_a_factorial_study_tells_effects_and_cells():
    told = to_json(judge(factorial(FACTORS, looks=(3,), deterministic=True), frame_of(FACTORS, pilot)))
    assert told["arms"] == []
    assert len(told["cells"]) == 7
    first = told["effects"][0]
    assert first["terms"] == ["t=1"]
    assert set(first) >= {"terms", "estimate", "ci", "p_adjusted", "verdict"}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_over_a_and_confirmation_stand_apart():
    frame = replicates({"A": [0.8, 0.3, 0.6, 0.5, 0.9]})
    more = [row("A/A", 1000 + i, 50.0 + i / 8, phase="A/A") for i in range(5)]
    more += [
        row(arm, 3000 + i, 50 + i * x, phase="confirm")
        for arm, x in (("baseline", 0.1), ("A", 0.2))
        for i in range(3)
    ]
    told = to_json(judge(rules("A"), pd.concat([frame, pd.DataFrame(more)])))
    assert (told["aa"]["arm"], told["confirmation"]["arm"], told["confirmation"]["alpha"]) == (
        "A/A",
        "A",
        0.05,
    )
    assert [arm["arm"] for arm in told["arms"]] == ["A"]
