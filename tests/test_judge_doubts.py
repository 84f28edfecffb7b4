"""Tables that would be judged as something they are not: each is refused, or what makes one doubt it is noted."""

from __future__ import annotations

import random

import pytest

BASE = ("--arm", "arm", "--baseline", "base", "--direction", "maximize")
PAIRED, UNPAIRED = ("--seed", "seed"), ("--unpaired",)


def runs(seeds: int = 5, arms: tuple[str, ...] = ("base", "new", "third")) -> list[tuple[str, int, float]]:
    draw = random.Random(3)
    return [
        (arm, seed, round(0.9 + 0.02 * i + draw.gauss(0, 0.004), 4))
        for i, arm in enumerate(arms)
        for seed in range(seeds)
    ]


def lines(header: str, rows) -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture
def judge(tmp_path, in_process):
    """What is told of a table, on stdout and stderr, in this process."""

    def run(content: str, *arguments: str, code: int = 0) -> str:
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
        seen = in_process("judge", "t.csv", *arguments, code=code)
        return seen.out + seen.err

    return run


# --- how numbers are written ------------------------------------------------------------------------------------------

THOUSANDS = ["1.205", "1.198", "1.210", "1.201"]


@pytest.mark.parametrize(
    ("values", "margin", "told"),
    [
        ([*THOUSANDS, "987"], 20, "Beside 987 its point may stand between thousands"),
        ([*THOUSANDS, "1.205.300"], 20, "is 1.205 in 'ms' 1205"),
        (THOUSANDS, 20, "A margin of 20 is more than every value"),
        (THOUSANDS, 0.01, None),
        ([*THOUSANDS, "0.987"], 0.01, None),
        ([*THOUSANDS, "2"], 0.01, None),
        ([*THOUSANDS, "987.0"], 0.01, None),
        ([*THOUSANDS, "12.05"], 0.01, None),
    ],
)
def test_a_point_between_thousands_is_not_taken_for_a_decimal_one(judge, values, margin, told):
    rows = [("base", value) for value in values]
    rows += [("new", value.replace("1.2", "1.1")) for value in values]
    said = judge(
        lines("arm,ms", rows),
        *BASE,
        *UNPAIRED,
        "--metric",
        "ms",
        "--margin",
        str(margin),
        code=2 if told else 0,
    )
    assert told is None or told in said


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize(
    ("ms", "mean"), [("1.2{}", 1205), ("1.2{},5", 1205.5), ("1.000.2{}", 1000205), ("{}", 5)]
)
def test_beside_decimal_commas_points_stand_between_thousands(judge, delimiter, ms, mean):
    rows = [
        (arm, seed, str(value).replace(".", ","), ms.format(f"0{seed + 3}")) for arm, seed, value in runs()
    ]
    text = lines("arm,seed,acc,ms", []) + "\n".join("|".join(map(str, row)) for row in rows)
    text = text.replace(",", "|", 3).replace("|", delimiter)
    said = judge(text, *BASE, *PAIRED, "--metric", "ms", "--margin", "5")
    assert f"against base ({mean:.6g}" in said


CELLS = ("1'198.1", "1’198.1", "1 198.1", "€ 12", "12.5 ms", "1.2k", "~12", "12*")


@pytest.mark.parametrize(
    ("cell", "share"), [("DNF", "one"), *((c, s) for c in CELLS for s in ("one", "all"))]
)
def test_what_keeps_a_column_from_being_the_metric_is_said(judge, cell, share):
    rows = [
        (arm, cell.replace("1", str(11 + i), 1) if share == "all" or seed == 0 else 5 + value)
        for i, (arm, seed, value) in enumerate(runs())
    ]
    for told in (
        judge(lines("arm,ms", rows), *BASE, *UNPAIRED, "--margin", "1", code=2),
        judge(lines("arm,ms", rows)),
    ):
        assert (
            f"'ms' may be the metric, but {15 if share == 'all' else 3} cells are no numbers as written: "
            in told
        )
        assert cell.partition("1")[2] in told


def test_headers_that_stand_again_between_the_rows_are_left_out(judge):
    rows = [(arm, seed, value) for arm, seed, value in runs()]
    once = judge(lines("arm,seed,acc", rows), *BASE, *PAIRED, "--margin", "0.01")
    rows.insert(5, ("arm", "seed", "acc"))
    again = judge(lines("arm,seed,acc", rows), *BASE, *PAIRED, "--margin", "0.01")
    assert again.replace("1 line repeats the header, and is no run\n", "") == once
    assert again != once


# --- rows and columns that are no runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["mean", "avg.", "Mittelwert", "all", "mean ± std", "average"])
@pytest.mark.parametrize("pairing", [PAIRED, UNPAIRED])
def test_a_word_among_seeds_is_no_run(judge, word, pairing):
    rows = [*runs(), ("base", word, 0.9), ("new", word, 0.92)]
    said = judge(lines("arm,seed,acc", rows), *BASE, *pairing, "--margin", "0.01", code=2)
    assert f"2 rows of 17 sum up others, and are no run: row 16 (seed {word})" in said


@pytest.mark.parametrize("name", ["mean", "AVG", "Average", "std", "base mean", "new (avg.)", "third - mean"])
def test_a_single_row_that_is_called_a_mean_is_no_arm(judge, name):
    rows = [*((arm, value) for arm, _, value in runs()), (name, 0.9)]
    said = judge(lines("arm,acc", rows), *BASE, *UNPAIRED, "--margin", "0.01", code=2)
    assert f"{name!r} seems to be no arm, but to sum up others: row 16 (acc 0.9)" in said


@pytest.mark.parametrize("name", ["max", "attention mean", "demean", "meanpool"])
def test_an_arm_may_be_called_almost_so(judge, name):
    rows = [*((arm, value) for arm, _, value in runs()), (name, 0.9)]
    assert f"- {name} is inconclusive" in judge(lines("arm,acc", rows), *BASE, *UNPAIRED, "--margin", "0.01")


def test_an_arm_of_several_runs_may_be_called_mean(judge):
    said = judge(
        lines("arm,seed,acc", runs(arms=("base", "mean", "max"))), *BASE, *PAIRED, "--margin", "0.01"
    )
    assert "- mean clearly helps" in said


def wide(*columns: str) -> list[dict[str, object]]:
    """A row for each seed, with a column for each arm."""
    draw = random.Random(0)
    rows = []
    for i in range(6):
        base = round(0.9 + draw.gauss(0, 0.004), 4)
        row: dict[str, object] = {"base": base, "new": round(base + 0.02 + draw.gauss(0, 0.002), 4)}
        mean, sd = (base + row["new"]) / 2, abs(base - row["new"]) / 2**0.5
        others = {
            "": i,
            "Unnamed: 0": i * 5,
            "step": i,
            "epoch": i + 1,
            "run": i,
            "mean": mean,
            "std": sd,
            "avg_acc": mean,
        }
        rows.append({name: others[name] for name in columns} | row)
    return rows


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("", ""),
        ("Unnamed: 0", ""),
        ("run", ""),
        ("mean", "mean left out: a summary"),
        ("std", "std left out: a summary"),
        ("avg_acc", "avg_acc left out: a summary"),
    ],
)
def test_columns_that_count_or_sum_up_are_no_arms(judge, column, told):
    rows = wide(column)
    said = judge(
        lines(",".join(rows[0]), [row.values() for row in rows]),
        *("--wide", "arm", "--metric", "acc", "--margin", "0.01", "--unpaired", "--baseline", "base"),
    )
    assert [line.split()[1] for line in said.splitlines() if line.startswith("- ")] == ["new"]
    assert told in said


@pytest.mark.parametrize("column", ["step", "epoch"])
def test_a_column_of_steps_beside_columns_of_arms_counts_steps(judge, column):
    rows = wide(column)
    said = judge(
        lines(",".join(rows[0]), [row.values() for row in rows]),
        *("--wide", "arm", "--metric", "acc", "--margin", "0.01", "--unpaired", "--baseline", "base"),
        code=2,
    )
    assert f"each has several values of acc, over {column}" in said


@pytest.mark.parametrize(
    "column", ["epoch", "step", "global_step", "Epoch #", "num_steps", "iterations", "checkpoint"]
)
def test_steps_are_no_seeds(judge, column):
    text = lines(f"arm,{column},acc", runs())
    assert judge(text, *BASE, "--seed", column, "--margin", "0.01", code=2) != ""
    assert f"each has several values of acc, over {column}" in judge(
        text, *BASE, *UNPAIRED, "--margin", "0.01", code=2
    )


@pytest.mark.parametrize("way", [1, -1])
def test_a_metric_that_rises_from_row_to_row_in_every_arm_is_noted(judge, way):
    rises = [(arm, 100 * seed, way * (seed**0.5 + value)) for arm, seed, value in runs()]
    said = judge(lines("arm,tokens,acc", rises), *BASE, *UNPAIRED, "--margin", "0.01")
    assert f"acc {'rises' if way > 0 else 'falls'} from row to row in every arm" in said


def test_runs_in_any_order_do_not_rise_from_row_to_row(judge):
    noted = 0
    for seed in range(12):
        draw = random.Random(seed)
        rows = [(arm, draw.gauss(0.9, 0.01)) for arm in ("base", "new") for _ in range(5)]
        noted += "from row to row" in judge(lines("arm,acc", rows), *BASE, *UNPAIRED, "--margin", "0.01")
    assert noted == 0


# --- units, stand-ins, what arms differ in ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["score", "bleu", "err", "seconds"])
@pytest.mark.parametrize("factor", [100, 1000, 60])
@pytest.mark.parametrize("where", ["arm", "run"])
def test_a_leap_as_between_two_units_is_noted(judge, metric, factor, where):
    rows = [
        (arm, seed, value * (factor if arm == "base" or (where == "run" and seed == 2) else 1))
        for arm, seed, value in runs()
    ]
    said = judge(lines(f"arm,seed,{metric}", rows), *BASE, *PAIRED, "--metric", metric, "--margin", "0.01")
    assert f"{metric} leaps by a factor of " in said
    assert "Are all values in one unit?" in said


@pytest.mark.parametrize("stand_in", [0, -1, 999, 9999, -9999])
def test_what_stands_for_no_result_is_noted(judge, stand_in):
    rows = [(arm, seed, stand_in if (arm, seed) == ("new", 3) else value) for arm, seed, value in runs()]
    said = judge(lines("arm,seed,score", rows), *BASE, *PAIRED, "--metric", "score", "--margin", "0.01")
    assert f"1 run has {stand_in} where the others lie between 0.8" in said
    assert "row 9 (new)" in said


@pytest.mark.parametrize("spread", [0.004, 0.3, 3.0])
def test_values_of_one_unit_are_not_doubted(judge, spread):
    for seed in range(8):
        draw = random.Random(seed)
        rows = [(arm, i, draw.lognormvariate(0, spread)) for arm in ("base", "new") for i in range(20)]
        said = judge(lines("arm,seed,score", rows), *BASE, *PAIRED, "--metric", "score", "--margin", "0.01")
        assert "has 0 where" not in said
        assert "leaps" not in said or spread == 3.0, said


def test_a_success_of_zero_or_one_is_not_doubted(judge):
    rows = [(arm, seed, int(value * 1000) % 2) for arm, seed, value in runs(10)]
    said = judge(lines("arm,seed,score", rows), *BASE, *PAIRED, "--metric", "score", "--margin", "0.01")
    assert " where the others lie " not in said


DIFFERS = {
    "a task of each arm": ("arm", {"dataset": "set {number}"}, "arms differ in dataset too (dataset set 0 in base, set 1 in new, set 2 in third)"),
    "two settings of each arm": ("arm", {"lr": "0.{number}", "epochs": "{number}"}, "arms differ in lr and epochs too"),
    "a setting beside another": ("optimizer", {"lr": "0.{number}"}, "arms differ in lr too"),
    "what the arm stands for": ("arm", {"lr": "0.{number}"}, None),
    "one value": ("arm", {"lr": "0.1", "dataset": "x"}, None),
    "within arms": ("arm", {"lr": "{half}"}, "runs of one arm differ in lr (0, 1)"),
    "splits within arms": ("arm", {"split": "{half}"}, "runs of one arm differ in split (0, 1)"),
    "a label of the arm": ("optimizer", {"data": "data/{arm}/x"}, None),
    "an epoch of each run": ("arm", {"epoch": "{seed}"}, None),
    "not a setting by its name": ("arm", {"minutes": "{half}"}, None),
}  # fmt: skip


@pytest.mark.parametrize(("arm", "others", "told"), DIFFERS.values(), ids=DIFFERS)
def test_what_runs_differ_in_beside_the_arm_is_noted(judge, arm, others, told):
    names = ["base", "new", "third"]
    rows = [
        (
            name,
            seed,
            value,
            *(
                text.format(arm=name, number=names.index(name), seed=seed, half=int(seed > 2))
                for text in others.values()
            ),
        )
        for name, seed, value in runs(6)
    ]
    said = judge(
        lines(f"{arm},seed,acc,{','.join(others)}", rows),
        *("--arm", arm, "--baseline", "base", "--metric", "acc", "--margin", "0.01", *PAIRED),
    )
    if told is None:
        assert "differ in" not in said
    else:
        assert told in said


@pytest.mark.parametrize(("margin", "noted"), [(9, True), (0.5, False)])
def test_a_margin_beyond_every_value_is_noted(judge, margin, noted):
    rows = [(arm, seed, 5 * value) for arm, seed, value in runs()]
    said = judge(lines("arm,seed,score", rows), *BASE, *PAIRED, "--metric", "score", "--margin", str(margin))
    assert ("is more than every score here, the largest being 4.7" in said) is noted


def test_rows_of_a_wide_table_that_sum_up_the_others_are_left_out(judge):
    rows = [("base", 0.9, 0.904, 0.897), ("new", 0.92, 0.925, 0.918), ("max", 0.93, 0.935, 0.931)]
    options = (
        "--wide",
        "seed",
        "--metric",
        "acc",
        "--baseline",
        "base",
        "--seed",
        "seed",
        "--margin",
        "0.01",
    )
    known = judge(lines("arm,0,1,2", rows), *options)
    for word, sums in {
        "All": [sum(row[i] for row in rows) / 3 for i in (1, 2, 3)],
        "mean": [round(sum(row[i] for row in rows) / 3, 4) for i in (1, 2, 3)],
        "median": rows[1][1:],
    }.items():
        said = judge(lines("arm,0,1,2", [*rows, (word, *sums)]), *options)
        assert said.replace(f"row 4 ({word}) left out: a summary of the others, and no run\n", "") == known
    assert "- max " in known


@pytest.mark.parametrize("mark", ["**", "__"])
def test_bold_cells_of_markdown_are_read(judge, mark):
    def written(mark: str) -> str:
        rows = [f"| {mark}{arm}{mark} | {seed} | {mark}{value}{mark} |" for arm, seed, value in runs()]
        return "\n".join(["| arm | seed | acc |", "|:--|--:|--:|", *rows]) + "\n"

    assert judge(written(mark), *BASE, *PAIRED, "--margin", "0.01") == judge(
        written(""), *BASE, *PAIRED, "--margin", "0.01"
    )


@pytest.mark.parametrize(("between", "end", "kind"), [(" ┆ ", "│", "drawn lines"), (" & ", r" \\", "LaTeX")])
def test_a_table_for_the_eye_is_refused_with_what_it_is(judge, between, end, kind):
    rows = "\n".join(f"{between.join(map(str, row))}{end}" for row in runs())
    assert f"is a table in {kind}" in judge(f"arm{between}seed{between}acc{end}\n{rows}\n", code=2)


def test_a_column_with_one_value_is_not_asked_about_beside_the_arms(judge):
    rows = [(*row, "hf") for row in runs()]
    text = lines("arm,seed,acc,config.model", rows)
    assert "- new clearly helps" in judge(text, "--baseline", "base", *PAIRED, "--margin", "0.01")


@pytest.mark.parametrize(("sd", "means", "refused"), [(1.2, 0.9, True), (0.5, 0.9, False), (1.2, 90, False)])
def test_a_standard_deviation_in_another_unit_than_its_mean_is_refused(judge, sd, means, refused):
    rows = [("base", means, 0.01, 5), ("new", means * 1.02, sd, 5)]
    options = ("--mean", "acc", "--sd", "sd", "--n", "n", "--margin", "0.01")
    said = judge(lines("arm,acc,sd,n", rows), *BASE, *options, code=2 if refused else 0)
    assert ("row 2 (new, acc 0.918, sd 1.2)" in said) is refused


@pytest.mark.parametrize("step", ["-1", "final", "1,000", "inf"])
def test_a_step_that_has_no_place_among_the_others_is_refused(judge, step):
    rows = [
        (arm, seed, f'"{step}"' if at == 2 else at, value + at / 100)
        for arm, seed, value in runs()
        for at in range(3)
    ]
    said = judge(
        lines("arm,seed,epoch,acc", rows), *BASE, *PAIRED, "--margin", "0.01", "--at", "last", code=2
    )
    assert f"row 3 has no step: {step}" in said
