"""`--devices`: which accelerators a study is trained on, whatever torch calls them. torch's answers are made up here."""

from __future__ import annotations

import types

import pytest
import torch

from ablate import doctor, launch
from ablate.errors import StudyError
from ablate.executors.devices import may_have_accelerator
from ablate.measuring import device_check


@pytest.fixture
def machine(monkeypatch):
    """Let torch say that this machine has so many accelerators of a kind."""

    def have(kind: str | None, count: int) -> None:
        device = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: device)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: count > 0)

    return have


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_every_accelerator_that_torch_knows_is_used(machine, kind):
    machine(kind, 2)
    assert may_have_accelerator()
    assert [slot.name for slot in launch.slots("auto", None, 1)] == [f"{kind}-0", f"{kind}-1"]
    assert [slot.name for slot in launch.slots(f"{kind}:1", None, 1)] == [f"{kind}-1"]
    assert [slot.name for slot in launch.slots(f"{kind}", None, 1)] == [f"{kind}-0"]
    assert {slot.device for slot in launch.slots("cpu", 2, 1)} == {"cpu"}


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ("cuda:2", "this machine has 2 cuda devices"),
        ("xpu:0", "this machine has 2 cuda devices"),
        ("cuda:0,mps", "this machine has 2 cuda devices"),
        ("cpu,cuda:0", "'cpu' is not a device"),
        ("cuda:", "'cuda:' is not a device"),
        ("GPU 0", "'GPU 0' is not a device"),
        ("", "'' is not a device"),
    ],
)
def test_a_device_that_is_not_there_is_refused(machine, devices, words):
    machine("cuda", 2)
    with pytest.raises(StudyError, match=words):
        launch.slots(devices, None, 1)


def test_without_an_accelerator_a_study_runs_on_the_cpu(machine):
    machine(None, 0)
    assert {slot.device for slot in launch.slots("auto", 2, 1)} == {"cpu"}
    with pytest.raises(StudyError, match="no accelerator that torch can use"):
        launch.slots("cuda:0", None, 1)


def test_the_doctor_tries_every_accelerator(machine, monkeypatch):
    """This machine has none, so each of them fails, by name and in one line."""
    machine("xpu", 2)
    checks = {check.name: check for check in doctor.devices()}
    assert checks["cpu"].state == "ok"
    for name in ("xpu:0", "xpu:1"):
        assert checks[name].state == "broken"
        assert "\n" not in checks[name].detail


def test_an_accelerator_without_properties_has_the_name_of_its_kind(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda kind: types.SimpleNamespace())
    assert device_check._about(torch.device("mps", 0)) == ("mps", None)
    about = types.SimpleNamespace(name="Arc", total_memory=16)
    module = types.SimpleNamespace(get_device_properties=lambda device: about)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    assert device_check._about(torch.device("xpu", 1)) == ("Arc", 16)
