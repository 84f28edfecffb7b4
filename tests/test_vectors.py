"""The protocol's own numbers, to six digits, through both doors: `ablate.compare`, and `ablate judge --format json`.

V7 (new images) needs the correctness of every image, which no table of results has: `tests/analysis/test_verdict.py` holds it.
Of V8 the doors show the effect that the last declared look detects, as `detectable` over `noise`; what a first look of several
detects is in `tests/analysis/test_power.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest
from test_comparing import MEANS, U4, V3, V4, means, paired

import ablate

DIGITS = 5.1e-7


@dataclass(frozen=True)
class Vector:
    """A frame with what is asked of it, and what comes out. arms: arm → what is known of it."""

    frame: pd.DataFrame
    options: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    study: dict[str, Any] = field(default_factory=dict)


def expected(verdict: str, ci=None, p=None, **more: Any) -> dict[str, Any]:
    return (
        {"verdict": verdict}
        | ({} if ci is None else {"ci": ci})
        | ({} if p is None else {"p_adjusted": p})
        | more
    )


def of_means(name: str) -> Vector:
    margin, table, halves = MEANS[name]
    frame = means(table)
    base = frame["score"][0]
    arms = {}
    for row, (half, p, verdict) in zip(frame[1:].itertuples(), halves, strict=True):
        effect = row.score - base
        # The fourth of U3 has too few runs for an interval.
        arms[row.arm] = expected(verdict, p=p) | (
            {"ci": None} if half is None else {"effect": effect, "half": half}
        )
    return Vector(frame, {"margin": margin, "sd": "sd", "n": "n"}, arms)


Q = 100 / 360
PLAIN = {"A": [0.8, 0.3, 0.6, 0.5, 0.9]}
VECTORS = {
    "V2": Vector(
        paired(PLAIN),
        {"looks": [5]},
        {"A": expected("helps", [0.312469, 0.927531], 0.004862, alpha=0.045)},
    ),
    "V3": Vector(
        paired(V3),
        {"looks": [5, 10]},
        {
            "A": expected("helps", [0.397797, 1.602203], 0.001817, alpha=0.01125),
            "B": expected("no practical effect", [-0.495830, 0.495830]),
            "C": expected(
                "inconclusive", [-0.425979, 0.825979], ruled_out="loss",
                more_seeds={"n50": 11, "n80": 15, "n_any": 16},  # V5
            ),
            "D": expected("inconclusive", [-3.178091, 0.778091]),
            "E": expected("inconclusive", [-0.395830, 0.595830], ruled_out="loss"),
        },
    ),
    "V4": Vector(
        paired(V4),
        {"looks": [5, 10]},
        {
            "A": expected("helps", [0.397797, 1.602203], 0.001817, alpha=0.01125),
            "C": expected("no practical effect", [-0.008385, 0.488385], 0.061625, alpha=0.03375),
            "D": expected("hurts", [-2.057298, -0.502702], 0.001072, clearly=True),
            "E": expected("no practical effect", [-0.083954, 0.263954]),
        },
    ),
    "V6, no difference": Vector(
        paired({"A": [0.0] * 3}),
        {"looks": [3], "resolution": Q},
        {"A": expected("no practical effect", [-0.365128, 0.365128])},
    ),
    "V6, one step": Vector(
        paired({"A": [Q] * 5}),
        {"looks": [5], "resolution": Q},
        {"A": expected("no practical effect", [0.098874, 0.456681], real=True)},
    ),
    "V8, one arm": Vector(paired(PLAIN), {"looks": [5]}, {}, {"detectable": 1.734679}),
    "V8, six arms": Vector(
        paired(dict.fromkeys("ABCDEF", V4["C"])), {"looks": [5, 10]}, {}, {"detectable": 1.343001}
    ),
    "V8, twenty arms": Vector(
        paired({"A": V4["C"]}), {"looks": [5, 10], "k": 20}, {}, {"detectable": 1.557085}
    ),
    "U1": of_means("U1"),
    "U2": of_means("U2"),
    "U3": of_means("U3"),
    "U4": Vector(
        U4,
        {"paired": False},
        {"arm": expected("inconclusive", p=0.055009, effect=0.823333, half=0.851163)},
    ),
}  # fmt: skip


def compared(frame: pd.DataFrame, options: dict[str, Any]) -> dict[str, Any]:
    given = {"metric": "score", "margin": 0.5, "direction": "maximize"} | options
    return ablate.compare(frame, **given).to_json()


def command(options: dict[str, Any]) -> list[str]:
    """Arguments of `compare` as options of `judge`."""
    words = [
        "--baseline",
        "baseline",
        "--margin",
        repr(options.get("margin", 0.5)),
        "--direction",
        "maximize",
    ]
    is_table = "sd" in options
    words += ["--mean", "score", "--sd", "sd", "--n", "n"] if is_table else ["--metric", "score"]
    if not is_table:
        words += ["--unpaired"] if options.get("paired") is False else ["--seed", "seed"]
        words += ["--resolution", repr(options.get("resolution", 0.0))]
    if "looks" in options:
        words += ["--looks", ",".join(map(str, options["looks"]))]
    return words + (["--k", str(options["k"])] if "k" in options else [])


@pytest.fixture
def judged(workplace):
    def run(frame: pd.DataFrame, options: dict[str, Any], *more: str) -> dict[str, Any]:
        # Pandas writes every digit of a float.
        frame.to_csv(workplace.root / "results.csv", index=False)
        output = workplace.ablate(
            "judge", "results.csv", *command(options), "--arm", "arm", "--format", "json", *more
        )
        return json.loads(output[output.index("{\n") : output.rindex("\n}") + 2])

    return run


def check(content: dict[str, Any], vector: Vector) -> None:
    rows = {arm["arm"]: arm for arm in content["arms"]}
    for name, values in vector.arms.items():
        for key, value in values.items():
            row = rows[name]
            found = (row["ci"][1] - row["ci"][0]) / 2 if key == "half" else row[key]
            if key == "more_seeds":
                assert {part: found[part] for part in value} == value
            elif isinstance(value, float | list):
                assert found == pytest.approx(value, abs=DIGITS), (name, key)
            else:
                assert found == value, (name, key)
    for key, value in vector.study.items():
        assert content[key] / content["noise"] == pytest.approx(value, abs=DIGITS)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
def test_the_numbers_of_the_protocol_come_out_of_both_doors(judged, vector):
    for content in (compared(vector.frame, vector.options), judged(vector.frame, vector.options)):
        check(content, vector)


NOISE = [0.9, -1.1, 0.4, 0.8, -0.6, 1.3, -0.2, -1.4, 0.7, 0.1, -0.9, 1.2, 0.5, -0.7]
LOOKS = {
    "V1, two looks and two extra ones": ([5, 10], [5, 10, 12, 14], [0.01125, 0.03375, 0.0025, 0.00125]),
    "V1, three looks": ([3, 5, 8], [3, 5, 8], [0.006328, 0.011250, 0.027422]),
    "V1, looks as they come": ([10], [3, 4, 10], [0.00405, 0.00315, 0.0378]),
}


@pytest.mark.parametrize(("declared", "seeds", "alphas"), LOOKS.values(), ids=LOOKS)
def test_each_look_spends_its_part_as_results_grow(judged, declared, seeds, alphas):
    """By `judge --name` look after look, and by `compare` at once where all looks were declared."""
    spent = []
    for n in seeds:
        content = judged(paired({"A": NOISE[:n]}), {"looks": declared}, "--name", "grown")
        [arm] = content["arms"]
        assert arm["verdict"] == "inconclusive"
        assert arm["n"] == n
        spent.append(arm["alpha"])
        by_python = ablate.load("grown").to_json()
        assert (by_python["arms"], by_python["alpha"]) == (content["arms"], spent[-1])
    assert spent == pytest.approx(alphas, abs=DIGITS)
    assert math.fsum(spent) <= 0.05
    if seeds == declared:
        at_once = [compared(paired({"A": NOISE[:n]}), {"looks": declared})["alpha"] for n in seeds]
        assert at_once == pytest.approx(alphas, abs=DIGITS)


# --- what is no comparison --------------------------------------------------------------------------------------------

FIVE = paired(V3)
ROWS = {
    "single runs": (FIVE[FIVE["seed"] == 0], {"paired": False}, "every arm was run once"),
    "single runs that would be paired": (FIVE[FIVE["seed"] == 0], {}, "every arm was run once"),
    "identical repeats of an arm": (
        FIVE.assign(score=FIVE["score"].where(FIVE["arm"] != "A", 51.23)),
        {},
        {"A": "not independent"},
    ),
    "identical repeats of an arm, not paired": (
        FIVE.assign(score=FIVE["score"].where(FIVE["arm"] != "A", 51.23)),
        {"paired": False},
        {"A": "not independent"},
    ),
    "identical repeats of the baseline": (
        FIVE.assign(score=FIVE["score"].where(FIVE["arm"] != "baseline", 51.23)),
        {},
        dict.fromkeys(V3, "not independent"),
    ),
    "identical repeats of the baseline, not paired": (
        FIVE.assign(score=FIVE["score"].where(FIVE["arm"] != "baseline", 51.23)),
        {"paired": False},
        dict.fromkeys(V3, "not independent"),
    ),
    "forty identical rows": (
        pd.DataFrame({"arm": ["baseline"] * 20 + ["b"] * 20, "score": [0.91] * 40}),
        {"paired": False},
        {"b": "not independent"},
    ),
    "forty identical rows that have a seed": (
        pd.DataFrame({"arm": ["baseline"] * 20 + ["b"] * 20, "seed": [*range(20)] * 2, "score": [0.91] * 40}),
        {},
        {"b": "not independent"},
    ),
    "one seed in every row": (FIVE.assign(seed=7), {}, "'seed' is 7 in every row"),
    "one seed in every row, not paired": (FIVE.assign(seed=7), {"paired": False}, "'seed' is 7 in every row"),
    "one arm": (FIVE[FIVE["arm"] == "baseline"], {}, "the only arm is the baseline"),
    "a hundred and six different trials": (
        pd.DataFrame({"arm": ["baseline", *(f"t{i}" for i in range(105))], "score": [i / 7 for i in range(106)]}),
        {"paired": False},
        "106 settings were run once each: these are the trials of a search",
    ),
    "differences without any noise": (
        FIVE[FIVE["arm"].isin(["baseline"])].pipe(
            lambda base: pd.concat([base, base.assign(arm="b", score=base["score"] + 0.25)])
        ),
        {},
        {"b": "inconclusive"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "options", "answer"), ROWS.values(), ids=ROWS)
def test_what_is_no_comparison_has_one_answer_at_both_doors(workplace, judged, frame, options, answer):
    if isinstance(answer, str):
        with pytest.raises(ablate.AblateError, match=answer) as caught:
            compared(frame, options)
        frame.to_csv(workplace.root / "results.csv", index=False)
        output = workplace.ablate("judge", "results.csv", *command(options), "--arm", "arm", code=2)
        [line] = [line for line in output.splitlines() if line.startswith("error:")]
        assert answer in line
        assert "--" not in caught.value.message
        return
    for content in (compared(frame, options), judged(frame, options)):
        verdicts = {arm["arm"]: arm["verdict"] for arm in content["arms"]}
        assert {name: verdicts[name] for name in answer} == answer
        assert all(arm["ci"] is None for arm in content["arms"] if arm["arm"] in answer)
        said = " ".join([*content["warnings"], *content["notes"]])
        # What only a study file can say is no advice for results that are there already.
        assert "deterministic" not in said
