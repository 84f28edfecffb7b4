"""`ablate doctor`: what is broken is named and makes the command fail; what is merely absent is a note."""

from __future__ import annotations

import json
import socket
from importlib import metadata

import pytest
import torch

from ablate import doctor


def by_name(checks):
    return {check.name: check for check in checks}


def test_a_sound_machine_passes_and_nothing_is_left_behind(workplace):
    before = sorted(path for path in workplace.root.rglob("*") if path.is_file())
    checks = json.loads(workplace.ablate("doctor", "--json"))
    assert {c["group"] for c in checks} >= {"python", "packages", "devices", "cores", "store", "data"}
    assert {c["state"] for c in checks} <= {"ok", "note"}
    named = {c["name"]: c for c in checks}
    assert "a convolution took" in named["cpu"]["said"]
    assert "answers: 0 studies" in named["MLflow"]["said"]
    assert named["torch"]["state"] == "ok"
    assert sorted(path for path in workplace.root.rglob("*") if path.is_file()) == before


def test_a_broken_store_is_named_and_the_exit_code_is_1(workplace):
    workplace.store.database.write_bytes(b"no database at all" * 100)
    output = workplace.ablate("doctor", code=1)
    [line] = [line for line in output.splitlines() if "✗" in line]
    assert "MLflow" in line
    assert "cannot be read as an MLflow database" in line


def test_a_store_that_is_not_there_yet_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checks = by_name(doctor.store())
    assert {check.state for check in checks.values()} == {"ok"}
    assert "is not there yet" in checks["MLflow"].detail
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_broken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").write_text("a file where the folder belongs")
    checks = by_name(doctor.store())
    assert checks["folder"].state == checks["Optuna"].state == "broken"
    assert checks["folder"].detail == f"{tmp_path / 'mlruns'}: is a file, not a folder"


def test_a_server_that_does_not_answer_is_broken_and_its_password_is_not_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:  # bound and not listening: nobody else's server can be there
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        checks = doctor.store()
    assert "secret" not in doctor.text(checks)
    check = by_name(checks)["MLflow"]
    assert check.state == "broken"
    assert "does not answer" in check.detail


@pytest.mark.parametrize(("storage", "state"), [("sqlite:///mine.db", "ok"), ("nonsense", "broken")])
def test_a_storage_of_the_users_own_is_tried(tmp_path, monkeypatch, storage, state):
    monkeypatch.chdir(tmp_path)
    assert by_name(doctor.store(storage))["Optuna"].state == state


def test_a_missing_package_is_broken_and_one_outside_its_bounds_a_note(monkeypatch):
    declared = ["no-such-package>=3", "numpy<1", "typer>=0.29", "ray>=2; extra == 'ray'"]
    monkeypatch.setattr(metadata, "requires", lambda _name: declared)
    checks = by_name(doctor.packages())
    assert {name: check.state for name, check in checks.items()} == {
        "no-such-package": "broken",
        "numpy": "note",
        "typer": "ok",
    }
    assert "pip install 'no-such-package>=3'" in checks["no-such-package"].detail


def test_whether_bfloat16_pays_on_the_cpu_is_tried_out():
    check = by_name(doctor.devices())["cpu bfloat16"]
    speedup = float(check.detail.split()[0])
    assert speedup > 0
    assert (check.state == "ok") == (speedup >= 1)
    assert ("float32` is faster" in check.detail) == (speedup < 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_every_cuda_device_computes_a_convolution():
    checks = by_name(doctor.devices())
    assert checks["cuda:0"].state == "ok"
    assert "GiB" in checks["cuda:0"].detail
