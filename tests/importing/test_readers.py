"""Readers of results: each on files of its shape, written as people and programs write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from ablate.errors import DataError, StudyError
from ablate.importing import READERS, HowToRead, ResultSource, read
from ablate.importing import table as limits

ROWS = [
    ("baseline", "0", "0.91"),
    ("baseline", "1", "0.92"),
    ("Größe, 2", "0", "0.95"),
    ("none", "1", "1e-3"),
]
COLUMNS = ("arm", "seed", "loss")
EXPECTED = [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]


def rows_of(path: Path, **how) -> list[dict[str, str]]:
    return read([str(path)], HowToRead(**how)).rows.to_dict("records")


def lines(delimiter: str = ",", *, end: str = "\n", decimal: str = ".") -> str:
    def cell(text: str) -> str:
        return f'"{text}"' if delimiter in text else text

    table = [COLUMNS, *((arm, seed, loss.replace(".", decimal)) for arm, seed, loss in ROWS)]
    return end.join(delimiter.join(map(cell, row)) for row in table) + end


PROSE = "Results of the final runs,\nafter 10 % of the episodes: see section 3, and the appendix.\n\n"

CSV = {
    "comma": (lines().encode(), {"delimiter": ",", "header": "1", "encoding": "utf-8"}),
    "tab": (lines("\t").encode(), {"delimiter": "\\t"}),
    "semicolon": (lines(";").encode(), {"delimiter": ";"}),
    "bar": (lines("|").encode(), {"delimiter": "|"}),
    "semicolon and decimal comma": (lines(";", decimal=",").encode(), {"delimiter": ";"}),
    "byte order mark": (b"\xef\xbb\xbf" + lines().encode(), {"encoding": "utf-8-sig"}),
    "UTF-16": (lines().encode("utf-16"), {"encoding": "utf-16"}),
    "Windows-1252": (lines().encode("cp1252"), {"encoding": "cp1252"}),
    "line ends of Windows": (lines(end="\r\n").encode(), {"header": "1"}),
    "line ends of old Macs": (lines(end="\r").encode(), {"header": "1"}),
    "no end of the last line": (lines().rstrip().encode(), {}),
    "blank lines": (lines().replace("\n", "\n\n").encode(), {"header": "1"}),
    "prose above the header": ((PROSE + lines()).encode(), {"header": "4"}),
    "comments above the header": (("# made by hand\n# v2\n" + lines()).encode(), {"header": "3"}),
    "prose above, other delimiter": ((PROSE + lines(";")).encode(), {"header": "4", "delimiter": ";"}),
    "spaces around names and cells": (
        lines().replace("seed", " seed ").replace("0.95", " 0.95 ").encode(),
        {},
    ),
}


@pytest.mark.parametrize(("content", "options"), CSV.values(), ids=CSV)
def test_however_a_table_is_written_its_rows_are_the_same_and_its_options_are_said(
    tmp_path, content, options
):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    found = read([str(path)], HowToRead())
    assert found.rows.to_dict("records") == EXPECTED
    assert list(found.rows.index) == [1, 2, 3, 4]
    assert found.options["reader"] == "csv"
    assert options.items() <= found.options.items()
    # What was guessed can be said, and then says the same.
    said = {name: int(value) if name == "header" else value for name, value in found.options.items()}
    assert rows_of(path, **said) == EXPECTED


def test_lines_that_were_passed_over_are_named(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(PROSE + lines())
    [note] = read([str(path)], HowToRead()).notes
    assert note.startswith("2 lines above the header (line 4) passed over, from “Results of the final runs,")


RECORDS = [
    {"arm": "baseline", "config": {"seed": 0, "optimizer": {"lr": 0.1}}, "loss": 0.91, "ok": True},
    {"arm": "none", "config": {"seed": 1, "optimizer": {"lr": 1e-05}}, "loss": float("nan"), "note": None},
]
FLAT = [
    {
        "arm": "baseline",
        "config.seed": "0",
        "config.optimizer.lr": "0.1",
        "loss": "0.91",
        "ok": "true",
        "note": "",
    },
    {"arm": "none", "config.seed": "1", "config.optimizer.lr": "1e-05", "loss": "nan", "ok": "", "note": ""},
]
JSON = {
    "a list of objects": json.dumps(RECORDS),
    "indented": json.dumps(RECORDS, indent=2),
    "one object a line": "\n".join(map(json.dumps, RECORDS)) + "\n",
    "one object a line, blank lines": "\n\n".join(map(json.dumps, RECORDS)),
    "a list within an object": json.dumps({"version": 2, "tags": ["x"], "runs": RECORDS}),
    "a byte order mark": "\ufeff" + json.dumps(RECORDS),
}


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
@pytest.mark.parametrize("name", ["results.json", "results.txt"])
def test_however_records_are_written_nested_keys_become_dotted_columns(tmp_path, content, name):
    path = tmp_path / name
    path.write_text(content)
    found = read([str(path)], HowToRead())
    assert found.options["reader"] == "json"
    assert found.rows.to_dict("records") == FLAT


def test_json_may_be_columns_of_one_length_and_json_lines_may_be_one_line(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"arm": ["a", "b"], "loss": [1, 2.5]}))
    assert rows_of(path) == [{"arm": "a", "loss": "1"}, {"arm": "b", "loss": "2.5"}]
    path.write_text('{"arm": "a", "loss": 1, "tags": ["x", 1]}\n')
    assert rows_of(path) == [{"arm": "a", "loss": "1", "tags": '["x", 1]'}]


def test_several_files_are_one_table_with_a_column_that_names_them(tmp_path):
    one, other = tmp_path / "sgd.csv", tmp_path / "adam.jsonl"
    one.write_text("seed,loss\n0,0.5\n1,0.6\n")
    other.write_text('{"seed": 0, "loss": 0.4, "note": "x"}\n')
    assert rows_of_all(one, other) == [
        {"seed": "0", "loss": "0.5", "file": "sgd", "note": ""},
        {"seed": "1", "loss": "0.6", "file": "sgd", "note": ""},
        {"seed": "0", "loss": "0.4", "file": "adam", "note": "x"},
    ]
    assert read([str(one), str(one)], HowToRead()).options["delimiter"] == ","
    assert "reader" not in read([str(one), str(other)], HowToRead()).options


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["adam/results.csv", "sgd/results.csv"], ["adam", "sgd"]),
        (["runs/adam/0/log.csv", "runs/adam/1/log.csv", "runs/sgd/0/log.csv"], ["adam/0", "adam/1", "sgd/0"]),
        (["results.csv", "sgd/results.csv"], ["results", "sgd/results"]),
        (["results.csv", "results.tsv"], None),
        (["a/x.csv", "a/y.csv", "b/x.tsv"], ["a/x", "a/y", "b/x"]),
    ],
)
def test_files_of_one_name_in_different_folders_are_told_apart(tmp_path, monkeypatch, paths, named):
    monkeypatch.chdir(tmp_path)
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("seed,loss\n0,0.5\n1,0.6\n")
    found = read(paths, HowToRead()).rows
    assert list(dict.fromkeys(found["file"])) == (named or paths)
    assert list(found["file"].value_counts()) == [2] * len(paths)


FRAME = pd.DataFrame({"arm": ["sgd", "sgd", "adam"], "seed": [0, 1, 0], "loss": [0.5, 0.25, 1.0]})


@pytest.mark.parametrize("orient", ["records", "columns", "split", "index", "table"])
@pytest.mark.parametrize(
    "frame", [FRAME, FRAME.iloc[1:], FRAME[["seed", "loss"]]], ids=["all", "some", "numbers alone"]
)
def test_json_of_pandas_has_the_rows_of_the_frame(tmp_path, orient, frame):
    path = tmp_path / "results.json"
    frame.to_json(path, orient=orient)
    expected = [{name: str(cell) for name, cell in row.items()} for row in frame.to_dict("records")]
    assert [{name: row[name] for name in frame} for row in rows_of(path)] == expected


def test_an_object_of_numbers_for_each_arm_has_a_row_for_each_arm(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"sgd": {"0": 0.5, "1": 0.6}, "adam": {"0": 0.4, "1": 0.3}}))
    assert rows_of(path) == [{"arm": "sgd", "0": "0.5", "1": "0.6"}, {"arm": "adam", "0": "0.4", "1": "0.3"}]


COMMAS = {
    "all may be thousands": ("\t", ["1,015", "1,502"], ["1,015", "1,502"]),
    "some are below a thousand": (";", ["1,015", "992"], ["1,015", "992"]),
    "a decimal comma": ("\t", ["1,015", "0,992"], ["1.015", "0.992"]),
    "decimals of another number": ("|", ["1,015", "1,5"], ["1.015", "1.5"]),
    "semicolons": (";", ["1,015", "2,502"], ["1.015", "2.502"]),
    "percentages": (";", ["91,015 %", "2,50 %"], ["91.015 %", "2.50 %"]),
    "more than a million": (";", ["1,015,000", "2,502,000"], ["1,015,000", "2,502,000"]),
}


@pytest.mark.parametrize(("delimiter", "written", "expected"), COMMAS.values(), ids=COMMAS)
@pytest.mark.parametrize("other", ["x", "0.5", "0,5"])
def test_a_comma_is_decimal_or_between_thousands_as_the_table_shows(
    tmp_path, delimiter, written, expected, other
):
    path = tmp_path / "results.txt"
    path.write_text(
        "\n".join(delimiter.join(row) for row in [("m", "other"), *((m, other) for m in written)])
    )
    if other == "0.5" and expected == ["1.015", "2.502"]:
        expected = written  # decimal points elsewhere
    if other == "0,5" and "," not in written[0].replace(",", "", 1):
        expected = [cell.replace(",", ".") for cell in written]  # decimal commas elsewhere
    assert [row["m"] for row in rows_of(path)] == expected


def rows_of_all(*paths: Path) -> list[dict[str, str]]:
    return read([*map(str, paths)], HowToRead()).rows.to_dict("records")


MISTAKES = {
    "an empty file": (b" \n", {}, "is empty"),
    "an Excel workbook": (b"PK\x03\x04\x14\x00 ... xl/workbook.xml", {}, "save the sheet as CSV"),
    "an old Excel workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", {}, "save the sheet as CSV"),
    "an archive": (b"PK\x03\x04\x14\x00", {}, "is a ZIP archive\n  unpack it"),
    "a compressed file": (b"\x1f\x8b\x08\x00", {}, "gunzip it first"),
    "a pickle": (b"\x80\x04\x95\x00", {}, "is a pickle, which is a program"),
    "a Parquet file": (b"PAR1\x15\x04", {}, "read_parquet"),
    "a database": (b"SQLite format 3\x00", {}, "mlflow:FILE#EXPERIMENT"),
    "a web page": (b"<!DOCTYPE html><html>", {}, "is a web page"),
    "some other bytes": (b"arm,loss\n\x00\x01\x02", {}, "is not a text file"),
    "prose": (b"Nothing here.\n", {}, "no table in it"),
    "numbers without names": (b"baseline,0,0.91\nadam,0,0.92\n", {}, "line 1 should name the columns"),
    "a line with too many cells": (
        b"arm,loss\na,1\nb,2,3\n",
        {"header": 1},
        "line 3 has 3 cells, and the header 2",
    ),
    "rows with too many cells": (b"arm,loss\na,1,5\nb,2,3\n", {"header": 1}, "more cells than the header"),
    "a header that is not there": (b"arm,loss\na,1\n", {"header": 9}, "no table in it"),
    "an encoding that does not exist": (
        b"arm,loss\na,1\n",
        {"encoding": "utf-99"},
        "there is no encoding 'utf-99'",
    ),
    "another encoding": (b"arm,loss\n\xe4,1\n", {"encoding": "utf-8"}, "byte 9 is no utf-8"),
    "two delimiters": (b"arm,loss\na,1\n", {"delimiter": ",,"}, "',,' is not one character"),
    "a kind of file that does not exist": (b"arm,loss\na,1\n", {"reader": "cvs"}, "did you mean 'csv'?"),
    "JSON that ends too early": (b'{"arm": "a"}\n{"arm": "b"', {}, "line 2 is cut off"),
    "JSON lines with another line": (b'{"arm": "a"}\nsome words\n{"arm": "b"}\n', {}, "line 2 is no JSON"),
    "broken JSON": (b'[{"arm": "a",]', {}, "is no JSON"),
    "JSON without records": (b'{"arms": {}, "n": 3}', {"reader": "json"}, None),
    "a number": (b"3", {"reader": "json"}, "holds no records"),
    "no record": (b"[]", {"reader": "json"}, "has no record in it"),
    "several lists of records": (
        b'{"a": [{"x": 1}], "b": [{"x": 2}]}',
        {},
        "several lists of records: 'a', 'b'",
    ),
    "deep JSON": (b"[" * 100_000, {"reader": "json"}, "is nested too deeply"),
    "deep records": (b'[{"a":' * 1 + b'{"a":' * 3000 + b"1" + b"}" * 3001 + b"]", {}, "is nested too deeply"),
    "columns of different lengths": (b'{"a": [1], "b": [1, 2]}', {}, "holds no records"),
}


@pytest.mark.parametrize(("content", "how", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_file_that_cannot_be_read_is_refused_in_a_sentence(tmp_path, content, how, message):
    path = tmp_path / "results.txt"
    path.write_bytes(content)
    if message is None:
        assert rows_of(path, **how) == [{"n": "3"}]
        return
    with pytest.raises((DataError, StudyError)) as caught:
        read([str(path)], HowToRead(**how))
    assert message in str(caught.value)


def test_missing_files_folders_and_files_beyond_the_limits_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"No such file"):
        read([str(tmp_path / "none.csv")], HowToRead())
    with pytest.raises(DataError, match=r"has no results that are recognized"):
        read([str(tmp_path)], HowToRead())
    path = tmp_path / "results.csv"
    path.write_text(lines())
    monkeypatch.setattr(limits, "MOST_COLUMNS", 2)
    with pytest.raises(DataError, match=r"has 3 columns, and at most 2 are read"):
        read([str(path)], HowToRead())
    monkeypatch.setattr(limits, "MOST_BYTES", 10)
    with pytest.raises(DataError, match=r"at most 10 bytes are read"):
        read([str(path)], HowToRead())


def test_records_that_share_few_keys_are_rows_of_all_their_columns(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_text(
        "\n".join(json.dumps({"arm": i, f"only.{i % 7}": 0.5, "x": {"y": i > 3}}) for i in range(9))
    )
    found = rows_of(path)
    names = ["arm", "only.0", "x.y", *(f"only.{i}" for i in range(1, 7))]
    assert found == [
        dict.fromkeys(names, "")
        | {"arm": str(i), f"only.{i % 7}": "0.5", "x.y": "true" if i > 3 else "false"}
        for i in range(9)
    ]
    assert list(found[0]) == names
    monkeypatch.setattr(limits, "MOST_COLUMNS", 4)
    with pytest.raises(DataError, match=r"has 9 columns, and at most 4 are read"):
        read([str(path)], HowToRead())


def test_a_key_that_stands_there_twice_has_its_last_value(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text('{"arm": "a", "x": {"y": 1}, "x.y": 2, "\\ud800": 3, "\\\\ud800": 4}\n{"arm": "b"}\n')
    assert rows_of(path) == [{"arm": "a", "x.y": "2", "\\ud800": "4"}, {"arm": "b", "x.y": "", "\\ud800": ""}]


def test_columns_of_one_name_are_told_apart_and_said(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("arm,loss,loss,\na,1,2,3\nb,2,3,4\n")
    found = read([str(path)], HowToRead())
    assert list(found.rows) == ["arm", "loss", "loss.2", "column 4"]
    assert found.repeated == {"loss"}


def test_the_last_reader_takes_every_text_and_each_name_is_a_reader():
    assert list(READERS)[-1] == "csv"
    assert READERS["csv"].recognizes(ResultSource("anything"))


@pytest.mark.skipif(
    "ABLATE_RESULTS" not in os.environ, reason="ABLATE_RESULTS names a folder of real results"
)
@pytest.mark.parametrize(
    ("name", "rows", "columns", "header"),
    [("H100X8_RUNS.csv", 20, "configuration", "1"), ("mean_rewards_data.csv", 440, "algorithm", "6")],
)
def test_real_files_are_read_whole(name, rows, columns, header):
    found = read([str(Path(os.environ["ABLATE_RESULTS"]) / name)], HowToRead())
    assert (len(found.rows), found.rows.columns[0], found.options["header"]) == (rows, columns, header)
