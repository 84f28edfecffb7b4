"""Sources of results besides single tables: each written by the program that it comes from, or exactly as that one writes it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from ablate import addresses
from ablate.errors import DataError, StudyError
from ablate.importing import HowToRead, read
from ablate.results import Asked, judge

ARMS = ("sgd", "adam")


def table(source: str | Path, **how):
    return read([str(source)], HowToRead(**how))


def rows_of(source: str | Path, **how) -> list[dict[str, str]]:
    return table(source, **how).rows.to_dict("records")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- patterns of files ------------------------------------------------------------------------------------------------


def test_a_pattern_reads_a_report_of_each_run_and_its_names_become_columns(folder):
    for arm in ("sgd", "adam-w"):
        for seed in (10, 2):
            report = {"val": {"acc": 0.9, "n": 5}, "history": [{"step": 1, "loss": 2.0}], "args": {"lr": 0.1}}
            write(folder / "results" / arm / f"seed{seed}.json", json.dumps(report))
    found = table("results/{arm}/seed{seed}.json")
    rows = found.rows
    assert list(rows) == ["arm", "seed", "val.acc", "val.n", "history", "args.lr", "file"]
    assert rows[["arm", "seed"]].to_numpy().tolist() == [
        ["adam-w", "2"],
        ["adam-w", "10"],
        ["sgd", "2"],
        ["sgd", "10"],
    ]
    assert rows.index[0] == ("results/adam-w/seed2.json", 1)
    assert rows_of(str(folder / "results/{arm}/seed{seed}.json"))[0]["arm"] == "adam-w", "absolute, too"
    assert rows_of("results/*/seed2.json")[0]["file"] == "results/adam-w/seed2.json"
    assert {row["seed"] for row in rows_of("**/seed{seed}.json")} == {"2", "10"}


def test_names_of_a_pattern_may_stand_in_one_part_of_a_path_and_stand_for_the_same_text_twice(folder):
    write(folder / "adam-w-3" / "adam-w.json", '{"loss": 1}')
    write(folder / "adam-w-3" / "sgd.json", '{"loss": 2}')
    assert [(row["arm"], row["seed"], row["loss"]) for row in rows_of("{arm}-{seed}/{arm}.json")] == [
        ("adam-w", "3", "1")
    ]
    with pytest.raises(StudyError, match=r"where does \{seed\} begin"):
        table("{arm}{seed}.json")


def test_a_report_without_a_number_to_judge_is_the_records_of_its_history(folder):
    """As `transformers` writes trainer_state.json."""
    state = {
        "epoch": 1.0,
        "global_step": 2,
        "log_history": [{"step": 1, "eval_loss": 2.0}, {"step": 2, "eval_loss": 1.5}],
    }
    write(folder / "out" / "sgd-0" / "trainer_state.json", json.dumps(state))
    assert [row["eval_loss"] for row in rows_of("out/{arm}-{seed}/trainer_state.json")] == ["2.0", "1.5"]
    [row] = rows_of("out/{arm}-{seed}/trainer_state.json", metric="epoch")
    assert row["epoch"] == "1.0"


def test_what_is_noted_of_many_files_is_said_once(folder):
    for seed in range(12):
        write(
            folder / "a" / f"{seed}.csv",
            "about a\n\nacc,loss\n1,2\n" if seed == 7 else "acc,loss\n1,2\nacc,loss\n",
        )
    assert table("a/{seed}.csv").notes == (
        "a/0.csv and 10 other files: 1 line repeats the header, and is no run",
        "a/7.csv: 1 line above the header (line 3) passed over, from “about a”",
    )


def test_files_of_a_pattern_may_be_tables_with_a_row_for_each_step(folder):
    for seed in range(2):
        write(folder / "runs" / f"sgd_{seed}.csv", "step;loss\n1;0,5\n2;0,4\n")
    found = table("runs/{arm}_{seed}.csv")
    assert found.rows["loss"].tolist() == ["0.5", "0.4"] * 2
    assert found.options["delimiter"] == ";"


def test_a_pattern_that_matches_folders_alone_says_what_is_in_them(folder):
    for name in ("a/2", "a/10"):
        write(folder / name / "x.csv", "acc\n1")
    with pytest.raises(DataError) as caught:
        table("{arm}/{seed}")
    assert str(caught.value) == (
        "{arm}/{seed}: 2 folders and no file are called so\n"
        "  name the files in them, such as {arm}/{seed}/*: in a/2 there is x.csv"
    )


def test_rows_without_an_arm_come_with_the_condition_that_keeps_the_others(folder):
    lines = [
        "opt,seed,trials,acc",
        ",,5,0.9",
        *(f"{arm},{seed},,0.{seed}" for arm in ARMS for seed in (5, 6, 7)),
    ]
    write(folder / "sweep.csv", "\n".join(lines))
    asked = Asked(arm=("opt",), baseline="sgd", margin=0.01, seed="seed", metric="acc")
    with pytest.raises(StudyError, match=r"or leave these rows out: --where trials= keeps the others"):
        judge(["sweep.csv"], HowToRead(), asked, lambda text: None)
    assert len(judge(["sweep.csv"], HowToRead(), replace(asked, where=("trials=",)), lambda text: None)) == 1


def test_several_runs_in_a_file_of_each_arm_are_told_apart_by_their_column(folder):
    for arm, better in (("sgd", 0.0), ("adam", 0.05)):
        lines = [
            f"r{run},{step},{0.7 + better + 0.01 * run + 0.001 * step}"
            for run in range(4)
            for step in range(3)
        ]
        write(folder / f"{arm}.csv", "\n".join(["run,step,acc", *lines]))
    for source in (["sgd.csv", "adam.csv"], ["{file}.csv"]):
        [verdict] = judge(
            source,
            HowToRead(),
            Asked(arm=("file",), baseline="sgd", margin=0.01, unpaired=True, metric="acc", at="last"),
            lambda text: None,
        )
        assert (verdict.n, verdict.effect) == (4, pytest.approx(0.05))


def test_a_run_that_left_its_settings_alone_is_named(folder):
    for version in range(3):
        write(folder / "logs" / f"version_{version}" / "hparams.yaml", f"seed: {version}")
        if version != 1:
            write(folder / "logs" / f"version_{version}" / "metrics.csv", "step,acc\n1,0.5")
    found = table("logs")
    assert (len(found.rows), found.notes) == (
        2,
        ("1 run left out, with settings and no results: logs/version_1",),
    )


def test_what_no_file_matches_is_told_how_far_it_came(folder):
    write(folder / "runs" / "adam" / "0" / "out.txt", "x")
    with pytest.raises(DataError) as caught:
        table("runs/{arm}/{seed}/log.txt")
    assert "2 folders" not in str(caught.value)
    assert "1 folder matches 'runs/{arm}/{seed}'; in runs/adam/0 there is out.txt" in str(caught.value)


def test_a_path_and_a_file_that_contradict_each_other_are_refused(folder):
    write(folder / "a" / "1.json", '{"seed": 2, "loss": 3}')
    with pytest.raises(DataError, match=r"its seed is '1' by its path and '2' in the file"):
        table("a/{seed}.json")


# --- logs -------------------------------------------------------------------------------------------------------------

LOG = "start\nepoch {i}/3 train 0.9 val_loss {v:.3f}\ncorrect {c}/200\n"


def test_logs_are_read_by_patterns_of_their_lines_with_steps_and_resolutions(folder):
    for arm in ARMS:
        text = "".join(LOG.format(i=i, v=1 / i, c=150 + i) for i in (1, 2, 3))
        write(folder / "runs" / arm / "0" / "log.txt", text)
    found = table("runs/{arm}/{seed}/log.txt", lines=(r"val_loss ([\d.]+)", r"epoch (?P<step>\d+)"))
    assert found.rows[["step", "val_loss"]].to_numpy().tolist()[:3] == [
        ["1", "1.0"],
        ["2", "0.5"],
        ["3", "0.333"],
    ]
    assert found.resolutions == {"val_loss": pytest.approx(0.001)}
    assert found.measured == ("val_loss",)
    counted = table("runs/{arm}/{seed}/log.txt", lines=(r"correct (\d+)/(\d+)",), metric="acc")
    assert counted.rows["acc"].tolist()[:3] == ["0.755", "0.76", "0.765"]
    assert counted.rows["reading"].tolist()[:3] == ["1", "2", "3"], "without a step, its values are counted"
    assert counted.resolutions == {"acc": pytest.approx(0.005)}
    named = table("runs/sgd/0/log.txt", lines=(r"train (?P<train_loss>[\d.]+)",))
    assert named.measured == ("train_loss",)


def test_a_run_whose_log_says_nothing_is_kept_without_a_value_and_no_run_at_all_is_refused(folder):
    write(folder / "runs" / "sgd" / "log.txt", "val_loss 0.5\n")
    write(folder / "runs" / "adam" / "log.txt", "Traceback\n")
    found = rows_of("runs/{arm}/log.txt", lines=(r"val_loss ([\d.]+)",))
    assert [(row["arm"], row["val_loss"]) for row in found] == [("adam", ""), ("sgd", "0.5")]
    with pytest.raises(DataError, match=r"no line of 2 files has loss=(.|\n)*a line of runs/adam/log.txt"):
        table("runs/{arm}/log.txt", lines=(r"loss=(\S+)",))
    with pytest.raises(StudyError, match=r"has no group for the value"):
        table("runs/{arm}/log.txt", lines=("loss",))


# --- folders of Lightning, Hydra and TensorBoard ----------------------------------------------------------------------


METRICS = "epoch,step,train_loss,val_loss\n0,0,1.0,\n0,0,,1.0\n1,1,0.9,\n1,1,,0.8\n"


def check_lightning(folder: Path, last: str) -> None:
    found = table("lightning_logs")
    assert sorted(found.settings) == ["net.width", "optimizer", "seed"]
    row = found.rows[found.rows["run"] == "version_3"].iloc[-1]
    assert (row["optimizer"], row["seed"], row["net.width"], row["val_loss"]) == ("adam", "1", "64", last)
    assert rows_of("lightning_logs/version_{run}/metrics.csv")[0]["run"] == "0"


def test_a_folder_of_lightning_has_a_run_for_each_version_with_its_settings(folder):
    for number, (arm, seed) in enumerate((arm, seed) for arm in ARMS for seed in range(2)):
        run = folder / "lightning_logs" / f"version_{number}"
        write(run / "metrics.csv", METRICS)
        write(run / "hparams.yaml", f"net:\n  width: 64\noptimizer: {arm}\nseed: {seed}\n")
    check_lightning(folder, "0.8")
    write(
        folder / "lightning_logs" / "version_0" / "hparams.yaml",
        "x: !!python/object/apply:os.system ['touch executed']",
    )
    assert "x" not in table("lightning_logs").rows
    assert not (folder / "executed").exists()


@pytest.mark.slow
def test_a_folder_that_lightning_wrote(folder):
    pytest.importorskip("lightning")
    from lightning.pytorch.loggers import CSVLogger

    for arm in ARMS:
        for seed in range(2):
            logger = CSVLogger(str(folder), name="lightning_logs")
            logger.log_hyperparams({"optimizer": arm, "seed": seed, "net": {"width": 64}})
            for step in range(3):
                logger.log_metrics({"train_loss": 1.0 - step / 10}, step=step)
                logger.log_metrics({"val_loss": 1.0 - step / 5, "epoch": step}, step=step)
            logger.save()
    check_lightning(folder, "0.6")


def test_a_multirun_of_hydra_has_a_run_for_each_job_with_its_overrides(folder):
    pytest.importorskip("hydra")
    write(folder / "conf" / "config.yaml", "optimizer: sgd\nseed: 0\nnet: {width: 8}\n")
    program = (
        "import json, hydra\n"
        "@hydra.main(version_base=None, config_path='conf', config_name='config')\n"
        "def main(cfg):\n"
        "    json.dump({'val_loss': 1.0 + cfg.seed}, open('result.json', 'w'))\n"
        "main()\n"
    )
    write(folder / "train.py", program)
    command = [
        sys.executable,
        "train.py",
        "-m",
        "optimizer=sgd,adam",
        "seed=0,1",
        "net.width=16",
        "hydra.job.chdir=true",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    found = table("multirun")
    assert found.rows[["optimizer", "seed", "net.width", "val_loss"]].to_numpy().tolist() == [
        ["sgd", "0", "16", "1.0"],
        ["sgd", "1", "16", "2.0"],
        ["adam", "0", "16", "1.0"],
        ["adam", "1", "16", "2.0"],
    ]
    [job] = (folder / "multirun").glob("*/*/3")
    write(job / "other.json", "{}")
    with pytest.raises(DataError, match=r"has 2 files that may be its results: other.json and result.json"):
        table("multirun")


def test_event_files_of_tensorboard_are_read_without_it(folder):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for arm in ARMS:
        with SummaryWriter(str(folder / "runs" / arm / "0")) as writer:
            for step in (1, 300):
                writer.add_scalar("val/loss", 1.0 / step, step)
                writer.add_scalar("nothing", float("nan"), step)
            writer.add_text("note", "hello")
            writer.add_histogram("weights", __import__("numpy").arange(5.0), 1)
    found = rows_of("runs/{arm}/{seed}/events*")
    assert [(row["arm"], row["step"], row["val/loss"]) for row in found] == [
        ("adam", "1", "1"),
        ("adam", "300", "0.0033333334"),
        ("sgd", "1", "1"),
        ("sgd", "300", "0.0033333334"),
    ]
    assert found[0]["nothing"] == "nan"
    assert [row["run"] for row in rows_of("runs")] == ["adam/0"] * 2 + ["sgd/0"] * 2
    [file] = (folder / "runs" / "sgd" / "0").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert len(rows_of(file)) == 2, "what a killed run left unfinished is left out"


def test_event_files_of_one_folder_are_one_run_that_was_resumed(folder):
    from torch.utils.tensorboard import SummaryWriter

    for arm, better in (("sgd", 0.0), ("adam", 0.05)):
        for seed in range(3):
            for suffix, steps, offset in ((".first", range(4), -0.3), (".second", range(2, 5), 0.0)):
                with SummaryWriter(f"tb/{arm}/{seed}", filename_suffix=suffix) as writer:
                    for step in steps:
                        writer.add_scalar("acc", 0.7 + better + offset + 0.01 * seed, step)
    source = "tb/{optimizer}/{seed}/*tfevents*"
    assert {row["file"] for row in rows_of(source)} == {f"tb/{arm}/{s}" for arm in ARMS for s in range(3)}
    for at in ("last", "3", "best"):
        verdict, _ = judged(source, "acc", at=at)
        assert (verdict.n, verdict.effect) == (3, pytest.approx(0.05))
    assert len({row["file"] for row in rows_of("tb/sgd/*/*tfevents*")}) == 6


def test_event_files_of_tensorflow_2_hold_tensors(folder):
    event_pb2 = pytest.importorskip("tensorboard.compat.proto.event_pb2")
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / "events.out.tfevents.1.host"
    with path.open("wb") as file:
        tensor = TensorProto(dtype=1, tensor_content=__import__("struct").pack("<f", 0.25))
        value = Summary.Value(tag="epoch_loss", tensor=tensor)
        event = event_pb2.Event(step=7, wall_time=1.0, summary=Summary(value=[value]))
        RecordWriter(file).write(event.SerializeToString())
    assert rows_of(path) == [{"step": "7", "epoch_loss": "0.25"}]


# --- MLflow -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow_stores(tmp_path_factory, template_store):
    """A folder with an experiment in a database, and the same in a folder of the old file store, by MLflow itself."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    root = tmp_path_factory.mktemp("mlflow")
    shutil.copy(template_store, root / "some.db")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        warnings.simplefilter("ignore")  # the file store is no longer cared for
        for uri in (f"sqlite:///{root}/some.db", f"file:{root}/files"):
            client = MlflowClient(uri)
            experiment = client.create_experiment("some study", artifact_location=f"{root}/artifacts")

            def record(name, params, metrics, status, client=client, experiment=experiment):
                run = client.create_run(experiment, run_name=name).info.run_id
                params = [Param(key, str(value)) for key, value in params.items()]
                values = [Metric(key, value, 1000 + step, step) for step, key, value in metrics]
                client.log_batch(run, values, params, [RunTag("team", "x")])
                client.set_terminated(run, status)
                return run

            for arm in ARMS:
                for seed in range(2):
                    values = [(step, "val/loss", 1.0 / (step + 1) + seed) for step in range(3)]
                    values += [(step, "acc", 0.5) for step in range(3)]
                    record(
                        f"{arm}-{seed}",
                        {"optimizer": arm, "seed": seed, "acc": "a setting"},
                        values,
                        "FINISHED",
                    )
            values = [(1, "val/loss", math.inf), (1, "acc", math.nan)]
            record("adam-2", {"optimizer": "adam", "seed": 2}, values, "FAILED")
            client.delete_run(record("deleted", {}, [], "FINISHED"))
            experiment = client.create_experiment("steps", artifact_location=f"{root}/artifacts")
            for arm in ARMS:
                for seed in range(3):
                    base = 0.7 + 0.05 * (arm == "adam") + 0.01 * seed
                    # A run that was resumed has steps twice; one that names no step has values at step 0 alone.
                    values = [(step, "resumed", base - 0.1 + 0.001 * step) for step in (0, 1, 2, 3)]
                    values += [(step, "resumed", base + 0.01 * step) for step in (2, 3, 4)]
                    values += [(0, "unstepped", base + 0.001 * i) for i in range(4)] + [(4, "late", base)]
                    values += [
                        (step, "short", base) for step in range(2 if (arm, seed) == ("adam", 1) else 5)
                    ]
                    run = client.create_run(experiment, run_name="the same").info.run_id
                    params = [Param("optimizer", arm), Param("seed", str(seed))]
                    metrics = [
                        Metric(key, value, 1000 + i, step) for i, (step, key, value) in enumerate(values)
                    ]
                    client.log_batch(run, metrics, params)
                    client.set_terminated(run)
    return root


def judged(source: str, metric: str, *, at: str | None = None, **asked):
    """Verdicts on a source, adam against sgd, and the notes beside them."""
    known = {
        "arm": ("optimizer",),
        "baseline": "sgd",
        "margin": 0.01,
        "seed": "seed",
        "direction": "maximize",
    }
    found = judge([source], HowToRead(), Asked(metric=metric, at=at, **{**known, **asked}), lambda text: None)
    [verdict] = found
    return verdict, " ".join(found.notes)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    "address", ["some.db", "sqlite:///{root}/some.db", "files", "file:{root}/files", "file://{root}/files"]
)
def test_an_experiment_of_mlflow_is_read_and_left_as_it_is(mlflow_stores, monkeypatch, address):
    monkeypatch.chdir(mlflow_stores)
    before = files_of(mlflow_stores)
    source = f"mlflow:{address.format(root=mlflow_stores)}#some study"
    found = table(source)
    rows = found.rows.to_dict("records")
    assert [row["run_name"] for row in rows] == ["sgd-0", "sgd-1", "adam-0", "adam-1", "adam-2"]
    assert [row["status"] for row in rows] == ["FINISHED"] * 4 + ["FAILED"]
    assert {name: rows[3][name] for name in ("optimizer", "seed", "params.acc", "team")} == {
        "optimizer": "adam",
        "seed": "1",
        "params.acc": "a setting",
        "team": "x",
    }
    assert (float(rows[1]["val/loss"]), rows[1]["metrics.acc"]) == (pytest.approx(1 / 3 + 1), "0.5")
    assert (rows[4]["val/loss"], rows[4]["metrics.acc"]) == ("inf", "nan")
    assert set(found.measured) == {"val/loss", "metrics.acc"}
    assert set(found.settings) == {"optimizer", "seed", "params.acc"}
    steps = rows_of(source, metric="val/loss", history=True)
    assert [(row["step"], float(row["val/loss"])) for row in steps[:3]] == [
        ("0", 1.0),
        ("1", 0.5),
        ("2", pytest.approx(1 / 3)),
    ]
    assert len(steps) == 13
    assert files_of(mlflow_stores) == before


@pytest.mark.parametrize(("store", "pairing"), [("some.db", {}), ("files", {"seed": None, "unpaired": True})])
@pytest.mark.parametrize(
    ("metric", "at", "effect"),
    [
        ("resumed", "last", 0.05),
        ("resumed", "3", 0.05),
        ("resumed", "best", 0.05),
        ("unstepped", "last", 0.05),
        ("unstepped", "best", 0.05),
        ("late", "last", 0.05),
        ("late", "4", 0.05),
        ("short", "0", 0.05),
    ],
)
def test_runs_of_mlflow_are_told_apart_by_their_ids_whatever_their_steps_are(
    mlflow_stores, store, pairing, metric, at, effect
):
    verdict, _ = judged(f"mlflow:{mlflow_stores}/{store}#steps", metric, at=at, **pairing)
    assert (verdict.n, verdict.effect) == (3, pytest.approx(effect))


@pytest.mark.parametrize("store", ["some.db", "files"])
def test_of_a_step_that_a_run_of_mlflow_has_twice_the_later_value_counts(mlflow_stores, store):
    source = f"mlflow:{mlflow_stores}/{store}#steps"
    steps = rows_of(source, metric="resumed", history=True)[:7]
    assert [(row["step"], float(row["resumed"])) for row in steps[2:]] == [
        ("2", pytest.approx(0.602)),
        ("2", pytest.approx(0.72)),
        ("3", pytest.approx(0.603)),
        ("3", pytest.approx(0.73)),
        ("4", pytest.approx(0.74)),
    ]


@pytest.mark.parametrize("store", ["some.db", "files"])
def test_last_values_of_different_steps_are_noted(mlflow_stores, store):
    source = f"mlflow:{mlflow_stores}/{store}#steps"
    _, notes = judged(source, "short")
    assert "of step 1 in row 5, of 4 in row 1. --at last counts" in notes
    verdict, notes = judged(source, "short", at="last")
    assert (verdict.n, "different steps" in notes, "stopped short" in notes) == (2, False, True)
    assert "different steps" not in judged(source, "late")[1]


@pytest.mark.parametrize("store", ["some.db", "files", "sqlite:///{root}/some.db"])
def test_a_store_of_mlflow_without_an_experiment_is_asked_for_one(mlflow_stores, store):
    with pytest.raises(DataError, match=r"which experiment\?\n  choose one of: Default, some study, steps"):
        table(
            f"mlflow:{store.format(root=mlflow_stores)}"
            if ":" in store
            else f"mlflow:{mlflow_stores}/{store}"
        )


def test_without_a_name_the_store_of_the_folder_is_taken_or_that_of_the_environment(
    mlflow_stores, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(DataError, match=r"there is no store of MLflow here"):
        table("mlflow:some study")
    shutil.copytree(mlflow_stores / "files", tmp_path / "mlruns")
    found = table("mlflow:some study")
    assert (len(found.rows), found.notes) == (5, ("read from mlruns",))
    shutil.copy(mlflow_stores / "some.db", tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert table("mlflow:some study").notes == ("read from sqlite:///other.db",)
    with pytest.raises(DataError, match=r"there is no experiment 'some studdy'\n  did you mean 'some study'"):
        table("mlflow:some studdy")


def test_what_is_no_store_of_mlflow_is_refused_in_a_sentence(folder):
    write(folder / "some.db", "SQLite format 3\x00, it says")
    write(folder / "empty" / "x" / "y.txt", "")
    import sqlite3

    with sqlite3.connect(folder / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    for address, message in (
        ("some.db", "is no database of MLflow"),
        ("other.db", "is no database of MLflow"),
        ("empty", "is no folder of MLflow"),
        ("none.db", "there is no such store"),
        ("http://[::1", "is no address"),
        ("http://u:secret@h:99999", "is no address"),
        ("sqlite:///a%00b.db", "is no address"),
    ):
        with pytest.raises(DataError, match=message) as raised:
            table(f"mlflow:{address}#x")
        assert "secret" not in str(raised.value)


def test_a_database_cannot_keep_the_reader_busy(folder, monkeypatch):
    """Its tables may have columns that take long to compute."""
    import sqlite3

    from ablate.importing import mlflow

    with sqlite3.connect(folder / "endless.db") as endless:
        endless.executescript(
            "CREATE TABLE experiments (name, experiment_id, lifecycle_stage);"
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
            "INSERT INTO experiments SELECT 'x', i, 'deleted' FROM n"
        )
    monkeypatch.setattr(mlflow, "_MOST_SECONDS", -1.0)
    with pytest.raises(DataError, match="interrupted"):
        table("mlflow:endless.db#x")


@pytest.mark.slow
def test_a_server_of_mlflow_answers_like_its_database(mlflow_stores, tmp_path, template_store):
    from mlflow_server import Server

    server = Server(tmp_path, template_store)
    shutil.copy(mlflow_stores / "some.db", tmp_path / "server.db")
    server.start()
    try:
        source = f"mlflow:{server.uri}#some study"
        local = f"mlflow:{mlflow_stores}/some.db#some study"
        assert sorted(map(str, rows_of(source))) == sorted(map(str, rows_of(local)))
        how = {"metric": "val/loss", "history": True}
        assert sorted(map(str, rows_of(source, **how))) == sorted(map(str, rows_of(local, **how)))
    finally:
        server.stop()


# --- Optuna -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def optuna_stores(tmp_path_factory):
    """A folder with a grid and a search, in a database and in a journal, by Optuna itself."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    root = tmp_path_factory.mktemp("optuna")
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    for storage in (
        f"sqlite:///{root}/some.db",
        JournalStorage(JournalFileBackend(str(root / "journal.log"))),
    ):
        space = {"opt": ["sgd", "adam"], "seed": [0, 1, 2]}
        grid = optuna.create_study(
            storage=storage,
            study_name="grid",
            direction="maximize",
            sampler=optuna.samplers.GridSampler(space, seed=0),
        )

        def objective(trial):
            opt, seed = trial.suggest_categorical("opt", ["sgd", "adam"]), trial.suggest_int("seed", 0, 2)
            noise = random.Random(f"{opt}{seed}")
            for step in (1, 2):
                trial.report(step / 2 + seed, step)
            trial.set_user_attr("note", {"a": 1})
            return 0.8 + 0.05 * (opt == "adam") + 0.01 * seed + noise.gauss(0, 0.001)

        grid.optimize(objective, n_trials=6)
        half = optuna.create_study(storage=storage, study_name="half", direction="minimize")
        for number in range(4):
            steps = {1: 2.0, 2: 1.0} if number % 2 else {}
            levels = {"trial": number, "state": "x", "value": 7.0, "step": 9}
            kinds = {
                name: optuna.distributions.CategoricalDistribution(
                    [0, 1, 2, 3] if name == "trial" else [level]
                )
                for name, level in levels.items()
            }
            half.add_trial(
                optuna.create_trial(
                    params=levels, distributions=kinds, value=1.0 + number, intermediate_values=steps
                )
            )
        grid_and_waiting = optuna.create_study(storage=storage, study_name="waiting", direction="maximize")
        grid_and_waiting.add_trials(grid.trials)
        grid_and_waiting.ask()
        search = optuna.create_study(
            storage=storage, study_name="search", sampler=optuna.samplers.RandomSampler(seed=0)
        )
        search.optimize(
            lambda t: t.suggest_float("lr", 0, 1) + t.suggest_categorical("opt", ["sgd", "adam"]).count("s"),
            n_trials=9,
        )
    optuna.logging.set_verbosity(verbosity)
    return root


def test_a_trial_of_optuna_that_has_not_begun_is_left_out_and_named(optuna_stores):
    found = table(f"optuna:{optuna_stores}/journal.log#waiting")
    assert (len(found.rows), found.notes) == (
        6,
        ("1 trial left out, without a parameter or a value: 6 (RUNNING)",),
    )


@pytest.mark.parametrize("storage", ["some.db", "journal.log"])
def test_parameters_of_optuna_hide_nothing_of_a_trial_and_trials_without_steps_are_named(
    optuna_stores, storage
):
    source = f"optuna:{optuna_stores}/{storage}#half"
    row = rows_of(source)[3]
    assert (row["trial"], row["state"], row["value"]) == ("3", "COMPLETE", "4.0")
    assert [row[f"params.{name}"] for name in ("trial", "state", "value", "step")] == ["3", "x", "7.0", "9"]
    with pytest.raises(DataError, match="2 trials reported no values on the way, such as trial 0"):
        table(source, history=True)


@pytest.mark.parametrize("storage", ["some.db", "sqlite:///{root}/some.db", "journal.log"])
def test_a_study_of_optuna_is_read_and_left_as_it_is(optuna_stores, monkeypatch, storage):
    monkeypatch.chdir(optuna_stores)
    before = files_of(optuna_stores)
    storage = storage.format(root=optuna_stores)
    found = table(f"optuna:{storage}#grid")
    assert list(found.rows) == ["trial", "state", "opt", "seed", "user.note", "value"]
    assert (len(found.rows), found.directions, found.is_search) == (6, {"value": "maximize"}, True)
    assert found.rows["user.note"].iloc[0] == '{"a": 1}'
    steps = rows_of(f"optuna:{storage}#grid", history=True)
    assert [row["step"] for row in steps] == ["1", "2"] * 6
    with pytest.raises(DataError, match=r"there is no study 'gird'\n  did you mean 'grid'"):
        table(f"optuna:{storage}#gird")
    assert files_of(optuna_stores) == before


@pytest.mark.parametrize(
    "name", ["a b.db", "100%41.db", "what?x=1.db", "#1.db", "é.db", os.fsdecode(b"\xff.db"), "'.db"]
)
def test_a_database_of_any_name_is_read(optuna_stores, folder, name):
    shutil.copy(optuna_stores / "some.db", name)
    assert len(table(f"optuna:{name}#grid").rows) == 6
    assert len(table(f"optuna:{addresses.database_address(folder / name)}#grid").rows) == 6
    with pytest.raises(DataError, match=r"is no database of MLflow .no such table: experiments"):
        table(f"mlflow:{name}#grid")
    assert list(folder.iterdir()) == [folder / name]


def test_what_is_no_storage_of_optuna_is_refused_in_a_sentence(folder):
    write(folder / "some.log", "not a journal\n")
    write(folder / "odd.log", '{"op_code": 99}\n')
    write(folder / "some.db", "SQLite format 3\x00, it says")
    for address, message in (
        ("some.log#x", "is no storage of Optuna"),
        ("odd.log#x", "is no storage of Optuna"),
        ("some.db#x", "is no storage of Optuna"),
        ("none.db#x", "there is no such file"),
        ("x", "which storage, and which study"),
    ):
        with pytest.raises(DataError, match=message):
            table(f"optuna:{address}")


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def as_csv(header: list[str], *rows: tuple[object, ...], index: bool = False) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["", *header] if index else header)
    writer.writerows([(i, *row) if index else row for i, row in enumerate(rows)])
    return file.getvalue()


def test_the_table_of_runs_of_wandb(folder):
    header = [
        "Name",
        "State",
        "Notes",
        "User",
        "Tags",
        "Created",
        "Runtime",
        "Sweep",
        "optimizer",
        "seed",
        "val_acc",
    ]
    row = ("fine-sun-1", "finished", "-", "me", "", "2026-01-01T00:00:00.000Z", 71, "", "adam", 1, 0.91)
    write(folder / "runs.csv", as_csv(header, row))
    found = table("runs.csv")
    assert found.options["reader"] == "wandb"
    assert found.rows["val_acc"].tolist() == ["0.91"]


def test_the_frame_of_the_api_of_wandb_has_dicts_in_its_cells(folder):
    """As the script in the documentation of `wandb.Api` writes it."""
    summary = {
        "val_acc": 0.91,
        "loss": float("nan"),
        "_step": 9,
        "curve": [1, 2],
        "_wandb": {"runtime": 3},
        "ok": True,
    }
    config = {
        "optimizer": "adam",
        "seed": 1,
        "net": {"width": 64, "note": None},
        "lr": {"value": 0.1, "desc": None},
    }
    write(
        folder / "project.csv",
        as_csv(
            ["summary", "config", "name"],
            (summary, config, "fine-sun-1"),
            (json.dumps(summary), json.dumps(config), "b"),
            ("__import__('os').system('touch executed')", {"a": 1}, "c"),
            index=True,
        ),
    )
    found = table("project.csv")
    first, second, third = found.rows.to_dict("records")
    expected = {
        "name": "fine-sun-1",
        "optimizer": "adam",
        "seed": "1",
        "net.width": "64",
        "net.note": "",
        "lr": "0.1",
    }
    expected |= {"val_acc": "0.91", "loss": "nan", "_step": "9", "ok": "true"}
    assert {name: first[name] for name in expected} == expected
    assert {name: second[name] for name in expected} == expected | {"name": "b"}
    assert third["summary"].startswith("__import__")
    assert not (folder / "executed").exists()
    assert found.notes == ("1 cell of config, summary hold no dict",)
    assert set(found.settings) == {"optimizer", "seed", "net.width", "net.note", "lr", "a"}


def test_a_chart_of_wandb_has_a_row_for_each_run_and_step_and_says_that_it_has_no_arms(folder):
    names = [f"{run} - val/acc{end}" for run in ("adam - w-0", "sgd-0") for end in ("", "__MIN", "__MAX")]
    write(
        folder / "chart.csv",
        as_csv(["Step", *names], (1, 0.5, 0.4, 0.6, 0.3, 0.3, 0.3), (2, 0.7, 0.6, 0.8, "", "", "")),
    )
    found = table("chart.csv")
    assert found.rows.to_dict("records") == [
        {"run": "adam - w-0", "Step": "1", "val/acc": "0.5"},
        {"run": "adam - w-0", "Step": "2", "val/acc": "0.7"},
        {"run": "sgd-0", "Step": "1", "val/acc": "0.3"},
    ]
    assert found.measured == ("val/acc",)
    assert "it does not say which arm or seed a run has" in found.notes[0]
    assert found.notes[1] == "4 columns with the lowest and highest value within a step left out"


# --- all of them ------------------------------------------------------------------------------------------------------


def test_reading_tables_and_logs_loads_no_framework(folder):
    write(folder / "runs" / "a" / "log.txt", "loss 1\n")
    program = (
        "import sys; from ablate.importing import HowToRead, read\n"
        "read(['runs/{arm}/log.txt'], HowToRead(lines=('loss (.*)',)))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ
    )
    assert set(done.stdout.split()) & {"torch", "mlflow", "optuna", "tensorboard", "lightning"} == set()
