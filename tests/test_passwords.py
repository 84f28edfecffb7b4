"""Passwords are neither printed nor recorded, wherever they come from."""

from __future__ import annotations

import pytest

from ablate import launch, slurm
from ablate.errors import StudyError
from ablate.study import keys, spec
from ablate.text import without_password

SECRET = "s3cr3t-w0rd"

TEXTS = (
    f"postgresql://me:{SECRET}@host/name",
    f"postgresql+psycopg://me:{SECRET}@host:5432/name?sslmode=require",
    f"postgresql://me:a/{SECRET}@host/name",
    f"postgresql://me:a@{SECRET}@host/name",
    f"jdbc:postgresql://host/name?user=me&password={SECRET}",
    f"GET http://host/api?X-Amz-Signature={SECRET}&token={SECRET} failed",
    f"--password {SECRET}",
    f"--password '{SECRET} and more'",
    f"--api-key={SECRET} --set lr=1",
    f"--access-token {SECRET}",
    f"WANDB_API_KEY={SECRET}",
    f"HF_TOKEN={SECRET} python train.py",
    f"AWS_SECRET_ACCESS_KEY: {SECRET}",
    f"db1password: {SECRET}",
    f"a/b: my.password: {SECRET}",
    f"/etc/passwd={SECRET}",
    f"{{'password': '{SECRET}', 'user': 'me'}}",
    f"connection(host=h, password={SECRET}, port=1)",
    f"Authorization: Bearer {SECRET}",
    f"{{'Authorization': 'Basic {SECRET}'}}",
    f"(psycopg.OperationalError) connection to postgresql://me:{SECRET}@h failed\n(Background: https://sqlalche.me/e/20)",
    f"HTTPConnectionPool(host='h', port=80): Max retries with url: http://me:{SECRET}@h/api",
)

PLAIN = (
    "max_tokens: 64, tokenizer=bert, model.token=cls, --max-tokens 5",
    "http://host:80/a@b and user@host.org",
    "key=3f2a, keys: 4, monkey=1, secret sauce: yes",
    "the password is wrong",
    "/etc/passwd: is no table",
    "data/my-secret: cannot be read",
    "../x.credentials: cannot be read",
    "studies/width.yaml: optimizer.lr: 0.1",
    "sqlite:////home/me/mlruns/mlflow.db",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_password_in_a_text_is_masked(text):
    masked = without_password(text)
    assert SECRET not in masked
    assert "***" in masked
    assert without_password(masked) == masked


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_password_stays(text):
    assert without_password(text) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_PASSWORD", SECRET),
        ("MLFLOW_TRACKING_TOKEN", SECRET),
        ("WANDB_API_KEY", SECRET),
        ("MLFLOW_TRACKING_URI", f"https://me:{SECRET}@host"),
        ("HTTPS_PROXY", f"http://me:{SECRET}@proxy:3128"),
        ("ABLATE_STORAGE", f"postgresql://me:{SECRET}@host/name"),
    ],
)
def test_a_password_of_the_environment_is_masked_in_any_text(monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    launch.notify(f"401 for {SECRET!r}: denied")
    assert capsys.readouterr().err == "401 for '***': denied\n"


def test_what_is_said_of_a_place_that_is_called_password_is_no_password(capsys):
    error = StudyError("holds a password", place="y.yaml:5: baseline.api_key", hint=f"--token {SECRET}")
    launch.notify_error(error)
    assert capsys.readouterr().err == "error: y.yaml:5: baseline.api_key: holds a password\n  --token ***\n"


def test_a_recorded_command_line_has_no_password(monkeypatch):
    arguments = ["run", "a b.yaml", "--storage", f"mysql://u:{SECRET}@h/n", "--token", SECRET]
    monkeypatch.setattr("sys.argv", ["ablate", *arguments])
    assert launch.command_line() == "ablate run 'a b.yaml' --storage 'mysql://***@h/n' --token ***"


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (keys.read_environment, {"WANDB_API_KEY": SECRET}),
        (keys.read_environment, {"DATABASE": f"postgresql://me:{SECRET}@host/name"}),
        (keys.read_command, ["python", "train.py", "--password", SECRET]),
        (keys.read_command, ["python", "train.py", f"--db=postgresql://me:{SECRET}@host/name"]),
    ],
)
def test_a_study_holds_no_password(read, value):
    with pytest.raises(StudyError, match="holds a password") as raised:
        read(value)
    assert SECRET not in str(raised.value)


KEYS = [
    "ghp_" + "a1B2" * 9,
    "hf_" + "aB" * 17,
    "sk-ant-" + "a1-B" * 10,
    "AKIA" + "A1B2" * 4,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
]


@pytest.mark.parametrize("key", KEYS)
def test_the_key_of_a_service_is_known_by_its_form(key):
    assert without_password(f"401 for {key}, see '{key}'") == "401 for ***, see '***'"


SETTINGS = {
    "baseline.db_password": "{db_password: s3cr3t-w0rd}",
    "baseline.log.api-key": "{log: {api-key: [s3cr3t-w0rd]}}",
    "baseline.x": "{x: 'mysql://me:s3cr3t-w0rd@host/name'}",
    "baseline.cmd": "{cmd: [--token, '--password=s3cr3t-w0rd']}",
}


@pytest.mark.parametrize("place", SETTINGS)
def test_no_setting_of_a_study_is_a_password(place):
    text = f"study: x\nmargin: 1\nmetric: val/loss\ntrain: a:b\nseeds: 2\nbaseline: {SETTINGS[place]}\nfactors: {{lr: [1]}}\n"
    with pytest.raises(StudyError, match="holds a password") as raised:
        spec.parse(text)
    assert (raised.value.place or "").endswith(place)
    assert SECRET not in str(raised.value)


def test_no_level_and_no_override_is_a_password():
    text = "study: x\nmargin: 1\nmetric: val/loss\ntrain: a:b\nseeds: 2\nbaseline: {secret: null, lr: 0}\nfactors: {FACTOR: [LEVEL]}\n"
    for factor, level, sets in (
        ("secret", SECRET, ()),
        ("lr", f"'http://me:{SECRET}@h/x'", ()),
        ("lr", "1", [f"secret={SECRET}"]),
    ):
        with pytest.raises(StudyError, match="holds a password") as raised:
            spec.parse(text.replace("FACTOR", factor).replace("LEVEL", level), sets=sets)
        assert SECRET not in str(raised.value)


def test_settings_that_hold_no_password_are_free():
    tree = (
        "{token: cls, tokens: many, secret: 3, password: null, api_key: '', keys: a, secrets: x.json, key: b}"
    )
    text = f"study: x\nmargin: 1\nmetric: val/loss\ntrain: a:b\nseeds: 2\nbaseline: {tree}\nfactors: {{secret: [4]}}\n"
    assert spec.parse(text).baseline.get("token") == "cls"


def test_variables_that_hold_no_password_are_free():
    variables = {"TOKENIZERS_PARALLELISM": "false", "KEYS": "3", "PASSWORD": ""}
    assert keys.read_environment(variables) == variables


def test_a_batch_script_holds_no_password(tmp_path):
    arguments = ["--storage", f"postgresql://me:{SECRET}@host/name"]
    with pytest.raises(StudyError, match="a password") as raised:
        slurm.script(tmp_path / "s.yaml", "s", slurm.BatchJob(), arguments, tmp_path / "s.sbatch")
    assert SECRET not in str(raised.value)


def test_the_name_of_a_study_file_does_not_end_the_comment_of_the_batch_script(tmp_path):
    study = tmp_path / "s\ntouch mark\r#.yaml"
    lines = slurm.script(study, "s", slurm.BatchJob(), [], study).split("\n")
    assert lines[1].count(r"s\ntouch mark\r#.yaml") == 2
    assert lines[2].startswith("#SBATCH ")
