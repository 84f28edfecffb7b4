"""Which accelerators this process can use, without importing torch."""

from __future__ import annotations

import ctypes
import platform
import sys

_DRIVERS = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1", "nvcuda.dll")
"""The library that comes with the driver: on Linux, in WSL2, which has no /dev/nvidiactl and keeps it in a folder of its own, and on
Windows.
"""


VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}
"""Kinds of accelerators, as torch names them → the variable that says which of them a process sees. Of others it sees all."""

_INTEL = ("libze_loader.so.1", "ze_loader.dll")
"""The loader of Intel's Level Zero, which torch needs for its GPUs."""


def may_have_accelerator() -> bool:
    """Return whether torch may find an accelerator here; False where it cannot.

    torch is asked where it is loaded already. Otherwise the drivers' own libraries are: importing torch takes seconds, and on a
    machine without a GPU they would be wasted.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "accelerator"):
        return bool(torch.accelerator.is_available())
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return is_apple or cuda_devices() > 0 or any(_loads(name) for name in _INTEL)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def cuda_devices() -> int:
    """Return the number of CUDA devices that this process may use (`CUDA_VISIBLE_DEVICES` counts); 0 without a driver.

    torch is asked where it is loaded already. Otherwise the driver's own library is: importing torch takes seconds, and on
    a machine without a GPU they would be wasted.
    """
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "cuda"):
        return int(torch.cuda.device_count())
    return driver_devices()


def driver_devices() -> int:
    """Return how many devices the driver's library has for this process; 0 where there is none that can be loaded."""
    for name in _DRIVERS:
        try:
            driver = ctypes.CDLL(name)
            count = ctypes.c_int(0)
            # 0 is CUDA_SUCCESS; without a device, `cuInit` says so by another code.
            if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
                return max(0, count.value)
        except (OSError, AttributeError):  # no such library, or one that is no driver
            continue
        return 0
    return 0
