"""The devices that torch lists on this machine, each tried out: a device that is listed may still not compute."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn import functional as F

BATCH, CHANNELS, SIDE = 64, 64, 32
REPEATS = 10
FEW = 8
"""Images that bfloat16 is tried with: where it is emulated, more would take too long."""

TOLERANCE = 1e-2
"""Greatest difference from the CPU's result, for outputs of size 1: TF32 and other summing orders stay well below."""


@dataclass(frozen=True)
class Device:
    """A device and how it did. name: as in `--devices`. memory: bytes; None for the CPU, whose memory all processes share. seconds: of
    one convolution forward.

    problem: why it does not compute, or None. bfloat16: how many times as fast a convolution is in it as in float32; a
    device that does not compute in it emulates it, far below 1.
    """

    name: str
    kind: str
    memory: int | None
    seconds: float
    problem: str | None = None
    bfloat16: float = 0.0

    @property
    def flops(self) -> float:
        """Floating-point operations a second in that convolution."""
        return 2 * BATCH * CHANNELS * CHANNELS * 9 * SIDE * SIDE / self.seconds if self.seconds else 0.0


def devices() -> tuple[Device, ...]:
    """Run a convolution on the CPU and on every accelerator, time it, and compare its result with the CPU's."""
    tried = [_try("cpu", "CPU", None)]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    for number in range(0 if accelerator is None else torch.accelerator.device_count()):
        name = f"{accelerator.type}:{number}" if accelerator is not None else ""
        try:
            tried.append(_try(name, *_about(torch.device(name))))
        except Exception as error:  # noqa: BLE001 — drivers fail in any way
            tried.append(Device(name, "unknown", None, 0.0, _first_line(error)))
    return tuple(tried)


def _about(device: torch.device) -> tuple[str, int | None]:
    """Return the name of an accelerator and its memory in bytes; None where torch does not tell."""
    properties = getattr(torch.get_device_module(device.type), "get_device_properties", None)
    if properties is None:
        return device.type, None
    about = properties(device)
    return str(about.name), int(about.total_memory)


def _try(name: str, kind: str, memory: int | None) -> Device:
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=draws)
    weights = torch.randn(CHANNELS, CHANNELS, 3, 3, generator=draws) / (9 * CHANNELS) ** 0.5
    try:
        x, w = (t.to(name).to(memory_format=torch.channels_last) for t in (images, weights))
        # The first call chooses its algorithm. The fastest of several is the one that other work disturbed least.
        result = F.conv2d(x, w, padding=1)
        seconds = min(_seconds(x, w) for _ in range(REPEATS))
        few, half = x[:FEW], (x[:FEW].bfloat16(), w.bfloat16())
        F.conv2d(*half, padding=1)
        gain = min(_seconds(few, w) for _ in range(REPEATS)) / min(_seconds(*half) for _ in range(3))
        error_size = float((result[:1].cpu() - F.conv2d(images[:1], weights, padding=1)).abs().max())
    except Exception as error:  # noqa: BLE001 — drivers fail in any way
        return Device(name, kind, memory, 0.0, _first_line(error))
    problem = f"a convolution is wrong by {error_size:.2g}" if not error_size < TOLERANCE else None
    return Device(name, kind, memory, seconds, problem, gain)


def _seconds(x: torch.Tensor, w: torch.Tensor) -> float:
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
    began = time.perf_counter()
    F.conv2d(x, w, padding=1)
    if x.device.type != "cpu":
        torch.accelerator.synchronize(x.device)
    return time.perf_counter() - began


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
