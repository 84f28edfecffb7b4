"""Stores and exports that somebody else made to mislead the reader: each is judged as it is, or refused in a sentence."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import warnings
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from mutations import Watch, mutated
from test_mutated_files import sealed

from ablate.errors import DataError
from ablate.importing import HowToRead, Table, read

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"
GENERATED = """
DROP TABLE tags;
CREATE TABLE tags (run_uuid, key, value AS (hex(zeroblob(99000000))));
INSERT INTO tags (run_uuid, key) VALUES ('r', 'x');
"""


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(source: str, watch: Watch | None = None, **how) -> Table:
    with watch.on() if watch else nullcontext():
        return read([source], HowToRead(**how))


# --- MLflow -----------------------------------------------------------------------------------------------------------


def database(path: Path, *statements: str) -> None:
    """A database with MLflow's tables, whose columns hold whatever is put into them, and one run of one experiment."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE experiments (experiment_id, name, lifecycle_stage);
            CREATE TABLE runs (run_uuid, name, status, experiment_id, lifecycle_stage, start_time);
            CREATE TABLE params (run_uuid, key, value);
            CREATE TABLE tags (run_uuid, key, value);
            CREATE TABLE metrics (run_uuid, key, value, timestamp, step, is_nan);
            CREATE TABLE latest_metrics (run_uuid, key, value, timestamp, step, is_nan);
            INSERT INTO experiments VALUES ('1', 'toy', 'active');
            INSERT INTO runs VALUES ('r', 'n', 'FINISHED', '1', 'active', 1);
            INSERT INTO params VALUES ('r', 'seed', 0);
            INSERT INTO metrics VALUES ('r', 'acc', 0.5, 1, 1, 0);
            INSERT INTO latest_metrics VALUES ('r', 'acc', 0.5, 1, 1, 0);
            """
        )
        for statement in statements:
            connection.executescript(statement)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        *(
            (f"UPDATE {name} SET value = {value}", "is no number")
            for name in ("metrics", "latest_metrics")
            for value in ("'abc'", "NULL", "x'ff00'", "'9e'")
        ),
        *((f"UPDATE metrics SET step = {step}", "is no number") for step in ("'x'", "NULL", "1.5", "x'01'")),
        ("INSERT INTO experiments VALUES ('2', 'toy', 'active')", "two experiments that are called 'toy'"),
        ("INSERT INTO latest_metrics SELECT * FROM latest_metrics", "two values of 'acc'"),
        ("INSERT INTO params VALUES ('r', 'seed', 1)", "two values of 'seed'"),
        *(
            (f"DROP TABLE {name}; CREATE VIEW {name} AS {ENDLESS} SELECT n AS run_uuid FROM r", "is no table")
            for name in ("experiments", "runs", "params", "tags", "metrics", "latest_metrics")
        ),
        (
            GENERATED,
            "too big",
        ),
    ],
)
def test_a_database_that_mlflow_would_not_have_written_is_refused(folder, watch, statement, message):
    database(folder / "m.db", statement)
    with pytest.raises(DataError, match=message):
        table("mlflow:m.db#toy", watch, metric="acc", history=True)


def test_a_value_of_a_database_is_the_value_that_it_holds(folder):
    database(folder / "m.db")
    [row] = table("mlflow:m.db#toy").rows.to_dict("records")
    assert (row["seed"], row["acc"]) == ("0", "0.5")


META = "artifact_uri: file:///x\nlifecycle_stage: active\nrun_id: r{0}\nrun_name: n{0}\nstart_time: 1\nstatus: 3\n"


def files(root: Path, name: str = "name: toy\n") -> Path:
    """A folder of the old file store, with two runs; returns that of the second."""
    for number in range(2):
        run = root / "mlruns" / "7" / f"r{number}"
        for kind, value in (("params/arm", f"a{number}"), ("metrics/acc", "1 0.5 1\n2 0.6 2\n")):
            (run / kind).parent.mkdir(parents=True)
            (run / kind).write_text(value)
        (run / "meta.yaml").write_text(META.format(number))
    (root / "mlruns" / "7" / "meta.yaml").write_text(f"experiment_id: '7'\nlifecycle_stage: active\n{name}")
    return run


def replaced(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "holes":
        path.touch()
        os.truncate(path, 1 << 34)
    else:
        path.symlink_to(kind)


@pytest.mark.parametrize("kind", ["pipe", "holes", "nowhere", "/etc/passwd", "/dev/zero"])
@pytest.mark.parametrize("name", ["params/arm", "metrics/acc"])
def test_a_value_that_is_no_plain_file_is_refused(folder, name, kind):
    replaced(files(folder) / name, kind)
    with pytest.raises(DataError, match=f"mlruns/7/r1/{name}: (cannot be read|is a link, which is not)"):
        table("mlflow:mlruns#toy")


def test_a_folder_of_values_that_is_a_link_is_not_followed(folder):
    replaced(files(folder) / "params", "/etc")
    with pytest.raises(DataError, match="mlruns/7/r1/params: is a link, which is not followed"):
        table("mlflow:mlruns#toy")


@pytest.mark.parametrize(
    "line", ["1 0.5 x", "1 0.5 1.5", "1", "x 0.5 1", "1 0.5 " + "9" * 400, "1 0.5 " + "9" * 5000]
)
def test_a_line_that_is_no_value_of_a_metric_is_refused(folder, line):
    (files(folder) / "metrics" / "acc").write_text(f"1 0.5 1\n{line}\n")
    with pytest.raises(DataError, match="line 2 is no value of a metric"):
        table("mlflow:mlruns#toy")


@pytest.mark.parametrize(
    "text", ["²", "9" * 5000, "null", "-1", "[1]", "{a: 1}", "!!python/name:os.system ''"]
)
def test_whatever_the_start_of_a_run_is_the_run_is_read_or_named(folder, text):
    run = files(folder)
    about = (run / "meta.yaml").read_text().replace("start_time: 1", f"start_time: {text}")
    (run / "meta.yaml").write_text(about)
    found = table("mlflow:mlruns#toy")
    left_out = any("1 run left out, whose meta.yaml cannot be read: r1" in note for note in found.notes)
    assert len(found.rows) == 2 - left_out


@pytest.mark.parametrize("text", [None, "", "[", "a: &a [*a]", "\0"])
def test_a_run_whose_meta_yaml_cannot_be_read_is_named(folder, text):
    meta = files(folder) / "meta.yaml"
    meta.unlink() if text is None else meta.write_text(text)
    found = table("mlflow:mlruns#toy")
    assert found.rows["run_id"].tolist() == ["r0"]
    assert any("1 run left out, whose meta.yaml cannot be read: r1" in note for note in found.notes)


@pytest.mark.parametrize(
    "name", ["toy", "it's: 5'", "'", "a\tb", "word " * 30 + "end", "naïve", "null", "1e3", "- a"]
)
def test_an_experiment_has_the_name_that_its_yaml_says(folder, name):
    import yaml

    files(folder, yaml.safe_dump({"name": name}, allow_unicode=True))
    assert len(table(f"mlflow:mlruns#{name}").rows) == 2


def test_two_experiments_of_one_name_are_refused(folder):
    files(folder)
    shutil.copytree("mlruns/7", "mlruns/8")
    with pytest.raises(DataError, match="two experiments that are called 'toy': 7 and 8"):
        table("mlflow:mlruns#toy")


# --- Optuna -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A database and a journal of Optuna with a study of two trials."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    root = tmp_path_factory.mktemp("optuna")
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    for storage in (f"sqlite:///{root}/o.db", JournalStorage(JournalFileBackend(str(root / "o.log")))):
        study = optuna.create_study(storage=storage, study_name="toy")
        for arm in ("sgd", "adam"):
            study.enqueue_trial({"arm": arm})
        study.optimize(lambda t: len(t.suggest_categorical("arm", ["sgd", "adam"])), n_trials=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental, since Optuna 3.2
            study.set_metric_names(["arm"])
    return root


def test_a_parameter_keeps_its_values_whatever_the_metric_is_called(trials):
    for name in ("o.db", "o.log"):
        found = table(f"optuna:{trials / name}#toy")
        assert found.rows[["arm", "value"]].to_numpy().tolist() == [["sgd", "3.0"], ["adam", "4.0"]]


@pytest.mark.parametrize("name", ["studies", "trials", "trial_values", "trial_params", "study_directions"])
def test_a_query_in_the_place_of_optunas_tables_is_not_run(folder, trials, name):
    shutil.copy(trials / "o.db", "o.db")
    with closing(sqlite3.connect("o.db")) as connection:
        connection.executescript(
            f"DROP TABLE {name}; CREATE VIEW {name} AS {ENDLESS} SELECT n AS trial_id FROM r WHERE n < 0"
        )
    with pytest.raises(DataError, match=f"its '{name}' is no table"):
        table("optuna:o.db#toy")


def test_a_journal_of_holes_is_refused_at_once(folder, trials, watch):
    shutil.copy(trials / "o.log", "o.log")
    os.truncate("o.log", 1 << 30)
    with pytest.raises(DataError, match="is no storage of Optuna"):
        table("optuna:o.log#toy", watch)


# --- TensorBoard ------------------------------------------------------------------------------------------------------

EVENTS = [
    bytes.fromhex(f"090000000000000000100{step}2a0c0a0a0a0361636315") + bytes([0, 0, 128, 63])
    for step in (1, 2, 3)
]
NAME = "events.out.tfevents.1.host"


def test_no_byte_of_an_event_file_can_change_unseen(folder):
    whole = b"".join(map(sealed, EVENTS))
    rng = random.Random(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        (folder / NAME).write_bytes(changed)
        with pytest.raises(DataError, match=r"is damaged: the record at byte|is no event file"):
            table(NAME)


def test_zeros_at_the_end_of_an_event_file_take_no_time(folder, watch):
    (folder / NAME).write_bytes(b"".join(map(sealed, EVENTS)))
    os.truncate(NAME, 1 << 29)
    assert table(NAME, watch).rows["step"].tolist() == ["1", "2", "3"]


def test_whatever_an_event_says_it_is_read_or_refused(folder, watch):
    rng = random.Random(1)
    for _ in range(200):
        (folder / NAME).write_bytes(sealed(mutated(EVENTS[0], rng)) + sealed(EVENTS[1]))
        try:
            found = table(NAME, watch)
        except DataError:
            continue
        assert "2" in found.rows["step"].tolist()
    assert (watch.started, watch.written) == ([], [])


def test_a_scalar_that_is_called_step_does_not_count_the_steps(folder):
    event = bytes.fromhex("10072a0d0a0b0a047374657015") + bytes([0, 0, 128, 63])
    (folder / NAME).write_bytes(sealed(event) + sealed(EVENTS[0]))
    assert table(NAME).rows.to_dict("records")[-1] == {"step": "7", "acc": ""}


@pytest.mark.parametrize("kind", ["pipe", "nowhere", "/dev/zero"])
def test_a_file_of_a_pattern_that_cannot_be_read_is_not_passed_over(folder, kind):
    for seed in range(2):
        (folder / f"{seed}-{NAME}").write_bytes(sealed(EVENTS[0]))
    replaced(folder / f"1-{NAME}", kind)
    with pytest.raises(DataError, match=f"1-{NAME}: is no file"):
        table("{seed}-events*")
