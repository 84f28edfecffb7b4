"""How many GPUs there are, asked of a driver that is not one, in processes that have no torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

ASK = "from ablate.executors.devices import cuda_devices; print(cuda_devices())"

DRIVER = """
int cuInit(unsigned int flags) {{ return {init}; }}
int cuDeviceGetCount(int *count) {{ *count = {count}; return {counted}; }}
"""


def asked(libraries: str, before: str = "") -> str:
    """What a new process is told. libraries: the folder in which it finds its drivers."""
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\n{ASK}"],
        env=os.environ | {"LD_LIBRARY_PATH": libraries},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("cc") is None, reason="a driver has to be compiled")
@pytest.mark.parametrize(
    ("source", "devices"),
    [
        (DRIVER.format(init=0, count=3, counted=0), "3"),
        (DRIVER.format(init=0, count=0, counted=0), "0"),
        (DRIVER.format(init=100, count=3, counted=0), "0"),  # CUDA_ERROR_NO_DEVICE
        (DRIVER.format(init=0, count=3, counted=3), "0"),
        ("int something_else(void) { return 0; }", "0"),
    ],
    ids=["three", "none", "no device", "an error", "no driver"],
)
def test_the_driver_is_asked_for_its_devices(tmp_path, source, devices):
    (tmp_path / "driver.c").write_text(source)
    library = tmp_path / "libcuda.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "driver.c"], check=True)
    assert asked(str(tmp_path)) == devices
    # Where torch is loaded it is the one to say, whatever the driver has.
    torch = "import sys, types; cuda = types.SimpleNamespace(device_count=lambda: 5)"
    assert asked(str(tmp_path), f"{torch}; sys.modules['torch'] = types.SimpleNamespace(cuda=cuda)") == "5"


def test_a_library_that_cannot_be_loaded_is_no_driver(tmp_path):
    (tmp_path / "libcuda.so.1").write_text("this is text")
    assert asked(str(tmp_path)) == "0"


def test_asking_for_devices_imports_no_torch(tmp_path):
    code = f"{ASK}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
